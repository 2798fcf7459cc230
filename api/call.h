/* call.h - one request on its way through the table of routes; for api/ only.
 *
 * A handler gets a call, starts what it has to, and answers with exactly one of the reply_*
 * functions (reply.h), now or from a callback. That frees the call. If the client has left
 * meanwhile, `ex` is NULL; the answer then goes nowhere, and the call is freed all the same. */
#ifndef UNID_API_CALL_H
#define UNID_API_CALL_H

#include "common/json.h"

#include "api/api.h"
#include "api/router.h"
#include "common/bytes.h"
#include "common/list.h"

struct api {
    struct un_loop *loop;
    struct scheduler *scheduler;
    struct imagestore *images;
    struct registry *registry;
    struct events *events; /* NULL: no triggers */
    struct store *store;
    char *version, *driver, *token;
    char **hosts;
    char base_url[80]; /* of the first TCP listener, "" without one */
    uint64_t max_request_bytes, max_image_bytes;
    bool (*is_ready)(void *arg, const char **ret_why);
    void *arg;
    void (*doctor)(void *doctor_arg, void (*cb)(void *arg, const json_t *report), void *arg);
    void *doctor_arg;
    struct http_server *http;
    bool draining, closed;
    unsigned calls;     /* that have not been freed; after api_close the last one frees this */
    uint64_t opened_us; /* un_loop_now_us() */
    uint64_t opened_wall_us;
    uint64_t requests;
    struct watch *watch;
    struct door *door;
    struct un_list follows; /* api/rest/logs.c: streams that never end by themselves */
};

struct api_call {
    struct api *api;
    struct http_exchange *ex; /* NULL once the client has left */
    struct route_match match; /* `rest` and `query` only while ex is there */
    struct un_buf body;
    size_t body_limit;
    void (*then)(struct api_call *call); /* once the body is there */
    uint32_t number;                     /* the handler's */
};

/* Collects the body into call->body, at most `limit` bytes (else replies 413), then calls `then`.
 */
void call_collect(struct api_call *call, size_t limit, void (*then)(struct api_call *call));

/* Gives the exchange to someone else, and frees the call. */
struct http_exchange *call_take_exchange(struct api_call *call);
void call_free(struct api_call *call);

/* Between two steps of a handler's work: whether there is no use in the next one, because unid is
 * closing.
 * The call has been freed then. */
bool call_given_up(struct api_call *call);

/* Parses ?limit= and ?cursor=; replies 400 and returns false if they are wrong. `cursor` may be
 * NULL. */
bool call_page(struct api_call *call, unsigned *limit, char *cursor, size_t cursor_size);

/* Parses the body as a JSON object; an empty one is an empty object. Replies 400 and gives NULL if
 * it is none. The caller has a reference. */
json_t *call_json(struct api_call *call);

/* Whether the request may use the route. If not it has been answered. auth.c. */
bool api_authorize(struct api *a, struct http_exchange *ex, const struct route *route);

/* The handlers, by file. */
void gateway_run(struct api_call *call);
void rest_image_push(struct api_call *call);
void rest_image_list(struct api_call *call);
void rest_image_get(struct api_call *call);
void rest_image_check(struct api_call *call);
void rest_image_pull(struct api_call *call);
void rest_image_remove(struct api_call *call);
void rest_tag_list(struct api_call *call);
void rest_tag_put(struct api_call *call);
void rest_tag_remove(struct api_call *call);
void rest_volume_list(struct api_call *call);
void rest_volume_put(struct api_call *call);
void rest_volume_get(struct api_call *call);
void rest_volume_remove(struct api_call *call);
void rest_function_put(struct api_call *call);
void rest_function_list(struct api_call *call);
void rest_function_get(struct api_call *call);
void rest_function_remove(struct api_call *call);
void rest_function_versions(struct api_call *call);
void rest_alias_list(struct api_call *call);
void rest_alias_put(struct api_call *call);
void rest_alias_remove(struct api_call *call);
void rest_function_rollback(struct api_call *call);
void rest_invoke(struct api_call *call);
void rest_invocation_list(struct api_call *call);
void rest_invocation_get(struct api_call *call);
void rest_invocation_replay(struct api_call *call);
void rest_watch(struct api_call *call);
void rest_trigger_list(struct api_call *call);
void rest_trigger_get(struct api_call *call);
void rest_trigger_put(struct api_call *call);
void rest_trigger_remove(struct api_call *call);
void events_s3(struct api_call *call);
void events_s3_probe(struct api_call *call);
void events_any(struct api_call *call);
void events_options(struct api_call *call);
void rest_deadletter_list(struct api_call *call);
void rest_deadletter_get(struct api_call *call);
void rest_deadletter_redrive(struct api_call *call);
void rest_deadletter_redrive_all(struct api_call *call);
void rest_deadletter_remove(struct api_call *call);
void rest_deadletter_remove_all(struct api_call *call);
void rest_instance_list(struct api_call *call);
void rest_instance_kill(struct api_call *call);
void rest_logs(struct api_call *call);
void rest_logs_drain(struct api *a);
void rest_healthz(struct api_call *call);
void rest_readyz(struct api_call *call);
void rest_metrics(struct api_call *call);
void rest_stats(struct api_call *call);
void rest_version(struct api_call *call);
void rest_openapi(struct api_call *call);
void rest_doctor(struct api_call *call);

/* gateway.c, for api/rest/invocations.c: calls the function as `trigger` says. */
void gateway_call(struct api_call *call, enum sched_trigger trigger, const char *function,
                  const char *qualifier, const char *target);

/* gateway.c: calls the function at whose own port the exchange came in. */
void gateway_own_port(struct api_call *call, const struct http_pin *pin);

/* api/rest/tags.c, for api/rest/images.c: gives each image of `answer` (an image or a page of images; the
 * reference is taken, NULL becomes a 500) its "tags", and ends the call with it. */
void tags_reply(struct api_call *call, unsigned status, json_t *answer);

#endif
