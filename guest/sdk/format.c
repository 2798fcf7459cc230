/* format.c - printf's formatting without floating point (ISO C 7.21.6.1). Knows nothing of the
 * machine. */
#include "sdk.h"

#include <string.h>

struct spec {
    bool left, zero, plus, space, alt;
    int width, precision; /* precision -1: none */
    int size;             /* bytes of the integer argument */
};

struct sink {
    sdk_put_fn *put;
    void *arg;
    size_t count;
};

static void put(struct sink *s, const char *text, size_t n)
{
    if (n > 0) {
        s->put(s->arg, text, n);
        s->count += n;
    }
}

static void pad(struct sink *s, char c, int n)
{
    char run[32];
    memset(run, c, sizeof(run));
    for (; n > 0; n -= (int)sizeof(run)) {
        put(s, run, n < (int)sizeof(run) ? (size_t)n : sizeof(run));
    }
}

/* Prefix, zeros, digits, within the width. */
static void put_number(struct sink *s, const struct spec *sp, const char *prefix,
                       const char *digits, int len)
{
    int prefix_len = (int)strlen(prefix);
    int zeros = sp->precision > len ? sp->precision - len : 0;
    int fill = sp->width - prefix_len - zeros - len;
    if (sp->zero && !sp->left && sp->precision < 0 && fill > 0) {
        zeros += fill;
        fill = 0;
    }
    if (!sp->left) {
        pad(s, ' ', fill);
    }
    put(s, prefix, (size_t)prefix_len);
    pad(s, '0', zeros);
    put(s, digits, (size_t)len);
    if (sp->left) {
        pad(s, ' ', fill);
    }
}

static void put_unsigned(struct sink *s, struct spec *sp, uint64_t v, char conv, const char *prefix)
{
    char text[24];
    int at = (int)sizeof(text);
    unsigned base = conv == 'o' ? 8 : conv == 'x' || conv == 'X' ? 16 : 10;
    const char *digits = conv == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    if (v == 0 && sp->precision != 0) {
        text[--at] = '0';
    }
    if (base == 16 && sp->alt && v != 0) {
        prefix = conv == 'X' ? "0X" : "0x";
    }
    for (; v != 0; v /= base) {
        text[--at] = digits[v % base];
    }
    int len = (int)sizeof(text) - at;
    if (base == 8 && sp->alt && sp->precision <= len && (len == 0 || text[at] != '0')) {
        sp->precision = len + 1;
    }
    put_number(s, sp, prefix, text + at, len);
}

static void put_string(struct sink *s, const struct spec *sp, const char *text)
{
    if (!text) {
        text = "(null)";
    }
    size_t len = sp->precision >= 0 ? strnlen(text, (size_t)sp->precision) : strlen(text);
    int fill = len < (size_t)sp->width ? sp->width - (int)len : 0;
    if (!sp->left) {
        pad(s, ' ', fill);
    }
    put(s, text, len);
    if (sp->left) {
        pad(s, ' ', fill);
    }
}

static const char *read_flags(const char *f, struct spec *sp)
{
    for (;; f++) {
        switch (*f) {
        case '-':
            sp->left = true;
            break;
        case '0':
            sp->zero = true;
            break;
        case '+':
            sp->plus = true;
            break;
        case ' ':
            sp->space = true;
            break;
        case '#':
            sp->alt = true;
            break;
        default:
            return f;
        }
    }
}

static const char *read_count(const char *f, int *ret, va_list *ap)
{
    if (*f == '*') {
        *ret = va_arg(*ap, int);
        return f + 1;
    }
    int n = 0;
    for (; *f >= '0' && *f <= '9'; f++) {
        n = n > 100000 ? n : n * 10 + (*f - '0');
    }
    *ret = n;
    return f;
}

static const char *read_length(const char *f, int *ret)
{
    *ret = sizeof(int);
    if (*f == 'h') {
        *ret = f[1] == 'h' ? 1 : 2;
        return f + (f[1] == 'h' ? 2 : 1);
    }
    if (*f == 'l' || *f == 'z' || *f == 'j' || *f == 't') {
        *ret = 8;
        return f + (f[0] == 'l' && f[1] == 'l' ? 2 : 1);
    }
    return f;
}

static const char *read_spec(const char *f, struct spec *sp, va_list *ap)
{
    *sp = (struct spec){.precision = -1};
    f = read_flags(f, sp);
    f = read_count(f, &sp->width, ap);
    if (sp->width < 0) { /* from '*' */
        sp->left = true;
        sp->width = sp->width == INT32_MIN ? INT32_MAX : -sp->width;
    }
    if (*f == '.') {
        f = read_count(f + 1, &sp->precision, ap);
    }
    return read_length(f, &sp->size);
}

static void put_signed(struct sink *s, struct spec *sp, va_list *ap)
{
    int64_t v = sp->size == 8 ? va_arg(*ap, int64_t) : va_arg(*ap, int);
    v = sp->size == 1 ? (int8_t)v : sp->size == 2 ? (int16_t)v : v;
    const char *sign = v < 0 ? "-" : sp->plus ? "+" : sp->space ? " " : "";
    put_unsigned(s, sp, v < 0 ? -(uint64_t)v : (uint64_t)v, 'd', sign);
}

/* One conversion; false when it is unknown. */
static bool convert(struct sink *s, char conv, struct spec *sp, va_list *ap)
{
    switch (conv) {
    case 'd':
    case 'i':
        put_signed(s, sp, ap);
        return true;
    case 'u':
    case 'o':
    case 'x':
    case 'X': {
        uint64_t v = sp->size == 8 ? va_arg(*ap, uint64_t) : va_arg(*ap, unsigned);
        v = sp->size == 1 ? (uint8_t)v : sp->size == 2 ? (uint16_t)v : v;
        put_unsigned(s, sp, v, conv, "");
        return true;
    }
    case 'c': {
        char c[1] = {(char)va_arg(*ap, int)};
        sp->precision = -1;
        sp->zero = false;
        put_number(s, sp, "", c, 1);
        return true;
    }
    case 's':
        put_string(s, sp, va_arg(*ap, const char *));
        return true;
    case 'p':
        put_unsigned(s, sp, (uint64_t)(uintptr_t)va_arg(*ap, void *), 'x', "0x");
        return true;
    case '%':
        put(s, "%", 1);
        return true;
    default:
        return false;
    }
}

size_t sdk_format(sdk_put_fn *fn, void *arg, const char *fmt, va_list args)
{
    struct sink s = {.put = fn, .arg = arg};
    va_list ap;
    va_copy(ap, args);
    while (*fmt) {
        size_t plain = strcspn(fmt, "%");
        put(&s, fmt, plain);
        fmt += plain;
        if (!*fmt) {
            break;
        }
        struct spec sp;
        const char *f = read_spec(fmt + 1, &sp, &ap);
        if (!convert(&s, *f, &sp, &ap)) {
            put(&s, fmt, (size_t)(f - fmt) + (*f != '\0'));
        }
        fmt = f + (*f != '\0');
    }
    va_end(ap);
    return s.count;
}
