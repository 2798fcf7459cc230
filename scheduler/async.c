/* async.c - the durable queue: invocations that were accepted to be run later (async.h).
 *
 * A row is inserted before the caller is told. To run some, a write job claims them: it raises
 * `attempt` and sets `running`, both durable before the run, and brings the bodies along, so that
 * at most LIMIT_ASYNC_RUNNING of them are in memory. What has run is deleted in the transaction
 * that writes its receipt (receipt.c). What could not run for reasons that pass (no place,
 * draining) gets a later due time. The first claim after the start takes `running` back from what a
 * killed process left.
 *
 * Due times are wall-clock; a row that is not due yet arms a timer.
 */
#include "scheduler/async.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "scheduler/scheduler_impl.h"

enum {
    RETRY_FIRST_US = 1000000,
    RETRY_MOST_US = 300000000,
    CLAIM_BYTES = 16 << 20, /* of bodies at a time; one is claimed in any case */
    ATTEMPTS_MOST = 20,     /* of what fails by our own fault: an image that cannot be read, say */
    CLAIM_FAILED_US = 1000000 /* pause when the database refuses */
};

/* --- submitting ------------------------------------------------------------------------------- */

struct submission {
    struct store_job job;
    struct un_post post;
    struct scheduler *s;
    async_accept_cb cb;
    void *arg;
    char id[UN_ID_SIZE];
    char *function, *qualifier, *content_type;
    void *body;
    size_t body_len;
    int64_t due_us;
    struct un_error err;
};

static void submission_free(struct submission *sub)
{
    if (sub) {
        free(sub->function);
        free(sub->qualifier);
        free(sub->content_type);
        free(sub->body);
        free(sub);
    }
}

static void submission_end(struct submission *sub, int rc, const struct un_error *err)
{
    struct scheduler *s = sub->s;

    sub->cb(sub->arg, rc, sub->id, err);
    submission_free(sub);
    sched_done(s);
}

static int insert_row(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct submission *sub = un_container_of(job, struct submission, job);

    return store_exec(
        db, err,
        "INSERT INTO async_queue(id, function, qualifier, content_type, body, attempt,"
        " due_us, running) VALUES(?, ?, ?, ?, ?, 0, ?, 0)",
        "ttttbi", sub->id, sub->function, sub->qualifier, sub->content_type, sub->body,
        sub->body_len, sub->due_us);
}

static void insert_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct submission *sub = un_container_of(job, struct submission, job);
    struct scheduler *s = sub->s;

    if (rc == 0 && s->async.rows != UINT64_MAX) {
        s->async.rows++;
    }
    if (rc == 0) {
        async_wake(s);
    }
    submission_end(sub, rc, err);
}

static void on_refused(void *arg)
{
    struct submission *sub = arg;

    submission_end(sub, sub->err.code, &sub->err);
}

static void insert(struct submission *sub)
{
    sub->due_us = (int64_t)sched_wall_us(sub->s);
    sub->job = (struct store_job){.access = STORE_WRITE, .run = insert_row, .done = insert_done};
    store_submit(sub->s->store, &sub->job);
}

static void on_version(void *arg, int rc, struct function_version *v, const struct un_error *err)
{
    struct submission *sub = arg;

    if (rc < 0) {
        submission_end(sub, rc, err);
        return;
    }
    insert(sub);
}

/* What is wrong with the submission as it stands, in sub->err. */
static int check(struct submission *sub, const struct async_spec *spec)
{
    const struct scheduler *s = sub->s;

    if (spec->body_len > LIMIT_ASYNC_BODY_BYTES) {
        return un_error_set(&sub->err, -E2BIG, "the body has %zu bytes; queued work may have %d",
                            spec->body_len, LIMIT_ASYNC_BODY_BYTES);
    }
    if (s->async.rows != UINT64_MAX && s->async.rows >= LIMIT_ASYNC_ROWS) {
        return un_error_set(&sub->err, -ENOSPC, "%d invocations are queued already",
                            LIMIT_ASYNC_ROWS);
    }
    sub->function = strdup(spec->function);
    sub->qualifier = spec->qualifier ? strdup(spec->qualifier) : NULL;
    sub->content_type = spec->content_type ? strdup(spec->content_type) : NULL;
    sub->body = malloc(spec->body_len + 1);
    if (!sub->function || !sub->body || (spec->qualifier && !sub->qualifier) ||
        (spec->content_type && !sub->content_type)) {
        return un_error_set(&sub->err, -ENOMEM, "queue an invocation: out of memory");
    }
    if (spec->body_len > 0) {
        memcpy(sub->body, spec->body, spec->body_len);
    }
    sub->body_len = spec->body_len;
    return 0;
}

void async_submit(struct scheduler *s, const struct async_spec *spec, async_accept_cb cb, void *arg)
{
    struct submission *sub = calloc(1, sizeof(*sub));
    struct un_error err = UN_ERROR_INIT;

    if (!sub) { /* not even a post can be kept: the one case in which the answer comes at once */
        un_error_set(&err, -ENOMEM, "queue an invocation: out of memory");
        cb(arg, -ENOMEM, "", &err);
        return;
    }
    sub->s = s;
    sub->cb = cb;
    sub->arg = arg;
    un_id_new(sub->id);
    sched_begin(s);
    if (check(sub, spec) < 0) {
        sub->post = (struct un_post){.fn = on_refused, .arg = sub};
        un_loop_post(s->loop, &sub->post);
    } else if (function_peek(s->registry, sub->function, sub->qualifier)) {
        insert(sub);
    } else {
        function_resolve(s->registry, sub->function, sub->qualifier, on_version, sub);
    }
}

/* --- asking ----------------------------------------------------------------------------------- */

struct pending_job {
    struct store_job job;
    struct scheduler *s;
    async_pending_cb cb;
    void *arg;
    char id[UN_ID_SIZE];
    bool found;
};

static int find_row(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct pending_job *j = un_container_of(job, struct pending_job, job);
    sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, "SELECT 1 FROM async_queue WHERE id = ?", "t", j->id);

    rc = rc == 0 ? store_step(stmt, err) : rc;
    j->found = rc == 1;
    sqlite3_finalize(stmt);
    return rc < 0 ? rc : 0;
}

static void find_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct pending_job *j = un_container_of(job, struct pending_job, job);
    struct scheduler *s = j->s;

    j->cb(j->arg, rc == 0 && j->found);
    free(j);
    sched_done(s);
}

void async_pending(struct scheduler *s, const char *id, async_pending_cb cb, void *arg)
{
    struct pending_job *j = calloc(1, sizeof(*j));

    if (!j) {
        cb(arg, false);
        return;
    }
    j->s = s;
    j->cb = cb;
    j->arg = arg;
    snprintf(j->id, sizeof(j->id), "%s", id);
    j->job = (struct store_job){.access = STORE_READ, .run = find_row, .done = find_done};
    sched_begin(s);
    store_submit(s->store, &j->job);
}

/* --- running ---------------------------------------------------------------------------------- */

/* A claimed row: in memory from the claim to the end of its call. */
struct entry {
    struct un_list node;
    struct scheduler *s;
    struct sched_call *call;
    char id[UN_ID_SIZE];
    char *function, *qualifier, *content_type;
    uint8_t *body;
    size_t body_len, body_at;
    unsigned attempt;
};

static void entry_free(struct entry *e)
{
    if (e) {
        free(e->function);
        free(e->qualifier);
        free(e->content_type);
        free(e->body);
        free(e);
    }
}

struct put_off {
    struct store_job job;
    struct scheduler *s;
    char id[UN_ID_SIZE];
    int64_t due_us;
};

static int put_off_row(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct put_off *p = un_container_of(job, struct put_off, job);

    return store_exec(db, err, "UPDATE async_queue SET running = 0, due_us = ? WHERE id = ?", "it",
                      p->due_us, p->id);
}

static void put_off_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct put_off *p = un_container_of(job, struct put_off, job);
    struct scheduler *s = p->s;

    if (rc < 0) {
        un_log(UN_LOG_WARN,
               "a queued invocation could not be put off; it runs again after a restart",
               "invocation", p->id, "error", err->text);
    }
    free(p);
    async_wake(s);
    sched_done(s);
}

/* Exponentially longer, from half of it to all of it. */
static uint64_t backoff_us(unsigned attempt)
{
    uint64_t us = RETRY_FIRST_US;
    uint32_t random;

    for (unsigned i = 1; i < attempt && us < RETRY_MOST_US; i++) {
        us *= 2;
    }
    us = us < RETRY_MOST_US ? us : RETRY_MOST_US;
    un_random(&random, sizeof(random));
    return us / 2 + random % (us / 2);
}

static void put_off(struct entry *e)
{
    struct scheduler *s = e->s;
    struct put_off *p = calloc(1, sizeof(*p));

    if (!p) {
        return; /* it stays marked as running, and runs again after a restart */
    }
    p->s = s;
    p->due_us = (int64_t)(sched_wall_us(s) + backoff_us(e->attempt));
    memcpy(p->id, e->id, sizeof(p->id));
    p->job = (struct store_job){.access = STORE_WRITE, .run = put_off_row, .done = put_off_done};
    sched_begin(s);
    store_submit(s->store, &p->job);
}

/* Whether the function did not have its run, for a reason that may pass. */
static bool try_again(const struct entry *e, const struct sched_outcome *o)
{
    switch (o->kind) {
    case SCHED_QUEUE_FULL:
    case SCHED_WAIT_EXPIRED:
    case SCHED_DRAINING:
        return true;
    case SCHED_CANNOT_RUN:
        return o->retry_after_s > 0;
    case SCHED_INTERNAL:
        return e->attempt < ATTEMPTS_MOST;
    default:
        return false;
    }
}

static void feed(void *arg)
{
    struct entry *e = arg;
    size_t piece = LIMIT_BODY_BUFFER_BYTES / 2, left;
    bool more = true;

    while (more && e->body_at < e->body_len) {
        left = e->body_len - e->body_at;
        piece = left < piece ? left : piece;
        e->body_at += piece;
        more = sched_call_body(e->call, e->body + e->body_at - piece, piece,
                               e->body_at == e->body_len);
    }
}

/* Nobody waits for the answer. */
static void on_response(void *arg, const struct sched_response *response)
{
    sched_call_data_done(((struct entry *)arg)->call);
}

static void on_data(void *arg, const void *data, size_t len, bool last)
{
    sched_call_data_done(((struct entry *)arg)->call);
}

static void entry_over(struct entry *e)
{
    struct scheduler *s = e->s;

    un_list_remove(&e->node);
    s->async.running--;
    entry_free(e);
    async_wake(s);
}

static void on_end(void *arg, const struct sched_outcome *outcome)
{
    struct entry *e = arg;

    if (try_again(e, outcome)) {
        put_off(e);
    } else {
        e->call->record->async_done = true;
    }
    entry_over(e);
}

static const struct sched_call_events call_events = {
    .on_body_room = feed,
    .on_response = on_response,
    .on_data = on_data,
    .on_end = on_end,
};

static void run(struct entry *e)
{
    struct hv_field fields[1];
    struct sched_call_spec spec = {
        .function = e->function,
        .qualifier = e->qualifier,
        .trigger = SCHED_ASYNC,
        .attempt = e->attempt,
        .id = e->id,
        .method = "POST",
        .target = "/",
        .fields = fields,
        .content_length = (int64_t)e->body_len,
        .events = &call_events,
        .arg = e,
    };
    struct un_error err = UN_ERROR_INIT;

    if (e->content_type) {
        fields[spec.field_count++] = (struct hv_field){"content-type", e->content_type};
    }
    if (sched_call_start(e->s, &spec, &e->call, &err) < 0) {
        un_log(UN_LOG_WARN, "a queued invocation could not be started; it is put off", "invocation",
               e->id, "error", err.text);
        put_off(e);
        entry_over(e);
        return;
    }
    feed(e);
}

/* --- claiming --------------------------------------------------------------------------------- */

struct claim {
    struct store_job job;
    struct scheduler *s;
    unsigned want;
    int64_t now_us;
    bool first; /* after the start */
    struct un_list entries;
    int64_t rows;        /* with `first` */
    int64_t next_due_us; /* of what is not claimed; INT64_MAX: nothing */
};

static char *text_at(sqlite3_stmt *stmt, int column, bool *failed)
{
    const unsigned char *text = sqlite3_column_text(stmt, column);
    char *copy = text ? strdup((const char *)text) : NULL;

    *failed = *failed || (text && !copy);
    return copy;
}

static struct entry *entry_of_row(sqlite3_stmt *stmt)
{
    struct entry *e = calloc(1, sizeof(*e));
    const unsigned char *id = sqlite3_column_text(stmt, 0);
    bool failed = false;

    if (!e) {
        return NULL;
    }
    snprintf(e->id, sizeof(e->id), "%s", id ? (const char *)id : "");
    e->function = text_at(stmt, 1, &failed);
    e->qualifier = text_at(stmt, 2, &failed);
    e->content_type = text_at(stmt, 3, &failed);
    e->body_len = (size_t)sqlite3_column_bytes(stmt, 4);
    e->body = malloc(e->body_len + 1);
    e->attempt = (unsigned)sqlite3_column_int64(stmt, 5) + 1;
    if (failed || !e->function || !e->body) {
        entry_free(e);
        return NULL;
    }
    if (e->body_len > 0) {
        memcpy(e->body, sqlite3_column_blob(stmt, 4), e->body_len);
    }
    return e;
}

/* Claims the row that is due first. 1 when there was one. */
static int claim_one(sqlite3 *db, struct claim *cl, struct entry **ret, struct un_error *err)
{
    sqlite3_stmt *stmt = NULL;
    struct entry *e = NULL;
    int rc =
        store_prepare(db, &stmt, err,
                      "SELECT id, function, qualifier, content_type, body, attempt FROM async_queue"
                      " WHERE running = 0 AND due_us <= ? ORDER BY due_us, id LIMIT 1",
                      "i", cl->now_us);

    rc = rc == 0 ? store_step(stmt, err) : rc;
    if (rc == 1) {
        e = entry_of_row(stmt);
        rc = e ? 1 : un_error_set(err, -ENOMEM, "run queued invocations: out of memory");
    }
    sqlite3_finalize(stmt);
    if (rc == 1) {
        un_list_push(&cl->entries, &e->node);
        *ret = e;
        rc = store_exec(db, err, "UPDATE async_queue SET running = 1, attempt = ? WHERE id = ?",
                        "it", (int64_t)e->attempt, e->id);
        rc = rc == 0 ? 1 : rc;
    }
    return rc;
}

static int read_number(sqlite3 *db, const char *sql, int64_t otherwise, int64_t *ret,
                       struct un_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, sql, "");

    rc = rc == 0 ? store_step(stmt, err) : rc;
    if (rc >= 0) {
        *ret = rc == 1 && sqlite3_column_type(stmt, 0) != SQLITE_NULL
                   ? sqlite3_column_int64(stmt, 0)
                   : otherwise;
        rc = 0;
    }
    sqlite3_finalize(stmt);
    return rc;
}

static int claim_rows(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct claim *cl = un_container_of(job, struct claim, job);
    size_t bytes = 0;
    int rc = 0;

    if (cl->first) {
        rc = store_exec(db, err, "UPDATE async_queue SET running = 0 WHERE running = 1", "");
        rc = rc == 0 ? read_number(db, "SELECT count(*) FROM async_queue", 0, &cl->rows, err) : rc;
    }
    for (unsigned n = 0; rc == 0 && n < cl->want && bytes < CLAIM_BYTES; n++) {
        struct entry *e = NULL;

        rc = claim_one(db, cl, &e, err);
        if (rc != 1) {
            break;
        }
        bytes += e->body_len;
        rc = 0;
    }
    return rc < 0 ? rc
                  : read_number(db, "SELECT min(due_us) FROM async_queue WHERE running = 0",
                                INT64_MAX, &cl->next_due_us, err);
}

/* Comes back when the next row is due. */
static void arm_for(struct scheduler *s, int64_t due_us)
{
    uint64_t now = sched_wall_us(s);

    if (due_us != INT64_MAX && s->async.running < LIMIT_ASYNC_RUNNING) {
        (void)un_timer_arm_in(&s->async.timer, (uint64_t)due_us > now ? (uint64_t)due_us - now : 0);
    }
}

static void claim_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct claim *cl = un_container_of(job, struct claim, job);
    struct scheduler *s = cl->s;
    bool again = s->async.again;

    s->async.loading = s->async.again = false;
    if (rc == 0 && cl->first) {
        s->async.rows = (uint64_t)cl->rows;
    }
    un_list_for_each_safe (it, &cl->entries) {
        struct entry *e = un_list_entry(it, struct entry, node);

        un_list_remove(&e->node);
        if (rc < 0 || s->draining) { /* draining: the next start takes it back */
            entry_free(e);
            continue;
        }
        e->s = s;
        un_list_push(&s->async.entries, &e->node);
        s->async.running++;
        run(e);
    }
    if (rc < 0) {
        un_log(UN_LOG_WARN, "queued invocations cannot be read; it is tried again in a second",
               "error", err->text);
        (void)un_timer_arm_in(&s->async.timer, CLAIM_FAILED_US);
    } else if (again) {
        async_wake(s);
    } else {
        arm_for(s, cl->next_due_us);
    }
    free(cl);
    sched_done(s);
}

void async_wake(struct scheduler *s)
{
    struct claim *cl;

    if (s->draining || s->closing || s->async.running >= LIMIT_ASYNC_RUNNING) {
        return;
    }
    if (s->async.loading) {
        s->async.again = true;
        return;
    }
    cl = calloc(1, sizeof(*cl));
    if (!cl) {
        (void)un_timer_arm_in(&s->async.timer, CLAIM_FAILED_US);
        return;
    }
    cl->s = s;
    cl->want = LIMIT_ASYNC_RUNNING - s->async.running;
    cl->now_us = (int64_t)sched_wall_us(s);
    cl->first = s->async.rows == UINT64_MAX;
    un_list_init(&cl->entries);
    cl->job = (struct store_job){.access = STORE_WRITE, .run = claim_rows, .done = claim_done};
    s->async.loading = true;
    un_timer_cancel(&s->async.timer);
    sched_begin(s);
    store_submit(s->store, &cl->job);
}

static void on_timer(void *arg)
{
    async_wake(arg);
}

void async_init(struct scheduler *s)
{
    s->async.rows = UINT64_MAX;
    un_list_init(&s->async.entries);
    un_timer_init(&s->async.timer, s->loop, on_timer, s);
    async_wake(s);
}

void async_done(struct scheduler *s)
{
    un_timer_cancel(&s->async.timer);
}
