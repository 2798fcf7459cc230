/* test_sched_events.c - the durable queue, on a real database: identities, order, deliveries of
 * several events, destinations, and bytes from and to elsewhere. */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "async_support.h"
#include "common/fault.h"
#include "common/limits.h"

static struct world w;

static int setup(void **state)
{
    world_init(&w);
    return 0;
}

static int teardown(void **state)
{
    world_done(&w);
    return 0;
}

static struct async_spec event(const char *function, const char *identity)
{
    return (struct async_spec){
        .function = function, .body = "x", .body_len = 1, .dedupe_key = identity};
}

static enum async_result result_of(const struct async_spec *spec)
{
    struct accepted a = submit_many(&w, spec, 1);

    assert_int_equal(a.rc, 0);
    return a.list[0].result;
}

/* --- identities ------------------------------------------------------------------------------- */

static void same_event_a_thousand_times_runs_once(void **state)
{
    const struct async_spec spec = event("hello", "identity");
    struct accepted first, again;

    world_function(&w, "hello", "hello");
    world_open(&w);
    first = submit_many(&w, &spec, 1);
    for (int i = 0; i < 999; i++) {
        again = submit_many(&w, &spec, 1);
        assert_int_equal(again.list[0].result, ASYNC_DUPLICATE);
        assert_string_equal(again.list[0].id, first.list[0].id);
    }
    settle(&w, 5 * SECOND);
    assert_int_equal(result_of(&spec), ASYNC_DUPLICATE); /* also when it has run */
    assert_int_equal(world_fake(&w).ran, 1);
    assert_int_equal(queue_stats(&w).duplicates, 1000);
    assert_int_equal(read_sql(&w, "SELECT count(*) FROM async_recent"), 1);
}

static void identity_is_known_after_a_restart_until_its_window_ends(void **state)
{
    struct async_spec spec = event("hello", "identity");

    spec.dedupe_window_ms = 60000;
    world_function(&w, "hello", "hello");
    world_open(&w);
    assert_int_equal(result_of(&spec), ASYNC_ACCEPTED);
    world_reopen(&w);
    assert_int_equal(result_of(&spec), ASYNC_DUPLICATE);
    pass_time(&w, 121 * SECOND); /* the restart's clock is another: twice the window */
    assert_int_equal(result_of(&spec), ASYNC_ACCEPTED);
    settle(&w, 5 * SECOND);
}

static void identity_counts_within_its_scope(void **state)
{
    struct async_spec spec = event("hello", "identity");

    world_function(&w, "hello", "hello");
    world_function(&w, "other", "hello");
    world_open(&w);
    assert_int_equal(result_of(&spec), ASYNC_ACCEPTED);
    spec.function = "other"; /* a fan-out */
    assert_int_equal(result_of(&spec), ASYNC_ACCEPTED);
    spec.dedupe_scope = "hello"; /* is not the function of that name */
    assert_int_equal(result_of(&spec), ASYNC_ACCEPTED);
    spec.function = "hello";
    assert_int_equal(result_of(&spec), ASYNC_DUPLICATE);
    spec.dedupe_scope = "hell";
    spec.dedupe_key = "oidentity";
    assert_int_equal(result_of(&spec), ASYNC_ACCEPTED);
    settle(&w, 5 * SECOND);
}

static void expired_identities_are_removed(void **state)
{
    char key[16];

    world_function(&w, "hello", "hello");
    world_open(&w);
    for (int i = 0; i < 50; i++) {
        struct async_spec spec = event("hello", key);

        snprintf(key, sizeof(key), "%d", i);
        spec.dedupe_window_ms = 1000;
        assert_int_equal(result_of(&spec), ASYNC_ACCEPTED);
    }
    pass_time(&w, 2 * SECOND);
    for (int i = 0; i < 40; i++) {
        struct async_spec spec = event("hello", key);

        snprintf(key, sizeof(key), "new %d", i);
        assert_int_equal(result_of(&spec), ASYNC_ACCEPTED);
    }
    assert_int_equal(read_sql(&w, "SELECT count(*) FROM async_recent"), 40);
    for (int i = 0; i < 40; i++) {
        struct async_spec spec = event("hello", key);

        snprintf(key, sizeof(key), "new %d", i);
        assert_int_equal(result_of(&spec), ASYNC_DUPLICATE);
    }
    settle(&w, 5 * SECOND);
}

static void many_identities_are_told_apart(void **state)
{
    enum { N = 5000, BATCH = 50 };
    char keys[BATCH][16];
    struct async_spec specs[BATCH];

    w.set.pool_max = LIMIT_ASYNC_RUNNING;
    world_function(&w, "hello", "hello");
    world_open(&w);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i += BATCH) {
            struct accepted a;

            for (int k = 0; k < BATCH; k++) {
                snprintf(keys[k], sizeof(keys[k]), "%d", i + k);
                specs[k] = event("hello", keys[k]);
            }
            a = submit_many(&w, specs, BATCH);
            for (int k = 0; k < BATCH; k++) {
                assert_int_equal(a.list[k].result, round ? ASYNC_DUPLICATE : ASYNC_ACCEPTED);
            }
        }
        if (round == 0) {
            world_reopen(&w); /* the index is read from the rows */
        }
    }
    settle(&w, 60 * SECOND);
    assert_int_equal(world_fake(&w).ran, N);
}

#ifdef UNID_FAULT_INJECTION
static void event_whose_commit_failed_is_no_duplicate(void **state)
{
    const struct async_spec spec = event("hello", "identity"), other = event("hello", "other");

    world_function(&w, "hello", "hello");
    world_open(&w);
    world_barrier(&w);
    assert_int_equal(un_fault_set("store.commit=EIO@1+"), 0);
    assert_int_equal(submit_many(&w, &spec, 1).rc, -EIO);
    assert_int_equal(submit_many(&w, &spec, 1).rc, -EIO);
    assert_int_equal(un_fault_set(NULL), 0);
    assert_int_equal(result_of(&other), ASYNC_ACCEPTED); /* gets the row that was undone */
    assert_int_equal(result_of(&spec), ASYNC_ACCEPTED);
    assert_int_equal(result_of(&spec), ASYNC_DUPLICATE);
    assert_int_equal(result_of(&other), ASYNC_DUPLICATE);
    settle(&w, 5 * SECOND);
    assert_int_equal(world_fake(&w).ran, 2);
}
#endif

/* --- deliveries ------------------------------------------------------------------------------- */

static void delivery_is_accepted_whole_or_not_at_all(void **state)
{
    struct async_spec specs[3] = {event("hello", "a"), event("hello", "b"), event("hello", "c")};
    const struct hv_field split = {"x", "a\r\nb: c"};
    struct accepted a;

    world_function(&w, "hello", "hello");
    world_open(&w);
    specs[2].fields = &split;
    specs[2].field_count = 1;
    assert_int_equal(submit_many(&w, specs, 3).rc, -EINVAL);
    specs[2].field_count = 0;
    specs[2].on_failure = "ftp://example.test/";
    a = submit_many(&w, specs, 3);
    assert_int_equal(a.rc, -EINVAL);
    assert_non_null(strstr(a.text, "http://"));
    pass_time(&w, SECOND);
    assert_int_equal(world_fake(&w).ran, 0);
    specs[2].on_failure = NULL;
    a = submit_many(&w, specs, 3);
    assert_int_equal(a.rc, 0);
    assert_int_equal(a.list[0].result, ASYNC_ACCEPTED); /* was not remembered */
    settle(&w, 5 * SECOND);
    assert_int_equal(world_fake(&w).ran, 3);
}

static void duplicates_within_a_delivery_are_found(void **state)
{
    const struct async_spec specs[3] = {event("hello", "a"), event("hello", "a"),
                                        event("hello", "b")};
    struct accepted a;

    world_function(&w, "hello", "hello");
    world_open(&w);
    a = submit_many(&w, specs, 3);
    assert_int_equal(a.count, 3);
    assert_int_equal(a.list[0].result, ASYNC_ACCEPTED);
    assert_int_equal(a.list[1].result, ASYNC_DUPLICATE);
    assert_int_equal(a.list[2].result, ASYNC_ACCEPTED);
    settle(&w, 5 * SECOND);
    assert_int_equal(world_fake(&w).ran, 2);
}

static void empty_and_oversized_deliveries_are_answered(void **state)
{
    struct async_spec *specs = calloc(LIMIT_ASYNC_BATCH + 1, sizeof(*specs));

    world_open(&w);
    assert_int_equal(submit_many(&w, specs, 0).rc, 0);
    for (int i = 0; i <= LIMIT_ASYNC_BATCH; i++) {
        specs[i] = event("hello", NULL);
    }
    assert_int_equal(submit_many(&w, specs, LIMIT_ASYNC_BATCH + 1).rc, -E2BIG);
    free(specs);
}

/* --- hooks: what a function was asked and what it answered ------------------------------------ */

struct hook {
    struct async_step *step; /* the last that was begun */
    unsigned fetches, puts;
    char asked[512], answer[4096];
    enum async_verdict verdict;
    bool hold;
    struct un_post post;
};
static struct hook hook;

static void end_step(void *arg)
{
    struct async_body body = {
        .content_type = strdup("image/png"), .data = strdup("object"), .len = 6};
    struct async_step *step = hook.step;
    bool fetched = strncmp(step->locator, "from", 4) == 0 && hook.verdict == ASYNC_SUCCESS;

    hook.step = NULL;
    async_step_done(step, hook.verdict, hook.verdict == ASYNC_SUCCESS ? NULL : "the store says no",
                    fetched ? &body : NULL);
    if (!fetched) {
        free(body.content_type);
        free(body.data);
    }
}

static void begin_step(struct async_step *step)
{
    hook.step = step;
    snprintf(hook.asked, sizeof(hook.asked), "%s %s %s %u", step->locator, step->function,
             step->trigger ? step->trigger : "-", step->attempt);
    hook.post = (struct un_post){.fn = end_step};
    if (!hook.hold) {
        un_loop_post(w.loop, &hook.post);
    }
}

static void on_fetch(void *arg, struct async_step *step)
{
    hook.fetches++;
    begin_step(step);
}

static void on_put(void *arg, struct async_step *step)
{
    hook.puts++;
    snprintf(hook.answer, sizeof(hook.answer), "%.*s", (int)step->body_len,
             step->body ? (const char *)step->body : "");
    begin_step(step);
}

static void open_with_hooks(void)
{
    const struct async_hooks hooks = {.fetch = on_fetch, .put = on_put};

    hook = (struct hook){.verdict = ASYNC_SUCCESS};
    world_open(&w);
    async_set_hooks(w.sched, &hooks);
}

static void function_is_told_the_event_s_fields(void **state)
{
    const struct hv_field fields[] = {{"X-Unid-Event-Name", "ObjectCreated:Put"}, {"X-B", "c d"}};
    struct async_spec spec = {.function = "request",
                              .trigger = "thumbs",
                              .fields = fields,
                              .field_count = 2,
                              .content_type = "application/json",
                              .body = "{}",
                              .body_len = 2,
                              .sink = "to"};
    struct accepted a;
    struct receipt r;

    world_function(&w, "request", "request");
    open_with_hooks();
    a = submit_spec(&w, &spec);
    settle(&w, 5 * SECOND);
    assert_non_null(strstr(hook.answer, "content-type: application/json\r\n"));
    assert_non_null(strstr(hook.answer, "X-Unid-Event-Name: ObjectCreated:Put\r\n"));
    assert_non_null(strstr(hook.answer, "X-B: c d\r\n"));
    assert_non_null(strstr(hook.answer, "x-unid-attempt: 1\r\n"));
    assert_null(strstr(hook.answer, "x-unid-depth"));
    assert_true(world_receipt(&w, a.list[0].id, &r));
    assert_int_equal(r.trigger, SCHED_EVENT);
    assert_string_equal(r.trigger_name, "thumbs");
}

static void body_may_be_fetched_and_the_answer_put(void **state)
{
    struct async_spec spec = event("echo", NULL);
    struct accepted a;
    struct receipt r;

    spec.source = "from photos/a.jpg";
    spec.sink = "to thumbs/a.jpg";
    spec.trigger = "thumbs";
    world_function(&w, "echo", "echo");
    open_with_hooks();
    a = submit_spec(&w, &spec);
    settle(&w, 5 * SECOND);
    assert_int_equal(hook.fetches, 1);
    assert_int_equal(hook.puts, 1);
    assert_string_equal(hook.asked, "to thumbs/a.jpg echo thumbs 1");
    assert_string_equal(hook.answer, "object");
    assert_true(world_receipt(&w, a.list[0].id, &r));
    assert_int_equal(r.bytes_in, 6);
    assert_string_equal(r.outcome, "ok");
}

static void step_may_fail_the_attempt_for_now_or_for_good(void **state)
{
    struct async_spec spec = event("echo", NULL);
    struct accepted a;
    struct letters l;

    spec.source = "from";
    spec.policy =
        (struct async_policy){.max_attempts = 2, .backoff_base_ms = 10, .backoff_max_ms = 10};
    world_function(&w, "echo", "echo");
    open_with_hooks();
    hook.verdict = ASYNC_RETRY;
    a = submit_spec(&w, &spec);
    settle(&w, 5 * SECOND);
    assert_int_equal(hook.fetches, 2);
    assert_int_equal(world_fake(&w).ran, 0);
    assert_int_equal(receipts_of(&w, a.list[0].id, "fetch-failed"), 2);
    l = letter(&w, a.list[0].id);
    assert_string_equal(l.list[0].reason, "2 attempts failed; the last: the store says no");
    assert_string_equal(l.list[0].outcome, "fetch-failed");

    hook.verdict = ASYNC_GIVE_UP;
    spec.source = NULL;
    spec.sink = "to";
    a = submit_spec(&w, &spec);
    settle(&w, 5 * SECOND);
    assert_int_equal(hook.puts, 1);
    assert_int_equal(receipts_of(&w, a.list[0].id, "put-failed"), 1);
    assert_string_equal(letter(&w, a.list[0].id).list[0].reason, "the store says no");
}

static bool step_begun(void *arg)
{
    world_advance(&w, MS);
    return hook.step != NULL;
}

static void step_that_is_under_way_at_the_end_is_waited_for(void **state)
{
    struct async_spec spec = event("echo", NULL);

    spec.source = "from";
    world_function(&w, "echo", "echo");
    open_with_hooks();
    hook.hold = true;
    (void)submit_spec(&w, &spec);
    world_until(&w, step_begun, NULL);
    un_loop_post(w.loop, &hook.post); /* as the events module ends its own */
    world_reopen(&w);
    assert_int_equal(world_fake(&w).ran, 0);
    async_set_hooks(w.sched, &(struct async_hooks){.fetch = on_fetch, .put = on_put});
    hook.hold = false;
    settle(&w, 60 * SECOND);
    assert_int_equal(world_fake(&w).ran, 1);
}

static void event_with_a_source_that_nobody_can_fetch_is_given_up(void **state)
{
    struct async_spec spec = event("echo", NULL);

    spec.source = "from";
    world_function(&w, "echo", "echo");
    world_open(&w);
    (void)submit_spec(&w, &spec);
    settle(&w, 5 * SECOND);
    assert_int_equal(queue_stats(&w).dead, 1);
}

/* --- order ------------------------------------------------------------------------------------ */

static void out_of_order_sequencers_are_flagged_or_dropped(void **state)
{
    struct async_spec spec = event("request", NULL);

    spec.order = ASYNC_ORDER_DROP;
    spec.order_key = "photos/a.jpg";
    spec.sequencer = "0055AED6DCD90281E5";
    spec.sink = "to";
    world_function(&w, "request", "request");
    open_with_hooks();
    assert_int_equal(result_of(&spec), ASYNC_ACCEPTED);
    assert_int_equal(result_of(&spec), ASYNC_ACCEPTED); /* equal: identity's business */
    spec.sequencer = "0055AED6DCD90281E4";
    assert_int_equal(result_of(&spec), ASYNC_STALE);
    spec.order_key = "photos/b.jpg";
    assert_int_equal(result_of(&spec), ASYNC_ACCEPTED);
    spec.order_key = "photos/a.jpg";
    spec.sequencer = "0055AED6DCD90281F";
    assert_int_equal(result_of(&spec), ASYNC_ACCEPTED);
    spec.sequencer = "0055AED6DCD90281E5";
    settle(&w, 5 * SECOND);
    assert_null(strstr(hook.answer, "out-of-order"));
    spec.order = ASYNC_ORDER_FLAG;
    assert_int_equal(result_of(&spec), ASYNC_ACCEPTED);
    settle(&w, 5 * SECOND);
    assert_non_null(strstr(hook.answer, "x-unid-out-of-order: 1\r\n"));
    assert_int_equal(queue_stats(&w).stale, 1);
}

/* --- destinations ----------------------------------------------------------------------------- */

static void success_destination_gets_the_answer(void **state)
{
    struct async_spec spec = {.function = "first",
                              .trigger = "thumbs",
                              .content_type = "text/plain",
                              .body = "body",
                              .body_len = 4,
                              .on_success = "second"};
    struct accepted a;
    struct receipt r;

    world_function(&w, "first", "echo");
    world_function(&w, "second", "count");
    world_open(&w);
    a = submit_spec(&w, &spec);
    settle(&w, 5 * SECOND);
    assert_int_equal(world_fake(&w).ran, 2);
    assert_true(world_receipt(&w, a.list[0].id, &r));
    assert_int_equal(read_sql(&w, "SELECT bytes_in FROM receipts WHERE function = 'second'"), 4);
    assert_int_equal(read_sql(&w, "SELECT trigger_kind FROM receipts WHERE function = 'second'"),
                     SCHED_DESTINATION);
    assert_int_equal(queue_stats(&w).dead, 0);
}

static void failure_destination_gets_the_event_and_the_dead_letter_stays(void **state)
{
    struct async_spec spec = {.function = "bad",
                              .content_type = "text/plain",
                              .body = "body",
                              .body_len = 4,
                              .on_success = "never",
                              .on_failure = "undertaker"};

    world_function(&w, "bad", "status 400");
    world_function(&w, "undertaker", "count");
    world_open(&w);
    (void)submit_spec(&w, &spec);
    settle(&w, 5 * SECOND);
    assert_int_equal(world_fake(&w).ran, 2);
    assert_int_equal(read_sql(&w, "SELECT bytes_in FROM receipts WHERE function = 'undertaker'"),
                     4);
    assert_int_equal(queue_stats(&w).dead, 1);
}

static void chain_of_destinations_ends(void **state)
{
    struct async_spec spec = event("loop", NULL);
    struct letters l;

    spec.on_success = "loop";
    spec.depth = LIMIT_ASYNC_DEPTH - 1;
    world_function(&w, "loop", "hello");
    world_open(&w);
    (void)submit_spec(&w, &spec);
    settle(&w, 5 * SECOND);
    assert_int_equal(world_fake(&w).ran, 2); /* the destination's event has no destination */
    spec.depth = LIMIT_ASYNC_DEPTH;
    (void)submit_spec(&w, &spec);
    settle(&w, 5 * SECOND);
    assert_int_equal(world_fake(&w).ran, 3);
    l = letters(&w, &(struct deadletter_query){0});
    assert_int_equal(l.count, 1);
    assert_non_null(strstr(l.list[0].reason, "destinations one after the other"));
    assert_int_equal(queue_stats(&w).dead, 1);
}

static void answer_that_is_too_large_for_a_destination_is_told(void **state)
{
    struct async_spec spec = event("big", NULL);

    spec.on_success = "second";
    world_function(&w, "big", "size 7000000");
    world_open(&w);
    (void)submit_spec(&w, &spec);
    settle(&w, 20 * SECOND);
    assert_int_equal(letters(&w, &(struct deadletter_query){0}).count, 1);
    assert_int_equal(
        read_sql(&w, "SELECT count(*) FROM receipts WHERE outcome = 'answer-too-large'"), 1);
}

/* --- HTTP destinations ------------------------------------------------------------------------ */

/* Answers one connection after the other with the next status; keeps the last request. */
struct receiver {
    int fd;
    unsigned port, statuses[4], served;
    char request[4096];
    pthread_t thread;
};

static void *receiver_main(void *arg)
{
    struct receiver *r = arg;

    for (; r->served < 4 && r->statuses[r->served]; r->served++) {
        int fd = accept(r->fd, NULL, NULL);
        size_t len = 0;
        ssize_t n;
        char answer[80];

        if (fd < 0) {
            break;
        }
        while (len < sizeof(r->request) - 1 && !strstr(r->request, "\r\n\r\nbody") &&
               (n = read(fd, r->request + len, sizeof(r->request) - 1 - len)) > 0) {
            len += (size_t)n;
            r->request[len] = '\0';
        }
        n = snprintf(answer, sizeof(answer), "HTTP/1.1 %u X\r\nContent-Length: 0\r\n\r\n",
                     r->statuses[r->served]);
        assert_int_equal(write(fd, answer, (size_t)n), n);
        close(fd);
        if (r->served < 3 && r->statuses[r->served + 1]) {
            memset(r->request, 0, sizeof(r->request));
        }
    }
    return NULL;
}

static void receiver_start(struct receiver *r)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(a);

    r->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(r->fd >= 0);
    assert_int_equal(bind(r->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(r->fd, 8), 0);
    assert_int_equal(getsockname(r->fd, (struct sockaddr *)&a, &len), 0);
    r->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&r->thread, NULL, receiver_main, r), 0);
}

static bool is_settled(void *arg)
{
    world_advance(&w, 20 * MS);
    return read_sql(&w, "SELECT count(*) FROM async_queue WHERE state <> 3") == 0;
}

static void url_is_sent_the_answer_and_tried_again(void **state)
{
    struct receiver r = {.statuses = {503, 200}};
    struct async_spec spec = {
        .function = "echo", .content_type = "text/plain", .body = "body", .body_len = 4};
    char url[64], expected[96];
    struct accepted a;

    world_function(&w, "echo", "echo");
    world_open(&w);
    receiver_start(&r);
    snprintf(url, sizeof(url), "http://127.0.0.1:%u/done?x=1", r.port);
    spec.on_success = url;
    a = submit_spec(&w, &spec);
    world_until(&w, is_settled, NULL);
    pthread_join(r.thread, NULL);
    close(r.fd);
    assert_int_equal(r.served, 2);
    assert_memory_equal(r.request, "POST /done?x=1 HTTP/1.1\r\n", 25);
    snprintf(expected, sizeof(expected), "X-Unid-Source-Id: %s\r\n", a.list[0].id);
    assert_non_null(strstr(r.request, expected));
    assert_non_null(strstr(r.request, "X-Unid-Depth: 1\r\n"));
    assert_non_null(strstr(r.request, "X-Unid-Attempt: 2\r\n"));
    assert_non_null(strstr(r.request, "X-Unid-Condition: success\r\n"));
    assert_non_null(strstr(r.request, "\r\n\r\nbody"));
    assert_int_equal(
        read_sql(&w, "SELECT count(*) FROM receipts WHERE outcome = 'delivery-failed'"), 1);
    assert_int_equal(read_sql(&w, "SELECT count(*) FROM receipts WHERE outcome = 'ok'"), 2);
}

static void url_that_refuses_for_good_is_a_dead_letter(void **state)
{
    struct receiver r = {.statuses = {410}};
    struct async_spec spec = {.function = "bad", .body = "body", .body_len = 4};
    char url[64];
    struct letters l;

    world_function(&w, "bad", "status 400");
    world_open(&w);
    receiver_start(&r);
    snprintf(url, sizeof(url), "http://127.0.0.1:%u/", r.port);
    spec.on_failure = url;
    (void)submit_spec(&w, &spec);
    world_until(&w, is_settled, NULL);
    pthread_join(r.thread, NULL);
    close(r.fd);
    assert_non_null(strstr(r.request, "X-Unid-Reason: the function answered with status 400\r\n"));
    l = letters(&w, &(struct deadletter_query){.function = "bad"});
    assert_int_equal(l.count, 2); /* the event, and its delivery */
    assert_string_equal(l.list[0].url, url);
    assert_string_equal(l.list[0].reason, "the destination answered with status 410");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(same_event_a_thousand_times_runs_once),
        T(identity_is_known_after_a_restart_until_its_window_ends),
        T(identity_counts_within_its_scope),
        T(expired_identities_are_removed),
        T(many_identities_are_told_apart),
#ifdef UNID_FAULT_INJECTION
        T(event_whose_commit_failed_is_no_duplicate),
#endif
        T(delivery_is_accepted_whole_or_not_at_all),
        T(duplicates_within_a_delivery_are_found),
        T(empty_and_oversized_deliveries_are_answered),
        T(function_is_told_the_event_s_fields),
        T(body_may_be_fetched_and_the_answer_put),
        T(step_may_fail_the_attempt_for_now_or_for_good),
        T(step_that_is_under_way_at_the_end_is_waited_for),
        T(event_with_a_source_that_nobody_can_fetch_is_given_up),
        T(out_of_order_sequencers_are_flagged_or_dropped),
        T(success_destination_gets_the_answer),
        T(failure_destination_gets_the_event_and_the_dead_letter_stays),
        T(chain_of_destinations_ends),
        T(answer_that_is_too_large_for_a_destination_is_told),
        T(url_is_sent_the_answer_and_tried_again),
        T(url_that_refuses_for_good_is_a_dead_letter),
    };

    return cmocka_run_group_tests_name("events of the durable queue", tests, NULL, NULL);
}
