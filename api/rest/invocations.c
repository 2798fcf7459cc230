/* invocations.c - invoking by REST, and receipts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/missing.h"
#include "api/reply.h"
#include "scheduler/async/async.h"
#include "scheduler/record/receipt.h"

enum { CURSOR_SIZE = UN_ID_SIZE + 12 };

/* --- invoking --------------------------------------------------------------------------------- */

/* Has a destination looked for, unless it is known to be there. */
static void add_destination(const struct api_call *call, struct missing *m, json_t *body,
                            const char *key)
{
    char to[LIMIT_ASYNC_URL_BYTES + 1];
    if (call->ex && route_query(call->match.query, key, to, sizeof(to)) > 0 &&
        !function_peek(call->api->registry, to, NULL)) {
        missing_add(m, body, to);
    }
}

static void on_accepted(void *arg, int rc, const struct async_accepted *list, size_t count,
                        const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    if (call->ex) {
        char location[64];
        snprintf(location, sizeof(location), "/api/v1/invocations/%s", list->id);
        http_respond_field(call->ex, "Location", location);
        http_respond_field(call->ex, "X-Unid-Invocation-Id", list->id);
    }
    json_t *body = json_pack("{s:s}", "id", list->id);
    if (list->result == ASYNC_DUPLICATE) {
        json_object_set_new(body, "duplicate", json_true());
    }
    struct missing *m = missing_new();
    add_destination(call, m, body, "on_success");
    add_destination(call, m, body, "on_failure");
    missing_reply(m, call, 202, body);
}

/* A whole number of the query, 0 when there is none; false when it is none. */
static bool query_number(const struct api_call *call, const char *key, uint64_t most, uint64_t *ret)
{
    char text[24], *end;
    int rc = route_query(call->match.query, key, text, sizeof(text));
    *ret = 0;
    if (rc == 0) {
        return true;
    }
    if (rc < 0 || text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    *ret = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *ret <= most;
}

/* The policy and the delay out of the query; the name of what is malformed, or NULL. */
static const char *read_policy(const struct api_call *call, struct async_spec *spec)
{
    const uint64_t age_most = 366ull * 24 * 3600 * 1000;
    uint64_t attempts, age, base, most, delay;
    if (!query_number(call, "max_attempts", 1000, &attempts)) {
        return "max_attempts: must be a number from 1 to 1000";
    }
    if (!query_number(call, "max_age_ms", age_most, &age)) {
        return "max_age_ms: must be a number of milliseconds, at most a year";
    }
    if (!query_number(call, "backoff_ms", 86400000, &base) ||
        !query_number(call, "backoff_max_ms", 86400000, &most)) {
        return "backoff_ms, backoff_max_ms: must be numbers of milliseconds, at most a day";
    }
    if (!query_number(call, "delay_ms", age_most, &delay)) {
        return "delay_ms: must be a number of milliseconds, at most a year";
    }
    spec->policy = (struct async_policy){.max_attempts = (unsigned)attempts,
                                         .max_age_ms = age,
                                         .backoff_base_ms = (uint32_t)base,
                                         .backoff_max_ms = (uint32_t)most};
    spec->due_us = delay ? async_now_us(call->api->scheduler) + delay * 1000 : 0;
    return NULL;
}

/* How many destinations the request has come through already: what another unid, or this one, says. */
static unsigned read_depth(const struct http_request *request)
{
    const char *text = http_request_field(request, "x-unid-depth");
    unsigned long depth = text && *text >= '0' && *text <= '9' ? strtoul(text, NULL, 10) : 0;
    return depth <= LIMIT_ASYNC_DEPTH ? (unsigned)depth : LIMIT_ASYNC_DEPTH;
}

/* The whole body is there. */
static void submit(struct api_call *call)
{
    const char *qualifier = call->match.params[1];
    const struct http_request *request = http_exchange_request(call->ex);
    char on_success[LIMIT_ASYNC_URL_BYTES + 1], on_failure[LIMIT_ASYNC_URL_BYTES + 1];
    struct async_spec spec = {.function = call->match.params[0],
                              .qualifier = *qualifier ? qualifier : NULL,
                              .content_type = http_request_field(request, "content-type"),
                              .dedupe_key = http_request_field(request, "idempotency-key"),
                              .depth = read_depth(request),
                              .body = call->body.len ? (const void *)call->body.data : "",
                              .body_len = call->body.len};
    int s = route_query(call->match.query, "on_success", on_success, sizeof(on_success));
    int f = route_query(call->match.query, "on_failure", on_failure, sizeof(on_failure));
    const char *wrong =
        s < 0 || f < 0 ? "on_success, on_failure: malformed or too long" : read_policy(call, &spec);
    if (wrong) {
        reply_problem(call, 400, wrong);
        return;
    }
    spec.on_success = s ? on_success : NULL;
    spec.on_failure = f ? on_failure : NULL;
    async_submit(call->api->scheduler, &spec, on_accepted, call);
}

/* The first parameter that goes with mode=async only and is given; NULL: none. */
static const char *async_only(const struct api_call *call)
{
    static const char *const keys[] = {"on_success", "on_failure",     "max_attempts", "max_age_ms",
                                       "backoff_ms", "backoff_max_ms", "delay_ms"};
    char value[1];
    for (size_t i = 0; i < UN_ARRAY_SIZE(keys); i++) {
        if (route_query(call->match.query, keys[i], value, sizeof(value)) != 0) {
            return keys[i];
        }
    }
    return NULL;
}

static void invoke_now(struct api_call *call, const char *qualifier)
{
    char detail[64];
    const char *async = async_only(call);
    if (async) {
        snprintf(detail, sizeof(detail), "%s: goes with mode=async", async);
        reply_problem(call, 400, detail);
    } else {
        gateway_call(call, SCHED_INVOKE, call->match.params[0], *qualifier ? qualifier : NULL, "/");
    }
}

void rest_invoke(struct api_call *call)
{
    char mode[8] = "sync";
    char *qualifier = call->match.params[1];
    if (route_query(call->match.query, "mode", mode, sizeof(mode)) < 0 ||
        (strcmp(mode, "sync") != 0 && strcmp(mode, "async") != 0)) {
        reply_problem(call, 400, "mode: must be sync or async");
        return;
    }
    if (route_query(call->match.query, "qualifier", qualifier, ROUTE_PARAM_SIZE) < 0) {
        reply_problem(call, 404, "no such version or alias");
        return;
    }
    if (strcmp(mode, "sync") == 0) {
        invoke_now(call, qualifier);
    } else if (!function_name_valid(call->match.params[0])) {
        reply_problem(call, 404, "no such function");
    } else {
        call_collect(call, LIMIT_ASYNC_BODY_BYTES, submit);
    }
}

/* --- receipts --------------------------------------------------------------------------------- */

static json_t *phases_json(const struct sched_phases *p)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "queue_us", (json_int_t)p->queue_us,
                     "shell_us", (json_int_t)p->shell_us, "bind_us", (json_int_t)p->bind_us,
                     "start_us", (json_int_t)p->start_us, "first_byte_us",
                     (json_int_t)p->first_byte_us, "run_us", (json_int_t)p->run_us, "teardown_us",
                     (json_int_t)p->teardown_us);
}

static json_t *egress_json(const struct hv_egress *e)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "connections", (json_int_t)e->connections, "refused",
                     (json_int_t)e->refused, "bytes_in", (json_int_t)e->bytes_in, "bytes_out",
                     (json_int_t)e->bytes_out);
}

static json_t *receipt_json(const struct receipt *r)
{
    json_t *j = json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:b}", "id", r->id,
                          "function", r->function, "version", (json_int_t)r->version, "digest",
                          r->digest, "trigger", sched_trigger_name(r->trigger), "trigger_name",
                          r->trigger_name, "replay_of", r->replay_of, "driver", r->driver,
                          "started_at", reply_time(r->started_at_us), "phases",
                          phases_json(&r->phases), "fresh", r->fresh);
    json_t *rest = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:s, s:o, s:I, s:o, s:o, s:o}", "bytes_in",
        (json_int_t)r->bytes_in, "bytes_out", (json_int_t)r->bytes_out, "cpu_us",
        (json_int_t)r->usage.cpu_us, "peak_rss_kib", (json_int_t)r->usage.peak_rss_kib, "exits",
        (json_int_t)r->usage.exits, "exit_reason", r->exit_reason, "status", (json_int_t)r->status,
        "attempt", (json_int_t)r->attempt, "outcome", r->outcome, "error", un_json_string(r->error),
        "calls", (json_int_t)r->usage.report.calls, "unsupported",
        reply_missing_calls(&r->usage.report), "calls_made", reply_calls_made(&r->usage.report),
        "egress", egress_json(&r->egress));
    if (!j || !rest || json_object_update(j, rest) < 0) {
        json_decref(j);
        j = NULL;
    }
    json_decref(rest);
    return j;
}

static void on_receipts(void *arg, int rc, const struct receipt *list, size_t count,
                        const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    json_t *items = json_array();
    for (size_t i = 0; i < count; i++) {
        reply_add(&items, receipt_json(&list[i]));
    }
    char next[CURSOR_SIZE];
    bool more = count && count == call->number;
    if (more) {
        snprintf(next, sizeof(next), "%s.%u", list[count - 1].id, list[count - 1].attempt);
    }
    reply_json(call, 200, reply_page(items, more ? next : NULL));
}

/* "ID.ATTEMPT"; without an attempt: all of them were seen. */
static bool read_cursor(char *cursor, unsigned *ret_attempt)
{
    char *dot = strchr(cursor, '.');
    *ret_attempt = 0;
    if (dot) {
        *dot++ = '\0';
        if (!*dot || strspn(dot, "0123456789") != strlen(dot)) {
            return false;
        }
        *ret_attempt = (unsigned)strtoul(dot, NULL, 10);
    }
    return un_id_valid(cursor);
}

void rest_invocation_list(struct api_call *call)
{
    char function[64], trigger[64], outcome[24], cursor[CURSOR_SIZE] = "";
    unsigned before_attempt = 0;
    unsigned limit;
    if (!call_page(call, &limit, cursor, sizeof(cursor))) {
        return;
    }
    int f = route_query(call->match.query, "function", function, sizeof(function));
    int t = route_query(call->match.query, "trigger", trigger, sizeof(trigger));
    int o = route_query(call->match.query, "status", outcome, sizeof(outcome));
    uint64_t since_ms;
    if (!query_number(call, "since", 1ull << 50, &since_ms)) {
        reply_problem(call, 400, "since: must be milliseconds since 1970");
        return;
    }
    bool number = o > 0 && outcome[0] >= '1' && outcome[0] <= '9';
    bool code = number && strlen(outcome) == 3 && strspn(outcome, "0123456789") == 3;
    if (o > 0 && *outcome && !code && !sched_outcome_known(outcome)) {
        reply_problem(call, 400,
                      "status: must be ok, failed, an outcome as receipts have it, or a code of "
                      "three digits");
        return;
    }
    if (f < 0 || t < 0 || o < 0 || (*cursor && !read_cursor(cursor, &before_attempt))) {
        reply_problem(call, 400, "function, trigger, status or cursor: malformed");
        return;
    }
    const struct receipt_query query = {.function = f ? function : NULL,
                                        .trigger = t ? trigger : NULL,
                                        .outcome = o && !number ? outcome : NULL,
                                        .status = number ? (unsigned)atoi(outcome) : 0,
                                        .since_us = since_ms * 1000,
                                        .before_id = *cursor ? cursor : NULL,
                                        .before_attempt = before_attempt,
                                        .limit = limit};
    call->number = limit;
    receipt_list(call->api->scheduler, &query, on_receipts, call);
}

/* A receipt of queued work: whether more attempts will follow it. */
struct receipt_flow {
    struct api_call *call;
    json_t *receipt;
};

static void on_more(void *arg, bool pending)
{
    struct receipt_flow *f = arg;
    if (pending && f->receipt && json_object_set_new(f->receipt, "pending", json_true()) < 0) {
        json_decref(f->receipt);
        f->receipt = NULL;
    }
    reply_json(f->call, 200, f->receipt);
    free(f);
}

static void reply_receipt(struct api_call *call, const struct receipt *r)
{
    bool queued =
        r->trigger == SCHED_ASYNC || r->trigger == SCHED_EVENT || r->trigger == SCHED_DESTINATION;
    struct receipt_flow *f = queued && strcmp(r->outcome, "ok") != 0 ? malloc(sizeof(*f)) : NULL;
    if (!f) {
        reply_json(call, 200, receipt_json(r));
        return;
    }
    *f = (struct receipt_flow){call, receipt_json(r)};
    async_pending(call->api->scheduler, r->id, on_more, f);
}

static void on_pending(void *arg, bool pending)
{
    struct api_call *call = arg;
    if (pending) {
        reply_json(call, 200,
                   json_pack("{s:s, s:s}", "id", call->match.params[0], "status", "pending"));
    } else {
        reply_problem(call, 404, "no such invocation, or its receipt has been dropped");
    }
}

static void on_receipt(void *arg, int rc, const struct receipt *list, size_t count,
                       const struct un_error *err)
{
    struct api_call *call = arg;
    if (call_given_up(call)) {
        return;
    }
    if (rc == -ENOENT || (rc == 0 && count == 0)) {
        async_pending(call->api->scheduler, call->match.params[0], on_pending, call);
    } else if (rc < 0) {
        reply_error(call, rc, err);
    } else {
        reply_receipt(call, &list[0]);
    }
}

void rest_invocation_get(struct api_call *call)
{
    if (!un_id_valid(call->match.params[0])) {
        reply_problem(call, 404, "this is no invocation's id");
        return;
    }
    receipt_get(call->api->scheduler, call->match.params[0], on_receipt, call);
}
