/* machine.c - one machine of the libvirt driver: from making to removal, on the loop thread.
 *
 * As vm.c, without a channel: what it writes to its console is its log, and the end of that
 * connection is the end of QEMU. Why it ended comes from libvirt (news.h), somewhat before or after
 * that; on_exit waits for both, not for long.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "hypervisor/libvirt/driver.h"
#include "hypervisor/libvirt/inject.h"
#include "hypervisor/libvirt/proc.h"
#include "hypervisor/libvirt/ring0.h"
#include "hypervisor/machine.h"

enum {
    READ_AT_ONCE = 4096,
    READS_A_TURN = 16,
    NEWS_MS = 500,
    NEWS_US = NEWS_MS * 1000, /* after the console's end */
    END_US = 1000000          /* after the news */
};

struct hv_machine {
    struct hv_machine_base base;
    struct hv_driver *drv;
    const struct hv_machine_events *events;
    void *arg;
    enum lv_vm_state state;
    struct un_list node; /* in the driver's machines */
    bool freed, busy, reaping, killed, asking;
    bool shell_once;    /* it was made as a shell: QEMU's process is stopped until the start */
    int load_rc;        /* why nothing can be loaded */
    struct hv_exit why; /* as far as it is known */
    struct un_timer end_timer;
    enum hv_machine_heard heard; /* the worker's */
    struct hv_machine_spec spec; /* its strings are our own */
    struct hv_machine_disk disks[LV_MACHINE_DISKS];
    struct lv_shell shell;
    struct lv_want want;
    struct un_job job, reap_job, ask_job;
    struct event *console;
    struct hv_usage usage;
};

static void submit(struct hv_machine *m, struct un_workers *lane,
                   int (*run)(struct un_job *, struct un_error *),
                   void (*done)(struct un_job *, int, const struct un_error *))
{
    m->busy = true;
    m->job.run = run;
    m->job.done = done;
    un_workers_submit(lane, &m->job);
}

static struct hv_machine *machine_of(struct un_job *job)
{
    return un_container_of(job, struct hv_machine, job);
}

/* --- removal ------------------------------------------------------------------------------------ */

static void free_spec(struct hv_machine *m)
{
    const struct hv_machine_spec *s = &m->spec;
    const void *const owned[] = {s->name, s->kernel, s->initrd, s->cmdline, s->tap, s->mac};
    for (size_t i = 0; i < UN_ARRAY_SIZE(owned); i++) {
        free((void *)owned[i]);
    }
    for (size_t i = 0; i < LV_MACHINE_DISKS; i++) {
        free((char *)m->disks[i].path);
        free((char *)m->disks[i].format);
    }
}

static void machine_free(struct hv_machine *m)
{
    un_list_remove(&m->node);
    free_spec(m);
    free(m);
}

static int remove_run(struct un_job *job, struct un_error *err)
{
    lv_shell_destroy(&machine_of(job)->shell);
    return 0;
}

static void remove_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct hv_machine *m = machine_of(job);
    const struct hv_machine_events *events = m->events;
    void *arg = m->arg;
    m->drv->vms--;
    lv_driver_check(m->drv);
    machine_free(m);
    events->on_gone(arg);
}

static void remove_when_idle(struct hv_machine *m)
{
    if (m->freed && !m->busy && !m->reaping && !m->asking) {
        submit(m, m->drv->removers, remove_run, remove_done);
    }
}

static int reap_run(struct un_job *job, struct un_error *err)
{
    lv_shell_reap(&un_container_of(job, struct hv_machine, reap_job)->shell);
    return 0;
}

static void reap_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct hv_machine *m = un_container_of(job, struct hv_machine, reap_job);
    m->reaping = false;
    remove_when_idle(m);
}

/* As in vm.c: the exit status is taken at once. */
static void kill_guest(struct hv_machine *m)
{
    lv_shell_kill(&m->shell);
    if (!m->killed) {
        m->killed = m->reaping = true;
        m->reap_job.run = reap_run;
        m->reap_job.done = reap_done;
        un_workers_submit(m->drv->removers, &m->reap_job);
    }
}

static void close_console(struct hv_machine *m)
{
    if (m->console) {
        event_free(m->console);
        m->console = NULL;
    }
}

static void lv_machine_free(struct hv_machine *m)
{
    m->freed = true;
    un_list_remove(&m->want.node);
    un_timer_cancel(&m->end_timer);
    close_console(m);
    if (m->state == LV_VM_RUNNING) {
        kill_guest(m);
    }
    remove_when_idle(m);
}

/* --- the end ------------------------------------------------------------------------------------ */

static void measure_usage(struct hv_machine *m)
{
    uint64_t cpu = lv_proc_cpu_us(m->shell.pid), rss = lv_proc_peak_rss_kib(m->shell.pid);
    if (cpu > m->shell.base_cpu_us) {
        m->usage.cpu_us = cpu - m->shell.base_cpu_us;
    }
    if (rss > m->usage.peak_rss_kib) {
        m->usage.peak_rss_kib = rss;
    }
}

/* Once, from an event of the loop. */
static void end(struct hv_machine *m)
{
    if (m->state != LV_VM_RUNNING && m->state != LV_VM_SHELL) {
        return;
    }
    un_timer_cancel(&m->end_timer);
    measure_usage(m);
    m->state = LV_VM_ENDED;
    close_console(m);
    kill_guest(m);
    m->events->on_exit(m->arg, &m->why);
}

static void on_end_timer(void *arg)
{
    end(arg);
}

static void end_in(struct hv_machine *m, uint64_t us)
{
    if (!un_timer_armed(&m->end_timer) && un_timer_arm_in(&m->end_timer, us) < 0) {
        end(m);
    }
}

/* QEMU has gone. That it is reaped lets libvirt say why, where it has not yet. */
static void console_ended(struct hv_machine *m)
{
    measure_usage(m);
    close_console(m);
    kill_guest(m);
    if (m->why.kind != HV_EXIT_LOST) {
        end(m);
    } else {
        un_timer_cancel(&m->end_timer);
        end_in(m, NEWS_US);
    }
}

void lv_machine_news(void *arg, const char *domain, const struct hv_exit *why)
{
    struct hv_driver *drv = arg;
    un_list_for_each (it, &drv->machines) {
        struct hv_machine *m = un_list_entry(it, struct hv_machine, node);
        if (strcmp(m->shell.name, domain) != 0) {
            continue;
        }
        if (m->freed || (m->state != LV_VM_RUNNING && m->state != LV_VM_SHELL)) {
            return;
        }
        if (lv_news_better(why, &m->why)) {
            m->why = *why;
        }
        if (m->console) {
            end_in(m, END_US); /* its last words are on their way */
        } else {
            end(m);
        }
        return;
    }
}

/* Tells what stands on the console, some of it when there is much; false at its end. */
static bool read_console(struct hv_machine *m)
{
    char text[READ_AT_ONCE];
    int fd = event_get_fd(m->console);
    for (int i = 0; i < READS_A_TURN && !m->freed; i++) {
        ssize_t n = recv(fd, text, sizeof(text), MSG_DONTWAIT);
        if (n <= 0) {
            return n < 0 && (errno == EAGAIN || errno == EINTR);
        }
        m->events->on_log(m->arg, text, (size_t)n);
    }
    return true;
}

static void on_console(evutil_socket_t fd, short what, void *arg)
{
    struct hv_machine *m = arg;
    if (!read_console(m)) {
        console_ended(m);
    }
}

/* Its end is left to on_console. */
static void lv_machine_read_log(struct hv_machine *m)
{
    if (m->console) {
        (void)read_console(m);
    }
}

/* --- making and starting ------------------------------------------------------------------------ */

static int make_run(struct un_job *job, struct un_error *err)
{
    struct hv_machine *m = machine_of(job);
    /* What runs programs fast may emulate kernels. */
    const char *accelerator = m->drv->wanted_accelerator ? m->drv->wanted_accelerator
                              : lv_ring0_is_fast()       ? "kvm"
                                                         : "tcg";
    return lv_shell_create_machine(&m->drv->host, accelerator, &m->spec, &m->shell, err);
}

static void tell_failed(struct hv_machine *m, int rc, const struct un_error *err)
{
    m->state = LV_VM_ENDED;
    m->events->on_made(m->arg, rc, err);
}

static void make_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct hv_machine *m = machine_of(job);
    struct un_error mine = UN_ERROR_INIT;
    m->busy = false;
    if (m->freed) {
        remove_when_idle(m);
        return;
    }
    if (rc < 0) {
        tell_failed(m, rc, err);
        return;
    }
    m->console =
        event_new(un_loop_base(m->drv->loop), m->shell.sock, EV_READ | EV_PERSIST, on_console, m);
    if (!m->console || event_add(m->console, NULL) < 0) {
        un_error_set(&mine, -ENOMEM, "out of memory");
        tell_failed(m, -ENOMEM, &mine);
        return;
    }
    m->state = LV_VM_SHELL;
    m->events->on_made(m->arg, 0, NULL);
}

static void on_host(struct lv_want *want, int rc, const struct un_error *err)
{
    struct hv_machine *m = un_container_of(want, struct hv_machine, want);
    if (rc < 0) {
        tell_failed(m, rc, err);
    } else {
        submit(m, m->drv->makers, make_run, make_done);
    }
}

/* strdup that lets NULL through; false when out of memory. */
static bool copy(const char **s)
{
    if (*s) {
        *s = strdup(*s);
        return *s != NULL;
    }
    return true;
}

/* Every string is copied or NULL afterwards, so that machine_free may follow in any case. */
static int copy_spec(struct hv_machine *m, const struct hv_machine_spec *spec)
{
    bool good = true;
    m->spec = *spec;
    const char **const strings[] = {&m->spec.name,    &m->spec.kernel, &m->spec.initrd,
                                    &m->spec.cmdline, &m->spec.tap,    &m->spec.mac};
    for (size_t i = 0; i < UN_ARRAY_SIZE(strings); i++) {
        good = copy(strings[i]) && good;
    }
    for (size_t i = 0; i < spec->disk_count; i++) {
        m->disks[i] = spec->disks[i];
        good = copy(&m->disks[i].path) && good;
        good = copy(&m->disks[i].format) && good;
    }
    m->spec.disks = m->disks;
    return good ? 0 : -ENOMEM;
}

static int lv_machine_new(struct hv_driver *drv, const struct hv_machine_spec *spec,
                          struct hv_machine **ret, struct un_error *err)
{
    if (spec->disk_count > LV_MACHINE_DISKS || spec->mem_bytes < UINT64_C(1) << 20 ||
        spec->mem_bytes % 4096) {
        return un_error_set(
            err, -EINVAL, "a machine has at most %d disks and whole pages of memory, 1 MiB or more",
            LV_MACHINE_DISKS);
    }
    struct hv_machine *m = calloc(1, sizeof(*m));
    if (!m) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    un_list_init(&m->node);
    if (copy_spec(m, spec) < 0) {
        machine_free(m);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    m->base.ops = &lv_machine_ops;
    m->drv = drv;
    m->events = spec->events;
    m->arg = spec->arg;
    m->shell = (struct lv_shell){.pidfd = -1, .sock = -1};
    m->why = (struct hv_exit){
        .kind = HV_EXIT_LOST, .fault_vector = ~0u, .detail = "the machine ended: QEMU went away"};
    un_timer_init(&m->end_timer, drv->loop, on_end_timer, m);
    un_list_push(&drv->machines, &m->node);
    un_list_init(&m->want.node);
    m->want.fn = on_host;
    m->shell_once = spec->boot == HV_BOOT_SHELL;
    drv->vms++;
    lv_driver_want(drv, &m->want);
    *ret = m;
    return 0;
}

static bool qemu_ends_within(const struct hv_machine *m, int ms)
{
    struct pollfd p = {.fd = m->shell.pidfd, .events = POLLIN};
    return poll(&p, 1, ms) > 0;
}

static bool qemu_has_ended(const struct hv_machine *m)
{
    return qemu_ends_within(m, 0);
}

static int resume_run(struct un_job *job, struct un_error *err)
{
    struct hv_machine *m = machine_of(job);
    int rc = lv_shell_resume(&m->shell, err);
    if (rc < 0) {
        (void)qemu_ends_within(m, NEWS_MS); /* its monitor's end is seen before its own */
    }
    return rc;
}

static void resume_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct hv_machine *m = machine_of(job);
    m->busy = false;
    if (m->freed) {
        remove_when_idle(m);
    } else if (rc < 0 && m->state == LV_VM_RUNNING) {
        /* Of one that has ended, libvirt's words are not the reason. */
        if (!qemu_has_ended(m)) {
            snprintf(m->why.detail, sizeof(m->why.detail), "%.150s", err->text);
        }
        end(m);
    }
}

static void lv_machine_start(struct hv_machine *m)
{
    if (m->state == LV_VM_SHELL && m->shell_once) {
        m->state = LV_VM_RUNNING;
        lv_inject_start(&m->shell);
    } else if (m->state == LV_VM_SHELL) {
        m->state = LV_VM_RUNNING;
        submit(m, m->drv->fast, resume_run, resume_done);
    }
}

static int load_run(struct un_job *job, struct un_error *err)
{
    struct hv_machine *m = machine_of(job);
    m->shell.base_cpu_us = lv_proc_cpu_us(m->shell.pid);
    return m->load_rc < 0 ? un_error_set(err, m->load_rc, "out of memory")
                          : lv_inject_load(&m->shell, &m->spec, err);
}

static void load_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct hv_machine *m = machine_of(job);
    struct un_error mine = UN_ERROR_INIT;
    m->busy = false;
    if (m->freed) {
        remove_when_idle(m);
    } else if (rc == 0 && qemu_has_ended(m)) { /* nobody was told meanwhile */
        un_error_set(&mine, -EPIPE, "QEMU went away");
        tell_failed(m, -EPIPE, &mine);
    } else if (rc < 0) {
        tell_failed(m, rc, err);
    } else {
        m->state = LV_VM_SHELL;
        m->events->on_made(m->arg, 0, NULL);
    }
}

static void lv_machine_load(struct hv_machine *m, const struct hv_machine_spec *spec)
{
    if (m->state != LV_VM_SHELL || m->spec.boot != HV_BOOT_SHELL) {
        return;
    }
    free_spec(m);
    memset(m->disks, 0, sizeof(m->disks));
    m->load_rc = copy_spec(m, spec);
    m->events = spec->events;
    m->arg = spec->arg;
    m->state = LV_VM_STARTING;
    submit(m, m->drv->fast, load_run, load_done);
}

static int ask_run(struct un_job *job, struct un_error *err)
{
    struct hv_machine *m = un_container_of(job, struct hv_machine, ask_job);
    m->heard = lv_shell_hear(&m->shell, &m->spec);
    return 0;
}

static void ask_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct hv_machine *m = un_container_of(job, struct hv_machine, ask_job);
    m->asking = false;
    if (m->freed) {
        remove_when_idle(m);
    } else if (m->state == LV_VM_RUNNING) {
        m->events->on_heard(m->arg, m->heard);
    }
}

static void lv_machine_ask(struct hv_machine *m)
{
    if (m->state == LV_VM_RUNNING && m->spec.net == HV_NET_USER && !m->asking) {
        m->asking = true;
        m->ask_job = (struct un_job){.run = ask_run, .done = ask_done};
        un_workers_submit(m->drv->fast, &m->ask_job);
    }
}

static void lv_machine_usage(struct hv_machine *m, struct hv_usage *ret)
{
    if (m->state == LV_VM_RUNNING || m->state == LV_VM_SHELL) {
        measure_usage(m);
    }
    *ret = m->usage;
}

static int lv_machine_pid(struct hv_machine *m)
{
    return m->state == LV_VM_STARTING ? 0 : m->shell.pid;
}

const struct hv_machine_ops lv_machine_ops = {
    .new = lv_machine_new,
    .start = lv_machine_start,
    .load = lv_machine_load,
    .ask = lv_machine_ask,
    .read_log = lv_machine_read_log,
    .usage = lv_machine_usage,
    .pid = lv_machine_pid,
    .free = lv_machine_free,
};
