/* log_row.h - what functions log, as rows: a row of an invocation's log, or of a piece of a machine's console.
 * Store threads; touches no loop state. */
#ifndef UNID_SCHEDULER_RECORD_LOG_ROW_H
#define UNID_SCHEDULER_RECORD_LOG_ROW_H

#include "common/bytes.h"
#include "store/store.h"

/* `id` is of the invocation or the piece, whose time it has but for its first letter (id.h). */
int log_row_insert(sqlite3 *db, const char *id, const char *function, const struct un_buf *lines,
                   struct un_error *err);

/* What is kept, beside LIMIT_LOG_ROWS. */
struct log_retention {
    uint64_t max_bytes, oldest_us;
};
/* Called once for a batch that has `added` rows at most: removes a bounded number of old ones, more than
 * `added`. How many those were. */
int log_row_prune(sqlite3 *db, const struct log_retention *keep, unsigned added,
                  struct un_error *err);

struct scheduler;
/* What the settings say now. Loop thread; log_store.c. */
struct log_retention log_keep(const struct scheduler *s);

#endif
