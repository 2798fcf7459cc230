/* watch.c - see watch.h. Two sockets: rtnetlink(7) for links, nfnetlink for tables (linux/netfilter/nf_tables.h). */
#include "netplumb/watch.h"

#include <errno.h>
#include <event2/event.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SOCKETS = 2, ROOM_BYTES = 1024 * 1024 };

struct net_watch {
    struct net_watch_user user;
    char table[32];
    struct nl_sock *nl[SOCKETS];
    struct event *event[SOCKETS];
};

/* All four messages have their table's name as attribute 1. */
_Static_assert(NFTA_TABLE_NAME == 1 && NFTA_CHAIN_TABLE == 1 && NFTA_RULE_TABLE == 1 &&
                   NFTA_SET_TABLE == 1,
               "as nf_tables.h has them");

static void on_table(struct net_watch *w, struct nlmsghdr *h)
{
    unsigned what = h->nlmsg_type & 0xff;
    if (h->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES ||
        (what != NFT_MSG_DELTABLE && what != NFT_MSG_DELCHAIN && what != NFT_MSG_DELRULE &&
         what != NFT_MSG_DELSET)) {
        return;
    }
    struct nlattr *name = nlmsg_find_attr(h, sizeof(struct nfgenmsg), NFTA_TABLE_NAME);
    if (name && nla_strcmp(name, w->table) == 0) {
        w->user.on_gone(w->user.arg);
    }
}

static void on_link(struct net_watch *w, struct nlmsghdr *h)
{
    const struct net_names *n = w->user.names;
    struct nlattr *attr = h->nlmsg_type == RTM_DELLINK
                              ? nlmsg_find_attr(h, sizeof(struct ifinfomsg), IFLA_IFNAME)
                              : NULL;
    const struct ifinfomsg *info = nlmsg_data(h);
    if (!attr || info->ifi_family != AF_UNSPEC) { /* AF_BRIDGE: a port less */
        return;
    }
    const char *name = nla_get_string(attr);
    if (strncmp(name, n->bridges, strlen(n->bridges)) == 0) {
        w->user.on_gone(w->user.arg);
    } else if (strncmp(name, "ut", 2) == 0 && strncmp(name + 2, n->tag, strlen(n->tag)) == 0) {
        w->user.on_tap_gone(w->user.arg, name, info->ifi_index);
    }
}

static int on_message(struct nl_msg *msg, void *arg)
{
    struct net_watch *w = arg;
    struct nlmsghdr *h = nlmsg_hdr(msg);
    if (nlmsg_get_proto(msg) == NETLINK_NETFILTER) {
        on_table(w, h);
    } else {
        on_link(w, h);
    }
    return NL_OK;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct net_watch *w = arg;
    int rc = 0;
    struct nl_sock *nl = nl_socket_get_fd(w->nl[0]) == fd ? w->nl[0] : w->nl[1];
    while (rc == 0) {
        rc = nl_recvmsgs_default(nl);
    }
    if (rc != -NLE_AGAIN) {
        w->user.on_gone(w->user.arg); /* there was no room for all: anything may be gone */
    }
}

static int open_socket(struct net_watch *w, int protocol, int group, struct nl_sock **ret)
{
    struct nl_sock *nl = *ret = nl_socket_alloc();
    if (!nl) {
        return -NLE_NOMEM;
    }
    nl_socket_disable_seq_check(nl);
    int rc = nl_socket_modify_cb(nl, NL_CB_VALID, NL_CB_CUSTOM, on_message, w);
    rc = rc < 0 ? rc : nl_connect(nl, protocol);
    rc = rc < 0 ? rc : nl_socket_set_nonblocking(nl);
    rc = rc < 0 ? rc : nl_socket_set_buffer_size(nl, ROOM_BYTES, 0);
    return rc < 0 ? rc : nl_socket_add_membership(nl, group);
}

int net_watch_new(const struct net_watch_user *user, struct net_watch **ret, struct un_error *err)
{
    struct net_watch *w = calloc(1, sizeof(*w));
    if (!w) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    w->user = *user;
    snprintf(w->table, sizeof(w->table), "unid-%s", user->names->tag);
    int rc = open_socket(w, NETLINK_ROUTE, RTNLGRP_LINK, &w->nl[0]);
    rc = rc < 0 ? rc : open_socket(w, NETLINK_NETFILTER, NFNLGRP_NFTABLES, &w->nl[1]);
    if (rc < 0) {
        net_watch_free(w);
        return un_error_set(err, rc == -NLE_NOMEM ? -ENOMEM : -EIO, "news of the network: %s",
                            nl_geterror(rc));
    }
    *ret = w;
    return 0;
}

int net_watch_start(struct net_watch *w, struct un_error *err)
{
    for (int i = 0; i < SOCKETS; i++) {
        if (w->event[i]) {
            continue;
        }
        w->event[i] = event_new(un_loop_base(w->user.loop), nl_socket_get_fd(w->nl[i]),
                                EV_READ | EV_PERSIST, on_readable, w);
        if (!w->event[i] || event_add(w->event[i], NULL) < 0) {
            return un_error_set(err, -ENOMEM, "out of memory");
        }
    }
    return 0;
}

void net_watch_free(struct net_watch *w)
{
    for (int i = 0; w && i < SOCKETS; i++) {
        if (w->event[i]) {
            event_free(w->event[i]);
        }
        nl_socket_free(w->nl[i]);
    }
    free(w);
}
