/* path.c - the walk along a path: names, dots, symbolic links. */
#include <linux/limits.h>

#include "fs/vfs.h"
#include "mm.h"

uint32_t process_umask = 022;
static struct inode *cwd;

struct inode *cwd_get(void)
{
    return cwd ? cwd : dir_root();
}

void cwd_set(struct inode *dir)
{
    inode_ref(dir);
    inode_unref(cwd);
    cwd = dir;
}

/* Takes the reference to `next`. */
static void step(struct walk *w, struct inode *next)
{
    inode_unref(w->inode);
    w->inode = next;
}

static void set_dir(struct walk *w, struct inode *dir)
{
    if (dir) {
        inode_ref(dir);
    }
    inode_unref(w->dir);
    w->dir = dir;
}

static int walk_text(struct walk *w, const char *p, size_t len, bool final);

/* `link` (borrowed) stands where the walk is: w->inode is the directory that holds it. */
static int follow(struct walk *w, struct inode *link, bool final)
{
    if (++w->links > LINKS_MAX) {
        return -ELOOP;
    }
    if (!link->l.follow) {
        /* The link's text outlives the walk: nothing blocks or unlinks in between. */
        return walk_text(w, link->l.text, link->size, final);
    }
    struct inode *to = NULL;
    struct file *file = NULL;
    int r = link->l.follow(link, &to, &file);
    if (r < 0) {
        return r;
    }
    if (file && file->inode && !final) {
        to = inode_ref(file->inode);
        file_unref(file);
        file = NULL;
    }
    if (file && !final) {
        file_unref(file);
        return -ENOTDIR;
    }
    set_dir(w, NULL);
    step(w, to);
    w->file = file;
    return 0;
}

/* One name, not "." or "..". `last`: nothing but slashes follow. */
static int walk_name(struct walk *w, const char *name, size_t len, bool last)
{
    if (len > NAME_LEN_MAX) {
        return -ENAMETOOLONG;
    }
    if (last && w->slash && (w->flags & WALK_CREATE)) {
        return -EISDIR;
    }
    struct inode *temporary;
    struct inode *next = dir_lookup(w->inode, name, len, &temporary);
    if (!next && !last) {
        return -ENOENT;
    }
    bool follows = !last || (!(w->flags & WALK_NAME) && (w->slash || !(w->flags & WALK_NOFOLLOW)));
    if (next && inode_is(next, S_IFLNK) && follows) {
        inode_ref(next);
        int r = follow(w, next, last);
        inode_unref(next);
        inode_unref(temporary);
        return r;
    }
    if (last) {
        set_dir(w, w->inode);
        w->name = name;
        w->len = len;
        w->last = LAST_NAME;
    }
    step(w, next && !temporary ? inode_ref(next) : next);
    return 0;
}

static int walk_dot(struct walk *w, size_t dots, bool last)
{
    if (dots == 2) {
        struct inode *up = dir_parent(w->inode);
        if (!up) {
            return -ENOENT;
        }
        step(w, inode_ref(up));
    }
    if (last) {
        set_dir(w, NULL);
        w->last = dots == 2 ? LAST_DOTDOT : LAST_DOT;
    }
    return 0;
}

/* Walks from w->inode. `final`: the text's last name is the path's. */
static int walk_text(struct walk *w, const char *p, size_t len, bool final)
{
    const char *end = p + len;
    if (p == end) {
        return -ENOENT;
    }
    if (*p == '/') {
        step(w, inode_ref(dir_root()));
        if (final) {
            set_dir(w, NULL);
            w->last = LAST_ROOT;
        }
    }
    while (true) {
        while (p < end && *p == '/') {
            p++;
        }
        if (p == end) {
            return 0;
        }
        const char *name = p;
        while (p < end && *p != '/') {
            p++;
        }
        size_t name_len = (size_t)(p - name);
        const char *rest = p;
        while (rest < end && *rest == '/') {
            rest++;
        }
        bool last = final && rest == end;
        if (last && rest > p) {
            w->slash = true;
        }
        if (!w->inode || w->file) {
            return -ENOENT;
        }
        if (!inode_is(w->inode, S_IFDIR)) {
            return -ENOTDIR;
        }
        int r;
        if (name[0] == '.' && (name_len == 1 || (name_len == 2 && name[1] == '.'))) {
            r = walk_dot(w, name_len, last);
        } else {
            r = walk_name(w, name, name_len, last);
        }
        if (r < 0) {
            return r;
        }
    }
}

static int start_at(int dirfd, struct inode **ret)
{
    if (dirfd == AT_FDCWD) {
        *ret = inode_ref(cwd_get());
        return 0;
    }
    struct file *f = fd_get(dirfd);
    if (!f) {
        return -EBADF;
    }
    if (!f->inode || !inode_is(f->inode, S_IFDIR)) {
        return -ENOTDIR;
    }
    *ret = inode_ref(f->inode);
    return 0;
}

static int walk_from(struct walk *w, struct inode *start, const char *path, size_t len)
{
    w->inode = start;
    int r = walk_text(w, path, len, true);
    if (r == 0 && w->slash && !(w->flags & WALK_NAME) && w->inode && !inode_is(w->inode, S_IFDIR)) {
        r = -ENOTDIR;
    }
    if (r < 0) {
        walk_done(w);
    }
    return r;
}

static int walk_empty(struct walk *w, int dirfd)
{
    if (dirfd == AT_FDCWD) {
        w->inode = inode_ref(cwd_get());
        return 0;
    }
    struct file *f = fd_get(dirfd);
    if (!f) {
        return -EBADF;
    }
    if (f->inode) {
        w->inode = inode_ref(f->inode);
    } else {
        w->file = file_ref(f);
    }
    return 0;
}

int walk(struct walk *w, int dirfd, const char *path, unsigned flags)
{
    memset(w, 0, sizeof(*w));
    w->flags = flags;
    int64_t len = user_strlen(path, PATH_LEN_MAX);
    if (len < 0) {
        return (int)len;
    }
    if (len == 0) {
        return flags & WALK_EMPTY ? walk_empty(w, dirfd) : -ENOENT;
    }
    struct inode *start;
    int r = path[0] == '/' ? 0 : start_at(dirfd, &start);
    if (r < 0) {
        return r;
    }
    if (path[0] == '/') {
        start = inode_ref(dir_root());
    }
    return walk_from(w, start, path, (size_t)len);
}

int walk_kernel(struct walk *w, const char *path, unsigned flags)
{
    memset(w, 0, sizeof(*w));
    w->flags = flags;
    struct inode *start = path[0] == '/' ? dir_root() : cwd_get();
    return walk_from(w, inode_ref(start), path, strlen(path));
}

int walk_existing(struct walk *w, int dirfd, const char *path, unsigned flags)
{
    int r = walk(w, dirfd, path, flags);
    if (r == 0 && !w->inode && !w->file) {
        walk_done(w);
        r = -ENOENT;
    }
    if (r == -ENOENT) {
        absent_note(path);
    }
    return r;
}

void walk_done(struct walk *w)
{
    inode_unref(w->dir);
    inode_unref(w->inode);
    file_unref(w->file);
    w->dir = w->inode = NULL;
    w->file = NULL;
}
