/* info.c - who and where the program is: identity, limits, the system's name, CPUs, use of resources. */
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/sched/types.h>
#include <linux/sysinfo.h>
#include <linux/times.h>
#include <linux/utsname.h>

#include "asm/prctl.h"
#include "file.h"
#include "host.h"
#include "mm.h"
#include "sys/info.h"
#include "sys_core.h"
#include "task/task_internal.h"
#include "time/time.h"

/* --- identity: everything is root's ------------------------------------------------------------- */

#define ALWAYS(name, value)                                                                        \
    int64_t sys_##name(void);                                                                      \
    int64_t sys_##name(void)                                                                       \
    {                                                                                              \
        return value;                                                                              \
    }

ALWAYS(getuid, 0)
ALWAYS(geteuid, 0)
ALWAYS(getgid, 0)
ALWAYS(getegid, 0)
ALWAYS(getppid, 0)
ALWAYS(getpgrp, 1)
ALWAYS(getsid, 1)
ALWAYS(setsid, -EPERM) /* the process leads its session */
ALWAYS(setpgid, 0)
ALWAYS(setuid, 0)
ALWAYS(setgid, 0)
ALWAYS(setreuid, 0)
ALWAYS(setregid, 0)
ALWAYS(setresuid, 0)
ALWAYS(setresgid, 0)
ALWAYS(setfsuid, 0)
ALWAYS(setfsgid, 0)
ALWAYS(setgroups, 0)
ALWAYS(getgroups, 0)
ALWAYS(getpriority, 20) /* the raw call gives 20 - nice */
ALWAYS(setpriority, 0)
ALWAYS(sched_setaffinity, 0)
ALWAYS(sched_setscheduler, 0)
ALWAYS(sched_setparam, 0)
ALWAYS(sched_getscheduler, 0)
ALWAYS(sched_get_priority_max, 0)
ALWAYS(sched_get_priority_min, 0)
ALWAYS(wait4, -ECHILD) /* there are no children */
ALWAYS(waitid, -ECHILD)
ALWAYS(capset, -EPERM)
ALWAYS(sethostname, -EPERM)
ALWAYS(setdomainname, -EPERM)
ALWAYS(personality, 0)
ALWAYS(ioprio_set, 0)
ALWAYS(ioprio_get, 0)
ALWAYS(get_mempolicy, -EPERM)
ALWAYS(mbind, -EPERM)
ALWAYS(set_mempolicy, -EPERM)
ALWAYS(reboot, -EPERM)
ALWAYS(syslog, -EPERM)

int64_t sys_getpgid(int pid)
{
    return pid == 0 || pid == process_pid() ? 1 : -ESRCH;
}

static int64_t three_ids(uint32_t *a, uint32_t *b, uint32_t *c)
{
    if (!user_writable(a, 4) || !user_writable(b, 4) || !user_writable(c, 4)) {
        return -EFAULT;
    }
    *a = *b = *c = 0;
    return 0;
}

int64_t sys_getresuid(uint32_t *real, uint32_t *effective, uint32_t *saved)
{
    return three_ids(real, effective, saved);
}

int64_t sys_getresgid(uint32_t *real, uint32_t *effective, uint32_t *saved)
{
    return three_ids(real, effective, saved);
}

int64_t sys_capget(struct __user_cap_header_struct *header, struct __user_cap_data_struct *data)
{
    if (!user_writable(header, sizeof(*header))) {
        return -EFAULT;
    }
    bool known = header->version == _LINUX_CAPABILITY_VERSION_3;
    header->version = _LINUX_CAPABILITY_VERSION_3;
    if (!known || !data) {
        return known || !data ? 0 : -EINVAL;
    }
    if (!user_writable(data, 2 * sizeof(*data))) {
        return -EFAULT;
    }
    memset(data, 0, 2 * sizeof(*data));
    return 0;
}

/* --- the system ---------------------------------------------------------------------------------- */

int64_t sys_uname(struct new_utsname *ret)
{
    if (!user_writable(ret, sizeof(*ret))) {
        return -EFAULT;
    }
    *ret = (struct new_utsname){.sysname = "Linux",
                                .nodename = HOST_NAME,
                                .release = LINUX_RELEASE,
                                .version = "#1 unid",
                                .machine = "x86_64",
                                .domainname = "(none)"};
    return 0;
}

int64_t sys_sysinfo(struct sysinfo *ret)
{
    if (!user_writable(ret, sizeof(*ret))) {
        return -EFAULT;
    }
    memset(ret, 0, sizeof(*ret));
    ret->uptime = (long)(clock_monotonic_ns() / NS_PER_S);
    ret->totalram = frames_total() * PAGE_SIZE;
    ret->freeram = frames_free() * PAGE_SIZE;
    ret->procs = (uint16_t)task_count;
    ret->mem_unit = 1;
    return 0;
}

int64_t sys_getcpu(uint32_t *ret_cpu, uint32_t *ret_node)
{
    if ((ret_cpu && !user_writable(ret_cpu, 4)) || (ret_node && !user_writable(ret_node, 4))) {
        return -EFAULT;
    }
    if (ret_cpu) {
        *ret_cpu = 0;
    }
    if (ret_node) {
        *ret_node = 0;
    }
    return 0;
}

int64_t sys_sched_getaffinity(int tid, size_t size, uint64_t *ret)
{
    if (size < 8 || size & 7) {
        return -EINVAL;
    }
    if (tid != 0 && !task_by_tid(tid)) {
        return -ESRCH;
    }
    if (!user_writable(ret, 8)) {
        return -EFAULT;
    }
    *ret = 1;
    return 8;
}

int64_t sys_sched_getparam(int tid, int *ret)
{
    (void)tid;
    if (!user_writable(ret, 4)) {
        return -EFAULT;
    }
    *ret = 0;
    return 0;
}

int64_t sys_sched_rr_get_interval(int tid, struct __kernel_timespec *ret)
{
    (void)tid;
    return timespec_put(ret, 10000000);
}

/* --- limits and use -------------------------------------------------------------------------------- */

uint64_t stack_limit(void)
{
    uint64_t bytes = page_down(frames_total() * PAGE_SIZE / 16);
    return bytes < 1ull << 20 ? 1ull << 20 : bytes > 8ull << 20 ? 8ull << 20 : bytes;
}

static uint64_t limit_of(uint32_t resource)
{
    switch (resource) {
    case RLIMIT_STACK:
        return stack_limit();
    case RLIMIT_NOFILE:
        return FD_MAX;
    case RLIMIT_CORE:
    case RLIMIT_MSGQUEUE:
    case RLIMIT_NICE:
    case RLIMIT_RTPRIO:
        return 0;
    case RLIMIT_NPROC:
    case RLIMIT_SIGPENDING:
        return 1024;
    default:
        return RLIM64_INFINITY;
    }
}

/* Limits can be set, and are not: what holds is the machine's memory and time. */
int64_t sys_prlimit64(int pid, uint32_t resource, const struct rlimit64 *new_limit,
                      struct rlimit64 *ret_old)
{
    if (resource >= RLIM_NLIMITS) {
        return -EINVAL;
    }
    if (pid != 0 && pid != process_pid()) {
        return -ESRCH;
    }
    if ((new_limit && !user_readable(new_limit, sizeof(*new_limit))) ||
        (ret_old && !user_writable(ret_old, sizeof(*ret_old)))) {
        return -EFAULT;
    }
    if (new_limit && new_limit->rlim_cur > new_limit->rlim_max) {
        return -EINVAL;
    }
    if (ret_old) {
        ret_old->rlim_cur = ret_old->rlim_max = limit_of(resource);
    }
    return 0;
}

int64_t sys_getrlimit(uint32_t resource, struct rlimit64 *ret)
{
    return ret ? sys_prlimit64(0, resource, NULL, ret) : -EFAULT;
}

int64_t sys_setrlimit(uint32_t resource, const struct rlimit64 *limit)
{
    return limit ? sys_prlimit64(0, resource, limit, NULL) : -EFAULT;
}

int64_t sys_getrusage(int who, struct rusage *ret)
{
    if (who < -1 || who > 1) { /* RUSAGE_CHILDREN to RUSAGE_THREAD */
        return -EINVAL;
    }
    if (!user_writable(ret, sizeof(*ret))) {
        return -EFAULT;
    }
    memset(ret, 0, sizeof(*ret));
    ret->ru_utime.tv_sec = (int64_t)(clock_cpu_ns() / NS_PER_S);
    ret->ru_utime.tv_usec = (int64_t)(clock_cpu_ns() % NS_PER_S / 1000);
    ret->ru_maxrss = (long)((frames_total() - frames_free()) * PAGE_SIZE / 1024);
    return 0;
}

int64_t sys_times(struct tms *ret)
{
    if (ret) {
        if (!user_writable(ret, sizeof(*ret))) {
            return -EFAULT;
        }
        memset(ret, 0, sizeof(*ret));
        ret->tms_utime = (long)(clock_cpu_ns() / 10000000);
    }
    return (int64_t)(clock_monotonic_ns() / 10000000);
}

/* --- prctl, arch_prctl ----------------------------------------------------------------------------- */

int64_t sys_prctl(int option, uint64_t a)
{
    switch (option) {
    case PR_SET_NAME: {
        int64_t len = user_strlen((const char *)a, sizeof(current->name));
        if (len == -EFAULT) {
            return len;
        }
        len = len < 0 || len > 15 ? 15 : len;
        memset(current->name, 0, sizeof(current->name));
        memcpy(current->name, (const char *)a, (size_t)len);
        return 0;
    }
    case PR_GET_NAME:
        if (!user_writable((void *)a, sizeof(current->name))) {
            return -EFAULT;
        }
        memcpy((void *)a, current->name, sizeof(current->name));
        return 0;
    case PR_GET_DUMPABLE:
    case PR_GET_KEEPCAPS:
    case PR_GET_NO_NEW_PRIVS:
    case PR_SET_PDEATHSIG:
    case PR_SET_DUMPABLE:
    case PR_SET_KEEPCAPS:
    case PR_SET_NO_NEW_PRIVS:
    case PR_SET_CHILD_SUBREAPER:
    case PR_SET_TIMERSLACK:
    case PR_SET_VMA:
    case PR_SET_THP_DISABLE:
        return 0;
    default:
        return -EINVAL;
    }
}

int64_t sys_arch_prctl(int option, uint64_t addr)
{
    uint64_t v;
    switch (option) {
    case ARCH_SET_FS:
    case ARCH_SET_GS:
        if (addr >= 1ull << 47) {
            return -EPERM;
        }
        if (option == ARCH_SET_FS) {
            __asm__ volatile("wrfsbase %0" : : "r"(addr));
        } else {
            __asm__ volatile("wrgsbase %0" : : "r"(addr));
        }
        return 0;
    case ARCH_GET_FS:
    case ARCH_GET_GS:
        if (!user_writable((void *)addr, 8)) {
            return -EFAULT;
        }
        if (option == ARCH_GET_FS) {
            __asm__ volatile("rdfsbase %0" : "=r"(v));
        } else {
            __asm__ volatile("rdgsbase %0" : "=r"(v));
        }
        *(uint64_t *)addr = v;
        return 0;
    default:
        return -EINVAL;
    }
}
