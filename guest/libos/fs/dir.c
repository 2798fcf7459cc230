/* dir.c - names: listing, making, removing, renaming. */
#include <linux/fs.h>

#include "fs/vfs.h"
#include "mm.h"
#include "sys_file.h"

/* <dirent.h> is the C library's; these are the kernel's records. */
struct dirent64 {
    uint64_t ino;
    int64_t off;
    uint16_t reclen;
    uint8_t type;
    char name[];
};
struct dirent_old { /* the type is in the record's last byte */
    uint64_t ino, off;
    uint16_t reclen;
    char name[];
};
#define DT_DIR 4

/* The item at the file's position: first "." and "..". */
static bool item_at(struct inode *dir, uint64_t pos, struct dir_item *item)
{
    if (pos >= 2) {
        if (!dir_next(dir, pos - 2, item)) {
            return false;
        }
        item->after += 2;
        return true;
    }
    struct inode *up = pos ? dir_parent(dir) : dir;
    item->name = "..";
    item->len = pos + 1;
    item->ino = up ? up->ino : dir->ino;
    item->type = DT_DIR;
    item->after = pos + 1;
    return true;
}

static size_t put_item(char *to, const struct dir_item *item, size_t room, bool old)
{
    size_t head = old ? offsetof(struct dirent_old, name) : offsetof(struct dirent64, name);
    size_t len = (head + item->len + (old ? 2 : 1) + 7) & ~(size_t)7;
    if (len > room) {
        return 0;
    }
    memset(to, 0, len);
    struct dirent64 *d = (struct dirent64 *)(void *)to;
    d->ino = item->ino;
    d->off = (int64_t)item->after;
    d->reclen = (uint16_t)len;
    memcpy(to + head, item->name, item->len);
    if (old) {
        to[len - 1] = (char)item->type;
    } else {
        d->type = (uint8_t)item->type;
    }
    return len;
}

static int64_t list_dir(int fd, char *buf, size_t size, bool old)
{
    struct file *f = fd_get(fd);
    if (!f || (f->flags & O_PATH)) {
        return -EBADF;
    }
    if (f->ops != &dir_file_ops) {
        return -ENOTDIR;
    }
    if (!user_writable(buf, size)) {
        return -EFAULT;
    }
    if (!f->inode->links) {
        return -ENOENT;
    }
    size_t done = 0;
    struct dir_item item;
    while (item_at(f->inode, f->pos, &item)) {
        size_t n = put_item(buf + done, &item, size - done, old);
        if (!n) {
            return done ? (int64_t)done : -EINVAL;
        }
        done += n;
        f->pos = item.after;
    }
    return (int64_t)done;
}

int64_t sys_getdents64(int fd, void *buf, uint32_t size)
{
    return list_dir(fd, buf, size, false);
}

int64_t sys_getdents(int fd, void *buf, uint32_t size)
{
    return list_dir(fd, buf, size, true);
}

/* Gives a new inode the name that was walked to. Takes the inode. */
static int add_name(struct walk *w, struct inode *i)
{
    int r = i ? dir_may_change(w->dir) : -ENOSPC;
    if (r == 0) {
        r = dir_link(w->dir, w->name, w->len, i);
    }
    if (r == 0) {
        inode_touch(w->dir);
    }
    inode_unref(i);
    return r;
}

/* Walks to a name that is to be made: 0 when it is free. */
static int walk_new(struct walk *w, int dirfd, const char *path)
{
    int r = walk(w, dirfd, path, WALK_NAME);
    if (r == 0 && (!w->dir || w->inode || w->file)) {
        walk_done(w);
        r = -EEXIST;
    }
    return r;
}

int64_t sys_mkdirat(int dirfd, const char *path, uint32_t mode)
{
    struct walk w;
    int r = walk_new(&w, dirfd, path);
    if (r < 0) {
        return r;
    }
    r = add_name(&w, inode_new(S_IFDIR | (mode & 01777 & ~process_umask), DEV_ROOT));
    if (r == 0) {
        w.dir->links++;
    }
    walk_done(&w);
    return r;
}

int64_t sys_mkdir(const char *path, uint32_t mode)
{
    return sys_mkdirat(AT_FDCWD, path, mode);
}

int64_t sys_mknodat(int dirfd, const char *path, uint32_t mode, uint64_t dev)
{
    (void)dev;
    uint32_t type = mode & S_IFMT ? mode & S_IFMT : S_IFREG;
    if (type == S_IFDIR || type == S_IFLNK) {
        return -EINVAL;
    }
    if (type != S_IFREG && type != S_IFIFO) {
        return -EPERM;
    }
    struct walk w;
    int r = walk_new(&w, dirfd, path);
    if (r < 0) {
        return r;
    }
    struct inode *i = w.slash ? NULL : inode_new(type | (mode & 07777 & ~process_umask), DEV_ROOT);
    if (i) {
        i->links = 1;
    }
    r = w.slash ? -ENOENT : add_name(&w, i);
    walk_done(&w);
    return r;
}

int64_t sys_mknod(const char *path, uint32_t mode, uint64_t dev)
{
    return sys_mknodat(AT_FDCWD, path, mode, dev);
}

static struct inode *link_new(const char *text, size_t len)
{
    struct inode *i = inode_new(S_IFLNK | 0777, DEV_ROOT);
    char *copy = i ? kalloc(len + 1) : NULL;
    if (!copy) {
        inode_unref(i);
        return NULL;
    }
    memcpy(copy, text, len);
    i->links = 1;
    i->size = len;
    i->l.text = copy;
    i->l.owned = true;
    return i;
}

int64_t sys_symlinkat(const char *text, int dirfd, const char *path)
{
    int64_t len = user_strlen(text, PATH_LEN_MAX);
    if (len <= 0) {
        return len ? len : -ENOENT;
    }
    struct walk w;
    int r = walk_new(&w, dirfd, path);
    if (r < 0) {
        return r;
    }
    r = w.slash ? -ENOENT : add_name(&w, link_new(text, (size_t)len));
    walk_done(&w);
    return r;
}

int64_t sys_symlink(const char *text, const char *path)
{
    return sys_symlinkat(text, AT_FDCWD, path);
}

int64_t sys_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    if (flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)) {
        return -EINVAL;
    }
    struct walk w;
    int r = walk_existing(&w, from_fd, from,
                          (flags & AT_SYMLINK_FOLLOW ? 0 : WALK_NOFOLLOW) |
                              (flags & AT_EMPTY_PATH ? WALK_EMPTY : 0));
    if (r < 0) {
        return r;
    }
    struct inode *i = w.file ? w.file->inode : w.inode;
    if (i) {
        inode_ref(i);
    }
    walk_done(&w);
    r = walk_new(&w, to_fd, to);
    if (r == 0) {
        if (w.slash) {
            r = -ENOENT;
        } else if (!i || i->dev != DEV_ROOT) {
            r = -EXDEV;
        } else {
            r = inode_is(i, S_IFDIR) ? -EPERM : add_name(&w, inode_ref(i));
        }
        walk_done(&w);
    }
    if (r == 0) {
        i->links++;
        i->ctime_ns = (int64_t)clock_realtime_ns();
    }
    inode_unref(i);
    return r;
}

int64_t sys_link(const char *from, const char *to)
{
    return sys_linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* Whether a name may be taken from what it names, here. */
static int may_remove(const struct walk *w)
{
    int r = dir_may_change(w->dir);
    if (r < 0) {
        return r;
    }
    return w->inode->dev != w->dir->dev ? -EBUSY : 0; /* what is mounted there */
}

static int remove_dir(struct walk *w)
{
    if (!w->dir) {
        return w->last == LAST_DOT ? -EINVAL : w->last == LAST_DOTDOT ? -ENOTEMPTY : -EBUSY;
    }
    if (!inode_is(w->inode, S_IFDIR)) {
        return -ENOTDIR;
    }
    int r = may_remove(w);
    if (r == 0 && w->inode->d.live) {
        r = -ENOTEMPTY;
    }
    if (r == 0) {
        w->inode->links = 0;
        w->dir->links--;
        dir_unlink(w->dir, w->name, w->len);
        inode_touch(w->dir);
    }
    return r;
}

static int remove_file(struct walk *w)
{
    if (!w->dir || inode_is(w->inode, S_IFDIR)) {
        return -EISDIR;
    }
    int r = w->slash ? -ENOTDIR : may_remove(w);
    if (r == 0) {
        w->inode->links--;
        w->inode->ctime_ns = (int64_t)clock_realtime_ns();
        dir_unlink(w->dir, w->name, w->len);
        inode_touch(w->dir);
    }
    return r;
}

int64_t sys_unlinkat(int dirfd, const char *path, int flags)
{
    if (flags & ~AT_REMOVEDIR) {
        return -EINVAL;
    }
    struct walk w;
    int r = walk_existing(&w, dirfd, path, WALK_NAME);
    if (r < 0) {
        return r;
    }
    r = !w.inode ? -EPERM : flags & AT_REMOVEDIR ? remove_dir(&w) : remove_file(&w);
    walk_done(&w);
    return r;
}

int64_t sys_unlink(const char *path)
{
    return sys_unlinkat(AT_FDCWD, path, 0);
}

int64_t sys_rmdir(const char *path)
{
    return sys_unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

static bool is_inside(struct inode *dir, const struct inode *other)
{
    for (struct inode *i = dir; i; i = dir_parent(i)) {
        if (i == other) {
            return true;
        }
        if (i == dir_root()) {
            break;
        }
    }
    return false;
}

/* The order of the checks is Linux's, so that the same error wins. */
static int may_rename(const struct walk *from, const struct walk *to, uint32_t flags)
{
    if (!from->dir || !to->dir) {
        return !to->dir && (flags & RENAME_NOREPLACE) && from->dir ? -EEXIST : -EBUSY;
    }
    if (from->dir->dev != to->dir->dev) {
        return -EXDEV;
    }
    if (!from->inode) {
        return -ENOENT;
    }
    if (to->inode && (flags & RENAME_NOREPLACE)) {
        return -EEXIST;
    }
    bool is_dir = inode_is(from->inode, S_IFDIR), exchanges = flags & RENAME_EXCHANGE;
    bool onto_dir = to->inode && inode_is(to->inode, S_IFDIR);
    if (exchanges && !to->inode) {
        return -ENOENT;
    }
    if ((exchanges && to->slash && !onto_dir) || (!is_dir && from->slash) ||
        (!is_dir && !exchanges && to->slash)) {
        return -ENOTDIR;
    }
    if (is_dir && is_inside(to->dir, from->inode)) {
        return -EINVAL;
    }
    if (onto_dir && is_inside(from->dir, to->inode)) {
        return exchanges ? -EINVAL : -ENOTEMPTY;
    }
    if (to->inode == from->inode) {
        return 0;
    }
    int r = may_remove(from);
    if (r == 0) {
        r = to->inode ? may_remove(to) : dir_may_change(to->dir);
    }
    if (r < 0 || exchanges || !to->inode) {
        return r;
    }
    if (is_dir != onto_dir) {
        return is_dir ? -ENOTDIR : -EISDIR;
    }
    return onto_dir && to->inode->d.live ? -ENOTEMPTY : 0;
}

static int exchange(struct walk *from, struct walk *to)
{
    int r = dir_link(to->dir, to->name, to->len, from->inode);
    if (r == 0) {
        /* The name is there: it takes no memory, so that this cannot fail. */
        r = dir_link(from->dir, from->name, from->len, to->inode);
    }
    if (r == 0 && inode_is(from->inode, S_IFDIR) != inode_is(to->inode, S_IFDIR)) {
        bool is_dir = inode_is(from->inode, S_IFDIR);
        from->dir->links += is_dir ? -1u : 1u;
        to->dir->links += is_dir ? 1u : -1u;
    }
    return r;
}

static int replace(struct walk *from, struct walk *to)
{
    int r = dir_link(to->dir, to->name, to->len, from->inode);
    if (r < 0) {
        return r;
    }
    if (to->inode && inode_is(to->inode, S_IFDIR)) {
        to->inode->links = 0;
        to->dir->links--;
    } else if (to->inode) {
        to->inode->links--;
    }
    dir_unlink(from->dir, from->name, from->len);
    if (inode_is(from->inode, S_IFDIR)) {
        from->dir->links--;
        to->dir->links++;
    }
    return 0;
}

int64_t sys_renameat2(int from_fd, const char *from_path, int to_fd, const char *to_path,
                      uint32_t flags)
{
    if ((flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE)) ||
        flags == (RENAME_NOREPLACE | RENAME_EXCHANGE)) {
        return -EINVAL;
    }
    struct walk from, to;
    int r = walk(&from, from_fd, from_path, WALK_NAME);
    if (r < 0) {
        return r;
    }
    r = walk(&to, to_fd, to_path, WALK_NAME);
    if (r == 0) {
        r = from.file || to.file ? -EBUSY : may_rename(&from, &to, flags);
        bool same = from.inode == to.inode; /* two names of one file: both stay */
        if (r == 0 && !same) {
            r = flags & RENAME_EXCHANGE ? exchange(&from, &to) : replace(&from, &to);
        }
        if (r == 0) {
            inode_touch(from.dir);
            inode_touch(to.dir);
        }
        walk_done(&to);
    }
    walk_done(&from);
    return r;
}

int64_t sys_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return sys_renameat2(from_fd, from, to_fd, to, 0);
}

int64_t sys_rename(const char *from, const char *to)
{
    return sys_renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int64_t sys_mount(void)
{
    return -EPERM;
}

int64_t sys_umount2(void)
{
    return -EPERM;
}

int64_t sys_chroot(void)
{
    return -EPERM;
}

int64_t sys_pivot_root(void)
{
    return -EPERM;
}

/* For the kernel's own trees. */
struct inode *dir_make(struct inode *dir, const char *name, uint32_t mode, uint64_t dev)
{
    struct inode *i = inode_new(S_IFDIR | mode, dev);
    int r = i ? dir_link(dir, name, strlen(name), i) : -ENOMEM;
    inode_unref(i);
    if (r < 0) {
        return NULL;
    }
    dir->links++;
    return i;
}

struct inode *link_make(struct inode *dir, const char *name, const char *text)
{
    struct inode *i = link_new(text, strlen(text));
    if (i) {
        i->dev = dir->dev;
    }
    int r = i ? dir_link(dir, name, strlen(name), i) : -ENOMEM;
    inode_unref(i);
    return r < 0 ? NULL : i;
}
