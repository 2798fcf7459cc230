/* outgoing.c - see outgoing.h. */
#include "daemon/outgoing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/list.h"
#include "common/log.h"
#include "common/splice.h"

struct outgoing {
    struct un_loop *loop;
    struct dialer *dialer;
    struct un_list conns;
    uint64_t told_us; /* when a refusal was last logged */
};

struct conn {
    struct un_list node;
    struct outgoing *o;
    const void *machine;
    struct dial *dial; /* DIALLING */
    struct un_splice *splice;
    int fd; /* the machine's, while DIALLING; else -1 */
    char function[64];
    struct un_endpoint to;
};

static void reset(int fd)
{
    struct linger now = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd);
}

static void conn_free(struct conn *c)
{
    un_list_remove(&c->node);
    if (c->dial) {
        dial_cancel(c->dial);
    }
    un_splice_free(c->splice);
    if (c->fd >= 0) {
        reset(c->fd);
    }
    free(c);
}

int outgoing_new(struct un_loop *loop, struct dialer *dialer, struct outgoing **ret,
                 struct un_error *err)
{
    struct outgoing *o = calloc(1, sizeof(*o));
    if (!o) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    o->loop = loop;
    o->dialer = dialer;
    un_list_init(&o->conns);
    *ret = o;
    return 0;
}

void outgoing_free(struct outgoing *o)
{
    if (!o) {
        return;
    }
    while (!un_list_empty(&o->conns)) {
        conn_free(un_list_first(&o->conns, struct conn, node));
    }
    free(o);
}

/* At most one a second. */
static void tell_refusal(struct outgoing *o, const struct conn *c, const char *why)
{
    char to[UN_ENDPOINT_TEXT_SIZE];
    uint64_t now = un_loop_now_us(o->loop);
    if (o->told_us && now - o->told_us < 1000000) {
        return;
    }
    o->told_us = now;
    un_log(UN_LOG_WARN, "connection of a machine not made", "function", c->function, "to",
           un_endpoint_text(&c->to, to), "reason", why);
}

static void on_spliced(void *arg, const struct un_splice_stats *stats)
{
    struct conn *c = arg;
    c->splice = NULL;
    conn_free(c);
}

static void on_dialled(void *arg, int rc, int fd, const struct un_error *why)
{
    struct conn *c = arg;
    struct un_error err = UN_ERROR_INIT;
    c->dial = NULL;
    if (rc < 0) {
        tell_refusal(c->o, c, why->text);
        conn_free(c);
        return;
    }
    if (un_splice_new(c->o->loop, c->fd, fd, on_spliced, c, &c->splice, &err) < 0) {
        tell_refusal(c->o, c, err.text);
        close(fd);
        conn_free(c);
        return;
    }
    c->fd = -1;
}

void outgoing_open(struct outgoing *o, const struct service_opening *opening)
{
    struct un_error err = UN_ERROR_INIT;
    struct conn *c = calloc(1, sizeof(*c));
    if (!c) {
        reset(opening->fd);
        return;
    }
    c->o = o;
    c->machine = opening->machine;
    c->fd = opening->fd;
    c->to = *opening->to;
    snprintf(c->function, sizeof(c->function), "%s", opening->function);
    un_list_push(&o->conns, &c->node);
    const struct dial_spec spec = {.dialer = o->dialer,
                                   .rules = opening->egress,
                                   .to = opening->to,
                                   .done = on_dialled,
                                   .arg = c};
    if (dial_start(&spec, &c->dial, &err) < 0) {
        tell_refusal(o, c, err.text);
        conn_free(c);
    }
}

void outgoing_end(struct outgoing *o, const void *machine)
{
    un_list_for_each_safe (it, &o->conns) {
        struct conn *c = un_list_entry(it, struct conn, node);
        if (c->machine == machine) {
            conn_free(c);
        }
    }
}
