/* elf.h - inside task/: loading ELF files into the program's address space. */
#ifndef LIBOS_TASK_ELF_H
#define LIBOS_TASK_ELF_H

#include "file.h"

struct elf_image {
    uint64_t bias, entry, end; /* end: behind the last page of memory, stubs included */
    uint64_t phdrs, phnum;     /* address of the program headers in memory */
    bool has_interpreter;
    char interpreter[256];
};

enum { ELF_PROGRAM, ELF_INTERPRETER };

/* Loads the file. Errors are logged with the file's name: -ENOEXEC (no program for this machine),
 * -ENOMEM, -EIO. */
int elf_load(struct file *file, int role, struct elf_image *ret);

#endif
