/* test_shebang.c - what env -S makes of a script's first line. The expectations are what GNU env 9.1 does. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/collect/shebang.h"

static struct shebang s;
static struct un_error err;

/* The words with | between them. */
static void expect(const char *line, const char *words)
{
    char got[600] = "";
    if (shebang_split(line, &s, &err) < 0) {
        fail_msg("%s: %s", line, err.text);
    }
    for (size_t i = 0; i < s.count; i++) {
        strcat(strcat(got, i ? "|" : ""), s.words[i]);
    }
    assert_string_equal(got, words);
    assert_null(s.words[s.count]);
}

static void refused(const char *line, int rc, const char *why)
{
    assert_int_equal(shebang_split(line, &s, &err), rc);
    if (!strstr(err.text, why)) {
        fail_msg("%s: expected %s in: %s", line, why, err.text);
    }
}

static void blanks_are_between_words(void **state)
{
    (void)state;
    expect("perl -w -T", "perl|-w|-T");
    expect(" \t perl\t-w  ", "perl|-w");
    expect("", "");
}

static void quotes_keep_words_together(void **state)
{
    (void)state;
    expect("x 'a b' \"c d\"", "x|a b|c d");
    expect("x a'b'\"c\"d", "x|abcd");
    expect("x '' \"\" y", "x|||y");
    expect("x '\"' \"'\"", "x|\"|'");
    expect("x '$HOME #' \"#\"", "x|$HOME #|#");
}

static void escapes_are_those_of_the_manual(void **state)
{
    (void)state;
    expect("x a\\_b \"a\\_b\" 'a\\_b'", "x|a|b|a b|a\\_b");
    expect("x \\t\\n\\v\\f\\r", "x|\t\n\v\f\r");
    expect("x \\# \\$ \\' \\\" \\\\", "x|#|$|'|\"|\\");
    expect("x 'it\\'s' 'a\\\\b' 'a\\nb'", "x|it's|a\\b|a\\nb");
    expect("x a\\cb c", "x|a");
}

static void a_comment_begins_where_a_word_does(void **state)
{
    (void)state;
    expect("x a#b #c d", "x|a#b");
    expect("#x", "");
}

static void what_cannot_be_known_here_is_refused(void **state)
{
    char line[SHEBANG_BYTES + 2];
    (void)state;
    refused("x ${HOME}/y z", -EINVAL, "what ${HOME}/y stands for");
    refused("x \"$A\"", -EINVAL, "variables are not looked up");
    refused("x 'a", -EINVAL, "(') is not closed");
    refused("x \"a", -EINVAL, "(\") is not closed");
    refused("x a\\", -EINVAL, "a backslash at the end");
    refused("x \\q", -EINVAL, "'\\q' stands for nothing");
    refused("x \"\\c\"", -EINVAL, "in double quotes");
    memset(line, 'x', sizeof(line));
    line[SHEBANG_BYTES + 1] = '\0';
    refused(line, -E2BIG, "longer than 255 bytes");
    line[SHEBANG_BYTES] = '\0';
    assert_int_equal(shebang_split(line, &s, &err), 0);
    for (size_t i = 1; i < SHEBANG_BYTES; i += 2) {
        line[i] = ' ';
    }
    refused(line, -E2BIG, "more than 32 words");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blanks_are_between_words),
        cmocka_unit_test(quotes_keep_words_together),
        cmocka_unit_test(escapes_are_those_of_the_manual),
        cmocka_unit_test(a_comment_begins_where_a_word_does),
        cmocka_unit_test(what_cannot_be_known_here_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
