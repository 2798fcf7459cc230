/* deadletter.c - the events that were given up: listing, redriving, removing (async.h).
 *
 * They are rows of the durable queue in the state DEAD, so that giving up and redriving move no
 * bytes, and each happens in one statement.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "scheduler/async/async_impl.h"

enum { STEP = 1000 }; /* rows changed in one job: others get their turn in between */

static void copy_name(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from ? from : "");
}

/* --- reading ---------------------------------------------------------------------------------- */

struct letter {
    struct deadletter info;
    char *texts[8]; /* what info's strings point to */
    struct async_event *event;
};

struct read_job {
    struct store_job job;
    struct scheduler *s;
    deadletter_list_cb cb;
    void *arg;
    char function[64], trigger[64], before_id[UN_ID_SIZE], id[UN_ID_SIZE];
    unsigned limit;
    struct letter *letters;
    size_t count;
};

static void read_job_free(struct read_job *j)
{
    for (size_t i = 0; i < j->count; i++) {
        for (size_t t = 0; t < UN_ARRAY_SIZE(j->letters[i].texts); t++) {
            free(j->letters[i].texts[t]);
        }
        async_event_free(j->letters[i].event);
    }
    free(j->letters);
    free(j);
}

#define LETTER_COLUMNS                                                                             \
    "SELECT q.id, q.function, q.trigger_name, q.reason, q.outcome, q.attempt, q.accepted_us,"      \
    " q.died_us, e.qualifier, e.url, e.content_type, e.fields, length(e.body), q.seq"              \
    " FROM async_queue AS q LEFT JOIN async_events AS e ON e.seq = q.seq WHERE q.state = 3"

static int read_letter(sqlite3_stmt *stmt, struct letter *l)
{
    static const int columns[] = {1, 2, 3, 4, 8, 9, 10, 11};
    struct deadletter *d = &l->info;
    const unsigned char *id = sqlite3_column_text(stmt, 0);
    bool failed = false;

    copy_name(d->id, sizeof(d->id), (const char *)id);
    for (size_t i = 0; i < UN_ARRAY_SIZE(columns); i++) {
        l->texts[i] = async_column_text(stmt, columns[i], &failed);
    }
    d->function = l->texts[0];
    d->trigger = l->texts[1];
    d->reason = l->texts[2] ? l->texts[2] : "";
    d->outcome = l->texts[3] ? l->texts[3] : "";
    d->qualifier = l->texts[4];
    d->url = l->texts[5];
    d->content_type = l->texts[6];
    d->fields = l->texts[7] ? l->texts[7] : "";
    d->attempts = (unsigned)sqlite3_column_int64(stmt, 5);
    d->accepted_at_us = (uint64_t)sqlite3_column_int64(stmt, 6);
    d->died_at_us = (uint64_t)sqlite3_column_int64(stmt, 7);
    d->body_len = (size_t)sqlite3_column_int64(stmt, 12);
    return failed ? -ENOMEM : 0;
}

/* The filter's text, and its values in order. */
static int build_select(const struct read_job *j, struct un_buf *sql, const char **values,
                        int *ret_count)
{
    int n = 0, rc = un_buf_append_str(sql, LETTER_COLUMNS);

    if (j->id[0]) {
        rc = un_buf_append_str(sql, " AND q.id = ?");
        values[n++] = j->id;
    }
    if (rc == 0 && j->function[0]) {
        rc = un_buf_append_str(sql, " AND q.function = ?");
        values[n++] = j->function;
    }
    if (rc == 0 && j->trigger[0]) {
        rc = un_buf_append_str(sql, " AND q.trigger_name = ?");
        values[n++] = j->trigger;
    }
    if (rc == 0 && j->before_id[0]) {
        rc = un_buf_append_str(sql, " AND q.id < ?");
        values[n++] = j->before_id;
    }
    *ret_count = n;
    return rc == 0 ? un_buf_printf(sql, " ORDER BY q.id DESC LIMIT %u", j->limit) : rc;
}

static int add_body(sqlite3 *db, struct letter *l, int64_t seq, struct un_error *err)
{
    int rc = async_event_read(db, seq, &l->event, err);

    if (rc == 0) {
        l->info.body = l->event->body;
        l->info.body_len = l->event->body_len;
    }
    return rc;
}

static int read_letters(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct read_job *j = un_container_of(job, struct read_job, job);
    un_autobuf struct un_buf sql = {0};
    store_autostmt sqlite3_stmt *stmt = NULL;
    const char *values[4];
    int count, rc;

    j->letters = calloc(j->limit, sizeof(*j->letters));
    if (!j->letters || build_select(j, &sql, values, &count) < 0) {
        return un_error_set(err, -ENOMEM, "list dead letters: out of memory");
    }
    rc = store_prepare(db, &stmt, err, (const char *)sql.data, "");
    for (int i = 0; i < count && rc == 0; i++) {
        sqlite3_bind_text(stmt, i + 1, values[i], -1, SQLITE_STATIC);
    }
    while (rc == 0 && (rc = store_step(stmt, err)) == 1) {
        struct letter *l = &j->letters[j->count++];

        rc = read_letter(stmt, l) < 0
                 ? un_error_set(err, -ENOMEM, "list dead letters: out of memory")
             : j->id[0] ? add_body(db, l, sqlite3_column_int64(stmt, 13), err)
                        : 0;
    }
    return rc;
}

static void read_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct read_job *j = un_container_of(job, struct read_job, job);
    struct scheduler *s = j->s;
    struct un_error none = UN_ERROR_INIT;
    struct deadletter *list = calloc(j->count + 1, sizeof(*list));

    if (rc == 0 && !list) {
        rc = un_error_set(&none, -ENOMEM, "list dead letters: out of memory");
        err = &none;
    } else if (rc == 0 && j->id[0] && j->count == 0) {
        rc = un_error_set(&none, -ENOENT, "no dead letter %s", j->id);
        err = &none;
    }
    for (size_t i = 0; i < j->count && list; i++) {
        list[i] = j->letters[i].info;
    }
    j->cb(j->arg, rc, rc == 0 ? list : NULL, rc == 0 ? j->count : 0, err);
    free(list);
    read_job_free(j);
    sched_done(s);
}

static void read_start(struct scheduler *s, const struct deadletter_query *query, const char *id,
                       deadletter_list_cb cb, void *arg)
{
    struct read_job *j = calloc(1, sizeof(*j));
    struct un_error err = UN_ERROR_INIT;

    if (!j) {
        un_error_set(&err, -ENOMEM, "list dead letters: out of memory");
        cb(arg, -ENOMEM, NULL, 0, &err);
        return;
    }
    j->s = s;
    j->cb = cb;
    j->arg = arg;
    copy_name(j->id, sizeof(j->id), id);
    copy_name(j->function, sizeof(j->function), query->function);
    copy_name(j->trigger, sizeof(j->trigger), query->trigger);
    copy_name(j->before_id, sizeof(j->before_id), query->before_id);
    j->limit =
        query->limit > 0 && query->limit < LIMIT_PAGE_ITEMS ? query->limit : LIMIT_PAGE_ITEMS;
    j->job = (struct store_job){.access = STORE_READ, .run = read_letters, .done = read_done};
    sched_begin(s);
    store_submit(s->store, &j->job);
}

void deadletter_list(struct scheduler *s, const struct deadletter_query *query,
                     deadletter_list_cb cb, void *arg)
{
    read_start(s, query, NULL, cb, arg);
}

void deadletter_get(struct scheduler *s, const char *id, deadletter_list_cb cb, void *arg)
{
    read_start(s, &(struct deadletter_query){.limit = 1}, id, cb, arg);
}

/* --- changing --------------------------------------------------------------------------------- */

struct change_job {
    struct store_job job;
    struct scheduler *s;
    deadletter_cb cb; /* NULL: nobody asked, and the count is right already */
    void *arg;
    char id[UN_ID_SIZE], function[64], trigger[64];
    bool redrive; /* else remove */
    uint64_t now_us;
    uint64_t count; /* in all */
    unsigned step;  /* rows of the last job */
};

/* Which rows: the oldest STEP of what is asked for, each form with an index of its own. What dies
 * again meanwhile is not taken twice. */
static const char *chosen(const struct change_job *j)
{
    if (j->id[0]) {
        return "(SELECT seq FROM async_queue WHERE id = ?2 AND state = 3 AND died_us <= ?1"
               " AND ?3 = ?3 AND ?4 = ?4 AND ?5 > 0)";
    }
    if (j->function[0]) {
        return "(SELECT seq FROM async_queue WHERE state = 3 AND function = ?3 AND died_us <= ?1"
               " AND ?2 = '' AND (?4 = '' OR trigger_name = ?4) ORDER BY id LIMIT ?5)";
    }
    if (j->trigger[0]) {
        return "(SELECT seq FROM async_queue WHERE state = 3 AND trigger_name = ?4"
               " AND died_us <= ?1 AND ?2 = '' AND ?3 = '' ORDER BY id LIMIT ?5)";
    }
    return "(SELECT seq FROM async_queue WHERE state = 3 AND died_us <= ?1 AND ?2 = '' AND ?3 = ''"
           " AND ?4 = '' ORDER BY id LIMIT ?5)";
}

static int change_with(struct change_job *j, sqlite3 *db, const char *statement,
                       struct un_error *err)
{
    char sql[640];

    snprintf(sql, sizeof(sql), "%s WHERE seq IN %s", statement, chosen(j));
    return store_exec(db, err, sql, "ittti", (int64_t)j->now_us, j->id, j->function, j->trigger,
                      (int64_t)STEP);
}

static int change_rows(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct change_job *j = un_container_of(job, struct change_job, job);
    int rc;

    if (j->redrive) {
        rc = change_with(j, db,
                         "UPDATE async_queue SET state = 0, failures = 0, interruptions = 0,"
                         " accepted_us = ?1, due_us = ?1, delay_us = 0, died_us = 0,"
                         " outcome = NULL, reason = NULL",
                         err);
    } else {
        rc = change_with(j, db, "DELETE FROM async_events", err);
        rc = rc == 0 ? change_with(j, db, "DELETE FROM async_queue", err) : rc;
    }
    j->step = rc == 0 ? (unsigned)sqlite3_changes(db) : 0;
    return rc;
}

static void change_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct change_job *j = un_container_of(job, struct change_job, job);
    struct scheduler *s = j->s;
    struct async_queue *q = &s->async;
    struct un_error none = UN_ERROR_INIT;

    if (rc == 0) {
        j->count += j->step;
        if (q->loaded) {
            q->dead -= j->cb ? j->step < q->dead ? j->step : q->dead : 0;
            q->rows += j->redrive ? j->step : 0;
        }
        async_wake(s);
    }
    if (rc == 0 && j->step == STEP && j->cb && !s->closing) {
        store_submit(s->store, &j->job);
        return;
    }
    if (rc == 0 && j->id[0] && j->count == 0) {
        rc = un_error_set(&none, -ENOENT, "no dead letter %s", j->id);
        err = &none;
    }
    if (rc == 0 && j->count > 0) {
        sched_tell(s, &(struct sched_news){.kind = j->redrive ? NEWS_DEADLETTERS_REDRIVEN
                                                              : NEWS_DEADLETTERS_GONE,
                                           .id = j->id[0] ? j->id : NULL,
                                           .count = j->count});
    }
    if (j->cb) {
        j->cb(j->arg, rc, j->count, err);
    }
    free(j);
    sched_done(s);
}

static void change_start(struct scheduler *s, const struct change_job *wanted)
{
    struct change_job *j = malloc(sizeof(*j));
    struct un_error err = UN_ERROR_INIT;

    if (!j) {
        un_error_set(&err, -ENOMEM, "change dead letters: out of memory");
        if (wanted->cb) {
            wanted->cb(wanted->arg, -ENOMEM, 0, &err);
        }
        return;
    }
    *j = *wanted;
    j->s = s;
    j->now_us = sched_wall_us(s);
    j->job = (struct store_job){.access = STORE_WRITE, .run = change_rows, .done = change_done};
    sched_begin(s);
    store_submit(s->store, &j->job);
}

static void change_one(struct scheduler *s, const char *id, struct change_job j)
{
    copy_name(j.id, sizeof(j.id), id);
    change_start(s, &j);
}

static void change_all(struct scheduler *s, const struct deadletter_query *query,
                       struct change_job j)
{
    copy_name(j.function, sizeof(j.function), query->function);
    copy_name(j.trigger, sizeof(j.trigger), query->trigger);
    change_start(s, &j);
}

void deadletter_redrive(struct scheduler *s, const char *id, deadletter_cb cb, void *arg)
{
    change_one(s, id, (struct change_job){.cb = cb, .arg = arg, .redrive = true});
}

void deadletter_redrive_all(struct scheduler *s, const struct deadletter_query *query,
                            deadletter_cb cb, void *arg)
{
    change_all(s, query, (struct change_job){.cb = cb, .arg = arg, .redrive = true});
}

void deadletter_remove(struct scheduler *s, const char *id, deadletter_cb cb, void *arg)
{
    change_one(s, id, (struct change_job){.cb = cb, .arg = arg});
}

void deadletter_remove_all(struct scheduler *s, const struct deadletter_query *query,
                           deadletter_cb cb, void *arg)
{
    change_all(s, query, (struct change_job){.cb = cb, .arg = arg});
}

void deadletter_prune(struct scheduler *s)
{
    un_log(UN_LOG_WARN, "there are too many dead letters; the oldest are removed");
    s->async.dead -= STEP; /* so that it is not asked for again meanwhile */
    change_start(s, &(struct change_job){0});
}
