/* instances.c - the virtual machines that exist now. */
#include <string.h>

#include "api/call.h"
#include "api/reply.h"

static void add_instance(void *arg, const struct sched_instance_info *info)
{
    bool bound = info->function[0] != '\0';
    json_t *j =
        json_pack("{s:s, s:s, s:s, s:I, s:i, s:I, s:I, s:i}", "id", info->id, "state",
                  info->state_name, "driver", info->driver, "memory_mib", (json_int_t)info->mem_mib,
                  "pid", info->pid, "age_us", (json_int_t)info->age_us, "state_us",
                  (json_int_t)info->state_us, "in_flight", (int)info->in_flight);
    if (j) {
        json_object_set_new(j, "function", bound ? json_string(info->function) : json_null());
        json_object_set_new(j, "version", bound ? json_integer(info->version) : json_null());
        json_object_set_new(j, "invocation_id",
                            info->invocation_id[0] ? json_string(info->invocation_id)
                                                   : json_null());
    }
    reply_add(arg, j);
}

void rest_instance_list(struct api_call *call)
{
    json_t *items = json_array();
    sched_instances(call->api->scheduler, add_instance, &items);
    reply_json(call, 200, reply_page(items, NULL));
}

void rest_instance_kill(struct api_call *call)
{
    struct un_error err = UN_ERROR_INIT;
    int rc = sched_instance_kill(call->api->scheduler, call->match.params[0], &err);
    if (!reply_if_failed(call, rc, &err)) {
        reply_empty(call, 204);
    }
}
