/* linux64.h - whether an ELF file is a kernel that is entered by Linux' 64-bit boot protocol (Linux,
 * Documentation/arch/x86/boot.rst): in long mode, with the address of struct boot_params in rsi. So Firecracker
 * starts kernels without a PVH note: segments at their physical addresses, entered at e_entry, which is one of those.
 *
 * The protocol has no mark for such a file, and a program is an ELF file as well. So only these are taken for one:
 *
 *   UN_LINUX64_ASKS  the first instruction at the entry (but for an endbr64) is "cmpl $HdrS, 0x202(%rsi)": it asks
 *                    whether rsi points at struct boot_params, which in no program it does. All of Unikraft's for
 *                    Firecracker do (plat/kvm/x86/lxboot.S, since 0.13)
 *   UN_LINUX64_HIGH  the entry's code runs at addresses of a kernel's half, and is entered at its physical one: a
 *                    Linux vmlinux, or what is made like it
 *
 * That neither a PVH note nor a multiboot header says more, the caller has asked before. Pure.
 */
#ifndef UNID_COMMON_LINUX64_H
#define UNID_COMMON_LINUX64_H

#include "common/elf.h"

enum un_linux64 { UN_LINUX64_NOT, UN_LINUX64_ASKS, UN_LINUX64_HIGH };

/* How many bytes of code are looked at. */
enum { UN_LINUX64_CODE = 14 };

/* Where in the file the code at the entry lies, by its physical address. False: in no executable segment's bytes, so
 * it is no such kernel; or it is a file for 32 bits. */
bool un_linux64_code(const struct un_elf *elf, uint64_t *ret_offset);

/* `code`: the bytes that lie there, `len` of them, of which more than UN_LINUX64_CODE are not needed. */
enum un_linux64 un_linux64_is(const struct un_elf *elf, const void *code, size_t len);

/* Both, of a file that is there as a whole. */
enum un_linux64 un_linux64_file(const void *data, size_t len, const struct un_elf *elf);

#endif
