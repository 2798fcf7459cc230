/* image.c - the table of images: looking up, listing, removing, collecting (see image.h).
 *
 * Each call is one store job in a struct image_op, which carries the question to the store's thread
 * and the answer back. A removed image's row goes in the answer's transaction; its chunks, which
 * may be gigabytes, go after it in small lazy steps (image_purge), and what a crash leaves of them
 * is found at the next start: chunks whose blob is no image.
 */
#include "imagestore/image.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "imagestore/internal.h"

/* Chunks removed in one transaction: 16 MiB. */
#define PURGE_CHUNKS 64

#define INFO_COLUMNS                                                                               \
    "i.id, i.digest, i.kind, i.size, i.created_us,"                                                \
    " (SELECT count(*) FROM function_versions v WHERE v.image_id = i.id)"                          \
    " + (SELECT count(*) FROM function_version_images x WHERE x.image_id = i.id)"

static const char *const kind_names[] = {
    [IMAGE_SDK] = "sdk",
    [IMAGE_LINUX_STATIC] = "linux-static",
    [IMAGE_LINUX_DYNAMIC] = "linux-dynamic",
    [IMAGE_LINUX_ROOTFS] = "linux-rootfs",
    [IMAGE_PVH] = "pvh",
    [IMAGE_MULTIBOOT1] = "multiboot1",
    [IMAGE_MULTIBOOT2] = "multiboot2",
    [IMAGE_LINUX64] = "linux64",
    [IMAGE_BZIMAGE] = "bzimage",
    [IMAGE_DISK] = "disk",
    [IMAGE_INITRD] = "initrd",
};

const char *image_kind_name(enum image_kind kind)
{
    return (size_t)kind < UN_ARRAY_SIZE(kind_names) ? kind_names[kind] : "unknown";
}

int image_kind_parse(const char *name)
{
    for (size_t i = 0; name && i < UN_ARRAY_SIZE(kind_names); i++) {
        if (strcmp(name, kind_names[i]) == 0) {
            return (int)i;
        }
    }
    return -1;
}

bool image_digest_valid(const char *s)
{
    if (!s || strncmp(s, "sha256:", 7) != 0) {
        return false;
    }
    return strspn(s + 7, "0123456789abcdef") == 64 && s[7 + 64] == '\0';
}

EVP_MD_CTX *image_digest_new(void)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    if (md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(md);
        md = NULL;
    }
    return md;
}

int image_digest_final(EVP_MD_CTX *md, char ret[IMAGE_DIGEST_SIZE], struct un_error *err)
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (EVP_DigestFinal_ex(md, raw, &len) != 1 || len != 32) {
        return un_error_set(err, -EIO, "SHA-256 failed");
    }
    memcpy(ret, "sha256:", 7);
    un_hex_encode(raw, len, ret + 7);
    /* libcrypto keeps a state for each thread; workers and readers come and go. */
    OPENSSL_thread_stop();
    return 0;
}

/* --- opening and closing ---------------------------------------------------------------------- */

void imagestore_hold(struct imagestore *is)
{
    is->pending++;
}

void imagestore_release(struct imagestore *is)
{
    if (--is->pending > 0 || !is->closed) {
        return;
    }
    if (is->dir_fd >= 0) {
        close(is->dir_fd);
    }
    image_failures_free(is);
    volumes_free(is);
    free(is->dir);
    free(is);
}

/* One blob's chunks that are no image's: the next such blob from `from` on, 0 when there is none.
 */
static int find_orphan(sqlite3 *db, int64_t from, int64_t *ret, struct un_error *err)
{
    for (int64_t blob = from;;) {
        store_autostmt sqlite3_stmt *stmt = NULL;
        int rc = store_prepare(db, &stmt, err,
                               "SELECT c.id, i.id FROM image_chunks c LEFT JOIN images i"
                               " ON i.id = c.id >> 24 WHERE c.id >= ? ORDER BY c.id LIMIT 1",
                               "i", image_chunk_key(blob, 0));
        if (rc == 0) {
            rc = store_step(stmt, err);
        }
        if (rc <= 0) {
            *ret = 0;
            return rc;
        }
        blob = sqlite3_column_int64(stmt, 0) >> IMAGE_INDEX_BITS;
        if (sqlite3_column_type(stmt, 1) == SQLITE_NULL) {
            *ret = blob;
            return 0;
        }
        blob++;
    }
}

static int delete_chunks(sqlite3 *db, int64_t blob, int *ret_count, struct un_error *err)
{
    int rc = store_exec(db, err,
                        "DELETE FROM image_chunks WHERE id IN (SELECT id FROM image_chunks"
                        " WHERE id >= ? AND id < ? ORDER BY id LIMIT ?)",
                        "iii", image_chunk_key(blob, 0), image_chunk_key(blob + 1, 0),
                        (int64_t)PURGE_CHUNKS);
    if (rc == 0) {
        *ret_count = sqlite3_changes(db);
    }
    return rc;
}

/* Removes what broken uploads and interrupted removals left, a step at a time. */
struct sweep {
    struct store_job job;
    int64_t from;
    bool more;
};

static int sweep_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct sweep *w = un_container_of(job, struct sweep, job);
    int64_t orphan;
    int deleted = 0;
    int rc = find_orphan(db, w->from, &orphan, err);
    if (rc < 0) {
        return rc;
    }
    w->more = orphan != 0;
    w->from = orphan;
    return w->more ? delete_chunks(db, orphan, &deleted, err) : 0;
}

/* On a full disk nothing can be removed, and the rest is left for the next start: the daemon serves
 * all the same, so that somebody can make room. */
static int sweep(struct imagestore *is, struct un_error *err)
{
    struct sweep w = {
        .job = {.access = STORE_WRITE_LAZY, .run = sweep_run}, .from = 1, .more = true};
    while (w.more) {
        int rc = store_run_blocking(is->store, &w.job, err);
        if (rc == -ENOSPC) {
            un_log(UN_LOG_DEBUG, "leftovers stay until the next start", "error", err->text);
            return 0;
        }
        if (rc < 0) {
            return un_error_context(err, "remove what broken uploads left");
        }
    }
    return 0;
}

struct numbering {
    struct store_job job;
    int64_t next_blob;
};

/* Above every blob that has an image or bytes. */
static int numbering_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct numbering *n = un_container_of(job, struct numbering, job);
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err,
                           "SELECT max(coalesce((SELECT max(id) FROM images), 0),"
                           " coalesce((SELECT max(id) FROM image_chunks), 0) >> 24)",
                           "");
    if (rc == 0) {
        rc = store_step(stmt, err);
    }
    if (rc < 0) {
        return rc;
    }
    n->next_blob = sqlite3_column_int64(stmt, 0) + 1;
    return 0;
}

static int find_next_blob(struct imagestore *is, struct un_error *err)
{
    struct numbering n = {.job = {.access = STORE_READ, .run = numbering_run}};
    int rc = store_run_blocking(is->store, &n.job, err);
    if (rc == 0) {
        is->next_blob = n.next_blob;
    }
    return rc;
}

int imagestore_open(const struct imagestore_spec *spec, struct imagestore **ret,
                    struct un_error *err)
{
    struct imagestore *is = calloc(1, sizeof *is);
    if (!is) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    is->loop = spec->loop;
    is->store = spec->store;
    is->workers = spec->workers;
    is->max_image_bytes = spec->max_image_bytes;
    is->max_cache_bytes = spec->max_cache_bytes;
    is->dir_fd = -1;
    is->volume_fd = -1;
    un_list_init(&is->failures);
    un_list_init(&is->volumes);
    imagestore_hold(is); /* by its user, until imagestore_close */
    int rc = image_cache_open(is, spec->cache_dir, err);
    if (rc == 0) {
        rc = sweep(is, err);
    }
    if (rc == 0) {
        rc = find_next_blob(is, err);
    }
    if (rc == 0) {
        rc = volumes_open(is, spec->volume_dir, err);
    }
    if (rc < 0) {
        imagestore_close(is);
        return rc;
    }
    *ret = is;
    return 0;
}

void imagestore_close(struct imagestore *is)
{
    if (is) {
        image_cache_close(is);
        is->closed = true;
        imagestore_release(is);
    }
}

/* --- removing a blob's chunks ----------------------------------------------------------------- */

struct purge {
    struct store_job job;
    struct imagestore *is;
    int64_t blob;
    int deleted;
    char file[65]; /* in the cache directory, or "" */
    char prepared[65];
};

static int purge_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct purge *p = un_container_of(job, struct purge, job);
    if (p->file[0]) {
        /* They can be made anew, and are bounded anyway. */
        (void)unlinkat(p->is->dir_fd, p->file, 0);
        (void)unlinkat(p->is->dir_fd, p->prepared, 0);
    }
    return delete_chunks(db, p->blob, &p->deleted, err);
}

static void purge_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct purge *p = un_container_of(job, struct purge, job);
    struct imagestore *is = p->is;
    if (rc == 0 && p->deleted == PURGE_CHUNKS && !is->closed) {
        store_submit(is->store, job);
        return;
    }
    if (rc < 0) {
        un_log(UN_LOG_DEBUG, "removing image bytes put off to the next start", "reason", err->text);
    }
    free(p);
    imagestore_release(is);
}

void image_purge(struct imagestore *is, int64_t blob, const char *digest)
{
    struct purge *p = calloc(1, sizeof *p);
    if (!p) {
        return; /* found at the next start */
    }
    p->job = (struct store_job){.access = STORE_WRITE_LAZY, .run = purge_run, .done = purge_done};
    p->is = is;
    p->blob = blob;
    if (digest) {
        memcpy(p->file, digest + 7, 64);
        (void)image_prepared_name(digest, p->prepared, NULL);
    }
    imagestore_hold(is);
    store_submit(is->store, &p->job);
}

/* --- questions and changes -------------------------------------------------------------------- */

struct removed {
    int64_t blob;
    char digest[IMAGE_DIGEST_SIZE];
};

struct image_op {
    struct store_job job;
    struct imagestore *is;
    /* the question */
    char ref[IMAGE_TAG_SIZE]; /* digest or tag */
    char digest[IMAGE_DIGEST_SIZE];
    uint64_t min_age_us;
    /* the answer */
    struct un_buf infos;   /* struct image_info */
    struct un_buf removed; /* struct removed */
    image_info_cb info_cb;
    image_list_cb list_cb;
    image_done_cb done_cb;
    void *arg;
};

static void op_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct image_op *op = un_container_of(job, struct image_op, job);
    struct imagestore *is = op->is;
    const struct image_info *infos = (const struct image_info *)op->infos.data;
    if (rc == 0) {
        const struct removed *gone = (const struct removed *)op->removed.data;
        for (size_t i = 0; i < op->removed.len / sizeof *gone; i++) {
            image_cache_forget(is, gone[i].digest);
            image_purge(is, gone[i].blob, gone[i].digest);
        }
    }
    if (op->info_cb) {
        op->info_cb(op->arg, rc, rc == 0 ? infos : NULL, err);
    } else if (op->list_cb) {
        op->list_cb(op->arg, rc, infos, rc == 0 ? op->infos.len / sizeof *infos : 0, err);
    } else {
        op->done_cb(op->arg, rc, err);
    }
    un_buf_done(&op->infos);
    un_buf_done(&op->removed);
    free(op);
    imagestore_release(is);
}

/* NULL when out of memory: the caller tells its callback. */
static struct image_op *op_new(struct imagestore *is, enum store_access access,
                               int (*run)(struct store_job *, sqlite3 *, struct un_error *),
                               void *arg)
{
    struct image_op *op = un_fault("image.op") ? NULL : calloc(1, sizeof *op);
    if (op) {
        op->job = (struct store_job){.access = access, .run = run, .done = op_done};
        op->is = is;
        op->arg = arg;
    }
    return op;
}

static void op_submit(struct image_op *op)
{
    imagestore_hold(op->is);
    store_submit(op->is->store, &op->job);
}

static const struct un_error no_memory = {.code = -ENOMEM, .text = "out of memory"};

static int info_of_row(sqlite3_stmt *stmt, struct image_info *ret, struct un_error *err)
{
    const char *digest = (const char *)sqlite3_column_text(stmt, 1);
    int kind = image_kind_parse((const char *)sqlite3_column_text(stmt, 2));
    if (!image_digest_valid(digest) || kind < 0) {
        return un_error_set(err, -EUCLEAN,
                            "the database has an image with a digest or kind that "
                            "cannot be");
    }
    *ret = (struct image_info){
        .kind = (enum image_kind)kind,
        .size_bytes = (uint64_t)sqlite3_column_int64(stmt, 3),
        .created_us = (uint64_t)sqlite3_column_int64(stmt, 4),
        .function_versions = (uint32_t)sqlite3_column_int64(stmt, 5),
    };
    memcpy(ret->digest, digest, IMAGE_DIGEST_SIZE);
    return 0;
}

int image_load(sqlite3 *db, const char *ref, struct image_info *ret, int64_t *blob,
               struct un_error *err)
{
    const char *sql = image_digest_valid(ref)
                          ? "SELECT " INFO_COLUMNS " FROM images i WHERE i.digest = ?"
                          : "SELECT " INFO_COLUMNS " FROM images i JOIN image_tags t"
                            " ON t.image_id = i.id WHERE t.tag = ?";
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, sql, "t", ref);
    if (rc == 0) {
        rc = store_step(stmt, err);
    }
    if (rc < 0) {
        return rc;
    }
    if (rc == 0) {
        return un_error_set(err, -ENOENT, "no image %s", ref);
    }
    rc = info_of_row(stmt, ret, err);
    if (rc == 0 && blob) {
        *blob = sqlite3_column_int64(stmt, 0);
    }
    return rc;
}

static int get_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct image_op *op = un_container_of(job, struct image_op, job);
    struct image_info info;
    int rc = image_load(db, op->ref, &info, NULL, err);
    if (rc == 0 && un_buf_append(&op->infos, &info, sizeof info) < 0) {
        rc = un_error_set(err, -ENOMEM, "out of memory");
    }
    return rc;
}

void image_get(struct imagestore *is, const char *ref, image_info_cb cb, void *arg)
{
    struct image_op *op = op_new(is, STORE_READ, get_run, arg);
    if (!op) {
        cb(arg, -ENOMEM, NULL, &no_memory);
        return;
    }
    op->info_cb = cb;
    /* A longer one names nothing; cut, it is still longer than any tag or digest. */
    strncat(op->ref, ref, sizeof op->ref - 1);
    if (strlen(ref) >= sizeof op->ref) {
        op->ref[0] = '\0';
    }
    op_submit(op);
}

static int list_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct image_op *op = un_container_of(job, struct image_op, job);
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err,
                           "SELECT " INFO_COLUMNS " FROM images i ORDER BY i.created_us, i.id", "");
    while (rc == 0 && (rc = store_step(stmt, err)) == 1) {
        struct image_info info;
        rc = info_of_row(stmt, &info, err);
        if (rc == 0 && un_buf_append(&op->infos, &info, sizeof info) < 0) {
            rc = un_error_set(err, -ENOMEM, "out of memory");
        }
        if (rc < 0) {
            return rc;
        }
    }
    return rc;
}

void image_list(struct imagestore *is, image_list_cb cb, void *arg)
{
    struct image_op *op = op_new(is, STORE_READ, list_run, arg);
    if (!op) {
        cb(arg, -ENOMEM, NULL, 0, &no_memory);
        return;
    }
    op->list_cb = cb;
    op_submit(op);
}

static int note_removed(struct image_op *op, int64_t blob, const char *digest, struct un_error *err)
{
    struct removed r = {.blob = blob};
    strncat(r.digest, digest, sizeof r.digest - 1);
    return un_buf_append(&op->removed, &r, sizeof r) < 0
               ? un_error_set(err, -ENOMEM, "out of memory")
               : 0;
}

/* -EBUSY with the name of a function that refers to the image. */
static int check_unused(sqlite3 *db, int64_t blob, const char *digest, struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err,
                           "SELECT f.name, v.version FROM function_versions v"
                           " JOIN functions f ON f.id = v.function_id WHERE v.image_id = ?1"
                           " OR v.id IN (SELECT x.version_id FROM function_version_images x"
                           "  WHERE x.image_id = ?1) LIMIT 1",
                           "i", blob);
    if (rc == 0) {
        rc = store_step(stmt, err);
    }
    if (rc == 1) {
        return un_error_set(err, -EBUSY, "image %s is used by function %s, version %lld", digest,
                            (const char *)sqlite3_column_text(stmt, 0),
                            (long long)sqlite3_column_int64(stmt, 1));
    }
    return rc;
}

static int remove_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct image_op *op = un_container_of(job, struct image_op, job);
    struct image_info info;
    int64_t blob;
    if (!op->digest[0]) {
        return un_error_set(err, -ENOENT, "no such image");
    }
    int rc = image_load(db, op->digest, &info, &blob, err);
    if (rc == 0) {
        rc = check_unused(db, blob, op->digest, err);
    }
    if (rc == 0) {
        rc = store_exec(db, err, "DELETE FROM images WHERE id = ?", "i", blob);
    }
    if (rc == 0) {
        rc = note_removed(op, blob, info.digest, err);
    }
    return rc;
}

void image_remove(struct imagestore *is, const char *digest, image_done_cb cb, void *arg)
{
    struct image_op *op = op_new(is, STORE_WRITE, remove_run, arg);
    if (!op) {
        cb(arg, -ENOMEM, &no_memory);
        return;
    }
    op->done_cb = cb;
    if (image_digest_valid(digest)) {
        memcpy(op->digest, digest, IMAGE_DIGEST_SIZE);
    }
    op_submit(op);
}

static int collect_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct image_op *op = un_container_of(job, struct image_op, job);
    uint64_t now = un_clock_wall_us();
    int64_t before = op->min_age_us < now ? (int64_t)(now - op->min_age_us) : 0;
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(
        db, &stmt, err,
        "DELETE FROM images WHERE seen_us <= ?"
        " AND NOT EXISTS(SELECT 1 FROM function_versions v WHERE v.image_id = images.id)"
        " AND NOT EXISTS(SELECT 1 FROM function_version_images x WHERE x.image_id = images.id)"
        " AND NOT EXISTS(SELECT 1 FROM image_tags t WHERE t.image_id = images.id)"
        " RETURNING id, digest",
        "i", before);
    while (rc == 0 && (rc = store_step(stmt, err)) == 1) {
        rc = note_removed(op, sqlite3_column_int64(stmt, 0),
                          (const char *)sqlite3_column_text(stmt, 1), err);
        if (rc < 0) {
            return rc;
        }
    }
    return rc;
}

void image_collect_garbage(struct imagestore *is, uint64_t min_age_us, image_done_cb cb, void *arg)
{
    struct image_op *op = op_new(is, STORE_WRITE, collect_run, arg);
    if (!op) {
        cb(arg, -ENOMEM, &no_memory);
        return;
    }
    op->done_cb = cb;
    op->min_age_us = min_age_us;
    op_submit(op);
}
