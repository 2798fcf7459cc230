/* prepare_libos.S - a paging image that stands in for the library OS where one is only needed in form.
 */
#include "unid/rootfs.h"
    .section .head, "ax"
    .globl _start, sys_read, sys_write, sys_exit_group
    .quad handler
    .quad 0
    .quad 0, 0
_start:
    ud2
handler:
sys_read:
sys_write:
sys_exit_group:
    ud2
    .section .note.unid, "a", @note
    .long 5, 8, UNID_NOTE_TYPE
    .asciz UNID_NOTE_OWNER
    .balign 4
    .short UNID_ABI_MAJOR, UNID_ABI_MINOR
    .long UNID_NOTE_PAGING
    .section .note.GNU-stack, "", @progbits
