/* pool.c - the shells of each driver and memory size: carries out what pool_policy.c decides.
 *
 * Sizes. Class 0 of the first driver is the pool proper: shells of settings.shell_mib, for all
 * functions that fit in, with pool_min and pool_max as set. A larger function uses the class of the
 * next power of two above it, one with a driver of its own that driver's classes. Such shells are made
 * on demand, and as long as they are asked for a few are kept
 * (pool_max / 8, at least one if there is a pool at all); their minimum is always 0. Memory that a
 * request of another size needs is taken from idle shells, so that keeping them costs nobody a
 * place.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "scheduler/scheduler_impl.h"

static void on_timer(void *arg)
{
    struct shell_class *cls = arg;

    pool_update(cls);
    queue_dispatch(cls->s);
}

void pool_init(struct scheduler *s)
{
    unsigned large = s->set.pool_max / 8 > 0 ? s->set.pool_max / 8 : (s->set.pool_max > 0 ? 1 : 0);

    s->class_count = s->driver_count * SHELL_CLASSES;
    for (unsigned d = 0; d < s->driver_count; d++) {
        s->drivers[d].classes = &s->classes[d * SHELL_CLASSES];
    }
    for (unsigned k = 0; k < s->class_count; k++) {
        struct shell_class *cls = &s->classes[k];

        cls->s = s;
        cls->driver = &s->drivers[k / SHELL_CLASSES];
        /* What serves machine images makes machines of its own: its shells are connections. */
        bool machines = driver_runs_machines(cls->driver);
        cls->mib =
            machines ? 0
                     : admission_class_mib(k % SHELL_CLASSES, s->set.shell_mib, s->set.memory_mib);
        pool_policy_init(&cls->policy, k == 0 && !machines ? s->set.pool_min : 0,
                         machines ? 0
                         : k == 0 ? s->set.pool_max
                                  : large,
                         s->set.pool_idle_us);
        un_list_init(&cls->idle);
        un_list_init(&cls->claims);
        un_timer_init(&cls->timer, s->loop, on_timer, cls);
    }
}

struct sched_driver *pool_driver(struct scheduler *s, const struct function_config *config)
{
    for (unsigned d = 0; config->machine.set && d < s->driver_count; d++) {
        if (driver_runs_machines(&s->drivers[d])) {
            return &s->drivers[d];
        }
    }
    if (config->machine.set) {
        return NULL;
    }
    if (config->driver == FUNCTION_AUTO) {
        return &s->drivers[0];
    }
    for (unsigned d = 0; d < s->driver_count; d++) {
        if (strcmp(s->drivers[d].ops->name, function_driver_name(config->driver)) == 0) {
            return &s->drivers[d];
        }
    }
    return NULL;
}

void pool_done(struct scheduler *s)
{
    for (unsigned k = 0; k < s->class_count; k++) {
        un_timer_cancel(&s->classes[k].timer);
    }
}

uint64_t pool_machines_mib(const struct scheduler *s)
{
    uint64_t mib = 0;

    for (unsigned d = 0; d < s->driver_count; d++) {
        if (driver_runs_machines(&s->drivers[d])) {
            mib += s->drivers[d].ops->memory_bytes(s->drivers[d].drv) >> 20;
        }
    }
    return mib;
}

uint64_t pool_memory_used(const struct scheduler *s)
{
    uint64_t mib = s->instances_mib + pool_machines_mib(s);

    for (unsigned k = 0; k < s->class_count; k++) {
        const struct shell_class *cls = &s->classes[k];

        if (cls->claim_count > cls->starting_count) {
            mib += cls->mib * (cls->claim_count - cls->starting_count);
        }
    }
    return mib;
}

bool pool_leaves_reserved(const struct scheduler *s, uint64_t mib)
{
    return admission_leaves_reserved(s->set.memory_mib, s->committed_mib + pool_machines_mib(s),
                                     mib, s->reserved_unused_mib);
}

bool sched_is_free(const struct scheduler *s, uint64_t bytes)
{
    return pool_leaves_reserved(s, bytes >> 20) &&
           pool_memory_used(s) + (bytes >> 20) <= s->set.memory_mib;
}

bool sched_may_use(struct scheduler *s, uint64_t bytes)
{
    uint64_t want = pool_memory_used(s) + (bytes >> 20);

    if (!pool_leaves_reserved(s, bytes >> 20)) {
        return false;
    }
    if (want > s->set.memory_mib) {
        pool_evict(s, want - s->set.memory_mib);
    }
    return pool_memory_used(s) + (bytes >> 20) <= s->set.memory_mib;
}

void pool_claim(struct sched_call *c)
{
    if (!warm_claim(c)) {
        pool_claim_shell(c);
    }
}

void pool_claim_shell(struct sched_call *c)
{
    struct shell_class *cls = c->cls;
    uint64_t now = un_loop_now_us(c->s->loop);

    if (cls->idle_count > 0) {
        pool_policy_hit(&cls->policy, now, cls->idle_count - 1);
    } else {
        pool_policy_miss(&cls->policy, now);
    }
    call_set_state(c, CALL_CLAIM);
    pool_update(cls);
}

/* Idle shells to those who wait, oldest claim first. A call that cannot be run leaves its shell
 * idle. */
static void serve(struct shell_class *cls)
{
    while (cls->claim_count > 0 && cls->idle_count > 0) {
        call_bind(un_list_first(&cls->claims, struct sched_call, queue_node),
                  un_list_first(&cls->idle, struct instance, node));
    }
}

static struct instance *oldest_idle(struct shell_class *cls)
{
    return un_list_entry(cls->idle.prev, struct instance, node);
}

/* Shells may be made ahead when nobody waits for memory and there is some left. */
static bool may_refill(const struct shell_class *cls)
{
    const struct scheduler *s = cls->s;

    return !s->draining && un_list_empty(&s->ring) && un_list_empty(&s->reserved_ring) &&
           pool_memory_used(s) + cls->mib <= s->set.memory_mib;
}

static bool start_one(struct shell_class *cls)
{
    struct un_error err = UN_ERROR_INIT;
    uint64_t round = cls->policy.round;

    if (cls->claim_count <= cls->starting_count && !may_refill(cls)) {
        return false;
    }
    if (instance_start(cls, &err) < 0) {
        pool_shell_failed(cls, round, &err);
        return false;
    }
    return true;
}

static void wake_at(struct shell_class *cls, uint64_t at_us)
{
    if (at_us == UINT64_MAX) {
        un_timer_cancel(&cls->timer);
    } else if (!un_timer_armed(&cls->timer) || cls->timer.at_us != at_us) {
        (void)un_timer_arm_at(&cls->timer,
                              at_us); /* out of memory: the next event comes here too */
    }
}

void pool_update(struct shell_class *cls)
{
    struct scheduler *s = cls->s;
    struct pool_action action;
    struct pool_counts counts;

    serve(cls);
    counts = (struct pool_counts){
        .idle = cls->idle_count,
        .starting = cls->starting_count,
        .claims = cls->claim_count,
        .refill = may_refill(cls),
    };
    if (s->draining) {
        pool_policy_stop(&cls->policy);
    }
    action = pool_policy_run(&cls->policy, un_loop_now_us(s->loop), &counts);
    while (action.release-- > 0 && cls->idle_count > 0) {
        instance_end(oldest_idle(cls), NULL);
    }
    for (unsigned n = 0; n < action.start && start_one(cls); n++) {
    }
    if (cls->policy.failures > 0 && cls->policy.retry_at > un_loop_now_us(s->loop) &&
        (cls->claim_count > 0 || cls->policy.target > cls->idle_count) &&
        cls->policy.retry_at < action.wake_us) {
        action.wake_us = cls->policy.retry_at; /* a start just failed */
    }
    wake_at(cls, action.wake_us);
}

/* Nobody has asked for such shells for a while: there is nothing to decide. */
static bool dormant(const struct shell_class *cls)
{
    return cls->claim_count == 0 && cls->policy.target == 0 && cls->idle_count == 0 &&
           cls->starting_count == 0 && !un_timer_armed(&cls->timer);
}

void pool_update_all(struct scheduler *s)
{
    for (unsigned k = 0; k < s->class_count; k++) {
        if (!dormant(&s->classes[k])) {
            pool_update(&s->classes[k]);
        }
    }
}

void pool_shell_failed(struct shell_class *cls, uint64_t round, const struct un_error *err)
{
    struct scheduler *s = cls->s;
    uint32_t random;

    un_random(&random, sizeof(random));
    s->stats.shells_failed++;
    snprintf(cls->why, sizeof(cls->why), "%.319s", err->text);
    pool_policy_failed(&cls->policy, un_loop_now_us(s->loop), round, random);
    un_log(UN_LOG_WARN, "a VM shell could not be made; it is tried again with growing pauses",
           "driver", cls->driver->ops->name, "error", err->text);
    if (cls->policy.failures < POOL_FAILURES_BROKEN) {
        return;
    }
    un_list_for_each_safe (it, &cls->claims) {
        struct sched_call *c = un_list_entry(it, struct sched_call, queue_node);

        c->retry_after_s = ADMISSION_RETRY_LEAST_S;
        call_finish(c, SCHED_CANNOT_RUN, "no virtual machine can be made: %.250s", cls->why);
    }
}

void pool_evict(struct scheduler *s, uint64_t mib)
{
    uint64_t evicted = 0;

    for (unsigned k = s->class_count; k-- > 0 && evicted < mib;) {
        struct shell_class *cls = &s->classes[k];

        while (cls->idle_count > 0 && evicted < mib) {
            evicted += cls->mib;
            instance_end(oldest_idle(cls), NULL);
        }
    }
    for (uint64_t before = pool_machines_mib(s); evicted < mib && services_yield(s);) {
        evicted += before - pool_machines_mib(s);
        before = pool_machines_mib(s);
    }
    if (evicted < mib) {
        warm_evict(s, mib - evicted);
    }
}
