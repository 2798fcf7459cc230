/* image.h - the image store: content-addressed blobs in SQLite, what kind they are, their tags.
 *
 * An image is the bytes that were pushed, named "sha256:<64 hex>". The same bytes are stored once.
 * An upload is a stream; it becomes an image only at the end, when length, digest and headers have
 * been checked, in the same transaction that makes it durable; until then nobody sees it, and what
 * a broken upload left is removed (at once, or at the next start after a crash).
 *
 * For running, an image is unpacked once into a flat file in the cache directory and mapped
 * (image_open); of a Linux program the prepared image (prepare/program.h) is kept there instead. The
 * cache may be deleted at any time.
 *
 * Where things are: recognise.c what a file is, head.c and initrd.c its first bytes, image.c the table of images, upload.c and reader.c
 * bytes in and out, tag.c tags, cache.c flat files and mappings, prepared.c prepared images, schema.c the tables; functions: see
 * function.h.
 *
 * Loop thread throughout; all work on bytes happens on the store's threads and on workers.
 */
#ifndef UNID_IMAGESTORE_IMAGE_H
#define UNID_IMAGESTORE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/workers.h"
#include "store/store.h"

enum {
    IMAGE_DIGEST_SIZE = 7 + 64 + 1, /* "sha256:" + hex + NUL */
    IMAGE_TAG_SIZE = 128 + 1
};

enum image_kind {
    IMAGE_SDK,           /* ring-3 ELF with our note: the drivers run it as it is */
    IMAGE_LINUX_STATIC,  /* Linux program without interpreter */
    IMAGE_LINUX_DYNAMIC, /* Linux program with PT_INTERP */
    IMAGE_LINUX_ROOTFS,  /* tar archive of a root file system (prepare/tar.h) */
    IMAGE_PVH,           /* kernel ELF with the Xen note XEN_ELFNOTE_PHYS32_ENTRY */
    IMAGE_MULTIBOOT1,
    IMAGE_MULTIBOOT2,
    IMAGE_LINUX64, /* kernel ELF that is entered by Linux' 64-bit boot protocol (common/linux64.h) */
    IMAGE_BZIMAGE,
    IMAGE_DISK, /* anything else with a whole number of 512-byte sectors and the signature of an MBR, a
                    GPT or a file system, or qcow2 */
    IMAGE_INITRD /* cpio archive ("newc"), plain or compressed: goes with a kernel */
};

/* "sdk", "linux-static", ... as in JSON. */
const char *image_kind_name(enum image_kind kind);
/* Whether images of the kind are prepared before they run: the three of Linux programs. */
static inline bool image_kind_is_linux(enum image_kind kind)
{
    return kind == IMAGE_LINUX_STATIC || kind == IMAGE_LINUX_DYNAMIC || kind == IMAGE_LINUX_ROOTFS;
}

struct image_info {
    char digest[IMAGE_DIGEST_SIZE];
    enum image_kind kind;
    uint64_t size_bytes;
    uint64_t created_us;        /* wall clock */
    uint32_t function_versions; /* how many function versions refer to it */
};

/* What a file is, from its first bytes (`len` <= file_size; 64 KiB suffice) and its size. -EINVAL
 * with what is wrong when it claims to be something and lies, or is nothing known. Pure; any
 * thread. */
int image_recognise(const void *head, size_t len, uint64_t file_size, enum image_kind *ret,
                    struct un_error *err);
/* Whether a kernel of this kind, whose bytes these are, is one that QEMU does not load itself, so that a loader
 * in the guest has to: multiboot 2, Linux' 64-bit boot protocol, and ELF files for x86-64 with a multiboot 1
 * header without load addresses, also where they have a PVH note, which QEMU looks for later
 * (hw/i386/multiboot.c, measured with 7.2). Pure; any thread. */
bool image_needs_loader(enum image_kind kind, const void *data, size_t len);

/* The same of a file whose bytes come one after the other: keeps the first 64 KiB, and of an ELF file
 * whose notes lie further behind, as a vmlinux has them, also those. */
struct image_head;
struct image_head *image_head_new(void); /* NULL: out of memory */
void image_head_free(struct image_head *h);
/* The next bytes of the file. -ENOMEM. */
int image_head_feed(struct image_head *h, const void *data, size_t len);
/* After the last: as image_recognise. */
int image_head_recognise(const struct image_head *h, enum image_kind *ret, struct un_error *err);

/* Whether `s` is "sha256:" and 64 lower-case hex digits. */
bool image_digest_valid(const char *s);

struct imagestore;

struct imagestore_spec {
    struct un_loop *loop;
    struct store *store; /* opened with imagestore_schema among its schemas */
    struct un_workers *workers;
    const char *cache_dir;    /* created when missing */
    const char *volume_dir;   /* likewise: volume.h */
    uint64_t max_image_bytes; /* a longer upload fails with -EFBIG */
    uint64_t max_cache_bytes; /* flat files kept beyond use */
};

extern const struct store_schema imagestore_schema;

/* Also removes what broken uploads left behind. Blocking: called once at start. */
int imagestore_open(const struct imagestore_spec *spec, struct imagestore **ret,
                    struct un_error *err);
/* No upload, reader or mapping may be in use. What is still under way of its own (removing what an
 * abort left) ends with the workers and the store, which are closed after it. NULL is allowed. */
void imagestore_close(struct imagestore *is);

/* --- upload ----------------------------------------------------------------------------------- */

struct image_upload;

struct image_upload_events {
    /* Fewer than the buffered limit are waiting again: the source may go on. */
    void (*on_room)(void *arg);
    /* The end, once: 0 and the image (`created` false when it was there already), or an error:
     * -EFBIG too long, -EBADMSG length or digest differ from what was declared, -EINVAL not an
     * image, -ENOSPC. The upload is gone when this returns. */
    void (*on_done)(void *arg, int rc, const struct image_info *info, bool created,
                    const struct un_error *err);
};

struct image_upload_spec {
    int64_t declared_size;                    /* bytes, or -1 */
    const char *declared_digest;              /* or NULL; copied */
    const struct image_upload_events *events; /* kept */
    void *arg;
};

int image_upload_start(struct imagestore *is, const struct image_upload_spec *spec,
                       struct image_upload **ret, struct un_error *err);
/* Takes a copy of the bytes. Returns 1 when the caller may go on, 0 when it should wait for
 * on_room. */
int image_upload_data(struct image_upload *up, const void *data, size_t len);
void image_upload_finish(struct image_upload *up);
/* The source broke off: everything is undone; on_done is not called. After image_upload_finish the
 * bytes had all come: the image may then stay. */
void image_upload_abort(struct image_upload *up);

/* --- reading ---------------------------------------------------------------------------------- */

/* All callbacks: loop thread, once, never inside the call (but for one case: -ENOMEM, when the
 * request itself finds no memory, is told at once). */
typedef void (*image_info_cb)(void *arg, int rc, const struct image_info *info,
                              const struct un_error *err);
typedef void (*image_list_cb)(void *arg, int rc, const struct image_info *list, size_t count,
                              const struct un_error *err);
typedef void (*image_done_cb)(void *arg, int rc, const struct un_error *err);

/* `ref` is a digest or a tag. -ENOENT. */
void image_get(struct imagestore *is, const char *ref, image_info_cb cb, void *arg);
/* All images, oldest first. */
void image_list(struct imagestore *is, image_list_cb cb, void *arg);
/* -ENOENT; -EBUSY while a function version refers to it (the text names one). */
void image_remove(struct imagestore *is, const char *digest, image_done_cb cb, void *arg);
/* Points `tag` (1-128 of [A-Za-z0-9_.-/:], not a digest, not "." or "..") at an image; moves it
 * when it exists. -EINVAL the tag, -ENOENT the image. */
void image_tag(struct imagestore *is, const char *tag, const char *digest, image_done_cb cb,
               void *arg);
/* The image stays. -ENOENT. */
void image_untag(struct imagestore *is, const char *tag, image_done_cb cb, void *arg);

struct image_tag_info {
    char tag[IMAGE_TAG_SIZE];
    char digest[IMAGE_DIGEST_SIZE]; /* of the image it points at */
};
/* `list` is borrowed. */
typedef void (*image_tags_cb)(void *arg, int rc, const struct image_tag_info *list, size_t count,
                              const struct un_error *err);
/* The tags of one image, or all with `digest` NULL, by name (in byte order). An image that is not
 * there has none. */
void image_tag_list(struct imagestore *is, const char *digest, image_tags_cb cb, void *arg);
/* Removes images that no function version and no tag refers to and that are older than
 * `min_age_us`. */
void image_collect_garbage(struct imagestore *is, uint64_t min_age_us, image_done_cb cb, void *arg);

/* Streams an image's bytes in order, one chunk at a time: the next is read after image_read_next.
 */
struct image_reader;
struct image_read_events {
    void (*on_data)(void *arg, const void *data, size_t len);
    void (*on_end)(void *arg, int rc,
                   const struct un_error *err); /* the reader is gone after this */
};
int image_read_start(struct imagestore *is, const char *digest,
                     const struct image_read_events *events, void *arg, struct image_reader **ret,
                     struct un_error *err);
void image_read_next(struct image_reader *r);
void image_read_abort(struct image_reader *r);

/* --- running ---------------------------------------------------------------------------------- */

/* An image mapped read-only in memory; references are counted, the last image_unref may unmap it.
 */
struct image_mapping {
    const uint8_t *data; /* what a driver runs: of a Linux kind the prepared image */
    size_t size;
    char digest[IMAGE_DIGEST_SIZE]; /* of what was pushed */
    enum image_kind kind;
    bool needs_loader; /* image_needs_loader */
    /* Of a Linux kind: what preparing it found (JSON, docs/programs.md; not NUL-terminated), and the
     * bytes of memory that a machine needs at least, and should have. Else NULL and 0. */
    const char *report;
    size_t report_size;
    uint64_t memory_least, memory_advised;
};
typedef void (*image_open_cb)(void *arg, int rc, struct image_mapping *mapping,
                              const struct un_error *err);
/* The mapping when the image is mapped already, else NULL: the request path's short cut. Borrowed
 * (image_ref to keep). */
struct image_mapping *image_peek(struct imagestore *is, const char *digest);
/* Gives a reference (release with image_unref). The flat file is made, or made anew when its length
 * or digest is wrong, on a worker; so is the prepared image of a Linux program. Several callers wait
 * for one. -ENOENT, -ENOSPC, -EUCLEAN; -EINVAL, -EFBIG when a program cannot be prepared (the text
 * names the first reason). */
void image_open(struct imagestore *is, const char *digest, image_open_cb cb, void *arg);
/* Whether `program`, an absolute path, of an image of a Linux kind could run: `report` (JSON, docs/programs.md; NULL: there
 * is none) is borrowed. It is prepared for that, each time, and not kept. Errors as those of image_open. */
typedef void (*image_judge_cb)(void *arg, int rc, const char *report, const struct un_error *err);
void image_judge(struct imagestore *is, const char *digest, const char *program, image_judge_cb cb,
                 void *arg);
/* The report (JSON) of an image that could not be prepared, while it is remembered; NULL otherwise.
 * Borrowed until the next image_open. */
const char *image_failure_report(struct imagestore *is, const char *digest);
struct image_mapping *image_ref(struct image_mapping *m);
/* Path of the flat file, for who needs one (QEMU); the file stays as long as the mapping is referred to.
 * -ENAMETOOLONG. */
int image_path(const struct image_mapping *m, char *ret, size_t size);
void image_unref(struct image_mapping *m);

#endif
