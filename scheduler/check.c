/* check.c - what a function needs that no time brings: asked when it is deployed, and again by each call, as
 * this daemon may have less than the one that it was deployed at. */
#include <errno.h>

#include "scheduler/scheduler_impl.h"

int sched_can_run(const struct scheduler *s, enum image_kind kind, struct un_error *err)
{
    if (kind == IMAGE_SDK || image_kind_is_linux(kind)) {
        return 0;
    }
    for (unsigned d = 0; d < s->driver_count; d++) {
        if (driver_runs_machines(&s->drivers[d])) {
            return 0;
        }
    }
    return un_error_set(
        err, -ENOTSUP,
        "an image of kind %s cannot run here: this daemon runs no machine images, "
        "since libvirt's QEMU driver is missing or machines.network is none; programs, "
        "and images linked with the guest SDK (unid-cc), can run",
        image_kind_name(kind));
}

int sched_check_memory(const struct scheduler *s, uint32_t memory_mib, struct un_error *err)
{
    if (admission_class(memory_mib, s->set.shell_mib, s->set.memory_mib) >= 0) {
        return 0;
    }
    return un_error_set(err, -EINVAL,
                        "the function wants %u MiB, and all VMs together may have %llu; deploy it "
                        "with less memory or raise the daemon's memory_mib",
                        memory_mib, (unsigned long long)s->set.memory_mib);
}

int sched_check_config(const struct scheduler *s, const struct function_config *config,
                       struct un_error *err)
{
    int rc = sched_check_memory(s, config->memory_mib, err);
    return rc < 0 ? rc : sched_check_machine(config, err);
}
