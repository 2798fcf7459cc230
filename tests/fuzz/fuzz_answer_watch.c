/* fuzz_answer_watch.c - what a machine answers, watched for its end: however it comes in pieces, the same
 * answers let their connection serve another request. The first byte says whether it answers HEAD. */
#include <stdlib.h>

#include "service/service_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct answer_watch whole, bytes;
    size_t used = 0;

    if (size < 2) {
        return 0;
    }
    answer_watch_begin(&whole, data[0] & 1);
    answer_watch_begin(&bytes, data[0] & 1);
    data++;
    size--;
    answer_watch_feed(&whole, data, size);
    must(!whole.reusable || !whole.watching);
    while (used < size && bytes.watching) {
        answer_watch_feed(&bytes, data + used++, 1);
        must(answer_watch_rest(&bytes) == 0 || (bytes.watching && bytes.in_body));
    }
    must(whole.reusable == (bytes.reusable && used == size));
    must(whole.watching == bytes.watching);
    must(answer_watch_rest(&whole) == answer_watch_rest(&bytes));
    return 0;
}
