/* loader.h - the loader of kernels that QEMU does not load (boot.h), as the driver has it: bytes for a file. */
#ifndef UNID_HYPERVISOR_LIBVIRT_LOADER_LOADER_H
#define UNID_HYPERVISOR_LIBVIRT_LOADER_LOADER_H

#include <stdint.h>

/* Its name, in the driver's work directory. The loader knows by the end of it where its command line begins
 * (main.c). */
#define LV_LOADER_FILE "boot.loader"

extern const uint8_t lv_loader[], lv_loader_end[];

#endif
