/* event.h - one event, whatever its origin: what the parsers of the formats make and what triggers
 * are held against.
 *
 * Where things are: s3.c what object stores send, cloudevents.c, dynamodb.c, cron.c the schedules
 * (tz.c their time zones), filter.c which trigger wants which event, trigger.c the table of
 * triggers, intake.c from an event to the durable queue, timer.c the cron triggers' clock,
 * object.c an object's bytes as a function's input and its output as an object. What is HTTP
 * towards unid is api/'s.
 *
 * To add a format: a parser that gives an event_list, a kind here, and its filter keys in
 * config.c.
 *
 * All parsers are pure functions on untrusted bytes; any thread.
 */
#ifndef UNID_EVENTS_EVENT_H
#define UNID_EVENTS_EVENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/error.h"

enum event_kind { EVENT_S3, EVENT_CLOUDEVENT, EVENT_DYNAMODB, EVENT_CRON, EVENT_KINDS };
/* "s3", "cloudevents", "dynamodb", "cron": the types of triggers. */
const char *event_kind_name(enum event_kind k);
int event_kind_parse(const char *word); /* -1: unknown */

struct event_field {
    char *name, *value;
};

enum { EVENT_ID_SIZE = 65, EVENT_FIELDS_MAX = 64 };

/* All strings are UTF-8 and the event's own; what an event does not have is NULL. */
struct event {
    enum event_kind kind;
    char *type;       /* "s3:ObjectCreated:Put"; a CloudEvent's type; "INSERT"; "cron" */
    char *source;     /* "ceph:s3"; a CloudEvent's source; a table's stream; the trigger */
    char *subject;    /* an object's key, decoded; a CloudEvent's subject; a table's name */
    char *source_id;  /* as its source named it; for people */
    char *time;       /* as its source wrote it */
    char *bucket;     /* S3 only, as the next */
    char *version_id; /* not empty */
    uint64_t size;    /* of the object, as far as the store said */
    /* Two deliveries of the same event have the same: SHA-256, in lower-case hex, of what
     * identifies it in its format. */
    char id[EVENT_ID_SIZE];
    /* Events about the same thing, and their order among each other: compared as strings. NULL:
     * the source gives no order. */
    char *order_key, *sequence;
    char *content_type;
    struct un_buf body;         /* what the function gets */
    struct event_field *fields; /* header fields that go with the body, beside content_type */
    size_t field_count;
};

struct event_list {
    struct event *items;
    size_t count;
};

/* Each takes NULL pointers within. */
void event_done(struct event *e);
void event_list_done(struct event_list *l);
/* Adds a zeroed event of this kind; borrowed until the list changes. NULL: out of memory. */
struct event *event_list_add(struct event_list *l, enum event_kind kind);

/* SHA-256 of the parts with their lengths, so that no two lists of parts have the same text. NULL
 * counts as "". -ENOMEM. */
int event_hash(const char *const *parts, size_t count, char ret[EVENT_ID_SIZE]);

/* Copies a string; a NULL `from` gives NULL. -ENOMEM. */
int event_copy(char **to, const char *from);
/* A string member of an object, borrowed; NULL when it is absent or something else. */
const char *event_str(const json_t *obj, const char *key);
/* Sets the body to {"Records": [record]} and the type to JSON. Borrows. -ENOMEM. */
int event_set_record(struct event *e, json_t *record);
/* -ENOMEM; -E2BIG more than EVENT_FIELDS_MAX. */
int event_add_field(struct event *e, const char *name, const char *value);

/* The fields that tell a function about its event, in one place: X-Unid-Event-Type, -Source,
 * -Subject, -Id, -Time, -Bucket and -Key (S3), with the values percent-encoded as event_encode
 * does; then the event's own. Borrowed names, values free with event_fields_free. -ENOMEM. */
int event_fields(const struct event *e, struct event_field **ret, size_t *ret_count);
void event_fields_free(struct event_field *fields, size_t count);

/* Percent-encodes what a header field's value cannot hold as it is: all but printable ASCII, and
 * space, '"' and '%' (CloudEvents HTTP binding 1.0.2, section 3.1.3.2). Free with free(). NULL:
 * out of memory. */
char *event_encode(const char *text);
/* Decodes %XX, and '+' to a space with `plus`. Gives a string (free), NULL when out of memory or,
 * with *ret_bad, when it is malformed or holds a NUL. */
char *event_decode(const char *text, bool plus, bool *ret_bad);
/* Whether the bytes are UTF-8 without NUL. */
bool event_utf8(const char *text);

#endif
