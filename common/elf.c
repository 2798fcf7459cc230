/* elf.c - see elf.h. Offsets and sizes: System V gABI 4.1, "ELF Header" and "Program Header". */
#include "common/elf.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/cleanup.h"

bool un_elf_is(const void *data, size_t len)
{
    return len >= SELFMAG && memcmp(data, ELFMAG, SELFMAG) == 0;
}

/* A word as wide as the file's class: 8 or 4 bytes. */
static uint64_t read_word(struct un_reader *r, bool is64)
{
    return is64 ? un_read_u64le(r) : un_read_u32le(r);
}

static int read_ident(struct un_reader *r, struct un_elf *elf, struct un_error *err)
{
    const uint8_t *ident = un_read_bytes(r, EI_NIDENT);
    if (!ident || memcmp(ident, ELFMAG, SELFMAG) != 0) {
        return un_error_set(err, -EINVAL, "ELF: no ELF header");
    }
    if (ident[EI_CLASS] != ELFCLASS32 && ident[EI_CLASS] != ELFCLASS64) {
        return un_error_set(err, -EINVAL, "ELF: class %u is neither 32 nor 64 bit",
                            ident[EI_CLASS]);
    }
    if (ident[EI_DATA] != ELFDATA2LSB) {
        return un_error_set(err, -ENOTSUP, "ELF: byte order %u, only little-endian runs here",
                            ident[EI_DATA]);
    }
    elf->is64 = ident[EI_CLASS] == ELFCLASS64;
    return 0;
}

static const char *machine_name(unsigned machine)
{
    static const struct {
        unsigned machine;
        const char *name;
    } known[] = {{EM_386, "32-bit x86"}, {EM_ARM, "32-bit ARM"}, {EM_AARCH64, "ARM64"},
                 {EM_RISCV, "RISC-V"},   {EM_PPC64, "POWER"},    {EM_S390, "S/390"},
                 {EM_X86_64, "x86-64"}};
    for (size_t i = 0; i < UN_ARRAY_SIZE(known); i++) {
        if (known[i].machine == machine) {
            return known[i].name;
        }
    }
    return "another CPU";
}

static int read_header(struct un_reader *r, uint64_t file_size, struct un_elf *elf,
                       struct un_error *err)
{
    int rc = read_ident(r, elf, err);
    if (rc < 0) {
        return rc;
    }
    elf->type = un_read_u16le(r);
    elf->machine = un_read_u16le(r);
    un_read_skip(r, 4); /* e_version */
    elf->entry = read_word(r, elf->is64);
    elf->phoff = read_word(r, elf->is64);
    elf->shoff = read_word(r, elf->is64);
    un_read_skip(r, 4 + 2); /* e_flags, e_ehsize */
    uint16_t phentsize = un_read_u16le(r);
    elf->phnum = un_read_u16le(r);
    elf->shentsize = un_read_u16le(r);
    elf->shnum = un_read_u16le(r);
    elf->shstrndx = un_read_u16le(r);
    if (r->failed) {
        return un_error_set(err, -EINVAL, "ELF: the file ends inside its header");
    }
    if (elf->machine != (elf->is64 ? EM_X86_64 : EM_386)) {
        return un_error_set(err, -ENOTSUP, "ELF: made for %s (machine %u), only x86-64 runs here",
                            machine_name(elf->machine), elf->machine);
    }
    if (elf->type != ET_EXEC && elf->type != ET_DYN) {
        return un_error_set(err, -EINVAL, "ELF: type %u is not a program", elf->type);
    }
    size_t want = elf->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    if (phentsize != want) {
        return un_error_set(err, -EINVAL, "ELF: program headers of %u bytes, not %zu", phentsize,
                            want);
    }
    uint64_t end;
    if (elf->phnum == 0 || __builtin_add_overflow(elf->phoff, elf->phnum * want, &end) ||
        end > file_size) {
        return un_error_set(err, -EINVAL,
                            "ELF: %u program headers at offset %" PRIu64
                            " do not lie in the file's %" PRIu64 " bytes",
                            elf->phnum, elf->phoff, file_size);
    }
    return 0;
}

struct program_header {
    uint32_t type, flags;
    uint64_t offset, vaddr, paddr, file_size, mem_size;
};

static void read_program_header(struct un_reader *r, bool is64, struct program_header *ret)
{
    ret->type = un_read_u32le(r);
    if (is64) {
        ret->flags = un_read_u32le(r);
    }
    ret->offset = read_word(r, is64);
    ret->vaddr = read_word(r, is64);
    ret->paddr = read_word(r, is64);
    ret->file_size = read_word(r, is64);
    ret->mem_size = read_word(r, is64);
    if (!is64) {
        ret->flags = un_read_u32le(r);
    }
    (void)read_word(r, is64); /* p_align */
}

static int add_segment(struct un_elf *elf, const struct program_header *ph, unsigned index,
                       struct un_error *err)
{
    uint64_t end;
    if (ph->file_size > ph->mem_size) {
        return un_error_set(err, -EINVAL,
                            "ELF: segment %u has %" PRIu64 " bytes in the file and %" PRIu64
                            " in memory",
                            index, ph->file_size, ph->mem_size);
    }
    if (__builtin_add_overflow(ph->vaddr, ph->mem_size, &end) ||
        (!elf->is64 && end > (uint64_t)UINT32_MAX + 1)) {
        return un_error_set(err, -EINVAL,
                            "ELF: segment %u: %" PRIu64 " bytes at 0x%" PRIx64
                            " pass the end of the address space",
                            index, ph->mem_size, ph->vaddr);
    }
    if (ph->mem_size == 0) {
        return 0;
    }
    if (elf->segment_count == UN_ELF_SEGMENTS_MAX) {
        return un_error_set(err, -EINVAL, "ELF: more than %d segments", UN_ELF_SEGMENTS_MAX);
    }
    elf->segments[elf->segment_count++] = (struct un_elf_segment){
        .vaddr = ph->vaddr,
        .mem_size = ph->mem_size,
        .paddr = ph->paddr,
        .offset = ph->offset,
        .file_size = ph->file_size,
        .readable = ph->flags & PF_R,
        .writable = ph->flags & PF_W,
        .executable = ph->flags & PF_X,
    };
    return 0;
}

/* The headers that are no segments to load, as far as somebody asks for them. */
static void note_special(struct un_elf *elf, const struct program_header *ph)
{
    struct un_elf_extent extent = {.vaddr = ph->vaddr,
                                   .mem_size = ph->mem_size,
                                   .offset = ph->offset,
                                   .file_size = ph->file_size};
    switch (ph->type) {
    case PT_INTERP:
        elf->has_interp = true;
        elf->interp = extent;
        break;
    case PT_DYNAMIC:
        elf->has_dynamic = true;
        elf->dynamic = extent;
        break;
    case PT_TLS:
        elf->tls = extent;
        break;
    case PT_GNU_EH_FRAME:
        elf->eh_frame_hdr = extent;
        break;
    case PT_GNU_STACK:
        elf->executable_stack = ph->flags & PF_X;
        break;
    default:
        break;
    }
}

static int read_program_headers(struct un_reader *r, uint64_t file_size, struct un_elf *elf,
                                struct un_error *err)
{
    un_read_seek(r, elf->phoff);
    for (unsigned i = 0; i < elf->phnum; i++) {
        struct program_header ph = {0};
        read_program_header(r, elf->is64, &ph);
        if (r->failed) {
            return un_error_set(err, -EINVAL, "ELF: program headers lie behind the first %zu bytes",
                                r->len);
        }
        /* strip leaves the offsets of segments without bytes in the file as they were. */
        if (ph.file_size == 0 && ph.offset > file_size) {
            ph.offset = 0;
        }
        uint64_t end;
        if (__builtin_add_overflow(ph.offset, ph.file_size, &end) || end > file_size) {
            return un_error_set(err, -EINVAL,
                                "ELF: segment %u: %" PRIu64 " bytes at offset %" PRIu64
                                " do not lie in the file's %" PRIu64 " bytes",
                                i, ph.file_size, ph.offset, file_size);
        }
        note_special(elf, &ph);
        if (ph.type == PT_LOAD) {
            int rc = add_segment(elf, &ph, i, err);
            if (rc < 0) {
                return rc;
            }
        }
    }
    return 0;
}

static int by_address(const void *a, const void *b)
{
    const struct un_elf_segment *x = a, *y = b;
    return x->vaddr < y->vaddr ? -1 : x->vaddr > y->vaddr;
}

/* What can only be said of all segments together: overlap, span, entry. */
static int check_segments(struct un_elf *elf, bool library, struct un_error *err)
{
    if (elf->segment_count == 0) {
        return un_error_set(err, -EINVAL, "ELF: nothing to load");
    }
    qsort(elf->segments, elf->segment_count, sizeof elf->segments[0], by_address);
    bool entry_ok = library;
    for (size_t i = 0; i < elf->segment_count; i++) {
        const struct un_elf_segment *s = &elf->segments[i];
        if (i > 0 && s->vaddr < s[-1].vaddr + s[-1].mem_size) {
            return un_error_set(err, -EINVAL,
                                "ELF: segments at 0x%" PRIx64 " and 0x%" PRIx64 " overlap",
                                s[-1].vaddr, s->vaddr);
        }
        entry_ok |= s->executable && elf->entry >= s->vaddr && elf->entry - s->vaddr < s->mem_size;
    }
    if (!entry_ok) {
        return un_error_set(
            err, -EINVAL, "ELF: entry point 0x%" PRIx64 " is not in executable memory", elf->entry);
    }
    const struct un_elf_segment *last = &elf->segments[elf->segment_count - 1];
    elf->low = elf->segments[0].vaddr;
    elf->high = last->vaddr + last->mem_size;
    return 0;
}

static int parse(const void *data, size_t len, uint64_t file_size, bool library, struct un_elf *ret,
                 struct un_error *err)
{
    struct un_elf elf = {0};
    struct un_reader r = un_reader_of(data, len);
    int rc = read_header(&r, file_size, &elf, err);
    if (rc == 0) {
        rc = read_program_headers(&r, file_size, &elf, err);
    }
    if (rc == 0) {
        rc = check_segments(&elf, library, err);
    }
    if (rc == 0) {
        *ret = elf;
    }
    return rc;
}

int un_elf_parse(const void *data, size_t len, uint64_t file_size, struct un_elf *ret,
                 struct un_error *err)
{
    return parse(data, len, file_size, false, ret, err);
}

int un_elf_parse_library(const void *data, size_t len, uint64_t file_size, struct un_elf *ret,
                         struct un_error *err)
{
    return parse(data, len, file_size, true, ret, err);
}

bool un_elf_offset(const struct un_elf *elf, uint64_t vaddr, uint64_t len, uint64_t *ret)
{
    for (size_t i = 0; i < elf->segment_count; i++) {
        const struct un_elf_segment *s = &elf->segments[i];
        uint64_t in = vaddr - s->vaddr;
        if (vaddr >= s->vaddr && in <= s->file_size && len <= s->file_size - in) {
            *ret = s->offset + in;
            return true;
        }
    }
    return false;
}

/* The string at `index` of a table of `size` bytes at `table`; NULL when it is none. */
static const char *string_at(const uint8_t *data, uint64_t table, uint64_t size, uint64_t index)
{
    if (index >= size || !memchr(data + table + index, 0, (size_t)(size - index))) {
        return NULL;
    }
    return (const char *)data + table + index;
}

static int add_name(struct un_elf_dynamic *d, uint64_t tag, const char *name, struct un_error *err)
{
    if (!name) {
        return un_error_set(err, -EINVAL, "ELF: a name of the dynamic section is no string");
    }
    if (tag == DT_RPATH) {
        d->rpath = name;
    } else if (tag == DT_RUNPATH) {
        d->runpath = name;
    } else if (d->needed_count == UN_ELF_NEEDED_MAX) {
        return un_error_set(err, -EINVAL, "ELF: needs more than %d libraries", UN_ELF_NEEDED_MAX);
    } else {
        d->needed[d->needed_count++] = name;
    }
    return 0;
}

int un_elf_read_dynamic(const void *data, size_t len, const struct un_elf *elf,
                        struct un_elf_dynamic *ret, struct un_error *err)
{
    struct un_elf_dynamic d = {0};
    uint64_t strings = 0, strings_size = 0, table = 0;
    for (int pass = 0; elf->has_dynamic && pass < 2; pass++) {
        struct un_reader r = un_reader_of(data, len);
        un_read_seek(&r, elf->dynamic.offset);
        for (uint64_t left = elf->dynamic.file_size; left >= 16; left -= 16) {
            uint64_t tag = un_read_u64le(&r), value = un_read_u64le(&r);
            if (r.failed || tag == DT_NULL) {
                break;
            }
            if (pass == 0 && tag == DT_STRTAB) {
                strings = value;
            } else if (pass == 0 && tag == DT_STRSZ) {
                strings_size = value;
            } else if (tag == DT_TEXTREL || (tag == DT_FLAGS && (value & DF_TEXTREL))) {
                d.text_relocations = true;
            } else if (pass == 1 && (tag == DT_NEEDED || tag == DT_RPATH || tag == DT_RUNPATH)) {
                const char *name = string_at(data, table, strings_size, value);
                int rc = add_name(&d, tag, name, err);
                if (rc < 0) {
                    return rc;
                }
            }
        }
        if (pass == 0 && (strings_size == 0 || !un_elf_offset(elf, strings, strings_size, &table) ||
                          table > len || strings_size > len - table)) {
            strings_size = 0; /* then no name is one */
        }
    }
    if (strings_size > 0 && ((const uint8_t *)data)[table + strings_size - 1] == 0) {
        d.strings = (const char *)data + table;
        d.strings_size = (size_t)strings_size;
    }
    *ret = d;
    return 0;
}

bool un_elf_has_name(const struct un_elf_dynamic *d, const char *name)
{
    size_t len = strlen(name) + 1;
    if (!d->strings) {
        return false;
    }
    const char *at = d->strings, *end = at + d->strings_size;
    while (at < end && (at = memmem(at, (size_t)(end - at), name, len))) {
        if (at == d->strings || at[-1] == '\0') {
            return true;
        }
        at++;
    }
    return false;
}

const char *un_elf_interpreter(const void *data, size_t len, const struct un_elf *elf)
{
    const struct un_elf_extent *at = &elf->interp;
    if (!elf->has_interp || at->offset > len || at->file_size > len - at->offset) {
        return NULL;
    }
    return string_at(data, at->offset, at->file_size, 0);
}

/* Looks through one PT_NOTE segment: name size, descriptor size, type, then both padded to 4 bytes.
 */
static bool find_in_segment(struct un_reader *r, const char *owner, uint32_t type,
                            struct un_elf_note *ret)
{
    while (r->pos < r->len) {
        uint32_t name_size = un_read_u32le(r), desc_size = un_read_u32le(r);
        uint32_t note_type = un_read_u32le(r);
        const uint8_t *name = un_read_bytes(r, ((uint64_t)name_size + 3) & ~3ull);
        if (!name) {
            return false;
        }
        uint64_t at = r->pos;
        if (!un_read_bytes(r, desc_size)) {
            return false;
        }
        if (note_type == type && name_size == strlen(owner) + 1 &&
            memcmp(name, owner, name_size) == 0) {
            *ret = (struct un_elf_note){.offset = at, .size = desc_size};
            return true;
        }
        uint64_t padding = -(uint64_t)desc_size & 3;
        un_read_skip(r, padding > r->len - r->pos ? r->len - r->pos : padding);
    }
    return false;
}

bool un_elf_find_note(const void *data, size_t len, const struct un_elf *elf, const char *owner,
                      uint32_t type, struct un_elf_note *ret)
{
    struct un_reader headers = un_reader_of(data, len);
    un_read_seek(&headers, elf->phoff);
    for (unsigned i = 0; i < elf->phnum; i++) {
        struct program_header ph = {0};
        read_program_header(&headers, elf->is64, &ph);
        if (headers.failed) {
            return false;
        }
        if (ph.type != PT_NOTE || ph.offset > len || ph.file_size > len - ph.offset) {
            continue;
        }
        struct un_reader notes = un_reader_of(data, ph.offset + ph.file_size);
        un_read_seek(&notes, ph.offset);
        if (find_in_segment(&notes, owner, type, ret)) {
            return true;
        }
    }
    return false;
}

size_t un_elf_list_notes(const void *data, size_t len, const struct un_elf *elf,
                         struct un_elf_extent *ret, size_t max)
{
    struct un_reader headers = un_reader_of(data, len);
    size_t count = 0;
    un_read_seek(&headers, elf->phoff);
    for (unsigned i = 0; i < elf->phnum && count < max; i++) {
        struct program_header ph = {0};
        read_program_header(&headers, elf->is64, &ph);
        if (headers.failed) {
            break;
        }
        if (ph.type == PT_NOTE && ph.file_size > 0) {
            ret[count++] = (struct un_elf_extent){.vaddr = ph.vaddr,
                                                  .mem_size = ph.mem_size,
                                                  .offset = ph.offset,
                                                  .file_size = ph.file_size};
        }
    }
    return count;
}

bool un_elf_find_note_in(const void *notes, size_t len, const char *owner, uint32_t type,
                         struct un_elf_note *ret)
{
    struct un_reader r = un_reader_of(notes, len);
    return find_in_segment(&r, owner, type, ret);
}
