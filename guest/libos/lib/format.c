/* format.c - numbers and strings to text: the conversions that kernel.h names, and width with zeros
 * or blanks ("%08lx", "%5d"). */
#include <stdarg.h>

#include "kernel.h"

struct out {
    char *to;
    size_t size, len; /* len counts what did not fit as well */
};

static void put(struct out *o, char c)
{
    if (o->len + 1 < o->size) {
        o->to[o->len] = c;
    }
    o->len++;
}

static void put_number(struct out *o, uint64_t v, unsigned base, bool negative, unsigned width,
                       char pad)
{
    char digits[24];
    unsigned n = 0;
    do {
        digits[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    if (negative && pad == '0') {
        put(o, '-');
    }
    for (unsigned i = n + negative; i < width; i++) {
        put(o, pad);
    }
    if (negative && pad != '0') {
        put(o, '-');
    }
    while (n) {
        put(o, digits[--n]);
    }
}

static void put_string(struct out *o, const char *s, int max)
{
    if (!s) {
        s = "(null)";
    }
    for (int i = 0; (max < 0 || i < max) && s[i]; i++) {
        put(o, s[i]);
    }
}

/* One conversion behind its '%'; gives the character behind it. */
static const char *convert(struct out *o, const char *f, va_list *args)
{
    char pad = ' ';
    unsigned width = 0, longs = 0;
    int precision = -1;
    if (*f == '0') {
        pad = *f++;
    }
    for (; *f >= '0' && *f <= '9'; f++) {
        width = width * 10 + (unsigned)(*f - '0');
    }
    if (f[0] == '.' && f[1] == '*') {
        precision = va_arg(*args, int);
        f += 2;
    }
    for (; *f == 'l' || *f == 'z'; f++) {
        longs++;
    }
    switch (*f) {
    case 'd': {
        int64_t v = longs ? va_arg(*args, long) : va_arg(*args, int);
        put_number(o, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, 10, v < 0, width, pad);
        break;
    }
    case 'u':
    case 'x':
        put_number(o, longs ? va_arg(*args, unsigned long) : va_arg(*args, unsigned),
                   *f == 'x' ? 16 : 10, false, width, pad);
        break;
    case 'c':
        put(o, (char)va_arg(*args, int));
        break;
    case 's':
        put_string(o, va_arg(*args, const char *), precision);
        break;
    case '\0':
        return f;
    default:
        put(o, *f);
    }
    return f + 1;
}

int kvformat(char *to, size_t size, const char *format, va_list args)
{
    struct out o = {.to = to, .size = size};
    va_list copy;
    va_copy(copy, args);
    while (*format) {
        if (*format == '%') {
            format = convert(&o, format + 1, &copy);
        } else {
            put(&o, *format++);
        }
    }
    va_end(copy);
    if (size > 0) {
        to[o.len < size ? o.len : size - 1] = '\0';
    }
    return (int)o.len;
}

int kformat(char *to, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = kvformat(to, size, format, args);
    va_end(args);
    return n;
}
