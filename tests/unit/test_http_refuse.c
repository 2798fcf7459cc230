/* test_http_refuse.c - the HTTP server: what is malformed, ambiguous, too large, or too slow. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/http_fixture.h"

/* --- what is refused -------------------------------------------------------------------------- */

static const struct {
    unsigned status;
    const char *text;
} malformed[] = {
    {400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3\r\n\r\nabc"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 3\r\n\r\nabc"},
    {501, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"},
    {501, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n"},
    {501, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0b"
          "chunked\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
          "chunked\r\n\r\n"},
    {400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n Host: x\r\n\r\n"},
    {400, "GET / HTTP/1.1\nHost: x\n\n"},
    {400, "GET / HTTP/1.1\r\nHost: x\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: x\r\n\nGET /smuggled HTTP/1.1\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: x\r\nA b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: x\r\nA\x80: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: x\r\nA: b\x01\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"},
    {400, "GET  / HTTP/1.1\r\nHost: x\r\n\r\n"},
    {400, "GET / HTTP/1.1 \r\nHost: x\r\n\r\n"},
    {400, "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n"},
    {400, "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n"},
    {400, "GET /\x80 HTTP/1.1\r\nHost: x\r\n\r\n"},
    {400, "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n"},
    {400, "GET a HTTP/1.1\r\nHost: x\r\n\r\n"},
    {400, "GET * HTTP/1.1\r\nHost: x\r\n\r\n"},
    {400, "GET http://u@h/ HTTP/1.1\r\nHost: x\r\n\r\n"},
    {400, "GET http://a,b/ HTTP/1.1\r\nHost: x\r\n\r\n"},
    {400, "GET /\r\n\r\n"},
    {400, "G(T / HTTP/1.1\r\nHost: x\r\n\r\n"},
    {501, "BREW / HTTP/1.1\r\nHost: x\r\n\r\n"},
    {501, "CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n"},
    {505, "GET / HTTP/2.0\r\nHost: x\r\n\r\n"},
    {505, "GET / HTTP/1.2\r\nHost: x\r\n\r\n"},
    {505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
    {400, "\x16\x03\x01\x02\n"},
};

static void malformed_and_smuggling_heads_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < UN_ARRAY_SIZE(malformed); i++) {
        say(malformed[i].text);
        char line[32];
        snprintf(line, sizeof(line), "HTTP/1.1 %u ", malformed[i].status);

        if (strncmp(got(), line, strlen(line)) != 0) {
            fail_msg("case %zu: expected %u for %s, got: %.100s", i, malformed[i].status,
                     malformed[i].text, got());
        }
        assert_non_null(strstr(got(), "application/problem+json"));
        assert_non_null(strstr(got(), "Connection: close"));
        assert_int_equal(count("Content-Length: "), 1);
        assert_true(fx->closed);
        assert_int_equal(fx->heads, 0);
        close(fx->fd);
        fx->closed = false;
        forget();
        un_loop_run_ready(fx->loop);
        connect_pair();
    }
}

static void nul_byte_in_the_head_is_refused(void **state)
{
    (void)state;
    static const char text[] = "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n";
    send_bytes(text, sizeof(text) - 1);
    pump();
    expect_status(400);
}

static void malformed_chunks_are_refused(void **state)
{
    static const char *const bodies[] = {
        "5\nhello\r\n0\r\n\r\n",         "5 \r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",     "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",      "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",         "FFFFFFFFFFFFFFFFF\r\n",
        "5\rXhello\r\n0\r\n\r\n",        "5;\nX\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",         "5\r\nhello\r\n0\r\n A: b\r\n\r\n",
        "5\r\nhello\r\n0\r\nA: b\n\r\n", "\r\n5\r\nhello\r\n0\r\n\r\n"};
    (void)state;
    for (size_t i = 0; i < UN_ARRAY_SIZE(bodies); i++) {
        say("POST /collect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        say(bodies[i]);
        if (strncmp(got(), "HTTP/1.1 400 ", 13) != 0) {
            fail_msg("body %zu (%s): %.100s", i, bodies[i], got());
        }
        assert_int_equal(fx->gone, i + 1);
        assert_int_equal(fx->bodies, 0);
        close(fx->fd);
        fx->closed = false;
        forget();
        un_loop_run_ready(fx->loop);
        connect_pair();
    }
}

static void endless_chunk_extensions_and_trailers_are_refused(void **state)
{
    (void)state;
    char block[20000];
    memset(block, 'a', sizeof(block));
    say("POST /collect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;");
    send_bytes(block, sizeof(block));
    pump();
    expect_status(400);
}

static void limits_of_the_head_are_told(void **state)
{
    static const unsigned statuses[] = {414, 431, 431};
    (void)state;
    for (int i = 0; i < 3; i++) {
        char block[40000];
        memset(block, 'a', sizeof(block));
        say(i == 0 ? "GET /" : "GET / HTTP/1.1\r\nHost: x\r\n");
        if (i == 2) {
            for (int f = 0; f < 101; f++) {
                send_bytes("A: b\r\n", 6);
            }
        } else {
            send_bytes(block, i == 0 ? 9000 : sizeof(block));
        }
        pump();
        expect_status(statuses[i]);
        assert_true(fx->closed);
        close(fx->fd);
        fx->closed = false;
        forget();
        un_loop_run_ready(fx->loop);
        connect_pair();
    }
    assert_int_equal(fx->heads, 0);
}

/* --- time ------------------------------------------------------------------------------------- */

static void slow_head_is_408_however_it_drips(void **state)
{
    (void)state;
    say("GET / HTTP/1.1\r\n");
    for (int i = 0; i < 16 && !fx->closed; i++) {
        un_loop_advance(fx->loop, 1000000);
        say("a");
    }
    expect_status(408);
    assert_true(fx->closed);
}

static void idle_connection_is_closed(void **state)
{
    (void)state;
    say(GET("/"));
    un_loop_advance(fx->loop, LIMIT_HTTP_IDLE_MS * 1000ull - 1000);
    pump();
    assert_false(fx->closed);
    un_loop_advance(fx->loop, 2000);
    pump();
    assert_true(fx->closed);
}

static void body_that_stops_coming_is_408(void **state)
{
    (void)state;
    say("POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    un_loop_advance(fx->loop, 20000000);
    say("d"); /* moves: the limit starts again */
    un_loop_advance(fx->loop, 20000000);
    pump();
    assert_int_equal(fx->gone, 0);
    un_loop_advance(fx->loop, 15000000);
    pump();
    assert_int_equal(fx->gone, 1);
    expect_status(408);
}

static void handler_may_take_its_time(void **state)
{
    (void)state;
    say("POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx");
    un_loop_advance(fx->loop, 600000000ull);
    pump();
    assert_false(fx->closed);
    http_respond_full(fx->held->ex, 200, NULL, "late", 4);
    work_free(fx->held);
    pump();
    expect_status(200);
}

static void client_that_stops_reading_is_cut_off(void **state)
{
    (void)state;
    send_bytes(GET("/pour"), strlen(GET("/pour")));
    un_loop_run_ready(fx->loop);
    un_loop_advance(fx->loop, LIMIT_HTTP_STALL_MS * 1000ull + 1000000);
    un_loop_run_ready(fx->loop);
    assert_int_equal(fx->gone, 1);
    assert_int_equal(http_server_connections(fx->server), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(malformed_and_smuggling_heads_are_refused),
        TEST(nul_byte_in_the_head_is_refused),
        TEST(malformed_chunks_are_refused),
        TEST(endless_chunk_extensions_and_trailers_are_refused),
        TEST(limits_of_the_head_are_told),
        TEST(slow_head_is_408_however_it_drips),
        TEST(idle_connection_is_closed),
        TEST(body_that_stops_coming_is_408),
        TEST(handler_may_take_its_time),
        TEST(client_that_stops_reading_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
