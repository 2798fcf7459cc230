/* test_guest_kvm.c - the examples on a real CPU: image -> layout -> ring 3 -> channel. Skipped
 * where there is no /dev/kvm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "tests/unit/kvm_runner.h"

#define MIB (UINT64_C(1) << 20)

static char path[512];

static const char *example(const char *name)
{
    const char *build = getenv("UNID_BUILD");
    snprintf(path, sizeof(path), "%s/guest/examples/%s", build ? build : ".", name);
    return path;
}

/* Runs a case whose image and argv[0] are `name`; fails the test when it could not be run. */
static struct kvm_result run(const char *name, struct kvm_case c)
{
    struct un_error err = UN_ERROR_INIT;
    struct kvm_result ret;
    const char *const argv[] = {name, NULL};
    c.image = example(name);
    c.mem_bytes = c.mem_bytes ? c.mem_bytes : 16 * MIB;
    c.argv = c.argv ? c.argv : argv;
    if (kvm_runner_run(&c, &ret, &err) < 0) {
        fail_msg("%s: %s", name, err.text);
    }
    if (ret.why.kind == HV_EXIT_PROTOCOL || (ret.why.kind == HV_EXIT_LOST && !ret.stopped)) {
        fail_msg("%s: %s", name, ret.why.detail);
    }
    return ret;
}

static void assert_done(const struct kvm_result *r, int status)
{
    if (r->why.kind != HV_EXIT_DONE) {
        fail_msg("ended by %s at %#llx, address %#llx; log: %s", hv_exit_name(r->why.kind),
                 (unsigned long long)r->why.fault_rip, (unsigned long long)r->why.fault_addr,
                 r->log.data ? (char *)r->log.data : "");
    }
    assert_int_equal(r->why.status, status);
}

static void assert_text(const struct un_buf *b, const char *text)
{
    assert_string_equal(b->data ? (const char *)b->data : "", text);
}

static void *pattern(size_t len)
{
    uint8_t *p = malloc(len);
    assert_non_null(p);
    uint32_t x = 1;
    for (size_t i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = (uint8_t)(x >> 24);
    }
    return p;
}

static void every_example_is_at_most_64_kib(void **state)
{
    static const char *const names[] = {"hello", "echo",  "sha256", "wc",     "crash", "spin",
                                        "hog",   "flood", "env",    "random", "sleep", "status"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(names); i++) {
        struct stat st;
        assert_int_equal(stat(example(names[i]), &st), 0);
        assert_in_range(st.st_size, 1, 64 * 1024);
    }
}

static void hello_greets_by_its_name(void **state)
{
    struct kvm_result r = run("hello", (struct kvm_case){0});
    assert_done(&r, 0);
    assert_int_equal(r.status, 200);
    assert_text(&r.fields, "content-type: text/plain\n");
    assert_text(&r.output, "hello from hello\n");
    assert_int_equal(r.calls, 1);
    kvm_result_done(&r);
}

static void a_guest_that_asks_for_its_request_gets_it(void **state)
{
    struct kvm_result r = run("hello", (struct kvm_case){.ask = true});
    assert_done(&r, 0);
    assert_text(&r.output, "hello from hello\n");
    assert_int_equal(r.calls, 2);
    kvm_result_done(&r);
}

static void echo_returns_3_mib(void **state)
{
    size_t len = 3 * MIB + 17;
    un_autofree void *body = pattern(len);
    struct kvm_result r = run("echo", (struct kvm_case){.head = "POST /x \r\nContent-Type: a/b\r\n",
                                                        .body = body,
                                                        .body_len = len});
    assert_done(&r, 0);
    assert_text(&r.fields, "content-type: a/b\n");
    assert_int_equal(r.output.len, len);
    assert_memory_equal(r.output.data, body, len);
    kvm_result_done(&r);
}

static void echo_takes_a_body_in_odd_pieces_of_unknown_length(void **state)
{
    un_autofree void *body = pattern(5000);
    struct kvm_result r =
        run("echo",
            (struct kvm_case){.body = body, .body_len = 5000, .piece = 7, .length_unknown = true});
    assert_done(&r, 0);
    assert_int_equal(r.output.len, 5000);
    assert_memory_equal(r.output.data, body, 5000);
    kvm_result_done(&r);
}

static void sha256_gives_the_known_digests(void **state)
{
    /* FIPS 180-4 examples: NIST, "Examples with Intermediate Values", SHA256. */
    struct kvm_result r = run("sha256", (struct kvm_case){.body = "abc", .body_len = 3});
    assert_done(&r, 0);
    assert_text(&r.output, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n");
    kvm_result_done(&r);
    r = run("sha256", (struct kvm_case){0});
    assert_text(&r.output, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n");
    kvm_result_done(&r);
    un_autofree char *million = malloc(1000000);
    assert_non_null(million);
    memset(million, 'a', 1000000);
    r = run("sha256", (struct kvm_case){.body = million, .body_len = 1000000});
    assert_text(&r.output, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0\n");
    kvm_result_done(&r);
}

static void wc_counts_words_across_pieces(void **state)
{
    const char *text = "one two\n three\tfour\n\nfive";
    struct kvm_result r =
        run("wc", (struct kvm_case){.body = text, .body_len = strlen(text), .piece = 2});
    assert_done(&r, 0);
    assert_text(&r.output, "3 5 25\n");
    kvm_result_done(&r);
}

static void env_sees_everything_it_was_given(void **state)
{
    const char *const argv[] = {"env", "a b", "", NULL};
    const char *const envp[] = {"K=V", "EMPTY=", NULL};
    struct kvm_result r =
        run("env", (struct kvm_case){.argv = argv,
                                     .envp = envp,
                                     .head = "GET /p?q=1\r\nHost: h\r\nX-A:  two words\r\n"});
    assert_done(&r, 0);
    assert_text(&r.output, "argv[0]=env\nargv[1]=a b\nargv[2]=\nenv K=V\nenv EMPTY=\n"
                           "id 01J0000000000000000000TEST\ncontent-length 0\nGET /p?q=1\n"
                           "Host: h\nX-A: two words\n");
    kvm_result_done(&r);
}

static void crash_faults_at_its_address_and_leaves_its_log(void **state)
{
    struct kvm_result r = run("crash", (struct kvm_case){0});
    assert_int_equal(r.why.kind, HV_EXIT_FAULT);
    assert_int_equal(r.why.fault_addr, 0x10);
    assert_in_range(r.why.fault_rip, UNID_IMAGE_MIN, UNID_IMAGE_MIN + 64 * 1024);
    assert_text(&r.log, "writing to 0x10\n");
    assert_int_equal(r.output.len, 0);
    kvm_result_done(&r);
}

/* Writes to `at` must fault. */
static void assert_protected(uint64_t at)
{
    char text[32];
    snprintf(text, sizeof(text), "%#llx", (unsigned long long)at);
    const char *const argv[] = {"crash", text, NULL};
    struct kvm_result r = run("crash", (struct kvm_case){.argv = argv});
    assert_int_equal(r.why.kind, HV_EXIT_FAULT);
    assert_int_equal(r.why.fault_addr, at);
    kvm_result_done(&r);
}

static void a_guest_cannot_write_its_code_or_its_page_tables(void **state)
{
    struct kvm_result r = run("hello", (struct kvm_case){0});
    struct hv_layout l = r.layout;
    kvm_result_done(&r);
    assert_protected(l.rip);
    assert_protected(l.cr3);
    assert_protected(l.cr3 + 8);
    assert_protected(l.guard);
    assert_protected(UNID_BOOT_ADDR - 4);
    assert_protected(UNID_CHANNEL_END);
    assert_protected(16 * MIB);
}

static void hog_faults_behind_its_heap(void **state)
{
    struct kvm_result r = run("hog", (struct kvm_case){.mem_bytes = 64 * MIB});
    assert_int_equal(r.why.kind, HV_EXIT_FAULT);
    assert_int_equal(r.why.fault_addr & ~UINT64_C(0xfff), r.layout.guard);
    assert_non_null(strstr((char *)r.log.data, "48 MiB\n"));
    kvm_result_done(&r);
}

static void spin_is_stopped_from_outside(void **state)
{
    struct kvm_result r = run("spin", (struct kvm_case){.stop_ms = 50});
    assert_true(r.stopped);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    kvm_result_done(&r);
}

static void flood_is_stopped_at_a_limit_of_output(void **state)
{
    struct kvm_result r = run("flood", (struct kvm_case){.stop_at = 4 * MIB});
    assert_true(r.stopped);
    assert_int_equal(r.status, 200);
    assert_in_range(r.output.len, 4 * MIB, 5 * MIB);
    kvm_result_done(&r);
}

static void random_differs_from_machine_to_machine(void **state)
{
    struct kvm_result a = run("random", (struct kvm_case){0});
    struct kvm_result b = run("random", (struct kvm_case){0});
    assert_done(&a, 0);
    assert_int_equal(a.output.len, 65);
    assert_int_equal(b.output.len, 65);
    assert_memory_not_equal(a.output.data, b.output.data, 64);
    kvm_result_done(&a);
    kvm_result_done(&b);
}

static void sleep_ends_by_the_clock(void **state)
{
    const char *const argv[] = {"sleep", "20", NULL};
    struct kvm_result r = run("sleep", (struct kvm_case){.argv = argv});
    assert_done(&r, 0);
    assert_text(&r.output, "slept 20 ms\n");
    kvm_result_done(&r);
}

static void status_ends_with_the_status_it_is_told(void **state)
{
    const char *const exits[] = {"status", "exit", "7", NULL};
    struct kvm_result r = run("status", (struct kvm_case){.argv = exits});
    assert_done(&r, 7);
    assert_text(&r.log, "ending with status 7\n");
    kvm_result_done(&r);
    const char *const http[] = {"status", "http", "418", NULL};
    r = run("status", (struct kvm_case){.argv = http});
    assert_done(&r, 0);
    assert_int_equal(r.status, 418);
    kvm_result_done(&r);
}

static void the_sdk_works_from_inside(void **state)
{
    const char *build = getenv("UNID_BUILD");
    const char *const argv[] = {"selftest", "argument=x", NULL}, *const envp[] = {"KEY=value=1",
                                                                                  NULL};
    struct un_error err = UN_ERROR_INIT;
    struct kvm_result r;
    snprintf(path, sizeof(path), "%s/tests/unit/guest_selftest", build ? build : ".");
    struct kvm_case c = {.image = path,
                         .mem_bytes = 16 * MIB,
                         .argv = argv,
                         .envp = envp,
                         .head = "PUT /a?b=c d\r\nHost: example\r\nempty:\r\nx: 1\r\nX:2\r\n",
                         .body = "12345",
                         .body_len = 5,
                         .piece = 3,
                         .ask = true};
    assert_int_equal(kvm_runner_run(&c, &r, &err), 0);
    if (r.why.status != 0) {
        fail_msg("%.400s", r.log.data ? (char *)r.log.data : "");
    }
    assert_done(&r, 0);
    assert_int_equal(r.status, 201);
    assert_text(&r.output, "ok\n.");
    assert_int_equal(r.fields.len, strlen("ok: 1\nbig: \n") + 16000);
    assert_true(r.log.len > 70001 + 10000 * 6);
    assert_memory_equal(r.log.data + r.log.len - 10, "line 9999\n", 10);
    kvm_result_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_example_is_at_most_64_kib),
        cmocka_unit_test(hello_greets_by_its_name),
        cmocka_unit_test(a_guest_that_asks_for_its_request_gets_it),
        cmocka_unit_test(echo_returns_3_mib),
        cmocka_unit_test(echo_takes_a_body_in_odd_pieces_of_unknown_length),
        cmocka_unit_test(sha256_gives_the_known_digests),
        cmocka_unit_test(wc_counts_words_across_pieces),
        cmocka_unit_test(env_sees_everything_it_was_given),
        cmocka_unit_test(crash_faults_at_its_address_and_leaves_its_log),
        cmocka_unit_test(a_guest_cannot_write_its_code_or_its_page_tables),
        cmocka_unit_test(hog_faults_behind_its_heap),
        cmocka_unit_test(spin_is_stopped_from_outside),
        cmocka_unit_test(flood_is_stopped_at_a_limit_of_output),
        cmocka_unit_test(random_differs_from_machine_to_machine),
        cmocka_unit_test(sleep_ends_by_the_clock),
        cmocka_unit_test(status_ends_with_the_status_it_is_told),
        cmocka_unit_test(the_sdk_works_from_inside),
    };
    if (!kvm_runner_usable()) {
        return 77; /* automake: skipped */
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
