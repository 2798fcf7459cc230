/* open.c - open and its kin, close; files for the kernel itself. */
#include <linux/close_range.h>
#include <linux/memfd.h>

#include "fs/vfs.h"
#include "mm.h"
#include "sys_file.h"

static int64_t dir_read(struct file *f, void *to, size_t len, uint64_t *pos)
{
    (void)f, (void)to, (void)len, (void)pos;
    return -EISDIR;
}

const struct file_ops dir_file_ops = {.name = "dir", .seekable = true, .read = dir_read};
const struct file_ops path_ops = {.name = "path"};

int file_open_inode(struct inode *i, uint32_t flags, struct file **ret)
{
    const struct file_ops *ops;
    if (flags & O_PATH) {
        ops = &path_ops;
        flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW;
    } else {
        bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
        switch (i->mode & S_IFMT) {
        case S_IFDIR:
            if (writes) {
                return -EISDIR;
            }
            ops = &dir_file_ops;
            break;
        case S_IFLNK:
            return -ELOOP;
        case S_IFSOCK:
            return -ENXIO;
        case S_IFIFO:
            return fifo_open(i, flags, ret);
        case S_IFREG:
            if (i->dev == DEV_ROOT) {
                ops = &regular_ops;
                break;
            }
            /* fall through */
        default:
            return i->n.open ? i->n.open(i, flags, ret) : -ENXIO;
        }
    }
    *ret = file_new(ops, i, flags, NULL);
    return *ret ? 0 : -ENOMEM;
}

/* The new file that O_CREAT asks for. */
static int create(struct walk *w, uint32_t mode)
{
    int r = dir_may_change(w->dir);
    if (r < 0) {
        return r;
    }
    struct inode *i = inode_new(S_IFREG | (mode & 07777 & ~process_umask), DEV_ROOT);
    if (!i) {
        return -ENOSPC;
    }
    i->links = 1;
    r = dir_link(w->dir, w->name, w->len, i);
    if (r < 0) {
        inode_unref(i);
        return r;
    }
    inode_touch(w->dir);
    w->inode = i;
    return 0;
}

/* Remembers by which path a file was opened. Without one when memory is used up: only names in
 * /proc are lost. */
static void note_path(struct file *f, const struct walk *w)
{
    if (f->path || (!w->dir && (!w->inode || !inode_is(w->inode, S_IFDIR)))) {
        return;
    }
    char *text = kalloc(256);
    int n = text ? dir_path(w->dir ? w->dir : w->inode, w->dir ? w->name : NULL, w->len, text, 256)
                 : -ENOMEM;
    if (n == -ERANGE) {
        kfree(text);
        text = kalloc(PATH_LEN_MAX);
        n = text ? dir_path(w->dir ? w->dir : w->inode, w->dir ? w->name : NULL, w->len, text,
                            PATH_LEN_MAX)
                 : -ENOMEM;
    }
    if (n < 0) {
        kfree(text);
        return;
    }
    f->path = text;
}

/* What a link of /proc/self/fd stands for: the file itself, when it cannot be opened anew. */
static int open_again(struct file *from, uint32_t flags, struct file **ret)
{
    if (from->inode && (inode_is(from->inode, S_IFREG) || inode_is(from->inode, S_IFDIR))) {
        int r = file_open_inode(from->inode, flags, ret);
        if (r == 0 && from->path && !(*ret)->path) {
            size_t len = strlen(from->path);
            (*ret)->path = kalloc(len + 1);
            if ((*ret)->path) {
                memcpy((*ret)->path, from->path, len);
            }
        }
        return r;
    }
    uint32_t had = from->flags & O_ACCMODE, wants = flags & O_ACCMODE;
    if (had != O_RDWR && had != wants) {
        return -EACCES;
    }
    *ret = file_ref(from);
    return 0;
}

static int open_walked(struct walk *w, uint32_t flags, uint32_t mode, struct file **ret)
{
    if (w->file) {
        return open_again(w->file, flags, ret);
    }
    if (w->inode && (flags & O_CREAT) && (flags & O_EXCL)) {
        return -EEXIST;
    }
    if (!w->inode) {
        if (!(flags & O_CREAT)) {
            return -ENOENT;
        }
        int r = create(w, mode);
        if (r < 0) {
            return r;
        }
    } else if ((flags & O_CREAT) && inode_is(w->inode, S_IFDIR)) {
        return -EISDIR;
    } else if ((flags & O_DIRECTORY) && !inode_is(w->inode, S_IFDIR)) {
        return -ENOTDIR;
    }
    int r = file_open_inode(w->inode, flags, ret);
    if (r < 0) {
        return r;
    }
    if ((flags & O_TRUNC) && (*ret)->ops == &regular_ops && w->inode->size) {
        reg_truncate(w->inode, 0);
    }
    note_path(*ret, w);
    return 0;
}

/* O_TMPFILE: a file without a name in the directory `path`. */
static int open_unnamed(struct walk *w, uint32_t flags, uint32_t mode, struct file **ret)
{
    if (!w->inode || !inode_is(w->inode, S_IFDIR)) {
        return w->inode ? -ENOTDIR : -ENOENT;
    }
    if ((flags & O_ACCMODE) == O_RDONLY) {
        return -EINVAL;
    }
    struct inode *i = inode_new(S_IFREG | (mode & 07777 & ~process_umask), DEV_ROOT);
    if (!i) {
        return -ENOSPC;
    }
    int r = file_open_inode(i, flags & ~(uint32_t)O_DIRECTORY, ret);
    inode_unref(i);
    return r;
}

int64_t sys_openat(int dirfd, const char *path, int flags, uint32_t mode)
{
    uint32_t f = (uint32_t)flags | O_LARGEFILE; /* as 64-bit Linux sets it */
    bool unnamed = (f & O_TMPFILE) == O_TMPFILE;
    bool nofollow = (f & O_NOFOLLOW) || ((f & O_CREAT) && (f & O_EXCL));
    struct walk w;
    int r = walk(&w, dirfd, path, (nofollow ? WALK_NOFOLLOW : 0) | (f & O_CREAT ? WALK_CREATE : 0));
    struct file *file;
    if (r == 0) {
        r = unnamed ? open_unnamed(&w, f, mode, &file) : open_walked(&w, f, mode, &file);
        walk_done(&w);
    }
    if (r == -ENOENT) {
        absent_note(path);
    }
    return r < 0 ? r : fd_install_flags(file, f);
}

int64_t sys_open(const char *path, int flags, uint32_t mode)
{
    return sys_openat(AT_FDCWD, path, flags, mode);
}

int64_t sys_creat(const char *path, uint32_t mode)
{
    return sys_openat(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int64_t sys_close(int fd)
{
    return fd_close(fd);
}

int64_t sys_close_range(uint32_t first, uint32_t last, uint32_t flags)
{
    if (first > last || (flags & ~(uint32_t)(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC))) {
        return -EINVAL;
    }
    for (uint32_t fd = first; fd <= last && fd < (uint32_t)fd_count(); fd++) {
        if (!fd_get((int)fd)) {
            continue;
        }
        if (flags & CLOSE_RANGE_CLOEXEC) {
            fd_set_cloexec((int)fd, true);
        } else {
            fd_close((int)fd);
        }
    }
    return 0;
}

int64_t sys_memfd_create(const char *name, uint32_t flags)
{
    int64_t len = user_strlen(name, 250);
    if (len < 0) {
        return len == -ENAMETOOLONG ? -EINVAL : len;
    }
    if (flags & ~(uint32_t)(MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
        return -EINVAL;
    }
    struct inode *i = inode_new(S_IFREG | 0777, DEV_ROOT);
    struct file *f = i ? file_new(&regular_ops, i, O_RDWR, NULL) : NULL;
    inode_unref(i);
    if (!f) {
        return -ENOMEM;
    }
    i->links = 0;
    f->path = kalloc((size_t)len + 18);
    if (f->path) {
        kformat(f->path, (size_t)len + 18, "/memfd:%s (deleted)", name);
    }
    return fd_install_flags(f, flags & MFD_CLOEXEC ? O_CLOEXEC : 0);
}

struct file *file_open_path(const char *path, uint32_t flags, int *ret_error)
{
    struct walk w;
    struct file *f = NULL;
    int r = path[0] == '/' ? walk_kernel(&w, path, 0) : -EINVAL;
    if (r == 0) {
        r = open_walked(&w, flags, 0, &f);
        walk_done(&w);
    }
    *ret_error = r;
    return f;
}

int64_t file_read_at(struct file *f, void *to, size_t len, uint64_t offset)
{
    return f->ops == &regular_ops ? reg_read(f->inode, to, len, offset) : -EINVAL;
}

uint64_t file_size(const struct file *f)
{
    return f->inode ? f->inode->size : 0;
}

bool file_is_regular(const struct file *f)
{
    return f->ops == &regular_ops;
}

uint64_t file_frame(struct file *f, uint64_t index)
{
    return file_is_regular(f) && index < page_up(f->inode->size) / PAGE_SIZE
               ? reg_frame(f->inode, index)
               : 0;
}

uint64_t file_frame_shared(struct file *f, uint64_t index)
{
    if (!file_is_regular(f) || (f->flags & O_ACCMODE) == O_RDONLY) {
        return file_frame(f, index);
    }
    return reg_frame_writable(f->inode, index);
}

bool file_stubs(const struct file *f, struct file_stubs *ret)
{
    return file_is_regular(f) && rootfs_stubs(f->inode, ret);
}
