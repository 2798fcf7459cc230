/* inode.c - inodes of every kind: made, counted, described. */
#include "fs/vfs.h"
#include "mm.h"

static uint64_t next_ino = 1ull << 32; /* behind those of the image */

struct inode *inode_new(uint32_t mode, uint64_t dev)
{
    struct inode *i = kalloc(sizeof(*i));
    if (!i) {
        return NULL;
    }
    i->refs = 1;
    i->mode = mode;
    i->dev = dev;
    i->ino = next_ino++;
    i->atime_ns = i->mtime_ns = i->ctime_ns = (int64_t)clock_realtime_ns();
    list_init(&i->linked);
    if (inode_is(i, S_IFDIR)) {
        list_init(&i->d.children);
        i->links = 2;
    }
    return i;
}

struct inode *inode_ref(struct inode *i)
{
    i->refs++;
    return i;
}

void inode_unref(struct inode *i)
{
    if (!i || --i->refs) {
        return;
    }
    switch (i->mode & S_IFMT) {
    case S_IFREG:
        if (i->dev == DEV_ROOT) {
            reg_release(i);
        }
        break;
    case S_IFDIR:
        dir_forget(i);
        break;
    case S_IFLNK:
        if (i->l.owned) {
            kfree(i->l.text);
        }
        break;
    case S_IFIFO:
        fifo_forget(i);
        break;
    default:
        break;
    }
    rootfs_forget(i);
    kfree(i);
}

void inode_touch(struct inode *i)
{
    i->mtime_ns = i->ctime_ns = (int64_t)clock_realtime_ns();
}

void inode_stat(const struct inode *i, struct stat *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->st_dev = i->dev;
    ret->st_ino = i->ino;
    ret->st_nlink = i->links;
    ret->st_mode = i->mode;
    ret->st_uid = i->uid;
    ret->st_gid = i->gid;
    ret->st_rdev = i->rdev;
    ret->st_size = inode_is(i, S_IFDIR) && !i->size ? 4096 : (long)i->size;
    ret->st_blksize = PAGE_SIZE;
    if (inode_is(i, S_IFREG) && i->dev == DEV_ROOT) {
        ret->st_blocks = (long)(reg_pages(i) * 8);
    }
    const long ns = 1000000000;
    ret->st_atime = (unsigned long)(i->atime_ns / ns);
    ret->st_atime_nsec = (unsigned long)(i->atime_ns % ns);
    ret->st_mtime = (unsigned long)(i->mtime_ns / ns);
    ret->st_mtime_nsec = (unsigned long)(i->mtime_ns % ns);
    ret->st_ctime = (unsigned long)(i->ctime_ns / ns);
    ret->st_ctime_nsec = (unsigned long)(i->ctime_ns % ns);
}
