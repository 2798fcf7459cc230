/* replay_row.c - kept requests as rows. The table's total is kept by triggers of the database, so that
 * no statement can forget it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/record/replay_impl.h"

enum { PRUNE_STEP = 100 }; /* rows at once; a batch writes fewer on average */

int replay_row_write(sqlite3 *db, const char *id, const struct replay_kept *k, uint64_t now_us,
                     struct un_error *err)
{
    const struct replay_answer *a = &k->answer;
    int64_t bytes = (int64_t)(k->head.len + k->body.len + a->fields.len + a->body.len) + 512;
    int rc = store_exec(db, err, "DELETE FROM kept_requests WHERE id = ?", "t", id);

    if (rc < 0) {
        return rc;
    }
    return store_exec(
        db, err,
        "INSERT INTO kept_requests(id, function, at_us, bytes, uri, peer, http10, head,"
        " body, status, fields, answer, total, sha256, outcome, error)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "ttiittibbibbittt", id, k->function, (int64_t)now_us, bytes, k->uri ? k->uri : "",
        k->peer ? k->peer : "", (int64_t)k->http10, k->head.len ? (const void *)k->head.data : "",
        k->head.len, k->body.len ? (const void *)k->body.data : "", k->body.len, (int64_t)a->status,
        a->fields.len ? (const void *)a->fields.data : "", a->fields.len,
        a->body.len ? (const void *)a->body.data : "", a->body.len, (int64_t)a->total, a->sha256,
        a->outcome, a->error);
}

static int total_bytes(sqlite3 *db, int64_t *ret, struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, "SELECT bytes FROM kept_total", "");

    rc = rc == 0 ? store_step(stmt, err) : rc;
    *ret = rc == 1 ? sqlite3_column_int64(stmt, 0) : 0;
    return rc < 0 ? rc : 0;
}

int replay_row_prune(sqlite3 *db, const struct replay_retention *keep, struct un_error *err)
{
    int64_t total = 0;
    int removed = 0;
    int rc = store_exec(db, err,
                        "DELETE FROM kept_requests WHERE seq IN (SELECT seq FROM kept_requests"
                        " ORDER BY seq LIMIT ?) AND at_us < ?",
                        "ii", (int64_t)PRUNE_STEP, (int64_t)keep->oldest_us);

    removed += rc == 0 ? sqlite3_changes(db) : 0;
    rc = rc == 0 ? total_bytes(db, &total, err) : rc;
    while (rc == 0 && total > 0 && (uint64_t)total > keep->max_bytes) {
        rc = store_exec(
            db, err, "DELETE FROM kept_requests WHERE seq = (SELECT min(seq) FROM kept_requests)",
            "");
        if (rc == 0 && sqlite3_changes(db) == 0) {
            break;
        }
        removed++;
        rc = rc == 0 ? total_bytes(db, &total, err) : rc;
    }
    return rc < 0 ? rc : removed;
}

static int read_bytes(sqlite3_stmt *stmt, int at, struct un_buf *ret)
{
    const void *data = sqlite3_column_blob(stmt, at);
    int len = sqlite3_column_bytes(stmt, at);

    return len > 0 && data ? un_buf_append(ret, data, (size_t)len) : 0;
}

static void read_text(sqlite3_stmt *stmt, int at, char *ret, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(stmt, at);

    snprintf(ret, size, "%s", text ? text : "");
}

static char *copy_text(sqlite3_stmt *stmt, int at, int *rc)
{
    const char *text = (const char *)sqlite3_column_text(stmt, at);
    char *copy = text && *text ? strdup(text) : NULL;

    *rc = text && *text && !copy ? -ENOMEM : *rc;
    return copy;
}

static int read_row(sqlite3_stmt *stmt, struct replay_kept *k)
{
    struct replay_answer *a = &k->answer;
    int rc = 0;

    read_text(stmt, 0, k->function, sizeof(k->function));
    k->uri = copy_text(stmt, 1, &rc);
    k->peer = copy_text(stmt, 2, &rc);
    k->http10 = sqlite3_column_int(stmt, 3) != 0;
    rc = rc ? rc : read_bytes(stmt, 4, &k->head);
    rc = rc ? rc : read_bytes(stmt, 5, &k->body);
    a->status = (unsigned)sqlite3_column_int(stmt, 6);
    rc = rc ? rc : read_bytes(stmt, 7, &a->fields);
    rc = rc ? rc : read_bytes(stmt, 8, &a->body);
    a->total = (uint64_t)sqlite3_column_int64(stmt, 9);
    read_text(stmt, 10, a->sha256, sizeof(a->sha256));
    read_text(stmt, 11, a->outcome, sizeof(a->outcome));
    read_text(stmt, 12, a->error, sizeof(a->error));
    return rc;
}

int replay_row_read(sqlite3 *db, const char *id, struct replay_kept **ret, struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    struct replay_kept *k;
    int rc = store_prepare(db, &stmt, err,
                           "SELECT function, uri, peer, http10, head, body, status, fields, answer,"
                           " total, sha256, outcome, error FROM kept_requests WHERE id = ?",
                           "t", id);

    rc = rc == 0 ? store_step(stmt, err) : rc;
    if (rc < 0) {
        return rc;
    }
    if (rc == 0) {
        return un_error_set(err, -ENOENT,
                            "the request of invocation %s is not kept: that is done for those that "
                            "failed in a virtual machine, within the sizes and the age of the "
                            "settings replay.*",
                            id);
    }
    k = calloc(1, sizeof(*k));
    rc = k ? read_row(stmt, k) : -ENOMEM;
    if (rc < 0) {
        replay_kept_free(k);
        return un_error_set(err, rc, "read a kept request: out of memory");
    }
    *ret = k;
    return 0;
}
