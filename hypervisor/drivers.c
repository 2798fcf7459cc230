/* drivers.c - the table of drivers. */
#include <errno.h>
#include <string.h>

#include "hypervisor/fake/fake.h"
#include "hypervisor/hv.h"

const struct hv_driver_ops *hv_driver_find(const char *name, struct un_error *err)
{
    static const struct hv_driver_ops *const drivers[] = {&fake_driver_ops};
    for (size_t i = 0; i < sizeof drivers / sizeof drivers[0]; i++) {
        if (strcmp(drivers[i]->name, name) == 0) {
            return drivers[i];
        }
    }
    un_error_set(err, -ENOENT, "no driver \"%.40s\" in this build", name);
    return NULL;
}
