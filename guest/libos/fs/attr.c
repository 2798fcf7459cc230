/* attr.c - what a file's inode remembers (mode, owner, times), and where the process stands. */
#include <linux/time_types.h>

#include "fs/vfs.h"
#include "mm.h"
#include "sys_file.h"

#ifndef UTIME_NOW
#define UTIME_NOW  ((1l << 30) - 1l)
#define UTIME_OMIT ((1l << 30) - 2l)
#endif
#define NS_PER_S        1000000000ll
#define XATTR_NAME_MAX_ 255

/* The inode at `path`, referenced. */
static int inode_at(int dirfd, const char *path, unsigned flags, struct inode **ret)
{
    struct walk w;
    int r = walk_existing(&w, dirfd, path, flags);
    if (r < 0) {
        return r;
    }
    struct inode *i = w.file ? w.file->inode : w.inode;
    *ret = i ? inode_ref(i) : NULL;
    walk_done(&w);
    return i ? 0 : -EPERM;
}

static int inode_of_fd(int fd, struct inode **ret)
{
    struct file *f = fd_get(fd);
    if (!f || (f->flags & O_PATH)) {
        return -EBADF;
    }
    if (!f->inode) {
        return -EPERM;
    }
    *ret = inode_ref(f->inode);
    return 0;
}

static int64_t set_mode(int r, struct inode *i, uint32_t mode)
{
    if (r < 0) {
        return r;
    }
    r = i->dev == DEV_PROC ? -EPERM : inode_is(i, S_IFLNK) ? -EOPNOTSUPP : 0;
    if (r == 0) {
        i->mode = (i->mode & S_IFMT) | (mode & 07777);
        i->ctime_ns = (int64_t)clock_realtime_ns();
    }
    inode_unref(i);
    return r;
}

int64_t sys_fchmodat(int dirfd, const char *path, uint32_t mode)
{
    struct inode *i = NULL;
    int r = inode_at(dirfd, path, 0, &i);
    return set_mode(r, i, mode);
}

int64_t sys_chmod(const char *path, uint32_t mode)
{
    return sys_fchmodat(AT_FDCWD, path, mode);
}

int64_t sys_fchmod(int fd, uint32_t mode)
{
    struct inode *i = NULL;
    int r = inode_of_fd(fd, &i);
    return set_mode(r, i, mode);
}

static int64_t set_owner(int r, struct inode *i, uint32_t uid, uint32_t gid)
{
    if (r < 0) {
        return r;
    }
    if (i->dev == DEV_PROC) {
        r = -EPERM;
    } else {
        i->uid = uid == UINT32_MAX ? i->uid : uid;
        i->gid = gid == UINT32_MAX ? i->gid : gid;
        i->ctime_ns = (int64_t)clock_realtime_ns();
    }
    inode_unref(i);
    return r;
}

int64_t sys_fchownat(int dirfd, const char *path, uint32_t uid, uint32_t gid, int flags)
{
    if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) {
        return -EINVAL;
    }
    struct inode *i = NULL;
    int r = inode_at(dirfd, path,
                     (flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0) |
                         (flags & AT_EMPTY_PATH ? WALK_EMPTY : 0),
                     &i);
    return set_owner(r, i, uid, gid);
}

int64_t sys_chown(const char *path, uint32_t uid, uint32_t gid)
{
    return sys_fchownat(AT_FDCWD, path, uid, gid, 0);
}

int64_t sys_lchown(const char *path, uint32_t uid, uint32_t gid)
{
    return sys_fchownat(AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW);
}

int64_t sys_fchown(int fd, uint32_t uid, uint32_t gid)
{
    struct inode *i = NULL;
    int r = inode_of_fd(fd, &i);
    return set_owner(r, i, uid, gid);
}

/* One of the two times; `now` for UTIME_NOW. */
static int pick_time(const struct __kernel_timespec *t, int64_t now, int64_t *time)
{
    if (t->tv_nsec == UTIME_OMIT) {
        return 0;
    }
    if (t->tv_nsec != UTIME_NOW && (t->tv_nsec < 0 || t->tv_nsec >= NS_PER_S)) {
        return -EINVAL;
    }
    int64_t ns = now;
    if (t->tv_nsec != UTIME_NOW && (__builtin_mul_overflow(t->tv_sec, NS_PER_S, &ns) ||
                                    __builtin_add_overflow(ns, t->tv_nsec, &ns))) {
        return -EINVAL;
    }
    *time = ns;
    return 0;
}

/* `times` are the kernel's own, or NULL: now. */
static int64_t set_times(int dirfd, const char *path, const struct __kernel_timespec *times,
                         int flags)
{
    struct inode *i = NULL;
    int r = path ? inode_at(dirfd, path,
                            (flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0) |
                                (flags & AT_EMPTY_PATH ? WALK_EMPTY : 0),
                            &i)
                 : inode_of_fd(dirfd, &i);
    if (r < 0) {
        return r;
    }
    const struct __kernel_timespec now_both[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
    times = times ? times : now_both;
    int64_t now = (int64_t)clock_realtime_ns(), atime = i->atime_ns, mtime = i->mtime_ns;
    r = i->dev == DEV_PROC ? -EPERM : pick_time(&times[0], now, &atime);
    if (r == 0) {
        r = pick_time(&times[1], now, &mtime);
    }
    if (r == 0) {
        i->atime_ns = atime;
        i->mtime_ns = mtime;
        i->ctime_ns = now;
    }
    inode_unref(i);
    return r;
}

int64_t sys_utimensat(int dirfd, const char *path, const struct __kernel_timespec *times, int flags)
{
    if (times && !user_readable(times, 2 * sizeof(*times))) {
        return -EFAULT;
    }
    if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) {
        return -EINVAL;
    }
    return set_times(dirfd, path, times, flags);
}

int64_t sys_futimesat(int dirfd, const char *path, const struct __kernel_old_timeval *times)
{
    struct __kernel_timespec own[2];
    if (!times) {
        return set_times(dirfd, path, NULL, 0);
    }
    if (!user_readable(times, 2 * sizeof(*times))) {
        return -EFAULT;
    }
    for (int n = 0; n < 2; n++) {
        if (times[n].tv_usec < 0 || times[n].tv_usec >= 1000000) {
            return -EINVAL;
        }
        own[n].tv_sec = times[n].tv_sec;
        own[n].tv_nsec = times[n].tv_usec * 1000;
    }
    return set_times(dirfd, path, own, 0);
}

int64_t sys_utimes(const char *path, const struct __kernel_old_timeval *times)
{
    return sys_futimesat(AT_FDCWD, path, times);
}

int64_t sys_utime(const char *path, const int64_t *times)
{
    if (!times) {
        return set_times(AT_FDCWD, path, NULL, 0);
    }
    if (!user_readable(times, 2 * sizeof(*times))) {
        return -EFAULT;
    }
    const struct __kernel_timespec own[2] = {{times[0], 0}, {times[1], 0}};
    return set_times(AT_FDCWD, path, own, 0);
}

static int64_t change_dir(int r, struct inode *i)
{
    if (r < 0) {
        return r;
    }
    if (inode_is(i, S_IFDIR)) {
        cwd_set(i);
    } else {
        r = -ENOTDIR;
    }
    inode_unref(i);
    return r;
}

int64_t sys_chdir(const char *path)
{
    struct inode *i = NULL;
    int r = inode_at(AT_FDCWD, path, 0, &i);
    return change_dir(r, i);
}

int files_enter(const char *path)
{
    struct walk w;
    int r = walk_kernel(&w, path, 0);
    if (r == 0) {
        r = w.inode ? (int)change_dir(0, inode_ref(w.inode)) : -ENOENT;
        walk_done(&w);
    }
    return r;
}

int64_t sys_fchdir(int fd)
{
    struct file *f = fd_get(fd);
    if (!f) {
        return -EBADF;
    }
    return f->inode ? change_dir(0, inode_ref(f->inode)) : -ENOTDIR;
}

int64_t sys_getcwd(char *buf, size_t size)
{
    if (!size) {
        return -ERANGE;
    }
    size = size < PATH_LEN_MAX ? size : PATH_LEN_MAX;
    if (!user_writable(buf, size)) {
        return -EFAULT;
    }
    int n = dir_path(cwd_get(), NULL, 0, buf, size);
    return n < 0 ? n : n + 1;
}

int64_t sys_umask(uint32_t mask)
{
    uint32_t old = process_umask;
    process_umask = mask & 0777;
    return old;
}

/* Extended attributes: no file has any. */
static int64_t no_xattr(int r, struct inode *i, const char *name)
{
    if (r < 0) {
        return r;
    }
    inode_unref(i);
    int64_t len = name ? user_strlen(name, XATTR_NAME_MAX_ + 1) : 1;
    return len < 0 ? (len == -ENAMETOOLONG ? -ERANGE : len) : len == 0 ? -ERANGE : -ENODATA;
}

int64_t sys_getxattr(const char *path, const char *name, void *value, size_t size)
{
    (void)value, (void)size;
    struct inode *i = NULL;
    int r = inode_at(AT_FDCWD, path, 0, &i);
    return no_xattr(r, i, name);
}

int64_t sys_lgetxattr(const char *path, const char *name, void *value, size_t size)
{
    (void)value, (void)size;
    struct inode *i = NULL;
    int r = inode_at(AT_FDCWD, path, WALK_NOFOLLOW, &i);
    return no_xattr(r, i, name);
}

int64_t sys_fgetxattr(int fd, const char *name, void *value, size_t size)
{
    (void)value, (void)size;
    struct inode *i = NULL;
    int r = inode_of_fd(fd, &i);
    return no_xattr(r, i, name);
}

static int64_t no_xattrs(int r, struct inode *i)
{
    inode_unref(i);
    return r;
}

int64_t sys_listxattr(const char *path, char *list, size_t size)
{
    (void)list, (void)size;
    struct inode *i = NULL;
    int r = inode_at(AT_FDCWD, path, 0, &i);
    return no_xattrs(r, i);
}

int64_t sys_llistxattr(const char *path, char *list, size_t size)
{
    (void)list, (void)size;
    struct inode *i = NULL;
    int r = inode_at(AT_FDCWD, path, WALK_NOFOLLOW, &i);
    return no_xattrs(r, i);
}

int64_t sys_flistxattr(int fd, char *list, size_t size)
{
    (void)list, (void)size;
    struct inode *i = NULL;
    int r = inode_of_fd(fd, &i);
    return no_xattrs(r, i);
}

/* Nor can it get one. */
static int64_t no_change(int r, struct inode *i, const char *name)
{
    int64_t why = no_xattr(r, i, name);
    return why == -ENODATA ? -EOPNOTSUPP : why;
}

int64_t sys_setxattr(const char *path, const char *name)
{
    return sys_removexattr(path, name);
}

int64_t sys_lsetxattr(const char *path, const char *name)
{
    return sys_lremovexattr(path, name);
}

int64_t sys_fsetxattr(int fd, const char *name)
{
    return sys_fremovexattr(fd, name);
}

int64_t sys_removexattr(const char *path, const char *name)
{
    struct inode *i = NULL;
    int r = inode_at(AT_FDCWD, path, 0, &i);
    return no_change(r, i, name);
}

int64_t sys_lremovexattr(const char *path, const char *name)
{
    struct inode *i = NULL;
    int r = inode_at(AT_FDCWD, path, WALK_NOFOLLOW, &i);
    return no_change(r, i, name);
}

int64_t sys_fremovexattr(int fd, const char *name)
{
    struct inode *i = NULL;
    int r = inode_of_fd(fd, &i);
    return no_change(r, i, name);
}
