/* poll.c - poll, select, and waiting for several files at once. */
#include "fs/wait.h"
#include "mm.h"
#include "sys_file.h"

#define NS_PER_S 1000000000ull

void pollwait_init(struct pollwait *w, uint64_t deadline_ns)
{
    w->more = NULL;
    w->used = 0;
    w->deadline_ns = deadline_ns;
    w->request = false;
}

int pollwait_queue(struct pollwait *w, struct waitq *q)
{
    size_t room = w->more ? ARRAY_SIZE(w->more->waiters) : POLLWAIT_INLINE;
    if (w->used == room) {
        struct pollwait_more *more = kalloc(sizeof(*more));
        if (!more) {
            return -ENOMEM;
        }
        more->next = w->more;
        w->more = more;
        w->used = 0;
    }
    waitq_add(q, &(w->more ? w->more->waiters : w->waiters)[w->used++]);
    return 0;
}

int pollwait_add(struct pollwait *w, struct file *f)
{
    if (file_is_epoll(f)) {
        return epoll_pollwait_add(w, f);
    }
    if (f->ops->deadline) {
        uint64_t at = f->ops->deadline(f);
        w->deadline_ns = at < w->deadline_ns ? at : w->deadline_ns;
    }
    if (file_wants_request(f)) {
        w->request = true;
    }
    return f->ops->ready ? pollwait_queue(w, &f->ops->ready(f)->q) : 0;
}

int pollwait_block(struct pollwait *w, uint64_t deadline_ns)
{
    request_waiters += w->request;
    int r = task_block(w->deadline_ns);
    request_waiters -= w->request;
    if (r == -ETIMEDOUT && clock_monotonic_ns() < deadline_ns) {
        r = 0;
    }
    return r;
}

static void remove_all(struct waiter *waiters, size_t count)
{
    for (size_t n = 0; n < count; n++) {
        waitq_remove(&waiters[n]);
    }
}

void pollwait_done(struct pollwait *w)
{
    size_t used = w->used;
    while (w->more) {
        struct pollwait_more *more = w->more;
        remove_all(more->waiters, used);
        w->more = more->next;
        used = w->more ? ARRAY_SIZE(more->waiters) : POLLWAIT_INLINE;
        kfree(more);
    }
    remove_all(w->waiters, used);
    w->used = 0;
}

uint32_t file_poll(struct file *f)
{
    return f->ops->poll ? f->ops->poll(f) : POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;
}

bool file_wants_request(struct file *f)
{
    return f->ops->wants_request && f->ops->wants_request(f);
}

int deadline_of_ms(int timeout_ms, uint64_t *ret_ns)
{
    *ret_ns =
        timeout_ms < 0 ? NO_DEADLINE : clock_monotonic_ns() + (uint64_t)timeout_ms * 1000000ull;
    return 0;
}

static uint64_t deadline_in(uint64_t seconds, uint64_t ns)
{
    uint64_t span, at;
    if (__builtin_mul_overflow(seconds, NS_PER_S, &span) ||
        __builtin_add_overflow(span, ns, &span) ||
        __builtin_add_overflow(span, clock_monotonic_ns(), &at)) {
        return NO_DEADLINE;
    }
    return at;
}

int deadline_of_timespec(const struct __kernel_timespec *t, uint64_t *ret_ns)
{
    if (!t) {
        *ret_ns = NO_DEADLINE;
        return 0;
    }
    if (!user_readable(t, sizeof(*t))) {
        return -EFAULT;
    }
    if (t->tv_sec < 0 || t->tv_nsec < 0 || (uint64_t)t->tv_nsec >= NS_PER_S) {
        return -EINVAL;
    }
    *ret_ns = deadline_in((uint64_t)t->tv_sec, (uint64_t)t->tv_nsec);
    return 0;
}

/* What remains, as Linux writes it back. */
static void write_remaining(struct __kernel_timespec *t, uint64_t deadline_ns)
{
    if (t && user_writable(t, sizeof(*t)) && deadline_ns != NO_DEADLINE) {
        uint64_t now = clock_monotonic_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
        t->tv_sec = (int64_t)(left / NS_PER_S);
        t->tv_nsec = (int64_t)(left % NS_PER_S);
    }
}

static int64_t scan_poll(struct pollfd *fds, uint32_t count)
{
    int64_t ready = 0;
    for (uint32_t n = 0; n < count; n++) {
        fds[n].revents = 0;
        if (fds[n].fd < 0) {
            continue;
        }
        struct file *f = fd_get(fds[n].fd);
        uint32_t wanted = (uint32_t)(uint16_t)fds[n].events | POLLERR | POLLHUP;
        uint32_t mask = f ? file_poll(f) & wanted : POLLNVAL;
        fds[n].revents = (short)mask;
        ready += mask != 0;
    }
    return ready;
}

static int64_t do_poll(struct pollfd *fds, uint32_t count, uint64_t deadline_ns)
{
    if (count > FD_MAX) {
        return -EINVAL;
    }
    if (!user_writable(fds, (uint64_t)count * sizeof(*fds))) {
        return -EFAULT;
    }
    while (true) {
        int64_t ready = scan_poll(fds, count);
        if (ready || clock_monotonic_ns() >= deadline_ns) {
            return ready;
        }
        struct pollwait w;
        pollwait_init(&w, deadline_ns);
        int r = 0;
        for (uint32_t n = 0; n < count && r == 0; n++) {
            struct file *f = fd_get(fds[n].fd);
            r = f ? pollwait_add(&w, f) : 0;
        }
        if (r == 0) {
            r = pollwait_block(&w, deadline_ns);
        }
        pollwait_done(&w);
        if (r == -ETIMEDOUT) {
            return scan_poll(fds, count);
        }
        if (r < 0) {
            return r;
        }
    }
}

int64_t sys_poll(struct pollfd *fds, uint32_t count, int timeout_ms)
{
    uint64_t deadline;
    deadline_of_ms(timeout_ms, &deadline);
    return do_poll(fds, count, timeout_ms == 0 ? 0 : deadline);
}

int64_t sys_ppoll(struct pollfd *fds, uint32_t count, struct __kernel_timespec *timeout,
                  const uint64_t *sigmask, size_t sigset_size)
{
    uint64_t deadline;
    int r = deadline_of_timespec(timeout, &deadline);
    if (r == 0) {
        r = signal_mask_for_call(sigmask, sigset_size);
    }
    if (r < 0) {
        return r;
    }
    int64_t ready = do_poll(fds, count, deadline);
    write_remaining(timeout, deadline);
    return ready;
}

/* The three sets of select: what is asked (the program's) and what holds. */
struct select_sets {
    int count;
    size_t words;
    uint64_t *asked[3];
    uint64_t result[3][FD_MAX / 64];
};
static const uint32_t select_bits[3] = {
    POLLIN | POLLRDNORM | POLLHUP | POLLERR,
    POLLOUT | POLLWRNORM | POLLERR,
    POLLPRI,
};

static uint32_t asked_of(const struct select_sets *s, int fd)
{
    uint32_t bits = 0;
    for (int n = 0; n < 3; n++) {
        if (s->asked[n] && (s->asked[n][fd / 64] >> (fd % 64) & 1)) {
            bits |= select_bits[n];
        }
    }
    return bits;
}

static int64_t scan_select(struct select_sets *s)
{
    int64_t ready = 0;
    for (int n = 0; n < 3; n++) {
        memset(s->result[n], 0, s->words * sizeof(uint64_t));
    }
    for (int fd = 0; fd < s->count; fd++) {
        if (!asked_of(s, fd)) {
            continue;
        }
        struct file *f = fd_get(fd);
        if (!f) {
            return -EBADF;
        }
        uint32_t mask = file_poll(f);
        for (int n = 0; n < 3; n++) {
            if (s->asked[n] && (s->asked[n][fd / 64] >> (fd % 64) & 1) && (mask & select_bits[n])) {
                s->result[n][fd / 64] |= 1ull << (fd % 64);
                ready++;
            }
        }
    }
    return ready;
}

static int block_select(const struct select_sets *s, uint64_t deadline_ns)
{
    struct pollwait w;
    pollwait_init(&w, deadline_ns);
    int r = 0;
    for (int fd = 0; fd < s->count && r == 0; fd++) {
        struct file *f = asked_of(s, fd) ? fd_get(fd) : NULL;
        r = f ? pollwait_add(&w, f) : 0;
    }
    if (r == 0) {
        r = pollwait_block(&w, deadline_ns);
    }
    pollwait_done(&w);
    return r;
}

static int64_t do_select(int count, uint64_t *sets[3], uint64_t deadline_ns)
{
    if (count < 0) {
        return -EINVAL;
    }
    struct select_sets *s = kalloc(sizeof(*s));
    if (!s) {
        return -ENOMEM;
    }
    s->count = count < FD_MAX ? count : FD_MAX;
    s->words = ((size_t)s->count + 63) / 64;
    int64_t ready = 0;
    for (int n = 0; n < 3; n++) {
        s->asked[n] = sets[n];
        if (sets[n] && !user_writable(sets[n], s->words * sizeof(uint64_t))) {
            ready = -EFAULT;
        }
    }
    while (ready == 0) {
        ready = scan_select(s);
        if (ready || clock_monotonic_ns() >= deadline_ns) {
            break;
        }
        int r = block_select(s, deadline_ns);
        if (r < 0 && r != -ETIMEDOUT) {
            ready = r;
        }
    }
    for (int n = 0; n < 3 && ready >= 0; n++) {
        if (sets[n]) {
            memcpy(sets[n], s->result[n], s->words * sizeof(uint64_t));
        }
    }
    kfree(s);
    return ready;
}

int64_t sys_select(int count, uint64_t *read, uint64_t *write, uint64_t *except,
                   struct __kernel_old_timeval *timeout)
{
    uint64_t deadline = NO_DEADLINE, *sets[3] = {read, write, except};
    if (timeout) {
        if (!user_readable(timeout, sizeof(*timeout))) {
            return -EFAULT;
        }
        if (timeout->tv_sec < 0 || timeout->tv_usec < 0) {
            return -EINVAL;
        }
        deadline = deadline_in((uint64_t)timeout->tv_sec + (uint64_t)timeout->tv_usec / 1000000,
                               (uint64_t)timeout->tv_usec % 1000000 * 1000);
    }
    int64_t ready = do_select(count, sets, deadline);
    if (timeout && user_writable(timeout, sizeof(*timeout)) && deadline != NO_DEADLINE) {
        uint64_t now = clock_monotonic_ns(), left = deadline > now ? deadline - now : 0;
        timeout->tv_sec = (int64_t)(left / NS_PER_S);
        timeout->tv_usec = (int64_t)(left % NS_PER_S / 1000);
    }
    return ready;
}

int64_t sys_pselect6(int count, uint64_t *read, uint64_t *write, uint64_t *except,
                     struct __kernel_timespec *timeout, const void *sigmask)
{
    struct {
        const uint64_t *mask;
        size_t size;
    } const *mask = sigmask;
    uint64_t deadline, *sets[3] = {read, write, except};
    int r = deadline_of_timespec(timeout, &deadline);
    if (r == 0 && mask) {
        r = user_readable(mask, sizeof(*mask)) ? signal_mask_for_call(mask->mask, mask->size)
                                               : -EFAULT;
    }
    if (r < 0) {
        return r;
    }
    int64_t ready = do_select(count, sets, deadline);
    write_remaining(timeout, deadline);
    return ready;
}
