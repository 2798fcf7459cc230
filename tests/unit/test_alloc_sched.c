/* test_alloc_sched.c - memory runs out at any one place of a call: from its start over the fake
 * driver's VM to the receipt. Each call ends, once, with the whole answer or as unid's own failure,
 * and the next one is served. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/alloc_support.h"
#include "tests/unit/sched_world.h"

struct caller {
    struct sched_call *call;
    unsigned ends;
    char body[256]; /* not on the heap: the caller's own memory is not what fails */
    size_t len;
    enum sched_outcome_kind outcome;
    char detail[256];
};

static void take(struct caller *c, const void *data, size_t len)
{
    assert_true(c->len + len < sizeof(c->body));
    if (len > 0) {
        memcpy(c->body + c->len, data, len);
    }
    c->len += len;
    sched_call_data_done(c->call);
}

static void on_room(void *arg)
{
}

static void on_response(void *arg, const struct sched_response *response)
{
    take(arg, response->data, response->len);
}

static void on_data(void *arg, const void *data, size_t len, bool last)
{
    take(arg, data, len);
}

static void on_end(void *arg, const struct sched_outcome *outcome)
{
    struct caller *c = arg;

    c->ends++;
    c->outcome = outcome->kind;
    snprintf(c->detail, sizeof(c->detail), "%s", outcome->detail ? outcome->detail : "");
}

static const struct sched_call_events events = {
    .on_body_room = on_room, .on_response = on_response, .on_data = on_data, .on_end = on_end};

static bool is_idle(struct world *w)
{
    struct sched_stats stats;
    unsigned left = 0;

    sched_get_stats(w->sched, &stats);
    for (unsigned i = 0; i < INSTANCE_STATES; i++) {
        left += stats.instances[i];
    }
    return left == 0;
}

/* Calls a function with a body of two pieces, and lets its VM go again. */
static int call(struct world *w, const char *function, const char *answer)
{
    const struct hv_field fields[] = {{"host", "example.test"}};
    struct un_error err = UN_ERROR_INIT;
    struct caller c = {0};
    struct sched_call_spec spec = {.function = function,
                                   .trigger = SCHED_HTTP,
                                   .attempt = 1,
                                   .method = "POST",
                                   .target = "/x",
                                   .fields = fields,
                                   .field_count = 1,
                                   .content_length = 10,
                                   .events = &events,
                                   .arg = &c};
    int rc = sched_call_start(w->sched, &spec, &c.call, &err);

    if (rc < 0) {
        return rc;
    }
    sched_call_body(c.call, "hello", 5, false);
    world_run(w);
    if (!c.ends) {
        sched_call_body(c.call, "world", 5, true);
    }
    for (unsigned i = 0; i < 100 && !(c.ends && is_idle(w)); i++) {
        world_advance(w, 200000);
    }
    assert_int_equal(c.ends, 1);
    assert_true(is_idle(w));
    world_barrier(w); /* the receipt is written, or is not */
    alloc_hold(true);
    world_advance(w, 2000000); /* it is now, so that not all that failed come together */
    world_barrier(w);
    if (c.outcome == SCHED_OK) {
        assert_string_equal(c.body, answer);
        return 0;
    }
    /* A VM that the driver had no memory for could not be run, or was lost. */
    if (c.outcome != SCHED_INTERNAL && !strstr(c.detail, "out of memory")) {
        print_error("%s: %s\n", sched_outcome_name(c.outcome), c.detail);
        return -EPROTO;
    }
    return -ENOMEM;
}

static int echo(void *arg)
{
    return call(arg, "echo", "helloworld");
}

static int log_much(void *arg)
{
    return call(arg, "noisy", "ok\n");
}

/* --- a queued event --------------------------------------------------------------------------- */

struct answer {
    unsigned answers;
    int rc;
    char id[UN_ID_SIZE];
};

static void on_accepted(void *arg, int rc, const struct async_accepted *list, size_t count,
                        const struct un_error *err)
{
    struct answer *a = arg;

    a->answers++;
    a->rc = rc;
    snprintf(a->id, sizeof(a->id), "%s", rc == 0 ? list[0].id : "");
    if (rc < 0 && rc != -ENOMEM) {
        print_message("refused: %s\n", err->text);
    }
}

static bool is_quiet(struct world *w)
{
    struct async_stats stats;

    async_get_stats(w->sched, &stats);
    return stats.waiting == 0 && stats.running == 0 && is_idle(w);
}

static void pass(struct world *w, unsigned steps)
{
    for (unsigned i = 0; i < steps && !is_quiet(w); i++) {
        world_barrier(w);
        world_advance(w, 200000);
    }
}

/* Accepts an event with an identity and a destination, and has both run. What finds no memory is
 * refused, tried again, or left for the next start; it is never half there. */
static int run_event(void *arg)
{
    static unsigned number;
    struct world *w = arg;
    const struct hv_field field = {"x-a", "b"};
    char key[16];
    struct async_spec spec = {.function = "echo",
                              .trigger = "thumbs",
                              .fields = &field,
                              .field_count = 1,
                              .content_type = "text/plain",
                              .body = "helloworld",
                              .body_len = 10,
                              .dedupe_key = key,
                              .on_success = "echo"};
    struct answer a = {0};
    struct receipt r;
    bool ok;

    snprintf(key, sizeof(key), "%u", number++);
    async_submit(w->sched, &spec, on_accepted, &a);
    world_barrier(w);
    pass(w, 20);
    alloc_hold(true);
    world_barrier(w);
    world_advance(w, 2000000);
    assert_int_equal(a.answers, 1);
    if (a.rc < 0) {
        return a.rc;
    }
    pass(w, 50);
    world_advance(w, 2000000);
    world_barrier(w);
    ok = world_receipt(w, a.id, &r) && strcmp(r.outcome, "ok") == 0;
    return ok ? 0 : -ENOMEM;
}

static void queued_events(void **state)
{
    enum { STEP = 23 }; /* of some 4,600, which differ a little from run to run */

    alloc_fail_every("a queued event", STEP, run_event, *state);
    assert_int_equal(run_event(*state), 0);
}

static int setup(void **state)
{
    static struct world w;

    (void)alloc_fail_end(); /* of a test that has failed */
    world_init(&w);
    world_function(&w, "echo", "echo");
    world_function(&w, "noisy", "log some words");
    world_open(&w);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    world_done(*state);
    return 0;
}

static void calls(void **state)
{
    alloc_fail_each("a call", echo, *state);
    alloc_fail_each("a call that logs", log_much, *state);
    assert_int_equal(echo(*state), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(calls, setup, teardown),
        cmocka_unit_test_setup_teardown(queued_events, setup, teardown),
    };

    alloc_hook_sqlite();
    return cmocka_run_group_tests_name("alloc_sched", tests, NULL, NULL);
}
