/* string.c - memory and strings. Large copies go by 16 bytes (SSE2 is there on every x86-64); the
 * compiler is told (-fno-tree-loop-distribute-patterns) not to make calls of these functions out of
 * their own loops. */
#include <string.h>

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>

typedef long long vec __attribute__((vector_size(16), aligned(1), may_alias));
typedef char bytes16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint64_t word __attribute__((aligned(1), may_alias));

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    for (; n >= 64; n -= 64, t += 64, f += 64) {
        vec a = *(const vec *)f, b = *(const vec *)(f + 16), c = *(const vec *)(f + 32),
            d = *(const vec *)(f + 48);
        *(vec *)t = a;
        *(vec *)(t + 16) = b;
        *(vec *)(t + 32) = c;
        *(vec *)(t + 48) = d;
    }
    for (; n >= 8; n -= 8, t += 8, f += 8) {
        *(word *)t = *(const word *)f;
    }
    for (; n > 0; n--) {
        *t++ = *f++;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t n)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    if ((uintptr_t)t - (uintptr_t)f >= n) {
        /* Below, or apart: upwards is right; every load is in front of the stores that reach it. */
        for (; n >= 16; n -= 16, t += 16, f += 16) {
            *(vec *)t = *(const vec *)f;
        }
        for (; n > 0; n--) {
            *t++ = *f++;
        }
        return to;
    }
    for (; n >= 16; n -= 16) {
        *(vec *)(t + n - 16) = *(const vec *)(f + n - 16);
    }
    for (; n > 0; n--) {
        t[n - 1] = f[n - 1];
    }
    return to;
}

void *memset(void *to, int c, size_t n)
{
    uint8_t *t = to;
    uint64_t w = 0x0101010101010101u * (uint8_t)c;
    vec v = {(long long)w, (long long)w};
    for (; n >= 16; n -= 16, t += 16) {
        *(vec *)t = v;
    }
    for (; n > 0; n--) {
        *t++ = (uint8_t)c;
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    for (; n >= 8 && *(const word *)x == *(const word *)y; n -= 8, x += 8, y += 8) {
    }
    for (; n > 0; n--, x++, y++) {
        if (*x != *y) {
            return *x < *y ? -1 : 1;
        }
    }
    return 0;
}

void *memchr(const void *s, int c, size_t n)
{
    const uint8_t *p = s;
    char ch = (char)c;
    bytes16 want = {ch, ch, ch, ch, ch, ch, ch, ch, ch, ch, ch, ch, ch, ch, ch, ch};
    for (; n >= 16; n -= 16, p += 16) {
        bytes16 eq = *(const bytes16 *)p == want;
        int mask = __builtin_ia32_pmovmskb128(eq);
        if (mask) {
            return (void *)(p + __builtin_ctz((unsigned)mask));
        }
    }
    for (; n > 0; n--, p++) {
        if (*p == (uint8_t)c) {
            return (void *)p;
        }
    }
    return NULL;
}

size_t strlen(const char *s)
{
    const char *p = s;
    while (*p) {
        p++;
    }
    return (size_t)(p - s);
}

size_t strnlen(const char *s, size_t max)
{
    size_t n = 0;
    while (n < max && s[n]) {
        n++;
    }
    return n;
}

int strcmp(const char *a, const char *b)
{
    for (; *a && *a == *b; a++, b++) {
    }
    return (unsigned char)*a - (unsigned char)*b;
}

int strncmp(const char *a, const char *b, size_t n)
{
    for (; n > 0 && *a && *a == *b; a++, b++, n--) {
    }
    return n == 0 ? 0 : (unsigned char)*a - (unsigned char)*b;
}

int strcasecmp(const char *a, const char *b)
{
    return strncasecmp(a, b, SIZE_MAX);
}

int strncasecmp(const char *a, const char *b, size_t n)
{
    for (; n > 0 && *a && tolower((unsigned char)*a) == tolower((unsigned char)*b); a++, b++, n--) {
    }
    return n == 0 ? 0 : tolower((unsigned char)*a) - tolower((unsigned char)*b);
}

char *strchr(const char *s, int c)
{
    for (;; s++) {
        if (*s == (char)c) {
            return (char *)s;
        }
        if (!*s) {
            return NULL;
        }
    }
}

char *strrchr(const char *s, int c)
{
    const char *found = NULL;
    for (;; s++) {
        if (*s == (char)c) {
            found = s;
        }
        if (!*s) {
            return (char *)found;
        }
    }
}

char *strstr(const char *s, const char *want)
{
    size_t n = strlen(want);
    for (;; s++) {
        if (strncmp(s, want, n) == 0) {
            return (char *)s;
        }
        if (!*s) {
            return NULL;
        }
    }
}

size_t strspn(const char *s, const char *set)
{
    size_t n = 0;
    while (s[n] && strchr(set, s[n])) {
        n++;
    }
    return n;
}

size_t strcspn(const char *s, const char *set)
{
    size_t n = 0;
    while (s[n] && !strchr(set, s[n])) {
        n++;
    }
    return n;
}

char *strcpy(char *restrict to, const char *restrict from)
{
    memcpy(to, from, strlen(from) + 1);
    return to;
}

char *strncpy(char *restrict to, const char *restrict from, size_t n)
{
    size_t len = strnlen(from, n);
    memcpy(to, from, len);
    memset(to + len, 0, n - len);
    return to;
}

char *strcat(char *restrict to, const char *restrict from)
{
    strcpy(to + strlen(to), from);
    return to;
}

char *strdup(const char *s)
{
    size_t size = strlen(s) + 1;
    char *copy = malloc(size);
    return copy ? memcpy(copy, s, size) : NULL;
}
