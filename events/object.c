/* object.c - an object's bytes as a function's input, and its output as an object: the hooks of
 * the durable queue (scheduler/async/async.h).
 *
 * A locator is "BUCKET KEY [VERSION]", each part percent-encoded. Where the store is and with what
 * credentials is the trigger's to say when the step runs, so that no secret is in the queue, and a
 * mended endpoint serves what waits.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/limits.h"
#include "events/events_impl.h"

enum { ANSWER_SHOWN = 160, PUT_ANSWER_BYTES = 64 * 1024 };

int object_source(const struct event *e, char **ret)
{
    un_autofree char *bucket = event_encode(e->bucket), *key = event_encode(e->subject);
    un_autofree char *version = event_encode(e->version_id ? e->version_id : "");
    if (!bucket || !key || !version || asprintf(ret, "%s %s %s", bucket, key, version) < 0) {
        *ret = NULL;
        return -ENOMEM;
    }
    return 0;
}

int object_sink(const struct trigger_config *c, const struct event *e, char **ret)
{
    un_autofree char *bucket = NULL, *key = NULL;
    *ret = NULL;
    if (trigger_config_put_place(c, e->subject, &bucket, &key) < 0) {
        return -ENOMEM;
    }
    un_autofree char *bucket_text = event_encode(bucket), *key_text = event_encode(key);
    if (!bucket_text || !key_text || asprintf(ret, "%s %s", bucket_text, key_text) < 0) {
        *ret = NULL;
        return -ENOMEM;
    }
    return 0;
}

/* Path-style: every S3 store understands it. NULL: no memory, or a broken locator. */
static char *url_of(const char *endpoint, const char *locator)
{
    char *parts[3] = {NULL, NULL, NULL}, *at, *url = NULL;
    un_autofree char *copy = strdup(locator);
    un_autofree char *path = NULL, *escaped = NULL, *version = NULL;
    bool bad = false;
    for (at = copy; copy && at;) {
        char *part = strsep(&at, " ");
        for (size_t i = 0; i < UN_ARRAY_SIZE(parts); i++) {
            if (!parts[i]) {
                parts[i] = event_decode(part, false, &bad);
                break;
            }
        }
    }
    if (parts[0] && parts[1] && asprintf(&path, "%s/%s", parts[0], parts[1]) < 0) {
        path = NULL;
    }
    escaped = path ? transfer_encode_path(path) : NULL;
    version = parts[2] && *parts[2] ? event_encode(parts[2]) : NULL;
    if (escaped && asprintf(&url, "%s/%s%s%s", endpoint, escaped, version ? "?versionId=" : "",
                            version ? version : "") < 0) {
        url = NULL;
    }
    for (size_t i = 0; i < UN_ARRAY_SIZE(parts); i++) {
        free(parts[i]);
    }
    return url;
}

/* --- ending a step ---------------------------------------------------------------------------- */

/* One that cannot even be begun: it must not end inside the hook. */
struct refusal {
    struct un_post post;
    struct events *ev;
    struct async_step *step;
    enum async_verdict verdict;
    char why[160];
};

static void refuse_now(void *arg)
{
    struct refusal *r = arg;
    struct events *ev = r->ev;
    async_step_done(r->step, r->verdict, r->why, NULL);
    free(r);
    events_release(ev);
}

static void starved_now(void *arg)
{
    struct events *ev = arg;
    for (struct async_step *next, *step = un_steal(&ev->starved); step; step = next) {
        next = step->hook_data;
        async_step_done(step, ASYNC_RETRY, "out of memory", NULL);
        events_release(ev);
    }
}

static void refuse(struct events *ev, struct async_step *step, enum async_verdict verdict,
                   const char *why)
{
    struct refusal *r = calloc(1, sizeof(*r));
    events_hold(ev);
    if (!r) {
        step->hook_data = ev->starved;
        ev->starved = step;
        ev->starved_post.fn = starved_now;
        ev->starved_post.arg = ev;
        un_loop_post(ev->loop, &ev->starved_post);
        return;
    }
    *r = (struct refusal){
        .post = {.fn = refuse_now, .arg = r}, .ev = ev, .step = step, .verdict = verdict};
    snprintf(r->why, sizeof(r->why), "%s", why);
    un_loop_post(ev->loop, &r->post);
}

/* What a store answered, in a sentence; S3's errors are XML whose <Code> says most. */
static void tell(char *out, size_t size, const char *what, const struct transfer *t)
{
    const char *text = t->answer.len ? (const char *)t->answer.data : "";
    const char *code = strstr(text, "<Code>");
    char shown[ANSWER_SHOWN] = "";
    if (code) {
        size_t len = strcspn(code + 6, "<");
        snprintf(shown, sizeof(shown), " (%.*s)", (int)(len < 64 ? len : 64), code + 6);
        for (char *c = shown; *c; c++) {
            *c = (char)(*c < 0x20 || *c >= 0x7f ? '?' : *c);
        }
    }
    snprintf(out, size, "%s: the store answers %ld%s", what, t->status, shown);
}

/* Gives the verdict of a transfer, and why. */
static enum async_verdict judge(const struct transfer *t, int rc, const struct un_error *err,
                                const char *what, char *why, size_t size)
{
    if (rc < 0) {
        snprintf(why, size, "%s: %s", what, err->text);
        return rc == -EFBIG ? ASYNC_GIVE_UP : ASYNC_RETRY;
    }
    if (t->status < 200 || t->status > 299) {
        tell(why, size, what, t);
        return ASYNC_RETRY;
    }
    return ASYNC_SUCCESS;
}

static void on_fetched(struct transfer *t, int rc, const struct un_error *err)
{
    struct async_step *step = t->arg;
    struct events *ev = t->events;
    char why[UN_ERROR_TEXT_MAX + 32];
    enum async_verdict verdict = judge(t, rc, err, "fetch the object", why, sizeof(why));
    if (verdict != ASYNC_SUCCESS) {
        ev->stats.fetch_failed++;
        async_step_done(step, verdict, why, NULL);
        return;
    }
    struct async_body body = {.content_type = un_steal(&t->content_type), .len = t->answer.len};
    ev->stats.fetched++;
    ev->stats.fetched_bytes += t->answer.len;
    body.data = t->answer.data ? (void *)t->answer.data : malloc(1);
    t->answer = (struct un_buf){0};
    if (!body.data) {
        free(body.content_type);
        async_step_done(step, ASYNC_RETRY, "fetch the object: out of memory", NULL);
        return;
    }
    async_step_done(step, ASYNC_SUCCESS, NULL, &body);
}

static void on_put(struct transfer *t, int rc, const struct un_error *err)
{
    struct async_step *step = t->arg;
    char why[UN_ERROR_TEXT_MAX + 32];
    enum async_verdict verdict = judge(t, rc, err, "put the output", why, sizeof(why));
    bool ok = verdict == ASYNC_SUCCESS;
    t->events->stats.put += ok;
    t->events->stats.put_failed += !ok;
    t->events->stats.put_bytes += ok ? t->spec.body_len : 0;
    async_step_done(step, verdict, ok ? NULL : why, NULL);
}

/* --- the hooks -------------------------------------------------------------------------------- */

static void start(struct events *ev, struct async_step *step, const struct transfer_spec *part,
                  void (*done)(struct transfer *t, int rc, const struct un_error *err))
{
    const struct trigger *trigger = step->trigger ? trigger_find(ev, step->trigger) : NULL;
    if (ev->draining) {
        refuse(ev, step, ASYNC_RETRY, "unid is shutting down");
        return;
    }
    if (!trigger || !trigger->config.endpoint) {
        refuse(ev, step, ASYNC_GIVE_UP,
               "the trigger that named the object's store is gone; add it again and redrive this");
        return;
    }
    un_autofree char *url = url_of(trigger->config.endpoint, step->locator);
    struct transfer_spec spec = *part;
    spec.url = url;
    spec.region = trigger->config.region;
    spec.access_key = trigger->config.access_key;
    spec.secret_key = trigger->config.secret_key;
    spec.limit_ms = LIMIT_OBJECT_MS;
    struct transfer *t = url ? transfer_new(ev, &spec) : NULL;
    if (!t) {
        refuse(ev, step, ASYNC_RETRY, "reach the object's store: out of memory");
        return;
    }
    t->done = done;
    t->arg = step;
    transfer_start(t);
}

void object_fetch(void *arg, struct async_step *step)
{
    struct transfer_spec spec = {.method = "GET", .answer_most = LIMIT_ASYNC_OBJECT_BYTES};
    start(arg, step, &spec, on_fetched);
}

void object_put(void *arg, struct async_step *step)
{
    struct transfer_spec spec = {.method = "PUT",
                                 .content_type = step->content_type,
                                 .body = step->body ? step->body : "",
                                 .body_len = step->body_len,
                                 .answer_most = PUT_ANSWER_BYTES};
    start(arg, step, &spec, on_put);
}
