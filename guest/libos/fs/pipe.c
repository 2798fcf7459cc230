/* pipe.c - pipes, and fifos: pipes with a name. */
#include <asm/ioctls.h>
#include <asm/signal.h>

#include "fs/pipe.h"
#include "mm.h"
#include "sys_file.h"

#define PIPE_ATOMIC 4096 /* PIPE_BUF */

struct pipe {
    struct readiness ready;
    struct ring ring;
    uint32_t readers, writers;
    uint32_t opened_read, opened_write; /* so often: fifo_open waits for a change */
    bool named;                         /* belongs to an inode */
};

static bool can_read(const struct file *f)
{
    return (f->flags & O_ACCMODE) != O_WRONLY;
}

static bool can_write(const struct file *f)
{
    return (f->flags & O_ACCMODE) != O_RDONLY;
}

int64_t pipe_peek(struct file *f, void *to, size_t len, bool wait)
{
    struct pipe *p = f->priv;
    while (!p->ring.len) {
        if (!p->writers) {
            return 0;
        }
        if (!wait) {
            return -EAGAIN;
        }
        int r = readiness_wait(&p->ready);
        if (r < 0) {
            return r;
        }
    }
    return (int64_t)ring_read(&p->ring, to, len, true);
}

void pipe_skip(struct file *f, size_t len)
{
    struct pipe *p = f->priv;
    ring_skip(&p->ring, len);
    readiness_changed(&p->ready);
}

static int64_t pipe_read(struct file *f, void *to, size_t len, uint64_t *pos)
{
    (void)pos;
    if (!len) {
        return 0;
    }
    int64_t n = pipe_peek(f, to, len, !file_nonblocking(f));
    if (n > 0) {
        pipe_skip(f, (size_t)n);
    }
    return n;
}

static int64_t write_all(struct file *f, const void *from, size_t len, bool wait)
{
    struct pipe *p = f->priv;
    size_t done = 0;
    while (done < len || !len) {
        if (!p->readers) {
            signal_raise(SIGPIPE);
            return done ? (int64_t)done : -EPIPE;
        }
        if (!len) {
            break;
        }
        size_t room = ring_room(&p->ring);
        bool whole = len > PIPE_ATOMIC || room >= len;
        size_t n = whole ? ring_write(&p->ring, (const char *)from + done, len - done) : 0;
        if (n) {
            done += n;
            readiness_changed(&p->ready);
            continue;
        }
        if (!wait) {
            return done ? (int64_t)done : -EAGAIN;
        }
        if (whole && room) {
            return done ? (int64_t)done : -ENOMEM;
        }
        int r = readiness_wait(&p->ready);
        if (r < 0) {
            return done ? (int64_t)done : r;
        }
    }
    return (int64_t)done;
}

static int64_t pipe_write(struct file *f, const void *from, size_t len, uint64_t *pos)
{
    (void)pos;
    return write_all(f, from, len, !file_nonblocking(f));
}

int64_t pipe_put(struct file *f, const void *from, size_t len)
{
    return write_all(f, from, len, true);
}

int64_t pipe_wait_room(struct file *f, bool wait)
{
    struct pipe *p = f->priv;
    while (p->readers && !ring_room(&p->ring)) {
        int r = wait ? readiness_wait(&p->ready) : -EAGAIN;
        if (r < 0) {
            return r;
        }
    }
    if (!p->readers) {
        signal_raise(SIGPIPE);
        return -EPIPE;
    }
    return (int64_t)ring_room(&p->ring);
}

static uint32_t pipe_poll(struct file *f)
{
    struct pipe *p = f->priv;
    uint32_t mask = 0;
    if (can_read(f)) {
        mask |= p->ring.len ? POLLIN | POLLRDNORM : 0;
        mask |= !p->writers && (!p->named || p->opened_write) ? POLLHUP : 0;
    }
    if (can_write(f)) {
        mask |= ring_room(&p->ring) >= PIPE_ATOMIC ? POLLOUT | POLLWRNORM : 0;
        mask |= !p->readers ? POLLERR : 0;
    }
    return mask;
}

static struct readiness *pipe_readiness(struct file *f)
{
    return &((struct pipe *)f->priv)->ready;
}

static int64_t pipe_ioctl(struct file *f, uint32_t request, uint64_t arg)
{
    struct pipe *p = f->priv;
    int *ret = (int *)(uintptr_t)arg;
    if (request != FIONREAD) {
        return -ENOTTY;
    }
    if (!user_writable(ret, sizeof(*ret))) {
        return -EFAULT;
    }
    *ret = (int)p->ring.len;
    return 0;
}

static int pipe_stat(struct file *f, struct stat *ret)
{
    if (f->inode) {
        inode_stat(f->inode, ret);
    } else {
        ret->st_mode = S_IFIFO | 0600;
        ret->st_ino = (uintptr_t)f->priv >> 4;
    }
    return 0;
}

static void pipe_release(struct file *f)
{
    struct pipe *p = f->priv;
    p->readers -= can_read(f);
    p->writers -= can_write(f);
    readiness_changed(&p->ready);
    if (!p->readers && !p->writers) {
        ring_free(&p->ring);
        if (!p->named) {
            kfree(p);
        }
    }
}

static const struct file_ops pipe_ops = {
    .name = "pipe",
    .read = pipe_read,
    .write = pipe_write,
    .poll = pipe_poll,
    .ready = pipe_readiness,
    .ioctl = pipe_ioctl,
    .stat = pipe_stat,
    .release = pipe_release,
};

bool file_is_pipe(const struct file *f)
{
    return f->ops == &pipe_ops;
}

bool pipe_same(const struct file *a, const struct file *b)
{
    return a->priv == b->priv;
}

static struct file *pipe_end(struct pipe *p, struct inode *inode, uint32_t flags)
{
    struct file *f = file_new(&pipe_ops, inode, flags, p);
    if (f) {
        p->readers += can_read(f);
        p->writers += can_write(f);
        p->opened_read += can_read(f);
        p->opened_write += can_write(f);
    }
    return f;
}

int64_t sys_pipe2(int *ret_fds, int flags)
{
    if (flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT)) {
        return -EINVAL;
    }
    if (!user_writable(ret_fds, 2 * sizeof(*ret_fds))) {
        return -EFAULT;
    }
    uint32_t keep = (uint32_t)flags & O_NONBLOCK;
    struct pipe *p = kalloc(sizeof(*p));
    if (!p) {
        return -ENOMEM;
    }
    readiness_init(&p->ready);
    struct file *from = pipe_end(p, NULL, O_RDONLY | keep);
    if (!from) {
        kfree(p);
        return -ENOMEM;
    }
    struct file *to = pipe_end(p, NULL, O_WRONLY | keep);
    if (!to) {
        file_unref(from);
        return -ENOMEM;
    }
    int read_fd = fd_install_flags(from, (uint32_t)flags);
    if (read_fd < 0) {
        file_unref(to);
        return read_fd;
    }
    int write_fd = fd_install_flags(to, (uint32_t)flags);
    if (write_fd < 0) {
        fd_close(read_fd);
        return write_fd;
    }
    ret_fds[0] = read_fd;
    ret_fds[1] = write_fd;
    return 0;
}

int64_t sys_pipe(int *ret_fds)
{
    return sys_pipe2(ret_fds, 0);
}

/* Waits until the other side was opened. */
static int fifo_wait(struct pipe *p, const uint32_t *side, const uint32_t *opened)
{
    uint32_t before = *opened;
    while (!*side && *opened == before) {
        int r = readiness_wait(&p->ready);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int fifo_open(struct inode *i, uint32_t flags, struct file **ret)
{
    struct pipe *p = i->n.arg;
    if (!p) {
        p = kalloc(sizeof(*p));
        if (!p) {
            return -ENOMEM;
        }
        readiness_init(&p->ready);
        p->named = true;
        i->n.arg = p;
    }
    if ((flags & O_ACCMODE) == O_WRONLY && (flags & O_NONBLOCK) && !p->readers) {
        return -ENXIO;
    }
    struct file *f = pipe_end(p, i, flags);
    if (!f) {
        return -ENOMEM;
    }
    readiness_changed(&p->ready);
    int r = 0;
    if ((flags & O_ACCMODE) == O_WRONLY) {
        r = fifo_wait(p, &p->readers, &p->opened_read);
    } else if ((flags & O_ACCMODE) == O_RDONLY && !(flags & O_NONBLOCK)) {
        r = fifo_wait(p, &p->writers, &p->opened_write);
    }
    if (r < 0) {
        file_unref(f);
        return r;
    }
    *ret = f;
    return 0;
}

void fifo_forget(struct inode *i)
{
    kfree(i->n.arg);
}
