/* receipt_row.c - see receipt_row.h. One table says which member of struct receipt is which column.
 */
#include "scheduler/record/receipt_row.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/id.h"
#include "common/limits.h"
#include "scheduler/record/counted.h"

enum {
    PRUNE_STEP = 200
}; /* rows removed beyond those added: how fast a lowered limit takes effect */

/* MISSING and MADE: lists of system calls of a report (counted.h). */
enum column_type { COLUMN_TEXT, COLUMN_U64, COLUMN_U32, COLUMN_BOOL, COLUMN_MISSING, COLUMN_MADE };

struct column {
    const char *name;
    enum column_type type;
    size_t offset, size;
};

#define MEMBER(name, type, member)                                                                 \
    {                                                                                              \
        name, type, offsetof(struct receipt, member), sizeof(((struct receipt *)0)->member)        \
    }

static const struct column columns[] = {
    MEMBER("id", COLUMN_TEXT, id),
    MEMBER("attempt", COLUMN_U32, attempt),
    MEMBER("function", COLUMN_TEXT, function),
    MEMBER("version", COLUMN_U32, version),
    MEMBER("digest", COLUMN_TEXT, digest),
    MEMBER("trigger_kind", COLUMN_U32, trigger),
    MEMBER("trigger_name", COLUMN_TEXT, trigger_name),
    MEMBER("replay_of", COLUMN_TEXT, replay_of),
    MEMBER("driver", COLUMN_TEXT, driver),
    MEMBER("started_at_us", COLUMN_U64, started_at_us),
    MEMBER("queue_us", COLUMN_U64, phases.queue_us),
    MEMBER("shell_us", COLUMN_U64, phases.shell_us),
    MEMBER("bind_us", COLUMN_U64, phases.bind_us),
    MEMBER("start_us", COLUMN_U64, phases.start_us),
    MEMBER("first_byte_us", COLUMN_U64, phases.first_byte_us),
    MEMBER("run_us", COLUMN_U64, phases.run_us),
    MEMBER("teardown_us", COLUMN_U64, phases.teardown_us),
    MEMBER("fresh", COLUMN_BOOL, fresh),
    MEMBER("bytes_in", COLUMN_U64, bytes_in),
    MEMBER("bytes_out", COLUMN_U64, bytes_out),
    MEMBER("cpu_us", COLUMN_U64, usage.cpu_us),
    MEMBER("peak_rss_kib", COLUMN_U64, usage.peak_rss_kib),
    MEMBER("exits", COLUMN_U64, usage.exits),
    MEMBER("exit_reason", COLUMN_TEXT, exit_reason),
    MEMBER("status", COLUMN_U32, status),
    MEMBER("outcome", COLUMN_TEXT, outcome),
    MEMBER("error", COLUMN_TEXT, error),
    MEMBER("calls", COLUMN_U64, usage.report.calls),
    MEMBER("unsupported", COLUMN_MISSING, usage.report),
    MEMBER("calls_made", COLUMN_MADE, usage.report),
    MEMBER("egress_connections", COLUMN_U32, egress.connections),
    MEMBER("egress_refused", COLUMN_U32, egress.refused),
    MEMBER("egress_bytes_in", COLUMN_U64, egress.bytes_in),
    MEMBER("egress_bytes_out", COLUMN_U64, egress.bytes_out),
};
_Static_assert(sizeof(enum sched_trigger) == sizeof(uint32_t), "the trigger is stored as a u32");

static const char *const schema_steps[] = {
    "CREATE TABLE receipts("
    " id TEXT NOT NULL, attempt INTEGER NOT NULL, function TEXT NOT NULL, version INTEGER NOT NULL,"
    " digest TEXT NOT NULL, trigger_kind INTEGER NOT NULL, driver TEXT NOT NULL,"
    " started_at_us INTEGER NOT NULL, queue_us INTEGER NOT NULL, shell_us INTEGER NOT NULL,"
    " bind_us INTEGER NOT NULL, start_us INTEGER NOT NULL, first_byte_us INTEGER NOT NULL,"
    " run_us INTEGER NOT NULL, teardown_us INTEGER NOT NULL, fresh INTEGER NOT NULL,"
    " bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, cpu_us INTEGER NOT NULL,"
    " peak_rss_kib INTEGER NOT NULL, exits INTEGER NOT NULL, exit_reason TEXT NOT NULL,"
    " status INTEGER NOT NULL, outcome TEXT NOT NULL, error TEXT NOT NULL,"
    " PRIMARY KEY(id, attempt)) WITHOUT ROWID;"
    "CREATE INDEX receipts_by_function ON receipts(function, id);"
    "CREATE INDEX receipts_not_ok ON receipts(id) WHERE outcome <> 'ok';"
    "CREATE TABLE receipt_count(rows INTEGER NOT NULL);"
    "INSERT INTO receipt_count VALUES(0);"
    "CREATE TABLE guest_logs(seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL,"
    " function TEXT NOT NULL, text BLOB NOT NULL);"
    "CREATE INDEX guest_logs_by_function ON guest_logs(function, seq);"
    "CREATE TABLE async_queue(id TEXT PRIMARY KEY, function TEXT NOT NULL, qualifier TEXT,"
    " content_type TEXT, attempt INTEGER NOT NULL, due_us INTEGER NOT NULL, running INTEGER NOT "
    "NULL,"
    " body BLOB NOT NULL);"
    "CREATE INDEX async_queue_due ON async_queue(running, due_us, id);",
    "ALTER TABLE receipts ADD COLUMN calls INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE receipts ADD COLUMN unsupported TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE receipts ADD COLUMN egress_connections INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE receipts ADD COLUMN egress_refused INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE receipts ADD COLUMN egress_bytes_in INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE receipts ADD COLUMN egress_bytes_out INTEGER NOT NULL DEFAULT 0;",
    /* The durable queue (async_impl.h). */
    "ALTER TABLE async_queue RENAME TO async_queue_1;"
    "DROP INDEX async_queue_due;"
    "CREATE TABLE async_queue(seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, lane TEXT NOT NULL,"
    " function TEXT NOT NULL, trigger_name TEXT, state INTEGER NOT NULL, attempt INTEGER NOT NULL,"
    " failures INTEGER NOT NULL, interruptions INTEGER NOT NULL, due_us INTEGER NOT NULL,"
    " delay_us INTEGER NOT NULL, accepted_us INTEGER NOT NULL, died_us INTEGER NOT NULL,"
    " outcome TEXT, reason TEXT, cost INTEGER NOT NULL);"
    "CREATE TABLE async_events(seq INTEGER PRIMARY KEY, qualifier TEXT, url TEXT,"
    " content_type TEXT, fields TEXT, on_success TEXT, on_failure TEXT, source TEXT, sink TEXT,"
    " max_attempts INTEGER NOT NULL, max_age_ms INTEGER NOT NULL, backoff_base_ms INTEGER NOT NULL,"
    " backoff_max_ms INTEGER NOT NULL, depth INTEGER NOT NULL, out_of_order INTEGER NOT NULL,"
    " source_bytes INTEGER NOT NULL, body BLOB NOT NULL);"
    "INSERT INTO async_queue SELECT rowid, id, function, function, NULL, running, attempt, 0, 0,"
    " due_us, 0, due_us, 0, NULL, NULL, length(body) FROM async_queue_1;"
    "INSERT INTO async_events SELECT rowid, qualifier, NULL, content_type, NULL, NULL, NULL, NULL,"
    " NULL, 5, 21600000, 1000, 300000, 0, 0, 0, body FROM async_queue_1;"
    "DROP TABLE async_queue_1;"
    "CREATE INDEX async_ready ON async_queue(lane, seq) WHERE state = 0;"
    "CREATE INDEX async_running ON async_queue(seq) WHERE state = 1;"
    "CREATE INDEX async_delayed ON async_queue(due_us) WHERE state = 2;"
    "CREATE INDEX async_dead ON async_queue(id) WHERE state = 3;"
    "CREATE INDEX async_dead_function ON async_queue(function, id) WHERE state = 3;"
    "CREATE INDEX async_dead_trigger ON async_queue(trigger_name, id) WHERE state = 3;"
    "CREATE TABLE async_recent(seq INTEGER PRIMARY KEY, key BLOB NOT NULL, value TEXT NOT NULL,"
    " expires_us INTEGER NOT NULL);"
    "ALTER TABLE receipts ADD COLUMN trigger_name TEXT NOT NULL DEFAULT '';"
    "CREATE INDEX receipts_by_trigger ON receipts(trigger_name, id) WHERE trigger_name <> '';",
    /* Requests of failed invocations (replay_row.c), and lists of receipts by status. */
    "ALTER TABLE receipts ADD COLUMN replay_of TEXT NOT NULL DEFAULT '';"
    "CREATE INDEX receipts_by_status ON receipts(status, id);"
    "CREATE TABLE kept_requests(seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
    " function TEXT NOT NULL, at_us INTEGER NOT NULL, bytes INTEGER NOT NULL, uri TEXT NOT NULL,"
    " peer TEXT NOT NULL, http10 INTEGER NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL,"
    " status INTEGER NOT NULL, fields BLOB NOT NULL, answer BLOB NOT NULL, total INTEGER NOT NULL,"
    " sha256 TEXT NOT NULL, outcome TEXT NOT NULL, error TEXT NOT NULL);"
    "CREATE TABLE kept_total(bytes INTEGER NOT NULL);"
    "INSERT INTO kept_total VALUES(0);"
    "CREATE TRIGGER kept_added AFTER INSERT ON kept_requests"
    " BEGIN UPDATE kept_total SET bytes = bytes + NEW.bytes; END;"
    "CREATE TRIGGER kept_removed AFTER DELETE ON kept_requests"
    " BEGIN UPDATE kept_total SET bytes = bytes - OLD.bytes; END;",
    "ALTER TABLE receipts ADD COLUMN calls_made TEXT NOT NULL DEFAULT '';",
    /* How much is logged (log_row.c): a row with its index entry, without its text, takes 128 bytes. */
    "CREATE TABLE guest_log_total(bytes INTEGER NOT NULL);"
    "INSERT INTO guest_log_total SELECT coalesce(sum(length(text) + 128), 0) FROM guest_logs;"
    "CREATE TRIGGER guest_log_added AFTER INSERT ON guest_logs"
    " BEGIN UPDATE guest_log_total SET bytes = bytes + length(NEW.text) + 128; END;"
    "CREATE TRIGGER guest_log_removed AFTER DELETE ON guest_logs"
    " BEGIN UPDATE guest_log_total SET bytes = bytes - length(OLD.text) - 128; END;",
    NULL,
};
const struct store_schema scheduler_schema = {"scheduler", schema_steps};

/* --- lists ------------------------------------------------------------------------------------ */

bool receipt_filter_matches(const struct receipt_filter *f, const struct receipt *r)
{
    if (f->function[0] && strcmp(f->function, r->function) != 0) {
        return false;
    }
    if (f->trigger[0] && strcmp(f->trigger, r->trigger_name) != 0) {
        return false;
    }
    if (strcmp(f->outcome, "failed") == 0) {
        if (strcmp(r->outcome, "ok") == 0) {
            return false;
        }
    } else if (f->outcome[0] && strcmp(f->outcome, r->outcome) != 0) {
        return false;
    }
    if ((f->status && f->status != r->status) ||
        (f->since_id[0] && strcmp(r->id, f->since_id) < 0)) {
        return false;
    }
    int behind = f->before_id[0] ? strcmp(r->id, f->before_id) : -1;
    if (behind > 0 || (behind == 0 && r->attempt >= f->before_attempt)) {
        return false;
    }
    return !f->id[0] || strcmp(f->id, r->id) == 0;
}

int receipt_list_add(struct receipt_list *l, const struct receipt *r)
{
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        struct receipt *items = reallocarray(l->items, cap, sizeof(*items));

        if (!items) {
            return -ENOMEM;
        }
        l->items = items;
        l->cap = cap;
    }
    l->items[l->count++] = *r;
    return 0;
}

static int newer_first(const void *va, const void *vb)
{
    const struct receipt *a = va, *b = vb;
    int by_id = strcmp(b->id, a->id);

    if (by_id != 0) {
        return by_id;
    }
    return (b->attempt > a->attempt) - (b->attempt < a->attempt);
}

void receipt_list_tidy(struct receipt_list *l, size_t limit)
{
    size_t kept = 0;

    if (l->count == 0) {
        return;
    }
    qsort(l->items, l->count, sizeof(*l->items), newer_first);
    for (size_t i = 0; i < l->count && kept < limit; i++) {
        if (kept == 0 || newer_first(&l->items[kept - 1], &l->items[i]) != 0) {
            l->items[kept++] = l->items[i];
        }
    }
    l->count = kept;
}

/* --- rows ------------------------------------------------------------------------------------- */

static int append_columns(struct un_buf *sql, const char *separator_free_text)
{
    int rc = 0;

    for (size_t i = 0; i < UN_ARRAY_SIZE(columns) && rc == 0; i++) {
        rc = un_buf_printf(sql, "%s%s", i > 0 ? ", " : "",
                           separator_free_text ? separator_free_text : columns[i].name);
    }
    return rc;
}

int receipt_row_insert_begin(sqlite3 *db, sqlite3_stmt **ret, struct un_error *err)
{
    un_autobuf struct un_buf sql = {0};

    if (un_buf_append_str(&sql, "INSERT OR IGNORE INTO receipts(") < 0 ||
        append_columns(&sql, NULL) < 0 || un_buf_append_str(&sql, ") VALUES(") < 0 ||
        append_columns(&sql, "?") < 0 || un_buf_append_str(&sql, ")") < 0) {
        return un_error_set(err, -ENOMEM, "write receipts: out of memory");
    }
    return store_prepare(db, ret, err, (const char *)sql.data, "");
}

static int bind_calls(sqlite3_stmt *stmt, int at, const struct unid_report *report, bool made)
{
    char text[COUNTED_TEXT_SIZE];

    (made ? counted_made_text : counted_missing_text)(report, text);
    return sqlite3_bind_text(stmt, at, text, -1, SQLITE_TRANSIENT);
}

static int bind_column(sqlite3_stmt *stmt, int at, const struct column *c, const void *member)
{
    switch (c->type) {
    case COLUMN_TEXT:
        return sqlite3_bind_text(stmt, at, member, -1, SQLITE_STATIC);
    case COLUMN_U64:
        return sqlite3_bind_int64(stmt, at, (sqlite3_int64) * (const uint64_t *)member);
    case COLUMN_U32:
        return sqlite3_bind_int64(stmt, at, *(const uint32_t *)member);
    case COLUMN_BOOL:
        return sqlite3_bind_int(stmt, at, *(const bool *)member);
    case COLUMN_MISSING:
    case COLUMN_MADE:
        return bind_calls(stmt, at, member, c->type == COLUMN_MADE);
    }
    return SQLITE_MISUSE;
}

int receipt_row_insert(sqlite3 *db, sqlite3_stmt *insert, const struct receipt *r,
                       struct un_error *err)
{
    int rc = SQLITE_OK;

    for (size_t i = 0; i < UN_ARRAY_SIZE(columns) && rc == SQLITE_OK; i++) {
        rc = bind_column(insert, (int)i + 1, &columns[i], (const char *)r + columns[i].offset);
    }
    if (rc != SQLITE_OK) {
        return store_sql_error(db, rc, "write a receipt", err);
    }
    rc = store_step(insert, err);
    sqlite3_reset(insert);
    return rc < 0 ? rc : sqlite3_changes(db);
}

static void read_column(sqlite3_stmt *stmt, int at, const struct column *c, void *member)
{
    const unsigned char *text;

    switch (c->type) {
    case COLUMN_TEXT:
        text = sqlite3_column_text(stmt, at);
        snprintf(member, c->size, "%s", text ? (const char *)text : "");
        break;
    case COLUMN_U64:
        *(uint64_t *)member = (uint64_t)sqlite3_column_int64(stmt, at);
        break;
    case COLUMN_U32:
        *(uint32_t *)member = (uint32_t)sqlite3_column_int64(stmt, at);
        break;
    case COLUMN_BOOL:
        *(bool *)member = sqlite3_column_int(stmt, at) != 0;
        break;
    case COLUMN_MISSING:
        text = sqlite3_column_text(stmt, at);
        counted_read_missing(text ? (const char *)text : "", member);
        break;
    case COLUMN_MADE:
        text = sqlite3_column_text(stmt, at);
        counted_read_made(text ? (const char *)text : "", member);
        break;
    }
}

/* The query's text, and the values for its marks in order. */
static int build_select(const struct receipt_filter *f, struct un_buf *sql, const char **values,
                        size_t *ret_count)
{
    size_t n = 0;
    int rc = un_buf_append_str(sql, "SELECT ");

    rc = rc == 0 ? append_columns(sql, NULL) : rc;
    rc = rc == 0 ? un_buf_append_str(sql, " FROM receipts WHERE 1") : rc;
    if (rc == 0 && f->id[0]) {
        rc = un_buf_append_str(sql, " AND id = ?");
        values[n++] = f->id;
    }
    if (rc == 0 && f->function[0]) {
        rc = un_buf_append_str(sql, " AND function = ?");
        values[n++] = f->function;
    }
    if (rc == 0 && f->trigger[0]) {
        rc = un_buf_append_str(sql, " AND trigger_name <> '' AND trigger_name = ?");
        values[n++] = f->trigger;
    }
    if (rc == 0 && strcmp(f->outcome, "failed") == 0) {
        rc = un_buf_append_str(sql, " AND outcome <> 'ok'");
    } else if (rc == 0 && f->outcome[0]) {
        /* What is implied is said for the index of those that are not ok. */
        rc = un_buf_append_str(sql, strcmp(f->outcome, "ok") == 0
                                        ? " AND outcome = ?"
                                        : " AND outcome <> 'ok' AND outcome = ?");
        values[n++] = f->outcome;
    }
    if (rc == 0 && f->before_id[0]) {
        rc = un_buf_printf(sql, " AND (id, attempt) < (?, %u)", f->before_attempt);
        values[n++] = f->before_id;
    }
    if (rc == 0 && f->status) {
        rc = un_buf_printf(sql, " AND status = %u", f->status);
    }
    if (rc == 0 && f->since_id[0]) {
        rc = un_buf_append_str(sql, " AND id >= ?");
        values[n++] = f->since_id;
    }
    *ret_count = n;
    return rc == 0 ? un_buf_printf(sql, " ORDER BY id DESC, attempt DESC LIMIT %u", f->limit) : rc;
}

int receipt_row_select(sqlite3 *db, const struct receipt_filter *f, struct receipt_list *list,
                       struct un_error *err)
{
    un_autobuf struct un_buf sql = {0};
    const char *values[6];
    sqlite3_stmt *stmt = NULL;
    size_t count;
    int rc;

    if (build_select(f, &sql, values, &count) < 0) {
        return un_error_set(err, -ENOMEM, "read receipts: out of memory");
    }
    rc = store_prepare(db, &stmt, err, (const char *)sql.data, "");
    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < count; i++) {
        sqlite3_bind_text(stmt, (int)i + 1, values[i], -1, SQLITE_STATIC);
    }
    while ((rc = store_step(stmt, err)) == 1) {
        struct receipt r = {0};

        for (size_t i = 0; i < UN_ARRAY_SIZE(columns); i++) {
            read_column(stmt, (int)i, &columns[i], (char *)&r + columns[i].offset);
        }
        if (receipt_list_add(list, &r) < 0) {
            rc = un_error_set(err, -ENOMEM, "read receipts: out of memory");
            break;
        }
    }
    sqlite3_finalize(stmt);
    return rc;
}

/* --- retention -------------------------------------------------------------------------------- */

static int count_rows(sqlite3 *db, int64_t *ret, struct un_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, "SELECT rows FROM receipt_count", "");

    if (rc == 0) {
        rc = store_step(stmt, err);
        *ret = rc == 1 ? sqlite3_column_int64(stmt, 0) : 0;
        rc = rc < 0 ? rc : 0;
    }
    sqlite3_finalize(stmt);
    return rc;
}

/* The number of rows removed, or a negative errno. An invocation gets its id before it starts, so rows
 * with younger ids need not be looked at. */
static int remove_oldest(sqlite3 *db, int64_t count, uint64_t older_than_us, struct un_error *err)
{
    char below[UN_ID_SIZE] = "~"; /* every id */
    if (older_than_us < INT64_MAX) {
        un_id_least(older_than_us + 1000, below);
    }
    int rc =
        store_exec(db, err,
                   "DELETE FROM receipts WHERE (id, attempt) IN (SELECT id, attempt FROM receipts"
                   " WHERE id IN (SELECT id FROM receipts WHERE id < ? ORDER BY id LIMIT ?)"
                   " AND started_at_us < ? ORDER BY id LIMIT ?)",
                   "tiii", below, count, (int64_t)older_than_us, count);

    return rc < 0 ? rc : sqlite3_changes(db);
}

int receipt_row_added(sqlite3 *db, unsigned added, struct un_error *err)
{
    return store_exec(db, err, "UPDATE receipt_count SET rows = rows + ?", "i", (int64_t)added);
}

int receipt_row_prune(sqlite3 *db, const struct receipt_retention *keep, unsigned added,
                      struct un_error *err)
{
    int64_t step = (int64_t)added + PRUNE_STEP, before = 0, rows, over, removed;
    int rc = count_rows(db, &before, err);

    if (rc < 0) {
        return rc;
    }
    rows = before + added;
    rc = remove_oldest(db, step, keep->oldest_us, err);
    if (rc >= 0) {
        rows -= rc;
        over = rows - (int64_t)keep->max_rows;
        rc = over > 0 ? remove_oldest(db, over < step ? over : step, INT64_MAX, err) : 0;
    }
    if (rc >= 0) {
        rows -= rc;
        removed = before + added - rows;
        rc = rows == before ? 0
                            : store_exec(db, err, "UPDATE receipt_count SET rows = ?", "i", rows);
    }
    return rc < 0 ? rc : (int)removed;
}
