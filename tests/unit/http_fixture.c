/* http_fixture.c - see http_fixture.h. */
#include "tests/unit/http_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"

/* --- a server whose handler does what the path says ------------------------------------------- */

struct fixture *fx;

void work_free(struct work *w)
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

void open_server(unsigned connections)
{
    struct http_server_spec spec = {.loop = fx->loop, .on_head = on_head};
    http_limits_init(&spec.limits);
    spec.limits.connections = connections;
    assert_int_equal(http_server_open(&spec, &fx->server, NULL), 0);
}

uint16_t listen_tcp(void)
{
    uint16_t port = 0;
    assert_int_equal(http_server_listen_tcp(fx->server, "127.0.0.1:0", &port, NULL), 0);
    return port;
}

int tcp_connect(uint16_t port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

void use(int fd)
{
    fx->fd = fd;
    fx->closed = fx->reset = false;
    forget();
}

void connect_pair(void)
{
    const int room = 128 * 1024; /* whatever this machine gives by itself (net.core.wmem_default) */
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
    }
    assert_int_equal(http_server_adopt(fx->server, fds[0], NULL, NULL), 0);
    fx->fd = fds[1];
}

int setup(void **state)
{
    fx = calloc(1, sizeof(*fx));
    *state = fx;
    assert_int_equal(un_loop_new_virtual(1000000, &fx->loop, NULL), 0);
    open_server(LIMIT_HTTP_CONNECTIONS);
    connect_pair();
    return 0;
}

int teardown(void **state)
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

/* --- the client ------------------------------------------------------------------------------- */

void read_all(void)
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

void pump(void)
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

void send_bytes(const void *data, size_t len)
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

void say(const char *text)
{
    send_bytes(text, strlen(text));
    pump();
}

const char *got(void)
{
    return fx->in.data ? (const char *)fx->in.data : "";
}

unsigned count(const char *what)
{
    unsigned n = 0;
    for (const char *at = got(); (at = strstr(at, what)); at++) {
        n++;
    }
    return n;
}

void expect_status(unsigned status)
{
    char line[32];
    snprintf(line, sizeof(line), "HTTP/1.1 %u ", status);
    if (strncmp(got(), line, strlen(line)) != 0) {
        fail_msg("expected %s, got: %.200s", line, got());
    }
}

void forget(void)
{
    un_buf_reset(&fx->in);
    if (fx->in.data) {
        fx->in.data[0] = '\0';
    }
}
