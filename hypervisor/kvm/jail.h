/* jail.h - how unid-vmm takes away from itself what a monitor does not need.
 *
 * In three steps, because each costs what it costs: the namespaces and the empty root once for all
 * monitors, the capabilities and limits once in the process that they are forked from, and the
 * system call filter in each monitor, which needs far less than the process that forks it.
 *
 * A layer that the host does not permit is left out and reported; whether that is good enough is
 * not decided here. Not for a process with threads. Linked into unid-vmm and its test only.
 */
#ifndef UNID_HYPERVISOR_KVM_JAIL_H
#define UNID_HYPERVISOR_KVM_JAIL_H

#include <stdint.h>
#include <sys/types.h>

#include "hypervisor/kvm/proto.h"

struct jail_spec {
    uid_t uid; /* to become, when started by root */
    gid_t gid;
};

/* Namespaces, user, empty root. The caller's children are in the new pid namespace, it itself is
 * not. Writes the state of its layers (proto.h). */
void jail_enter(const struct jail_spec *spec, uint16_t layers[VMM_LAYERS]);

/* Capabilities, no_new_privs, resource limits. */
void jail_drop(uint16_t layers[VMM_LAYERS]);

/* Address space of the calling process: `bytes`, beside what it has for itself. */
int jail_limit_memory(uint64_t bytes);

/* CPU time of the calling process, from now; 0 = no limit. The kernel counts in whole seconds, so
 * the limit is rounded up, plus one. SIGXCPU ends the process. Allowed behind jail_seal. */
int jail_limit_cpu(uint64_t us);

/* The system call filter of a monitor. Anything else ends the process (SIGSYS). */
int jail_seal(void);

#endif
