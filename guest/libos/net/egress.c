/* egress.c - TCP connections to the outside: the host makes them, if the function may have them.
 *
 *     plain --connect--> connecting --host: writable, no error--> connected --close--> (gone)
 *                            |                                        |
 *                            +--------- host: an error ---------------+--> error, then end
 *
 * The host says with every call which connections can be read and written (host.h); net_poll_ready
 * wakes those who wait. Short reads are served from what was read ahead.
 */
#include <asm/signal.h>

#include "host.h"
#include "net/socket.h"

#define READABLE     1
#define WRITABLE     2
#define READ_AHEAD   16384
#define ASK_AFTER_NS 100000 /* a poll that finds nothing asks the host, so often */

static struct list sockets = {&sockets, &sockets};

static uint64_t bits(const struct socket *s)
{
    return (host_net_readable() >> s->handle & 1 ? READABLE : 0) |
           (host_net_writable() >> s->handle & 1 ? WRITABLE : 0);
}

void net_poll_ready(void)
{
    list_for (node, &sockets) {
        struct socket *s = container_of(node, struct socket, in_listen);
        uint64_t now = bits(s);
        if (now & ~s->seen) {
            readiness_changed(&s->ready);
        }
        s->seen = now;
    }
}

void egress_begin(void)
{
    if (host_interface() != UNID_INTERFACE_HTTP) {
        host_next();
    }
}

/* "host:port", for the host. */
static int where_of(const struct address *to, char *text, size_t size)
{
    uint8_t ip4[4];
    if (!address_ip4(to, ip4)) {
        const uint8_t *a = to->ip;
        return kformat(text, size, "[%x:%x:%x:%x:%x:%x:%x:%x]:%u", a[0] << 8 | a[1],
                       a[2] << 8 | a[3], a[4] << 8 | a[5], a[6] << 8 | a[7], a[8] << 8 | a[9],
                       a[10] << 8 | a[11], a[12] << 8 | a[13], a[14] << 8 | a[15], to->port);
    }
    const char *name = dns_name_of(ip4);
    if (name) {
        return kformat(text, size, "%s:%u", name, to->port);
    }
    if (ip4[0] == 198 && (ip4[1] & 254) == 18) {
        return -EHOSTUNREACH; /* no name has it */
    }
    return kformat(text, size, "%u.%u.%u.%u:%u", ip4[0], ip4[1], ip4[2], ip4[3], to->port);
}

static void hang_up(struct socket *s)
{
    if (s->has_handle) {
        s->has_handle = false;
        host_net_close(s->handle);
        list_del(&s->in_listen);
    }
}

int egress_progress(struct socket *s)
{
    if (!s->connecting) {
        return s->error;
    }
    if (!(bits(s) & WRITABLE)) {
        return -EINPROGRESS;
    }
    int64_t r = host_net_send(s->handle, "", 0); /* how the attempt ended */
    if (r == -EAGAIN) {
        return -EINPROGRESS;
    }
    s->connecting = false;
    if (r < 0) {
        s->error = (int)r;
        s->ended = true;
        hang_up(s);
    }
    return s->error;
}

/* Waits until the attempt has ended. */
static int finish_connect(struct socket *s, bool nonblocking)
{
    uint64_t deadline = socket_deadline(s->send_ns);
    while (true) {
        int r = egress_progress(s);
        if (r != -EINPROGRESS) {
            s->error = 0;
            if (r < 0) {
                s->kind = &plain_kind; /* may try again */
                s->ended = false;
            }
            return r;
        }
        if (nonblocking) {
            return r;
        }
        s->seen = 0;
        r = waitq_wait(&s->ready.q, deadline);
        if (r < 0) {
            return r == -ETIMEDOUT ? -EINPROGRESS : r;
        }
    }
}

int egress_connect(struct socket *s, const struct address *to, bool nonblocking)
{
    if (s->kind == &egress_kind) {
        return !s->connecting && !s->error                         ? -EISCONN
               : nonblocking && egress_progress(s) == -EINPROGRESS ? -EALREADY
                                                                   : finish_connect(s, nonblocking);
    }
    char where[320];
    int len = where_of(to, where, sizeof(where));
    if (len < 0 || (size_t)len >= sizeof(where)) {
        return len < 0 ? len : -EHOSTUNREACH;
    }
    egress_begin();
    int handle = host_net_open(where, (size_t)len);
    if (handle < 0) {
        return handle == -ENOSYS ? -ENETUNREACH : handle;
    }
    s->handle = (unsigned)handle;
    s->has_handle = true;
    s->connecting = true;
    s->seen = 0;
    s->kind = &egress_kind;
    list_add_tail(&sockets, &s->in_listen);
    if (!s->local.port) {
        s->local = address_loopback(&(struct address){.family = (uint16_t)s->family}, 0);
        socket_bind_ephemeral(s);
    }
    return finish_connect(s, nonblocking);
}

/* What the host has, into the buffer or past it. */
static int64_t receive(struct socket *s, void *to, size_t len)
{
    if (!s->has_handle || s->ended) {
        return 0;
    }
    char *ahead = len < PAGE_SIZE ? kalloc(READ_AHEAD) : NULL;
    int64_t n = host_net_recv(s->handle, ahead ? ahead : to, ahead ? READ_AHEAD : len);
    if (ahead && n > 0) {
        size_t kept = ring_write(&s->rx, ahead, (size_t)n);
        n = kept < (size_t)n ? -ENOBUFS : (int64_t)ring_read(&s->rx, to, len, false);
    }
    kfree(ahead);
    s->ended = n == 0 || (n < 0 && n != -EAGAIN);
    readiness_changed(&s->ready);
    return n;
}

static int64_t peek(struct socket *s, void *to, size_t len)
{
    if (!s->rx.len) {
        char first;
        int64_t n = receive(s, &first, 1);
        if (n <= 0) {
            return n;
        }
        /* Back to the front: the queue is used from its head. */
        s->rx.head = (s->rx.head + RING_SIZE - 1) % RING_SIZE;
        if (!s->rx.pages[s->rx.head / PAGE_SIZE] &&
            !(s->rx.pages[s->rx.head / PAGE_SIZE] = kalloc(PAGE_SIZE))) {
            return -ENOBUFS;
        }
        s->rx.pages[s->rx.head / PAGE_SIZE][s->rx.head % PAGE_SIZE] = first;
        s->rx.len++;
    }
    return (int64_t)ring_read(&s->rx, to, len, true);
}

static int64_t egress_recv(struct socket *s, void *to, size_t len, int flags, struct address *from)
{
    (void)from;
    uint64_t deadline = socket_deadline(s->receive_ns);
    size_t done = 0;
    while (true) {
        int64_t n = 0;
        if (s->connecting) {
            n = egress_progress(s);
            n = n == -EINPROGRESS ? -EAGAIN : n;
        }
        if (n == 0 && s->error) {
            n = s->error;
            s->error = 0;
        } else if (n == 0 && s->shut_read) {
            return (int64_t)done;
        } else if (n == 0 && (flags & MSG_PEEK)) {
            n = peek(s, to, len);
            if (n != -EAGAIN) {
                return n;
            }
        } else if (n == 0 && s->rx.len) {
            n = (int64_t)ring_read(&s->rx, (char *)to + done, len - done, false);
        } else if (n == 0) {
            n = receive(s, (char *)to + done, len - done);
        }
        done += n > 0 ? (size_t)n : 0;
        if (n == 0 || done == len || (n > 0 && !(flags & MSG_WAITALL))) {
            return (int64_t)done;
        }
        if (n < 0 && n != -EAGAIN) {
            return done ? (int64_t)done : n;
        }
        if (n == -EAGAIN) {
            s->seen &= ~(uint64_t)READABLE;
            int r = socket_wait(s, flags, deadline);
            if (r < 0) {
                return done ? (int64_t)done : r;
            }
        }
    }
}

static int64_t egress_send(struct socket *s, const void *from, size_t len, int flags,
                           const struct address *to)
{
    (void)to;
    uint64_t deadline = socket_deadline(s->send_ns);
    size_t done = 0;
    while (true) {
        int64_t n = s->connecting ? egress_progress(s) : 0;
        n = n == -EINPROGRESS ? -EAGAIN : n;
        if (n == 0 && (s->shut_write || !s->has_handle)) {
            n = -EPIPE;
        }
        if (n == 0) {
            n = host_net_send(s->handle, (const char *)from + done, len - done);
        }
        done += n > 0 ? (size_t)n : 0;
        if (done == len && n >= 0) {
            return (int64_t)done;
        }
        if (n == -EPIPE && !done && !(flags & MSG_NOSIGNAL)) {
            signal_raise(SIGPIPE);
        }
        if (n < 0 && n != -EAGAIN) {
            return done ? (int64_t)done : n;
        }
        if (n == -EAGAIN) {
            s->seen &= ~(uint64_t)WRITABLE;
            int r = socket_wait(s, flags, deadline);
            if (r < 0) {
                return done ? (int64_t)done : r;
            }
        }
    }
}

static uint32_t egress_poll(struct socket *s)
{
    if (s->connecting) {
        egress_progress(s);
    }
    uint64_t now = s->has_handle ? bits(s) : READABLE | WRITABLE;
    if (s->has_handle && now != (READABLE | WRITABLE) && !s->rx.len &&
        clock_monotonic_ns() - s->polled_ns > ASK_AFTER_NS) {
        host_wait(0); /* a program that only ever polls is told the news as well */
        s->polled_ns = clock_monotonic_ns();
        if (s->connecting) {
            egress_progress(s);
        }
        now = s->has_handle ? bits(s) : READABLE | WRITABLE;
    }
    uint32_t mask = s->error ? POLLERR : 0;
    if (s->connecting) {
        return mask;
    }
    if ((now & READABLE) || s->rx.len || s->shut_read || s->ended) {
        mask |= POLLIN | POLLRDNORM;
    }
    if (now & WRITABLE) {
        mask |= POLLOUT | POLLWRNORM;
    }
    if (s->ended && !s->rx.len) {
        mask |= POLLRDHUP | (s->has_handle ? 0 : POLLHUP);
    }
    return mask;
}

static size_t egress_readable(struct socket *s)
{
    return s->rx.len ? s->rx.len : s->has_handle && (bits(s) & READABLE) ? 1 : 0;
}

static int egress_shut(struct socket *s, bool reading, bool writing)
{
    if (s->connecting) {
        return -ENOTCONN;
    }
    if (writing && !s->shut_write && s->has_handle) {
        host_net_shut(s->handle);
    }
    s->shut_read |= reading;
    s->shut_write |= writing;
    readiness_changed(&s->ready);
    return 0;
}

const struct socket_kind egress_kind = {
    .recv = egress_recv,
    .send = egress_send,
    .poll = egress_poll,
    .readable = egress_readable,
    .shut = egress_shut,
    .close = hang_up,
};
