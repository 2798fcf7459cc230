/* probe_guest.S - see probe_guest.h. An ELF64 image written out by hand, as bytes. */
#include "hypervisor/probe_guest.h"
#include "unid/abi.h"

#define LOAD_ADDR UNID_IMAGE_MIN
/* Offsets in struct unid_boot and struct unid_call. */
#define BOOT_DOORBELL_KIND 20
#define BOOT_DOORBELL_PORT 24
#define BOOT_DOORBELL_ADDR 40
#define CALL_SEQ           0
#define CALL_OP            4
#define CALL_LOG_LEN       16

        .section .rodata.hv_probe, "a", @progbits
        .balign 8
        .globl hv_probe_guest, hv_probe_guest_size
        .type hv_probe_guest, @object
hv_probe_guest:
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
        movl    $UNID_CALL_ADDR, %ebx
        movl    $UNID_OP_LOG, CALL_OP(%rbx)
        movl    $1, CALL_LOG_LEN(%rbx)  /* one byte, so that the host hears of it */
        movl    $1, CALL_SEQ(%rbx)
        call    ring
        movl    $0, CALL_LOG_LEN(%rbx)
        movl    $HV_PROBE_LOOPS, %ecx
        xorl    %eax, %eax
1:      imull   $1103515245, %eax, %eax
        addl    $12345, %eax
        movl    %eax, %esi
        andl    $0xff8, %esi
        addq    %rax, -0x2000(%rsp, %rsi)
        decl    %ecx
        jnz     1b
        movl    $UNID_OP_DONE, CALL_OP(%rbx)
        movl    $2, CALL_SEQ(%rbx)
        call    ring
2:      pause
        jmp     2b

ring:   cmpl    $UNID_DOORBELL_PORT, BOOT_DOORBELL_KIND(%rdi)
        jne     3f
        movl    BOOT_DOORBELL_PORT(%rdi), %edx
        outb    %al, %dx
        ret
3:      movq    BOOT_DOORBELL_ADDR(%rdi), %rdx
        movl    %eax, (%rdx)
        ret
image_end:
        .size   hv_probe_guest, image_end - image
        .balign 4
        .type hv_probe_guest_size, @object
hv_probe_guest_size:
        .long   image_end - image
        .size   hv_probe_guest_size, 4

        .section .note.GNU-stack, "", @progbits
