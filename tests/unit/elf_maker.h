/* elf_maker.h - makes small ELF64 images in memory, right or wrong in one field, for tests. */
#ifndef UNID_TESTS_ELF_MAKER_H
#define UNID_TESTS_ELF_MAKER_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "unid/abi.h"

enum { ELF_MAKER_SIZE = 16384, ELF_MAKER_SEGMENTS = 8 };

struct elf_maker {
    uint16_t type, machine, note_major;
    uint32_t note_flags;
    bool no_note;
    uint64_t entry;
    size_t count;
    Elf64_Phdr segments[ELF_MAKER_SEGMENTS]; /* PT_LOAD and others, as they are to stand there */
};

/* An image that is right: code at 0x200000, constants at 0x201000, data with bss at 0x202000. */
static inline struct elf_maker elf_maker_default(void)
{
    return (struct elf_maker){
        .type = ET_EXEC,
        .machine = EM_X86_64,
        .note_major = UNID_ABI_MAJOR,
        .entry = 0x200010,
        .count = 3,
        .segments = {{.p_type = PT_LOAD,
                      .p_flags = PF_R | PF_X,
                      .p_offset = 0x1000,
                      .p_vaddr = 0x200000,
                      .p_filesz = 0x800,
                      .p_memsz = 0x800,
                      .p_align = 0x1000},
                     {.p_type = PT_LOAD,
                      .p_flags = PF_R,
                      .p_offset = 0x2000,
                      .p_vaddr = 0x201000,
                      .p_filesz = 0x100,
                      .p_memsz = 0x100,
                      .p_align = 0x1000},
                     {.p_type = PT_LOAD,
                      .p_flags = PF_R | PF_W,
                      .p_offset = 0x3000,
                      .p_vaddr = 0x202000,
                      .p_filesz = 0x10,
                      .p_memsz = 0x1800,
                      .p_align = 0x1000}},
    };
}

/* Writes the image; ELF_MAKER_SIZE bytes. Byte i of the file's contents is i % 251. */
static inline void elf_maker_write(const struct elf_maker *m, uint8_t *out)
{
    enum { NOTE_AT = 0x800, NOTE_SIZE = 12 + 8 + 8 };
    for (size_t i = 0; i < ELF_MAKER_SIZE; i++) {
        out[i] = (uint8_t)(i % 251);
    }
    Elf64_Ehdr e = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = m->type,
        .e_machine = m->machine,
        .e_version = EV_CURRENT,
        .e_entry = m->entry,
        .e_phoff = sizeof(e),
        .e_ehsize = sizeof(e),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = (uint16_t)(m->count + !m->no_note),
    };
    memcpy(out, &e, sizeof(e));
    memcpy(out + sizeof(e), m->segments, m->count * sizeof(Elf64_Phdr));
    if (m->no_note) {
        return;
    }
    Elf64_Phdr note = {.p_type = PT_NOTE,
                       .p_flags = PF_R,
                       .p_offset = NOTE_AT,
                       .p_filesz = NOTE_SIZE,
                       .p_memsz = NOTE_SIZE,
                       .p_align = 4};
    memcpy(out + sizeof(e) + m->count * sizeof(note), &note, sizeof(note));
    Elf64_Nhdr head = {.n_namesz = 5, .n_descsz = 8, .n_type = UNID_NOTE_TYPE};
    memcpy(out + NOTE_AT, &head, sizeof(head));
    memcpy(out + NOTE_AT + 12, "unid\0\0\0", 8);
    uint16_t version[4] = {m->note_major, UNID_ABI_MINOR, (uint16_t)m->note_flags,
                           (uint16_t)(m->note_flags >> 16)};
    memcpy(out + NOTE_AT + 20, version, sizeof(version));
}

#endif
