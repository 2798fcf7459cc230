/* test_fake.c - the fake driver keeps the contract of hypervisor/hv.h. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "elf_maker.h"
#include "hv_contract.h"
#include "hypervisor/fake/fake.h"
#include "unid/abi.h"

#define MIB (1ull << 20)

static struct un_loop *loop;
static struct hv_driver *drv;
static const struct hv_driver_ops *const ops = &fake_driver_ops;

/* A user of one VM that writes down what it is told, as one letter each. */
struct user {
    struct hv_vm *vm;
    char events[64];
    bool inside; /* of one of the driver's functions: no callback may come */
    int ready_rc;
    struct hv_exit exit;
    bool last_known;
    bool hold, free_on_output;
    size_t out_bytes;
    const char *feed; /* given to the guest, `feed_piece` bytes at a time */
    size_t feed_piece;
    char log[256];
    char out[256];
    struct hv_ask ask;
    char asked[64]; /* bytes that came with it */
};

static void note(struct user *u, char event)
{
    size_t len = strlen(u->events);

    assert_false(u->inside);
    assert_null(strchr(u->events, 'g')); /* on_gone is the last */
    if (len + 1 < sizeof(u->events)) {
        u->events[len] = event;
    }
}

static void on_ready(void *arg, int rc, const struct un_error *err)
{
    struct user *u = arg;

    note(u, rc ? 'R' : 'r');
    u->ready_rc = rc;
    assert_true(rc == 0 || err->text[0]);
}

static void on_started(void *arg)
{
    note(arg, 's');
}

static void on_input_wanted(void *arg, size_t room)
{
    struct user *u = arg;
    size_t n = u->feed ? strlen(u->feed) : 0;

    note(u, 'i');
    assert_true(room > 0);
    if (!u->feed) {
        return;
    }
    n = n < u->feed_piece ? n : u->feed_piece;
    u->inside = true;
    ops->vm_input(u->vm, u->feed, n, u->feed[n] == '\0');
    u->inside = false;
    u->feed += n;
}

static void on_head(void *arg, const struct hv_head *head)
{
    note(arg, 'h');
    assert_in_range(head->status, 200, 599);
}

static void on_output(void *arg, const void *data, size_t len, const struct hv_exit *last)
{
    struct user *u = arg;

    note(u, last ? 'O' : 'o');
    if (u->out_bytes + len < sizeof(u->out)) {
        memcpy(u->out + u->out_bytes, data, len);
    }
    u->out_bytes += len;
    u->last_known = last != NULL;
    if (u->free_on_output) {
        ops->vm_free(u->vm);
    } else if (!u->hold) {
        u->inside = true;
        ops->vm_output_done(u->vm);
        u->inside = false;
    }
}

static void on_ask(void *arg, const struct hv_ask *ask)
{
    struct user *u = arg;

    note(u, 'a');
    u->ask = *ask;
    snprintf(u->asked, sizeof(u->asked), "%.*s", ask->data ? (int)ask->len : 0,
             ask->data ? (const char *)ask->data : "");
}

static void on_log(void *arg, const void *data, size_t len)
{
    struct user *u = arg;

    note(u, 'l');
    strncat(u->log, data, len);
}

static void on_exit_(void *arg, const struct hv_exit *why)
{
    struct user *u = arg;

    note(u, 'x');
    u->exit = *why;
}

static void on_gone(void *arg)
{
    note(arg, 'g');
}

static const struct hv_vm_events events = {
    .on_ready = on_ready,
    .on_started = on_started,
    .on_input_wanted = on_input_wanted,
    .on_head = on_head,
    .on_output = on_output,
    .on_log = on_log,
    .on_exit = on_exit_,
    .on_gone = on_gone,
};

static int setup(void **state)
{
    struct un_error err = UN_ERROR_INIT;
    struct hv_driver_spec spec = {0};

    assert_int_equal(un_loop_new_virtual(5000, &loop, &err), 0);
    spec.loop = loop;
    assert_int_equal(ops->open(&spec, &drv, &err), 0);
    return 0;
}

static int teardown(void **state)
{
    struct fake_stats st;

    fake_driver_stats(drv, &st);
    assert_int_equal(st.made, st.gone);
    ops->close(drv);
    un_loop_free(loop);
    return 0;
}

static void make(struct user *u)
{
    struct hv_vm_spec spec = {.mem_bytes = 64 * MIB, .events = &events, .arg = u};
    struct un_error err = UN_ERROR_INIT;

    u->inside = true;
    assert_int_equal(ops->vm_new(drv, &spec, &u->vm, &err), 0);
    u->inside = false;
}

static void drop(struct user *u)
{
    u->inside = true;
    ops->vm_free(u->vm);
    u->inside = false;
    un_loop_advance(loop, 1000000);
    assert_int_equal(u->events[strlen(u->events) - 1], 'g');
}

static int run_spec(struct user *u, struct hv_run_spec *run, struct un_error *err)
{
    int rc;

    u->inside = true;
    rc = ops->vm_run(u->vm, run, err);
    u->inside = false;
    return rc;
}

static int run_with(struct user *u, const char *const *argv, const char *body, bool eof)
{
    static const char *const env[] = {NULL};
    static uint8_t image[ELF_MAKER_SIZE];
    struct elf_maker elf = elf_maker_default();
    struct un_error err = UN_ERROR_INIT;
    struct hv_run_spec run = {
        .mem_bytes = 16 * MIB,
        .argv = argv,
        .envp = env,
        .invocation_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        .request_head = "GET /\r\n",
        .request_head_len = 7,
        .content_length = -1,
        .body = body,
        .body_len = strlen(body),
        .body_eof = eof,
    };
    int rc;

    elf_maker_write(&elf, image);
    run.image = image;
    run.image_len = sizeof(image);
    rc = run_spec(u, &run, &err);
    return rc;
}

static int run(struct user *u, const char *behaviour)
{
    const char *argv[] = {"f", behaviour, NULL};

    return run_with(u, argv, "", true);
}

static void life_is_told_in_order(void **state)
{
    struct user u = {0};

    make(&u);
    assert_string_equal(u.events, "");
    assert_int_equal(ops->vm_pid(u.vm), 0);
    un_loop_run_ready(loop);
    assert_string_equal(u.events, "r");
    assert_true(ops->vm_pid(u.vm) > 0);
    assert_int_equal(run(&u, "hello"), 0);
    un_loop_run_ready(loop);
    assert_string_equal(u.events, "rshOx");
    assert_true(u.last_known);
    assert_int_equal(u.exit.kind, HV_EXIT_DONE);
    drop(&u);
    assert_string_equal(u.events, "rshOxg");
}

static void delays_are_those_of_the_script(void **state)
{
    struct fake_script s = {.shell_us = 300, .start_us = 20, .destroy_us = 100};
    struct user u = {0};

    fake_driver_script(drv, &s);
    make(&u);
    un_loop_advance(loop, 299);
    assert_string_equal(u.events, "");
    un_loop_advance(loop, 1);
    assert_string_equal(u.events, "r");
    run(&u, "spin");
    un_loop_advance(loop, 19);
    assert_string_equal(u.events, "r");
    un_loop_advance(loop, 1);
    assert_string_equal(u.events, "rs");
    ops->vm_free(u.vm);
    un_loop_advance(loop, 99);
    assert_string_equal(u.events, "rs");
    un_loop_advance(loop, 1);
    assert_string_equal(u.events, "rsg");
}

static void guest_stands_still_until_its_output_is_answered(void **state)
{
    struct user u = {.hold = true};

    make(&u);
    un_loop_run_ready(loop);
    run(&u, "flood");
    un_loop_advance(loop, 1000000);
    assert_string_equal(u.events, "rsho");
    ops->vm_output_done(u.vm);
    ops->vm_output_done(u.vm); /* a second answer to the same piece is none */
    un_loop_advance(loop, 1000000);
    assert_string_equal(u.events, "rshoo");
    drop(&u);
}

static void end_with_output_is_told_after_its_answer(void **state)
{
    struct user u = {.hold = true};

    make(&u);
    un_loop_run_ready(loop);
    run(&u, "hello");
    un_loop_advance(loop, 1000000);
    assert_string_equal(u.events, "rshO");
    ops->vm_output_done(u.vm);
    un_loop_run_ready(loop);
    assert_string_equal(u.events, "rshOx");
    drop(&u);
}

static void body_is_asked_for_piece_by_piece(void **state)
{
    const char *argv[] = {"f", "echo", NULL};
    struct user u = {.feed = "more than that", .feed_piece = 5};

    make(&u);
    un_loop_run_ready(loop);
    assert_int_equal(run_with(&u, argv, "first, ", false), 0);
    un_loop_run_ready(loop);
    assert_string_equal(u.out, "first, more than that");
    assert_int_equal(u.exit.kind, HV_EXIT_DONE);
    drop(&u);
}

static void a_wait_passes_without_a_user_that_answers(void **state)
{
    const char *argv[] = {"f", "wait", "7", NULL};
    struct user u = {0};

    make(&u);
    un_loop_run_ready(loop);
    run_with(&u, argv, "", true);
    un_loop_advance(loop, 6999);
    assert_string_equal(u.events, "rs");
    un_loop_advance(loop, 1);
    assert_string_equal(u.out, "waited\n");
    drop(&u);
}

/* Answers what is asked, which must be `op`. */
static void give(struct user *u, uint32_t op, int32_t result, const char *data)
{
    un_loop_run_ready(loop);
    assert_int_equal(u->ask.op, op);
    u->ask.op = 0;
    u->inside = true;
    ops->vm_answer(u->vm, &(struct hv_answer){.result = result, .data = data});
    u->inside = false;
}

/* As make, with a user that answers asks. */
static void make_asked(struct user *u)
{
    static struct hv_vm_events asking;
    struct hv_vm_spec spec = {.mem_bytes = 64 * MIB, .events = &asking, .arg = u};
    struct un_error err = UN_ERROR_INIT;

    asking = events;
    asking.on_ask = on_ask;
    assert_int_equal(ops->vm_new(drv, &spec, &u->vm, &err), 0);
    un_loop_run_ready(loop);
}

static void a_guest_talks_over_a_connection(void **state)
{
    const char *argv[] = {"f", "net", "a.example:80", "ping", NULL};
    struct user u = {0};

    make_asked(&u);
    run_with(&u, argv, "", true);
    give(&u, UNID_OP_NET_OPEN, 4, NULL);
    assert_string_equal(u.asked, "a.example:80");
    give(&u, UNID_OP_NET_SEND, -EAGAIN, NULL);
    assert_string_equal(u.asked, "ping");
    un_loop_run_ready(loop);
    assert_int_equal(u.ask.op, UNID_OP_WAIT);
    ops->vm_net_ready(u.vm, 0, 1 << 4);
    give(&u, UNID_OP_NET_SEND, 4, NULL);
    assert_int_equal(u.ask.handle, 4);
    give(&u, UNID_OP_NET_SHUT, 0, NULL);
    give(&u, UNID_OP_NET_RECV, 2, "po");
    give(&u, UNID_OP_NET_RECV, 2, "ng");
    give(&u, UNID_OP_NET_RECV, 0, NULL);
    give(&u, UNID_OP_NET_CLOSE, 0, NULL);
    un_loop_run_ready(loop);
    assert_string_equal(u.out, "pong");
    assert_int_equal(u.exit.status, 0);
    drop(&u);
}

static void a_connection_that_is_refused_is_told(void **state)
{
    const char *argv[] = {"f", "net", "a.example:80", NULL};
    struct user asked = {0}, alone = {0};

    make_asked(&asked);
    run_with(&asked, argv, "", true);
    give(&asked, UNID_OP_NET_OPEN, -ECONNREFUSED, NULL);
    un_loop_run_ready(loop);
    assert_string_equal(asked.out, "error 111\n");
    assert_int_equal(asked.exit.status, 1);
    drop(&asked);
    make(&alone);
    un_loop_run_ready(loop);
    run_with(&alone, argv, "", true);
    un_loop_run_ready(loop);
    assert_string_equal(alone.out, "error 38\n");
    drop(&alone);
}

static void a_report_can_be_played(void **state)
{
    const char *argv[] = {"f", "unsupported", "57", "3", "101", "1", NULL};
    struct user u = {0};
    struct hv_usage usage;

    make(&u);
    un_loop_run_ready(loop);
    run_with(&u, argv, "", true);
    un_loop_run_ready(loop);
    assert_int_equal(u.exit.kind, HV_EXIT_DONE);
    ops->vm_usage(u.vm, &usage);
    assert_int_equal(usage.report.calls, 4);
    assert_int_equal(usage.report.unsupported_count, 2);
    assert_int_equal(usage.report.unsupported[1].number, 101);
    drop(&u);
}

static void every_kind_of_end_can_be_played(void **state)
{
    static const struct {
        const char *behaviour;
        enum hv_exit_kind kind;
    } cases[] = {
        {"crash", HV_EXIT_FAULT}, {"lost", HV_EXIT_LOST}, {"protocol", HV_EXIT_PROTOCOL},
        {"limit", HV_EXIT_LIMIT}, {"exit", HV_EXIT_DONE},
    };

    for (size_t i = 0; i < 5; i++) {
        struct user u = {0};

        make(&u);
        un_loop_run_ready(loop);
        run(&u, cases[i].behaviour);
        un_loop_run_ready(loop);
        assert_int_equal(u.exit.kind, cases[i].kind);
        drop(&u);
    }
}

static void free_in_any_state_gives_only_gone(void **state)
{
    struct fake_script slow = {.shell_us = 100, .start_us = 100};
    struct user a = {0}, b = {0}, c = {0}, d = {.free_on_output = true};

    fake_driver_script(drv, &slow);
    make(&a);
    drop(&a);
    assert_string_equal(a.events, "g");
    make(&b);
    un_loop_advance(loop, 100);
    drop(&b);
    assert_string_equal(b.events, "rg");
    make(&c);
    un_loop_advance(loop, 100);
    run(&c, "hello");
    drop(&c);
    assert_string_equal(c.events, "rg");
    make(&d);
    un_loop_advance(loop, 100);
    run(&d, "flood");
    un_loop_advance(loop, 1000);
    assert_string_equal(d.events, "rshog");
}

static void shell_that_fails_says_why(void **state)
{
    struct fake_script s = {.ready_rc = -EIO, .failures = 1};
    struct user a = {0}, b = {0};

    fake_driver_script(drv, &s);
    make(&a);
    make(&b);
    un_loop_run_ready(loop);
    assert_int_equal(a.ready_rc, -EIO);
    assert_int_equal(b.ready_rc, 0);
    drop(&a);
    drop(&b);
}

static void lost_processes_are_told_once(void **state)
{
    struct user shell = {0}, running = {0};

    make(&shell);
    make(&running);
    un_loop_run_ready(loop);
    run(&running, "spin");
    un_loop_run_ready(loop);
    assert_int_equal(fake_driver_lose_all(drv), 2);
    un_loop_run_ready(loop);
    assert_string_equal(shell.events, "rx");
    assert_string_equal(running.events, "rsx");
    assert_int_equal(shell.exit.kind, HV_EXIT_LOST);
    assert_int_equal(fake_driver_lose_all(drv), 0);
    drop(&shell);
    drop(&running);
}

static void wrong_images_are_refused_and_leave_the_shell(void **state)
{
    struct user u = {0};
    struct un_error err = UN_ERROR_INIT;
    struct hv_run_spec bad = {
        .image = (const uint8_t *)"#!/bin/sh", .image_len = 9, .mem_bytes = MIB};

    make(&u);
    un_loop_run_ready(loop);
    assert_int_equal(run_spec(&u, &bad, &err), -EINVAL);
    assert_non_null(strstr(err.text, "SDK image"));
    bad.mem_bytes = 65 * MIB;
    assert_int_equal(run_spec(&u, &bad, &err), -ENOMEM);
    assert_int_equal(run(&u, "hello"), 0);
    un_loop_run_ready(loop);
    assert_int_equal(u.exit.kind, HV_EXIT_DONE);
    drop(&u);
}

static void odd_memory_is_refused(void **state)
{
    struct hv_vm_spec spec = {.mem_bytes = 3 * MIB, .events = &events};
    struct un_error err = UN_ERROR_INIT;
    struct hv_vm *vm = NULL;

    assert_int_equal(ops->vm_new(drv, &spec, &vm, &err), -EINVAL);
    assert_null(vm);
}

static void on_probe(void *arg, const struct hv_probe *probe)
{
    assert_true(probe->usable);
    (*(int *)arg)++;
}

static void probe_answers_once_and_not_inside(void **state)
{
    int answers = 0;

    ops->probe(drv, on_probe, &answers);
    assert_int_equal(answers, 0);
    un_loop_run_ready(loop);
    assert_int_equal(answers, 1);
}

/* --- the contract that all drivers keep, in real time ----------------------------------------- */

static const uint8_t *contract_image(const char *name, size_t *ret_len)
{
    static uint8_t image[ELF_MAKER_SIZE];
    struct elf_maker elf = elf_maker_default();

    elf_maker_write(&elf, image);
    *ret_len = sizeof(image);
    return image;
}

static void in_real_time(void (*test)(struct contract *c))
{
    struct contract c = {.image = contract_image, .mem_bytes = 16 * MIB};
    struct hv_driver_spec spec = {0};
    struct un_error err = UN_ERROR_INIT;

    assert_int_equal(un_loop_new(&c.loop, &err), 0);
    spec.loop = c.loop;
    assert_int_equal(ops->open(&spec, &c.drv, &err), 0);
    test(&c);
    ops->close(c.drv);
    un_loop_free(c.loop);
}

static void keeps_the_contract_answers(void **state)
{
    in_real_time(contract_answers);
}

static void keeps_the_contract_streams_both_ways(void **state)
{
    in_real_time(contract_streams_both_ways);
}

static void keeps_the_contract_can_be_freed_in_every_state(void **state)
{
    in_real_time(contract_can_be_freed_in_every_state);
}

static void keeps_the_contract_four_run_at_once(void **state)
{
    in_real_time(contract_four_run_at_once);
}

static void keeps_the_contract_is_put_back_and_runs_again(void **state)
{
    in_real_time(contract_is_put_back_and_runs_again);
}

static void keeps_the_contract_runs_once(void **state)
{
    in_real_time(contract_runs_once);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(life_is_told_in_order),
        T(delays_are_those_of_the_script),
        T(guest_stands_still_until_its_output_is_answered),
        T(end_with_output_is_told_after_its_answer),
        T(body_is_asked_for_piece_by_piece),
        T(a_wait_passes_without_a_user_that_answers),
        T(a_guest_talks_over_a_connection),
        T(a_connection_that_is_refused_is_told),
        T(a_report_can_be_played),
        T(every_kind_of_end_can_be_played),
        T(free_in_any_state_gives_only_gone),
        T(shell_that_fails_says_why),
        T(lost_processes_are_told_once),
        T(wrong_images_are_refused_and_leave_the_shell),
        T(odd_memory_is_refused),
        T(probe_answers_once_and_not_inside),
        cmocka_unit_test(keeps_the_contract_answers),
        cmocka_unit_test(keeps_the_contract_streams_both_ways),
        cmocka_unit_test(keeps_the_contract_can_be_freed_in_every_state),
        cmocka_unit_test(keeps_the_contract_four_run_at_once),
        cmocka_unit_test(keeps_the_contract_is_put_back_and_runs_again),
        cmocka_unit_test(keeps_the_contract_runs_once),
    };

    return cmocka_run_group_tests_name("fake driver", tests, NULL, NULL);
}
