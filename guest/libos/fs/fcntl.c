/* fcntl.c - what is done to descriptors: flags, duplicates, ioctl. */
#include <asm/ioctls.h>

#include "fs/pipe.h"
#include "fs/vfs.h"
#include "mm.h"
#include "sys_file.h"

#define SETTABLE ((uint32_t)(O_APPEND | O_NONBLOCK | FASYNC | O_DIRECT | O_NOATIME))

static int64_t duplicate(struct file *f, uint64_t least, bool cloexec)
{
    if (least >= FD_MAX) {
        return -EINVAL;
    }
    int fd = fd_install(file_ref(f), (int)least, cloexec);
    if (fd < 0) {
        file_unref(f);
    }
    return fd;
}

static int64_t pipe_size(const struct file *f, int command, uint64_t arg)
{
    if (!file_is_pipe(f)) {
        return -EBADF;
    }
    return command == F_SETPIPE_SZ && arg > RING_SIZE ? -EPERM : (int64_t)RING_SIZE;
}

int64_t sys_fcntl(int fd, int command, uint64_t arg)
{
    struct file *f = fd_get(fd);
    if (!f) {
        return -EBADF;
    }
    switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        return duplicate(f, arg, command == F_DUPFD_CLOEXEC);
    case F_GETFD:
        return fd_cloexec(fd) ? FD_CLOEXEC : 0;
    case F_SETFD:
        fd_set_cloexec(fd, arg & FD_CLOEXEC);
        return 0;
    case F_GETFL:
        return f->flags;
    case F_SETFL:
        if (f->flags & O_PATH) {
            return -EBADF;
        }
        f->flags = (f->flags & ~SETTABLE) | ((uint32_t)arg & SETTABLE);
        return 0;
    case F_GETLK:
    case F_SETLK:
    case F_SETLKW:
    case F_OFD_GETLK:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
        return f->flags & O_PATH ? -EBADF
                                 : file_lock_record(f, command, (struct flock *)(uintptr_t)arg);
    case F_SETOWN:
    case F_GETOWN:
        return 0; /* no signal ever comes by FASYNC: nothing changes unasked */
    case F_GETPIPE_SZ:
    case F_SETPIPE_SZ:
        return pipe_size(f, command, arg);
    default:
        return -EINVAL;
    }
}

int64_t sys_dup(int fd)
{
    struct file *f = fd_get(fd);
    return f ? duplicate(f, 0, false) : -EBADF;
}

int64_t sys_dup3(int from, int to, int flags)
{
    if (from == to || (flags & ~O_CLOEXEC)) {
        return -EINVAL;
    }
    struct file *f = fd_get(from);
    if (!f) {
        return -EBADF;
    }
    int fd = fd_install_at(file_ref(f), to, flags & O_CLOEXEC);
    if (fd < 0) {
        file_unref(f);
    }
    return fd;
}

int64_t sys_dup2(int from, int to)
{
    if (from == to) {
        return fd_get(from) ? to : -EBADF;
    }
    return sys_dup3(from, to, 0);
}

static int64_t set_flag(struct file *f, uint32_t flag, const int *value)
{
    if (!user_readable(value, sizeof(*value))) {
        return -EFAULT;
    }
    f->flags = *value ? f->flags | flag : f->flags & ~flag;
    return 0;
}

int64_t sys_ioctl(int fd, uint32_t request, uint64_t arg)
{
    struct file *f = fd_get(fd);
    if (!f || (f->flags & O_PATH)) {
        return -EBADF;
    }
    int *value = (int *)(uintptr_t)arg;
    switch (request) {
    case FIOCLEX:
    case FIONCLEX:
        fd_set_cloexec(fd, request == FIOCLEX);
        return 0;
    case FIONBIO:
        return set_flag(f, O_NONBLOCK, value);
    case FIOASYNC:
        return set_flag(f, FASYNC, value);
    case FIONREAD:
        if (!file_is_regular(f)) {
            break;
        }
        if (!user_writable(value, sizeof(*value))) {
            return -EFAULT;
        }
        *value = f->inode->size > f->pos ? (int)(f->inode->size - f->pos) : 0;
        return 0;
    default:
        break;
    }
    return f->ops->ioctl ? f->ops->ioctl(f, request, arg) : -ENOTTY;
}
