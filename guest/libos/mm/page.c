/* page.c - pages of the program: which frame each gets, and what happens to it. See mm_internal.h
 * for the states of an entry. */
#include <linux/mman.h>

#include "file.h"
#include "mm/mm_internal.h"

#ifdef LIBOS_HOSTED
#define page_store hosted_store
#else
/* A store to the program's page that changes nothing in it. */
static void page_store(uint64_t addr)
{
    __asm__ volatile("lock orb $0, (%0)" : : "r"(addr) : "memory");
}
#endif

/* --- accessible ------------------------------------------------------------------------------- */

struct mapping {
    uint64_t from;
    const struct page_want *want;
    uint64_t frames; /* needed */
    uint64_t takes;  /* of them by a page where nothing was: 1, or 0 where the file has some */
    bool dense;
};

static uint64_t file_offset(const struct mapping *m, uint64_t addr)
{
    return m->want->file_offset + (addr - m->from);
}

/* The file's own frame for the page, if the mapping may use it. */
static uint64_t shared_frame(const struct mapping *m, uint64_t addr)
{
    const struct page_want *w = m->want;
    if (!w->file || (w->prot & PROT_WRITE && !w->shared)) {
        return 0;
    }
    uint64_t index = file_offset(m, addr) / PAGE_SIZE;
    return w->shared ? file_frame_shared(w->file, index) : file_frame(w->file, index);
}

/* Pages behind the end of a file stay inaccessible, as they do on Linux. */
static bool behind_file(const struct mapping *m, uint64_t addr)
{
    return m->want->file && file_offset(m, addr) >= page_up(file_size(m->want->file));
}

/* What becomes of the frame that a page has. */
enum fate {
    FATE_NEW,    /* it has none, or one that nobody looked at: it gets another */
    FATE_STAYS,  /* it stays; what is in it may change */
    FATE_COPY,   /* it was only ever read, and gives way to a private one (renew) */
    FATE_CANNOT, /* the TLB may know it as writable, or it must be a certain other one */
};

static enum fate fate_of(const struct mapping *m, uint64_t addr, uint64_t pte)
{
    const struct page_want *w = m->want;
    bool to_file = w->file && w->shared && w->prot & PROT_WRITE;
    if (!(pte & (PTE_P | PTE_KEPT))) {
        return FATE_NEW;
    }
    if (!w->fresh) {
        return !(pte & PTE_PRIVATE) && w->prot & PROT_WRITE && !w->shared ? FATE_COPY : FATE_STAYS;
    }
    if (pte & PTE_PRIVATE ? !to_file : shared_frame(m, addr) == (pte & PTE_FRAME)) {
        return FATE_STAYS;
    }
    if (!(pte & PTE_A)) {
        return FATE_NEW;
    }
    return pte & (PTE_PRIVATE | PTE_WRITABLE) || to_file ? FATE_CANNOT : FATE_COPY;
}

/* Whether what was at the page allows what is wanted; counts frames. */
static int check_page(void *arg, uint64_t addr, uint64_t *pte)
{
    struct mapping *m = arg;
    if (behind_file(m, addr)) {
        return 0;
    }
    if (*pte & PTE_TAINTED) {
        klog("mmap: address %lx was used before, and cannot be again", addr);
        return -ENOMEM;
    }
    switch (fate_of(m, addr, *pte)) {
    case FATE_NEW:
        break;
    case FATE_STAYS:
        m->frames -= m->takes;
        break;
    case FATE_COPY:
        m->frames += 1 - m->takes;
        break;
    case FATE_CANNOT:
        klog("mmap: the page at %lx was in use, and cannot become a file's, or another's", addr);
        return -ENOMEM;
    }
    return 0;
}

/* Fills a private frame as the mapping says. */
static void fill(const struct mapping *m, uint64_t addr, uint64_t *pte)
{
    char *page = phys_to_virt(*pte & PTE_FRAME);
    int64_t got = 0;
    if (m->want->file) {
        got = file_read_at(m->want->file, page, PAGE_SIZE, file_offset(m, addr));
        got = got < 0 ? 0 : got;
    }
    if (*pte & PTE_D) {
        memset(page + got, 0, PAGE_SIZE - (size_t)got);
    }
    if (got > 0) {
        *pte |= PTE_D;
    }
}

static int hide_page(void *arg, uint64_t addr, uint64_t *pte)
{
    (void)arg;
    (void)addr;
    if (*pte & PTE_P) {
        *pte = (*pte & ~PTE_P) | PTE_KEPT;
    }
    return 0;
}

static int new_frame(const struct mapping *m, uint64_t addr, uint64_t *pte)
{
    if (*pte & (PTE_P | PTE_KEPT)) {
        frame_free(*pte & PTE_FRAME);
        *pte = 0;
    }
    uint64_t frame = shared_frame(m, addr);
    if (frame) {
        frame_get(frame);
        *pte = frame;
        return 0;
    }
    frame = m->dense ? frame_alloc_dense() : frame_alloc();
    if (!frame) {
        return -ENOMEM;
    }
    *pte = frame | PTE_PRIVATE;
    fill(m, addr, pte);
    *pte |= m->dense ? PTE_A | PTE_D : 0;
    return 0;
}

/* Changes the frame of a page that was only ever read. The TLB may know the old one, without the right
 * to write: a store finds the entry that is in the tables (mm_internal.h), and from then on it is that
 * one which is known. */
static int renew(const struct mapping *m, uint64_t addr, uint64_t *pte)
{
    uint64_t was = *pte & PTE_FRAME, frame = frame_alloc();
    if (!frame) {
        return -ENOMEM;
    }
    uint64_t entry = frame | PTE_PRIVATE;
    if (m->want->fresh) {
        fill(m, addr, &entry);
    } else {
        memcpy(phys_to_virt(frame), phys_to_virt(was), PAGE_SIZE);
    }
    *pte = entry | PTE_D | pte_bits(PROT_READ | PROT_WRITE);
    page_store(addr);
    frame_free(was);
    return 0;
}

static int map_page(const struct mapping *m, uint64_t addr, uint64_t *pte)
{
    if (behind_file(m, addr)) {
        return m->want->fresh ? hide_page(NULL, addr, pte) : 0;
    }
    enum fate fate = fate_of(m, addr, *pte);
    int r = fate == FATE_NEW    ? new_frame(m, addr, pte)
            : fate == FATE_COPY ? renew(m, addr, pte)
                                : 0;
    if (r < 0) {
        return r;
    }
    if (fate == FATE_STAYS && m->want->fresh && *pte & PTE_PRIVATE) {
        fill(m, addr, pte);
    }
    *pte &= ~(PTE_W | PTE_NX | PTE_KEPT);
    *pte |= pte_bits(m->want->prot);
    *pte |= *pte & PTE_W && !(*pte & PTE_PRIVATE) ? PTE_WRITABLE : 0;
    return 0;
}

/* The frames that are needed where nothing was. */
static void count_frames(struct mapping *m, uint64_t pages)
{
    const struct page_want *w = m->want;
    if (w->file) {
        uint64_t size = page_up(file_size(w->file));
        uint64_t left = size > w->file_offset ? (size - w->file_offset) / PAGE_SIZE : 0;
        pages = left < pages ? left : pages;
    }
    m->takes = pages > 0 && !shared_frame(m, m->from);
    m->frames = pages * m->takes;
}

int pages_map(uint64_t from, uint64_t to, const struct page_want *want)
{
    /* The tables at most: one for each 2 MiB, and two above. */
    uint64_t pages = (to - from) / PAGE_SIZE, tables = pages / 512 + 4;
    struct mapping m = {.from = from, .want = want};
    count_frames(&m, pages);
    m.dense = want->filled && !want->file && dense_wanted(pages);
    int r = pte_for_each(from, to, check_page, &m);
    if (r < 0) {
        return r;
    }
    uint64_t need = m.frames + tables;
    if (frames_free() < need && (!mm_reclaim() || frames_free() < need)) {
        klog("memory is used up: %lu KiB are wanted, %lu KiB of %lu KiB are free; deploy with more "
             "--memory",
             m.frames * 4, frames_free() * 4, frames_total() * 4);
        return -ENOMEM;
    }
    while (from < to) {
        uint64_t *pte = pte_find(from, true, NULL);
        if (!pte) {
            return -ENOMEM;
        }
        do {
            r = map_page(&m, from, pte);
            if (r < 0) {
                return r;
            }
            from += PAGE_SIZE;
            pte++;
        } while (from < to && from % TABLE_SPAN != 0);
    }
    return 0;
}

/* --- and no more ------------------------------------------------------------------------------ */

void pages_hide(uint64_t from, uint64_t to)
{
    pte_for_each(from, to, hide_page, NULL);
}

static int drop_page(void *arg, uint64_t addr, uint64_t *pte)
{
    (void)arg;
    (void)addr;
    if (*pte & (PTE_P | PTE_KEPT)) {
        uint64_t frame = *pte & PTE_FRAME;
        *pte = PTE_TAINTED;
        frame_free(frame);
    }
    return 0;
}

void pages_drop(uint64_t from, uint64_t to)
{
    pte_for_each(from, to, drop_page, NULL);
}

static int clear_page(void *arg, uint64_t addr, uint64_t *pte)
{
    (void)arg;
    (void)addr;
    /* D stays: the TLB may remember it, and then the processor would not set it again. */
    if (*pte & (PTE_P | PTE_KEPT) && *pte & PTE_PRIVATE && *pte & PTE_D) {
        memset(phys_to_virt(*pte & PTE_FRAME), 0, PAGE_SIZE);
    }
    return 0;
}

void pages_clear(uint64_t from, uint64_t to)
{
    pte_for_each(from, to, clear_page, NULL);
}

static int move_page(void *arg, uint64_t addr, uint64_t *pte)
{
    uint64_t target = addr + *(const uint64_t *)arg;
    if (*pte & (PTE_P | PTE_KEPT)) {
        uint64_t *to = pte_find(target, true, NULL);
        if (!to) {
            return -ENOMEM;
        }
        uint64_t there = *to;
        *to = *pte;
        if (there & (PTE_P | PTE_KEPT)) { /* its frame stays, and gets the content */
            uint64_t rights = PTE_P | PTE_W | PTE_U | PTE_NX | PTE_KEPT;
            memcpy(phys_to_virt(there & PTE_FRAME), phys_to_virt(*pte & PTE_FRAME), PAGE_SIZE);
            *to = (*pte & rights) | (there & ~rights) | PTE_D;
            frame_free(*pte & PTE_FRAME);
        }
        *pte = PTE_TAINTED;
    }
    return 0;
}

int pages_move(uint64_t from, uint64_t to, uint64_t target)
{
    uint64_t by = target - from, tables = (to - from) / TABLE_SPAN + 4;
    if (frames_free() < tables && (!mm_reclaim() || frames_free() < tables)) {
        return -ENOMEM;
    }
    return pte_for_each(from, to, move_page, &by);
}

static int touched_page(void *arg, uint64_t addr, uint64_t *pte)
{
    (void)arg;
    (void)addr;
    return *pte ? -EEXIST : 0;
}

bool pages_untouched(uint64_t from, uint64_t to)
{
    return pte_for_each(from, to, touched_page, NULL) == 0;
}

static int unusable_page(void *arg, uint64_t addr, uint64_t *pte)
{
    (void)arg;
    (void)addr;
    return *pte && !(*pte & PTE_PRIVATE) ? -EEXIST : 0;
}

bool pages_usable(uint64_t from, uint64_t to)
{
    return pte_for_each(from, to, unusable_page, NULL) == 0;
}
