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
                                              .port = "65535",
                                              .tsc_khz = "9999999"};
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

int machine_config_of(const struct sched_call *c, struct machine_words *words,
                      struct hv_machine_config *ret, struct un_error *err)
{
    const struct function_version *v = c->version;
    const struct machine_config *m = &v->config.machine;
    bool qcow2 = c->image->size >= 4 && memcmp(c->image->data, "QFI\xfb", 4) == 0;
    int rc = image_path(c->image, words->path, sizeof(words->path));

    if (rc < 0) {
        return un_error_errno(err, rc, "the image's path");
    }
    snprintf(words->key, sizeof(words->key), "%s:%" PRIu64, v->name, v->id);
    *ret = (struct hv_machine_config){
        .key = words->key,
        .name = v->name,
        .image_path = words->path,
        .image = c->image->data,
        .image_len = c->image->size,
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
    };
    return 0;
}
