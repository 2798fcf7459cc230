/* door_stream.c - one connection to a function that speaks a protocol of its own.
 *
 *     client ── read ──> sched_call_body      held back: the call's buffer is full (on_body_room)
 *     client <── write ── on_data             held back: sched_call_data_done when the client has read
 *
 * The connection is a call from its first moment: it waits, wakes a machine, and is counted as one. Its
 * directions end one by one: the client's FIN is the end of the call's body, and data without bytes means
 * that the machine has shut its direction down. Whatever ends the call otherwise cuts the connection, by
 * a reset, so that it does not look like an end.
 *
 * A connection has no time limit of its own while both directions are open. Half closed, or all but
 * closed, it ends when no byte moves for a while; so does one of a client when unid is drained, unless it
 * has asked for something and not been answered.
 */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/door_impl.h"
#include "common/fault.h"
#include "common/socket.h"

enum { ROOM = LIMIT_HTTP_BUFFER_BYTES, READ_BYTES = 64 * 1024 };

struct stream {
    struct un_list node;
    struct door *d;
    struct bufferevent *bev;
    struct sched_call *call; /* NULL once it has ended */
    unsigned busy;           /* calls into the scheduler under way: free later */
    bool inner;
    bool asked;     /* the last bytes were the client's: it may be waiting for an answer */
    bool eof;       /* the client's direction has ended */
    bool data_held; /* sched_call_data_done is owed when the client has read on */
    bool shut;      /* the machine's direction has ended: so does ours, behind what is to be sent */
    bool shut_done;
    bool over;         /* the call is; the rest of its bytes is on its way */
    bool dead;         /* to be freed */
    uint64_t moved_us; /* when a byte was last read or sent */
    struct un_timer quiet;
};

static size_t unsent(const struct stream *s)
{
    return evbuffer_get_length(bufferevent_get_output(s->bev));
}

static void stream_free(struct stream *s)
{
    struct door *d = s->d;
    un_list_remove(&s->node);
    un_timer_cancel(&s->quiet);
    bufferevent_free(s->bev);
    free(s);
    d->stream_count--;
    door_stream_gone(d);
}

static void release(struct stream *s)
{
    if (s->dead && !s->busy) {
        stream_free(s);
    }
}

/* Ends it now; the client sees a reset when it was not whole. */
static void cut(struct stream *s, bool whole)
{
    if (s->dead) {
        return;
    }
    if (s->call) {
        sched_call_cancel(un_steal(&s->call));
    }
    if (!whole) {
        un_socket_break(bufferevent_getfd(s->bev));
    }
    bufferevent_disable(s->bev, EV_READ | EV_WRITE);
    s->dead = true;
    release(s);
}

/* --- time ------------------------------------------------------------------------------------- */

/* How long nothing may move; 0: for ever. */
static uint64_t patience_us(const struct stream *s)
{
    if (s->d->draining && !s->inner && !s->asked) {
        return LIMIT_TCP_DRAIN_QUIET_MS * 1000ull;
    }
    return s->over             ? LIMIT_HTTP_STALL_MS * 1000ull
           : s->eof || s->shut ? LIMIT_TCP_HALF_CLOSED_MS * 1000ull
                               : 0;
}

static void watch_quiet(struct stream *s)
{
    uint64_t patience = patience_us(s);
    if (patience > 0 && !s->dead) {
        (void)un_timer_arm_at(&s->quiet, s->moved_us + patience);
    }
}

static void on_quiet(void *arg)
{
    struct stream *s = arg;
    uint64_t patience = patience_us(s);
    if (patience == 0) {
        return;
    }
    if (un_loop_now_us(s->d->api->loop) < s->moved_us + patience) {
        watch_quiet(s);
    } else {
        cut(s, !s->over && unsent(s) == 0);
    }
}

static void moved(struct stream *s)
{
    s->moved_us = un_loop_now_us(s->d->api->loop);
}

/* --- from the client -------------------------------------------------------------------------- */

/* What is there, as far as the call takes it, and the end behind it. */
static void feed(struct stream *s, const void *data, size_t len, bool eof)
{
    if (!s->call || s->dead) {
        return;
    }
    s->busy++;
    int room = sched_call_body(s->call, data, len, eof);
    s->busy--;
    if (room == 0 && !s->dead) {
        bufferevent_disable(s->bev, EV_READ);
    }
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct stream *s = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    moved(s);
    s->asked = true;
    size_t len = evbuffer_get_contiguous_space(in);
    while (len > 0 && !s->dead) {
        feed(s, evbuffer_pullup(in, (ev_ssize_t)len), len, false);
        evbuffer_drain(in, len);
        len = evbuffer_get_contiguous_space(in);
    }
    release(s);
}

static void shut_when_sent(struct stream *s)
{
    if (s->shut && !s->shut_done && unsent(s) == 0) {
        s->shut_done = true;
        shutdown(bufferevent_getfd(s->bev), SHUT_WR);
    }
    if (s->over && unsent(s) == 0) {
        cut(s, true);
    }
}

static void data_done(struct stream *s)
{
    s->data_held = false;
    if (s->call) {
        s->busy++;
        sched_call_data_done(s->call);
        s->busy--;
    }
}

static void on_write(struct bufferevent *bev, void *arg)
{
    struct stream *s = arg;
    moved(s);
    if (s->data_held && unsent(s) <= ROOM / 2) {
        data_done(s);
    }
    if (s->dead) {
        release(s);
    } else {
        shut_when_sent(s);
    }
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct stream *s = arg;
    if (what & BEV_EVENT_EOF) {
        s->eof = true;
        moved(s);
        feed(s, NULL, 0, true);
        watch_quiet(s);
        release(s);
    } else {
        cut(s, false);
    }
}

/* --- from the function ------------------------------------------------------------------------ */

static void on_room(void *arg)
{
    struct stream *s = arg;
    if (!s->eof && !s->dead) {
        bufferevent_enable(s->bev, EV_READ);
    }
}

static void on_data(void *arg, const void *data, size_t len, bool last)
{
    struct stream *s = arg;
    if (s->dead) {
        return;
    }
    if (len > 0 && bufferevent_write(s->bev, data, len) < 0) {
        cut(s, false);
        return;
    }
    if (len > 0) {
        s->asked = false;
        moved(s);
    }
    if (len == 0 || last) {
        s->shut = true;
        /* on_write comes when all of it is gone. */
        bufferevent_setwatermark(s->bev, EV_WRITE, 0, 0);
        shut_when_sent(s);
    }
    watch_quiet(s);
    if (unsent(s) > ROOM && !last) {
        s->data_held = true;
    } else {
        data_done(s);
    }
    release(s);
}

static void on_response(void *arg, const struct sched_response *r)
{
    on_data(arg, r->data, r->len, r->last);
}

static void on_end(void *arg, const struct sched_outcome *outcome)
{
    struct stream *s = arg;
    s->call = NULL;
    if (outcome->kind != SCHED_OK) {
        cut(s, false);
        return;
    }
    s->over = true;
    watch_quiet(s);
    shut_when_sent(s);
}

static const struct sched_call_events events = {
    .on_body_room = on_room, .on_response = on_response, .on_data = on_data, .on_end = on_end};

/* --- the whole -------------------------------------------------------------------------------- */

static void keep_alive(int fd)
{
    int one = 1, idle_s = LIMIT_TCP_KEEPALIVE_S;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
}

int stream_open(struct door *d, const char *function, int fd, unsigned depth, struct un_error *err)
{
    struct stream *s = un_fault("door.stream") ? NULL : calloc(1, sizeof(*s));
    if (s) {
        evutil_make_socket_nonblocking(fd);
        s->bev = bufferevent_socket_new(un_loop_base(d->api->loop), fd, BEV_OPT_CLOSE_ON_FREE);
    }
    if (!s || !s->bev) {
        free(s);
        close(fd);
        return un_error_set(err, -ENOMEM, "no memory for a connection");
    }
    s->d = d;
    s->inner = depth > 0;
    moved(s);
    un_timer_init(&s->quiet, d->api->loop, on_quiet, s);
    un_list_push(&d->streams, &s->node);
    d->stream_count++;
    const struct sched_call_spec spec = {.function = function,
                                         .trigger = SCHED_TCP,
                                         .attempt = 1,
                                         .content_length = -1,
                                         .depth = depth,
                                         .events = &events,
                                         .arg = s};
    int rc = sched_call_start(d->api->scheduler, &spec, &s->call, err);
    if (rc < 0) {
        cut(s, false);
        return rc;
    }
    if (depth == 0) {
        keep_alive(fd);
    }
    bufferevent_setcb(s->bev, on_read, on_write, on_event, s);
    bufferevent_setwatermark(s->bev, EV_READ, 0, READ_BYTES);
    bufferevent_setwatermark(s->bev, EV_WRITE, ROOM / 2, 0);
    if (bufferevent_enable(s->bev, EV_READ | EV_WRITE) < 0) {
        cut(s, false);
        return un_error_set(err, -ENOMEM, "no memory for a connection");
    }
    watch_quiet(s);
    return 0;
}

void streams_drain(struct door *d)
{
    un_list_for_each (it, &d->streams) {
        watch_quiet(un_list_entry(it, struct stream, node));
    }
}

void streams_close(struct door *d)
{
    un_list_for_each_safe (it, &d->streams) {
        cut(un_list_entry(it, struct stream, node), false);
    }
}
