/* source.c - see source.h. */
#include "cli/container/source.h"

#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/temporary.h"
#include "common/cleanup.h"
#include "common/file.h"

enum { PART_BYTES = 1 << 16, LINKS_FOLLOWED = 8 };

struct archive *source_reader_new(void)
{
    struct archive *a = archive_read_new();
    if (a) {
        archive_read_support_filter_gzip(a);
        archive_read_support_filter_bzip2(a);
        archive_read_support_filter_xz(a);
        archive_read_support_filter_zstd(a);
    }
    return a;
}

struct archive *source_archive_new(bool raw)
{
    struct archive *a = source_reader_new();
    if (a && raw) {
        archive_read_support_format_raw(a);
    } else if (a) {
        archive_read_support_format_tar(a);
        archive_read_support_format_empty(a);
    }
    return a;
}

/* NULL: it cannot be read, or is no such archive. */
static struct archive *open_archive(const char *path, bool raw)
{
    struct archive *a = source_archive_new(raw);
    if (a && archive_read_open_filename(a, path, PART_BYTES) != ARCHIVE_OK) {
        archive_read_free(a);
        a = NULL;
    }
    return a;
}

/* Whether an entry is the file `name`, which may stand as "./name". */
static bool is_named(struct archive_entry *e, const char *name)
{
    const char *said = archive_entry_pathname(e);
    while (said && strncmp(said, "./", 2) == 0) {
        said += 2;
    }
    return said && strcmp(said, name) == 0;
}

/* --- what it is ------------------------------------------------------------------------------- */

static bool has_file(const char *dir, const char *name)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    return n > 0 && n < PATH_MAX && access(path, F_OK) == 0;
}

/* Looks through an archive once. */
static enum source_kind look_through(const char *path, bool *ret_compressed)
{
    struct archive *a = open_archive(path, false);
    struct archive_entry *e;
    bool layout = false, index = false, saved = false;
    *ret_compressed = false;
    while (a && !(layout && index) && archive_read_next_header(a, &e) == ARCHIVE_OK) {
        layout |= is_named(e, "oci-layout");
        index |= is_named(e, "index.json");
        saved |= is_named(e, "manifest.json");
        *ret_compressed = archive_filter_code(a, 0) != ARCHIVE_FILTER_NONE;
    }
    archive_read_free(a);
    return layout && index ? SOURCE_LAYOUT : saved ? SOURCE_SAVED : SOURCE_OTHER;
}

/* As files are looked for again and again, an archive is decompressed once. */
static int expand(const char *path, struct un_error *err)
{
    char part[PART_BYTES];
    un_autoclose int fd = temporary_open(err);
    struct archive *a = fd < 0 ? NULL : open_archive(path, true);
    struct archive_entry *e;
    la_ssize_t n = a && archive_read_next_header(a, &e) == ARCHIVE_OK ? 1 : -1;
    while (n > 0 && (n = archive_read_data(a, part, sizeof part)) > 0) {
        int rc = un_write_all(fd, part, (size_t)n);
        if (rc < 0) {
            archive_read_free(a);
            return un_error_errno(err, rc, "the temporary file (TMPDIR)");
        }
    }
    archive_read_free(a);
    if (fd < 0) {
        return err ? err->code : -EIO;
    }
    return n < 0 ? un_error_set(err, -EINVAL, "%s: what is compressed is damaged", path)
                 : un_steal_fd(&fd);
}

int source_open(const char *path, struct source *ret, struct un_error *err)
{
    struct stat st;
    bool compressed;
    *ret = (struct source){.expanded = -1};
    if (stat(path, &st) < 0) {
        return un_error_set(err, -errno, "%s: %s", path, strerror(errno));
    }
    int n = snprintf(ret->path, sizeof ret->path, "%s", path);
    if (n < 0 || n >= PATH_MAX) {
        return un_error_set(err, -ENAMETOOLONG, "%.100s...: %s", path, strerror(ENAMETOOLONG));
    }
    ret->is_dir = S_ISDIR(st.st_mode);
    if (ret->is_dir) {
        bool layout = has_file(path, "oci-layout") && has_file(path, "index.json");
        ret->kind = layout ? SOURCE_LAYOUT : SOURCE_OTHER;
        return 0;
    }
    ret->kind = look_through(path, &compressed);
    if (ret->kind != SOURCE_OTHER && compressed) {
        ret->expanded = expand(path, err);
        if (ret->expanded < 0) {
            return ret->expanded;
        }
        temporary_path(ret->expanded, ret->path);
    }
    return 0;
}

void source_close(struct source *s)
{
    un_closep(&s->expanded);
    s->expanded = -1;
}

/* --- files ------------------------------------------------------------------------------------ */

/* What a link at `name` leads to, both inside of the archive: without "..", and names in front of it. */
static void lead(char name[PATH_MAX], const char *link)
{
    char *slash = strrchr(name, '/');
    while (strncmp(link, "../", 3) == 0 || strncmp(link, "./", 2) == 0) {
        if (link[1] == '.' && slash) {
            *slash = '\0';
            slash = strrchr(name, '/');
        }
        link += link[1] == '.' ? 3 : 2;
    }
    size_t at = slash ? (size_t)(slash + 1 - name) : 0;
    snprintf(name + at, PATH_MAX - at, "%s", link);
}

/* The archive, at the entry `name`; `name` becomes what it leads to if it is a link. NULL: it is not there. */
static struct archive *find_entry(const struct source *s, char name[PATH_MAX], bool *ret_link)
{
    struct archive *a = open_archive(s->path, false);
    struct archive_entry *e;
    *ret_link = false;
    while (a && archive_read_next_header(a, &e) == ARCHIVE_OK) {
        if (!is_named(e, name)) {
            continue;
        }
        const char *text = archive_entry_symlink(e), *hard = archive_entry_hardlink(e);
        if (hard || (text && archive_entry_filetype(e) == AE_IFLNK)) {
            *ret_link = true;
            hard ? (void)snprintf(name, PATH_MAX, "%s", hard) : lead(name, text);
        }
        return a;
    }
    archive_read_free(a);
    return NULL;
}

int source_file_open(const struct source *s, const char *name, struct source_file *ret,
                     struct un_error *err)
{
    char at[PATH_MAX];
    *ret = (struct source_file){.fd = -1};
    if (s->is_dir) {
        int n = snprintf(at, sizeof at, "%s/%s", s->path, name);
        ret->fd = n < PATH_MAX ? open(at, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
        return ret->fd >= 0 ? 0 : un_error_set(err, -ENOENT, "%s: %s", at, strerror(errno));
    }
    snprintf(at, sizeof at, "%s", name);
    for (int i = 0; i < LINKS_FOLLOWED; i++) {
        bool link;
        struct archive *a = find_entry(s, at, &link);
        if (a && !link) {
            ret->archive = a;
            return 0;
        }
        archive_read_free(a);
        if (!a) {
            break;
        }
    }
    return un_error_set(err, -ENOENT, "%s is not in the image's archive", name);
}

ssize_t source_file_read(struct source_file *f, void *to, size_t size, struct un_error *err)
{
    ssize_t n;
    if (f->archive) {
        n = archive_read_data(f->archive, to, size);
        const char *why = n < 0 ? archive_error_string(f->archive) : NULL;
        return n < 0 ? un_error_set(err, -EINVAL, "%s", why ? why : "damaged") : n;
    }
    do {
        n = read(f->fd, to, size);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? un_error_set(err, -errno, "%s", strerror(errno)) : n;
}

void source_file_close(struct source_file *f)
{
    archive_read_free(f->archive);
    un_closep(&f->fd);
    *f = (struct source_file){.fd = -1};
}
