/* source.h - the files that a container image consists of: of an archive, as `docker save` and others write it, or of a
 * directory that is an OCI image layout.
 */
#ifndef UNID_CLI_CONTAINER_SOURCE_H
#define UNID_CLI_CONTAINER_SOURCE_H

#include <archive.h>
#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "common/bytes.h"
#include "common/error.h"

enum source_kind { SOURCE_OTHER, SOURCE_SAVED, SOURCE_LAYOUT };

struct source {
    enum source_kind kind; /* by the names that are there; SOURCE_OTHER: no image */
    bool is_dir;
    int expanded; /* an archive that came compressed; -1 */
    char path[PATH_MAX];
};

/* Looks at what is at `path`. Negative errno; a file that is no archive is SOURCE_OTHER. Release with source_close. */
int source_open(const char *path, struct source *ret, struct un_error *err);
void source_close(struct source *s);

/* A file of it, for reading from its start. */
struct source_file {
    int fd;                  /* of a directory; else -1 */
    struct archive *archive; /* that stands at the file */
};
/* Links in an archive are followed. -ENOENT, -EINVAL, -ENOMEM. Release with source_file_close. */
int source_file_open(const struct source *s, const char *name, struct source_file *ret,
                     struct un_error *err);
ssize_t source_file_read(struct source_file *f, void *to, size_t size, struct un_error *err);
void source_file_close(struct source_file *f);

/* What reads an archive, with the compressions that are known here and no format yet (free with archive_read_free).
 * NULL: out of memory. */
struct archive *source_reader_new(void);
/* The same for tar archives, also without an entry; or, `raw`, for whatever was compressed, as one entry. */
struct archive *source_archive_new(bool raw);

#endif
