/* asks.c - see asks.h. */
#include "hypervisor/asks.h"

#include <errno.h>

static void on_timer(void *arg)
{
    struct hv_asks *a = arg;
    hv_channel_answer(a->channel, &(struct hv_answer){0});
}

void hv_asks_init(struct hv_asks *a, struct un_loop *loop, struct hv_channel *channel)
{
    *a = (struct hv_asks){.channel = channel, .net_result = -ENOSYS};
    un_timer_init(&a->timer, loop, on_timer, a);
}

void hv_asks_take(struct hv_asks *a, const struct hv_ask *ask)
{
    struct hv_answer answer = {.result = a->net_result};
    if (ask->op != UNID_OP_WAIT) {
        hv_channel_answer(a->channel, &answer);
        return;
    }
    uint64_t us = ask->wait_ns / 1000 + (ask->wait_ns % 1000 != 0);
    if (un_timer_arm_in(&a->timer, us) < 0) {
        hv_channel_answer(a->channel, &answer);
    }
}

void hv_asks_done(struct hv_asks *a)
{
    un_timer_cancel(&a->timer);
}
