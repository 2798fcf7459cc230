/* module.c - see module.h. */
#include "hypervisor/module.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "hypervisor/machine.h"

/* --- finding the file ------------------------------------------------------------------------- */

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

static const struct hv_driver_ops *load_from(const char *dir, const char *file,
                                             struct un_error *err)
{
    char path[PATH_MAX];
    if (!dir || (size_t)snprintf(path, sizeof(path), "%s/%s", dir, file) >= sizeof(path) ||
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

const struct hv_driver_ops *module_load(const char *file, struct un_error *err)
{
    char beside[PATH_MAX];
    const char *dirs[] = {getenv("UNID_MODULE_DIR"),
                          beside_program(beside, sizeof(beside)) ? beside : NULL, UNID_MODULE_DIR};
    un_error_set(err, -ENOENT, "the module %s is not installed in %s", file, UNID_MODULE_DIR);
    for (size_t i = 0; i < UN_ARRAY_SIZE(dirs); i++) {
        const struct hv_driver_ops *ops = load_from(dirs[i], file, err);
        if (ops) {
            return ops;
        }
    }
    return NULL;
}

/* --- the proxy -------------------------------------------------------------------------------- */

struct proxy {
    struct hv_driver_base base;
    const char *file;
    struct hv_driver_spec spec; /* its strings are the proxy's own */
    char *mark;                 /* a file that exists while the module is open */
    struct hv_driver *real;     /* NULL until it is needed */
    /* A probe that failed before the module was there, on its way to its asker. */
    struct un_post failure;
    struct hv_probe failed_probe;
    void (*failed_cb)(void *arg, const struct hv_probe *probe);
    void *failed_arg;
};

static void proxy_free(struct proxy *p)
{
    un_loop_unpost(p->spec.loop, &p->failure);
    free((char *)p->spec.state_dir);
    free((char *)p->spec.runtime_dir);
    free((char *)p->spec.libvirt_uri);
    free((char *)p->spec.accelerator);
    free(p->mark);
    free(p);
}

static int ensure_open(struct proxy *p, struct un_error *err)
{
    if (p->real) {
        return 0;
    }
    const struct hv_driver_ops *ops = module_load(p->file, err);
    if (!ops) {
        return -ENOENT;
    }
    un_autoclose int fd = open(p->mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return un_error_errno(err, -errno, "make %s", p->mark);
    }
    return ops->open(&p->spec, &p->real, err);
}

/* strdup that lets NULL through; false when out of memory. */
static bool copy_string(const char *from, const char **to)
{
    *to = from ? strdup(from) : NULL;
    return !from || *to;
}

static int proxy_open(const char *file, const struct hv_driver_ops *ops,
                      const struct hv_driver_spec *spec, struct hv_driver **ret,
                      struct un_error *err)
{
    struct proxy *p = calloc(1, sizeof(*p));
    if (!p) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    p->base.ops = ops;
    p->file = file;
    p->spec.loop = spec->loop;
    p->spec.join_net = spec->join_net;
    p->spec.join_arg = spec->join_arg;
    bool copied = copy_string(spec->state_dir, &p->spec.state_dir) &&
                  copy_string(spec->runtime_dir, &p->spec.runtime_dir) &&
                  copy_string(spec->libvirt_uri, &p->spec.libvirt_uri) &&
                  copy_string(spec->accelerator, &p->spec.accelerator) &&
                  asprintf(&p->mark, "%s/%s-in-use", spec->state_dir, ops->name) >= 0;
    int rc = copied ? 0 : un_error_set(err, -ENOMEM, "out of memory");
    if (rc == 0 && access(p->mark, F_OK) == 0) {
        rc = ensure_open(p, err);
    }
    if (rc < 0) {
        proxy_free(p);
        return rc;
    }
    *ret = (struct hv_driver *)p;
    return 0;
}

static void proxy_close(struct hv_driver *drv)
{
    struct proxy *p = (struct proxy *)drv;
    if (!p) {
        return;
    }
    if (p->real) {
        hv_driver_ops(p->real)->close(p->real);
        unlink(p->mark);
    }
    proxy_free(p);
}

static void tell_failure(void *arg)
{
    struct proxy *p = arg;
    p->failed_cb(p->failed_arg, &p->failed_probe);
}

static void proxy_probe(struct hv_driver *drv, void (*cb)(void *arg, const struct hv_probe *probe),
                        void *arg)
{
    struct proxy *p = (struct proxy *)drv;
    struct un_error err = UN_ERROR_INIT;
    if (ensure_open(p, &err) == 0) {
        hv_driver_ops(p->real)->probe(p->real, cb, arg);
        return;
    }
    p->failed_probe = (struct hv_probe){.usable = false};
    snprintf(p->failed_probe.detail, sizeof(p->failed_probe.detail), "%.255s", err.text);
    p->failed_cb = cb;
    p->failed_arg = arg;
    p->failure = (struct un_post){.fn = tell_failure, .arg = p};
    un_loop_post(p->spec.loop, &p->failure);
}

static int proxy_vm_new(struct hv_driver *drv, const struct hv_vm_spec *spec, struct hv_vm **ret,
                        struct un_error *err)
{
    struct proxy *p = (struct proxy *)drv;
    int rc = ensure_open(p, err);
    return rc < 0 ? rc : hv_driver_ops(p->real)->vm_new(p->real, spec, ret, err);
}

static int proxy_machine_new(struct hv_driver *drv, const struct hv_machine_spec *spec,
                             struct hv_machine **ret, struct un_error *err)
{
    struct proxy *p = (struct proxy *)drv;
    int rc = ensure_open(p, err);
    return rc < 0 ? rc : hv_driver_ops(p->real)->machine->new (p->real, spec, ret, err);
}

/* The rest is asked of the machine's own table. */
static const struct hv_machine_ops proxy_machine_ops = {.new = proxy_machine_new};

/* --- the modules ------------------------------------------------------------------------------ */

static int libvirt_open(const struct hv_driver_spec *spec, struct hv_driver **ret,
                        struct un_error *err)
{
    return proxy_open("unid-libvirt.so", &module_libvirt_ops, spec, ret, err);
}

const struct hv_driver_ops module_libvirt_ops = {
    .name = "libvirt",
    .machine = &proxy_machine_ops,
    .open = libvirt_open,
    .close = proxy_close,
    .probe = proxy_probe,
    .vm_new = proxy_vm_new,
};
