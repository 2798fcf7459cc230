/* probe.c - measures what a VM costs here, by making a few and running a guest of the driver's own
 * in each. The best of the runs counts: what disturbs a measurement only makes it longer. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "hypervisor/kvm/driver.h"
#include "hypervisor/probe_guest.h"

enum { RUNS = 3, TIMEOUT_US = 5000000 };

static const uint64_t probe_mem = UINT64_C(4) << 20;

struct probe {
    struct kvm_driver *drv;
    void (*cb)(void *arg, const struct hv_probe *probe);
    void *arg;
    struct hv_vm *vm;
    struct un_timer timer;
    struct un_post begin_post;
    int runs_left;
    uint64_t new_us, run_us, first_us; /* when */
    struct hv_probe best;
    struct un_error err;
};

static void start_vm(struct probe *p);

static void finish(struct probe *p)
{
    struct hv_kvm_jail jail;
    struct hv_probe *b = &p->best;
    int missing = hv_kvm_jail_report((struct hv_driver *)(void *)p->drv, &jail);
    b->usable = p->err.code == 0;
    snprintf(b->accelerator, sizeof(b->accelerator), "kvm");
    if (!b->usable) {
        const char *mend = p->err.code == -EACCES || p->err.code == -EPERM
                               ? "; put unid's user into the group that owns /dev/kvm"
                               : "";
        snprintf(b->detail, sizeof(b->detail), "%.180s%s", p->err.text, mend);
    } else {
        snprintf(b->detail, sizeof(b->detail),
                 "shell %.2f ms, start %.2f ms, jail: %d of %d layers", (double)b->shell_us / 1e3,
                 (double)b->start_us / 1e3, VMM_LAYERS - missing, VMM_LAYERS);
    }
    un_timer_cancel(&p->timer);
    p->cb(p->arg, b);
    free(p);
}

static void end_vm(struct probe *p)
{
    un_timer_cancel(&p->timer);
    hv_kvm_driver.vm_free(p->vm);
}

static void keep_least(uint64_t *least, uint64_t us)
{
    if (*least == 0 || us < *least) {
        *least = us > 0 ? us : 1;
    }
}

static void on_ready(void *arg, int rc, const struct un_error *err)
{
    static const char *const none[] = {NULL}, *const argv[] = {"probe", NULL};
    struct probe *p = arg;
    if (rc < 0) {
        un_error_copy(&p->err, err);
        end_vm(p);
        return;
    }
    p->run_us = un_clock_mono_us();
    keep_least(&p->best.shell_us, p->run_us - p->new_us);
    struct hv_run_spec run = {.image = hv_probe_guest,
                              .image_len = hv_probe_guest_size,
                              .mem_bytes = probe_mem,
                              .argv = argv,
                              .envp = none,
                              .deadline_us = TIMEOUT_US,
                              .body_eof = true};
    if (hv_kvm_driver.vm_run(p->vm, &run, &p->err) < 0) {
        end_vm(p);
    }
}

static void on_log(void *arg, const void *data, size_t len)
{
    struct probe *p = arg;
    p->first_us = un_clock_mono_us();
    keep_least(&p->best.start_us, p->first_us - p->run_us);
}

static void on_exit_(void *arg, const struct hv_exit *why)
{
    struct probe *p = arg;
    uint64_t took = un_clock_mono_us() - p->first_us;
    uint64_t rate = HV_PROBE_LOOPS * UINT64_C(1000) / (took + 1);
    if (why->kind != HV_EXIT_DONE) {
        un_error_set(&p->err, -EIO, "the measuring guest ended: %s: %s", hv_exit_name(why->kind),
                     why->detail);
    } else if (rate > p->best.guest_ops_per_ms) {
        p->best.guest_ops_per_ms = rate;
    }
    end_vm(p);
}

static void on_gone(void *arg)
{
    struct probe *p = arg;
    p->vm = NULL;
    if (p->err.code < 0 || --p->runs_left == 0) {
        finish(p);
    } else {
        start_vm(p);
    }
}

static void on_timer(void *arg)
{
    struct probe *p = arg;
    un_error_set(&p->err, -ETIMEDOUT, "the measuring guest does not answer");
    end_vm(p);
}

static void ignore(void *arg)
{
}

static void no_input(void *arg, size_t room)
{
}

static void no_head(void *arg, const struct hv_head *head)
{
}

static void no_output(void *arg, const void *data, size_t len, const struct hv_exit *last)
{
}

static void start_vm(struct probe *p)
{
    static const struct hv_vm_events events = {
        .on_ready = on_ready,
        .on_started = ignore,
        .on_input_wanted = no_input,
        .on_head = no_head,
        .on_output = no_output,
        .on_log = on_log,
        .on_exit = on_exit_,
        .on_gone = on_gone,
    };
    struct hv_vm_spec spec = {.mem_bytes = probe_mem, .events = &events, .arg = p};
    p->new_us = un_clock_mono_us();
    if (hv_kvm_driver.vm_new((struct hv_driver *)(void *)p->drv, &spec, &p->vm, &p->err) < 0) {
        finish(p);
        return;
    }
    (void)un_timer_arm_in(&p->timer, TIMEOUT_US);
}

static void on_begin(void *arg)
{
    start_vm(arg);
}

void kvm_probe(struct hv_driver *drv, void (*cb)(void *arg, const struct hv_probe *probe),
               void *arg)
{
    struct kvm_driver *d = (struct kvm_driver *)(void *)drv;
    struct probe *p = calloc(1, sizeof(*p));
    if (!p) {
        struct hv_probe none = {.detail = "out of memory"};
        cb(arg, &none);
        return;
    }
    *p = (struct probe){.drv = d, .cb = cb, .arg = arg, .runs_left = RUNS};
    un_timer_init(&p->timer, d->loop, on_timer, p);
    p->begin_post = (struct un_post){.fn = on_begin, .arg = p};
    un_loop_post(d->loop, &p->begin_post);
}
