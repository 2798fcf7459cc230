/* test_head.c - response heads of guests (hypervisor/channel.h, hv_head_parse). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/limits.h"
#include "hypervisor/channel.h"

static int parse(const char *text, size_t len, struct hv_head *head, struct hv_field *fields,
                 char *copy)
{
    memcpy(copy, text, len);
    copy[len] = '\0';
    return hv_head_parse(copy, len, fields, 4, head, NULL);
}

static void good_heads_are_split(void **state)
{
    static const char text[] = "404\r\nA:b\r\nX-Y: \t c d\t \r\nEmpty:\r\nHigh: \xc3\xa9\r\n";
    struct hv_head head;
    struct hv_field fields[4];
    char copy[128];
    assert_int_equal(parse(text, sizeof(text) - 1, &head, fields, copy), 0);
    assert_int_equal(head.status, 404);
    assert_int_equal(head.field_count, 4);
    assert_string_equal(head.fields[0].name, "A");
    assert_string_equal(head.fields[0].value, "b");
    assert_string_equal(head.fields[1].value, "c d");
    assert_string_equal(head.fields[2].value, "");
    assert_string_equal(head.fields[3].value, "\xc3\xa9");
}

static void fields_of_the_connection_are_left_out(void **state)
{
    static const char text[] = "200\r\nContent-Length: 5\r\nTRANSFER-ENCODING: chunked\r\n"
                               "Connection: close\r\nKeep-Alive: 1\r\nUpgrade: x\r\nTE: a\r\n"
                               "Trailer: b\r\nProxy-Connection: c\r\nOk: 1\r\n";
    struct hv_head head;
    struct hv_field fields[4];
    char copy[256];
    assert_int_equal(parse(text, sizeof(text) - 1, &head, fields, copy), 0);
    assert_int_equal(head.field_count, 1);
    assert_string_equal(head.fields[0].name, "Ok");
}

static void bad_heads_are_refused(void **state)
{
#define BAD(text)                                                                                  \
    {                                                                                              \
        text, sizeof(text) - 1                                                                     \
    }
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {
        BAD(""),
        BAD("200"),
        BAD("200\n"),
        BAD("200 OK\r\n"),
        BAD("20\r\n"),
        BAD("100\r\n"),
        BAD("600\r\n"),
        BAD("2x0\r\n"),
        BAD("200\r\nA: b"),
        BAD("200\r\nA: b\n"),
        BAD("200\r\nA b\r\n"),
        BAD("200\r\n: b\r\n"),
        BAD("200\r\n\r\n"),
        BAD("200\r\nA : b\r\n"),
        BAD("200\r\n A: b\r\n"),
        BAD("200\r\nA: b\r\n folded\r\n"),
        BAD("200\r\nA: b\nC: d\r\n"),
        BAD("200\r\nA: b\rC: d\r\n"),
        BAD("200\r\nA: b\0c\r\n"),
        BAD("200\r\nA\0: b\r\n"),
        BAD("200\r\nA: \x7f\r\n"),
        BAD("200\r\nA\xc3: b\r\n"),
        BAD("200\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\n"), /* five, room for four */
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        struct hv_head head = {.status = 1};
        struct hv_field fields[4];
        char copy[128];
        if (parse(bad[i].text, bad[i].len, &head, fields, copy) != -EINVAL) {
            fail_msg("case %zu was accepted", i);
        }
        assert_int_equal(head.status, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_heads_are_split),
        cmocka_unit_test(fields_of_the_connection_are_left_out),
        cmocka_unit_test(bad_heads_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
