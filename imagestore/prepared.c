/* prepared.c - prepared images of Linux programs in the cache directory (see image.h, "running").
 *
 * A prepared image's file is named by what it was made of: SHA-256 of the image's digest, the library
 * OS and the preparer's version; so a new unid makes its own. Behind the image's bytes stand the
 * report, and a trailer with their lengths and the digest of all before it, by which damage shows.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/file.h"
#include "common/json.h"
#include "imagestore/internal.h"
#include "prepare/program.h"

#define TRAILER_MAGIC "unidprep"

enum { HASH_SIZE = 32, FAILURES_KEPT = 16 };

struct trailer {
    char magic[8];
    uint64_t image_size, report_size;
    uint64_t memory_least, memory_advised; /* bytes */
    uint8_t hash[HASH_SIZE];               /* of all before it */
};

struct image_failure {
    struct un_list node;
    char digest[IMAGE_DIGEST_SIZE];
    char *report;
};

int image_prepared_name(const char *digest, char ret[65], struct un_error *err)
{
    char id[PREPARE_ID_SIZE], named[IMAGE_DIGEST_SIZE];
    EVP_MD_CTX *md = image_digest_new();
    prepare_id(id);
    int rc = md && EVP_DigestUpdate(md, digest, strlen(digest)) == 1 &&
                     EVP_DigestUpdate(md, id, strlen(id)) == 1
                 ? image_digest_final(md, named, err)
                 : un_error_set(err, -EIO, "SHA-256 failed");
    EVP_MD_CTX_free(md);
    if (rc == 0) {
        memcpy(ret, named + 7, 65);
    }
    return rc;
}

static int hash_of(const uint8_t *data, size_t len, uint8_t ret[HASH_SIZE], struct un_error *err)
{
    unsigned got = 0;
    return EVP_Digest(data, len, ret, &got, EVP_sha256(), NULL) == 1 && got == HASH_SIZE
               ? 0
               : un_error_set(err, -EIO, "SHA-256 failed");
}

/* Maps a finished file; false when it is not one. */
static bool map_file(int fd, bool verified, struct image_mapping *ret, size_t *ret_mapped)
{
    struct stat st;
    struct trailer t;
    uint8_t hash[HASH_SIZE];
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof t) {
        return false;
    }
    size_t size = (size_t)st.st_size, body = size - sizeof t;
    const uint8_t *data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        return false;
    }
    memcpy(&t, data + body, sizeof t);
    bool good = memcmp(t.magic, TRAILER_MAGIC, sizeof t.magic) == 0 && t.image_size <= body &&
                t.report_size == body - t.image_size &&
                (verified || (hash_of(data, size - HASH_SIZE, hash, NULL) == 0 &&
                              memcmp(hash, t.hash, HASH_SIZE) == 0));
    if (!good) {
        munmap((void *)data, size);
        return false;
    }
    ret->data = data;
    ret->size = (size_t)t.image_size;
    ret->report = (const char *)data + t.image_size;
    ret->report_size = (size_t)t.report_size;
    ret->memory_least = t.memory_least;
    ret->memory_advised = t.memory_advised;
    *ret_mapped = size;
    return true;
}

bool image_prepared_open(struct imagestore *is, const char *name, bool verified,
                         struct image_mapping *ret, size_t *ret_mapped)
{
    un_autoclose int fd = openat(is->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || !map_file(fd, verified, ret, ret_mapped)) {
        return false;
    }
    (void)futimens(fd, NULL); /* the time of use; without it eviction only chooses worse */
    return true;
}

static int write_at(int fd, const void *data, size_t len, uint64_t at, struct un_error *err)
{
    int rc = un_pwrite_all(fd, data, len, at);
    return rc < 0 ? un_error_errno(err, rc, "write prepared image") : 0;
}

/* Writes report and trailer behind the image, which is in the file. */
static int seal(int fd, const struct prepare_result *result, const char *report,
                struct un_error *err)
{
    struct trailer t = {.magic = TRAILER_MAGIC,
                        .image_size = result->size,
                        .report_size = strlen(report),
                        .memory_least = result->memory_least,
                        .memory_advised = result->memory_advised};
    uint64_t body = t.image_size + t.report_size;
    size_t size = (size_t)body + sizeof t;
    int rc = write_at(fd, report, (size_t)t.report_size, t.image_size, err);
    if (rc == 0) {
        rc = write_at(fd, &t, sizeof t, body, err);
    }
    if (rc < 0) {
        return rc;
    }
    const uint8_t *data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        return un_error_errno(err, -errno, "map prepared image");
    }
    rc = hash_of(data, size - HASH_SIZE, t.hash, err);
    munmap((void *)data, size);
    return rc < 0 ? rc : write_at(fd, t.hash, HASH_SIZE, size - HASH_SIZE, err);
}

int image_prepare(struct imagestore *is, const struct image_prepare_spec *spec, char **ret_report,
                  struct image_mapping *ret, size_t *ret_mapped, struct un_error *err)
{
    struct prepare_result result = {0};
    (void)unlinkat(is->dir_fd, spec->temp_name, 0);
    un_autoclose int fd =
        openat(is->dir_fd, spec->temp_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return un_error_errno(err, -errno, "create %s/%s", is->dir, spec->temp_name);
    }
    const struct prepare_spec prepare = {.data = spec->data, .size = spec->size, .fd = fd};
    int fault = un_fault("image.prepare");
    int rc = fault ? un_error_errno(err, fault, "write prepared image")
                   : prepare_program(&prepare, &result, err);
    un_autofree char *report = un_json_text(result.report);
    json_decref(result.report);
    if (rc == 0 && !report) {
        rc = un_error_set(err, -ENOMEM, "out of memory");
    }
    if (rc == 0) {
        rc = seal(fd, &result, report, err);
    }
    if (rc == 0 && !map_file(fd, true, ret, ret_mapped)) {
        rc = un_error_set(err, -EIO, "the prepared image cannot be read back");
    }
    if (rc == 0 && renameat(is->dir_fd, spec->temp_name, is->dir_fd, spec->name) < 0) {
        rc = un_error_errno(err, -errno, "rename %s/%s", is->dir, spec->temp_name);
        munmap((void *)ret->data, *ret_mapped);
        ret->data = NULL;
    }
    if (rc < 0) {
        (void)unlinkat(is->dir_fd, spec->temp_name, 0);
        *ret_report = un_steal(&report);
    }
    return rc;
}

/* --- what failed last ------------------------------------------------------------------------- */

static void failure_free(struct image_failure *f)
{
    un_list_remove(&f->node);
    free(f->report);
    free(f);
}

static struct image_failure *failure_find(const struct imagestore *is, const char *digest)
{
    un_list_for_each (it, &is->failures) {
        struct image_failure *f = un_list_entry(it, struct image_failure, node);
        if (strcmp(f->digest, digest) == 0) {
            return f;
        }
    }
    return NULL;
}

void image_failure_keep(struct imagestore *is, const char *digest, char *report)
{
    struct image_failure *f = failure_find(is, digest);
    if (f) {
        failure_free(f);
        is->failure_count--;
    }
    f = report ? calloc(1, sizeof *f) : NULL;
    if (!f) {
        free(report);
        return;
    }
    memcpy(f->digest, digest, sizeof f->digest);
    f->report = report;
    un_list_push(&is->failures, &f->node);
    if (++is->failure_count > FAILURES_KEPT) {
        failure_free(un_list_first(&is->failures, struct image_failure, node));
        is->failure_count--;
    }
}

void image_failures_free(struct imagestore *is)
{
    while (!un_list_empty(&is->failures)) {
        failure_free(un_list_first(&is->failures, struct image_failure, node));
    }
}

const char *image_failure_report(struct imagestore *is, const char *digest)
{
    const struct image_failure *f = failure_find(is, digest);
    return f ? f->report : NULL;
}
