/* egress_impl.h - what egress.c (connections) and egress_resolve.c (names) share. Not for others. */
#ifndef UNID_SCHEDULER_EGRESS_IMPL_H
#define UNID_SCHEDULER_EGRESS_IMPL_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "common/endpoint.h"
#include "common/limits.h"
#include "scheduler/egress.h"

enum { EGRESS_ADDRESSES = 8 }; /* of one name that are tried */

union egress_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};
socklen_t egress_address_len(const union egress_address *a);

/* Reads an IP address. False when `host` is none. */
bool egress_address_read(const char *host, uint16_t port, union egress_address *ret);

/* Whether the address is this host's own, or one that no name of the outside can mean: loopback,
 * unspecified, link-local, multicast, or of one of the interfaces. Any thread. */
bool egress_address_is_own(const union egress_address *a);

struct egress_lookup;
/* `rc` 0 and at least one address, or -EHOSTUNREACH there is no such name, -EACCES all its addresses
 * are this host's own. Borrowed. */
typedef void egress_lookup_cb(void *arg, int rc, const union egress_address *list, size_t count);
/* Looks a name up; `cb` comes later, unless it is given up. `own_allowed`: this host's own addresses
 * are not left out. Gives the look-up, NULL when too many are under way or out of memory. */
struct egress_lookup *egress_lookup_start(struct egress_resolver *r, const struct un_endpoint *to,
                                          bool own_allowed, egress_lookup_cb *cb, void *arg);
/* `cb` will not be called. NULL is allowed. */
void egress_lookup_give_up(struct egress_lookup *l);

#endif
