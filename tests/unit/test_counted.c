/* test_counted.c - what a library OS counted, in words and in a row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/record/counted.h"

static void missing_calls_are_named(void **state)
{
    struct unid_report r = {.unsupported_count = 1, .unsupported = {{57, 2}}};
    char text[80] = "it failed", small[16] = "it failed";
    (void)state;
    counted_name_missing(&r, text, sizeof(text));
    assert_string_equal(text, "it failed; unsupported system call: fork");
    r.unsupported_count = 2;
    r.unsupported[1].number = 4000;
    text[0] = '\0';
    counted_name_missing(&r, text, sizeof(text));
    assert_string_equal(text, "; unsupported system calls: fork, number 4000");
    counted_name_missing(&r, small, sizeof(small));
    assert_string_equal(small, "it failed; unsu");
    r.unsupported_count = 0;
    counted_name_missing(&r, small, sizeof(small));
    assert_string_equal(small, "it failed; unsu");
}

static void lists_come_back_from_their_text(void **state)
{
    static struct unid_report r, back;
    char text[COUNTED_TEXT_SIZE];
    (void)state;
    counted_made_text(&r, text);
    assert_string_equal(text, "");
    r.made[0] = 3;
    r.made[UNID_REPORT_NUMBERS - 1] = UINT32_MAX;
    r.unsupported_count = 2;
    r.unsupported[0].number = 57;
    r.unsupported[0].times = 1;
    r.unsupported[1].number = r.unsupported[1].times = UINT32_MAX;
    counted_made_text(&r, text);
    assert_string_equal(text, "0:3 511:4294967295");
    counted_read_made(text, &back);
    counted_missing_text(&r, text);
    assert_string_equal(text, "57:1 4294967295:4294967295");
    counted_read_missing(text, &back);
    assert_memory_equal(&r, &back, sizeof(r));
}

static void the_longest_lists_fit(void **state)
{
    static struct unid_report r, back;
    char text[COUNTED_TEXT_SIZE];
    (void)state;
    memset(&r, 0xff, sizeof(r));
    counted_made_text(&r, text);
    counted_read_made(text, &back);
    assert_memory_equal(r.made, back.made, sizeof(r.made));
    counted_missing_text(&r, text);
    counted_read_missing(text, &back);
    assert_int_equal(back.unsupported_count, UNID_REPORT_CALLS);
    assert_memory_equal(r.unsupported, back.unsupported, sizeof(r.unsupported));
}

static void what_is_no_list_ends_it(void **state)
{
    static struct unid_report r;
    (void)state;
    counted_read_made("600:1 1:2 x 2:3", &r);
    assert_int_equal(r.made[1], 2);
    assert_int_equal(r.made[2], 0);
    counted_read_missing("", &r);
    assert_int_equal(r.unsupported_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_calls_are_named),
        cmocka_unit_test(lists_come_back_from_their_text),
        cmocka_unit_test(the_longest_lists_fit),
        cmocka_unit_test(what_is_no_list_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
