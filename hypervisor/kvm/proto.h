/* proto.h - what unid's kvm driver and unid-vmm say to each other.
 *
 *     unid ---- control socket ----> spawner --fork--> monitor (one a VM)
 *       ^------------- VM socket, one a VM ---------------^
 *
 * All sockets are SOCK_SEQPACKET, so a packet is a message, and it arrives whole or not at all.
 * Both ends are of the same build (the spawner's HELLO says its version), so structs travel as
 * they are. The driver does not trust a monitor all the same: a hostile guest may have taken it
 * over. Every packet from one is checked by vmm_report_parse, and says only how that one VM fares.
 *
 * Control socket, unid to spawner: packets of 1..VMM_COMMANDS_MAX struct vmm_command, with two
 * descriptors for each SPAWN among them, in their order: the monitor's end of the VM socket, and the
 * memory of the channel.
 * Control socket, to unid: one struct vmm_event a packet. READY comes from the new monitor itself,
 * all others from the spawner.
 * VM socket, unid to monitor: struct vmm_order; BIND carries a descriptor of guest memory.
 * VM socket, to unid: struct vmm_report; SAVED is followed by a struct vmm_state in the same
 * packet.
 */
#ifndef UNID_HYPERVISOR_KVM_PROTO_H
#define UNID_HYPERVISOR_KVM_PROTO_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hypervisor/fault.h"
#include "unid/abi.h"

enum { VMM_PROTO_VERSION = 5 };

/* Descriptor numbers that unid-vmm starts with. */
enum { VMM_FD_CONTROL = 0 };
/* Those of a monitor until it is sealed; then it keeps the VM socket, and VM and vCPU of KVM. */
enum { VMM_FD_KVM = 1, VMM_FD_SOCKET, VMM_FD_CHANNEL, VMM_FDS };

/* Where the doorbell of every VM is: the last page below 2^36, the physical addresses that a KVM
 * guest has whose CPUID was not set (KVM's cpuid_query_maxphyaddr). Never backed by memory. */
#define VMM_DOORBELL_ADDR UINT64_C(0xffffff000)
#define VMM_DOORBELL_SIZE UINT64_C(0x1000)
#define VMM_MEM_MAX       (UINT64_C(1) << 35)
#define VMM_CHANNEL_SIZE  (UNID_CHANNEL_END - UNID_BOOT_ADDR)

/* --- control socket --------------------------------------------------------------------------- */

enum { VMM_COMMANDS_MAX = 64, VMM_SPAWN_FDS = 2 };
enum vmm_op {
    VMM_OP_SPAWN = 1,
    VMM_OP_KILL,
    VMM_OP_YIELD /* the monitor lets unid, the spawner and new shells go first, from here on */
};

struct vmm_command {
    uint32_t op;
    uint32_t id;
    uint64_t mem_bytes; /* SPAWN: how much guest memory the shell can be given */
};

enum vmm_event_kind { VMM_EVENT_HELLO = 1, VMM_EVENT_READY, VMM_EVENT_FAILED, VMM_EVENT_GONE };

/* The layers of the jail, in the order in which they are entered. */
enum vmm_layer {
    VMM_LAYER_UID, /* runs as a user without rights of its own */
    VMM_LAYER_USER_NS,
    VMM_LAYER_MOUNT_NS,
    VMM_LAYER_NET_NS,
    VMM_LAYER_IPC_NS,
    VMM_LAYER_UTS_NS,
    VMM_LAYER_CGROUP_NS,
    VMM_LAYER_PID_NS,
    VMM_LAYER_ROOT, /* the root directory is empty and read-only */
    VMM_LAYER_CAPS, /* no capabilities, and none to be had */
    VMM_LAYER_NO_NEW_PRIVS,
    VMM_LAYER_RLIMITS,
    VMM_LAYER_SECCOMP,
    VMM_LAYERS
};

/* Steps of making a shell, for bench/kvm_start. */
enum vmm_phase {
    VMM_PHASE_FORK,
    VMM_PHASE_CREATE,
    VMM_PHASE_SLOT,
    VMM_PHASE_VCPU,
    VMM_PHASE_JAIL,
    VMM_PHASE_WARM,
    VMM_PHASES
};

struct vmm_event {
    uint32_t kind;
    uint32_t id;
    int32_t error;    /* FAILED: negative errno; HELLO: the same when no VM can be made, else 0 */
    int32_t wait;     /* GONE: as waitpid(2) gives it */
    uint64_t cpu_us;  /* GONE */
    uint64_t rss_kib; /* GONE */
    uint32_t version; /* HELLO */
    uint32_t tsc_khz; /* HELLO: what the guest's RDTSC counts, 0 when not known */
    uint32_t boot_flags;           /* HELLO: UNID_BOOT_* that say what the guest's CPU can */
    uint16_t layers[VMM_LAYERS];   /* HELLO: 0 active, else the errno that says why not */
    uint32_t phase_ns[VMM_PHASES]; /* READY */
    char step[24];                 /* FAILED, HELLO with an error: what could not be done */
};

/* --- VM socket -------------------------------------------------------------------------------- */

enum vmm_order_op {
    VMM_ORDER_BIND = 1, /* take the memory, load the state, run */
    VMM_ORDER_GO,       /* the call was answered: run on */
    VMM_ORDER_SAVE,     /* send SAVED */
    VMM_ORDER_RESET     /* back to what BIND made, but wait for GO */
};
enum {
    VMM_BIND_SHARED = 1, /* map the guest's memory shared: what the guest writes is kept */
    VMM_BIND_STATE = 2,  /* the descriptor holds a struct vmm_state at offset state_at */
    VMM_BIND_LEARN = 4,  /* with STATE: tell with the RINGs which pages the guest has written */
    VMM_BIND_STAND = 8,  /* with STATE: wait for GO before the guest runs */
    VMM_BIND_LOW = 16    /* with STATE: what is below the channel is not zero */
};

/* What earlier runs did with their memory stands behind a BIND with STATE and a RESET, in the same packet:
 * first range_count struct vmm_range, in ascending order, of pages (physical) that they wrote, and that this
 * one is given copies of at once; then touch_count touches.
 *
 * A touch is the virtual address of a page that they read or wrote, with VMM_TOUCH_WRITE when it became
 * dirty. While nobody waits for the guest, the monitor touches these likewise (machine_touch). */
struct vmm_range {
    uint32_t page, count;
};
#define VMM_TOUCH_WRITE UINT64_C(1)
enum { VMM_RANGES_MAX = 512, VMM_TOUCHES_MAX = 4096 };
struct vmm_ahead {
    const struct vmm_range *ranges;
    const uint64_t *touches;
    size_t range_count, touch_count;
};

/* A RING of a guest that is learned from is followed by a bitmap in the same packet, and by `touched`
 * touches. Bit n of byte n / 8 is set when page n was written so far; as long as the memory, of which at most
 * VMM_LEARN_MAX is learned. */
#define VMM_LEARN_MAX (UINT64_C(512) << 20)
enum { VMM_WRITTEN_BYTES = 512 << 20 >> 12 >> 3, VMM_LEARN_RINGS = 64 /* then it is enough */ };
enum { VMM_TAIL_MAX = VMM_WRITTEN_BYTES + VMM_TOUCHES_MAX * 8 };

struct vmm_order {
    uint32_t op;
    uint32_t flags;     /* BIND */
    uint64_t mem_bytes; /* BIND: of guest memory */
    uint64_t mem_at;    /* BIND: where it begins in the descriptor; a multiple of the page size */
    uint64_t state_at;
    /* BIND with STATE: zeros, that need not be read from the descriptor; 0 bytes: none. */
    uint64_t zero_at, zero_bytes;
    uint64_t cpu_us;             /* BIND, GO behind a RESET: CPU time from here on; 0 = no limit */
    uint64_t cr3, rip, rsp, rdi; /* BIND without STATE */
    uint32_t range_count, touch_count; /* BIND with STATE, RESET */
};

enum vmm_report_kind {
    VMM_REPORT_RING = 1, /* the doorbell; the guest stands still until GO */
    VMM_REPORT_SAVED,
    VMM_REPORT_FAULT, /* a CPU exception, or an address without memory */
    VMM_REPORT_ERROR  /* KVM or the monitor cannot go on; `error` and `step` say where */
};

struct vmm_report {
    uint32_t kind;
    int32_t error;
    uint32_t exit_reason;      /* of KVM, where it matters; linux/kvm.h */
    uint32_t vector;           /* FAULT: ~0u when not known */
    uint64_t rip, addr;        /* FAULT */
    uint8_t code[HV_CODE_MAX]; /* FAULT: the bytes at rip, as far as they are known */
    uint8_t code_len;
    uint32_t touched; /* RING */
    uint64_t cpu_us, rss_kib, exits;
    uint64_t bind_ns, run_ns; /* BIND to first KVM_RUN, and from there to the first exit */
    char step[24];            /* ERROR */
};

/* All of a vCPU that a ring-3 guest can change. It cannot write an MSR, a control or a debug
 * register; FS and GS base are in sregs, and what may be pending is cleared. The time stamp
 * counter goes on. */
struct vmm_state {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_xsave xsave;
};

/* Checks a packet of a monitor; `len` is its length. False when it is none that a monitor of this
 * build sends. `tail` is set to where SAVED's state or RING's bitmap begins, and its length to
 * `tail_len`, 0 when there is none. Pure. */
bool vmm_report_parse(const void *packet, size_t len, struct vmm_report *ret,
                      const uint8_t **ret_tail, size_t *ret_tail_len);

/* Checks a packet of the control socket. Pure. */
bool vmm_event_parse(const void *packet, size_t len, struct vmm_event *ret);

/* Checks an order, on the monitor's side. `mem_max` is what the shell has room for. `ret_ahead` is what
 * stands behind it, in the packet; of a RESET, the ranges are the caller's to hold against the memory that
 * is bound (vmm_ranges_valid). Pure. */
bool vmm_order_parse(const void *packet, size_t len, uint64_t mem_max, struct vmm_order *ret,
                     struct vmm_ahead *ret_ahead);

/* Whether ranges are in ascending order, in a memory of this size, and not in the channel. Pure. */
bool vmm_ranges_valid(const struct vmm_range *ranges, size_t count, uint64_t mem_bytes);

/* Puts `b` and `a` together into `ret`, which has room for VMM_TOUCHES_MAX: each page once, in ascending
 * order, which both have. What is more is left out. `b` may be of any content and alignment. Returns their
 * number. Pure. */
size_t vmm_touches_merge(const uint64_t *a, size_t a_count, const void *b, size_t b_count,
                         uint64_t *ret);

/* Where pages are not worth a copy ahead: the upper two thirds of a guest's zeros, from where programs that
 * use much take pieces that are filled at once (abi.h, UNID_BOOT_FILL). Pure. */
uint64_t vmm_pieces_from(uint64_t zero_at, uint64_t zero_bytes);

/* Whether the guest may have this piece filled: all of it is among its zeros. Pure. */
bool vmm_fill_valid(uint64_t zero_at, uint64_t zero_bytes, uint64_t piece);

/* Makes ranges of a bitmap of written pages (proto.h) for memory of this size: pages close to each other
 * are one range, as a call costs as much as a page. The channel is left out, and so is what is more than a
 * request should wait for. Returns their number, at most VMM_RANGES_MAX. Pure. */
size_t vmm_ranges_make(const uint8_t *bitmap, uint64_t mem_bytes, struct vmm_range *ret);

/* "user namespace" and the like. */
const char *vmm_layer_name(enum vmm_layer layer);

#endif
