/* egress.h - what a library OS asks of the host besides request and response: time to pass, and
 * connections to the outside, as far as the function's configuration allows them.
 *
 *     OPEN --> RESOLVING --addresses--> CONNECTING --made--> OPEN
 *                  |                        |                  |
 *                  +--- no such name, ------+--- refused, -----+--- reset
 *                       not allowed              no answer     v
 *                                                            FAILED
 * Each connection is a socket of this process; its bytes are in the kernel's buffers or in the guest,
 * never here, so that the back-pressure is TCP's own. A set of readiness bits is kept up to date by
 * events that fire once and are armed again when a call found nothing to do.
 *
 * A name is allowed when a rule names it with this port. Addresses that belong to this host (loopback,
 * its own interfaces, link-local) are only connected to when the rule says so literally: by an address,
 * or "localhost". So a name whose owner points it at this host opens nothing here.
 *
 * Loop thread; looking names up happens on threads of the resolver.
 */
#ifndef UNID_SCHEDULER_EGRESS_H
#define UNID_SCHEDULER_EGRESS_H

#include "common/error.h"
#include "common/loop.h"
#include "hypervisor/hv.h"

/* --- names to addresses, for all functions together ------------------------------------------- */

struct egress_resolver;
/* Gives a resolver (egress_resolver_free), whose threads are started when needed. -ENOMEM. */
int egress_resolver_new(struct un_loop *loop, struct egress_resolver **ret, struct un_error *err);
/* Waits for look-ups that run. All egresses must be gone. NULL is allowed. */
void egress_resolver_free(struct egress_resolver *r);

/* --- one invocation --------------------------------------------------------------------------- */

struct egress_spec {
    struct un_loop *loop; /* kept, as all below, until egress_free */
    struct egress_resolver *resolver;
    char *const *rules; /* function_config.egress; may be NULL */
    const char *function;
    /* Never called from inside a function but egress_ask. */
    void (*answer)(void *arg, const struct hv_answer *answer);
    void (*ready)(void *arg, uint64_t readable, uint64_t writable);
    /* A line about what was refused, for the function's log. */
    void (*log)(void *arg, const char *line);
    void *arg;
};

struct egress_stats {
    uint32_t connections, refused; /* that were made; that the configuration does not allow */
    uint64_t bytes_in, bytes_out;
};

struct egress;
int egress_new(const struct egress_spec *spec, struct egress **ret, struct un_error *err);
/* The guest asks; `answer` comes at once, but for WAIT. */
void egress_ask(struct egress *e, const struct hv_ask *ask);
void egress_get_stats(const struct egress *e, struct egress_stats *ret);
/* Closes all connections. NULL is allowed. */
void egress_free(struct egress *e);

#endif
