/* response.c - the response window, the log window, and the end.
 *
 * The response head grows at the start of the window, from "200 CRLF"; the first byte of the body
 * closes it. Nothing is copied twice.
 */
#include "sdk.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unid/unid.h>

static struct {
    uint32_t len;      /* bytes in the window */
    uint32_t head_len; /* of which this many are head */
    bool head_closed;  /* body bytes were written */
} rs;

static char *const out = (char *)UNID_RESPONSE_ADDR;

static void open_head(void)
{
    if (rs.head_len == 0) {
        memcpy(out, "200\r\n", 5);
        rs.head_len = rs.len = 5;
    }
}

int unid_response_status(unsigned status)
{
    if (rs.head_closed || status < 200 || status > 599) {
        return -1;
    }
    open_head();
    out[0] = (char)('0' + status / 100);
    out[1] = (char)('0' + status / 10 % 10);
    out[2] = (char)('0' + status % 10);
    return 0;
}

static bool is_token(const char *s)
{
    if (*s == '\0') {
        return false;
    }
    for (; *s; s++) {
        if (!isalnum((unsigned char)*s) && !strchr("!#$%&'*+-.^_`|~", *s)) {
            return false;
        }
    }
    return true;
}

static bool is_value(const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

int unid_response_header(const char *name, const char *value)
{
    if (rs.head_closed || !is_token(name) || !is_value(value)) {
        return -1;
    }
    open_head();
    size_t name_len = strlen(name), value_len = strlen(value),
           room = UNID_RESPONSE_HEAD_MAX - rs.len;
    if (name_len > room || value_len > room || name_len + value_len + 4 > room) {
        return -1;
    }
    char *at = out + rs.len;
    memcpy(at, name, name_len);
    memcpy(at + name_len, ": ", 2);
    memcpy(at + name_len + 2, value, value_len);
    memcpy(at + name_len + 2 + value_len, "\r\n", 2);
    rs.len += (uint32_t)(name_len + value_len + 4);
    rs.head_len = rs.len;
    return 0;
}

static void send(uint32_t op)
{
    sdk_take_request();
    struct unid_call *c = sdk_call_block();
    c->response_len = rs.len;
    c->head_len = rs.head_len;
    rs.head_closed = true;
    sdk_call(op);
    rs.len = rs.head_len = 0;
}

void unid_flush(void)
{
    if (rs.len > 0) {
        send(UNID_OP_WRITE);
    }
}

void unid_write(const void *data, size_t n)
{
    const char *from = data;
    rs.head_closed = true;
    while (n > 0) {
        uint32_t room = (uint32_t)UNID_RESPONSE_SIZE - rs.len;
        size_t part = n < room ? n : room;
        memcpy(out + rs.len, from, part);
        rs.len += (uint32_t)part;
        from += part;
        n -= part;
        if (part == room) {
            send(UNID_OP_WRITE);
        }
    }
}

void unid_puts(const char *s)
{
    unid_write(s, strlen(s));
}

static void put_response(void *arg, const char *s, size_t n)
{
    (void)arg;
    unid_write(s, n);
}

void unid_vprintf(const char *fmt, va_list ap)
{
    sdk_format(put_response, NULL, fmt, ap);
}

void unid_printf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    unid_vprintf(fmt, ap);
    va_end(ap);
}

int printf(const char *restrict fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    size_t n = sdk_format(put_response, NULL, fmt, ap);
    va_end(ap);
    return (int)n;
}

int puts(const char *s)
{
    unid_puts(s);
    unid_write("\n", 1);
    return 0;
}

int putchar(int c)
{
    char ch = (char)c;
    unid_write(&ch, 1);
    return (unsigned char)ch;
}

/* --- log -------------------------------------------------------------------------------------- */

/* The length in the call block grows with each piece, so that the host finds it after a fault. */
static void put_log(void *arg, const char *s, size_t n)
{
    struct unid_call *c = sdk_call_block();
    while (n > 0) {
        if (c->log_len == UNID_LOG_SIZE) {
            sdk_call(UNID_OP_LOG);
        }
        size_t room = UNID_LOG_SIZE - c->log_len;
        size_t part = n < room ? n : room;
        memcpy((char *)UNID_LOG_ADDR + c->log_len, s, part);
        __atomic_store_n(&c->log_len, c->log_len + (uint32_t)part, __ATOMIC_RELEASE);
        *(char *)arg = s[part - 1];
        s += part;
        n -= part;
    }
}

void unid_log(const char *fmt, ...)
{
    char last = '\0';
    va_list ap;
    va_start(ap, fmt);
    sdk_format(put_log, &last, fmt, ap);
    va_end(ap);
    if (last != '\n') {
        put_log(&last, "\n", 1);
    }
}

/* --- end -------------------------------------------------------------------------------------- */

void unid_exit(int status)
{
    sdk_call_block()->status = status;
    send(UNID_OP_DONE);
    __builtin_unreachable();
}

void exit(int status)
{
    unid_exit(status);
}

void abort(void)
{
    unid_log("abort");
    unid_exit(134);
}
