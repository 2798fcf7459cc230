/* admission.c - see admission.h. Pure. */
#include "scheduler/admission.h"

int admission_class(uint64_t memory_mib, uint64_t shell_mib, uint64_t limit_mib)
{
    if (memory_mib > (limit_mib & ~1ull)) {
        return -1;
    }
    for (unsigned cls = 0; cls < SHELL_CLASSES; cls++) {
        if (memory_mib <= admission_class_mib(cls, shell_mib, limit_mib)) {
            return (int)cls;
        }
    }
    return -1;
}

uint64_t admission_class_mib(unsigned cls, uint64_t shell_mib, uint64_t limit_mib)
{
    uint64_t mib = shell_mib > 2 ? shell_mib : 2;

    limit_mib &= ~1ull;
    for (unsigned i = 0; i < cls && mib < limit_mib; i++) {
        mib *= 2;
    }
    mib = (mib + 1) & ~1ull; /* drivers take multiples of 2 MiB */
    return mib < limit_mib ? mib : limit_mib;
}

enum admission_verdict admission_memory_check(const struct admission_memory *m, uint64_t need_mib,
                                              uint64_t *ret_evict_mib)
{
    uint64_t after;

    if (!__builtin_add_overflow(m->used_mib, need_mib, &after) && after <= m->limit_mib) {
        return ADMIT;
    }
    if (after - m->leaving_mib <= m->limit_mib) {
        return ADMIT_LATER;
    }
    *ret_evict_mib = after - m->leaving_mib - m->limit_mib;
    return ADMIT_EVICT;
}

bool admission_leaves_reserved(uint64_t limit_mib, uint64_t committed_mib, uint64_t need_mib,
                               uint64_t reserved_mib)
{
    uint64_t sum;

    return !__builtin_add_overflow(committed_mib, need_mib, &sum) &&
           !__builtin_add_overflow(sum, reserved_mib, &sum) && sum <= limit_mib;
}

/* Microseconds until the last in the queue is served: a lower bound, as other functions may hold
 * memory too. */
static uint64_t estimate_us(const struct admission_queue *q)
{
    bool memory_less = q->memory_places > 0 && q->memory_places < q->concurrency;
    unsigned most = memory_less ? q->memory_places : q->concurrency;
    unsigned places = most ? most : 1;
    uint64_t rounds = (q->waiting_function + places - 1) / places, us;

    if (__builtin_mul_overflow(rounds, q->mean_us, &us)) {
        return UINT64_MAX;
    }
    return us;
}

bool admission_refuse(const struct admission_queue *q)
{
    return q->waiting_function > q->limit_function || q->waiting_total > q->limit_total ||
           estimate_us(q) > q->wait_us;
}

unsigned admission_retry_after_s(const struct admission_queue *q)
{
    uint64_t s = estimate_us(q) / 1000000;

    if (s < ADMISSION_RETRY_LEAST_S) {
        return ADMISSION_RETRY_LEAST_S;
    }
    return s < ADMISSION_RETRY_MOST_S ? (unsigned)s + 1 : ADMISSION_RETRY_MOST_S;
}

void admission_mean_add(struct admission_mean *m, uint64_t us)
{
    m->us = m->samples == 0 ? us : m->us - m->us / 8 + us / 8;
    if (m->samples < ADMISSION_SAMPLES) {
        m->samples++;
    }
}

uint64_t admission_mean_get(const struct admission_mean *m)
{
    return m->samples < ADMISSION_SAMPLES ? 0 : m->us;
}
