/* splice.c - splice, tee and vmsplice: bytes between a pipe and another file. They are copied. */
#include <linux/uio.h>

#include "fs/pipe.h"
#include "mm.h"
#include "sys_file.h"

/* fcntl.h's values are for the C library only. */
enum { SPLICE_MOVE = 1, SPLICE_NONBLOCK = 2, SPLICE_MORE = 4, SPLICE_GIFT = 8 };
#define SPLICE_ALL (SPLICE_MOVE | SPLICE_NONBLOCK | SPLICE_MORE | SPLICE_GIFT)

/* One end of a splice and its place, if it has one. */
struct end {
    struct file *file; /* referenced */
    uint64_t *pos;
    bool pipe;
};

static bool end_blocks(const struct end *e, uint32_t flags)
{
    return !(flags & SPLICE_NONBLOCK) && !file_nonblocking(e->file);
}

/* What is in a pipe goes to `out`; it leaves the pipe when it has arrived. */
static int64_t splice_from_pipe(struct end *in, struct end *out, void *buf, size_t len,
                                uint32_t flags)
{
    if (out->pipe) {
        int64_t room = pipe_wait_room(out->file, end_blocks(out, flags));
        if (room < 0) {
            return room;
        }
        len = len < (size_t)room ? len : (size_t)room;
    }
    int64_t n = pipe_peek(in->file, buf, len, end_blocks(in, flags));
    if (n > 0) {
        n = out->file->ops->write(out->file, buf, (size_t)n, out->pos);
    }
    if (n > 0) {
        pipe_skip(in->file, (size_t)n);
    }
    return n;
}

/* Not more is taken from `in` than the pipe has room for. */
static int64_t splice_to_pipe(struct end *in, struct end *out, void *buf, size_t len,
                              uint32_t flags)
{
    int64_t room = pipe_wait_room(out->file, end_blocks(out, flags));
    if (room < 0) {
        return room;
    }
    len = len < (size_t)room ? len : (size_t)room;
    int64_t n = in->file->ops->read(in->file, buf, len, in->pos);
    return n > 0 ? pipe_put(out->file, buf, (size_t)n) : n;
}

/* Where to read or write, out of the program's argument. -EFAULT, -EINVAL, -ESPIPE. */
static int end_place(struct end *e, int64_t *offset, uint64_t *own)
{
    e->pipe = file_is_pipe(e->file);
    e->pos = &e->file->pos;
    if (!offset) {
        return 0;
    }
    if (!e->file->ops->seekable) {
        return -ESPIPE;
    }
    if (!user_writable(offset, sizeof(*offset))) {
        return -EFAULT;
    }
    *own = (uint64_t)*offset;
    e->pos = own;
    return *offset < 0 ? -EINVAL : 0;
}

static int64_t splice_ends(struct end *in, struct end *out, size_t len, uint32_t flags)
{
    if ((!in->pipe && !out->pipe) || !in->file->ops->read || !out->file->ops->write ||
        (out->file->flags & O_APPEND) ||
        (in->pipe && out->pipe && pipe_same(in->file, out->file))) {
        return -EINVAL;
    }
    if (!len) {
        return 0;
    }
    len = len < RING_SIZE ? len : RING_SIZE;
    void *buf = kalloc(len);
    if (!buf) {
        return -ENOMEM;
    }
    int64_t r = in->pipe ? splice_from_pipe(in, out, buf, len, flags)
                         : splice_to_pipe(in, out, buf, len, flags);
    kfree(buf);
    return r;
}

int64_t sys_splice(int in_fd, int64_t *in_offset, int out_fd, int64_t *out_offset, size_t len,
                   uint32_t flags)
{
    struct end in = {0}, out = {0};
    uint64_t in_pos = 0, out_pos = 0;
    if (flags & ~(uint32_t)SPLICE_ALL) {
        return -EINVAL;
    }
    int64_t r = fd_get_for_read(in_fd, &in.file);
    if (r == 0) {
        r = fd_get_for_write(out_fd, &out.file);
    }
    if (r == 0) {
        r = end_place(&in, in_offset, &in_pos);
    }
    if (r == 0) {
        r = end_place(&out, out_offset, &out_pos);
    }
    if (r == 0) {
        r = splice_ends(&in, &out, len, flags);
    }
    if (r > 0 && in_offset) {
        *in_offset = (int64_t)in_pos;
    }
    if (r > 0 && out_offset) {
        *out_offset = (int64_t)out_pos;
    }
    file_unref(in.file);
    file_unref(out.file);
    return r;
}

static int64_t tee_files(struct file *in, struct file *out, size_t len, bool blocks)
{
    if (!file_is_pipe(in) || !file_is_pipe(out) || pipe_same(in, out)) {
        return -EINVAL;
    }
    int64_t room = len ? pipe_wait_room(out, blocks) : 0;
    if (room <= 0) {
        return room;
    }
    len = len < (size_t)room ? len : (size_t)room;
    void *buf = kalloc(len);
    if (!buf) {
        return -ENOMEM;
    }
    int64_t n = pipe_peek(in, buf, len, blocks);
    n = n > 0 ? pipe_put(out, buf, (size_t)n) : n;
    kfree(buf);
    return n;
}

int64_t sys_tee(int in_fd, int out_fd, size_t len, uint32_t flags)
{
    struct file *in = NULL, *out = NULL;
    if (flags & ~(uint32_t)SPLICE_ALL) {
        return -EINVAL;
    }
    int64_t r = fd_get_for_read(in_fd, &in);
    if (r == 0) {
        r = fd_get_for_write(out_fd, &out);
    }
    if (r == 0) {
        r = tee_files(in, out, len, !(flags & SPLICE_NONBLOCK));
    }
    file_unref(in);
    file_unref(out);
    return r;
}

/* Pages are not given to the pipe, and need not stay as they are. */
int64_t sys_vmsplice(int fd, const struct iovec *iov, size_t count, uint32_t flags)
{
    struct file *f = fd_get(fd);
    if (flags & ~(uint32_t)SPLICE_ALL) {
        return -EINVAL;
    }
    if (!f || !file_is_pipe(f)) {
        return -EBADF;
    }
    bool writing = (f->flags & O_ACCMODE) != O_RDONLY, was = f->nowait;
    f->nowait |= (flags & SPLICE_NONBLOCK) != 0;
    file_ref(f);
    int64_t r = writing ? sys_writev(fd, iov, count) : sys_readv(fd, iov, count);
    f->nowait = was;
    file_unref(f);
    return r;
}
