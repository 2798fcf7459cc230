/* store.h - the one SQLite file: opening, migrations, and work on it off the loop thread.
 *
 * The store owns one writer thread and a few reader threads. Whoever wants something from the
 * database submits a job whose run() gets an open connection. Write jobs that wait together share
 * one transaction and one fsync (group commit); each runs in a savepoint of its own, so that one
 * job's failure does not touch the others; `done` is called only after the commit is on disk. That
 * is what makes "answered with 2xx" mean "survives kill -9".
 *
 * The store knows no tables. A folder that keeps data registers its migrations before store_open.
 *
 * Where things are: store.c opening and closing, queue.c jobs and their threads, commit.c the
 * writer's transactions and checkpoints, cache.c its statements, migrate.c schemas, sql.c the helpers for jobs.
 */
#ifndef UNID_STORE_STORE_H
#define UNID_STORE_STORE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"

struct store;

/* One step of a component's schema, SQL text. Steps are applied in order, once each, in one
 * transaction with their record; they are never edited after release, only added to. */
struct store_schema {
    const char *component;    /* "imagestore", "scheduler", ... */
    const char *const *steps; /* NULL-terminated; step i brings the component to version i + 1 */
};

struct store_spec {
    struct un_loop *loop;                      /* kept until store_close */
    const char *path;                          /* the database file, created with mode 0600 */
    const struct store_schema *const *schemas; /* NULL-terminated; kept until store_close */
    unsigned readers;                          /* reader threads; 0 means 2 */
};

/* Opens or creates the file and migrates it. Blocking: called once at start. WAL, foreign keys on,
 * synchronous=FULL. Errors: -EACCES, -ENOSPC, -EROFS; -EUCLEAN for a damaged file (the text says
 * how to go on); -EPROTO when the file was written by a newer unid; -EBUSY when another process has
 * it. */
int store_open(const struct store_spec *spec, struct store **ret, struct un_error *err);

/* Runs what is queued, checkpoints, closes. Done callbacks run from here. NULL is allowed. */
void store_close(struct store *s);

enum store_access {
    STORE_READ,  /* any reader thread; sees everything whose done() was called before */
    STORE_WRITE, /* the writer thread, in order of submission, within a group commit */
    /* The writer thread, in a transaction of its own that is committed without waiting for the
     * disk. For the chunks of an upload: a later STORE_WRITE job makes them durable together with
     * itself. */
    STORE_WRITE_LAZY
};

/* Embedded in the caller's request struct, which must live until `done`. */
struct store_job {
    enum store_access access;
    /* Store thread, once. 0 keeps the job's changes; a negative errno undoes them and goes to
     * done(). It finalizes all its statements and neither begins nor ends a transaction. Where
     * SQLite gives up the whole transaction because of one job (disk full, I/O error), those that
     * had run before it in the same group get its error too: what was undone is never reported as
     * done. */
    int (*run)(struct store_job *job, sqlite3 *db, struct un_error *err);
    /* Loop thread, exactly once, never inside store_submit. The job may be submitted again from
     * here. */
    void (*done)(struct store_job *job, int rc, const struct un_error *err);
    /* The store's own. */
    struct store *store;
    struct store_job *next;
    struct un_error err;
    int rc;
    bool blocking, finished;
};

/* Queues the job; never fails (whatever goes wrong comes by done). Loop thread. */
void store_submit(struct store *s, struct store_job *job);

/* Runs a job now and returns its rc; done is not called. For start-up and tests only (blocks). */
int store_run_blocking(struct store *s, struct store_job *job, struct un_error *err);

/* Turns an SQLite result code into a negative errno (SQLITE_FULL -> -ENOSPC, SQLITE_READONLY ->
 * -EROFS, SQLITE_CONSTRAINT -> -EEXIST, SQLITE_NOMEM -> -ENOMEM, SQLITE_CORRUPT and NOTADB ->
 * -EUCLEAN, SQLITE_BUSY -> -EBUSY, else -EIO) and fills `err` with `what` and the database's
 * message. */
int store_sql_error(sqlite3 *db, int rc, const char *what, struct un_error *err);

/* Prepares a statement, binds by a format ("i" int64_t, "t" const char * or NULL, "b" pointer +
 * size_t, "n" nothing = NULL), for use with store_step / sqlite3_column_* / sqlite3_finalize. */
int store_prepare(sqlite3 *db, sqlite3_stmt **ret, struct un_error *err, const char *sql,
                  const char *binds, ...);

/* As store_prepare, for statements that are run again and again: in a write job the statement is kept
 * from job to job. It goes back with store_release (store_keptstmt), never with sqlite3_finalize. */
int store_prepare_kept(sqlite3 *db, sqlite3_stmt **ret, struct un_error *err, const char *sql,
                       const char *binds, ...);
/* NULL is allowed. */
void store_release(sqlite3_stmt *stmt);

/* 1 a row, 0 done, negative errno. */
int store_step(sqlite3_stmt *stmt, struct un_error *err);

/* Prepare, bind, run to the end, finalize. Returns 0 or a negative errno. */
int store_exec(sqlite3 *db, struct un_error *err, const char *sql, const char *binds, ...);

/* For the run() of a write job that is about to add much, and for who wants to know; any thread: -ENOSPC unless the file
 * system has room for `bytes`, for moving what is in the write-ahead log into the file, and for a reserve. With the
 * reserve a store whose disk is full can still delete. */
int store_check_room(struct store *s, uint64_t bytes, struct un_error *err);

/* A statement that finalizes itself at the end of its scope. */
static inline void store_finalizep(sqlite3_stmt **stmt)
{
    sqlite3_finalize(*stmt);
}
#define store_autostmt __attribute__((cleanup(store_finalizep)))

/* The same for store_prepare_kept. */
static inline void store_releasep(sqlite3_stmt **stmt)
{
    store_release(*stmt);
}
#define store_keptstmt __attribute__((cleanup(store_releasep)))

struct store_stats {
    uint64_t commits, jobs; /* since opening; jobs / commits is the mean size of a group */
    uint64_t file_bytes;    /* the database file, without its WAL */
};
void store_get_stats(struct store *s, struct store_stats *ret);

#endif
