/* test_gateway.c - calls of functions over HTTP, with what is below api/ played by api_below.h. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/api_fixture.h"

static void function_gets_the_request_without_the_connections_fields(void **state)
{
    (void)state;
    say("POST /fn/hello:7/a%20b?x=1 HTTP/1.1\r\nHost: h\r\nConnection: X-Hop, keep-alive\r\nX-Hop: "
        "1\r\n"
        "TE: trailers\r\nUpgrade: h2c\r\nX-Mine: yes\r\nContent-Length: 3\r\nAuthorization: "
        "a\r\n\r\nabc");
    assert_string_equal(below.function, "hello");
    assert_string_equal(below.qualifier, "7");
    assert_string_equal(below.method, "POST");
    assert_string_equal(below.target, "/a%20b?x=1");
    assert_string_equal(below.fields,
                        "Host: h\nX-Mine: yes\nContent-Length: 3\nAuthorization: a\n");
    assert_int_equal(below.content_length, 3);
    assert_string_equal(below.body.data, "abc");
    assert_true(below.body_eof);
    assert_int_equal(below.trigger, SCHED_HTTP);
}

static void target_of_the_function_begins_with_a_slash(void **state)
{
    (void)state;
    ask("GET", "/fn/hello?q", NULL);
    assert_string_equal(below.target, "/?q");
    assert_true(below.body_eof);
    below_respond(200, NULL, "", true);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    pump();
    ask("GET", "/fn/hello", NULL);
    assert_string_equal(below.target, "/");
}

static void response_in_one_piece_has_a_length(void **state)
{
    char id[64];
    (void)state;
    ask("GET", "/fn/hello", NULL);
    below_respond(201, "g\r\nEvil: 1", "hi there", true);
    pump();
    expect_status(201);
    expect("Content-Length: 8\r\n");
    expect("Server-Timing: queue;dur=0.012, start;dur=1.500, run;dur=0.000\r\n");
    snprintf(id, sizeof(id), "X-Unid-Invocation-Id: %s\r\n", below.id);
    expect(id);
    expect("X-Guest: g\r\n");
    assert_null(strstr(got(), "Evil"));
    expect("\r\n\r\nhi there");
    assert_int_equal(below.data_dones, 1);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    assert_false(fx->closed);
}

static void response_in_pieces_is_chunked(void **state)
{
    (void)state;
    ask("GET", "/fn/hello", NULL);
    below_respond(200, NULL, "ab", false);
    below_data("cde", 3, false);
    below_data("", 0, true);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    pump();
    expect("\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n");
    assert_int_equal(below.data_dones, 3);
}

static void declared_length_is_kept_when_streaming(void **state)
{
    (void)state;
    ask("GET", "/fn/hello", NULL);
    below_respond(200, "5", "ab", false);
    below_data("cde", 3, true);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    pump();
    expect("Content-Length: 5\r\n");
    expect("\r\n\r\nabcde");
    assert_false(fx->closed);
}

static void wrong_declared_length_cuts_the_connection(void **state)
{
    (void)state;
    ask("GET", "/fn/hello", NULL);
    below_respond(200, "9", "ab", false);
    below_data("cde", 3, true);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    pump();
    assert_true(fx->closed);
}

static void failure_says_how_with_the_invocation(void **state)
{
    (void)state;
    struct sched_outcome outcome = {
        .kind = SCHED_FAILED,
        .detail = "page fault",
        .log_tail = "last \"words\"",
        .exit = {
            .kind = HV_EXIT_FAULT, .fault_vector = 14, .fault_addr = 0x10, .fault_rip = 0x200134}};
    ask("GET", "/fn/hello", NULL);
    below_end(&outcome);
    pump();
    expect_status(502);
    expect("application/problem+json");
    expect("X-Unid-Invocation-Id: ");
    expect("Server-Timing: queue;dur=");
    expect("\"vector\":14,\"name\":\"page fault\"");
    expect("\"rip\":\"0x200134\",\"address\":\"0x10\"");
    expect("\"log_tail\":\"last \\\"words\\\"\"");
    expect("\"type\":\"/problems/failed\"");
    assert_false(fx->closed);
}

static void every_outcome_has_its_status(void **state)
{
    static const struct {
        enum sched_outcome_kind kind;
        unsigned status, retry_after_s;
    } cases[] = {{SCHED_NO_FUNCTION, 404, 0},        {SCHED_QUEUE_FULL, 429, 3},
                 {SCHED_WAIT_EXPIRED, 429, 0},       {SCHED_REQUEST_TOO_LARGE, 413, 0},
                 {SCHED_RESPONSE_TOO_LARGE, 502, 0}, {SCHED_TIMED_OUT, 504, 0},
                 {SCHED_CANNOT_RUN, 503, 0},         {SCHED_DRAINING, 503, 0},
                 {SCHED_CANCELLED, 502, 0},          {SCHED_INTERNAL, 500, 0},
                 {SCHED_WRONG_INTERFACE, 421, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sched_outcome outcome = {.kind = cases[i].kind,
                                        .retry_after_s = cases[i].retry_after_s};
        ask("GET", "/fn/hello", NULL);
        below_end(&outcome);
        pump();
        expect_status(cases[i].status);
        expect("X-Unid-Invocation-Id: ");
        expect("Server-Timing: ");
        bool retry = cases[i].status == 429 || cases[i].kind == SCHED_DRAINING;
        assert_int_equal(strstr(got(), "Retry-After: ") != NULL, retry);
    }
}

static void failure_in_the_middle_cuts_the_connection(void **state)
{
    (void)state;
    ask("GET", "/fn/hello", NULL);
    below_respond(200, NULL, "part", false);
    pump();
    below_end(&(struct sched_outcome){.kind = SCHED_FAILED, .responded = true});
    pump();
    expect("part");
    assert_null(strstr(got(), "0\r\n\r\n"));
    assert_true(fx->closed);
}

static void client_that_leaves_cancels_the_call(void **state)
{
    (void)state;
    ask("GET", "/fn/hello", NULL);
    close(fx->fd);
    fx->fd = -1;
    for (int i = 0; i < 6000 && !below.cancels; i++) {
        usleep(i < 20 ? 0 : 10000); /* loopback may be late */
        un_loop_run_ready(fx->loop);
        un_loop_advance(fx->loop, 500000);
    }
    assert_int_equal(below.cancels, 1);
}

static void slow_reader_holds_the_function_back(void **state)
{
    static char block[256 * 1024];
    unsigned sent = 0;
    (void)state;
    ask("GET", "/fn/hello", NULL);
    below_respond(200, NULL, "x", false);
    while (below.data_dones == sent + 1 && sent < 400) {
        below_data(block, sizeof(block), false);
        un_loop_run_ready(fx->loop);
        sent++;
    }
    assert_true(sent < 400); /* it stands still, with one piece outstanding */
    pump();
    assert_int_equal(below.data_dones, sent + 1);
    below_data("", 0, true);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    pump();
    assert_int_equal(fx->in.len > sent * sizeof(block), 1);
}

static void full_scheduler_holds_the_client_back(void **state)
{
    (void)state;
    below.body_room = 0;
    say("POST /fn/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    say("3\r\nabc\r\n");
    say("3\r\ndef\r\n");
    assert_string_equal(below.body.data, "abc");
    below.body_room = 1;
    below.events->on_body_room(below.call_arg);
    pump();
    assert_string_equal(below.body.data, "abcdef");
    assert_int_equal(below.content_length, -1);
}

static void what_cannot_be_called_is_refused_with_an_id(void **state)
{
    static const struct {
        unsigned status;
        const char *text;
    } cases[] = {
        {404, "GET /fn/Not_A_Name HTTP/1.1\r\nHost: x\r\n\r\n"},
        {413, "GET /fn/hello/too-big HTTP/1.1\r\nHost: x\r\n\r\n"},
        {413, "POST /fn/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nExpect: "
              "100-continue\r\n\r\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        forget();
        say(cases[i].text);
        expect_status(cases[i].status);
        expect("X-Unid-Invocation-Id: ");
        expect("Server-Timing: queue;dur=0.000");
        assert_int_equal(below.starts, 0);
    }
}

static void errors_of_the_body_carry_the_id_too(void **state)
{
    (void)state;
    say("POST /fn/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    expect_status(400);
    expect("X-Unid-Invocation-Id: ");
    assert_int_equal(below.cancels, 1);
}

static void head_of_a_function_has_no_body(void **state)
{
    (void)state;
    ask("HEAD", "/fn/hello", NULL);
    below_respond(200, "77", "", true);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    pump();
    expect("Content-Length: 77\r\n");
    assert_false(fx->closed);
    ask("GET", "/healthz", NULL);
    expect_status(200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(function_gets_the_request_without_the_connections_fields),
        TEST(target_of_the_function_begins_with_a_slash),
        TEST(response_in_one_piece_has_a_length),
        TEST(response_in_pieces_is_chunked),
        TEST(declared_length_is_kept_when_streaming),
        TEST(wrong_declared_length_cuts_the_connection),
        TEST(failure_says_how_with_the_invocation),
        TEST(every_outcome_has_its_status),
        TEST(failure_in_the_middle_cuts_the_connection),
        TEST(client_that_leaves_cancels_the_call),
        TEST(slow_reader_holds_the_function_back),
        TEST(full_scheduler_holds_the_client_back),
        TEST(what_cannot_be_called_is_refused_with_an_id),
        TEST(errors_of_the_body_carry_the_id_too),
        TEST(head_of_a_function_has_no_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
