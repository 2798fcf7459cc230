/* start.S - the note that marks an SDK image, and its first instructions (abi.h, "At entry"). */
#include "unid/abi.h"

    .section .note.unid, "a", @note
    .balign 4
    .long 2f - 1f /* owner, with its NUL */
    .long 4f - 3f /* descriptor */
    .long UNID_NOTE_TYPE
1:  .asciz UNID_NOTE_OWNER
2:  .balign 4
3:  .short UNID_ABI_MAJOR
    .short UNID_ABI_MINOR
    .long 0
4:  .balign 4

    .section .text.unid_start, "ax", @progbits
    .globl _start
    .type _start, @function
_start:
    xorl %ebp, %ebp /* ends the chain of frames */
    andq $-16, %rsp
    call unid_sdk_start
    ud2
    .size _start, . - _start

    .section .note.GNU-stack, "", @progbits
