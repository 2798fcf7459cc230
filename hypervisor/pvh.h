/* pvh.h - puts a PVH kernel into the memory of a machine that exists already and waits for one. Pure.
 *
 * Sources: Xen, docs/misc/pvh.pandoc and include/public/arch-x86/hvm/start_info.h (version 1); QEMU,
 * hw/i386/x86-common.c, for what is loaded where: segments by their physical addresses, the initial RAM
 * disk at the end of memory. Where a kernel would be entered otherwise by QEMU, or lie where firmware has
 * been, it is refused: then QEMU loads it itself.
 *
 * What the kernel is told lies in a hole of the firmware's memory map, as with QEMU:
 *
 *     HV_PVH_INFO      struct hvm_start_info, the module list
 *     + CMDLINE        the command line
 *     + MEMMAP         the memory map, as the firmware made it
 */
#ifndef UNID_HYPERVISOR_PVH_H
#define UNID_HYPERVISOR_PVH_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum {
    HV_PVH_INFO = 0xd0000,
    HV_PVH_INFO_SIZE = 0x3000,
    HV_PVH_CMDLINE = HV_PVH_INFO + 0x1000,
    HV_PVH_MEMMAP = HV_PVH_INFO + 0x2000,
    HV_PVH_MEMMAP_MAX = 64,   /* entries */
    HV_PVH_START_SIZE = 56,   /* bytes of struct hvm_start_info */
    HV_PVH_ENTRY_SIZE = 24,   /* of struct hvm_memmap_table_entry */
    HV_PVH_LOW_END = 0x100000 /* below it nothing is loaded */
};

/* Whether the kernel, all of whose bytes are `kernel`, can be loaded, into whatever memory. -ENOTSUP: QEMU
 * loads it otherwise, or not at all; -EINVAL: it is damaged. Any thread. */
int hv_pvh_check(const void *kernel, size_t len, struct un_error *err);

/* What is loaded, and where. All borrowed. */
struct hv_pvh_spec {
    uint8_t *
        mem; /* from guest address 0 on; zeros from HV_PVH_LOW_END up to clean_end, and at HV_PVH_INFO */
    uint64_t clean_end; /* bytes: as far as no firmware has been */
    const void *kernel, *initrd;
    size_t kernel_len, initrd_len; /* bytes; initrd_len 0: none */
    const char *cmdline;
    /* What the firmware told: struct hvm_start_info, HV_PVH_START_SIZE bytes, and the memory map that its
     * count of entries speaks of, room for HV_PVH_MEMMAP_MAX of them. Not trusted. */
    const uint8_t *start, *memmap;
};

struct hv_pvh_entry {
    uint32_t rip, info; /* the first instruction; what ebx points at */
};

/* Writes kernel, initial RAM disk and what the kernel is told. -ENOTSUP, -EINVAL as above, -ENOMEM it does
 * not fit into the memory, -E2BIG the command line; then memory may be written to in part. Any thread. */
int hv_pvh_load(const struct hv_pvh_spec *spec, struct hv_pvh_entry *ret, struct un_error *err);

#endif
