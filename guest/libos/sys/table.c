/* table.c - from a system call's number to its function, and what is done around each call.
 *
 * Every name is referred to weakly: defining `sys_NAME` anywhere is all it takes. Without one the
 * answer is ENOSYS, and the call is counted for the receipt. Calls that programs probe for and do
 * well without are answered by ENOSYS uncounted (`quiet`). */
#include <asm/unistd.h>

#include "host.h"
#include "sys/table.h"
#include "task/task_internal.h"

typedef int64_t syscall_fn(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f);

#define CALL(name) extern char sys_##name[] __attribute__((weak));
#include "sys/calls.h"
#undef CALL

/* The functions have arguments of their own types, which the ABI passes alike; so their addresses
 * are all that is known of them here. */
#define CALL(name) [__NR_##name] = sys_##name,
static const void *const calls[SYSCALLS] = {
#include "sys/calls.h"
};
#undef CALL

#define FAST(name) [__NR_##name] = sys_##name
extern const void *const fast_calls[FAST_CALLS];
const void *const fast_calls[FAST_CALLS] = {
    FAST(getpid),  FAST(gettid),        FAST(getuid),       FAST(geteuid), FAST(getgid),
    FAST(getegid), FAST(clock_gettime), FAST(gettimeofday), FAST(time),    FAST(getppid),
};

static bool quiet(uint64_t nr)
{
    switch (nr) {
    case __NR_rseq: /* a hint to the scheduler of several CPUs */
    case __NR_clone3:
    case __NR_statx:
    case __NR_faccessat2:
    case __NR_io_uring_setup:
    case __NR_openat2:
    case __NR_epoll_pwait2:
    case __NR_pkey_alloc: /* many CPUs have none */
        return true;
    default:
        return false;
    }
}

static int64_t unsupported(uint64_t nr)
{
    if (!quiet(nr)) {
        host_report_unsupported((uint32_t)nr);
    }
    return -ENOSYS;
}

#ifdef LIBOS_TRACE /* a line of the log for each call: for developers, make LIBOS_TRACE=-DLIBOS_TRACE */
static const char *const names[SYSCALLS] = {
#define CALL(name) [__NR_##name] = #name,
#include "sys/calls.h"
#undef CALL
};

static void trace(const struct regs *r, uint64_t nr, uint64_t begun)
{
    uint64_t now = clock_monotonic_ns();
    klog("%lu [%d] %s(%lx, %lx, %lx, %lx) = %ld, %lu us", begun / 1000, current->tid,
         nr < SYSCALLS && names[nr] ? names[nr] : "?", r->rdi, r->rsi, r->rdx, r->r10,
         (int64_t)r->rax, (now - begun) / 1000);
}
#endif

void syscall_dispatch(struct regs *r);
void syscall_dispatch(struct regs *r)
{
    uint64_t nr = r->nr;
    syscall_fn *fn = nr < SYSCALLS ? (syscall_fn *)calls[nr] : NULL;
    host_report_call(nr);
#ifdef LIBOS_TRACE
    uint64_t begun = clock_monotonic_ns();
#endif
    if (fn) {
        r->rax = (uint64_t)fn(r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9);
    } else if (nr == HOOK_CALL) {
        program_hooked(r);
    } else {
        r->rax = (uint64_t)unsupported(nr);
    }
#ifdef LIBOS_TRACE
    trace(r, nr, begun);
#endif
    if (timers_next() != NO_DEADLINE) {
        timers_run();
    }
    if (!list_empty(&runnable)) {
        sched_slice();
    }
    if (signal_pending() || current->mask_is_for_call) {
        signal_deliver(r);
    }
}
