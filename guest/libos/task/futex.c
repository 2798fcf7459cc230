/* futex.c - futex(2): waiting for a word of memory. Waiters stand in queues by address; there is one
 * address space, so shared and private futexes are the same. */
#include <linux/futex.h>

#include "sys_core.h"
#include "task/task_internal.h"
#include "time/time.h"

#define BUCKETS        32
#define ROBUST_LONGEST 2048

struct futex_waiter {
    struct list node;
    struct task *task;
    uint64_t addr;
    uint32_t bits;
    bool woken;
};

static struct list buckets[BUCKETS];

void futex_init(void)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        list_init(&buckets[i]);
    }
}

static struct list *bucket(uint64_t addr)
{
    return &buckets[(addr >> 2 ^ addr >> 8) % BUCKETS];
}

static void wake(struct futex_waiter *w)
{
    list_del(&w->node);
    w->woken = true;
    w->task->woken = true;
    task_wake(w->task);
}

static int64_t wake_bits(uint64_t addr, uint32_t count, uint32_t bits)
{
    int64_t woken = 0;
    struct list *b = bucket(addr);
    for (struct list *node = b->next, *next; node != b && woken < count; node = next) {
        struct futex_waiter *w = container_of(node, struct futex_waiter, node);
        next = node->next;
        if (w->addr == addr && w->bits & bits) {
            wake(w);
            woken++;
        }
    }
    return woken;
}

int64_t futex_wake_at(uint64_t addr, uint32_t count)
{
    return wake_bits(addr, count, FUTEX_BITSET_MATCH_ANY);
}

static int64_t wait_at(uint64_t addr, uint32_t value, uint32_t bits, uint64_t deadline)
{
    if (__atomic_load_n((uint32_t *)addr, __ATOMIC_SEQ_CST) != value) {
        return -EAGAIN;
    }
    struct futex_waiter w = {.task = current, .addr = addr, .bits = bits};
    list_add_tail(bucket(addr), &w.node);
    int r;
    do {
        r = task_block(deadline);
    } while (r == 0 && !w.woken);
    if (w.woken) {
        return 0;
    }
    list_del(&w.node);
    return r;
}

static int64_t requeue(uint64_t addr, uint32_t wake_count, uint32_t move_count, uint64_t to)
{
    int64_t woken = futex_wake_at(addr, wake_count);
    struct list *b = bucket(addr);
    uint32_t moved = 0;
    for (struct list *node = b->next, *next; node != b && moved < move_count; node = next) {
        struct futex_waiter *w = container_of(node, struct futex_waiter, node);
        next = node->next;
        if (w->addr == addr && to != addr) {
            w->addr = to;
            list_del(node);
            list_add_tail(bucket(to), node);
            moved++;
        }
    }
    return woken + moved;
}

/* FUTEX_WAKE_OP: `op` packs operation, comparison and their arguments (futex(2)). */
static int64_t wake_op(uint64_t addr, uint32_t count, uint32_t count2, uint64_t addr2, uint32_t op)
{
    uint32_t *word = (uint32_t *)addr2, old = *word;
    int32_t arg = (int32_t)(op << 8) >> 20, than = (int32_t)(op << 20) >> 20;
    if (op >> 28 & FUTEX_OP_OPARG_SHIFT) {
        arg = (int32_t)(1u << (arg & 31));
    }
    switch (op >> 28 & 7) {
    case FUTEX_OP_SET:
        *word = (uint32_t)arg;
        break;
    case FUTEX_OP_ADD:
        *word = old + (uint32_t)arg;
        break;
    case FUTEX_OP_OR:
        *word = old | (uint32_t)arg;
        break;
    case FUTEX_OP_ANDN:
        *word = old & ~(uint32_t)arg;
        break;
    case FUTEX_OP_XOR:
        *word = old ^ (uint32_t)arg;
        break;
    default:
        return -ENOSYS;
    }
    int32_t v = (int32_t)old;
    bool holds[] = {v == than, v != than, v<than, v <= than, v> than, v >= than};
    uint32_t cmp = op >> 24 & 15;
    int64_t woken = futex_wake_at(addr, count);
    if (cmp < ARRAY_SIZE(holds) && holds[cmp]) {
        woken += futex_wake_at(addr2, count2);
    }
    return woken;
}

/* --- priority inheritance: there are no priorities, so only the protocol of the word ------------ */

static int64_t lock_pi(uint64_t addr, uint64_t deadline, bool try_only)
{
    uint32_t *word = (uint32_t *)addr, tid = (uint32_t)current->tid;
    for (;;) {
        uint32_t v = *word;
        if ((v & FUTEX_TID_MASK) == tid) {
            return -EDEADLK;
        }
        if ((v & FUTEX_TID_MASK) == 0) {
            *word = tid | (v & (FUTEX_WAITERS | FUTEX_OWNER_DIED));
            return 0;
        }
        if (try_only) {
            return -EAGAIN;
        }
        *word = v | FUTEX_WAITERS;
        int64_t r = wait_at(addr, *word, FUTEX_BITSET_MATCH_ANY, deadline);
        if (r < 0 && r != -EAGAIN) {
            return r;
        }
    }
}

static int64_t unlock_pi(uint64_t addr)
{
    uint32_t *word = (uint32_t *)addr;
    if ((*word & FUTEX_TID_MASK) != (uint32_t)current->tid) {
        return -EPERM;
    }
    *word = 0;
    if (futex_wake_at(addr, 1) > 0) {
        *word = FUTEX_WAITERS; /* others may wait still: the next unlock has to ask again */
    }
    return 0;
}

/* --- the system call -------------------------------------------------------------------------- */

static int64_t deadline_of(const struct __kernel_timespec *timeout, int op, uint64_t *ret)
{
    *ret = NO_DEADLINE;
    int cmd = op & FUTEX_CMD_MASK;
    bool waits = cmd == FUTEX_WAIT || cmd == FUTEX_WAIT_BITSET || cmd == FUTEX_LOCK_PI ||
                 cmd == FUTEX_LOCK_PI2;
    if (!waits || !timeout) {
        return 0;
    }
    uint64_t ns;
    int r = timespec_get(timeout, &ns);
    if (r < 0) {
        return r;
    }
    bool realtime = op & FUTEX_CLOCK_REALTIME || cmd == FUTEX_LOCK_PI;
    *ret = cmd == FUTEX_WAIT ? deadline_in(ns) : deadline_at(realtime, ns);
    return 0;
}

int64_t sys_futex(uint64_t addr, int op, uint32_t value, const struct __kernel_timespec *timeout,
                  uint64_t addr2, uint32_t value3)
{
    uint32_t value2 = (uint32_t)(uint64_t)timeout;
    uint64_t deadline;
    int cmd = op & FUTEX_CMD_MASK;
    if (addr & 3) {
        return -EINVAL;
    }
    bool two = cmd == FUTEX_REQUEUE || cmd == FUTEX_CMP_REQUEUE || cmd == FUTEX_WAKE_OP;
    if (!user_readable((void *)addr, 4) || (two && !user_readable((void *)addr2, 4))) {
        return -EFAULT;
    }
    if ((cmd == FUTEX_REQUEUE || cmd == FUTEX_CMP_REQUEUE) && ((int)value < 0 || (int)value2 < 0)) {
        return -EINVAL;
    }
    int64_t r = deadline_of(timeout, op, &deadline);
    if (r < 0) {
        return r;
    }
    switch (cmd) {
    case FUTEX_WAIT:
        return wait_at(addr, value, FUTEX_BITSET_MATCH_ANY, deadline);
    case FUTEX_WAIT_BITSET:
        return value3 ? wait_at(addr, value, value3, deadline) : -EINVAL;
    case FUTEX_WAKE:
        return wake_bits(addr, value, FUTEX_BITSET_MATCH_ANY);
    case FUTEX_WAKE_BITSET:
        return value3 ? wake_bits(addr, value, value3) : -EINVAL;
    case FUTEX_CMP_REQUEUE:
        if (*(uint32_t *)addr != value3) {
            return -EAGAIN;
        }
        return requeue(addr, value, value2, addr2);
    case FUTEX_REQUEUE:
        return requeue(addr, value, value2, addr2);
    case FUTEX_WAKE_OP:
        return wake_op(addr, value, value2, addr2, value3);
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
    case FUTEX_TRYLOCK_PI:
        return lock_pi(addr, deadline, cmd == FUTEX_TRYLOCK_PI);
    case FUTEX_UNLOCK_PI:
        return unlock_pi(addr);
    default:
        return -ENOSYS;
    }
}

/* --- a task's end ------------------------------------------------------------------------------- */

static void owner_died(uint64_t addr, const struct task *t)
{
    uint32_t *word = (uint32_t *)addr;
    if (!(addr & 3) && user_writable(word, 4) && (*word & FUTEX_TID_MASK) == (uint32_t)t->tid) {
        *word = (*word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
        futex_wake_at(addr, 1);
    }
}

void futex_task_done(struct task *t)
{
    const struct robust_list_head *head = (const void *)t->robust_head;
    if (head && user_readable(head, sizeof(*head))) {
        const struct robust_list *node = head->list.next;
        for (int i = 0; i < ROBUST_LONGEST && node != &head->list; i++) {
            if (!user_readable(node, sizeof(*node))) {
                break;
            }
            const struct robust_list *next = node->next;
            if (node != head->list_op_pending) {
                owner_died((uint64_t)node + (uint64_t)head->futex_offset, t);
            }
            node = next;
        }
        if (head->list_op_pending) {
            owner_died((uint64_t)head->list_op_pending + (uint64_t)head->futex_offset, t);
        }
    }
    if (t->clear_child_tid && user_writable((void *)t->clear_child_tid, 4)) {
        *(uint32_t *)t->clear_child_tid = 0;
        futex_wake_at(t->clear_child_tid, 1);
    }
}
