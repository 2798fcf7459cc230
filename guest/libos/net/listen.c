/* listen.c - listening sockets, and which of them gets the request.
 *
 * The one request of an `http` program comes to the listener on port $PORT, or else to the first
 * one. Connections of the program to itself (pair.c) come to every listener.
 */
#include "host.h"
#include "net/socket.h"

static struct list listeners = {&listeners, &listeners}; /* in the order of listen() */
static bool request_taken;
static uint16_t wanted_port;

#ifdef LIBOS_HOSTED
void request_forget(void)
{
    request_taken = false;
}
#endif

void net_set_port(uint16_t port)
{
    wanted_port = port;
}

/* The listener that the request comes to. */
static const struct socket *chosen(void)
{
    const struct socket *first = NULL;
    list_for (node, &listeners) {
        const struct socket *s = container_of(node, struct socket, in_listen);
        if (s->family == AF_UNIX) {
            continue;
        }
        if (s->local.port == wanted_port) {
            return s;
        }
        first = first ? first : s;
    }
    return first;
}

bool listener_wants_request(const struct socket *s)
{
    return s->kind == &listener_kind && !request_taken && !request_here &&
           host_interface() == UNID_INTERFACE_HTTP && chosen() == s;
}

static bool has_request(const struct socket *s)
{
    return !request_taken && host_interface() == UNID_INTERFACE_HTTP && request_here &&
           chosen() == s;
}

void request_arrived(void)
{
    list_for (node, &listeners) {
        readiness_changed(&container_of(node, struct socket, in_listen)->ready);
    }
}

int listener_start(struct socket *s, int backlog)
{
    if (s->type != SOCK_STREAM && s->type != SOCK_SEQPACKET) {
        return -EOPNOTSUPP;
    }
    s->backlog = backlog < 1 ? 1 : backlog > 4096 ? 4096 : (uint32_t)backlog;
    if (s->kind == &listener_kind) {
        return 0;
    }
    if (s->kind != &plain_kind || (s->family == AF_UNIX && !s->local.path_len)) {
        return -EINVAL;
    }
    if (s->family != AF_UNIX && s->local.port && host_interface() != UNID_INTERFACE_HTTP) {
        klog("the program listens on port %u, where only it itself can connect: a server is "
             "deployed with "
             "--interface http",
             s->local.port);
    }
    if (s->family != AF_UNIX && !s->local.port) {
        int r = socket_bind_ephemeral(s);
        if (r < 0) {
            return r;
        }
    }
    s->kind = &listener_kind;
    list_add_tail(&listeners, &s->in_listen);
    readiness_changed(&s->ready); /* who polls already */
    return 0;
}

int listener_accept(struct socket *s, int flags, struct socket **ret)
{
    uint64_t deadline = socket_deadline(s->receive_ns);
    while (true) {
        if (s->kind != &listener_kind || s->shut_read) {
            return -EINVAL;
        }
        if (!list_empty(&s->pending)) {
            *ret = container_of(s->pending.next, struct socket, in_listen);
            list_del(&(*ret)->in_listen);
            s->pending_count--;
            return 0;
        }
        if (has_request(s)) {
            *ret = request_accept(s);
            request_taken = *ret != NULL;
            return *ret ? 0 : -ENOMEM;
        }
        bool waits = listener_wants_request(s);
        request_waiters += waits;
        int r = socket_wait(s, flags, deadline);
        request_waiters -= waits;
        if (r < 0) {
            return r;
        }
    }
}

static uint32_t listener_poll(struct socket *s)
{
    return !list_empty(&s->pending) || has_request(s) ? POLLIN | POLLRDNORM : 0;
}

static int64_t listener_recv(struct socket *s, void *to, size_t len, int flags,
                             struct address *ret_from)
{
    (void)s, (void)to, (void)len, (void)flags, (void)ret_from;
    return -ENOTCONN;
}

static int64_t listener_send(struct socket *s, const void *from, size_t len, int flags,
                             const struct address *to)
{
    (void)s, (void)from, (void)len, (void)flags, (void)to;
    return -EPIPE;
}

static int listener_shut(struct socket *s, bool reading, bool writing)
{
    (void)writing;
    if (reading) {
        s->shut_read = true;
        readiness_changed(&s->ready);
    }
    return 0;
}

static void listener_close(struct socket *s)
{
    while (!list_empty(&s->pending)) {
        socket_free(container_of(s->pending.next, struct socket, in_listen));
    }
}

const struct socket_kind listener_kind = {
    .recv = listener_recv,
    .send = listener_send,
    .poll = listener_poll,
    .shut = listener_shut,
    .close = listener_close,
};
