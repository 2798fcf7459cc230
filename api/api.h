/* api.h - what the daemon wires up: the HTTP interface of unid.
 *
 * Requests come from listeners (http/server.h), go through one table of routes (routes.c), and end
 * in a handler: the gateway (gateway.c) for calls of functions, rest/ for the rest. What the
 * interface looks like from outside is told by docs/openapi.yaml, which a test holds against the
 * table.
 *
 * To add a route: a row in routes.c, its handler in rest/, its description in
 * docs/openapi.yaml.
 *
 * This folder keeps no state of its own but running requests. Loop thread throughout.
 */
#ifndef UNID_API_API_H
#define UNID_API_API_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/http/server.h"
#include "common/error.h"
#include "common/loop.h"
#include "events/events.h"
#include "imagestore/function.h"
#include "imagestore/image.h"
#include "scheduler/scheduler.h"

struct api_settings {
    struct http_limits http;
    uint64_t max_request_bytes; /* body of a call of a function */
    uint64_t max_image_bytes;
    const char *token; /* over TCP, REST needs "Authorization: Bearer <token>"; NULL: nothing */
    const char *const *hosts; /* names that a Host field may have beside IP addresses and localhost;
                               * NULL-terminated, or NULL */
};
void api_settings_init(struct api_settings *s); /* the defaults of common/limits.h */

struct api_spec {
    struct un_loop *loop; /* all kept until api_close */
    struct scheduler *scheduler;
    struct imagestore *images;
    struct registry *registry;
    struct events *events;        /* NULL: there are no triggers */
    struct store *store;          /* for the metrics; NULL is allowed */
    const char *version;          /* of unid */
    const char *driver;           /* its name */
    struct api_settings settings; /* copied, its strings too */
    /* Whether calls of functions can be served now; if not, `*ret_why` says why. NULL: always. */
    bool (*is_ready)(void *arg, const char **ret_why);
    void *arg;
    /* Answers GET /api/v1/doctor: calls `cb` once, from the loop, with a borrowed report, or with
     * NULL.
     * Must not outlive api_close. NULL: there is no such report. */
    void (*doctor)(void *doctor_arg, void (*cb)(void *arg, const json_t *report), void *arg);
    void *doctor_arg;
};

struct api;

int api_open(const struct api_spec *spec, struct api **ret, struct un_error *err);

/* May be called several times. See http_server_listen_*: port 0 is allowed, `ret_port` may be NULL.
 */
int api_listen_tcp(struct api *a, const char *address, uint16_t *ret_port, struct un_error *err);
int api_listen_unix(struct api *a, const char *path, unsigned mode, struct un_error *err);

/* Opens the ports that functions publish; `done` comes once, from the loop, when that was tried. */
void api_open_ports(struct api *a, void (*done)(void *arg), void *arg);

/* Draining, together with sched_drain. From now on readyz says no, and connections are closed after
 * their current answer; idle ones at once, unless a request has come already; the streams of
 * followed logs end. Listeners stay open: who connects is told 503 by the scheduler. */
void api_drain(struct api *a);
/* Closes the listeners; connections go on. */
void api_stop_accepting(struct api *a);
/* How many connections there are: when 0, everything that was answered has left. */
unsigned api_connections(const struct api *a);
/* Cuts what is left. Before sched_close, imagestore_close and registry_close; operations of theirs
 * that are under way must be able to call back until those. NULL is allowed. */
void api_close(struct api *a);

#endif
