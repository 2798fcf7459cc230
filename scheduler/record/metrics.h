/* metrics.h - what is counted of invocations: by function and code, and how long their phases took.
 *
 * Bounded: the first METRICS_FUNCTIONS functions that are called have a row of their own, the others
 * share one ("other"), as do invocations of functions that are not there; of a row, the first
 * METRICS_CODES codes have a count of their own. Pure but for memory: no clock, no I/O.
 */
#ifndef UNID_SCHEDULER_RECORD_METRICS_H
#define UNID_SCHEDULER_RECORD_METRICS_H

#include "scheduler/record/receipt.h"

enum {
    METRICS_FUNCTIONS = 100,
    METRICS_CODES = 12,
    METRICS_DRIVERS = SCHED_DRIVERS_MAX,
    METRICS_BUCKETS = 21 /* bounds from 0.1 ms, each twice the one before: up to 104.8576 s */
};

enum metrics_phase {
    METRICS_QUEUE,
    METRICS_SHELL,
    METRICS_BIND,
    METRICS_START,
    METRICS_FIRST_BYTE,
    METRICS_RUN,
    METRICS_TEARDOWN,
    METRICS_PHASES
};
const char *metrics_phase_name(enum metrics_phase p); /* as in the receipt, without "_us" */

struct metrics_histogram {
    uint64_t buckets[METRICS_BUCKETS + 1]; /* not cumulative; the last: beyond every bound */
    uint64_t count, sum_us;
};
/* The upper bound (inclusive) of bucket `i` < METRICS_BUCKETS. */
uint64_t metrics_bucket_us(unsigned i);
void metrics_observe(struct metrics_histogram *h, uint64_t us);

struct metrics_code {
    unsigned code; /* 0: any other */
    uint64_t count;
};
struct metrics_function {
    char name[64]; /* "" for "other" */
    struct metrics_code codes[METRICS_CODES + 1];
    unsigned code_count;
    uint64_t ended, failed;    /* of all; of them, outcome not "ok", or status 500 and above */
    uint64_t ran, duration_us; /* in a VM; from the admission to the answer's end, added up */
    uint64_t egress_connections, egress_refused, egress_failed; /* as struct hv_egress has them */
    uint64_t egress_bytes_in, egress_bytes_out;
};
struct metrics_driver {
    char name[16];
    struct metrics_histogram phases[METRICS_PHASES];
};

struct sched_metrics {
    struct metrics_function functions[METRICS_FUNCTIONS + 1]; /* [0] is "other" */
    unsigned function_count;
    struct metrics_driver drivers[METRICS_DRIVERS];
    unsigned driver_count;
};
void metrics_init(struct sched_metrics *m);
/* Counts an attempt that is over. */
void metrics_add(struct sched_metrics *m, const struct receipt *r);
/* Counts connections that a function that is there has opened, or wanted to. */
void metrics_add_egress(struct sched_metrics *m, const char *function,
                        const struct hv_egress *more);

/* Borrowed until control returns to the loop. */
const struct sched_metrics *sched_get_metrics(const struct scheduler *s);

#endif
