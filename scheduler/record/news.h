/* news.h - what the scheduler tells one observer of: invocations, instances, dead letters.
 *
 * For people who watch, not for bookkeeping: receipts are that. Loop thread.
 */
#ifndef UNID_SCHEDULER_RECORD_NEWS_H
#define UNID_SCHEDULER_RECORD_NEWS_H

#include "scheduler/record/receipt.h"

enum sched_news_kind {
    NEWS_ACCEPTED, /* a call has begun, or an event is in the durable queue: id, function, trigger... */
    NEWS_FINISHED, /* an attempt is over: `receipt` */
    NEWS_INSTANCE, /* it is in another state: `instance` */
    NEWS_INSTANCE_GONE,
    NEWS_DEADLETTER,           /* an event was given up: `receipt` is its last attempt's */
    NEWS_DEADLETTERS_GONE,     /* `count` were removed; `id` when it was one by name, else NULL */
    NEWS_DEADLETTERS_REDRIVEN, /* likewise */
    NEWS_ROLLED_BACK /* `version` of `function` is live again, as `from` never became ready: `why` */
};

/* All is borrowed until the observer returns. What a kind does not name is NULL or 0. */
struct sched_news {
    enum sched_news_kind kind;
    const char *id, *function;
    enum sched_trigger trigger;
    const char *trigger_name; /* "" or NULL: none */
    bool queued;              /* ACCEPTED: it runs later, from the durable queue */
    unsigned attempt;
    uint64_t count;
    uint32_t version, from;
    const char *why;
    const struct receipt *receipt;
    const struct sched_instance_info *instance;
};
typedef void sched_news_cb(void *arg, const struct sched_news *news);

/* One observer; NULL: none any more. It must not call the scheduler. */
void sched_observe(struct scheduler *s, sched_news_cb *cb, void *arg);

#endif
