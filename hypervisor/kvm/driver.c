/* driver.c - the kvm driver: open and close, its spawner, the table of its VMs, its measurement.
 *
 * Nothing is started and /dev/kvm is not opened before a VM is wanted. When the spawner dies, its
 * VMs are told, and the next VM starts another. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "hypervisor/kvm/driver.h"

enum {
    SLOTS = 1 << 16,
    WORKERS = 2,
    BRISK_US = 20000,   /* how often a running guest's CPU time is looked at */
    BRISK_CPU_US = 5000 /* more than this since its last call makes it nice */
};

static struct kvm_driver *driver_of(struct hv_driver *drv)
{
    return (struct kvm_driver *)(void *)drv;
}

/* --- the table of VMs ------------------------------------------------------------------------- */

int kvm_driver_add(struct kvm_driver *d, struct kvm_vm *vm)
{
    if (d->vm_count == d->slot_count) {
        uint32_t count = d->slot_count ? d->slot_count * 2 : 64;
        struct kvm_vm **more = count > SLOTS ? NULL : reallocarray(d->slots, count, sizeof(*more));
        if (!more) {
            return count > SLOTS ? -EAGAIN : -ENOMEM;
        }
        memset(more + d->slot_count, 0, (count - d->slot_count) * sizeof(*more));
        d->next_slot = d->slot_count;
        d->slots = more;
        d->slot_count = count;
    }
    while (d->slots[d->next_slot]) {
        d->next_slot = (d->next_slot + 1) % d->slot_count;
    }
    vm->id = ++d->generation << 16 | d->next_slot;
    d->slots[d->next_slot] = vm;
    d->next_slot = (d->next_slot + 1) % d->slot_count;
    d->vm_count++;
    return 0;
}

void kvm_driver_remove(struct kvm_driver *d, struct kvm_vm *vm)
{
    d->slots[vm->id % SLOTS] = NULL;
    d->vm_count--;
}

static void push_brisk(struct kvm_driver *d, struct kvm_vm *vm)
{
    vm->yield_us = un_loop_now_us(d->loop) + BRISK_US;
    un_list_push(&d->brisk, &vm->brisk);
}

/* 0 when the monitor has ended. */
static uint64_t cpu_used_us(const struct kvm_vm *vm)
{
    clockid_t id;
    struct timespec t;
    if (clock_getcpuclockid(vm->pid, &id) != 0 || clock_gettime(id, &t) < 0) {
        return 0;
    }
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void on_yield_timer(void *arg)
{
    struct kvm_driver *d = arg;
    uint64_t now = un_loop_now_us(d->loop);
    struct kvm_vm *vm;
    while ((vm = un_list_first(&d->brisk, struct kvm_vm, brisk)) && vm->yield_us <= now) {
        un_list_remove(&vm->brisk);
        if (vm->state != KVM_VM_RUNNING || vm->standing) {
            continue; /* comes back when it runs on */
        }
        uint64_t used = cpu_used_us(vm);
        if (vm->prepared) { /* by what it did ahead it is not judged, and that was not told */
            vm->prepared = false;
            vm->usage.cpu_us = used > vm->usage.cpu_us ? used : vm->usage.cpu_us;
        }
        if (used > vm->usage.cpu_us + BRISK_CPU_US) {
            kvm_vm_yield(vm);
        } else {
            push_brisk(d, vm);
        }
    }
    if (vm) {
        (void)un_timer_arm_at(&d->yield_timer, vm->yield_us);
    }
}

void kvm_driver_brisk(struct kvm_driver *d, struct kvm_vm *vm)
{
    if (!vm->yielded && !un_list_linked(&vm->brisk)) {
        push_brisk(d, vm);
        if (!un_timer_armed(&d->yield_timer)) {
            (void)un_timer_arm_at(&d->yield_timer, vm->yield_us); /* else the next one's */
        }
    }
}

static struct kvm_vm *find_vm(const struct kvm_driver *d, uint32_t id)
{
    uint32_t slot = id % SLOTS;
    struct kvm_vm *vm = slot < d->slot_count ? d->slots[slot] : NULL;
    return vm && vm->id == id ? vm : NULL;
}

/* --- the spawner ------------------------------------------------------------------------------ */

static void on_event(void *arg, const struct vmm_event *e, int pid)
{
    struct kvm_driver *d = arg;
    struct kvm_vm *vm = e->kind == VMM_EVENT_HELLO ? NULL : find_vm(d, e->id);
    if (e->kind == VMM_EVENT_HELLO) {
        d->hello = *e;
        d->hello_known = true;
        if (e->version != VMM_PROTO_VERSION && d->spawner) {
            d->hello.error = -EPROTO;
            snprintf(d->hello.step, sizeof(d->hello.step), "match unid-vmm");
            spawner_stop(d->spawner);
        }
    }
    if (vm) {
        kvm_vm_event(vm, e, pid);
    }
}

static void on_dead(void *arg, struct spawner *sp)
{
    struct kvm_driver *d = arg;
    if (d->spawner == sp) {
        d->spawner = NULL;
    }
    for (uint32_t i = 0; i < d->slot_count; i++) {
        struct kvm_vm *vm = d->slots[i];
        if (vm && vm->spawner == sp) {
            kvm_vm_spawner_gone(vm);
        }
    }
}

static const struct spawner_events spawner_events = {.on_event = on_event, .on_dead = on_dead};

int kvm_driver_spawner(struct kvm_driver *d, struct spawner **ret, struct un_error *err)
{
    if (d->spawner && spawner_ending(d->spawner)) {
        d->spawner = NULL; /* on_dead comes for it all the same */
    }
    if (!d->spawner) {
        struct spawner_spec spec = {.loop = d->loop,
                                    .path = d->vmm_path,
                                    .list = &d->spawners,
                                    .events = &spawner_events,
                                    .arg = d};
        d->hello.error = 0;
        int rc = spawner_start(&spec, &d->spawner, err);
        if (rc < 0) {
            d->spawner = NULL;
            return rc;
        }
    }
    *ret = d->spawner;
    return 0;
}

int kvm_driver_workers(struct kvm_driver *d, struct un_error *err)
{
    return d->workers ? 0 : un_workers_new(d->loop, "kvm-snapshots", WORKERS, &d->workers, err);
}

/* --- open and close --------------------------------------------------------------------------- */

/* Beside our own executable, or one folder up (a test's), or what the environment says. */
static int find_vmm(char **ret, struct un_error *err)
{
    const char *set = getenv("UNID_VMM");
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (!set && n > 0) {
        self[n] = '\0';
        char *slash = strrchr(self, '/');
        if (slash && (size_t)(slash - self) + sizeof("/unid-vmm") <= sizeof(self)) {
            memcpy(slash, "/unid-vmm", sizeof("/unid-vmm"));
            set = self;
        }
    }
    if (!set || access(set, X_OK) < 0) {
        return un_error_set(err, -ENOENT, "no monitor program %s", set ? set : "unid-vmm");
    }
    *ret = strdup(set);
    return *ret ? 0 : un_error_set(err, -ENOMEM, "out of memory");
}

static void close_driver(struct hv_driver *drv)
{
    struct kvm_driver *d = driver_of(drv);
    if (!d) {
        return;
    }
    un_workers_free(d->workers);
    d->workers = NULL;
    if (d->snapshots) {
        snapshots_cancel(d->snapshots);
    }
    spawner_destroy_all(&d->spawners);
    for (uint32_t i = 0; i < d->slot_count; i++) {
        if (d->slots[i]) {
            kvm_vm_abandon(d->slots[i]); /* what a snapshot was made in */
        }
    }
    un_timer_cancel(&d->yield_timer);
    kvm_links_free(d);
    snapshots_free(d->snapshots);
    free(d->slots);
    free(d->vmm_path);
    free(d->snapshot_dir);
    free(d);
}

static int open_driver(const struct hv_driver_spec *spec, struct hv_driver **ret,
                       struct un_error *err)
{
    if (access("/dev/kvm", F_OK) < 0) {
        return un_error_set(err, -ENOENT, "no /dev/kvm on this machine");
    }
    struct kvm_driver *d = calloc(1, sizeof(*d));
    if (!d) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    d->base.ops = &hv_kvm_driver;
    d->loop = spec->loop;
    un_list_init(&d->spawners);
    kvm_links_init(d);
    un_list_init(&d->brisk);
    un_timer_init(&d->yield_timer, d->loop, on_yield_timer, d);
    int rc = find_vmm(&d->vmm_path, err);
    if (rc == 0 &&
        (spec->cache_dir ? asprintf(&d->snapshot_dir, "%s/snapshots", spec->cache_dir)
                         : asprintf(&d->snapshot_dir, "%s/kvm/snapshots", spec->state_dir)) < 0) {
        d->snapshot_dir = NULL;
        rc = un_error_set(err, -ENOMEM, "out of memory");
    }
    rc = rc < 0 ? rc : snapshots_new(d, &d->snapshots, err);
    if (rc < 0) {
        close_driver((struct hv_driver *)(void *)d);
        return rc;
    }
    *ret = (struct hv_driver *)(void *)d;
    return 0;
}

int hv_kvm_jail_report(struct hv_driver *drv, struct hv_kvm_jail *ret)
{
    const struct kvm_driver *d = driver_of(drv);
    int missing = 0;
    *ret = (struct hv_kvm_jail){.known = d->hello_known};
    for (int i = 0; i < VMM_LAYERS; i++) {
        ret->layers[i].name = vmm_layer_name((enum vmm_layer)i);
        ret->layers[i].error = d->hello_known ? d->hello.layers[i] : 0;
        missing += ret->layers[i].error != 0;
    }
    return missing;
}

int hv_kvm_spawner_pid(const struct hv_driver *drv)
{
    const struct kvm_driver *d = (const struct kvm_driver *)(const void *)drv;
    return d->spawner ? spawner_pid(d->spawner) : 0;
}

const struct hv_driver_ops hv_kvm_driver = {
    .name = "kvm",
    .open = open_driver,
    .close = close_driver,
    .probe = kvm_probe,
    .prepare = snapshot_prepare,
    .vm_new = kvm_vm_new,
    .vm_run = kvm_vm_run,
    .vm_input = kvm_vm_input,
    .vm_output_done = kvm_vm_output_done,
    .vm_answer = kvm_vm_answer,
    .vm_net_ready = kvm_vm_net_ready,
    .vm_recycle = kvm_vm_recycle,
    .vm_bind = kvm_vm_bind,
    .vm_usage = kvm_vm_usage,
    .vm_pid = kvm_vm_pid,
    .vm_free = kvm_vm_free,
};
