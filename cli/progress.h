/* progress.h - the bar of an upload that takes longer than a second, on a terminal's stderr. */
#ifndef UNID_CLI_PROGRESS_H
#define UNID_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PROGRESS_AFTER_US = 1000000, PROGRESS_EVERY_US = 100000, PROGRESS_LINE_SIZE = 160 };

struct progress {
    const char *what; /* borrowed */
    uint64_t total;   /* bytes */
    bool enabled;     /* stderr is a terminal */
    uint64_t started_us, shown_us;
};

/* Starts the clock. */
void progress_start(struct progress *p, const char *what, uint64_t total_bytes);
/* Draws the bar when it is time to. */
void progress_show(struct progress *p, uint64_t done_bytes);
/* Removes the bar. */
void progress_end(struct progress *p);

/* The bar's text without control characters, at `us` after the start; pure, for tests. `line` has
 * PROGRESS_LINE_SIZE bytes; returns it. */
const char *progress_line(const struct progress *p, uint64_t done_bytes, uint64_t us, char *line);

#endif
