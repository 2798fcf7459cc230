/* initrd.c - whether a file is an initial RAM disk for Linux.
 *
 * Sources: Documentation/driver-api/early-userspace/buffer-format.rst (the "newc" form, and that
 * compressed archives may follow plain ones); the magic numbers of lib/decompress.c.
 */
#include <archive.h>
#include <archive_entry.h>
#include <string.h>

#include "common/cleanup.h"
#include "imagestore/internal.h"

enum {
    CPIO_HEADER_BYTES = 110, /* the magic and 13 fields of 8 hexadecimal digits */
    CPIO_MAGIC_BYTES = 6
};

bool initrd_is_cpio(const void *head, size_t len)
{
    const char *bytes = head;
    if (len < CPIO_HEADER_BYTES || (memcmp(bytes, "070701", CPIO_MAGIC_BYTES) != 0 &&
                                    memcmp(bytes, "070702", CPIO_MAGIC_BYTES) != 0)) {
        return false;
    }
    for (size_t i = CPIO_MAGIC_BYTES; i < CPIO_HEADER_BYTES; i++) {
        if (!bytes[i] || !strchr("0123456789abcdefABCDEF", bytes[i])) {
            return false;
        }
    }
    return true;
}

static const struct {
    unsigned len;
    const char *bytes;
} forms[] = {
    {2, "\x1f\x8b"}, /* gzip */
    {6, "\xfd"
        "7zXZ\0"},           /* xz */
    {4, "\x28\xb5\x2f\xfd"}, /* zstd */
    {4, "\x02\x21\x4c\x18"}, /* lz4, the legacy frame that Linux takes */
    {4, "\x04\x22\x4d\x18"}, /* lz4 */
    {3, "BZh"},              /* bzip2 */
};

bool initrd_is_compressed(const void *head, size_t len)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(forms); i++) {
        if (len >= forms[i].len && memcmp(head, forms[i].bytes, forms[i].len) == 0) {
            return true;
        }
    }
    return false;
}

/* Unpacks the first bytes into `ret`; how many there are, 0 when not one can be had. */
static size_t unpack(const void *head, size_t len, void *ret, size_t size)
{
    struct archive *a = archive_read_new();
    struct archive_entry *entry;
    la_ssize_t n = 0;
    if (!a) {
        return 0;
    }
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_bzip2(a);
    archive_read_support_filter_xz(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_filter_lz4(a);
    archive_read_support_format_raw(a);
    if (archive_read_open_memory(a, head, len) == ARCHIVE_OK &&
        archive_read_next_header(a, &entry) >= ARCHIVE_WARN && archive_filter_count(a) > 1) {
        n = archive_read_data(a, ret, size);
    }
    archive_read_free(a);
    return n > 0 ? (size_t)n : 0;
}

bool initrd_is_packed_cpio(const void *head, size_t len, uint64_t file_size)
{
    char first[CPIO_HEADER_BYTES];
    if (!initrd_is_compressed(head, len)) {
        return false;
    }
    size_t n = unpack(head, len, first, sizeof first);
    return n > 0 ? initrd_is_cpio(first, n) : len < file_size;
}
