/* map.c - the system calls of memory: mmap and its kin. See mm.h. */
#include <linux/fcntl.h>
#include <linux/mman.h>

#include "file.h"
#include "mm/mm_internal.h"

#define PROT_ANY (PROT_READ | PROT_WRITE | PROT_EXEC)

static struct {
    uint64_t start, now; /* of the heap that brk() moves the end of */
} brk;

void mm_init(uint64_t root, uint64_t from, uint64_t to)
{
    frames_init(from, to);
    pagetable_init(root);
    areas_init();
    space_init();
    dense_init();
}

static bool range_ok(uint64_t addr, uint64_t len)
{
    uint64_t end;
    return !(addr & PAGE_MASK) && !__builtin_add_overflow(addr, len, &end) && addr >= USER_MIN &&
           end <= USER_END;
}

/* --- munmap ----------------------------------------------------------------------------------- */

/* Whether the area's pages may be given to somebody else as they are. */
static bool parks(const struct area *a)
{
    return !a->file && !(a->flags & (AREA_SHARED | AREA_HEAP | AREA_STACK));
}

static int unmap(uint64_t from, uint64_t to, bool keep_frames)
{
    int r = areas_cut(from, to);
    if (r < 0) {
        return r;
    }
    for (struct area *a = area_find(from); a && a->from < to; a = area_find(from)) {
        bool park = parks(a);
        from = a->to;
        if (!keep_frames) {
            pages_hide(a->from, a->to);
            if (park) {
                space_park(a->from, a->to);
            } else {
                pages_drop(a->from, a->to);
            }
        }
        areas_remove(a->from, a->to);
    }
    return 0;
}

int64_t mm_munmap(uint64_t addr, uint64_t len)
{
    len = page_up(len);
    if (len == 0 || !range_ok(addr, len)) {
        return -EINVAL;
    }
    return unmap(addr, addr + len, false);
}

void mm_unmap_all(void)
{
    for (struct area *a = area_find(0); a; a = area_find(0)) {
        pages_hide(a->from, a->to);
        if (space_gave(a->from, a->to)) {
            if (parks(a)) {
                space_park(a->from, a->to);
            } else {
                pages_drop(a->from, a->to);
            }
        }
        areas_remove(a->from, a->to);
    }
}

/* --- mmap ------------------------------------------------------------------------------------- */

struct request {
    uint64_t addr, len, offset;
    int prot, flags;
    struct file *file;
    uint64_t room;       /* address space to leave free behind it, for stubs */
    uint64_t accessible; /* bytes of it that are */
};

/* What a mapping of the beginning of an ELF file needs; see elfmap.c. */
static void look_at_elf(struct request *q)
{
    struct elf_shape shape;
    struct file_stubs stubs;
    if (!q->file || q->offset != 0 || q->flags & MAP_SHARED || !elf_shape(q->file, &shape) ||
        q->len != shape.span) {
        return;
    }
    q->accessible = shape.first_len < q->len ? shape.first_len : q->len;
    if (file_stubs(q->file, &stubs)) {
        uint64_t end = stubs.vaddr + page_up(stubs.size) - shape.base_vaddr;
        q->room = end > q->len ? end - q->len : 0;
    }
}

static uint64_t choose(const struct request *q)
{
    uint64_t hint = page_down(q->addr);
    if (hint && range_ok(hint, q->len + q->room) && areas_free(hint, hint + q->len + q->room) &&
        pages_usable(hint, hint + q->len + q->room)) {
        return hint;
    }
    if (!q->file && q->prot & PROT_ANY) {
        uint64_t at = space_unpark(q->len);
        if (at) {
            return at;
        }
    }
    if (!q->file || q->len < TABLE_SPAN) {
        return space_pick(q->len, q->room);
    }
    uint64_t at = space_pick(q->len + TABLE_SPAN, q->room);
    return at ? mm_beside(at, file_frame(q->file, q->offset / PAGE_SIZE)) : 0;
}

static int populate(const struct request *q, uint64_t addr)
{
    if (!(q->prot & PROT_ANY)) {
        return 0;
    }
    struct page_want want = {.prot = q->prot,
                             .file = q->file,
                             .file_offset = q->offset,
                             .shared = q->flags & MAP_SHARED,
                             .fresh = true,
                             .filled = q->prot & PROT_WRITE &&
                                       !(q->flags & (MAP_STACK | MAP_NORESERVE | MAP_GROWSDOWN))};
    return pages_map(addr, addr + q->accessible, &want);
}

static int64_t map_at(const struct request *q, uint64_t addr)
{
    uint64_t end = addr + q->len;
    int r = areas_cut(addr, end);
    if (r == 0) {
        r = populate(q, addr);
    }
    if (r < 0) {
        return r;
    }
    if (!(q->prot & PROT_ANY)) {
        pages_hide(addr, end);
        pages_clear(addr, end);
    }
    areas_remove(addr, end);
    space_claim(addr, end);
    uint32_t flags = q->file && q->flags & MAP_SHARED ? AREA_SHARED : 0;
    r = area_add(addr, end, q->prot, flags, q->file, q->offset);
    if (r < 0) {
        return r;
    }
    if (q->file) {
        pte_join(addr, end);
    }
    if (q->file && q->prot & PROT_EXEC) {
        r = elf_map_stubs(q->file, addr, q->offset);
    }
    return r < 0 ? r : (int64_t)addr;
}

int64_t mm_mmap(uint64_t addr, uint64_t len, int prot, int flags, struct file *file,
                uint64_t offset)
{
    struct request q = {.addr = addr,
                        .len = page_up(len),
                        .offset = offset,
                        .prot = prot & PROT_ANY,
                        .flags = flags,
                        .file = file};
    if (q.len == 0 || offset & PAGE_MASK || !(flags & MAP_TYPE)) {
        return -EINVAL;
    }
    if (len > USER_END || q.len < len) {
        return -ENOMEM;
    }
    q.accessible = q.len;
    look_at_elf(&q);
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
        if (addr & PAGE_MASK) {
            return -EINVAL;
        }
        if (!range_ok(addr, q.len)) {
            return -ENOMEM;
        }
        if (flags & MAP_FIXED_NOREPLACE && !areas_free(addr, addr + q.len)) {
            return -EEXIST;
        }
        return map_at(&q, addr);
    }
    uint64_t at = choose(&q);
    int64_t r = at ? map_at(&q, at) : -ENOMEM;
    if (r == -ENOMEM) {
        klog("mmap of %lu KiB%s%s failed", q.len / 1024, file ? " of " : "",
             file ? file_path(file) : "");
    }
    return r;
}

/* --- mprotect --------------------------------------------------------------------------------- */

/* One area, which lies in the range whole. */
static int protect(struct area *a, int prot)
{
    bool to_file = a->file && a->flags & AREA_SHARED && prot & PROT_WRITE;
    if (to_file && (a->file->flags & O_ACCMODE) != O_RDWR) {
        return -EACCES;
    }
    if (!(prot & PROT_ANY)) {
        pages_hide(a->from, a->to);
    } else {
        struct page_want want = {.prot = prot,
                                 .file = a->file,
                                 .file_offset = a->offset,
                                 .shared = a->flags & AREA_SHARED};
        int r = a->flags & AREA_STUBS ? 0 : pages_map(a->from, a->to, &want);
        if (r == 0 && a->file && prot & PROT_EXEC && !(a->flags & AREA_STUBS)) {
            r = elf_map_stubs(a->file, a->from, a->offset);
        }
        if (r < 0) {
            return r;
        }
    }
    a->prot = prot;
    return 0;
}

int64_t mm_mprotect(uint64_t addr, uint64_t len, int prot)
{
    len = page_up(len);
    if (addr & PAGE_MASK) {
        return -EINVAL;
    }
    if (len == 0) {
        return 0;
    }
    if (!range_ok(addr, len) || !areas_covered(addr, addr + len)) {
        return -ENOMEM;
    }
    int r = areas_cut(addr, addr + len);
    for (uint64_t at = addr; r == 0 && at < addr + len;) {
        struct area *a = area_find(at);
        at = a->to;
        r = protect(a, prot & PROT_ANY);
    }
    areas_join(addr, addr + len + 1);
    return r;
}

/* --- mremap ----------------------------------------------------------------------------------- */

/* Makes [from, to) a continuation of area `a`, which ends at `from`. */
static int extend(const struct area *a, uint64_t from, uint64_t to)
{
    struct page_want want = {.prot = a->prot,
                             .file = a->file,
                             .file_offset = a->offset + (from - a->from),
                             .shared = a->flags & AREA_SHARED,
                             .fresh = true,
                             .filled = a->prot & PROT_WRITE};
    int r = a->prot & PROT_ANY ? pages_map(from, to, &want) : 0;
    /* A reservation that was given back is parked without a trace in the tables. */
    space_claim(from, to);
    return r < 0 ? r : area_add(from, to, a->prot, a->flags, a->file, want.file_offset);
}

static int64_t move(struct area *a, uint64_t from, uint64_t len, uint64_t target)
{
    struct area was = *a;
    was.offset += from - a->from;
    was.from = from;
    int r = pages_move(from, from + len, target);
    if (r < 0) {
        return r;
    }
    r = area_add(target, target + len, was.prot, was.flags, was.file, was.offset);
    if (r == 0) {
        r = unmap(from, from + len, true);
    }
    return r < 0 ? r : (int64_t)target;
}

static int64_t grow(uint64_t addr, uint64_t old_len, uint64_t new_len, int flags, uint64_t to)
{
    struct area *a = area_find(addr);
    uint64_t old_end = addr + old_len, new_end = addr + new_len;
    if (!(flags & MREMAP_FIXED) && a->to == old_end && range_ok(addr, new_len) &&
        areas_free(old_end, new_end) && pages_untouched(old_end, new_end)) {
        int r = extend(a, old_end, new_end);
        return r < 0 ? r : (int64_t)addr;
    }
    if (!(flags & MREMAP_MAYMOVE)) {
        return -ENOMEM;
    }
    uint64_t target = flags & MREMAP_FIXED ? to : space_pick(new_len, 0);
    if (!target || !range_ok(target, new_len)) {
        return -ENOMEM;
    }
    bool usable = !(flags & MREMAP_FIXED) || a->flags & AREA_SHARED
                      ? pages_untouched(target, target + new_len)
                      : pages_usable(target, target + new_len);
    if (!usable) {
        klog("mremap: address %lx was used before, and cannot be again", target);
        return -ENOMEM;
    }
    space_claim(target, target + new_len);
    int64_t r = move(a, addr, old_len, target);
    if (r >= 0 && new_len > old_len) {
        int more = extend(area_find(target + old_len - 1), target + old_len, target + new_len);
        r = more < 0 ? more : r;
    }
    return r;
}

int64_t mm_mremap(uint64_t addr, uint64_t old_len, uint64_t new_len, int flags, uint64_t to)
{
    old_len = page_up(old_len);
    new_len = page_up(new_len);
    bool fixed = flags & MREMAP_FIXED;
    bool overlap = fixed && to < addr + old_len && addr < to + new_len;
    if (addr & PAGE_MASK || new_len == 0 || old_len == 0 ||
        flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED) ||
        (fixed && (!(flags & MREMAP_MAYMOVE) || to & PAGE_MASK)) || overlap) {
        return -EINVAL;
    }
    const struct area *a = area_find(addr);
    if (!range_ok(addr, old_len) || !a || a->from > addr || a->to < addr + old_len) {
        return -EFAULT;
    }
    if (fixed && !areas_free(to, to + new_len)) {
        int r = unmap(to, to + new_len, false);
        if (r < 0) {
            return r;
        }
    }
    if (new_len < old_len) {
        int r = unmap(addr + new_len, addr + old_len, false);
        if (r < 0) {
            return r;
        }
        old_len = new_len;
    }
    if (new_len == old_len && !fixed) {
        return (int64_t)addr;
    }
    return grow(addr, old_len, new_len, flags, to);
}

/* --- the rest --------------------------------------------------------------------------------- */

uint64_t mm_pick(uint64_t len, uint64_t room, uint64_t align)
{
    uint64_t at = space_pick(len + align, room);
    return at ? (at + align - 1) & ~(align - 1) : 0;
}

uint64_t mm_beside(uint64_t addr, uint64_t frame)
{
    return addr + ((frame - addr) & (TABLE_SPAN - 1));
}

void mm_zero(uint64_t addr, uint64_t len)
{
    while (len > 0) {
        uint64_t part = PAGE_SIZE - (addr & PAGE_MASK);
        part = len < part ? len : part;
        uint64_t *pte = pte_find(addr, false, NULL);
        if (!pte || !(*pte & PTE_PRIVATE)) {
            kpanic("no private page at %lx", addr);
        }
        memset((char *)phys_to_virt(*pte & PTE_FRAME) + (addr & PAGE_MASK), 0, part);
        *pte |= PTE_D;
        addr += part;
        len -= part;
    }
}

int mm_map_stack(uint64_t from, uint64_t to)
{
    struct page_want want = {.prot = PROT_READ | PROT_WRITE, .fresh = true};
    int r = pages_map(from, to, &want);
    return r < 0 ? r : area_add(from, to, want.prot, AREA_STACK, NULL, 0);
}

void mm_set_brk(uint64_t start)
{
    brk.start = brk.now = page_up(start);
}

int64_t mm_brk(uint64_t addr)
{
    uint64_t old_end = page_up(brk.now), new_end = page_up(addr);
    if (addr < brk.start || addr > USER_END) {
        return (int64_t)brk.now;
    }
    if (new_end < old_end) {
        /* The frames stay: the heap will come back to these addresses. */
        if (areas_cut(new_end, old_end) < 0) {
            return (int64_t)brk.now;
        }
        pages_hide(new_end, old_end);
        areas_remove(new_end, old_end);
    } else if (new_end > old_end) {
        struct page_want want = {.prot = PROT_READ | PROT_WRITE, .fresh = true, .filled = true};
        if (!areas_free(old_end, new_end) || pages_map(old_end, new_end, &want) < 0 ||
            area_add(old_end, new_end, want.prot, AREA_HEAP, NULL, 0) < 0) {
            return (int64_t)brk.now;
        }
    }
    brk.now = addr;
    return (int64_t)addr;
}

static bool advice_known(int advice)
{
    return (advice >= MADV_NORMAL && advice <= MADV_DONTNEED) ||
           (advice >= MADV_FREE && advice <= MADV_COLLAPSE);
}

int64_t mm_madvise(uint64_t addr, uint64_t len, int advice)
{
    len = page_up(len);
    if (!range_ok(addr, len) || !advice_known(advice)) {
        return -EINVAL;
    }
    if (!areas_covered(addr, addr + len)) {
        return -ENOMEM;
    }
    if (advice != MADV_DONTNEED) {
        return advice == MADV_REMOVE ? -EOPNOTSUPP : 0;
    }
    for (uint64_t at = addr; at < addr + len;) {
        const struct area *a = area_find(at);
        uint64_t from = at, to = a->to < addr + len ? a->to : addr + len;
        at = to;
        if (!a->file) {
            pages_clear(from, to);
        } else if (a->prot & PROT_ANY && !(a->flags & (AREA_SHARED | AREA_STUBS))) {
            struct page_want want = {.prot = a->prot,
                                     .file = a->file,
                                     .file_offset = a->offset + (from - a->from),
                                     .fresh = true};
            pages_map(from, to, &want);
        }
    }
    return 0;
}

bool mm_mapped(uint64_t addr, uint64_t len)
{
    len = page_up(len);
    return len == 0 || (range_ok(addr, len) && areas_covered(addr, addr + len));
}

int64_t mm_mincore(uint64_t addr, uint64_t len, uint8_t *vec)
{
    len = page_up(len);
    if (addr & PAGE_MASK) {
        return -EINVAL;
    }
    if (!range_ok(addr, len) || !areas_covered(addr, addr + len)) {
        return -ENOMEM;
    }
    if (!user_writable(vec, len / PAGE_SIZE)) {
        return -EFAULT;
    }
    for (uint64_t off = 0; off < len; off += PAGE_SIZE) {
        vec[off / PAGE_SIZE] = user_readable((void *)(addr + off), 1);
    }
    return 0;
}
