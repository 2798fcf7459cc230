/* event.c - an event of the durable queue: from its spec, to its rows, and back.
 *
 * `texts` says once which member is which column of async_events; numbers and the body follow them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/endpoint.h"
#include "scheduler/async/async_impl.h"

/* --- memory ----------------------------------------------------------------------------------- */

#define TEXT(member) offsetof(struct async_event, member)

static const struct {
    const char *column;
    size_t offset;
} texts[] = {
    {"qualifier", TEXT(qualifier)},
    {"url", TEXT(url)},
    {"content_type", TEXT(content_type)},
    {"fields", TEXT(fields)},
    {"on_success", TEXT(on_success)},
    {"on_failure", TEXT(on_failure)},
    {"source", TEXT(source)},
    {"sink", TEXT(sink)},
};

static char **text_of(const struct async_event *e, size_t i)
{
    return (char **)((char *)e + texts[i].offset);
}

void async_event_free(struct async_event *e)
{
    if (!e) {
        return;
    }
    for (size_t i = 0; i < UN_ARRAY_SIZE(texts); i++) {
        free(*text_of(e, i));
    }
    free(e->function);
    free(e->trigger);
    free(e->body);
    free(e);
}

void async_event_lane(const struct async_event *e, char ret[ASYNC_LANE_SIZE])
{
    const char *authority;

    if (!e->url) {
        snprintf(ret, ASYNC_LANE_SIZE, "%s", e->function);
        return;
    }
    authority = strstr(e->url, "://");
    authority = authority ? authority + 3 : e->url;
    snprintf(ret, ASYNC_LANE_SIZE, ASYNC_LANE_URL "%.*s", (int)strcspn(authority, "/?#"),
             authority);
}

/* --- from a spec ------------------------------------------------------------------------------ */

/* With a host at least. */
static bool is_url(const char *text)
{
    size_t scheme = un_url_scheme(text);

    return scheme && strcspn(text + scheme, ":/?#") > 0;
}

static bool printable(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == 127) {
            return false;
        }
    }
    return true;
}

/* A version's number or an alias. */
static bool is_qualifier(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");

    return len > 0 && len < 64 && !text[len];
}

static int check_destination(const char *name, const char *to, struct un_error *err)
{
    const char *colon;
    char function[64];

    if (!to) {
        return 0;
    }
    if (is_url(to)) {
        if (strlen(to) > LIMIT_ASYNC_URL_BYTES || !printable(to) || strchr(to, ' ')) {
            return un_error_set(err, -EINVAL,
                                "%s: a URL has at most %d characters, none of them a "
                                "space or control character",
                                name, LIMIT_ASYNC_URL_BYTES);
        }
        return 0;
    }
    colon = strchrnul(to, ':');
    if (colon - to < (ptrdiff_t)sizeof(function)) {
        snprintf(function, sizeof(function), "%.*s", (int)(colon - to), to);
        if (function_name_valid(function) && (!*colon || is_qualifier(colon + 1))) {
            return 0;
        }
    }
    return un_error_set(
        err, -EINVAL,
        "%s: must be a function's name, also with \":\" and an alias or version, or "
        "a URL like http://HOST/ or https://HOST/",
        name);
}

static int check_lengths(const struct async_spec *spec, struct un_error *err)
{
    if (spec->body_len > LIMIT_ASYNC_BODY_BYTES) {
        return un_error_set(err, -E2BIG, "the body has %zu bytes; queued work may have %d",
                            spec->body_len, LIMIT_ASYNC_BODY_BYTES);
    }
    if (strlen(spec->function) > 63 || (spec->qualifier && strlen(spec->qualifier) > 63) ||
        (spec->trigger && strlen(spec->trigger) > 63)) {
        return un_error_set(err, -EINVAL,
                            "names of functions, aliases and triggers have at most 63 characters");
    }
    if ((spec->source && strlen(spec->source) > LIMIT_ASYNC_SOURCE_BYTES) ||
        (spec->sink && strlen(spec->sink) > LIMIT_ASYNC_SOURCE_BYTES)) {
        return un_error_set(err, -E2BIG,
                            "where the body comes from, or the answer goes, has more "
                            "than %d bytes",
                            LIMIT_ASYNC_SOURCE_BYTES);
    }
    if (spec->sequencer && strlen(spec->sequencer) > LIMIT_ASYNC_SEQUENCER_BYTES) {
        return un_error_set(err, -E2BIG, "a sequencer has at most %d bytes",
                            LIMIT_ASYNC_SEQUENCER_BYTES);
    }
    if (spec->content_type &&
        (!printable(spec->content_type) || strlen(spec->content_type) > LIMIT_ASYNC_FIELDS_BYTES)) {
        return un_error_set(err, -EINVAL, "the content type has control characters");
    }
    return 0;
}

/* "name: value\r\n" each; NULL when there are none. */
static int join_fields(const struct async_spec *spec, char **ret, struct un_error *err)
{
    un_autobuf struct un_buf text = {0};
    int rc = 0;

    for (size_t i = 0; i < spec->field_count && rc == 0; i++) {
        const struct hv_field *f = &spec->fields[i];

        if (!printable(f->name) || strchr(f->name, ':') || !*f->name || !printable(f->value)) {
            return un_error_set(err, -EINVAL,
                                "a field of the request has no name, or control characters");
        }
        rc = un_buf_printf(&text, "%s: %s\r\n", f->name, f->value);
    }
    if (rc == 0 && text.len > LIMIT_ASYNC_FIELDS_BYTES) {
        return un_error_set(err, -E2BIG, "the request's fields have %zu bytes; it may be %d",
                            text.len, LIMIT_ASYNC_FIELDS_BYTES);
    }
    if (rc == 0 && text.len > 0) {
        *ret = strndup((const char *)text.data, text.len);
        rc = *ret ? 0 : -ENOMEM;
    }
    return rc < 0 ? un_error_set(err, -ENOMEM, "queue an event: out of memory") : 0;
}

static bool copy_text(char **to, const char *from)
{
    *to = from ? strdup(from) : NULL;
    return !from || *to;
}

static int copy_spec(struct async_event *e, const struct async_spec *spec, struct un_error *err)
{
    e->body = malloc(spec->body_len + 1);
    if (!e->body || !copy_text(&e->function, spec->function) ||
        !copy_text(&e->qualifier, spec->qualifier) || !copy_text(&e->trigger, spec->trigger) ||
        !copy_text(&e->content_type, spec->content_type) ||
        !copy_text(&e->on_success, spec->on_success) ||
        !copy_text(&e->on_failure, spec->on_failure) || !copy_text(&e->source, spec->source) ||
        !copy_text(&e->sink, spec->sink)) {
        return un_error_set(err, -ENOMEM, "queue an event: out of memory");
    }
    if (spec->body_len > 0) {
        memcpy(e->body, spec->body, spec->body_len);
    }
    e->body_len = spec->body_len;
    e->depth = spec->depth;
    e->due_us = spec->due_us;
    e->source_bytes = spec->source_bytes < LIMIT_ASYNC_OBJECT_BYTES ? spec->source_bytes
                                                                    : LIMIT_ASYNC_OBJECT_BYTES;
    un_id_new(e->id);
    return join_fields(spec, &e->fields, err);
}

int async_event_new(const struct async_spec *spec, struct async_event **ret, struct un_error *err)
{
    struct async_event *e;
    int rc = check_lengths(spec, err);

    rc = rc == 0 ? check_destination("on_success", spec->on_success, err) : rc;
    rc = rc == 0 ? check_destination("on_failure", spec->on_failure, err) : rc;
    if (rc < 0) {
        return rc;
    }
    e = calloc(1, sizeof(*e));
    rc = e ? copy_spec(e, spec, err) : un_error_set(err, -ENOMEM, "queue an event: out of memory");
    if (rc < 0) {
        async_event_free(e);
        return rc;
    }
    *ret = e;
    return 0;
}

uint64_t async_event_cost(const struct async_event *e)
{
    enum { UNKNOWN_SOURCE = 8 << 20 }; /* a photograph */
    uint64_t cost = e->body_len;

    if (e->source) {
        cost += e->source_bytes ? e->source_bytes : UNKNOWN_SOURCE;
    }
    if (e->on_success || e->sink) {
        cost += LIMIT_ASYNC_ANSWER_BYTES;
    }
    return cost;
}

/* --- rows ------------------------------------------------------------------------------------- */

static int insert_state(sqlite3 *db, struct async_event *e, uint64_t now_us, const char *reason,
                        struct un_error *err)
{
    char lane[ASYNC_LANE_SIZE];
    bool later = e->due_us > now_us;
    enum async_state state = reason ? ASYNC_DEAD : later ? ASYNC_DELAYED : ASYNC_READY;
    int rc;

    e->accepted_us = now_us;
    async_event_lane(e, lane);
    rc =
        store_exec(db, err,
                   "INSERT INTO async_queue(id, lane, function, trigger_name, state, attempt,"
                   " failures, interruptions, due_us, delay_us, accepted_us, died_us, outcome,"
                   " reason, cost) VALUES(?, ?, ?, ?, ?, 0, 0, 0, ?, ?, ?, ?, ?, ?, ?)",
                   "ttttiiiiitti", e->id, lane, e->function, e->trigger, (int64_t)state,
                   (int64_t)(later ? e->due_us : now_us), (int64_t)(later ? e->due_us - now_us : 0),
                   (int64_t)now_us, (int64_t)(reason ? now_us : 0), reason ? "not-sent" : NULL,
                   reason, (int64_t)async_event_cost(e));
    e->seq = sqlite3_last_insert_rowid(db);
    return rc;
}

static int append_columns(struct un_buf *sql)
{
    int rc = 0;

    for (size_t i = 0; i < UN_ARRAY_SIZE(texts) && rc == 0; i++) {
        rc = un_buf_printf(sql, "%s, ", texts[i].column);
    }
    return rc == 0 ? un_buf_append_str(sql, "max_attempts, max_age_ms, backoff_base_ms,"
                                            " backoff_max_ms, depth, out_of_order, source_bytes,"
                                            " body")
                   : rc;
}

static int bind_event(sqlite3_stmt *stmt, const struct async_event *e)
{
    const int64_t numbers[] = {e->policy.max_attempts,
                               (int64_t)e->policy.max_age_ms,
                               e->policy.backoff_base_ms,
                               e->policy.backoff_max_ms,
                               e->depth,
                               e->out_of_order,
                               (int64_t)e->source_bytes};
    int at = 1, rc = sqlite3_bind_int64(stmt, at++, e->seq);

    for (size_t i = 0; i < UN_ARRAY_SIZE(texts) && rc == SQLITE_OK; i++) {
        rc = sqlite3_bind_text(stmt, at++, *text_of(e, i), -1, SQLITE_STATIC);
    }
    for (size_t i = 0; i < UN_ARRAY_SIZE(numbers) && rc == SQLITE_OK; i++) {
        rc = sqlite3_bind_int64(stmt, at++, numbers[i]);
    }
    return rc == SQLITE_OK ? sqlite3_bind_blob64(stmt, at, e->body, e->body_len, SQLITE_STATIC)
                           : rc;
}

int async_event_insert(sqlite3 *db, struct async_event *e, uint64_t now_us, const char *reason,
                       struct un_error *err)
{
    un_autobuf struct un_buf sql = {0};
    store_keptstmt sqlite3_stmt *stmt = NULL;
    int rc = insert_state(db, e, now_us, reason, err);

    if (rc < 0) {
        return rc;
    }
    if (un_buf_append_str(&sql, "INSERT INTO async_events(seq, ") < 0 || append_columns(&sql) < 0 ||
        un_buf_append_str(&sql, ") VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)") <
            0) {
        return un_error_set(err, -ENOMEM, "queue an event: out of memory");
    }
    rc = store_prepare_kept(db, &stmt, err, (const char *)sql.data, "");
    if (rc < 0) {
        return rc;
    }
    rc = bind_event(stmt, e);
    return rc == SQLITE_OK ? store_step(stmt, err) : store_sql_error(db, rc, "queue an event", err);
}

char *async_column_text(sqlite3_stmt *stmt, int column, bool *failed)
{
    const unsigned char *text = sqlite3_column_text(stmt, column);
    char *copy = text ? strdup((const char *)text) : NULL;

    *failed = *failed || (text && !copy);
    return copy;
}

static int read_event(sqlite3_stmt *stmt, struct async_event *e)
{
    int at = 0;
    bool failed = false;
    size_t len;

    for (size_t i = 0; i < UN_ARRAY_SIZE(texts); i++) {
        *text_of(e, i) = async_column_text(stmt, at++, &failed);
    }
    e->policy.max_attempts = (unsigned)sqlite3_column_int64(stmt, at++);
    e->policy.max_age_ms = (uint64_t)sqlite3_column_int64(stmt, at++);
    e->policy.backoff_base_ms = (uint32_t)sqlite3_column_int64(stmt, at++);
    e->policy.backoff_max_ms = (uint32_t)sqlite3_column_int64(stmt, at++);
    e->depth = (unsigned)sqlite3_column_int64(stmt, at++);
    e->out_of_order = sqlite3_column_int64(stmt, at++) != 0;
    e->source_bytes = (uint64_t)sqlite3_column_int64(stmt, at++);
    e->body_len = (size_t)sqlite3_column_bytes(stmt, at);
    e->body = malloc(e->body_len + 1);
    if (failed || !e->body) {
        return -ENOMEM;
    }
    len = e->body_len;
    if (len > 0) {
        memcpy(e->body, sqlite3_column_blob(stmt, at), len);
    }
    return 0;
}

static int read_state(sqlite3 *db, struct async_event *e, struct un_error *err)
{
    store_keptstmt sqlite3_stmt *stmt = NULL;
    bool failed = false;
    const unsigned char *id;
    int rc =
        store_prepare_kept(db, &stmt, err,
                           "SELECT id, function, trigger_name, attempt, failures, interruptions,"
                           " accepted_us, due_us FROM async_queue WHERE seq = ?",
                           "i", e->seq);

    rc = rc == 0 ? store_step(stmt, err) : rc;
    if (rc <= 0) {
        return rc < 0 ? rc : un_error_set(err, -ENOENT, "no such event");
    }
    id = sqlite3_column_text(stmt, 0);
    snprintf(e->id, sizeof(e->id), "%s", id ? (const char *)id : "");
    e->function = async_column_text(stmt, 1, &failed);
    e->trigger = async_column_text(stmt, 2, &failed);
    e->attempt = (unsigned)sqlite3_column_int64(stmt, 3);
    e->failures = (unsigned)sqlite3_column_int64(stmt, 4);
    e->interruptions = (unsigned)sqlite3_column_int64(stmt, 5);
    e->accepted_us = (uint64_t)sqlite3_column_int64(stmt, 6);
    e->due_us = (uint64_t)sqlite3_column_int64(stmt, 7);
    return failed || !e->function ? un_error_set(err, -ENOMEM, "read an event: out of memory") : 0;
}

static int read_rest(sqlite3 *db, struct async_event *e, struct un_error *err)
{
    un_autobuf struct un_buf sql = {0};
    store_keptstmt sqlite3_stmt *stmt = NULL;
    int rc;

    if (un_buf_append_str(&sql, "SELECT ") < 0 || append_columns(&sql) < 0 ||
        un_buf_append_str(&sql, " FROM async_events WHERE seq = ?") < 0) {
        return un_error_set(err, -ENOMEM, "read an event: out of memory");
    }
    rc = store_prepare_kept(db, &stmt, err, (const char *)sql.data, "i", e->seq);
    rc = rc == 0 ? store_step(stmt, err) : rc;
    if (rc <= 0) {
        return rc < 0 ? rc : un_error_set(err, -ENOENT, "no such event");
    }
    return read_event(stmt, e) < 0 ? un_error_set(err, -ENOMEM, "read an event: out of memory") : 0;
}

int async_event_read(sqlite3 *db, int64_t seq, struct async_event **ret, struct un_error *err)
{
    struct async_event *e = calloc(1, sizeof(*e));
    int rc;

    if (!e) {
        return un_error_set(err, -ENOMEM, "read an event: out of memory");
    }
    e->seq = seq;
    rc = read_state(db, e, err);
    rc = rc == 0 ? read_rest(db, e, err) : rc;
    if (rc < 0) {
        async_event_free(e);
        return rc;
    }
    *ret = e;
    return 0;
}

int async_event_delete(sqlite3 *db, int64_t seq, struct un_error *err)
{
    int rc = store_exec(db, err, "DELETE FROM async_queue WHERE seq = ?", "i", seq);

    return rc == 0 ? store_exec(db, err, "DELETE FROM async_events WHERE seq = ?", "i", seq) : rc;
}
