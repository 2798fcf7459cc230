/* test_interface.c - requests as programs of each interface see them, and how their answers are read. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cmocka.h>

#include "common/limits.h"
#include "scheduler/interface/interface.h"

/* --- requests --------------------------------------------------------------------------------- */

static struct function_config config;
static struct interface_request request;
static struct un_buf out;

static int setup(void **state)
{
    config = (struct function_config){.interface = FUNCTION_CGI};
    request = (struct interface_request){
        .function = "page", .id = "01ID", .content_length = 5, .config = &config};
    return 0;
}

static int teardown(void **state)
{
    un_buf_done(&out);
    return 0;
}

static int render(const char *head)
{
    struct un_error err = UN_ERROR_INIT;

    un_buf_reset(&out);
    request.head = head;
    request.head_len = strlen(head);
    return interface_render(&request, &out, &err);
}

/* The value of a meta-variable; NULL when it is not there, and a failure when it is there twice. */
static const char *variable(const char *name)
{
    const char *found = NULL;
    size_t len = strlen(name);

    for (const char *at = (char *)out.data; at < (char *)out.data + out.len; at += strlen(at) + 1) {
        if (strncmp(at, name, len) == 0 && at[len] == '=') {
            assert_null(found);
            found = at + len + 1;
        }
    }
    return found;
}

#define assert_variable(name, value) assert_string_equal(variable(name), value)

static void cgi_has_the_meta_variables_of_the_rfc(void **state)
{
    request.peer = "192.0.2.7";
    request.uri = "/fn/page/a%20b/c?x=1&y=%2f";
    assert_int_equal(render("POST /a%20b/c?x=1&y=%2f\r\nhost: example.test:7070\r\n"
                            "user-agent: t/1\r\ncontent-type: text/plain\r\n"
                            "accept: a\r\naccept: b\r\ncookie: c=1\r\ncookie: d=2\r\n"),
                     0);
    assert_variable("GATEWAY_INTERFACE", "CGI/1.1");
    assert_variable("REQUEST_METHOD", "POST");
    assert_variable("SCRIPT_NAME", "/fn/page");
    assert_variable("PATH_INFO", "/a b/c");
    assert_variable("QUERY_STRING", "x=1&y=%2f");
    assert_variable("REQUEST_URI", "/fn/page/a%20b/c?x=1&y=%2f");
    assert_variable("CONTENT_LENGTH", "5");
    assert_variable("CONTENT_TYPE", "text/plain");
    assert_variable("SERVER_NAME", "example.test");
    assert_variable("SERVER_PORT", "7070");
    assert_variable("SERVER_PROTOCOL", "HTTP/1.1");
    assert_int_equal(strncmp(variable("SERVER_SOFTWARE"), "unid/", 5), 0);
    assert_variable("REMOTE_ADDR", "192.0.2.7");
    assert_variable("REDIRECT_STATUS", "200");
    assert_variable("HTTP_HOST", "example.test:7070");
    assert_variable("HTTP_USER_AGENT", "t/1");
    assert_variable("HTTP_ACCEPT", "a, b");
    assert_variable("HTTP_COOKIE", "c=1; d=2");
    assert_variable("UNID_INVOCATION_ID", "01ID");
    assert_null(variable("HTTP_CONTENT_TYPE"));
    assert_null(variable("PATH_TRANSLATED"));
    assert_null(variable("SCRIPT_FILENAME"));
}

static void cgi_path_is_empty_where_the_uri_ends_with_the_name(void **state)
{
    request.qualifier = "2";
    request.uri = "/fn/page:2?q";
    request.content_length = 0;
    request.http10 = true;
    assert_int_equal(render("GET /?q\r\n"), 0);
    assert_variable("PATH_INFO", "");
    assert_variable("SCRIPT_NAME", "/fn/page:2");
    assert_variable("QUERY_STRING", "q");
    assert_variable("SERVER_NAME", "localhost");
    assert_variable("SERVER_PORT", "80");
    assert_variable("SERVER_PROTOCOL", "HTTP/1.0");
    assert_variable("REMOTE_ADDR", "127.0.0.1");
    assert_null(variable("CONTENT_LENGTH"));
    request.uri = "/fn/page:2/";
    assert_int_equal(render("POST /\r\n"), 0);
    assert_variable("PATH_INFO", "/");
    assert_variable("QUERY_STRING", "");
    assert_variable("CONTENT_LENGTH", "0");
    request.uri = NULL;
    assert_int_equal(render("POST /%00%2e%zz%4\r\nhost: [::1]:81\r\n"), 0);
    assert_variable("PATH_INFO", "/%00.%zz%4");
    assert_variable("REQUEST_URI", "/fn/page:2/%00%2e%zz%4");
    assert_variable("SERVER_NAME", "[::1]");
    assert_variable("SERVER_PORT", "81");
}

static void cgi_keeps_out_what_could_pass_for_something_else(void **state)
{
    char root[] = "DOCUMENT_ROOT=/srv", proxy[] = "HTTP_PROXY=mine",
         method[] = "REQUEST_METHOD=TRACE";
    char *env[] = {root, proxy, method, NULL};

    config.env = env;
    assert_int_equal(render("GET /p\r\nproxy: evil:1\r\nx_under: 1\r\nx-under: 2\r\n"
                            "transfer-encoding: chunked\r\na!b: 1\r\n"),
                     0);
    assert_variable("HTTP_X_UNDER", "2");
    assert_variable("HTTP_PROXY", "mine"); /* the function's own, never the client's */
    assert_variable("REQUEST_METHOD", "GET");
    assert_variable("PATH_TRANSLATED", "/srv/p");
    assert_null(variable("HTTP_A!B"));
    assert_null(variable("HTTP_TRANSFER_ENCODING"));
}

static void cgi_script_is_found_where_the_function_says(void **state)
{
    char quiet[] = "-q", script[] = "/srv/index.php", other[] = "SCRIPT_FILENAME=/other.php";
    char *args[] = {quiet, script, NULL}, *env[] = {other, NULL};

    config.args = args;
    assert_int_equal(render("GET /\r\n"), 0);
    assert_variable("SCRIPT_FILENAME", "/srv/index.php");
    config.env = env;
    assert_int_equal(render("GET /\r\n"), 0);
    assert_variable("SCRIPT_FILENAME", "/other.php");
}

static void http_head_is_that_of_a_proxy(void **state)
{
    config.interface = FUNCTION_HTTP;
    request.peer = "192.0.2.7";
    assert_int_equal(render("POST /a?b\r\naccept: */*\r\nhost: example.test\r\n"
                            "content-length: 5\r\nx-forwarded-for: 192.0.2.1\r\n"
                            "x-unid-invocation-id: false\r\nconnection: x\r\n"),
                     0);
    assert_string_equal(
        (char *)out.data,
        "POST /a?b HTTP/1.1\r\nHost: example.test\r\naccept: */*\r\n"
        "X-Forwarded-For: 192.0.2.1, 192.0.2.7\r\nX-Forwarded-Host: example.test\r\n"
        "X-Forwarded-Proto: http\r\nX-Forwarded-Prefix: /fn/page\r\n"
        "X-Unid-Invocation-Id: 01ID\r\nContent-Length: 5\r\n"
        "Connection: close\r\n\r\n");
    request.content_length = -1;
    assert_int_equal(render("POST /\r\n"), 0);
    assert_non_null(strstr((char *)out.data, "\r\nTransfer-Encoding: chunked\r\n"));
    assert_null(strstr((char *)out.data, "Content-Length"));
    assert_non_null(strstr((char *)out.data, "\r\nHost: localhost\r\n"));
    request.content_length = 0;
    assert_int_equal(render("GET /\r\n"), 0);
    assert_null(strstr((char *)out.data, "Content-Length"));
    assert_int_equal(render("PUT /\r\n"), 0);
    assert_non_null(strstr((char *)out.data, "\r\nContent-Length: 0\r\n"));
}

static void other_interfaces_get_the_head_as_it_is(void **state)
{
    config.interface = FUNCTION_FILTER;
    assert_int_equal(render("GET /\r\nhost: a\r\n"), 0);
    assert_string_equal((char *)out.data, "GET /\r\nhost: a\r\n");
    assert_int_equal(render("nonsense"), -EINVAL);
}

static void head_that_does_not_fit_is_refused(void **state)
{
    static char big[UNID_REQUEST_HEAD_MAX + 1] = "BIG=";
    char *env[] = {big, NULL};

    memset(big + 4, 'x', sizeof(big) - 5);
    config.env = env;
    assert_int_equal(render("GET /\r\n"), -E2BIG);
}

/* --- answers ---------------------------------------------------------------------------------- */

/* What came of an answer, fed in pieces of `step` bytes. */
struct answer {
    int rc;
    unsigned status;
    char fields[512], body[512];
    bool complete;
    char why[256];
};

static struct answer read_answer(enum function_interface interface, bool head_only,
                                 const char *text, size_t len, size_t step, bool finish)
{
    struct answer a = {0};
    struct un_error err = UN_ERROR_INIT;
    struct interface_reader *r = NULL;
    struct interface_piece piece = {0};
    size_t body = 0, at = 0;

    assert_int_equal(interface_reader_new(interface, head_only, &r, &err), 0);
    while (a.rc == 0 && at < len && !piece.complete) {
        size_t n = len - at < step ? len - at : step;
        char *copy = malloc(n); /* of its own, so that a sanitizer sees reads past it */

        memcpy(copy, text + at, n);
        at += n;
        a.rc = interface_feed(r, copy, n, &piece, &err);
        if (a.rc == 0) {
            assert_true(body + piece.len < sizeof(a.body));
            assert_true(piece.len == 0 || interface_head(r));
            memcpy(a.body + body, piece.data ? piece.data : "", piece.len);
            body += piece.len;
        }
        free(copy);
    }
    if (a.rc == 0 && !piece.complete && finish) {
        a.rc = interface_finish(r, &piece, &err);
    }
    a.complete = piece.complete;
    snprintf(a.why, sizeof(a.why), "%.*s", (int)sizeof(a.why) - 1, err.text);
    if (interface_head(r)) {
        const struct hv_head *head = interface_head(r);

        a.status = head->status;
        for (size_t i = 0, used = 0; i < head->field_count; i++) {
            used += (size_t)snprintf(a.fields + used, sizeof(a.fields) - used, "%s=%s;",
                                     head->fields[i].name, head->fields[i].value);
        }
    }
    interface_reader_free(r);
    return a;
}

/* The same, whatever the pieces. */
static void expect(enum function_interface interface, bool head_only, const char *text,
                   unsigned status, const char *fields, const char *body)
{
    for (size_t step = 1; step <= strlen(text); step++) {
        struct answer a = read_answer(interface, head_only, text, strlen(text), step, true);

        if (a.rc < 0) {
            fail_msg("%s (in pieces of %zu): %s", text, step, a.why);
        }
        assert_true(a.complete);
        assert_int_equal(a.status, status);
        assert_string_equal(a.fields, fields);
        assert_string_equal(a.body, body);
    }
}

static void refuse(enum function_interface interface, const char *text, const char *why)
{
    for (size_t step = 1; step <= strlen(text) + 1; step++) {
        struct answer a = read_answer(interface, false, text, strlen(text), step, true);

        assert_int_equal(a.rc, -EBADMSG);
        if (!strstr(a.why, why)) {
            fail_msg("%s: %s", text, a.why);
        }
    }
}

static void cgi_header_is_taken_apart(void **state)
{
    expect(FUNCTION_CGI, false, "Content-Type: text/plain\n\nhello\n", 200,
           "Content-Type=text/plain;", "hello\n");
    expect(FUNCTION_CGI, false, "Status: 404 Not Found\r\nContent-Type:a/b\r\nX-A:  1 \r\n\r\nno",
           404, "Content-Type=a/b;X-A=1;", "no");
    expect(FUNCTION_CGI, false, "status:204\n\n", 204, "", "");
    expect(FUNCTION_CGI, false, "Set-Cookie: a\nSet-Cookie: b\nStatus: 200\n\nx", 200,
           "Set-Cookie=a;Set-Cookie=b;", "x");
    expect(FUNCTION_CGI, false, "Content-Type: a/b\nContent-Length: 2\n\nxy", 200,
           "Content-Type=a/b;Content-Length=2;", "xy");
    expect(FUNCTION_CGI, true, "Content-Type: a/b\nContent-Length: 9\n\nxy", 200,
           "Content-Type=a/b;Content-Length=9;", "");
}

static void cgi_location_redirects(void **state)
{
    expect(FUNCTION_CGI, false, "Location: https://example.test/\n\n", 302,
           "Location=https://example.test/;", "");
    expect(FUNCTION_CGI, false, "Location: /fn/other\n\n", 302, "Location=/fn/other;", "");
    expect(FUNCTION_CGI, false, "Status: 301 Moved\nLocation: /x\nContent-Type: a/b\n\nmoved", 301,
           "Location=/x;Content-Type=a/b;", "moved");
}

static void broken_cgi_header_is_refused_with_a_reason(void **state)
{
    refuse(FUNCTION_CGI, "", "without any output");
    refuse(FUNCTION_CGI, "Content-Type: a/b\n", "within the CGI header");
    refuse(FUNCTION_CGI, "\nhello", "none of Content-Type");
    refuse(FUNCTION_CGI, "X-Only: 1\n\nhello", "none of Content-Type");
    refuse(FUNCTION_CGI, "HTTP/1.1 200 OK\nContent-Type: a/b\n\nhello", "Status: 200");
    refuse(FUNCTION_CGI, "hello world\n\n", "no \"Name: value\"");
    refuse(FUNCTION_CGI, "Bad Name: x\nContent-Type: a/b\n\n", "not a token");
    refuse(FUNCTION_CGI, "Content-Type: a\001b\n\n", "control character");
    refuse(FUNCTION_CGI, "Content-Type: a\rX: b\n\n", "control character");
    refuse(FUNCTION_CGI, "Status: 99\n\n", "Status must");
    refuse(FUNCTION_CGI, "Status: 2000\n\n", "Status must");
    refuse(FUNCTION_CGI, "Status: 200\nStatus: 201\n\n", "Status must");
    refuse(FUNCTION_CGI, "Status: 600\n\n", "Status must");
    refuse(FUNCTION_CGI, "Content-Type: a/b\nContent-Length: x\n\n", "Content-Length must");
    refuse(FUNCTION_CGI, "Content-Type: a/b\nContent-Length: 3\n\nxy", "1 bytes less");
    refuse(FUNCTION_CGI, "Content-Type: a/b\nContent-Length: 1\n\nxy", "more output");
}

/* Memory of a guest that goes on while it is read: it shows `first` to whoever looks first, and `then` from the
 * second look on. A look is an instruction, by the processor's own trap. */
static struct {
    char *at;
    size_t size;
    const char *first, *then;
    size_t len;
    unsigned looks;
} moving;

enum { TRAP_FLAG = 0x100 };

static void moving_looked_at(int number, siginfo_t *info, void *context)
{
    ucontext_t *c = context;

    if (number == SIGSEGV &&
        ((char *)info->si_addr < moving.at || (char *)info->si_addr >= moving.at + moving.size)) {
        abort();
    }
    if (number == SIGSEGV) {
        mprotect(moving.at, moving.size, PROT_READ | PROT_WRITE);
        memcpy(moving.at + moving.size - moving.len, moving.looks++ ? moving.then : moving.first,
               moving.len);
        c->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
    } else {
        mprotect(moving.at, moving.size, PROT_NONE);
        c->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
    }
}

/* What comes of an answer that is `first` when it is looked at first, and `then` ever after. */
static int read_moving(enum function_interface interface, const char *first, const char *then)
{
    struct sigaction act = {.sa_sigaction = moving_looked_at, .sa_flags = SA_SIGINFO}, segv, trap;
    struct interface_reader *r = NULL;
    struct interface_piece piece = {0};
    struct un_error err = UN_ERROR_INIT;
    int rc;

    moving.size = 4096;
    moving.first = first;
    moving.then = then;
    moving.len = strlen(first);
    moving.looks = 0;
    moving.at = mmap(NULL, moving.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(moving.at != MAP_FAILED);
    assert_int_equal(strlen(then), moving.len);
    assert_int_equal(interface_reader_new(interface, false, &r, &err), 0);
    sigaction(SIGSEGV, &act, &segv);
    sigaction(SIGTRAP, &act, &trap);
    rc = interface_feed(r, moving.at + moving.size - moving.len, moving.len, &piece, &err);
    sigaction(SIGSEGV, &segv, NULL);
    sigaction(SIGTRAP, &trap, NULL);
    assert_true(moving.looks > 1);
    rc = rc < 0 ? rc : interface_finish(r, &piece, &err);
    interface_reader_free(r);
    munmap(moving.at, moving.size);
    return rc;
}

static void answer_that_changes_while_it_is_read_breaks_nothing_but_itself(void **state)
{
    assert_int_equal(read_moving(FUNCTION_CGI, "\n", "x"), -EBADMSG);
    assert_int_equal(read_moving(FUNCTION_CGI, "Status: 200\n\n", "Status: 200\nx"), -EBADMSG);
    assert_int_equal(read_moving(FUNCTION_CGI, "Status: 200\r\n\r\n", "Status: 200\r\n\rx"),
                     -EBADMSG);
    assert_int_equal(read_moving(FUNCTION_CGI, "Status: 2000000\n\n", "Status: 200\n\nabcd"),
                     -EBADMSG);
    assert_int_equal(
        read_moving(FUNCTION_HTTP, "HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "HTTP/1.1 2000000000000000"),
        -EBADMSG);
}

static void cgi_header_has_bounds(void **state)
{
    static char big[LIMIT_RESPONSE_HEAD_BYTES + 64];
    struct un_buf many = {0};
    struct answer a;

    memset(big, 'x', sizeof(big));
    a = read_answer(FUNCTION_CGI, false, big, sizeof(big), 1000, true);
    assert_int_equal(a.rc, -EBADMSG);
    assert_non_null(strstr(a.why, "no empty line"));
    for (int i = 0; i <= LIMIT_HTTP_FIELDS; i++) {
        assert_int_equal(un_buf_printf(&many, "X-%d: 1\n", i), 0);
    }
    assert_int_equal(un_buf_append_str(&many, "Status: 200\n\n"), 0);
    a = read_answer(FUNCTION_CGI, false, (char *)many.data, many.len, 100, true);
    assert_int_equal(a.rc, -EBADMSG);
    assert_non_null(strstr(a.why, "more than 100 fields"));
    un_buf_done(&many);
}

static void http_answers_are_read_however_they_are_framed(void **state)
{
    expect(FUNCTION_HTTP, false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200,
           "Content-Length=5;", "hello");
    expect(FUNCTION_HTTP, false,
           "HTTP/1.1 201 Made\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n"
           "3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nT: x\r\n\r\n",
           201, "X-A=b;Transfer-Encoding=chunked;", "hello");
    expect(FUNCTION_HTTP, false, "HTTP/1.0 200 OK\r\nServer: s\r\n\r\nuntil the end", 200,
           "Server=s;", "until the end");
    expect(FUNCTION_HTTP, false,
           "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n"
           "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
           204, "X=y;", "");
    expect(FUNCTION_HTTP, false,
           "HTTP/1.1 100 Continue\r\nTransfer-Encoding: rot13\r\n\r\n"
           "HTTP/1.1 102 Wait\r\nContent-Length: 9\r\n\r\n"
           "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
           200, "Content-Length=2;", "ok");
    expect(FUNCTION_HTTP, false, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304,
           "Content-Length=5;", "");
    expect(FUNCTION_HTTP, true, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200,
           "Content-Length=5;", "");
    expect(FUNCTION_HTTP, true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200,
           "Transfer-Encoding=chunked;", "");
}

static void http_answer_is_whole_without_the_programs_end(void **state)
{
    static const char *const whole[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 204 Nothing\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    };

    for (size_t i = 0; i < sizeof(whole) / sizeof(*whole); i++) {
        for (size_t step = 1; step < 200; step += 7) {
            struct answer a =
                read_answer(FUNCTION_HTTP, false, whole[i], strlen(whole[i]), step, false);

            assert_int_equal(a.rc, 0);
            assert_true(a.complete);
        }
    }
}

static void what_follows_a_whole_answer_is_not_looked_at(void **state)
{
    static const char two[] =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 No\r\n\r\n";
    struct answer a = read_answer(FUNCTION_HTTP, false, two, sizeof(two) - 1, 1000, false);

    assert_int_equal(a.rc, 0);
    assert_true(a.complete);
    assert_string_equal(a.body, "ok");
}

static void broken_http_answer_is_refused_with_a_reason(void **state)
{
    refuse(FUNCTION_HTTP, "", "without an answer");
    refuse(FUNCTION_HTTP, "HTTP/1.1 200 OK\r\nA: b\r\n", "without an answer");
    refuse(FUNCTION_HTTP, "hello", "no HTTP/1.x message");
    refuse(FUNCTION_HTTP, "GET / HTTP/1.1\r\n\r\n", "no HTTP/1.x message");
    refuse(FUNCTION_HTTP, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "length that its");
    refuse(FUNCTION_HTTP, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
           "length");
    refuse(FUNCTION_HTTP, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no HTTP");
    refuse(FUNCTION_HTTP, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
           "no HTTP");
    refuse(FUNCTION_HTTP,
           "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           "no HTTP");
    refuse(FUNCTION_HTTP, "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "changes the protocol");
    refuse(FUNCTION_HTTP, "HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n", "status 999");
    refuse(FUNCTION_HTTP, "HTTP/1.1 200 OK\r\nA: b\001c\r\nContent-Length: 0\r\n\r\n", "");
}

static void http_head_and_trailers_have_bounds(void **state)
{
    struct un_buf text = {0};
    struct answer a;

    assert_int_equal(un_buf_append_str(&text, "HTTP/1.1 200 OK\r\nX: "), 0);
    while (text.len < LIMIT_RESPONSE_HEAD_BYTES + 100) {
        assert_int_equal(un_buf_append_str(&text, "xxxxxxxxxxxxxxxx"), 0);
    }
    a = read_answer(FUNCTION_HTTP, false, (char *)text.data, text.len, 500, false);
    assert_int_equal(a.rc, -EBADMSG);
    assert_non_null(strstr(a.why, "head is longer"));
    un_buf_reset(&text);
    assert_int_equal(un_buf_append_str(&text,
                                       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                       "0\r\n"),
                     0);
    while (text.len < 2 * LIMIT_RESPONSE_TRAILER_BYTES) {
        assert_int_equal(un_buf_append_str(&text, "Trailer: xxxxxxxxxxxxxxxx\r\n"), 0);
    }
    a = read_answer(FUNCTION_HTTP, false, (char *)text.data, text.len, 500, false);
    assert_int_equal(a.rc, -EBADMSG);
    assert_non_null(strstr(a.why, "trailers"));
    un_buf_reset(&text);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(un_buf_append_str(&text, "HTTP/1.1 100 Continue\r\n\r\n"), 0);
    }
    a = read_answer(FUNCTION_HTTP, false, (char *)text.data, text.len, 500, false);
    assert_int_equal(a.rc, -EBADMSG);
    assert_non_null(strstr(a.why, "1xx"));
    un_buf_done(&text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cgi_has_the_meta_variables_of_the_rfc),
        TEST(cgi_path_is_empty_where_the_uri_ends_with_the_name),
        TEST(cgi_keeps_out_what_could_pass_for_something_else),
        TEST(cgi_script_is_found_where_the_function_says),
        TEST(http_head_is_that_of_a_proxy),
        TEST(other_interfaces_get_the_head_as_it_is),
        TEST(head_that_does_not_fit_is_refused),
        TEST(cgi_header_is_taken_apart),
        TEST(cgi_location_redirects),
        TEST(broken_cgi_header_is_refused_with_a_reason),
        TEST(answer_that_changes_while_it_is_read_breaks_nothing_but_itself),
        TEST(cgi_header_has_bounds),
        TEST(http_answers_are_read_however_they_are_framed),
        TEST(http_answer_is_whole_without_the_programs_end),
        TEST(what_follows_a_whole_answer_is_not_looked_at),
        TEST(broken_http_answer_is_refused_with_a_reason),
        TEST(http_head_and_trailers_have_bounds),
    };
    return cmocka_run_group_tests_name("interface", tests, NULL, NULL);
}
