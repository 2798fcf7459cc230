/* sockopt.c - options of sockets. What has a meaning here is done; what steers a network that is
 * not there is remembered; the rest is -ENOPROTOOPT. */
#include <linux/time_types.h>

#include "mm.h"
#include "net/socket.h"
#include "sys_file.h"

#define LEVEL_IP   0
#define LEVEL_TCP  6
#define LEVEL_IPV6 41

#define BIT(n) (1u << (n))
#define REMEMBERED                                                                                 \
    (BIT(SO_DEBUG) | BIT(SO_REUSEADDR) | BIT(SO_DONTROUTE) | BIT(SO_BROADCAST) |                   \
     BIT(SO_KEEPALIVE) | BIT(SO_OOBINLINE) | BIT(SO_REUSEPORT) | BIT(SO_PASSCRED) |                \
     BIT(SO_PRIORITY) | BIT(SO_NO_CHECK))
/* TCP_NODELAY, MAXSEG, CORK, KEEPIDLE, KEEPINTVL, KEEPCNT, SYNCNT, LINGER2, DEFER_ACCEPT, QUICKACK,
 * USER_TIMEOUT, FASTOPEN, FASTOPEN_CONNECT: <linux/tcp.h>. */
#define REMEMBERED_TCP                                                                             \
    (BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(9) | BIT(12) |    \
     BIT(18) | BIT(23) | BIT(30))
/* IP_TOS, TTL, PKTINFO, MTU_DISCOVER, RECVERR, RECVTTL, RECVTOS, FREEBIND, BIND_ADDRESS_NO_PORT. */
#define REMEMBERED_IP                                                                              \
    (BIT(1) | BIT(2) | BIT(8) | BIT(10) | BIT(11) | BIT(12) | BIT(13) | BIT(15) | BIT(24))
/* IPV6_UNICAST_HOPS, MULTICAST_HOPS, MTU_DISCOVER, RECVERR, V6ONLY. */
#define REMEMBERED_IPV6 (BIT(16) | BIT(18) | BIT(23) | BIT(25) | BIT(26))

static int get_int(const void *value, uint32_t len, int *ret)
{
    if (len < sizeof(*ret)) {
        return -EINVAL;
    }
    memcpy(ret, value, sizeof(*ret));
    return 0;
}

static int set_time(const void *value, uint32_t len, uint64_t *ret_ns)
{
    struct __kernel_old_timeval t;
    if (len < sizeof(t)) {
        return -EINVAL;
    }
    memcpy(&t, value, sizeof(t));
    if (t.tv_usec < 0 || t.tv_usec >= 1000000) {
        return -EDOM;
    }
    *ret_ns = t.tv_sec < 0 || t.tv_sec > 1000000000
                  ? 0
                  : (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_usec * 1000ull;
    return 0;
}

static int set_socket_option(struct socket *s, int name, const void *value, uint32_t len)
{
    int v;
    int r = get_int(value, len, &v);
    if (r < 0) {
        return r;
    }
    switch (name) {
    case SO_SNDBUF:
        s->send_buffer = v < 2304 ? 4608 : v > 212992 ? 425984 : (uint32_t)v * 2;
        return 0;
    case SO_RCVBUF:
        s->receive_buffer = v < 1152 ? 2304 : v > 212992 ? 425984 : (uint32_t)v * 2;
        return 0;
    case SO_LINGER:
        if (len < sizeof(s->linger)) {
            return -EINVAL;
        }
        memcpy(s->linger, value, sizeof(s->linger));
        return 0;
    case SO_RCVTIMEO_OLD:
        return set_time(value, len, &s->receive_ns);
    case SO_SNDTIMEO_OLD:
        return set_time(value, len, &s->send_ns);
    case SO_BINDTODEVICE:
        return -EPERM;
    default:
        if (name < 0 || name > 31 || !(REMEMBERED >> name & 1)) {
            return -ENOPROTOOPT;
        }
        s->options = v ? s->options | BIT(name) : s->options & ~BIT(name);
        return 0;
    }
}

/* Where an option of another level is remembered; NULL: it is none. */
static int *remembered(struct socket *s, int level, int name)
{
    if (name < 0 || name > 31 || s->family == AF_UNIX) {
        return NULL;
    }
    switch (level) {
    case LEVEL_TCP:
        return s->type == SOCK_STREAM && (REMEMBERED_TCP >> name & 1) ? &s->tcp[name] : NULL;
    case LEVEL_IP:
        return REMEMBERED_IP >> name & 1 ? &s->ip[name] : NULL;
    case LEVEL_IPV6:
        return s->family == AF_INET6 && (REMEMBERED_IPV6 >> name & 1) ? &s->ip[name] : NULL;
    default:
        return NULL;
    }
}

int64_t sys_setsockopt(int fd, int level, int name, const void *value, uint32_t len)
{
    struct socket *s;
    struct file *f;
    int r = socket_of_fd(fd, &s, &f);
    if (r < 0) {
        return r;
    }
    if ((int32_t)len < 0) {
        r = -EINVAL;
    } else if (!user_readable(value, len)) {
        r = -EFAULT;
    } else if (level == SOL_SOCKET) {
        r = set_socket_option(s, name, value, len);
    } else {
        int *at = remembered(s, level, name);
        int v = 0;
        if (!at) {
            r = s->family == AF_UNIX ? -EOPNOTSUPP : -ENOPROTOOPT;
        } else if (len == 1) { /* some IP options may be a byte */
            v = *(const uint8_t *)value;
        } else {
            r = get_int(value, len, &v);
        }
        if (r == 0) {
            *at = v;
        }
    }
    file_unref(f);
    return r;
}

/* The option's value, at most 16 bytes: its length. */
static int get_socket_option(struct socket *s, int name, void *value)
{
    int *v = value;
    struct __kernel_old_timeval t = {0, 0};
    switch (name) {
    case SO_TYPE:
        *v = (int)s->type;
        break;
    case SO_DOMAIN:
        *v = (int)s->family;
        break;
    case SO_PROTOCOL:
        *v = (int)s->protocol;
        break;
    case SO_ACCEPTCONN:
        *v = s->kind == &listener_kind;
        break;
    case SO_ERROR:
        if (s->kind == &egress_kind && s->connecting) {
            egress_progress(s);
        }
        *v = -s->error;
        s->error = 0;
        break;
    case SO_SNDBUF:
        *v = (int)s->send_buffer;
        break;
    case SO_RCVBUF:
        *v = (int)s->receive_buffer;
        break;
    case SO_RCVLOWAT:
    case SO_SNDLOWAT:
        *v = 1;
        break;
    case SO_LINGER:
        memcpy(value, s->linger, sizeof(s->linger));
        return sizeof(s->linger);
    case SO_PEERCRED:
        v[0] = s->other ? process_pid() : 0;
        v[1] = v[2] = s->other ? 0 : -1;
        return 3 * sizeof(int);
    case SO_RCVTIMEO_OLD:
    case SO_SNDTIMEO_OLD: {
        uint64_t ns = name == SO_RCVTIMEO_OLD ? s->receive_ns : s->send_ns;
        t.tv_sec = (long)(ns / 1000000000ull);
        t.tv_usec = (long)(ns % 1000000000ull / 1000);
        memcpy(value, &t, sizeof(t));
        return sizeof(t);
    }
    default:
        if (name < 0 || name > 31 || !(REMEMBERED >> name & 1)) {
            return -ENOPROTOOPT;
        }
        *v = s->options >> name & 1;
        break;
    }
    return sizeof(int);
}

int64_t sys_getsockopt(int fd, int level, int name, void *value, uint32_t *len)
{
    struct socket *s;
    struct file *f;
    int r = socket_of_fd(fd, &s, &f);
    if (r < 0) {
        return r;
    }
    uint64_t own[2] = {0, 0};
    if (!user_writable(len, sizeof(*len))) {
        r = -EFAULT;
    } else if ((int32_t)*len < 0) {
        r = -EINVAL;
    } else if (level == SOL_SOCKET) {
        r = get_socket_option(s, name, own);
    } else {
        const int *at = remembered(s, level, name);
        r = at ? (int)sizeof(*at) : s->family == AF_UNIX ? -EOPNOTSUPP : -ENOPROTOOPT;
        if (at) {
            memcpy(own, at, sizeof(*at));
        }
    }
    if (r >= 0) {
        uint32_t n = *len < (uint32_t)r ? *len : (uint32_t)r;
        if (user_writable(value, n)) {
            memcpy(value, own, n);
            *len = n;
            r = 0;
        } else {
            r = -EFAULT;
        }
    }
    file_unref(f);
    return r;
}
