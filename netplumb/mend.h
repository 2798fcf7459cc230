/* mend.h - makes again what somebody else has removed of our tables and bridges. Private; the worker thread.
 *
 * Taps are not made again: a guest's QEMU holds the one that is gone.
 */
#ifndef UNID_NETPLUMB_MEND_H
#define UNID_NETPLUMB_MEND_H

#include "common/list.h"
#include "common/workers.h"
#include "netplumb/segment.h"

/* A guest's part in what is there. Part of a link. */
struct net_made {
    struct un_list node;
    const struct net_link *link;
    struct net_segment *segment;
    char *policy; /* net_rules_policy_text that is in force; NULL: nothing */
};

/* All of it, borrowed. */
struct net_mend {
    const struct net_names *names;
    const struct net_range *range;
    struct nl_sock *nl;
    struct net_rules *rules;
    struct net_segments *segments;
    struct un_list *made; /* struct net_made */
    bool again;           /* an attempt has failed: nothing is taken to be there */
};

/* What was missing, and is there again; bits. */
enum { NET_MENDED_RULES = 1, NET_MENDED_BRIDGES = 2 };

/* Looks, and mends. Gives NET_MENDED_*, 0: nothing was missing; or a negative errno: it is to be tried again.
 * Guests without rules reach nothing meanwhile, as the first thing there is what refuses all. */
int net_mend(const struct net_mend *m, struct un_error *err);

/* Has the worker look, once more where it does already, and again in a second when it failed; tells in the log. The
 * loop thread. */
struct net_mender {
    struct un_loop *loop;
    struct un_workers *worker;
    int (*look)(void *arg, struct un_error *err); /* worker thread; as net_mend */
    void *arg;
    /* its own */
    struct un_job job;
    struct un_timer timer;
    bool is_busy, is_wanted, is_closed;
    int what;
    uint64_t mended; /* how often something was missing */
};
/* The first four are set. */
void net_mender_init(struct net_mender *m);
void net_mender_look(struct net_mender *m);
/* It does nothing any more; before and behind the worker's end. */
void net_mender_close(struct net_mender *m);

#endif
