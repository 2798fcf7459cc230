/* layers.h - the layers of a container image, put on top of each other: one tree of names, whose files'
 * contents are kept in a temporary file.
 *
 * What a layer says is told by the OCI Image Format Specification, "Image Layer Filesystem Changeset". A
 * name .wh.NAME takes NAME away, .wh..wh..opq all that a directory has; both of lower layers only. What
 * becomes of another kind is replaced with all below it. Links on the way to a name are followed inside of
 * the tree, where a container's own programs would follow them; nothing leads out of it.
 */
#ifndef UNID_CLI_CONTAINER_LAYERS_H
#define UNID_CLI_CONTAINER_LAYERS_H

#include <archive.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

struct layers;

/* `fd`: an empty file for the contents, kept until layers_free, which does not close it. -ENOMEM. */
int layers_new(int fd, struct layers **ret, struct un_error *err);
void layers_free(struct layers *l); /* NULL allowed */

/* Puts a layer on top, of an archive that has been opened. -EINVAL what it holds is damaged or cannot be, -EFBIG more
 * than a root file system may have, or as pwrite(2). After a failure the tree is of no use. */
int layers_apply(struct layers *l, struct archive *layer, struct un_error *err);

/* How many devices, pipes and sockets were left out that are not below dev/. */
unsigned layers_left_out(const struct layers *l);

/* One name, for whoever lists the tree. */
struct layers_entry {
    const char *path; /* "usr/bin/jq" */
    const char *hard; /* a path before it, of which it is another name; NULL */
    const char *text; /* of a symbolic link; NULL */
    mode_t mode;      /* with the kind */
    int64_t uid, gid, mtime_s;
    uint64_t at, size; /* of a regular file's contents in the temporary file */
};

/* What `path` leads to, from `from`, a directory's path, if it is not absolute; links are followed. -ENOENT,
 * -ENOTDIR, -ELOOP, -ENAMETOOLONG, -ENOMEM. `ret` borrows until the tree changes; its `path` and `hard` are not set. */
int layers_find(struct layers *l, const char *from, const char *path, struct layers_entry *ret);

/* Makes a directory and those on the way, unless they are there: as layers_find, and -EFBIG. */
int layers_make_directory(struct layers *l, const char *path, struct un_error *err);

/* Calls `each` for every name but the root, directories before what is in them, names by their bytes. What `each` gives
 * ends it if not 0, and is given; or -ENOMEM. Once. */
int layers_list(struct layers *l, int (*each)(void *arg, const struct layers_entry *e), void *arg);

#endif
