/* splice.c - see splice.h. */
#include "common/splice.h"

#include <errno.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/socket.h"

/* From one socket to the other. */
struct way {
    struct un_splice *s;
    int from, to;
    struct event *readable, *writable;
    unsigned char *held; /* [at, len): read and not written yet; NULL: nothing */
    size_t at, len;
    uint64_t bytes;
    bool ended; /* the end of input was passed on */
};

struct un_splice {
    struct way ways[2];
    void (*done)(void *arg, const struct un_splice_stats *stats);
    void *arg;
};

static void way_done(struct way *w)
{
    if (w->readable) {
        event_free(un_steal(&w->readable));
    }
    if (w->writable) {
        event_free(un_steal(&w->writable));
    }
    free(un_steal(&w->held));
}

static void splice_close(struct un_splice *s, bool reset)
{
    for (int i = 0; i < 2; i++) {
        way_done(&s->ways[i]);
        if (reset) {
            un_socket_break(s->ways[i].from);
        }
    }
    close(s->ways[0].from);
    close(s->ways[0].to);
    free(s);
}

/* Ends it: `rc` 0 or what broke. */
static void finish(struct un_splice *s, int rc)
{
    struct un_splice_stats stats;
    void (*done)(void *arg, const struct un_splice_stats *stats) = s->done;
    void *arg = s->arg;
    un_splice_get_stats(s, &stats);
    stats.rc = rc;
    splice_close(s, rc < 0);
    done(arg, &stats);
}

/* Bytes that the other side takes now; 0 when none, or a negative errno. */
static ssize_t put(struct way *w, const void *data, size_t len)
{
    ssize_t n = send(w->to, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    }
    w->bytes += (uint64_t)n;
    return n;
}

/* Keeps what the other side did not take, and waits for it. */
static int hold(struct way *w, const unsigned char *data, size_t len)
{
    w->held = un_fault("splice.hold") ? NULL : malloc(len);
    if (!w->held) {
        return -ENOMEM;
    }
    memcpy(w->held, data, len);
    w->at = 0;
    w->len = len;
    event_del(w->readable);
    return event_add(w->writable, NULL) < 0 ? -ENOMEM : 0;
}

/* The input has ended and all of it is written. 1: the other direction has ended as well. */
static int pass_end(struct way *w)
{
    event_del(w->readable);
    w->ended = true;
    if (w->s->ways[0].ended && w->s->ways[1].ended) {
        return 1;
    }
    return shutdown(w->to, SHUT_WR) < 0 ? -errno : 0;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct way *w = arg;
    unsigned char room[UN_SPLICE_HELD];
    ssize_t n = recv(w->from, room, sizeof(room), MSG_DONTWAIT);
    int rc = 0;
    if (n < 0) {
        rc = errno == EAGAIN || errno == EINTR ? 0 : -errno;
    } else if (n == 0) {
        rc = pass_end(w);
    } else {
        ssize_t put_len = put(w, room, (size_t)n);
        rc = put_len < 0   ? (int)put_len
             : put_len < n ? hold(w, room + put_len, (size_t)(n - put_len))
                           : 0;
    }
    if (rc != 0) {
        finish(w->s, rc < 0 ? rc : 0);
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct way *w = arg;
    ssize_t n = put(w, w->held + w->at, w->len - w->at);
    int rc = n < 0 ? (int)n : 0;
    w->at += n > 0 ? (size_t)n : 0;
    if (rc == 0 && w->at == w->len) {
        free(un_steal(&w->held));
        rc = event_add(w->readable, NULL) < 0 ? -ENOMEM : 0;
    } else if (rc == 0) {
        rc = event_add(w->writable, NULL) < 0 ? -ENOMEM : 0;
    }
    if (rc < 0) {
        finish(w->s, rc);
    }
}

static bool way_init(struct way *w, struct un_splice *s, struct un_loop *loop, int from, int to)
{
    struct event_base *base = un_loop_base(loop);
    *w = (struct way){.s = s, .from = from, .to = to};
    w->readable = event_new(base, from, EV_READ | EV_PERSIST, on_readable, w);
    w->writable = event_new(base, to, EV_WRITE, on_writable, w);
    return w->readable && w->writable && event_add(w->readable, NULL) == 0;
}

int un_splice_new(struct un_loop *loop, int a, int b,
                  void (*done)(void *arg, const struct un_splice_stats *stats), void *arg,
                  struct un_splice **ret, struct un_error *err)
{
    struct un_splice *s = un_fault("splice.alloc") ? NULL : calloc(1, sizeof(*s));
    if (!s) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    s->done = done;
    s->arg = arg;
    if (!way_init(&s->ways[0], s, loop, a, b) || !way_init(&s->ways[1], s, loop, b, a)) {
        way_done(&s->ways[0]);
        way_done(&s->ways[1]);
        free(s);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    *ret = s;
    return 0;
}

void un_splice_get_stats(const struct un_splice *s, struct un_splice_stats *ret)
{
    *ret = (struct un_splice_stats){.a_to_b = s->ways[0].bytes, .b_to_a = s->ways[1].bytes};
}

void un_splice_free(struct un_splice *s)
{
    if (s) {
        splice_close(s, true);
    }
}
