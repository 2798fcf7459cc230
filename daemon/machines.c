/* machines.c - see machines.h. */
#include "daemon/machines.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"
#include "daemon/outgoing.h"
#include "netplumb/net.h"
#include "scheduler/scheduler.h"
#include "service/service.h"

struct machines {
    struct un_loop *loop;
    struct hv_driver *own; /* a libvirt driver of ours, when no other is open */
    struct netplumb *net;
    struct hv_driver *services;
    struct scheduler *scheduler;
    struct outgoing *outgoing; /* NULL: without a scheduler */
    const struct machines_start *start;
    bool drained;
    char range[40], no_tap[400]; /* why there is no network of its own */
};

static bool may_use(void *arg, uint64_t bytes)
{
    struct machines *m = arg;
    return !m->scheduler || sched_may_use(m->scheduler, bytes);
}

static bool is_free(void *arg, uint64_t bytes)
{
    struct machines *m = arg;
    return !m->scheduler || sched_is_free(m->scheduler, bytes);
}

static void on_console(void *arg, const char *service, const char *line, size_t len)
{
    char text[256];
    snprintf(text, sizeof(text), "%.*s", (int)(len < 255 ? len : 255), line);
    un_log(UN_LOG_DEBUG, "console", "function", service, "line", text);
}

static void on_open(void *arg, const struct service_opening *opening)
{
    struct machines *m = arg;
    if (m->outgoing) {
        outgoing_open(m->outgoing, opening);
    } else {
        close(opening->fd);
    }
}

static void on_counted(void *arg, const char *function, const struct hv_egress *more)
{
    struct machines *m = arg;
    sched_count_egress(m->scheduler, function, more);
}

static void on_end(void *arg, const void *machine)
{
    struct machines *m = arg;
    if (m->outgoing) {
        outgoing_end(m->outgoing, machine);
    }
}

static void on_reconciled(void *arg)
{
}

static int join_net(void *arg)
{
    int rc = un_fault("net.join");
    return rc < 0 ? rc : net_namespace_join(arg);
}

int machines_prepare(const struct config *c, struct machines_start *ret, struct un_error *err)
{
    struct un_error why = UN_ERROR_INIT;
    const char *network = c->machines_network;
    *ret = (struct machines_start){.ns = NULL};
    bool is_wanted = strcmp(network, "auto") == 0 || strcmp(network, "tap") == 0;
    /* The QEMU of a daemon elsewhere could not be in a namespace of ours. */
    if (!is_wanted || geteuid() == 0 || net_available(NULL) ||
        strcmp(c->libvirt_uri, "qemu:///embed") != 0) {
        return 0;
    }
    int rc = net_namespace_new(&ret->ns, ret->fix, &why);
    if (rc < 0) {
        snprintf(ret->why_not, sizeof(ret->why_not), "%.199s", why.text);
    }
    return rc == -EIO ? un_error_set(err, rc, "%s", why.text) : 0;
}

void machines_finish(struct machines_start *start)
{
    net_namespace_free(un_steal(&start->ns));
}

struct drivers_spec machines_drivers(const struct machines_start *start,
                                     const struct config *config, struct un_loop *loop)
{
    return (struct drivers_spec){.config = config,
                                 .loop = loop,
                                 .join_net = start->ns ? join_net : NULL,
                                 .join_arg = start->ns};
}

static bool has_taps(const struct machines_start *start, struct un_error *why)
{
    if (start->ns || net_available(why)) {
        return true;
    }
    if (start->why_not[0]) {
        un_error_set(why, -EPERM, "unid is not root, and %s", start->why_not);
    }
    return false;
}

static int open_net(struct machines *m, const struct config *c, struct un_error *err)
{
    struct un_error why = UN_ERROR_INIT;
    struct netplumb_spec spec = {.loop = m->loop,
                                 .state_dir = c->state_dir,
                                 .range = c->machines_range,
                                 .tap_owner = geteuid(),
                                 .ns = m->start->ns,
                                 .on_open = service_on_open};
    snprintf(m->range, sizeof(m->range), "%s", c->machines_range);
    if (strcmp(c->machines_network, "user") == 0) {
        snprintf(m->no_tap, sizeof(m->no_tap), "machines.network says so");
        return 0;
    }
    if (!has_taps(m->start, &why)) {
        if (strcmp(c->machines_network, "tap") == 0) {
            const char *fix = m->start->fix;
            return un_error_set(err, why.code, "machines.network: %s%s%s", why.text,
                                *fix ? "; try: " : "", fix);
        }
        un_log(UN_LOG_INFO, "machine images get QEMU's user network", "reason", why.text);
        snprintf(m->no_tap, sizeof(m->no_tap), "%.399s", why.text);
        return 0;
    }
    int rc = net_open(&spec, &m->net, err);
    if (rc < 0) {
        return un_error_context(err, "machines.range");
    }
    net_reconcile(m->net, on_reconciled, NULL);
    return 0;
}

static struct hv_driver *find_driver(const struct drivers *set)
{
    for (size_t i = 0; i < set->count; i++) {
        if (hv_driver_ops(set->items[i])->machine) {
            return set->items[i];
        }
    }
    return NULL;
}

static int open_services(struct machines *m, const struct config *config, struct drivers *set,
                         struct un_error *err)
{
    struct service_driver_spec spec = {.loop = m->loop,
                                       .machines = m->own ? m->own : find_driver(set),
                                       .net = m->net,
                                       .may_use = may_use,
                                       .is_free = is_free,
                                       .shells_keep_ms = (uint32_t)config->machines_shell_keep_ms,
                                       .on_open = on_open,
                                       .on_end = on_end,
                                       .on_console = on_console,
                                       .arg = m};
    int rc = service_driver_open(&spec, &m->services, err);
    if (rc == 0) {
        set->items[set->count++] = m->services;
    }
    return rc;
}

int machines_open(const struct machines_start *start, const struct drivers_spec *spec,
                  struct drivers *set, struct machines **ret, struct un_error *err)
{
    const struct config *config = spec->config;
    *ret = NULL;
    if (strcmp(config->machines_network, "none") == 0) {
        return 0;
    }
    struct machines *m = calloc(1, sizeof(*m));
    if (!m) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    m->loop = spec->loop;
    m->start = start;
    if (!find_driver(set)) {
        struct drivers one;
        struct un_error why = UN_ERROR_INIT;
        if (drivers_open_one("libvirt", spec, &one, &why) < 0) {
            un_log(UN_LOG_INFO, "machine images cannot run", "reason", why.text);
            free(m);
            return 0;
        }
        m->own = one.items[0];
    }
    int rc = open_net(m, config, err);
    rc = rc < 0 ? rc : open_services(m, config, set, err);
    if (rc < 0) {
        machines_close(m, set);
        return rc;
    }
    *ret = m;
    return 0;
}

void machines_describe_network(const struct machines *m, struct machines_network *ret)
{
    struct un_error why = UN_ERROR_INIT;
    const char *where = m && m->start->ns ? "bridges in a network namespace of unid's own"
                                          : "bridges of unid's own";
    *ret = (struct machines_network){.whole = false};
    if (!m) {
        snprintf(ret->detail, sizeof(ret->detail),
                 "none: machine images do not run here; machines.network says so, or there is no "
                 "libvirt driver");
    } else if (!m->net) {
        snprintf(ret->detail, sizeof(ret->detail),
                 "user: QEMU's user network with a forwarded port each (%s); machines that have "
                 "egress are "
                 "refused, there are no names, and a first wake may take seconds",
                 m->no_tap);
        snprintf(ret->fix, sizeof(ret->fix), "%s",
                 m->start->fix[0]
                     ? m->start->fix
                     : "run unid as root, or where users may make namespaces, with /dev/net/tun, "
                       "libvirt in unid itself, and machines.network auto or tap");
    } else if (net_range_is_free(m->net, &why) < 0) {
        snprintf(ret->detail, sizeof(ret->detail), "tap: taps on %s; machines do not run: %.200s",
                 where, why.text);
        snprintf(ret->fix, sizeof(ret->fix),
                 "set machines.range to a network in which the host has no address and no route");
    } else if (!net_names_available(&why)) {
        snprintf(ret->detail, sizeof(ret->detail), "tap: taps on %s, %s; %.160s", where, m->range,
                 why.text);
        snprintf(ret->fix, sizeof(ret->fix), "apt-get install dnsmasq-base");
    } else {
        ret->whole = true;
        snprintf(ret->detail, sizeof(ret->detail),
                 "tap: taps on %s, %s, with DHCP, names and egress", where, m->range);
    }
}

int machines_attach(struct machines *m, struct scheduler *scheduler, struct un_error *err)
{
    if (!m) {
        return 0;
    }
    m->scheduler = scheduler;
    const struct outgoing_spec spec = {
        .loop = m->loop, .dialer = sched_dialer(scheduler), .on_counted = on_counted, .arg = m};
    return outgoing_new(&spec, &m->outgoing, err);
}

void machines_detach(struct machines *m)
{
    if (m) {
        outgoing_free(m->outgoing);
        m->outgoing = NULL;
        m->scheduler = NULL;
    }
}

static void on_drained(void *arg)
{
    struct machines *m = arg;
    m->drained = true;
    un_loop_stop(m->loop);
}

void machines_close(struct machines *m, struct drivers *set)
{
    if (!m) {
        return;
    }
    machines_detach(m);
    if (m->services) {
        service_driver_drain(m->services, on_drained, m);
        while (!m->drained) {
            un_loop_run(m->loop);
        }
        for (size_t i = 0; i < set->count; i++) {
            if (set->items[i] == m->services) {
                set->items[i] = set->items[--set->count];
                break;
            }
        }
        hv_driver_ops(m->services)->close(m->services);
    }
    net_close(m->net);
    if (m->own) {
        hv_driver_ops(m->own)->close(m->own);
    }
    free(m);
}
