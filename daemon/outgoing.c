/* outgoing.c - see outgoing.h. */
#include "daemon/outgoing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/limits.h"
#include "common/list.h"
#include "common/log.h"
#include "common/socket.h"
#include "common/splice.h"

struct outgoing {
    struct outgoing_spec spec;
    struct un_list peers;
    uint64_t told_us; /* until when the refusals that were logged count, at TOLD_US each */
};
enum { TOLD_US = 1000000, TOLD_MAX = 20 };

/* A machine that has connections. */
struct peer {
    struct un_list node;
    struct outgoing *o;
    const void *machine;
    struct hv_egress *tally;
    struct un_list conns;
    unsigned count;
};

struct conn {
    struct un_list node;
    struct peer *peer;
    struct dial *dial; /* DIALLING */
    struct un_splice *splice;
    int fd; /* the machine's, while DIALLING; else -1 */
    char function[64];
    struct un_endpoint to;
};

static void break_off(int fd)
{
    un_socket_break(fd);
    close(fd);
}

static struct peer *peer_find(const struct outgoing *o, const void *machine)
{
    un_list_for_each (it, &o->peers) {
        struct peer *p = un_list_entry(it, struct peer, node);
        if (p->machine == machine) {
            return p;
        }
    }
    return NULL;
}

static struct peer *peer_get(struct outgoing *o, const void *machine)
{
    struct peer *p = peer_find(o, machine);
    if (!p && (p = calloc(1, sizeof(*p)))) {
        p->o = o;
        p->machine = machine;
        un_list_init(&p->conns);
        un_list_push(&o->peers, &p->node);
    }
    return p;
}

static void peer_put(struct peer *p)
{
    if (p->count == 0) {
        un_list_remove(&p->node);
        free(p);
    }
}

static void tally(const struct conn *c, const struct hv_egress *more)
{
    const struct outgoing_spec *spec = &c->peer->o->spec;
    hv_egress_add(c->peer->tally, more);
    if (spec->on_counted) {
        spec->on_counted(spec->arg, c->function, more);
    }
}

static void tally_bytes(const struct conn *c, const struct un_splice_stats *stats)
{
    const struct hv_egress bytes = {.bytes_out = stats->a_to_b, .bytes_in = stats->b_to_a};
    tally(c, &bytes);
}

static void conn_free(struct conn *c)
{
    struct peer *p = c->peer;
    if (c->splice) {
        struct un_splice_stats stats;
        un_splice_get_stats(c->splice, &stats);
        tally_bytes(c, &stats);
    }
    un_list_remove(&c->node);
    p->count--;
    peer_put(p);
    if (c->dial) {
        dial_cancel(c->dial);
    }
    un_splice_free(c->splice);
    if (c->fd >= 0) {
        break_off(c->fd);
    }
    free(c);
}

int outgoing_new(const struct outgoing_spec *spec, struct outgoing **ret, struct un_error *err)
{
    struct outgoing *o = calloc(1, sizeof(*o));
    if (!o) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    o->spec = *spec;
    un_list_init(&o->peers);
    *ret = o;
    return 0;
}

void outgoing_free(struct outgoing *o)
{
    if (!o) {
        return;
    }
    while (!un_list_empty(&o->peers)) {
        outgoing_end(o, un_list_first(&o->peers, struct peer, node)->machine);
    }
    free(o);
}

/* One line each TOLD_US, and TOLD_MAX at once behind a pause: a guest that tries again and again does not fill the
 * log, and one refusal does not hide another function's. */
static bool may_tell(struct outgoing *o)
{
    uint64_t now = un_loop_now_us(o->spec.loop), from = o->told_us > now ? o->told_us : now;
    if (from + TOLD_US > now + TOLD_MAX * TOLD_US) {
        return false;
    }
    o->told_us = from + TOLD_US;
    return true;
}

/* The connection is not made, for `rc`: it is counted, and logged as far as may_tell. */
static void refuse(struct conn *c, int rc, const char *why)
{
    struct outgoing *o = c->peer->o;
    bool refused = rc == -EACCES || rc == -ELOOP || rc == -EDQUOT;
    const struct hv_egress one = {.refused = refused, .failed = !refused};
    char to[UN_ENDPOINT_TEXT_SIZE];
    tally(c, &one);
    if (!may_tell(o)) {
        return;
    }
    un_log(UN_LOG_WARN, "connection of a machine not made", "function", c->function, "to",
           un_endpoint_text(&c->to, to), "reason", why);
}

static void on_spliced(void *arg, const struct un_splice_stats *stats)
{
    struct conn *c = arg;
    c->splice = NULL;
    tally_bytes(c, stats);
    conn_free(c);
}

static void on_dialled(void *arg, int rc, int fd, const struct un_error *why)
{
    static const struct hv_egress made = {.connections = 1};
    struct conn *c = arg;
    struct un_error err = UN_ERROR_INIT;
    c->dial = NULL;
    if (rc < 0) {
        refuse(c, rc, why->text);
        conn_free(c);
        return;
    }
    rc = un_splice_new(c->peer->o->spec.loop, c->fd, fd, on_spliced, c, &c->splice, &err);
    if (rc < 0) {
        refuse(c, rc, err.text);
        close(fd);
        conn_free(c);
        return;
    }
    c->fd = -1;
    tally(c, &made);
}

/* NULL: out of memory. */
static struct conn *conn_new(struct outgoing *o, const struct service_opening *opening)
{
    struct peer *p = peer_get(o, opening->machine);
    struct conn *c = p ? calloc(1, sizeof(*c)) : NULL;
    if (!c) {
        if (p) {
            peer_put(p);
        }
        return NULL;
    }
    c->peer = p;
    p->tally = opening->count;
    c->fd = opening->fd;
    c->to = *opening->to;
    snprintf(c->function, sizeof(c->function), "%s", opening->function);
    un_list_push(&p->conns, &c->node);
    p->count++;
    return c;
}

void outgoing_open(struct outgoing *o, const struct service_opening *opening)
{
    struct un_error err = UN_ERROR_INIT;
    struct conn *c = conn_new(o, opening);
    if (!c) {
        break_off(opening->fd);
        return;
    }
    if (c->peer->count > LIMIT_MACHINE_CONNECTIONS) {
        refuse(c, -EDQUOT, "the machine has as many connections as it may have");
        conn_free(c);
        return;
    }
    const struct dial_spec spec = {.dialer = o->spec.dialer,
                                   .rules = opening->egress,
                                   .to = opening->to,
                                   .depth = opening->depth,
                                   .done = on_dialled,
                                   .arg = c};
    int rc = dial_start(&spec, &c->dial, &err);
    if (rc < 0) {
        refuse(c, rc, err.text);
        conn_free(c);
    }
}

void outgoing_end(struct outgoing *o, const void *machine)
{
    struct peer *p = peer_find(o, machine);
    for (unsigned left = p ? p->count : 0; left > 0; left--) {
        conn_free(un_list_first(&p->conns, struct conn, node)); /* the last frees `p` */
    }
}
