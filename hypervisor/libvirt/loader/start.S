/* start.S - the loader's entry, from QEMU, and its last jump (see boot.h). 32 bits, paging and
 * interrupts off, as both specifications have it.
 */
#define TABLES   16             /* in struct boot_jump */
#define STACK    20
#define GDT_SIZE 26
#define PIECES   64

#define BOOT_CS  0x10
#define BOOT_DS  0x18
#define CR0_PG   0x80000000
#define CR4_PAE  0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100

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
        leal    PIECES(%ebp), %ebx
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
2:      movl    TABLES(%ebp), %edx
        testl   %edx, %edx
        jnz     3f
        movl    (%ebp), %eax            /* magic */
        movl    4(%ebp), %ebx           /* what the kernel is told */
        movl    8(%ebp), %ecx           /* its entry */
        jmp     *%ecx

        /* Linux' 64-bit boot protocol: long mode, its segments, what the kernel is told in rsi. */
3:      movl    STACK(%ebp), %esp
        movl    %edx, %cr3
        movl    $CR4_PAE, %eax
        movl    %eax, %cr4
        movl    $MSR_EFER, %ecx
        rdmsr
        orl     $EFER_LME, %eax
        wrmsr
        lgdt    GDT_SIZE(%ebp)
        movl    %cr0, %eax
        orl     $CR0_PG, %eax
        movl    %eax, %cr0
        call    4f
4:      popl    %eax
        addl    $5f - 4b, %eax
        pushl   $BOOT_CS
        pushl   %eax
        lret
        .code64
5:      movl    %ebp, %ebp              /* no more than 32 bits */
        movl    $BOOT_DS, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    %eax, %fs
        movl    %eax, %gs
        movl    4(%rbp), %esi
        movl    8(%rbp), %eax
        movl    %esp, %ebp
        jmp     *%rax
        .code32
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
