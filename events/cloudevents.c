/* cloudevents.c - see cloudevents.h. */
#include "events/cloudevents.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/limits.h"

static int no_memory(struct un_error *err)
{
    return un_error_set(err, -ENOMEM, "out of memory");
}

/* Whether a Content-Type names this media type, whatever its parameters. */
static bool is_type(const char *content_type, const char *type)
{
    size_t len = strlen(type);
    return strncasecmp(content_type, type, len) == 0 && strchr("; \t", content_type[len]) != NULL;
}

enum cloudevents_mode cloudevents_mode_of(const char *content_type,
                                          const struct cloudevents_field *fields, size_t count)
{
    if (content_type && is_type(content_type, "application/cloudevents+json")) {
        return CLOUDEVENTS_STRUCTURED;
    }
    if (content_type && is_type(content_type, "application/cloudevents-batch+json")) {
        return CLOUDEVENTS_BATCH;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcasecmp(fields[i].name, "ce-specversion") == 0) {
            return CLOUDEVENTS_BINARY;
        }
    }
    return CLOUDEVENTS_NONE;
}

/* Section 3.1 of the specification; `what` is the name as its mode has it. */
static int check(const struct event *e, const char *version, const char *prefix,
                 struct un_error *err)
{
    if (!version || strcmp(version, "1.0") != 0) {
        return un_error_set(err, -EINVAL, "%sspecversion: must be 1.0", prefix);
    }
    if (!e->source_id || !*e->source_id) {
        return un_error_set(err, -EINVAL, "%sid: is missing", prefix);
    }
    if (!e->source || !*e->source) {
        return un_error_set(err, -EINVAL, "%ssource: is missing", prefix);
    }
    if (!e->type || !*e->type) {
        return un_error_set(err, -EINVAL, "%stype: is missing", prefix);
    }
    return 0;
}

/* Producers make source and id unique together (specification, section 3.1.1). */
static int identify(struct event *e)
{
    const char *parts[] = {"cloudevents", e->source, e->source_id};
    return event_hash(parts, UN_ARRAY_SIZE(parts), e->id);
}

/* --- binary ----------------------------------------------------------------------------------- */

/* ISO 8859-1 as UTF-8. NULL: no memory. */
static char *from_latin1(const char *text)
{
    char *out = malloc(strlen(text) * 2 + 1), *at = out;
    for (const unsigned char *c = (const unsigned char *)text; out && *c; c++) {
        if (*c < 0x80) {
            *at++ = (char)*c;
        } else {
            *at++ = (char)(0xc0 | *c >> 6);
            *at++ = (char)(0x80 | (*c & 0x3f));
        }
    }
    if (out) {
        *at = '\0';
    }
    return out;
}

/* Undoes what HTTP binding 3.1.3.2 says of values: double quotes as RFC 7230 has them, then
 * percent-encoding. NULL with *ret_bad as event_decode. Senders that do not encode at all (the SDK
 * for JavaScript, 10.0) write ISO 8859-1, as field values once were; what is not UTF-8 is taken
 * for that. */
static char *decode_value(const char *value, bool *ret_bad)
{
    un_autofree char *plain = strdup(value);
    size_t len = strlen(value);
    if (plain && len >= 2 && value[0] == '"' && value[len - 1] == '"') {
        char *to = plain;
        for (const char *c = value + 1; c < value + len - 1; c++) {
            c += *c == '\\' && c + 1 < value + len - 1;
            *to++ = *c;
        }
        *to = '\0';
    }
    char *text = plain ? event_decode(plain, false, ret_bad) : NULL;
    if (text && !event_utf8(text)) {
        un_autofree char *bytes = text;
        text = from_latin1(bytes);
    }
    return text;
}

static int take_attribute(struct event *e, const struct cloudevents_field *field, char **version,
                          struct un_error *err)
{
    const struct {
        const char *name;
        char **to;
    } own[] = {{"id", &e->source_id}, {"source", &e->source},   {"type", &e->type},
               {"time", &e->time},    {"subject", &e->subject}, {"specversion", version}};
    bool bad = false;
    un_autofree char *value = decode_value(field->value, &bad);
    if (bad) {
        return un_error_set(err, -EINVAL, "%.40s: must be percent-encoded UTF-8", field->name);
    }
    un_autofree char *encoded = value ? event_encode(value) : NULL;
    if (!encoded) {
        return no_memory(err);
    }
    for (size_t i = 0; i < UN_ARRAY_SIZE(own); i++) {
        if (strcasecmp(field->name + 3, own[i].name) == 0) {
            if (*own[i].to) {
                return un_error_set(err, -EINVAL, "ce-%s: is there twice", own[i].name);
            }
            *own[i].to = un_steal(&value);
        }
    }
    int rc = event_add_field(e, field->name, encoded);
    return rc == -E2BIG ? un_error_set(err, -EINVAL, "more than %d attributes", EVENT_FIELDS_MAX)
           : rc < 0     ? no_memory(err)
                        : 0;
}

static int parse_binary(struct event *e, const char *content_type,
                        const struct cloudevents_field *fields, size_t count, const void *data,
                        size_t len, struct un_error *err)
{
    un_autofree char *version = NULL;
    for (size_t i = 0; i < count; i++) {
        int rc = strncasecmp(fields[i].name, "ce-", 3) == 0
                     ? take_attribute(e, &fields[i], &version, err)
                     : 0;
        if (rc < 0) {
            return rc;
        }
    }
    if (event_copy(&e->content_type, content_type) < 0 || un_buf_append(&e->body, data, len) < 0) {
        return no_memory(err);
    }
    return check(e, version, "ce-", err);
}

/* --- structured and batch --------------------------------------------------------------------- */

/* An attribute's name is of [a-z0-9] (section 3.1, "Attribute Naming Convention"); its value has
 * one of the JSON types of the JSON format's table; "data" and "data_base64" are the data. */
static int check_members(json_t *root, struct un_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        if (strcmp(key, "data") == 0) {
            continue;
        }
        bool base64 = strcmp(key, "data_base64") == 0;
        if (!base64 && (!*key || key[strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789")])) {
            return un_error_set(err, -EINVAL, "\"%.40s\": an attribute's name has a-z and 0-9 only",
                                key);
        }
        bool scalar = json_is_string(value) || json_is_integer(value) || json_is_boolean(value) ||
                      json_is_null(value);
        if (base64 ? !json_is_string(value) : !scalar) {
            return un_error_set(err, -EINVAL, "%.40s: must be a string%s", key,
                                base64 ? "" : ", a whole number, true or false");
        }
    }
    if (json_object_get(root, "data") && json_object_get(root, "data_base64")) {
        return un_error_set(err, -EINVAL, "an event has data or data_base64, not both");
    }
    return 0;
}

/* `text` is the event as it came, or NULL: written anew. */
static int read_object(struct event *e, json_t *root, const void *text, size_t len,
                       struct un_error *err)
{
    if (!json_is_object(root)) {
        return un_error_set(err, -EINVAL, "a CloudEvent in JSON is an object");
    }
    int rc = check_members(root, err);
    if (rc < 0) {
        return rc;
    }
    un_autofree char *made = text ? NULL : un_json_text(root);
    if (!text && made) {
        text = made;
        len = strlen(made);
    }
    if (!text || un_buf_append(&e->body, text, len) < 0 ||
        event_copy(&e->content_type, "application/cloudevents+json") < 0 ||
        event_copy(&e->source_id, event_str(root, "id")) < 0 ||
        event_copy(&e->source, event_str(root, "source")) < 0 ||
        event_copy(&e->type, event_str(root, "type")) < 0 ||
        event_copy(&e->subject, event_str(root, "subject")) < 0 ||
        event_copy(&e->time, event_str(root, "time")) < 0) {
        return no_memory(err);
    }
    return check(e, event_str(root, "specversion"), "", err);
}

static int parse_json(enum cloudevents_mode mode, const void *data, size_t len,
                      struct event_list *list, struct un_error *err)
{
    un_autojson json_t *root = NULL;
    json_t *item;
    size_t i;
    int rc = un_json_parse(data, len, &root, err);
    if (rc == 0 && mode == CLOUDEVENTS_STRUCTURED) {
        struct event *e = event_list_add(list, EVENT_CLOUDEVENT);
        return e ? read_object(e, root, data, len, err) : no_memory(err);
    }
    if (rc == 0 && !json_is_array(root)) {
        return un_error_set(err, -EINVAL, "a batch of CloudEvents is a JSON array");
    }
    if (rc == 0 && json_array_size(root) > LIMIT_EVENT_RECORDS) {
        return un_error_set(err, -E2BIG, "a batch has at most %d events", LIMIT_EVENT_RECORDS);
    }
    json_array_foreach(root, i, item)
    {
        struct event *e = rc ? NULL : event_list_add(list, EVENT_CLOUDEVENT);
        rc = rc ? rc : e ? read_object(e, item, NULL, 0, err) : no_memory(err);
        if (rc < 0) {
            (void)un_error_context(err, "event %zu of the batch", i);
            return rc;
        }
    }
    return rc;
}

int cloudevents_parse(enum cloudevents_mode mode, const char *content_type,
                      const struct cloudevents_field *fields, size_t count, const void *data,
                      size_t len, struct event_list *ret, struct un_error *err)
{
    struct event_list list = {0};
    int rc;
    if (mode == CLOUDEVENTS_BINARY) {
        struct event *e = event_list_add(&list, EVENT_CLOUDEVENT);
        rc = e ? parse_binary(e, content_type, fields, count, data, len, err) : no_memory(err);
    } else {
        rc = parse_json(mode, data, len, &list, err);
    }
    for (size_t i = 0; i < list.count && rc == 0; i++) {
        rc = identify(&list.items[i]) < 0 ? no_memory(err) : 0;
    }
    if (rc < 0) {
        (void)un_json_text(NULL);
        event_list_done(&list);
        return rc;
    }
    *ret = list;
    return 0;
}
