/* random.c - the machine's random generator. It is seeded with the request, never before, so that
 * two machines from one snapshot do not draw the same numbers. */
#include "sdk.h"

#include <string.h>
#include <unid/unid.h>

static struct sdk_drbg generator;

void sdk_random_begin(struct unid_call *call)
{
    sdk_drbg_seed(&generator, call->entropy);
    memset(call->entropy, 0, sizeof(call->entropy));
}

void unid_random(void *buf, size_t n)
{
    sdk_take_request();
    sdk_drbg_read(&generator, buf, n);
}
