/* drivers.h - which drivers this daemon uses, the best first.
 *
 * The setting `driver` names one, or says "auto": then every driver that this host can run is opened, and
 * the native one comes first if it works and is fast, which is measured: the presence of /dev/kvm
 * alone says nothing, since a KVM below another hypervisor may emulate what it cannot run.
 */
#ifndef UNID_DAEMON_DRIVERS_H
#define UNID_DAEMON_DRIVERS_H

#include "common/error.h"
#include "common/loop.h"
#include "daemon/config.h"
#include "hypervisor/hv.h"

enum { DRIVERS_MAX = 4 };

struct drivers {
    struct hv_driver *items[DRIVERS_MAX]; /* items[0] is what a function gets that asks for none */
    size_t count;
};

struct drivers_spec {
    const struct config *config;
    struct un_loop *loop;
    int (*join_net)(void *arg); /* hv_driver_spec's; NULL: none */
    void *join_arg;
};

/* Opens them (drivers_close). Runs the loop while it measures: called once at start, before anything
 * is served; at most a few seconds, milliseconds as a rule. -ENOENT when no driver can be opened. */
int drivers_open(const struct drivers_spec *spec, struct drivers *ret, struct un_error *err);

/* Opens one by name, in a set of its own. -ENOENT and the driver's own. */
int drivers_open_one(const char *name, const struct drivers_spec *spec, struct drivers *ret,
                     struct un_error *err);

/* All VMs must be gone. A zeroed set is allowed. */
void drivers_close(struct drivers *set);

/* Whether a measurement is good enough to prefer the driver to emulation. Pure. */
bool drivers_is_fast(const struct hv_probe *probe);

#endif
