/* probe_guest.S - the guest that measurements run: a whole SDK image (ELF64) as bytes (driver.h).
 *
 * Calls LOG when it starts, works through the loop of hypervisor/libvirt/probe_guest.S, so that the
 * drivers' figures compare, and calls DONE.
 */
#include "unid/abi.h"

#define LOAD_ADDR       0x200000
#define KVM_PROBE_LOOPS 5000000
#define CALL_ADDR       0x101000 /* UNID_CALL_ADDR; the assembler takes no suffix */
#define DOORBELL_AT     40       /* offset of boot.doorbell_addr */

        .section .rodata.kvm_probe, "a", @progbits
        .balign 8
        .globl kvm_probe_guest, kvm_probe_guest_size
        .type kvm_probe_guest, @object
kvm_probe_guest:
image:
        .byte   0x7f, 'E', 'L', 'F', 2, 1, 1, 0
        .quad   0
        .word   2, 62                   /* ET_EXEC, EM_X86_64 */
        .long   1
        .quad   LOAD_ADDR + (start - image)
        .quad   phdrs - image
        .quad   0
        .long   0
        .word   64, 56, 2, 0, 0, 0
phdrs:
        .long   1, 5                    /* PT_LOAD, readable and executable */
        .quad   0, LOAD_ADDR, LOAD_ADDR, image_end - image, image_end - image, 0x1000
        .long   4, 4                    /* PT_NOTE */
        .quad   note - image, LOAD_ADDR + (note - image), LOAD_ADDR + (note - image)
        .quad   note_end - note, note_end - note, 4
        .balign 4
note:
        .long   5, 8, UNID_NOTE_TYPE
        .asciz  UNID_NOTE_OWNER
        .balign 4
        .word   UNID_ABI_MAJOR, UNID_ABI_MINOR
        .long   0
note_end:
start:
        movl    $CALL_ADDR, %ebx
        movq    DOORBELL_AT(%rdi), %rdx
        movl    $UNID_OP_LOG, 4(%rbx)
        movl    $1, 16(%rbx)            /* log_len: one byte, so that the host hears of it */
        movl    $1, (%rbx)
        movl    %eax, (%rdx)
        movl    $0, 16(%rbx)
        movl    $KVM_PROBE_LOOPS, %ecx
        xorl    %eax, %eax
1:      imull   $1103515245, %eax, %eax
        addl    $12345, %eax
        movl    %eax, %esi
        andl    $0xff8, %esi
        addq    %rax, -0x2000(%rsp, %rsi)
        decl    %ecx
        jnz     1b
        movl    $UNID_OP_DONE, 4(%rbx)
        movl    $2, (%rbx)
        movl    %eax, (%rdx)
2:      pause
        jmp     2b
image_end:
        .size   kvm_probe_guest, image_end - image
        .balign 4
        .type kvm_probe_guest_size, @object
kvm_probe_guest_size:
        .long   image_end - image
        .size   kvm_probe_guest_size, 4

        .section .note.GNU-stack, "", @progbits
