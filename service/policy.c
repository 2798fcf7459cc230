/* policy.c - see policy.h. */
#include "service/policy.h"

enum { BACKOFF_FIRST_US = 100000, BACKOFF_MOST_US = 30000000, BACKOFF_DOUBLINGS = 9 };

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* a - b, not below 0. */
static uint32_t over(uint32_t a, uint32_t b)
{
    return a > b ? a - b : 0;
}

/* Machines that should run (or be on their way to that) for the requests there are. */
static uint32_t wanted(const struct service_limits *l, const struct service_counts *c)
{
    uint64_t requests = (uint64_t)c->waiting + c->in_flight;
    uint32_t per = l->per_request ? 1 : l->concurrency;
    uint64_t machines = (requests + per - 1) / per;
    uint32_t n = machines > l->max_machines ? l->max_machines : (uint32_t)machines;
    return n > l->min_machines || c->leaving ? n : l->min_machines;
}

static uint64_t rest_us(const struct service_limits *l)
{
    return (uint64_t)l->idle_ms * 1000;
}

static bool in_use(const struct service_limits *l, const struct service_counts *c, uint64_t now_us)
{
    return c->used_us && !c->leaving && now_us < c->used_us + rest_us(l);
}

bool service_remembered(const struct service_limits *l, const struct service_counts *c,
                        uint64_t now_us)
{
    return c->used_us && !c->leaving && !l->exclusive &&
           now_us < c->used_us + SERVICE_SPARE_RESTS * rest_us(l);
}

void service_decide(const struct service_limits *l, const struct service_counts *c, uint64_t now_us,
                    struct service_decision *ret)
{
    uint32_t want = wanted(l, c), running = c->starting + c->ready;
    bool used = in_use(l, c, now_us), kept = used || service_remembered(l, c, now_us);
    /* One to spare; a service that is forgotten has only what the minimum asks. */
    uint32_t spare = kept && want < l->max_machines ? 1 : 0;
    uint32_t lack = over(want, running);
    *ret =
        (struct service_decision){.again_us = used   ? c->used_us + rest_us(l)
                                              : kept ? c->used_us + SERVICE_SPARE_RESTS * rest_us(l)
                                                     : 0};

    if (now_us < c->retry_us) {
        ret->again_us = c->retry_us;
    } else if (!c->judged) {
        ret->start = least(lack, c->paused);
        uint32_t made = c->paused - ret->start + c->making;
        ret->make = over(lack - ret->start + spare, made);
        ret->make = least(ret->make, over(l->max_machines, running + ret->start + made));
    }
    if (c->waiting == 0 && !used) {
        ret->stop = least(c->idle, over(c->ready, want));
        ret->discard = over(c->paused - ret->start, spare);
        ret->abandon = c->leaving ? c->starting : 0;
    }
}

uint64_t service_backoff_us(uint32_t failures)
{
    uint64_t us = BACKOFF_FIRST_US;
    for (uint32_t i = 1; i < failures && i < BACKOFF_DOUBLINGS; i++) {
        us *= 2;
    }
    return failures == 0 ? 0 : us > BACKOFF_MOST_US ? BACKOFF_MOST_US : us;
}
