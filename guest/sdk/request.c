/* request.c - the request head, split in place, and the body as a stream. */
#include "sdk.h"

#include <string.h>
#include <unid/unid.h>

/* The head has at most this many bytes, and each field at least four, so fields are found by
 * walking the lines: no table has to be made for a program that looks at none of them. */
static struct {
    char *method, *target;
    char *fields, *fields_end; /* "name\0value\0" for each */
    const uint8_t *body;       /* start of the body's part of the window */
    uint32_t pos, len;         /* unread bytes in it: [pos, len) */
    bool eof;
    char id[UNID_ID_SIZE];
    uint64_t content_length;
} rq;

static char empty[1];

/* Ends the line at `s` in front of its CRLF with a NUL; gives the start of the next line. */
static char *cut_line(char *s, char *end)
{
    for (; s < end; s++) {
        if (*s == '\r' || *s == '\n') {
            char *next = s + (*s == '\r' && s + 1 < end && s[1] == '\n' ? 2 : 1);
            *s = '\0';
            return next;
        }
    }
    return end;
}

/* Splits "name: value" lines into NUL-terminated pairs, packed over the old text. */
static char *pack_fields(char *from, char *end)
{
    char *out = from;
    while (from < end) {
        char *line = from;
        from = cut_line(line, end);
        char *colon = strchr(line, ':');
        if (!colon) {
            continue;
        }
        *colon = '\0';
        char *value = colon + 1;
        value += strspn(value, " \t");
        size_t name_size = (size_t)(colon - line) + 1, value_size = strlen(value) + 1;
        memmove(out, line, name_size);
        memmove(out + name_size, value, value_size);
        out += name_size + value_size;
    }
    return out;
}

void sdk_request_begin(const struct unid_call *call)
{
    char *head = (char *)UNID_REQUEST_ADDR, *end = head + call->request_head_len;
    rq.body = (const uint8_t *)end;
    rq.len = call->request_len;
    rq.eof = call->flags & UNID_CALL_EOF;
    rq.content_length = call->content_length;
    memcpy(rq.id, call->invocation_id, sizeof(rq.id) - 1);
    rq.method = rq.target = empty;
    if (head == end) {
        return;
    }
    rq.fields = cut_line(head, end);
    rq.fields_end = pack_fields(rq.fields, end);
    rq.method = head;
    char *space = strchr(head, ' ');
    if (space) {
        *space = '\0';
        rq.target = space + 1;
    }
}

const char *unid_method(void)
{
    sdk_take_request();
    return rq.method;
}

const char *unid_target(void)
{
    sdk_take_request();
    return rq.target;
}

bool unid_header_at(size_t i, const char **ret_name, const char **ret_value)
{
    sdk_take_request();
    const char *name = rq.fields;
    while (name < rq.fields_end) {
        const char *value = name + strlen(name) + 1;
        if (i-- == 0) {
            *ret_name = name;
            *ret_value = value;
            return true;
        }
        name = value + strlen(value) + 1;
    }
    return false;
}

const char *unid_header(const char *name)
{
    sdk_take_request();
    for (const char *at = rq.fields; at < rq.fields_end;) {
        const char *value = at + strlen(at) + 1;
        if (strcasecmp(at, name) == 0) {
            return value;
        }
        at = value + strlen(value) + 1;
    }
    return NULL;
}

int64_t unid_content_length(void)
{
    sdk_take_request();
    return rq.content_length > INT64_MAX ? -1 : (int64_t)rq.content_length;
}

const char *unid_invocation_id(void)
{
    sdk_take_request();
    return rq.id;
}

/* Makes unread bytes stand in the window, unless the body is at its end. */
static void refill(void)
{
    sdk_take_request();
    while (rq.pos == rq.len && !rq.eof) {
        struct unid_call *c = sdk_call_block();
        sdk_call(UNID_OP_READ);
        rq.pos = 0;
        rq.len = c->request_len;
        rq.eof = c->flags & UNID_CALL_EOF;
    }
}

size_t unid_chunk(const void **ret)
{
    refill();
    size_t n = rq.len - rq.pos;
    *ret = rq.body + rq.pos;
    rq.pos = rq.len;
    return n;
}

size_t unid_read(void *buf, size_t n)
{
    if (n == 0) {
        return 0;
    }
    refill();
    size_t have = rq.len - rq.pos;
    if (n > have) {
        n = have;
    }
    memcpy(buf, rq.body + rq.pos, n);
    rq.pos += (uint32_t)n;
    return n;
}
