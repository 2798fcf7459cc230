/* targets.h - what guests may connect to: hosts with virtual addresses, their ports, and who may reach
 * which. Pure but for the listeners, which its user opens and closes; private; the loop thread.
 *
 *     policy (of a function version) ──> port ──> host ── "db.internal" or "203.0.113.5"
 *                                          │         └── virtual address, 10.87.255.7
 *                                          └── a listener of unid's at that address, at some port
 *
 * A host has one virtual address, whoever asks for it. A guest that connects to a name gets the virtual
 * address by DNS; one that connects to a literal address sends to that. In both cases the firewall
 * rewrites address and port to the listener's, and the answers back (rules.h). The listener's port is
 * any free one: a service of the host that listens at all addresses may have taken the guest's.
 */
#ifndef UNID_NETPLUMB_TARGETS_H
#define UNID_NETPLUMB_TARGETS_H

#include "common/bytes.h"
#include "common/endpoint.h"
#include "common/list.h"
#include "netplumb/addr.h"

struct net_host {
    struct un_list node;
    char host[UN_ENDPOINT_HOST_SIZE];
    uint32_t literal; /* the address that `host` is, host byte order; 0: it is a name */
    uint32_t addr;    /* virtual, host byte order */
    unsigned refs;    /* ports */
    struct un_list ports;
};

struct net_listener;

struct net_port {
    struct un_list node;
    struct net_host *host;
    uint16_t port;   /* as guests know it */
    uint16_t listen; /* of the listener at host->addr */
    struct net_listener *listener;
    unsigned refs; /* policies */
};

/* What the guests of one function version may connect to. */
struct net_policy {
    struct un_list node;
    char *key;
    unsigned refs; /* links */
    size_t count;
    struct net_port *ports[]; /* those of one host need not stand together */
};

/* Opens a listener for a port, whose host has its address already, and fills `listen` and `listener`;
 * or closes it. */
struct net_targets_user {
    int (*open)(void *arg, struct net_port *port, struct un_error *err);
    void (*close)(void *arg, struct net_port *port);
    void *arg;
};

struct net_targets {
    const struct net_range *range;
    struct net_targets_user user;
    struct un_list hosts, policies;
    uint64_t used[NET_NAMES_MAX / 64];
    uint32_t next;
    unsigned changes; /* counts up with every host that comes or goes */
};

/* `range` is kept. */
void net_targets_init(struct net_targets *t, const struct net_range *range,
                      const struct net_targets_user *user);

/* Gives the policy of that name (net_policy_put), made from the rules when it is new. NULL in `ret` when
 * there are no rules. -EINVAL a rule that cannot be served to machines, -ENOSPC no virtual address is
 * left, -ENOMEM, or what opening said. */
int net_policy_get(struct net_targets *t, const char *key, char *const *rules,
                   struct net_policy **ret, struct un_error *err);
struct net_policy *net_policy_ref(struct net_policy *p); /* NULL is allowed, as below */
void net_policy_put(struct net_targets *t, struct net_policy *p);
bool net_policy_allows(const struct net_policy *p, const struct net_port *port);

/* The names and their virtual addresses, as hosts(5) has them. -ENOMEM. */
int net_targets_hosts(const struct net_targets *t, struct un_buf *out);

#endif
