/* plan.c - see boot.h. */
#include "hypervisor/libvirt/loader/boot.h"

enum {
    FIRST_WITHIN = 8192,
    SECOND_WITHIN = 32768,
    ELF_32 = 1,
    ELF_64 = 2,
    ELF_LOAD = 1,
    ELF_X86_64 = 62,
    KNOWN_TAGS = 21 /* of what a kernel may ask to be told */
};
#define ELF_MAGIC       0x464c457fu
#define FIRST_MAGIC     0x1badb002u
#define SECOND_MAGIC    0xe85250d6u
#define FIRST_ADDRESSES 0x10000u /* the header says where the file goes */
#define FROM_START      0xffffffffu

struct file {
    const uint8_t *at;
    uint32_t len;
};

/* Reads beyond the end give 0; what depends on them is refused by its range. */
static uint32_t u32(const struct file *f, uint32_t at)
{
    return at > f->len || f->len - at < 4
               ? 0
               : f->at[at] | (uint32_t)f->at[at + 1] << 8 | (uint32_t)f->at[at + 2] << 16 |
                     (uint32_t)f->at[at + 3] << 24;
}

static uint32_t u16(const struct file *f, uint32_t at)
{
    return u32(f, at) & 0xffff;
}

static uint64_t u64(const struct file *f, uint32_t at)
{
    return u32(f, at) | (uint64_t)u32(f, at + 4) << 32;
}

static bool in_file(const struct file *f, uint64_t from, uint64_t size)
{
    return from <= f->len && size <= f->len - from;
}

static const char *add(struct boot_plan *plan, const struct file *f, uint64_t to, uint64_t from,
                       uint64_t file_size, uint64_t mem_size)
{
    if (mem_size == 0) {
        return 0;
    }
    if (!in_file(f, from, file_size) || file_size > mem_size) {
        return "a segment goes beyond the file's end";
    }
    if (to > UINT32_MAX || mem_size > UINT32_MAX - to) {
        return "a segment goes beyond 4 GiB";
    }
    if (plan->piece_count == BOOT_PIECES) {
        return "it has more than 16 segments";
    }
    plan->pieces[plan->piece_count++] =
        (struct boot_piece){.to = (uint32_t)to,
                            .from = (uint32_t)from,
                            .file_size = (uint32_t)file_size,
                            .zero_size = (uint32_t)(mem_size - file_size)};
    plan->low = to < plan->low ? (uint32_t)to : plan->low;
    plan->high = to + mem_size > plan->high ? (uint32_t)(to + mem_size) : plan->high;
    return 0;
}

/* --- ELF ---------------------------------------------------------------------------------------- */

struct segment {
    uint32_t type;
    uint64_t offset, vaddr, paddr, file_size, mem_size;
};

enum entry_of { VIRTUAL, PHYSICAL };

static struct segment segment_at(const struct file *f, uint32_t at, bool is64)
{
    if (is64) {
        return (struct segment){u32(f, at),      u64(f, at + 8),  u64(f, at + 16),
                                u64(f, at + 24), u64(f, at + 32), u64(f, at + 40)};
    }
    return (struct segment){u32(f, at),      u32(f, at + 4),  u32(f, at + 8),
                            u32(f, at + 12), u32(f, at + 16), u32(f, at + 20)};
}

/* The entry is an address as `entry_of` says: a virtual one is where paging will have it, and begins where the
 * segment is. */
static const char *plan_elf(const struct file *f, enum entry_of entry_of, struct boot_plan *plan)
{
    if (u32(f, 0) != ELF_MAGIC || (f->at[4] != ELF_32 && f->at[4] != ELF_64)) {
        return "it is no ELF file";
    }
    bool is64 = f->at[4] == ELF_64, entered = false;
    uint64_t entry = is64 ? u64(f, 24) : u32(f, 24), table = is64 ? u64(f, 32) : u32(f, 28);
    uint32_t size = u16(f, is64 ? 54 : 42), count = u16(f, is64 ? 56 : 44);
    if (size < (is64 ? 56 : 32) || !in_file(f, table, (uint64_t)size * count)) {
        return "its program headers are not in the file";
    }
    for (uint32_t i = 0; i < count; i++) {
        struct segment s = segment_at(f, (uint32_t)table + i * size, is64);
        if (s.type != ELF_LOAD) {
            continue;
        }
        const char *wrong = add(plan, f, s.paddr, s.offset, s.file_size, s.mem_size);
        if (wrong) {
            return wrong;
        }
        uint64_t begin = entry_of == VIRTUAL ? s.vaddr : s.paddr;
        if (entry >= begin && entry - begin < s.mem_size) {
            plan->entry = (uint32_t)(s.paddr + (entry - begin));
            entered = true;
        }
    }
    return plan->piece_count == 0 ? "it has no segments"
           : !entered             ? "its entry is in no segment"
                                  : 0;
}

/* --- addresses in the header -------------------------------------------------------------------- */

struct addresses {
    uint32_t header, load, load_end, bss_end;
};

/* The file, from where the header says on, to one place. `at` is the header's in the file. */
static const char *plan_flat(const struct file *f, uint32_t at, const struct addresses *a,
                             struct boot_plan *plan)
{
    uint32_t load = a->load == FROM_START ? a->header - at : a->load;
    uint32_t from = at - (a->header - load);
    if (load > a->header || a->header - load > at) {
        return "its header's addresses do not belong together";
    }
    uint32_t end = a->load_end ? a->load_end : load + (f->len - from);
    uint32_t bss_end = a->bss_end > end ? a->bss_end : end;
    if (end < load) {
        return "its header's addresses do not belong together";
    }
    return add(plan, f, load, from, end - load, bss_end - load);
}

/* --- the headers -------------------------------------------------------------------------------- */

static const char *plan_first(const struct file *f, uint32_t at, struct boot_plan *plan)
{
    uint32_t flags = u32(f, at + 4);
    plan->protocol = BOOT_MULTIBOOT1;
    if (flags &
        0xfff8) { /* that have to be understood; 1 modules on pages, 2 memory, 4 a video mode */
        return "its header wants what no loader knows";
    }
    if (!(flags & FIRST_ADDRESSES)) {
        return plan_elf(f, VIRTUAL, plan);
    }
    struct addresses a = {u32(f, at + 12), u32(f, at + 16), u32(f, at + 20), u32(f, at + 24)};
    plan->entry = u32(f, at + 28);
    return plan_flat(f, at, &a, plan);
}

enum header_tag {
    TAG_END,
    TAG_REQUEST,
    TAG_ADDRESS,
    TAG_ENTRY,
    TAG_CONSOLE,
    TAG_FRAMEBUFFER,
    TAG_MODULE_ALIGN,
    TAG_EFI_SERVICES,
    TAG_EFI_ENTRY_32,
    TAG_EFI_ENTRY_64,
    TAG_RELOCATABLE
};

static const char *check_request(const struct file *f, uint32_t at, uint32_t size)
{
    for (uint32_t i = 8; i + 4 <= size; i += 4) {
        if (u32(f, at + i) > KNOWN_TAGS) {
            return "it asks to be told what no loader knows";
        }
    }
    return 0;
}

static const char *plan_second(const struct file *f, uint32_t header, struct boot_plan *plan)
{
    uint32_t len = u32(f, header + 8), flat_at = 0, entry_at = 0;
    plan->protocol = BOOT_MULTIBOOT2;
    if (u32(f, header + 4) != 0) {
        return "its multiboot header is for another architecture";
    }
    if (len < 16 || !in_file(f, header, len)) {
        return "its multiboot header goes beyond the file's end";
    }
    for (uint32_t at = header + 16, size; at + 8 <= header + len; at += (size + 7) & ~7u) {
        uint32_t type = u16(f, at);
        bool optional = u16(f, at + 2) & 1;
        const char *wrong = 0;
        size = u32(f, at + 4);
        if (type == TAG_END) {
            break;
        }
        if (size < 8 || size > header + len - at) {
            return "a tag goes beyond its multiboot header";
        }
        switch (type) {
        case TAG_REQUEST:
            wrong = optional ? 0 : check_request(f, at, size);
            break;
        case TAG_ADDRESS:
            flat_at = at;
            break;
        case TAG_ENTRY:
            entry_at = at;
            break;
        case TAG_FRAMEBUFFER:
            wrong = optional ? 0 : "it needs a screen";
            break;
        case TAG_CONSOLE: /* there is a serial one, of which the specification does not know */
        case TAG_MODULE_ALIGN:
        case TAG_EFI_SERVICES:
        case TAG_EFI_ENTRY_32:
        case TAG_EFI_ENTRY_64: /* for firmware that this is not */
        case TAG_RELOCATABLE:  /* it may be somewhere else; it is where it wants to be */
            break;
        default:
            wrong = optional ? 0 : "its multiboot header has a tag that no loader knows";
        }
        if (wrong) {
            return wrong;
        }
    }
    if (flat_at && !entry_at) {
        return "its multiboot header says where it goes, but not where it begins";
    }
    struct addresses a = {u32(f, flat_at + 8), u32(f, flat_at + 12), u32(f, flat_at + 16),
                          u32(f, flat_at + 20)};
    const char *wrong = flat_at ? plan_flat(f, header, &a, plan) : plan_elf(f, VIRTUAL, plan);
    plan->entry = entry_at ? u32(f, entry_at + 8) : plan->entry;
    return wrong;
}

/* Without a multiboot header; as Firecracker takes it. */
static const char *plan_linux(const struct file *f, struct boot_plan *plan)
{
    plan->protocol = BOOT_LINUX64;
    if (u32(f, 0) != ELF_MAGIC || (u32(f, 4) & 0xff) != ELF_64 || u16(f, 18) != ELF_X86_64) {
        return "it has no multiboot header, and is no ELF file for x86-64";
    }
    return plan_elf(f, PHYSICAL, plan);
}

const char *boot_plan(const uint8_t *image, uint32_t len, struct boot_plan *ret)
{
    struct file f = {image, len};
    *ret = (struct boot_plan){.low = UINT32_MAX};
    for (uint32_t at = 0; at + 16 <= len && at + 16 <= SECOND_WITHIN; at += 8) {
        if (u32(&f, at) == SECOND_MAGIC &&
            u32(&f, at) + u32(&f, at + 4) + u32(&f, at + 8) + u32(&f, at + 12) == 0) {
            return plan_second(&f, at, ret);
        }
    }
    for (uint32_t at = 0; at + 12 <= len && at + 12 <= FIRST_WITHIN; at += 4) {
        if (u32(&f, at) == FIRST_MAGIC && u32(&f, at) + u32(&f, at + 4) + u32(&f, at + 8) == 0) {
            return plan_first(&f, at, ret);
        }
    }
    return plan_linux(&f, ret);
}
