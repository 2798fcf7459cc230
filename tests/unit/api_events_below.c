/* api_events_below.c - events/ as api/ sees it, played: no triggers; and which calls wait. What events/ does is
 * tested with the whole daemon (tests/e2e/test_events.py); here api/ only has to be linked. */
#include <errno.h>
#include <string.h>

#include "events/events.h"

struct trigger *trigger_find(struct events *ev, const char *name)
{
    return NULL;
}

struct trigger *trigger_after(struct events *ev, const char *after)
{
    return NULL;
}

json_t *trigger_json(const struct trigger *t)
{
    return NULL;
}

bool trigger_token_is(const struct trigger *t, const char *token)
{
    return false;
}

struct trigger *trigger_by_token(struct events *ev, const char *token)
{
    return NULL;
}

void trigger_put(struct events *ev, const char *name, const json_t *body, trigger_put_cb cb,
                 void *arg)
{
    cb(arg, -ENOSYS, NULL, false, NULL, NULL);
}

void trigger_remove(struct events *ev, const char *name, trigger_done_cb cb, void *arg)
{
    cb(arg, -ENOENT, NULL);
}

const char *intake_result_name(enum intake_result r)
{
    return "";
}

const char *intake_source_name(enum intake_source s)
{
    return "";
}

void events_get_stats(const struct events *ev, struct events_stats *ret)
{
    memset(ret, 0, sizeof(*ret));
}

void events_count(struct events *ev, enum intake_source source, enum intake_result result)
{
}

void intake_submit(struct events *ev, const struct event_list *events, const char *trigger,
                   unsigned depth, intake_cb cb, void *arg)
{
    const struct intake_report nothing = {0};
    cb(arg, -ENOSYS, &nothing, NULL);
}

void sns_subscribe(struct events *ev, const char *trigger, const char *topic_arn, const char *url,
                   trigger_done_cb cb, void *arg)
{
    cb(arg, -ENOSYS, NULL);
}

struct async_policy async_policy_in_effect(const struct scheduler *s,
                                           const struct async_policy *wanted)
{
    return *wanted;
}

const char *async_result_name(enum async_result r)
{
    return "";
}

void sched_waiting(struct scheduler *s, sched_waiting_fn *fn, void *arg)
{
    fn(arg, s ? "" : "hello", 2);
}
