/* stdlib.h - the guest SDK's part of ISO C 7.22. */
#ifndef UNID_LIBC_STDLIB_H
#define UNID_LIBC_STDLIB_H

#include <stddef.h>

#define EXIT_SUCCESS 0
#define EXIT_FAILURE 1

/* 16-byte aligned; NULL when the memory is used up. Untouched memory costs nothing. */
void *malloc(size_t n);
void *calloc(size_t count, size_t size);
void *realloc(void *p, size_t n);
void free(void *p);

void exit(int status) __attribute__((noreturn));
void abort(void) __attribute__((noreturn)); /* exit status 134, as a shell shows SIGABRT */
char *getenv(const char *name);

int atoi(const char *s);
long strtol(const char *restrict s, char **restrict ret_end, int base);
unsigned long strtoul(const char *restrict s, char **restrict ret_end, int base);

static inline int abs(int n)
{
    return n < 0 ? -n : n;
}

#endif
