/* stream.c - one connection at one machine, for functions that speak a protocol of their own
 * (UNID_INTERFACE_TCP); the rest of its life is connection.c's.
 *
 *     assigned ── connecting ── taken ──> bytes go both ways ── both directions at their end: DONE
 *                      │                          │
 *                      └── given back             └── reset, or the machine ended: LOST
 *
 * The client's bytes are held until the machine has taken the connection, and until then it can be tried
 * at another. Afterwards nothing is repeated. A machine that speaks first does so on a connection that
 * has carried no byte yet. Each direction ends by itself: an end of the client's becomes a FIN behind its
 * last byte, one of the machine's an output without bytes.
 *
 * QEMU's user network takes a connection before the guest does, and closes it when the guest refuses. So
 * at a machine that is not proven a connection counts as taken when it has stood for SETTLE_US, or a byte
 * has come; that the guest was not up at all is not seen, then QEMU itself holds the bytes.
 */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "common/socket.h"
#include "service/service_impl.h"

enum { STREAM_ROOM = 64 * 1024, SETTLE_US = 200000 };

static void want_input(struct hv_vm *vm)
{
    if (vm->taken && !vm->eof && !vm->input_wanted && !vm->ended && !vm->freed) {
        vm->input_wanted = true;
        vm->events->on_input_wanted(vm->arg, STREAM_ROOM);
    }
}

static void shut_when_sent(struct hv_vm *vm);

static void on_shut_later(void *arg)
{
    shut_when_sent(arg);
}

/* Whether an end must wait: of a connection that the guest has not answered yet QEMU's user network makes a
 * reset when it ends, and what was sent is lost. */
static bool too_early(struct hv_vm *vm)
{
    uint64_t age = un_loop_now_us(vm->drv->loop) - vm->reached_us;
    if (vm->mc->link || vm->spoke || age >= SETTLE_US) {
        return false;
    }
    un_timer_init(&vm->settle, vm->drv->loop, on_shut_later, vm);
    return un_timer_arm_in(&vm->settle, SETTLE_US - age) == 0;
}

/* The client's end, behind the last of its bytes. */
static void shut_when_sent(struct hv_vm *vm)
{
    if (!vm->eof || !vm->taken || vm->shut || vm->ended ||
        evbuffer_get_length(bufferevent_get_output(vm->bev)) > 0 || too_early(vm)) {
        return;
    }
    vm->shut = true;
    shutdown(bufferevent_getfd(vm->bev), SHUT_WR);
    if (vm->output_ended && !vm->output_out) {
        connection_end(vm, HV_EXIT_DONE, "");
    }
}

/* A sign of the machine's: its guest has taken the connection. */
static void hear(struct hv_vm *vm)
{
    if (!vm->spoke) {
        vm->spoke = true;
        shut_when_sent(vm);
    }
}

/* Hands out what has come, or the end behind it. */
static void deliver(struct hv_vm *vm)
{
    struct evbuffer *in = vm->bev ? bufferevent_get_input(vm->bev) : NULL;
    if (!in || vm->output_out || vm->ended || !vm->taken) {
        return;
    }
    size_t len = evbuffer_get_contiguous_space(in);
    if (len > 0 || vm->peer_closed) {
        hear(vm);
    }
    if (len > 0) {
        vm->output_out = true;
        vm->output_len = len;
        bufferevent_disable(vm->bev, EV_READ);
        vm->events->on_output(vm->arg, evbuffer_pullup(in, (ev_ssize_t)len), len, NULL);
    } else if (vm->peer_closed && vm->output_ended && vm->shut) {
        connection_end(vm, HV_EXIT_DONE, "");
    } else if (vm->peer_closed && !vm->output_ended) {
        vm->output_ended = vm->output_out = true;
        vm->output_len = 0;
        vm->events->on_output(vm->arg, NULL, 0, NULL);
    }
}

void stream_output_done(struct hv_vm *vm)
{
    if (!vm->bev || !vm->output_out || vm->ended) {
        return;
    }
    vm->output_out = false;
    evbuffer_drain(bufferevent_get_input(vm->bev), vm->output_len);
    if (!vm->peer_closed) {
        bufferevent_enable(vm->bev, EV_READ);
    }
    /* More may stand there already: from the loop, not from inside. */
    bufferevent_trigger(vm->bev, EV_READ, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
}

void stream_input(struct hv_vm *vm, const void *data, size_t len, bool eof)
{
    if (vm->ended || !vm->bev || !vm->input_wanted) {
        return;
    }
    vm->input_wanted = false;
    vm->eof = eof;
    if (eof) {
        bufferevent_setwatermark(vm->bev, EV_WRITE, 0, 0);
    }
    if (len > 0 && bufferevent_write(vm->bev, data, len) < 0) {
        connection_end(vm, HV_EXIT_LOST, "out of memory");
        return;
    }
    shut_when_sent(vm);
}

/* --- the machine takes it --------------------------------------------------------------------- */

/* From here on nothing can be repeated. */
static void taken(struct hv_vm *vm)
{
    vm->taken = vm->mc->proven = vm->mc->served = true;
    vm->sv->failures = 0;
    service_proved(vm->sv);
    un_timer_cancel(&vm->settle);
    if (!vm->started) {
        vm->started = true;
        vm->events->on_started(vm->arg);
    }
    service_changed(vm->sv); /* the machine has more places now */
    if (vm->eof) {
        bufferevent_setwatermark(vm->bev, EV_WRITE, 0, 0);
    }
    if (vm->request.len > 0 && bufferevent_write(vm->bev, vm->request.data, vm->request.len) < 0) {
        connection_end(vm, HV_EXIT_LOST, "out of memory");
        return;
    }
    un_buf_done(&vm->request);
    shut_when_sent(vm);
    want_input(vm);
    deliver(vm);
}

static void on_settled(void *arg)
{
    taken(arg);
}

static void connected(struct hv_vm *vm)
{
    int one = 1;
    connection_reached(vm);
    setsockopt(bufferevent_getfd(vm->bev), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    un_timer_init(&vm->settle, vm->drv->loop, on_settled, vm);
    if (vm->mc->proven || un_timer_arm_in(&vm->settle, SETTLE_US) < 0) {
        taken(vm);
    }
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct hv_vm *vm = arg;
    if (!vm->taken && evbuffer_get_length(bufferevent_get_input(bev)) > 0) {
        taken(vm);
        return;
    }
    deliver(vm);
}

static void on_write(struct bufferevent *bev, void *arg)
{
    struct hv_vm *vm = arg;
    shut_when_sent(vm);
    want_input(vm);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct hv_vm *vm = arg;
    if (what & BEV_EVENT_CONNECTED) {
        connected(vm);
    } else if (!vm->taken) {
        un_timer_cancel(&vm->settle);
        connection_requeue(vm); /* to another machine, or to this one when it has come up */
    } else if (what & BEV_EVENT_EOF) {
        vm->peer_closed = true;
        deliver(vm);
    } else {
        connection_end(vm, HV_EXIT_LOST, "the connection to the machine broke");
    }
}

void stream_assign(struct hv_vm *vm, bool is_connected)
{
    struct machine *mc = vm->mc;
    bufferevent_setwatermark(vm->bev, EV_WRITE, STREAM_ROOM, 0);
    bufferevent_setwatermark(vm->bev, EV_READ, 0, STREAM_ROOM);
    if (!is_connected &&
        bufferevent_socket_connect(vm->bev, (struct sockaddr *)&mc->addr, sizeof(mc->addr)) < 0) {
        connection_requeue(vm);
        return;
    }
    bufferevent_setcb(vm->bev, on_read, on_write, on_event, vm); /* not from inside connect */
    if (bufferevent_enable(vm->bev, EV_READ | EV_WRITE) < 0) {
        connection_end(vm, HV_EXIT_LOST, "no connection to the machine");
    } else if (is_connected) {
        connected(vm);
    } else {
        connection_attempted(vm);
    }
}

void stream_leave(struct hv_vm *vm)
{
    un_timer_cancel(&vm->settle);
    if (vm->bev && vm->taken && !(vm->shut && vm->output_ended)) {
        /* Broken off: the machine is not to take it for a client's end. */
        un_socket_break(bufferevent_getfd(vm->bev));
    }
    vm->taken = false;
}
