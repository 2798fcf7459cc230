/* ring.c - a bounded queue of bytes. */
#include "fs/ring.h"

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t ring_write(struct ring *r, const void *from, size_t len)
{
    size_t done = 0;
    len = least(len, ring_room(r));
    while (done < len) {
        uint64_t at = (r->head + r->len) % RING_SIZE;
        char **page = &r->pages[at / PAGE_SIZE];
        if (!*page && !(*page = kalloc(PAGE_SIZE))) {
            break;
        }
        size_t part = least(len - done, PAGE_SIZE - at % PAGE_SIZE);
        memcpy(*page + at % PAGE_SIZE, (const char *)from + done, part);
        r->len += part;
        done += part;
    }
    return done;
}

size_t ring_read(struct ring *r, void *to, size_t len, bool peek)
{
    size_t done = 0;
    len = least(len, r->len);
    while (done < len) {
        uint64_t at = (r->head + done) % RING_SIZE;
        size_t part = least(len - done, PAGE_SIZE - at % PAGE_SIZE);
        memcpy((char *)to + done, r->pages[at / PAGE_SIZE] + at % PAGE_SIZE, part);
        done += part;
    }
    if (!peek) {
        ring_skip(r, done);
    }
    return done;
}

void ring_skip(struct ring *r, size_t len)
{
    len = least(len, r->len);
    r->head = (r->head + len) % RING_SIZE;
    r->len -= len;
    if (!r->len) {
        r->head = 0; /* small traffic stays in the first page */
    }
}

void ring_free(struct ring *r)
{
    for (size_t n = 0; n < RING_PAGES; n++) {
        kfree(r->pages[n]);
        r->pages[n] = NULL;
    }
    r->len = r->head = 0;
}
