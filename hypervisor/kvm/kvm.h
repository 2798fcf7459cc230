/* kvm.h - the driver `kvm`: each VM a process of unid's own monitor, unid-vmm, on the KVM API.
 *
 * Everything goes through hypervisor/hv.h. Here is only what `unictl doctor` asks beyond it. Needs
 * /dev/kvm, readable and writable for the user that unid runs as; needs no other right.
 *
 * The monitor is the program unid-vmm beside unid's own executable, or $UNID_VMM.
 */
#ifndef UNID_HYPERVISOR_KVM_KVM_H
#define UNID_HYPERVISOR_KVM_KVM_H

#include "hypervisor/hv.h"
#include "hypervisor/kvm/proto.h"

extern const struct hv_driver_ops hv_kvm_driver;

/* The jail of the running monitors. */
struct hv_kvm_jail {
    bool known; /* false until a monitor was started (the driver's probe starts one) */
    struct {
        const char *name;
        int error; /* 0: active; else the errno (positive) that says why not */
    } layers[VMM_LAYERS];
};

/* Fills `ret`; returns the number of layers that are not active. `drv` is one of hv_kvm_driver. */
int hv_kvm_jail_report(struct hv_driver *drv, struct hv_kvm_jail *ret);

/* How long the parts of a VM took, where the monitor has told: for bench/kvm_start. */
struct hv_kvm_times {
    uint32_t phase_ns[VMM_PHASES];
    uint64_t bind_ns, run_ns;
};
void hv_kvm_vm_times(const struct hv_vm *vm, struct hv_kvm_times *ret);

/* Process of the spawner, 0 when none runs: for tests that kill it. It is the one that unid waits
 * for; the jailed one below it ends with it. */
int hv_kvm_spawner_pid(const struct hv_driver *drv);

#endif
