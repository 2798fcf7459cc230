/* fake.c - the life cycle of fake VMs. What it is for and how to steer it: fake.h. */
#include "hypervisor/fake/fake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/elf.h"
#include "common/fault.h"
#include "hypervisor/fake/fake_impl.h"
#include "unid/abi.h"

enum { FAKE_FIRST_PID = 1000000 }; /* above any pid that the tests' machine has by default */

struct fake_probe {
    struct un_list node;
    struct un_post post;
    struct fake_driver *drv;
    void (*cb)(void *arg, const struct hv_probe *probe);
    void *arg;
};

struct fake_prepare {
    struct un_list node;
    struct un_timer timer;
    struct fake_driver *drv;
    hv_prepare_cb *cb;
    void *arg;
    int rc;
    struct unid_report report;
    char log[256];
};

static void on_timer(void *arg);

/* --- driver ----------------------------------------------------------------------------------- */

static int fake_open(const struct hv_driver_spec *spec, struct hv_driver **ret,
                     struct un_error *err)
{
    struct fake_driver *drv = calloc(1, sizeof(*drv));

    if (!drv) {
        return un_error_set(err, -ENOMEM, "open the fake driver: out of memory");
    }
    drv->base.ops = &fake_driver_ops;
    drv->loop = spec->loop;
    drv->next_pid = FAKE_FIRST_PID;
    un_list_init(&drv->vms);
    un_list_init(&drv->probes);
    un_list_init(&drv->prepares);
    *ret = (struct hv_driver *)drv;
    return 0;
}

static void fake_close(struct hv_driver *base)
{
    struct fake_driver *drv = (struct fake_driver *)base;

    if (!drv) {
        return;
    }
    un_list_for_each_safe (it, &drv->probes) {
        struct fake_probe *p = un_list_entry(it, struct fake_probe, node);

        un_loop_unpost(drv->loop, &p->post);
        un_list_remove(&p->node);
        free(p);
    }
    un_list_for_each_safe (it, &drv->prepares) {
        struct fake_prepare *p = un_list_entry(it, struct fake_prepare, node);

        un_timer_cancel(&p->timer);
        un_list_remove(&p->node);
        free(p);
    }
    free(drv);
}

static void on_probe(void *arg)
{
    struct fake_probe *p = arg;
    struct hv_probe probe = {
        .usable = true,
        .accelerator = "none",
        .shell_us = p->drv->script.shell_us,
        .start_us = p->drv->script.start_us,
        .detail = "the fake driver runs no guest code; it is for tests",
    };

    un_list_remove(&p->node);
    p->cb(p->arg, &probe);
    free(p);
}

static void fake_probe(struct hv_driver *base, void (*cb)(void *arg, const struct hv_probe *probe),
                       void *arg)
{
    struct fake_driver *drv = (struct fake_driver *)base;
    struct fake_probe *p = calloc(1, sizeof(*p));

    if (!p) { /* the contract has no error; a probe that never answers would be worse than this */
        struct hv_probe none = {.detail = "out of memory"};
        cb(arg, &none);
        return;
    }
    *p = (struct fake_probe){.drv = drv, .cb = cb, .arg = arg, .post = {.fn = on_probe, .arg = p}};
    un_list_push(&drv->probes, &p->node);
    un_loop_post(drv->loop, &p->post);
}

static void on_prepared(void *arg)
{
    struct fake_prepare *p = arg;
    struct un_error err = UN_ERROR_INIT;

    un_list_remove(&p->node);
    if (p->rc == -EPROTO) {
        un_error_set(&err, p->rc, "the program ended with status 1 before it asked for a request");
    } else if (p->rc < 0) {
        un_error_errno(&err, p->rc, "prepare a fake guest");
    }
    p->cb(p->arg, p->rc, &err, p->log, strlen(p->log), &p->report);
    free(p);
}

static void fake_prepare(struct hv_driver *base, const struct hv_run_spec *run, hv_prepare_cb *cb,
                         void *arg)
{
    struct fake_driver *drv = (struct fake_driver *)base;
    struct fake_prepare *p = calloc(1, sizeof(*p));
    struct un_error err = UN_ERROR_INIT;

    if (!p) { /* as fake_probe */
        un_error_set(&err, -ENOMEM, "out of memory");
        cb(arg, -ENOMEM, &err, NULL, 0, NULL);
        return;
    }
    *p = (struct fake_prepare){.drv = drv, .cb = cb, .arg = arg, .rc = drv->script.prepare_rc};
    if (fake_guest_stillborn(drv, run, p->log, sizeof(p->log), &p->report)) {
        p->rc = -EPROTO;
    } else if (drv->script.prepare_log) {
        snprintf(p->log, sizeof(p->log), "%s", drv->script.prepare_log);
    }
    drv->stats.prepared++;
    snprintf(drv->stats.prepared_key, sizeof(drv->stats.prepared_key), "%s",
             run->snapshot_key ? run->snapshot_key : "");
    un_list_push(&drv->prepares, &p->node);
    un_timer_init(&p->timer, drv->loop, on_prepared, p);
    (void)un_timer_arm_in(&p->timer, drv->script.prepare_us);
}

void fake_driver_script(struct hv_driver *base, const struct fake_script *script)
{
    struct fake_driver *drv = (struct fake_driver *)base;

    drv->script = script ? *script : (struct fake_script){0};
    drv->failures_left = drv->script.failures;
}

void fake_driver_stats(struct hv_driver *base, struct fake_stats *ret)
{
    *ret = ((struct fake_driver *)base)->stats;
}

unsigned fake_driver_lose_all(struct hv_driver *base)
{
    struct fake_driver *drv = (struct fake_driver *)base;
    unsigned lost = 0;

    un_list_for_each (it, &drv->vms) {
        struct fake_vm *vm = un_list_entry(it, struct fake_vm, node);

        if (vm->state == FAKE_SHELL || vm->state == FAKE_RUNNING) {
            fake_vm_end(vm, HV_EXIT_LOST, 0, "the fake hypervisor process was killed");
            lost++;
        }
    }
    return lost;
}

/* --- VMs -------------------------------------------------------------------------------------- */

static unsigned *counter_of(struct fake_driver *drv, enum fake_state state)
{
    switch (state) {
    case FAKE_STARTING:
        return &drv->stats.starting;
    case FAKE_SHELL:
        return &drv->stats.shells;
    case FAKE_RUNNING:
        return &drv->stats.running;
    default:
        return &drv->stats.ended;
    }
}

/* The one place where a fake VM's state is written. */
static void set_state(struct fake_vm *vm, enum fake_state state)
{
    (*counter_of(vm->drv, vm->state))--;
    vm->state = state;
    (*counter_of(vm->drv, state))++;
}

/* Whether this VM is one of those that the script lets fail. */
static bool takes_failure(struct fake_driver *drv)
{
    if (drv->script.failures == 0) {
        return true;
    }
    if (drv->failures_left == 0) {
        return false;
    }
    drv->failures_left--;
    return true;
}

static void count_new(struct fake_driver *drv)
{
    struct fake_stats *st = &drv->stats;
    unsigned live = st->starting + st->shells + st->running + st->ended;

    if (st->starting > st->most_starting) {
        st->most_starting = st->starting;
    }
    if (live > st->most_live) {
        st->most_live = live;
    }
}

static int fake_vm_new(struct hv_driver *base, const struct hv_vm_spec *spec, struct hv_vm **ret,
                       struct un_error *err)
{
    struct fake_driver *drv = (struct fake_driver *)base;
    struct fake_vm *vm;
    int rc = un_fault("fake.vm_new");

    if (rc == 0 && drv->script.vm_new_rc && takes_failure(drv)) {
        rc = drv->script.vm_new_rc;
    }
    if (rc < 0) {
        drv->stats.failed++;
        return un_error_errno(err, rc, "make a fake VM");
    }
    if (spec->mem_bytes == 0 || spec->mem_bytes % (2u << 20)) {
        return un_error_set(err, -EINVAL, "a VM's memory must be a multiple of 2 MiB");
    }
    vm = calloc(1, sizeof(*vm));
    if (!vm) {
        return un_error_set(err, -ENOMEM, "make a fake VM: out of memory");
    }
    vm->base.ops = &fake_driver_ops;
    vm->drv = drv;
    vm->events = spec->events;
    vm->arg = spec->arg;
    vm->mem_bytes = spec->mem_bytes;
    vm->pid = drv->next_pid++;
    if (drv->script.ready_rc && takes_failure(drv)) {
        vm->ready_rc = drv->script.ready_rc;
    }
    un_timer_init(&vm->timer, drv->loop, on_timer, vm);
    if (!drv->script.never_ready) {
        rc = un_timer_arm_in(&vm->timer, drv->script.shell_us);
    }
    if (rc < 0) {
        free(vm);
        return un_error_set(err, rc, "make a fake VM: out of memory");
    }
    vm->state = FAKE_STARTING;
    drv->stats.starting++;
    drv->stats.made++;
    un_list_push(&drv->vms, &vm->node);
    count_new(drv);
    *ret = (struct hv_vm *)vm;
    return 0;
}

/* Holds the image to the same conditions as a driver that really lays it out. */
static int check_image(const struct hv_run_spec *run, struct un_error *err)
{
    struct un_elf elf;
    struct un_elf_note note;

    if (un_elf_parse(run->image, run->image_len, run->image_len, &elf, err) < 0) {
        un_error_context(err, "not an SDK image");
        return -EINVAL;
    }
    if (!un_elf_find_note(run->image, run->image_len, &elf, UNID_NOTE_OWNER, UNID_NOTE_TYPE,
                          &note)) {
        return un_error_set(err, -EINVAL, "not an SDK image: it has no \"unid\" note");
    }
    if (elf.high > run->mem_bytes || run->mem_bytes - elf.high < UNID_STACK_SIZE) {
        return un_error_set(err, -ENOMEM, "the image and its stack do not fit into %llu MiB",
                            (unsigned long long)(run->mem_bytes >> 20));
    }
    return 0;
}

static int check_strings(const struct hv_run_spec *run, struct un_error *err)
{
    size_t len = 0;

    for (size_t i = 0; run->argv && run->argv[i]; i++) {
        len += strlen(run->argv[i]) + 1;
    }
    for (size_t i = 0; run->envp && run->envp[i]; i++) {
        len += strlen(run->envp[i]) + 1;
    }
    if (len > UNID_STRINGS_SIZE) {
        return un_error_set(err, -E2BIG, "arguments and environment take %zu bytes, more than %llu",
                            len, (unsigned long long)UNID_STRINGS_SIZE);
    }
    return 0;
}

static int fake_vm_run(struct hv_vm *base, const struct hv_run_spec *run, struct un_error *err)
{
    struct fake_vm *vm = (struct fake_vm *)base;
    int rc;

    if (vm->state != FAKE_SHELL || vm->exit_pending) {
        /* A VM that was lost a moment ago still looks like a shell to its user. */
        return vm->exit_pending ? 0 : un_error_set(err, -EINVAL, "this VM is no shell");
    }
    if (vm->recycling) {
        return un_error_set(err, -EINVAL, "this VM is being put back");
    }
    if (vm->snapshot_key[0] &&
        (!run->snapshot_key || strcmp(run->snapshot_key, vm->snapshot_key) != 0)) {
        return un_error_set(err, -EINVAL, "the VM was put back for another function");
    }
    if (run->mem_bytes > vm->mem_bytes) {
        return un_error_set(err, -ENOMEM, "the shell has less memory than the function");
    }
    if (run->request_head_len + run->body_len > UNID_REQUEST_SIZE) {
        return un_error_set(err, -E2BIG, "the request does not fit into its window");
    }
    rc = check_image(run, err);
    if (rc == 0) {
        rc = check_strings(run, err);
    }
    if (rc == 0) {
        rc = fake_guest_load(vm, run, err);
    }
    if (rc < 0) {
        fake_guest_done(vm);
        return rc;
    }
    snprintf(vm->snapshot_key, sizeof(vm->snapshot_key), "%s",
             run->snapshot_key ? run->snapshot_key : "");
    set_state(vm, FAKE_RUNNING);
    vm->drv->stats.ran++;
    vm->drv->stats.input_bytes += run->body_len;
    if (!vm->drv->script.never_started) {
        (void)un_timer_arm_in(&vm->timer, vm->drv->script.start_us);
    }
    return 0;
}

static void fake_vm_input(struct hv_vm *base, const void *data, size_t len, bool eof)
{
    struct fake_vm *vm = (struct fake_vm *)base;

    if (vm->state != FAKE_RUNNING || vm->exit_pending || !vm->input_wanted) {
        return;
    }
    vm->input_wanted = false;
    vm->input_eof = eof;
    vm->drv->stats.inputs++;
    vm->drv->stats.input_bytes += len;
    vm->taken += len;
    if (un_buf_append(&vm->input, data, len) < 0) {
        fake_vm_end(vm, HV_EXIT_LOST, 0, "out of memory");
        return;
    }
    (void)un_timer_arm_in(&vm->timer, 0);
}

static void fake_vm_output_done(struct hv_vm *base)
{
    struct fake_vm *vm = (struct fake_vm *)base;

    if (vm->state != FAKE_RUNNING || !vm->output_held) {
        return;
    }
    vm->output_held = false;
    (void)un_timer_arm_in(&vm->timer, 0);
}

/* The guest goes on. */
static void answered(struct fake_vm *vm)
{
    vm->asking = 0;
    vm->told_readable = vm->readable;
    vm->told_writable = vm->writable;
    (void)un_timer_arm_in(&vm->timer, 0);
}

static bool net_news(const struct fake_vm *vm)
{
    return (vm->readable & ~vm->told_readable) || (vm->writable & ~vm->told_writable);
}

void fake_guest_ask(struct fake_vm *vm, const struct hv_ask *ask)
{
    vm->asking = ask->op;
    vm->ask = *ask;
    vm->calls++;
    vm->result = 0;
    if (ask->op == UNID_OP_WAIT && (ask->wait_ns == 0 || net_news(vm))) {
        answered(vm);
    } else if (vm->events->on_ask) {
        vm->events->on_ask(vm->arg, &vm->ask);
    } else if (ask->op == UNID_OP_WAIT) {
        (void)un_timer_arm_in(&vm->timer, ask->wait_ns / 1000 + (ask->wait_ns % 1000 != 0));
    } else {
        vm->result = -ENOSYS;
        answered(vm);
    }
}

static void fake_vm_answer(struct hv_vm *base, const struct hv_answer *answer)
{
    struct fake_vm *vm = (struct fake_vm *)base;

    if (vm->state != FAKE_RUNNING || vm->exit_pending || !vm->asking) {
        return;
    }
    vm->result = answer->result;
    if (vm->asking == UNID_OP_NET_RECV && vm->result > 0) {
        if ((size_t)vm->result > vm->ask.len) {
            vm->result = (int32_t)vm->ask.len;
        }
        if (un_buf_append(&vm->input, answer->data, (size_t)vm->result) < 0) {
            fake_vm_end(vm, HV_EXIT_LOST, 0, "out of memory");
            return;
        }
    }
    answered(vm);
}

static void fake_vm_net_ready(struct hv_vm *base, uint64_t readable, uint64_t writable)
{
    struct fake_vm *vm = (struct fake_vm *)base;

    if (vm->state != FAKE_RUNNING || vm->exit_pending) {
        return;
    }
    vm->readable = readable;
    vm->writable = writable;
    if (vm->asking == UNID_OP_WAIT && net_news(vm)) {
        answered(vm);
    }
}

static int fake_vm_recycle(struct hv_vm *base, struct un_error *err)
{
    struct fake_vm *vm = (struct fake_vm *)base;
    const struct fake_script *script = &vm->drv->script;

    if (script->recycle_rc) {
        return un_error_errno(err, script->recycle_rc, "put a fake VM back");
    }
    if (vm->state != FAKE_ENDED || vm->exit.kind != HV_EXIT_DONE || !vm->snapshot_key[0]) {
        return un_error_set(err, -EINVAL, "the VM cannot be put back to a snapshot");
    }
    fake_guest_reset(vm);
    vm->recycling = true;
    vm->ready_rc = script->recycle_ready_rc;
    vm->exit = (struct hv_exit){0};
    set_state(vm, FAKE_SHELL);
    (void)un_timer_arm_in(&vm->timer, script->recycle_us);
    return 0;
}

static int fake_vm_bind(struct hv_vm *base, const char *snapshot_key, uint64_t mem_bytes,
                        struct un_error *err)
{
    struct fake_vm *vm = (struct fake_vm *)base;
    const struct fake_script *script = &vm->drv->script;

    if (vm->state != FAKE_SHELL || vm->exit_pending || vm->recycling || vm->snapshot_key[0]) {
        return un_error_set(err, -EINVAL, "this VM is no shell");
    }
    if (mem_bytes > vm->mem_bytes) {
        return un_error_set(err, -ENOMEM, "the shell has less memory than the function");
    }
    if (!script->bind) {
        return un_error_set(err, -ENOENT, "there is no snapshot of that key");
    }
    snprintf(vm->snapshot_key, sizeof(vm->snapshot_key), "%s", snapshot_key);
    vm->drv->stats.bound++;
    vm->recycling = true;
    vm->ready_rc = script->recycle_ready_rc;
    (void)un_timer_arm_in(&vm->timer, script->recycle_us);
    return 0;
}

static void fake_vm_usage(struct hv_vm *base, struct hv_usage *ret)
{
    struct fake_vm *vm = (struct fake_vm *)base;

    *ret = (struct hv_usage){.cpu_us = vm->runs,
                             .peak_rss_kib = vm->mem_bytes >> 10,
                             .exits = vm->calls,
                             .report = vm->report};
}

static int fake_vm_pid(struct hv_vm *base)
{
    const struct fake_vm *vm = (struct fake_vm *)base;

    return vm->state == FAKE_STARTING ? 0 : vm->pid;
}

static void fake_vm_free(struct hv_vm *base)
{
    struct fake_vm *vm = (struct fake_vm *)base;

    if (!vm || vm->state == FAKE_GOING) {
        return;
    }
    set_state(vm, FAKE_GOING);
    (void)un_timer_arm_in(&vm->timer, vm->drv->script.destroy_us);
}

void fake_vm_end(struct fake_vm *vm, enum hv_exit_kind kind, int32_t status, const char *detail)
{
    vm->exit = (struct hv_exit){.kind = kind,
                                .status = status,
                                .fault_vector = ~0u,
                                .unbegun = kind == HV_EXIT_LOST && vm->drv->script.unbegun};
    snprintf(vm->exit.detail, sizeof(vm->exit.detail), "%s", detail ? detail : "");
    vm->exit_pending = true;
    (void)un_timer_arm_in(&vm->timer, 0);
}

/* --- what happens next ------------------------------------------------------------------------ */

static void go(struct fake_vm *vm)
{
    struct fake_driver *drv = vm->drv;
    const struct hv_vm_events *events = vm->events;
    void *arg = vm->arg;

    un_list_remove(&vm->node);
    drv->stats.ended--;
    drv->stats.gone++;
    fake_guest_done(vm);
    free(vm);
    events->on_gone(arg);
}

static void become_shell(struct fake_vm *vm)
{
    struct un_error err = UN_ERROR_INIT;

    if (vm->ready_rc < 0) {
        vm->recycling = false;
        vm->drv->stats.failed++;
        set_state(vm, FAKE_ENDED);
        un_error_errno(&err, vm->ready_rc, "start a fake VM");
        vm->events->on_ready(vm->arg, vm->ready_rc, &err);
        return;
    }
    vm->drv->stats.recycled += vm->recycling && vm->runs > 0;
    vm->recycling = false;
    set_state(vm, FAKE_SHELL);
    vm->events->on_ready(vm->arg, 0, &err);
}

static void on_timer(void *arg)
{
    struct fake_vm *vm = arg;

    if (vm->state == FAKE_GOING) {
        go(vm);
    } else if (vm->exit_pending) {
        vm->exit_pending = false;
        set_state(vm, FAKE_ENDED);
        vm->events->on_exit(vm->arg, &vm->exit);
    } else if (vm->state == FAKE_STARTING || vm->recycling) {
        become_shell(vm);
    } else if (vm->state == FAKE_RUNNING && !vm->started) {
        vm->started = true;
        vm->runs++;
        (void)un_timer_arm_in(&vm->timer, 0); /* before the callback, which may free the VM */
        vm->events->on_started(vm->arg);
    } else if (vm->state == FAKE_RUNNING) {
        if (vm->asking) { /* the time of a WAIT has passed */
            answered(vm);
            un_timer_cancel(&vm->timer);
        }
        vm->behaviour->step(vm);
    }
}

const struct hv_driver_ops fake_driver_ops = {
    .name = "fake",
    .open = fake_open,
    .close = fake_close,
    .probe = fake_probe,
    .prepare = fake_prepare,
    .vm_new = fake_vm_new,
    .vm_run = fake_vm_run,
    .vm_input = fake_vm_input,
    .vm_output_done = fake_vm_output_done,
    .vm_answer = fake_vm_answer,
    .vm_net_ready = fake_vm_net_ready,
    .vm_recycle = fake_vm_recycle,
    .vm_bind = fake_vm_bind,
    .vm_usage = fake_vm_usage,
    .vm_pid = fake_vm_pid,
    .vm_free = fake_vm_free,
};
