/* run.c - one attempt at an event of the durable queue.
 *
 *     begun -> [fetch: the body comes from elsewhere] -> the function runs -> [put: its answer goes
 *     elsewhere] -> async_entry_finish
 *
 * The steps in brackets are the events module's (async.h). While put() works, the receipt of the run
 * waits for it: what becomes of the event is written together with it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/log.h"
#include "scheduler/async/async_impl.h"

/* --- steps ------------------------------------------------------------------------------------ */

static void begin_step(struct async_entry *e, bool putting)
{
    const struct async_event *ev = e->event;
    const struct async_hooks *hooks = &e->s->async.hooks;

    e->in_step = true;
    e->putting = putting;
    e->step = (struct async_step){
        .id = ev->id,
        .function = ev->function,
        .trigger = ev->trigger,
        .attempt = ev->attempt,
        .locator = putting ? ev->sink : ev->source,
        .content_type = putting ? e->answer_type : ev->content_type,
        .body = putting ? (const void *)e->answer.data : ev->body,
        .body_len = putting ? e->answer.len : ev->body_len,
    };
    sched_begin(e->s);
    (putting ? hooks->put : hooks->fetch)(hooks->arg, &e->step);
}

static void run_function(struct async_entry *e);

static void step_failed(struct async_entry *e, enum async_verdict verdict, const char *why)
{
    const struct async_ending ending = {
        .judgement = verdict == ASYNC_RETRY ? ASYNC_FAILED : ASYNC_HOPELESS,
        .outcome = e->putting ? "put-failed" : "fetch-failed",
        .status = 502,
        .why = why ? why : "no reason was given",
    };

    async_entry_finish(e, un_steal(&e->record), &ending);
}

void async_step_done(struct async_step *step, enum async_verdict verdict, const char *why,
                     struct async_body *body)
{
    struct async_entry *e = un_container_of(step, struct async_entry, step);
    struct scheduler *s = e->s;

    e->in_step = false;
    if (verdict != ASYNC_SUCCESS) {
        step_failed(e, verdict, why);
    } else if (e->putting) {
        async_entry_finish(e, un_steal(&e->record),
                           &(struct async_ending){ASYNC_DONE, NULL, 0, NULL});
    } else if (body && body->len > LIMIT_ASYNC_OBJECT_BYTES) {
        step_failed(e, ASYNC_GIVE_UP, "the object is larger than an event's body may be");
    } else {
        if (body) {
            e->fetched = *body;
            *body = (struct async_body){0};
        }
        run_function(e);
    }
    if (body) {
        free(body->content_type);
        free(body->data);
    }
    sched_done(s);
}

/* --- the run ---------------------------------------------------------------------------------- */

static const void *body_of(const struct async_entry *e, size_t *ret_len)
{
    *ret_len = e->event->source ? e->fetched.len : e->event->body_len;
    return e->event->source ? e->fetched.data : e->event->body;
}

static void feed(void *arg)
{
    struct async_entry *e = arg;
    size_t piece = LIMIT_BODY_BUFFER_BYTES / 2, left, len;
    const uint8_t *body = body_of(e, &len);
    bool more = true;

    while (more && e->body_at < len) {
        left = len - e->body_at;
        piece = left < piece ? left : piece;
        e->body_at += piece;
        more = sched_call_body(e->call, body + e->body_at - piece, piece, e->body_at == len);
    }
}

/* The answer's bytes, where somebody wants them. */
static void keep_answer(struct async_entry *e, const void *data, size_t len)
{
    if (!e->event->on_success && !e->event->sink) {
        return;
    }
    if (e->answer_too_large || len > LIMIT_ASYNC_ANSWER_BYTES - e->answer.len ||
        un_buf_append(&e->answer, data, len) < 0) {
        e->answer_too_large = true;
        un_buf_done(&e->answer);
    }
}

static void on_response(void *arg, const struct sched_response *response)
{
    struct async_entry *e = arg;

    e->status = response->head.status;
    for (size_t i = 0; i < response->head.field_count; i++) {
        const struct hv_field *f = &response->head.fields[i];

        if (strcasecmp(f->name, "content-type") == 0 && !e->answer_type) {
            e->answer_type = strdup(f->value);
        }
    }
    keep_answer(e, response->data, response->len);
    sched_call_data_done(e->call);
}

static void on_data(void *arg, const void *data, size_t len, bool last)
{
    struct async_entry *e = arg;

    keep_answer(e, data, len);
    sched_call_data_done(e->call);
}

static void on_end(void *arg, const struct sched_outcome *outcome)
{
    struct async_entry *e = arg;
    struct record *record = e->call->record;
    char why[96];
    struct async_ending ending = {.judgement = async_judge(outcome, e->status),
                                  .why = outcome->detail};

    e->call = NULL;
    if (ending.judgement == ASYNC_DONE && e->answer_too_large) {
        ending = (struct async_ending){ASYNC_HOPELESS, "answer-too-large", 502,
                                       "the answer is larger than its destination can be given"};
    } else if (ending.judgement == ASYNC_DONE && e->event->sink) {
        record->held = true;
        e->record = record;
        begin_step(e, true);
        return;
    } else if (outcome->kind == SCHED_OK && ending.judgement != ASYNC_DONE) {
        snprintf(why, sizeof(why), "the function answered with status %u", e->status);
        ending.why = why;
        ending.outcome = "failed"; /* not as a call, but as an attempt at the event */
        ending.status = e->status;
    }
    async_entry_finish(e, record, &ending);
}

static const struct sched_call_events call_events = {
    .on_body_room = feed,
    .on_response = on_response,
    .on_data = on_data,
    .on_end = on_end,
};

/* --- the request ------------------------------------------------------------------------------ */

enum { FIELDS_OWN = 6 };

struct request {
    char *text; /* copy of the event's fields, cut into pieces */
    struct hv_field *fields;
    size_t count;
    char attempt[12], depth[12];
};

static void request_done(struct request *r)
{
    free(r->text);
    free(r->fields);
}

static void add_field(struct request *r, const char *name, const char *value)
{
    if (value) {
        r->fields[r->count++] = (struct hv_field){name, value};
    }
}

static int make_request(const struct async_entry *e, struct request *r)
{
    const struct async_event *ev = e->event;
    size_t lines = 0;
    char *line, *rest, *colon;

    r->text = strdup(ev->fields ? ev->fields : "");
    for (const char *p = r->text; p && *p; p++) {
        lines += *p == '\n';
    }
    r->fields = calloc(lines + FIELDS_OWN, sizeof(*r->fields));
    if (!r->text || !r->fields) {
        return -ENOMEM;
    }
    snprintf(r->attempt, sizeof(r->attempt), "%u", ev->attempt);
    snprintf(r->depth, sizeof(r->depth), "%u", ev->depth);
    add_field(r, "content-type",
              e->fetched.content_type ? e->fetched.content_type : ev->content_type);
    add_field(r, "x-unid-attempt", r->attempt);
    add_field(r, "x-unid-depth", ev->depth > 0 ? r->depth : NULL);
    add_field(r, "x-unid-out-of-order", ev->out_of_order ? "1" : NULL);
    for (rest = r->text; (line = strsep(&rest, "\r\n")) != NULL;) {
        colon = strstr(line, ": ");
        if (colon) {
            *colon = '\0';
            add_field(r, line, colon + 2);
        }
    }
    return 0;
}

static void run_function(struct async_entry *e)
{
    const struct async_event *ev = e->event;
    struct request request = {0};
    struct un_error err = UN_ERROR_INIT;
    size_t len;
    int rc = make_request(e, &request);
    struct sched_call_spec spec = {
        .function = ev->function,
        .qualifier = ev->qualifier,
        .trigger = async_event_kind(ev),
        .trigger_name = ev->trigger,
        .attempt = ev->attempt,
        .id = ev->id,
        .method = "POST",
        .target = "/",
        .fields = request.fields,
        .field_count = request.count,
        .events = &call_events,
        .arg = e,
    };

    (void)body_of(e, &len);
    spec.content_length = (int64_t)len;
    rc = rc == 0 ? sched_call_start(e->s, &spec, &e->call, &err)
                 : un_error_set(&err, rc, "run a queued event: out of memory");
    request_done(&request);
    if (rc < 0) {
        async_entry_finish(e, NULL,
                           &(struct async_ending){rc == -E2BIG ? ASYNC_HOPELESS : ASYNC_DID_NOT_RUN,
                                                  rc == -E2BIG ? "request-too-large" : "internal",
                                                  rc == -E2BIG ? 413 : 500, err.text});
        return;
    }
    feed(e);
}

void async_entry_run(struct async_entry *e)
{
    const struct async_event *ev = e->event;
    const struct async_hooks *hooks = &e->s->async.hooks;

    if (e->s->draining) {
        async_entry_finish(e, NULL,
                           &(struct async_ending){ASYNC_DID_NOT_RUN, "draining", 503,
                                                  "the daemon is shutting down"});
    } else if (ev->url) {
        async_deliver(e);
    } else if ((ev->source && !hooks->fetch) || (ev->sink && !hooks->put)) {
        async_entry_finish(e, NULL,
                           &(struct async_ending){ASYNC_HOPELESS, "fetch-failed", 502,
                                                  "this daemon cannot reach object stores"});
    } else if (ev->source) {
        begin_step(e, false);
    } else {
        run_function(e);
    }
}
