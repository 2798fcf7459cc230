/* layers.c - see layers.h. A directory's names stand in a tree of tsearch(3), by their bytes. */
#include "cli/container/layers.h"

#include <archive_entry.h>
#include <errno.h>
#include <limits.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/limits.h"

#define WHITEOUT      ".wh."
#define WHITEOUT_META ".wh..wh." /* of union file systems; only the next has a meaning here */
#define OPAQUE        ".wh..wh..opq"

enum { LINKS_FOLLOWED = 40 }; /* as Linux */

struct node;

struct inode {
    unsigned names;
    mode_t mode;
    int64_t uid, gid, mtime_s;
    uint64_t at, size;
    char *text;
    const struct node *first; /* the name that was listed first */
};

struct node {
    struct node *parent; /* NULL: the root */
    char *name;
    size_t path_len;
    unsigned layer; /* the highest that has named it */
    struct inode *inode;
    void *children; /* tsearch(3) */
};

struct layers {
    int fd;
    uint64_t end;
    unsigned layer; /* that is being put on top, from 1 on */
    size_t count;
    size_t names; /* bytes of names and links, those replaced included */
    unsigned left_out;
    struct node *root;
};

static int no_memory(struct un_error *err)
{
    return un_error_set(err, -ENOMEM, "out of memory");
}

/* --- the tree --------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct node *)a)->name, ((const struct node *)b)->name);
}

static struct node *child_of(struct node *dir, const char *name)
{
    struct node key = {.name = (char *)name};
    struct node **there = tfind(&key, &dir->children, by_name);
    return there ? *there : NULL;
}

struct listing {
    struct node **nodes; /* NULL: only counted */
    size_t count;
};

static void list_one(const void *at, VISIT visit, void *arg)
{
    struct listing *list = arg;
    if (visit == postorder || visit == leaf) {
        if (list->nodes) {
            list->nodes[list->count] = *(struct node *const *)at;
        }
        list->count++;
    }
}

/* The nodes of a directory by name (free the array); false: out of memory. */
static bool list_children(const struct node *dir, struct listing *ret)
{
    struct listing list = {0};
    twalk_r(dir->children, list_one, &list);
    list.nodes = calloc(list.count + 1, sizeof(struct node *));
    if (!list.nodes) {
        return false;
    }
    list.count = 0;
    twalk_r(dir->children, list_one, &list);
    *ret = list;
    return true;
}

static void inode_free(struct inode *inode)
{
    if (inode && --inode->names == 0) {
        free(inode->text);
        free(inode);
    }
}

/* A node that is in no directory any more, with all below it. */
static void node_free(struct layers *l, struct node *n)
{
    if (!n) {
        return;
    }
    while (n->children) {
        struct node *child = *(struct node **)n->children;
        tdelete(child, &n->children, by_name);
        node_free(l, child);
    }
    inode_free(n->inode);
    free(n->name);
    free(n);
    l->count--;
}

static void node_remove(struct layers *l, struct node *n)
{
    tdelete(n, &n->parent->children, by_name);
    node_free(l, n);
}

static bool is_directory(const struct node *n)
{
    return S_ISDIR(n->inode->mode);
}

static struct inode *inode_new(mode_t mode)
{
    struct inode *inode = calloc(1, sizeof *inode);
    if (inode) {
        inode->names = 1;
        inode->mode = mode;
    }
    return inode;
}

/* A new name in `dir`, of the layer that is put on top. Takes a name of `inode` (NULL: out of memory) in any case. */
static int node_add(struct layers *l, struct node *dir, const char *name, struct inode *inode,
                    struct node **ret, struct un_error *err)
{
    struct node *n = inode ? calloc(1, sizeof *n) : NULL;
    size_t len = strlen(name), path_len = dir->path_len + 1 + len;
    int rc =
        len > NAME_MAX || path_len >= PATH_MAX
            ? un_error_set(err, -ENAMETOOLONG, "%.100s...: the name or its path is too long", name)
        : l->count >= LIMIT_ROOTFS_FILES
            ? un_error_set(err, -EFBIG,
                           "%.200s: with it there are more than %d files, the most that a "
                           "root file system may have",
                           name, LIMIT_ROOTFS_FILES)
            : 0;
    if (rc == 0 && (!n || !(n->name = strdup(name)) || !tsearch(n, &dir->children, by_name))) {
        rc = no_memory(err);
    }
    if (rc < 0) {
        inode_free(inode);
        if (n) {
            free(n->name);
        }
        free(n);
        return rc;
    }
    n->parent = dir;
    n->path_len = path_len;
    n->layer = l->layer;
    n->inode = inode;
    l->count++;
    l->names += len + (inode->text ? strlen(inode->text) : 0);
    *ret = n;
    return 0;
}

/* Takes away what lower layers have put below `n`; gives whether nothing is left of itself. */
static int prune(struct layers *l, struct node *n, bool *ret_gone)
{
    struct listing list;
    if (!list_children(n, &list)) {
        return -ENOMEM;
    }
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < list.count; i++) {
        bool gone = false;
        rc = prune(l, list.nodes[i], &gone);
        if (gone) {
            node_remove(l, list.nodes[i]);
        }
    }
    free(list.nodes);
    *ret_gone = rc == 0 && n->layer < l->layer && !n->children;
    return rc;
}

/* --- paths ------------------------------------------------------------------------------------ */

/* Cuts the first name off; "" at the end. */
static char *next_name(char **rest)
{
    char *name = *rest + strspn(*rest, "/");
    size_t len = strcspn(name, "/");
    *rest = name + len + (name[len] == '/');
    name[len] = '\0';
    return name;
}

enum { WALK_MAKE = 1 }; /* directories that are not there, with all that a name needs */

/* The text of a link, and what comes behind it. */
static int put_link(char **buffer, char **rest, const char *text)
{
    size_t size = strlen(text) + 1 + strlen(*rest) + 1;
    char *joined = size <= 2 * PATH_MAX ? malloc(size) : NULL;
    if (!joined) {
        return size <= 2 * PATH_MAX ? -ENOMEM : -ENAMETOOLONG;
    }
    stpcpy(stpcpy(stpcpy(joined, text), "/"), *rest);
    free(*buffer);
    *buffer = *rest = joined;
    return 0;
}

/* Goes along `path` from `at`, following every link. */
static int walk(struct layers *l, struct node *at, const char *path, int how, struct node **ret,
                struct un_error *err)
{
    un_autofree char *buffer = strdup(path);
    char *rest = buffer;
    unsigned links = 0;
    int rc = buffer ? 0 : -ENOMEM;
    at = path[0] == '/' ? l->root : at;
    while (rc == 0 && rest[strspn(rest, "/")]) {
        const char *name = next_name(&rest);
        struct node *child = child_of(at, name);
        if (strcmp(name, ".") == 0) {
            continue;
        }
        if (strcmp(name, "..") == 0) {
            at = at->parent ? at->parent : at;
            continue;
        }
        if (!child && (how & WALK_MAKE) && is_directory(at)) {
            rc = node_add(l, at, name, inode_new(S_IFDIR | 0755), &child, err);
        } else if (!child) {
            rc = is_directory(at) ? -ENOENT : -ENOTDIR;
        } else if (S_ISLNK(child->inode->mode)) {
            at = child->inode->text[0] == '/' ? l->root : at;
            rc = ++links > LINKS_FOLLOWED ? -ELOOP : put_link(&buffer, &rest, child->inode->text);
            child = at;
        }
        at = child;
    }
    if (rc == 0) {
        *ret = at;
    }
    return rc;
}

/* The directory of `path`'s last name, which is cut off into `ret_name`; "" for the root. */
static int walk_to(struct layers *l, char *path, int how, struct node **ret_dir, char **ret_name,
                   struct un_error *err)
{
    size_t len = strlen(path);
    while (len > 0 && path[len - 1] == '/') {
        path[--len] = '\0';
    }
    char *slash = strrchr(path, '/');
    struct node *dir = l->root;
    *ret_name = slash ? slash + 1 : path;
    if (slash) {
        *slash = '\0';
        struct un_error why = UN_ERROR_INIT;
        int rc = walk(l, l->root, path, how, &dir, &why);
        if (rc == 0 && !is_directory(dir)) {
            rc = -ENOTDIR;
        }
        *slash = '/';
        if (rc < 0) {
            return un_error_set(err, rc, "%.200s: %s", path,
                                why.text[0] ? why.text : strerror(-rc));
        }
    }
    *ret_dir = dir;
    return 0;
}

int layers_find(struct layers *l, const char *from, const char *path, struct layers_entry *ret)
{
    struct node *n = l->root;
    int rc = path[0] == '/' ? 0 : walk(l, n, from, 0, &n, NULL);
    rc = rc < 0 ? rc : walk(l, n, path, 0, &n, NULL);
    if (rc == 0) {
        *ret = (struct layers_entry){
            .mode = n->inode->mode, .at = n->inode->at, .size = n->inode->size};
    }
    return rc;
}

int layers_make_directory(struct layers *l, const char *path, struct un_error *err)
{
    struct node *dir;
    int rc = walk(l, l->root, path, WALK_MAKE, &dir, err);
    if (rc == 0 && !is_directory(dir)) {
        rc = -ENOTDIR;
    }
    return rc < 0 ? un_error_set(err, rc, "%.200s: %s", path, strerror(-rc)) : 0;
}

/* --- a layer ---------------------------------------------------------------------------------- */

static int archive_failed(struct archive *a, const char *what, struct un_error *err)
{
    const char *why = archive_error_string(a);
    return un_error_set(err, archive_errno(a) == ENOMEM ? -ENOMEM : -EINVAL, "%.200s: %s", what,
                        why ? why : "damaged");
}

/* Keeps a file's contents. */
static int keep_contents(struct layers *l, struct archive *a, const char *path, uint64_t size,
                         struct un_error *err)
{
    if (size > LIMIT_ROOTFS_BYTES || size > LIMIT_CONTAINER_BYTES - l->end) {
        return un_error_set(
            err, -EFBIG, "%.200s: with its %llu bytes the layers have more than %llu GiB", path,
            (unsigned long long)size,
            (size > LIMIT_ROOTFS_BYTES ? LIMIT_ROOTFS_BYTES : LIMIT_CONTAINER_BYTES) >> 30);
    }
    for (;;) {
        const void *part;
        size_t len;
        la_int64_t at;
        int got = archive_read_data_block(a, &part, &len, &at);
        if (got == ARCHIVE_EOF) {
            break;
        }
        if (got < ARCHIVE_WARN) {
            return archive_failed(a, path, err);
        }
        if (at < 0 || (uint64_t)at > size || len > size - (uint64_t)at) {
            return un_error_set(err, -EINVAL, "%.200s: longer than the layer says", path);
        }
        int rc = un_pwrite_all(l->fd, part, len, l->end + (uint64_t)at);
        if (rc < 0) {
            return un_error_errno(err, rc, "the temporary file (TMPDIR)");
        }
    }
    l->end += size;
    /* A hole at its end is part of it. */
    return ftruncate(l->fd, (off_t)l->end) == 0
               ? 0
               : un_error_errno(err, -errno, "the temporary file (TMPDIR)");
}

/* The inode of another name: of a file, or of a link, of which links may be made as well. */
static int inode_of_link(struct layers *l, const char *path, const char *target, struct inode **ret,
                         struct un_error *err)
{
    un_autofree char *text = strdup(target);
    struct node *dir = NULL;
    char *name;
    if (!text) {
        return no_memory(err);
    }
    int rc = walk_to(l, text, 0, &dir, &name, NULL);
    struct node *n = rc == 0 && name[0] ? child_of(dir, name) : NULL;
    if (!n || is_directory(n)) {
        return rc == -ENOMEM
                   ? no_memory(err)
                   : un_error_set(err, -EINVAL,
                                  "%.200s: a hard link to %.200s, which is no file before it", path,
                                  target);
    }
    n->inode->names++;
    *ret = n->inode;
    return 0;
}

/* What an entry of the archive says of its inode; gives NULL for what is left out. */
static int read_inode(struct layers *l, struct archive *a, struct archive_entry *e,
                      const char *path, struct inode **ret, struct un_error *err)
{
    const char *hard = archive_entry_hardlink(e), *text = archive_entry_symlink(e);
    mode_t kind = archive_entry_filetype(e);
    *ret = NULL;
    if (hard) {
        return inode_of_link(l, path, hard, ret, err);
    }
    if (kind != AE_IFREG && kind != AE_IFDIR && kind != AE_IFLNK) {
        l->left_out += strncmp(path, "dev/", 4) != 0;
        return 0;
    }
    struct inode *inode = inode_new((kind & S_IFMT) | (archive_entry_perm(e) & 07777));
    if (!inode) {
        return no_memory(err);
    }
    inode->uid = archive_entry_uid(e);
    inode->gid = archive_entry_gid(e);
    inode->mtime_s = archive_entry_mtime(e);
    int rc = 0;
    if (kind == AE_IFLNK && (!text || !text[0] || strlen(text) >= PATH_MAX)) {
        rc = un_error_set(err, -EINVAL, "%.200s: a link without a target, or with too long a one",
                          path);
    } else if (kind == AE_IFLNK && !(inode->text = strdup(text))) {
        rc = no_memory(err);
    } else if (kind == AE_IFREG && archive_entry_size(e) > 0) {
        inode->at = l->end;
        inode->size = (uint64_t)archive_entry_size(e);
        rc = keep_contents(l, a, path, inode->size, err);
    }
    if (rc < 0) {
        inode_free(inode);
        return rc;
    }
    *ret = inode;
    return 0;
}

static int take_away(struct layers *l, struct node *dir, const char *name, struct un_error *err)
{
    bool gone = false;
    bool all = strcmp(name, OPAQUE) == 0;
    struct node *n = all ? dir : child_of(dir, name + strlen(WHITEOUT));
    if (!n || (!all && strncmp(name, WHITEOUT_META, strlen(WHITEOUT_META)) == 0)) {
        return 0;
    }
    if (prune(l, n, &gone) < 0) {
        return no_memory(err);
    }
    if (gone && !all) {
        node_remove(l, n);
    }
    return 0;
}

/* Puts an inode where the archive says; takes it in any case. */
static int place(struct layers *l, struct node *dir, const char *name, struct inode *inode,
                 struct un_error *err)
{
    struct node *there = name[0] ? child_of(dir, name) : l->root;
    if (there && is_directory(there) && S_ISDIR(inode->mode)) {
        inode_free(there->inode);
        there->inode = inode;
        there->layer = l->layer;
        return 0;
    }
    if (!name[0]) {
        inode_free(inode);
        return un_error_set(err, -EINVAL, "the root is no directory");
    }
    if (there) {
        node_remove(l, there);
    }
    return node_add(l, dir, name, inode, &there, err);
}

/* "usr/bin/jq" of "./usr//bin/jq/". -EINVAL: it has a "..". */
static int clean_path(const char *path, char **ret, struct un_error *err)
{
    un_autofree char *copy = strdup(path);
    char *clean = calloc(1, strlen(path) + 2), *to = clean, *rest = copy;
    while (copy && clean && rest[0]) {
        const char *name = next_name(&rest);
        if (strcmp(name, "..") == 0) {
            free(clean);
            return un_error_set(err, -EINVAL, "%.200s: a path with \"..\"", path);
        }
        if (name[0] && strcmp(name, ".") != 0) {
            to = stpcpy(stpcpy(to, to == clean ? "" : "/"), name);
        }
    }
    if (!copy || !clean) {
        free(clean);
        return no_memory(err);
    }
    *ret = clean;
    return 0;
}

static int apply_entry(struct layers *l, struct archive *a, struct archive_entry *e,
                       struct un_error *err)
{
    un_autofree char *path = NULL;
    const char *said = archive_entry_pathname(e);
    if (!said) {
        return archive_failed(a, "a name", err);
    }
    int rc = clean_path(said, &path, err);
    if (rc < 0 || strncmp(path, WHITEOUT_META, strlen(WHITEOUT_META)) == 0) {
        return rc < 0 || strcmp(path, OPAQUE) != 0 ? rc : take_away(l, l->root, OPAQUE, err);
    }
    struct node *dir;
    char *name;
    const char *slash = strrchr(path, '/');
    if (strncmp(slash ? slash + 1 : path, WHITEOUT, strlen(WHITEOUT)) == 0) {
        rc = walk_to(l, path, 0, &dir, &name, err);
        return rc == -ENOENT || rc == -ENOTDIR ? 0 : rc < 0 ? rc : take_away(l, dir, name, err);
    }
    struct inode *inode;
    rc = read_inode(l, a, e, path, &inode, err);
    if (rc < 0 || !inode) {
        return rc;
    }
    rc = walk_to(l, path, WALK_MAKE, &dir, &name, err);
    if (rc < 0) {
        inode_free(inode);
        return rc;
    }
    return place(l, dir, name, inode, err);
}

int layers_apply(struct layers *l, struct archive *layer, struct un_error *err)
{
    l->layer++;
    for (size_t entries = 0;; entries++) {
        if (entries > LIMIT_ROOTFS_ENTRIES || l->names > LIMIT_ROOTFS_NAMES) {
            return un_error_set(err, -EFBIG,
                                "more than %d entries in one layer, or %d MiB of names in all",
                                LIMIT_ROOTFS_ENTRIES, LIMIT_ROOTFS_NAMES >> 20);
        }
        struct archive_entry *e;
        int got = archive_read_next_header(layer, &e);
        if (got == ARCHIVE_EOF) {
            return 0;
        }
        int rc = got < ARCHIVE_WARN ? archive_failed(layer, "no tar archive that can be read", err)
                                    : apply_entry(l, layer, e, err);
        if (rc < 0) {
            return rc;
        }
    }
}

int layers_new(int fd, struct layers **ret, struct un_error *err)
{
    struct layers *l = calloc(1, sizeof *l);
    struct node *root = calloc(1, sizeof *root);
    if (!l || !root || !(root->name = strdup("")) || !(root->inode = inode_new(S_IFDIR | 0755))) {
        if (root) {
            free(root->name);
        }
        free(root);
        free(l);
        return no_memory(err);
    }
    *l = (struct layers){.fd = fd, .count = 1, .root = root};
    *ret = l;
    return 0;
}

void layers_free(struct layers *l)
{
    if (l) {
        node_free(l, l->root);
        free(l);
    }
}

unsigned layers_left_out(const struct layers *l)
{
    return l->left_out;
}

/* --- the list --------------------------------------------------------------------------------- */

/* Writes the path of `n`; the root's is "". */
static void path_of(const struct node *n, char ret[PATH_MAX])
{
    size_t at = n->path_len ? n->path_len - 1 : 0; /* without the slash in front */
    ret[at] = '\0';
    for (; n->parent; n = n->parent) {
        size_t len = strlen(n->name);
        at -= len;
        memcpy(ret + at, n->name, len);
        if (at > 0) {
            ret[--at] = '/';
        }
    }
}

struct lister {
    char path[PATH_MAX], hard[PATH_MAX];
    int (*each)(void *arg, const struct layers_entry *e);
    void *arg;
};

static int list_node(struct lister *to, struct node *n)
{
    struct inode *inode = n->inode;
    path_of(n, to->path);
    struct layers_entry e = {.path = to->path,
                             .text = inode->text,
                             .mode = inode->mode,
                             .uid = inode->uid,
                             .gid = inode->gid,
                             .mtime_s = inode->mtime_s,
                             .at = inode->at,
                             .size = inode->size};
    if (inode->first && S_ISREG(inode->mode)) {
        path_of(inode->first, to->hard);
        e.hard = to->hard;
    }
    inode->first = inode->first ? inode->first : n;
    return to->each(to->arg, &e);
}

/* As deep as a path has names, PATH_MAX / 2 at most. */
static int list_below(struct lister *to, struct node *dir)
{
    struct listing list;
    if (!list_children(dir, &list)) {
        return -ENOMEM;
    }
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < list.count; i++) {
        rc = list_node(to, list.nodes[i]);
        rc = rc == 0 ? list_below(to, list.nodes[i]) : rc;
    }
    free(list.nodes);
    return rc;
}

int layers_list(struct layers *l, int (*each)(void *arg, const struct layers_entry *e), void *arg)
{
    un_autofree struct lister *to = malloc(sizeof *to);
    if (!to) {
        return -ENOMEM;
    }
    to->each = each;
    to->arg = arg;
    return list_below(to, l->root);
}
