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
 * What is left in the kernel of connections that its last guest opened is ended meanwhile (sockets.h).
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
#include "common/socket.h"
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
#include "netplumb/sockets.h"
#include "netplumb/targets.h"
#include "netplumb/watch.h"

enum op { OP_MAKE, OP_CHANGE, OP_WAIT, OP_FORGET, OP_REMOVE, OP_CLEAR, OP_RECONCILE };
enum { IDLE_LOOKED_AT = 64 }; /* of the idle links, for one with the policy that is wanted */

struct request {
    struct un_job job;
    struct netplumb *np;
    enum op op;
    net_attach_cb attached;
    net_done_cb done;
    void *arg;
    char *rules;  /* OP_MAKE, OP_CHANGE, OP_REMOVE: what changes of what the guest may connect to */
    char *undo;   /* OP_MAKE: what takes that back */
    char *policy; /* OP_MAKE, OP_CHANGE: what is in force then */
};

/* What a struct net_link is the public part of. At most one request of it is under way, and the forgetting of
 * its last guest before that. */
struct link {
    struct net_link pub;
    uint32_t guest;
    bool in_use;           /* its user knows of it */
    bool is_made, is_lost; /* it has been made; its tap is gone */
    bool has_opened;       /* a connection has come from its guest */
    bool is_forgetting;    /* `forgetting` is under way */
    uint64_t idle_from_us;
    struct net_policy *policy; /* as in the rules, or about to be; NULL: nothing */
    struct net_policy *before; /* while a request is under way: what holds if it fails */
    struct un_list node;       /* in idle */
    struct un_list all_node;
    struct un_post ready; /* of an attach that found an idle link */
    struct net_made made; /* the worker's */
    int index;            /* the tap's; the worker's before is_made */
    struct request req, forgetting;
};

struct netplumb {
    struct net_names names;
    struct net_range range;
    uid_t tap_owner;
    struct net_namespace *ns; /* where all of this is; NULL: the host's network */
    uint64_t linger_us;
    struct un_workers *worker;
    struct un_loop *loop;
    struct request reconcile, clearing;
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
    struct nl_sock *nl, *diag; /* rtnetlink; sockets.h */
    struct net_rules *rules;
    bool clean, made; /* nothing of an earlier unid is left; the tables are there */
    bool wider_told;
    struct net_segments segments;
    struct un_list made_links; /* struct net_made */
    bool mend_failed;
    struct net_watch *watch; /* made by the worker, then the loop thread's */
    struct net_mender mender;
};

static void on_linger(void *arg);
static void on_gone(void *arg);
static void on_tap_gone(void *arg, const char *name, int index);
static int look(void *arg, struct un_error *err);

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

int net_range_is_free(const struct netplumb *np, struct un_error *err)
{
    char wider[NET_ROUTE_SIZE];
    struct nl_sock *nl = NULL;
    if (np->ns) {
        return 0; /* there is nobody else */
    }
    int rc = net_socket_new(NETLINK_ROUTE, &nl, err);
    rc = rc < 0 ? rc : net_range_check(nl, &np->names, &np->range, wider, err);
    nl_socket_free(nl);
    return rc;
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
    un_socket_break(fd);
    close(fd);
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
    struct link *link = number < 0 ? NULL : np->guests[number];
    if (!link || !link->in_use || !np->on_open || !net_policy_allows(link->policy, port)) {
        refuse(np, port, guest, fd);
        return;
    }
    struct un_endpoint to = {.port = port->port, .is_address = port->host->literal != 0};
    memcpy(to.host, port->host->host, sizeof(to.host));
    link->has_opened = true;
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
    un_list_init(&np->made_links);
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
    np->mender =
        (struct net_mender){.loop = np->loop, .worker = np->worker, .look = look, .arg = np};
    net_mender_init(&np->mender);
    *ret = np;
    return 0;
}

/* Nothing of ours is in the kernel afterwards. Worker, or net_close when that has ended. */
static int clear(struct netplumb *np, struct un_error *err)
{
    int rc = 0;
    if (!np->nl) {
        rc = net_socket_new(NETLINK_ROUTE, &np->nl, err);
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

/* Removes what an earlier unid left; once. */
static int clear_leftovers(struct netplumb *np, struct un_error *err)
{
    int rc = np->clean ? 0 : clear(np, err);
    np->clean = rc == 0;
    return rc;
}

/* Before the first bridge, each time that there was none. */
static int check_range(struct netplumb *np, struct un_error *err)
{
    char wider[NET_ROUTE_SIZE], base[NET_IP_SIZE];
    int rc = net_range_check(np->nl, &np->names, &np->range, wider, err);
    if (rc == 0 && wider[0] && !np->wider_told) {
        np->wider_told = true;
        un_log(
            UN_LOG_WARN,
            "machines.range is part of what the host has a route to: while there are machines it "
            "does not reach what is behind that",
            "range", net_addr_text(np->range.base, base), "route", wider);
    }
    return rc;
}

static int make_tables(struct netplumb *np, struct un_error *err)
{
    int rc = clear_leftovers(np, err);
    if (rc < 0 || np->made) {
        return rc;
    }
    const struct net_watch_user user = {.loop = np->loop,
                                        .names = &np->names,
                                        .on_gone = on_gone,
                                        .on_tap_gone = on_tap_gone,
                                        .arg = np};
    rc = check_range(np, err);
    rc = rc < 0 || np->watch ? rc : net_watch_new(&user, &np->watch, err);
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
    rc = net_tap_make(np->nl, &np->names, link, np->tap_owner, bridge, err);
    if (rc == 0) {
        rc = net_guest_add(np->nl, bridge, link, err);
        if (rc < 0) {
            net_link_remove(np->nl, link->tap, NULL);
            net_guest_remove(np->nl, bridge, link, NULL);
        }
    }
    if (rc < 0) { /* a tap that could not be made may be another's of that name */
        net_rules_remove_guest(np->rules, &np->names, link, req->undo, NULL);
    }
    return rc;
}

static int run_make(struct request *req, struct un_error *err)
{
    struct netplumb *np = req->np;
    struct net_segment *segment = NULL;
    int rc = make_tables(np, err);
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
    int rc = net_link_remove(np->nl, link->tap, err);
    /* What is told is the first that fails; the others are tried all the same. */
    int more = net_guest_remove(np->nl, segment->bridge, link, rc < 0 ? NULL : err);
    rc = rc < 0 ? rc : more;
    more = net_rules_remove_guest(np->rules, &np->names, link, req->rules, rc < 0 ? NULL : err);
    rc = rc < 0 ? rc : more;
    more = net_segments_leave(&np->segments, np->nl, np->rules, segment, rc < 0 ? NULL : err);
    return rc < 0 ? rc : more;
}

static int run_forget(struct request *req, struct un_error *err)
{
    struct netplumb *np = req->np;
    const struct link *link = un_container_of(req, struct link, forgetting);
    int rc = np->diag ? 0 : net_sockets_open(&np->diag, err);
    return rc < 0 ? rc
                  : net_sockets_end(np->diag, &np->range, net_range_addr(&np->range, link->guest),
                                    err);
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
    case OP_WAIT:
        return 0;
    case OP_FORGET:
        return run_forget(req, err);
    case OP_REMOVE:
        return run_remove(req, err);
    case OP_CLEAR:
        return req->np->made ? clear(req->np, err) : 0;
    default:
        return clear_leftovers(req->np, err);
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

/* The texts that let the link's guest reach what `add` names and no longer what it could. False: out of
 * memory. */
static bool make_texts(struct link *link, const struct net_policy *add)
{
    const struct net_names *names = &link->req.np->names;
    un_autobuf struct un_buf rules = {0}, undo = {0}, policy = {0};
    int rc = net_rules_policy_text(names, false, link->pub.ip, link->policy, &rules);
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
    if (rc < 0) {
        un_log(UN_LOG_WARN, "network not removed in full", "error", err->text);
    }
}

/* Frees it; what all links share goes with the last. Jobs end in order, so that an earlier clearing has:
 * the last link was made after it. */
static void link_gone(struct link *link)
{
    struct netplumb *np = link->req.np;
    link_free(link);
    if (np->links == 0) {
        un_loop_unpost(np->loop, &np->dnsmasq_post);
        net_dnsmasq_stop(np->dnsmasq);
        submit(&np->clearing, OP_CLEAR, on_cleared);
    }
}

static void on_removed(struct un_job *job, int rc, const struct un_error *err)
{
    on_cleared(job, rc, err);
    link_gone(link_of(un_container_of(job, struct request, job)));
}

/* An idle link goes. False: out of memory. */
static bool remove_idle(struct link *link)
{
    bool can = make_texts(link, NULL);
    if (can) {
        un_list_remove(&link->node);
        submit(&link->req, OP_REMOVE, on_removed);
    }
    return can;
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

/* Worker thread. */
static int look(void *arg, struct un_error *err)
{
    struct netplumb *np = arg;
    int rc = net_namespace_join(np->ns);
    if (rc < 0) {
        return un_error_errno(err, rc, "join unid's network namespace");
    }
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
    rc = net_mend(&mend, err);
    np->mend_failed = rc < 0;
    return rc;
}

static void on_gone(void *arg)
{
    struct netplumb *np = arg;
    net_mender_look(&np->mender);
}

static void on_tap_gone(void *arg, const char *name, int index)
{
    struct netplumb *np = arg;
    un_list_for_each_safe (it, &np->all) {
        struct link *link = un_list_entry(it, struct link, all_node);
        if (!link->is_made || link->index != index || link->req.op == OP_REMOVE) {
            continue; /* another's, or unid removes it */
        }
        link->is_lost = true;
        un_log(UN_LOG_WARN, "tap of a machine was removed by another program", "tap", name);
        if (un_list_linked(&link->node)) {
            (void)remove_idle(link); /* else when it has lingered */
        }
    }
}

/* --- what comes and goes ------------------------------------------------------------------------ */

/* What was asked for the link holds; or, when that failed, what held before. */
static void settle(struct link *link, int rc)
{
    struct netplumb *np = link->req.np;
    struct net_policy *unused = rc < 0 ? link->policy : link->before;
    link->policy = rc < 0 ? link->before : link->policy;
    link->before = NULL;
    free_texts(&link->req);
    net_policy_put(&np->targets, unused);
    names_changed(np);
}

static void on_made(struct un_job *job, int rc, const struct un_error *err)
{
    struct request *req = un_container_of(job, struct request, job);
    struct request was = *req;
    struct link *link = link_of(req);
    struct net_link *pub = &link->pub;
    struct un_error why = UN_ERROR_INIT; /* `err` goes with the link */
    settle(link, rc);
    if (rc < 0) {
        un_error_copy(&why, err);
        was.np->attached--;
        link_gone(link);
        pub = NULL;
    } else {
        link->in_use = link->is_made = true;
        if (net_watch_start(was.np->watch, NULL) < 0) {
            un_log(UN_LOG_WARN, "what others remove of the network is not seen", "error",
                   "out of memory");
        }
        un_loop_post(was.np->loop, &was.np->dnsmasq_post); /* it starts while the machine is made */
        net_dnsmasq_changed(was.np->dnsmasq);
    }
    was.attached(was.arg, rc, pub, &why);
}

/* A link that was idle stays so when it failed; one that has a guest stays where it is in any case. */
static void on_changed(struct un_job *job, int rc, const struct un_error *err)
{
    struct request *req = un_container_of(job, struct request, job);
    struct link *link = link_of(req);
    struct net_link *pub = &link->pub;
    settle(link, rc);
    if (rc < 0 && !link->in_use) {
        net_detach(pub);
        pub = NULL;
    } else {
        link->in_use = true;
    }
    req->attached(req->arg, rc, pub, err);
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
    link->req.np = link->forgetting.np = np;
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

/* The policy of that wish (net_policy_put). */
static int policy_of(struct netplumb *np, const struct net_wish *wish, struct net_policy **ret,
                     struct un_error *err)
{
    *ret = NULL;
    return wish ? net_policy_get(&np->targets, wish->key, wish->egress, ret, err) : 0;
}

/* Begins what gives the link its policy, OP_MAKE or OP_CHANGE. Takes the policy, also on failure. */
static int begin(struct link *link, enum op op, struct net_policy *policy, struct un_error *err)
{
    struct netplumb *np = link->req.np;
    bool same = op == OP_CHANGE && link->policy == policy;
    if (same && !link->is_forgetting) {
        net_policy_put(&np->targets, policy); /* it has its own */
        link->ready = (struct un_post){.fn = on_ready, .arg = link};
        un_loop_post(np->loop, &link->ready);
        return 0;
    }
    if (!same && !make_texts(link, policy)) {
        net_policy_put(&np->targets, policy);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    link->before = link->policy;
    link->policy = policy;
    names_changed(np);
    /* Jobs end in order: what is under way has then. */
    submit(&link->req, same ? OP_WAIT : op, op == OP_MAKE ? on_made : on_changed);
    return 0;
}

int net_attach(struct netplumb *np, const struct net_wish *wish, net_attach_cb cb, void *arg,
               struct un_error *err)
{
    struct net_policy *policy;
    int rc = policy_of(np, wish, &policy, err);
    if (rc < 0) {
        return rc;
    }
    struct link *idle = find_idle(np, policy), *link = idle;
    rc = idle ? 0 : link_new(np, &link, err);
    if (rc < 0) {
        net_policy_put(&np->targets, policy);
        return rc;
    }
    rc = begin(link, idle ? OP_CHANGE : OP_MAKE, policy, err);
    if (rc < 0) {
        if (!idle) {
            link_free(link);
        }
        return rc;
    }
    un_list_remove(&link->node);
    np->attached++;
    link->req.attached = cb;
    link->req.arg = arg;
    return 0;
}

bool net_has_room(const struct netplumb *np)
{
    return !un_list_empty(&np->idle) || np->links < np->range.size;
}

int net_change(struct net_link *pub, const struct net_wish *wish, net_attach_cb cb, void *arg,
               struct un_error *err)
{
    struct link *link = un_container_of(pub, struct link, pub);
    struct net_policy *policy;
    int rc = policy_of(link->req.np, wish, &policy, err);
    rc = rc < 0 ? rc : begin(link, OP_CHANGE, policy, err);
    if (rc < 0) {
        return rc;
    }
    link->req.attached = cb;
    link->req.arg = arg;
    return 0;
}

static void on_forgotten(struct un_job *job, int rc, const struct un_error *err)
{
    struct request *req = un_container_of(job, struct request, job);
    un_container_of(req, struct link, forgetting)->is_forgetting = false;
    if (rc < 0) {
        un_log(UN_LOG_DEBUG, "connections of a former machine are not ended", "error", err->text);
    }
}

void net_detach(struct net_link *pub)
{
    struct link *link = un_container_of(pub, struct link, pub);
    struct netplumb *np = link->req.np;
    np->attached--;
    link->in_use = false;
    link->idle_from_us = un_loop_now_us(np->loop);
    un_list_push(&np->idle, &link->node);
    if (link->has_opened) {
        link->has_opened = false;
        link->is_forgetting = true;
        submit(&link->forgetting, OP_FORGET, on_forgotten);
    }
    if (link->is_lost && remove_idle(link)) {
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
                              .mended = np->mender.mended};
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
    net_mender_close(&np->mender);
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
    nl_socket_free(np->nl);
    nl_socket_free(np->diag);
    net_dnsmasq_free(np->dnsmasq);
    net_segments_done(&np->segments);
    net_range_done(&np->range);
    free(np->guests);
    free(np);
}
