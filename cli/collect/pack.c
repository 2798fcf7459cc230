/* pack.c - writes what was collected as a tar archive (collect.h), with libarchive(3). */
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/collect/collect_internal.h"
#include "cli/container/source.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/limits.h"

#define CONFIG_NAME ".unid.json"

enum { PART_BYTES = 1 << 16, DEPTH_MAX = 64 };

struct pack {
    struct archive *out;
    struct archive_entry *entry; /* used again and again */
    char *part;
    size_t count;
    uint64_t bytes;
};

static int archive_failed(struct archive *a, const char *what, struct un_error *err)
{
    const char *why = archive_error_string(a);
    return un_error_set(err, archive_errno(a) > 0 ? -archive_errno(a) : -EIO, "%s: %s", what,
                        why ? why : "cannot be archived");
}

static int write_header(struct pack *p, const char *path, struct un_error *err)
{
    uint64_t size = (uint64_t)archive_entry_size(p->entry);
    int rc = collect_count(&p->count, &p->bytes, size, path, err);
    return rc == 0 && archive_write_header(p->out, p->entry) < ARCHIVE_WARN
               ? archive_failed(p->out, path, err)
               : rc;
}

static int write_data(struct pack *p, const char *path, const void *data, size_t len,
                      struct un_error *err)
{
    const char *at = data;
    while (len > 0) {
        la_ssize_t n = archive_write_data(p->out, at, len);
        if (n <= 0) {
            return archive_failed(p->out, path, err);
        }
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

/* --- files of this machine -------------------------------------------------------------------- */

static int write_contents(struct pack *p, const char *path, uint64_t size, struct un_error *err)
{
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return un_error_set(err, -errno, "%s: %s", path, strerror(errno));
    }
    while (size > 0) {
        ssize_t n = read(fd, p->part, size < PART_BYTES ? (size_t)size : PART_BYTES);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return un_error_set(err, n < 0 ? -errno : -EIO, "%s: %s", path,
                                n < 0 ? strerror(errno) : "became shorter while it was read");
        }
        int rc = write_data(p, path, p->part, (size_t)n, err);
        if (rc < 0) {
            return rc;
        }
        size -= (uint64_t)n;
    }
    return 0;
}

/* One entry named `name`, of what is at `path` here. */
static int write_entry(struct pack *p, const char *name, const char *path, const char *link,
                       const struct stat *st, struct un_error *err)
{
    struct archive_entry *e = archive_entry_clear(p->entry);
    uint64_t size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
    archive_entry_copy_pathname(e, name);
    archive_entry_set_mode(e, st->st_mode);
    archive_entry_set_mtime(e, st->st_mtime, 0);
    archive_entry_set_size(e, (la_int64_t)size);
    if (link) {
        archive_entry_copy_symlink(e, link);
    }
    int rc = write_header(p, path, err);
    return rc == 0 && size > 0 ? write_contents(p, path, size, err) : rc;
}

static int write_directory(struct pack *p, const char *root, const char *below, int depth,
                           struct un_error *err);

static int write_child(struct pack *p, const char *root, const char *below, const char *name,
                       int depth, struct un_error *err)
{
    un_autofree char *inside = NULL, *path = NULL;
    char text[PATH_MAX];
    struct stat st;
    if (asprintf(&inside, "%s%s%s", below, below[0] ? "/" : "", name) < 0 ||
        asprintf(&path, "%s/%s", root, inside) < 0) {
        inside = path = NULL;
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    if (lstat(path, &st) < 0) {
        return un_error_set(err, -errno, "%s: %s", path, strerror(errno));
    }
    if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlink(path, text, sizeof text - 1);
        if (n < 0) {
            return un_error_set(err, -errno, "%s: %s", path, strerror(errno));
        }
        text[n] = '\0';
        return write_entry(p, inside, path, text, &st, err);
    }
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        return strncmp(inside, "dev/", 4) == 0
                   ? 0
                   : un_error_set(err, -EINVAL, "%s: a device, pipe or socket; leave it out", path);
    }
    if (strcmp(inside, CONFIG_NAME) == 0) {
        return 0;
    }
    int rc = write_entry(p, inside, path, NULL, &st, err);
    return rc == 0 && S_ISDIR(st.st_mode) ? write_directory(p, root, inside, depth + 1, err) : rc;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* What is in `root`/`below`, sorted. */
static int write_directory(struct pack *p, const char *root, const char *below, int depth,
                           struct un_error *err)
{
    un_autofree char *path = NULL;
    struct dirent **names;
    if (asprintf(&path, "%s/%s", root, below) < 0) {
        path = NULL;
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    int count = depth > DEPTH_MAX ? (errno = ELOOP, -1) : scandir(path, &names, NULL, by_bytes);
    if (count < 0) {
        return un_error_set(err, -errno, "%s: %s", path, strerror(errno));
    }
    int rc = 0;
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (rc == 0 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
            rc = write_child(p, root, below, name, depth, err);
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

/* --- another archive -------------------------------------------------------------------------- */

static struct archive *open_tar(const char *path)
{
    struct archive *a = source_reader_new();
    if (a) {
        archive_read_support_format_tar(a);
        if (archive_read_open_filename(a, path, PART_BYTES) == ARCHIVE_OK) {
            return a;
        }
    }
    archive_read_free(a);
    return NULL;
}

static bool is_config(const char *name)
{
    return strcmp(name, CONFIG_NAME) == 0 || strcmp(name, "./" CONFIG_NAME) == 0;
}

/* The program that a tar archive's first entry names; "" when there is none. */
static int read_program(const char *tar, char ret[PATH_MAX], struct un_error *err)
{
    struct archive *in = open_tar(tar);
    struct archive_entry *e;
    char text[LIMIT_ROOTFS_JSON];
    int rc = 0;
    ret[0] = '\0';
    if (!in || archive_read_next_header(in, &e) < ARCHIVE_WARN) {
        rc = un_error_set(err, -EINVAL, "%s: no tar archive that can be read", tar);
    } else if (archive_entry_pathname(e) && is_config(archive_entry_pathname(e))) {
        un_autojson json_t *config = NULL;
        la_ssize_t n = archive_read_data(in, text, sizeof text);
        const char *program = "";
        if (n < 0 || (size_t)n == sizeof text) {
            rc = un_error_set(err, -EINVAL, "%s: its " CONFIG_NAME " is damaged or too long", tar);
        }
        rc = rc < 0 ? rc : un_json_parse(text, (size_t)n, &config, err);
        rc = rc < 0 ? rc : un_json_get_str(config, "program", &program, err);
        if (rc < 0) {
            un_error_context(err, "%s: " CONFIG_NAME, tar);
        } else {
            snprintf(ret, PATH_MAX, "%s", program);
        }
    }
    archive_read_free(in);
    return rc;
}

static int copy_entry(struct pack *p, struct archive *in, struct archive_entry *e,
                      struct un_error *err)
{
    const char *name = archive_entry_pathname(e);
    bool whole = archive_entry_filetype(e) == AE_IFREG && !archive_entry_hardlink(e);
    bool sparse = archive_entry_sparse_count(e) > 0;
    uint64_t left = whole ? (uint64_t)archive_entry_size(e) : 0;
    int counted = collect_count(&p->count, &p->bytes, left, name, err);
    if (counted < 0) {
        return counted;
    }
    archive_entry_sparse_clear(e);
    if (archive_write_header(p->out, e) < ARCHIVE_WARN) {
        return archive_failed(p->out, name, err);
    }
    while (left > 0) {
        la_ssize_t n = archive_read_data(in, p->part, PART_BYTES);
        if (n == 0 && sparse) { /* the hole at its end */
            n = (la_ssize_t)(left < PART_BYTES ? left : PART_BYTES);
            memset(p->part, 0, (size_t)n);
        }
        if (n <= 0) {
            return n < 0 ? archive_failed(in, name, err)
                         : un_error_set(err, -EINVAL, "%s: shorter than the archive says", name);
        }
        int rc = write_data(p, name, p->part, (size_t)n, err);
        if (rc < 0) {
            return rc;
        }
        left -= (uint64_t)n < left ? (uint64_t)n : left;
    }
    return 0;
}

static int copy_tar(struct pack *p, const char *tar, struct un_error *err)
{
    struct archive *in = open_tar(tar);
    int rc = in ? 0 : un_error_set(err, -EINVAL, "%s: no tar archive that can be read", tar);
    for (bool first = true; rc == 0; first = false) {
        struct archive_entry *e;
        int got = archive_read_next_header(in, &e);
        if (got == ARCHIVE_EOF) {
            break;
        }
        if (got < ARCHIVE_WARN || !archive_entry_pathname(e)) {
            rc = archive_failed(in, tar, err);
        } else if (!(first && is_config(archive_entry_pathname(e)))) {
            rc = copy_entry(p, in, e, err);
        }
    }
    archive_read_free(in);
    return rc;
}

/* --- a container image ------------------------------------------------------------------------ */

struct image_writer {
    struct pack *p;
    const struct container *image;
    struct un_error *err;
};

static int write_layered(void *arg, const struct layers_entry *from)
{
    struct image_writer *w = arg;
    struct archive_entry *e = archive_entry_clear(w->p->entry);
    uint64_t left = from->hard ? 0 : from->size;
    if (strcmp(from->path, CONFIG_NAME) == 0) {
        return 0;
    }
    archive_entry_copy_pathname(e, from->path);
    archive_entry_set_mode(e, from->mode);
    archive_entry_set_uid(e, from->uid);
    archive_entry_set_gid(e, from->gid);
    archive_entry_set_mtime(e, from->mtime_s, 0);
    archive_entry_set_size(e, (la_int64_t)left);
    if (from->hard) {
        archive_entry_copy_hardlink(e, from->hard);
    } else if (from->text) {
        archive_entry_copy_symlink(e, from->text);
    }
    int rc = write_header(w->p, from->path, w->err);
    for (uint64_t at = from->at; rc == 0 && left > 0;) {
        size_t want = left < PART_BYTES ? (size_t)left : PART_BYTES;
        ssize_t n = pread(w->image->fd, w->p->part, want, (off_t)at);
        if (n <= 0) {
            return un_error_set(w->err, n < 0 ? -errno : -EIO, "the temporary file: %s",
                                n < 0 ? strerror(errno) : "became shorter");
        }
        rc = write_data(w->p, from->path, w->p->part, (size_t)n, w->err);
        at += (uint64_t)n;
        left -= (uint64_t)n;
    }
    return rc;
}

static int write_image(struct pack *p, struct container *image, struct un_error *err)
{
    struct image_writer w = {.p = p, .image = image, .err = err};
    int rc = layers_list(image->layers, write_layered, &w);
    return rc == -ENOMEM ? un_error_set(err, rc, "out of memory") : rc;
}

/* --- all together ----------------------------------------------------------------------------- */

static int write_config(struct pack *p, const char *program, struct un_error *err)
{
    un_autojson json_t *config = json_pack("{s:s}", "program", program);
    un_autofree char *text = un_json_text(config);
    struct archive_entry *e = archive_entry_clear(p->entry);
    if (!text) {
        return un_error_set(err, -EINVAL, "%s: the name is not UTF-8", program);
    }
    archive_entry_copy_pathname(e, CONFIG_NAME);
    archive_entry_set_mode(e, S_IFREG | 0644);
    archive_entry_set_size(e, (la_int64_t)strlen(text));
    int rc = write_header(p, CONFIG_NAME, err);
    return rc == 0 ? write_data(p, CONFIG_NAME, text, strlen(text), err) : rc;
}

static int write_all(struct pack *p, struct collect *c, const struct collect_root *root,
                     bool is_dir, const char *program, struct un_error *err)
{
    size_t count;
    const struct collect_entry *const *entries = collect_entries(c, &count);
    int rc = program ? write_config(p, program, err) : 0;
    if (rc == 0 && (root->image || root->path)) {
        rc = root->image ? write_image(p, root->image, err)
             : is_dir    ? write_directory(p, root->path, "", 0, err)
                         : copy_tar(p, root->path, err);
    }
    for (size_t i = 0; rc == 0 && i < count; i++) {
        const struct collect_entry *e = entries[i];
        const struct stat st = {
            .st_mode = e->mode, .st_size = (off_t)e->size, .st_mtime = e->mtime_s};
        rc = write_entry(p, e->path + 1, e->path, e->link, &st, err);
    }
    if (rc == 0 && archive_write_close(p->out) != ARCHIVE_OK) {
        rc = archive_failed(p->out, "the archive", err);
    }
    return rc;
}

int collect_write(struct collect *c, const struct collect_root *root, const char *program, int fd,
                  char *ret_program, struct un_error *err)
{
    struct stat st = {0};
    if (root->path && stat(root->path, &st) < 0) {
        return un_error_set(err, -errno, "%s: %s", root->path, strerror(errno));
    }
    ret_program[0] = '\0';
    if (root->path && !program && !S_ISDIR(st.st_mode)) {
        int rc = read_program(root->path, ret_program, err);
        if (rc < 0) {
            return rc;
        }
        program = ret_program[0] ? ret_program : NULL;
    }
    struct pack p = {
        .out = archive_write_new(), .entry = archive_entry_new(), .part = malloc(PART_BYTES)};
    int rc = p.out && p.entry && p.part ? 0 : un_error_set(err, -ENOMEM, "out of memory");
    if (rc == 0 && (archive_write_set_format_pax_restricted(p.out) != ARCHIVE_OK ||
                    archive_write_open_fd(p.out, fd) != ARCHIVE_OK)) {
        rc = archive_failed(p.out, "the archive", err);
    }
    if (rc == 0) {
        rc = write_all(&p, c, root, S_ISDIR(st.st_mode), program, err);
    }
    archive_write_free(p.out);
    archive_entry_free(p.entry);
    free(p.part);
    return rc;
}
