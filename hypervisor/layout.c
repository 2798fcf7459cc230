/* layout.c - image, strings, boot block and page tables in guest-physical memory (see layout.h).
 *
 * The image is hostile until shown otherwise: un_elf_parse vouches for the file's own consistency,
 * this file for the addresses. It starts nothing and knows no CPU but by the page-table format
 * (Intel SDM vol. 3A, section 4.5).
 *
 * The table pages are taken from the end of memory upwards; their number is bounded before anything
 * is written, so that the stack can be put right below them.
 *
 * Of a paging image a segment's physical address follows from its virtual one (phys_of), and is what
 * segments are held against each other and against memory by.
 */
#include "hypervisor/layout.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/bytes.h"
#include "common/elf.h"

#define PAGE_SIZE  UINT64_C(0x1000)
#define LARGE_SIZE UINT64_C(0x200000)
#define GIB        UINT64_C(0x40000000)
#define MEM_MAX    (512 * GIB)         /* what one page-directory-pointer table spans */
#define ADDR_MAX   (UINT64_C(1) << 47) /* the canonical lower half */
#define HEAP_MIN   UINT64_C(0x10000)   /* below this a memory size is refused, not tried */

/* Page-table entry bits. Accessed and dirty are set from the start: the CPU need not write them. */
#define PTE_PRESENT  (UINT64_C(1) << 0)
#define PTE_WRITE    (UINT64_C(1) << 1)
#define PTE_USER     (UINT64_C(1) << 2)
#define PTE_ACCESSED (UINT64_C(1) << 5)
#define PTE_DIRTY    (UINT64_C(1) << 6)
#define PTE_LARGE    (UINT64_C(1) << 7)
#define PTE_NX       (UINT64_C(1) << 63)
#define PTE_ADDR     UINT64_C(0x000ffffffffff000)

#define PTE_TABLE (PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_ACCESSED)
#define PTE_LEAF  (PTE_PRESENT | PTE_USER | PTE_ACCESSED | PTE_DIRTY)
#define PTE_DATA  (PTE_LEAF | PTE_WRITE | PTE_NX)

/* Where everything lies, by physical address; all page-aligned but image_start and image_end. */
struct plan {
    bool paging; /* the image arranges its own address space */
    uint64_t image_start, image_end;
    uint64_t heap_start, heap_end;
    uint64_t stack_base, stack_top;
    uint64_t mem_end;
};

struct tables {
    uint8_t *mem;
    uint64_t root, next, end;
};

static uint64_t page_down(uint64_t addr)
{
    return addr & ~(PAGE_SIZE - 1);
}

static uint64_t page_up(uint64_t addr)
{
    return page_down(addr + PAGE_SIZE - 1);
}

static int check_spec(const struct hv_layout_spec *spec, struct un_error *err)
{
    if (!spec->mem || spec->mem_bytes % PAGE_SIZE || spec->mem_bytes > MEM_MAX) {
        return un_error_set(err, -EINVAL, "guest memory of %" PRIu64 " bytes", spec->mem_bytes);
    }
    if (spec->doorbell == HV_DOORBELL_PORT
            ? spec->doorbell_port > UINT16_MAX
            : spec->doorbell_addr < spec->mem_bytes || spec->doorbell_addr >= ADDR_MAX ||
                  spec->doorbell_addr % 4) {
        return un_error_set(err, -EINVAL, "doorbell at %#" PRIx64,
                            spec->doorbell == HV_DOORBELL_PORT ? spec->doorbell_port
                                                               : spec->doorbell_addr);
    }
    return 0;
}

/* Whether the note says that the image was made for this contract; its flags. */
static int read_note(const struct hv_run_spec *run, const struct un_elf *elf, uint32_t *ret_flags,
                     struct un_error *err)
{
    struct un_elf_note note;
    if (!un_elf_find_note(run->image, run->image_len, elf, UNID_NOTE_OWNER, UNID_NOTE_TYPE,
                          &note)) {
        return un_error_set(err, -EINVAL,
                            "the image was not made with the guest SDK: it lacks its note");
    }
    struct un_reader r = un_reader_of(run->image, run->image_len);
    un_read_seek(&r, note.offset);
    unsigned major = un_read_u16le(&r), minor = un_read_u16le(&r);
    uint32_t flags = un_read_u32le(&r);
    if (r.failed || note.size < 8) {
        return un_error_set(err, -EINVAL, "the image's SDK note is cut off");
    }
    if (major != UNID_ABI_MAJOR) {
        return un_error_set(err, -EINVAL,
                            "the image was made for guest ABI %u.%u, this host has %u.%u", major,
                            minor, UNID_ABI_MAJOR, UNID_ABI_MINOR);
    }
    if (flags & ~(uint32_t)UNID_NOTE_PAGING) {
        return un_error_set(
            err, -EINVAL,
            "the image, made for guest ABI %u.%u, needs what this host (%u.%u) does "
            "not know: note flags %#" PRIx32,
            major, minor, UNID_ABI_MAJOR, UNID_ABI_MINOR, flags);
    }
    *ret_flags = flags;
    return 0;
}

static int read_image(const struct hv_run_spec *run, struct un_elf *ret, uint32_t *ret_flags,
                      struct un_error *err)
{
    if (un_elf_parse(run->image, run->image_len, run->image_len, ret, err) < 0) {
        if (err) {
            err->code = -EINVAL;
        }
        return -EINVAL;
    }
    if (!ret->is64 || ret->type != 2 /* ET_EXEC */ || ret->machine != 62 /* EM_X86_64 */ ||
        ret->has_interp || ret->has_dynamic || ret->segment_count == 0) {
        return un_error_set(err, -EINVAL,
                            "the image is not a static, fixed-address x86-64 ELF program");
    }
    return read_note(run, ret, ret_flags, err);
}

static bool in_direct_map(const struct un_elf_segment *s)
{
    return s->vaddr >= UNID_DIRECT_MAP;
}

static uint64_t phys_of(const struct un_elf_segment *s, bool paging)
{
    return paging && in_direct_map(s) ? s->vaddr - UNID_DIRECT_MAP : s->vaddr;
}

/* The pages that a segment takes. */
struct extent {
    uint64_t from, to;
};

/* Holds one segment against memory. */
static int check_segment(const struct un_elf_segment *s, bool paging, uint64_t mem_bytes,
                         struct un_error *err)
{
    uint64_t phys = phys_of(s, paging), end;
    if (phys < UNID_IMAGE_MIN || __builtin_add_overflow(phys, s->mem_size, &end)) {
        return un_error_set(
            err, -EINVAL, "the segment at %#" PRIx64 " lies outside of [%#" PRIx64 ", memory end)",
            s->vaddr, (uint64_t)UNID_IMAGE_MIN);
    }
    if (end > mem_bytes) {
        return un_error_set(err, -ENOMEM,
                            "the segment at %#" PRIx64 " ends at %#" PRIx64
                            ", behind the function's %" PRIu64 " MiB of memory",
                            s->vaddr, end, mem_bytes >> 20);
    }
    if (paging && in_direct_map(s) && s->executable) {
        return un_error_set(err, -EINVAL,
                            "the segment at %#" PRIx64
                            " is executable, the direct map never is: link it below",
                            s->vaddr);
    }
    return 0;
}

/* Puts an extent in its place among the first `count`, by address; false when it overlaps one. */
static bool insert_extent(struct extent *list, size_t count, struct extent add)
{
    size_t at = count;
    for (; at > 0 && list[at - 1].from > add.from; at--) {
        list[at] = list[at - 1];
    }
    list[at] = add;
    return (at == 0 || list[at - 1].to <= add.from) && (at == count || add.to <= list[at + 1].from);
}

/* Holds the segments against memory and each other; gives the span of physical addresses that they
 * take, and the number of page tables that those below the direct map need at most. */
static int check_segments(const struct un_elf *elf, uint64_t mem_bytes, struct plan *p,
                          uint64_t *ret_tables, struct un_error *err)
{
    struct extent pages[UN_ELF_SEGMENTS_MAX];
    uint64_t tables = 0;
    p->image_start = UINT64_MAX;
    for (size_t i = 0; i < elf->segment_count; i++) {
        const struct un_elf_segment *s = &elf->segments[i];
        int rc = check_segment(s, p->paging, mem_bytes, err);
        if (rc < 0) {
            return rc;
        }
        uint64_t phys = phys_of(s, p->paging), end = phys + s->mem_size;
        struct extent e = {.from = page_down(phys), .to = page_up(end)};
        if (!insert_extent(pages, i, e)) {
            return un_error_set(err, -EINVAL,
                                "the segment at %#" PRIx64 " shares a page with another", s->vaddr);
        }
        p->image_start = phys < p->image_start ? phys : p->image_start;
        p->image_end = end > p->image_end ? end : p->image_end;
        if (phys == s->vaddr) {
            tables += (end - 1) / LARGE_SIZE - phys / LARGE_SIZE + 1;
        }
    }
    *ret_tables = tables;
    return 0;
}

/* The number of page tables that are needed at most. */
static uint64_t count_tables(const struct plan *p, uint64_t image_tables)
{
    uint64_t directories = (p->mem_end + GIB - 1) / GIB;
    /* Root, pointers, a directory for each GiB; tables for the channel, the image, the start of the
     * heap, and the two that end of heap and stack may touch; three levels for the doorbell. */
    uint64_t tables = 2 + directories + 1 + image_tables + 1 + 2 + 3;
    /* Pointers, directories, and what follows the last whole 2 MiB. */
    return p->paging ? tables + 1 + directories + 1 : tables;
}

static int make_plan(const struct un_elf *elf, uint64_t mem_bytes, uint32_t note_flags,
                     struct plan *ret, struct un_error *err)
{
    uint64_t image_tables = 0;
    struct plan p = {.mem_end = mem_bytes, .paging = note_flags & UNID_NOTE_PAGING};
    int rc = check_segments(elf, mem_bytes, &p, &image_tables, err);
    if (rc < 0) {
        return rc;
    }
    uint64_t tables = count_tables(&p, image_tables);
    uint64_t gap = p.paging ? 0 : PAGE_SIZE; /* the guard below the stack */
    uint64_t above_heap = gap + UNID_STACK_SIZE + tables * PAGE_SIZE;
    p.heap_start = page_up(p.image_end);
    if (mem_bytes < p.heap_start || mem_bytes - p.heap_start < above_heap + HEAP_MIN) {
        return un_error_set(err, -ENOMEM,
                            "image, heap and stack do not fit into %" PRIu64
                            " MiB: at least %" PRIu64 " are needed",
                            mem_bytes >> 20, ((p.heap_start + above_heap + HEAP_MIN) >> 20) + 1);
    }
    p.stack_top = mem_bytes - tables * PAGE_SIZE;
    p.stack_base = p.stack_top - UNID_STACK_SIZE;
    p.heap_end = p.stack_base - gap;
    *ret = p;
    return 0;
}

static uint64_t table_new(struct tables *t)
{
    if (t->next >= t->end) {
        return 0; /* cannot be: make_plan counted them */
    }
    uint64_t at = t->next;
    t->next += PAGE_SIZE;
    memset(t->mem + at, 0, PAGE_SIZE);
    return at;
}

/* The entry for `addr` in the table of the given level (1: 4 KiB pages, 2: 2 MiB), making the
 * levels above. NULL when the table pages are used up. */
static uint64_t *entry_for(struct tables *t, uint64_t addr, int level)
{
    uint64_t table = t->root;
    for (int l = 4;; l--) {
        uint64_t *entry = (uint64_t *)(void *)(t->mem + table) + (addr >> (12 + 9 * (l - 1)) & 511);
        if (l == level) {
            return entry;
        }
        if (!(*entry & PTE_PRESENT)) {
            uint64_t page = table_new(t);
            if (!page) {
                return NULL;
            }
            *entry = page | PTE_TABLE;
        }
        table = *entry & PTE_ADDR;
    }
}

/* Maps the physical pages [from, to) at from + `shift` on; by 2 MiB leaves where `large` allows and
 * both fit (`shift` is a multiple of 2 MiB). */
static int map_range(struct tables *t, uint64_t from, uint64_t to, uint64_t shift, uint64_t bits,
                     bool large)
{
    while (from < to) {
        bool leap = large && from % LARGE_SIZE == 0 && to - from >= LARGE_SIZE;
        uint64_t *entry = entry_for(t, from + shift, leap ? 2 : 1);
        if (!entry) {
            return -ENOMEM;
        }
        *entry = from | bits | (leap ? PTE_LARGE : 0);
        from += leap ? LARGE_SIZE : PAGE_SIZE;
    }
    return 0;
}

static int map_segments(struct tables *t, const struct un_elf *elf, bool paging)
{
    for (size_t i = 0; i < elf->segment_count; i++) {
        const struct un_elf_segment *s = &elf->segments[i];
        uint64_t bits = PTE_LEAF | (s->writable ? PTE_WRITE : 0) | (s->executable ? 0 : PTE_NX);
        if ((!s->readable && !s->writable && !s->executable) || (paging && in_direct_map(s))) {
            continue; /* a reserved range: any use of it faults; or mapped with all of memory */
        }
        int rc = map_range(t, page_down(s->vaddr), page_up(s->vaddr + s->mem_size), 0, bits, false);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* What the guest has besides channel and segments. */
static int map_rest(struct tables *t, const struct plan *p)
{
    if (p->paging) {
        return map_range(t, UNID_IMAGE_MIN, p->mem_end, UNID_DIRECT_MAP, PTE_DATA, true);
    }
    int rc = map_range(t, p->heap_start, p->heap_end, 0, PTE_DATA, true);
    return rc < 0 ? rc : map_range(t, p->stack_base, p->stack_top, 0, PTE_DATA, false);
}

static int map_all(const struct hv_layout_spec *spec, const struct plan *p,
                   const struct un_elf *elf, struct hv_layout *ret, struct un_error *err)
{
    struct tables t = {.mem = spec->mem, .next = p->stack_top, .end = p->mem_end};
    t.root = table_new(&t);
    int rc = map_range(&t, UNID_BOOT_ADDR, UNID_CHANNEL_END, 0, PTE_DATA, false);
    rc = rc < 0 ? rc : map_segments(&t, elf, p->paging);
    rc = rc < 0 ? rc : map_rest(&t, p);
    if (rc == 0 && spec->doorbell == HV_DOORBELL_MEMORY) {
        uint64_t page = page_down(spec->doorbell_addr);
        rc = map_range(&t, page, page + PAGE_SIZE, 0, PTE_DATA, false);
    }
    if (rc < 0) {
        return un_error_set(err, rc, "the page tables do not fit");
    }
    ret->cr3 = t.root;
    ret->low_table = entry_for(&t, 0, 2)[0] & PTE_ADDR;
    return 0;
}

/* The stack's end as the guest sees it. */
static uint64_t stack_address(const struct plan *p)
{
    return p->paging ? UNID_DIRECT_MAP + p->stack_top : p->stack_top;
}

/* Packs `list` behind *used bytes of the string area; gives their number. */
static int put_strings(uint8_t *area, const char *const *list, size_t *used, uint32_t *ret_count,
                       struct un_error *err)
{
    uint32_t count = 0;
    for (; list && list[count]; count++) {
        size_t size = strlen(list[count]) + 1;
        if (size > UNID_STRINGS_SIZE - *used) {
            return un_error_set(err, -E2BIG,
                                "arguments and environment are longer than %" PRIu64 " bytes",
                                (uint64_t)UNID_STRINGS_SIZE);
        }
        memcpy(area + *used, list[count], size);
        *used += size;
    }
    *ret_count = count;
    return 0;
}

static int put_boot(const struct hv_layout_spec *spec, const struct plan *p,
                    const struct hv_run_spec *run, struct un_error *err)
{
    struct unid_boot boot = {
        .magic = UNID_ABI_MAGIC,
        .major = UNID_ABI_MAJOR,
        .minor = UNID_ABI_MINOR,
        .size = sizeof(boot),
        .flags = spec->boot_flags | (run->ask_first ? UNID_BOOT_ASK_FIRST : 0),
        .doorbell_kind = (uint32_t)spec->doorbell,
        .doorbell_port = spec->doorbell == HV_DOORBELL_PORT ? spec->doorbell_port : 0,
        .doorbell_addr = spec->doorbell == HV_DOORBELL_MEMORY ? spec->doorbell_addr : 0,
        .memory_end = p->mem_end,
        .image_start = p->image_start,
        .image_end = p->image_end,
        .heap_start = p->heap_start,
        .heap_end = p->heap_end,
        .stack_top = stack_address(p),
        .tsc_hz = spec->tsc_hz,
        .page_root = p->paging ? p->stack_top : 0, /* the first of the tables, see map_all */
        .interface = run->interface,
    };
    size_t used = 0;
    int rc = put_strings(spec->mem + UNID_STRINGS_ADDR, run->argv, &used, &boot.argc, err);
    if (rc == 0) {
        rc = put_strings(spec->mem + UNID_STRINGS_ADDR, run->envp, &used, &boot.envc, err);
    }
    if (rc < 0) {
        return rc;
    }
    boot.strings_len = (uint32_t)used;
    memcpy(spec->mem + UNID_BOOT_ADDR, &boot, sizeof(boot));
    return 0;
}

int hv_layout_build(const struct hv_layout_spec *spec, const struct hv_run_spec *run,
                    struct hv_layout *ret, struct un_error *err)
{
    struct un_elf elf = {0};
    struct plan plan = {0};
    uint32_t flags = 0;
    int rc = check_spec(spec, err);
    if (rc == 0) {
        rc = read_image(run, &elf, &flags, err);
    }
    if (rc == 0) {
        rc = make_plan(&elf, spec->mem_bytes, flags, &plan, err);
    }
    if (rc == 0) {
        rc = put_boot(spec, &plan, run, err);
    }
    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < elf.segment_count; i++) {
        const struct un_elf_segment *s = &elf.segments[i];
        memcpy(spec->mem + phys_of(s, plan.paging), run->image + s->offset, s->file_size);
    }
    struct hv_layout made = {.rip = elf.entry,
                             .rsp = stack_address(&plan) - 8,
                             .rdi = UNID_BOOT_ADDR,
                             .guard = plan.paging ? 0 : plan.heap_end};
    rc = map_all(spec, &plan, &elf, &made, err);
    if (rc < 0) {
        return rc;
    }
    *ret = made;
    return 0;
}
