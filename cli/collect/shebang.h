/* shebang.h - the words that `env -S` makes of the rest of a script's first line. Pure.
 *
 * After GNU env's manual ("-S/--split-string syntax"): words between white space, quotes, escapes, and a comment.
 * Variables are refused: they would be those of the machine on which the script is deployed. */
#ifndef UNID_CLI_COLLECT_SHEBANG_H
#define UNID_CLI_COLLECT_SHEBANG_H

#include <stddef.h>

#include "common/error.h"

enum { SHEBANG_BYTES = 255 /* of a first line; the kernel takes no more */, SHEBANG_WORDS = 32 };

struct shebang {
    char *words[SHEBANG_WORDS + 1]; /* into `text`; the last is NULL */
    size_t count;
    char text[2 * SHEBANG_BYTES + 2];
};

/* Splits. -EINVAL with what is wrong; -E2BIG more than SHEBANG_BYTES or SHEBANG_WORDS. */
int shebang_split(const char *line, struct shebang *ret, struct un_error *err);

#endif
