/* tar.h - root file systems out of tar archives.
 *
 * Any tar that libarchive reads (ustar, pax, GNU, with sparse files), plain or compressed by gzip,
 * bzip2, xz or zstd. The first entry may be .unid.json, which says what runs:
 *
 *     {"program": "/usr/bin/jq"}
 *
 * It becomes no file. Device files, pipes and sockets below dev/ are left out, since the library OS
 * has a /dev of its own; elsewhere they are refused.
 */
#ifndef UNID_PREPARE_TAR_H
#define UNID_PREPARE_TAR_H

#include "prepare/rootfs.h"

/* Whether some bytes are the beginning (64 KiB suffice) of a tar archive of those kinds. */
bool tar_is(const void *head, size_t len);

struct tar_result {
    char program[4096]; /* of .unid.json; "" */
    unsigned left_out;  /* device files */
};

/* Adds everything to `fs`. -EINVAL no archive, a damaged one, or one with what cannot be (the text
 * names the entry), -EFBIG, -ENOMEM, or as rootfs_file_write. */
int tar_read(const void *data, size_t len, struct rootfs *fs, struct tar_result *ret,
             struct un_error *err);

/* Reads the text of a .unid.json into `ret->program`. -EINVAL with what is wrong. */
int tar_read_config(const void *text, size_t len, struct tar_result *ret, struct un_error *err);

#endif
