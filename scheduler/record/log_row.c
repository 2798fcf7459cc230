/* log_row.c - see log_row.h. The tables are in the schema of receipt_row.c. */
#include "scheduler/record/log_row.h"

#include "common/id.h"
#include "common/limits.h"

enum { PRUNE_STEP = 100 }; /* rows at once, beside as many as are new */

int log_row_insert(sqlite3 *db, const char *id, const char *function, const struct un_buf *lines,
                   struct un_error *err)
{
    return store_exec(db, err, "INSERT INTO guest_logs(id, function, text) VALUES(?, ?, ?)", "ttb",
                      id, function, lines->data, lines->len);
}

static int total_bytes(sqlite3 *db, uint64_t *ret, struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, "SELECT bytes FROM guest_log_total", "");

    rc = rc == 0 ? store_step(stmt, err) : rc;
    *ret = rc == 1 ? (uint64_t)sqlite3_column_int64(stmt, 0) : 0;
    return rc < 0 ? rc : 0;
}

/* The oldest first, as many as it takes; how many. */
static int prune_bytes(sqlite3 *db, uint64_t max_bytes, unsigned most, struct un_error *err)
{
    uint64_t total = 0;
    unsigned removed = 0;
    int rc = total_bytes(db, &total, err);

    while (rc == 0 && total > max_bytes && removed < most) {
        rc = store_exec(db, err,
                        "DELETE FROM guest_logs WHERE seq = (SELECT min(seq) FROM guest_logs)", "");
        rc = rc == 0 ? total_bytes(db, &total, err) : rc;
        removed++;
    }
    return rc < 0 ? rc : (int)removed;
}

int log_row_prune(sqlite3 *db, const struct log_retention *keep, unsigned added,
                  struct un_error *err)
{
    unsigned most = added + PRUNE_STEP;
    char least[UN_ID_SIZE];
    int removed = prune_bytes(db, keep->max_bytes, most, err), rc = removed < 0 ? removed : 0;

    un_id_least(keep->oldest_us, least);
    if (rc == 0) {
        rc = store_exec(db, err,
                        "DELETE FROM guest_logs WHERE seq IN (SELECT seq FROM guest_logs"
                        " ORDER BY seq LIMIT ?) AND substr(id, 2) < ?",
                        "it", (int64_t)most, least + 1);
    }
    removed += rc == 0 ? sqlite3_changes(db) : 0;
    if (rc == 0) { /* seq has no gaps at the upper end, so the difference is the number of rows */
        rc = store_exec(
            db, err,
            "DELETE FROM guest_logs WHERE seq IN (SELECT seq FROM guest_logs WHERE seq <="
            " (SELECT max(seq) FROM guest_logs) - ? ORDER BY seq LIMIT ?)",
            "ii", (int64_t)LIMIT_LOG_ROWS, (int64_t)most);
    }
    return rc < 0 ? rc : removed + sqlite3_changes(db);
}
