/* door.c - see door.h: ports, and who is behind them. */
#include "api/door_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/endpoint.h"
#include "common/fault.h"
#include "common/log.h"
#include "scheduler/egress/dial.h"

enum { ACCEPT_PAUSE_US = 100000, RETRY_US = 5000000 };

/* One port of one function. */
struct gate {
    struct un_list node;
    struct door *d;
    char function[64];
    char *address; /* as configured; port 0: the kernel chooses */
    int fd;        /* listening; -1: it cannot be opened, `why` */
    uint16_t port; /* that was taken */
    unsigned held; /* by deploys under way */
    bool live;     /* the function's live version publishes it */
    bool tcp;      /* it takes connections, not requests */
    /* What accepts: one of them when it is served. */
    struct evconnlistener *lev;
    struct http_listener *http;
    char *why;
};

/* A look-up of a function for a connection to it, or of what all publish. */
struct lookup {
    struct un_list node;
    struct door *d;
    char function[64];
    int fd; /* -1: none */
    uint16_t port;
    unsigned depth;
};

/* --- one port --------------------------------------------------------------------------------- */

static void stop_serving(struct gate *g)
{
    if (g->lev) {
        evconnlistener_free(un_steal(&g->lev));
    }
    if (g->http) {
        http_listener_close(un_steal(&g->http));
    }
}

static void gate_free(struct gate *g)
{
    un_list_remove(&g->node);
    stop_serving(g);
    if (g->fd >= 0) {
        close(g->fd);
    }
    free(g->address);
    free(g->why);
    free(g);
}

static struct gate *gate_find(const struct door *d, const char *function, const char *address)
{
    un_list_for_each (it, &d->gates) {
        struct gate *g = un_list_entry(it, struct gate, node);
        if (strcmp(g->address, address) == 0 && strcmp(g->function, function) == 0) {
            return g;
        }
    }
    return NULL;
}

static size_t host_length(const char *address)
{
    return (size_t)(strrchr(address, ':') - address);
}

static unsigned port_number(const char *address)
{
    return (unsigned)strtoul(strrchr(address, ':') + 1, NULL, 10);
}

/* Another function that has this port, at this address or at any; NULL: none. */
static const struct gate *gate_of_others(const struct gate *wanted, bool same_address)
{
    unsigned port = port_number(wanted->address);
    size_t len = host_length(wanted->address);
    un_list_for_each (it, &wanted->d->gates) {
        const struct gate *g = un_list_entry(it, struct gate, node);
        bool same_port = port && port == (g->fd < 0 ? port_number(g->address) : g->port);
        if (same_port && strcmp(g->function, wanted->function) != 0 &&
            (!same_address ||
             (len == host_length(g->address) && memcmp(g->address, wanted->address, len) == 0))) {
            return g;
        }
    }
    return NULL;
}

static int gate_listen(struct gate *g, struct un_error *err)
{
    const struct gate *other = gate_of_others(g, true);
    if (other) {
        return un_error_set(err, -EADDRINUSE, "publish: %s is published by function %s already",
                            g->address, other->function);
    }
    int rc = un_fault("door.listen") ? un_error_set(err, -EADDRINUSE, "in use")
                                     : http_socket_listen(g->address, &g->fd, &g->port, err);
    if (rc < 0 && (other = gate_of_others(g, false))) {
        return un_error_set(err, rc, "publish: %s cannot be opened: function %s has published %s",
                            g->address, other->function, other->address);
    }
    return rc < 0 ? un_error_context(err, "publish") : 0;
}

/* Gives a port that is not open yet. NULL: out of memory. */
static struct gate *gate_new(struct door *d, const char *function, const char *address,
                             struct un_error *err)
{
    struct gate *g = un_fault("door.gate") ? NULL : calloc(1, sizeof(*g));
    if (!g || !(g->address = strdup(address))) {
        free(g);
        un_error_set(err, -ENOMEM, "no memory for a port");
        return NULL;
    }
    g->d = d;
    g->fd = -1;
    snprintf(g->function, sizeof(g->function), "%s", function);
    un_list_push(&d->gates, &g->node);
    return g;
}

/* --- accepting connections -------------------------------------------------------------------- */

static void set_accepting(struct door *d, bool on)
{
    d->accept_paused = !on;
    un_list_for_each (it, &d->gates) {
        struct gate *g = un_list_entry(it, struct gate, node);
        if (g->lev && on) {
            evconnlistener_enable(g->lev);
        } else if (g->lev) {
            evconnlistener_disable(g->lev);
        }
    }
}

static void on_accept_timer(void *arg)
{
    set_accepting(arg, true);
}

void door_stream_gone(struct door *d)
{
    if (d->accept_paused && !un_timer_armed(&d->accept_timer)) {
        set_accepting(d, true);
    }
}

static void on_accept(struct evconnlistener *lev, evutil_socket_t fd, struct sockaddr *addr,
                      int len, void *arg)
{
    struct gate *g = arg;
    struct door *d = g->d;
    (void)stream_open(d, g->function, fd, 0, NULL); /* the client sees it closed */
    if (d->stream_count >= LIMIT_TCP_CONNECTIONS) {
        set_accepting(d, false);
    }
}

static void on_accept_error(struct evconnlistener *lev, void *arg)
{
    struct door *d = ((struct gate *)arg)->d;
    set_accepting(d, false);
    if (un_timer_arm_in(&d->accept_timer, ACCEPT_PAUSE_US) < 0) {
        set_accepting(d, true);
    }
}

/* Accepts, as the live version wants it. */
static int serve(struct gate *g, struct un_error *err)
{
    struct door *d = g->d;
    if ((g->tcp ? (void *)g->lev : (void *)g->http) || d->draining) {
        return 0;
    }
    stop_serving(g);
    /* The listener's own: the port stays open without it. */
    int fd = fcntl(g->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        return un_error_errno(err, -errno, "serve %s", g->address);
    }
    if (!g->tcp) {
        struct http_pin pin = {.depth = 0};
        memcpy(pin.name, g->function, sizeof(pin.name));
        return http_server_listen_fd(d->api->http, fd, &pin, &g->http, err);
    }
    g->lev = evconnlistener_new(un_loop_base(d->api->loop), on_accept, g,
                                LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC |
                                    (d->accept_paused ? LEV_OPT_DISABLED : 0),
                                0, fd);
    if (!g->lev) {
        close(fd);
        return un_error_set(err, -ENOMEM, "serve %s: out of memory", g->address);
    }
    evconnlistener_set_error_cb(g->lev, on_accept_error);
    return 0;
}

/* --- what live versions publish --------------------------------------------------------------- */

static void say_why(struct gate *g, const struct un_error *err)
{
    if (!g->why || strcmp(g->why, err->text) != 0) {
        un_log(UN_LOG_WARN, "a published port cannot be opened; it is tried again", "function",
               g->function, "address", g->address, "error", err->text);
    }
    free(g->why);
    g->why = strdup(err->text);
}

static void open_gate(struct gate *g)
{
    struct un_error err = UN_ERROR_INIT;
    int rc = g->fd >= 0 ? 0 : gate_listen(g, &err);
    rc = rc < 0 ? rc : serve(g, &err);
    if (rc < 0) {
        say_why(g, &err);
        (void)un_timer_arm_in(&g->d->retry_timer, RETRY_US); /* else with the next change */
        return;
    }
    free(un_steal(&g->why));
}

static void on_retry(void *arg)
{
    struct door *d = arg;
    un_list_for_each (it, &d->gates) {
        struct gate *g = un_list_entry(it, struct gate, node);
        if (g->live && g->why && !d->draining) {
            open_gate(g);
        }
    }
}

static void sweep(struct door *d, const char *function)
{
    un_list_for_each_safe (it, &d->gates) {
        struct gate *g = un_list_entry(it, struct gate, node);
        if (strcmp(g->function, function) != 0 || g->live) {
            continue;
        }
        if (g->held > 0) {
            stop_serving(g);
        } else {
            gate_free(g);
        }
    }
}

/* Makes the ports of a function what its live version says; NULL: it is gone. */
static void follow(struct door *d, const char *function, const struct function_version *live)
{
    struct un_error err = UN_ERROR_INIT;
    if (d->draining) {
        return;
    }
    un_list_for_each (it, &d->gates) {
        struct gate *g = un_list_entry(it, struct gate, node);
        g->live = g->live && strcmp(g->function, function) != 0;
    }
    for (char *const *p = live ? live->config.publish : NULL; p && *p; p++) {
        struct gate *g = gate_find(d, function, *p);
        g = g ? g : gate_new(d, function, *p, &err);
        if (!g) {
            un_log(UN_LOG_WARN, "a published port cannot be opened", "function", function,
                   "address", *p, "error", err.text);
            continue;
        }
        g->live = true;
        g->tcp = live->config.interface == FUNCTION_TCP;
        open_gate(g);
    }
    sweep(d, function);
}

static void lookup_free(struct lookup *l)
{
    un_list_remove(&l->node);
    if (l->fd >= 0) {
        close(l->fd);
    }
    free(l);
}

static struct lookup *lookup_new(struct door *d, const char *function, int fd)
{
    struct lookup *l = un_fault("door.lookup") ? NULL : calloc(1, sizeof(*l));
    if (l) {
        l->d = d;
        l->fd = fd;
        snprintf(l->function, sizeof(l->function), "%s", function);
        un_list_push(&d->lookups, &l->node);
    }
    return l;
}

static void door_free_if_over(struct door *d)
{
    if (d->closed && un_list_empty(&d->lookups)) {
        free(d);
    }
}

static void on_change(void *arg, const char *function, struct function_version *live)
{
    follow(arg, function, live);
}

/* --- deploys ---------------------------------------------------------------------------------- */

static void let_go(struct door *d, const char *function, char *const *publish, size_t count)
{
    for (size_t i = 0; publish && i < count && publish[i]; i++) {
        struct gate *g = gate_find(d, function, publish[i]);
        if (g) {
            g->held--;
        }
    }
    sweep(d, function);
}

int door_reserve(struct door *d, const char *function, char *const *publish, struct un_error *err)
{
    for (size_t i = 0; publish && publish[i]; i++) {
        struct un_error why = UN_ERROR_INIT;
        struct gate *g = gate_find(d, function, publish[i]);
        g = g ? g : gate_new(d, function, publish[i], &why);
        if (!g || (g->fd < 0 && gate_listen(g, &why) < 0)) {
            let_go(d, function, publish, i);
            un_error_copy(err, &why);
            return why.code;
        }
        g->held++;
    }
    return 0;
}

void door_settle(struct door *d, const char *function, char *const *publish)
{
    let_go(d, function, publish, SIZE_MAX);
}

json_t *door_ports_json(const struct door *d, const char *function)
{
    json_t *list = json_array();
    un_list_for_each (it, &d->gates) {
        const struct gate *g = un_list_entry(it, struct gate, node);
        if (!g->live || strcmp(g->function, function) != 0) {
            continue;
        }
        json_array_append_new(
            list, json_pack("{s:o, s:o}", "address",
                            g->fd < 0 ? json_string(g->address)
                                      : json_sprintf("%.*s:%u", (int)host_length(g->address),
                                                     g->address, g->port),
                            "error", g->why ? json_string(g->why) : json_null()));
    }
    return list;
}

void door_add_findings(const struct door *d, json_t *findings)
{
    un_list_for_each (it, &d->gates) {
        const struct gate *g = un_list_entry(it, struct gate, node);
        if (g->live && g->why) {
            json_array_append_new(
                findings,
                json_pack("{s:s+, s:s, s:s+++, s:s}", "check", "port ", g->address, "status",
                          "warn", "detail", "function ", g->function, ": ", g->why, "fix",
                          "free the port, or deploy the function with another --publish"));
        }
    }
}

/* --- private names ---------------------------------------------------------------------------- */

/* Takes `fd` on success. */
static int serve_inner(struct door *d, const struct function_version *v,
                       const struct dial_inner *to, struct un_error *err)
{
    if (v->config.interface != FUNCTION_TCP) {
        struct http_pin pin = {.depth = to->depth + 1};
        memcpy(pin.name, v->name, sizeof(pin.name));
        return http_server_adopt(d->api->http, to->fd, &pin, err);
    }
    if (v->config.machine.port != to->port) {
        return un_error_set(err, -ECONNREFUSED, "function %s serves port %u, not %u", v->name,
                            v->config.machine.port, to->port);
    }
    return stream_open(d, v->name, to->fd, to->depth + 1, err);
}

static void on_callee(void *arg, int rc, struct function_version *v, const struct un_error *err)
{
    struct lookup *l = arg;
    struct door *d = l->d;
    if (!d->closed && rc == 0) {
        const struct dial_inner to = {
            .port = l->port, .depth = l->depth, .fd = un_steal_fd(&l->fd)};
        if (serve_inner(d, v, &to, NULL) == -ECONNREFUSED) {
            close(to.fd);
        }
    }
    lookup_free(l); /* closes what was not taken: the caller sees an end */
    door_free_if_over(d);
}

static int serve_name(void *arg, const struct dial_inner *to, struct un_error *err)
{
    struct door *d = arg;
    if (!function_name_valid(to->function)) {
        return un_error_set(err, -ENOENT, "%.63s is no function's name", to->function);
    }
    struct function_version *v = function_peek(d->api->registry, to->function, NULL);
    if (v) {
        int rc = serve_inner(d, v, to, err);
        return rc == -ECONNREFUSED ? rc
                                   : 0; /* otherwise the socket has been taken, and may be closed */
    }
    struct lookup *l = lookup_new(d, to->function, to->fd);
    if (!l) {
        return un_error_set(err, -ENOMEM, "no memory for a connection");
    }
    l->port = to->port;
    l->depth = to->depth;
    function_resolve(d->api->registry, to->function, NULL, on_callee, l);
    return 0;
}

/* --- the whole -------------------------------------------------------------------------------- */

int door_open(struct api *a, struct door **ret, struct un_error *err)
{
    struct door *d = calloc(1, sizeof(*d));
    if (!d) {
        return un_error_set(err, -ENOMEM, "no memory for published ports");
    }
    d->api = a;
    un_list_init(&d->gates);
    un_list_init(&d->streams);
    un_list_init(&d->lookups);
    un_timer_init(&d->accept_timer, a->loop, on_accept_timer, d);
    un_timer_init(&d->retry_timer, a->loop, on_retry, d);
    registry_on_change(a->registry, on_change, d);
    dialer_on_internal(sched_dialer(a->scheduler), serve_name, d);
    *ret = d;
    return 0;
}

static void on_published(void *arg, int rc, struct function_version *const *list, size_t count,
                         const struct un_error *err)
{
    struct lookup *l = arg;
    struct door *d = l->d;
    if (rc < 0) {
        un_log(UN_LOG_ERROR, "published ports are not known", "error", err->text);
    }
    for (size_t i = 0; i < count && !d->closed; i++) {
        follow(d, list[i]->name, list[i]);
    }
    if (count == LIMIT_PAGE_ITEMS && !d->closed) {
        function_list_published(d->api->registry, list[count - 1]->name, LIMIT_PAGE_ITEMS,
                                on_published, l);
        return;
    }
    if (!d->closed) {
        d->opened(d->opened_arg);
    }
    lookup_free(l);
    door_free_if_over(d);
}

void door_open_ports(struct door *d, void (*done)(void *arg), void *arg)
{
    struct lookup *l = lookup_new(d, "", -1);
    d->opened = done;
    d->opened_arg = arg;
    if (!l) {
        un_log(UN_LOG_ERROR, "published ports are not opened: out of memory");
        d->opened_post = (struct un_post){.fn = done, .arg = arg};
        un_loop_post(d->api->loop, &d->opened_post);
        return;
    }
    function_list_published(d->api->registry, NULL, LIMIT_PAGE_ITEMS, on_published, l);
}

void door_get_stats(const struct door *d, struct door_stats *ret)
{
    *ret = (struct door_stats){.connections = d->stream_count};
    un_list_for_each (it, &d->gates) {
        const struct gate *g = un_list_entry(it, struct gate, node);
        ret->ports += g->live;
        ret->failed += g->live && g->why;
    }
}

void door_drain(struct door *d)
{
    d->draining = true;
    un_timer_cancel(&d->retry_timer);
    un_list_for_each (it, &d->gates) {
        struct gate *g = un_list_entry(it, struct gate, node);
        if (g->lev) {
            evconnlistener_free(un_steal(&g->lev));
        }
    }
    streams_drain(d);
}

void door_stop_accepting(struct door *d)
{
    d->draining = true;
    un_timer_cancel(&d->accept_timer);
    un_timer_cancel(&d->retry_timer);
    while (!un_list_empty(&d->gates)) {
        gate_free(un_list_first(&d->gates, struct gate, node));
    }
}

void door_close(struct door *d)
{
    if (!d) {
        return;
    }
    door_stop_accepting(d);
    registry_off_change(d->api->registry, on_change, d);
    dialer_on_internal(sched_dialer(d->api->scheduler), NULL, NULL);
    streams_close(d);
    un_loop_unpost(d->api->loop, &d->opened_post);
    d->closed = true;
    door_free_if_over(d);
}
