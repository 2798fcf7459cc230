/* claim.c - which event of the durable queue comes next.
 *
 * A write job claims: it raises `attempt` and sets RUNNING, both durable before the run, and brings
 * the events along. Lanes (functions, and apart from them the hosts of HTTP destinations) take
 * turns: the index async_ready gives the next lane behind the last one, and that lane's oldest
 * event, in one step, however many wait. So only what is under way is in memory; a lane costs
 * nothing while it has nothing to do.
 *
 * A lane may hold as many places as its function may have VMs at once, and no more than a fair share
 * (async_may_claim): a slow function leaves room for the others.
 *
 * Due times are wall-clock; the first one of what is DELAYED arms the timer. The first claim after
 * the start takes back what a killed process left RUNNING, with a receipt that says so, and shortens
 * waits that a clock set back has made longer than they were meant.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "scheduler/async/async_impl.h"
#include "scheduler/record/receipt_row.h"

enum {
    LANES_MOST = LIMIT_ASYNC_RUNNING + ASYNC_DELIVERIES + ASYNC_LANES_KEPT,
    PROMOTE_STEP = 256,        /* events that become due, in one claim */
    TAKE_BACK_STEP = 256,      /* read at a time at the start */
    CLAIM_FAILED_US = 1000000, /* pause when the database refuses */
    RUNNING_MOST = LIMIT_ASYNC_RUNNING,
};

/* What a claim knows of a lane, and reckons with while it claims. */
struct share {
    char name[ASYNC_LANE_SIZE];
    unsigned held, most;
};

struct claim {
    struct store_job job;
    struct scheduler *s;
    uint64_t now_us;
    bool first;           /* after the start */
    unsigned unused[2];   /* places: of functions, of deliveries */
    uint64_t bytes;       /* in memory, with what is claimed */
    struct share *shares; /* LANES_MOST of them */
    size_t share_count;
    char cursors[2][ASYNC_LANE_SIZE];
    struct async_event *events[LANES_MOST];
    size_t count;
    int64_t rows, dead;      /* with `first` */
    unsigned interrupted;    /* likewise */
    unsigned damaged;        /* events that were set aside ... */
    unsigned damaged_before; /* ... and of these, before the rows were counted */
    int64_t next_due_us;     /* of what is DELAYED; INT64_MAX: nothing */
    struct receipt receipt;  /* large: not on the thread's stack */
};

static void claim_free(struct claim *cl)
{
    for (size_t i = 0; i < cl->count; i++) {
        async_event_free(cl->events[i]);
    }
    free(cl->shares);
    free(cl);
}

/* --- places, on the loop ----------------------------------------------------------------------- */

void async_entry_release(struct async_entry *e)
{
    struct scheduler *s = e->s;

    if (async_lane_delivers(e->lane->name)) {
        s->async.delivering--;
    } else {
        s->async.running--;
    }
    s->async.bytes -= e->cost;
    async_lane_put(s, e->lane);
    un_list_remove(&e->node);
    async_event_free(e->event);
    free(e->fetched.content_type);
    free(e->fetched.data);
    free(e->answer_type);
    un_buf_done(&e->answer);
    free(e);
    async_wake(s);
}

/* --- the database's side ---------------------------------------------------------------------- */

static int read_number(sqlite3 *db, const char *sql, int64_t otherwise, int64_t *ret,
                       struct un_error *err)
{
    store_keptstmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare_kept(db, &stmt, err, sql, "");

    rc = rc == 0 ? store_step(stmt, err) : rc;
    if (rc >= 0) {
        *ret = rc == 1 && sqlite3_column_type(stmt, 0) != SQLITE_NULL
                   ? sqlite3_column_int64(stmt, 0)
                   : otherwise;
        rc = 0;
    }
    return rc;
}

static int interrupted_receipt(struct claim *cl, sqlite3 *db, const struct async_event *e,
                               struct un_error *err)
{
    store_keptstmt sqlite3_stmt *insert = NULL;
    struct receipt *r = &cl->receipt;
    int rc = receipt_row_insert_begin(db, &insert, err);

    memset(r, 0, sizeof(*r));
    memcpy(r->id, e->id, sizeof(r->id));
    snprintf(r->function, sizeof(r->function), "%s", e->function);
    snprintf(r->trigger_name, sizeof(r->trigger_name), "%s", e->trigger ? e->trigger : "");
    snprintf(r->outcome, sizeof(r->outcome), "interrupted");
    snprintf(r->error, sizeof(r->error), "unid was ended while this attempt was under way");
    r->trigger = async_event_kind(e);
    r->attempt = e->attempt;
    r->started_at_us = e->due_us; /* set by the claim */
    r->status = 503;
    rc = rc == 0 ? receipt_row_insert(db, insert, r, err) : rc;
    return rc < 0 ? rc : rc == 1 ? receipt_row_added(db, 1, err) : 0;
}

/* What cannot be read is set aside, so that it is in nobody's way. `rc` is what reading it gave. */
static int set_aside(struct claim *cl, sqlite3 *db, int64_t seq, int rc, struct un_error *err)
{
    if (rc != -ENOENT && rc != -EUCLEAN) {
        return rc;
    }
    cl->damaged++;
    return store_exec(db, err,
                      "UPDATE async_queue SET state = ?, died_us = ?, outcome = 'internal',"
                      " reason = 'the database is damaged: the event cannot be read' WHERE seq = ?",
                      "iii", (int64_t)ASYNC_DEAD, (int64_t)cl->now_us, seq);
}

static int take_back_one(struct claim *cl, sqlite3 *db, int64_t seq, struct un_error *err)
{
    struct async_event *e = NULL;
    char reason[160];
    int rc = async_event_read(db, seq, &e, err);

    if (rc < 0) {
        return set_aside(cl, db, seq, rc, err);
    }
    cl->interrupted++;
    rc = interrupted_receipt(cl, db, e, err);
    if (rc == 0 && e->interruptions + 1 >= LIMIT_ASYNC_INTERRUPTIONS) {
        snprintf(reason, sizeof(reason),
                 "unid was ended during %u attempts: the event may be the cause",
                 e->interruptions + 1);
        rc = store_exec(db, err,
                        "UPDATE async_queue SET state = ?, interruptions = 0, died_us = ?,"
                        " outcome = 'interrupted', reason = ? WHERE seq = ?",
                        "iiti", (int64_t)ASYNC_DEAD, (int64_t)cl->now_us, reason, seq);
    } else if (rc == 0) {
        rc = store_exec(db, err,
                        "UPDATE async_queue SET state = ?, interruptions = interruptions + 1"
                        " WHERE seq = ?",
                        "ii", (int64_t)ASYNC_READY, seq);
    }
    async_event_free(e);
    return rc;
}

static int take_back(struct claim *cl, sqlite3 *db, struct un_error *err)
{
    int64_t seqs[TAKE_BACK_STEP];
    int count, rc;

    do {
        store_keptstmt sqlite3_stmt *stmt = NULL;

        count = 0;
        rc = store_prepare_kept(db, &stmt, err,
                                "SELECT seq FROM async_queue WHERE state = 1 LIMIT ?", "i",
                                (int64_t)TAKE_BACK_STEP);
        while (rc == 0 && (rc = store_step(stmt, err)) == 1) {
            seqs[count++] = sqlite3_column_int64(stmt, 0);
            rc = 0;
            if (count == TAKE_BACK_STEP) {
                break;
            }
        }
        for (int i = 0; i < count && rc == 0; i++) {
            rc = take_back_one(cl, db, seqs[i], err);
        }
    } while (rc == 0 && count == TAKE_BACK_STEP);
    return rc;
}

static int first_look(struct claim *cl, sqlite3 *db, struct un_error *err)
{
    int64_t ready = 0, delayed = 0;
    int rc = take_back(cl, db, err);

    rc = rc == 0 ? store_exec(db, err,
                              "UPDATE async_queue SET due_us = ?1 + delay_us"
                              " WHERE state = 2 AND due_us > ?1 + delay_us",
                              "i", (int64_t)cl->now_us)
                 : rc;
    rc = rc == 0
             ? read_number(db, "SELECT count(*) FROM async_queue WHERE state = 0", 0, &ready, err)
             : rc;
    rc = rc == 0
             ? read_number(db, "SELECT count(*) FROM async_queue WHERE state = 2", 0, &delayed, err)
             : rc;
    cl->rows = ready + delayed;
    return rc == 0 ? read_number(db, "SELECT count(*) FROM async_queue WHERE state = 3", 0,
                                 &cl->dead, err)
                   : rc;
}

/* What is due becomes READY. */
static int promote(struct claim *cl, sqlite3 *db, struct un_error *err)
{
    return store_exec(db, err,
                      "UPDATE async_queue SET state = 0, delay_us = 0 WHERE seq IN (SELECT seq FROM"
                      " async_queue WHERE state = 2 AND due_us <= ? ORDER BY due_us LIMIT ?)",
                      "ii", (int64_t)cl->now_us, (int64_t)PROMOTE_STEP);
}

static struct share *share_of(struct claim *cl, const char *lane)
{
    struct share *sh;

    for (size_t i = 0; i < cl->share_count; i++) {
        if (strcmp(cl->shares[i].name, lane) == 0) {
            return &cl->shares[i];
        }
    }
    sh = &cl->shares[cl->share_count]; /* kept when something is claimed for it */
    *sh = (struct share){.most = ASYNC_LANE_UNKNOWN};
    snprintf(sh->name, sizeof(sh->name), "%s", lane);
    return sh;
}

struct statements {
    sqlite3_stmt *next, *claim;
};

/* The oldest READY event of the first lane behind the cursor: 1, and 0 when there is no lane. The
 * cursor moves to it. */
static int next_lane(struct claim *cl, struct statements *st, int which, int64_t *ret_seq,
                     uint64_t *ret_cost, struct un_error *err)
{
    const unsigned char *lane;
    int rc;

    sqlite3_reset(st->next);
    sqlite3_bind_text(st->next, 1, cl->cursors[which], -1, SQLITE_TRANSIENT);
    sqlite3_bind_text(st->next, 2, which ? "\x7f" : ASYNC_LANE_URL, -1, SQLITE_STATIC);
    rc = store_step(st->next, err);
    if (rc == 1) {
        lane = sqlite3_column_text(st->next, 0);
        snprintf(cl->cursors[which], sizeof(cl->cursors[which]), "%s",
                 lane ? (const char *)lane : "");
        *ret_seq = sqlite3_column_int64(st->next, 1);
        *ret_cost = (uint64_t)sqlite3_column_int64(st->next, 2);
    }
    sqlite3_reset(st->next);
    return rc;
}

/* 1: claimed, 0: set aside. */
static int claim_event(struct claim *cl, sqlite3 *db, struct statements *st, int64_t seq,
                       struct un_error *err)
{
    int rc;

    sqlite3_reset(st->claim);
    sqlite3_bind_int64(st->claim, 1, (int64_t)cl->now_us);
    sqlite3_bind_int64(st->claim, 2, seq);
    rc = store_step(st->claim, err);
    sqlite3_reset(st->claim);
    if (rc < 0) {
        return rc;
    }
    rc = async_event_read(db, seq, &cl->events[cl->count], err);
    if (rc < 0) {
        return set_aside(cl, db, seq, rc, err);
    }
    cl->count++;
    return 1;
}

/* One kind's lanes in turn, until the places are taken or a whole round has claimed nothing. */
static int claim_kind(struct claim *cl, sqlite3 *db, struct statements *st, int which,
                      struct un_error *err)
{
    const char *before_first = which ? ASYNC_LANE_URL : "";
    bool wrapped = strcmp(cl->cursors[which], before_first) == 0, claimed = false;
    char previous[ASYNC_LANE_SIZE];

    while (cl->unused[which] > 0) {
        int64_t seq = 0;
        uint64_t cost = 0;
        struct share *sh;
        int rc;

        memcpy(previous, cl->cursors[which], sizeof(previous));
        rc = next_lane(cl, st, which, &seq, &cost, err);
        if (rc == 0 && wrapped && !claimed) {
            break;
        }
        if (rc == 0) {
            snprintf(cl->cursors[which], ASYNC_LANE_SIZE, "%s", before_first);
            wrapped = true;
            claimed = false;
            continue;
        }
        sh = rc == 1 ? share_of(cl, cl->cursors[which]) : NULL;
        if (rc < 0 || (sh && !async_may_claim(sh->held, sh->most, cl->unused[which]))) {
            if (rc < 0) {
                return rc;
            }
            continue;
        }
        if (cl->bytes > 0 && cl->bytes + cost > LIMIT_ASYNC_BYTES) {
            memcpy(cl->cursors[which], previous, sizeof(previous)); /* it is the next then */
            break;
        }
        rc = claim_event(cl, db, st, seq, err);
        if (rc < 0) {
            return rc;
        }
        claimed = true; /* the row is READY no more */
        if (rc == 0) {
            continue;
        }
        cl->share_count += sh == &cl->shares[cl->share_count];
        sh->held++;
        cl->unused[which]--;
        cl->bytes += cost;
    }
    return 0;
}

static int claim_all(struct claim *cl, sqlite3 *db, struct un_error *err)
{
    store_keptstmt sqlite3_stmt *next = NULL, *claim = NULL;
    struct statements st;
    int rc =
        store_prepare_kept(db, &next, err,
                           "SELECT lane, seq, cost FROM async_queue INDEXED BY async_ready"
                           " WHERE state = 0 AND lane > ? AND lane < ? ORDER BY lane, seq LIMIT 1",
                           "");

    rc = rc == 0 ? store_prepare_kept(db, &claim, err,
                                      "UPDATE async_queue SET state = 1, attempt = attempt + 1,"
                                      " due_us = ? WHERE seq = ?",
                                      "")
                 : rc;
    st = (struct statements){next, claim};
    rc = rc == 0 ? claim_kind(cl, db, &st, 0, err) : rc;
    return rc == 0 ? claim_kind(cl, db, &st, 1, err) : rc;
}

static int claim_rows(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct claim *cl = un_container_of(job, struct claim, job);
    int rc = cl->first ? first_look(cl, db, err) : 0;

    cl->damaged_before = cl->damaged;
    rc = rc == 0 ? promote(cl, db, err) : rc;
    rc = rc == 0 ? claim_all(cl, db, err) : rc;
    return rc < 0 ? rc
                  : read_number(db, "SELECT min(due_us) FROM async_queue WHERE state = 2",
                                INT64_MAX, &cl->next_due_us, err);
}

/* --- the loop's side -------------------------------------------------------------------------- */

/* Comes back when the next event is due. */
static void arm_for(struct scheduler *s, int64_t due_us)
{
    uint64_t now = sched_wall_us(s);

    if (due_us != INT64_MAX) {
        (void)un_timer_arm_in(&s->async.timer, (uint64_t)due_us > now ? (uint64_t)due_us - now : 0);
    }
}

/* Takes the event. */
static void begin(struct scheduler *s, struct async_event *event)
{
    struct async_entry *e = calloc(1, sizeof(*e));
    struct async_lane *lane = e ? async_lane_get(s, event) : NULL;

    if (!lane) {
        un_log(UN_LOG_WARN, "no memory to run a queued event; it runs after a restart",
               "invocation", event->id);
        free(e);
        async_event_free(event);
        return;
    }
    e->s = s;
    e->event = event;
    e->lane = lane;
    e->cost = async_event_cost(event);
    un_list_push(&s->async.entries, &e->node);
    s->async.bytes += e->cost;
    if (async_lane_delivers(lane->name)) {
        s->async.delivering++;
    } else {
        s->async.running++;
    }
    async_entry_run(e);
}

static void note_first_look(struct claim *cl)
{
    struct async_queue *q = &cl->s->async;
    char count[24];

    q->rows = (uint64_t)cl->rows + q->ending;
    q->dead = (uint64_t)cl->dead;
    q->loaded = true;
    q->stats.interrupted += cl->interrupted;
    if (cl->interrupted > 0) {
        snprintf(count, sizeof(count), "%u", cl->interrupted);
        un_log(UN_LOG_INFO, "attempts that were interrupted are made again", "attempts", count);
    }
}

static void claim_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct claim *cl = un_container_of(job, struct claim, job);
    struct scheduler *s = cl->s;
    struct async_queue *q = &s->async;
    bool again = q->again;

    q->loading = q->again = false;
    if (rc < 0) {
        un_log(UN_LOG_WARN, "queued events cannot be read; it is tried again in a second", "error",
               err->text);
        (void)un_timer_arm_in(&q->timer, CLAIM_FAILED_US);
        claim_free(cl);
        sched_done(s);
        return;
    }
    if (cl->first) {
        note_first_look(cl);
    }
    if (cl->damaged > 0) {
        un_log(UN_LOG_ERROR, "queued events cannot be read: the database is damaged; they are dead "
                             "letters now");
        q->rows -= cl->damaged - cl->damaged_before;
        q->dead += cl->damaged - cl->damaged_before;
    }
    memcpy(q->cursor, cl->cursors[0], ASYNC_LANE_SIZE);
    memcpy(q->url_cursor, cl->cursors[1], ASYNC_LANE_SIZE);
    for (size_t i = 0; i < cl->count; i++) {
        begin(s, un_steal(&cl->events[i]));
    }
    cl->count = 0;
    if (again) {
        async_wake(s);
    } else {
        arm_for(s, cl->next_due_us);
    }
    claim_free(cl);
    sched_done(s);
}

/* What each lane holds, and how much it may. */
static void describe_lanes(struct claim *cl, struct un_list *lanes)
{
    struct scheduler *s = cl->s;

    un_list_for_each (it, lanes) {
        struct async_lane *l = un_list_entry(it, struct async_lane, node);
        struct share *sh = &cl->shares[cl->share_count++];
        const struct function_version *v =
            async_lane_delivers(l->name) ? NULL : function_peek(s->registry, l->name, NULL);

        l->most = v ? v->config.concurrency : l->most;
        memcpy(sh->name, l->name, sizeof(sh->name));
        sh->held = l->held;
        sh->most = l->most;
    }
}

static struct claim *claim_new(struct scheduler *s)
{
    struct async_queue *q = &s->async;
    struct claim *cl = calloc(1, sizeof(*cl));

    if (!cl) {
        return NULL;
    }
    cl->shares = calloc(LANES_MOST + 1, sizeof(*cl->shares));
    if (!cl->shares) {
        free(cl);
        return NULL;
    }
    cl->s = s;
    cl->unused[0] = RUNNING_MOST - q->running;
    cl->unused[1] = ASYNC_DELIVERIES - q->delivering;
    cl->now_us = sched_wall_us(s);
    cl->bytes = q->bytes;
    cl->first = !q->loaded;
    memcpy(cl->cursors[0], q->cursor, ASYNC_LANE_SIZE);
    memcpy(cl->cursors[1], q->url_cursor, ASYNC_LANE_SIZE);
    describe_lanes(cl, &q->lanes);
    describe_lanes(cl, &q->idle_lanes);
    return cl;
}

void async_wake(struct scheduler *s)
{
    struct async_queue *q = &s->async;
    struct claim *cl;

    if (s->draining || s->closing || q->ending >= LIMIT_ASYNC_ENDING ||
        (q->running >= RUNNING_MOST && q->delivering >= ASYNC_DELIVERIES)) {
        return; /* the end of an attempt comes back here */
    }
    if (q->loaded && q->rows <= q->running + q->delivering + q->ending) {
        return; /* nothing waits */
    }
    if (q->loading) {
        q->again = true;
        return;
    }
    cl = claim_new(s);
    if (!cl) {
        (void)un_timer_arm_in(&q->timer, CLAIM_FAILED_US);
        return;
    }
    cl->job = (struct store_job){.access = STORE_WRITE, .run = claim_rows, .done = claim_done};
    q->loading = true;
    un_timer_cancel(&q->timer);
    sched_begin(s);
    store_submit(s->store, &cl->job);
}
