/* plumb.c - what is asked of netplumb, as jobs on its one worker thread (see net.h).
 *
 * Each link goes round:
 *
 *     (none) --attach--> MAKING --made--> ATTACHED --detach--> IDLE --linger--> REMOVING --> (freed)
 *                           |                ^                  |
 *                        failed: freed       +----- attach -----+
 *
 * An idle link keeps its tap, its address and its place in the rules; nobody has the tap open, so
 * nothing comes from it. Bridge and tables are made by the first attach and go with the last link.
 * The worker owns the sockets to the kernel and runs jobs in order; the loop thread owns the rest.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/list.h"
#include "common/log.h"
#include "common/workers.h"
#include "netplumb/addr.h"
#include "netplumb/link.h"
#include "netplumb/net.h"
#include "netplumb/rules.h"

enum op { OP_MAKE, OP_REMOVE, OP_CLEAR, OP_RECONCILE };

struct request {
    struct un_job job;
    struct netplumb *np;
    enum op op;
    net_attach_cb attached;
    net_done_cb done;
    void *arg;
};

/* What a struct net_link is the public part of. At most one request of it is under way. */
struct link {
    struct net_link pub;
    uint32_t guest;
    uint64_t idle_from_us;
    struct un_list node;  /* in idle */
    struct un_post ready; /* of an attach that found an idle link */
    struct request req;
};

struct netplumb {
    struct net_names names;
    struct net_range range;
    uid_t tap_owner;
    uint64_t linger_us;
    struct un_workers *worker;
    struct un_loop *loop;
    struct request reconcile, clearing;
    bool clearing_busy;
    struct un_list idle; /* struct link, the longest idle first */
    struct un_timer linger;
    unsigned links, attached; /* all there are; those in use or being made */
    /* the worker's */
    struct nl_sock *nl;
    struct net_rules *rules;
    bool clean, made;
    int bridge; /* index */
};

static void on_linger(void *arg);

bool net_available(struct un_error *err)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    if (syscall(SYS_capget, &head, data) < 0 ||
        !(data[CAP_NET_ADMIN / 32].effective & 1u << CAP_NET_ADMIN % 32)) {
        un_error_set(
            err, -EPERM,
            "no right to make taps (CAP_NET_ADMIN): run unid as root for networks of its own; "
            "guests get QEMU's user network");
        return false;
    }
    if (access("/dev/net/tun", R_OK | W_OK) < 0) {
        un_error_errno(err, -errno, "/dev/net/tun cannot be used (try: modprobe tun)");
        return false;
    }
    return true;
}

int net_open(const struct netplumb_spec *spec, struct netplumb **ret, struct un_error *err)
{
    struct netplumb *np = calloc(1, sizeof(*np));
    if (!np) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    net_names_init(&np->names, spec->state_dir);
    np->tap_owner = spec->tap_owner;
    np->loop = spec->loop;
    np->linger_us = (spec->linger_ms ? spec->linger_ms : NET_LINGER_MS) * UINT64_C(1000);
    np->clearing.np = np;
    un_list_init(&np->idle);
    un_timer_init(&np->linger, spec->loop, on_linger, np);
    int rc = net_range_init(&np->range, spec->range, err);
    if (rc == 0) {
        rc = un_workers_new(spec->loop, "netplumb", 1, &np->worker, err);
    }
    if (rc < 0) {
        net_range_done(&np->range);
        free(np);
        return rc;
    }
    *ret = np;
    return 0;
}

/* Nothing of ours is in the kernel afterwards. Worker, or net_close when that has ended. */
static int clear(struct netplumb *np, struct un_error *err)
{
    int rc = 0;
    if (!np->nl) {
        rc = net_socket_new(&np->nl, err);
    }
    if (rc == 0 && !np->rules) {
        rc = net_rules_new(&np->rules, err);
    }
    if (rc < 0) {
        return rc;
    }
    int removed = net_link_remove_all(np->nl, &np->names, err);
    if (removed < 0) {
        return removed;
    }
    if (removed > 0 && !np->made) {
        un_log(UN_LOG_INFO, "removed links that an earlier unid left", "bridge", np->names.bridge);
    }
    np->made = false;
    return net_rules_remove(np->rules, &np->names, err);
}

static int prepare(struct netplumb *np, struct un_error *err)
{
    if (!np->clean) {
        int rc = clear(np, err);
        if (rc < 0) {
            return rc;
        }
        np->clean = true;
    }
    if (np->made) {
        return 0;
    }
    char gateway[NET_IP_SIZE];
    net_range_gateway(&np->range, gateway);
    /* Rules first: no guest is ever without them. */
    int rc = net_rules_install(np->rules, &np->names, gateway, err);
    if (rc == 0) {
        rc = net_bridge_make(np->nl, &np->names, gateway, np->range.prefix, &np->bridge, err);
    }
    np->made = rc == 0;
    return rc;
}

static int run_make(struct netplumb *np, const struct net_link *link, struct un_error *err)
{
    int rc = prepare(np, err);
    if (rc == 0) {
        rc = net_rules_add_guest(np->rules, &np->names, link, err);
    }
    if (rc < 0) {
        return rc;
    }
    rc = net_tap_make(np->nl, &np->names, link->tap, np->tap_owner, np->bridge, err);
    if (rc == 0) {
        rc = net_neighbour_add(np->nl, np->bridge, link, err);
    }
    if (rc < 0) {
        net_link_remove(np->nl, link->tap, NULL);
        net_rules_remove_guest(np->rules, &np->names, link, NULL);
    }
    return rc;
}

static int run_remove(struct netplumb *np, const struct net_link *link, struct un_error *err)
{
    int rc = net_link_remove(np->nl, link->tap, err);
    net_neighbour_remove(np->nl, np->bridge, link, NULL); /* goes with the bridge in any case */
    int rules_rc = net_rules_remove_guest(np->rules, &np->names, link, rc < 0 ? NULL : err);
    return rc < 0 ? rc : rules_rc;
}

static int run_reconcile(struct netplumb *np, struct un_error *err)
{
    int rc = np->clean ? 0 : clear(np, err);
    np->clean = np->clean || rc == 0;
    return rc;
}

static struct link *link_of(struct request *req)
{
    return un_container_of(req, struct link, req);
}

static int run(struct un_job *job, struct un_error *err)
{
    struct request *req = un_container_of(job, struct request, job);
    switch (req->op) {
    case OP_MAKE:
        return run_make(req->np, &link_of(req)->pub, err);
    case OP_REMOVE:
        return run_remove(req->np, &link_of(req)->pub, err);
    case OP_CLEAR:
        return clear(req->np, err);
    default:
        return run_reconcile(req->np, err);
    }
}

static void link_free(struct link *link)
{
    struct netplumb *np = link->req.np;
    net_range_give(&np->range, link->guest);
    np->links--;
    free(link);
}

static void submit(struct request *req, enum op op,
                   void (*done)(struct un_job *, int, const struct un_error *))
{
    req->op = op;
    req->job = (struct un_job){.run = run, .done = done};
    un_workers_submit(req->np->worker, &req->job);
}

static void on_cleared(struct un_job *job, int rc, const struct un_error *err)
{
    struct request *req = un_container_of(job, struct request, job);
    req->np->clearing_busy = false;
    if (rc < 0) {
        un_log(UN_LOG_WARN, "network not removed in full", "error", err->text);
    }
}

static void on_removed(struct un_job *job, int rc, const struct un_error *err)
{
    struct request *req = un_container_of(job, struct request, job);
    struct netplumb *np = req->np;
    if (rc < 0) {
        un_log(UN_LOG_WARN, "network not removed in full", "error", err->text);
    }
    link_free(link_of(req));
    if (np->links == 0 && !np->clearing_busy) {
        np->clearing_busy = true;
        submit(&np->clearing, OP_CLEAR, on_cleared);
    }
}

/* Removes the links that have been idle long enough, and comes again for the next. */
static void on_linger(void *arg)
{
    struct netplumb *np = arg;
    uint64_t now = un_loop_now_us(np->loop);
    while (!un_list_empty(&np->idle)) {
        struct link *link = un_list_first(&np->idle, struct link, node);
        uint64_t due = link->idle_from_us + np->linger_us;
        if (due > now) {
            /* Out of memory: the next detach arms it. */
            (void)un_timer_arm_at(&np->linger, due);
            break;
        }
        un_list_remove(&link->node);
        submit(&link->req, OP_REMOVE, on_removed);
    }
}

static void on_made(struct un_job *job, int rc, const struct un_error *err)
{
    struct request *req = un_container_of(job, struct request, job);
    struct request was = *req;
    struct net_link *pub = &link_of(req)->pub;
    if (rc < 0) {
        req->np->attached--;
        link_free(link_of(req));
        pub = NULL;
    }
    was.attached(was.arg, rc, pub, err);
}

static void on_ready(void *arg)
{
    struct link *link = arg;
    link->req.attached(link->req.arg, 0, &link->pub, NULL);
}

/* A link with an address, not made yet. */
static int link_new(struct netplumb *np, struct link **ret, struct un_error *err)
{
    struct link *link = calloc(1, sizeof(*link));
    if (!link) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    int64_t guest = net_range_take(&np->range);
    if (guest < 0) {
        free(link);
        return un_error_set(err, -ENOSPC, "all %u guest addresses are in use: give a larger range",
                            np->range.size);
    }
    link->guest = (uint32_t)guest;
    link->req.np = np;
    un_list_init(&link->node);
    net_range_describe(&np->range, link->guest, &link->pub);
    net_names_tap(&np->names, link->guest, link->pub.tap);
    np->links++;
    *ret = link;
    return 0;
}

int net_attach(struct netplumb *np, net_attach_cb cb, void *arg, struct un_error *err)
{
    struct link *link = NULL;
    bool idle = !un_list_empty(&np->idle);
    if (idle) {
        link = un_list_entry(np->idle.prev, struct link, node); /* its tap is the warmest */
        un_list_remove(&link->node);
    } else {
        int rc = link_new(np, &link, err);
        if (rc < 0) {
            return rc;
        }
    }
    np->attached++;
    link->req.attached = cb;
    link->req.arg = arg;
    if (idle) {
        link->ready = (struct un_post){.fn = on_ready, .arg = link};
        un_loop_post(np->loop, &link->ready);
    } else {
        submit(&link->req, OP_MAKE, on_made);
    }
    return 0;
}

void net_detach(struct net_link *pub)
{
    struct link *link = un_container_of(pub, struct link, pub);
    struct netplumb *np = link->req.np;
    np->attached--;
    link->idle_from_us = un_loop_now_us(np->loop);
    un_list_push(&np->idle, &link->node);
    if (!un_timer_armed(&np->linger)) {
        on_linger(np);
    }
}

void net_get_stats(const struct netplumb *np, struct net_stats *ret)
{
    *ret = (struct net_stats){.attached = np->attached, .idle = np->links - np->attached};
}

static void on_reconciled(struct un_job *job, int rc, const struct un_error *err)
{
    struct request *req = un_container_of(job, struct request, job);
    if (rc < 0) {
        un_log(UN_LOG_WARN, "what an earlier unid left of networks was not removed", "error",
               err->text);
    }
    req->done(req->arg);
}

void net_reconcile(struct netplumb *np, net_done_cb cb, void *arg)
{
    np->reconcile = (struct request){.np = np, .done = cb, .arg = arg};
    submit(&np->reconcile, OP_RECONCILE, on_reconciled);
}

void net_close(struct netplumb *np)
{
    if (!np) {
        return;
    }
    un_timer_cancel(&np->linger);
    un_workers_free(np->worker);
    while (!un_list_empty(&np->idle)) {
        struct link *link = un_list_first(&np->idle, struct link, node);
        un_list_remove(&link->node);
        link_free(link);
    }
    struct un_error err = UN_ERROR_INIT;
    if (np->made && clear(np, &err) < 0) {
        un_log(UN_LOG_WARN, "network not removed in full", "error", err.text);
    }
    net_rules_free(np->rules);
    if (np->nl) {
        nl_socket_free(np->nl);
    }
    net_range_done(&np->range);
    free(np);
}
