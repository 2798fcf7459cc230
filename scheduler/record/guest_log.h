/* guest_log.h - what one invocation's guest wrote to its console: split into lines, made valid
 * UTF-8, bounded. Pure; the storing and following of logs is in log_store.c.
 *
 * Packed form, in memory and in the database: for each line the wall clock in microseconds in
 * decimal, a space, the text, a newline. Text has no control characters but tabs: what else a guest
 * writes is replaced by U+FFFD, so that a log may be shown on a terminal.
 */
#ifndef UNID_SCHEDULER_RECORD_GUEST_LOG_H
#define UNID_SCHEDULER_RECORD_GUEST_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"

enum {
    GUEST_LOG_LINE_BYTES = 4096, /* a longer line is broken */
    GUEST_LOG_END_BYTES = 4096   /* of a log that was cut, its end is kept as well */
};

struct guest_log {
    struct un_buf lines;   /* packed */
    struct un_buf partial; /* raw bytes of a line that has not ended */
    uint64_t taken;        /* raw bytes so far */
    bool cut;              /* the limit was reached */
    struct un_buf end;     /* raw: the last bytes behind the cut */
    uint64_t left_out;     /* raw bytes between the cut and `end` */
};

/* Called for each line that has become complete. `text` is borrowed. */
typedef void (*guest_log_fn)(void *arg, uint64_t at_us, const char *text);

/* Takes bytes; beyond `max_bytes` in all they are dropped, and a line says so; but the last of them, at most
 * GUEST_LOG_END_BYTES and `max_bytes`, are kept until the log is finished. `fn` may be NULL. */
struct guest_log_sink {
    uint64_t max_bytes, at_us;
    guest_log_fn fn;
    void *arg;
};
void guest_log_add(struct guest_log *log, const void *data, size_t len,
                   const struct guest_log_sink *sink);
/* Forgets that the limit was reached, and what was kept: the next bytes count from 0. */
void guest_log_resume(struct guest_log *log);
/* The guest has ended: a line without newline is a line, and a log that was cut gets its last lines. */
void guest_log_finish(struct guest_log *log, const struct guest_log_sink *sink);
void guest_log_done(struct guest_log *log);

/* The text of the last lines, as far as they fit into `size` bytes with the NUL. */
void guest_log_tail(const struct guest_log *log, char *buf, size_t size);

/* Takes the next line out of packed text (which is modified: the newline becomes a NUL); false at
 * the end or where the text is malformed. */
bool guest_log_next(char **at, uint64_t *ret_at_us, const char **ret_text);

/* Appends `len` bytes as valid UTF-8 without control characters. 0 or -ENOMEM. */
int guest_log_sanitise(struct un_buf *out, const uint8_t *data, size_t len);

#endif
