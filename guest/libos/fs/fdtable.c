/* fdtable.c - open files and the table of descriptors. */
#include "fs/vfs.h"

struct descriptor {
    struct file *file;
    bool cloexec;
};

static struct descriptor *table;
static int table_size;
static int lowest; /* no descriptor below it is free */

struct file *file_new(const struct file_ops *ops, struct inode *inode, uint32_t flags, void *priv)
{
    struct file *f = kalloc(sizeof(*f));
    if (!f) {
        return NULL;
    }
    f->ops = ops;
    f->inode = inode ? inode_ref(inode) : NULL;
    f->refs = 1;
    f->flags = flags & ~(uint32_t)(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC);
    f->priv = priv;
    list_init(&f->epolls);
    return f;
}

struct file *file_ref(struct file *f)
{
    f->refs++;
    return f;
}

void file_unref(struct file *f)
{
    if (!f || --f->refs) {
        return;
    }
    if (f->ops->ready) {
        readiness_changed(f->ops->ready(f)); /* nobody is to wait on what goes away */
    }
    epoll_forget(f);
    locks_release(f);
    if (f->ops->release) {
        f->ops->release(f);
    }
    inode_unref(f->inode);
    kfree(f->path);
    kfree(f);
}

const char *file_path(const struct file *f)
{
    return f->path ? f->path : "";
}

struct file *fd_get(int fd)
{
    return fd >= 0 && fd < table_size ? table[fd].file : NULL;
}

struct file *fd_get_ref(int fd)
{
    struct file *f = fd_get(fd);
    return f ? file_ref(f) : NULL;
}

int fd_get_for_read(int fd, struct file **ret)
{
    struct file *f = fd_get(fd);
    if (!f || (f->flags & O_PATH) || (f->flags & O_ACCMODE) == O_WRONLY) {
        return -EBADF;
    }
    *ret = file_ref(f);
    return 0;
}

int fd_get_for_write(int fd, struct file **ret)
{
    struct file *f = fd_get(fd);
    if (!f || (f->flags & O_PATH) || (f->flags & O_ACCMODE) == O_RDONLY) {
        return -EBADF;
    }
    *ret = file_ref(f);
    return 0;
}

bool fd_cloexec(int fd)
{
    return table[fd].cloexec;
}

void fd_set_cloexec(int fd, bool on)
{
    table[fd].cloexec = on;
}

int fd_count(void)
{
    return table_size;
}

static int table_reach(int fd)
{
    if (fd < table_size) {
        return 0;
    }
    int size = table_size ? table_size : 64;
    while (size <= fd) {
        size *= 2;
    }
    struct descriptor *bigger = kalloc((size_t)size * sizeof(*bigger));
    if (!bigger) {
        return -ENOMEM;
    }
    if (table) {
        memcpy(bigger, table, (size_t)table_size * sizeof(*table));
        kfree(table);
    }
    table = bigger;
    table_size = size;
    return 0;
}

int fd_install(struct file *f, int least, bool cloexec)
{
    if (least < 0 || least >= FD_MAX) {
        return -EINVAL;
    }
    int fd = least > lowest ? least : lowest;
    while (fd < table_size && table[fd].file) {
        fd++;
    }
    if (fd >= FD_MAX) {
        return -EMFILE;
    }
    int r = table_reach(fd);
    if (r < 0) {
        return r;
    }
    if (least <= lowest) {
        lowest = fd + 1;
    }
    table[fd] = (struct descriptor){f, cloexec};
    return fd;
}

int fd_install_flags(struct file *f, uint32_t flags)
{
    int fd = fd_install(f, 0, flags & O_CLOEXEC);
    if (fd < 0) {
        file_unref(f);
    }
    return fd;
}

int fd_install_anonymous(const struct file_ops *ops, void *priv, uint32_t flags)
{
    struct file *f = file_new(ops, NULL, O_RDWR | (flags & O_NONBLOCK), priv);
    if (!f) {
        kfree(priv);
        return -ENOMEM;
    }
    return fd_install_flags(f, flags);
}

void file_free_priv(struct file *f)
{
    kfree(f->priv);
}

int fd_install_at(struct file *f, int fd, bool cloexec)
{
    if (fd < 0 || fd >= FD_MAX) {
        return -EBADF;
    }
    int r = table_reach(fd);
    if (r < 0) {
        return r;
    }
    struct file *old = table[fd].file;
    table[fd] = (struct descriptor){f, cloexec};
    if (old) {
        locks_release_process(old);
    }
    file_unref(old);
    return fd;
}

int fd_close(int fd)
{
    struct file *f = fd_get(fd);
    if (!f) {
        return -EBADF;
    }
    table[fd].file = NULL;
    if (fd < lowest) {
        lowest = fd;
    }
    locks_release_process(f);
    file_unref(f);
    return 0;
}
