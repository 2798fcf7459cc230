/* task_internal.h - inside task/ and sys/: what a task is.
 *
 *     RUNNING <---- switch ----> RUNNABLE (on the run queue) <---- wake ---- BLOCKED
 *        |                                                                      ^
 *        +---- task_block ------------------------------------------------------+
 *        +---- exit ----> DEAD (its stack is freed by whoever runs next)
 *
 * A blocked task that is still `current` waits in the scheduler on its own stack: nobody else could
 * run.
 */
#ifndef LIBOS_TASK_INTERNAL_H
#define LIBOS_TASK_INTERNAL_H

#include <asm/siginfo.h>

#include "mm.h"
#include "task.h"

#define SIGNALS    64
#define SIG_BIT(n) (1ull << ((n)-1))

enum task_state { TASK_RUNNING, TASK_RUNNABLE, TASK_BLOCKED, TASK_DEAD };

/* Pending signals: one of each, the latest counts (real-time signals are not queued). */
struct pending {
    uint64_t set;
    struct signal_info *info[SIGNALS]; /* kalloc'ed; NULL: SI_USER from ourselves */
};

struct signal_stack {
    uint64_t sp;
    int32_t flags, pad;
    uint64_t size;
};

struct task {
    struct list node; /* on `tasks` */
    struct list run;  /* on the run queue */
    enum task_state state;
    int32_t tid;
    bool woken;  /* by a wait queue, since task_block began to look */
    char *stack; /* TASK_PAGES frames: FPU state, a guard value, stack */
    uint64_t saved_rsp;
    uint64_t fs_base, gs_base;
    struct timer sleep;
    /* signals */
    struct pending pending;
    uint64_t mask,
        mask_after;   /* mask_after: comes back when the call returns, if mask_is_for_call */
    uint64_t awaited; /* rt_sigtimedwait */
    bool mask_is_for_call;
    struct signal_stack alt_stack;
    /* ends */
    uint64_t clear_child_tid, robust_head;
    char name[16];
};

#define TASK_PAGES 5 /* one of FPU state, four of stack */

extern struct list tasks;
extern unsigned task_count;

/* --- task.c */
struct task *task_new(void); /* not on any list yet; NULL: no memory */
_Noreturn void task_exit(int status);
struct task *task_by_tid(int32_t tid);
static inline struct regs *regs_of(const struct task *t)
{
    return (struct regs *)(t->stack + TASK_PAGES * PAGE_SIZE - 16 - sizeof(struct regs));
}

void tasks_end_others(void); /* all but `current` are no more */

/* --- sched.c */
extern struct list runnable;
void sched_init(struct task *first);
void task_wake(struct task *t);
void sched_slice(void);           /* yields when others wait and this one had its time */
_Noreturn void sched_leave(void); /* `current` is DEAD */

/* --- switch.S */
void switch_stacks(uint64_t *save_rsp, uint64_t load_rsp);
void task_begin(void); /* where a new task starts; returns to the program */
_Noreturn void enter_program(struct regs *regs);
extern char syscall_entry[];
void fpu_init(void);
void fpu_save(void *area);
void fpu_restore(const void *area);
void fpu_fresh(void *area); /* the state that a program starts with */
extern uint32_t fpu_size, fpu_mask;
extern uint64_t kernel_stack; /* of `current`: where sys/entry.S begins to push */

/* --- signal.c */
/* Whether a signal is to be handled by (or ends a wait of) `current`. */
bool signal_pending(void);
/* Before the return to the program: handles signals. */
void signal_deliver(struct regs *r);
void signal_task_done(struct task *t);
void signals_reset(void); /* as at the start of a program */
int signal_send(struct task *t, int signal, const struct signal_info *info); /* NULL t: process */
int64_t signal_return(struct regs *r);

/* --- exec.c */
_Noreturn void exec_start(const char *path);
void program_hooked(struct regs *r); /* from program_hook */
extern char program_hook[];

/* --- futex.c */
void futex_init(void);
int64_t futex_wake_at(uint64_t addr, uint32_t count);
void futex_task_done(struct task *t); /* clear_child_tid, robust list */

/* --- timers, time/timer.c */
void timers_init(void);
uint64_t timers_next(void); /* when the first goes off, or NO_DEADLINE */
void timers_run(void);
void itimers_init(void);
void itimers_reset(void);

#endif
