/* cleanup.h - scope-exit release and the steal macro.
 *
 * `un_autofree char *s = ...` frees s when the scope ends; `return un_steal(&s)` hands it out
 * instead. Other types declare their own: `__attribute__((cleanup(x_freep)))` through
 * UN_DEFINE_CLEANUP.
 */
#ifndef UNID_COMMON_CLEANUP_H
#define UNID_COMMON_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

static inline void un_freep(void *p)
{
    free(*(void **)p);
}

static inline void un_closep(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

#define un_autofree  __attribute__((cleanup(un_freep)))
#define un_autoclose __attribute__((cleanup(un_closep)))

/* Defines `func##p`, for `__attribute__((cleanup(func##p))) type *x`. `func` must accept NULL. */
#define UN_DEFINE_CLEANUP(type, func)                                                              \
    static inline void func##p(type **p)                                                           \
    {                                                                                              \
        func(*p);                                                                                  \
    }

/* Takes the pointer out of a variable and leaves NULL. */
#define un_steal(pp)                                                                               \
    ({                                                                                             \
        __typeof__(*(pp)) stolen_ = *(pp);                                                         \
        *(pp) = NULL;                                                                              \
        stolen_;                                                                                   \
    })

/* Takes the descriptor out of a variable and leaves -1. */
static inline int un_steal_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

#define UN_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define un_container_of(ptr, type, member)                                                         \
    ((type *)((char *)(1 ? (ptr) : &((type *)0)->member) - offsetof(type, member)))

#endif
