/* tar.c - see tar.h. libarchive(3) does the formats; paths are judged by rootfs.c. */
#include "prepare/tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/limits.h"

#define CONFIG_NAME ".unid.json"

static struct archive *open_archive(const void *data, size_t len)
{
    struct archive *a = archive_read_new();
    if (!a) {
        return NULL;
    }
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_bzip2(a);
    archive_read_support_filter_xz(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_format_tar(a);
    if (archive_read_open_memory(a, data, len) != ARCHIVE_OK) {
        archive_read_free(a);
        return NULL;
    }
    return a;
}

bool tar_is(const void *head, size_t len)
{
    struct archive *a = open_archive(head, len);
    struct archive_entry *entry;
    bool is = a && archive_read_next_header(a, &entry) >= ARCHIVE_WARN &&
              archive_format(a) != ARCHIVE_FORMAT_EMPTY;
    archive_read_free(a);
    return is;
}

static int archive_failed(struct archive *a, const char *what, struct un_error *err)
{
    const char *why = archive_error_string(a);
    int code = archive_errno(a) == ENOMEM ? -ENOMEM : -EINVAL;
    return un_error_set(err, code, "tar archive: %.200s: %s", what, why ? why : "damaged");
}

/* --- .unid.json ------------------------------------------------------------------------------- */

int tar_read_config(const void *text, size_t len, struct tar_result *ret, struct un_error *err)
{
    static const char *const known[] = {"program", NULL};
    un_autojson json_t *config = NULL;
    const char *program = "";
    int rc = un_json_parse(text, len, &config, err);
    if (rc == 0 && !json_is_object(config)) {
        rc = un_error_set(err, -EINVAL, "must be an object");
    }
    if (rc == 0) {
        rc = un_json_only_keys(config, known, err);
    }
    if (rc == 0) {
        rc = un_json_get_str(config, "program", &program, err);
    }
    if (rc == 0 && program[0] != '\0' &&
        (program[0] != '/' || strlen(program) >= sizeof ret->program)) {
        rc = un_error_set(err, -EINVAL, "program: must be an absolute path");
    }
    if (rc < 0) {
        return un_error_context(err, CONFIG_NAME);
    }
    memcpy(ret->program, program, strlen(program) + 1);
    return 0;
}

static int read_config(struct archive *a, struct tar_result *ret, struct un_error *err)
{
    un_autobuf struct un_buf text = {0};
    char part[4096];
    la_ssize_t n;
    while ((n = archive_read_data(a, part, sizeof part)) > 0) {
        if (text.len + (size_t)n > LIMIT_ROOTFS_JSON) {
            return un_error_set(err, -EFBIG, CONFIG_NAME ": more than %d bytes", LIMIT_ROOTFS_JSON);
        }
        if (un_buf_append(&text, part, (size_t)n) < 0) {
            return un_error_set(err, -ENOMEM, "out of memory");
        }
    }
    if (n < 0) {
        return archive_failed(a, CONFIG_NAME, err);
    }
    return tar_read_config(text.data, text.len, ret, err);
}

static bool is_config(const char *path)
{
    return strcmp(path, CONFIG_NAME) == 0 || strcmp(path, "./" CONFIG_NAME) == 0;
}

/* --- entries ---------------------------------------------------------------------------------- */

static int add_file(struct archive *a, struct archive_entry *entry, const char *path,
                    const struct rootfs_meta *meta, struct rootfs *fs, struct un_error *err)
{
    int rc = rootfs_file_begin(fs, path, meta, err);
    while (rc == 0) {
        const void *part;
        size_t len;
        la_int64_t at;
        int got = archive_read_data_block(a, &part, &len, &at);
        if (got == ARCHIVE_EOF) {
            break;
        }
        if (got < ARCHIVE_WARN) {
            return archive_failed(a, path, err);
        }
        rc = rootfs_file_write(fs, (uint64_t)at, part, len, err);
    }
    int64_t size = archive_entry_size(entry);
    return rc < 0 ? rc : rootfs_file_end(fs, size > 0 ? (uint64_t)size : 0, err);
}

static bool is_below_dev(const char *path)
{
    path += strspn(path, "./");
    return strncmp(path, "dev/", 4) == 0;
}

static int add_entry(struct archive *a, struct archive_entry *entry, const char *path,
                     struct rootfs *fs, struct tar_result *ret, struct un_error *err)
{
    const struct rootfs_meta meta = {
        .mode = archive_entry_perm(entry),
        .uid = (uint32_t)archive_entry_uid(entry),
        .gid = (uint32_t)archive_entry_gid(entry),
        .mtime_s = archive_entry_mtime(entry),
    };
    const char *link = archive_entry_hardlink(entry), *text = archive_entry_symlink(entry);
    if (link) {
        return rootfs_add_name(fs, path, link, err);
    }
    switch (archive_entry_filetype(entry)) {
    case AE_IFREG:
        return add_file(a, entry, path, &meta, fs, err);
    case AE_IFDIR:
        return rootfs_add_directory(fs, path, &meta, err);
    case AE_IFLNK:
        return rootfs_add_link(fs, path, text ? text : "", &meta, err);
    default:
        if (is_below_dev(path)) {
            ret->left_out++;
            return 0;
        }
        return un_error_set(err, -EINVAL, "%.200s: a device, pipe or socket; leave it out", path);
    }
}

static int read_entries(struct archive *a, struct rootfs *fs, struct tar_result *ret,
                        struct un_error *err)
{
    for (size_t count = 0; count < LIMIT_ROOTFS_ENTRIES; count++) {
        bool first = count == 0;
        struct archive_entry *entry;
        int got = archive_read_next_header(a, &entry);
        if (got == ARCHIVE_EOF) {
            return first ? un_error_set(err, -EINVAL, "tar archive: it is empty") : 0;
        }
        if (got < ARCHIVE_WARN) {
            return archive_failed(a, first ? "its beginning" : "an entry", err);
        }
        const char *path = archive_entry_pathname(entry);
        if (!path) {
            return archive_failed(a, "a name", err);
        }
        int rc = first && is_config(path) && archive_entry_filetype(entry) == AE_IFREG
                     ? read_config(a, ret, err)
                     : add_entry(a, entry, path, fs, ret, err);
        if (rc < 0) {
            return rc;
        }
    }
    return un_error_set(err, -EFBIG, "tar archive: more than %d entries", LIMIT_ROOTFS_ENTRIES);
}

int tar_read(const void *data, size_t len, struct rootfs *fs, struct tar_result *ret,
             struct un_error *err)
{
    /* libarchive converts the names of pax archives, which are UTF-8, to this thread's locale. */
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    locale_t before = utf8 ? uselocale(utf8) : (locale_t)0;
    struct archive *a = open_archive(data, len);
    int rc = a ? read_entries(a, fs, ret, err)
               : un_error_set(err, -EINVAL, "no tar archive that can be read");
    archive_read_free(a);
    if (utf8) {
        uselocale(before);
        freelocale(utf8);
    }
    return rc;
}
