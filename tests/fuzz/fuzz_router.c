/* fuzz_router.c - "METHOD target": whatever the target is, the router gives an answer that is
 * safe to use. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/router.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct route table[] = {
    {"*", "/fn/{name}", "gateway", NULL, AUTH_NONE, BODY_STREAM, NULL},
    {"*", "/fn/{name}/{path...}", "gatewayPath", NULL, AUTH_NONE, BODY_STREAM, NULL},
    {"GET", "/api/v1/images", "list", "cursor, limit", AUTH_TOKEN, BODY_NONE, NULL},
    {"GET", "/api/v1/images/{ref}/content", "pull", "", AUTH_TOKEN, BODY_NONE, NULL},
    {"PUT", "/api/v1/functions/{name}/aliases/{alias}", "alias", "", AUTH_TOKEN, BODY_JSON, NULL},
};

static void check(const struct route_match *m, const char *target)
{
    for (size_t i = 0; i < ROUTE_PARAMS_MAX; i++) {
        if (!memchr(m->params[i], 0, ROUTE_PARAM_SIZE)) {
            abort();
        }
        for (const char *c = m->params[i]; *c; c++) {
            if ((unsigned char)*c < 0x20) {
                abort();
            }
        }
    }
    size_t len = 0;
    const char *unknown = route_unknown_param(m, &len);
    if (unknown && (unknown < m->query || len > strlen(unknown))) {
        abort();
    }
    if (m->rest && (m->rest < target || *m->rest != '/')) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct route_match m;
    char value[16];
    char *text = malloc(size + 1);
    if (!text) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    char *target = strchr(text, ' ');
    if (target) {
        *target++ = '\0';
        enum route_result rc =
            route_find(table, sizeof(table) / sizeof(table[0]), text, target, &m);
        if (rc == ROUTE_OK) {
            check(&m, target);
        }
        route_query(strchr(target, '?'), "limit", value, sizeof(value));
    }
    free(text);
    return 0;
}
