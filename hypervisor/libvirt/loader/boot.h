/* boot.h - a loader for multiboot kernels that QEMU does not load itself: those of the second
 * specification, and 64-bit ELF files of the first. Private to the folder.
 *
 * It is a small multiboot kernel of its own that runs in the guest before the other: QEMU loads it, with the
 * kernel as its first module and the kernel's initial RAM disk as the second. It puts both at the end of memory,
 * copies the kernel's segments to where they belong, tells it what its specification says, and jumps. What
 * cannot be started is said on the console, and the machine resets.
 *
 *     QEMU ── loader | kernel | RAM disk           start.S: entry, and the last jump
 *               │        └────────┴──> end         main.c: where everything goes
 *               └─ plan.c, info.c ──> kernel       plan.c: a kernel's headers; info.c: what it is told
 *
 * Sources: Multiboot Specification 0.6.96; Multiboot2 Specification 2.0; ELF-64 Object File Format 1.5.
 * plan.c and info.c are pure, and are compiled for the host as well, for tests.
 */
#ifndef UNID_HYPERVISOR_LIBVIRT_LOADER_BOOT_H
#define UNID_HYPERVISOR_LIBVIRT_LOADER_BOOT_H

#include <stdbool.h>
#include <stdint.h>

enum { BOOT_PIECES = 16, BOOT_REGIONS = 32 };

/* What a kernel finds in eax. */
#define BOOT_MULTIBOOT1_MAGIC 0x2badb002u
#define BOOT_MULTIBOOT2_MAGIC 0x36d76289u

/* A piece of the file and where it goes; physical addresses. */
struct boot_piece {
    uint32_t to, from, file_size, zero_size; /* zeros behind it */
};

struct boot_plan {
    uint32_t magic, entry;
    uint32_t low, high; /* all pieces lie between */
    uint32_t piece_count;
    struct boot_piece pieces[BOOT_PIECES];
};

/* Reads a kernel's headers. NULL, or what is wrong with it. */
const char *boot_plan(const uint8_t *image, uint32_t len, struct boot_plan *ret);

struct boot_region {
    uint64_t base, len;
    uint32_t type; /* 1: free */
};

/* What the kernel is told. Borrowed. */
struct boot_told {
    const char *cmdline;
    uint32_t initrd, initrd_end; /* equal: there is none */
    const uint8_t *rsdp;         /* ACPI's root pointer; NULL: none */
    uint32_t rsdp_len;
    uint32_t region_count;
    struct boot_region regions[BOOT_REGIONS];
};

/* Writes what it is told in the form of the plan's specification, for a place at the address `at` (a multiple
 * of 8). Gives the length; 0: `size` is too small. */
uint32_t boot_info_build(const struct boot_plan *plan, const struct boot_told *told, uint32_t at,
                         uint8_t *buf, uint32_t size);

#endif
