/* task.h - threads: tasks, waiting, the cooperative scheduler, signals (task/).
 *
 * One process. A task is a thread of it, made by clone(). A task runs until a call of it blocks;
 * each has a kernel stack of its own, on which its call waits. Floating-point state is saved when
 * tasks are switched (XSAVE), never in a plain system call: the kernel uses general registers only.
 */
#ifndef LIBOS_TASK_H
#define LIBOS_TASK_H

#include "kernel.h"

struct task;
extern struct task *current;

/* A queue of waiters: what blocks, waits on one or several of them. */
struct waitq {
    struct list waiters;
};
struct waiter {
    struct list node; /* on the queue */
    struct task *task;
    bool woken;
};
static inline void waitq_init(struct waitq *q)
{
    list_init(&q->waiters);
}
void waitq_add(struct waitq *q, struct waiter *w); /* for `current` */
void waitq_remove(struct waiter *w);               /* also when woken, or never added */
void waitq_wake_all(struct waitq *q);
void waitq_wake_one(struct waitq *q);

#define NO_DEADLINE UINT64_MAX

/* Gives up the CPU until a waiter of this task is woken, `deadline_ns` (CLOCK_MONOTONIC) has come, or
 * a signal is to be handled. 0, -ETIMEDOUT, -EINTR. Callers re-check what they wait for. */
int task_block(uint64_t deadline_ns);
/* task_block on one queue. */
int waitq_wait(struct waitq *q, uint64_t deadline_ns);
void task_yield(void); /* lets others run that can; returns */

/* When no task can run the scheduler waits in the host: for the nearest deadline or connections. But
 * where somebody waits for the request, that is asked for first: these are counted here by who
 * waits (standard input of `filter` blocks in host_body_read itself; `http`: accept, poll). When the
 * count is not zero and nothing can run, task/sched.c calls host_next() and then `request_arrived`
 * (net/listen.c), which wakes the waiters. */
extern unsigned request_waiters;
void request_arrived(void);
/* Called when connections may have become ready (after a host call): wakes their waiters (net/). */
void net_poll_ready(void);

int32_t task_tid(const struct task *t);
int32_t process_pid(void); /* 1 */
_Noreturn void process_exit(int status);      /* exit_group: flushes, host_done */
_Noreturn void process_killed(int signal);    /* status 128 + signal, with a log line */
int signal_raise(int signal);                 /* to the process: SIGPIPE and its kin */

/* time/ */
uint64_t clock_monotonic_ns(void);
uint64_t clock_realtime_ns(void);
void clock_set_wall(uint64_t wall_ns); /* by host_next */

#endif
