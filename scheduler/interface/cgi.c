/* cgi.c - CGI/1.1 (RFC 3875): the meta-variables of a request, and the header that a
 * program's answer begins with.
 *
 * Where this server has a choice: PATH_INFO is decoded; SCRIPT_FILENAME, which PHP needs, is the
 * function's own variable of that name, or else the last of its arguments that is an absolute path;
 * a local redirect (section 6.2.2) is given to the client as a 302. Not passed on as HTTP_*: Proxy
 * (a variable HTTP_PROXY means something else to many programs), and names with other characters than
 * letters, digits and '-', as two of them could become the same variable.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "config.h"
#include "scheduler/interface/interface_impl.h"

/* --- the request ------------------------------------------------------------------------------ */

/* A variable, once: what is written first stays. */
struct variables {
    struct un_buf *out;
    size_t begin; /* of ours in `out` */
    int rc;
};

static bool has_variable(const struct variables *v, const char *name, size_t name_len)
{
    const char *at = (const char *)v->out->data + v->begin;
    const char *end = (const char *)v->out->data + v->out->len;

    for (; v->out->data && at < end; at += strlen(at) + 1) {
        if (strncmp(at, name, name_len) == 0 && at[name_len] == '=') {
            return true;
        }
    }
    return false;
}

static void put(struct variables *v, const char *name, const char *value)
{
    if (v->rc == 0) {
        v->rc = un_buf_printf(v->out, "%s=%s", name, value);
    }
    v->rc = v->rc == 0 ? un_buf_append(v->out, "", 1) : v->rc;
}

/* As put, of bytes. */
static void put_bytes(struct variables *v, const char *name, const void *value, size_t len)
{
    if (v->rc == 0) {
        v->rc = un_buf_printf(v->out, "%s=", name);
    }
    v->rc = v->rc == 0 ? un_buf_append(v->out, value, len) : v->rc;
    v->rc = v->rc == 0 ? un_buf_append(v->out, "", 1) : v->rc;
}

static const char *env_value(const struct function_config *c, const char *name)
{
    size_t len = strlen(name);

    for (char *const *e = c->env; e && *e; e++) {
        if (strncmp(*e, name, len) == 0 && (*e)[len] == '=') {
            return *e + len + 1;
        }
    }
    return NULL;
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 0x20) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* Percent-decoding of a path. A zero byte, which no environment can hold, stays as it is written. */
static int decode(const char *path, size_t len, struct un_buf *ret)
{
    int rc = un_buf_reserve(ret, len + 1);

    for (size_t i = 0; rc == 0 && i < len; i++) {
        int high = path[i] == '%' && i + 2 < len ? hex_digit(path[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(path[i + 2]) : -1;
        char c = path[i];

        if (low >= 0 && (high | low) != 0) {
            c = (char)(high << 4 | low);
            i += 2;
        }
        rc = un_buf_append(ret, &c, 1);
    }
    return rc;
}

/* Where the request went: SCRIPT_NAME, PATH_INFO and what is made of them. */
static void put_paths(struct variables *v, const struct interface_request *r,
                      const struct request_parts *p)
{
    un_autobuf struct un_buf prefix = {0}, info = {0}, whole = {0};
    const char *root = env_value(r->config, "DOCUMENT_ROOT");
    size_t uri_len = r->uri ? strcspn(r->uri, "?") : 0;

    if (v->rc < 0 || request_prefix(r, &prefix) < 0) {
        v->rc = -ENOMEM;
        return;
    }
    put(v, "SCRIPT_NAME", prefix.len ? (const char *)prefix.data : "");
    put(v, "QUERY_STRING", p->query ? p->query : "");
    /* The target "/" stands also for a request that ends with the function's name. */
    if (!r->uri || uri_len != prefix.len) {
        v->rc = v->rc == 0 ? decode(p->path, p->path_len, &info) : v->rc;
        put_bytes(v, "PATH_INFO", info.data, info.len);
        if (root && info.len > 0) {
            v->rc = v->rc == 0 ? un_buf_append_str(&whole, root) : v->rc;
            v->rc = v->rc == 0 ? un_buf_append(&whole, info.data, info.len) : v->rc;
            put_bytes(v, "PATH_TRANSLATED", whole.data, whole.len);
        }
    } else {
        put(v, "PATH_INFO", "");
    }
    if (r->uri) {
        put(v, "REQUEST_URI", r->uri);
    } else if (un_buf_append_str(&prefix, p->target) == 0) {
        put(v, "REQUEST_URI", (const char *)prefix.data);
    } else {
        v->rc = -ENOMEM;
    }
}

/* "host", "host:port", "[v6]:port": the Host field, as the client reached us by it. */
static void put_server(struct variables *v, const struct interface_request *r,
                       const struct request_parts *p)
{
    const char *host = request_field(p, "host");
    const char *colon, *bracket;

    host = host && *host ? host : "localhost";
    bracket = strrchr(host, ']');
    colon = strrchr(bracket ? bracket : host, ':');
    put(v, "GATEWAY_INTERFACE", "CGI/1.1");
    put_bytes(v, "SERVER_NAME", host, colon ? (size_t)(colon - host) : strlen(host));
    put(v, "SERVER_PORT",
        colon && colon[1] && !colon[1 + strspn(colon + 1, "0123456789")] ? colon + 1 : "80");
    put(v, "SERVER_PROTOCOL", r->http10 ? "HTTP/1.0" : "HTTP/1.1");
    put(v, "SERVER_SOFTWARE", "unid/" PACKAGE_VERSION);
    put(v, "REQUEST_SCHEME", "http");
    put(v, "REMOTE_ADDR", request_peer(r));
    put(v, "UNID_INVOCATION_ID", r->id);
}

static void put_body(struct variables *v, const struct interface_request *r,
                     const struct request_parts *p)
{
    const char *type = request_field(p, "content-type");
    char length[24];

    if (r->content_length > 0 || (r->content_length == 0 && strcmp(p->method, "GET") != 0 &&
                                  strcmp(p->method, "HEAD") != 0)) {
        snprintf(length, sizeof(length), "%lld", (long long)r->content_length);
        put(v, "CONTENT_LENGTH", length);
    }
    if (type) {
        put(v, "CONTENT_TYPE", type);
    }
}

/* "HTTP_ACCEPT_LANGUAGE" of "accept-language"; false when the field is not passed on. */
static bool variable_of(const char *field, char *name, size_t size)
{
    static const char *const own[] = {"content-type", "content-length", "proxy",
                                      "transfer-encoding"};
    size_t len = strlen("HTTP_");

    for (size_t i = 0; i < UN_ARRAY_SIZE(own); i++) {
        if (strcasecmp(field, own[i]) == 0) {
            return false;
        }
    }
    memcpy(name, "HTTP_", len);
    for (; *field; field++) {
        char c = *field;

        if (c >= 'a' && c <= 'z') {
            c = (char)(c - 32);
        } else if (c == '-') {
            c = '_';
        } else if (!((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))) {
            return false;
        }
        if (len + 1 >= size) {
            return false;
        }
        name[len++] = c;
    }
    name[len] = '\0';
    return len > strlen("HTTP_");
}

/* Fields of one name are one variable (section 4.1.18); cookies are joined as RFC 6265 writes them. */
static void put_fields(struct variables *v, const struct request_parts *p)
{
    for (size_t i = 0; i < p->field_count; i++) {
        un_autobuf struct un_buf value = {0};
        const char *glue = strcasecmp(p->fields[i].name, "cookie") == 0 ? "; " : ", ";
        char name[128];

        if (!variable_of(p->fields[i].name, name, sizeof(name)) ||
            has_variable(v, name, strlen(name))) {
            continue;
        }
        for (size_t k = i; v->rc == 0 && k < p->field_count; k++) {
            if (strcasecmp(p->fields[k].name, p->fields[i].name) == 0) {
                v->rc = un_buf_printf(&value, "%s%s", k > i ? glue : "", p->fields[k].value);
            }
        }
        put_bytes(v, name, value.data, value.len);
    }
}

/* The function's environment; what the request says of itself goes before. */
static void put_environment(struct variables *v, const struct interface_request *r)
{
    const char *script = NULL;

    for (char *const *a = r->config->args; a && *a; a++) {
        script = **a == '/' ? *a : script;
    }
    for (char *const *e = r->config->env; e && *e && v->rc == 0; e++) {
        const char *equals = strchr(*e, '=');

        if (equals && !has_variable(v, *e, (size_t)(equals - *e))) {
            v->rc = un_buf_append(v->out, *e, strlen(*e) + 1);
        }
    }
    if (script && !has_variable(v, "SCRIPT_FILENAME", 15)) {
        put(v, "SCRIPT_FILENAME", script);
    }
    if (!has_variable(v, "REDIRECT_STATUS", 15)) {
        put(v, "REDIRECT_STATUS", "200"); /* php-cgi takes its absence for a call past the server */
    }
}

int cgi_render(const struct interface_request *r, const struct request_parts *p, struct un_buf *ret)
{
    struct variables v = {.out = ret, .begin = ret->len};

    put_server(&v, r, p);
    put(&v, "REQUEST_METHOD", p->method);
    put_paths(&v, r, p);
    put_body(&v, r, p);
    put_fields(&v, p);
    put_environment(&v, r);
    return v.rc;
}

/* --- the answer ------------------------------------------------------------------------------- */

struct cgi_reader {
    struct interface_reader base;
    struct un_buf raw; /* the header as far as it has come */
    size_t line_at;    /* where its current line begins */
    int64_t left;      /* body bytes still to come of a declared length; -1: not declared */
};

int cgi_reader_new(struct interface_reader **ret)
{
    struct cgi_reader *c = calloc(1, sizeof(*c));

    if (!c) {
        return -ENOMEM;
    }
    c->left = -1;
    *ret = &c->base;
    return 0;
}

void cgi_reader_free(struct interface_reader *r)
{
    struct cgi_reader *c = un_container_of(r, struct cgi_reader, base);

    un_buf_done(&c->raw);
    free(c);
}

static bool is_name(const char *name, size_t len, const char *what)
{
    return len == strlen(what) && strncasecmp(name, what, len) == 0;
}

/* What the header's own fields say. */
struct cgi_header {
    unsigned status; /* 0: not given */
    bool location, document;
};

/* "200 OK"; section 6.3.3. */
static int read_status(const char *value, size_t len, struct cgi_header *h, struct un_error *err)
{
    while (len > 0 && *value == ' ') {
        value++;
        len--;
    }
    if (h->status || len < 3 || strspn(value, "0123456789") != 3 || (len > 3 && value[3] != ' ') ||
        value[0] < '2' || value[0] > '5') {
        return un_error_set(err, -EBADMSG, "Status must come once and be a number from 200 to 599");
    }
    h->status = (unsigned)((value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0'));
    return 0;
}

static int read_length(struct cgi_reader *c, const char *value, size_t len, struct un_error *err)
{
    uint64_t n = 0;

    while (len > 0 && (*value == ' ' || *value == '\t')) {
        value++;
        len--;
    }
    while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t')) {
        len--;
    }
    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9' || len > 18) {
            len = 0;
            break;
        }
        n = n * 10 + (uint64_t)(value[i] - '0');
    }
    if (len == 0 || c->left >= 0) {
        return un_error_set(err, -EBADMSG, "Content-Length must come once and be a number");
    }
    c->left = (int64_t)n;
    return 0;
}

static int read_line(struct cgi_reader *c, const char *line, size_t len, struct cgi_header *h,
                     struct un_error *err)
{
    const char *colon = memchr(line, ':', len), *value = colon ? colon + 1 : NULL;
    size_t name_len, value_len;
    int rc = 0;

    if (!colon) {
        return un_error_set(err, -EBADMSG,
                            len >= 5 && strncmp(line, "HTTP/", 5) == 0
                                ? "the header begins with a status line; write \"Status: 200\" "
                                  "instead"
                                : "a line of the header is no \"Name: value\"");
    }
    name_len = (size_t)(colon - line);
    value_len = len - name_len - 1;
    if (is_name(line, name_len, "status")) {
        return read_status(value, value_len, h, err);
    }
    if (is_name(line, name_len, "content-length")) {
        rc = read_length(c, value, value_len, err);
    } else if (is_name(line, name_len, "location")) {
        h->location = true;
    } else if (is_name(line, name_len, "content-type")) {
        h->document = true;
    }
    return rc < 0 ? rc : answer_add(&c->base.answer, line, name_len, value, value_len, err);
}

/* The whole header is in `raw`, its last line, an empty one, included. */
static int read_header(struct cgi_reader *c, struct un_error *err)
{
    struct cgi_header h = {0};
    const char *at = (const char *)c->raw.data, *end = at + c->raw.len, *eol;
    int rc = 0;

    for (; rc == 0 && at < end; at = eol + 1) {
        size_t len;

        eol = memchr(at, '\n', (size_t)(end - at));
        len = (size_t)(eol - at);
        len -= len > 0 && at[len - 1] == '\r';
        rc = len > 0 ? read_line(c, at, len, &h, err) : 0;
    }
    if (rc == 0 && !h.status && !h.location && !h.document) {
        rc =
            un_error_set(err, -EBADMSG, "the header has none of Content-Type, Location and Status");
    }
    if (rc == 0) {
        answer_close(&c->base.answer, h.status ? h.status : h.location ? 302 : 200);
    }
    return rc;
}

/* Takes bytes of the header; gives how many were its own, and whether it is whole. */
static int take_header(struct cgi_reader *c, const char *data, size_t len, size_t *ret_taken,
                       bool *ret_whole, struct un_error *err)
{
    size_t taken = 0;
    bool whole = false;

    while (taken < len && !whole) {
        const char *eol = memchr(data + taken, '\n', len - taken);
        size_t n = eol ? (size_t)(eol - data) + 1 - taken : len - taken;

        if (c->raw.len + n > LIMIT_RESPONSE_HEAD_BYTES) {
            return un_error_set(err, -EBADMSG,
                                "the first %d bytes of output hold no empty line, which ends a CGI "
                                "header",
                                LIMIT_RESPONSE_HEAD_BYTES);
        }
        if (un_buf_append(&c->raw, data + taken, n) < 0) {
            return un_error_set(err, -ENOMEM, "out of memory");
        }
        taken += n;
        if (c->raw.data[c->raw.len - 1] == '\n') { /* as it was copied: a guest may go on writing */
            size_t line = c->raw.len - c->line_at;

            whole = line == 1 || (line == 2 && c->raw.data[c->line_at] == '\r');
            c->line_at = c->raw.len;
        }
    }
    *ret_taken = taken;
    *ret_whole = whole;
    return 0;
}

int cgi_feed(struct interface_reader *r, const char *data, size_t len, struct interface_piece *ret,
             struct un_error *err)
{
    struct cgi_reader *c = un_container_of(r, struct cgi_reader, base);
    size_t taken = 0;
    bool whole = false;

    if (!r->answer.head.status) {
        int rc = take_header(c, data, len, &taken, &whole, err);

        if (rc < 0 || !whole) {
            return rc;
        }
        rc = read_header(c, err);
        if (rc < 0) {
            return rc;
        }
    }
    ret->data = data + taken;
    ret->len = len - taken;
    if (c->left >= 0 && !r->head_only) {
        if ((uint64_t)ret->len > (uint64_t)c->left) {
            return un_error_set(err, -EBADMSG, "more output than Content-Length says");
        }
        c->left -= (int64_t)ret->len;
    }
    if (r->head_only) {
        ret->len = 0;
    }
    return 0;
}

int cgi_finish(struct interface_reader *r, struct interface_piece *ret, struct un_error *err)
{
    const struct cgi_reader *c = un_container_of(r, struct cgi_reader, base);

    if (!r->answer.head.status) {
        return un_error_set(err, -EBADMSG,
                            c->raw.len
                                ? "the program ended within the CGI header"
                                : "the program ended without any output; a CGI program writes "
                                  "a header, an empty line, and the document");
    }
    if (c->left > 0 && !r->head_only) {
        return un_error_set(err, -EBADMSG, "%lld bytes less output than Content-Length says",
                            (long long)c->left);
    }
    ret->complete = true;
    return 0;
}
