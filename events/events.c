/* events.c - opening, closing, and the numbers; see events.h. */
#include "events/events.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "events/events_impl.h"

static const char step1[] =
    /* AUTOINCREMENT: the id of a trigger that was removed is never used again. `secret` and
     * `token` (a hash) never leave this table. last_s: of cron. */
    "CREATE TABLE triggers("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, config TEXT NOT NULL,"
    " secret TEXT, token BLOB NOT NULL, created_us INTEGER NOT NULL, changed_us INTEGER NOT NULL,"
    " last_s INTEGER NOT NULL);"
    "CREATE TABLE trigger_topics("
    " trigger_id INTEGER NOT NULL REFERENCES triggers(id) ON DELETE CASCADE, arn TEXT NOT NULL,"
    " url TEXT NOT NULL, error TEXT, received_us INTEGER NOT NULL, confirmed_us INTEGER NOT NULL,"
    " PRIMARY KEY(trigger_id, arn)) WITHOUT ROWID;";

static const char *const steps[] = {step1, NULL};

const struct store_schema events_schema = {.component = "events", .steps = steps};

static void events_free(struct events *ev)
{
    for (size_t i = 0; i < ev->count; i++) {
        trigger_free(ev->triggers[i]);
    }
    free(ev->triggers);
    free(ev);
}

void events_hold(struct events *ev)
{
    ev->pending++;
}

void events_release(struct events *ev)
{
    if (--ev->pending == 0 && ev->closed) {
        events_free(ev);
    }
}

int events_open(const struct events_spec *spec, struct events **ret, struct un_error *err)
{
    struct events *ev = calloc(1, sizeof(*ev));
    if (!ev || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(ev);
        return un_error_set(err, -ENOMEM, "triggers: out of memory");
    }
    ev->loop = spec->loop;
    ev->store = spec->store;
    ev->registry = spec->registry;
    ev->scheduler = spec->scheduler;
    int rc = un_workers_new(ev->loop, "unid-transfer", TRANSFER_THREADS, &ev->transfers, err);
    rc = rc < 0 ? rc : trigger_load_all(ev, err);
    if (rc < 0) {
        un_workers_free(ev->transfers);
        events_free(ev);
        (void)un_error_context(err, "triggers");
        return rc;
    }
    const struct async_hooks hooks = {.fetch = object_fetch, .put = object_put, .arg = ev};
    async_set_hooks(ev->scheduler, &hooks);
    for (size_t i = 0; i < ev->count; i++) {
        trigger_schedule(ev->triggers[i]);
    }
    *ret = ev;
    return 0;
}

void events_drain(struct events *ev)
{
    if (!ev) {
        return;
    }
    ev->draining = true;
    __atomic_store_n(&ev->stop, true, __ATOMIC_RELAXED);
    for (size_t i = 0; i < ev->count; i++) {
        un_timer_cancel(&ev->triggers[i]->timer);
    }
}

void events_close(struct events *ev)
{
    if (!ev) {
        return;
    }
    events_drain(ev);
    un_workers_free(ev->transfers);
    ev->closed = true;
    events_hold(ev);
    events_release(ev);
}

/* --- numbers ---------------------------------------------------------------------------------- */

const char *intake_result_name(enum intake_result r)
{
    static const char *const names[] = {
        [INTAKE_ACCEPTED] = "accepted", [INTAKE_DUPLICATE] = "duplicate",
        [INTAKE_STALE] = "stale",       [INTAKE_UNMATCHED] = "unmatched",
        [INTAKE_REFUSED] = "refused",   [INTAKE_FAILED] = "failed"};
    return names[r];
}

const char *intake_source_name(enum intake_source s)
{
    static const char *const names[] = {
        [INTAKE_AWS] = "aws",     [INTAKE_MINIO] = "minio",
        [INTAKE_CEPH] = "ceph",   [INTAKE_S3] = "s3",
        [INTAKE_CRON] = "cron",   [INTAKE_CLOUDEVENTS] = "cloudevents",
        [INTAKE_OTHER] = "other", [INTAKE_DYNAMODB] = "dynamodb"};
    return names[s];
}

void events_count(struct events *ev, enum intake_source source, enum intake_result result)
{
    ev->stats.counts[source][result]++;
}

void events_get_stats(const struct events *ev, struct events_stats *ret)
{
    *ret = ev->stats;
    for (size_t i = 0; i < ev->count; i++) {
        ret->triggers[ev->triggers[i]->config.kind]++;
    }
}
