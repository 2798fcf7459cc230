/* start.S - the test kernel as a multiboot kernel that is a 64-bit ELF file: MULTIBOOT is the specification,
 * 1 (0.6.96, section 3.1) or 2 (2.0, section 3.1).
 */
        .section .multiboot, "a", @progbits
#if MULTIBOOT == 1
        .balign 4
        .long   0x1badb002, 3, -(0x1badb002 + 3) /* modules on pages, memory's size */
#else
        .balign 8
header: .long   0xe85250d6, 0, header_end - header, -(0xe85250d6 + (header_end - header))
        .word   1, 0                    /* wants to know: */
        .long   8 + 3 * 4, 1, 3, 6      /* command line, modules, memory map */
        .balign 8
        .word   6, 0                    /* modules on pages */
        .long   8
        .word   4, 1                    /* optional: a console */
        .long   12, 1
        .balign 8
        .word   0, 0                    /* the end */
        .long   8
header_end:
#endif

        .section .text.boot, "ax"
        .code32
        .globl  multiboot_entry
multiboot_entry:
        movl    %eax, multiboot_magic
        jmp     pvh_entry

        .data
        .globl  multiboot_magic
multiboot_magic:
        .long   0

        .section .note.GNU-stack, "", @progbits
