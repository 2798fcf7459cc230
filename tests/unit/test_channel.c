/* test_channel.c - a scripted guest in plain memory against the host's side of the channel: the
 * honest course of a request, what a hostile guest may try, and the response head's parser. */
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
#include "common/cleanup.h"
#include "common/limits.h"
#include "hypervisor/channel.h"

#define SHARED_SIZE (UNID_CHANNEL_END - UNID_BOOT_ADDR)

/* Everything that happens is noted in `trace`, a word each. */
struct fixture {
    uint8_t *shared;
    struct hv_channel ch;
    struct un_buf trace, output, log, fields;
    struct hv_exit last, why;
    unsigned status;
    size_t room;
    bool free_in_log, answer_at_once;
    const char *answer_input;
};

static struct unid_call *call_of(struct fixture *f)
{
    return (struct unid_call *)(void *)(f->shared + (UNID_CALL_ADDR - UNID_BOOT_ADDR));
}

static char *window(struct fixture *f, uint64_t addr)
{
    return (char *)f->shared + (addr - UNID_BOOT_ADDR);
}

static void note(struct fixture *f, const char *word)
{
    assert_int_equal(un_buf_printf(&f->trace, "%s%s", f->trace.len ? " " : "", word), 0);
}

static void assert_trace(struct fixture *f, const char *want)
{
    assert_string_equal(f->trace.data ? (char *)f->trace.data : "", want);
    un_buf_reset(&f->trace);
}

static void on_input_wanted(void *arg, size_t room)
{
    struct fixture *f = arg;
    note(f, "input?");
    f->room = room;
    if (f->answer_input) {
        hv_channel_input(&f->ch, f->answer_input, strlen(f->answer_input), false);
    }
}

static void on_head(void *arg, const struct hv_head *head)
{
    struct fixture *f = arg;
    note(f, "head");
    f->status = head->status;
    for (size_t i = 0; i < head->field_count; i++) {
        un_buf_printf(&f->fields, "%s=%s;", head->fields[i].name, head->fields[i].value);
    }
}

static void on_output(void *arg, const void *data, size_t len, const struct hv_exit *last)
{
    struct fixture *f = arg;
    note(f, last ? "last" : "output");
    assert_int_equal(un_buf_append(&f->output, data, len), 0);
    if (last) {
        f->last = *last;
    }
    if (f->answer_at_once) {
        hv_channel_output_done(&f->ch);
    }
}

static void on_log(void *arg, const void *data, size_t len)
{
    struct fixture *f = arg;
    note(f, "log");
    assert_int_equal(un_buf_append(&f->log, data, len), 0);
    if (f->free_in_log) {
        hv_channel_done(&f->ch);
    }
}

static void on_exit_event(void *arg, const struct hv_exit *why)
{
    struct fixture *f = arg;
    note(f, "exit");
    f->why = *why;
}

static const struct hv_vm_events events = {.on_input_wanted = on_input_wanted,
                                           .on_head = on_head,
                                           .on_output = on_output,
                                           .on_log = on_log,
                                           .on_exit = on_exit_event};

static void resume(void *arg)
{
    note(arg, "resume");
}

static void ended(void *arg, const struct hv_exit *why)
{
    note(arg, "ended");
}

static void exit_due(void *arg)
{
    note(arg, "due");
}

static void next_wanted(void *arg)
{
    note(arg, "next?");
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->shared = calloc(1, SHARED_SIZE);
    assert_non_null(f->shared);
    hv_channel_init(&f->ch, f->shared, &events, f);
    f->ch.resume = resume;
    f->ch.ended = ended;
    f->ch.exit_due = exit_due;
    f->ch.next_wanted = next_wanted;
    f->ch.driver_arg = f;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    un_buf_done(&f->trace);
    un_buf_done(&f->output);
    un_buf_done(&f->log);
    un_buf_done(&f->fields);
    free(f->shared);
    free(f);
    return 0;
}

static struct hv_run_spec request(const char *body, bool eof)
{
    return (struct hv_run_spec){.request_head = "GET /\r\n",
                                .request_head_len = 7,
                                .invocation_id = "id-1",
                                .deadline_us = 5,
                                .content_length = -1,
                                .body = body,
                                .body_len = strlen(body),
                                .body_eof = eof};
}

static void put(struct fixture *f, const char *body, bool eof)
{
    struct hv_run_spec spec = request(body, eof);
    assert_int_equal(hv_channel_put_request(&f->ch, &spec, NULL), 0);
}

/* The guest's side of a call, up to the doorbell. */
static void ring(struct fixture *f, uint32_t op)
{
    struct unid_call *c = call_of(f);
    c->op = op;
    c->seq++;
    hv_channel_ring(&f->ch);
}

static void ring_output(struct fixture *f, uint32_t op, const char *head, const char *body)
{
    struct unid_call *c = call_of(f);
    char *w = window(f, UNID_RESPONSE_ADDR);
    memcpy(w, head, strlen(head));
    memcpy(w + strlen(head), body, strlen(body));
    c->head_len = (uint32_t)strlen(head);
    c->response_len = (uint32_t)(strlen(head) + strlen(body));
    ring(f, op);
}

static bool answered(struct fixture *f)
{
    return call_of(f)->ack == call_of(f)->seq;
}

/* The guest must have been ended for breaking the contract, and nothing else happened. */
static void assert_protocol_end(struct fixture *f, const char *detail)
{
    assert_trace(f, "ended due");
    hv_channel_exit(&f->ch);
    assert_trace(f, "exit");
    assert_int_equal(f->why.kind, HV_EXIT_PROTOCOL);
    if (!strstr(f->why.detail, detail)) {
        fail_msg("'%s' is not in '%s'", detail, f->why.detail);
    }
    hv_channel_ring(&f->ch);
    hv_channel_exit(&f->ch);
    hv_channel_output_done(&f->ch);
    hv_channel_end(&f->ch, &f->why);
    assert_trace(f, "");
}

/* --- the honest course ------------------------------------------------------------------------ */

static void a_request_is_written_as_the_contract_says(void **state)
{
    struct fixture *f = *state;
    put(f, "body", true);
    struct unid_call *c = call_of(f);
    assert_memory_equal(window(f, UNID_REQUEST_ADDR), "GET /\r\nbody", 11);
    assert_int_equal(c->request_head_len, 7);
    assert_int_equal(c->request_len, 4);
    assert_int_equal(c->flags, UNID_CALL_EOF);
    assert_int_equal(c->content_length, UNID_LENGTH_UNKNOWN);
    assert_int_equal(c->deadline_ns, 5000);
    assert_true(c->wall_ns > UINT64_C(1600000000000000000));
    assert_string_equal((char *)c->invocation_id, "id-1");
    static const uint8_t zeros[UNID_ENTROPY_SIZE];
    assert_memory_not_equal(c->entropy, zeros, sizeof(zeros));
    assert_int_equal(c->ack, 0);
    assert_trace(f, "");
}

static void a_guest_that_asks_waits_until_the_request_is_there(void **state)
{
    struct fixture *f = *state;
    ring(f, UNID_OP_NEXT);
    assert_trace(f, "next?");
    assert_false(answered(f));
    put(f, "", true);
    assert_trace(f, "resume");
    assert_true(answered(f));
}

static void body_bytes_arrive_behind_the_head_until_the_end(void **state)
{
    struct fixture *f = *state;
    put(f, "12", false);
    ring(f, UNID_OP_READ);
    assert_trace(f, "input?");
    assert_int_equal(f->room, UNID_REQUEST_SIZE - 7);
    assert_false(answered(f));
    hv_channel_input(&f->ch, "345", 3, false);
    assert_trace(f, "resume");
    assert_true(answered(f));
    assert_memory_equal(window(f, UNID_REQUEST_ADDR), "GET /\r\n345", 10);
    assert_int_equal(call_of(f)->request_len, 3);
    assert_int_equal(call_of(f)->flags, 0);
    ring(f, UNID_OP_READ);
    hv_channel_input(&f->ch, NULL, 0, true);
    assert_int_equal(call_of(f)->request_len, 0);
    assert_int_equal(call_of(f)->flags, UNID_CALL_EOF);
    un_buf_reset(&f->trace);
    ring(f, UNID_OP_READ); /* behind the end: answered here, the user is not asked */
    assert_trace(f, "resume");
    assert_int_equal(call_of(f)->flags, UNID_CALL_EOF);
}

static void input_may_be_given_from_inside_the_event(void **state)
{
    struct fixture *f = *state;
    f->answer_input = "now";
    put(f, "", false);
    ring(f, UNID_OP_READ);
    assert_trace(f, "input? resume");
    assert_true(answered(f));
}

static void input_that_nobody_asked_for_is_ignored(void **state)
{
    struct fixture *f = *state;
    put(f, "x", false);
    hv_channel_input(&f->ch, "evil", 4, true);
    assert_int_equal(call_of(f)->request_len, 1);
    assert_trace(f, "");
}

static void input_longer_than_the_room_is_cut(void **state)
{
    struct fixture *f = *state;
    put(f, "", false);
    un_autofree char *much = calloc(1, UNID_REQUEST_SIZE);
    assert_non_null(much);
    ring(f, UNID_OP_READ);
    hv_channel_input(&f->ch, much, UNID_REQUEST_SIZE, false);
    assert_int_equal(call_of(f)->request_len, UNID_REQUEST_SIZE - 7);
}

static void the_guest_stands_still_while_its_output_is_out(void **state)
{
    struct fixture *f = *state;
    put(f, "", true);
    ring_output(f, UNID_OP_WRITE, "201\r\nA: b\r\n", "hello ");
    assert_trace(f, "head output");
    assert_int_equal(f->status, 201);
    assert_string_equal((char *)f->fields.data, "A=b;");
    assert_false(answered(f));
    hv_channel_output_done(&f->ch);
    assert_trace(f, "resume");
    assert_true(answered(f));
    hv_channel_output_done(&f->ch); /* once too often */
    assert_trace(f, "");
    ring_output(f, UNID_OP_WRITE, "", "world");
    assert_trace(f, "output");
    assert_string_equal((char *)f->output.data, "hello world");
}

static void the_end_is_told_with_the_last_bytes_and_again_by_exit(void **state)
{
    struct fixture *f = *state;
    put(f, "", true);
    call_of(f)->status = 3;
    ring_output(f, UNID_OP_DONE, "", "bye");
    assert_trace(f, "head ended last");
    assert_int_equal(f->status, 200);
    assert_int_equal(f->last.kind, HV_EXIT_DONE);
    assert_int_equal(f->last.status, 3);
    hv_channel_exit(&f->ch); /* not due yet */
    assert_trace(f, "");
    hv_channel_output_done(&f->ch);
    assert_trace(f, "due"); /* no event from inside output_done */
    hv_channel_exit(&f->ch);
    assert_trace(f, "exit");
    assert_int_equal(f->why.status, 3);
    assert_false(answered(f));
    hv_channel_exit(&f->ch);
    assert_trace(f, "");
}

static void output_may_be_answered_from_inside_the_event(void **state)
{
    struct fixture *f = *state;
    f->answer_at_once = true;
    put(f, "", true);
    ring_output(f, UNID_OP_WRITE, "", "a");
    assert_trace(f, "head output resume");
    ring_output(f, UNID_OP_DONE, "", "b");
    assert_trace(f, "ended last due");
}

static void an_end_without_output_still_gives_the_head(void **state)
{
    struct fixture *f = *state;
    put(f, "", true);
    ring_output(f, UNID_OP_DONE, "204\r\n", "");
    assert_trace(f, "head ended due");
    assert_int_equal(f->status, 204);
}

static void a_head_alone_is_answered_at_once(void **state)
{
    struct fixture *f = *state;
    put(f, "", true);
    ring_output(f, UNID_OP_WRITE, "200\r\n", "");
    assert_trace(f, "head resume");
    ring_output(f, UNID_OP_WRITE, "", "");
    assert_trace(f, "resume");
}

static void log_travels_with_any_call_and_only_once(void **state)
{
    struct fixture *f = *state;
    put(f, "", true);
    memcpy(window(f, UNID_LOG_ADDR), "one\n", 4);
    call_of(f)->log_len = 4;
    ring(f, UNID_OP_LOG);
    assert_trace(f, "log resume");
    assert_int_equal(call_of(f)->log_len, 0);
    struct hv_exit why = {.kind = HV_EXIT_LOST};
    hv_channel_end(&f->ch, &why);
    assert_trace(f, "due");
    assert_string_equal((char *)f->log.data, "one\n");
}

static void log_left_behind_by_a_fault_is_handed_out(void **state)
{
    struct fixture *f = *state;
    put(f, "", true);
    memset(window(f, UNID_LOG_ADDR), 'x', UNID_LOG_SIZE);
    call_of(f)->log_len = UNID_LOG_SIZE;
    struct hv_exit why = {.kind = HV_EXIT_FAULT, .fault_addr = 0x10};
    hv_channel_end(&f->ch, &why);
    assert_int_equal(f->log.len, UNID_LOG_SIZE);
    un_buf_reset(&f->trace);
    hv_channel_exit(&f->ch);
    assert_trace(f, "exit");
    assert_int_equal(f->why.kind, HV_EXIT_FAULT);
    assert_int_equal(f->why.fault_addr, 0x10);
}

static void a_log_length_that_lies_at_the_end_is_ignored(void **state)
{
    struct fixture *f = *state;
    put(f, "", true);
    call_of(f)->log_len = UNID_LOG_SIZE + 1;
    struct hv_exit why = {.kind = HV_EXIT_FAULT};
    hv_channel_end(&f->ch, &why);
    assert_trace(f, "due");
}

static void a_repeated_ring_is_ignored(void **state)
{
    struct fixture *f = *state;
    put(f, "", true);
    hv_channel_ring(&f->ch); /* no call at all */
    assert_trace(f, "");
    ring_output(f, UNID_OP_WRITE, "", "a");
    un_buf_reset(&f->trace);
    hv_channel_ring(&f->ch);
    assert_trace(f, "");
    assert_int_equal(f->ch.calls, 1);
}

static void nothing_comes_after_the_vm_was_freed_inside_an_event(void **state)
{
    struct fixture *f = *state;
    f->free_in_log = true;
    put(f, "", true);
    call_of(f)->log_len = 5;
    ring_output(f, UNID_OP_DONE, "", "output");
    assert_trace(f, "log");
    hv_channel_output_done(&f->ch);
    hv_channel_exit(&f->ch);
    assert_trace(f, "");
}

static void a_vm_lost_with_output_out_ends_at_once(void **state)
{
    struct fixture *f = *state;
    put(f, "", true);
    ring_output(f, UNID_OP_WRITE, "", "a");
    un_buf_reset(&f->trace);
    struct hv_exit why = {.kind = HV_EXIT_LOST, .detail = "killed"};
    hv_channel_end(&f->ch, &why);
    assert_trace(f, "due");
    hv_channel_output_done(&f->ch);
    assert_trace(f, "");
    hv_channel_exit(&f->ch);
    assert_trace(f, "exit");
    assert_string_equal(f->why.detail, "killed");
}

static void a_request_that_does_not_fit_is_refused(void **state)
{
    struct fixture *f = *state;
    struct un_error err = UN_ERROR_INIT;
    un_autofree char *much = calloc(1, UNID_REQUEST_SIZE + 1);
    assert_non_null(much);
    struct hv_run_spec spec = request("", true);
    spec.request_head = much;
    spec.request_head_len = UNID_REQUEST_HEAD_MAX + 1;
    assert_int_equal(hv_channel_put_request(&f->ch, &spec, &err), -E2BIG);
    spec = request("", true);
    spec.body = much;
    spec.body_len = hv_body_room(spec.request_head_len) + 1;
    assert_int_equal(hv_channel_put_request(&f->ch, &spec, &err), -E2BIG);
    spec = request("", true);
    spec.invocation_id = "12345678901234567890123456789012";
    assert_int_equal(hv_channel_put_request(&f->ch, &spec, &err), -EINVAL);
    spec = request("", true);
    spec.body = much;
    spec.body_len = hv_body_room(spec.request_head_len);
    assert_int_equal(hv_channel_put_request(&f->ch, &spec, &err), 0);
    assert_int_equal(hv_channel_put_request(&f->ch, &spec, &err), -EALREADY);
}

/* --- asks ------------------------------------------------------------------------------------- */

static struct hv_ask asked;

static void on_ask(void *arg, const struct hv_ask *ask)
{
    note(arg, "ask");
    asked = *ask;
}

/* The same channel with a user that answers asks. */
static struct unid_call *with_asks(struct fixture *f)
{
    static struct hv_vm_events asking;
    asking = events;
    asking.on_ask = on_ask;
    f->ch.events = &asking;
    asked = (struct hv_ask){0};
    put(f, "", true);
    return call_of(f);
}

static void give(struct fixture *f, int32_t result, const void *data)
{
    hv_channel_answer(&f->ch, &(struct hv_answer){.result = result, .data = data});
}

static void an_ask_waits_for_its_answer(void **state)
{
    struct fixture *f = *state;
    struct unid_call *c = with_asks(f);
    give(f, 3, NULL); /* nobody asked */
    memcpy(window(f, UNID_NET_ADDR), "data", 4);
    c->net_handle = 63;
    c->net_len = 4;
    ring(f, UNID_OP_NET_SEND);
    assert_trace(f, "ask");
    assert_int_equal(asked.op, UNID_OP_NET_SEND);
    assert_int_equal(asked.handle, 63);
    assert_int_equal(asked.len, 4);
    assert_memory_equal(asked.data, "data", 4);
    give(f, 3, NULL);
    give(f, 2, NULL);
    assert_trace(f, "resume");
    assert_true(answered(f));
    assert_int_equal(c->net_result, 3);
}

static void received_bytes_are_no_more_than_were_asked_for(void **state)
{
    struct fixture *f = *state;
    struct unid_call *c = with_asks(f);
    c->net_len = 3;
    ring(f, UNID_OP_NET_RECV);
    assert_int_equal(asked.len, 3);
    c->net_len = 100; /* it may change its mind: the first word counts */
    give(f, 5, "abcde");
    assert_int_equal(c->net_result, 3);
    assert_memory_equal(window(f, UNID_NET_ADDR), "abc\0\0", 5);
    ring(f, UNID_OP_NET_RECV);
    give(f, -EAGAIN, NULL);
    assert_int_equal(c->net_result, -EAGAIN);
    assert_trace(f, "ask resume ask resume");
}

static void names_are_copied_and_short(void **state)
{
    struct fixture *f = *state;
    struct unid_call *c = with_asks(f);
    memset(window(f, UNID_NET_ADDR), 'a', LIMIT_NET_NAME_BYTES + 1);
    c->net_len = LIMIT_NET_NAME_BYTES;
    ring(f, UNID_OP_NET_OPEN);
    assert_trace(f, "ask");
    memset(window(f, UNID_NET_ADDR), 'b', LIMIT_NET_NAME_BYTES + 1);
    assert_int_equal(asked.len, LIMIT_NET_NAME_BYTES);
    assert_int_equal(strspn(asked.data, "a"), LIMIT_NET_NAME_BYTES);
    give(f, 0, NULL);
    c->net_len = LIMIT_NET_NAME_BYTES + 1;
    ring(f, UNID_OP_NET_RESOLVE);
    assert_trace(f, "resume resume");
    assert_int_equal(c->net_result, -ENAMETOOLONG);
}

static void handles_that_cannot_be_are_answered_at_once(void **state)
{
    static const uint32_t ops[] = {UNID_OP_NET_SEND, UNID_OP_NET_RECV, UNID_OP_NET_SHUT,
                                   UNID_OP_NET_CLOSE};
    struct fixture *f = *state;
    struct unid_call *c = with_asks(f);
    for (size_t i = 0; i < UN_ARRAY_SIZE(ops); i++) {
        c->net_handle = i ? 64 : UINT32_MAX;
        ring(f, ops[i]);
        assert_trace(f, "resume");
        assert_int_equal(c->net_result, -EBADF);
    }
}

static void a_wait_ends_with_what_the_guest_was_not_told(void **state)
{
    struct fixture *f = *state;
    struct unid_call *c = with_asks(f);
    c->wait_ns = 1000;
    ring(f, UNID_OP_WAIT);
    assert_int_equal(asked.wait_ns, 1000);
    hv_channel_net_ready(&f->ch, 2, 0);
    assert_trace(f, "ask resume");
    assert_int_equal(c->net_readable, 2);
    ring(f, UNID_OP_WAIT); /* it knows of that bit */
    hv_channel_net_ready(&f->ch, 0, 0);
    hv_channel_net_ready(&f->ch, 2, 0);
    assert_false(answered(f));
    hv_channel_net_ready(&f->ch, 2, UINT64_C(1) << 63);
    assert_trace(f, "ask resume");
    assert_int_equal(c->net_writable, UINT64_C(1) << 63);
    hv_channel_net_ready(&f->ch, 3, 0); /* between two calls */
    ring(f, UNID_OP_WAIT);
    assert_trace(f, "resume");
    assert_int_equal(c->net_readable, 3);
    assert_int_equal(c->net_writable, 0);
    c->wait_ns = 0;
    ring(f, UNID_OP_WAIT);
    assert_trace(f, "resume");
}

static void asks_that_nobody_takes_are_answered_at_once(void **state)
{
    struct fixture *f = *state;
    put(f, "", true);
    for (uint32_t op = UNID_OP_WAIT; op <= UNID_OP_NET_CLOSE; op++) {
        call_of(f)->wait_ns = 5;
        ring(f, op);
        assert_trace(f, "resume");
        assert_int_equal(call_of(f)->net_result, -ENOSYS);
    }
}

static void an_answer_after_the_end_is_ignored(void **state)
{
    struct fixture *f = *state;
    with_asks(f);
    ring(f, UNID_OP_NET_SHUT);
    hv_channel_end(&f->ch, &(struct hv_exit){.kind = HV_EXIT_LOST});
    give(f, 0, NULL);
    hv_channel_net_ready(&f->ch, 1, 1);
    assert_trace(f, "ask due");
}

static void a_net_length_behind_its_window_ends_the_guest(void **state)
{
    for (uint32_t op = UNID_OP_NET_RESOLVE; op <= UNID_OP_NET_CLOSE; op++) {
        void *each = NULL;
        set_up(&each);
        struct fixture *f = each;
        with_asks(f);
        call_of(f)->net_len = UNID_NET_SIZE + 1;
        ring(f, op);
        assert_protocol_end(f, "net length");
        tear_down(&each);
    }
}

static void a_report_is_cut_to_its_bounds(void **state)
{
    struct fixture *f = *state;
    struct unid_report r, *theirs = (void *)window(f, UNID_REPORT_ADDR);
    hv_channel_report(&f->ch, &r);
    assert_int_equal(r.calls, 0);
    memset(theirs, 0xff, sizeof(*theirs));
    hv_channel_report(&f->ch, &r);
    assert_int_equal(r.unsupported_count, UNID_REPORT_CALLS);
    theirs->unsupported_count = 1;
    hv_channel_report(&f->ch, &r);
    assert_int_equal(r.unsupported_count, 1);
    assert_int_equal(r.unsupported[0].number, UINT32_MAX);
    assert_int_equal(r.unsupported[1].times, 0);
}

/* --- hostile guests --------------------------------------------------------------------------- */

/* A program that fails at its start is told by its status, not as a broken guest. */
static void a_failure_before_the_request_is_an_end(void **state)
{
    struct fixture *f = *state;
    call_of(f)->status = 3;
    ring(f, UNID_OP_DONE);
    assert_trace(f, "due");
    hv_channel_exit(&f->ch);
    assert_trace(f, "exit");
    assert_int_equal(f->why.kind, HV_EXIT_DONE);
    assert_int_equal(f->why.status, 3);
}

static void hostile_calls_end_the_guest(void **state)
{
    static const struct {
        bool request;
        uint32_t op, response_len, head_len, log_len;
        const char *detail;
    } cases[] = {
        {false, UNID_OP_READ, 0, 0, 0, "before it took the request"},
        {false, UNID_OP_WRITE, 5, 0, 0, "before it took the request"},
        {false, UNID_OP_DONE, 0, 0, 0, "before it took the request"},
        {true, UNID_OP_NEXT, 0, 0, 0, "second request"},
        {true, 0, 0, 0, 0, "unknown operation"},
        {true, UNID_OP_NET_CLOSE + 1, 0, 0, 0, "unknown operation"},
        {true, UNID_OP_WAIT, 0, 0, UNID_LOG_SIZE + 1, "log length"},
        {true, UINT32_MAX, 0, 0, 0, "unknown operation"},
        {true, UNID_OP_LOG, 0, 0, UNID_LOG_SIZE + 1, "log length"},
        {true, UNID_OP_READ, 0, 0, UINT32_MAX, "log length"},
        {true, UNID_OP_WRITE, UNID_RESPONSE_SIZE + 1, 0, 0, "response length"},
        {true, UNID_OP_DONE, UINT32_MAX, 0, 0, "response length"},
        {true, UNID_OP_WRITE, 4, 5, 0, "head too long"},
        {true, UNID_OP_WRITE, UNID_RESPONSE_SIZE, UNID_RESPONSE_HEAD_MAX + 1, 0, "head too long"},
        {true, UNID_OP_WRITE, 8, UINT32_MAX, 0, "head too long"},
        {true, UNID_OP_WRITE, 8, 8, 0, "response head:"},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        void *each = NULL;
        set_up(&each);
        struct fixture *f = each;
        if (cases[i].request) {
            put(f, "", true);
        }
        struct unid_call *c = call_of(f);
        c->response_len = cases[i].response_len;
        c->head_len = cases[i].head_len;
        c->log_len = cases[i].log_len;
        ring(f, cases[i].op);
        assert_protocol_end(f, cases[i].detail);
        tear_down(&each);
    }
}

static void a_second_head_ends_the_guest(void **state)
{
    struct fixture *f = *state;
    f->answer_at_once = true;
    put(f, "", true);
    ring_output(f, UNID_OP_WRITE, "200\r\n", "a");
    un_buf_reset(&f->trace);
    ring_output(f, UNID_OP_WRITE, "200\r\n", "b");
    assert_protocol_end(f, "second response head");
}

static void a_call_before_the_answer_ends_the_guest(void **state)
{
    struct fixture *f = *state;
    put(f, "", false);
    ring(f, UNID_OP_READ);
    un_buf_reset(&f->trace);
    ring(f, UNID_OP_READ);
    assert_protocol_end(f, "before call 1 was answered");
}

static void a_call_that_skips_a_number_ends_the_guest(void **state)
{
    struct fixture *f = *state;
    put(f, "", true);
    call_of(f)->seq = 7;
    ring(f, UNID_OP_LOG);
    assert_protocol_end(f, "call 8");
}

static void a_head_changed_after_the_ring_is_not_seen_by_the_user(void **state)
{
    /* The parsed head lives in the host's copy: names and values point nowhere into the window. */
    struct fixture *f = *state;
    put(f, "", true);
    ring_output(f, UNID_OP_WRITE, "200\r\nA: b\r\n", "x");
    memset(window(f, UNID_RESPONSE_ADDR), '\n', 32);
    assert_string_equal((char *)f->fields.data, "A=b;");
}

static void calls_are_counted_and_limited(void **state)
{
    struct fixture *f = *state;
    put(f, "", true);
    f->ch.calls = LIMIT_CALLS - 1;
    ring(f, UNID_OP_LOG);
    assert_trace(f, "resume");
    ring(f, UNID_OP_LOG);
    assert_trace(f, "ended due");
    hv_channel_exit(&f->ch);
    assert_int_equal(f->why.kind, HV_EXIT_LIMIT);
}

static void the_sequence_number_may_wrap(void **state)
{
    struct fixture *f = *state;
    put(f, "", true);
    f->ch.seq = call_of(f)->seq = UINT32_MAX;
    ring(f, UNID_OP_LOG);
    assert_trace(f, "resume");
    assert_int_equal(call_of(f)->ack, 0);
}

static void exit_kinds_have_names(void **state)
{
    assert_string_equal(hv_exit_name(HV_EXIT_DONE), "done");
    assert_string_equal(hv_exit_name(HV_EXIT_LOST), "lost");
    assert_string_equal(hv_exit_name((enum hv_exit_kind)99), "unknown");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_request_is_written_as_the_contract_says),
        TEST(a_guest_that_asks_waits_until_the_request_is_there),
        TEST(body_bytes_arrive_behind_the_head_until_the_end),
        TEST(input_may_be_given_from_inside_the_event),
        TEST(input_that_nobody_asked_for_is_ignored),
        TEST(input_longer_than_the_room_is_cut),
        TEST(the_guest_stands_still_while_its_output_is_out),
        TEST(the_end_is_told_with_the_last_bytes_and_again_by_exit),
        TEST(output_may_be_answered_from_inside_the_event),
        TEST(an_end_without_output_still_gives_the_head),
        TEST(a_head_alone_is_answered_at_once),
        TEST(log_travels_with_any_call_and_only_once),
        TEST(log_left_behind_by_a_fault_is_handed_out),
        TEST(a_log_length_that_lies_at_the_end_is_ignored),
        TEST(a_repeated_ring_is_ignored),
        TEST(nothing_comes_after_the_vm_was_freed_inside_an_event),
        TEST(a_vm_lost_with_output_out_ends_at_once),
        TEST(a_request_that_does_not_fit_is_refused),
        TEST(an_ask_waits_for_its_answer),
        TEST(received_bytes_are_no_more_than_were_asked_for),
        TEST(names_are_copied_and_short),
        TEST(handles_that_cannot_be_are_answered_at_once),
        TEST(a_wait_ends_with_what_the_guest_was_not_told),
        TEST(asks_that_nobody_takes_are_answered_at_once),
        TEST(an_answer_after_the_end_is_ignored),
        cmocka_unit_test(a_net_length_behind_its_window_ends_the_guest),
        TEST(a_report_is_cut_to_its_bounds),
        TEST(a_failure_before_the_request_is_an_end),
        cmocka_unit_test(hostile_calls_end_the_guest),
        TEST(a_second_head_ends_the_guest),
        TEST(a_call_before_the_answer_ends_the_guest),
        TEST(a_call_that_skips_a_number_ends_the_guest),
        TEST(a_head_changed_after_the_ring_is_not_seen_by_the_user),
        TEST(calls_are_counted_and_limited),
        TEST(the_sequence_number_may_wrap),
        cmocka_unit_test(exit_kinds_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
