/* bytes.c - see bytes.h. */
#include "common/bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const uint8_t *un_read_bytes(struct un_reader *r, uint64_t n)
{
    if (r->failed || n > r->len - r->pos) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *p = r->data + r->pos;
    r->pos += n;
    return p;
}

static uint64_t read_le(struct un_reader *r, unsigned bytes)
{
    const uint8_t *p = un_read_bytes(r, bytes);
    uint64_t v = 0;
    for (unsigned i = 0; p && i < bytes; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

uint8_t un_read_u8(struct un_reader *r)
{
    return (uint8_t)read_le(r, 1);
}

uint16_t un_read_u16le(struct un_reader *r)
{
    return (uint16_t)read_le(r, 2);
}

uint32_t un_read_u32le(struct un_reader *r)
{
    return (uint32_t)read_le(r, 4);
}

uint64_t un_read_u64le(struct un_reader *r)
{
    return read_le(r, 8);
}

void un_read_seek(struct un_reader *r, uint64_t pos)
{
    if (pos > r->len) {
        r->failed = true;
    } else {
        r->pos = pos;
    }
}

void un_read_skip(struct un_reader *r, uint64_t n)
{
    (void)un_read_bytes(r, n);
}

int un_buf_reserve(struct un_buf *b, size_t more)
{
    size_t need;
    if (__builtin_add_overflow(b->len, more, &need) || __builtin_add_overflow(need, 1, &need)) {
        return -ENOMEM;
    }
    if (need <= b->cap) {
        return 0;
    }
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need) {
        if (__builtin_mul_overflow(cap, 2, &cap)) {
            return -ENOMEM;
        }
    }
    uint8_t *data = realloc(b->data, cap);
    if (!data) {
        return -ENOMEM;
    }
    b->data = data;
    b->cap = cap;
    return 0;
}

int un_buf_append(struct un_buf *b, const void *data, size_t len)
{
    int rc = un_buf_reserve(b, len);
    if (rc < 0) {
        return rc;
    }
    if (len > 0) {
        memcpy(b->data + b->len, data, len);
    }
    b->len += len;
    b->data[b->len] = '\0';
    return 0;
}

int un_buf_append_str(struct un_buf *b, const char *s)
{
    return un_buf_append(b, s, strlen(s));
}

int un_buf_printf(struct un_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text;
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0) {
        return -ENOMEM;
    }
    int rc = un_buf_append(b, text, (size_t)n);
    free(text);
    return rc;
}

void un_buf_consume(struct un_buf *b, size_t n)
{
    if (n >= b->len) {
        un_buf_reset(b);
        return;
    }
    memmove(b->data, b->data + n, b->len - n + 1);
    b->len -= n;
}

void un_buf_reset(struct un_buf *b)
{
    b->len = 0;
    if (b->data) {
        b->data[0] = '\0';
    }
}

void un_buf_done(struct un_buf *b)
{
    free(b->data);
    *b = (struct un_buf){0};
}

char *un_buf_steal_str(struct un_buf *b)
{
    if (!b->data && un_buf_append(b, "", 0) < 0) {
        return NULL;
    }
    char *s = (char *)b->data;
    *b = (struct un_buf){0};
    return s;
}

void un_hex_encode(const void *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = data;
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[p[i] >> 4];
        *out++ = digits[p[i] & 15];
    }
    *out = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

bool un_hex_decode(const char *hex, size_t hex_len, uint8_t *out, size_t len)
{
    if (hex_len != 2 * len) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
