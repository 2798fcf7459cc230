/* test_sched_policy.c - the scheduler's pure parts: pool policy, admission, the guest's log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/admission.h"
#include "scheduler/pool_policy.h"
#include "scheduler/record/guest_log.h"

#define SECOND 1000000ull

static struct pool_action run(struct pool_policy *p, uint64_t now, unsigned idle, unsigned starting,
                              unsigned claims)
{
    struct pool_counts n = {.idle = idle, .starting = starting, .claims = claims, .refill = true};

    return pool_policy_run(p, now, &n);
}

static void minimum_is_made_ahead(void **state)
{
    struct pool_policy p;

    pool_policy_init(&p, 2, 8, SECOND);
    assert_int_equal(run(&p, 0, 0, 0, 0).start, 2);
    assert_int_equal(run(&p, 0, 1, 1, 0).start, 0);
}

static void empty_pool_at_rest_asks_for_nothing(void **state)
{
    struct pool_policy p;
    struct pool_action a;

    pool_policy_init(&p, 0, 8, SECOND);
    a = run(&p, 0, 0, 0, 0);
    assert_int_equal(a.start, 0);
    assert_true(a.wake_us == UINT64_MAX);
}

static void claims_come_before_refill_and_get_exactly_their_number(void **state)
{
    struct pool_policy p;

    pool_policy_init(&p, 2, 8, SECOND);
    assert_int_equal(run(&p, 0, 0, 0, 5).start, 5);
    assert_int_equal(run(&p, 0, 0, 3, 5).start, 2);
    assert_int_equal(run(&p, 0, 0, 5, 5).start, 0);
}

static void refill_is_made_few_at_a_time(void **state)
{
    struct pool_policy p;

    pool_policy_init(&p, 20, 20, SECOND);
    assert_int_equal(run(&p, 0, 0, 0, 0).start, POOL_REFILL_PARALLEL);
    assert_int_equal(run(&p, 0, 5, 3, 0).start, POOL_REFILL_PARALLEL - 3);
}

static void misses_raise_the_target_up_to_the_most(void **state)
{
    struct pool_policy p;

    pool_policy_init(&p, 0, 3, SECOND);
    for (int i = 0; i < 10; i++) {
        pool_policy_miss(&p, 0);
    }
    assert_int_equal(p.target, 3);
}

static void target_decays_one_per_idle_time_down_to_the_least(void **state)
{
    struct pool_policy p;

    pool_policy_init(&p, 1, 8, SECOND);
    pool_policy_miss(&p, 0);
    pool_policy_miss(&p, 0);
    pool_policy_miss(&p, 0);
    assert_int_equal(p.target, 4);
    assert_int_equal(run(&p, SECOND - 1, 4, 0, 0).release, 0);
    assert_int_equal(run(&p, SECOND, 4, 0, 0).release, 1);
    assert_int_equal(run(&p, 2 * SECOND, 3, 0, 0).release, 1);
    assert_int_equal(run(&p, 10 * SECOND, 2, 0, 0).release, 1);
    assert_true(run(&p, 10 * SECOND, 1, 0, 0).wake_us == UINT64_MAX);
}

static void use_of_the_last_shell_puts_decay_off(void **state)
{
    struct pool_policy p;

    pool_policy_init(&p, 0, 8, SECOND);
    pool_policy_miss(&p, 0);
    pool_policy_hit(&p, SECOND / 2, 0);
    assert_int_equal(run(&p, SECOND, 1, 0, 0).release, 0);
    assert_int_equal(run(&p, SECOND + SECOND / 2, 1, 0, 0).release, 1);
}

static void use_that_leaves_shells_over_does_not_put_decay_off(void **state)
{
    struct pool_policy p;

    pool_policy_init(&p, 0, 8, SECOND);
    pool_policy_miss(&p, 0);
    pool_policy_miss(&p, 0);
    pool_policy_hit(&p, SECOND / 2, 1);
    assert_int_equal(run(&p, SECOND, 2, 0, 0).release, 1);
}

static void failures_wait_longer_each_time_within_bounds(void **state)
{
    struct pool_policy p;
    uint64_t now = 0, before = 0;

    pool_policy_init(&p, 1, 8, SECOND);
    for (unsigned i = 0; i < 20; i++) {
        pool_policy_failed(&p, now, p.round, 0);
        assert_true(p.retry_at - now >= before);
        assert_true(p.retry_at - now <= POOL_RETRY_MOST_US);
        before = p.retry_at - now;
        assert_int_equal(run(&p, p.retry_at - 1, 0, 0, 1).start, 0);
        assert_true(run(&p, p.retry_at - 1, 0, 0, 1).wake_us == p.retry_at);
        now = p.retry_at;
        assert_int_equal(run(&p, now, 0, 0, 7).start, 1);
        assert_int_equal(run(&p, now, 0, 1, 7).start, 0);
    }
    assert_int_equal(before, POOL_RETRY_MOST_US / 2);
    pool_policy_made(&p);
    assert_int_equal(run(&p, now, 0, 0, 7).start, 7);
}

static void jitter_stays_between_half_and_all_of_the_pause(void **state)
{
    struct pool_policy p;

    pool_policy_init(&p, 1, 8, SECOND);
    pool_policy_failed(&p, 0, 0, UINT32_MAX);
    assert_in_range(p.retry_at, POOL_RETRY_FIRST_US / 2, POOL_RETRY_FIRST_US);
}

static void shells_begun_together_fail_as_one(void **state)
{
    struct pool_policy p;

    pool_policy_init(&p, 1, 8, SECOND);
    for (int i = 0; i < 10; i++) {
        pool_policy_failed(&p, 0, 0, 0);
    }
    assert_int_equal(p.failures, 1);
}

static void pool_is_broken_after_three_failures_until_the_next_attempt(void **state)
{
    struct pool_policy p;
    uint64_t retry;

    pool_policy_init(&p, 1, 8, SECOND);
    for (unsigned i = 0; i < POOL_FAILURES_BROKEN; i++) {
        assert_false(pool_policy_broken(&p, 0, &retry));
        pool_policy_failed(&p, 0, p.round, 0);
    }
    assert_true(pool_policy_broken(&p, 0, &retry));
    assert_int_equal(retry, p.retry_at);
    assert_false(pool_policy_broken(&p, p.retry_at, &retry));
}

/* --- admission -------------------------------------------------------------------------------- */

static void functions_fall_into_classes_by_powers_of_two(void **state)
{
    assert_int_equal(admission_class(1, 64, 4096), 0);
    assert_int_equal(admission_class(64, 64, 4096), 0);
    assert_int_equal(admission_class(65, 64, 4096), 1);
    assert_int_equal(admission_class(1000, 64, 4096), 4);
    assert_int_equal(admission_class_mib(4, 64, 4096), 1024);
    assert_int_equal(admission_class(4097, 64, 4096), -1);
}

static void largest_class_is_the_limit_itself(void **state)
{
    int cls = admission_class(2900, 64, 3001);

    assert_true(cls > 0);
    assert_int_equal(admission_class_mib((unsigned)cls, 64, 3001), 3000);
    assert_int_equal(admission_class(3001, 64, 3001), -1);
    assert_int_equal(admission_class(65536, 1, 65536) < SHELL_CLASSES, 1);
}

static void memory_that_is_leaving_is_waited_for_before_more_is_evicted(void **state)
{
    struct admission_memory m = {.limit_mib = 100, .used_mib = 90};
    uint64_t evict = 0;

    assert_int_equal(admission_memory_check(&m, 10, &evict), ADMIT);
    assert_int_equal(admission_memory_check(&m, 30, &evict), ADMIT_EVICT);
    assert_int_equal(evict, 20);
    m.leaving_mib = 20;
    assert_int_equal(admission_memory_check(&m, 30, &evict), ADMIT_LATER);
}

static void queue_refuses_beyond_its_limits(void **state)
{
    struct admission_queue q = {.waiting_function = 5,
                                .waiting_total = 5,
                                .limit_function = 5,
                                .limit_total = 9,
                                .concurrency = 1,
                                .wait_us = SECOND};

    assert_false(admission_refuse(&q));
    q.waiting_function = 6;
    assert_true(admission_refuse(&q));
    q.waiting_function = 1;
    q.waiting_total = 10;
    assert_true(admission_refuse(&q));
}

static void queue_refuses_a_wait_that_is_known_to_be_too_long(void **state)
{
    struct admission_queue q = {.waiting_function = 4,
                                .waiting_total = 4,
                                .limit_function = 100,
                                .limit_total = 100,
                                .concurrency = 2,
                                .mean_us = SECOND,
                                .wait_us = 2 * SECOND};

    assert_false(admission_refuse(&q));
    q.waiting_function = 5;
    assert_true(admission_refuse(&q));
    assert_int_equal(admission_retry_after_s(&q), 4);
}

static void retry_after_is_at_least_a_second_and_bounded(void **state)
{
    struct admission_queue q = {.waiting_function = 1, .concurrency = 1, .mean_us = 10};

    assert_int_equal(admission_retry_after_s(&q), ADMISSION_RETRY_LEAST_S);
    q.mean_us = UINT64_MAX / 2;
    q.waiting_function = 1000000;
    assert_int_equal(admission_retry_after_s(&q), ADMISSION_RETRY_MOST_S);
}

static void mean_follows_and_is_silent_at_first(void **state)
{
    struct admission_mean m = {0};

    for (int i = 0; i < ADMISSION_SAMPLES - 1; i++) {
        admission_mean_add(&m, 800);
        assert_int_equal(admission_mean_get(&m), 0);
    }
    admission_mean_add(&m, 800);
    assert_int_equal(admission_mean_get(&m), 800);
    for (int i = 0; i < 100; i++) {
        admission_mean_add(&m, 8000);
    }
    assert_in_range(admission_mean_get(&m), 7900, 8000);
}

/* --- the guest's log -------------------------------------------------------------------------- */

static void add(struct guest_log *log, const char *text, uint64_t most)
{
    struct guest_log_sink sink = {.max_bytes = most, .at_us = 7};

    guest_log_add(log, text, strlen(text), &sink);
}

static void finish(struct guest_log *log)
{
    struct guest_log_sink sink = {.max_bytes = 1000000, .at_us = 7};

    guest_log_finish(log, &sink);
}

static void pieces_become_lines(void **state)
{
    struct guest_log log = {0};

    add(&log, "one\nt", 1000);
    add(&log, "wo\r\n\nthr", 1000);
    add(&log, "ee", 1000);
    finish(&log);
    assert_string_equal((char *)log.lines.data, "7 one\n7 two\n7 \n7 three\n");
    guest_log_done(&log);
}

static void what_is_no_text_is_replaced(void **state)
{
    static const struct {
        const char *raw, *text;
    } cases[] = {
        {"plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80",
         "plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"a\x1b[31mb", "a\xef\xbf\xbd[31mb"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf4\x90\x80\x80x", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx"},
        {"cut \xe2\x82", "cut \xef\xbf\xbd\xef\xbf\xbd"},
        {"c1 \xc2\x9b", "c1 \xef\xbf\xbd"},
        {"tab\there", "tab\there"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct un_buf out = {0};

        assert_int_equal(
            guest_log_sanitise(&out, (const uint8_t *)cases[i].raw, strlen(cases[i].raw)), 0);
        assert_string_equal((char *)out.data, cases[i].text);
        un_buf_done(&out);
    }
}

static void long_line_is_broken_between_characters(void **state)
{
    struct guest_log log = {0};
    char text[3 * GUEST_LOG_LINE_BYTES + 1] = "";
    char *at, *save;
    const char *line;
    uint64_t at_us;
    size_t lines = 0, bytes = 0;

    for (size_t i = 0; i < GUEST_LOG_LINE_BYTES; i++) {
        memcpy(text + 3 * i, "\xe2\x82\xac", 3);
    }
    text[sizeof(text) - 1] = '\0';
    add(&log, text, 1000000);
    finish(&log);
    at = save = un_buf_steal_str(&log.lines);
    while (guest_log_next(&at, &at_us, &line)) {
        assert_true(strlen(line) <= GUEST_LOG_LINE_BYTES);
        assert_int_equal(strlen(line) % 3, 0);
        assert_null(strstr(line, "\xef\xbf\xbd"));
        bytes += strlen(line);
        lines++;
    }
    assert_int_equal(bytes, 3 * GUEST_LOG_LINE_BYTES);
    assert_int_equal(lines, 4);
    free(save);
    guest_log_done(&log);
}

static void log_is_cut_once_at_its_limit(void **state)
{
    struct guest_log log = {0};
    char buf[2048];

    for (int i = 0; i < 100; i++) {
        add(&log, "0123456789\n", 55);
    }
    finish(&log);
    guest_log_tail(&log, buf, sizeof(buf));
    assert_string_equal(buf, "0123456789\n0123456789\n0123456789\n0123456789\n0123456789\n"
                             "[the log is cut here: it has reached 55 bytes]\n"
                             "[1001 bytes are left out here]\n"
                             "0123456789\n0123456789\n0123456789\n0123456789\n");
    guest_log_done(&log);
}

static void the_end_of_a_log_that_was_cut_is_shown(void **state)
{
    struct guest_log log = {0};
    char buf[2048];

    add(&log, "begin\nmiddle, which is long enough\nwhy it", 10);
    add(&log, " failed\nbye", 10);
    finish(&log);
    guest_log_tail(&log, buf, sizeof(buf));
    assert_string_equal(buf, "begin\nmidd\n[the log is cut here: it has reached 10 bytes]\n"
                             "[39 bytes are left out here]\nbye\n");
    guest_log_done(&log);
    log = (struct guest_log){0};
    add(&log, "0123456789\nno more than fits", 10);
    guest_log_resume(&log);
    add(&log, "x\n", 10);
    finish(&log);
    guest_log_tail(&log, buf, sizeof(buf));
    assert_string_equal(buf, "0123456789\n[the log is cut here: it has reached 10 bytes]\nx\n");
    guest_log_done(&log);
    log = (struct guest_log){0};
    add(&log, "0123456789\n", 10); /* only the newline is beyond */
    add(&log, "fits\n", 10);
    finish(&log);
    guest_log_tail(&log, buf, sizeof(buf));
    assert_string_equal(buf, "0123456789\n[the log is cut here: it has reached 10 bytes]\nfits\n");
    guest_log_done(&log);
}

static void tail_is_the_last_whole_lines(void **state)
{
    struct guest_log log = {0};
    char buf[10];

    guest_log_tail(&log, buf, sizeof(buf));
    assert_string_equal(buf, "");
    add(&log, "aaaa\nbbbb\ncccc\n", 1000);
    guest_log_tail(&log, buf, sizeof(buf));
    assert_string_equal(buf, "cccc\n");
    add(&log, "a line that is too long\n", 1000);
    guest_log_tail(&log, buf, sizeof(buf));
    assert_string_equal(buf, "too long\n");
    guest_log_done(&log);
}

static void malformed_packed_text_ends_the_reading(void **state)
{
    char text[] = "12 fine\nnonsense\n13 x\n";
    char *at = text;
    const char *line;
    uint64_t at_us;

    assert_true(guest_log_next(&at, &at_us, &line));
    assert_int_equal(at_us, 12);
    assert_string_equal(line, "fine");
    assert_false(guest_log_next(&at, &at_us, &line));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(minimum_is_made_ahead),
        cmocka_unit_test(empty_pool_at_rest_asks_for_nothing),
        cmocka_unit_test(claims_come_before_refill_and_get_exactly_their_number),
        cmocka_unit_test(refill_is_made_few_at_a_time),
        cmocka_unit_test(misses_raise_the_target_up_to_the_most),
        cmocka_unit_test(target_decays_one_per_idle_time_down_to_the_least),
        cmocka_unit_test(use_of_the_last_shell_puts_decay_off),
        cmocka_unit_test(use_that_leaves_shells_over_does_not_put_decay_off),
        cmocka_unit_test(failures_wait_longer_each_time_within_bounds),
        cmocka_unit_test(jitter_stays_between_half_and_all_of_the_pause),
        cmocka_unit_test(shells_begun_together_fail_as_one),
        cmocka_unit_test(pool_is_broken_after_three_failures_until_the_next_attempt),
        cmocka_unit_test(functions_fall_into_classes_by_powers_of_two),
        cmocka_unit_test(largest_class_is_the_limit_itself),
        cmocka_unit_test(memory_that_is_leaving_is_waited_for_before_more_is_evicted),
        cmocka_unit_test(queue_refuses_beyond_its_limits),
        cmocka_unit_test(queue_refuses_a_wait_that_is_known_to_be_too_long),
        cmocka_unit_test(retry_after_is_at_least_a_second_and_bounded),
        cmocka_unit_test(mean_follows_and_is_silent_at_first),
        cmocka_unit_test(pieces_become_lines),
        cmocka_unit_test(what_is_no_text_is_replaced),
        cmocka_unit_test(long_line_is_broken_between_characters),
        cmocka_unit_test(log_is_cut_once_at_its_limit),
        cmocka_unit_test(the_end_of_a_log_that_was_cut_is_shown),
        cmocka_unit_test(tail_is_the_last_whole_lines),
        cmocka_unit_test(malformed_packed_text_ends_the_reading),
    };

    return cmocka_run_group_tests_name("scheduler policies", tests, NULL, NULL);
}
