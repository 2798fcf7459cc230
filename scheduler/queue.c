/* queue.c - the waiting room: a line for each function, and a ring of the lines that could go on.
 *
 * Calls of one function are served in order of arrival, functions in turn: the first line of the
 * ring gives one call and goes to the ring's end. A line that has no free place leaves the ring
 * until one of its calls ends, so a decision looks at one line only, however many wait.
 *
 * Lines with reserved places that are not taken yet have a ring of their own, which comes first.
 *
 * When the call whose turn it is needs memory that is not there, nobody overtakes it: idle shells
 * are let go for it, and the others wait until it has been served. So a large function is not
 * starved by small ones. What may be decided without lists is in admission.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/scheduler_impl.h"

/* --- lines ------------------------------------------------------------------------------------ */

static struct line **bucket_of(struct scheduler *s, const char *name)
{
    uint32_t hash =
        2166136261u; /* FNV-1a, www.isthe.com/chongo/tech/comp/fnv; names are ours to choose */

    for (const char *p = name; *p; p++) {
        hash = (hash ^ (uint8_t)*p) * 16777619u;
    }
    return &s->buckets[hash % LINE_BUCKETS];
}

void lines_init(struct scheduler *s)
{
    un_list_init(&s->ring);
    un_list_init(&s->reserved_ring);
    un_list_init(&s->idle_lines);
}

static void line_free(struct scheduler *s, struct line *l)
{
    struct line **at = bucket_of(s, l->name);

    while (*at != l) {
        at = &(*at)->hash_next;
    }
    *at = l->hash_next;
    if (un_list_linked(&l->node)) {
        un_list_remove(&l->node);
        s->idle_line_count--;
    }
    if (l->image) {
        image_unref(l->image);
    }
    free(l);
}

void lines_done(struct scheduler *s)
{
    un_list_for_each_safe (it, &s->idle_lines) {
        line_free(s, un_list_entry(it, struct line, node));
    }
}

static struct line *line_new(struct scheduler *s, const char *name)
{
    struct line **bucket = bucket_of(s, name), *l = calloc(1, sizeof(*l));

    if (!l) {
        return NULL;
    }
    snprintf(l->name, sizeof(l->name), "%s", name);
    un_list_init(&l->node);
    un_list_init(&l->waiting);
    un_list_init(&l->warm_sets);
    l->hash_next = *bucket;
    *bucket = l;
    return l;
}

void sched_waiting(struct scheduler *s, sched_waiting_fn *fn, void *arg)
{
    for (unsigned i = 0; i < LINE_BUCKETS; i++) {
        for (const struct line *l = s->buckets[i]; l; l = l->hash_next) {
            if (l->waiting_count > 0) {
                fn(arg, l->name, l->waiting_count);
            }
            un_list_for_each (it, &l->warm_sets) {
                const struct warm_set *set = un_list_entry(it, struct warm_set, node);

                if (set->expect_count > 0) {
                    fn(arg, l->name, set->expect_count);
                }
            }
        }
    }
    for (unsigned k = 0; k < s->class_count; k++) {
        un_list_for_each (it, &s->classes[k].claims) {
            fn(arg, un_list_entry(it, struct sched_call, queue_node)->line->name, 1);
        }
    }
}

struct line *line_find(struct scheduler *s, const char *name)
{
    struct line *l = *bucket_of(s, name);

    while (l && strcmp(l->name, name) != 0) {
        l = l->hash_next;
    }
    return l;
}

struct line *line_get(struct scheduler *s, const char *name)
{
    struct line *l = line_find(s, name);

    if (!l) {
        l = line_new(s, name);
    } else if (l->refs == 0) {
        un_list_remove(&l->node);
        s->idle_line_count--;
    }
    if (l) {
        l->refs++;
    }
    return l;
}

void line_put(struct scheduler *s, struct line *l)
{
    if (--l->refs > 0) {
        return;
    }
    un_list_push(&s->idle_lines, &l->node);
    if (++s->idle_line_count > LINES_KEPT) {
        line_free(s, un_list_first(&s->idle_lines, struct line, node));
    }
}

static struct sched_call *line_first(const struct line *l)
{
    return un_list_first(&l->waiting, struct sched_call, queue_node);
}

void line_settle(struct scheduler *s, struct line *l)
{
    const struct sched_call *first = line_first(l);
    bool ready = first && l->running < config_places(&first->version->config);
    bool reserved = l->running < l->reserved;

    if (!first && l->refs == 0) {
        return; /* it is in the list of idle lines */
    }
    if (un_list_linked(&l->node) && (!ready || reserved != l->in_reserved_ring)) {
        un_list_remove(&l->node);
    }
    if (ready && !un_list_linked(&l->node)) {
        un_list_push(reserved ? &s->reserved_ring : &s->ring, &l->node);
        l->in_reserved_ring = reserved;
    }
}

void queue_leave_line(struct sched_call *c)
{
    un_list_remove(&c->queue_node);
    c->line->waiting_count--;
    c->s->waiting_count--;
    line_settle(c->s, c->line);
}

static void take_place(struct sched_call *c)
{
    c->line->running++;
    c->s->committed_mib += c->cls->mib;
    c->admitted_us = un_loop_now_us(c->s->loop);
    reserve_settle(c->s, c->line);
}

void queue_leave_place(struct sched_call *c)
{
    c->line->running--;
    c->s->committed_mib -= c->cls->mib;
    reserve_settle(c->s, c->line);
    line_settle(c->s, c->line);
}

/* --- decisions -------------------------------------------------------------------------------- */

/* How many VMs like this call's fit into the memory that others have not reserved. */
static unsigned memory_places(const struct sched_call *c)
{
    uint64_t others = reserve_of_others(c->s, c->line->name), limit = c->s->set.memory_mib;
    uint64_t places = limit > others && c->cls->mib > 0 ? (limit - others) / c->cls->mib : 0;

    return places < UINT32_MAX ? (unsigned)places : UINT32_MAX;
}

static struct admission_queue describe(const struct sched_call *c)
{
    const struct scheduler *s = c->s;

    return (struct admission_queue){
        .waiting_function = c->line->waiting_count,
        .waiting_total = s->waiting_count,
        .limit_function = s->set.queue_per_function,
        .limit_total = s->set.queue_total,
        .concurrency = config_places(&c->version->config),
        .memory_places = memory_places(c),
        .mean_us = admission_mean_get(&c->line->mean),
        .wait_us = s->set.queue_wait_us,
    };
}

unsigned queue_retry_after_s(const struct sched_call *c)
{
    struct admission_queue q = describe(c);

    q.mean_us = c->line->mean.us; /* for advice a few samples are enough */
    return admission_retry_after_s(&q);
}

void queue_enter(struct sched_call *c)
{
    struct scheduler *s = c->s;
    struct admission_queue q;

    call_set_state(c, CALL_WAITING);
    un_list_push(&c->line->waiting, &c->queue_node);
    c->line->waiting_count++;
    s->waiting_count++;
    line_settle(s, c->line);
    queue_dispatch(s);
    if (c->state != CALL_WAITING) {
        return;
    }
    q = describe(c);
    if (admission_refuse(&q)) {
        c->retry_after_s = queue_retry_after_s(c);
        call_finish(c, SCHED_QUEUE_FULL, "%u requests wait for this function already, %u in all",
                    q.waiting_function - 1, q.waiting_total - 1);
    }
}

/* Whether the call can have a VM without another being made, or there is memory for one. */
static bool has_memory(struct scheduler *s, const struct sched_call *c)
{
    struct admission_memory m = {.limit_mib = s->set.memory_mib, .leaving_mib = s->leaving_mib};
    const struct shell_class *cls = c->cls;
    uint64_t evict_mib;

    if (warm_has(c) || cls->idle_count > 0 || cls->starting_count > cls->claim_count) {
        return true;
    }
    m.used_mib = pool_memory_used(s);
    switch (admission_memory_check(&m, cls->mib, &evict_mib)) {
    case ADMIT:
        return true;
    case ADMIT_EVICT:
        pool_evict(s, evict_mib); /* on_gone comes back here */
        m.used_mib = pool_memory_used(s);
        m.leaving_mib = s->leaving_mib;
        return admission_memory_check(&m, cls->mib, &evict_mib) == ADMIT;
    default:
        return false;
    }
}

/* A pool that cannot make shells: the call is told at once. */
static bool refuse_broken(struct sched_call *c)
{
    const struct shell_class *cls = c->cls;
    uint64_t retry_us;

    if (warm_has(c) || cls->idle_count > 0 ||
        !pool_policy_broken(&cls->policy, un_loop_now_us(c->s->loop), &retry_us)) {
        return false;
    }
    c->retry_after_s = (unsigned)(retry_us / 1000000) + 1;
    call_finish(c, SCHED_CANNOT_RUN, "no virtual machine can be made: %.250s", cls->why);
    return true;
}

/* Shells of machine images are not in the way of anybody. */
static bool leaves_reserved(struct scheduler *s, const struct sched_call *c)
{
    bool leaves = c->line->running < c->line->reserved || c->cls->mib == 0;

    do {
        leaves = leaves || pool_leaves_reserved(s, c->cls->mib);
    } while (!leaves && services_yield(s));
    return leaves;
}

void queue_dispatch(struct scheduler *s)
{
    struct line *l;

    while ((l = un_list_first(&s->reserved_ring, struct line, node)) != NULL ||
           (l = un_list_first(&s->ring, struct line, node)) != NULL) {
        struct sched_call *c = line_first(l);

        s->stats.looks++;
        if (refuse_broken(c)) {
            continue;
        }
        if (!leaves_reserved(s, c) || !has_memory(s, c)) {
            break;
        }
        un_list_remove(&l->node); /* its next turn comes after the others' */
        take_place(c);
        queue_leave_line(c);
        pool_claim(c);
    }
    pool_update_all(s);
}
