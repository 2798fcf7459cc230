/* events_impl.h - what the files of events/ share; nobody else includes it. */
#ifndef UNID_EVENTS_IMPL_H
#define UNID_EVENTS_IMPL_H

#include "common/workers.h"
#include "events/events.h"

enum { TRANSFER_THREADS = 16 };

struct events {
    struct un_loop *loop;
    struct store *store;
    struct registry *registry;
    struct scheduler *scheduler;
    struct un_workers *transfers;
    struct trigger **triggers; /* by name */
    size_t count;
    struct events_stats stats;
    unsigned pending; /* flows under way; the last to end frees a closed one */
    bool draining, closed;
    bool stop; /* read by the transfer threads; atomic */
    /* object.c: steps that not even a refusal could be made for, linked by their hook_data. */
    struct async_step *starved;
    struct un_post starved_post;
};

/* Each flow holds it while a callback may still come. */
void events_hold(struct events *ev);
void events_release(struct events *ev);

/* trigger.c */
void trigger_free(struct trigger *t);
/* `t` takes the place of one of its name, or its own in the order. -ENOMEM. */
int trigger_insert(struct events *ev, struct trigger *t);
struct trigger_topic *trigger_topic_find(struct trigger *t, const char *arn);
/* Finds or makes; the oldest goes when there are too many. NULL: no memory. */
struct trigger_topic *trigger_topic_get(struct trigger *t, const char *arn);

/* trigger_sql.c; store thread, or blocking at the start. */
int trigger_load_all(struct events *ev, struct un_error *err);
/* The random token in base64url, its NUL included. */
void trigger_token_new(char ret[TRIGGER_TOKEN_SIZE]);
int trigger_token_hash(const char *token, unsigned char ret[TRIGGER_HASH_BYTES]);
/* What belongs into the columns `config` and `secret` (NULL: nothing secret). Free. -ENOMEM. */
int trigger_columns(const struct trigger_config *c, char **ret_config, char **ret_secret);

/* timer.c: arms or disarms as the configuration says. */
void trigger_schedule(struct trigger *t);

/* object.c: hooks of the durable queue. */
void object_fetch(void *arg, struct async_step *step);
void object_put(void *arg, struct async_step *step);
/* The queue's `source` and `sink` for an event. Free. -ENOMEM. */
int object_source(const struct event *e, char **ret);
int object_sink(const struct trigger_config *c, const struct event *e, char **ret);

/* transfer.c: one HTTP request on a thread of `transfers`. */
struct transfer_spec {
    const char *method, *url;
    const char *region, *access_key, *secret_key; /* keys NULL: not signed */
    const char *content_type;                     /* with a body; or NULL */
    const void *body;                             /* kept until the end; NULL: none */
    size_t body_len, answer_most;
    uint64_t limit_ms;
};
struct transfer {
    struct un_job job;
    struct events *events;
    struct transfer_spec spec; /* its strings are copies of the transfer's own */
    char *strings[6];
    long status; /* of the answer, when rc is 0 */
    char *content_type;
    struct un_buf answer;
    bool too_large;
    void (*done)(struct transfer *t, int rc, const struct un_error *err);
    void *arg;
};
/* Gives a transfer that transfer_start takes; `spec` is copied, not the body. NULL: no memory. */
struct transfer *transfer_new(struct events *ev, const struct transfer_spec *spec);
/* `done` comes from the loop, then it is freed. rc: 0 an answer came; -EFBIG larger than
 * answer_most; -ECANCELED unid ends; -EIO, -ETIMEDOUT. */
void transfer_start(struct transfer *t);
/* Percent-encodes an object's path as S3 signs it: all but unreserved characters and '/'. Free. */
char *transfer_encode_path(const char *path);

#endif
