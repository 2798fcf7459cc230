/* test_splice.c - two sockets as one connection: bytes, ends, breaks, and a side that does not read. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/fault.h"
#include "common/splice.h"

/* client - a ==splice== b - server */
struct world {
    struct un_loop *loop;
    struct un_splice *splice;
    int client, server;
    unsigned done;
    struct un_splice_stats stats;
};

static void on_done(void *arg, const struct un_splice_stats *stats)
{
    struct world *w = arg;
    w->done++;
    w->stats = *stats;
}

static void pair(bool tcp, int ret[2])
{
    if (!tcp) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret),
                         0);
        return;
    }
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(ret[0], (struct sockaddr *)&at, sizeof(at)), 0);
    ret[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(ret[1] >= 0);
    fcntl(ret[0], F_SETFL, O_NONBLOCK);
    close(listener);
}

static void world_open(struct world *w, bool tcp)
{
    int left[2], right[2];
    *w = (struct world){.done = 0};
    assert_int_equal(un_loop_new(&w->loop, NULL), 0);
    pair(tcp, left);
    pair(tcp, right);
    w->client = left[0];
    w->server = right[0];
    assert_int_equal(un_splice_new(w->loop, left[1], right[1], on_done, w, &w->splice, NULL), 0);
}

static void world_close(struct world *w)
{
    close(w->client);
    close(w->server);
    un_loop_free(w->loop);
}

/* Loopback hands segments on a little later, on a busy machine much later: reads what comes, as read(2). */
static ssize_t take(struct world *w, int fd, char *to, size_t size)
{
    for (int i = 0; i < 60000; i++) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        un_loop_run_ready(w->loop);
        if (poll(&p, 1, 1) > 0) {
            return read(fd, to, size);
        }
    }
    fail_msg("nothing comes");
    return -1;
}

static void until_done(struct world *w)
{
    for (int i = 0; i < 60000 && !w->done; i++) {
        un_loop_run_ready(w->loop);
        usleep(1000);
    }
    assert_int_equal(w->done, 1);
}

static void test_bytes_and_ends_pass(void **state)
{
    for (int tcp = 0; tcp < 2; tcp++) {
        struct world w;
        char got[8];
        world_open(&w, tcp);
        assert_int_equal(write(w.client, "ping", 4), 4);
        assert_int_equal(take(&w, w.server, got, 8), 4);
        /* One direction ends, the other goes on. */
        shutdown(w.client, SHUT_WR);
        assert_int_equal(take(&w, w.server, got, 8), 0);
        assert_int_equal(w.done, 0);
        assert_int_equal(write(w.server, "late", 4), 4);
        assert_int_equal(take(&w, w.client, got, 8), 4);
        assert_memory_equal(got, "late", 4);
        shutdown(w.server, SHUT_WR);
        until_done(&w);
        assert_int_equal(w.stats.rc, 0);
        assert_int_equal(w.stats.a_to_b, 4);
        assert_int_equal(w.stats.b_to_a, 4);
        assert_int_equal(take(&w, w.client, got, 8), 0);
        world_close(&w);
    }
}

/* What can be written while nobody reads is what the sockets hold, and one buffer. */
static void test_who_does_not_read_stops_who_writes(void **state)
{
    static char piece[16384];
    struct world w;
    size_t sent = 0, got = 0;
    world_open(&w, false);
    for (size_t i = 0; i < sizeof(piece); i++) {
        piece[i] = (char)(i * 7);
    }
    for (;;) {
        ssize_t n =
            write(w.client, piece + sent % sizeof(piece), sizeof(piece) - sent % sizeof(piece));
        if (n < 0) {
            un_loop_run_ready(w.loop);
            n = write(w.client, piece + sent % sizeof(piece), sizeof(piece) - sent % sizeof(piece));
        }
        if (n < 0) {
            break;
        }
        sent += (size_t)n;
        assert_true(sent < 4u << 20);
    }
    shutdown(w.client, SHUT_WR);
    for (;;) {
        char room[5000];
        ssize_t n = read(w.server, room, sizeof(room));
        if (n < 0) {
            un_loop_run_ready(w.loop);
            continue;
        }
        if (n == 0) {
            break;
        }
        for (ssize_t i = 0; i < n; i++) {
            assert_int_equal(room[i], piece[(got + (size_t)i) % sizeof(piece)]);
        }
        got += (size_t)n;
    }
    assert_int_equal(got, sent);
    assert_int_equal(w.done, 0);
    un_splice_free(w.splice);
    world_close(&w);
}

static void test_a_break_is_a_reset_for_the_other(void **state)
{
    struct linger now = {.l_onoff = 1};
    struct world w;
    char got[8];
    world_open(&w, true);
    setsockopt(w.client, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(w.client);
    until_done(&w);
    assert_int_equal(w.stats.rc, -ECONNRESET);
    assert_int_equal(take(&w, w.server, got, 8), -1);
    assert_int_equal(errno, ECONNRESET);
    w.client = dup(w.server);
    world_close(&w);

    world_open(&w, true);
    un_splice_free(w.splice);
    assert_int_equal(w.done, 0);
    assert_int_equal(take(&w, w.client, got, 8), -1);
    assert_int_equal(errno, ECONNRESET);
    assert_int_equal(take(&w, w.server, got, 8), -1);
    world_close(&w);
    un_splice_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_and_ends_pass),
        cmocka_unit_test(test_who_does_not_read_stops_who_writes),
        cmocka_unit_test(test_a_break_is_a_reset_for_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
