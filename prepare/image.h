/* image.h - a prepared image: the library OS and a root file system in one ELF file (unid/rootfs.h).
 */
#ifndef UNID_PREPARE_IMAGE_H
#define UNID_PREPARE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* Where the root file system of a prepared image stands in the file, and what goes in front. */
struct image_front {
    uint8_t *bytes; /* free with image_front_done */
    size_t size;    /* a multiple of 4 KiB: the root file system's offset */
    size_t where;   /* offset in `bytes` of struct unid_rootfs_where */
    size_t segment; /* offset of the root file system's program header */
};

/* Lays out the library OS (an ELF file linked at UNID_LIBOS_BASE, with our note) for a root file
 * system behind it. -EINVAL it is no such file, -ENOMEM. */
int image_front_new(const void *libos, size_t len, struct image_front *ret, struct un_error *err);
/* Tells it how large the root file system became. */
void image_front_set(struct image_front *f, uint64_t rootfs_size);
void image_front_done(struct image_front *f);

#endif
