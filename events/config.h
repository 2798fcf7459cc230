/* config.h - what a trigger is set to do: its configuration as JSON, and whether it wants an
 * event.
 *
 * Keys of every type: type, functions (or function), enabled, max_attempts, max_age_ms,
 * backoff_ms, backoff_max_ms, dedupe_window_ms, on_success, on_failure. The others are those of
 * one type; a key of another type is refused. docs/events.md and docs/openapi.yaml tell what each
 * means.
 */
#ifndef UNID_EVENTS_CONFIG_H
#define UNID_EVENTS_CONFIG_H

#include "events/cron.h"
#include "events/event.h"
#include "scheduler/async/async.h"

/* NULL: whatever. All that are set must fit. */
struct trigger_match {
    char *exact, *prefix, *suffix;
};

struct trigger_function {
    char name[64];
    char qualifier[64]; /* "" : none */
};

struct trigger_config {
    enum event_kind kind;
    bool enabled;
    struct trigger_function *functions; /* in the order given, each once */
    size_t function_count;
    struct async_policy policy;
    uint64_t dedupe_window_ms;
    char *on_success, *on_failure;

    /* events: names of S3 (without "s3:"; a '*' at the end stands for any rest) or of DynamoDB;
     * none: all. */
    char **events;
    size_t event_count;
    enum async_order order; /* S3 and DynamoDB */

    char *bucket, *prefix, *suffix; /* S3: of the key; NULL: any */
    bool confirm;                   /* S3: confirm subscriptions of SNS ... */
    char *confirm_host;      /* ... whose URL is of this host or below it; NULL: those of SNS */
    char *endpoint, *region; /* S3: "http[s]://host[:port]" */
    bool fetch;
    char *put;                     /* S3: "bucket/prefix" */
    char *access_key, *secret_key; /* secret: never in trigger_config_to_json */

    struct trigger_match type, source, subject; /* CloudEvents */

    char *table; /* DynamoDB; NULL: any */

    char *schedule, *timezone; /* cron; both are set */
    enum cron_missed missed;
    struct cron cron; /* `schedule`, read */
    struct tz *tz;
};

void trigger_config_done(struct trigger_config *c);

/* Reads the JSON of PUT /api/v1/triggers/{name}, without its "token". On success `ret` is released
 * with trigger_config_done. -EINVAL with the key and the reason, -ENOMEM. */
int trigger_config_parse(const json_t *root, struct trigger_config *ret, struct un_error *err);

/* The same as JSON without what is secret ("has_credentials" says whether there is). NULL: no
 * memory. */
json_t *trigger_config_to_json(const struct trigger_config *c);

/* Whether the trigger wants the event, by kind and filters (whether it is enabled is not asked). */
bool trigger_config_wants(const struct trigger_config *c, const struct event *e);

/* Where the output for an object goes: the bucket of `put`, and its prefix with what is behind the
 * trigger's own prefix in `key`. Free both with free(). -ENOMEM. */
int trigger_config_put_place(const struct trigger_config *c, const char *key, char **ret_bucket,
                             char **ret_key);

#endif
