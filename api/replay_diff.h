/* replay_diff.h - what differs between two answers. Pure; the bytes are a guest's: untrusted. */
#ifndef UNID_API_REPLAY_DIFF_H
#define UNID_API_REPLAY_DIFF_H

#include <jansson.h>

#include "scheduler/record/replay.h"

/* {"same": bool, "status": [a, b] or absent, "headers": [{"name", "before", "after"}], "body": ...}.
 * The body is {"kind": "same"}, {"kind": "text", "diff": lines as diff -u has them}, or {"kind":
 * "binary"}, when one of them is no text, is not kept whole, or is too long to be compared by line;
 * sizes and hashes are in the answers themselves. NULL: out of memory. */
json_t *replay_diff(const struct replay_answer *before, const struct replay_answer *after);

/* One answer: {"status", "outcome", "error", "headers", "body": {"size", "kept", "sha256", "text"}}. */
json_t *replay_answer_json(const struct replay_answer *a);

#endif
