/* drivers.c - the table of drivers (hv_driver_find). To add one: a row below. */
#include <errno.h>
#include <string.h>

#include "common/cleanup.h"
#include "hypervisor/fake/fake.h"
#include "hypervisor/hv.h"
#include "hypervisor/kvm/kvm.h"
#include "hypervisor/module.h"

static const struct hv_driver_ops *const drivers[] = {
    &fake_driver_ops,
    &hv_kvm_driver,
    &module_libvirt_ops,
};

const struct hv_driver_ops *hv_driver_find(const char *name, struct un_error *err)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(drivers); i++) {
        if (strcmp(drivers[i]->name, name) == 0) {
            return drivers[i];
        }
    }
    un_error_set(err, -ENOENT, "there is no driver \"%.40s\"", name);
    return NULL;
}
