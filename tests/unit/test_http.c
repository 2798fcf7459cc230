/* test_http.c - the HTTP server against a raw client on a socket pair or on loopback.
 *
 * Time is virtual: time limits are reached by un_loop_advance. Bytes are moved by pump(), which
 * runs the loop until nothing is ready, and reads what the server has sent. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/http/internal.h"
#include "api/http/server.h"
#include "common/bytes.h"
#include "common/cleanup.h"

/* --- a server whose handler does what the path says
 * ------------------------------------------------ */

struct work {
    struct http_exchange *ex;
    struct un_buf body;
    size_t to_send;
    bool echo;
};

struct fixture {
    struct un_loop *loop;
    struct http_server *server;
    int fd;             /* the client's end */
    struct un_buf in;   /* what the server has sent */
    bool closed, reset; /* the server's end is */
    unsigned heads, gone, bodies;
    size_t body_bytes;
    struct work *held; /* of /hold */
    char last_target[256], last_field[256], last_host[256];
    size_t last_fields;
};
static struct fixture *fx;

static void work_free(struct work *w)
{
    un_buf_done(&w->body);
    if (fx->held == w) {
        fx->held = NULL;
    }
    free(w);
}

static void work_gone(void *arg)
{
    fx->gone++;
    work_free(arg);
}

static void collect(void *arg, const void *data, size_t len)
{
    struct work *w = arg;
    fx->body_bytes += len;
    assert_int_equal(un_buf_append(&w->body, data, len), 0);
}

static void collected(void *arg)
{
    struct work *w = arg;
    fx->bodies++;
    http_respond_full(w->ex, 200, "text/plain", w->body.data, w->body.len);
    work_free(w);
}

static void hold_end(void *arg)
{
    (void)arg;
    fx->bodies++;
}

static void pour(void *arg)
{
    static const char block[16384];
    struct work *w = arg;
    while (w->to_send) {
        size_t n = w->to_send < sizeof(block) ? w->to_send : sizeof(block);
        w->to_send -= n;
        if (!http_respond_data(w->ex, block, n)) {
            return;
        }
    }
    http_respond_end(w->ex);
    work_free(w);
}

static void echo_body(void *arg, const void *data, size_t len)
{
    struct work *w = arg;
    fx->body_bytes += len;
    if (!http_respond_data(w->ex, data, len)) {
        http_body_pause(w->ex);
    }
}

static void echo_end(void *arg)
{
    struct work *w = arg;
    http_respond_end(w->ex);
    work_free(w);
}

static void echo_room(void *arg)
{
    struct work *w = arg;
    http_body_resume(w->ex);
}

static const struct http_handler collect_handler = {collect, collected, NULL, work_gone};
static const struct http_handler hold_handler = {collect, hold_end, NULL, work_gone};
static const struct http_handler pour_handler = {NULL, NULL, pour, work_gone};
static const struct http_handler echo_handler = {echo_body, echo_end, echo_room, work_gone};

static void on_head(void *arg, struct http_exchange *ex)
{
    const struct http_request *r = http_exchange_request(ex);
    const char *x = http_request_field(r, "x-test");
    struct work *w = calloc(1, sizeof(*w));
    (void)arg;
    fx->heads++;
    snprintf(fx->last_target, sizeof(fx->last_target), "%s", r->target);
    snprintf(fx->last_field, sizeof(fx->last_field), "%s", x ? x : "(none)");
    snprintf(fx->last_host, sizeof(fx->last_host), "%s", r->host ? r->host : "(none)");
    fx->last_fields = r->field_count;
    w->ex = ex;
    if (strcmp(r->target, "/collect") == 0) {
        http_exchange_handle(ex, &collect_handler, w);
        http_body_resume(ex);
        if (!http_exchange_has_body(ex)) {
            collected(w);
        }
    } else if (strcmp(r->target, "/hold") == 0) {
        fx->held = w;
        http_exchange_handle(ex, &hold_handler, w);
        http_body_resume(ex);
    } else if (strcmp(r->target, "/deaf") == 0) { /* keeps the exchange, never takes the body */
        fx->held = w;
        http_exchange_handle(ex, &hold_handler, w);
    } else if (strcmp(r->target, "/pour") == 0) {
        w->to_send = 64u << 20;
        http_exchange_handle(ex, &pour_handler, w);
        http_respond_begin(ex, 200, -1);
        pour(w);
    } else if (strcmp(r->target, "/echo") == 0) {
        http_exchange_handle(ex, &echo_handler, w);
        http_respond_begin(ex, 200, -1);
        http_body_resume(ex);
    } else if (strcmp(r->target, "/abort") == 0) {
        http_respond_begin(ex, 200, -1);
        http_respond_data(ex, "part", 4);
        http_exchange_abort(ex);
        work_free(w);
    } else if (strcmp(r->target, "/big") == 0) {
        http_respond_problem(ex, 413, "too large");
        work_free(w);
    } else {
        http_respond_field(ex, "X-Once", "a");
        http_respond_field(ex, "X-Once", "b\r\nX-Evil: 1");
        http_respond_full(ex, 200, "text/plain", r->target, strlen(r->target));
        work_free(w);
    }
}

static void open_server(void)
{
    struct http_server_spec spec = {.loop = fx->loop, .on_head = on_head};
    http_limits_init(&spec.limits);
    assert_int_equal(http_server_open(&spec, &fx->server, NULL), 0);
}

static void connect_pair(void)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(http_server_adopt(fx->server, fds[0], NULL), 0);
    fx->fd = fds[1];
}

static int setup(void **state)
{
    fx = calloc(1, sizeof(*fx));
    *state = fx;
    assert_int_equal(un_loop_new_virtual(1000000, &fx->loop, NULL), 0);
    open_server();
    connect_pair();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    http_server_close(fx->server);
    un_loop_free(fx->loop);
    if (fx->fd >= 0) {
        close(fx->fd);
    }
    un_buf_done(&fx->in);
    free(fx);
    return 0;
}

/* --- the client
 * ------------------------------------------------------------------------------------ */

static void read_all(void)
{
    char buf[65536];
    for (;;) {
        ssize_t n = recv(fx->fd, buf, sizeof(buf), MSG_DONTWAIT);
        if (n > 0) {
            un_buf_append(&fx->in, buf, (size_t)n);
            continue;
        }
        fx->closed = fx->closed || n == 0;
        fx->reset = fx->reset || (n < 0 && errno == ECONNRESET);
        return;
    }
}

static void pump(void)
{
    for (int quiet = 0; quiet < 3; quiet++) {
        size_t before = fx->in.len;
        un_loop_run_ready(fx->loop);
        read_all();
        if (fx->in.len != before) {
            quiet = 0;
        }
    }
}

static void send_bytes(const void *data, size_t len)
{
    const char *at = data;
    while (len) {
        ssize_t n = send(fx->fd, at, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno != EAGAIN) {
                return;
            }
            un_loop_run_ready(fx->loop);
            read_all();
            continue;
        }
        at += n;
        len -= (size_t)n;
    }
}

static void say(const char *text)
{
    send_bytes(text, strlen(text));
    pump();
}

static const char *got(void)
{
    return fx->in.data ? (const char *)fx->in.data : "";
}

static unsigned count(const char *what)
{
    unsigned n = 0;
    for (const char *at = got(); (at = strstr(at, what)); at++) {
        n++;
    }
    return n;
}

static void expect_status(unsigned status)
{
    char line[32];
    snprintf(line, sizeof(line), "HTTP/1.1 %u ", status);
    if (strncmp(got(), line, strlen(line)) != 0) {
        fail_msg("expected %s, got: %.200s", line, got());
    }
}

static void forget(void)
{
    un_buf_reset(&fx->in);
    if (fx->in.data) {
        fx->in.data[0] = '\0';
    }
}

#define GET(target) "GET " target " HTTP/1.1\r\nHost: x\r\n\r\n"

/* --- what works
 * -------------------------------------------------------------------------------------- */

static void request_is_answered_and_connection_kept(void **state)
{
    (void)state;
    say(GET("/a?b=c"));
    expect_status(200);
    assert_non_null(strstr(got(), "Content-Length: 6\r\n"));
    assert_non_null(strstr(got(), "Date: "));
    assert_non_null(strstr(got(), "\r\n\r\n/a?b=c"));
    forget();
    say(GET("/second"));
    expect_status(200);
    assert_false(fx->closed);
}

static void request_in_single_bytes_is_the_same_request(void **state)
{
    (void)state;
    const char *text =
        "\r\nPOST /collect HTTP/1.1\r\nHost: x\r\nX-Test:  v w \r\nTransfer-Encoding: "
        "chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\n" GET("/next");
    for (; *text; text++) {
        send_bytes(text, 1);
        un_loop_run_ready(fx->loop);
    }
    pump();
    expect_status(200);
    assert_string_equal(fx->last_target, "/next");
    assert_non_null(strstr(got(), "\r\n\r\nabcdeHTTP/1.1 200 OK"));
    assert_int_equal(fx->body_bytes, 5);
}

static void field_values_are_trimmed_and_cannot_be_injected(void **state)
{
    (void)state;
    say("GET / HTTP/1.1\r\nHost: x\r\nx-TEST: \t a b \t\r\nEmpty:\r\n\r\n");
    assert_string_equal(fx->last_field, "a b");
    assert_int_equal(fx->last_fields, 3);
    assert_non_null(strstr(got(), "X-Once: b\r\n"));
    assert_null(strstr(got(), "X-Evil"));
    assert_int_equal(count("X-Once"), 1);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    say(GET("/1") "POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi" GET("/3"));
    assert_int_equal(count("HTTP/1.1 200"), 3);
    const char *one = strstr(got(), "\r\n\r\n/1"), *two = strstr(got(), "\r\n\r\nhi");
    const char *three = strstr(got(), "\r\n\r\n/3");
    assert_true(one && two && three && one < two && two < three);
}

static void pipelined_request_waits_for_the_one_before(void **state)
{
    (void)state;
    say(GET("/hold") GET("/after"));
    assert_int_equal(fx->heads, 1);
    http_respond_full(fx->held->ex, 200, NULL, "held", 4);
    work_free(fx->held);
    pump();
    assert_int_equal(fx->heads, 2);
    assert_true(strstr(got(), "held") < strstr(got(), "/after"));
}

static void many_pipelined_requests_are_all_answered(void **state)
{
    (void)state;
    for (int i = 0; i < 500; i++) {
        send_bytes(GET("/x"), strlen(GET("/x")));
    }
    pump();
    assert_int_equal(count("HTTP/1.1 200"), 500);
}

static void expect_100_gets_continue_only_when_the_body_is_wanted(void **state)
{
    (void)state;
    say("POST /collect HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_string_equal(got(), "HTTP/1.1 100 Continue\r\n\r\n");
    forget();
    say("abc");
    expect_status(200);
    assert_false(fx->closed);
    forget();
    say("POST /big HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    expect_status(413);
    assert_non_null(strstr(got(), "Connection: close\r\n"));
    assert_true(fx->closed);
}

static void unknown_expectation_is_417(void **state)
{
    (void)state;
    say("GET / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n");
    expect_status(417);
}

static void http10_is_closed_unless_it_asks(void **state)
{
    (void)state;
    say("GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    expect_status(200);
    assert_non_null(strstr(got(), "Connection: keep-alive\r\n"));
    assert_false(fx->closed);
    forget();
    say("GET /old HTTP/1.0\r\n\r\n");
    expect_status(200);
    assert_true(fx->closed);
}

static void http10_body_of_unknown_length_ends_with_the_connection(void **state)
{
    (void)state;
    say("POST /echo HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc");
    expect_status(200);
    assert_null(strstr(got(), "chunked"));
    assert_non_null(strstr(got(), "\r\n\r\nabc"));
    assert_true(fx->closed);
}

static void head_has_the_length_but_no_body(void **state)
{
    (void)state;
    say("HEAD /abcd HTTP/1.1\r\nHost: x\r\n\r\n" GET("/n"));
    assert_non_null(strstr(got(), "Content-Length: 5\r\n"));
    assert_null(strstr(got(), "/abcd"));
    assert_int_equal(count("HTTP/1.1 200"), 2);
}

static void connection_close_is_honoured(void **state)
{
    (void)state;
    say("GET / HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n" GET("/never"));
    assert_int_equal(fx->heads, 1);
    assert_non_null(strstr(got(), "Connection: close\r\n"));
    assert_true(fx->closed);
}

static void absolute_target_replaces_the_host(void **state)
{
    (void)state;
    say("GET http://real:80/p?q HTTP/1.1\r\nHost: other\r\n\r\n");
    expect_status(200);
    assert_string_equal(fx->last_target, "/p?q");
    assert_string_equal(fx->last_host, "real:80");
}

static void response_streams_chunked(void **state)
{
    (void)state;
    say("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe");
    say("llo");
    assert_non_null(strstr(got(), "Transfer-Encoding: chunked\r\n"));
    assert_non_null(strstr(got(), "\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"));
    assert_false(fx->closed);
}

static void unread_small_body_is_dropped_and_connection_kept(void **state)
{
    (void)state;
    say("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    expect_status(200);
    forget();
    say("defghij" GET("/next"));
    expect_status(200);
    assert_string_equal(fx->last_target, "/next");
}

static void unread_large_body_closes_but_the_answer_arrives(void **state)
{
    (void)state;
    char block[65536] = {0};
    say("POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
    for (int i = 0; i < 8; i++) {
        send_bytes(block, sizeof(block));
    }
    pump();
    expect_status(413);
    assert_non_null(strstr(got(), "too large"));
    assert_true(fx->closed);
    assert_false(fx->reset);
    un_loop_advance(fx->loop, 3000000);
    assert_int_equal(http_server_connections(fx->server), 0);
}

/* --- what is refused
 * --------------------------------------------------------------------------------- */

static void malformed_and_smuggling_heads_are_refused(void **state)
{
    static const struct {
        unsigned status;
        const char *text;
    } cases[] = {
        {400,
         "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {400,
         "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"},
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
        {400, "GET /\r\n\r\n"},
        {400, "G(T / HTTP/1.1\r\nHost: x\r\n\r\n"},
        {501, "BREW / HTTP/1.1\r\nHost: x\r\n\r\n"},
        {501, "CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n"},
        {505, "GET / HTTP/2.0\r\nHost: x\r\n\r\n"},
        {505, "GET / HTTP/1.2\r\nHost: x\r\n\r\n"},
        {505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
        {400, "\x16\x03\x01\x02\n"},
    };
    (void)state;
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        say(cases[i].text);
        char line[32];
        snprintf(line, sizeof(line), "HTTP/1.1 %u ", cases[i].status);

        if (strncmp(got(), line, strlen(line)) != 0) {
            fail_msg("case %zu: expected %u for %s, got: %.100s", i, cases[i].status, cases[i].text,
                     got());
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

/* --- time
 * ---------------------------------------------------------------------------------------------- */

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

/* --- back-pressure
 * --------------------------------------------------------------------------------------- */

/* What the server holds of all connections. */
static size_t buffered(void)
{
    size_t sum = 0;
    un_list_for_each (it, &fx->server->conns) {
        struct http_conn *c = un_list_entry(it, struct http_conn, node);
        sum += evbuffer_get_length(bufferevent_get_input(c->bev));
        sum += evbuffer_get_length(bufferevent_get_output(c->bev));
    }
    return sum;
}

enum { BUFFERED_MOST = LIMIT_HTTP_BUFFER_BYTES + 128 * 1024 };

static void client_that_does_not_read_holds_the_response_back(void **state)
{
    (void)state;
    send_bytes(GET("/pour"), strlen(GET("/pour"))); /* 64 MiB */
    un_loop_run_ready(fx->loop);
    assert_true(buffered() < BUFFERED_MOST);
    size_t total = 0;
    for (int i = 0; i < 100000 && total < (64u << 20); i++) {
        un_loop_run_ready(fx->loop);
        read_all();
        total += fx->in.len;
        un_buf_reset(&fx->in);
    }
    assert_true(total >= (64u << 20));
}

static void handler_that_does_not_take_the_body_holds_the_client_back(void **state)
{
    (void)state;
    char block[65536] = {0};
    size_t sent = 0;
    say("POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
    for (int i = 0; i < 200; i++) {
        ssize_t n = send(fx->fd, block, sizeof(block), MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        un_loop_run_ready(fx->loop);
    }
    assert_true(sent < (1u << 20)); /* the socket's buffers and our read-ahead, no more */
    assert_int_equal(fx->body_bytes, 0);
    http_body_resume(fx->held->ex);
    pump();
    assert_true(fx->body_bytes == sent);
}

static void echo_of_a_large_body_streams_both_ways(void **state)
{
    (void)state;
    char block[65536];
    memset(block, 'e', sizeof(block));
    say("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 16777216\r\n\r\n");
    size_t total = 0;
    for (int i = 0; i < 256; i++) {
        send_bytes(block, sizeof(block));
        assert_true(buffered() < BUFFERED_MOST);
        total += fx->in.len;
        un_buf_reset(&fx->in);
    }
    pump();
    assert_non_null(strstr(got(), "\r\n0\r\n\r\n"));
    assert_int_equal(fx->body_bytes, 16777216);
    assert_true(total > 15000000);
}

static void pipelining_without_reading_does_not_grow(void **state)
{
    (void)state;
    static char heads[64 * 40];
    for (int i = 0; i < 64; i++) {
        strcat(heads, GET("/pipelined"));
    }
    for (int i = 0; i < 4000; i++) {
        send(fx->fd, heads, strlen(heads), MSG_DONTWAIT | MSG_NOSIGNAL);
        un_loop_run_ready(fx->loop);
    }
    assert_true(buffered() < BUFFERED_MOST);
}

/* --- clients that leave
 * ------------------------------------------------------------------------------------ */

static void client_that_leaves_is_noticed(void **state)
{
    (void)state;
    say(GET("/hold"));
    close(fx->fd);
    fx->fd = -1;
    un_loop_run_ready(fx->loop);
    un_loop_advance(fx->loop, 1000000);
    un_loop_run_ready(fx->loop);
    assert_int_equal(fx->gone, 1);
    assert_int_equal(http_server_connections(fx->server), 0);
}

static void client_that_half_closes_is_answered(void **state)
{
    (void)state;
    say(GET("/hold"));
    shutdown(fx->fd, SHUT_WR);
    pump();
    un_loop_advance(fx->loop, 60000000);
    pump();
    assert_int_equal(fx->gone, 0);
    http_respond_full(fx->held->ex, 200, NULL, "still here", 10);
    work_free(fx->held);
    pump();
    assert_non_null(strstr(got(), "still here"));
    assert_true(fx->closed);
}

static void body_that_is_cut_off_is_lost(void **state)
{
    (void)state;
    say("POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    shutdown(fx->fd, SHUT_WR);
    pump();
    assert_int_equal(fx->gone, 1);
    assert_int_equal(fx->bodies, 0);
    expect_status(400);
    assert_true(fx->closed);
}

/* Over TCP only the client's reset tells a half-close from a close. Real time: the kernel is
 * involved. */
static void tcp_connect(uint16_t port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    close(fx->fd);
    fx->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fx->fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
}

static void tcp_client_that_leaves_is_told_from_one_that_half_closes(void **state)
{
    (void)state;
    uint16_t port = 0;
    assert_int_equal(http_server_listen_tcp(fx->server, "127.0.0.1:0", &port, NULL), 0);
    tcp_connect(port);
    say(GET("/hold"));
    shutdown(fx->fd, SHUT_WR);
    pump();
    for (int i = 0; i < 20; i++) {
        un_loop_advance(fx->loop, 500000);
        pump();
    }
    assert_int_equal(fx->gone, 0);
    assert_string_equal(got(), "HTTP/1.1 100 Continue\r\n\r\n");
    http_respond_full(fx->held->ex, 200, NULL, "here", 4);
    work_free(fx->held);
    pump();
    assert_non_null(strstr(got(), "here"));

    tcp_connect(port);
    say(GET("/hold"));
    close(fx->fd);
    fx->fd = -1;
    for (int i = 0; i < 20 && !fx->gone; i++) {
        un_loop_run_ready(fx->loop);
        un_loop_advance(fx->loop, 500000);
    }
    assert_int_equal(fx->gone, 1);
}

static void failed_stream_is_cut_without_its_end(void **state)
{
    (void)state;
    say(GET("/abort"));
    assert_null(strstr(got(), "0\r\n\r\n"));
    assert_true(fx->closed || fx->reset);
    assert_int_equal(http_server_connections(fx->server), 0);
}

/* --- the server's life
 * ---------------------------------------------------------------------------------------- */

static void drain_closes_idle_and_finishes_the_rest(void **state)
{
    (void)state;
    int idle = fx->fd;
    connect_pair();
    say(GET("/hold"));
    http_server_drain(fx->server);
    pump();
    char byte;
    assert_int_equal(recv(idle, &byte, 1, MSG_DONTWAIT), 0);
    close(idle);
    assert_int_equal(http_server_connections(fx->server), 1);
    http_respond_full(fx->held->ex, 200, NULL, "last", 4);
    work_free(fx->held);
    pump();
    assert_non_null(strstr(got(), "Connection: close"));
    assert_true(fx->closed);
}

static void close_tells_running_handlers(void **state)
{
    (void)state;
    say(GET("/hold"));
    http_server_close(fx->server);
    fx->server = NULL;
    assert_int_equal(fx->gone, 1);
}

static void full_server_lets_an_idle_connection_go(void **state)
{
    (void)state;
    struct http_server_spec spec = {.loop = fx->loop, .on_head = on_head};
    uint16_t port = 0;
    http_server_close(fx->server);
    http_limits_init(&spec.limits);
    spec.limits.connections = 2;
    assert_int_equal(http_server_open(&spec, &fx->server, NULL), 0);
    assert_int_equal(http_server_listen_tcp(fx->server, "127.0.0.1:0", &port, NULL), 0);
    int fds[4];
    for (int i = 0; i < 4; i++) {
        fx->fd = dup(0);
        tcp_connect(port);
        fds[i] = fx->fd;
        pump();
        assert_true(http_server_connections(fx->server) <= 2);
    }
    forget();
    say(GET("/newest"));
    expect_status(200);
    for (int i = 0; i < 3; i++) {
        close(fds[i]);
    }
}

static void unix_socket_has_its_mode_and_is_removed(void **state)
{
    (void)state;
    char dir[] = "/tmp/unid-http-XXXXXX", path[64];
    struct stat st;
    struct un_error err = UN_ERROR_INIT;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/s", dir);
    assert_int_equal(http_server_listen_unix(fx->server, path, 0600, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    /* A second server sees that the first one lives. */
    assert_int_equal(http_server_listen_unix(fx->server, path, 0600, &err), -EADDRINUSE);
    http_server_stop_accepting(fx->server);
    assert_int_equal(stat(path, &st), -1);
    /* A leftover file is replaced. */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strcpy(addr.sun_path, path);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd);
    assert_int_equal(http_server_listen_unix(fx->server, path, 0600, &err), 0);
    http_server_stop_accepting(fx->server);
    rmdir(dir);
}

static void malformed_addresses_are_refused(void **state)
{
    (void)state;
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(http_server_listen_tcp(fx->server, "127.0.0.1", NULL, &err), -EINVAL);
    assert_int_equal(http_server_listen_tcp(fx->server, "example.com:80", NULL, &err), -EINVAL);
    assert_int_equal(http_server_listen_tcp(fx->server, "127.0.0.1:99999", NULL, &err), -EINVAL);
    assert_int_equal(http_server_listen_tcp(fx->server, "localhost:0", NULL, &err), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(request_is_answered_and_connection_kept),
        TEST(request_in_single_bytes_is_the_same_request),
        TEST(field_values_are_trimmed_and_cannot_be_injected),
        TEST(pipelined_requests_are_answered_in_order),
        TEST(pipelined_request_waits_for_the_one_before),
        TEST(many_pipelined_requests_are_all_answered),
        TEST(expect_100_gets_continue_only_when_the_body_is_wanted),
        TEST(unknown_expectation_is_417),
        TEST(http10_is_closed_unless_it_asks),
        TEST(http10_body_of_unknown_length_ends_with_the_connection),
        TEST(head_has_the_length_but_no_body),
        TEST(connection_close_is_honoured),
        TEST(absolute_target_replaces_the_host),
        TEST(response_streams_chunked),
        TEST(unread_small_body_is_dropped_and_connection_kept),
        TEST(unread_large_body_closes_but_the_answer_arrives),
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
        TEST(client_that_does_not_read_holds_the_response_back),
        TEST(handler_that_does_not_take_the_body_holds_the_client_back),
        TEST(echo_of_a_large_body_streams_both_ways),
        TEST(pipelining_without_reading_does_not_grow),
        TEST(client_that_leaves_is_noticed),
        TEST(client_that_half_closes_is_answered),
        TEST(body_that_is_cut_off_is_lost),
        TEST(tcp_client_that_leaves_is_told_from_one_that_half_closes),
        TEST(failed_stream_is_cut_without_its_end),
        TEST(drain_closes_idle_and_finishes_the_rest),
        TEST(close_tells_running_handlers),
        TEST(full_server_lets_an_idle_connection_go),
        TEST(unix_socket_has_its_mode_and_is_removed),
        TEST(malformed_addresses_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
