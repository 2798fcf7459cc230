/* test_libos_lock.c - locks on files: who keeps whom out, what is left of a range, and who waits. (That
 * numbers are the host's is compared in test_libos_fs_model.c.) */
#include "libos_fake.h"

#include <linux/fs.h>
#include <string.h>

static int first, second; /* two open file descriptions of one file */

static int setup(void **state)
{
    (void)state;
    fake_reset();
    first = (int)sys_open("/tmp/lock", O_RDWR | O_CREAT, 0644);
    second = (int)sys_open("/tmp/lock", O_RDWR, 0);
    return first >= 0 && second >= 0 ? 0 : -1;
}

static int64_t record(int fd, int command, int type, int64_t start, int64_t len)
{
    struct flock l = {.l_type = (short)type, .l_start = start, .l_len = len};
    return sys_fcntl(fd, command, (uintptr_t)&l);
}

/* What is in the way of a write lock on all of the file from `start` on. */
static struct flock in_the_way(int fd, int command, int64_t start)
{
    struct flock l = {.l_type = F_WRLCK, .l_start = start};
    assert_int_equal(sys_fcntl(fd, command, (uintptr_t)&l), 0);
    return l;
}

static void assert_lock(struct flock l, int type, int64_t start, int64_t len, int pid)
{
    assert_int_equal(l.l_type, type);
    assert_int_equal(l.l_start, start);
    assert_int_equal(l.l_len, len);
    assert_int_equal(l.l_pid, pid);
}

static void flock_is_had_by_one_open_file(void **state)
{
    (void)state;
    int copy = (int)sys_dup(first);
    assert_int_equal(sys_flock(first, LOCK_EX), 0);
    assert_int_equal(sys_flock(first, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(sys_flock(copy, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(sys_flock(second, LOCK_EX | LOCK_NB), -EWOULDBLOCK);
    assert_int_equal(sys_flock(second, LOCK_SH | LOCK_NB), -EWOULDBLOCK);
    assert_int_equal(sys_flock(copy, LOCK_SH), 0);
    assert_int_equal(sys_flock(second, LOCK_SH | LOCK_NB), 0);
    assert_int_equal(sys_flock(second, LOCK_EX | LOCK_NB),
                     -EWOULDBLOCK); /* and loses what it had */
    assert_int_equal(sys_flock(first, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(sys_close(first), 0); /* there is the copy */
    assert_int_equal(sys_flock(second, LOCK_SH | LOCK_NB), -EWOULDBLOCK);
    assert_int_equal(sys_close(copy), 0);
    assert_int_equal(sys_flock(second, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(sys_flock(second, LOCK_NB), -EINVAL);
    assert_int_equal(sys_flock(99, LOCK_EX), -EBADF);
    assert_int_equal(record(second, F_SETLK, F_WRLCK, 0, 0), 0); /* these know nothing of those */
}

static void record_locks_of_the_process_do_not_meet(void **state)
{
    (void)state;
    assert_int_equal(record(first, F_SETLK, F_WRLCK, 0, 10), 0);
    assert_int_equal(record(second, F_SETLK, F_WRLCK, 5, 10), 0);
    assert_int_equal(in_the_way(second, F_GETLK, 0).l_type, F_UNLCK);
    assert_int_equal(record(second, F_OFD_SETLK, F_RDLCK, 12, 1), -EAGAIN);
    assert_lock(in_the_way(second, F_OFD_GETLK, 0), F_WRLCK, 0, 15, 1);
    assert_int_equal(sys_close((int)sys_open("/tmp/lock", O_RDONLY, 0)), 0); /* gives all up */
    assert_int_equal(record(second, F_OFD_SETLK, F_WRLCK, 12, 1), 0);
    assert_int_equal(record(second, F_SETLK, F_RDLCK, 0, 0), -EAGAIN); /* the process is another */
    assert_lock(in_the_way(first, F_GETLK, 0), F_WRLCK, 12, 1, -1);
    int reader = (int)sys_open("/tmp/lock", O_RDONLY, 0);
    assert_int_equal(record(reader, F_OFD_SETLK, F_WRLCK, 0, 1), -EBADF);
    assert_int_equal(record(reader, F_OFD_SETLK, F_RDLCK, 0, 1), 0);
}

static void ranges_are_split_and_joined(void **state)
{
    (void)state;
    assert_int_equal(record(first, F_OFD_SETLK, F_WRLCK, 100, 100), 0);
    assert_int_equal(record(first, F_OFD_SETLK, F_RDLCK, 120, 20), 0);
    assert_int_equal(record(first, F_OFD_SETLK, F_UNLCK, 180, 5), 0);
    assert_lock(in_the_way(second, F_OFD_GETLK, 0), F_WRLCK, 100, 20, -1);
    assert_lock(in_the_way(second, F_OFD_GETLK, 120), F_RDLCK, 120, 20, -1);
    assert_lock(in_the_way(second, F_OFD_GETLK, 140), F_WRLCK, 140, 40, -1);
    assert_lock(in_the_way(second, F_OFD_GETLK, 181), F_WRLCK, 185, 15, -1);
    assert_int_equal(record(second, F_OFD_SETLK, F_WRLCK, 180, 5), 0);
    assert_int_equal(record(second, F_OFD_SETLK, F_RDLCK, 119, 2), -EAGAIN);
    assert_int_equal(record(second, F_OFD_SETLK, F_UNLCK, 0, 0), 0);
    assert_int_equal(record(first, F_OFD_SETLK, F_WRLCK, 180, 5), 0);
    assert_int_equal(record(first, F_OFD_SETLK, F_WRLCK, 110, 40), 0);
    assert_lock(in_the_way(second, F_OFD_GETLK, 0), F_WRLCK, 100, 100, -1);
    assert_int_equal(record(first, F_OFD_SETLK, F_WRLCK, 200, 0), 0);
    assert_lock(in_the_way(second, F_OFD_GETLK, 0), F_WRLCK, 100, 0, -1);
    assert_int_equal(record(first, F_OFD_SETLK, F_UNLCK, 0, 150), 0);
    assert_lock(in_the_way(second, F_OFD_GETLK, 0), F_WRLCK, 150, 0, -1);
}

static void unlock_first(void)
{
    assert_int_equal(sys_flock(first, LOCK_UN), 0);
    assert_int_equal(record(first, F_OFD_SETLK, F_UNLCK, 0, 0), 0);
}

static void close_first(void)
{
    assert_int_equal(sys_close(first), 0);
}

static void close_second(void)
{
    assert_int_equal(sys_close(second), 0);
    unlock_first();
}

static void a_lock_is_waited_for(void **state)
{
    (void)state;
    assert_int_equal(sys_flock(first, LOCK_EX), 0);
    fake.on_block = unlock_first;
    assert_int_equal(sys_flock(second, LOCK_EX), 0);
    assert_int_equal(fake.blocked, 1);
    assert_int_equal(sys_flock(second, LOCK_UN), 0);
    assert_int_equal(record(first, F_OFD_SETLK, F_WRLCK, 0, 1), 0);
    fake.on_block = close_first;
    assert_int_equal(record(second, F_SETLKW, F_RDLCK, 0, 0), 0);
    assert_int_equal(fake.blocked, 2);
}

static void who_closes_while_he_waits_has_no_lock(void **state)
{
    (void)state;
    assert_int_equal(record(first, F_OFD_SETLK, F_WRLCK, 0, 1), 0);
    fake.on_block = close_second;
    assert_int_equal(record(second, F_SETLKW, F_WRLCK, 0, 0), 0);
    assert_int_equal(in_the_way(first, F_OFD_GETLK, 0).l_type, F_UNLCK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(flock_is_had_by_one_open_file, setup),
        cmocka_unit_test_setup(record_locks_of_the_process_do_not_meet, setup),
        cmocka_unit_test_setup(ranges_are_split_and_joined, setup),
        cmocka_unit_test_setup(a_lock_is_waited_for, setup),
        cmocka_unit_test_setup(who_closes_while_he_waits_has_no_lock, setup),
    };
    return cmocka_run_group_tests(tests, fake_group_setup, NULL);
}
