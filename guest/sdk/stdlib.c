/* stdlib.c - the heap of this machine, its environment, and numbers from text. */
#include <stdlib.h>

#include <ctype.h>
#include <limits.h>
#include <string.h>
#include <unid/unid.h>

#include "sdk.h"

static struct sdk_heap heap;

static struct sdk_heap *the_heap(void)
{
    if (!heap.end) {
        sdk_heap_init(&heap, (void *)sdk_boot()->heap_start, (void *)sdk_boot()->heap_end);
    }
    return &heap;
}

void *malloc(size_t n)
{
    return sdk_heap_alloc(the_heap(), n, NULL);
}

void *calloc(size_t count, size_t size)
{
    size_t n;
    bool zero = false;
    if (__builtin_mul_overflow(count, size, &n)) {
        return NULL;
    }
    void *p = sdk_heap_alloc(the_heap(), n, &zero);
    if (p && !zero) {
        memset(p, 0, n);
    }
    return p;
}

void *realloc(void *p, size_t n)
{
    return p ? sdk_heap_resize(the_heap(), p, n) : malloc(n);
}

void free(void *p)
{
    if (!sdk_heap_free(the_heap(), p)) {
        unid_log("free(%p): not an allocated block", p);
        abort();
    }
}

size_t unid_heap_free(void)
{
    return sdk_heap_room(the_heap());
}

char *getenv(const char *name)
{
    const struct unid_boot *b = sdk_boot();
    size_t len = strlen(name);
    char *s = (char *)UNID_STRINGS_ADDR;
    for (uint32_t i = 0; i < b->argc + b->envc; i++) {
        if (i >= b->argc && strncmp(s, name, len) == 0 && s[len] == '=') {
            return s + len + 1;
        }
        s += strlen(s) + 1;
    }
    return NULL;
}

static int digit(char c)
{
    if (isdigit(c)) {
        return c - '0';
    }
    return isalpha(c) ? tolower(c) - 'a' + 10 : 99;
}

/* The magnitude of a number; `*ret_neg` for a minus sign, saturated at ULONG_MAX. */
static unsigned long parse(const char *s, char **ret_end, int base, bool *ret_neg)
{
    const char *start = s;
    while (isspace((unsigned char)*s)) {
        s++;
    }
    *ret_neg = *s == '-';
    if (*s == '-' || *s == '+') {
        s++;
    }
    if ((base == 0 || base == 16) && s[0] == '0' && (s[1] | 0x20) == 'x' && digit(s[2]) < 16) {
        s += 2;
        base = 16;
    } else if (base == 0) {
        base = *s == '0' ? 8 : 10;
    }
    unsigned long value = 0;
    bool any = false, over = false;
    for (; digit(*s) < base; s++) {
        any = true;
        over |= __builtin_mul_overflow(value, (unsigned long)base, &value);
        over |= __builtin_add_overflow(value, (unsigned long)digit(*s), &value);
    }
    if (ret_end) {
        *ret_end = (char *)(any ? s : start);
    }
    return over ? ULONG_MAX : value;
}

unsigned long strtoul(const char *restrict s, char **restrict ret_end, int base)
{
    bool neg;
    unsigned long v = parse(s, ret_end, base, &neg);
    return neg && v != ULONG_MAX ? -v : v;
}

long strtol(const char *restrict s, char **restrict ret_end, int base)
{
    bool neg;
    unsigned long v = parse(s, ret_end, base, &neg);
    if (v > LONG_MAX) {
        return neg ? LONG_MIN : LONG_MAX;
    }
    return neg ? -(long)v : (long)v;
}

int atoi(const char *s)
{
    return (int)strtol(s, NULL, 10);
}
