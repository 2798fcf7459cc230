/* start.S - the test kernel as a kernel of Linux' 64-bit boot protocol (Documentation/arch/x86/boot.rst): in long mode,
 * struct boot_params in rsi, a stack that need not be there.
 */
        .section .text.boot, "ax"
        .code64
        .globl  linux64_entry
linux64_entry:
        cmpl    $0x53726448, 0x202(%rsi) /* "HdrS": by this unid knows it */
        jne     2f
        movl    $__bss_start, %edi
        movl    $__bss_end, %ecx
        subl    %edi, %ecx
        xorl    %eax, %eax
        rep stosb
        movl    $linux64_stack, %esp
        lgdt    gdt_pointer             /* the test kernel's segments: code is 8, data 16 */
        pushq   $8
        pushq   $1f
        lretq
1:      movl    $16, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    %esi, %edi
        call    kernel_main
2:      cli
        hlt
        jmp     2b

        .section .rodata
        .balign 8
gdt:    .quad   0, 0x00af9a000000ffff, 0x00cf92000000ffff
gdt_pointer:
        .word   23
        .quad   gdt

        .bss
        .balign 16
        .skip   16384
linux64_stack:

        .section .note.GNU-stack, "", @progbits
