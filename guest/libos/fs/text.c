/* text.c - files whose text is generated when they are opened. */
#include "fs/text.h"
#include "fs/vfs.h"

bool text_reserve(struct text *t, size_t more)
{
    if (t->failed || t->room - t->len >= more) {
        return !t->failed;
    }
    size_t room = t->room ? t->room * 2 : 1024;
    while (room - t->len < more) {
        room *= 2;
    }
    char *bigger = kalloc(room);
    if (!bigger) {
        t->failed = true;
        return false;
    }
    if (t->data) {
        memcpy(bigger, t->data, t->len);
        kfree(t->data);
    }
    t->data = bigger;
    t->room = room;
    return true;
}

void text_bytes(struct text *t, const char *data, size_t len)
{
    if (text_reserve(t, len + 1)) {
        memcpy(t->data + t->len, data, len);
        t->len += len;
    }
}

void text_hex(struct text *t, uint64_t value, unsigned width)
{
    char digits[16];
    unsigned n = sizeof(digits);
    do {
        digits[--n] = "0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value);
    while (sizeof(digits) - n < width) {
        digits[--n] = '0';
    }
    text_bytes(t, digits + n, sizeof(digits) - n);
}

static int64_t text_read(struct file *f, void *to, size_t len, uint64_t *pos)
{
    const struct text *t = f->priv;
    if (*pos >= t->len) {
        return 0;
    }
    size_t left = t->len - *pos;
    len = len < left ? len : left;
    memcpy(to, t->data + *pos, len);
    *pos += len;
    return (int64_t)len;
}

static void text_release(struct file *f)
{
    struct text *t = f->priv;
    kfree(t->data);
    kfree(t);
}

static const struct file_ops text_ops = {
    .name = "text",
    .seekable = true,
    .read = text_read,
    .release = text_release,
};

static int text_open(struct inode *i, uint32_t flags, struct file **ret)
{
    if ((flags & O_ACCMODE) != O_RDONLY) {
        return -EACCES;
    }
    struct text *t = kalloc(sizeof(*t));
    if (!t) {
        return -ENOMEM;
    }
    void (*generate)(struct text *) = (void (*)(struct text *))(uintptr_t)i->n.arg;
    generate(t);
    struct file *f = t->failed ? NULL : file_new(&text_ops, i, flags, t);
    if (!f) {
        kfree(t->data);
        kfree(t);
        return -ENOMEM;
    }
    *ret = f;
    return 0;
}

struct inode *text_file(struct inode *dir, const char *name, void (*generate)(struct text *t))
{
    struct inode *i = inode_new(S_IFREG | 0444, DEV_PROC);
    if (!i) {
        return NULL;
    }
    i->links = 1;
    i->n.open = text_open;
    i->n.arg = (void *)(uintptr_t)generate;
    int r = dir_link(dir, name, strlen(name), i);
    inode_unref(i);
    return r < 0 ? NULL : i;
}
