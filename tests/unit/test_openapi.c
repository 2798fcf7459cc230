/* test_openapi.c - docs/openapi.yaml and the table of routes say the same.
 *
 * The description is written so that three indentations carry the operations ("  /path:", "   
 * method:", "      operationId: x"), and so that a parameter's "in: query" comes behind its "name: x" or, under
 * components, is found by its "$ref", which this test reads line by line; that keeps a YAML library out of the
 * build. */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/router.h"

struct operation {
    char path[128], method[16], id[64];
    char query[256]; /* the names of its parameters, as a route has them */
};

static struct operation operations[128];
static size_t operation_count;

/* Parameters of the query that operations refer to. */
static struct component {
    char name[64], param[64];
} components[32];
static size_t component_count;

static const char *const any_methods[] = {"GET",   "HEAD",   "POST",   "PUT",
                                          "PATCH", "DELETE", "OPTIONS"};

static void add_name(char query[256], const char *name)
{
    size_t len = strlen(query);
    assert_true(len + strlen(name) + 3 < 256);
    snprintf(query + len, 256 - len, "%s%s", len ? ", " : "", name);
}

static const char *param_of(const char *component)
{
    for (size_t i = 0; i < component_count; i++) {
        if (strcmp(components[i].name, component) == 0) {
            return components[i].param;
        }
    }
    return NULL;
}

/* "name: x", with or without the dash of a list. */
static bool read_name(const char *line, char name[64])
{
    const char *text = line + strspn(line, " -");
    return sscanf(text, "name: %63s", name) == 1;
}

/* First pass: what is under "components". */
static void read_component(const char *line, char component[64], char name[64])
{
    if (strspn(line, " ") == 4) {
        sscanf(line, " %63[A-Za-z]", component);
    } else if (!read_name(line, name) && strcmp(line, "      in: query\n") == 0) {
        assert_true(component_count < sizeof(components) / sizeof(components[0]));
        strcpy(components[component_count].name, component);
        strcpy(components[component_count++].param, name);
    }
}

/* Second pass: adds the parameter that the line ends or refers to. */
static void read_param(const char *line, char name[64], char query[256])
{
    char component[64];
    const char *ref = strstr(line, "'#/components/parameters/");
    if (ref && sscanf(ref + 25, "%63[A-Za-z]", component) == 1 && param_of(component)) {
        add_name(query, param_of(component));
    } else if (!read_name(line, name) && strcmp(line + strspn(line, " "), "in: query\n") == 0) {
        add_name(query, name);
    }
}

/* The text of "<indent><text>:<rest>" when the line has exactly that indentation. */
static char *item(char *line, size_t indent)
{
    if (strspn(line, " ") != indent || line[indent] == '#') {
        return NULL;
    }
    line[strcspn(line, "\n")] = '\0';
    return line + indent;
}

/* What has been read of the description: parameters of a path are those of its operations too. */
struct place {
    char path[128], method[16], name[64], query[256];
    struct operation *operation;
};

static void read_line(char *line, struct place *at)
{
    char *text, *path = at->path, *method = at->method;
    if (path[0]) {
        read_param(line, at->name, at->operation ? at->operation->query : at->query);
    }
    if ((text = item(line, 2))) {
        path[0] = '\0';
        at->query[0] = '\0';
        at->operation = NULL;
        if (text[0] == '/') {
            snprintf(path, 128, "%.*s", (int)strlen(text) - 1, text);
        }
    } else if ((text = item(line, 4)) && path[0]) {
        size_t len = strcspn(text, ":");
        snprintf(method, 16, "%.*s", (int)(len < 15 ? len : 15), text);
        for (char *c = method; *c; c++) {
            *c = (char)toupper((unsigned char)*c);
        }
    } else if ((text = item(line, 6)) && path[0] && strncmp(text, "operationId: ", 13) == 0) {
        assert_true(operation_count < sizeof(operations) / sizeof(operations[0]));
        struct operation *o = &operations[operation_count++];
        snprintf(o->path, sizeof(o->path), "%s", path);
        snprintf(o->method, sizeof(o->method), "%s", method);
        snprintf(o->id, sizeof(o->id), "%.63s", text + 13);
        snprintf(o->query, sizeof(o->query), "%s", at->query);
        at->operation = o;
    }
}

static int read_description(void **state)
{
    char name[512], line[512], component[64] = "", param[64] = "";
    struct place at = {.path = ""};
    const char *srcdir = getenv("srcdir");
    (void)state;
    snprintf(name, sizeof(name), "%s/docs/openapi.yaml", srcdir ? srcdir : "..");
    FILE *f = fopen(name, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        read_component(line, component, param);
    }
    rewind(f);
    while (fgets(line, sizeof(line), f)) {
        read_line(line, &at);
    }
    fclose(f);
    return 0;
}

/* "{path...}" is "{path}" in OpenAPI. */
static bool same_path(const char *pattern, const char *path)
{
    char plain[128];
    snprintf(plain, sizeof(plain), "%s", pattern);
    char *dots = strstr(plain, "...}");
    if (dots) {
        strcpy(dots, "}");
    }
    return strcmp(plain, path) == 0;
}

static struct operation *described(const char *method, const char *pattern)
{
    for (size_t i = 0; i < operation_count; i++) {
        if (strcmp(operations[i].method, method) == 0 && same_path(pattern, operations[i].path)) {
            return &operations[i];
        }
    }
    return NULL;
}

static void every_route_is_described(void **state)
{
    (void)state;
    for (size_t i = 0; i < api_route_count; i++) {
        const struct route *r = &api_routes[i];
        bool any = strcmp(r->method, "*") == 0;
        size_t methods = any ? sizeof(any_methods) / sizeof(any_methods[0]) : 1;
        for (size_t m = 0; m < methods; m++) {
            const char *method = any ? any_methods[m] : r->method;
            const struct operation *o = described(method, r->pattern);
            if (!o) {
                fail_msg("%s %s is not in docs/openapi.yaml", method, r->pattern);
            }
            if (strncmp(o->id, r->operation, strlen(r->operation)) != 0 ||
                (!any && strlen(o->id) != strlen(r->operation))) {
                fail_msg("%s %s is %s there, %s in the table", method, r->pattern, o->id,
                         r->operation);
            }
        }
    }
}

static void every_described_operation_is_a_route(void **state)
{
    struct route_match m;
    (void)state;
    assert_true(operation_count > 30);
    for (size_t i = 0; i < operation_count; i++) {
        const struct operation *o = &operations[i];
        enum route_result rc = route_find(api_routes, api_route_count, o->method, o->path, &m);
        if (rc != ROUTE_OK || !same_path(m.route->pattern, o->path)) {
            fail_msg("%s %s is described, but no route", o->method, o->path);
        }
    }
}

static void parameters_are_those_of_the_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < api_route_count; i++) {
        const struct route *r = &api_routes[i];
        const struct operation *o = r->query ? described(r->method, r->pattern) : NULL;
        if (o && strcmp(o->query, r->query) != 0) {
            fail_msg("%s %s has the parameters \"%s\" there, \"%s\" in the table", r->method,
                     r->pattern, o->query, r->query);
        }
    }
    assert_string_equal(described("GET", "/api/v1/functions")->query, "cursor, limit");
}

/* What is not REST's may have a query of its own. */
static void any_query_is_let_through_outside_of_rest_only(void **state)
{
    (void)state;
    for (size_t i = 0; i < api_route_count; i++) {
        bool rest = strncmp(api_routes[i].pattern, "/api/v1/", 8) == 0;
        assert_int_equal(api_routes[i].query != NULL, rest);
    }
}

static void operation_ids_are_unique(void **state)
{
    (void)state;
    for (size_t i = 0; i < operation_count; i++) {
        for (size_t k = 0; k < i; k++) {
            assert_string_not_equal(operations[i].id, operations[k].id);
        }
    }
}

/* Events are let in by a trigger's token; whether somebody is there may be asked without. */
static void only_health_functions_and_probes_are_open(void **state)
{
    (void)state;
    for (size_t i = 0; i < api_route_count; i++) {
        const char *p = api_routes[i].pattern;
        bool events = strncmp(p, "/events", 7) == 0;
        bool sends = events && strcmp(api_routes[i].method, "POST") == 0;
        bool open = strncmp(p, "/fn/", 4) == 0 || !strcmp(p, "/healthz") || !strcmp(p, "/readyz") ||
                    (events && !sends);
        assert_int_equal(api_routes[i].auth == AUTH_NONE, open);
        assert_int_equal(api_routes[i].auth == AUTH_EVENT, sends);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_route_is_described),
        cmocka_unit_test(every_described_operation_is_a_route),
        cmocka_unit_test(parameters_are_those_of_the_table),
        cmocka_unit_test(any_query_is_let_through_outside_of_rest_only),
        cmocka_unit_test(operation_ids_are_unique),
        cmocka_unit_test(only_health_functions_and_probes_are_open),
    };
    return cmocka_run_group_tests(tests, read_description, NULL);
}
