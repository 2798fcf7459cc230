/* policy.h - how many machines a service has: one decision from counts and the time. Pure. */
#ifndef UNID_SERVICE_POLICY_H
#define UNID_SERVICE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

/* A service that went to sleep keeps one machine made and paused until it has been idle for so many
 * times idle_ms: to start that one takes 5 ms, to make one ten times as long. */
#define SERVICE_SPARE_RESTS 5

struct service_limits {
    uint32_t concurrency; /* requests that one machine serves at once */
    uint32_t min_machines, max_machines;
    uint32_t idle_ms;
    bool per_request; /* a machine serves one request and ends */
    bool exclusive;   /* what it opens is for one machine at a time: at rest it must have none */
};

/* What there is. */
struct service_counts {
    uint32_t waiting;   /* requests without a machine */
    uint32_t in_flight; /* requests at machines */
    uint32_t starting;  /* machines told to run, not ready yet */
    uint32_t ready;     /* of them free places: concurrency * ready - in_flight */
    uint32_t idle;      /* ready without any request */
    uint32_t making;    /* being made; started when made, if wanted then */
    uint32_t paused;    /* made, not started: the bound pool */
    uint64_t used_us;   /* when the last request came; 0: never */
    uint64_t retry_us;  /* a machine failed: none is started before */
    bool leaving; /* another version is live, or another service waits for what this one holds */
    bool judged;  /* it has failed too often: nothing is started until that is decided */
};

struct service_decision {
    uint32_t start;    /* paused machines to start now */
    uint32_t make;     /* machines to begin */
    uint32_t stop;     /* idle ready machines to let go, the longest idle first */
    uint32_t discard;  /* paused machines to let go */
    uint32_t abandon;  /* starting machines to let go */
    uint64_t again_us; /* decide again then; 0: when something happens */
};

/* Starts as many machines as the requests that wait need, never more than max; one machine started
 * serves the whole herd that it has places for. While the service is in use one machine stands paused
 * beside those that run, ready to be started, unless the maximum is reached. When it has been idle for
 * idle_ms, all but min_machines and the paused one go; that one goes after SERVICE_SPARE_RESTS.
 * What is leaving keeps nothing but what requests need, and waits for none. */
void service_decide(const struct service_limits *l, const struct service_counts *c, uint64_t now_us,
                    struct service_decision *ret);

/* Whether a machine is kept paused for the next request although it sleeps. */
bool service_remembered(const struct service_limits *l, const struct service_counts *c,
                        uint64_t now_us);

/* How long no machine is started after the n-th failure in a row: 100 ms, doubling, at most 30 s. */
uint64_t service_backoff_us(uint32_t failures);

#endif
