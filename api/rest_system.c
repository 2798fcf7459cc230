/* rest_system.c - health, readiness, metrics, version, and the interface's own description. */
#include <stdio.h>
#include <string.h>

#include "api/call.h"
#include "api/reply.h"
#include "events/events.h"
#include "scheduler/async.h"
#include "store/store.h"
#include "unid/abi.h"

/* docs/openapi.yaml, put in by openapi.S. */
extern const char api_openapi_yaml[], api_openapi_yaml_end[];

void rest_healthz(struct api_call *call)
{
    reply_json(call, 200, json_pack("{s:s}", "status", "ok"));
}

void rest_readyz(struct api_call *call)
{
    const struct api *a = call->api;
    const char *why = "unid is shutting down";
    if (!a->draining && (!a->is_ready || a->is_ready(a->arg, &why))) {
        reply_json(call, 200, json_pack("{s:s}", "status", "ready"));
    } else {
        reply_problem(call, 503, why);
    }
}

void rest_version(struct api_call *call)
{
    char abi[16];
    snprintf(abi, sizeof(abi), "%d.%d", UNID_ABI_MAJOR, UNID_ABI_MINOR);
    reply_json(call, 200,
               json_pack("{s:s, s:s, s:s, s:s}", "version", call->api->version, "api", "v1", "abi",
                         abi, "driver", call->api->driver));
}

void rest_openapi(struct api_call *call)
{
    http_respond_full(call_take_exchange(call), 200, "application/yaml", api_openapi_yaml,
                      (size_t)(api_openapi_yaml_end - api_openapi_yaml));
}

static void on_report(void *arg, const json_t *report)
{
    reply_json(arg, 200, report ? json_deep_copy(report) : NULL);
}

void rest_doctor(struct api_call *call)
{
    if (call->api->doctor) {
        call->api->doctor(call->api->doctor_arg, on_report, call);
    } else {
        reply_problem(call, 404, "this unid makes no report of its health");
    }
}

/* --- metrics: Prometheus text exposition format 0.0.4 ----------------------------------------- */

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
    un_buf_printf(b, "# HELP unid_instances Virtual machines, by state.\n"
                     "# TYPE unid_instances gauge\n");
    for (unsigned i = 0; i < INSTANCE_STATES; i++) {
        un_buf_printf(b, "unid_instances{state=\"%s\"} %u\n", instance_state_name(i),
                      s->instances[i]);
    }
    un_buf_printf(b, "# HELP unid_driver_instances Virtual machines, by driver.\n"
                     "# TYPE unid_driver_instances gauge\n");
    for (unsigned i = 0; i < SCHED_DRIVERS_MAX && s->drivers[i].name; i++) {
        un_buf_printf(b, "unid_driver_instances{driver=\"%s\"} %u\n", s->drivers[i].name,
                      s->drivers[i].instances);
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
    un_buf_printf(b, "unid_objects_total{way=\"fetch\",result=\"ok\"} %llu\n"
                     "unid_objects_total{way=\"fetch\",result=\"failed\"} %llu\n"
                     "unid_objects_total{way=\"put\",result=\"ok\"} %llu\n"
                     "unid_objects_total{way=\"put\",result=\"failed\"} %llu\n",
                  (unsigned long long)s->fetched, (unsigned long long)s->fetch_failed,
                  (unsigned long long)s->put, (unsigned long long)s->put_failed);
    un_buf_printf(b, "# HELP unid_object_bytes_total Bytes of those objects.\n"
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

void rest_metrics(struct api_call *call)
{
    const struct api *a = call->api;
    struct sched_stats sched;
    struct async_stats queue;
    un_autobuf struct un_buf b = {0};
    sched_get_stats(a->scheduler, &sched);
    metrics_scheduler(&b, &sched);
    async_get_stats(a->scheduler, &queue);
    metrics_queue(&b, &queue);
    metric(&b, "http_requests_total", "counter", "HTTP requests.", a->requests);
    metric(&b, "http_connections", "gauge", "HTTP connections.", api_connections(a));
    metric(&b, "uptime_seconds", "gauge", "Seconds since the HTTP interface was opened.",
           (un_loop_now_us(a->loop) - a->opened_us) / 1000000);
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
