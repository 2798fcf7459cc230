/* stdio.c - formatting into memory. */
#include <stdio.h>

#include <string.h>

#include "sdk.h"

struct target {
    char *at;
    size_t room; /* without the NUL */
};

static void put_memory(void *arg, const char *s, size_t n)
{
    struct target *t = arg;
    size_t part = n < t->room ? n : t->room;
    if (part > 0) {
        memcpy(t->at, s, part);
        t->at += part;
        t->room -= part;
    }
}

int vsnprintf(char *restrict buf, size_t size, const char *restrict fmt, va_list ap)
{
    struct target t = {.at = buf, .room = size > 0 ? size - 1 : 0};
    size_t n = sdk_format(put_memory, &t, fmt, ap);
    if (size > 0) {
        *t.at = '\0';
    }
    return (int)n;
}

int snprintf(char *restrict buf, size_t size, const char *restrict fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(buf, size, fmt, ap);
    va_end(ap);
    return n;
}
