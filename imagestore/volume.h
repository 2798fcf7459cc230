/* volume.h - volumes: named disks that machine images write to, which outlive machines, versions and
 * functions.
 *
 * A volume is a file of the volume directory, raw or qcow2, and a row. Either is there with the other:
 * a new file stands under a temporary name until its row is on disk, a file to be removed stands under
 * it before its row goes; so at the next start a temporary file that a row names gets its name, and one
 * without row is removed. No other file is ever removed.
 *
 * Where things are: volume.c flows and the table in memory, volume_sql.c the rows, volume_file.c the
 * files.
 *
 * Loop thread throughout; files are made and removed on workers.
 */
#ifndef UNID_IMAGESTORE_VOLUME_H
#define UNID_IMAGESTORE_VOLUME_H

#include "imagestore/image.h"

enum { VOLUME_NAME_SIZE = 63 + 1, VOLUME_FORMAT_SIZE = 8 };

/* 1 to 63 of [a-z0-9-], starting with a letter, not ending with '-'. */
bool volume_name_valid(const char *name);

struct volume_info {
    char name[VOLUME_NAME_SIZE];
    char format[VOLUME_FORMAT_SIZE]; /* "raw", "qcow2" */
    uint64_t size_bytes;             /* of the disk that a machine sees */
    uint64_t allocated_bytes;        /* that the file takes */
    char image[IMAGE_DIGEST_SIZE];   /* whose content it had at first; "": it was empty */
    char used_by[VOLUME_NAME_SIZE];  /* the function whose live version attaches it; "": none */
    uint64_t created_us;             /* wall clock */
};

/* All callbacks: once, never inside the call (but for -ENOMEM, which may be told at once). What they
 * give is borrowed. */
typedef void (*volume_info_cb)(void *arg, int rc, const struct volume_info *info, bool created,
                               const struct un_error *err);
typedef void (*volume_list_cb)(void *arg, int rc, const struct volume_info *list, size_t count,
                               const struct un_error *err);

struct volume_spec {
    const char *name;    /* copied, like `image` */
    uint64_t size_bytes; /* whole MiB; 0: the image's */
    const char *image;   /* digest of a disk image; NULL: an empty raw disk */
};
/* Makes a volume; `created` false when it is there already and was made from the same. A raw one takes
 * room on the disk as it is written to. -EINVAL, -ENOENT no such image, -EEXIST another of that name,
 * -EBUSY it is being made or removed, -E2BIG LIMIT_VOLUMES, -ENOSPC. */
void volume_create(struct imagestore *is, const struct volume_spec *spec, volume_info_cb cb,
                   void *arg);
/* -ENOENT. */
void volume_get(struct imagestore *is, const char *name, volume_info_cb cb, void *arg);
/* All, by name. */
void volume_list(struct imagestore *is, volume_list_cb cb, void *arg);
/* With all that is on it. -ENOENT; -EBUSY while a function's live version attaches it. */
void volume_remove(struct imagestore *is, const char *name, image_done_cb cb, void *arg);

/* Where the file is, for who runs machines; at once. -ENOENT, -ENAMETOOLONG. */
int volume_place(struct imagestore *is, const char *name, char *ret_path, size_t path_size,
                 const char **ret_format, struct un_error *err);

#endif
