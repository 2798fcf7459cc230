/* workers.h - a bounded pool of threads for what would block the loop: fsync, hashing, libvirt.
 *
 * A job gets copies and returns values; it touches no state of the loop thread. Its `done` runs on
 * the loop thread exactly once, never inside un_workers_submit. There is no cancellation: whoever
 * loses interest marks its own state and ignores the result.
 */
#ifndef UNID_COMMON_WORKERS_H
#define UNID_COMMON_WORKERS_H

#include "common/error.h"
#include "common/loop.h"

struct un_workers;

/* Embedded in the caller's own request struct, which must live until `done` has been called. */
struct un_job {
    /* Worker thread. Returns 0 or a negative errno with `err` filled. */
    int (*run)(struct un_job *job, struct un_error *err);
    /* Loop thread. `rc` and `err` are what run() gave; `err` is borrowed. */
    void (*done)(struct un_job *job, int rc, const struct un_error *err);
    /* The pool's own. */
    struct un_job *next;
    struct un_workers *pool;
    struct un_post post;
    struct un_error err;
    int rc;
};

/* Gives a pool of up to `max_threads` threads named `name` (at most 15 bytes), which are started on
 * demand and end after ten idle seconds (free with un_workers_free). `loop` is kept until then. */
int un_workers_new(struct un_loop *loop, const char *name, unsigned max_threads,
                   struct un_workers **ret, struct un_error *err);

/* Queues the job. Jobs start in order of submission. Never fails: when not even one thread can be
 * started the job's `done` is posted with -EAGAIN. Any thread. */
void un_workers_submit(struct un_workers *pool, struct un_job *job);

/* Waits for the queued jobs to run and for all threads to end. Their `done` is called from here
 * (loop thread) if it has not been yet. NULL is allowed. */
void un_workers_free(struct un_workers *pool);

#endif
