/* dense.c - which memory is worth large pages of the host.
 *
 * A fresh page costs a fault of the host's and one of its shadow tables. Where the host has large pages,
 * the first is shared by 512; and where entries say already that their pages were used and written, KVM
 * fills its shadow entries eight at a time (pte_prefetch in Linux's arch/x86/kvm/mmu). But a large page
 * is paid whole for one byte, and what is said to be written must be zeroed when it is given again. So it
 * is for programs that use much, and use what they map: what a request has mapped so far is looked at
 * whenever it has grown by a quarter, until most of it is written. A mapping that is large by itself
 * needs no such proof. Stacks and reservations are never filled (`filled` in struct page_want). */
#include <linux/mman.h>

#include "mm/mm_internal.h"

enum { LOOK_FIRST = 2048, LARGE_AT_ONCE = 2048 /* pages: 8 MiB */ };

static bool dense;
static uint64_t look_next; /* when so many frames were handed out since the mark */

void dense_init(void)
{
    dense = false;
    look_next = LOOK_FIRST;
}

/* Frames that were handed out one by one since the mark, and were written. */
static uint64_t count_written(const struct area *a)
{
    const uint64_t bits = PTE_P | PTE_PRIVATE | PTE_D;
    uint64_t count = 0;
    for (uint64_t at = a->from; at < a->to;) {
        bool large;
        const uint64_t *pte = pte_look(at, &large);
        if (!pte || large) {
            at = (at | (TABLE_SPAN - 1)) + 1;
            continue;
        }
        count += (*pte & bits) == bits && frame_since_mark(*pte & PTE_FRAME);
        at += PAGE_SIZE;
    }
    return count;
}

bool dense_wanted(uint64_t pages)
{
    uint64_t given = frames_since_mark(), written = 0;
    if (dense || given < look_next) {
        return dense || (pages >= LARGE_AT_ONCE && frames_marked());
    }
    look_next = given + given / 4;
    list_for(node, &areas)
    {
        const struct area *a = container_of(node, struct area, node);
        if (!a->file && a->prot & PROT_WRITE) {
            written += count_written(a);
        }
    }
    dense = written >= given / 4 * 3;
    return dense || pages >= LARGE_AT_ONCE;
}
