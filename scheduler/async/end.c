/* end.c - what becomes of an event of the durable queue when an attempt is over.
 *
 * The decision travels with the attempt's receipt and is written in the same transaction, and with
 * it what the event's destination gets: an attempt that left a receipt is not made again, and a
 * destination gets its event once, whenever unid is killed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "scheduler/async/async_impl.h"

enum { NO_MEMORY_DELAY_US = 1000000 };

enum sched_trigger async_event_kind(const struct async_event *e)
{
    return e->depth > 0 ? SCHED_DESTINATION : e->trigger ? SCHED_EVENT : SCHED_ASYNC;
}

void async_end_free(struct async_end *end)
{
    async_event_free(un_steal(&end->follow));
}

/* --- destinations ----------------------------------------------------------------------------- */

/* A field's value: without control characters, and not endless. */
static void add_line(struct un_buf *b, const char *name, const char *value, bool *failed)
{
    char clean[200];

    snprintf(clean, sizeof(clean), "%s", value);
    for (char *p = clean; *p; p++) {
        if ((unsigned char)*p < ' ' || *p == 127) {
            *p = ' ';
        }
    }
    *failed = un_buf_printf(b, "%s: %s\r\n", name, clean) < 0 || *failed;
}

static char *follow_fields(const struct async_event *ev, bool success, const char *why)
{
    un_autobuf struct un_buf b = {0};
    char attempts[12];
    bool failed = false;

    if (!success && ev->fields) {
        failed = un_buf_append_str(&b, ev->fields) < 0;
    }
    snprintf(attempts, sizeof(attempts), "%u", ev->attempt);
    add_line(&b, "X-Unid-Source-Function", ev->function, &failed);
    add_line(&b, "X-Unid-Source-Id", ev->id, &failed);
    add_line(&b, "X-Unid-Source-Attempts", attempts, &failed);
    add_line(&b, "X-Unid-Condition", success ? "success" : "failure", &failed);
    if (!success) {
        add_line(&b, "X-Unid-Reason", why, &failed);
    }
    return failed ? NULL : un_buf_steal_str(&b);
}

/* Whose name it is, or whose URL. */
static int set_target(struct async_event *f, const struct async_event *ev, const char *to)
{
    const char *colon = strchr(to, ':');

    if (colon && colon[1] == '/') { /* as checked when the event was accepted */
        f->url = strdup(to);
        f->function = strdup(ev->function);
        return f->url && f->function ? 0 : -ENOMEM;
    }
    f->function = colon ? strndup(to, (size_t)(colon - to)) : strdup(to);
    f->qualifier = colon ? strdup(colon + 1) : NULL;
    return f->function && (!colon || f->qualifier) ? 0 : -ENOMEM;
}

/* The event for a destination; takes the answer, or the event's own body. */
static struct async_event *follow_new(struct async_entry *e, bool success, const char *why)
{
    struct async_event *ev = e->event, *f = calloc(1, sizeof(*f));
    const char *type = success ? e->answer_type : ev->content_type;

    if (!f) {
        return NULL;
    }
    f->policy = async_policy_in_effect(e->s, &(struct async_policy){0});
    f->depth = ev->depth + 1;
    un_id_new(f->id);
    f->fields = follow_fields(ev, success, why);
    f->content_type = type ? strdup(type) : NULL;
    f->trigger = ev->trigger ? strdup(ev->trigger) : NULL;
    f->body = success && e->answer.len == 0 ? malloc(1) : NULL;
    if (!f->fields || (type && !f->content_type) || (ev->trigger && !f->trigger) ||
        (success && e->answer.len == 0 && !f->body) ||
        set_target(f, ev, success ? ev->on_success : ev->on_failure) < 0) {
        async_event_free(f);
        return NULL;
    }
    if (success && e->answer.len > 0) {
        f->body_len = e->answer.len;
        f->body = un_buf_steal_str(&e->answer);
    } else if (!success) {
        f->body_len = ev->body_len;
        f->body = un_steal(&ev->body);
    }
    return f;
}

/* --- the decision ----------------------------------------------------------------------------- */

static void delay(struct async_end *end, uint64_t now_us, uint64_t us)
{
    end->action = ASYNC_END_DELAY;
    end->delay_us = us;
    end->due_us = now_us + us;
}

static void try_again(struct async_entry *e, const struct async_ending *ending,
                      struct async_end *end)
{
    const struct async_event *ev = e->event;
    uint64_t now = sched_wall_us(e->s);
    bool counted = ending->judgement == ASYNC_FAILED;
    unsigned n = counted ? ev->failures + 1 : ev->attempt - ev->failures;
    char why[96];
    uint32_t random;

    end->failures = ev->failures + counted;
    if (async_give_up(&ev->policy, end->failures, now > ev->accepted_us ? now - ev->accepted_us : 0,
                      why, sizeof(why))) {
        end->action = ASYNC_END_DIE;
        snprintf(end->reason, sizeof(end->reason), "%.90s; the last: %.150s", why, ending->why);
        return;
    }
    un_random(&random, sizeof(random));
    delay(end, now, e->s->draining ? 0 : async_backoff_us(&ev->policy, n, random));
}

static void decide(struct async_entry *e, const struct async_ending *ending, struct async_end *end)
{
    const struct async_event *ev = e->event;
    const char *to = NULL;

    end->seq = ev->seq;
    end->failures = ev->failures;
    switch (ending->judgement) {
    case ASYNC_DONE:
        end->action = ASYNC_END_REMOVE;
        to = ev->on_success;
        break;
    case ASYNC_HOPELESS:
        end->action = ASYNC_END_DIE;
        snprintf(end->reason, sizeof(end->reason), "%.250s", ending->why);
        break;
    case ASYNC_FAILED:
    case ASYNC_DID_NOT_RUN:
        try_again(e, ending, end);
        break;
    }
    if (end->action == ASYNC_END_DIE) {
        to = ev->on_failure;
    }
    if (!to) {
        return;
    }
    end->follow = follow_new(e, end->action == ASYNC_END_REMOVE, end->reason);
    end->follow_dead = end->follow && end->follow->depth > LIMIT_ASYNC_DEPTH;
    if (!end->follow) { /* rather once more than a destination that hears nothing */
        delay(end, sched_wall_us(e->s), NO_MEMORY_DELAY_US);
    }
}

static void count(struct async_queue *q, const struct async_end *end, unsigned failures_before)
{
    q->stats.retries += end->action == ASYNC_END_DELAY && end->failures > failures_before;
    q->stats.given_up += end->action == ASYNC_END_DIE;
    q->stats.given_up += end->follow_dead;
}

/* --- the end of an attempt -------------------------------------------------------------------- */

/* The receipt of an attempt that was no call. */
static struct record *make_record(const struct async_entry *e)
{
    struct record *record = record_new();
    struct receipt *r = record ? &record->receipt : NULL;
    const struct async_event *ev = e->event;

    if (r) {
        memcpy(r->id, ev->id, sizeof(r->id));
        snprintf(r->function, sizeof(r->function), "%s", ev->function);
        snprintf(r->trigger_name, sizeof(r->trigger_name), "%s", ev->trigger ? ev->trigger : "");
        r->trigger = async_event_kind(ev);
        r->attempt = ev->attempt;
        r->started_at_us = un_clock_wall_us();
        r->bytes_in = ev->body_len;
    }
    return record;
}

void async_entry_finish(struct async_entry *e, struct record *record,
                        const struct async_ending *ending)
{
    struct scheduler *s = e->s;
    bool own = !record, came;

    record = record ? record : make_record(e);
    if (!record) {
        un_log(UN_LOG_WARN, "no memory to write down an attempt; it is made again after a restart",
               "invocation", e->event->id);
        async_entry_release(e);
        return;
    }
    if (ending->outcome) {
        snprintf(record->receipt.outcome, sizeof(record->receipt.outcome), "%s", ending->outcome);
        record->receipt.status = ending->status;
    }
    if (ending->why && ending->judgement != ASYNC_DONE) {
        snprintf(record->receipt.error, sizeof(record->receipt.error), "%.255s", ending->why);
    }
    decide(e, ending, &record->end);
    count(&s->async, &record->end, e->event->failures);
    s->async.ending++;
    came = record->came;
    record->held = record->came = false;
    if (own || came) {
        record_submit(s, record);
    }
    async_entry_release(e);
}

/* --- the rows --------------------------------------------------------------------------------- */

int async_end_write(sqlite3 *db, const struct async_end *end, uint64_t now_us, const char *outcome,
                    struct un_error *err)
{
    char why[80];
    int rc = 0;

    switch (end->action) {
    case ASYNC_END_REMOVE:
        rc = async_event_delete(db, end->seq, err);
        break;
    case ASYNC_END_DELAY:
        rc = store_exec(db, err,
                        "UPDATE async_queue SET state = ?, due_us = ?, delay_us = ?, failures = ?"
                        " WHERE seq = ?",
                        "iiiii", (int64_t)ASYNC_DELAYED, (int64_t)end->due_us,
                        (int64_t)end->delay_us, (int64_t)end->failures, end->seq);
        break;
    case ASYNC_END_DIE:
        rc = store_exec(db, err,
                        "UPDATE async_queue SET state = ?, failures = ?, died_us = ?, outcome = ?,"
                        " reason = ? WHERE seq = ?",
                        "iiitti", (int64_t)ASYNC_DEAD, (int64_t)end->failures, (int64_t)now_us,
                        outcome, end->reason, end->seq);
        break;
    case ASYNC_END_NONE:
        break;
    }
    if (rc == 0 && end->follow) {
        snprintf(why, sizeof(why), "more than %d destinations one after the other",
                 LIMIT_ASYNC_DEPTH);
        rc = async_event_insert(db, end->follow, now_us, end->follow_dead ? why : NULL, err);
    }
    return rc;
}

void async_end_written(struct scheduler *s, const struct async_end *end)
{
    struct async_queue *q = &s->async;

    q->ending--;
    if (q->loaded && end->action != ASYNC_END_DELAY) {
        q->rows--;
        q->dead += end->action == ASYNC_END_DIE;
    }
    if (q->loaded && end->follow) {
        q->rows += !end->follow_dead;
        q->dead += end->follow_dead;
    }
    if (q->dead > LIMIT_DEADLETTERS) {
        deadletter_prune(s);
    }
    async_wake(s);
}
