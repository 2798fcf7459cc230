/* pool_policy.c - see pool_policy.h. Pure. */
#include "scheduler/pool_policy.h"

static unsigned at_most(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static void put_off_decay(struct pool_policy *p, uint64_t now_us)
{
    if (p->target <= p->least) {
        p->decay_at = UINT64_MAX;
    } else if (__builtin_add_overflow(now_us, p->idle_us, &p->decay_at)) {
        p->decay_at = UINT64_MAX;
    }
}

void pool_policy_init(struct pool_policy *p, unsigned least, unsigned most, uint64_t idle_us)
{
    *p = (struct pool_policy){
        .least = at_most(least, most),
        .most = most,
        .idle_us = idle_us,
        .decay_at = UINT64_MAX,
    };
    p->target = p->least;
}

void pool_policy_stop(struct pool_policy *p)
{
    p->least = p->most = p->target = 0;
}

void pool_policy_hit(struct pool_policy *p, uint64_t now_us, unsigned left)
{
    if (p->target == 0) {
        p->target = at_most(1, p->most);
    }
    if (left == 0) {
        put_off_decay(p, now_us);
    }
}

void pool_policy_miss(struct pool_policy *p, uint64_t now_us)
{
    if (p->target < p->most) {
        p->target++;
    }
    put_off_decay(p, now_us);
}

void pool_policy_made(struct pool_policy *p)
{
    p->failures = 0;
    p->retry_at = 0;
}

void pool_policy_failed(struct pool_policy *p, uint64_t now_us, uint64_t round, uint32_t random)
{
    uint64_t wait = POOL_RETRY_FIRST_US;

    if (round != p->round) {
        return; /* begun before the failure that is being waited for already */
    }
    p->round++;
    for (unsigned i = 0; i < p->failures && wait < POOL_RETRY_MOST_US; i++) {
        wait *= 2;
    }
    if (wait > POOL_RETRY_MOST_US) {
        wait = POOL_RETRY_MOST_US;
    }
    p->failures++;
    /* From half of it to all of it, so that several daemons do not come back at the same instant.
     */
    p->retry_at = now_us + wait / 2 + random % (wait / 2 + 1);
}

bool pool_policy_broken(const struct pool_policy *p, uint64_t now_us, uint64_t *ret_retry_us)
{
    if (p->failures < POOL_FAILURES_BROKEN || now_us >= p->retry_at) {
        return false;
    }
    *ret_retry_us = p->retry_at - now_us;
    return true;
}

/* How many to begin when nothing stands in the way. */
static unsigned wanted(const struct pool_policy *p, const struct pool_counts *n)
{
    unsigned have = n->idle + n->starting, more = 0;

    if (n->claims > n->starting) {
        return n->claims -
               n->starting; /* requests first; the pool is filled when they are served */
    }
    if (!n->refill || n->claims > 0 || have >= p->target || n->starting >= POOL_REFILL_PARALLEL) {
        return 0;
    }
    more = p->target - have;
    return at_most(more, POOL_REFILL_PARALLEL - n->starting);
}

struct pool_action pool_policy_run(struct pool_policy *p, uint64_t now_us,
                                   const struct pool_counts *n)
{
    struct pool_action action = {.wake_us = UINT64_MAX};

    while (now_us >= p->decay_at && p->target > p->least) {
        p->target--;
        p->decay_at += p->idle_us;
    }
    if (p->target <= p->least) {
        p->decay_at = UINT64_MAX;
    }
    action.wake_us = p->decay_at;
    if (n->idle > p->target + n->claims) {
        action.release = n->idle - p->target - n->claims;
        return action;
    }
    action.start = wanted(p, n);
    if (p->failures > 0 && action.start > 0) {
        if (now_us < p->retry_at) {
            action.start = 0;
            action.wake_us = p->retry_at < action.wake_us ? p->retry_at : action.wake_us;
        } else {
            action.start = n->starting > 0 ? 0 : 1;
        }
    }
    return action;
}
