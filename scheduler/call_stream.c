/* call_stream.c - bytes between the client and the guest of a call, with back-pressure both ways.
 *
 * Request: what the client sends is copied into the call's buffer and leaves it when the guest asks
 * (on_input_wanted). The source is told to wait when the buffer holds LIMIT_BODY_BUFFER_BYTES, or
 * less when the bodies of all calls together exceed LIMIT_BODY_BUFFERS_BYTES. Response: one piece
 * at a time is borrowed from the driver and passed on; the guest stands still until
 * sched_call_data_done. The head is kept until the first piece shows that the guest has not failed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/names.h"
#include "scheduler/scheduler_impl.h"

enum { BODY_SHARE_BYTES = 16 * 1024 }; /* what a call may buffer when all together hold too much */

/* --- the request's body ----------------------------------------------------------------------- */

static size_t waiting_bytes(const struct sched_call *c)
{
    return c->body.len - c->body_at;
}

static bool may_go_on(const struct sched_call *c)
{
    size_t limit =
        c->s->body_bytes > LIMIT_BODY_BUFFERS_BYTES ? BODY_SHARE_BYTES : LIMIT_BODY_BUFFER_BYTES;

    return waiting_bytes(c) < limit;
}

void call_body_first(struct sched_call *c, struct hv_run_spec *run)
{
    size_t room = hv_body_room(c->head.len), have = waiting_bytes(c);

    run->body = c->body.data ? c->body.data + c->body_at : NULL;
    run->body_len = have < room ? have : room;
    run->body_eof = c->body_eof && have <= room;
}

/* Tells the source that it may go on, if it waits and may. */
static void wake_source(struct sched_call *c)
{
    if (c->source_waits && may_go_on(c)) {
        c->source_waits = false;
        if (c->events) {
            c->events->on_body_room(c->arg);
        }
    }
}

void call_body_taken(struct sched_call *c, size_t len)
{
    c->body_at += len;
    c->s->body_bytes -= len;
    if (c->body_at == c->body.len) {
        un_buf_reset(&c->body);
        c->body_at = 0;
    }
    wake_source(c);
}

/* Gives the guest what it waits for, as far as it is there. */
static void feed(struct sched_call *c)
{
    size_t have = waiting_bytes(c), n = have < c->input_room ? have : c->input_room;

    if (c->input_room == 0 || (have == 0 && !c->body_eof)) {
        return;
    }
    c->input_room = 0;
    hv_vm_ops(c->instance->vm)
        ->vm_input(c->instance->vm, c->body.data ? c->body.data + c->body_at : NULL, n,
                   c->body_eof && n == have);
    call_body_taken(c, n);
}

static int append(struct sched_call *c, const void *data, size_t len)
{
    if (c->body_at > LIMIT_BODY_BUFFER_BYTES / 2) {
        un_buf_consume(&c->body, c->body_at);
        c->body_at = 0;
    }
    if (un_buf_append(&c->body, data, len) < 0) {
        return -ENOMEM;
    }
    c->s->body_bytes += len;
    return 0;
}

_Static_assert(LIMIT_CGI_BODY_BYTES == LIMIT_BODY_BUFFER_BYTES,
               "what is held for its length is the body's buffer");

void call_refuse_length(struct sched_call *c)
{
    call_finish(c, SCHED_LENGTH_REQUIRED,
                "a cgi program is told the length of its request's body, and this one came without "
                "Content-Length and is too long to be held until its end (%d bytes); send "
                "Content-Length",
                LIMIT_CGI_BODY_BYTES);
}

int sched_call_body(struct sched_call *c, const void *data, size_t len, bool eof)
{
    struct receipt *r = &c->record->receipt;

    if (c->state == CALL_ENDED || c->body_eof) {
        return 1; /* nobody reads it any more */
    }
    r->bytes_in += len;
    if (!c->stream && r->bytes_in > c->s->set.max_request_bytes) {
        call_finish(c, SCHED_REQUEST_TOO_LARGE, "the request's body is longer than %llu bytes",
                    (unsigned long long)c->s->set.max_request_bytes);
        return 1;
    }
    replay_body(c, data, len);
    if (len > 0 && append(c, data, len) < 0) {
        call_finish(c, SCHED_INTERNAL, "out of memory");
        return 1;
    }
    c->body_eof = eof;
    if (c->state == CALL_BOUND || c->state == CALL_RUNNING) {
        bool waited = c->source_waits;

        c->source_waits = false; /* the answer is this function's, not on_body_room's */
        feed(c);
        c->source_waits = waited;
    }
    if (c->length_wanted && eof) {
        call_length_known(c);
    }
    if (!may_go_on(c)) {
        c->source_waits = true;
        if (c->length_wanted) {
            call_refuse_length(c);
        }
        return 0;
    }
    c->source_waits = false;
    return 1;
}

/* --- what the guest does ---------------------------------------------------------------------- */

/* The guest's first sign ends the start: from now on no other VM can take its place. */
static void sign_of_life(struct sched_call *c)
{
    un_buf_done(&c->raw_head);
    if (c->bound_len > 0) {
        call_body_taken(c, c->bound_len);
        c->bound_len = 0;
    }
    if (c->phase == PHASE_START) {
        call_enter_phase(c, PHASE_FIRST_BYTE);
    }
}

void call_started(struct sched_call *c)
{
    if (c->state == CALL_BOUND) {
        call_set_state(c, CALL_RUNNING);
        if (c->stream) {
            un_timer_cancel(&c->timer); /* it is made; it may stay */
        }
        call_enter_phase(c, PHASE_START);
    }
}

void call_input_wanted(struct sched_call *c, size_t room)
{
    if (c->state == CALL_ENDED) {
        return;
    }
    sign_of_life(c);
    c->input_room = room;
    feed(c);
}

/* Copies the head: it is borrowed only for the callback. */
void call_head(struct sched_call *c, const struct hv_head *head)
{
    size_t len = 0;
    char *at;

    if (c->state == CALL_ENDED || c->response_head.status) {
        return;
    }
    sign_of_life(c);
    if (c->reader) {
        return; /* what the driver tells is the default; the program's own head is in its output */
    }
    for (size_t i = 0; i < head->field_count; i++) {
        len += strlen(head->fields[i].name) + strlen(head->fields[i].value) + 2;
    }
    c->response_fields = calloc(head->field_count + 1, sizeof(*c->response_fields));
    c->response_text = at = malloc(len + 1);
    if (!c->response_fields || !at) {
        call_finish(c, SCHED_INTERNAL, "out of memory");
        return;
    }
    for (size_t i = 0; i < head->field_count; i++) {
        c->response_fields[i].name = at;
        at = stpcpy(at, head->fields[i].name) + 1;
        c->response_fields[i].value = at;
        at = stpcpy(at, head->fields[i].value) + 1;
    }
    c->response_head = (struct hv_head){head->status, head->field_count, c->response_fields};
}

static void pass_on(struct sched_call *c, const void *data, size_t len, bool last)
{
    struct sched_response response;

    c->output_held = true;
    c->last_sent = last;
    c->record->receipt.bytes_out += len;
    if (last) {
        un_timer_cancel(
            &c->timer); /* the function has done its part; now it is the client's time */
    }
    if (c->responded) {
        replay_data(c, data, len);
        c->events->on_data(c->arg, data, len, last);
        return;
    }
    c->responded = true;
    if (c->response_head.status == 0) {
        c->response_head.status = 200;
    }
    call_response_begins(c);
    replay_response(c, &c->response_head);
    replay_data(c, data, len);
    response = (struct sched_response){
        .head = c->response_head,
        .phases = &c->response_phases,
        .data = data,
        .len = len,
        .last = last,
    };
    c->events->on_response(c->arg, &response);
}

void call_fail(struct sched_call *c, const struct hv_exit *why)
{
    c->exit = *why;
    snprintf(c->record->receipt.exit_reason, sizeof(c->record->receipt.exit_reason), "%s",
             hv_exit_name(why->kind));
    switch (why->kind) {
    case HV_EXIT_DONE:
        call_finish(c, SCHED_FAILED, "the function ended with exit status %d", why->status);
        break;
    case HV_EXIT_FAULT:
        if (c->version->config.machine.set) {
            call_finish(c, SCHED_FAILED, "the function's machine crashed: %s", why->detail);
            break;
        }
        call_finish(c, SCHED_FAILED,
                    "the function crashed at instruction 0x%llx, address 0x%llx: %s",
                    (unsigned long long)why->fault_rip, (unsigned long long)why->fault_addr,
                    why->detail[0] ? why->detail : un_fault_name(why->fault_vector));
        break;
    case HV_EXIT_LIMIT:
        call_finish(c, SCHED_FAILED, "the function reached a limit: %s", why->detail);
        break;
    case HV_EXIT_PROTOCOL:
        call_finish(c, SCHED_FAILED, "the function broke the guest contract: %s", why->detail);
        break;
    case HV_EXIT_LOST:
        call_finish(c, SCHED_FAILED, "the function's virtual machine was lost: %s", why->detail);
        break;
    }
}

/* A CGI program that says itself, by 4xx or 5xx, that it has failed has answered: PHP ends so with
 * status 255. */
static bool success(const struct sched_call *c, const struct hv_exit *why)
{
    const struct hv_head *head = c->reader ? interface_head(c->reader) : NULL;

    return why->kind == HV_EXIT_DONE &&
           (why->status == 0 ||
            (head && head->status >= 400 && c->version->config.interface == FUNCTION_CGI));
}

/* The program's output is not what its interface asks for. */
static void fail_answer(struct sched_call *c, int rc, const struct un_error *err)
{
    const char *interface = c->version->config.interface == FUNCTION_CGI ? "cgi" : "http";

    if (rc == -ENOMEM) {
        call_finish(c, SCHED_INTERNAL, "out of memory");
        return;
    }
    c->exit = (struct hv_exit){.kind = HV_EXIT_PROTOCOL, .fault_vector = ~0u};
    snprintf(c->exit.detail, sizeof(c->exit.detail), "%.150s", err->text);
    snprintf(c->record->receipt.exit_reason, sizeof(c->record->receipt.exit_reason), "%s",
             hv_exit_name(HV_EXIT_PROTOCOL));
    call_finish(c, SCHED_FAILED, "the function's answer is not one of interface %s: %.200s",
                interface, err->text);
}

static bool too_long(struct sched_call *c, size_t len)
{
    if (c->stream || c->record->receipt.bytes_out + len <= c->s->set.max_response_bytes) {
        return false;
    }
    call_finish(c, SCHED_RESPONSE_TOO_LARGE, "the response is longer than %llu bytes",
                (unsigned long long)c->s->set.max_response_bytes);
    return true;
}

/* An answer may be whole before the guest has ended: a server waits for the next request. */
static void note_done(struct sched_call *c)
{
    c->guest_done = true;
    c->exit = (struct hv_exit){.kind = HV_EXIT_DONE, .fault_vector = ~0u};
    snprintf(c->record->receipt.exit_reason, sizeof(c->record->receipt.exit_reason), "%s",
             hv_exit_name(HV_EXIT_DONE));
}

/* Output of a program whose head is in it. */
static void read_output(struct sched_call *c, const void *data, size_t len,
                        const struct hv_exit *last)
{
    struct interface_piece piece = {0};
    struct un_error err = UN_ERROR_INIT;
    int rc = interface_feed(c->reader, data, len, &piece, &err);
    bool ended = piece.complete;

    if (rc == 0 && !ended && last && !success(c, last)) {
        call_fail(c, last);
        return;
    }
    if (rc == 0 && !ended && last) {
        struct interface_piece end;

        rc = interface_finish(c->reader, &end, &err);
        ended = true;
    }
    if (rc < 0) {
        fail_answer(c, rc, &err);
        return;
    }
    if (too_long(c, piece.len)) {
        return;
    }
    if (!ended && piece.len == 0) {
        hv_vm_ops(c->instance->vm)->vm_output_done(c->instance->vm);
        return;
    }
    c->response_head = *interface_head(c->reader);
    if (ended && !last) {
        note_done(c);
    }
    pass_on(c, piece.data, piece.len, ended);
}

void call_output(struct sched_call *c, const void *data, size_t len, const struct hv_exit *last)
{
    if (c->state == CALL_ENDED || c->last_sent) {
        return;
    }
    sign_of_life(c);
    if (c->reader) {
        read_output(c, data, len, last);
        return;
    }
    if (last && !success(c, last)) {
        call_fail(c, last);
        return;
    }
    if (too_long(c, len)) {
        return;
    }
    pass_on(c, data, len, last != NULL);
}

void sched_call_data_done(struct sched_call *c)
{
    if (c->state == CALL_ENDED || !c->output_held) {
        return;
    }
    c->output_held = false;
    if (!c->guest_done) {
        hv_vm_ops(c->instance->vm)->vm_output_done(c->instance->vm);
    } else if (!c->last_sent) {
        pass_on(c, NULL, 0, true);
    } else {
        call_finish(c, SCHED_OK, "done");
    }
}

/* The program ended without giving its last bytes together with its end. */
static bool finish_reading(struct sched_call *c)
{
    struct interface_piece piece;
    struct un_error err = UN_ERROR_INIT;
    int rc = c->reader && !c->last_sent ? interface_finish(c->reader, &piece, &err) : 0;

    if (rc < 0) {
        fail_answer(c, rc, &err);
        return false;
    }
    if (c->reader) {
        c->response_head = *interface_head(c->reader);
    }
    return true;
}

/* Whether another VM, or another version, may serve the call. A version that it comes back to has had its
 * machines (call_begin). */
static bool try_another(struct sched_call *c, const struct hv_exit *why)
{
    if (why->kind != HV_EXIT_LOST) {
        return false;
    }
    if (!why->final && (c->state == CALL_BOUND || why->unbegun) && call_rebind(c)) {
        return true;
    }
    if (!why->unbegun || !call_overtaken(c)) {
        return false;
    }
    c->in_vain = c->version->id;
    c->exit = *why;
    return call_move(c);
}

void call_exited(struct sched_call *c, const struct hv_exit *why)
{
    if (c->state == CALL_ENDED || c->guest_done || try_another(c, why)) {
        return;
    }
    sign_of_life(c);
    if (!success(c, why)) {
        call_fail(c, why);
        return;
    }
    if (!finish_reading(c)) {
        return;
    }
    c->exit = *why;
    snprintf(c->record->receipt.exit_reason, sizeof(c->record->receipt.exit_reason), "%s",
             hv_exit_name(why->kind));
    if (c->last_sent && !c->output_held) {
        call_finish(c, SCHED_OK, "done");
        return;
    }
    /* The guest ended without output: the client still learns the head, and that nothing more
     * comes. */
    c->guest_done = true;
    if (!c->output_held) {
        pass_on(c, NULL, 0, true);
    }
}

/* --- what it asks ----------------------------------------------------------------------------- */

static void on_answer(void *arg, const struct hv_answer *answer)
{
    struct sched_call *c = arg;

    hv_vm_ops(c->instance->vm)->vm_answer(c->instance->vm, answer);
}

static void on_net_ready(void *arg, uint64_t readable, uint64_t writable)
{
    struct sched_call *c = arg;

    if (c->state != CALL_ENDED) {
        hv_vm_ops(c->instance->vm)->vm_net_ready(c->instance->vm, readable, writable);
    }
}

/* On a line of its own, also within one that the guest has not ended. */
static void on_refusal(void *arg, const char *text)
{
    struct sched_call *c = arg;

    if (c->record->log.partial.len > 0) {
        call_log(c, "\n", 1);
    }
    call_log(c, text, strlen(text));
    call_log(c, "\n", 1);
}

static int begin_egress(struct sched_call *c)
{
    const struct egress_spec spec = {
        .loop = c->s->loop,
        .dialer = c->s->dialer,
        .rules = c->version->config.egress,
        .function = c->version->name,
        .depth = c->depth,
        .answer = on_answer,
        .ready = on_net_ready,
        .log = on_refusal,
        .arg = c,
    };
    struct un_error err = UN_ERROR_INIT;

    return c->egress ? 0 : egress_new(&spec, &c->egress, &err);
}

void call_ask(struct sched_call *c, const struct hv_ask *ask)
{
    if (c->state == CALL_ENDED) {
        return;
    }
    sign_of_life(c);
    if (begin_egress(c) < 0) {
        call_finish(c, SCHED_INTERNAL, "out of memory");
        return;
    }
    egress_ask(c->egress, ask);
}

/* --- its log ---------------------------------------------------------------------------------- */

static void on_line(void *arg, uint64_t at_us, const char *text)
{
    struct sched_call *c = arg;
    struct log_line line = {.at_us = at_us, .text = text};

    memcpy(line.invocation_id, c->record->receipt.id, sizeof(line.invocation_id));
    log_tell(c->s, c->record->receipt.function, &line);
}

static struct guest_log_sink sink_of(struct sched_call *c)
{
    return (struct guest_log_sink){
        .max_bytes = c->s->set.max_log_bytes,
        .at_us = un_clock_wall_us(),
        .fn = on_line,
        .arg = c,
    };
}

void call_log(struct sched_call *c, const void *data, size_t len)
{
    struct guest_log_sink sink = sink_of(c);

    if (c->state == CALL_ENDED) {
        return;
    }
    sign_of_life(c);
    guest_log_add(&c->record->log, data, len, &sink);
}

void call_log_finish(struct sched_call *c)
{
    struct guest_log_sink sink = sink_of(c);

    guest_log_finish(&c->record->log, &sink);
}
