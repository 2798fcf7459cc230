/* dial_resolve.c - names to addresses by getaddrinfo(3), on a few threads of its own, so that a
 * name server that is slow to answer holds up nobody but those who wait for it. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/workers.h"
#include "scheduler/egress/dial_impl.h"

struct dial_resolver {
    struct un_workers *workers;
    unsigned pending;
};

struct dial_lookup {
    struct un_job job;
    struct dial_resolver *resolver;
    struct un_endpoint to;
    bool own_allowed;
    bool given_up; /* loop thread writes, the worker may read; __atomic */
    dial_lookup_cb *cb;
    void *arg;
    union dial_address list[DIAL_ADDRESSES];
    size_t count;
};

int dial_resolver_new(struct un_loop *loop, struct dial_resolver **ret, struct un_error *err)
{
    struct dial_resolver *r = calloc(1, sizeof(*r));
    int rc = r ? un_workers_new(loop, "resolve", LIMIT_EGRESS_RESOLVERS, &r->workers, err)
               : un_error_set(err, -ENOMEM, "out of memory");

    if (rc < 0) {
        free(r);
        return rc;
    }
    *ret = r;
    return 0;
}

void dial_resolver_free(struct dial_resolver *r)
{
    if (r) {
        un_workers_free(r->workers);
        free(r);
    }
}

/* --- addresses -------------------------------------------------------------------------------- */

socklen_t dial_address_len(const union dial_address *a)
{
    return a->any.sa_family == AF_INET6 ? sizeof(a->v6) : sizeof(a->v4);
}

bool dial_address_read(const char *host, uint16_t port, union dial_address *ret)
{
    *ret = (union dial_address){0};
    if (inet_pton(AF_INET, host, &ret->v4.sin_addr) == 1) {
        ret->v4.sin_family = AF_INET;
        ret->v4.sin_port = htons(port);
        return true;
    }
    if (inet_pton(AF_INET6, host, &ret->v6.sin6_addr) == 1) {
        ret->v6.sin6_family = AF_INET6;
        ret->v6.sin6_port = htons(port);
        return true;
    }
    return false;
}

/* IPv6 forms that carry an IPv4 address which the kernel, or a translator on the way, would use
 * (RFC 4291, section 2.5.5; RFC 6052, section 2.1; RFC 3056). */
static bool embedded_v4(const struct in6_addr *a, struct in_addr *ret)
{
    static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    const uint8_t *from = NULL;

    if (IN6_IS_ADDR_V4MAPPED(a) || memcmp(a->s6_addr, nat64, sizeof(nat64)) == 0) {
        from = a->s6_addr + 12;
    } else if (a->s6_addr[0] == 0x20 && a->s6_addr[1] == 0x02) {
        from = a->s6_addr + 2;
    }
    if (from) {
        memcpy(ret, from, sizeof(*ret));
    }
    return from != NULL;
}

/* RFC 6890: this host, loopback, link-local (where clouds serve their metadata), IETF protocol assignments (where
 * Oracle's does), multicast and reserved; and 100.100.100.200, where Alibaba's does. */
static bool special_v4(struct in_addr a)
{
    uint32_t ip = ntohl(a.s_addr);

    return ip >> 24 == 0 || ip >> 24 == 127 || ip >> 16 == 0xa9fe || ip >> 8 == 0xc00000 ||
           ip == 0x646464c8 || ip >> 28 >= 0xe;
}

/* fd00:ec2::/32: Amazon's metadata, name server and clock. */
static bool is_amazons(const struct in6_addr *a)
{
    static const uint8_t prefix[4] = {0xfd, 0x00, 0x0e, 0xc2};

    return memcmp(a->s6_addr, prefix, sizeof(prefix)) == 0;
}

static bool special(const union dial_address *a, struct in_addr *v4, bool *is_v4)
{
    const struct in6_addr *v6 = &a->v6.sin6_addr;

    *is_v4 = a->any.sa_family == AF_INET;
    if (*is_v4) {
        *v4 = a->v4.sin_addr;
    } else if (embedded_v4(v6, v4)) {
        *is_v4 = true;
    }
    return *is_v4 ? special_v4(*v4)
                  : IN6_IS_ADDR_UNSPECIFIED(v6) || IN6_IS_ADDR_LOOPBACK(v6) ||
                        IN6_IS_ADDR_LINKLOCAL(v6) || IN6_IS_ADDR_MULTICAST(v6) ||
                        IN6_IS_ADDR_V4COMPAT(v6) || is_amazons(v6);
}

bool dial_address_is_own(const union dial_address *a)
{
    struct ifaddrs *list = NULL;
    struct in_addr v4;
    bool is_v4, own = special(a, &v4, &is_v4);

    if (own) {
        return true;
    }
    if (getifaddrs(&list) < 0) {
        return true; /* it cannot be told */
    }
    for (const struct ifaddrs *i = list; i && !own; i = i->ifa_next) {
        const union dial_address *at = (const void *)i->ifa_addr;

        if (!at) {
            continue;
        }
        if (is_v4 && at->any.sa_family == AF_INET) {
            own = at->v4.sin_addr.s_addr == v4.s_addr;
        } else if (!is_v4 && at->any.sa_family == AF_INET6) {
            own = IN6_ARE_ADDR_EQUAL(&at->v6.sin6_addr, &a->v6.sin6_addr);
        }
    }
    freeifaddrs(list);
    return own;
}

/* --- look-ups --------------------------------------------------------------------------------- */

static int run(struct un_job *job, struct un_error *err)
{
    struct dial_lookup *l = un_container_of(job, struct dial_lookup, job);
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG};
    struct addrinfo *list = NULL;
    char port[8];
    bool found = false;

    if (__atomic_load_n(&l->given_up, __ATOMIC_RELAXED)) {
        return -ECANCELED;
    }
    snprintf(port, sizeof(port), "%u", l->to.port);
    if (getaddrinfo(l->to.host, port, &hints, &list) != 0) {
        return -EHOSTUNREACH;
    }
    for (const struct addrinfo *i = list; i && l->count < DIAL_ADDRESSES; i = i->ai_next) {
        union dial_address *a = &l->list[l->count];

        if (i->ai_addrlen > sizeof(*a) || (i->ai_family != AF_INET && i->ai_family != AF_INET6)) {
            continue;
        }
        found = true;
        memcpy(a, i->ai_addr, i->ai_addrlen);
        l->count += l->own_allowed || !dial_address_is_own(a);
    }
    freeaddrinfo(list);
    return l->count > 0 ? 0 : found ? -EACCES : -EHOSTUNREACH;
}

static void done(struct un_job *job, int rc, const struct un_error *err)
{
    struct dial_lookup *l = un_container_of(job, struct dial_lookup, job);

    l->resolver->pending--;
    if (!l->given_up) {
        l->cb(l->arg, rc, l->list, l->count);
    }
    free(l);
}

struct dial_lookup *dial_lookup_start(struct dial_resolver *r, const struct un_endpoint *to,
                                      bool own_allowed, dial_lookup_cb *cb, void *arg)
{
    struct dial_lookup *l = r->pending < LIMIT_EGRESS_RESOLVES ? calloc(1, sizeof(*l)) : NULL;

    if (!l) {
        return NULL;
    }
    l->job = (struct un_job){.run = run, .done = done};
    l->resolver = r;
    l->to = *to;
    l->own_allowed = own_allowed;
    l->cb = cb;
    l->arg = arg;
    r->pending++;
    un_workers_submit(r->workers, &l->job);
    return l;
}

void dial_lookup_give_up(struct dial_lookup *l)
{
    if (l) {
        __atomic_store_n(&l->given_up, true, __ATOMIC_RELAXED);
    }
}
