/* egress.c - the connections of one invocation; see egress.h. */
#include <errno.h>
#include <event2/event.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/limits.h"
#include "scheduler/egress/egress.h"

enum conn_state { CONN_DIALLING, CONN_OPEN, CONN_FAILED };

struct conn {
    struct egress *e;
    unsigned handle;
    enum conn_state state;
    int error; /* FAILED: a negative errno */
    struct un_endpoint to;
    struct dial *dial; /* DIALLING */
    int fd;            /* -1: none */
    struct event *readable, *writable;
};

struct egress {
    struct egress_spec spec;
    struct conn *conns[LIMIT_EGRESS_HANDLES];
    uint64_t can_read, can_write;   /* bit n: handle n */
    uint64_t told_read, told_write; /* with the last answer */
    bool waiting;                   /* a WAIT has not been answered */
    struct un_timer timer;          /* its end */
    unsigned opens, lines;
    struct hv_egress stats;
};

/* --- telling the guest ------------------------------------------------------------------------ */

static void tell(struct egress *e, int32_t result, const void *data)
{
    const struct hv_answer answer = {.result = result, .data = data};

    e->waiting = false;
    un_timer_cancel(&e->timer);
    e->told_read = e->can_read;
    e->told_write = e->can_write;
    e->spec.answer(e->spec.arg, &answer);
}

/* Notes what a handle can do; tells the driver of it, which ends a WAIT in which it became more. */
static void set_ready(struct conn *c, bool readable, bool writable)
{
    struct egress *e = c->e;
    uint64_t bit = UINT64_C(1) << c->handle;
    uint64_t can_read = readable ? e->can_read | bit : e->can_read & ~bit;
    uint64_t can_write = writable ? e->can_write | bit : e->can_write & ~bit;
    bool more = (can_read & ~e->can_read) || (can_write & ~e->can_write);

    if (can_read == e->can_read && can_write == e->can_write) {
        return;
    }
    e->can_read = can_read;
    e->can_write = can_write;
    if (more && e->waiting) {
        e->waiting = false;
        un_timer_cancel(&e->timer);
        e->told_read = can_read;
        e->told_write = can_write;
    }
    e->spec.ready(e->spec.arg, can_read, can_write);
}

static bool can_read(const struct conn *c)
{
    return c->e->can_read >> c->handle & 1;
}

static bool can_write(const struct conn *c)
{
    return c->e->can_write >> c->handle & 1;
}

static void __attribute__((format(printf, 2, 3))) log_line(struct egress *e, const char *fmt, ...)
{
    static const char last[] = " (nothing further of connections is logged)";
    char line[640];
    va_list ap;

    if (e->lines >= LIMIT_EGRESS_LOG_LINES) {
        return;
    }
    e->lines++;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof(line) - sizeof(last), fmt, ap);
    va_end(ap);
    if (n > 0 && e->lines == LIMIT_EGRESS_LOG_LINES) {
        strcat(line, last);
    }
    e->spec.log(e->spec.arg, line);
}

static void log_refusal(struct egress *e, const char *to, const char *why)
{
    e->stats.refused++;
    log_line(e, "unid: connection to %s refused: %s", to, why);
}

/* --- connections ------------------------------------------------------------------------------ */

static void drop_socket(struct conn *c)
{
    if (c->readable) {
        event_free(un_steal(&c->readable));
    }
    if (c->writable) {
        event_free(un_steal(&c->writable));
    }
    if (c->fd >= 0) {
        close(c->fd);
        c->fd = -1;
    }
}

static void conn_free(struct conn *c)
{
    if (c) {
        if (c->dial) {
            dial_cancel(c->dial);
        }
        drop_socket(c);
        free(c);
    }
}

/* The guest learns it from its next SEND or RECV. */
static void fail(struct conn *c, int error)
{
    drop_socket(c);
    c->state = CONN_FAILED;
    c->error = error;
    set_ready(c, true, true);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;

    set_ready(c, true, can_write(c));
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;

    set_ready(c, can_read(c), true);
}

static void on_dialled(void *arg, int rc, int fd, const struct un_error *why)
{
    struct conn *c = arg;
    struct event_base *base = un_loop_base(c->e->spec.loop);
    char text[UN_ENDPOINT_TEXT_SIZE];

    c->dial = NULL;
    if (rc == -EACCES || rc == -ELOOP) {
        log_refusal(c->e, un_endpoint_text(&c->to, text), why->text);
    } else if (rc < 0) {
        c->e->stats.failed++;
        log_line(c->e, "unid: %s", why->text); /* the program may be told less, and say less */
    }
    if (rc < 0) {
        fail(c, rc == -ELOOP ? -ECONNREFUSED : rc);
        return;
    }
    c->fd = fd;
    c->readable = event_new(base, fd, EV_READ, on_readable, c);
    c->writable = event_new(base, fd, EV_WRITE, on_writable, c);
    if (!c->readable || !c->writable || event_add(c->readable, NULL) < 0) {
        fail(c, -ENOMEM);
        return;
    }
    c->state = CONN_OPEN;
    c->e->stats.connections++;
    set_ready(c, false, true);
}

/* --- what is allowed -------------------------------------------------------------------------- */

static void say_how_to_allow(struct egress *e, const struct un_endpoint *to, bool host_only)
{
    char text[UN_ENDPOINT_TEXT_SIZE], why[UN_ENDPOINT_TEXT_SIZE + 200];

    un_endpoint_text(to, text);
    snprintf(why, sizeof(why),
             "the function's egress does not allow it; deploy %s again with --egress %.250s%s",
             e->spec.function, host_only ? to->host : text, host_only ? ":PORT" : "");
    log_refusal(e, host_only ? to->host : text, why);
}

/* --- the calls -------------------------------------------------------------------------------- */

static int32_t resolve(struct egress *e, const struct hv_ask *ask)
{
    struct un_error err = UN_ERROR_INIT;
    struct un_endpoint to;

    if (un_endpoint_parse_host(ask->data, ask->len, &to, &err) < 0) {
        return -EINVAL;
    }
    if (!dial_allowed(e->spec.rules, &to, true)) {
        say_how_to_allow(e, &to, true);
        return -EACCES;
    }
    return 0;
}

/* Begins a connection that is allowed. */
static int32_t begin(struct egress *e, unsigned handle, const struct un_endpoint *to)
{
    struct conn *c = un_fault("egress.conn") ? NULL : calloc(1, sizeof(*c));
    struct un_error err = UN_ERROR_INIT;

    if (!c) {
        return -ENOMEM;
    }
    c->e = e;
    c->handle = handle;
    c->to = *to;
    c->fd = -1;
    const struct dial_spec spec = {.dialer = e->spec.dialer,
                                   .rules = e->spec.rules,
                                   .to = to,
                                   .depth = e->spec.depth,
                                   .done = on_dialled,
                                   .arg = c};
    int rc = dial_start(&spec, &c->dial, &err);
    if (rc < 0) {
        free(c);
        return rc;
    }
    e->conns[handle] = c;
    return (int32_t)handle;
}

static int32_t open_(struct egress *e, const struct hv_ask *ask)
{
    struct un_error err = UN_ERROR_INIT;
    struct un_endpoint to;
    unsigned handle = 0;

    if (un_endpoint_parse(ask->data, ask->len, false, &to, &err) < 0) {
        return -EINVAL;
    }
    if (!dial_allowed(e->spec.rules, &to, false)) {
        say_how_to_allow(e, &to, false);
        return -EACCES;
    }
    while (handle < LIMIT_EGRESS_HANDLES && e->conns[handle]) {
        handle++;
    }
    if (handle == LIMIT_EGRESS_HANDLES || e->opens >= LIMIT_EGRESS_OPENS) {
        return -EMFILE;
    }
    e->opens++;
    return begin(e, handle, &to);
}

/* Not now: the event says when. */
static int32_t again(struct conn *c, struct event *event, bool readable, bool writable)
{
    set_ready(c, readable, writable);
    return event_add(event, NULL) < 0 ? -ENOMEM : -EAGAIN;
}

static int32_t send_(struct conn *c, const struct hv_ask *ask)
{
    ssize_t n;

    if (c->state != CONN_OPEN) {
        return c->state == CONN_FAILED ? c->error : -EAGAIN;
    }
    n = send(c->fd, ask->data, ask->len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
        return errno == EAGAIN || errno == EINTR ? again(c, c->writable, can_read(c), false)
                                                 : -errno;
    }
    c->e->stats.bytes_out += (uint64_t)n;
    if ((size_t)n < ask->len) {
        (void)again(c, c->writable, can_read(c), false);
    }
    return (int32_t)n;
}

static void recv_(struct conn *c, const struct hv_ask *ask)
{
    char room[UNID_NET_SIZE];
    size_t want = ask->len < sizeof(room) ? ask->len : sizeof(room);
    ssize_t n;

    if (c->state != CONN_OPEN) {
        tell(c->e, c->state == CONN_FAILED ? c->error : -EAGAIN, NULL);
        return;
    }
    n = recv(c->fd, room, want, MSG_DONTWAIT);
    if (n < 0) {
        tell(c->e,
             errno == EAGAIN || errno == EINTR ? again(c, c->readable, false, can_write(c))
                                               : -errno,
             NULL);
        return;
    }
    c->e->stats.bytes_in += (uint64_t)n;
    if (n > 0 && (size_t)n < want) {
        (void)again(c, c->readable, false, can_write(c)); /* there is no more now, most likely */
    }
    tell(c->e, (int32_t)n, room);
}

static int32_t shut(struct conn *c)
{
    if (c->state == CONN_FAILED) {
        return c->error;
    }
    if (c->state != CONN_OPEN) {
        return -ENOTCONN;
    }
    return shutdown(c->fd, SHUT_WR) < 0 ? -errno : 0;
}

static int32_t close_(struct conn *c)
{
    struct egress *e = c->e;

    set_ready(c, false, false);
    e->conns[c->handle] = NULL;
    conn_free(c);
    return 0;
}

static void wait_(struct egress *e, const struct hv_ask *ask)
{
    uint64_t us = ask->wait_ns / 1000 + (ask->wait_ns % 1000 != 0);

    if (us == 0 || (e->can_read & ~e->told_read) || (e->can_write & ~e->told_write)) {
        tell(e, 0, NULL);
        return;
    }
    e->waiting = true;
    if (ask->wait_ns != UINT64_MAX && un_timer_arm_in(&e->timer, us) < 0) {
        tell(e, 0, NULL);
    }
}

static void on_waited(void *arg)
{
    struct egress *e = arg;

    if (e->waiting) {
        tell(e, 0, NULL);
    }
}

static void ask_conn(struct egress *e, const struct hv_ask *ask)
{
    struct conn *c = ask->handle < LIMIT_EGRESS_HANDLES ? e->conns[ask->handle] : NULL;

    if (!c) {
        tell(e, -EBADF, NULL);
        return;
    }
    switch (ask->op) {
    case UNID_OP_NET_SEND:
        tell(e, send_(c, ask), NULL);
        break;
    case UNID_OP_NET_RECV:
        recv_(c, ask);
        break;
    case UNID_OP_NET_SHUT:
        tell(e, shut(c), NULL);
        break;
    default:
        tell(e, close_(c), NULL);
        break;
    }
}

void egress_ask(struct egress *e, const struct hv_ask *ask)
{
    switch (ask->op) {
    case UNID_OP_WAIT:
        wait_(e, ask);
        break;
    case UNID_OP_NET_RESOLVE:
        tell(e, resolve(e, ask), NULL);
        break;
    case UNID_OP_NET_OPEN:
        tell(e, open_(e, ask), NULL);
        break;
    case UNID_OP_NET_SEND:
    case UNID_OP_NET_RECV:
    case UNID_OP_NET_SHUT:
    case UNID_OP_NET_CLOSE:
        ask_conn(e, ask);
        break;
    default:
        tell(e, -ENOSYS, NULL);
        break;
    }
}

/* --- the whole -------------------------------------------------------------------------------- */

int egress_new(const struct egress_spec *spec, struct egress **ret, struct un_error *err)
{
    struct egress *e = un_fault("egress.alloc") ? NULL : calloc(1, sizeof(*e));

    if (!e) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    e->spec = *spec;
    un_timer_init(&e->timer, spec->loop, on_waited, e);
    *ret = e;
    return 0;
}

void egress_get_stats(const struct egress *e, struct hv_egress *ret)
{
    *ret = e->stats;
}

void egress_free(struct egress *e)
{
    if (!e) {
        return;
    }
    un_timer_cancel(&e->timer);
    for (unsigned i = 0; i < LIMIT_EGRESS_HANDLES; i++) {
        conn_free(e->conns[i]);
    }
    free(e);
}
