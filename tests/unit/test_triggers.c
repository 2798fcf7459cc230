/* test_triggers.c - triggers on a real database, the way of an event to the durable queue, and
 * objects fetched and put. The queue and the registry are played; the store is an HTTP server on
 * the loop. */
#include "tests/unit/store_support.h"

#include <event2/buffer.h>
#include <event2/http.h>

#include "common/json.h"
#include "common/limits.h"
#include "events/events.h"
#include "events/s3.h"
#include "tests/unit/alloc_support.h"

static struct ground g;
static struct events *ev;
static struct async_hooks hooks;

/* What the queue got last, as text; and what it answers. */
static struct {
    struct un_buf text;
    unsigned specs;
    int rc;
    enum async_result result;
    struct un_post post;
    async_accept_cb cb;
    void *arg;
    struct async_accepted list[LIMIT_ASYNC_BATCH];
} queue;

/* How the last step ended. */
static struct {
    bool ended;
    enum async_verdict verdict;
    char why[600], body[64], type[64];
} step_end;

/* What the object store was asked last, and what it answers. */
static struct {
    struct evhttp *http;
    unsigned port, requests;
    int status;
    char uri[512], authorization[512], sha[80], type[64], body[64];
} s3;

/* --- what is below, played -------------------------------------------------------------------- */

void async_set_hooks(struct scheduler *s, const struct async_hooks *h)
{
    hooks = *h;
}

static void answer(void *arg)
{
    struct un_error err = UN_ERROR_INIT;
    for (unsigned i = 0; i < queue.specs; i++) {
        queue.list[i].result = queue.result;
        memset(queue.list[i].id, '0', UN_ID_LEN);
    }
    queue.cb(queue.arg, queue.rc, queue.list, queue.rc ? 0 : queue.specs, &err);
}

void async_submit_many(struct scheduler *s, const struct async_spec *specs, size_t count,
                       async_accept_cb cb, void *arg)
{
    alloc_hold(true);
    un_buf_reset(&queue.text);
    for (size_t i = 0; i < count; i++) {
        const struct async_spec *p = &specs[i];
        un_buf_printf(&queue.text, "%s|%s|%s|%s|%s|%s|%d|%llu\n", p->function,
                      p->qualifier ? p->qualifier : "", p->trigger, p->dedupe_scope,
                      p->source ? p->source : "", p->sink ? p->sink : "", (int)p->order,
                      (unsigned long long)p->source_bytes);
        for (size_t k = 0; k < p->field_count; k++) {
            assert_non_null(p->fields[k].value);
        }
        assert_true(p->dedupe_key && strlen(p->dedupe_key) == 64 && p->body_len > 0);
    }
    alloc_hold(false);
    queue.specs = (unsigned)count;
    queue.cb = cb;
    queue.arg = arg;
    queue.post = (struct un_post){.fn = answer};
    un_loop_post(g.loop, &queue.post);
}

void async_step_done(struct async_step *step, enum async_verdict verdict, const char *why,
                     struct async_body *body)
{
    step_end.ended = true;
    step_end.verdict = verdict;
    snprintf(step_end.why, sizeof(step_end.why), "%s", why ? why : "");
    assert_int_equal(verdict == ASYNC_SUCCESS, why == NULL);
    if (body) {
        snprintf(step_end.body, sizeof(step_end.body), "%.*s", (int)body->len, (char *)body->data);
        snprintf(step_end.type, sizeof(step_end.type), "%s",
                 body->content_type ? body->content_type : "");
        free(body->data);
        free(body->content_type);
    }
    ground_came(&g);
}

/* Any function that begins with 'f' is there. */
static struct lookup {
    struct un_post post;
    function_version_cb cb;
    void *arg;
    bool there;
} lookup;

static void tell_version(void *arg)
{
    struct un_error err = {.code = -ENOENT, .text = "no such function"};
    lookup.cb(lookup.arg, lookup.there ? 0 : -ENOENT, NULL, &err);
}

void function_resolve(struct registry *r, const char *name, const char *qualifier,
                      function_version_cb cb, void *arg)
{
    lookup = (struct lookup){
        .post = {.fn = tell_version}, .cb = cb, .arg = arg, .there = name[0] == 'f'};
    un_loop_post(g.loop, &lookup.post);
}

static void keep(char *to, size_t size, struct evhttp_request *r, const char *name)
{
    const char *value = evhttp_find_header(evhttp_request_get_input_headers(r), name);
    snprintf(to, size, "%s", value ? value : "");
}

static void on_request(struct evhttp_request *r, void *arg)
{
    struct evbuffer *in = evhttp_request_get_input_buffer(r), *out = evbuffer_new();
    s3.requests++;
    snprintf(s3.uri, sizeof(s3.uri), "%s", evhttp_request_get_uri(r));
    keep(s3.authorization, sizeof(s3.authorization), r, "Authorization");
    keep(s3.sha, sizeof(s3.sha), r, "x-amz-content-sha256");
    keep(s3.type, sizeof(s3.type), r, "Content-Type");
    int n = evbuffer_remove(in, s3.body, sizeof(s3.body) - 1);
    s3.body[n > 0 ? n : 0] = '\0';
    evbuffer_add_printf(out,
                        s3.status == 200 ? "the object" : "<Error><Code>Bad\x01</Code></Error>");
    evhttp_add_header(evhttp_request_get_output_headers(r), "Content-Type", "image/jpeg");
    evhttp_send_reply(r, s3.status, "x", out);
    evbuffer_free(out);
}

/* --- the world -------------------------------------------------------------------------------- */

static const struct store_schema *const schemas[] = {&events_schema, NULL};

static void open_events(void)
{
    struct un_error err = UN_ERROR_INIT;
    const struct events_spec spec = {.loop = g.loop, .store = g.store};
    if (events_open(&spec, &ev, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static int setup(void **state)
{
    struct un_error err = UN_ERROR_INIT;
    memset(&queue, 0, sizeof(queue));
    memset(&s3, 0, sizeof(s3));
    ground_open(&g);
    assert_int_equal(ground_open_store(&g, schemas, &err), 0);
    open_events();
    s3.http = evhttp_new(un_loop_base(g.loop));
    struct evhttp_bound_socket *bound = evhttp_bind_socket_with_handle(s3.http, "127.0.0.1", 0);
    struct sockaddr_in address;
    socklen_t len = sizeof(address);
    assert_int_equal(
        getsockname(evhttp_bound_socket_get_fd(bound), (struct sockaddr *)&address, &len), 0);
    s3.port = ntohs(address.sin_port);
    s3.status = 200;
    evhttp_set_allowed_methods(s3.http, EVHTTP_REQ_GET | EVHTTP_REQ_PUT);
    evhttp_set_gencb(s3.http, on_request, NULL);
    return 0;
}

static int teardown(void **state)
{
    evhttp_free(s3.http);
    events_close(ev);
    un_buf_done(&queue.text);
    ground_close(&g);
    return 0;
}

static struct {
    int rc;
    bool created;
    char token[TRIGGER_TOKEN_SIZE + 100], error[512];
} put;

static void on_put(void *arg, int rc, const struct trigger *t, bool created, const char *token,
                   const struct un_error *err)
{
    put.rc = rc;
    put.created = created;
    snprintf(put.token, sizeof(put.token), "%s", token ? token : "");
    snprintf(put.error, sizeof(put.error), "%s", rc < 0 && err ? err->text : "");
    ground_came(&g);
}

static int put_trigger(const char *name, const char *json)
{
    un_autojson json_t *body = NULL;
    alloc_hold(true);
    assert_int_equal(un_json_parse(json, strlen(json), &body, NULL), 0);
    alloc_hold(false);
    trigger_put(ev, name, body, on_put, NULL);
    ground_wait(&g);
    return put.rc;
}

static void on_done(void *arg, int rc, const struct un_error *err)
{
    put.rc = rc;
    ground_came(&g);
}

static int remove_trigger(const char *name)
{
    trigger_remove(ev, name, on_done, NULL);
    ground_wait(&g);
    return put.rc;
}

/* An S3 trigger that fetches from the played store and puts there. */
static void put_store_trigger(const char *more)
{
    char json[512];
    snprintf(json, sizeof(json),
             "{\"type\":\"s3\",\"function\":\"f\",\"bucket\":\"b\",\"prefix\":\"in/\",\"endpoint\":"
             "\"http://127.0.0.1:%u\",\"fetch\":true,\"put\":\"b/out/\"%s}",
             s3.port, more);
    if (put_trigger("t", json) < 0) {
        fail_msg("%s", put.error);
    }
}

/* --- triggers --------------------------------------------------------------------------------- */

static void a_new_trigger_has_a_token_and_keeps_it(void **state)
{
    char token[sizeof(put.token)];
    assert_int_equal(put_trigger("t", "{\"type\":\"s3\",\"function\":\"f\"}"), 0);
    assert_true(put.created && strlen(put.token) == TRIGGER_TOKEN_SIZE - 1);
    strcpy(token, put.token);
    const struct trigger *t = trigger_find(ev, "t");
    uint64_t id = t->id;
    assert_true(trigger_token_is(t, token) && trigger_by_token(ev, token) == t);
    token[3] ^= 1;
    assert_false(trigger_token_is(t, token) || trigger_by_token(ev, token));
    assert_false(trigger_token_is(t, ""));
    token[3] ^= 1;
    assert_int_equal(put_trigger("t", "{\"type\":\"s3\",\"function\":\"f\",\"bucket\":\"x\"}"), 0);
    assert_true(!put.created && !*put.token);
    t = trigger_find(ev, "t");
    assert_true(t->id == id && trigger_token_is(t, token));
    /* The token itself is nowhere in the file. */
    char sql[256];
    snprintf(sql, sizeof(sql), "SELECT count(*) FROM triggers WHERE instr(config, '%s') OR secret",
             token);
    assert_int_equal(ground_number(&g, sql), 0);
}

static void triggers_come_back_after_a_restart_and_go_when_removed(void **state)
{
    static const char *const names[] = {"m", "a", "z", "c"}, *const order[] = {"a", "c", "m", "z"};
    char token[sizeof(put.token)];
    for (size_t i = 0; i < UN_ARRAY_SIZE(names); i++) {
        assert_int_equal(
            put_trigger(names[i], "{\"type\":\"s3\",\"function\":\"f\",\"endpoint\":\"http://x\","
                                  "\"access_key\":\"AK\",\"secret_key\":\"SK\"}"),
            0);
    }
    strcpy(token, put.token); /* of "c" */
    events_close(ev);
    open_events();
    const struct trigger *t = NULL;
    for (size_t i = 0; i < UN_ARRAY_SIZE(order); i++) {
        t = trigger_after(ev, t ? t->name : NULL);
        assert_string_equal(t->name, order[i]);
        assert_string_equal(t->config.secret_key, "SK");
    }
    assert_null(trigger_after(ev, "z"));
    assert_ptr_equal(trigger_by_token(ev, token), trigger_find(ev, "c"));
    assert_int_equal(remove_trigger("c"), 0);
    assert_int_equal(remove_trigger("c"), -ENOENT);
    assert_null(trigger_find(ev, "c"));
    assert_int_equal(ground_number(&g, "SELECT count(*) FROM triggers"), 3);
}

static void a_function_that_is_not_there_is_named(void **state)
{
    assert_int_equal(put_trigger("t", "{\"type\":\"s3\",\"functions\":[\"f\",\"gone:live\"]}"),
                     -ENOTSUP);
    assert_non_null(strstr(put.error, "gone:live"));
    assert_null(trigger_find(ev, "t"));
}

/* --- intake ----------------------------------------------------------------------------------- */

static struct intake_report got;
static int got_rc;

static void on_report(void *arg, int rc, const struct intake_report *report,
                      const struct un_error *err)
{
    got = *report;
    got_rc = rc;
    ground_came(&g);
}

#define RECORD(key)                                                                                \
    "{\"eventSource\":\"ceph:s3\",\"eventName\":\"ObjectCreated:Put\",\"s3\":{\"bucket\":{"        \
    "\"name\":"                                                                                    \
    "\"b\"},\"object\":{\"key\":\"" key                                                            \
    "\",\"size\":77,\"versionId\":\"v 1\",\"sequencer\":\"01\"}}}"

static int take_in(const char *text, const char *trigger)
{
    struct s3_delivery d;
    alloc_hold(true);
    assert_int_equal(s3_parse(text, strlen(text), &d, NULL), 0);
    alloc_hold(false);
    intake_submit(ev, &d.events, trigger, 0, on_report, NULL);
    s3_delivery_done(&d);
    ground_wait(&g);
    return got_rc;
}

static void an_entry_a_function_and_trigger(void **state)
{
    put_store_trigger("");
    assert_int_equal(
        put_trigger("u", "{\"type\":\"s3\",\"functions\":[\"f\",\"f2:live\"],\"order\":\"drop\"}"),
        0);
    assert_int_equal(put_trigger("off", "{\"type\":\"s3\",\"function\":\"f\",\"enabled\":false}"),
                     0);
    assert_int_equal(take_in("{\"Records\":[" RECORD("in/a b") "," RECORD("else") "]}", NULL), 0);
    assert_string_equal(queue.text.data, "f||t|t/f:|b in/a%20b v%201|b out/a%20b|0|77\n"
                                         "f||u|u/f:|||2|0\n"
                                         "f2|live|u|u/f2:live|||2|0\n"
                                         "f||u|u/f:|||2|0\n"
                                         "f2|live|u|u/f2:live|||2|0\n");
    assert_true(got.events == 2 && got.matched == 2 && got.accepted == 5 && got.count == 5);
    assert_int_equal(trigger_find(ev, "u")->accepted, 4);
    assert_int_equal(trigger_find(ev, "t")->filtered, 1);
    struct events_stats stats;
    events_get_stats(ev, &stats);
    assert_int_equal(stats.counts[INTAKE_CEPH][INTAKE_ACCEPTED], 5);
    assert_int_equal(stats.triggers[EVENT_S3], 3);
}

static void what_nobody_wants_does_not_come_to_the_queue(void **state)
{
    put_store_trigger("");
    assert_int_equal(take_in("{\"Records\":[" RECORD("else") "]}", "t"), 0);
    assert_int_equal(queue.specs, 0);
    assert_true(got.events == 1 && got.matched == 0);
    assert_int_equal(take_in("{\"Records\":[]}", "t"), 0);
    assert_int_equal(take_in("{\"Records\":[" RECORD("in/x") "]}", "nobody"), 0);
    assert_int_equal(got.matched, 0);
}

static void what_the_queue_refuses_is_told(void **state)
{
    struct events_stats stats;
    put_store_trigger("");
    queue.rc = -ENOSPC;
    assert_int_equal(take_in("{\"Records\":[" RECORD("in/x") "]}", "t"), -ENOSPC);
    queue.rc = 0;
    queue.result = ASYNC_DUPLICATE;
    assert_int_equal(take_in("{\"Records\":[" RECORD("in/x") "]}", "t"), 0);
    assert_true(got.duplicates == 1 && got.accepted == 0);
    events_get_stats(ev, &stats);
    assert_int_equal(stats.counts[INTAKE_CEPH][INTAKE_FAILED], 1);
    assert_int_equal(stats.counts[INTAKE_CEPH][INTAKE_DUPLICATE], 1);
}

/* --- objects ---------------------------------------------------------------------------------- */

static struct async_step step_for(const char *trigger, const char *locator)
{
    memset(&step_end, 0, sizeof(step_end));
    return (struct async_step){.id = "x", .function = "f", .trigger = trigger, .locator = locator};
}

static void run_step(void (*hook)(void *arg, struct async_step *step), struct async_step *step)
{
    hook(hooks.arg, step);
    assert_false(step_end.ended); /* never from inside */
    ground_wait(&g);
}

static void objects_are_fetched_and_put_with_signatures(void **state)
{
    put_store_trigger(",\"access_key\":\"AKID\",\"secret_key\":\"SECRET\",\"region\":\"eu-1\"");
    struct async_step step = step_for("t", "b in/%C3%A9%20+%25?.jpg v%201");
    run_step(hooks.fetch, &step);
    assert_int_equal(step_end.verdict, ASYNC_SUCCESS);
    assert_string_equal(step_end.body, "the object");
    assert_string_equal(step_end.type, "image/jpeg");
    assert_string_equal(s3.uri, "/b/in/%C3%A9%20%2B%25%3F.jpg?versionId=v%201");
    assert_non_null(strstr(s3.authorization, "AWS4-HMAC-SHA256 Credential=AKID/"));
    assert_non_null(strstr(s3.authorization, "/eu-1/s3/aws4_request"));
    assert_null(strstr(s3.authorization, "SECRET"));
    step = step_for("t", "b out/../x");
    step.body = "abc";
    step.body_len = 3;
    step.content_type = "text/x";
    run_step(hooks.put, &step);
    assert_int_equal(step_end.verdict, ASYNC_SUCCESS);
    assert_string_equal(s3.uri, "/b/out/../x"); /* as it is named, not walked */
    assert_string_equal(s3.body, "abc");
    assert_string_equal(s3.type, "text/x");
    /* SHA-256 of "abc" (FIPS 180-4's example). */
    assert_string_equal(s3.sha, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void a_store_without_credentials_is_asked_unsigned(void **state)
{
    put_store_trigger("");
    struct async_step step = step_for("t", "b k");
    run_step(hooks.fetch, &step);
    assert_int_equal(step_end.verdict, ASYNC_SUCCESS);
    assert_string_equal(s3.authorization, "");
}

static void refusals_of_the_store_are_told_and_tried_again(void **state)
{
    put_store_trigger("");
    s3.status = 503;
    struct async_step step = step_for("t", "b k");
    run_step(hooks.fetch, &step);
    assert_int_equal(step_end.verdict, ASYNC_RETRY);
    assert_non_null(strstr(step_end.why, "503 (Bad?)")); /* nothing that could steer a terminal */
    step = step_for("t", "b k");
    run_step(hooks.put, &step);
    assert_int_equal(step_end.verdict, ASYNC_RETRY);
    s3.status = 302; /* not followed */
    step = step_for("t", "b k");
    run_step(hooks.fetch, &step);
    assert_int_equal(step_end.verdict, ASYNC_RETRY);
    assert_int_equal(s3.requests, 3);
}

static void a_trigger_that_is_gone_gives_up(void **state)
{
    struct async_step step = step_for("t", "b k");
    run_step(hooks.fetch, &step);
    assert_int_equal(step_end.verdict, ASYNC_GIVE_UP);
    put_store_trigger("");
    events_drain(ev);
    step = step_for("t", "b k");
    run_step(hooks.put, &step);
    assert_int_equal(step_end.verdict, ASYNC_RETRY);
    assert_int_equal(s3.requests, 0);
}

/* --- memory runs out -------------------------------------------------------------------------- */

static int put_again(void *arg)
{
    int rc =
        put_trigger("again", "{\"type\":\"s3\",\"functions\":[\"f\",\"f2\"],\"prefix\":\"x\"}");
    const struct trigger *t = trigger_find(ev, "again");
    assert_true(rc < 0 || (t && t->config.function_count == 2));
    return rc == -EIO ? -ENOMEM : rc; /* SQLite says so now and then */
}

static int take_in_again(void *arg)
{
    return take_in("{\"Records\":[" RECORD("in/a") "," RECORD("in/b") "]}", NULL);
}

static int fetch_again(void *arg)
{
    struct async_step step = step_for("t", "b k");
    hooks.fetch(hooks.arg, &step);
    ground_wait(&g);
    assert_true(step_end.verdict == ASYNC_SUCCESS || step_end.verdict == ASYNC_RETRY);
    return step_end.verdict == ASYNC_SUCCESS ? 0 : -ENOMEM;
}

static void memory_runs_out(void **state)
{
    put_store_trigger("");
    alloc_fail_each("a trigger", put_again, NULL);
    alloc_fail_each("intake", take_in_again, NULL);
    alloc_fail_each("fetch", fetch_again, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_new_trigger_has_a_token_and_keeps_it, setup, teardown),
        cmocka_unit_test_setup_teardown(triggers_come_back_after_a_restart_and_go_when_removed,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_function_that_is_not_there_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(an_entry_a_function_and_trigger, setup, teardown),
        cmocka_unit_test_setup_teardown(what_nobody_wants_does_not_come_to_the_queue, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_the_queue_refuses_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(objects_are_fetched_and_put_with_signatures, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_store_without_credentials_is_asked_unsigned, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(refusals_of_the_store_are_told_and_tried_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_trigger_that_is_gone_gives_up, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_runs_out, setup, teardown),
    };
    alloc_hook_sqlite();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
