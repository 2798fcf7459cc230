/* container.h - a container image as a root file system and a program to start in it.
 *
 * Reads what `docker save`, podman, buildah and skopeo write: archives with a manifest.json, and OCI image
 * layouts as archives or directories. Its layers become one tree (layers.h); the blobs of an image that
 * names them by digest are held against it.
 */
#ifndef UNID_CLI_CONTAINER_CONTAINER_H
#define UNID_CLI_CONTAINER_CONTAINER_H

#include <limits.h>

#include "cli/container/layers.h"
#include "cli/container/manifest.h"

struct container {
    struct layers *layers;
    int fd; /* files' contents */
    json_t *config;
    struct container_settings settings; /* of `config` */
};

/* Reads what is at `path`, whole. Gives NULL when it is something else than an image (free with container_free). -EINVAL
 * with what is wrong, -EFBIG, -ENOMEM, or as open(2) and pwrite(2). */
int container_open(const char *path, struct container **ret, struct un_error *err);
void container_free(struct container *c); /* NULL allowed */

/* Completes a function's configuration, in which what a user has said stands already: the program, arguments, environment,
 * working directory, and interface and port. `asked`: the program that is wanted instead of the image's, NULL
 * if none. Gives the program's path, and a line for people on what was taken from the image (free with free()); what
 * may go wrong is added to `warnings`, texts. -EINVAL with what has to be said, -ENOMEM. */
struct container_start {
    const char *asked;
    json_t *config, *warnings;
    char program[PATH_MAX];
    char *line;
};
int container_settle(struct container *c, struct container_start *start, struct un_error *err);

#endif
