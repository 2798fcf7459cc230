/* rootfs.h - builds the root file system of a prepared image (unid/rootfs.h) into a file.
 *
 * Files are streamed to their place as they come; what describes them is written last. ELF files are
 * rewritten on the way (rewrite.h). Paths are taken as inside the root: a leading "/" or "./" says
 * nothing, ".." is refused, and so is a path that leads through a link. What may come in is bounded
 * by LIMIT_ROOTFS_*.
 *
 * Any thread; one builder belongs to one thread at a time.
 */
#ifndef UNID_PREPARE_ROOTFS_H
#define UNID_PREPARE_ROOTFS_H

#include "prepare/rewrite.h"
#include "unid/rootfs.h"

struct rootfs;

struct rootfs_meta {
    uint32_t mode; /* permission bits; the kind of file comes from the call */
    uint32_t uid, gid;
    int64_t mtime_s;
};

/* What became of an ELF file. */
struct rootfs_elf {
    char *path; /* "/usr/bin/jq" */
    struct rewrite rewrite;
    char *error; /* it could not be read as an ELF program or library: left as it is. Or NULL */
    bool
        is_program; /* it has an entry point and is no library: ET_EXEC, or it names an interpreter */
};

/* The root file system goes to `fd` from `offset` (a multiple of 4 KiB) on; both are kept until
 * rootfs_free, the file is not closed. */
int rootfs_new(int fd, uint64_t offset, struct rootfs **ret, struct un_error *err);
void rootfs_free(struct rootfs *fs); /* NULL allowed */

/* Adding. A path that is there already is replaced, as tar does, unless it is a directory. Missing
 * directories above are made. -EINVAL a path or file that cannot be, -EFBIG over a limit, -ENOMEM,
 * or what writing fails with. */
int rootfs_add_directory(struct rootfs *fs, const char *path, const struct rootfs_meta *meta,
                         struct un_error *err);
int rootfs_add_link(struct rootfs *fs, const char *path, const char *text,
                    const struct rootfs_meta *meta, struct un_error *err);
/* A second name of the file at `target`, which must be there already. */
int rootfs_add_name(struct rootfs *fs, const char *path, const char *target, struct un_error *err);
/* A regular file: begin, its bytes (`at` may leave holes, never goes back), end. */
int rootfs_file_begin(struct rootfs *fs, const char *path, const struct rootfs_meta *meta,
                      struct un_error *err);
int rootfs_file_write(struct rootfs *fs, uint64_t at, const void *data, size_t len,
                      struct un_error *err);
int rootfs_file_end(struct rootfs *fs, uint64_t size, struct un_error *err);

/* Where a path leads, links followed. -ENOENT, -ELOOP. `ret` is valid until something is added. */
int rootfs_find(struct rootfs *fs, const char *path, const struct unid_rootfs_inode **ret,
                struct un_error *err);
/* Whether any file has this last name. */
bool rootfs_has_name(const struct rootfs *fs, const char *name);
/* Reads at most `len` bytes from the start of a regular file: the number, or a negative errno. */
int64_t rootfs_read(struct rootfs *fs, const struct unid_rootfs_inode *inode, void *to, size_t len,
                    struct un_error *err);

/* The ELF files so far; borrowed until the next one is added. */
const struct rootfs_elf *rootfs_elfs(const struct rootfs *fs, size_t *ret_count);

/* Writes what describes the files; `program` is what runs when no other is named. Gives the size of
 * the whole. Nothing may be added afterwards. */
int rootfs_finish(struct rootfs *fs, const char *program, uint64_t *ret_size, struct un_error *err);

#endif
