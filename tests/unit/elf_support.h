/* elf_support.h - small ELF files for tests, made to order. */
#ifndef UNID_TESTS_ELF_SUPPORT_H
#define UNID_TESTS_ELF_SUPPORT_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "unid/abi.h"

enum { ELF_FILE_SIZE = 8192, ELF_NOTE_AT = 0x400 };

/* Where the headers of elf_make lie: program headers behind the ELF header, in this order. */
enum { ELF_PH_LOAD, ELF_PH_DATA, ELF_PH_NOTE, ELF_PH_INTERP, ELF_PH_COUNT };

struct elf_file {
    uint8_t data[ELF_FILE_SIZE];
};

static inline Elf64_Ehdr *elf_header(struct elf_file *f)
{
    return (Elf64_Ehdr *)f->data;
}

static inline Elf64_Phdr *elf_program(struct elf_file *f, unsigned i)
{
    return (Elf64_Phdr *)(f->data + sizeof(Elf64_Ehdr)) + i;
}

/* A 64-bit program: the whole file at 4 MiB, executable, and a page of data behind it. */
static inline void elf_make(struct elf_file *f)
{
    memset(f, 0, sizeof *f);
    Elf64_Ehdr *h = elf_header(f);
    memcpy(h->e_ident, ELFMAG, SELFMAG);
    h->e_ident[EI_CLASS] = ELFCLASS64;
    h->e_ident[EI_DATA] = ELFDATA2LSB;
    h->e_ident[EI_VERSION] = EV_CURRENT;
    h->e_type = ET_EXEC;
    h->e_machine = EM_X86_64;
    h->e_version = EV_CURRENT;
    h->e_entry = 0x400800;
    h->e_phoff = sizeof *h;
    h->e_ehsize = sizeof *h;
    h->e_phentsize = sizeof(Elf64_Phdr);
    h->e_phnum = ELF_PH_COUNT;
    *elf_program(f, ELF_PH_LOAD) = (Elf64_Phdr){.p_type = PT_LOAD,
                                                .p_flags = PF_R | PF_X,
                                                .p_vaddr = 0x400000,
                                                .p_filesz = 4096,
                                                .p_memsz = 4096};
    *elf_program(f, ELF_PH_DATA) = (Elf64_Phdr){.p_type = PT_LOAD,
                                                .p_flags = PF_R | PF_W,
                                                .p_offset = 4096,
                                                .p_vaddr = 0x401000,
                                                .p_filesz = 4096,
                                                .p_memsz = 65536};
}

/* Adds a note with one descriptor. */
static inline void elf_add_note(struct elf_file *f, const char *owner, uint32_t type,
                                const void *desc, uint32_t desc_size)
{
    uint8_t *at = f->data + ELF_NOTE_AT;
    uint32_t head[3] = {(uint32_t)strlen(owner) + 1, desc_size, type};
    uint32_t padded = (head[0] + 3) & ~3u;
    memcpy(at, head, sizeof head);
    memcpy(at + sizeof head, owner, head[0]);
    memcpy(at + sizeof head + padded, desc, desc_size);
    *elf_program(f, ELF_PH_NOTE) =
        (Elf64_Phdr){.p_type = PT_NOTE,
                     .p_flags = PF_R,
                     .p_offset = ELF_NOTE_AT,
                     .p_filesz = sizeof head + padded + ((desc_size + 3) & ~3u)};
}

static inline void elf_make_sdk(struct elf_file *f)
{
    struct {
        uint16_t major, minor;
        uint32_t flags;
    } desc = {UNID_ABI_MAJOR, UNID_ABI_MINOR, 0};
    elf_make(f);
    elf_add_note(f, UNID_NOTE_OWNER, UNID_NOTE_TYPE, &desc, sizeof desc);
}

static inline void elf_add_interp(struct elf_file *f)
{
    *elf_program(f, ELF_PH_INTERP) =
        (Elf64_Phdr){.p_type = PT_INTERP, .p_offset = 0x600, .p_filesz = 28};
}

/* A 32-bit kernel of one segment, as Unikraft's multiboot builds are. */
static inline void elf_make32(struct elf_file *f)
{
    memset(f, 0, sizeof *f);
    Elf32_Ehdr *h = (Elf32_Ehdr *)f->data;
    memcpy(h->e_ident, ELFMAG, SELFMAG);
    h->e_ident[EI_CLASS] = ELFCLASS32;
    h->e_ident[EI_DATA] = ELFDATA2LSB;
    h->e_ident[EI_VERSION] = EV_CURRENT;
    h->e_type = ET_EXEC;
    h->e_machine = EM_386;
    h->e_entry = 0x100800;
    h->e_phoff = sizeof *h;
    h->e_phentsize = sizeof(Elf32_Phdr);
    h->e_phnum = 1;
    *(Elf32_Phdr *)(f->data + sizeof *h) = (Elf32_Phdr){.p_type = PT_LOAD,
                                                        .p_flags = PF_R | PF_X,
                                                        .p_vaddr = 0x100000,
                                                        .p_filesz = 4096,
                                                        .p_memsz = 8192};
}

static inline void put32(uint8_t *at, uint32_t v)
{
    memcpy(at, &v, sizeof v);
}

static inline void elf_add_multiboot1(uint8_t *at, uint32_t flags)
{
    put32(at, 0x1badb002);
    put32(at + 4, flags);
    put32(at + 8, -(0x1badb002u + flags));
}

static inline void elf_add_multiboot2(uint8_t *at)
{
    put32(at, 0xe85250d6);
    put32(at + 4, 0);
    put32(at + 8, 24);
    put32(at + 12, -(0xe85250d6u + 24));
}

#endif
