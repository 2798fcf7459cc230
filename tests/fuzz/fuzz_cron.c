/* fuzz_cron.c - schedules: refused with a reason, or with a next time that is later. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "events/cron.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    struct cron c;
    struct un_error err = UN_ERROR_INIT;
    struct tz *tz = NULL;
    memcpy(text, data, size);
    text[size] = '\0';
    int rc = cron_parse(text, &c, &err);
    if (rc < 0 && !err.text[0]) {
        abort();
    }
    if (rc == 0 && tz_load("UTC", &tz, &err) == 0) {
        int64_t at = 1767225600, next = cron_next(&c, tz, at, at);
        if (next <= at || next == CRON_NEVER) {
            abort();
        }
        tz_free(tz);
    }
    free(text);
    return 0;
}
