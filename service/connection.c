/* connection.c - one request at one machine, in the dress of a VM (see service.h).
 *
 * The request's head and first body bytes are kept until the machine has answered: where a machine
 * turns out not to listen yet, or goes away without a byte, another connection can be tried. What came
 * later cannot be repeated; then the request is lost. The response is handed on as it comes, one piece
 * at a time; what comes meanwhile is read ahead as far as INPUT_ROOM.
 */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "service/service_impl.h"

enum {
    READ_LEAST = 16 * 1024,
    INPUT_ROOM = 64 * 1024,
    RETRY_BYTES = 512 * 1024,
    UNANSWERED_US = 1000000, /* a connection that is not taken for so long says that none is */
    AGAIN_FIRST_US = 4000,
    AGAIN_DOUBLINGS = 4
};

static void tell_ready(void *arg)
{
    struct hv_vm *vm = arg;
    vm->events->on_ready(vm->arg, 0, NULL);
}

int connection_new(struct hv_driver *drv, const struct hv_vm_spec *spec, struct hv_vm **ret,
                   struct un_error *err)
{
    struct hv_vm *vm = calloc(1, sizeof(*vm));
    struct evbuffer *piece = vm ? evbuffer_new() : NULL;
    if (!piece) {
        free(vm);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    vm->piece = piece;
    vm->base.ops = drv->base.ops;
    vm->drv = drv;
    vm->events = spec->events;
    vm->arg = spec->arg;
    un_list_init(&vm->node);
    vm->post = (struct un_post){.fn = tell_ready, .arg = vm};
    un_loop_post(drv->loop, &vm->post);
    *ret = vm;
    return 0;
}

/* --- the end ------------------------------------------------------------------------------------ */

/* Whether the connection is as it was before the request. */
static bool is_spotless(const struct hv_vm *vm, struct bufferevent *bev)
{
    return vm->watch.reusable && vm->eof && !vm->peer_closed &&
           evbuffer_get_length(bufferevent_get_output(bev)) == 0 &&
           evbuffer_get_length(bufferevent_get_input(bev)) == 0 &&
           evbuffer_get_length(vm->piece) == vm->output_len;
}

/* It connects no more, or has. */
static void stop_connecting(struct hv_vm *vm)
{
    un_timer_cancel(&vm->again);
    if (vm->mc && vm->mc->connecting == vm) {
        vm->mc->connecting = NULL;
        service_changed(vm->sv);
    }
}

static void leave_machine(struct hv_vm *vm)
{
    struct machine *mc = vm->mc;
    stop_connecting(vm);
    if (vm->raw) {
        stream_leave(vm);
    }
    /* A connection that was kept may be one that nobody hears any more. */
    bool reached = vm->reached && (vm->answered || !vm->reused);
    if (vm->bev && !reached && un_loop_now_us(vm->drv->loop) - vm->assigned_us >= UNANSWERED_US) {
        machine_doubt(mc);
    }
    struct bufferevent *bev = un_steal(&vm->bev);
    vm->mc = NULL;
    if (mc) {
        un_list_remove(&vm->node);
        vm->egress = mc->egress;
    }
    if (bev && mc && !vm->sv->limits.per_request && is_spotless(vm, bev)) {
        keep_give(mc, bev);
    } else if (bev) {
        bufferevent_free(bev);
    }
    if (mc) {
        machine_release(mc);
    }
}

static void leave_service(struct hv_vm *vm)
{
    struct service *sv = vm->sv;
    if (!sv) {
        return;
    }
    if (un_list_linked(&vm->node)) {
        un_list_remove(&vm->node);
        sv->waiting_count--;
    }
    vm->sv = NULL;
    sv->connections--;
    service_changed(sv);
}

static void tell_exit(void *arg)
{
    struct hv_vm *vm = arg;
    vm->events->on_exit(vm->arg, &vm->why);
}

void connection_end(struct hv_vm *vm, enum hv_exit_kind kind, const char *detail)
{
    if (vm->ended || vm->freed) {
        return;
    }
    vm->ended = true;
    vm->why = (struct hv_exit){.kind = kind, .fault_vector = ~0u};
    vm->why.unbegun = kind == HV_EXIT_LOST && !vm->mc && !vm->answered;
    vm->why.final = true; /* other machines were tried, where that could be */
    snprintf(vm->why.detail, sizeof(vm->why.detail), "%.159s", detail);
    leave_machine(vm);
    leave_service(vm);
    vm->post = (struct un_post){.fn = tell_exit, .arg = vm};
    un_loop_post(vm->drv->loop, &vm->post);
}

/* A machine that shut itself down is a success of its own, but not of the request. */
void connection_lost(struct hv_vm *vm, enum hv_exit_kind kind, const char *why)
{
    connection_end(vm, kind == HV_EXIT_FAULT ? HV_EXIT_FAULT : HV_EXIT_LOST, why);
}

void connection_log(struct hv_vm *vm, const void *data, size_t len)
{
    if (vm->events->on_log && !vm->ended && !vm->freed) {
        vm->events->on_log(vm->arg, data, len);
    }
}

static void tell_gone(void *arg)
{
    struct hv_vm *vm = arg;
    const struct hv_vm_events *events = vm->events;
    void *user = vm->arg;
    un_buf_done(&vm->request);
    evbuffer_free(vm->piece);
    free(vm);
    events->on_gone(user);
}

void connection_free(struct hv_vm *vm)
{
    vm->freed = true;
    un_loop_unpost(vm->drv->loop, &vm->post);
    leave_machine(vm);
    leave_service(vm);
    vm->post = (struct un_post){.fn = tell_gone, .arg = vm};
    un_loop_post(vm->drv->loop, &vm->post);
}

/* --- the request -------------------------------------------------------------------------------- */

/* Appends body bytes as they go over the wire. */
static int put_body(struct hv_vm *vm, struct un_buf *out, const void *data, size_t len, bool eof)
{
    int rc = 0;
    if (!vm->chunked) {
        return len ? un_buf_append(out, data, len) : 0;
    }
    if (len) {
        rc = un_buf_printf(out, "%zx\r\n", len);
        rc = rc < 0 ? rc : un_buf_append(out, data, len);
        rc = rc < 0 ? rc : un_buf_append_str(out, "\r\n");
    }
    return rc < 0 || !eof ? rc : un_buf_append_str(out, "0\r\n\r\n");
}

/* Safe methods without a body (RFC 9110, section 9.2.1). */
static void read_method(struct hv_vm *vm, const struct hv_run_spec *spec)
{
    static const char *const safe[] = {"GET ", "HEAD ", "OPTIONS "};
    for (size_t i = 0; i < UN_ARRAY_SIZE(safe); i++) {
        size_t len = strlen(safe[i]);
        vm->repeatable |= vm->eof && spec->body_len == 0 && spec->request_head_len > len &&
                          memcmp(spec->request_head, safe[i], len) == 0;
    }
    answer_watch_begin(&vm->watch,
                       spec->request_head_len > 5 && memcmp(spec->request_head, "HEAD ", 5) == 0);
}

int connection_run(struct hv_vm *vm, const struct hv_run_spec *spec, struct un_error *err)
{
    if (!spec->machine) {
        return un_error_set(err, -EINVAL, "a program image cannot be run as a machine");
    }
    vm->raw = spec->interface == UNID_INTERFACE_TCP;
    vm->depth = spec->depth;
    vm->per_request = spec->machine->per_request;
    vm->chunked = !vm->raw && spec->content_length < 0;
    vm->eof = spec->body_eof;
    if (!vm->raw) {
        read_method(vm, spec);
    }
    int rc = un_buf_append(&vm->request, spec->request_head, spec->request_head_len);
    rc = rc < 0 ? rc : put_body(vm, &vm->request, spec->body, spec->body_len, spec->body_eof);
    if (rc < 0) {
        un_buf_reset(&vm->request);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    rc = service_get(vm->drv, spec->machine, &vm->sv, err);
    if (rc < 0) {
        return rc;
    }
    vm->sv->connections++;
    vm->sv->used_us = un_loop_now_us(vm->drv->loop);
    un_list_push(&vm->sv->waiting, &vm->node);
    vm->sv->waiting_count++;
    service_changed(vm->sv);
    return 0;
}

static void want_input(struct hv_vm *vm)
{
    if (!vm->eof && !vm->input_wanted && !vm->ended && !vm->freed) {
        vm->input_wanted = true;
        vm->events->on_input_wanted(vm->arg, INPUT_ROOM);
    }
}

void connection_input(struct hv_vm *vm, const void *data, size_t len, bool eof)
{
    struct un_buf bytes = {0};
    if (vm->raw) {
        stream_input(vm, data, len, eof);
        return;
    }
    if (vm->ended || !vm->bev || !vm->input_wanted) {
        return;
    }
    vm->input_wanted = false;
    vm->eof = eof;
    int rc = put_body(vm, &bytes, data, len, eof);
    if (rc == 0 && bytes.len) {
        rc = bufferevent_write(vm->bev, bytes.data, bytes.len);
    }
    /* Kept for another attempt as long as that is possible at all. */
    if (rc == 0 && bytes.len && !vm->answered && vm->request.len) {
        if (vm->request.len + bytes.len > RETRY_BYTES ||
            un_buf_append(&vm->request, bytes.data, bytes.len) < 0) {
            un_buf_done(&vm->request);
        }
    }
    un_buf_done(&bytes);
    if (rc < 0) {
        connection_end(vm, HV_EXIT_LOST, "out of memory");
    }
}

static void connect_anew(struct hv_vm *vm);

/* --- the machine's side ------------------------------------------------------------------------- */

static void deliver(struct hv_vm *vm);

/* What stands at its watermark is told of again and again (libevent's bufferevent_inbuf_wm_check), unless it is not read. */
static void on_read(struct bufferevent *bev, void *arg)
{
    struct hv_vm *vm = arg;
    if (vm->output_len && evbuffer_get_length(bufferevent_get_input(bev)) >= INPUT_ROOM) {
        bufferevent_disable(bev, EV_READ);
    }
    deliver(vm);
}

static void on_write(struct bufferevent *bev, void *arg)
{
    want_input(arg);
}

void connection_requeue(struct hv_vm *vm)
{
    struct service *sv = vm->sv;
    struct machine *mc = vm->mc;
    stop_connecting(vm);
    bufferevent_free(vm->bev);
    vm->bev = NULL;
    vm->mc = NULL;
    un_list_remove(&vm->node);
    vm->input_wanted = vm->peer_closed = false;
    un_list_push_front(&sv->waiting, &vm->node);
    sv->waiting_count++;
    vm->reached = false;
    mc->in_flight--;
    machine_doubt(mc);
    service_changed(sv);
}

/* Without a byte of an answer: as if it had not been tried, where that can be. */
static void try_again_or_lose(struct hv_vm *vm, const char *why)
{
    struct machine *mc = vm->mc;
    if (vm->reused && mc->state == MACHINE_READY) {
        connect_anew(vm);
        return;
    }
    if (mc->proven || vm->request.len == 0 || mc->state != MACHINE_READY) {
        connection_end(vm, HV_EXIT_LOST, why);
        return;
    }
    connection_requeue(vm);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct hv_vm *vm = arg;
    if (what & BEV_EVENT_CONNECTED) {
        connection_reached(vm);
        return;
    }
    if (!vm->reached) {
        connection_requeue(vm); /* nothing of the request has been sent */
        return;
    }
    vm->peer_closed = true;
    if (!vm->answered && evbuffer_get_length(bufferevent_get_input(bev)) == 0) {
        try_again_or_lose(vm, what & BEV_EVENT_EOF
                                  ? "the machine closed the connection without an answer"
                                  : "the connection to the machine broke");
        return;
    }
    deliver(vm);
}

/* A guest sends a packet at a time, and to be woken for each costs more than the packet. Of an answer
 * whose length is known so much is awaited as surely comes (socket(7), SO_RCVLOWAT). */
static void await_more(struct hv_vm *vm)
{
    uint64_t rest = answer_watch_rest(&vm->watch);
    int least = rest < 1 ? 1 : rest < READ_LEAST ? (int)rest : READ_LEAST;
    if (least != (vm->read_least ? vm->read_least : 1)) {
        vm->read_least = least;
        setsockopt(bufferevent_getfd(vm->bev), SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least));
    }
}

/* Hands out what has come, or the end behind it. The piece that is out is taken from the socket's
 * buffer, which so can be read into meanwhile, up to its watermark. */
static void deliver(struct hv_vm *vm)
{
    if (!vm->bev || vm->output_len || vm->ended) {
        return;
    }
    if (evbuffer_get_length(vm->piece) == 0) {
        evbuffer_add_buffer(vm->piece, bufferevent_get_input(vm->bev));
        if (!vm->peer_closed && !(bufferevent_get_enabled(vm->bev) & EV_READ)) {
            bufferevent_enable(vm->bev, EV_READ);
        }
    }
    size_t len = evbuffer_get_contiguous_space(vm->piece);
    if (len == 0) {
        if (vm->peer_closed) {
            connection_end(vm, HV_EXIT_DONE, "");
        }
        return;
    }
    if (!vm->answered) {
        vm->answered = vm->mc->proven = vm->mc->served = true;
        vm->sv->failures = 0;
        service_proved(vm->sv);
        un_buf_done(&vm->request);
        service_changed(vm->sv);
    }
    if (vm->sv->limits.per_request) {
        machine_read_log(vm->mc); /* it may be the answer's end, and so the machine's */
    }
    vm->output_len = len;
    const uint8_t *data = evbuffer_pullup(vm->piece, (ev_ssize_t)len);
    answer_watch_feed(&vm->watch, data, len);
    await_more(vm);
    vm->events->on_output(vm->arg, data, len, NULL);
}

void connection_output_done(struct hv_vm *vm)
{
    if (vm->raw) {
        stream_output_done(vm);
        return;
    }
    if (!vm->bev || !vm->output_len || vm->ended) {
        return;
    }
    evbuffer_drain(vm->piece, vm->output_len);
    vm->output_len = 0;
    if (vm->peer_closed || evbuffer_get_length(vm->piece) > 0 ||
        evbuffer_get_length(bufferevent_get_input(vm->bev)) > 0) {
        /* From the loop, not from inside. */
        bufferevent_trigger(vm->bev, EV_READ,
                            BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
    }
}

/* Sends the request over vm->bev, NULL for none. */
static void send_request(struct hv_vm *vm, bool is_connected)
{
    struct sockaddr *addr = (struct sockaddr *)&vm->mc->addr;
    int one = 1;
    if (!vm->bev) {
        connection_end(vm, HV_EXIT_LOST, "no socket: out of memory or descriptors");
        return;
    }
    vm->reached = is_connected;
    if (!is_connected && bufferevent_socket_connect(vm->bev, addr, sizeof(vm->mc->addr)) < 0) {
        connection_requeue(vm);
        return;
    }
    bufferevent_setcb(vm->bev, on_read, on_write, on_event, vm); /* not from inside connect */
    bufferevent_setwatermark(vm->bev, EV_WRITE, INPUT_ROOM, 0);
    bufferevent_setwatermark(vm->bev, EV_READ, 0, INPUT_ROOM);
    if (bufferevent_write(vm->bev, vm->request.data, vm->request.len) < 0 ||
        bufferevent_enable(vm->bev, EV_READ | EV_WRITE) < 0) {
        connection_end(vm, HV_EXIT_LOST, "no connection to the machine");
        return;
    }
    connection_attempted(vm);
    setsockopt(bufferevent_getfd(vm->bev), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* The machine had closed the connection before it saw the request. */
static void connect_anew(struct hv_vm *vm)
{
    bufferevent_free(vm->bev);
    vm->bev = machine_socket(vm->mc);
    vm->reused = vm->peer_closed = false;
    send_request(vm, false);
}

static void on_again(void *arg)
{
    struct hv_vm *vm = arg;
    vm->attempts++;
    bufferevent_free(vm->bev);
    vm->bev = machine_socket(vm->mc);
    if (vm->raw && vm->bev) {
        stream_assign(vm, false);
    } else {
        send_request(vm, false);
    }
}

/* QEMU listens with room for one that it has not taken yet. Of connections that come at once the kernel drops the
 * first packet of most, and repeats it after a second; those that are taken by halves hang for longer. */
void connection_attempted(struct hv_vm *vm)
{
    unsigned doublings = vm->attempts < AGAIN_DOUBLINGS ? vm->attempts : AGAIN_DOUBLINGS;
    if (vm->mc->link || vm->reached) {
        return;
    }
    vm->mc->connecting = vm;
    un_timer_init(&vm->again, vm->drv->loop, on_again, vm);
    /* Out of memory: the kernel repeats it. */
    (void)un_timer_arm_in(&vm->again, (uint64_t)AGAIN_FIRST_US << doublings);
}

void connection_reached(struct hv_vm *vm)
{
    vm->reached = true;
    vm->reached_us = un_loop_now_us(vm->drv->loop);
    vm->attempts = 0;
    stop_connecting(vm);
}

void connection_assign(struct hv_vm *vm, struct machine *mc)
{
    bool is_probed = mc->probe_open;
    vm->mc = mc;
    vm->reached = false;
    vm->assigned_us = un_loop_now_us(vm->drv->loop);
    mc->in_flight++;
    un_list_push(&mc->connections, &vm->node);
    if (is_probed) {
        vm->bev = un_steal(&mc->probe);
        mc->probe_open = false;
    } else {
        vm->bev = vm->repeatable ? keep_take(mc) : NULL;
        vm->reused = vm->bev;
        vm->bev = vm->bev ? vm->bev : machine_socket(mc);
    }
    if (vm->raw && vm->bev) {
        stream_assign(vm, is_probed);
        return;
    }
    send_request(vm, is_probed || vm->reused);
    if (!vm->bev) {
        return; /* it ended, or waits again */
    }
    if (!vm->started) {
        vm->started = true;
        vm->events->on_started(vm->arg);
    }
    machine_give_boot_log(mc, vm);
    want_input(vm);
}

void connection_usage(struct hv_vm *vm, struct hv_usage *ret)
{
    *ret = (struct hv_usage){.exits = 0};
    if (vm->mc && vm->mc->m && vm->sv->limits.per_request) {
        hv_machine_ops(vm->mc->m)->usage(vm->mc->m, ret);
    }
    if (vm->per_request) {
        ret->egress = vm->mc ? vm->mc->egress : vm->egress;
    }
}

void connection_wants(struct hv_vm *vm, char *ret, size_t size)
{
    const struct service *sv = vm->sv;
    struct machine *mc = vm->mc;
    ret[0] = '\0';
    if (!sv || vm->reached) {
        return;
    }
    if (mc) {
        snprintf(ret, size, "its machine does not take the connection");
        return;
    }
    un_list_for_each (it, &sv->machines) { /* the one that has come the farthest */
        struct machine *other = un_list_entry(it, struct machine, node);
        bool comes = other->state < MACHINE_READY;
        mc = comes && (!mc || other->state > mc->state) ? other : mc;
    }
    if (mc) {
        machine_wants(mc, ret, size);
    } else if (sv->failures + sv->hindrances > 0) {
        snprintf(ret, size, "its last machine failed: %s", sv->why);
    } else if (sv->blocked) {
        snprintf(ret, size, "another machine has its volumes");
    } else if (!un_list_empty(&sv->machines)) {
        snprintf(ret, size, "all its machines were busy");
    }
}

int connection_pid(struct hv_vm *vm)
{
    return vm->mc && vm->mc->m ? hv_machine_ops(vm->mc->m)->pid(vm->mc->m) : 0;
}
