/* volume.c - making, listing and removing volumes, and the table of them in memory (see volume.h).
 *
 *     volume_create -> [image_open] -> room (store) -> make file (worker) -> row (store)
 *                   -> give the file its name (worker) -> callback
 *     volume_remove -> hide the file, delete the row (store) -> remove the file (worker) -> callback
 *
 * One struct volume_op a flow. A volume's entry in the table is BUSY while a flow is about it, so there
 * is one at a time; only a READY one is told of.
 */
#include "imagestore/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/limits.h"
#include "common/log.h"
#include "imagestore/function.h"
#include "imagestore/volume_internal.h"

#define MIB ((uint64_t)1 << 20)

struct volume {
    struct un_list node;
    char name[VOLUME_NAME_SIZE];
    char format[VOLUME_FORMAT_SIZE];
    bool busy, exists; /* exists: its row does */
};

struct volume_op {
    struct imagestore *is;
    struct un_post post;
    struct store_job job;
    struct un_job work;
    struct volume *volume; /* the entry that this flow keeps busy, or NULL */
    struct volume_info info;
    struct image_mapping *mapping;
    struct volume_content content;
    struct un_buf infos; /* struct volume_info */
    bool all, created;
    int rc;
    struct un_error err;
    volume_info_cb info_cb;
    volume_list_cb list_cb;
    image_done_cb done_cb;
    void *arg;
};

static const struct un_error no_memory = {.code = -ENOMEM, .text = "out of memory"};

bool volume_name_valid(const char *name)
{
    return function_name_valid(name); /* both are DNS labels */
}

/* --- the table -------------------------------------------------------------------------------- */

static struct volume *volume_find(struct imagestore *is, const char *name)
{
    un_list_for_each (it, &is->volumes) {
        struct volume *v = un_list_entry(it, struct volume, node);
        if (strcmp(v->name, name) == 0) {
            return v;
        }
    }
    return NULL;
}

static struct volume *volume_add(struct imagestore *is, const char *name)
{
    struct volume *v = un_fault("volume.add") ? NULL : calloc(1, sizeof *v);
    if (v) {
        snprintf(v->name, sizeof v->name, "%s", name);
        un_list_push(&is->volumes, &v->node);
        is->volume_count++;
    }
    return v;
}

static void volume_free(struct imagestore *is, struct volume *v)
{
    un_list_remove(&v->node);
    is->volume_count--;
    free(v);
}

void volumes_free(struct imagestore *is)
{
    while (!un_list_empty(&is->volumes)) {
        volume_free(is, un_list_first(&is->volumes, struct volume, node));
    }
    if (is->volume_fd >= 0) {
        close(is->volume_fd);
    }
    free(is->volume_dir);
}

int volume_place(struct imagestore *is, const char *name, char *ret_path, size_t path_size,
                 const char **ret_format, struct un_error *err)
{
    struct volume *v = volume_find(is, name);
    if (!v || !v->exists) {
        return un_error_set(
            err, -ENOENT, "there is no volume %s; make it with `unictl volume create %s --size 1G`",
            name, name);
    }
    int n = snprintf(ret_path, path_size, "%s/%s", is->volume_dir, v->name);
    if (n < 0 || (size_t)n >= path_size) {
        return un_error_set(err, -ENAMETOOLONG, "the path of volume %s is too long", name);
    }
    *ret_format = v->format;
    return 0;
}

/* --- opening ---------------------------------------------------------------------------------- */

struct load {
    struct store_job job;
    struct un_buf infos;
};

static int load_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    return volume_sql_list(db, NULL, &un_container_of(job, struct load, job)->infos, err);
}

/* What a crash left half-done is finished or undone. */
static void settle_hidden(void *arg, const char *name)
{
    struct imagestore *is = arg;
    struct un_error err = UN_ERROR_INIT;
    if (!volume_find(is, name) || volume_file_exists(is->volume_fd, name)) {
        volume_file_drop(is->volume_fd, name);
    } else if (volume_file_show(is->volume_fd, name, &err) < 0) {
        un_log(UN_LOG_ERROR, "volume cannot be used", "volume", name, "error", err.text);
    }
}

static int load(struct imagestore *is, struct un_error *err)
{
    struct load l = {.job = {.access = STORE_READ, .run = load_run}};
    int rc = store_run_blocking(is->store, &l.job, err);
    const struct volume_info *infos = (const struct volume_info *)l.infos.data;
    for (size_t i = 0; rc == 0 && i < l.infos.len / sizeof *infos; i++) {
        struct volume *v = volume_add(is, infos[i].name);
        if (v) {
            memcpy(v->format, infos[i].format, sizeof v->format);
            v->exists = true;
        } else {
            rc = un_error_set(err, -ENOMEM, "out of memory");
        }
    }
    un_buf_done(&l.infos);
    rc = rc < 0 ? rc : volume_file_each_hidden(is->volume_fd, settle_hidden, is, err);
    un_list_for_each (it, &is->volumes) {
        const struct volume *v = un_list_entry(it, struct volume, node);
        if (rc == 0 && !volume_file_exists(is->volume_fd, v->name)) {
            un_log(UN_LOG_ERROR,
                   "the file of a volume is missing; put it back or remove the volume", "volume",
                   v->name, "directory", is->volume_dir);
        }
    }
    return rc;
}

int volumes_open(struct imagestore *is, const char *dir, struct un_error *err)
{
    is->volume_dir = realpath(dir, NULL);
    if (!is->volume_dir && mkdir(dir, 0700) == 0) {
        is->volume_dir = realpath(dir, NULL);
    }
    if (!is->volume_dir) {
        return un_error_errno(err, -errno, "directory %s", dir);
    }
    is->volume_fd = open(is->volume_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (is->volume_fd < 0) {
        return un_error_errno(err, -errno, "open %s", is->volume_dir);
    }
    return load(is, err);
}

/* --- the flow of an op ------------------------------------------------------------------------ */

static struct volume_op *op_new(struct imagestore *is, const char *name, void *arg)
{
    struct volume_op *op = un_fault("volume.op") ? NULL : calloc(1, sizeof *op);
    if (op) {
        op->is = is;
        op->arg = arg;
        if (name && volume_name_valid(name)) {
            snprintf(op->info.name, sizeof op->info.name, "%s", name);
        }
        imagestore_hold(is);
    }
    return op;
}

/* Tells the caller, and lets go of the entry. */
static void op_end(struct volume_op *op)
{
    struct imagestore *is = op->is;
    struct volume *v = op->volume;
    const struct volume_info *infos = (const struct volume_info *)op->infos.data;
    size_t count = op->rc == 0 ? op->infos.len / sizeof *infos : 0;
    if (v) {
        v->busy = false;
        if (!v->exists) {
            volume_free(is, v);
        }
    }
    image_unref(op->mapping);
    if (op->list_cb) {
        op->list_cb(op->arg, op->rc, infos, count, &op->err);
    } else if (op->info_cb) {
        op->info_cb(op->arg, op->rc, op->rc == 0 ? infos : NULL, op->created, &op->err);
    } else {
        op->done_cb(op->arg, op->rc, &op->err);
    }
    un_buf_done(&op->infos);
    free(op);
    imagestore_release(is);
}

/* `err` counts when `rc` < 0. */
static void op_finish(struct volume_op *op, int rc, const struct un_error *err)
{
    op->rc = rc;
    un_error_copy(&op->err, err);
    op_end(op);
}

static void on_post(void *arg)
{
    op_end(arg);
}

/* Ends it from inside the call, with what `rc` and `err` say already. */
static void op_end_later(struct volume_op *op)
{
    op->post = (struct un_post){.fn = on_post, .arg = op};
    un_loop_post(op->is->loop, &op->post);
}

static void op_store(struct volume_op *op, enum store_access access,
                     int (*run)(struct store_job *, sqlite3 *, struct un_error *),
                     void (*done)(struct store_job *, int, const struct un_error *))
{
    op->job = (struct store_job){.access = access, .run = run, .done = done};
    store_submit(op->is->store, &op->job);
}

/* A daemon that is closing has no workers any more: the next start finishes or undoes the rest. */
static void op_work(struct volume_op *op, int (*run)(struct un_job *, struct un_error *),
                    void (*done)(struct un_job *, int, const struct un_error *))
{
    if (op->is->closed) {
        struct un_error err = UN_ERROR_INIT;
        un_error_set(&err, -ESHUTDOWN, "unid is closing");
        op_finish(op, -ESHUTDOWN, &err);
        return;
    }
    op->work = (struct un_job){.run = run, .done = done};
    un_workers_submit(op->is->workers, &op->work);
}

/* --- reading ---------------------------------------------------------------------------------- */

static int list_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, job);
    int rc = volume_sql_list(db, op->all ? NULL : op->info.name, &op->infos, err);
    struct volume_info *infos = (struct volume_info *)op->infos.data;
    size_t count = op->infos.len / sizeof *infos;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        infos[i].allocated_bytes = volume_file_allocated(op->is->volume_fd, infos[i].name);
    }
    return rc == 0 && !op->all && count == 0
               ? un_error_set(err, -ENOENT, "no volume %s", op->info.name)
               : rc;
}

static void list_done(struct store_job *job, int rc, const struct un_error *err)
{
    op_finish(un_container_of(job, struct volume_op, job), rc, err);
}

void volume_list(struct imagestore *is, volume_list_cb cb, void *arg)
{
    struct volume_op *op = op_new(is, NULL, arg);
    if (!op) {
        cb(arg, -ENOMEM, NULL, 0, &no_memory);
        return;
    }
    op->all = true;
    op->list_cb = cb;
    op_store(op, STORE_READ, list_run, list_done);
}

void volume_get(struct imagestore *is, const char *name, volume_info_cb cb, void *arg)
{
    struct volume_op *op = op_new(is, name, arg);
    if (!op) {
        cb(arg, -ENOMEM, NULL, false, &no_memory);
        return;
    }
    op->info_cb = cb;
    op_store(op, STORE_READ, list_run, list_done);
}

/* --- making ----------------------------------------------------------------------------------- */

static int show_run(struct un_job *job, struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, work);
    return volume_file_show(op->is->volume_fd, op->info.name, err);
}

static void show_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, work);
    if (rc < 0) {
        op_finish(op, rc, err);
        return;
    }
    memcpy(op->volume->format, op->info.format, sizeof op->volume->format);
    op->volume->exists = op->created = true;
    op_store(op, STORE_READ, list_run, list_done); /* as it is now */
}

static int drop_run(struct un_job *job, struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, work);
    volume_file_drop(op->is->volume_fd, op->info.name);
    un_error_copy(err, &op->err);
    return op->rc;
}

static void drop_done(struct un_job *job, int rc, const struct un_error *err)
{
    op_finish(un_container_of(job, struct volume_op, work), rc, err);
}

static int insert_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, job);
    op->info.created_us = un_clock_wall_us();
    return volume_sql_insert(db, &op->info, err);
}

static void insert_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, job);
    if (rc < 0) {
        op->rc = rc;
        un_error_copy(&op->err, err);
    }
    op_work(op, rc < 0 ? drop_run : show_run, rc < 0 ? drop_done : show_done);
}

static int make_run(struct un_job *job, struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, work);
    return volume_file_make(op->is->volume_fd, op->info.name, &op->content, err);
}

static void make_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, work);
    if (rc < 0) {
        op_finish(op, rc, err);
    } else {
        op_store(op, STORE_WRITE, insert_run, insert_done);
    }
}

static int room_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, job);
    (void)db;
    return store_check_room(op->is->store, op->content.len, err);
}

static void room_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, job);
    if (rc < 0) {
        op_finish(op, rc, err);
    } else {
        op_work(op, make_run, make_done);
    }
}

/* What the image makes of format and size. QEMU's docs/interop/qcow2.txt: the size is at 24. */
static int settle_content(struct volume_op *op, struct un_error *err)
{
    const struct image_mapping *m = op->mapping;
    if (m->kind != IMAGE_DISK) {
        return un_error_set(err, -EINVAL, "image: %s is no disk image, its kind is %s", m->digest,
                            image_kind_name(m->kind));
    }
    bool qcow2 = m->size >= 32 && memcmp(m->data, "QFI\xfb", 4) == 0;
    if (qcow2 && op->info.size_bytes > 0) {
        return un_error_set(
            err, -EINVAL,
            "size_mib: a qcow2 image says how large its disk is; enlarge it before, "
            "with qemu-img resize");
    }
    if (qcow2) {
        uint64_t size;
        memcpy(&size, m->data + 24, sizeof size);
        op->info.size_bytes = __builtin_bswap64(size);
    } else if (op->info.size_bytes == 0) {
        op->info.size_bytes = m->size;
    } else if (op->info.size_bytes < m->size) {
        return un_error_set(err, -EINVAL, "size_mib: the image has %" PRIu64 " MiB",
                            (m->size + MIB - 1) / MIB);
    }
    snprintf(op->info.format, sizeof op->info.format, "%s", qcow2 ? "qcow2" : "raw");
    op->content = (struct volume_content){
        .size_bytes = qcow2 ? m->size : op->info.size_bytes, .data = m->data, .len = m->size};
    return 0;
}

static void on_image(void *arg, int rc, struct image_mapping *mapping, const struct un_error *err)
{
    struct volume_op *op = arg;
    struct un_error own = UN_ERROR_INIT;
    if (rc < 0) {
        op_finish(op, rc, err);
        return;
    }
    op->mapping = mapping;
    rc = settle_content(op, &own);
    if (rc < 0) {
        op_finish(op, rc, &own);
    } else {
        op_store(op, STORE_WRITE_LAZY, room_run, room_done);
    }
}

static int check_spec(const struct volume_spec *spec, struct un_error *err)
{
    if (!volume_name_valid(spec->name)) {
        return un_error_set(
            err, -EINVAL,
            "a volume's name is 1 to 63 of a-z 0-9 -, starts with a letter and does "
            "not end with -");
    }
    if (spec->image && !image_digest_valid(spec->image)) {
        return un_error_set(err, -EINVAL,
                            "image: must be \"sha256:\" and 64 lower-case hex digits");
    }
    if (spec->size_bytes % MIB || spec->size_bytes / MIB > LIMIT_VOLUME_MIB) {
        return un_error_set(err, -EINVAL, "size_mib: must be from 1 to %d", LIMIT_VOLUME_MIB);
    }
    if (!spec->image && spec->size_bytes == 0) {
        return un_error_set(err, -EINVAL,
                            "size_mib: is missing; without an image it must be given");
    }
    return 0;
}

/* Whether an answered creation asked for the same. */
static int known_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, job);
    int rc = list_run(job, db, err);
    const struct volume_info *found = (const struct volume_info *)op->infos.data;
    if (rc == 0 && (strcmp(found->image, op->info.image) != 0 ||
                    (op->info.size_bytes > 0 && op->info.size_bytes != found->size_bytes))) {
        return un_error_set(err, -EEXIST,
                            "volume %s exists, and is another; remove it first, with all "
                            "that is on it, or take another name",
                            op->info.name);
    }
    return rc;
}

/* Takes the name. */
static int begin(struct volume_op *op, struct un_error *err)
{
    struct imagestore *is = op->is;
    if (is->volume_count >= LIMIT_VOLUMES) {
        return un_error_set(err, -E2BIG, "there are %d volumes already", LIMIT_VOLUMES);
    }
    op->volume = volume_add(is, op->info.name);
    if (!op->volume) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    op->volume->busy = true;
    return 0;
}

static int not_busy(const struct volume *v, struct un_error *err)
{
    return v && v->busy ? un_error_set(err, -EBUSY, "volume %s is being made or removed", v->name)
                        : 0;
}

void volume_create(struct imagestore *is, const struct volume_spec *spec, volume_info_cb cb,
                   void *arg)
{
    struct volume_op *op = op_new(is, spec->name, arg);
    if (!op) {
        cb(arg, -ENOMEM, NULL, false, &no_memory);
        return;
    }
    op->info_cb = cb;
    op->info.size_bytes = spec->size_bytes;
    struct volume *known = volume_find(is, op->info.name);
    op->rc = check_spec(spec, &op->err);
    op->rc = op->rc < 0 ? op->rc : not_busy(known, &op->err);
    if (op->rc == 0 && spec->image) {
        memcpy(op->info.image, spec->image, IMAGE_DIGEST_SIZE);
    }
    if (op->rc == 0 && known) {
        op_store(op, STORE_READ, known_run, list_done);
        return;
    }
    op->rc = op->rc < 0 ? op->rc : begin(op, &op->err);
    if (op->rc < 0) {
        op_end_later(op);
    } else if (spec->image) {
        image_open(is, spec->image, on_image, op);
    } else {
        strcpy(op->info.format, "raw");
        op->content.size_bytes = spec->size_bytes;
        op_store(op, STORE_WRITE_LAZY, room_run, room_done);
    }
}

/* --- removing --------------------------------------------------------------------------------- */

static int remove_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, job);
    int rc = volume_sql_delete(db, op->info.name, err);
    /* Hidden before the row is gone: a file of its own name without a row is nobody's to remove. */
    return rc == 0 && volume_file_exists(op->is->volume_fd, op->info.name)
               ? volume_file_hide(op->is->volume_fd, op->info.name, err)
               : rc;
}

/* The row is still there. */
static int unhide_run(struct un_job *job, struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, work);
    struct un_error none = UN_ERROR_INIT;
    if (!volume_file_exists(op->is->volume_fd, op->info.name) &&
        volume_file_show(op->is->volume_fd, op->info.name, &none) < 0) {
        un_log(UN_LOG_ERROR, "volume cannot be used until unid is started again", "volume",
               op->info.name, "error", none.text);
    }
    un_error_copy(err, &op->err);
    return op->rc;
}

static void remove_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct volume_op *op = un_container_of(job, struct volume_op, job);
    op->volume->exists = rc < 0;
    if (rc < 0) {
        op->rc = rc;
        un_error_copy(&op->err, err);
    }
    op_work(op, rc < 0 ? unhide_run : drop_run, drop_done);
}

void volume_remove(struct imagestore *is, const char *name, image_done_cb cb, void *arg)
{
    struct volume_op *op = op_new(is, name, arg);
    if (!op) {
        cb(arg, -ENOMEM, &no_memory);
        return;
    }
    op->done_cb = cb;
    struct volume *v = volume_find(is, op->info.name);
    op->rc =
        v ? not_busy(v, &op->err) : un_error_set(&op->err, -ENOENT, "no volume %s", op->info.name);
    if (op->rc < 0) {
        op_end_later(op);
        return;
    }
    op->volume = v;
    v->busy = true;
    op_store(op, STORE_WRITE, remove_run, remove_done);
}
