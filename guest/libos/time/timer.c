/* timer.c - what goes off at a time: a list in the order of time. There are few. */
#include "task/task_internal.h"

static struct list armed;

void timers_init(void)
{
    list_init(&armed);
}

static struct timer *first(void)
{
    return list_empty(&armed) ? NULL : container_of(armed.next, struct timer, node);
}

void timer_init(struct timer *t, void (*fire)(struct timer *t))
{
    list_init(&t->node);
    t->at_ns = NO_DEADLINE;
    t->fire = fire;
}

void timer_disarm(struct timer *t)
{
    list_del(&t->node);
    t->at_ns = NO_DEADLINE;
}

void timer_arm(struct timer *t, uint64_t at_ns)
{
    timer_disarm(t);
    if (at_ns == NO_DEADLINE) {
        return;
    }
    t->at_ns = at_ns;
    struct list *pos = armed.next;
    while (pos != &armed && container_of(pos, struct timer, node)->at_ns <= at_ns) {
        pos = pos->next;
    }
    list_add_tail(pos, &t->node);
}

uint64_t timers_next(void)
{
    const struct timer *t = first();
    return t ? t->at_ns : NO_DEADLINE;
}

void timers_run(void)
{
    struct timer *t = first();
    if (!t) {
        return;
    }
    /* Those that arm themselves again for a time that has passed have to wait for the next round. */
    uint64_t now = clock_monotonic_ns();
    for (; t && t->at_ns <= now; t = first()) {
        timer_disarm(t);
        t->fire(t);
    }
}
