/* machine.c - machine images, as the driver of services wants them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/bytes.h"
#include "hypervisor/flavor.h"
#include "hypervisor/machine.h"
#include "scheduler/scheduler_impl.h"

unsigned config_places(const struct function_config *config)
{
    uint64_t places = config->concurrency;

    if (config->machine.set && config->machine.service) {
        places *= config->machine.max_instances;
    }
    return places > LIMIT_FUNCTION_CONCURRENCY ? LIMIT_FUNCTION_CONCURRENCY : (unsigned)places;
}

int sched_check_machine(const struct function_config *config, struct un_error *err)
{
    const struct machine_config *m = &config->machine;
    const struct hv_flavor *flavor = hv_flavor_find(m->flavor[0] ? m->flavor : "plain");
    static const struct hv_net_words words = {.ip = "255.255.255.255",
                                              .prefix = "32",
                                              .netmask = "255.255.255.255",
                                              .gateway = "255.255.255.255",
                                              .dns = "255.255.255.255",
                                              .mac = "ff:ff:ff:ff:ff:ff",
                                              .port = "65535"};
    un_autobuf struct un_buf cmdline = {0};

    if (!m->set) {
        return 0;
    }
    if (!flavor) {
        return un_error_set(err, -EINVAL, "machine: flavor: \"%s\" is none of %s", m->flavor,
                            hv_flavor_names());
    }
    return hv_cmdline_expand(flavor, m->append, &words, &cmdline, err);
}

void machine_key_of(const struct function_version *v, char ret[MACHINE_KEY_SIZE])
{
    snprintf(ret, MACHINE_KEY_SIZE, "%s:%" PRIu64, v->name, v->id);
}

int machine_config_of(const struct function_version *v, const struct image_mapping *image,
                      struct machine_words *words, struct hv_machine_config *ret,
                      struct un_error *err)
{
    const struct machine_config *m = &v->config.machine;
    bool qcow2 = image->size >= 4 && memcmp(image->data, "QFI\xfb", 4) == 0;
    int rc = image_path(image, words->path, sizeof(words->path));

    if (rc < 0) {
        return un_error_errno(err, rc, "the image's path");
    }
    machine_key_of(v, words->key);
    *ret = (struct hv_machine_config){
        .key = words->key,
        .name = v->name,
        .image_path = words->path,
        .version = v->version,
        .proven = v->ready_us > 0,
        .image = image->data,
        .image_len = image->size,
        .disk = v->kind == IMAGE_DISK,
        .format = qcow2 ? "qcow2" : "raw",
        .flavor = m->flavor[0] ? m->flavor : NULL,
        .append = m->append,
        .mem_bytes = (uint64_t)v->config.memory_mib << 20,
        .port = m->port,
        .per_request = !m->service,
        .concurrency = v->config.concurrency,
        .min_instances = m->service ? m->min_instances : 0,
        .max_instances = m->service ? m->max_instances : v->config.concurrency,
        .idle_timeout_ms = m->idle_timeout_ms,
        .ready_timeout_ms = m->ready_timeout_ms,
        .ready_console = m->ready_console,
    };
    return 0;
}
