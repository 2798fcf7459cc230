/* reserve.c - places and memory that are kept free for one function (reserved_concurrency).
 *
 * A function with R reserved places finds memory for R calls at any time, as soon as idle shells have
 * been let go: a call of another function is admitted only when, beside it and all admitted calls,
 * the places that are reserved and not taken still fit (admission_leaves_reserved). The table follows
 * the live versions; it is read at the start, and again for a function that changes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "scheduler/scheduler_impl.h"

static void read_page(struct scheduler *s, const char *after);

/* --- the sums --------------------------------------------------------------------------------- */

void reserve_settle(struct scheduler *s, struct line *l)
{
    uint64_t unused = l->running < l->reserved ? (l->reserved - l->running) * l->reserved_mib : 0;

    s->reserved_unused_mib += unused - l->unused_mib;
    l->unused_mib = unused;
}

static uint64_t place_mib(const struct scheduler *s, uint32_t memory_mib)
{
    int cls = admission_class(memory_mib, s->set.shell_mib, s->set.memory_mib);

    return cls < 0 ? 0 : admission_class_mib((unsigned)cls, s->set.shell_mib, s->set.memory_mib);
}

uint64_t reserve_of_others(const struct scheduler *s, const char *name)
{
    struct line *l = line_find((struct scheduler *)s, name);

    return s->reserved_mib - (l ? l->reserved * l->reserved_mib : 0);
}

int sched_check_reserved(const struct scheduler *s, const char *name,
                         const struct function_config *config, struct un_error *err)
{
    uint64_t others = reserve_of_others(s, name), mib = place_mib(s, config->memory_mib), sum;

    if (config->reserved_concurrency == 0) {
        return 0;
    }
    if (config->machine.set) {
        return un_error_set(err, -EINVAL,
                            "reserved_concurrency: is for programs; machine images keep machines "
                            "of their own");
    }
    if (__builtin_mul_overflow(config->reserved_concurrency, mib, &sum) ||
        __builtin_add_overflow(sum, others, &sum) || sum > s->set.memory_mib) {
        return un_error_set(
            err, -EINVAL,
            "reserved_concurrency: %u places of %llu MiB, beside %llu MiB that other "
            "functions have reserved, are more than all VMs may have (%llu MiB); "
            "reserve less, or raise the daemon's memory_mib",
            config->reserved_concurrency, (unsigned long long)mib, (unsigned long long)others,
            (unsigned long long)s->set.memory_mib);
    }
    return 0;
}

/* --- the table -------------------------------------------------------------------------------- */

/* Places that still fit, when the daemon has got less memory since the function was deployed. */
static unsigned fitting(const struct scheduler *s, const char *name, unsigned places, uint64_t mib)
{
    uint64_t room = s->set.memory_mib - reserve_of_others(s, name);

    if (mib == 0 || places <= room / mib) {
        return mib == 0 ? 0 : places;
    }
    un_log(UN_LOG_WARN,
           "there is not memory for all places that a function has reserved; it gets "
           "as many as there is memory for",
           "function", name);
    return (unsigned)(room / mib);
}

static void set_reserved(struct scheduler *s, const char *name, unsigned places, uint64_t mib)
{
    struct line *l = line_find(s, name);

    places = fitting(s, name, places, mib);
    if (places == 0 && (!l || l->reserved == 0)) {
        return;
    }
    if (!l || l->reserved == 0) {
        l = line_get(s, name); /* a reference as long as there are reserved places */
        if (!l) {
            un_log(UN_LOG_WARN, "no memory to keep places free for a function", "function", name);
            return;
        }
    }
    s->reserved_mib += places * mib - l->reserved * l->reserved_mib;
    l->reserved = places;
    l->reserved_mib = mib;
    reserve_settle(s, l);
    line_settle(s, l);
    if (places == 0) {
        line_put(s, l);
    }
    queue_dispatch(s);
}

static void take(struct scheduler *s, const struct function_version *v)
{
    set_reserved(s, v->name, v->config.machine.set ? 0 : v->config.reserved_concurrency,
                 place_mib(s, v->config.memory_mib));
}

static void on_change(void *arg, const char *name, struct function_version *live)
{
    struct scheduler *s = arg;

    if (live) {
        take(s, live);
    } else {
        set_reserved(s, name, 0, 0);
    }
}

static void on_page(void *arg, int rc, struct function_version *const *list, size_t count,
                    const struct un_error *err)
{
    struct scheduler *s = arg;

    if (rc < 0) {
        un_log(UN_LOG_WARN, "reserved places are not known: the functions cannot be read", "error",
               err->text);
    }
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (list[i]->config.reserved_concurrency > 0) {
            take(s, list[i]);
        }
    }
    if (rc == 0 && count == LIMIT_PAGE_ITEMS && !s->closing) {
        read_page(s, list[count - 1]->name);
    }
    sched_done(s);
}

static void read_page(struct scheduler *s, const char *after)
{
    sched_begin(s);
    function_list(s->registry, after, LIMIT_PAGE_ITEMS, on_page, s);
}

void reserve_init(struct scheduler *s)
{
    registry_on_change(s->registry, on_change, s);
    read_page(s, NULL);
}

static struct line *any_reserved(struct scheduler *s)
{
    for (unsigned b = 0; b < LINE_BUCKETS; b++) {
        for (struct line *l = s->buckets[b]; l; l = l->hash_next) {
            if (l->reserved > 0) {
                return l;
            }
        }
    }
    return NULL;
}

void reserve_done(struct scheduler *s)
{
    struct line *l;

    registry_off_change(s->registry, on_change, s);
    while ((l = any_reserved(s)) != NULL) {
        l->reserved = 0;
        reserve_settle(s, l);
        line_put(s, l);
    }
}
