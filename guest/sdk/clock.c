/* clock.c - time: what the host said with the request, and the time-stamp counter since. */
#include "sdk.h"

#include <unid/unid.h>

static uint64_t begin_tsc, begin_wall_ns, deadline_ns;

void sdk_clock_begin(const struct unid_call *call)
{
    begin_tsc = sdk_tsc();
    begin_wall_ns = call->wall_ns;
    deadline_ns = call->deadline_ns;
}

bool unid_clock_runs(void)
{
    return sdk_boot()->tsc_hz != 0;
}

uint64_t unid_elapsed_ns(void)
{
    sdk_take_request();
    uint64_t hz = sdk_boot()->tsc_hz;
    if (hz == 0) {
        return 0;
    }
    /* In two parts, so that 64 bits suffice: whole seconds, and the rest (below hz, so the product
     * stays under 2^64 for rates up to 18 GHz). */
    uint64_t ticks = sdk_tsc() - begin_tsc;
    return ticks / hz * 1000000000u + ticks % hz * 1000000000u / hz;
}

uint64_t unid_wall_ns(void)
{
    uint64_t elapsed = unid_elapsed_ns();
    return begin_wall_ns + elapsed;
}

uint64_t unid_remaining_ns(void)
{
    uint64_t elapsed = unid_elapsed_ns();
    if (deadline_ns == 0) {
        return UINT64_MAX;
    }
    return elapsed < deadline_ns ? deadline_ns - elapsed : 0;
}
