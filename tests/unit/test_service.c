/* test_service.c - services' machines: woken by requests, shared, stopped when idle, seen and ended; what is
 * lost when they crash, never listen or cannot be made. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "service_world.h"

static void a_request_wakes_a_machine(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    begin(w, &r, "GET / END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_true(r.started);
    assert_string_equal((const char *)r.answer.data, "GET / END");
    finish(&r);
    assert_int_equal(stats_of(w).machines_ready, 1);
    /* The next one finds it awake. */
    struct request again = {0};
    begin(w, &again, "again END");
    wait_exit(&again);
    assert_string_equal((const char *)again.answer.data, "again END");
    finish(&again);
    assert_int_equal(fake.started, 1);
}

static void the_herd_gets_one_machine(void **state)
{
    struct world *w = *state;
    struct request r[10] = {{0}};
    for (int i = 0; i < 10; i++) {
        begin(w, &r[i], "herd END");
    }
    for (int i = 0; i < 10; i++) {
        wait_exit(&r[i]);
        assert_int_equal(r[i].why.kind, HV_EXIT_DONE);
        finish(&r[i]);
    }
    assert_int_equal(fake.started, 1);
}

static void more_than_fit_get_another(void **state)
{
    struct world *w = *state;
    struct request r[3] = {{0}};
    w->config.concurrency = 1;
    begin(w, &r[0], "HOLD END");
    begin(w, &r[1], "HOLD END");
    begin(w, &r[2], "END");
    run_for(w, 300);
    assert_int_equal(fake.started, 2); /* the maximum */
    assert_false(r[2].exited);
    finish(&r[0]);
    wait_exit(&r[2]);
    finish(&r[1]);
    finish(&r[2]);
}

static void per_request_machines_end_with_it(void **state)
{
    struct world *w = *state;
    struct request r[2] = {{0}};
    w->config.per_request = true;
    for (int i = 0; i < 2; i++) {
        begin(w, &r[i], "one END");
        wait_exit(&r[i]);
        finish(&r[i]);
    }
    assert_int_equal(fake.started, 2);
    assert_int_equal(stats_of(w).machines_ready, 0);
}

/* Waits until the service is asleep: one machine is left, ready to be woken. It stays so for
 * SERVICE_SPARE_RESTS - 1 times idle_timeout_ms, which must be long enough to be seen on a busy machine. */
static void until_asleep(struct world *w)
{
    struct service_stats s = stats_of(w);
    for (int i = 0; i < 1000 && (s.machines_ready != 0 || s.machines_paused != 1); i++) {
        run_for(w, 10);
        s = stats_of(w);
    }
    assert_int_equal(s.machines_ready, 0);
    assert_int_equal(s.machines_paused, 1);
    assert_int_equal(s.services, 1);
}

static void idle_machines_go(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    w->config.idle_timeout_ms = 300;
    begin(w, &r, "END");
    wait_exit(&r);
    finish(&r);
    until_asleep(w);
    for (int i = 0; i < 1000 && stats_of(w).services > 0; i++) {
        run_for(w, 10);
    }
    assert_int_equal(fake.gone, fake.made);
    assert_int_equal(stats_of(w).services, 0);
}

static void what_is_asleep_wakes_by_its_paused_machine(void **state)
{
    struct world *w = *state;
    struct request r = {0}, again = {0};
    w->config.idle_timeout_ms = 300;
    w->config.max_instances = 1;
    begin(w, &r, "END");
    wait_exit(&r);
    finish(&r);
    until_asleep(w);
    unsigned made = fake.made;
    begin(w, &again, "END");
    wait_exit(&again);
    assert_int_equal(again.why.kind, HV_EXIT_DONE);
    assert_int_equal(fake.made, made);
    finish(&again);
}

static void a_crash_loop_is_told_and_backs_off(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.crash = true;
    begin(w, &r, "END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    assert_false(r.started);
    assert_non_null(strstr(r.why.detail, "it crashed"));
    assert_non_null(strstr(r.why.detail, "last"));
    assert_string_equal(w->console, "web: last");
    assert_int_equal(fake.started, 3);
    finish(&r);
}

static void one_crash_is_made_good(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.crash = true;
    begin(w, &r, "END");
    while (fake.started == 0) {
        run_for(w, 5);
    }
    fake.crash = false;
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    finish(&r);
}

static void a_deaf_machine_is_given_up(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.deaf = true;
    w->config.ready_timeout_ms = 100;
    begin(w, &r, "END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    assert_non_null(strstr(r.why.detail, "port 80 did not answer within 100 ms"));
    finish(&r);
}

static void what_cannot_be_made_is_told(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.fail_made = true;
    begin(w, &r, "END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    assert_non_null(strstr(r.why.detail, "no machine today"));
    finish(&r);
}

static void requests_are_lost_with_their_machine(void **state)
{
    struct world *w = *state;
    struct request r[2] = {{0}}, next = {0};
    begin(w, &next, "END"); /* it has proven itself */
    wait_exit(&next);
    finish(&next);
    begin(w, &r[0], "HOLD END");
    begin(w, &r[1], "HOLD END");
    run_for(w, 100);
    end_soon(last_started);
    for (int i = 0; i < 2; i++) {
        wait_exit(&r[i]);
        assert_int_equal(r[i].why.kind, HV_EXIT_LOST);
        assert_string_equal(r[i].why.detail, "it crashed; its last words: last");
        assert_true(r[i].why.final);
        finish(&r[i]);
    }
}

static void a_dropped_request_is_lost_not_repeated(void **state)
{
    struct world *w = *state;
    struct request first = {0}, r = {0};
    begin(w, &first, "END"); /* the machine has proven itself */
    wait_exit(&first);
    finish(&first);
    begin(w, &r, "DROP END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    assert_true(r.started);
    finish(&r);
}

static void a_client_may_go_at_any_time(void **state)
{
    struct world *w = *state;
    struct request waiting = {0}, held = {0};
    begin(w, &waiting, "END");
    finish(&waiting); /* before the machine is there */
    begin(w, &held, "HOLD END");
    run_for(w, 200);
    finish(&held); /* while it is served */
    struct request r = {0};
    begin(w, &r, "END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    finish(&r);
}

static void memory_is_asked_for_again(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    w->no_memory = true;
    begin(w, &r, "END");
    run_for(w, 300);
    assert_int_equal(fake.made, 0);
    w->no_memory = false;
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    finish(&r);
}

static void shutting_down_when_idle_is_no_failure(void **state)
{
    struct world *w = *state;
    struct request r = {0}, next = {0};
    begin(w, &r, "END");
    wait_exit(&r);
    finish(&r);
    fake.end = HV_EXIT_DONE;
    end_soon(last_started);
    run_for(w, 30);
    assert_int_equal(stats_of(w).failed, 0);
    begin(w, &next, "HOLD END"); /* with a request it is one, and the request is lost */
    run_for(w, 200);
    end_soon(last_started);
    wait_exit(&next);
    assert_int_equal(next.why.kind, HV_EXIT_LOST);
    assert_int_equal(stats_of(w).failed, 1);
    finish(&next);
}

static void a_crash_is_told_as_one(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    begin(w, &r, "HOLD END");
    run_for(w, 200);
    fake.end = HV_EXIT_FAULT;
    end_soon(last_started);
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_FAULT);
    finish(&r);
}

static void the_console_of_one_request_is_its_log(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    w->config.per_request = true;
    fake.says = "booted\n";
    fake.unread = "answers\n"; /* as the answer comes, which ends the machine */
    begin(w, &r, "END");
    wait_exit(&r);
    assert_string_equal(r.log, "booted\nanswers\n");
    assert_string_equal(w->log, "");
    finish(&r);
    fake.crash = true; /* a machine that came to no request */
    w->config.key = "web:2";
    struct request lost = {0};
    begin(w, &lost, "END");
    wait_exit(&lost);
    finish(&lost);
    run_for(w, 50);
    assert_non_null(strstr(w->log, "panic!\nlast"));
}

static void look(void *arg, const struct hv_service_machine *m)
{
    *(struct hv_service_machine *)arg = *m;
}

static void machines_can_be_seen_and_ended(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    struct hv_service_machine m = {0};
    struct un_error err = UN_ERROR_INIT;
    w->config.max_instances = 1;
    begin(w, &r, "HOLD END");
    run_for(w, 200);
    services(w)->each(w->drv, look, &m);
    assert_string_equal(m.state, "ready");
    assert_int_equal(m.in_flight, 1);
    assert_int_equal(m.pid, 4711);
    assert_int_equal(m.version, 1);
    assert_int_equal(services(w)->end(w->drv, "none", &err), -ENOENT);
    assert_int_equal(services(w)->end(w->drv, m.id, &err), 0);
    wait_exit(&r);
    assert_string_equal(r.why.detail, "the machine was ended by request");
    finish(&r);
    static const char states[] = "making paused starting ready ending ";
    assert_memory_equal(w->states, states, strlen(states)); /* then one to spare */
    assert_int_equal(stats_of(w).failed, 0);
}

static void serve_one(struct world *w)
{
    struct request r = {0};
    begin(w, &r, "END");
    wait_exit(&r);
    finish(&r);
}

static void a_machine_is_what_its_flavor_says(void **state)
{
    struct world *w = *state;
    w->config.key = "kernel";
    w->config.flavor = "nanos";
    serve_one(w);
    assert_int_equal(fake.spec.type, HV_MACHINE_MICROVM);
    assert_true(fake.spec.acpi && fake.spec.virtio1 && fake.spec.one_ioapic);
    w->config.key = "pc";
    w->config.flavor = "linux-pc";
    serve_one(w);
    assert_int_equal(fake.spec.type, HV_MACHINE_PC);
    assert_true(fake.spec.acpi && fake.spec.guard);
    assert_false(fake.spec.virtio1 || fake.spec.one_ioapic);
    w->config.key = "firecracker";
    w->config.flavor = "unikraft-fc";
    w->config.boot = HV_BOOT_LOADER;
    serve_one(w);
    assert_int_equal(fake.spec.type, HV_MACHINE_MICROVM);
    assert_true(fake.spec.by_words && fake.spec.virtio1);
    assert_false(fake.spec.acpi || fake.spec.one_ioapic);
    w->config.key = "disk";
    w->config.flavor = "nanos";
    w->config.boot = HV_BOOT_DISK;
    w->config.format = "raw";
    serve_one(w);
    assert_int_equal(fake.spec.type, HV_MACHINE_PC); /* microvm boots no disks */
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_world, close_world)
    const struct CMUnitTest tests[] = {
        T(a_request_wakes_a_machine),
        T(the_herd_gets_one_machine),
        T(more_than_fit_get_another),
        T(per_request_machines_end_with_it),
        T(idle_machines_go),
        T(what_is_asleep_wakes_by_its_paused_machine),
        T(a_crash_loop_is_told_and_backs_off),
        T(one_crash_is_made_good),
        T(a_deaf_machine_is_given_up),
        T(what_cannot_be_made_is_told),
        T(requests_are_lost_with_their_machine),
        T(a_dropped_request_is_lost_not_repeated),
        T(a_client_may_go_at_any_time),
        T(memory_is_asked_for_again),
        T(shutting_down_when_idle_is_no_failure),
        T(a_crash_is_told_as_one),
        T(the_console_of_one_request_is_its_log),
        T(machines_can_be_seen_and_ended),
        T(a_machine_is_what_its_flavor_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
