/* async_support.h - what the durable queue's tests share: submitting and waiting, in a world. */
#ifndef UNID_TESTS_ASYNC_SUPPORT_H
#define UNID_TESTS_ASYNC_SUPPORT_H

#include "sched_world.h"

enum { ACCEPTED_MOST = 64 };

struct accepted {
    int rc;
    unsigned answers;
    size_t count;
    struct async_accepted list[ACCEPTED_MOST];
    char text[256]; /* of the error */
};

/* Submits and waits for the answer. One that asks whether the function exists; several, or one that
 * does not ask. */
struct accepted submit_spec(struct world *w, const struct async_spec *spec);
struct accepted submit_many(struct world *w, const struct async_spec *specs, size_t count);
/* A text/plain body. */
struct accepted submit(struct world *w, const char *function, const void *body, size_t len);

bool is_pending(struct world *w, const char *id);
/* Lets time pass until nothing waits and nothing runs; fails when that takes more than `us`. */
void settle(struct world *w, uint64_t us);
/* Lets `us` pass in small steps, with the database's answers in between. */
void pass_time(struct world *w, uint64_t us);
struct async_stats queue_stats(struct world *w);

/* Copies of dead letters, newest first. */
struct letters {
    int rc;
    bool answered;
    size_t count;
    struct {
        char id[UN_ID_SIZE], function[64], trigger[64], reason[256], outcome[24], url[128];
        char fields[1024], body[256], content_type[64];
        size_t body_len;
        unsigned attempts;
    } list[ACCEPTED_MOST];
};
struct letters letters(struct world *w, const struct deadletter_query *query);
struct letters letter(struct world *w, const char *id); /* one, with its body */

struct changed {
    int rc;
    bool answered;
    uint64_t count;
};
struct changed redrive(struct world *w, const char *id);
struct changed redrive_all(struct world *w, const struct deadletter_query *query);
struct changed remove_all(struct world *w, const struct deadletter_query *query);
struct changed remove_letter(struct world *w, const char *id);

/* How many receipts an invocation has with this outcome (NULL: any), of the newest 1000. */
unsigned receipts_of(struct world *w, const char *id, const char *outcome);

/* Runs SQL statements in the database, as a killed process would have left it. */
void run_sql(struct world *w, const char *sql);
int64_t read_sql(struct world *w, const char *sql);

#endif
