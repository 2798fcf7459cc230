/* dentry.c - the names in directories: one hash table for all of them (vfs.h). */
#include "fs/vfs.h"

#define DIRENT_TYPE(mode) (((mode)&S_IFMT) >> 12) /* DT_* */

static struct dentry **table;
static uint32_t table_size; /* a power of two */
static uint32_t table_used;
static struct inode *root;

struct inode *dir_root(void)
{
    return root;
}

void dir_set_root(struct inode *i)
{
    inode_unref(root);
    root = inode_ref(i);
}

/* FNV-1a over the name, begun with the directory's number. */
static uint32_t name_hash(const struct inode *dir, const char *name, size_t len)
{
    uint32_t h = 2166136261u ^ (uint32_t)dir->ino ^ (uint32_t)(dir->dev << 24);
    for (size_t n = 0; n < len; n++) {
        h = (h ^ (uint8_t)name[n]) * 16777619u;
    }
    return h ^ h >> 15;
}

static bool table_grow(void)
{
    uint32_t size = table_size ? table_size * 2 : 256;
    struct dentry **bigger = kalloc(size * sizeof(*bigger));
    if (!bigger) {
        return table_size != 0; /* a full table is slow, not wrong */
    }
    for (uint32_t n = 0; n < table_size; n++) {
        for (struct dentry *d = table[n], *next; d; d = next) {
            next = d->hash_next;
            d->hash_next = bigger[d->hash & (size - 1)];
            bigger[d->hash & (size - 1)] = d;
        }
    }
    kfree(table);
    table = bigger;
    table_size = size;
    return true;
}

static struct dentry *find(const struct inode *dir, const char *name, size_t len)
{
    if (!table) {
        return NULL;
    }
    uint32_t hash = name_hash(dir, name, len);
    for (struct dentry *d = table[hash & (table_size - 1)]; d; d = d->hash_next) {
        if (d->hash == hash && d->dir == dir && d->len == len && !memcmp(d->name, name, len)) {
            return d;
        }
    }
    return NULL;
}

/* A dentry that has no inode yet. */
static struct dentry *dentry_new(struct inode *dir, const char *name, size_t len, bool image)
{
    if (table_used >= table_size && !table_grow()) {
        return NULL;
    }
    struct dentry *d = kalloc(sizeof(*d) + len + 1);
    if (!d) {
        return NULL;
    }
    d->dir = dir;
    d->len = (uint16_t)len;
    d->image = image;
    memcpy(d->name, name, len);
    d->hash = name_hash(dir, name, len);
    if (!image) {
        d->cookie = ++dir->d.next_cookie;
    }
    d->hash_next = table[d->hash & (table_size - 1)];
    table[d->hash & (table_size - 1)] = d;
    table_used++;
    list_add_tail(&dir->d.children, &d->sibling);
    return d;
}

static void dentry_free(struct dentry *d)
{
    struct dentry **at = &table[d->hash & (table_size - 1)];
    while (*at != d) {
        at = &(*at)->hash_next;
    }
    *at = d->hash_next;
    table_used--;
    list_del(&d->sibling);
    kfree(d);
}

/* Ties a dentry to what it names. */
static void dentry_set(struct dentry *d, struct inode *inode)
{
    d->inode = inode_ref(inode);
    if (inode_is(inode, S_IFDIR)) {
        inode->d.self = d;
    }
}

struct inode *dir_lookup(struct inode *dir, const char *name, size_t len,
                         struct inode **ret_temporary)
{
    *ret_temporary = NULL;
    struct dentry *d = find(dir, name, len);
    if (d) {
        return d->inode;
    }
    if (dir->d.ops) {
        return *ret_temporary = dir->d.ops->lookup(dir, name, len);
    }
    struct inode *i = dir->image ? rootfs_lookup(dir, name, len) : NULL;
    if (!i) {
        return NULL;
    }
    d = dentry_new(dir, name, len, true);
    if (!d) {
        return *ret_temporary = i; /* works this once */
    }
    dentry_set(d, i);
    inode_unref(i);
    return i;
}

int dir_link(struct inode *dir, const char *name, size_t len, struct inode *inode)
{
    if (dir->d.ops) {
        return -EPERM;
    }
    if (len > NAME_LEN_MAX) {
        return -ENAMETOOLONG;
    }
    struct dentry *d = find(dir, name, len);
    if (!d) {
        bool image = dir->image && rootfs_has(dir, name, len);
        d = dentry_new(dir, name, len, image);
        if (!d) {
            return -ENOSPC;
        }
        if (!image) {
            dir->d.live++;
        }
    } else if (d->inode) {
        struct inode *old = d->inode;
        d->inode = NULL;
        if (inode_is(old, S_IFDIR) && old->d.self == d) { /* it may have another name by now */
            old->d.self = NULL;
        }
        inode_unref(old);
    } else {
        dir->d.live++;
    }
    dentry_set(d, inode);
    return 0;
}

void dir_unlink(struct inode *dir, const char *name, size_t len)
{
    struct dentry *d = find(dir, name, len);
    struct inode *old = d ? d->inode : NULL;
    if (!old) {
        return;
    }
    if (inode_is(old, S_IFDIR) && old->d.self == d) {
        old->d.self = NULL;
    }
    d->inode = NULL;
    dir->d.live--;
    if (!d->image) {
        dentry_free(d);
    }
    inode_unref(old);
}

void dir_forget(struct inode *dir)
{
    while (!list_empty(&dir->d.children)) {
        struct dentry *d = container_of(dir->d.children.next, struct dentry, sibling);
        struct inode *i = d->inode;
        dentry_free(d);
        if (i && inode_is(i, S_IFDIR)) {
            i->d.self = NULL;
            /* Its names are taken over rather than left to a recursion as deep as the tree. */
            while (i->refs == 1 && !list_empty(&i->d.children)) {
                struct list *node = i->d.children.next;
                list_del(node);
                list_add_tail(&dir->d.children, node);
            }
        }
        inode_unref(i);
    }
}

struct inode *dir_parent(struct inode *dir)
{
    if (dir == root) {
        return root;
    }
    return dir->d.self ? dir->d.self->dir : NULL;
}

int dir_may_change(const struct inode *dir)
{
    if (dir->dev == DEV_PROC) {
        return -EPERM;
    }
    return dir->links ? 0 : -ENOENT;
}

int dir_path(struct inode *dir, const char *name, size_t len, char *to, size_t size)
{
    size_t need = name ? len + 1 : 0;
    for (struct inode *i = dir; i != root; i = i->d.self->dir) {
        if (!i->d.self) {
            return -ENOENT;
        }
        need += i->d.self->len + 1u;
    }
    if (need == 0) {
        need = 1;
    }
    if (need + 1 > size) {
        return -ERANGE;
    }
    size_t at = need;
    to[0] = '/';
    to[at] = '\0';
    if (name) {
        at -= len;
        memcpy(to + at, name, len);
        to[--at] = '/';
    }
    for (struct inode *i = dir; i != root; i = i->d.self->dir) {
        at -= i->d.self->len;
        memcpy(to + at, i->d.self->name, i->d.self->len);
        to[--at] = '/';
    }
    return (int)need;
}

/* Places: the image's entries by number, then the others by cookie (which begins with 1). */
static bool next_of_image(struct inode *dir, uint64_t place, uint64_t count, struct dir_item *ret)
{
    for (; place < count; place++) {
        ret->name = rootfs_dir_entry(dir, (uint32_t)place, &ret->len, &ret->type, &ret->ino);
        struct dentry *d = find(dir, ret->name, ret->len);
        if (d && !d->inode) {
            continue;
        }
        if (d) {
            ret->ino = d->inode->ino;
            ret->type = DIRENT_TYPE(d->inode->mode);
        }
        ret->after = place + 1;
        return true;
    }
    return false;
}

bool dir_next(struct inode *dir, uint64_t place, struct dir_item *ret)
{
    if (dir->d.ops) {
        ret->ino = dir->ino + 1 + place;
        if (!dir->d.ops->list(dir, &place, ret->buffer, sizeof(ret->buffer), &ret->type)) {
            return false;
        }
        ret->name = ret->buffer;
        ret->len = strlen(ret->buffer);
        ret->after = place + 1;
        return true;
    }
    uint64_t count = dir->image ? rootfs_dir_count(dir) : 0;
    if (place < count && next_of_image(dir, place, count, ret)) {
        return true;
    }
    uint64_t cookie = place < count ? 1 : place - count + 1;
    list_for (node, &dir->d.children) {
        struct dentry *d = container_of(node, struct dentry, sibling);
        if (!d->image && d->inode && d->cookie >= cookie) {
            ret->name = d->name;
            ret->len = d->len;
            ret->ino = d->inode->ino;
            ret->type = DIRENT_TYPE(d->inode->mode);
            ret->after = count + d->cookie;
            return true;
        }
    }
    return false;
}
