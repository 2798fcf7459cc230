/* image.S - the loader's ELF file as bytes of the driver. The path is relative to the build directory. */
    .section .rodata
    .global lv_loader, lv_loader_end
    .balign 16
lv_loader:
    .incbin "hypervisor/libvirt/loader/loader.elf"
lv_loader_end:
    .section .note.GNU-stack, "", @progbits
