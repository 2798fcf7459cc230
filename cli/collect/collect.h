/* collect.h - what a Linux program needs of this machine, as one tar archive for the daemon.
 *
 * Files stand in the archive where they are here: every link on a path's way is taken along as a
 * link, and the file at its real place. The interpreter and the libraries of every ELF file that
 * comes in are found as ld.so(8) finds them. The same input gives the same bytes: entries are
 * sorted, belong to root, and keep mode and time of change.
 */
#ifndef UNID_CLI_COLLECT_COLLECT_H
#define UNID_CLI_COLLECT_COLLECT_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cli/container/container.h"
#include "common/error.h"

struct collect_entry {
    char *path;    /* here and there: absolute, no links on its way */
    char *link;    /* the text of a symbolic link; NULL: a file or directory */
    char *why;     /* "program", "interpreter", "needed by /usr/bin/jq", "--with"; "" on the way */
    mode_t mode;   /* with the kind of file */
    uint64_t size; /* bytes of a regular file */
    int64_t mtime_s;
};

struct collect;

int collect_new(struct collect **ret, struct un_error *err);
void collect_free(struct collect *c); /* NULL allowed */

/* Adds the program: an ELF file, or a script, whose interpreter then is what runs ("/usr/bin/env X" is
 * looked up here, since programs cannot start others there). -ENOENT and its kin when it cannot be
 * read, -EINVAL when it is neither, or needs what is not here. */
int collect_program(struct collect *c, const char *path, struct un_error *err);
/* Adds a file, or a directory with all that is below it. Links are taken along with what they lead
 * to. */
int collect_with(struct collect *c, const char *path, struct un_error *err);
/* Adds the interpreters and libraries of all that was added. -EINVAL: the program needs a library
 * that is not here; a library that only something else needs is a warning. */
int collect_libraries(struct collect *c, struct un_error *err);

/* What was collected, by path; borrowed until more is added. */
const struct collect_entry *const *collect_entries(struct collect *c, size_t *ret_count);
/* What is not as it might be; NULL behind the last. */
const char *collect_warning(const struct collect *c, size_t index);
/* What runs: the program's real path, or that of the script's interpreter. */
const char *collect_runs(const struct collect *c);
/* The arguments that come before the user's own: for a script what its first line says, and the
 * script. NULL-terminated. */
const char *const *collect_arguments(const struct collect *c);

/* What stands in the archive before what was collected: a container image's tree, or what is at `path`, a directory, which
 * becomes the root, or a tar archive; both NULL: nothing. */
struct collect_root {
    const char *path;
    struct container *image;
};

/* Writes the archive to `fd`: .unid.json with `program` (NULL: without), then what `root` holds, then what was
 * collected. A tar's own .unid.json is read into `ret_program` (PATH_MAX bytes) when `program` is NULL. */
int collect_write(struct collect *c, const struct collect_root *root, const char *program, int fd,
                  char *ret_program, struct un_error *err);

#endif
