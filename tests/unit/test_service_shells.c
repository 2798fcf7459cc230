/* test_service_shells.c - machines that are made ahead for any service: when there are some, who gets them, and
 * what happens when they fail. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "pvh_maker.h"
#include "service/shells.h"
#include "service_world.h"

#define S(n) ((n)*UINT64_C(1000000))

static const struct shell_kind small = {.mem_bytes = 1 << 20}, large = {.mem_bytes = 2 << 20},
                               web = {.mem_bytes = 1 << 20, .port = 80};

static void a_kind_is_wanted_until_its_time(void **state)
{
    struct shell_wishes w = {0};
    assert_false(shell_wishes_has(&w, &small, 0));
    assert_int_equal(shell_wishes_end(&w, 0), 0);
    shell_wishes_add(&w, &small, S(10));
    assert_true(shell_wishes_has(&w, &small, S(10) - 1));
    assert_false(shell_wishes_has(&w, &small, S(10)));
    assert_false(shell_wishes_has(&w, &web, S(1)));
    shell_wishes_add(&w, &small, S(20));
    shell_wishes_add(&w, &large, S(15));
    assert_int_equal(shell_wishes_end(&w, S(1)), S(15));
    assert_int_equal(shell_wishes_end(&w, S(15)), S(20));
    assert_int_equal(shell_wishes_end(&w, S(20)), 0);
}

static void of_too_many_kinds_the_first_to_end_goes(void **state)
{
    struct shell_wishes w = {0};
    shell_wishes_add(&w, &small, S(10));
    shell_wishes_add(&w, &large, S(11));
    shell_wishes_add(&w, &small, S(12));
    shell_wishes_add(&w, &web, S(13));
    assert_true(shell_wishes_has(&w, &small, S(1)));
    assert_true(shell_wishes_has(&w, &web, S(1)));
    assert_false(shell_wishes_has(&w, &large, S(1)));
}

/* --- with fake machines ------------------------------------------------------------------------- */

static struct pvh_kernel kernel;
static char keys[16][16];

static void have_kernel(struct world *w)
{
    kernel = pvh_kernel_default();
    pvh_kernel_write(&kernel);
    w->config.image = kernel.file;
    w->config.image_len = sizeof(kernel.file);
    w->config.max_instances = 1;
}

static int set_up(void **state)
{
    int rc = open_world_with_shells(state);
    have_kernel(*state);
    return rc;
}

static struct hv_service_stats shells_of(struct world *w)
{
    struct hv_service_stats s;
    services(w)->stats(w->drv, &s);
    return s;
}

/* The first request of another service; it gets its answer. */
static void wake_another(struct world *w)
{
    static unsigned number;
    char *key = keys[number++ % 16];
    struct request r = {0};
    snprintf(key, sizeof(keys[0]), "web:%u", number);
    w->config.key = key;
    begin(w, &r, "GET / END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_string_equal((const char *)r.answer.data, "GET / END");
    finish(&r);
}

static void wait_for_shell(struct world *w)
{
    for (int i = 0; i < 500 && shells_of(w).shells == 0; i++) {
        run_for(w, 10);
    }
    assert_int_equal(shells_of(w).shells, 1);
}

static void the_first_wake_has_one_made(void **state)
{
    struct world *w = *state;
    run_for(w, 300);
    assert_int_equal(fake.made, 0);
    wake_another(w);
    assert_int_equal(shells_of(w).shells_missed, 1);
    wait_for_shell(w);
    assert_int_equal(fake.shells, 1);
    assert_int_equal(stats_of(w).memory_mib, 128);
    run_for(w, 300);
    assert_int_equal(fake.shells, 1);
}

static void the_next_service_is_made_of_it(void **state)
{
    struct world *w = *state;
    wake_another(w);
    wait_for_shell(w);
    unsigned made = fake.made;
    w->config.append = "of a shell";
    wake_another(w);
    assert_int_equal(fake.made, made);
    assert_int_equal(fake.loaded, 1);
    assert_string_equal(fake.cmdline, "of a shell");
    assert_int_equal(shells_of(w).shells_used, 1);
    wait_for_shell(w); /* another in its place */
    assert_int_equal(shells_of(w).shells_made, 2);
}

static void a_machine_for_each_request_is_made_of_one(void **state)
{
    struct world *w = *state;
    w->config.per_request = true;
    wake_another(w);
    wait_for_shell(w);
    wake_another(w);
    assert_int_equal(fake.loaded, 1);
}

static void what_a_shell_cannot_be_is_made_in_the_ordinary_way(void **state)
{
    struct world *w = *state;
    wake_another(w);
    wait_for_shell(w);
    struct hv_machine_config config = w->config;
    const struct hv_machine_disk volume = {.path = "/v", .format = "raw"};

    w->config.flavor = "pc";
    wake_another(w);
    w->config.flavor = "nanos"; /* a microvm, with other devices */
    wake_another(w);
    w->config = config;
    w->config.volumes = &volume;
    w->config.volume_count = 1;
    wake_another(w);
    w->config = config;
    w->config.image_len = PVH_TEXT_AT;
    wake_another(w);
    assert_int_equal(shells_of(w).shells_missed, 1);
    w->config = config;
    w->config.mem_bytes += 4096;
    wake_another(w);
    w->config = config;
    w->config.port++; /* the user network forwards another */
    wake_another(w);
    assert_int_equal(shells_of(w).shells_missed, 3);
    assert_int_equal(fake.loaded, 0);
}

static void a_failed_loading_costs_nobody_a_request(void **state)
{
    struct world *w = *state;
    wake_another(w);
    wait_for_shell(w);
    fake.fail_load = true;
    wake_another(w);
    assert_int_equal(fake.loaded, 1);
    assert_int_equal(shells_of(w).shells_failed, 1);
    assert_int_equal(stats_of(w).failed, 0);
}

static void a_shell_that_ends_while_it_is_loaded_costs_none_either(void **state)
{
    struct world *w = *state;
    wake_another(w);
    wait_for_shell(w);
    fake.die_loading = true;
    wake_another(w);
    assert_int_equal(fake.loaded, 1);
    assert_int_equal(stats_of(w).failed, 0);
}

static void one_that_ends_is_replaced(void **state)
{
    struct world *w = *state;
    wake_another(w);
    wait_for_shell(w);
    end_soon(last_shell);
    for (int i = 0; i < 500 && fake.shells < 2; i++) {
        run_for(w, 10);
    }
    wait_for_shell(w);
    assert_int_equal(fake.shells, 2);
    assert_int_equal(shells_of(w).shells_failed, 1);
}

static void those_that_cannot_be_made_are_tried_less_and_less(void **state)
{
    struct world *w = *state;
    wake_another(w);
    fake.fail_made = true;
    run_for(w, 1500); /* 200 ms, then pauses of 100, 200, 400 and 800 ms */
    assert_in_range(shells_of(w).shells_failed, 1, 5);
    fake.fail_made = false;
    wait_for_shell(w);
}

static void a_driver_without_shells_is_asked_once(void **state)
{
    struct world *w = *state;
    fake.no_shells = true;
    wake_another(w);
    run_for(w, 500);
    wake_another(w);
    run_for(w, 500);
    assert_int_equal(fake.shells, 1);
    assert_int_equal(shells_of(w).shells, 0);
}

static void requests_have_its_memory(void **state)
{
    struct world *w = *state;
    w->memory_mib = 128;
    wake_another(w);
    wait_for_shell(w);
    w->config.flavor = "pc";
    wake_another(w);
    assert_int_equal(shells_of(w).shells, 0);
    assert_int_equal(stats_of(w).memory_mib, 128);
    run_for(w, 500); /* none is made of memory that is not there */
    assert_int_equal(fake.shells, 1);
}

static void one_that_is_taken_needs_no_more_memory(void **state)
{
    struct world *w = *state;
    w->memory_mib = 128;
    wake_another(w);
    wait_for_shell(w);
    wake_another(w);
    assert_int_equal(fake.loaded, 1);
}

static void others_may_have_its_memory(void **state)
{
    struct world *w = *state;
    assert_false(services(w)->yield(w->drv));
    wake_another(w);
    wait_for_shell(w);
    assert_true(services(w)->yield(w->drv));
    assert_int_equal(stats_of(w).memory_mib, 64);
    assert_false(services(w)->yield(w->drv));
    run_for(w, 500); /* and for some time there is none */
    assert_int_equal(fake.shells, 1);
}

struct seen {
    unsigned count;
    char id[UN_ID_SIZE], state[16];
};

static void see(void *arg, const struct hv_service_machine *m)
{
    struct seen *s = arg;
    if (!*m->name) {
        s->count++;
        memcpy(s->id, m->id, sizeof(s->id));
        snprintf(s->state, sizeof(s->state), "%s", m->state);
    }
}

static void it_is_seen_and_can_be_ended(void **state)
{
    struct world *w = *state;
    struct seen seen = {0};
    wake_another(w);
    wait_for_shell(w);
    services(w)->each(w->drv, see, &seen);
    assert_int_equal(seen.count, 1);
    assert_string_equal(seen.state, "paused");
    assert_int_equal(services(w)->end(w->drv, seen.id, NULL), 0);
    assert_int_equal(shells_of(w).shells, 0);
    assert_int_equal(services(w)->end(w->drv, "nobody", NULL), -ENOENT);
}

static void none_is_made_when_there_are_none_to_be(void **state)
{
    struct world *w = *state;
    have_kernel(w);
    wake_another(w);
    run_for(w, 500);
    assert_int_equal(fake.shells, 0);
    assert_int_equal(shells_of(w).shells_missed, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kind_is_wanted_until_its_time),
        cmocka_unit_test(of_too_many_kinds_the_first_to_end_goes),
        TEST(the_first_wake_has_one_made),
        TEST(the_next_service_is_made_of_it),
        TEST(a_machine_for_each_request_is_made_of_one),
        TEST(what_a_shell_cannot_be_is_made_in_the_ordinary_way),
        TEST(a_failed_loading_costs_nobody_a_request),
        TEST(a_shell_that_ends_while_it_is_loaded_costs_none_either),
        TEST(one_that_ends_is_replaced),
        TEST(those_that_cannot_be_made_are_tried_less_and_less),
        TEST(a_driver_without_shells_is_asked_once),
        TEST(requests_have_its_memory),
        TEST(one_that_is_taken_needs_no_more_memory),
        TEST(others_may_have_its_memory),
        TEST(it_is_seen_and_can_be_ended),
        cmocka_unit_test_setup_teardown(none_is_made_when_there_are_none_to_be, open_world,
                                        close_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
