/* metrics.c - see metrics.h. */
#include "scheduler/record/metrics.h"

#include <stdio.h>
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

void metrics_init(struct sched_metrics *m)
{
    memset(m, 0, sizeof(*m));
    m->function_count = 1;
}

static struct metrics_function *function_of(struct sched_metrics *m, const char *name)
{
    struct metrics_function *f;

    for (unsigned i = 1; i < m->function_count; i++) {
        if (strcmp(m->functions[i].name, name) == 0) {
            return &m->functions[i];
        }
    }
    if (m->function_count == METRICS_FUNCTIONS + 1) {
        return &m->functions[0];
    }
    f = &m->functions[m->function_count++];
    snprintf(f->name, sizeof(f->name), "%s", name);
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

void metrics_add(struct sched_metrics *m, const struct receipt *r)
{
    const struct sched_phases *p = &r->phases;
    const uint64_t us[METRICS_PHASES] = {p->queue_us,      p->shell_us, p->bind_us,    p->start_us,
                                         p->first_byte_us, p->run_us,   p->teardown_us};
    struct metrics_driver *d;
    /* A function that is not there may have any name: it gets no row. */
    struct metrics_function *f = r->version ? function_of(m, r->function) : &m->functions[0];

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
