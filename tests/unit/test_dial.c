/* test_dial.c - connections to a server of the test's own on loopback, and within this unid. */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/limits.h"
#include "scheduler/egress/dial.h"

static struct un_loop *loop;
static struct dialer *dialer;
static int listener = -1;
static uint16_t port;

static struct {
    unsigned ends;
    int rc, fd;
    char why[512];
} got;

static struct {
    unsigned calls;
    char function[256];
    uint16_t port;
    int fd, rc;
} served;

static void on_done(void *arg, int rc, int fd, const struct un_error *why)
{
    got.ends++;
    got.rc = rc;
    got.fd = fd;
    snprintf(got.why, sizeof(got.why), "%s", why ? why->text : "");
}

static int serve(void *arg, const struct dial_inner *to, struct un_error *err)
{
    served.calls++;
    served.port = to->port;
    snprintf(served.function, sizeof(served.function), "%s", to->function);
    if (served.rc < 0) {
        return un_error_set(err, served.rc, "not here");
    }
    served.fd = to->fd;
    return 0;
}

static int setup(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    struct un_error err = UN_ERROR_INIT;

    memset(&got, 0, sizeof(got));
    memset(&served, 0, sizeof(served));
    got.fd = served.fd = -1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&at, len) < 0 || listen(listener, 8) < 0 ||
        getsockname(listener, (struct sockaddr *)&at, &len) < 0) {
        return -1;
    }
    port = ntohs(at.sin_port);
    return un_loop_new(&loop, &err) < 0 || dialer_new(loop, &dialer, &err) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    dialer_free(dialer);
    un_loop_free(loop);
    close(listener);
    if (got.fd >= 0) {
        close(got.fd);
    }
    if (served.fd >= 0) {
        close(served.fd);
    }
    return 0;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
}

static void pump(void)
{
    struct timeval tick = {.tv_usec = 10000};

    event_base_once(un_loop_base(loop), -1, EV_TIMEOUT, on_tick, NULL, &tick);
    event_base_loop(un_loop_base(loop), EVLOOP_ONCE);
    un_loop_run_ready(loop);
}

static void wait_for_end(void)
{
    uint64_t end_us = un_clock_mono_us() + 20000000;

    while (got.ends == 0) {
        assert_true(un_clock_mono_us() < end_us);
        pump();
    }
}

static struct dial *start(const char *host, uint16_t to_port, const char *rule)
{
    char *const rules[] = {(char *)rule, NULL};
    struct un_endpoint to;
    struct un_error err = UN_ERROR_INIT;
    char text[300];
    struct dial *dial = NULL;

    snprintf(text, sizeof(text), "%s:%u", host, to_port);
    assert_int_equal(un_endpoint_parse(text, strlen(text), false, &to, &err), 0);
    const struct dial_spec spec = {
        .dialer = dialer, .rules = rule ? rules : NULL, .to = &to, .done = on_done};
    assert_int_equal(dial_start(&spec, &dial, &err), 0);
    assert_int_equal(got.ends, 0); /* never inside */
    return dial;
}

static void address_that_a_rule_names_is_connected_to(void **state)
{
    char c = 0;

    start("127.0.0.1", port, "127.0.0.1:*");
    wait_for_end();
    assert_int_equal(got.rc, 0);
    int other = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_int_equal(send(got.fd, "x", 1, 0), 1);
    assert_int_equal(recv(other, &c, 1, 0), 1);
    close(other);
}

static void what_no_rule_names_is_refused(void **state)
{
    start("127.0.0.1", port, NULL);
    wait_for_end();
    assert_int_equal(got.rc, -EACCES);
    assert_non_null(strstr(got.why, "egress"));
    got.ends = 0;
    start("db.internal", 5432, "db.internal:5433");
    wait_for_end();
    assert_int_equal(got.rc, -EACCES);
    assert_int_equal(served.calls, 0);
}

static void nobody_listening_is_told(void **state)
{
    close(listener);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    start("127.0.0.1", port, "127.0.0.1:*");
    wait_for_end();
    assert_int_equal(got.rc, -ECONNREFUSED);
    got.ends = 0;
    start("nobody.invalid", 1, "nobody.invalid:1");
    wait_for_end();
    assert_int_equal(got.rc, -EHOSTUNREACH);
}

static void private_name_is_one_end_of_a_pair(void **state)
{
    char text[8] = "";

    dialer_on_internal(dialer, serve, NULL);
    start("Db.internal", 5432, "db.internal:5432");
    wait_for_end();
    assert_int_equal(got.rc, 0);
    assert_string_equal(served.function, "db");
    assert_int_equal(served.port, 5432);
    assert_int_equal(send(got.fd, "hello", 5, 0), 5);
    assert_int_equal(recv(served.fd, text, sizeof(text), 0), 5);
    assert_string_equal(text, "hello");
    assert_int_equal(shutdown(served.fd, SHUT_WR), 0);
    assert_int_equal(recv(got.fd, text, sizeof(text), 0), 0);
}

static void private_name_that_nobody_serves_is_refused(void **state)
{
    start("db.internal", 1, "*.internal:*");
    wait_for_end();
    assert_int_equal(got.rc, -ENOENT);
    dialer_on_internal(dialer, serve, NULL);
    served.rc = -ECONNREFUSED;
    got.ends = 0;
    start("db.internal", 1, "*.internal:*");
    wait_for_end();
    assert_int_equal(got.rc, -ECONNREFUSED);
    assert_string_equal(got.why, "not here");
    got.ends = 0;
    served.rc = 0;
    start("internal", 1, "internal:1"); /* a name like others */
    wait_for_end();
    assert_int_equal(served.calls, 1);
}

static void functions_that_call_each_other_come_to_an_end(void **state)
{
    char *const rules[] = {(char *)"db.internal:1", NULL};
    struct un_endpoint to;
    struct dial *dial;

    dialer_on_internal(dialer, serve, NULL);
    assert_int_equal(un_endpoint_parse("db.internal:1", 13, false, &to, NULL), 0);
    struct dial_spec spec = {.dialer = dialer, .rules = rules, .to = &to, .done = on_done};
    spec.depth = LIMIT_CALL_DEPTH;
    assert_int_equal(dial_start(&spec, &dial, NULL), 0);
    wait_for_end();
    assert_int_equal(got.rc, -ELOOP);
    assert_int_equal(served.calls, 0);
    got.ends = 0;
    spec.depth = LIMIT_CALL_DEPTH - 1;
    assert_int_equal(dial_start(&spec, &dial, NULL), 0);
    wait_for_end();
    assert_int_equal(got.rc, 0);
}

static void cancelled_ones_are_not_told(void **state)
{
    dialer_on_internal(dialer, serve, NULL);
    dial_cancel(start("127.0.0.1", port, "127.0.0.1:*"));
    dial_cancel(start("db.internal", 1, "db.internal:1"));
    dial_cancel(start("nobody.invalid", 1, "nobody.invalid:1"));
    dial_cancel(start("127.0.0.1", port, NULL));
    for (int i = 0; i < 20; i++) {
        pump();
    }
    assert_int_equal(got.ends, 0);
    assert_int_equal(served.calls, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(address_that_a_rule_names_is_connected_to),
        T(what_no_rule_names_is_refused),
        T(nobody_listening_is_told),
        T(private_name_is_one_end_of_a_pair),
        T(private_name_that_nobody_serves_is_refused),
        T(functions_that_call_each_other_come_to_an_end),
        T(cancelled_ones_are_not_told),
    };

    return cmocka_run_group_tests_name("dial", tests, NULL, NULL);
}
