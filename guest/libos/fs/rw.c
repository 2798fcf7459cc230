/* rw.c - reading and writing by descriptors: plain, at an offset, in vectors; sizes, positions. */
#include <linux/fs.h>
#include <linux/uio.h>

#include "fs/vfs.h"
#include "mm.h"
#include "sys_file.h"

#define COUNT_MAX     0x7ffff000ull /* as Linux: MAX_RW_COUNT */
#define IOV_COUNT_MAX 1024

static int64_t do_read(struct file *f, void *buf, size_t len, uint64_t *pos)
{
    return f->ops->read ? f->ops->read(f, buf, len, pos) : -EINVAL;
}

static int64_t do_write(struct file *f, const void *buf, size_t len, uint64_t *pos)
{
    return f->ops->write ? f->ops->write(f, buf, len, pos) : -EINVAL;
}

int64_t sys_read(int fd, void *buf, size_t len)
{
    struct file *f;
    int r = fd_get_for_read(fd, &f);
    if (r < 0) {
        return r;
    }
    len = len < COUNT_MAX ? len : COUNT_MAX;
    int64_t n = user_writable(buf, len) ? do_read(f, buf, len, &f->pos) : -EFAULT;
    file_unref(f);
    return n;
}

int64_t sys_write(int fd, const void *buf, size_t len)
{
    struct file *f;
    int r = fd_get_for_write(fd, &f);
    if (r < 0) {
        return r;
    }
    len = len < COUNT_MAX ? len : COUNT_MAX;
    int64_t n = user_readable(buf, len) ? do_write(f, buf, len, &f->pos) : -EFAULT;
    file_unref(f);
    return n;
}

int64_t sys_pread64(int fd, void *buf, size_t len, int64_t offset)
{
    struct file *f;
    int r = offset < 0 ? -EINVAL : fd_get_for_read(fd, &f);
    if (r < 0) {
        return r;
    }
    uint64_t pos = (uint64_t)offset;
    len = len < COUNT_MAX ? len : COUNT_MAX;
    int64_t n = !f->ops->seekable          ? -ESPIPE
                : !user_writable(buf, len) ? -EFAULT
                                           : do_read(f, buf, len, &pos);
    file_unref(f);
    return n;
}

int64_t sys_pwrite64(int fd, const void *buf, size_t len, int64_t offset)
{
    struct file *f;
    int r = offset < 0 ? -EINVAL : fd_get_for_write(fd, &f);
    if (r < 0) {
        return r;
    }
    uint64_t pos = (uint64_t)offset;
    len = len < COUNT_MAX ? len : COUNT_MAX;
    int64_t n = !f->ops->seekable          ? -ESPIPE
                : !user_readable(buf, len) ? -EFAULT
                                           : do_write(f, buf, len, &pos);
    file_unref(f);
    return n;
}

/* The length of all parts, if each may be accessed. */
static int64_t check_vector(const struct iovec *iov, int count, bool writable)
{
    if (count < 0 || count > IOV_COUNT_MAX) {
        return -EINVAL;
    }
    if (!user_readable(iov, (uint64_t)count * sizeof(*iov))) {
        return -EFAULT;
    }
    uint64_t total = 0;
    for (int n = 0; n < count; n++) {
        if ((int64_t)iov[n].iov_len < 0) {
            return -EINVAL;
        }
        if (writable ? !user_writable(iov[n].iov_base, iov[n].iov_len)
                     : !user_readable(iov[n].iov_base, iov[n].iov_len)) {
            return -EFAULT;
        }
        total += iov[n].iov_len;
        if (total > COUNT_MAX) {
            return -EINVAL;
        }
    }
    return (int64_t)total;
}

/* One message in several parts: by way of a buffer. */
static int64_t vector_message(struct file *f, const struct iovec *iov, int count, size_t total,
                              bool writing)
{
    if (total > 65536) {
        total = 65536;
    }
    char *all = kalloc(total + 1);
    if (!all) {
        return -ENOMEM;
    }
    size_t at = 0;
    int64_t r = 0;
    if (!writing) {
        r = do_read(f, all, total, &f->pos);
        total = r > 0 ? (size_t)r : 0;
    }
    for (int n = 0; n < count && at < total; n++) {
        size_t part = iov[n].iov_len < total - at ? iov[n].iov_len : total - at;
        if (writing) {
            memcpy(all + at, iov[n].iov_base, part);
        } else {
            memcpy(iov[n].iov_base, all + at, part);
        }
        at += part;
    }
    if (writing) {
        r = do_write(f, all, total, &f->pos);
    }
    kfree(all);
    return r;
}

/* Takes the reference to `f`. */
static int64_t vector(struct file *f, const struct iovec *iov, int count, uint64_t *pos,
                      bool writing)
{
    int64_t total = check_vector(iov, count, !writing);
    int64_t done = total < 0 ? total : 0;
    if (total > 0 && f->ops->messages) {
        done = vector_message(f, iov, count, (size_t)total, writing);
        total = 0;
    }
    for (int n = 0; total > 0 && n < count; n++) {
        if (!iov[n].iov_len) {
            continue;
        }
        /* What was read already is not to wait for more. */
        f->nowait = !writing && done > 0;
        int64_t part = writing ? do_write(f, iov[n].iov_base, iov[n].iov_len, pos)
                               : do_read(f, iov[n].iov_base, iov[n].iov_len, pos);
        f->nowait = false;
        if (part < 0) {
            done = done ? done : part;
            break;
        }
        done += part;
        if ((size_t)part < iov[n].iov_len) {
            break;
        }
    }
    file_unref(f);
    return done;
}

int64_t sys_readv(int fd, const struct iovec *iov, int count)
{
    struct file *f;
    int r = fd_get_for_read(fd, &f);
    return r < 0 ? r : vector(f, iov, count, &f->pos, false);
}

int64_t sys_writev(int fd, const struct iovec *iov, int count)
{
    struct file *f;
    int r = fd_get_for_write(fd, &f);
    return r < 0 ? r : vector(f, iov, count, &f->pos, true);
}

int64_t sys_preadv(int fd, const struct iovec *iov, int count, int64_t offset, int64_t high)
{
    (void)high; /* 64-bit: all of the offset is in the first */
    struct file *f;
    int r = offset < 0 ? -EINVAL : fd_get_for_read(fd, &f);
    if (r == 0 && !f->ops->seekable) {
        file_unref(f);
        r = -ESPIPE;
    }
    uint64_t pos = (uint64_t)offset;
    return r < 0 ? r : vector(f, iov, count, &pos, false);
}

int64_t sys_pwritev(int fd, const struct iovec *iov, int count, int64_t offset, int64_t high)
{
    (void)high;
    struct file *f;
    int r = offset < 0 ? -EINVAL : fd_get_for_write(fd, &f);
    if (r == 0 && !f->ops->seekable) {
        file_unref(f);
        r = -ESPIPE;
    }
    uint64_t pos = (uint64_t)offset;
    return r < 0 ? r : vector(f, iov, count, &pos, true);
}

int64_t sys_preadv2(int fd, const struct iovec *iov, int count, int64_t offset, int64_t high,
                    int flags)
{
    if (flags & ~(RWF_HIPRI | RWF_NOWAIT)) {
        return -EOPNOTSUPP;
    }
    return offset == -1 ? sys_readv(fd, iov, count) : sys_preadv(fd, iov, count, offset, high);
}

int64_t sys_pwritev2(int fd, const struct iovec *iov, int count, int64_t offset, int64_t high,
                     int flags)
{
    if (flags & ~(RWF_HIPRI | RWF_DSYNC | RWF_SYNC)) {
        return -EOPNOTSUPP;
    }
    return offset == -1 ? sys_writev(fd, iov, count) : sys_pwritev(fd, iov, count, offset, high);
}

int64_t sys_lseek(int fd, int64_t offset, int whence)
{
    struct file *f = fd_get(fd);
    if (!f || (f->flags & O_PATH)) {
        return -EBADF;
    }
    if (!f->ops->seekable) {
        return -ESPIPE;
    }
    int64_t size = f->inode ? (int64_t)f->inode->size : 0;
    switch (whence) {
    case SEEK_SET:
        break;
    case SEEK_CUR:
        if (__builtin_add_overflow(offset, (int64_t)f->pos, &offset)) {
            return -EOVERFLOW;
        }
        break;
    case SEEK_END:
        if (__builtin_add_overflow(offset, size, &offset)) {
            return -EOVERFLOW;
        }
        break;
    case SEEK_DATA:
    case SEEK_HOLE:
        if (offset < 0 || offset >= size) {
            return -ENXIO;
        }
        offset = whence == SEEK_DATA ? offset : size;
        break;
    default:
        return -EINVAL;
    }
    if (offset < 0) {
        return -EINVAL;
    }
    f->pos = (uint64_t)offset;
    return offset;
}

/* Copies from a regular file: out of its pages, without a buffer. */
static int64_t send_pages(struct file *in, uint64_t *pos, struct file *out, uint64_t *out_pos,
                          size_t count)
{
    static const char zeros[512];
    size_t done = 0;
    while (done < count) {
        uint64_t span;
        const void *from = reg_span(in->inode, *pos, count - done, &span);
        if (!span) {
            break;
        }
        if (!from) {
            from = zeros;
            span = span < sizeof(zeros) ? span : sizeof(zeros);
        }
        int64_t n = do_write(out, from, span, out_pos);
        if (n < 0) {
            return done ? (int64_t)done : n;
        }
        *pos += (uint64_t)n;
        done += (size_t)n;
        if ((uint64_t)n < span) {
            break;
        }
    }
    return (int64_t)done;
}

/* From what has no pages: one piece through a buffer. */
static int64_t send_buffer(struct file *in, struct file *out, size_t count)
{
    size_t size = count < 16384 ? count : 16384;
    char *buf = kalloc(size ? size : 1);
    if (!buf) {
        return -ENOMEM;
    }
    int64_t n = do_read(in, buf, size, &in->pos);
    int64_t done = 0;
    while (done < n) {
        int64_t w = do_write(out, buf + done, (size_t)(n - done), &out->pos);
        if (w < 0) {
            n = done ? done : w;
            break;
        }
        done += w;
    }
    kfree(buf);
    return n < 0 ? n : done;
}

int64_t sys_sendfile(int out_fd, int in_fd, int64_t *offset, size_t count)
{
    if (offset && !user_writable(offset, sizeof(*offset))) {
        return -EFAULT;
    }
    struct file *in, *out;
    int64_t r = fd_get_for_read(in_fd, &in);
    if (r < 0) {
        return r;
    }
    r = fd_get_for_write(out_fd, &out);
    if (r < 0) {
        file_unref(in);
        return r;
    }
    count = count < COUNT_MAX ? count : COUNT_MAX;
    uint64_t pos = offset ? (uint64_t)*offset : in->pos;
    if (file_is_regular(in)) {
        if ((int64_t)pos < 0) {
            r = -EINVAL;
        } else {
            r = send_pages(in, &pos, out, &out->pos, count);
            if (r >= 0 && offset) {
                *offset = (int64_t)pos;
            } else if (r >= 0) {
                in->pos = pos;
            }
        }
    } else {
        r = offset ? -ESPIPE : send_buffer(in, out, count);
    }
    file_unref(in);
    file_unref(out);
    return r;
}

int64_t sys_copy_file_range(int in_fd, int64_t *in_offset, int out_fd, int64_t *out_offset,
                            size_t len, uint32_t flags)
{
    if ((in_offset && !user_writable(in_offset, sizeof(*in_offset))) ||
        (out_offset && !user_writable(out_offset, sizeof(*out_offset)))) {
        return -EFAULT;
    }
    struct file *in = fd_get(in_fd), *out = fd_get(out_fd);
    if (!in || !out || (in->flags & (O_ACCMODE | O_PATH)) == O_WRONLY || (in->flags & O_PATH) ||
        (out->flags & O_ACCMODE) == O_RDONLY || (out->flags & (O_PATH | O_APPEND))) {
        return -EBADF;
    }
    if (flags || !file_is_regular(in) || !file_is_regular(out)) {
        return -EINVAL;
    }
    uint64_t from = in_offset ? (uint64_t)*in_offset : in->pos;
    uint64_t to = out_offset ? (uint64_t)*out_offset : out->pos;
    len = len < COUNT_MAX ? len : COUNT_MAX;
    if ((int64_t)from < 0 || (int64_t)to < 0 ||
        (in->inode == out->inode && from < to + len && to < from + len)) {
        return -EINVAL;
    }
    int64_t r = send_pages(in, &from, out, &to, len); /* nothing blocks: regular files */
    if (r >= 0) {
        *(in_offset ? (uint64_t *)in_offset : &in->pos) = from;
        *(out_offset ? (uint64_t *)out_offset : &out->pos) = to;
    }
    return r;
}

int64_t sys_ftruncate(int fd, int64_t length)
{
    struct file *f = fd_get(fd);
    if (!f || (f->flags & O_PATH)) {
        return -EBADF;
    }
    if (length < 0 || !file_is_regular(f) || (f->flags & O_ACCMODE) == O_RDONLY) {
        return -EINVAL;
    }
    return reg_truncate(f->inode, (uint64_t)length);
}

int64_t sys_truncate(const char *path, int64_t length)
{
    struct walk w;
    int r = length < 0 ? -EINVAL : walk_existing(&w, AT_FDCWD, path, 0);
    if (r < 0) {
        return r;
    }
    struct inode *i = w.file ? w.file->inode : w.inode;
    if (i && inode_is(i, S_IFDIR)) {
        r = -EISDIR;
    } else if (!i || !inode_is(i, S_IFREG) || i->dev != DEV_ROOT) {
        r = -EINVAL;
    } else {
        r = reg_truncate(i, (uint64_t)length);
    }
    walk_done(&w);
    return r;
}

int64_t sys_fallocate(int fd, int mode, int64_t offset, int64_t len)
{
    enum { KEEP_SIZE = 1, PUNCH_HOLE = 2, ZERO_RANGE = 16 };
    struct file *f = fd_get(fd);
    if (!f || (f->flags & O_PATH) || (f->flags & O_ACCMODE) == O_RDONLY) {
        return -EBADF;
    }
    if (offset < 0 || len <= 0) {
        return -EINVAL;
    }
    if (!file_is_regular(f)) {
        return f->ops->seekable ? -ENODEV : -ESPIPE;
    }
    switch (mode) {
    case 0:
    case KEEP_SIZE:
        return reg_allocate(f->inode, (uint64_t)offset, (uint64_t)len, mode & KEEP_SIZE);
    case PUNCH_HOLE | KEEP_SIZE:
    case ZERO_RANGE | KEEP_SIZE:
        return reg_punch(f->inode, (uint64_t)offset, (uint64_t)len);
    default:
        return -EOPNOTSUPP;
    }
}

/* Memory is all there is behind a file: what was written, is there. */
int64_t sys_fsync(int fd)
{
    struct file *f = fd_get(fd);
    if (!f || (f->flags & O_PATH)) {
        return -EBADF;
    }
    bool kept = f->inode && (inode_is(f->inode, S_IFREG) || inode_is(f->inode, S_IFDIR));
    return kept ? 0 : -EINVAL;
}

int64_t sys_fdatasync(int fd)
{
    return sys_fsync(fd);
}

int64_t sys_syncfs(int fd)
{
    return fd_get(fd) ? 0 : -EBADF;
}

int64_t sys_sync(void)
{
    return 0;
}

int64_t sys_sync_file_range(int fd, int64_t offset, int64_t len, uint32_t flags)
{
    (void)offset, (void)len, (void)flags;
    struct file *f = fd_get(fd);
    return !f ? -EBADF : f->ops->seekable ? 0 : -ESPIPE;
}

int64_t sys_fadvise64(int fd, int64_t offset, int64_t len, int advice)
{
    (void)offset;
    struct file *f = fd_get(fd);
    if (!f) {
        return -EBADF;
    }
    if (!f->ops->seekable) {
        return -ESPIPE;
    }
    return len < 0 || advice < 0 || advice > 5 ? -EINVAL : 0;
}

int64_t sys_readahead(int fd, int64_t offset, size_t count)
{
    (void)offset, (void)count;
    struct file *f = fd_get(fd);
    return !f ? -EBADF : file_is_regular(f) ? 0 : -EINVAL;
}
