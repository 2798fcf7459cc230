/* entry.S - the note that marks a paging image (unid/abi.h), what stands at the library OS's fixed
 * addresses (unid/rootfs.h), and its first instructions. */
#include "unid/abi.h"
#include "unid/rootfs.h"

    .section .note.unid, "a", @note
    .balign 4
    .long 2f - 1f /* owner, with its NUL */
    .long 4f - 3f /* descriptor */
    .long UNID_NOTE_TYPE
1:  .asciz UNID_NOTE_OWNER
2:  .balign 4
3:  .short UNID_ABI_MAJOR
    .short UNID_ABI_MINOR
    .long UNID_NOTE_PAGING
4:  .balign 4

    .section .vector, "a", @progbits
    .quad syscall_entry
    .quad 0
    .globl rootfs_where
rootfs_where: /* at UNID_ROOTFS_WHERE_ADDR: struct unid_rootfs_where */
    .quad 0, 0

    .section .text.start, "ax", @progbits
    .globl _start
    .type _start, @function
_start:
    xorl %ebp, %ebp /* ends the chain of frames */
    andq $-16, %rsp
    call libos_start
    ud2
    .size _start, . - _start

    .section .note.GNU-stack, "", @progbits
