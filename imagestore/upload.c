/* upload.c - bytes coming in (see image.h).
 *
 *     image_upload_data -> filling --full--> +-> lazy write job (store)  -+-> free chunk
 *                                            +-> hash queue -> worker ----+
 *     image_upload_finish -> hash the rest -> check -> one write job: last chunk + image row ->
 * on_done
 *
 * The chunk buffers of one upload go round between source, writer and hasher; when they hold
 * LIMIT_UPLOAD_BUFFER_BYTES the source is told to wait. Chunks are committed lazily as they come;
 * nothing refers to them until the row of the image is committed with fsync, which covers them as
 * well.
 *
 * `outstanding` counts what may still call back. A failed, aborted or finished upload ends in
 * `advance` when that is zero, and nowhere else.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/limits.h"
#include "imagestore/internal.h"

struct chunk {
    struct store_job job;
    struct image_upload *upload;
    struct chunk *next; /* in the hash queue, or among the free */
    uint32_t index;
    size_t len;
    unsigned uses; /* of writer and hasher */
    uint8_t data[IMAGE_CHUNK_BYTES];
};

enum upload_state {
    UPLOAD_OPEN,       /* bytes are coming */
    UPLOAD_FINISHING,  /* all have come; the rest is being hashed and written */
    UPLOAD_COMMITTING, /* the final job is under way */
    UPLOAD_ENDING      /* failed, aborted or done */
};

struct image_upload {
    struct imagestore *is;
    const struct image_upload_events *events;
    void *arg;
    int64_t declared_size;
    char declared_digest[IMAGE_DIGEST_SIZE]; /* "" when none */
    enum upload_state state;
    bool want_room, aborted, stored_any, created;
    int rc;
    struct un_error err;
    unsigned outstanding;
    struct un_post post; /* for errors found inside image_upload_data */

    int64_t blob;
    uint64_t size;
    uint32_t next_index;
    size_t in_flight;
    struct chunk *filling, *free_chunks;
    struct chunk *unhashed, **unhashed_end;
    struct chunk *hashing; /* the worker's */
    struct un_job hash_job;
    EVP_MD_CTX *md;
    struct image_head *head;

    struct store_job commit_job;
    struct image_info info;
};

static void advance(struct image_upload *up);

static void upload_free(struct image_upload *up)
{
    struct imagestore *is = up->is;
    while (up->free_chunks) {
        struct chunk *c = up->free_chunks;
        up->free_chunks = c->next;
        free(c);
    }
    free(up->filling);
    EVP_MD_CTX_free(up->md);
    image_head_free(up->head);
    free(up);
    imagestore_release(is);
}

static void fail(struct image_upload *up, int rc, const struct un_error *err)
{
    if (up->rc == 0) {
        up->rc = rc;
        un_error_copy(&up->err, err);
    }
    up->state = UPLOAD_ENDING;
}

/* --- chunks ----------------------------------------------------------------------------------- */

static struct chunk *chunk_take(struct image_upload *up)
{
    struct chunk *c = up->free_chunks;
    if (c) {
        up->free_chunks = c->next;
    } else {
        c = un_fault("image.chunk") ? NULL : malloc(sizeof *c);
    }
    if (c) {
        c->upload = up;
        c->next = NULL;
        c->len = 0;
        c->index = up->next_index++;
        c->uses = 0;
    }
    return c;
}

/* One of writer and hasher is through with the chunk. */
static void chunk_put(struct chunk *c)
{
    struct image_upload *up = c->upload;
    if (--c->uses > 0) {
        return;
    }
    up->in_flight -= c->len;
    c->next = up->free_chunks;
    up->free_chunks = c;
    if (up->want_room && up->state == UPLOAD_OPEN &&
        up->in_flight <= LIMIT_UPLOAD_BUFFER_BYTES / 2) {
        up->want_room = false;
        up->events->on_room(up->arg);
    }
}

static int chunk_insert(struct chunk *c, sqlite3 *db, struct un_error *err)
{
    struct image_upload *up = c->upload;
    int rc = store_check_room(up->is->store, c->len, err);
    return rc < 0 ? rc
                  : store_exec(db, err, "INSERT INTO image_chunks VALUES(?, ?)", "ib",
                               image_chunk_key(up->blob, c->index), c->data, c->len);
}

static int chunk_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    return chunk_insert(un_container_of(job, struct chunk, job), db, err);
}

static void chunk_written(struct store_job *job, int rc, const struct un_error *err)
{
    struct chunk *c = un_container_of(job, struct chunk, job);
    struct image_upload *up = c->upload;
    if (rc < 0) {
        fail(up, rc, err);
    }
    chunk_put(c);
    up->outstanding--;
    advance(up);
}

static int hash_run(struct un_job *job, struct un_error *err)
{
    struct image_upload *up = un_container_of(job, struct image_upload, hash_job);
    for (struct chunk *c = up->hashing; c; c = c->next) {
        if (EVP_DigestUpdate(up->md, c->data, c->len) != 1) {
            return un_error_set(err, -EIO, "SHA-256 failed");
        }
    }
    return 0;
}

static void hash_done(struct un_job *job, int rc, const struct un_error *err);

static void hash_start(struct image_upload *up)
{
    if (up->hashing || !up->unhashed) {
        return;
    }
    up->hashing = up->unhashed;
    up->unhashed = NULL;
    up->unhashed_end = &up->unhashed;
    up->hash_job = (struct un_job){.run = hash_run, .done = hash_done};
    up->outstanding++;
    un_workers_submit(up->is->workers, &up->hash_job);
}

static void hash_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct image_upload *up = un_container_of(job, struct image_upload, hash_job);
    struct chunk *c = up->hashing;
    up->hashing = NULL;
    if (rc < 0) {
        fail(up, rc, err);
    }
    hash_start(up); /* the worker goes on while this thread tidies up */
    while (c) {
        struct chunk *next = c->next;
        chunk_put(c);
        c = next;
    }
    up->outstanding--;
    advance(up);
}

static void hash_queue(struct image_upload *up, struct chunk *c)
{
    c->uses++;
    c->next = NULL;
    *up->unhashed_end = c;
    up->unhashed_end = &c->next;
    hash_start(up);
}

static void chunk_dispatch(struct image_upload *up, struct chunk *c)
{
    up->in_flight += c->len;
    up->stored_any = true;
    c->job =
        (struct store_job){.access = STORE_WRITE_LAZY, .run = chunk_run, .done = chunk_written};
    c->uses++;
    up->outstanding++;
    store_submit(up->is->store, &c->job);
    hash_queue(up, c);
}

/* --- the interface ---------------------------------------------------------------------------- */

static void on_post(void *arg)
{
    struct image_upload *up = arg;
    up->outstanding--;
    advance(up);
}

/* Fails from inside a call of the source, which must hear of it later. */
static void fail_later(struct image_upload *up, int rc, const struct un_error *err)
{
    if (up->state == UPLOAD_ENDING) {
        return;
    }
    fail(up, rc, err);
    up->outstanding++;
    un_loop_post(up->is->loop, &up->post);
}

static int check_declared(struct imagestore *is, const struct image_upload_spec *spec,
                          struct un_error *err)
{
    if (spec->declared_digest && !image_digest_valid(spec->declared_digest)) {
        return un_error_set(err, -EBADMSG,
                            "the declared digest is not \"sha256:\" and 64 lower-case hex digits");
    }
    if (spec->declared_size >= 0 && (uint64_t)spec->declared_size > is->max_image_bytes) {
        return un_error_set(err, -EFBIG,
                            "an image of %" PRId64 " bytes; images.max_bytes is %" PRIu64,
                            spec->declared_size, is->max_image_bytes);
    }
    return spec->declared_size > 0 ? store_check_room(is->store, (uint64_t)spec->declared_size, err)
                                   : 0;
}

int image_upload_start(struct imagestore *is, const struct image_upload_spec *spec,
                       struct image_upload **ret, struct un_error *err)
{
    int rc = check_declared(is, spec, err);
    if (rc < 0) {
        return rc;
    }
    struct image_upload *up = un_fault("image.upload") ? NULL : calloc(1, sizeof *up);
    if (!up) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    up->is = is;
    imagestore_hold(is);
    up->events = spec->events;
    up->arg = spec->arg;
    up->declared_size = spec->declared_size;
    if (spec->declared_digest) {
        memcpy(up->declared_digest, spec->declared_digest, IMAGE_DIGEST_SIZE);
    }
    up->unhashed_end = &up->unhashed;
    up->post = (struct un_post){.fn = on_post, .arg = up};
    up->blob = is->next_blob++;
    up->md = image_digest_new();
    up->head = image_head_new();
    if (!up->md || !up->head) {
        upload_free(up);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    *ret = up;
    return 0;
}

static int check_length(struct image_upload *up, size_t more, struct un_error *err)
{
    uint64_t size;
    if (__builtin_add_overflow(up->size, more, &size) || size > up->is->max_image_bytes) {
        return un_error_set(err, -EFBIG, "the image is longer than images.max_bytes, %" PRIu64,
                            up->is->max_image_bytes);
    }
    if (up->declared_size >= 0 && size > (uint64_t)up->declared_size) {
        return un_error_set(err, -EBADMSG, "more than the declared %" PRId64 " bytes came",
                            up->declared_size);
    }
    return 0;
}

int image_upload_data(struct image_upload *up, const void *data, size_t len)
{
    struct un_error err = UN_ERROR_INIT;
    const uint8_t *from = data;
    if (up->state != UPLOAD_OPEN || len == 0) {
        return up->state == UPLOAD_OPEN;
    }
    int rc = check_length(up, len, &err);
    if (rc == 0 && image_head_feed(up->head, data, len) < 0) {
        rc = un_error_set(&err, -ENOMEM, "out of memory");
    }
    if (rc < 0) {
        fail_later(up, rc, &err);
        return 0;
    }
    up->size += len;
    while (len > 0) {
        if (!up->filling && !(up->filling = chunk_take(up))) {
            un_error_set(&err, -ENOMEM, "out of memory");
            fail_later(up, -ENOMEM, &err);
            return 0;
        }
        struct chunk *c = up->filling;
        size_t n = IMAGE_CHUNK_BYTES - c->len < len ? IMAGE_CHUNK_BYTES - c->len : len;
        memcpy(c->data + c->len, from, n);
        c->len += n;
        from += n;
        len -= n;
        if (c->len == IMAGE_CHUNK_BYTES) {
            up->filling = NULL;
            chunk_dispatch(up, c);
        }
    }
    up->want_room = up->in_flight >= LIMIT_UPLOAD_BUFFER_BYTES;
    return !up->want_room;
}

void image_upload_finish(struct image_upload *up)
{
    struct un_error err = UN_ERROR_INIT;
    if (up->state != UPLOAD_OPEN) {
        return; /* it has failed, and on_done is on its way */
    }
    if (up->declared_size >= 0 && up->size != (uint64_t)up->declared_size) {
        un_error_set(&err, -EBADMSG, "%" PRIu64 " bytes came of the declared %" PRId64, up->size,
                     up->declared_size);
        fail_later(up, -EBADMSG, &err);
        return;
    }
    up->state = UPLOAD_FINISHING;
    if (up->filling) {
        up->filling->uses = 1; /* ours: the last chunk is written by the final job */
        up->in_flight += up->filling->len;
        hash_queue(up, up->filling);
    }
    up->outstanding++;
    un_loop_post(up->is->loop, &up->post);
}

void image_upload_abort(struct image_upload *up)
{
    up->aborted = true;
    if (up->state != UPLOAD_COMMITTING) {
        up->state = UPLOAD_ENDING;
    }
    advance(up);
}

/* --- the end ---------------------------------------------------------------------------------- */

/* Finds the image when the same bytes are there already. 1: found. */
static int find_existing(struct image_upload *up, sqlite3 *db, int64_t now, struct un_error *err)
{
    struct image_info info;
    struct un_error none = UN_ERROR_INIT;
    int rc = image_load(db, up->info.digest, &info, NULL, &none);
    if (rc == -ENOENT) {
        return 0;
    }
    if (rc < 0) {
        un_error_copy(err, &none);
        return rc;
    }
    up->info = info;
    rc = store_exec(db, err, "UPDATE images SET seen_us = ? WHERE digest = ?", "it", now,
                    info.digest);
    return rc < 0 ? rc : 1;
}

static int commit_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct image_upload *up = un_container_of(job, struct image_upload, commit_job);
    int64_t now = (int64_t)un_clock_wall_us();
    int rc = find_existing(up, db, now, err);
    if (rc != 0) {
        return rc < 0 ? rc : 0;
    }
    if (up->filling) {
        rc = chunk_insert(up->filling, db, err);
    }
    if (rc == 0) {
        rc = store_exec(db, err, "INSERT INTO images VALUES(?, ?, ?, ?, ?, ?)", "ittiii", up->blob,
                        up->info.digest, image_kind_name(up->info.kind), (int64_t)up->size, now,
                        now);
    }
    if (rc == 0) {
        up->info.created_us = (uint64_t)now;
        up->created = true;
    }
    return rc;
}

static void commit_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct image_upload *up = un_container_of(job, struct image_upload, commit_job);
    up->outstanding--;
    up->state = UPLOAD_ENDING;
    if (rc < 0) {
        up->created = false;
        fail(up, rc, err);
    }
    advance(up);
}

/* All bytes are hashed and all but the last chunk is written: is it what was declared, and an
 * image? */
static int check_whole(struct image_upload *up, struct un_error *err)
{
    int rc = image_digest_final(up->md, up->info.digest, err);
    if (rc < 0) {
        return rc;
    }
    if (up->declared_digest[0] && strcmp(up->declared_digest, up->info.digest) != 0) {
        return un_error_set(err, -EBADMSG, "the bytes have the digest %s, declared was %s",
                            up->info.digest, up->declared_digest);
    }
    up->info.size_bytes = up->size;
    return image_head_recognise(up->head, &up->info.kind, err);
}

static void commit_start(struct image_upload *up)
{
    struct un_error err = UN_ERROR_INIT;
    int rc = check_whole(up, &err);
    if (rc < 0) {
        fail(up, rc, &err);
        return;
    }
    up->state = UPLOAD_COMMITTING;
    up->commit_job =
        (struct store_job){.access = STORE_WRITE, .run = commit_run, .done = commit_done};
    up->outstanding++;
    store_submit(up->is->store, &up->commit_job);
}

/* Goes on when nothing is outstanding; the upload may be gone afterwards. */
static void advance(struct image_upload *up)
{
    if (up->outstanding > 0) {
        return;
    }
    if (up->state == UPLOAD_FINISHING) {
        commit_start(up);
    }
    if (up->state != UPLOAD_ENDING || up->outstanding > 0) {
        return;
    }
    if (!up->created && up->stored_any) {
        image_purge(up->is, up->blob, NULL);
    }
    if (!up->aborted) {
        up->events->on_done(up->arg, up->rc, up->rc == 0 ? &up->info : NULL, up->created, &up->err);
    }
    upload_free(up);
}
