/* collect_internal.h - what collect.c and pack.c share; nobody else includes it. */
#ifndef UNID_CLI_COLLECT_COLLECT_INTERNAL_H
#define UNID_CLI_COLLECT_COLLECT_INTERNAL_H

#include "cli/collect/collect.h"
#include "cli/collect/shebang.h"

struct collect {
    struct collect_entry **entries; /* in the order in which they came, until they are listed */
    size_t count, room;
    uint64_t bytes; /* of all entries */
    void *tree;     /* of tsearch(3): the same entries by path */
    char **warnings;
    size_t warning_count;
    char *runs;
    char *arguments[SHEBANG_WORDS + 2]; /* of the script's first line, the script, NULL */
};

/* Refuses what would be more than a root file system may have, with one more file of `size` bytes: -EFBIG
 * with what to do. Else counts it. Before its contents are read. */
int collect_count(size_t *count, uint64_t *bytes, uint64_t size, const char *path,
                  struct un_error *err);

#endif
