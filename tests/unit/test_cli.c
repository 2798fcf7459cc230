/* test_cli.c - unictl's parts that need no daemon: words to values, values to columns, the table of
 * verbs. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/api.h"
#include "cli/args.h"
#include "cli/client.h"
#include "cli/collect/spread.h"
#include "cli/doctor_local.h"
#include "cli/progress.h"
#include "cli/push.h"
#include "cli/table.h"
#include "cli/verbs/verbs.h"
#include "common/cleanup.h"

static const struct args_option options[] = {
    {"memory", 'm', "SIZE", "memory"},
    {"env", 'e', "K=V", "environment"},
    {"follow", 'f', NULL, "a flag"},
    {"quiet", 'q', NULL, "a flag"},
    {NULL, 0, NULL, NULL},
};
static const struct args_option *const tables[] = {options, NULL};

/* Parses words; the program's name in front is added. */
static int parse(struct args *ret, struct un_error *err, enum args_mode mode, int *used, ...)
{
    static char *argv[32];
    int argc = 0;
    argv[argc++] = (char *)"verb";
    va_list ap;
    va_start(ap, used);
    for (char *word; (word = va_arg(ap, char *));) {
        argv[argc++] = word;
    }
    va_end(ap);
    argv[argc] = NULL;
    *ret = (struct args){0};
    *err = (struct un_error)UN_ERROR_INIT;
    return args_parse(argc, argv, tables, mode, ret, used, err);
}

static void options_and_operands_may_be_mixed(void **state)
{
    struct args a;
    struct un_error err;
    assert_int_equal(parse(&a, &err, ARGS_ALL, NULL, "name", "--memory", "64M", "prog", "-e", "A=1",
                           "--env=B=2", "-fq", NULL),
                     0);
    assert_int_equal(a.operand_count, 2);
    assert_string_equal(a.operands[0], "name");
    assert_string_equal(a.operands[1], "prog");
    assert_string_equal(args_get(&a, "memory"), "64M");
    assert_true(args_has(&a, "follow"));
    assert_true(args_has(&a, "quiet"));
    size_t at = 0;
    assert_string_equal(args_next(&a, "env", &at), "A=1");
    assert_string_equal(args_next(&a, "env", &at), "B=2");
    assert_null(args_next(&a, "env", &at));
    args_done(&a);
}

static void words_behind_two_dashes_are_left_alone(void **state)
{
    struct args a;
    struct un_error err;
    assert_int_equal(parse(&a, &err, ARGS_ALL, NULL, "name", "prog", "--", "-x", "--memory", NULL),
                     0);
    assert_int_equal(a.operand_count, 2);
    assert_int_equal(a.rest_count, 2);
    assert_string_equal(a.rest[0], "-x");
    assert_null(args_get(&a, "memory"));
    args_done(&a);
}

static void the_last_of_repeated_options_counts(void **state)
{
    struct args a;
    struct un_error err;
    assert_int_equal(parse(&a, &err, ARGS_ALL, NULL, "-m", "1M", "-m2M", NULL), 0);
    assert_string_equal(args_get(&a, "memory"), "2M");
    args_done(&a);
}

static void no_words_are_no_operands(void **state)
{
    struct args a;
    struct un_error err;
    assert_int_equal(parse(&a, &err, ARGS_ALL, NULL, NULL), 0);
    assert_int_equal(a.operand_count, 0);
    assert_int_equal(a.rest_count, 0);
    args_done(&a);
}

static void unknown_options_are_refused_with_the_nearest(void **state)
{
    struct args a;
    struct un_error err;
    assert_int_equal(parse(&a, &err, ARGS_ALL, NULL, "--memroy", "64M", NULL), -EINVAL);
    assert_string_equal(err.text, "unknown option --memroy (did you mean --memory?)");
    assert_int_equal(parse(&a, &err, ARGS_ALL, NULL, "--zzz", NULL), -EINVAL);
    assert_string_equal(err.text, "unknown option --zzz");
    assert_int_equal(parse(&a, &err, ARGS_ALL, NULL, "-fz", NULL), -EINVAL);
    assert_string_equal(err.text, "unknown option -z");
}

static void abbreviated_options_are_refused(void **state)
{
    struct args a;
    struct un_error err;
    assert_int_equal(parse(&a, &err, ARGS_ALL, NULL, "--mem", "64M", NULL), -EINVAL);
    assert_string_equal(err.text, "unknown option --mem (did you mean --memory?)");
    assert_int_equal(parse(&a, &err, ARGS_ALL, NULL, "x", "--foll", NULL), -EINVAL);
}

static void values_are_asked_for_and_flags_take_none(void **state)
{
    struct args a;
    struct un_error err;
    assert_int_equal(parse(&a, &err, ARGS_ALL, NULL, "--memory", NULL), -EINVAL);
    assert_string_equal(err.text, "--memory needs a value (SIZE)");
    assert_int_equal(parse(&a, &err, ARGS_ALL, NULL, "-m", NULL), -EINVAL);
    assert_string_equal(err.text, "-m needs a value (SIZE)");
    assert_int_equal(parse(&a, &err, ARGS_ALL, NULL, "--follow=yes", NULL), -EINVAL);
    assert_string_equal(err.text, "--follow takes no value");
}

static void parsing_can_stop_at_the_verb(void **state)
{
    struct args a;
    struct un_error err;
    int used = 0;
    assert_int_equal(parse(&a, &err, ARGS_UNTIL_OPERAND, &used, "-f", "ls", "--bad", NULL), 0);
    assert_int_equal(used, 2);
    assert_true(args_has(&a, "follow"));
    args_done(&a);
}

static void sizes_are_strict(void **state)
{
    static const struct {
        const char *text;
        int rc;
        uint64_t bytes;
    } cases[] = {
        {"0", 0, 0},
        {"4096", 0, 4096},
        {"64M", 0, 64ull << 20},
        {"64MiB", 0, 64ull << 20},
        {"1G", 0, 1ull << 30},
        {"2T", 0, 2ull << 40},
        {"8K", 0, 8192},
        {"16777215T", 0, 16777215ull << 40},
        {"16777216T", -ERANGE, 0},
        {"18446744073709551616", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"M", -EINVAL, 0},
        {"64m", -EINVAL, 0},
        {"64MB", -EINVAL, 0},
        {"64 M", -EINVAL, 0},
        {" 64M", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"+1", -EINVAL, 0},
        {"1.5G", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        uint64_t bytes = 77;
        struct un_error err = UN_ERROR_INIT;
        assert_int_equal(args_size(cases[i].text, &bytes, &err), cases[i].rc);
        assert_int_equal(bytes, cases[i].rc == 0 ? cases[i].bytes : 77);
        assert_true((cases[i].rc == 0) == (err.text[0] == '\0'));
    }
}

static void durations_are_strict(void **state)
{
    static const struct {
        const char *text;
        int rc;
        uint64_t ms;
    } cases[] = {
        {"500ms", 0, 500},    {"30s", 0, 30000},     {"2m", 0, 120000},
        {"1h", 0, 3600000},   {"0s", 0, 0},          {"30", -EINVAL, 0},
        {"7d", 0, 604800000}, {"1w", -EINVAL, 0},    {"1dd", -EINVAL, 0},
        {"s", -EINVAL, 0},    {"1m30s", -EINVAL, 0}, {"1.5s", -EINVAL, 0},
        {"30S", -EINVAL, 0},  {"", -EINVAL, 0},      {"-1s", -EINVAL, 0},
        {"30 s", -EINVAL, 0}, {"30sec", -EINVAL, 0}, {"18446744073709551615h", -ERANGE, 0},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        uint64_t ms = 77;
        struct un_error err = UN_ERROR_INIT;
        assert_int_equal(args_duration(cases[i].text, &ms, &err), cases[i].rc);
        assert_int_equal(ms, cases[i].rc == 0 ? cases[i].ms : 77);
    }
}

static void counts_are_strict_and_bounded(void **state)
{
    uint64_t n = 77;
    assert_int_equal(args_count("1", 1, 10, &n, NULL), 0);
    assert_int_equal(n, 1);
    assert_int_equal(args_count("10", 1, 10, &n, NULL), 0);
    assert_int_equal(args_count("11", 1, 10, &n, NULL), -ERANGE);
    assert_int_equal(args_count("0", 1, 10, &n, NULL), -ERANGE);
    assert_int_equal(args_count("99999999999999999999", 1, 10, &n, NULL), -ERANGE);
    assert_int_equal(args_count("3x", 1, 10, &n, NULL), -EINVAL);
    assert_int_equal(args_count("", 1, 10, &n, NULL), -EINVAL);
    assert_int_equal(n, 10);
}

static void nearest_word_needs_to_be_near(void **state)
{
    static const char *const verbs[] = {"deploy", "describe", "ls",      "logs", "ps",
                                        "rm",     "receipts", "receipt", NULL};
    assert_string_equal(args_nearest("depoly", verbs), "deploy");
    assert_string_equal(args_nearest("delpoy", verbs), "deploy");
    assert_string_equal(args_nearest("log", verbs), "logs");
    assert_string_equal(args_nearest("desc", verbs), "describe");
    assert_string_equal(args_nearest("sl", verbs), "ls");
    assert_string_equal(args_nearest("recipt", verbs), "receipt");
    assert_null(args_nearest("frobnicate", verbs));
    assert_null(args_nearest("", verbs));
    assert_null(args_nearest("a-word-that-is-much-longer-than-any-verb-ever", verbs));
}

static void table_aligns_columns(void **state)
{
    static const char *const heads[] = {"NAME", ">SIZE", "AGE", NULL};
    struct table *t = table_new(heads);
    const char *one[] = {"hello", "1.84kB", "3 seconds ago"};
    const char *two[] = {"\xc3\xa9t\xc3\xa9", "5B", NULL};
    const char *bad[] = {"\x1b[31mred\x07", "0B", "\xff"};
    table_row(t, one);
    table_row(t, two);
    table_row(t, bad);
    un_autobuf struct un_buf out = {0};
    assert_int_equal(table_render(t, &out), 0);
    assert_string_equal((char *)out.data, "NAME          SIZE   AGE\n"
                                          "hello       1.84kB   3 seconds ago\n"
                                          "\xc3\xa9t\xc3\xa9             5B   -\n"
                                          "?[31mred?       0B   ?\n");
    table_free(t);
}

static void table_without_rows_shows_its_heads(void **state)
{
    static const char *const heads[] = {"A", "B", NULL};
    struct table *t = table_new(heads);
    un_autobuf struct un_buf out = {0};
    assert_int_equal(table_render(t, &out), 0);
    assert_string_equal((char *)out.data, "A   B\n");
    table_free(t);
}

static void foreign_text_cannot_steer_the_terminal(void **state)
{
    un_autobuf struct un_buf out = {0};
    assert_int_equal(table_append_clean(&out, "a\x1b]0;x\x07\nb\tc\x7f\xc2\x9b\xe2\x82\xac", true),
                     0);
    assert_string_equal((char *)out.data, "a?]0;x?\nb\tc??\xe2\x82\xac");
    un_buf_reset(&out);
    assert_int_equal(table_append_clean(&out, "a\nb\tc", false), 0);
    assert_string_equal((char *)out.data, "a?b c");
    un_buf_reset(&out);
    assert_int_equal(table_append_clean(&out, "\xe2\x82", false), 0); /* cut in the middle */
    assert_string_equal((char *)out.data, "??");
}

static void numbers_read_as_people_write_them(void **state)
{
    char buf[TABLE_CELL_SIZE];
    assert_string_equal(table_size(0, buf), "0B");
    assert_string_equal(table_size(999, buf), "999B");
    assert_string_equal(table_size(1840, buf), "1.84kB");
    assert_string_equal(table_size(72800000, buf), "72.8MB");
    assert_string_equal(table_size(128000000000, buf), "128GB");
    assert_string_equal(table_size(UINT64_MAX, buf), "18.4EB");
    assert_string_equal(table_age(0, buf), "Less than a second");
    assert_string_equal(table_age(1, buf), "1 second");
    assert_string_equal(table_age(59, buf), "59 seconds");
    assert_string_equal(table_age(60, buf), "About a minute");
    assert_string_equal(table_age(3599, buf), "59 minutes");
    assert_string_equal(table_age(3600, buf), "About an hour");
    assert_string_equal(table_age(86400, buf), "24 hours");
    assert_string_equal(table_age(3 * 86400, buf), "3 days");
    assert_string_equal(table_age(15 * 86400, buf), "2 weeks");
    assert_string_equal(table_age(90 * 86400, buf), "3 months");
    assert_string_equal(table_age(800 * 86400ull, buf), "2 years");
    assert_string_equal(table_us(850, buf), "850us");
    assert_string_equal(table_us(1230, buf), "1.23ms");
    assert_string_equal(table_us(2500000, buf), "2.50s");
    assert_string_equal(table_ms(500, buf), "500ms");
    assert_string_equal(table_ms(30000, buf), "30s");
    assert_string_equal(table_ms(120000, buf), "2m");
    assert_string_equal(table_ms(0, buf), "0ms");
}

static void times_are_read_with_and_without_fraction(void **state)
{
    assert_int_equal(table_parse_time("1970-01-01T00:00:00Z"), 0);
    assert_int_equal(table_parse_time("2026-11-21T02:04:10.510083Z"), 1795226650);
    assert_int_equal(table_parse_time("2026-11-21T02:04:10"), -1);
    assert_int_equal(table_parse_time("yesterday"), -1);
    assert_int_equal(table_parse_time(""), -1);
}

static void progress_line_fits_and_never_exceeds_all(void **state)
{
    struct progress p = {.what = "hello", .total = 2000000};
    char line[PROGRESS_LINE_SIZE];
    assert_string_equal(progress_line(&p, 1000000, 2000000, line),
                        "hello [===============>              ]  50% 1.00MB/2.00MB 500kB/s");
    assert_non_null(strstr(progress_line(&p, 3000000, 1000000, line), "100%"));
    p.total = 0;
    assert_non_null(strstr(progress_line(&p, 0, 0, line), "100%"));
}

static void percentiles_are_values_that_were_measured(void **state)
{
    static const uint64_t five[] = {15, 20, 35, 40, 50};
    /* The known example of the nearest-rank method: ranks 1, 2, 2, 3 and 5 of 5. */
    assert_int_equal(spread_percentile(five, 5, 5), 15);
    assert_int_equal(spread_percentile(five, 5, 30), 20);
    assert_int_equal(spread_percentile(five, 5, 40), 20);
    assert_int_equal(spread_percentile(five, 5, 50), 35);
    assert_int_equal(spread_percentile(five, 5, 100), 50);
    assert_int_equal(spread_percentile(five, 1, 1), 15);
    assert_int_equal(spread_percentile(five, 1, 99), 15);
    assert_int_equal(spread_percentile(NULL, 0, 50), 0);
}

static void percentiles_need_no_order_and_hold_at_the_edges(void **state)
{
    enum { COUNT = 1000 };
    static uint64_t values[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        values[i] = (i * 617) % COUNT + 1; /* 1 to 1000, each once: 617 and 1000 share no factor */
    }
    struct spread s = spread_of(values, COUNT);
    assert_int_equal(s.p50, 500);
    assert_int_equal(s.p90, 900);
    assert_int_equal(s.p99, 990);
    assert_int_equal(s.max, 1000);
    /* One slow request in 101 is above the 99th percentile; two are not. */
    for (size_t i = 0; i < 101; i++) {
        values[i] = i == 7 ? 9000 : 5;
    }
    s = spread_of(values, 101);
    assert_int_equal(s.p99, 5);
    assert_int_equal(s.max, 9000);
    values[3] = UINT64_MAX;
    s = spread_of(values, 101);
    assert_int_equal(s.p99, 9000);
    assert_int_equal(s.max, UINT64_MAX);
    s = spread_of(NULL, 0);
    assert_int_equal(s.p50 | s.p90 | s.p99 | s.max, 0);
}

/* --- the table of verbs ----------------------------------------------------------------------- */

static void verbs_are_found_by_one_or_two_words(void **state)
{
    int words = 0;
    char *ls[] = {(char *)"ls"};
    assert_string_equal(cli_find_verb(1, ls, &words)->name, "ls");
    assert_int_equal(words, 1);
    char *image[] = {(char *)"image", (char *)"push", (char *)"f"};
    assert_string_equal(cli_find_verb(3, image, &words)->name, "image push");
    assert_int_equal(words, 2);
    assert_null(cli_find_verb(1, image, &words));
    assert_null(cli_find_verb(0, image, &words));
    char *prefix[] = {(char *)"l"};
    assert_null(cli_find_verb(1, prefix, &words));
    char *wrong[] = {(char *)"image", (char *)"puhs"};
    assert_string_equal(cli_suggest_verb(2, wrong), "image push");
    char *other[] = {(char *)"invok", (char *)"hello"};
    assert_string_equal(cli_suggest_verb(2, other), "invoke");
}

static void every_verb_has_what_help_and_parsing_need(void **state)
{
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        assert_non_null(v->run);
        assert_non_null(v->options);
        assert_non_null(v->operands);
        assert_true(v->most == VERB_ANY || v->most >= v->least);
        assert_true(strlen(v->summary) < 70);
        for (const struct args_option *o = v->options; o->name; o++) {
            for (const struct args_option *g = cli_global_options; g->name; g++) {
                assert_string_not_equal(o->name, g->name);
                assert_true(!o->letter || o->letter != g->letter);
            }
        }
        un_autobuf struct un_buf out = {0};
        assert_int_equal(cli_help_verb(v, &out), 0);
        assert_non_null(strstr((char *)out.data, v->name));
        assert_non_null(strstr((char *)out.data, "--json"));
    }
}

static void help_lists_every_verb(void **state)
{
    un_autobuf struct un_buf out = {0};
    assert_int_equal(cli_help_overview(&out), 0);
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        assert_non_null(strstr((char *)out.data, v->name));
    }
}

static void statuses_become_exit_statuses(void **state)
{
    assert_int_equal(cli_exit_of_status(400), CLI_REFUSED);
    assert_int_equal(cli_exit_of_status(404), CLI_REFUSED);
    assert_int_equal(cli_exit_of_status(429), CLI_REFUSED);
    assert_int_equal(cli_exit_of_status(500), CLI_REFUSED);
    assert_int_equal(cli_exit_of_status(502), CLI_FUNCTION_FAILED);
    assert_int_equal(cli_exit_of_status(503), CLI_REFUSED);
    assert_int_equal(cli_exit_of_status(504), CLI_TIMED_OUT);
}

/* --- client, digest, doctor ------------------------------------------------------------------- */

static void only_addresses_of_a_known_form_are_taken(void **state)
{
    static const char *const good[] = {"http://127.0.0.1:7070", "http://127.0.0.1:7070/",
                                       "https://unid.example", "unix:///run/unid/unid.sock"};
    static const char *const bad[] = {"",           "127.0.0.1:7070", "unix://relative",
                                      "ftp://x",    "http://a b",     "http://a\r\nHost: b",
                                      "http://x?y", "http://u@x"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(good); i++) {
        struct client *c = NULL;
        assert_int_equal(client_new(good[i], "secret", &c, NULL), 0);
        assert_string_equal(client_host(c), good[i]);
        client_free(c);
    }
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        struct client *c = NULL;
        struct un_error err = UN_ERROR_INIT;
        assert_int_equal(client_new(bad[i], NULL, &c, &err), -EINVAL);
        assert_null(c);
    }
    struct client *c = NULL;
    assert_int_equal(client_new(good[0], "a\nb", &c, NULL), -EINVAL);
    assert_int_equal(client_new(good[0], "", &c, NULL), -EINVAL);
}

static void nobody_at_the_address_is_connection_refused(void **state)
{
    struct client *c = NULL;
    assert_int_equal(client_new("unix:///nonexistent/unid.sock", NULL, &c, NULL), 0);
    struct client_request req = {.method = "GET", .path = "/healthz", .timeout_ms = 1000};
    struct client_response r = {0};
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(client_send(c, &req, &r, &err), -ECONNREFUSED);
    assert_int_equal(r.status, 0);
    client_response_done(&r);
    client_free(c);
}

static void header_fields_are_found_whatever_their_case(void **state)
{
    struct client_response r = {.status = 502};
    un_buf_append_str(&r.head, "HTTP/1.1 502 Bad Gateway\r\n"
                               "content-TYPE: application/problem+json; charset=utf-8\r\n"
                               "Server-Timing:queue;dur=1\r\nEmpty:\r\n\r\n");
    char *timing = client_header(&r, "server-timing"), *empty = client_header(&r, "Empty");
    assert_string_equal(timing, "queue;dur=1");
    assert_string_equal(empty, "");
    assert_null(client_header(&r, "Server"));
    assert_true(client_is_problem(&r));
    r.status = 200;
    assert_false(client_is_problem(&r));
    free(timing);
    free(empty);
    client_response_done(&r);
}

static void path_segments_are_escaped(void **state)
{
    char *path = api_path("/api/v1/images/%s?x=%s", "a/b c", "1&2");
    assert_string_equal(path, "/api/v1/images/a%2Fb%20c?x=1%262");
    free(path);
}

static void digest_is_that_of_the_bytes(void **state)
{
    char digest[PUSH_DIGEST_SIZE];
    int fd = memfd_create("image", MFD_CLOEXEC);
    assert_int_equal(write(fd, "abc", 3), 3);
    assert_int_equal(push_digest(fd, digest, NULL), 0);
    /* FIPS 180-2, appendix B.1 */
    assert_string_equal(digest,
                        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(push_is_digest(digest));
    digest[10] = 'X';
    assert_false(push_is_digest(digest));
    assert_false(push_is_digest("sha256:abc"));
    close(fd);
}

static void local_findings_say_how_to_mend(void **state)
{
    json_t *findings = doctor_local_findings();
    assert_true(json_array_size(findings) >= 6);
    size_t i;
    json_t *f;
    json_array_foreach(findings, i, f)
    {
        const char *status = api_str(f, "status");
        assert_true(!strcmp(status, "ok") || !strcmp(status, "warn") || !strcmp(status, "fail"));
        assert_true(*api_str(f, "check") && *api_str(f, "detail"));
        assert_true(strcmp(status, "ok") == 0 || *api_str(f, "fix"));
    }
    json_decref(findings);
}

static void what_mends_kvm_depends_on_who_may_use_it(void **state)
{
    char fix[200];
    struct group *group = getgrnam("daemon");
    struct stat st = {.st_mode = S_IFCHR | 0660, .st_gid = group ? group->gr_gid : 1};
    (void)state;
    assert_non_null(group);
    doctor_kvm_fix(&st, fix, sizeof(fix));
    assert_string_equal(fix, "sudo usermod -aG daemon $USER, then log in again");
    st.st_mode = S_IFCHR | 0600;
    doctor_kvm_fix(&st, fix, sizeof(fix));
    assert_non_null(strstr(fix, "sudo chmod 0666 /dev/kvm"));
    st = (struct stat){.st_mode = S_IFCHR | 0660};
    doctor_kvm_fix(&st, fix, sizeof(fix));
    assert_non_null(strstr(fix, "no group but root's"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_operands_may_be_mixed),
        cmocka_unit_test(words_behind_two_dashes_are_left_alone),
        cmocka_unit_test(the_last_of_repeated_options_counts),
        cmocka_unit_test(no_words_are_no_operands),
        cmocka_unit_test(unknown_options_are_refused_with_the_nearest),
        cmocka_unit_test(abbreviated_options_are_refused),
        cmocka_unit_test(values_are_asked_for_and_flags_take_none),
        cmocka_unit_test(parsing_can_stop_at_the_verb),
        cmocka_unit_test(sizes_are_strict),
        cmocka_unit_test(durations_are_strict),
        cmocka_unit_test(counts_are_strict_and_bounded),
        cmocka_unit_test(nearest_word_needs_to_be_near),
        cmocka_unit_test(table_aligns_columns),
        cmocka_unit_test(table_without_rows_shows_its_heads),
        cmocka_unit_test(foreign_text_cannot_steer_the_terminal),
        cmocka_unit_test(numbers_read_as_people_write_them),
        cmocka_unit_test(times_are_read_with_and_without_fraction),
        cmocka_unit_test(progress_line_fits_and_never_exceeds_all),
        cmocka_unit_test(percentiles_are_values_that_were_measured),
        cmocka_unit_test(percentiles_need_no_order_and_hold_at_the_edges),
        cmocka_unit_test(verbs_are_found_by_one_or_two_words),
        cmocka_unit_test(every_verb_has_what_help_and_parsing_need),
        cmocka_unit_test(help_lists_every_verb),
        cmocka_unit_test(statuses_become_exit_statuses),
        cmocka_unit_test(only_addresses_of_a_known_form_are_taken),
        cmocka_unit_test(nobody_at_the_address_is_connection_refused),
        cmocka_unit_test(header_fields_are_found_whatever_their_case),
        cmocka_unit_test(path_segments_are_escaped),
        cmocka_unit_test(digest_is_that_of_the_bytes),
        cmocka_unit_test(local_findings_say_how_to_mend),
        cmocka_unit_test(what_mends_kvm_depends_on_who_may_use_it),
    };
    return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
