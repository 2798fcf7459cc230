/* dial.h - connections that functions open to others, as far as their configuration allows them.
 *
 *     function ── "db.internal:5432" ──> another function of this unid: one end of a socket pair, whose
 *                                        other end is served as if it had come in on a published port
 *     function ── "example.org:443" ───> the outside: looked up here, connected from here
 *
 * Who may connect where is the list "egress" of the function's configuration: "HOST:PORT", matched by
 * name and port. "NAME.internal" is the function NAME, and never looked up in any DNS. Addresses that
 * belong to this host (loopback, its own interfaces, link-local) are only connected to when a rule says
 * so literally: by an address, or "localhost".
 *
 * Loop thread; names are looked up on threads of the dialer.
 */
#ifndef UNID_SCHEDULER_EGRESS_DIAL_H
#define UNID_SCHEDULER_EGRESS_DIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/endpoint.h"
#include "common/error.h"
#include "common/loop.h"

struct dialer;

/* A connection to a function of this unid; borrowed. */
struct dial_inner {
    const char *function;
    uint16_t port;
    unsigned depth; /* of the caller, see dial_spec; at most LIMIT_CALL_DEPTH - 1 */
    int fd;         /* the callee's end: a connected stream socket */
};
/* Serves it: takes `fd` on success. -ENOENT no such function, -ECONNREFUSED it serves no such port. */
typedef int (*dial_serve_fn)(void *arg, const struct dial_inner *to, struct un_error *err);

/* Gives a dialer (dialer_free), whose threads are started when needed. `loop` is kept. -ENOMEM. */
int dialer_new(struct un_loop *loop, struct dialer **ret, struct un_error *err);
/* Waits for look-ups that run. All dials have ended. NULL is allowed. */
void dialer_free(struct dialer *d);
/* Who serves private names; before it is set, and with NULL, they are refused. */
void dialer_on_internal(struct dialer *d, dial_serve_fn serve, void *arg);

/* Once, never inside dial_start or dial_cancel: 0 and a connected non-blocking socket, which is the
 * callee's; or a negative errno and why: -EACCES not allowed, -ENOENT no such name, -ECONNREFUSED,
 * -ETIMEDOUT, -EHOSTUNREACH, -ELOOP functions that call each other, too deep. */
typedef void (*dial_done_fn)(void *arg, int rc, int fd, const struct un_error *why);

struct dial_spec {
    struct dialer *dialer;
    char *const *rules; /* function_config.egress; may be NULL. Borrowed until the start returns */
    const struct un_endpoint *to; /* borrowed until the start returns */
    unsigned
        depth; /* how many functions called each other up to the one that dials; 0: not known */
    dial_done_fn done;
    void *arg;
};

/* Whether one of the rules (as in dial_spec; NULL: none) names the endpoint, or, with `host_only`, its
 * host with some port. */
bool dial_allowed(char *const *rules, const struct un_endpoint *to, bool host_only);

struct dial;
/* Gives an attempt, which is gone when `done` is called. -ENOMEM; -ENOBUFS too many names are being
 * looked up. */
int dial_start(const struct dial_spec *spec, struct dial **ret, struct un_error *err);
/* `done` is not called any more. */
void dial_cancel(struct dial *d);

#endif
