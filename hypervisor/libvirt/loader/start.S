/* start.S - the loader's entry, from QEMU, and its last jump (see boot.h). 32 bits, paging and
 * interrupts off, as both specifications have it.
 */
        .section .multiboot, "a", @progbits
        .balign 4
        .long   0x1badb002, 3, -(0x1badb002 + 3) /* modules on pages, the memory's map */

        .section .text.start, "ax"
        .code32
        .globl  boot_start
boot_start:
        cli
        cld
        movl    $boot_stack, %esp
        pushl   %ebx                    /* what QEMU tells */
        pushl   %eax
        call    boot_main

        .globl  boot_reset
boot_reset:
        lidt    no_table
        int3                            /* without a table for it: the machine resets */

/* void boot_jump(const struct boot_jump *): copies the pieces and enters the kernel. It is copied itself before
 * that, to where no piece goes, so it needs no address of its own and no stack. */
        .globl  boot_jump, boot_jump_end
boot_jump:
        movl    4(%esp), %ebp
        leal    16(%ebp), %ebx          /* the pieces */
        movl    12(%ebp), %edx          /* how many */
1:      testl   %edx, %edx
        jz      2f
        movl    (%ebx), %edi
        movl    4(%ebx), %esi
        movl    8(%ebx), %eax
        movl    %eax, %ecx
        shrl    $2, %ecx
        rep movsl
        movl    %eax, %ecx
        andl    $3, %ecx
        rep movsb
        xorl    %eax, %eax
        movl    12(%ebx), %ecx
        shrl    $2, %ecx
        rep stosl
        movl    12(%ebx), %ecx
        andl    $3, %ecx
        rep stosb
        addl    $16, %ebx
        decl    %edx
        jmp     1b
2:      movl    (%ebp), %eax            /* magic */
        movl    4(%ebp), %ebx           /* what the kernel is told */
        movl    8(%ebp), %ecx           /* its entry */
        jmp     *%ecx
boot_jump_end:

        .section .rodata
no_table:
        .word   0
        .long   0

        .bss
        .balign 16
        .skip   16384
boot_stack:

        .section .note.GNU-stack, "", @progbits
