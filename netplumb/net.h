/* net.h - networks for machine images: a tap for each guest, a bridge and a firewall table of our own.
 *
 * What is there while guests are: one bridge with the gateway's address, one tap per guest as an
 * isolated port of it, one nftables table in each of the families bridge and inet. The kernel takes
 * some 20 ms to remove a tap (it waits for an RCU grace period), so a tap that is given back is kept
 * for the next guest, with its address, for NET_LINGER_MS; with the last one bridge and tables go as
 * well. All of it bears the instance's name; what an earlier unid of this state
 * directory left is removed before the first guest, and nothing else is ever changed: no existing
 * link, address, route, table or sysctl of the host.
 *
 *     guest ── tap (isolated port) ── bridge ── gateway address ── unid
 *
 * The policy, which holds from the moment that the tap exists:
 *  - a guest speaks with its own MAC and IP address only (bridge table, per tap);
 *  - it reaches the gateway's DHCP and DNS, answers to connections that unid opens, and nothing else
 *    of the host; no other guest (isolated ports); no network behind the host (forward chain);
 *  - IPv6 and every other protocol but ARP and IPv4 stop at the tap.
 *
 * Loop thread throughout; the kernel is spoken to on one worker thread. Where things are: plumb.c
 * what is asked, link.c taps and bridge (rtnetlink), rules.c the firewall (libnftables), addr.c
 * addresses.
 */
#ifndef UNID_NETPLUMB_NET_H
#define UNID_NETPLUMB_NET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "common/loop.h"

enum {
    NET_NAME_SIZE = 16, /* IFNAMSIZ */
    NET_IP_SIZE = 16,   /* dotted quad and NUL */
    NET_MAC_SIZE = 18,
    NET_LINGER_MS = 10000
};

struct netplumb;

struct netplumb_spec {
    struct un_loop *loop;  /* kept until net_close */
    const char *state_dir; /* its name gives the instance's name, so that two unids do not meet */
    const char *range;     /* "10.87.0.0/16": the gateway is its first address; /8 to /29 */
    uid_t tap_owner;       /* who may open the taps: the user that QEMU runs as */
    uint32_t linger_ms;    /* how long an idle tap is kept; 0: NET_LINGER_MS */
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

/* Changes nothing yet. Gives the plumbing (net_close). -EINVAL the range. */
int net_open(const struct netplumb_spec *spec, struct netplumb **ret, struct un_error *err);

/* All links have been detached. Waits for what is under way and removes everything that was made. NULL
 * is allowed. */
void net_close(struct netplumb *np);

/* `link` is given on success (net_detach); -EPERM, -ENODEV, ... with what to do. */
typedef void (*net_attach_cb)(void *arg, int rc, struct net_link *link, const struct un_error *err);
/* 0 and `cb` follows; or at once -ENOSPC (all addresses are in use), -ENOMEM, and no `cb`. */
int net_attach(struct netplumb *np, net_attach_cb cb, void *arg, struct un_error *err);

/* Takes the link. Whoever had the tap open (QEMU) has closed it. */
void net_detach(struct net_link *link);

struct net_stats {
    unsigned attached, idle; /* links in use; kept for the next guest */
};
void net_get_stats(const struct netplumb *np, struct net_stats *ret);

/* Removes what an earlier unid of this state directory left, now rather than at the first attach. Once,
 * after net_open. */
typedef void (*net_done_cb)(void *arg);
void net_reconcile(struct netplumb *np, net_done_cb cb, void *arg);

#endif
