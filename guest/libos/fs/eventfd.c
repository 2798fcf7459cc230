/* eventfd.c - counters that can be waited for. */
#include "fs/wait.h"
#include "mm.h"
#include "sys_file.h"

#define COUNT_MAX     (UINT64_MAX - 1)
#define EFD_SEMAPHORE 1 /* eventfd(2); the other flags are open's */

struct eventfd {
    struct readiness ready;
    uint64_t count;
    bool semaphore;
};

static int64_t eventfd_read(struct file *f, void *to, size_t len, uint64_t *pos)
{
    (void)pos;
    struct eventfd *e = f->priv;
    if (len < sizeof(e->count)) {
        return -EINVAL;
    }
    while (!e->count) {
        int r = file_nonblocking(f) ? -EAGAIN : readiness_wait(&e->ready);
        if (r < 0) {
            return r;
        }
    }
    uint64_t value = e->semaphore ? 1 : e->count;
    e->count -= value;
    memcpy(to, &value, sizeof(value));
    readiness_changed(&e->ready);
    return sizeof(value);
}

static int64_t eventfd_write(struct file *f, const void *from, size_t len, uint64_t *pos)
{
    (void)pos;
    struct eventfd *e = f->priv;
    uint64_t value;
    if (len < sizeof(value)) {
        return -EINVAL;
    }
    memcpy(&value, from, sizeof(value));
    if (value == UINT64_MAX) {
        return -EINVAL;
    }
    while (value > COUNT_MAX - e->count) {
        int r = file_nonblocking(f) ? -EAGAIN : readiness_wait(&e->ready);
        if (r < 0) {
            return r;
        }
    }
    e->count += value;
    readiness_changed(&e->ready);
    return sizeof(value);
}

static uint32_t eventfd_poll(struct file *f)
{
    struct eventfd *e = f->priv;
    return (e->count ? POLLIN | POLLRDNORM : 0) | (e->count < COUNT_MAX ? POLLOUT | POLLWRNORM : 0);
}

static struct readiness *eventfd_readiness(struct file *f)
{
    return &((struct eventfd *)f->priv)->ready;
}

static const struct file_ops eventfd_ops = {
    .name = "anon_inode:[eventfd]",
    .read = eventfd_read,
    .write = eventfd_write,
    .poll = eventfd_poll,
    .ready = eventfd_readiness,
    .release = file_free_priv,
};

int64_t sys_eventfd2(uint32_t initial, int flags)
{
    if (flags & ~(O_CLOEXEC | O_NONBLOCK | EFD_SEMAPHORE)) {
        return -EINVAL;
    }
    struct eventfd *e = kalloc(sizeof(*e));
    if (!e) {
        return -ENOMEM;
    }
    readiness_init(&e->ready);
    e->count = initial;
    e->semaphore = flags & EFD_SEMAPHORE;
    return fd_install_anonymous(&eventfd_ops, e, (uint32_t)flags);
}

int64_t sys_eventfd(uint32_t initial)
{
    return sys_eventfd2(initial, 0);
}
