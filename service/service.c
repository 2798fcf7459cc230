/* service.c - the driver and its services (see service.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/limits.h"
#include "common/log.h"
#include "hypervisor/flavor.h"
#include "hypervisor/pvh.h"
#include "service/service_impl.h"

enum {
    FAILURES_MOST = 3, /* in a row, then those who wait are told */
    ROOM_RETRY_US = 100000,
    ROOM_RETRY_IDLE_US = 2000000, /* for a machine that nobody waits for */
    FORGET_US = 600000000         /* failures of a version that nobody uses any more */
};

static void decide(void *arg);

void service_machine_gone(struct hv_driver *drv)
{
    drv->machine_count--;
    if (drv->drained && drv->machine_count == 0) {
        un_loop_post(drv->loop, &drv->drained_post);
    }
}

/* --- services ----------------------------------------------------------------------------------- */

static void service_free(struct service *sv)
{
    un_list_remove(&sv->node);
    un_timer_cancel(&sv->timer);
    un_loop_unpost(sv->drv->loop, &sv->post);
    for (size_t i = 0; i < sv->spec.disk_count && sv->disks; i++) {
        free((char *)sv->disks[i].path);
        free((char *)sv->disks[i].format);
    }
    free(sv->disks);
    free((char *)sv->spec.kernel);
    free((char *)sv->spec.initrd);
    free(sv->key);
    free(sv->name);
    free(sv->append);
    free(sv->ready_console);
    for (char **rule = sv->egress; rule && *rule; rule++) {
        free(*rule);
    }
    free(sv->egress);
    hv_machine_files_unref(sv->files);
    free(sv);
}

static bool copy(const char *from, char **to)
{
    *to = from ? strdup(from) : NULL;
    return !from || *to;
}

static bool copy_disk(struct service *sv, const char *path, const char *format, bool read_only)
{
    struct hv_machine_disk *d = &sv->disks[sv->spec.disk_count++];
    d->read_only = read_only;
    return copy(path, (char **)&d->path) && copy(format, (char **)&d->format);
}

static bool copy_egress(struct service *sv, char *const *from)
{
    size_t count = 0;
    while (from && from[count]) {
        count++;
    }
    if (count == 0) {
        return true;
    }
    sv->egress = calloc(count + 1, sizeof(char *));
    bool good = sv->egress != NULL;
    for (size_t i = 0; good && i < count; i++) {
        good = copy(from[i], &sv->egress[i]);
    }
    return good;
}

static bool copy_config(struct service *sv, const struct hv_machine_config *config)
{
    bool good = copy(config->key, &sv->key) && copy(config->name, &sv->name) &&
                copy(config->append, &sv->append) &&
                copy(config->ready_console, &sv->ready_console) && copy_egress(sv, config->egress);
    sv->disks = calloc(config->volume_count + 1, sizeof(*sv->disks));
    good = good && sv->disks;
    if (good && config->boot == HV_BOOT_DISK) {
        good = copy_disk(sv, config->image_path, config->format, true);
    } else if (good) {
        good = copy(config->image_path, (char **)&sv->spec.kernel) &&
               copy(config->initrd_path, (char **)&sv->spec.initrd);
    }
    for (size_t i = 0; good && i < config->volume_count; i++) {
        good = copy_disk(sv, config->volumes[i].path, config->volumes[i].format,
                         config->volumes[i].read_only);
    }
    sv->spec.disks = sv->disks;
    sv->files = config->files ? hv_machine_files_ref(config->files) : NULL;
    return good;
}

static struct service *service_find(struct hv_driver *drv, const char *key)
{
    un_list_for_each (it, &drv->services) {
        struct service *sv = un_list_entry(it, struct service, node);
        if (strcmp(sv->key, key) == 0) {
            return sv;
        }
    }
    return NULL;
}

/* What of the configuration is numbers. */
static void take_config(struct service *sv, const struct hv_machine_config *config)
{
    sv->port = config->port;
    sv->version = config->version;
    sv->limits =
        (struct service_limits){.concurrency = config->per_request ? 1 : config->concurrency,
                                .min_machines = config->min_instances,
                                .max_machines = config->max_instances,
                                .idle_ms = config->idle_timeout_ms,
                                .per_request = config->per_request};
    sv->ready_timeout_us = (uint64_t)config->ready_timeout_ms * 1000;
    sv->spec = (struct hv_machine_spec){.boot = config->boot,
                                        .type = sv->flavor->type,
                                        .acpi = sv->flavor->acpi,
                                        .by_words = sv->flavor->by_words,
                                        .virtio1 = sv->flavor->virtio1,
                                        .one_ioapic = sv->flavor->one_ioapic,
                                        .mem_bytes = config->mem_bytes};
    if (config->boot == HV_BOOT_DISK && sv->spec.type == HV_MACHINE_MICROVM) {
        sv->spec.type = HV_MACHINE_PC; /* firmware needs one */
    }
    sv->injectable = config->boot == HV_BOOT_KERNEL && config->volume_count == 0 &&
                     sv->spec.type == HV_MACHINE_MICROVM && !sv->spec.by_words &&
                     !sv->spec.virtio1 && !sv->spec.one_ioapic && config->image &&
                     hv_pvh_check(config->image, config->image_len, NULL) == 0;
}

static struct service *service_new(struct hv_driver *drv, const struct hv_machine_config *config,
                                   const struct hv_flavor *flavor)
{
    struct service *sv = calloc(1, sizeof(*sv));
    if (!sv) {
        return NULL;
    }
    sv->drv = drv;
    sv->flavor = flavor;
    take_config(sv, config);
    un_list_init(&sv->node);
    un_list_init(&sv->machines);
    un_list_init(&sv->waiting);
    un_timer_init(&sv->timer, drv->loop, decide, sv);
    if (!copy_config(sv, config)) {
        service_free(sv);
        return NULL;
    }
    if (service_has_volumes(sv)) {
        sv->limits.exclusive = true;
        sv->limits.max_machines = 1;
        sv->limits.min_machines = sv->limits.min_machines ? 1 : 0;
    }
    un_list_push(&drv->services, &sv->node);
    return sv;
}

int service_get(struct hv_driver *drv, const struct hv_machine_config *config, struct service **ret,
                struct un_error *err)
{
    struct service *sv = service_find(drv, config->key);
    if (!sv) {
        if (config->egress && config->egress[0] && !drv->net) {
            return un_error_set(
                err, -ENOTSUP,
                "machine images connect to nothing from QEMU's user network, and this function has "
                "egress: see unictl doctor for what is missing, or deploy it without --egress");
        }
        const struct hv_flavor *flavor = config->flavor
                                             ? hv_flavor_find(config->flavor)
                                             : hv_flavor_detect(config->image, config->image_len);
        if (!flavor) {
            return un_error_set(err, -EINVAL, "flavor \"%s\" is not known; there are %s",
                                config->flavor, hv_flavor_names());
        }
        sv = service_new(drv, config, flavor);
    }
    if (!sv) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    sv->proven |= config->proven;
    if (config->live) {
        service_live(sv);
    }
    *ret = sv;
    return 0;
}

/* --- decisions ---------------------------------------------------------------------------------- */

static void count(const struct service *sv, struct service_counts *c)
{
    *c = (struct service_counts){.waiting = sv->waiting_count,
                                 .used_us = sv->used_us,
                                 .retry_us = sv->retry_us,
                                 .leaving = sv->superseded || service_volumes_claimed(sv),
                                 .judged = sv->judging};
    un_list_for_each (it, &sv->machines) {
        const struct machine *mc = un_list_entry(it, struct machine, node);
        c->in_flight += mc->in_flight;
        switch (mc->state) {
        case MACHINE_MAKING:
            c->making++;
            break;
        case MACHINE_PAUSED:
            c->paused++;
            break;
        case MACHINE_STARTING:
            c->starting++;
            break;
        case MACHINE_READY:
            c->ready++;
            c->idle += mc->in_flight == 0 && !mc->spent;
            break;
        case MACHINE_ENDING:
            break;
        }
    }
}

/* A ready machine with a free place; the one that has most in flight already, so that the others can
 * fall idle. One that has not proven itself gets one request at a time. */
static struct machine *free_place(const struct service *sv)
{
    struct machine *best = NULL;
    un_list_for_each (it, &sv->machines) {
        struct machine *mc = un_list_entry(it, struct machine, node);
        unsigned places = mc->proven ? sv->limits.concurrency : 1;
        if (mc->state == MACHINE_READY && !mc->spent && !mc->connecting && mc->in_flight < places &&
            (!best || mc->in_flight > best->in_flight)) {
            best = mc;
        }
    }
    return best;
}

static void assign_waiting(struct service *sv)
{
    struct machine *mc;
    while (!un_list_empty(&sv->waiting) && (mc = free_place(sv))) {
        struct hv_vm *vm = un_list_first(&sv->waiting, struct hv_vm, node);
        un_list_remove(&vm->node);
        sv->waiting_count--;
        connection_assign(vm, mc);
    }
}

/* The first machine in a state that has nothing in flight; the longest idle. */
static struct machine *pick(const struct service *sv, enum machine_state state)
{
    struct machine *found = NULL;
    un_list_for_each (it, &sv->machines) {
        struct machine *mc = un_list_entry(it, struct machine, node);
        if (mc->state == state && mc->in_flight == 0 && !mc->spent &&
            (!found || mc->idle_us < found->idle_us)) {
            found = mc;
        }
    }
    return found;
}

static bool has_room(const struct service *sv)
{
    const struct hv_driver *drv = sv->drv;
    return (!drv->net || net_has_room(drv->net)) &&
           (!drv->may_use || drv->may_use(drv->arg, sv->spec.mem_bytes));
}

/* Whether there are memory and an address for one machine more: those of a shell which will be it, or free. */
static bool may_make(struct service *sv)
{
    bool may = shells_fit(sv) || has_room(sv);
    while (!may && shells_yield(sv->drv)) {
        may = has_room(sv);
    }
    return may;
}

static void carry_out(struct service *sv, const struct service_decision *d)
{
    struct machine *mc;
    for (uint32_t i = 0; i < d->start && (mc = pick(sv, MACHINE_PAUSED)); i++) {
        machine_start(mc);
    }
    for (uint32_t i = 0; i < d->stop && (mc = pick(sv, MACHINE_READY)); i++) {
        machine_end(mc, HV_EXIT_DONE, "");
    }
    for (uint32_t i = 0; i < d->discard && (mc = pick(sv, MACHINE_PAUSED)); i++) {
        machine_end(mc, HV_EXIT_DONE, "");
    }
    for (uint32_t i = 0; i < d->abandon && (mc = pick(sv, MACHINE_STARTING)); i++) {
        machine_end(mc, HV_EXIT_DONE, "");
    }
    enum service_blocked was_blocked = sv->blocked;
    sv->blocked = d->make == 0 || service_volumes_free(sv) ? SERVICE_FREE
                  : sv->waiting_count > 0                  ? SERVICE_BLOCKED
                                                           : SERVICE_BLOCKED_AHEAD;
    if (sv->blocked != was_blocked) {
        service_volumes_changed(sv); /* who has them may have to go, or may stay */
    }
    for (uint32_t i = 0; i < d->make && !sv->blocked; i++) {
        struct hv_driver *drv = sv->drv;
        if (!may_make(sv)) {
            sv->retry_us = un_loop_now_us(drv->loop) +
                           (sv->waiting_count > 0 ? ROOM_RETRY_US : ROOM_RETRY_IDLE_US);
            service_changed(sv);
            break;
        }
        if (machine_begin(sv) < 0) {
            service_hindered(sv, "out of memory");
            break;
        }
    }
}

/* The live version waits for what this older one has: it serves what it has, and nothing more for now. */
static bool holds_back(const struct service *sv)
{
    return sv->superseded && service_volumes_claimed(sv);
}

/* Requests come to an end, connections that carry none may not: where another waits for the volumes they
 * get some time. Says when to look again; 0: there is no need. */
static uint64_t bound_connections(struct service *sv, uint64_t now)
{
    uint64_t end = sv->claimed_us + LIMIT_MACHINE_HANDOVER_MS * 1000ull;
    if (!service_volumes_claimed(sv)) {
        sv->claimed_us = 0;
        return 0;
    }
    if (!sv->claimed_us) {
        sv->claimed_us = now;
        return now + LIMIT_MACHINE_HANDOVER_MS * 1000ull;
    }
    un_list_for_each (it, &sv->machines) {
        struct machine *mc = un_list_entry(it, struct machine, node);
        un_list_for_each_safe (at, &mc->connections) {
            struct hv_vm *vm = un_list_entry(at, struct hv_vm, node);
            if (vm->raw && now >= end) {
                connection_lost(vm, HV_EXIT_LOST, "another version takes over the volumes");
            }
        }
    }
    return now < end ? end : 0;
}

static bool kept(const struct service *sv)
{
    return sv->live && sv->limits.min_machines > 0;
}

/* Whether nothing is left of it; else `again_us` is when that may be. */
static bool over(const struct service *sv, uint64_t now, uint64_t *again_us)
{
    if (sv->connections > 0 || !un_list_empty(&sv->machines)) {
        return false;
    }
    if (sv->drv->drained) {
        return true;
    }
    struct service_counts counts;
    count(sv, &counts);
    if (kept(sv) || service_remembered(&sv->limits, &counts, now)) {
        return false; /* the decision says until when */
    }
    *again_us = sv->failures + sv->hindrances > 0 && !sv->superseded ? sv->retry_us + FORGET_US : 0;
    return *again_us <= now;
}

/* Of two instants, of which 0 is none. */
static uint64_t earlier(uint64_t a, uint64_t b)
{
    return !a || (b && b < a) ? b : a;
}

static void decide(void *arg)
{
    struct service *sv = arg;
    struct service_counts counts;
    struct service_decision d;
    struct service_limits limits = sv->limits;
    uint64_t now = un_loop_now_us(sv->drv->loop), again = 0;
    if (!holds_back(sv)) {
        assign_waiting(sv);
    }
    if (over(sv, now, &again)) {
        service_free(sv);
        return;
    }
    if (sv->drv->drained) {
        return;
    }
    if (!kept(sv)) {
        limits.min_machines = 0;
    }
    count(sv, &counts);
    counts.waiting = holds_back(sv) ? 0 : counts.waiting;
    service_decide(&limits, &counts, now, &d);
    carry_out(sv, &d);
    d.again_us = earlier(earlier(d.again_us, again), bound_connections(sv, now));
    if (d.again_us) {
        /* Out of memory: the next change decides again. */
        (void)un_timer_arm_at(&sv->timer, d.again_us > now ? d.again_us : now + 1000);
    }
}

void service_changed(struct service *sv)
{
    sv->post.fn = decide;
    sv->post.arg = sv;
    un_loop_post(sv->drv->loop, &sv->post);
}

void service_proved(struct service *sv)
{
    const struct hv_driver *drv = sv->drv;
    if (sv->proven) {
        return;
    }
    sv->proven = true;
    if (drv->events && drv->events->on_proven) {
        drv->events->on_proven(drv->events_arg, sv->name, sv->version);
    }
}

void service_lose_waiting(struct service *sv)
{
    while (!un_list_empty(&sv->waiting)) {
        struct hv_vm *vm = un_list_first(&sv->waiting, struct hv_vm, node);
        un_list_remove(&vm->node);
        sv->waiting_count--;
        connection_lost(vm, HV_EXIT_LOST, sv->why);
    }
}

/* A new version that has never been ready may have one before it that was: whoever listens finds out. */
static void judge(struct service *sv)
{
    const struct hv_driver *drv = sv->drv;
    if (sv->judging) {
        return;
    }
    if (!sv->judged && sv->live && !sv->proven && !sv->limits.per_request && drv->events &&
        drv->events->on_failing) {
        sv->judged = sv->judging = true;
        drv->events->on_failing(drv->events_arg, sv->name, sv->version, sv->why);
    } else {
        service_lose_waiting(sv);
    }
}

/* Another machine is tried after a while. */
static void back_off(struct service *sv, const char *why)
{
    sv->drv->failed++;
    sv->retry_us =
        un_loop_now_us(sv->drv->loop) + service_backoff_us(sv->failures + sv->hindrances);
    snprintf(sv->why, sizeof(sv->why), "%.159s", why);
    un_log(UN_LOG_WARN, "machine failed", "service", sv->name, "reason", sv->why);
}

void service_failed(struct service *sv, const char *why)
{
    sv->failures++;
    back_off(sv, why);
    if (sv->failures >= FAILURES_MOST) {
        judge(sv);
    }
    service_changed(sv);
}

void service_hindered(struct service *sv, const char *why)
{
    sv->hindrances++;
    back_off(sv, why);
    if (sv->hindrances >= FAILURES_MOST) {
        service_lose_waiting(sv);
    }
    service_changed(sv);
}

/* --- the driver --------------------------------------------------------------------------------- */

static void driver_close(struct hv_driver *drv)
{
    if (!drv) {
        return;
    }
    un_loop_unpost(drv->loop, &drv->drained_post);
    shells_done(drv);
    while (!un_list_empty(&drv->services)) {
        service_free(un_list_first(&drv->services, struct service, node));
    }
    free(drv);
}

static void driver_probe(struct hv_driver *drv, void (*cb)(void *arg, const struct hv_probe *probe),
                         void *arg)
{
    struct hv_probe p = {.usable = true};
    snprintf(p.detail, sizeof(p.detail), "machine images: %s",
             drv->net ? "taps on bridges of unid's own" : "QEMU's user network");
    cb(arg, &p);
}

static uint64_t driver_memory(struct hv_driver *drv)
{
    struct service_stats stats;
    service_driver_stats(drv, &stats);
    return stats.memory_mib << 20;
}

static const struct hv_driver_ops service_ops = {
    .name = "machine",
    .service = &service_version_ops,
    .memory_bytes = driver_memory,
    .close = driver_close,
    .probe = driver_probe,
    .vm_new = connection_new,
    .vm_run = connection_run,
    .vm_input = connection_input,
    .vm_output_done = connection_output_done,
    .vm_usage = connection_usage,
    .vm_wants = connection_wants,
    .vm_pid = connection_pid,
    .vm_free = connection_free,
};

int service_driver_open(const struct service_driver_spec *spec, struct hv_driver **ret,
                        struct un_error *err)
{
    if (!hv_driver_ops(spec->machines)->machine) {
        return un_error_set(err, -ENOTSUP, "the driver %s runs no machine images",
                            hv_driver_ops(spec->machines)->name);
    }
    struct hv_driver *drv = calloc(1, sizeof(*drv));
    if (!drv) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    (void)un_clock_tsc_hz(); /* begins to measure */
    drv->base.ops = &service_ops;
    drv->loop = spec->loop;
    drv->machines = spec->machines;
    drv->net = spec->net;
    drv->may_use = spec->may_use;
    drv->is_free = spec->is_free;
    drv->on_open = spec->on_open;
    drv->on_end = spec->on_end;
    drv->on_console = spec->on_console;
    drv->arg = spec->arg;
    un_list_init(&drv->services);
    shells_init(drv, spec->shells_keep_ms);
    *ret = drv;
    return 0;
}

static void tell_drained(void *arg)
{
    struct hv_driver *drv = arg;
    drv->drained(drv->drained_arg);
}

void service_driver_drain(struct hv_driver *drv, void (*done)(void *arg), void *arg)
{
    drv->drained = done;
    drv->drained_arg = arg;
    un_list_for_each (it, &drv->services) {
        struct service *sv = un_list_entry(it, struct service, node);
        un_list_for_each_safe (at, &sv->machines) {
            machine_end(un_list_entry(at, struct machine, node), HV_EXIT_LOST,
                        "unid is shutting down");
        }
        service_changed(sv);
    }
    drv->drained_post = (struct un_post){.fn = tell_drained, .arg = drv};
    shells_drain(drv);
    if (drv->machine_count == 0) {
        un_loop_post(drv->loop, &drv->drained_post);
    }
}

void service_driver_stats(const struct hv_driver *drv, struct service_stats *ret)
{
    *ret = (struct service_stats){.started = drv->started, .failed = drv->failed};
    un_list_for_each (it, &drv->services) {
        const struct service *sv = un_list_entry(it, struct service, node);
        struct service_counts c;
        count(sv, &c);
        ret->services++;
        ret->machines_making += c.making;
        ret->machines_paused += c.paused;
        ret->machines_starting += c.starting;
        ret->machines_ready += c.ready;
        ret->memory_mib +=
            (uint64_t)(c.making + c.paused + c.starting + c.ready) * (sv->spec.mem_bytes >> 20);
    }
    ret->memory_mib += shells_memory(drv) >> 20;
}
