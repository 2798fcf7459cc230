/* task.c - threads begin and end; the process ends. */
#include <linux/sched.h>

#include "task/task_internal.h"

#include "file.h"
#include "host.h"
#include "mm.h"
#include "sys_core.h"

struct list tasks;
unsigned task_count;
static int32_t last_tid;

static void wake_sleeper(struct timer *timer)
{
    task_wake(container_of(timer, struct task, sleep));
}

struct task *task_new(void)
{
    struct task *t = kalloc(sizeof(*t));
    uint64_t stack = t ? frame_alloc_many(TASK_PAGES) : 0;
    if (!stack) {
        kfree(t);
        return NULL;
    }
    if (!tasks.next) {
        list_init(&tasks);
    }
    t->stack = phys_to_virt(stack);
    t->tid = ++last_tid;
    t->alt_stack.flags = 2; /* SS_DISABLE */
    list_init(&t->run);
    list_add_tail(&tasks, &t->node);
    timer_init(&t->sleep, wake_sleeper);
    fpu_fresh(t->stack);
    task_count++;
    return t;
}

struct task *task_by_tid(int32_t tid)
{
    list_for (node, &tasks) {
        struct task *t = container_of(node, struct task, node);
        if (t->tid == tid) {
            return t;
        }
    }
    return NULL;
}

struct regs *task_regs(void)
{
    return regs_of(current);
}

int32_t task_tid(const struct task *t)
{
    return t->tid;
}

int32_t process_pid(void)
{
    return 1;
}

void process_for_each_task(void (*each)(void *arg, const struct task *t), void *arg)
{
    list_for (node, &tasks) {
        each(arg, container_of(node, struct task, node));
    }
}

/* --- clone ------------------------------------------------------------------------------------ */

#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD)

struct thread {
    uint64_t flags, stack, tls;
    uint64_t parent_tid, child_tid;
};

/* The new task's kernel stack is as if switch_stacks had been called from task_begin, below a copy of
 * the caller's registers. */
static int64_t start_thread(const struct thread *th)
{
    struct task *t = task_new();
    if (!t) {
        return -EAGAIN;
    }
    struct regs *r = regs_of(t);
    *r = *task_regs();
    r->rax = 0;
    if (th->stack) {
        r->rsp = th->stack;
    }
    uint64_t *sp = (uint64_t *)r - 1; /* task_begin's rsp: aligned as its call needs it */
    *--sp = (uint64_t)task_begin;
    sp -= 6; /* what switch_stacks pops */
    t->saved_rsp = (uint64_t)sp;
    __asm__ volatile("rdfsbase %0" : "=r"(t->fs_base));
    __asm__ volatile("rdgsbase %0" : "=r"(t->gs_base));
    if (th->flags & CLONE_SETTLS) {
        t->fs_base = th->tls;
    }
    fpu_save(t->stack);
    t->mask = current->mask;
    memcpy(t->name, current->name, sizeof(t->name));
    if (th->flags & CLONE_PARENT_SETTID) {
        *(int32_t *)th->parent_tid = t->tid;
    }
    if (th->flags & CLONE_CHILD_SETTID) {
        *(int32_t *)th->child_tid = t->tid;
    }
    if (th->flags & CLONE_CHILD_CLEARTID) {
        t->clear_child_tid = th->child_tid;
    }
    t->state = TASK_BLOCKED;
    task_wake(t);
    return t->tid;
}

/* A server that forks for each connection goes on as the child: the parent would only wait for another
 * connection, of which there is none in this machine, as it serves one request and ends with it. So
 * nothing needs to be copied. Once only: what the child forks is a program that it wants to run. (C
 * libraries fork by clone(); the call fork() stays among those that are missing.) */
static bool fork_is_for_the_request(const struct thread *th)
{
    static bool forked;
    const uint64_t known =
        CSIGNAL | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
    if (forked || host_interface() != UNID_INTERFACE_HTTP || !request_here || task_count != 1 ||
        th->stack || th->flags & ~known) {
        return false;
    }
    forked = true;
    return true;
}

static int64_t go_on_as_child(const struct thread *th)
{
    if (th->flags & CLONE_CHILD_SETTID) {
        *(int32_t *)th->child_tid = current->tid;
    }
    current->clear_child_tid = th->flags & CLONE_CHILD_CLEARTID ? th->child_tid : 0;
    return 0;
}

static int64_t clone_checked(const struct thread *th, uint32_t nr)
{
    bool fork = (th->flags & THREAD_FLAGS) != THREAD_FLAGS;
    if (fork && !fork_is_for_the_request(th)) {
        host_report_unsupported(nr); /* a process of its own: fork, vfork, posix_spawn */
        return -ENOSYS;
    }
    if ((th->flags & CLONE_PARENT_SETTID && !user_writable((void *)th->parent_tid, 4)) ||
        (th->flags & (CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID) &&
         !user_writable((void *)th->child_tid, 4))) {
        return -EFAULT;
    }
    return fork ? go_on_as_child(th) : start_thread(th);
}

int64_t sys_clone(uint64_t flags, uint64_t stack, uint64_t parent_tid, uint64_t child_tid,
                  uint64_t tls)
{
    struct thread th = {flags, stack, tls, parent_tid, child_tid};
    return clone_checked(&th, (uint32_t)task_regs()->nr);
}

int64_t sys_clone3(const struct clone_args *args, size_t size)
{
    if (size < CLONE_ARGS_SIZE_VER0) {
        return -EINVAL;
    }
    if (!user_readable(args, size)) {
        return -EFAULT;
    }
    struct thread th = {args->flags, args->stack + args->stack_size, args->tls, args->parent_tid,
                        args->child_tid};
    return clone_checked(&th, (uint32_t)task_regs()->nr);
}

/* --- ends ------------------------------------------------------------------------------------- */

void task_exit(int status)
{
    struct task *t = current;
    futex_task_done(t);
    signal_task_done(t);
    if (--task_count == 0) {
        process_exit(status);
    }
    list_del(&t->node);
    t->state = TASK_DEAD;
    sched_leave();
}

/* Their stacks stay: waiters on them may be in queues still. */
void tasks_end_others(void)
{
    for (struct list *node = tasks.next, *next; node != &tasks; node = next) {
        struct task *t = container_of(node, struct task, node);
        next = node->next;
        if (t != current) {
            list_del(&t->node);
            list_del(&t->run);
            timer_disarm(&t->sleep);
            t->state = TASK_DEAD;
            task_count--;
        }
    }
}

void process_exit(int status)
{
    if (status & 0xff) {
        absent_tell();
    }
    host_done(status & 0xff);
}

void process_killed(int signal)
{
    klog("the program was ended by signal %d", signal);
    absent_tell();
    host_done(128 + signal);
}

int64_t sys_exit(int status)
{
    task_exit(status);
}

int64_t sys_exit_group(int status)
{
    process_exit(status);
}

int64_t sys_gettid(void)
{
    return current->tid;
}

int64_t sys_getpid(void)
{
    return process_pid();
}

int64_t sys_sched_yield(void)
{
    task_yield();
    return 0;
}

int64_t sys_set_tid_address(uint64_t addr)
{
    current->clear_child_tid = addr;
    return current->tid;
}

int64_t sys_set_robust_list(uint64_t head, size_t len)
{
    if (len != 24) {
        return -EINVAL;
    }
    current->robust_head = head;
    return 0;
}

int64_t sys_get_robust_list(int tid, uint64_t *ret_head, uint64_t *ret_len)
{
    const struct task *t = tid == 0 ? current : task_by_tid(tid);
    if (!t) {
        return -ESRCH;
    }
    if (!user_writable(ret_head, 8) || !user_writable(ret_len, 8)) {
        return -EFAULT;
    }
    *ret_head = t->robust_head;
    *ret_len = 24;
    return 0;
}
