/* sockets.h - what is left of a guest's connections when it is gone. Private; the worker thread.
 *
 * The kernel remembers a connection that this side closed first for a minute (TIME_WAIT, RFC 9293 section
 * 3.6.1). The next guest at that address may begin with the same port and sequence number, as machines do
 * that boot alike; its first packet would be taken for one of the old connection, and what it opens stand
 * a second later only.
 */
#ifndef UNID_NETPLUMB_SOCKETS_H
#define UNID_NETPLUMB_SOCKETS_H

#include <netlink/socket.h>
#include <stdint.h>

#include "common/error.h"
#include "netplumb/addr.h"

enum {
    /* Ended at once; what is above that, of a guest that opened thousands in its last minute, ends by
     * itself. Others wait for the worker meanwhile: 5 us for each. */
    NET_SOCKETS_MAX = 4096
};

/* Gives a socket to the kernel's diagnosis of sockets (sock_diag(7); nl_socket_free). */
int net_sockets_open(struct nl_sock **ret, struct un_error *err);

/* Ends the TCP sockets of this network whose other end is the guest's address (host byte order), and whose
 * own is in the range: those of anybody else stay. Among them is what is in TIME_WAIT, from Linux 6.0 on.
 * -ENOTSUP: this kernel cannot (CONFIG_INET_DIAG_DESTROY). Some 0.3 to 1 ms: it goes through the table of all
 * sockets of the host. */
int net_sockets_end(struct nl_sock *diag, const struct net_range *range, uint32_t guest,
                    struct un_error *err);

#endif
