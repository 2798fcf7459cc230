/* dense.c - which memory the host is asked to fill ahead, in whole pieces (host_fill).
 *
 * A fresh page that is touched costs a fault of the host's and one of its shadow tables. Of a piece that is
 * asked for whole the first costs a fraction, and where the host's page is there and the entry says that
 * it was used and written, KVM fills its shadow entries eight at a time (pte_prefetch in Linux's
 * arch/x86/kvm/mmu). But what is filled is paid, and what is said to be written is zeroed when it is given
 * again. So it is for programs that use much and use what they map: what a request has mapped so far is
 * looked at whenever it has grown by a quarter, until most of it is written. Then each mapping that is
 * small beside that is filled. Stacks and reservations never are (`filled` in struct page_want). */
#include <linux/mman.h>

#include "mm/mm_internal.h"

enum { LOOK_FIRST = 2048 /* pages: 8 MiB */ };

static bool dense;
static uint64_t look_next; /* when so many frames were handed out since the mark */

void dense_init(void)
{
    dense = false;
    look_next = LOOK_FIRST;
}

static int count_written(void *arg, uint64_t addr, uint64_t *pte)
{
    (void)addr;
    uint64_t *count = arg;
    if (*pte & PTE_P && *pte & PTE_PRIVATE && *pte & PTE_D && frame_since_mark(*pte & PTE_FRAME)) {
        ++*count;
    }
    return 0;
}

bool dense_wanted(uint64_t pages)
{
    uint64_t given = frames_since_mark(), written = 0;
    if (!dense && given >= look_next) {
        look_next = given + given / 4;
        list_for (node, &areas) {
            const struct area *a = container_of(node, struct area, node);
            if (!a->file && a->prot & PROT_WRITE) {
                pte_for_each(a->from, a->to, count_written, &written);
            }
        }
        dense = written >= given / 4 * 3;
    }
    return dense && pages <= given / 2;
}
