/* asan_fork.c - lets a program that is built with AddressSanitizer run libvirt.
 *
 * libvirt allocates between fork and exec. glibc's malloc allows that: it takes its locks before a fork. GCC 12's
 * AddressSanitizer does not, and the child waits for ever for a lock whose holder it does not have. So nobody is within
 * the allocator while the process forks: who allocates holds the lock below for reading, who forks for writing. The
 * executable's definitions go before the sanitizer's, which are called by their other names
 * (sanitizer/asan_interface.h does not have them).
 *
 * In other builds there is nothing here.
 */
#if defined(__SANITIZE_ADDRESS__)

#include <pthread.h>
#include <stddef.h>

static pthread_rwlock_t forks = PTHREAD_RWLOCK_INITIALIZER;

/* Before those of all libraries: handlers are called the last first before a fork. */
static void before(void)
{
    pthread_rwlock_wrlock(&forks);
}

static void after(void)
{
    pthread_rwlock_unlock(&forks);
}

static void in_child(void)
{
    forks = (pthread_rwlock_t)PTHREAD_RWLOCK_INITIALIZER;
}

__attribute__((constructor(101))) static void install(void)
{
    pthread_atfork(before, after, in_child);
}

/* The thread that forks has the lock already (EDEADLK), and needs no other. */
#define GUARDED(type, name, parameters, arguments)                                                 \
    type __interceptor_##name parameters;                                                          \
    type name parameters;                                                                          \
    type name parameters                                                                           \
    {                                                                                              \
        int rc = pthread_rwlock_rdlock(&forks);                                                    \
        type ret = __interceptor_##name arguments;                                                 \
        if (rc == 0) {                                                                             \
            pthread_rwlock_unlock(&forks);                                                         \
        }                                                                                          \
        return ret;                                                                                \
    }

GUARDED(void *, malloc, (size_t size), (size))
GUARDED(void *, calloc, (size_t count, size_t size), (count, size))
GUARDED(void *, realloc, (void *p, size_t size), (p, size))
GUARDED(void *, reallocarray, (void *p, size_t count, size_t size), (p, count, size))
GUARDED(void *, memalign, (size_t align, size_t size), (align, size))
GUARDED(void *, aligned_alloc, (size_t align, size_t size), (align, size))
GUARDED(int, posix_memalign, (void **p, size_t align, size_t size), (p, align, size))

/* What the dynamic linker keeps the sanitizer knows by who called malloc, which is this file now. */
__attribute__((weak)) const char *__lsan_default_suppressions(void);
__attribute__((weak)) const char *__lsan_default_suppressions(void)
{
    return "leak:ld-linux-x86-64.so\n";
}

void __interceptor_free(void *p);
void free(void *p);
void free(void *p)
{
    int rc = pthread_rwlock_rdlock(&forks);
    __interceptor_free(p);
    if (rc == 0) {
        pthread_rwlock_unlock(&forks);
    }
}

#else

typedef int asan_fork_is_empty;

#endif
