/* pagetable.c - the four levels of tables (AMD APM vol. 2, section 5.3). Tables are added, never
 * taken away: the processor may remember where they are. */
#include <linux/mman.h>

#include "mm/mm_internal.h"

static uint64_t root;

void pagetable_init(uint64_t at)
{
    root = at;
}

uint64_t *pte_find(uint64_t addr, bool create, uint64_t *ret_next)
{
    uint64_t table = root;
    for (int shift = 39;; shift -= 9) {
        uint64_t *entry = (uint64_t *)phys_to_virt(table) + (addr >> shift & 511);
        if (shift == 12) {
            return entry;
        }
        if (!(*entry & PTE_P)) {
            if (!create) {
                if (ret_next) {
                    *ret_next = ((addr >> shift) + 1) << shift;
                }
                return NULL;
            }
            uint64_t frame = frame_alloc();
            if (!frame) {
                return NULL;
            }
            *entry = frame | PTE_P | PTE_W | PTE_U;
        }
        table = *entry & PTE_FRAME;
    }
}

int pte_for_each(uint64_t from, uint64_t to, int (*each)(void *arg, uint64_t addr, uint64_t *pte),
                 void *arg)
{
    while (from < to) {
        uint64_t next;
        uint64_t *pte = pte_find(from, false, &next);
        if (!pte) {
            from = next;
            continue;
        }
        do {
            int r = each(arg, from, pte);
            if (r < 0) {
                return r;
            }
            from += PAGE_SIZE;
            pte++;
        } while (from < to && from % TABLE_SPAN != 0);
    }
    return 0;
}

uint64_t pte_bits(int prot)
{
    if (!(prot & (PROT_READ | PROT_WRITE | PROT_EXEC))) {
        return PTE_NX;
    }
    return PTE_P | PTE_U | (prot & PROT_WRITE ? PTE_W : 0) | (prot & PROT_EXEC ? 0 : PTE_NX);
}

/* Whether all pages of [p, p + len) have these bits. */
static bool user_has(uint64_t p, uint64_t len, uint64_t bits)
{
    if (len == 0) {
        return true;
    }
    uint64_t end;
    if (p < USER_MIN || __builtin_add_overflow(p, len, &end) || end > USER_END) {
        return false;
    }
    p = page_down(p);
    while (p < end) {
        const uint64_t *pte = pte_find(p, false, NULL);
        if (!pte) {
            return false;
        }
        do {
            if ((*pte & bits) != bits) {
                return false;
            }
            p += PAGE_SIZE;
            pte++;
        } while (p < end && p % TABLE_SPAN != 0);
    }
    return true;
}

bool user_readable(const void *p, uint64_t len)
{
    return user_has((uint64_t)p, len, PTE_P);
}

bool user_writable(void *p, uint64_t len)
{
    return user_has((uint64_t)p, len, PTE_P | PTE_W);
}

int64_t user_strlen(const char *p, size_t max)
{
    for (size_t len = 0; len < max;) {
        size_t part = PAGE_SIZE - ((uint64_t)(p + len) & PAGE_MASK);
        if (!user_readable(p + len, 1)) {
            return -EFAULT;
        }
        for (; part > 0 && len < max; part--, len++) {
            if (p[len] == '\0') {
                return (int64_t)len;
            }
        }
    }
    return -ENAMETOOLONG;
}
