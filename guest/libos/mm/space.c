/* space.c - which addresses are given out. Each is given once, upwards: there are 94 TiB of them.
 *
 * Anonymous memory that is unmapped is parked: it keeps its frames, and the next mapping that fits is
 * given the same place, so that a program that maps and unmaps does not walk through the address
 * space and fill it with page tables. Where the program chose the place, only its asking for that
 * place again does. When frames run out, parked ones are given back, and their addresses are spent. */
#include "mm/mm_internal.h"

#define PARKED_MAX 64

struct parked {
    uint64_t from, to;
};

static struct parked parked[PARKED_MAX];
static unsigned parked_count;
static uint64_t next_addr;

void space_init(void)
{
    next_addr = MMAP_BASE;
    parked_count = 0;
}

uint64_t space_pick(uint64_t len, uint64_t room)
{
    uint64_t total;
    if (__builtin_add_overflow(len, room, &total) || total > MMAP_END - MMAP_BASE) {
        return 0;
    }
    uint64_t at = next_addr;
    for (;;) {
        const struct area *a = area_find(at);
        if (at > MMAP_END - total) {
            return 0;
        }
        if (a && a->from < at + total) {
            at = a->to;
        } else if (!pages_untouched(at, at + total)) {
            at += TABLE_SPAN;
        } else {
            break;
        }
    }
    next_addr = at + total;
    return at;
}

bool space_gave(uint64_t from, uint64_t to)
{
    return from >= MMAP_BASE && to <= next_addr;
}

static void forget(unsigned i)
{
    parked[i] = parked[--parked_count];
}

void space_park(uint64_t from, uint64_t to)
{
    for (unsigned i = 0; i < parked_count; i++) {
        if (parked[i].to == from || parked[i].from == to) {
            from = parked[i].from < from ? parked[i].from : from;
            to = parked[i].to > to ? parked[i].to : to;
            forget(i--);
        }
    }
    if (parked_count == PARKED_MAX) {
        unsigned least = 0;
        for (unsigned i = 1; i < parked_count; i++) {
            if (parked[i].to - parked[i].from < parked[least].to - parked[least].from) {
                least = i;
            }
        }
        pages_drop(parked[least].from, parked[least].to);
        forget(least);
    }
    parked[parked_count++] = (struct parked){from, to};
}

uint64_t space_unpark(uint64_t len)
{
    struct parked *best = NULL;
    for (unsigned i = 0; i < parked_count; i++) {
        uint64_t size = parked[i].to - parked[i].from;
        bool ours = space_gave(parked[i].from, parked[i].to); /* else the program chose the place */
        if (ours && size >= len && (!best || size < best->to - best->from)) {
            best = &parked[i];
        }
    }
    if (!best) {
        return 0;
    }
    uint64_t at = best->from;
    best->from += len;
    if (best->from == best->to) {
        forget((unsigned)(best - parked));
    }
    return at;
}

void space_claim(uint64_t from, uint64_t to)
{
    for (unsigned i = 0; i < parked_count; i++) {
        struct parked p = parked[i];
        if (p.to <= from || p.from >= to) {
            continue;
        }
        forget(i--);
        if (p.from < from) {
            space_park(p.from, from);
        }
        if (p.to > to) {
            space_park(to, p.to);
        }
    }
}

bool mm_reclaim(void)
{
    uint64_t before = frames_free();
    while (parked_count > 0) {
        parked_count--;
        pages_drop(parked[parked_count].from, parked[parked_count].to);
    }
    return frames_free() > before;
}
