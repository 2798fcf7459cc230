/* sockets.c - see sockets.h. What it asks for is in linux/inet_diag.h and linux/sock_diag.h. */
#include "netplumb/sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netlink/msg.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "netplumb/link.h"

int net_sockets_open(struct nl_sock **ret, struct un_error *err)
{
    return net_socket_new(NETLINK_SOCK_DIAG, ret, err);
}

/* A condition of the kernel's filter: one end is in a network. */
struct condition {
    struct inet_diag_bc_op op;
    struct inet_diag_hostcond host;
    uint32_t addr; /* network byte order */
};
_Static_assert(sizeof(struct condition) == 16, "as the kernel reads it");

/* With `left` bytes from its beginning to the filter's end: a jump behind that refuses the socket. */
static struct condition condition(uint8_t code, uint32_t addr, unsigned prefix, size_t left)
{
    return (struct condition){
        .op = {.code = code, .yes = sizeof(struct condition), .no = (uint16_t)(left + 4)},
        .host = {.family = AF_INET, .prefix_len = (uint8_t)prefix, .port = -1},
        .addr = htonl(addr)};
}

/* Keeps who a socket is. */
static int on_socket(struct nl_msg *msg, void *arg)
{
    struct un_buf *ids = arg;
    const struct nlmsghdr *head = nlmsg_hdr(msg);
    const struct inet_diag_msg *found = nlmsg_data(head);
    if (nlmsg_datalen(head) >= (int)sizeof(*found) &&
        ids->len < NET_SOCKETS_MAX * sizeof(found->id)) {
        (void)un_buf_append(ids, &found->id, sizeof(found->id)); /* fewer, then */
    }
    return NL_OK;
}

static int list(struct nl_sock *diag, const struct net_range *range, uint32_t guest,
                struct un_buf *ids)
{
    struct inet_diag_req_v2 ask = {.sdiag_family = AF_INET,
                                   .sdiag_protocol = IPPROTO_TCP,
                                   .idiag_states = ~(UINT32_C(1) << TCP_LISTEN)};
    const struct condition filter[] = {
        condition(INET_DIAG_BC_S_COND, range->base, range->prefix, 2 * sizeof(struct condition)),
        condition(INET_DIAG_BC_D_COND, guest, 32, sizeof(struct condition))};
    struct nl_msg *msg = nlmsg_alloc_simple(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP);
    int rc = msg ? nlmsg_append(msg, &ask, sizeof(ask), NLMSG_ALIGNTO) : -NLE_NOMEM;
    rc = rc < 0 ? rc : nla_put(msg, INET_DIAG_REQ_BYTECODE, sizeof(filter), filter);
    rc = rc < 0 ? rc : nl_socket_modify_cb(diag, NL_CB_VALID, NL_CB_CUSTOM, on_socket, ids);
    rc = rc < 0 ? rc : nl_send_auto(diag, msg);
    nlmsg_free(msg);
    return rc < 0 ? rc : nl_recvmsgs_default(diag);
}

static int end(struct nl_sock *diag, const struct inet_diag_sockid *id)
{
    struct inet_diag_req_v2 who = {.sdiag_family = AF_INET,
                                   .sdiag_protocol = IPPROTO_TCP,
                                   .idiag_states = UINT32_MAX,
                                   .id = *id};
    struct nl_msg *msg = nlmsg_alloc_simple(SOCK_DESTROY, 0);
    int rc = msg ? nlmsg_append(msg, &who, sizeof(who), NLMSG_ALIGNTO) : -NLE_NOMEM;
    if (rc < 0) {
        nlmsg_free(msg);
        return rc;
    }
    rc = nl_send_sync(diag, msg); /* frees it */
    return rc == -NLE_OBJ_NOTFOUND ? 0 : rc;
}

int net_sockets_end(struct nl_sock *diag, const struct net_range *range, uint32_t guest,
                    struct un_error *err)
{
    char ip[NET_IP_SIZE];
    un_autobuf struct un_buf ids = {0};
    int rc = list(diag, range, guest, &ids);
    const struct inet_diag_sockid *id = (const void *)ids.data;
    for (size_t i = 0; i < ids.len / sizeof(*id); i++) {
        int one = end(diag, &id[i]); /* the others are tried all the same */
        rc = rc < 0 ? rc : one;
    }
    return rc < 0 ? net_nl_error(err, rc, "end the connections of", net_addr_text(guest, ip)) : 0;
}
