/* loader.h - the loader for multiboot kernels (multiboot.h), as the driver has it: bytes for a file. */
#ifndef UNID_HYPERVISOR_LIBVIRT_MULTIBOOT_LOADER_H
#define UNID_HYPERVISOR_LIBVIRT_MULTIBOOT_LOADER_H

#include <stdint.h>

/* Its name, in the driver's work directory. The loader knows by the end of it where its command line begins
 * (main.c). */
#define LV_MULTIBOOT_FILE "multiboot.loader"

extern const uint8_t lv_multiboot[], lv_multiboot_end[];

#endif
