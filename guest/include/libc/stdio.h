/* stdio.h - the guest SDK's part of ISO C 7.21. Standard output is the response's body.
 * Conversions: d i u x X o c s p %, with flags, width, precision and the lengths hh h l ll z j t;
 * no floating point. */
#ifndef UNID_LIBC_STDIO_H
#define UNID_LIBC_STDIO_H

#include <stdarg.h>
#include <stddef.h>

#define EOF (-1)

int snprintf(char *restrict buf, size_t size, const char *restrict fmt, ...)
    __attribute__((format(printf, 3, 4)));
int vsnprintf(char *restrict buf, size_t size, const char *restrict fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));
int printf(const char *restrict fmt, ...) __attribute__((format(printf, 1, 2)));
int puts(const char *s);
int putchar(int c);

#endif
