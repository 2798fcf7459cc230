/* test_service_connection.c - the connections to services' machines: which are kept open, what is waited for
 * behind a forwarded port, bytes both ways as there is room, and connections without requests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "service_world.h"

#define ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static void an_open_connection_serves_the_next_request(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.answer = ANSWER;
    ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
    unsigned first = fake.accepted; /* attempts to connect count too */
    ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
    ask(w, &r, "HEAD /KEEP HTTP/1.1\r\n\r\n"); /* with a body, against the rules */
    assert_int_equal(fake.accepted, first);
    ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
    assert_int_equal(fake.accepted, first + 1);
    /* What cannot be repeated goes over a connection of its own. */
    ask(w, &r, "POST /KEEP HTTP/1.1\r\n\r\n");
    assert_int_equal(fake.accepted, first + 2);
}

static void a_connection_that_is_to_be_closed_is(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    static const char *const answers[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok", /* more than it said */
        "what is this?",
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(answers); i++) {
        fake.answer = answers[i];
        ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
        unsigned before = fake.accepted;
        ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
        assert_int_equal(fake.accepted, before + 1);
    }
}

/* As the scheduler: until the answer is whole. */
static void answers_are_passed_on_however_they_come(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *request, *answer;
    } cases[] = {
        {"HEAD /KEEP SLOW HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n"},
        {"GET /KEEP SLOW HTTP/1.1\r\n\r\n", "HTTP/1.1 304 OK\r\nContent-Length: 70000\r\n\r\n"},
        {"GET /KEEP SLOW HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        struct request r = {0};
        fake.answer = cases[i].answer;
        begin(w, &r, cases[i].request);
        for (int t = 0; t < 300 && r.answer.len < strlen(fake.answer); t++) {
            run_for(w, 10);
        }
        assert_int_equal(r.answer.len, strlen(fake.answer));
        finish(&r);
    }
}

static void a_connection_that_was_closed_meanwhile_is_no_failure(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.answer = ANSWER;
    fake.answers_once = true;
    ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
    unsigned first = fake.accepted;
    ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
    assert_int_equal(fake.accepted, first + 1);
    assert_int_equal(fake.started, 1);
}

/* The connection that found it ready may be closed at the other side by the time that a request comes. */
static void a_machine_that_was_kept_ready_gets_a_connection_with_its_request(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.answer = ANSWER;
    w->config.live = true;
    w->config.min_instances = 1;
    assert_int_equal(services(w)->keep(w->drv, &w->config, NULL), 0);
    for (int i = 0; i < 500 && stats_of(w).machines_ready == 0; i++) {
        run_for(w, 10);
    }
    assert_int_equal(stats_of(w).machines_ready, 1);
    run_for(w, 50);
    unsigned before = fake.accepted;
    ask(w, &r, "POST /KEEP HTTP/1.1\r\n\r\n");
    assert_int_equal(fake.accepted, before + 1);
    assert_int_equal(fake.started, 1);
}

/* Its machine has proven itself: one at a time is for those that nobody can ask about. */
static void serves_two_at_once(struct world *w)
{
    struct request two[2] = {{0}};
    begin(w, &two[0], "HOLD END");
    begin(w, &two[1], "second END");
    wait_exit(&two[1]);
    assert_string_equal((const char *)two[1].answer.data, "second END");
    assert_false(two[0].exited);
    finish(&two[0]);
    finish(&two[1]);
    assert_int_equal(fake.started, 1);
}

static void behind_a_forwarded_port_the_guest_is_waited_for(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.forwards = true;
    fake.boot_us = 300000;
    w->machines.base.ops = &asked_ops;
    begin(w, &r, "GET / END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_string_equal((const char *)r.answer.data, "GET / END"); /* not earlier, and once */
    assert_true(age_us(last_started) >= fake.boot_us);
    assert_int_equal(fake.early, 0);
    assert_true(fake.taken >= 1 && fake.taken < 15);
    finish(&r);
    serves_two_at_once(w);
}

static void a_kept_machine_needs_no_request_to_prove_itself(void **state)
{
    struct world *w = *state;
    fake.forwards = true;
    w->machines.base.ops = &asked_ops;
    w->config.min_instances = 1;
    w->config.live = true;
    assert_int_equal(services(w)->keep(w->drv, &w->config, NULL), 0);
    for (int i = 0; i < 300 && stats_of(w).machines_ready == 0; i++) {
        run_for(w, 10);
    }
    assert_string_equal(w->proven, "web:1");
    serves_two_at_once(w);
    services(w)->live(w->drv, "web", NULL);
}

static void that_it_cannot_be_told_once_is_not_for_good(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.forwards = true;
    fake.boot_us = 300000;
    fake.mute_first = 3;
    w->machines.base.ops = &asked_ops;
    begin(w, &r, "GET / END");
    wait_exit(&r);
    assert_int_equal(fake.mute_first, 0);
    assert_string_equal((const char *)r.answer.data, "GET / END");
    assert_int_equal(fake.early, 0); /* it was not tried before the guest had its card */
    finish(&r);
    serves_two_at_once(w);
}

static void a_machine_whose_port_is_taken_is_made_at_another(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.ports_taken = 4; /* more than a service may fail */
    begin(w, &r, "GET / END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_string_equal((const char *)r.answer.data, "GET / END");
    assert_int_equal(stats_of(w).failed, 0);
    assert_int_equal(fake.started, 1);
    finish(&r);
}

static void ports_that_are_always_taken_are_a_failure(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.ports_taken = 1000;
    begin(w, &r, "GET / END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    assert_non_null(strstr(r.why.detail, "the port is taken"));
    assert_in_range(1000 - fake.ports_taken, 4, 100);
    finish(&r);
}

static void where_nobody_can_tell_it_is_tried(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.mute = true;
    fake.drops = 2;
    w->machines.base.ops = &asked_ops;
    begin(w, &r, "GET / END");
    wait_exit(&r);
    assert_string_equal((const char *)r.answer.data, "GET / END");
    finish(&r);
}

static void a_machine_that_does_not_listen_yet_is_asked_again(void **state)
{
    struct world *w = *state;
    struct request r = {0}, other = {0};
    w->config.per_request = true; /* one machine has to do */
    fake.drops = 3;
    begin(w, &r, "END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_string_equal((const char *)r.answer.data, "END");
    assert_int_equal(fake.started, 1);
    finish(&r);
    fake.drops = 1000000;
    w->config.key = "web:2";
    w->config.ready_timeout_ms = 100;
    begin(w, &other, "END");
    wait_exit(&other);
    assert_int_equal(other.why.kind, HV_EXIT_LOST);
    finish(&other);
    fake.drops = 0;
}

static void a_body_follows_in_pieces(void **state)
{
    struct world *w = *state;
    struct request r = {.more = 300000};
    begin(w, &r, "POST ");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_true(r.answer.len > 290000);
    finish(&r);
}

static void output_waits_for_its_reader(void **state)
{
    struct world *w = *state;
    struct request r = {.more = 300000, .hold_output = true};
    begin(w, &r, "POST ");
    run_for(w, 400);
    size_t first = r.answer.len;
    assert_true(first > 0 && first <= 65536);
    run_for(w, 100);
    assert_int_equal(r.answer.len, first);
    r.hold_output = false;
    hv_vm_ops(r.vm)->vm_output_done(r.vm);
    wait_exit(&r);
    assert_true(r.answer.len > 290000);
    finish(&r);
}

/* --- connections without requests ------------------------------------------------------------- */

static void both_directions_of_a_connection_end_by_themselves(void **state)
{
    struct world *w = *state;
    struct request r = {.raw = true, .silent = true};
    begin(w, &r, "hello END");
    for (int i = 0; i < 200 && r.ends == 0; i++) {
        run_for(w, 10);
    }
    assert_string_equal((const char *)r.answer.data,
                        "hello END"); /* and the machine has ended its own */
    assert_int_equal(r.ends, 1);
    assert_true(r.started);
    assert_false(r.exited);
    hv_vm_ops(r.vm)->vm_input(r.vm, NULL, 0, true);
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_int_equal(r.ends, 1);
    finish(&r);
}

static void a_connection_is_given_back_until_it_is_taken(void **state)
{
    struct world *w = *state;
    struct request r = {.raw = true, .silent = true};
    fake.drops = 3; /* as QEMU's user network does, before the guest listens */
    begin(w, &r, "once END");
    for (int i = 0; i < 300 && r.ends == 0; i++) {
        run_for(w, 10);
    }
    assert_string_equal((const char *)r.answer.data, "once END");
    assert_int_equal(fake.drops, 0);
    assert_false(r.exited);
    finish(&r); /* the client has gone */
    assert_int_equal(stats_of(w).machines_ready, 1);
}

static void what_a_machine_has_taken_is_lost_with_it(void **state)
{
    struct world *w = *state;
    struct request r = {.raw = true, .silent = true}, dropped = {.raw = true, .silent = true};
    begin(w, &r, "HOLD END");
    for (int i = 0; i < 200 && !r.started; i++) {
        run_for(w, 10);
    }
    assert_true(r.started);
    begin(w, &dropped, "DROP END"); /* it closes without a byte: an end like any */
    for (int i = 0; i < 200 && dropped.ends == 0; i++) {
        run_for(w, 10);
    }
    assert_false(dropped.exited);
    assert_int_equal(dropped.answer.len, 0);
    end_now(last_started);
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    assert_non_null(strstr(r.why.detail, "it crashed"));
    assert_int_equal(fake.started, 1); /* nothing was sent again */
    finish(&r);
    wait_exit(&dropped);
    finish(&dropped);
}

static void output_of_a_connection_waits_for_its_reader(void **state)
{
    struct world *w = *state;
    struct request r = {.raw = true, .hold_output = true, .more = 300000};
    begin(w, &r, "bytes ");
    for (int i = 0; i < 300 && r.answer.len == 0; i++) {
        run_for(w, 10);
    }
    size_t held = r.answer.len;
    assert_in_range(held, 1, 300000);
    run_for(w, 50);
    assert_int_equal(r.answer.len, held); /* one piece at a time */
    r.hold_output = false;
    hv_vm_ops(r.vm)->vm_output_done(r.vm);
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_int_equal(r.answer.len, 6 + 300000 / 4096 * 4096 + 3);
    finish(&r);
}

static void what_a_machine_opens_is_as_deep_as_the_deepest_that_it_serves(void **state)
{
    struct world *w = *state;
    struct request first = {0}, r[3] = {{.depth = 2}, {.depth = 5}, {.depth = 0}};
    ask(w, &first, "END"); /* until then it gets one at a time */
    for (int i = 0; i < 3; i++) {
        begin(w, &r[i], "HOLD END");
    }
    for (int i = 0; i < 300 && !(r[0].started && r[1].started && r[2].started); i++) {
        run_for(w, 10);
    }
    open_out(last_started);
    assert_int_equal(w->depth, 5);
    finish(&r[1]);
    open_out(last_started);
    assert_int_equal(w->depth, 2);
    finish(&r[0]);
    finish(&r[2]);
    open_out(last_started); /* on its own account */
    assert_int_equal(w->depth, 0);
    assert_int_equal(w->opened, 3);
    assert_int_equal(fake.started, 1);
}

static void a_server_that_is_away_for_a_while_is_waited_for(void **state)
{
    struct world *w = *state;
    for (int raw = 0; raw < 2; raw++) {
        struct request first = {.raw = raw}, second = {.raw = raw}, third = {.raw = raw};
        begin(w, &first, "oneEND");
        wait_exit(&first);
        finish(&first);
        stop_listening(last_started);
        begin(w, &second, "twoEND");
        begin(w, &third, "threeEND");
        run_for(w, 50);
        assert_false(second.exited || third.exited);
        listen_again(last_started);
        wait_exit(&second);
        wait_exit(&third);
        assert_int_equal(second.why.kind, HV_EXIT_DONE);
        assert_int_equal(third.why.kind, HV_EXIT_DONE);
        assert_int_equal(fake.started, 1);
        assert_int_equal(stats_of(w).failed, 0);
        finish(&second);
        finish(&third);
    }
}

static void a_machine_whose_server_stays_away_is_replaced(void **state)
{
    struct world *w = *state;
    struct request r = {0}, again = {0};
    w->config.ready_timeout_ms = 200;
    fake.says = "serving on\n";
    w->config.ready_console = "serving on"; /* which does not come again: its port is asked */
    begin(w, &r, "oneEND");
    wait_exit(&r);
    finish(&r);
    stop_listening(last_started);
    begin(w, &again, "twoEND");
    wait_exit(&again);
    assert_int_equal(again.why.kind, HV_EXIT_DONE);
    assert_int_equal(fake.started, 2);
    assert_int_equal(stats_of(w).failed, 1);
    finish(&again);
}

static void what_a_request_waits_for_can_be_told(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    char words[200];
    fake.says = "no card\n";
    fake.deaf = true;
    w->config.ready_timeout_ms = 300;
    begin(w, &r, "oneEND");
    hv_vm_ops(r.vm)->vm_wants(r.vm, words, sizeof(words));
    assert_string_equal(words, "");
    run_for(w, 50);
    hv_vm_ops(r.vm)->vm_wants(r.vm, words, sizeof(words));
    assert_non_null(strstr(words, " did not answer within "));
    assert_non_null(strstr(words, " ms; its last words: no card"));
    wait_exit(&r);
    assert_non_null(strstr(r.why.detail, " did not answer within 300 ms; its last words: no card"));
    finish(&r);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_world, close_world)
    const struct CMUnitTest tests[] = {
        T(a_server_that_is_away_for_a_while_is_waited_for),
        T(a_machine_whose_server_stays_away_is_replaced),
        T(what_a_request_waits_for_can_be_told),
        T(an_open_connection_serves_the_next_request),
        T(a_connection_that_is_to_be_closed_is),
        T(answers_are_passed_on_however_they_come),
        T(a_connection_that_was_closed_meanwhile_is_no_failure),
        T(a_machine_that_was_kept_ready_gets_a_connection_with_its_request),
        T(behind_a_forwarded_port_the_guest_is_waited_for),
        T(a_kept_machine_needs_no_request_to_prove_itself),
        T(that_it_cannot_be_told_once_is_not_for_good),
        T(where_nobody_can_tell_it_is_tried),
        T(a_machine_whose_port_is_taken_is_made_at_another),
        T(ports_that_are_always_taken_are_a_failure),
        T(a_machine_that_does_not_listen_yet_is_asked_again),
        T(a_body_follows_in_pieces),
        T(output_waits_for_its_reader),
        T(both_directions_of_a_connection_end_by_themselves),
        T(a_connection_is_given_back_until_it_is_taken),
        T(what_a_machine_has_taken_is_lost_with_it),
        T(output_of_a_connection_waits_for_its_reader),
        T(what_a_machine_opens_is_as_deep_as_the_deepest_that_it_serves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
