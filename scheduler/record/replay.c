/* replay.c - see replay.h: keeping requests of running calls, and running them again. */
#include "scheduler/record/replay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "scheduler/record/replay_impl.h"
#include "scheduler/scheduler_impl.h"

void replay_kept_free(struct replay_kept *k)
{
    if (k) {
        free(k->uri);
        free(k->peer);
        un_buf_done(&k->head);
        un_buf_done(&k->body);
        replay_answer_done(&k->answer);
        free(k);
    }
}

/* --- keeping ---------------------------------------------------------------------------------- */

/* Gives up on it; the call goes on all the same. */
static void drop(struct sched_call *c)
{
    c->s->kept_bytes -= c->kept->held;
    replay_kept_free(un_steal(&c->kept));
}

/* Counts bytes; false (and it is dropped) when they are too many in all. */
static bool hold(struct sched_call *c, size_t bytes)
{
    if (c->s->kept_bytes + bytes > LIMIT_REPLAY_HELD_BYTES) {
        drop(c);
        return false;
    }
    c->s->kept_bytes += bytes;
    c->kept->held += bytes;
    return true;
}

void replay_begin(struct sched_call *c, const struct sched_call_spec *spec)
{
    uint64_t most = c->s->set.replay_request_bytes;
    struct replay_kept *k;

    if (most == 0 || c->stream || spec->replay_of || c->head.len > most ||
        spec->content_length > (int64_t)most) {
        return;
    }
    k = un_fault("replay.keep") ? NULL : calloc(1, sizeof(*k));
    c->kept = k;
    if (!k || !hold(c, sizeof(*k) + c->head.len)) {
        return;
    }
    snprintf(k->function, sizeof(k->function), "%s", spec->function);
    k->uri = spec->uri ? strdup(spec->uri) : NULL;
    k->peer = spec->peer ? strdup(spec->peer) : NULL;
    k->http10 = spec->http10;
    if ((spec->uri && !k->uri) || (spec->peer && !k->peer) ||
        un_buf_append(&k->head, c->head.data, c->head.len) < 0) {
        drop(c);
    }
}

void replay_body(struct sched_call *c, const void *data, size_t len)
{
    struct replay_kept *k = c->kept;

    if (!k || len == 0) {
        return;
    }
    if (k->head.len + k->body.len + len > c->s->set.replay_request_bytes) {
        drop(c);
    } else if (hold(c, len) && un_buf_append(&k->body, data, len) < 0) {
        drop(c);
    }
}

void replay_response(struct sched_call *c, const struct hv_head *head)
{
    if (c->kept && replay_answer_head(&c->kept->answer, head) < 0) {
        drop(c);
    }
}

void replay_data(struct sched_call *c, const void *data, size_t len)
{
    struct replay_answer *a = c->kept ? &c->kept->answer : NULL;
    size_t before = a ? a->body.len : 0, keep = c->s->set.replay_request_bytes;
    size_t room = keep - before, n = len < room ? len : room;

    if (!a || len == 0) {
        return;
    }
    /* Of an answer that looks like a success only the beginning is wanted, in case it breaks off. */
    if (hold(c, n) && replay_answer_add(a, data, len, keep, a->status >= 500) < 0) {
        drop(c);
    }
}

static bool failed(const struct sched_call *c, const struct receipt *r)
{
    switch (c->kind) {
    case SCHED_OK:
        return r->status >= 500;
    case SCHED_FAILED:
    case SCHED_TIMED_OUT:
    case SCHED_RESPONSE_TOO_LARGE:
        return true;
    default:
        return false;
    }
}

void replay_end(struct sched_call *c)
{
    struct receipt *r = &c->record->receipt;

    if (!c->kept) {
        return;
    }
    if (!c->body_eof || !failed(c, r)) {
        drop(c); /* half a request is none */
        return;
    }
    replay_answer_finish(&c->kept->answer);
    snprintf(c->kept->answer.outcome, sizeof(c->kept->answer.outcome), "%s", r->outcome);
    snprintf(c->kept->answer.error, sizeof(c->kept->answer.error), "%s", r->error);
    if (c->kept->answer.status == 0) {
        c->kept->answer.status = r->status;
    }
    c->s->kept_bytes -= c->kept->held;
    c->kept->held = 0;
    c->record->kept = un_steal(&c->kept);
}

/* --- running again ---------------------------------------------------------------------------- */

struct replay {
    struct store_job job;
    struct scheduler *s;
    replay_cb cb;
    void *arg;
    char id[UN_ID_SIZE], qualifier[64];
    struct replay_kept *kept;
    struct sched_call *call;
    size_t body_at;
    struct replay_answer answer;
    struct replay_result result;
    bool no_memory;
};

static void replay_over(struct replay *r, int rc, const struct un_error *err)
{
    struct scheduler *s = r->s;

    s->replays--;
    r->result.before = r->kept ? &r->kept->answer : NULL;
    r->result.after = &r->answer;
    r->cb(r->arg, rc, rc == 0 ? &r->result : NULL, err);
    replay_answer_done(&r->answer);
    replay_kept_free(r->kept);
    free(r);
    sched_done(s);
}

static void feed(void *arg)
{
    struct replay *r = arg;
    size_t len = r->kept->body.len, piece;
    bool more = true;

    while (more && r->body_at < len) {
        piece = len - r->body_at < LIMIT_BODY_BUFFER_BYTES / 2 ? len - r->body_at
                                                               : LIMIT_BODY_BUFFER_BYTES / 2;
        r->body_at += piece;
        more = sched_call_body(r->call, r->kept->body.data + r->body_at - piece, piece,
                               r->body_at == len);
    }
}

static void add(struct replay *r, const void *data, size_t len)
{
    if (len > 0 && replay_answer_add(&r->answer, data, len, LIMIT_REPLAY_ANSWER_BYTES, true) < 0) {
        r->no_memory = true;
    }
    sched_call_data_done(r->call);
}

static void on_response(void *arg, const struct sched_response *response)
{
    struct replay *r = arg;

    r->no_memory = replay_answer_head(&r->answer, &response->head) < 0;
    add(r, response->data, response->len);
}

static void on_data(void *arg, const void *data, size_t len, bool last)
{
    add(arg, data, len);
}

static void on_end(void *arg, const struct sched_outcome *outcome)
{
    struct replay *r = arg;
    const struct receipt *receipt = &r->call->record->receipt;
    struct un_error err = UN_ERROR_INIT;

    replay_answer_finish(&r->answer);
    snprintf(r->answer.outcome, sizeof(r->answer.outcome), "%s", receipt->outcome);
    snprintf(r->answer.error, sizeof(r->answer.error), "%s", receipt->error);
    if (r->answer.status == 0) {
        r->answer.status = receipt->status;
    }
    r->result.version = receipt->version;
    if (r->no_memory) {
        un_error_set(&err, -ENOMEM,
                     "the request was run again as %s, but its answer was not kept: "
                     "out of memory",
                     r->result.id);
    }
    replay_over(r, r->no_memory ? -ENOMEM : 0, &err);
}

static const struct sched_call_events replay_events = {
    .on_body_room = feed, .on_response = on_response, .on_data = on_data, .on_end = on_end};

/* Cuts "METHOD TARGET\r\nname: value\r\n..." into its parts; `text` is written to. */
static size_t cut_head(char *text, struct sched_call_spec *spec, struct hv_field *fields,
                       size_t most)
{
    char *rest = text, *line = strsep(&rest, "\n"), *colon;
    size_t count = 0;

    spec->method = strsep(&line, " ");
    spec->target = line ? line : "/";
    if (line) {
        line[strcspn(line, "\r")] = '\0';
    }
    while (count < most && (line = strsep(&rest, "\n")) != NULL) {
        line[strcspn(line, "\r")] = '\0';
        colon = strstr(line, ": ");
        if (colon) {
            *colon = '\0';
            fields[count++] = (struct hv_field){line, colon + 2};
        }
    }
    return count;
}

static void run(struct replay *r)
{
    struct replay_kept *k = r->kept;
    struct hv_field fields[LIMIT_HTTP_FIELDS * 2];
    struct un_error err = UN_ERROR_INIT;
    struct sched_call_spec spec = {
        .function = k->function,
        .qualifier = r->qualifier[0] ? r->qualifier : NULL,
        .trigger = SCHED_REPLAY,
        .replay_of = r->id,
        .attempt = 1,
        .id = r->result.id,
        .fields = fields,
        .content_length = (int64_t)k->body.len,
        .uri = k->uri,
        .peer = k->peer,
        .http10 = k->http10,
        .events = &replay_events,
        .arg = r,
    };
    un_autofree char *head = k->head.len ? strdup((const char *)k->head.data) : NULL;
    int rc = head ? 0 : un_error_set(&err, -ENOMEM, "run a request again: out of memory");

    un_id_new(r->result.id);
    memcpy(r->result.function, k->function, sizeof(r->result.function));
    if (rc == 0) {
        spec.field_count = cut_head(head, &spec, fields, UN_ARRAY_SIZE(fields));
        rc = sched_call_start(r->s, &spec, &r->call, &err);
    }
    if (rc < 0) {
        replay_over(r, rc, &err);
        return;
    }
    feed(r);
}

static int read_kept(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct replay *r = un_container_of(job, struct replay, job);

    return replay_row_read(db, r->id, &r->kept, err);
}

/* What failed a moment ago is not on disk yet. */
static void look_in_memory(void *arg, struct record *record)
{
    struct replay *r = arg;
    const struct replay_kept *k = record->kept;
    struct replay_kept *copy;

    if (!k || r->kept || strcmp(record->receipt.id, r->id) != 0) {
        return;
    }
    copy = calloc(1, sizeof(*copy));
    if (!copy) {
        return;
    }
    *copy = *k;
    copy->head = copy->body = copy->answer.fields = copy->answer.body = (struct un_buf){0};
    copy->uri = k->uri ? strdup(k->uri) : NULL;
    copy->peer = k->peer ? strdup(k->peer) : NULL;
    if ((k->uri && !copy->uri) || (k->peer && !copy->peer) ||
        un_buf_append(&copy->head, k->head.data, k->head.len) < 0 ||
        un_buf_append(&copy->body, k->body.data, k->body.len) < 0 ||
        un_buf_append(&copy->answer.fields, k->answer.fields.data, k->answer.fields.len) < 0 ||
        un_buf_append(&copy->answer.body, k->answer.body.data, k->answer.body.len) < 0) {
        replay_kept_free(copy);
        return;
    }
    r->kept = copy;
}

static void read_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct replay *r = un_container_of(job, struct replay, job);

    if (rc < 0) {
        replay_over(r, rc, err);
    } else {
        run(r);
    }
}

static int found_already(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    return 0;
}

void sched_replay(struct scheduler *s, const char *id, const char *qualifier, replay_cb cb,
                  void *arg)
{
    struct replay *r = s->replays < LIMIT_REPLAYS ? calloc(1, sizeof(*r)) : NULL;
    struct un_error err = UN_ERROR_INIT;

    if (!r) {
        int rc = s->replays < LIMIT_REPLAYS
                     ? un_error_set(&err, -ENOMEM, "run a request again: out of memory")
                     : un_error_set(&err, -EAGAIN, "%d requests are being run again already",
                                    LIMIT_REPLAYS);
        cb(arg, rc, NULL, &err);
        return;
    }
    r->s = s;
    r->cb = cb;
    r->arg = arg;
    snprintf(r->id, sizeof(r->id), "%s", id);
    snprintf(r->qualifier, sizeof(r->qualifier), "%s", qualifier ? qualifier : "");
    s->replays++;
    sched_begin(s);
    records_each(s, look_in_memory, r);
    r->job = (struct store_job){
        .access = STORE_READ, .run = r->kept ? found_already : read_kept, .done = read_done};
    store_submit(s->store, &r->job);
}
