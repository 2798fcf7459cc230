/* boot.h - a loader for kernels that QEMU does not load itself: those of the second multiboot specification, 64-bit
 * ELF files of the first, and ELF files of the Linux 64-bit boot protocol, as Firecracker starts them. Private to the
 * folder.
 *
 * It is a small multiboot kernel of its own that runs in the guest before the other: QEMU loads it, with the
 * kernel as its first module and the kernel's initial RAM disk as the second. It puts both at the end of memory,
 * copies the kernel's segments to where they belong, tells it what its specification says, and jumps. What
 * cannot be started is said on the console, and the machine resets.
 *
 *     QEMU ── loader | kernel | RAM disk           start.S: entry, and the last jump
 *               │        └────────┴──> end         main.c: where everything goes
 *               └─ plan.c, info.c ──> kernel       plan.c: a kernel's headers; info.c, zero_page.c: what it is told
 *
 * Sources: Multiboot Specification 0.6.96; Multiboot2 Specification 2.0; ELF-64 Object File Format 1.5; Linux,
 * Documentation/arch/x86/boot.rst ("64-bit Boot Protocol") and zero-page.rst. plan.c, info.c and zero_page.c are
 * pure, and are compiled for the host as well, for tests.
 *
 * Whether a file without a multiboot header is a kernel at all is not asked here: see common/linux64.h.
 */
#ifndef UNID_HYPERVISOR_LIBVIRT_LOADER_BOOT_H
#define UNID_HYPERVISOR_LIBVIRT_LOADER_BOOT_H

#include <stdbool.h>
#include <stdint.h>

enum { BOOT_PIECES = 16, BOOT_REGIONS = 32 };

/* By which a kernel is entered; of multiboot's, what it finds in eax. */
enum boot_protocol { BOOT_LINUX64 = 0, BOOT_MULTIBOOT1 = 0x2badb002, BOOT_MULTIBOOT2 = 0x36d76289 };

/* A piece of the file and where it goes; physical addresses. */
struct boot_piece {
    uint32_t to, from, file_size, zero_size; /* zeros behind it */
};

struct boot_plan {
    enum boot_protocol protocol;
    uint32_t entry;
    uint32_t low, high; /* all pieces lie between */
    uint32_t piece_count;
    struct boot_piece pieces[BOOT_PIECES];
};

/* Reads a kernel's headers. NULL, or what is wrong with it. */
const char *boot_plan(const uint8_t *image, uint32_t len, struct boot_plan *ret);

enum { BOOT_FREE = 1 };
struct boot_region {
    uint64_t base, len;
    uint32_t type; /* BOOT_FREE, or another of ACPI's address range types */
};

/* What the kernel is told. Borrowed. */
struct boot_told {
    const char *cmdline;
    const char *devices;         /* BOOT_LINUX64: words of the command line that name them, or "" */
    uint32_t initrd, initrd_end; /* equal: there is none */
    const uint8_t *rsdp;         /* ACPI's root pointer; NULL: none */
    uint32_t rsdp_len, rsdp_at;
    uint32_t region_count;
    struct boot_region regions[BOOT_REGIONS];
};

/* Writes what it is told in the form of the plan's specification, for a place at the address `at` (a multiple
 * of 8). Gives the length; 0: `size` is too small. */
uint32_t boot_info_build(const struct boot_plan *plan, const struct boot_told *told, uint32_t at,
                         uint8_t *buf, uint32_t size);

/* The same of BOOT_LINUX64 alone: struct boot_params, and the command line behind it. */
uint32_t boot_zero_page_build(const struct boot_told *told, uint32_t at, uint8_t *buf,
                              uint32_t size);

#endif
