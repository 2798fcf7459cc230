/* triggers.c - triggers over HTTP. What is secret of them goes in and never comes out, but
 * for the token of a new one, in the answer that makes it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/call.h"
#include "api/missing.h"
#include "api/reply.h"
#include "api/watch.h"
#include "events/events.h"

/* Where the trigger's events are to be sent; NULL for cron. Writes to `buf`. */
static const char *url_of(const struct api *a, const struct trigger *t, char *buf, size_t size)
{
    switch (t->config.kind) {
    case EVENT_S3:
        snprintf(buf, size, "%s/events/s3/%s", a->base_url, t->name);
        return buf;
    case EVENT_CRON:
        return NULL;
    default:
        snprintf(buf, size, "%s/events", a->base_url);
        return buf;
    }
}

/* What its events are held to, whoever said so. */
static json_t *retry_json(const struct api *a, const struct trigger *t)
{
    const struct async_policy p = async_policy_in_effect(a->scheduler, &t->config.policy);
    return json_pack("{s:I, s:I, s:I, s:I}", "max_attempts", (json_int_t)p.max_attempts,
                     "max_age_ms", (json_int_t)p.max_age_ms, "backoff_ms",
                     (json_int_t)p.backoff_base_ms, "backoff_max_ms", (json_int_t)p.backoff_max_ms);
}

/* NULL: no memory. */
static json_t *full_json(const struct api *a, const struct trigger *t)
{
    char url[192];
    json_t *j = trigger_json(t);
    const char *text = url_of(a, t, url, sizeof(url));
    if (j && (json_object_set_new(j, "url", text ? json_string(text) : json_null()) < 0 ||
              json_object_set_new(j, "retry", retry_json(a, t)) < 0)) {
        json_decref(j);
        return NULL;
    }
    return j;
}

/* Has the functions that the trigger names looked for. */
static void add_named(struct missing *m, json_t *trigger)
{
    size_t i;
    const json_t *function;
    json_array_foreach(json_object_get(trigger, "functions"), i, function)
    {
        missing_add(m, trigger, json_string_value(function));
    }
    missing_add(m, trigger, json_string_value(json_object_get(trigger, "on_success")));
    missing_add(m, trigger, json_string_value(json_object_get(trigger, "on_failure")));
}

static void reply_one(struct api_call *call, unsigned status, json_t *trigger)
{
    struct missing *m = missing_new();
    add_named(m, trigger);
    missing_reply(m, call, status, trigger);
}

static bool have_events(struct api_call *call)
{
    if (!call->api->events) {
        reply_problem(call, 404, "this unid has no triggers");
    }
    return call->api->events != NULL;
}

static void on_put(void *arg, int rc, const struct trigger *t, bool created, const char *token,
                   const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    watch_trigger(call->api, created ? "created" : "changed", t->name);
    json_t *j = full_json(call->api, t);
    if (j && token) {
        json_object_set_new(j, "token", json_string(token));
    }
    if (created && call->ex) {
        char location[96];
        snprintf(location, sizeof(location), "/api/v1/triggers/%s", t->name);
        http_respond_field(call->ex, "Location", location);
    }
    reply_one(call, created ? 201 : 200, j);
}

void rest_trigger_put(struct api_call *call)
{
    un_autojson json_t *body = have_events(call) ? call_json(call) : NULL;
    if (body) {
        trigger_put(call->api->events, call->match.params[0], body, on_put, call);
    }
}

void rest_trigger_get(struct api_call *call)
{
    if (have_events(call)) {
        const struct trigger *t = trigger_find(call->api->events, call->match.params[0]);
        if (t) {
            reply_one(call, 200, full_json(call->api, t));
        } else {
            struct un_error err = UN_ERROR_INIT;
            int rc = un_error_set(&err, -ENOENT, "no trigger %s", call->match.params[0]);
            reply_error(call, rc, &err);
        }
    }
}

void rest_trigger_list(struct api_call *call)
{
    unsigned limit, count = 0;
    char cursor[ROUTE_PARAM_SIZE] = "";
    if (!have_events(call) || !call_page(call, &limit, cursor, sizeof(cursor))) {
        return;
    }
    struct missing *m = missing_new();
    json_t *items = json_array();
    const struct trigger *t = trigger_after(call->api->events, *cursor ? cursor : NULL);
    const char *last = NULL;
    for (; t && count < limit; count++) {
        json_t *trigger = full_json(call->api, t);
        add_named(m, trigger);
        reply_add(&items, trigger);
        last = t->name;
        t = trigger_after(call->api->events, t->name);
    }
    missing_reply(m, call, 200, reply_page(items, t ? last : NULL));
}

static void on_removed(void *arg, int rc, const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        watch_trigger(call->api, "removed", call->match.params[0]);
        reply_empty(call, 204);
    }
}

void rest_trigger_remove(struct api_call *call)
{
    if (have_events(call)) {
        trigger_remove(call->api->events, call->match.params[0], on_removed, call);
    }
}
