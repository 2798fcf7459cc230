/* signalfd.c - files from which pending signals are read. */
#include <linux/signalfd.h>

#include "fs/wait.h"
#include "mm.h"
#include "sys_file.h"

#define UNREADABLE (1ull << (9 - 1) | 1ull << (19 - 1)) /* SIGKILL, SIGSTOP */

struct signalfd {
    uint64_t mask;
};

static uint64_t mask_of(const struct file *f)
{
    return ((const struct signalfd *)f->priv)->mask;
}

static void tell(struct signalfd_siginfo *to, const struct signal_info *info)
{
    *to = (struct signalfd_siginfo){.ssi_signo = (uint32_t)info->signo,
                                    .ssi_errno = info->error,
                                    .ssi_code = info->code,
                                    .ssi_pid = (uint32_t)info->pid,
                                    .ssi_uid = info->uid,
                                    .ssi_int = (int32_t)info->value,
                                    .ssi_ptr = info->value};
    if (info->code == -2) { /* SI_TIMER: the same bytes mean something else */
        to->ssi_pid = to->ssi_uid = 0;
        to->ssi_tid = (uint32_t)info->timer_id;
        to->ssi_overrun = (uint32_t)info->overrun;
    }
}

static int64_t signalfd_read(struct file *f, void *to, size_t len, uint64_t *pos)
{
    (void)pos;
    struct signalfd_siginfo *entry = to;
    size_t count = len / sizeof(*entry), done = 0;
    struct signal_info info;
    if (!count) {
        return -EINVAL;
    }
    while (!(signals_waiting() & mask_of(f))) {
        int r = file_nonblocking(f) ? -EAGAIN : readiness_wait(signals_ready());
        if (r < 0) {
            return r;
        }
    }
    while (done < count && signal_take(mask_of(f), &info)) {
        tell(&entry[done++], &info);
    }
    return (int64_t)(done * sizeof(*entry));
}

static uint32_t signalfd_poll(struct file *f)
{
    return signals_waiting() & mask_of(f) ? POLLIN | POLLRDNORM : 0;
}

static struct readiness *signalfd_readiness(struct file *f)
{
    (void)f;
    return signals_ready();
}

static const struct file_ops signalfd_ops = {
    .name = "anon_inode:[signalfd]",
    .read = signalfd_read,
    .poll = signalfd_poll,
    .ready = signalfd_readiness,
    .release = file_free_priv,
};

static int64_t change(int fd, uint64_t mask)
{
    struct file *f = fd_get(fd);
    if (!f || f->ops != &signalfd_ops) {
        return f ? -EINVAL : -EBADF;
    }
    ((struct signalfd *)f->priv)->mask = mask;
    readiness_changed(signals_ready());
    return fd;
}

int64_t sys_signalfd4(int fd, const uint64_t *mask, size_t size, int flags)
{
    if (flags & ~(SFD_CLOEXEC | SFD_NONBLOCK) || size != sizeof(*mask)) {
        return -EINVAL;
    }
    if (!user_readable(mask, sizeof(*mask))) {
        return -EFAULT;
    }
    if (fd != -1) {
        return change(fd, *mask & ~UNREADABLE);
    }
    struct signalfd *s = kalloc(sizeof(*s));
    if (!s) {
        return -ENOMEM;
    }
    s->mask = *mask & ~UNREADABLE;
    return fd_install_anonymous(&signalfd_ops, s, (uint32_t)flags);
}

int64_t sys_signalfd(int fd, const uint64_t *mask, size_t size)
{
    return sys_signalfd4(fd, mask, size, 0);
}
