/* guest_selftest.c - a guest that tries the SDK from inside, in ring 3; run by test_guest_kvm.c.
 * Its answer is "ok", or the lines that failed. */
#include <assert.h>
#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unid/unid.h>

static int failures;

static int starts;

static __attribute__((constructor)) void starter(void)
{
    starts++;
}

static void check(bool holds, int line)
{
    if (!holds) {
        failures++;
        unid_log("line %d does not hold", line);
    }
}
#define CHECK(e) check((e), __LINE__)

static void check_request(void)
{
    const char *name, *value;
    CHECK(unid_next());
    CHECK(!unid_next());
    CHECK(strcmp(unid_method(), "PUT") == 0);
    CHECK(strcmp(unid_target(), "/a?b=c d") == 0);
    CHECK(strcmp(unid_header("HOST"), "example") == 0);
    CHECK(strcmp(unid_header("empty"), "") == 0);
    CHECK(strcmp(unid_header("x"), "1") == 0); /* the first of two */
    CHECK(!unid_header("absent"));
    CHECK(!unid_header(""));
    CHECK(unid_header_at(3, &name, &value) && strcmp(name, "X") == 0 && strcmp(value, "2") == 0);
    CHECK(!unid_header_at(4, &name, &value));
    CHECK(unid_content_length() == 5);
    CHECK(strlen(unid_invocation_id()) == 26);
}

static void check_body(void)
{
    char buf[8] = "";
    CHECK(unid_read(buf, 0) == 0);
    size_t n = 0;
    for (size_t got; (got = unid_read(buf + n, 2)) > 0; n += got) {
        CHECK(got <= 2);
    }
    CHECK(n == 5 && memcmp(buf, "12345", 5) == 0);
    const void *data;
    CHECK(unid_read(buf, 1) == 0 && unid_chunk(&data) == 0);
}

static void check_head(void)
{
    static char big[20000];
    memset(big, 'v', sizeof(big) - 1);
    CHECK(unid_response_header("ok", "1") == 0);
    CHECK(unid_response_header("", "1") == -1);
    CHECK(unid_response_header("a b", "1") == -1);
    CHECK(unid_response_header("a:", "1") == -1);
    CHECK(unid_response_header("a", "1\r\nb: 2") == -1);
    CHECK(unid_response_header("big", big) == -1);
    big[16000] = '\0';
    CHECK(unid_response_header("big", big) == 0);
    CHECK(unid_response_header("bigger", big) == -1);
    CHECK(unid_response_status(199) == -1);
    CHECK(unid_response_status(600) == -1);
    CHECK(unid_response_status(201) == 0);
}

static void check_heap(void)
{
    size_t room = unid_heap_free();
    char *a = malloc(100000), *z = calloc(1000, 100);
    CHECK(a && z && a != z);
    memset(a, 1, 100000);
    for (size_t i = 0; i < 100000; i++) {
        CHECK(z[i] == 0);
    }
    a = realloc(a, 200000);
    CHECK(a && a[99999] == 1);
    volatile size_t most = SIZE_MAX / 2; /* volatile: the compiler would warn of it */
    CHECK(!calloc(most, 3));
    CHECK(!malloc(room + 1));
    free(a);
    free(z);
    free(NULL);
    CHECK(unid_heap_free() == room);
    char *s = strdup("copied");
    CHECK(s && strcmp(s, "copied") == 0);
}

static void check_numbers(void)
{
    char *end, text[64];
    CHECK(strtol(" -42x", &end, 10) == -42 && *end == 'x');
    CHECK(strtol("0x1f", NULL, 0) == 31 && strtol("017", NULL, 0) == 15);
    CHECK(strtol("99999999999999999999", NULL, 10) == LONG_MAX);
    CHECK(strtol("-99999999999999999999", NULL, 10) == LONG_MIN);
    CHECK(strtoul("", &end, 10) == 0 && *end == '\0');
    CHECK(atoi("7") == 7 && abs(-7) == 7);
    volatile size_t size = 5;
    CHECK(snprintf(text, size, "%s-%03d", "ab", 7) == 6 && strcmp(text, "ab-0") == 0);
    CHECK(toupper('a') == 'A' && isspace('\v') && !ispunct('a'));
    double d = strtol("3", NULL, 10);
    CHECK((int)(d * 1.5) == 4); /* SSE works, the stack is aligned */
}

static void check_rest(char **argv)
{
    unsigned char r[1000];
    int zeros = 0;
    unid_random(r, sizeof(r));
    for (size_t i = 0; i < sizeof(r); i++) {
        zeros += r[i] == 0;
    }
    CHECK(zeros < 40);
    CHECK(strcmp(getenv("KEY"), "value=1") == 0 && !getenv("KE") && !getenv("argument"));
    CHECK(strcmp(argv[1], "argument=x") == 0 && !argv[2]);
    CHECK(unid_wall_ns() > UINT64_C(1600000000000000000));
    uint64_t before = unid_elapsed_ns();
    CHECK(!unid_clock_runs() || unid_elapsed_ns() >= before);
    CHECK(unid_remaining_ns() <= UINT64_C(10000000000));
    CHECK(starts == 1);
}

int main(int argc, char **argv)
{
    assert(argc == 2);
    check_request();
    check_body();
    check_heap();
    check_numbers();
    check_rest(argv);
    check_head();
    /* More log than its window holds, in one message and in many. */
    static char line[70001];
    memset(line, 'l', sizeof(line) - 1);
    unid_log("%s", line);
    for (int i = 0; i < 10000; i++) {
        unid_log("line %d", i);
    }
    printf("%s", failures ? "failed" : "ok");
    CHECK(unid_response_header("late", "1") == -1);
    unid_flush();
    puts("");
    putchar('.');
    exit(failures);
}
