/* scheduler.c - opening, draining and closing the scheduler, and its numbers. */
#include "scheduler/scheduler.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "scheduler/scheduler_impl.h"

#define MS_TO_US  1000ull
#define DAY_TO_US (24ull * 3600 * 1000000)

enum {
    DEFAULT_SHELL_MIB = 64,
    DEFAULT_POOL_IDLE_MS = 30000 /* a pause in a person's clicking is shorter */
};

void sched_settings_init(struct sched_settings *set)
{
    *set = (struct sched_settings){
        .shell_mib = DEFAULT_SHELL_MIB,
        .pool_min = 1,
        .pool_max = LIMIT_POOL_SHELLS,
        .pool_idle_us = DEFAULT_POOL_IDLE_MS * MS_TO_US,
        .queue_per_function = LIMIT_QUEUE_FUNCTION,
        .queue_total = LIMIT_QUEUE_TOTAL,
        .queue_wait_us = LIMIT_QUEUE_WAIT_MS * MS_TO_US,
        .max_request_bytes = LIMIT_REQUEST_BODY_BYTES,
        .max_response_bytes = LIMIT_RESPONSE_BODY_BYTES,
        .max_log_bytes = LIMIT_LOG_BYTES,
        .receipts_max_rows = LIMIT_RECEIPTS_ROWS,
        .receipts_max_age_us = LIMIT_RECEIPTS_DAYS * DAY_TO_US,
        .logs_max_bytes = LIMIT_LOGS_BYTES,
        .logs_max_age_us = LIMIT_LOGS_DAYS * DAY_TO_US,
        .metrics_functions = LIMIT_METRICS_FUNCTIONS,
        .replay_request_bytes = LIMIT_REPLAY_REQUEST_BYTES,
        .replay_total_bytes = LIMIT_REPLAY_TOTAL_BYTES,
        .replay_age_us = LIMIT_REPLAY_HOURS * (DAY_TO_US / 24),
    };
}

/* Half of the host's, so that the page cache and everybody else keep the other half. */
static uint64_t default_memory_mib(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size / 2 >> 20 : 1024;
}

static void on_drain_limit(void *arg);
static void on_drained(void *arg);

static void take_drivers(struct scheduler *s, const struct sched_spec *spec)
{
    size_t count = spec->driver_count > 0 ? spec->driver_count : 1;

    assert(count <= SCHED_DRIVERS_MAX);
    for (size_t d = 0; d < count; d++) {
        s->drivers[d].drv = spec->driver_count > 0 ? spec->drivers[d] : spec->driver;
        s->drivers[d].ops = hv_driver_ops(s->drivers[d].drv);
    }
    s->driver_count = (unsigned)count;
}

int sched_open(const struct sched_spec *spec, struct scheduler **ret, struct un_error *err)
{
    struct scheduler *s = calloc(1, sizeof(*s));
    int rc;

    if (!s) {
        return un_error_set(err, -ENOMEM, "open the scheduler: out of memory");
    }
    if (dialer_new(spec->loop, &s->dialer, err) < 0) {
        un_error_context(err, "open the scheduler");
        free(s);
        return -ENOMEM;
    }
    s->loop = spec->loop;
    s->workers = spec->workers;
    s->store = spec->store;
    s->images = spec->images;
    s->registry = spec->registry;
    take_drivers(s, spec);
    s->set = spec->settings;
    if (s->set.memory_mib == 0) {
        s->set.memory_mib = default_memory_mib();
    }
    s->wall_offset_us = un_clock_wall_us() - un_loop_now_us(s->loop);
    un_list_init(&s->calls);
    un_list_init(&s->followers);
    for (unsigned i = 0; i < INSTANCE_STATES; i++) {
        un_list_init(&s->instances[i]);
    }
    un_timer_init(&s->drain_timer, s->loop, on_drain_limit, s);
    s->drain_post = (struct un_post){.fn = on_drained, .arg = s};
    metrics_init(&s->metrics, s->set.metrics_functions);
    lines_init(s);
    pool_init(s);
    warm_init(s);
    record_writer_init(s);
    consoles_init(s);
    rc = async_init(s, err);
    if (rc == 0 && services_init(s, err) < 0) {
        async_done(s);
        rc = -ENOMEM;
    }
    if (rc < 0) {
        warm_done(s);
        pool_done(s);
        lines_done(s);
        dialer_free(s->dialer);
        free(s);
        return rc;
    }
    reserve_init(s);
    pool_update_all(s);
    *ret = s;
    return 0;
}

uint64_t sched_wall_us(const struct scheduler *s)
{
    return un_loop_now_us(s->loop) + s->wall_offset_us;
}

/* --- the end ---------------------------------------------------------------------------------- */

void sched_begin(struct scheduler *s)
{
    s->outstanding++;
}

void sched_done(struct scheduler *s)
{
    s->outstanding--;
    sched_check_idle(s);
}

void sched_check_idle(struct scheduler *s)
{
    if (s->drained && un_list_empty(&s->calls)) {
        un_loop_post(s->loop, &s->drain_post);
    }
    if (s->closing) {
        un_loop_stop(s->loop); /* sched_close looks whether that was all */
    }
}

static void on_drained(void *arg)
{
    struct scheduler *s = arg;
    void (*cb)(void *) = s->drained;

    un_timer_cancel(&s->drain_timer);
    s->drained = NULL;
    if (cb) {
        cb(s->drained_arg);
    }
}

static void end_all_calls(struct scheduler *s)
{
    un_list_for_each (it, &s->calls) {
        call_finish(un_list_entry(it, struct sched_call, node), SCHED_DRAINING,
                    "the daemon is shutting down and did not wait longer");
    }
}

static void on_drain_limit(void *arg)
{
    end_all_calls(arg);
}

void sched_drain(struct scheduler *s, uint64_t limit_us, void (*cb)(void *arg), void *arg)
{
    s->draining = true;
    s->drained = cb;
    s->drained_arg = arg;
    (void)un_timer_arm_in(&s->drain_timer, limit_us);
    warm_evict(s, UINT64_MAX);
    queue_dispatch(s);
    sched_check_idle(s);
}

static bool all_over(const struct scheduler *s)
{
    unsigned instances = 0;

    for (unsigned i = 0; i < INSTANCE_STATES; i++) {
        instances += s->instance_count[i];
    }
    return instances == 0 && s->outstanding == 0 && un_list_empty(&s->calls) &&
           record_writer_idle(s);
}

static void end_shells(struct scheduler *s)
{
    pool_evict(s, UINT64_MAX);
    un_list_for_each_safe (it, &s->instances[INSTANCE_STARTING]) {
        instance_end(un_list_entry(it, struct instance, node), NULL);
    }
    un_list_for_each_safe (it, &s->instances[INSTANCE_RECYCLING]) {
        instance_end(un_list_entry(it, struct instance, node), NULL);
    }
}

void sched_close(struct scheduler *s)
{
    if (!s) {
        return;
    }
    s->draining = s->closing = true;
    s->drained = NULL;
    async_stop(s);
    end_all_calls(s);
    end_shells(s);
    record_writer_flush(s);
    consoles_flush(s);
    un_loop_run_ready(s->loop);
    while (!all_over(s)) {
        un_loop_run(s->loop);
        un_loop_run_ready(s->loop);
    }
    un_timer_cancel(&s->drain_timer);
    un_loop_unpost(s->loop, &s->drain_post);
    services_done(s);
    async_done(s);
    consoles_done(s);
    record_writer_done(s);
    reserve_done(s);
    warm_done(s);
    pool_done(s);
    lines_done(s);
    metrics_done(&s->metrics);
    dialer_free(s->dialer);
    free(s);
}

/* --- numbers ---------------------------------------------------------------------------------- */

void sched_get_stats(struct scheduler *s, struct sched_stats *ret)
{
    *ret = s->stats;
    for (unsigned i = 0; i < INSTANCE_STATES; i++) {
        ret->instances[i] = s->instance_count[i];
    }
    for (unsigned d = 0; d < s->driver_count; d++) {
        ret->drivers[d].name = s->drivers[d].ops->name;
        ret->drivers[d].instances = s->drivers[d].instances;
    }
    ret->waiting = s->waiting_count + s->expecting;
    for (unsigned k = 0; k < s->class_count; k++) {
        ret->waiting += s->classes[k].claim_count;
    }
    ret->memory_mib_used = pool_memory_used(s);
    ret->memory_mib_limit = s->set.memory_mib;
    services_stats(s, &ret->machines);
}

const struct sched_metrics *sched_get_metrics(const struct scheduler *s)
{
    return &s->metrics;
}

void sched_count_egress(struct scheduler *s, const char *function, const struct hv_egress *more)
{
    metrics_add_egress(&s->metrics, function, more);
}

struct dialer *sched_dialer(struct scheduler *s)
{
    return s->dialer;
}

/* --- the observer ----------------------------------------------------------------------------- */

void sched_observe(struct scheduler *s, sched_news_cb *cb, void *arg)
{
    s->observer = cb;
    s->observer_arg = arg;
}

void sched_tell(struct scheduler *s, const struct sched_news *news)
{
    if (s->observer) {
        s->observer(s->observer_arg, news);
    }
}
