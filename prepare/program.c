/* program.c - see program.h. */
#include "prepare/program.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/elf.h"
#include "common/limits.h"
#include "prepare/check.h"
#include "prepare/image.h"
#include "prepare/report.h"
#include "prepare/rootfs.h"
#include "prepare/tar.h"

/* Memory beyond the image and what is loaded: page tables, the stack, the first heap; and room for
 * the work of an ordinary program. */
#define MEMORY_OVERHEAD (4ull << 20)
#define MEMORY_MARGIN   (128ull << 20)
#define MEMORY_STEP     (2ull << 20)

extern const uint8_t prepare_libos[], prepare_libos_end[]; /* libos.S */

struct job {
    const struct prepare_spec *spec;
    struct prepare_result *ret;
    struct image_front front;
    struct rootfs *fs;
    struct tar_result tar;
    struct check check;
};

static uint64_t step_up(uint64_t bytes)
{
    return (bytes + MEMORY_STEP - 1) / MEMORY_STEP * MEMORY_STEP;
}

/* A program without a root file system. */
static int add_program(struct job *j, struct un_error *err)
{
    const struct prepare_spec *spec = j->spec;
    const struct rootfs_meta meta = {.mode = 0755};
    snprintf(j->tar.program, sizeof j->tar.program, "%s", spec->name ? spec->name : "/program");
    int rc = rootfs_file_begin(j->fs, j->tar.program, &meta, err);
    if (rc == 0) {
        rc = rootfs_file_write(j->fs, 0, spec->data, spec->size, err);
    }
    return rc < 0 ? rc : rootfs_file_end(j->fs, spec->size, err);
}

static int write_front(struct job *j, uint64_t rootfs_size, struct un_error *err)
{
    image_front_set(&j->front, rootfs_size);
    ssize_t n = pwrite(j->spec->fd, j->front.bytes, j->front.size, 0);
    if (n < 0 || (size_t)n != j->front.size) {
        return un_error_errno(err, n < 0 ? -errno : -ENOSPC, "write prepared image");
    }
    return 0;
}

/* The first of the problems as the error, and how many there are. */
static int judge(struct job *j, struct un_error *err)
{
    size_t count = json_array_size(j->check.problems);
    if (count == 0) {
        return 0;
    }
    const char *first = json_string_value(json_array_get(j->check.problems, 0));
    return count == 1 ? un_error_set(err, -EINVAL, "%s", first)
                      : un_error_set(err, -EINVAL, "%s (and %zu more problems)", first, count - 1);
}

static int build(struct job *j, struct un_error *err)
{
    const struct prepare_spec *spec = j->spec;
    int rc = spec->libos
                 ? image_front_new(spec->libos, spec->libos_size, &j->front, err)
                 : image_front_new(prepare_libos, (size_t)(prepare_libos_end - prepare_libos),
                                   &j->front, err);
    if (rc == 0) {
        rc = rootfs_new(spec->fd, j->front.size, &j->fs, err);
    }
    if (rc < 0) {
        return rc;
    }
    rc = un_elf_is(spec->data, spec->size) ? add_program(j, err)
                                           : tar_read(spec->data, spec->size, j->fs, &j->tar, err);
    if (rc == 0 && spec->program) {
        snprintf(j->tar.program, sizeof j->tar.program, "%s", spec->program);
    }
    return rc;
}

static int finish(struct job *j, struct un_error *err)
{
    struct prepare_result *ret = j->ret;
    uint64_t size;
    int rc = rootfs_finish(j->fs, j->tar.program, &size, err);
    if (rc == 0) {
        rc = write_front(j, size, err);
    }
    if (rc < 0) {
        return rc;
    }
    ret->size = j->front.size + size;
    ret->memory_least = step_up(UNID_LIBOS_END + size + j->check.load_bytes + MEMORY_OVERHEAD);
    ret->memory_advised = step_up(ret->memory_least + MEMORY_MARGIN);
    return 0;
}

static int prepare(struct job *j, struct un_error *err)
{
    int rc = build(j, err);
    if (rc == 0) {
        rc = check_program(j->fs, j->tar.program, &j->check, err);
    }
    if (rc < 0) {
        return rc;
    }
    rc = judge(j, err);
    if (rc == 0) {
        rc = finish(j, err);
    }
    const struct report_source source = {.program = j->tar.program,
                                         .fs = j->fs,
                                         .check = &j->check,
                                         .left_out = j->tar.left_out,
                                         .memory_least = j->ret->memory_least,
                                         .memory_advised = j->ret->memory_advised};
    j->ret->report = report_new(&source);
    if (!j->ret->report && rc == 0) {
        rc = un_error_set(err, -ENOMEM, "out of memory");
    }
    return rc;
}

void prepare_id(char ret[PREPARE_ID_SIZE])
{
    /* FNV-1a of the library OS tells one build from another; it defends against nothing. */
    static uint64_t hash; /* 0: not known yet; every thread finds the same */
    if (__atomic_load_n(&hash, __ATOMIC_RELAXED) == 0) {
        uint64_t h = 14695981039346656037u;
        for (const uint8_t *p = prepare_libos; p < prepare_libos_end; p++) {
            h = (h ^ *p) * 1099511628211u;
        }
        __atomic_store_n(&hash, h, __ATOMIC_RELAXED);
    }
    snprintf(ret, PREPARE_ID_SIZE, "preparer %d, library OS %016" PRIx64, PREPARE_VERSION,
             __atomic_load_n(&hash, __ATOMIC_RELAXED));
}

int prepare_program(const struct prepare_spec *spec, struct prepare_result *ret,
                    struct un_error *err)
{
    struct job j = {.spec = spec, .ret = ret};
    *ret = (struct prepare_result){0};
    int rc = prepare(&j, err);
    check_done(&j.check);
    rootfs_free(j.fs);
    image_front_done(&j.front);
    return rc;
}
