/* sns.c - topics of AWS SNS that ask whether they may send (events.h).
 *
 * What asks is remembered in any case, so that an operator can look and confirm by hand. Asking
 * the address that a request names is what an attacker would want to make us do: so that is only
 * done when the trigger says so, and the address is of the host that it names.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/endpoint.h"
#include "common/limits.h"
#include "common/log.h"
#include "events/events_impl.h"

enum { CONFIRM_MS = 30000, CONFIRM_ANSWER_BYTES = 64 * 1024, URL_MOST = 4096 };

struct subscription {
    struct store_job job;
    struct un_post post;
    struct events *ev;
    char trigger[64];
    uint64_t trigger_id;
    char *arn, *url, *error;
    uint64_t received_us, confirmed_us;
    trigger_done_cb cb;
    void *arg;
    struct un_error err;
};

static void finish(struct subscription *s)
{
    struct events *ev = s->ev;
    free(s->arn);
    free(s->url);
    free(s->error);
    free(s);
    events_release(ev);
}

static void answer(struct subscription *s, int rc, const struct un_error *err)
{
    if (s->cb) {
        s->cb(s->arg, rc, err);
        s->cb = NULL;
    }
}

/* --- noting ----------------------------------------------------------------------------------- */

/* The oldest go when there are too many. */
static int note_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct subscription *s = un_container_of(job, struct subscription, job);
    int rc = store_exec(db, err,
                        "INSERT OR REPLACE INTO trigger_topics(trigger_id, arn, url, error,"
                        " received_us, confirmed_us) VALUES(?, ?, ?, ?, ?, ?)",
                        "itttii", (int64_t)s->trigger_id, s->arn, s->url, s->error,
                        (int64_t)s->received_us, (int64_t)s->confirmed_us);
    return rc ? rc
              : store_exec(db, err,
                           "DELETE FROM trigger_topics WHERE trigger_id = ? AND arn NOT IN (SELECT"
                           " arn FROM trigger_topics WHERE trigger_id = ? ORDER BY received_us DESC"
                           " LIMIT ?)",
                           "iii", (int64_t)s->trigger_id, (int64_t)s->trigger_id,
                           (int64_t)LIMIT_TRIGGER_TOPICS);
}

/* Brings what is in memory to what is on disk now. */
static void note_in_memory(struct subscription *s)
{
    struct trigger *t = trigger_find(s->ev, s->trigger);
    struct trigger_topic *topic = t && t->id == s->trigger_id ? trigger_topic_get(t, s->arn) : NULL;
    char *url = topic ? strdup(s->url) : NULL;
    if (url) {
        free(topic->url);
        free(topic->error);
        topic->url = url;
        (void)event_copy(&topic->error, s->error); /* for people; a restart reads it again */
        topic->received_us = s->received_us;
        topic->confirmed_us = s->confirmed_us;
    }
}

static void confirm(struct subscription *s);

static void asked_noted(struct store_job *job, int rc, const struct un_error *err)
{
    struct subscription *s = un_container_of(job, struct subscription, job);
    if (rc == 0) {
        note_in_memory(s);
    }
    answer(s, rc, err);
    const struct trigger *t = trigger_find(s->ev, s->trigger);
    if (rc == 0 && t && t->id == s->trigger_id && t->config.confirm && !s->ev->draining) {
        confirm(s);
    } else {
        finish(s);
    }
}

static void confirmed_noted(struct store_job *job, int rc, const struct un_error *err)
{
    struct subscription *s = un_container_of(job, struct subscription, job);
    if (rc == 0) {
        note_in_memory(s);
    } else {
        un_log(UN_LOG_WARN, "a subscription's confirmation could not be noted", "trigger",
               s->trigger, "error", err->text);
    }
    finish(s);
}

static void note(struct subscription *s,
                 void (*done)(struct store_job *job, int rc, const struct un_error *err))
{
    s->job = (struct store_job){.access = STORE_WRITE, .run = note_run, .done = done};
    store_submit(s->ev->store, &s->job);
}

/* --- confirming ------------------------------------------------------------------------------- */

/* sns.REGION.amazonaws.com, or the same in China. Not all of amazonaws.com: below it are hosts of AWS' customers,
 * and in a cloud's private network services that nobody else reaches. */
static bool is_sns(const char *host)
{
    if (strncasecmp(host, "sns.", 4) != 0) {
        return false;
    }
    const char *domain = strchr(host + 4, '.');
    return domain && domain > host + 4 &&
           (strcasecmp(domain, ".amazonaws.com") == 0 ||
            strcasecmp(domain, ".amazonaws.com.cn") == 0);
}

static bool is_of(const char *host, const char *allowed)
{
    size_t len = strlen(host), want = strlen(allowed);
    return len >= want && strcasecmp(host + len - want, allowed) == 0 &&
           (len == want || host[len - want - 1] == '.');
}

/* `allowed` is a host, which stands for those below it too; with "http://" in front plain HTTP is
 * allowed as well. NULL: those of SNS itself. */
static bool host_allowed(const char *url, const char *allowed)
{
    bool plain = allowed && strncmp(allowed, "http://", 7) == 0;
    CURLU *parts = curl_url();
    char *host = NULL, *scheme = NULL, *user = NULL;
    bool ok = parts && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
              curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
              curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
              curl_url_get(parts, CURLUPART_USER, &user, 0) != CURLUE_OK;
    ok = ok && (strcmp(scheme, "https") == 0 || (plain && strcmp(scheme, "http") == 0));
    ok = ok && (allowed ? is_of(host, allowed + un_url_scheme(allowed)) : is_sns(host));
    curl_free(host);
    curl_free(scheme);
    curl_free(user);
    curl_url_cleanup(parts);
    return ok;
}

static void set_error(struct subscription *s, const char *text)
{
    free(s->error);
    (void)event_copy(&s->error, text);
}

static void on_confirmed(struct transfer *t, int rc, const struct un_error *err)
{
    struct subscription *s = t->arg;
    char text[96];
    if (rc == 0 && t->status >= 200 && t->status <= 299) {
        s->confirmed_us = un_clock_wall_us();
        un_log(UN_LOG_INFO, "a subscription is confirmed", "trigger", s->trigger, "topic", s->arn);
    } else {
        snprintf(text, sizeof(text), "the confirmation was answered with %ld", t->status);
        set_error(s, rc < 0 ? err->text : text);
        un_log(UN_LOG_WARN,
               "a subscription could not be confirmed; its source asks again, or "
               "confirm it by hand",
               "trigger", s->trigger, "topic", s->arn, "error", s->error);
    }
    note(s, confirmed_noted);
}

static void confirm(struct subscription *s)
{
    const struct transfer_spec spec = {.method = "GET",
                                       .url = s->url,
                                       .answer_most = CONFIRM_ANSWER_BYTES,
                                       .limit_ms = CONFIRM_MS};
    const struct trigger *trigger = trigger_find(s->ev, s->trigger);
    if (!host_allowed(s->url, trigger->config.confirm_host)) {
        set_error(s, "the confirmation's address is not of confirm_host; nobody asked it");
        un_log(UN_LOG_WARN, "a subscription's address is of another host; it is not confirmed",
               "trigger", s->trigger, "topic", s->arn);
        note(s, confirmed_noted);
        return;
    }
    struct transfer *t = transfer_new(s->ev, &spec);
    if (!t) {
        finish(s);
        return;
    }
    t->done = on_confirmed;
    t->arg = s;
    transfer_start(t);
}

/* --- the whole -------------------------------------------------------------------------------- */

static void refused(void *arg)
{
    struct subscription *s = arg;
    answer(s, s->err.code, &s->err);
    finish(s);
}

void sns_subscribe(struct events *ev, const char *trigger, const char *topic_arn, const char *url,
                   trigger_done_cb cb, void *arg)
{
    struct subscription *s = calloc(1, sizeof(*s));
    const struct trigger *t = trigger_find(ev, trigger);
    if (!s) {
        const struct un_error err = {.code = -ENOMEM, .text = "out of memory"};
        cb(arg, -ENOMEM, &err);
        return;
    }
    *s = (struct subscription){.ev = ev, .cb = cb, .arg = arg, .received_us = un_clock_wall_us()};
    events_hold(ev);
    int rc = t ? 0 : un_error_set(&s->err, -ENOENT, "no such trigger");
    if (rc == 0 && (strlen(topic_arn) > LIMIT_TRIGGER_STRING || strlen(url) > URL_MOST)) {
        rc = un_error_set(&s->err, -EINVAL, "TopicArn or SubscribeURL is too long");
    }
    if (rc == 0 && (event_copy(&s->arn, topic_arn) < 0 || event_copy(&s->url, url) < 0)) {
        rc = un_error_set(&s->err, -ENOMEM, "out of memory");
    }
    if (rc < 0) {
        s->post = (struct un_post){.fn = refused, .arg = s};
        un_loop_post(ev->loop, &s->post);
        return;
    }
    s->trigger_id = t->id;
    snprintf(s->trigger, sizeof(s->trigger), "%s", t->name);
    note(s, asked_noted);
}
