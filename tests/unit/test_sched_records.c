/* test_sched_records.c - receipts and logs, on a real database. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/fault.h"
#include "common/limits.h"
#include "sched_world.h"

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

static uint64_t sum(const struct sched_phases *p)
{
    return p->queue_us + p->shell_us + p->bind_us + p->start_us + p->first_byte_us + p->run_us +
           p->teardown_us;
}

/* --- receipts --------------------------------------------------------------------------------- */

static void receipt_is_complete_and_its_phases_are_contiguous(void **state)
{
    struct client c = {0};
    struct receipt r;
    struct fake_script s = {.shell_us = 100 * MS, .start_us = 10 * MS, .destroy_us = 50 * MS};

    fake_driver_script(w.driver, &s);
    world_function(&w, "sleep", "sleep 30");
    world_open(&w);
    client_post(&w, &c, "sleep", -1);
    sched_call_body(c.call, "abc", 3, true);
    world_advance(&w, SECOND);
    assert_int_equal(c.outcome.kind, SCHED_OK);
    assert_true(world_receipt(&w, c.id, &r));
    assert_string_equal(r.function, "sleep");
    assert_int_equal(r.version, 1);
    assert_string_equal(r.digest, "sha256:sleep");
    assert_string_equal(r.driver, "fake");
    assert_string_equal(r.outcome, "ok");
    assert_string_equal(r.exit_reason, "done");
    assert_string_equal(r.error, "");
    assert_int_equal(r.status, 200);
    assert_int_equal(r.attempt, 1);
    assert_int_equal(r.bytes_in, 3);
    assert_int_equal(r.bytes_out, 6);
    assert_true(r.fresh);
    assert_int_equal(r.phases.queue_us, 0);
    assert_int_equal(r.phases.shell_us, 100 * MS);
    assert_int_equal(r.phases.bind_us, 10 * MS);
    assert_int_equal(r.phases.start_us, 30 * MS);
    assert_int_equal(r.phases.run_us, 0);
    assert_int_equal(r.phases.teardown_us, 50 * MS);
    assert_int_equal(sum(&r.phases), 190 * MS);
    client_done(&c);
}

static void phases_of_a_call_that_waited_and_timed_out_add_up(void **state)
{
    struct client first = {0}, c = {0};
    struct receipt r;
    struct fake_script s = {.destroy_us = 7 * MS};

    fake_driver_script(w.driver, &s);
    world_function(&w, "spin", "spin")->config.concurrency = 1;
    world_open(&w);
    client_get(&w, &first, "spin");
    client_get(&w, &c, "spin");
    world_advance(&w, 20 * SECOND);
    assert_int_equal(c.outcome.kind, SCHED_TIMED_OUT);
    assert_true(world_receipt(&w, c.id, &r));
    assert_int_equal(r.status, 504);
    assert_int_equal(r.phases.queue_us, 5 * SECOND);
    assert_int_equal(r.phases.run_us, 5 * SECOND);
    assert_int_equal(r.phases.first_byte_us, 0);
    assert_int_equal(sum(&r.phases), 10 * SECOND + 7 * MS);
}

static void every_end_leaves_a_receipt(void **state)
{
    static const struct {
        const char *function;
        unsigned status;
        const char *outcome, *exit_reason;
    } cases[] = {
        {"hello", 200, "ok", "done"},       {"status", 204, "ok", "done"},
        {"exit", 502, "failed", "done"},    {"crash", 502, "failed", "fault"},
        {"lost", 502, "failed", "lost"},    {"protocol", 502, "failed", "protocol"},
        {"nobody", 404, "no-function", ""}, {"spin", 504, "timed-out", ""},
    };
    struct receipt r;

    world_function(&w, "status", "status 204");
    for (size_t i = 0; i < 8; i++) {
        if (i != 1 && i != 6) {
            world_function(&w, cases[i].function, cases[i].function);
        }
    }
    world_open(&w);
    for (size_t i = 0; i < 8; i++) {
        struct client c = {0};

        client_get(&w, &c, cases[i].function);
        world_advance(&w, 6 * SECOND);
        assert_int_equal(c.ends, 1);
        assert_true(world_receipt(&w, c.id, &r));
        assert_int_equal(r.status, cases[i].status);
        assert_string_equal(r.outcome, cases[i].outcome);
        assert_string_equal(r.exit_reason, cases[i].exit_reason);
        assert_int_equal(r.error[0] != '\0', strcmp(r.outcome, "ok") != 0);
        client_done(&c);
    }
}

static void cancelled_calls_leave_receipts_too(void **state)
{
    struct client run = {0}, wait = {0};
    struct receipt r;

    world_function(&w, "spin", "spin")->config.concurrency = 1;
    world_open(&w);
    client_get(&w, &run, "spin");
    client_get(&w, &wait, "spin");
    world_advance(&w, 40 * MS);
    sched_call_cancel(wait.call);
    sched_call_cancel(run.call);
    world_run(&w);
    assert_true(world_receipt(&w, run.id, &r));
    assert_string_equal(r.outcome, "cancelled");
    assert_int_equal(r.status, 499);
    assert_true(r.fresh);
    assert_true(world_receipt(&w, wait.id, &r));
    assert_int_equal(r.phases.queue_us, 40 * MS);
    assert_false(r.fresh);
}

struct listed {
    struct receipt items[200];
    size_t count;
    int rc;
    bool answered;
};

static void on_list(void *arg, int rc, const struct receipt *list, size_t count,
                    const struct un_error *err)
{
    struct listed *l = arg;

    l->rc = rc;
    l->count = count;
    l->answered = true;
    assert_true(count <= 200);
    for (size_t i = 0; i < count; i++) {
        l->items[i] = list[i];
    }
}

static bool list_answered(void *arg)
{
    return ((struct listed *)arg)->answered;
}

static struct listed *list(const struct receipt_query *q)
{
    static struct listed l;

    l.answered = false;
    receipt_list(w.sched, q, on_list, &l);
    assert_false(l.answered);
    world_until(&w, list_answered, &l);
    assert_int_equal(l.rc, 0);
    return &l;
}

static void run_some(const char *function, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct client c = {0};

        client_get(&w, &c, function);
        world_run(&w);
        assert_int_equal(c.ends, 1);
        client_done(&c);
    }
}

/* Lets a batch go to the disk. */
static void flush(void)
{
    world_advance(&w, 200 * MS);
    world_barrier(&w);
}

static void list_is_newest_first_with_what_is_not_on_disk_yet(void **state)
{
    struct receipt_query q = {.limit = 100};
    struct listed *l;

    world_function(&w, "hello", "hello");
    world_open(&w);
    run_some("hello", 5);
    flush();
    run_some("hello", 5);
    l = list(&q);
    assert_int_equal(l->count, 10);
    for (size_t i = 1; i < l->count; i++) {
        assert_true(strcmp(l->items[i - 1].id, l->items[i].id) > 0);
    }
}

static void list_filters_and_pages(void **state)
{
    struct receipt_query any = {.limit = 3}, failed = {.limit = 100, .outcome = "failed"};
    struct receipt_query of = {.limit = 100, .function = "hello"};
    struct receipt_query none = {.limit = 100, .outcome = "no-function"};
    size_t seen = 0;
    char before[UN_ID_SIZE];

    world_function(&w, "hello", "hello");
    world_function(&w, "crash", "crash");
    world_open(&w);
    run_some("hello", 4);
    run_some("crash", 2);
    flush();
    run_some("nobody", 1);
    assert_int_equal(list(&failed)->count, 3);
    assert_int_equal(list(&of)->count, 4);
    assert_int_equal(list(&none)->count, 1);
    for (struct listed *l = list(&any); l->count > 0; l = list(&any)) {
        seen += l->count;
        memcpy(before, l->items[l->count - 1].id, sizeof(before));
        any.before_id = before;
    }
    assert_int_equal(seen, 7);
}

static void receipts_survive_a_restart(void **state)
{
    struct receipt_query q = {.limit = 100};

    world_function(&w, "hello", "hello");
    world_open(&w);
    run_some("hello", 7);
    world_reopen(&w);
    assert_int_equal(list(&q)->count, 7);
}

static void old_receipts_are_removed_beyond_the_most(void **state)
{
    struct receipt_query q = {.limit = 100};

    w.set.receipts_max_rows = 10;
    world_function(&w, "hello", "hello");
    world_open(&w);
    run_some("hello", 30);
    flush();
    run_some("hello", 1);
    flush();
    assert_in_range(list(&q)->count, 10, 11);
}

static void many_old_receipts_are_removed_in_steps_without_a_call(void **state)
{
    struct receipt_query q = {.limit = 200};

    world_function(&w, "hello", "hello");
    world_open(&w);
    for (int i = 0; i < 5; i++) { /* more than a step removes */
        run_some("hello", 100);
        flush();
    }
    w.set.receipts_max_rows = 10;
    world_reopen(&w);
    assert_int_equal(list(&q)->count, 200);
    world_advance(&w, 600 * SECOND);
    world_barrier(&w);
    for (int i = 0; i < 3; i++) {
        world_advance(&w, SECOND);
        world_barrier(&w);
    }
    assert_int_equal(list(&q)->count, 10);
}

static void old_receipts_are_removed_by_age(void **state)
{
    struct receipt_query q = {.limit = 100};

    w.set.receipts_max_age_us = 0;
    world_function(&w, "hello", "hello");
    world_open(&w);
    run_some("hello", 30);
    flush();
    flush(); /* the second batch sees what the first has made old */
    assert_int_equal(list(&q)->count, 0);
}

static void receipt_of_nothing_is_not_found(void **state)
{
    struct receipt r;

    world_open(&w);
    assert_false(world_receipt(&w, "01ARZ3NDEKTSV4RRFFQ69G5FAV", &r));
}

#ifdef UNID_FAULT_INJECTION
static void receipts_wait_while_the_database_refuses(void **state)
{
    struct receipt_query q = {.limit = 100};

    world_function(&w, "hello", "hello");
    world_open(&w);
    un_fault_set("receipt.write=ENOSPC");
    run_some("hello", 3);
    for (int i = 0; i < 3; i++) { /* the first attempt and two more */
        world_advance(&w, 1100 * MS);
        world_barrier(&w);
        assert_int_equal(list(&q)->count, 3);
    }
    un_fault_set(NULL);
    world_advance(&w, 1100 * MS);
    world_barrier(&w);
    world_reopen(&w);
    assert_int_equal(list(&q)->count, 3);
}

static void no_memory_for_a_call_is_told_by_start(void **state)
{
    struct un_error err = UN_ERROR_INIT;
    struct sched_call_spec spec = {.function = "hello", .method = "GET", .target = "/"};
    struct sched_call *c = NULL;

    world_function(&w, "hello", "hello");
    world_open(&w);
    un_fault_set("call.alloc=ENOMEM");
    assert_int_equal(sched_call_start(w.sched, &spec, &c, &err), -ENOMEM);
    un_fault_set("instance.alloc=ENOMEM@1");
    run_some("nobody", 1);
    un_fault_set(NULL);
    run_some("hello", 1);
}
#endif

/* --- logs ------------------------------------------------------------------------------------- */

struct log_listed {
    char text[4096];
    size_t count;
    bool answered;
};

static void on_log_list(void *arg, int rc, const struct log_line *lines, size_t count,
                        const struct un_error *err)
{
    struct log_listed *l = arg;
    size_t at = 0;

    assert_int_equal(rc, 0);
    l->text[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        at += (size_t)snprintf(l->text + at, sizeof(l->text) - at, "%s|", lines[i].text);
        assert_true(un_id_valid(lines[i].invocation_id));
    }
    l->count = count;
    l->answered = true;
}

static bool log_answered(void *arg)
{
    return ((struct log_listed *)arg)->answered;
}

static struct log_listed *logs(const char *function, unsigned limit)
{
    static struct log_listed l;

    l.answered = false;
    log_list(w.sched, function, limit, on_log_list, &l);
    world_until(&w, log_answered, &l);
    return &l;
}

static void log_lines_are_listed_in_memory_and_on_disk(void **state)
{
    world_function(&w, "log", "log one two");
    world_function(&w, "other", "log three");
    world_open(&w);
    run_some("log", 1);
    run_some("other", 1);
    assert_string_equal(logs("log", 100)->text, "one|two|");
    flush();
    assert_string_equal(logs("log", 100)->text, "one|two|");
    run_some("log", 1);
    assert_string_equal(logs("log", 3)->text, "two|one|two|");
    world_reopen(&w);
    assert_int_equal(logs("log", 100)->count, 4);
    assert_int_equal(logs("nobody", 100)->count, 0);
}

static void the_oldest_logs_are_removed_beyond_the_most_bytes(void **state)
{
    w.set.logs_max_bytes = 1000; /* some rows of 128 bytes and two lines each */
    world_function(&w, "log", "log one two");
    world_function(&w, "last", "log three");
    world_open(&w);
    run_some("log", 20);
    run_some("last", 1);
    flush();
    assert_in_range(logs("log", 1000)->count, 2, 12);
    assert_string_equal(logs("last", 1000)->text, "three|");
    w.set.logs_max_bytes = 0;
    world_reopen(&w);
    run_some("last", 1);
    flush();
    assert_int_equal(logs("log", 1000)->count, 0);
    assert_int_equal(logs("last", 1000)->count, 0);
}

static void logs_are_removed_by_age(void **state)
{
    w.set.logs_max_age_us = 0;
    world_function(&w, "log", "log one two");
    world_function(&w, "last", "log three");
    world_open(&w);
    run_some("log", 30);
    flush();
    do { /* a later batch sees what was made old by the real clock meanwhile */
        run_some("last", 1);
        flush();
    } while (logs("log", 1000)->count > 0);
}

static void what_is_old_is_removed_without_a_call(void **state)
{
    world_function(&w, "log", "log one two");
    world_open(&w);
    run_some("log", 5);
    flush();
    w.set.logs_max_age_us = 0;
    world_reopen(&w);
    assert_int_equal(logs("log", 1000)->count, 10);
    do { /* the age is the real clock's */
        world_advance(&w, 601 * SECOND);
        world_barrier(&w);
    } while (logs("log", 1000)->count > 0);
}

static void log_of_a_running_call_is_listed(void **state)
{
    struct client c = {.hold = true};

    world_function(&w, "log", "log now");
    world_open(&w);
    client_get(&w, &c, "log");
    world_run(&w);
    assert_int_equal(c.ends, 0);
    assert_string_equal(logs("log", 10)->text, "now|");
    sched_call_data_done(c.call);
    world_run(&w);
    assert_int_equal(c.ends, 1);
    client_done(&c);
}

static void note_line(void *arg, const struct log_line *line)
{
    strcat(arg, line->text);
    strcat(arg, "|");
}

static void follower_gets_each_new_line_until_it_stops(void **state)
{
    struct log_follower *f;
    char text[200] = "";

    world_function(&w, "log", "log one two");
    world_function(&w, "other", "log three");
    world_function(&w, "exit", "exit 1 unfinished");
    world_open(&w);
    f = log_follow(w.sched, "log", note_line, text);
    assert_non_null(f);
    run_some("log", 1);
    run_some("other", 1);
    assert_string_equal(text, "one|two|");
    log_unfollow(f);
    f = log_follow(w.sched, "exit", note_line, text);
    run_some("log", 1);
    run_some("exit", 1);
    assert_string_equal(text, "one|two|unfinished|");
    log_unfollow(f);
}

static void log_is_bounded_a_call(void **state)
{
    w.set.max_log_bytes = 640;
    world_function(&w, "flood", "log-flood 100000");
    world_open(&w);
    run_some("flood", 1);
    /* Ten lines, the cut, what is left out, and as much of the end. */
    assert_int_equal(logs("flood", 1000)->count, 22);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(receipt_is_complete_and_its_phases_are_contiguous),
        T(phases_of_a_call_that_waited_and_timed_out_add_up),
        T(every_end_leaves_a_receipt),
        T(cancelled_calls_leave_receipts_too),
        T(list_is_newest_first_with_what_is_not_on_disk_yet),
        T(list_filters_and_pages),
        T(receipts_survive_a_restart),
        T(old_receipts_are_removed_beyond_the_most),
        T(many_old_receipts_are_removed_in_steps_without_a_call),
        T(old_receipts_are_removed_by_age),
        T(receipt_of_nothing_is_not_found),
#ifdef UNID_FAULT_INJECTION
        T(receipts_wait_while_the_database_refuses),
        T(no_memory_for_a_call_is_told_by_start),
#endif
        T(log_lines_are_listed_in_memory_and_on_disk),
        T(the_oldest_logs_are_removed_beyond_the_most_bytes),
        T(logs_are_removed_by_age),
        T(what_is_old_is_removed_without_a_call),
        T(log_of_a_running_call_is_listed),
        T(follower_gets_each_new_line_until_it_stops),
        T(log_is_bounded_a_call),
    };

    return cmocka_run_group_tests_name("scheduler records", tests, NULL, NULL);
}
