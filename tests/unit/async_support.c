/* async_support.c - see async_support.h. */
#include "async_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- submitting ------------------------------------------------------------------------------- */

static void on_accepted(void *arg, int rc, const struct async_accepted *list, size_t count,
                        const struct un_error *err)
{
    struct accepted *a = arg;

    a->rc = rc;
    a->answers++;
    a->count = count;
    assert_true(count <= ACCEPTED_MOST);
    if (count > 0) {
        memcpy(a->list, list, count * sizeof(*list));
    }
    if (rc < 0) {
        assert_int_equal(count, 0);
        snprintf(a->text, sizeof(a->text), "%.255s", err->text);
    }
}

static bool is_answered(void *arg)
{
    return ((struct accepted *)arg)->answers > 0;
}

struct accepted submit_spec(struct world *w, const struct async_spec *spec)
{
    struct accepted a = {0};

    async_submit(w->sched, spec, on_accepted, &a);
    assert_int_equal(a.answers, 0);
    world_until(w, is_answered, &a);
    assert_int_equal(a.answers, 1);
    return a;
}

struct accepted submit_many(struct world *w, const struct async_spec *specs, size_t count)
{
    struct accepted a = {0};

    async_submit_many(w->sched, specs, count, on_accepted, &a);
    assert_int_equal(a.answers, 0);
    world_until(w, is_answered, &a);
    assert_int_equal(a.answers, 1);
    return a;
}

struct accepted submit(struct world *w, const char *function, const void *body, size_t len)
{
    const struct async_spec spec = {
        .function = function, .content_type = "text/plain", .body = body, .body_len = len};

    return submit_spec(w, &spec);
}

/* --- waiting ---------------------------------------------------------------------------------- */

struct pending {
    bool pending, answered;
};

static void on_pending(void *arg, bool pending)
{
    struct pending *p = arg;

    p->pending = pending;
    p->answered = true;
}

static bool pending_answered(void *arg)
{
    return ((struct pending *)arg)->answered;
}

bool is_pending(struct world *w, const char *id)
{
    struct pending p = {0};

    async_pending(w->sched, id, on_pending, &p);
    world_until(w, pending_answered, &p);
    return p.pending;
}

struct async_stats queue_stats(struct world *w)
{
    struct async_stats stats;

    async_get_stats(w->sched, &stats);
    return stats;
}

void pass_time(struct world *w, uint64_t us)
{
    const uint64_t step = us / 100 > 10 * MS ? us / 100 : 10 * MS;

    for (uint64_t passed = 0; passed < us; passed += step) {
        world_barrier(w);
        world_advance(w, step);
    }
    world_barrier(w);
    world_run(w);
}

void settle(struct world *w, uint64_t us)
{
    const uint64_t step = us / 1000 > 20 * MS ? us / 1000 : 20 * MS;
    struct async_stats stats;

    for (uint64_t passed = 0; passed <= us; passed += step) {
        world_barrier(w);
        world_advance(w, step);
        world_barrier(w);
        stats = queue_stats(w);
        if (stats.waiting == 0 && stats.running == 0 &&
            read_sql(w, "SELECT count(*) FROM async_queue WHERE state <> 3") == 0) {
            return;
        }
    }
    fail_msg("the queue is not empty: %llu wait, %u run", (unsigned long long)stats.waiting,
             stats.running);
}

/* --- dead letters ----------------------------------------------------------------------------- */

#define COPY(to, from) snprintf(to, sizeof(to), "%s", (from) ? (from) : "")

static void on_letters(void *arg, int rc, const struct deadletter *list, size_t count,
                       const struct un_error *err)
{
    struct letters *l = arg;

    l->rc = rc;
    l->answered = true;
    l->count = count;
    assert_true(count <= ACCEPTED_MOST);
    for (size_t i = 0; i < count; i++) {
        const struct deadletter *d = &list[i];

        COPY(l->list[i].id, d->id);
        COPY(l->list[i].function, d->function);
        COPY(l->list[i].trigger, d->trigger);
        COPY(l->list[i].reason, d->reason);
        COPY(l->list[i].outcome, d->outcome);
        COPY(l->list[i].url, d->url);
        COPY(l->list[i].fields, d->fields);
        COPY(l->list[i].content_type, d->content_type);
        l->list[i].attempts = d->attempts;
        l->list[i].body_len = d->body_len;
        if (d->body && d->body_len < sizeof(l->list[i].body)) {
            memcpy(l->list[i].body, d->body, d->body_len);
        }
        assert_true(d->died_at_us >= d->accepted_at_us);
    }
}

static bool letters_answered(void *arg)
{
    return ((struct letters *)arg)->answered;
}

struct letters letters(struct world *w, const struct deadletter_query *query)
{
    struct letters l = {0};

    deadletter_list(w->sched, query, on_letters, &l);
    world_until(w, letters_answered, &l);
    return l;
}

struct letters letter(struct world *w, const char *id)
{
    struct letters l = {0};

    deadletter_get(w->sched, id, on_letters, &l);
    world_until(w, letters_answered, &l);
    return l;
}

static void on_changed(void *arg, int rc, uint64_t count, const struct un_error *err)
{
    *(struct changed *)arg = (struct changed){.rc = rc, .answered = true, .count = count};
}

static bool changed_answered(void *arg)
{
    return ((struct changed *)arg)->answered;
}

struct changed redrive(struct world *w, const char *id)
{
    struct changed c = {0};

    deadletter_redrive(w->sched, id, on_changed, &c);
    world_until(w, changed_answered, &c);
    return c;
}

struct changed redrive_all(struct world *w, const struct deadletter_query *query)
{
    struct changed c = {0};

    deadletter_redrive_all(w->sched, query, on_changed, &c);
    world_until(w, changed_answered, &c);
    return c;
}

struct changed remove_all(struct world *w, const struct deadletter_query *query)
{
    struct changed c = {0};

    deadletter_remove_all(w->sched, query, on_changed, &c);
    world_until(w, changed_answered, &c);
    return c;
}

struct changed remove_letter(struct world *w, const char *id)
{
    struct changed c = {0};

    deadletter_remove(w->sched, id, on_changed, &c);
    world_until(w, changed_answered, &c);
    return c;
}

/* --- receipts and rows ------------------------------------------------------------------------ */

struct count {
    const char *id, *outcome;
    unsigned count;
    bool answered;
};

static void on_receipts(void *arg, int rc, const struct receipt *list, size_t count,
                        const struct un_error *err)
{
    struct count *c = arg;

    assert_int_equal(rc, 0);
    c->answered = true;
    for (size_t i = 0; i < count; i++) {
        c->count += strcmp(list[i].id, c->id) == 0 &&
                    (!c->outcome || strcmp(list[i].outcome, c->outcome) == 0);
    }
}

static bool count_answered(void *arg)
{
    return ((struct count *)arg)->answered;
}

unsigned receipts_of(struct world *w, const char *id, const char *outcome)
{
    struct count c = {.id = id, .outcome = outcome};

    receipt_list(w->sched, &(struct receipt_query){.limit = 1000}, on_receipts, &c);
    world_until(w, count_answered, &c);
    return c.count;
}

struct sql_job {
    struct store_job job;
    const char *sql;
    int64_t number;
};

static int run_text(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct sql_job *j = (struct sql_job *)job; /* its first member */
    sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, j->sql, "");

    if (rc == 0) {
        rc = store_step(stmt, err);
        j->number = rc == 1 ? sqlite3_column_int64(stmt, 0) : 0;
    }
    sqlite3_finalize(stmt);
    return rc < 0 ? rc : 0;
}

int64_t read_sql(struct world *w, const char *sql)
{
    struct sql_job j = {.job = {.access = STORE_WRITE, .run = run_text}, .sql = sql};
    struct un_error err = UN_ERROR_INIT;

    if (store_run_blocking(w->store, &j.job, &err) < 0) {
        fail_msg("%s: %s", sql, err.text);
    }
    return j.number;
}

static int run_all(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    int rc = sqlite3_exec(db, ((struct sql_job *)job)->sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? 0 : store_sql_error(db, rc, "a test's SQL", err);
}

void run_sql(struct world *w, const char *sql)
{
    struct sql_job j = {.job = {.access = STORE_WRITE, .run = run_all}, .sql = sql};
    struct un_error err = UN_ERROR_INIT;

    if (store_run_blocking(w->store, &j.job, &err) < 0) {
        fail_msg("%s: %s", sql, err.text);
    }
}
