/* machine_config.h - what a function's configuration says of its machine: the JSON object "machine".
 * For machine images only. */
#ifndef UNID_IMAGESTORE_MACHINE_CONFIG_H
#define UNID_IMAGESTORE_MACHINE_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

enum { MACHINE_FLAVOR_SIZE = 16 };

struct machine_config {
    bool set; /* the configuration has one, or the defaults for a machine image were put in */
    uint16_t port;
    char flavor[MACHINE_FLAVOR_SIZE]; /* "": what the image says of itself */
    char *append;                     /* owned; NULL: nothing */
    bool service;                     /* else a machine for each request */
    uint32_t min_instances, max_instances;
    uint32_t idle_timeout_ms, ready_timeout_ms;
    char *ready_console; /* owned; NULL: the port says when it is ready */
};

void machine_config_init(struct machine_config *m);
void machine_config_done(struct machine_config *m);

/* Reads the object over the defaults; NULL: nothing is said. On success what is owned is `ret`'s
 * (machine_config_done). -EINVAL with the key and the reason, -ENOMEM. */
int machine_config_parse(const json_t *object, struct machine_config *ret, struct un_error *err);

/* The same object, with every key. NULL when out of memory. */
json_t *machine_config_to_json(const struct machine_config *m);

#endif
