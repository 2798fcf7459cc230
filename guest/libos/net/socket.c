/* socket.c - sockets as open files; making, binding, connecting, accepting them. */
#include <asm/ioctls.h>

#include "mm.h"
#include "net/socket.h"
#include "sys_file.h"

static struct list all_sockets = {&all_sockets, &all_sockets};

/* --- kind plain ------------------------------------------------------------------------------- */

static int64_t plain_recv(struct socket *s, void *to, size_t len, int flags, struct address *from)
{
    (void)s, (void)to, (void)len, (void)flags, (void)from;
    return s->family == AF_UNIX ? -EINVAL : -ENOTCONN;
}

static int64_t plain_send(struct socket *s, const void *from, size_t len, int flags,
                          const struct address *to)
{
    (void)s, (void)from, (void)len, (void)flags, (void)to;
    return s->family == AF_UNIX ? -ENOTCONN : -EPIPE;
}

static uint32_t plain_poll(struct socket *s)
{
    return POLLHUP | POLLOUT | POLLWRNORM | (s->error ? POLLERR : 0);
}

static int plain_shut(struct socket *s, bool reading, bool writing)
{
    (void)s, (void)reading, (void)writing;
    return -ENOTCONN;
}

const struct socket_kind plain_kind = {
    .recv = plain_recv,
    .send = plain_send,
    .poll = plain_poll,
    .shut = plain_shut,
};

/* --- objects ---------------------------------------------------------------------------------- */

struct socket *socket_new(uint32_t family, uint32_t type, uint32_t protocol)
{
    struct socket *s = kalloc(sizeof(*s));
    if (!s) {
        return NULL;
    }
    s->kind = type == SOCK_STREAM ? &plain_kind : &datagram_kind;
    s->family = family;
    s->type = type;
    s->protocol = protocol;
    s->local.family = (uint16_t)family;
    s->send_buffer = s->receive_buffer = 212992; /* as Linux's rmem_default */
    readiness_init(&s->ready);
    list_init(&s->in_listen);
    list_init(&s->pending);
    list_init(&s->messages);
    list_add_tail(&all_sockets, &s->all);
    return s;
}

void socket_free(struct socket *s)
{
    if (s->kind->close) {
        s->kind->close(s);
    }
    list_del(&s->all);
    list_del(&s->in_listen);
    inode_unref(s->inode);
    ring_free(&s->rx);
    kfree(s);
}

struct socket *socket_find(uint32_t type, const struct address *to, bool listening)
{
    list_for (node, &all_sockets) {
        struct socket *s = container_of(node, struct socket, all);
        bool holds = s->kind == &listener_kind || (!listening && s->kind == &plain_kind) ||
                     s->kind == &datagram_kind; /* its address; connections are no hindrance */
        if (s->type != type || s->local.family == AF_UNIX || !s->local.port || !holds) {
            continue;
        }
        if (address_matches(&s->local, to)) {
            return s;
        }
    }
    return NULL;
}

bool socket_nonblocking(const struct file *f, int flags)
{
    return (flags & MSG_DONTWAIT) || file_nonblocking(f);
}

uint64_t socket_deadline(uint64_t span_ns)
{
    return span_ns ? clock_monotonic_ns() + span_ns : NO_DEADLINE;
}

int socket_wait(struct socket *s, int flags, uint64_t deadline_ns)
{
    if (flags & MSG_DONTWAIT) {
        return -EAGAIN;
    }
    int r = waitq_wait(&s->ready.q, deadline_ns);
    return r == -ETIMEDOUT ? -EAGAIN : r;
}

/* --- as open files ---------------------------------------------------------------------------- */

static int64_t socket_read(struct file *f, void *to, size_t len, uint64_t *pos)
{
    (void)pos;
    struct socket *s = f->priv;
    if (!len && s->type == SOCK_STREAM) {
        return 0;
    }
    return s->kind->recv(s, to, len, file_nonblocking(f) ? MSG_DONTWAIT : 0, NULL);
}

static int64_t socket_write(struct file *f, const void *from, size_t len, uint64_t *pos)
{
    (void)pos;
    struct socket *s = f->priv;
    return s->kind->send(s, from, len, file_nonblocking(f) ? MSG_DONTWAIT : 0, NULL);
}

static uint32_t socket_poll(struct file *f)
{
    struct socket *s = f->priv;
    return s->kind->poll(s);
}

static struct readiness *socket_readiness(struct file *f)
{
    return &((struct socket *)f->priv)->ready;
}

static bool socket_wants_request(struct file *f)
{
    return listener_wants_request(f->priv);
}

static int64_t socket_ioctl(struct file *f, uint32_t request, uint64_t arg)
{
    struct socket *s = f->priv;
    int *value = (int *)(uintptr_t)arg;
    if (request != FIONREAD && request != TIOCOUTQ) {
        return -ENOTTY;
    }
    if (s->kind == &listener_kind) {
        return -EINVAL;
    }
    if (!user_writable(value, sizeof(*value))) {
        return -EFAULT;
    }
    *value = request == FIONREAD && s->kind->readable ? (int)s->kind->readable(s) : 0;
    return 0;
}

static int socket_stat(struct file *f, struct stat *ret)
{
    ret->st_mode = S_IFSOCK | 0777;
    ret->st_ino = (uintptr_t)f->priv >> 4;
    return 0;
}

static void socket_release(struct file *f)
{
    socket_free(f->priv);
}

#define SOCKET_OPS                                                                                 \
    .name = "socket", .read = socket_read, .write = socket_write, .poll = socket_poll,             \
    .ready = socket_readiness, .wants_request = socket_wants_request, .ioctl = socket_ioctl,       \
    .stat = socket_stat, .release = socket_release
static const struct file_ops stream_ops = {SOCKET_OPS};
static const struct file_ops message_ops = {SOCKET_OPS, .messages = true};

struct file *socket_file(struct socket *s, uint32_t flags)
{
    return file_new(s->type == SOCK_STREAM ? &stream_ops : &message_ops, NULL,
                    O_RDWR | (flags & O_NONBLOCK), s);
}

struct socket *socket_of_file(const struct file *f)
{
    return f->ops == &stream_ops || f->ops == &message_ops ? f->priv : NULL;
}

int socket_of_fd(int fd, struct socket **ret, struct file **ret_file)
{
    struct file *f = fd_get(fd);
    if (!f) {
        return -EBADF;
    }
    if (!socket_of_file(f)) {
        return -ENOTSOCK;
    }
    *ret = f->priv;
    *ret_file = file_ref(f);
    return 0;
}

/* Gives the socket a descriptor, or frees it. */
static int socket_install(struct socket *s, int flags)
{
    struct file *f = socket_file(s, (uint32_t)flags);
    if (!f) {
        socket_free(s);
        return -ENOMEM;
    }
    return fd_install_flags(f, (uint32_t)flags);
}

/* --- calls ------------------------------------------------------------------------------------ */

static int check_type(int family, int type, int protocol)
{
    int kind = type & SOCK_TYPE_MASK;
    if (type & ~(SOCK_TYPE_MASK | SOCK_NONBLOCK | SOCK_CLOEXEC)) {
        return -EINVAL;
    }
    switch (family) {
    case AF_INET:
    case AF_INET6:
        if (kind == SOCK_STREAM) {
            return protocol == 0 || protocol == PROTO_TCP ? 0 : -EPROTONOSUPPORT;
        }
        if (kind == SOCK_DGRAM) {
            return protocol == 0 || protocol == PROTO_UDP ? 0 : -EPROTONOSUPPORT;
        }
        return kind == 3 ? -EPERM : -ESOCKTNOSUPPORT; /* raw */
    case AF_UNIX:
        if (protocol && protocol != AF_UNIX) {
            return -EPROTONOSUPPORT;
        }
        return kind == SOCK_STREAM || kind == SOCK_DGRAM || kind == SOCK_SEQPACKET
                   ? 0
                   : -ESOCKTNOSUPPORT;
    default:
        return -EAFNOSUPPORT;
    }
}

int64_t sys_socket(int family, int type, int protocol)
{
    int r = check_type(family, type, protocol);
    if (r < 0) {
        return r;
    }
    uint32_t kind = type & SOCK_TYPE_MASK;
    if (!protocol && family != AF_UNIX) {
        protocol = kind == SOCK_STREAM ? PROTO_TCP : PROTO_UDP;
    }
    struct socket *s = socket_new((uint32_t)family, kind, (uint32_t)protocol);
    return s ? socket_install(s, type) : -ENOMEM;
}

int64_t sys_socketpair(int family, int type, int protocol, int *ret_fds)
{
    if (!user_writable(ret_fds, 2 * sizeof(*ret_fds))) {
        return -EFAULT;
    }
    int r = check_type(family, type, protocol);
    if (r < 0) {
        return r;
    }
    if (family != AF_UNIX) {
        return -EOPNOTSUPP;
    }
    uint32_t kind = type & SOCK_TYPE_MASK;
    struct socket *a = socket_new(AF_UNIX, kind, 0), *b = a ? socket_new(AF_UNIX, kind, 0) : NULL;
    if (!b) {
        if (a) {
            socket_free(a);
        }
        return -ENOMEM;
    }
    pair_join(a, b);
    int one = socket_install(a, type);
    if (one < 0) {
        socket_free(b);
        return one;
    }
    int two = socket_install(b, type);
    if (two < 0) {
        fd_close(one);
        return two;
    }
    ret_fds[0] = one;
    ret_fds[1] = two;
    return 0;
}

/* A name in the file system for an AF_UNIX socket. */
static int bind_path(struct socket *s, const struct address *a)
{
    struct walk w;
    int r = walk_kernel(&w, a->path, WALK_NOFOLLOW);
    if (r < 0) {
        return r;
    }
    struct inode *i = NULL;
    if (w.inode || w.file || !w.dir) {
        r = -EADDRINUSE;
    } else {
        r = dir_may_change(w.dir);
    }
    if (r == 0) {
        i = inode_new(S_IFSOCK | (0777 & ~process_umask), DEV_ROOT);
        r = i ? dir_link(w.dir, w.name, w.len, i) : -ENOMEM;
    }
    if (r == 0) {
        i->links = 1;
        s->inode = inode_ref(i);
    }
    inode_unref(i);
    walk_done(&w);
    return r;
}

/* The socket that an AF_UNIX address means, of that type. */
int socket_find_unix(const struct address *a, uint32_t type, struct socket **ret)
{
    struct inode *inode = NULL;
    struct walk w = {0};
    if (a->path_len && a->path[0]) {
        int r = walk_kernel(&w, a->path, 0);
        if (r < 0) {
            return r;
        }
        inode = w.inode;
        if (!inode) {
            walk_done(&w);
            return -ENOENT;
        }
    }
    int r = -ECONNREFUSED;
    list_for (node, &all_sockets) {
        struct socket *s = container_of(node, struct socket, all);
        if (s->local.family != AF_UNIX || !s->local.path_len) {
            continue;
        }
        if (inode ? s->inode == inode
                  : !s->inode && s->local.path_len == a->path_len &&
                        memcmp(s->local.path, a->path, a->path_len) == 0) {
            *ret = s;
            r = s->type == type ? 0 : -EPROTOTYPE;
            break;
        }
    }
    walk_done(&w);
    return r;
}

int socket_bind_ephemeral(struct socket *s)
{
    static uint16_t next = EPHEMERAL_MIN;
    for (int tries = EPHEMERAL_MIN; tries <= EPHEMERAL_MAX; tries++) {
        struct address a = s->local;
        a.port = next;
        next = next == EPHEMERAL_MAX ? EPHEMERAL_MIN : next + 1;
        if (!socket_find(s->type, &a, false)) {
            s->local.port = a.port;
            return 0;
        }
    }
    return -EADDRINUSE;
}

static int bind_unix(struct socket *s, const struct address *a)
{
    static uint32_t next_name;
    if (s->local.path_len) {
        return -EINVAL;
    }
    if (!a->path_len) { /* autobind: unix(7) */
        s->local.path_len =
            (uint16_t)(1 + kformat(s->local.path + 1, 16, "%x", 0x10000 + next_name++));
        return 0;
    }
    struct socket *other;
    int r = a->path[0]                                              ? bind_path(s, a)
            : socket_find_unix(a, s->type, &other) == -ECONNREFUSED ? 0
                                                                    : -EADDRINUSE;
    if (r == 0) {
        s->local = *a;
    }
    return r;
}

static int do_bind(struct socket *s, const struct address *a)
{
    if (a->family != s->family && !(a->family == AF_UNSPEC && s->family == AF_INET)) {
        return s->family == AF_UNIX ? -EINVAL : -EAFNOSUPPORT;
    }
    if (s->family == AF_UNIX) {
        return bind_unix(s, a);
    }
    if (s->local.port) {
        return -EINVAL;
    }
    if (!address_is_any(a) && !address_is_loopback(a)) {
        return -EADDRNOTAVAIL;
    }
    struct address wanted = *a;
    wanted.family = (uint16_t)s->family;
    struct socket *other = wanted.port ? socket_find(s->type, &wanted, false) : NULL;
    if (other && other->family == s->family &&
        (other->kind == &listener_kind || !(other->options & s->options & 1u << SO_REUSEADDR))) {
        return -EADDRINUSE;
    }
    s->local = wanted;
    return wanted.port ? 0 : socket_bind_ephemeral(s);
}

int64_t sys_bind(int fd, const void *addr, uint32_t len)
{
    struct socket *s;
    struct file *f;
    struct address a;
    int r = socket_of_fd(fd, &s, &f);
    if (r < 0) {
        return r;
    }
    r = address_get(addr, len, &a);
    if (r == 0) {
        r = do_bind(s, &a);
    }
    file_unref(f);
    return r;
}

int64_t sys_listen(int fd, int backlog)
{
    struct socket *s;
    struct file *f;
    int r = socket_of_fd(fd, &s, &f);
    if (r < 0) {
        return r;
    }
    r = listener_start(s, backlog);
    file_unref(f);
    return r;
}

int64_t sys_accept4(int fd, void *addr, uint32_t *len, int flags)
{
    if (flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) {
        return -EINVAL;
    }
    struct socket *s, *got = NULL;
    struct file *f;
    int r = socket_of_fd(fd, &s, &f);
    if (r < 0) {
        return r;
    }
    r = s->kind != &listener_kind ? (s->type == SOCK_DGRAM ? -EOPNOTSUPP : -EINVAL)
                                  : address_check(addr, len);
    if (r == 0) {
        r = listener_accept(s, file_nonblocking(f) ? MSG_DONTWAIT : 0, &got);
    }
    file_unref(f);
    if (r < 0) {
        return r;
    }
    address_put(&got->peer, addr, len);
    return socket_install(got, flags);
}

int64_t sys_accept(int fd, void *addr, uint32_t *len)
{
    return sys_accept4(fd, addr, len, 0);
}

static int connect_unix(struct socket *s, const struct address *to)
{
    struct socket *other;
    int r = socket_find_unix(to, s->type, &other);
    if (r < 0) {
        return r;
    }
    if (s->type == SOCK_DGRAM) {
        s->peer = *to;
        return 0;
    }
    if (other->kind != &listener_kind) {
        return -ECONNREFUSED;
    }
    s->peer = *to;
    return pair_connect(s, other);
}

static int connect_inet(struct socket *s, const struct address *to, bool nonblocking)
{
    if (s->type == SOCK_DGRAM) {
        s->peer = *to;
        if (!s->local.port) {
            struct address like = {.family = (uint16_t)s->family};
            s->local = address_loopback(&like, 0);
            return socket_bind_ephemeral(s);
        }
        return 0;
    }
    if (s->kind == &egress_kind) {
        return egress_connect(s, to, nonblocking); /* again: how far it is */
    }
    if (s->kind == &listener_kind || s->kind == &pair_kind || s->kind == &request_kind) {
        return -EISCONN;
    }
    struct socket *other = address_is_loopback(to) ? socket_find(SOCK_STREAM, to, true) : NULL;
    s->peer = *to;
    int r;
    if (other) {
        s->local = address_loopback(to, s->local.port);
        s->local.family = (uint16_t)s->family;
        r = s->local.port ? 0 : socket_bind_ephemeral(s);
        return r < 0 ? r : pair_connect(s, other);
    }
    r = egress_connect(s, to, nonblocking);
    /* Nobody listens here, and the host does not let it out. */
    return r < 0 && r != -EINPROGRESS && r != -EINTR && address_is_loopback(to) ? -ECONNREFUSED : r;
}

int64_t sys_connect(int fd, const void *addr, uint32_t len)
{
    struct socket *s;
    struct file *f;
    struct address a;
    int r = socket_of_fd(fd, &s, &f);
    if (r < 0) {
        return r;
    }
    r = address_get(addr, len, &a);
    if (r == 0 && a.family == AF_UNSPEC && s->type == SOCK_DGRAM) {
        memset(&s->peer, 0, sizeof(s->peer));
    } else if (r == 0 && a.family != s->family) {
        r = s->family == AF_UNIX ? -EINVAL : -EAFNOSUPPORT;
    } else if (r == 0) {
        r = s->family == AF_UNIX ? (s->kind == &pair_kind ? -EISCONN : connect_unix(s, &a))
                                 : connect_inet(s, &a, file_nonblocking(f));
    }
    file_unref(f);
    return r;
}

int64_t sys_getsockname(int fd, void *addr, uint32_t *len)
{
    struct socket *s;
    struct file *f;
    int r = socket_of_fd(fd, &s, &f);
    if (r < 0) {
        return r;
    }
    r = addr ? address_put(&s->local, addr, len) : -EFAULT;
    file_unref(f);
    return r;
}

int64_t sys_getpeername(int fd, void *addr, uint32_t *len)
{
    struct socket *s;
    struct file *f;
    int r = socket_of_fd(fd, &s, &f);
    if (r < 0) {
        return r;
    }
    bool connected = s->type == SOCK_STREAM ? s->kind == &pair_kind || s->kind == &request_kind ||
                                                  (s->kind == &egress_kind && !s->connecting)
                                            : s->peer.family != AF_UNSPEC || s->other;
    struct address peer = s->peer;
    if (s->family == AF_UNIX) {
        peer.family = AF_UNIX;
    }
    r = !connected ? -ENOTCONN : addr ? address_put(&peer, addr, len) : -EFAULT;
    file_unref(f);
    return r;
}

int64_t sys_shutdown(int fd, int how)
{
    struct socket *s;
    struct file *f;
    int r = how < SHUT_RD || how > SHUT_RDWR ? -EINVAL : socket_of_fd(fd, &s, &f);
    if (r < 0) {
        return r;
    }
    r = s->kind->shut(s, how != SHUT_WR, how != SHUT_RD);
    file_unref(f);
    return r;
}
