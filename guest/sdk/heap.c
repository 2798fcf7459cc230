/* heap.c - a small allocator with boundary tags. Knows nothing of the machine.
 *
 *     | size, size of the one before | payload ... | size, ... | payload ... |      top ... end
 *
 * Free neighbours are joined at once (Knuth, The Art of Computer Programming, vol. 1, section 2.5,
 * algorithm C), so no two free blocks stand side by side and none right below top. Free blocks hang
 * in lists by the power of two of their size; a block of any higher list fits for certain. Memory
 * above `top` is not touched before it is needed. Headers carry a check value: a header that was
 * overwritten, and a block that is freed twice, are found.
 */
#include "sdk.h"

#include <string.h>

#define ALIGN ((size_t)16)
#define USED  UINT64_C(0x1)
#define CHECK UINT64_C(0xb10c)
#define SCAN  16 /* blocks of the fitting list that are looked at before a larger list is taken */

struct sdk_block {
    uint64_t size_bits;     /* payload bytes << 16 | check value; the low bit of the size: in use */
    struct sdk_block *prev; /* the block right below, NULL for the first */
    struct sdk_block *list_next, *list_back; /* free blocks: these two lie in the payload */
};
#define HEADER offsetof(struct sdk_block, list_next)

static size_t size_of(const struct sdk_block *b)
{
    return (size_t)(b->size_bits >> 16 & ~USED);
}

static bool in_use(const struct sdk_block *b)
{
    return b->size_bits >> 16 & USED;
}

static void set(struct sdk_block *b, size_t size, bool used)
{
    b->size_bits = ((uint64_t)size | (used ? USED : 0)) << 16 | CHECK;
}

static uint8_t *payload(struct sdk_block *b)
{
    return (uint8_t *)b + HEADER;
}

static struct sdk_block *block_of(void *p)
{
    return (struct sdk_block *)(void *)((uint8_t *)p - HEADER);
}

/* The block right above, NULL when that is top. */
static struct sdk_block *above(const struct sdk_heap *h, struct sdk_block *b)
{
    uint8_t *end = payload(b) + size_of(b);
    return end == h->top ? NULL : (struct sdk_block *)(void *)end;
}

static unsigned bin_of(size_t size)
{
    unsigned log = 63u - (unsigned)__builtin_clzll((unsigned long long)size);
    return log < SDK_HEAP_BINS ? log : SDK_HEAP_BINS - 1;
}

static void list_add(struct sdk_heap *h, struct sdk_block *b)
{
    struct sdk_block **head = &h->bins[bin_of(size_of(b))];
    b->list_back = NULL;
    b->list_next = *head;
    if (*head) {
        (*head)->list_back = b;
    }
    *head = b;
}

static void list_remove(struct sdk_heap *h, struct sdk_block *b)
{
    if (b->list_back) {
        b->list_back->list_next = b->list_next;
    } else {
        h->bins[bin_of(size_of(b))] = b->list_next;
    }
    if (b->list_next) {
        b->list_next->list_back = b->list_back;
    }
}

/* Payload size for a request: a multiple of 16 with room for the list's pointers; 0 when absurd. */
static size_t round_size(size_t n)
{
    if (n > SIZE_MAX >> 17) {
        return 0;
    }
    return n < ALIGN ? ALIGN : (n + ALIGN - 1) & ~(ALIGN - 1);
}

void sdk_heap_init(struct sdk_heap *h, void *start, void *end)
{
    memset(h, 0, sizeof(*h));
    h->top = h->fresh = start;
    h->end = end;
}

static struct sdk_block *find(struct sdk_heap *h, size_t size)
{
    unsigned bin = bin_of(size);
    int looked = 0;
    for (struct sdk_block *b = h->bins[bin]; b && looked < SCAN; b = b->list_next, looked++) {
        if (size_of(b) >= size) {
            return b;
        }
    }
    while (++bin < SDK_HEAP_BINS) {
        if (h->bins[bin]) {
            /* Only the last list mixes sizes without an upper bound, and no machine is that large.
             */
            return h->bins[bin];
        }
    }
    return NULL;
}

/* Puts the bytes of a used block behind `size` back, when they make a block. */
static void trim(struct sdk_heap *h, struct sdk_block *b, size_t size)
{
    if (size_of(b) - size < HEADER + ALIGN) {
        return;
    }
    struct sdk_block *next = above(h, b), *rest = (struct sdk_block *)(void *)(payload(b) + size);
    set(rest, size_of(b) - size - HEADER, true);
    rest->prev = b;
    set(b, size, true);
    if (next) {
        next->prev = rest;
    } else {
        h->last = rest;
    }
    sdk_heap_free(h, payload(rest));
}

static struct sdk_block *take_top(struct sdk_heap *h, size_t size)
{
    if ((size_t)(h->end - h->top) < HEADER || (size_t)(h->end - h->top) - HEADER < size) {
        return NULL;
    }
    struct sdk_block *b = (struct sdk_block *)(void *)h->top;
    b->prev = h->last;
    set(b, size, true);
    h->last = b;
    h->top = payload(b) + size;
    return b;
}

void *sdk_heap_alloc(struct sdk_heap *h, size_t n, bool *ret_zero)
{
    size_t size = round_size(n);
    bool zero = false;
    struct sdk_block *b = size ? find(h, size) : NULL;
    if (b) {
        list_remove(h, b);
        set(b, size_of(b), true);
        trim(h, b, size);
    } else {
        zero = h->top >= h->fresh;
        b = size ? take_top(h, size) : NULL;
        if (!b) {
            return NULL;
        }
        h->fresh = h->top > h->fresh ? h->top : h->fresh;
    }
    if (ret_zero) {
        *ret_zero = zero;
    }
    return payload(b);
}

static bool valid(struct sdk_block *b)
{
    return (b->size_bits & 0xffff) == CHECK && in_use(b);
}

bool sdk_heap_free(struct sdk_heap *h, void *p)
{
    if (!p) {
        return true;
    }
    struct sdk_block *b = block_of(p);
    if ((uintptr_t)p % ALIGN || (uint8_t *)p >= h->top || !valid(b)) {
        return false;
    }
    size_t size = size_of(b);
    struct sdk_block *next = above(h, b);
    set(b, size, false); /* also where it is joined to the one below: a second free is found */
    if (next && !in_use(next)) {
        list_remove(h, next);
        size += HEADER + size_of(next);
        next = above(h, next);
    }
    if (b->prev && !in_use(b->prev)) {
        b = b->prev;
        list_remove(h, b);
        size += HEADER + size_of(b);
    }
    set(b, size, false);
    if (!next) {
        h->top = (uint8_t *)b;
        h->last = b->prev;
        return true;
    }
    next->prev = b;
    list_add(h, b);
    return true;
}

/* Grows a used block in place, over a free neighbour or into top; false when that cannot be. */
static bool grow(struct sdk_heap *h, struct sdk_block *b, size_t size)
{
    struct sdk_block *next = above(h, b);
    if (!next) {
        if ((size_t)(h->end - payload(b)) < size) {
            return false;
        }
        set(b, size, true);
        h->top = payload(b) + size;
        h->fresh = h->top > h->fresh ? h->top : h->fresh;
        return true;
    }
    if (in_use(next) || size_of(b) + HEADER + size_of(next) < size) {
        return false;
    }
    list_remove(h, next);
    set(b, size_of(b) + HEADER + size_of(next), true);
    next = above(h, b);
    if (next) {
        next->prev = b;
    } else {
        h->last = b;
    }
    trim(h, b, size);
    return true;
}

void *sdk_heap_resize(struct sdk_heap *h, void *p, size_t n)
{
    struct sdk_block *b = block_of(p);
    size_t size = round_size(n);
    if (!size) {
        return NULL;
    }
    if (size <= size_of(b)) {
        trim(h, b, size);
        return p;
    }
    if (grow(h, b, size)) {
        return p;
    }
    void *moved = sdk_heap_alloc(h, n, NULL);
    if (moved) {
        memcpy(moved, p, size_of(b));
        sdk_heap_free(h, p);
    }
    return moved;
}

size_t sdk_heap_room(const struct sdk_heap *h)
{
    size_t room = (size_t)(h->end - h->top);
    return room > HEADER ? room - HEADER : 0;
}
