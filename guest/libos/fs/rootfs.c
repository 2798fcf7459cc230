/* rootfs.c - the root file system of the image (unid/rootfs.h): inodes made as they are looked up.
 *
 * The structure is trusted as said there; only what marks it is checked.
 */
#include "fs/vfs.h"
#include "mm.h"

static const struct unid_rootfs *image;
static uint64_t image_phys;
static struct list several_names = {&several_names, &several_names};

static const void *at(uint64_t offset)
{
    return (const char *)image + offset;
}

static const struct unid_rootfs_inode *image_inode(uint32_t number)
{
    return (const struct unid_rootfs_inode *)at(image->inodes) + number;
}

static const struct unid_rootfs_dirent *image_dirent(uint32_t number)
{
    return (const struct unid_rootfs_dirent *)at(image->dirents) + number;
}

static const char *image_string(uint32_t offset)
{
    return (const char *)at(image->strings) + offset;
}

/* The inode in memory for one of the image. */
static struct inode *instantiate(uint32_t number)
{
    const struct unid_rootfs_inode *from = image_inode(number);
    bool shared = from->links > 1 && (from->mode & S_IFMT) != S_IFDIR;
    if (shared) {
        list_for (node, &several_names) {
            struct inode *i = container_of(node, struct inode, linked);
            if (i->image == number + 1) {
                return inode_ref(i);
            }
        }
    }
    struct inode *i = inode_new(from->mode, DEV_ROOT);
    if (!i) {
        return NULL;
    }
    i->image = number + 1;
    i->ino = number + 1;
    i->uid = from->uid;
    i->gid = from->gid;
    i->links = from->links ? from->links : 1;
    i->size = from->size;
    i->atime_ns = i->mtime_ns = i->ctime_ns = from->mtime_s * 1000000000;
    switch (from->mode & S_IFMT) {
    case S_IFREG:
        i->r.base = image_phys + from->data;
        i->r.base_pages = page_up(from->size) / PAGE_SIZE;
        break;
    case S_IFDIR:
        i->d.live = from->count;
        i->size = 0;
        break;
    case S_IFLNK:
        i->l.text = (char *)(uintptr_t)at(from->data);
        break;
    default:
        break;
    }
    if (shared) {
        list_add_tail(&several_names, &i->linked);
    }
    return i;
}

int rootfs_mount(uint64_t phys, uint64_t size)
{
    const struct unid_rootfs *r = phys_to_virt(phys);
    if (size < sizeof(*r) || r->magic != UNID_ROOTFS_MAGIC || r->version != UNID_ROOTFS_VERSION ||
        !r->inode_count || r->size > size) {
        return -EINVAL;
    }
    image = r;
    image_phys = phys;
    return rootfs_mount_again();
}

int rootfs_mount_again(void)
{
    while (!list_empty(&several_names)) {
        list_del(several_names.next); /* who still has one, has the old tree's */
    }
    struct inode *root = image ? instantiate(0) : inode_new(S_IFDIR | 0755, DEV_ROOT);
    if (!root) {
        return -ENOMEM;
    }
    dir_set_root(root);
    inode_unref(root);
    return 0;
}

static const struct unid_rootfs_dirent *find(const struct inode *dir, const char *name, size_t len)
{
    const struct unid_rootfs_inode *d = image_inode(dir->image - 1);
    uint32_t low = 0, high = d->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct unid_rootfs_dirent *e = image_dirent(d->dirents + middle);
        size_t common = e->name_len < len ? e->name_len : len;
        int order = memcmp(image_string(e->name), name, common);
        if (order == 0) {
            if (e->name_len == len) {
                return e;
            }
            order = e->name_len < len ? -1 : 1;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

struct inode *rootfs_lookup(struct inode *dir, const char *name, size_t len)
{
    const struct unid_rootfs_dirent *e = find(dir, name, len);
    return e ? instantiate(e->inode) : NULL;
}

bool rootfs_has(const struct inode *dir, const char *name, size_t len)
{
    return find(dir, name, len) != NULL;
}

uint32_t rootfs_dir_count(const struct inode *dir)
{
    return image_inode(dir->image - 1)->count;
}

const char *rootfs_dir_entry(const struct inode *dir, uint32_t index, size_t *ret_len,
                             uint32_t *ret_type, uint64_t *ret_ino)
{
    const struct unid_rootfs_dirent *e = image_dirent(image_inode(dir->image - 1)->dirents + index);
    *ret_len = e->name_len;
    *ret_type = e->type;
    *ret_ino = e->inode + 1;
    return image_string(e->name);
}

void rootfs_forget(struct inode *inode)
{
    list_del(&inode->linked);
}

bool rootfs_stubs(const struct inode *inode, struct file_stubs *ret)
{
    if (!inode->image || !image_inode(inode->image - 1)->stubs) {
        return false;
    }
    const struct unid_rootfs_inode *from = image_inode(inode->image - 1);
    ret->phys = image_phys + from->stubs;
    ret->size = page_up(from->stubs_size);
    ret->vaddr = from->stubs_vaddr;
    return true;
}

const char *rootfs_program(void)
{
    return image ? image_string(image->program) : "";
}
