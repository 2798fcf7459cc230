/* test_sched_async.c - the durable queue, on a real database: what runs, what is tried again, what
 * is given up, and what a crash leaves. Identities, destinations and hooks: test_sched_events.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "async_support.h"
#include "common/fault.h"
#include "common/limits.h"
#include "scheduler/async/policy.h"

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

/* --- the rules -------------------------------------------------------------------------------- */

static void answers_are_judged_by_their_status(void **state)
{
    const struct {
        unsigned status;
        enum async_judgement expected;
    } cases[] = {{200, ASYNC_DONE},     {204, ASYNC_DONE},     {299, ASYNC_DONE},
                 {302, ASYNC_HOPELESS}, {400, ASYNC_HOPELESS}, {404, ASYNC_HOPELESS},
                 {408, ASYNC_FAILED},   {425, ASYNC_FAILED},   {429, ASYNC_FAILED},
                 {500, ASYNC_FAILED},   {503, ASYNC_FAILED},   {0, ASYNC_FAILED}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct sched_outcome ok = {.kind = SCHED_OK};

        assert_int_equal(async_judge_status(cases[i].status), cases[i].expected);
        assert_int_equal(async_judge(&ok, cases[i].status), cases[i].expected);
    }
}

static void outcomes_are_judged_by_whose_fault_they_are(void **state)
{
    const struct {
        struct sched_outcome outcome;
        enum async_judgement expected;
    } cases[] = {
        {{.kind = SCHED_FAILED}, ASYNC_FAILED},
        {{.kind = SCHED_TIMED_OUT}, ASYNC_FAILED},
        {{.kind = SCHED_CANCELLED}, ASYNC_FAILED},
        {{.kind = SCHED_INTERNAL}, ASYNC_FAILED},
        {{.kind = SCHED_NO_FUNCTION}, ASYNC_HOPELESS},
        {{.kind = SCHED_WRONG_INTERFACE}, ASYNC_HOPELESS},
        {{.kind = SCHED_REQUEST_TOO_LARGE}, ASYNC_HOPELESS},
        {{.kind = SCHED_RESPONSE_TOO_LARGE}, ASYNC_HOPELESS},
        {{.kind = SCHED_CANNOT_RUN}, ASYNC_HOPELESS},
        {{.kind = SCHED_CANNOT_RUN, .retry_after_s = 1}, ASYNC_DID_NOT_RUN},
        {{.kind = SCHED_QUEUE_FULL}, ASYNC_DID_NOT_RUN},
        {{.kind = SCHED_WAIT_EXPIRED}, ASYNC_DID_NOT_RUN},
        {{.kind = SCHED_DRAINING}, ASYNC_DID_NOT_RUN},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(async_judge(&cases[i].outcome, 200), cases[i].expected);
    }
}

static void backoff_doubles_up_to_its_most_and_is_jittered_in_full(void **state)
{
    const struct async_policy p = {.backoff_base_ms = 100, .backoff_max_ms = 1000};

    assert_int_equal(async_backoff_us(&p, 1, UINT32_MAX), 100000);
    assert_int_equal(async_backoff_us(&p, 2, UINT32_MAX), 200000);
    assert_int_equal(async_backoff_us(&p, 4, UINT32_MAX), 800000);
    assert_int_equal(async_backoff_us(&p, 5, UINT32_MAX), 1000000);
    assert_int_equal(async_backoff_us(&p, 4000000000u, UINT32_MAX), 1000000);
    assert_int_equal(async_backoff_us(&p, 4, 0), 0);
    assert_int_equal(async_backoff_us(&p, 4, UINT32_MAX / 2) / 1000, 399);
}

static void policy_has_defaults_and_bounds(void **state)
{
    struct async_policy none = {0}, p = async_policy_of(&none, &none);
    char why[96] = "";

    assert_int_equal(p.max_attempts, DEFAULT_ASYNC_ATTEMPTS);
    assert_int_equal(p.max_age_ms, DEFAULT_ASYNC_AGE_MS);
    assert_false(async_give_up(&p, p.max_attempts - 1, 0, why, sizeof(why)));
    assert_string_equal(why, "");
    assert_true(async_give_up(&p, p.max_attempts, 0, why, sizeof(why)));
    assert_string_equal(why, "5 attempts failed");
    assert_true(async_give_up(&p, 1, p.max_age_ms * 1000, why, sizeof(why)));
    p = async_policy_of(&(struct async_policy){.backoff_base_ms = UINT32_MAX,
                                               .backoff_max_ms = UINT32_MAX,
                                               .max_age_ms = UINT64_MAX,
                                               .max_attempts = UINT32_MAX},
                        &none);
    assert_int_equal(p.backoff_max_ms, 24 * 3600 * 1000);
    assert_int_equal(p.backoff_base_ms, p.backoff_max_ms);
    assert_int_equal(p.max_attempts, 1000);
    assert_true(p.max_age_ms * 1000 > p.max_age_ms);
    const struct async_policy settings = {
        .max_attempts = 2, .max_age_ms = 3, .backoff_base_ms = 40, .backoff_max_ms = 50};
    p = async_policy_of(&none, &settings);
    assert_memory_equal(&p, &settings, sizeof(p));
    p = async_policy_of(&(struct async_policy){.max_attempts = 9, .backoff_max_ms = 30}, &settings);
    assert_int_equal(p.max_attempts, 9);
    assert_int_equal(p.max_age_ms, 3);
    assert_int_equal(p.backoff_base_ms, 30); /* never above the most */
}

static void sequencers_are_compared_as_s3_says(void **state)
{
    assert_int_equal(async_sequencer_compare("0055AED6DCD90281E5", "0055AED6DCD90281E5"), 0);
    assert_true(async_sequencer_compare("0055AED6DCD90281E5", "0055AED6DCD90281E6") < 0);
    assert_true(async_sequencer_compare("005", "0041") > 0);
    assert_true(async_sequencer_compare("5", "41") > 0);
    assert_int_equal(async_sequencer_compare("5", "500"), 0);
    assert_true(async_sequencer_compare("", "1") < 0);
}

static void share_of_greedy_lanes_leaves_room_for_others(void **state)
{
    unsigned held[3] = {0}, unused = 64;
    bool more = true;

    while (more) {
        more = false;
        for (unsigned i = 0; i < 3; i++) {
            if (async_may_claim(held[i], 1000, unused)) {
                held[i]++;
                unused--;
                more = true;
            }
        }
    }
    assert_int_equal(held[0], 16); /* a fourth for each, and one for whoever comes next */
    assert_int_equal(held[2], 16);
    assert_true(async_may_claim(0, 1000, 1));
    assert_false(async_may_claim(0, 1000, 0));
    assert_false(async_may_claim(4, 4, 60));
}

/* --- running ---------------------------------------------------------------------------------- */

static bool has_run(void *arg)
{
    struct fake_stats st = world_fake(&w);

    return st.ran >= *(unsigned *)arg && st.running == 0;
}

static void wait_for_runs(unsigned n)
{
    world_until(&w, has_run, &n);
}

static void accepted_work_runs_and_leaves_the_queue_with_its_receipt(void **state)
{
    struct accepted a;
    struct receipt r;

    world_function(&w, "count", "count");
    world_open(&w);
    a = submit(&w, "count", "12345", 5);
    assert_int_equal(a.rc, 0);
    assert_int_equal(a.list[0].result, ASYNC_ACCEPTED);
    settle(&w, SECOND);
    assert_int_equal(world_fake(&w).ran, 1);
    assert_false(is_pending(&w, a.list[0].id));
    assert_true(world_receipt(&w, a.list[0].id, &r));
    assert_int_equal(r.trigger, SCHED_ASYNC);
    assert_int_equal(r.attempt, 1);
    assert_int_equal(r.bytes_in, 5);
    assert_string_equal(r.outcome, "ok");
    assert_int_equal(read_sql(&w, "SELECT count(*) FROM async_events"), 0);
}

static void large_body_reaches_the_function(void **state)
{
    char *body = calloc(1, LIMIT_ASYNC_BODY_BYTES + 1);
    struct accepted a;
    struct receipt r;

    world_function(&w, "count", "count");
    world_open(&w);
    a = submit(&w, "count", body, LIMIT_ASYNC_BODY_BYTES);
    settle(&w, SECOND);
    assert_true(world_receipt(&w, a.list[0].id, &r));
    assert_int_equal(r.bytes_in, LIMIT_ASYNC_BODY_BYTES);
    assert_int_equal(submit(&w, "count", body, LIMIT_ASYNC_BODY_BYTES + 1).rc, -E2BIG);
    free(body);
}

static void work_for_no_function_is_not_accepted(void **state)
{
    world_open(&w);
    assert_int_equal(submit(&w, "nobody", "", 0).rc, -ENOENT);
}

static void work_that_is_not_due_waits(void **state)
{
    struct async_spec spec = {.function = "hello"};
    struct accepted a;

    world_function(&w, "hello", "hello");
    world_open(&w);
    spec.due_us = async_now_us(w.sched) + 60 * SECOND;
    a = submit_spec(&w, &spec);
    pass_time(&w, 59 * SECOND);
    assert_true(is_pending(&w, a.list[0].id));
    assert_int_equal(world_fake(&w).ran, 0);
    pass_time(&w, 2 * SECOND);
    assert_int_equal(world_fake(&w).ran, 1);
}

static void much_work_runs_few_at_a_time_and_all_of_it(void **state)
{
    enum { N = 200 };

    w.set.pool_max = LIMIT_ASYNC_RUNNING;
    world_function(&w, "sleep", "sleep 10");
    world_open(&w);
    for (int i = 0; i < N; i++) {
        assert_int_equal(submit(&w, "sleep", "x", 1).rc, 0);
        assert_true(queue_stats(&w).running <= LIMIT_ASYNC_RUNNING);
    }
    while (world_fake(&w).ran < N) {
        world_barrier(&w);
        world_advance(&w, 11 * MS);
        assert_true(queue_stats(&w).running <= LIMIT_ASYNC_RUNNING);
    }
    settle(&w, SECOND);
    assert_int_equal(world_fake(&w).ran, N);
    assert_int_equal(queue_stats(&w).accepted, N);
}

/* --- failing ---------------------------------------------------------------------------------- */

static struct async_spec quick(const char *function)
{
    return (struct async_spec){
        .function = function,
        .content_type = "text/plain",
        .body = "poison",
        .body_len = 6,
        .policy = {.max_attempts = 3, .backoff_base_ms = 100, .backoff_max_ms = 1000}};
}

static void failed_work_is_tried_again_and_then_a_dead_letter(void **state)
{
    const struct async_spec spec = quick("crash");
    struct accepted a;
    struct letters l;

    world_function(&w, "crash", "crash");
    world_open(&w);
    a = submit_spec(&w, &spec);
    settle(&w, 10 * SECOND);
    assert_int_equal(world_fake(&w).ran, 3);
    assert_int_equal(receipts_of(&w, a.list[0].id, "failed"), 3);
    l = letter(&w, a.list[0].id);
    assert_int_equal(l.rc, 0);
    assert_string_equal(l.list[0].function, "crash");
    assert_int_equal(l.list[0].attempts, 3);
    assert_string_equal(l.list[0].outcome, "failed");
    assert_string_equal(l.list[0].body, "poison");
    assert_string_equal(l.list[0].content_type, "text/plain");
    assert_memory_equal(l.list[0].reason, "3 attempts failed; the last: ", 29);
    assert_false(is_pending(&w, a.list[0].id));
    assert_int_equal(queue_stats(&w).dead, 1);
    assert_int_equal(queue_stats(&w).retries, 2);
    assert_int_equal(queue_stats(&w).given_up, 1);
}

static void hopeless_work_is_a_dead_letter_at_once(void **state)
{
    const struct async_spec specs[] = {quick("bad"), quick("nobody")};
    struct accepted a;
    struct letters l;

    world_function(&w, "bad", "status 422");
    world_open(&w);
    a = submit_many(&w, specs, 2);
    assert_int_equal(a.rc, 0);
    settle(&w, 2 * SECOND);
    assert_int_equal(world_fake(&w).ran, 1);
    l = letter(&w, a.list[0].id);
    assert_string_equal(l.list[0].reason, "the function answered with status 422");
    l = letter(&w, a.list[1].id);
    assert_int_equal(l.list[0].attempts, 1);
    assert_string_equal(l.list[0].outcome, "no-function");
}

static void status_of_a_busy_function_is_tried_again(void **state)
{
    const struct async_spec spec = quick("busy");
    struct accepted a;

    world_function(&w, "busy", "status 503");
    world_open(&w);
    a = submit_spec(&w, &spec);
    settle(&w, 10 * SECOND);
    assert_int_equal(world_fake(&w).ran, 3);
    assert_int_equal(receipts_of(&w, a.list[0].id, NULL), 3);
    assert_string_equal(letter(&w, a.list[0].id).list[0].reason,
                        "3 attempts failed; the last: the function answered with status 503");
}

static void old_work_is_given_up_after_one_more_attempt(void **state)
{
    struct async_spec spec = quick("crash");
    struct accepted a;

    spec.policy = (struct async_policy){.max_attempts = 100, .max_age_ms = 5000};
    spec.policy.backoff_base_ms = spec.policy.backoff_max_ms = 2000;
    world_function(&w, "crash", "crash");
    world_open(&w);
    a = submit_spec(&w, &spec);
    settle(&w, 60 * SECOND);
    assert_true(world_fake(&w).ran >= 2);
    assert_non_null(strstr(letter(&w, a.list[0].id).list[0].reason, "may become 5 s"));
}

static void poison_does_not_block_what_comes_behind(void **state)
{
    const struct async_spec spec = quick("crash");

    world_function(&w, "crash", "crash");
    world_function(&w, "hello", "hello");
    world_open(&w);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(submit_spec(&w, &spec).rc, 0);
    }
    assert_int_equal(submit(&w, "hello", "", 0).rc, 0);
    settle(&w, 20 * SECOND);
    assert_int_equal(world_fake(&w).ran, 151);
    assert_int_equal(queue_stats(&w).dead, 50);
}

static void slow_function_leaves_places_to_others(void **state)
{
    struct accepted a = {0};
    struct receipt r;

    w.set.memory_mib = 200 * WORLD_SHELL_MIB;
    w.set.pool_max = 200;
    world_function(&w, "slow", "sleep 4000");
    world_function(&w, "hello", "hello");
    world_open(&w);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(submit(&w, "slow", "", 0).rc, 0);
    }
    pass_time(&w, 500 * MS);
    assert_int_equal(queue_stats(&w).running, LIMIT_ASYNC_RUNNING / 2);
    for (int i = 0; i < 20; i++) {
        a = submit(&w, "hello", "", 0);
    }
    pass_time(&w, 500 * MS); /* long before the first slow one ends */
    assert_true(world_receipt(&w, a.list[0].id, &r));
    assert_string_equal(r.outcome, "ok");
    settle(&w, 100 * SECOND);
}

static void claims_of_a_function_stay_below_its_concurrency(void **state)
{
    world_function(&w, "one", "sleep 100")->config.concurrency = 1;
    world_open(&w);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(submit(&w, "one", "", 0).rc, 0);
    }
    pass_time(&w, 1000 * MS);
    assert_int_equal(queue_stats(&w).running, 1);
    settle(&w, 60 * SECOND);
    assert_int_equal(read_sql(&w, "SELECT count(*) FROM receipts WHERE outcome <> 'ok'"), 0);
}

static void work_that_finds_no_place_is_tried_again_and_not_counted(void **state)
{
    struct client c = {0};
    struct async_spec spec = quick("sleep");
    struct accepted a;
    struct receipt r;

    spec.policy.max_attempts = 1;
    w.set.queue_per_function = 0;
    world_function(&w, "sleep", "sleep 4000")->config.concurrency = 1;
    world_open(&w);
    client_get(&w, &c, "sleep");
    world_run(&w);
    a = submit_spec(&w, &spec);
    while (!world_receipt(&w, a.list[0].id, &r)) {
    }
    assert_string_equal(r.outcome, "queue-full");
    assert_true(is_pending(&w, a.list[0].id));
    settle(&w, 60 * SECOND);
    assert_int_equal(world_fake(&w).ran, 2);
    assert_true(world_receipt(&w, a.list[0].id, &r));
    assert_true(r.attempt > 1);
    assert_string_equal(r.outcome, "ok");
    assert_int_equal(c.ends, 1);
    client_done(&c);
}

/* --- dead letters ----------------------------------------------------------------------------- */

static void redriven_letter_runs_anew(void **state)
{
    const struct async_spec spec = quick("flaky");
    struct function_version *v;
    struct accepted a;
    struct receipt r;

    v = world_function(&w, "flaky", "crash");
    world_open(&w);
    a = submit_spec(&w, &spec);
    settle(&w, 10 * SECOND);
    assert_int_equal(redrive(&w, a.list[0].id).count, 1);
    settle(&w, 10 * SECOND); /* attempts are counted anew */
    assert_int_equal(world_fake(&w).ran, 6);
    assert_int_equal(letter(&w, a.list[0].id).list[0].attempts, 6);
    free(v->config.args[0]);
    v->config.args[0] = strdup("hello");
    assert_int_equal(redrive(&w, a.list[0].id).rc, 0);
    settle(&w, 10 * SECOND);
    assert_true(world_receipt(&w, a.list[0].id, &r));
    assert_string_equal(r.outcome, "ok");
    assert_int_equal(r.attempt, 7);
    assert_int_equal(letter(&w, a.list[0].id).rc, -ENOENT);
    assert_int_equal(redrive(&w, a.list[0].id).rc, -ENOENT);
    assert_int_equal(queue_stats(&w).dead, 0);
}

static void letters_are_listed_newest_first_by_function_and_trigger(void **state)
{
    struct async_spec specs[6];
    struct accepted a;
    struct letters l;

    world_function(&w, "bad", "status 400");
    world_function(&w, "worse", "status 400");
    world_open(&w);
    for (int i = 0; i < 6; i++) {
        specs[i] = quick(i < 4 ? "bad" : "worse");
        specs[i].trigger = i % 2 ? "thumbs" : NULL;
    }
    a = submit_many(&w, specs, 6);
    settle(&w, 5 * SECOND);
    l = letters(&w, &(struct deadletter_query){0});
    assert_int_equal(l.count, 6);
    assert_string_equal(l.list[0].id, a.list[5].id);
    assert_int_equal(l.list[0].body_len, 6);
    l = letters(&w, &(struct deadletter_query){.function = "worse"});
    assert_int_equal(l.count, 2);
    l = letters(&w, &(struct deadletter_query){.trigger = "thumbs"});
    assert_int_equal(l.count, 3);
    assert_string_equal(l.list[2].trigger, "thumbs");
    l = letters(&w, &(struct deadletter_query){.function = "bad", .trigger = "thumbs"});
    assert_int_equal(l.count, 2);
    l = letters(&w, &(struct deadletter_query){.before_id = a.list[2].id, .limit = 1});
    assert_int_equal(l.count, 1);
    assert_string_equal(l.list[0].id, a.list[1].id);
    assert_int_equal(redrive_all(&w, &(struct deadletter_query){.trigger = "thumbs"}).count, 3);
    settle(&w, 5 * SECOND);
    assert_int_equal(letters(&w, &(struct deadletter_query){0}).count, 6);
    assert_int_equal(redrive_all(&w, &(struct deadletter_query){.function = "bad"}).count, 4);
    settle(&w, 5 * SECOND);
    assert_int_equal(redrive_all(&w, &(struct deadletter_query){0}).count, 6);
    settle(&w, 5 * SECOND);
    assert_int_equal(remove_letter(&w, a.list[0].id).rc, 0);
    assert_int_equal(remove_letter(&w, a.list[0].id).rc, -ENOENT);
    assert_int_equal(queue_stats(&w).dead, 5);
    assert_int_equal(read_sql(&w, "SELECT count(*) FROM async_events"), 5);
    assert_int_equal(remove_all(&w, &(struct deadletter_query){.trigger = "none"}).count, 0);
    assert_int_equal(remove_all(&w, &(struct deadletter_query){.function = "worse"}).count, 2);
    l = letters(&w, &(struct deadletter_query){0});
    assert_int_equal(l.count, 3);
    assert_string_equal(l.list[0].function, "bad");
    assert_int_equal(remove_all(&w, &(struct deadletter_query){0}).count, 3);
    assert_int_equal(queue_stats(&w).dead, 0);
    assert_int_equal(read_sql(&w, "SELECT count(*) FROM async_events"), 0);
}

static void what_waits_is_no_dead_letter(void **state)
{
    struct async_spec spec = {.function = "hello"};
    struct accepted a;

    world_function(&w, "hello", "hello");
    world_open(&w);
    spec.due_us = async_now_us(w.sched) + 60 * SECOND;
    a = submit_spec(&w, &spec);
    assert_int_equal(remove_letter(&w, a.list[0].id).rc, -ENOENT);
    assert_int_equal(redrive(&w, a.list[0].id).rc, -ENOENT);
    assert_int_equal(letter(&w, a.list[0].id).rc, -ENOENT);
    assert_true(is_pending(&w, a.list[0].id));
}

/* --- ends of the daemon ----------------------------------------------------------------------- */

static void drain_puts_running_work_back(void **state)
{
    struct accepted a;
    struct receipt r;

    world_function(&w, "sleep", "sleep 1000");
    world_open(&w);
    a = submit(&w, "sleep", "x", 1);
    while (world_fake(&w).running == 0) {
        world_barrier(&w);
        world_run(&w);
    }
    world_reopen(&w);
    settle(&w, 60 * SECOND);
    assert_true(world_receipt(&w, a.list[0].id, &r));
    assert_int_equal(r.attempt, 2);
    assert_string_equal(r.outcome, "ok");
    assert_int_equal(receipts_of(&w, a.list[0].id, "draining"), 1);
}

static void work_accepted_while_draining_runs_after_the_restart(void **state)
{
    struct accepted a;

    world_function(&w, "hello", "hello");
    world_open(&w);
    sched_drain(w.sched, SECOND, NULL, NULL);
    a = submit(&w, "hello", "", 0);
    assert_int_equal(a.rc, 0);
    world_advance(&w, 10 * SECOND);
    assert_int_equal(world_fake(&w).ran, 0);
    assert_true(is_pending(&w, a.list[0].id));
    world_reopen(&w);
    settle(&w, 10 * SECOND);
    wait_for_runs(1);
}

static void interrupted_attempt_is_recorded_and_made_again(void **state)
{
    struct accepted a;
    struct receipt r;

    world_function(&w, "hello", "hello");
    world_open(&w);
    sched_drain(w.sched, SECOND, NULL, NULL); /* accepted, but not begun by this one */
    a = submit(&w, "hello", "", 0);
    run_sql(&w, "UPDATE async_queue SET state = 1, attempt = 1"); /* as a claim leaves it */
    world_reopen(&w);
    settle(&w, 10 * SECOND);
    assert_true(world_receipt(&w, a.list[0].id, &r));
    assert_int_equal(r.attempt, 2);
    assert_string_equal(r.outcome, "ok");
    assert_int_equal(receipts_of(&w, a.list[0].id, "interrupted"), 1);
    assert_int_equal(queue_stats(&w).interrupted, 1);
    assert_int_equal(
        read_sql(&w, "SELECT rows - (SELECT count(*) FROM receipts) FROM receipt_count"), 0);
}

static void event_that_is_interrupted_again_and_again_is_given_up(void **state)
{
    struct accepted a;
    struct letters l;

    world_function(&w, "hello", "hello");
    world_open(&w);
    sched_drain(w.sched, SECOND, NULL, NULL);
    a = submit(&w, "hello", "", 0);
    run_sql(&w, "UPDATE async_queue SET state = 1, attempt = 20, interruptions = 19");
    world_reopen(&w);
    settle(&w, 10 * SECOND);
    assert_int_equal(world_fake(&w).ran, 0);
    l = letter(&w, a.list[0].id);
    assert_int_equal(l.rc, 0);
    assert_string_equal(l.list[0].outcome, "interrupted");
}

static void many_interrupted_attempts_are_all_taken_back(void **state)
{
    world_function(&w, "hello", "hello");
    world_open(&w);
    sched_drain(w.sched, SECOND, NULL, NULL);
    for (int i = 0; i < 600; i++) {
        assert_int_equal(submit(&w, "hello", "", 0).rc, 0);
    }
    run_sql(&w, "UPDATE async_queue SET state = 1, attempt = 1");
    world_reopen(&w);
    settle(&w, 60 * SECOND);
    assert_int_equal(world_fake(&w).ran, 600);
    assert_int_equal(read_sql(&w, "SELECT count(*) FROM receipts WHERE outcome = 'interrupted'"),
                     600);
}

static void clock_set_back_makes_no_wait_longer(void **state)
{
    struct async_spec spec = quick("hello");
    struct accepted a;

    world_function(&w, "hello", "hello");
    world_open(&w);
    spec.due_us = async_now_us(w.sched) + 60 * SECOND;
    a = submit_spec(&w, &spec);
    /* As if it had been accepted by a daemon whose clock was a day ahead. */
    run_sql(&w, "UPDATE async_queue SET due_us = due_us + 86400000000");
    world_reopen(&w);
    pass_time(&w, 55 * SECOND);
    assert_true(is_pending(&w, a.list[0].id));
    pass_time(&w, 10 * SECOND);
    assert_int_equal(world_fake(&w).ran, 1);
}

static void clock_set_ahead_gives_up_nothing_unattempted(void **state)
{
    struct accepted a;
    struct receipt r;

    world_function(&w, "hello", "hello");
    world_open(&w);
    sched_drain(w.sched, SECOND, NULL, NULL);
    a = submit(&w, "hello", "", 0);
    run_sql(&w, "UPDATE async_queue SET accepted_us = accepted_us - 86400000000");
    world_reopen(&w);
    settle(&w, 10 * SECOND);
    assert_true(world_receipt(&w, a.list[0].id, &r));
    assert_string_equal(r.outcome, "ok");
}

static void event_that_cannot_be_read_is_set_aside(void **state)
{
    struct accepted a, b;

    world_function(&w, "hello", "hello");
    world_open(&w);
    sched_drain(w.sched, SECOND, NULL, NULL);
    a = submit(&w, "hello", "", 0);
    b = submit(&w, "hello", "", 0);
    run_sql(&w, "UPDATE async_queue SET state = 1 WHERE seq = 1");
    run_sql(&w, "INSERT INTO async_queue SELECT 9, 'x', lane, function, NULL, 0, 0, 0, 0, 0, 0, 0,"
                " 0, NULL, NULL, 0 FROM async_queue LIMIT 1");
    run_sql(&w, "DELETE FROM async_events WHERE seq = 1"); /* as damage would have it */
    world_reopen(&w);
    settle(&w, 5 * SECOND);
    assert_int_equal(world_fake(&w).ran, 1);
    assert_int_equal(receipts_of(&w, b.list[0].id, "ok"), 1);
    assert_int_equal(queue_stats(&w).dead, 2);
    assert_int_equal(letters(&w, &(struct deadletter_query){0}).count, 2);
    assert_int_equal(remove_letter(&w, a.list[0].id).rc, 0);
}

static void work_that_an_older_unid_accepted_runs(void **state)
{
    world_function(&w, "count", "count");
    world_open(&w);
    world_barrier(&w);
    /* The tables as they were, and the record that they are there. */
    run_sql(&w, "DROP TABLE receipts");
    run_sql(&w, "DROP TABLE receipt_count");
    run_sql(&w, "DROP TABLE guest_logs");
    run_sql(&w, "DROP TABLE guest_log_total");
    run_sql(&w, "DROP TABLE async_queue");
    run_sql(&w, "DROP TABLE async_events");
    run_sql(&w, "DROP TABLE async_recent");
    run_sql(&w, "DROP TABLE kept_requests");
    run_sql(&w, "DROP TABLE kept_total");
    run_sql(&w, scheduler_schema.steps[0]);
    run_sql(&w, "UPDATE schema_version SET version = 1 WHERE component = 'scheduler'");
    run_sql(&w, "INSERT INTO async_queue VALUES('01M7YDRZD2H7J5JA5S5MEGB4ZR', 'count', NULL,"
                " 'text/plain', 1, strftime('%s', 'now') * 1000000, 1, 'body')");
    run_sql(&w, "INSERT INTO async_queue VALUES('01M7YDRZD2H7J5JA5S5MEGB4ZS', 'count', NULL,"
                " NULL, 0, strftime('%s', 'now') * 1000000, 0, '')");
    world_reopen(&w);
    settle(&w, 5 * SECOND);
    assert_int_equal(world_fake(&w).ran, 2);
    assert_int_equal(receipts_of(&w, "01M7YDRZD2H7J5JA5S5MEGB4ZR", "interrupted"), 1);
    assert_int_equal(receipts_of(&w, "01M7YDRZD2H7J5JA5S5MEGB4ZR", "ok"), 1);
    assert_int_equal(read_sql(&w, "SELECT sum(bytes_in) FROM receipts WHERE outcome = 'ok'"), 4);
}

#ifdef UNID_FAULT_INJECTION
static void nothing_is_accepted_that_is_not_on_disk(void **state)
{
    world_function(&w, "hello", "hello");
    world_open(&w);
    world_barrier(&w);
    assert_int_equal(un_fault_set("store.commit=ENOSPC@1+"), 0);
    assert_int_equal(submit(&w, "hello", "", 0).rc, -ENOSPC);
    assert_int_equal(un_fault_set("store.commit=EROFS@1+"), 0);
    assert_int_equal(submit(&w, "hello", "", 0).rc, -EROFS);
    assert_int_equal(un_fault_set(NULL), 0);
    pass_time(&w, 5 * SECOND);
    assert_int_equal(world_fake(&w).ran, 0);
    assert_int_equal(submit(&w, "hello", "", 0).rc, 0);
    settle(&w, 5 * SECOND);
    assert_int_equal(world_fake(&w).ran, 1);
}

static void attempts_stop_while_their_ends_cannot_be_written(void **state)
{
    enum { N = 50 };

    w.set.pool_max = LIMIT_ASYNC_RUNNING;
    world_function(&w, "hello", "hello");
    world_open(&w);
    for (int i = 0; i < N; i++) {
        assert_int_equal(submit(&w, "hello", "", 0).rc, 0);
    }
    assert_int_equal(un_fault_set("receipt.write=EIO@1+"), 0);
    pass_time(&w, 5 * SECOND);
    assert_int_equal(un_fault_set(NULL), 0);
    settle(&w, 10 * SECOND);
    assert_int_equal(world_fake(&w).ran, N); /* none twice */
}
#endif

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_judged_by_their_status),
        cmocka_unit_test(outcomes_are_judged_by_whose_fault_they_are),
        cmocka_unit_test(backoff_doubles_up_to_its_most_and_is_jittered_in_full),
        cmocka_unit_test(policy_has_defaults_and_bounds),
        cmocka_unit_test(sequencers_are_compared_as_s3_says),
        cmocka_unit_test(share_of_greedy_lanes_leaves_room_for_others),
        T(accepted_work_runs_and_leaves_the_queue_with_its_receipt),
        T(large_body_reaches_the_function),
        T(work_for_no_function_is_not_accepted),
        T(work_that_is_not_due_waits),
        T(much_work_runs_few_at_a_time_and_all_of_it),
        T(failed_work_is_tried_again_and_then_a_dead_letter),
        T(hopeless_work_is_a_dead_letter_at_once),
        T(status_of_a_busy_function_is_tried_again),
        T(old_work_is_given_up_after_one_more_attempt),
        T(poison_does_not_block_what_comes_behind),
        T(slow_function_leaves_places_to_others),
        T(claims_of_a_function_stay_below_its_concurrency),
        T(work_that_finds_no_place_is_tried_again_and_not_counted),
        T(redriven_letter_runs_anew),
        T(letters_are_listed_newest_first_by_function_and_trigger),
        T(what_waits_is_no_dead_letter),
        T(drain_puts_running_work_back),
        T(work_accepted_while_draining_runs_after_the_restart),
        T(interrupted_attempt_is_recorded_and_made_again),
        T(event_that_is_interrupted_again_and_again_is_given_up),
        T(many_interrupted_attempts_are_all_taken_back),
        T(clock_set_back_makes_no_wait_longer),
        T(clock_set_ahead_gives_up_nothing_unattempted),
        T(event_that_cannot_be_read_is_set_aside),
        T(work_that_an_older_unid_accepted_runs),
#ifdef UNID_FAULT_INJECTION
        T(nothing_is_accepted_that_is_not_on_disk),
        T(attempts_stop_while_their_ends_cannot_be_written),
#endif
    };

    return cmocka_run_group_tests_name("durable queue", tests, NULL, NULL);
}
