/* metrics.c - see metrics.h. */
#include "scheduler/record/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BUCKET_US = 100 };

const char *metrics_phase_name(enum metrics_phase p)
{
    static const char *const names[METRICS_PHASES] = {"queue",      "shell", "bind",    "start",
                                                      "first_byte", "run",   "teardown"};

    return (unsigned)p < METRICS_PHASES ? names[p] : "unknown";
}

uint64_t metrics_bucket_us(unsigned i)
{
    return (uint64_t)FIRST_BUCKET_US << i;
}

void metrics_observe(struct metrics_histogram *h, uint64_t us)
{
    unsigned i = 0;

    while (i < METRICS_BUCKETS && us > metrics_bucket_us(i)) {
        i++;
    }
    h->buckets[i]++;
    h->count++;
    h->sum_us += us;
}

void metrics_init(struct sched_metrics *m, unsigned function_limit)
{
    memset(m, 0, sizeof(*m));
    un_list_init(&m->functions);
    m->function_limit = function_limit;
}

void metrics_done(struct sched_metrics *m)
{
    un_list_for_each_safe (it, &m->functions) {
        free(un_list_entry(it, struct metrics_function, node));
    }
}

static unsigned slot_of(const char *name)
{
    uint32_t hash =
        2166136261u; /* FNV-1a, www.isthe.com/chongo/tech/comp/fnv; names are ours to choose */

    for (; *name; name++) {
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    }
    return hash % METRICS_SLOTS;
}

static struct metrics_function *find(const struct sched_metrics *m, const char *name)
{
    struct metrics_function *f = m->slots[slot_of(name)];

    while (f && strcmp(f->name, name) != 0) {
        f = f->hash_next;
    }
    return f;
}

const struct metrics_function *metrics_find(const struct sched_metrics *m, const char *name)
{
    return find(m, name);
}

static struct metrics_function *function_of(struct sched_metrics *m, const char *name)
{
    struct metrics_function *f = find(m, name), **slot = &m->slots[slot_of(name)];

    if (f) {
        return f;
    }
    f = m->function_count < m->function_limit ? calloc(1, sizeof(*f)) : NULL;
    if (!f) {
        return &m->other;
    }
    snprintf(f->name, sizeof(f->name), "%s", name);
    f->hash_next = *slot;
    *slot = f;
    un_list_push(&m->functions, &f->node);
    m->function_count++;
    return f;
}

static void count_code(struct metrics_function *f, unsigned code)
{
    unsigned i = 0;

    while (i < f->code_count && f->codes[i].code != code) {
        i++;
    }
    if (i == f->code_count) {
        if (i < METRICS_CODES) {
            f->code_count++;
            f->codes[i].code = code;
        } else {
            i = METRICS_CODES; /* its code stays 0 */
        }
    }
    f->codes[i].count++;
}

static struct metrics_driver *driver_of(struct sched_metrics *m, const char *name)
{
    for (unsigned i = 0; i < m->driver_count; i++) {
        if (strcmp(m->drivers[i].name, name) == 0) {
            return &m->drivers[i];
        }
    }
    if (m->driver_count == METRICS_DRIVERS) {
        return NULL;
    }
    snprintf(m->drivers[m->driver_count].name, sizeof(m->drivers[0].name), "%s", name);
    return &m->drivers[m->driver_count++];
}

void metrics_add(struct sched_metrics *m, const struct receipt *r, uint64_t now_us)
{
    const struct sched_phases *p = &r->phases;
    const uint64_t us[METRICS_PHASES] = {p->queue_us,      p->shell_us, p->bind_us,    p->start_us,
                                         p->first_byte_us, p->run_us,   p->teardown_us};
    struct metrics_driver *d;
    /* A function that is not there may have any name: it gets no row. */
    struct metrics_function *f = r->version ? function_of(m, r->function) : &m->other;

    f->counted_us = now_us;
    if (f != &m->other) {
        un_list_remove(&f->node);
        un_list_push_front(&m->functions, &f->node);
    }
    count_code(f, r->status);
    f->ended++;
    f->failed += r->status >= 500 || strcmp(r->outcome, "ok") != 0;
    /* Only what ran in a VM has phases to tell of: its guest ended in some way. */
    if (r->version == 0 || (!r->exit_reason[0] && strcmp(r->outcome, "ok") != 0)) {
        return;
    }
    f->ran++;
    for (unsigned i = 0; i < METRICS_TEARDOWN; i++) {
        f->duration_us += us[i];
    }
    d = driver_of(m, r->driver);
    for (unsigned i = 0; d && i < METRICS_PHASES; i++) {
        metrics_observe(&d->phases[i], us[i]);
    }
}

void metrics_add_egress(struct sched_metrics *m, const char *function, const struct hv_egress *more)
{
    struct metrics_function *f = function_of(m, function);

    f->egress_connections += more->connections;
    f->egress_refused += more->refused;
    f->egress_failed += more->failed;
    f->egress_bytes_in += more->bytes_in;
    f->egress_bytes_out += more->bytes_out;
}
