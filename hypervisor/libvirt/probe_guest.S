/* probe_guest.S - the guest that measurements run: a whole SDK image (ELF64) as bytes (see rom.h).
 *
 * Rings the doorbell when it starts, works through a loop of arithmetic, loads and stores, rings
 * again and stops by an invalid opcode. It makes no calls: who runs it counts rings.
 */
#include "hypervisor/libvirt/rom.h"
#include "unid/abi.h"

#define LOAD_ADDR 0x200000

        .section .rodata.lv_probe, "a", @progbits
        .balign 8
        .globl lv_probe_guest, lv_probe_guest_size
        .type lv_probe_guest, @object
lv_probe_guest:
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
        movl    $LV_DOORBELL_PORT, %edx
        movb    $'s', %al
        outb    %al, %dx
        movl    $LV_PROBE_LOOPS, %ecx
        xorl    %eax, %eax
1:      imull   $1103515245, %eax, %eax
        addl    $12345, %eax
        movl    %eax, %esi
        andl    $0xff8, %esi
        addq    %rax, -0x2000(%rsp, %rsi)
        decl    %ecx
        jnz     1b
        movb    $'e', %al
        outb    %al, %dx
        ud2
image_end:
        .size   lv_probe_guest, image_end - image
        .balign 4
        .type lv_probe_guest_size, @object
lv_probe_guest_size:
        .long   image_end - image
        .size   lv_probe_guest_size, 4

        .section .note.GNU-stack, "", @progbits
