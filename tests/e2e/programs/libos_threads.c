/* libos_threads.c - threads, signals, time and memory as a program uses them: prints what was wrong, and
 * "ok" with the number of checks at the end. The same on Linux and in the library OS. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int bad, good;
#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (what) {                                                                                \
            good++;                                                                                \
        } else {                                                                                   \
            bad++;                                                                                 \
            printf("line %d: %s (errno %d)\n", __LINE__, #what, errno);                            \
        }                                                                                          \
    } while (0)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn, rounds;
static __thread long own = 7;
static volatile int handled;
static char seen[64];
static stack_t stack_seen;
static sigjmp_buf back;

static void *take_turns(void *arg)
{
    own = (long)arg;
    for (int i = 0; i < 1000; i++) {
        pthread_mutex_lock(&lock);
        while (turn != (int)(long)arg) {
            pthread_cond_wait(&changed, &lock);
        }
        rounds++;
        turn = (turn + 1) % 4;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return (void *)(own * 10);
}

static void threads(void)
{
    pthread_t t[4];
    void *result;
    for (long i = 0; i < 4; i++) {
        CHECK(pthread_create(&t[i], NULL, take_turns, (void *)i) == 0);
    }
    for (long i = 0; i < 4; i++) {
        pthread_join(t[i], &result);
        CHECK((long)result == i * 10);
    }
    CHECK(rounds == 4000 && own == 7);
}

static void on_signal(int n, siginfo_t *info, void *context)
{
    (void)context;
    handled++;
    sigaltstack(NULL, &stack_seen);
    snprintf(seen, sizeof seen, "%d %d %d", n, info->si_code, info->si_pid == getpid());
}

static void jump(int n)
{
    siglongjmp(back, n);
}

static void signals(void)
{
    struct sigaction a = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigset_t set, pending;
    volatile double kept = 2.5;
    sigaction(SIGUSR1, &a, NULL);
    raise(SIGUSR1);
    CHECK(handled == 1 && kept == 2.5 && strcmp(seen, "10 -6 1") == 0);
    kill(getpid(), SIGUSR1);
    CHECK(handled == 2 && strcmp(seen, "10 0 1") == 0);
    a.sa_flags |= SA_ONSTACK;
    sigaction(SIGUSR1, &a, NULL);
    CHECK(sigaltstack(&stack, NULL) == 0);
    raise(SIGUSR1);
    CHECK(stack_seen.ss_flags == SS_ONSTACK);
    stack.ss_flags = SS_DISABLE;
    CHECK(sigaltstack(&stack, NULL) == 0);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR1);
    raise(SIGUSR1);
    sigpending(&pending);
    CHECK(handled == 3 && sigismember(&pending, SIGUSR1));
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    CHECK(handled == 4);
    signal(SIGUSR2, jump);
    if (sigsetjmp(back, 1) == 0) {
        raise(SIGUSR2);
        CHECK(!"raise returned");
    }
    free(stack.ss_sp);
}

static void *sleep_long(void *arg)
{
    struct timespec t = {10, 0};
    (void)arg;
    return (void *)(long)(nanosleep(&t, &t) < 0 && errno == EINTR && t.tv_sec < 10);
}

static void *read_one(void *arg)
{
    char c = 0;
    ssize_t n = read(*(int *)arg, &c, 1);
    return (void *)(long)(n < 0 ? -errno : c);
}

/* Until it ends: a signal may come before the thread does what it interrupts. */
static void *interrupt(pthread_t t)
{
    void *result;
    do {
        usleep(20000);
        pthread_kill(t, SIGUSR1);
        usleep(20000);
    } while (pthread_tryjoin_np(t, &result) != 0);
    return result;
}

static void interruptions(void)
{
    struct sigaction a = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    pthread_t t;
    void *result;
    int ends[2];
    CHECK(pipe(ends) == 0);
    sigaction(SIGUSR1, &a, NULL);
    pthread_create(&t, NULL, sleep_long, NULL);
    result = interrupt(t);
    CHECK((long)result == 1);
    pthread_create(&t, NULL, read_one, ends);
    result = interrupt(t);
    CHECK((long)result == -EINTR);
    a.sa_flags |= SA_RESTART;
    sigaction(SIGUSR1, &a, NULL);
    pthread_create(&t, NULL, read_one, ends);
    usleep(20000);
    pthread_kill(t, SIGUSR1);
    usleep(20000);
    CHECK(write(ends[1], "Z", 1) == 1);
    pthread_join(t, &result);
    CHECK((long)result == 'Z');
}

static void times(void)
{
    struct itimerval every = {{0, 2000}, {0, 2000}}, none = {{0, 0}, {0, 0}};
    struct sigaction a = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    struct timespec before, after, until;
    int start = handled;
    sigaction(SIGALRM, &a, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    while (handled < start + 3) {
        pause();
    }
    setitimer(ITIMER_REAL, &none, NULL);
    clock_gettime(CLOCK_MONOTONIC, &before);
    usleep(5000);
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec >= 5000000);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    until.tv_sec -= until.tv_nsec > 3000000;
    pthread_mutex_lock(&lock);
    CHECK(pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT);
    pthread_mutex_unlock(&lock);
    alarm(100);
    unsigned left = alarm(0);
    CHECK(left > 0 && left <= 100);
}

/* A timer of the CPU's time stands still while the program waits; one of the wall clock has its time of day. */
static void other_clocks(void)
{
    struct itimerval used = {{0, 0}, {0, 300000}};
    struct sigaction a = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    struct itimerspec at = {0};
    struct timespec cpu;
    timer_t timer;
    int start = handled;
    sigaction(SIGPROF, &a, NULL);
    setitimer(ITIMER_PROF, &used, NULL);
    usleep(600000);
    CHECK(handled == start);
    while (handled == start) {
        sched_yield();
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    CHECK(cpu.tv_sec > 0 || cpu.tv_nsec >= 300000000);
    start = handled;
    CHECK(timer_create(CLOCK_REALTIME, &event, &timer) == 0);
    clock_gettime(CLOCK_REALTIME, &at.it_value);
    at.it_value.tv_sec++;
    CHECK(timer_settime(timer, TIMER_ABSTIME, &at, NULL) == 0);
    while (handled == start) {
        usleep(1000);
    }
    CHECK(timer_delete(timer) == 0);
    CHECK(timer_create(12345, &event, &timer) == -1 && errno == EINVAL);
}

static void memory(void)
{
    char *hint = (char *)0xc000000000;
    char *p = mmap(hint, 64ul << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(p == hint);
    CHECK(mprotect(p + (1 << 30), 1 << 20, PROT_READ | PROT_WRITE) == 0);
    memset(p + (1 << 30), 1, 1 << 20);
    CHECK(munmap(p, 64ul << 30) == 0);
    p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p[5000] = 1;
    p = mremap(p, 8192, 1 << 20, MREMAP_MAYMOVE);
    CHECK(p != MAP_FAILED && p[5000] == 1 && p[9000] == 0);
    CHECK(madvise(p, 1 << 20, MADV_DONTNEED) == 0 && p[5000] == 0);
    munmap(p, 1 << 20);
    int zeros = 0;
    for (int i = 0; i < 1000; i++) {
        p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        zeros += p != MAP_FAILED && p[100] == 0 && p[1048000] == 0;
        memset(p, 1, 1 << 20);
        munmap(p, 1 << 20);
    }
    CHECK(zeros == 1000);
}

/* A value in a vector register, whole where the CPU has AVX, over the system call `nr`. */
static int kept_over(unsigned char value, long nr, long first, long second)
{
    unsigned char before[32], after[32];
    memset(before, value, sizeof before);
    memset(after, 0, sizeof after);
    if (__builtin_cpu_supports("avx")) {
        __asm__ volatile("vmovdqu %[before], %%ymm9; syscall; vmovdqu %%ymm9, %[after]; vzeroupper"
                         : [after] "=m"(after), "+a"(nr)
                         : [before] "m"(before), "D"(first), "S"(second)
                         : "rcx", "r11", "xmm9", "memory");
    } else {
        __asm__ volatile("movdqu %[before], %%xmm9; syscall; movdqu %%xmm9, %[after]"
                         : [after] "=m"(after), "+a"(nr)
                         : [before] "m"(before), "D"(first), "S"(second)
                         : "rcx", "r11", "xmm9", "memory");
        memcpy(after + 16, after, 16);
    }
    return memcmp(before, after, sizeof before) == 0;
}

static void clear_vector(int signal)
{
    if (__builtin_cpu_supports("avx")) {
        __asm__ volatile("vpxor %%xmm9, %%xmm9, %%xmm9" : : : "xmm9");
    } else {
        __asm__ volatile("pxor %%xmm9, %%xmm9" : : : "xmm9");
    }
}

static void *yields(void *arg)
{
    long kept = 0;
    for (int i = 0; i < 100; i++) {
        kept += kept_over((unsigned char)(long)arg, SYS_sched_yield, 0, 0);
    }
    return (void *)kept;
}

static void vectors(void)
{
    pthread_t t[2];
    void *kept;
    struct sigaction action = {.sa_handler = clear_vector};
    for (long i = 0; i < 2; i++) {
        CHECK(pthread_create(&t[i], NULL, yields, (void *)(0x11 * (i + 1))) == 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_join(t[i], &kept) == 0 && (long)kept == 100);
    }
    CHECK(sigaction(SIGUSR2, &action, NULL) == 0);
    CHECK(kept_over(0x77, SYS_tkill, gettid(), SIGUSR2));
}

int main(void)
{
    char line[16];
    if (!fgets(line, sizeof line, stdin)) {
        return 1;
    }
    threads();
    signals();
    interruptions();
    times();
    other_clocks();
    memory();
    vectors();
    printf("%s: %d checks\n", bad ? "bad" : "ok", good + bad);
    return 0;
}
