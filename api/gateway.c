/* gateway.c - calls of functions over HTTP: /fn, and invocations that the client waits for.
 *
 *    exchange --body--> gw_body -----> sched_call_body      pause/resume: on_body_room
 *    exchange <-------- http_respond_* <---- on_response, on_data     held back:
 * sched_call_data_done
 *
 * A gateway call has two ends: the exchange (`ex`, NULL once it has been answered or lost) and the
 * scheduler's call (`call`, NULL once it has ended). It is freed when both are gone.
 *
 * Bytes of a response that comes in one piece go out with Content-Length; else chunked, unless the
 * function declared a length. If the function fails after its response has begun the connection is
 * cut. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/call.h"
#include "api/reply.h"
#include "common/json.h"

struct gateway {
    struct api *api;
    struct http_exchange *ex;
    struct sched_call *call;
    char id[UN_ID_SIZE];
    bool ended;     /* the response is whole */
    bool data_held; /* sched_call_data_done is owed when the client has read on */
    unsigned busy;  /* calls into the scheduler under way: free later */
};

static void gw_release(struct gateway *g)
{
    if (!g->busy && !g->ex && !g->call) {
        free(g);
    }
}

/* --- the answer's own fields ------------------------------------------------------------------ */

static void set_timing(struct http_exchange *ex, const struct sched_phases *p)
{
    char text[128];
    /* start: what it took to have the program running; run: from then on, as far as it has come. */
    uint64_t start = p->shell_us + p->bind_us + p->start_us;
    uint64_t run = p->first_byte_us + p->run_us;
    snprintf(text, sizeof(text), "queue;dur=%llu.%03u, start;dur=%llu.%03u, run;dur=%llu.%03u",
             (unsigned long long)p->queue_us / 1000, (unsigned)(p->queue_us % 1000),
             (unsigned long long)start / 1000, (unsigned)(start % 1000),
             (unsigned long long)run / 1000, (unsigned)(run % 1000));
    http_respond_field(ex, "Server-Timing", text);
}

static void answer_problem(struct http_exchange *ex, const char *id,
                           const struct sched_outcome *outcome)
{
    char retry[16];
    unsigned status;
    un_autojson json_t *j = reply_outcome(outcome, id, &status);
    un_autofree char *text = un_json_text(j);
    set_timing(ex, &outcome->phases);
    if (status == 429 || outcome->kind == SCHED_DRAINING || outcome->retry_after_s) {
        unsigned after_s = outcome->retry_after_s ? outcome->retry_after_s : 1;
        snprintf(retry, sizeof(retry), "%u", after_s);
        http_respond_field(ex, "Retry-After", retry);
    }
    http_respond_full(ex, status, "application/problem+json", text ? text : "{}",
                      text ? strlen(text) : 2);
}

/* Fields that concern one connection only (RFC 9110 section 7.6.1), and those that we set
 * ourselves. */
static bool is_hop_by_hop(const char *name)
{
    static const char *const names[] = {"connection",
                                        "keep-alive",
                                        "proxy-connection",
                                        "proxy-authenticate",
                                        "proxy-authorization",
                                        "te",
                                        "trailer",
                                        "transfer-encoding",
                                        "upgrade"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(names); i++) {
        if (strcasecmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool connection_names(const struct http_request *req, const char *name)
{
    for (size_t i = 0; i < req->field_count; i++) {
        if (strcasecmp(req->fields[i].name, "connection") == 0 &&
            http_list_has(req->fields[i].value, name)) {
            return true;
        }
    }
    return false;
}

static size_t request_fields(const struct http_request *req, struct hv_field *out)
{
    size_t n = 0;
    for (size_t i = 0; i < req->field_count; i++) {
        const char *name = req->fields[i].name;
        if (!is_hop_by_hop(name) && strcasecmp(name, "expect") != 0 &&
            !connection_names(req, name)) {
            /* RFC 9112, section 3.2.2: what a target of absolute form says counts. */
            bool host = strcasecmp(name, "host") == 0;
            out[n++] = (struct hv_field){name, host ? req->host : req->fields[i].value};
        }
    }
    return n;
}

/* --- from the client -------------------------------------------------------------------------- */

static void gw_feed(struct gateway *g, const void *data, size_t len, bool eof)
{
    if (!g->call) {
        return;
    }
    g->busy++;
    int room = sched_call_body(g->call, data, len, eof);
    g->busy--;
    if (room == 0 && g->call && g->ex) {
        http_body_pause(g->ex);
    }
    gw_release(g);
}

static void gw_body(void *arg, const void *data, size_t len)
{
    gw_feed(arg, data, len, false);
}

static void gw_body_end(void *arg)
{
    gw_feed(arg, NULL, 0, true);
}

static void data_done(struct gateway *g)
{
    g->data_held = false;
    if (g->call) {
        g->busy++;
        sched_call_data_done(g->call);
        g->busy--;
    }
}

static void gw_writable(void *arg)
{
    struct gateway *g = arg;
    if (g->data_held) {
        data_done(g);
        gw_release(g);
    }
}

static void gw_gone(void *arg)
{
    struct gateway *g = arg;
    g->ex = NULL;
    if (g->call) {
        sched_call_cancel(un_steal(&g->call));
    }
    gw_release(g);
}

static const struct http_handler gw_handler = {
    .on_body = gw_body, .on_body_end = gw_body_end, .on_writable = gw_writable, .on_gone = gw_gone};

/* --- from the function ------------------------------------------------------------------------ */

static void gw_body_room(void *arg)
{
    struct gateway *g = arg;
    if (g->ex) {
        http_body_resume(g->ex);
    }
}

/* Passes the function's fields on; gives the length that it declared, or -1. */
static int64_t pass_fields(struct gateway *g, const struct hv_head *head)
{
    int64_t declared = -1;
    for (size_t i = 0; i < head->field_count; i++) {
        const char *name = head->fields[i].name, *value = head->fields[i].value;
        if (strcasecmp(name, "content-length") == 0) {
            size_t digits = strspn(value, "0123456789");
            declared = digits && digits < 19 && !value[digits] ? strtoll(value, NULL, 10) : -1;
        } else if (!is_hop_by_hop(name) && strcasecmp(name, "date") != 0 &&
                   strcasecmp(name, "x-unid-invocation-id") != 0) {
            http_respond_field_add(g->ex, name, value);
        }
    }
    return declared;
}

static void gw_send(struct gateway *g, const void *data, size_t len, bool last)
{
    int room = 1;
    if (g->ex) {
        room = http_respond_data(g->ex, data, len);
        if (last) {
            g->ended = true;
            http_respond_end(un_steal(&g->ex));
        }
    }
    if (room || last) {
        data_done(g);
    } else {
        g->data_held = true;
    }
}

static void gw_response(void *arg, const struct sched_response *r)
{
    struct gateway *g = arg;
    if (g->ex) {
        set_timing(g->ex, r->phases);
        int64_t declared = pass_fields(g, &r->head);
        bool head = strcmp(http_exchange_request(g->ex)->method, "HEAD") == 0;
        if (r->last && !(head && r->len == 0)) {
            declared = (int64_t)r->len;
        }
        http_respond_begin(g->ex, r->head.status, declared);
    }
    gw_send(g, r->data, r->len, r->last);
    gw_release(g);
}

static void gw_data(void *arg, const void *data, size_t len, bool last)
{
    struct gateway *g = arg;
    gw_send(g, data, len, last);
    gw_release(g);
}

static void gw_end(void *arg, const struct sched_outcome *outcome)
{
    struct gateway *g = arg;
    g->call = NULL;
    if (g->ex) {
        struct http_exchange *ex = un_steal(&g->ex);
        if (!http_exchange_begun(ex) && outcome->kind == SCHED_OK) {
            set_timing(ex, &outcome->phases);
            http_respond_full(ex, 200, NULL, "", 0);
        } else if (!http_exchange_begun(ex)) {
            answer_problem(ex, g->id, outcome);
        } else if (outcome->kind == SCHED_OK) {
            http_respond_end(ex);
        } else {
            http_exchange_abort(ex);
        }
    }
    gw_release(g);
}

static const struct sched_call_events gw_events = {
    .on_body_room = gw_body_room, .on_response = gw_response, .on_data = gw_data, .on_end = gw_end};

/* --- starting --------------------------------------------------------------------------------- */

static void refuse(struct http_exchange *ex, const char *id, enum sched_outcome_kind kind,
                   const char *detail)
{
    struct sched_outcome outcome = {.kind = kind, .detail = detail};
    answer_problem(ex, id, &outcome);
}

static int start_call(struct gateway *g, const struct sched_call_spec *part, struct un_error *err)
{
    const struct http_request *req = http_exchange_request(g->ex);
    struct hv_field fields[LIMIT_HTTP_FIELDS];
    struct sched_call_spec spec = *part;
    char peer[HTTP_PEER_SIZE];
    spec.peer = http_exchange_peer(g->ex, peer);
    spec.http10 = req->minor == 0;
    spec.uri = part->trigger == SCHED_HTTP ? req->target : NULL;
    spec.attempt = 1;
    spec.id = g->id;
    spec.method = req->method;
    spec.fields = fields;
    spec.field_count = request_fields(req, fields);
    spec.content_length = req->content_length;
    spec.events = &gw_events;
    spec.arg = g;
    return sched_call_start(g->api->scheduler, &spec, &g->call, err);
}

/* Answers what can be told without the scheduler. */
static bool refuse_early(struct http_exchange *ex, const char *id, const struct api *a,
                         const struct sched_call_spec *part)
{
    const struct http_request *req = http_exchange_request(ex);
    if (!function_name_valid(part->function)) {
        refuse(ex, id, SCHED_NO_FUNCTION, "this is no function's name");
        return true;
    }
    if (req->content_length > 0 && (uint64_t)req->content_length > a->max_request_bytes) {
        refuse(ex, id, SCHED_REQUEST_TOO_LARGE, "the request body is longer than unid accepts");
        return true;
    }
    return false;
}

/* `part`: what the route says of the call. */
static void begin(struct api_call *call, const struct sched_call_spec *part)
{
    static const struct sched_phases nothing;
    struct un_error err = UN_ERROR_INIT;
    struct http_exchange *ex = call->ex;
    struct gateway *g = calloc(1, sizeof(*g));
    char id[UN_ID_SIZE];
    un_id_new(id);
    http_respond_field(ex, "X-Unid-Invocation-Id", id);
    set_timing(ex, &nothing);
    if (!g) {
        refuse(ex, id, SCHED_INTERNAL, "no memory for the call");
    } else if (!refuse_early(ex, id, call->api, part)) {
        g->api = call->api;
        g->ex = ex;
        memcpy(g->id, id, sizeof(id));
        http_exchange_handle(ex, &gw_handler, g);
        int rc = start_call(g, part, &err);
        if (rc == 0) {
            call_free(call);
            if (http_exchange_has_body(ex)) {
                http_body_resume(ex);
            } else {
                gw_feed(g, NULL, 0, true);
            }
            return;
        }
        refuse(ex, id, rc == -E2BIG ? SCHED_REQUEST_TOO_LARGE : SCHED_INTERNAL, err.text);
    }
    free(g);
    call_free(call);
}

void gateway_call(struct api_call *call, enum sched_trigger trigger, const char *function,
                  const char *qualifier, const char *target)
{
    const struct sched_call_spec part = {
        .function = function, .qualifier = qualifier, .trigger = trigger, .target = target};
    begin(call, &part);
}

/* A port of the function's own, where there are no routes. */
void gateway_own_port(struct api_call *call, const struct http_pin *pin)
{
    const struct http_request *req = http_exchange_request(call->ex);
    const struct sched_call_spec part = {.function = pin->name,
                                         .trigger = SCHED_HTTP,
                                         .target = req->target,
                                         .own_port = true,
                                         .depth = pin->depth};
    if (!route_target_clean(req->target)) {
        reply_problem(call, 400, "the path is malformed, or has dot segments");
        return;
    }
    begin(call, &part);
}

/* /fn/{name}[:{qualifier}][/{path}] */
void gateway_run(struct api_call *call)
{
    char *name = call->match.params[0];
    char *qualifier = strchr(name, ':');
    if (qualifier) {
        *qualifier++ = '\0';
    }
    const char *target = call->match.rest;
    un_autofree char *made = NULL;
    if (!target) {
        const char *query = call->match.query;
        if (!query) {
            target = "/";
        } else if (asprintf(&made, "/?%s", query) < 0) {
            made = NULL;
            reply_problem(call, 500, "no memory");
            return;
        } else {
            target = made;
        }
    }
    gateway_call(call, SCHED_HTTP, name, qualifier, target);
}
