/* datagram.c - sockets of messages: UDP, and AF_UNIX datagrams and packets.
 *
 * UDP reaches the guest's own sockets, and port 53 of any address: there dns.c answers, at once.
 * The host carries no other UDP.
 */
#include <asm/signal.h>

#include "mm.h"
#include "net/socket.h"

#define MESSAGE_MAX 65507 /* of UDP */

static int deliver(struct socket *to, const void *data, size_t len, const struct address *from)
{
    struct message *m = kalloc(sizeof(*m) + len);
    if (!m) {
        return -ENOBUFS;
    }
    m->from = *from;
    m->len = len;
    memcpy(m->data, data, len);
    list_add_tail(&to->messages, &m->node);
    to->queued += len;
    readiness_changed(&to->ready);
    return 0;
}

static bool is_full(const struct socket *s)
{
    return s->queued >= s->receive_buffer;
}

static int64_t ask_dns(struct socket *s, const void *data, size_t len, const struct address *to)
{
    uint8_t *reply = kalloc(DNS_REPLY_MAX);
    if (!reply) {
        return -ENOBUFS;
    }
    size_t n = dns_answer(data, len, reply, DNS_REPLY_MAX);
    int r = n ? deliver(s, reply, n, to) : 0; /* what is no query gets no answer */
    kfree(reply);
    return r < 0 ? r : (int64_t)len;
}

static int64_t send_inet(struct socket *s, const void *data, size_t len, const struct address *to)
{
    if (!to) {
        if (s->peer.family == AF_UNSPEC) {
            return -EDESTADDRREQ;
        }
        to = &s->peer;
    }
    if (len > MESSAGE_MAX) {
        return -EMSGSIZE;
    }
    if (to->family != s->family) {
        return -EAFNOSUPPORT;
    }
    if (!s->local.port) {
        s->local = address_loopback(&(struct address){.family = (uint16_t)s->family}, 0);
        int r = socket_bind_ephemeral(s);
        if (r < 0) {
            return r;
        }
    }
    struct socket *own = address_is_loopback(to) ? socket_find(SOCK_DGRAM, to, false) : NULL;
    if (own) {
        if (is_full(own)) {
            return (int64_t)len; /* lost, as UDP may be */
        }
        struct address from = s->local;
        if (address_is_any(&from)) {
            from = address_loopback(to, s->local.port);
        }
        int r = deliver(own, data, len, &from);
        return r < 0 ? r : (int64_t)len;
    }
    if (to->port == DNS_PORT) {
        return ask_dns(s, data, len, to);
    }
    if (address_is_loopback(to)) {
        s->error = -ECONNREFUSED; /* as the ICMP message would tell */
        readiness_changed(&s->ready);
        return (int64_t)len;
    }
    return -ENETUNREACH;
}

static int64_t send_unix(struct socket *s, const void *data, size_t len, int flags,
                         const struct address *to)
{
    uint64_t deadline = socket_deadline(s->send_ns);
    if (len > s->send_buffer) {
        return -EMSGSIZE;
    }
    while (true) {
        struct socket *other = s->other;
        const struct address *name = to ? to : s->peer.path_len ? &s->peer : NULL;
        if (!other && name && s->type == SOCK_DGRAM) {
            int r = socket_find_unix(name, s->type, &other);
            if (r < 0) {
                return r;
            }
        }
        if (s->shut_write || (!other && s->type == SOCK_SEQPACKET && s->ended)) {
            if (!(flags & MSG_NOSIGNAL)) {
                signal_raise(SIGPIPE);
            }
            return -EPIPE;
        }
        if (!other) {
            return s->ended ? -ECONNREFUSED : -ENOTCONN;
        }
        if (other->shut_read) {
            return -EPIPE;
        }
        if (!is_full(other)) {
            int r = deliver(other, data, len, &s->local);
            return r < 0 ? r : (int64_t)len;
        }
        if (flags & MSG_DONTWAIT) {
            return -EAGAIN;
        }
        int r = waitq_wait(&other->ready.q, deadline); /* changes when it reads */
        if (r < 0) {
            return r == -ETIMEDOUT ? -EAGAIN : r;
        }
    }
}

static int64_t datagram_send(struct socket *s, const void *data, size_t len, int flags,
                             const struct address *to)
{
    return s->family == AF_UNIX ? send_unix(s, data, len, flags, to) : send_inet(s, data, len, to);
}

static int64_t datagram_recv(struct socket *s, void *to, size_t len, int flags,
                             struct address *ret_from)
{
    uint64_t deadline = socket_deadline(s->receive_ns);
    while (list_empty(&s->messages)) {
        if (s->error) {
            int error = s->error;
            s->error = 0;
            return error;
        }
        if (s->shut_read ||
            (s->type == SOCK_SEQPACKET && (s->ended || (s->other && s->other->shut_write)))) {
            return 0;
        }
        int r = socket_wait(s, flags, deadline);
        if (r < 0) {
            return r;
        }
    }
    struct message *m = container_of(s->messages.next, struct message, node);
    size_t all = m->len, n = all < len ? all : len;
    memcpy(to, m->data, n);
    if (ret_from) {
        *ret_from = m->from;
    }
    if (!(flags & MSG_PEEK)) {
        s->queued -= all;
        list_del(&m->node);
        kfree(m);
        readiness_changed(&s->ready);
        if (s->other) {
            readiness_changed(&s->other->ready);
        }
    }
    return (int64_t)(flags & MSG_TRUNC ? all : n);
}

static uint32_t datagram_poll(struct socket *s)
{
    uint32_t mask = s->error ? POLLERR : 0;
    if (!list_empty(&s->messages) || s->shut_read) {
        mask |= POLLIN | POLLRDNORM;
    }
    if (s->type == SOCK_SEQPACKET && s->ended) {
        mask |= POLLIN | POLLRDNORM | POLLHUP | POLLRDHUP;
    }
    if (!s->other || !is_full(s->other)) {
        mask |= POLLOUT | POLLWRNORM;
    }
    return mask;
}

static size_t datagram_readable(struct socket *s)
{
    return list_empty(&s->messages) ? 0 : container_of(s->messages.next, struct message, node)->len;
}

static int datagram_shut(struct socket *s, bool reading, bool writing)
{
    if (!s->other && s->peer.family == AF_UNSPEC) {
        return -ENOTCONN;
    }
    s->shut_read |= reading;
    s->shut_write |= writing;
    readiness_changed(&s->ready);
    if (s->other) {
        readiness_changed(&s->other->ready);
    }
    return 0;
}

static void datagram_close(struct socket *s)
{
    while (!list_empty(&s->messages)) {
        struct message *m = container_of(s->messages.next, struct message, node);
        list_del(&m->node);
        kfree(m);
    }
    if (s->other) {
        s->other->other = NULL;
        s->other->ended = true;
        readiness_changed(&s->other->ready);
    }
}

const struct socket_kind datagram_kind = {
    .recv = datagram_recv,
    .send = datagram_send,
    .poll = datagram_poll,
    .readable = datagram_readable,
    .shut = datagram_shut,
    .close = datagram_close,
};
