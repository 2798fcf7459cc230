/* config.c - see config.h. */
#include "events/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/endpoint.h"
#include "common/json.h"
#include "common/limits.h"
#include "imagestore/function.h"

enum { AGE_MOST_MS = 30 * 86400 * 1000u, BACKOFF_MOST_MS = 86400 * 1000 };

static const char *const order_names[] = {
    [ASYNC_ORDER_NONE] = "none", [ASYNC_ORDER_FLAG] = "flag", [ASYNC_ORDER_DROP] = "drop"};

static void match_done(struct trigger_match *m)
{
    free(m->exact);
    free(m->prefix);
    free(m->suffix);
}

void trigger_config_done(struct trigger_config *c)
{
    for (size_t i = 0; i < c->event_count; i++) {
        free(c->events[i]);
    }
    char *const strings[] = {c->on_success, c->on_failure,   c->bucket,  c->prefix, c->suffix,
                             c->endpoint,   c->confirm_host, c->region,  c->put,    c->access_key,
                             c->table,      c->schedule,     c->timezone};
    for (size_t i = 0; i < UN_ARRAY_SIZE(strings); i++) {
        free(strings[i]);
    }
    if (c->secret_key) {
        explicit_bzero(c->secret_key, strlen(c->secret_key));
        free(c->secret_key);
    }
    free(c->events);
    free(c->functions);
    match_done(&c->type);
    match_done(&c->source);
    match_done(&c->subject);
    tz_free(c->tz);
    memset(c, 0, sizeof(*c));
}

/* --- reading: pieces -------------------------------------------------------------------------- */

static int no_memory(struct un_error *err)
{
    return un_error_set(err, -ENOMEM, "out of memory");
}

/* A string that is not empty; absent leaves NULL. */
static int get_text(const json_t *obj, const char *key, char **ret, struct un_error *err)
{
    const char *text = NULL;
    int rc = un_json_get_str(obj, key, &text, err);
    if (rc < 0 || !text) {
        return rc;
    }
    if (!*text || strlen(text) > LIMIT_TRIGGER_STRING) {
        return un_error_set(err, -EINVAL, "%s: must have 1 to %d bytes", key, LIMIT_TRIGGER_STRING);
    }
    return event_copy(ret, text) < 0 ? no_memory(err) : 0;
}

/* As get_text, of printable ASCII without spaces: what ends up in a URL or a header field. */
static int get_word(const json_t *obj, const char *key, char **ret, struct un_error *err)
{
    int rc = get_text(obj, key, ret, err);
    for (const char *c = rc == 0 && *ret ? *ret : ""; *c; c++) {
        if (*c <= 0x20 || *c >= 0x7f) {
            return un_error_set(err, -EINVAL, "%s: must be printable ASCII without spaces", key);
        }
    }
    return rc;
}

static int get_ms(const json_t *obj, const char *key, int64_t most, uint64_t *ret,
                  struct un_error *err)
{
    int64_t n = 0;
    int rc = un_json_get_int(obj, key, 1, most, &n, err);
    if (rc == 0 && n) {
        *ret = (uint64_t)n;
    }
    return rc;
}

static int parse_function(const char *text, struct trigger_function *ret, struct un_error *err)
{
    const char *colon = strchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : strlen(text);
    *ret = (struct trigger_function){.name = ""};
    if (len < sizeof(ret->name)) {
        memcpy(ret->name, text, len);
    }
    if (colon && strlen(colon + 1) < sizeof(ret->qualifier)) {
        snprintf(ret->qualifier, sizeof(ret->qualifier), "%s", colon + 1);
    }
    bool number = ret->qualifier[0] > '0' && ret->qualifier[0] <= '9' &&
                  strspn(ret->qualifier, "0123456789") == strlen(ret->qualifier);
    if (!function_name_valid(ret->name) ||
        (colon && !number && !function_alias_valid(ret->qualifier))) {
        return un_error_set(err, -EINVAL,
                            "functions: \"%.64s\" is no function's name, with :VERSION or :ALIAS "
                            "behind it if wanted",
                            text);
    }
    return 0;
}

static int parse_functions(const json_t *root, struct trigger_config *c, struct un_error *err)
{
    const json_t *list = json_object_get(root, "functions"), *item;
    const json_t *one = json_object_get(root, "function");
    size_t i, count = one ? 1 : json_array_size(list);
    if (!one == !list || count < 1 || count > LIMIT_TRIGGER_FUNCTIONS) {
        return un_error_set(err, -EINVAL,
                            "functions: must be a list of 1 to %d functions (or \"function\" one)",
                            LIMIT_TRIGGER_FUNCTIONS);
    }
    if (!(c->functions = calloc(count, sizeof(*c->functions)))) {
        return no_memory(err);
    }
    for (i = 0; i < count; i++) {
        item = one ? one : json_array_get(list, i);
        if (!json_is_string(item)) {
            return un_error_set(err, -EINVAL, "functions: must be strings");
        }
        int rc = parse_function(json_string_value(item), &c->functions[i], err);
        if (rc < 0) {
            return rc;
        }
        for (size_t k = 0; k < i; k++) {
            if (memcmp(&c->functions[k], &c->functions[i], sizeof(c->functions[i])) == 0) {
                return un_error_set(err, -EINVAL, "functions: \"%s\" is there twice",
                                    json_string_value(item));
            }
        }
        c->function_count++;
    }
    return 0;
}

static bool destination_ok(const char *text)
{
    struct trigger_function f;
    size_t scheme = un_url_scheme(text);
    return scheme ? strcspn(text + scheme, ":/?#") > 0 : parse_function(text, &f, NULL) == 0;
}

static int parse_common(const json_t *root, struct trigger_config *c, struct un_error *err)
{
    int64_t attempts = 0;
    uint64_t base = 0, most = 0;
    int rc = parse_functions(root, c, err);
    rc = rc ? rc : un_json_get_bool(root, "enabled", &c->enabled, err);
    rc = rc ? rc : un_json_get_int(root, "max_attempts", 1, 1000, &attempts, err);
    rc = rc ? rc : get_ms(root, "max_age_ms", AGE_MOST_MS, &c->policy.max_age_ms, err);
    rc = rc ? rc : get_ms(root, "backoff_ms", BACKOFF_MOST_MS, &base, err);
    rc = rc ? rc : get_ms(root, "backoff_max_ms", BACKOFF_MOST_MS, &most, err);
    rc = rc ? rc : get_ms(root, "dedupe_window_ms", AGE_MOST_MS, &c->dedupe_window_ms, err);
    rc = rc ? rc : get_word(root, "on_success", &c->on_success, err);
    rc = rc ? rc : get_word(root, "on_failure", &c->on_failure, err);
    if (rc < 0) {
        return rc;
    }
    if ((c->on_success && !destination_ok(c->on_success)) ||
        (c->on_failure && !destination_ok(c->on_failure))) {
        return un_error_set(
            err, -EINVAL,
            "on_%s: must be a function's name, or a URL like http://HOST/ or https://HOST/",
            c->on_success && !destination_ok(c->on_success) ? "success" : "failure");
    }
    c->policy.max_attempts = (unsigned)attempts;
    c->policy.backoff_base_ms = (uint32_t)base;
    c->policy.backoff_max_ms = (uint32_t)most;
    return 0;
}

static int parse_events(const json_t *root, struct trigger_config *c, struct un_error *err)
{
    const json_t *list = json_object_get(root, "events"), *item;
    size_t i;
    if (!list) {
        return 0;
    }
    if (!json_is_array(list) || json_array_size(list) < 1 ||
        json_array_size(list) > LIMIT_TRIGGER_EVENTS) {
        return un_error_set(err, -EINVAL, "events: must be a list of 1 to %d names",
                            LIMIT_TRIGGER_EVENTS);
    }
    if (!(c->events = calloc(json_array_size(list), sizeof(*c->events)))) {
        return no_memory(err);
    }
    json_array_foreach(list, i, item)
    {
        const char *text = json_string_value(item), *star = text ? strchr(text, '*') : NULL;
        bool s3 = c->kind == EVENT_S3;
        if (!text || !*text || strlen(text) > 128 || (star && (star[1] || !s3))) {
            return un_error_set(err, -EINVAL,
                                s3 ? "events: must be names like s3:ObjectCreated:Put or "
                                     "s3:ObjectCreated:*"
                                   : "events: must be INSERT, MODIFY or REMOVE");
        }
        if (!s3 && strcmp(text, "INSERT") != 0 && strcmp(text, "MODIFY") != 0 &&
            strcmp(text, "REMOVE") != 0) {
            return un_error_set(err, -EINVAL, "events: must be INSERT, MODIFY or REMOVE");
        }
        text += s3 && strncmp(text, "s3:", 3) == 0 ? 3 : 0;
        if (!(c->events[i] = strdup(text))) {
            return no_memory(err);
        }
        c->event_count++;
    }
    return 0;
}

static int parse_order(const json_t *root, struct trigger_config *c, struct un_error *err)
{
    const char *word = order_names[0];
    int rc = un_json_get_str(root, "order", &word, err);
    for (size_t i = 0; rc == 0 && i < UN_ARRAY_SIZE(order_names); i++) {
        if (strcmp(word, order_names[i]) == 0) {
            c->order = (enum async_order)i;
            return 0;
        }
    }
    return rc ? rc : un_error_set(err, -EINVAL, "order: must be none, flag or drop");
}

/* --- reading: S3 ------------------------------------------------------------------------------ */

/* "http[s]://host[:port]", nothing behind it. */
static bool endpoint_ok(const char *url)
{
    size_t scheme = un_url_scheme(url);
    size_t len = scheme ? strlen(url + scheme) : 0;
    return len > 0 && strcspn(url + scheme, "/?#@\\\"<>%") == len;
}

static bool bucket_ok(const char *name, size_t len)
{
    size_t good = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_");
    return len >= 1 && len <= 255 && good >= len && strncmp(name, "..", len < 2 ? 2 : len) != 0;
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Whether what is put could be an event for the trigger again, for ever. */
static bool puts_to_itself(const struct trigger_config *c)
{
    size_t len = strcspn(c->put, "/");
    const char *into = c->put + len + 1, *prefix = c->prefix ? c->prefix : "";
    if (c->bucket && (strlen(c->bucket) != len || strncmp(c->put, c->bucket, len) != 0)) {
        return false;
    }
    /* Only what begins otherwise is safe: a short prefix may go on with the key's own name. */
    size_t shorter = strlen(into) < strlen(prefix) ? strlen(into) : strlen(prefix);
    return strncmp(into, prefix, shorter) == 0;
}

static int check_object_access(struct trigger_config *c, struct un_error *err)
{
    if (!c->endpoint) {
        bool any = c->fetch || c->put || c->access_key || c->secret_key || c->region;
        return any ? un_error_set(err, -EINVAL,
                                  "endpoint: fetch, put, region and the keys need it, like "
                                  "http://127.0.0.1:9000")
                   : 0;
    }
    if (!endpoint_ok(c->endpoint)) {
        return un_error_set(err, -EINVAL,
                            "endpoint: must be http://HOST[:PORT] or https://HOST[:PORT]");
    }
    if (!c->access_key != !c->secret_key || (c->access_key && strchr(c->access_key, ':'))) {
        return un_error_set(err, -EINVAL,
                            "access_key and secret_key: both or none, no ':' in the "
                            "access key");
    }
    if (c->put && (!strchr(c->put, '/') || !bucket_ok(c->put, strcspn(c->put, "/")))) {
        return un_error_set(err, -EINVAL, "put: must be BUCKET/PREFIX; the prefix may be empty");
    }
    for (size_t i = 0; i < c->event_count && (c->fetch || c->put); i++) {
        if (!starts_with(c->events[i], "ObjectCreated:")) {
            return un_error_set(
                err, -EINVAL,
                "events: with fetch or put only s3:ObjectCreated:..., because other "
                "events have no object");
        }
    }
    if (c->put && puts_to_itself(c)) {
        return un_error_set(err, -EINVAL,
                            "put: what is stored there could trigger the same function again; use "
                            "another bucket, or a prefix that does not begin like the trigger's");
    }
    return 0;
}

static int parse_s3(const json_t *root, struct trigger_config *c, struct un_error *err)
{
    int rc = parse_events(root, c, err);
    rc = rc ? rc : parse_order(root, c, err);
    rc = rc ? rc : get_word(root, "bucket", &c->bucket, err);
    rc = rc ? rc : get_text(root, "prefix", &c->prefix, err);
    rc = rc ? rc : get_text(root, "suffix", &c->suffix, err);
    rc = rc ? rc : un_json_get_bool(root, "confirm", &c->confirm, err);
    rc = rc ? rc : get_word(root, "confirm_host", &c->confirm_host, err);
    rc = rc ? rc : get_word(root, "endpoint", &c->endpoint, err);
    rc = rc ? rc : get_word(root, "region", &c->region, err);
    rc = rc ? rc : get_word(root, "access_key", &c->access_key, err);
    rc = rc ? rc : get_word(root, "secret_key", &c->secret_key, err);
    rc = rc ? rc : un_json_get_bool(root, "fetch", &c->fetch, err);
    rc = rc ? rc : get_text(root, "put", &c->put, err);
    if (rc == 0 && c->bucket && !bucket_ok(c->bucket, strlen(c->bucket))) {
        rc = un_error_set(err, -EINVAL, "bucket: this is no bucket's name");
    }
    if (rc == 0 && c->region &&
        strspn(c->region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX"
                          "YZ0123456789-_") != strlen(c->region)) {
        rc = un_error_set(err, -EINVAL, "region: must be of letters, digits, - and _");
    }
    rc = rc ? rc : check_object_access(c, err);
    if (rc == 0 && (c->fetch || c->put) && !c->events) {
        c->events = calloc(1, sizeof(*c->events));
        if (!c->events || !(c->events[0] = strdup("ObjectCreated:*"))) {
            return no_memory(err);
        }
        c->event_count = 1;
    }
    return rc;
}

/* --- reading: the other types ----------------------------------------------------------------- */

static int parse_match(const json_t *filter, const char *key, struct trigger_match *m,
                       struct un_error *err)
{
    static const char *const keys[] = {"exact", "prefix", "suffix", NULL};
    const json_t *value = json_object_get(filter, key);
    int rc = 0;
    if (json_is_string(value)) {
        rc = get_text(filter, key, &m->exact, err);
    } else if (value) {
        rc = un_json_only_keys(value, keys, err);
        rc = rc ? rc : get_text(value, "exact", &m->exact, err);
        rc = rc ? rc : get_text(value, "prefix", &m->prefix, err);
        rc = rc ? rc : get_text(value, "suffix", &m->suffix, err);
        if (rc < 0) {
            (void)un_error_context(err, "%s", key);
        }
    }
    if (rc < 0) {
        (void)un_error_context(err, "filter");
    }
    return rc;
}

static int parse_cloudevents(const json_t *root, struct trigger_config *c, struct un_error *err)
{
    static const char *const keys[] = {"type", "source", "subject", NULL};
    const json_t *filter = json_object_get(root, "filter");
    if (!filter) {
        return 0;
    }
    int rc = un_json_only_keys(filter, keys, err);
    if (rc < 0) {
        (void)un_error_context(err, "filter");
        return rc;
    }
    rc = parse_match(filter, "type", &c->type, err);
    rc = rc ? rc : parse_match(filter, "source", &c->source, err);
    return rc ? rc : parse_match(filter, "subject", &c->subject, err);
}

static int parse_dynamodb(const json_t *root, struct trigger_config *c, struct un_error *err)
{
    int rc = parse_events(root, c, err);
    rc = rc ? rc : parse_order(root, c, err);
    return rc ? rc : get_word(root, "table", &c->table, err);
}

static int parse_cron(const json_t *root, struct trigger_config *c, struct un_error *err)
{
    const char *missed = cron_missed_name(CRON_SKIP);
    int rc = get_text(root, "schedule", &c->schedule, err);
    rc = rc ? rc : get_word(root, "timezone", &c->timezone, err);
    rc = rc ? rc : un_json_get_str(root, "missed", &missed, err);
    if (rc < 0) {
        return rc;
    }
    if (!c->schedule) {
        return un_error_set(err, -EINVAL, "schedule: is missing, like \"*/5 * * * *\"");
    }
    int policy = cron_missed_parse(missed);
    if (policy < 0) {
        return un_error_set(err, -EINVAL, "missed: must be skip, once or all");
    }
    c->missed = (enum cron_missed)policy;
    if (!c->timezone && !(c->timezone = strdup("UTC"))) {
        return no_memory(err);
    }
    rc = cron_parse(c->schedule, &c->cron, err);
    return rc ? rc : tz_load(c->timezone, &c->tz, err);
}

/* --- reading: the whole ----------------------------------------------------------------------- */

#define COMMON_KEYS                                                                                \
    "type", "functions", "function", "enabled", "max_attempts", "max_age_ms", "backoff_ms",        \
        "backoff_max_ms", "dedupe_window_ms", "on_success", "on_failure"

static const char *const s3_keys[] = {
    COMMON_KEYS, "events", "order", "bucket",     "prefix",     "suffix", "confirm", "confirm_host",
    "endpoint",  "region", "fetch", "access_key", "secret_key", "put",    NULL};
static const char *const cloudevents_keys[] = {COMMON_KEYS, "filter", NULL};
static const char *const dynamodb_keys[] = {COMMON_KEYS, "events", "order", "table", NULL};
static const char *const cron_keys[] = {COMMON_KEYS, "schedule", "timezone", "missed", NULL};

static const struct {
    const char *const *keys;
    int (*parse)(const json_t *root, struct trigger_config *c, struct un_error *err);
} types[] = {
    [EVENT_S3] = {s3_keys, parse_s3},
    [EVENT_CLOUDEVENT] = {cloudevents_keys, parse_cloudevents},
    [EVENT_DYNAMODB] = {dynamodb_keys, parse_dynamodb},
    [EVENT_CRON] = {cron_keys, parse_cron},
};

int trigger_config_parse(const json_t *root, struct trigger_config *ret, struct un_error *err)
{
    struct trigger_config c = {.enabled = true};
    const char *type = NULL;
    int rc = un_json_get_str(root, "type", &type, err);
    int kind = rc == 0 ? event_kind_parse(type) : -1;
    if (rc == 0 && kind < 0) {
        rc = un_error_set(err, -EINVAL, "type: must be s3, cloudevents, dynamodb or cron");
    }
    if (rc < 0) {
        return rc;
    }
    c.kind = (enum event_kind)kind;
    rc = un_json_only_keys(root, types[kind].keys, err);
    if (rc < 0) {
        (void)un_error_context(err, "a trigger of type %s", type);
        return rc;
    }
    rc = parse_common(root, &c, err);
    rc = rc ? rc : types[kind].parse(root, &c, err);
    if (rc < 0) {
        trigger_config_done(&c);
        return rc;
    }
    *ret = c;
    return 0;
}

/* --- writing ---------------------------------------------------------------------------------- */

static void set_text(json_t *j, const char *key, const char *text)
{
    if (text) {
        json_object_set_new(j, key, json_string(text));
    }
}

static void set_number(json_t *j, const char *key, uint64_t n)
{
    if (n) {
        json_object_set_new(j, key, json_integer((json_int_t)n));
    }
}

static void set_match(json_t *filter, const char *key, const struct trigger_match *m)
{
    json_t *j = json_object();
    set_text(j, "exact", m->exact);
    set_text(j, "prefix", m->prefix);
    set_text(j, "suffix", m->suffix);
    if (json_object_size(j)) {
        json_object_set(filter, key, j);
    }
    json_decref(j);
}

static void set_events(json_t *j, const struct trigger_config *c)
{
    json_t *list = json_array();
    for (size_t i = 0; i < c->event_count; i++) {
        const char *scheme = c->kind == EVENT_S3 ? "s3:" : "";
        json_array_append_new(list, json_sprintf("%s%s", scheme, c->events[i]));
    }
    if (c->event_count) {
        json_object_set(j, "events", list);
    }
    json_decref(list);
    set_text(j, "order", order_names[c->order]);
}

static void set_s3(json_t *j, const struct trigger_config *c)
{
    set_text(j, "bucket", c->bucket);
    set_text(j, "prefix", c->prefix);
    set_text(j, "suffix", c->suffix);
    set_events(j, c);
    json_object_set_new(j, "confirm", json_boolean(c->confirm));
    set_text(j, "confirm_host", c->confirm_host);
    set_text(j, "endpoint", c->endpoint);
    set_text(j, "region", c->region);
    json_object_set_new(j, "fetch", json_boolean(c->fetch));
    set_text(j, "put", c->put);
    json_object_set_new(j, "has_credentials", json_boolean(c->secret_key));
}

static void set_by_kind(json_t *j, const struct trigger_config *c)
{
    switch (c->kind) {
    case EVENT_S3:
        set_s3(j, c);
        break;
    case EVENT_CLOUDEVENT: {
        json_t *filter = json_object();
        set_match(filter, "type", &c->type);
        set_match(filter, "source", &c->source);
        set_match(filter, "subject", &c->subject);
        json_object_set_new(j, "filter", filter);
        break;
    }
    case EVENT_DYNAMODB:
        set_text(j, "table", c->table);
        set_events(j, c);
        break;
    default:
        set_text(j, "schedule", c->schedule);
        set_text(j, "timezone", c->timezone);
        set_text(j, "missed", cron_missed_name(c->missed));
        break;
    }
}

json_t *trigger_config_to_json(const struct trigger_config *c)
{
    json_t *j = json_object(), *functions = json_array();
    set_text(j, "type", event_kind_name(c->kind));
    for (size_t i = 0; i < c->function_count; i++) {
        const struct trigger_function *f = &c->functions[i];
        json_array_append_new(
            functions, json_sprintf("%s%s%s", f->name, *f->qualifier ? ":" : "", f->qualifier));
    }
    json_object_set_new(j, "functions", functions);
    json_object_set_new(j, "enabled", json_boolean(c->enabled));
    set_by_kind(j, c);
    set_number(j, "max_attempts", c->policy.max_attempts);
    set_number(j, "max_age_ms", c->policy.max_age_ms);
    set_number(j, "backoff_ms", c->policy.backoff_base_ms);
    set_number(j, "backoff_max_ms", c->policy.backoff_max_ms);
    set_number(j, "dedupe_window_ms", c->dedupe_window_ms);
    set_text(j, "on_success", c->on_success);
    set_text(j, "on_failure", c->on_failure);
    return j;
}
