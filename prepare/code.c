/* code.c - what an ELF file's own tables say of its code (see code.h).
 *
 * Functions come from symbols (System V gABI chapter 4, "Symbol Table"), from unwind tables (frames.c)
 * and from Go's own table (gotable.c). Addresses that data hold are taken for possible jump targets: every aligned word of
 * 8 bytes outside of the code, which covers pointers to functions, absolute jump tables, and the
 * addends and places of relative relocations.
 */
#include "prepare/code.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/limits.h"

/* Linux programs lie below (Documentation/arch/x86/x86_64/mm.rst). */
#define USER_SPACE_END ((uint64_t)1 << 47)

struct section {
    uint32_t name, type, link;
    uint64_t flags, addr, offset, size, entsize;
};

static bool read_section(const struct code *c, unsigned index, struct section *ret)
{
    struct un_reader r = un_reader_of(c->data, c->size);
    uint64_t at;
    if (index >= c->elf.shnum || c->elf.shentsize != sizeof(Elf64_Shdr) ||
        __builtin_add_overflow(c->elf.shoff, (uint64_t)index * sizeof(Elf64_Shdr), &at)) {
        return false;
    }
    un_read_seek(&r, at);
    ret->name = un_read_u32le(&r);
    ret->type = un_read_u32le(&r);
    ret->flags = un_read_u64le(&r);
    ret->addr = un_read_u64le(&r);
    ret->offset = un_read_u64le(&r);
    ret->size = un_read_u64le(&r);
    ret->link = un_read_u32le(&r);
    un_read_skip(&r, 4 + 8); /* sh_info, sh_addralign */
    ret->entsize = un_read_u64le(&r);
    if (ret->type == SHT_NOBITS) {
        return !r.failed;
    }
    return !r.failed && ret->offset <= c->size && ret->size <= c->size - ret->offset;
}

/* --- ranges ----------------------------------------------------------------------------------- */

static int by_start(const void *a, const void *b)
{
    const struct code_range *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* Whether a section's place in the file is the one that the executable segment around it says. */
static bool in_code_segment(const struct code *c, const struct section *s)
{
    for (size_t i = 0; i < c->elf.segment_count; i++) {
        const struct un_elf_segment *seg = &c->elf.segments[i];
        if (seg->executable && s->addr >= seg->vaddr && s->addr - seg->vaddr <= seg->file_size &&
            s->size <= seg->file_size - (s->addr - seg->vaddr)) {
            return seg->offset + (s->addr - seg->vaddr) == s->offset;
        }
    }
    return false;
}

static bool push_range(struct code *c, uint64_t start, uint64_t offset, uint64_t size)
{
    struct code_range *more = reallocarray(c->ranges, c->range_count + 1, sizeof *more);
    if (!more) {
        return false;
    }
    c->ranges = more;
    c->ranges[c->range_count++] =
        (struct code_range){.start = start, .end = start + size, .offset = offset};
    return true;
}

static bool push_sections(struct code *c)
{
    struct section s;
    for (unsigned i = 0; i < c->elf.shnum; i++) {
        if (read_section(c, i, &s) && s.type == SHT_PROGBITS && s.size > 0 &&
            (s.flags & SHF_EXECINSTR) && (s.flags & SHF_ALLOC) && in_code_segment(c, &s) &&
            !push_range(c, s.addr, s.offset, s.size)) {
            return false;
        }
    }
    return true;
}

static bool push_segments(struct code *c)
{
    for (size_t i = 0; i < c->elf.segment_count; i++) {
        const struct un_elf_segment *seg = &c->elf.segments[i];
        if (seg->executable && seg->file_size > 0 &&
            !push_range(c, seg->vaddr, seg->offset, seg->file_size)) {
            return false;
        }
    }
    return true;
}

static int find_ranges(struct code *c, struct un_error *err)
{
    bool ok = push_sections(c);
    if (ok && c->range_count > 0) {
        qsort(c->ranges, c->range_count, sizeof c->ranges[0], by_start);
        for (size_t i = 1; i < c->range_count; i++) {
            if (c->ranges[i].start < c->ranges[i - 1].end) {
                c->range_count = 0; /* headers that contradict themselves say nothing */
            }
        }
    }
    /* What is executable in memory but in no executable section is data: old linkers put them into
     * one segment. */
    ok = ok && (c->range_count > 0 || push_segments(c));
    if (!ok) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    if (c->range_count > 0) {
        qsort(c->ranges, c->range_count, sizeof c->ranges[0], by_start);
    }
    for (size_t i = 0; i < c->range_count; i++) {
        c->ranges[i].first_bit = c->bit_count;
        c->bit_count += (size_t)(c->ranges[i].end - c->ranges[i].start);
    }
    return 0;
}

const struct code_range *code_range_of(const struct code *c, uint64_t addr)
{
    size_t low = 0, high = c->range_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (addr < c->ranges[mid].start) {
            high = mid;
        } else if (addr >= c->ranges[mid].end) {
            low = mid + 1;
        } else {
            return &c->ranges[mid];
        }
    }
    return NULL;
}

/* --- what is added ---------------------------------------------------------------------------- */

bool code_is_target(const struct code *c, uint64_t addr)
{
    const struct code_range *r = code_range_of(c, addr);
    return r && code_bit(c->targets, code_index(r, addr));
}

bool code_any(const uint64_t *bits, const struct code_range *r, uint64_t from, uint64_t to)
{
    size_t at = code_index(r, from), end = code_index(r, to);
    while (at < end) {
        if (at % 64 == 0 && bits[at / 64] == 0) {
            at += 64;
        } else if (code_bit(bits, at)) {
            return true;
        } else {
            at++;
        }
    }
    return false;
}

static void push_address(struct code *c, uint64_t **list, size_t *count, size_t *room,
                         uint64_t addr)
{
    if (*count == *room) {
        size_t want = *room ? 2 * *room : 1024;
        uint64_t *more = c->out_of_memory ? NULL : reallocarray(*list, want, sizeof *more);
        if (!more) {
            c->out_of_memory = true;
            return;
        }
        *list = more;
        *room = want;
    }
    (*list)[(*count)++] = addr;
}

void code_add_target(struct code *c, uint64_t addr)
{
    const struct code_range *r = code_range_of(c, addr);
    if (!r || code_bit(c->targets, code_index(r, addr))) {
        return;
    }
    code_set(c->targets, code_index(r, addr));
    if (c->flow) {
        push_address(c, &c->fresh, &c->fresh_count, &c->fresh_room, addr);
    }
}

void code_add_function(struct code *c, uint64_t start, uint64_t end)
{
    struct code_range *r = (struct code_range *)code_range_of(c, start);
    if (!r || c->out_of_memory) {
        return;
    }
    if (end < start || end > r->end) {
        end = start;
    }
    if (c->function_count == c->function_room) {
        size_t room = c->function_room ? 2 * c->function_room : 1024;
        struct code_function *more = reallocarray(c->functions, room, sizeof *more);
        if (!more) {
            c->out_of_memory = true;
            return;
        }
        c->functions = more;
        c->function_room = room;
    }
    c->functions[c->function_count++] = (struct code_function){.start = start, .end = end};
    r->has_functions |= end > start;
    code_set(c->targets, code_index(r, start));
}

void code_add_table(struct code *c, uint64_t addr)
{
    uint64_t at;
    if (addr % 4 == 0 && un_elf_offset(&c->elf, addr, 4, &at)) {
        push_address(c, &c->tables, &c->table_count, &c->table_room, addr);
    }
}

void code_add_root(struct code *c, uint64_t addr)
{
    const struct code_function *f = code_function_before(c, addr);
    const struct code_range *r = code_range_of(c, addr);
    if (r && !(f && addr < f->end) && !code_bit(c->reached, code_index(r, addr))) {
        push_address(c, &c->roots, &c->root_count, &c->root_room, addr);
    }
}

/* --- functions -------------------------------------------------------------------------------- */

/* By start; the longest of those at one place first. */
static int by_place(const void *a, const void *b)
{
    const struct code_function *x = a, *y = b;
    if (x->start != y->start) {
        return x->start < y->start ? -1 : 1;
    }
    return x->end > y->end ? -1 : x->end < y->end;
}

static void sort_functions(struct code *c)
{
    size_t kept = 0;
    if (c->function_count == 0) {
        return;
    }
    qsort(c->functions, c->function_count, sizeof c->functions[0], by_place);
    for (size_t i = 0; i < c->function_count; i++) {
        if (kept == 0 || c->functions[i].start != c->functions[kept - 1].start) {
            struct code_function *f = &c->functions[kept++], *before = f - 1;
            *f = c->functions[i];
            /* A second entry of a function has no length of its own. */
            if (f->end == f->start && kept > 1 && f->start < before->end) {
                f->end = before->end;
            }
        }
    }
    c->function_count = kept;
}

const struct code_function *code_function_before(const struct code *c, uint64_t addr)
{
    size_t low = 0, high = c->function_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (c->functions[mid].start <= addr) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low > 0 ? &c->functions[low - 1] : NULL;
}

static void read_symbols(struct code *c, const struct section *s)
{
    struct un_reader r = un_reader_of(c->data, s->offset + s->size);
    un_read_seek(&r, s->offset);
    while (r.len - r.pos >= sizeof(Elf64_Sym)) {
        un_read_skip(&r, 4); /* st_name */
        unsigned type = ELF64_ST_TYPE(un_read_u8(&r));
        un_read_skip(&r, 1); /* st_other */
        unsigned index = un_read_u16le(&r);
        uint64_t value = un_read_u64le(&r), size = un_read_u64le(&r);
        if (index == SHN_UNDEF || index == SHN_ABS) {
            continue;
        }
        if (type == STT_FUNC || type == STT_GNU_IFUNC) {
            code_add_function(c, value, size <= UINT64_MAX - value ? value + size : value);
        } else if (type != STT_TLS && type != STT_FILE) {
            code_add_target(c, value);
        }
    }
}

static bool section_is(const struct code *c, const struct section *s, const char *name)
{
    struct section names;
    if (!read_section(c, c->elf.shstrndx, &names) || names.type != SHT_STRTAB ||
        s->name >= names.size || names.size - s->name <= strlen(name)) {
        return false;
    }
    return memcmp(c->data + names.offset + s->name, name, strlen(name) + 1) == 0;
}

static void read_tables(struct code *c)
{
    bool frames = false;
    struct section s;
    for (unsigned i = 0; i < c->elf.shnum; i++) {
        if (!read_section(c, i, &s)) {
            continue;
        }
        if (s.type == SHT_SYMTAB || s.type == SHT_DYNSYM) {
            read_symbols(c, &s);
        } else if ((s.type == SHT_PROGBITS || s.type == SHT_X86_64_UNWIND) &&
                   (s.flags & SHF_ALLOC) && section_is(c, &s, ".eh_frame")) {
            code_read_frames(c, s.addr, s.offset, s.size);
            frames = true;
        } else if (s.type == SHT_PROGBITS && (section_is(c, &s, ".gopclntab") ||
                                              section_is(c, &s, ".data.rel.ro.gopclntab"))) {
            code_read_go_table(c, s.offset, s.size);
        }
    }
    /* .eh_frame_hdr: version, three encodings, then the address of .eh_frame; Linux Standard Base
     * Core 5.0, 10.6.2. Only the encoding that linkers write. */
    const struct un_elf_extent *hdr = &c->elf.eh_frame_hdr;
    if (!frames && hdr->file_size >= 8 && c->data[hdr->offset] == 1 &&
        c->data[hdr->offset + 1] == 0x1b) {
        struct un_reader r = un_reader_of(c->data, c->size);
        un_read_seek(&r, hdr->offset + 4);
        uint64_t at = hdr->vaddr + 4 + (uint64_t)(int64_t)(int32_t)un_read_u32le(&r), offset;
        for (size_t i = 0; i < c->elf.segment_count; i++) {
            const struct un_elf_segment *seg = &c->elf.segments[i];
            if (un_elf_offset(&c->elf, at, 4, &offset) && offset >= seg->offset &&
                offset - seg->offset < seg->file_size) {
                code_read_frames(c, at, offset, seg->file_size - (offset - seg->offset));
                break;
            }
        }
    }
}

/* --- all of it ---------------------------------------------------------------------------------- */

int code_init(struct code *c, const uint8_t *data, size_t size, struct un_error *err)
{
    *c = (struct code){.data = data, .size = size};
    int rc = un_elf_parse_library(data, size, size, &c->elf, err);
    if (rc < 0) {
        return rc;
    }
    if (!c->elf.is64) {
        return un_error_set(err, -EINVAL, "ELF: a 32-bit file; programs must be 64-bit x86");
    }
    if (c->elf.high > USER_SPACE_END) {
        return un_error_set(err, -EINVAL, "ELF: segments up to 0x%" PRIx64 ": no Linux program",
                            c->elf.high);
    }
    rc = find_ranges(c, err);
    if (rc < 0 || c->range_count == 0) {
        return rc;
    }
    size_t words = c->bit_count / 64 + 1;
    c->starts = calloc(words, 8);
    c->bad = calloc(words, 8);
    c->targets = calloc(words, 8);
    c->reached = calloc(words, 8);
    if (!c->starts || !c->bad || !c->targets || !c->reached) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    code_add_target(c, c->elf.entry);
    read_tables(c);
    code_read_pointers(c);
    sort_functions(c);
    code_add_root(c, c->elf.entry);
    for (size_t i = 0; i < c->function_count; i++) {
        code_add_root(c, c->functions[i].start);
    }
    return c->out_of_memory ? un_error_set(err, -ENOMEM, "out of memory") : 0;
}

void code_done(struct code *c)
{
    free(c->ranges);
    free(c->functions);
    free(c->starts);
    free(c->bad);
    free(c->targets);
    free(c->reached);
    free(c->roots);
    free(c->tables);
    free(c->flow);
    free(c->fresh);
    *c = (struct code){0};
}
