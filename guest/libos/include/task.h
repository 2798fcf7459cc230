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
 * count is not zero and nothing can run, task/sched.c calls host_next(), which returns at once where the
 * request was had before the program's start, sets `request_here`, and calls `request_arrived`
 * (net/listen.c), which wakes the waiters. */
extern unsigned request_waiters;
extern bool request_here;
void request_arrived(void);
/* Called when connections may have become ready (after a host call): wakes their waiters (net/). */
void net_poll_ready(void);

/* The registers of the program at its system call, at the end of `current`'s kernel stack: the
 * call's return writes rax. */
struct regs {
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    uint64_t nr; /* of the system call */
    uint64_t rip, rflags, rsp;
};
struct regs *task_regs(void);

/* For ppoll, pselect6, epoll_pwait: the signal mask until the call returns, when the old one comes
 * back (after the handler of a signal that only `mask` let in). -EINVAL: size is not 8; -EFAULT. NULL
 * does nothing. */
int signal_mask_for_call(const uint64_t *mask, size_t size);

/* What goes off at a time of CLOCK_MONOTONIC: when no task can run, or at a system call after it. */
struct timer {
    struct list node;
    uint64_t at_ns;                /* NO_DEADLINE: not armed */
    void (*fire)(struct timer *t); /* disarmed before; may arm again; must not block */
};
void timer_init(struct timer *t, void (*fire)(struct timer *t));
void timer_arm(struct timer *t, uint64_t at_ns); /* armed or not */
void timer_disarm(struct timer *t);

/* What /proc/self tells. Strings are packed and NUL-terminated each; borrowed. */
const char *process_exe(void); /* absolute path */
const char *process_cmdline(size_t *ret_len);
const char *process_environ(size_t *ret_len);
uint64_t process_start_ns(void); /* CLOCK_MONOTONIC */
void process_for_each_task(void (*each)(void *arg, const struct task *t), void *arg);
uint64_t process_start_ns(void); /* CLOCK_MONOTONIC */

int32_t task_tid(const struct task *t);
int32_t process_pid(void);                 /* 1 */
_Noreturn void process_exit(int status);   /* exit_group: flushes, host_done */
_Noreturn void process_killed(int signal); /* status 128 + signal, with a log line */
_Noreturn void exec_again(void);           /* the program starts anew; see host_note_clock */
int signal_raise(int signal);              /* to the process: SIGPIPE and its kin */

/* Around the moment of the snapshot: the floating-point and vector registers of now are there again behind it, in
 * whatever machine that is. The host keeps those that SSE has, and the upper halves only where it was told of
 * them; a program that sees a CPU with AVX may hold something there over a system call. */
void fpu_keep(void);
void fpu_bring_back(void);

/* time/ */
uint64_t clock_monotonic_ns(void);
uint64_t clock_realtime_ns(void);
/* What the program has had of the processor: the monotonic time but for what the host was waited for. */
uint64_t clock_cpu_ns(void);
void clock_note_away(uint64_t ns); /* a call of the host took that long */
/* By host_next: time goes on from here, which may be another machine's clock, at `monotonic_ns` and
 * `wall_ns`. */
void clock_resume(uint64_t monotonic_ns, uint64_t wall_ns);

#endif
