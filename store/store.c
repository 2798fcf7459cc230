/* store.c - opening and closing the database file (see store.h). */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "store/private.h"

enum { READERS_DEFAULT = 2, READERS_MAX = 16 };

/* Makes sure that no other unid uses the file. The lock is a file of its own, because closing any
 * descriptor of the database itself would drop SQLite's locks (fcntl(2), "Record locking"). */
static int take_lock(struct store *s, struct un_error *err)
{
    un_autofree char *path = NULL;
    if (asprintf(&path, "%s.lock", s->path) < 0) {
        path = NULL;
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock_fd < 0) {
        return un_error_errno(err, -errno, "open %s", path);
    }
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK) {
            return un_error_set(err, -EBUSY,
                                "%s is in use by another unid; end that one first, or "
                                "give this one another --state-dir",
                                s->path);
        }
        return un_error_errno(err, -errno, "lock %s", path);
    }
    return 0;
}

/* Creates the file, so that it has the right mode, and finds out what hinders opening it in the
 * words of the system rather than in SQLite's; what is in it is nobody else's. Before SQLite has it open. */
static int touch_file(struct store *s, struct un_error *err)
{
    un_autoclose int fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        return un_error_errno(err, -errno, "open %s", s->path);
    }
    if (!S_ISREG(st.st_mode)) {
        return un_error_set(err, -EINVAL, "%s is not a regular file", s->path);
    }
    /* A copy that was put back; SQLite gives its log the file's mode. */
    if ((st.st_mode & 077) && fchmod(fd, 0600) < 0) {
        return un_error_errno(err, -errno, "keep %s to its owner", s->path);
    }
    return 0;
}

static int open_directory(struct store *s, struct un_error *err)
{
    un_autofree char *copy = strdup(s->path);
    if (!copy) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    s->dir_fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return s->dir_fd < 0 ? un_error_errno(err, -errno, "open %s", copy) : 0;
}

/* A file that has tables and was not made by unid is somebody else's. */
static int check_owner(sqlite3 *db, bool *fresh, struct un_error *err)
{
    int64_t tables = 0, id = 0;
    int rc = store_query_int(db, "SELECT count(*) FROM sqlite_schema", &tables, err);
    if (rc == 0) {
        rc = store_query_int(db, "PRAGMA application_id", &id, err);
    }
    if (rc == 0 && tables > 0 && id != STORE_APPLICATION_ID) {
        rc = un_error_set(err, -EUCLEAN, "this is a database, but not one of unid; move it aside");
    }
    *fresh = tables == 0;
    return rc;
}

/* The log's length after each commit of this connection. */
static int on_commit(void *arg, sqlite3 *db, const char *name, int frames)
{
    struct store *s = arg;
    s->wal_bytes = (uint64_t)frames * STORE_PAGE_BYTES;
    return SQLITE_OK;
}

static int set_up_file(struct store *s, struct un_error *err)
{
    bool fresh;
    int rc = check_owner(s->db, &fresh, err);
    if (rc == 0 && fresh) {
        /* In this order, before anything is written. INCREMENTAL: pages of removed images are used
         * again first, and given back to the file system in idle time; without it the file would
         * never shrink. Its price, one page of pointers for some 3,000 pages, is not measurable. */
        char sql[160];
        snprintf(sql, sizeof sql,
                 "PRAGMA page_size=%d; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA application_id=%d",
                 STORE_PAGE_BYTES, STORE_APPLICATION_ID);
        rc = store_simple_sql(s->db, sql, err);
    }
    if (rc < 0) {
        return rc;
    }
    store_autostmt sqlite3_stmt *stmt = NULL;
    rc = store_prepare(s->db, &stmt, err, "PRAGMA journal_mode=WAL", "");
    if (rc == 0) {
        rc = store_step(stmt, err);
    }
    if (rc < 0) {
        return rc;
    }
    const char *mode = (const char *)sqlite3_column_text(stmt, 0);
    if (!mode || strcmp(mode, "wal") != 0) {
        return un_error_set(
            err, -ENOTSUP,
            "the file system cannot hold a write-ahead log (no shared memory maps); "
            "put the state directory on a local disk");
    }
    return 0;
}

static int open_database(struct store *s, const struct store_spec *spec, struct un_error *err)
{
    int rc = store_connect(s, &s->db, &s->rollback, err);
    if (rc == 0) {
        rc = set_up_file(s, err);
    }
    if (rc == 0) {
        char sql[64];
        snprintf(sql, sizeof sql, "PRAGMA journal_size_limit=%u", STORE_WAL_SOFT_BYTES);
        rc = store_simple_sql(s->db, sql, err);
    }
    if (rc == 0) {
        sqlite3_wal_hook(s->db, on_commit, s);
        rc = store_migrate(s->db, spec->schemas, err);
    }
    return rc < 0 ? un_error_context(err, "%s", s->path) : 0;
}

/* Gives back everything of a half- or fully opened store whose threads have ended. */
static void release(struct store *s)
{
    store_disconnect(s->db, s->rollback);
    if (s->dir_fd >= 0) {
        close(s->dir_fd);
    }
    if (s->lock_fd >= 0) {
        close(s->lock_fd);
    }
    free(s->path);
    free(s);
}

int store_open(const struct store_spec *spec, struct store **ret, struct un_error *err)
{
    int rc = un_fault("store.open");
    if (rc) {
        return un_error_errno(err, rc, "open %s", spec->path);
    }
    struct store *s = calloc(1, sizeof *s);
    if (!s) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    s->lock_fd = s->dir_fd = -1;
    s->loop = spec->loop;
    s->readers_max = spec->readers ? spec->readers : READERS_DEFAULT;
    if (s->readers_max > READERS_MAX) {
        s->readers_max = READERS_MAX;
    }
    s->path = strdup(spec->path);
    rc = s->path ? take_lock(s, err) : un_error_set(err, -ENOMEM, "out of memory");
    if (rc == 0) {
        rc = touch_file(s, err);
    }
    if (rc == 0) {
        rc = open_directory(s, err);
    }
    if (rc == 0) {
        rc = open_database(s, spec, err);
    }
    if (rc == 0) {
        rc = store_threads_start(s, err);
    }
    if (rc < 0) {
        release(s);
        return rc;
    }
    *ret = s;
    return 0;
}

void store_close(struct store *s)
{
    if (s) {
        store_threads_stop(s);
        release(s); /* closing the last connection empties and removes the log */
    }
}

int store_check_room(struct store *s, uint64_t bytes, struct un_error *err)
{
    int fault = un_fault("store.room");
    struct statvfs fs;
    if (fault) {
        return un_error_errno(err, fault, "database");
    }
    if (fstatvfs(s->dir_fd, &fs) < 0) {
        return 0; /* the write itself will tell */
    }
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    uint64_t need = s->wal_bytes + STORE_RESERVE_BYTES;
    if (__builtin_add_overflow(need, bytes, &need) || room < need) {
        return un_error_set(err, -ENOSPC,
                            "no space left on the database's disk: %llu MiB free, %llu MiB needed",
                            (unsigned long long)(room >> 20), (unsigned long long)(need >> 20));
    }
    return 0;
}

void store_get_stats(struct store *s, struct store_stats *ret)
{
    struct stat st;
    pthread_mutex_lock(&s->mutex);
    *ret = s->stats;
    pthread_mutex_unlock(&s->mutex);
    /* By name: a descriptor of our own may not be closed while SQLite has the file open. */
    ret->file_bytes = stat(s->path, &st) == 0 ? (uint64_t)st.st_size : 0;
}
