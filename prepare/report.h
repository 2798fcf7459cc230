/* report.h - what was found when a program was prepared, as JSON (docs/programs.md, "The report"). */
#ifndef UNID_PREPARE_REPORT_H
#define UNID_PREPARE_REPORT_H

#include <jansson.h>

#include "prepare/check.h"
#include "prepare/rootfs.h"

struct report_source {
    const char *program;
    const struct rootfs *fs;
    const struct check *check;
    unsigned left_out;
    uint64_t memory_least, memory_advised; /* bytes; 0: refused before it was known */
};

/* A new reference, NULL when out of memory. */
json_t *report_new(const struct report_source *source);

#endif
