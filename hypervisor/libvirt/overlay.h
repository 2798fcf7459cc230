/* overlay.h - what a machine writes to an image's disk: a file of its own over the image, which is only
 * read, so that any number of machines can have the same image. Lost with the machine. */
#ifndef UNID_HYPERVISOR_LIBVIRT_OVERLAY_H
#define UNID_HYPERVISOR_LIBVIRT_OVERLAY_H

#include "common/error.h"

/* Makes the file: an empty qcow2 of the size of `image` (raw or qcow2, as `format` says), which it names
 * as its backing file. Errors of the files; -EINVAL: the image is none of that format; -EFBIG: its disk
 * is larger than 4 TiB. On failure nothing is left. Worker.
 * Source: QEMU, docs/interop/qcow2.txt, version 3. */
int lv_overlay_create(const char *path, const char *image, const char *format,
                      struct un_error *err);

#endif
