/* filter.c - whether a trigger wants an event, and where its output goes (config.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "events/config.h"

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool has_suffix(const char *text, const char *suffix)
{
    size_t len = strlen(text), want = strlen(suffix);
    return len >= want && memcmp(text + len - want, suffix, want) == 0;
}

/* An attribute that is missing fits no condition. */
static bool matches(const struct trigger_match *m, const char *text)
{
    return (!m->exact || (text && strcmp(text, m->exact) == 0)) &&
           (!m->prefix || (text && has_prefix(text, m->prefix))) &&
           (!m->suffix || (text && has_suffix(text, m->suffix)));
}

static bool event_named(const struct trigger_config *c, const char *type)
{
    const char *name = c->kind == EVENT_S3 && has_prefix(type, "s3:") ? type + 3 : type;
    for (size_t i = 0; i < c->event_count; i++) {
        size_t len = strcspn(c->events[i], "*");
        bool whole = c->events[i][len] == '\0';
        if (whole ? strcmp(name, c->events[i]) == 0 : strncmp(name, c->events[i], len) == 0) {
            return true;
        }
    }
    return c->event_count == 0;
}

bool trigger_config_wants(const struct trigger_config *c, const struct event *e)
{
    if (c->kind != e->kind) {
        return false;
    }
    switch (e->kind) {
    case EVENT_S3:
        return (!c->bucket || strcmp(c->bucket, e->bucket) == 0) &&
               (!c->prefix || has_prefix(e->subject, c->prefix)) &&
               (!c->suffix || has_suffix(e->subject, c->suffix)) && event_named(c, e->type);
    case EVENT_CLOUDEVENT:
        return matches(&c->type, e->type) && matches(&c->source, e->source) &&
               matches(&c->subject, e->subject);
    case EVENT_DYNAMODB:
        return (!c->table || strcmp(c->table, e->subject) == 0) && event_named(c, e->type);
    default:
        return true;
    }
}

int trigger_config_put_place(const struct trigger_config *c, const char *key, char **ret_bucket,
                             char **ret_key)
{
    size_t len = strcspn(c->put, "/");
    const char *rest = c->prefix && has_prefix(key, c->prefix) ? key + strlen(c->prefix) : key;
    char *bucket = strndup(c->put, len), *place = NULL;
    if (!bucket || asprintf(&place, "%s%s", c->put + len + 1, rest) < 0) {
        free(bucket);
        return -ENOMEM;
    }
    *ret_bucket = bucket;
    *ret_key = place;
    return 0;
}
