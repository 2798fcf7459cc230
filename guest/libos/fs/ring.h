/* ring.h - a bounded queue of bytes in pages taken as it fills: pipes and byte sockets. */
#ifndef LIBOS_RING_H
#define LIBOS_RING_H

#include "kernel.h"

#define RING_PAGES 16
#define RING_SIZE  (RING_PAGES * PAGE_SIZE)

struct ring {
    uint64_t head; /* of the next byte to read; offset modulo RING_SIZE */
    uint64_t len;
    char *pages[RING_PAGES];
};

/* The number of bytes that found room; less than asked when it is full or memory is used up. */
size_t ring_write(struct ring *r, const void *from, size_t len);
size_t ring_read(struct ring *r, void *to, size_t len, bool peek);
void ring_skip(struct ring *r, size_t len); /* as if they had been read */
void ring_free(struct ring *r);             /* its pages */
static inline size_t ring_room(const struct ring *r)
{
    return RING_SIZE - r->len;
}

#endif
