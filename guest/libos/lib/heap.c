/* heap.c - the kernel's heap: blocks of a power of two from frames, larger ones in frames of their
 * own. Each block has a head in front, which says where it goes back to. Small blocks' frames are
 * kept; under LIBOS_HOSTED the C library's heap takes its place, for the sanitizers. */
#include "kernel.h"
#include "mm.h"

#ifdef LIBOS_HOSTED
#include <stdlib.h>

void *kalloc(size_t size)
{
    return calloc(1, size ? size : 1);
}

void kfree(void *p)
{
    free(p);
}
#else

#define CLASS_MIN  5  /* 32 bytes */
#define CLASS_MAX  11 /* 2048 bytes */
#define HEAD_MAGIC 0x6b616c6cu

struct head {
    uint32_t magic;
    uint32_t size_class; /* CLASS_*; above CLASS_MAX: the number of frames plus CLASS_MAX */
    struct head *next;   /* on the free list */
};

static struct head *free_blocks[CLASS_MAX + 1];

static struct head *large_alloc(size_t size)
{
    uint64_t pages = page_up(size) / PAGE_SIZE;
    uint64_t phys = frame_alloc_many(pages);
    if (!phys) {
        return NULL;
    }
    struct head *h = phys_to_virt(phys);
    h->size_class = (uint32_t)pages + CLASS_MAX;
    return h;
}

static struct head *small_alloc(unsigned size_class)
{
    if (!free_blocks[size_class]) {
        uint64_t phys = frame_alloc();
        if (!phys) {
            return NULL;
        }
        char *page = phys_to_virt(phys);
        for (size_t at = PAGE_SIZE; at > 0;) {
            at -= 1ull << size_class;
            struct head *h = (void *)(page + at);
            h->next = free_blocks[size_class];
            free_blocks[size_class] = h;
        }
    }
    struct head *h = free_blocks[size_class];
    free_blocks[size_class] = h->next;
    h->next = NULL;
    h->size_class = size_class;
    return h;
}

void *kalloc(size_t size)
{
    if (size > UINT32_MAX) {
        return NULL;
    }
    size += sizeof(struct head);
    unsigned size_class = CLASS_MIN;
    while (size_class <= CLASS_MAX && 1ull << size_class < size) {
        size_class++;
    }
    struct head *h = size_class > CLASS_MAX ? large_alloc(size) : small_alloc(size_class);
    if (!h) {
        return NULL;
    }
    h->magic = HEAD_MAGIC;
    return h + 1;
}

void kfree(void *p)
{
    if (!p) {
        return;
    }
    struct head *h = (struct head *)p - 1;
    if (h->magic != HEAD_MAGIC) {
        kpanic("kfree of what is no block");
    }
    h->magic = 0;
    if (h->size_class > CLASS_MAX) {
        uint64_t phys = virt_to_phys(h);
        for (uint64_t n = h->size_class - CLASS_MAX; n > 0; n--, phys += PAGE_SIZE) {
            frame_free(phys);
        }
        return;
    }
    memset(h + 1, 0, (1ull << h->size_class) - sizeof(*h));
    h->next = free_blocks[h->size_class];
    free_blocks[h->size_class] = h;
}
#endif
