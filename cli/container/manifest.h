/* manifest.h - what a container image says of itself: which blobs are its layers, and how it is started.
 *
 * Two forms are read: the OCI Image Format Specification (image layout, index, manifest, config; Docker's
 * own media types have the same members), and the manifest.json of `docker save`. Only the members that
 * matter here are looked at. Pure.
 */
#ifndef UNID_CLI_CONTAINER_MANIFEST_H
#define UNID_CLI_CONTAINER_MANIFEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum { CONTAINER_NAME_SIZE = 512, CONTAINER_HEX_SIZE = 65 };

/* A file of the image. */
struct container_blob {
    char name[CONTAINER_NAME_SIZE];  /* in the archive or layout: "blobs/sha256/..." */
    char sha256[CONTAINER_HEX_SIZE]; /* "": nobody says */
    int64_t size;                    /* -1: nobody says */
};

struct container_manifest {
    struct container_blob config;
    struct container_blob *layers; /* the lowest first */
    size_t count;
};
void container_manifest_done(struct container_manifest *m);

/* All: -EINVAL with what is wrong, -ENOMEM. */

/* Whether it has the form of Docker's manifest.json; many files have that name. */
bool container_is_saved(const json_t *root);
/* Of Docker's manifest.json. An archive of several images is refused, with their names. */
int container_read_saved(const json_t *root, struct container_manifest *ret, struct un_error *err);

bool container_is_index(const json_t *root);
/* The one manifest, or further index, of an OCI index that is for machines here. */
int container_choose(const json_t *index, struct container_blob *ret, struct un_error *err);
/* Of an OCI manifest. */
int container_read_manifest(const json_t *root, struct container_manifest *ret,
                            struct un_error *err);

/* How a container of it would be started. Empty where it does not say. */
struct container_settings {
    json_t *entrypoint, *cmd; /* lists of strings */
    json_t *env;              /* an object of strings */
    json_t *ports;            /* TCP, ascending integers */
    const char *workdir;      /* absolute; "" none. Borrowed from the configuration */
};
void container_settings_done(struct container_settings *s);
/* Of an image's configuration, which is kept by the caller. One for another kind of machine is refused. */
int container_read_settings(const json_t *config, struct container_settings *ret,
                            struct un_error *err);

#endif
