/* loop.h - the event loop thread: libevent's event_base plus what unid adds to it.
 *
 * unid has one loop thread; everything that is not a worker runs there and must not block. The loop
 * adds three things to libevent: calls posted from any thread, deadline timers (an intrusive heap:
 * arming and cancelling cost O(log n), nothing is ever scanned), and virtual time for tests.
 *
 * Sockets use libevent directly through un_loop_base().
 */
#ifndef UNID_COMMON_LOOP_H
#define UNID_COMMON_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct event_base;
struct un_loop;

/* Gives a loop (free with un_loop_free). -ENOMEM, or the errno of the descriptors it opens. */
int un_loop_new(struct un_loop **ret, struct un_error *err);

/* As un_loop_new, but time stands still until un_loop_advance() moves it. For tests. */
int un_loop_new_virtual(uint64_t start_us, struct un_loop **ret, struct un_error *err);

/* Timers still armed are forgotten; posted calls that have not run are dropped. NULL is allowed. */
void un_loop_free(struct un_loop *loop);

/* Borrowed until un_loop_free. */
struct event_base *un_loop_base(struct un_loop *loop);

/* Runs until un_loop_stop(). Loop thread. */
void un_loop_run(struct un_loop *loop);

/* Runs what is ready now, without waiting; returns when nothing is ready any more. For tests. */
void un_loop_run_ready(struct un_loop *loop);

/* Virtual loops: moves time forward by `us`, firing each timer at its own instant, in order. */
void un_loop_advance(struct un_loop *loop, uint64_t us);

/* Makes un_loop_run return soon. Any thread. */
void un_loop_stop(struct un_loop *loop);

/* The loop's monotonic time in microseconds (virtual time on a virtual loop). Loop thread. */
uint64_t un_loop_now_us(const struct un_loop *loop);

/* Whether the caller runs on the loop thread (the thread that last called un_loop_run*). */
bool un_loop_is_current(const struct un_loop *loop);

/* Runs fn(arg) on the loop thread, after the current event, in the order of posting. Any thread.
 * The node is the caller's and must live until fn has been called; it may be posted again from fn.
 * Never fails, because it allocates nothing. */
struct un_post {
    void (*fn)(void *arg);
    void *arg;
    struct un_post *next; /* the loop's */
    bool queued;          /* the loop's; posting a queued node again is a no-op */
};
void un_loop_post(struct un_loop *loop, struct un_post *post);

/* Takes a post back; afterwards fn will not be called. Loop thread only. */
void un_loop_unpost(struct un_loop *loop, struct un_post *post);

/* A one-shot deadline. Zero-initialised, then un_timer_init; the owner cancels it before freeing.
 */
struct un_timer {
    struct un_loop *loop;
    void (*fn)(void *arg);
    void *arg;
    uint64_t at_us; /* un_loop_now_us() time */
    size_t slot;    /* 1-based place in the loop's heap, 0 when not armed */
};
void un_timer_init(struct un_timer *t, struct un_loop *loop, void (*fn)(void *arg), void *arg);

/* Arms, or moves, the timer. fn is called once, never before `at_us` and never inside this call.
 * -ENOMEM when the heap cannot grow (the timer is then as it was). Loop thread. */
int un_timer_arm_at(struct un_timer *t, uint64_t at_us);
int un_timer_arm_in(struct un_timer *t, uint64_t in_us);
void un_timer_cancel(struct un_timer *t);
bool un_timer_armed(const struct un_timer *t);

#endif
