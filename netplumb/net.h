/* net.h - networks for machine images: a tap for each guest, bridges and firewall tables of our own,
 * addresses and names by DHCP and DNS, and the connections that guests may open.
 *
 * What is there while guests are: a bridge for each 32 of them, which all have the gateway's address; one
 * tap per guest as an isolated port of a bridge, with a route to the guest's address; one nftables table
 * in each of the families bridge and inet. The kernel takes some 20 ms to remove a tap (it waits for an
 * RCU grace period), so a tap that is given back is kept for the next guest, with its address, for
 * NET_LINGER_MS; with the last one bridges and tables go as well. All of it bears the instance's name; what
 * an earlier unid of this state directory left is removed before the first guest, and nothing else is ever
 * changed: no existing link, address, route, table or sysctl of the host, and no range is used in which the
 * host has an address or a route of its own. It all is in the host's network, or in a namespace of unid's
 * own (namespace.h).
 *
 *     guest ── tap (isolated port) ──┬ bridge ──┬─ gateway address ── unid, dnsmasq
 *     guest ── tap (isolated port) ──┘          ├─ virtual addresses ── listeners of unid's
 *     guest ── tap (isolated port) ─── bridge ──┘
 *
 * The policy, which holds from the moment that the tap exists:
 *  - a guest speaks with its own MAC and IP address only (bridge table, per tap);
 *  - it reaches the gateway's DHCP, answers to connections that unid opens, the endpoints of its own
 *    function's egress (netplumb_spec.on_open), the gateway's DNS if some of these are names, and nothing
 *    else of the host; no other guest
 *    (isolated ports, and nothing forwarded between bridges); no network behind the host (forward chain).
 *    A connection to anything else gets a reset;
 *  - IPv6 and every other protocol but ARP and IPv4 stop at the tap.
 * Where another program removes tables or bridges of ours they are made again as soon as the kernel has told, and
 * nothing of guests is let in meanwhile.
 *
 * A connection that is allowed ends in a socket of unid's, which is handed up with the endpoint that the
 * guest meant; nothing is routed or translated, and connections of one guest are never seen by another.
 * Each endpoint's host has a virtual address in the last part of the range (targets.h); dnsmasq answers
 * its name with that, and all other names with NXDOMAIN. Where dnsmasq is not installed, guests that have
 * addresses on their command line do without.
 *
 * Loop thread throughout; the kernel is spoken to on one worker thread. Where things are: plumb.c
 * what is asked, link.c taps and bridges (rtnetlink), segment.c which tap is on which bridge, rules.c
 * the firewall (libnftables), addr.c addresses, targets.c what guests may connect to, listen.c where that
 * arrives, sockets.c what is left of that, dnsmasq.c DHCP and DNS, namespace.c a network for who is not root,
 * watch.c and mend.c what other programs remove of it.
 */
#ifndef UNID_NETPLUMB_NET_H
#define UNID_NETPLUMB_NET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/endpoint.h"
#include "common/error.h"
#include "common/loop.h"

enum {
    NET_NAME_SIZE = 16, /* IFNAMSIZ */
    NET_IP_SIZE = 16,   /* dotted quad and NUL */
    NET_MAC_SIZE = 18,
    NET_LINGER_MS = 10000,
    /* Measured with 600 taps: to make one a port and set it up takes 0.14 ms on an empty bridge, 0.16 at
     * 32 ports, 0.17 at 64, 0.54 at 600 (Linux 6.18). */
    NET_SEGMENT_PORTS = 32
};

struct netplumb;
struct net_namespace; /* namespace.h */

struct netplumb_spec {
    struct un_loop *loop;  /* kept until net_close */
    const char *state_dir; /* its name gives the instance's name, so that two unids do not meet */
    const char *range;     /* "10.87.0.0/16": the gateway is its first address; /8 to /29 */
    uid_t tap_owner;       /* who may open the taps: the user that QEMU runs as */
    struct net_namespace *ns; /* where it all is to be, kept until net_close; NULL: the host's */
    uint32_t linger_ms;       /* how long an idle tap is kept; 0: NET_LINGER_MS */
    uint32_t segment_ports;   /* guests on one bridge; 0: NET_SEGMENT_PORTS */
    /* A guest has opened a connection to an endpoint that its wish allows. Takes `fd`, a connected
     * non-blocking socket; `arg` is that of the guest's net_attach. NULL: none is allowed. */
    void (*on_open)(void *arg, const struct un_endpoint *to, int fd);
};

/* What a guest may connect to. */
struct net_wish {
    const char *key;     /* equal keys: equal lists, as of one function version */
    char *const *egress; /* "HOST:PORT", without wildcards; NULL-terminated, or NULL: nothing */
};

/* A guest's network. */
struct net_link {
    char tap[NET_NAME_SIZE];
    char mac[NET_MAC_SIZE];
    char ip[NET_IP_SIZE], netmask[NET_IP_SIZE], gateway[NET_IP_SIZE], dns[NET_IP_SIZE];
    unsigned prefix;
};

/* Whether this process can make taps and rules here (CAP_NET_ADMIN, tun, nftables); the reason when
 * not, in words. Then guests get QEMU's user network instead. Tries nothing out. */
bool net_available(struct un_error *err);

/* Whether there is a dnsmasq for DHCP and names; how to get one when not. */
bool net_names_available(struct un_error *err);

/* Whether it is a range as in struct netplumb_spec. Pure. -EINVAL with what one is; -ENOMEM. */
int net_range_valid(const char *range, struct un_error *err);

/* -EADDRINUSE: the host has an address or a route in the range, in words. Asks the kernel, now. */
int net_range_is_free(const struct netplumb *np, struct un_error *err);

/* Changes nothing yet. Gives the plumbing (net_close). -EINVAL the range. */
int net_open(const struct netplumb_spec *spec, struct netplumb **ret, struct un_error *err);

/* All links have been detached. Waits for what is under way and removes everything that was made. NULL
 * is allowed. */
void net_close(struct netplumb *np);

/* `link` is given on success (net_detach); -EPERM, -ENODEV, ... with what to do; -EADDRINUSE: the host uses
 * addresses of the range. */
typedef void (*net_attach_cb)(void *arg, int rc, struct net_link *link, const struct un_error *err);
/* 0 and `cb` follows; or at once -ENOSPC (all addresses are in use), -EINVAL (an endpoint that cannot be
 * served), -ENOMEM, and no `cb`. The wish is borrowed until the return; NULL: nothing is allowed. */
int net_attach(struct netplumb *np, const struct net_wish *wish, net_attach_cb cb, void *arg,
               struct un_error *err);

/* Whether there is an address for one guest more. Removed links give theirs back some 20 ms later. */
bool net_has_room(const struct netplumb *np);

/* What the guest of an attached link may connect to from now on, before it has opened anything; and who is
 * told of that. As net_attach, but when `cb` says that it failed, the link is still the caller's, with what
 * it had. Not while another call for the link is under way, nor detached before `cb`. */
int net_change(struct net_link *link, const struct net_wish *wish, net_attach_cb cb, void *arg,
               struct un_error *err);

/* Takes the link. Whoever had the tap open (QEMU) has closed it. */
void net_detach(struct net_link *link);

/* Gives a TCP socket (non-blocking, close-on-exec) with which guests can be reached, or a negative errno.
 * NULL: QEMU's user network, whose guests are behind ports of the host's loopback. */
int net_guest_socket(struct netplumb *np);

struct net_stats {
    unsigned attached, idle; /* links in use; kept for the next guest */
    uint64_t refused;        /* connections that came through the firewall and were not allowed */
    uint64_t mended; /* times that something was missing which another program had removed */
};
void net_get_stats(const struct netplumb *np, struct net_stats *ret);

/* Removes what an earlier unid of this state directory left, now rather than at the first attach. Once,
 * after net_open. */
typedef void (*net_done_cb)(void *arg);
void net_reconcile(struct netplumb *np, net_done_cb cb, void *arg);

#endif
