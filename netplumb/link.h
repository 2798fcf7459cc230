/* link.h - bridges and taps, by rtnetlink and /dev/net/tun. Private; the worker thread.
 *
 * A link is ours when its name has our prefix and its alias is our mark: a foreign link that happens
 * to have such a name is left alone, and is an error when the name is needed.
 */
#ifndef UNID_NETPLUMB_LINK_H
#define UNID_NETPLUMB_LINK_H

#include <netlink/socket.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "netplumb/addr.h"

struct net_names {
    char tag[9];                 /* 8 hex digits of the state directory's hash */
    char bridges[NET_NAME_SIZE]; /* "ub-<tag>": what all bridges' names begin with */
    char mark[32];               /* alias of our links: "unid <tag>" */
    uint16_t dhcp_port;          /* where DHCP is served; guests see it at 67 (rules.c) */
};
/* Of a state directory; equal ones for equal directories. */
void net_names_init(struct net_names *n, const char *state_dir);
/* "ub-<tag><hex>": at most 15 characters, as there are no more than 65536 segments. */
void net_names_bridge(const struct net_names *n, uint32_t segment, char ret[NET_NAME_SIZE]);
/* "ut<tag><hex>": at most 15 characters. */
void net_names_tap(const struct net_names *n, uint32_t guest, char ret[NET_NAME_SIZE]);

int net_socket_new(struct nl_sock **ret, struct un_error *err);

/* Makes a bridge with the gateway's address, up, and a route that makes all virtual addresses this
 * host's own. Other bridges may have the same of both; they go with the bridge. Gives its index. -EEXIST:
 * a foreign link has the name. */
int net_bridge_make(struct nl_sock *nl, const struct net_names *n, const char *name,
                    const struct net_range *range, int *ret_index, struct un_error *err);

/* Makes a persistent tap of `owner` as an isolated port of the bridge, up. */
int net_tap_make(struct nl_sock *nl, const struct net_names *n, const char *tap, uid_t owner,
                 int bridge, struct un_error *err);

/* Makes a tap that is there, and may be in use, an isolated port of the bridge, up. -ENODEV: it is gone. */
int net_tap_join(struct nl_sock *nl, const struct net_names *n, const char *tap, int bridge,
                 struct un_error *err);

/* Tells the kernel behind which bridge a guest is, and its MAC, for good: a question by ARP that nobody
 * answers while the guest boots is repeated after a second only. Both go with the bridge. -EEXIST: the
 * host has a route to this very address. On failure one of them may be there (net_guest_remove). */
int net_guest_add(struct nl_sock *nl, int bridge, const struct net_link *link,
                  struct un_error *err);
/* 0 also for what is not there. */
int net_guest_remove(struct nl_sock *nl, int bridge, const struct net_link *link,
                     struct un_error *err);

/* Removes one of our links; 0 also when it is not there. */
int net_link_remove(struct nl_sock *nl, const char *name, struct un_error *err);

/* Removes all links that are ours, gives their number, or a negative errno. */
int net_link_remove_all(struct nl_sock *nl, const struct net_names *n, struct un_error *err);

#endif
