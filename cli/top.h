/* top.h - what `unictl top` shows: two samples of GET /api/v1/stats to rates, a table, and JSON.
 *
 * Pure: no clock, no I/O, no terminal. A sample is that answer as it came, borrowed; nothing of it is
 * taken for granted, what is missing counts as 0.
 */
#ifndef UNID_CLI_TOP_H
#define UNID_CLI_TOP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/error.h"

enum { TOP_INTERVAL_LEAST_MS = 100, TOP_INTERVAL_MOST_MS = 3600 * 1000 };

struct top_row {
    const char *name; /* borrowed from the samples; "" is what has no function's row */
    uint64_t running, ready, memory_mib, waiting;
    double requests_s, errors_s;
    bool ran;         /* something has in the interval; else mean_us says nothing */
    uint64_t mean_us; /* from the admission to the answer's end */
};

struct top_view {
    struct top_row *rows; /* the busiest first */
    size_t count;
    const char *at;       /* RFC 3339, borrowed */
    bool rated;           /* there was a sample before: rates are known */
    uint64_t interval_us; /* that the rates are of */
    uint64_t instances;
    struct top_row all; /* of everything, functions that were removed too */
    uint64_t memory_limit_mib;
};

/* What is known of the samples before; zero-initialise. A sample but the first of a run of unid may have
 * only what has changed since the one before it, so what was counted is kept by function. */
struct top_past {
    json_t *sample; /* the last one; NULL: there was none */
    json_t *rows;   /* the last row of each function, by its name */
};
/* Whether `sample` is of the same run of unid as the past: if not, it must be a whole one. */
bool top_past_leads_to(const struct top_past *past, const json_t *sample);
/* Makes it a part of the past. 0, -ENOMEM: then the past is none. */
int top_past_take(struct top_past *past, json_t *sample);
void top_past_done(struct top_past *past);

/* Without a past no rates are known. If unid was started since, the interval begins with its start.
 * `functions`: the items of GET /api/v1/functions or NULL, each gets a row; of other functions, only those
 * that have something to show. All borrowed while `ret` is used (release with top_view_done; untouched on
 * failure). 0, -ENOMEM. */
int top_view_make(const struct top_past *past, const json_t *now, const json_t *functions,
                  struct top_view *ret);
void top_view_done(struct top_view *v);

/* Of a terminal, in characters; 0: not bounded. */
struct top_screen {
    unsigned columns, lines;
};

/* Appends two lines of sums, an empty one, and the table. On a screen, names are cut for the other columns to
 * fit, rows that find no place are told by number, and the last line is left free. 0, -ENOMEM. */
int top_view_text(const struct top_view *v, const struct top_screen *screen, struct un_buf *out);

/* Gives an object for programs; NULL: out of memory. */
json_t *top_view_json(const struct top_view *v);

/* Appends lines as what is drawn over the ones before, from the screen's first line on (ECMA-48: CUP, EL,
 * ED); what was there is gone. 0, -ENOMEM. */
int top_frame(const char *text, struct un_buf *out);

/* "1", "0.5" (seconds), or with a unit as args_duration has it, from TOP_INTERVAL_LEAST_MS to
 * TOP_INTERVAL_MOST_MS. -EINVAL, -ERANGE. */
int top_interval(const char *text, uint64_t *ret_ms, struct un_error *err);

#endif
