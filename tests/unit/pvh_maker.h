/* pvh_maker.h - makes small PVH kernels in memory, right or wrong in one field, for tests. */
#ifndef UNID_TESTS_PVH_MAKER_H
#define UNID_TESTS_PVH_MAKER_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    PVH_FILE_SIZE = 0x2000,
    PVH_TEXT_AT = 0x1000,
    PVH_TEXT_SIZE = 0x234,
    PVH_NOTE_AT = 0x200,
    PVH_NOTE_SIZE = 20
};

/* A file of one segment, whose virtual address says nothing, and a note. */
struct pvh_kernel {
    uint64_t paddr, mem_size;
    uint32_t entry, note_type, multiboot;
    bool is32;
    uint8_t file[PVH_FILE_SIZE];
};

static inline struct pvh_kernel pvh_kernel_default(void)
{
    return (struct pvh_kernel){
        .paddr = 1 << 20, .mem_size = 0x5000, .entry = 0x100010, .note_type = 18};
}

static inline void pvh_write_note(struct pvh_kernel *k)
{
    const uint32_t head[3] = {4, 4, k->note_type};
    memcpy(k->file + PVH_NOTE_AT, head, sizeof(head));
    memcpy(k->file + PVH_NOTE_AT + 12, "Xen", 4);
    memcpy(k->file + PVH_NOTE_AT + 16, &k->entry, 4);
    const uint32_t multiboot[3] = {k->multiboot, 3, -(k->multiboot + 3)};
    memcpy(k->file + PVH_NOTE_AT + 0x40, multiboot, k->multiboot ? sizeof(multiboot) : 0);
}

static inline void pvh_write_64(struct pvh_kernel *k)
{
    Elf64_Ehdr e = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, 1},
                    .e_type = ET_EXEC,
                    .e_machine = EM_X86_64,
                    .e_phoff = sizeof(e),
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_phnum = 2};
    Elf64_Phdr p[2] = {{.p_type = PT_LOAD,
                        .p_flags = PF_R | PF_X,
                        .p_offset = PVH_TEXT_AT,
                        .p_vaddr = UINT64_C(0xffffffff81000000),
                        .p_paddr = k->paddr,
                        .p_filesz = PVH_TEXT_SIZE,
                        .p_memsz = k->mem_size},
                       {.p_type = PT_NOTE, .p_offset = PVH_NOTE_AT, .p_filesz = PVH_NOTE_SIZE}};
    memcpy(k->file, &e, sizeof(e));
    memcpy(k->file + sizeof(e), p, sizeof(p));
}

static inline void pvh_write_32(struct pvh_kernel *k)
{
    Elf32_Ehdr e = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS32, ELFDATA2LSB, 1},
                    .e_type = ET_EXEC,
                    .e_machine = EM_386,
                    .e_phoff = sizeof(e),
                    .e_phentsize = sizeof(Elf32_Phdr),
                    .e_phnum = 2};
    Elf32_Phdr p[2] = {{.p_type = PT_LOAD,
                        .p_flags = PF_R | PF_X,
                        .p_offset = PVH_TEXT_AT,
                        .p_vaddr = 0xc0100000,
                        .p_paddr = (uint32_t)k->paddr,
                        .p_filesz = PVH_TEXT_SIZE,
                        .p_memsz = (uint32_t)k->mem_size},
                       {.p_type = PT_NOTE, .p_offset = PVH_NOTE_AT, .p_filesz = PVH_NOTE_SIZE}};
    memcpy(k->file, &e, sizeof(e));
    memcpy(k->file + sizeof(e), p, sizeof(p));
}

static inline void pvh_kernel_write(struct pvh_kernel *k)
{
    for (size_t i = 0; i < PVH_FILE_SIZE; i++) {
        k->file[i] = i < PVH_TEXT_AT ? 0 : (uint8_t)(i % 251 + 1);
    }
    if (k->is32) {
        pvh_write_32(k);
    } else {
        pvh_write_64(k);
    }
    pvh_write_note(k);
}

#endif
