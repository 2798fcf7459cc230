/* test_http.c - the HTTP server: what works, back-pressure, clients that leave, the server's
 * life. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/http_fixture.h"

/* --- what works ------------------------------------------------------------------------------- */

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

static void expect_counts_also_behind_connection_close(void **state)
{
    (void)state;
    say("POST /collect HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n"
        "Content-Length: 3\r\n\r\n");
    assert_string_equal(got(), "HTTP/1.1 100 Continue\r\n\r\n");
    forget();
    say("abc");
    expect_status(200);
    assert_true(fx->closed);
}

static void close_counts_whatever_other_connection_fields_say(void **state)
{
    (void)state;
    say("GET /old HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n");
    expect_status(200);
    assert_true(fx->closed);
}

static void head_may_be_as_large_as_configured(void **state)
{
    static char value[200 * 1024];
    (void)state;
    fx->server->limits.head_bytes = 256 * 1024;
    memset(value, 'x', sizeof(value) - 1);
    say("GET / HTTP/1.1\r\nHost: x\r\nX-Test: ");
    say(value);
    say("\r\n\r\n");
    expect_status(200);
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

/* --- back-pressure ---------------------------------------------------------------------------- */

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

/* --- clients that leave ----------------------------------------------------------------------- */

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
static void tcp_client_that_leaves_is_told_from_one_that_half_closes(void **state)
{
    (void)state;
    uint16_t port = listen_tcp();
    close(fx->fd);
    fx->fd = tcp_connect(port);
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

    close(fx->fd);
    fx->fd = tcp_connect(port);
    say(GET("/hold"));
    close(fx->fd);
    fx->fd = -1;
    for (int i = 0; i < 6000 && !fx->gone; i++) {
        usleep(i < 20 ? 0 : 10000); /* loopback may be late */
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

/* --- the server's life ------------------------------------------------------------------------ */

static void drain_closes_idle_and_finishes_the_rest(void **state)
{
    (void)state;
    int idle = fx->fd;
    say(GET("/once"));
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

static void answer_that_is_complete_survives_close(void **state)
{
    (void)state;
    say(GET("/hold"));
    http_respond_full(fx->held->ex, 200, NULL, "last words", 10);
    work_free(fx->held);
    http_server_close(fx->server);
    fx->server = NULL;
    read_all();
    assert_non_null(strstr(got(), "last words"));
}

static void drain_answers_what_has_come_already(void **state)
{
    (void)state;
    say(GET("/before"));
    forget();
    send_bytes(GET("/in-the-kernel"), strlen(GET("/in-the-kernel")));
    http_server_drain(fx->server);
    pump();
    expect_status(200);
    assert_string_equal(fx->last_target, "/in-the-kernel");
    assert_non_null(strstr(got(), "Connection: close\r\n"));
    assert_true(fx->closed);
    assert_false(fx->reset);
}

static void drain_answers_who_was_not_accepted_yet(void **state)
{
    (void)state;
    uint16_t port = listen_tcp();
    close(fx->fd);
    use(tcp_connect(port));
    send_bytes(GET("/early"), strlen(GET("/early")));
    http_server_drain(fx->server);
    assert_int_equal(http_server_connections(fx->server), 2);
    pump();
    expect_status(200);
    assert_true(fx->closed);
}

static void drain_accepts_and_answers_who_comes_later(void **state)
{
    (void)state;
    uint16_t port = listen_tcp();
    http_server_drain(fx->server);
    close(fx->fd);
    use(tcp_connect(port));
    pump();
    un_loop_advance(fx->loop, 200000);
    say(GET("/later"));
    expect_status(200);
    assert_non_null(strstr(got(), "Connection: close\r\n"));
    assert_true(fx->closed);
}

static void drain_gives_a_silent_connection_a_moment(void **state)
{
    (void)state;
    http_server_drain(fx->server);
    pump();
    un_loop_advance(fx->loop, 200000);
    pump();
    assert_false(fx->closed);
    un_loop_advance(fx->loop, 100000);
    pump();
    assert_true(fx->closed);
    assert_int_equal(http_server_connections(fx->server), 0);
}

static void drain_keeps_what_an_answer_has_promised(void **state)
{
    (void)state;
    say("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nhe");
    assert_null(strstr(got(), "Connection: close"));
    http_server_drain(fx->server);
    say("ar" GET("/next"));
    assert_string_equal(fx->last_target, "/next");
    assert_int_equal(count("HTTP/1.1 200"), 2);
    assert_non_null(strstr(got(), "Connection: close\r\n"));
    assert_true(fx->closed);
}

static void send_now(void *arg)
{
    send_bytes(arg, strlen(arg));
}

static void request_in_the_last_moment_is_not_timed_out(void **state)
{
    static char second[] = GET("/second");
    struct un_timer sender;
    (void)state;
    un_timer_init(&sender, fx->loop, send_now, second);
    assert_int_equal(un_timer_arm_in(&sender, LIMIT_HTTP_IDLE_MS * 1000ull), 0);
    say(GET("/first"));
    forget();
    un_loop_advance(fx->loop, LIMIT_HTTP_IDLE_MS * 1000ull); /* both timers fire in one turn */
    pump();
    expect_status(200);
    assert_false(fx->closed);
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

/* --- the limit of connections ----------------------------------------------------------------- */

/* A server of four at most, in place of the fixture's. */
static uint16_t open_small(void)
{
    http_server_close(fx->server);
    close(fx->fd);
    open_server(4);
    fx->fd = -1;
    return listen_tcp();
}

static void close_all(int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        close(fds[i]);
    }
    fx->fd = -1;
}

static void full_server_lets_go_who_has_been_idle_longest(void **state)
{
    (void)state;
    uint16_t port = open_small();
    int fds[6];
    for (int i = 0; i < 6; i++) {
        use(fds[i] = tcp_connect(port));
        say(GET("/answered"));
        expect_status(200);
        assert_true(http_server_connections(fx->server) <= 4);
    }
    for (int i = 0; i < 6; i++) {
        use(fds[i]);
        read_all();
        assert_int_equal(fx->closed, i < 2);
        assert_false(fx->reset);
    }
    close_all(fds, 6);
}

static void full_server_answers_all_who_ask_at_once(void **state)
{
    (void)state;
    uint16_t port = open_small();
    int fds[12];
    unsigned refused = 0;
    for (int i = 0; i < 12; i++) {
        use(fds[i] = tcp_connect(port));
        send_bytes(GET("/deaf"), strlen(GET("/deaf")));
    }
    un_loop_run_ready(fx->loop);
    assert_int_equal(fx->heads, 4);
    for (int i = 0; i < 12; i++) {
        use(fds[i]);
        pump();
        assert_false(fx->reset);
        if (fx->in.len) {
            expect_status(503);
            assert_non_null(strstr(got(), "Retry-After: 1\r\n"));
            assert_non_null(strstr(got(), "Connection: close\r\n"));
            assert_non_null(strstr(got(), "application/problem+json"));
            assert_true(fx->closed);
            refused++;
        }
    }
    assert_int_equal(refused, 8);
    close_all(fds, 12);
}

static void refused_client_that_sends_a_body_reads_the_answer(void **state)
{
    (void)state;
    uint16_t port = open_small();
    char block[65536] = {0};
    int fds[5];
    for (int i = 0; i < 4; i++) {
        use(fds[i] = tcp_connect(port));
        say(GET("/deaf"));
    }
    use(fds[4] = tcp_connect(port));
    say("POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    for (int i = 0; i < 15; i++) {
        send_bytes(block, sizeof(block));
    }
    pump();
    expect_status(503);
    assert_true(fx->closed);
    assert_false(fx->reset);
    close_all(fds, 5);
}

static void connection_with_unread_bytes_is_not_let_go(void **state)
{
    (void)state;
    uint16_t port = open_small();
    int fds[5];
    for (int i = 0; i < 4; i++) {
        use(fds[i] = tcp_connect(port));
        say(GET("/first"));
    }
    /* All four and the new one have sent their request when the server looks next. */
    fds[4] = tcp_connect(port);
    for (int i = 0; i < 5; i++) {
        use(fds[i]);
        send_bytes(GET("/second"), strlen(GET("/second")));
    }
    un_loop_run_ready(fx->loop);
    for (int i = 0; i < 4; i++) {
        use(fds[i]);
        pump();
        expect_status(200);
    }
    use(fds[4]);
    pump();
    assert_true(strstr(got(), " 200 ") || strstr(got(), " 503 "));
    close_all(fds, 5);
}

static void silent_connections_do_not_keep_others_out(void **state)
{
    (void)state;
    uint16_t port = open_small();
    int fds[12];
    for (int i = 0; i < 12; i++) {
        fds[i] = tcp_connect(port);
    }
    un_loop_run_ready(fx->loop);
    use(fds[11]);
    say(GET("/newest"));
    expect_status(200);
    un_loop_advance(fx->loop, 1000000);
    un_loop_run_ready(fx->loop);
    unsigned closed = 0;
    for (int i = 0; i < 11; i++) {
        use(fds[i]);
        read_all();
        assert_true(fx->in.len == 0 || strstr(got(), "HTTP/1.1 503 ") == got());
        assert_int_equal(fx->in.len > 0, fx->closed);
        closed += fx->closed;
    }
    assert_int_equal(closed, 8);
    close_all(fds, 12);
}

static void connection_over_the_limit_gets_a_place_that_is_free_again(void **state)
{
    (void)state;
    uint16_t port = open_small();
    int fds[5];
    for (int i = 0; i < 4; i++) {
        use(fds[i] = tcp_connect(port));
        say(GET("/hold"));
    }
    use(fds[4] = tcp_connect(port));
    say("GET /late HTTP/1.1\r\nHost: x\r\n");
    close(fds[0]);
    for (int i = 0; i < 4; i++) {
        un_loop_advance(fx->loop, 500000); /* the server notices; the head's time is over, too */
        pump();
    }
    say("\r\n");
    expect_status(200);
    assert_false(fx->closed);
    close_all(fds + 1, 4);
}

static void connections_far_over_the_limit_wait_in_the_kernel(void **state)
{
    (void)state;
    enum { MANY = 4 + LIMIT_HTTP_REFUSING + 20 };
    uint16_t port = open_small();
    static int fds[MANY];
    for (int i = 0; i < MANY; i++) {
        use(fds[i] = tcp_connect(port));
        if (i < 4) {
            say(GET("/deaf"));
        }
    }
    un_loop_run_ready(fx->loop);
    assert_int_equal(http_server_connections(fx->server), 4 + LIMIT_HTTP_REFUSING);
    close_all(fds, MANY - 1);
    for (int i = 0; i < 10; i++) {
        un_loop_run_ready(fx->loop);
        un_loop_advance(fx->loop, 500000);
    }
    use(fds[MANY - 1]);
    say(GET("/served"));
    expect_status(200);
}

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
        TEST(expect_counts_also_behind_connection_close),
        TEST(close_counts_whatever_other_connection_fields_say),
        TEST(head_may_be_as_large_as_configured),
        TEST(unknown_expectation_is_417),
        TEST(http10_is_closed_unless_it_asks),
        TEST(http10_body_of_unknown_length_ends_with_the_connection),
        TEST(head_has_the_length_but_no_body),
        TEST(connection_close_is_honoured),
        TEST(absolute_target_replaces_the_host),
        TEST(response_streams_chunked),
        TEST(unread_small_body_is_dropped_and_connection_kept),
        TEST(unread_large_body_closes_but_the_answer_arrives),
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
        TEST(answer_that_is_complete_survives_close),
        TEST(drain_answers_what_has_come_already),
        TEST(drain_answers_who_was_not_accepted_yet),
        TEST(drain_accepts_and_answers_who_comes_later),
        TEST(drain_gives_a_silent_connection_a_moment),
        TEST(drain_keeps_what_an_answer_has_promised),
        TEST(request_in_the_last_moment_is_not_timed_out),
        TEST(unix_socket_has_its_mode_and_is_removed),
        TEST(malformed_addresses_are_refused),
        TEST(full_server_lets_go_who_has_been_idle_longest),
        TEST(full_server_answers_all_who_ask_at_once),
        TEST(refused_client_that_sends_a_body_reads_the_answer),
        TEST(connection_with_unread_bytes_is_not_let_go),
        TEST(silent_connections_do_not_keep_others_out),
        TEST(connection_over_the_limit_gets_a_place_that_is_free_again),
        TEST(connections_far_over_the_limit_wait_in_the_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
