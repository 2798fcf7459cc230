/* async_impl.h - what the files of the durable queue share. Nobody else includes it.
 *
 * Where things are: async.c accepting, event.c an event and its rows, recent.c
 * identities and sequencers seen, claim.c which event comes next and
 * lane.c who may have how many places, run.c attempts,
 * deliver.c those that are an HTTP request, end.c what becomes of an event after one,
 * policy.c the rules, deadletter.c the list of what was given up.
 *
 * Two tables share their key: async_queue has what changes (state, attempts, due time), small and
 * indexed by state, so that a claim among a million waiting events costs what it costs among ten;
 * async_events has what stays, the body above all, written once and read once an attempt.
 */
#ifndef UNID_SCHEDULER_ASYNC_ASYNC_IMPL_H
#define UNID_SCHEDULER_ASYNC_ASYNC_IMPL_H

#include "common/bytes.h"
#include "scheduler/async/async.h"
#include "scheduler/async/policy.h"
#include "scheduler/scheduler_impl.h"

/* The column async_queue.state. READY and DELAYED wait, DELAYED for its due time; RUNNING was
 * claimed; DEAD waits for a person. */
enum async_state { ASYNC_READY, ASYNC_RUNNING, ASYNC_DELAYED, ASYNC_DEAD };

/* --- an event, in memory from its acceptance to its row, and from its claim to its end -------- */

struct async_event {
    char id[UN_ID_SIZE];
    int64_t seq;                                   /* of its rows; 0: none yet */
    char *function, *qualifier, *trigger;          /* qualifier and trigger may be NULL */
    char *url;                                     /* an HTTP destination's, or NULL */
    char *content_type, *fields;                   /* "name: value\r\n" each; both may be NULL */
    char *on_success, *on_failure, *source, *sink; /* or NULL */
    struct async_policy policy;
    unsigned depth;
    uint64_t source_bytes;
    void *body;
    size_t body_len;
    uint64_t accepted_us, due_us;
    unsigned attempt, failures, interruptions;
    bool out_of_order;
};
/* Functions take turns by their names; HTTP destinations, behind '~', by their authority. */
enum { ASYNC_LANE_SIZE = 320 };
#define ASYNC_LANE_URL "~"
void async_event_lane(const struct async_event *e, char ret[ASYNC_LANE_SIZE]);
/* Memory that an attempt takes besides the struct. */
uint64_t async_event_cost(const struct async_event *e);

/* Copies a spec. -EINVAL, -E2BIG with what is wrong, -ENOMEM. */
int async_event_new(const struct async_spec *spec, struct async_event **ret, struct un_error *err);
void async_event_free(struct async_event *e);

/* Store threads. Inserts both rows: READY or, with a due time behind `now_us`, DELAYED; with a
 * reason DEAD. Sets seq. */
int async_event_insert(sqlite3 *db, struct async_event *e, uint64_t now_us, const char *reason,
                       struct un_error *err);
/* Reads both rows. -ENOENT. */
int async_event_read(sqlite3 *db, int64_t seq, struct async_event **ret, struct un_error *err);
int async_event_delete(sqlite3 *db, int64_t seq, struct un_error *err);
/* The copy of a column's text, NULL for NULL. `failed` is set when memory lacks, else untouched. */
char *async_column_text(sqlite3_stmt *stmt, int column, bool *failed);

/* --- identities and sequencers seen lately ---------------------------------------------------- */

/* The table async_recent, in order of arrival, and where in it a key is: an index in memory, since
 * one on disk would write a page at a random place for each event. The index only hints: the row
 * decides, so that it needs no undoing when a transaction fails. Store's writer thread. */
struct async_recent {
    bool loaded;
    uint32_t *slots; /* pairs: fingerprint, low half of the row's seq; fingerprint 0: free */
    size_t capacity; /* of pairs, a power of two, or 0 */
    size_t used;
    int64_t newest; /* seq of the last row */
};
enum { ASYNC_KEY_BYTES = 16 };
struct async_key {
    bool set;
    uint8_t bytes[ASYNC_KEY_BYTES];
};
/* SHA-256 of the parts (NULL is ""), cut. -ENOMEM. */
int async_key_make(struct async_key *ret, const char *kind, const char *const parts[3],
                   struct un_error *err);
void async_recent_done(struct async_recent *r);
/* 1 and the value when the key is known and not expired at `now_us`; 0; negative errno. */
int async_recent_find(struct async_recent *r, sqlite3 *db, const struct async_key *key,
                      uint64_t now_us, char *ret_value, size_t size, struct un_error *err);
/* Adds the key, or changes its value. Removes the oldest ones that are expired or too many. */
int async_recent_put(struct async_recent *r, sqlite3 *db, const struct async_key *key,
                     const char *value, uint64_t now_us, uint64_t expires_us, struct un_error *err);

/* --- attempts --------------------------------------------------------------------------------- */

enum {
    ASYNC_LANE_UNKNOWN = 1, /* places of a function whose concurrency is not known yet */
    ASYNC_LANES_KEPT = 32,  /* without a place, for what is known of them */
    ASYNC_DELIVERIES = 8    /* to HTTP destinations, at once */
};

/* A lane that holds places, or did lately; lane.c. */
struct async_lane {
    struct un_list node; /* in async.lanes, or without places in async.idle_lanes */
    char name[ASYNC_LANE_SIZE];
    unsigned held;
    unsigned most; /* its function's concurrency, as far as known */
};

static inline bool async_lane_delivers(const char *lane)
{
    return lane[0] == ASYNC_LANE_URL[0];
}
/* The event's lane, with a place more. NULL: out of memory. */
struct async_lane *async_lane_get(struct scheduler *s, const struct async_event *e);
void async_lane_put(struct scheduler *s, struct async_lane *l);
void async_lanes_done(struct scheduler *s);

/* One attempt: from the claim to its end. */
struct async_entry {
    struct un_list node; /* in async.entries */
    struct scheduler *s;
    struct async_event *event;
    struct async_lane *lane;
    uint64_t cost;
    struct sched_call *call; /* while the function runs */
    struct async_step step;  /* first: async_step_done is given its address */
    bool in_step, putting;
    struct async_body fetched;
    size_t body_at;

    unsigned status; /* of the answer */
    char *answer_type;
    struct un_buf answer; /* kept when there is a destination or a sink */
    bool answer_too_large;
    struct record *record; /* held while put() works */
    struct async_delivery *delivery;
};
/* Begins the attempt; what it takes is taken. */
void async_entry_run(struct async_entry *e);
/* An HTTP destination's; ends with async_entry_finish. */
void async_deliver(struct async_entry *e);
void async_deliver_done(struct scheduler *s);

/* What an attempt came to. */
struct async_ending {
    enum async_judgement judgement;
    const char *outcome; /* for the receipt; NULL: it has its own */
    unsigned status;
    const char *why; /* one sentence; NULL when done */
};
/* Ends the attempt. `record`: of its call, on its way to the writer already, or NULL: one is made. */
void async_entry_finish(struct async_entry *e, struct record *record,
                        const struct async_ending *ending);
/* "async", "event" or "destination", for its receipts. */
enum sched_trigger async_event_kind(const struct async_event *e);
/* Removes the oldest dead letters. deadletter.c */
void deadletter_prune(struct scheduler *s);
/* Gives the entry's place back and frees it. claim.c */
void async_entry_release(struct async_entry *e);

#endif
