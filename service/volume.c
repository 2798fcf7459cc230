/* volume.c - who has which volume: a machine has those of its service from when it is begun until it is
 * gone, and two never have one at a time (see service.h).
 *
 * Only services with machines or requests are looked at, and only for those that have volumes.
 */
#include <string.h>

#include "service/service_impl.h"

bool service_has_volumes(const struct service *sv)
{
    for (size_t i = 0; i < sv->spec.disk_count; i++) {
        if (!sv->disks[i].read_only) {
            return true;
        }
    }
    return false;
}

static bool opens(const struct service *sv, const char *path)
{
    for (size_t i = 0; i < sv->spec.disk_count; i++) {
        if (!sv->disks[i].read_only && strcmp(sv->disks[i].path, path) == 0) {
            return true;
        }
    }
    return false;
}

static bool share(const struct service *a, const struct service *b)
{
    for (size_t i = 0; i < a->spec.disk_count; i++) {
        if (!a->disks[i].read_only && opens(b, a->disks[i].path)) {
            return true;
        }
    }
    return false;
}

/* `o` waits for what `sv` has, and may ask for it: for a request, or as the live version of the same
 * function. What only keeps a machine does not take the volume of another function. */
static bool claims(const struct service *o, const struct service *sv)
{
    return o != sv &&
           (o->blocked == SERVICE_BLOCKED ||
            (o->blocked == SERVICE_BLOCKED_AHEAD && strcmp(o->name, sv->name) == 0)) &&
           share(o, sv);
}

bool service_volumes_free(const struct service *sv)
{
    if (!service_has_volumes(sv)) {
        return true;
    }
    un_list_for_each (it, &sv->drv->services) {
        const struct service *o = un_list_entry(it, struct service, node);
        if (share(sv, o) && !un_list_empty(&o->machines)) {
            return false;
        }
        /* Of two that wait the live version goes first. */
        if (sv->superseded && !o->superseded && claims(o, sv)) {
            return false;
        }
    }
    return true;
}

bool service_volumes_claimed(const struct service *sv)
{
    if (!service_has_volumes(sv)) {
        return false;
    }
    un_list_for_each (it, &sv->drv->services) {
        if (claims(un_list_entry(it, struct service, node), sv)) {
            return true;
        }
    }
    return false;
}

void service_volumes_changed(struct service *sv)
{
    if (!service_has_volumes(sv)) {
        return;
    }
    un_list_for_each (it, &sv->drv->services) {
        struct service *o = un_list_entry(it, struct service, node);
        if (o != sv && share(sv, o)) {
            service_changed(o);
        }
    }
}
