/* service.h - machine images as functions: a driver whose VMs are connections.
 *
 * For the scheduler a service is a driver like the others (hypervisor/hv.h): its shells are there at
 * once and cost nothing, since a "VM" of it is one request at one machine. vm_run finds the machine
 * by hv_run_spec.machine, wakes one when none has a place, waits until its port answers, and then
 * carries request and response over a TCP connection, as UNID_INTERFACE_HTTP says, or the bytes of
 * a connection, as UNID_INTERFACE_TCP says.
 *
 *     request ──> connection ── waits ──> machine with a free place ──> its port
 *                                 │             ▲ ready: the port answers
 *                            service_decide     │
 *                                 ▼             │
 *                    MAKING ──> PAUSED ──> STARTING ──> READY ──> ENDING ──> (freed)
 *
 * A machine that ends or does not become ready in time is a failure: the next is begun after a pause
 * that doubles, and requests that cannot be sent on are lost (HV_EXIT_LOST, or HV_EXIT_FAULT where the
 * machine crashed), before on_started where the machine has seen nothing of them. One that shuts itself
 * down while nobody uses it is none.
 *
 * The driver keeps machines (min_instances) of versions that it was told are live; where another version
 * of the function is, machines serve what they have and go. Who knows about versions is above it and
 * speaks by struct hv_service_ops (hypervisor/machine.h). Two machines never have one volume: the next
 * waits until the one that has it is gone, which goes as soon as it has nothing to serve.
 *
 * Loop thread throughout. Where things are: policy.c how many machines there are, service.c the driver
 * and its services, versions.c what it is told of versions and tells of machines, volume.c who has which
 * volume, shells.c machines made ahead for any service, machine.c one machine, connection.c one request,
 * stream.c one connection without requests.
 */
#ifndef UNID_SERVICE_SERVICE_H
#define UNID_SERVICE_SERVICE_H

#include "hypervisor/hv.h"
#include "hypervisor/machine.h"
#include "netplumb/net.h"

/* A connection from a machine to the outside, borrowed but for `fd`. */
struct service_opening {
    const void *machine; /* which, until on_end */
    const char *function;
    char *const *egress; /* of the function, which allows it */
    const struct un_endpoint *to;
    unsigned depth;          /* the greatest of what it serves now (hv_run_spec.depth) */
    int fd;                  /* connected, non-blocking */
    struct hv_egress *count; /* what comes of it is added there, until on_end */
};

struct service_driver_spec {
    struct un_loop *loop;       /* kept until close */
    struct hv_driver *machines; /* runs them: has hv_driver_ops.machine; kept until close */
    struct netplumb *net;       /* taps; kept until close. NULL: QEMU's user network */
    /* Whether a machine of this size may be made now; NULL: always. When not, it is asked again soon. */
    bool (*may_use)(void *arg, uint64_t bytes);
    /* Whether so much is free without anything being let go for it, as for shells; NULL: always. */
    bool (*is_free)(void *arg, uint64_t bytes);
    /* After the last wake that could use one, a shell is kept so long; 0: none is made. */
    uint32_t shells_keep_ms;
    /* A machine has opened a connection that its egress allows, which takes `opening->fd`; and what is
     * told when such a machine ends: its connections are of no use any more. NULL: none is allowed. */
    void (*on_open)(void *arg, const struct service_opening *opening);
    void (*on_end)(void *arg, const void *machine);
    /* A line of a machine's console, without its end, for the operator; may be NULL. */
    void (*on_console)(void *arg, const char *service, const char *line, size_t len);
    void *arg;
};

/* Gives a driver named "machine". It is closed (hv_driver_ops(drv)->close) after it was drained. */
int service_driver_open(const struct service_driver_spec *spec, struct hv_driver **ret,
                        struct un_error *err);

/* What the driver's network is to call (netplumb_spec.on_open). */
void service_on_open(void *arg, const struct un_endpoint *to, int fd);

/* Ends all machines; `done` comes when they are gone. No vm_new any more. */
void service_driver_drain(struct hv_driver *drv, void (*done)(void *arg), void *arg);

struct service_stats {
    unsigned services, machines_making, machines_paused, machines_starting, machines_ready;
    uint64_t memory_mib;      /* of all machines */
    uint64_t started, failed; /* machines since the opening */
};
void service_driver_stats(const struct hv_driver *drv, struct service_stats *ret);

#endif
