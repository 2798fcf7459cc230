/* test_replay_diff.c - what differs between two answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/replay_diff.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "scheduler/record/replay_impl.h"

static struct replay_answer answer(unsigned status, const char *fields, const void *body,
                                   size_t len, size_t keep)
{
    struct replay_answer a = {.status = status};

    snprintf(a.outcome, sizeof(a.outcome), "ok");
    assert_int_equal(un_buf_append_str(&a.fields, fields), 0);
    assert_int_equal(replay_answer_add(&a, body, len, keep, true), 0);
    replay_answer_finish(&a);
    return a;
}

static json_t *diff(struct replay_answer a, struct replay_answer b)
{
    json_t *j = replay_diff(&a, &b);

    assert_non_null(j);
    replay_answer_done(&a);
    replay_answer_done(&b);
    return j;
}

static struct replay_answer text(const char *body)
{
    return answer(200, "", body, strlen(body), 1 << 20);
}

/* The lines of a unified diff behind its "@@". */
static void assert_diff(const char *before, const char *after, const char *want)
{
    json_t *j = diff(text(before), text(after));
    const char *got = json_string_value(json_object_get(json_object_get(j, "body"), "diff"));

    assert_false(json_is_true(json_object_get(j, "same")));
    assert_non_null(got);
    assert_string_equal(got, want);
    json_decref(j);
}

static void equal_answers_are_the_same(void **state)
{
    json_t *j = diff(text("a\nb\n"), text("a\nb\n"));

    assert_true(json_is_true(json_object_get(j, "same")));
    assert_null(json_object_get(j, "status"));
    json_decref(j);
}

static void lines_are_compared_as_diff_does(void **state)
{
    assert_diff("a\nb\nc\n", "a\nx\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n");
    assert_diff("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nnew\n5\n6\n7\n8\n9\n",
                "@@ -2,6 +2,7 @@\n 2\n 3\n 4\n+new\n 5\n 6\n 7\n");
    assert_diff("", "one\n", "@@ -0,0 +1,1 @@\n+one\n");
    assert_diff("one\n", "one", "@@ -1,1 +1,1 @@\n-one\n+one\n\\ No newline at end of file\n");
    assert_diff("a\nb\nc\nd\n", "b\nc\nx\nd\n", "@@ -1,4 +1,4 @@\n-a\n b\n c\n+x\n d\n");
}

static void many_lines_are_told_within_bounds(void **state)
{
    struct un_buf a = {0}, b = {0};
    json_t *j;

    for (int i = 0; i < 3000; i++) {
        assert_int_equal(un_buf_printf(&a, "a%d\n", i), 0);
        assert_int_equal(un_buf_printf(&b, "b%d\n", i), 0);
    }
    j = diff(text((char *)a.data), text((char *)b.data)); /* the table would be too large */
    assert_string_equal(json_string_value(json_object_get(json_object_get(j, "body"), "kind")),
                        "text");
    json_decref(j);
    for (int i = 0; i < 2000; i++) {
        assert_int_equal(un_buf_printf(&a, "a%d\n", i), 0);
    }
    j = diff(text((char *)a.data), text((char *)b.data)); /* too many lines */
    assert_string_equal(json_string_value(json_object_get(json_object_get(j, "body"), "kind")),
                        "binary");
    json_decref(j);
    un_buf_done(&a);
    un_buf_done(&b);
}

static void bytes_are_told_by_hash_and_size(void **state)
{
    struct replay_answer a = answer(200, "", "a\0b", 3, 100);
    json_t *j = replay_answer_json(&a), *body = json_object_get(j, "body");

    assert_true(json_is_null(json_object_get(body, "text")));
    assert_int_equal(json_integer_value(json_object_get(body, "size")), 3);
    assert_int_equal(strlen(json_string_value(json_object_get(body, "sha256"))), 64);
    json_decref(j);
    j = diff(a, answer(200, "", "a\0c", 3, 100));
    assert_string_equal(json_string_value(json_object_get(json_object_get(j, "body"), "kind")),
                        "binary");
    json_decref(j);
}

static void answers_beyond_what_is_kept_are_compared_by_hash(void **state)
{
    struct replay_answer in_pieces = answer(200, "", "0123", 4, 6);
    json_t *j;

    assert_int_equal(replay_answer_add(&in_pieces, "456789", 6, 6, true), 0);
    replay_answer_finish(&in_pieces);
    in_pieces.sha256[0] = '\0'; /* as of an answer that was not hashed */
    j = diff(in_pieces, answer(200, "", "0123456789", 10, 6));
    assert_false(json_is_true(json_object_get(j, "same")));
    json_decref(j);
    j = diff(answer(200, "", "0123456789", 10, 6), answer(200, "", "0123456789", 10, 100));
    assert_true(json_is_true(json_object_get(j, "same")));
    json_decref(j);
    j = diff(answer(200, "", "0123456789", 10, 6), answer(200, "", "0123456780", 10, 6));
    assert_false(json_is_true(json_object_get(j, "same")));
    json_decref(j);
}

static void a_hash_does_not_depend_on_the_pieces(void **state)
{
    struct replay_answer a = answer(200, "", "0123456789", 10, 4), b = {0};

    for (int i = 0; i < 10; i++) {
        assert_int_equal(replay_answer_add(&b, &"0123456789"[i], 1, 4, true), 0);
    }
    replay_answer_finish(&b);
    assert_string_equal(a.sha256, b.sha256);
    assert_int_equal(b.body.len, 4);
    assert_int_equal(b.total, 10);
    replay_answer_done(&a);
    replay_answer_done(&b);
}

static void headers_are_compared_without_case_and_date(void **state)
{
    json_t *j =
        diff(answer(200, "X-A: 1\r\nDate: now\r\nSet-Cookie: a\r\nset-cookie: b\r\n", "", 0, 9),
             answer(500, "x-a: 2\r\ndate: then\r\nSet-Cookie: a\r\n", "", 0, 9));
    json_t *list = json_object_get(j, "headers");
    un_autofree char *got = un_json_text(list);

    assert_string_equal(got, "[{\"name\":\"x-a\",\"before\":\"1\",\"after\":\"2\"},"
                             "{\"name\":\"set-cookie\",\"before\":\"a, b\",\"after\":\"a\"}]");
    assert_int_equal(json_array_size(json_object_get(j, "status")), 2);
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_answers_are_the_same),
        cmocka_unit_test(lines_are_compared_as_diff_does),
        cmocka_unit_test(many_lines_are_told_within_bounds),
        cmocka_unit_test(bytes_are_told_by_hash_and_size),
        cmocka_unit_test(answers_beyond_what_is_kept_are_compared_by_hash),
        cmocka_unit_test(a_hash_does_not_depend_on_the_pieces),
        cmocka_unit_test(headers_are_compared_without_case_and_date),
    };

    return cmocka_run_group_tests_name("replay: differences", tests, NULL, NULL);
}
