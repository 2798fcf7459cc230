/* internal.h - what the files of imagestore/ share; nobody else includes it. */
#ifndef UNID_IMAGESTORE_INTERNAL_H
#define UNID_IMAGESTORE_INTERNAL_H

#include <openssl/evp.h>

#include "common/list.h"
#include "imagestore/image.h"

/* An image's bytes are rows of `image_chunks`: all but the last IMAGE_CHUNK_BYTES long, with the
 * key (blob << IMAGE_INDEX_BITS) + index, so that they lie in the file in order and need no second
 * index. The size is a measured compromise: larger rows store no faster, and each upload buffers
 * several. */
#define IMAGE_CHUNK_BYTES (256u << 10)
#define IMAGE_INDEX_BITS  24

/* What image_recognise looks at. */
#define IMAGE_HEAD_BYTES (64u << 10)

/* head.c: what lies behind the head of an ELF file and is looked at: segments of notes, and the code at the entry of
 * what may be a kernel (common/linux64.h). */
struct image_late {
    const uint8_t *data;
    size_t len;
    bool code;
};
enum { IMAGE_LATE_NOTES_MAX = 4, IMAGE_LATE_MAX = IMAGE_LATE_NOTES_MAX + 1 };
/* image_recognise, with those. recognise.c */
int image_recognise_late(const void *head, size_t len, uint64_t file_size,
                         const struct image_late *late, size_t late_count, enum image_kind *ret,
                         struct un_error *err);

/* initrd.c. Whether the bytes begin as a cpio archive in its "newc" form does. */
bool initrd_is_cpio(const void *head, size_t len);
/* Whether they begin as one of the compressed forms that Linux unpacks. */
bool initrd_is_compressed(const void *head, size_t len);
/* Whether what is compressed is such an archive. A form that packs more than `len` bytes into one block
 * cannot be looked into: it is one. */
bool initrd_is_packed_cpio(const void *head, size_t len, uint64_t file_size);

static inline int64_t image_chunk_key(int64_t blob, uint64_t index)
{
    return (int64_t)(((uint64_t)blob << IMAGE_INDEX_BITS) + index);
}

struct imagestore {
    struct un_loop *loop;
    struct store *store;
    struct un_workers *workers;
    char *dir; /* of the flat files */
    int dir_fd;
    uint64_t max_image_bytes, max_cache_bytes;
    int64_t next_blob; /* never given out before in this life of the daemon */

    struct un_list entries; /* cache.c */
    struct un_list idle;
    struct un_timer idle_timer;
    unsigned cold, next_serial;
    struct un_list failures; /* prepared.c */
    unsigned failure_count;

    struct un_list volumes; /* volume.c */
    unsigned volume_count;
    char *volume_dir;
    int volume_fd; /* of the directory */

    unsigned pending; /* flows under way; the last to end frees a closed store */
    bool closed;
};

/* Each flow (upload, job, ...) holds the store while a callback may still come to it. */
void imagestore_hold(struct imagestore *is);
void imagestore_release(struct imagestore *is);

/* Removes the rows of a blob that no image refers to, in steps, and the flat file of `digest` (or
 * NULL). What cannot be removed now is removed at the next start. */
void image_purge(struct imagestore *is, int64_t blob, const char *digest);

/* Store thread. Fills `ret` and `blob` from the image that `ref` (digest or tag) names; -ENOENT. */
int image_load(sqlite3 *db, const char *ref, struct image_info *ret, int64_t *blob,
               struct un_error *err);
/* -1: unknown. */
int image_kind_parse(const char *name);

/* Store thread. Reads one chunk into `buf` (IMAGE_CHUNK_BYTES) and checks its length. -ENOENT when
 * it is gone, -EUCLEAN when it has another length than it must. */
int image_read_chunk(sqlite3 *db, int64_t key, void *buf, size_t want, struct un_error *err);

/* "sha256:" and the digest of what went into `md`; -EIO. */
int image_digest_final(EVP_MD_CTX *md, char ret[IMAGE_DIGEST_SIZE], struct un_error *err);
/* A new SHA-256 context (EVP_MD_CTX_free), or NULL. */
EVP_MD_CTX *image_digest_new(void);

/* cache.c */
int image_cache_open(struct imagestore *is, const char *cache_dir, struct un_error *err);
void image_cache_close(struct imagestore *is);
/* The image was removed: its mapping is not given out any more. */
void image_cache_forget(struct imagestore *is, const char *digest);

/* volume.c. Makes the directory when it is missing; blocking. */
int volumes_open(struct imagestore *is, const char *dir, struct un_error *err);
void volumes_free(struct imagestore *is);

/* prepared.c. Worker threads, but for the failures. */
/* The file name of an image's prepared form. -EIO. */
int image_prepared_name(const char *digest, char ret[65], struct un_error *err);
/* Maps it when it is there and whole; `verified`: its digest was compared before. */
bool image_prepared_open(struct imagestore *is, const char *name, bool verified,
                         struct image_mapping *ret, size_t *ret_mapped);
struct image_prepare_spec {
    const uint8_t *data; /* the image's bytes */
    size_t size;
    const char *name, *temp_name;
};
/* Makes it and maps it. On failure `*ret_report` may be set (free with free()). Errors as
 * prepare_program. */
int image_prepare(struct imagestore *is, const struct image_prepare_spec *spec, char **ret_report,
                  struct image_mapping *ret, size_t *ret_mapped, struct un_error *err);
/* Takes the report of what could not be prepared, NULL: none. */
void image_failure_keep(struct imagestore *is, const char *digest, char *report);
void image_failures_free(struct imagestore *is);

#endif
