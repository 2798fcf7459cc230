/* link.h - bridges and taps, by rtnetlink and /dev/net/tun. Private; the worker thread.
 *
 * A link is ours when its name has our prefix and its alias is our mark: a foreign link that happens
 * to have such a name is left alone, and is an error when the name is needed.
 */
#ifndef UNID_NETPLUMB_LINK_H
#define UNID_NETPLUMB_LINK_H

#include <linux/netlink.h>
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

/* Of one of the protocols of netlink(7); for the functions below NETLINK_ROUTE. */
int net_socket_new(int protocol, struct nl_sock **ret, struct un_error *err);

/* libnl's own code as a negative errno, which it returns, with its text. */
int net_nl_error(struct un_error *err, int code, const char *what, const char *name);

/* A destination that the host has a route to, and by what: "10.0.0.0/8 by eth0"; or "". */
enum { NET_ROUTE_SIZE = 48 };
/* Whether the range is nobody's but ours. -EADDRINUSE: the host has an address or a route in it. Gives the narrowest route that the whole range is a part of, but for the default one: what is
 * behind that the host does not reach while our bridges are there. */
int net_range_check(struct nl_sock *nl, const struct net_names *n, const struct net_range *range,
                    char ret_wider[NET_ROUTE_SIZE], struct un_error *err);

/* Makes a bridge with the gateway's address, up, and a route that makes all virtual addresses this
 * host's own. Other bridges may have the same of both; they go with the bridge. Gives its index. -EEXIST:
 * a foreign link has the name. */
int net_bridge_make(struct nl_sock *nl, const struct net_names *n, const char *name,
                    const struct net_range *range, int *ret_index, struct un_error *err);

/* Makes a guest's tap, persistent, of `owner`, as an isolated port of the bridge, up: what is for the guest's MAC goes
 * there, and nothing else but what is for all, whatever guests send. On failure there is none. -EBUSY, -EINVAL: a foreign
 * link has the name, and stays. */
int net_tap_make(struct nl_sock *nl, const struct net_names *n, const struct net_link *link,
                 uid_t owner, int bridge, struct un_error *err);

/* Makes a tap that is there, and may be in use, such a port. -ENODEV: it is gone. */
int net_tap_join(struct nl_sock *nl, const struct net_names *n, const struct net_link *link,
                 int bridge, struct un_error *err);

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
