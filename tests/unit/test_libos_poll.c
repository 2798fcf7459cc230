/* test_libos_poll.c - pipes, eventfd, timerfd, and waiting for them: poll, select, epoll. */
#include "libos_fake.h"

#include "fs/ring.h"
#include <asm/ioctls.h>
#include <asm/signal.h>
#include <linux/eventpoll.h>
#include <linux/signalfd.h>
#include <linux/time.h>
#include <linux/uio.h>

#include <string.h>

#define MS 1000000ull

static int ends[2]; /* of a pipe, for the hooks */
static int event_fd, epoll_fd;

static int setup(void **state)
{
    (void)state;
    fake_reset();
    assert_int_equal(sys_pipe2(ends, 0), 0);
    return 0;
}

static void write_later(void)
{
    fake.on_block = NULL;
    assert_int_equal(sys_write(ends[1], "later", 5), 5);
}

static void close_writer_later(void)
{
    fake.on_block = NULL;
    assert_int_equal(sys_close(ends[1]), 0);
}

static void read_later(void)
{
    static char buf[RING_SIZE];
    fake.on_block = NULL;
    assert_true(sys_read(ends[0], buf, sizeof(buf)) > 0);
}

static void pipes_carry_bytes(void **state)
{
    (void)state;
    char buf[16];
    int n;
    assert_int_equal(sys_write(ends[1], "hello", 5), 5);
    assert_int_equal(sys_ioctl(ends[0], FIONREAD, (uintptr_t)&n), 0);
    assert_int_equal(n, 5);
    assert_int_equal(sys_read(ends[0], buf, 2), 2);
    assert_int_equal(sys_read(ends[0], buf, 16), 3);
    fake.on_block = write_later;
    assert_int_equal(sys_read(ends[0], buf, 16), 5);
    assert_memory_equal(buf, "later", 5);
    fake.on_block = close_writer_later;
    assert_int_equal(sys_read(ends[0], buf, 16), 0);
    assert_int_equal(sys_read(ends[0], buf, 16), 0);
    assert_int_equal(fake.blocked, 2);
    assert_int_equal(sys_lseek(ends[0], 0, 0), -ESPIPE);
    assert_int_equal(sys_pipe2(ends, 1), -EINVAL);
    assert_int_equal(sys_pipe2(NULL, 0), -EFAULT);
}

static void a_full_pipe_blocks_or_says_so(void **state)
{
    (void)state;
    static char block[RING_SIZE + 10];
    memset(block, 'x', sizeof(block));
    fake.on_block = read_later;
    assert_int_equal(sys_write(ends[1], block, sizeof(block)), sizeof(block)); /* waits once */
    assert_int_equal(fake.blocked, 1);
    assert_int_equal(sys_fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(sys_write(ends[1], block, sizeof(block)), RING_SIZE - 10);
    assert_int_equal(sys_write(ends[1], block, 1), -EAGAIN);
    assert_int_equal(sys_read(ends[0], block, 100), 100);
    assert_int_equal(sys_write(ends[1], block, 4096), -EAGAIN); /* whole or not at all */
    assert_int_equal(sys_write(ends[1], block, 4097), 100);
    assert_int_equal(sys_fcntl(ends[0], F_GETPIPE_SZ, 0), RING_SIZE);
}

static void a_pipe_without_reader_kills(void **state)
{
    (void)state;
    assert_int_equal(sys_close(ends[0]), 0);
    assert_int_equal(sys_write(ends[1], "x", 1), -EPIPE);
    assert_int_equal(fake.signal, SIGPIPE);
}

static void open_fifo_writer(void)
{
    fake.on_block = NULL;
    int fd = (int)sys_open("/tmp/fifo", O_WRONLY, 0);
    assert_true(fd >= 0);
    assert_int_equal(sys_write(fd, "f", 1), 1);
    assert_int_equal(sys_close(fd), 0);
}

static void fifos_wait_for_the_other_side(void **state)
{
    (void)state;
    char buf[4];
    assert_int_equal(sys_mknod("/tmp/fifo", S_IFIFO | 0600, 0), 0);
    assert_int_equal(sys_open("/tmp/fifo", O_WRONLY | O_NONBLOCK, 0), -ENXIO);
    fake.on_block = open_fifo_writer;
    int fd = (int)sys_open("/tmp/fifo", O_RDONLY, 0);
    assert_true(fd >= 0);
    assert_int_equal(sys_read(fd, buf, 4), 1);
    assert_int_equal(sys_read(fd, buf, 4), 0);
    assert_int_equal(sys_unlink("/tmp/fifo"), 0);
}

static void poll_says_what_holds(void **state)
{
    (void)state;
    struct pollfd fds[3] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}, {99, POLLIN, 0}};
    assert_int_equal(sys_poll(fds, 3, -1), 2);
    assert_int_equal(fds[0].revents, 0);
    assert_int_equal(fds[1].revents, POLLOUT);
    assert_int_equal(fds[2].revents, POLLNVAL);
    fds[2].fd = -1;
    assert_int_equal(sys_poll(fds + 2, 1, 0), 0);
    assert_int_equal(sys_close(ends[1]), 0);
    assert_int_equal(sys_poll(fds, 1, -1), 1);
    assert_int_equal(fds[0].revents, POLLHUP);
    assert_int_equal(sys_poll(NULL, 1, 0), -EFAULT);
    assert_int_equal(sys_poll(fds, FD_MAX + 1, 0), -EINVAL);
    int file = (int)sys_open("/bin/tool", O_RDONLY, 0);
    struct pollfd regular = {file, POLLIN | POLLOUT, 0};
    assert_int_equal(sys_poll(&regular, 1, -1), 1);
    assert_int_equal(regular.revents, POLLIN | POLLOUT);
}

static void poll_waits_for_the_first(void **state)
{
    (void)state;
    struct pollfd fds[20];
    for (int n = 0; n < 20; n++) { /* more than fit without memory */
        int pair[2];
        assert_int_equal(sys_pipe2(pair, 0), 0);
        fds[n] = (struct pollfd){pair[0], POLLIN, 0};
    }
    fds[17].fd = ends[0];
    fake.on_block = write_later;
    assert_int_equal(sys_poll(fds, 20, 1000), 1);
    assert_int_equal(fds[17].revents, POLLIN);
    uint64_t before = fake.now_ns;
    assert_int_equal(sys_poll(fds, 17, 250), 0); /* nobody comes */
    assert_int_equal(fake.now_ns - before, 250 * MS);
    struct __kernel_timespec t = {1, 0};
    fake.on_block = NULL;
    assert_int_equal(sys_ppoll(fds, 20, &t, NULL, 0), 1);
    assert_int_equal(t.tv_sec, 1);
    t.tv_nsec = -1;
    assert_int_equal(sys_ppoll(fds, 20, &t, NULL, 0), -EINVAL);
}

static void select_works_on_bits(void **state)
{
    (void)state;
    uint64_t in[2] = {1ull << ends[0], 0}, out[2] = {1ull << ends[1], 0};
    assert_int_equal(sys_select(ends[1] + 1, in, out, NULL, NULL), 1);
    assert_int_equal(in[0], 0);
    assert_int_equal(out[0], 1ull << ends[1]);
    in[0] = 1ull << ends[0];
    struct __kernel_old_timeval t = {0, 100000};
    assert_int_equal(sys_select(ends[0] + 1, in, NULL, NULL, &t), 0);
    assert_int_equal(in[0], 0);
    assert_int_equal(t.tv_usec, 0);
    in[0] = 1ull << ends[0];
    fake.on_block = write_later;
    assert_int_equal(sys_select(ends[0] + 1, in, NULL, NULL, NULL), 1);
    assert_int_equal(in[0], 1ull << ends[0]);
    in[0] = 1ull << 60;
    assert_int_equal(sys_select(64, in, NULL, NULL, NULL), -EBADF);
    assert_int_equal(sys_select(-1, NULL, NULL, NULL, NULL), -EINVAL);
    struct __kernel_timespec ts = {0, 1000};
    assert_int_equal(sys_pselect6(0, NULL, NULL, NULL, &ts, NULL), 0);
}

static void eventfds_count(void **state)
{
    (void)state;
    uint64_t v = 3;
    int fd = (int)sys_eventfd2(2, O_NONBLOCK), semaphore = (int)sys_eventfd2(2, 1 | O_NONBLOCK);
    assert_int_equal(sys_write(fd, &v, 8), 8);
    assert_int_equal(sys_read(fd, &v, 8), 8);
    assert_int_equal(v, 5);
    assert_int_equal(sys_read(fd, &v, 8), -EAGAIN);
    assert_int_equal(sys_read(fd, &v, 4), -EINVAL);
    assert_int_equal(sys_read(semaphore, &v, 8), 8);
    assert_int_equal(v, 1);
    assert_int_equal(sys_read(semaphore, &v, 8), 8);
    assert_int_equal(sys_read(semaphore, &v, 8), -EAGAIN);
    v = UINT64_MAX;
    assert_int_equal(sys_write(fd, &v, 8), -EINVAL);
    v = UINT64_MAX - 1;
    assert_int_equal(sys_write(fd, &v, 8), 8);
    struct pollfd p = {fd, POLLIN | POLLOUT, 0};
    assert_int_equal(sys_poll(&p, 1, 0), 1);
    assert_int_equal(p.revents, POLLIN);
    v = 1;
    assert_int_equal(sys_write(fd, &v, 8), -EAGAIN);
    assert_int_equal(sys_eventfd2(0, 2), -EINVAL);
}

static void timerfds_go_off(void **state)
{
    (void)state;
    uint64_t times;
    int fd = (int)sys_timerfd_create(CLOCK_MONOTONIC, 0);
    struct __kernel_timespec t[2] = {{0, 10 * MS}, {0, 25 * MS}}, left[2];
    assert_int_equal(sys_timerfd_settime(fd, 0, t, NULL), 0);
    fake.now_ns += 5 * MS;
    assert_int_equal(sys_timerfd_gettime(fd, left), 0);
    assert_int_equal(left[1].tv_nsec, 20 * MS);
    struct pollfd p = {fd, POLLIN, 0};
    assert_int_equal(sys_poll(&p, 1, 0), 0);
    uint64_t before = fake.now_ns;
    assert_int_equal(sys_poll(&p, 1, -1), 1); /* its time is the deadline */
    assert_int_equal(fake.now_ns - before, 20 * MS);
    fake.now_ns += 31 * MS;
    assert_int_equal(sys_read(fd, &times, 8), 8);
    assert_int_equal(times, 4);
    assert_int_equal(sys_read(fd, &times, 8), 8); /* blocks until the next */
    assert_int_equal(times, 1);
    t[1].tv_nsec = 0;
    assert_int_equal(sys_timerfd_settime(fd, 0, t, left), 0);
    assert_int_equal(sys_poll(&p, 1, 100), 0);
    int wall = (int)sys_timerfd_create(CLOCK_REALTIME, O_NONBLOCK);
    struct __kernel_timespec at[2] = {{0, 0}, {1700000000 + 10, 0}};
    assert_int_equal(sys_timerfd_settime(wall, 1, at, NULL), 0);
    assert_int_equal(sys_read(wall, &times, 8), -EAGAIN);
    fake.now_ns = 10ull * 1000 * MS;
    assert_int_equal(sys_read(wall, &times, 8), 8);
    assert_int_equal(sys_timerfd_create(77, 0), -EINVAL);
    assert_int_equal(sys_timerfd_gettime(ends[0], left), -EINVAL);
}

static void watch(int fd, uint32_t events)
{
    struct epoll_event e = {.events = events, .data = (uint64_t)fd};
    assert_int_equal(sys_epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e), 0);
}

static void epoll_tells_levels(void **state)
{
    (void)state;
    struct epoll_event got[4];
    epoll_fd = (int)sys_epoll_create1(O_CLOEXEC);
    watch(ends[0], EPOLLIN);
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, 0), 0);
    fake.on_block = write_later;
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, -1), 1);
    assert_int_equal(got[0].data, ends[0]);
    assert_int_equal(got[0].events, EPOLLIN);
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, -1), 1); /* still so */
    struct pollfd p = {epoll_fd, POLLIN, 0};
    assert_int_equal(sys_poll(&p, 1, -1), 1);
    char buf[8];
    assert_int_equal(sys_read(ends[0], buf, 8), 5);
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, 20), 0);
    fake.on_block = write_later;
    assert_int_equal(sys_poll(&p, 1, -1), 1); /* wakes through the set */
    watch(ends[1], EPOLLOUT);
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 1, 0), 1);
    uint64_t first = got[0].data;
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 1, 0), 1);
    assert_true(got[0].data != first); /* in turn */
}

static void epoll_tells_edges_once(void **state)
{
    (void)state;
    struct epoll_event got[4];
    char buf[4];
    epoll_fd = (int)sys_epoll_create1(0);
    watch(ends[0], EPOLLIN | EPOLLET);
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, 0), 0);
    write_later();
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, 0), 1);
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, 0), 0);
    write_later(); /* more, though not all was read */
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, 0), 1);
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, 0), 0);
    while (sys_fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0 && sys_read(ends[0], buf, 4) > 0) {
    }
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, 10), 0);
    fake.on_block = write_later;
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, -1), 1);
}

static void one_shot_is_one(void **state)
{
    (void)state;
    struct epoll_event got[4], e = {.events = EPOLLIN | EPOLLONESHOT, .data = 7};
    epoll_fd = (int)sys_epoll_create1(0);
    watch(ends[0], EPOLLIN | EPOLLONESHOT);
    write_later();
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, 0), 1);
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, 10), 0);
    assert_int_equal(sys_epoll_ctl(epoll_fd, EPOLL_CTL_MOD, ends[0], &e), 0);
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, 0), 1);
    assert_int_equal(got[0].data, 7);
}

static void add_later(void)
{
    fake.on_block = NULL;
    watch(event_fd, EPOLLIN);
}

static void close_watched_later(void)
{
    fake.on_block = NULL;
    assert_int_equal(sys_close(ends[0]), 0);
    assert_int_equal(sys_close(ends[1]), 0);
}

static void sets_change_while_waited_for(void **state)
{
    (void)state;
    struct epoll_event got[4];
    epoll_fd = (int)sys_epoll_create1(0);
    event_fd = (int)sys_eventfd2(1, 0);
    watch(ends[0], EPOLLIN);
    fake.on_block = add_later;
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, -1), 1);
    assert_int_equal(got[0].data, event_fd);
    assert_int_equal(sys_epoll_ctl(epoll_fd, EPOLL_CTL_DEL, event_fd, NULL), 0);
    fake.on_block = close_watched_later; /* leaves the set, and no trace in a queue */
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, 10), 0);
    assert_int_equal(sys_epoll_wait(epoll_fd, got, 4, 10), 0);
}

static void sets_watch_sets_five_deep(void **state)
{
    (void)state;
    enum { DEPTH = 5 };
    struct epoll_event e = {.events = EPOLLIN};
    int inner = ends[0];
    for (int i = 0; i < DEPTH; i++) {
        int outer = (int)sys_epoll_create1(0);
        assert_int_equal(sys_epoll_ctl(outer, EPOLL_CTL_ADD, inner, &e), 0);
        inner = outer;
    }
    int outermost = (int)sys_epoll_create1(0);
    assert_int_equal(sys_epoll_ctl(outermost, EPOLL_CTL_ADD, inner, &e), -ELOOP);
    assert_int_equal(sys_epoll_wait(inner, &e, 1, 0), 0);
    assert_int_equal(sys_write(ends[1], "x", 1), 1);
    assert_int_equal(sys_epoll_wait(inner, &e, 1, 0), 1);
}

static void epoll_refuses_what_makes_no_sense(void **state)
{
    (void)state;
    struct epoll_event e = {.events = EPOLLIN};
    epoll_fd = (int)sys_epoll_create1(0);
    int outer = (int)sys_epoll_create1(0), file = (int)sys_open("/bin/tool", O_RDONLY, 0);
    assert_int_equal(sys_epoll_ctl(epoll_fd, EPOLL_CTL_ADD, file, &e), -EPERM);
    assert_int_equal(sys_epoll_ctl(epoll_fd, EPOLL_CTL_ADD, epoll_fd, &e), -EINVAL);
    assert_int_equal(sys_epoll_ctl(file, EPOLL_CTL_ADD, ends[0], &e), -EINVAL);
    assert_int_equal(sys_epoll_ctl(epoll_fd, EPOLL_CTL_MOD, ends[0], &e), -ENOENT);
    assert_int_equal(sys_epoll_ctl(epoll_fd, EPOLL_CTL_DEL, ends[0], NULL), -ENOENT);
    assert_int_equal(sys_epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ends[0], NULL), -EFAULT);
    watch(ends[0], EPOLLIN);
    assert_int_equal(sys_epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ends[0], &e), -EEXIST);
    assert_int_equal(sys_epoll_ctl(outer, EPOLL_CTL_ADD, epoll_fd, &e), 0);
    assert_int_equal(sys_epoll_ctl(epoll_fd, EPOLL_CTL_ADD, outer, &e), -ELOOP);
    assert_int_equal(sys_epoll_wait(epoll_fd, &e, 0, 0), -EINVAL);
    assert_int_equal(sys_epoll_wait(file, &e, 1, 0), -EINVAL);
    assert_int_equal(sys_epoll_wait(99, &e, 1, 0), -EBADF);
    assert_int_equal(sys_epoll_create1(1), -EINVAL);
    assert_int_equal(sys_close(epoll_fd), 0);
    assert_int_equal(sys_close(outer), 0);
}

static void splice_moves_and_tee_copies(void **state)
{
    (void)state;
    char buf[16] = "";
    int more[2], file = (int)sys_open("/data/sub/deep", O_RDONLY, 0);
    int out = (int)sys_open("/tmp/spliced", O_RDWR | O_CREAT | O_TRUNC, 0644);
    int64_t from = 1, to = 3;
    assert_int_equal(sys_pipe2(more, O_NONBLOCK), 0);
    assert_int_equal(sys_splice(file, &from, ends[1], NULL, 100, 0), 4);
    assert_int_equal(from, 5);
    assert_int_equal(sys_lseek(file, 0, 1), 0);
    assert_int_equal(sys_splice(file, NULL, ends[1], NULL, 3, 0), 3);
    assert_int_equal(sys_lseek(file, 0, 1), 3);
    assert_int_equal(sys_tee(ends[0], more[1], 5, 0), 5);
    assert_int_equal(sys_read(more[0], buf, sizeof(buf)), 5);
    assert_memory_equal(buf, "eep\nd", 5);
    assert_int_equal(sys_splice(ends[0], NULL, more[1], NULL, 2, 0), 2);
    assert_int_equal(sys_splice(ends[0], NULL, out, &to, 100, 0), 5);
    assert_int_equal(to, 8);
    assert_int_equal(sys_pread64(out, buf, sizeof(buf), 0), 8);
    assert_memory_equal(buf, "\0\0\0p\ndee", 8);
    assert_int_equal(sys_read(more[0], buf, sizeof(buf)), 2);
    char digits[] = "12345";
    struct iovec iov[2] = {{digits, 2}, {digits + 2, 3}};
    assert_int_equal(sys_vmsplice(ends[1], iov, 2, 0), 5);
    assert_int_equal(sys_read(ends[0], buf, sizeof(buf)), 5);
    assert_memory_equal(buf, "12345", 5);
}

static void splice_waits_and_refuses_as_pipes_do(void **state)
{
    (void)state;
    static char full[RING_SIZE];
    int64_t at = 0;
    int file = (int)sys_open("/data/big", O_RDONLY, 0),
        out = (int)sys_open("/dev/null", O_WRONLY, 0);
    int append = (int)sys_open("/tmp/append", O_WRONLY | O_CREAT | O_APPEND, 0644);
    assert_int_equal(sys_splice(ends[0], NULL, out, NULL, 1, 2), -EAGAIN); /* SPLICE_F_NONBLOCK */
    fake.on_block = write_later;
    assert_int_equal(sys_splice(ends[0], NULL, out, NULL, 100, 0), 5);
    assert_int_equal(sys_write(ends[1], full, sizeof(full)), sizeof(full));
    assert_int_equal(sys_splice(file, NULL, ends[1], NULL, 1, 2), -EAGAIN);
    fake.on_block = read_later;
    assert_int_equal(sys_splice(file, NULL, ends[1], NULL, 8, 0), 8);
    assert_int_equal(sys_splice(file, NULL, out, NULL, 1, 0), -EINVAL);
    assert_int_equal(sys_splice(ends[0], NULL, ends[1], NULL, 1, 0), -EINVAL);
    assert_int_equal(sys_splice(ends[0], NULL, append, NULL, 1, 0), -EINVAL);
    assert_int_equal(sys_splice(ends[0], &at, out, NULL, 1, 0), -ESPIPE);
    assert_int_equal(sys_splice(ends[1], NULL, out, NULL, 1, 0), -EBADF);
    assert_int_equal(sys_splice(ends[0], NULL, out, NULL, 1, 16), -EINVAL);
    assert_int_equal(sys_tee(ends[0], out, 1, 0), -EINVAL);
    assert_int_equal(sys_vmsplice(file, NULL, 0, 0), -EBADF);
    assert_int_equal(sys_splice(ends[0], NULL, out, NULL, 100, 0), 8);
    assert_int_equal(sys_close(ends[1]), 0);
    assert_int_equal(sys_splice(ends[0], NULL, out, NULL, 100, 0), 0);
}

static void signal_later(void)
{
    fake.on_block = NULL;
    fake.pending = 1 << (SIGUSR1 - 1) | 1 << (SIGTERM - 1);
    readiness_changed(signals_ready());
}

static void signals_are_read(void **state)
{
    (void)state;
    struct signalfd_siginfo info[3];
    uint64_t mask = 1 << (SIGUSR1 - 1) | 1 << (SIGUSR2 - 1);
    int fd = (int)sys_signalfd4(-1, &mask, 8, O_NONBLOCK);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(sys_read(fd, info, sizeof(info)), -EAGAIN);
    assert_int_equal(sys_read(fd, info, 100), -EINVAL);
    assert_int_equal(sys_fcntl(fd, F_SETFL, 0), 0);
    fake.on_block = signal_later;
    assert_int_equal(sys_poll(&p, 1, -1), 1);
    assert_int_equal(sys_read(fd, info, sizeof(info)), sizeof(info[0]));
    assert_int_equal(info[0].ssi_signo, SIGUSR1);
    assert_int_equal(info[0].ssi_pid, 1);
    assert_int_equal(info[0].ssi_int, 5);
    assert_int_equal(info[0].ssi_ptr, 0x700000005);
    mask = 1 << (SIGTERM - 1);
    assert_int_equal(sys_signalfd4(fd, &mask, 8, 0), fd);
    assert_int_equal(sys_read(fd, info, sizeof(info)), sizeof(info[0]));
    assert_int_equal(info[0].ssi_signo, SIGTERM);
    assert_int_equal(sys_signalfd4(ends[0], &mask, 8, 0), -EINVAL);
    assert_int_equal(sys_signalfd4(-1, &mask, 4, 0), -EINVAL);
    assert_int_equal(sys_write(fd, info, sizeof(info)), -EINVAL);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(pipes_carry_bytes),
        T(a_full_pipe_blocks_or_says_so),
        T(a_pipe_without_reader_kills),
        T(fifos_wait_for_the_other_side),
        T(poll_says_what_holds),
        T(poll_waits_for_the_first),
        T(select_works_on_bits),
        T(eventfds_count),
        T(timerfds_go_off),
        T(signals_are_read),
        T(splice_moves_and_tee_copies),
        T(splice_waits_and_refuses_as_pipes_do),
        T(epoll_tells_levels),
        T(epoll_tells_edges_once),
        T(one_shot_is_one),
        T(sets_change_while_waited_for),
        T(sets_watch_sets_five_deep),
        T(epoll_refuses_what_makes_no_sense),
    };
    return cmocka_run_group_tests(tests, fake_group_setup, NULL);
}
