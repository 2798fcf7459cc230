/* wait.h - waiting for several open files: what poll, select and epoll share (poll.c).
 *
 *     do {
 *         look at the files; return when one is ready
 *         pollwait_init(); pollwait_add() for each; r = pollwait_block(); pollwait_done();
 *     } while (r == 0);
 *
 * A file that goes away meanwhile wakes its waiters (file_unref), so no references are held.
 */
#ifndef LIBOS_WAIT_H
#define LIBOS_WAIT_H

#include <asm/poll.h>
#include <linux/time_types.h>

#include "fs/vfs.h"

#define POLLWAIT_INLINE 8

struct pollwait_more {
    struct pollwait_more *next;
    struct waiter waiters[32];
};

struct pollwait {
    struct waiter waiters[POLLWAIT_INLINE];
    struct pollwait_more *more;
    size_t used; /* of `waiters`, or of more->waiters */
    uint64_t deadline_ns;
    bool request; /* one of the files waits for the request */
};

void pollwait_init(struct pollwait *w, uint64_t deadline_ns);
int pollwait_add(struct pollwait *w, struct file *f); /* -ENOMEM */
int pollwait_queue(struct pollwait *w, struct waitq *q);
/* 0: look again. -ETIMEDOUT, -EINTR. A deadline of a file's own is no time-out. */
int pollwait_block(struct pollwait *w, uint64_t deadline_ns);
void pollwait_done(struct pollwait *w);
int epoll_pollwait_add(struct pollwait *w, struct file *f); /* of an epoll: all that it watches */

uint32_t file_poll(struct file *f);
bool file_wants_request(struct file *f);
static inline bool file_nonblocking(const struct file *f)
{
    return f->nowait || (f->flags & O_NONBLOCK);
}
/* Blocks on the one queue; 0, or -EINTR. */
static inline int readiness_wait(struct readiness *r)
{
    return waitq_wait(&r->q, NO_DEADLINE);
}

/* Time-outs as deadlines: NO_DEADLINE for ever. -EINVAL, -EFAULT. */
int deadline_of_ms(int timeout_ms, uint64_t *ret_ns);
int deadline_of_timespec(const struct __kernel_timespec *t, uint64_t *ret_ns); /* the program's */

#endif
