/* mm.h - memory: frames, page tables, the program's address space (mm/).
 *
 * Frames are taken when memory becomes accessible, not when it is touched: there are no page
 * faults to handle. Reservations (PROT_NONE) cost nothing.
 *
 * The TLB cannot be flushed (abi.h, Paging images), so a page of address space that could be written
 * keeps its frame, or is not used again. Rights are changed in place (mm_internal.h says why that
 * holds). Which frame a page of a private file mapping gets is decided when it becomes accessible: the
 * file's own, shared, unless the mapping is writable then; it gets a copy at once otherwise, and later
 * when mprotect makes it writable. Unmapped anonymous memory is parked with its frames (space.c); what a
 * loader maps only to put something else over it does not become accessible (elfmap.c).
 */
#ifndef LIBOS_MM_H
#define LIBOS_MM_H

#include "kernel.h"

struct file;

/* Physical memory, by the direct map. */
void *phys_to_virt(uint64_t phys);
uint64_t virt_to_phys(const void *p); /* of the direct map only */

/* Frames: 4 KiB, zeroed unless said. 0 when none is left. */
uint64_t frame_alloc(void);
uint64_t frame_alloc_many(size_t count); /* contiguous */
/* For memory that will be used whole: of a piece that the host is asked to fill, while there are such. */
uint64_t frame_alloc_dense(void);
void frame_free(uint64_t phys);
void frame_get(uint64_t phys); /* one more user of a shared frame; frame_free drops it */
uint64_t frames_total(void), frames_free(void); /* numbers of frames */
/* The request is about to come: what is handed out from here on is the request's own. */
void frames_mark(void);

/* Takes the free frames and the page tables over (boot). */
void mm_init(uint64_t page_root, uint64_t frames_from, uint64_t frames_to);
/* Picks addresses for `len` bytes, aligned, with `room` more left free behind them: for MAP_FIXED. */
uint64_t mm_pick(uint64_t len, uint64_t room, uint64_t align);
/* The first address from `addr` on that lies in its 2 MiB as `frame` does, so that entries of 2 MiB may lead from
 * there to what begins with that frame. */
uint64_t mm_beside(uint64_t addr, uint64_t frame);
/* Makes [from, to) the main stack. -ENOMEM. */
int mm_map_stack(uint64_t from, uint64_t to);
/* Zeros bytes of private pages of the program, by the direct map. */
void mm_zero(uint64_t addr, uint64_t len);
/* Where the heap of brk() begins. */
void mm_set_brk(uint64_t start);

/* Unmaps everything, for a program that is loaded anew. What lay where programs are linked keeps its
 * frames for it. */
void mm_unmap_all(void);

/* What the program's addresses mean; system calls of memory. */
int64_t mm_brk(uint64_t addr);
int64_t mm_mmap(uint64_t addr, uint64_t len, int prot, int flags, struct file *file,
                uint64_t offset);
int64_t mm_munmap(uint64_t addr, uint64_t len);
int64_t mm_mprotect(uint64_t addr, uint64_t len, int prot);
int64_t mm_mremap(uint64_t addr, uint64_t old_len, uint64_t new_len, int flags, uint64_t to);
int64_t mm_madvise(uint64_t addr, uint64_t len, int advice);
bool mm_mapped(uint64_t addr, uint64_t len); /* whether all of it is */
int64_t mm_mincore(uint64_t addr, uint64_t len, uint8_t *vec);

/* Whether the program may read (or write) [p, p + len): for -EFAULT instead of a dead machine. */
bool user_readable(const void *p, uint64_t len);
bool user_writable(void *p, uint64_t len);
/* Length of the string at `p` if it ends within `max` readable bytes, else -EFAULT, -ENAMETOOLONG. */
int64_t user_strlen(const char *p, size_t max);

/* The text of /proc/self/maps: calls `line` for each area, ascending. */
struct mm_area_info {
    uint64_t from, to, offset;
    int prot;
    bool shared;
    const char *name; /* path, "[heap]", "[stack]", "" */
};
void mm_for_each_area(void (*line)(void *arg, const struct mm_area_info *area), void *arg);

#endif
