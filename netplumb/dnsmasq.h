/* dnsmasq.h - DHCP and DNS for guests: one dnsmasq(8), its files, its life. Private; the loop thread.
 *
 *     OFF --start--> RUNNING --ended by itself--> RESTING --a pause that doubles--> RUNNING
 *      ^                |                            |
 *      +------ stop ----+----------------------------+
 *
 * It answers on our bridges only: DHCP with the addresses that netplumb has given, DNS with the names that
 * guests may connect to, and nothing else (NXDOMAIN). DHCP has one socket for all bridges, which is open to
 * the host's other links as well; what comes from them is dropped unread. It asks no other server and reads
 * none of the host's files. It runs as the user "dnsmasq" (or "nobody") with the two capabilities that it
 * insists on, CAP_NET_BIND_SERVICE and CAP_NET_ADMIN; what it would do with the second, writing into the
 * kernel's ARP table, is answered with success and not done: the entries stand there already, for good.
 *
 * Its files are in a directory of the instance's own, for root below /run. The kernel kills it when unid
 * goes; a pid is written down all the same, with the time that it began, for the next start to check.
 */
#ifndef UNID_NETPLUMB_DNSMASQ_H
#define UNID_NETPLUMB_DNSMASQ_H

#include "common/bytes.h"
#include "common/loop.h"
#include "netplumb/addr.h"
#include "netplumb/link.h"

struct net_dnsmasq;

/* Writes one of the two files whenever they are due. -ENOMEM. */
struct net_dnsmasq_user {
    int (*hosts)(void *arg, struct un_buf *out);  /* hosts(5) */
    int (*leases)(void *arg, struct un_buf *out); /* "MAC,IP" a line */
    void *arg;
    const struct net_namespace *ns; /* where the bridge is; NULL: the host's network. Kept */
};

/* Where dnsmasq is installed, or NULL. */
const char *net_dnsmasq_path(void);

/* Its configuration; pure. `dir` is where its files are. -ENOMEM. */
int net_dnsmasq_config(const struct net_names *n, const struct net_range *range, const char *dir,
                       struct un_buf *out);

/* Where the instance's files are: below /run for root, else below the state directory. */
int net_dnsmasq_dir(const struct net_names *n, const char *state_dir, struct un_buf *ret);

/* Changes nothing yet. `names` and `range` are kept. Gives it (net_dnsmasq_free). -ENOMEM. */
int net_dnsmasq_new(struct un_loop *loop, const struct net_names *names,
                    const struct net_range *range, const char *state_dir,
                    const struct net_dnsmasq_user *user, struct net_dnsmasq **ret,
                    struct un_error *err);
/* Stops it. NULL is allowed. */
void net_dnsmasq_free(struct net_dnsmasq *d);

/* Starts it, when it does not run: the bridge is there. What goes wrong is logged, and tried again;
 * guests with addresses of their own do without it. */
void net_dnsmasq_start(struct net_dnsmasq *d);
/* Ends it, now, and removes its files. */
void net_dnsmasq_stop(struct net_dnsmasq *d);
/* Hosts or leases have changed: the files are written anew and read by it, soon. */
void net_dnsmasq_changed(struct net_dnsmasq *d);

/* Ends what a killed unid of this instance left, and removes its files. Once; the first start does it
 * as well. */
void net_dnsmasq_reconcile(struct net_dnsmasq *d);

#endif
