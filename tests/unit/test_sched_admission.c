/* test_sched_admission.c - who gets in when many want to: herds, reserved places, the cost of a
 * decision, and what is counted. In virtual time, on the fake driver. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/limits.h"
#include "sched_world.h"
#include "scheduler/admission.h"
#include "scheduler/record/metrics.h"
#include "scheduler/record/news.h"

enum { HERD = 10000 };

static struct world w;

static int setup(void **state)
{
    world_init(&w);
    w.set.pool_min = 0;
    return 0;
}

static int teardown(void **state)
{
    world_done(&w);
    return 0;
}

static struct sched_stats stats(void)
{
    struct sched_stats st;

    sched_get_stats(w.sched, &st);
    return st;
}

static struct client *herd(const char *function, size_t count)
{
    struct client *c = calloc(count, sizeof(*c));

    assert_non_null(c);
    for (size_t i = 0; i < count; i++) {
        client_get(&w, &c[i], function);
    }
    world_run(&w);
    return c;
}

static size_t ended(const struct client *c, size_t count, enum sched_outcome_kind kind)
{
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        n += c[i].ends == 1 && c[i].outcome.kind == kind;
    }
    return n;
}

static void herd_done(struct client *c, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        client_done(&c[i]);
    }
    free(c);
}

/* --- the pure part ---------------------------------------------------------------------------- */

static void memory_bounds_the_places_that_the_wait_is_predicted_by(void **state)
{
    struct admission_queue q = {.waiting_function = 40,
                                .waiting_total = 40,
                                .limit_function = 1000,
                                .limit_total = 1000,
                                .concurrency = 100,
                                .mean_us = SECOND,
                                .wait_us = 9 * SECOND};

    assert_false(admission_refuse(&q)); /* one round */
    q.memory_places = 4;
    assert_true(admission_refuse(&q)); /* ten */
    assert_int_equal(admission_retry_after_s(&q), 11);
}

static void reserved_places_are_left_whatever_the_numbers(void **state)
{
    assert_true(admission_leaves_reserved(256, 64, 64, 128));
    assert_false(admission_leaves_reserved(256, 64, 65, 128));
    assert_false(admission_leaves_reserved(256, UINT64_MAX, 1, 0));
    assert_false(admission_leaves_reserved(256, 1, 1, UINT64_MAX));
}

/* --- herds ------------------------------------------------------------------------------------ */

static void a_herd_at_a_cold_function_wakes_no_more_vms_than_it_has_places(void **state)
{
    struct fake_script s = {.shell_us = 5000, .start_us = 1000, .destroy_us = 1000};
    struct function_version *v = world_function(&w, "sleep", "sleep 10");
    struct client *c;

    v->config.concurrency = 4;
    world_open(&w);
    fake_driver_script(w.driver, &s);
    c = herd("sleep", HERD);
    /* What has no place and no room in the queue is told so before it waits. */
    assert_int_equal(ended(c, HERD, SCHED_QUEUE_FULL), HERD - 4 - LIMIT_QUEUE_FUNCTION);
    assert_int_equal(world_fake(&w).made, 4);
    for (unsigned i = 0; i < 4000; i++) {
        world_advance(&w, 10 * MS);
        assert_true(world_fake(&w).running <= 4);
    }
    assert_int_equal(ended(c, HERD, SCHED_OK) + ended(c, HERD, SCHED_QUEUE_FULL) +
                         ended(c, HERD, SCHED_WAIT_EXPIRED),
                     HERD);
    assert_true(ended(c, HERD, SCHED_OK) > 900);
    for (size_t i = 0; i < HERD; i++) {
        assert_true(c[i].outcome.kind == SCHED_OK || c[i].outcome.retry_after_s > 0);
    }
    herd_done(c, HERD);
}

static void a_place_is_held_for_start_and_run(void **state)
{
    struct fake_script s = {.shell_us = 900 * MS, .start_us = 50 * MS};
    struct function_version *v = world_function(&w, "sleep", "sleep 50");
    struct client *c;

    v->config.concurrency = 1;
    w.set.queue_wait_us = 5 * SECOND;
    world_open(&w);
    fake_driver_script(w.driver, &s);
    for (unsigned i = 0; i < ADMISSION_SAMPLES; i++) {
        c = herd("sleep", 1);
        world_advance(&w, 60 * SECOND); /* until the pool has shrunk again */
        assert_ended(c[0], SCHED_OK);
        herd_done(c, 1);
    }
    /* A second each: one runs, five can wait. */
    c = herd("sleep", 10);
    assert_int_equal(ended(c, 10, SCHED_QUEUE_FULL), 4);
    world_advance(&w, 20 * SECOND);
    herd_done(c, 10);
}

/* Looks at calls that one end of a call costs, with so many waiting. */
static double looks_per_end(size_t waiting)
{
    struct client *c = herd("sleep", waiting + 1);
    uint64_t before = stats().looks, ended_before = ended(c, waiting + 1, SCHED_OK);
    double looks;

    assert_int_equal(stats().waiting, waiting);
    while (ended(c, waiting + 1, SCHED_OK) < ended_before + 5) {
        world_advance(&w, MS);
    }
    looks =
        (double)(stats().looks - before) / (double)(ended(c, waiting + 1, SCHED_OK) - ended_before);
    for (size_t i = 0; i <= waiting; i++) {
        if (c[i].ends == 0) {
            sched_call_cancel(c[i].call);
        }
    }
    world_run(&w);
    herd_done(c, waiting + 1);
    return looks;
}

static void a_decision_costs_the_same_with_ten_and_ten_thousand_waiting(void **state)
{
    struct function_version *v = world_function(&w, "sleep", "sleep 10");
    double few, many;

    v->config.concurrency = 1;
    w.set.queue_per_function = w.set.queue_total = HERD + 1;
    w.set.queue_wait_us = 100000 * SECOND;
    world_open(&w);
    few = looks_per_end(10);
    many = looks_per_end(HERD);
    assert_true(few > 0);
    assert_true(many <= few + 1);
}

/* --- reserved places -------------------------------------------------------------------------- */

static struct function_version *reserving(const char *name, const char *args, unsigned places)
{
    struct function_version *v = world_function(&w, name, args);

    v->config.memory_mib = WORLD_SHELL_MIB;
    v->config.reserved_concurrency = places;
    return v;
}

static void others_cannot_take_reserved_places(void **state)
{
    struct client *flood, *ours;

    reserving("flood", "sleep 1000", 0);
    reserving("vip", "sleep 1000", 2);
    w.set.memory_mib = 4 * WORLD_SHELL_MIB;
    world_open(&w);
    world_run(&w);
    flood = herd("flood", 50);
    world_advance(&w, 10 * MS);
    assert_int_equal(world_fake(&w).running, 2);
    ours = herd("vip", 3);
    world_advance(&w, 100 * MS);
    assert_int_equal(world_fake(&w).running, 4);
    world_advance(&w, 950 * MS); /* both have ended, as they began at once */
    assert_int_equal(ended(ours, 3, SCHED_OK), 2);
    for (unsigned i = 0; i < 100; i++) {
        assert_true(stats().memory_mib_used <= w.set.memory_mib);
        world_advance(&w, 500 * MS);
    }
    assert_int_equal(ended(ours, 3, SCHED_OK), 3);
    assert_true(ended(flood, 50, SCHED_OK) > 40);
    herd_done(flood, 50);
    herd_done(ours, 3);
}

static void idle_shells_give_way_to_a_reserved_place(void **state)
{
    struct client *flood, *ours;

    reserving("flood", "sleep 1000", 0);
    reserving("vip", "hello", 1);
    w.set.memory_mib = 4 * WORLD_SHELL_MIB;
    w.set.pool_min = 4;
    world_open(&w);
    world_run(&w);
    assert_int_equal(world_fake(&w).shells, 4);
    flood = herd("flood", 10); /* a shell is idle, and stays so */
    world_advance(&w, MS);
    assert_int_equal(world_fake(&w).running, 3);
    ours = herd("vip", 1);
    world_advance(&w, MS);
    assert_ended(ours[0], SCHED_OK);
    world_advance(&w, 20 * SECOND);
    herd_done(flood, 10);
    herd_done(ours, 1);
}

static void a_reservation_that_goes_sets_its_places_free(void **state)
{
    struct function_version *v;
    struct client *flood;

    reserving("flood", "sleep 1000", 0);
    v = reserving("vip", "hello", 3);
    w.set.memory_mib = 4 * WORLD_SHELL_MIB;
    world_open(&w);
    world_run(&w);
    flood = herd("flood", 10);
    world_advance(&w, MS);
    assert_int_equal(world_fake(&w).running, 1);
    v->config.reserved_concurrency = 1;
    world_change(&w, "vip");
    world_advance(&w, MS);
    assert_int_equal(world_fake(&w).running, 3);
    v->config.reserved_concurrency = 0;
    world_change(&w, "vip");
    world_advance(&w, MS);
    assert_int_equal(world_fake(&w).running, 4);
    world_advance(&w, 20 * SECOND);
    herd_done(flood, 10);
}

static void reservations_are_held_against_all_memory(void **state)
{
    struct un_error err = UN_ERROR_INIT;
    struct function_config c = {.memory_mib = WORLD_SHELL_MIB, .reserved_concurrency = 2};
    struct client *other;

    reserving("vip", "hello", 3);
    world_function(&w, "large", "hello")->config.memory_mib = 2 * WORLD_SHELL_MIB;
    w.set.memory_mib = 4 * WORLD_SHELL_MIB;
    world_open(&w);
    world_run(&w);
    assert_int_equal(sched_check_reserved(w.sched, "new", &c, &err), -EINVAL);
    assert_non_null(strstr(err.text, "reserve less"));
    c.reserved_concurrency = 1;
    assert_int_equal(sched_check_reserved(w.sched, "new", &c, &err), 0);
    c.reserved_concurrency = 4; /* in place of its own three */
    assert_int_equal(sched_check_reserved(w.sched, "vip", &c, &err), 0);
    c.reserved_concurrency = UINT32_MAX;
    assert_int_equal(sched_check_reserved(w.sched, "vip", &c, &err), -EINVAL);
    other = herd("large", 1);
    assert_ended(other[0], SCHED_CANNOT_RUN);
    assert_non_null(strstr(other[0].detail, "reserved"));
    herd_done(other, 1);
}

/* --- what is counted and told ----------------------------------------------------------------- */

static void buckets_double_from_a_tenth_of_a_millisecond(void **state)
{
    static struct metrics_histogram h;

    memset(&h, 0, sizeof(h));
    assert_int_equal(metrics_bucket_us(0), 100);
    assert_int_equal(metrics_bucket_us(10), 102400);
    metrics_observe(&h, 0);
    metrics_observe(&h, 100);
    metrics_observe(&h, 101);
    metrics_observe(&h, UINT32_MAX);
    assert_int_equal(h.buckets[0], 2);
    assert_int_equal(h.buckets[1], 1);
    assert_int_equal(h.buckets[METRICS_BUCKETS], 1);
    assert_int_equal(h.count, 4);
}

static void rows_are_bounded_and_the_rest_is_counted_together(void **state)
{
    enum { ROWS = METRICS_SLOTS + 100 /* some share a slot */, OTHERS = 50 };
    struct sched_metrics *m = calloc(1, sizeof(*m));
    struct receipt r = {.version = 1, .status = 200, .outcome = "ok", .driver = "fake"};
    const struct metrics_function *f;
    uint64_t sum = 0;

    assert_non_null(m);
    metrics_init(m, ROWS);
    for (unsigned i = 0; i < ROWS + OTHERS; i++) {
        snprintf(r.function, sizeof(r.function), "f%u", i);
        for (unsigned code = 200; code < 200 + METRICS_CODES + 5; code++) {
            r.status = code;
            metrics_add(m, &r, i);
        }
    }
    r.version = 0;
    r.status = 404;
    metrics_add(m, &r, ROWS + OTHERS);
    assert_int_equal(m->function_count, ROWS);
    un_list_for_each (it, &m->functions) {
        f = un_list_entry(it, struct metrics_function, node);
        assert_int_equal(f->code_count, METRICS_CODES);
        sum += f->ended;
    }
    assert_int_equal(sum, ROWS * (METRICS_CODES + 5));
    f = metrics_find(m, "f4000");
    assert_int_equal(f->codes[METRICS_CODES].count, 5);
    assert_int_equal(f->ended, METRICS_CODES + 5);
    assert_int_equal(m->other.ended, OTHERS * (METRICS_CODES + 5) + 1);
    const struct hv_egress made = {.connections = 1, .refused = 2, .bytes_in = UINT32_MAX};
    for (unsigned i = 0; i < ROWS + OTHERS; i++) {
        snprintf(r.function, sizeof(r.function), "f%u", i);
        metrics_add_egress(m, r.function, &made);
        metrics_add_egress(m, r.function, &made);
    }
    assert_int_equal(f->egress_connections, 2);
    assert_int_equal(f->egress_refused, 4);
    assert_int_equal(f->egress_bytes_in, 2ull * UINT32_MAX);
    assert_int_equal(m->other.egress_connections, 2 * OTHERS);
    metrics_done(m);
    free(m);
}

static void rows_that_were_counted_last_come_first(void **state)
{
    struct sched_metrics *m = calloc(1, sizeof(*m));
    struct receipt r = {.version = 1, .status = 200, .outcome = "ok", .driver = "fake"};
    static const char *const called[] = {"a", "b", "c", "a", "beyond"};
    char order[512] = "";

    assert_non_null(m);
    metrics_init(m, 4);
    metrics_add_egress(m, "quiet", &(struct hv_egress){.refused = 1});
    for (unsigned i = 0; i < UN_ARRAY_SIZE(called); i++) {
        strcpy(r.function, called[i]);
        metrics_add(m, &r, 10 + i);
    }
    un_list_for_each (it, &m->functions) {
        const struct metrics_function *f = un_list_entry(it, struct metrics_function, node);

        snprintf(order + strlen(order), sizeof(order) - strlen(order), "%s:%u ", f->name,
                 (unsigned)f->counted_us);
    }
    assert_string_equal(order, "a:13 c:12 b:11 quiet:0 ");
    assert_int_equal(m->other.counted_us, 14);
    assert_null(metrics_find(m, "beyond"));
    metrics_done(m);
    free(m);
}

static void of_a_function_is_counted_what_failed_and_how_long_it_ran(void **state)
{
    struct sched_metrics *m = calloc(1, sizeof(*m));
    struct receipt r = {
        .version = 1, .function = "f", .status = 200, .outcome = "ok", .driver = "fake"};
    const struct metrics_function *f;

    assert_non_null(m);
    metrics_init(m, 1);
    r.phases = (struct sched_phases){1, 2, 3, 4, 5, 6, 1000};
    metrics_add(m, &r, 7);
    r.status = 500; /* the function's own answer */
    metrics_add(m, &r, 7);
    r.status = 429; /* it never ran */
    strcpy(r.outcome, "queue-full");
    metrics_add(m, &r, 7);
    r.status = 502;
    strcpy(r.outcome, "failed");
    strcpy(r.exit_reason, "exit");
    metrics_add(m, &r, 7);
    f = metrics_find(m, "f");
    assert_int_equal(f->ended, 4);
    assert_int_equal(f->failed, 3);
    assert_int_equal(f->ran, 3);
    assert_int_equal(f->duration_us, 3 * 21);
    metrics_done(m);
    free(m);
}

static unsigned news[8];

static void on_news(void *arg, const struct sched_news *n)
{
    news[n->kind]++;
}

static void the_observer_is_told_of_calls_and_instances(void **state)
{
    struct client a = {0};

    memset(news, 0, sizeof(news));
    world_function(&w, "hello", "hello");
    world_open(&w);
    sched_observe(w.sched, on_news, NULL);
    client_get(&w, &a, "hello");
    world_advance(&w, SECOND);
    assert_ended(a, SCHED_OK);
    assert_int_equal(news[NEWS_ACCEPTED], 1);
    assert_int_equal(news[NEWS_FINISHED], 1);
    assert_true(news[NEWS_INSTANCE] >= 4);
    assert_true(news[NEWS_INSTANCE_GONE] >= 1);
    sched_observe(w.sched, NULL, NULL);
    client_done(&a);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_bounds_the_places_that_the_wait_is_predicted_by),
        cmocka_unit_test(reserved_places_are_left_whatever_the_numbers),
        T(a_herd_at_a_cold_function_wakes_no_more_vms_than_it_has_places),
        T(a_place_is_held_for_start_and_run),
        T(a_decision_costs_the_same_with_ten_and_ten_thousand_waiting),
        T(others_cannot_take_reserved_places),
        T(idle_shells_give_way_to_a_reserved_place),
        T(a_reservation_that_goes_sets_its_places_free),
        T(reservations_are_held_against_all_memory),
        cmocka_unit_test(buckets_double_from_a_tenth_of_a_millisecond),
        cmocka_unit_test(rows_are_bounded_and_the_rest_is_counted_together),
        cmocka_unit_test(rows_that_were_counted_last_come_first),
        cmocka_unit_test(of_a_function_is_counted_what_failed_and_how_long_it_ran),
        T(the_observer_is_told_of_calls_and_instances),
    };

    return cmocka_run_group_tests_name("scheduler: admission", tests, NULL, NULL);
}
