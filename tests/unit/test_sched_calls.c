/* test_sched_calls.c - one call through the scheduler: streaming, failures, cancelling.
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

/* --- a call ----------------------------------------------------------------------------------- */

static void call_is_answered_by_a_vm_of_its_own(void **state)
{
    struct client a = {0}, b = {0};

    world_function(&w, "hello", "hello");
    world_open(&w);
    client_get(&w, &a, "hello");
    world_run(&w);
    client_get(&w, &b, "hello");
    world_run(&w);
    assert_ended(a, SCHED_OK);
    assert_ended(b, SCHED_OK);
    assert_int_equal(a.status, 200);
    assert_true(a.last);
    assert_string_equal((char *)a.body.data, "hello from a fake VM\n");
    assert_int_equal(world_fake(&w).ran, 2);
    client_done(&a);
    client_done(&b);
}

static void guest_sees_the_request_and_its_arguments(void **state)
{
    struct client a = {0}, b = {0};

    world_function(&w, "request", "request");
    world_function(&w, "args", "args one two");
    world_open(&w);
    client_get(&w, &a, "request");
    client_get(&w, &b, "args");
    world_run(&w);
    assert_string_equal((char *)a.body.data, "GET /x?y=1\r\nhost: example.test\r\n");
    assert_string_equal((char *)b.body.data, "args\nargs\none\ntwo\n");
    client_done(&a);
    client_done(&b);
}

static void status_and_fields_come_through_without_a_body(void **state)
{
    struct client c = {0};
    struct function_version *v;

    v = world_function(&w, "teapot", "status 418");
    v->config.args[2] = strdup("x-kind: pot");
    world_open(&w);
    client_get(&w, &c, "teapot");
    world_run(&w);
    assert_ended(c, SCHED_OK);
    assert_int_equal(c.status, 418);
    assert_string_equal(c.fields, "x-kind=pot;");
    assert_int_equal(c.body.len, 0);
    assert_int_equal(c.responses, 1);
    assert_true(c.last);
    client_done(&c);
}

static void nothing_is_called_back_inside_start(void **state)
{
    struct client c = {0};

    world_open(&w);
    client_get(&w, &c, "nobody"); /* looks at c.ends itself */
    world_run(&w);
    assert_ended(c, SCHED_NO_FUNCTION);
    assert_int_equal(c.outcome.phases.shell_us, 0);
}

static void image_of_another_kind_is_refused_with_advice(void **state)
{
    struct client c = {0};

    world_function(&w, "kernel", "hello")->kind = IMAGE_PVH;
    world_open(&w);
    client_get(&w, &c, "kernel");
    world_run(&w);
    assert_ended(c, SCHED_CANNOT_RUN);
    assert_non_null(strstr(c.detail, "guest SDK"));
    assert_int_equal(world_fake(&w).made, 0);
}

static void only_kinds_that_a_driver_runs_can_run(void **state)
{
    struct un_error err = UN_ERROR_INIT;

    world_open(&w); /* for the teardown */
    for (int kind = IMAGE_SDK; kind <= IMAGE_LINUX_ROOTFS; kind++) {
        assert_int_equal(sched_can_run(w.sched, (enum image_kind)kind, &err), 0);
    }
    for (int kind = IMAGE_LINUX_ROOTFS + 1; kind <= IMAGE_DISK; kind++) {
        assert_int_equal(sched_can_run(w.sched, (enum image_kind)kind, &err), -ENOTSUP);
        assert_non_null(strstr(err.text, "machine images"));
        assert_non_null(strstr(err.text, "unid-cc"));
    }
}

static void function_larger_than_all_memory_is_refused(void **state)
{
    struct client c = {0};

    world_function(&w, "huge", "hello")->config.memory_mib = 1000000;
    world_open(&w);
    client_get(&w, &c, "huge");
    world_run(&w);
    assert_ended(c, SCHED_CANNOT_RUN);
}

static void image_that_does_not_fit_leaves_the_shell_for_the_next(void **state)
{
    struct client small = {0}, next = {0};

    world_function(&w, "small", "hello")->config.memory_mib = 2;
    world_function(&w, "hello", "hello");
    w.set.pool_min = w.set.pool_max = 1;
    world_open(&w);
    client_get(&w, &small, "small");
    world_run(&w);
    assert_ended(small, SCHED_CANNOT_RUN);
    assert_int_equal(world_count(&w, INSTANCE_IDLE), 1);
    client_get(&w, &next, "hello");
    world_run(&w);
    assert_ended(next, SCHED_OK);
    client_done(&next);
}

/* --- failures of the guest -------------------------------------------------------------------- */

static void exit_status_before_output_is_a_failure_with_the_log(void **state)
{
    struct client c = {0};

    world_function(&w, "exits", "exit 3 oops");
    world_open(&w);
    client_get(&w, &c, "exits");
    world_run(&w);
    assert_ended(c, SCHED_FAILED);
    assert_int_equal(c.responses, 0);
    assert_false(c.outcome.responded);
    assert_int_equal(c.outcome.exit.status, 3);
    assert_string_equal(c.log_tail, "oops\n");
    assert_non_null(strstr(c.detail, "exit status 3"));
}

static void failure_after_output_says_that_it_had_responded(void **state)
{
    struct client a = {0}, b = {0};

    world_function(&w, "late", "late-exit 1");
    world_function(&w, "later", "late-crash");
    world_open(&w);
    client_get(&w, &a, "late");
    client_get(&w, &b, "later");
    world_run(&w);
    assert_ended(a, SCHED_FAILED);
    assert_ended(b, SCHED_FAILED);
    assert_true(a.outcome.responded && b.outcome.responded);
    assert_false(a.last || b.last);
    client_done(&a);
    client_done(&b);
}

static void fault_protocol_limit_and_loss_are_told_and_the_next_is_served(void **state)
{
    static const struct {
        const char *args;
        enum hv_exit_kind kind;
    } cases[] = {
        {"crash", HV_EXIT_FAULT},
        {"protocol", HV_EXIT_PROTOCOL},
        {"limit", HV_EXIT_LIMIT},
        {"lost", HV_EXIT_LOST},
    };

    world_function(&w, "hello", "hello");
    for (size_t i = 0; i < 4; i++) {
        world_function(&w, cases[i].args, cases[i].args);
    }
    world_open(&w);
    for (size_t i = 0; i < 4; i++) {
        struct client bad = {0}, good = {0};

        client_get(&w, &bad, cases[i].args);
        world_run(&w);
        assert_ended(bad, SCHED_FAILED);
        assert_int_equal(bad.outcome.exit.kind, cases[i].kind);
        client_get(&w, &good, "hello");
        world_run(&w);
        assert_ended(good, SCHED_OK);
        client_done(&good);
    }
    assert_int_equal(world_count(&w, INSTANCE_RUNNING), 0);
}

static void timeout_destroys_the_vm_and_the_next_request_is_served(void **state)
{
    struct client spin = {0}, next = {0};

    world_function(&w, "spin", "spin")->config.timeout_ms = 100;
    world_function(&w, "hello", "hello");
    world_open(&w);
    client_get(&w, &spin, "spin");
    world_advance(&w, 99 * MS);
    assert_int_equal(spin.ends, 0);
    assert_int_equal(world_fake(&w).running, 1);
    world_advance(&w, 2 * MS);
    assert_ended(spin, SCHED_TIMED_OUT);
    assert_int_equal(world_fake(&w).running, 0);
    client_get(&w, &next, "hello");
    world_run(&w);
    assert_ended(next, SCHED_OK);
    client_done(&next);
}

static void vm_that_never_starts_times_out(void **state)
{
    struct client c = {0};
    struct fake_script s = {.never_started = true};

    script(&s);
    world_function(&w, "hello", "hello")->config.timeout_ms = 100;
    world_open(&w);
    client_get(&w, &c, "hello");
    world_advance(&w, SECOND);
    assert_ended(c, SCHED_TIMED_OUT);
}

static void time_limit_does_not_run_while_the_client_takes_the_last_piece(void **state)
{
    struct client c = {.hold = true};

    world_function(&w, "hello", "hello")->config.timeout_ms = 100;
    world_open(&w);
    client_get(&w, &c, "hello");
    world_advance(&w, 10 * SECOND);
    assert_int_equal(c.ends, 0);
    assert_true(c.last);
    sched_call_data_done(c.call);
    world_run(&w);
    assert_ended(c, SCHED_OK);
    client_done(&c);
}

/* --- bodies ----------------------------------------------------------------------------------- */

static void small_body_goes_into_the_vm_with_the_request(void **state)
{
    struct client c = {0};

    world_function(&w, "echo", "echo");
    world_open(&w);
    client_post(&w, &c, "echo", 4);
    assert_int_equal(sched_call_body(c.call, "body", 4, true), 1);
    world_run(&w);
    assert_ended(c, SCHED_OK);
    assert_string_equal((char *)c.body.data, "body");
    assert_int_equal(world_fake(&w).inputs, 0);
    client_done(&c);
}

static void body_streams_both_ways_in_order(void **state)
{
    enum { TOTAL = 3 << 20, PIECE = 40000 };
    struct client c = {0};
    uint8_t *data = malloc(TOTAL);
    size_t at = 0;

    for (size_t i = 0; i < TOTAL; i++) {
        data[i] = (uint8_t)(i * 31 + i / 256);
    }
    world_function(&w, "echo", "echo");
    world_open(&w);
    client_post(&w, &c, "echo", -1);
    while (at < TOTAL) {
        size_t n = TOTAL - at < PIECE ? TOTAL - at : PIECE;

        if (!sched_call_body(c.call, data + at, n, at + n == TOTAL)) {
            unsigned rooms = c.rooms;

            world_run(&w);
            assert_true(at + n == TOTAL || c.rooms == rooms + 1);
        }
        at += n;
    }
    world_run(&w);
    assert_ended(c, SCHED_OK);
    assert_int_equal(c.body.len, TOTAL);
    assert_memory_equal(c.body.data, data, TOTAL);
    free(data);
    client_done(&c);
}

static void body_without_a_vm_is_buffered_up_to_its_limit_only(void **state)
{
    struct client c = {0};
    struct fake_script s = {.shell_us = SECOND};
    uint8_t piece[16384] = {0};
    size_t sent = 0;

    script(&s);
    world_function(&w, "count", "count");
    world_open(&w);
    client_post(&w, &c, "count", -1);
    world_run(&w);
    while (sched_call_body(c.call, piece, sizeof(piece), false)) {
        sent += sizeof(piece);
        assert_true(sent <= LIMIT_BODY_BUFFER_BYTES);
    }
    world_run(&w);
    assert_int_equal(c.rooms, 0);
    world_advance(&w, SECOND);
    assert_int_equal(c.rooms, 1);
    sched_call_body(c.call, NULL, 0, true);
    world_run(&w);
    assert_ended(c, SCHED_OK);
    assert_int_equal(atoi((char *)c.body.data), LIMIT_BODY_BUFFER_BYTES);
    client_done(&c);
}

static void slow_reader_holds_the_guest_back(void **state)
{
    struct client c = {.hold = true};

    world_function(&w, "size", "size 1000000");
    world_open(&w);
    client_get(&w, &c, "size");
    world_run(&w);
    assert_int_equal(c.pieces, 1);
    assert_int_equal(world_fake(&w).outputs, 1);
    sched_call_data_done(c.call);
    world_run(&w);
    assert_int_equal(world_fake(&w).outputs, 2);
    c.hold = false;
    sched_call_data_done(c.call);
    world_run(&w);
    assert_ended(c, SCHED_OK);
    assert_int_equal(c.body.len, 1000000);
    client_done(&c);
}

static void guest_that_does_not_read_the_body_ends_all_the_same(void **state)
{
    struct client c = {0};
    uint8_t piece[16384] = {0};

    world_function(&w, "hello", "hello");
    world_open(&w);
    client_post(&w, &c, "hello", 1 << 20);
    while (sched_call_body(c.call, piece, sizeof(piece), false)) {
    }
    world_run(&w);
    assert_ended(c, SCHED_OK);
    client_done(&c);
}

static void declared_body_over_the_limit_never_starts_a_vm(void **state)
{
    struct client c = {0};

    w.set.max_request_bytes = 1000;
    world_function(&w, "echo", "echo");
    world_open(&w);
    client_post(&w, &c, "echo", 1001);
    world_run(&w);
    assert_ended(c, SCHED_REQUEST_TOO_LARGE);
    assert_int_equal(world_fake(&w).made, 0);
}

static void streamed_body_over_the_limit_ends_the_call(void **state)
{
    struct client c = {0};
    char piece[600] = {0};

    w.set.max_request_bytes = 1000;
    world_function(&w, "count", "count");
    world_open(&w);
    client_post(&w, &c, "count", -1);
    sched_call_body(c.call, piece, sizeof(piece), false);
    world_run(&w);
    assert_int_equal(c.ends, 0);
    sched_call_body(c.call, piece, sizeof(piece), false);
    assert_int_equal(c.ends, 0); /* not from inside */
    world_run(&w);
    assert_ended(c, SCHED_REQUEST_TOO_LARGE);
    assert_int_equal(world_fake(&w).running, 0);
}

static void endless_response_is_cut_at_the_limit(void **state)
{
    struct client c = {0};

    w.set.max_response_bytes = 1 << 20;
    world_function(&w, "flood", "flood");
    world_open(&w);
    client_get(&w, &c, "flood");
    world_run(&w);
    assert_ended(c, SCHED_RESPONSE_TOO_LARGE);
    assert_true(c.outcome.responded);
    assert_true(c.body.len <= 1 << 20);
    client_done(&c);
}

/* --- cancelling ------------------------------------------------------------------------------- */

static void cancelled_lookup_is_forgotten(void **state)
{
    struct client c = {0};

    world_function(&w, "hello", "hello");
    world_open(&w);
    world_hold_lookups(&w, true);
    client_get(&w, &c, "hello");
    world_run(&w);
    sched_call_cancel(c.call);
    world_run(&w);
    world_answer_lookups(&w);
    assert_int_equal(c.ends, 0);
    assert_int_equal(world_fake(&w).made, 0);
}

static void cancel_right_after_start_is_clean(void **state)
{
    struct client c = {0};

    world_function(&w, "hello", "hello");
    world_open(&w);
    client_get(&w, &c, "hello");
    sched_call_cancel(c.call);
    world_run(&w);
    assert_int_equal(c.ends, 0);
    assert_int_equal(world_fake(&w).made, 0);
}

static void cancelled_waiter_leaves_the_queue(void **state)
{
    struct client run = {0}, first = {0}, second = {0};

    world_function(&w, "sleep", "sleep 1000")->config.concurrency = 1;
    world_open(&w);
    client_get(&w, &run, "sleep");
    client_get(&w, &first, "sleep");
    client_get(&w, &second, "sleep");
    world_run(&w);
    assert_int_equal(waiting(), 2);
    sched_call_cancel(first.call);
    world_run(&w);
    assert_int_equal(waiting(), 1);
    world_advance(&w, 2 * SECOND + MS);
    assert_ended(run, SCHED_OK);
    assert_ended(second, SCHED_OK);
    assert_int_equal(first.ends, 0);
    assert_int_equal(world_fake(&w).ran, 2);
    client_done(&run);
    client_done(&second);
}

static void cancelled_claim_leaves_its_shell_to_the_next(void **state)
{
    struct client a = {0}, b = {0};
    struct fake_script s = {.shell_us = SECOND};

    script(&s);
    world_function(&w, "hello", "hello")->config.concurrency = 1;
    world_open(&w);
    client_get(&w, &a, "hello");
    client_get(&w, &b, "hello");
    world_advance(&w, SECOND / 2);
    sched_call_cancel(a.call);
    world_advance(&w, SECOND / 2);
    assert_ended(b, SCHED_OK);
    assert_int_equal(b.ended_at_us, 1000000 + SECOND);
    client_done(&b);
}

static void cancelled_run_destroys_its_vm(void **state)
{
    struct client c = {0};

    world_function(&w, "spin", "spin");
    world_open(&w);
    client_get(&w, &c, "spin");
    world_run(&w);
    assert_int_equal(world_fake(&w).running, 1);
    sched_call_cancel(c.call);
    world_run(&w);
    assert_int_equal(world_fake(&w).running, 0);
    assert_int_equal(c.ends, 0);
}

static void cancel_from_inside_on_response_is_clean(void **state)
{
    struct client c = {.cancel_on_response = true};

    world_function(&w, "size", "size 1000000");
    world_open(&w);
    client_get(&w, &c, "size");
    world_run(&w);
    assert_int_equal(c.responses, 1);
    assert_int_equal(c.ends, 0);
    assert_int_equal(world_fake(&w).running, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(call_is_answered_by_a_vm_of_its_own),
        T(guest_sees_the_request_and_its_arguments),
        T(status_and_fields_come_through_without_a_body),
        T(nothing_is_called_back_inside_start),
        T(image_of_another_kind_is_refused_with_advice),
        T(only_kinds_that_a_driver_runs_can_run),
        T(function_larger_than_all_memory_is_refused),
        T(image_that_does_not_fit_leaves_the_shell_for_the_next),
        T(exit_status_before_output_is_a_failure_with_the_log),
        T(failure_after_output_says_that_it_had_responded),
        T(fault_protocol_limit_and_loss_are_told_and_the_next_is_served),
        T(timeout_destroys_the_vm_and_the_next_request_is_served),
        T(vm_that_never_starts_times_out),
        T(time_limit_does_not_run_while_the_client_takes_the_last_piece),
        T(small_body_goes_into_the_vm_with_the_request),
        T(body_streams_both_ways_in_order),
        T(body_without_a_vm_is_buffered_up_to_its_limit_only),
        T(slow_reader_holds_the_guest_back),
        T(guest_that_does_not_read_the_body_ends_all_the_same),
        T(declared_body_over_the_limit_never_starts_a_vm),
        T(streamed_body_over_the_limit_ends_the_call),
        T(endless_response_is_cut_at_the_limit),
        T(cancelled_lookup_is_forgotten),
        T(cancel_right_after_start_is_clean),
        T(cancelled_waiter_leaves_the_queue),
        T(cancelled_claim_leaves_its_shell_to_the_next),
        T(cancelled_run_destroys_its_vm),
        T(cancel_from_inside_on_response_is_clean),
    };

    return cmocka_run_group_tests_name("scheduler: calls", tests, NULL, NULL);
}
