/* test_api.c - the routes over HTTP, with what is below api/ played by api_below.c. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/api.h"
#include "common/json.h"
#include "tests/unit/api_below.h"

static struct un_loop *loop;
static struct api *api;
static uint16_t port;
static int fd;
static struct un_buf in;
static bool closed;
static bool ready;
static char dir[32], path[64];

static bool is_ready(void *arg, const char **ret_why)
{
    (void)arg;
    *ret_why = "no driver";
    return ready;
}

static void connect_tcp(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
}

static void open_api(const char *token)
{
    struct api_spec spec = {
        .loop = loop, .version = "1.2.3", .driver = "fake", .is_ready = is_ready};
    api_settings_init(&spec.settings);
    spec.settings.token = token;
    spec.settings.max_request_bytes = 1000;
    spec.settings.max_image_bytes = 2000;
    assert_int_equal(api_open(&spec, &api, NULL), 0);
    assert_int_equal(api_listen_tcp(api, "127.0.0.1:0", &port, NULL), 0);
    connect_tcp();
}

static int setup(void **state)
{
    (void)state;
    closed = false;
    ready = true;
    assert_int_equal(un_loop_new_virtual(1000000, &loop, NULL), 0);
    below_open(loop);
    open_api(NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    api_close(api);
    un_loop_run_ready(loop);
    un_loop_free(loop);
    below_close();
    un_buf_done(&in);
    if (fd >= 0) {
        close(fd);
    }
    return 0;
}

static void pump(void)
{
    char buf[65536];
    for (int quiet = 0; quiet < 4; quiet++) {
        un_loop_run_ready(loop);
        ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
        if (n > 0) {
            un_buf_append(&in, buf, (size_t)n);
            quiet = 0;
        }
        closed = closed || n == 0 || (n < 0 && errno == ECONNRESET);
    }
}

static void say(const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    pump();
}

static const char *got(void)
{
    return in.data ? (const char *)in.data : "";
}

static void forget(void)
{
    un_buf_done(&in);
}

static void expect(const char *text)
{
    if (!strstr(got(), text)) {
        fail_msg("expected %s in: %.1500s", text, got());
    }
}

static void expect_status(unsigned status)
{
    char line[32];
    snprintf(line, sizeof(line), "HTTP/1.1 %u ", status);
    if (strncmp(got(), line, strlen(line)) != 0) {
        fail_msg("expected %s, got: %.1000s", line, got());
    }
}

/* One request with a body (may be NULL); the answer replaces the one before. */
static void ask(const char *method, const char *target, const char *body)
{
    char text[4096];
    forget();
    snprintf(text, sizeof(text),
             "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s", method, target,
             body ? strlen(body) : 0, body ? body : "");
    say(text);
}

/* --- the gateway ------------------------------------------------------------------------------ */

static void function_gets_the_request_without_the_connections_fields(void **state)
{
    (void)state;
    say("POST /fn/hello:7/a%20b?x=1 HTTP/1.1\r\nHost: h\r\nConnection: X-Hop, keep-alive\r\nX-Hop: "
        "1\r\n"
        "TE: trailers\r\nUpgrade: h2c\r\nX-Mine: yes\r\nContent-Length: 3\r\nAuthorization: "
        "a\r\n\r\nabc");
    assert_string_equal(below.function, "hello");
    assert_string_equal(below.qualifier, "7");
    assert_string_equal(below.method, "POST");
    assert_string_equal(below.target, "/a%20b?x=1");
    assert_string_equal(below.fields,
                        "Host: h\nX-Mine: yes\nContent-Length: 3\nAuthorization: a\n");
    assert_int_equal(below.content_length, 3);
    assert_string_equal(below.body.data, "abc");
    assert_true(below.body_eof);
    assert_int_equal(below.trigger, SCHED_HTTP);
}

static void target_of_the_function_begins_with_a_slash(void **state)
{
    (void)state;
    ask("GET", "/fn/hello?q", NULL);
    assert_string_equal(below.target, "/?q");
    assert_true(below.body_eof);
    below_respond(200, NULL, "", true);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    pump();
    ask("GET", "/fn/hello", NULL);
    assert_string_equal(below.target, "/");
}

static void response_in_one_piece_has_a_length(void **state)
{
    char id[64];
    (void)state;
    ask("GET", "/fn/hello", NULL);
    below_respond(201, "g\r\nEvil: 1", "hi there", true);
    pump();
    expect_status(201);
    expect("Content-Length: 8\r\n");
    expect("Server-Timing: queue;dur=0.012, start;dur=1.500, run;dur=0.000\r\n");
    snprintf(id, sizeof(id), "X-Unid-Invocation-Id: %s\r\n", below.id);
    expect(id);
    expect("X-Guest: g\r\n");
    assert_null(strstr(got(), "Evil"));
    expect("\r\n\r\nhi there");
    assert_int_equal(below.data_dones, 1);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    assert_false(closed);
}

static void response_in_pieces_is_chunked(void **state)
{
    (void)state;
    ask("GET", "/fn/hello", NULL);
    below_respond(200, NULL, "ab", false);
    below_data("cde", 3, false);
    below_data("", 0, true);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    pump();
    expect("\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n");
    assert_int_equal(below.data_dones, 3);
}

static void declared_length_is_kept_when_streaming(void **state)
{
    (void)state;
    ask("GET", "/fn/hello", NULL);
    below_respond(200, "5", "ab", false);
    below_data("cde", 3, true);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    pump();
    expect("Content-Length: 5\r\n");
    expect("\r\n\r\nabcde");
    assert_false(closed);
}

static void wrong_declared_length_cuts_the_connection(void **state)
{
    (void)state;
    ask("GET", "/fn/hello", NULL);
    below_respond(200, "9", "ab", false);
    below_data("cde", 3, true);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    pump();
    assert_true(closed);
}

static void failure_says_how_with_the_invocation(void **state)
{
    (void)state;
    struct sched_outcome outcome = {
        .kind = SCHED_FAILED,
        .detail = "page fault",
        .log_tail = "last \"words\"",
        .exit = {
            .kind = HV_EXIT_FAULT, .fault_vector = 14, .fault_addr = 0x10, .fault_rip = 0x200134}};
    ask("GET", "/fn/hello", NULL);
    below_end(&outcome);
    pump();
    expect_status(502);
    expect("application/problem+json");
    expect("X-Unid-Invocation-Id: ");
    expect("Server-Timing: queue;dur=");
    expect("\"vector\":14,\"name\":\"page fault\"");
    expect("\"rip\":\"0x200134\",\"address\":\"0x10\"");
    expect("\"log_tail\":\"last \\\"words\\\"\"");
    expect("\"type\":\"/problems/failed\"");
    assert_false(closed);
}

static void every_outcome_has_its_status(void **state)
{
    static const struct {
        enum sched_outcome_kind kind;
        unsigned status, retry_after_s;
    } cases[] = {{SCHED_NO_FUNCTION, 404, 0},        {SCHED_QUEUE_FULL, 429, 3},
                 {SCHED_WAIT_EXPIRED, 429, 0},       {SCHED_REQUEST_TOO_LARGE, 413, 0},
                 {SCHED_RESPONSE_TOO_LARGE, 502, 0}, {SCHED_TIMED_OUT, 504, 0},
                 {SCHED_CANNOT_RUN, 503, 0},         {SCHED_DRAINING, 503, 0},
                 {SCHED_CANCELLED, 502, 0},          {SCHED_INTERNAL, 500, 0},
                 {SCHED_WRONG_INTERFACE, 421, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sched_outcome outcome = {.kind = cases[i].kind,
                                        .retry_after_s = cases[i].retry_after_s};
        ask("GET", "/fn/hello", NULL);
        below_end(&outcome);
        pump();
        expect_status(cases[i].status);
        expect("X-Unid-Invocation-Id: ");
        expect("Server-Timing: ");
        bool retry = cases[i].status == 429 || cases[i].kind == SCHED_DRAINING;
        assert_int_equal(strstr(got(), "Retry-After: ") != NULL, retry);
    }
}

static void failure_in_the_middle_cuts_the_connection(void **state)
{
    (void)state;
    ask("GET", "/fn/hello", NULL);
    below_respond(200, NULL, "part", false);
    pump();
    below_end(&(struct sched_outcome){.kind = SCHED_FAILED, .responded = true});
    pump();
    expect("part");
    assert_null(strstr(got(), "0\r\n\r\n"));
    assert_true(closed);
}

static void client_that_leaves_cancels_the_call(void **state)
{
    (void)state;
    ask("GET", "/fn/hello", NULL);
    close(fd);
    fd = -1;
    for (int i = 0; i < 6000 && !below.cancels; i++) {
        usleep(i < 20 ? 0 : 10000); /* loopback may be late */
        un_loop_run_ready(loop);
        un_loop_advance(loop, 500000);
    }
    assert_int_equal(below.cancels, 1);
}

static void slow_reader_holds_the_function_back(void **state)
{
    static char block[256 * 1024];
    unsigned sent = 0;
    (void)state;
    ask("GET", "/fn/hello", NULL);
    below_respond(200, NULL, "x", false);
    while (below.data_dones == sent + 1 && sent < 400) {
        below_data(block, sizeof(block), false);
        un_loop_run_ready(loop);
        sent++;
    }
    assert_true(sent < 400); /* it stands still, with one piece outstanding */
    pump();
    assert_int_equal(below.data_dones, sent + 1);
    below_data("", 0, true);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    pump();
    assert_int_equal(in.len > sent * sizeof(block), 1);
}

static void full_scheduler_holds_the_client_back(void **state)
{
    (void)state;
    below.body_room = 0;
    say("POST /fn/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    say("3\r\nabc\r\n");
    say("3\r\ndef\r\n");
    assert_string_equal(below.body.data, "abc");
    below.body_room = 1;
    below.events->on_body_room(below.call_arg);
    pump();
    assert_string_equal(below.body.data, "abcdef");
    assert_int_equal(below.content_length, -1);
}

static void what_cannot_be_called_is_refused_with_an_id(void **state)
{
    static const struct {
        unsigned status;
        const char *text;
    } cases[] = {
        {404, "GET /fn/Not_A_Name HTTP/1.1\r\nHost: x\r\n\r\n"},
        {413, "GET /fn/hello/too-big HTTP/1.1\r\nHost: x\r\n\r\n"},
        {413, "POST /fn/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nExpect: "
              "100-continue\r\n\r\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        forget();
        say(cases[i].text);
        expect_status(cases[i].status);
        expect("X-Unid-Invocation-Id: ");
        expect("Server-Timing: queue;dur=0.000");
        assert_int_equal(below.starts, 0);
    }
}

static void errors_of_the_body_carry_the_id_too(void **state)
{
    (void)state;
    say("POST /fn/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    expect_status(400);
    expect("X-Unid-Invocation-Id: ");
    assert_int_equal(below.cancels, 1);
}

static void head_of_a_function_has_no_body(void **state)
{
    (void)state;
    ask("HEAD", "/fn/hello", NULL);
    below_respond(200, "77", "", true);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    pump();
    expect("Content-Length: 77\r\n");
    assert_false(closed);
    ask("GET", "/healthz", NULL);
    expect_status(200);
}

/* --- invocations ------------------------------------------------------------------------------ */

static void invocation_waits_or_is_accepted(void **state)
{
    (void)state;
    ask("POST", "/api/v1/functions/hello/invocations?qualifier=2", "data");
    assert_int_equal(below.trigger, SCHED_INVOKE);
    assert_string_equal(below.qualifier, "2");
    assert_string_equal(below.target, "/");
    below_respond(200, NULL, "done", true);
    below_end(&(struct sched_outcome){.kind = SCHED_OK, .responded = true});
    pump();
    expect_status(200);
    ask("POST", "/api/v1/functions/hello/invocations?mode=async", "later");
    expect_status(202);
    expect("{\"id\":\"" BELOW_ID "\"}");
    expect("Location: /api/v1/invocations/" BELOW_ID);
    assert_string_equal(below.async_body, "later");
    ask("POST", "/api/v1/functions/nobody/invocations?mode=async", "later");
    expect_status(404);
    ask("POST", "/api/v1/functions/hello/invocations?mode=maybe", "later");
    expect_status(400);
}

static void receipts_are_told(void **state)
{
    (void)state;
    ask("GET", "/api/v1/invocations?function=hello&status=failed&limit=1", NULL);
    expect_status(200);
    expect("\"outcome\":\"failed\"");
    expect("\"run_us\":9");
    expect("\"next\":\"" BELOW_ID ".1\"");
    ask("GET", "/api/v1/invocations/" BELOW_ID, NULL);
    expect("\"error\":\"exit status 3\"");
    ask("GET", "/api/v1/invocations/01JD5X0000000000000000000B", NULL);
    expect("{\"id\":\"01JD5X0000000000000000000B\",\"status\":\"pending\"}");
    ask("GET", "/api/v1/invocations/01JD5X0000000000000000000C", NULL);
    expect_status(404);
    ask("GET", "/api/v1/invocations?limit=0", NULL);
    expect_status(400);
    ask("GET", "/api/v1/invocations?cursor=x", NULL);
    expect_status(400);
}

/* --- images ----------------------------------------------------------------------------------- */

static void image_is_pushed_checked_and_tagged(void **state)
{
    (void)state;
    say("POST /api/v1/images?tag=my/tag:1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n"
        "Content-Digest: sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:\r\n\r\nhello "
        "world");
    expect_status(201);
    expect("\"digest\":\"" BELOW_DIGEST "\"");
    expect("\"tag\":\"my/tag:1\"");
    expect("\"created_at\":\"1970-01-01T00:00:01.000000Z\"");
    assert_string_equal(below.declared_digest, BELOW_DIGEST);
    assert_string_equal(below.pushed.data, "hello world");
    assert_string_equal(below.tag, "my/tag:1=" BELOW_DIGEST);
}

static void bad_pushes_are_refused(void **state)
{
    (void)state;
    ask("POST", "/api/v1/images?digest=sha256:12", "x");
    expect_status(400);
    ask("POST", "/api/v1/images", NULL);
    expect_status(400);
    below.push_rc = -EINVAL;
    ask("POST", "/api/v1/images", "x");
    expect_status(400);
    expect("not an image");
    below.push_rc = -EFBIG;
    ask("POST", "/api/v1/images", "x");
    expect_status(413);
    below.push_rc = -ENOSPC;
    ask("POST", "/api/v1/images", "x");
    expect_status(507);
    forget();
    say("POST /api/v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000\r\n\r\n");
    expect_status(413);
}

static void push_that_breaks_off_is_undone(void **state)
{
    (void)state;
    say("POST /api/v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\nhel");
    close(fd);
    fd = -1;
    un_loop_run_ready(loop);
    un_loop_run_ready(loop);
    assert_int_equal(below.aborts, 1);
}

static void images_are_read(void **state)
{
    (void)state;
    ask("GET", "/api/v1/images/my%2Ftag:1/content", NULL);
    expect_status(200);
    expect("Content-Length: 11\r\n");
    expect("Content-Digest: sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:\r\n");
    expect("\r\n\r\nhello world");
    ask("GET", "/api/v1/images/" BELOW_DIGEST, NULL);
    expect("\"kind\":\"sdk\"");
    ask("GET", "/api/v1/images/nothing", NULL);
    expect_status(404);
    ask("GET", "/api/v1/images", NULL);
    expect("\"next\":null");
    ask("DELETE", "/api/v1/images/" BELOW_DIGEST, NULL);
    expect_status(409);
    ask("DELETE", "/api/v1/images/tag", NULL);
    expect_status(400);
    ask("PUT", "/api/v1/tags/a%2fb", "{\"digest\":\"" BELOW_DIGEST "\"}");
    expect_status(200);
    assert_string_equal(below.tag, "a/b=" BELOW_DIGEST);
    ask("PUT", "/api/v1/tags/a", "{\"digest\":\"x\"}");
    expect_status(400);
}

static void tags_are_told_with_their_images(void **state)
{
    (void)state;
    ask("GET", "/api/v1/images/" BELOW_DIGEST, NULL);
    expect("\"tags\":[\"my/tag:1\",\"z\"]");
    ask("GET", "/api/v1/images", NULL);
    expect("\"tags\":[\"my/tag:1\",\"z\"]}],\"next\":null}");
    ask("GET", "/api/v1/tags", NULL);
    expect("{\"items\":[{\"tag\":\"my/tag:1\",\"digest\":\"" BELOW_DIGEST "\"},{\"tag\":\"z\"");
    ask("DELETE", "/api/v1/tags/my%2Ftag:1", NULL);
    expect_status(204);
    ask("DELETE", "/api/v1/tags/none", NULL);
    expect_status(404);
    below.tags_rc = -EIO;
    ask("GET", "/api/v1/images", NULL);
    expect_status(500);
    ask("POST", "/api/v1/images", "x");
    expect_status(500);
    ask("GET", "/api/v1/tags", NULL);
    expect_status(500);
}

/* --- functions -------------------------------------------------------------------------------- */

static void function_is_deployed_from_a_digest_or_a_tag(void **state)
{
    (void)state;
    ask("PUT", "/api/v1/functions/hello", "{\"image\":\"" BELOW_DIGEST "\",\"memory_mib\":4}");
    expect_status(201);
    expect("\"version\":3,\"url\":\"http://127.0.0.1:");
    expect("/fn/hello\",\"image\"");
    expect("\"env\":{\"A\":\"b=c\"}");
    expect("\"args\":[\"--x\"]");
    ask("PUT", "/api/v1/functions/hello", "{\"image\":\"my/tag:1\"}");
    expect_status(201);
    ask("PUT", "/api/v1/functions/hello", "{\"image\":\"unknown\"}");
    expect_status(404);
    ask("PUT", "/api/v1/functions/hello", "{\"image\":\"my/tag:1\",\"bogus\":1}");
    expect_status(400);
    expect("bogus: unknown key");
    ask("PUT", "/api/v1/functions/hello", "{\"image\":");
    expect_status(400);
    ask("PUT", "/api/v1/functions/hello", "[]");
    expect_status(400);
    ask("PUT", "/api/v1/functions/hello", NULL);
    expect_status(400);
    ask("PUT", "/api/v1/functions/UPPER", "{\"image\":\"my/tag:1\"}");
    expect_status(400);
}

static void image_that_cannot_run_is_not_deployed(void **state)
{
    (void)state;
    below.kind = IMAGE_DISK;
    ask("PUT", "/api/v1/functions/hello", "{\"image\":\"my/tag:1\"}");
    expect_status(422);
    expect("link it with the guest SDK");
    ask("PUT", "/api/v1/functions/hello", "{\"image\":\"" BELOW_DIGEST "\"}");
    expect_status(422);
    assert_int_equal(below.deploys, 0);
    below.kind = IMAGE_SDK;
    ask("PUT", "/api/v1/functions/hello", "{\"image\":\"my/tag:1\"}");
    expect_status(201);
    assert_int_equal(below.deploys, 1);
}

static void program_that_fails_to_begin_is_not_deployed(void **state)
{
    (void)state;
    below.prepare_rc = -EPROTO;
    ask("PUT", "/api/v1/functions/hello", "{\"image\":\"" BELOW_DIGEST "\"}");
    below.prepare_rc = 0;
    expect_status(422);
    expect("application/problem+json");
    expect("\"detail\":\"the program ended before it asked for a request\"");
    expect("\"log_tail\":\"last words\\n\"");
    expect("\"unsupported\":[{\"name\":\"fork\",\"times\":2}]");
    expect("\"calls_made\":[{\"name\":\"fork\",\"times\":2}]");
    assert_int_equal(below.deploys, 0);
}

static void program_that_cannot_be_prepared_is_refused_with_the_report(void **state)
{
    (void)state;
    below.kind = IMAGE_LINUX_ROOTFS;
    below.open_rc = -EINVAL;
    ask("PUT", "/api/v1/functions/hello", "{\"image\":\"" BELOW_DIGEST "\"}");
    expect_status(422);
    expect("application/problem+json");
    expect("\"report\":{\"problems\":[\"no libx.so\"]}");
    below.open_rc = -ENOSPC;
    ask("PUT", "/api/v1/functions/hello", "{\"image\":\"" BELOW_DIGEST "\"}");
    expect_status(507);
    below.open_rc = 0;
    below.settle_rc = -EINVAL;
    ask("PUT", "/api/v1/functions/hello", "{\"image\":\"" BELOW_DIGEST "\"}");
    expect_status(400);
    expect("memory_mib: too little");
    assert_int_equal(below.deploys, 0);
    below.settle_rc = 0;
    ask("PUT", "/api/v1/functions/hello", "{\"image\":\"" BELOW_DIGEST "\"}");
    expect_status(201);
    assert_int_equal(below.deploys, 1);
    assert_int_equal(below.mappings, 0);
    below.kind = IMAGE_SDK;
}

static void check_tells_what_preparing_finds(void **state)
{
    (void)state;
    ask("POST", "/api/v1/images/my%2Ftag:1/check", NULL);
    expect_status(200);
    expect("\"runs\":true");
    expect("\"report\":null");
    below.kind = IMAGE_DISK;
    ask("POST", "/api/v1/images/my%2Ftag:1/check", NULL);
    expect("\"runs\":false,\"error\":\"link it with the guest SDK\"");
    below.kind = IMAGE_LINUX_ROOTFS;
    ask("POST", "/api/v1/images/my%2Ftag:1/check", NULL);
    expect("\"runs\":true,\"error\":null,\"report\":{\"problems\"");
    below.open_rc = -EINVAL;
    ask("POST", "/api/v1/images/my%2Ftag:1/check", NULL);
    expect_status(200);
    expect("\"runs\":false,\"error\":\"it went wrong\",\"report\":{\"problems\"");
    below.open_rc = -EIO;
    ask("POST", "/api/v1/images/my%2Ftag:1/check", NULL);
    expect_status(500);
    ask("POST", "/api/v1/images/unknown/check", NULL);
    expect_status(404);
    assert_int_equal(below.mappings, 0);
    below.open_rc = 0;
    below.kind = IMAGE_SDK;
}

static void functions_are_read_and_removed(void **state)
{
    (void)state;
    ask("GET", "/api/v1/functions?limit=1", NULL);
    expect("\"next\":\"hello\"");
    ask("GET", "/api/v1/functions?cursor=hello", NULL);
    expect("{\"items\":[],\"next\":null}");
    ask("GET", "/api/v1/functions/hello?qualifier=2", NULL);
    expect("\"version\":2");
    ask("GET", "/api/v1/functions/hello?qualifier=9", NULL);
    expect_status(404);
    ask("GET", "/api/v1/functions/hello/versions", NULL);
    expect("\"version\":3");
    expect("\"version\":1");
    ask("GET", "/api/v1/functions/hello/aliases", NULL);
    expect("{\"items\":[{\"alias\":\"live\",\"version\":3}],\"next\":null}");
    ask("DELETE", "/api/v1/functions/hello", NULL);
    expect_status(204);
    ask("DELETE", "/api/v1/functions/other", NULL);
    expect_status(404);
}

static void rollback_moves_to_the_version_before(void **state)
{
    (void)state;
    ask("POST", "/api/v1/functions/hello/rollback", NULL);
    expect_status(200);
    expect("\"version\":2");
    assert_int_equal(below.live, 2);
    ask("POST", "/api/v1/functions/hello/rollback", "{\"version\":3}");
    expect("\"version\":3");
    below.live = 1;
    ask("POST", "/api/v1/functions/hello/rollback", NULL);
    expect_status(409);
    ask("PUT", "/api/v1/functions/hello/aliases/blue", "{\"version\":2}");
    expect("{\"alias\":\"blue\",\"version\":2}");
    ask("PUT", "/api/v1/functions/hello/aliases/blue", "{}");
    expect_status(400);
    ask("PUT", "/api/v1/functions/hello/aliases/blue", "{\"version\":0}");
    expect_status(400);
}

static void json_bodies_are_bounded(void **state)
{
    (void)state;
    say("PUT /api/v1/functions/hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
        "1048577\r\n\r\n");
    expect_status(413);
}

/* --- logs, instances, system ------------------------------------------------------------------ */

static void logs_are_listed_and_followed_without_gap_or_repeat(void **state)
{
    (void)state;
    ask("GET", "/api/v1/functions/hello/logs", NULL);
    expect("\"text\":\"one\"");
    ask("GET", "/api/v1/functions/other/logs?follow=1", NULL);
    expect_status(404);
    ask("GET", "/api/v1/functions/hello/logs?follow=1", NULL);
    expect("application/x-ndjson");
    const char *two = strstr(got(), "\"two\"");
    assert_non_null(two);
    assert_null(strstr(two + 1, "\"two\""));
    assert_non_null(strstr(two, "\"three\""));
    struct log_line four = {.at_us = 4, .text = "four \"q\""};
    below.log_fn(below.log_arg, &four);
    pump();
    expect("\"text\":\"four \\\"q\\\"\"}\n");
    assert_int_equal(below.followers, 1);
    api_drain(api);
    pump();
    expect("\r\n0\r\n\r\n");
    assert_int_equal(below.followers, 0);
}

static void following_by_head_ends_with_the_head(void **state)
{
    (void)state;
    ask("HEAD", "/api/v1/functions/hello/logs?follow=1", NULL);
    expect("application/x-ndjson");
    assert_int_equal(below.followers, 0);
    ask("GET", "/healthz", NULL);
    expect_status(200);
}

static void follower_that_leaves_is_forgotten(void **state)
{
    (void)state;
    ask("GET", "/api/v1/functions/hello/logs?follow=1", NULL);
    assert_int_equal(below.followers, 1);
    close(fd);
    fd = -1;
    for (int i = 0; i < 5; i++) {
        un_loop_run_ready(loop);
    }
    assert_int_equal(below.followers, 0);
}

static void instances_are_listed_and_killed(void **state)
{
    (void)state;
    ask("GET", "/api/v1/instances", NULL);
    expect("\"state\":\"idle\"");
    expect("\"function\":null,\"version\":null");
    expect("\"function\":\"hello\",\"version\":2");
    ask("DELETE", "/api/v1/instances/" BELOW_ID, NULL);
    expect_status(204);
    assert_int_equal(below.killed, 1);
    ask("DELETE", "/api/v1/instances/x", NULL);
    expect_status(404);
}

static void system_tells_of_itself(void **state)
{
    (void)state;
    ask("GET", "/healthz", NULL);
    expect_status(200);
    ask("GET", "/readyz", NULL);
    expect_status(200);
    ready = false;
    ask("GET", "/readyz", NULL);
    expect_status(503);
    expect("no driver");
    ask("GET", "/api/v1/version", NULL);
    expect("{\"version\":\"1.2.3\",\"api\":\"v1\",\"abi\":\"1.3\",\"driver\":\"fake\"}");
    ask("GET", "/metrics", NULL);
    expect("unid_calls_total{outcome=\"ok\"} 7\n");
    ask("GET", "/api/v1/openapi.yaml", NULL);
    expect("openapi: 3.1.0");
    ask("GET", "/api/v1/doctor", NULL);
    expect_status(404);
}

static void unknown_paths_and_methods_are_told(void **state)
{
    (void)state;
    ask("GET", "/nowhere", NULL);
    expect_status(404);
    ask("POST", "/healthz", NULL);
    expect_status(405);
    expect("Allow: GET, HEAD\r\n");
    ask("GET", "/api/v1/../v1/version", NULL);
    expect_status(400);
    ask("HEAD", "/api/v1/version", NULL);
    expect_status(200);
    assert_null(strstr(got(), "1.2.3"));
}

/* --- who may ---------------------------------------------------------------------------------- */

static void foreign_pages_and_rebound_names_are_refused(void **state)
{
    static const struct {
        unsigned status;
        const char *fields;
    } cases[] = {{200, "Host: 127.0.0.1:7070"},
                 {200, "Host: [::1]:7070"},
                 {200, "Host: LOCALHOST"},
                 {421, "Host: evil.example"},
                 {421, "Host: 127.0.0.1.evil.example"},
                 {403, "Host: localhost\r\nOrigin: http://evil.example"},
                 {403, "Host: localhost\r\nOrigin: null"},
                 {403, "Host: evil.example\r\nOrigin: https://evil.example"},
                 {421, "Host: [::1]evil.example"},
                 {421, "Host: [::1"},
                 /* A function's page has this origin too. */
                 {403, "Host: localhost:7070\r\nOrigin: http://localhost:7070"},
                 {403, "Host: localhost:7070\r\nSec-Fetch-Site: same-origin"},
                 {403, "Host: localhost:7070\r\nSec-Fetch-Site: cross-site"},
                 {200, "Host: localhost:7070\r\nSec-Fetch-Site: none"}};
    char text[256];
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        forget();
        snprintf(text, sizeof(text), "GET /api/v1/version HTTP/1.1\r\n%s\r\n\r\n", cases[i].fields);
        say(text);
        expect_status(cases[i].status);
    }
}

static void token_is_needed_over_tcp_only(void **state)
{
    (void)state;
    close(fd);
    api_close(api);
    open_api("secret-secret-16");
    ask("GET", "/api/v1/version", NULL);
    expect_status(401);
    expect("WWW-Authenticate: Bearer\r\n");
    forget();
    say("GET /api/v1/version HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
        "secret-secret-17\r\n\r\n");
    expect_status(401);
    forget();
    say("GET /api/v1/version HTTP/1.1\r\nHost: localhost\r\nAuthorization: bearer "
        "secret-secret-16\r\n\r\n");
    expect_status(200);
    forget();
    say("GET /api/v1/version HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
        "Sec-Fetch-Site: same-origin\r\nAuthorization: Bearer secret-secret-16\r\n\r\n");
    expect_status(200);
    ask("GET", "/healthz", NULL);
    expect_status(200);
    ask("GET", "/fn/UPPER", NULL);
    expect_status(404);
    strcpy(dir, "/tmp/unid-api-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/s", dir);
    assert_int_equal(api_listen_unix(api, path, 0600, NULL), 0);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strcpy(addr.sun_path, path);
    close(fd);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    ask("GET", "/api/v1/version", NULL);
    expect_status(200);
    api_stop_accepting(api);
    rmdir(dir);
}

static void closing_with_work_under_way_is_clean(void **state)
{
    (void)state;
    static const char text[] =
        "POST /api/v1/functions/hello/rollback HTTP/1.1\r\nHost: localhost\r\n\r\n";
    send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL);
    /* The head is read, the first answer from below has not come. */
    un_loop_run_ready(loop);
    ask("GET", "/fn/hello", NULL);
    api_close(api);
    api = NULL;
    assert_int_equal(below.cancels, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(function_gets_the_request_without_the_connections_fields),
        TEST(target_of_the_function_begins_with_a_slash),
        TEST(response_in_one_piece_has_a_length),
        TEST(response_in_pieces_is_chunked),
        TEST(declared_length_is_kept_when_streaming),
        TEST(wrong_declared_length_cuts_the_connection),
        TEST(failure_says_how_with_the_invocation),
        TEST(every_outcome_has_its_status),
        TEST(failure_in_the_middle_cuts_the_connection),
        TEST(client_that_leaves_cancels_the_call),
        TEST(slow_reader_holds_the_function_back),
        TEST(full_scheduler_holds_the_client_back),
        TEST(what_cannot_be_called_is_refused_with_an_id),
        TEST(errors_of_the_body_carry_the_id_too),
        TEST(head_of_a_function_has_no_body),
        TEST(invocation_waits_or_is_accepted),
        TEST(receipts_are_told),
        TEST(image_is_pushed_checked_and_tagged),
        TEST(bad_pushes_are_refused),
        TEST(push_that_breaks_off_is_undone),
        TEST(images_are_read),
        TEST(tags_are_told_with_their_images),
        TEST(function_is_deployed_from_a_digest_or_a_tag),
        TEST(image_that_cannot_run_is_not_deployed),
        TEST(program_that_fails_to_begin_is_not_deployed),
        TEST(program_that_cannot_be_prepared_is_refused_with_the_report),
        TEST(check_tells_what_preparing_finds),
        TEST(functions_are_read_and_removed),
        TEST(rollback_moves_to_the_version_before),
        TEST(json_bodies_are_bounded),
        TEST(logs_are_listed_and_followed_without_gap_or_repeat),
        TEST(following_by_head_ends_with_the_head),
        TEST(follower_that_leaves_is_forgotten),
        TEST(instances_are_listed_and_killed),
        TEST(system_tells_of_itself),
        TEST(unknown_paths_and_methods_are_told),
        TEST(foreign_pages_and_rebound_names_are_refused),
        TEST(token_is_needed_over_tcp_only),
        TEST(closing_with_work_under_way_is_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
