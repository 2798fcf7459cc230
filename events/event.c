/* event.c - see event.h. */
#include "events/event.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"

static const char *const kinds[] = {[EVENT_S3] = "s3",
                                    [EVENT_CLOUDEVENT] = "cloudevents",
                                    [EVENT_DYNAMODB] = "dynamodb",
                                    [EVENT_CRON] = "cron"};

const char *event_kind_name(enum event_kind k)
{
    return kinds[k];
}

int event_kind_parse(const char *word)
{
    for (size_t i = 0; word && i < UN_ARRAY_SIZE(kinds); i++) {
        if (strcmp(word, kinds[i]) == 0) {
            return (int)i;
        }
    }
    return -1;
}

void event_fields_free(struct event_field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(fields[i].name);
        free(fields[i].value);
    }
    free(fields);
}

void event_done(struct event *e)
{
    free(e->type);
    free(e->source);
    free(e->subject);
    free(e->source_id);
    free(e->time);
    free(e->bucket);
    free(e->version_id);
    free(e->order_key);
    free(e->sequence);
    free(e->content_type);
    un_buf_done(&e->body);
    event_fields_free(e->fields, e->field_count);
    memset(e, 0, sizeof(*e));
}

void event_list_done(struct event_list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        event_done(&l->items[i]);
    }
    free(l->items);
    *l = (struct event_list){0};
}

struct event *event_list_add(struct event_list *l, enum event_kind kind)
{
    /* Grows at each power of two. */
    if ((l->count & (l->count - 1)) == 0) {
        size_t cap = l->count ? l->count * 2 : 1;
        struct event *items = realloc(l->items, cap * sizeof(*items));
        if (!items) {
            return NULL;
        }
        l->items = items;
    }
    struct event *e = &l->items[l->count++];
    *e = (struct event){.kind = kind};
    return e;
}

int event_hash(const char *const *parts, size_t count, char ret[EVENT_ID_SIZE])
{
    unsigned char digest[32];
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;
    for (size_t i = 0; ok && i < count; i++) {
        const char *part = parts[i] ? parts[i] : "";
        uint64_t len = strlen(part);
        ok = EVP_DigestUpdate(md, &len, sizeof(len)) == 1 &&
             EVP_DigestUpdate(md, part, (size_t)len) == 1;
    }
    ok = ok && EVP_DigestFinal_ex(md, digest, NULL) == 1;
    EVP_MD_CTX_free(md);
    if (ok) {
        un_hex_encode(digest, sizeof(digest), ret);
    }
    return ok ? 0 : -ENOMEM;
}

int event_copy(char **to, const char *from)
{
    *to = from ? strdup(from) : NULL;
    return from && !*to ? -ENOMEM : 0;
}

const char *event_str(const json_t *obj, const char *key)
{
    return json_string_value(json_object_get(obj, key));
}

int event_set_record(struct event *e, json_t *record)
{
    /* Not by json_pack: where memory lacks it keeps the reference that "O" takes. */
    un_autojson json_t *whole = json_object(), *list = json_array();
    bool made =
        json_array_append(list, record) == 0 && json_object_set(whole, "Records", list) == 0;
    un_autofree char *text = un_json_text(made ? whole : NULL);
    un_buf_reset(&e->body);
    if (!text || un_buf_append_str(&e->body, text) < 0) {
        return -ENOMEM;
    }
    free(e->content_type);
    return event_copy(&e->content_type, "application/json");
}

static int add_field(struct event_field **fields, size_t *count, const char *name, char *value)
{
    struct event_field *more = value ? realloc(*fields, (*count + 1) * sizeof(*more)) : NULL;
    char *own = more ? strdup(name) : NULL;
    if (more) {
        *fields = more;
    }
    if (!own) {
        free(value);
        return -ENOMEM;
    }
    more[(*count)++] = (struct event_field){.name = own, .value = value};
    return 0;
}

int event_add_field(struct event *e, const char *name, const char *value)
{
    if (e->field_count >= EVENT_FIELDS_MAX) {
        return -E2BIG;
    }
    return add_field(&e->fields, &e->field_count, name, strdup(value));
}

int event_fields(const struct event *e, struct event_field **ret, size_t *ret_count)
{
    const struct {
        const char *name, *value;
    } own[] = {
        {"X-Unid-Event-Type", e->type},
        {"X-Unid-Event-Source", e->source},
        {"X-Unid-Event-Subject", e->kind == EVENT_S3 ? NULL : e->subject},
        {"X-Unid-Event-Id", e->source_id ? e->source_id : e->id},
        {"X-Unid-Event-Time", e->time},
        {"X-Unid-Event-Bucket", e->bucket},
        {"X-Unid-Event-Key", e->kind == EVENT_S3 ? e->subject : NULL},
    };
    struct event_field *fields = NULL;
    size_t count = 0;
    int rc = 0;
    for (size_t i = 0; i < UN_ARRAY_SIZE(own) && rc == 0; i++) {
        if (own[i].value) {
            rc = add_field(&fields, &count, own[i].name, event_encode(own[i].value));
        }
    }
    for (size_t i = 0; i < e->field_count && rc == 0; i++) {
        rc = add_field(&fields, &count, e->fields[i].name, strdup(e->fields[i].value));
    }
    if (rc < 0) {
        event_fields_free(fields, count);
        return rc;
    }
    *ret = fields;
    *ret_count = count;
    return 0;
}

char *event_encode(const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = malloc(strlen(text) * 3 + 1), *at = out;
    for (const unsigned char *c = (const unsigned char *)text; out && *c; c++) {
        if (*c > 0x20 && *c < 0x7f && *c != '"' && *c != '%') {
            *at++ = (char)*c;
        } else {
            *at++ = '%';
            *at++ = hex[*c >> 4];
            *at++ = hex[*c & 15];
        }
    }
    if (out) {
        *at = '\0';
    }
    return out;
}

char *event_decode(const char *text, bool plus, bool *ret_bad)
{
    char *out = malloc(strlen(text) + 1), *at = out;
    *ret_bad = false;
    for (; out && *text; at++) {
        if (*text == '%') {
            uint8_t byte = 0;
            *ret_bad = !text[1] || !un_hex_decode(text + 1, 2, &byte, 1) || byte == 0;
            if (*ret_bad) {
                free(out);
                return NULL;
            }
            *at = (char)byte;
            text += 3;
        } else {
            *at = plus && *text == '+' ? ' ' : *text;
            text++;
        }
    }
    if (out) {
        *at = '\0';
    }
    return out;
}

/* The table of RFC 3629, section 4: how many bytes follow the first, and what the second may be. */
bool event_utf8(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        unsigned more = *c < 0x80   ? 0
                        : *c < 0xc2 ? 4
                        : *c < 0xe0 ? 1
                        : *c < 0xf0 ? 2
                        : *c < 0xf5 ? 3
                                    : 4;
        unsigned char least = *c == 0xe0 ? 0xa0 : *c == 0xf0 ? 0x90 : 0x80;
        unsigned char most = *c == 0xed ? 0x9f : *c == 0xf4 ? 0x8f : 0xbf;
        if (more == 4) {
            return false;
        }
        for (; more > 0; more--, least = 0x80, most = 0xbf) {
            c++;
            if (*c < least || *c > most) {
                return false;
            }
        }
    }
    return true;
}
