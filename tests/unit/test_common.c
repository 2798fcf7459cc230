/* test_common.c - the ground that everything stands on: errors, bytes, ids, loop, workers, log. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/fault.h"
#include "common/file.h"
#include "common/id.h"
#include "common/json.h"
#include "common/list.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/workers.h"

static void error_context_goes_in_front(void **state)
{
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(un_error_set(&err, -EINVAL, "value %d", 7), -EINVAL);
    assert_int_equal(un_error_context(&err, "field %s", "x"), -EINVAL);
    assert_string_equal(err.text, "field x: value 7");
    assert_int_equal(un_error_errno(&err, -ENOENT, "open %s", "/a"), -ENOENT);
    assert_string_equal(err.text, "open /a: No such file or directory");
    assert_int_equal(un_error_set(NULL, -EIO, "nobody listens"), -EIO);
}

static void overlong_error_is_cut_with_a_mark(void **state)
{
    struct un_error err = UN_ERROR_INIT;
    char big[2 * UN_ERROR_TEXT_MAX];
    memset(big, 'a', sizeof big);
    big[sizeof big - 1] = '\0';
    un_error_set(&err, -EINVAL, "%s", big);
    assert_int_equal(strlen(err.text), UN_ERROR_TEXT_MAX - 1);
    assert_string_equal(err.text + UN_ERROR_TEXT_MAX - 4, "...");
    un_error_context(&err, "front");
    assert_memory_equal(err.text, "front: aaa", 10);
    assert_string_equal(err.text + UN_ERROR_TEXT_MAX - 4, "...");
}

static void reader_never_passes_its_end(void **state)
{
    struct un_reader r = un_reader_of("\x01\x02\x03\x04\x05", 5);
    assert_int_equal(un_read_u32le(&r), 0x04030201);
    assert_int_equal(un_read_u16le(&r), 0);
    assert_true(r.failed);
    assert_int_equal(un_read_u8(&r), 0); /* sticky */
    r = un_reader_of("ab", 2);
    assert_null(un_read_bytes(&r, UINT64_MAX));
    r = un_reader_of("ab", 2);
    un_read_seek(&r, 3);
    assert_true(r.failed);
}

static void buffer_grows_and_consumes(void **state)
{
    struct un_buf b = {0};
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(un_buf_printf(&b, "%03d,", i), 0);
    }
    assert_int_equal(b.len, 4000);
    un_buf_consume(&b, 3996);
    assert_string_equal((char *)b.data, "999,");
    un_buf_consume(&b, 100);
    assert_int_equal(b.len, 0);
    assert_int_equal(un_buf_reserve(&b, SIZE_MAX), -ENOMEM);
    char *s = un_buf_steal_str(&b);
    assert_string_equal(s, "");
    free(s);
    un_buf_done(&b);
}

static void hex_round_trips_and_refuses_rubbish(void **state)
{
    char text[9];
    uint8_t back[4];
    un_hex_encode("\x00\xff\x10\xab", 4, text);
    assert_string_equal(text, "00ff10ab");
    assert_true(un_hex_decode("00FF10ab", 8, back, 4));
    assert_memory_equal(back, "\x00\xff\x10\xab", 4);
    assert_false(un_hex_decode("00ff10a", 7, back, 4));
    assert_false(un_hex_decode("00ff10ag", 8, back, 4));
}

static void ids_are_valid_and_ascending(void **state)
{
    char a[UN_ID_SIZE], b[UN_ID_SIZE];
    un_id_new(a);
    for (int i = 0; i < 10000; i++) {
        un_id_new(b);
        assert_true(un_id_valid(b));
        assert_true(strcmp(a, b) < 0);
        memcpy(a, b, sizeof a);
    }
    char least[UN_ID_SIZE], later[UN_ID_SIZE];
    uint64_t now = un_clock_wall_us();
    un_id_least(now - 1000000, least);
    un_id_least(now + 60000000, later);
    assert_true(un_id_valid(least) && strcmp(least, b) < 0 && strcmp(b, later) < 0);
    assert_false(un_id_valid("01ARZ3NDEKTSV4RRFFQ69G5FA"));
    assert_false(un_id_valid("01ARZ3NDEKTSV4RRFFQ69G5FAI"));
}

static void random_bytes_are_never_given_twice(void **state)
{
    enum { PIECES = 2000, LEN = 16 };
    static uint8_t seen[PIECES][LEN];
    uint8_t large[512] = {0};
    for (int i = 0; i < PIECES; i++) {
        un_random(seen[i], LEN - (size_t)i % 3); /* the rest stays zero */
    }
    for (int i = 1; i < PIECES; i++) {
        for (int j = i - 1; j >= 0 && j > i - 200; j--) {
            assert_memory_not_equal(seen[i], seen[j], LEN);
        }
    }
    un_random(large, sizeof(large));
    assert_memory_not_equal(large, large + 256, 256);
}

static void clock_formats_rfc3339(void **state)
{
    char text[UN_CLOCK_TEXT_SIZE];
    assert_string_equal(un_clock_format(1795226650510083, text), "2026-11-21T02:04:10.510083Z");
    assert_string_equal(un_clock_format(0, text), "1970-01-01T00:00:00.000000Z");
}

static void json_getters_keep_defaults_and_name_the_key(void **state)
{
    struct un_error err = UN_ERROR_INIT;
    json_t *j = NULL;
    const char *text = "{\"n\": 5, \"s\": \"x\", \"b\": true, \"z\": \"a\\u0000b\"}";
    /* jansson refuses \u0000 unless told otherwise */
    assert_int_equal(un_json_parse(text, strlen(text), &j, &err), -EINVAL);
    text = "{\"n\": 5, \"s\": \"x\", \"b\": true}";
    assert_int_equal(un_json_parse(text, strlen(text), &j, &err), 0);
    int64_t n = 1, missing = 42;
    bool b = false;
    const char *s = NULL;
    assert_int_equal(un_json_get_int(j, "n", 0, 10, &n, &err), 0);
    assert_int_equal(un_json_get_int(j, "none", 0, 10, &missing, &err), 0);
    assert_int_equal(un_json_get_bool(j, "b", &b, &err), 0);
    assert_int_equal(un_json_get_str(j, "s", &s, &err), 0);
    assert_true(n == 5 && missing == 42 && b);
    assert_string_equal(s, "x");
    assert_int_equal(un_json_get_int(j, "n", 6, 10, &n, &err), -EINVAL);
    assert_string_equal(err.text, "n: must be a whole number from 6 to 10");
    assert_int_equal(un_json_get_str(j, "n", &s, &err), -EINVAL);
    const char *known[] = {"n", "s", NULL};
    assert_int_equal(un_json_only_keys(j, known, &err), -EINVAL);
    assert_string_equal(err.text, "unknown key \"b\"");
    json_decref(j);
    assert_int_equal(un_json_parse("{\"a\":1,\"a\":2}", 13, &j, &err), -EINVAL);
    assert_int_equal(un_json_parse("{", 1, &j, &err), -EINVAL);
}

/* --- loop ------------------------------------------------------------------------------------- */

struct order {
    char text[32];
    size_t len;
};
struct mark {
    struct order *order;
    char c;
};

static void add_mark(void *arg)
{
    struct mark *m = arg;
    m->order->text[m->order->len++] = m->c;
}

static void timers_fire_in_order_of_time_in_virtual_time(void **state)
{
    struct un_loop *loop;
    assert_int_equal(un_loop_new_virtual(1000, &loop, NULL), 0);
    struct order o = {0};
    struct mark marks[4] = {{&o, 'a'}, {&o, 'b'}, {&o, 'c'}, {&o, 'd'}};
    struct un_timer t[4];
    uint64_t at[4] = {3000, 1500, 2000, 2500};
    for (int i = 0; i < 4; i++) {
        un_timer_init(&t[i], loop, add_mark, &marks[i]);
        assert_int_equal(un_timer_arm_at(&t[i], at[i]), 0);
    }
    un_timer_cancel(&t[3]);
    assert_false(un_timer_armed(&t[3]));
    un_loop_advance(loop, 1000);
    assert_string_equal(o.text, "bc");
    assert_int_equal(un_loop_now_us(loop), 2000);
    assert_int_equal(un_timer_arm_at(&t[0], 2001), 0); /* moved to an earlier time */
    un_loop_advance(loop, 1);
    assert_string_equal(o.text, "bca");
    un_loop_free(loop);
}

static void many_timers_keep_the_heap_in_order(void **state)
{
    enum { N = 500 };
    static struct un_timer t[N];
    static struct mark m[N];
    struct un_loop *loop;
    struct order o = {0};
    assert_int_equal(un_loop_new_virtual(0, &loop, NULL), 0);
    for (unsigned i = 0; i < N; i++) {
        m[i] = (struct mark){&o, 'x'};
        un_timer_init(&t[i], loop, add_mark, &m[i]);
        assert_int_equal(un_timer_arm_at(&t[i], (i * 7919u) % 1000u + 1), 0);
    }
    for (unsigned i = 0; i < N; i += 2) {
        un_timer_cancel(&t[i]);
    }
    uint64_t fired = 0;
    for (uint64_t now = 1; now <= 1000; now++) {
        o.len = 0;
        un_loop_advance(loop, 1);
        uint64_t due = 0;
        for (unsigned i = 1; i < N; i += 2) {
            due += (i * 7919u) % 1000u + 1 == now;
        }
        assert_int_equal(o.len, due);
        fired += o.len;
    }
    assert_int_equal(fired, N / 2);
    un_loop_free(loop);
}

static void post_again(void *arg)
{
    struct un_post *p = arg;
    static int times;
    (void)p;
    times++;
}

static void posts_run_in_order_and_can_be_taken_back(void **state)
{
    struct un_loop *loop;
    assert_int_equal(un_loop_new_virtual(0, &loop, NULL), 0);
    struct order o = {0};
    struct mark marks[3] = {{&o, '1'}, {&o, '2'}, {&o, '3'}};
    struct un_post p[3];
    for (int i = 0; i < 3; i++) {
        p[i] = (struct un_post){.fn = add_mark, .arg = &marks[i]};
        un_loop_post(loop, &p[i]);
        un_loop_post(loop, &p[i]); /* twice is once */
    }
    un_loop_unpost(loop, &p[1]);
    un_loop_run_ready(loop);
    assert_string_equal(o.text, "13");
    struct un_post q = {.fn = post_again, .arg = NULL};
    un_loop_post(loop, &q);
    un_loop_post(loop, &p[1]);
    un_loop_run_ready(loop);
    assert_string_equal(o.text, "132");
    un_loop_free(loop);
}

struct sum_job {
    struct un_job job;
    struct un_loop *loop;
    int in, out, *left;
};

static int sum_run(struct un_job *job, struct un_error *err)
{
    struct sum_job *s = (struct sum_job *)job;
    if (s->in < 0) {
        return un_error_set(err, -EDOM, "negative: %d", s->in);
    }
    s->out = s->in * 2;
    return 0;
}

static void sum_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct sum_job *s = (struct sum_job *)job;
    assert_true(un_loop_is_current(s->loop));
    if (s->in < 0) {
        assert_int_equal(rc, -EDOM);
        assert_string_equal(err->text, "negative: -1");
    } else {
        assert_int_equal(rc, 0);
        assert_int_equal(s->out, s->in * 2);
    }
    if (--*s->left == 0) {
        un_loop_stop(s->loop);
    }
}

static void workers_return_each_result_once_on_the_loop(void **state)
{
    enum { N = 200 };
    struct un_loop *loop;
    struct un_workers *pool;
    assert_int_equal(un_loop_new(&loop, NULL), 0);
    assert_int_equal(un_workers_new(loop, "test", 4, &pool, NULL), 0);
    static struct sum_job jobs[N];
    int left = N;
    for (int i = 0; i < N; i++) {
        jobs[i] = (struct sum_job){.job = {.run = sum_run, .done = sum_done},
                                   .loop = loop,
                                   .in = i == 7 ? -1 : i,
                                   .left = &left};
        un_workers_submit(pool, &jobs[i].job);
    }
    un_loop_run(loop);
    assert_int_equal(left, 0);
    un_workers_free(pool);
    un_loop_free(loop);
}

static void freeing_workers_finishes_what_is_queued(void **state)
{
    struct un_loop *loop;
    struct un_workers *pool;
    assert_int_equal(un_loop_new(&loop, NULL), 0);
    assert_int_equal(un_workers_new(loop, "test", 1, &pool, NULL), 0);
    static struct sum_job jobs[20];
    int left = 20;
    for (int i = 0; i < 20; i++) {
        jobs[i] = (struct sum_job){
            .job = {.run = sum_run, .done = sum_done}, .loop = loop, .in = i, .left = &left};
        un_workers_submit(pool, &jobs[i].job);
    }
    un_workers_free(pool);
    assert_int_equal(left, 0);
    un_loop_free(loop);
}

/* --- log -------------------------------------------------------------------------------------- */

/* What fn writes to stderr, in `buf`. */
static void capture(void (*fn)(void), char *buf, size_t size)
{
    int pipefd[2];
    assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
    int saved = dup(STDERR_FILENO);
    dup2(pipefd[1], STDERR_FILENO);
    fn();
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(pipefd[1]);
    ssize_t n = 0, got;
    while ((got = read(pipefd[0], buf + n, size - 1 - (size_t)n)) > 0) {
        n += got;
    }
    buf[n] = '\0';
    close(pipefd[0]);
}

static void write_hostile_line(void)
{
    un_log(UN_LOG_INFO, "said hello", "name", "a\nb \"q\" \x1b[0m", "plain", "v1");
    un_log(UN_LOG_DEBUG, "not shown");
}

static void foreign_strings_are_escaped_in_both_formats(void **state)
{
    char out[1024];
    un_log_setup(UN_LOG_INFO, UN_LOG_TEXT);
    capture(write_hostile_line, out, sizeof out);
    assert_non_null(
        strstr(out, " info said hello name=\"a\\u000ab \\\"q\\\" \\u001b[0m\" plain=v1\n"));
    assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);
    un_log_setup(UN_LOG_INFO, UN_LOG_JSON);
    capture(write_hostile_line, out, sizeof out);
    json_t *j = NULL;
    assert_int_equal(un_json_parse(out, strlen(out), &j, NULL), 0);
    assert_string_equal(json_string_value(json_object_get(j, "name")), "a\nb \"q\" \x1b[0m");
    json_decref(j);
    un_log_setup(UN_LOG_INFO, UN_LOG_TEXT);
}

static void write_many_lines(void)
{
    for (int i = 0; i < 100; i++) {
        un_log(UN_LOG_WARN, "again");
    }
}

static void a_noisy_site_is_limited(void **state)
{
    char out[16384];
    capture(write_many_lines, out, sizeof out);
    unsigned lines = 0;
    for (const char *p = out; (p = strchr(p, '\n')); p++) {
        lines++;
    }
    assert_in_range(lines, 20, 40); /* 40 if a second began in between */
}

static void fault_points_follow_their_plan(void **state)
{
#ifdef UNID_FAULT_INJECTION
    assert_int_equal(un_fault_set("a.b=ENOSPC@2,c=EIO@2+"), 0);
    assert_int_equal(un_fault("a.b"), 0);
    assert_int_equal(un_fault("a.b"), -ENOSPC);
    assert_int_equal(un_fault("a.b"), 0);
    assert_int_equal(un_fault("c"), 0);
    assert_int_equal(un_fault("c"), -EIO);
    assert_int_equal(un_fault("c"), -EIO);
    assert_int_equal(un_fault("other"), 0);
    assert_int_equal(un_fault_set("nonsense"), -EINVAL);
    assert_int_equal(un_fault_set(NULL), 0);
    assert_int_equal(un_fault("c"), 0);
#else
    print_message("skipped: fault points are not compiled in (--enable-fault-injection)\n");
    skip();
#endif
}

static void all_is_written(void **state)
{
    char got[8] = "";
    (void)state;
    FILE *f = tmpfile();
    int fd = fileno(f);
    assert_int_equal(un_write_all(fd, "abcd", 4), 0);
    assert_int_equal(un_write_all(fd, "ef", 2), 0);
    assert_int_equal(un_pwrite_all(fd, "CD", 2, 2), 0);
    assert_int_equal(un_pwrite_all(fd, "", 0, 100), 0);
    assert_int_equal(pread(fd, got, sizeof(got), 0), 6);
    assert_string_equal(got, "abCDef");
    fclose(f);
    int full[2];
    assert_int_equal(pipe2(full, O_CLOEXEC | O_NONBLOCK), 0);
    static const char much[1 << 20];
    assert_int_equal(un_write_all(full[1], much, sizeof(much)), -EAGAIN); /* a part of it was */
    assert_int_equal(un_pwrite_all(full[1], much, 1, 0), -ESPIPE);
    close(full[0]);
    close(full[1]);
    assert_int_equal(un_write_all(-1, "x", 1), -EBADF);
}

static void lists_unlink_safely(void **state)
{
    struct node {
        struct un_list link;
        int n;
    } nodes[3];
    struct un_list list;
    un_list_init(&list);
    for (int i = 0; i < 3; i++) {
        nodes[i].n = i;
        un_list_push(&list, &nodes[i].link);
    }
    un_list_remove(&nodes[1].link);
    un_list_remove(&nodes[1].link);
    assert_false(un_list_linked(&nodes[1].link));
    assert_int_equal(un_list_first(&list, struct node, link)->n, 0);
    int seen = 0;
    un_list_for_each_safe (it, &list) {
        seen += un_list_entry(it, struct node, link)->n;
        un_list_remove(it);
    }
    assert_int_equal(seen, 2);
    assert_true(un_list_empty(&list));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_context_goes_in_front),
        cmocka_unit_test(overlong_error_is_cut_with_a_mark),
        cmocka_unit_test(reader_never_passes_its_end),
        cmocka_unit_test(buffer_grows_and_consumes),
        cmocka_unit_test(hex_round_trips_and_refuses_rubbish),
        cmocka_unit_test(ids_are_valid_and_ascending),
        cmocka_unit_test(random_bytes_are_never_given_twice),
        cmocka_unit_test(clock_formats_rfc3339),
        cmocka_unit_test(json_getters_keep_defaults_and_name_the_key),
        cmocka_unit_test(timers_fire_in_order_of_time_in_virtual_time),
        cmocka_unit_test(many_timers_keep_the_heap_in_order),
        cmocka_unit_test(posts_run_in_order_and_can_be_taken_back),
        cmocka_unit_test(workers_return_each_result_once_on_the_loop),
        cmocka_unit_test(freeing_workers_finishes_what_is_queued),
        cmocka_unit_test(foreign_strings_are_escaped_in_both_formats),
        cmocka_unit_test(a_noisy_site_is_limited),
        cmocka_unit_test(fault_points_follow_their_plan),
        cmocka_unit_test(all_is_written),
        cmocka_unit_test(lists_unlink_safely),
    };
    return cmocka_run_group_tests_name("common", tests, NULL, NULL);
}
