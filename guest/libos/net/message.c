/* message.c - send and recv in all their forms. Ancillary data is neither sent nor received. */
#include <linux/uio.h>

#include "mm.h"
#include "net/socket.h"
#include "sys_file.h"

#define MESSAGE_MAX   65536 /* of datagrams, headers included */
#define IOV_COUNT_MAX 1024
#define COUNT_MAX     0x7ffff000ull

static int check_flags(int flags, bool sending)
{
    /* MSG_CMSG_CLOEXEC, MSG_MORE, MSG_EOR, MSG_DONTROUTE, MSG_CONFIRM mean nothing here. */
    const int known = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_PEEK | MSG_WAITALL | MSG_TRUNC |
                      0x40000000 | 0x8000 | 0x80 | 4 | 0x800 | 0x10000;
    if (flags & MSG_OOB) {
        return sending ? -EOPNOTSUPP : -EINVAL;
    }
    return flags & ~known ? -EOPNOTSUPP : 0;
}

static int64_t check_iov(const struct iovec *iov, size_t count, bool writable)
{
    if (count > IOV_COUNT_MAX) {
        return -EMSGSIZE;
    }
    if (!user_readable(iov, count * sizeof(*iov))) {
        return -EFAULT;
    }
    uint64_t total = 0;
    for (size_t n = 0; n < count; n++) {
        if (iov[n].iov_len > COUNT_MAX - total) {
            return -EINVAL;
        }
        if (writable ? !user_writable(iov[n].iov_base, iov[n].iov_len)
                     : !user_readable(iov[n].iov_base, iov[n].iov_len)) {
            return -EFAULT;
        }
        total += iov[n].iov_len;
    }
    return (int64_t)total;
}

/* One message through a buffer of the kernel's. */
static int64_t gather_send(struct socket *s, const struct iovec *iov, size_t count, size_t total,
                           int flags, const struct address *to)
{
    if (total > MESSAGE_MAX) {
        return -EMSGSIZE;
    }
    char *all = kalloc(total + 1);
    if (!all) {
        return -ENOBUFS;
    }
    size_t at = 0;
    for (size_t n = 0; n < count; n++) {
        memcpy(all + at, iov[n].iov_base, iov[n].iov_len);
        at += iov[n].iov_len;
    }
    int64_t r = s->kind->send(s, all, total, flags, to);
    kfree(all);
    return r;
}

static int64_t scatter_recv(struct socket *s, const struct iovec *iov, size_t count, size_t total,
                            int flags, struct address *ret_from)
{
    total = total < MESSAGE_MAX ? total : MESSAGE_MAX;
    char *all = kalloc(total + 1);
    if (!all) {
        return -ENOBUFS;
    }
    int64_t r = s->kind->recv(s, all, total, flags, ret_from);
    size_t got = r < 0 ? 0 : (size_t)r < total ? (size_t)r : total, at = 0;
    for (size_t n = 0; n < count && at < got; n++) {
        size_t part = iov[n].iov_len < got - at ? iov[n].iov_len : got - at;
        memcpy(iov[n].iov_base, all + at, part);
        at += part;
    }
    kfree(all);
    return r;
}

/* Vectors that were checked. */
static int64_t send_iov(struct socket *s, const struct iovec *iov, size_t count, size_t total,
                        int flags, const struct address *to)
{
    if (count == 1) {
        return s->kind->send(s, iov[0].iov_base, iov[0].iov_len, flags, to);
    }
    if (s->type != SOCK_STREAM || total <= PAGE_SIZE) {
        return gather_send(s, iov, count, total, flags, to);
    }
    int64_t done = 0;
    for (size_t n = 0; n < count; n++) {
        int64_t r = s->kind->send(s, iov[n].iov_base, iov[n].iov_len, flags, to);
        if (r < 0) {
            return done ? done : r;
        }
        done += r;
        if ((size_t)r < iov[n].iov_len) {
            break;
        }
    }
    return done;
}

static int64_t recv_iov(struct socket *s, const struct iovec *iov, size_t count, size_t total,
                        int flags, struct address *ret_from)
{
    if (count == 1) {
        return s->kind->recv(s, iov[0].iov_base, iov[0].iov_len, flags, ret_from);
    }
    if (s->type != SOCK_STREAM || (flags & MSG_PEEK)) {
        return scatter_recv(s, iov, count, total, flags, ret_from);
    }
    int64_t done = 0;
    for (size_t n = 0; n < count; n++) {
        if (!iov[n].iov_len) {
            continue;
        }
        int more = done && !(flags & MSG_WAITALL) ? MSG_DONTWAIT : 0;
        int64_t r = s->kind->recv(s, iov[n].iov_base, iov[n].iov_len, flags | more, ret_from);
        if (r < 0) {
            return done ? done : r;
        }
        done += r;
        if ((size_t)r < iov[n].iov_len) {
            break;
        }
    }
    return done;
}

int64_t sys_sendto(int fd, const void *buf, size_t len, int flags, const void *addr,
                   uint32_t addr_len)
{
    struct socket *s;
    struct file *f;
    struct address to;
    int64_t r = check_flags(flags, true);
    if (r == 0) {
        r = socket_of_fd(fd, &s, &f);
    }
    if (r < 0) {
        return r;
    }
    len = len < COUNT_MAX ? len : COUNT_MAX;
    r = user_readable(buf, len) ? (addr && addr_len ? address_get(addr, addr_len, &to) : 0)
                                : -EFAULT;
    if (r == 0) {
        flags |= file_nonblocking(f) ? MSG_DONTWAIT : 0;
        r = s->kind->send(s, buf, len, flags, addr && addr_len ? &to : NULL);
    }
    file_unref(f);
    return r;
}

int64_t sys_recvfrom(int fd, void *buf, size_t len, int flags, void *addr, uint32_t *addr_len)
{
    struct socket *s;
    struct file *f;
    struct address from = {.family = AF_UNSPEC};
    int64_t r = check_flags(flags, false);
    if (r == 0) {
        r = socket_of_fd(fd, &s, &f);
    }
    if (r < 0) {
        return r;
    }
    len = len < COUNT_MAX ? len : COUNT_MAX;
    r = user_writable(buf, len) ? address_check(addr, addr_len) : -EFAULT;
    if (r == 0) {
        flags |= file_nonblocking(f) ? MSG_DONTWAIT : 0;
        r = s->kind->recv(s, buf, len, flags, &from);
        if (r >= 0) {
            address_put(&from, addr, addr_len);
        }
    }
    file_unref(f);
    return r;
}

static int64_t send_message(struct file *f, struct socket *s, const struct user_msghdr *m,
                            int flags)
{
    struct address to;
    int64_t total = check_iov(m->iov, m->iov_len, false);
    if (total < 0) {
        return total;
    }
    if (m->control_len) {
        return -EOPNOTSUPP; /* descriptors and credentials have nowhere to go */
    }
    bool has_name = m->name && m->name_len;
    int64_t r = has_name ? address_get(m->name, m->name_len, &to) : 0;
    if (r < 0) {
        return r;
    }
    flags |= file_nonblocking(f) ? MSG_DONTWAIT : 0;
    return send_iov(s, m->iov, m->iov_len, (size_t)total, flags, has_name ? &to : NULL);
}

int64_t sys_sendmsg(int fd, const struct user_msghdr *msg, int flags)
{
    struct socket *s;
    struct file *f;
    if (!user_readable(msg, sizeof(*msg))) {
        return -EFAULT;
    }
    int64_t r = check_flags(flags, true);
    if (r == 0) {
        r = socket_of_fd(fd, &s, &f);
    }
    if (r < 0) {
        return r;
    }
    r = send_message(f, s, msg, flags);
    file_unref(f);
    return r;
}

static int64_t recv_message(struct file *f, struct socket *s, struct user_msghdr *m, int flags)
{
    struct address from = {.family = AF_UNSPEC};
    int64_t total = check_iov(m->iov, m->iov_len, true);
    if (total < 0) {
        return total;
    }
    if (m->name && ((int32_t)m->name_len < 0 || !user_writable(m->name, m->name_len))) {
        return -EFAULT;
    }
    bool messages = s->type != SOCK_STREAM;
    flags |= file_nonblocking(f) ? MSG_DONTWAIT : 0;
    int64_t r =
        recv_iov(s, m->iov, m->iov_len, (size_t)total, flags | (messages ? MSG_TRUNC : 0), &from);
    if (r < 0) {
        return r;
    }
    m->flags = 0;
    m->control_len = 0;
    if (messages && r > total) {
        m->flags = MSG_TRUNC;
        r = flags & MSG_TRUNC ? r : total;
    }
    if (m->name) {
        address_put(&from, m->name, &m->name_len);
    } else {
        m->name_len = 0;
    }
    return r;
}

int64_t sys_recvmsg(int fd, struct user_msghdr *msg, int flags)
{
    struct socket *s;
    struct file *f;
    if (!user_writable(msg, sizeof(*msg))) {
        return -EFAULT;
    }
    int64_t r = check_flags(flags, false);
    if (r == 0) {
        r = socket_of_fd(fd, &s, &f);
    }
    if (r < 0) {
        return r;
    }
    r = recv_message(f, s, msg, flags);
    file_unref(f);
    return r;
}

int64_t sys_sendmmsg(int fd, struct user_mmsghdr *msgs, uint32_t count, int flags)
{
    count = count < IOV_COUNT_MAX ? count : IOV_COUNT_MAX;
    if (!user_writable(msgs, (uint64_t)count * sizeof(*msgs))) {
        return -EFAULT;
    }
    for (uint32_t n = 0; n < count; n++) {
        int64_t r = sys_sendmsg(fd, &msgs[n].hdr, flags);
        if (r < 0) {
            return n ? n : r;
        }
        msgs[n].len = (uint32_t)r;
    }
    return count;
}

int64_t sys_recvmmsg(int fd, struct user_mmsghdr *msgs, uint32_t count, int flags,
                     struct __kernel_timespec *timeout)
{
    enum { MSG_WAITFORONE = 0x10000 };
    uint64_t deadline;
    int r = deadline_of_timespec(timeout, &deadline);
    if (r < 0) {
        return r;
    }
    count = count < IOV_COUNT_MAX ? count : IOV_COUNT_MAX;
    if (!user_writable(msgs, (uint64_t)count * sizeof(*msgs))) {
        return -EFAULT;
    }
    for (uint32_t n = 0; n < count; n++) {
        int more = n && (flags & MSG_WAITFORONE) ? MSG_DONTWAIT : 0;
        int64_t got = sys_recvmsg(fd, &msgs[n].hdr, (flags & ~MSG_WAITFORONE) | more);
        if (got < 0) {
            return n ? n : got;
        }
        msgs[n].len = (uint32_t)got;
        if (clock_monotonic_ns() >= deadline) {
            return n + 1;
        }
    }
    return count;
}
