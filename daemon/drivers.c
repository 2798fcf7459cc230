/* drivers.c - see drivers.h. */
#include "daemon/drivers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"

/* QEMU's translation runs our measuring loop at 150,000 to 370,000 rounds a millisecond and starts a
 * guest in 1 to 4 ms (docs/performance.md). A native driver that is slower than this is emulating. */
enum { FAST_OPS_PER_MS = 100000, FAST_START_US = 20000 };

bool drivers_is_fast(const struct hv_probe *probe)
{
    return probe->usable && probe->guest_ops_per_ms >= FAST_OPS_PER_MS &&
           probe->start_us <= FAST_START_US;
}

static int open_one(const char *name, const struct drivers_spec *how, struct drivers *set,
                    struct un_error *err)
{
    const struct config *config = how->config;
    const struct hv_driver_ops *ops = hv_driver_find(name, err);
    if (!ops) {
        return un_error_context(err, "driver %s", name);
    }
    struct hv_driver_spec spec = {.loop = how->loop,
                                  .join_net = how->join_net,
                                  .join_arg = how->join_arg,
                                  .state_dir = config->state_dir,
                                  .runtime_dir = config->runtime_dir,
                                  .libvirt_uri = config->libvirt_uri,
                                  .accelerator = config->accelerator};
    char cache[4096];
    snprintf(cache, sizeof(cache), "%s/cache", config->state_dir);
    spec.cache_dir = cache;
    int rc = ops->open(&spec, &set->items[set->count], err);
    if (rc < 0) {
        return un_error_context(err, "driver %s", name);
    }
    set->count++;
    return 0;
}

struct measurement {
    struct un_loop *loop;
    struct hv_probe probe;
    bool over;
};

static void on_probe(void *arg, const struct hv_probe *probe)
{
    struct measurement *m = arg;
    m->probe = *probe;
    m->over = true;
    un_loop_stop(m->loop);
}

static bool is_fast(struct un_loop *loop, struct hv_driver *driver)
{
    struct measurement m = {.loop = loop};
    hv_driver_ops(driver)->probe(driver, on_probe, &m);
    while (!m.over) {
        un_loop_run(loop);
    }
    bool fast = drivers_is_fast(&m.probe);
    un_log(UN_LOG_INFO, "measured a driver", "driver", hv_driver_ops(driver)->name, "chosen",
           fast ? "yes" : "no", "detail", m.probe.detail);
    return fast;
}

static void close_last(struct drivers *set)
{
    struct hv_driver *driver = set->items[--set->count];
    hv_driver_ops(driver)->close(driver);
}

/* The native driver if it is fast, then libvirt, which is loaded only when it is needed. */
static int open_auto(const struct drivers_spec *spec, struct drivers *set, struct un_error *err)
{
    if (open_one("kvm", spec, set, err) < 0) {
        un_log(UN_LOG_INFO, "the native driver cannot be used", "error", err->text);
    } else if (!is_fast(spec->loop, set->items[0])) {
        close_last(set);
    }
    int rc = open_one("libvirt", spec, set, err);
    return set->count > 0 ? 0 : rc;
}

int drivers_open(const struct drivers_spec *spec, struct drivers *ret, struct un_error *err)
{
    *ret = (struct drivers){.count = 0};
    if (strcmp(spec->config->driver, "auto") == 0) {
        return open_auto(spec, ret, err);
    }
    return open_one(spec->config->driver, spec, ret, err);
}

int drivers_open_one(const char *name, const struct drivers_spec *spec, struct drivers *ret,
                     struct un_error *err)
{
    *ret = (struct drivers){.count = 0};
    return open_one(name, spec, ret, err);
}

void drivers_close(struct drivers *set)
{
    while (set->count > 0) {
        close_last(set);
    }
}
