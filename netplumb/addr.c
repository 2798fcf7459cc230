/* addr.c - see addr.h. */
#include "netplumb/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *net_addr_text(uint32_t addr, char ret[NET_IP_SIZE])
{
    struct in_addr in = {.s_addr = htonl(addr)};
    inet_ntop(AF_INET, &in, ret, NET_IP_SIZE);
    return ret;
}

static uint32_t mask_of(unsigned prefix)
{
    return ~UINT32_C(0) << (32 - prefix);
}

int net_range_init(struct net_range *r, const char *text, struct un_error *err)
{
    char ip[NET_IP_SIZE];
    unsigned prefix = 0;
    int end = 0;
    struct in_addr in;
    if (sscanf(text, "%15[0-9.]/%2u%n", ip, &prefix, &end) != 2 || text[end] != '\0' ||
        inet_pton(AF_INET, ip, &in) != 1 || prefix < 8 || prefix > 29) {
        return un_error_set(
            err, -EINVAL,
            "the range of guest addresses '%s' is not ADDRESS/8 to ADDRESS/29, as in "
            "10.87.0.0/16",
            text);
    }
    uint32_t base = ntohl(in.s_addr), net = base >> 24;
    if (net == 0 || net == IN_LOOPBACKNET || net >= 224) { /* RFC 6890, 5771 */
        return un_error_set(
            err, -EINVAL,
            "the range of guest addresses '%s' is not of addresses that machines can "
            "have",
            text);
    }
    if (base & ~mask_of(prefix)) {
        return un_error_set(err, -EINVAL,
                            "the range of guest addresses '%s' does not begin at a /%u network",
                            text, prefix);
    }
    unsigned names_bits = 32 - prefix - 2 > 8 ? 8 : 32 - prefix - 2;
    uint32_t total = UINT32_C(1) << (32 - prefix), names = UINT32_C(1) << names_bits;
    uint32_t size = total - names - 2; /* without network and gateway */
    if (size > NET_GUESTS_MAX) {
        size = NET_GUESTS_MAX;
    }
    uint64_t *used = calloc((size + 63) / 64, sizeof(*used));
    if (!used) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    *r = (struct net_range){.base = base,
                            .prefix = prefix,
                            .size = size,
                            .names_first = base + (total - names),
                            .names_count = names - 1,
                            .names_prefix = 32 - names_bits,
                            .used = used};
    return 0;
}

int net_range_valid(const char *range, struct un_error *err)
{
    struct net_range r;
    int rc = net_range_init(&r, range, err);
    if (rc == 0) {
        net_range_done(&r);
    }
    return rc;
}

void net_range_done(struct net_range *r)
{
    free(r->used);
    r->used = NULL;
}

int64_t net_range_take(struct net_range *r)
{
    for (uint32_t tried = 0; tried < r->size; tried++) {
        uint32_t n = r->next;
        r->next = n + 1 == r->size ? 0 : n + 1;
        uint64_t bit = UINT64_C(1) << (n % 64);
        if (!(r->used[n / 64] & bit)) {
            r->used[n / 64] |= bit;
            return n;
        }
    }
    return -1;
}

void net_range_give(struct net_range *r, uint32_t guest)
{
    r->used[guest / 64] &= ~(UINT64_C(1) << (guest % 64));
}

void net_range_describe(const struct net_range *r, uint32_t guest, struct net_link *ret)
{
    uint32_t ip = net_range_addr(r, guest);
    net_addr_text(ip, ret->ip);
    net_range_netmask(r, ret->netmask);
    net_range_gateway(r, ret->gateway);
    net_range_gateway(r, ret->dns);
    ret->prefix = r->prefix;
    net_addr_mac(ip, ret->mac);
}

void net_addr_mac(uint32_t addr, char ret[NET_MAC_SIZE])
{
    snprintf(ret, NET_MAC_SIZE, "02:75:%02x:%02x:%02x:%02x", addr >> 24, addr >> 16 & 255,
             addr >> 8 & 255, addr & 255);
}

void net_range_gateway(const struct net_range *r, char ret[NET_IP_SIZE])
{
    net_addr_text(r->base + 1, ret);
}

void net_range_netmask(const struct net_range *r, char ret[NET_IP_SIZE])
{
    net_addr_text(mask_of(r->prefix), ret);
}

uint32_t net_range_addr(const struct net_range *r, uint32_t guest)
{
    return r->base + 2 + guest;
}

int64_t net_range_guest(const struct net_range *r, uint32_t addr)
{
    uint32_t guest = addr - r->base - 2; /* wraps around below the first */
    return guest < r->size ? (int64_t)guest : -1;
}

bool net_range_contains(const struct net_range *r, uint32_t addr)
{
    return (addr & mask_of(r->prefix)) == r->base;
}
