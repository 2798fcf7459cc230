/* metrics.c - GET /metrics: Prometheus text exposition format 0.0.4
 * (prometheus.io/docs/instrumenting/exposition_formats). What is counted, and how that is bounded, is
 * said in scheduler/record/metrics.h. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "api/call.h"
#include "api/door.h"
#include "api/reply.h"
#include "api/watch.h"
#include "events/events.h"
#include "scheduler/async/async.h"
#include "scheduler/record/metrics.h"
#include "store/store.h"

/* More than they take: all that is not of functions; a line of a function. */
enum { METRICS_RESERVE = 192 * 1024, METRICS_LINE = 160 };

static void metric(struct un_buf *b, const char *name, const char *type, const char *help,
                   unsigned long long value)
{
    un_buf_printf(b, "# HELP unid_%s %s\n# TYPE unid_%s %s\nunid_%s %llu\n", name, help, name, type,
                  name, value);
}

static void metrics_scheduler(struct un_buf *b, const struct sched_stats *s)
{
    un_buf_printf(b, "# HELP unid_calls_total Calls of functions that have ended, by outcome.\n"
                     "# TYPE unid_calls_total counter\n");
    for (unsigned i = 0; i <= SCHED_INTERNAL; i++) {
        un_buf_printf(b, "unid_calls_total{outcome=\"%s\"} %llu\n", sched_outcome_name(i),
                      (unsigned long long)s->calls_by_outcome[i]);
    }
    metric(b, "waiting", "gauge", "Calls that wait for a virtual machine.", s->waiting);
    metric(b, "memory_bytes", "gauge", "Memory given to virtual machines.",
           s->memory_mib_used << 20);
    metric(b, "memory_limit_bytes", "gauge", "Memory that virtual machines may take together.",
           s->memory_mib_limit << 20);
    metric(b, "shells_made_total", "counter", "Shells made ahead of requests.", s->shells_made);
    metric(b, "recycled_total", "counter", "Virtual machines put back for another run.",
           s->recycled);
    metric(b, "shells_failed_total", "counter", "Shells that could not be made.", s->shells_failed);
    const struct hv_service_stats *m = &s->machines;
    metric(b, "machine_shells", "gauge", "Machines made ahead for any service.", m->shells);
    metric(b, "machine_shells_made_total", "counter", "Machines made ahead for any service.",
           m->shells_made);
    metric(b, "machine_shells_used_total", "counter",
           "Machines for waiting requests made of those.", m->shells_used);
    metric(b, "machine_shells_missed_total", "counter",
           "Machines for waiting requests that could have been, and none was there.",
           m->shells_missed);
    metric(b, "machine_shells_failed_total", "counter", "Of those made ahead, what failed.",
           m->shells_failed);
}

/* The states of a machine that a VM does not have (hv_service_machine.state). */
static const char *const machine_states[] = {"making", "paused", "ready"};
enum { STATES = INSTANCE_STATES + 3 };

/* What `unictl ps` lists, counted. */
struct census {
    struct {
        const char *name;
        unsigned count;
    } states[STATES];
    struct {
        const char *name; /* NULL behind the last */
        unsigned count, calls;
    } drivers[SCHED_DRIVERS_MAX + 1];
};

static void count_instance(void *arg, const struct sched_instance_info *info)
{
    struct census *c = arg;
    for (unsigned i = 0; i < STATES; i++) {
        c->states[i].count += strcmp(c->states[i].name, info->state_name) == 0;
    }
    for (unsigned i = 0; c->drivers[i].name; i++) {
        if (strcmp(c->drivers[i].name, info->driver) == 0) {
            c->drivers[i].count++;
            c->drivers[i].calls += info->in_flight;
        }
    }
}

static void metrics_instances(struct un_buf *b, struct scheduler *scheduler,
                              const struct sched_stats *s)
{
    struct census c = {.drivers = {{NULL}}};
    for (unsigned i = 0; i < STATES; i++) {
        c.states[i].name =
            i < INSTANCE_STATES ? instance_state_name(i) : machine_states[i - INSTANCE_STATES];
    }
    for (unsigned i = 0; i < SCHED_DRIVERS_MAX && s->drivers[i].name; i++) {
        c.drivers[i].name = s->drivers[i].name;
    }
    sched_instances(scheduler, count_instance, &c);
    un_buf_printf(b, "# HELP unid_instances Virtual machines, by state.\n"
                     "# TYPE unid_instances gauge\n");
    for (unsigned i = 0; i < STATES; i++) {
        un_buf_printf(b, "unid_instances{state=\"%s\"} %u\n", c.states[i].name, c.states[i].count);
    }
    un_buf_printf(b, "# HELP unid_driver_instances Virtual machines, by driver.\n"
                     "# TYPE unid_driver_instances gauge\n");
    for (unsigned i = 0; c.drivers[i].name; i++) {
        un_buf_printf(b, "unid_driver_instances{driver=\"%s\"} %u\n", c.drivers[i].name,
                      c.drivers[i].count);
    }
    un_buf_printf(b, "# HELP unid_driver_calls Requests and connections that they serve now.\n"
                     "# TYPE unid_driver_calls gauge\n");
    for (unsigned i = 0; c.drivers[i].name; i++) {
        un_buf_printf(b, "unid_driver_calls{driver=\"%s\"} %u\n", c.drivers[i].name,
                      c.drivers[i].calls);
    }
}

/* No function's name begins so, and none needs escapes (function_name_valid). */
static const char *label_of(const struct metrics_function *f)
{
    return f->name[0] ? f->name : "_other";
}

static void invocation_rows(struct un_buf *b, const struct metrics_function *f)
{
    for (unsigned k = 0; k <= METRICS_CODES; k++) {
        char code[12] = "other";
        if (f->codes[k].count == 0) {
            continue;
        }
        if (f->codes[k].code) {
            snprintf(code, sizeof(code), "%u", f->codes[k].code);
        }
        un_buf_printf(b, "unid_invocations_total{function=\"%s\",code=\"%s\"} %llu\n", label_of(f),
                      code, (unsigned long long)f->codes[k].count);
    }
}

static void metrics_functions(struct un_buf *b, const struct sched_metrics *m)
{
    un_buf_printf(b, "# HELP unid_invocations_total Invocations and attempts that are over, by "
                     "function and HTTP status; _other: all that have no row of their own.\n"
                     "# TYPE unid_invocations_total counter\n");
    invocation_rows(b, &m->other);
    un_list_for_each (it, &m->functions) {
        invocation_rows(b, un_list_entry(it, struct metrics_function, node));
    }
}

static void histogram(struct un_buf *b, const char *driver, const char *phase,
                      const struct metrics_histogram *h)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < METRICS_BUCKETS; i++) {
        sum += h->buckets[i];
        un_buf_printf(b, "unid_start_seconds_bucket{driver=\"%s\",phase=\"%s\",le=\"%.4f\"} %llu\n",
                      driver, phase, (double)metrics_bucket_us(i) / 1e6, (unsigned long long)sum);
    }
    un_buf_printf(b,
                  "unid_start_seconds_bucket{driver=\"%s\",phase=\"%s\",le=\"+Inf\"} %llu\n"
                  "unid_start_seconds_sum{driver=\"%s\",phase=\"%s\"} %.6f\n"
                  "unid_start_seconds_count{driver=\"%s\",phase=\"%s\"} %llu\n",
                  driver, phase, (unsigned long long)h->count, driver, phase,
                  (double)h->sum_us / 1e6, driver, phase, (unsigned long long)h->count);
}

static void metrics_phases(struct un_buf *b, const struct sched_metrics *m)
{
    un_buf_printf(b, "# HELP unid_start_seconds How long the phases of invocations took that ran.\n"
                     "# TYPE unid_start_seconds histogram\n");
    for (unsigned d = 0; d < m->driver_count; d++) {
        for (unsigned p = 0; p < METRICS_PHASES; p++) {
            histogram(b, m->drivers[d].name, metrics_phase_name(p), &m->drivers[d].phases[p]);
        }
    }
}

static const struct egress_metric {
    const char *name, *labels, *help; /* no help: as the one before */
    size_t offset;
} egress_metrics[] = {
    {"connections", "", "Connections of functions to the outside.",
     offsetof(struct metrics_function, egress_connections)},
    {"refused", "", "Connections that functions wanted and that are not allowed.",
     offsetof(struct metrics_function, egress_refused)},
    {"failed", "", "Connections that are allowed and could not be made.",
     offsetof(struct metrics_function, egress_failed)},
    {"bytes", ",way=\"in\"", "Bytes of those connections.",
     offsetof(struct metrics_function, egress_bytes_in)},
    {"bytes", ",way=\"out\"", NULL, offsetof(struct metrics_function, egress_bytes_out)},
};

static uint64_t egress_value(const struct metrics_function *f, const struct egress_metric *row)
{
    uint64_t value;
    memcpy(&value, (const char *)f + row->offset, sizeof(value));
    return value;
}

static void egress_row(struct un_buf *b, const struct metrics_function *f,
                       const struct egress_metric *row)
{
    un_buf_printf(b, "unid_egress_%s_total{function=\"%s\"%s} %llu\n", row->name, label_of(f),
                  row->labels, (unsigned long long)egress_value(f, row));
}

/* One number of each function that has it, and of the others together. */
static void metrics_egress(struct un_buf *b, const struct sched_metrics *m)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(egress_metrics); i++) {
        const struct egress_metric *row = &egress_metrics[i];
        if (row->help) {
            un_buf_printf(b,
                          "# HELP unid_egress_%s_total %s\n# TYPE unid_egress_%s_total counter\n",
                          row->name, row->help, row->name);
        }
        egress_row(b, &m->other, row);
        un_list_for_each (it, &m->functions) {
            const struct metrics_function *f = un_list_entry(it, struct metrics_function, node);
            if (egress_value(f, row) > 0) {
                egress_row(b, f, row);
            }
        }
    }
}

/* How long the lines of functions are at most. */
static size_t functions_size(const struct sched_metrics *m)
{
    size_t lines = METRICS_CODES + 1 + UN_ARRAY_SIZE(egress_metrics);
    un_list_for_each (it, &m->functions) {
        const struct metrics_function *f = un_list_entry(it, struct metrics_function, node);
        lines += f->code_count + (f->codes[METRICS_CODES].count > 0);
        for (size_t i = 0; i < UN_ARRAY_SIZE(egress_metrics); i++) {
            lines += egress_value(f, &egress_metrics[i]) > 0;
        }
    }
    return lines * METRICS_LINE;
}

static void metrics_http(struct un_buf *b, const struct api *a)
{
    struct watch_stats watch;
    watch_get_stats(a->watch, &watch);
    metric(b, "http_requests_total", "counter", "HTTP requests.", a->requests);
    metric(b, "http_connections", "gauge", "HTTP connections.", api_connections(a));
    metric(b, "http_refused_total", "counter",
           "Connections that were told 503 because there were too many.",
           http_server_refused(a->http));
    metric(b, "watch_clients", "gauge", "Clients of /api/v1/watch.", watch.clients);
    metric(b, "watch_missed_total", "counter", "Events that clients were too slow for.",
           watch.missed);
    metric(b, "uptime_seconds", "gauge", "Seconds since the HTTP interface was opened.",
           (un_loop_now_us(a->loop) - a->opened_us) / 1000000);
}

static void metrics_events(struct un_buf *b, const struct events_stats *s)
{
    un_buf_printf(b, "# HELP unid_events_total Events, by source and what became of them.\n"
                     "# TYPE unid_events_total counter\n");
    for (unsigned i = 0; i < INTAKE_SOURCES; i++) {
        for (unsigned k = 0; k < INTAKE_RESULTS; k++) {
            un_buf_printf(b, "unid_events_total{source=\"%s\",result=\"%s\"} %llu\n",
                          intake_source_name(i), intake_result_name(k),
                          (unsigned long long)s->counts[i][k]);
        }
    }
    un_buf_printf(b, "# HELP unid_triggers Triggers, by type.\n# TYPE unid_triggers gauge\n");
    for (unsigned i = 0; i < EVENT_KINDS; i++) {
        un_buf_printf(b, "unid_triggers{type=\"%s\"} %u\n", event_kind_name(i), s->triggers[i]);
    }
    un_buf_printf(b, "# HELP unid_objects_total Objects fetched as input or put as output.\n"
                     "# TYPE unid_objects_total counter\n");
    un_buf_printf(b,
                  "unid_objects_total{way=\"fetch\",result=\"ok\"} %llu\n"
                  "unid_objects_total{way=\"fetch\",result=\"failed\"} %llu\n"
                  "unid_objects_total{way=\"put\",result=\"ok\"} %llu\n"
                  "unid_objects_total{way=\"put\",result=\"failed\"} %llu\n",
                  (unsigned long long)s->fetched, (unsigned long long)s->fetch_failed,
                  (unsigned long long)s->put, (unsigned long long)s->put_failed);
    un_buf_printf(b,
                  "# HELP unid_object_bytes_total Bytes of those objects.\n"
                  "# TYPE unid_object_bytes_total counter\n"
                  "unid_object_bytes_total{way=\"fetch\"} %llu\n"
                  "unid_object_bytes_total{way=\"put\"} %llu\n",
                  (unsigned long long)s->fetched_bytes, (unsigned long long)s->put_bytes);
}

static void metrics_queue(struct un_buf *b, const struct async_stats *q)
{
    metric(b, "events_waiting", "gauge", "Accepted events that wait to be run.", q->waiting);
    metric(b, "events_running", "gauge", "Attempts at events that are under way.", q->running);
    metric(b, "deadletters", "gauge", "Events that were given up and kept.", q->dead);
    metric(b, "events_accepted_total", "counter", "Events accepted.", q->accepted);
    metric(b, "events_duplicate_total", "counter", "Events that were known already.",
           q->duplicates);
    metric(b, "events_stale_total", "counter", "Events dropped as out of order.", q->stale);
    metric(b, "retries_total", "counter", "Attempts that failed and are made again.", q->retries);
    metric(b, "interrupted_total", "counter", "Attempts that an end of unid had cut short.",
           q->interrupted);
    metric(b, "deadletters_total", "counter", "Events given up.", q->given_up);
}

static void metrics_door(struct un_buf *b, const struct api *a)
{
    struct door_stats s;
    door_get_stats(a->door, &s);
    metric(b, "ports", "gauge", "Ports that functions publish.", s.ports);
    metric(b, "ports_failed", "gauge", "Of those, the ones that cannot be opened.", s.failed);
    metric(b, "tcp_connections", "gauge", "Connections to functions of interface tcp.",
           s.connections);
}

void rest_metrics(struct api_call *call)
{
    const struct api *a = call->api;
    struct sched_stats sched;
    struct async_stats queue;
    un_autobuf struct un_buf b = {0};
    const struct sched_metrics *counted = sched_get_metrics(a->scheduler);
    /* So that no line of them is missing. */
    if (un_buf_reserve(&b, METRICS_RESERVE + functions_size(counted)) < 0) {
        reply_problem(call, 500, "no memory for the metrics");
        return;
    }
    sched_get_stats(a->scheduler, &sched);
    metrics_scheduler(&b, &sched);
    metrics_instances(&b, a->scheduler, &sched);
    metrics_functions(&b, counted);
    metrics_phases(&b, counted);
    metrics_egress(&b, counted);
    async_get_stats(a->scheduler, &queue);
    metrics_queue(&b, &queue);
    metrics_http(&b, a);
    metrics_door(&b, a);
    if (a->events) {
        struct events_stats events;
        events_get_stats(a->events, &events);
        metrics_events(&b, &events);
    }
    if (a->store) {
        struct store_stats store;
        store_get_stats(a->store, &store);
        metric(&b, "store_commits_total", "counter", "Commits of the database.", store.commits);
        metric(&b, "store_jobs_total", "counter", "Jobs that those commits held.", store.jobs);
        metric(&b, "store_bytes", "gauge", "Size of the database file.", store.file_bytes);
    }
    http_respond_full(call_take_exchange(call), 200, "text/plain; version=0.0.4; charset=utf-8",
                      b.data, b.len);
}
