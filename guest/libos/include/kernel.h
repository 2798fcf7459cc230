/* kernel.h - what every part of the library OS uses: types, errors, log, lists, pages.
 *
 * The library OS is a small kernel without privilege: one address space, one CPU, no interrupts. It
 * runs when the program calls it (sys/entry.S) and gives the CPU to another task only where a call
 * blocks, so its data needs no locks. System calls return a value >= 0 or a negative Linux errno.
 *
 * The system call NAME is the function `int64_t sys_NAME(...)`, with up to six arguments of its own
 * types (32-bit ones may have anything in the upper half of their register). Defining it is all that
 * it takes: sys/table.S refers to every name weakly; what nobody defines is ENOSYS, and counted.
 *
 * Freestanding; compiled a second time for the host with LIBOS_HOSTED, where memory is a plain
 * buffer and the host calls are a test's, so that cmocka can drive each part.
 */
#ifndef LIBOS_KERNEL_H
#define LIBOS_KERNEL_H

#include <linux/errno.h> /* constants and structs of the kernel's ABI: the uapi headers (linux-libc-dev) */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "unid/abi.h"
#include "unid/rootfs.h"

#define HOST_NAME     "unid"       /* uname, /proc, /etc/hosts */
#define LINUX_RELEASE "6.1.0-unid" /* the kernel whose ABI is followed: uname, /proc */

#define PAGE_SIZE                     4096ull
#define PAGE_MASK                     (PAGE_SIZE - 1)
#define ARRAY_SIZE(a)                 (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

static inline uint64_t page_down(uint64_t v)
{
    return v & ~PAGE_MASK;
}
static inline uint64_t page_up(uint64_t v)
{
    return (v + PAGE_MASK) & ~PAGE_MASK;
}

/* Doubly linked ring, as in common/list.h of the host. */
struct list {
    struct list *next, *prev;
};
static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
static inline void list_add_tail(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}
static inline void list_del(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}
#define list_for(pos, head) for (struct list *pos = (head)->next; pos != (head); pos = pos->next)

/* lib/ - memory and strings (memcpy is rep movsb: general registers only), numbers to text. */
void *memcpy(void *to, const void *from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
/* %s %.*s %d %u %x %ld %lu %lx %c %%; always NUL-terminated; gives the length it would have. */
int kvformat(char *to, size_t size, const char *format, __builtin_va_list args);
int kformat(char *to, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The kernel's heap, from frames; zeroed. NULL when memory is used up. */
void *kalloc(size_t size);
void kfree(void *p);

/* One line to the guest's log, where an operator reads it ("libos: ..."). */
void klog(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A state that cannot be: logs and ends the machine with status 127. */
_Noreturn void kpanic(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
