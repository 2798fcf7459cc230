/* sql.c - what jobs use to talk to SQLite, and how every connection is set up (see store.h). */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "common/fault.h"
#include "store/private.h"

/* How long a connection waits for a lock that somebody else's sqlite3 shell may hold. */
enum { BUSY_TIMEOUT_MS = 5000 };

static int errno_of_result(sqlite3 *db, int rc)
{
    if (rc == SQLITE_IOERR_NOMEM) {
        return -ENOMEM; /* memory for a page, say: nothing is wrong with the disk */
    }
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_READONLY:
        return -EROFS;
    case SQLITE_CONSTRAINT:
        return -EEXIST;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return -EUCLEAN;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_TOOBIG:
        return -E2BIG;
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return -EACCES;
    default:
        break;
    }
    if (db && ((rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_CANTOPEN)) {
        switch (sqlite3_system_errno(db)) {
        case ENOSPC:
        case EDQUOT:
            return -ENOSPC;
        case EROFS:
            return -EROFS;
        case EACCES:
        case EPERM:
            return -EACCES;
        default:
            break;
        }
    }
    return -EIO;
}

int store_sql_error(sqlite3 *db, int rc, const char *what, struct un_error *err)
{
    int code = errno_of_result(db, rc);
    const char *message = db ? sqlite3_errmsg(db) : sqlite3_errstr(rc);
    if (code == -EUCLEAN) {
        return un_error_set(
            err, code,
            "%s: the database is damaged (%s); stop unid, move the file aside (sqlite3's "
            ".recover reads what is left of it), and start with a copy or without one",
            what, message);
    }
    if (code == -ENOSPC) {
        return un_error_set(err, code, "%s: no space left on the database's disk (%s)", what,
                            message);
    }
    return un_error_set(err, code, "%s: %s", what, message);
}

static int bind_one(sqlite3_stmt *stmt, int at, char type, va_list *ap)
{
    switch (type) {
    case 'i':
        return sqlite3_bind_int64(stmt, at, va_arg(*ap, int64_t));
    case 't':
        return sqlite3_bind_text(stmt, at, va_arg(*ap, const char *), -1, SQLITE_TRANSIENT);
    case 'b': {
        const void *data = va_arg(*ap, const void *);
        size_t len = va_arg(*ap, size_t);
        return sqlite3_bind_blob64(stmt, at, data, len, SQLITE_STATIC);
    }
    case 'n':
        return sqlite3_bind_null(stmt, at);
    default:
        return SQLITE_MISUSE;
    }
}

/* To be given to store_release; with `keep` it may be one that is used again. */
static int prepare_bound(sqlite3 *db, sqlite3_stmt **ret, struct un_error *err, bool keep,
                         const char *sql, const char *binds, va_list *ap)
{
    sqlite3_stmt *stmt = keep ? store_cache_take(db, sql) : NULL;
    int rc = SQLITE_OK;
    if (!stmt) {
        rc = sqlite3_prepare_v3(db, sql, -1, keep ? SQLITE_PREPARE_PERSISTENT : 0, &stmt, NULL);
        if (rc == SQLITE_OK && keep) {
            store_cache_add(stmt);
        }
    }
    for (int i = 0; rc == SQLITE_OK && binds && binds[i]; i++) {
        rc = bind_one(stmt, i + 1, binds[i], ap);
    }
    if (rc != SQLITE_OK) {
        rc = store_sql_error(db, rc, "database", err);
        store_release(stmt);
        return rc;
    }
    *ret = stmt;
    return 0;
}

int store_prepare(sqlite3 *db, sqlite3_stmt **ret, struct un_error *err, const char *sql,
                  const char *binds, ...)
{
    va_list ap;
    va_start(ap, binds);
    int rc = prepare_bound(db, ret, err, false, sql, binds, &ap);
    va_end(ap);
    return rc;
}

int store_prepare_kept(sqlite3 *db, sqlite3_stmt **ret, struct un_error *err, const char *sql,
                       const char *binds, ...)
{
    va_list ap;
    va_start(ap, binds);
    int rc = prepare_bound(db, ret, err, true, sql, binds, &ap);
    va_end(ap);
    return rc;
}

int store_step(sqlite3_stmt *stmt, struct un_error *err)
{
    int fault = un_fault("store.step");
    if (fault) {
        return un_error_errno(err, fault, "database");
    }
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        return 1;
    }
    return rc == SQLITE_DONE ? 0 : store_sql_error(sqlite3_db_handle(stmt), rc, "database", err);
}

int store_exec(sqlite3 *db, struct un_error *err, const char *sql, const char *binds, ...)
{
    store_keptstmt sqlite3_stmt *stmt = NULL;
    va_list ap;
    va_start(ap, binds);
    int rc = prepare_bound(db, &stmt, err, true, sql, binds, &ap);
    va_end(ap);
    if (rc == 0) {
        do {
            rc = store_step(stmt, err);
        } while (rc == 1);
    }
    return rc;
}

int store_simple_sql(sqlite3 *db, const char *sql, struct un_error *err)
{
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : store_sql_error(db, rc, "database", err);
}

int store_query_int(sqlite3 *db, const char *sql, int64_t *ret, struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(stmt);
    }
    if (rc != SQLITE_ROW) {
        return rc == SQLITE_DONE ? un_error_set(err, -ENOENT, "database: no row")
                                 : store_sql_error(db, rc, "database", err);
    }
    *ret = sqlite3_column_int64(stmt, 0);
    return 0;
}

int store_connect(struct store *s, sqlite3 **ret, sqlite3_stmt **ret_rollback, struct un_error *err)
{
    /* Each connection is used by one thread at a time: SQLite's own mutex is not needed. Little
     * cache: the kernel's page cache holds what is hot, and an idle daemon shall be small. Nothing
     * deleted is secret enough to be overwritten. */
    static const char settings[] = "PRAGMA foreign_keys=ON;"
                                   "PRAGMA cache_size=-1024;"
                                   "PRAGMA temp_store=MEMORY;"
                                   "PRAGMA trusted_schema=OFF;"
                                   "PRAGMA secure_delete=OFF;"
                                   "PRAGMA wal_autocheckpoint=0;"
                                   "PRAGMA synchronous=FULL";
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(
        s->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE, NULL);
    if (rc != SQLITE_OK) {
        rc = store_sql_error(db, rc, "open database", err);
        sqlite3_close(db);
        return rc;
    }
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS);
    rc = store_simple_sql(db, settings, err);
    rc = rc ? rc : store_prepare(db, ret_rollback, err, "ROLLBACK", "");
    if (rc < 0) {
        sqlite3_close(db);
        return rc;
    }
    *ret = db;
    return 0;
}

void store_disconnect(sqlite3 *db, sqlite3_stmt *rollback)
{
    sqlite3_finalize(rollback);
    sqlite3_close(db);
}

int store_begin(sqlite3 *db, sqlite3_stmt *rollback, const char *sql, struct un_error *err)
{
    if (!sqlite3_get_autocommit(db)) {
        store_undo(rollback);
        if (!sqlite3_get_autocommit(db)) {
            return un_error_set(err, -ENOMEM, "database: out of memory");
        }
    }
    int rc = store_simple_sql(db, sql, err);
    if (rc < 0) {
        store_undo(rollback);
    }
    return rc;
}

void store_undo(sqlite3_stmt *rollback)
{
    (void)sqlite3_step(rollback); /* an error: there was no transaction */
    (void)sqlite3_reset(rollback);
}
