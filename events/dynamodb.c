/* dynamodb.c - see dynamodb.h. */
#include "events/dynamodb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/limits.h"

enum { SEQUENCE_DIGITS = 40 }; /* "SequenceNumber: Length Constraints: minimum 21, maximum 40" */

static int no_memory(struct un_error *err)
{
    return un_error_set(err, -ENOMEM, "out of memory");
}

/* The table's name, out of "arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL"; NULL when it
 * is nothing of the kind. Free with free(). -ENOMEM. */
static int table_of_arn(const char *arn, char **ret)
{
    const char *at = arn ? strstr(arn, ":table/") : NULL;
    size_t len = at ? strcspn(at + 7, "/") : 0;
    *ret = len ? strndup(at + 7, len) : NULL;
    return len && !*ret ? -ENOMEM : 0;
}

/* Numbers of different length compare as strings once the shorter has zeros in front. */
static int set_sequence(struct event *e, json_t *change)
{
    const char *number = event_str(change, "SequenceNumber");
    size_t len = number ? strlen(number) : 0;
    if (len == 0 || len > SEQUENCE_DIGITS || strspn(number, "0123456789") != len) {
        return 0;
    }
    char hash[EVENT_ID_SIZE];
    json_t *keys = json_object_get(change, "Keys");
    un_autofree char *text = keys ? json_dumps(keys, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    if (!text) {
        return keys ? -ENOMEM : 0;
    }
    const char *parts[] = {e->source, e->subject, text};
    if (event_hash(parts, UN_ARRAY_SIZE(parts), hash) < 0 || event_copy(&e->order_key, hash) < 0 ||
        asprintf(&e->sequence, "%.*s%s", (int)(SEQUENCE_DIGITS - len),
                 "0000000000000000000000000000000000000000", number) < 0) {
        return -ENOMEM;
    }
    return 0;
}

static int add_record(struct event_list *list, json_t *record, size_t index, struct un_error *err)
{
    json_t *change = json_object_get(record, "dynamodb");
    const char *name = event_str(record, "eventName"), *id = event_str(record, "eventID");
    const char *arn = event_str(record, "eventSourceARN"), *table = event_str(record, "tableName");
    un_autofree char *from_arn = NULL;
    if (!table && table_of_arn(arn, &from_arn) < 0) {
        return no_memory(err);
    }
    table = table ? table : from_arn;
    if (!name || (strcmp(name, "INSERT") != 0 && strcmp(name, "MODIFY") != 0 &&
                  strcmp(name, "REMOVE") != 0)) {
        return un_error_set(err, -EINVAL,
                            "Records[%zu]: eventName must be INSERT, MODIFY or REMOVE", index);
    }
    if (!id || !*id || !table || !*table || !json_is_object(change)) {
        return un_error_set(err, -EINVAL,
                            "Records[%zu]: a table change has eventID, dynamodb, and its table in "
                            "eventSourceARN (\"...:table/NAME/...\") or tableName",
                            index);
    }
    struct event *e = event_list_add(list, EVENT_DYNAMODB);
    int rc = e ? 0 : -ENOMEM;
    rc = rc ? rc : event_copy(&e->type, name);
    rc = rc ? rc : event_copy(&e->source, arn && *arn ? arn : "aws:dynamodb");
    rc = rc ? rc : event_copy(&e->subject, table);
    rc = rc ? rc : event_copy(&e->source_id, id);
    if (rc == 0) {
        const char *parts[] = {"dynamodb", id};
        rc = event_hash(parts, UN_ARRAY_SIZE(parts), e->id);
    }
    rc = rc ? rc : set_sequence(e, change);
    rc = rc ? rc : event_set_record(e, record);
    return rc ? no_memory(err) : 0;
}

bool dynamodb_is_delivery(const json_t *root)
{
    const json_t *first = json_array_get(json_object_get(root, "Records"), 0);
    return json_object_get(first, "dynamodb") != NULL;
}

int dynamodb_parse(const void *data, size_t len, struct event_list *ret, struct un_error *err)
{
    un_autojson json_t *root = NULL;
    struct event_list list = {0};
    size_t i;
    json_t *record;
    int rc = un_json_parse(data, len, &root, err);
    json_t *records = json_object_get(root, "Records");
    if (rc == 0 && !dynamodb_is_delivery(root)) {
        rc = un_error_set(err, -EINVAL,
                          "expected table changes as DynamoDB Streams has them: an object with "
                          "\"Records\", each with \"eventName\" and \"dynamodb\"");
    }
    if (rc == 0 && json_array_size(records) > LIMIT_EVENT_RECORDS) {
        rc = un_error_set(err, -E2BIG, "a delivery has at most %d records", LIMIT_EVENT_RECORDS);
    }
    json_array_foreach(records, i, record)
    {
        rc = rc ? rc : add_record(&list, record, i, err);
    }
    if (rc < 0) {
        (void)un_json_text(NULL);
        event_list_done(&list);
        return rc;
    }
    *ret = list;
    return 0;
}
