/* rootfs_write.c - the end of a root file system: inodes, directory entries, names (rootfs.h). */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "prepare/rootfs_internal.h"

/* The library OS mounts its own file systems there; they are seen in a listing of the root. */
static int add_mount_points(struct rootfs *fs, struct un_error *err)
{
    static const char *const names[] = {"dev", "proc", "tmp"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(names); i++) {
        const struct unid_rootfs_inode *there;
        const struct rootfs_meta meta = {.mode = names[i][0] == 't' ? 01777 : 0755};
        struct un_error why = UN_ERROR_INIT;
        int rc = rootfs_find(fs, names[i], &there, &why);
        if (rc == -ENOENT) {
            rc = rootfs_add_directory(fs, names[i], &meta, &why);
        }
        if (rc < 0 && rc != -EINVAL && rc != -ELOOP) { /* a link that leads nowhere may stay */
            un_error_copy(err, &why);
            return rc;
        }
    }
    return 0;
}

/* By directory, then by name. */
static int by_place(const void *a, const void *b, void *arg)
{
    const struct rootfs *fs = arg;
    const struct node *x = &fs->nodes[*(const uint32_t *)a], *y = &fs->nodes[*(const uint32_t *)b];
    if (x->parent != y->parent) {
        return x->parent < y->parent ? -1 : 1;
    }
    size_t len = x->name_len < y->name_len ? x->name_len : y->name_len;
    int rc = memcmp(fs->names.data + x->name, fs->names.data + y->name, len);
    return rc ? rc : (int)x->name_len - (int)y->name_len;
}

static uint16_t type_of(uint32_t mode)
{
    return S_ISDIR(mode) ? DT_DIR : S_ISLNK(mode) ? DT_LNK : DT_REG;
}

/* The nodes but the root as directory entries; directories learn which are theirs. Gives the entries
 * (free with free()). */
static int make_dirents(struct rootfs *fs, struct unid_rootfs_dirent **ret, struct un_error *err)
{
    size_t count = fs->node_count - 1;
    un_autofree uint32_t *order = calloc(count, sizeof *order);
    struct unid_rootfs_dirent *dirents = calloc(count, sizeof *dirents);
    if (!order || !dirents) {
        free(dirents);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < count; i++) {
        order[i] = (uint32_t)i + 1;
    }
    qsort_r(order, count, sizeof *order, by_place, fs);
    for (size_t i = 0; i < count; i++) {
        const struct node *n = &fs->nodes[order[i]];
        struct unid_rootfs_inode *dir = &fs->inodes[fs->nodes[n->parent].inode];
        uint16_t type = type_of(fs->inodes[n->inode].mode);
        if (dir->count++ == 0) {
            dir->dirents = (uint32_t)i;
        }
        dir->links += type == DT_DIR;
        dirents[i] = (struct unid_rootfs_dirent){
            .name = n->name, .name_len = n->name_len, .type = type, .inode = n->inode};
    }
    *ret = dirents;
    return 0;
}

int rootfs_finish(struct rootfs *fs, const char *program, uint64_t *ret_size, struct un_error *err)
{
    int rc = add_mount_points(fs, err);
    if (rc < 0) {
        return rc;
    }
    un_autofree struct unid_rootfs_dirent *dirents = NULL;
    struct unid_rootfs header = {
        .magic = UNID_ROOTFS_MAGIC,
        .version = UNID_ROOTFS_VERSION,
        .inode_count = (uint32_t)fs->inode_count,
        .dirent_count = (uint32_t)fs->node_count - 1,
        .program = (uint32_t)fs->names.len,
    };
    rc = make_dirents(fs, &dirents, err);
    if (rc == 0 && un_buf_append(&fs->names, program, strlen(program) + 1) < 0) {
        rc = un_error_set(err, -ENOMEM, "out of memory");
    }
    if (rc < 0) {
        return rc;
    }
    header.inodes = fs->end;
    header.dirents = header.inodes + fs->inode_count * sizeof *fs->inodes;
    header.strings = header.dirents + header.dirent_count * sizeof *dirents;
    uint64_t end = header.strings + fs->names.len;
    header.size = (end + ROOTFS_PAGE - 1) & ~(uint64_t)(ROOTFS_PAGE - 1);
    for (size_t i = 0; i < fs->inode_count; i++) {
        if (S_ISLNK(fs->inodes[i].mode)) {
            fs->inodes[i].data += header.strings;
        }
    }
    rc = rootfs_put(fs, 0, &header, sizeof header, err);
    if (rc == 0) {
        rc = rootfs_put(fs, header.inodes, fs->inodes, fs->inode_count * sizeof *fs->inodes, err);
    }
    if (rc == 0) {
        rc = rootfs_put(fs, header.dirents, dirents, header.dirent_count * sizeof *dirents, err);
    }
    if (rc == 0) {
        rc = rootfs_put(fs, header.strings, fs->names.data, fs->names.len, err);
    }
    if (rc == 0 && header.size > end) {
        rc = rootfs_put(fs, header.size - 1, "", 1, err); /* zeros up to there */
    }
    if (rc == 0) {
        *ret_size = header.size;
    }
    return rc;
}
