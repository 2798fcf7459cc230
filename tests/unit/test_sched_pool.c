/* test_sched_pool.c - many calls: waiting room, pool of shells, instances, draining.
 *
 * In virtual time, on the fake driver. */
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

static void script(const struct fake_script *s)
{
    fake_driver_script(w.driver, s);
}

static unsigned waiting(void)
{
    return world_waiting(&w);
}

/* Ends the calls that are left, while their clients still live. */
static void stop(void)
{
    sched_drain(w.sched, 0, NULL, NULL);
    world_advance(&w, MS);
}

/* --- the waiting room ------------------------------------------------------------------------- */

static void second_waiter_does_not_start_second_vm(void **state)
{
    struct client c[10] = {0};
    struct fake_script s = {.shell_us = SECOND};

    script(&s);
    w.set.pool_max = 0;
    world_function(&w, "spin", "spin")->config.concurrency = 1;
    world_open(&w);
    for (int i = 0; i < 10; i++) {
        client_get(&w, &c[i], "spin");
    }
    world_run(&w);
    assert_int_equal(world_fake(&w).starting, 1);
    assert_int_equal(waiting(), 10);
    world_advance(&w, SECOND + MS);
    assert_int_equal(world_fake(&w).running, 1);
    assert_int_equal(world_fake(&w).starting, 0);
    stop();
}

static void herd_gets_as_many_shells_as_it_has_members(void **state)
{
    struct client c[20] = {0};
    struct fake_script s = {.shell_us = SECOND};

    script(&s);
    world_function(&w, "hello", "hello");
    world_open(&w);
    for (int i = 0; i < 20; i++) {
        client_get(&w, &c[i], "hello");
    }
    world_run(&w);
    assert_int_equal(world_fake(&w).starting, 20);
    world_advance(&w, SECOND);
    for (int i = 0; i < 20; i++) {
        assert_ended(c[i], SCHED_OK);
        client_done(&c[i]);
    }
    assert_int_equal(world_fake(&w).most_starting, 20);
}

static void one_functions_calls_are_served_in_order(void **state)
{
    struct client c[5] = {0};

    world_function(&w, "sleep", "sleep 100")->config.concurrency = 1;
    world_open(&w);
    for (int i = 0; i < 5; i++) {
        client_get(&w, &c[i], "sleep");
    }
    for (int i = 0; i < 5; i++) {
        world_advance(&w, 101 * MS);
        assert_ended(c[i], SCHED_OK);
        assert_true(i == 4 || c[i + 1].ends == 0);
        client_done(&c[i]);
    }
}

static void functions_take_turns_when_memory_is_scarce(void **state)
{
    struct client busy[20] = {0}, rare = {0};

    w.set.memory_mib = WORLD_SHELL_MIB;
    world_function(&w, "busy", "sleep 100");
    world_function(&w, "rare", "sleep 100");
    world_open(&w);
    for (int i = 0; i < 20; i++) {
        client_get(&w, &busy[i], "busy");
    }
    client_get(&w, &rare, "rare");
    world_advance(&w, 320 * MS);
    assert_ended(rare, SCHED_OK);
    assert_int_equal(busy[3].ends, 0);
    for (int i = 0; i < 20; i++) {
        if (busy[i].ends == 0) {
            sched_call_cancel(busy[i].call);
        }
        client_done(&busy[i]);
    }
    client_done(&rare);
    world_run(&w);
}

static void memory_bounds_the_vms_including_those_being_torn_down(void **state)
{
    struct client c[6] = {0};
    struct fake_script s = {.destroy_us = SECOND};
    struct sched_stats stats;

    script(&s);
    w.set.memory_mib = 2 * WORLD_SHELL_MIB;
    world_function(&w, "hello", "hello");
    world_open(&w);
    for (int i = 0; i < 6; i++) {
        client_get(&w, &c[i], "hello");
    }
    for (int i = 0; i < 6; i++) {
        world_advance(&w, SECOND / 2);
        sched_get_stats(w.sched, &stats);
        assert_true(stats.memory_mib_used <= stats.memory_mib_limit);
        assert_true(world_fake(&w).most_live <= 2);
    }
    for (int i = 0; i < 6; i++) {
        assert_ended(c[i], SCHED_OK);
        client_done(&c[i]);
    }
}

static void idle_shells_make_room_for_a_large_function(void **state)
{
    struct client c = {0};

    w.set.memory_mib = 4 * WORLD_SHELL_MIB;
    w.set.pool_min = w.set.pool_max = 4;
    world_function(&w, "large", "hello")->config.memory_mib = 3 * WORLD_SHELL_MIB;
    world_open(&w);
    assert_int_equal(world_count(&w, INSTANCE_IDLE), 4);
    client_get(&w, &c, "large");
    world_run(&w);
    assert_ended(c, SCHED_OK);
    client_done(&c);
}

static void full_queue_refuses_with_the_time_to_come_back(void **state)
{
    struct client c[5] = {0};

    w.set.queue_per_function = 2;
    world_function(&w, "spin", "spin")->config.concurrency = 2;
    world_open(&w);
    for (int i = 0; i < 5; i++) {
        client_get(&w, &c[i], "spin");
    }
    world_run(&w);
    assert_ended(c[4], SCHED_QUEUE_FULL);
    assert_true(c[4].outcome.retry_after_s >= 1);
    assert_int_equal(c[2].ends + c[3].ends, 0);
    assert_int_equal(waiting(), 2);
    stop();
}

static void queue_of_length_zero_still_lets_run_what_can(void **state)
{
    struct client a = {0}, b = {0};

    w.set.queue_per_function = 0;
    world_function(&w, "spin", "spin")->config.concurrency = 1;
    world_open(&w);
    client_get(&w, &a, "spin");
    client_get(&w, &b, "spin");
    world_run(&w);
    assert_int_equal(a.ends, 0);
    assert_ended(b, SCHED_QUEUE_FULL);
    stop();
}

static void total_of_all_queues_is_bounded(void **state)
{
    struct client run[2] = {0}, wait[3] = {0};

    w.set.queue_total = 2;
    world_function(&w, "a", "spin")->config.concurrency = 1;
    world_function(&w, "b", "spin")->config.concurrency = 1;
    world_open(&w);
    client_get(&w, &run[0], "a");
    client_get(&w, &run[1], "b");
    client_get(&w, &wait[0], "a");
    client_get(&w, &wait[1], "b");
    client_get(&w, &wait[2], "b");
    world_run(&w);
    assert_int_equal(wait[0].ends + wait[1].ends, 0);
    assert_ended(wait[2], SCHED_QUEUE_FULL);
    stop();
}

static void waiter_expires_at_its_deadline(void **state)
{
    struct client run = {0}, wait = {0};

    w.set.queue_wait_us = 200 * MS;
    world_function(&w, "spin", "spin")->config.concurrency = 1;
    world_open(&w);
    client_get(&w, &run, "spin");
    client_get(&w, &wait, "spin");
    world_advance(&w, 199 * MS);
    assert_int_equal(wait.ends, 0);
    world_advance(&w, MS);
    assert_ended(wait, SCHED_WAIT_EXPIRED);
    assert_true(wait.outcome.retry_after_s >= 1);
    assert_int_equal(wait.outcome.phases.queue_us, 200 * MS);
    assert_int_equal(waiting(), 0);
    stop();
}

static void wait_that_is_known_to_be_too_long_is_refused_at_once(void **state)
{
    struct client c[30] = {0};
    unsigned refused = 0;

    w.set.queue_wait_us = 2 * SECOND;
    world_function(&w, "sleep", "sleep 500")->config.concurrency = 1;
    world_open(&w);
    for (int i = 0; i < 10; i++) { /* it learns how long a run takes */
        client_get(&w, &c[i], "sleep");
        world_advance(&w, SECOND);
        assert_ended(c[i], SCHED_OK);
    }
    for (int i = 10; i < 30; i++) {
        client_get(&w, &c[i], "sleep");
    }
    world_run(&w);
    for (int i = 10; i < 30; i++) {
        refused += c[i].ends;
        assert_true(c[i].ends == 0 || c[i].outcome.kind == SCHED_QUEUE_FULL);
    }
    assert_int_equal(refused, 15); /* one runs, four can wait */
    assert_true(c[29].outcome.retry_after_s >= 2);
    world_advance(&w, 5 * SECOND);
    for (int i = 0; i < 30; i++) {
        client_done(&c[i]);
    }
}

/* --- the pool --------------------------------------------------------------------------------- */

static void pool_starts_with_its_minimum_and_refills(void **state)
{
    struct client c = {0};

    w.set.pool_min = 2;
    world_function(&w, "hello", "hello");
    world_open(&w);
    assert_int_equal(world_count(&w, INSTANCE_IDLE), 2);
    client_get(&w, &c, "hello");
    world_run(&w);
    assert_ended(c, SCHED_OK);
    assert_int_equal(c.outcome.phases.shell_us, 0);
    assert_int_equal(world_count(&w, INSTANCE_IDLE), 2);
    client_done(&c);
}

static void pool_without_minimum_makes_nothing_before_the_first_call(void **state)
{
    world_open(&w);
    world_advance(&w, 100 * SECOND);
    assert_int_equal(world_fake(&w).made, 0);
}

static void pool_grows_with_demand_and_decays_to_zero(void **state)
{
    struct client c[6] = {0};

    world_function(&w, "hello", "hello");
    world_open(&w);
    for (int i = 0; i < 6; i++) {
        client_get(&w, &c[i], "hello");
    }
    world_run(&w);
    assert_int_equal(world_count(&w, INSTANCE_IDLE), 6);
    for (unsigned left = 6; left > 0; left--) {
        world_advance(&w, SECOND - MS);
        assert_int_equal(world_count(&w, INSTANCE_IDLE), left);
        world_advance(&w, MS);
        assert_int_equal(world_count(&w, INSTANCE_IDLE), left - 1);
    }
    world_advance(&w, 100 * SECOND);
    assert_int_equal(world_fake(&w).gone, world_fake(&w).made);
    for (int i = 0; i < 6; i++) {
        client_done(&c[i]);
    }
}

static void pool_never_exceeds_its_most(void **state)
{
    struct client c[40] = {0};

    w.set.pool_max = 3;
    world_function(&w, "hello", "hello");
    world_open(&w);
    for (int i = 0; i < 40; i++) {
        client_get(&w, &c[i], "hello");
    }
    world_run(&w);
    assert_int_equal(world_count(&w, INSTANCE_IDLE), 3);
    for (int i = 0; i < 40; i++) {
        client_done(&c[i]);
    }
}

static void shell_failures_fail_waiters_after_a_few_and_heal(void **state)
{
    struct client bad[5] = {0}, now = {0}, early = {0}, good = {0};
    struct fake_script s = {.ready_rc = -EIO};

    script(&s);
    w.set.pool_max = 0; /* nothing is tried but for the waiters */
    world_function(&w, "hello", "hello");
    world_open(&w);
    for (int i = 0; i < 5; i++) {
        client_get(&w, &bad[i], "hello");
    }
    world_run(&w);
    assert_int_equal(bad[0].ends, 0); /* one failure is none */
    assert_int_equal(world_fake(&w).failed, 5);
    world_advance(&w, SECOND);
    for (int i = 0; i < 5; i++) {
        assert_ended(bad[i], SCHED_CANNOT_RUN);
        assert_non_null(strstr(bad[i].detail, "virtual machine"));
    }
    assert_int_equal(world_fake(&w).failed, 7); /* then one at a time */
    client_get(&w, &now, "hello");
    world_run(&w);
    assert_ended(now, SCHED_CANNOT_RUN); /* the pause was over: one attempt was made for it */
    assert_int_equal(world_fake(&w).failed, 8);
    client_get(&w, &early, "hello");
    world_run(&w);
    assert_ended(early,
                 SCHED_CANNOT_RUN); /* the next pause has begun: none was made for this one */
    assert_true(early.outcome.retry_after_s >= 1);
    assert_int_equal(world_fake(&w).failed, 8);
    script(NULL);
    world_advance(&w, 20 * SECOND);
    client_get(&w, &good, "hello");
    world_run(&w);
    assert_ended(good, SCHED_OK);
    client_done(&now);
    client_done(&good);
}

static void driver_that_refuses_at_once_is_backed_off_from_as_well(void **state)
{
    struct client c = {0};
    struct fake_script s = {.vm_new_rc = -ENOMEM};

    script(&s);
    w.set.pool_min = 2;
    world_function(&w, "hello", "hello");
    world_open(&w);
    world_advance(&w, 60 * SECOND);
    assert_in_range(world_fake(&w).failed, 5, 30);
    client_get(&w, &c, "hello");
    world_advance(&w, 15 * SECOND);
    assert_ended(c, SCHED_CANNOT_RUN);
    script(NULL);
    world_advance(&w, 20 * SECOND);
    assert_int_equal(world_count(&w, INSTANCE_IDLE), 2);
    stop();
}

static void one_failed_shell_is_made_up_for(void **state)
{
    struct client c = {0};
    struct fake_script s = {.ready_rc = -EIO, .failures = 1};

    script(&s);
    world_function(&w, "hello", "hello");
    world_open(&w);
    client_get(&w, &c, "hello");
    world_advance(&w, SECOND);
    assert_ended(c, SCHED_OK);
    client_done(&c);
}

static void lost_shells_are_replaced(void **state)
{
    w.set.pool_min = 3;
    world_open(&w);
    assert_int_equal(fake_driver_lose_all(w.driver), 3);
    world_advance(&w, SECOND);
    assert_int_equal(world_count(&w, INSTANCE_IDLE), 3);
    assert_int_equal(world_fake(&w).made, 6);
}

static void vm_killed_during_a_request_fails_it_and_the_pool_heals(void **state)
{
    struct client c = {0}, next = {0};

    w.set.pool_min = 1;
    world_function(&w, "spin", "spin");
    world_function(&w, "hello", "hello");
    world_open(&w);
    client_get(&w, &c, "spin");
    world_run(&w);
    fake_driver_lose_all(w.driver);
    world_advance(&w, SECOND);
    assert_ended(c, SCHED_FAILED);
    assert_int_equal(c.outcome.exit.kind, HV_EXIT_LOST);
    client_get(&w, &next, "hello");
    world_run(&w);
    assert_ended(next, SCHED_OK);
    client_done(&next);
}

static void vm_lost_before_its_guest_ran_is_replaced_and_the_body_arrives_whole(void **state)
{
    struct client c = {0};
    struct fake_script slow = {.start_us = SECOND};

    w.set.pool_min = 1;
    world_function(&w, "echo", "echo");
    world_open(&w);
    fake_driver_script(w.driver, &slow);
    client_post(&w, &c, "echo", 10);
    assert_int_equal(sched_call_body(c.call, "whole body", 10, true), 1);
    world_advance(&w, SECOND / 2);
    assert_int_equal(fake_driver_lose_all(w.driver), 2); /* it, and the one that refills */
    world_advance(&w, 3 * SECOND);
    assert_ended(c, SCHED_OK);
    assert_string_equal((char *)c.body.data, "whole body");
    client_done(&c);
}

/* The driver has said that it runs, and then finds that it never did. */
static void vm_lost_unbegun_is_replaced_and_the_body_arrives_whole(void **state)
{
    struct client c = {0};
    struct fake_script idle = {.program = (const char *const[]){"spin", NULL}, .unbegun = true};

    w.set.pool_min = 1;
    world_function(&w, "echo", "echo");
    world_open(&w);
    fake_driver_script(w.driver, &idle);
    client_post(&w, &c, "echo", 10);
    assert_int_equal(sched_call_body(c.call, "whole ", 6, false), 1);
    world_advance(&w, SECOND / 2);
    assert_int_equal(world_count(&w, INSTANCE_RUNNING), 1);
    fake_driver_lose_all(w.driver);
    fake_driver_script(w.driver, NULL);
    world_advance(&w, SECOND);
    assert_int_equal(sched_call_body(c.call, "body", 4, true), 1);
    world_advance(&w, SECOND);
    assert_ended(c, SCHED_OK);
    assert_string_equal((char *)c.body.data, "whole body");
    client_done(&c);
}

static void losses_before_the_start_end_the_call_at_last(void **state)
{
    struct client c = {0};
    struct fake_script slow = {.start_us = SECOND};

    w.set.pool_max = 0;
    world_function(&w, "hello", "hello");
    world_open(&w);
    fake_driver_script(w.driver, &slow);
    client_get(&w, &c, "hello");
    for (int i = 0; i < 4; i++) {
        assert_int_equal(c.ends, 0);
        world_advance(&w, SECOND / 2);
        fake_driver_lose_all(w.driver);
        world_advance(&w, SECOND / 4);
    }
    world_advance(&w, SECOND);
    assert_ended(c, SCHED_FAILED);
    assert_int_equal(c.outcome.exit.kind, HV_EXIT_LOST);
    client_done(&c);
}

static void large_functions_have_shells_of_their_own_size(void **state)
{
    struct client a = {0}, b = {0};
    struct sched_stats stats;

    w.set.pool_max = 0;
    world_function(&w, "large", "spin")->config.memory_mib = WORLD_SHELL_MIB + 1;
    world_function(&w, "small", "spin")->config.memory_mib = 4;
    world_open(&w);
    client_get(&w, &a, "large");
    client_get(&w, &b, "small");
    world_run(&w);
    sched_get_stats(w.sched, &stats);
    assert_int_equal(stats.memory_mib_used, 3 * WORLD_SHELL_MIB);
    stop();
}

/* --- instances -------------------------------------------------------------------------------- */

struct seen {
    unsigned count;
    struct sched_instance_info last;
};

static void see(void *arg, const struct sched_instance_info *info)
{
    struct seen *seen = arg;

    seen->count++;
    seen->last = *info;
}

static void killing_an_instance_ends_its_call(void **state)
{
    struct client c = {0};
    struct seen seen = {0};
    struct un_error err = UN_ERROR_INIT;

    w.set.pool_max = 0;
    world_function(&w, "spin", "spin");
    world_open(&w);
    client_get(&w, &c, "spin");
    world_run(&w);
    sched_instances(w.sched, see, &seen);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.last.state, INSTANCE_RUNNING);
    assert_string_equal(seen.last.function, "spin");
    assert_string_equal(seen.last.invocation_id, c.id);
    assert_int_equal(sched_instance_kill(w.sched, seen.last.id, &err), 0);
    assert_int_equal(c.ends, 0);
    world_run(&w);
    assert_ended(c, SCHED_CANCELLED);
    assert_int_equal(sched_instance_kill(w.sched, seen.last.id, &err), -ENOENT);
    assert_int_equal(sched_instance_kill(w.sched, "nonsense", &err), -ENOENT);
}

static void killing_an_idle_shell_makes_the_pool_make_another(void **state)
{
    struct seen seen = {0};
    struct un_error err = UN_ERROR_INIT;

    w.set.pool_min = 1;
    world_open(&w);
    sched_instances(w.sched, see, &seen);
    assert_int_equal(seen.last.state, INSTANCE_IDLE);
    assert_int_equal(sched_instance_kill(w.sched, seen.last.id, &err), 0);
    world_run(&w);
    assert_int_equal(world_count(&w, INSTANCE_IDLE), 1);
    assert_int_equal(world_fake(&w).made, 2);
}

static void killing_a_starting_shell_does_not_strand_its_waiter(void **state)
{
    struct client c = {0};
    struct seen seen = {0};
    struct un_error err = UN_ERROR_INIT;
    struct fake_script s = {.shell_us = SECOND};

    script(&s);
    w.set.pool_max = 0;
    world_function(&w, "hello", "hello");
    world_open(&w);
    client_get(&w, &c, "hello");
    world_run(&w);
    sched_instances(w.sched, see, &seen);
    assert_int_equal(seen.last.state, INSTANCE_STARTING);
    assert_int_equal(sched_instance_kill(w.sched, seen.last.id, &err), 0);
    world_advance(&w, SECOND + MS);
    assert_ended(c, SCHED_OK);
    client_done(&c);
}

/* --- draining --------------------------------------------------------------------------------- */

static void note(void *arg)
{
    (*(unsigned *)arg)++;
}

static void drain_waits_for_running_calls(void **state)
{
    struct client run = {0}, wait = {0}, late = {0};
    unsigned drained = 0;

    w.set.pool_min = 2;
    world_function(&w, "sleep", "sleep 100")->config.concurrency = 1;
    world_open(&w);
    client_get(&w, &run, "sleep");
    client_get(&w, &wait, "sleep");
    world_run(&w);
    sched_drain(w.sched, 10 * SECOND, note, &drained);
    client_get(&w, &late, "sleep");
    world_run(&w);
    assert_ended(late, SCHED_DRAINING);
    assert_int_equal(drained, 0);
    world_advance(&w, 150 * MS);
    assert_ended(run, SCHED_OK);
    assert_int_equal(drained, 0);
    world_advance(&w, 150 * MS);
    assert_ended(wait, SCHED_OK);
    assert_int_equal(drained, 1);
    assert_int_equal(world_fake(&w).shells, 0);
    client_done(&run);
    client_done(&wait);
}

static void drain_ends_at_its_limit_what_is_left(void **state)
{
    struct client run = {0}, wait = {0};
    unsigned drained = 0;

    world_function(&w, "spin", "spin")->config.concurrency = 1;
    world_open(&w);
    client_get(&w, &run, "spin");
    client_get(&w, &wait, "spin");
    world_run(&w);
    sched_drain(w.sched, SECOND, note, &drained);
    world_advance(&w, SECOND - MS);
    assert_int_equal(drained, 0);
    world_advance(&w, MS);
    assert_int_equal(drained, 1);
    assert_ended(run, SCHED_DRAINING);
    assert_ended(wait, SCHED_DRAINING);
}

static void drain_of_an_idle_scheduler_is_told_at_once_but_not_inside(void **state)
{
    unsigned drained = 0;

    world_open(&w);
    sched_drain(w.sched, SECOND, note, &drained);
    assert_int_equal(drained, 0);
    world_run(&w);
    assert_int_equal(drained, 1);
}

/* --- size ------------------------------------------------------------------------------------- */

static void thousands_wait_and_all_are_served(void **state)
{
    enum { N = 5000 };
    struct client *c = calloc(N, sizeof(*c));

    w.set.queue_per_function = w.set.queue_total = N;
    world_function(&w, "hello", "hello")->config.concurrency = 7;
    world_open(&w);
    for (int i = 0; i < N; i++) {
        client_get(&w, &c[i], "hello");
    }
    world_run(&w);
    for (int i = 0; i < N; i++) {
        assert_ended(c[i], SCHED_OK);
        client_done(&c[i]);
    }
    assert_int_equal(waiting(), 0);
    free(c);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(second_waiter_does_not_start_second_vm),
        T(herd_gets_as_many_shells_as_it_has_members),
        T(one_functions_calls_are_served_in_order),
        T(functions_take_turns_when_memory_is_scarce),
        T(memory_bounds_the_vms_including_those_being_torn_down),
        T(idle_shells_make_room_for_a_large_function),
        T(full_queue_refuses_with_the_time_to_come_back),
        T(queue_of_length_zero_still_lets_run_what_can),
        T(total_of_all_queues_is_bounded),
        T(waiter_expires_at_its_deadline),
        T(wait_that_is_known_to_be_too_long_is_refused_at_once),
        T(pool_starts_with_its_minimum_and_refills),
        T(pool_without_minimum_makes_nothing_before_the_first_call),
        T(pool_grows_with_demand_and_decays_to_zero),
        T(pool_never_exceeds_its_most),
        T(shell_failures_fail_waiters_after_a_few_and_heal),
        T(driver_that_refuses_at_once_is_backed_off_from_as_well),
        T(one_failed_shell_is_made_up_for),
        T(lost_shells_are_replaced),
        T(vm_lost_before_its_guest_ran_is_replaced_and_the_body_arrives_whole),
        T(vm_lost_unbegun_is_replaced_and_the_body_arrives_whole),
        T(losses_before_the_start_end_the_call_at_last),
        T(vm_killed_during_a_request_fails_it_and_the_pool_heals),
        T(large_functions_have_shells_of_their_own_size),
        T(killing_an_instance_ends_its_call),
        T(killing_an_idle_shell_makes_the_pool_make_another),
        T(killing_a_starting_shell_does_not_strand_its_waiter),
        T(drain_waits_for_running_calls),
        T(drain_ends_at_its_limit_what_is_left),
        T(drain_of_an_idle_scheduler_is_told_at_once_but_not_inside),
        T(thousands_wait_and_all_are_served),
    };

    return cmocka_run_group_tests_name("scheduler: waiting and shells", tests, NULL, NULL);
}
