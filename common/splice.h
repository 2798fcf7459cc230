/* splice.h - two connected stream sockets as one connection: what comes out of one goes into the other.
 *
 * Each direction ends by itself: an end of input is passed on as such (shutdown(2)) when all before it
 * has been. When both have ended, or either socket breaks, both are closed; a break is passed on as a
 * reset. What one side does not take is held, at most UN_SPLICE_HELD bytes a direction, and the other is
 * not read meanwhile, so that the back-pressure is the sockets' own. An idle splice holds no buffer.
 *
 * Loop thread.
 */
#ifndef UNID_COMMON_SPLICE_H
#define UNID_COMMON_SPLICE_H

#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"

enum { UN_SPLICE_HELD = 64 * 1024 };

struct un_splice;

struct un_splice_stats {
    uint64_t a_to_b, b_to_a; /* bytes that were written */
    int rc;                  /* 0: both sides ended; or a negative errno of the one that broke */
};

/* Takes both descriptors on success: stream sockets, connected, non-blocking. `done` comes once, never
 * inside this call, and the splice is gone then. -ENOMEM. */
int un_splice_new(struct un_loop *loop, int a, int b,
                  void (*done)(void *arg, const struct un_splice_stats *stats), void *arg,
                  struct un_splice **ret, struct un_error *err);

/* What has been written until now; `rc` is 0. */
void un_splice_get_stats(const struct un_splice *s, struct un_splice_stats *ret);

/* Breaks it off, with a reset to both sides; `done` does not come. NULL is allowed. */
void un_splice_free(struct un_splice *s);

#endif
