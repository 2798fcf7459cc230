/* libos.S - the library OS's ELF file as bytes of the program, for program.c. The path is relative to the
 * build directory. */
    .section .rodata
    .global prepare_libos, prepare_libos_end
    .balign 16
prepare_libos:
    .incbin "guest/libos/libos.elf"
prepare_libos_end:
    .section .note.GNU-stack, "", @progbits
