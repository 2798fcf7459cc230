/* test_egress.c - connections to servers of the test's own on loopback, in real time. */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "scheduler/egress/dial_impl.h"
#include "scheduler/egress/egress.h"

static struct un_loop *loop;
static struct dialer *dialer;
static struct egress *egress;
static int listener = -1;
static uint16_t port;

static struct {
    unsigned answers, logs;
    int32_t result;
    char data[UNID_NET_SIZE];
    uint64_t readable, writable;
    char log[1024];
} told;

static void on_answer(void *arg, const struct hv_answer *answer)
{
    told.answers++;
    told.result = answer->result;
    if (answer->data && answer->result > 0) {
        memcpy(told.data, answer->data, (size_t)answer->result);
    }
}

static void on_ready(void *arg, uint64_t readable, uint64_t writable)
{
    told.readable = readable;
    told.writable = writable;
}

static void on_log(void *arg, const char *line)
{
    told.logs++;
    snprintf(told.log, sizeof(told.log), "%s", line);
}

static int setup(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    struct un_error err = UN_ERROR_INIT;

    memset(&told, 0, sizeof(told));
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&at, len) < 0 || listen(listener, 128) < 0 ||
        getsockname(listener, (struct sockaddr *)&at, &len) < 0) {
        return -1;
    }
    port = ntohs(at.sin_port);
    return un_loop_new(&loop, &err) < 0 || dialer_new(loop, &dialer, &err) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    egress_free(egress);
    egress = NULL;
    dialer_free(dialer);
    un_loop_free(loop);
    close(listener);
    return 0;
}

static void begin(char *const *rules)
{
    const struct egress_spec spec = {.loop = loop,
                                     .dialer = dialer,
                                     .rules = rules,
                                     .function = "f",
                                     .answer = on_answer,
                                     .ready = on_ready,
                                     .log = on_log};
    struct un_error err = UN_ERROR_INIT;

    assert_int_equal(egress_new(&spec, &egress, &err), 0);
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

#define UNTIL(cond)                                                                                \
    do {                                                                                           \
        uint64_t end_us = un_clock_mono_us() + 20000000;                                           \
        while (!(cond)) {                                                                          \
            assert_true(un_clock_mono_us() < end_us);                                              \
            pump();                                                                                \
        }                                                                                          \
    } while (0)

/* Asks what is answered at once. */
static int32_t ask(uint32_t op, unsigned handle, const void *data, size_t len)
{
    const struct hv_ask a = {.op = op, .handle = handle, .data = data, .len = len};
    unsigned before = told.answers;

    egress_ask(egress, &a);
    assert_int_equal(told.answers, before + 1);
    return told.result;
}

static int32_t open_to(const char *host)
{
    char text[300];

    snprintf(text, sizeof(text), "%s:%u", host, port);
    return ask(UNID_OP_NET_OPEN, 0, text, strlen(text));
}

static char rule_room[4][64];
static char *rules[5];

static char *const *rules_of(const char *const *formats)
{
    size_t n = 0;

    for (; formats[n]; n++) {
        snprintf(rule_room[n], sizeof(rule_room[n]), "%s:%u", formats[n], port);
        rules[n] = rule_room[n];
    }
    rules[n] = NULL;
    return rules;
}
#define RULES(...) rules_of((const char *const[]){__VA_ARGS__, NULL})

/* A connection that is made, and its other end. */
static int connected(int32_t *ret_handle)
{
    int other;

    *ret_handle = open_to("127.0.0.1");
    assert_in_range(*ret_handle, 0, 63);
    UNTIL(told.writable >> *ret_handle & 1);
    other = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(other >= 0);
    return other;
}

/* --- bytes ------------------------------------------------------------------------------------ */

static void bytes_go_both_ways_and_ends_are_seen(void **state)
{
    struct hv_egress stats;
    char got[8];
    int32_t h;
    int other;

    begin(RULES("127.0.0.1"));
    other = connected(&h);
    assert_int_equal(ask(UNID_OP_NET_RECV, (unsigned)h, NULL, 100), -EAGAIN);
    assert_int_equal(ask(UNID_OP_NET_SEND, (unsigned)h, "ping", 4), 4);
    assert_int_equal(recv(other, got, sizeof(got), 0), 4);
    assert_int_equal(send(other, "pong!", 5, 0), 5);
    UNTIL(told.readable >> h & 1);
    assert_int_equal(ask(UNID_OP_NET_RECV, (unsigned)h, NULL, 2), 2);
    assert_memory_equal(told.data, "po", 2);
    assert_int_equal(ask(UNID_OP_NET_RECV, (unsigned)h, NULL, 100), 3);
    assert_memory_equal(told.data, "ng!", 3);
    assert_false(told.readable >> h & 1);
    assert_int_equal(ask(UNID_OP_NET_SHUT, (unsigned)h, NULL, 0), 0);
    assert_int_equal(recv(other, got, sizeof(got), 0), 0);
    assert_int_equal(ask(UNID_OP_NET_SEND, (unsigned)h, "x", 1), -EPIPE);
    close(other);
    UNTIL(told.readable >> h & 1);
    assert_int_equal(ask(UNID_OP_NET_RECV, (unsigned)h, NULL, 100), 0);
    assert_int_equal(ask(UNID_OP_NET_CLOSE, (unsigned)h, NULL, 0), 0);
    assert_int_equal(told.readable | told.writable, 0);
    assert_int_equal(ask(UNID_OP_NET_RECV, (unsigned)h, NULL, 100), -EBADF);
    egress_get_stats(egress, &stats);
    assert_int_equal(stats.connections, 1);
    assert_int_equal(stats.bytes_in, 5);
    assert_int_equal(stats.bytes_out, 4);
}

static void guest_that_sends_faster_than_the_other_side_reads_is_held(void **state)
{
    static char piece[UNID_NET_SIZE];
    uint64_t sent = 0, received = 0;
    int32_t h, n;
    int other;

    begin(RULES("127.0.0.1"));
    other = connected(&h);
    assert_int_equal(fcntl(other, F_SETFL, O_NONBLOCK), 0);
    while ((n = ask(UNID_OP_NET_SEND, (unsigned)h, piece, sizeof(piece))) > 0) {
        sent += (uint64_t)n;
        assert_true(sent < 64u << 20);
    }
    assert_int_equal(n, -EAGAIN);
    assert_false(told.writable >> h & 1);
    while (received < sent) {
        ssize_t got = recv(other, piece, sizeof(piece), 0);

        received += got > 0 ? (uint64_t)got : 0;
        if (got < 0) {
            pump();
        }
    }
    UNTIL(told.writable >> h & 1);
    assert_true(ask(UNID_OP_NET_SEND, (unsigned)h, piece, 10) == 10);
    close(other);
}

static void end_of_the_invocation_closes_what_is_open(void **state)
{
    char got[8];
    int32_t h;
    int other;

    begin(RULES("127.0.0.1"));
    other = connected(&h);
    assert_int_equal(ask(UNID_OP_NET_SEND, (unsigned)h, "last", 4), 4);
    egress_free(egress);
    egress = NULL;
    assert_int_equal(recv(other, got, sizeof(got), MSG_WAITALL), 4);
    assert_int_equal(recv(other, got, sizeof(got), 0), 0);
    close(other);
}

static void handles_are_bounded_and_used_again(void **state)
{
    begin(RULES("127.0.0.1"));
    for (int i = 0; i < LIMIT_EGRESS_HANDLES; i++) {
        assert_int_equal(open_to("127.0.0.1"), i);
    }
    assert_int_equal(open_to("127.0.0.1"), -EMFILE);
    assert_int_equal(ask(UNID_OP_NET_CLOSE, 7, NULL, 0), 0);
    assert_int_equal(ask(UNID_OP_NET_CLOSE, 7, NULL, 0), -EBADF);
    assert_int_equal(open_to("127.0.0.1"), 7);
    assert_int_equal(ask(UNID_OP_NET_SEND, 64, "x", 1), -EBADF);
    assert_int_equal(ask(99, 0, NULL, 0), -ENOSYS);
}

/* --- what is allowed -------------------------------------------------------------------------- */

static void nothing_is_reached_without_a_rule(void **state)
{
    struct hv_egress stats;

    begin(NULL);
    assert_int_equal(open_to("127.0.0.1"), -EACCES);
    assert_non_null(strstr(told.log, "deploy f again with --egress 127.0.0.1:"));
    assert_int_equal(ask(UNID_OP_NET_RESOLVE, 0, "Example.test.", 13), -EACCES);
    assert_non_null(strstr(told.log, "--egress example.test:PORT"));
    assert_int_equal(ask(UNID_OP_NET_OPEN, 0, "nonsense", 8), -EINVAL);
    assert_int_equal(ask(UNID_OP_NET_RESOLVE, 0, "a b", 3), -EINVAL);
    egress_get_stats(egress, &stats);
    assert_int_equal(stats.refused, 2);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(open_to("127.0.0.1"), -EACCES);
    }
    assert_int_equal(told.logs, LIMIT_EGRESS_LOG_LINES);
    assert_non_null(strstr(told.log, "nothing further of connections is logged"));
}

static void names_are_allowed_by_rule_and_port(void **state)
{
    begin(RULES("*.example.test", "localhost"));
    assert_int_equal(ask(UNID_OP_NET_RESOLVE, 0, "a.example.test", 14), 0);
    assert_int_equal(ask(UNID_OP_NET_RESOLVE, 0, "example.test", 12), -EACCES);
    assert_int_equal(ask(UNID_OP_NET_RESOLVE, 0, "localhost", 9), 0);
    assert_int_equal(ask(UNID_OP_NET_OPEN, 0, "localhost:1", 11), port == 1 ? 0 : -EACCES);
    assert_int_equal(open_to("localhost"), 0);
    UNTIL(told.writable & 1);
    assert_int_equal(ask(UNID_OP_NET_SEND, 0, "x", 1), 1);
    assert_int_equal(open_to("127.0.0.1"), 1); /* localhost by its address */
    assert_int_equal(open_to("127.0.0.2"), -EACCES);
}

static void name_that_stands_for_this_host_opens_nothing(void **state)
{
    char host[256];
    struct hv_egress stats;

    /* A name that every host has for itself; where it has none, there is nothing to look up. */
    if (gethostname(host, sizeof(host)) < 0 || !host[0] || strcmp(host, "localhost") == 0) {
        print_message("skipped: this host has no name\n");
        skip();
    }
    begin(RULES(host));
    assert_int_equal(open_to(host), 0);
    UNTIL(told.readable & 1);
    assert_true(ask(UNID_OP_NET_SEND, 0, "x", 1) == -EACCES || told.result == -EHOSTUNREACH);
    assert_int_equal(ask(UNID_OP_NET_RECV, 0, NULL, 1), told.result);
    egress_get_stats(egress, &stats);
    assert_int_equal(stats.connections, 0);
    if (told.result == -EACCES) {
        assert_non_null(strstr(told.log, "address of this host"));
    }
}

static void own_addresses_are_known(void **state)
{
    static const char *const own[] = {
        "127.0.0.1",
        "127.255.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "fd00:ec2::254",
        "192.0.0.192",
        "100.100.100.200",
        "::ffff:100.100.100.200",
    };
    static const char *const others[] = {"192.0.2.1",   "192.0.1.1",   "100.100.100.201",
                                         "fd00:ec3::1", "2001:db8::1", "::ffff:192.0.2.1"};
    union dial_address a;

    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
        assert_true(dial_address_read(own[i], 80, &a));
        if (!dial_address_is_own(&a)) {
            fail_msg("%s is not known as own", own[i]);
        }
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        assert_true(dial_address_read(others[i], 80, &a));
        assert_false(dial_address_is_own(&a));
    }
    assert_false(dial_address_read("localhost", 80, &a));
}

static void server_that_is_not_there_refuses(void **state)
{
    begin(RULES("127.0.0.1"));
    close(listener);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(open_to("127.0.0.1"), 0);
    UNTIL(told.writable & 1);
    assert_int_equal(ask(UNID_OP_NET_SEND, 0, "x", 1), -ECONNREFUSED);
    assert_non_null(strstr(told.log, "unid: connect to 127.0.0.1"));
    assert_int_equal(ask(UNID_OP_NET_SHUT, 0, NULL, 0), -ECONNREFUSED);
    assert_int_equal(ask(UNID_OP_NET_CLOSE, 0, NULL, 0), 0);
}

static void name_that_nobody_has_is_unreachable(void **state)
{
    begin(RULES("nobody.invalid"));
    assert_int_equal(open_to("nobody.invalid"), 0);
    assert_int_equal(ask(UNID_OP_NET_SEND, 0, "x", 1), -EAGAIN);
    assert_int_equal(ask(UNID_OP_NET_SHUT, 0, NULL, 0), -ENOTCONN);
    UNTIL(told.writable & 1);
    assert_int_equal(ask(UNID_OP_NET_SEND, 0, "x", 1), -EHOSTUNREACH);
    assert_non_null(strstr(told.log, "connect to nobody.invalid"));
    assert_non_null(strstr(told.log, "there is no such name"));
    assert_int_equal(open_to("nobody.invalid"), 1); /* given up while it is looked up */
    egress_free(egress);
    egress = NULL;
}

/* --- time ------------------------------------------------------------------------------------- */

static void wait_ends_with_its_time(void **state)
{
    const struct hv_ask a = {.op = UNID_OP_WAIT, .wait_ns = 20000000};
    uint64_t began = un_clock_mono_us();

    begin(NULL);
    egress_ask(egress, &a);
    assert_int_equal(told.answers, 0);
    UNTIL(told.answers == 1);
    assert_int_equal(told.result, 0);
    assert_true(un_clock_mono_us() - began >= 20000);
    assert_int_equal(ask(UNID_OP_WAIT, 0, NULL, 0), 0); /* none at all */
}

static void wait_that_readiness_has_ended_is_not_answered_again(void **state)
{
    const struct hv_ask a = {.op = UNID_OP_WAIT, .wait_ns = 50000000};
    uint64_t until;
    unsigned before;
    int32_t h;
    int other;

    begin(RULES("127.0.0.1"));
    other = connected(&h);
    assert_int_equal(ask(UNID_OP_NET_RECV, (unsigned)h, NULL, 10), -EAGAIN);
    before = told.answers;
    egress_ask(egress, &a);
    assert_int_equal(send(other, "x", 1, 0), 1);
    UNTIL(told.readable >> h & 1); /* the driver ends the WAIT by this */
    for (until = un_clock_mono_us() + 100000; un_clock_mono_us() < until;) {
        pump();
    }
    assert_int_equal(told.answers, before);
    assert_int_equal(ask(UNID_OP_NET_RECV, (unsigned)h, NULL, 10), 1);
    close(other);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(bytes_go_both_ways_and_ends_are_seen),
        T(guest_that_sends_faster_than_the_other_side_reads_is_held),
        T(end_of_the_invocation_closes_what_is_open),
        T(handles_are_bounded_and_used_again),
        T(nothing_is_reached_without_a_rule),
        T(names_are_allowed_by_rule_and_port),
        T(name_that_stands_for_this_host_opens_nothing),
        T(own_addresses_are_known),
        T(server_that_is_not_there_refuses),
        T(name_that_nobody_has_is_unreachable),
        T(wait_ends_with_its_time),
        T(wait_that_readiness_has_ended_is_not_answered_again),
    };

    return cmocka_run_group_tests_name("egress", tests, NULL, NULL);
}
