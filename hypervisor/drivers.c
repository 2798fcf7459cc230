/* drivers.c - the table of drivers, and the loading of those that are modules (hv_driver_find).
 *
 * To add a driver: a row below. A driver that needs a large library is a module: a shared object with
 * the symbol `unid_hv_driver`, looked for in $UNID_MODULE_DIR, in ../lib/unid beside the directory of
 * the program (build tree, or a moved installation), and in the installation's library directory. A
 * module is never unloaded, as libraries with threads of their own cannot be.
 */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "hypervisor/fake/fake.h"
#include "hypervisor/hv.h"

#define MODULE_SYMBOL "unid_hv_driver"

struct driver {
    const char *name;
    const struct hv_driver_ops *ops; /* NULL for a module that is not loaded */
    const char *module;
};

static struct driver drivers[] = {
    {.name = "fake", .ops = &fake_driver_ops},
    {.name = "libvirt", .module = "unid-libvirt.so"},
};

/* <directory of the program>/../lib/unid; false when it cannot be told. */
static bool beside_program(char *out, size_t size)
{
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    if (n <= 0) {
        return false;
    }
    exe[n] = '\0';
    *strrchr(exe, '/') = '\0';
    return (size_t)snprintf(out, size, "%s/../lib/unid", exe) < size;
}

static const struct hv_driver_ops *load_from(const char *dir, const char *module,
                                             struct un_error *err)
{
    char path[PATH_MAX];
    if (!dir || (size_t)snprintf(path, sizeof(path), "%s/%s", dir, module) >= sizeof(path) ||
        access(path, F_OK) < 0) {
        return NULL;
    }
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const struct hv_driver_ops *ops = handle ? dlsym(handle, MODULE_SYMBOL) : NULL;
    if (!ops) {
        un_error_set(err, -ENOENT, "load %s: %s", path, dlerror());
    }
    return ops;
}

static const struct hv_driver_ops *load(const char *module, struct un_error *err)
{
    char beside[PATH_MAX];
    const char *dirs[] = {getenv("UNID_MODULE_DIR"),
                          beside_program(beside, sizeof(beside)) ? beside : NULL, UNID_MODULE_DIR};
    un_error_set(err, -ENOENT, "the module %s is not installed in %s", module, UNID_MODULE_DIR);
    for (size_t i = 0; i < UN_ARRAY_SIZE(dirs); i++) {
        const struct hv_driver_ops *ops = load_from(dirs[i], module, err);
        if (ops) {
            return ops;
        }
    }
    return NULL;
}

const struct hv_driver_ops *hv_driver_find(const char *name, struct un_error *err)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(drivers); i++) {
        struct driver *d = &drivers[i];
        if (strcmp(d->name, name) == 0) {
            if (!d->ops) {
                d->ops = load(d->module, err);
            }
            return d->ops;
        }
    }
    un_error_set(err, -ENOENT, "there is no driver \"%s\"", name);
    return NULL;
}
