/* rootfs.c - see rootfs.h.
 *
 * In memory there is a tree of nodes (names) and an array of inodes in the form in which they are
 * written. Nodes are found by (parent, name) in a hash table with open addressing. A name that is
 * replaced may leave an inode behind that has no name any more.
 *
 * In the file: the header's page, the files' pages in the order in which they came, then inodes,
 * directory entries and names.
 */
#include "prepare/rootfs.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/limits.h"
#include "prepare/rootfs_internal.h"

enum { LINKS_FOLLOWED = 40 }; /* as Linux */

#define INT3_PAGE_FILL 0xcc

/* --- writing ---------------------------------------------------------------------------------- */

static uint64_t page_up(uint64_t v)
{
    return (v + ROOTFS_PAGE - 1) & ~(uint64_t)(ROOTFS_PAGE - 1);
}

int rootfs_put(struct rootfs *fs, uint64_t at, const void *data, size_t len, struct un_error *err)
{
    int rc = un_pwrite_all(fs->fd, data, len, fs->offset + at);
    return rc < 0 ? un_error_errno(err, rc, "write prepared image") : 0;
}

/* Takes `size` more bytes of the file; counted against the limit. */
static int claim(struct rootfs *fs, uint64_t size, struct un_error *err)
{
    uint64_t end;
    if (__builtin_add_overflow(fs->end, page_up(size), &end) || page_up(size) < size ||
        end > LIMIT_ROOTFS_BYTES) {
        return un_error_set(err, -EFBIG,
                            "the root file system has more than %llu MiB; leave out what the "
                            "program does not need",
                            LIMIT_ROOTFS_BYTES >> 20);
    }
    fs->end = end;
    return 0;
}

/* --- the tree --------------------------------------------------------------------------------- */

static uint32_t hash_of(uint32_t parent, const char *name, size_t len)
{
    uint32_t h = 2166136261u ^ parent; /* FNV-1a */
    for (size_t i = 0; i < len; i++) {
        h = (h ^ (uint8_t)name[i]) * 16777619u;
    }
    return h ^ h >> 15;
}

static const char *name_of(const struct rootfs *fs, const struct node *n)
{
    return (const char *)fs->names.data + n->name;
}

/* The slot that holds the node, or where it belongs. */
static uint32_t *slot_of(struct rootfs *fs, uint32_t parent, const char *name, size_t len)
{
    size_t mask = fs->slot_count - 1;
    for (size_t i = hash_of(parent, name, len) & mask;; i = (i + 1) & mask) {
        uint32_t at = fs->slots[i];
        if (at == 0 || (fs->nodes[at].parent == parent && fs->nodes[at].name_len == len &&
                        memcmp(name_of(fs, &fs->nodes[at]), name, len) == 0)) {
            return &fs->slots[i];
        }
    }
}

static bool grow_slots(struct rootfs *fs)
{
    size_t want = fs->slot_count ? 2 * fs->slot_count : 1024;
    uint32_t *slots = calloc(want, sizeof *slots);
    if (!slots) {
        return false;
    }
    free(fs->slots);
    fs->slots = slots;
    fs->slot_count = want;
    for (uint32_t i = 1; i < fs->node_count; i++) {
        const struct node *n = &fs->nodes[i];
        *slot_of(fs, n->parent, name_of(fs, n), n->name_len) = i;
    }
    return true;
}

static bool reserve(struct rootfs *fs)
{
    if (fs->node_count == fs->room || fs->inode_count == fs->room) {
        size_t room = fs->room ? 2 * fs->room : 256;
        struct node *nodes = reallocarray(fs->nodes, room, sizeof *nodes);
        if (!nodes) {
            return false;
        }
        fs->nodes = nodes;
        struct unid_rootfs_inode *inodes = reallocarray(fs->inodes, room, sizeof *inodes);
        if (!inodes) {
            return false;
        }
        fs->inodes = inodes;
        fs->room = room;
    }
    return 2 * (fs->node_count + 1) <= fs->slot_count || grow_slots(fs);
}

/* Keeps a name or a link's text; where, in `*ret`. */
static int add_text(struct rootfs *fs, const char *text, size_t len, uint32_t *ret,
                    struct un_error *err)
{
    if (fs->names.len + len > LIMIT_ROOTFS_NAMES) {
        return un_error_set(err, -EFBIG,
                            "the root file system has more than %d MiB of names and links; leave "
                            "out what the program does not need",
                            LIMIT_ROOTFS_NAMES >> 20);
    }
    *ret = (uint32_t)fs->names.len;
    return un_buf_append(&fs->names, text, len) < 0 ? un_error_set(err, -ENOMEM, "out of memory")
                                                    : 0;
}

/* A new name in `parent`, of inode `inode`, or of a new one when that is the number of inodes. */
static int add_node(struct rootfs *fs, uint32_t parent, const char *name, size_t len,
                    uint32_t inode, uint32_t *ret, struct un_error *err)
{
    if (fs->node_count >= LIMIT_ROOTFS_FILES) {
        return un_error_set(err, -EFBIG,
                            "the root file system has more than %d files; leave out what the "
                            "program does not need",
                            LIMIT_ROOTFS_FILES);
    }
    if (!reserve(fs)) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    uint32_t at = (uint32_t)fs->node_count, name_at;
    int rc = add_text(fs, name, len, &name_at, err);
    if (rc < 0) {
        return rc;
    }
    fs->nodes[at] =
        (struct node){.parent = parent, .name = name_at, .name_len = (uint16_t)len, .inode = inode};
    fs->node_count++;
    if (inode == fs->inode_count) {
        fs->inodes[fs->inode_count++] = (struct unid_rootfs_inode){0};
    }
    if (at > 0) {
        *slot_of(fs, parent, name, len) = at;
    }
    *ret = at;
    return 0;
}

static struct unid_rootfs_inode *inode_of(struct rootfs *fs, uint32_t node)
{
    return &fs->inodes[fs->nodes[node].inode];
}

static bool is_directory(const struct unid_rootfs_inode *inode)
{
    return S_ISDIR(inode->mode);
}

/* --- paths ------------------------------------------------------------------------------------ */

/* The next component, slashes skipped; its length, 0 at the end. "." is passed over. */
static size_t next_component(const char **path, const char **ret)
{
    for (;;) {
        const char *p = *path;
        while (*p == '/') {
            p++;
        }
        size_t len = strcspn(p, "/");
        *ret = p;
        *path = p + len;
        if (len != 1 || p[0] != '.') {
            return len;
        }
    }
}

static int check_component(const char *path, const char *name, size_t len, struct un_error *err)
{
    if (len == 2 && name[0] == '.' && name[1] == '.') {
        return un_error_set(err, -EINVAL, "%.200s: a path with \"..\"", path);
    }
    if (len > NAME_MAX) {
        return un_error_set(err, -EINVAL, "%.100s...: a name of more than %d bytes", path,
                            NAME_MAX);
    }
    return 0;
}

static int make_directory(struct rootfs *fs, uint32_t parent, const char *name, size_t len,
                          uint32_t *ret, struct un_error *err)
{
    int rc = add_node(fs, parent, name, len, (uint32_t)fs->inode_count, ret, err);
    if (rc == 0) {
        *inode_of(fs, *ret) = (struct unid_rootfs_inode){.mode = S_IFDIR | 0755, .links = 2};
    }
    return rc;
}

/* Goes to the directory that holds the last component of `path`, which is given; directories on the
 * way are made. The root itself has no last component. */
static int enter(struct rootfs *fs, const char *path, uint32_t *ret_parent, const char **ret_name,
                 size_t *ret_len, struct un_error *err)
{
    const char *rest = path, *name;
    size_t len = next_component(&rest, &name);
    uint32_t at = 0;
    if (strlen(path) >= PATH_MAX) {
        return un_error_set(err, -EINVAL, "%.100s...: a path of more than %d bytes", path,
                            PATH_MAX);
    }
    for (;;) {
        const char *next;
        int rc = check_component(path, name, len, err);
        if (rc < 0) {
            return rc;
        }
        size_t next_len = next_component(&rest, &next);
        if (next_len == 0) {
            *ret_parent = at;
            *ret_name = name;
            *ret_len = len;
            return 0;
        }
        uint32_t child = *slot_of(fs, at, name, len);
        if (child == 0) {
            rc = make_directory(fs, at, name, len, &child, err);
        } else if (!is_directory(inode_of(fs, child))) {
            rc = un_error_set(err, -EINVAL, "%.200s: leads through %.*s, which is no directory",
                              path, (int)(name + len - path), path);
        }
        if (rc < 0) {
            return rc;
        }
        at = child;
        name = next;
        len = next_len;
    }
}

/* The node for a new file at `path`, whose former inode loses the name. With `share` NULL it gets an
 * inode of its own. */
static int place(struct rootfs *fs, const char *path, const uint32_t *share, uint32_t *ret,
                 struct un_error *err)
{
    uint32_t parent;
    const char *name;
    size_t len;
    int rc = enter(fs, path, &parent, &name, &len, err);
    if (rc < 0) {
        return rc;
    }
    uint32_t at = len ? *slot_of(fs, parent, name, len) : 0;
    if (len == 0 || (at != 0 && is_directory(inode_of(fs, at)))) {
        return un_error_set(err, -EINVAL, "%.200s: is a directory already", path);
    }
    uint32_t inode = share ? *share : (uint32_t)fs->inode_count;
    if (at == 0) {
        rc = add_node(fs, parent, name, len, inode, &at, err);
    } else if (share) {
        inode_of(fs, at)->links--;
        fs->nodes[at].inode = inode;
    } else if (--inode_of(fs, at)->links > 0) {
        /* Other names have the old one; else it is taken over. */
        if (fs->inode_count >= 2 * LIMIT_ROOTFS_FILES || !reserve(fs)) {
            return un_error_set(err, -ENOMEM, "out of memory");
        }
        fs->inodes[fs->inode_count] = (struct unid_rootfs_inode){0};
        fs->nodes[at].inode = (uint32_t)fs->inode_count++;
    }
    *ret = at;
    return rc;
}

static void set_meta(struct unid_rootfs_inode *inode, uint32_t kind, const struct rootfs_meta *meta)
{
    inode->mode = kind | (meta->mode & 07777);
    inode->uid = meta->uid;
    inode->gid = meta->gid;
    inode->mtime_s = meta->mtime_s;
}

/* --- adding ----------------------------------------------------------------------------------- */

int rootfs_new(int fd, uint64_t offset, struct rootfs **ret, struct un_error *err)
{
    struct rootfs *fs = calloc(1, sizeof *fs);
    uint32_t root;
    if (!fs || !reserve(fs)) {
        rootfs_free(fs);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    fs->fd = fd;
    fs->offset = offset;
    fs->end = ROOTFS_PAGE; /* the header */
    int rc = make_directory(fs, 0, "", 0, &root, err);
    if (rc < 0) {
        rootfs_free(fs);
        return rc;
    }
    *ret = fs;
    return 0;
}

void rootfs_free(struct rootfs *fs)
{
    if (!fs) {
        return;
    }
    for (size_t i = 0; i < fs->elf_count; i++) {
        free(fs->elfs[i].path);
        free(fs->elfs[i].error);
        rewrite_done(&fs->elfs[i].rewrite);
    }
    free(fs->elfs);
    free(fs->nodes);
    free(fs->inodes);
    free(fs->slots);
    un_buf_done(&fs->names);
    un_buf_done(&fs->file.bytes);
    free(fs->file.path);
    free(fs);
}

int rootfs_add_directory(struct rootfs *fs, const char *path, const struct rootfs_meta *meta,
                         struct un_error *err)
{
    uint32_t parent, at = 0;
    const char *name;
    size_t len;
    int rc = enter(fs, path, &parent, &name, &len, err);
    if (rc == 0 && len > 0) {
        at = *slot_of(fs, parent, name, len);
        if (at == 0) {
            rc = make_directory(fs, parent, name, len, &at, err);
        } else if (!is_directory(inode_of(fs, at))) {
            rc = un_error_set(err, -EINVAL, "%.200s: a directory where a file was before", path);
        }
    }
    if (rc == 0) {
        set_meta(inode_of(fs, at), S_IFDIR, meta);
    }
    return rc;
}

int rootfs_add_link(struct rootfs *fs, const char *path, const char *text,
                    const struct rootfs_meta *meta, struct un_error *err)
{
    uint32_t at, data;
    size_t len = strlen(text);
    if (len == 0 || len >= PATH_MAX) {
        return un_error_set(err, -EINVAL, "%.200s: a link with a target of %zu bytes", path, len);
    }
    int rc = add_text(fs, text, len, &data, err);
    rc = rc < 0 ? rc : place(fs, path, NULL, &at, err);
    if (rc == 0) {
        struct unid_rootfs_inode *inode = inode_of(fs, at);
        *inode = (struct unid_rootfs_inode){.links = 1, .size = len, .data = data};
        set_meta(inode, S_IFLNK, meta);
    }
    return rc;
}

/* Where a path leads without following links: 0 nowhere (the root has that number as well). */
static uint32_t look_up(struct rootfs *fs, const char *path)
{
    const char *name;
    uint32_t at = 0;
    for (size_t len; (len = next_component(&path, &name)) > 0;) {
        at = *slot_of(fs, at, name, len);
        if (at == 0) {
            return 0;
        }
    }
    return at;
}

int rootfs_add_name(struct rootfs *fs, const char *path, const char *target, struct un_error *err)
{
    uint32_t at, from = look_up(fs, target);
    if (from == 0 || !S_ISREG(inode_of(fs, from)->mode)) {
        return un_error_set(err, -EINVAL,
                            "%.200s: a hard link to %.200s, which is no file before it", path,
                            target);
    }
    uint32_t inode = fs->nodes[from].inode;
    if (look_up(fs, path) == from) {
        return 0;
    }
    int rc = place(fs, path, &inode, &at, err);
    if (rc == 0) {
        fs->inodes[inode].links++;
    }
    return rc;
}

/* --- regular files ---------------------------------------------------------------------------- */

/* "/usr/bin/jq" of "./usr/bin/jq" (free with free()). */
static char *path_of(const char *path)
{
    un_autobuf struct un_buf text = {0};
    const char *name;
    for (size_t len; (len = next_component(&path, &name)) > 0;) {
        if (un_buf_append(&text, "/", 1) < 0 || un_buf_append(&text, name, len) < 0) {
            return NULL;
        }
    }
    return un_buf_steal_str(&text);
}

int rootfs_file_begin(struct rootfs *fs, const char *path, const struct rootfs_meta *meta,
                      struct un_error *err)
{
    uint32_t at;
    int rc = place(fs, path, NULL, &at, err);
    if (rc < 0) {
        return rc;
    }
    struct file_under_way *f = &fs->file;
    struct unid_rootfs_inode *inode = inode_of(fs, at);
    *inode = (struct unid_rootfs_inode){.links = 1};
    set_meta(inode, S_IFREG, meta);
    free(f->path);
    f->path = path_of(path);
    f->inode = fs->nodes[at].inode;
    f->start = fs->end;
    f->size = 0;
    f->whole = false;
    un_buf_reset(&f->bytes);
    return f->path ? 0 : un_error_set(err, -ENOMEM, "out of memory");
}

/* Appends to the bytes that are kept back, holes as zeros. */
static int keep_back(struct file_under_way *f, uint64_t at, const void *data, size_t len,
                     struct un_error *err)
{
    uint64_t hole = at - f->bytes.len;
    if (at + len > LIMIT_ROOTFS_ELF_BYTES) {
        return un_error_set(err, -EFBIG, "%.200s: a program of more than %d MiB", f->path,
                            LIMIT_ROOTFS_ELF_BYTES >> 20);
    }
    if (un_buf_reserve(&f->bytes, (size_t)hole + len) < 0) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    memset(f->bytes.data + f->bytes.len, 0, (size_t)hole);
    f->bytes.len += (size_t)hole;
    return un_buf_append(&f->bytes, data, len) < 0 ? un_error_set(err, -ENOMEM, "out of memory")
                                                   : 0;
}

int rootfs_file_write(struct rootfs *fs, uint64_t at, const void *data, size_t len,
                      struct un_error *err)
{
    struct file_under_way *f = &fs->file;
    uint64_t end;
    if (len == 0) {
        return 0;
    }
    if (at < f->size || __builtin_add_overflow(at, len, &end) || end > LIMIT_ROOTFS_BYTES) {
        return un_error_set(err, -EINVAL, "%.200s: its pieces are out of order or too far apart",
                            f->path);
    }
    /* An ELF file is wanted whole, as it will be rewritten. */
    if (f->size == 0) {
        f->whole = at == 0 && (len < 4 || un_elf_is(data, len));
    } else if (f->whole && f->size < 4) {
        f->whole = f->bytes.len + len < 4 || memcmp(f->bytes.data, "\177ELF", f->bytes.len) == 0;
        if (!f->whole) {
            int rc = rootfs_put(fs, f->start, f->bytes.data, f->bytes.len, err);
            if (rc < 0) {
                return rc;
            }
        }
    }
    f->size = end;
    return f->whole ? keep_back(f, at, data, len, err)
                    : rootfs_put(fs, f->start + at, data, len, err);
}

/* Whether an ELF file is a 64-bit x86 program or library at all; others (objects, other machines'
 * programs) are plain data. */
static bool is_code(const uint8_t *data, size_t len)
{
    struct un_reader r = un_reader_of(data, len);
    un_read_seek(&r, EI_NIDENT);
    uint16_t type = un_read_u16le(&r), machine = un_read_u16le(&r);
    return !r.failed && data[EI_CLASS] == ELFCLASS64 && machine == EM_X86_64 &&
           (type == ET_EXEC || type == ET_DYN);
}

/* Rewrites an ELF file that came whole; its stubs go behind it. */
static int rewrite_file(struct rootfs *fs, struct unid_rootfs_inode *inode, struct un_error *err)
{
    struct file_under_way *f = &fs->file;
    struct un_error why = UN_ERROR_INIT;
    struct un_elf elf;
    int rc;
    if (!is_code(f->bytes.data, f->bytes.len)) {
        return 0;
    }
    struct rootfs_elf *more = reallocarray(fs->elfs, fs->elf_count + 1, sizeof *more);
    if (!more) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    fs->elfs = more;
    struct rootfs_elf *e = &fs->elfs[fs->elf_count];
    *e = (struct rootfs_elf){.path = f->path};
    f->path = NULL;
    fs->elf_count++;
    rc = rewrite_elf(f->bytes.data, f->bytes.len, &e->rewrite, &why);
    if (rc == -ENOMEM) {
        un_error_copy(err, &why);
        return rc;
    }
    if (rc < 0) {
        rewrite_done(&e->rewrite);
        e->error = strdup(why.text);
        return e->error ? 0 : un_error_set(err, -ENOMEM, "out of memory");
    }
    e->is_program = un_elf_parse(f->bytes.data, f->bytes.len, f->bytes.len, &elf, NULL) == 0 &&
                    (elf.has_interp || elf.type == ET_EXEC);
    const struct un_buf *stubs = &e->rewrite.stubs;
    if (stubs->len == 0) {
        return 0;
    }
    static const uint8_t fill[ROOTFS_PAGE] = {[0 ... ROOTFS_PAGE - 1] = INT3_PAGE_FILL};
    inode->stubs = fs->end;
    inode->stubs_size = page_up(stubs->len);
    inode->stubs_vaddr = e->rewrite.stubs_vaddr;
    rc = claim(fs, stubs->len, err);
    if (rc == 0) {
        rc = rootfs_put(fs, inode->stubs, stubs->data, stubs->len, err);
    }
    return rc < 0 ? rc
                  : rootfs_put(fs, inode->stubs + stubs->len, fill,
                               (size_t)(inode->stubs_size - stubs->len), err);
}

/* Bytes to leave out at `at`, so that a program that cannot be moved comes to lie within 2 MiB as its addresses do: the
 * library OS then maps what is not written of it by entries of 2 MiB. None where no such entry would fit. */
static uint64_t room_before(const struct file_under_way *f, uint64_t at)
{
    const uint64_t mask = UNID_ROOTFS_LARGE - 1;
    struct un_elf elf;
    if (un_elf_parse(f->bytes.data, f->bytes.len, f->bytes.len, &elf, NULL) < 0 ||
        elf.type != ET_EXEC || elf.segment_count == 0) {
        return 0;
    }
    uint64_t bias = elf.segments[0].vaddr - elf.segments[0].offset, end = 0;
    for (size_t i = 0; i < elf.segment_count; i++) {
        const struct un_elf_segment *s = &elf.segments[i];
        if (s->writable || s->vaddr - s->offset != bias) {
            break;
        }
        end = s->vaddr + s->file_size;
    }
    uint64_t first = (elf.segments[0].vaddr + mask) & ~mask;
    return first < end && page_up(end) - first > mask && bias % ROOTFS_PAGE == 0
               ? (bias - at) & mask
               : 0;
}

int rootfs_file_end(struct rootfs *fs, uint64_t size, struct un_error *err)
{
    struct file_under_way *f = &fs->file;
    struct unid_rootfs_inode *inode = &fs->inodes[f->inode];
    if (size < f->size) {
        return un_error_set(err, -EINVAL, "%.200s: has more bytes than its size says", f->path);
    }
    int rc = f->whole ? claim(fs, room_before(f, f->start), err) : 0;
    if (rc < 0) {
        return rc;
    }
    f->start = f->whole ? fs->end : f->start;
    inode->size = size;
    inode->data = size > 0 ? f->start : 0;
    rc = claim(fs, size, err);
    if (rc < 0 || !f->whole) {
        return rc;
    }
    if (size > f->size) {
        rc = keep_back(f, size, "", 0, err);
    }
    if (rc == 0) {
        rc = rewrite_file(fs, inode, err);
    }
    return rc < 0 ? rc : rootfs_put(fs, f->start, f->bytes.data, f->bytes.len, err);
}

/* --- looking ---------------------------------------------------------------------------------- */

int rootfs_find(struct rootfs *fs, const char *path, const struct unid_rootfs_inode **ret,
                struct un_error *err)
{
    un_autofree char *rest = strdup(path);
    uint32_t at = 0;
    const char *name, *p = rest;
    int links = 0;
    while (p) {
        size_t len = next_component(&p, &name);
        if (len == 0) {
            *ret = inode_of(fs, at);
            return 0;
        }
        if (len == 2 && name[0] == '.' && name[1] == '.') {
            at = fs->nodes[at].parent;
            continue;
        }
        uint32_t child = is_directory(inode_of(fs, at)) ? *slot_of(fs, at, name, len) : 0;
        if (child == 0) {
            return un_error_set(err, -ENOENT, "no %.300s in the root file system", path);
        }
        const struct unid_rootfs_inode *inode = inode_of(fs, child);
        if (!S_ISLNK(inode->mode)) {
            at = child;
            continue;
        }
        if (++links > LINKS_FOLLOWED) {
            return un_error_set(err, -ELOOP, "%.300s: links that lead in a circle", path);
        }
        char *more;
        if (asprintf(&more, "%.*s/%s", (int)inode->size, (const char *)fs->names.data + inode->data,
                     p) < 0) {
            break;
        }
        if (more[0] == '/') {
            at = 0;
        }
        free(rest);
        p = rest = more;
    }
    return un_error_set(err, -ENOMEM, "out of memory");
}

bool rootfs_has_name(const struct rootfs *fs, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 1; i < fs->node_count; i++) {
        if (fs->nodes[i].name_len == len && memcmp(name_of(fs, &fs->nodes[i]), name, len) == 0) {
            return true;
        }
    }
    return false;
}

int64_t rootfs_read(struct rootfs *fs, const struct unid_rootfs_inode *inode, void *to, size_t len,
                    struct un_error *err)
{
    if (!S_ISREG(inode->mode)) {
        return un_error_set(err, -EINVAL, "no regular file");
    }
    if (len > inode->size) {
        len = (size_t)inode->size;
    }
    ssize_t n = pread(fs->fd, to, len, (off_t)(fs->offset + inode->data));
    return n < 0 ? un_error_errno(err, -errno, "read prepared image") : n;
}

const struct rootfs_elf *rootfs_elfs(const struct rootfs *fs, size_t *ret_count)
{
    *ret_count = fs->elf_count;
    return fs->elfs;
}
