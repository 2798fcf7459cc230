/* outgoing.h - connections that machines have opened: each is dialled by the scheduler's dialer, under the
 * rules of its function, and then spliced with the machine's.
 *
 *     machine ── fd ──> DIALLING ──connected──> SPLICED ──both ended──> (gone)
 *                          └── refused: the machine's gets a reset
 *
 * A machine has at most LIMIT_MACHINE_CONNECTIONS at once; more get a reset.
 * Loop thread.
 */
#ifndef UNID_DAEMON_OUTGOING_H
#define UNID_DAEMON_OUTGOING_H

#include "common/loop.h"
#include "scheduler/egress/dial.h"
#include "service/service.h"

struct outgoing;

struct outgoing_spec {
    struct un_loop *loop; /* kept, as the dialer, until outgoing_free */
    struct dialer *dialer;
    /* What has come of connections of a function, beside `count` of each opening; may be NULL. */
    void (*on_counted)(void *arg, const char *function, const struct hv_egress *more);
    void *arg;
};
/* Gives it (outgoing_free). -ENOMEM. */
int outgoing_new(const struct outgoing_spec *spec, struct outgoing **ret, struct un_error *err);
/* Breaks all connections off. NULL is allowed. */
void outgoing_free(struct outgoing *o);

/* Takes the opening's descriptor. */
void outgoing_open(struct outgoing *o, const struct service_opening *opening);
/* The machine has ended: its connections are broken off. */
void outgoing_end(struct outgoing *o, const void *machine);

#endif
