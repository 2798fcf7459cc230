/* tag.c - tags of images: setting, removing, listing (see image.h).
 *
 * Each call is one store job in a struct tag_op, which carries the question to the store's thread
 * and the answer back. What a tag means for reading an image is image_load's (image.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/fault.h"
#include "imagestore/internal.h"

struct tag_op {
    struct store_job job;
    struct imagestore *is;
    struct image_tag_info question; /* a part of it is "" when it is not valid, or not asked for */
    bool all;                       /* list: of every image */
    struct un_buf tags;             /* struct image_tag_info */
    image_tags_cb list_cb;
    image_done_cb done_cb;
    void *arg;
};

static const struct un_error no_memory = {.code = -ENOMEM, .text = "out of memory"};

/* "." and ".." could be set and then not be named in a URL's path. */
static bool tag_valid(const char *tag)
{
    size_t len =
        tag ? strspn(tag, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-/:")
            : 0;
    return len > 0 && len < IMAGE_TAG_SIZE && tag[len] == '\0' && strncmp(tag, "sha256:", 7) != 0 &&
           strcmp(tag, ".") != 0 && strcmp(tag, "..") != 0;
}

static void op_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct tag_op *op = un_container_of(job, struct tag_op, job);
    struct imagestore *is = op->is;
    const struct image_tag_info *list = (const struct image_tag_info *)op->tags.data;
    if (op->list_cb) {
        op->list_cb(op->arg, rc, rc == 0 ? list : NULL, rc == 0 ? op->tags.len / sizeof *list : 0,
                    err);
    } else {
        op->done_cb(op->arg, rc, err);
    }
    un_buf_done(&op->tags);
    free(op);
    imagestore_release(is);
}

/* Copies what is valid of the question. NULL when out of memory: the caller tells its callback. */
static struct tag_op *op_new(struct imagestore *is, const char *tag, const char *digest, void *arg)
{
    struct tag_op *op = un_fault("image.tag") ? NULL : calloc(1, sizeof *op);
    if (op) {
        op->is = is;
        op->arg = arg;
        if (tag_valid(tag)) {
            strcpy(op->question.tag, tag);
        }
        if (image_digest_valid(digest)) {
            memcpy(op->question.digest, digest, IMAGE_DIGEST_SIZE);
        }
    }
    return op;
}

static void op_submit(struct tag_op *op, enum store_access access,
                      int (*run)(struct store_job *, sqlite3 *, struct un_error *))
{
    op->job = (struct store_job){.access = access, .run = run, .done = op_done};
    imagestore_hold(op->is);
    store_submit(op->is->store, &op->job);
}

/* --- setting and removing --------------------------------------------------------------------- */

static int tag_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct tag_op *op = un_container_of(job, struct tag_op, job);
    struct image_info info;
    int64_t blob;
    if (!op->question.tag[0]) {
        return un_error_set(err, -EINVAL, "a tag is 1 to %d of A-Z a-z 0-9 _ . - / : and no digest",
                            IMAGE_TAG_SIZE - 1);
    }
    if (!op->question.digest[0]) {
        return un_error_set(err, -ENOENT, "no such image");
    }
    int rc = image_load(db, op->question.digest, &info, &blob, err);
    return rc < 0 ? rc
                  : store_exec(db, err, "INSERT OR REPLACE INTO image_tags VALUES(?, ?)", "ti",
                               op->question.tag, blob);
}

void image_tag(struct imagestore *is, const char *tag, const char *digest, image_done_cb cb,
               void *arg)
{
    struct tag_op *op = op_new(is, tag, digest, arg);
    if (!op) {
        cb(arg, -ENOMEM, &no_memory);
        return;
    }
    op->done_cb = cb;
    op_submit(op, STORE_WRITE, tag_run);
}

static int untag_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct tag_op *op = un_container_of(job, struct tag_op, job);
    int rc = store_exec(db, err, "DELETE FROM image_tags WHERE tag = ?", "t", op->question.tag);
    if (rc == 0 && sqlite3_changes(db) == 0) {
        return un_error_set(err, -ENOENT, "no tag %s", op->question.tag);
    }
    return rc;
}

void image_untag(struct imagestore *is, const char *tag, image_done_cb cb, void *arg)
{
    struct tag_op *op = op_new(is, tag, NULL, arg);
    if (!op) {
        cb(arg, -ENOMEM, &no_memory);
        return;
    }
    op->done_cb = cb;
    op_submit(op, STORE_WRITE, untag_run);
}

/* --- listing ---------------------------------------------------------------------------------- */

static int list_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct tag_op *op = un_container_of(job, struct tag_op, job);
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = op->all ? store_prepare(db, &stmt, err,
                                     "SELECT t.tag, i.digest FROM image_tags t"
                                     " JOIN images i ON i.id = t.image_id ORDER BY t.tag",
                                     "")
                     : store_prepare(db, &stmt, err,
                                     "SELECT t.tag, i.digest FROM images i"
                                     " JOIN image_tags t ON t.image_id = i.id"
                                     " WHERE i.digest = ? ORDER BY t.tag",
                                     "t", op->question.digest);
    while (rc == 0 && (rc = store_step(stmt, err)) == 1) {
        const char *tag = (const char *)sqlite3_column_text(stmt, 0);
        const char *digest = (const char *)sqlite3_column_text(stmt, 1);
        struct image_tag_info info = {.tag = "", .digest = ""};
        if (!tag || strlen(tag) >= sizeof info.tag || !image_digest_valid(digest)) {
            return un_error_set(err, -EUCLEAN, "the database has a tag that cannot be");
        }
        strcpy(info.tag, tag);
        memcpy(info.digest, digest, IMAGE_DIGEST_SIZE);
        rc = un_buf_append(&op->tags, &info, sizeof info);
        if (rc < 0) {
            return un_error_set(err, rc, "out of memory");
        }
    }
    return rc;
}

void image_tag_list(struct imagestore *is, const char *digest, image_tags_cb cb, void *arg)
{
    struct tag_op *op = op_new(is, NULL, digest, arg);
    if (!op) {
        cb(arg, -ENOMEM, NULL, 0, &no_memory);
        return;
    }
    op->list_cb = cb;
    op->all = !digest;
    op_submit(op, STORE_READ, list_run);
}
