/* dial.c - see dial.h: what is allowed, one address after the other, and ways within this unid. */
#include "scheduler/egress/dial.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "scheduler/egress/dial_impl.h"

#define INTERNAL_SUFFIX ".internal"

struct dialer {
    struct un_loop *loop;
    struct dial_resolver *resolver;
    dial_serve_fn serve;
    void *serve_arg;
};

struct dial {
    struct dialer *d;
    struct un_endpoint to;
    unsigned depth;
    dial_done_fn done;
    void *arg;
    struct dial_lookup *lookup;
    union dial_address list[DIAL_ADDRESSES];
    size_t count, at; /* addresses; the one that is being tried */
    int fd;           /* -1: none */
    struct event *writable;
    struct un_timer timer; /* the address takes too long */
    struct un_post post;   /* the first step, or the end */
    struct un_error why;   /* of the last failure */
};

int dialer_new(struct un_loop *loop, struct dialer **ret, struct un_error *err)
{
    struct dialer *d = calloc(1, sizeof(*d));
    int rc = d ? dial_resolver_new(loop, &d->resolver, err)
               : un_error_set(err, -ENOMEM, "out of memory");

    if (rc < 0) {
        free(d);
        return rc;
    }
    d->loop = loop;
    *ret = d;
    return 0;
}

void dialer_free(struct dialer *d)
{
    if (d) {
        dial_resolver_free(d->resolver);
        free(d);
    }
}

void dialer_on_internal(struct dialer *d, dial_serve_fn serve, void *arg)
{
    d->serve = serve;
    d->serve_arg = arg;
}

/* --- what is allowed -------------------------------------------------------------------------- */

static bool is_localhost(const struct un_endpoint *e)
{
    return !e->is_address && !e->below && strcmp(e->host, "localhost") == 0;
}

/* "localhost" is the loopback addresses as well: programs know them by heart. */
static bool localhost_matches(const struct un_endpoint *rule, const struct un_endpoint *to,
                              bool host_only)
{
    return is_localhost(rule) && to->is_address &&
           (strcmp(to->host, "127.0.0.1") == 0 || strcmp(to->host, "::1") == 0) &&
           (host_only || rule->any_port || rule->port == to->port);
}

bool dial_allowed(char *const *rules, const struct un_endpoint *to, bool host_only)
{
    struct un_error err = UN_ERROR_INIT;
    struct un_endpoint rule;

    for (char *const *r = rules; r && *r; r++) {
        if (un_endpoint_parse(*r, strlen(*r), true, &rule, &err) == 0 &&
            (un_endpoint_matches(&rule, to, host_only) ||
             localhost_matches(&rule, to, host_only))) {
            return true;
        }
    }
    return false;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void drop_socket(struct dial *dial)
{
    un_timer_cancel(&dial->timer);
    if (dial->writable) {
        event_free(un_steal(&dial->writable));
    }
    if (dial->fd >= 0) {
        close(dial->fd);
        dial->fd = -1;
    }
}

static void dial_free(struct dial *dial)
{
    dial_lookup_give_up(dial->lookup);
    un_loop_unpost(dial->d->loop, &dial->post);
    drop_socket(dial);
    free(dial);
}

void dial_cancel(struct dial *dial)
{
    dial_free(dial);
}

static void finish(struct dial *dial, int rc, int fd)
{
    dial_done_fn done = dial->done;
    void *arg = dial->arg;
    struct un_error why = dial->why;

    dial_free(dial);
    done(arg, rc, fd, rc < 0 ? &why : NULL);
}

static void finish_failed(void *arg)
{
    struct dial *dial = arg;

    finish(dial, dial->why.code, -1);
}

/* --- addresses -------------------------------------------------------------------------------- */

static void try_next(struct dial *dial);

static void note_failure(struct dial *dial, int rc)
{
    un_error_errno(&dial->why, rc, "connect to %.255s, port %u", dial->to.host, dial->to.port);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct dial *dial = arg;
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(dial->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0) {
        error = errno;
    }
    if (error != 0) {
        note_failure(dial, -error);
        try_next(dial);
        return;
    }
    int made = dial->fd;
    dial->fd = -1;
    finish(dial, 0, made);
}

static void on_slow(void *arg)
{
    struct dial *dial = arg;

    note_failure(dial, -ETIMEDOUT);
    try_next(dial);
}

/* 0 when the address is being connected to. */
static int try_address(struct dial *dial, const union dial_address *a)
{
    int rc;

    dial->fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
    if (dial->fd < 0) {
        return -errno;
    }
    dial->writable = event_new(un_loop_base(dial->d->loop), dial->fd, EV_WRITE, on_writable, dial);
    if (!dial->writable) {
        return -ENOMEM;
    }
    do {
        rc = connect(dial->fd, &a->any, dial_address_len(a)) < 0 ? -errno : 0;
    } while (rc == -EINTR);
    if (rc < 0 && rc != -EINPROGRESS) {
        return rc;
    }
    return event_add(dial->writable, NULL) < 0 ? -ENOMEM : 0;
}

/* Goes on to the next address; the last one's error is the attempt's. */
static void try_next(struct dial *dial)
{
    while (drop_socket(dial), dial->at < dial->count) {
        int rc = try_address(dial, &dial->list[dial->at++]);

        if (rc == 0) {
            if (dial->at < dial->count) {
                (void)un_timer_arm_in(&dial->timer, (uint64_t)LIMIT_EGRESS_CONNECT_MS * 1000);
            }
            return;
        }
        note_failure(dial, rc);
    }
    finish_failed(dial);
}

static void begin_address(void *arg)
{
    try_next(arg);
}

static void on_addresses(void *arg, int rc, const union dial_address *list, size_t count)
{
    struct dial *dial = arg;

    dial->lookup = NULL;
    if (rc == -EACCES) {
        un_error_set(
            &dial->why, rc,
            "the name stands for an address of this host, or for one of its cloud; if that is "
            "meant, allow the address itself, or localhost");
    } else if (rc == -EHOSTUNREACH) {
        un_error_set(&dial->why, rc,
                     "connect to %.255s, port %u: there is no such name, or no name server answers",
                     dial->to.host, dial->to.port);
    } else if (rc < 0) {
        note_failure(dial, rc);
    }
    if (rc < 0) {
        finish_failed(dial);
        return;
    }
    memcpy(dial->list, list, count * sizeof(*list));
    dial->count = count;
    try_next(dial);
}

/* --- functions of this unid ------------------------------------------------------------------- */

static bool is_internal(const struct un_endpoint *to)
{
    size_t len = strlen(to->host), suffix = strlen(INTERNAL_SUFFIX);

    return !to->is_address && len > suffix && strcmp(to->host + len - suffix, INTERNAL_SUFFIX) == 0;
}

static void begin_internal(void *arg)
{
    struct dial *dial = arg;
    int pair[2], rc;

    dial->to.host[strlen(dial->to.host) - strlen(INTERNAL_SUFFIX)] = '\0';
    if (!dial->d->serve) {
        un_error_set(&dial->why, -ENOENT, "private names are not served now");
        finish_failed(dial);
        return;
    }
    if (dial->depth >= LIMIT_CALL_DEPTH) {
        un_error_set(&dial->why, -ELOOP, "functions have called each other %d times in a row",
                     LIMIT_CALL_DEPTH);
        finish_failed(dial);
        return;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
        un_error_errno(&dial->why, -errno, "a pair of sockets");
        finish_failed(dial);
        return;
    }
    const struct dial_inner inner = {
        .function = dial->to.host, .port = dial->to.port, .depth = dial->depth, .fd = pair[1]};
    rc = dial->d->serve(dial->d->serve_arg, &inner, &dial->why);
    if (rc < 0) {
        close(pair[0]);
        close(pair[1]);
        dial->why.code = rc;
        finish_failed(dial);
        return;
    }
    finish(dial, 0, pair[0]);
}

/* --- the start -------------------------------------------------------------------------------- */

/* What is done first, from the loop; a look-up begins at once, and is told later. */
static int choose(struct dial *dial, char *const *rules)
{
    const struct un_endpoint *to = &dial->to;

    if (!dial_allowed(rules, to, false)) {
        un_error_set(&dial->why, -EACCES, "the function's egress does not allow it");
        dial->post.fn = finish_failed;
    } else if (is_internal(to)) {
        dial->post.fn = begin_internal;
    } else if (to->is_address) {
        dial->count = dial_address_read(to->host, to->port, &dial->list[0]) ? 1 : 0;
        dial->post.fn = begin_address;
    } else {
        dial->lookup =
            dial_lookup_start(dial->d->resolver, to, is_localhost(to), on_addresses, dial);
        return dial->lookup ? 0 : -ENOBUFS;
    }
    un_loop_post(dial->d->loop, &dial->post);
    return 0;
}

int dial_start(const struct dial_spec *spec, struct dial **ret, struct un_error *err)
{
    struct dial *dial = un_fault("dial.alloc") ? NULL : calloc(1, sizeof(*dial));

    if (!dial) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    dial->d = spec->dialer;
    dial->to = *spec->to;
    dial->depth = spec->depth;
    dial->done = spec->done;
    dial->arg = spec->arg;
    dial->fd = -1;
    dial->post.arg = dial;
    un_timer_init(&dial->timer, spec->dialer->loop, on_slow, dial);
    note_failure(dial, -EHOSTUNREACH);
    int rc = choose(dial, spec->rules);
    if (rc < 0) {
        dial_free(dial);
        return un_error_set(err, rc, "too many names are being looked up");
    }
    *ret = dial;
    return 0;
}
