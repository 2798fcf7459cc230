/* policy.h - what becomes of an attempt: pure functions, no clock and no I/O. */
#ifndef UNID_SCHEDULER_ASYNC_POLICY_H
#define UNID_SCHEDULER_ASYNC_POLICY_H

#include "scheduler/async/async.h"

/* What the end of a call means for the event that it was for. */
enum async_judgement {
    ASYNC_DONE,     /* a 2xx answer */
    ASYNC_FAILED,   /* it failed, and may do better later: exit status, fault, time limit, 5xx, 408,
                      * 425, 429, a VM or image that was lost */
    ASYNC_HOPELESS, /* it would fail again: any other status, a body too large, no such function */
    ASYNC_DID_NOT_RUN /* no place, no VM, draining: not the event's fault, and not counted */
};
enum async_judgement async_judge(const struct sched_outcome *outcome, unsigned status);

/* The same for the answer of an HTTP destination; 0: there was none. */
enum async_judgement async_judge_status(unsigned status);

/* Fills in the defaults (of which a 0 is that of common/limits.h), and bounds what is beyond reason. */
struct async_policy async_policy_of(const struct async_policy *wanted,
                                    const struct async_policy *defaults);

/* Full jitter: random in [0, base * 2^(n-1)], n from 1, at most backoff_max_ms. (Brooker,
 * "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.) */
uint64_t async_backoff_us(const struct async_policy *p, unsigned n, uint32_t random);

/* Whether an event that has failed `failures` times, and was accepted `age_us` ago, is given up.
 * `why` gets the sentence for people, and is untouched else. */
bool async_give_up(const struct async_policy *p, unsigned failures, uint64_t age_us, char *why,
                   size_t size);

/* Sequencers as async.h says. <0, 0, >0 as strcmp. */
int async_sequencer_compare(const char *a, const char *b);

/* The fair share of `total` places among lanes: whether a lane that holds `held` of them may take
 * one more while `unused` are free. With k greedy lanes each gets about total / (k + 1), and one
 * share stays free for whoever comes next (Choudhury and Hahne, "Dynamic Queue Length Thresholds
 * for Shared-Memory Packet Switches", 1998, with alpha 1). A lane without any may always. */
bool async_may_claim(unsigned held, unsigned most, unsigned unused);

#endif
