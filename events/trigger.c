/* trigger.c - the triggers in memory, and what is told of them (events.h). Rows: trigger_sql.c. */
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/limits.h"
#include "events/events_impl.h"

static void topic_done(struct trigger_topic *t)
{
    free(t->arn);
    free(t->url);
    free(t->error);
}

void trigger_free(struct trigger *t)
{
    if (t) {
        un_timer_cancel(&t->timer);
        trigger_config_done(&t->config);
        for (size_t i = 0; i < t->topic_count; i++) {
            topic_done(&t->topics[i]);
        }
        free(t->topics);
        free(t);
    }
}

/* The place of the first trigger whose name is not below `name`. */
static size_t place_of(const struct events *ev, const char *name)
{
    size_t low = 0, high = ev->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(ev->triggers[middle]->name, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct trigger *trigger_find(struct events *ev, const char *name)
{
    size_t i = place_of(ev, name);
    return i < ev->count && strcmp(ev->triggers[i]->name, name) == 0 ? ev->triggers[i] : NULL;
}

struct trigger *trigger_after(struct events *ev, const char *after)
{
    size_t i = after ? place_of(ev, after) : 0;
    if (after && i < ev->count && strcmp(ev->triggers[i]->name, after) == 0) {
        i++;
    }
    return i < ev->count ? ev->triggers[i] : NULL;
}

int trigger_insert(struct events *ev, struct trigger *t)
{
    size_t i = place_of(ev, t->name);
    if (i < ev->count && strcmp(ev->triggers[i]->name, t->name) == 0) {
        struct trigger *old = ev->triggers[i];
        t->accepted = old->accepted;
        t->duplicates = old->duplicates;
        t->stale = old->stale;
        t->filtered = old->filtered;
        ev->triggers[i] = t;
        trigger_free(old);
        return 0;
    }
    struct trigger **more = realloc(ev->triggers, (ev->count + 1) * sizeof(struct trigger *));
    if (!more) {
        return -ENOMEM;
    }
    ev->triggers = more;
    memmove(&more[i + 1], &more[i], (ev->count - i) * sizeof(struct trigger *));
    more[i] = t;
    ev->count++;
    return 0;
}

/* --- tokens ----------------------------------------------------------------------------------- */

/* Hashes of one length are compared, so that neither length nor place of a difference shows. */
bool trigger_token_is(const struct trigger *t, const char *token)
{
    unsigned char hash[TRIGGER_HASH_BYTES];
    return t->config.kind != EVENT_CRON && trigger_token_hash(token, hash) == 0 &&
           CRYPTO_memcmp(hash, t->token_hash, sizeof(hash)) == 0;
}

struct trigger *trigger_by_token(struct events *ev, const char *token)
{
    unsigned char hash[TRIGGER_HASH_BYTES];
    struct trigger *found = NULL;
    if (trigger_token_hash(token, hash) < 0) {
        return NULL;
    }
    for (size_t i = 0; i < ev->count; i++) { /* all of them, whichever it is */
        struct trigger *t = ev->triggers[i];
        if (t->config.kind != EVENT_CRON && CRYPTO_memcmp(hash, t->token_hash, sizeof(hash)) == 0) {
            found = t;
        }
    }
    return found;
}

/* --- topics of SNS ---------------------------------------------------------------------------- */

struct trigger_topic *trigger_topic_find(struct trigger *t, const char *arn)
{
    for (size_t i = 0; i < t->topic_count; i++) {
        if (strcmp(t->topics[i].arn, arn) == 0) {
            return &t->topics[i];
        }
    }
    return NULL;
}

struct trigger_topic *trigger_topic_get(struct trigger *t, const char *arn)
{
    struct trigger_topic *found = trigger_topic_find(t, arn);
    if (found) {
        return found;
    }
    if (!t->topics && !(t->topics = calloc(LIMIT_TRIGGER_TOPICS, sizeof(*t->topics)))) {
        return NULL;
    }
    char *copy = strdup(arn);
    if (!copy) {
        return NULL;
    }
    if (t->topic_count == LIMIT_TRIGGER_TOPICS) {
        topic_done(&t->topics[0]);
        t->topic_count--;
        memmove(t->topics, t->topics + 1, t->topic_count * sizeof(*t->topics));
    }
    found = &t->topics[t->topic_count++];
    *found = (struct trigger_topic){.arn = copy};
    return found;
}

static json_t *topics_json(const struct trigger *t)
{
    json_t *list = json_array();
    for (size_t i = 0; i < t->topic_count; i++) {
        const struct trigger_topic *topic = &t->topics[i];
        char received[UN_CLOCK_TEXT_SIZE], confirmed[UN_CLOCK_TEXT_SIZE];
        un_clock_format(topic->received_us, received);
        un_clock_format(topic->confirmed_us, confirmed);
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:s?, s:s?}", "topic_arn", topic->arn, "subscribe_url",
                            topic->url, "received_at", received, "confirmed_at",
                            topic->confirmed_us ? confirmed : NULL, "error", topic->error));
    }
    return list;
}

/* --- JSON ------------------------------------------------------------------------------------- */

static void set_next(json_t *j, const struct trigger *t)
{
    char text[UN_CLOCK_TEXT_SIZE];
    int64_t now = (int64_t)(un_clock_wall_us() / 1000000);
    int64_t next = cron_next(&t->config.cron, t->config.tz, now > t->last_s ? now : t->last_s,
                             (int64_t)(t->changed_us / 1000000));
    bool runs = t->config.enabled && next != CRON_NEVER;
    json_object_set_new(j, "next_at",
                        runs ? json_string(un_clock_format((uint64_t)next * 1000000, text))
                             : json_null());
}

json_t *trigger_json(const struct trigger *t)
{
    char created[UN_CLOCK_TEXT_SIZE], changed[UN_CLOCK_TEXT_SIZE];
    un_clock_format(t->created_us, created);
    un_clock_format(t->changed_us, changed);
    json_t *j = json_pack("{s:s}", "name", t->name);
    json_t *config = trigger_config_to_json(&t->config);
    json_t *rest = json_pack("{s:s, s:s, s:{s:I, s:I, s:I, s:I}}", "created_at", created,
                             "changed_at", changed, "counts", "accepted", (json_int_t)t->accepted,
                             "duplicates", (json_int_t)t->duplicates, "stale", (json_int_t)t->stale,
                             "filtered", (json_int_t)t->filtered);
    bool ok = j && config && rest && json_object_update(j, config) == 0 &&
              json_object_update(j, rest) == 0;
    json_decref(config);
    json_decref(rest);
    if (!ok) {
        json_decref(j);
        return NULL;
    }
    if (t->config.kind == EVENT_S3) {
        json_object_set_new(j, "topics", topics_json(t));
    } else if (t->config.kind == EVENT_CRON) {
        set_next(j, t);
    }
    return j;
}
