/* machine_config.h - what a function's configuration says of its machine: the JSON object "machine".
 * For machine images only. */
#ifndef UNID_IMAGESTORE_MACHINE_CONFIG_H
#define UNID_IMAGESTORE_MACHINE_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "imagestore/volume.h"

enum { MACHINE_FLAVOR_SIZE = 16, MACHINE_VOLUMES_MAX = 3 };

struct machine_config {
    bool set; /* the configuration has one, or the defaults for a machine image were put in */
    uint16_t port;
    char flavor[MACHINE_FLAVOR_SIZE]; /* "": what the image says of itself */
    char *append;                     /* owned; NULL: nothing */
    bool service;                     /* else a machine for each request */
    uint32_t min_instances, max_instances;
    uint32_t idle_timeout_ms, ready_timeout_ms;
    char *ready_console;            /* owned; NULL: the port says when it is ready */
    char initrd[IMAGE_DIGEST_SIZE]; /* of an image of kind initrd, for a kernel; "": none */
    char disk[IMAGE_DIGEST_SIZE];   /* of a disk image that a kernel gets, read-only; "": none */
    /* By name, in the order in which they are attached behind the image's disk. Only of a service of at
     * most one machine, as one machine at a time can write to a disk. */
    char volumes[MACHINE_VOLUMES_MAX][VOLUME_NAME_SIZE];
    size_t volume_count;
};

void machine_config_init(struct machine_config *m);
void machine_config_done(struct machine_config *m);

/* Reads the object over the defaults; NULL: nothing is said. On success what is owned is `ret`'s
 * (machine_config_done). -EINVAL with the key and the reason, -ENOMEM. */
int machine_config_parse(const json_t *object, struct machine_config *ret, struct un_error *err);

/* The same object, with every key but images that it has not. NULL when out of memory. */
json_t *machine_config_to_json(const struct machine_config *m);

#endif
