/* warm.c - VMs that stand at a version's snapshot and wait for its next call. With isolation "reset" they
 * have served a call and were put back; with "vm" they are new, and were bound ahead, as long as the
 * function is in use: then a call does not wait for that.
 *
 * They are kept by version in a struct warm_set, which hangs on the function's line. A call takes the
 * one that was used last (its memory is the likeliest to be in the caches), of new ones the one that has stood
 * for the longest (what the driver does ahead there is the likeliest to be done). One that is being put back
 * is promised to a call that is admitted meanwhile, as that is sooner done than starting from a shell;
 * when it fails, the call goes for a shell after all.
 *
 * They count for memory like any VM, and are let go, the longest unused first: after pool_idle_us,
 * when a request needs the memory, when the function changes, and when unid drains. A version never
 * keeps more than its concurrency.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/fault.h"
#include "scheduler/scheduler_impl.h"

static void on_idle(void *arg);
static void on_change(void *arg, const char *name, struct function_version *live);

void warm_init(struct scheduler *s)
{
    un_timer_init(&s->warm_timer, s->loop, on_idle, s);
    registry_on_change(s->registry, on_change, s);
}

void warm_done(struct scheduler *s)
{
    registry_off_change(s->registry, on_change, s);
    un_timer_cancel(&s->warm_timer);
}

/* --- sets ------------------------------------------------------------------------------------- */

static struct warm_set *find(const struct sched_call *c)
{
    un_list_for_each (it, &c->line->warm_sets) {
        struct warm_set *set = un_list_entry(it, struct warm_set, node);

        if (set->version->id == c->version->id) {
            return set;
        }
    }
    return NULL;
}

static struct warm_set *set_new(struct sched_call *c)
{
    struct warm_set *set = un_fault("warm.set") ? NULL : calloc(1, sizeof(*set));

    if (!set) {
        return NULL;
    }
    set->s = c->s;
    set->line = line_get(c->s, c->line->name); /* is there, so that this cannot fail */
    set->version = function_ref(c->version);
    un_list_init(&set->idle);
    un_list_init(&set->expects);
    un_list_push(&c->line->warm_sets, &set->node);
    return set;
}

struct warm_set *warm_set_for(struct sched_call *c)
{
    struct warm_set *set = find(c);

    if (c->version->config.isolation != FUNCTION_RESET || c->s->draining ||
        c->generation != c->line->generation) {
        return NULL;
    }
    set = set ? set : set_new(c);
    if (!set || set->idle_count + set->recycling_count >= c->version->config.concurrency) {
        return NULL;
    }
    set->refs++;
    return set;
}

void warm_set_unref(struct warm_set *set)
{
    if (--set->refs > 0) {
        return;
    }
    un_list_remove(&set->node);
    function_unref(set->version);
    line_put(set->s, set->line);
    free(set);
}

/* As many as are called at once, and one more; where calls follow each other closely enough to find one,
 * two: one that is ready, and one that is being made so. */
static unsigned wanted_ahead(const struct sched_call *c, const struct instance *used)
{
    enum { AHEAD_MOST = 4 };
    unsigned n = c->line->running + 1 + used->bound_ahead;

    n = n < c->version->config.concurrency ? n : c->version->config.concurrency;
    return n < AHEAD_MOST ? n : AHEAD_MOST;
}

static bool wants_ahead(const struct sched_call *c, const struct instance *used,
                        const struct warm_set *set)
{
    const struct shell_class *cls = c->cls;
    unsigned there = set ? set->idle_count + set->recycling_count : 0;

    return c->version->config.isolation == FUNCTION_VM && cls->driver->ops->vm_bind &&
           !c->s->draining && c->generation == c->line->generation && cls->claim_count == 0 &&
           there < wanted_ahead(c, used) && cls->idle_count > 0;
}

void warm_ahead(struct sched_call *c, const struct instance *used)
{
    struct shell_class *cls = c->cls;
    struct warm_set *set = find(c);
    bool bound = true;

    while (bound && wants_ahead(c, used, set)) {
        set = set ? set : set_new(c);
        if (!set) {
            return;
        }
        set->refs++;
        bound = instance_bind_ahead(un_list_first(&cls->idle, struct instance, node), set);
        if (bound) {
            pool_update(cls);
        }
        set = find(c); /* one that nothing was bound for is gone */
    }
}

/* --- calls ------------------------------------------------------------------------------------ */

bool warm_has(const struct sched_call *c)
{
    const struct warm_set *set = find(c);

    return set && set->idle_count + set->recycling_count > set->expect_count;
}

/* VMs to calls, until there are no more of one. */
static void serve(struct warm_set *set)
{
    set->refs++;
    while (set->idle_count > 0 && set->expect_count > 0) {
        call_bind(un_list_first(&set->expects, struct sched_call, queue_node),
                  un_list_first(&set->idle, struct instance, warm_node));
    }
    warm_set_unref(set);
}

bool warm_claim(struct sched_call *c)
{
    struct warm_set *set = find(c);

    if (!warm_has(c)) {
        return false;
    }
    set->refs++;
    c->expects = set;
    call_set_state(c, CALL_EXPECT);
    serve(set);
    return true;
}

void warm_settle(struct warm_set *set)
{
    while (set->expect_count > set->idle_count + set->recycling_count) {
        pool_claim_shell(un_list_entry(set->expects.prev, struct sched_call, queue_node));
    }
}

/* --- instances -------------------------------------------------------------------------------- */

static struct instance *longest_unused(struct scheduler *s)
{
    return un_list_first(&s->instances[INSTANCE_WARM], struct instance, node);
}

static void arm(struct scheduler *s)
{
    const struct instance *i = longest_unused(s);
    uint64_t at;

    if (i && !un_timer_armed(&s->warm_timer) &&
        !__builtin_add_overflow(i->warm_us, s->set.pool_idle_us, &at)) {
        (void)un_timer_arm_at(&s->warm_timer, at); /* out of memory: the next one comes here too */
    }
}

static void on_idle(void *arg)
{
    struct scheduler *s = arg;
    uint64_t now = un_loop_now_us(s->loop);
    struct instance *i;

    while ((i = longest_unused(s)) && now - i->warm_us >= s->set.pool_idle_us) {
        instance_end(i, NULL);
    }
    arm(s);
}

void warm_ready(struct instance *i)
{
    serve(i->set);
    if (i->state != INSTANCE_WARM) {
        return;
    }
    if (i->s->draining || !un_list_linked(&i->set->node)) {
        instance_end(i, NULL);
    } else {
        arm(i->s);
    }
}

void warm_evict(struct scheduler *s, uint64_t mib)
{
    uint64_t evicted = 0;
    struct instance *i;

    while (evicted < mib && (i = longest_unused(s)) != NULL) {
        evicted += i->cls->mib;
        instance_end(i, NULL);
    }
}

/* Another version may be live now, or the function gone. */
static void on_change(void *arg, const char *name, struct function_version *live)
{
    struct scheduler *s = arg;
    struct line *line = line_find(s, name) ? line_get(s, name) : NULL;
    struct warm_set *set;

    if (!line) {
        return;
    }
    line->generation++;
    while ((set = un_list_first(&line->warm_sets, struct warm_set, node)) != NULL) {
        set->refs++;
        un_list_remove(&set->node);
        while (set->idle_count > 0) {
            instance_end(un_list_first(&set->idle, struct instance, warm_node), NULL);
        }
        warm_set_unref(set);
    }
    line_put(s, line);
}
