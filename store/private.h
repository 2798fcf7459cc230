/* private.h - what the files of store/ share; nobody else includes it.
 *
 *     store_submit -> queue (mutex) -> thread -> run() -> [commit] -> completed list -> loop ->
 * done()
 *
 * `mutex` guards everything below it in the struct. The writer's connection is used by the writer
 * thread alone once that runs, and by the opening and closing thread before and after.
 */
#ifndef UNID_STORE_PRIVATE_H
#define UNID_STORE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "store/store.h"

/* Of 4 to 64 KiB pages, 16 KiB stores an image fastest while a small commit still costs what it
 * costs with 4 KiB; measured with 256 MiB in rows of 256 KiB. */
#define STORE_PAGE_BYTES 16384

/* The application id in the file's header: "unid". */
#define STORE_APPLICATION_ID 0x756e6964

/* The log is moved into the file when it has grown to this after a commit that waited for the disk.
 */
#define STORE_WAL_SOFT_BYTES (16u << 20)
/* During an upload the log may grow further, since a checkpoint in between halves the upload's
 * speed; past this it is moved all the same. */
#define STORE_WAL_HARD_BYTES (320u << 20)
/* Kept free on the file system by store_check_room. */
#define STORE_RESERVE_BYTES (32u << 20)

struct store_queue {
    struct store_job *first, **end;
    unsigned count;
};

struct store {
    struct un_loop *loop;
    char *path;
    int lock_fd;
    int dir_fd; /* for asking about free space */
    unsigned readers_max;
    sqlite3 *db; /* the writer's connection */
    sqlite3_stmt *rollback;
    bool lazy; /* the writer's connection has synchronous=NORMAL */
    pthread_t writer;
    bool writer_started;
    _Atomic uint64_t wal_bytes;
    struct un_post post;

    pthread_mutex_t mutex;
    pthread_cond_t write_wake, read_wake; /* CLOCK_MONOTONIC */
    pthread_cond_t progress;              /* a job completed, or a reader ended */
    struct store_queue writes, reads, completed;
    unsigned readers, readers_idle; /* that take jobs; of these, waiting for one */
    unsigned reads_queued;
    unsigned readers_living; /* threads that have not ended */
    unsigned unfinished;     /* submitted, done() not yet called */
    unsigned group_jobs;     /* of the writer's last group */
    uint64_t group_us;       /* how long it took */
    bool stopping;
    struct store_stats stats;
};

/* sql.c: opens a connection with the settings that all have, and the statement that undoes its
 * transactions. That is made beforehand: making a statement needs memory, and a transaction that
 * cannot be ended for lack of it would stay open under all that follows. */
int store_connect(struct store *s, sqlite3 **ret, sqlite3_stmt **ret_rollback,
                  struct un_error *err);
/* NULLs are allowed. */
void store_disconnect(sqlite3 *db, sqlite3_stmt *rollback);
/* Begins a transaction by `sql`. Without memory BEGIN may fail when it has begun already, and an undo may have undone
 * nothing: what is open then is undone here, or no job would ever get a transaction again. */
int store_begin(sqlite3 *db, sqlite3_stmt *rollback, const char *sql, struct un_error *err);
/* Undoes and ends the open transaction, if there is one. Does not fail, but for lack of memory. */
void store_undo(sqlite3_stmt *rollback);
int store_simple_sql(sqlite3 *db, const char *sql, struct un_error *err);
/* The first column of the first row, as a number. */
int store_query_int(sqlite3 *db, const char *sql, int64_t *ret, struct un_error *err);

/* cache.c: the statements that a thread keeps for its one connection. */
enum { STORE_CACHE_MAX = 48 };
struct store_cache_entry {
    sqlite3_stmt *stmt;
    bool taken;
    uint64_t used;
};
struct store_cache {
    struct store_cache_entry entries[STORE_CACHE_MAX];
    unsigned count;
    uint64_t clock;
};
/* This thread keeps its statements in `cache` until store_cache_drop, before its connection is closed. */
void store_cache_use(struct store_cache *cache);
void store_cache_drop(void);
/* A kept statement that is not taken, or NULL. */
sqlite3_stmt *store_cache_take(sqlite3 *db, const char *sql);
/* Keeps a new statement, as taken; where there is no room for it store_release finalizes it. */
void store_cache_add(sqlite3_stmt *stmt);

/* migrate.c */
int store_migrate(sqlite3 *db, const struct store_schema *const *schemas, struct un_error *err);

/* commit.c: writer thread. Runs a list of jobs of one kind and sets each one's rc; afterwards they
 * are on disk (lazy: in the log) or undone. */
void store_run_group(struct store *s, struct store_job *first);
/* Moves the log into the file when it is long enough. */
void store_maybe_checkpoint(struct store *s, bool lazy);
/* When nothing has been written for a while: empties the log, gives free pages back to the file
 * system, one step a call, and memory to the heap. Returns true when another step remains. */
bool store_idle_step(struct store *s);

/* queue.c */
int store_threads_start(struct store *s, struct un_error *err);
void store_threads_stop(struct store *s);
void store_deliver(void *store);

#endif
