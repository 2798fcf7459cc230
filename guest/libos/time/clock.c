/* clock.c - what time it is: the CPU's time-stamp counter, without asking the host.
 *
 * Ticks become nanoseconds by a multiplication and a shift. The clock is based anew at host_next,
 * since a clone of a snapshot may run on a machine that counts from elsewhere: the monotonic clock
 * goes on where it stood, the wall clock is the host's. */
#include "time/time.h"

#include <linux/time.h>

#include "host.h"
#include "mm.h"
#include "sys_core.h"

#define SHIFT 32

static uint64_t tsc_base, monotonic_base, wall_offset, ticks_to_ns, away_ns;

static uint64_t tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

void clock_init(uint64_t tsc_hz)
{
    if (tsc_hz == 0) {
        klog("the host does not know the rate of the time-stamp counter: 1 GHz is assumed");
        tsc_hz = NS_PER_S;
    }
    ticks_to_ns = (NS_PER_S << SHIFT) / tsc_hz;
    tsc_base = tsc();
    monotonic_base = NS_PER_S; /* some programs take 0 for "never" */
}

uint64_t clock_monotonic_ns(void)
{
    unsigned __int128 product = (unsigned __int128)(tsc() - tsc_base) * ticks_to_ns;
    return monotonic_base + (uint64_t)(product >> SHIFT);
}

uint64_t clock_realtime_ns(void)
{
    return clock_monotonic_ns() + wall_offset;
}

uint64_t clock_cpu_ns(void)
{
    return clock_monotonic_ns() - NS_PER_S - away_ns;
}

void clock_note_away(uint64_t ns)
{
    away_ns += ns;
}

void clock_resume(uint64_t monotonic_ns, uint64_t wall_ns)
{
    tsc_base = tsc();
    monotonic_base = monotonic_ns;
    wall_offset = wall_ns - monotonic_ns;
}

uint64_t deadline_in(uint64_t ns)
{
    uint64_t at;
    if (__builtin_add_overflow(clock_monotonic_ns(), ns, &at) || at == NO_DEADLINE) {
        return NO_DEADLINE - 1;
    }
    return at;
}

uint64_t deadline_at(bool realtime, uint64_t ns)
{
    if (realtime) {
        ns = ns > wall_offset ? ns - wall_offset : 0;
    }
    return ns == NO_DEADLINE ? NO_DEADLINE - 1 : ns;
}

int timespec_get(const struct __kernel_timespec *ts, uint64_t *ret_ns)
{
    if (!user_readable(ts, sizeof(*ts))) {
        return -EFAULT;
    }
    if (ts->tv_sec < 0 || (uint64_t)ts->tv_nsec >= NS_PER_S) {
        return -EINVAL;
    }
    if (__builtin_mul_overflow((uint64_t)ts->tv_sec, NS_PER_S, ret_ns) ||
        __builtin_add_overflow(*ret_ns, (uint64_t)ts->tv_nsec, ret_ns)) {
        *ret_ns = NO_DEADLINE - 1;
    }
    return 0;
}

int timespec_put(struct __kernel_timespec *to, uint64_t ns)
{
    if (!user_writable(to, sizeof(*to))) {
        return -EFAULT;
    }
    to->tv_sec = (int64_t)(ns / NS_PER_S);
    to->tv_nsec = (int64_t)(ns % NS_PER_S);
    return 0;
}

/* --- system calls; the first three are on the fast path (sys/entry.S) --------------------------- */

static bool clock_read(int clock, uint64_t *ret_ns)
{
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_TAI:
        host_note_clock();
        *ret_ns = clock_realtime_ns();
        return true;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
        *ret_ns = clock_monotonic_ns();
        return true;
    case CLOCK_PROCESS_CPUTIME_ID:
    case CLOCK_THREAD_CPUTIME_ID:
        *ret_ns = clock_cpu_ns();
        return true;
    default:
        /* CPU-time clocks of a process or thread (clock_getcpuclockid) are negative. */
        *ret_ns = clock_cpu_ns();
        return clock < 0;
    }
}

int64_t sys_clock_gettime(int clock, struct __kernel_timespec *ret)
{
    uint64_t ns;
    return clock_read(clock, &ns) ? timespec_put(ret, ns) : -EINVAL;
}

int64_t sys_gettimeofday(struct __kernel_old_timeval *ret, uint64_t *ret_zone)
{
    uint64_t ns = clock_realtime_ns();
    host_note_clock();
    if (ret) {
        if (!user_writable(ret, sizeof(*ret))) {
            return -EFAULT;
        }
        ret->tv_sec = (int64_t)(ns / NS_PER_S);
        ret->tv_usec = (int64_t)(ns % NS_PER_S / 1000);
    }
    if (ret_zone) {
        if (!user_writable(ret_zone, sizeof(*ret_zone))) {
            return -EFAULT;
        }
        *ret_zone = 0;
    }
    return 0;
}

int64_t sys_time(int64_t *ret)
{
    int64_t s = (int64_t)(clock_realtime_ns() / NS_PER_S);
    host_note_clock();
    if (ret) {
        if (!user_writable(ret, sizeof(*ret))) {
            return -EFAULT;
        }
        *ret = s;
    }
    return s;
}

int64_t sys_clock_getres(int clock, struct __kernel_timespec *ret)
{
    uint64_t ns;
    if (!clock_read(clock, &ns)) {
        return -EINVAL;
    }
    return ret ? timespec_put(ret, 1) : 0;
}

int64_t sys_clock_settime(void)
{
    return -EPERM;
}
