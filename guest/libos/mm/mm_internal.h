/* mm_internal.h - what mm/ keeps to itself: page table entries, areas, address space.
 *
 * A leaf entry, for each page of address space:
 *
 *     0                      nothing was ever here
 *     P                      accessible; its frame
 *     KEPT (no P)            not accessible now, but the frame stays, since the TLB may know it
 *     TAINTED (no P, KEPT)   a frame was here and is gone: the page is not used again
 *
 * PRIVATE: the frame belongs to this page alone and may be written; without it the frame is a
 * file's. WRITABLE: a file's frame that could be written here once (MAP_SHARED). Rights are taken and
 * given by rewriting the entry in place: a right that is taken may hold on for a while in the TLB, which
 * harms nobody; a right that is given is found by the processor when it walks the tables again, as it
 * does before it reports a fault (AMD APM vol. 2, 5.5.2, "TLB management": a protection fault is checked
 * against the tables; KVM's own shadow tables are filled at the fault. Intel's SDM vol. 3, 4.10.4.3
 * leaves it open).
 *
 * What a file's frames fill of 2 MiB may have one entry instead (pagetable.c); pte_find puts the entries of
 * pages back.
 *
 * So the frame of a page may change where the TLB knows nothing of it (A is not set: SDM vol. 3, 4.8,
 * nothing is cached before it is), and where it knows no right to write, by giving that right with the new
 * frame and storing to the page at once: the walk replaces what was known.
 */
#ifndef LIBOS_MM_INTERNAL_H
#define LIBOS_MM_INTERNAL_H

#include "mm.h"

#define PTE_P        (1ull << 0)
#define PTE_W        (1ull << 1)
#define PTE_U        (1ull << 2)
#define PTE_A        (1ull << 5)
#define PTE_D        (1ull << 6)
#define PTE_PRIVATE  (1ull << 9)
#define PTE_KEPT     (1ull << 10)
#define PTE_TAINTED  (1ull << 11)
#define PTE_WRITABLE (1ull << 52)
#define PTE_NX       (1ull << 63)
#define PTE_FRAME    0x000ffffffffff000ull

#define USER_MIN  UNID_LIBOS_END
#define USER_END  0x00007ffffffff000ull
#define MMAP_BASE 0x0000200000000000ull /* where addresses are handed out, upwards */
#define MMAP_END  0x00007e0000000000ull

#define TABLE_SPAN (512 * PAGE_SIZE) /* what one table of leaves covers */

/* --- frame.c */
#ifdef LIBOS_HOSTED
extern char *hosted_memory;       /* what stands at physical address 0 */
void hosted_store(uint64_t addr); /* to the program's page, as the processor does it */
#endif
void frames_init(uint64_t from, uint64_t to);
bool frames_marked(void);
uint64_t frames_since_mark(void);     /* fresh frames that were handed out since; 0 before */
bool frame_since_mark(uint64_t phys); /* whether this is one of them */

/* --- pagetable.c */
void pagetable_init(uint64_t root);
/* The leaf entry of an address; NULL when there is no table for it (`create`: no memory). Without
 * `create`, `ret_next` (may be NULL) becomes the address where the next table may be. */
uint64_t *pte_find(uint64_t addr, bool create, uint64_t *ret_next);
/* The same entry, for who only reads it; NULL when there is no table. */
const uint64_t *pte_look(uint64_t addr);
/* Where a file's pages fill tables of [from, to), or one that begins before and ends there, the processor gets
 * entries of 2 MiB, if it has not looked there. */
void pte_join(uint64_t from, uint64_t to);
/* Calls `each` for all leaf entries of tables that exist in [from, to); stops at an error. */
int pte_for_each(uint64_t from, uint64_t to, int (*each)(void *arg, uint64_t addr, uint64_t *pte),
                 void *arg);
uint64_t pte_bits(int prot); /* P, W, U and NX */

/* --- page.c: pages of an area */
struct page_want {
    int prot;
    struct file *file;    /* NULL: zeros */
    uint64_t file_offset; /* of `from` */
    bool shared;          /* writes go to the file */
    bool fresh;           /* whatever was there, it begins anew */
    bool filled;          /* if it is much, it will be used whole (dense.c) */
};
/* Makes the pages of [from, to) accessible. Checks first that the frames suffice and that nothing
 * stands against it: on -ENOMEM nothing was changed. */
int pages_map(uint64_t from, uint64_t to, const struct page_want *want);
void pages_hide(uint64_t from, uint64_t to);  /* inaccessible; frames stay */
void pages_drop(uint64_t from, uint64_t to);  /* frames are given back, addresses are spent */
void pages_clear(uint64_t from, uint64_t to); /* private frames become zero */
/* Moves pages to where nothing ever was, or pages are that are usable: these keep their frames. */
int pages_move(uint64_t from, uint64_t to, uint64_t target);
bool pages_untouched(uint64_t from, uint64_t to); /* nothing was ever here */
bool pages_usable(uint64_t from,
                  uint64_t to); /* nothing, or private frames that can be taken over */

/* --- dense.c */
/* Whether so many pages, of a mapping that programs usually fill, get frames that are filled ahead. */
bool dense_wanted(uint64_t pages);
void dense_init(void);

/* --- area.c: the list of areas, ascending, without overlap */
enum { AREA_SHARED = 1, AREA_STUBS = 2, AREA_STACK = 4, AREA_HEAP = 8 };
struct area {
    struct list node;
    uint64_t from, to, offset; /* offset: in `file`, of `from` */
    int prot;
    uint32_t flags;
    struct file *file; /* a reference, or NULL */
};
extern struct list areas;
void areas_init(void);
/* The first area that ends above `addr`; NULL when there is none. */
struct area *area_find(uint64_t addr);
bool areas_free(uint64_t from, uint64_t to);    /* none overlaps */
bool areas_covered(uint64_t from, uint64_t to); /* no hole */
/* Adds an area where none is, joined with a neighbour that is alike. */
int area_add(uint64_t from, uint64_t to, int prot, uint32_t flags, struct file *file,
             uint64_t offset);
/* Cuts areas so that none reaches across `from` or `to`. -ENOMEM. */
int areas_cut(uint64_t from, uint64_t to);
/* Takes all areas out of [from, to), which were cut there. */
void areas_remove(uint64_t from, uint64_t to);
void areas_join(uint64_t from, uint64_t to); /* those that are alike, around and in the range */

/* --- space.c: which addresses are given */
void space_init(void);
/* An address for `len` bytes, `room` bytes of address space behind it left free as well. 0: none. */
uint64_t space_pick(uint64_t len, uint64_t room);
bool space_gave(uint64_t from, uint64_t to); /* these addresses are space_pick's */
/* Anonymous memory that was unmapped stays with its frames, to be given again at the same place. */
void space_park(uint64_t from, uint64_t to);
uint64_t space_unpark(uint64_t len);          /* 0: nothing fits */
void space_claim(uint64_t from, uint64_t to); /* these addresses are not parked any more */
bool mm_reclaim(void);                        /* parked frames are given back; false: none */

/* --- elfmap.c: mappings of ELF files */
struct elf_shape {
    uint64_t span;       /* bytes from the first page of its image to the last */
    uint64_t first_len;  /* bytes of the file's first segment, in pages */
    uint64_t base_vaddr; /* of the first page */
};
/* False when the file is no ELF file that could be loaded. */
bool elf_shape(struct file *file, struct elf_shape *ret);
/* The executable part of `file` from `offset` is at `addr`: sees to its stubs. */
int elf_map_stubs(struct file *file, uint64_t addr, uint64_t offset);

#endif
