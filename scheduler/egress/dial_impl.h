/* dial_impl.h - what dial.c (connections) and dial_resolve.c (names) share. Not for others. */
#ifndef UNID_SCHEDULER_EGRESS_DIAL_IMPL_H
#define UNID_SCHEDULER_EGRESS_DIAL_IMPL_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "common/endpoint.h"
#include "common/limits.h"
#include "scheduler/egress/dial.h"

enum { DIAL_ADDRESSES = 8 }; /* of one name that are tried */

union dial_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};
socklen_t dial_address_len(const union dial_address *a);

/* Reads an IP address. False when `host` is none. */
bool dial_address_read(const char *host, uint16_t port, union dial_address *ret);

/* Whether the address is this host's own, or one that no name of the outside can mean: loopback,
 * unspecified, link-local, multicast, or of one of the interfaces. Any thread. */
bool dial_address_is_own(const union dial_address *a);

/* Gives what looks names up (dial_resolver_free), whose threads are started when needed. -ENOMEM. */
struct dial_resolver;
int dial_resolver_new(struct un_loop *loop, struct dial_resolver **ret, struct un_error *err);
/* Waits for look-ups that run. NULL is allowed. */
void dial_resolver_free(struct dial_resolver *r);

struct dial_lookup;
/* `rc` 0 and at least one address, or -EHOSTUNREACH there is no such name, -EACCES all its addresses
 * are this host's own. Borrowed. */
typedef void dial_lookup_cb(void *arg, int rc, const union dial_address *list, size_t count);
/* Looks a name up; `cb` comes later, unless it is given up. `own_allowed`: this host's own addresses
 * are not left out. Gives the look-up, NULL when too many are under way or out of memory. */
struct dial_lookup *dial_lookup_start(struct dial_resolver *r, const struct un_endpoint *to,
                                      bool own_allowed, dial_lookup_cb *cb, void *arg);
/* `cb` will not be called. NULL is allowed. */
void dial_lookup_give_up(struct dial_lookup *l);

#endif
