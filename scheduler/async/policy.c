/* policy.c - see policy.h. */
#include "scheduler/async/policy.h"

#include <stdio.h>
#include <string.h>

#include "common/limits.h"

enum {
    ATTEMPTS_MOST = 1000,
    BACKOFF_MOST_MS = 24 * 3600 * 1000 /* a day */
};
#define AGE_MOST_MS (366ull * 24 * 3600 * 1000)

enum async_judgement async_judge_status(unsigned status)
{
    if (status >= 200 && status < 300) {
        return ASYNC_DONE;
    }
    if (status == 0 || status >= 500 || status == 408 || status == 425 || status == 429) {
        return ASYNC_FAILED;
    }
    return ASYNC_HOPELESS;
}

enum async_judgement async_judge(const struct sched_outcome *outcome, unsigned status)
{
    switch (outcome->kind) {
    case SCHED_OK:
        return async_judge_status(status);
    case SCHED_QUEUE_FULL:
    case SCHED_WAIT_EXPIRED:
    case SCHED_DRAINING:
        return ASYNC_DID_NOT_RUN;
    case SCHED_CANNOT_RUN: /* without a time it is the function's configuration */
        return outcome->retry_after_s > 0 ? ASYNC_DID_NOT_RUN : ASYNC_HOPELESS;
    case SCHED_NO_FUNCTION:
    case SCHED_WRONG_INTERFACE:
    case SCHED_REQUEST_TOO_LARGE:
    case SCHED_LENGTH_REQUIRED:
    case SCHED_RESPONSE_TOO_LARGE:
        return ASYNC_HOPELESS;
    case SCHED_FAILED:
    case SCHED_TIMED_OUT:
    case SCHED_CANCELLED:
    case SCHED_INTERNAL:
        break;
    }
    return ASYNC_FAILED;
}

/* The first that is not 0, bounded. */
static uint64_t choose(uint64_t wanted, uint64_t or_else, uint64_t or_last, uint64_t most)
{
    uint64_t value = wanted ? wanted : or_else ? or_else : or_last;

    return value < most ? value : most;
}

struct async_policy async_policy_of(const struct async_policy *wanted,
                                    const struct async_policy *defaults)
{
    const struct async_policy *w = wanted, *d = defaults;
    uint64_t most_ms = choose(w->backoff_max_ms, d->backoff_max_ms, DEFAULT_ASYNC_BACKOFF_MOST_MS,
                              BACKOFF_MOST_MS);

    return (struct async_policy){
        .max_attempts = (unsigned)choose(w->max_attempts, d->max_attempts, DEFAULT_ASYNC_ATTEMPTS,
                                         ATTEMPTS_MOST),
        .max_age_ms = choose(w->max_age_ms, d->max_age_ms, DEFAULT_ASYNC_AGE_MS, AGE_MOST_MS),
        .backoff_base_ms = (uint32_t)choose(w->backoff_base_ms, d->backoff_base_ms,
                                            DEFAULT_ASYNC_BACKOFF_MS, most_ms),
        .backoff_max_ms = (uint32_t)most_ms};
}

uint64_t async_backoff_us(const struct async_policy *p, unsigned n, uint32_t random)
{
    uint64_t us = (uint64_t)p->backoff_base_ms * 1000, most = (uint64_t)p->backoff_max_ms * 1000;

    for (unsigned i = 1; i < n && us < most; i++) {
        us *= 2;
    }
    us = us < most ? us : most;
    return us * random / UINT32_MAX; /* us is below 2^37 */
}

bool async_give_up(const struct async_policy *p, unsigned failures, uint64_t age_us, char *why,
                   size_t size)
{
    if (failures >= p->max_attempts) {
        snprintf(why, size, "%u attempts failed", failures);
        return true;
    }
    if (age_us / 1000 >= p->max_age_ms) {
        snprintf(why, size, "it is %llu s old, and may become %llu s",
                 (unsigned long long)(age_us / 1000000),
                 (unsigned long long)(p->max_age_ms / 1000));
        return true;
    }
    return false;
}

int async_sequencer_compare(const char *a, const char *b)
{
    for (; *a || *b; a += *a != '\0', b += *b != '\0') {
        unsigned char ca = *a ? (unsigned char)*a : '0', cb = *b ? (unsigned char)*b : '0';

        if (ca != cb) {
            return ca < cb ? -1 : 1;
        }
    }
    return 0;
}

bool async_may_claim(unsigned held, unsigned most, unsigned unused)
{
    return unused > 0 && (held == 0 || (held < most && held < unused));
}
