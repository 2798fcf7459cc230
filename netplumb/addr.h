/* addr.h - the addresses of guests: an IPv4 range, handed out one by one. Pure; private.
 *
 *     base    +1        +2 ...            names.first ...        last
 *     network gateway   guests            virtual addresses      broadcast
 *
 * The last part of the range, a quarter of it but at most 256 addresses, is never a guest's: there are
 * the virtual addresses of what guests may connect to (targets.h).
 */
#ifndef UNID_NETPLUMB_ADDR_H
#define UNID_NETPLUMB_ADDR_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "netplumb/net.h"

struct net_range {
    uint32_t base; /* network address, host byte order */
    unsigned prefix;
    uint32_t size;                     /* guests that fit, at most NET_GUESTS_MAX */
    uint32_t names_first, names_count; /* virtual addresses, without the broadcast address */
    unsigned names_prefix;             /* of the part that they are in, which ends the range */
    uint64_t *used;
    uint32_t next; /* where to look first, so that an address rests after use */
};

enum { NET_GUESTS_MAX = 65536, NET_NAMES_MAX = 256 };

/* "a.b.c.d/n" with n in 8..29 and no host bits, which is neither loopback nor multicast. -EINVAL, -ENOMEM. */
int net_range_init(struct net_range *r, const char *text, struct un_error *err);
void net_range_done(struct net_range *r);

/* The number of a free guest address, or -1. */
int64_t net_range_take(struct net_range *r);
void net_range_give(struct net_range *r, uint32_t guest);

/* Fills all but `tap`. The gateway is base + 1, guest n is base + 2 + n. */
void net_range_describe(const struct net_range *r, uint32_t guest, struct net_link *ret);
void net_range_gateway(const struct net_range *r, char ret[NET_IP_SIZE]);
void net_range_netmask(const struct net_range *r, char ret[NET_IP_SIZE]);

uint32_t net_range_addr(const struct net_range *r, uint32_t guest); /* host byte order */
/* The guest that has an address (host byte order), or -1. */
int64_t net_range_guest(const struct net_range *r, uint32_t addr);
bool net_range_contains(const struct net_range *r, uint32_t addr);

/* The MAC that goes with an address of the range: locally administered, with its four bytes. */
void net_addr_mac(uint32_t addr, char ret[NET_MAC_SIZE]);

/* As dotted quad. Returns `ret`. */
const char *net_addr_text(uint32_t addr, char ret[NET_IP_SIZE]);

#endif
