/* fuzz_unid_json.c - any bytes as the .unid.json of a root file system. */
#include <stdlib.h>
#include <string.h>

#include "prepare/tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tar_result r = {.program = "unchanged"};
    struct un_error err = UN_ERROR_INIT;
    int rc = tar_read_config(data, size, &r, &err);
    if (rc < 0 ? !err.text[0] || strcmp(r.program, "unchanged") != 0
               : r.program[0] && r.program[0] != '/') {
        abort();
    }
    return 0;
}
