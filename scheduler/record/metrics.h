/* metrics.h - what is counted of invocations: by function and code, and how long their phases took.
 *
 * A function gets a row when it is first called, and keeps it: what is counted in one row never moves to
 * another, and the sum of all rows is always right. Bounded: so many functions as the setting
 * metrics.functions says have a row of their own, the others share one ("_other", which no function can be
 * called), as do invocations of functions that are not there; of a row, the first METRICS_CODES codes have
 * a count of their own. The rows that were counted last come first, so that who has looked before need not
 * look at all of them. Pure but for memory: no clock, no I/O.
 */
#ifndef UNID_SCHEDULER_RECORD_METRICS_H
#define UNID_SCHEDULER_RECORD_METRICS_H

#include "common/list.h"
#include "scheduler/record/receipt.h"

enum {
    METRICS_SLOTS = 4096, /* of the rows' hash table */
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
    struct un_list node;                /* of the rows, but "_other" */
    struct metrics_function *hash_next; /* of its slot */
    char name[64];                      /* "" for "_other" */
    uint64_t counted_us;                /* when an attempt was counted last; 0: none was */
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
    struct metrics_function other;
    struct un_list functions; /* by counted_us, the last first */
    unsigned function_count, function_limit;
    struct metrics_function *slots[METRICS_SLOTS];
    struct metrics_driver drivers[METRICS_DRIVERS];
    unsigned driver_count;
};
/* At most `function_limit` functions get rows of their own. */
void metrics_init(struct sched_metrics *m, unsigned function_limit);
void metrics_done(struct sched_metrics *m);
/* Counts an attempt that is over. `now_us`, of any clock, never goes back. */
void metrics_add(struct sched_metrics *m, const struct receipt *r, uint64_t now_us);
/* Counts connections that a function that is there has opened, or wanted to. */
void metrics_add_egress(struct sched_metrics *m, const char *function,
                        const struct hv_egress *more);

/* A function's own row; NULL: it has none. */
const struct metrics_function *metrics_find(const struct sched_metrics *m, const char *name);

/* Borrowed until control returns to the loop; its times are the loop's. */
const struct sched_metrics *sched_get_metrics(const struct scheduler *s);

#endif
