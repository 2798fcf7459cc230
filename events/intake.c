/* intake.c - from events to entries of the durable queue: which triggers want them, one entry a
 * function, all of a delivery in one transaction (events.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/limits.h"
#include "events/events_impl.h"

/* What the specs of one delivery borrow, until async_submit_many returns. */
struct batch {
    struct async_spec *specs;
    size_t count, room;
    char **strings;
    size_t string_count, string_room;
    struct event_field *fields; /* of the event that is looked at; the specs' are in `sets` */
    struct hv_field **sets;
    size_t set_count, set_room;
};

/* Lives until the queue has answered. */
struct delivery {
    struct events *ev;
    intake_cb cb;
    void *arg;
    struct intake_report report;
    struct un_post post;
    struct un_error err;
    enum intake_source source;
    /* By invocation: its trigger. */
    struct origin {
        char trigger[64];
    } * origins;
};

static enum intake_source source_of(const struct event *e)
{
    switch (e->kind) {
    case EVENT_S3:
        return strncmp(e->source, "aws:", 4) == 0     ? INTAKE_AWS
               : strncmp(e->source, "minio:", 6) == 0 ? INTAKE_MINIO
               : strncmp(e->source, "ceph:", 5) == 0  ? INTAKE_CEPH
                                                      : INTAKE_S3;
    case EVENT_CLOUDEVENT:
        return INTAKE_CLOUDEVENTS;
    case EVENT_DYNAMODB:
        return INTAKE_DYNAMODB;
    default:
        return INTAKE_CRON;
    }
}

/* --- building --------------------------------------------------------------------------------- */

static void batch_done(struct batch *b)
{
    for (size_t i = 0; i < b->string_count; i++) {
        free(b->strings[i]);
    }
    for (size_t i = 0; i < b->set_count; i++) {
        free(b->sets[i]);
    }
    free(b->strings);
    free(b->sets);
    free(b->specs);
}

/* Room for one more in an array; 0 or -ENOMEM. */
static int grow(void **array, size_t count, size_t *room, size_t size)
{
    if (count < *room) {
        return 0;
    }
    size_t more = *room ? *room * 2 : 16;
    void *bigger = realloc(*array, more * size);
    if (!bigger) {
        return -ENOMEM;
    }
    *array = bigger;
    *room = more;
    return 0;
}

/* Keeps a string until the end; NULL (no memory) passes through. */
static const char *keep(struct batch *b, char *text)
{
    if (text &&
        grow((void **)&b->strings, b->string_count, &b->string_room, sizeof(*b->strings)) < 0) {
        free(text);
        return NULL;
    }
    if (text) {
        b->strings[b->string_count++] = text;
    }
    return text;
}

/* The event's fields and its trigger's, as the queue takes them; kept in the batch. */
static int make_fields(struct batch *b, const struct event *e, const char *trigger,
                       struct hv_field **ret, size_t *ret_count)
{
    struct event_field *list = NULL;
    size_t count = 0;
    if (event_fields(e, &list, &count) < 0 ||
        grow((void **)&b->sets, b->set_count, &b->set_room, sizeof(*b->sets)) < 0) {
        event_fields_free(list, count);
        return -ENOMEM;
    }
    struct hv_field *set = calloc(count + 1, sizeof(*set));
    int rc = set ? 0 : -ENOMEM;
    if (set) {
        b->sets[b->set_count++] = set;
        set[0] = (struct hv_field){.name = "X-Unid-Trigger", .value = trigger};
    }
    for (size_t i = 0; i < count && rc == 0; i++) {
        set[i + 1].name = keep(b, un_steal(&list[i].name));
        set[i + 1].value = keep(b, un_steal(&list[i].value));
        rc = set[i + 1].name && set[i + 1].value ? 0 : -ENOMEM;
    }
    event_fields_free(list, count);
    *ret = set;
    *ret_count = count + 1;
    return rc;
}

static int make_locators(struct batch *b, const struct trigger_config *c, const struct event *e,
                         struct async_spec *spec)
{
    char *text = NULL;
    if (c->fetch) {
        spec->source_bytes = e->size;
        spec->source = object_source(e, &text) < 0 ? NULL : keep(b, text);
    }
    if (c->put) {
        spec->sink = object_sink(c, e, &text) < 0 ? NULL : keep(b, text);
    }
    return c->fetch == !!spec->source && !c->put == !spec->sink ? 0 : -ENOMEM;
}

/* One entry a function. Two triggers that want the same event for the same function are two
 * reasons to run it: an identity counts within trigger and function. */
static int add_trigger(struct batch *b, const struct trigger *t, const struct event *e,
                       unsigned depth)
{
    const struct trigger_config *c = &t->config;
    struct async_spec common = {.trigger = t->name,
                                .content_type = e->content_type,
                                .body = e->body.data ? (const void *)e->body.data : "",
                                .body_len = e->body.len,
                                .dedupe_key = e->id,
                                .dedupe_window_ms = c->dedupe_window_ms,
                                .order = e->sequence ? c->order : ASYNC_ORDER_NONE,
                                .order_key = e->order_key,
                                .sequencer = e->sequence,
                                .policy = c->policy,
                                .on_success = c->on_success,
                                .on_failure = c->on_failure,
                                .depth = depth};
    struct hv_field *fields = NULL;
    int rc = make_fields(b, e, t->name, &fields, &common.field_count);
    rc = rc ? rc : make_locators(b, c, e, &common);
    common.fields = fields;
    for (size_t i = 0; i < c->function_count && rc == 0; i++) {
        const struct trigger_function *f = &c->functions[i];
        char *scope = NULL;
        if (grow((void **)&b->specs, b->count, &b->room, sizeof(*b->specs)) < 0 ||
            asprintf(&scope, "%s/%s:%s", t->name, f->name, f->qualifier) < 0) {
            return -ENOMEM;
        }
        struct async_spec *spec = &b->specs[b->count];
        *spec = common;
        spec->function = f->name;
        spec->qualifier = *f->qualifier ? f->qualifier : NULL;
        spec->dedupe_scope = keep(b, scope);
        rc = spec->dedupe_scope ? 0 : -ENOMEM;
        b->count += rc == 0;
    }
    return rc;
}

/* All triggers that want the event. */
static int add_event(struct delivery *d, struct batch *b, const struct event *e, const char *only,
                     unsigned depth)
{
    struct events *ev = d->ev;
    size_t before = b->count;
    int rc = 0;
    d->report.events++;
    for (struct trigger *t = only ? trigger_find(ev, only) : trigger_after(ev, NULL); t && rc == 0;
         t = only ? NULL : trigger_after(ev, t->name)) {
        if (t->config.enabled && trigger_config_wants(&t->config, e)) {
            rc = add_trigger(b, t, e, depth);
        } else if (t->config.kind == e->kind) {
            t->filtered++;
        }
    }
    d->report.matched += b->count > before;
    ev->stats.counts[source_of(e)][INTAKE_UNMATCHED] += rc == 0 && b->count == before;
    if (rc == 0 && b->count > LIMIT_ASYNC_BATCH) {
        return un_error_set(
            &d->err, -E2BIG,
            "the delivery would be more than %d invocations; send fewer events in one",
            LIMIT_ASYNC_BATCH);
    }
    return rc ? un_error_set(&d->err, rc, "take an event in: out of memory") : 0;
}

/* --- answering -------------------------------------------------------------------------------- */

static void count_result(struct delivery *d, const char *name, enum async_result result)
{
    struct trigger *t = trigger_find(d->ev, name);
    uint64_t *counts = d->ev->stats.counts[d->source], nowhere = 0;
    switch (result) {
    case ASYNC_ACCEPTED:
        d->report.accepted++;
        counts[INTAKE_ACCEPTED]++;
        *(t ? &t->accepted : &nowhere) += 1;
        break;
    case ASYNC_DUPLICATE:
        d->report.duplicates++;
        counts[INTAKE_DUPLICATE]++;
        *(t ? &t->duplicates : &nowhere) += 1;
        break;
    case ASYNC_STALE:
        d->report.stale++;
        counts[INTAKE_STALE]++;
        *(t ? &t->stale : &nowhere) += 1;
        break;
    }
}

static void deliver_end(struct delivery *d, int rc, const struct un_error *err)
{
    struct events *ev = d->ev;
    if (rc < 0) {
        events_count(ev, d->source, rc == -E2BIG || rc == -EINVAL ? INTAKE_REFUSED : INTAKE_FAILED);
    }
    d->cb(d->arg, rc, &d->report, err);
    free(d->origins);
    free(d);
    events_release(ev);
}

static void on_accepted(void *arg, int rc, const struct async_accepted *list, size_t count,
                        const struct un_error *err)
{
    struct delivery *d = arg;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        count_result(d, d->origins[i].trigger, list[i].result);
    }
    if (rc == 0) {
        d->report.list = list;
        d->report.count = count;
    }
    deliver_end(d, rc, err);
}

static void on_nothing(void *arg)
{
    struct delivery *d = arg;
    deliver_end(d, d->err.code, &d->err);
}

static int note_origins(struct delivery *d, const struct batch *b)
{
    d->origins = calloc(b->count + 1, sizeof(*d->origins));
    for (size_t i = 0; d->origins && i < b->count; i++) {
        snprintf(d->origins[i].trigger, sizeof(d->origins[i].trigger), "%s", b->specs[i].trigger);
    }
    return d->origins ? 0 : un_error_set(&d->err, -ENOMEM, "take an event in: out of memory");
}

void intake_submit(struct events *ev, const struct event_list *events, const char *trigger,
                   unsigned depth, intake_cb cb, void *arg)
{
    struct delivery *d = calloc(1, sizeof(*d));
    struct batch b = {0};
    int rc = 0;
    if (!d) {
        const struct un_error err = {.code = -ENOMEM, .text = "take an event in: out of memory"};
        const struct intake_report nothing = {0};
        cb(arg, -ENOMEM, &nothing, &err);
        return;
    }
    d->ev = ev;
    d->cb = cb;
    d->arg = arg;
    d->source = events->count ? source_of(&events->items[0]) : INTAKE_OTHER;
    events_hold(ev);
    for (size_t i = 0; i < events->count && rc == 0; i++) {
        rc = add_event(d, &b, &events->items[i], trigger, depth);
    }
    rc = rc ? rc : note_origins(d, &b);
    if (rc == 0 && b.count > 0) {
        async_submit_many(ev->scheduler, b.specs, b.count, on_accepted, d);
    } else {
        d->post = (struct un_post){.fn = on_nothing, .arg = d};
        un_loop_post(ev->loop, &d->post);
    }
    batch_done(&b);
}
