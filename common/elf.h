/* elf.h - reads ELF headers out of untrusted bytes (System V gABI chapters 4 and 5; x86-64 psABI).
 *
 * Used by the image store (what is this file, and does it lie) and by the hypervisor drivers (what
 * goes where in guest memory), by what prepares Linux programs, and by the client that collects their
 * libraries. It reads no section headers and resolves no symbols.
 *
 * un_elf_parse accepts a file only when every program header lies inside the file, file sizes do
 * not exceed memory sizes, no address arithmetic overflows, no two PT_LOAD segments overlap, and
 * the entry point lies in an executable segment. What it accepts may therefore be copied without
 * further checks of the file, but the caller still holds addresses against its own memory.
 */
#ifndef UNID_COMMON_ELF_H
#define UNID_COMMON_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum { UN_ELF_SEGMENTS_MAX = 64 };

struct un_elf_segment {
    uint64_t vaddr, mem_size;   /* bytes; mem_size > 0 */
    uint64_t paddr;             /* as the file says; nothing is asked of it */
    uint64_t offset, file_size; /* bytes in the file, wholly inside; file_size <= mem_size */
    bool readable, writable, executable;
};

struct un_elf_note {
    uint64_t offset, size; /* the descriptor's bytes in the file */
};

/* Where a program header's bytes lie; all zero when there is none. */
struct un_elf_extent {
    uint64_t vaddr, mem_size;
    uint64_t offset, file_size;
};

struct un_elf {
    bool is64;
    uint16_t type;    /* ET_EXEC or ET_DYN */
    uint16_t machine; /* EM_386 or EM_X86_64 */
    uint64_t entry;
    uint64_t phoff; /* program headers' offset in the file */
    uint16_t phnum;
    bool has_interp;  /* PT_INTERP: a dynamic program */
    bool has_dynamic; /* PT_DYNAMIC */
    size_t segment_count;
    struct un_elf_segment segments[UN_ELF_SEGMENTS_MAX]; /* PT_LOAD, by ascending address */
    uint64_t low, high; /* addresses that the segments span: [low, high) */
    struct un_elf_extent interp, dynamic, tls, eh_frame_hdr;
    bool executable_stack; /* PT_GNU_STACK asks for it */
    /* As the header says them; un_elf_parse does not look there. */
    uint64_t shoff;
    uint16_t shentsize, shnum, shstrndx;
};

/* Whether the bytes start with the ELF magic. */
bool un_elf_is(const void *data, size_t len);

/* Reads the headers of an ELF file of `file_size` bytes, of which `data` holds the first `len` (at
 * least all program headers; 64 KiB suffice for any real file). A segment without bytes in the file
 * may lie anywhere; its offset is 0 if it is behind the end. -EINVAL with what is wrong, "ELF:
 * ..." names the field and its value; -ENOTSUP for another machine or byte order. */
int un_elf_parse(const void *data, size_t len, uint64_t file_size, struct un_elf *ret,
                 struct un_error *err);

/* As un_elf_parse, for a shared library: nothing is asked of the entry point. */
int un_elf_parse_library(const void *data, size_t len, uint64_t file_size, struct un_elf *ret,
                         struct un_error *err);

/* The file offset of `len` bytes at address `vaddr`; false when no segment has them in the file. */
bool un_elf_offset(const struct un_elf *elf, uint64_t vaddr, uint64_t len, uint64_t *ret);

/* What the dynamic section says that a loader must find (System V gABI chapter 5, "Dynamic
 * Section"). The strings point into the file's bytes. */
enum { UN_ELF_NEEDED_MAX = 256 };
struct un_elf_dynamic {
    size_t needed_count;
    const char *needed[UN_ELF_NEEDED_MAX]; /* DT_NEEDED: names of libraries */
    const char *rpath, *runpath;           /* NULL: none */
    const char *strings;                   /* the table of names; ends with a NUL */
    size_t strings_size;
    bool text_relocations; /* the loader would write into code */
};

/* Reads the dynamic section of a 64-bit file that un_elf_parse accepted; all of its bytes are in
 * `data`. Without one everything is empty. -EINVAL: it points outside of the file. */
int un_elf_read_dynamic(const void *data, size_t len, const struct un_elf *elf,
                        struct un_elf_dynamic *ret, struct un_error *err);

/* Whether a name stands in the table: it is imported or exported. */
bool un_elf_has_name(const struct un_elf_dynamic *d, const char *name);

/* The interpreter's path (PT_INTERP), in the file's bytes; NULL when there is none or it is no
 * string. */
const char *un_elf_interpreter(const void *data, size_t len, const struct un_elf *elf);

/* Finds a note by owner name and type in the PT_NOTE segments that lie in `data`; false when there
 * is none or when it is malformed. */
bool un_elf_find_note(const void *data, size_t len, const struct un_elf *elf, const char *owner,
                      uint32_t type, struct un_elf_note *ret);

/* Where the PT_NOTE segments lie, at most `max` of them, for who has other parts of the file elsewhere;
 * gives their number. */
size_t un_elf_list_notes(const void *data, size_t len, const struct un_elf *elf,
                         struct un_elf_extent *ret, size_t max);
/* As un_elf_find_note, in the bytes of one such segment; `ret->offset` counts from `notes`. */
bool un_elf_find_note_in(const void *notes, size_t len, const char *owner, uint32_t type,
                         struct un_elf_note *ret);

#endif
