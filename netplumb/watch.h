/* watch.h - hears what others do to links and tables of ours: the kernel's news. Private.
 *
 * A reload of the host's firewall often begins with `flush ruleset`, which takes away everybody's tables, and
 * so what stands between guests and the host. What is gone is told by the kernel at once; what unid removes
 * itself is told as well, so whoever is told looks whether anything is missing (mend.h).
 */
#ifndef UNID_NETPLUMB_WATCH_H
#define UNID_NETPLUMB_WATCH_H

#include "common/error.h"
#include "common/loop.h"
#include "netplumb/link.h"

struct net_watch;

/* The loop thread. */
struct net_watch_user {
    struct un_loop *loop;
    const struct net_names *names;
    /* A table of ours, or part of one, or a bridge is gone; or news were lost. */
    void (*on_gone)(void *arg);
    /* A link named as our taps are is gone; `index` was its own. */
    void (*on_tap_gone)(void *arg, const char *name, int index);
    void *arg;
};

/* The sockets, of the network in which the calling thread is; nothing is told before net_watch_start. Keeps
 * what `user` points to. -ENOMEM, and what the kernel says. */
int net_watch_new(const struct net_watch_user *user, struct net_watch **ret, struct un_error *err);
/* The loop thread; any number of times. -ENOMEM. */
int net_watch_start(struct net_watch *w, struct un_error *err);
void net_watch_free(struct net_watch *w); /* NULL allowed */

#endif
