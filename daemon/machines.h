/* machines.h - what machine images need: a libvirt driver, the network, the driver of services. */
#ifndef UNID_DAEMON_MACHINES_H
#define UNID_DAEMON_MACHINES_H

#include "daemon/config.h"
#include "daemon/drivers.h"
#include "netplumb/namespace.h"

struct machines;
struct scheduler;

/* What is done for machine images at the start of the process. */
struct machines_start {
    struct net_namespace *ns; /* where their network is; NULL: the host's, or QEMU's user network */
    char why_not[200], fix[NET_FIX_SIZE]; /* no namespace although there should be one; or "" */
};

/* Before this process has a second thread, and before anything else is opened: enters a namespace where
 * machine images are to have taps and the process has no right to make them in the host's network. Gives
 * `ret` (machines_finish), also where there is no namespace. -EIO: this process is of no use any more. */
int machines_prepare(const struct config *config, struct machines_start *ret, struct un_error *err);
/* After machines_close and drivers_close. */
void machines_finish(struct machines_start *start);
/* What drivers need to know of it. */
struct drivers_spec machines_drivers(const struct machines_start *start,
                                     const struct config *config, struct un_loop *loop);

/* Opens them, and puts the driver of services behind the others in `set`, last; nothing is loaded or
 * made before a machine is wanted. Where machine images cannot or shall not run `*ret` is NULL, and
 * the log says why. `start` and `spec` are those of machines_prepare and machines_drivers, the first kept
 * until the close. -ENOMEM, -EINVAL the range. Closed after the scheduler, before `set`. */
int machines_open(const struct machines_start *start, const struct drivers_spec *spec,
                  struct drivers *set, struct machines **ret, struct un_error *err);

/* How machine images are reached, for people. */
struct machines_network {
    bool whole; /* nothing is lost */
    char detail[600], fix[NET_FIX_SIZE];
};
/* NULL: they do not run here. */
void machines_describe_network(const struct machines *m, struct machines_network *ret);

/* Whom to ask for memory, and for connections to the outside. -ENOMEM. */
int machines_attach(struct machines *m, struct scheduler *scheduler, struct un_error *err);
/* The scheduler goes: connections to the outside are broken off. NULL is allowed. */
void machines_detach(struct machines *m);

/* Ends all machines, and waits for that by running the loop; takes the driver out of `set`. NULL is
 * allowed. */
void machines_close(struct machines *m, struct drivers *set);

#endif
