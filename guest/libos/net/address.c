/* address.c - struct sockaddr of the program, and back. */
#include <linux/in.h>
#include <linux/in6.h>

#include "mm.h"
#include "net/socket.h"

static const uint8_t v4_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
static const uint8_t zeros[16];

static uint16_t swap16(uint16_t v)
{
    return (uint16_t)(v << 8 | v >> 8);
}

int address_get(const void *addr, uint32_t len, struct address *ret)
{
    if (len < sizeof(uint16_t) || len > 128) {
        return -EINVAL;
    }
    if (!user_readable(addr, len)) {
        return -EFAULT;
    }
    memset(ret, 0, sizeof(*ret));
    memcpy(&ret->family, addr, sizeof(ret->family));
    switch (ret->family) {
    case AF_INET: {
        struct sockaddr_in in;
        if (len < sizeof(in)) {
            return -EINVAL;
        }
        memcpy(&in, addr, sizeof(in));
        ret->port = swap16(in.sin_port);
        memcpy(ret->ip, &in.sin_addr, 4);
        return 0;
    }
    case AF_INET6: {
        struct sockaddr_in6 in6;
        if (len < offsetof(struct sockaddr_in6, sin6_scope_id)) {
            return -EINVAL;
        }
        memcpy(&in6, addr, len < sizeof(in6) ? len : sizeof(in6));
        ret->port = swap16(in6.sin6_port);
        memcpy(ret->ip, &in6.sin6_addr, 16);
        return 0;
    }
    case AF_UNIX:
        if (len > sizeof(uint16_t) + UNIX_PATH_MAX_) {
            return -EINVAL;
        }
        ret->path_len = (uint16_t)(len - sizeof(uint16_t));
        memcpy(ret->path, (const char *)addr + sizeof(uint16_t), ret->path_len);
        if (ret->path[0]) {
            ret->path_len = (uint16_t)strlen(ret->path);
        }
        return 0;
    default:
        return 0;
    }
}

int address_check(const void *addr, const uint32_t *len)
{
    if (!addr) {
        return 0;
    }
    if (!len || !user_writable((void *)(uintptr_t)len, sizeof(*len))) {
        return -EFAULT;
    }
    if ((int32_t)*len < 0) {
        return -EINVAL;
    }
    return user_writable((void *)(uintptr_t)addr, *len) ? 0 : -EFAULT;
}

int address_put(const struct address *a, void *addr, uint32_t *len)
{
    int r = address_check(addr, len);
    if (r < 0 || !addr) {
        return r;
    }
    union {
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct {
            uint16_t family;
            char path[UNIX_PATH_MAX_ + 1];
        } un;
    } u;
    uint32_t size;
    memset(&u, 0, sizeof(u));
    u.un.family = a->family;
    switch (a->family) {
    case AF_INET:
        u.in.sin_port = swap16(a->port);
        memcpy(&u.in.sin_addr, a->ip, 4);
        size = sizeof(u.in);
        break;
    case AF_INET6:
        u.in6.sin6_port = swap16(a->port);
        memcpy(&u.in6.sin6_addr, a->ip, 16);
        size = sizeof(u.in6);
        break;
    case AF_UNIX:
        memcpy(u.un.path, a->path, a->path_len);
        size = (uint32_t)(sizeof(uint16_t) + a->path_len + (a->path_len && a->path[0] ? 1 : 0));
        break;
    default:
        size = 0;
        break;
    }
    memcpy(addr, &u, *len < size ? *len : size);
    *len = size;
    return 0;
}

bool address_ip4(const struct address *a, uint8_t ret[4])
{
    if (a->family == AF_INET) {
        memcpy(ret, a->ip, 4);
        return true;
    }
    if (a->family == AF_INET6 && memcmp(a->ip, v4_mapped, 12) == 0) {
        memcpy(ret, a->ip + 12, 4);
        return true;
    }
    return false;
}

bool address_is_any(const struct address *a)
{
    uint8_t ip4[4];
    return address_ip4(a, ip4) ? memcmp(ip4, zeros, 4) == 0 : memcmp(a->ip, zeros, 16) == 0;
}

bool address_is_loopback(const struct address *a)
{
    uint8_t ip4[4];
    if (address_ip4(a, ip4)) {
        return ip4[0] == 127 || memcmp(ip4, zeros, 4) == 0;
    }
    return memcmp(a->ip, zeros, 15) == 0 && a->ip[15] <= 1;
}

bool address_matches(const struct address *bound, const struct address *wanted)
{
    uint8_t a[4], b[4];
    if (bound->port != wanted->port) {
        return false;
    }
    if (address_is_any(bound)) {
        /* 0.0.0.0 does not hear IPv6; [::] hears both. */
        return bound->family == AF_INET6 || address_ip4(wanted, b);
    }
    if (address_is_any(wanted)) {
        return address_is_loopback(bound);
    }
    bool four = address_ip4(bound, a), also = address_ip4(wanted, b);
    if (four != also) {
        return false;
    }
    return four ? memcmp(a, b, 4) == 0 : memcmp(bound->ip, wanted->ip, 16) == 0;
}

struct address address_loopback(const struct address *like, uint16_t port)
{
    struct address a;
    memset(&a, 0, sizeof(a));
    a.family = like->family;
    a.port = port;
    if (a.family == AF_INET) {
        a.ip[0] = 127;
        a.ip[3] = 1;
    } else {
        /* What an IPv4 client of a dual-stack listener looks like. */
        memcpy(a.ip, v4_mapped, 12);
        a.ip[12] = 127;
        a.ip[15] = 1;
    }
    return a;
}
