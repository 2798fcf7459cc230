/* replay.h - failed invocations keep their request, so that it can be run again.
 *
 * While a call runs, its request and what it answers are kept in memory as far as the settings
 * allow; when it ends well they are dropped, else they go to the database together with the receipt,
 * bounded in bytes a request, bytes in all and age. Failed means: it ran in a VM, and did not end
 * with ok, or answered with 500 or above; clients that left are no failure. A request of which a part
 * had not come when its function failed is not kept.
 *
 * A replay is a new invocation of the same function (live, or a version or alias by choice) with the
 * same request; its receipt names the first one, whose request is kept already. Loop thread, but for replay_row_*.
 */
#ifndef UNID_SCHEDULER_RECORD_REPLAY_H
#define UNID_SCHEDULER_RECORD_REPLAY_H

#include "common/bytes.h"
#include "scheduler/scheduler.h"

enum { REPLAY_HASH_SIZE = 65 };

/* An answer: its head, the first bytes of its body, and the hash of all of it. */
struct replay_answer {
    unsigned status;      /* 0: there was none */
    struct un_buf fields; /* "name: value\r\n" each */
    struct un_buf body;
    uint64_t total;                /* bytes of the whole body; body.len of them are kept */
    char sha256[REPLAY_HASH_SIZE]; /* of the whole body; "" when not known */
    char outcome[24];
    char error[256];
    void *md; /* while it comes, beyond what is kept */
};
void replay_answer_done(struct replay_answer *a);
/* Whether the kept body is the whole. */
bool replay_answer_whole(const struct replay_answer *a);

struct replay_result {
    char id[UN_ID_SIZE]; /* of the new invocation */
    char function[64];
    uint32_t version; /* that ran now; 0: it was not found */
    const struct replay_answer *before, *after;
};
/* -ENOENT nothing is kept of this invocation (the text says what is), -EIO etc. the database,
 * -EAGAIN too many replays at once, -ENOMEM, -E2BIG. `result` only with rc 0, borrowed. */
typedef void (*replay_cb)(void *arg, int rc, const struct replay_result *result,
                          const struct un_error *err);
/* Runs the request of invocation `id` again. `qualifier` NULL: the live version. `cb` comes once,
 * from the loop (but -ENOMEM, at once). */
void sched_replay(struct scheduler *s, const char *id, const char *qualifier, replay_cb cb,
                  void *arg);

#endif
