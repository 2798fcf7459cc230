/* container.c - see container.h: from the image's files to its tree. */
#include "cli/container/container.h"

#include <errno.h>
#include <locale.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "cli/container/source.h"
#include "cli/temporary.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/limits.h"

enum { PART_BYTES = 1 << 16, INDEXES_NESTED = 4 };

/* --- blobs ------------------------------------------------------------------------------------ */

/* A blob on its way; what is read of it is hashed. */
struct reading {
    struct source_file file;
    const struct container_blob *blob;
    EVP_MD_CTX *hash; /* NULL: nobody says what it should be */
    int64_t size;
    struct un_error err; /* of reading the file */
    char part[PART_BYTES];
};

static int reading_open(const struct source *s, const struct container_blob *b, struct reading *ret,
                        struct un_error *err)
{
    ret->blob = b;
    ret->size = 0;
    ret->err = (struct un_error)UN_ERROR_INIT;
    ret->hash = NULL;
    int rc = source_file_open(s, b->name, &ret->file, err);
    if (rc == 0 && b->sha256[0]) {
        ret->hash = EVP_MD_CTX_new();
        if (!ret->hash || EVP_DigestInit_ex(ret->hash, EVP_sha256(), NULL) != 1) {
            rc = un_error_set(err, -ENOMEM, "out of memory");
        }
    }
    return rc;
}

static void reading_close(struct reading *r)
{
    source_file_close(&r->file);
    EVP_MD_CTX_free(r->hash);
}

static ssize_t reading_next(struct reading *r)
{
    ssize_t n = source_file_read(&r->file, r->part, sizeof r->part, &r->err);
    if (n > 0) {
        r->size += n;
        if (r->hash && EVP_DigestUpdate(r->hash, r->part, (size_t)n) != 1) {
            return un_error_set(&r->err, -EIO, "libcrypto cannot hash");
        }
    }
    return n;
}

/* Reads what is left, and holds all of it against what the image says of it. */
static int reading_check(struct reading *r, struct un_error *err)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    char hex[2 * EVP_MAX_MD_SIZE + 1];
    unsigned len = 0;
    ssize_t n;
    while ((n = reading_next(r)) > 0) {
    }
    if (n < 0) {
        un_error_copy(err, &r->err);
        return un_error_context(err, "%s", r->blob->name);
    }
    if (r->blob->size >= 0 && r->size != r->blob->size) {
        return un_error_set(err, -EINVAL, "%s: has %lld bytes, and should have %lld", r->blob->name,
                            (long long)r->size, (long long)r->blob->size);
    }
    if (!r->hash) {
        return 0;
    }
    if (EVP_DigestFinal_ex(r->hash, hash, &len) != 1) {
        return un_error_set(err, -EIO, "libcrypto cannot hash");
    }
    un_hex_encode(hash, len, hex);
    return strcmp(hex, r->blob->sha256) == 0
               ? 0
               : un_error_set(err, -EINVAL,
                              "%s: is damaged: its contents have the digest sha256:%s",
                              r->blob->name, hex);
}

/* A small blob, as JSON. */
static int read_json(const struct source *s, const struct container_blob *b, json_t **ret,
                     struct un_error *err)
{
    un_autobuf struct un_buf text = {0};
    un_autofree struct reading *r = malloc(sizeof *r);
    ssize_t n = 0;
    if (!r) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    int rc = reading_open(s, b, r, err);
    while (rc == 0 && (n = reading_next(r)) > 0) {
        rc = text.len + (size_t)n > LIMIT_CONTAINER_JSON
                 ? un_error_set(err, -EFBIG, "%s: more than %d MiB", b->name,
                                LIMIT_CONTAINER_JSON >> 20)
             : un_buf_append(&text, r->part, (size_t)n) < 0
                 ? un_error_set(err, -ENOMEM, "out of memory")
                 : 0;
    }
    rc = rc < 0 ? rc : reading_check(r, err);
    reading_close(r);
    if (rc == 0) {
        rc = un_json_parse(text.data ? (const void *)text.data : "", text.len, ret, err);
        rc = rc < 0 ? un_error_context(err, "%s", b->name) : 0;
    }
    return rc;
}

/* --- layers ----------------------------------------------------------------------------------- */

static la_ssize_t give_part(struct archive *a, void *arg, const void **ret)
{
    struct reading *r = arg;
    ssize_t n = reading_next(r);
    *ret = r->part;
    if (n < 0) {
        archive_set_error(a, EINVAL, "%s", r->err.text);
    }
    return n;
}

static int apply(struct container *c, struct reading *r, struct un_error *err)
{
    struct archive *a = source_archive_new(false);
    if (!a || archive_read_open(a, r, NULL, give_part, NULL) != ARCHIVE_OK) {
        const char *why = a ? archive_error_string(a) : NULL;
        int rc = a ? un_error_set(err, -EINVAL, "no tar archive that can be read (%s)",
                                  why ? why : "damaged")
                   : un_error_set(err, -ENOMEM, "out of memory");
        archive_read_free(a);
        return rc;
    }
    int rc = layers_apply(c->layers, a, err);
    archive_read_free(a);
    return rc;
}

/* A damaged blob is told as such, whatever the archive reader made of it. */
static int add_layer(struct container *c, const struct source *s, const struct container_blob *b,
                     struct un_error *err)
{
    un_autofree struct reading *r = malloc(sizeof *r);
    struct un_error why = UN_ERROR_INIT;
    if (!r) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    int rc = reading_open(s, b, r, err);
    if (rc == 0) {
        int applied = apply(c, r, &why);
        rc = applied == 0 || applied == -EINVAL ? reading_check(r, err) : 0;
        if (rc == 0 && applied < 0) {
            un_error_copy(err, &why);
            rc = un_error_context(err, "layer %s", b->name);
        }
    }
    reading_close(r);
    return rc;
}

/* --- the image -------------------------------------------------------------------------------- */

static struct container_blob file_of(const char *name)
{
    struct container_blob b = {.size = -1};
    strncat(b.name, name, sizeof b.name - 1);
    return b;
}

/* From the index at the top of a layout down to a manifest. */
static int read_layout(const struct source *s, struct container_manifest *ret, struct un_error *err)
{
    struct container_blob at = file_of("index.json");
    for (int i = 0; i < INDEXES_NESTED; i++) {
        un_autojson json_t *root = NULL;
        int rc = read_json(s, &at, &root, err);
        if (rc == 0 && !container_is_index(root)) {
            return container_read_manifest(root, ret, err);
        }
        struct container_blob next = {0};
        rc = rc < 0 ? rc : container_choose(root, &next, err);
        if (rc < 0) {
            return rc;
        }
        at = next;
    }
    return un_error_set(err, -EINVAL, "more than %d indexes in one another", INDEXES_NESTED);
}

/* `*ret_is` false: it is a manifest.json of something else. */
static int read_saved(const struct source *s, bool *ret_is, struct container_manifest *ret,
                      struct un_error *err)
{
    const struct container_blob at = file_of("manifest.json");
    un_autojson json_t *root = NULL;
    *ret_is = read_json(s, &at, &root, NULL) == 0 && container_is_saved(root);
    return *ret_is ? container_read_saved(root, ret, err) : 0;
}

static int read_image(struct container *c, const struct source *s,
                      const struct container_manifest *m, struct un_error *err)
{
    int rc = read_json(s, &m->config, &c->config, err);
    rc = rc < 0 ? rc : container_read_settings(c->config, &c->settings, err);
    if (rc == 0) {
        c->fd = temporary_open(err);
        rc = c->fd < 0 ? c->fd : layers_new(c->fd, &c->layers, err);
    }
    for (size_t i = 0; rc == 0 && i < m->count; i++) {
        rc = add_layer(c, s, &m->layers[i], err);
    }
    return rc;
}

static int open_image(const struct source *s, struct container **ret, struct un_error *err)
{
    struct container_manifest m = {0};
    bool is = true;
    int rc = s->kind == SOURCE_LAYOUT ? read_layout(s, &m, err) : read_saved(s, &is, &m, err);
    if (rc < 0 || !is) {
        return rc;
    }
    struct container *c = calloc(1, sizeof *c);
    if (c) {
        *c = (struct container){.fd = -1, .settings = {.workdir = ""}};
    }
    rc = c ? read_image(c, s, &m, err) : un_error_set(err, -ENOMEM, "out of memory");
    container_manifest_done(&m);
    if (rc < 0) {
        container_free(c);
        return rc;
    }
    *ret = c;
    return 0;
}

int container_open(const char *path, struct container **ret, struct un_error *err)
{
    /* libarchive converts the names of pax archives, which are UTF-8, to this thread's locale. */
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    locale_t before = utf8 ? uselocale(utf8) : (locale_t)0;
    struct source s;
    *ret = NULL;
    int rc = source_open(path, &s, err);
    if (rc == 0 && s.kind != SOURCE_OTHER) {
        rc = open_image(&s, ret, err);
        rc = rc < 0 ? un_error_context(err, "container image") : 0;
    }
    source_close(&s);
    if (utf8) {
        uselocale(before);
        freelocale(utf8);
    }
    return rc;
}

void container_free(struct container *c)
{
    if (!c) {
        return;
    }
    container_settings_done(&c->settings);
    json_decref(c->config);
    layers_free(c->layers);
    un_closep(&c->fd);
    free(c);
}
