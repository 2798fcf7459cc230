/* test_service_versions.c - the versions of a service: machines that are kept, how one version takes over from
 * another, volumes, which never have two machines, and when a version is ready or judged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "service_world.h"

static void wait_for(struct world *w, const unsigned *what, unsigned n)
{
    for (int i = 0; i < 500 && *what < n; i++) {
        run_for(w, 10);
    }
    assert_int_equal(*what, n);
}

static void machines_are_kept_without_requests(void **state)
{
    struct world *w = *state;
    w->config.min_instances = 2;
    w->config.live = true;
    w->config.idle_timeout_ms = 50;
    assert_int_equal(services(w)->keep(w->drv, &w->config, NULL), 0);
    run_for(w, 300);
    assert_int_equal(stats_of(w).machines_ready, 2);
    assert_int_equal(fake.made, 2);
    /* Another version is live: it takes over, whole. */
    w->config.key = "web:2";
    w->config.version = 2;
    w->config.min_instances = 1;
    assert_int_equal(services(w)->keep(w->drv, &w->config, NULL), 0);
    run_for(w, 300);
    assert_int_equal(stats_of(w).services, 1);
    assert_int_equal(stats_of(w).machines_ready, 1);
    assert_int_equal(fake.made, 3);
    services(w)->live(w->drv, "web", NULL); /* removed */
    wait_for(w, &fake.gone, 3);
    assert_int_equal(stats_of(w).services, 0);
}

static void the_old_version_serves_what_it_has_and_goes(void **state)
{
    struct world *w = *state;
    struct request old = {0}, next = {0};
    w->config.live = true;
    begin(w, &old, "HOLD END");
    run_for(w, 200);
    services(w)->live(w->drv, "web", "web:2");
    run_for(w, 100);
    assert_int_equal(stats_of(w).machines_paused, 0); /* none to spare */
    assert_int_equal(stats_of(w).machines_ready, 1);
    assert_false(old.exited);
    w->config.key = "web:2";
    begin(w, &next, "END");
    wait_exit(&next);
    assert_int_equal(next.why.kind, HV_EXIT_DONE);
    finish(&next);
    finish(&old); /* idle_timeout_ms is a minute */
    run_for(w, 100);
    assert_int_equal(stats_of(w).services, 1);
}

static void a_version_that_is_asked_for_by_its_number_stays(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    begin(w, &r, "END"); /* of a version that was never live here */
    wait_exit(&r);
    finish(&r);
    services(w)->live(w->drv, "web", "web:7");
    run_for(w, 100);
    assert_int_equal(stats_of(w).machines_ready, 1);
    services(w)->live(w->drv, "web", NULL); /* the function is gone */
    run_for(w, 200);
    assert_int_equal(stats_of(w).services, 0);
}

static void two_machines_never_have_one_volume(void **state)
{
    struct world *w = *state;
    const struct hv_machine_disk volumes[] = {{"/volumes/db", "raw", false}};
    struct request old = {0}, next = {0}, late = {0};
    w->config.volumes = volumes;
    w->config.volume_count = 1;
    w->config.live = true;
    w->config.max_instances = 5; /* makes no difference */
    w->config.concurrency = 1;
    begin(w, &old, "HOLD END");
    run_for(w, 200);
    assert_int_equal(fake.made, 1);
    struct hv_machine_config first = w->config;
    services(w)->live(w->drv, "web", "web:2");
    w->config.key = "web:2";
    begin(w, &next, "END");
    run_for(w, 200);
    assert_int_equal(fake.made, 1);
    assert_false(next.exited);
    first.live = false;
    w->config = first;
    begin(w, &late, "END"); /* the old version is asked for by its number */
    finish(&old);
    wait_exit(&next);
    assert_int_equal(next.why.kind, HV_EXIT_DONE);
    finish(&next);
    wait_exit(&late); /* the newer one has gone for it, as it had nothing to do */
    assert_int_equal(late.why.kind, HV_EXIT_DONE);
    finish(&late);
    assert_int_equal(fake.most_volumes, 1);
}

static void a_kept_machine_does_not_take_another_functions_volume(void **state)
{
    struct world *w = *state;
    const struct hv_machine_disk volumes[] = {{"/volumes/db", "raw", false}};
    struct request r = {0};
    w->config.volumes = volumes;
    w->config.volume_count = 1;
    w->config.live = true;
    w->config.min_instances = 1;
    assert_int_equal(services(w)->keep(w->drv, &w->config, NULL), 0);
    run_for(w, 200);
    struct hv_machine_config other = w->config;
    other.key = "web2:1"; /* of another function, for the driver */
    other.name = "web2";
    hv_driver_ops(w->drv)->service->listen(w->drv, NULL, NULL);
    assert_int_equal(services(w)->keep(w->drv, &other, NULL), 0);
    run_for(w, 200);
    assert_int_equal(fake.made, 1);
    w->config = other;
    begin(w, &r, "END"); /* but a request of it does */
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    finish(&r);
    assert_int_equal(fake.most_volumes, 1);
}

static unsigned files_freed;

static void count_freed(struct hv_machine_files *f)
{
    (void)f;
    files_freed++;
}

static void files_are_held_as_long_as_a_machine_may_open_them(void **state)
{
    struct world *w = *state;
    struct request r[2] = {{0}};
    const struct hv_machine_disk disks[] = {{"/images/disk", "qcow2", true},
                                            {"/volumes/data", "raw", false}};
    struct hv_machine_files files = {.refs = 1, .free = count_freed};
    files_freed = 0;
    w->config.volumes = disks;
    w->config.volume_count = 2;
    w->config.max_instances = 1;
    w->config.files = &files;
    w->config.idle_timeout_ms = 100;
    for (int i = 0; i < 2; i++) {
        begin(w, &r[i], "END");
        wait_exit(&r[i]);
        finish(&r[i]);
    }
    assert_string_equal(fake.disks, "/images/disk qcow2 ro;/volumes/data raw rw;");
    hv_machine_files_unref(&files); /* ours; the service has its own */
    assert_int_equal(files_freed, 0);
    for (int i = 0; i < 1000 && files_freed == 0; i++) {
        run_for(w, 10);
    }
    assert_int_equal(fake.gone, fake.made);
    assert_int_equal(files_freed, 1);
    w->config.files = NULL;
}

static void a_version_that_never_is_ready_is_judged_once(void **state)
{
    struct world *w = *state;
    struct request r = {0}, again = {0};
    fake.crash = true;
    fake.end = HV_EXIT_FAULT;
    w->config.live = true;
    begin(w, &r, "END");
    wait_for(w, &w->failings, 1);
    assert_string_equal(w->failing, "web:1 it crashed; its last words: last");
    assert_int_equal(fake.started, 3);
    run_for(w, 1000); /* those who wait are kept waiting, and nothing is tried */
    assert_false(r.exited);
    assert_int_equal(fake.started, 3);
    services(w)->give_up(w->drv, "web", "web:1");
    run_for(w, 50);
    assert_false(r.exited); /* that one is still to be decided of */
    services(w)->give_up(w->drv, "web", NULL);
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    assert_true(r.why.final);
    assert_false(r.started);
    finish(&r);
    run_for(w, 50);
    assert_int_equal(stats_of(w).services, 1); /* its failures are not forgotten */
    begin(w, &again, "END");
    wait_exit(&again);
    assert_int_equal(fake.started, 4);
    finish(&again);
    assert_int_equal(w->failings, 1);
    services(w)->live(w->drv, "web", "web:2");
    run_for(w, 50);
    assert_int_equal(stats_of(w).services, 0);
    assert_string_equal(w->proven, "");
}

static void a_version_that_was_ready_is_not_judged(void **state)
{
    struct world *w = *state;
    struct request r = {0}, next = {0};
    w->config.live = true;
    begin(w, &r, "END");
    wait_exit(&r);
    finish(&r);
    assert_string_equal(w->proven, "web:1");
    fake.crash = true;
    end_soon(last_started);
    run_for(w, 50);
    begin(w, &next, "END");
    wait_exit(&next);
    assert_int_equal(next.why.kind, HV_EXIT_LOST);
    assert_int_equal(w->failings, 0);
    finish(&next);
}

static void a_console_line_says_ready(void **state)
{
    struct world *w = *state;
    struct request r = {0}, late = {0};
    w->config.ready_console = "serving on";
    fake.says = "booting\nnow serving on port 80"; /* a line that has not ended */
    begin(w, &r, "END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_string_equal(w->log, "booting\n"); /* a line is told when it has ended */
    assert_string_equal(r.log, "");
    finish(&r);
    w->config.key = "web:2";
    w->config.ready_timeout_ms = 100;
    fake.says = "booting\n";
    begin(w, &late, "END"); /* its port would answer */
    wait_exit(&late);
    assert_non_null(
        strstr(late.why.detail, "its console did not say \"serving on\" within 100 ms"));
    finish(&late);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_world, close_world)
    const struct CMUnitTest tests[] = {
        T(machines_are_kept_without_requests),
        T(the_old_version_serves_what_it_has_and_goes),
        T(a_version_that_is_asked_for_by_its_number_stays),
        T(two_machines_never_have_one_volume),
        T(a_kept_machine_does_not_take_another_functions_volume),
        T(files_are_held_as_long_as_a_machine_may_open_them),
        T(a_version_that_never_is_ready_is_judged_once),
        T(a_version_that_was_ready_is_not_judged),
        T(a_console_line_says_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
