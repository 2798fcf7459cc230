/* receipt.h - what is written down of each invocation, and its log.
 *
 * Receipts and logs are written in batches off the loop. They are bounded in number and age. A
 * receipt that has not reached the disk when unid is killed is lost; the durable record of accepted
 * work is the async queue (async.h), not the receipt.
 */
#ifndef UNID_SCHEDULER_RECORD_RECEIPT_H
#define UNID_SCHEDULER_RECORD_RECEIPT_H

#include "scheduler/egress/egress.h"
#include "scheduler/scheduler.h"

struct receipt {
    char id[UN_ID_SIZE];
    char function[64];
    uint32_t version; /* 0: the function was not found */
    char digest[IMAGE_DIGEST_SIZE];
    enum sched_trigger trigger;
    char replay_of[UN_ID_SIZE]; /* the invocation whose request was run again, or "" */
    char trigger_name[64];      /* of the trigger that the event came by, or "" */
    char driver[16];
    uint64_t started_at_us; /* wall clock */
    struct sched_phases phases;
    bool fresh;
    uint64_t bytes_in, bytes_out;
    struct hv_usage usage; /* its report: system calls, and those that are not there, by number */
    struct hv_egress egress;
    char exit_reason[16]; /* hv_exit_name, or "" */
    unsigned status;      /* as HTTP tells it: 200, 429, 502, ... */
    unsigned attempt;
    char outcome[24]; /* sched_outcome_name */
    char error[256];
};

struct receipt_query {
    const char *function;    /* NULL: any */
    const char *trigger;     /* a trigger's name, or NULL */
    const char *outcome;     /* "ok", "failed" (any but ok), an outcome's name, or NULL */
    unsigned status;         /* as HTTP tells it; 0: any */
    uint64_t since_us;       /* wall clock: accepted then or later; 0: any */
    const char *before_id;   /* older than this one; NULL: from the newest */
    unsigned before_attempt; /* and the attempts of that one before this; 0: none */
    unsigned limit;          /* at most LIMIT_PAGE_ITEMS */
};

typedef void (*receipt_list_cb)(void *arg, int rc, const struct receipt *list, size_t count,
                                const struct un_error *err);
/* Newest first. Includes what is not on disk yet. */
void receipt_list(struct scheduler *s, const struct receipt_query *query, receipt_list_cb cb,
                  void *arg);
/* One; -ENOENT. `count` is 1. */
void receipt_get(struct scheduler *s, const char *id, receipt_list_cb cb, void *arg);

/* --- logs: what guests wrote to their console, a record per invocation and piece -------------- */

struct log_line {
    uint64_t at_us;                 /* wall clock */
    char invocation_id[UN_ID_SIZE]; /* "": of a machine that serves many */
    const char *text;               /* one line, valid UTF-8, without the newline */
};
typedef void (*log_list_cb)(void *arg, int rc, const struct log_line *list, size_t count,
                            const struct un_error *err);
/* The last `limit` lines of a function, oldest first. */
void log_list(struct scheduler *s, const char *function, unsigned limit, log_list_cb cb, void *arg);

/* Calls `fn` (loop thread) for each new line until log_unfollow. */
struct log_follower;
struct log_follower *log_follow(struct scheduler *s, const char *function,
                                void (*fn)(void *arg, const struct log_line *line), void *arg);
void log_unfollow(struct log_follower *f);

#endif
