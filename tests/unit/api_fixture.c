/* api_fixture.c - see api_fixture.h. */
#include "tests/unit/api_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct api_fixture the_fixture;
struct api_fixture *fx = &the_fixture;

static bool is_ready(void *arg, const char **ret_why)
{
    (void)arg;
    *ret_why = "no driver";
    return fx->ready;
}

void connect_tcp(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(fx->port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fx->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fx->fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
}

void open_api(const char *token)
{
    struct api_spec spec = {
        .loop = fx->loop, .version = "1.2.3", .driver = "fake", .is_ready = is_ready};
    api_settings_init(&spec.settings);
    spec.settings.token = token;
    spec.settings.max_request_bytes = 1000;
    spec.settings.max_image_bytes = 2000;
    assert_int_equal(api_open(&spec, &fx->api, NULL), 0);
    assert_int_equal(api_listen_tcp(fx->api, "127.0.0.1:0", &fx->port, NULL), 0);
    connect_tcp();
}

int setup(void **state)
{
    (void)state;
    fx->closed = false;
    fx->ready = true;
    assert_int_equal(un_loop_new_virtual(1000000, &fx->loop, NULL), 0);
    below_open(fx->loop);
    open_api(NULL);
    return 0;
}

int teardown(void **state)
{
    (void)state;
    api_close(fx->api);
    un_loop_run_ready(fx->loop);
    un_loop_free(fx->loop);
    below_close();
    un_buf_done(&fx->in);
    if (fx->fd >= 0) {
        close(fx->fd);
    }
    return 0;
}

void pump(void)
{
    char buf[65536];
    for (int quiet = 0; quiet < 4; quiet++) {
        un_loop_run_ready(fx->loop);
        ssize_t n = recv(fx->fd, buf, sizeof(buf), MSG_DONTWAIT);
        if (n > 0) {
            un_buf_append(&fx->in, buf, (size_t)n);
            quiet = 0;
        }
        fx->closed = fx->closed || n == 0 || (n < 0 && errno == ECONNRESET);
    }
}

void say(const char *text)
{
    assert_int_equal(send(fx->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    pump();
}

const char *got(void)
{
    return fx->in.data ? (const char *)fx->in.data : "";
}

void forget(void)
{
    un_buf_done(&fx->in);
}

void expect(const char *text)
{
    if (!strstr(got(), text)) {
        fail_msg("expected %s in: %.1500s", text, got());
    }
}

void expect_status(unsigned status)
{
    char line[32];
    snprintf(line, sizeof(line), "HTTP/1.1 %u ", status);
    if (strncmp(got(), line, strlen(line)) != 0) {
        fail_msg("expected %s, got: %.1000s", line, got());
    }
}

void ask(const char *method, const char *target, const char *body)
{
    char text[4096];
    forget();
    snprintf(text, sizeof(text),
             "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s", method, target,
             body ? strlen(body) : 0, body ? body : "");
    say(text);
}
