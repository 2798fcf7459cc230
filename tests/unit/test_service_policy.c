/* test_service_policy.c - how many machines a service has, in virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "service/policy.h"

#define S UINT64_C(1000000)

static const struct service_limits plain = {.concurrency = 10, .max_machines = 4, .idle_ms = 60000};

static struct service_decision decide(struct service_limits l, struct service_counts c,
                                      uint64_t now)
{
    struct service_decision d;
    service_decide(&l, &c, now, &d);
    return d;
}

static void nothing_wanted_is_nothing_made(void **state)
{
    struct service_decision d = decide(plain, (struct service_counts){.waiting = 0}, 100 * S);
    assert_int_equal(d.make + d.start + d.stop + d.discard, 0);
    assert_int_equal(d.again_us, 0);
}

static void one_wake_serves_the_herd(void **state)
{
    /* Ten requests, ten places: one machine, and one to spare. */
    struct service_counts c = {.waiting = 10, .used_us = 100 * S};
    assert_int_equal(decide(plain, c, 100 * S).make, 2);
    c.making = 2;
    assert_int_equal(decide(plain, c, 100 * S).make, 0);
    c.making = 1;
    c.paused = 1;
    struct service_decision d = decide(plain, c, 100 * S);
    assert_int_equal(d.start, 1);
    assert_int_equal(d.make, 0);
    c.paused = 0;
    c.starting = 1;
    d = decide(plain, c, 100 * S);
    assert_int_equal(d.start + d.make, 0);
    c.waiting = 11;
    assert_int_equal(decide(plain, c, 100 * S).make, 1);
}

static void never_more_than_the_maximum(void **state)
{
    struct service_counts c = {.waiting = 1000, .used_us = 100 * S};
    assert_int_equal(decide(plain, c, 100 * S).make, 4);
    c.ready = 2;
    c.in_flight = 20;
    c.starting = 1;
    c.paused = 3;
    struct service_decision d = decide(plain, c, 100 * S);
    assert_int_equal(d.start, 1);
    assert_int_equal(d.make, 0);
}

static void idle_machines_go_but_the_minimum(void **state)
{
    struct service_limits l = plain;
    struct service_counts c = {.ready = 3, .idle = 3, .paused = 1, .used_us = 100 * S};
    struct service_decision d = decide(l, c, 159 * S);
    assert_int_equal(d.stop + d.discard, 0);
    assert_int_equal(d.again_us, 160 * S);
    d = decide(l, c, 160 * S);
    assert_int_equal(d.stop, 3);
    assert_int_equal(d.discard, 0);
    l.min_machines = 2;
    assert_int_equal(decide(l, c, 160 * S).stop, 1);
}

static void a_paused_machine_outlives_the_last_running_one(void **state)
{
    struct service_limits l = plain;
    l.max_machines = 1;
    struct service_counts c = {.ready = 1, .idle = 1, .used_us = 100 * S};
    assert_int_equal(decide(l, c, 159 * S).make, 0); /* the one that may be runs */
    c = (struct service_counts){.used_us = 100 * S};
    struct service_decision d = decide(l, c, 161 * S);
    assert_int_equal(d.make, 1);
    assert_int_equal(d.again_us, 400 * S);
    c.paused = 1;
    d = decide(l, c, 399 * S);
    assert_int_equal(d.make + d.start + d.discard, 0);
    c.waiting = 1;
    assert_int_equal(decide(l, c, 399 * S).start, 1);
    c.waiting = 0;
    d = decide(l, c, 400 * S);
    assert_int_equal(d.discard, 1);
    assert_int_equal(d.again_us, 0);
    l.exclusive = true; /* another may need what it holds */
    assert_int_equal(decide(l, c, 161 * S).discard, 1);
}

static void busy_machines_stay(void **state)
{
    struct service_counts c = {.ready = 2, .idle = 1, .in_flight = 1, .used_us = 100 * S};
    assert_int_equal(decide(plain, c, 300 * S).stop, 1);
    c.idle = 0;
    c.in_flight = 12;
    assert_int_equal(decide(plain, c, 300 * S).stop, 0);
}

static void the_minimum_runs_without_requests(void **state)
{
    struct service_limits l = plain;
    l.min_machines = 1;
    assert_int_equal(decide(l, (struct service_counts){.waiting = 0}, 5 * S).make, 1);
    assert_int_equal(decide(l, (struct service_counts){.paused = 1}, 5 * S).start, 1);
}

static void per_request_means_one_each(void **state)
{
    struct service_limits l = plain;
    l.per_request = true;
    struct service_counts c = {.waiting = 3, .used_us = 100 * S};
    assert_int_equal(decide(l, c, 100 * S).make, 4);
    c.in_flight = 2;
    c.ready = 2;
    assert_int_equal(decide(l, c, 100 * S).make, 2);
}

static void failures_are_waited_out(void **state)
{
    struct service_counts c = {.waiting = 1, .paused = 1, .used_us = 100 * S, .retry_us = 101 * S};
    struct service_decision d = decide(plain, c, 100 * S);
    assert_int_equal(d.start + d.make, 0);
    assert_int_equal(d.again_us, 101 * S);
    assert_int_equal(decide(plain, c, 101 * S).start, 1);
    assert_int_equal(service_backoff_us(0), 0);
    assert_int_equal(service_backoff_us(1), 100000);
    assert_int_equal(service_backoff_us(3), 400000);
    assert_int_equal(service_backoff_us(1000), 25600000);
}

static void what_is_leaving_serves_and_goes(void **state)
{
    struct service_limits l = plain;
    l.min_machines = 2;
    struct service_counts c = {.ready = 2,
                               .idle = 1,
                               .in_flight = 1,
                               .starting = 1,
                               .paused = 1,
                               .used_us = 100 * S,
                               .leaving = true};
    struct service_decision d = decide(l, c, 100 * S);
    assert_int_equal(d.make + d.start, 0);
    assert_int_equal(d.stop, 1); /* though it was used just now */
    assert_int_equal(d.discard, 1);
    assert_int_equal(d.abandon, 1);
    assert_int_equal(d.again_us, 0);
    c.waiting = 1; /* that is served first */
    d = decide(l, c, 100 * S);
    assert_int_equal(d.stop + d.discard + d.abandon + d.make, 0);
    c = (struct service_counts){.waiting = 1, .used_us = 100 * S, .leaving = true};
    assert_int_equal(decide(l, c, 100 * S).make, 1); /* and none to spare */
}

static void nothing_starts_until_it_is_judged(void **state)
{
    struct service_counts c = {.waiting = 5, .paused = 1, .used_us = 100 * S, .judged = true};
    struct service_decision d = decide(plain, c, 100 * S);
    assert_int_equal(d.make + d.start, 0);
    c.judged = false;
    assert_int_equal(decide(plain, c, 100 * S).start, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_wanted_is_nothing_made),
        cmocka_unit_test(one_wake_serves_the_herd),
        cmocka_unit_test(never_more_than_the_maximum),
        cmocka_unit_test(idle_machines_go_but_the_minimum),
        cmocka_unit_test(a_paused_machine_outlives_the_last_running_one),
        cmocka_unit_test(busy_machines_stay),
        cmocka_unit_test(the_minimum_runs_without_requests),
        cmocka_unit_test(per_request_means_one_each),
        cmocka_unit_test(failures_are_waited_out),
        cmocka_unit_test(what_is_leaving_serves_and_goes),
        cmocka_unit_test(nothing_starts_until_it_is_judged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
