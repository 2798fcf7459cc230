/* jail.c - see jail.h. Sources: user_namespaces(7), pivot_root(2) ("pivot_root(".", ".")"),
 * capabilities(7), seccomp(2). */
#include "hypervisor/kvm/jail.h"

#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/userns.h"

/* Address space of a monitor beside guest memory: its program, stack and kvm_run come to 1 MiB. */
#define OWN_SPACE (UINT64_C(16) << 20)

static rlim_t cpu_hard = RLIM_INFINITY; /* as it was at the start */

static uint16_t failed(int rc)
{
    return rc < 0 ? (uint16_t)errno : 0;
}

static uint16_t enter_user_namespace(void)
{
    return (uint16_t)-un_userns_enter();
}

static int become(const struct jail_spec *spec)
{
    if (setgroups(0, NULL) < 0 || setresgid(spec->gid, spec->gid, spec->gid) < 0 ||
        setresuid(spec->uid, spec->uid, spec->uid) < 0) {
        return -1;
    }
    /* Changing the uid made /proc/self root's own; the maps below are written there. */
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

/* Whether the unprivileged user may make a user namespace; tried, because several settings and
 * security modules forbid it each in its own way. */
static int trial(const struct jail_spec *spec)
{
    pid_t pid = fork();
    if (pid == 0) {
        _exit(become(spec) < 0 ? errno : enter_user_namespace());
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) < 0) {
        return errno;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : EPERM;
}

static int empty_root(void)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,mode=555") < 0 ||
        chdir("/tmp") < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
        umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) {
        return -1;
    }
    return mount(NULL, "/", NULL,
                 MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

void jail_enter(const struct jail_spec *spec, uint16_t layers[VMM_LAYERS])
{
    static const struct {
        enum vmm_layer layer;
        int flag;
    } spaces[] = {
        {VMM_LAYER_MOUNT_NS, CLONE_NEWNS},      {VMM_LAYER_NET_NS, CLONE_NEWNET},
        {VMM_LAYER_IPC_NS, CLONE_NEWIPC},       {VMM_LAYER_UTS_NS, CLONE_NEWUTS},
        {VMM_LAYER_CGROUP_NS, CLONE_NEWCGROUP}, {VMM_LAYER_PID_NS, CLONE_NEWPID},
    };
    bool root = geteuid() == 0, early = true;
    layers[VMM_LAYER_UID] = EPERM; /* only root can become somebody else */
    layers[VMM_LAYER_USER_NS] = 0;
    if (root) {
        int why = trial(spec);
        early = why == 0;
        layers[VMM_LAYER_USER_NS] = (uint16_t)why;
    }
    if (root && early) {
        layers[VMM_LAYER_UID] = failed(become(spec));
    }
    if (early) {
        layers[VMM_LAYER_USER_NS] = enter_user_namespace();
    }
    for (size_t i = 0; i < UN_ARRAY_SIZE(spaces); i++) {
        layers[spaces[i].layer] = failed(unshare(spaces[i].flag));
    }
    layers[VMM_LAYER_ROOT] =
        layers[VMM_LAYER_MOUNT_NS] ? layers[VMM_LAYER_MOUNT_NS] : failed(empty_root());
    if (root && !early) {
        layers[VMM_LAYER_UID] = failed(become(spec));
    }
}

static int drop_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};
    for (int cap = 0; cap <= CAP_LAST_CAP; cap++) {
        prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); /* fails without CAP_SETPCAP: then there are none */
    }
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return (int)syscall(SYS_capset, &head, none);
}

static int limit(__rlimit_resource_t what, rlim_t soft, rlim_t hard)
{
    struct rlimit l = {.rlim_cur = soft, .rlim_max = hard};
    return setrlimit(what, &l);
}

/* A monitor has three descriptors and cannot make more. The spawner gets two with each SPAWN, and has
 * them until it has forked. */
static int limit_files(void)
{
    const rlim_t wanted = 4096;
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) < 0) {
        return -1;
    }
    rlim_t most = l.rlim_max < wanted ? l.rlim_max : wanted;
    return limit(RLIMIT_NOFILE, most, most);
}

void jail_drop(uint16_t layers[VMM_LAYERS])
{
    layers[VMM_LAYER_CAPS] = failed(drop_capabilities());
    layers[VMM_LAYER_NO_NEW_PRIVS] = failed(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    struct rlimit cpu;
    if (getrlimit(RLIMIT_CPU, &cpu) == 0) {
        cpu_hard = cpu.rlim_max;
    }
    int rc = limit(RLIMIT_CORE, 0, 0);
    rc = rc < 0 ? rc : limit_files();
    rc = rc < 0 ? rc : limit(RLIMIT_FSIZE, VMM_CHANNEL_SIZE, VMM_CHANNEL_SIZE);
    rc = rc < 0 ? rc : limit(RLIMIT_MEMLOCK, 0, 0);
    rc = rc < 0 ? rc : limit(RLIMIT_MSGQUEUE, 0, 0);
    layers[VMM_LAYER_RLIMITS] = failed(rc);
}

int jail_limit_memory(uint64_t bytes)
{
    return limit(RLIMIT_AS, bytes + OWN_SPACE, bytes + OWN_SPACE);
}

int jail_limit_cpu(uint64_t us)
{
    if (us == 0) {
        return limit(RLIMIT_CPU, cpu_hard, cpu_hard);
    }
    struct rusage used;
    if (getrusage(RUSAGE_SELF, &used) < 0) {
        return -1;
    }
    uint64_t seconds =
        us / 1000000 + 2 + (uint64_t)used.ru_utime.tv_sec + (uint64_t)used.ru_stime.tv_sec;
    return limit(RLIMIT_CPU, seconds < cpu_hard ? seconds : cpu_hard, cpu_hard);
}

/* --- the filter ------------------------------------------------------------------------------- */

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ALLOW       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define KILL        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
/* Goes on behind the next statement unless the loaded word is `value`. */
#define IF(value)      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, 1)
#define IF_BITS(value) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (value), 0, 1)
/* Skips `count` statements unless the loaded word is `value`. */
#define IF_SKIP(value, count) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (count))

/* What of a 64-bit argument is looked at is its low half: the kernel takes these as 32-bit values
 * (ioctl's request, madvise's advice, prlimit's resource), or no bit above means anything
 * (prot). */
#define ARG(n) args[n]

int jail_seal(void)
{
    /* clang-format off */
    struct sock_filter code[] = {
        LOAD(arch), IF(AUDIT_ARCH_X86_64), BPF_STMT(BPF_JMP | BPF_JA, 1), KILL,
        LOAD(nr),
        IF_SKIP(SYS_ioctl, 24), LOAD(ARG(1)),
        IF(KVM_RUN), ALLOW,
        IF(KVM_SET_REGS), ALLOW,
        IF(KVM_SET_SREGS), ALLOW,
        IF(KVM_SET_XSAVE), ALLOW,
        IF(KVM_SET_VCPU_EVENTS), ALLOW,
        IF(KVM_SET_DEBUGREGS), ALLOW,
        IF(KVM_GET_REGS), ALLOW,
        IF(KVM_GET_SREGS), ALLOW,
        IF(KVM_GET_XSAVE), ALLOW,
        IF(KVM_SET_USER_MEMORY_REGION), ALLOW,
        IF(KVM_GET_DIRTY_LOG), ALLOW,
        KILL,
        IF(SYS_sendto), ALLOW,
        IF(SYS_recvmsg), ALLOW,
        IF(SYS_getrusage), ALLOW,
        IF(SYS_clock_gettime), ALLOW,
        IF(SYS_close), ALLOW,
        IF(SYS_sendmsg), ALLOW,
        IF(SYS_pread64), ALLOW,
        IF(SYS_exit_group), ALLOW,
        IF_SKIP(SYS_mmap, 4), LOAD(ARG(2)), IF_BITS(PROT_EXEC), KILL, ALLOW,
        IF_SKIP(SYS_mprotect, 4), LOAD(ARG(2)), IF_BITS(PROT_EXEC), KILL, ALLOW,
        IF_SKIP(SYS_madvise, 6), LOAD(ARG(2)), IF(MADV_DONTNEED), ALLOW,
        IF(MADV_POPULATE_WRITE), ALLOW, KILL,
        IF_SKIP(SYS_prlimit64, 6), LOAD(ARG(0)), IF_SKIP(0, 3), LOAD(ARG(1)),
        IF(RLIMIT_CPU), ALLOW, KILL,
        KILL,
    };
    /* clang-format on */
    struct sock_fprog program = {.len = UN_ARRAY_SIZE(code), .filter = code};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}
