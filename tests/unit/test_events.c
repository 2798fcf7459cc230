/* test_events.c - what stores, CloudEvents producers and tables send, as events; triggers' configurations
 * and filters. The deliveries of Ceph were captured from its gateway, 16.2. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/limits.h"
#include "events/cloudevents.h"
#include "events/config.h"
#include "events/dynamodb.h"
#include "events/event.h"
#include "events/s3.h"

/* --- S3 --------------------------------------------------------------------------------------- */

static const char ceph_put[] =
    "{\"Records\":[{\"eventVersion\":\"2.2\",\"eventSource\":\"ceph:s3\",\"awsRegion\":\"\","
    "\"eventTime\":\"2026-11-21T02:04:10.510083Z\",\"eventName\":\"ObjectCreated:Put\","
    "\"userIdentity\":{\"principalId\":\"t\"},\"requestParameters\":{\"sourceIPAddress\":\"\"},"
    "\"responseElements\":{\"x-amz-request-id\":\"9bab5fe3.4114\",\"x-amz-id-2\":\"1012\"},"
    "\"s3\":{\"s3SchemaVersion\":\"1.0\",\"configurationId\":\"n1\",\"bucket\":{\"name\":"
    "\"photos\","
    "\"ownerIdentity\":{\"principalId\":\"t\"},\"arn\":\"arn:aws:s3:::photos\",\"id\":\"9bab\"},"
    "\"object\":{\"key\":\"dir/a "
    "b+\xc3\xa9.txt\",\"size\":6,\"eTag\":\"b1946ac92492d2347c6235b4d2611184"
    "\",\"versionId\":\"\",\"sequencer\":\"1AFC006BC5BC8F1E\",\"metadata\":[{\"key\":"
    "\"x-amz-meta-k1\",\"val\":\"v1\"}],\"tags\":[]}},\"eventId\":\"1795226650.512736.b1946ac9\","
    "\"opaqueData\":\"my-opaque\"}]}";

static const char minio_put[] =
    "{\"EventName\":\"s3:ObjectCreated:Put\",\"Key\":\"photos/in/a b.jpg\",\"Records\":[{"
    "\"eventVersion\":\"2.0\",\"eventSource\":\"minio:s3\",\"awsRegion\":\"\",\"eventTime\":"
    "\"2026-11-21T02:04:10.510Z\",\"eventName\":\"s3:ObjectCreated:Put\",\"userIdentity\":{"
    "\"principalId\":\"minioadmin\"},\"s3\":{\"s3SchemaVersion\":\"1.0\",\"configurationId\":"
    "\"Config\",\"bucket\":{\"name\":\"photos\",\"ownerIdentity\":{\"principalId\":\"minioadmin\"},"
    "\"arn\":\"arn:aws:s3:::photos\"},\"object\":{\"key\":\"in%2Fa+b%2B%C3%A9.jpg\",\"size\":6,"
    "\"eTag\":\"b1946ac92492d2347c6235b4d2611184\",\"contentType\":\"image/jpeg\",\"sequencer\":"
    "\"17A1B2C3D4E5F600\"}},\"source\":{\"host\":\"127.0.0.1\",\"port\":\"\",\"userAgent\":\"x\"}}]"
    "}";

static struct s3_delivery parse_s3(const char *text)
{
    struct s3_delivery d;
    struct un_error err = UN_ERROR_INIT;
    int rc = s3_parse(text, strlen(text), &d, &err);
    if (rc < 0) {
        fail_msg("%s", err.text);
    }
    return d;
}

static const char *record_key(const struct event *e, char *buf, size_t size)
{
    un_autojson json_t *root = NULL;
    assert_int_equal(un_json_parse(e->body.data, e->body.len, &root, NULL), 0);
    const json_t *records = json_object_get(root, "Records");
    assert_int_equal(json_array_size(records), 1);
    const json_t *s3 = json_object_get(json_array_get(records, 0), "s3");
    snprintf(buf, size, "%s", event_str(json_object_get(s3, "object"), "key"));
    return buf;
}

static void ceph_keys_are_taken_as_they_are(void **state)
{
    char key[64];
    struct s3_delivery d = parse_s3(ceph_put);
    assert_int_equal(d.kind, S3_RECORDS);
    assert_int_equal(d.events.count, 1);
    const struct event *e = &d.events.items[0];
    assert_string_equal(e->type, "s3:ObjectCreated:Put");
    assert_string_equal(e->source, "ceph:s3");
    assert_string_equal(e->bucket, "photos");
    assert_string_equal(e->subject, "dir/a b+\xc3\xa9.txt");
    assert_string_equal(record_key(e, key, sizeof(key)), "dir/a b+\xc3\xa9.txt");
    assert_null(e->version_id);
    s3_delivery_done(&d);
}

static void minio_keys_are_decoded(void **state)
{
    char key[64];
    struct s3_delivery d = parse_s3(minio_put);
    const struct event *e = &d.events.items[0];
    assert_string_equal(e->type, "s3:ObjectCreated:Put");
    assert_string_equal(e->subject, "in/a b+\xc3\xa9.jpg");
    assert_string_equal(record_key(e, key, sizeof(key)), "in/a b+\xc3\xa9.jpg");
    s3_delivery_done(&d);
}

/* Seconds and nanoseconds come with their least byte first: as they are, they would not sort. */
static void sequencers_of_ceph_sort_by_time(void **state)
{
    static const char form[] =
        "{\"Records\":[{\"eventSource\":\"ceph:s3\",\"eventName\":"
        "\"ObjectCreated:Put\",\"s3\":{\"bucket\":{\"name\":\"b\"},\"object\":"
        "{\"key\":\"k\",\"sequencer\":\"%s\"}}}]}";
    /* Captured one after the other: 26 s, 27 s and 29 s of the same minute, then a carry. */
    static const char *const order[] = {"1AFC006BC5BC8F1E", "1BFC006B5BF5C926", "1DFC006BC8814725",
                                        "FFFC006BC8814725", "00FD006B00000000"};
    char before[65] = "";
    for (size_t i = 0; i < UN_ARRAY_SIZE(order); i++) {
        char text[256];
        snprintf(text, sizeof(text), form, order[i]);
        struct s3_delivery d = parse_s3(text);
        assert_true(strcmp(d.events.items[0].sequence, before) > 0);
        snprintf(before, sizeof(before), "%s", d.events.items[0].sequence);
        s3_delivery_done(&d);
    }
}

static void identity_is_of_what_identifies(void **state)
{
    struct s3_delivery a = parse_s3(ceph_put), b = parse_s3(ceph_put);
    assert_string_equal(a.events.items[0].id, b.events.items[0].id);
    s3_delivery_done(&b);
    static const char *const changes[][2] = {{"b1946ac9", "b1946ac8"},
                                             {"1AFC006B", "1BFC006B"},
                                             {"dir/a", "dir/b"},
                                             {"photos\",\"owner", "p2\",\"owner"},
                                             {"Created:Put", "Created:Copy"},
                                             {"ceph:s3", "ceph:s4"},
                                             {"versionId\":\"", "versionId\":\"1"}};
    for (size_t i = 0; i < UN_ARRAY_SIZE(changes); i++) {
        char text[sizeof(ceph_put) + 16];
        const char *at = strstr(ceph_put, changes[i][0]);
        assert_non_null(at);
        snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - ceph_put), ceph_put, changes[i][1],
                 at + strlen(changes[i][0]));
        b = parse_s3(text);
        assert_string_not_equal(a.events.items[0].id, b.events.items[0].id);
        s3_delivery_done(&b);
    }
    s3_delivery_done(&a);
}

static void each_record_is_an_event(void **state)
{
    struct s3_delivery d = parse_s3(
        "{\"Records\":[{\"eventSource\":\"aws:s3\",\"eventName\":\"ObjectCreated:Put\",\"s3\":{"
        "\"bucket\":{\"name\":\"b\"},\"object\":{\"key\":\"one\"}}},{\"eventSource\":\"aws:s3\","
        "\"eventName\":\"ObjectRemoved:Delete\",\"s3\":{\"bucket\":{\"name\":\"b\"},\"object\":{"
        "\"key\":\"two%25\"}}}]}");
    assert_int_equal(d.events.count, 2);
    assert_string_equal(d.events.items[0].subject, "one");
    assert_string_equal(d.events.items[1].subject, "two%");
    assert_string_equal(d.events.items[1].type, "s3:ObjectRemoved:Delete");
    s3_delivery_done(&d);
}

static void sns_envelopes_are_opened(void **state)
{
    struct s3_delivery d = parse_s3(
        "{\"Type\":\"Notification\",\"MessageId\":\"m\",\"TopicArn\":\"arn:aws:sns:eu:1:t\","
        "\"Subject\":\"Amazon S3 "
        "Notification\",\"Message\":\"{\\\"Records\\\":[{\\\"eventSource\\\":"
        "\\\"aws:s3\\\",\\\"eventName\\\":\\\"ObjectCreated:Put\\\",\\\"s3\\\":{\\\"bucket\\\":{"
        "\\\"name\\\":\\\"b\\\"},\\\"object\\\":{\\\"key\\\":\\\"a+b\\\"}}}]}\"}");
    assert_int_equal(d.kind, S3_RECORDS);
    assert_string_equal(d.events.items[0].subject, "a b");
    s3_delivery_done(&d);
    d = parse_s3(
        "{\"Type\":\"SubscriptionConfirmation\",\"Token\":\"t\",\"TopicArn\":\"arn:1\","
        "\"Message\":\"You have chosen...\",\"SubscribeURL\":\"https://sns.eu.amazonaws.com/"
        "?Action=ConfirmSubscription\"}");
    assert_int_equal(d.kind, S3_SUBSCRIBE);
    assert_string_equal(d.topic_arn, "arn:1");
    assert_non_null(strstr(d.subscribe_url, "ConfirmSubscription"));
    s3_delivery_done(&d);
    d = parse_s3("{\"Type\":\"Notification\",\"TopicArn\":\"arn:1\",\"Message\":\"{\\\"Service\\\":"
                 "\\\"Amazon S3\\\",\\\"Event\\\":\\\"s3:TestEvent\\\"}\"}");
    assert_int_equal(d.kind, S3_TEST);
    s3_delivery_done(&d);
}

static void envelopes_within_envelopes_are_refused(void **state)
{
    static const char text[] = "{\"Type\":\"Notification\",\"TopicArn\":\"a\",\"Message\":\"{"
                               "\\\"Type\\\":\\\"Notification\\\",\\\"TopicArn\\\":\\\"a\\\","
                               "\\\"Message\\\":\\\"{}\\\"}\"}";
    struct s3_delivery d;
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(s3_parse(text, strlen(text), &d, &err), -EINVAL);
}

static void eventbridge_becomes_a_record(void **state)
{
    char key[64];
    struct s3_delivery d = parse_s3(
        "{\"version\":\"0\",\"id\":\"17793124\",\"detail-type\":\"Object "
        "Deleted\",\"source\":\"aws.s3\","
        "\"account\":\"1\",\"time\":\"2026-11-12T00:00:00Z\",\"region\":\"ca-central-1\","
        "\"resources\":["
        "\"arn:aws:s3:::b\"],\"detail\":{\"version\":\"0\",\"bucket\":{\"name\":\"b\"},\"object\":{"
        "\"key\":\"a+b%20c\",\"size\":5,\"etag\":\"e\",\"version-id\":\"v1\",\"sequencer\":"
        "\"00617\"},"
        "\"request-id\":\"r\",\"reason\":\"DeleteObject\",\"deletion-type\":\"Delete Marker "
        "Created\"}}");
    const struct event *e = &d.events.items[0];
    assert_string_equal(e->type, "s3:ObjectRemoved:DeleteMarkerCreated");
    assert_string_equal(e->subject, "a+b%20c");
    assert_string_equal(e->version_id, "v1");
    assert_string_equal(record_key(e, key, sizeof(key)), "a+b%20c");
    s3_delivery_done(&d);
}

static void garbage_is_refused_with_what_is_expected(void **state)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "null",
        "\"x\"",
        "{\"Records\":{}}",
        "{\"Records\":[{}]}",
        "{\"Records\":[1]}",
        "{\"Records\":[{\"eventName\":\"x\",\"s3\":{\"bucket\":{\"name\":\"b\"},\"object\":{}}}]}",
        "{\"Records\":[{\"eventName\":\"x\",\"s3\":{\"bucket\":{\"name\":\"b\"},\"object\":{"
        "\"key\":"
        "\"%zz\"}}}]}",
        "{\"Records\":[{\"eventName\":\"x\",\"s3\":{\"bucket\":{\"name\":\"b\"},\"object\":{"
        "\"key\":"
        "\"%ff\"}}}]}",
        "{\"Records\":[{\"eventName\":\"x\",\"s3\":{\"bucket\":{\"name\":\"b\"},\"object\":{"
        "\"key\":"
        "\"a%00\"}}}]}",
        "{\"source\":\"aws.s3\",\"detail-type\":\"Other\"}",
        "{\"source\":\"aws.s3\",\"detail-type\":\"Object Created\",\"detail\":{}}",
        "{\"Type\":\"Notification\",\"TopicArn\":\"a\"}",
        "{\"Type\":\"Other\",\"TopicArn\":\"a\"}",
        "{\"Type\":\"SubscriptionConfirmation\",\"TopicArn\":\"a\"}"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        struct s3_delivery d;
        struct un_error err = UN_ERROR_INIT;
        int rc = s3_parse(bad[i], strlen(bad[i]), &d, &err);
        if (rc != -EINVAL || !*err.text) {
            fail_msg("%s: %d %s", bad[i], rc, err.text);
        }
    }
}

static void too_many_records_are_refused(void **state)
{
    struct un_buf b = {0};
    struct s3_delivery d;
    un_buf_append_str(&b, "{\"Records\":[0");
    for (unsigned i = 0; i < LIMIT_EVENT_RECORDS; i++) {
        un_buf_append_str(&b, ",0");
    }
    un_buf_append_str(&b, "]}");
    assert_int_equal(s3_parse(b.data, b.len, &d, NULL), -E2BIG);
    un_buf_done(&b);
}

/* --- CloudEvents ------------------------------------------------------------------------------ */

static int parse_ce(const char *type, const struct cloudevents_field *fields, size_t count,
                    const char *body, struct event_list *ret, struct un_error *err)
{
    enum cloudevents_mode mode = cloudevents_mode_of(type, fields, count);
    assert_int_not_equal(mode, CLOUDEVENTS_NONE);
    return cloudevents_parse(mode, type, fields, count, body, strlen(body), ret, err);
}

static void binary_events_keep_body_and_attributes(void **state)
{
    static const struct cloudevents_field fields[] = {
        {"Host", "x"},           {"ce-specversion", "1.0"}, {"CE-Type", "com.example.made"},
        {"ce-source", "/s%20t"}, {"ce-id", "\"1\\\"2\""},   {"ce-subject", "Euro%E2%82%AC"},
        {"ce-myext", "7"}};
    struct event_list l;
    assert_int_equal(parse_ce("text/plain", fields, UN_ARRAY_SIZE(fields), "hello", &l, NULL), 0);
    const struct event *e = &l.items[0];
    assert_string_equal(e->type, "com.example.made");
    assert_string_equal(e->source, "/s t");
    assert_string_equal(e->source_id, "1\"2");
    assert_string_equal(e->subject, "Euro\xe2\x82\xac");
    assert_string_equal(e->content_type, "text/plain");
    assert_int_equal(e->body.len, 5);
    assert_int_equal(e->field_count, 6);
    assert_string_equal(e->fields[2].value, "/s%20t");
    event_list_done(&l);
}

static void values_that_nobody_encoded_are_latin1_or_utf8(void **state)
{
    static const struct cloudevents_field fields[] = {{"ce-specversion", "1.0"},
                                                      {"ce-type", "t"},
                                                      {"ce-source", "caf\xe9"},
                                                      {"ce-id", "1"},
                                                      {"ce-subject", "\xe2\x82\xac"}};
    struct event_list l;
    assert_int_equal(parse_ce(NULL, fields, UN_ARRAY_SIZE(fields), "", &l, NULL), 0);
    assert_string_equal(l.items[0].source, "caf\xc3\xa9");
    assert_string_equal(l.items[0].subject, "\xe2\x82\xac");
    /* Functions get them as they ought to be. */
    assert_string_equal(l.items[0].fields[2].value, "caf%C3%A9");
    event_list_done(&l);
}

static void structured_events_stay_as_they_came(void **state)
{
    static const char text[] =
        " {\"specversion\":\"1.0\", \"id\":\"i\",\"source\":\"s\",\"type\":\"t\","
        "\"data\":{\"n\":1.10}}";
    struct event_list l;
    assert_int_equal(
        parse_ce("application/cloudevents+json; charset=utf-8", NULL, 0, text, &l, NULL), 0);
    assert_int_equal(l.count, 1);
    assert_string_equal(l.items[0].body.data, text);
    assert_string_equal(l.items[0].content_type, "application/cloudevents+json");
    event_list_done(&l);
}

static void batches_are_taken_apart(void **state)
{
    struct event_list l;
    assert_int_equal(
        parse_ce("application/cloudevents-batch+json", NULL, 0,
                 "[{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\"},"
                 "{\"specversion\":\"1.0\",\"id\":\"2\",\"source\":\"s\",\"type\":\"t\"}]",
                 &l, NULL),
        0);
    assert_int_equal(l.count, 2);
    assert_string_not_equal(l.items[0].id, l.items[1].id);
    event_list_done(&l);
    assert_int_equal(parse_ce("application/cloudevents-batch+json", NULL, 0, "[]", &l, NULL), 0);
    assert_int_equal(l.count, 0);
    event_list_done(&l);
}

static void broken_events_are_refused_by_attribute(void **state)
{
    static const struct {
        const char *json, *word;
    } bad[] = {
        {"{}", "specversion"},
        {"{\"specversion\":\"0.3\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\"}", "specversion"},
        {"{\"specversion\":\"1.0\",\"source\":\"s\",\"type\":\"t\"}", "id"},
        {"{\"specversion\":\"1.0\",\"id\":\"\",\"source\":\"s\",\"type\":\"t\"}", "id"},
        {"{\"specversion\":\"1.0\",\"id\":\"1\",\"type\":\"t\"}", "source"},
        {"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\"}", "type"},
        {"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\",\"Ext\":1}", "Ext"},
        {"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\",\"ext\":[]}",
         "ext"},
        {"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\",\"data\":1,"
         "\"data_base64\":\"\"}",
         "data"},
        {"[]", "object"},
        {"x", "JSON"}};
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        struct event_list l;
        struct un_error err = UN_ERROR_INIT;
        int rc = parse_ce("application/cloudevents+json", NULL, 0, bad[i].json, &l, &err);
        if (rc != -EINVAL || !strstr(err.text, bad[i].word)) {
            fail_msg("%s: %d %s", bad[i].json, rc, err.text);
        }
    }
    static const struct cloudevents_field twice[] = {{"ce-specversion", "1.0"},
                                                     {"ce-id", "1"},
                                                     {"Ce-Id", "2"},
                                                     {"ce-type", "t"},
                                                     {"ce-source", "s"}};
    static const struct cloudevents_field broken[] = {
        {"ce-specversion", "1.0"}, {"ce-id", "%f"}, {"ce-type", "t"}, {"ce-source", "s"}};
    struct event_list l;
    assert_int_equal(parse_ce(NULL, twice, 5, "", &l, NULL), -EINVAL);
    assert_int_equal(parse_ce(NULL, broken, 4, "", &l, NULL), -EINVAL);
}

static void what_is_no_cloudevent_is_told_apart(void **state)
{
    static const struct cloudevents_field fields[] = {{"host", "x"}, {"ce-id", "1"}};
    assert_int_equal(cloudevents_mode_of("application/json", fields, 2), CLOUDEVENTS_NONE);
    assert_int_equal(cloudevents_mode_of("application/cloudevents+jsonx", fields, 2),
                     CLOUDEVENTS_NONE);
    assert_int_equal(cloudevents_mode_of(NULL, NULL, 0), CLOUDEVENTS_NONE);
    assert_int_equal(cloudevents_mode_of("Application/CloudEvents+JSON;charset=UTF-8", NULL, 0),
                     CLOUDEVENTS_STRUCTURED);
}

/* --- DynamoDB --------------------------------------------------------------------------------- */

#define STREAM_ARN                                                                                 \
    "\"eventSourceARN\":\"arn:aws:dynamodb:us-east-1:123456789012:table/orders/stream/"            \
    "2026-06-27T00:48:05.899\""

static void table_changes_are_events(void **state)
{
    static const char text[] =
        "{\"Records\":[{\"eventID\":\"e1\",\"eventName\":\"INSERT\",\"eventVersion\":\"1.1\","
        "\"eventSource\":\"aws:dynamodb\",\"awsRegion\":\"us-east-1\",\"dynamodb\":{\"Keys\":{"
        "\"Id\":{"
        "\"N\":\"101\"}},\"NewImage\":{\"Id\":{\"N\":\"101\"}},\"SequenceNumber\":\"111\","
        "\"SizeBytes\":"
        "26,\"StreamViewType\":\"NEW_AND_OLD_IMAGES\"}," STREAM_ARN "},{\"eventID\":\"e2\","
        "\"eventName\":\"REMOVE\",\"dynamodb\":{\"Keys\":{\"Id\":{\"N\":\"101\"}},"
        "\"SequenceNumber\":"
        "\"1000\"}," STREAM_ARN "}]}";
    struct event_list l;
    assert_int_equal(dynamodb_parse(text, strlen(text), &l, NULL), 0);
    assert_int_equal(l.count, 2);
    assert_string_equal(l.items[0].subject, "orders");
    assert_string_equal(l.items[0].type, "INSERT");
    assert_string_equal(l.items[0].order_key, l.items[1].order_key);
    /* Numbers, not strings: 111 comes before 1000. */
    assert_true(strcmp(l.items[0].sequence, l.items[1].sequence) < 0);
    event_list_done(&l);
}

static void broken_table_changes_are_refused(void **state)
{
    static const char *const bad[] = {
        "{\"Records\":[]}",
        "[]",
        "{",
        "{\"Records\":[{\"eventID\":\"e\",\"eventName\":\"PUT\",\"dynamodb\":{}," STREAM_ARN "}]}",
        "{\"Records\":[{\"eventName\":\"INSERT\",\"dynamodb\":{}," STREAM_ARN "}]}",
        "{\"Records\":[{\"eventID\":\"e\",\"eventName\":\"INSERT\",\"dynamodb\":{},"
        "\"eventSourceARN\":\"arn:aws:kinesis\"}]}",
        "{\"Records\":[{\"eventID\":\"e\",\"eventName\":\"INSERT\",\"dynamodb\":1," STREAM_ARN
        "}]}"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        struct event_list l;
        struct un_error err = UN_ERROR_INIT;
        assert_int_equal(dynamodb_parse(bad[i], strlen(bad[i]), &l, &err), -EINVAL);
        assert_true(*err.text);
    }
}

/* --- fields ----------------------------------------------------------------------------------- */

static void fields_carry_what_headers_can_hold(void **state)
{
    struct s3_delivery d = parse_s3(ceph_put);
    struct event_field *fields;
    size_t count, found = 0;
    assert_int_equal(event_fields(&d.events.items[0], &fields, &count), 0);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(fields[i].name, "X-Unid-Event-Key") == 0) {
            assert_string_equal(fields[i].value, "dir/a%20b+%C3%A9.txt");
            found++;
        }
        for (const char *c = fields[i].value; *c; c++) {
            assert_true(*c > 0x20 && *c < 0x7f);
        }
    }
    assert_int_equal(found, 1);
    event_fields_free(fields, count);
    s3_delivery_done(&d);
}

/* --- configurations --------------------------------------------------------------------------- */

static int read_config(const char *text, struct trigger_config *ret, struct un_error *err)
{
    un_autojson json_t *root = NULL;
    assert_int_equal(un_json_parse(text, strlen(text), &root, err), 0);
    return trigger_config_parse(root, ret, err);
}

static void configurations_survive_writing_and_reading(void **state)
{
    static const char *const good[] = {
        "{\"type\":\"s3\",\"function\":\"thumb\",\"bucket\":\"photos\",\"prefix\":\"in/"
        "\",\"suffix\":"
        "\".jpg\",\"events\":[\"s3:ObjectCreated:*\"],\"order\":\"drop\",\"confirm\":true,"
        "\"endpoint\":\"http://127.0.0.1:9000\",\"region\":\"eu-1\",\"fetch\":true,\"put\":"
        "\"photos/out/\",\"max_attempts\":3,\"on_failure\":\"sad:live\"}",
        "{\"type\":\"cloudevents\",\"functions\":[\"a\",\"b:2\"],\"filter\":{\"type\":\"t\","
        "\"source\":{"
        "\"prefix\":\"/x\",\"suffix\":\"y\"}},\"on_success\":\"https://h/p\"}",
        "{\"type\":\"dynamodb\",\"functions\":[\"a\"],\"table\":\"orders\",\"events\":[\"INSERT\"]"
        "}",
        "{\"type\":\"cron\",\"functions\":[\"a\"],\"schedule\":\"*/5 * * * *\",\"timezone\":"
        "\"UTC\",\"missed\":\"all\",\"enabled\":false}"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(good); i++) {
        struct trigger_config a, b;
        struct un_error err = UN_ERROR_INIT;
        if (read_config(good[i], &a, &err) < 0) {
            fail_msg("%s", err.text);
        }
        un_autojson json_t *one = trigger_config_to_json(&a);
        json_object_del(one, "has_credentials");
        assert_int_equal(trigger_config_parse(one, &b, &err), 0);
        un_autojson json_t *two = trigger_config_to_json(&b);
        json_object_del(two, "has_credentials");
        assert_true(json_equal(one, two));
        trigger_config_done(&a);
        trigger_config_done(&b);
    }
}

static void credentials_are_not_written(void **state)
{
    struct trigger_config c;
    assert_int_equal(read_config("{\"type\":\"s3\",\"function\":\"f\",\"endpoint\":\"https://s3\","
                                 "\"access_key\":\"AKID1\",\"secret_key\":\"topsecret\"}",
                                 &c, NULL),
                     0);
    un_autojson json_t *j = trigger_config_to_json(&c);
    un_autofree char *text = un_json_text(j);
    assert_null(strstr(text, "topsecret"));
    assert_null(strstr(text, "AKID1"));
    assert_non_null(strstr(text, "\"has_credentials\":true"));
    trigger_config_done(&c);
}

static void bad_configurations_are_refused_by_key(void **state)
{
#define S3 "{\"type\":\"s3\",\"function\":\"f\","
    static const struct {
        const char *json, *word;
    } bad[] = {
        {"{}", "type"},
        {"{\"type\":\"sqs\"}", "type"},
        {"{\"type\":\"s3\"}", "functions"},
        {"{\"type\":\"s3\",\"functions\":[]}", "functions"},
        {"{\"type\":\"s3\",\"functions\":[\"f\",\"f\"]}", "twice"},
        {"{\"type\":\"s3\",\"functions\":[\"F\"]}", "functions"},
        {"{\"type\":\"s3\",\"functions\":[\"f:0x\"]}", "functions"},
        {"{\"type\":\"s3\",\"functions\":[1]}", "functions"},
        {"{\"type\":\"s3\",\"functions\":[\"f\"],\"function\":\"f\"}", "functions"},
        {S3 "\"schedule\":\"x\"}", "schedule"},
        {S3 "\"bucket\":\"a/b\"}", "bucket"},
        {S3 "\"bucket\":\"\"}", "bucket"},
        {S3 "\"events\":\"s3:*\"}", "events"},
        {S3 "\"events\":[\"s3:*:Put\"]}", "events"},
        {S3 "\"order\":\"x\"}", "order"},
        {S3 "\"fetch\":true}", "endpoint"},
        {S3 "\"endpoint\":\"ftp://x\"}", "endpoint"},
        {S3 "\"endpoint\":\"http://x/path\"}", "endpoint"},
        {S3 "\"endpoint\":\"http://x\",\"access_key\":\"a\"}", "secret_key"},
        {S3 "\"endpoint\":\"http://x\",\"put\":\"b\"}", "put"},
        {S3 "\"endpoint\":\"http://x\",\"put\":\"b/\"}",
         "put"}, /* any bucket: its own output too */
        {S3 "\"endpoint\":\"http://x\",\"bucket\":\"b\",\"prefix\":\"in/\",\"put\":\"b/in/x/\"}",
         "put"},
        {S3 "\"endpoint\":\"http://x\",\"bucket\":\"b\",\"prefix\":\"in/\",\"put\":\"b/\"}", "put"},
        {S3 "\"endpoint\":\"http://x\",\"bucket\":\"b\",\"fetch\":true,\"events\":[\"s3:*\"]}",
         "events"},
        {S3 "\"max_attempts\":0}", "max_attempts"},
        {S3 "\"on_failure\":\"ftp://x\"}", "on_failure"},
        {S3 "\"on_failure\":\"http://x\\u000a\"}", "on_failure"},
        {S3 "\"has_credentials\":true}", "has_credentials"},
        {"{\"type\":\"cloudevents\",\"function\":\"f\",\"filter\":{\"id\":\"x\"}}", "id"},
        {"{\"type\":\"cloudevents\",\"function\":\"f\",\"filter\":{\"type\":{\"x\":\"y\"}}}",
         "type"},
        {"{\"type\":\"cloudevents\",\"function\":\"f\",\"filter\":{\"type\":7}}", "type"},
        {"{\"type\":\"dynamodb\",\"function\":\"f\",\"events\":[\"s3:*\"]}", "INSERT"},
        {"{\"type\":\"cron\",\"function\":\"f\"}", "schedule"},
        {"{\"type\":\"cron\",\"function\":\"f\",\"schedule\":\"* * * *\"}", "schedule"},
        {"{\"type\":\"cron\",\"function\":\"f\",\"schedule\":\"* * * * "
         "*\",\"timezone\":\"Mars/X\"}",
         "Mars"},
        {"{\"type\":\"cron\",\"function\":\"f\",\"schedule\":\"* * * * *\",\"timezone\":"
         "\"../../etc/passwd\"}",
         "zone"},
        {"{\"type\":\"cron\",\"function\":\"f\",\"schedule\":\"* * * * *\",\"missed\":\"x\"}",
         "missed"}};
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        struct trigger_config c;
        struct un_error err = UN_ERROR_INIT;
        int rc = read_config(bad[i].json, &c, &err);
        if (rc != -EINVAL || !strstr(err.text, bad[i].word)) {
            fail_msg("%s: %d %s", bad[i].json, rc, err.text);
        }
    }
#undef S3
}

/* --- filters ---------------------------------------------------------------------------------- */

static bool wants_s3(const char *config, const char *delivery)
{
    struct trigger_config c;
    struct un_error err = UN_ERROR_INIT;
    if (read_config(config, &c, &err) < 0) {
        fail_msg("%s: %s", config, err.text);
    }
    struct s3_delivery d = parse_s3(delivery);
    bool wants = trigger_config_wants(&c, &d.events.items[0]);
    s3_delivery_done(&d);
    trigger_config_done(&c);
    return wants;
}

static void s3_filters_look_at_bucket_key_and_name(void **state)
{
#define S3(more) "{\"type\":\"s3\",\"function\":\"f\"" more "}"
    assert_true(wants_s3(S3(""), minio_put));
    assert_true(
        wants_s3(S3(",\"bucket\":\"photos\",\"prefix\":\"in/\",\"suffix\":\".jpg\",\"events\":["
                    "\"s3:ObjectCreated:*\"]"),
                 minio_put));
    assert_true(wants_s3(S3(",\"prefix\":\"in/a b+\""), minio_put));
    assert_true(
        wants_s3(S3(",\"events\":[\"s3:ObjectRemoved:*\",\"ObjectCreated:Put\"]"), ceph_put));
    assert_true(wants_s3(S3(",\"events\":[\"s3:*\"]"), ceph_put));
    assert_false(wants_s3(S3(",\"bucket\":\"photo\""), minio_put));
    assert_false(wants_s3(S3(",\"prefix\":\"in%2F\""), minio_put));
    assert_false(wants_s3(S3(",\"suffix\":\".png\""), minio_put));
    assert_false(wants_s3(S3(",\"events\":[\"s3:ObjectCreated:Copy\"]"), minio_put));
    assert_false(wants_s3(S3(",\"events\":[\"s3:ObjectRemoved:*\"]"), minio_put));
    assert_false(wants_s3("{\"type\":\"cloudevents\",\"function\":\"f\"}", minio_put));
#undef S3
}

static void cloudevents_filters_need_the_attribute(void **state)
{
    static const struct {
        const char *filter;
        bool wants;
    } cases[] = {{"{}", true},
                 {"{\"type\":\"com.example.made\"}", true},
                 {"{\"type\":\"com.example\"}", false},
                 {"{\"type\":{\"prefix\":\"com.\",\"suffix\":\".made\"}}", true},
                 {"{\"type\":{\"prefix\":\"com.\",\"suffix\":\".gone\"}}", false},
                 {"{\"source\":{\"exact\":\"/s\"}}", true},
                 {"{\"subject\":{\"prefix\":\"x\"}}", false}};
    struct event_list l;
    assert_int_equal(parse_ce("application/cloudevents+json", NULL, 0,
                              "{\"specversion\":\"1.0\",\"id\":\"i\",\"source\":\"/s\",\"type\":"
                              "\"com.example.made\"}",
                              &l, NULL),
                     0);
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        char text[256];
        struct trigger_config c;
        snprintf(text, sizeof(text), "{\"type\":\"cloudevents\",\"function\":\"f\",\"filter\":%s}",
                 cases[i].filter);
        assert_int_equal(read_config(text, &c, NULL), 0);
        assert_int_equal(trigger_config_wants(&c, &l.items[0]), cases[i].wants);
        trigger_config_done(&c);
    }
    event_list_done(&l);
}

static void output_goes_below_the_prefix(void **state)
{
    static const struct {
        const char *prefix, *put, *key, *bucket, *place;
    } cases[] = {{"in/", "photos/thumbs/", "in/a/b.jpg", "photos", "thumbs/a/b.jpg"},
                 {NULL, "small/", "in/a.jpg", "small", "in/a.jpg"},
                 {"in/", "photos/out-", "other/a", "photos", "out-other/a"}};
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        struct trigger_config c = {.prefix = (char *)cases[i].prefix, .put = (char *)cases[i].put};
        un_autofree char *bucket = NULL, *place = NULL;
        assert_int_equal(trigger_config_put_place(&c, cases[i].key, &bucket, &place), 0);
        assert_string_equal(bucket, cases[i].bucket);
        assert_string_equal(place, cases[i].place);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ceph_keys_are_taken_as_they_are),
        cmocka_unit_test(minio_keys_are_decoded),
        cmocka_unit_test(sequencers_of_ceph_sort_by_time),
        cmocka_unit_test(identity_is_of_what_identifies),
        cmocka_unit_test(each_record_is_an_event),
        cmocka_unit_test(sns_envelopes_are_opened),
        cmocka_unit_test(envelopes_within_envelopes_are_refused),
        cmocka_unit_test(eventbridge_becomes_a_record),
        cmocka_unit_test(garbage_is_refused_with_what_is_expected),
        cmocka_unit_test(too_many_records_are_refused),
        cmocka_unit_test(binary_events_keep_body_and_attributes),
        cmocka_unit_test(values_that_nobody_encoded_are_latin1_or_utf8),
        cmocka_unit_test(structured_events_stay_as_they_came),
        cmocka_unit_test(batches_are_taken_apart),
        cmocka_unit_test(broken_events_are_refused_by_attribute),
        cmocka_unit_test(what_is_no_cloudevent_is_told_apart),
        cmocka_unit_test(table_changes_are_events),
        cmocka_unit_test(broken_table_changes_are_refused),
        cmocka_unit_test(fields_carry_what_headers_can_hold),
        cmocka_unit_test(configurations_survive_writing_and_reading),
        cmocka_unit_test(credentials_are_not_written),
        cmocka_unit_test(bad_configurations_are_refused_by_key),
        cmocka_unit_test(s3_filters_look_at_bucket_key_and_name),
        cmocka_unit_test(cloudevents_filters_need_the_attribute),
        cmocka_unit_test(output_goes_below_the_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
