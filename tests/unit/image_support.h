/* image_support.h - an open image store for tests, and its calls made to wait for their answers. */
#ifndef UNID_TESTS_IMAGE_SUPPORT_H
#define UNID_TESTS_IMAGE_SUPPORT_H

#include "tests/unit/elf_support.h"
#include "tests/unit/store_support.h"

#include <openssl/evp.h>

#include "common/bytes.h"
#include "imagestore/image.h"

struct answer {
    struct ground *g;
    int rc;
    char text[UN_ERROR_TEXT_MAX];
    bool created;
    struct image_info info;
    size_t count;
    struct image_mapping *mapping;
    unsigned calls;
};

struct image_ground {
    struct ground g;
    struct un_workers *workers;
    struct imagestore *is;
    struct answer a; /* to the last question */
};

static inline void image_ground_start(struct image_ground *ig, uint64_t max_cache_bytes)
{
    static const struct store_schema *const schemas[] = {&imagestore_schema, NULL};
    static char cache[128], volumes[128];
    struct un_error err = UN_ERROR_INIT;
    if (ground_open_store(&ig->g, schemas, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(un_workers_new(ig->g.loop, "test", 2, &ig->workers, &err), 0);
    snprintf(cache, sizeof cache, "%s/cache", ig->g.dir);
    snprintf(volumes, sizeof volumes, "%s/volumes", ig->g.dir);
    struct imagestore_spec spec = {.loop = ig->g.loop,
                                   .store = ig->g.store,
                                   .workers = ig->workers,
                                   .cache_dir = cache,
                                   .volume_dir = volumes,
                                   .max_image_bytes = 64 << 20,
                                   .max_cache_bytes = max_cache_bytes};
    if (imagestore_open(&spec, &ig->is, &err) < 0) {
        fail_msg("%s", err.text);
    }
    ig->a.g = &ig->g;
}

static inline void image_ground_stop(struct image_ground *ig)
{
    imagestore_close(ig->is);
    un_workers_free(ig->workers);
    store_close(ig->g.store);
    ig->is = NULL;
    ig->workers = NULL;
    ig->g.store = NULL;
}

static inline void image_ground_open(struct image_ground *ig)
{
    ground_open(&ig->g);
    image_ground_start(ig, 64 << 20);
}

static inline void image_ground_close(struct image_ground *ig)
{
    image_ground_stop(ig);
    ground_close(&ig->g);
}

static inline void answer_take(struct answer *a, int rc, const struct un_error *err)
{
    a->rc = rc;
    a->calls++;
    snprintf(a->text, sizeof a->text, "%s", rc < 0 && err ? err->text : "");
    ground_came(a->g);
}

static inline int answer_wait(struct image_ground *ig)
{
    ground_wait(&ig->g);
    return ig->a.rc;
}

static inline void on_upload_room(void *arg)
{
    struct answer *a = arg;
    ground_came(a->g);
}

static inline void on_upload_done(void *arg, int rc, const struct image_info *info, bool created,
                                  const struct un_error *err)
{
    struct answer *a = arg;
    a->created = created;
    if (info) {
        a->info = *info;
    }
    answer_take(a, rc, err);
}

static const struct image_upload_events upload_events = {on_upload_room, on_upload_done};

/* An image of `size` bytes: an ELF program, then noise that `seed` varies. Free with free(). */
static inline uint8_t *make_image(size_t size, uint32_t seed)
{
    struct elf_file f;
    uint8_t *data = malloc(size);
    assert_non_null(data);
    elf_make_sdk(&f);
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525 + 1013904223;
        data[i] = (uint8_t)(seed >> 24);
    }
    memcpy(data, f.data, sizeof f.data);
    return data;
}

static inline struct image_upload *upload_open(struct image_ground *ig, int64_t size,
                                               const char *digest)
{
    struct image_upload_spec spec = {
        .declared_size = size, .declared_digest = digest, .events = &upload_events, .arg = &ig->a};
    struct image_upload *up = NULL;
    struct un_error err = UN_ERROR_INIT;
    ig->a.calls = 0;
    ig->a.rc = image_upload_start(ig->is, &spec, &up, &err);
    snprintf(ig->a.text, sizeof ig->a.text, "%s", err.text);
    return up;
}

/* Sends the bytes in uneven pieces, waiting when told to; false when the upload has ended in between. */
static inline bool upload_send(struct image_ground *ig, struct image_upload *up, const void *data,
                               size_t len)
{
    const uint8_t *from = data;
    for (size_t n, piece = 1; len > 0; from += n, len -= n, piece = piece * 3 % 100003) {
        n = piece < len ? piece : len;
        if (!image_upload_data(up, from, n)) {
            ground_wait(&ig->g);
            if (ig->a.calls) {
                return false;
            }
        }
    }
    return true;
}

/* Uploads; returns what on_done said. */
static inline int push_declared(struct image_ground *ig, const void *data, size_t len, int64_t size,
                                const char *digest)
{
    struct image_upload *up = upload_open(ig, size, digest);
    if (!up) {
        return ig->a.rc;
    }
    if (!upload_send(ig, up, data, len)) {
        return ig->a.rc;
    }
    image_upload_finish(up);
    return answer_wait(ig);
}

static inline int push(struct image_ground *ig, const void *data, size_t len)
{
    return push_declared(ig, data, len, -1, NULL);
}

static inline void digest_of(const void *data, size_t len, char ret[IMAGE_DIGEST_SIZE])
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    assert_int_equal(EVP_Digest(data, len, raw, NULL, EVP_sha256(), NULL), 1);
    memcpy(ret, "sha256:", 7);
    un_hex_encode(raw, 32, ret + 7);
}

static inline void on_info(void *arg, int rc, const struct image_info *info,
                           const struct un_error *err)
{
    struct answer *a = arg;
    if (info) {
        a->info = *info;
    }
    answer_take(a, rc, err);
}

static inline int get(struct image_ground *ig, const char *ref)
{
    image_get(ig->is, ref, on_info, &ig->a);
    return answer_wait(ig);
}

static inline void on_done(void *arg, int rc, const struct un_error *err)
{
    answer_take(arg, rc, err);
}

static inline void on_open(void *arg, int rc, struct image_mapping *m, const struct un_error *err)
{
    struct answer *a = arg;
    a->mapping = m;
    answer_take(a, rc, err);
}

static inline int map_image(struct image_ground *ig, const char *digest)
{
    image_open(ig->is, digest, on_open, &ig->a);
    return answer_wait(ig);
}

#endif
