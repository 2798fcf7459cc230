/* async.h - invocations that were accepted to be run later: the durable queue.
 *
 * An accepted invocation is committed before `cb` says so; it survives kill -9 and runs at least
 * once, each attempt recorded in its receipt. It leaves the queue when it has run (whatever came of
 * it).
 */
#ifndef UNID_SCHEDULER_ASYNC_H
#define UNID_SCHEDULER_ASYNC_H

#include "scheduler/scheduler.h"

struct async_spec {
    const char *function, *qualifier;
    const char *content_type; /* or NULL */
    const void *body;         /* copied; at most LIMIT_ASYNC_BODY_BYTES */
    size_t body_len;
};

/* -ENOENT no such function; -E2BIG body; -ENOSPC. `id` is the invocation's, borrowed. */
typedef void (*async_accept_cb)(void *arg, int rc, const char *id, const struct un_error *err);
void async_submit(struct scheduler *s, const struct async_spec *spec, async_accept_cb cb,
                  void *arg);

/* What is known of an accepted invocation that has no receipt yet: true while it waits or runs. */
typedef void (*async_pending_cb)(void *arg, bool pending);
void async_pending(struct scheduler *s, const char *id, async_pending_cb cb, void *arg);

#endif
