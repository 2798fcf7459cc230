/* interface.c - see interface.h: what the interfaces have in common. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "scheduler/interface/interface_impl.h"

uint32_t interface_number(enum function_interface interface)
{
    switch (interface) {
    case FUNCTION_FILTER:
        return UNID_INTERFACE_FILTER;
    case FUNCTION_CGI:
        return UNID_INTERFACE_CGI;
    case FUNCTION_HTTP:
        return UNID_INTERFACE_HTTP;
    case FUNCTION_TCP:
        return UNID_INTERFACE_TCP;
    default:
        return UNID_INTERFACE_SDK;
    }
}

bool interface_reads(enum function_interface interface)
{
    return interface == FUNCTION_CGI || interface == FUNCTION_HTTP;
}

bool interface_wants_length(enum function_interface interface)
{
    return interface == FUNCTION_CGI;
}

/* --- requests --------------------------------------------------------------------------------- */

const char *request_field(const struct request_parts *p, const char *name)
{
    for (size_t i = 0; i < p->field_count; i++) {
        if (strcasecmp(p->fields[i].name, name) == 0) {
            return p->fields[i].value;
        }
    }
    return NULL;
}

int request_prefix(const struct interface_request *r, struct un_buf *ret)
{
    if (r->own_port) {
        return un_buf_append_str(ret, "");
    }
    return un_buf_printf(ret, "/fn/%s%s%s", r->function, r->qualifier ? ":" : "",
                         r->qualifier ? r->qualifier : "");
}

const char *request_peer(const struct interface_request *r)
{
    return r->peer && r->peer[0] ? r->peer : "127.0.0.1";
}

/* Ends the line at `*at` with a NUL and moves to the next; NULL at the end. */
static char *next_line(char **at, const char *end)
{
    char *line = *at;
    char *cr = line < end ? memmem(line, (size_t)(end - line), "\r\n", 2) : NULL;

    if (!cr) {
        return NULL;
    }
    *cr = '\0';
    *at = cr + 2;
    return line;
}

static bool split_request(char *text, size_t len, struct request_parts *ret)
{
    char *at = text, *line = next_line(&at, text + len), *mark = line ? strchr(line, ' ') : NULL;

    if (!mark) {
        return false;
    }
    *mark++ = '\0';
    ret->method = line;
    ret->target = ret->path = mark;
    ret->path_len = strcspn(mark, "?");
    ret->query = mark[ret->path_len] ? mark + ret->path_len + 1 : NULL;
    while ((line = next_line(&at, text + len)) != NULL) {
        char *colon = strchr(line, ':');

        if (!colon || colon[1] != ' ' || ret->field_count == LIMIT_HTTP_FIELDS) {
            return false;
        }
        *colon = '\0';
        ret->fields[ret->field_count++] = (struct hv_field){line, colon + 2};
    }
    return true;
}

int interface_render(const struct interface_request *r, struct un_buf *ret, struct un_error *err)
{
    un_autofree char *text = malloc(r->head_len + 1);
    struct request_parts parts = {0};
    int rc;

    if (!text) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    memcpy(text, r->head, r->head_len);
    text[r->head_len] = '\0';
    if (!split_request(text, r->head_len, &parts)) {
        return un_error_set(err, -EINVAL, "the request's head cannot be given to a program");
    }
    switch (r->config->interface) {
    case FUNCTION_CGI:
        rc = cgi_render(r, &parts, ret);
        break;
    case FUNCTION_HTTP:
        rc = http_render(r, &parts, ret);
        break;
    default:
        rc = un_buf_append(ret, r->head, r->head_len);
        break;
    }
    if (rc < 0) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    if (ret->len > UNID_REQUEST_HEAD_MAX) {
        return un_error_set(
            err, -E2BIG, "the request's head has %zu bytes, more than a guest can take", ret->len);
    }
    return 0;
}

/* --- heads of answers ------------------------------------------------------------------------- */

/* RFC 9110, section 5.6.2. */
static bool is_token(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i], low = c | 0x20;

        if (!((c >= '0' && c <= '9') || (low >= 'a' && low <= 'z') ||
              (c && strchr("!#$%&'*+-.^_`|~", c)))) {
            return false;
        }
    }
    return len > 0;
}

/* RFC 9110, section 5.5: visible characters, space, tab, and obs-text. */
static bool is_value(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];

        if (c != '\t' && (c < 0x20 || c == 0x7f)) {
            return false;
        }
    }
    return true;
}

int answer_add(struct answer_head *h, const char *name, size_t name_len, const char *value,
               size_t value_len, struct un_error *err)
{
    while (value_len > 0 && (*value == ' ' || *value == '\t')) {
        value++;
        value_len--;
    }
    while (value_len > 0 && (value[value_len - 1] == ' ' || value[value_len - 1] == '\t')) {
        value_len--;
    }
    if (!is_token(name, name_len)) {
        return un_error_set(err, -EBADMSG, "a field's name is not a token followed by a colon");
    }
    if (!is_value(value, value_len)) {
        return un_error_set(err, -EBADMSG, "a control character in the field %.*s",
                            name_len < 64 ? (int)name_len : 64, name);
    }
    if (h->count == LIMIT_HTTP_FIELDS) {
        return un_error_set(err, -EBADMSG, "more than %d fields", LIMIT_HTTP_FIELDS);
    }
    if (h->text.len + name_len + value_len > LIMIT_RESPONSE_HEAD_BYTES) {
        return un_error_set(err, -EBADMSG, "the head is longer than %d bytes",
                            LIMIT_RESPONSE_HEAD_BYTES);
    }
    h->name_at[h->count] = h->text.len;
    h->value_at[h->count] = h->text.len + name_len + 1;
    if (un_buf_append(&h->text, name, name_len) < 0 || un_buf_append(&h->text, "", 1) < 0 ||
        un_buf_append(&h->text, value, value_len) < 0 || un_buf_append(&h->text, "", 1) < 0) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    h->count++;
    return 0;
}

void answer_close(struct answer_head *h, unsigned status)
{
    for (size_t i = 0; i < h->count; i++) {
        h->fields[i].name = (const char *)h->text.data + h->name_at[i];
        h->fields[i].value = (const char *)h->text.data + h->value_at[i];
    }
    h->head = (struct hv_head){.status = status, .field_count = h->count, .fields = h->fields};
}

void answer_reset(struct answer_head *h)
{
    un_buf_reset(&h->text);
    h->count = 0;
    h->head = (struct hv_head){0};
}

void answer_done(struct answer_head *h)
{
    un_buf_done(&h->text);
}

/* --- readers ---------------------------------------------------------------------------------- */

int interface_reader_new(enum function_interface interface, bool head_only,
                         struct interface_reader **ret, struct un_error *err)
{
    struct interface_reader *r = NULL;
    int rc = un_fault("interface.reader");

    rc = rc < 0 ? rc : interface == FUNCTION_CGI ? cgi_reader_new(&r) : http_reader_new(&r);
    if (rc < 0) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    r->interface = interface;
    r->head_only = head_only;
    *ret = r;
    return 0;
}

void interface_reader_free(struct interface_reader *r)
{
    if (!r) {
        return;
    }
    answer_done(&r->answer);
    if (r->interface == FUNCTION_CGI) {
        cgi_reader_free(r);
    } else {
        http_reader_free(r);
    }
}

int interface_feed(struct interface_reader *r, const void *data, size_t len,
                   struct interface_piece *ret, struct un_error *err)
{
    *ret = (struct interface_piece){0};
    if (len == 0) {
        return 0;
    }
    return r->interface == FUNCTION_CGI ? cgi_feed(r, data, len, ret, err)
                                        : http_feed(r, data, len, ret, err);
}

int interface_finish(struct interface_reader *r, struct interface_piece *ret, struct un_error *err)
{
    *ret = (struct interface_piece){0};
    return r->interface == FUNCTION_CGI ? cgi_finish(r, ret, err) : http_finish(r, ret, err);
}

const struct hv_head *interface_head(const struct interface_reader *r)
{
    return r->answer.head.status ? &r->answer.head : NULL;
}
