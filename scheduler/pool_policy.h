/* pool_policy.h - how many shells to keep: a policy without clock, I/O or allocation.
 *
 * It is told what happens, with the time, and asked what to do; pool.c does it. One policy stands
 * for the shells of one memory size.
 *
 * The target follows demand. A request that found no shell ready raises it by one, up to `most`; a
 * request that took the last one puts decay off; when for `idle_us` nothing of the kind has
 * happened, the target falls by one, down to `least`. So a burst leaves a pool of its size behind,
 * a steady load the size that it needs, and silence `least`.
 *
 * Failures: after one, the next attempt waits (exponentially longer, with jitter), and only one is
 * made at a time, until one succeeds. From POOL_FAILURES_BROKEN failures in a row on, the pool
 * counts as broken: whoever needs a shell is told so at once instead of waiting, save for the one
 * that comes when the next attempt is due. Shells that were begun before the last failure do not
 * count again.
 */
#ifndef UNID_SCHEDULER_POOL_POLICY_H
#define UNID_SCHEDULER_POOL_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum {
    POOL_FAILURES_BROKEN = 3,
    POOL_REFILL_PARALLEL =
        4, /* shells made ahead at a time; those that requests wait for add to it */
    POOL_RETRY_FIRST_US = 100000, /* a hypervisor that is restarted is back within a second or so */
    POOL_RETRY_MOST_US = 10000000
};

struct pool_policy {
    /* settings */
    unsigned least, most;
    uint64_t idle_us;
    /* state */
    unsigned target;
    uint64_t decay_at; /* UINT64_MAX: nothing to decay */
    unsigned failures; /* in a row */
    uint64_t retry_at; /* no attempt before, when failures > 0 */
    uint64_t round;    /* raised by each failure that counted */
};

void pool_policy_init(struct pool_policy *p, unsigned least, unsigned most, uint64_t idle_us);

/* From now on no shell is kept or made ahead. */
void pool_policy_stop(struct pool_policy *p);

/* A request took a shell that was ready, and `left` remain. */
void pool_policy_hit(struct pool_policy *p, uint64_t now_us, unsigned left);
/* A request found none ready. */
void pool_policy_miss(struct pool_policy *p, uint64_t now_us);

/* A shell came, or could not be made; `round` is the policy's when it was begun. `random` is any
 * random number, for the jitter. */
void pool_policy_made(struct pool_policy *p);
void pool_policy_failed(struct pool_policy *p, uint64_t now_us, uint64_t round, uint32_t random);

/* Whether a request that needs a shell now should be refused, and in how many microseconds an
 * attempt is worth while. */
bool pool_policy_broken(const struct pool_policy *p, uint64_t now_us, uint64_t *ret_retry_us);

struct pool_counts {
    unsigned idle, starting;
    unsigned claims; /* requests that were admitted and wait for a shell */
    bool refill;     /* shells may be made ahead of requests */
};
struct pool_action {
    unsigned start;   /* begin so many */
    unsigned release; /* let so many idle ones go */
    uint64_t wake_us; /* ask again at this time; UINT64_MAX: only after an event */
};
struct pool_action pool_policy_run(struct pool_policy *p, uint64_t now_us,
                                   const struct pool_counts *counts);

#endif
