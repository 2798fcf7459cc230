/* overlay.c - see overlay.h. Four clusters: header, refcount table, refcount block, L1 table; what the
 * latter names is made by QEMU. Numbers are big-endian. */
#include "hypervisor/libvirt/overlay.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/limits.h"

enum {
    CLUSTER_BITS = 16,
    CLUSTER = 1 << CLUSTER_BITS,
    CLUSTERS = 4,
    SECTOR = 512,
    NAME_AT = 256,
    NAME_MAX_BYTES = 1023
};

#define MAGIC            UINT32_C(0x514649fb) /* "QFI\xfb" */
#define FORMAT_EXTENSION UINT32_C(0xe2792aca)
#define L2_BYTES         ((uint64_t)CLUSTER * (CLUSTER / 8)) /* that one entry of the L1 table stands for */
#define SIZE_LIMIT       (L2_BYTES * (CLUSTER / 8))
_Static_assert(SIZE_LIMIT == (uint64_t)LIMIT_DISK_TIB << 40, "what an image may have");

struct header {
    uint32_t magic, version;
    uint64_t backing_at;
    uint32_t backing_len, cluster_bits;
    uint64_t size;
    uint32_t crypt, l1_entries;
    uint64_t l1_at, refcount_table_at;
    uint32_t refcount_table_clusters, snapshots;
    uint64_t snapshots_at, incompatible, compatible, autoclear;
    uint32_t refcount_order, header_bytes;
};
_Static_assert(sizeof(struct header) == 104, "as qcow2.txt has it");

/* The size of the disk in an image. */
static int disk_size(const char *image, const char *format, uint64_t *ret, struct un_error *err)
{
    struct header h;
    struct stat st;
    un_autoclose int fd = open(image, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        return un_error_errno(err, -errno, "open %s", image);
    }
    if (strcmp(format, "raw") == 0) {
        *ret = ((uint64_t)st.st_size + SECTOR - 1) / SECTOR * SECTOR;
    } else if (pread(fd, &h, sizeof(h), 0) == sizeof(h) && be32toh(h.magic) == MAGIC) {
        *ret = be64toh(h.size);
    } else {
        return un_error_set(err, -EINVAL, "%s is no %s", image, format);
    }
    return *ret <= SIZE_LIMIT
               ? 0
               : un_error_set(err, -EFBIG, "%s: a disk of over %d TiB", image, LIMIT_DISK_TIB);
}

static int write_at(int fd, const void *data, size_t len, off_t at)
{
    ssize_t n = pwrite(fd, data, len, at);
    return n == (ssize_t)len ? 0 : n < 0 ? -errno : -ENOSPC;
}

static int write_header(int fd, const char *image, const char *format, uint64_t size)
{
    uint8_t first[NAME_AT + NAME_MAX_BYTES + 1] = {0};
    uint32_t extension[2] = {htobe32(FORMAT_EXTENSION), htobe32((uint32_t)strlen(format))};
    size_t len = strlen(image);
    if (len > NAME_MAX_BYTES) {
        return -ENAMETOOLONG;
    }
    struct header h = {.magic = htobe32(MAGIC),
                       .version = htobe32(3),
                       .backing_at = htobe64(NAME_AT),
                       .backing_len = htobe32((uint32_t)len),
                       .cluster_bits = htobe32(CLUSTER_BITS),
                       .size = htobe64(size),
                       .l1_entries = htobe32((uint32_t)((size + L2_BYTES - 1) / L2_BYTES)),
                       .l1_at = htobe64(3 * CLUSTER),
                       .refcount_table_at = htobe64(CLUSTER),
                       .refcount_table_clusters = htobe32(1),
                       .refcount_order = htobe32(4),
                       .header_bytes = htobe32(sizeof(h))};
    memcpy(first, &h, sizeof(h));
    memcpy(first + sizeof(h), extension, sizeof(extension));
    memcpy(first + sizeof(h) + sizeof(extension), format, strlen(format));
    memcpy(first + NAME_AT, image, len);
    return write_at(fd, first, NAME_AT + len, 0);
}

static int write_all(int fd, const char *image, const char *format, uint64_t size)
{
    const uint64_t refcount_block = htobe64(2 * CLUSTER);
    const uint16_t refcounts[CLUSTERS] = {htobe16(1), htobe16(1), htobe16(1), htobe16(1)};
    int rc = ftruncate(fd, CLUSTERS * CLUSTER) < 0 ? -errno : 0;
    rc = rc < 0 ? rc : write_header(fd, image, format, size);
    rc = rc < 0 ? rc : write_at(fd, &refcount_block, sizeof(refcount_block), CLUSTER);
    return rc < 0 ? rc : write_at(fd, refcounts, sizeof(refcounts), 2 * CLUSTER);
}

int lv_overlay_create(const char *path, const char *image, const char *format, struct un_error *err)
{
    uint64_t size = 0;
    int rc = disk_size(image, format, &size, err);
    if (rc < 0) {
        return rc;
    }
    un_autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    rc = fd < 0 ? -errno : write_all(fd, image, format, size);
    if (rc < 0 && fd >= 0) {
        unlink(path);
    }
    return rc < 0 ? un_error_errno(err, rc, "create %s", path) : 0;
}
