/* listen.h - sockets at virtual addresses, where the connections of guests arrive. Private; the loop
 * thread. */
#ifndef UNID_NETPLUMB_LISTEN_H
#define UNID_NETPLUMB_LISTEN_H

#include "common/loop.h"
#include "netplumb/targets.h"

/* Takes `fd`, a connected non-blocking socket. `guest` is the other end's address, host byte order. */
typedef void (*net_accept_cb)(void *arg, struct net_port *port, uint32_t guest, int fd);

/* Kept, all of it, until net_listener_close. */
struct net_listener_user {
    struct un_loop *loop;
    struct net_namespace *ns; /* whose virtual addresses; NULL: the host's */
    net_accept_cb cb;
    void *arg;
};

/* Listens at the port's virtual address, which need not be this host's yet, and fills port->listen and
 * port->listener. The port is kept until net_listener_close. A negative errno of the sockets. */
int net_listener_open(const struct net_listener_user *user, struct net_port *port,
                      struct un_error *err);
void net_listener_close(struct net_port *port);

#endif
