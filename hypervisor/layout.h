/* layout.h - lays a program image out in guest memory: segments, boot block, strings, page tables.
 *
 * The same for every driver that runs ring-3 images. Works on a plain view of guest-physical
 * memory, so that it is tested without any hypervisor. What it makes:
 *
 *     0x00000000  not mapped for the guest; the driver's (mailbox, page tables for the low part)
 *     0x00100000  channel (abi.h), readable and writable
 *     0x00200000  image segments with their ELF permissions, 4 KiB pages
 *     ...         heap, read-write, no execute
 *     end - ...   one unmapped page, stack; above it the page tables, not mapped for the guest
 *
 * Of a paging image (UNID_NOTE_PAGING) the physical memory is the same, but for the unmapped page:
 * channel, segments (those linked into the direct map at the physical address that they name),
 * [heap_start, heap_end) of free frames, stack, page tables. Mapped are the channel, the segments
 * below the direct map, the doorbell, and the direct map of [UNID_IMAGE_MIN, end), by 2 MiB leaves,
 * in which the page tables are the guest's to write. So a paging guest can map any physical address
 * at all: a driver must have nothing in its VM's memory that it relies on.
 */
#ifndef UNID_HYPERVISOR_LAYOUT_H
#define UNID_HYPERVISOR_LAYOUT_H

#include "hypervisor/hv.h"
#include "unid/abi.h"

enum hv_doorbell {
    HV_DOORBELL_PORT = UNID_DOORBELL_PORT,
    HV_DOORBELL_MEMORY = UNID_DOORBELL_MEMORY
};

struct hv_layout_spec {
    uint8_t *mem;       /* guest-physical memory from address 0, page-aligned, zeroed; written */
    uint64_t mem_bytes; /* how much of it the guest gets; a multiple of 4 KiB */
    enum hv_doorbell doorbell;
    uint32_t doorbell_port;
    uint64_t doorbell_addr; /* HV_DOORBELL_MEMORY: not below mem_bytes; gets a page of its own */
    uint32_t boot_flags;
    uint64_t tsc_hz;
};

/* What the CPU starts with, and where things came to lie (guest-physical addresses). */
struct hv_layout {
    uint64_t cr3, rip, rsp, rdi;
    /* The page table of [0, 2 MiB). Its first 256 entries (the low 1 MiB) are empty: a driver that
     * runs code of its own before the guest puts supervisor entries there (no user bit). */
    uint64_t low_table;
    /* The unmapped page between heap and stack: a fault in it is a heap or a stack that is used up.
     * 0: there is none (a paging image). */
    uint64_t guard;
};

/* Lays `run->image` out in spec->mem_bytes of memory (run->mem_bytes is the driver's to hold
 * against its shell). Errors as hv.h, vm_run; also -EINVAL for a `spec` that makes no sense. On
 * failure `mem` may have been written in part. The CPU must run with EFER.NXE, CR4.PAE, CR4.OSFXSR
 * and CR0.WP. Any thread. */
int hv_layout_build(const struct hv_layout_spec *spec, const struct hv_run_spec *run,
                    struct hv_layout *ret, struct un_error *err);

#endif
