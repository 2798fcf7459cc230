/* test_sched_interface.c - calls of programs that speak cgi or http, through the scheduler.
 *
 * In virtual time, on the fake driver. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/limits.h"
#include "sched_world.h"
#include "scheduler/scheduler_impl.h"

static struct world w;

static int setup(void **state)
{
    world_init(&w);
    return 0;
}

static int teardown(void **state)
{
    world_done(&w);
    return 0;
}

/* A function of this interface whose fake guest does what the words say. */
static struct function_version *program(const char *name, enum function_interface interface,
                                        const char *const *words)
{
    struct function_version *v = world_function(&w, name, "hello");
    size_t n = 0;

    while (words[n]) {
        n++;
    }
    for (char **a = v->config.args; *a; a++) {
        free(*a);
    }
    free(v->config.args);
    v->config.args = calloc(n + 1, sizeof(char *));
    for (size_t i = 0; i < n; i++) {
        v->config.args[i] = strdup(words[i]);
    }
    v->config.interface = interface;
    return v;
}

#define PROGRAM(name, interface, ...)                                                              \
    program(name, interface, (const char *const[]){__VA_ARGS__, NULL})

static void get(struct client *c, const char *function)
{
    *c = (struct client){.hold = c->hold};
    client_get(&w, c, function);
    world_run(&w);
}

/* --- answers ---------------------------------------------------------------------------------- */

static void cgi_answer_has_the_programs_status_and_fields(void **state)
{
    struct client c = {0};

    PROGRAM("f", FUNCTION_CGI, "say", "Status: 404 No\\r\\nContent-", "Type: a/b\\r\\n\\r", "\\nbo",
            "dy");
    world_open(&w);
    get(&c, "f");
    assert_ended(c, SCHED_OK);
    assert_int_equal(c.status, 404);
    assert_string_equal(c.fields, "Content-Type=a/b;");
    assert_string_equal((char *)c.body.data, "body");
    assert_true(c.last);
    client_done(&c);
}

static void cgi_program_sees_its_request(void **state)
{
    struct client c = {0};

    PROGRAM("f", FUNCTION_CGI, "cgi");
    world_open(&w);
    get(&c, "f");
    assert_ended(c, SCHED_OK);
    assert_non_null(strstr((char *)c.body.data, "\nSCRIPT_NAME=/fn/f\n"));
    assert_non_null(strstr((char *)c.body.data, "\nPATH_INFO=/x\n"));
    assert_non_null(strstr((char *)c.body.data, "\nQUERY_STRING=y=1\n"));
    client_done(&c);
}

static void http_answer_ends_the_vm_that_would_go_on(void **state)
{
    struct client c = {0};
    struct receipt r;

    PROGRAM("f", FUNCTION_HTTP, "serve", "HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\nbo",
            "dy");
    world_open(&w);
    get(&c, "f");
    assert_ended(c, SCHED_OK);
    assert_string_equal((char *)c.body.data, "body");
    assert_int_equal(c.ended_at_us, 1000000);
    assert_int_equal(world_fake(&w).running, 0);
    assert_true(world_receipt(&w, c.id, &r));
    assert_string_equal(r.exit_reason, "done");
    assert_string_equal(r.outcome, "ok");
    assert_int_equal(r.bytes_out, 4);
    client_done(&c);
}

static void http_answer_without_a_body_ends_with_its_head(void **state)
{
    struct client c = {0};

    PROGRAM("f", FUNCTION_HTTP, "serve", "HTTP/1.1 204 No\\r\\nX-A: b\\r\\n", "\\r\\n");
    world_open(&w);
    get(&c, "f");
    assert_ended(c, SCHED_OK);
    assert_int_equal(c.status, 204);
    assert_string_equal(c.fields, "X-A=b;");
    assert_int_equal(c.body.len, 0);
    assert_true(c.last);
    client_done(&c);
}

static void http_server_sees_the_request(void **state)
{
    static const char begin[] = "GET /x?y=1 HTTP/1.1\r\nHost: example.test\r\n";
    struct client c = {0};

    PROGRAM("f", FUNCTION_HTTP, "http");
    world_open(&w);
    get(&c, "f");
    assert_ended(c, SCHED_OK);
    assert_memory_equal(c.body.data, begin, sizeof(begin) - 1);
    client_done(&c);
}

static void server_is_told_its_port_unless_it_has_one(void **state)
{
    char own[] = "PORT=9", other[] = "A=b";
    char *with[] = {other, own, NULL}, *without[] = {other, NULL};
    struct function_config config = {.interface = FUNCTION_HTTP, .env = without};
    const char **envp = run_envp(&config);

    world_open(&w); /* for the teardown */
    assert_string_equal(envp[0], "A=b");
    assert_string_equal(envp[1], "PORT=8080");
    assert_null(envp[2]);
    free(envp);
    config.env = with;
    envp = run_envp(&config);
    assert_string_equal(envp[1], "PORT=9");
    assert_null(envp[2]);
    free(envp);
    config.env = NULL;
    config.interface = FUNCTION_FILTER;
    envp = run_envp(&config);
    assert_null(envp[0]);
    free(envp);
}

static void server_with_isolation_reset_gets_a_vm_of_its_own_each_time(void **state)
{
    struct client c = {0};

    PROGRAM("f", FUNCTION_HTTP, "serve", "HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
        ->config.isolation = FUNCTION_RESET;
    PROGRAM("cgi", FUNCTION_CGI, "say", "Status: 200\\n\\n", "ok")->config.isolation =
        FUNCTION_RESET;
    world_open(&w);
    for (unsigned i = 1; i <= 3; i++) {
        get(&c, "f");
        assert_ended(c, SCHED_OK);
        client_done(&c);
        assert_int_equal(world_fake(&w).recycled, 0);
        assert_int_equal(world_fake(&w).ran, i);
    }
    for (unsigned i = 0; i < 3; i++) { /* it has ended by itself, and is put back */
        get(&c, "cgi");
        assert_ended(c, SCHED_OK);
        assert_string_equal((char *)c.body.data, "ok");
        client_done(&c);
    }
    assert_int_equal(world_fake(&w).recycled, 3);
}

static void slow_reader_holds_a_server_back(void **state)
{
    struct client c = {.hold = true};

    PROGRAM("f", FUNCTION_HTTP, "serve", "HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\nbo",
            "dy");
    world_open(&w);
    get(&c, "f");
    assert_int_equal(c.pieces, 1);
    assert_int_equal(world_fake(&w).outputs, 1);
    c.hold = false;
    sched_call_data_done(c.call);
    world_run(&w);
    assert_ended(c, SCHED_OK);
    assert_string_equal((char *)c.body.data, "body");
    client_done(&c);
}

static void loss_of_the_vm_behind_a_whole_answer_does_not_matter(void **state)
{
    struct client c = {.hold = true};

    PROGRAM("f", FUNCTION_HTTP, "serve", "HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok");
    world_open(&w);
    get(&c, "f");
    assert_true(c.last);
    fake_driver_lose_all(w.driver);
    world_run(&w);
    assert_int_equal(c.ends, 0);
    sched_call_data_done(c.call);
    world_run(&w);
    assert_ended(c, SCHED_OK);
    client_done(&c);
}

static void server_that_closes_its_connection_ends_the_answer(void **state)
{
    struct client c = {0};

    PROGRAM("f", FUNCTION_HTTP, "say-exit", "0", "HTTP/1.0 200 OK\\r\\n\\r\\nall", "of it");
    world_open(&w);
    get(&c, "f");
    assert_ended(c, SCHED_OK);
    assert_string_equal((char *)c.body.data, "allof it");
    client_done(&c);
}

/* --- failures --------------------------------------------------------------------------------- */

static void broken_answer_is_a_failure_with_its_reason(void **state)
{
    struct client c = {0};
    struct receipt r;

    PROGRAM("cgi", FUNCTION_CGI, "say", "hello world\\n\\n");
    PROGRAM("none", FUNCTION_CGI, "say-exit", "0");
    PROGRAM("http", FUNCTION_HTTP, "serve", "hello world\\n\\n");
    world_open(&w);
    get(&c, "cgi");
    assert_ended(c, SCHED_FAILED);
    assert_false(c.outcome.responded);
    assert_int_equal(c.outcome.exit.kind, HV_EXIT_PROTOCOL);
    assert_non_null(strstr(c.detail, "interface cgi"));
    assert_true(world_receipt(&w, c.id, &r));
    assert_string_equal(r.exit_reason, "protocol");
    assert_int_equal(r.status, 502);
    get(&c, "none");
    assert_ended(c, SCHED_FAILED);
    assert_non_null(strstr(c.detail, "without any output"));
    get(&c, "http");
    assert_ended(c, SCHED_FAILED);
    assert_non_null(strstr(c.detail, "interface http"));
    assert_int_equal(world_fake(&w).running, 0);
}

static void failing_program_is_a_failure_unless_cgi_says_so_itself(void **state)
{
    struct client c = {0};

    PROGRAM("early", FUNCTION_CGI, "say-exit", "3");
    PROGRAM("own", FUNCTION_CGI, "say-exit", "255", "Status: 500\\nContent-Type: a/b\\n\\n",
            "sorry");
    PROGRAM("late", FUNCTION_CGI, "say-exit", "3", "Content-Type: a/b\\n\\n", "part");
    PROGRAM("http", FUNCTION_HTTP, "say-exit", "1", "HTTP/1.1 500 No\\r\\n\\r\\n");
    world_open(&w);
    get(&c, "early");
    assert_ended(c, SCHED_FAILED);
    assert_int_equal(c.outcome.exit.status, 3);
    get(&c, "own");
    assert_ended(c, SCHED_OK);
    assert_int_equal(c.status, 500);
    assert_string_equal((char *)c.body.data, "sorry");
    client_done(&c);
    get(&c, "late");
    assert_ended(c, SCHED_FAILED);
    assert_true(c.outcome.responded);
    client_done(&c);
    get(&c, "http");
    assert_ended(c, SCHED_FAILED);
    assert_int_equal(c.outcome.exit.status, 1);
    client_done(&c);
}

static void server_that_says_nothing_times_out(void **state)
{
    struct client c = {0};

    PROGRAM("f", FUNCTION_HTTP, "spin");
    world_open(&w);
    get(&c, "f");
    world_advance(&w, 3600 * SECOND);
    assert_ended(c, SCHED_TIMED_OUT);
}

/* --- bodies without a length ------------------------------------------------------------------ */

static void cgi_waits_for_the_end_of_a_body_without_a_length(void **state)
{
    struct client c = {0};

    PROGRAM("f", FUNCTION_CGI, "cgi");
    world_open(&w);
    client_post(&w, &c, "f", -1);
    world_run(&w);
    assert_int_equal(sched_call_body(c.call, "hel", 3, false), 1);
    world_run(&w);
    assert_int_equal(world_fake(&w).ran, 0);
    assert_int_equal(sched_call_body(c.call, "lo", 2, true), 1);
    world_run(&w);
    assert_ended(c, SCHED_OK);
    assert_non_null(strstr((char *)c.body.data, "\nCONTENT_LENGTH=5\n"));
    assert_non_null(strstr((char *)c.body.data, "\n\nhello"));
    client_done(&c);
    c = (struct client){0};
    client_post(&w, &c, "f", -1);
    assert_int_equal(sched_call_body(c.call, "all", 3, true), 1);
    world_run(&w);
    assert_ended(c, SCHED_OK);
    assert_non_null(strstr((char *)c.body.data, "\nCONTENT_LENGTH=3\n"));
    client_done(&c);
}

static void cgi_refuses_a_long_body_without_a_length(void **state)
{
    static char big[LIMIT_CGI_BODY_BYTES];
    struct client c = {0};

    PROGRAM("f", FUNCTION_CGI, "cgi");
    world_open(&w);
    client_post(&w, &c, "f", -1);
    world_run(&w);
    assert_int_equal(sched_call_body(c.call, big, sizeof(big), false), 0);
    world_run(&w);
    assert_ended(c, SCHED_LENGTH_REQUIRED);
    assert_int_equal(sched_outcome_status(c.outcome.kind), 411);
    assert_non_null(strstr(c.detail, "Content-Length"));
    c = (struct client){0};
    client_post(&w, &c, "f", -1); /* the body is there before the function has been looked up */
    assert_int_equal(sched_call_body(c.call, big, sizeof(big), false), 0);
    world_run(&w);
    assert_ended(c, SCHED_LENGTH_REQUIRED);
    assert_int_equal(world_fake(&w).ran, 0);
}

static void wait_for_a_length_has_an_end(void **state)
{
    struct client c = {0};

    PROGRAM("f", FUNCTION_CGI, "cgi")->config.timeout_ms = 5000;
    world_open(&w);
    client_post(&w, &c, "f", -1);
    world_advance(&w, 4999 * MS);
    assert_int_equal(c.ends, 0);
    world_advance(&w, 1 * MS);
    assert_ended(c, SCHED_LENGTH_REQUIRED);
    assert_non_null(strstr(c.detail, "5000 ms"));
}

static void cancelled_wait_for_a_length_is_clean(void **state)
{
    struct client c = {0};

    PROGRAM("f", FUNCTION_CGI, "cgi");
    world_open(&w);
    client_post(&w, &c, "f", -1);
    world_run(&w);
    assert_int_equal(sched_call_body(c.call, "x", 1, true), 1);
    sched_call_cancel(c.call);
    world_run(&w);
    assert_int_equal(c.ends, 0);
    assert_int_equal(world_fake(&w).ran, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(cgi_answer_has_the_programs_status_and_fields),
        T(cgi_program_sees_its_request),
        T(http_answer_ends_the_vm_that_would_go_on),
        T(http_answer_without_a_body_ends_with_its_head),
        T(http_server_sees_the_request),
        T(server_is_told_its_port_unless_it_has_one),
        T(server_with_isolation_reset_gets_a_vm_of_its_own_each_time),
        T(slow_reader_holds_a_server_back),
        T(loss_of_the_vm_behind_a_whole_answer_does_not_matter),
        T(server_that_closes_its_connection_ends_the_answer),
        T(broken_answer_is_a_failure_with_its_reason),
        T(failing_program_is_a_failure_unless_cgi_says_so_itself),
        T(server_that_says_nothing_times_out),
        T(cgi_waits_for_the_end_of_a_body_without_a_length),
        T(cgi_refuses_a_long_body_without_a_length),
        T(wait_for_a_length_has_an_end),
        T(cancelled_wait_for_a_length_is_clean),
    };

    return cmocka_run_group_tests_name("scheduler: interfaces", tests, NULL, NULL);
}
