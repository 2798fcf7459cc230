/* receipt.c - receipts: written in batches off the loop, read together with those not written yet.
 *
 * One batch is on its way at a time. A batch takes along the logs of its invocations and, for work
 * of the durable queue, the deletion of the row there, so that both happen in one transaction.
 * While the store fails, records wait; beyond LIMIT_RECEIPTS_PENDING the oldest are given up and
 * counted, except those of the durable queue, whose number that queue bounds.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "scheduler/record/log_row.h"
#include "scheduler/record/receipt_row.h"
#include "scheduler/scheduler_impl.h"

enum {
    FLUSH_US = 100000,
    FLUSH_EVENT_US = 5000, /* of queued events: what a kill finds unwritten is made again */
    FLUSH_RECORDS = 100,
    BATCH_RECORDS = 500,
    RETRY_US = 1000000,
    PRUNE_US_MORE = 250000, /* a step of the removing behind another one */
    PRUNE_US_IDLE =
        600000000 /* without new receipts, old ones are still removed every ten minutes */
};

/* --- records ---------------------------------------------------------------------------------- */

struct record *record_new(void)
{
    struct record *r = calloc(1, sizeof(*r));

    if (r) {
        un_list_init(&r->node);
    }
    return r;
}

void record_free(struct record *r)
{
    if (r) {
        guest_log_done(&r->log);
        async_end_free(&r->end);
        replay_kept_free(r->kept);
        free(r);
    }
}

/* --- writing ---------------------------------------------------------------------------------- */

struct record_batch {
    struct store_job job;
    struct scheduler *s;
    struct un_list records;
    unsigned count;
    struct receipt_retention keep;
    struct replay_retention keep_requests;
    struct log_retention keep_logs;
    bool has_pruned; /* so there may be more to remove */
    uint64_t now_us; /* of the durable queue */
};

static int prune(struct record_batch *b, sqlite3 *db, unsigned added, struct un_error *err)
{
    int requests = replay_row_prune(db, &b->keep_requests, err);
    int logs = requests < 0 ? requests : log_row_prune(db, &b->keep_logs, b->count, err);
    int receipts = logs < 0 ? logs : receipt_row_prune(db, &b->keep, added, err);

    b->has_pruned = requests > 0 || logs > 0 || receipts > 0;
    return receipts < 0 ? receipts : 0;
}

static int write_batch(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct record_batch *b = un_container_of(job, struct record_batch, job);
    sqlite3_stmt *insert = NULL;
    int rc = un_fault("receipt.write");
    unsigned added = 0;

    if (rc < 0) {
        return un_error_errno(err, rc, "write receipts");
    }
    rc = receipt_row_insert_begin(db, &insert, err);
    un_list_for_each (it, &b->records) {
        struct record *r = un_list_entry(it, struct record, node);

        if (rc == 0) {
            rc = receipt_row_insert(db, insert, &r->receipt, err);
            if (rc > 0) {
                added++;
                rc = 0;
            }
        }
        if (rc == 0 && r->log.lines.len > 0) {
            rc = log_row_insert(db, r->receipt.id, r->receipt.function, &r->log.lines, err);
        }
        if (rc == 0 && r->kept) {
            rc = replay_row_write(db, r->receipt.id, r->kept, r->receipt.started_at_us, err);
        }
        if (rc == 0 && r->end.action != ASYNC_END_NONE) {
            rc = async_end_write(db, &r->end, b->now_us, r->receipt.outcome, err);
        }
    }
    sqlite3_finalize(insert);
    return rc == 0 ? prune(b, db, added, err) : rc;
}

static void batch_free(struct record_batch *b)
{
    un_list_for_each_safe (it, &b->records) {
        record_free(un_list_entry(it, struct record, node));
    }
    free(b);
}

/* The records of a batch that failed go back to the front. */
static void put_back(struct record_writer *w, struct record_batch *b)
{
    while (!un_list_empty(&b->records)) {
        struct record *r = un_list_entry(b->records.prev, struct record, node);

        un_list_remove(&r->node);
        un_list_push_front(&w->pending, &r->node);
        w->pending_count++;
        w->pending_bytes += r->log.lines.len;
    }
}

static void batch_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct record_batch *b = un_container_of(job, struct record_batch, job);
    struct scheduler *s = b->s;
    struct record_writer *w = &s->records;
    uint64_t idle_us = b->has_pruned ? PRUNE_US_MORE : PRUNE_US_IDLE;

    w->batch = NULL;
    if (rc < 0) {
        un_log(UN_LOG_WARN, "receipts could not be written; it is tried again in a second", "error",
               err->text);
        put_back(w, b);
        w->failures++;
    } else {
        w->failures = 0;
        un_list_for_each (it, &b->records) {
            struct record *r = un_list_entry(it, struct record, node);

            if (r->end.action != ASYNC_END_NONE) {
                async_end_written(s, &r->end);
            }
            if (r->end.action == ASYNC_END_DIE) {
                sched_tell(s,
                           &(struct sched_news){.kind = NEWS_DEADLETTER, .receipt = &r->receipt});
            }
        }
    }
    batch_free(b);
    if (w->failures > 0 && !s->closing) {
        (void)un_timer_arm_in(&w->timer, RETRY_US);
    } else if (w->pending_count >= FLUSH_RECORDS || (s->closing && w->failures < 2)) {
        record_writer_flush(s);
    } else {
        (void)un_timer_arm_in(&w->timer, w->pending_count > 0 ? FLUSH_EVENT_US : idle_us);
    }
    sched_done(s);
}

void record_writer_flush(struct scheduler *s)
{
    struct record_writer *w = &s->records;
    struct record_batch *b;

    if (w->batch || (w->pending_count == 0 && s->closing)) {
        return;
    }
    b = calloc(1, sizeof(*b));
    if (!b) {
        (void)un_timer_arm_in(&w->timer, RETRY_US);
        return;
    }
    b->s = s;
    b->now_us = sched_wall_us(s);
    b->job = (struct store_job){.access = STORE_WRITE, .run = write_batch, .done = batch_done};
    b->keep = (struct receipt_retention){s->set.receipts_max_rows,
                                         un_clock_ago_us(s->set.receipts_max_age_us)};
    b->keep_requests =
        (struct replay_retention){s->set.replay_total_bytes, un_clock_ago_us(s->set.replay_age_us)};
    b->keep_logs = log_keep(s);
    un_list_init(&b->records);
    while (w->pending_count > 0 && b->count < BATCH_RECORDS) {
        struct record *r = un_list_first(&w->pending, struct record, node);

        un_list_remove(&r->node);
        un_list_push(&b->records, &r->node);
        w->pending_count--;
        w->pending_bytes -= r->log.lines.len;
        b->count++;
    }
    w->batch = b;
    un_timer_cancel(&w->timer);
    sched_begin(s);
    store_submit(s->store, &b->job);
}

static void on_timer(void *arg)
{
    record_writer_flush(arg);
}

void record_writer_init(struct scheduler *s)
{
    un_list_init(&s->records.pending);
    un_timer_init(&s->records.timer, s->loop, on_timer, s);
    (void)un_timer_arm_in(&s->records.timer, PRUNE_US_IDLE);
}

void record_writer_done(struct scheduler *s)
{
    un_timer_cancel(&s->records.timer);
    if (s->records.pending_count > 0) {
        un_log(UN_LOG_WARN, "receipts are lost: the database does not take them at the end");
    }
    un_list_for_each_safe (it, &s->records.pending) {
        record_free(un_list_entry(it, struct record, node));
    }
}

bool record_writer_idle(const struct scheduler *s)
{
    return !s->records.batch && (s->records.pending_count == 0 || s->records.failures >= 2);
}

/* Keeps the number of records in memory bounded: gives up the oldest that may be given up. */
static void give_up_oldest(struct record_writer *w)
{
    char count[24];

    un_list_for_each (it, &w->pending) {
        struct record *r = un_list_entry(it, struct record, node);

        if (r->end.action != ASYNC_END_NONE) {
            continue;
        }
        un_list_remove(&r->node);
        w->pending_count--;
        w->pending_bytes -= r->log.lines.len;
        record_free(r);
        w->dropped++;
        snprintf(count, sizeof(count), "%llu", (unsigned long long)w->dropped);
        un_log(UN_LOG_WARN, "the database does not keep up; the oldest receipt was given up",
               "given_up", count);
        return;
    }
}

void record_submit(struct scheduler *s, struct record *r)
{
    struct record_writer *w = &s->records;
    uint64_t flush_us = r->end.action == ASYNC_END_NONE ? FLUSH_US : FLUSH_EVENT_US;

    if (r->held) {
        r->came = true;
        return;
    }
    metrics_add(&s->metrics, &r->receipt, un_loop_now_us(s->loop));
    sched_tell(s, &(struct sched_news){.kind = NEWS_FINISHED, .receipt = &r->receipt});
    if (w->pending_bytes + r->log.lines.len > LIMIT_LOGS_PENDING_BYTES) {
        guest_log_done(&r->log); /* the receipt matters more than its log */
    }
    un_list_push(&w->pending, &r->node);
    w->pending_count++;
    w->pending_bytes += r->log.lines.len;
    if (w->pending_count > LIMIT_RECEIPTS_PENDING) {
        give_up_oldest(w);
    }
    if (w->failures == 0 && (w->pending_count >= FLUSH_RECORDS || s->closing)) {
        record_writer_flush(s);
    } else if (w->failures == 0 && (!un_timer_armed(&w->timer) ||
                                    w->timer.at_us > un_loop_now_us(s->loop) + flush_us)) {
        (void)un_timer_arm_in(&w->timer, flush_us);
    }
}

void records_each(struct scheduler *s, void (*fn)(void *arg, struct record *r), void *arg)
{
    if (s->records.batch) {
        un_list_for_each (it, &s->records.batch->records) {
            fn(arg, un_list_entry(it, struct record, node));
        }
    }
    un_list_for_each (it, &s->records.pending) {
        fn(arg, un_list_entry(it, struct record, node));
    }
    un_list_for_each (it, &s->instances[INSTANCE_ENDING]) {
        struct instance *i = un_list_entry(it, struct instance, node);

        if (i->record) {
            fn(arg, i->record);
        }
    }
}

/* --- reading ---------------------------------------------------------------------------------- */

struct receipt_job {
    struct store_job job;
    struct scheduler *s;
    receipt_list_cb cb;
    void *arg;
    struct receipt_filter filter;
    struct receipt_list list;
    bool one; /* receipt_get */
};

/* The array is kept to `limit` by sorting when it is twice as long. */
static void add_pending(void *arg, struct record *r)
{
    struct receipt_job *j = arg;

    if (receipt_filter_matches(&j->filter, &r->receipt)) {
        (void)receipt_list_add(&j->list, &r->receipt);
        if (j->list.count >= 2 * (size_t)j->filter.limit) {
            receipt_list_tidy(&j->list, j->filter.limit);
        }
    }
}

static int read_receipts(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct receipt_job *j = un_container_of(job, struct receipt_job, job);

    return receipt_row_select(db, &j->filter, &j->list, err);
}

static void read_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct receipt_job *j = un_container_of(job, struct receipt_job, job);
    struct scheduler *s = j->s;
    struct un_error none = UN_ERROR_INIT;

    receipt_list_tidy(&j->list, j->filter.limit);
    if (rc < 0) {
        j->cb(j->arg, rc, NULL, 0, err);
    } else if (j->one && j->list.count == 0) {
        un_error_set(&none, -ENOENT, "no receipt of an invocation %s", j->filter.id);
        j->cb(j->arg, -ENOENT, NULL, 0, &none);
    } else {
        j->cb(j->arg, 0, j->list.items, j->list.count, &none);
    }
    free(j->list.items);
    free(j);
    sched_done(s);
}

static void submit_read(struct scheduler *s, struct receipt_job *j, receipt_list_cb cb, void *arg)
{
    j->s = s;
    j->cb = cb;
    j->arg = arg;
    j->job = (struct store_job){.access = STORE_READ, .run = read_receipts, .done = read_done};
    /* Before the read: what is on its way to the disk now may have left memory when the read is
     * done. */
    records_each(s, add_pending, j);
    sched_begin(s);
    store_submit(s->store, &j->job);
}

/* Without memory for a job there is none to call back later either. */
static void no_memory(receipt_list_cb cb, void *arg)
{
    struct un_error err = UN_ERROR_INIT;

    un_error_set(&err, -ENOMEM, "read receipts: out of memory");
    cb(arg, -ENOMEM, NULL, 0, &err);
}

void receipt_list(struct scheduler *s, const struct receipt_query *query, receipt_list_cb cb,
                  void *arg)
{
    struct receipt_job *j = calloc(1, sizeof(*j));
    struct receipt_filter *f;

    if (!j) {
        no_memory(cb, arg);
        return;
    }
    f = &j->filter;
    snprintf(f->function, sizeof(f->function), "%s", query->function ? query->function : "");
    snprintf(f->trigger, sizeof(f->trigger), "%s", query->trigger ? query->trigger : "");
    snprintf(f->outcome, sizeof(f->outcome), "%s", query->outcome ? query->outcome : "");
    snprintf(f->before_id, sizeof(f->before_id), "%s", query->before_id ? query->before_id : "");
    f->before_attempt = query->before_attempt;
    f->status = query->status;
    if (query->since_us > 0) {
        un_id_least(query->since_us, f->since_id);
    }
    f->limit =
        query->limit > 0 && query->limit < LIMIT_PAGE_ITEMS ? query->limit : LIMIT_PAGE_ITEMS;
    submit_read(s, j, cb, arg);
}

void receipt_get(struct scheduler *s, const char *id, receipt_list_cb cb, void *arg)
{
    struct receipt_job *j = calloc(1, sizeof(*j));

    if (!j) {
        no_memory(cb, arg);
        return;
    }
    j->one = true;
    j->filter.limit = 1;
    snprintf(j->filter.id, sizeof(j->filter.id), "%s", id);
    submit_read(s, j, cb, arg);
}
