/* timer.c - the clock of cron triggers: an event for each planned time (cron.h), given to the
 * durable queue as any other.
 *
 * Where a trigger stands (last_s) is written after the queue has accepted: when unid is killed in
 * between, the same times come again after the start, with the same identities, and are
 * duplicates. So each planned time runs once, also when the wall clock is put back over it. The
 * timer looks at the wall clock at least once a minute, because nothing tells when that is set.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/json.h"
#include "common/limits.h"
#include "common/log.h"
#include "events/events_impl.h"

enum {
    LOOK_US = 60 * 1000000,
    AGAIN_US = 5 * 1000000, /* after the queue or the database refused */
    GRACE_S = 90,           /* what is later than this was missed */
    BACK_S = 2 * 86400      /* a clock that was further ahead than this was wrong, not put back */
};

static int64_t wall_s(void)
{
    return (int64_t)(un_clock_wall_us() / 1000000);
}

static int64_t anchor_of(const struct trigger *t)
{
    return (int64_t)(t->changed_us / 1000000);
}

/* --- noting where it stands ------------------------------------------------------------------- */

struct note {
    struct store_job job;
    struct events *ev;
    uint64_t id;
    int64_t last_s;
};

static int note_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct note *n = un_container_of(job, struct note, job);
    return store_exec(db, err, "UPDATE triggers SET last_s = ? WHERE id = ?", "ii", n->last_s,
                      (int64_t)n->id);
}

static void note_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct note *n = un_container_of(job, struct note, job);
    struct events *ev = n->ev;
    if (rc < 0) {
        un_log(UN_LOG_WARN,
               "where a cron trigger stands could not be noted; after a restart its "
               "last runs are looked at again",
               "error", err->text);
    }
    free(n);
    events_release(ev);
}

static void note_last(struct trigger *t)
{
    struct note *n = calloc(1, sizeof(*n));
    if (n) {
        *n = (struct note){.ev = t->events, .id = t->id, .last_s = t->last_s};
        n->job = (struct store_job){.access = STORE_WRITE, .run = note_run, .done = note_done};
        events_hold(n->ev);
        store_submit(n->ev->store, &n->job);
    }
}

/* --- firing ----------------------------------------------------------------------------------- */

struct firing {
    struct events *ev;
    char trigger[64];
    uint64_t id;
    int64_t last_s;
};

static void arm(struct trigger *t, uint64_t in_us)
{
    if (!t->events->draining && un_timer_arm_in(&t->timer, in_us) < 0) {
        un_log(UN_LOG_ERROR, "a cron trigger stands still: out of memory", "trigger", t->name);
    }
}

static void on_accepted(void *arg, int rc, const struct intake_report *report,
                        const struct un_error *err)
{
    struct firing *f = arg;
    struct trigger *t = trigger_find(f->ev, f->trigger);
    if (t && t->id == f->id) {
        t->firing = false;
        if (rc == 0) {
            t->last_s = f->last_s > t->last_s ? f->last_s : t->last_s;
            note_last(t);
            trigger_schedule(t);
        } else {
            un_log(UN_LOG_WARN, "a cron trigger's run could not be queued; it is tried again",
                   "trigger", t->name, "error", err->text);
            arm(t, AGAIN_US);
        }
    }
    free(f);
}

static int make_event(struct event_list *list, const struct trigger *t, int64_t planned)
{
    char time[UN_CLOCK_TEXT_SIZE];
    struct event *e = event_list_add(list, EVENT_CRON);
    un_clock_format((uint64_t)planned * 1000000, time);
    un_autojson json_t *j =
        json_pack("{s:s, s:s, s:s, s:s}", "trigger", t->name, "schedule", t->config.schedule,
                  "timezone", t->config.timezone, "planned_at", time);
    un_autofree char *text = un_json_text(j);
    const char *parts[] = {"cron", t->name, time};
    if (!e || !text || un_buf_append_str(&e->body, text) < 0) {
        return -ENOMEM;
    }
    int rc = event_hash(parts, UN_ARRAY_SIZE(parts), e->id);
    rc = rc ? rc : event_copy(&e->type, "cron");
    rc = rc ? rc : event_copy(&e->source, t->name);
    rc = rc ? rc : event_copy(&e->time, time);
    return rc ? rc : event_copy(&e->content_type, "application/json");
}

static void fire(struct trigger *t, const int64_t *planned, unsigned count, int64_t last_s)
{
    struct event_list list = {0};
    struct firing *f = calloc(1, sizeof(*f));
    int rc = f ? 0 : -ENOMEM;
    for (unsigned i = 0; i < count && rc == 0; i++) {
        rc = make_event(&list, t, planned[i]);
    }
    if (rc < 0) {
        free(f);
        arm(t, AGAIN_US);
    } else {
        *f = (struct firing){.ev = t->events, .id = t->id, .last_s = last_s};
        snprintf(f->trigger, sizeof(f->trigger), "%s", t->name);
        t->firing = true;
        intake_submit(t->events, &list, t->name, 0, on_accepted, f);
    }
    event_list_done(&list);
}

static void on_time(void *arg)
{
    struct trigger *t = arg;
    const struct trigger_config *c = &t->config;
    int64_t planned[LIMIT_CRON_CATCH_UP], last_s, now = wall_s();
    /* A delivery has a bounded number of invocations. */
    unsigned room = LIMIT_ASYNC_BATCH / (unsigned)c->function_count;
    room = room < LIMIT_CRON_CATCH_UP ? room : LIMIT_CRON_CATCH_UP;
    if (t->last_s > now + BACK_S) {
        un_log(UN_LOG_WARN,
               "the clock was far ahead when a cron trigger ran last; it goes on from now",
               "trigger", t->name);
        t->last_s = now;
    }
    unsigned count = cron_due(&c->cron, c->tz, anchor_of(t), t->last_s, now, GRACE_S, c->missed,
                              planned, room, &last_s);
    if (count > 0) {
        fire(t, planned, count, last_s);
        return;
    }
    if (last_s > t->last_s) { /* missed, and nothing is to be done about it */
        un_log(UN_LOG_INFO, "planned runs were missed", "trigger", t->name);
        t->last_s = last_s;
        note_last(t);
    }
    trigger_schedule(t);
}

void trigger_schedule(struct trigger *t)
{
    const struct trigger_config *c = &t->config;
    if (!t->timer.loop) {
        un_timer_init(&t->timer, t->events->loop, on_time, t);
    }
    un_timer_cancel(&t->timer);
    if (c->kind != EVENT_CRON || !c->enabled || t->firing) {
        return;
    }
    int64_t next = cron_next(&c->cron, c->tz, t->last_s, anchor_of(t));
    uint64_t now = un_clock_wall_us();
    /* A little late, so that the wall clock has come there. */
    uint64_t in_us = next == CRON_NEVER || (uint64_t)next * 1000000 <= now
                         ? 0
                         : (uint64_t)next * 1000000 - now + 1000;
    in_us = next == CRON_NEVER || in_us > LOOK_US ? LOOK_US : in_us;
    arm(t, in_us);
}
