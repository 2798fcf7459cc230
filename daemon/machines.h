/* machines.h - what machine images need: a libvirt driver, the network, the driver of services. */
#ifndef UNID_DAEMON_MACHINES_H
#define UNID_DAEMON_MACHINES_H

#include "daemon/config.h"
#include "daemon/drivers.h"

struct machines;
struct scheduler;

/* Opens them, and puts the driver of services behind the others in `set`, last; nothing is loaded or
 * made before a machine is wanted. Where machine images cannot or shall not run `*ret` is NULL, and
 * the log says why. -ENOMEM, -EINVAL the range. Closed after the scheduler, before `set`. */
int machines_open(const struct config *config, struct un_loop *loop, struct drivers *set,
                  struct machines **ret, struct un_error *err);

/* How machine images are reached, for people. */
struct machines_network {
    bool whole; /* nothing is lost */
    char detail[400], fix[160];
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
