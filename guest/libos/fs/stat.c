/* stat.c - what a file is: stat and its kin, access, readlink, statfs. */
#include <asm/statfs.h>

#include "fs/vfs.h"
#include "mm.h"
#include "sys_file.h"

#define TMPFS_MAGIC    0x01021994
#define PROC_MAGIC     0x9fa0
#define PIPEFS_MAGIC   0x50495045
#define R_OK_W_OK_X_OK 7
#define X_OK           1

int file_stat(struct file *f, struct stat *ret)
{
    if (f->ops->stat) {
        memset(ret, 0, sizeof(*ret));
        ret->st_dev = DEV_PIPE;
        ret->st_nlink = 1;
        ret->st_blksize = PAGE_SIZE;
        ret->st_ino = (uintptr_t)f >> 4;
        return f->ops->stat(f, ret);
    }
    if (f->inode) {
        inode_stat(f->inode, ret);
        return 0;
    }
    memset(ret, 0, sizeof(*ret)); /* epoll and its kin: as Linux's anonymous inodes */
    ret->st_dev = DEV_PIPE;
    ret->st_ino = 1;
    ret->st_nlink = 1;
    ret->st_mode = 0600;
    ret->st_blksize = PAGE_SIZE;
    return 0;
}

static int stat_at(int dirfd, const char *path, int flags, struct stat *ret)
{
    if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE)) {
        return -EINVAL;
    }
    struct walk w;
    int r = walk_existing(&w, dirfd, path,
                          (flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0) |
                              (flags & AT_EMPTY_PATH ? WALK_EMPTY : 0));
    if (r < 0) {
        return r;
    }
    if (w.file) {
        r = file_stat(w.file, ret);
    } else {
        inode_stat(w.inode, ret);
    }
    walk_done(&w);
    return r;
}

int64_t sys_newfstatat(int dirfd, const char *path, struct stat *ret, int flags)
{
    if (!user_writable(ret, sizeof(*ret))) {
        return -EFAULT;
    }
    return stat_at(dirfd, path, flags, ret);
}

int64_t sys_stat(const char *path, struct stat *ret)
{
    return sys_newfstatat(AT_FDCWD, path, ret, 0);
}

int64_t sys_lstat(const char *path, struct stat *ret)
{
    return sys_newfstatat(AT_FDCWD, path, ret, AT_SYMLINK_NOFOLLOW);
}

int64_t sys_fstat(int fd, struct stat *ret)
{
    struct file *f = fd_get(fd);
    if (!f) {
        return -EBADF;
    }
    return user_writable(ret, sizeof(*ret)) ? file_stat(f, ret) : -EFAULT;
}

int64_t sys_statx(int dirfd, const char *path, int flags, uint32_t mask, struct statx *ret)
{
    if (mask & STATX__RESERVED) {
        return -EINVAL;
    }
    if (!user_writable(ret, sizeof(*ret))) {
        return -EFAULT;
    }
    struct stat st;
    int r = stat_at(dirfd, path, flags, &st);
    if (r < 0) {
        return r;
    }
    memset(ret, 0, sizeof(*ret));
    ret->stx_mask = STATX_BASIC_STATS;
    ret->stx_blksize = (uint32_t)st.st_blksize;
    ret->stx_nlink = (uint32_t)st.st_nlink;
    ret->stx_uid = st.st_uid;
    ret->stx_gid = st.st_gid;
    ret->stx_mode = (uint16_t)st.st_mode;
    ret->stx_ino = st.st_ino;
    ret->stx_size = (uint64_t)st.st_size;
    ret->stx_blocks = (uint64_t)st.st_blocks;
    ret->stx_atime.tv_sec = (int64_t)st.st_atime;
    ret->stx_atime.tv_nsec = (uint32_t)st.st_atime_nsec;
    ret->stx_mtime.tv_sec = (int64_t)st.st_mtime;
    ret->stx_mtime.tv_nsec = (uint32_t)st.st_mtime_nsec;
    ret->stx_ctime.tv_sec = (int64_t)st.st_ctime;
    ret->stx_ctime.tv_nsec = (uint32_t)st.st_ctime_nsec;
    ret->stx_rdev_major = (uint32_t)(st.st_rdev >> 8);
    ret->stx_rdev_minor = (uint32_t)(st.st_rdev & 255);
    ret->stx_dev_minor = (uint32_t)st.st_dev;
    return 0;
}

static void statfs_of(const struct inode *i, struct statfs *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->f_type = !i ? PIPEFS_MAGIC : i->dev == DEV_PROC ? PROC_MAGIC : TMPFS_MAGIC;
    ret->f_bsize = ret->f_frsize = PAGE_SIZE;
    ret->f_namelen = NAME_LEN_MAX;
    if (i && i->dev != DEV_PROC) {
        ret->f_blocks = (long)frames_total();
        ret->f_bfree = ret->f_bavail = (long)frames_free();
        ret->f_files = ret->f_blocks;
        ret->f_ffree = ret->f_bfree;
    }
}

int64_t sys_statfs(const char *path, struct statfs *ret)
{
    if (!user_writable(ret, sizeof(*ret))) {
        return -EFAULT;
    }
    struct walk w;
    int r = walk_existing(&w, AT_FDCWD, path, 0);
    if (r < 0) {
        return r;
    }
    statfs_of(w.inode, ret);
    walk_done(&w);
    return 0;
}

int64_t sys_fstatfs(int fd, struct statfs *ret)
{
    struct file *f = fd_get(fd);
    if (!f) {
        return -EBADF;
    }
    if (!user_writable(ret, sizeof(*ret))) {
        return -EFAULT;
    }
    statfs_of(f->inode, ret);
    return 0;
}

/* The process is root: everything may be read and written, executed what has an x somewhere. */
int64_t sys_faccessat2(int dirfd, const char *path, int mode, int flags)
{
    if ((mode & ~R_OK_W_OK_X_OK) || (flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))) {
        return -EINVAL;
    }
    struct walk w;
    int r = walk_existing(&w, dirfd, path,
                          (flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0) |
                              (flags & AT_EMPTY_PATH ? WALK_EMPTY : 0));
    if (r < 0) {
        return r;
    }
    if ((mode & X_OK) && w.inode && inode_is(w.inode, S_IFREG) && !(w.inode->mode & 0111)) {
        r = -EACCES;
    }
    walk_done(&w);
    return r;
}

int64_t sys_faccessat(int dirfd, const char *path, int mode)
{
    return sys_faccessat2(dirfd, path, mode, 0);
}

int64_t sys_access(const char *path, int mode)
{
    return sys_faccessat2(AT_FDCWD, path, mode, 0);
}

int64_t sys_readlinkat(int dirfd, const char *path, char *buf, int size)
{
    if (size <= 0) {
        return -EINVAL;
    }
    struct walk w;
    int r = walk_existing(&w, dirfd, path, WALK_NOFOLLOW | WALK_EMPTY);
    if (r < 0) {
        return r;
    }
    int64_t n = -EINVAL;
    if (!user_writable(buf, (uint64_t)size)) {
        n = -EFAULT;
    } else if (w.inode && inode_is(w.inode, S_IFLNK)) {
        if (w.inode->l.describe) {
            n = w.inode->l.describe(w.inode, buf, (size_t)size);
        } else {
            n = w.inode->size < (uint64_t)size ? (int64_t)w.inode->size : size;
            memcpy(buf, w.inode->l.text, (size_t)n);
        }
    }
    walk_done(&w);
    return n;
}

int64_t sys_readlink(const char *path, char *buf, int size)
{
    return sys_readlinkat(AT_FDCWD, path, buf, size);
}
