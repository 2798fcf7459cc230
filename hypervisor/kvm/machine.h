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
    bool watching; /* the tables tell what is touched (touch.c) */
    unsigned split_count;
};

/* Makes VM, memory slot and vCPU. `channel_fd` is the memory of the channel (VMM_CHANNEL_SIZE), -1
 * for a machine that is never bound. `phase_ns` is written from VMM_PHASE_CREATE to VCPU. */
int machine_create(struct machine *m, int kvm, uint64_t mem_max, int channel_fd,
                   uint32_t phase_ns[VMM_PHASES]);

/* Runs a few instructions of our own in ring 3 (WRFSBASE among them, with fsgsbase), which shows
 * that this host can, and makes KVM do now what it does at a vCPU's first run (half of the time from
 * bind to the first exit). */
int machine_warm(struct machine *m);

/* Puts the guest's memory (`fd`, borrowed) and registers in place. The ranges are copied. A guest that is
 * to stand touches what earlier runs have touched, until it has its request. */
int machine_bind(struct machine *m, const struct vmm_order *order, const struct vmm_ahead *ahead,
                 int fd);

/* Adds the pages that the guest has written since the last time to `bitmap` (proto.h); returns its
 * length in bytes, 0 when nothing is learned. */
size_t machine_written(struct machine *m, uint8_t bitmap[VMM_WRITTEN_BYTES]);

/* The pages that the guest has touched so far, in ascending order; returns their number, 0 when that is not
 * learned. */
size_t machine_touched(struct machine *m, uint64_t touches[VMM_TOUCHES_MAX]);

/* Runs the guest to the next thing that the driver has to know. Writes kind, and what belongs to
 * it, exits included. */
void machine_run(struct machine *m, struct vmm_report *ret);

/* The vCPU's state, at a RING. */
int machine_save(struct machine *m, struct vmm_state *ret);

/* Back to the state that bind loaded, for a machine bound with VMM_BIND_STATE and not SHARED; then as a
 * guest that is to stand. The channel is the driver's to put back. Without ranges those of before are kept. */
int machine_reset(struct machine *m, const struct vmm_ahead *ahead);

/* Parts of bind and reset, in touch.c. Both want memory and CR3 in place, and come before the guest has run
 * there. */
void machine_watch(struct machine *m);
int machine_touch(struct machine *m, const uint64_t *touches, size_t count);
/* Runs a program of the monitor's own up to its doorbell, under page tables at `cr3`. `step` is for errors. */
int machine_run_own(struct machine *m, uint64_t cr3, const struct kvm_regs *regs, const char *step);

uint64_t machine_now_ns(void);

#endif
