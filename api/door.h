/* door.h - the ports of functions' own: what comes in there is served by one function.
 *
 *     client ───── port that a function publishes ──┐        ┌── interface tcp: a call whose bytes are
 *                                                   ├── pin ─┤   those of the connection (door_stream.c)
 *     function ── NAME.internal:PORT (dial.h) ──────┘        └── else: HTTP, the whole path is the
 *                                                                function's own (gateway.c)
 *
 * A port is opened, and refused, when its function is about to be deployed (door_reserve); it is served
 * while the function's live version publishes it, and free before whoever changed that is answered. What cannot be opened later (at the start of unid, after
 * a rollback) is logged, shown in the function's JSON, and tried again.
 *
 *     (none) ── reserve ──> held ── deployed ──> served ── another version, removed ──> (none)
 *                             └──── not deployed ──────────────────────────────────────> (none)
 *
 * For api/ only. Loop thread.
 */
#ifndef UNID_API_DOOR_H
#define UNID_API_DOOR_H

#include <jansson.h>

#include "api/call.h"

struct door;
/* Gives the door (door_close); private names of functions are served from now on. -ENOMEM. */
int door_open(struct api *a, struct door **ret, struct un_error *err);
/* Opens what live functions publish; `done` comes once, from the loop. */
void door_open_ports(struct door *d, void (*done)(void *arg), void *arg);

/* Opens what a version that is about to be deployed publishes beyond what its function holds. Each
 * success is ended by door_settle. -EADDRINUSE, -EACCES, ...: one cannot be opened, with its name and who
 * has it; nothing is held then. */
int door_reserve(struct door *d, const char *function, char *const *publish, struct un_error *err);
/* The deploy is over. What its version publishes, if it made one, is served by now. */
void door_settle(struct door *d, const char *function, char *const *publish);

/* [{"address": "127.0.0.1:5432", "error": null or text}] of a function; NULL when out of memory. */
json_t *door_ports_json(const struct door *d, const char *function);

/* Adds what `doctor` says of ports that cannot be opened: {"check", "status", "detail", "fix"}. */
void door_add_findings(const struct door *d, json_t *findings);

struct door_stats {
    unsigned ports, failed, connections; /* `failed`: of the ports, those that cannot be opened */
};
void door_get_stats(const struct door *d, struct door_stats *ret);

/* No new connections of clients; those on which nothing moves are ended, those of functions stay until
 * their callers end. */
void door_drain(struct door *d);
/* Closes all ports. */
void door_stop_accepting(struct door *d);
/* Cuts all connections. NULL is allowed. */
void door_close(struct door *d);

#endif
