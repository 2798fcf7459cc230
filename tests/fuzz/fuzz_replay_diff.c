/* fuzz_replay_diff.c - two answers out of the bytes: head and body of each, with 0xff between. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/replay_diff.h"
#include "scheduler/record/replay_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t piece(const uint8_t **data, size_t *size, const uint8_t **ret)
{
    const uint8_t *end = *size ? memchr(*data, 0xff, *size) : NULL;
    size_t len = end ? (size_t)(end - *data) : *size, step = len + (end ? 1 : 0);

    *ret = *data;
    *data += step;
    *size -= step;
    return len;
}

static void fill(struct replay_answer *a, const uint8_t **data, size_t *size)
{
    const uint8_t *at;
    size_t len = piece(data, size, &at);

    if (len > 0 && un_buf_append(&a->fields, at, len) < 0) {
        abort();
    }
    len = piece(data, size, &at);
    if (len > 0 && replay_answer_add(a, at, len, 4096, true) < 0) {
        abort();
    }
    replay_answer_finish(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct replay_answer a = {.status = 500}, b = {.status = 200};
    json_t *diff, *shown;

    fill(&a, &data, &size);
    fill(&b, &data, &size);
    diff = replay_diff(&a, &b);
    shown = replay_answer_json(&a);
    if (!diff || !shown) {
        abort(); /* whatever an answer has, it can be told */
    }
    json_decref(diff);
    json_decref(shown);
    replay_answer_done(&a);
    replay_answer_done(&b);
    return 0;
}
