/* replay.c - POST /api/v1/invocations/{id}/replay: runs a kept request again and compares. */
#include <string.h>

#include "api/call.h"
#include "api/replay_diff.h"
#include "api/reply.h"
#include "common/id.h"

static void on_replayed(void *arg, int rc, const struct replay_result *r,
                        const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    if (call->ex) {
        http_respond_field(call->ex, "X-Unid-Invocation-Id", r->id);
    }
    json_t *diff = replay_diff(r->before, r->after);
    reply_json(call, 200,
               json_pack("{s:s, s:s, s:s, s:I, s:o, s:o, s:o}", "id", r->id, "replay_of",
                         call->match.params[0], "function", r->function, "version",
                         (json_int_t)r->version, "before", replay_answer_json(r->before), "after",
                         replay_answer_json(r->after), "diff", diff));
}

void rest_invocation_replay(struct api_call *call)
{
    char *qualifier = call->match.params[1];
    const char *id = call->match.params[0];
    if (!un_id_valid(id)) {
        reply_problem(call, 404, "this is no invocation's id");
        return;
    }
    int given = route_query(call->match.query, "version", qualifier, 64);
    if (given < 0 || (given && !*qualifier)) {
        reply_problem(call, 400, "version: must be a version's number or an alias");
        return;
    }
    sched_replay(call->api->scheduler, id, given ? qualifier : NULL, on_replayed, call);
}
