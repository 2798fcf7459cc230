/* args.h - strict command lines: options from a table, operands, and what follows `--`.
 *
 * getopt_long does the reading; this adds tables shared between parsing and help, refusal of
 * abbreviated long options (a later option would change their meaning), and strict scalars. It
 * knows no verbs.
 */
#ifndef UNID_CLI_ARGS_H
#define UNID_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* A table ends with an entry whose name is NULL. */
struct args_option {
    const char *name; /* long name without the dashes */
    char letter;      /* its short form, or 0 */
    const char
        *value; /* what help calls its value, which says what it may be (args.c); NULL: a flag */
    const char *help; /* one line, no full stop */
};

struct args_value {
    const struct args_option *option;
    const char *value; /* "" for a flag */
};

enum {
    ARGS_MAX = 4096
}; /* words of a command line; the kernel allows far more, nobody types them */

/* All strings are borrowed from argv and the tables. Zero-initialise; release with args_done. */
struct args {
    const char **operands;
    size_t operand_count;
    char *const *rest; /* the words behind "--" */
    size_t rest_count;
    struct args_value *values; /* options in the order given */
    size_t value_count;
};
void args_done(struct args *a);

/* Where args_parse stops: at the first operand (for options in front of a verb) or at the end. */
enum args_mode { ARGS_UNTIL_OPERAND, ARGS_ALL };

/* Reads argv[1..]; argv[0] is skipped. `tables` is a NULL-terminated list of option tables. With
 * ARGS_UNTIL_OPERAND `*ret_used` says how many words of argv (argv[0] included) were read; it may
 * be NULL with ARGS_ALL. -EINVAL with the word and what is wrong with it, -ENOMEM. `ret` is
 * released or untouched on failure. Not re-entrant (getopt's state is global). */
int args_parse(int argc, char **argv, const struct args_option *const *tables, enum args_mode mode,
               struct args *ret, int *ret_used, struct un_error *err);

/* The last value given for an option, "" for a flag that was given, NULL when it was not. */
const char *args_get(const struct args *a, const char *name);
bool args_has(const struct args *a, const char *name);
/* Iterates an option's values: start with *at = 0; NULL at the end. */
const char *args_next(const struct args *a, const char *name, size_t *at);

/* "4096", "64K", "64M", "1G", "2T", each optionally with "iB" ("64MiB"); binary units, whole
 * numbers only. "MB" is refused because it means two things. -EINVAL, -ERANGE when it does not fit
 * 64 bits. */
int args_size(const char *text, uint64_t *ret_bytes, struct un_error *err);

/* "500ms", "30s", "2m", "1h"; a whole number and exactly one unit. -EINVAL, -ERANGE. */
int args_duration(const char *text, uint64_t *ret_ms, struct un_error *err);

/* A whole decimal number from `least` to `most`. -EINVAL, -ERANGE. */
int args_count(const char *text, uint64_t least, uint64_t most, uint64_t *ret,
               struct un_error *err);

/* The candidate that `word` was probably meant to be, or NULL when none is near: at most two edits
 * (insertion, deletion, substitution, neighbours swapped) and fewer than half of its letters, or a
 * prefix of exactly one candidate. `candidates` is NULL-terminated. */
const char *args_nearest(const char *word, const char *const *candidates);

#endif
