/* fuzz_trigger.c - a trigger's configuration: refused with a reason, or written and read again as the
 * same. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/json.h"
#include "events/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *root = NULL;
    struct trigger_config c, again;
    struct un_error err = UN_ERROR_INIT;
    if (un_json_parse(data, size, &root, &err) < 0) {
        return 0;
    }
    int rc = trigger_config_parse(root, &c, &err);
    json_decref(root);
    if (rc < 0) {
        if (!err.text[0]) {
            abort();
        }
        return 0;
    }
    json_t *one = trigger_config_to_json(&c);
    json_object_del(one, "has_credentials");
    if (trigger_config_parse(one, &again, &err) < 0) {
        abort();
    }
    json_t *two = trigger_config_to_json(&again);
    json_object_del(two, "has_credentials");
    if (!json_equal(one, two)) {
        abort();
    }
    json_decref(one);
    json_decref(two);
    trigger_config_done(&c);
    trigger_config_done(&again);
    return 0;
}
