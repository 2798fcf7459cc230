/* fuzz_tz.c - time zone files: refused, or with offsets and changes that move on. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "events/tz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tz *tz = NULL;
    struct un_error err = UN_ERROR_INIT;
    if (tz_parse(data, size, &tz, &err) < 0) {
        if (!err.text[0]) {
            abort();
        }
        return 0;
    }
    int64_t at = 0;
    for (unsigned i = 0; i < 64 && at != TZ_NEVER; i++) {
        int64_t next = tz_next_change(tz, at);
        int32_t offset = tz_offset(tz, at);
        if (next <= at || offset < -26 * 3600 || offset > 26 * 3600) {
            abort();
        }
        (void)tz_from_local(tz, at);
        at = next;
    }
    tz_free(tz);
    return 0;
}
