/* test_router.c - from method and target to a route, and the query's parameters. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "api/router.h"

static const struct route table[] = {
    {"*", "/fn/{name}", "gateway", AUTH_NONE, BODY_STREAM, NULL},
    {"*", "/fn/{name}/{path...}", "gatewayPath", AUTH_NONE, BODY_STREAM, NULL},
    {"GET", "/things", "list", AUTH_TOKEN, BODY_NONE, NULL},
    {"POST", "/things", "add", AUTH_TOKEN, BODY_JSON, NULL},
    {"GET", "/things/{id}", "get", AUTH_TOKEN, BODY_NONE, NULL},
    {"DELETE", "/things/{id}", "remove", AUTH_TOKEN, BODY_NONE, NULL},
    {"PUT", "/things/{id}/parts/{part}", "part", AUTH_TOKEN, BODY_JSON, NULL},
};

static struct route_match m;

static enum route_result find(const char *method, const char *target)
{
    return route_find(table, sizeof(table) / sizeof(table[0]), method, target, &m);
}

static void expect(const char *method, const char *target, const char *operation)
{
    assert_int_equal(find(method, target), ROUTE_OK);
    assert_string_equal(m.route->operation, operation);
}

static void methods_and_paths_choose_the_route(void **state)
{
    (void)state;
    expect("GET", "/things", "list");
    expect("POST", "/things?x=y", "add");
    assert_string_equal(m.query, "x=y");
    expect("GET", "/things/42", "get");
    assert_string_equal(m.params[0], "42");
    expect("PUT", "/things/a/parts/b", "part");
    assert_string_equal(m.params[0], "a");
    assert_string_equal(m.params[1], "b");
    expect("HEAD", "/things", "list");
}

static void unknown_paths_are_not_found(void **state)
{
    static const char *const targets[] = {
        "/",        "/thing",          "/things/",    "/things/a/",          "/things//",
        "//things", "/things/a/parts", "/things/a/b", "/things/a/parts/b/c", "/fn",
        "/fn/",     "/fn//x",          "/Things"};
    (void)state;
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        assert_int_equal(find("GET", targets[i]), ROUTE_NOT_FOUND);
    }
}

static void other_methods_are_told(void **state)
{
    (void)state;
    assert_int_equal(find("PATCH", "/things"), ROUTE_BAD_METHOD);
    assert_string_equal(m.allow, "GET, HEAD, POST");
    assert_int_equal(find("POST", "/things/1"), ROUTE_BAD_METHOD);
    assert_string_equal(m.allow, "GET, HEAD, DELETE");
}

static void segments_are_decoded_once_after_splitting(void **state)
{
    (void)state;
    expect("GET", "/things/a%2Fb%3a%20c", "get");
    assert_string_equal(m.params[0], "a/b: c");
    expect("GET", "/things/%252e", "get");
    assert_string_equal(m.params[0], "%2e");
    expect("GET", "/things/a+b", "get");
    assert_string_equal(m.params[0], "a+b");
    assert_int_equal(find("GET", "/%74hings"), ROUTE_NOT_FOUND); /* literals are compared as sent */
}

static void dot_segments_and_broken_escapes_are_malformed(void **state)
{
    static const char *const targets[] = {"/things/..", "/things/.", "/fn/a/../b", "/fn/a/%2e%2E/b",
                                          "/fn/a/.%2e", "/things/%", "/things/%4", "/things/%zz",
                                          "/fn/a/b%/c", "things", "*", "",
                                          /* A program that decodes its path sees these so, too. */
                                          "/fn/a/%2e%2e%2fb", "/fn/a/b%2F..", "/fn/a/b%2f.%2Fc"};
    (void)state;
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        assert_int_equal(find("GET", targets[i]), ROUTE_MALFORMED);
    }
    expect("GET", "/things/...", "get");
    expect("GET", "/things/%2e..%2fa", "get");
    expect("GET", "/things?../..", "list");
}

static void control_characters_are_no_names(void **state)
{
    (void)state;
    assert_int_equal(find("GET", "/things/a%00b"), ROUTE_NOT_FOUND);
    assert_int_equal(find("GET", "/things/a%0ab"), ROUTE_NOT_FOUND);
}

static void names_have_a_longest(void **state)
{
    char target[400];
    (void)state;
    memset(target, 'a', sizeof(target));
    memcpy(target, "/things/", 8);
    target[8 + ROUTE_PARAM_SIZE - 1] = '\0';
    assert_int_equal(find("GET", target), ROUTE_OK);
    target[8 + ROUTE_PARAM_SIZE - 1] = 'a';
    target[8 + ROUTE_PARAM_SIZE] = '\0';
    assert_int_equal(find("GET", target), ROUTE_NOT_FOUND);
}

static void gateway_keeps_the_rest_as_it_was_sent(void **state)
{
    (void)state;
    expect("BREW", "/fn/hello", "gateway");
    assert_null(m.rest);
    expect("GET", "/fn/hello:3/a%2fb//c?x=%20", "gatewayPath");
    assert_string_equal(m.params[0], "hello:3");
    assert_string_equal(m.rest, "/a%2fb//c?x=%20");
    expect("GET", "/fn/hello/", "gatewayPath");
    assert_string_equal(m.rest, "/");
}

static void query_values_are_decoded(void **state)
{
    char out[8];
    (void)state;
    assert_int_equal(route_query("a=1&b=2", "b", out, sizeof(out)), 1);
    assert_string_equal(out, "2");
    assert_int_equal(route_query("ab=1&a", "a", out, sizeof(out)), 1);
    assert_string_equal(out, "");
    assert_int_equal(route_query("a=x%26y+z", "a", out, sizeof(out)), 1);
    assert_string_equal(out, "x&y z");
    assert_int_equal(route_query("a=1&a=2", "a", out, sizeof(out)), 1);
    assert_string_equal(out, "1");
    assert_int_equal(route_query("ba=1", "a", out, sizeof(out)), 0);
    assert_int_equal(route_query(NULL, "a", out, sizeof(out)), 0);
    assert_int_equal(route_query("a=%4", "a", out, sizeof(out)), -EINVAL);
    assert_int_equal(route_query("a=%0a", "a", out, sizeof(out)), -EINVAL);
    assert_int_equal(route_query("a=12345678", "a", out, sizeof(out)), -E2BIG);
    assert_int_equal(route_query("a=1234567", "a", out, sizeof(out)), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods_and_paths_choose_the_route),
        cmocka_unit_test(unknown_paths_are_not_found),
        cmocka_unit_test(other_methods_are_told),
        cmocka_unit_test(segments_are_decoded_once_after_splitting),
        cmocka_unit_test(dot_segments_and_broken_escapes_are_malformed),
        cmocka_unit_test(control_characters_are_no_names),
        cmocka_unit_test(names_have_a_longest),
        cmocka_unit_test(gateway_keeps_the_rest_as_it_was_sent),
        cmocka_unit_test(query_values_are_decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
