/* fuzz_config.c - the configuration file is read whatever its bytes are, and refused or applied
 * whole. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "daemon/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config c;
    struct un_error err = UN_ERROR_INIT;
    if (config_init(&c, &err) == 0) {
        int rc = config_parse_file(&c, (const char *)data, size, &err);
        if (rc < 0 && err.text[0] == '\0') {
            abort(); /* a refusal without a reason */
        }
        if (rc == 0) {
            config_validate(&c, &err);
        }
    }
    config_done(&c);
    return 0;
}
