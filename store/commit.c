/* commit.c - the writer's transactions: group commit, checkpoints, and the housekeeping of idle
 * time.
 *
 * Why a lazy transaction is safe: it is appended to the write-ahead log like any other, only
 * without fsync (synchronous=NORMAL). The next full commit appends behind it and syncs the whole
 * log file. A checkpoint in between syncs the log before it copies and the file before the log is
 * started over, with NORMAL too (sqlite.org/wal.html, "Performance Considerations"). OFF would drop
 * these two.
 */
#include <errno.h>
#include <string.h>

#include "common/fault.h"
#include "common/json.h"
#include "common/log.h"
#include "store/private.h"

/* Pages given back to the file system in one idle step. */
#define VACUUM_PAGES "256"
/* Free pages are worth giving back above this many bytes and this share of the file. */
#define VACUUM_FREE_BYTES (16u << 20)
#define VACUUM_SHARE      4

static int set_lazy(struct store *s, bool lazy, struct un_error *err)
{
    if (s->lazy == lazy) {
        return 0;
    }
    int rc = store_simple_sql(s->db, lazy ? "PRAGMA synchronous=NORMAL" : "PRAGMA synchronous=FULL",
                              err);
    if (rc == 0) {
        s->lazy = lazy;
    }
    return rc;
}

/* Runs one job so that its failure leaves no trace in the transaction. A job alone in its
 * transaction needs no savepoint: the transaction itself is undone. */
static int run_one(struct store *s, struct store_job *job, bool alone)
{
    sqlite3 *db = s->db;
    struct un_error *err = &job->err;
    int rc = alone ? 0 : store_simple_sql(db, "SAVEPOINT job", err);
    if (rc < 0) {
        return rc;
    }
    rc = job->run(job, db, err);
    (void)un_json_text(NULL); /* as in run_read */
    if (sqlite3_get_autocommit(db)) {
        return rc < 0 ? rc : un_error_set(err, -EIO, "database: the transaction was given up");
    }
    if (alone) {
        if (rc < 0) {
            store_undo(s->rollback);
        }
        return rc;
    }
    if (rc < 0) {
        if (sqlite3_exec(db, "ROLLBACK TO job; RELEASE job", NULL, NULL, NULL) != SQLITE_OK) {
            store_undo(s->rollback); /* rather all than half of this one committed */
        }
        return rc;
    }
    rc = store_simple_sql(db, "RELEASE job", err);
    if (rc < 0) {
        store_undo(s->rollback);
    }
    return rc;
}

/* All jobs from `from` up to `to` that had succeeded get `why`. */
static void fail_jobs(struct store_job *from, const struct store_job *to,
                      const struct un_error *why)
{
    for (struct store_job *j = from; j != to; j = j->next) {
        if (j->rc == 0) {
            j->rc = why->code;
            un_error_copy(&j->err, why);
        }
    }
}

static int begin(struct store *s, struct un_error *err)
{
    int fault = un_fault("store.begin");
    return fault ? un_error_errno(err, fault, "database")
                 : store_begin(s->db, s->rollback, "BEGIN IMMEDIATE", err);
}

static int commit(struct store *s, struct un_error *err)
{
    int fault = un_fault("store.commit");
    int rc =
        fault ? un_error_errno(err, fault, "database") : store_simple_sql(s->db, "COMMIT", err);
    if (rc < 0) {
        store_undo(s->rollback);
    }
    return rc;
}

void store_run_group(struct store *s, struct store_job *first)
{
    struct un_error err = UN_ERROR_INIT;
    bool alone = first->next == NULL;
    struct store_job *from = first; /* the first job of the open transaction */
    int rc = set_lazy(s, first->access == STORE_WRITE_LAZY, &err);
    if (rc == 0) {
        rc = begin(s, &err);
    }
    for (struct store_job *job = first; rc == 0 && job; job = job->next) {
        job->rc = run_one(s, job, alone);
        if (!sqlite3_get_autocommit(s->db)) {
            continue;
        }
        /* SQLite has undone the transaction, with all that ran before this job. */
        fail_jobs(from, job, &job->err);
        from = job->next;
        if (from) {
            rc = begin(s, &err);
        }
    }
    if (rc == 0 && from) {
        rc = commit(s, &err);
        if (rc == 0) {
            pthread_mutex_lock(&s->mutex);
            s->stats.commits++;
            pthread_mutex_unlock(&s->mutex);
        }
    }
    if (rc < 0) {
        err.code = rc;
        fail_jobs(from, NULL, &err);
    }
}

static void checkpoint(struct store *s, int mode)
{
    int fault = un_fault("store.checkpoint");
    int log_frames = 0, moved = 0;
    int rc =
        fault ? SQLITE_IOERR : sqlite3_wal_checkpoint_v2(s->db, NULL, mode, &log_frames, &moved);
    if (rc != SQLITE_OK) {
        /* Nothing is lost: the log keeps what it has, and the next commit tries again. */
        un_log(UN_LOG_DEBUG, "checkpoint failed", "reason", sqlite3_errstr(rc));
        return;
    }
    if (moved >= log_frames) {
        s->wal_bytes = 0;
    }
}

void store_maybe_checkpoint(struct store *s, bool lazy)
{
    uint64_t limit = lazy ? STORE_WAL_HARD_BYTES : STORE_WAL_SOFT_BYTES;
    if (s->wal_bytes < limit) {
        return;
    }
    /* PASSIVE waits for nobody. Far past the limit a reader has been in the way for long: RESTART
     * waits for it. */
    bool overdue = s->wal_bytes > 2ull * STORE_WAL_HARD_BYTES;
    checkpoint(s, overdue ? SQLITE_CHECKPOINT_RESTART : SQLITE_CHECKPOINT_PASSIVE);
}

bool store_idle_step(struct store *s)
{
    int64_t pages = 0, free_pages = 0;
    bool more = false;
    if (store_query_int(s->db, "PRAGMA page_count", &pages, NULL) == 0 &&
        store_query_int(s->db, "PRAGMA freelist_count", &free_pages, NULL) == 0 &&
        free_pages > VACUUM_FREE_BYTES / STORE_PAGE_BYTES && free_pages > pages / VACUUM_SHARE &&
        set_lazy(s, true, NULL) == 0) {
        more = store_simple_sql(s->db, "PRAGMA incremental_vacuum(" VACUUM_PAGES ")", NULL) == 0;
    }
    if (more) {
        store_maybe_checkpoint(s, false);
        return true;
    }
    checkpoint(s, SQLITE_CHECKPOINT_TRUNCATE);
    sqlite3_db_release_memory(s->db);
    return false;
}
