/* routes.c - the table of routes: all that unid answers. docs/openapi.yaml describes each row. */
#include "api/call.h"

const struct route api_routes[] = {
    /* The gateway first: it is what most requests want. */
    {"*", "/fn/{name}", "gateway", AUTH_NONE, BODY_STREAM, gateway_run},
    {"*", "/fn/{name}/{path...}", "gatewayPath", AUTH_NONE, BODY_STREAM, gateway_run},
    {"GET", "/healthz", "getHealth", AUTH_NONE, BODY_NONE, rest_healthz},
    {"GET", "/readyz", "getReadiness", AUTH_NONE, BODY_NONE, rest_readyz},
    {"GET", "/metrics", "getMetrics", AUTH_TOKEN, BODY_NONE, rest_metrics},
    {"GET", "/api/v1/version", "getVersion", AUTH_TOKEN, BODY_NONE, rest_version},
    {"GET", "/api/v1/doctor", "getDoctor", AUTH_TOKEN, BODY_NONE, rest_doctor},
    {"GET", "/api/v1/openapi.yaml", "getOpenapi", AUTH_TOKEN, BODY_NONE, rest_openapi},

    {"POST", "/api/v1/images", "pushImage", AUTH_TOKEN, BODY_STREAM, rest_image_push},
    {"GET", "/api/v1/images", "listImages", AUTH_TOKEN, BODY_NONE, rest_image_list},
    {"GET", "/api/v1/images/{ref}", "getImage", AUTH_TOKEN, BODY_NONE, rest_image_get},
    {"DELETE", "/api/v1/images/{ref}", "removeImage", AUTH_TOKEN, BODY_NONE, rest_image_remove},
    {"GET", "/api/v1/images/{ref}/content", "pullImage", AUTH_TOKEN, BODY_NONE, rest_image_pull},
    {"POST", "/api/v1/images/{ref}/check", "checkImage", AUTH_TOKEN, BODY_NONE, rest_image_check},
    {"GET", "/api/v1/tags", "listTags", AUTH_TOKEN, BODY_NONE, rest_tag_list},
    {"PUT", "/api/v1/tags/{tag}", "tagImage", AUTH_TOKEN, BODY_JSON, rest_tag_put},
    {"DELETE", "/api/v1/tags/{tag}", "untagImage", AUTH_TOKEN, BODY_NONE, rest_tag_remove},

    {"GET", "/api/v1/functions", "listFunctions", AUTH_TOKEN, BODY_NONE, rest_function_list},
    {"PUT", "/api/v1/functions/{name}", "deployFunction", AUTH_TOKEN, BODY_JSON, rest_function_put},
    {"GET", "/api/v1/functions/{name}", "getFunction", AUTH_TOKEN, BODY_NONE, rest_function_get},
    {"DELETE", "/api/v1/functions/{name}", "removeFunction", AUTH_TOKEN, BODY_NONE,
     rest_function_remove},
    {"GET", "/api/v1/functions/{name}/versions", "listVersions", AUTH_TOKEN, BODY_NONE,
     rest_function_versions},
    {"GET", "/api/v1/functions/{name}/aliases", "listAliases", AUTH_TOKEN, BODY_NONE,
     rest_alias_list},
    {"PUT", "/api/v1/functions/{name}/aliases/{alias}", "setAlias", AUTH_TOKEN, BODY_JSON,
     rest_alias_put},
    {"POST", "/api/v1/functions/{name}/rollback", "rollbackFunction", AUTH_TOKEN, BODY_JSON,
     rest_function_rollback},
    {"POST", "/api/v1/functions/{name}/invocations", "invokeFunction", AUTH_TOKEN, BODY_STREAM,
     rest_invoke},
    {"GET", "/api/v1/functions/{name}/logs", "getLogs", AUTH_TOKEN, BODY_NONE, rest_logs},

    {"GET", "/api/v1/invocations", "listInvocations", AUTH_TOKEN, BODY_NONE, rest_invocation_list},
    {"GET", "/api/v1/invocations/{id}", "getInvocation", AUTH_TOKEN, BODY_NONE,
     rest_invocation_get},
    {"GET", "/api/v1/instances", "listInstances", AUTH_TOKEN, BODY_NONE, rest_instance_list},
    {"DELETE", "/api/v1/instances/{id}", "killInstance", AUTH_TOKEN, BODY_NONE, rest_instance_kill},
};
const size_t api_route_count = sizeof(api_routes) / sizeof(api_routes[0]);
