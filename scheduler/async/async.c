/* async.c - the durable queue (async.h): what is accepted. async_impl.h says where the rest is.
 *
 * A delivery is one write job: its events are looked up among those seen lately and inserted, all or
 * none. Deliveries that wait together share a commit (store.h), so the rate is not one fsync each.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "scheduler/async/async_impl.h"

/* --- accepting -------------------------------------------------------------------------------- */

struct offer {
    struct async_event *event;
    struct async_key identity, order_key;
    uint64_t window_us;
    enum async_order order;
    char sequencer[LIMIT_ASYNC_SEQUENCER_BYTES + 1];
};

struct submission {
    struct store_job job;
    struct un_post post;
    struct scheduler *s;
    async_accept_cb cb;
    void *arg;
    struct offer *offers;
    struct async_accepted *results;
    size_t count;
    uint64_t bytes, now_us;
    unsigned accepted; /* written by the job */
    struct un_error err;
};

const char *async_result_name(enum async_result r)
{
    static const char *const names[] = {"accepted", "duplicate", "stale"};

    return (unsigned)r <= ASYNC_STALE ? names[r] : "unknown";
}

uint64_t async_now_us(const struct scheduler *s)
{
    return sched_wall_us(s);
}

static void submission_free(struct submission *sub)
{
    if (sub) {
        for (size_t i = 0; sub->offers && i < sub->count; i++) {
            async_event_free(sub->offers[i].event);
        }
        free(sub->offers);
        free(sub->results);
        free(sub);
    }
}

static void submission_end(struct submission *sub, int rc, const struct un_error *err)
{
    struct scheduler *s = sub->s;

    s->async.accepting -= sub->bytes;
    sub->cb(sub->arg, rc, sub->results, rc == 0 ? sub->count : 0, err);
    submission_free(sub);
    sched_done(s);
}

/* Says whether the event may be queued, and remembers it. */
static int look_back(struct submission *sub, sqlite3 *db, struct offer *o,
                     struct async_accepted *result, struct un_error *err)
{
    struct async_recent *recent = sub->s->async.recent;
    char known[LIMIT_ASYNC_SEQUENCER_BYTES + 1];
    int rc = 0;

    if (o->identity.set) {
        rc = async_recent_find(recent, db, &o->identity, sub->now_us, known, sizeof(known), err);
        if (rc == 1) {
            result->result = ASYNC_DUPLICATE;
            snprintf(result->id, sizeof(result->id), "%.26s", known);
        } else if (rc == 0) {
            rc = async_recent_put(recent, db, &o->identity, o->event->id, sub->now_us,
                                  sub->now_us + o->window_us, err);
        }
        if (rc != 0) {
            return rc < 0 ? rc : 0;
        }
    }
    if (!o->order_key.set) {
        return 0;
    }
    rc = async_recent_find(recent, db, &o->order_key, sub->now_us, known, sizeof(known), err);
    if (rc == 1 && async_sequencer_compare(o->sequencer, known) < 0) {
        o->event->out_of_order = true;
        if (o->order == ASYNC_ORDER_DROP) {
            result->result = ASYNC_STALE;
            result->id[0] = '\0';
        }
        return 0;
    }
    return rc < 0 ? rc
                  : async_recent_put(recent, db, &o->order_key, o->sequencer, sub->now_us,
                                     sub->now_us + o->window_us, err);
}

static int insert_events(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct submission *sub = un_container_of(job, struct submission, job);
    int rc = store_check_room(sub->s->store, sub->bytes, err);

    sub->accepted = 0;
    for (size_t i = 0; i < sub->count && rc == 0; i++) {
        struct offer *o = &sub->offers[i];
        struct async_accepted *result = &sub->results[i];

        result->result = ASYNC_ACCEPTED;
        snprintf(result->id, sizeof(result->id), "%s", o->event->id);
        rc = look_back(sub, db, o, result, err);
        if (rc == 0 && result->result == ASYNC_ACCEPTED) {
            rc = async_event_insert(db, o->event, sub->now_us, NULL, err);
            sub->accepted++;
        }
    }
    return rc;
}

static void tell_accepted(struct scheduler *s, const struct async_event *e)
{
    sched_tell(s, &(struct sched_news){.kind = NEWS_ACCEPTED,
                                       .id = e->id,
                                       .function = e->function,
                                       .trigger = async_event_kind(e),
                                       .trigger_name = e->trigger,
                                       .queued = true});
}

static void insert_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct submission *sub = un_container_of(job, struct submission, job);
    struct async_queue *q = &sub->s->async;

    for (size_t i = 0; i < sub->count && rc == 0; i++) {
        q->stats.accepted += sub->results[i].result == ASYNC_ACCEPTED;
        q->stats.duplicates += sub->results[i].result == ASYNC_DUPLICATE;
        q->stats.stale += sub->results[i].result == ASYNC_STALE;
        if (sub->results[i].result == ASYNC_ACCEPTED) {
            tell_accepted(sub->s, sub->offers[i].event);
        }
    }
    if (rc == 0 && sub->accepted > 0) {
        q->rows += q->loaded ? sub->accepted : 0; /* else the first look counts it */
        async_wake(sub->s);
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
    sub->now_us = sched_wall_us(sub->s);
    sub->job = (struct store_job){.access = STORE_WRITE, .run = insert_events, .done = insert_done};
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

static int make_keys(struct offer *o, const struct async_spec *spec, struct un_error *err)
{
    /* A scope and a function may have the same name. */
    const char *identity[3] = {spec->dedupe_scope, spec->dedupe_scope ? NULL : spec->function,
                               spec->dedupe_key};
    const char *order[3] = {spec->function, spec->trigger, spec->order_key};
    int rc = spec->dedupe_key ? async_key_make(&o->identity, "identity", identity, err) : 0;

    if (rc == 0 && spec->order != ASYNC_ORDER_NONE && spec->order_key && spec->sequencer) {
        rc = async_key_make(&o->order_key, "order", order, err);
        snprintf(o->sequencer, sizeof(o->sequencer), "%s", spec->sequencer);
    }
    o->order = spec->order;
    o->window_us =
        (spec->dedupe_window_ms ? spec->dedupe_window_ms : DEFAULT_ASYNC_WINDOW_MS) * 1000;
    return rc;
}

/* Copies the specs; what is wrong with them is in sub->err. */
static int fill(struct submission *sub, const struct async_spec *specs, size_t count)
{
    enum { ROWS_BYTES = 1024 }; /* what an event takes besides its body, at most */
    struct async_queue *q = &sub->s->async;
    int rc = 0;

    if (count > LIMIT_ASYNC_BATCH) {
        return un_error_set(&sub->err, -E2BIG, "one delivery has %zu events; it may have %d", count,
                            LIMIT_ASYNC_BATCH);
    }
    if (q->loaded && q->rows + count > LIMIT_ASYNC_ROWS) {
        return un_error_set(&sub->err, -ENOSPC, "%llu events are queued already",
                            (unsigned long long)q->rows);
    }
    if (q->accepting > LIMIT_ASYNC_ACCEPTING_BYTES) {
        return un_error_set(&sub->err, -EAGAIN,
                            "the disk does not keep up with the events that come; try again");
    }
    sub->offers = calloc(count + 1, sizeof(*sub->offers));
    sub->results = calloc(count + 1, sizeof(*sub->results));
    if (!sub->offers || !sub->results) {
        return un_error_set(&sub->err, -ENOMEM, "queue events: out of memory");
    }
    for (; sub->count < count && rc == 0; sub->count += rc == 0) {
        struct offer *o = &sub->offers[sub->count];

        rc = async_event_new(&specs[sub->count], &o->event, &sub->err);
        if (rc == 0) {
            o->event->policy = async_policy_in_effect(sub->s, &specs[sub->count].policy);
            sub->bytes += o->event->body_len + ROWS_BYTES;
            q->accepting += o->event->body_len + ROWS_BYTES;
            rc = make_keys(o, &specs[sub->count], &sub->err);
            sub->count += rc < 0; /* it is to be freed as well */
        }
    }
    return rc;
}

static struct submission *submission_new(struct scheduler *s, async_accept_cb cb, void *arg)
{
    struct submission *sub = calloc(1, sizeof(*sub));
    struct un_error err = UN_ERROR_INIT;

    if (!sub) { /* not even a post can be kept: the one case in which the answer comes at once */
        un_error_set(&err, -ENOMEM, "queue events: out of memory");
        cb(arg, -ENOMEM, NULL, 0, &err);
        return NULL;
    }
    sub->s = s;
    sub->cb = cb;
    sub->arg = arg;
    sched_begin(s);
    return sub;
}

static void refuse(struct submission *sub)
{
    sub->post = (struct un_post){.fn = on_refused, .arg = sub};
    un_loop_post(sub->s->loop, &sub->post);
}

void async_submit(struct scheduler *s, const struct async_spec *spec, async_accept_cb cb, void *arg)
{
    struct submission *sub = submission_new(s, cb, arg);

    if (!sub) {
        return;
    }
    if (fill(sub, spec, 1) < 0) {
        refuse(sub);
    } else if (function_peek(s->registry, spec->function, spec->qualifier)) {
        insert(sub);
    } else {
        const struct async_event *e = sub->offers[0].event;

        function_resolve(s->registry, e->function, e->qualifier, on_version, sub);
    }
}

void async_submit_many(struct scheduler *s, const struct async_spec *specs, size_t count,
                       async_accept_cb cb, void *arg)
{
    struct submission *sub = submission_new(s, cb, arg);

    if (!sub) {
        return;
    }
    if (fill(sub, specs, count) < 0) {
        refuse(sub);
    } else {
        insert(sub);
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
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, "SELECT 1 FROM async_queue WHERE id = ? AND state <> ?",
                           "ti", j->id, (int64_t)ASYNC_DEAD);

    rc = rc == 0 ? store_step(stmt, err) : rc;
    j->found = rc == 1;
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

void async_get_stats(const struct scheduler *s, struct async_stats *ret)
{
    const struct async_queue *q = &s->async;

    *ret = q->stats;
    ret->running = q->running + q->delivering;
    ret->waiting = q->rows > ret->running + q->ending ? q->rows - ret->running - q->ending : 0;
    ret->dead = q->dead;
}

/* --- beginning and end ------------------------------------------------------------------------ */

struct async_policy async_policy_in_effect(const struct scheduler *s,
                                           const struct async_policy *wanted)
{
    return async_policy_of(wanted, &s->set.retry);
}

void async_set_hooks(struct scheduler *s, const struct async_hooks *hooks)
{
    s->async.hooks = *hooks;
}

static void on_timer(void *arg)
{
    async_wake(arg);
}

int async_init(struct scheduler *s, struct un_error *err)
{
    struct async_queue *q = &s->async;

    q->recent = calloc(1, sizeof(*q->recent));
    q->cursor = calloc(1, ASYNC_LANE_SIZE);
    q->url_cursor = calloc(1, ASYNC_LANE_SIZE);
    if (!q->recent || !q->cursor || !q->url_cursor) {
        free(q->recent);
        free(q->cursor);
        free(q->url_cursor);
        return un_error_set(err, -ENOMEM, "open the durable queue: out of memory");
    }
    un_list_init(&q->entries);
    un_list_init(&q->lanes);
    un_list_init(&q->idle_lanes);
    un_timer_init(&q->timer, s->loop, on_timer, s);
    async_wake(s);
    return 0;
}

void async_done(struct scheduler *s)
{
    struct async_queue *q = &s->async;

    un_timer_cancel(&q->timer);
    async_deliver_done(s);
    async_lanes_done(s);
    async_recent_done(q->recent);
    free(q->recent);
    free(q->cursor);
    free(q->url_cursor);
}
