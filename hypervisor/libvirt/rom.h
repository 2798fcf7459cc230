/* rom.h - what the driver and its ROM agree on: addresses below 1 MiB of guest memory.
 *
 * The ROM (rom.S) takes the CPU from its reset vector to the guest's entry in ring 3. The host has
 * written guest memory before: the mailbox says where to go, the tables are a copy of the ROM's own
 * template. All of it is mapped for the supervisor only, so that a guest can neither read nor write
 * it, and what stands in the fault fields comes from the ROM; but for a paging image, which can map
 * what it likes in its own VM.
 */
#ifndef UNID_HYPERVISOR_LIBVIRT_ROM_H
#define UNID_HYPERVISOR_LIBVIRT_ROM_H

#define LV_ROM_SIZE 0x10000
#define LV_ROM_BASE 0xf0000 /* where the CPU sees it below 1 MiB; QEMU also puts it below 4 GiB */

#define LV_TABLES_OFFSET 0x8000 /* the template in the ROM: GDT, IDT, TSS */
#define LV_TABLES_SIZE   0x1000
#define LV_TABLES_ADDR   0x1000 /* its place in memory */
#define LV_STACK_TOP     0x3000 /* ring 0's stack, one page: used while a fault is written down */

#define LV_MAILBOX_ADDR 0x500
#define LV_MAILBOX_CR3  (LV_MAILBOX_ADDR + 0)
#define LV_MAILBOX_RIP  (LV_MAILBOX_ADDR + 8)
#define LV_MAILBOX_RSP  (LV_MAILBOX_ADDR + 16)
#define LV_MAILBOX_RDI  (LV_MAILBOX_ADDR + 24)
/* Written by the ROM when the guest has faulted; `seen` last. */
#define LV_FAULT_SEEN   (LV_MAILBOX_ADDR + 32)
#define LV_FAULT_VECTOR (LV_MAILBOX_ADDR + 36)
#define LV_FAULT_ERROR  (LV_MAILBOX_ADDR + 40)
#define LV_FAULT_RIP    (LV_MAILBOX_ADDR + 48)
#define LV_FAULT_ADDR   (LV_MAILBOX_ADDR + 56)
#define LV_FAULT_RSP    (LV_MAILBOX_ADDR + 64)

/* The data register of the first serial port: the only port that ring 3 may touch. */
#define LV_DOORBELL_PORT 0x3f8

#ifndef __ASSEMBLER__
#include <stdint.h>
extern const uint8_t lv_rom[LV_ROM_SIZE];
#endif

#endif
