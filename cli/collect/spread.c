/* spread.c - see spread.h. */
#include "cli/collect/spread.h"

#include <assert.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

uint64_t spread_percentile(const uint64_t *sorted, size_t count, unsigned percent)
{
    assert(percent >= 1 && percent <= 100);
    if (count == 0) {
        return 0;
    }
    /* ceil(count * percent / 100) without a product that could overflow. */
    size_t rank = count / 100 * percent + (count % 100 * percent + 99) / 100;
    return sorted[rank - 1];
}

struct spread spread_of(uint64_t *values, size_t count)
{
    if (count) {
        qsort(values, count, sizeof(*values), compare);
    }
    return (struct spread){.p50 = spread_percentile(values, count, 50),
                           .p90 = spread_percentile(values, count, 90),
                           .p99 = spread_percentile(values, count, 99),
                           .max = spread_percentile(values, count, 100)};
}
