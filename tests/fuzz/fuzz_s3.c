/* fuzz_s3.c - what claims to be an object store's delivery: refused with a reason, or events that have
 * all that they must have, and a body that is JSON. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/json.h"
#include "events/s3.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct s3_delivery d;
    struct un_error err = UN_ERROR_INIT;
    if (s3_parse(data, size, &d, &err) < 0) {
        if (!err.text[0]) {
            abort();
        }
        return 0;
    }
    for (size_t i = 0; i < d.events.count; i++) {
        const struct event *e = &d.events.items[i];
        struct event_field *fields;
        size_t count;
        json_t *root = NULL;
        if (!e->type || !e->bucket || !e->subject || !event_utf8(e->subject) || !e->id[63] ||
            un_json_parse(e->body.data, e->body.len, &root, NULL) < 0) {
            abort();
        }
        json_decref(root);
        if (event_fields(e, &fields, &count) == 0) {
            event_fields_free(fields, count);
        }
    }
    s3_delivery_done(&d);
    return 0;
}
