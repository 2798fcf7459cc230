/* dev.c - /dev: the devices that programs expect, and getrandom. */
#include "fs/vfs.h"
#include "host.h"
#include "mm.h"
#include "sys_file.h"

#define DEV(major, minor) ((major) << 8 | (minor))

static int64_t null_read(struct file *f, void *to, size_t len, uint64_t *pos)
{
    (void)f, (void)to, (void)len, (void)pos;
    return 0;
}

static int64_t null_write(struct file *f, const void *from, size_t len, uint64_t *pos)
{
    (void)f, (void)from, (void)pos;
    return (int64_t)len;
}

static int64_t zero_read(struct file *f, void *to, size_t len, uint64_t *pos)
{
    (void)f, (void)pos;
    memset(to, 0, len);
    return (int64_t)len;
}

static int64_t full_write(struct file *f, const void *from, size_t len, uint64_t *pos)
{
    (void)f, (void)from, (void)len, (void)pos;
    return -ENOSPC;
}

static int64_t random_read(struct file *f, void *to, size_t len, uint64_t *pos)
{
    (void)f, (void)pos;
    host_random(to, len);
    return (int64_t)len;
}

static const struct file_ops null_ops = {
    .name = "null", .seekable = true, .read = null_read, .write = null_write};
static const struct file_ops zero_ops = {
    .name = "zero", .seekable = true, .read = zero_read, .write = null_write};
static const struct file_ops full_ops = {
    .name = "full", .seekable = true, .read = zero_read, .write = full_write};
static const struct file_ops random_ops = {
    .name = "random", .seekable = true, .read = random_read, .write = null_write};

static int dev_open(struct inode *i, uint32_t flags, struct file **ret)
{
    *ret = file_new(i->n.arg, i, flags, NULL);
    return *ret ? 0 : -ENOMEM;
}

static struct inode *device(struct inode *dir, const char *name, uint32_t number,
                            const struct file_ops *ops)
{
    struct inode *i = inode_new(S_IFCHR | 0666, DEV_ROOT);
    if (!i) {
        return NULL;
    }
    i->links = 1;
    i->rdev = number;
    i->n.open = ops ? dev_open : NULL; /* without: -ENXIO */
    i->n.arg = (void *)(uintptr_t)ops;
    int r = dir_link(dir, name, strlen(name), i);
    inode_unref(i);
    return r < 0 ? NULL : i;
}

static struct inode *null_inode;

struct file *dev_null_open(uint32_t flags)
{
    return file_new(&null_ops, null_inode, flags, NULL);
}

bool file_is_zero(const struct file *f)
{
    return f->ops == &zero_ops;
}

void dev_mount(void)
{
    struct inode *dev = dir_make(dir_root(), "dev", 0755, DEV_ROOT);
    if (!dev) {
        kpanic("no memory for /dev");
    }
    null_inode = device(dev, "null", DEV(1, 3), &null_ops);
    device(dev, "zero", DEV(1, 5), &zero_ops);
    device(dev, "full", DEV(1, 7), &full_ops);
    device(dev, "random", DEV(1, 8), &random_ops);
    device(dev, "urandom", DEV(1, 9), &random_ops);
    device(dev, "tty", DEV(5, 0), NULL);
    link_make(dev, "fd", "/proc/self/fd");
    link_make(dev, "stdin", "/proc/self/fd/0");
    link_make(dev, "stdout", "/proc/self/fd/1");
    link_make(dev, "stderr", "/proc/self/fd/2");
    dir_make(dev, "shm", 01777, DEV_ROOT);
}

int64_t sys_getrandom(void *buf, size_t len, uint32_t flags)
{
    enum { NONBLOCK = 1, RANDOM = 2, INSECURE = 4, HASH_SEED_MAX = 64 };
    if ((flags & ~(uint32_t)(NONBLOCK | RANDOM | INSECURE)) ||
        (flags & (RANDOM | INSECURE)) == (RANDOM | INSECURE)) {
        return -EINVAL;
    }
    len = len < INT32_MAX ? len : INT32_MAX;
    if (!user_writable(buf, len)) {
        return -EFAULT;
    }
    /* Who takes a few of what there is wants to scatter hashes or heap checks, not a secret; a generator
     * begins with more (Python's with 2,496). */
    if (flags & (NONBLOCK | INSECURE) && len <= HASH_SEED_MAX) {
        host_random_at_start(buf, len);
    } else {
        host_random(buf, len);
    }
    return (int64_t)len;
}
