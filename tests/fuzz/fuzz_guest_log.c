/* fuzz_guest_log.c - whatever a guest writes to its console becomes lines of valid text within the
 * limits, and can be read back. The first byte says how the rest is cut into pieces. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/record/guest_log.h"

enum { MOST_BYTES = 20000, TAIL_BYTES = 200 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text)
{
    for (const uint8_t *p = (const uint8_t *)text; *p; p++) {
        if ((*p < 0x20 && *p != '\t') || *p == 0x7f) {
            abort(); /* a control character came through */
        }
    }
    if (strlen(text) > 3 * GUEST_LOG_LINE_BYTES) { /* each byte may become U+FFFD */
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct guest_log_sink sink = {.max_bytes = MOST_BYTES, .at_us = 1};
    struct guest_log log = {0};
    size_t piece = size > 0 ? data[0] + 1u : 1, lines = 0;
    char tail[TAIL_BYTES];
    char *text, *at;
    const char *line;
    uint64_t at_us;

    for (size_t i = 1; i < size; i += piece) {
        guest_log_add(&log, data + i, size - i < piece ? size - i : piece, &sink);
    }
    guest_log_finish(&log, &sink);
    guest_log_tail(&log, tail, sizeof(tail));
    if (strlen(tail) >= sizeof(tail)) {
        abort();
    }
    for (size_t i = 0; i < log.lines.len; i++) {
        lines += log.lines.data[i] == '\n';
    }
    text = at = un_buf_steal_str(&log.lines);
    while (text && guest_log_next(&at, &at_us, &line)) {
        check_text(line);
        lines--;
    }
    if (lines != 0) {
        abort(); /* what was written cannot be read back */
    }
    free(text);
    guest_log_done(&log);
    return 0;
}
