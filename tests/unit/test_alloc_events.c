/* test_alloc_events.c - memory runs out at any one place while events and triggers are read. */
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
#include "events/cloudevents.h"
#include "events/config.h"
#include "events/dynamodb.h"
#include "events/s3.h"
#include "tests/unit/alloc_support.h"

/* jansson 2.14 ends with a fault here and there when it finds no memory while it parses; that is not what
 * is tested. What we make of the values is. */
int __real_un_json_parse(const void *data, size_t len, json_t **ret, struct un_error *err);
int __wrap_un_json_parse(const void *data, size_t len, json_t **ret, struct un_error *err);

int __wrap_un_json_parse(const void *data, size_t len, json_t **ret, struct un_error *err)
{
    alloc_hold(true);
    int rc = __real_un_json_parse(data, len, ret, err);
    alloc_hold(false);
    return rc;
}

static int read_s3(void *arg)
{
    struct s3_delivery d;
    struct un_error err = UN_ERROR_INIT;
    int rc = s3_parse(arg, strlen(arg), &d, &err);
    if (rc == 0) {
        for (size_t i = 0; i < d.events.count && rc == 0; i++) {
            struct event_field *fields;
            size_t count;
            const struct event *e = &d.events.items[i];
            assert_true(e->type && e->source && e->bucket && e->subject && e->body.len);
            rc = event_fields(e, &fields, &count);
            if (rc == 0) {
                assert_int_equal(count, 6);
                event_fields_free(fields, count);
            }
        }
        s3_delivery_done(&d);
    }
    return rc;
}

#define RECORD(source, key)                                                                        \
    "{\"eventSource\":\"" source                                                                   \
    "\",\"eventName\":\"ObjectCreated:Put\",\"eventTime\":\"t\",\"s3\":{"                          \
    "\"bucket\":{\"name\":\"b\"},\"object\":{\"key\":\"" key                                       \
    "\",\"versionId\":\"v\",\"sequencer\":"                                                        \
    "\"1AFC006BC5BC8F1E\"}}}"

static void deliveries_of_stores(void **state)
{
    alloc_fail_each(
        "S3", read_s3,
        (char *)"{\"Records\":[" RECORD("ceph:s3", "a b") "," RECORD("minio:s3", "a%2Fb+c") "]}");
    alloc_fail_each("EventBridge", read_s3,
                    (char *)"{\"source\":\"aws.s3\",\"detail-type\":\"Object "
                            "Created\",\"time\":\"t\",\"detail\":{"
                            "\"bucket\":{\"name\":\"b\"},\"object\":{\"key\":\"k\",\"etag\":\"e\","
                            "\"version-id\":"
                            "\"v\",\"sequencer\":\"00\"}}}");
}

static int read_subscription(void *arg)
{
    struct s3_delivery d;
    int rc = s3_parse(arg, strlen(arg), &d, NULL);
    if (rc == 0) {
        assert_true(d.topic_arn && d.subscribe_url);
        s3_delivery_done(&d);
    }
    return rc;
}

static void subscriptions(void **state)
{
    alloc_fail_each(
        "SNS", read_subscription,
        (char
             *)"{\"Type\":\"SubscriptionConfirmation\",\"TopicArn\":\"a\",\"SubscribeURL\":\"u\"}");
}

static int read_binary(void *arg)
{
    static const struct cloudevents_field fields[] = {{"ce-specversion", "1.0"},
                                                      {"ce-type", "t"},
                                                      {"ce-source", "caf\xe9"},
                                                      {"ce-id", "\"1\""},
                                                      {"ce-ext", "%41"}};
    struct event_list l;
    int rc = cloudevents_parse(CLOUDEVENTS_BINARY, "text/plain", fields, UN_ARRAY_SIZE(fields), "x",
                               1, &l, NULL);
    if (rc == 0) {
        assert_int_equal(l.items[0].field_count, 5);
        assert_string_equal(l.items[0].source, "caf\xc3\xa9");
        event_list_done(&l);
    }
    return rc;
}

static int read_batch(void *arg)
{
    static const char text[] =
        "[{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\"},"
        "{\"specversion\":\"1.0\",\"id\":\"2\",\"source\":\"s\",\"type\":\"t\","
        "\"subject\":\"x\",\"data\":{\"a\":[1]}}]";
    struct event_list l;
    int rc = cloudevents_parse(CLOUDEVENTS_BATCH, NULL, NULL, 0, text, strlen(text), &l, NULL);
    if (rc == 0) {
        assert_int_equal(l.count, 2);
        assert_non_null(l.items[1].subject);
        event_list_done(&l);
    }
    return rc;
}

static int read_changes(void *arg)
{
    static const char text[] =
        "{\"Records\":[{\"eventID\":\"e\",\"eventName\":\"INSERT\",\"dynamodb\":{"
        "\"Keys\":{\"Id\":{\"N\":\"1\"}},\"SequenceNumber\":\"111\"},"
        "\"eventSourceARN\":\"arn:aws:dynamodb:r:1:table/orders/stream/x\"}]}";
    struct event_list l;
    int rc = dynamodb_parse(text, strlen(text), &l, NULL);
    if (rc == 0) {
        assert_true(l.items[0].order_key && l.items[0].sequence && l.items[0].subject);
        event_list_done(&l);
    }
    return rc;
}

static void cloudevents_and_table_changes(void **state)
{
    alloc_fail_each("a binary CloudEvent", read_binary, NULL);
    alloc_fail_each("a batch", read_batch, NULL);
    alloc_fail_each("table changes", read_changes, NULL);
}

/* Written and read again: nothing of it is missing. */
static int read_trigger(void *arg)
{
    struct trigger_config c, again;
    un_autojson json_t *root = NULL;
    int rc = un_json_parse(arg, strlen(arg), &root, NULL);
    rc = rc ? rc : trigger_config_parse(root, &c, NULL);
    if (rc < 0) {
        return rc;
    }
    un_autojson json_t *one = trigger_config_to_json(&c);
    trigger_config_done(&c);
    json_object_del(one, "has_credentials");
    un_autofree char *text = un_json_text(one);
    if (!text) {
        return -ENOMEM;
    }
    rc = trigger_config_parse(one, &again, NULL);
    if (rc == 0) {
        trigger_config_done(&again);
    }
    return rc;
}

static void triggers(void **state)
{
    alloc_fail_each(
        "an S3 trigger", read_trigger,
        (char
             *)"{\"type\":\"s3\",\"functions\":[\"a\",\"b:2\"],\"bucket\":\"p\",\"prefix\":\"in/\","
               "\"events\":[\"s3:ObjectCreated:*\"],\"endpoint\":\"http://h:1\",\"fetch\":true,"
               "\"put\":\"p/out/\",\"on_failure\":\"x\"}");
    alloc_fail_each("a CloudEvents trigger", read_trigger,
                    (char *)"{\"type\":\"cloudevents\",\"function\":\"f\",\"filter\":{\"type\":{"
                            "\"prefix\":\"a\","
                            "\"suffix\":\"b\"},\"source\":\"s\"}}");
    alloc_fail_each(
        "a cron trigger", read_trigger,
        (char *)"{\"type\":\"cron\",\"function\":\"f\",\"schedule\":\"0 9 * * 1-5\",\"timezone\":"
                "\"Europe/Berlin\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deliveries_of_stores),
        cmocka_unit_test(subscriptions),
        cmocka_unit_test(cloudevents_and_table_changes),
        cmocka_unit_test(triggers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
