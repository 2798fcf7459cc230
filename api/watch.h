/* watch.h - GET /api/v1/watch: what changes, as server-sent events (WHATWG HTML, "Server-sent events"),
 * each with an id to come back with. For api/ only; docs/operations.md says it for people.
 *
 * All events go through one ring of bounded length and size. A client has a place in it, and is sent
 * what lies behind as fast as it reads; what has left the ring meanwhile it is told of by count, in an
 * event "overflow". So a client costs its connection's buffer and a place, however slow it is. The ring
 * is filled only while somebody watches, and for a while after the last one has left; events are
 * counted always.
 */
#ifndef UNID_API_WATCH_H
#define UNID_API_WATCH_H

#include <jansson.h>

#include "api/call.h"

enum watch_kind {
    WATCH_FUNCTION,
    WATCH_INVOCATION,
    WATCH_INSTANCE,
    WATCH_TRIGGER,
    WATCH_DEADLETTER,
    WATCH_IMAGE,
    WATCH_KINDS
};

struct watch;
/* Observes the scheduler until watch_close. NULL when out of memory. */
struct watch *watch_open(struct api *a);
/* Ends the streams of all clients. */
void watch_drain(struct watch *w);
/* The clients are gone. NULL is allowed. */
void watch_close(struct watch *w);

/* Whether somebody would see an event, so that it is worth to be made. Counts it otherwise. */
bool watch_wanted(struct watch *w, enum watch_kind kind);
/* Sends `data` (the reference is taken; NULL: out of memory, it is counted as missed) with "change"
 * and "at" added. */
void watch_tell(struct watch *w, enum watch_kind kind, const char *change, json_t *data);

/* The clients, and what they have missed in all. */
struct watch_stats {
    unsigned clients;
    uint64_t events, missed;
};
void watch_get_stats(const struct watch *w, struct watch_stats *ret);

/* For the REST handlers: {"function": name, "version": v} and the like. */
void watch_function(struct api *a, const char *change, const char *name, uint32_t version,
                    const char *alias);
void watch_image(struct api *a, const char *change, const char *digest, const char *tag);
void watch_trigger(struct api *a, const char *change, const char *name);

#endif
