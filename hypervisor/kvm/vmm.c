/* vmm.c - unid-vmm: the spawner, which unid starts, and the monitors, which it forks, one a VM.
 *
 *     unid
 *      └─ unid-vmm          enters the jail, then only waits for its child
 *          └─ spawner       process 1 of the pid namespace; control socket; forks, kills, reaps
 *              ├─ monitor   one VM: create, jail, warm (a shell), bind, run, end
 *              └─ ...
 *
 * Who ends takes everything below along: the spawner ends when the control socket closes, the
 * kernel ends every process of a pid namespace with its first, and each child asks to be killed
 * with its parent for the case that there is no pid namespace.
 *
 * The program is static and small, for each monitor pays for its pages. It logs nothing and has no
 * standard streams: what is wrong travels in messages (proto.h).
 *
 *     unid-vmm UID GID      the control socket as descriptor 0; UID and GID are for root only
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hypervisor/kvm/channel_memory.h"
#include "hypervisor/kvm/jail.h"
#include "hypervisor/kvm/machine.h"

enum { CHILDREN = 1 << 16, BUCKETS = 1 << 12, YIELD_NICE = 10 };

/* A monitor by the low half of its id, and chained by pid. Zero pages until they are used. */
static struct {
    pid_t pid;
    uint32_t id;
    uint32_t next; /* slot + 1 */
} children[CHILDREN];
static uint32_t buckets[BUCKETS]; /* slot + 1 */

static int signal_fd = -1;
static struct machine anchor;

static int close_from(int first)
{
    if (syscall(SYS_close_range, first, ~0u, 0) == 0) {
        return 0;
    }
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) < 0 || l.rlim_cur > 1 << 20) {
        return -1;
    }
    for (int fd = first; fd < (int)l.rlim_cur; fd++) {
        close(fd);
    }
    return 0;
}

static void put_step(char *to, size_t size, const char *step)
{
    strncpy(to, step ? step : "", size - 1);
    to[size - 1] = '\0';
}

static void send_event(struct vmm_event *e)
{
    while (send(VMM_FD_CONTROL, e, sizeof(*e), MSG_NOSIGNAL) < 0 && errno == EINTR) {
    }
}

/* --- monitor ---------------------------------------------------------------------------------- */

static _Noreturn void monitor_give_up(uint32_t id, int rc, const char *step)
{
    struct vmm_event e = {.kind = VMM_EVENT_FAILED, .id = id, .error = rc};
    put_step(e.step, sizeof(e.step), step);
    send_event(&e);
    _exit(1);
}

static void send_report(int sock, struct vmm_report *r, const void *tail, size_t tail_len)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    r->cpu_us = (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 +
                (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    r->rss_kib = (uint64_t)used.ru_maxrss;
    struct iovec io[] = {{.iov_base = r, .iov_len = sizeof(*r)},
                         {.iov_base = (void *)(uintptr_t)tail, .iov_len = tail_len}};
    struct msghdr msg = {.msg_iov = io, .msg_iovlen = tail_len > 0 ? 2 : 1};
    if (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0) {
        _exit(0);
    }
}

static _Noreturn void end_with_error(int sock, struct machine *m, int rc)
{
    struct vmm_report r = {.kind = VMM_REPORT_ERROR, .error = rc, .exits = m->exits};
    put_step(r.step, sizeof(r.step), m->step);
    send_report(sock, &r, NULL, 0);
    _exit(1);
}

/* Runs the guest until the driver has to answer; ends the process when the guest has ended. */
static void run_guest(int sock, struct machine *m, uint64_t order_ns)
{
    struct vmm_report r = {0};
    uint64_t start = order_ns ? machine_now_ns() : 0;
    machine_run(m, &r);
    if (order_ns) {
        r.bind_ns = start - order_ns;
        r.run_ns = machine_now_ns() - start;
    }
    put_step(r.step, sizeof(r.step), m->step);
    static uint8_t written[VMM_TAIL_MAX];
    static uint64_t touched[VMM_TOUCHES_MAX];
    size_t len = 0;
    if (r.kind == VMM_REPORT_RING && m->exits <= VMM_LEARN_RINGS) {
        len = machine_written(m, written);
        r.touched = (uint32_t)machine_touched(m, touched);
        memcpy(written + len, touched, r.touched * sizeof(*touched));
        len += r.touched * sizeof(*touched);
    }
    send_report(sock, &r, written, len);
    if (r.kind != VMM_REPORT_RING) {
        _exit(0);
    }
}

/* Takes the next order and the descriptor that came along (-1: none). Ends when unid's end
 * closed. */
static struct vmm_order next_order(int sock, struct machine *m, int *ret_fd,
                                   struct vmm_ahead *ret_ahead)
{
    static struct {
        struct vmm_order order;
        struct vmm_range ranges[VMM_RANGES_MAX];
        uint64_t touches[VMM_TOUCHES_MAX];
    } raw;
    struct vmm_order order;
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec io = {.iov_base = &raw, .iov_len = sizeof(raw)};
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n;
    do {
        n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        _exit(0);
    }
    *ret_fd = -1;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof(int))) {
        memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
    }
    if (!vmm_order_parse(&raw, (size_t)n, m->mem_max, &order, ret_ahead)) {
        m->step = "understand an order";
        end_with_error(sock, m, -EPROTO);
    }
    return order;
}

static int limit_cpu(struct machine *m, uint64_t us)
{
    m->step = "limit CPU time";
    return us > 0 && jail_limit_cpu(us) < 0 ? -errno : 0;
}

static _Noreturn void monitor_serve(int sock, struct machine *m)
{
    static struct vmm_state state;
    for (;;) {
        int fd, rc = 0;
        struct vmm_ahead ahead;
        struct vmm_order o = next_order(sock, m, &fd, &ahead);
        uint64_t now = o.cpu_us > 0 || o.op == VMM_ORDER_BIND ? machine_now_ns() : 0;
        switch ((enum vmm_order_op)o.op) {
        case VMM_ORDER_BIND:
            rc = machine_bind(m, &o, &ahead, fd);
            close(fd);
            if (o.flags & VMM_BIND_STAND) {
                break;
            }
            rc = rc < 0 ? rc : limit_cpu(m, o.cpu_us);
            if (rc == 0) {
                run_guest(sock, m, now);
            }
            break;
        case VMM_ORDER_GO:
            rc = limit_cpu(m, o.cpu_us);
            if (rc == 0) {
                run_guest(sock, m, now);
            }
            break;
        case VMM_ORDER_SAVE:
            rc = machine_save(m, &state);
            if (rc == 0) {
                struct vmm_report r = {.kind = VMM_REPORT_SAVED, .exits = m->exits};
                send_report(sock, &r, &state, sizeof(state));
            }
            break;
        case VMM_ORDER_RESET:
            rc = machine_reset(m, &ahead);
            break;
        }
        if (rc < 0) {
            end_with_error(sock, m, rc);
        }
    }
}

/* Makes the pages that every request writes exist now, and not while a request waits. */
static void touch_channel(struct machine *m)
{
    static const uint64_t used[] = {UNID_BOOT_ADDR, UNID_CALL_ADDR, UNID_STRINGS_ADDR,
                                    UNID_REQUEST_ADDR, UNID_RESPONSE_ADDR};
    for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); i++) {
        *(volatile uint8_t *)(m->mem + used[i]) = 0;
    }
}

static _Noreturn void monitor_main(const struct vmm_command *c, uint64_t forked_ns)
{
    struct machine m;
    struct vmm_event ready = {.kind = VMM_EVENT_READY, .id = c->id};
    uint64_t t = machine_now_ns();
    ready.phase_ns[VMM_PHASE_FORK] = (uint32_t)(t - forked_ns);
    int rc = machine_create(&m, VMM_FD_KVM, c->mem_bytes, VMM_FD_CHANNEL, ready.phase_ns);
    if (rc < 0) {
        monitor_give_up(c->id, rc, m.step);
    }
    m.fsgsbase = anchor.fsgsbase;
    close(VMM_FD_KVM);
    rc = channel_memory_clear(VMM_FD_CHANNEL, m.mem + UNID_BOOT_ADDR);
    if (rc < 0) {
        monitor_give_up(c->id, rc, "clear the channel");
    }
    close(VMM_FD_CHANNEL);
    touch_channel(&m);
    t = machine_now_ns();
    if (jail_limit_memory(c->mem_bytes) < 0 || jail_seal() < 0) {
        monitor_give_up(c->id, -errno, "enter the jail");
    }
    ready.phase_ns[VMM_PHASE_JAIL] = (uint32_t)(machine_now_ns() - t);
    t = machine_now_ns();
    rc = machine_warm(&m);
    if (rc < 0) {
        monitor_give_up(c->id, rc, m.step);
    }
    ready.phase_ns[VMM_PHASE_WARM] = (uint32_t)(machine_now_ns() - t);
    send_event(&ready);
    close(VMM_FD_CONTROL);
    monitor_serve(VMM_FD_SOCKET, &m);
}

/* --- spawner ---------------------------------------------------------------------------------- */

/* Leaves a new monitor the descriptors that are its own, and none of another's. */
static void keep_own(const int fds[VMM_SPAWN_FDS])
{
    if (dup2(fds[0], VMM_FD_SOCKET) < 0 || dup2(fds[1], VMM_FD_CHANNEL) < 0 ||
        close_from(VMM_FDS) < 0) {
        _exit(1);
    }
}

static void spawn_failed(uint32_t id, int error, const char *step)
{
    struct vmm_event e = {.kind = VMM_EVENT_FAILED, .id = id, .error = error};
    put_step(e.step, sizeof(e.step), step);
    send_event(&e);
    e = (struct vmm_event){.kind = VMM_EVENT_GONE, .id = id};
    send_event(&e);
}

static void spawn(const struct vmm_command *c, const int fds[VMM_SPAWN_FDS])
{
    uint32_t slot = c->id % CHILDREN;
    uint64_t now = machine_now_ns();
    pid_t parent = getpid(), pid = children[slot].pid ? (errno = EEXIST, -1) : fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        if (getppid() != parent) {
            _exit(0);
        }
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        keep_own(fds);
        monitor_main(c, now);
    }
    if (pid < 0) {
        spawn_failed(c->id, -errno, "fork");
        return;
    }
    uint32_t *bucket = &buckets[(uint32_t)pid % BUCKETS];
    children[slot].pid = pid;
    children[slot].id = c->id;
    children[slot].next = *bucket;
    *bucket = slot + 1;
}

/* Takes the child out of the tables; false when `pid` is none of ours. */
static bool forget(pid_t pid, uint32_t *ret_id)
{
    for (uint32_t *at = &buckets[(uint32_t)pid % BUCKETS]; *at; at = &children[*at - 1].next) {
        uint32_t slot = *at - 1;
        if (children[slot].pid == pid) {
            *at = children[slot].next;
            *ret_id = children[slot].id;
            children[slot].pid = 0;
            return true;
        }
    }
    return false;
}

static void reap(void)
{
    struct signalfd_siginfo info;
    if (read(signal_fd, &info, sizeof(info)) < 0 && errno != EAGAIN) {
        return;
    }
    for (;;) {
        int status;
        struct rusage used;
        pid_t pid = wait4(-1, &status, WNOHANG, &used);
        if (pid <= 0) {
            return;
        }
        struct vmm_event e = {.kind = VMM_EVENT_GONE,
                              .wait = status,
                              .cpu_us = (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) *
                                            1000000 +
                                        (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec),
                              .rss_kib = (uint64_t)used.ru_maxrss};
        if (forget(pid, &e.id)) {
            send_event(&e);
        }
    }
}

static void obey(const struct vmm_command *c)
{
    uint32_t slot = c->id % CHILDREN;
    pid_t pid = children[slot].id == c->id ? children[slot].pid : 0;
    if (pid == 0) {
        return;
    }
    /* Not reaped yet, so the number is still its own. */
    if (c->op == VMM_OP_KILL) {
        kill(pid, SIGKILL);
    } else if (c->op == VMM_OP_YIELD) {
        setpriority(PRIO_PROCESS, (id_t)pid, YIELD_NICE);
    }
}

/* Takes one packet of commands. Ends when unid's end closed. */
static void take_commands(void)
{
    enum { FDS_MAX = VMM_COMMANDS_MAX * VMM_SPAWN_FDS };
    struct vmm_command commands[VMM_COMMANDS_MAX];
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control;
    struct iovec io = {.iov_base = commands, .iov_len = sizeof(commands)};
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    int fds[FDS_MAX];
    size_t fd_count = 0, used = 0;
    ssize_t n = recvmsg(VMM_FD_CONTROL, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        _exit(0);
    }
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
        fd_count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(c), fd_count * sizeof(int));
    }
    for (ssize_t i = 0; n > 0 && i < n / (ssize_t)sizeof(commands[0]); i++) {
        if (commands[i].op != VMM_OP_SPAWN) {
            obey(&commands[i]);
        } else if (used + VMM_SPAWN_FDS > fd_count) { /* more than this process may have */
            spawn_failed(commands[i].id, -EMFILE, "take its descriptors");
        } else {
            spawn(&commands[i], fds + used);
            used += VMM_SPAWN_FDS;
        }
    }
    for (size_t i = 0; i < fd_count; i++) {
        close(fds[i]);
    }
}

static _Noreturn void spawner_serve(void)
{
    for (;;) {
        struct pollfd fds[] = {{.fd = VMM_FD_CONTROL, .events = POLLIN},
                               {.fd = signal_fd, .events = POLLIN}};
        if (poll(fds, 2, -1) < 0) {
            continue;
        }
        if (fds[1].revents) {
            reap();
        }
        if (fds[0].revents) {
            take_commands();
        }
    }
}

/* Whether the CPU has WRFSBASE and its kin: Intel SDM vol. 2A, CPUID, leaf 7. */
static bool cpu_has_fsgsbase(void)
{
    unsigned a, b = 0, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1);
}

/* For a KVM that does not tell: guests count as the host does. */
static uint32_t measure_tsc_khz(void)
{
    enum { MEASURE_NS = 10000000 };
    uint64_t begin_ns = machine_now_ns(), begin = __builtin_ia32_rdtsc(), ns;
    do {
        ns = machine_now_ns() - begin_ns;
    } while (ns < MEASURE_NS);
    return (uint32_t)((__builtin_ia32_rdtsc() - begin) * 1000000 / ns);
}

/* A VM that is never used. With the first VM and vCPU of a host KVM turns the CPUs' virtualization
 * on and patches its code, with the last it turns them off; while this one lives, making a shell
 * costs half. */
static int make_anchor(struct vmm_event *hello)
{
    int rc = machine_create(&anchor, VMM_FD_KVM, UNID_IMAGE_MIN, -1, hello->phase_ns);
    if (rc == 0 && cpu_has_fsgsbase()) {
        anchor.fsgsbase = true;
        if (machine_warm(&anchor) == 0) {
            hello->boot_flags |= UNID_BOOT_FSGSBASE;
        } else { /* a KVM that does not let guests have it */
            anchor.fsgsbase = false;
            close(anchor.vcpu);
            close(anchor.vm);
            rc = machine_create(&anchor, VMM_FD_KVM, UNID_IMAGE_MIN, -1, hello->phase_ns);
        }
    }
    if (rc == 0 && !anchor.fsgsbase) {
        rc = machine_warm(&anchor);
    }
    if (rc < 0) {
        put_step(hello->step, sizeof(hello->step), anchor.step);
        return rc;
    }
    int khz = ioctl(anchor.vcpu, KVM_GET_TSC_KHZ, 0);
    hello->tsc_khz = khz > 0 ? (uint32_t)khz : measure_tsc_khz();
    madvise(anchor.mem, anchor.mem_max, MADV_DONTFORK);
    madvise(anchor.run, anchor.run_size, MADV_DONTFORK);
    return 0;
}

static _Noreturn void spawner_main(struct vmm_event *hello)
{
    sigset_t chld;
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_SETMASK, &chld, NULL);
    signal_fd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
    jail_drop(hello->layers);
    hello->boot_flags = UNID_BOOT_FILL | UNID_BOOT_FLUSH;
    hello->layers[VMM_LAYER_SECCOMP] = 0; /* a monitor without it does not become READY */
    if (hello->error == 0) {
        hello->error = signal_fd < 0 ? -errno : make_anchor(hello);
    }
    send_event(hello);
    if (hello->error < 0) {
        _exit(1);
    }
    spawner_serve();
}

/* Ends with the spawner; the exit status says nothing, HELLO said what there was to say. */
static _Noreturn void wait_for(pid_t spawner)
{
    int status;
    close_from(VMM_FD_CONTROL);
    while (waitpid(spawner, &status, 0) < 0 && errno == EINTR) {
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    struct jail_spec spec = {.uid = 65534, .gid = 65534}; /* nobody, nogroup */
    struct vmm_event hello = {.kind = VMM_EVENT_HELLO, .version = VMM_PROTO_VERSION};
    if (argc > 2) {
        spec.uid = (uid_t)strtoul(argv[1], NULL, 10);
        spec.gid = (gid_t)strtoul(argv[2], NULL, 10);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    prctl(PR_SET_NAME, "unid-vmm", 0, 0, 0);
    if (close_from(VMM_FD_CONTROL + 1) < 0) {
        return 1;
    }
    if (open("/dev/kvm", O_RDWR | O_CLOEXEC) != VMM_FD_KVM) { /* the first that is free */
        hello.error = errno ? -errno : -EBADF;
        put_step(hello.step, sizeof(hello.step), "open /dev/kvm");
    }
    /* Held, so that no other descriptor comes to lie where a monitor has its own. */
    for (int fd = VMM_FD_SOCKET; fd < VMM_FDS; fd++) {
        dup2(VMM_FD_KVM, fd);
    }
    jail_enter(&spec, hello.layers);
    /* Setting the user cleared it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        spawner_main(&hello);
    }
    if (pid < 0) {
        hello.error = -errno;
        put_step(hello.step, sizeof(hello.step), "fork");
        send_event(&hello);
        _exit(1);
    }
    wait_for(pid);
}
