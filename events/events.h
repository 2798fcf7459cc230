/* events.h - triggers, and the way of an event from whoever sends it to the durable queue.
 *
 *     api/events.c ---- s3.c, cloudevents.c, dynamodb.c ----> struct event
 *     timer.c (cron) --------------------------------------> struct event
 *         -> which triggers want it (filter.c) -> one entry a function (intake.c)
 *         -> async_submit_many -> committed, or known already -> the sender is told
 *
 * A delivery is one transaction: all of its events for all functions of all triggers are accepted
 * or none is. When an entry runs, object.c may fetch its object and put what the function made of
 * it.
 *
 * Triggers are held in memory; a change is in the database before it is told. Loop thread
 * throughout.
 */
#ifndef UNID_EVENTS_EVENTS_H
#define UNID_EVENTS_EVENTS_H

#include "common/loop.h"
#include "events/config.h"
#include "events/event.h"
#include "imagestore/function.h"
#include "scheduler/async/async.h"
#include "store/store.h"

struct events;
extern const struct store_schema events_schema;

struct events_spec {
    struct un_loop *loop; /* all kept until events_close */
    struct store *store;  /* opened with events_schema among its schemas */
    struct registry *registry;
    struct scheduler *scheduler; /* kept until events_drain and its queue's last step */
};

/* Reads the triggers (blocking), hooks itself into the durable queue, starts the clocks of cron
 * triggers. */
int events_open(const struct events_spec *spec, struct events **ret, struct un_error *err);
/* Cron stands still, transfers of objects end soon. Before sched_close. */
void events_drain(struct events *ev);
/* After sched_close. NULL is allowed. What is under way in the store ends with it. */
void events_close(struct events *ev);

/* --- triggers --------------------------------------------------------------------------------- */

enum { TRIGGER_TOKEN_SIZE = 44, TRIGGER_HASH_BYTES = 32 };

/* A topic of SNS that asked to be confirmed. */
struct trigger_topic {
    char *arn, *url, *error;            /* error: of the last attempt to confirm, or NULL */
    uint64_t received_us, confirmed_us; /* confirmed_us 0: not yet */
};

struct trigger {
    char name[64];
    uint64_t id; /* of the row; never used again */
    struct trigger_config config;
    unsigned char token_hash[TRIGGER_HASH_BYTES]; /* SHA-256; not of cron triggers */
    uint64_t created_us, changed_us;
    struct trigger_topic *topics; /* oldest first */
    size_t topic_count;
    uint64_t accepted, duplicates, stale, filtered; /* since the start */
    /* timer.c */
    struct events *events;
    struct un_timer timer;
    int64_t last_s; /* the last planned time that was dealt with */
    bool firing;
};

/* NULL when there is none; borrowed until control returns to the loop. */
struct trigger *trigger_find(struct events *ev, const char *name);
/* By name, behind `after` (NULL: from the start); NULL behind the last. */
struct trigger *trigger_after(struct events *ev, const char *after);
/* Everything about it but its secrets. NULL: no memory. */
json_t *trigger_json(const struct trigger *t);

/* Whether this is its token; takes as long for a wrong one. */
bool trigger_token_is(const struct trigger *t, const char *token);
/* The trigger whose token this is, of any but cron; NULL. */
struct trigger *trigger_by_token(struct events *ev, const char *token);

/* `token` is the new trigger's, to be shown once; NULL when it was there already (its token is
 * what it was, unless the caller gave one), and for cron. */
typedef void (*trigger_put_cb)(void *arg, int rc, const struct trigger *t, bool created,
                               const char *token, const struct un_error *err);
/* Makes or replaces one. `body`: trigger_config_parse's JSON, and "token" (16 to 128 printable
 * ASCII characters) if the caller wants to choose it; borrowed. -EINVAL; -ENOTSUP a function that
 * is not there; -ENOSPC too many. */
void trigger_put(struct events *ev, const char *name, const json_t *body, trigger_put_cb cb,
                 void *arg);
typedef void (*trigger_done_cb)(void *arg, int rc, const struct un_error *err);
/* -ENOENT. Its events that are in the queue already still run. */
void trigger_remove(struct events *ev, const char *name, trigger_done_cb cb, void *arg);

/* --- intake ----------------------------------------------------------------------------------- */

enum intake_result {
    INTAKE_ACCEPTED, /* counted an invocation, as duplicates and stale ones */
    INTAKE_DUPLICATE,
    INTAKE_STALE,
    INTAKE_UNMATCHED, /* counted an event: no trigger wants it */
    INTAKE_REFUSED,   /* counted a delivery: malformed, too large, or without the right token */
    INTAKE_FAILED,    /* counted a delivery: could not be kept; the sender was told */
    INTAKE_RESULTS
};
const char *intake_result_name(enum intake_result r); /* "accepted", ... */

enum intake_source {
    INTAKE_AWS,
    INTAKE_MINIO,
    INTAKE_CEPH,
    INTAKE_S3, /* another object store, or none of them is known yet */
    INTAKE_CLOUDEVENTS,
    INTAKE_DYNAMODB,
    INTAKE_CRON,
    INTAKE_OTHER, /* /events, when it was nothing of the kind */
    INTAKE_SOURCES
};
const char *intake_source_name(enum intake_source s);

/* Since the start; for the metrics. */
struct events_stats {
    uint64_t counts[INTAKE_SOURCES][INTAKE_RESULTS];
    unsigned triggers[EVENT_KINDS];
    uint64_t fetched, put, fetch_failed, put_failed, fetched_bytes, put_bytes;
};
void events_get_stats(const struct events *ev, struct events_stats *ret);
/* For deliveries that were refused before they came here. */
void events_count(struct events *ev, enum intake_source source, enum intake_result result);

struct intake_report {
    unsigned events;  /* in the delivery */
    unsigned matched; /* of them that at least one trigger wants */
    unsigned accepted, duplicates, stale;
    const struct async_accepted *list; /* an entry an invocation; borrowed */
    size_t count;
};
typedef void (*intake_cb)(void *arg, int rc, const struct intake_report *report,
                          const struct un_error *err);

/* Gives the events to the trigger of this name, or with NULL to all of the events' kinds, as their
 * filters say, and calls `cb` when that is on disk. `events` is borrowed during the call. Disabled
 * triggers want nothing. `depth`: as async.h has it. -E2BIG more than LIMIT_ASYNC_BATCH
 * invocations; else as async_submit_many. */
void intake_submit(struct events *ev, const struct event_list *events, const char *trigger,
                   unsigned depth, intake_cb cb, void *arg);

/* --- SNS -------------------------------------------------------------------------------------- */

/* Remembers that a topic asks; `cb` comes when that is on disk. When the trigger says so the
 * address is asked then, which is noted with the topic; -EACCES when it may not be, because of its
 * host. -ENOENT no such trigger. */
void sns_subscribe(struct events *ev, const char *trigger, const char *topic_arn, const char *url,
                   trigger_done_cb cb, void *arg);

#endif
