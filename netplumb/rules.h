/* rules.h - the firewall: what guests may send, by nftables. Private; the worker thread.
 *
 * Two tables of our own, made and removed as a whole: in the family bridge what leaves a tap, in
 * the family inet what reaches the host or would be forwarded. A guest is an element of a set, so
 * attaching one is the same, whatever the number of guests. So is a bridge, by its name: another's link
 * whose name is like it is none of ours. A third, the guard, holds while somebody else has removed these.
 */
#ifndef UNID_NETPLUMB_RULES_H
#define UNID_NETPLUMB_RULES_H

#include <stdbool.h>

#include "common/bytes.h"
#include "common/error.h"
#include "netplumb/addr.h"
#include "netplumb/link.h"
#include "netplumb/targets.h"

struct net_rules; /* a libnftables context */

int net_rules_new(struct net_rules **ret, struct un_error *err);
void net_rules_free(struct net_rules *r); /* NULL allowed; the tables stay, but the guard */

/* The tables' text; pure. -ENOMEM. */
int net_rules_text(const struct net_names *n, const struct net_range *range, struct un_buf *out);
/* That of the guard, which nobody else can remove; pure. -ENOMEM. */
int net_rules_guard_text(const struct net_names *n, struct un_buf *out);

/* What lets a guest (its address) reach what its policy names, and DNS if there are names among that, or takes
 * that back; pure. NULL: nothing.
 * -ENOMEM. */
int net_rules_policy_text(const struct net_names *n, bool add, const char *guest,
                          const struct net_policy *policy, struct un_buf *out);

/* In one transaction: replaces the tables by fresh ones; then, unless it stands, the guard, where the kernel has such
 * tables. -EPERM, -ENOTSUP (no nftables here). */
int net_rules_install(struct net_rules *r, const struct net_names *n, const struct net_range *range,
                      struct un_error *err);
/* Whether the tables are as net_rules_install made them, but for what is in their sets. */
bool net_rules_intact(struct net_rules *r, const struct net_names *n);
int net_rules_remove(struct net_rules *r, const struct net_names *n, struct un_error *err);

/* The rules hold for the bridges that are named so, and for no other link. */
int net_rules_add_bridge(struct net_rules *r, const struct net_names *n, const char *bridge,
                         struct un_error *err);
int net_rules_remove_bridge(struct net_rules *r, const struct net_names *n, const char *bridge,
                            struct un_error *err);

/* `more` is a text of net_rules_policy_text that goes along, or NULL. */
int net_rules_add_guest(struct net_rules *r, const struct net_names *n, const struct net_link *link,
                        const char *more, struct un_error *err);
int net_rules_remove_guest(struct net_rules *r, const struct net_names *n,
                           const struct net_link *link, const char *more, struct un_error *err);
/* Texts of net_rules_policy_text, in one transaction. */
int net_rules_change(struct net_rules *r, const char *text, struct un_error *err);

#endif
