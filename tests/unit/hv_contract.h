/* hv_contract.h - what every driver must do (hypervisor/hv.h), as tests that run against any of
 * them.
 *
 * A driver's test file fills a `struct contract`, and calls contract_*() from its cmocka tests. The
 * recorder notes what a VM was told; contract_wait() runs the loop until something is so. */
#ifndef UNID_TESTS_HV_CONTRACT_H
#define UNID_TESTS_HV_CONTRACT_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/bytes.h"
#include "common/clock.h"
#include "common/loop.h"
#include "hypervisor/hv.h"

/* How long a first VM may take: a driver may have to get to know its hypervisor. */
enum { CONTRACT_READY_MS = 90000 };

struct contract {
    struct un_loop *loop;
    struct hv_driver *drv;
    /* Gives the image of an example function: hello, echo, spin; paging (tests/unit/guest_paging.c).
     * Kept for the test's life. */
    const uint8_t *(*image)(const char *name, size_t *ret_len);
    uint64_t mem_bytes;
};

/* One VM, and what came. */
struct contract_vm {
    struct contract *c;
    struct hv_vm *vm;
    struct hv_vm_events events;
    bool ready, started, exited, gone, input_wanted;
    const char *snapshot_key; /* for the run */
    const char *const *argv;  /* for the run; NULL: the function's name */
    bool hold_output;         /* output is not answered until the test does */
    int ready_rc;
    struct un_error ready_err;
    struct hv_exit why;
    struct hv_usage usage;
    unsigned status, heads, exits;
    struct un_buf output, log;
    const char *body;
    size_t body_len, body_at;
    uint64_t run_us, first_us, exit_us; /* when */
    unsigned waits, receives;           /* asks that came */
    struct un_timer net_timer;
};

static inline void contract_stop(void *arg)
{
    un_loop_stop(((struct contract *)arg)->loop);
}

/* Runs the loop until *flag, for at most `ms`; false when it did not come. */
static inline bool contract_wait(struct contract *c, const bool *flag, unsigned ms)
{
    struct un_timer timer = {0};
    uint64_t until = un_loop_now_us(c->loop) + ms * UINT64_C(1000);
    un_timer_init(&timer, c->loop, contract_stop, c);
    while (!*flag && un_loop_now_us(c->loop) < until) {
        un_timer_arm_at(&timer, until);
        un_loop_run(c->loop);
    }
    un_timer_cancel(&timer);
    return *flag;
}

static inline void contract_on_ready(void *arg, int rc, const struct un_error *err)
{
    struct contract_vm *v = arg;
    assert_false(v->ready);
    v->ready = true;
    v->ready_rc = rc;
    un_error_copy(&v->ready_err, err);
    un_loop_stop(v->c->loop);
}

static inline void contract_on_started(void *arg)
{
    struct contract_vm *v = arg;
    assert_false(v->started);
    v->started = true;
    un_loop_stop(v->c->loop);
}

static inline void contract_on_input_wanted(void *arg, size_t room)
{
    struct contract_vm *v = arg;
    v->input_wanted = true;
    size_t left = v->body_len - v->body_at, n = left < room ? left : room;
    const char *from = v->body + v->body_at;
    v->body_at += n;
    hv_vm_ops(v->vm)->vm_input(v->vm, from, n, v->body_at == v->body_len);
}

static inline void contract_on_head(void *arg, const struct hv_head *head)
{
    struct contract_vm *v = arg;
    assert_true(v->started);
    v->heads++;
    v->status = head->status;
    v->first_us = un_clock_mono_us();
}

static inline void contract_on_output(void *arg, const void *data, size_t len,
                                      const struct hv_exit *last)
{
    struct contract_vm *v = arg;
    assert_int_equal(v->heads, 1);
    assert_int_equal(un_buf_append(&v->output, data, len), 0);
    if (!v->hold_output) {
        hv_vm_ops(v->vm)->vm_output_done(v->vm);
    }
    un_loop_stop(v->c->loop);
}

static inline void contract_on_log(void *arg, const void *data, size_t len)
{
    struct contract_vm *v = arg;
    assert_int_equal(un_buf_append(&v->log, data, len), 0);
}

static inline void contract_on_exit(void *arg, const struct hv_exit *why)
{
    struct contract_vm *v = arg;
    v->exits++;
    v->exited = true;
    v->why = *why;
    v->exit_us = un_clock_mono_us();
    hv_vm_ops(v->vm)->vm_usage(v->vm, &v->usage);
    un_loop_stop(v->c->loop);
}

static inline void contract_on_gone(void *arg)
{
    struct contract_vm *v = arg;
    assert_false(v->gone);
    v->gone = true;
    un_loop_stop(v->c->loop);
}

static inline void contract_new(struct contract *c, struct contract_vm *v)
{
    *v = (struct contract_vm){.c = c,
                              .events = {.on_ready = contract_on_ready,
                                         .on_started = contract_on_started,
                                         .on_input_wanted = contract_on_input_wanted,
                                         .on_head = contract_on_head,
                                         .on_output = contract_on_output,
                                         .on_log = contract_on_log,
                                         .on_exit = contract_on_exit,
                                         .on_gone = contract_on_gone}};
    struct hv_vm_spec spec = {.mem_bytes = c->mem_bytes, .events = &v->events, .arg = v};
    struct un_error err = UN_ERROR_INIT;
    if (hv_driver_ops(c->drv)->vm_new(c->drv, &spec, &v->vm, &err) < 0) {
        fail_msg("vm_new: %s", err.text);
    }
    assert_false(v->ready);
}

static inline void contract_shell(struct contract *c, struct contract_vm *v)
{
    contract_new(c, v);
    assert_true(contract_wait(c, &v->ready, CONTRACT_READY_MS));
    if (v->ready_rc != 0) {
        fail_msg("on_ready: %s", v->ready_err.text);
    }
}

/* Gives the result of vm_run with `body`. */
static inline int contract_run(struct contract_vm *v, const char *function, const char *body,
                               struct un_error *err)
{
    static const char head[] = "POST / HTTP\r\n";
    const char *argv[] = {function, NULL}, *envp[] = {NULL};
    size_t len = 0, room = hv_body_room(sizeof(head) - 1);
    const uint8_t *image = v->c->image(function, &len);
    v->body = body;
    v->body_len = strlen(body);
    v->body_at = v->body_len < room ? v->body_len : room;
    struct hv_run_spec run = {.image = image,
                              .image_len = len,
                              .mem_bytes = v->c->mem_bytes,
                              .argv = v->argv ? v->argv : argv,
                              .envp = envp,
                              .invocation_id = "test",
                              .deadline_us = 10000000,
                              .request_head = head,
                              .request_head_len = sizeof(head) - 1,
                              .content_length = (int64_t)v->body_len,
                              .body = body,
                              .body_len = v->body_at,
                              .body_eof = v->body_at == v->body_len,
                              .snapshot_key = v->snapshot_key};
    v->run_us = un_clock_mono_us();
    int rc = hv_vm_ops(v->vm)->vm_run(v->vm, &run, err);
    assert_false(v->started);
    return rc;
}

static inline void contract_start(struct contract_vm *v, const char *function, const char *body)
{
    struct un_error err = UN_ERROR_INIT;
    if (contract_run(v, function, body, &err) < 0) {
        fail_msg("vm_run: %s", err.text);
    }
}

static inline void contract_free(struct contract_vm *v)
{
    unsigned exits = v->exits;
    hv_vm_ops(v->vm)->vm_free(v->vm);
    assert_false(v->gone);
    assert_true(contract_wait(v->c, &v->gone, 60000));
    assert_int_equal(v->exits, exits); /* after vm_free only on_gone comes */
    un_buf_done(&v->output);
    un_buf_done(&v->log);
}

/* The tests */

static inline void contract_answers(struct contract *c)
{
    struct contract_vm v;
    contract_shell(c, &v);
    contract_start(&v, "hello", "");
    assert_true(contract_wait(c, &v.exited, 60000));
    if (v.why.kind != HV_EXIT_DONE) {
        fail_msg("%s, vector %u, rip %#llx, address %#llx: %s", hv_exit_name(v.why.kind),
                 v.why.fault_vector, (unsigned long long)v.why.fault_rip,
                 (unsigned long long)v.why.fault_addr, v.why.detail);
    }
    assert_int_equal(v.why.status, 0);
    assert_int_equal(v.status, 200);
    assert_non_null(strstr((char *)v.output.data, "hello"));
    assert_true(v.usage.exits > 0);
    contract_free(&v);
}

static inline void contract_streams_both_ways(struct contract *c)
{
    enum { SIZE = 1500000 };
    struct contract_vm v;
    char *body = malloc(SIZE + 1);
    assert_non_null(body);
    for (size_t i = 0; i < SIZE; i++) {
        body[i] = (char)('a' + i * i % 23);
    }
    body[SIZE] = '\0';
    contract_shell(c, &v);
    contract_start(&v, "echo", body);
    assert_true(contract_wait(c, &v.exited, 60000));
    assert_int_equal(v.why.kind, HV_EXIT_DONE);
    assert_int_equal(v.output.len, SIZE);
    assert_memory_equal(v.output.data, body, SIZE);
    assert_true(v.input_wanted);
    contract_free(&v);
    free(body);
}

static inline void contract_can_be_freed_in_every_state(struct contract *c)
{
    struct contract_vm starting, shell, running, ended, answering;
    contract_new(c, &starting);
    contract_free(&starting);
    assert_false(starting.ready);
    contract_shell(c, &shell);
    contract_free(&shell);
    contract_shell(c, &running);
    contract_start(&running, "spin", "");
    contract_free(&running);
    contract_shell(c, &answering);
    answering.hold_output = true;
    contract_start(&answering, "hello", "");
    bool never = false;
    while (answering.output.len == 0) {
        contract_wait(c, &never, 50);
    }
    assert_false(answering.exited); /* output is still out */
    contract_free(&answering);
    contract_shell(c, &ended);
    contract_start(&ended, "hello", "");
    assert_true(contract_wait(c, &ended.exited, 60000));
    contract_free(&ended);
}

static inline void contract_four_run_at_once(struct contract *c)
{
    struct contract_vm v[4];
    for (int i = 0; i < 4; i++) {
        contract_new(c, &v[i]);
    }
    for (int i = 0; i < 4; i++) {
        assert_true(contract_wait(c, &v[i].ready, CONTRACT_READY_MS));
        assert_int_equal(v[i].ready_rc, 0);
    }
    for (int i = 0; i < 4; i++) {
        contract_start(&v[i], "hello", "");
    }
    for (int i = 0; i < 4; i++) {
        assert_true(contract_wait(c, &v[i].exited, 60000));
        assert_int_equal(v[i].why.kind, HV_EXIT_DONE);
    }
    for (int i = 0; i < 4; i++) {
        contract_free(&v[i]);
    }
}

struct contract_prepared {
    struct contract *c;
    bool answered;
    int rc;
};

static inline void contract_on_prepared(void *arg, int rc, const struct un_error *err,
                                        const void *log, size_t log_len,
                                        const struct unid_report *report)
{
    struct contract_prepared *p = arg;
    assert_false(p->answered);
    p->answered = true;
    p->rc = rc;
    un_loop_stop(p->c->loop);
}

/* argv[0] is the function. */
static inline void contract_prepare(struct contract *c, const char *const *argv, const char *key)
{
    const char *envp[] = {NULL};
    struct contract_prepared p = {.c = c};
    size_t len = 0;
    const uint8_t *image = c->image(argv[0], &len);
    struct hv_run_spec spec = {.image = image,
                               .image_len = len,
                               .mem_bytes = c->mem_bytes,
                               .argv = argv,
                               .envp = envp,
                               .snapshot_key = key};
    hv_driver_ops(c->drv)->prepare(c->drv, &spec, contract_on_prepared, &p);
    assert_false(p.answered);
    assert_true(contract_wait(c, &p.answered, 60000));
    assert_int_equal(p.rc, 0);
}

static inline void contract_recycle(struct contract_vm *v)
{
    struct un_error err = UN_ERROR_INIT;
    un_buf_reset(&v->output);
    v->ready = v->started = v->exited = false;
    v->heads = v->exits = 0;
    assert_int_equal(hv_vm_ops(v->vm)->vm_recycle(v->vm, &err), 0);
    assert_false(v->ready);
    assert_true(contract_wait(v->c, &v->ready, 60000));
    assert_int_equal(v->ready_rc, 0);
}

/* For drivers with vm_recycle. */
static inline void contract_is_put_back_and_runs_again(struct contract *c)
{
    struct contract_vm v;
    struct un_error err = UN_ERROR_INIT;
    contract_prepare(c, (const char *const[]){"hello", NULL}, "contract-hello");
    contract_shell(c, &v);
    v.snapshot_key = "contract-hello";
    assert_int_equal(hv_vm_ops(v.vm)->vm_recycle(v.vm, &err), -EINVAL); /* it has not run */
    for (int run = 0; run < 3; run++) {
        contract_start(&v, "hello", "");
        assert_true(contract_wait(c, &v.exited, 60000));
        assert_int_equal(v.why.kind, HV_EXIT_DONE);
        assert_non_null(strstr((char *)v.output.data, "hello"));
        contract_recycle(&v);
    }
    v.snapshot_key = "another";
    assert_int_equal(contract_run(&v, "hello", "", &err), -EINVAL);
    contract_free(&v);
}

/* --- guest contract 1.1: tests/unit/guest_paging.c -------------------------------------------- */

/* Runs the paging guest in a shell to its end, which must be `answer`. */
static inline void contract_paging_run(struct contract_vm *v, const char *const *argv,
                                       const char *answer)
{
    v->argv = argv;
    contract_start(v, "paging", "");
    assert_true(contract_wait(v->c, &v->exited, 60000));
    if (v->why.kind != HV_EXIT_DONE || v->why.status != 0 ||
        (answer &&
         (v->output.len != strlen(answer) || memcmp(v->output.data, answer, v->output.len) != 0))) {
        fail_msg("%s %s: %s, status %d, rip %#llx, address %#llx, %s: %.*s", argv[0], argv[1],
                 hv_exit_name(v->why.kind), v->why.status, (unsigned long long)v->why.fault_rip,
                 (unsigned long long)v->why.fault_addr, v->why.detail, (int)v->output.len,
                 v->output.data ? (char *)v->output.data : "");
    }
}

static inline void contract_a_guest_writes_its_own_page_tables(struct contract *c)
{
    static const char *const argv[] = {"paging", "paging", NULL};
    struct contract_vm v;
    contract_shell(c, &v);
    contract_paging_run(&v, argv, "ok");
    contract_free(&v);
}

static inline void contract_system_calls_are_faults_with_a_name(struct contract *c)
{
    static const char *const cases[][2] = {{"syscall", "(syscall)"},
                                           {"sysenter", "executed sysenter at"},
                                           {"int80", "executed int 0x80 at"}};
    for (size_t i = 0; i < 3; i++) {
        const char *const argv[] = {"paging", cases[i][0], NULL};
        struct contract_vm v;
        contract_shell(c, &v);
        v.argv = argv;
        contract_start(&v, "paging", "");
        assert_true(contract_wait(c, &v.exited, 60000));
        assert_int_equal(v.why.kind, HV_EXIT_FAULT);
        if (!strstr(v.why.detail, cases[i][1]) || !strstr(v.why.detail, "0x600000000123")) {
            fail_msg("%s: vector %u at %#llx: %s", cases[i][0], v.why.fault_vector,
                     (unsigned long long)v.why.fault_rip, v.why.detail);
        }
        contract_free(&v);
    }
}

static inline void contract_time_passes(struct contract *c)
{
    static const char *const argv[] = {"paging", "wait", "30000000", NULL};
    struct contract_vm v;
    contract_shell(c, &v);
    contract_paging_run(&v, argv, "ok");
    assert_in_range(v.exit_us - v.run_us, 30000, 60000000);
    contract_free(&v);
}

static inline void contract_on_net_timer(void *arg)
{
    struct contract_vm *v = arg;
    hv_vm_ops(v->vm)->vm_net_ready(v->vm, UINT64_C(1) << 5, UINT64_C(1) << 5);
}

/* The other side of guest_paging.c's `net`. */
static inline int32_t contract_net_result(struct contract_vm *v, const struct hv_ask *ask)
{
    static const char name[] = "good.example:80";
    switch (ask->op) {
    case UNID_OP_NET_RESOLVE:
        return ask->len == 12 && memcmp(ask->data, name, 12) == 0 ? 0 : -ECONNREFUSED;
    case UNID_OP_NET_OPEN:
        return ask->len == 15 && memcmp(ask->data, name, 15) == 0 ? 5 : -EINVAL;
    case UNID_OP_NET_SEND:
        return ask->handle == 5 && ask->len == 4 && memcmp(ask->data, "ping", 4) == 0 ? 4 : -EIO;
    case UNID_OP_NET_RECV:
        return v->receives == 0 ? -EAGAIN : v->receives == 1 ? 4 : 0;
    default:
        return ask->handle == 5 ? 0 : -EBADF;
    }
}

static inline void contract_on_ask(void *arg, const struct hv_ask *ask)
{
    struct contract_vm *v = arg;
    const struct hv_driver_ops *ops = hv_vm_ops(v->vm);
    struct hv_answer answer = {.data = "pong"};
    if (ask->op == UNID_OP_WAIT) {
        assert_int_equal(ask->wait_ns, UINT64_C(10000000000));
        if (v->waits++ == 0) {
            ops->vm_net_ready(v->vm, 0, UINT64_C(1) << 5); /* from inside of the event */
            return;
        }
        un_timer_init(&v->net_timer, v->c->loop, contract_on_net_timer, v);
        assert_int_equal(un_timer_arm_in(&v->net_timer, 5000), 0);
        return;
    }
    answer.result = contract_net_result(v, ask);
    v->receives += ask->op == UNID_OP_NET_RECV;
    ops->vm_answer(v->vm, &answer);
}

static inline void contract_connections_are_asked_of_the_user(struct contract *c)
{
    static const char *const argv[] = {"paging", "net", NULL};
    struct contract_vm v;
    contract_shell(c, &v);
    v.events.on_ask = contract_on_ask;
    contract_paging_run(&v, argv, "ok");
    assert_int_equal(v.waits, 2);
    assert_int_equal(v.receives, 3);
    assert_true(v.exit_us - v.run_us < 10000000); /* no WAIT took its whole time */
    contract_free(&v);
}

static inline void contract_the_report_is_read_at_the_end(struct contract *c)
{
    static const char *const honest[] = {"paging", "report", "1", NULL}, *const liar[] = {
                                                                             "paging", "report",
                                                                             "4000000000", NULL};
    for (int i = 0; i < 2; i++) {
        struct contract_vm v;
        contract_shell(c, &v);
        contract_paging_run(&v, i ? liar : honest, "ok");
        assert_int_equal(v.usage.report.calls, 1234);
        assert_int_equal(v.usage.report.unsupported_count, i ? UNID_REPORT_CALLS : 1);
        assert_int_equal(v.usage.report.unsupported[0].number, 57);
        assert_int_equal(v.usage.report.unsupported[0].times, 3);
        contract_free(&v);
    }
}

/* Without on_ask; where there are snapshots, also while one is made. */
static inline void contract_asks_without_a_user_are_answered(struct contract *c)
{
    static const char *const argv[] = {"paging", "early", NULL};
    struct contract_vm v;
    if (hv_driver_ops(c->drv)->prepare) {
        contract_prepare(c, argv, "contract-early");
    }
    contract_shell(c, &v);
    v.snapshot_key = "contract-early";
    contract_paging_run(&v, argv, "ok");
    contract_free(&v);
}

/* A guest that maps what is not its memory ends, and only it. */
static inline void contract_physical_addresses_outside_of_memory_are_faults(struct contract *c)
{
    static const char *const places[] = {"16777216", "33554432", "4275040256", "68719472640",
                                         "4503599627366400"};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const char *const argv[] = {"paging", "physical", places[i], NULL};
        struct contract_vm v;
        struct contract larger = *c;
        larger.mem_bytes *= 2; /* the shell's; the guest has a half of it */
        contract_shell(&larger, &v);
        v.c = c;
        v.argv = argv;
        contract_start(&v, "paging", "");
        assert_true(contract_wait(c, &v.exited, 60000));
        if (v.why.kind != HV_EXIT_FAULT) {
            fail_msg("%s: %s: %s", places[i], hv_exit_name(v.why.kind), v.why.detail);
        }
        contract_free(&v);
    }
    contract_answers(c);
}

/* For drivers with vm_recycle: what it mapped, and its segment bases, are part of the snapshot. */
static inline void contract_page_tables_and_segment_bases_are_snapshotted(struct contract *c)
{
    static const char *const argv[] = {"paging", "paging", NULL};
    struct contract_vm v;
    contract_prepare(c, argv, "contract-paging");
    contract_shell(c, &v);
    v.snapshot_key = "contract-paging";
    for (int run = 0; run < 3; run++) {
        contract_paging_run(&v, argv, "ok");
        contract_recycle(&v);
    }
    contract_free(&v);
}

static inline void contract_runs_once(struct contract *c)
{
    struct contract_vm v;
    struct un_error err = UN_ERROR_INIT;
    contract_shell(c, &v);
    contract_start(&v, "hello", "");
    bool never = false;
    struct hv_run_spec none = {.mem_bytes = c->mem_bytes};
    assert_int_not_equal(hv_vm_ops(v.vm)->vm_run(v.vm, &none, &err), 0);
    (void)never;
    assert_true(contract_wait(c, &v.exited, 60000));
    contract_free(&v);
}

#endif
