/* asks.h - what a driver answers itself when its user has no on_ask (hv.h): time passes, and there
 * are no connections. Also for guests that run before any request, to be snapshotted.
 *
 *     vm made      hv_asks_init
 *     vm_run       channel.ask = a function that calls hv_asks_take
 *     VM gone      hv_asks_done
 *
 * Loop thread. */
#ifndef UNID_HYPERVISOR_ASKS_H
#define UNID_HYPERVISOR_ASKS_H

#include "hypervisor/channel.h"

struct hv_asks {
    struct un_timer timer;
    struct hv_channel *channel;
    int32_t net_result; /* what every NET call gives: -ENOSYS, unless the driver writes another */
};

/* Keeps `loop` and `channel` until hv_asks_done. */
void hv_asks_init(struct hv_asks *a, struct un_loop *loop, struct hv_channel *channel);

/* Answers: NET calls at once, WAIT when its time has passed (at once when there is no memory for a
 * timer), unless the channel was answered otherwise before. */
void hv_asks_take(struct hv_asks *a, const struct hv_ask *ask);

/* Forgets a WAIT that is being answered. May be called again. */
void hv_asks_done(struct hv_asks *a);

#endif
