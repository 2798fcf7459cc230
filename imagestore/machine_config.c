/* machine_config.c - see machine_config.h. */
#include "imagestore/machine_config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/limits.h"

void machine_config_init(struct machine_config *m)
{
    *m = (struct machine_config){.port = 80,
                                 .max_instances = 1,
                                 .idle_timeout_ms = DEFAULT_MACHINE_IDLE_TIMEOUT_MS,
                                 .ready_timeout_ms = DEFAULT_MACHINE_READY_TIMEOUT_MS};
}

void machine_config_done(struct machine_config *m)
{
    free(m->append);
    free(m->ready_console);
    m->append = m->ready_console = NULL;
}

static int parse_numbers(const json_t *object, struct machine_config *m, struct un_error *err)
{
    int64_t port = m->port, min = m->min_instances, max = m->max_instances;
    int64_t idle = m->idle_timeout_ms, ready = m->ready_timeout_ms;
    int rc = un_json_get_int(object, "port", 1, UINT16_MAX, &port, err);
    rc = rc < 0 ? rc : un_json_get_int(object, "min_instances", 0, LIMIT_MACHINES, &min, err);
    rc = rc < 0 ? rc : un_json_get_int(object, "max_instances", 1, LIMIT_MACHINES, &max, err);
    rc = rc < 0 ? rc
                : un_json_get_int(object, "idle_timeout_ms", 100, LIMIT_MACHINE_IDLE_TIMEOUT_MS,
                                  &idle, err);
    rc = rc < 0 ? rc
                : un_json_get_int(object, "ready_timeout_ms", 100, LIMIT_FUNCTION_TIMEOUT_MS,
                                  &ready, err);
    if (rc < 0) {
        return rc;
    }
    if (min > max) {
        return un_error_set(err, -EINVAL, "min_instances: %lld is more than max_instances, %lld",
                            (long long)min, (long long)max);
    }
    m->port = (uint16_t)port;
    m->min_instances = (uint32_t)min;
    m->max_instances = (uint32_t)max;
    m->idle_timeout_ms = (uint32_t)idle;
    m->ready_timeout_ms = (uint32_t)ready;
    return 0;
}

static bool has_control(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            return true;
        }
    }
    return false;
}

static int parse_words(const json_t *object, struct machine_config *m, struct un_error *err)
{
    const char *flavor = NULL, *append = NULL;
    int rc = un_json_get_str(object, "flavor", &flavor, err);
    rc = rc < 0 ? rc : un_json_get_str(object, "append", &append, err);
    rc = rc < 0 ? rc : un_json_get_bool(object, "service", &m->service, err);
    if (rc < 0) {
        return rc;
    }
    if (flavor && strlen(flavor) >= sizeof(m->flavor)) {
        return un_error_set(err, -EINVAL, "flavor: \"%.40s\" is not known", flavor);
    }
    if (append && strlen(append) > LIMIT_CMDLINE_BYTES) {
        return un_error_set(err, -EINVAL, "append: longer than %d bytes", LIMIT_CMDLINE_BYTES);
    }
    if (append &&
        has_control(append)) { /* no kernel's command line has any, nor can libvirt give one */
        return un_error_set(err, -EINVAL, "append: must be one line, without control characters");
    }
    snprintf(m->flavor, sizeof(m->flavor), "%s", flavor ? flavor : "");
    if (append && *append && !(m->append = strdup(append))) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    return 0;
}

static int parse_ready(const json_t *object, struct machine_config *m, struct un_error *err)
{
    const char *text = NULL;
    int rc = un_json_get_str(object, "ready_console", &text, err);
    if (rc < 0) {
        return rc;
    }
    if (text && (strlen(text) > LIMIT_READY_CONSOLE_BYTES || strpbrk(text, "\r\n"))) {
        return un_error_set(err, -EINVAL,
                            "ready_console: must be within one line, at most %d bytes",
                            LIMIT_READY_CONSOLE_BYTES);
    }
    if (text && *text && !(m->ready_console = strdup(text))) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    return 0;
}

/* A further image, by its digest. */
static int parse_digest(const json_t *object, const char *key, char ret[IMAGE_DIGEST_SIZE],
                        struct un_error *err)
{
    const char *digest = NULL;
    int rc = un_json_get_str(object, key, &digest, err);
    if (rc < 0 || !digest) {
        return rc;
    }
    if (!image_digest_valid(digest)) {
        return un_error_set(err, -EINVAL, "%s: must be \"sha256:\" and 64 lower-case hex digits",
                            key);
    }
    memcpy(ret, digest, IMAGE_DIGEST_SIZE);
    return 0;
}

static int parse_volume(const json_t *item, size_t i, struct machine_config *m,
                        struct un_error *err)
{
    const char *name = json_string_value(item);
    if (!name || strlen(name) != json_string_length(item) || !volume_name_valid(name)) {
        return un_error_set(err, -EINVAL, "volumes[%zu]: must be a volume's name", i);
    }
    for (size_t k = 0; k < m->volume_count; k++) {
        if (strcmp(m->volumes[k], name) == 0) {
            return un_error_set(err, -EINVAL, "volumes: %s is there twice", name);
        }
    }
    snprintf(m->volumes[m->volume_count++], VOLUME_NAME_SIZE, "%s", name);
    return 0;
}

static int parse_volumes(const json_t *object, struct machine_config *m, struct un_error *err)
{
    const json_t *list = json_object_get(object, "volumes"), *item;
    size_t i;
    if (!list) {
        return 0;
    }
    if (!json_is_array(list) || json_array_size(list) > MACHINE_VOLUMES_MAX) {
        return un_error_set(err, -EINVAL, "volumes: must be a list of at most %d names",
                            MACHINE_VOLUMES_MAX);
    }
    json_array_foreach(list, i, item)
    {
        int rc = parse_volume(item, i, m, err);
        if (rc < 0) {
            return rc;
        }
    }
    if (m->volume_count > 0 && (!m->service || m->max_instances > 1)) {
        return un_error_set(err, -EINVAL,
                            "volumes: one machine at a time can write to a disk, so this must be a "
                            "service (service: true, --service) with max_instances 1");
    }
    return 0;
}

static int parse_disks(const json_t *object, struct machine_config *m, struct un_error *err)
{
    int rc = parse_digest(object, "initrd", m->initrd, err);
    rc = rc < 0 ? rc : parse_digest(object, "disk", m->disk, err);
    return rc < 0 ? rc : parse_volumes(object, m, err);
}

int machine_config_parse(const json_t *object, struct machine_config *ret, struct un_error *err)
{
    static const char *const keys[] = {"port",
                                       "flavor",
                                       "append",
                                       "service",
                                       "min_instances",
                                       "max_instances",
                                       "idle_timeout_ms",
                                       "ready_timeout_ms",
                                       "initrd",
                                       "disk",
                                       "volumes",
                                       "ready_console",
                                       NULL};
    struct machine_config m;
    machine_config_init(&m);
    if (object) {
        m.set = true;
        int rc = json_is_object(object) ? un_json_only_keys(object, keys, err)
                                        : un_error_set(err, -EINVAL, "must be an object");
        rc = rc < 0 ? rc : parse_numbers(object, &m, err);
        rc = rc < 0 ? rc : parse_words(object, &m, err);
        rc = rc < 0 ? rc : parse_ready(object, &m, err);
        rc = rc < 0 ? rc : parse_disks(object, &m, err);
        if (rc < 0) {
            machine_config_done(&m);
            un_error_context(err, "machine");
            return rc;
        }
    }
    *ret = m;
    return 0;
}

static json_t *volumes_to_json(const struct machine_config *m)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < m->volume_count; i++) {
        if (json_array_append_new(list, json_string(m->volumes[i])) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

json_t *machine_config_to_json(const struct machine_config *m)
{
    json_t *object = json_pack(
        "{s:i, s:s, s:s, s:b, s:i, s:i, s:i, s:i, s:o, s:s}", "port", (int)m->port, "flavor",
        m->flavor, "append", m->append ? m->append : "", "service", m->service, "min_instances",
        (int)m->min_instances, "max_instances", (int)m->max_instances, "idle_timeout_ms",
        (int)m->idle_timeout_ms, "ready_timeout_ms", (int)m->ready_timeout_ms, "volumes",
        volumes_to_json(m), "ready_console", m->ready_console ? m->ready_console : "");
    if (object &&
        ((m->initrd[0] && json_object_set_new(object, "initrd", json_string(m->initrd)) < 0) ||
         (m->disk[0] && json_object_set_new(object, "disk", json_string(m->disk)) < 0))) {
        json_decref(object);
        return NULL;
    }
    return object;
}
