/* stats.c - GET /api/v1/stats: what each function does now, and what has been counted of it: numbers for
 * those who look again after a while, such as `unictl top`. Rates are theirs to compute. Everything is in
 * memory; a function that nobody has called and that has no virtual machine has no row. Who has looked
 * before asks for what has changed since: however many functions there are, only those cost something that
 * do something. */
#include <string.h>

#include "api/call.h"
#include "api/reply.h"
#include "scheduler/record/metrics.h"

/* The rows, and the same objects by their function's name; "" is what has no function's row. */
struct gathering {
    const struct sched_metrics *counted;
    json_t *rows; /* NULL when memory was short */
    json_t *by_name;
    unsigned instances, running, ready;
};

static void fail(struct gathering *g)
{
    json_decref(g->rows);
    g->rows = NULL;
}

/* Of what has no function's row, and of functions without one. Borrowed; NULL when out of memory. */
static json_t *add_row(struct gathering *g, const char *name, const struct metrics_function *f)
{
    static const struct metrics_function nothing;
    f = f ? f : &nothing;
    json_t *row =
        json_pack("{s:s?, s:i, s:i, s:I, s:i, s:I, s:I, s:I, s:I}", "function", *name ? name : NULL,
                  "running", 0, "ready", 0, "memory_mib", (json_int_t)0, "waiting", 0,
                  "invocations", (json_int_t)f->ended, "failed", (json_int_t)f->failed, "ran",
                  (json_int_t)f->ran, "duration_us", (json_int_t)f->duration_us);
    if (json_object_set_new(g->by_name, name, row) < 0 || json_array_append(g->rows, row) < 0) {
        fail(g);
        return NULL;
    }
    return row;
}

/* The same, with what has been counted of it. */
static json_t *row_of(struct gathering *g, const char *name)
{
    json_t *row = json_object_get(g->by_name, name);
    if (row || !g->rows) {
        return g->rows ? row : NULL;
    }
    return add_row(g, name, metrics_find(g->counted, name));
}

static void add(json_t *row, const char *key, uint64_t more)
{
    json_t *number = json_object_get(row, key);
    json_integer_set(number, json_integer_value(number) + (json_int_t)more);
}

/* Whether it stands there for a request, and serves none. */
static bool is_ready(const char *state)
{
    return strcmp(state, "idle") == 0 || strcmp(state, "warm") == 0 ||
           strcmp(state, "ready") == 0 || strcmp(state, "paused") == 0;
}

static void add_instance(void *arg, const struct sched_instance_info *info)
{
    struct gathering *g = arg;
    bool running = info->in_flight > 0;
    bool ready = !running && is_ready(info->state_name);
    g->instances++;
    g->running += running;
    g->ready += ready;
    if (info->function[0]) {
        json_t *row = row_of(g, info->function);
        add(row, "running", running);
        add(row, "ready", ready);
        add(row, "memory_mib", info->mem_mib);
    }
}

static void add_waiting(void *arg, const char *function, unsigned calls)
{
    add(row_of(arg, function), "waiting", calls);
}

/* Those of which something was counted at `since_us` or later; none has a row yet. */
static void add_counted(struct gathering *g, uint64_t since_us)
{
    const struct metrics_function *other = &g->counted->other;
    if (other->ended > 0 && other->counted_us >= since_us) {
        add_row(g, "", other);
    }
    un_list_for_each (it, &g->counted->functions) {
        const struct metrics_function *f = un_list_entry(it, struct metrics_function, node);
        if (f->ended == 0 || f->counted_us < since_us || !g->rows) {
            break;
        }
        add_row(g, f->name, f);
    }
}

void rest_stats(struct api_call *call)
{
    struct api *a = call->api;
    uint64_t uptime_us = un_loop_now_us(a->loop) - a->opened_us, since_us;
    struct sched_stats stats;
    if (!route_query_number(call->match.query, "since_uptime_us", 1ull << 60, &since_us)) {
        reply_problem(call, 400,
                      "since_uptime_us must be a whole number: uptime_us of an earlier answer");
        return;
    }
    struct gathering g = {
        .counted = sched_get_metrics(a->scheduler), .rows = json_array(), .by_name = json_object()};
    add_counted(&g, since_us > 0 ? a->opened_us + since_us : 0);
    sched_get_stats(a->scheduler, &stats);
    sched_instances(a->scheduler, add_instance, &g);
    sched_waiting(a->scheduler, add_waiting, &g);
    json_decref(g.by_name);
    reply_json(call, 200,
               json_pack("{s:o, s:o, s:I, s:i, s:i, s:i, s:I, s:I, s:i, s:o}", "at",
                         reply_time(a->opened_wall_us + uptime_us), "started_at",
                         reply_time(a->opened_wall_us), "uptime_us", (json_int_t)uptime_us,
                         "instances", (int)g.instances, "running", (int)g.running, "ready",
                         (int)g.ready, "memory_mib", (json_int_t)stats.memory_mib_used,
                         "memory_limit_mib", (json_int_t)stats.memory_mib_limit, "waiting",
                         (int)stats.waiting, "functions", g.rows));
}
