/* test_libos_sched.c - the library OS's threads: who runs, who waits, futexes, timers and signals, in
 * virtual time. Tasks are coroutines of the C library; the host is a few functions that count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "file.h"
#include "host.h"
#include "mm.h"
#include "sys_core.h"
#include "task/task_internal.h"
#include "time/time.h"

#define MS     1000000ull
#define SIG_A  10
#define SIG_B  12
#define TASKS  8
#define STACKS (256 * 1024)

/* --- the world ------------------------------------------------------------------------------------- */

static struct {
    uint64_t now;
    char trace[1024];
    unsigned waits, nexts, arrivals;
    bool has_request;
    uint32_t interface;
    unsigned unsupported;
    ucontext_t contexts[TASKS], *running;
    void *stacks[TASKS], *kernel_stacks[TASKS];
    unsigned count;
    jmp_buf panic;
    bool panicked;
} world;

static void say(const char *what)
{
    size_t at = strlen(world.trace);
    snprintf(world.trace + at, sizeof(world.trace) - at, "%s%s", at ? " " : "", what);
}

uint64_t clock_monotonic_ns(void)
{
    return world.now;
}

uint64_t deadline_in(uint64_t ns)
{
    return world.now + ns;
}

uint64_t deadline_at(bool realtime, uint64_t ns)
{
    (void)realtime;
    return ns;
}

int timespec_get(const struct __kernel_timespec *ts, uint64_t *ret_ns)
{
    *ret_ns = (uint64_t)ts->tv_sec * NS_PER_S + (uint64_t)ts->tv_nsec;
    return 0;
}

void host_wait(uint64_t ns)
{
    world.waits++;
    world.now += ns;
}

void host_next(void)
{
    world.nexts += !world.has_request;
    world.has_request = true;
}

bool host_has_request(void)
{
    return world.has_request;
}

void request_arrived(void)
{
    world.arrivals++;
}

void net_poll_ready(void)
{
}

uint32_t host_interface(void)
{
    return world.interface;
}

unsigned host_net_count(void)
{
    return 0;
}

void host_report_unsupported(uint32_t number)
{
    (void)number;
    world.unsupported++;
}

void absent_tell(void)
{
}

void host_done(int status)
{
    (void)status;
    abort();
}

void klog(const char *format, ...)
{
    (void)format;
}

void kpanic(const char *format, ...)
{
    (void)format;
    world.panicked = true;
    longjmp(world.panic, 1);
}

bool user_readable(const void *p, uint64_t len)
{
    (void)len;
    return p != NULL;
}

bool user_writable(void *p, uint64_t len)
{
    (void)len;
    return p != NULL;
}

uint64_t frame_alloc_many(size_t count)
{
    void *p = aligned_alloc(4096, count * PAGE_SIZE);
    memset(p, 0, count * PAGE_SIZE);
    world.kernel_stacks[world.count] = p;
    return (uint64_t)p;
}

void frame_free(uint64_t phys)
{
    (void)phys; /* the world's end frees them */
}

void *phys_to_virt(uint64_t phys)
{
    return (void *)phys;
}

uint64_t virt_to_phys(const void *p)
{
    return (uint64_t)p;
}

void fpu_save(void *area)
{
    (void)area;
}

void fpu_restore(const void *area)
{
    (void)area;
}

void fpu_fresh(void *area)
{
    (void)area;
}

char syscall_entry[1];

void task_begin(void)
{
    abort();
}

void switch_stacks(uint64_t *save_rsp, uint64_t load_rsp)
{
    ucontext_t *was = world.running;
    *save_rsp = (uint64_t)was;
    world.running = (ucontext_t *)load_rsp;
    swapcontext(was, world.running);
}

void task_begin_c(void);

static void (*bodies[TASKS])(void);

static void body_of(int n)
{
    task_begin_c();
    bodies[n]();
    task_exit(0);
}

static struct task *start(void (*body)(void))
{
    struct task *t = task_new();
    assert_non_null(t);
    unsigned n = world.count++;
    ucontext_t *c = &world.contexts[n];
    getcontext(c);
    world.stacks[n] = malloc(STACKS);
    c->uc_stack.ss_sp = world.stacks[n];
    c->uc_stack.ss_size = STACKS;
    if (body) {
        bodies[n] = body;
        makecontext(c, (void (*)(void))body_of, 1, (int)n);
        t->saved_rsp = (uint64_t)c;
        t->state = TASK_BLOCKED;
        task_wake(t);
    }
    return t;
}

static int set_up(void **state)
{
    (void)state;
    memset(&world, 0, sizeof(world));
    world.now = NS_PER_S;
    request_waiters = 0;
    request_here = false;
    tasks.next = NULL;
    task_count = 0;
    timers_init();
    futex_init();
    struct task *first = start(NULL); /* the test itself */
    sched_init(first);
    signals_reset();
    world.running = &world.contexts[0];
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    while (tasks.next != &tasks) {
        struct task *t = container_of(tasks.next, struct task, node);
        signal_task_done(t);
        list_del(&t->node);
        kfree(t);
    }
    for (unsigned i = 0; i < world.count; i++) {
        free(world.stacks[i]);
        free(world.kernel_stacks[i]);
    }
    return 0;
}

static void sleep_ms(uint64_t ms)
{
    while (task_block(world.now + ms * MS) == 0) {
    }
}

/* --- who runs --------------------------------------------------------------------------------------- */

static void yields_twice(void)
{
    for (int i = 0; i < 2; i++) {
        char name[8];
        snprintf(name, sizeof(name), "%d", task_tid(current));
        say(name);
        task_yield();
    }
}

static void tasks_run_in_turn(void **state)
{
    (void)state;
    int32_t base = task_tid(current);
    char expect[64];
    start(yields_twice);
    start(yields_twice);
    for (int i = 0; i < 4; i++) {
        task_yield();
    }
    snprintf(expect, sizeof(expect), "%d %d %d %d", base + 1, base + 2, base + 1, base + 2);
    assert_string_equal(world.trace, expect);
    assert_int_equal(task_count, 1);
    assert_int_equal(world.waits, 0);
}

static void sleeps_20(void)
{
    sleep_ms(20);
    say("20");
}

static void sleeps_10(void)
{
    sleep_ms(10);
    say("10");
}

static void sleepers_wake_in_the_order_of_their_times(void **state)
{
    (void)state;
    start(sleeps_20);
    start(sleeps_10);
    sleep_ms(30);
    assert_string_equal(world.trace, "10 20");
    assert_int_equal(world.now, NS_PER_S + 30 * MS);
    assert_int_equal(world.waits, 3); /* once for each of the times */
}

static struct waitq queue;

static void waits_in_queue(void)
{
    int r = waitq_wait(&queue, NO_DEADLINE);
    say(r == 0 ? "woken" : "?");
}

static void a_queue_wakes_one_or_all(void **state)
{
    (void)state;
    waitq_init(&queue);
    for (int i = 0; i < 3; i++) {
        start(waits_in_queue);
    }
    task_yield();
    waitq_wake_one(&queue);
    task_yield();
    assert_string_equal(world.trace, "woken");
    waitq_wake_all(&queue);
    task_yield();
    assert_string_equal(world.trace, "woken woken woken");
    assert_int_equal(waitq_wait(&queue, world.now + MS), -ETIMEDOUT);
    assert_true(list_empty(&queue.waiters));
}

static void the_request_comes_before_time_passes(void **state)
{
    (void)state;
    request_waiters = 1;
    sleep_ms(5);
    assert_int_equal(world.nexts, 1);
    assert_int_equal(world.arrivals, 1);
    assert_int_equal(world.waits, 1);
}

static void waiting_for_nothing_is_an_error(void **state)
{
    (void)state;
    if (setjmp(world.panic) == 0) {
        task_block(NO_DEADLINE);
    }
    assert_true(world.panicked);
    current->state = TASK_RUNNING;
}

static int32_t forked_tid;

static int64_t fork_again(void)
{
    return sys_clone(CLONE_CHILD_SETTID | 17 /* SIGCHLD */, 0, 0, (uint64_t)&forked_tid, 0);
}

static void a_server_forks_once_and_for_its_request_only(void **state)
{
    (void)state;
    world.interface = UNID_INTERFACE_HTTP;
    assert_int_equal(fork_again(), -ENOSYS); /* nothing is accepted yet */
    request_here = true;
    world.interface = UNID_INTERFACE_FILTER;
    assert_int_equal(fork_again(), -ENOSYS);
    world.interface = UNID_INTERFACE_HTTP;
    assert_int_equal(sys_clone(CLONE_VM | CLONE_VFORK | 17, 0, 0, 0, 0), -ENOSYS);
    assert_int_equal(world.unsupported, 3);
    forked_tid = 0;
    assert_int_equal(fork_again(), 0); /* the child */
    assert_int_equal(forked_tid, current->tid);
    assert_int_equal(world.unsupported, 3);
    assert_int_equal(fork_again(), -ENOSYS); /* a program that it wants to run */
    assert_int_equal(world.unsupported, 4);
}

/* --- futexes ------------------------------------------------------------------------------------------ */

static uint32_t word, word2;

static void waits_on_word(void)
{
    say(sys_futex((uint64_t)&word, FUTEX_WAIT_PRIVATE, 0, NULL, 0, 0) == 0 ? "f" : "?");
}

static void numbers_below_zero_are_refused(void **state)
{
    (void)state;
    uint64_t at = (uint64_t)&word, to = (uint64_t)&word2;
    const struct __kernel_timespec *one = (void *)1, *less = (void *)(uint64_t)UINT32_MAX;
    assert_int_equal(sys_futex(at, FUTEX_CMP_REQUEUE, 1, less, to, word), -EINVAL);
    assert_int_equal(sys_futex(at, FUTEX_REQUEUE, UINT32_MAX, one, to, 0), -EINVAL);
    assert_int_equal(sys_futex(at, FUTEX_CMP_REQUEUE, 1, one, to, word), 0);
}

static void waits_for_bit_2(void)
{
    int64_t r = sys_futex((uint64_t)&word, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, 0, 2);
    say(r == 0 ? "bit" : "?");
}

static void a_futex_wakes_as_many_as_asked(void **state)
{
    (void)state;
    word = 0;
    for (int i = 0; i < 3; i++) {
        start(waits_on_word);
    }
    start(waits_for_bit_2);
    task_yield();
    assert_int_equal(sys_futex((uint64_t)&word2, FUTEX_WAKE_PRIVATE, 9, NULL, 0, 0), 0);
    assert_int_equal(sys_futex((uint64_t)&word, FUTEX_WAKE_BITSET_PRIVATE, 9, NULL, 0, 4), 3);
    task_yield();
    assert_string_equal(world.trace, "f f f");
    assert_int_equal(sys_futex((uint64_t)&word, FUTEX_WAKE_PRIVATE, 9, NULL, 0, 0), 1);
    task_yield();
    assert_string_equal(world.trace, "f f f bit");
}

static void a_futex_looks_at_its_word_and_its_time(void **state)
{
    (void)state;
    struct __kernel_timespec t = {.tv_nsec = (long long)(3 * MS)};
    word = 5;
    assert_int_equal(sys_futex((uint64_t)&word, FUTEX_WAIT, 4, NULL, 0, 0), -EAGAIN);
    assert_int_equal(sys_futex((uint64_t)&word, FUTEX_WAIT, 5, &t, 0, 0), -ETIMEDOUT);
    assert_int_equal(world.now, NS_PER_S + 3 * MS);
    assert_int_equal(sys_futex((uint64_t)&word + 1, FUTEX_WAIT, 5, NULL, 0, 0), -EINVAL);
    assert_int_equal(sys_futex((uint64_t)&word, FUTEX_WAIT_BITSET, 5, NULL, 0, 0), -EINVAL);
    assert_int_equal(sys_futex((uint64_t)&word, 99, 0, NULL, 0, 0), -ENOSYS);
}

static void waiters_are_moved_to_another_futex(void **state)
{
    (void)state;
    word = 0;
    start(waits_on_word);
    start(waits_on_word);
    task_yield();
    const void *move = (void *)9; /* how many, in the place of the time */
    assert_int_equal(sys_futex((uint64_t)&word, FUTEX_CMP_REQUEUE, 1, move, (uint64_t)&word2, 7),
                     -EAGAIN);
    assert_int_equal(sys_futex((uint64_t)&word, FUTEX_CMP_REQUEUE, 1, move, (uint64_t)&word2, 0),
                     2);
    assert_int_equal(sys_futex((uint64_t)&word, FUTEX_WAKE, 9, NULL, 0, 0), 0);
    assert_int_equal(sys_futex((uint64_t)&word2, FUTEX_WAKE, 9, NULL, 0, 0), 1);
    task_yield();
    assert_string_equal(world.trace, "f f");
}

static void locks_pi(void)
{
    say(sys_futex((uint64_t)&word, FUTEX_LOCK_PI, 0, NULL, 0, 0) == 0 ? "got" : "?");
    sys_futex((uint64_t)&word, FUTEX_UNLOCK_PI, 0, NULL, 0, 0);
}

static void a_lock_with_inheritance_changes_hands(void **state)
{
    (void)state;
    word = 0;
    assert_int_equal(sys_futex((uint64_t)&word, FUTEX_LOCK_PI, 0, NULL, 0, 0), 0);
    assert_int_equal(sys_futex((uint64_t)&word, FUTEX_LOCK_PI, 0, NULL, 0, 0), -EDEADLK);
    start(locks_pi);
    task_yield();
    assert_true(word & FUTEX_WAITERS);
    assert_string_equal(world.trace, "");
    assert_int_equal(sys_futex((uint64_t)&word, FUTEX_UNLOCK_PI, 0, NULL, 0, 0), 0);
    task_yield();
    assert_string_equal(world.trace, "got");
    assert_int_equal(word & FUTEX_TID_MASK, 0);
}

static void ends_with_tid(void)
{
    word2 = 1;
    current->clear_child_tid = (uint64_t)&word2;
}

static void the_end_of_a_thread_wakes_its_joiner(void **state)
{
    (void)state;
    start(ends_with_tid);
    word2 = 1;
    assert_int_equal(sys_futex((uint64_t)&word2, FUTEX_WAIT, 1, NULL, 0, 0), 0);
    assert_int_equal(word2, 0);
}

/* --- signals ------------------------------------------------------------------------------------------- */

static void handle(int signal)
{
    uint64_t action[4] = {0x1000, 0, 0, 0};
    assert_int_equal(sys_rt_sigaction(signal, (const struct action *)action, NULL, 8), 0);
}

static void sleeps_long(void)
{
    say(task_block(world.now + 1000 * MS) == -EINTR ? "interrupted" : "slept");
}

static void a_signal_ends_the_wait_of_who_lets_it_in(void **state)
{
    (void)state;
    handle(SIG_A);
    struct task *t = start(sleeps_long), *deaf = start(sleeps_long);
    task_yield();
    deaf->mask = SIG_BIT(SIG_A);
    assert_int_equal(sys_tgkill(1, t->tid, SIG_A), 0);
    assert_int_equal(sys_tgkill(1, deaf->tid, SIG_A), 0);
    assert_int_equal(sys_tgkill(1, 9999, SIG_A), -ESRCH);
    assert_int_equal(sys_tgkill(1, t->tid, 65), -EINVAL);
    task_yield();
    assert_string_equal(world.trace, "interrupted");
    sleep_ms(1000);
    task_yield();
    assert_string_equal(world.trace, "interrupted slept");
}

static void signals_that_are_ignored_leave_no_trace(void **state)
{
    (void)state;
    uint64_t ignore[4] = {1, 0, 0, 0};
    assert_int_equal(sys_rt_sigaction(SIG_B, (const struct action *)ignore, NULL, 8), 0);
    assert_int_equal(signal_raise(SIG_B), 0);
    assert_false(signal_pending());
    handle(SIG_B);
    uint64_t set = SIG_BIT(SIG_B), old;
    assert_int_equal(sys_rt_sigprocmask(0, &set, &old, 8), 0);
    assert_int_equal(signal_raise(SIG_B), 0);
    assert_false(signal_pending()); /* blocked */
    struct signal_info info;
    assert_int_equal(sys_rt_sigtimedwait(&set, &info, NULL, 8), SIG_B);
    assert_int_equal(info.signo, SIG_B);
    struct __kernel_timespec t = {.tv_nsec = (long long)MS};
    assert_int_equal(sys_rt_sigtimedwait(&set, &info, &t, 8), -EAGAIN);
    assert_int_equal(sys_rt_sigaction(9, (const struct action *)ignore, NULL, 8), -EINVAL);
}

/* --- timers ---------------------------------------------------------------------------------------------- */

static struct timer timer_a, timer_b;

static void fire_a(struct timer *t)
{
    say("a");
    if (strlen(world.trace) < 4) {
        timer_arm(t, world.now + 2 * MS);
    }
}

static void fire_b(struct timer *t)
{
    (void)t;
    say("b");
}

static void timers_fire_in_order_and_can_be_armed_again(void **state)
{
    (void)state;
    timer_init(&timer_a, fire_a);
    timer_init(&timer_b, fire_b);
    timer_arm(&timer_b, world.now + 3 * MS);
    timer_arm(&timer_a, world.now + MS);
    assert_int_equal(timers_next(), world.now + MS);
    sleep_ms(10);
    assert_string_equal(world.trace, "a b a");
    timer_arm(&timer_b, world.now + MS);
    timer_disarm(&timer_b);
    assert_int_equal(timers_next(), NO_DEADLINE);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(tasks_run_in_turn),
        T(sleepers_wake_in_the_order_of_their_times),
        T(a_queue_wakes_one_or_all),
        T(the_request_comes_before_time_passes),
        T(waiting_for_nothing_is_an_error),
        T(a_server_forks_once_and_for_its_request_only),
        T(a_futex_wakes_as_many_as_asked),
        T(a_futex_looks_at_its_word_and_its_time),
        T(numbers_below_zero_are_refused),
        T(waiters_are_moved_to_another_futex),
        T(a_lock_with_inheritance_changes_hands),
        T(the_end_of_a_thread_wakes_its_joiner),
        T(a_signal_ends_the_wait_of_who_lets_it_in),
        T(signals_that_are_ignored_leave_no_trace),
        T(timers_fire_in_order_and_can_be_armed_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
