/* timerfd.c - timers that can be waited for. They have no timer of the kernel's: how often one went
 * off follows from the clock, and who waits has its deadline from here. */
#include <linux/time.h>
#include <linux/timerfd.h>

#include "fs/wait.h"
#include "mm.h"
#include "sys_file.h"

#define NS_PER_S 1000000000ull

struct timerfd {
    struct readiness ready;
    uint64_t at_ns; /* CLOCK_MONOTONIC, of the next time; NO_DEADLINE: not armed */
    uint64_t interval_ns;
    int clock;
};

static bool went_off(const struct timerfd *t)
{
    return t->at_ns != NO_DEADLINE && clock_monotonic_ns() >= t->at_ns;
}

static int64_t timerfd_read(struct file *f, void *to, size_t len, uint64_t *pos)
{
    (void)pos;
    struct timerfd *t = f->priv;
    uint64_t times = 1;
    if (len < sizeof(times)) {
        return -EINVAL;
    }
    while (!went_off(t)) {
        int r = file_nonblocking(f) ? -EAGAIN : waitq_wait(&t->ready.q, t->at_ns);
        if (r < 0 && r != -ETIMEDOUT) {
            return r;
        }
    }
    if (t->interval_ns) {
        times += (clock_monotonic_ns() - t->at_ns) / t->interval_ns;
        t->at_ns += times * t->interval_ns;
    } else {
        t->at_ns = NO_DEADLINE;
    }
    memcpy(to, &times, sizeof(times));
    readiness_changed(&t->ready);
    return sizeof(times);
}

static uint32_t timerfd_poll(struct file *f)
{
    struct timerfd *t = f->priv;
    return went_off(t) ? POLLIN | POLLRDNORM : 0;
}

static struct readiness *timerfd_readiness(struct file *f)
{
    return &((struct timerfd *)f->priv)->ready;
}

static uint64_t timerfd_deadline(struct file *f)
{
    return ((struct timerfd *)f->priv)->at_ns;
}

static const struct file_ops timerfd_ops = {
    .name = "anon_inode:[timerfd]",
    .read = timerfd_read,
    .poll = timerfd_poll,
    .ready = timerfd_readiness,
    .deadline = timerfd_deadline,
    .release = file_free_priv,
};

int64_t sys_timerfd_create(int clock, int flags)
{
    if ((flags & ~(TFD_CLOEXEC | TFD_NONBLOCK)) ||
        (clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME && clock != CLOCK_BOOTTIME)) {
        return -EINVAL;
    }
    struct timerfd *t = kalloc(sizeof(*t));
    if (!t) {
        return -ENOMEM;
    }
    readiness_init(&t->ready);
    t->at_ns = NO_DEADLINE;
    t->clock = clock;
    return fd_install_anonymous(&timerfd_ops, t, (uint32_t)flags);
}

static int timer_of_fd(int fd, struct timerfd **ret)
{
    struct file *f = fd_get(fd);
    if (!f) {
        return -EBADF;
    }
    if (f->ops != &timerfd_ops) {
        return -EINVAL;
    }
    *ret = f->priv;
    return 0;
}

static void put_span(struct __kernel_timespec *to, uint64_t ns)
{
    to->tv_sec = (int64_t)(ns / NS_PER_S);
    to->tv_nsec = (int64_t)(ns % NS_PER_S);
}

/* Interval and what is left, as struct itimerspec has them. */
static void put_timer(struct __kernel_timespec *to, const struct timerfd *t)
{
    uint64_t now = clock_monotonic_ns(), left = 0;
    if (t->at_ns != NO_DEADLINE) {
        left = t->at_ns > now   ? t->at_ns - now
               : t->interval_ns ? t->interval_ns - (now - t->at_ns) % t->interval_ns
                                : 0;
    }
    put_span(&to[0], t->interval_ns);
    put_span(&to[1], left);
}

static int get_span(const struct __kernel_timespec *from, uint64_t *ret_ns)
{
    if (from->tv_sec < 0 || from->tv_nsec < 0 || (uint64_t)from->tv_nsec >= NS_PER_S) {
        return -EINVAL;
    }
    if (__builtin_mul_overflow((uint64_t)from->tv_sec, NS_PER_S, ret_ns) ||
        __builtin_add_overflow(*ret_ns, (uint64_t)from->tv_nsec, ret_ns)) {
        *ret_ns = NO_DEADLINE;
    }
    return 0;
}

int64_t sys_timerfd_settime(int fd, int flags, const struct __kernel_timespec *value,
                            struct __kernel_timespec *ret_old)
{
    struct timerfd *t = NULL;
    if (!user_readable(value, 2 * sizeof(*value)) ||
        (ret_old && !user_writable(ret_old, 2 * sizeof(*ret_old)))) {
        return -EFAULT;
    }
    uint64_t interval, first;
    int r = flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET) ? -EINVAL : timer_of_fd(fd, &t);
    if (r < 0 || (r = get_span(&value[0], &interval)) < 0 ||
        (r = get_span(&value[1], &first)) < 0) {
        return r;
    }
    if (ret_old) {
        put_timer(ret_old, t);
    }
    uint64_t now = clock_monotonic_ns();
    if (!first) {
        t->at_ns = NO_DEADLINE;
    } else if (!(flags & TFD_TIMER_ABSTIME)) {
        t->at_ns = first < NO_DEADLINE - now ? now + first : NO_DEADLINE;
    } else if (t->clock == CLOCK_REALTIME) {
        uint64_t wall = clock_realtime_ns();
        t->at_ns = first == NO_DEADLINE ? first : first > wall ? now + (first - wall) : now;
    } else {
        t->at_ns = first;
    }
    t->interval_ns = interval;
    readiness_changed(&t->ready);
    return 0;
}

int64_t sys_timerfd_gettime(int fd, struct __kernel_timespec *ret_value)
{
    struct timerfd *t = NULL;
    int r = timer_of_fd(fd, &t);
    if (r < 0) {
        return r;
    }
    if (!user_writable(ret_value, 2 * sizeof(*ret_value))) {
        return -EFAULT;
    }
    put_timer(ret_value, t);
    return 0;
}
