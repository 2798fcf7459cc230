/* fault.h - what the instruction at which a guest died tells. Pure: it reads guest memory through a
 * plain view of it, and believes nothing that stands there. Linked into the drivers and unid-vmm. */
#ifndef UNID_HYPERVISOR_FAULT_H
#define UNID_HYPERVISOR_FAULT_H

#include <stddef.h>
#include <stdint.h>

enum { HV_CODE_MAX = 15 }; /* bytes of an x86 instruction; Intel SDM vol. 2A, section 2.3.11 */

/* Copies the bytes at the virtual address `rip` as far as they are mapped, at most HV_CODE_MAX, by
 * the four-level page tables at `cr3` (Intel SDM vol. 3A, section 4.5). `mem` is guest-physical
 * memory from address 0. Gives their number. */
size_t hv_fault_code(const uint8_t *mem, uint64_t mem_bytes, uint64_t cr3, uint64_t rip,
                     uint8_t ret_code[HV_CODE_MAX]);

/* "syscall", "sysenter" or "int 0x80" when the instruction is one, else NULL. Of `int`, only that
 * number. */
const char *hv_fault_system_call(const uint8_t *code, size_t len);

/* Writes into `detail` what a guest did that died of the system call instruction `name` at `rip`:
 * one which the preparation of its program did not see. */
void hv_fault_describe_call(char *detail, size_t size, const char *name, uint64_t rip);

#endif
