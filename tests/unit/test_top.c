/* test_top.c - unictl top's view: two samples to rates, a table, JSON. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/api.h"
#include "cli/table.h"
#include "cli/top.h"
#include "common/cleanup.h"

#define ONE "2026-01-01T00:00:00.000000Z"
#define TWO "2026-01-01T00:00:07.000000Z"

static json_t *json(const char *text)
{
    json_t *j = json_loads(text, 0, NULL);
    assert_non_null(j);
    return j;
}

/* A sample; takes the rows, a JSON array's members. */
static json_t *sample(const char *started_at, uint64_t uptime_us, const char *rows)
{
    char text[4096];
    snprintf(text, sizeof(text),
             "{\"at\": \"now\", \"started_at\": \"%s\", \"uptime_us\": %llu, \"instances\": 5, "
             "\"running\": 2,"
             " \"ready\": 3, \"memory_mib\": 80, \"memory_limit_mib\": 1000, \"waiting\": 4,"
             " \"functions\": [%s]}",
             started_at, (unsigned long long)uptime_us, rows);
    return json(text);
}

/* A function's row of a sample that has nothing but counts. */
#define COUNTS(name, ended, failed, ran, us)                                                       \
    "{\"function\": " name ", \"invocations\": " #ended ", \"failed\": " #failed                   \
    ", \"ran\": " #ran ", \"duration_us\": " #us "}"

static struct top_view make(json_t *before, const json_t *after, const json_t *functions)
{
    struct top_past past = {NULL, NULL};
    struct top_view v;
    if (before) {
        assert_int_equal(top_past_take(&past, before), 0);
    }
    assert_int_equal(top_view_make(&past, after, functions, &v), 0);
    top_past_done(&past); /* nothing of it is borrowed */
    return v;
}

static const struct top_row *row(const struct top_view *v, const char *name)
{
    for (size_t i = 0; i < v->count; i++) {
        if (strcmp(v->rows[i].name, name) == 0) {
            return &v->rows[i];
        }
    }
    return NULL;
}

static void rates_are_of_what_came_between_two_samples(void **state)
{
    (void)state;
    un_autojson json_t *a = sample(ONE, 1000000, COUNTS("\"f\"", 100, 10, 50, 5000));
    un_autojson json_t *b =
        sample(ONE, 3000000, COUNTS("\"f\"", 120, 11, 60, 25000) "," COUNTS("null", 8, 8, 0, 0));
    struct top_view v = make(a, b, NULL);
    const struct top_row *f = row(&v, "f");
    assert_true(v.rated && v.interval_us == 2000000);
    assert_true(f->requests_s == 10 && f->errors_s == 0.5);
    assert_true(f->ran && f->mean_us == 2000);
    assert_true(row(&v, "")->requests_s == 4 && !row(&v, "")->ran);
    assert_true(v.all.requests_s == 14 && v.all.errors_s == 4.5 && v.all.mean_us == 2000);
    top_view_done(&v);
}

static void without_a_sample_before_no_rates_are_known(void **state)
{
    (void)state;
    un_autojson json_t *a = sample(ONE, 1000000, COUNTS("\"f\"", 100, 10, 50, 5000));
    un_autojson json_t *names = json("[{\"name\": \"f\"}]");
    struct top_view v = make(NULL, a, names);
    const struct top_screen any = {0, 0};
    un_autobuf struct un_buf out = {0};
    assert_false(v.rated);
    assert_int_equal(top_view_text(&v, &any, &out), 0);
    assert_non_null(strstr((char *)out.data, "\nRequests: -/s, -/s failed, 4 waiting\n"));
    un_autojson json_t *j = top_view_json(&v);
    assert_true(json_is_null(json_object_get(j, "requests_per_s")));
    top_view_done(&v);
}

static void counts_that_began_anew_give_no_negative_rates(void **state)
{
    (void)state;
    un_autojson json_t *a = sample(ONE, 60000000, COUNTS("\"f\"", 100, 10, 50, 5000));
    un_autojson json_t *b = sample(TWO, 500000, COUNTS("\"f\"", 3, 0, 3, 300));
    struct top_view v = make(a, b, NULL);
    assert_int_equal(v.interval_us, 500000);
    assert_true(row(&v, "f")->requests_s == 6 && row(&v, "f")->mean_us == 100);
    top_view_done(&v);
    /* Longer up than what was there before, and still another. */
    un_autojson json_t *c = sample(TWO, 61000000, COUNTS("\"f\"", 122, 0, 0, 0));
    v = make(a, c, NULL);
    assert_true(row(&v, "f")->requests_s == 2 && row(&v, "f")->errors_s == 0);
    top_view_done(&v);
    /* The same daemon, it says, but less counted. */
    un_autojson json_t *d = sample(ONE, 61000000, COUNTS("\"f\"", 9, 0, 0, 0));
    un_autojson json_t *names = json("[{\"name\": \"f\"}]");
    v = make(a, d, names);
    assert_true(row(&v, "f")->requests_s == 0 && !row(&v, "f")->ran);
    top_view_done(&v);
    /* No time has passed. */
    v = make(a, a, names);
    assert_true(row(&v, "f")->requests_s == 0 && v.interval_us == 0);
    top_view_done(&v);
}

static void samples_may_have_only_what_has_changed(void **state)
{
    (void)state;
    un_autojson json_t *a =
        sample(ONE, 1000000, COUNTS("\"f\"", 100, 10, 50, 5000) "," COUNTS("\"g\"", 7, 0, 7, 7));
    un_autojson json_t *b = sample(ONE, 2000000, COUNTS("\"g\"", 8, 0, 8, 17));
    un_autojson json_t *c = sample(ONE, 3000000, COUNTS("\"f\"", 103, 10, 53, 5030));
    un_autojson json_t *anew = sample(TWO, 4000000, COUNTS("\"f\"", 4, 0, 4, 4));
    struct top_past past = {NULL, NULL};
    struct top_view v;
    assert_false(top_past_leads_to(&past, a));
    assert_int_equal(top_past_take(&past, a), 0);
    assert_true(top_past_leads_to(&past, b));
    assert_int_equal(top_view_make(&past, b, NULL, &v), 0);
    assert_true(v.count == 1 && v.all.requests_s == 1 && row(&v, "g")->mean_us == 10);
    top_view_done(&v);
    assert_int_equal(top_past_take(&past, b), 0);
    assert_int_equal(top_view_make(&past, c, NULL, &v), 0);
    assert_true(v.count == 1 && row(&v, "f")->requests_s == 3 && row(&v, "f")->mean_us == 10);
    top_view_done(&v);
    assert_int_equal(top_past_take(&past, c), 0);
    assert_false(top_past_leads_to(&past, a)); /* it was before */
    assert_false(top_past_leads_to(&past, anew));
    assert_int_equal(top_past_take(&past, anew), 0);
    assert_null(json_object_get(past.rows, "g")); /* nothing of another run is kept */
    top_past_done(&past);
}

#define LAST ",{\"function\": \"last\", \"memory_mib\": 16}"

static void removed_functions_are_shown_as_long_as_there_is_something_of_them(void **state)
{
    (void)state;
    un_autojson json_t *a =
        sample(ONE, 0, COUNTS("\"gone\"", 5, 0, 5, 5) "," COUNTS("\"going\"", 5, 0, 5, 5));
    un_autojson json_t *b = sample(
        ONE, 1000000, COUNTS("\"gone\"", 5, 0, 5, 5) "," COUNTS("\"going\"", 6, 0, 6, 6) LAST);
    un_autojson json_t *names = json("[{\"name\": \"idle\"}, {\"name\": \"idle\"}]");
    struct top_view v = make(a, b, names);
    assert_int_equal(v.count, 3);
    assert_string_equal(v.rows[0].name, "going");
    assert_string_equal(v.rows[1].name, "last");
    assert_string_equal(v.rows[2].name, "idle");
    top_view_done(&v);
}

static void the_busiest_come_first(void **state)
{
    (void)state;
    un_autojson json_t *a = sample(ONE, 0, "");
    un_autojson json_t *b = sample(
        ONE, 1000000,
        "{\"function\": \"d\", \"memory_mib\": 16}, {\"function\": \"c\", \"memory_mib\": 32},"
        "{\"function\": \"b\", \"running\": 1, \"waiting\": 1}, {\"function\": \"b2\", "
        "\"running\": 1},"
        "{\"function\": \"a2\", \"invocations\": 1}, {\"function\": \"a\", \"invocations\": 9}");
    un_autojson json_t *names = json("[{\"name\": \"z\"}, {\"name\": \"y\"}]");
    struct top_view v = make(a, b, names);
    char order[64] = "";
    for (size_t i = 0; i < v.count; i++) {
        snprintf(order + strlen(order), sizeof(order) - strlen(order), "%s ", v.rows[i].name);
    }
    assert_string_equal(order, "a a2 b b2 c d y z ");
    top_view_done(&v);
}

#define LONG "a-name-of-sixty-three-letters-is-the-longest-that-there-is-xxxx"

static struct top_view long_names(json_t **a, json_t **b)
{
    *a = sample(ONE, 0, "");
    *b = sample(
        ONE, 2000000,
        "{\"function\": \"" LONG "\", \"running\": 2, \"ready\": 1, \"memory_mib\": 48,"
        " \"waiting\": 3, \"invocations\": 2469, \"failed\": 1, \"ran\": 2, \"duration_us\": 2460},"
        "{\"function\": \"x\", \"ready\": 1, \"invocations\": 3},"
        "{\"function\": null, \"invocations\": 2}");
    return make(*a, *b, NULL);
}

static void the_table_is_aligned_and_names_are_whole(void **state)
{
    (void)state;
    un_autojson json_t *a = NULL, *b = NULL;
    struct top_view v = long_names(&a, &b);
    const struct top_screen any = {0, 0};
    un_autobuf struct un_buf out = {0};
    assert_int_equal(top_view_text(&v, &any, &out), 0);
    char expected[1024];
    snprintf(expected, sizeof(expected),
             "VMs: 5, 2 running, 3 ready; memory: 80MiB of 1000MiB\n"
             "Requests: 1237/s, 0.5/s failed, 4 waiting\n"
             "\n"
             "%-63s   RUN   READY   MEMORY   REQ/S   ERR/S     MEAN   QUEUE\n"
             "%-63s     2       1    48MiB    1234     0.5   1.23ms       3\n"
             "%-63s     0       1     0MiB     1.5     0.0        -       0\n"
             "%-63s     0       0     0MiB     1.0     0.0        -       0\n",
             "FUNCTION", LONG, "x", "(others)");
    assert_string_equal((char *)out.data, expected);
    top_view_done(&v);
}

/* Every line fits, and all lines but the last one of the screen are used at most. */
static void assert_fits(const struct top_view *v, unsigned columns, unsigned lines,
                        struct un_buf *out)
{
    const struct top_screen screen = {columns, lines};
    unsigned count = 0;
    un_buf_reset(out);
    assert_int_equal(top_view_text(v, &screen, out), 0);
    for (const char *p = (char *)out->data; *p; p += strcspn(p, "\n") + 1) {
        assert_true(strcspn(p, "\n") <= columns);
        count++;
    }
    assert_true(count < lines || lines < 7);
}

static void a_screen_is_never_overflown(void **state)
{
    (void)state;
    un_autojson json_t *a = NULL, *b = NULL;
    struct top_view v = long_names(&a, &b);
    un_autobuf struct un_buf out = {0};
    assert_fits(&v, 80, 24, &out);
    assert_non_null(strstr((char *)out.data, "\na-name-of-sixty-three-l+     2 "));
    assert_non_null(strstr((char *)out.data, "   QUEUE\n"));
    assert_fits(&v, 80, 7, &out);
    assert_non_null(strstr((char *)out.data, "   QUEUE\na-name"));
    assert_non_null(strstr((char *)out.data, "\n(2 more)\n"));
    assert_fits(&v, 80, 8, &out);
    assert_null(strstr((char *)out.data, "more"));
    for (unsigned columns = 1; columns < 130; columns++) {
        for (unsigned lines = 1; lines < 12; lines++) {
            assert_fits(&v, columns, lines, &out);
        }
    }
    top_view_done(&v);
}

static void a_frame_clears_what_was_there(void **state)
{
    (void)state;
    un_autobuf struct un_buf out = {0};
    assert_int_equal(top_frame("one\n\ntwo\n", &out), 0);
    assert_string_equal((char *)out.data, "\033[Hone\033[K\n\033[K\ntwo\033[K\n\033[J");
}

static void json_has_what_the_table_shows(void **state)
{
    (void)state;
    un_autojson json_t *a = NULL, *b = NULL;
    struct top_view v = long_names(&a, &b);
    un_autojson json_t *j = top_view_json(&v);
    const json_t *first = json_array_get(json_object_get(j, "functions"), 0);
    const json_t *last = json_array_get(json_object_get(j, "functions"), 2);
    assert_string_equal(api_str(j, "at"), "now");
    assert_int_equal(api_uint(j, "interval_us"), 2000000);
    assert_int_equal(api_uint(j, "memory_limit_mib"), 1000);
    assert_int_equal(api_uint(j, "waiting"), 4);
    assert_true(json_real_value(json_object_get(j, "requests_per_s")) == 1237);
    assert_string_equal(api_str(first, "function"), LONG);
    assert_true(json_real_value(json_object_get(first, "requests_per_s")) == 1234.5);
    assert_int_equal(api_uint(first, "mean_us"), 1230);
    assert_true(json_is_null(json_object_get(last, "function")));
    assert_true(json_is_null(json_object_get(last, "mean_us")));
    top_view_done(&v);
}

static void an_answer_of_something_else_is_an_empty_table(void **state)
{
    (void)state;
    static const char *const strange[] = {"{}", "[]", "{\"functions\": 3, \"uptime_us\": \"x\"}",
                                          "{\"functions\": [7, {}, {\"function\": {}}]}"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(strange); i++) {
        un_autojson json_t *j = json(strange[i]);
        struct top_view v = make(j, j, j);
        un_autojson json_t *shown = top_view_json(&v);
        assert_int_equal(v.count, 0);
        assert_non_null(shown);
        top_view_done(&v);
    }
}

static void intervals_are_seconds_or_have_a_unit(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",   ".",   ".5",  "1.",    "1.5s", "-1",      "1.2345",
        "1x", "0",   "0.0", "50ms",  "3601", "2h",      "99999999999999999999",
        "1 ", "0x1", "1e3", "0.099", "1..5", "3600.001"};
    struct un_error err = UN_ERROR_INIT;
    uint64_t ms = 7;
    for (size_t i = 0; i < UN_ARRAY_SIZE(wrong); i++) {
        assert_true(top_interval(wrong[i], &ms, &err) < 0);
        assert_int_equal(ms, 7);
    }
    static const struct {
        const char *text;
        uint64_t ms;
    } right[] = {{"1", 1000},    {"0.1", 100}, {"0.25", 250},   {"2.005", 2005},
                 {"500ms", 500}, {"2s", 2000}, {"1h", 3600000}, {"3600", 3600000}};
    for (size_t i = 0; i < UN_ARRAY_SIZE(right); i++) {
        assert_int_equal(top_interval(right[i].text, &ms, &err), 0);
        assert_int_equal(ms, right[i].ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_are_of_what_came_between_two_samples),
        cmocka_unit_test(without_a_sample_before_no_rates_are_known),
        cmocka_unit_test(counts_that_began_anew_give_no_negative_rates),
        cmocka_unit_test(samples_may_have_only_what_has_changed),
        cmocka_unit_test(removed_functions_are_shown_as_long_as_there_is_something_of_them),
        cmocka_unit_test(the_busiest_come_first),
        cmocka_unit_test(the_table_is_aligned_and_names_are_whole),
        cmocka_unit_test(a_screen_is_never_overflown),
        cmocka_unit_test(a_frame_clears_what_was_there),
        cmocka_unit_test(json_has_what_the_table_shows),
        cmocka_unit_test(an_answer_of_something_else_is_an_empty_table),
        cmocka_unit_test(intervals_are_seconds_or_have_a_unit),
    };
    return cmocka_run_group_tests_name("top", tests, NULL, NULL);
}
