/* rules.c - see rules.h.
 *
 * Stateless on purpose: a guest opens no TCP connection but those that its policy names (the SYN of any
 * other gets a reset), so what it sends besides is an answer; and the host's connection tracking is not
 * switched on for our sake. Which MAC a tap has and which address are sets, of which each guest is an element.
 *
 * Where a guest connects to what it is allowed, address and port are rewritten to those of unid's
 * listener as the packet comes in, and back as the answers go out. Each map has the guest's address in its
 * key, so nothing has to be remembered of a connection. A port is rewritten first, an address second, and
 * back in the other order, each by what the one before left.
 *
 *     guest -> 203.0.113.5:443 --ports--> 203.0.113.5:40001 --there--> 10.87.255.7:40001
 *     guest <- 203.0.113.5:443 <-sports-- 203.0.113.5:40001 <--back--- 10.87.255.7:40001
 *
 * DNS is one view for all: only who may connect to something by its name (named) gets any answer of it.
 *
 * dnsmasq is one for all, and believes what a question says of who asks: a DHCPDECLINE of somebody's keeps it from
 * giving that one an address. So DHCP's field chaddr (RFC 2131, bit 288 of UDP) is held against the tap as the frame's
 * MAC is.
 *
 * What makes work for what all guests share, dnsmasq, unid's loop, and the connection tracking that the host may have, is
 * bounded for each tap: questions and openings of connections in a second. More than a guest needs, and so few that the
 * others' are not lost.
 *
 * DHCP's port is rewritten as well: dnsmasq serves all bridges by one socket, which is at all of the host's
 * addresses, and would meet others' DHCP servers at 67. A checksum of 0 says that there is none (RFC 768), as
 * some guests' packets do; nftables would count on from it.
 *
 * This happens before and behind all that others hook in, whose tables see the rewritten packets only.
 *
 * Others may remove the tables (`flush ruleset`), and making them again takes some milliseconds. So what they let in
 * bears a mark, and a third table, the guard, drops what has none. It is owned by a socket of ours (nft(8), flag `owner`;
 * Linux 5.12), so nobody else removes it, and it goes with that socket: hence it is one more and not the only one, as
 * guests may outlive a unid that is killed. It knows bridges by how their names begin, so that it never changes. The mark
 * is set behind all routing, and taken off by the guard.
 */
#include "netplumb/rules.h"

#include <errno.h>
#include <nftables/libnftables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"

struct net_rules {
    struct nft_ctx *nft;
    char *listed; /* the tables as the kernel listed them when they were made; NULL: not known */
    struct nft_ctx *guard; /* the owner of the third table, for nothing else; NULL: there is none */
};

static const unsigned passed_mark = 0x756e6964; /* any that is not 0 */

static void drop_guard(struct net_rules *r)
{
    if (r->guard) {
        nft_ctx_free(un_steal(&r->guard));
    }
}

int net_rules_new(struct net_rules **ret, struct un_error *err)
{
    struct net_rules *r = calloc(1, sizeof(*r));
    if (r) {
        r->nft = nft_ctx_new(NFT_CTX_DEFAULT);
    }
    if (!r || !r->nft || nft_ctx_buffer_error(r->nft) || nft_ctx_buffer_output(r->nft)) {
        net_rules_free(r);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    *ret = r;
    return 0;
}

void net_rules_free(struct net_rules *r)
{
    if (r) {
        if (r->nft) {
            nft_ctx_free(r->nft);
        }
        drop_guard(r);
        free(r->listed);
        free(r);
    }
}

/* libnftables says what went wrong in words only. */
static int run(struct net_rules *r, const char *text, const char *what, struct un_error *err)
{
    if (nft_run_cmd_from_buffer(r->nft, text) == 0) {
        return 0;
    }
    const char *said = nft_ctx_get_error_buffer(r->nft);
    int rc = strstr(said, "not permitted")       ? -EPERM
             : strstr(said, "not supported")     ? -ENOTSUP
             : strstr(said, "No such file")      ? -ENOENT
             : strstr(said, "Could not process") ? -EIO
                                                 : -EINVAL;
    int line = (int)strcspn(said, "\n");
    return un_error_set(err, rc, "nftables: %s: %.*s", what, line, said);
}

static int bridge_text(const struct net_names *n, struct un_buf *out)
{
    return un_buf_printf(
        out,
        "table bridge unid-%s {\n"
        "  set cards { type ifname . ether_addr; }\n"
        "  set clients { typeof iifname . @th,288,48; }\n"
        "  set guests { type ifname . ipv4_addr; }\n"
        "  set asking { type ifname; size 65535; flags dynamic; timeout 10s; }\n"
        "  set opening { type ifname; size 65535; flags dynamic; timeout 10s; }\n"
        "  set pinging { type ifname; size 65535; flags dynamic; timeout 10s; }\n"
        "  set resolving { type ifname; size 65535; flags dynamic; timeout 10s; }\n"
        "  chain from_guest {\n"
        "    type filter hook prerouting priority -300; policy accept;\n"
        "    iifname \"ut%s*\" jump guest\n"
        "  }\n"
        "  chain guest {\n"
        "    iifname . ether saddr != @cards drop\n"
        "    ether type arp iifname . arp saddr ether @cards iifname . arp saddr ip @guests "
        "accept\n"
        "    ether type ip udp dport { 67, %u } jump dhcp\n"
        "    ether type ip tcp flags & (syn | ack) == syn update @opening"
        " { iifname limit rate over 1000/second burst 1000 packets } drop\n"
        "    ether type ip ip protocol icmp update @pinging"
        " { iifname limit rate over 100/second burst 100 packets } drop\n"
        "    ether type ip udp dport 53 update @resolving"
        " { iifname limit rate over 500/second burst 1000 packets } drop\n"
        "    ether type ip iifname . ip saddr @guests accept\n"
        "    drop\n"
        "  }\n"
        "  chain dhcp {\n"
        "    update @asking { iifname limit rate over 20/second burst 50 packets } drop\n"
        "    ip saddr 0.0.0.0 udp sport 68 iifname . @th,288,48 @clients accept\n"
        "    iifname . ip saddr @guests iifname . @th,288,48 @clients accept\n"
        "    drop\n"
        "  }\n"
        "}\n",
        n->tag, n->tag, n->dhcp_port);
}

static int rewriting_text(const struct net_names *n, const struct net_range *range,
                          struct un_buf *out)
{
    char base[NET_IP_SIZE];
    return un_buf_printf(
        out,
        "  set bridges { type ifname; }\n"
        "  set named { type ipv4_addr; }\n"
        "  set allowed { type ipv4_addr . ipv4_addr . inet_service; }\n"
        "  map ports { type ipv4_addr . ipv4_addr . inet_service : inet_service; }\n"
        "  map there { type ipv4_addr . ipv4_addr . inet_service : ipv4_addr; }\n"
        "  map back { type ipv4_addr . ipv4_addr . inet_service : ipv4_addr; }\n"
        "  map sports { type ipv4_addr . ipv4_addr . inet_service : inet_service; }\n"
        "  chain from_guest {\n"
        "    type filter hook prerouting priority -310; policy accept;\n"
        "    iifname @bridges jump rewrite\n"
        "  }\n"
        "  chain rewrite {\n"
        "    udp dport 67 udp dport set %u udp checksum set 0\n"
        "    tcp dport set ip saddr . ip daddr . tcp dport map @ports\n"
        "    ip daddr set ip saddr . ip daddr . tcp dport map @there\n"
        "    ip daddr != { %s/%u, 255.255.255.255 } tcp flags & (syn | ack) == syn"
        " counter reject with tcp reset\n"
        "  }\n"
        "  chain to_guest {\n"
        "    type filter hook postrouting priority 310; policy accept;\n"
        "    oifname @bridges jump restore\n"
        "  }\n"
        "  chain restore {\n"
        "    udp sport %u udp sport set 67\n"
        "    ip saddr set ip daddr . ip saddr . tcp sport map @back\n"
        "    tcp sport set ip daddr . ip saddr . tcp sport map @sports\n"
        "  }\n",
        n->dhcp_port, net_addr_text(range->base, base), range->prefix, n->dhcp_port);
}

int net_rules_text(const struct net_names *n, const struct net_range *range, struct un_buf *out)
{
    char gateway[NET_IP_SIZE];
    net_range_gateway(range, gateway);
    int rc = bridge_text(n, out);
    rc = rc < 0 ? rc : un_buf_printf(out, "table inet unid-%s {\n", n->tag);
    rc = rc < 0 ? rc : rewriting_text(n, range, out);
    return rc < 0
               ? rc
               : un_buf_printf(
                     out,
                     "  chain input {\n"
                     "    type filter hook input priority -10; policy accept;\n"
                     "    iifname @bridges jump guest\n"
                     "    iifname @bridges meta mark set %u\n"
                     "  }\n"
                     "  chain guest {\n"
                     "    udp dport %u return\n"
                     "    ip saddr . ip daddr . tcp dport @allowed return\n"
                     "    tcp flags & (syn | ack) == syn counter reject with tcp reset\n"
                     "    ip daddr != %s drop\n"
                     "    ip saddr @named udp dport 53 return\n"
                     "    udp dport 53 reject with icmp type port-unreachable\n"
                     "    meta l4proto tcp return\n"
                     "    icmp type { echo-request, echo-reply, destination-unreachable } return\n"
                     "    drop\n"
                     "  }\n"
                     "  chain forward {\n"
                     "    type filter hook forward priority -10; policy accept;\n"
                     "    iifname @bridges drop\n"
                     "    oifname @bridges drop\n"
                     "  }\n"
                     "}\n",
                     passed_mark, n->dhcp_port, gateway);
}

int net_rules_guard_text(const struct net_names *n, struct un_buf *out)
{
    return un_buf_printf(out,
                         "table inet unid-%s-guard {\n"
                         "  flags owner\n"
                         "  chain input {\n"
                         "    type filter hook input priority -9; policy accept;\n"
                         "    iifname \"%s*\" meta mark != %u drop\n"
                         "    iifname \"%s*\" meta mark set 0\n"
                         "  }\n"
                         "  chain forward {\n"
                         "    type filter hook forward priority -9; policy accept;\n"
                         "    iifname \"%s*\" drop\n"
                         "    oifname \"%s*\" drop\n"
                         "  }\n"
                         "}\n",
                         n->tag, n->bridges, passed_mark, n->bridges, n->bridges, n->bridges);
}

static int port_text(const struct net_names *n, const char *verb, const char *guest,
                     const struct net_port *p, struct un_buf *out)
{
    char virtual[NET_IP_SIZE], known[NET_IP_SIZE];
    uint32_t literal = p->host->literal;
    net_addr_text(p->host->addr, virtual);
    net_addr_text(literal ? literal : p->host->addr, known);
    int rc = un_buf_printf(out,
                           "%s element inet unid-%s allowed { %s . %s . %u }\n"
                           "%s element inet unid-%s ports { %s . %s . %u : %u }\n"
                           "%s element inet unid-%s sports { %s . %s . %u : %u }\n",
                           verb, n->tag, guest, virtual, p->listen, verb, n->tag, guest, known,
                           p->port, p->listen, verb, n->tag, guest, known, p->listen, p->port);
    return rc < 0 || !literal
               ? rc
               : un_buf_printf(out,
                               "%s element inet unid-%s there { %s . %s . %u : %s }\n"
                               "%s element inet unid-%s back { %s . %s . %u : %s }\n",
                               verb, n->tag, guest, known, p->listen, virtual, verb, n->tag, guest,
                               virtual, p->listen, known);
}

int net_rules_policy_text(const struct net_names *n, bool add, const char *guest,
                          const struct net_policy *policy, struct un_buf *out)
{
    const char *verb = add ? "add" : "delete";
    bool named = false;
    int rc = 0;
    for (size_t i = 0; policy && i < policy->count && rc == 0; i++) {
        named = named || !policy->ports[i]->host->literal;
        rc = port_text(n, verb, guest, policy->ports[i], out);
    }
    return rc < 0 || !named
               ? rc
               : un_buf_printf(out, "%s element inet unid-%s named { %s }\n", verb, n->tag, guest);
}

/* An `add` in front makes `delete` succeed whether the table was there or not. */
static int append_removal(struct un_buf *out, const struct net_names *n)
{
    return un_buf_printf(out,
                         "add table bridge unid-%s\ndelete table bridge unid-%s\n"
                         "add table inet unid-%s\ndelete table inet unid-%s\n",
                         n->tag, n->tag, n->tag, n->tag);
}

/* Appends the kernel's listing of one table, without what comes and goes in its sets. */
static int list_table(struct net_rules *r, const char *family, const struct net_names *n,
                      struct un_buf *out)
{
    char text[48];
    snprintf(text, sizeof(text), "list table %s unid-%s", family, n->tag);
    int rc = run(r, text, "list our tables", NULL);
    return rc < 0 ? rc : un_buf_append_str(out, nft_ctx_get_output_buffer(r->nft));
}

/* One at a time: libnftables 1.0.6 lists no two with one command. NULL: one is not there, or out of memory. */
static char *list_tables(struct net_rules *r, const struct net_names *n)
{
    un_autobuf struct un_buf listed = {0};
    nft_ctx_output_set_flags(r->nft, NFT_CTX_OUTPUT_STATELESS | NFT_CTX_OUTPUT_TERSE);
    int rc = list_table(r, "bridge", n, &listed);
    rc = rc < 0 ? rc : list_table(r, "inet", n, &listed);
    nft_ctx_output_set_flags(r->nft, 0);
    return rc < 0 ? NULL : un_buf_steal_str(&listed);
}

/* Unless it stands. Kernels and libraries that know no owners do without. */
static void make_guard(struct net_rules *r, const struct net_names *n)
{
    un_autobuf struct un_buf text = {0};
    if (r->guard || net_rules_guard_text(n, &text) < 0 ||
        !(r->guard = nft_ctx_new(NFT_CTX_DEFAULT))) {
        return;
    }
    if (nft_ctx_buffer_error(r->guard) ||
        nft_run_cmd_from_buffer(r->guard, (const char *)text.data) != 0) {
        un_log(UN_LOG_DEBUG, "guests have no guard while others change the firewall", "error",
               nft_ctx_get_error_buffer(r->guard));
        drop_guard(r);
    }
}

int net_rules_install(struct net_rules *r, const struct net_names *n, const struct net_range *range,
                      struct un_error *err)
{
    un_autobuf struct un_buf text = {0};
    int rc = append_removal(&text, n);
    rc = rc < 0 ? rc : net_rules_text(n, range, &text);
    rc = rc < 0 ? un_error_set(err, rc, "out of memory")
                : run(r, (const char *)text.data, "make our tables", err);
    free(r->listed);
    r->listed = rc < 0 ? NULL : list_tables(r, n);
    if (rc == 0) {
        make_guard(r, n);
    }
    return rc;
}

bool net_rules_intact(struct net_rules *r, const struct net_names *n)
{
    char *now = list_tables(r, n);
    bool same = !r->listed || (now && strcmp(now, r->listed) == 0);
    free(now);
    return same;
}

int net_rules_remove(struct net_rules *r, const struct net_names *n, struct un_error *err)
{
    un_autobuf struct un_buf text = {0};
    int rc = append_removal(&text, n);
    drop_guard(r);
    return rc < 0 ? un_error_set(err, rc, "out of memory")
                  : run(r, (const char *)text.data, "remove our tables", err);
}

static int change_bridge(struct net_rules *r, const char *verb, const struct net_names *n,
                         const char *bridge, struct un_error *err)
{
    un_autobuf struct un_buf text = {0};
    int rc =
        un_buf_printf(&text, "%s element inet unid-%s bridges { \"%s\" }", verb, n->tag, bridge);
    return rc < 0 ? un_error_set(err, rc, "out of memory")
                  : run(r, (const char *)text.data, bridge, err);
}

int net_rules_add_bridge(struct net_rules *r, const struct net_names *n, const char *bridge,
                         struct un_error *err)
{
    return change_bridge(r, "add", n, bridge, err);
}

int net_rules_remove_bridge(struct net_rules *r, const struct net_names *n, const char *bridge,
                            struct un_error *err)
{
    return change_bridge(r, "delete", n, bridge, err);
}

/* Without its colons. */
static void mac_number(const char *mac, char ret[NET_MAC_SIZE])
{
    for (; *mac; mac++) {
        if (*mac != ':') {
            *ret++ = *mac;
        }
    }
    *ret = '\0';
}

static int change_guest(struct net_rules *r, const char *verb, const struct net_names *n,
                        const struct net_link *link, const char *more, struct un_error *err)
{
    un_autobuf struct un_buf text = {0};
    char number[NET_MAC_SIZE]; /* the MAC, as raw bytes of a packet are written */
    mac_number(link->mac, number);
    int rc = un_buf_printf(&text,
                           "%s element bridge unid-%s clients { \"%s\" . 0x%s }\n"
                           "%s element bridge unid-%s cards { \"%s\" . %s }\n"
                           "%s element bridge unid-%s guests { \"%s\" . %s }\n%s",
                           verb, n->tag, link->tap, number, verb, n->tag, link->tap, link->mac,
                           verb, n->tag, link->tap, link->ip, more ? more : "");
    return rc < 0 ? un_error_set(err, rc, "out of memory")
                  : run(r, (const char *)text.data, link->tap, err);
}

int net_rules_add_guest(struct net_rules *r, const struct net_names *n, const struct net_link *link,
                        const char *more, struct un_error *err)
{
    return change_guest(r, "add", n, link, more, err);
}

int net_rules_remove_guest(struct net_rules *r, const struct net_names *n,
                           const struct net_link *link, const char *more, struct un_error *err)
{
    return change_guest(r, "delete", n, link, more, err);
}

int net_rules_change(struct net_rules *r, const char *text, struct un_error *err)
{
    return run(r, text, "change what a guest may connect to", err);
}
