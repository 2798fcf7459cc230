/* waiter.S - the kernel of a shell for machine images, as an ELF file (see waiter.h).
 *
 * The file is written out by hand: System V gABI, "ELF Header", "Program Header"; Xen, docs/misc/pvh.pandoc,
 * for the note, the state at the entry (32 bits, flat segments, no paging, ebx: struct hvm_start_info), and
 * that of the next kernel's, which is the same.
 */
#include "hypervisor/libvirt/waiter.h"

#define AT(label)  (LV_WAITER_ADDR + (label - lv_waiter))
#define FIELD(off) (LV_WAITER_PAGE + off)

#define COM1          0x3f8
#define START_DWORDS  14
#define MEMMAP_ADDR   40 /* in struct hvm_start_info */
#define MEMMAP_COUNT  48
#define MEMMAP_MOST   64 /* HV_PVH_MEMMAP_MAX */
#define ENTRY_DWORDS  6

        .section .rodata.lv_waiter, "a", @progbits
        .balign 8
        .globl lv_waiter
        .type lv_waiter, @object
lv_waiter:
        .byte   0x7f
        .ascii  "ELF"
        .byte   1, 1, 1, 0              /* 32 bits, little-endian, version */
        .fill   8, 1, 0
        .word   2, 3                    /* ET_EXEC, EM_386 */
        .long   1, AT(entry), 52, 0, 0  /* version, entry, program headers */
        .word   52, 32, 2, 0, 0, 0

        .long   1, 0, LV_WAITER_ADDR, LV_WAITER_ADDR, end - lv_waiter, LV_WAITER_SIZE, 7, 0x1000
        .long   4, note - lv_waiter, AT(note), AT(note), entry - note, entry - note, 4, 4

note:   .long   4, 4, 18                /* XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz  "Xen"
        .long   AT(entry)

        .code32
entry:
        cli
        cld
        movl    %ebx, %esi
        movl    $FIELD(LV_WAITER_START), %edi
        movl    $START_DWORDS, %ecx
        rep movsl
        movl    MEMMAP_ADDR(%ebx), %esi
        movl    MEMMAP_COUNT(%ebx), %ecx
        cmpl    $MEMMAP_MOST, %ecx
        jbe     1f
        movl    $MEMMAP_MOST, %ecx
1:      imull   $ENTRY_DWORDS, %ecx, %ecx
        movl    $FIELD(LV_WAITER_MEMMAP), %edi
        rep movsl
        movl    $COM1, %edx
        movb    $LV_WAITER_READY, %al
        outb    %al, %dx
2:      pause
        movl    FIELD(LV_WAITER_ENTRY), %eax
        testl   %eax, %eax
        jz      2b
        movl    FIELD(LV_WAITER_INFO), %ebx
        jmp     *%eax
end:
        .size lv_waiter, end - lv_waiter

        .balign 4
        .globl lv_waiter_size
        .type lv_waiter_size, @object
        .size lv_waiter_size, 4
lv_waiter_size:
        .long   end - lv_waiter

        .section .note.GNU-stack, "", @progbits
