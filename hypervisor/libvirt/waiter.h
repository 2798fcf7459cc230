/* waiter.h - what the driver and the kernel of its shells for machine images agree on.
 *
 * Such a shell is a machine whose firmware has run and whose kernel is this one (waiter.S): it keeps what
 * the firmware told it where the host can read it, says so on the console by one byte, and looks at its
 * mailbox until the host has put the entry of another kernel there. The host stops QEMU's process
 * meanwhile. So the other kernel finds the machine as QEMU's own loading would have left it.
 */
#ifndef UNID_HYPERVISOR_LIBVIRT_WAITER_H
#define UNID_HYPERVISOR_LIBVIRT_WAITER_H

#define LV_WAITER_ADDR 0x60000 /* of its code; RAM, which the next kernel may have */
#define LV_WAITER_PAGE 0x61000 /* what follows; never executed */
#define LV_WAITER_SIZE 0x2000  /* of both */

/* Offsets in that page. The host writes `info` first. */
#define LV_WAITER_ENTRY  0x000 /* 32 bits: where to go on; 0: wait */
#define LV_WAITER_INFO   0x004 /* 32 bits: ebx then */
#define LV_WAITER_START  0x010 /* struct hvm_start_info, as the firmware gave it */
#define LV_WAITER_MEMMAP 0x100 /* its memory map */

#define LV_WAITER_READY 0x06 /* the byte: ACK */

#define LV_WAITER_FILE "waiter.elf" /* in the work directory (place.h) */

#ifndef __ASSEMBLER__
#include <stddef.h>
#include <stdint.h>
extern const uint8_t lv_waiter[]; /* an ELF file */
extern const uint32_t lv_waiter_size;
#endif

#endif
