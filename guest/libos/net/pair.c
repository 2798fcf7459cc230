/* pair.c - two stream sockets of the guest joined: socketpair, AF_UNIX, and TCP to itself. */
#include <asm/signal.h>

#include "net/socket.h"

void pair_join(struct socket *a, struct socket *b)
{
    if (a->type == SOCK_STREAM) {
        a->kind = b->kind = &pair_kind;
    }
    a->other = b;
    b->other = a;
}

int pair_connect(struct socket *s, struct socket *listener)
{
    if (listener->pending_count > listener->backlog) {
        return -EAGAIN;
    }
    struct socket *end = socket_new(listener->family, listener->type, listener->protocol);
    if (!end) {
        return -ENOMEM;
    }
    end->local = listener->local;
    if (end->family != AF_UNIX) {
        end->local = address_loopback(&listener->local, listener->local.port);
        end->peer = address_loopback(&listener->local, s->local.port);
    } else {
        end->peer = s->local;
    }
    pair_join(s, end);
    list_add_tail(&listener->pending, &end->in_listen);
    listener->pending_count++;
    readiness_changed(&s->ready);
    readiness_changed(&listener->ready);
    return 0;
}

static void both_changed(struct socket *s)
{
    readiness_changed(&s->ready);
    if (s->other) {
        readiness_changed(&s->other->ready);
    }
}

static bool at_end(const struct socket *s)
{
    return s->shut_read || !s->other || s->other->shut_write;
}

static int64_t pair_recv(struct socket *s, void *to, size_t len, int flags, struct address *from)
{
    (void)from;
    uint64_t deadline = socket_deadline(s->receive_ns);
    size_t done = 0;
    while (true) {
        size_t n = ring_read(&s->rx, (char *)to + done, len - done, flags & MSG_PEEK);
        done += n;
        if (n && !(flags & MSG_PEEK)) {
            both_changed(s);
        }
        if (done == len || (done && (!(flags & MSG_WAITALL) || (flags & MSG_PEEK)))) {
            return (int64_t)done;
        }
        if (s->error && !done) {
            int error = s->error;
            s->error = 0;
            return error;
        }
        if (at_end(s)) {
            return (int64_t)done;
        }
        int r = socket_wait(s, flags, deadline);
        if (r < 0) {
            return done ? (int64_t)done : r;
        }
    }
}

static int64_t pair_send(struct socket *s, const void *from, size_t len, int flags,
                         const struct address *to)
{
    (void)to;
    uint64_t deadline = socket_deadline(s->send_ns);
    size_t done = 0;
    while (true) {
        if (!s->other || s->shut_write || s->other->shut_read) {
            if (done) {
                return (int64_t)done;
            }
            if (!(flags & MSG_NOSIGNAL)) {
                signal_raise(SIGPIPE);
            }
            return -EPIPE;
        }
        size_t n = ring_write(&s->other->rx, (const char *)from + done, len - done);
        done += n;
        if (n) {
            readiness_changed(&s->other->ready);
        }
        if (done == len) {
            return (int64_t)done;
        }
        if (!n && ring_room(&s->other->rx)) {
            return done ? (int64_t)done : -ENOBUFS;
        }
        int r = socket_wait(s, flags, deadline);
        if (r < 0) {
            return done ? (int64_t)done : r;
        }
    }
}

static uint32_t pair_poll(struct socket *s)
{
    uint32_t mask = s->error ? POLLERR : 0;
    if (s->rx.len || at_end(s)) {
        mask |= POLLIN | POLLRDNORM;
    }
    if (at_end(s)) {
        mask |= POLLRDHUP;
    }
    if (!s->other || (at_end(s) && s->shut_write)) {
        mask |= POLLHUP;
    }
    if (!s->other || s->shut_write || ring_room(&s->other->rx) >= PAGE_SIZE) {
        mask |= POLLOUT | POLLWRNORM;
    }
    return mask;
}

static size_t pair_readable(struct socket *s)
{
    return s->rx.len;
}

static int pair_shut(struct socket *s, bool reading, bool writing)
{
    s->shut_read |= reading;
    s->shut_write |= writing;
    both_changed(s);
    return 0;
}

static void pair_close(struct socket *s)
{
    struct socket *other = s->other;
    if (other) {
        if (s->rx.len && other->family != AF_UNIX) {
            other->error = -ECONNRESET; /* what was sent is never read */
        }
        other->other = NULL;
        readiness_changed(&other->ready);
    }
}

const struct socket_kind pair_kind = {
    .recv = pair_recv,
    .send = pair_send,
    .poll = pair_poll,
    .readable = pair_readable,
    .shut = pair_shut,
    .close = pair_close,
};
