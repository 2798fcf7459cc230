/* pointers.c - which words of a file's data are addresses of its code.
 *
 * In a file that is loaded at any address, each has a relocation (System V gABI chapter 5, "Dynamic Section";
 * x86-64 psABI 4.4; DT_RELR as in the gABI's draft of 2022), and what else looks like an address is none: U+1D621 and
 * its kin in a table of characters, say. Elsewhere every aligned word that could be one is taken for one.
 */
#include <elf.h>
#include <string.h>

#include "prepare/code.h"

#ifndef DT_RELR /* glibc has them since 2.36 */
#define DT_RELRSZ 35
#define DT_RELR   36
#endif

/* The dynamic section's values, by tag. */
struct dynamic {
    uint64_t symtab, rela, rela_size, jmprel, jmprel_size, relr, relr_size;
};

static bool read_word(const struct code *c, uint64_t addr, uint64_t *ret)
{
    uint64_t at;
    if (!un_elf_offset(&c->elf, addr, 8, &at)) {
        return false;
    }
    memcpy(ret, c->data + at, 8);
    return true;
}

static void read_dynamic(const struct code *c, struct dynamic *ret)
{
    *ret = (struct dynamic){0};
    for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= c->elf.dynamic.file_size;
         at += sizeof(Elf64_Dyn)) {
        Elf64_Dyn d;
        memcpy(&d, c->data + c->elf.dynamic.offset + at, sizeof d);
        uint64_t *to = d.d_tag == DT_SYMTAB     ? &ret->symtab
                       : d.d_tag == DT_RELA     ? &ret->rela
                       : d.d_tag == DT_RELASZ   ? &ret->rela_size
                       : d.d_tag == DT_JMPREL   ? &ret->jmprel
                       : d.d_tag == DT_PLTRELSZ ? &ret->jmprel_size
                       : d.d_tag == DT_RELR     ? &ret->relr
                       : d.d_tag == DT_RELRSZ   ? &ret->relr_size
                                                : NULL;
        if (d.d_tag == DT_NULL) {
            break;
        }
        if (to) {
            *to = d.d_un.d_val;
        }
    }
}

/* What is computed of a symbol's value and an addend, whatever the type: a target too many does no harm. False when
 * the table is not in the file. */
static bool read_rela(struct code *c, const struct dynamic *d, uint64_t addr, uint64_t size)
{
    uint64_t at;
    if (size == 0) {
        return true;
    }
    if (!un_elf_offset(&c->elf, addr, size, &at)) {
        return false;
    }
    for (uint64_t end = at + size; end - at >= sizeof(Elf64_Rela); at += sizeof(Elf64_Rela)) {
        Elf64_Rela r;
        uint64_t symbol = 0;
        memcpy(&r, c->data + at, sizeof r);
        uint64_t entry = d->symtab + (uint64_t)ELF64_R_SYM(r.r_info) * sizeof(Elf64_Sym);
        if (ELF64_R_SYM(r.r_info) &&
            !read_word(c, entry + offsetof(Elf64_Sym, st_value), &symbol)) {
            return false;
        }
        code_add_target(c, symbol + (uint64_t)r.r_addend);
    }
    return true;
}

static bool read_relr(struct code *c, const struct dynamic *d)
{
    uint64_t where = 0, entry, word;
    for (uint64_t at = 0; d->relr_size - at >= 8; at += 8) {
        if (!read_word(c, d->relr + at, &entry)) {
            return false;
        }
        bool is_address = !(entry & 1);
        where = is_address ? entry : where;
        /* An address stands for itself; a bitmap for the 63 words that follow. */
        for (uint64_t bits = is_address ? 1 : entry >> 1, to = where; bits; bits >>= 1, to += 8) {
            if (bits & 1 && read_word(c, to, &word)) {
                code_add_target(c, word);
            }
        }
        where += is_address ? 8 : 63 * 8;
    }
    return true;
}

static bool read_relocations(struct code *c)
{
    struct dynamic d;
    if (c->elf.type != ET_DYN || !c->elf.has_dynamic) {
        return false;
    }
    read_dynamic(c, &d);
    return read_rela(c, &d, d.rela, d.rela_size) && read_rela(c, &d, d.jmprel, d.jmprel_size) &&
           read_relr(c, &d);
}

static void read_words(struct code *c)
{
    uint64_t low = c->ranges[0].start, high = c->ranges[c->range_count - 1].end;
    for (size_t i = 0; i < c->elf.segment_count; i++) {
        const struct un_elf_segment *seg = &c->elf.segments[i];
        uint64_t at = (seg->vaddr + 7) & ~UINT64_C(7), end = seg->vaddr + seg->file_size;
        while (at + 8 <= end) {
            const struct code_range *r = seg->executable ? code_range_of(c, at) : NULL;
            uint64_t word;
            memcpy(&word, c->data + seg->offset + (at - seg->vaddr), 8);
            if (!r && word >= low && word < high) {
                code_add_target(c, word);
            }
            at = r ? (r->end + 7) & ~UINT64_C(7) : at + 8;
        }
    }
}

void code_read_pointers(struct code *c)
{
    if (!read_relocations(c)) {
        read_words(c);
    }
}
