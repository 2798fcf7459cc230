/* head.c - see head.h. */
#include "api/http/head.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "llhttp/llhttp.h"

struct parse {
    llhttp_t llhttp;
    struct http_request *req;
    const char *url, *url_end, *method, *method_end;
    const char *name, *name_end, *value, *value_end;
    bool complete, too_many;
    char *head;
};

/* --- lists and fields ------------------------------------------------------------------------- */

const char *http_request_field(const struct http_request *r, const char *name)
{
    for (size_t i = 0; i < r->field_count; i++) {
        if (strcasecmp(r->fields[i].name, name) == 0) {
            return r->fields[i].value;
        }
    }
    return NULL;
}

bool http_list_has(const char *list, const char *word)
{
    size_t word_len = strlen(word);
    while (*list) {
        list += strspn(list, ", \t");
        size_t len = strcspn(list, ",");
        size_t trimmed = len;
        while (trimmed && (list[trimmed - 1] == ' ' || list[trimmed - 1] == '\t')) {
            trimmed--;
        }
        if (trimmed == word_len && strncasecmp(list, word, word_len) == 0) {
            return true;
        }
        list += len;
    }
    return false;
}

/* --- the scanner ------------------------------------------------------------------------------ */

static int scan_line_end(struct http_scan *s, const struct http_scan_limits *limits,
                         const char **why)
{
    s->cr = false;
    if (s->line_len == 0) {
        return 1;
    }
    s->lines++;
    s->line_len = 0;
    if (s->lines > limits->fields + 1) {
        *why = "too many header fields";
        return -431;
    }
    return 0;
}

static int scan_byte(struct http_scan *s, const struct http_scan_limits *limits, char byte,
                     const char **why)
{
    if (s->cr) {
        if (byte != '\n') {
            *why = "a CR without LF in the head";
            return -400;
        }
        return scan_line_end(s, limits, why);
    }
    if (byte == '\r') {
        s->cr = true;
        return 0;
    }
    if (byte == '\n' || byte == '\0') {
        *why = byte ? "a LF without CR in the head" : "a NUL byte in the head";
        return -400;
    }
    if (s->line_len == 0 && (byte == ' ' || byte == '\t')) {
        *why = "a line of the head begins with white space";
        return -400;
    }
    s->line_len++;
    /* The method and the version take some of the line; they are short. */
    if (s->lines == 0 && s->line_len > limits->target_bytes + 32) {
        *why = "the request target is too long";
        return -414;
    }
    return 0;
}

int http_scan_head(struct http_scan *scan, const struct http_scan_limits *limits, const char *data,
                   size_t len, const char **why)
{
    for (size_t i = 0; i < len; i++) {
        if (++scan->len > limits->head_bytes) {
            *why = "the request head is too large";
            return -431;
        }
        int rc = scan_byte(scan, limits, data[i], why);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* --- llhttp ----------------------------------------------------------------------------------- */

/* A head is fed in one piece, so a span that comes in parts is contiguous. */
static void extend(const char **start, const char **end, const char *at, size_t len)
{
    if (!*start) {
        *start = at;
    }
    *end = at + len;
}

static int on_method(llhttp_t *l, const char *at, size_t len)
{
    struct parse *p = l->data;
    extend(&p->method, &p->method_end, at, len);
    return 0;
}

static int on_url(llhttp_t *l, const char *at, size_t len)
{
    struct parse *p = l->data;
    extend(&p->url, &p->url_end, at, len);
    return 0;
}

static int on_field(llhttp_t *l, const char *at, size_t len)
{
    struct parse *p = l->data;
    extend(&p->name, &p->name_end, at, len);
    return 0;
}

static int on_value(llhttp_t *l, const char *at, size_t len)
{
    struct parse *p = l->data;
    extend(&p->value, &p->value_end, at, len);
    return 0;
}

/* Where the NUL behind a span goes: before the white space at its end. */
static char *span_end(const struct parse *p, const char *start, const char *end)
{
    while (end > start && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }
    return p->head + (end - p->head);
}

/* The strings are terminated only after llhttp is done: it still looks at the bytes behind a span.
 */
static int on_value_complete(llhttp_t *l)
{
    struct parse *p = l->data;
    struct http_request *r = p->req;
    if (r->field_count == LIMIT_HTTP_FIELDS) {
        p->too_many = true;
        return -1;
    }
    struct http_field *f = &r->fields[r->field_count++];
    f->name = p->name;
    f->value = p->value && p->value_end > p->value ? p->value : NULL;
    p->name = p->name_end = p->value = p->value_end = NULL;
    return 0;
}

static int on_headers_complete(llhttp_t *l)
{
    struct parse *p = l->data;
    p->complete = true;
    l->upgrade = 0; /* an upgrade is never granted, so the body is a body (RFC 9110 section 7.8) */
    return 0;
}

static int on_message_complete(llhttp_t *l)
{
    (void)l;
    return HPE_PAUSED;
}

static const llhttp_settings_t head_settings = {
    .on_method = on_method,
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_message_complete = on_message_complete,
};

static bool is_token_char(char c)
{
    return c && (strchr("!#$%&'*+-.^_`|~", c) || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                 (c >= 'A' && c <= 'Z'));
}

/* llhttp refused the head: which status says it best? */
static int refuse(const struct parse *p, size_t len, llhttp_errno_t error, const char **why)
{
    const char *line_end = memchr(p->head, '\r', len);
    const char *space = memchr(p->head, ' ', len);
    if (p->too_many) {
        *why = "too many header fields";
        return -431;
    }
    if (error == HPE_INVALID_METHOD && space && space > p->head && space < line_end) {
        for (const char *c = p->head; c < space; c++) {
            if (!is_token_char(*c)) {
                *why = "the method is not a token";
                return -400;
            }
        }
        *why = "the method is not known";
        return -501;
    }
    *why = "the request head is malformed";
    return -400;
}

/* "METHOD SP target SP HTTP/x.y": llhttp is lenient about spaces and knows other protocols than
 * HTTP. */
static int check_request_line(const char *head, size_t len, const char **why)
{
    const char *eol = memchr(head, '\r', len);
    size_t line = (size_t)(eol - head), spaces = 0;
    for (size_t i = 0; i < line; i++) {
        spaces += head[i] == ' ';
    }
    if (spaces != 2 || line < 14 || memcmp(eol - 9, " HTTP/", 6) != 0) {
        *why = "the request line is malformed";
        return -400;
    }
    if (memcmp(eol - 3, "1.1", 3) != 0 && memcmp(eol - 3, "1.0", 3) != 0) {
        *why = "only HTTP/1.0 and HTTP/1.1 are spoken here";
        return -505;
    }
    return 0;
}

/* Every line but the first and the empty last is "name: value", the name directly before the colon.
 */
static bool fields_well_formed(const char *head, size_t len)
{
    const char *end = head + len - 2;
    const char *line = memchr(head, '\n', len);
    for (line = line ? line + 1 : end; line < end;) {
        const char *eol = memchr(line, '\r', (size_t)(end - line) + 1);
        const char *c = line;
        while (c < eol && is_token_char(*c)) {
            c++;
        }
        if (c == line || c == eol || *c != ':') {
            return false;
        }
        for (; c < eol; c++) {
            if ((unsigned char)*c < 0x20 && *c != '\t') {
                return false;
            }
            if ((unsigned char)*c == 0x7f) {
                return false;
            }
        }
        line = eol + 2;
    }
    return true;
}

/* Puts NULs behind names and values, and gives every field a value. */
static void settle_fields(struct parse *p, size_t len)
{
    struct http_request *r = p->req;
    static const char none[] = "";
    for (size_t i = 0; i < r->field_count; i++) {
        char *name = p->head + (r->fields[i].name - p->head);
        char *eol = memchr(name, '\r', len - (size_t)(name - p->head));
        *eol = '\0';
        name[strcspn(name, ":")] = '\0';
        if (r->fields[i].value) {
            *span_end(p, r->fields[i].value, eol) = '\0';
        } else {
            r->fields[i].value = none;
        }
    }
}

/* --- what the head means ---------------------------------------------------------------------- */

static int check_target(struct http_request *r, char *target, const char **why)
{
    *why = "the request target is malformed";
    if (strchr(target, '#')) {
        return -400;
    }
    if (strcmp(target, "*") == 0) {
        r->target = target;
        return strcmp(r->method, "OPTIONS") == 0 ? 0 : -400;
    }
    if (strncasecmp(target, "http://", 7) == 0) {
        char *authority = target + 7;
        size_t len = strcspn(authority, "/?");
        if (len == 0 || memchr(authority, '@', len)) {
            return -400;
        }
        if (authority[len] == '?') {
            return -400; /* a path is needed; nobody sends this */
        }
        /* The authority moves to the front, to make room for its terminator. */
        memmove(target, authority, len);
        target[len] = '\0';
        r->host = target;
        r->target = authority[len] ? authority + len : "/";
        return 0;
    }
    r->target = target;
    return target[0] == '/' ? 0 : -400;
}

/* NULL is allowed. */
static bool is_authority(const char *host)
{
    return !host || !host[strcspn(host, " \t,/?#@\\")];
}

static int check_host(struct http_request *r, const char **why)
{
    const char *host = NULL;
    for (size_t i = 0; i < r->field_count; i++) {
        if (strcasecmp(r->fields[i].name, "host") == 0) {
            if (host) {
                *why = "more than one Host field";
                return -400;
            }
            host = r->fields[i].value;
        }
    }
    if (!host && r->minor >= 1) {
        *why = "no Host field";
        return -400;
    }
    r->host = r->host ? r->host : host;
    if (!is_authority(host) || !is_authority(r->host)) {
        *why = "the Host field is malformed";
        return -400;
    }
    return 0;
}

/* Content-Length: one field, digits only (RFC 9110 section 8.6 lets a list of equal numbers be
 * merged; we refuse it, nobody honest sends one). */
static int check_length(struct http_request *r, const char **why)
{
    bool seen = false;
    r->content_length = 0;
    for (size_t i = 0; i < r->field_count; i++) {
        if (strcasecmp(r->fields[i].name, "content-length") != 0) {
            continue;
        }
        const char *v = r->fields[i].value;
        size_t digits = strspn(v, "0123456789");
        if (seen || digits == 0 || v[digits] || digits > 18) {
            *why = "the Content-Length is malformed";
            return -400;
        }
        seen = true;
        r->content_length = strtoll(v, NULL, 10);
    }
    if (seen && r->chunked) {
        *why = "both Content-Length and Transfer-Encoding";
        return -400;
    }
    if (r->chunked) {
        r->content_length = -1;
    }
    return 0;
}

static int check_coding(struct http_request *r, const char **why)
{
    for (size_t i = 0; i < r->field_count; i++) {
        if (strcasecmp(r->fields[i].name, "transfer-encoding") != 0) {
            continue;
        }
        if (r->minor == 0) {
            *why = "Transfer-Encoding in an HTTP/1.0 request";
            return -400;
        }
        if (r->chunked) {
            *why = "more than one Transfer-Encoding";
            return -400;
        }
        if (strcasecmp(r->fields[i].value, "chunked") != 0) {
            *why = "the only transfer coding here is chunked";
            return -501;
        }
        r->chunked = true;
    }
    return 0;
}

static int check_connection(struct http_request *r, const char **why)
{
    bool closes = false;
    r->keep_alive = r->minor >= 1;
    for (size_t i = 0; i < r->field_count; i++) {
        const char *name = r->fields[i].name, *value = r->fields[i].value;
        if (strcasecmp(name, "connection") == 0) {
            closes = closes || http_list_has(value, "close");
            if (r->minor == 0 && http_list_has(value, "keep-alive")) {
                r->keep_alive = true;
            }
        }
        if (strcasecmp(name, "expect") == 0 && r->minor >= 1) {
            if (strcasecmp(value, "100-continue") != 0) {
                *why = "the only expectation here is 100-continue";
                return -417;
            }
            r->expect_continue = true;
        }
    }
    r->keep_alive = r->keep_alive && !closes;
    return 0;
}

static int check_meaning(struct parse *p, const char **why)
{
    struct http_request *r = p->req;
    int rc = check_target(r, p->head + (p->url - p->head), why);
    if (rc == 0) {
        rc = check_coding(r, why);
    }
    if (rc == 0) {
        rc = check_length(r, why);
    }
    if (rc == 0) {
        rc = check_host(r, why);
    }
    return rc == 0 ? check_connection(r, why) : rc;
}

int http_parse_head(char *head, size_t len, struct http_request *ret, const char **why)
{
    struct parse p = {.req = ret, .head = head};
    memset(ret, 0, sizeof(*ret));
    int bad_line = check_request_line(head, len, why);
    if (bad_line) {
        return bad_line;
    }
    llhttp_init(&p.llhttp, HTTP_REQUEST, &head_settings);
    p.llhttp.data = &p;
    llhttp_errno_t rc = llhttp_execute(&p.llhttp, head, len);
    if ((rc != HPE_OK && rc != HPE_PAUSED && rc != HPE_INVALID_TRANSFER_ENCODING &&
         rc != HPE_UNEXPECTED_CONTENT_LENGTH) ||
        !p.url || !p.method || !fields_well_formed(head, len)) {
        return refuse(&p, len, rc, why);
    }
    if (!p.complete) {
        *why = "Content-Length and Transfer-Encoding are ambiguous";
        return -400;
    }
    ret->minor = p.llhttp.http_minor;
    head[p.method_end - head] = '\0';
    head[p.url_end - head] = '\0';
    ret->method = p.method;
    settle_fields(&p, len);
    if (strcmp(ret->method, "CONNECT") == 0) {
        *why = "CONNECT is not served here";
        return -501;
    }
    return check_meaning(&p, why);
}

/* --- chunked bodies --------------------------------------------------------------------------- */

enum { CHUNK_EXTRA_MAX = 16 * 1024 }; /* extensions and trailers of one body; nobody needs them */

struct http_chunks {
    llhttp_t llhttp;
    void (*on_data)(void *arg, const char *data, size_t len);
    void *arg;
    size_t extra;
    char last; /* byte of the feed before */
    bool end;
};

static int chunks_on_body(llhttp_t *l, const char *at, size_t len)
{
    struct http_chunks *c = l->data;
    c->on_data(c->arg, at, len);
    return 0;
}

static int chunks_on_extra(llhttp_t *l, const char *at, size_t len)
{
    struct http_chunks *c = l->data;
    (void)at;
    c->extra += len + 1;
    return c->extra > CHUNK_EXTRA_MAX ? -1 : 0;
}

static int chunks_on_complete(llhttp_t *l)
{
    struct http_chunks *c = l->data;
    c->end = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t chunk_settings = {
    .on_body = chunks_on_body,
    .on_header_field = chunks_on_extra,
    .on_header_value = chunks_on_extra,
    .on_chunk_extension_name = chunks_on_extra,
    .on_chunk_extension_value = chunks_on_extra,
    .on_message_complete = chunks_on_complete,
};

struct http_chunks *http_chunks_new(void)
{
    static const char head[] = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    struct http_chunks *c = calloc(1, sizeof(*c));
    if (!c) {
        return NULL;
    }
    llhttp_init(&c->llhttp, HTTP_REQUEST, &chunk_settings);
    c->llhttp.data = c;
    /* Brings llhttp to where a chunked body begins; the real head has been read already. */
    if (llhttp_execute(&c->llhttp, head, sizeof(head) - 1) != HPE_OK) {
        free(c);
        return NULL;
    }
    c->extra = 0;
    return c;
}

void http_chunks_free(struct http_chunks *c)
{
    free(c);
}

void http_chunks_on_data(struct http_chunks *c,
                         void (*on_data)(void *arg, const char *data, size_t len), void *arg)
{
    c->on_data = on_data;
    c->arg = arg;
}

long http_chunks_feed(struct http_chunks *c, const char *data, size_t len, bool *ret_end,
                      const char **why)
{
    llhttp_errno_t rc = llhttp_execute(&c->llhttp, data, len);
    if (rc == HPE_OK) {
        c->last = len ? data[len - 1] : c->last;
        return (long)len;
    }
    if (rc == HPE_PAUSED && c->end) {
        long taken = llhttp_get_error_pos(&c->llhttp) - data;
        /* llhttp lets the last line end in a bare LF. */
        if ((taken >= 2 ? data[taken - 2] : c->last) == '\r') {
            *ret_end = true;
            return taken;
        }
    }
    *why = c->extra > CHUNK_EXTRA_MAX ? "too many chunk extensions or trailers"
                                      : "the chunked body is malformed";
    return -1;
}
