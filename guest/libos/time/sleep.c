/* sleep.c - the system calls that let time pass, and timers that send signals. */
#include <linux/time.h>

#include "task/task_internal.h"

#include "host.h"
#include "mm.h"
#include "sys_core.h"
#include "time/time.h"

#define SIG_ALRM     14
#define POSIX_TIMERS 16

/* --- sleeping --------------------------------------------------------------------------------- */

static int64_t sleep_until(uint64_t deadline, struct __kernel_timespec *remaining)
{
    int r;
    do {
        r = task_block(deadline);
    } while (r == 0);
    if (r == -ETIMEDOUT) {
        return 0;
    }
    uint64_t now = clock_monotonic_ns();
    if (remaining && timespec_put(remaining, deadline > now ? deadline - now : 0) < 0) {
        return -EFAULT;
    }
    return -EINTR;
}

int64_t sys_nanosleep(const struct __kernel_timespec *time, struct __kernel_timespec *remaining)
{
    uint64_t ns;
    int r = timespec_get(time, &ns);
    return r < 0 ? r : sleep_until(deadline_in(ns), remaining);
}

int64_t sys_clock_nanosleep(int clock, int flags, const struct __kernel_timespec *time,
                            struct __kernel_timespec *remaining)
{
    uint64_t ns;
    int r = timespec_get(time, &ns);
    if (r < 0) {
        return r;
    }
    if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC && clock != CLOCK_BOOTTIME &&
        clock != CLOCK_TAI) {
        return clock == CLOCK_PROCESS_CPUTIME_ID ? -EOPNOTSUPP : -EINVAL;
    }
    if (flags & TIMER_ABSTIME) {
        bool realtime = clock == CLOCK_REALTIME || clock == CLOCK_TAI;
        return sleep_until(deadline_at(realtime, ns), NULL);
    }
    return sleep_until(deadline_in(ns), remaining);
}

int64_t sys_pause(void)
{
    while (task_block(NO_DEADLINE) != -EINTR) {
    }
    return -EINTR;
}

/* --- setitimer -------------------------------------------------------------------------------- */

struct interval {
    struct timer timer;
    uint64_t period_ns;
    int clock; /* CLOCK_REALTIME, CLOCK_MONOTONIC, or CLOCK_PROCESS_CPUTIME_ID for the CPU's time */
    uint64_t due_cpu_ns; /* by that; no sooner than `timer` */
    int signal;
    int32_t id; /* timer_create's, or -1 */
    uint64_t value;
    struct task *to; /* NULL: the process */
};

static struct interval itimers[3];
static struct interval *posix_timers[POSIX_TIMERS];

static bool of_cpu(const struct interval *i)
{
    return i->clock == CLOCK_PROCESS_CPUTIME_ID;
}

static uint64_t now_of(const struct interval *i)
{
    if (i->clock == CLOCK_REALTIME) {
        host_note_clock();
        return clock_realtime_ns();
    }
    return of_cpu(i) ? clock_cpu_ns() : clock_monotonic_ns();
}

/* `first_ns` from now; 0: never. */
static void interval_arm(struct interval *i, uint64_t first_ns)
{
    if (__builtin_add_overflow(clock_cpu_ns(), first_ns, &i->due_cpu_ns)) {
        i->due_cpu_ns = NO_DEADLINE;
    }
    timer_arm(&i->timer, first_ns ? deadline_in(first_ns) : NO_DEADLINE);
}

static uint64_t remaining(const struct interval *i)
{
    uint64_t at = of_cpu(i) ? i->due_cpu_ns : i->timer.at_ns;
    uint64_t now = of_cpu(i) ? clock_cpu_ns() : clock_monotonic_ns();
    if (i->timer.at_ns == NO_DEADLINE) {
        return 0;
    }
    return at > now ? at - now : 1;
}

static void interval_fire(struct timer *t)
{
    struct interval *i = container_of(t, struct interval, timer);
    uint64_t cpu = clock_cpu_ns();
    if (of_cpu(i) && cpu < i->due_cpu_ns) { /* it has waited meanwhile */
        timer_arm(t, deadline_in(i->due_cpu_ns - cpu));
        return;
    }
    if (i->period_ns > 0) { /* counted from now: what was missed is missed */
        interval_arm(i, i->period_ns);
    }
    if (i->signal == 0) {
        return;
    }
    if (i->id >= 0) {
        struct signal_info info = {.signo = i->signal, .code = SI_TIMER, .timer_id = i->id};
        info.timer_value = i->value;
        signal_send(i->to && task_by_tid(i->to->tid) == i->to ? i->to : NULL, i->signal, &info);
    } else {
        signal_send(NULL, i->signal, NULL);
    }
}

static void interval_init(struct interval *i, int signal, int clock)
{
    timer_init(&i->timer, interval_fire);
    i->clock = clock;
    i->signal = signal;
    i->id = -1;
}

void itimers_init(void)
{
    static const int signals[3] = {SIG_ALRM, 26, 27}; /* SIGVTALRM, SIGPROF */
    for (int n = 0; n < 3; n++) {
        interval_init(&itimers[n], signals[n],
                      n == ITIMER_REAL ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID);
    }
}

void itimers_reset(void)
{
    for (int n = 0; n < 3; n++) {
        timer_disarm(&itimers[n].timer);
    }
    for (int id = 0; id < POSIX_TIMERS; id++) {
        if (posix_timers[id]) {
            timer_disarm(&posix_timers[id]->timer);
            kfree(posix_timers[id]);
            posix_timers[id] = NULL;
        }
    }
}

static void put_timeval(struct __kernel_old_timeval *to, uint64_t ns)
{
    to->tv_sec = (int64_t)(ns / NS_PER_S);
    to->tv_usec = (int64_t)(ns % NS_PER_S / 1000);
}

static int64_t get_timeval(const struct __kernel_old_timeval *tv, uint64_t *ret_ns)
{
    if (tv->tv_sec < 0 || (uint64_t)tv->tv_usec >= 1000000) {
        return -EINVAL;
    }
    if (__builtin_mul_overflow((uint64_t)tv->tv_sec, NS_PER_S, ret_ns) ||
        __builtin_add_overflow(*ret_ns, (uint64_t)tv->tv_usec * 1000, ret_ns)) {
        *ret_ns = NO_DEADLINE / 2;
    }
    return 0;
}

int64_t sys_getitimer(int which, struct __kernel_old_timeval ret[2])
{
    if (which < 0 || which > 2) {
        return -EINVAL;
    }
    if (!user_writable(ret, 2 * sizeof(*ret))) {
        return -EFAULT;
    }
    put_timeval(&ret[0], itimers[which].period_ns);
    put_timeval(&ret[1], remaining(&itimers[which]));
    return 0;
}

static void interval_set(struct interval *i, uint64_t first_ns, uint64_t period_ns)
{
    i->period_ns = period_ns;
    interval_arm(i, first_ns);
}

int64_t sys_setitimer(int which, const struct __kernel_old_timeval value[2],
                      struct __kernel_old_timeval ret_old[2])
{
    uint64_t period = 0, first = 0;
    if (which < 0 || which > 2) {
        return -EINVAL;
    }
    if (value) {
        if (!user_readable(value, 2 * sizeof(*value))) {
            return -EFAULT;
        }
        if (get_timeval(&value[0], &period) < 0 || get_timeval(&value[1], &first) < 0) {
            return -EINVAL;
        }
    }
    if (ret_old) {
        int64_t r = sys_getitimer(which, ret_old);
        if (r < 0) {
            return r;
        }
    }
    interval_set(&itimers[which], first, period);
    return 0;
}

int64_t sys_alarm(uint32_t seconds)
{
    uint64_t left = remaining(&itimers[0]);
    interval_set(&itimers[0], seconds * NS_PER_S, 0);
    return (int64_t)((left + NS_PER_S - 1) / NS_PER_S);
}

/* --- timer_create ----------------------------------------------------------------------------- */

struct signal_event { /* struct sigevent of the x86-64 ABI */
    uint64_t value;
    int32_t signo, notify, tid, pad[11];
};

static struct interval *timer_of(int32_t id)
{
    return id >= 0 && id < POSIX_TIMERS ? posix_timers[id] : NULL;
}

/* The clock that a timer goes by; negative: there is none. Those of processes and threads are negative. */
static int timed_by(int clock)
{
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_TAI:
    case CLOCK_REALTIME_ALARM:
        return CLOCK_REALTIME;
    case CLOCK_MONOTONIC:
    case CLOCK_BOOTTIME:
    case CLOCK_BOOTTIME_ALARM:
        return CLOCK_MONOTONIC;
    default:
        return clock < 0 || clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID
                   ? CLOCK_PROCESS_CPUTIME_ID
                   : -1;
    }
}

int64_t sys_timer_create(int clock, const struct signal_event *event, int32_t *ret_id)
{
    int kind = timed_by(clock);
    if (kind < 0) {
        return -EINVAL;
    }
    if (!user_writable(ret_id, 4) || (event && !user_readable(event, sizeof(*event)))) {
        return -EFAULT;
    }
    int32_t id = 0;
    while (id < POSIX_TIMERS && posix_timers[id]) {
        id++;
    }
    struct interval *i = id < POSIX_TIMERS ? kalloc(sizeof(*i)) : NULL;
    if (!i) {
        return -EAGAIN;
    }
    interval_init(i, SIG_ALRM, kind);
    i->id = id;
    i->value = (uint64_t)id;
    if (event) {
        bool none = event->notify & SIGEV_NONE;
        i->signal = none ? 0 : event->signo;
        i->value = event->value;
        i->to = event->notify & SIGEV_THREAD_ID ? task_by_tid(event->tid) : NULL;
        if (!none && (event->signo < 1 || event->signo > SIGNALS)) {
            kfree(i);
            return -EINVAL;
        }
    }
    posix_timers[id] = i;
    *ret_id = id;
    return 0;
}

int64_t sys_timer_gettime(int32_t id, struct __kernel_timespec ret[2])
{
    const struct interval *i = timer_of(id);
    if (!i) {
        return -EINVAL;
    }
    int r = timespec_put(&ret[0], i->period_ns);
    return r < 0 ? r : timespec_put(&ret[1], remaining(i));
}

int64_t sys_timer_settime(int32_t id, int flags, const struct __kernel_timespec value[2],
                          struct __kernel_timespec ret_old[2])
{
    struct interval *i = timer_of(id);
    uint64_t period, first;
    if (!i) {
        return -EINVAL;
    }
    int r = timespec_get(&value[0], &period);
    r = r < 0 ? r : timespec_get(&value[1], &first);
    if (r < 0) {
        return r;
    }
    if (ret_old && (r = (int)sys_timer_gettime(id, ret_old)) < 0) {
        return r;
    }
    if (flags & TIMER_ABSTIME && first) {
        uint64_t now = now_of(i);
        first = first > now ? first - now : 1;
    }
    interval_set(i, first, period);
    return 0;
}

int64_t sys_timer_getoverrun(int32_t id)
{
    return timer_of(id) ? 0 : -EINVAL;
}

int64_t sys_timer_delete(int32_t id)
{
    struct interval *i = timer_of(id);
    if (!i) {
        return -EINVAL;
    }
    timer_disarm(&i->timer);
    posix_timers[id] = NULL;
    kfree(i);
    return 0;
}
