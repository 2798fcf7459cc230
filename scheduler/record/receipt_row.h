/* receipt_row.h - receipts as rows: the SQL side of receipt.c. Store threads; touches no loop
 * state. */
#ifndef UNID_SCHEDULER_RECORD_RECEIPT_ROW_H
#define UNID_SCHEDULER_RECORD_RECEIPT_ROW_H

#include "scheduler/record/receipt.h"

struct receipt_filter {
    char function[64], trigger[64]; /* "": any */
    char outcome[24];
    unsigned status;           /* 0: any */
    char since_id[UN_ID_SIZE]; /* this one or younger; "": any */
    char before_id[UN_ID_SIZE];
    unsigned before_attempt;
    char id[UN_ID_SIZE]; /* this one only; its last attempt comes first */
    unsigned limit;
};
bool receipt_filter_matches(const struct receipt_filter *f, const struct receipt *r);

/* A growable array; `items` is released with free(). */
struct receipt_list {
    struct receipt *items;
    size_t count, cap;
};
int receipt_list_add(struct receipt_list *l, const struct receipt *r);
/* Sorts newest first, drops doubles (same invocation and attempt) and what exceeds `limit`. */
void receipt_list_tidy(struct receipt_list *l, size_t limit);

int receipt_row_insert_begin(sqlite3 *db, sqlite3_stmt **ret, struct un_error *err);
/* 1 when the row was added, 0 when it was there already. The batch's receipt_row_prune counts it. */
int receipt_row_insert(sqlite3 *db, sqlite3_stmt *insert, const struct receipt *r,
                       struct un_error *err);
/* For rows that come with no batch. */
int receipt_row_added(sqlite3 *db, unsigned added, struct un_error *err);
int receipt_row_select(sqlite3 *db, const struct receipt_filter *f, struct receipt_list *list,
                       struct un_error *err);

/* What is kept. Called once for a batch that has `added` rows: counts them, and removes a bounded
 * number of old ones, more than `added`. How many those were. */
struct receipt_retention {
    uint64_t max_rows, oldest_us;
};
int receipt_row_prune(sqlite3 *db, const struct receipt_retention *keep, unsigned added,
                      struct un_error *err);

#endif
