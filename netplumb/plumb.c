/* plumb.c - what is asked of netplumb, as jobs on its one worker thread (see net.h).
 *
 * Each link goes round:
 *
 *     (none) --attach--> MAKING --made--> ATTACHED --detach--> IDLE --linger--> REMOVING --> (freed)
 *                           |                ^                  |
 *                        failed: freed       +----- attach -----+
 *
 * An idle link keeps its tap, its address and its place in the rules, with what its last guest was allowed
 * to connect to: nobody has the tap open, so nothing comes from it. It serves the next guest of the same
 * wish at once, one of another after a change of the rules. The tables are made by the first attach and go
 * with the last link; bridges: segment.h. What others remove of tables and bridges is made again (watch.h,
 * mend.h); a link whose tap is gone serves no other guest.
 * The worker owns the sockets to the kernel and runs jobs in order; the loop thread owns the rest.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/list.h"
#include "common/log.h"
#include "common/workers.h"
#include "netplumb/addr.h"
#include "netplumb/dnsmasq.h"
#include "netplumb/link.h"
#include "netplumb/listen.h"
#include "netplumb/mend.h"
#include "netplumb/namespace.h"
#include "netplumb/net.h"
#include "netplumb/rules.h"
#include "netplumb/segment.h"
#include "netplumb/targets.h"
#include "netplumb/watch.h"

enum op { OP_MAKE, OP_CHANGE, OP_REMOVE, OP_CLEAR, OP_RECONCILE, OP_MEND };
enum {
    IDLE_LOOKED_AT = 64,    /* of the idle links, for one with the policy that is wanted */
    MEND_AGAIN_US = 1000000 /* after a failure */
};

struct request {
    struct un_job job;
    struct netplumb *np;
    enum op op;
    net_attach_cb attached;
    net_done_cb done;
    void *arg;
    char *rules, *undo; /* of the policy: to be added, to be deleted; or NULL */
    char *policy;       /* of the policy: as it is then in force */
    int mended;         /* OP_MEND: what net_mend gave */
};

/* What a struct net_link is the public part of. At most one request of it is under way. */
struct link {
    struct net_link pub;
    uint32_t guest;
    bool in_use;        /* its user knows of it */
    bool is_made, lost; /* it has been made; its tap is gone */
    uint64_t idle_from_us;
    struct net_policy *policy; /* as in the rules, or about to be; NULL: nothing */
    struct net_policy *before; /* OP_CHANGE */
    struct un_list node;       /* in idle */
    struct un_list all_node;
    struct un_post ready; /* of an attach that found an idle link */
    struct net_made made; /* the worker's */
    int index;            /* the tap's; the worker's before is_made */
    struct request req;
};

struct netplumb {
    struct net_names names;
    struct net_range range;
    uid_t tap_owner;
    struct net_namespace *ns; /* where all of this is; NULL: the host's network */
    uint64_t linger_us;
    struct un_workers *worker;
    struct un_loop *loop;
    struct request reconcile, clearing, mending;
    bool clearing_busy, mending_busy, mend_wanted;
    uint64_t mended;
    struct un_timer mend_timer;
    struct un_list all;   /* struct link */
    struct un_list idle;  /* struct link, the longest idle first */
    struct link **guests; /* by number; NULL: no link */
    struct net_targets targets;
    unsigned targets_seen; /* targets.changes, as dnsmasq knows them */
    struct net_dnsmasq *dnsmasq;
    struct un_post dnsmasq_post;
    void (*on_open)(void *arg, const struct un_endpoint *to, int fd);
    uint64_t refused, refused_told_us;
    struct un_timer linger;
    unsigned links, attached; /* all there are; those in use or being made */
    /* the worker's */
    struct nl_sock *nl;
    struct net_rules *rules;
    bool clean, made; /* nothing of an earlier unid is left; the tables are there */
    struct net_segments segments;
    struct un_list made_links; /* struct net_made */
    struct net_watch *watch;   /* made by the worker, then the loop thread's */
    bool mend_failed;
};

static void on_linger(void *arg);
static void on_gone(void *arg);
static void on_tap_gone(void *arg, const char *name, int index);

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

bool net_names_available(struct un_error *err)
{
    if (!net_dnsmasq_path()) {
        un_error_set(err, -ENOENT,
                     "dnsmasq is not installed: machines get no DHCP and no names "
                     "(apt-get install dnsmasq-base)");
        return false;
    }
    return true;
}

/* --- what goes up and down ---------------------------------------------------------------------- */

static int write_hosts(void *arg, struct un_buf *out)
{
    const struct netplumb *np = arg;
    return net_targets_hosts(&np->targets, out);
}

static int write_leases(void *arg, struct un_buf *out)
{
    const struct netplumb *np = arg;
    int rc = 0;
    un_list_for_each (it, &np->all) {
        const struct link *link = un_list_entry(it, struct link, all_node);
        rc = rc < 0 ? rc : un_buf_printf(out, "%s,%s\n", link->pub.mac, link->pub.ip);
    }
    return rc;
}

static void on_dnsmasq(void *arg)
{
    struct netplumb *np = arg;
    net_dnsmasq_start(np->dnsmasq);
}

static void names_changed(struct netplumb *np)
{
    if (np->targets_seen != np->targets.changes) {
        np->targets_seen = np->targets.changes;
        net_dnsmasq_changed(np->dnsmasq);
    }
}

/* The firewall lets none through that is not allowed, so this is rare. */
static void refuse(struct netplumb *np, const struct net_port *port, uint32_t guest, int fd)
{
    char ip[NET_IP_SIZE];
    uint64_t now = un_loop_now_us(np->loop);
    net_reset(fd);
    np->refused++;
    if (now - np->refused_told_us > 1000000 || np->refused == 1) {
        np->refused_told_us = now;
        un_log(UN_LOG_WARN, "connection of a machine refused", "machine", net_addr_text(guest, ip),
               "to", port->host->host);
    }
}

static void on_connection(void *arg, struct net_port *port, uint32_t guest, int fd)
{
    struct netplumb *np = arg;
    int64_t number = net_range_guest(&np->range, guest);
    const struct link *link = number < 0 ? NULL : np->guests[number];
    if (!link || !link->in_use || !np->on_open || !net_policy_allows(link->policy, port)) {
        refuse(np, port, guest, fd);
        return;
    }
    struct un_endpoint to = {.port = port->port, .is_address = port->host->literal != 0};
    memcpy(to.host, port->host->host, sizeof(to.host));
    np->on_open(link->req.arg, &to, fd);
}

static int open_port(void *arg, struct net_port *port, struct un_error *err)
{
    struct netplumb *np = arg;
    const struct net_listener_user user = {
        .loop = np->loop, .ns = np->ns, .cb = on_connection, .arg = np};
    return net_listener_open(&user, port, err);
}

static void close_port(void *arg, struct net_port *port)
{
    net_listener_close(port);
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
    np->ns = spec->ns;
    np->linger_us = (spec->linger_ms ? spec->linger_ms : NET_LINGER_MS) * UINT64_C(1000);
    np->clearing.np = np;
    np->on_open = spec->on_open;
    np->dnsmasq_post = (struct un_post){.fn = on_dnsmasq, .arg = np};
    un_list_init(&np->all);
    un_list_init(&np->idle);
    np->mending.np = np;
    un_list_init(&np->made_links);
    un_timer_init(&np->mend_timer, spec->loop, on_gone, np);
    un_timer_init(&np->linger, spec->loop, on_linger, np);
    const struct net_targets_user ports = {.open = open_port, .close = close_port, .arg = np};
    const struct net_dnsmasq_user lists = {
        .hosts = write_hosts, .leases = write_leases, .arg = np, .ns = np->ns};
    net_targets_init(&np->targets, &np->range, &ports);
    int rc = net_range_init(&np->range, spec->range, err);
    if (rc == 0 && !(np->guests = calloc(np->range.size, sizeof(struct link *)))) {
        rc = un_error_set(err, -ENOMEM, "out of memory");
    }
    if (rc == 0) {
        rc = net_dnsmasq_new(np->loop, &np->names, &np->range, spec->state_dir, &lists,
                             &np->dnsmasq, err);
    }
    if (rc == 0) {
        rc = net_segments_init(&np->segments, &np->names, &np->range, spec->segment_ports, err);
    }
    if (rc == 0) {
        rc = un_workers_new(spec->loop, "netplumb", 1, &np->worker, err);
    }
    if (rc < 0) {
        net_segments_done(&np->segments);
        net_dnsmasq_free(np->dnsmasq);
        net_range_done(&np->range);
        free(np->guests);
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
        un_log(UN_LOG_INFO, "removed links that an earlier unid left", "tag", np->names.tag);
    }
    np->made = false;
    net_segments_forget(&np->segments);
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
    const struct net_watch_user user = {.loop = np->loop,
                                        .names = &np->names,
                                        .on_gone = on_gone,
                                        .on_tap_gone = on_tap_gone,
                                        .arg = np};
    int rc = np->watch ? 0 : net_watch_new(&user, &np->watch, err);
    rc = rc < 0 ? rc : net_rules_install(np->rules, &np->names, &np->range, err);
    np->made = rc == 0;
    return rc;
}

static struct link *link_of(struct request *req)
{
    return un_container_of(req, struct link, req);
}

/* On a segment; rules first: no guest is ever without them. */
static int make_guest(struct request *req, int bridge, struct un_error *err)
{
    struct netplumb *np = req->np;
    const struct net_link *link = &link_of(req)->pub;
    int rc = net_rules_add_guest(np->rules, &np->names, link, req->rules, err);
    if (rc < 0) {
        return rc;
    }
    rc = net_tap_make(np->nl, &np->names, link->tap, np->tap_owner, bridge, err);
    if (rc == 0) {
        rc = net_guest_add(np->nl, bridge, link, err);
    }
    if (rc < 0) {
        net_link_remove(np->nl, link->tap, NULL);
        net_guest_remove(np->nl, bridge, link, NULL);
        net_rules_remove_guest(np->rules, &np->names, link, req->undo, NULL);
    }
    return rc;
}

static int run_make(struct request *req, struct un_error *err)
{
    struct netplumb *np = req->np;
    struct net_segment *segment = NULL;
    int rc = prepare(np, err);
    rc = rc < 0 ? rc : net_segments_join(&np->segments, np->nl, np->rules, &segment, err);
    if (rc < 0) {
        return rc;
    }
    rc = make_guest(req, segment->bridge, err);
    if (rc < 0) {
        net_segments_leave(&np->segments, np->nl, np->rules, segment, NULL);
        return rc;
    }
    struct link *link = link_of(req);
    link->made =
        (struct net_made){.link = &link->pub, .segment = segment, .policy = un_steal(&req->policy)};
    un_list_push(&np->made_links, &link->made.node);
    link->index = (int)if_nametoindex(link->pub.tap);
    return 0;
}

static int run_change(struct request *req, struct un_error *err)
{
    struct net_made *made = &link_of(req)->made;
    int rc = net_rules_change(req->np->rules, req->rules, err);
    if (rc == 0) {
        free(made->policy);
        made->policy = un_steal(&req->policy);
    }
    return rc;
}

static int run_remove(struct request *req, struct un_error *err)
{
    struct netplumb *np = req->np;
    struct net_segment *segment = link_of(req)->made.segment;
    const struct net_link *link = &link_of(req)->pub;
    un_list_remove(&link_of(req)->made.node);
    free(un_steal(&link_of(req)->made.policy));
    int rc = net_link_remove(np->nl, link->tap, err);
    /* What is told is the first that fails; the others are tried all the same. */
    int more = net_guest_remove(np->nl, segment->bridge, link, rc < 0 ? NULL : err);
    rc = rc < 0 ? rc : more;
    more = net_rules_remove_guest(np->rules, &np->names, link, req->undo, rc < 0 ? NULL : err);
    rc = rc < 0 ? rc : more;
    more = net_segments_leave(&np->segments, np->nl, np->rules, segment, rc < 0 ? NULL : err);
    return rc < 0 ? rc : more;
}

static int run_reconcile(struct netplumb *np, struct un_error *err)
{
    int rc = np->clean ? 0 : clear(np, err);
    np->clean = np->clean || rc == 0;
    return rc;
}

static int run_mend(struct request *req, struct un_error *err)
{
    struct netplumb *np = req->np;
    if (!np->made) {
        return 0; /* it was unid that has removed it */
    }
    const struct net_mend mend = {.names = &np->names,
                                  .range = &np->range,
                                  .nl = np->nl,
                                  .rules = np->rules,
                                  .segments = &np->segments,
                                  .made = &np->made_links,
                                  .again = np->mend_failed};
    req->mended = net_mend(&mend, err);
    np->mend_failed = req->mended < 0;
    return req->mended < 0 ? req->mended : 0;
}

static int run(struct un_job *job, struct un_error *err)
{
    struct request *req = un_container_of(job, struct request, job);
    int rc = net_namespace_join(req->np->ns); /* it may be another thread than the last time */
    if (rc < 0) {
        return un_error_errno(err, rc, "join unid's network namespace");
    }
    switch (req->op) {
    case OP_MAKE:
        return run_make(req, err);
    case OP_CHANGE:
        return run_change(req, err);
    case OP_REMOVE:
        return run_remove(req, err);
    case OP_CLEAR:
        return req->np->made ? clear(req->np, err) : 0;
    case OP_MEND:
        return run_mend(req, err);
    default:
        return run_reconcile(req->np, err);
    }
}

static void free_texts(struct request *req)
{
    free(un_steal(&req->rules));
    free(un_steal(&req->undo));
    free(un_steal(&req->policy));
}

static void link_free(struct link *link)
{
    struct netplumb *np = link->req.np;
    free_texts(&link->req);
    free(link->made.policy);
    net_policy_put(&np->targets, link->policy);
    names_changed(np);
    un_list_remove(&link->all_node);
    np->guests[link->guest] = NULL;
    net_range_give(&np->range, link->guest);
    np->links--;
    free(link);
}

/* The texts that let the link's guest reach what `add` names and no longer what `remove` does. False:
 * out of memory. */
static bool make_texts(struct link *link, const struct net_policy *remove,
                       const struct net_policy *add)
{
    const struct net_names *names = &link->req.np->names;
    un_autobuf struct un_buf rules = {0}, undo = {0}, policy = {0};
    int rc = net_rules_policy_text(names, false, link->pub.ip, remove, &rules);
    rc = rc < 0 ? rc : net_rules_policy_text(names, true, link->pub.ip, add, &rules);
    rc = rc < 0 ? rc : net_rules_policy_text(names, false, link->pub.ip, add, &undo);
    rc = rc < 0 ? rc : net_rules_policy_text(names, true, link->pub.ip, add, &policy);
    free_texts(&link->req);
    link->req.rules = rc < 0 ? NULL : un_buf_steal_str(&rules);
    link->req.undo = rc < 0 ? NULL : un_buf_steal_str(&undo);
    link->req.policy = rc < 0 ? NULL : un_buf_steal_str(&policy);
    return link->req.rules && link->req.undo && link->req.policy;
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

/* Frees it; what all links share goes with the last. */
static void link_gone(struct link *link)
{
    struct netplumb *np = link->req.np;
    link_free(link);
    if (np->links == 0) {
        un_loop_unpost(np->loop, &np->dnsmasq_post);
        net_dnsmasq_stop(np->dnsmasq);
    }
    if (np->links == 0 && !np->clearing_busy) {
        np->clearing_busy = true;
        submit(&np->clearing, OP_CLEAR, on_cleared);
    }
}

static void on_removed(struct un_job *job, int rc, const struct un_error *err)
{
    struct request *req = un_container_of(job, struct request, job);
    if (rc < 0) {
        un_log(UN_LOG_WARN, "network not removed in full", "error", err->text);
    }
    link_gone(link_of(req));
}

/* An idle link goes. False: out of memory. */
static bool remove_idle(struct link *link)
{
    if (!make_texts(link, NULL, link->policy)) {
        return false;
    }
    un_list_remove(&link->node);
    submit(&link->req, OP_REMOVE, on_removed);
    return true;
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
        if (!remove_idle(link)) {
            (void)un_timer_arm_at(&np->linger, un_loop_now_us(np->loop) + np->linger_us);
            break;
        }
    }
}

/* --- what others remove ------------------------------------------------------------------------- */

static void on_mended(struct un_job *job, int rc, const struct un_error *err)
{
    struct netplumb *np = un_container_of(job, struct request, job)->np;
    np->mending_busy = false;
    if (rc < 0) {
        un_log(UN_LOG_ERROR,
               "machines' network was changed by another program, and cannot be mended yet",
               "error", err->text);
        (void)un_timer_arm_in(&np->mend_timer, MEND_AGAIN_US);
    } else if (np->mending.mended) {
        np->mended++;
        un_log(UN_LOG_WARN, "machines' network was changed by another program, and has been mended",
               "firewall", np->mending.mended & NET_MENDED_RULES ? "made again" : "was there",
               "bridges", np->mending.mended & NET_MENDED_BRIDGES ? "made again" : "were there");
    }
    if (np->mend_wanted) {
        on_gone(np);
    }
}

static void on_gone(void *arg)
{
    struct netplumb *np = arg;
    np->mend_wanted = np->mending_busy;
    if (!np->mending_busy) {
        np->mending_busy = true;
        np->mending.mended = 0;
        submit(&np->mending, OP_MEND, on_mended);
    }
}

static void on_tap_gone(void *arg, const char *name, int index)
{
    struct netplumb *np = arg;
    un_list_for_each_safe (it, &np->all) {
        struct link *link = un_list_entry(it, struct link, all_node);
        if (!link->is_made || link->index != index || link->req.op == OP_REMOVE) {
            continue; /* another's, or unid removes it */
        }
        link->lost = true;
        un_log(UN_LOG_WARN, "tap of a machine was removed by another program", "tap", name);
        if (un_list_linked(&link->node)) {
            (void)remove_idle(link); /* else when it has lingered */
        }
    }
}

static void on_made(struct un_job *job, int rc, const struct un_error *err)
{
    struct request *req = un_container_of(job, struct request, job);
    struct request was = *req;
    struct net_link *pub = &link_of(req)->pub;
    struct un_error why = UN_ERROR_INIT; /* `err` goes with the link */
    if (rc < 0) {
        un_error_copy(&why, err);
        req->np->attached--;
        link_gone(link_of(req));
        pub = NULL;
    } else {
        free_texts(req);
        link_of(req)->in_use = link_of(req)->is_made = true;
        if (net_watch_start(req->np->watch, NULL) < 0) {
            un_log(UN_LOG_WARN, "what others remove of the network is not seen", "error",
                   "out of memory");
        }
        un_loop_post(was.np->loop, &was.np->dnsmasq_post); /* it starts while the machine is made */
        net_dnsmasq_changed(was.np->dnsmasq);
    }
    was.attached(was.arg, rc, pub, &why);
}

/* The rules of an idle link are those of its next guest; or as they were, and it stays idle. */
static void on_changed(struct un_job *job, int rc, const struct un_error *err)
{
    struct request *req = un_container_of(job, struct request, job);
    struct link *link = link_of(req);
    struct netplumb *np = req->np;
    free_texts(req);
    if (rc < 0) {
        net_policy_put(&np->targets, link->policy);
        link->policy = un_steal(&link->before);
        names_changed(np);
        net_detach(&link->pub);
        req->attached(req->arg, rc, NULL, err);
        return;
    }
    net_policy_put(&np->targets, un_steal(&link->before));
    names_changed(np);
    link->in_use = true;
    req->attached(req->arg, 0, &link->pub, NULL);
}

static void on_ready(void *arg)
{
    struct link *link = arg;
    link->in_use = true;
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
    un_list_push(&np->all, &link->all_node);
    np->guests[link->guest] = link;
    net_range_describe(&np->range, link->guest, &link->pub);
    net_names_tap(&np->names, link->guest, link->pub.tap);
    np->links++;
    *ret = link;
    return 0;
}

/* An idle link, of the same policy if there is one among the last; else the last, for its tap is the
 * warmest. NULL: none is idle. */
static struct link *find_idle(struct netplumb *np, const struct net_policy *policy)
{
    unsigned looked = 0;
    for (struct un_list *it = np->idle.prev; it != &np->idle && looked < IDLE_LOOKED_AT;
         it = it->prev, looked++) {
        struct link *link = un_list_entry(it, struct link, node);
        if (link->policy == policy) {
            return link;
        }
    }
    return looked ? un_list_entry(np->idle.prev, struct link, node) : NULL;
}

/* How a link gets its policy: OP_MAKE or OP_CHANGE, and what follows. */
struct way {
    enum op op;
    void (*done)(struct un_job *job, int rc, const struct un_error *err);
};

/* Begins what gives the link its policy, which is taken on success. */
static int begin(struct link *link, const struct way *way, struct net_policy *policy,
                 struct un_error *err)
{
    struct netplumb *np = link->req.np;
    if (way->op == OP_CHANGE && link->policy == policy) {
        net_policy_put(&np->targets, policy); /* it has its own */
        link->ready = (struct un_post){.fn = on_ready, .arg = link};
        un_loop_post(np->loop, &link->ready);
        return 0;
    }
    if (!make_texts(link, link->policy, policy)) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    link->before = link->policy;
    link->policy = policy;
    submit(&link->req, way->op, way->done);
    return 0;
}

int net_attach(struct netplumb *np, const struct net_wish *wish, net_attach_cb cb, void *arg,
               struct un_error *err)
{
    struct net_policy *policy = NULL;
    int rc = wish ? net_policy_get(&np->targets, wish->key, wish->egress, &policy, err) : 0;
    if (rc < 0) {
        return rc;
    }
    struct link *link = find_idle(np, policy);
    bool idle = link != NULL;
    rc = idle ? 0 : link_new(np, &link, err);
    const struct way way = {idle ? OP_CHANGE : OP_MAKE, idle ? on_changed : on_made};
    rc = rc < 0 ? rc : begin(link, &way, policy, err);
    if (rc < 0) {
        net_policy_put(&np->targets, policy);
        if (link && !idle) {
            link_free(link);
        }
        return rc;
    }
    names_changed(np);
    if (idle) {
        un_list_remove(&link->node);
    }
    np->attached++;
    link->req.attached = cb;
    link->req.arg = arg;
    return 0;
}

/* As on_changed, of a link that has a guest: it stays where it is in any case. */
static void on_wish_changed(struct un_job *job, int rc, const struct un_error *err)
{
    struct request *req = un_container_of(job, struct request, job);
    struct link *link = link_of(req);
    struct net_policy *unused = rc < 0 ? link->policy : link->before;
    free_texts(req);
    link->policy = rc < 0 ? link->before : link->policy;
    link->before = NULL;
    net_policy_put(&req->np->targets, unused);
    names_changed(req->np);
    req->attached(req->arg, rc, &link->pub, err);
}

int net_change(struct net_link *pub, const struct net_wish *wish, net_attach_cb cb, void *arg,
               struct un_error *err)
{
    struct link *link = un_container_of(pub, struct link, pub);
    struct netplumb *np = link->req.np;
    struct net_policy *policy = NULL;
    int rc = wish ? net_policy_get(&np->targets, wish->key, wish->egress, &policy, err) : 0;
    const struct way way = {OP_CHANGE, on_wish_changed};
    rc = rc < 0 ? rc : begin(link, &way, policy, err);
    if (rc < 0) {
        net_policy_put(&np->targets, policy);
        return rc;
    }
    names_changed(np);
    link->req.attached = cb;
    link->req.arg = arg;
    return 0;
}

void net_detach(struct net_link *pub)
{
    struct link *link = un_container_of(pub, struct link, pub);
    struct netplumb *np = link->req.np;
    np->attached--;
    link->in_use = false;
    link->idle_from_us = un_loop_now_us(np->loop);
    un_list_push(&np->idle, &link->node);
    if (link->lost && remove_idle(link)) {
        return;
    }
    if (!un_timer_armed(&np->linger)) {
        on_linger(np);
    }
}

int net_guest_socket(struct netplumb *np)
{
    return net_namespace_socket(np ? np->ns : NULL);
}

void net_get_stats(const struct netplumb *np, struct net_stats *ret)
{
    *ret = (struct net_stats){.attached = np->attached,
                              .idle = np->links - np->attached,
                              .refused = np->refused,
                              .mended = np->mended};
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
    net_dnsmasq_reconcile(np->dnsmasq);
    np->reconcile = (struct request){.np = np, .done = cb, .arg = arg};
    submit(&np->reconcile, OP_RECONCILE, on_reconciled);
}

void net_close(struct netplumb *np)
{
    if (!np) {
        return;
    }
    un_timer_cancel(&np->linger);
    un_timer_cancel(&np->mend_timer);
    un_workers_free(np->worker);
    net_watch_free(np->watch);
    un_loop_unpost(np->loop, &np->dnsmasq_post);
    net_dnsmasq_stop(np->dnsmasq);
    while (!un_list_empty(&np->idle)) {
        struct link *link = un_list_first(&np->idle, struct link, node);
        un_list_remove(&link->node);
        link_free(link);
    }
    struct un_error err = UN_ERROR_INIT;
    /* A namespace goes with all that is in it. */
    if (np->made && !np->ns && clear(np, &err) < 0) {
        un_log(UN_LOG_WARN, "network not removed in full", "error", err.text);
    }
    net_rules_free(np->rules);
    if (np->nl) {
        nl_socket_free(np->nl);
    }
    net_dnsmasq_free(np->dnsmasq);
    net_segments_done(&np->segments);
    net_range_done(&np->range);
    free(np->guests);
    free(np);
}
