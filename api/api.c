/* api.c - opening and closing, and the way of a request from its head to its handler; see api.h. */
#include "api/api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/door.h"
#include "api/reply.h"
#include "api/watch.h"
#include "common/clock.h"
#include "common/json.h"

enum { PARAM_SHOWN = 64 /* bytes of an unknown parameter's name */ };

static void on_head(void *arg, struct http_exchange *ex);

void api_settings_init(struct api_settings *s)
{
    memset(s, 0, sizeof(*s));
    http_limits_init(&s->http);
    s->max_request_bytes = LIMIT_REQUEST_BODY_BYTES;
    s->max_image_bytes = LIMIT_IMAGE_BYTES;
}

static int copy_string(const char *from, char **to)
{
    *to = from ? strdup(from) : NULL;
    return from && !*to ? -ENOMEM : 0;
}

static int copy_strings(struct api *a, const struct api_spec *spec)
{
    size_t count = 0;
    while (spec->settings.hosts && spec->settings.hosts[count]) {
        count++;
    }
    a->hosts = calloc(count + 1, sizeof(*a->hosts));
    int rc = a->hosts ? 0 : -ENOMEM;
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = copy_string(spec->settings.hosts[i], &a->hosts[i]);
    }
    rc = rc ? rc : copy_string(spec->settings.token, &a->token);
    rc = rc ? rc : copy_string(spec->version ? spec->version : "", &a->version);
    return rc ? rc : copy_string(spec->driver ? spec->driver : "", &a->driver);
}

static void api_free(struct api *a)
{
    for (char **h = a->hosts; h && *h; h++) {
        free(*h);
    }
    free(a->hosts);
    free(a->token);
    free(a->version);
    free(a->driver);
    free(a);
}

int api_open(const struct api_spec *spec, struct api **ret, struct un_error *err)
{
    struct api *a = calloc(1, sizeof(*a));
    if (!a || copy_strings(a, spec) < 0) {
        if (a) {
            api_free(a);
        }
        return un_error_set(err, -ENOMEM, "no memory for the HTTP interface");
    }
    a->loop = spec->loop;
    a->scheduler = spec->scheduler;
    a->images = spec->images;
    a->registry = spec->registry;
    a->events = spec->events;
    a->store = spec->store;
    a->max_request_bytes = spec->settings.max_request_bytes;
    a->max_image_bytes = spec->settings.max_image_bytes;
    a->is_ready = spec->is_ready;
    a->arg = spec->arg;
    a->doctor = spec->doctor;
    a->doctor_arg = spec->doctor_arg;
    a->opened_us = un_loop_now_us(a->loop);
    a->opened_wall_us = un_clock_wall_us();
    un_list_init(&a->follows);
    struct http_server_spec http = {
        .loop = a->loop, .limits = spec->settings.http, .on_head = on_head, .arg = a};
    int rc = http_server_open(&http, &a->http, err);
    if (rc == 0 && !(a->watch = watch_open(a))) {
        http_server_close(a->http);
        rc = un_error_set(err, -ENOMEM, "no memory for the HTTP interface");
    }
    if (rc == 0 && (rc = door_open(a, &a->door, err)) < 0) {
        http_server_close(a->http);
        watch_close(a->watch);
    }
    if (rc < 0) {
        api_free(a);
        return rc;
    }
    *ret = a;
    return 0;
}

int api_listen_tcp(struct api *a, const char *address, uint16_t *ret_port, struct un_error *err)
{
    uint16_t port = 0;
    int rc = http_server_listen_tcp(a->http, address, &port, err);
    if (rc == 0 && !*a->base_url) {
        const char *colon = strrchr(address, ':');
        snprintf(a->base_url, sizeof(a->base_url), "http://%.*s:%u", (int)(colon - address),
                 address, port);
    }
    if (rc == 0 && ret_port) {
        *ret_port = port;
    }
    return rc;
}

int api_listen_unix(struct api *a, const char *path, unsigned mode, struct un_error *err)
{
    return http_server_listen_unix(a->http, path, mode, err);
}

void api_open_ports(struct api *a, void (*done)(void *arg), void *arg)
{
    door_open_ports(a->door, done, arg);
}

void api_drain(struct api *a)
{
    a->draining = true;
    door_drain(a->door);
    http_server_drain(a->http);
    rest_logs_drain(a);
    watch_drain(a->watch);
}

void api_stop_accepting(struct api *a)
{
    door_stop_accepting(a->door);
    http_server_stop_accepting(a->http);
}

unsigned api_connections(const struct api *a)
{
    struct door_stats door;
    door_get_stats(a->door, &door);
    return http_server_connections(a->http) + door.connections;
}

void api_close(struct api *a)
{
    if (!a) {
        return;
    }
    a->calls++; /* what ends in http_server_close must not free it */
    a->closed = true;
    door_close(un_steal(&a->door));
    http_server_close(a->http);
    watch_close(un_steal(&a->watch));
    if (--a->calls == 0) {
        api_free(a);
    }
}

/* --- calls ------------------------------------------------------------------------------------ */

void call_free(struct api_call *call)
{
    struct api *a = call->api;
    un_buf_done(&call->body);
    free(call);
    if (--a->calls == 0 && a->closed) {
        api_free(a);
    }
}

bool call_given_up(struct api_call *call)
{
    if (call->ex || !call->api->closed) {
        return false;
    }
    call_free(call);
    return true;
}

struct http_exchange *call_take_exchange(struct api_call *call)
{
    struct http_exchange *ex = un_steal(&call->ex);
    call_free(call);
    return ex;
}

static void running_gone(void *arg)
{
    struct api_call *call = arg;
    call->ex = NULL; /* what is under way will end in a reply, which frees the call */
}

static const struct http_handler running_handler = {.on_gone = running_gone};

static void collect_gone(void *arg)
{
    call_free(arg);
}

static void collect_body(void *arg, const void *data, size_t len)
{
    struct api_call *call = arg;
    if (len > call->body_limit - call->body.len) {
        reply_problem(call, 413, "the request body is too large");
    } else if (un_buf_append(&call->body, data, len) < 0) {
        reply_problem(call, 500, "no memory for the request body");
    }
}

static void collect_end(void *arg)
{
    struct api_call *call = arg;
    http_exchange_handle(call->ex, &running_handler, call);
    call->then(call);
}

static const struct http_handler collect_handler = {
    .on_body = collect_body, .on_body_end = collect_end, .on_gone = collect_gone};

void call_collect(struct api_call *call, size_t limit, void (*then)(struct api_call *call))
{
    const struct http_request *req = http_exchange_request(call->ex);
    call->body_limit = limit;
    call->then = then;
    if (!http_exchange_has_body(call->ex)) {
        collect_end(call);
    } else if (req->content_length > (int64_t)limit) {
        reply_problem(call, 413, "the request body is too large");
    } else {
        http_exchange_handle(call->ex, &collect_handler, call);
        http_body_resume(call->ex);
    }
}

bool call_page(struct api_call *call, unsigned *limit, char *cursor, size_t cursor_size)
{
    char text[16] = "100";
    char *end;
    int rc = route_query(call->match.query, "limit", text, sizeof(text));
    unsigned long n = strtoul(text, &end, 10);
    if (rc < 0 || text[0] < '0' || text[0] > '9' || *end || n < 1 || n > LIMIT_PAGE_ITEMS) {
        reply_problem(call, 400, "limit: must be a whole number from 1 to 1000");
        return false;
    }
    *limit = (unsigned)n;
    if (cursor && route_query(call->match.query, "cursor", cursor, cursor_size) < 0) {
        reply_problem(call, 400, "cursor: malformed");
        return false;
    }
    return true;
}

json_t *call_json(struct api_call *call)
{
    struct un_error err = UN_ERROR_INIT;
    json_t *j = NULL;
    if (call->body.len == 0) {
        return json_object();
    }
    int rc = un_json_parse(call->body.data, call->body.len, &j, &err);
    if (rc == 0 && !json_is_object(j)) {
        json_decref(j);
        rc = un_error_set(&err, -EINVAL, "the body must be a JSON object");
    }
    if (rc < 0) {
        reply_error(call, rc, &err);
        return NULL;
    }
    return j;
}

/* --- dispatch --------------------------------------------------------------------------------- */

static void refuse(struct http_exchange *ex, enum route_result result, const char *allow)
{
    if (result == ROUTE_BAD_METHOD) {
        char detail[128];
        snprintf(detail, sizeof(detail), "this resource has other methods: %.80s", allow);
        http_respond_field(ex, "Allow", allow);
        http_respond_problem(ex, 405, detail);
    } else if (result == ROUTE_MALFORMED) {
        http_respond_problem(ex, 400, "the path is malformed, or has dot segments");
    } else {
        http_respond_problem(ex, 404, "there is nothing at this path");
    }
}

/* Answers 400 and returns false when the query has a parameter that would be ignored. */
static bool check_query(struct http_exchange *ex, const struct route_match *m)
{
    char detail[256];
    size_t len;
    const char *name = route_unknown_param(m, &len);
    if (!name) {
        return true;
    }
    snprintf(detail, sizeof(detail), "%.*s: there is no such query parameter here; known: %s",
             (int)(len < PARAM_SHOWN ? len : PARAM_SHOWN), name,
             *m->route->query ? m->route->query : "none");
    http_respond_problem(ex, 400, detail);
    return false;
}

static void on_head(void *arg, struct http_exchange *ex)
{
    struct api *a = arg;
    const struct http_request *req = http_exchange_request(ex);
    a->requests++;
    struct api_call *call = calloc(1, sizeof(*call));
    if (!call) {
        http_respond_problem(ex, 500, "no memory");
        return;
    }
    call->api = a;
    call->ex = ex;
    a->calls++;
    if (http_exchange_pin(ex)) {
        gateway_own_port(call, http_exchange_pin(ex));
        return;
    }
    enum route_result result =
        route_find(api_routes, api_route_count, req->method, req->target, &call->match);
    if (result != ROUTE_OK) {
        refuse(ex, result, call->match.allow);
        call_free(call);
        return;
    }
    const struct route *route = call->match.route;
    if (!api_authorize(a, ex, route) || !check_query(ex, &call->match)) {
        call_free(call);
        return;
    }
    if (route->body == BODY_JSON) {
        call_collect(call, LIMIT_HTTP_JSON_BYTES, route->run);
    } else if (route->body == BODY_NONE) {
        http_exchange_handle(ex, &running_handler, call);
        route->run(call);
    } else {
        route->run(call);
    }
}
