/* reader.c - an image's bytes, a chunk at a time (see image.h).
 *
 *     start -> READING -> on_data -> WAITING -- image_read_next --> READING ... -> on_end
 *
 * Each chunk is a job of its own, so that a slow client holds neither a thread nor a state of the
 * database. An image that is removed meanwhile ends the reading with -ENOENT.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "imagestore/internal.h"

struct image_reader {
    struct store_job job;
    struct imagestore *is;
    const struct image_read_events *events;
    void *arg;
    char digest[IMAGE_DIGEST_SIZE];
    int64_t blob; /* 0: not looked up yet */
    uint64_t size, offset;
    size_t len; /* bytes in `buf` */
    uint8_t *buf;
    bool reading, aborted;
};

int image_read_chunk(sqlite3 *db, int64_t key, void *buf, size_t want, struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, "SELECT data FROM image_chunks WHERE id = ?", "i", key);
    if (rc == 0) {
        rc = store_step(stmt, err);
    }
    if (rc < 0) {
        return rc;
    }
    if (rc == 0) {
        return un_error_set(err, -ENOENT, "the image was removed");
    }
    const void *data = sqlite3_column_blob(stmt, 0);
    if (!data || (size_t)sqlite3_column_bytes(stmt, 0) != want) {
        return un_error_set(err, -EUCLEAN,
                            "the image's bytes in the database are damaged; push it again after "
                            "removing it");
    }
    memcpy(buf, data, want);
    return 0;
}

static int reader_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct image_reader *r = un_container_of(job, struct image_reader, job);
    if (r->blob == 0) {
        struct image_info info;
        int64_t blob;
        int rc = image_load(db, r->digest, &info, &blob, err);
        if (rc < 0) {
            return rc;
        }
        r->size = info.size_bytes;
        r->blob = blob;
    }
    uint64_t left = r->size - r->offset;
    r->len = left < IMAGE_CHUNK_BYTES ? (size_t)left : IMAGE_CHUNK_BYTES;
    if (r->len == 0) {
        return 0;
    }
    return image_read_chunk(db, image_chunk_key(r->blob, r->offset / IMAGE_CHUNK_BYTES), r->buf,
                            r->len, err);
}

static void reader_free(struct image_reader *r)
{
    struct imagestore *is = r->is;
    free(r->buf);
    free(r);
    imagestore_release(is);
}

static void reader_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct image_reader *r = un_container_of(job, struct image_reader, job);
    r->reading = false;
    if (r->aborted) {
        reader_free(r);
        return;
    }
    if (rc < 0 || r->len == 0) {
        r->events->on_end(r->arg, rc, err);
        reader_free(r);
        return;
    }
    r->offset += r->len;
    r->events->on_data(r->arg, r->buf, r->len); /* may ask for the next, or abort */
}

int image_read_start(struct imagestore *is, const char *digest,
                     const struct image_read_events *events, void *arg, struct image_reader **ret,
                     struct un_error *err)
{
    if (!image_digest_valid(digest)) {
        return un_error_set(err, -ENOENT, "no such image");
    }
    struct image_reader *r = un_fault("image.read") ? NULL : calloc(1, sizeof *r);
    if (r) {
        r->buf = malloc(IMAGE_CHUNK_BYTES);
    }
    if (!r || !r->buf) {
        free(r);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    r->job = (struct store_job){.access = STORE_READ, .run = reader_run, .done = reader_done};
    r->is = is;
    r->events = events;
    r->arg = arg;
    memcpy(r->digest, digest, IMAGE_DIGEST_SIZE);
    imagestore_hold(is);
    image_read_next(r);
    *ret = r;
    return 0;
}

void image_read_next(struct image_reader *r)
{
    if (!r->reading) {
        r->reading = true;
        store_submit(r->is->store, &r->job);
    }
}

void image_read_abort(struct image_reader *r)
{
    r->aborted = true;
    if (!r->reading) {
        reader_free(r);
    }
}
