/* test_endpoint.c - endpoints and rules about them; names of system calls. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/endpoint.h"
#include "common/names.h"

static int parse(const char *text, bool rule, struct un_endpoint *ret)
{
    struct un_error err = UN_ERROR_INIT;
    int rc = un_endpoint_parse(text, strlen(text), rule, ret, &err);

    assert_true(rc == 0 || err.text[0]);
    return rc;
}

/* What it is read as, in its own words. */
static void reads(const char *text, bool rule, const char *as)
{
    struct un_endpoint e;
    char buf[UN_ENDPOINT_TEXT_SIZE];

    if (parse(text, rule, &e) < 0) {
        fail_msg("%s is refused", text);
    }
    assert_string_equal(un_endpoint_text(&e, buf), as);
}

static void refused(const char *text, bool rule)
{
    struct un_endpoint e;

    if (parse(text, rule, &e) == 0) {
        fail_msg("%s is taken", text);
    }
}

static void endpoints_have_one_form(void **state)
{
    reads("Example.Test:80", false, "example.test:80");
    reads("example.test.:65535", false, "example.test:65535");
    reads("localhost:1", false, "localhost:1");
    reads("_srv.a-b.c1:443", false, "_srv.a-b.c1:443");
    reads("127.0.0.1:80", false, "127.0.0.1:80");
    reads("[0:0:0:0:0:0:0:1]:80", false, "[::1]:80");
    reads("[::FFFF:1.2.3.4]:80", false, "[::ffff:1.2.3.4]:80");
    reads("*.example.test:*", true, "*.example.test:*");
    reads("example.test:*", true, "example.test:*");
}

static void what_is_no_endpoint_is_refused(void **state)
{
    static const char *const wrong[] = {
        "",
        ":",
        "a",
        ":80",
        "a:",
        "a:0",
        "a:65536",
        "a:000080",
        "a:8x",
        "a:-1",
        "a:*",
        "*.a:80",
        "a b:80",
        "a..b:80",
        ".a:80",
        "::1:80",
        "[::1:80",
        "[]:80",
        "[a]:80",
        "127.1:80",
        "2130706433:80",
        "0x7f.1:80",
        "1.2.3.4.5:80",
        "0x7f000001:80",
        "a/b:80",
        "a@b:80",
        "*:80",
        "a.*.b:80",
    };
    char longest[400];

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        refused(wrong[i], false);
    }
    refused("*:80", true);
    refused("*.:80", true);
    refused("*.127.0.0.1:80", true);
    refused("a.*:80", true);
    memset(longest, 'a', sizeof(longest));
    strcpy(longest + 300, ":80");
    refused(longest, false);
    strcpy(longest + 64, ":80"); /* one label */
    refused(longest, false);
    strcpy(longest + 63, ":80");
    reads(longest, false, longest);
}

static bool allows(const char *rule, const char *to)
{
    struct un_endpoint r, e;

    assert_int_equal(parse(rule, true, &r), 0);
    assert_int_equal(parse(to, false, &e), 0);
    return un_endpoint_matches(&r, &e, false);
}

static void rules_allow_what_they_say_and_nothing_else(void **state)
{
    struct un_endpoint rule, host;
    struct un_error err = UN_ERROR_INIT;

    assert_true(allows("a.test:80", "A.test.:80"));
    assert_false(allows("a.test:80", "a.test:81"));
    assert_false(allows("a.test:80", "b.a.test:80"));
    assert_false(allows("a.test:80", "xa.test:80"));
    assert_true(allows("a.test:*", "a.test:81"));
    assert_true(allows("*.a.test:80", "b.a.test:80"));
    assert_true(allows("*.a.test:80", "c.b.a.test:80"));
    assert_false(allows("*.a.test:80", "a.test:80"));
    assert_false(allows("*.a.test:80", "ba.test:80"));
    assert_false(allows("*.a.test:80", "b.a.test:81"));
    assert_true(allows("127.0.0.1:80", "127.0.0.1:80"));
    assert_false(allows("localhost:80", "127.0.0.1:80"));
    assert_true(allows("[::1]:80", "[0::1]:80"));
    assert_int_equal(parse("a.test:80", true, &rule), 0);
    assert_int_equal(un_endpoint_parse_host("a.test", 6, &host, &err), 0);
    assert_true(un_endpoint_matches(&rule, &host, true));
    assert_int_equal(un_endpoint_parse_host("::1", 3, &host, &err), 0);
    assert_false(un_endpoint_matches(&rule, &host, true));
}

static void where_to_listen_is_an_address(void **state)
{
    static const struct {
        const char *text, *as; /* NULL: refused */
    } cases[] = {{"80", "127.0.0.1:80"},
                 {"0", "127.0.0.1:0"},
                 {"0.0.0.0:8080", "0.0.0.0:8080"},
                 {"[::]:1", "[::]:1"},
                 {"[0::1]:0", "[::1]:0"},
                 {"localhost:65535", "127.0.0.1:65535"},
                 {"", NULL},
                 {":80", NULL},
                 {"web:80", NULL},
                 {"65536", NULL},
                 {"-1", NULL},
                 {"80:", NULL},
                 {"*:80", NULL},
                 {"127.0.0.1:*", NULL},
                 {"00", NULL},
                 {"::1:80", NULL},
                 {"127.1:80", NULL}};
    struct un_endpoint e;
    struct un_error err = UN_ERROR_INIT;
    char buf[UN_ENDPOINT_TEXT_SIZE];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int rc = un_endpoint_parse_listen(cases[i].text, strlen(cases[i].text), &e, &err);

        if ((rc == 0) != (cases[i].as != NULL)) {
            fail_msg("%s: %d", cases[i].text, rc);
        }
        if (rc == 0) {
            assert_string_equal(un_endpoint_text(&e, buf), cases[i].as);
        } else {
            assert_true(err.text[0]);
        }
    }
}

static void urls_begin_with_one_of_two_schemes(void **state)
{
    assert_int_equal(un_url_scheme("http://x"), 7);
    assert_int_equal(un_url_scheme("https://x"), 8);
    assert_int_equal(un_url_scheme("http:/x"), 0);
    assert_int_equal(un_url_scheme("ftp://x"), 0);
    assert_int_equal(un_url_scheme(""), 0);
}

static void system_calls_have_their_linux_names(void **state)
{
    assert_string_equal(un_syscall_name(0), "read");
    assert_string_equal(un_syscall_name(57), "fork");
    assert_string_equal(un_syscall_name(231), "exit_group");
    assert_null(un_syscall_name(400)); /* a gap */
    assert_null(un_syscall_name(UINT32_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(endpoints_have_one_form),
        cmocka_unit_test(what_is_no_endpoint_is_refused),
        cmocka_unit_test(rules_allow_what_they_say_and_nothing_else),
        cmocka_unit_test(where_to_listen_is_an_address),
        cmocka_unit_test(urls_begin_with_one_of_two_schemes),
        cmocka_unit_test(system_calls_have_their_linux_names),
    };
    return cmocka_run_group_tests_name("endpoint", tests, NULL, NULL);
}
