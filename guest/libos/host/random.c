/* random.c - getrandom's bytes: the SDK's generator (ChaCha20), seeded by the host with each request.
 *
 * Before the first request there is the host's entropy of the start; what it gave is in every clone
 * of the snapshot, what comes behind host_next is in none. */
#include "guest/sdk/sdk.h"
#include "host.h"
#include "host/channel.h"

static struct sdk_drbg generator;

void random_seed(const uint8_t seed[UNID_ENTROPY_SIZE])
{
    /* What was there before is mixed in: never worse than either. */
    uint8_t mixed[UNID_ENTROPY_SIZE];
    sdk_drbg_read(&generator, mixed, sizeof(mixed));
    for (size_t i = 0; i < sizeof(mixed); i++) {
        mixed[i] ^= seed[i];
    }
    sdk_drbg_seed(&generator, mixed);
    memset(mixed, 0, sizeof(mixed));
}

void host_random_at_start(void *to, size_t len)
{
    sdk_drbg_read(&generator, to, len);
}

void host_random(void *to, size_t len)
{
    host_note_random();
    host_random_at_start(to, len);
}
