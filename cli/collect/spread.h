/* spread.h - how measured values are spread: the percentiles that `unictl bench` shows.
 *
 * It knows nothing of what was measured. */
#ifndef UNID_CLI_COLLECT_SPREAD_H
#define UNID_CLI_COLLECT_SPREAD_H

#include <stddef.h>
#include <stdint.h>

struct spread {
    uint64_t p50, p90, p99, max;
};

/* The nearest-rank percentile (NIST Engineering Statistics Handbook, 7.2.6.2; Hyndman and Fan's
 * definition 1): the least of the values that at least `percent` per cent of them do not exceed, so
 * always one that was measured. `sorted` ascends; `percent` is 1 to 100; 0 without values. */
uint64_t spread_percentile(const uint64_t *sorted, size_t count, unsigned percent);

/* Sorts the values in place. Zeroes without values. */
struct spread spread_of(uint64_t *values, size_t count);

#endif
