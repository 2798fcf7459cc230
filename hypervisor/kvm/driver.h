/* driver.h - the kvm driver's own structs, shared by its files. Loop thread, but where a function
 * says otherwise.
 *
 *     driver.c         hv.h's table, the spawners, the table of VMs, probe, doctor's report
 *     vm.c             one VM from shell to end
 *     link.c           the socket and the memory that it is reached through
 *     run.c            what it begins with: image or snapshot; putting back
 *     snapshot.c       snapshots in memory, by key
 *     snapshot_build.c how one is made
 *     snapshot_file.c  snapshots as files; worker threads
 *     spawner.c        one unid-vmm
 *     probe.c          measures a VM of the driver's own
 */
#ifndef UNID_HYPERVISOR_KVM_DRIVER_H
#define UNID_HYPERVISOR_KVM_DRIVER_H

#include "common/list.h"
#include "common/workers.h"
#include "hypervisor/asks.h"
#include "hypervisor/kvm/kvm.h"
#include "hypervisor/kvm/link.h"
#include "hypervisor/kvm/spawner.h"

struct snapshot;
struct snapshots;

struct kvm_driver {
    struct hv_driver_base base;
    struct un_loop *loop;
    struct un_workers *workers; /* NULL until needed */
    char *vmm_path, *snapshot_dir;
    struct spawner *spawner; /* NULL until a VM is wanted, and after it was lost */
    struct un_list spawners; /* it, and those that are ending */
    bool hello_known;
    struct vmm_event hello; /* of the last spawner */
    struct snapshots *snapshots;
    /* VMs by the low half of their id. */
    struct kvm_vm **slots;
    uint32_t slot_count, next_slot, generation;
    size_t vm_count;
    struct un_list links; /* free ones, the last used first */
    struct un_timer link_timer;
    struct un_list brisk; /* VMs, by yield_us */
    struct un_timer yield_timer;
};

/* The VM's own states; see hv.h for the diagram. `freed` and `gone` are beside them: the VM is
 * released when both are true. */
enum kvm_vm_state { KVM_VM_STARTING, KVM_VM_SHELL, KVM_VM_RUNNING, KVM_VM_ENDED };

struct kvm_vm {
    struct hv_vm_base base;
    struct kvm_driver *drv;
    struct spawner *spawner; /* NULL once it is gone */
    const struct hv_vm_events *events;
    void *arg;
    enum kvm_vm_state state;
    uint32_t id;
    int pid;
    uint64_t mem_bytes;    /* the shell's */
    struct kvm_link *link; /* until it is freed and gone */
    struct hv_channel channel;
    struct hv_asks asks;
    bool freed, gone, started_due, exit_due, in_event;
    struct un_list brisk; /* its guest may run, and is looked at at yield_us */
    uint64_t yield_us;
    bool yielded, prepared; /* prepared: used CPU time since it told how much, without a guest */
    bool standing;          /* the monitor waits for an order */
    bool begun;             /* the order to run was sent */
    bool done, recycled; /* ended with DONE; stands at its snapshot, and waits for a run of that */
    struct un_post started_post, exit_post, gone_post, ready_post;
    struct snapshot *snapshot; /* that it began from; a reference */
    struct hv_usage usage;
    struct hv_kvm_times times;
    int wait_status; /* once gone */
    /* A VM that makes a snapshot: what to do with the state, and the memory, which is kept. */
    void (*on_saved)(void *arg, const uint8_t *state);
    int ram_fd;
};

/* vm.c */
int kvm_vm_new(struct hv_driver *drv, const struct hv_vm_spec *spec, struct hv_vm **ret,
               struct un_error *err);
void kvm_vm_input(struct hv_vm *vm, const void *data, size_t len, bool eof);
void kvm_vm_output_done(struct hv_vm *vm);
void kvm_vm_answer(struct hv_vm *vm, const struct hv_answer *answer);
void kvm_vm_net_ready(struct hv_vm *vm, uint64_t readable, uint64_t writable);
void kvm_vm_usage(struct hv_vm *vm, struct hv_usage *ret);
int kvm_vm_pid(struct hv_vm *vm);
void kvm_vm_free(struct hv_vm *vm);
/* What the spawner says about this VM. */
void kvm_vm_event(struct kvm_vm *vm, const struct vmm_event *e, int pid);
/* Something may have come from its monitor. */
void kvm_vm_on_packet(struct kvm_vm *vm);
/* The spawner and all its monitors are gone. */
void kvm_vm_spawner_gone(struct kvm_vm *vm);
/* Releases the VM, whose process is known to be gone, with on_gone. For the end of the driver. */
void kvm_vm_abandon(struct kvm_vm *v);
void kvm_vm_yield(struct kvm_vm *v);
/* Sends an order to the monitor, with a descriptor (borrowed) unless `fd` is -1. False when it could
 * not be sent; the monitor is ended then, and its end tells the user. */
bool kvm_vm_order(struct kvm_vm *v, const struct vmm_order *order, int fd);
/* A fresh channel on the VM's pages, whose answers are not passed on before kvm_vm_begin. */
void kvm_vm_open_channel(struct kvm_vm *v);
/* The guest runs, by this order; cpu_us 0 is the longest there is. on_started comes soon, unless the
 * order could not be sent or the VM makes a snapshot. */
void kvm_vm_begin(struct kvm_vm *v, struct vmm_order *order, uint64_t cpu_us, int fd);

/* run.c */
int kvm_vm_run(struct hv_vm *vm, const struct hv_run_spec *spec, struct un_error *err);
int kvm_vm_recycle(struct hv_vm *vm, struct un_error *err);
int kvm_vm_bind(struct hv_vm *vm, const char *snapshot_key, uint64_t mem_bytes,
                struct un_error *err);
/* To start an image without a request, to be snapshotted. First kvm_vm_place_prepare; then
 * kvm_vm_place, which copies the image, tens of MiB perhaps, and may be called on a worker while the
 * VM is kept; then kvm_vm_build, which takes the placement's descriptor: `on_saved` is called, with
 * the VM's arg, when the guest asks. Errors as vm_run. */
struct kvm_placement {
    struct vmm_order order;
    uint32_t boot_flags;
    uint64_t tsc_hz;
    int fd; /* of guest memory, once it was placed; -1 */
};
int kvm_vm_place_prepare(struct kvm_vm *vm, const struct hv_run_spec *spec,
                         struct kvm_placement *ret, struct un_error *err);
int kvm_vm_place(struct kvm_vm *vm, const struct hv_run_spec *spec, struct kvm_placement *p,
                 struct un_error *err);
int kvm_vm_build(struct kvm_vm *vm, const struct hv_run_spec *spec, struct kvm_placement *p,
                 void (*on_saved)(void *arg, const uint8_t *state), struct un_error *err);

/* probe.c */
void kvm_probe(struct hv_driver *drv, void (*cb)(void *arg, const struct hv_probe *probe),
               void *arg);

/* driver.c */
/* The spawner, started when there is none. */
int kvm_driver_spawner(struct kvm_driver *d, struct spawner **ret, struct un_error *err);
int kvm_driver_workers(struct kvm_driver *d, struct un_error *err);
/* Puts a VM into the table and gives it an id. -ENOMEM, -EAGAIN (too many). */
int kvm_driver_add(struct kvm_driver *d, struct kvm_vm *vm);
void kvm_driver_remove(struct kvm_driver *d, struct kvm_vm *vm);
/* The VM's guest begins to run, or runs on. If it uses much CPU time without a call, its monitor is
 * made nice. */
void kvm_driver_brisk(struct kvm_driver *d, struct kvm_vm *vm);

/* snapshot.c */
int snapshots_new(struct kvm_driver *d, struct snapshots **ret, struct un_error *err);
/* Ends the builds: their VMs are freed, and wait for the driver's end. */
void snapshots_cancel(struct snapshots *all);
void snapshots_free(struct snapshots *all);
bool snapshot_key_valid(const char *key);
/* A reference to the snapshot of that key if it is there and whole; else NULL. */
struct snapshot *snapshot_get(struct snapshots *all, const char *key, uint64_t mem_bytes);
void snapshot_unref(struct snapshot *s);
/* It is not to be used again: a VM could not be started from it. */
void snapshot_drop(struct snapshot *s);
bool snapshot_is(const struct snapshot *s, const char *key);
bool snapshot_dropped(const struct snapshot *s);
/* Copies the snapshot's channel into an empty one. */
void snapshot_fill_channel(const struct snapshot *s, uint8_t *base);
/* Fills what BIND says of it; returns the descriptor, borrowed. The first runs are learned from. */
int snapshot_order(struct snapshot *s, struct vmm_order *ret);
/* What runs from here wrote and touched, for BIND and RESET; borrowed. */
void snapshot_ahead(const struct snapshot *s, struct vmm_order *order, struct vmm_ahead *ret);
/* How many pages that is: those that they wrote to be copied, and those that they touched to be touched. */
size_t snapshot_work_ahead(const struct snapshot *s);
/* What a run that is learned from has written and touched so far (proto.h: a RING's tail, with that many
 * touches); from a monitor, so of any content. */
void snapshot_learn(struct snapshot *s, const uint8_t *tail, size_t len, size_t touched);
/* snapshot_build.c */
void snapshot_prepare(struct hv_driver *drv, const struct hv_run_spec *spec, hv_prepare_cb *cb,
                      void *arg);
/* As prepare, without anybody waiting, and with a copy of the image. */
void snapshot_prepare_later(struct snapshots *all, const struct hv_run_spec *spec);

#endif
