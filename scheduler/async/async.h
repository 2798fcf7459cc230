/* async.h - work that is accepted now and run later: the durable queue.
 *
 * REST's async invocations, the events of triggers, and what destinations get all go this way:
 *
 *     async_submit -> [deduplicate, put in order] -> committed -> told to the caller
 *                  -> READY -> claimed (durable) -> fetch -> run -> put -> done: leaves the queue
 *                       ^                                          |
 *                       +---- DELAYED <--- failed, try again ------+--- given up ---> DEAD
 *
 * An accepted event is committed with fsync before its caller is told, and is in the queue until an
 * attempt has succeeded or it is given up; then it is a dead letter, with its body and the reason,
 * until somebody redrives or removes it. Each attempt leaves a receipt, written in the transaction
 * that moves the event on. What was claimed when unid was killed gets a receipt with the outcome
 * "interrupted" at the next start and runs again: at least once, and never twice without a record.
 *
 * What counts as success, as a failure to be tried again, and as one for good is async_judge
 * (policy.h); docs/events.md says it for people. Functions take turns, and one that is slow
 * cannot take all places (claim.c). Everything here is for the loop thread; callbacks come
 * from it, once, never inside the call that asked (but where memory lacks even for a request: then
 * at once, with -ENOMEM).
 */
#ifndef UNID_SCHEDULER_ASYNC_ASYNC_H
#define UNID_SCHEDULER_ASYNC_ASYNC_H

#include "scheduler/scheduler.h"

/* --- accepting -------------------------------------------------------------------------------- */

/* What to do with an event whose sequencer is below one that was accepted for the same key. */
enum async_order {
    ASYNC_ORDER_NONE,
    ASYNC_ORDER_FLAG, /* it runs, with the request field X-Unid-Out-Of-Order: 1 */
    ASYNC_ORDER_DROP  /* it is answered as ASYNC_STALE and not queued */
};

/* All is borrowed until the call returns. NULL and 0 mean "none" where nothing else is said. */
struct async_spec {
    const char *function, *qualifier;
    const char *trigger;           /* name of the trigger that the event came by */
    const struct hv_field *fields; /* of the request, besides content-type; no control characters.
                                    * Together at most LIMIT_ASYNC_FIELDS_BYTES */
    size_t field_count;
    const char *content_type;
    const void *body; /* at most LIMIT_ASYNC_BODY_BYTES */
    size_t body_len;

    /* The event's identity within `dedupe_scope` (NULL: the function), of any length; only its hash
     * is kept, for dedupe_window_ms (0: the default) and as long as LIMIT_ASYNC_RECENT newer ones
     * have not come. */
    const char *dedupe_key, *dedupe_scope;
    uint64_t dedupe_window_ms;

    /* Sequencers of one order_key are compared as S3 says: the shorter one filled up with '0' on the
     * right, then bytewise. (Decimal numbers have to be brought to one length by the caller.) The
     * scope is the function and the trigger. Remembered like identities, for the same window. */
    enum async_order order;
    const char *order_key, *sequencer; /* sequencer: at most LIMIT_ASYNC_SEQUENCER_BYTES */

    struct async_policy policy;
    /* A function's name ("thumbs", "thumbs:stable") or an http:// or https:// URL. Success: gets the
     * answer's body. Failure: gets the event when it is given up. */
    const char *on_success, *on_failure;
    unsigned depth;  /* destinations passed so far; X-Unid-Depth of the request that came in */
    uint64_t due_us; /* wall clock (async_now_us); 0: now */

    /* For the hooks below; opaque here, at most LIMIT_ASYNC_SOURCE_BYTES each. */
    const char *source;    /* fetch() brings the body of each attempt */
    const char *sink;      /* put() stores the answer's body of an attempt that succeeded */
    uint64_t source_bytes; /* how much fetch() will bring, when known; for the account of memory */
};

enum async_result {
    ASYNC_ACCEPTED,
    ASYNC_DUPLICATE, /* known by its identity; `id` is the first one's */
    ASYNC_STALE      /* out of order, and its spec says to drop it; `id` is "" */
};
const char *async_result_name(enum async_result r); /* "accepted", "duplicate", "stale" */

struct async_accepted {
    enum async_result result;
    char id[UN_ID_SIZE]; /* of the invocation */
};

/* With rc 0, list[i] is what became of specs[i], and all that is accepted is on disk. Else nothing
 * of the delivery is: -EINVAL or -E2BIG a malformed spec, -ENOENT (async_submit only) no such
 * function, -ENOSPC the disk or the queue (LIMIT_ASYNC_ROWS) is full, -EAGAIN more is on
 * its way to the disk than memory is for (LIMIT_ASYNC_ACCEPTING_BYTES), -EROFS, -EUCLEAN or -EIO the
 * database, -ENOMEM. `list` is borrowed. */
typedef void (*async_accept_cb)(void *arg, int rc, const struct async_accepted *list, size_t count,
                                const struct un_error *err);

/* One event, for a function that exists (-ENOENT). */
void async_submit(struct scheduler *s, const struct async_spec *spec, async_accept_cb cb,
                  void *arg);

/* The events of one delivery, at most LIMIT_ASYNC_BATCH: committed together or not at all. Whether
 * the functions exist is not asked: what finds none when it runs becomes a dead letter. */
void async_submit_many(struct scheduler *s, const struct async_spec *specs, size_t count,
                       async_accept_cb cb, void *arg);

/* What an event with this policy is held to: what it does not say is as the settings say. */
struct async_policy async_policy_in_effect(const struct scheduler *s,
                                           const struct async_policy *wanted);

/* The wall clock of the queue's due times: it does not jump while the daemon runs. */
uint64_t async_now_us(const struct scheduler *s);

/* What is known of an accepted invocation that has no receipt yet: true while it waits or runs. */
typedef void (*async_pending_cb)(void *arg, bool pending);
void async_pending(struct scheduler *s, const char *id, async_pending_cb cb, void *arg);

/* --- hooks: bytes from elsewhere, and to elsewhere -------------------------------------------- */

/* How a step of an attempt ended. */
enum async_verdict {
    ASYNC_SUCCESS,
    ASYNC_RETRY,  /* the attempt failed; it is tried again as the policy says */
    ASYNC_GIVE_UP /* the attempt failed, and another would too: a dead letter */
};

/* One step of one attempt. Borrowed until async_step_done, which ends it. */
struct async_step {
    const char *id, *function, *trigger; /* trigger may be NULL */
    unsigned attempt;
    const char *locator; /* the spec's source or sink */
    /* fetch: the event's body; put: the answer's, complete, at most LIMIT_ASYNC_ANSWER_BYTES */
    const char *content_type; /* or NULL */
    const void *body;
    size_t body_len;
    void *hook_data; /* the hook's own */
};

/* The body that fetch() brought, in memory from malloc; taken. */
struct async_body {
    char *content_type; /* or NULL */
    void *data;
    size_t len; /* at most LIMIT_ASYNC_OBJECT_BYTES */
};

/* Ends a step; never from inside the hook. `body` (fetch with success only, else NULL) is taken. `why`
 * is one sentence for the receipt and the dead letter, NULL with success. */
void async_step_done(struct async_step *step, enum async_verdict verdict, const char *why,
                     struct async_body *body);

/* Set by the events module once, before events arrive. Each step that was begun has to be ended, also
 * when the daemon stops: sched_close waits for them. */
struct async_hooks {
    void (*fetch)(void *arg, struct async_step *step);
    void (*put)(void *arg, struct async_step *step);
    void *arg;
};
void async_set_hooks(struct scheduler *s, const struct async_hooks *hooks); /* copied */

/* --- dead letters ----------------------------------------------------------------------------- */

struct deadletter {
    char id[UN_ID_SIZE];
    const char *function, *qualifier; /* qualifier, trigger, url may be NULL */
    const char *trigger;
    const char *url; /* a delivery to an HTTP destination; `function` is where it came from */
    const char *reason;
    const char *outcome; /* of the last attempt: as in its receipt */
    unsigned attempts;
    uint64_t accepted_at_us, died_at_us; /* wall clock */
    const char *content_type;            /* or NULL */
    const char *fields;                  /* "name: value\r\n" each; "" when there are none */
    const void *body;                    /* NULL in lists */
    size_t body_len;
};

struct deadletter_query {
    const char *function, *trigger; /* NULL: any */
    const char *before_id;          /* accepted before this one; NULL: from the newest */
    unsigned limit;                 /* at most LIMIT_PAGE_ITEMS */
};

typedef void (*deadletter_list_cb)(void *arg, int rc, const struct deadletter *list, size_t count,
                                   const struct un_error *err);
/* Newest first, without bodies. */
void deadletter_list(struct scheduler *s, const struct deadletter_query *query,
                     deadletter_list_cb cb, void *arg);
/* One with its body; -ENOENT. */
void deadletter_get(struct scheduler *s, const char *id, deadletter_list_cb cb, void *arg);

/* -ENOENT when `id` is no dead letter. `count` is how many were moved or removed. */
typedef void (*deadletter_cb)(void *arg, int rc, uint64_t count, const struct un_error *err);
/* Back into the queue: due now, with its attempts and its age counted anew; same id. */
void deadletter_redrive(struct scheduler *s, const char *id, deadletter_cb cb, void *arg);
/* All that the query names (its before_id and limit are not looked at), however many. */
void deadletter_redrive_all(struct scheduler *s, const struct deadletter_query *query,
                            deadletter_cb cb, void *arg);
void deadletter_remove(struct scheduler *s, const char *id, deadletter_cb cb, void *arg);
/* Likewise all that the query names. */
void deadletter_remove_all(struct scheduler *s, const struct deadletter_query *query,
                           deadletter_cb cb, void *arg);

/* --- numbers ---------------------------------------------------------------------------------- */

struct async_stats {
    uint64_t waiting; /* accepted and neither running nor dead */
    unsigned running;
    uint64_t dead;
    /* since the start */
    uint64_t accepted, duplicates, stale, retries, interrupted, given_up;
};
void async_get_stats(const struct scheduler *s, struct async_stats *ret);

#endif
