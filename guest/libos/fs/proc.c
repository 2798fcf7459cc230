/* proc.c - /proc and /sys: links and directories of the process, and the tables of files.
 *
 * The texts are in proc_text.c. Formats: proc(5).
 */
#include "fs/proc.h"
#include "fs/text.h"
#include "fs/vfs.h"

static int exe_follow(struct inode *link, struct inode **ret_inode, struct file **ret_file)
{
    (void)link, (void)ret_file;
    struct walk w;
    int r = walk_kernel(&w, process_exe(), 0);
    if (r < 0) {
        return r;
    }
    *ret_inode = w.inode ? inode_ref(w.inode) : NULL;
    walk_done(&w);
    return *ret_inode ? 0 : -ENOENT;
}

static int copy_text(const char *text, char *to, size_t size)
{
    size_t len = strlen(text);
    len = len < size ? len : size;
    memcpy(to, text, len);
    return (int)len;
}

static int exe_describe(struct inode *link, char *to, size_t size)
{
    (void)link;
    return copy_text(process_exe(), to, size);
}

static int cwd_follow(struct inode *link, struct inode **ret_inode, struct file **ret_file)
{
    (void)link, (void)ret_file;
    *ret_inode = inode_ref(cwd_get());
    return 0;
}

static int cwd_describe(struct inode *link, char *to, size_t size)
{
    (void)link;
    char *path = kalloc(PATH_LEN_MAX);
    if (!path) {
        return -ENOMEM;
    }
    int n = dir_path(cwd_get(), NULL, 0, path, PATH_LEN_MAX);
    n = n < 0 ? n : copy_text(path, to, size);
    kfree(path);
    return n;
}

static int fd_follow(struct inode *link, struct inode **ret_inode, struct file **ret_file)
{
    (void)ret_inode;
    *ret_file = fd_get_ref((int)link->l.arg);
    return *ret_file ? 0 : -ENOENT;
}

static int fd_describe(struct inode *link, char *to, size_t size)
{
    struct file *f = fd_get((int)link->l.arg);
    if (!f) {
        return -ENOENT;
    }
    if (f->path) {
        return copy_text(f->path, to, size);
    }
    char text[64];
    struct stat st;
    int r = file_stat(f, &st);
    if (r < 0) {
        return r;
    }
    if (f->inode && inode_is(f->inode, S_IFCHR)) {
        kformat(text, sizeof(text), "/dev/%s", f->ops->name);
    } else if (strncmp(f->ops->name, "anon_inode:", 11) == 0) {
        kformat(text, sizeof(text), "%s", f->ops->name);
    } else {
        kformat(text, sizeof(text), "%s:[%lu]", f->ops->name, (unsigned long)st.st_ino);
    }
    return copy_text(text, to, size);
}

static struct inode *magic_link(int (*follow)(struct inode *, struct inode **, struct file **),
                                int (*describe)(struct inode *, char *, size_t), uint64_t arg)
{
    struct inode *i = inode_new(S_IFLNK | 0777, DEV_PROC);
    if (i) {
        i->links = 1;
        i->l.follow = follow;
        i->l.describe = describe;
        i->l.arg = arg;
    }
    return i;
}

static struct inode *fd_lookup(struct inode *dir, const char *name, size_t len)
{
    (void)dir;
    uint64_t fd = 0;
    if (!len || len > 9 || (name[0] == '0' && len > 1)) {
        return NULL;
    }
    for (size_t n = 0; n < len; n++) {
        if (name[n] < '0' || name[n] > '9') {
            return NULL;
        }
        fd = fd * 10 + (uint64_t)(name[n] - '0');
    }
    return fd_get((int)fd) ? magic_link(fd_follow, fd_describe, fd) : NULL;
}

static bool fd_list(struct inode *dir, uint64_t *place, char *name, size_t size, uint32_t *ret_type)
{
    (void)dir;
    while (*place < (uint64_t)fd_count() && !fd_get((int)*place)) {
        ++*place;
    }
    if (*place >= (uint64_t)fd_count()) {
        return false;
    }
    kformat(name, size, "%lu", (unsigned long)*place);
    *ret_type = S_IFLNK >> 12;
    return true;
}

static const struct dir_ops fd_dir_ops = {.lookup = fd_lookup, .list = fd_list};

static void put_link(struct inode *dir, const char *name, struct inode *i)
{
    if (!i || dir_link(dir, name, strlen(name), i) < 0) {
        kpanic("no memory for /proc/self/%s", name);
    }
    inode_unref(i);
}

static struct inode *must_dir(struct inode *dir, const char *name)
{
    struct inode *i = dir_make(dir, name, 0555, DEV_PROC);
    if (!i) {
        kpanic("no memory for /proc/%s", name);
    }
    return i;
}

static void must_file(struct inode *dir, const char *name, void (*generate)(struct text *))
{
    if (!text_file(dir, name, generate)) {
        kpanic("no memory for /proc/%s", name);
    }
}

/* The directory of the process; also that of its first task. */
static void fill_process(struct inode *dir)
{
    put_link(dir, "exe", magic_link(exe_follow, exe_describe, 0));
    put_link(dir, "cwd", magic_link(cwd_follow, cwd_describe, 0));
    link_make(dir, "root", "/");
    must_dir(dir, "fd")->d.ops = &fd_dir_ops;
    for (const struct proc_text *t = proc_process_texts; t->name; t++) {
        must_file(dir, t->name, t->generate);
    }
}

/* Makes "a/b/c" below `dir` with its directories. */
static void put_deep(struct inode *dir, const char *path, void (*generate)(struct text *))
{
    const char *slash;
    while (true) {
        for (slash = path; *slash && *slash != '/'; slash++) {
        }
        if (!*slash) {
            break;
        }
        char name[32];
        struct inode *temporary;
        kformat(name, sizeof(name), "%.*s", (int)(slash - path), path);
        struct inode *next = dir_lookup(dir, name, strlen(name), &temporary);
        dir = next ? next : must_dir(dir, name);
        path = slash + 1;
    }
    must_file(dir, path, generate);
}

void proc_mount(void)
{
    struct inode *proc = must_dir(dir_root(), "proc");
    struct inode *self = must_dir(proc, "1");
    fill_process(self);
    fill_process(must_dir(must_dir(self, "task"), "1"));
    link_make(proc, "self", "1");
    link_make(proc, "thread-self", "1/task/1");
    link_make(proc, "mounts", "self/mounts");
    for (const struct proc_text *t = proc_texts; t->name; t++) {
        put_deep(proc, t->name, t->generate);
    }
    struct inode *sys = must_dir(dir_root(), "sys");
    for (const struct proc_text *t = sys_texts; t->name; t++) {
        put_deep(sys, t->name, t->generate);
    }
}
