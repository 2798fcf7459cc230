/* driver.c - the libvirt driver: QEMU microvms through libvirt, run by KVM or by translation.
 *
 * A module of its own (unid-libvirt.so), loaded by hypervisor/drivers.c at the first use: being
 * linked with libvirt costs 11 MiB of memory. Its one exported symbol is `unid_hv_driver`. This
 * file holds the driver's life; vm.c a VM's; host.c all calls to libvirt; choice.c the accelerator.
 *
 * Needs qemu-system-x86, libvirt-daemon, libvirt-daemon-driver-qemu and the user libvirt-qemu; no
 * running libvirtd. Limits: one embedded driver in a process; memory of a VM up to 2 GiB; with
 * another URI (qemu:///system, qemu:///session) this process must be allowed to open the memory of
 * that daemon's QEMU processes (root, or the same user), and that QEMU to read the ROM in /dev/shm.
 */
#include "hypervisor/libvirt/driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

enum { FAST_THREADS = 4, MAKER_THREADS = 2, REMOVER_THREADS = 4 };

struct lv_probe_request {
    struct un_list node;
    struct hv_driver *drv;
    struct un_job job;
    void (*cb)(void *arg, const struct hv_probe *probe);
    void *arg;
    struct lv_choice choice;
};

extern const struct hv_driver_ops unid_hv_driver;

static void start_opening(struct hv_driver *drv);

/* Probing */

static void probe_fill(struct hv_probe *p, const struct lv_choice *c, const struct un_error *err)
{
    *p = (struct hv_probe){.usable = !err};
    if (err) {
        snprintf(p->detail, sizeof(p->detail), "%.250s", err->text);
        return;
    }
    const struct lv_figures *f = strcmp(c->accelerator, "kvm") == 0 ? &c->kvm : &c->tcg;
    snprintf(p->accelerator, sizeof(p->accelerator), "%s", c->accelerator);
    p->shell_us = f->shell_us;
    p->start_us = f->start_us;
    p->guest_ops_per_ms = f->ops_per_ms;
    int n = snprintf(p->detail, sizeof(p->detail), "tcg: start %.1f ms, %.1f M operations/s; ",
                     (double)c->tcg.start_us / 1e3, (double)c->tcg.ops_per_ms / 1e3);
    if (c->kvm.measured) {
        snprintf(p->detail + n, sizeof(p->detail) - (size_t)n,
                 "kvm: start %.1f ms, %.1f M operations/s", (double)c->kvm.start_us / 1e3,
                 (double)c->kvm.ops_per_ms / 1e3);
    } else {
        snprintf(p->detail + n, sizeof(p->detail) - (size_t)n, "kvm: %.100s", c->kvm.why_not);
    }
}

static int probe_run(struct un_job *job, struct un_error *err)
{
    struct lv_probe_request *r = un_container_of(job, struct lv_probe_request, job);
    const char *wanted = r->drv->wanted_accelerator;
    if (!wanted) {
        return lv_choice_measure(&r->drv->host, &r->choice, err);
    }
    snprintf(r->choice.accelerator, sizeof(r->choice.accelerator), "%s", wanted);
    bool kvm = strcmp(wanted, "kvm") == 0;
    snprintf(r->choice.kvm.why_not, sizeof(r->choice.kvm.why_not), "not asked for");
    return lv_measure(&r->drv->host, wanted, LV_MEASURE_LIMIT_MS,
                      kvm ? &r->choice.kvm : &r->choice.tcg, err);
}

static void probe_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct lv_probe_request *r = un_container_of(job, struct lv_probe_request, job);
    struct hv_probe p;
    if (rc == 0) {
        pthread_mutex_lock(&r->drv->choice_lock);
        r->drv->choice = r->choice;
        r->drv->chosen = true;
        pthread_mutex_unlock(&r->drv->choice_lock);
    }
    probe_fill(&p, &r->choice, rc < 0 ? err : NULL);
    r->cb(r->arg, &p);
    free(r);
}

static void probe_start(struct lv_probe_request *r)
{
    r->job.run = probe_run;
    r->job.done = probe_done;
    un_workers_submit(r->drv->makers, &r->job);
}

static void lv_probe(struct hv_driver *drv, void (*cb)(void *arg, const struct hv_probe *probe),
                     void *arg)
{
    struct lv_probe_request *r = calloc(1, sizeof(*r));
    if (!r) {
        struct hv_probe none = {.detail = "out of memory"};
        cb(arg,
           &none); /* the one callback that comes from inside: there is nothing to post it with */
        return;
    }
    r->drv = drv;
    r->cb = cb;
    r->arg = arg;
    if (drv->state == LV_HOST_READY) {
        probe_start(r);
        return;
    }
    un_list_push(&drv->waiting_probes, &r->node);
    if (drv->state == LV_HOST_IDLE) {
        start_opening(drv);
    }
}

/* Opening */

static int open_run(struct un_job *job, struct un_error *err)
{
    struct hv_driver *drv = un_container_of(job, struct hv_driver, open_job);
    int rc = lv_host_open(&drv->host, err);
    if (rc == 0) {
        lv_news_listen(drv->news, drv->host.conn);
    }
    return rc;
}

int lv_driver_choose(struct hv_driver *drv, char ret[LV_ACCELERATOR_SIZE], struct un_error *err)
{
    int rc = 0;
    pthread_mutex_lock(&drv->choice_lock);
    if (!drv->chosen) {
        if (drv->wanted_accelerator) {
            snprintf(drv->choice.accelerator, sizeof(drv->choice.accelerator), "%s",
                     drv->wanted_accelerator);
        } else if (!lv_choice_load(&drv->host, &drv->choice)) {
            rc = lv_choice_measure(&drv->host, &drv->choice, err);
        }
        drv->chosen = rc == 0;
    }
    memcpy(ret, drv->choice.accelerator, LV_ACCELERATOR_SIZE);
    pthread_mutex_unlock(&drv->choice_lock);
    return rc;
}

/* The lists are emptied one by one: a callback may free any VM, or ask for more. */
static void open_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct hv_driver *drv = un_container_of(job, struct hv_driver, open_job);
    struct un_list wants, probes;
    drv->state = rc < 0 ? LV_HOST_IDLE : LV_HOST_READY;
    drv->tsc_hz = un_clock_tsc_hz();
    un_list_init(&wants);
    un_list_init(&probes);
    while (!un_list_empty(&drv->wants)) {
        struct un_list *node = drv->wants.next;
        un_list_remove(node);
        un_list_push(&wants, node);
    }
    while (!un_list_empty(&drv->waiting_probes)) {
        struct un_list *node = drv->waiting_probes.next;
        un_list_remove(node);
        un_list_push(&probes, node);
    }
    while (!un_list_empty(&wants)) {
        struct lv_want *want = un_list_first(&wants, struct lv_want, node);
        un_list_remove(&want->node);
        want->fn(want, rc, err);
    }
    while (!un_list_empty(&probes)) {
        struct lv_probe_request *r = un_list_first(&probes, struct lv_probe_request, node);
        un_list_remove(&r->node);
        if (rc < 0) {
            probe_done(&r->job, rc, err);
        } else {
            probe_start(r);
        }
    }
}

static void start_opening(struct hv_driver *drv)
{
    drv->state = LV_HOST_OPENING;
    drv->open_job.run = open_run;
    drv->open_job.done = open_done;
    un_workers_submit(drv->makers, &drv->open_job);
}

void lv_driver_want(struct hv_driver *drv, struct lv_want *want)
{
    if (drv->state == LV_HOST_READY) {
        want->fn(want, 0, NULL);
        return;
    }
    un_list_push(&drv->wants, &want->node);
    if (drv->state == LV_HOST_IDLE) {
        start_opening(drv);
    }
}

void lv_driver_check(struct hv_driver *drv)
{
    if (drv->state == LV_HOST_READY && drv->vms == 0 && drv->uri && !lv_host_alive(&drv->host)) {
        drv->state = LV_HOST_IDLE;
        lv_host_close(&drv->host);
    }
}

static int clean_run(struct un_job *job, struct un_error *err)
{
    struct hv_driver *drv = un_container_of(job, struct hv_driver, clean_job);
    lv_place_clean_abandoned(&drv->place);
    return lv_place_clean(&drv->place, err);
}

/* A process that does not end is retried by the next unid; names do not collide with it. */
static void clean_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct hv_driver *drv = un_container_of(job, struct hv_driver, clean_job);
    drv->state = LV_HOST_IDLE;
    if (!un_list_empty(&drv->wants) || !un_list_empty(&drv->waiting_probes)) {
        start_opening(drv);
    }
}

/* Life */

static void driver_free(struct hv_driver *drv)
{
    un_workers_free(drv->fast);
    un_workers_free(drv->makers);
    un_workers_free(drv->removers);
    lv_news_free(drv->news);
    lv_place_done(&drv->place);
    pthread_mutex_destroy(&drv->choice_lock);
    free(drv->uri);
    free(drv->wanted_accelerator);
    free(drv);
}

static int copy_settings(struct hv_driver *drv, const struct hv_driver_spec *spec,
                         struct un_error *err)
{
    const char *acc = spec->accelerator;
    if (acc && strcmp(acc, "auto") != 0) {
        if (strcmp(acc, "kvm") != 0 && strcmp(acc, "tcg") != 0) {
            return un_error_set(err, -EINVAL, "accelerator \"%s\": must be auto, kvm or tcg", acc);
        }
        drv->wanted_accelerator = strdup(acc);
    }
    if (spec->libvirt_uri && strcmp(spec->libvirt_uri, "qemu:///embed") != 0) {
        drv->uri = strdup(spec->libvirt_uri);
    }
    return 0;
}

/* libvirt takes some settings from the environment only. Here, because no thread of it runs yet. It logs
 * to stderr by itself, while what matters comes back as errors; and as an ordinary user it wants a
 * directory of that user's beside its root, which a service's user may not have. */
static void set_environment(struct hv_driver *drv)
{
    setenv("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null", 0);
    if (geteuid() != 0 && !getenv("XDG_RUNTIME_DIR")) {
        setenv("XDG_CACHE_HOME", drv->place.state, 0);
    }
}

static int lv_open(const struct hv_driver_spec *spec, struct hv_driver **ret, struct un_error *err)
{
    struct hv_driver *drv = calloc(1, sizeof(*drv));
    if (!drv) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    drv->base.ops = &unid_hv_driver;
    drv->loop = spec->loop;
    pthread_mutex_init(&drv->choice_lock, NULL);
    drv->place.lock = drv->place.owner = -1;
    (void)un_clock_tsc_hz(); /* begins to measure */
    un_list_init(&drv->wants);
    un_list_init(&drv->waiting_probes);
    un_list_init(&drv->machines);
    int rc = copy_settings(drv, spec, err);
    rc = rc < 0 ? rc : lv_news_new(spec->loop, lv_machine_news, drv, &drv->news, err);
    rc = rc < 0 ? rc : lv_place_init(&drv->place, spec->state_dir, spec->runtime_dir, err);
    rc = rc < 0 ? rc : un_workers_new(spec->loop, "lv-fast", FAST_THREADS, &drv->fast, err);
    rc = rc < 0 ? rc : un_workers_new(spec->loop, "lv-make", MAKER_THREADS, &drv->makers, err);
    rc =
        rc < 0 ? rc : un_workers_new(spec->loop, "lv-remove", REMOVER_THREADS, &drv->removers, err);
    if (rc < 0) {
        driver_free(drv);
        return un_error_context(err, "libvirt driver");
    }
    set_environment(drv);
    drv->host.place = &drv->place;
    drv->host.uri = drv->uri;
    drv->host.join_net = spec->join_net;
    drv->host.join_arg = spec->join_arg;
    drv->clean_job.run = clean_run;
    drv->clean_job.done = clean_done;
    un_workers_submit(drv->makers, &drv->clean_job);
    *ret = drv;
    return 0;
}

static void lv_close(struct hv_driver *drv)
{
    if (!drv) {
        return;
    }
    un_workers_free(drv->makers); /* first: what was being opened is to be closed */
    drv->makers = NULL;
    lv_host_close(&drv->host);
    lv_tree_remove(drv->place.work);
    driver_free(drv);
}

const struct hv_driver_ops unid_hv_driver = {
    .name = "libvirt",
    .machine = &lv_machine_ops,
    .open = lv_open,
    .close = lv_close,
    .probe = lv_probe,
    .vm_new = lv_vm_new,
    .vm_run = lv_vm_run,
    .vm_input = lv_vm_input,
    .vm_output_done = lv_vm_output_done,
    .vm_answer = lv_vm_answer,
    .vm_net_ready = lv_vm_net_ready,
    .vm_usage = lv_vm_usage,
    .vm_pid = lv_vm_pid,
    .vm_free = lv_vm_free,
};
