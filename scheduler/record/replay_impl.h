/* replay_impl.h - what replay.c, replay_row.c, call.c and receipt.c share. */
#ifndef UNID_SCHEDULER_RECORD_REPLAY_IMPL_H
#define UNID_SCHEDULER_RECORD_REPLAY_IMPL_H

#include <sqlite3.h>

#include "scheduler/record/replay.h"

/* A request and its answer, of a call that runs or of one that has failed. */
struct replay_kept {
    char function[64];
    char *uri, *peer; /* or NULL */
    bool http10;
    struct un_buf head; /* "METHOD TARGET\r\n", then "name: value\r\n" each */
    struct un_buf body;
    struct replay_answer answer;
    uint64_t held; /* bytes that the scheduler has counted for it */
};
void replay_kept_free(struct replay_kept *k);

struct sched_call;
/* Begins to keep a call's request, if the settings say so and there is room; c->kept may stay NULL. */
void replay_begin(struct sched_call *c, const struct sched_call_spec *spec);
void replay_body(struct sched_call *c, const void *data, size_t len);
void replay_response(struct sched_call *c, const struct hv_head *head);
void replay_data(struct sched_call *c, const void *data, size_t len);
/* The call is over and its receipt complete: the record gets it, or it is dropped. */
void replay_end(struct sched_call *c);

/* Starts an answer, goes on with it, closes it. -ENOMEM. */
int replay_answer_head(struct replay_answer *a, const struct hv_head *head);
int replay_answer_add(struct replay_answer *a, const void *data, size_t len, size_t keep,
                      bool hash);
void replay_answer_finish(struct replay_answer *a);

/* --- rows: replay_row.c; store threads --------------------------------------------------------- */

struct replay_retention {
    uint64_t max_bytes, oldest_us; /* wall clock */
};
int replay_row_write(sqlite3 *db, const char *id, const struct replay_kept *k, uint64_t now_us,
                     struct un_error *err);
/* Removes a bounded number of old ones; how many. */
int replay_row_prune(sqlite3 *db, const struct replay_retention *keep, struct un_error *err);
/* Gives one (free with replay_kept_free); -ENOENT. */
int replay_row_read(sqlite3 *db, const char *id, struct replay_kept **ret, struct un_error *err);

#endif
