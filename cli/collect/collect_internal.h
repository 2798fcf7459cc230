/* collect_internal.h - what collect.c and pack.c share; nobody else includes it. */
#ifndef UNID_CLI_COLLECT_COLLECT_INTERNAL_H
#define UNID_CLI_COLLECT_COLLECT_INTERNAL_H

#include "cli/collect/collect.h"

struct collect {
    struct collect_entry **entries; /* in the order in which they came, until they are listed */
    size_t count, room;
    void *tree; /* of tsearch(3): the same entries by path */
    char **warnings;
    size_t warning_count;
    char *runs;
    char *arguments[3]; /* of the script's first line, the script, NULL */
};

#endif
