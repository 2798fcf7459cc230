/* run.c - binds a VM of the kvm driver to an image or a snapshot, starts it, and puts it back. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "hypervisor/kvm/channel_memory.h"
#include "hypervisor/kvm/driver.h"
#include "hypervisor/layout.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

#define MEM_UNIT (UINT64_C(2) << 20) /* of a shell's memory; hv.h */

/* Pages to copy or to touch, 1 to 3 us each. For fewer a second message to the monitor, 5 us of unid's own time
 * and more under load, is too much. */
enum { WORTH_BINDING = 192 };

static struct kvm_vm *vm_of(struct hv_vm *vm)
{
    return (struct kvm_vm *)(void *)vm;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static int make_ram(uint64_t size, struct un_error *err)
{
    int rc = un_fault("kvm.ram");
    int fd = rc < 0 ? rc : memfd_create("unid-ram", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (fd < 0 && rc == 0 && errno == EINVAL) {
        fd = memfd_create("unid-ram", MFD_CLOEXEC);
    }
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0) {
        rc = un_error_errno(err, rc < 0 ? rc : -errno, "guest memory");
        close_fd(&fd);
        return rc;
    }
    return fd;
}

/* Lays the image out in a new file of memory, the channel's part of it in the channel. */
int kvm_vm_place(struct kvm_vm *v, const struct hv_run_spec *spec, struct kvm_placement *p,
                 struct un_error *err)
{
    int fd = make_ram(spec->mem_bytes, err);
    if (fd < 0) {
        return fd;
    }
    uint8_t *mem =
        mmap(NULL, spec->mem_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    int rc = 0;
    if (mem == MAP_FAILED || mmap(mem + UNID_BOOT_ADDR, VMM_CHANNEL_SIZE, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_FIXED, v->link->channel_fd, 0) == MAP_FAILED) {
        rc = un_error_errno(err, -errno, "map guest memory");
    }
    if (rc == 0) {
        struct hv_layout_spec ls = {.mem = mem,
                                    .mem_bytes = spec->mem_bytes,
                                    .doorbell = HV_DOORBELL_MEMORY,
                                    .doorbell_addr = VMM_DOORBELL_ADDR,
                                    .boot_flags = p->boot_flags,
                                    .tsc_hz = p->tsc_hz};
        struct hv_layout made = {0};
        rc = hv_layout_build(&ls, spec, &made, err);
        p->order.cr3 = made.cr3;
        p->order.rip = made.rip;
        p->order.rsp = made.rsp;
        p->order.rdi = made.rdi;
    }
    if (mem != MAP_FAILED) {
        munmap(mem, spec->mem_bytes);
    }
    if (rc < 0) {
        close_fd(&fd);
        return rc;
    }
    p->order.flags = VMM_BIND_SHARED;
    p->fd = fd;
    return 0;
}

static struct kvm_placement placement(const struct kvm_vm *v, const struct hv_run_spec *spec)
{
    const struct vmm_event *hello = &v->drv->hello;
    return (struct kvm_placement){.order = {.op = VMM_ORDER_BIND, .mem_bytes = spec->mem_bytes},
                                  .boot_flags = hello->boot_flags,
                                  .tsc_hz = (uint64_t)hello->tsc_khz * 1000,
                                  .fd = -1};
}

/* Where the guest begins: its snapshot if there is one, else the image. `ret_fd` is borrowed from
 * the snapshot, or the VM's own (ram_fd). */
static int begin_at(struct kvm_vm *v, const struct hv_run_spec *spec, struct vmm_order *order,
                    int *ret_fd, struct un_error *err)
{
    if (spec->snapshot_key) {
        v->snapshot = snapshot_get(v->drv->snapshots, spec->snapshot_key, spec->mem_bytes);
    }
    if (v->snapshot) {
        snapshot_fill_channel(v->snapshot, v->link->base);
        hv_channel_adopt(&v->channel);
        *ret_fd = snapshot_order(v->snapshot, order);
        return 0;
    }
    struct kvm_placement p = placement(v, spec);
    p.boot_flags |= UNID_BOOT_REQUEST_READY;
    int rc = kvm_vm_place(v, spec, &p, err);
    if (rc < 0) {
        return rc;
    }
    *order = p.order;
    *ret_fd = v->ram_fd = p.fd;
    return 0;
}

static int check_run(const struct kvm_vm *v, const struct hv_run_spec *spec, struct un_error *err)
{
    if (v->state != KVM_VM_SHELL) {
        return un_error_set(err, -EINVAL, "the VM is no shell");
    }
    if (spec->snapshot_key && !snapshot_key_valid(spec->snapshot_key)) {
        return un_error_set(err, -EINVAL, "malformed snapshot key");
    }
    if (spec->mem_bytes > v->mem_bytes || spec->mem_bytes < MEM_UNIT || spec->mem_bytes % 4096) {
        return un_error_set(err, -ENOMEM,
                            "a guest of %" PRIu64 " bytes in a shell of %" PRIu64 " bytes",
                            spec->mem_bytes, v->mem_bytes);
    }
    if (v->recycled && (!spec->snapshot_key || !snapshot_is(v->snapshot, spec->snapshot_key))) {
        return un_error_set(err, -EINVAL, "the VM was put back for another function");
    }
    return 0;
}

/* The VM was put back or bound already, and waits where its snapshot was taken. */
static int run_again(struct kvm_vm *v, const struct hv_run_spec *spec, struct un_error *err)
{
    kvm_vm_open_channel(v);
    hv_channel_adopt(&v->channel);
    int rc = hv_channel_put_request(&v->channel, spec, err);
    if (rc < 0) {
        return rc;
    }
    v->recycled = false;
    kvm_vm_begin(v, &(struct vmm_order){.op = VMM_ORDER_GO}, spec->deadline_us, -1);
    return 0;
}

int kvm_vm_run(struct hv_vm *vm, const struct hv_run_spec *spec, struct un_error *err)
{
    struct kvm_vm *v = vm_of(vm);
    int rc = check_run(v, spec, err), fd = -1;
    if (rc < 0) {
        return rc;
    }
    if (v->recycled) {
        return run_again(v, spec, err);
    }
    struct vmm_order order = {.op = VMM_ORDER_BIND, .mem_bytes = spec->mem_bytes};
    kvm_vm_open_channel(v);
    rc = begin_at(v, spec, &order, &fd, err);
    if (rc == 0) {
        rc = hv_channel_put_request(&v->channel, spec, err);
    }
    if (rc < 0) {
        /* The shell stays what it was. */
        snapshot_unref(v->snapshot);
        v->snapshot = NULL;
        close_fd(&v->ram_fd);
        (void)channel_memory_clear(v->link->channel_fd, v->link->base);
        return rc;
    }
    kvm_vm_begin(v, &order, spec->deadline_us, fd);
    close_fd(&v->ram_fd);
    if (spec->snapshot_key && !v->snapshot) {
        snapshot_prepare_later(v->drv->snapshots, spec);
    }
    return 0;
}

int kvm_vm_place_prepare(struct kvm_vm *v, const struct hv_run_spec *spec,
                         struct kvm_placement *ret, struct un_error *err)
{
    int rc = check_run(v, spec, err);
    if (rc == 0) {
        *ret = placement(v, spec);
    }
    return rc;
}

int kvm_vm_build(struct kvm_vm *v, const struct hv_run_spec *spec, struct kvm_placement *p,
                 void (*on_saved)(void *arg, const uint8_t *state), struct un_error *err)
{
    if (v->state != KVM_VM_SHELL) {
        close_fd(&p->fd);
        return un_error_set(err, -EIO, "the VM was lost before it ran");
    }
    kvm_vm_open_channel(v);
    v->ram_fd = p->fd;
    p->fd = -1;
    v->on_saved = on_saved;
    v->asks.net_result = -ENETUNREACH; /* a connection could not be snapshotted */
    kvm_vm_begin(v, &p->order, spec->deadline_us, v->ram_fd);
    return 0;
}

int kvm_vm_bind(struct hv_vm *vm, const char *snapshot_key, uint64_t mem_bytes,
                struct un_error *err)
{
    struct kvm_vm *v = vm_of(vm);
    const struct hv_run_spec spec = {.snapshot_key = snapshot_key, .mem_bytes = mem_bytes};
    struct vmm_order order = {.op = VMM_ORDER_BIND, .mem_bytes = mem_bytes};
    int rc = v->recycled ? un_error_set(err, -EINVAL, "the VM is bound already")
                         : check_run(v, &spec, err);
    if (rc < 0) {
        return rc;
    }
    v->snapshot = snapshot_get(v->drv->snapshots, snapshot_key, mem_bytes);
    if (!v->snapshot) {
        return un_error_set(err, -ENOENT, "there is no snapshot of that key");
    }
    if (snapshot_work_ahead(v->snapshot) < WORTH_BINDING) {
        snapshot_unref(un_steal(&v->snapshot));
        return un_error_set(err, -EALREADY, "the function begins fast as it is");
    }
    snapshot_fill_channel(v->snapshot, v->link->base);
    int fd = snapshot_order(v->snapshot, &order);
    order.flags |= VMM_BIND_STAND;
    v->recycled = v->prepared = true;
    kvm_vm_order(v, &order, fd); /* one that was not sent ends the monitor, and that is told */
    un_loop_post(v->drv->loop, &v->ready_post);
    return 0;
}

int kvm_vm_recycle(struct hv_vm *vm, struct un_error *err)
{
    struct kvm_vm *v = vm_of(vm);
    if (v->state != KVM_VM_ENDED || v->freed || v->gone || !v->done || !v->standing ||
        !v->snapshot || snapshot_dropped(v->snapshot)) {
        return un_error_set(err, -EINVAL, "the VM cannot be put back to a snapshot");
    }
    /* The guest stands at its DONE, so nobody writes here. */
    int rc = channel_memory_clear(v->link->channel_fd, v->link->base);
    if (rc < 0) {
        return un_error_errno(err, rc, "clear the guest's channel");
    }
    snapshot_fill_channel(v->snapshot, v->link->base);
    kvm_vm_order(v, &(struct vmm_order){.op = VMM_ORDER_RESET}, -1);
    v->done = false;
    v->recycled = v->prepared = true;
    v->state = KVM_VM_SHELL;
    un_loop_post(v->drv->loop, &v->ready_post);
    return 0;
}
