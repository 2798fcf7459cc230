/* egress.h - what a library OS asks of the host besides request and response: time to pass, and
 * connections to the outside, as far as the function's configuration allows them.
 *
 *     OPEN --> DIALLING --made--> OPEN
 *                  |               |
 *                  +--- refused ---+--- reset --> FAILED
 * Each connection is a socket of this process; its bytes are in the kernel's buffers or in the guest,
 * never here, so that the back-pressure is TCP's own. A set of readiness bits is kept up to date by
 * events that fire once and are armed again when a call found nothing to do.
 *
 * What is allowed, and how it is connected to, is the dialer's (dial.h); what is asked for the guest, and
 * what it is told, is here. Loop thread.
 */
#ifndef UNID_SCHEDULER_EGRESS_EGRESS_H
#define UNID_SCHEDULER_EGRESS_EGRESS_H

#include "common/error.h"
#include "common/loop.h"
#include "hypervisor/hv.h"
#include "scheduler/egress/dial.h"

struct egress_spec {
    struct un_loop *loop; /* kept, as all below, until egress_free */
    struct dialer *dialer;
    char *const *rules; /* function_config.egress; may be NULL */
    const char *function;
    unsigned depth; /* of the invocation, see dial_spec */
    /* Never called from inside a function but egress_ask. */
    void (*answer)(void *arg, const struct hv_answer *answer);
    void (*ready)(void *arg, uint64_t readable, uint64_t writable);
    /* A line about what was refused, for the function's log. */
    void (*log)(void *arg, const char *line);
    void *arg;
};

struct egress;
int egress_new(const struct egress_spec *spec, struct egress **ret, struct un_error *err);
/* The guest asks; `answer` comes at once, but for WAIT. */
void egress_ask(struct egress *e, const struct hv_ask *ask);
void egress_get_stats(const struct egress *e, struct hv_egress *ret);
/* Closes all connections. NULL is allowed. */
void egress_free(struct egress *e);

#endif
