/* judge.c - whether another program of a root file system could run than the one that it names (see image.h).
 *
 *     read: chunks -> a file without a name     (store's threads, a few a step)
 *     prepare: that file -> another             (worker); both are gone at the end, what is left is the report
 *
 * Nothing of it stays in the cache: what runs is prepared once for all its programs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/file.h"
#include "common/json.h"
#include "imagestore/internal.h"
#include "prepare/program.h"

enum { CHUNKS_A_STEP = 16, NAME_SIZE = 32 };

struct judge {
    struct store_job read;
    struct un_job prepare;
    struct imagestore *is;
    char digest[IMAGE_DIGEST_SIZE];
    char *program, *report;
    int64_t blob; /* 0: not looked up yet */
    uint64_t size, offset;
    unsigned serial; /* of its files' names, while they have any */
    int fd;
    uint8_t *buf;
    image_judge_cb cb;
    void *arg;
};

static void judge_end(struct judge *j, int rc, const struct un_error *err)
{
    struct imagestore *is = j->is;
    j->cb(j->arg, rc, j->report, err);
    un_closep(&j->fd);
    free(j->program);
    free(j->report);
    free(j->buf);
    free(j);
    imagestore_release(is);
}

/* A file without a name in the cache's directory. */
static int open_nameless(struct imagestore *is, unsigned serial, struct un_error *err)
{
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "judge.%u", serial);
    int fd = openat(is->dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return un_error_errno(err, -errno, "create %s/%s", is->dir, name);
    }
    (void)unlinkat(is->dir_fd, name, 0);
    return fd;
}

/* --- preparing (worker) ----------------------------------------------------------------------- */

static int prepare_run(struct un_job *job, struct un_error *err)
{
    struct judge *j = un_container_of(job, struct judge, prepare);
    struct prepare_result result = {0};
    un_autoclose int out = open_nameless(j->is, j->serial, err);
    if (out < 0) {
        return out;
    }
    void *data = mmap(NULL, (size_t)j->size, PROT_READ, MAP_SHARED, j->fd, 0);
    if (data == MAP_FAILED) {
        return un_error_errno(err, -errno, "map image");
    }
    const struct prepare_spec spec = {
        .data = data, .size = (size_t)j->size, .program = j->program, .fd = out};
    int rc = prepare_program(&spec, &result, err);
    munmap(data, (size_t)j->size);
    j->report = un_json_text(result.report);
    json_decref(result.report);
    return rc;
}

static void prepare_done(struct un_job *job, int rc, const struct un_error *err)
{
    judge_end(un_container_of(job, struct judge, prepare), rc, err);
}

/* --- reading (store's threads) ---------------------------------------------------------------- */

static int read_begin(struct judge *j, sqlite3 *db, struct un_error *err)
{
    struct image_info info;
    int rc = image_load(db, j->digest, &info, &j->blob, err);
    if (rc < 0) {
        return rc;
    }
    j->size = info.size_bytes;
    j->fd = open_nameless(j->is, j->serial, err);
    j->buf = malloc(IMAGE_CHUNK_BYTES);
    if (j->fd >= 0 && !j->buf) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    return j->fd < 0 ? j->fd : 0;
}

static int read_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct judge *j = un_container_of(job, struct judge, read);
    int rc = j->blob ? 0 : read_begin(j, db, err);
    for (int i = 0; rc == 0 && i < CHUNKS_A_STEP && j->offset < j->size; i++) {
        uint64_t left = j->size - j->offset;
        size_t n = left < IMAGE_CHUNK_BYTES ? (size_t)left : IMAGE_CHUNK_BYTES;
        int64_t key = image_chunk_key(j->blob, j->offset / IMAGE_CHUNK_BYTES);
        rc = image_read_chunk(db, key, j->buf, n, err);
        int written = rc == 0 ? un_write_all(j->fd, j->buf, n) : 0;
        if (written < 0) {
            rc = un_error_errno(err, written, "write image");
        }
        j->offset += n;
    }
    return rc;
}

static void read_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct judge *j = un_container_of(job, struct judge, read);
    if (rc < 0) {
        judge_end(j, rc, err);
    } else if (j->offset < j->size) {
        store_submit(j->is->store, job);
    } else {
        j->prepare = (struct un_job){.run = prepare_run, .done = prepare_done};
        un_workers_submit(j->is->workers, &j->prepare);
    }
}

void image_judge(struct imagestore *is, const char *digest, const char *program, image_judge_cb cb,
                 void *arg)
{
    static const struct un_error no_memory = {.code = -ENOMEM, .text = "out of memory"};
    struct judge *j = un_fault("image.judge") ? NULL : calloc(1, sizeof *j);
    if (!j || !(j->program = strdup(program))) {
        free(j);
        cb(arg, -ENOMEM, NULL, &no_memory);
        return;
    }
    snprintf(j->digest, sizeof j->digest, "%s", digest);
    j->is = is;
    j->serial = is->next_serial++;
    j->fd = -1;
    j->cb = cb;
    j->arg = arg;
    imagestore_hold(is);
    j->read = (struct store_job){.access = STORE_READ, .run = read_run, .done = read_done};
    store_submit(is->store, &j->read);
}
