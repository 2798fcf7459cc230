/* image.S - the loader's ELF file as bytes of the driver. The path is relative to the build directory. */
    .section .rodata
    .global lv_multiboot, lv_multiboot_end
    .balign 16
lv_multiboot:
    .incbin "hypervisor/libvirt/multiboot/loader.elf"
lv_multiboot_end:
    .section .note.GNU-stack, "", @progbits
