/* vm.c - one VM of the kvm driver: from the spawner's READY to its GONE.
 *
 * The guest and the driver take turns. At a doorbell the monitor sends RING and waits for an order
 * (`standing`); the channel answers the call in the shared pages, and GO lets the guest run on. So
 * a guest causes no more messages than it makes calls, which the channel counts (LIMIT_CALLS): a
 * doorbell without a new call is not answered, and the guest stands still until its time is over.
 *
 * The end of a VM is told once, by the channel (hv_channel_exit); its death by the spawner, when
 * the process was reaped (`gone`). A monitor's last report lies in the VM socket before the
 * process is reaped, so it is read out before a death is judged.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/limits.h"
#include "hypervisor/kvm/driver.h"

#define MEM_UNIT (UINT64_C(2) << 20) /* of a shell's memory; hv.h */

enum { FEW_EXITS = 4 }; /* with so many calls a guest moves no large bodies */

static struct kvm_vm *vm_of(struct hv_vm *vm)
{
    return (struct kvm_vm *)(void *)vm;
}

/* --- release ---------------------------------------------------------------------------------- */

/* Everything but the struct and the link: nothing is heard from the monitor any more. */
static void let_go(struct kvm_vm *v)
{
    hv_channel_report(&v->channel, &v->usage.report);
    hv_channel_done(&v->channel);
    hv_asks_done(&v->asks);
    un_list_remove(&v->brisk);
    un_closep(&v->ram_fd);
    v->ram_fd = -1;
    snapshot_unref(v->snapshot);
    v->snapshot = NULL;
}

static void unpost_all(struct kvm_vm *v)
{
    struct un_post *posts[] = {&v->started_post, &v->exit_post, &v->gone_post, &v->ready_post};
    for (size_t i = 0; i < UN_ARRAY_SIZE(posts); i++) {
        un_loop_unpost(v->drv->loop, posts[i]);
    }
}

/* `freed` and `gone` are both true: the end. */
static void on_gone_due(void *arg)
{
    struct kvm_vm *v = arg;
    const struct hv_vm_events *events = v->events;
    void *user = v->arg;
    kvm_link_put(v->drv, v->link, v->done && v->usage.exits <= FEW_EXITS);
    kvm_driver_remove(v->drv, v);
    free(v);
    events->on_gone(user);
}

static void command(struct kvm_vm *v, enum vmm_op op)
{
    if (v->spawner) {
        spawner_command(v->spawner, &(struct vmm_command){.op = (uint32_t)op, .id = v->id}, NULL);
    }
}

void kvm_vm_abandon(struct kvm_vm *v)
{
    v->freed = v->gone = true;
    unpost_all(v);
    let_go(v);
    on_gone_due(v);
}

void kvm_vm_free(struct hv_vm *vm)
{
    struct kvm_vm *v = vm_of(vm);
    if (!v || v->freed) {
        return;
    }
    v->freed = true;
    unpost_all(v);
    let_go(v);
    if (v->gone) {
        un_loop_post(v->drv->loop, &v->gone_post);
    } else {
        command(v, VMM_OP_KILL);
    }
}

void kvm_vm_yield(struct kvm_vm *v)
{
    v->yielded = true;
    command(v, VMM_OP_YIELD);
}

/* --- the end of the guest --------------------------------------------------------------------- */

/* Tells the user that the VM has ended, in whatever state it was. From an event of the loop. */
static void end(struct kvm_vm *v, const struct hv_exit *why)
{
    if (v->freed || v->state == KVM_VM_ENDED) {
        return;
    }
    if (v->state == KVM_VM_RUNNING) {
        hv_channel_end(&v->channel, why);
        return;
    }
    v->state = KVM_VM_ENDED;
    v->events->on_exit(v->arg, why);
}

/* The order to run was not sent, or the monitor ended before it took it. */
static bool unbegun(const struct kvm_vm *v)
{
    return v->state == KVM_VM_RUNNING && (!v->begun || kvm_link_unread(v->link));
}

static void __attribute__((format(printf, 2, 3))) lost(struct kvm_vm *v, const char *fmt, ...)
{
    struct hv_exit why = {
        .kind = HV_EXIT_LOST, .fault_vector = ~0u, .unbegun = !v->channel.calls && unbegun(v)};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why.detail, sizeof(why.detail), fmt, ap);
    va_end(ap);
    if (v->snapshot && v->state == KVM_VM_RUNNING && !why.unbegun) {
        snapshot_drop(v->snapshot); /* it may be the reason */
    }
    end(v, &why);
}

static void channel_ended(void *arg, const struct hv_exit *why)
{
    struct kvm_vm *v = arg;
    v->done = why->kind == HV_EXIT_DONE;
    if (!v->standing) {
        command(v, VMM_OP_KILL);
    }
}

/* Told at the end of the event that is being handled, if one of the VM's own is. */
static void channel_exit_due(void *arg)
{
    struct kvm_vm *v = arg;
    v->exit_due = true;
    if (!v->in_event) {
        un_loop_post(v->drv->loop, &v->exit_post);
    }
}

static void on_exit_due(void *arg)
{
    struct kvm_vm *v = arg;
    if (v->exit_due && !v->freed) {
        v->exit_due = false;
        v->state = KVM_VM_ENDED;
        hv_channel_exit(&v->channel);
    }
}

/* --- orders and reports ----------------------------------------------------------------------- */

/* False when it could not be sent, which ends the monitor. */
bool kvm_vm_order(struct kvm_vm *v, const struct vmm_order *order, int fd)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct vmm_order o = *order;
    struct vmm_ahead ahead = {0};
    if (v->snapshot && (o.op == VMM_ORDER_BIND || o.op == VMM_ORDER_RESET)) {
        snapshot_ahead(v->snapshot, &o, &ahead);
    }
    struct iovec io[] = {
        {.iov_base = &o, .iov_len = sizeof(o)},
        {.iov_base = (void *)(uintptr_t)ahead.ranges,
         .iov_len = ahead.range_count * sizeof(*ahead.ranges)},
        {.iov_base = (void *)(uintptr_t)ahead.touches,
         .iov_len = ahead.touch_count * sizeof(*ahead.touches)},
    };
    struct msghdr msg = {.msg_iov = io, .msg_iovlen = UN_ARRAY_SIZE(io)};
    if (fd >= 0) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    if (sendmsg(v->link->sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        command(v, VMM_OP_KILL);
        return false;
    }
    return true;
}

static void channel_resume(void *arg)
{
    struct kvm_vm *v = arg;
    if (v->standing) {
        v->standing = false;
        kvm_driver_brisk(v->drv, v);
        kvm_vm_order(v, &(struct vmm_order){.op = VMM_ORDER_GO}, -1);
    }
}

static void channel_next_wanted(void *arg)
{
    struct kvm_vm *v = arg;
    if (v->on_saved) {
        kvm_vm_order(v, &(struct vmm_order){.op = VMM_ORDER_SAVE}, -1);
    }
}

static void channel_ask(void *arg, const struct hv_ask *ask)
{
    struct kvm_vm *v = arg;
    hv_asks_take(&v->asks, ask);
}

static void take_fault(struct kvm_vm *v, const struct vmm_report *r)
{
    struct hv_exit why = {.kind = HV_EXIT_FAULT,
                          .fault_vector = r->vector,
                          .fault_rip = r->rip,
                          .fault_addr = r->addr};
    const char *call = hv_fault_system_call(r->code, r->code_len);
    if (call) {
        hv_fault_describe_call(why.detail, sizeof(why.detail), call, r->rip);
    } else if (r->rip == 0 && r->addr == 0) {
        snprintf(why.detail, sizeof(why.detail), "the CPU does not tell where");
    } else if (r->exit_reason == KVM_EXIT_MMIO) {
        snprintf(why.detail, sizeof(why.detail), "address %#" PRIx64 " has no memory", r->addr);
    } else if (r->error == -EFAULT) {
        snprintf(why.detail, sizeof(why.detail), "an address behind the guest's memory");
    } else if (r->exit_reason == KVM_EXIT_INTERNAL_ERROR) {
        snprintf(why.detail, sizeof(why.detail), "an instruction that KVM cannot emulate");
    }
    end(v, &why);
}

static void take_report(struct kvm_vm *v, const struct vmm_report *r, const uint8_t *tail,
                        size_t tail_len)
{
    v->prepared = false;
    v->usage.cpu_us = r->cpu_us;
    v->usage.peak_rss_kib = r->rss_kib;
    v->usage.exits = r->exits;
    if (r->bind_ns > 0) {
        v->times.bind_ns = r->bind_ns;
        v->times.run_ns = r->run_ns;
    }
    switch ((enum vmm_report_kind)r->kind) {
    case VMM_REPORT_RING:
        v->standing = true;
        if (tail_len > 0 && v->snapshot) {
            snapshot_learn(v->snapshot, tail, tail_len, r->touched);
        }
        hv_channel_ring(&v->channel);
        break;
    case VMM_REPORT_SAVED:
        if (v->on_saved) {
            v->on_saved(v->arg, tail);
        }
        break;
    case VMM_REPORT_FAULT:
        take_fault(v, r);
        break;
    case VMM_REPORT_ERROR:
        lost(v, "monitor: %s: %s", r->step, strerror(-r->error));
        break;
    }
}

/* Reads one packet of the monitor; what comes from one that is not wanted any more is dropped. False
 * when there is none now. */
static bool take_packet(struct kvm_vm *v)
{
    _Static_assert(sizeof(struct vmm_state) <= VMM_TAIL_MAX, "the longest tail is a RING's");
    uint8_t packet[sizeof(struct vmm_report) + VMM_TAIL_MAX];
    struct vmm_report r;
    const uint8_t *tail;
    size_t tail_len;
    ssize_t n = recv(v->link->sock, packet, sizeof(packet), MSG_DONTWAIT);
    if (n < 0 || v->freed || v->state == KVM_VM_STARTING) {
        return false;
    }
    if (!vmm_report_parse(packet, (size_t)n, &r, &tail, &tail_len)) {
        command(v, VMM_OP_KILL);
        lost(v, "the monitor sent nonsense");
        return false;
    }
    take_report(v, &r, tail, tail_len);
    return !v->freed;
}

static void tell_started(struct kvm_vm *v)
{
    if (v->started_due) {
        v->started_due = false;
        un_loop_unpost(v->drv->loop, &v->started_post);
        v->events->on_started(v->arg);
    }
}

void kvm_vm_on_packet(struct kvm_vm *v)
{
    tell_started(v); /* may have been faster than the post */
    v->in_event = true;
    take_packet(v); /* one a turn: the monitor waits for an answer to each */
    v->in_event = false;
    on_exit_due(v);
}

/* --- what the spawner says -------------------------------------------------------------------- */

static void shell_ready(struct kvm_vm *v, const struct vmm_event *e, int pid)
{
    v->pid = pid;
    memcpy(v->times.phase_ns, e->phase_ns, sizeof(v->times.phase_ns));
    struct un_error err = UN_ERROR_INIT;
    int rc = un_fault("kvm.ready");
    if (rc < 0) {
        rc = un_error_errno(&err, rc, "take a new VM");
        v->state = KVM_VM_ENDED;
        v->events->on_ready(v->arg, rc, &err);
        return;
    }
    v->standing = true;
    v->state = KVM_VM_SHELL;
    v->events->on_ready(v->arg, 0, NULL);
}

static void shell_failed(struct kvm_vm *v, int code, const char *step)
{
    struct un_error err = UN_ERROR_INIT;
    un_error_errno(&err, code < 0 ? code : -ECHILD, "make a VM: %s", step);
    v->state = KVM_VM_ENDED;
    v->events->on_ready(v->arg, err.code, &err);
}

/* How a monitor ended that had not said anything. */
static void judge_death(struct kvm_vm *v)
{
    int st = v->wait_status;
    if (WIFSIGNALED(st) && WTERMSIG(st) == SIGXCPU) {
        struct hv_exit why = {.kind = HV_EXIT_LIMIT, .fault_vector = ~0u, .detail = "CPU time"};
        end(v, &why);
    } else if (WIFSIGNALED(st)) {
        lost(v, "the monitor was ended by signal %d (%s)", WTERMSIG(st), strsignal(WTERMSIG(st)));
    } else {
        lost(v, "the monitor ended");
    }
}

static void take_death(struct kvm_vm *v)
{
    v->gone = true;
    if (v->freed) {
        on_gone_due(v);
        return;
    }
    tell_started(v);
    while (!v->freed && take_packet(v)) {
    }
    if (v->freed || v->state == KVM_VM_ENDED) {
        return;
    }
    const struct vmm_event *hello = &v->drv->hello;
    if (v->state == KVM_VM_STARTING && hello->error < 0) {
        shell_failed(v, hello->error, hello->step);
    } else if (v->state == KVM_VM_STARTING) {
        shell_failed(v, -ECHILD, "its process ended");
    } else if (v->state != KVM_VM_RUNNING || !v->channel.finished) {
        judge_death(v);
    }
}

void kvm_vm_event(struct kvm_vm *v, const struct vmm_event *e, int pid)
{
    switch ((enum vmm_event_kind)e->kind) {
    case VMM_EVENT_READY:
        if (v->state == KVM_VM_STARTING && !v->freed) {
            shell_ready(v, e, pid);
        }
        break;
    case VMM_EVENT_FAILED:
        if (v->state == KVM_VM_STARTING && !v->freed) {
            shell_failed(v, e->error, e->step);
        }
        break;
    case VMM_EVENT_GONE:
        if (!v->gone) {
            v->wait_status = e->wait;
            v->usage.cpu_us = e->cpu_us > v->usage.cpu_us ? e->cpu_us : v->usage.cpu_us;
            v->usage.peak_rss_kib = e->rss_kib;
            v->spawner = NULL;
            take_death(v);
        }
        break;
    default:
        break;
    }
}

void kvm_vm_spawner_gone(struct kvm_vm *v)
{
    v->spawner = NULL;
    if (!v->gone) {
        v->wait_status = SIGKILL;
        take_death(v);
    }
}

/* --- make ------------------------------------------------------------------------------------- */

static void on_started_due(void *arg)
{
    tell_started(arg);
}

static void on_ready_due(void *arg)
{
    struct kvm_vm *v = arg;
    v->events->on_ready(v->arg, 0, NULL);
}

int kvm_vm_new(struct hv_driver *drv, const struct hv_vm_spec *spec, struct hv_vm **ret,
               struct un_error *err)
{
    struct kvm_driver *d = (struct kvm_driver *)(void *)drv;
    if (spec->mem_bytes < 2 * MEM_UNIT || spec->mem_bytes % MEM_UNIT ||
        spec->mem_bytes > VMM_MEM_MAX) {
        return un_error_set(err, -EINVAL, "%" PRIu64 " bytes are no memory of a VM",
                            spec->mem_bytes);
    }
    struct kvm_vm *v = calloc(1, sizeof(*v));
    if (!v) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    v->base.ops = d->base.ops;
    v->drv = d;
    un_list_init(&v->brisk);
    v->events = spec->events;
    v->arg = spec->arg;
    v->mem_bytes = spec->mem_bytes;
    v->ram_fd = -1;
    v->started_post = (struct un_post){.fn = on_started_due, .arg = v};
    v->exit_post = (struct un_post){.fn = on_exit_due, .arg = v};
    v->gone_post = (struct un_post){.fn = on_gone_due, .arg = v};
    v->ready_post = (struct un_post){.fn = on_ready_due, .arg = v};
    hv_asks_init(&v->asks, d->loop, &v->channel);
    int rc = kvm_driver_spawner(d, &v->spawner, err);
    rc = rc < 0 ? rc : kvm_link_take(d, v, &v->link, err);
    if (rc == 0 && (rc = kvm_driver_add(d, v)) < 0) {
        un_error_errno(err, rc, "make a VM");
    }
    if (rc < 0) {
        kvm_link_put(d, v->link, true);
        free(v);
        return rc;
    }
    struct vmm_command spawn = {.op = VMM_OP_SPAWN, .id = v->id, .mem_bytes = v->mem_bytes};
    spawner_command(v->spawner, &spawn, (int[]){v->link->peer, v->link->channel_fd});
    *ret = (struct hv_vm *)(void *)v;
    return 0;
}

/* --- begin ------------------------------------------------------------------------------------ */

void kvm_vm_open_channel(struct kvm_vm *v)
{
    hv_channel_init(&v->channel, v->link->base, v->events, v->arg);
    v->channel.ended = channel_ended;
    v->channel.exit_due = channel_exit_due;
    v->channel.next_wanted = channel_next_wanted;
    v->channel.ask = channel_ask;
    v->channel.driver_arg = v;
}

/* The user's word that a request may have been begun. None for an order that did not reach the
 * monitor: then only HV_EXIT_LOST comes, and the user can take another VM. */
static void tell_started_soon(struct kvm_vm *v)
{
    v->started_due = true;
    un_loop_post(v->drv->loop, &v->started_post);
}

void kvm_vm_begin(struct kvm_vm *v, struct vmm_order *order, uint64_t cpu_us, int fd)
{
    order->cpu_us = cpu_us > 0 ? cpu_us : LIMIT_FUNCTION_TIMEOUT_MS * UINT64_C(1000);
    v->channel.resume = channel_resume;
    v->standing = false;
    v->state = KVM_VM_RUNNING;
    kvm_driver_brisk(v->drv, v);
    v->begun = kvm_vm_order(v, order, fd);
    if (v->begun && !v->on_saved) {
        tell_started_soon(v);
    }
}

void kvm_vm_input(struct hv_vm *vm, const void *data, size_t len, bool eof)
{
    struct kvm_vm *v = vm_of(vm);
    if (v->state == KVM_VM_RUNNING) {
        hv_channel_input(&v->channel, data, len, eof);
    }
}

void kvm_vm_output_done(struct hv_vm *vm)
{
    struct kvm_vm *v = vm_of(vm);
    if (v->state == KVM_VM_RUNNING) {
        hv_channel_output_done(&v->channel);
    }
}

void kvm_vm_answer(struct hv_vm *vm, const struct hv_answer *answer)
{
    struct kvm_vm *v = vm_of(vm);
    if (v->state == KVM_VM_RUNNING) {
        hv_channel_answer(&v->channel, answer);
    }
}

void kvm_vm_net_ready(struct hv_vm *vm, uint64_t readable, uint64_t writable)
{
    struct kvm_vm *v = vm_of(vm);
    if (v->state == KVM_VM_RUNNING) {
        hv_channel_net_ready(&v->channel, readable, writable);
    }
}

void kvm_vm_usage(struct hv_vm *vm, struct hv_usage *ret)
{
    struct kvm_vm *v = vm_of(vm);
    if (v->channel.base) {
        hv_channel_report(&v->channel, &v->usage.report);
    }
    *ret = v->usage;
}

int kvm_vm_pid(struct hv_vm *vm)
{
    return vm_of(vm)->gone ? 0 : vm_of(vm)->pid;
}

void hv_kvm_vm_times(const struct hv_vm *vm, struct hv_kvm_times *ret)
{
    *ret = ((const struct kvm_vm *)(const void *)vm)->times;
}
