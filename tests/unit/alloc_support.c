/* alloc_support.c - see alloc_support.h. */
#include "tests/unit/alloc_support.h"

#include <errno.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* More than any flow allocates: what never ends is found. */
enum { ALLOCATIONS_MAX = 20000 };

static atomic_uint countdown; /* 0: nothing fails */
static atomic_bool has_failed, lasting, held;

static bool fails(void)
{
    unsigned left = atomic_load(&held) ? 0 : atomic_load(&countdown);
    while (left > 0) {
        unsigned next = left == 1 && atomic_load(&lasting) ? left : left - 1;
        if (atomic_compare_exchange_weak(&countdown, &left, next)) {
            if (left == 1) {
                atomic_store(&has_failed, true);
                errno = ENOMEM;
            }
            return left == 1;
        }
    }
    return false;
}

void alloc_hold(bool hold)
{
    atomic_store(&held, hold);
}

void alloc_fail_at(unsigned n, bool and_all_after)
{
    atomic_store(&held, false);
    atomic_store(&has_failed, false);
    atomic_store(&lasting, and_all_after);
    atomic_store(&countdown, n);
}

bool alloc_fail_end(void)
{
    atomic_store(&countdown, 0);
    return atomic_load(&has_failed);
}

static void fail_each(const char *name, unsigned step, int (*flow)(void *arg), void *arg,
                      bool and_all_after)
{
    const char *mode = and_all_after ? " and all after it" : "";
    for (unsigned n = 1; n < ALLOCATIONS_MAX; n += step) {
        alloc_fail_at(n, and_all_after);
        int rc = flow(arg);
        bool failed = alloc_fail_end();
        if (rc != 0 && (rc != -ENOMEM || !failed)) {
            fail_msg("%s: with allocation %u%s failing: %s", name, n, mode, strerror(-rc));
        }
        if (!failed) {
            print_message("%s: %u allocations\n", name, n - 1);
            return;
        }
    }
    fail_msg("%s: no end of allocations", name);
}

void alloc_fail_each(const char *name, int (*flow)(void *arg), void *arg)
{
    alloc_fail_every(name, 1, flow, arg);
}

void alloc_fail_every(const char *name, unsigned step, int (*flow)(void *arg), void *arg)
{
    fail_each(name, step, flow, arg, false);
    fail_each(name, step, flow, arg, true);
}

/* --- what the linker puts in place of the C library's ----------------------------------------- */

void *__real_malloc(size_t size);

void *__real_realloc(void *old, size_t size);

char *__real_strndup(const char *s, size_t len);
int __real_vasprintf(char **ret, const char *fmt, va_list ap);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t len);
int __wrap_vasprintf(char **ret, const char *fmt, va_list ap);
int __wrap_asprintf(char **ret, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

char *__wrap_strdup(const char *s)
{
    return fails() ? NULL : __real_strdup(s);
}

char *__wrap_strndup(const char *s, size_t len)
{
    return fails() ? NULL : __real_strndup(s, len);
}

int __wrap_vasprintf(char **ret, const char *fmt, va_list ap)
{
    if (fails()) {
        *ret = NULL; /* glibc leaves it undefined; nobody may look at it */
        return -1;
    }
    return __real_vasprintf(ret, fmt, ap);
}

int __wrap_asprintf(char **ret, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = __wrap_vasprintf(ret, fmt, ap);
    va_end(ap);
    return n;
}

/* As the C library's headers have it with _FORTIFY_SOURCE. */
int __wrap___vasprintf_chk(char **ret, int flag, const char *fmt, va_list ap);
int __wrap___asprintf_chk(char **ret, int flag, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

int __wrap___vasprintf_chk(char **ret, int flag, const char *fmt, va_list ap)
{
    (void)flag;
    return __wrap_vasprintf(ret, fmt, ap);
}

int __wrap___asprintf_chk(char **ret, int flag, const char *fmt, ...)
{
    va_list ap;
    (void)flag;
    va_start(ap, fmt);
    int n = __wrap_vasprintf(ret, fmt, ap);
    va_end(ap);
    return n;
}

/* --- SQLite ----------------------------------------------------------------------------------- */

static sqlite3_mem_methods sqlite_real;

static void *sqlite_malloc(int size)
{
    return fails() ? NULL : sqlite_real.xMalloc(size);
}

static void *sqlite_realloc(void *old, int size)
{
    return fails() ? NULL : sqlite_real.xRealloc(old, size);
}

void alloc_hook_sqlite(void)
{
    sqlite3_mem_methods hooked;
    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &sqlite_real) == SQLITE_OK) {
        hooked = sqlite_real;
        hooked.xMalloc = sqlite_malloc;
        hooked.xRealloc = sqlite_realloc;
        (void)sqlite3_config(SQLITE_CONFIG_MALLOC, &hooked);
    }
}
