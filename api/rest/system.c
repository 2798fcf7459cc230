/* system.c - health, readiness, version, and the interface's own description. */
#include <stdio.h>
#include <string.h>

#include "api/call.h"
#include "api/door.h"
#include "api/reply.h"
#include "unid/abi.h"

/* docs/openapi.yaml, put in by openapi.S. */
extern const char api_openapi_yaml[], api_openapi_yaml_end[];

void rest_healthz(struct api_call *call)
{
    reply_json(call, 200, json_pack("{s:s}", "status", "ok"));
}

void rest_readyz(struct api_call *call)
{
    const struct api *a = call->api;
    const char *why = "unid is shutting down";
    if (!a->draining && (!a->is_ready || a->is_ready(a->arg, &why))) {
        reply_json(call, 200, json_pack("{s:s}", "status", "ready"));
    } else {
        reply_problem(call, 503, why);
    }
}

void rest_version(struct api_call *call)
{
    char abi[16];
    snprintf(abi, sizeof(abi), "%d.%d", UNID_ABI_MAJOR, UNID_ABI_MINOR);
    reply_json(call, 200,
               json_pack("{s:s, s:s, s:s, s:s}", "version", call->api->version, "api", "v1", "abi",
                         abi, "driver", call->api->driver));
}

void rest_openapi(struct api_call *call)
{
    http_respond_full(call_take_exchange(call), 200, "application/yaml", api_openapi_yaml,
                      (size_t)(api_openapi_yaml_end - api_openapi_yaml));
}

static void add_room(const struct api *a, json_t *findings)
{
    struct un_error err = UN_ERROR_INIT;
    bool room = !a->store || store_check_room(a->store, 0, &err) == 0;
    json_array_append_new(
        findings, json_pack("{s:s, s:s, s:s, s:s}", "check", "disk", "status", room ? "ok" : "fail",
                            "detail", room ? "the database's disk has room" : err.text, "fix",
                            room ? "" : "make room on the disk of the state directory"));
}

static void on_report(void *arg, const json_t *report)
{
    struct api_call *call = arg;
    json_t *copy = report ? json_deep_copy(report) : NULL;
    if (copy) {
        add_room(call->api, json_object_get(copy, "findings"));
    }
    if (copy && call->api->door) {
        door_add_findings(call->api->door, json_object_get(copy, "findings"));
    }
    reply_json(call, 200, copy);
}

void rest_doctor(struct api_call *call)
{
    if (call->api->doctor) {
        call->api->doctor(call->api->doctor_arg, on_report, call);
    } else {
        reply_problem(call, 404, "this unid makes no report of its health");
    }
}
