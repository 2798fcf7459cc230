/* test_sched_warm.c - several drivers, snapshots ahead of the first call, and VMs that are put back
 * for the next one.
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

static struct function_version *reset_function(const char *name, const char *args)
{
    struct function_version *v = world_function(&w, name, args);

    v->config.isolation = FUNCTION_RESET;
    return v;
}

/* One call that has to succeed, and its receipt. */
static struct receipt call(const char *name)
{
    struct client c = {0};
    struct receipt r;

    client_get(&w, &c, name);
    world_run(&w);
    assert_ended(c, SCHED_OK);
    client_done(&c);
    assert_true(world_receipt(&w, c.id, &r));
    return r;
}

static unsigned warm(void)
{
    return world_count(&w, INSTANCE_WARM);
}

/* --- VMs that are put back -------------------------------------------------------------------- */

static void reset_call_leaves_its_vm_to_the_next_one(void **state)
{
    struct receipt first, second;

    reset_function("f", "hello");
    world_open(&w);
    first = call("f");
    assert_int_equal(warm(), 1);
    second = call("f");
    assert_true(first.fresh);
    assert_false(second.fresh);
    assert_int_equal(first.usage.cpu_us, 1); /* its own, not the VM's */
    assert_int_equal(second.usage.cpu_us, 1);
    assert_int_equal(world_fake(&w).recycled, 2);
    assert_int_equal(world_fake(&w).gone, 0);
}

static void calls_of_isolation_vm_never_share_a_vm(void **state)
{
    world_function(&w, "f", "hello");
    world_open(&w);
    assert_true(call("f").fresh);
    assert_true(call("f").fresh);
    assert_int_equal(world_fake(&w).recycled, 0);
    assert_int_equal(world_fake(&w).gone, 2);
}

/* --- VMs that are bound ahead ----------------------------------------------------------------- */

static void next_call_of_isolation_vm_finds_a_vm_bound_ahead(void **state)
{
    struct fake_script bind = {.bind = true, .recycle_us = 10 * MS, .start_us = 0};
    struct receipt r;

    world_function(&w, "f", "hello");
    w.set.pool_min = 2;
    script(&bind);
    world_open(&w);
    assert_true(call("f").fresh);
    world_advance(&w, 10 * MS);
    assert_int_equal(warm(), 1);
    assert_int_equal(world_fake(&w).bound, 1);
    r = call("f");
    assert_true(r.fresh); /* it has run nothing before */
    assert_int_equal(world_fake(&w).gone, 2);
    assert_int_equal(world_fake(&w).recycled, 0);
    world_advance(&w, 10 * MS);
    assert_int_equal(warm(), 2); /* for the next call, and one that is being made ready meanwhile */
    assert_int_equal(world_fake(&w).bound, 3);
    world_advance(&w, w.set.pool_idle_us);
    assert_int_equal(warm(), 0);
}

struct seen {
    enum instance_state state;
    char id[UN_ID_SIZE]; /* of the first in that state: the one that is in it for the longest */
};

static void see_first(void *arg, const struct sched_instance_info *info)
{
    struct seen *seen = arg;

    if (info->state == seen->state && !seen->id[0]) {
        memcpy(seen->id, info->id, sizeof(seen->id));
    }
}

static void of_those_bound_ahead_the_oldest_is_taken(void **state)
{
    struct fake_script bind = {.bind = true};
    struct seen oldest = {.state = INSTANCE_WARM}, runs = {.state = INSTANCE_RUNNING};
    struct client a = {0}, b = {0}, c = {0};

    world_function(&w, "f", "sleep 10");
    w.set.pool_min = 4;
    script(&bind);
    world_open(&w);
    client_get(&w, &a, "f");
    world_advance(&w, 20 * MS);
    client_get(&w, &c, "f");
    world_advance(&w, 20 * MS);
    assert_int_equal(warm(), 2);
    sched_instances(w.sched, see_first, &oldest);
    client_get(&w, &b, "f");
    world_advance(&w, 5 * MS);
    sched_instances(w.sched, see_first, &runs);
    assert_string_not_equal(oldest.id, "");
    assert_string_equal(runs.id, oldest.id);
    world_advance(&w, 20 * MS);
    assert_ended(b, SCHED_OK);
    client_done(&a);
    client_done(&b);
    client_done(&c);
}

static void a_vm_bound_ahead_goes_with_its_version(void **state)
{
    struct fake_script bind = {.bind = true};

    world_function(&w, "f", "hello");
    w.set.pool_min = 2;
    script(&bind);
    world_open(&w);
    call("f");
    world_run(&w);
    call("f");
    world_run(&w);
    assert_int_equal(warm(), 2);
    world_change(&w, "f");
    world_run(&w);
    assert_int_equal(warm(), 0);
}

static void a_vm_that_cannot_be_bound_ahead_is_no_loss(void **state)
{
    struct fake_script bad = {.bind = true, .recycle_us = 10 * MS, .recycle_ready_rc = -EIO};
    struct client c = {0};

    world_function(&w, "f", "hello");
    w.set.pool_min = 2;
    script(&bad);
    world_open(&w);
    call("f");
    client_get(&w, &c, "f"); /* expects the one that is being bound */
    world_run(&w);
    world_advance(&w, 20 * MS);
    assert_ended(c, SCHED_OK);
    assert_int_equal(warm(), 0);
    client_done(&c);
}

static void vm_whose_function_failed_is_not_used_again(void **state)
{
    struct client c = {0}, left = {0};

    reset_function("f", "exit 3");
    reset_function("g", "hello");
    world_open(&w);
    client_get(&w, &c, "f");
    world_run(&w);
    assert_ended(c, SCHED_FAILED);
    left.cancel_on_response = true;
    client_get(&w, &left, "g");
    world_run(&w);
    assert_int_equal(left.responses, 1);
    assert_int_equal(warm(), 0);
    assert_int_equal(world_fake(&w).recycled, 0);
    client_done(&c);
    client_done(&left);
}

static void warm_vm_serves_its_own_function_only(void **state)
{
    reset_function("f", "hello");
    reset_function("g", "hello");
    world_open(&w);
    assert_true(call("f").fresh);
    assert_true(call("g").fresh);
    assert_int_equal(warm(), 2);
    assert_false(call("f").fresh);
    assert_false(call("g").fresh);
    assert_int_equal(warm(), 2);
}

static void last_used_is_taken_first_and_the_longest_unused_goes_first(void **state)
{
    struct client a = {0}, b = {0}, c = {0};

    reset_function("f", "sleep 10");
    world_open(&w);
    client_get(&w, &a, "f");
    client_get(&w, &b, "f");
    world_advance(&w, 20 * MS);
    assert_int_equal(warm(), 2);
    world_advance(&w, SECOND / 2);
    client_get(&w, &c, "f");
    world_advance(&w, 20 * MS);
    assert_ended(c, SCHED_OK);
    assert_int_equal(warm(), 2);
    world_advance(&w, SECOND / 2);
    assert_int_equal(warm(), 1);
    world_advance(&w, SECOND / 2);
    assert_int_equal(warm(), 0);
    client_done(&a);
    client_done(&b);
    client_done(&c);
}

static void answer_does_not_wait_until_the_vm_is_put_back(void **state)
{
    struct fake_script slow = {.recycle_us = SECOND};
    struct client c = {0};
    struct receipt r;

    reset_function("f", "hello");
    script(&slow);
    world_open(&w);
    client_get(&w, &c, "f");
    world_run(&w);
    assert_ended(c, SCHED_OK);
    assert_int_equal(world_count(&w, INSTANCE_RECYCLING), 1);
    world_advance(&w, SECOND);
    assert_int_equal(warm(), 1);
    assert_true(world_receipt(&w, c.id, &r));
    assert_int_equal(r.phases.teardown_us, SECOND);
    client_done(&c);
}

/* One VM is being put back for 10 ms, and `c` waits for it. */
static void expect(struct client *c, const struct fake_script *s)
{
    struct client first = {0};

    reset_function("f", "hello")->config.concurrency = 1;
    w.set.pool_max = 0;
    script(s);
    world_open(&w);
    client_get(&w, &first, "f");
    world_run(&w);
    assert_ended(first, SCHED_OK);
    client_done(&first);
    client_get(&w, c, "f");
    world_run(&w);
    assert_int_equal(c->ends, 0);
    assert_int_equal(world_count(&w, INSTANCE_RECYCLING), 1);
    assert_int_equal(world_waiting(&w), 1);
}

static void call_waits_for_the_vm_that_is_being_put_back(void **state)
{
    struct fake_script slow = {.recycle_us = 10 * MS};
    struct client c = {0};
    struct receipt r;

    expect(&c, &slow);
    world_advance(&w, 10 * MS);
    assert_ended(c, SCHED_OK);
    assert_int_equal(world_fake(&w).made, 1);
    world_advance(&w, 10 * MS);
    assert_true(world_receipt(&w, c.id, &r));
    assert_false(r.fresh);
    client_done(&c);
}

static void call_gets_a_shell_when_the_vm_could_not_be_put_back(void **state)
{
    struct fake_script bad = {.recycle_us = 10 * MS, .recycle_ready_rc = -EIO};
    struct client c = {0};
    struct receipt r;

    expect(&c, &bad);
    world_advance(&w, 10 * MS);
    assert_ended(c, SCHED_OK);
    assert_int_equal(world_fake(&w).made, 2);
    world_advance(&w, 10 * MS);
    assert_true(world_receipt(&w, c.id, &r));
    assert_true(r.fresh);
    assert_int_equal(warm(), 0);
    client_done(&c);
}

static void call_gets_a_shell_when_the_vm_dies_while_it_is_put_back(void **state)
{
    struct fake_script slow = {.recycle_us = 10 * MS};
    struct client c = {0};

    expect(&c, &slow);
    assert_int_equal(fake_driver_lose_all(w.driver), 1);
    world_run(&w);
    assert_ended(c, SCHED_OK);
    assert_int_equal(world_fake(&w).made, 2);
    client_done(&c);
}

static void find_recycling(void *arg, const struct sched_instance_info *info)
{
    if (info->state == INSTANCE_RECYCLING) {
        assert_string_equal(info->function, "f");
        memcpy(arg, info->id, UN_ID_SIZE);
    }
}

static void killing_a_vm_that_is_put_back_does_not_strand_its_call(void **state)
{
    struct fake_script slow = {.recycle_us = 10 * MS};
    struct un_error err = UN_ERROR_INIT;
    struct client c = {0};
    char id[UN_ID_SIZE] = "";

    expect(&c, &slow);
    sched_instances(w.sched, find_recycling, id);
    assert_int_equal(sched_instance_kill(w.sched, id, &err), 0);
    world_run(&w);
    assert_ended(c, SCHED_OK);
    client_done(&c);
}

static void cancelled_call_leaves_the_vm_to_the_next(void **state)
{
    struct fake_script slow = {.recycle_us = 10 * MS};
    struct client c = {0};

    expect(&c, &slow);
    sched_call_cancel(c.call);
    world_run(&w);
    world_advance(&w, 10 * MS);
    assert_int_equal(warm(), 1);
    client_done(&c);
}

static void call_that_expects_a_vm_expires_at_its_deadline(void **state)
{
    struct fake_script slow = {.recycle_us = 100 * SECOND};
    struct client c = {0};

    w.set.queue_wait_us = SECOND;
    expect(&c, &slow);
    world_advance(&w, SECOND);
    assert_ended(c, SCHED_WAIT_EXPIRED);
    client_done(&c);
}

static void vm_that_the_driver_will_not_put_back_is_destroyed(void **state)
{
    struct fake_script bad = {.recycle_rc = -EINVAL};

    reset_function("f", "hello");
    script(&bad);
    world_open(&w);
    assert_true(call("f").fresh);
    assert_true(call("f").fresh);
    assert_int_equal(warm(), 0);
    assert_int_equal(world_fake(&w).gone, 2);
}

static void warm_vm_that_takes_no_run_is_replaced_by_a_shell(void **state)
{
    struct function_version *v = reset_function("f", "hello");

    world_open(&w);
    call("f");
    snprintf(v->snapshot_key, sizeof(v->snapshot_key), "another"); /* which the driver refuses */
    assert_true(call("f").fresh);
    assert_int_equal(world_fake(&w).gone, 1);
}

static void change_of_the_function_lets_its_vms_go(void **state)
{
    struct client running = {0};

    reset_function("f", "sleep 50");
    reset_function("g", "hello");
    world_open(&w);
    client_get(&w, &running, "f");
    world_advance(&w, 60 * MS);
    client_done(&running);
    running = (struct client){0};
    call("g");
    assert_int_equal(warm(), 2);
    world_change(&w, "f");
    assert_int_equal(warm(), 1);
    client_get(&w, &running, "f");
    world_advance(&w, 20 * MS);
    world_change(&w, "f");
    world_change(&w, "unknown");
    world_advance(&w, 40 * MS);
    assert_ended(running, SCHED_OK);
    assert_int_equal(warm(), 1); /* g's */
    client_done(&running);
}

static void change_while_a_vm_is_put_back_still_serves_who_waits_for_it(void **state)
{
    struct fake_script slow = {.recycle_us = 10 * MS};
    struct client c = {0};

    expect(&c, &slow);
    world_change(&w, "f");
    world_advance(&w, 10 * MS);
    assert_ended(c, SCHED_OK);
    assert_int_equal(world_fake(&w).made, 1);
    world_advance(&w, 10 * MS);
    assert_int_equal(warm() + world_count(&w, INSTANCE_RECYCLING), 0);
    client_done(&c);
}

static void warm_vms_make_room_for_another_function(void **state)
{
    struct client a = {0}, b = {0};

    w.set.memory_mib = 2 * WORLD_SHELL_MIB;
    reset_function("f", "sleep 10");
    world_function(&w, "g", "hello");
    world_open(&w);
    client_get(&w, &a, "f");
    client_get(&w, &b, "f");
    world_advance(&w, 20 * MS);
    assert_int_equal(warm(), 2);
    call("g");
    assert_true(warm() < 2);
    client_done(&a);
    client_done(&b);
}

static void no_more_are_kept_than_may_run_at_once(void **state)
{
    struct client c[4] = {{0}};
    struct function_version *v = reset_function("f", "sleep 10");

    world_open(&w);
    for (int i = 0; i < 4; i++) {
        client_get(&w, &c[i], "f");
    }
    world_run(&w);
    v->config.concurrency = 2;
    world_advance(&w, 20 * MS);
    assert_int_equal(warm(), 2);
    for (int i = 0; i < 4; i++) {
        assert_ended(c[i], SCHED_OK);
        client_done(&c[i]);
    }
}

static void warm_vm_that_dies_is_forgotten(void **state)
{
    reset_function("f", "hello");
    w.set.pool_max = 0;
    world_open(&w);
    call("f");
    assert_int_equal(fake_driver_lose_all(w.driver), 1);
    world_run(&w);
    assert_int_equal(warm(), 0);
    assert_true(call("f").fresh);
}

static void warm_vm_lost_before_its_guest_ran_is_replaced(void **state)
{
    struct fake_script stuck = {.never_started = true}, well = {0};
    struct client c = {0};

    reset_function("f", "hello");
    w.set.pool_max = 0;
    world_open(&w);
    call("f");
    script(&stuck);
    client_get(&w, &c, "f");
    world_run(&w);
    assert_int_equal(world_count(&w, INSTANCE_BOUND), 1);
    script(&well);
    assert_int_equal(fake_driver_lose_all(w.driver), 1);
    world_run(&w);
    assert_ended(c, SCHED_OK);
    client_done(&c);
}

static void note(void *arg)
{
    *(bool *)arg = true;
}

static void drain_keeps_no_vm(void **state)
{
    struct client c = {0};
    bool drained = false;

    reset_function("f", "hello");
    reset_function("g", "sleep 100");
    world_open(&w);
    call("f");
    client_get(&w, &c, "g");
    world_run(&w);
    assert_int_equal(warm(), 1);
    sched_drain(w.sched, SECOND, note, &drained);
    assert_int_equal(warm(), 0);
    world_advance(&w, 200 * MS);
    assert_ended(c, SCHED_OK);
    assert_true(drained);
    assert_int_equal(warm() + world_count(&w, INSTANCE_RECYCLING), 0);
    client_done(&c);
}

/* --- several drivers -------------------------------------------------------------------------- */

/* A second fake driver, by the name of another. */
static struct hv_driver_ops other_ops;

static struct hv_driver *open_other(const char *name)
{
    struct hv_driver_spec spec = {.loop = w.loop};
    struct un_error err = UN_ERROR_INIT;
    struct hv_driver *drv;

    assert_int_equal(fake_driver_ops.open(&spec, &drv, &err), 0);
    other_ops = fake_driver_ops;
    other_ops.name = name;
    ((struct hv_driver_base *)drv)->ops = &other_ops;
    return drv;
}

/* Its VMs must be gone before the world ends. */
static void close_other(struct hv_driver *drv)
{
    struct fake_stats st;

    world_advance(&w, 60 * SECOND);
    fake_driver_stats(drv, &st);
    assert_int_equal(st.made, st.gone);
    fake_driver_ops.close(drv);
}

static void function_runs_on_the_driver_that_it_names(void **state)
{
    struct hv_driver *other = open_other("kvm");
    struct sched_stats stats;
    struct fake_stats st;

    world_function(&w, "any", "hello");
    world_function(&w, "mine", "hello")->config.driver = FUNCTION_KVM;
    w.set.pool_min = 2;
    w.drivers[0] = w.driver;
    w.drivers[1] = other;
    world_open(&w);
    assert_string_equal(call("any").driver, "fake");
    fake_driver_stats(other, &st);
    assert_int_equal(st.made, 0);
    assert_string_equal(call("mine").driver, "kvm");
    fake_driver_stats(other, &st);
    assert_int_equal(st.ran, 1);
    sched_get_stats(w.sched, &stats);
    assert_string_equal(stats.drivers[0].name, "fake");
    assert_string_equal(stats.drivers[1].name, "kvm");
    assert_null(stats.drivers[2].name);
    assert_int_equal(stats.drivers[0].instances, world_count(&w, INSTANCE_IDLE) - 1);
    world_advance(&w, 10 * SECOND); /* the other's decay to none, the first's to pool_min */
    sched_get_stats(w.sched, &stats);
    assert_int_equal(stats.drivers[0].instances, 2);
    assert_int_equal(stats.drivers[1].instances, 0);
    close_other(other);
}

static void driver_that_is_not_there_is_said_with_those_that_are(void **state)
{
    struct client c = {0};
    struct receipt r;

    world_function(&w, "f", "hello")->config.driver = FUNCTION_LIBVIRT;
    world_open(&w);
    client_get(&w, &c, "f");
    world_run(&w);
    assert_ended(c, SCHED_CANNOT_RUN);
    assert_non_null(strstr(c.detail, "the driver libvirt"));
    assert_non_null(strstr(c.detail, "has fake"));
    assert_true(world_receipt(&w, c.id, &r));
    assert_string_equal(r.driver, "libvirt");
}

static void snapshot_key_goes_only_to_drivers_that_have_snapshots(void **state)
{
    struct hv_driver *other = open_other("libvirt");

    other_ops.prepare = NULL;
    reset_function("f", "hello")->config.driver = FUNCTION_LIBVIRT;
    w.drivers[0] = w.driver;
    w.drivers[1] = other;
    world_open(&w);
    assert_true(call("f").fresh);
    assert_true(call("f").fresh); /* without a snapshot there is nothing to be put back to */
    close_other(other);
}

/* --- snapshots ahead of the first call -------------------------------------------------------- */

struct prepared {
    unsigned answers;
    int rc;
    char text[600], log[300];
    bool fault;
};

static void on_prepared(void *arg, int rc, const struct un_error *err, const char *log_tail,
                        const struct unid_report *report)
{
    (void)report;
    struct prepared *p = arg;

    p->answers++;
    p->rc = rc;
    p->fault = log_tail != NULL;
    snprintf(p->text, sizeof(p->text), "%s", err ? err->text : "");
    snprintf(p->log, sizeof(p->log), "%.299s", log_tail ? log_tail : "");
}

static struct prepared prepare(const struct function_version *v)
{
    struct prepared p = {0};

    sched_prepare(w.sched, v->name, &v->config, on_prepared, &p);
    assert_int_equal(p.answers, 0);
    world_run(&w);
    assert_int_equal(p.answers, 1);
    return p;
}

static void prepare_asks_the_driver_for_the_versions_snapshot(void **state)
{
    struct function_version *v = world_function(&w, "f", "hello");

    world_open(&w);
    assert_int_equal(prepare(v).rc, 0);
    assert_int_equal(world_fake(&w).prepared, 1);
    assert_string_equal(world_fake(&w).prepared_key, v->snapshot_key);
}

static void program_that_fails_to_begin_is_told_with_its_log(void **state)
{
    struct function_version *v = world_function(&w, "f", "stillborn no-config 57");
    struct fake_script late = {.prepare_rc = -ETIMEDOUT};
    struct prepared p;

    world_open(&w);
    p = prepare(v);
    assert_int_equal(p.rc, -EPROTO);
    assert_true(p.fault);
    assert_non_null(strstr(p.text, "before it asked for a request"));
    assert_non_null(strstr(p.text, "; unsupported system call: fork"));
    assert_non_null(strstr(p.log, "no-config"));
    script(&late);
    p = prepare(world_function(&w, "g", "hello"));
    assert_int_equal(p.rc, -ETIMEDOUT);
    assert_true(p.fault);
    assert_string_equal(p.log, "");
}

static void driver_that_cannot_prepare_now_is_no_fault_of_the_program(void **state)
{
    struct fake_script bad = {.prepare_rc = -EIO};

    world_function(&w, "f", "hello");
    world_open(&w);
    script(&bad);
    assert_int_equal(prepare(world_function(&w, "g", "hello")).rc, 0);
}

static void prepare_without_a_driver_that_prepares_is_done_at_once(void **state)
{
    struct function_version *v = world_function(&w, "f", "stillborn");

    v->config.driver = FUNCTION_KVM; /* not there: the call will say so */
    world_open(&w);
    assert_int_equal(prepare(v).rc, 0);
    assert_int_equal(world_fake(&w).prepared, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(reset_call_leaves_its_vm_to_the_next_one),
        T(calls_of_isolation_vm_never_share_a_vm),
        T(next_call_of_isolation_vm_finds_a_vm_bound_ahead),
        T(of_those_bound_ahead_the_oldest_is_taken),
        T(a_vm_bound_ahead_goes_with_its_version),
        T(a_vm_that_cannot_be_bound_ahead_is_no_loss),
        T(vm_whose_function_failed_is_not_used_again),
        T(warm_vm_serves_its_own_function_only),
        T(last_used_is_taken_first_and_the_longest_unused_goes_first),
        T(answer_does_not_wait_until_the_vm_is_put_back),
        T(call_waits_for_the_vm_that_is_being_put_back),
        T(call_gets_a_shell_when_the_vm_could_not_be_put_back),
        T(call_gets_a_shell_when_the_vm_dies_while_it_is_put_back),
        T(killing_a_vm_that_is_put_back_does_not_strand_its_call),
        T(cancelled_call_leaves_the_vm_to_the_next),
        T(call_that_expects_a_vm_expires_at_its_deadline),
        T(vm_that_the_driver_will_not_put_back_is_destroyed),
        T(warm_vm_that_takes_no_run_is_replaced_by_a_shell),
        T(change_of_the_function_lets_its_vms_go),
        T(change_while_a_vm_is_put_back_still_serves_who_waits_for_it),
        T(warm_vms_make_room_for_another_function),
        T(no_more_are_kept_than_may_run_at_once),
        T(warm_vm_that_dies_is_forgotten),
        T(warm_vm_lost_before_its_guest_ran_is_replaced),
        T(drain_keeps_no_vm),
        T(function_runs_on_the_driver_that_it_names),
        T(driver_that_is_not_there_is_said_with_those_that_are),
        T(snapshot_key_goes_only_to_drivers_that_have_snapshots),
        T(prepare_asks_the_driver_for_the_versions_snapshot),
        T(program_that_fails_to_begin_is_told_with_its_log),
        T(driver_that_cannot_prepare_now_is_no_fault_of_the_program),
        T(prepare_without_a_driver_that_prepares_is_done_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
