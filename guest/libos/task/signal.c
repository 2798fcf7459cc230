/* signal.c - signals that the program sends to itself: actions, masks, pending ones, waiting.
 *
 * Handlers begin when a thread returns from a system call (sigframe.c), never between: there are no
 * interrupts. So SIGALRM comes at the first call after its time. Faults are the machine's end. */
#include <linux/signal.h>

#include "task/task_internal.h"

#include "file.h"
#include "mm.h"
#include "sys_core.h"
#include "task/signal_internal.h"
#include "time/time.h"

#define UNBLOCKABLE (SIG_BIT(SIGKILL) | SIG_BIT(SIGSTOP))

struct action actions[SIGNALS + 1];
static struct pending process_pending;
static struct readiness sent; /* something became pending */

static bool ignored(int signal)
{
    const struct action *a = &actions[signal];
    if (a->handler == (uint64_t)SIG_DFL) {
        return signal == SIGCHLD || signal == SIGURG || signal == SIGWINCH || signal == SIGCONT;
    }
    return a->handler == (uint64_t)SIG_IGN;
}

static uint64_t deliverable(const struct task *t)
{
    return (t->pending.set | process_pending.set) & (~t->mask | t->awaited);
}

bool signal_pending(void)
{
    return deliverable(current) != 0;
}

/* --- sending ---------------------------------------------------------------------------------- */

static struct task *receiver(int signal)
{
    if (!(current->mask & SIG_BIT(signal)) && current->state != TASK_DEAD) {
        return current;
    }
    list_for (node, &tasks) {
        struct task *t = container_of(node, struct task, node);
        if (!(t->mask & SIG_BIT(signal)) || t->awaited & SIG_BIT(signal)) {
            return t;
        }
    }
    return NULL;
}

int signal_send(struct task *t, int signal, const struct signal_info *info)
{
    struct pending *p = t ? &t->pending : &process_pending;
    struct task *to = t ? t : receiver(signal);
    uint64_t bit = SIG_BIT(signal);
    if (signal == SIGKILL) {
        process_killed(signal);
    }
    if (ignored(signal) && to && !((to->mask | to->awaited) & bit)) {
        return 0; /* what all have blocked is kept: sigwaitinfo and signalfd get it */
    }
    if (info && !(p->set & bit)) {
        struct signal_info *copy = p->info[signal - 1];
        copy = copy ? copy : kalloc(sizeof(*copy));
        if (!copy) {
            return -EAGAIN;
        }
        *copy = *info;
        p->info[signal - 1] = copy;
    }
    p->set |= bit;
    if (to && bit & (~to->mask | to->awaited)) {
        task_wake(to);
    }
    readiness_changed(signals_ready());
    return 0;
}

struct readiness *signals_ready(void)
{
    if (!sent.q.waiters.next) {
        readiness_init(&sent);
    }
    return &sent;
}

uint64_t signals_waiting(void)
{
    return current->pending.set | process_pending.set;
}

int signal_raise(int signal)
{
    return signal_send(NULL, signal, NULL);
}

void signal_task_done(struct task *t)
{
    for (int i = 0; i < SIGNALS; i++) {
        kfree(t->pending.info[i]);
        t->pending.info[i] = NULL;
    }
}

void signals_reset(void)
{
    memset(actions, 0, sizeof(actions));
    readiness_init(&sent); /* nobody waits any more */
    process_pending.set = current->pending.set = 0;
    current->mask = current->awaited = 0;
    current->mask_is_for_call = false;
    current->alt_stack = (struct signal_stack){.flags = SS_DISABLE};
}

int signal_take(uint64_t set, struct signal_info *ret)
{
    struct pending *p = &current->pending;
    uint64_t ready = p->set & set;
    if (!ready) {
        p = &process_pending;
        ready = p->set & set;
    }
    if (!ready) {
        return 0;
    }
    /* Those of faults first, as Linux does: abort() before what came in between. */
    int signal = __builtin_ctzll(ready) + 1;
    p->set &= ~SIG_BIT(signal);
    struct signal_info *info = p->info[signal - 1];
    if (info) {
        *ret = *info;
        kfree(info);
        p->info[signal - 1] = NULL;
    } else {
        *ret = (struct signal_info){.signo = signal, .code = SI_USER, .pid = process_pid()};
    }
    return signal;
}

/* --- masks ------------------------------------------------------------------------------------ */

void signal_set_mask(uint64_t mask)
{
    current->mask = mask & ~UNBLOCKABLE;
}

static void mask_for_call(uint64_t mask)
{
    if (!current->mask_is_for_call) {
        current->mask_after = current->mask;
        current->mask_is_for_call = true;
    }
    signal_set_mask(mask);
}

int signal_mask_for_call(const uint64_t *mask, size_t size)
{
    if (!mask) {
        return 0;
    }
    if (size != 8) {
        return -EINVAL;
    }
    if (!user_readable(mask, 8)) {
        return -EFAULT;
    }
    mask_for_call(*mask);
    return 0;
}

int64_t sys_rt_sigprocmask(int how, const uint64_t *set, uint64_t *ret_old, size_t size)
{
    uint64_t old = current->mask;
    if (size != 8) {
        return -EINVAL;
    }
    if ((set && !user_readable(set, 8)) || (ret_old && !user_writable(ret_old, 8))) {
        return -EFAULT;
    }
    if (set) {
        switch (how) {
        case SIG_BLOCK:
            signal_set_mask(old | *set);
            break;
        case SIG_UNBLOCK:
            signal_set_mask(old & ~*set);
            break;
        case SIG_SETMASK:
            signal_set_mask(*set);
            break;
        default:
            return -EINVAL;
        }
    }
    if (ret_old) {
        *ret_old = old;
    }
    return 0;
}

int64_t sys_rt_sigpending(uint64_t *ret, size_t size)
{
    if (size > 8) {
        return -EINVAL;
    }
    if (!user_writable(ret, 8)) {
        return -EFAULT;
    }
    *ret = signals_waiting() & current->mask;
    return 0;
}

/* --- actions ---------------------------------------------------------------------------------- */

int64_t sys_rt_sigaction(int signal, const struct action *action, struct action *ret_old,
                         size_t size)
{
    if (size != 8 || signal < 1 || signal > SIGNALS) {
        return -EINVAL;
    }
    if ((action && !user_readable(action, sizeof(*action))) ||
        (ret_old && !user_writable(ret_old, sizeof(*ret_old)))) {
        return -EFAULT;
    }
    if (action && SIG_BIT(signal) & UNBLOCKABLE) {
        return -EINVAL;
    }
    struct action old = actions[signal];
    if (action) {
        actions[signal] = *action;
        actions[signal].mask &= ~UNBLOCKABLE;
        if (ignored(signal)) {
            process_pending.set &= ~SIG_BIT(signal);
            current->pending.set &= ~SIG_BIT(signal);
        }
    }
    if (ret_old) {
        *ret_old = old;
    }
    return 0;
}

int64_t sys_sigaltstack(const struct signal_stack *stack, struct signal_stack *ret_old)
{
    struct signal_stack old = current->alt_stack;
    uint64_t sp = task_regs()->rsp;
    bool on_it = !(old.flags & SS_DISABLE) && sp > old.sp && sp - old.sp <= old.size;
    if (stack) {
        if (!user_readable(stack, sizeof(*stack))) {
            return -EFAULT;
        }
        if (on_it) {
            return -EPERM;
        }
        struct signal_stack new = *stack;
        int mode = new.flags & ~(int)SS_AUTODISARM;
        if (mode != 0 && mode != SS_DISABLE && mode != SS_ONSTACK) {
            return -EINVAL;
        }
        if (mode == SS_DISABLE) {
            new = (struct signal_stack){.flags = SS_DISABLE};
        } else if (new.size < MINSIGSTKSZ) {
            return -ENOMEM;
        }
        current->alt_stack = new;
    }
    if (ret_old) {
        if (!user_writable(ret_old, sizeof(*ret_old))) {
            return -EFAULT;
        }
        *ret_old = old;
        ret_old->flags = old.flags & SS_DISABLE ? SS_DISABLE : on_it ? SS_ONSTACK : 0;
    }
    return 0;
}

/* --- sending by the program ------------------------------------------------------------------- */

static int64_t send_checked(struct task *t, int signal, const struct signal_info *info)
{
    if (signal < 0 || signal > SIGNALS) {
        return -EINVAL;
    }
    return signal == 0 ? 0 : signal_send(t, signal, info);
}

int64_t sys_kill(int pid, int signal)
{
    if (pid != process_pid() && pid != 0 && pid != -process_pid()) {
        return -ESRCH;
    }
    return send_checked(NULL, signal, NULL);
}

int64_t sys_tgkill(int pid, int tid, int signal)
{
    struct task *t = tid > 0 ? task_by_tid(tid) : NULL;
    if (pid <= 0 || tid <= 0) {
        return -EINVAL;
    }
    if (!t || pid != process_pid()) {
        return -ESRCH;
    }
    struct signal_info info = {.signo = signal, .code = SI_TKILL, .pid = process_pid()};
    return send_checked(t, signal, &info);
}

int64_t sys_tkill(int tid, int signal)
{
    return sys_tgkill(process_pid(), tid, signal);
}

int64_t sys_rt_sigqueueinfo(int pid, int signal, const struct signal_info *info)
{
    if (!user_readable(info, sizeof(*info))) {
        return -EFAULT;
    }
    if (pid != process_pid()) {
        return -ESRCH;
    }
    struct signal_info copy = *info;
    copy.signo = signal;
    return send_checked(NULL, signal, &copy);
}

int64_t sys_rt_tgsigqueueinfo(int pid, int tid, int signal, const struct signal_info *info)
{
    struct task *t = task_by_tid(tid);
    if (!user_readable(info, sizeof(*info))) {
        return -EFAULT;
    }
    if (!t || pid != process_pid()) {
        return -ESRCH;
    }
    struct signal_info copy = *info;
    copy.signo = signal;
    return send_checked(t, signal, &copy);
}

/* --- waiting ---------------------------------------------------------------------------------- */

int64_t sys_rt_sigsuspend(const uint64_t *mask, size_t size)
{
    int r = mask ? signal_mask_for_call(mask, size) : -EFAULT;
    if (r < 0) {
        return r;
    }
    while (task_block(NO_DEADLINE) != -EINTR) {
    }
    return -EINTR;
}

int64_t sys_rt_sigtimedwait(const uint64_t *set, struct signal_info *ret_info,
                            const struct __kernel_timespec *timeout, size_t size)
{
    struct signal_info info;
    uint64_t deadline = NO_DEADLINE, ns;
    if (size != 8) {
        return -EINVAL;
    }
    if (!user_readable(set, 8) || (ret_info && !user_writable(ret_info, sizeof(*ret_info)))) {
        return -EFAULT;
    }
    if (timeout) {
        int r = timespec_get(timeout, &ns);
        if (r < 0) {
            return r;
        }
        deadline = deadline_in(ns);
    }
    current->awaited = *set & ~UNBLOCKABLE;
    int signal, r = 0;
    while (!(signal = signal_take(current->awaited, &info)) && r != -ETIMEDOUT && r != -EINTR) {
        r = task_block(deadline);
    }
    if (!signal) {
        signal = signal_take(current->awaited, &info);
    }
    current->awaited = 0;
    if (!signal) {
        return r == -ETIMEDOUT ? -EAGAIN : -EINTR;
    }
    if (ret_info) {
        *ret_info = info;
    }
    return signal;
}
