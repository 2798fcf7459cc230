/* program.c - see program.h. */
#include "prepare/program.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/elf.h"
#include "prepare/image.h"
#include "prepare/rootfs.h"

struct job {
    const struct prepare_spec *spec;
    struct prepare_result *ret;
    struct image_front front;
    struct rootfs *fs;
    char program[4096];
};

static int add_program(struct job *j, struct un_error *err)
{
    const struct prepare_spec *spec = j->spec;
    const struct rootfs_meta meta = {.mode = 0755};
    snprintf(j->program, sizeof j->program, "%s", spec->name ? spec->name : "/program");
    int rc = rootfs_file_begin(j->fs, j->program, &meta, err);
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

static int prepare(struct job *j, struct un_error *err)
{
    uint64_t size;
    int rc = image_front_new(j->spec->libos, j->spec->libos_size, &j->front, err);
    if (rc == 0) {
        rc = rootfs_new(j->spec->fd, j->front.size, &j->fs, err);
    }
    if (rc == 0) {
        rc = add_program(j, err);
    }
    if (rc == 0) {
        rc = rootfs_finish(j->fs, j->program, &size, err);
    }
    if (rc == 0) {
        rc = write_front(j, size, err);
    }
    if (rc == 0) {
        j->ret->size = j->front.size + size;
    }
    return rc;
}

int prepare_program(const struct prepare_spec *spec, struct prepare_result *ret,
                    struct un_error *err)
{
    struct job j = {.spec = spec, .ret = ret};
    *ret = (struct prepare_result){0};
    int rc = prepare(&j, err);
    rootfs_free(j.fs);
    image_front_done(&j.front);
    return rc;
}
