/* respond.c - the exchange as its handler sees it, and the answer's bytes (RFC 9112); see server.h.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "api/http/internal.h"
#include "common/json.h"

enum { RESPONSE_FIELDS_MAX = 64 * 1024 };

static struct evbuffer *output(struct http_exchange *ex)
{
    return bufferevent_get_output(ex->conn->bev);
}

static void put(struct http_exchange *ex, const void *data, size_t len)
{
    if (evbuffer_add(output(ex), data, len) < 0) {
        ex->broken = true;
    }
}

void exchange_reset(struct http_exchange *ex)
{
    struct http_conn *conn = ex->conn;
    free(ex->head);
    un_buf_done(&ex->fields);
    http_chunks_free(ex->chunks);
    memset(ex, 0, sizeof(*ex));
    ex->conn = conn;
}

/* --- the request ------------------------------------------------------------------------------ */

const struct http_request *http_exchange_request(const struct http_exchange *ex)
{
    return &ex->req;
}

const char *http_exchange_peer(const struct http_exchange *ex, char buf[HTTP_PEER_SIZE])
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } peer = {0};
    socklen_t len = sizeof(peer);
    const void *address = &peer.v4.sin_addr;
    int family = AF_INET;

    buf[0] = '\0';
    if (ex->conn->is_unix || getpeername(ex->conn->fd, &peer.any, &len) < 0) {
        return buf;
    }
    if (peer.any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&peer.v6.sin6_addr)) {
        address = peer.v6.sin6_addr.s6_addr + 12;
    } else if (peer.any.sa_family == AF_INET6) {
        family = AF_INET6;
        address = &peer.v6.sin6_addr;
    } else if (peer.any.sa_family != AF_INET) {
        return buf;
    }
    if (!inet_ntop(family, address, buf, HTTP_PEER_SIZE)) {
        buf[0] = '\0';
    }
    return buf;
}

bool http_exchange_is_unix(const struct http_exchange *ex)
{
    return ex->conn->is_unix;
}

const struct http_pin *http_exchange_pin(const struct http_exchange *ex)
{
    return ex->conn->pin;
}

bool http_exchange_has_body(const struct http_exchange *ex)
{
    return ex->has_body;
}

void http_exchange_handle(struct http_exchange *ex, const struct http_handler *handler, void *arg)
{
    ex->handler = handler;
    ex->arg = arg;
}

void http_exchange_leave_on_eof(struct http_exchange *ex)
{
    ex->leave_on_eof = true;
}

void exchange_send_continue(struct http_exchange *ex)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    put(ex, text, sizeof(text) - 1);
}

void http_body_resume(struct http_exchange *ex)
{
    if (ex->req.expect_continue && !ex->continue_sent && !ex->begun && !ex->body_done) {
        /* A client that sends its body without waiting needs no permission any more. */
        if (evbuffer_get_length(bufferevent_get_input(ex->conn->bev)) == 0) {
            exchange_send_continue(ex);
        }
    }
    ex->continue_sent = true;
    if (!ex->body_flows) {
        ex->body_flows = true;
        conn_wake(ex->conn);
    }
}

void http_body_pause(struct http_exchange *ex)
{
    ex->body_flows = false;
}

/* --- fields ----------------------------------------------------------------------------------- */

static void remove_field(struct un_buf *fields, const char *name)
{
    size_t len = strlen(name);
    for (size_t at = 0; at < fields->len;) {
        char *line = (char *)fields->data + at;
        size_t line_len = (size_t)(strstr(line, "\r\n") - line) + 2;
        if (strncasecmp(line, name, len) == 0 && line[len] == ':') {
            memmove(line, line + line_len, fields->len - at - line_len);
            fields->len -= line_len;
            fields->data[fields->len] = '\0';
        } else {
            at += line_len;
        }
    }
}

int http_respond_field_add(struct http_exchange *ex, const char *name, const char *value)
{
    size_t len = 0;
    while ((unsigned char)value[len] >= 0x20 || value[len] == '\t') {
        len++;
    }
    if (ex->fields.len + strlen(name) + len > RESPONSE_FIELDS_MAX) {
        return -E2BIG;
    }
    return un_buf_printf(&ex->fields, "%s: %.*s\r\n", name, (int)len, value);
}

int http_respond_field(struct http_exchange *ex, const char *name, const char *value)
{
    if (ex->fields.len) {
        remove_field(&ex->fields, name);
    }
    return http_respond_field_add(ex, name, value);
}

/* --- the answer ------------------------------------------------------------------------------- */

const char *http_status_text(unsigned status)
{
    static const struct {
        unsigned status;
        const char *text;
    } texts[] = {
        {100, "Continue"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {418, "I'm a teapot"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(texts); i++) {
        if (texts[i].status == status) {
            return texts[i].text;
        }
    }
    return "Unknown";
}

/* How the end of the body will be known (RFC 9112 section 6.3). */
static void choose_framing(struct http_exchange *ex, unsigned status, int64_t content_length)
{
    ex->out_left = content_length;
    bool bodiless = status == 204 || status == 304;
    ex->no_body_out = bodiless || strcmp(ex->req.method, "HEAD") == 0;
    if (bodiless) {
        return;
    }
    if (content_length >= 0) {
        evbuffer_add_printf(output(ex), "Content-Length: %lld\r\n", (long long)content_length);
    } else if (ex->req.minor >= 1) {
        ex->chunked_out = !ex->no_body_out;
        evbuffer_add_printf(output(ex), "Transfer-Encoding: chunked\r\n");
    } else {
        ex->close_after = true;
    }
}

void http_respond_begin(struct http_exchange *ex, unsigned status, int64_t content_length)
{
    struct http_server *s = ex->conn->server;
    ex->begun = true;
    evbuffer_add_printf(output(ex), "HTTP/1.1 %u %s\r\nDate: %s\r\n", status,
                        http_status_text(status), server_date(s));
    if (ex->fields.len) {
        put(ex, ex->fields.data, ex->fields.len);
    }
    choose_framing(ex, status, content_length);
    if (!ex->body_done && ex->req.expect_continue && !ex->continue_sent) {
        ex->close_after = true; /* what the client sends next would be ambiguous */
    }
    ex->close_after = ex->close_after || s->draining;
    if (ex->close_after) {
        evbuffer_add_printf(output(ex), "Connection: close\r\n");
    } else if (ex->req.minor == 0) {
        evbuffer_add_printf(output(ex), "Connection: keep-alive\r\n");
    }
    put(ex, "\r\n", 2);
    conn_watch(ex->conn);
}

int http_respond_data(struct http_exchange *ex, const void *data, size_t len)
{
    if (len == 0 || ex->no_body_out) {
        return 1;
    }
    if (ex->out_left >= 0) {
        if ((uint64_t)len > (uint64_t)ex->out_left) {
            ex->broken = true;
            len = (size_t)ex->out_left;
        }
        ex->out_left -= (int64_t)len;
    }
    if (ex->chunked_out) {
        evbuffer_add_printf(output(ex), "%zx\r\n", len);
    }
    put(ex, data, len);
    if (ex->chunked_out) {
        put(ex, "\r\n", 2);
    }
    conn_watch(ex->conn);
    if (evbuffer_get_length(output(ex)) < ex->conn->server->limits.buffer_bytes) {
        return 1;
    }
    ex->want_writable = true;
    return 0;
}

void http_respond_end(struct http_exchange *ex)
{
    if (ex->chunked_out) {
        put(ex, "0\r\n\r\n", 5);
    }
    bool whole = !ex->broken && (ex->no_body_out || ex->out_left <= 0);
    conn_exchange_end(ex->conn, whole);
}

void http_respond_full(struct http_exchange *ex, unsigned status, const char *content_type,
                       const void *body, size_t len)
{
    if (content_type) {
        http_respond_field(ex, "Content-Type", content_type);
    }
    http_respond_begin(ex, status, (int64_t)len);
    http_respond_data(ex, body, len);
    http_respond_end(ex);
}

void http_respond_problem(struct http_exchange *ex, unsigned status, const char *detail)
{
    un_autojson json_t *j =
        json_pack("{s:s, s:s, s:i, s:o}", "type", "about:blank", "title", http_status_text(status),
                  "status", (int)status, "detail", un_json_string(detail));
    un_autofree char *text = un_json_text(j);
    http_respond_full(ex, status, "application/problem+json", text ? text : "{}",
                      text ? strlen(text) : 2);
}

bool http_exchange_begun(const struct http_exchange *ex)
{
    return ex->begun;
}

void http_exchange_abort(struct http_exchange *ex)
{
    conn_exchange_end(ex->conn, false);
}
