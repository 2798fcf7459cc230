/* log_store.c - reading and following the logs of guests. Writing them is part of receipt.c's
 * batches: one row an invocation, in the packed form of guest_log.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "scheduler/record/log_row.h"
#include "scheduler/scheduler_impl.h"

/* --- following -------------------------------------------------------------------------------- */

struct log_follower {
    struct un_list node;
    char function[64];
    void (*fn)(void *arg, const struct log_line *line);
    void *arg;
};

struct log_follower *log_follow(struct scheduler *s, const char *function,
                                void (*fn)(void *arg, const struct log_line *line), void *arg)
{
    struct log_follower *f = calloc(1, sizeof(*f));

    if (f) {
        snprintf(f->function, sizeof(f->function), "%s", function);
        f->fn = fn;
        f->arg = arg;
        un_list_push(&s->followers, &f->node);
    }
    return f;
}

void log_unfollow(struct log_follower *f)
{
    if (f) {
        un_list_remove(&f->node);
        free(f);
    }
}

void log_tell(struct scheduler *s, const char *function, const struct log_line *line)
{
    un_list_for_each_safe (it, &s->followers) {
        struct log_follower *f = un_list_entry(it, struct log_follower, node);

        if (strcmp(f->function, function) == 0) {
            f->fn(f->arg, line);
        }
    }
}

/* --- reading ---------------------------------------------------------------------------------- */

/* The packed log of one invocation, or a piece of a console (console_id). */
struct piece {
    char id[UN_ID_SIZE];
    char *text;
    bool stored; /* from the database: complete, so it stands for one from memory too */
};

struct log_job {
    struct store_job job;
    struct scheduler *s;
    char function[64];
    unsigned limit;
    log_list_cb cb;
    void *arg;
    struct piece *pieces;
    size_t piece_count, piece_cap;
    struct log_line *lines;
    size_t line_count, line_cap;
};

/* Takes `text`, which may be NULL after a failed allocation. */
static int add_piece(struct log_job *j, const char *id, char *text, bool stored)
{
    if (text && j->piece_count == j->piece_cap) {
        size_t cap = j->piece_cap ? j->piece_cap * 2 : 16;
        struct piece *pieces = reallocarray(j->pieces, cap, sizeof(*pieces));

        if (pieces) {
            j->pieces = pieces;
            j->piece_cap = cap;
        }
    }
    if (!text || j->piece_count == j->piece_cap) {
        free(text);
        return -ENOMEM;
    }
    struct piece *p = &j->pieces[j->piece_count++];
    snprintf(p->id, sizeof(p->id), "%s", id);
    p->text = text;
    p->stored = stored;
    return 0;
}

static void add_record(void *arg, struct record *r)
{
    struct log_job *j = arg;

    if (r->log.lines.len > 0 && strcmp(r->receipt.function, j->function) == 0) {
        (void)add_piece(j, r->receipt.id,
                        strndup((const char *)r->log.lines.data, r->log.lines.len), false);
    }
}

static void add_console(void *arg, const char *id, const char *text, size_t len)
{
    (void)add_piece(arg, id, strndup(text, len), false);
}

static size_t count_lines(const char *text)
{
    size_t n = 0;

    for (const char *p = strchr(text, '\n'); p; p = strchr(p + 1, '\n')) {
        n++;
    }
    return n;
}

static int read_logs(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct log_job *j = un_container_of(job, struct log_job, job);
    sqlite3_stmt *stmt = NULL;
    size_t lines = 0;
    int rc = store_prepare(db, &stmt, err,
                           "SELECT id, text FROM guest_logs WHERE function = ? ORDER BY seq DESC",
                           "t", j->function);

    while (rc == 0 && lines < j->limit && (rc = store_step(stmt, err)) == 1) {
        const void *text = sqlite3_column_blob(stmt, 1);
        char *copy = strndup(text ? text : "", (size_t)sqlite3_column_bytes(stmt, 1));

        lines += copy ? count_lines(copy) : 0;
        rc = add_piece(j, (const char *)sqlite3_column_text(stmt, 0), copy, true);
        if (rc < 0) {
            un_error_set(err, rc, "read logs: out of memory");
        }
    }
    sqlite3_finalize(stmt);
    return rc < 0 ? rc : 0;
}

static int add_line(struct log_job *j, const struct log_line *line)
{
    if (j->line_count == j->line_cap) {
        size_t cap = j->line_cap ? j->line_cap * 2 : 64;
        struct log_line *lines = reallocarray(j->lines, cap, sizeof(*lines));

        if (!lines) {
            return -ENOMEM;
        }
        j->lines = lines;
        j->line_cap = cap;
    }
    j->lines[j->line_count++] = *line;
    return 0;
}

static int by_id(const void *va, const void *vb)
{
    const struct piece *a = va, *b = vb;
    int order = strcmp(a->id, b->id);

    return order != 0 ? order : (int)b->stored - (int)a->stored;
}

static int by_time(const void *va, const void *vb)
{
    const struct log_line *a = va, *b = vb;

    if (a->at_us != b->at_us) {
        return a->at_us < b->at_us ? -1 : 1;
    }
    return a->text < b->text ? -1 : a->text > b->text; /* the order within a piece */
}

/* Lines out of the pieces, an invocation that is there twice once. */
static int unpack(struct log_job *j)
{
    if (j->piece_count > 1) {
        qsort(j->pieces, j->piece_count, sizeof(*j->pieces), by_id);
    }
    for (size_t i = 0; i < j->piece_count; i++) {
        struct log_line line = {0};
        char *at = j->pieces[i].text;

        if (i > 0 && strcmp(j->pieces[i].id, j->pieces[i - 1].id) == 0 && j->pieces[i - 1].stored) {
            j->pieces[i].stored = true;
            continue;
        }
        if (!console_id(j->pieces[i].id)) {
            memcpy(line.invocation_id, j->pieces[i].id, sizeof(line.invocation_id));
        }
        while (guest_log_next(&at, &line.at_us, &line.text)) {
            if (add_line(j, &line) < 0) {
                return -ENOMEM;
            }
        }
    }
    if (j->line_count > 1) {
        qsort(j->lines, j->line_count, sizeof(*j->lines), by_time);
    }
    return 0;
}

static void logs_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct log_job *j = un_container_of(job, struct log_job, job);
    struct scheduler *s = j->s;
    struct un_error mine = UN_ERROR_INIT;
    size_t skip;

    if (rc == 0 && unpack(j) < 0) {
        rc = un_error_set(&mine, -ENOMEM, "read logs: out of memory");
        err = &mine;
    }
    skip = j->line_count > j->limit ? j->line_count - j->limit : 0;
    if (rc < 0) {
        j->cb(j->arg, rc, NULL, 0, err);
    } else {
        j->cb(j->arg, 0, j->lines ? j->lines + skip : NULL, j->line_count - skip, &mine);
    }
    for (size_t i = 0; i < j->piece_count; i++) {
        free(j->pieces[i].text);
    }
    free(j->pieces);
    free(j->lines);
    free(j);
    sched_done(s);
}

void log_list(struct scheduler *s, const char *function, unsigned limit, log_list_cb cb, void *arg)
{
    struct log_job *j = calloc(1, sizeof(*j));

    if (!j) {
        struct un_error err = UN_ERROR_INIT;

        un_error_set(&err, -ENOMEM, "read logs: out of memory");
        cb(arg, -ENOMEM, NULL, 0, &err);
        return;
    }
    j->s = s;
    j->cb = cb;
    j->arg = arg;
    j->limit = limit > 0 && limit < LIMIT_PAGE_ITEMS ? limit : LIMIT_PAGE_ITEMS;
    snprintf(j->function, sizeof(j->function), "%s", function);
    j->job = (struct store_job){.access = STORE_READ, .run = read_logs, .done = logs_done};
    records_each(s, add_record, j);
    un_list_for_each (it, &s->calls) /* what runs has a log already, too */
    {
        add_record(j, un_list_entry(it, struct sched_call, node)->record);
    }
    console_each(s, j->function, add_console, j);
    sched_begin(s);
    store_submit(s->store, &j->job);
}

struct log_retention log_keep(const struct scheduler *s)
{
    return (struct log_retention){s->set.logs_max_bytes, un_clock_ago_us(s->set.logs_max_age_us)};
}
