/* test_outgoing.c - what becomes of connections that machines open: dialled under their rules, spliced, ended
 * with the machine. The machine's side is one end of a socket pair.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/limits.h"
#include "daemon/outgoing.h"

static struct un_loop *loop;
static struct dialer *dialer;
static struct outgoing *out;
static int listener = -1;
static struct un_endpoint server;
static char rule[UN_ENDPOINT_TEXT_SIZE];
static char *rules[] = {rule, NULL};

static struct hv_egress of_machine, of_functions; /* what was counted */

static void on_counted(void *arg, const char *function, const struct hv_egress *more)
{
    assert_string_equal(function, "f");
    hv_egress_add(arg, more);
}

static void assert_counted(unsigned connections, unsigned refused, unsigned failed)
{
    assert_memory_equal(&of_machine, &of_functions, sizeof(of_machine));
    assert_int_equal(of_machine.connections, connections);
    assert_int_equal(of_machine.refused, refused);
    assert_int_equal(of_machine.failed, failed);
}

static int setup(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&at, len) < 0 || listen(listener, 1024) < 0 ||
        getsockname(listener, (struct sockaddr *)&at, &len) < 0) {
        return -1;
    }
    snprintf(rule, sizeof(rule), "127.0.0.1:%u", ntohs(at.sin_port));
    assert_int_equal(un_endpoint_parse(rule, strlen(rule), false, &server, NULL), 0);
    assert_int_equal(un_loop_new(&loop, NULL), 0);
    assert_int_equal(dialer_new(loop, &dialer, NULL), 0);
    memset(&of_machine, 0, sizeof(of_machine));
    memset(&of_functions, 0, sizeof(of_functions));
    const struct outgoing_spec spec = {
        .loop = loop, .dialer = dialer, .on_counted = on_counted, .arg = &of_functions};
    assert_int_equal(outgoing_new(&spec, &out, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    outgoing_free(out);
    dialer_free(dialer);
    un_loop_free(loop);
    close(listener);
    return 0;
}

/* Gives the machine's own end. */
static int open_deep(const void *machine, const struct un_endpoint *to, char *const *egress,
                     unsigned depth)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    const struct service_opening opening = {.machine = machine,
                                            .function = "f",
                                            .egress = egress,
                                            .to = to,
                                            .depth = depth,
                                            .fd = ends[1],
                                            .count = &of_machine};
    outgoing_open(out, &opening);
    return ends[0];
}

static int open_to(const void *machine, const struct un_endpoint *to, char *const *egress)
{
    return open_deep(machine, to, egress, 0);
}

static bool readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

/* Turns the loop until it comes to that: loopback hands segments on a little later, on a busy machine. */
#define UNTIL(that)                                                                                \
    for (int n = 0; !(that); n++) {                                                                \
        assert_true(n < 60000);                                                                    \
        un_loop_run_ready(loop);                                                                   \
        usleep(1000);                                                                              \
    }

static int read_soon(int fd, char got[8])
{
    UNTIL(readable(fd));
    return (int)read(fd, got, 8);
}

static int accept_soon(void)
{
    UNTIL(readable(listener));
    return accept(listener, NULL, NULL);
}

static void test_bytes_go_both_ways_to_the_end(void **state)
{
    char got[8];
    int machine = open_to("m", &server, rules);
    int conn = accept_soon();
    assert_true(conn >= 0);
    assert_int_equal(write(machine, "ping", 4), 4);
    assert_int_equal(read_soon(conn, got), 4);
    assert_int_equal(write(conn, "pong!", 5), 5);
    close(conn);
    assert_int_equal(read_soon(machine, got), 5);
    assert_int_equal(read_soon(machine, got), 0);
    close(machine);
    UNTIL(of_machine.bytes_in > 0); /* when it has ended */
    assert_counted(1, 0, 0);
    assert_int_equal(of_machine.bytes_out, 4);
    assert_int_equal(of_machine.bytes_in, 5);
}

static void test_what_is_not_allowed_is_closed(void **state)
{
    char got[8];
    struct un_endpoint other = server;
    char *const none[] = {NULL};
    other.port = 1;
    int refused = open_to("m", &server, none), away = open_to("m", &other, rules);
    assert_int_equal(read_soon(refused, got), 0);
    assert_int_equal(read_soon(away, got), 0);
    assert_false(readable(listener));
    assert_counted(0, 2, 0);
    close(refused);
    close(away);
}

static void test_a_machine_takes_its_connections_with_it(void **state)
{
    char got[8];
    int first = open_to("m", &server, rules), conn = accept_soon();
    int other = open_to("n", &server, rules);
    UNTIL(of_machine.connections == 2);
    assert_int_equal(write(first, "ping", 4), 4);
    assert_int_equal(read_soon(conn, got), 4);
    assert_int_equal(of_machine.bytes_out, 0); /* of what is open still */
    int fresh = open_to("m", &server, rules);  /* being dialled */
    outgoing_end(out, "m");
    outgoing_end(out, "m");
    assert_int_equal(read(first, got, sizeof(got)), 0);
    assert_int_equal(read(fresh, got, sizeof(got)), 0);
    assert_int_equal(read(other, got, sizeof(got)), -1);
    assert_int_equal(errno, EAGAIN);
    assert_counted(2, 0, 0);
    assert_int_equal(of_machine.bytes_out, 4);
    close(first);
    close(fresh);
    close(other);
    close(conn);
}

static void test_a_machine_has_so_many_at_most(void **state)
{
    static int held[LIMIT_MACHINE_CONNECTIONS + 1];
    char got[8];
    for (int i = 0; i < LIMIT_MACHINE_CONNECTIONS + 1; i++) {
        held[i] = open_to("m", &server, rules);
    }
    int other = open_to("n", &server, rules);
    assert_int_equal(read_soon(held[LIMIT_MACHINE_CONNECTIONS], got), 0);
    UNTIL(of_machine.connections == LIMIT_MACHINE_CONNECTIONS + 1);
    assert_int_equal(read(held[LIMIT_MACHINE_CONNECTIONS - 1], got, sizeof(got)), -1);
    assert_int_equal(read(other, got, sizeof(got)), -1);
    close(other);
    for (int i = 0; i < LIMIT_MACHINE_CONNECTIONS + 1; i++) {
        close(held[i]);
    }
}

static void test_what_cannot_be_connected_to_has_failed(void **state)
{
    char got[8];
    close(listener);
    listener = -1;
    int machine = open_to("m", &server, rules);
    assert_int_equal(read_soon(machine, got), 0);
    assert_counted(0, 0, 1);
    close(machine);
}

static int serve_inner(void *arg, const struct dial_inner *to, struct un_error *err)
{
    *(unsigned *)arg = to->depth;
    close(to->fd);
    return 0;
}

static void test_a_call_within_is_as_deep_as_its_machine(void **state)
{
    char got[8];
    char name[] = "next.internal:80", *egress[] = {name, NULL};
    struct un_endpoint next;
    unsigned depth = 0;
    dialer_on_internal(dialer, serve_inner, &depth);
    assert_int_equal(un_endpoint_parse(egress[0], strlen(egress[0]), false, &next, NULL), 0);
    int last = open_deep("m", &next, egress, LIMIT_CALL_DEPTH - 1);
    UNTIL(depth > 0 && of_machine.connections == 1);
    assert_int_equal(depth, LIMIT_CALL_DEPTH - 1);
    depth = 0;
    int more = open_deep("m", &next, egress, LIMIT_CALL_DEPTH);
    assert_int_equal(read_soon(more, got), 0);
    assert_int_equal(depth, 0);
    assert_counted(1, 1, 0);
    close(last);
    close(more);
    un_loop_run_ready(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_cannot_be_connected_to_has_failed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_bytes_go_both_ways_to_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_allowed_is_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_machine_takes_its_connections_with_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_machine_has_so_many_at_most, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_call_within_is_as_deep_as_its_machine, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
