/* temporary.h - a file without a name, in $TMPDIR or /tmp, which goes when it is closed. */
#ifndef UNID_CLI_TEMPORARY_H
#define UNID_CLI_TEMPORARY_H

#include "common/error.h"

enum { TEMPORARY_PATH_SIZE = 32 };

/* A descriptor for reading and writing. Negative errno. */
int temporary_open(struct un_error *err);
/* A path that leads to what is open as `fd`, for who wants one. */
const char *temporary_path(int fd, char ret[TEMPORARY_PATH_SIZE]);
/* All that is left to be read from `from`. As temporary_open, read(2), write(2). */
int temporary_copy(int from, struct un_error *err);

#endif
