/* vm.c - one VM of the libvirt driver: from shell to removal, on the loop thread.
 *
 * vm_run writes image and request into the shell's memory here, for that takes microseconds and its
 * errors are the caller's; only the resume, a round trip to QEMU's monitor, goes to the fast lane.
 * The guest may ring before that round trip is back: whatever comes first tells on_started.
 *
 * A guest that waits for its answer spins. When the answer takes longer than STOP_AFTER_US (a slow
 * client), QEMU is stopped by signal until it is there.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "hypervisor/fault.h"
#include "hypervisor/libvirt/bind.h"
#include "hypervisor/libvirt/driver.h"
#include "hypervisor/libvirt/proc.h"
#include "hypervisor/libvirt/rom.h"

enum { STOP_AFTER_US = 5000, RINGS_AT_ONCE = 4096 };

/* Memory is in one piece below QEMU's device hole; the ROM takes page tables below 4 GiB. */
#define MEM_UNIT  (UINT64_C(2) << 20)
#define MEM_MOST  (UINT64_C(2) << 30)
#define MEM_LEAST (UINT64_C(4) << 20)

static void submit(struct hv_vm *vm, struct un_workers *lane,
                   int (*run)(struct un_job *, struct un_error *),
                   void (*done)(struct un_job *, int, const struct un_error *))
{
    vm->busy = true;
    vm->job.run = run;
    vm->job.done = done;
    un_workers_submit(lane, &vm->job);
}

static struct hv_vm *vm_of(struct un_job *job)
{
    return un_container_of(job, struct hv_vm, job);
}

/* Removal */

static int remove_run(struct un_job *job, struct un_error *err)
{
    lv_shell_destroy(&vm_of(job)->shell);
    return 0;
}

static void remove_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct hv_vm *vm = vm_of(job);
    const struct hv_vm_events *events = vm->events;
    void *arg = vm->arg;
    vm->drv->vms--;
    lv_driver_check(vm->drv);
    free(vm);
    events->on_gone(arg);
}

/* Starts the removal when vm_free was called and no worker has the VM. */
static void remove_when_idle(struct hv_vm *vm)
{
    if (vm->freed && !vm->busy && !vm->reaping) {
        submit(vm, vm->drv->removers, remove_run, remove_done);
    }
}

static int reap_run(struct un_job *job, struct un_error *err)
{
    lv_shell_reap(&un_container_of(job, struct hv_vm, reap_job)->shell);
    return 0;
}

static void reap_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct hv_vm *vm = un_container_of(job, struct hv_vm, reap_job);
    vm->reaping = false;
    remove_when_idle(vm);
}

/* Ends QEMU. Its exit status is taken at once, also while a resume is under way: libvirt answers
 * that only when it has seen the end of the process. */
static void kill_guest(struct hv_vm *vm)
{
    lv_shell_kill(&vm->shell);
    if (!vm->reaping) {
        vm->reaping = true;
        vm->reap_job.run = reap_run;
        vm->reap_job.done = reap_done;
        un_workers_submit(vm->drv->removers, &vm->reap_job);
    }
}

static void close_bell(struct hv_vm *vm)
{
    if (vm->bell) {
        event_free(vm->bell);
        vm->bell = NULL;
    }
}

void lv_vm_free(struct hv_vm *vm)
{
    vm->freed = true;
    un_list_remove(&vm->want.node);
    close_bell(vm);
    un_timer_cancel(&vm->stop_timer);
    un_loop_unpost(vm->drv->loop, &vm->exit_post);
    hv_asks_done(&vm->asks);
    if (vm->channel_open) {
        hv_channel_done(&vm->channel);
    }
    if (vm->state == LV_VM_RUNNING) {
        kill_guest(vm);
    }
    remove_when_idle(vm);
}

/* The end */

static void measure_usage(struct hv_vm *vm)
{
    uint64_t cpu = lv_proc_cpu_us(vm->shell.pid), rss = lv_proc_peak_rss_kib(vm->shell.pid);
    if (cpu > vm->shell.base_cpu_us) {
        vm->usage.cpu_us = cpu - vm->shell.base_cpu_us;
    }
    if (rss > vm->usage.peak_rss_kib) {
        vm->usage.peak_rss_kib = rss;
    }
    vm->usage.exits = vm->channel.calls;
    hv_channel_report(&vm->channel, &vm->usage.report);
}

/* Ends guest execution; memory stays mapped for what is still to be read. */
static void stop_guest(struct hv_vm *vm)
{
    if (vm->state == LV_VM_ENDED) {
        return;
    }
    measure_usage(vm);
    vm->state = LV_VM_ENDED;
    close_bell(vm);
    un_timer_cancel(&vm->stop_timer);
    kill_guest(vm);
}

static void on_channel_ended(void *arg, const struct hv_exit *why)
{
    stop_guest(arg);
}

static void tell_exit(void *arg)
{
    struct hv_vm *vm = arg;
    hv_channel_exit(&vm->channel);
}

static void on_channel_exit_due(void *arg)
{
    struct hv_vm *vm = arg;
    vm->exit_post = (struct un_post){.fn = tell_exit, .arg = vm};
    un_loop_post(vm->drv->loop, &vm->exit_post);
}

static void end_running(struct hv_vm *vm, const struct hv_exit *why)
{
    stop_guest(vm);
    hv_channel_end(&vm->channel, why);
}

static void __attribute__((format(printf, 2, 3))) end_lost(struct hv_vm *vm, const char *fmt, ...)
{
    struct hv_exit why = {.kind = HV_EXIT_LOST, .fault_vector = ~0u};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why.detail, sizeof(why.detail), fmt, ap);
    va_end(ap);
    if (vm->state == LV_VM_RUNNING) {
        end_running(vm, &why);
    } else if (vm->state == LV_VM_SHELL) {
        stop_guest(vm);
        vm->events->on_exit(vm->arg, &why);
    }
}

/* Running */

static void tell_started(struct hv_vm *vm)
{
    if (!vm->started) {
        vm->started = true;
        vm->events->on_started(vm->arg);
    }
}

static void stop_waiting_guest(void *arg)
{
    struct hv_vm *vm = arg;
    if (vm->busy) { /* the monitor's answer is still to come from that process */
        un_timer_arm_in(&vm->stop_timer, STOP_AFTER_US);
        return;
    }
    vm->stopped = true;
    lv_proc_signal(vm->shell.pidfd, SIGSTOP);
}

static void on_channel_resume(void *arg)
{
    struct hv_vm *vm = arg;
    un_timer_cancel(&vm->stop_timer);
    if (vm->stopped) {
        vm->stopped = false;
        lv_proc_signal(vm->shell.pidfd, SIGCONT);
    }
}

static void on_channel_ask(void *arg, const struct hv_ask *ask)
{
    struct hv_vm *vm = arg;
    hv_asks_take(&vm->asks, ask);
}

static void name_system_call(struct hv_vm *vm, struct hv_exit *fault)
{
    enum { PAGE_FAULT = 14 };
    uint8_t code[HV_CODE_MAX];
    size_t len = hv_fault_code(vm->shell.mem, vm->shell.mem_bytes, vm->cr3, fault->fault_rip, code);
    const char *name = hv_fault_system_call(code, len);
    if (name && fault->fault_vector != PAGE_FAULT) {
        hv_fault_describe_call(fault->detail, sizeof(fault->detail), name, fault->fault_rip);
    }
}

static void ring(struct hv_vm *vm)
{
    struct hv_exit fault;
    tell_started(vm);
    if (vm->freed || vm->state != LV_VM_RUNNING) {
        return;
    }
    if (lv_fault_read(vm->shell.mem, vm->guard, &fault)) {
        name_system_call(vm, &fault);
        end_running(vm, &fault);
        return;
    }
    hv_channel_ring(&vm->channel);
    if (!vm->freed && vm->state == LV_VM_RUNNING && vm->channel.op != 0 &&
        !un_timer_armed(&vm->stop_timer)) {
        un_timer_arm_in(&vm->stop_timer, STOP_AFTER_US); /* without it the guest spins on */
    }
}

static void on_bell(evutil_socket_t fd, short what, void *arg)
{
    struct hv_vm *vm = arg;
    char bytes[RINGS_AT_ONCE];
    ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n > 0) {
        if (vm->state == LV_VM_RUNNING) {
            ring(vm);
        }
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        end_lost(vm, "the QEMU process %d went away", (int)vm->shell.pid);
    }
}

static int resume_run(struct un_job *job, struct un_error *err)
{
    return lv_shell_resume(&vm_of(job)->shell, err);
}

static void resume_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct hv_vm *vm = vm_of(job);
    vm->busy = false;
    if (vm->freed) {
        remove_when_idle(vm);
    } else if (vm->state == LV_VM_RUNNING && rc < 0) {
        end_lost(vm, "%.150s", err->text);
    } else if (vm->state == LV_VM_RUNNING) {
        tell_started(vm);
    }
}

/* Writes image and request. On failure memory is as new: nothing has run in it. */
static int bind_image(struct hv_vm *vm, const struct hv_run_spec *spec, struct hv_channel *channel,
                      struct un_error *err)
{
    struct hv_layout_spec where = {.mem = vm->shell.mem,
                                   .mem_bytes = spec->mem_bytes,
                                   .doorbell = HV_DOORBELL_PORT,
                                   .doorbell_port = LV_DOORBELL_PORT,
                                   .boot_flags = UNID_BOOT_REQUEST_READY,
                                   .tsc_hz = vm->drv->tsc_hz};
    struct hv_layout layout = {0};
    int rc = hv_layout_build(&where, spec, &layout, err);
    rc = rc < 0 ? rc : lv_bind(vm->shell.mem, spec->mem_bytes, &layout, err);
    if (rc == 0) {
        hv_channel_init(channel, vm->shell.mem + UNID_BOOT_ADDR, vm->events, vm->arg);
        rc = hv_channel_put_request(channel, spec, err);
    }
    if (rc < 0 && madvise(vm->shell.mem, vm->shell.mem_bytes, MADV_REMOVE) < 0) {
        memset(vm->shell.mem, 0, vm->shell.mem_bytes);
    }
    vm->guard = layout.guard;
    vm->cr3 = layout.cr3;
    return rc;
}

int lv_vm_run(struct hv_vm *vm, const struct hv_run_spec *spec, struct un_error *err)
{
    if (vm->state != LV_VM_SHELL || vm->channel_open) {
        return un_error_set(err, -EINVAL, "the VM is not a shell");
    }
    if (spec->mem_bytes > vm->mem_bytes) {
        return un_error_set(err, -ENOMEM, "%" PRIu64 " MiB of memory in a shell of %" PRIu64 " MiB",
                            spec->mem_bytes >> 20, vm->mem_bytes >> 20);
    }
    struct hv_channel channel;
    int rc = bind_image(vm, spec, &channel, err);
    if (rc < 0) {
        return rc;
    }
    vm->channel = channel;
    vm->channel.resume = on_channel_resume;
    vm->channel.ended = on_channel_ended;
    vm->channel.ask = on_channel_ask;
    vm->channel.exit_due = on_channel_exit_due;
    vm->channel.driver_arg = vm;
    vm->channel_open = true;
    vm->state = LV_VM_RUNNING;
    submit(vm, vm->drv->fast, resume_run, resume_done);
    return 0;
}

void lv_vm_input(struct hv_vm *vm, const void *data, size_t len, bool eof)
{
    if (vm->state == LV_VM_RUNNING) {
        hv_channel_input(&vm->channel, data, len, eof);
    }
}

void lv_vm_output_done(struct hv_vm *vm)
{
    if (vm->channel_open) { /* also after the end: on_exit waits for it */
        hv_channel_output_done(&vm->channel);
    }
}

void lv_vm_answer(struct hv_vm *vm, const struct hv_answer *answer)
{
    if (vm->state == LV_VM_RUNNING) {
        hv_channel_answer(&vm->channel, answer);
    }
}

void lv_vm_net_ready(struct hv_vm *vm, uint64_t readable, uint64_t writable)
{
    if (vm->state == LV_VM_RUNNING) {
        hv_channel_net_ready(&vm->channel, readable, writable);
    }
}

void lv_vm_usage(struct hv_vm *vm, struct hv_usage *ret)
{
    if (vm->state == LV_VM_RUNNING) {
        measure_usage(vm);
    }
    *ret = vm->usage;
}

int lv_vm_pid(struct hv_vm *vm)
{
    return vm->state == LV_VM_STARTING ? 0 : (int)vm->shell.pid;
}

/* Making */

static int make_run(struct un_job *job, struct un_error *err)
{
    struct hv_vm *vm = vm_of(job);
    char accelerator[LV_ACCELERATOR_SIZE];
    int rc = lv_driver_choose(vm->drv, accelerator, err);
    return rc < 0 ? rc
                  : lv_shell_create(&vm->drv->host, accelerator, vm->mem_bytes, &vm->shell, err);
}

static void vm_fail(struct hv_vm *vm, int rc, const struct un_error *err)
{
    vm->state = LV_VM_ENDED;
    vm->events->on_ready(vm->arg, rc, err);
}

static void make_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct hv_vm *vm = vm_of(job);
    struct un_error mine = UN_ERROR_INIT;
    vm->busy = false;
    if (vm->freed) {
        vm->state = LV_VM_ENDED;
        remove_when_idle(vm);
        return;
    }
    if (rc < 0) {
        lv_driver_check(vm->drv);
        vm_fail(vm, rc, err);
        return;
    }
    vm->bell =
        event_new(un_loop_base(vm->drv->loop), vm->shell.sock, EV_READ | EV_PERSIST, on_bell, vm);
    if (!vm->bell || event_add(vm->bell, NULL) < 0) {
        un_error_set(&mine, -ENOMEM, "out of memory");
        vm_fail(vm, -ENOMEM, &mine);
        return;
    }
    vm->state = LV_VM_SHELL;
    vm->events->on_ready(vm->arg, 0, NULL);
}

static void on_host(struct lv_want *want, int rc, const struct un_error *err)
{
    struct hv_vm *vm = un_container_of(want, struct hv_vm, want);
    if (rc < 0) {
        vm_fail(vm, rc, err);
    } else {
        submit(vm, vm->drv->makers, make_run, make_done);
    }
}

int lv_vm_new(struct hv_driver *drv, const struct hv_vm_spec *spec, struct hv_vm **ret,
              struct un_error *err)
{
    if (spec->mem_bytes % MEM_UNIT || spec->mem_bytes < MEM_LEAST || spec->mem_bytes > MEM_MOST) {
        return un_error_set(err, -EINVAL,
                            "%" PRIu64 " bytes of memory: the libvirt driver takes %" PRIu64
                            " to %" PRIu64 " MiB, by 2",
                            spec->mem_bytes, MEM_LEAST >> 20, MEM_MOST >> 20);
    }
    struct hv_vm *vm = calloc(1, sizeof(*vm));
    if (!vm) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    vm->base.ops = drv->base.ops;
    vm->drv = drv;
    vm->events = spec->events;
    vm->arg = spec->arg;
    vm->mem_bytes = spec->mem_bytes;
    vm->shell = (struct lv_shell){.pidfd = -1, .sock = -1};
    un_list_init(&vm->want.node);
    vm->want.fn = on_host;
    un_timer_init(&vm->stop_timer, drv->loop, stop_waiting_guest, vm);
    hv_asks_init(&vm->asks, drv->loop, &vm->channel);
    drv->vms++;
    lv_driver_want(drv, &vm->want);
    *ret = vm;
    return 0;
}
