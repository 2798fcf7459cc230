/* pagetable.c - the four levels of tables (AMD APM vol. 2, section 5.3). Tables are added, never
 * taken away: the processor may remember where they are.
 *
 * Where a file's own frames fill a table, one after the other, and nobody has looked there yet, the entry above
 * leads to all 2 MiB of them at once: otherwise each page costs a fault of the host in every clone. The table is kept,
 * for those who only read entries, and comes back when one of them is to change; the TLB is then flushed, or it would
 * know what is no more. A host that learns what a clone touches puts a table of its own, of the same entries, in the
 * place of such a leaf. */
#include <linux/mman.h>

#include "host.h"
#include "mm/mm_internal.h"

#define PTE_LARGE    (1ull << 7) /* of an entry of level 2: it is a leaf */
#define TABLE_RIGHTS (PTE_P | PTE_W | PTE_U)
#define ENTRIES      512
#define LARGE_MAX    64

static uint64_t root;
static struct {
    uint64_t *entry, table;
} large[LARGE_MAX]; /* leaves of 2 MiB, and the tables that stood there */
static unsigned large_count;

void pagetable_init(uint64_t at)
{
    root = at;
    large_count = 0;
}

/* --- leaves of 2 MiB -------------------------------------------------------------------------- */

/* Whether a present entry of level 2 leads to no table of ours. */
static bool is_large(uint64_t entry)
{
    return entry & PTE_LARGE || (entry & PTE_FRAME) < UNID_BOOT_ADDR;
}

static unsigned large_find(const uint64_t *entry)
{
    unsigned i = 0;
    while (i < large_count && large[i].entry != entry) {
        i++;
    }
    if (i == large_count) {
        kpanic("no table for the entry %lx", *entry);
    }
    return i;
}

static void large_part(uint64_t *entry)
{
    unsigned i = large_find(entry);
    bool known = *entry & PTE_A;
    *entry = large[i].table | TABLE_RIGHTS;
    large[i] = large[--large_count];
    if (known) {
        host_flush();
    }
}

/* Whether the table's pages are a file's, one after the other from a boundary of 2 MiB on, that nobody can write. A
 * program that may execute one of them may then execute all. */
static bool can_join(const uint64_t *table, uint64_t *ret_leaf)
{
    uint64_t first = table[0] & ~PTE_NX, nx = PTE_NX;
    if ((first & ~PTE_FRAME) != (PTE_P | PTE_U) || first & PTE_FRAME & (TABLE_SPAN - 1)) {
        return false;
    }
    for (unsigned i = 0; i < ENTRIES; i++) {
        if ((table[i] & ~PTE_NX) != first + i * PAGE_SIZE) {
            return false;
        }
        nx &= table[i];
    }
    *ret_leaf = first | nx | PTE_LARGE;
    return true;
}

/* --- tables ----------------------------------------------------------------------------------- */

static uint64_t *entry_at(uint64_t table, uint64_t addr, int shift)
{
    return (uint64_t *)phys_to_virt(table & PTE_FRAME) + (addr >> shift & (ENTRIES - 1));
}

/* The entry of level 2 for `addr`, present; otherwise as pte_find. */
static uint64_t *find_large(uint64_t addr, bool create, uint64_t *ret_next)
{
    uint64_t table = root;
    for (int shift = 39;; shift -= 9) {
        uint64_t *entry = entry_at(table, addr, shift);
        if (!(*entry & PTE_P)) {
            uint64_t frame = create ? frame_alloc() : 0;
            if (!create && ret_next) {
                *ret_next = ((addr >> shift) + 1) << shift;
            }
            if (!frame) {
                return NULL;
            }
            *entry = frame | TABLE_RIGHTS;
        }
        if (shift == 21) {
            return entry;
        }
        table = *entry;
    }
}

uint64_t *pte_find(uint64_t addr, bool create, uint64_t *ret_next)
{
    uint64_t *entry = find_large(addr, create, ret_next);
    if (entry && is_large(*entry)) {
        large_part(entry);
    }
    return entry ? entry_at(*entry, addr, 12) : NULL;
}

const uint64_t *pte_look(uint64_t addr)
{
    const uint64_t *entry = find_large(addr, false, NULL);
    if (!entry) {
        return NULL;
    }
    return entry_at(is_large(*entry) ? large[large_find(entry)].table : *entry, addr, 12);
}

void pte_join(uint64_t from, uint64_t to)
{
    from = host_flushes() ? from & ~(TABLE_SPAN - 1) : to;
    for (; from + TABLE_SPAN <= to; from += TABLE_SPAN) {
        uint64_t *entry = find_large(from, false, NULL), leaf;
        if (entry && !is_large(*entry) && !(*entry & PTE_A) && large_count < LARGE_MAX &&
            can_join(phys_to_virt(*entry & PTE_FRAME), &leaf)) {
            large[large_count].entry = entry;
            large[large_count++].table = *entry & PTE_FRAME;
            *entry = leaf;
        }
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
        const uint64_t *pte = pte_look(p);
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
