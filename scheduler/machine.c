/* machine.c - machine images, as the driver of services wants them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/endpoint.h"
#include "common/fault.h"
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

/* Each rule must be one endpoint that a machine can mean: it gets a virtual address for each host, and an
 * address for each is made ahead of the guest's question. */
static int check_egress(char *const *rules, struct un_error *err)
{
    for (char *const *rule = rules; rule && *rule; rule++) {
        struct un_endpoint to;
        int rc = un_endpoint_parse(*rule, strlen(*rule), true, &to, err);

        if (rc < 0) {
            return rc;
        }
        if (to.below || to.any_port) {
            return un_error_set(err, -EINVAL,
                                "egress: \"%s\": a machine image connects only to what is named in "
                                "full; name each host and port",
                                *rule);
        }
        if (to.is_address && strchr(to.host, ':')) {
            return un_error_set(err, -EINVAL,
                                "egress: \"%s\": the network of machine images is IPv4; allow the "
                                "host's name or an IPv4 address",
                                *rule);
        }
        if (to.is_address && (atoi(to.host) == 0 || atoi(to.host) == 127 || atoi(to.host) >= 224)) {
            return un_error_set(
                err, -EINVAL,
                "egress: \"%s\": to a machine this address is its own, or nobody's; "
                "allow a name",
                *rule);
        }
    }
    return 0;
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
    if (check_egress(config->egress, err) < 0) {
        return -EINVAL;
    }
    if (!flavor) {
        return un_error_set(err, -EINVAL, "machine: flavor: \"%s\" is none of %s", m->flavor,
                            hv_flavor_names());
    }
    return hv_cmdline_expand(flavor, m->append, &words, &cmdline, err);
}

const char *sched_machine_flavor(const struct function_config *config,
                                 const struct image_mapping *image)
{
    const char *said = config->machine.flavor;
    return *said || !image ? said : hv_flavor_detect(image->data, image->size)->name;
}

void machine_key_of(const struct function_version *v, char ret[MACHINE_KEY_SIZE])
{
    snprintf(ret, MACHINE_KEY_SIZE, "%s:%" PRIu64, v->name, v->id);
}

/* The images that a machine is made of stay in the cache while somebody may open them. */
struct machine_files {
    struct hv_machine_files base;
    struct image_mapping *image, *initrd, *disk;
};

static void files_free(struct hv_machine_files *f)
{
    struct machine_files *files = un_container_of(f, struct machine_files, base);

    image_unref(files->image);
    image_unref(files->initrd);
    image_unref(files->disk);
    free(files);
}

static struct image_mapping *ref_or_null(struct image_mapping *m)
{
    return m ? image_ref(m) : NULL;
}

static struct hv_machine_files *files_new(const struct machine_parts *p)
{
    struct machine_files *files = un_fault("machine.files") ? NULL : malloc(sizeof(*files));

    if (!files) {
        return NULL;
    }
    *files = (struct machine_files){.base = {.refs = 1, .free = files_free},
                                    .image = ref_or_null(p->image),
                                    .initrd = ref_or_null(p->initrd),
                                    .disk = ref_or_null(p->disk)};
    return &files->base;
}

static const char *format_of(const struct image_mapping *m)
{
    return m->size >= 4 && memcmp(m->data, "QFI\xfb", 4) == 0 ? "qcow2" : "raw";
}

static enum hv_machine_boot boot_of(enum image_kind kind, const struct image_mapping *m)
{
    if (kind == IMAGE_DISK) {
        return HV_BOOT_DISK;
    }
    return m->needs_loader ? HV_BOOT_LOADER : HV_BOOT_KERNEL;
}

static int path_of(const struct image_mapping *m, char *ret, size_t size, struct un_error *err)
{
    int rc = image_path(m, ret, size);
    return rc < 0 ? un_error_errno(err, rc, "the path of image %s", m->digest) : 0;
}

/* The disks besides the image: one that is read only, and volumes. */
static int add_disks(const struct machine_parts *p, struct machine_words *w, size_t *ret_count,
                     struct un_error *err)
{
    const struct machine_config *m = &p->version->config.machine;
    size_t n = 0;
    int rc = 0;

    if (p->disk) {
        rc = path_of(p->disk, w->disk_paths[n], sizeof(w->disk_paths[n]), err);
        w->disks[n] = (struct hv_machine_disk){
            .path = w->disk_paths[n], .format = format_of(p->disk), .read_only = true};
        n++;
    }
    for (size_t i = 0; rc == 0 && i < m->volume_count; i++, n++) {
        w->disks[n] = (struct hv_machine_disk){.path = w->disk_paths[n]};
        rc = volume_place(p->images, m->volumes[i], w->disk_paths[n], sizeof(w->disk_paths[n]),
                          &w->disks[n].format, err);
    }
    *ret_count = n;
    return rc;
}

int machine_config_of(const struct machine_parts *p, struct machine_words *words,
                      struct hv_machine_config *ret, struct un_error *err)
{
    const struct function_version *v = p->version;
    const struct machine_config *m = &v->config.machine;
    size_t disks = 0;
    int rc = path_of(p->image, words->path, sizeof(words->path), err);

    if (rc == 0 && p->initrd) {
        rc = path_of(p->initrd, words->initrd, sizeof(words->initrd), err);
    }
    rc = rc < 0 ? rc : add_disks(p, words, &disks, err);
    if (rc < 0) {
        return rc;
    }
    machine_key_of(v, words->key);
    *ret = (struct hv_machine_config){
        .key = words->key,
        .name = v->name,
        .image_path = words->path,
        .version = v->version,
        .proven = v->ready_us > 0,
        .image = p->image->data,
        .image_len = p->image->size,
        .boot = boot_of(v->kind, p->image),
        .format = format_of(p->image),
        .initrd_path = p->initrd ? words->initrd : NULL,
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
        .egress = v->config.egress,
        .volumes = words->disks,
        .volume_count = disks,
        .files = files_new(p),
    };
    return ret->files ? 0 : un_error_set(err, -ENOMEM, "out of memory");
}
