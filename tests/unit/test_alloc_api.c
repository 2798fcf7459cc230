/* test_alloc_api.c - memory runs out at any one place of a request over HTTP, with what is below
 * api/ played by api_below.c. Each is answered as if nothing had happened, or with a 500, or its
 * connection is closed without an answer; what is answered is whole. */
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

#include "api/api.h"
#include "tests/unit/alloc_support.h"
#include "tests/unit/api_below.h"

enum { ANSWER_SIZE = 32768 };

static struct un_loop *loop;
static struct api *api;
static uint16_t port;

struct request {
    const char *method, *target, *body;
    unsigned status;
};

struct asked {
    const struct request *request;
    char answer[ANSWER_SIZE];
    char whole[ANSWER_SIZE]; /* of the first that came without failures */
};

static bool is_ready(void *arg, const char **ret_why)
{
    *ret_why = "";
    return true;
}

static int setup(void **state)
{
    struct api_spec spec = {
        .loop = NULL, .version = "1.2.3", .driver = "fake", .is_ready = is_ready};
    (void)alloc_fail_end(); /* of a test that has failed */
    assert_int_equal(un_loop_new_virtual(1000000, &loop, NULL), 0);
    spec.loop = loop;
    below_open(loop);
    api_settings_init(&spec.settings);
    assert_int_equal(api_open(&spec, &api, NULL), 0);
    assert_int_equal(api_listen_tcp(api, "127.0.0.1:0", &port, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    api_close(api);
    un_loop_run_ready(loop);
    un_loop_free(loop);
    below_close();
    return 0;
}

static int connect_tcp(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

/* The function's answer, when the request was a call of it. */
static void play_function(void)
{
    if (below.call && below.body_eof) {
        below_respond(200, "X-A: b", "called\n", true);
        below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    }
}

/* Everything until the server closes the connection, which it is asked to do after the answer. */
static size_t read_all(int fd, char *out)
{
    size_t len = 0;
    bool closed = false;
    for (unsigned quiet = 0; quiet < 6000 && !closed; quiet++) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        un_loop_run_ready(loop);
        play_function();
        (void)poll(&p, 1, quiet < 6 ? 0 : 10); /* loopback may be late */
        ssize_t n = recv(fd, out + len, ANSWER_SIZE - 1 - len, MSG_DONTWAIT);
        closed = n == 0 || (n < 0 && errno == ECONNRESET);
        if (n > 0) {
            len += (size_t)n;
            quiet = 0;
        }
    }
    out[len] = '\0';
    assert_true(closed);
    return len;
}

static const char *body_of(const char *answer)
{
    const char *end = strstr(answer, "\r\n\r\n");
    return end ? end + 4 : "";
}

static int ask(void *arg)
{
    struct asked *a = arg;
    const struct request *r = a->request;
    char text[1024];
    int fd = connect_tcp();
    int len = snprintf(text, sizeof(text),
                       "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                       "Content-Length: %zu\r\n\r\n%s",
                       r->method, r->target, r->body ? strlen(r->body) : 0, r->body ? r->body : "");
    assert_int_equal(send(fd, text, (size_t)len, MSG_NOSIGNAL), len);
    size_t got = read_all(fd, a->answer);
    close(fd);
    un_loop_run_ready(loop);
    if (below.call) {
        fail_msg("%s %s: the call goes on without its client", r->method, r->target);
    }
    unsigned status = got > 12 ? (unsigned)strtoul(a->answer + 9, NULL, 10) : 0;
    if (status == 0 || status == 500) {
        return -ENOMEM;
    }
    if (status != r->status) {
        fail_msg("%s %s: %s", r->method, r->target, a->answer);
    }
    if (!a->whole[0]) {
        memcpy(a->whole, a->answer, sizeof(a->whole));
    } else if (strcmp(body_of(a->answer), body_of(a->whole)) != 0 &&
               (status < 400 || strcmp(body_of(a->answer), "{}") != 0)) {
        fail_msg("%s %s: %s\ninstead of %s", r->method, r->target, a->answer, a->whole);
    }
    return 0;
}

static const struct request requests[] = {
    {"GET", "/healthz", NULL, 200},
    {"GET", "/api/v1/version", NULL, 200},
    {"GET", "/api/v1/images", NULL, 200},
    {"GET", "/api/v1/images/my%2Ftag:1", NULL, 200},
    {"GET", "/api/v1/images/none", NULL, 404},
    {"GET", "/api/v1/images/" BELOW_DIGEST "/content", NULL, 200},
    {"POST", "/api/v1/images?tag=my/tag:1", "hello world", 201},
    {"GET", "/api/v1/tags", NULL, 200},
    {"PUT", "/api/v1/tags/a", "{\"digest\":\"" BELOW_DIGEST "\"}", 200},
    {"DELETE", "/api/v1/tags/my%2Ftag:1", NULL, 204},
    {"GET", "/api/v1/volumes", NULL, 200},
    {"PUT", "/api/v1/volumes/new", "{\"size_mib\":1}", 201},
    {"GET", "/api/v1/volumes/data", NULL, 200},
    {"DELETE", "/api/v1/volumes/old", NULL, 204},
    {"PUT", "/api/v1/functions/hello", "{\"image\":\"my/tag:1\",\"memory_mib\":4}", 201},
    {"GET", "/api/v1/functions", NULL, 200},
    {"GET", "/api/v1/functions/hello", NULL, 200},
    {"GET", "/api/v1/functions/hello/versions", NULL, 200},
    {"GET", "/api/v1/functions/hello/aliases", NULL, 200},
    {"PUT", "/api/v1/functions/hello/aliases/stable", "{\"version\":2}", 200},
    {"DELETE", "/api/v1/functions/hello/aliases/stable", NULL, 204},
    {"GET", "/api/v1/invocations", NULL, 200},
    {"POST", "/api/v1/functions/hello/invocations?mode=async&on_success=nobody&on_failure=none",
     "x", 202},
    {"GET", "/api/v1/instances", NULL, 200},
    {"GET", "/api/v1/stats", NULL, 200},
    {"GET", "/fn/hello/x?y=1", NULL, 200},
    {"POST", "/fn/hello", "some body", 200},
    {"POST", "/api/v1/functions/hello/invocations", "{}", 200},
};

static void requests_are_answered_whole_or_with_500(void **state)
{
    static struct asked a;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        char name[160];
        a = (struct asked){.request = &requests[i]};
        snprintf(name, sizeof(name), "%s %s", requests[i].method, requests[i].target);
        assert_int_equal(ask(&a), 0);
        alloc_fail_each(name, ask, &a);
        assert_int_equal(ask(&a), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_are_answered_whole_or_with_500, setup, teardown),
    };
    return cmocka_run_group_tests_name("alloc_api", tests, NULL, NULL);
}
