/* boot.S - from PVH entry (32-bit, paging off; Xen, docs/misc/pvh.pandoc) to C in long mode, the
 * interrupt entry, and halting. All memory below 4 GiB is mapped onto itself by 2 MiB pages.
 */
        .section .note.pvh, "a", @note
        .long   4, 4, 18                /* name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz  "Xen"
        .long   pvh_entry

        .section .text.boot, "ax"
        .code32
        .globl  pvh_entry
pvh_entry:
        cli
        cld
        movl    $stack_top, %esp
        movl    %ebx, %esi              /* struct hvm_start_info */
        movl    $__bss_start, %edi
        movl    $__bss_end, %ecx
        subl    %edi, %ecx
        shrl    $2, %ecx
        xorl    %eax, %eax
        rep stosl

        /* Four page directories, 2,048 leaves: present, writable, large. Device memory is not
         * cacheable by the MTRRs; under QEMU it makes no difference. */
        movl    $directories, %edi
        movl    $0x83, %eax
        movl    $2048, %ecx
1:      movl    %eax, (%edi)
        addl    $0x200000, %eax
        addl    $8, %edi
        loop    1b
        movl    $directories + 3, %eax
        movl    $pointers, %edi
        movl    $4, %ecx
2:      movl    %eax, (%edi)
        addl    $0x1000, %eax
        addl    $8, %edi
        loop    2b
        movl    $pointers + 3, root

        movl    $root, %eax
        movl    %eax, %cr3
        movl    $0x20, %eax             /* PAE */
        movl    %eax, %cr4
        movl    $0xc0000080, %ecx       /* EFER.LME */
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000001, %eax
        movl    %eax, %cr0
        lgdt    gdt_pointer
        ljmp    $8, $long_mode

        .code64
long_mode:
        movl    $16, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    %esi, %edi
        call    kernel_main
1:      cli
        hlt
        jmp     1b

        .text
/* Any device's interrupt: woken is all that the main loop needs. The local APIC's end-of-interrupt
 * register is at offset 0xb0. */
        .globl  interrupt_entry
interrupt_entry:
        pushq   %rax
        movl    $0xfee000b0, %eax
        movl    $0, (%rax)
        popq    %rax
        iretq

/* Sleeps until an interrupt; interrupts are on only here. */
        .globl  cpu_wait
cpu_wait:
        sti
        hlt
        cli
        ret

/* An interrupt without a table for it: triple fault. */
        .globl  cpu_crash
cpu_crash:
        lidt    null_pointer
        int3

        .section .rodata
        .balign 8
gdt:    .quad   0, 0x00af9a000000ffff, 0x00cf92000000ffff
gdt_pointer:
        .word   23
        .long   gdt
null_pointer:
        .word   0
        .quad   0

        .bss
        .balign 4096
root:           .skip 4096
pointers:       .skip 4096
directories:    .skip 4 * 4096
        .skip   16384
stack_top:

        .section .note.GNU-stack, "", @progbits
