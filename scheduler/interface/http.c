/* http.c - HTTP/1.1 (RFC 9112) towards a program that is a server: the head of its request,
 * and its answer, read by llhttp.
 *
 * The program sees the path behind the function's name, as behind a reverse proxy that cuts a prefix,
 * and is asked to close the connection behind its answer, but for machine images that serve more than
 * one. Whether it does so does not matter: the answer's own framing says where it ends.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "llhttp/llhttp.h"
#include "scheduler/interface/interface_impl.h"

enum { INFORMATIONAL_MAX = 16 }; /* 1xx answers before the final one */

/* --- the request ------------------------------------------------------------------------------ */

/* Fields of the connection (RFC 9110, section 7.6.1), and those that are written here. */
static bool is_ours(const char *name)
{
    static const char *const names[] = {"connection",
                                        "content-length",
                                        "expect",
                                        "host",
                                        "keep-alive",
                                        "proxy",
                                        "proxy-authenticate",
                                        "proxy-authorization",
                                        "proxy-connection",
                                        "te",
                                        "trailer",
                                        "transfer-encoding",
                                        "upgrade",
                                        "x-forwarded-for",
                                        "x-forwarded-host",
                                        "x-forwarded-prefix",
                                        "x-forwarded-proto",
                                        "x-unid-invocation-id"};

    for (size_t i = 0; i < UN_ARRAY_SIZE(names); i++) {
        if (strcasecmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int put_forwarded(const struct interface_request *r, const struct request_parts *p,
                         const char *host, struct un_buf *ret)
{
    const char *before = request_field(p, "x-forwarded-for");
    int rc = un_buf_printf(ret, "X-Forwarded-For: %s%s%s\r\n", before ? before : "",
                           before ? ", " : "", request_peer(r));

    rc = rc < 0 ? rc
                : un_buf_printf(ret, "X-Forwarded-Host: %s\r\nX-Forwarded-Proto: http\r\n", host);
    if (rc == 0 && !r->own_port) {
        rc = un_buf_append_str(ret, "X-Forwarded-Prefix: ");
        rc = rc < 0 ? rc : request_prefix(r, ret);
        rc = rc < 0 ? rc : un_buf_append_str(ret, "\r\n");
    }
    return rc < 0 ? rc : un_buf_printf(ret, "X-Unid-Invocation-Id: %s\r\n", r->id);
}

static bool may_have_body(const char *method)
{
    return strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0 &&
           strcmp(method, "DELETE") != 0 && strcmp(method, "OPTIONS") != 0;
}

int http_render(const struct interface_request *r, const struct request_parts *p,
                struct un_buf *ret)
{
    const char *host = request_field(p, "host");
    int rc;

    host = host && *host ? host : "localhost";
    rc = un_buf_printf(ret, "%s %s HTTP/1.1\r\nHost: %s\r\n", p->method, p->target, host);
    for (size_t i = 0; rc == 0 && i < p->field_count; i++) {
        if (!is_ours(p->fields[i].name)) {
            rc = un_buf_printf(ret, "%s: %s\r\n", p->fields[i].name, p->fields[i].value);
        }
    }
    rc = rc < 0 ? rc : put_forwarded(r, p, host, ret);
    if (rc == 0 && r->content_length < 0) {
        rc = un_buf_append_str(ret, "Transfer-Encoding: chunked\r\n");
    } else if (rc == 0 && (r->content_length > 0 || may_have_body(p->method))) {
        rc = un_buf_printf(ret, "Content-Length: %lld\r\n", (long long)r->content_length);
    }
    /* A machine that is kept for more requests may keep the connection too. */
    bool keep = r->config->machine.set && r->config->machine.service;
    return rc < 0 ? rc : un_buf_append_str(ret, keep ? "\r\n" : "Connection: close\r\n\r\n");
}

/* --- the answer ------------------------------------------------------------------------------- */

struct http_reader {
    struct interface_reader base;
    llhttp_t llhttp;
    struct un_buf name, value; /* of the field that is being read */
    struct un_buf joined;      /* body bytes of one piece that do not stand side by side in it */
    const char *body;          /* body bytes of this piece, in it or in `joined` */
    size_t body_len;
    size_t extra; /* bytes of reason phrases, chunk extensions and trailers */
    unsigned informational;
    bool complete;
    int rc; /* what a callback has found */
    struct un_error err;
};

static struct http_reader *reader_of(llhttp_t *l)
{
    return un_container_of(l, struct http_reader, llhttp);
}

static int refuse(struct http_reader *h, int rc)
{
    h->rc = rc;
    return -1;
}

/* Bytes that go nowhere, but have a bound. */
static int on_extra(llhttp_t *l, const char *at, size_t len)
{
    struct http_reader *h = reader_of(l);

    h->extra += len;
    if (h->extra > LIMIT_RESPONSE_TRAILER_BYTES) {
        return refuse(h, un_error_set(&h->err, -EBADMSG,
                                      "more than %d bytes of chunk extensions and trailers",
                                      LIMIT_RESPONSE_TRAILER_BYTES));
    }
    return 0;
}

static int gather(struct http_reader *h, struct un_buf *buf, const char *at, size_t len)
{
    if (h->base.answer.head.status) {
        return on_extra(&h->llhttp, at, len); /* a trailer */
    }
    if (buf->len + len > LIMIT_RESPONSE_HEAD_BYTES) {
        return refuse(h, un_error_set(&h->err, -EBADMSG, "the head is longer than %d bytes",
                                      LIMIT_RESPONSE_HEAD_BYTES));
    }
    return un_buf_append(buf, at, len) < 0
               ? refuse(h, un_error_set(&h->err, -ENOMEM, "out of memory"))
               : 0;
}

static int on_field(llhttp_t *l, const char *at, size_t len)
{
    struct http_reader *h = reader_of(l);

    return gather(h, &h->name, at, len);
}

static int on_value(llhttp_t *l, const char *at, size_t len)
{
    struct http_reader *h = reader_of(l);

    return gather(h, &h->value, at, len);
}

static int on_value_complete(llhttp_t *l)
{
    struct http_reader *h = reader_of(l);
    int rc = 0;

    if (!h->base.answer.head.status) {
        rc =
            answer_add(&h->base.answer, h->name.data ? (const char *)h->name.data : "", h->name.len,
                       h->value.data ? (const char *)h->value.data : "", h->value.len, &h->err);
    }
    un_buf_reset(&h->name);
    un_buf_reset(&h->value);
    return rc < 0 ? refuse(h, rc) : 0;
}

static int on_headers_complete(llhttp_t *l)
{
    struct http_reader *h = reader_of(l);

    l->upgrade = 0;
    if (l->status_code == 101) {
        return refuse(h, un_error_set(&h->err, -EBADMSG,
                                      "it changes the protocol, which nobody asked it for"));
    }
    if (l->status_code / 100 == 1) {
        answer_reset(&h->base.answer);
        return ++h->informational > INFORMATIONAL_MAX
                   ? refuse(h, un_error_set(&h->err, -EBADMSG, "more than %d answers of 1xx",
                                            INFORMATIONAL_MAX))
                   : 1; /* without a body, whatever the fields say; the next answer follows */
    }
    if (l->status_code < 200 || l->status_code > 599) {
        return refuse(h, un_error_set(&h->err, -EBADMSG, "the status %u is not from 100 to 599",
                                      l->status_code));
    }
    answer_close(&h->base.answer, l->status_code);
    /* 1: no body follows, whatever the fields say (RFC 9112, section 6.3). */
    return h->base.head_only || l->status_code == 204 || l->status_code == 304 ? 1 : 0;
}

static int on_body(llhttp_t *l, const char *at, size_t len)
{
    struct http_reader *h = reader_of(l);
    int rc = 0;

    if (h->body_len == 0) {
        h->body = at;
    } else if (h->body + h->body_len != at) {
        if (h->joined.len == 0) {
            rc = un_buf_append(&h->joined, h->body, h->body_len);
        }
        rc = rc < 0 ? rc : un_buf_append(&h->joined, at, len);
        h->body = (const char *)h->joined.data;
    }
    h->body_len += len;
    return rc < 0 ? refuse(h, un_error_set(&h->err, -ENOMEM, "out of memory")) : 0;
}

static int on_message_complete(llhttp_t *l)
{
    struct http_reader *h = reader_of(l);

    if (!h->base.answer.head.status) {
        return 0; /* a 1xx */
    }
    h->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_status = on_extra,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_chunk_extension_name = on_extra,
    .on_chunk_extension_value = on_extra,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

int http_reader_new(struct interface_reader **ret)
{
    struct http_reader *h = calloc(1, sizeof(*h));

    if (!h) {
        return -ENOMEM;
    }
    llhttp_init(&h->llhttp, HTTP_RESPONSE, &settings);
    *ret = &h->base;
    return 0;
}

void http_reader_free(struct interface_reader *r)
{
    struct http_reader *h = un_container_of(r, struct http_reader, base);

    un_buf_done(&h->name);
    un_buf_done(&h->value);
    un_buf_done(&h->joined);
    free(h);
}

static int broken(struct http_reader *h, struct un_error *err)
{
    const char *why = llhttp_get_error_reason(&h->llhttp);

    if (h->rc < 0) {
        un_error_copy(err, &h->err);
        return h->rc;
    }
    return un_error_set(err, -EBADMSG, "it is no HTTP/1.x message (%s)",
                        why && *why ? why : llhttp_errno_name(llhttp_get_errno(&h->llhttp)));
}

int http_feed(struct interface_reader *r, const char *data, size_t len, struct interface_piece *ret,
              struct un_error *err)
{
    struct http_reader *h = un_container_of(r, struct http_reader, base);
    llhttp_errno_t rc;

    h->body_len = 0;
    un_buf_reset(&h->joined);
    rc = llhttp_execute(&h->llhttp, data, len);
    if (rc != HPE_OK && !h->complete) {
        return broken(h, err);
    }
    *ret = (struct interface_piece){h->body_len ? h->body : NULL, h->body_len, h->complete};
    return 0;
}

int http_finish(struct interface_reader *r, struct interface_piece *ret, struct un_error *err)
{
    struct http_reader *h = un_container_of(r, struct http_reader, base);

    h->body_len = 0;
    if (h->complete) {
        ret->complete = true;
        return 0;
    }
    (void)llhttp_finish(&h->llhttp);
    if (h->complete) {
        ret->complete = true;
        return 0;
    }
    return h->rc < 0 ? broken(h, err)
           : r->answer.head.status
               ? un_error_set(err, -EBADMSG, "it ended before the length that its head announced")
               : un_error_set(err, -EBADMSG, "the connection was closed without an answer");
}
