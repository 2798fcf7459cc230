/* check.h - judges whether the program of a root file system can run, before anything runs.
 *
 * What would run wrong is an error; what may end the machine when it is reached, or is likely to be
 * missed, is a warning. Both are collected, so that the report names all that is wrong at once.
 */
#ifndef UNID_PREPARE_CHECK_H
#define UNID_PREPARE_CHECK_H

#include <jansson.h>

#include "prepare/rootfs.h"

struct check {
    const char *kind;  /* "linux-static", "linux-dynamic" or "script" */
    json_t *libraries; /* [{"name", "path"}] of a dynamic program; NULL for others */
    json_t *problems;  /* texts */
    json_t *warnings;
    json_t
        *imports; /* {"fork": ["/usr/bin/x"]}: functions of libc that ask for calls of that name */
    uint64_t load_bytes; /* of memory that the program and its libraries take when loaded */
};

/* Judges `program` (a path in `fs`; "" when none is named). The values are new references, to be
 * given up with check_done. -ENOMEM, or what reading fails with; what is wrong with the program is
 * no error here. */
int check_program(struct rootfs *fs, const char *program, struct check *ret, struct un_error *err);
void check_done(struct check *c);

/* Whether a file is the C library or the loader, which contain every call but make few of them. */
bool check_is_libc(const char *path);

#endif
