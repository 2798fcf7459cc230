/* elfmap.c - dynamic loaders map ELF files by mmap; two things about it need to be known here.
 *
 * A loader first maps a library's whole span, with the rights of its first segment, and then puts the
 * other segments over it. Were all of the first mapping accessible, the pages of the data segment
 * would change their frames, which no page may. So of a mapping that is just as long as the image's
 * span, only the first segment's pages become accessible.
 *
 * A rewritten file's stubs belong at a fixed distance from its code (unid/rootfs.h): room for them is
 * left behind the span, and they are mapped when a part of the file becomes executable. */
#include <linux/elf.h>
#include <linux/mman.h>

#include "file.h"
#include "mm/mm_internal.h"

#define PHDRS_MAX 64

/* Reads the program headers; gives their number, 0 when it is no ELF file of ours. */
static unsigned read_phdrs(struct file *file, Elf64_Phdr *phdrs)
{
    Elf64_Ehdr e;
    if (file_read_at(file, &e, sizeof(e), 0) != sizeof(e) || memcmp(e.e_ident, ELFMAG, SELFMAG) ||
        e.e_ident[EI_CLASS] != ELFCLASS64 || e.e_phentsize != sizeof(Elf64_Phdr) ||
        e.e_phnum > PHDRS_MAX) {
        return 0;
    }
    int64_t size = (int64_t)(e.e_phnum * sizeof(Elf64_Phdr));
    return file_read_at(file, phdrs, (size_t)size, e.e_phoff) == size ? e.e_phnum : 0;
}

bool elf_shape(struct file *file, struct elf_shape *ret)
{
    Elf64_Phdr phdrs[PHDRS_MAX];
    unsigned count = read_phdrs(file, phdrs);
    uint64_t end = 0;
    bool any = false;
    for (unsigned i = 0; i < count; i++) {
        const Elf64_Phdr *p = &phdrs[i];
        if (p->p_type != PT_LOAD) {
            continue;
        }
        if (!any) {
            if (page_down(p->p_offset) != 0) {
                return false;
            }
            ret->base_vaddr = page_down(p->p_vaddr);
            ret->first_len = page_up(p->p_vaddr + p->p_filesz) - ret->base_vaddr;
            any = true;
        }
        end = p->p_vaddr + p->p_memsz > end ? p->p_vaddr + p->p_memsz : end;
    }
    ret->span = page_up(end) - ret->base_vaddr;
    return any && end > ret->base_vaddr;
}

int elf_map_stubs(struct file *file, uint64_t addr, uint64_t offset)
{
    struct file_stubs stubs;
    Elf64_Phdr phdrs[PHDRS_MAX];
    if (!file_stubs(file, &stubs)) {
        return 0;
    }
    unsigned count = read_phdrs(file, phdrs), i = 0;
    while (i < count && (phdrs[i].p_type != PT_LOAD || !(phdrs[i].p_flags & PF_X) ||
                         offset < page_down(phdrs[i].p_offset) ||
                         offset >= phdrs[i].p_offset + phdrs[i].p_filesz)) {
        i++;
    }
    if (i == count) {
        klog("%s: what is executable at offset %lx is in no executable segment", file_path(file),
             offset);
        return -ENOMEM;
    }
    uint64_t at = addr - (phdrs[i].p_vaddr - phdrs[i].p_offset + offset) + stubs.vaddr;
    uint64_t to = at + page_up(stubs.size);
    const struct area *a = area_find(at);
    if (a && a->flags & AREA_STUBS && a->from <= at && a->to >= to && a->file &&
        strcmp(file_path(a->file), file_path(file)) == 0) {
        return 0;
    }
    if (at < USER_MIN || to > USER_END || to < at || !areas_free(at, to)) {
        klog("%s: no room for its stubs at %lx", file_path(file), at);
        return -ENOMEM;
    }
    space_claim(at, to);
    for (uint64_t off = 0; off < to - at; off += PAGE_SIZE) {
        uint64_t *pte = pte_find(at + off, true, NULL);
        if (!pte) {
            return -ENOMEM;
        }
        if (*pte && (*pte & PTE_FRAME) != stubs.phys + off) {
            klog("%s: the room of its stubs at %lx was used before", file_path(file), at);
            return -ENOMEM;
        }
        *pte = (stubs.phys + off) | pte_bits(PROT_READ | PROT_EXEC);
    }
    return area_add(at, to, PROT_READ | PROT_EXEC, AREA_STUBS, file, 0);
}
