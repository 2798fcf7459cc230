/* rules.c - see rules.h.
 *
 * Stateless on purpose: a guest opens no TCP connection (a SYN without ACK is dropped), so what it
 * sends is an answer; and the host's connection tracking is not switched on for our sake. The set
 * of guests serves ARP and IPv4 alike: tap, MAC, IP.
 */
#include "netplumb/rules.h"

#include <errno.h>
#include <nftables/libnftables.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

struct net_rules {
    struct nft_ctx *nft;
};

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

int net_rules_text(const struct net_names *n, const char *gateway, struct un_buf *out)
{
    return un_buf_printf(
        out,
        "table bridge unid-%s {\n"
        "  set guests { type ifname . ether_addr . ipv4_addr; }\n"
        "  chain from_guest {\n"
        "    type filter hook prerouting priority -300; policy accept;\n"
        "    iifname \"ut%s*\" jump guest\n"
        "  }\n"
        "  chain guest {\n"
        "    ether type arp iifname . ether saddr . arp saddr ip @guests accept\n"
        "    ether type ip iifname . ether saddr . ip saddr @guests accept\n"
        "    ether type ip ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept\n"
        "    drop\n"
        "  }\n"
        "}\n"
        "table inet unid-%s {\n"
        "  chain input {\n"
        "    type filter hook input priority -10; policy accept;\n"
        "    iifname \"%s\" jump guest\n"
        "  }\n"
        "  chain guest {\n"
        "    udp dport 67 accept\n"
        "    ip daddr != %s drop\n"
        "    udp dport 53 accept\n"
        "    tcp flags & (syn | ack) == syn drop\n"
        "    meta l4proto tcp accept\n"
        "    icmp type { echo-request, echo-reply, destination-unreachable } accept\n"
        "    drop\n"
        "  }\n"
        "  chain forward {\n"
        "    type filter hook forward priority -10; policy accept;\n"
        "    iifname \"%s\" drop\n"
        "    oifname \"%s\" drop\n"
        "  }\n"
        "}\n",
        n->tag, n->tag, n->tag, n->bridge, gateway, n->bridge, n->bridge);
}

/* An `add` in front makes `delete` succeed whether the table was there or not. */
static int append_removal(struct un_buf *out, const struct net_names *n)
{
    return un_buf_printf(out,
                         "add table bridge unid-%s\ndelete table bridge unid-%s\n"
                         "add table inet unid-%s\ndelete table inet unid-%s\n",
                         n->tag, n->tag, n->tag, n->tag);
}

int net_rules_install(struct net_rules *r, const struct net_names *n, const char *gateway,
                      struct un_error *err)
{
    struct un_buf text = {0};
    int rc = append_removal(&text, n);
    if (rc == 0) {
        rc = net_rules_text(n, gateway, &text);
    }
    rc = rc < 0 ? un_error_set(err, rc, "out of memory")
                : run(r, (const char *)text.data, "make our tables", err);
    un_buf_done(&text);
    return rc;
}

int net_rules_remove(struct net_rules *r, const struct net_names *n, struct un_error *err)
{
    struct un_buf text = {0};
    int rc = append_removal(&text, n);
    rc = rc < 0 ? un_error_set(err, rc, "out of memory")
                : run(r, (const char *)text.data, "remove our tables", err);
    un_buf_done(&text);
    return rc;
}

static int change_guest(struct net_rules *r, const char *verb, const struct net_names *n,
                        const struct net_link *link, struct un_error *err)
{
    struct un_buf text = {0};
    int rc = un_buf_printf(&text, "%s element bridge unid-%s guests { \"%s\" . %s . %s }\n", verb,
                           n->tag, link->tap, link->mac, link->ip);
    rc = rc < 0 ? un_error_set(err, rc, "out of memory")
                : run(r, (const char *)text.data, link->tap, err);
    un_buf_done(&text);
    return rc;
}

int net_rules_add_guest(struct net_rules *r, const struct net_names *n, const struct net_link *link,
                        struct un_error *err)
{
    return change_guest(r, "add", n, link, err);
}

int net_rules_remove_guest(struct net_rules *r, const struct net_names *n,
                           const struct net_link *link, struct un_error *err)
{
    return change_guest(r, "delete", n, link, err);
}
