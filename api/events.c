/* events.c - what sends events: object stores to /events/s3/{trigger}, producers of CloudEvents
 * and of table changes to /events.
 *
 * A trigger's token is looked for where senders can put it: "Authorization: Bearer TOKEN" (MinIO,
 * EventBridge), the password of "Authorization: Basic" (SNS: https://any:TOKEN@host/...), or
 * ?token=TOKEN (Ceph). It is looked at before the body is read. On /events REST's own
 * authorization does as well, and then all triggers may have the event; with a trigger's token
 * only that one.
 *
 * Whoever gets a 2xx need not send again: what is wanted is on disk. */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/call.h"
#include "api/reply.h"
#include "events/cloudevents.h"
#include "events/dynamodb.h"
#include "events/events.h"
#include "events/s3.h"

enum { TOKEN_SIZE = 160, BASIC_SIZE = 512 };

/* --- tokens ----------------------------------------------------------------------------------- */

/* The password in "Basic BASE64(user:password)" (RFC 7617). */
static bool basic_password(const char *base64, char *out, size_t size)
{
    unsigned char plain[BASIC_SIZE];
    size_t len = strlen(base64);
    if (len == 0 || len % 4 || len > BASIC_SIZE / 3 * 4) {
        return false;
    }
    int n = EVP_DecodeBlock(plain, (const unsigned char *)base64, (int)len);
    n -= n > 0 && base64[len - 1] == '=' ? 1 + (base64[len - 2] == '=') : 0;
    const unsigned char *colon = n > 0 ? memchr(plain, ':', (size_t)n) : NULL;
    size_t left = colon ? (size_t)(plain + n - colon - 1) : size;
    if (left >= size) {
        return false;
    }
    memcpy(out, colon + 1, left);
    out[left] = '\0';
    return true;
}

/* Writes the token that came along; false when there is none. */
static bool given_token(const struct api_call *call, char *out, size_t size)
{
    const struct http_request *req = http_exchange_request(call->ex);
    const char *field = http_request_field(req, "authorization");
    if (field && strncasecmp(field, "Bearer ", 7) == 0 && strlen(field + 7) < size) {
        snprintf(out, size, "%s", field + 7);
        return true;
    }
    if (field && strncasecmp(field, "Basic ", 6) == 0) {
        return basic_password(field + 6, out, size);
    }
    return route_query(call->match.query, "token", out, size) == 1;
}

static void refuse_token(struct api_call *call, enum intake_source source)
{
    events_count(call->api->events, source, INTAKE_REFUSED);
    http_respond_field(call->ex, "WWW-Authenticate", "Bearer");
    reply_problem(
        call, 401,
        "this needs the trigger's token, as \"Authorization: Bearer TOKEN\", as password of "
        "\"Authorization: Basic\", or as ?token=TOKEN");
}

/* --- answering -------------------------------------------------------------------------------- */

static json_t *report_json(const struct intake_report *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->count; i++) {
        const struct async_accepted *a = &r->list[i];
        reply_add(&list, json_pack("{s:s?, s:s}", "id", *a->id ? a->id : NULL, "result",
                                   async_result_name(a->result)));
    }
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:o}", "events", (int)r->events, "matched",
                     (int)r->matched, "accepted", (int)r->accepted, "duplicates",
                     (int)r->duplicates, "stale", (int)r->stale, "invocations", list);
}

/* call->number: the status when all is well. */
static void on_report(void *arg, int rc, const struct intake_report *report,
                      const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        reply_json(call, call->number, report_json(report));
    }
}

static void refuse(struct api_call *call, enum intake_source source, int rc,
                   const struct un_error *err)
{
    events_count(call->api->events, source, rc == -ENOMEM ? INTAKE_FAILED : INTAKE_REFUSED);
    reply_error(call, rc, err);
}

/* Destinations count how many of them an event has passed, so that a circle ends. */
static unsigned depth_of(const struct api_call *call)
{
    const char *text = http_request_field(http_exchange_request(call->ex), "x-unid-depth");
    unsigned long n = text && *text >= '0' && *text <= '9' ? strtoul(text, NULL, 10) : 0;
    return n < LIMIT_ASYNC_DEPTH + 1 ? (unsigned)n : LIMIT_ASYNC_DEPTH + 1;
}

static void submit(struct api_call *call, struct event_list *list, const char *trigger,
                   unsigned status)
{
    call->number = status;
    intake_submit(call->api->events, list, trigger, depth_of(call), on_report, call);
    event_list_done(list);
}

/* Reads the body, unless it is told to be too long. */
static void collect(struct api_call *call, enum intake_source source,
                    void (*then)(struct api_call *call))
{
    if (http_exchange_request(call->ex)->content_length > LIMIT_EVENT_BYTES) {
        events_count(call->api->events, source, INTAKE_REFUSED);
    }
    call_collect(call, LIMIT_EVENT_BYTES, then);
}

/* --- object stores ---------------------------------------------------------------------------- */

static void on_subscribed(void *arg, int rc, const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        reply_json(call, 200, json_pack("{s:i, s:s}", "events", 0, "subscription", "recorded"));
    }
}

static void s3_body(struct api_call *call)
{
    struct s3_delivery d;
    struct un_error err = UN_ERROR_INIT;
    const char *trigger = call->match.params[0];
    int rc =
        s3_parse(call->body.data ? (const void *)call->body.data : "", call->body.len, &d, &err);
    if (rc < 0) {
        refuse(call, INTAKE_S3, rc, &err);
        return;
    }
    if (d.kind == S3_SUBSCRIBE) {
        sns_subscribe(call->api->events, trigger, d.topic_arn, d.subscribe_url, on_subscribed,
                      call);
    } else {
        submit(call, &d.events, trigger, 200);
    }
    s3_delivery_done(&d);
}

static const struct trigger *s3_trigger(struct api_call *call)
{
    const struct trigger *t =
        call->api->events ? trigger_find(call->api->events, call->match.params[0]) : NULL;
    if (!t || t->config.kind != EVENT_S3) {
        reply_problem(call, 404, "there is no s3 trigger of this name; see unictl trigger ls");
        return NULL;
    }
    return t;
}

void events_s3(struct api_call *call)
{
    char token[TOKEN_SIZE];
    const struct trigger *t = s3_trigger(call);
    if (!t) {
        return;
    }
    if (!given_token(call, token, sizeof(token)) || !trigger_token_is(t, token)) {
        refuse_token(call, INTAKE_S3);
    } else {
        collect(call, INTAKE_S3, s3_body);
    }
}

/* Stores ask whether somebody is there before they take the address. */
void events_s3_probe(struct api_call *call)
{
    if (s3_trigger(call)) {
        reply_json(call, 200, json_pack("{s:s}", "trigger", call->match.params[0]));
    }
}

/* --- CloudEvents and table changes ------------------------------------------------------------ */

static int parse_any(const struct api_call *call, struct event_list *list,
                     enum intake_source *source, struct un_error *err)
{
    const struct http_request *req = http_exchange_request(call->ex);
    struct cloudevents_field fields[LIMIT_HTTP_FIELDS];
    const char *type = http_request_field(req, "content-type");
    const void *body = call->body.data ? (const void *)call->body.data : "";
    for (size_t i = 0; i < req->field_count; i++) {
        fields[i] = (struct cloudevents_field){req->fields[i].name, req->fields[i].value};
    }
    enum cloudevents_mode mode = cloudevents_mode_of(type, fields, req->field_count);
    *source = INTAKE_CLOUDEVENTS;
    if (mode != CLOUDEVENTS_NONE) {
        return cloudevents_parse(mode, type, fields, req->field_count, body, call->body.len, list,
                                 err);
    }
    un_autojson json_t *root = NULL;
    int rc = un_json_parse(body, call->body.len, &root, err);
    bool changes = rc == 0 && dynamodb_is_delivery(root);
    *source = changes ? INTAKE_DYNAMODB : INTAKE_OTHER;
    if (changes) {
        return dynamodb_parse(body, call->body.len, list, err);
    }
    return rc == -ENOMEM
               ? rc
               : un_error_set(err, -EINVAL,
                              "expected a CloudEvent (fields ce-specversion, ce-id, ce-source, "
                              "ce-type; or Content-Type application/cloudevents+json or "
                              "application/cloudevents-batch+json), or DynamoDB's {\"Records\": "
                              "[{\"eventName\", \"dynamodb\", ...}]}; S3 events go to "
                              "/events/s3/{trigger}");
}

static void events_body(struct api_call *call)
{
    struct event_list list = {0};
    struct un_error err = UN_ERROR_INIT;
    enum intake_source source;
    const char *trigger = call->match.params[0];
    int rc = parse_any(call, &list, &source, &err);
    if (rc < 0) {
        refuse(call, source, rc, &err);
    } else {
        submit(call, &list, *trigger ? trigger : NULL, 202);
    }
}

void events_any(struct api_call *call)
{
    static const struct route as_rest = {.auth = AUTH_TOKEN};
    char token[TOKEN_SIZE];
    struct api *a = call->api;
    if (!a->events) {
        reply_problem(call, 404, "this unid has no triggers");
        return;
    }
    bool given = given_token(call, token, sizeof(token));
    const struct trigger *t = given ? trigger_by_token(a->events, token) : NULL;
    if (t) {
        snprintf(call->match.params[0], ROUTE_PARAM_SIZE, "%s", t->name);
    } else if (given && !a->token) {
        refuse_token(call, INTAKE_OTHER);
        return;
    } else if (!api_authorize(a, call->ex, &as_rest)) {
        events_count(a->events, INTAKE_OTHER, INTAKE_REFUSED);
        call_free(call);
        return;
    }
    collect(call, INTAKE_OTHER, events_body);
}

/* The handshake against abuse (CloudEvents "HTTP 1.1 Web Hooks for Event Delivery", section 4):
 * who asks whether he may send is told so. It is no authorization; that is asked for with each
 * delivery. */
void events_options(struct api_call *call)
{
    const struct http_request *req = http_exchange_request(call->ex);
    const char *origin = http_request_field(req, "webhook-request-origin");
    http_respond_field(call->ex, "Allow",
                       strncmp(req->target, "/events/", 8) == 0 ? "GET, HEAD, POST, OPTIONS"
                                                                : "POST, OPTIONS");
    if (origin) {
        http_respond_field(call->ex, "WebHook-Allowed-Origin", origin);
        http_respond_field(call->ex, "WebHook-Allowed-Rate", "*");
    }
    reply_empty(call, 200);
}
