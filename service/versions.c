/* versions.c - what the driver of services is told of versions, and tells of machines
 * (hypervisor/machine.h, struct hv_service_ops). */
#include <errno.h>
#include <string.h>

#include "service/service_impl.h"

/* --- machines ----------------------------------------------------------------------------------- */

static void describe(const struct machine *mc, struct hv_service_machine *ret)
{
    const struct service *sv = mc->sv;
    uint64_t now = un_loop_now_us(sv->drv->loop);
    *ret = (struct hv_service_machine){
        .name = sv->name,
        .version = sv->version,
        .state = machine_state_name(mc->state),
        .mem_bytes = sv->spec.mem_bytes,
        .age_us = now - mc->begun_us,
        .state_us = now - mc->state_us,
        .pid = mc->m ? hv_machine_ops(mc->m)->pid(mc->m) : 0,
        .in_flight = mc->in_flight,
    };
    memcpy(ret->id, mc->id, sizeof(ret->id));
}

void service_tell_machine(const struct machine *mc, bool gone)
{
    const struct hv_driver *drv = mc->sv->drv;
    struct hv_service_machine m;
    if (drv->events && drv->events->on_machine) {
        describe(mc, &m);
        drv->events->on_machine(drv->events_arg, &m, gone);
    }
}

static void each(struct hv_driver *drv, void (*fn)(void *arg, const struct hv_service_machine *m),
                 void *arg)
{
    un_list_for_each (it, &drv->services) {
        const struct service *sv = un_list_entry(it, struct service, node);
        un_list_for_each (at, &sv->machines) {
            struct hv_service_machine m;
            describe(un_list_entry(at, struct machine, node), &m);
            fn(arg, &m);
        }
    }
    shells_each(drv, fn, arg);
}

static int end(struct hv_driver *drv, const char *id, struct un_error *err)
{
    un_list_for_each (it, &drv->services) {
        struct service *sv = un_list_entry(it, struct service, node);
        un_list_for_each (at, &sv->machines) {
            struct machine *mc = un_list_entry(at, struct machine, node);
            if (strcmp(mc->id, id) == 0) {
                machine_end(mc, HV_EXIT_LOST, "the machine was ended by request");
                service_changed(sv);
                return 0;
            }
        }
    }
    return shells_end(drv, id) ? 0 : un_error_set(err, -ENOENT, "no instance %s", id);
}

/* --- versions ----------------------------------------------------------------------------------- */

static void listen_(struct hv_driver *drv, const struct hv_service_events *events, void *arg)
{
    drv->events = events;
    drv->events_arg = arg;
}

void service_live(struct service *sv)
{
    if (sv->superseded) {
        sv->judged = false; /* another chance */
    }
    sv->superseded = false;
    sv->live = true;
}

static void live(struct hv_driver *drv, const char *name, const char *key)
{
    un_list_for_each (it, &drv->services) {
        struct service *sv = un_list_entry(it, struct service, node);
        if (strcmp(sv->name, name) != 0) {
            continue;
        }
        if (key && strcmp(sv->key, key) == 0) {
            service_live(sv);
        } else {
            /* A version that is asked for by its number or another alias is none of this. */
            sv->superseded = sv->superseded || sv->live || !key;
            sv->live = false;
        }
        service_changed(sv);
    }
}

static int keep(struct hv_driver *drv, const struct hv_machine_config *config, struct un_error *err)
{
    struct service *sv;
    int rc = service_get(drv, config, &sv, err);
    if (rc == 0) {
        live(drv, config->name, config->key);
    }
    return rc;
}

static void give_up(struct hv_driver *drv, const char *name, const char *but)
{
    un_list_for_each (it, &drv->services) {
        struct service *sv = un_list_entry(it, struct service, node);
        if (sv->judging && strcmp(sv->name, name) == 0 && (!but || strcmp(sv->key, but) != 0)) {
            sv->judging = false;
            service_lose_waiting(sv);
            service_changed(sv);
        }
    }
}

const struct hv_service_ops service_version_ops = {.listen = listen_,
                                                   .keep = keep,
                                                   .live = live,
                                                   .give_up = give_up,
                                                   .each = each,
                                                   .end = end,
                                                   .yield = shells_yield,
                                                   .stats = shells_stats};
