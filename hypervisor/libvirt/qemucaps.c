/* qemucaps.c - see qemucaps.h. */
#include "hypervisor/libvirt/qemucaps.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "hypervisor/libvirt/place.h"

enum { FILE_BYTES_MAX = 4 << 20, SHA256_BYTES = 32, PATH_SIZE = 2 * LV_PATH_SIZE };

static const char ability[] = "<flag name='cpu-unavailable-features'/>";

static int file_of(const char *cache_dir, const char *emulator, char out[PATH_SIZE])
{
    uint8_t hash[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    if (EVP_Digest(emulator, strlen(emulator), hash, NULL, EVP_sha256(), NULL) != 1) {
        return -ENOMEM;
    }
    un_hex_encode(hash, sizeof(hash), hex);
    return snprintf(out, PATH_SIZE, "%s/qemu/capabilities/%s.xml", cache_dir, hex) < PATH_SIZE
               ? 0
               : -ENAMETOOLONG;
}

static int read_file(const char *path, struct un_buf *out)
{
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char piece[16384];
    ssize_t n;
    if (fd < 0) {
        return -errno;
    }
    while ((n = read(fd, piece, sizeof(piece))) > 0) {
        int rc = out->len > FILE_BYTES_MAX ? -EFBIG : un_buf_append(out, piece, (size_t)n);
        if (rc < 0) {
            return rc;
        }
    }
    return n < 0 ? -errno : un_buf_append(out, "", 1);
}

static int write_file(const char *path, const struct un_buf *text)
{
    char fresh[PATH_SIZE + 8];
    snprintf(fresh, sizeof(fresh), "%s.unid", path);
    un_autoclose int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -errno;
    }
    ssize_t n = write(fd, text->data, text->len);
    int rc = n < 0 ? -errno : n < (ssize_t)text->len ? -ENOSPC : 0;
    if (rc == 0 && rename(fresh, path) < 0) {
        rc = -errno;
    }
    if (rc < 0) {
        unlink(fresh);
    }
    return rc;
}

/* Everything but `what`, which stands there once and for which `with` is put in. */
static int replace(const char *text, const char *what, const char *with, struct un_buf *out)
{
    const char *at = strstr(text, what);
    if (!at) {
        return -EINVAL;
    }
    int rc = un_buf_append(out, text, (size_t)(at - text));
    rc = rc < 0 ? rc : un_buf_append_str(out, with);
    return rc < 0 ? rc : un_buf_append_str(out, at + strlen(what));
}

static int rewrite(const char *text, const char *emulator, const char *alias, struct un_buf *out)
{
    un_autobuf struct un_buf named = {0};
    char was[PATH_SIZE], is[PATH_SIZE];
    if (snprintf(was, sizeof(was), "<emulator>%s</emulator>", emulator) >= PATH_SIZE ||
        snprintf(is, sizeof(is), "<emulator>%s</emulator>", alias) >= PATH_SIZE) {
        return -ENAMETOOLONG;
    }
    int rc = replace(text, was, is, &named);
    rc = rc < 0 ? rc : un_buf_append(&named, "", 1);
    return rc < 0 ? rc : replace((const char *)named.data, ability, "", out);
}

int lv_qemucaps_lighten(const char *cache_dir, const char *emulator, const char *alias,
                        struct un_error *err)
{
    char from[PATH_SIZE], to[PATH_SIZE];
    un_autobuf struct un_buf text = {0}, light = {0};
    int rc = file_of(cache_dir, emulator, from);
    rc = rc < 0 ? rc : file_of(cache_dir, alias, to);
    rc = rc < 0 ? rc : read_file(from, &text);
    rc = rc < 0 ? rc : rewrite((const char *)text.data, emulator, alias, &light);
    rc = rc < 0 ? rc : write_file(to, &light);
    return rc < 0 ? un_error_errno(err, rc, "what libvirt remembers of %s", emulator) : 0;
}
