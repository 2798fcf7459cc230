/* s3.c - see s3.h. */
#include "events/s3.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/limits.h"

static int parse_message(json_t *root, bool in_envelope, struct s3_delivery *d,
                         struct un_error *err);

void s3_delivery_done(struct s3_delivery *d)
{
    event_list_done(&d->events);
    free(d->topic_arn);
    free(d->subscribe_url);
    *d = (struct s3_delivery){0};
}

static int no_memory(struct un_error *err)
{
    return un_error_set(err, -ENOMEM, "out of memory");
}

/* --- records ---------------------------------------------------------------------------------- */

/* Ceph (rgw_notify_event_type, and what was captured from 16.2) writes the time of the change as
 * two 32-bit numbers, seconds and nanoseconds, each with its least significant byte first; swapped
 * they sort as the others do. `text` has 16 digits. */
static void swap_words(const char *text, char ret[17])
{
    for (size_t i = 0; i < 16; i += 2) {
        size_t word = i / 8 * 8, from = word + 6 - (i - word);
        ret[i] = text[from];
        ret[i + 1] = text[from + 1];
    }
    ret[16] = '\0';
}

/* Sequencers of the same key are hexadecimal; the shorter is padded with zeros on the right before
 * they are compared (Amazon S3 User Guide, "Event message structure"). Strings of digits compare
 * so by themselves, once trailing zeros are gone and letters have one case. */
static int set_sequence(struct event *e, const char *sequencer, bool ceph)
{
    char swapped[17];
    size_t len = sequencer ? strlen(sequencer) : 0;
    if (len == 0 || len > 64 || strspn(sequencer, "0123456789abcdefABCDEF") != len) {
        return 0;
    }
    if (ceph && len == 16) {
        swap_words(sequencer, swapped);
        sequencer = swapped;
    }
    if (event_copy(&e->sequence, sequencer) < 0) {
        return -ENOMEM;
    }
    for (char *c = e->sequence; *c; c++) {
        *c = (char)(*c >= 'a' ? *c - 'a' + 'A' : *c);
    }
    while (len > 1 && e->sequence[len - 1] == '0') {
        e->sequence[--len] = '\0';
    }
    char hash[EVENT_ID_SIZE];
    const char *parts[] = {e->source, e->bucket, e->subject};
    return event_hash(parts, 3, hash) < 0 ? -ENOMEM : event_copy(&e->order_key, hash);
}

/* "ObjectCreated:Put" and "s3:ObjectCreated:Put" are the same. */
static int set_type(struct event *e, const char *name)
{
    const char *rest = strncmp(name, "s3:", 3) == 0 ? name + 3 : name;
    if (asprintf(&e->type, "s3:%s", rest) < 0) {
        e->type = NULL;
        return -ENOMEM;
    }
    return 0;
}

static int decode_key(const char *key, const char *source, char **ret, size_t index,
                      struct un_error *err)
{
    bool bad = false, raw = strncmp(source, "ceph:", 5) == 0;
    *ret = raw ? strdup(key) : event_decode(key, true, &bad);
    if (bad || (*ret && !event_utf8(*ret))) {
        free(un_steal(ret));
        return un_error_set(err, -EINVAL,
                            "Records[%zu]: s3.object.key is not URL-encoded UTF-8, which %s sends",
                            index, *source ? source : "S3");
    }
    return *ret ? 0 : no_memory(err);
}

/* The identity, and what orders. `object` is the record's. */
static int identify(struct event *e, const json_t *object, bool ceph)
{
    const char *version = event_str(object, "versionId"), *etag = event_str(object, "eTag");
    const char *sequencer = event_str(object, "sequencer");
    json_int_t size = json_integer_value(json_object_get(object, "size"));
    e->size = size > 0 ? (uint64_t)size : 0;
    const char *parts[] = {
        "s3",      e->source, e->bucket, e->subject, version && *version ? version : etag,
        sequencer, e->type};
    int rc = event_hash(parts, UN_ARRAY_SIZE(parts), e->id);
    rc = rc ? rc : event_copy(&e->version_id, version && *version ? version : NULL);
    return rc ? rc : set_sequence(e, sequencer, ceph);
}

/* `record` is changed: its key is decoded. `raw`: it is so already. */
static int add_record(struct s3_delivery *d, json_t *record, size_t index, bool raw,
                      struct un_error *err)
{
    json_t *s3 = json_object_get(record, "s3"), *object = json_object_get(s3, "object");
    const char *name = event_str(record, "eventName"), *key = event_str(object, "key");
    const char *bucket = event_str(json_object_get(s3, "bucket"), "name");
    const char *source = event_str(record, "eventSource");
    un_autofree char *decoded = NULL;
    if (!name || !*name || !bucket || !*bucket || !key || !*key) {
        return un_error_set(err, -EINVAL,
                            "Records[%zu]: an S3 record has eventName, s3.bucket.name and "
                            "s3.object.key, each a string that is not empty",
                            index);
    }
    source = source ? source : "";
    int rc = decode_key(key, raw ? "ceph:" : source, &decoded, index, err);
    if (rc < 0) {
        return rc;
    }
    struct event *e = event_list_add(&d->events, EVENT_S3);
    rc = e ? 0 : -ENOMEM;
    rc = rc ? rc : set_type(e, name);
    rc = rc ? rc : event_copy(&e->source, *source ? source : "aws:s3");
    rc = rc ? rc : event_copy(&e->bucket, bucket);
    rc = rc ? rc : event_copy(&e->time, event_str(record, "eventTime"));
    if (rc == 0) {
        e->subject = un_steal(&decoded);
        rc = identify(e, object, strncmp(source, "ceph:", 5) == 0);
    }
    if (rc == 0 && json_object_set_new(object, "key", json_string(e->subject)) < 0) {
        rc = -ENOMEM;
    }
    rc = rc ? rc : event_set_record(e, record);
    return rc ? no_memory(err) : 0;
}

static int add_records(struct s3_delivery *d, json_t *records, struct un_error *err)
{
    size_t i;
    json_t *record;
    if (json_array_size(records) > LIMIT_EVENT_RECORDS) {
        return un_error_set(err, -E2BIG, "a delivery has at most %d records", LIMIT_EVENT_RECORDS);
    }
    json_array_foreach(records, i, record)
    {
        int rc = add_record(d, record, i, false, err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* --- EventBridge ------------------------------------------------------------------------------ */

/* The names of "Amazon S3 User Guide: EventBridge", and what the same is called in a notification.
 * A `reason` of NULL stands for all. */
static const struct {
    const char *detail_type, *reason, *name;
} bridge_names[] = {
    {"Object Created", "PutObject", "ObjectCreated:Put"},
    {"Object Created", "POST Object", "ObjectCreated:Post"},
    {"Object Created", "CopyObject", "ObjectCreated:Copy"},
    {"Object Created", "CompleteMultipartUpload", "ObjectCreated:CompleteMultipartUpload"},
    {"Object Created", NULL, "ObjectCreated:Put"},
    {"Object Deleted", "Lifecycle Expiration", "LifecycleExpiration:Delete"},
    {"Object Deleted", NULL, "ObjectRemoved:Delete"},
    {"Object Restore Initiated", NULL, "ObjectRestore:Post"},
    {"Object Restore Completed", NULL, "ObjectRestore:Completed"},
    {"Object Restore Expired", NULL, "ObjectRestore:Delete"},
    {"Object Tags Added", NULL, "ObjectTagging:Put"},
    {"Object Tags Deleted", NULL, "ObjectTagging:Delete"},
    {"Object ACL Updated", NULL, "ObjectAcl:Put"},
    {"Object Storage Class Changed", NULL, "LifecycleTransition"},
    {"Object Access Tier Changed", NULL, "IntelligentTiering"},
};

static const char *bridge_name(const char *type, const char *reason, const char *deletion)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(bridge_names); i++) {
        if (strcmp(type, bridge_names[i].detail_type) == 0 &&
            (!bridge_names[i].reason || (reason && strcmp(reason, bridge_names[i].reason) == 0))) {
            bool marker = deletion && strcmp(deletion, "Delete Marker Created") == 0;
            bool removed = strcmp(bridge_names[i].name, "ObjectRemoved:Delete") == 0;
            bool expired = strcmp(bridge_names[i].name, "LifecycleExpiration:Delete") == 0;
            return marker && removed   ? "ObjectRemoved:DeleteMarkerCreated"
                   : marker && expired ? "LifecycleExpiration:DeleteMarkerCreated"
                                       : bridge_names[i].name;
        }
    }
    return NULL;
}

static bool move(json_t *to, const char *to_key, const json_t *from, const char *from_key)
{
    json_t *value = json_object_get(from, from_key);
    return !value || json_object_set(to, to_key, value) == 0;
}

static int parse_bridge(const json_t *root, struct s3_delivery *d, struct un_error *err)
{
    const json_t *detail = json_object_get(root, "detail"),
                 *from = json_object_get(detail, "object");
    const char *type = event_str(root, "detail-type");
    const char *name =
        type ? bridge_name(type, event_str(detail, "reason"), event_str(detail, "deletion-type"))
             : NULL;
    if (!name) {
        return un_error_set(err, -EINVAL,
                            "detail-type: is none of those that Amazon S3 sends to EventBridge");
    }
    json_t *object = json_object();
    json_t *bucket = json_object();
    un_autojson json_t *record = json_pack(
        "{s:s, s:s, s:s, s:{s:s, s:o, s:o}}", "eventVersion", "2.3", "eventSource", "aws:s3",
        "eventName", name, "s3", "s3SchemaVersion", "1.0", "bucket", bucket, "object", object);
    if (!record) {
        return no_memory(err);
    }
    bool whole =
        move(record, "awsRegion", root, "region") && move(record, "eventTime", root, "time") &&
        move(bucket, "name", json_object_get(detail, "bucket"), "name") &&
        move(object, "key", from, "key") && move(object, "size", from, "size") &&
        move(object, "eTag", from, "etag") && move(object, "versionId", from, "version-id") &&
        move(object, "sequencer", from, "sequencer");
    return whole ? add_record(d, record, 0, true, err) : no_memory(err);
}

/* --- SNS -------------------------------------------------------------------------------------- */

static int parse_notification(const json_t *root, struct s3_delivery *d, struct un_error *err)
{
    un_autojson json_t *message = NULL;
    const char *text = event_str(root, "Message");
    if (!text) {
        return un_error_set(err, -EINVAL, "Message: an SNS notification has one, a string");
    }
    int rc = un_json_parse(text, strlen(text), &message, err);
    rc = rc ? rc : parse_message(message, true, d, err);
    if (rc < 0) {
        (void)un_error_context(err, "the SNS Message");
    }
    return rc;
}

/* The envelopes: "HTTP/HTTPS notification JSON format" in the Amazon SNS Developer Guide. */
static int parse_sns(const json_t *root, const char *type, struct s3_delivery *d,
                     struct un_error *err)
{
    if (event_copy(&d->topic_arn, event_str(root, "TopicArn")) < 0 ||
        event_copy(&d->subscribe_url, event_str(root, "SubscribeURL")) < 0) {
        return no_memory(err);
    }
    if (strcmp(type, "Notification") == 0) {
        return parse_notification(root, d, err);
    }
    if (strcmp(type, "UnsubscribeConfirmation") == 0) {
        d->kind = S3_UNSUBSCRIBED;
        return 0;
    }
    if (strcmp(type, "SubscriptionConfirmation") != 0) {
        return un_error_set(err, -EINVAL,
                            "Type: must be Notification, SubscriptionConfirmation or "
                            "UnsubscribeConfirmation, as SNS sends");
    }
    d->kind = S3_SUBSCRIBE;
    return d->subscribe_url && d->topic_arn
               ? 0
               : un_error_set(err, -EINVAL,
                              "an SNS SubscriptionConfirmation has TopicArn and SubscribeURL");
}

/* --- the whole -------------------------------------------------------------------------------- */

static int parse_message(json_t *root, bool in_envelope, struct s3_delivery *d,
                         struct un_error *err)
{
    json_t *records = json_object_get(root, "Records");
    const char *sns = event_str(root, "Type"), *source = event_str(root, "source");
    const char *test = event_str(root, "Event");
    if (json_is_array(records)) {
        return add_records(d, records, err);
    }
    if (source && strcmp(source, "aws.s3") == 0) {
        return parse_bridge(root, d, err);
    }
    if (test && strcmp(test, "s3:TestEvent") == 0) {
        d->kind = S3_TEST;
        return 0;
    }
    if (sns && !in_envelope && event_str(root, "TopicArn")) {
        return parse_sns(root, sns, d, err);
    }
    return un_error_set(err, -EINVAL,
                        "expected an S3 event as JSON: an object with \"Records\" (AWS, MinIO, "
                        "Ceph), an SNS envelope of one, or an EventBridge event of aws.s3");
}

int s3_parse(const void *data, size_t len, struct s3_delivery *ret, struct un_error *err)
{
    un_autojson json_t *root = NULL;
    struct s3_delivery d = {.kind = S3_RECORDS};
    int rc = un_json_parse(data, len, &root, err);
    if (rc == -EINVAL) {
        (void)un_error_context(err, "expected an S3 event as JSON");
    }
    rc = rc ? rc : parse_message(root, false, &d, err);
    if (rc < 0) {
        (void)un_json_text(NULL);
        s3_delivery_done(&d);
        return rc;
    }
    *ret = d;
    return 0;
}
