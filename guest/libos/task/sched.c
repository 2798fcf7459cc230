/* sched.c - who runs: cooperative, in turn; and what happens when nobody can. */
#include "task/task_internal.h"

#include "host.h"

#define SLICE_NS       10000000ull /* after which a task that makes calls lets others go */
#define WAIT_LONGEST   3600000000000ull
#define STACK_GUARD    0x6b636174736b6fffull
#define STACK_GUARD_AT (PAGE_SIZE - 8)

struct task *current;
struct list runnable;
unsigned request_waiters;
bool request_here;
uint64_t kernel_stack;
static struct task *dead; /* whose stack was in use when it ended */
static uint64_t slice_end_ns;

__attribute__((weak)) void request_arrived(void)
{
}

__attribute__((weak)) void net_poll_ready(void)
{
}

static uint64_t *guard_of(const struct task *t)
{
    return (uint64_t *)(t->stack + STACK_GUARD_AT);
}

void sched_init(struct task *first)
{
    list_init(&runnable);
    *guard_of(first) = STACK_GUARD;
    first->state = TASK_RUNNING;
    current = first;
    kernel_stack = (uint64_t)(regs_of(first) + 1);
}

void task_wake(struct task *t)
{
    if (t->state != TASK_BLOCKED) {
        return;
    }
    if (t == current) {
        t->state = TASK_RUNNING;
        return;
    }
    t->state = TASK_RUNNABLE;
    list_add_tail(&runnable, &t->run);
}

static void bury(void)
{
    if (dead) {
        for (uint64_t i = 0, phys = virt_to_phys(dead->stack); i < TASK_PAGES; i++) {
            frame_free(phys + i * PAGE_SIZE);
        }
        kfree(dead);
        dead = NULL;
    }
}

#ifdef LIBOS_HOSTED /* the host's own thread-local storage hangs on them */
static void save_bases(struct task *t)
{
    (void)t;
}

static void load_bases(const struct task *t)
{
    (void)t;
}
#else
static void save_bases(struct task *t)
{
    __asm__ volatile("rdfsbase %0" : "=r"(t->fs_base));
    __asm__ volatile("rdgsbase %0" : "=r"(t->gs_base));
}

static void load_bases(const struct task *t)
{
    __asm__ volatile("wrfsbase %0" : : "r"(t->fs_base));
    __asm__ volatile("wrgsbase %0" : : "r"(t->gs_base));
}
#endif

static void switch_to(struct task *next)
{
    struct task *was = current;
    list_del(&next->run);
    if (*guard_of(was) != STACK_GUARD) {
        kpanic("a kernel stack overflowed");
    }
    *guard_of(next) = STACK_GUARD;
    if (was->state != TASK_DEAD) {
        save_bases(was);
        fpu_save(was->stack);
    }
    next->state = TASK_RUNNING;
    current = next;
    kernel_stack = (uint64_t)(regs_of(next) + 1);
    slice_end_ns = clock_monotonic_ns() + SLICE_NS;
    fpu_restore(next->stack);
    load_bases(next);
    switch_stacks(&was->saved_rsp, next->saved_rsp);
    bury(); /* here is whoever runs now */
}

void task_begin_c(void);
void task_begin_c(void)
{
    bury();
}

/* Nobody can run: time has to pass, or something to come from outside. */
static void idle(void)
{
    net_poll_ready();
    if (!list_empty(&runnable) || current->state == TASK_RUNNING) {
        return;
    }
    if (request_waiters > 0 && !request_here) {
        host_next();
        request_here = true;
        request_arrived();
        return;
    }
    uint64_t next = timers_next(), now = clock_monotonic_ns();
    if (next <= now) {
        timers_run();
        return;
    }
    if (next == NO_DEADLINE && host_net_count() == 0 && host_interface() != UNID_INTERFACE_HTTP) {
        kpanic("all threads wait for each other, or for a signal that nobody can send");
    }
    uint64_t wait = next == NO_DEADLINE ? WAIT_LONGEST : next - now;
    host_wait(wait < WAIT_LONGEST ? wait : WAIT_LONGEST);
    timers_run();
}

static struct task *first_runnable(void)
{
    return list_empty(&runnable) ? NULL : container_of(runnable.next, struct task, run);
}

int task_block(uint64_t deadline_ns)
{
    struct task *t = current;
    if (!t->woken && !signal_pending()) {
        if (deadline_ns != NO_DEADLINE) {
            timer_arm(&t->sleep, deadline_ns);
        }
        t->state = TASK_BLOCKED;
        timers_run();
        while (t->state == TASK_BLOCKED) {
            struct task *next = first_runnable();
            if (next) {
                switch_to(next);
            } else {
                idle();
            }
        }
        timer_disarm(&t->sleep);
    }
    bool woken = t->woken;
    t->woken = false;
    return woken ? 0 : signal_pending() ? -EINTR : -ETIMEDOUT;
}

void task_yield(void)
{
    timers_run();
    struct task *next = first_runnable();
    if (next) {
        current->state = TASK_RUNNABLE;
        list_add_tail(&runnable, &current->run);
        switch_to(next);
    }
}

void sched_slice(void)
{
    if (clock_monotonic_ns() >= slice_end_ns) {
        task_yield();
    }
}

void sched_leave(void)
{
    struct task *t = current;
    dead = t;
    for (;;) {
        struct task *next = first_runnable();
        if (next) {
            switch_to(next);
        }
        idle();
    }
}

/* --- wait queues ------------------------------------------------------------------------------ */

void waitq_add(struct waitq *q, struct waiter *w)
{
    w->task = current;
    w->woken = false;
    list_add_tail(&q->waiters, &w->node);
}

void waitq_remove(struct waiter *w)
{
    if (w->task && !w->woken) {
        list_del(&w->node);
    }
    w->task = NULL;
}

static void wake(struct waiter *w)
{
    list_del(&w->node);
    w->woken = true;
    w->task->woken = true;
    task_wake(w->task);
}

void waitq_wake_all(struct waitq *q)
{
    while (!list_empty(&q->waiters)) {
        wake(container_of(q->waiters.next, struct waiter, node));
    }
}

void waitq_wake_one(struct waitq *q)
{
    if (!list_empty(&q->waiters)) {
        wake(container_of(q->waiters.next, struct waiter, node));
    }
}

int waitq_wait(struct waitq *q, uint64_t deadline_ns)
{
    struct waiter w;
    waitq_add(q, &w);
    int r = task_block(deadline_ns);
    waitq_remove(&w);
    return r;
}
