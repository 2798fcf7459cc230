/* conn.c - one connection: reading heads and bodies, time limits, the end; see server.h,
 * internal.h.
 *
 * conn_process looks at the state and goes as far as the bytes at hand allow. It runs from the loop
 * only, never from inside a handler's call, which asks for it with conn_wake. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "api/http/internal.h"
#include "common/fault.h"
#include "common/socket.h"

enum {
    READ_AHEAD_BYTES = 64 * 1024,   /* unread bytes before we stop reading, or a whole head */
    DRAIN_BYTES = 256 * 1024,       /* of an unwanted body, read to keep the connection */
    LINGER_BYTES = 4 * 1024 * 1024, /* dropped after our last answer, at most */
    LINGER_US = 2000000,
    DRAIN_GRACE_US = 250000, /* for the first request of a connection that was made just before */
    OVER_SILENT_US = 200000, /* over the limit: for the first byte, ... */
    OVER_HEAD_US = 1000000,  /* ... and from there for the whole head */
    PROBE_FIRST_US = 5000,
    PROBE_MOST_US = 500000
};

static void conn_process(void *arg);
static void on_timer(void *arg);
static void on_probe(void *arg);
static void on_read(struct bufferevent *bev, void *arg);
static void on_write(struct bufferevent *bev, void *arg);
static void on_event(struct bufferevent *bev, short what, void *arg);

static size_t output_len(const struct http_conn *c)
{
    return evbuffer_get_length(bufferevent_get_output(c->bev));
}

static size_t input_len(const struct http_conn *c)
{
    return evbuffer_get_length(bufferevent_get_input(c->bev));
}

bool conn_has_unread(const struct http_conn *c)
{
    int waiting = 0;
    return input_len(c) > 0 || (ioctl(c->fd, FIONREAD, &waiting) == 0 && waiting > 0);
}

/* --- life ------------------------------------------------------------------------------------- */

static uint64_t at_most(uint64_t us, uint64_t most_us)
{
    return us < most_us ? us : most_us;
}

/* How long the connection may be in a state; 0: for ever. */
static uint64_t state_limit_us(const struct http_conn *c, enum conn_state state)
{
    const struct http_limits *l = &c->server->limits;
    uint64_t idle_us = c->server->draining ? at_most(l->idle_us, DRAIN_GRACE_US) : l->idle_us;
    switch (state) {
    case CONN_IDLE:
        return c->has_place ? idle_us : at_most(idle_us, OVER_SILENT_US);
    case CONN_HEAD:
        return c->has_place ? l->head_us : at_most(l->head_us, OVER_HEAD_US);
    case CONN_EXCHANGE: /* see conn_watch */
        return 0;
    case CONN_FLUSH:
        return l->stall_us;
    case CONN_LINGER:
        return LINGER_US;
    }
    return 0;
}

static void set_state(struct http_conn *c, enum conn_state state)
{
    uint64_t limit_us = state_limit_us(c, state);
    c->state = state;
    un_list_remove(&c->idle);
    if (state == CONN_IDLE && c->has_place) {
        un_list_push(c->served ? &c->server->idle : &c->server->fresh, &c->idle);
    }
    un_timer_cancel(&c->timer);
    c->moved_us = un_loop_now_us(c->server->loop);
    if (limit_us && un_timer_arm_in(&c->timer, limit_us) < 0) {
        c->kill = true; /* without a time limit it must not live */
    }
}

static void on_output_changed(struct evbuffer *buf, const struct evbuffer_cb_info *info, void *arg)
{
    struct http_conn *c = arg;
    (void)buf;
    if (info->n_deleted) {
        c->moved_us = un_loop_now_us(c->server->loop);
    }
    if (info->n_added) {
        conn_wake(c); /* conn_process sends it */
    }
}

void conn_place(struct http_conn *c, bool has_place)
{
    if (c->has_place != has_place) {
        c->has_place = has_place;
        c->server->places += has_place ? 1 : -1u;
    }
    if (c->state == CONN_IDLE) {
        set_state(c, CONN_IDLE);
    }
}

bool pin_copy(const struct http_pin *from, struct http_pin **to)
{
    *to = from ? malloc(sizeof(**to)) : NULL;
    if (*to) {
        **to = *from;
    }
    return !from || *to;
}

int conn_open(struct http_server *s, const struct conn_spec *spec, struct un_error *err)
{
    int fd = spec->fd;
    struct http_conn *c = un_fault("http.conn") ? NULL : calloc(1, sizeof(*c));
    if (c && !pin_copy(spec->pin, &c->pin)) {
        free(c);
        c = NULL;
    }
    if (c) {
        evutil_make_socket_nonblocking(fd);
        c->bev = bufferevent_socket_new(un_loop_base(s->loop), fd, BEV_OPT_CLOSE_ON_FREE);
    }
    if (!c || !c->bev) {
        if (c) {
            free(c->pin);
        }
        free(c);
        close(fd);
        return un_error_set(err, -ENOMEM, "no memory for a connection");
    }
    c->server = s;
    c->fd = fd;
    c->is_unix = spec->is_unix;
    c->ex.conn = c;
    un_list_init(&c->idle);
    un_list_push(&s->conns, &c->node);
    s->conn_count++;
    un_timer_init(&c->timer, s->loop, on_timer, c);
    un_timer_init(&c->probe, s->loop, on_probe, c);
    c->post.fn = conn_process;
    c->post.arg = c;
    bufferevent_setcb(c->bev, on_read, on_write, on_event, c);
    bufferevent_setwatermark(c->bev, EV_WRITE, s->limits.buffer_bytes / 2, 0);
    evbuffer_add_cb(bufferevent_get_output(c->bev), on_output_changed, c);
    bufferevent_disable(c->bev, EV_WRITE); /* see send_output */
    bufferevent_enable(c->bev, EV_READ);
    c->state = CONN_IDLE;
    conn_place(c, spec->has_place);
    return 0;
}

/* The handler learns that the exchange is lost. */
static void lose_exchange(struct http_conn *c)
{
    struct http_exchange *ex = &c->ex;
    const struct http_handler *handler = ex->handler;
    void *arg = ex->arg;
    bool active = ex->active;
    ex->active = false;
    ex->handler = NULL;
    if (active && handler && handler->on_gone) {
        handler->on_gone(arg);
    }
}

void conn_close(struct http_conn *c)
{
    struct http_server *s = c->server;
    lose_exchange(c);
    exchange_reset(&c->ex);
    un_timer_cancel(&c->timer);
    un_timer_cancel(&c->probe);
    un_loop_unpost(s->loop, &c->post);
    s->places -= c->has_place;
    un_list_remove(&c->idle);
    un_list_remove(&c->node);
    bufferevent_free(c->bev);
    free(c->pin);
    free(c);
    server_conn_closed(s);
}

void conn_flush(struct http_conn *c)
{
    struct evbuffer *out = bufferevent_get_output(c->bev);
    if (!c->ex.active && !c->kill && evbuffer_get_length(out) > 0) {
        evbuffer_unfreeze(out, 1); /* a bufferevent keeps its output's front to itself */
        evbuffer_write(out, c->fd);
        evbuffer_freeze(out, 1);
    }
}

void conn_retire(struct http_conn *c)
{
    if (output_len(c) == 0) {
        conn_close(c);
    } else {
        set_state(c, CONN_FLUSH);
        conn_place(c, false);
    }
}

void conn_drain(struct http_conn *c)
{
    if (conn_has_unread(c)) {
        return; /* the request is read in its turn, and answered */
    }
    /* Who has connected without a word yet is probably about to send a request. */
    if (c->served || un_timer_arm_in(&c->timer, DRAIN_GRACE_US) < 0) {
        conn_retire(c);
    }
}

/* A reset instead of an orderly end, which could be taken for the end of the answer. */
static void cut(struct http_conn *c)
{
    un_socket_break(c->fd);
    conn_close(c);
}

void conn_wake(struct http_conn *c)
{
    if (!c->in_process) {
        un_loop_post(c->server->loop, &c->post);
    }
}

void conn_exchange_end(struct http_conn *c, bool whole)
{
    c->ex.active = false;
    c->ex.handler = NULL;
    c->ex.answered = true;
    if (!whole) {
        c->kill = true;
    }
    un_timer_cancel(&c->probe);
    conn_wake(c);
}

void conn_watch(struct http_conn *c)
{
    if (c->state == CONN_EXCHANGE && !un_timer_armed(&c->timer)) {
        c->moved_us = un_loop_now_us(c->server->loop);
        if (un_timer_arm_in(&c->timer, c->server->limits.stall_us) < 0) {
            c->kill = true;
        }
    }
}

/* --- failing ---------------------------------------------------------------------------------- */

/* Answers with an error of the server's own, if the answer has not begun yet, and ends the
 * connection. */
static void fail(struct http_conn *c, unsigned status, const char *why)
{
    struct http_exchange *ex = &c->ex;
    lose_exchange(c);
    if (ex->begun) {
        c->kill = true;
        return;
    }
    if (c->state != CONN_EXCHANGE) {
        exchange_reset(ex);
        ex->req.method = "GET";
        ex->req.minor = 1;
        set_state(c, CONN_EXCHANGE);
    }
    ex->active = true;
    ex->close_after = true;
    if (status == 503) {
        http_respond_field(ex, "Retry-After", "1");
    }
    http_respond_problem(ex, status, why);
}

/* Over the limit, and the time for the request's head is over, or that is whole. */
static void refuse(struct http_conn *c)
{
    c->server->refused++;
    fail(c, 503, "too many connections");
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Scans what has come of the head. 1: it is whole; 0: more is needed; or as http_scan_head. */
static int scan_input(struct http_conn *c, const char **why)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    const struct http_scan_limits limits = {.head_bytes = c->server->limits.head_bytes,
                                            .target_bytes = c->server->limits.target_bytes,
                                            .fields = c->server->limits.fields};
    while (c->scan.len < evbuffer_get_length(in)) {
        struct evbuffer_ptr at;
        struct evbuffer_iovec piece;
        if (evbuffer_ptr_set(in, &at, c->scan.len, EVBUFFER_PTR_SET) < 0 ||
            evbuffer_peek(in, -1, &at, &piece, 1) < 1) {
            return 0;
        }
        int rc = http_scan_head(&c->scan, &limits, piece.iov_base, piece.iov_len, why);
        if (rc == 1 && c->scan.len == 2) {
            /* An empty line before the request line, which RFC 9112 section 2.2 has us skip. It
             * counts: the time limit of the head is running. */
            evbuffer_drain(in, 2);
            memset(&c->scan, 0, sizeof(c->scan));
            continue;
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int start_body(struct http_exchange *ex)
{
    ex->body_left = ex->req.content_length;
    ex->has_body = ex->req.chunked || ex->req.content_length > 0;
    ex->body_done = !ex->has_body;
    if (ex->req.chunked) {
        ex->chunks = http_chunks_new();
        return ex->chunks ? 0 : -ENOMEM;
    }
    return 0;
}

static void start_exchange(struct http_conn *c)
{
    struct http_exchange *ex = &c->ex;
    const char *why = "";
    size_t len = c->scan.len;
    exchange_reset(ex);
    ex->head = malloc(len + 1);
    if (!ex->head || evbuffer_remove(bufferevent_get_input(c->bev), ex->head, len) != (int)len) {
        c->kill = true;
        return;
    }
    ex->head[len] = '\0';
    memset(&c->scan, 0, sizeof(c->scan));
    int rc = http_parse_head(ex->head, len, &ex->req, &why);
    if (rc < 0) {
        fail(c, (unsigned)-rc, why);
        return;
    }
    set_state(c, CONN_EXCHANGE);
    ex->active = true;
    ex->close_after = !ex->req.keep_alive || c->server->draining;
    if (start_body(ex) < 0) {
        fail(c, 500, "no memory");
        return;
    }
    if (!c->has_place) {
        if (!server_admit(c->server)) {
            refuse(c);
            return;
        }
        conn_place(c, true);
    }
    c->server->on_head(c->server->arg, ex);
}

/* IDLE and HEAD. Returns whether there is more to do now. */
static bool read_head(struct http_conn *c)
{
    const char *why = "";
    if (output_len(c) >= c->server->limits.buffer_bytes) {
        return false; /* earlier answers have to leave first; on_write comes back here */
    }
    if (c->state == CONN_IDLE && input_len(c) > 0) {
        set_state(c, CONN_HEAD);
    }
    int rc = scan_input(c, &why);
    if (rc == 1) {
        start_exchange(c);
        return true;
    }
    if (rc < 0) {
        fail(c, (unsigned)-rc, why);
        return true;
    }
    if (c->eof) {
        set_state(c, CONN_FLUSH);
        return true;
    }
    return false;
}

static void on_body_data(void *arg, const char *data, size_t len)
{
    struct http_exchange *ex = arg;
    if (ex->active && ex->handler && ex->handler->on_body) {
        ex->handler->on_body(ex->arg, data, len);
    } else {
        ex->dropped += len;
    }
}

/* Feeds one contiguous piece of input to the body. */
static void feed_body(struct http_conn *c)
{
    struct http_exchange *ex = &c->ex;
    struct evbuffer *in = bufferevent_get_input(c->bev);
    struct evbuffer_iovec piece;
    const char *why = "";
    if (evbuffer_peek(in, -1, NULL, &piece, 1) < 1) {
        return;
    }
    size_t taken = piece.iov_len;
    if (ex->chunks) {
        http_chunks_on_data(ex->chunks, on_body_data, ex);
        long n = http_chunks_feed(ex->chunks, piece.iov_base, piece.iov_len, &ex->body_done, &why);
        if (n < 0) {
            fail(c, 400, why);
            evbuffer_drain(in, taken);
            return;
        }
        taken = (size_t)n;
    } else {
        if ((uint64_t)taken >= (uint64_t)ex->body_left) {
            taken = (size_t)ex->body_left;
            ex->body_done = true;
        }
        ex->body_left -= (int64_t)taken;
        on_body_data(ex, piece.iov_base, taken);
    }
    evbuffer_drain(in, taken);
    if (ex->body_done && ex->active && ex->handler && ex->handler->on_body_end) {
        ex->handler->on_body_end(ex->arg);
    }
}

/* Whether the answered exchange lets the connection go on, once its body has been read. */
static bool worth_draining(const struct http_exchange *ex)
{
    bool unasked = ex->req.expect_continue && !ex->continue_sent;
    return !ex->close_after && !unasked && ex->dropped <= DRAIN_BYTES &&
           ex->body_left <= DRAIN_BYTES;
}

/* EXCHANGE. Returns whether there is more to do now. */
static bool read_body(struct http_conn *c)
{
    struct http_exchange *ex = &c->ex;
    if (ex->answered && (ex->body_done ? ex->close_after : !worth_draining(ex))) {
        set_state(c, CONN_FLUSH);
        return true;
    }
    if (ex->answered && ex->body_done) {
        /* This answer has promised that the connection goes on; who has relied on it and has sent
         * the next request gets an answer, though draining has begun meanwhile. */
        bool ends = c->server->draining && !conn_has_unread(c);
        exchange_reset(ex);
        c->served = true;
        set_state(c, ends ? CONN_FLUSH : CONN_IDLE);
        return true;
    }
    if (ex->body_done || !(ex->body_flows || ex->answered)) {
        return false;
    }
    if (input_len(c) > 0) {
        feed_body(c);
        return true;
    }
    if (c->eof) {
        if (ex->answered) {
            set_state(c, CONN_FLUSH);
        } else {
            fail(c, 400, "the request body is cut off");
        }
        return true;
    }
    conn_watch(c);
    return false;
}

/* FLUSH and LINGER. Returns whether there is more to do now; may ask for the connection's end. */
static bool finish(struct http_conn *c, bool *ret_close)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    c->lingered += evbuffer_get_length(in);
    evbuffer_drain(in, evbuffer_get_length(in));
    if (c->state == CONN_FLUSH) {
        if (output_len(c) > 0) {
            return false;
        }
        if (c->eof) {
            *ret_close = true;
            return false;
        }
        shutdown(c->fd, SHUT_WR);
        set_state(c, CONN_LINGER);
        conn_place(c, false);
        return true;
    }
    *ret_close = c->eof || c->lingered > LINGER_BYTES;
    return false;
}

/* Stops reading while enough is waiting. (libevent 2.1's own high watermark would call on_read over
 * and over as long as it is reached.) */
static void update_reading(struct http_conn *c)
{
    size_t head = c->server->limits.head_bytes;
    bool want = input_len(c) < (head > READ_AHEAD_BYTES ? head : READ_AHEAD_BYTES) && !c->eof;
    bool reads = bufferevent_get_enabled(c->bev) & EV_READ;
    if (want && !reads) {
        bufferevent_enable(c->bev, EV_READ);
    } else if (!want && reads) {
        bufferevent_disable(c->bev, EV_READ);
    }
}

/* The handler that was told to wait may go on. */
static void tell_writable(struct http_conn *c)
{
    struct http_exchange *ex = &c->ex;
    if (c->state == CONN_EXCHANGE && ex->active && ex->want_writable) {
        ex->want_writable = false;
        if (ex->handler && ex->handler->on_writable) {
            ex->handler->on_writable(ex->arg);
        }
    }
}

/* Hands the output to the kernel; what that does not take now is left to libevent, which then has
 * EV_WRITE enabled until all is out. (It would wait for the socket to be writable, with three system
 * calls more, before it tried at all.) False when the connection is broken. */
static bool send_output(struct http_conn *c)
{
    struct evbuffer *out = bufferevent_get_output(c->bev);
    if (evbuffer_get_length(out) == 0 || (bufferevent_get_enabled(c->bev) & EV_WRITE)) {
        return true;
    }
    evbuffer_unfreeze(out, 1); /* a bufferevent keeps its output's front to itself */
    int n = evbuffer_write(out, c->fd);
    evbuffer_freeze(out, 1);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        return false;
    }
    if (evbuffer_get_length(out) > 0) {
        bufferevent_enable(c->bev, EV_WRITE);
    }
    if (evbuffer_get_length(out) <= c->server->limits.buffer_bytes / 2) {
        tell_writable(c);
    }
    return true;
}

/* Goes through the states. Returns whether the connection is to be closed. */
static bool advance(struct http_conn *c)
{
    unsigned turns = 0;
    bool more = true, close_now = false;
    while (more && !c->kill) {
        switch (c->state) {
        case CONN_IDLE:
        case CONN_HEAD:
            more = read_head(c);
            turns++;
            break;
        case CONN_EXCHANGE:
            more = read_body(c);
            break;
        case CONN_FLUSH:
        case CONN_LINGER:
            more = finish(c, &close_now);
            break;
        }
        if (turns > LIMIT_HTTP_PIPELINE) {
            /* Others want their turn. */
            un_loop_post(c->server->loop, &c->post);
            break;
        }
    }
    return close_now;
}

static void conn_process(void *arg)
{
    struct http_conn *c = arg;
    c->in_process = true;
    bool close_now = !send_output(c) || advance(c);
    if (!c->kill && !close_now && output_len(c) > 0) {
        close_now = !send_output(c) || (output_len(c) == 0 && advance(c));
    }
    c->in_process = false;
    if (c->kill) {
        cut(c);
    } else if (close_now) {
        conn_close(c);
    } else {
        update_reading(c);
        if (output_len(c) > 0 && !(bufferevent_get_enabled(c->bev) & EV_WRITE)) {
            conn_wake(c); /* what a handler has added meanwhile */
        }
    }
}

/* --- events ----------------------------------------------------------------------------------- */

static void on_read(struct bufferevent *bev, void *arg)
{
    struct http_conn *c = arg;
    (void)bev;
    c->moved_us = un_loop_now_us(c->server->loop);
    conn_process(c);
}

static void on_write(struct bufferevent *bev, void *arg)
{
    struct http_conn *c = arg;
    if (output_len(c) == 0) {
        bufferevent_disable(bev, EV_WRITE);
    }
    tell_writable(c);
    if (c->state != CONN_EXCHANGE) {
        conn_process(c);
    }
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct http_conn *c = arg;
    (void)bev;
    if (!(what & BEV_EVENT_EOF) || (c->ex.active && c->ex.leave_on_eof)) {
        conn_close(c);
        return;
    }
    c->eof = true;
    if (c->state == CONN_EXCHANGE && c->ex.active) {
        struct http_exchange *ex = &c->ex;
        if (ex->body_done && !ex->begun && ex->req.minor >= 1 && !c->is_unix) {
            exchange_send_continue(
                ex); /* see server.h: a client that is gone will answer with a reset */
        }
        c->probe_us = PROBE_FIRST_US;
        if (un_timer_arm_in(&c->probe, c->probe_us) < 0) {
            c->kill = true;
        }
    }
    conn_process(c);
}

static void on_probe(void *arg)
{
    struct http_conn *c = arg;
    struct pollfd p = {.fd = c->fd};
    if (poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR))) {
        conn_close(c);
        return;
    }
    c->probe_us = c->probe_us * 2 > PROBE_MOST_US ? PROBE_MOST_US : c->probe_us * 2;
    if (un_timer_arm_in(&c->probe, c->probe_us) < 0) {
        conn_close(c);
    }
}

/* EXCHANGE: have bytes moved that should have? */
static void check_stall(struct http_conn *c)
{
    struct http_exchange *ex = &c->ex;
    bool sending = output_len(c) > 0;
    bool reading = !ex->body_done && (ex->body_flows || ex->answered) && input_len(c) == 0;
    uint64_t until = c->moved_us + c->server->limits.stall_us;
    if (!sending && !reading) {
        return;
    }
    if (un_loop_now_us(c->server->loop) < until) {
        if (un_timer_arm_at(&c->timer, until) < 0) {
            conn_close(c);
        }
    } else if (sending || ex->answered) {
        conn_close(c);
    } else {
        fail(c, 408, "the request body stopped coming");
        conn_process(c);
    }
}

/* IDLE or HEAD has lasted too long. */
static void no_request(struct http_conn *c)
{
    if (c->state == CONN_IDLE && input_len(c) == 0 && conn_has_unread(c)) {
        set_state(c, CONN_IDLE); /* its bytes have come in this very turn of the loop */
    } else if (!c->has_place && !c->server->draining && server_has_place(c->server)) {
        conn_place(c, true);
        set_state(c, c->state);
    } else if (!c->has_place) {
        refuse(c);
        conn_process(c);
    } else if (c->state == CONN_HEAD) {
        fail(c, 408, "the request head took too long");
        conn_process(c);
    } else {
        conn_close(c);
    }
}

static void on_timer(void *arg)
{
    struct http_conn *c = arg;
    switch (c->state) {
    case CONN_IDLE:
    case CONN_HEAD:
        no_request(c);
        return;
    case CONN_EXCHANGE:
        check_stall(c);
        return;
    case CONN_FLUSH: {
        uint64_t until = c->moved_us + c->server->limits.stall_us;
        if (un_loop_now_us(c->server->loop) < until && un_timer_arm_at(&c->timer, until) == 0) {
            return;
        }
        break;
    }
    case CONN_LINGER:
        break;
    }
    conn_close(c);
}
