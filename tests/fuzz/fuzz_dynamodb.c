/* fuzz_dynamodb.c - what claims to be changes of a table. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "events/dynamodb.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct event_list l;
    struct un_error err = UN_ERROR_INIT;
    if (dynamodb_parse(data, size, &l, &err) < 0) {
        if (!err.text[0]) {
            abort();
        }
        return 0;
    }
    for (size_t i = 0; i < l.count; i++) {
        if (!l.items[i].type || !l.items[i].subject || !l.items[i].id[63]) {
            abort();
        }
    }
    event_list_done(&l);
    return 0;
}
