/* libraries.h - where ld.so would find a library on this machine (ld.so(8)). */
#ifndef UNID_CLI_COLLECT_LIBRARIES_H
#define UNID_CLI_COLLECT_LIBRARIES_H

#include <limits.h>
#include <stdbool.h>

#include "common/elf.h"

/* A file in memory. */
struct library_file {
    const uint8_t *data;
    size_t size;
};
/* Maps a regular file; negative errno. */
int library_open(const char *path, struct library_file *ret);
void library_close(struct library_file *f);

/* The directories that a loader is told of, beyond its own. */
struct library_paths {
    char *configured; /* of ld.so.conf, or of musl's .path file; colon-separated */
    bool musl;
};
/* For the interpreter at `interpreter`. -ENOMEM. Release with library_paths_done. */
int library_paths_init(struct library_paths *p, const char *interpreter, struct un_error *err);
void library_paths_done(struct library_paths *p);

/* Looks for `name`, which the ELF file at `who` needs. `rpath` is the RPATH of the program. False when
 * it is nowhere. `*ret_configured`: only ld.so.conf led there, so the loader's cache is needed. */
bool library_find(const struct library_paths *p, const char *who, const struct un_elf_dynamic *d,
                  const char *rpath, const char *name, char ret[PATH_MAX], bool *ret_configured);
/* Whether the interpreter itself is this library (musl's). */
bool library_is_builtin(const struct library_paths *p, const char *name);

#endif
