/* targets.c - see targets.h. */
#include "netplumb/targets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void net_targets_init(struct net_targets *t, const struct net_range *range,
                      const struct net_targets_user *user)
{
    *t = (struct net_targets){.range = range, .user = *user};
    un_list_init(&t->hosts);
    un_list_init(&t->policies);
}

/* --- hosts ------------------------------------------------------------------------------------- */

/* A virtual address that is free, the longest unused: who remembers an old answer finds nobody there. */
static uint32_t take_addr(struct net_targets *t)
{
    for (uint32_t tried = 0; tried < t->range->names_count; tried++) {
        uint32_t n = t->next;
        uint64_t bit = UINT64_C(1) << (n % 64);
        t->next = n + 1 == t->range->names_count ? 0 : n + 1;
        if (!(t->used[n / 64] & bit)) {
            t->used[n / 64] |= bit;
            return t->range->names_first + n;
        }
    }
    return 0;
}

static void give_addr(struct net_targets *t, uint32_t addr)
{
    uint32_t n = addr - t->range->names_first;
    t->used[n / 64] &= ~(UINT64_C(1) << (n % 64));
}

static void host_put(struct net_targets *t, struct net_host *h)
{
    if (--h->refs == 0) {
        give_addr(t, h->addr);
        un_list_remove(&h->node);
        t->changes++;
        free(h);
    }
}

static int host_get(struct net_targets *t, const struct un_endpoint *to, struct net_host **ret,
                    struct un_error *err)
{
    un_list_for_each (it, &t->hosts) {
        struct net_host *h = un_list_entry(it, struct net_host, node);
        if (strcmp(h->host, to->host) == 0) {
            h->refs++;
            *ret = h;
            return 0;
        }
    }
    struct net_host *h = calloc(1, sizeof(*h));
    uint32_t addr = h ? take_addr(t) : 0;
    if (!addr) {
        free(h);
        return h ? un_error_set(err, -ENOSPC,
                                "all %u virtual addresses for what machines may connect to are in "
                                "use: give a larger range",
                                t->range->names_count)
                 : un_error_set(err, -ENOMEM, "out of memory");
    }
    struct in_addr in;
    memcpy(h->host, to->host, sizeof(h->host));
    h->literal = to->is_address && inet_pton(AF_INET, to->host, &in) == 1 ? ntohl(in.s_addr) : 0;
    h->addr = addr;
    h->refs = 1;
    un_list_init(&h->ports);
    un_list_push(&t->hosts, &h->node);
    t->changes++;
    *ret = h;
    return 0;
}

/* --- ports ------------------------------------------------------------------------------------- */

static void port_put(struct net_targets *t, struct net_port *p)
{
    if (--p->refs == 0) {
        t->user.close(t->user.arg, p);
        un_list_remove(&p->node);
        host_put(t, p->host);
        free(p);
    }
}

static int port_get(struct net_targets *t, const struct un_endpoint *to, struct net_port **ret,
                    struct un_error *err)
{
    struct net_host *h = NULL;
    int rc = host_get(t, to, &h, err);
    if (rc < 0) {
        return rc;
    }
    un_list_for_each (it, &h->ports) {
        struct net_port *p = un_list_entry(it, struct net_port, node);
        if (p->port == to->port) {
            host_put(t, h); /* the port has its own */
            p->refs++;
            *ret = p;
            return 0;
        }
    }
    struct net_port *p = calloc(1, sizeof(*p));
    if (!p) {
        host_put(t, h);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    p->host = h;
    p->port = to->port;
    p->refs = 1;
    rc = t->user.open(t->user.arg, p, err);
    if (rc < 0) {
        host_put(t, h);
        free(p);
        return rc;
    }
    un_list_push(&h->ports, &p->node);
    *ret = p;
    return 0;
}

/* --- policies ---------------------------------------------------------------------------------- */

/* Reads a rule that stands for one endpoint which a machine can mean. */
static int read_rule(const struct net_targets *t, const char *text, struct un_endpoint *ret,
                     struct un_error *err)
{
    struct in_addr in;
    int rc = un_endpoint_parse(text, strlen(text), true, ret, err);
    if (rc < 0) {
        return rc;
    }
    if (ret->below || ret->any_port) {
        return un_error_set(err, -EINVAL, "egress \"%s\": machines need each host and port by name",
                            text);
    }
    if (ret->is_address && inet_pton(AF_INET, ret->host, &in) != 1) {
        return un_error_set(err, -EINVAL, "egress \"%s\": the network of machines is IPv4", text);
    }
    if (ret->is_address && net_range_contains(t->range, ntohl(in.s_addr))) {
        return un_error_set(err, -EINVAL,
                            "egress \"%s\" is in the range of the machines themselves: use "
                            "NAME.internal",
                            text);
    }
    return 0;
}

static void policy_free(struct net_targets *t, struct net_policy *p)
{
    un_list_remove(&p->node);
    for (size_t i = 0; i < p->count; i++) {
        port_put(t, p->ports[i]);
    }
    free(p->key);
    free(p);
}

static int policy_new(struct net_targets *t, const char *key, char *const *rules,
                      struct net_policy **ret, struct un_error *err)
{
    size_t count = 0;
    while (rules[count]) {
        count++;
    }
    struct net_policy *p = calloc(1, sizeof(*p) + count * sizeof(struct net_port *));
    if (!p || !(p->key = strdup(key))) {
        free(p);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    un_list_init(&p->node);
    for (size_t i = 0; i < count; i++) {
        struct un_endpoint to;
        struct net_port *port = NULL;
        int rc = read_rule(t, rules[i], &to, err);
        rc = rc < 0 ? rc : port_get(t, &to, &port, err);
        if (rc < 0) {
            policy_free(t, p);
            return rc;
        }
        if (net_policy_allows(p, port)) {
            port_put(t, port); /* the rule stands there twice */
        } else {
            p->ports[p->count++] = port;
        }
    }
    un_list_push(&t->policies, &p->node);
    p->refs = 1;
    *ret = p;
    return 0;
}

int net_policy_get(struct net_targets *t, const char *key, char *const *rules,
                   struct net_policy **ret, struct un_error *err)
{
    if (!rules || !rules[0]) {
        *ret = NULL;
        return 0;
    }
    un_list_for_each (it, &t->policies) {
        struct net_policy *p = un_list_entry(it, struct net_policy, node);
        if (strcmp(p->key, key) == 0) {
            *ret = net_policy_ref(p);
            return 0;
        }
    }
    return policy_new(t, key, rules, ret, err);
}

struct net_policy *net_policy_ref(struct net_policy *p)
{
    if (p) {
        p->refs++;
    }
    return p;
}

void net_policy_put(struct net_targets *t, struct net_policy *p)
{
    if (p && --p->refs == 0) {
        policy_free(t, p);
    }
}

bool net_policy_allows(const struct net_policy *p, const struct net_port *port)
{
    for (size_t i = 0; p && i < p->count; i++) {
        if (p->ports[i] == port) {
            return true;
        }
    }
    return false;
}

int net_targets_hosts(const struct net_targets *t, struct un_buf *out)
{
    int rc = 0;
    un_list_for_each (it, &t->hosts) {
        const struct net_host *h = un_list_entry(it, struct net_host, node);
        char ip[NET_IP_SIZE];
        if (!h->literal) {
            rc = rc < 0 ? rc : un_buf_printf(out, "%s %s\n", net_addr_text(h->addr, ip), h->host);
        }
    }
    return rc;
}
