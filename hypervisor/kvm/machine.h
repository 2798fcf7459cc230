/* machine.h - one ring-3 VM on the KVM API (linux: Documentation/virt/kvm/api.rst), as unid-vmm
 * runs it.
 *
 *     create ----> warm ----> bind ----> run ... run            (RING: the guest stands still)
 *                              ^                  |
 *                              +----- reset ------+
 *
 * The guest has one vCPU in 64-bit mode at privilege level 3, no GDT, IDT, interrupt controller or
 * device, and EFER.SCE is off: there is no instruction that leaves ring 3. What it does that is not
 * allowed ends in a triple fault (KVM_EXIT_SHUTDOWN). It reaches memory through page tables that
 * lie in its memory, but are not mapped for it (hypervisor/layout.h).
 *
 * Nothing here allocates, logs or ends the process. Errors are negative errnos, and `step` names
 * what failed.
 */
#ifndef UNID_HYPERVISOR_KVM_MACHINE_H
#define UNID_HYPERVISOR_KVM_MACHINE_H

#include "hypervisor/kvm/proto.h"

struct machine {
    int vm, vcpu;
    struct kvm_run *run;
    size_t run_size;
    uint8_t *mem;     /* guest-physical address 0 */
    uint64_t mem_max; /* reserved there; the size of the memory slot */
    struct kvm_sregs base;
    bool fsgsbase;                   /* CR4.FSGSBASE is set; the caller's, before machine_warm */
    uint64_t mem_bytes;              /* bound; 0 = nothing is */
    uint64_t zero_at, zero_bytes;    /* of what is bound: zeros that no file stands behind */
    uint64_t cr3;                    /* of the guest that is bound; it cannot change it */
    bool shared, has_state, pending; /* pending: the exit has to be completed by KVM_RUN */
    struct vmm_state start;          /* what bind loaded, when has_state */
    uint64_t exits;
    const char *step;
    struct vmm_range ranges[VMM_RANGES_MAX]; /* written by earlier runs: copied ahead */
    size_t range_count;
    bool learning; /* the memory slot logs what is written */
};

/* Makes VM, memory slot and vCPU. `channel_fd` is the memory of the channel (VMM_CHANNEL_SIZE), -1
 * for a machine that is never bound. `phase_ns` is written from VMM_PHASE_CREATE to VCPU. */
int machine_create(struct machine *m, int kvm, uint64_t mem_max, int channel_fd,
                   uint32_t phase_ns[VMM_PHASES]);

/* Runs a few instructions of our own in ring 3 (WRFSBASE among them, with fsgsbase), which shows
 * that this host can, and makes KVM do now what it does at a vCPU's first run (half of the time from
 * bind to the first exit). */
int machine_warm(struct machine *m);

/* Puts the guest's memory (`fd`, borrowed) and registers in place. The ranges are copied. */
int machine_bind(struct machine *m, const struct vmm_order *order, const struct vmm_range *ranges,
                 size_t range_count, int fd);

/* Adds the pages that the guest has written since the last time to `bitmap` (proto.h); returns its
 * length in bytes, 0 when nothing is learned. */
size_t machine_written(struct machine *m, uint8_t bitmap[VMM_WRITTEN_BYTES]);

/* Runs the guest to the next thing that the driver has to know. Writes kind, and what belongs to
 * it, exits included. */
void machine_run(struct machine *m, struct vmm_report *ret);

/* The vCPU's state, at a RING. */
int machine_save(struct machine *m, struct vmm_state *ret);

/* Back to the state that bind loaded, for a machine bound with VMM_BIND_STATE and not SHARED. The
 * channel is the driver's to put back. */
int machine_reset(struct machine *m);

uint64_t machine_now_ns(void);

#endif
