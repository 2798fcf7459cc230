/* test_libos_fs_model.c - the library OS's file calls against the host's own: the same random
 * calls on a small tree are made to both, and must give the same numbers, errors, bytes and
 * listings. */
#include "libos_fake.h"

#include <asm/unistd.h>
#include <linux/fs.h>
#include <linux/sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* <unistd.h> and <sys/stat.h> have other structs than the kernel's headers. */
extern long syscall(long number, ...);
extern int *__errno_location(void);

#define STEPS 30000
#define FDS   6
#define DEPTH 12

static const char *const names[] = {"a",   "b",   "c",      "d",          "d/a",      "d/b",
                                    "d/c", "d/e", "d/e/a",  "d/e/b",      "./d/../a", "d/",
                                    "a/",  ".",   "..x",    "d/e/../e/a", "l",        "d/l",
                                    "x/y", "d/.", "d/e/..", "l/",         "d//a",     "d/e/"};
static int own_fds[FDS], host_fds[FDS]; /* open in both, or -1 */
static uint64_t seed;

static uint32_t pick(uint32_t below)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % below;
}

static const char *pick_name(void)
{
    return names[pick(ARRAY_SIZE(names))];
}

static long host(long r)
{
    return r < 0 ? -*__errno_location() : r;
}

static void same(const char *what, const char *name, int64_t own, long theirs)
{
    if (own != theirs) {
        fail_msg("%s %s: %ld, the host has %ld", what, name, (long)own, theirs);
    }
}

static void open_both(void)
{
    static const int modes[] = {O_RDONLY, O_WRONLY, O_RDWR};
    static const int more[] = {O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_NOFOLLOW, O_DIRECTORY};
    const char *name = pick_name();
    uint32_t slot = pick(FDS);
    int flags = modes[pick(3)];
    for (size_t n = 0; n < ARRAY_SIZE(more); n++) {
        flags |= pick(n == 0 ? 2 : 5) == 0 ? more[n] : 0;
    }
    if ((flags & O_DIRECTORY) && (flags & O_CREAT)) {
        flags &= ~O_DIRECTORY; /* what that means has changed between kernels */
    }
    if (own_fds[slot] >= 0) {
        same("close", name, sys_close(own_fds[slot]), host(syscall(__NR_close, host_fds[slot])));
        own_fds[slot] = host_fds[slot] = -1;
    }
    int own = (int)sys_open(name, flags, 0644);
    long theirs = host(syscall(__NR_open, name, flags, 0644));
    if (own >= 0 && theirs >= 0) {
        own_fds[slot] = own;
        host_fds[slot] = (int)theirs;
        return;
    }
    char what[32];
    snprintf(what, sizeof(what), "open %o", (unsigned)flags);
    same(what, name, own, theirs);
}

static void file_both(uint32_t op)
{
    static char data[9000], own[9000], theirs[9000];
    uint32_t slot = pick(FDS), len = pick(3) ? pick(100) : pick(9000);
    long offset = pick(3) ? pick(200) : pick(20000);
    int fd = own_fds[slot];
    long host_fd = host_fds[slot];
    if (fd < 0) {
        return;
    }
    memset(data, 'a' + (int)pick(26), sizeof(data));
    memset(own, 0, sizeof(own));
    memset(theirs, 0, sizeof(theirs));
    switch (op) {
    case 0:
        same("write", "", sys_write(fd, data, len), host(syscall(__NR_write, host_fd, data, len)));
        break;
    case 1:
        same("read", "", sys_read(fd, own, len), host(syscall(__NR_read, host_fd, theirs, len)));
        assert_memory_equal(own, theirs, sizeof(own));
        break;
    case 2:
        if (!(fd_get(fd)->flags & O_APPEND)) { /* pwrite appends there, on Linux */
            same("pwrite", "", sys_pwrite64(fd, data, len, offset),
                 host(syscall(__NR_pwrite64, host_fd, data, len, offset)));
        }
        break;
    case 3:
        same("pread", "", sys_pread64(fd, own, len, offset),
             host(syscall(__NR_pread64, host_fd, theirs, len, offset)));
        assert_memory_equal(own, theirs, sizeof(own));
        break;
    case 4:
        if (fd_get(fd)->inode && inode_is(fd_get(fd)->inode, S_IFREG)) {
            int whence = (int)pick(3);
            same("lseek", "", sys_lseek(fd, offset - 100, whence),
                 host(syscall(__NR_lseek, host_fd, offset - 100, whence)));
        }
        break;
    default:
        same("ftruncate", "", sys_ftruncate(fd, offset),
             host(syscall(__NR_ftruncate, host_fd, offset)));
        break;
    }
}

/* Record locks of the process and of the open file description, and flock's; nothing waits. */
static void lock_both(void)
{
    static const int commands[] = {F_SETLK, F_OFD_SETLK, F_GETLK, F_OFD_GETLK};
    static const int operations[] = {LOCK_SH, LOCK_EX, LOCK_UN, 0};
    uint32_t slot = pick(FDS), command = pick(6);
    int fd = own_fds[slot];
    long host_fd = host_fds[slot];
    if (fd < 0) {
        return;
    }
    if (command >= ARRAY_SIZE(commands)) {
        int operation = operations[pick(ARRAY_SIZE(operations))] | LOCK_NB;
        same("flock", "", sys_flock(fd, operation), host(syscall(__NR_flock, host_fd, operation)));
        return;
    }
    /* What it means to ask for no lock at all has changed between kernels. */
    struct flock own = {.l_type = (short)pick(command < 2 ? 3 : 2),
                        .l_whence = (short)pick(4),
                        .l_start = (long)pick(40) - 5,
                        .l_len = (long)pick(30) - 5};
    if (pick(50) == 0) {
        own.l_start = INT64_MAX - 3;
    }
    own.l_pid = pick(50) == 0;
    if (!inode_is(fd_get(fd)->inode, S_IFREG)) {
        own.l_whence = 0; /* where a directory ends is its own matter */
    }
    struct flock theirs = own;
    char what[80];
    snprintf(what, sizeof(what), "fcntl %d of lock %d from %d: %ld, %ld, by %d", commands[command],
             own.l_type, own.l_whence, own.l_start, own.l_len, own.l_pid);
    same(what, "", sys_fcntl(fd, commands[command], (uintptr_t)&own),
         host(syscall(__NR_fcntl, host_fd, commands[command], &theirs)));
    same("is locked", "", own.l_type == F_UNLCK, theirs.l_type == F_UNLCK);
}

static void stat_both(const char *name, bool follow)
{
    struct stat own = {0}, theirs = {0};
    int64_t r = follow ? sys_stat(name, &own) : sys_lstat(name, &own);
    same(follow ? "stat" : "lstat", name, r,
         host(syscall(follow ? __NR_stat : __NR_lstat, name, &theirs)));
    if (r == 0) {
        same("mode", name, own.st_mode, (long)theirs.st_mode);
        same("links", name, (int64_t)own.st_nlink, (long)theirs.st_nlink);
        if ((own.st_mode & S_IFMT) != S_IFDIR) {
            same("size", name, own.st_size, theirs.st_size);
        }
    }
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All names of a directory and their types, sorted. */
static void list(int own, char *to)
{
    static char buf[4096];
    char *found[64];
    int count = 0;
    long n = own ? (long)sys_open(".", O_RDONLY, 0) : host(syscall(__NR_open, ".", O_RDONLY, 0));
    assert_true(n >= 0);
    int fd = (int)n;
    n = own ? (long)sys_getdents64(fd, buf, sizeof(buf))
            : host(syscall(__NR_getdents64, fd, buf, sizeof(buf)));
    for (long at = 0; at < n; at += *(uint16_t *)(void *)(buf + at + 16)) {
        found[count++] = buf + at + 18;
    }
    qsort(found, (size_t)count, sizeof(*found), compare);
    *to = '\0';
    for (int i = 0; i < count; i++) {
        strcat(strcat(to, found[i]), " ");
    }
    assert_int_equal(own ? sys_close(fd) : syscall(__NR_close, fd), 0);
}

static void name_both(uint32_t op)
{
    const char *a = pick_name(), *b = pick_name();
    char own[4096] = "", theirs[4096] = "", both[64];
    uint32_t flags = pick(3);
    snprintf(both, sizeof(both), "%s %s", a, b);
    switch (op) {
    case 0:
        same("mkdir", a, sys_mkdir(a, 0755), host(syscall(__NR_mkdir, a, 0755)));
        break;
    case 1:
        same("rmdir", a, sys_rmdir(a), host(syscall(__NR_rmdir, a)));
        break;
    case 2:
        same("unlink", a, sys_unlink(a), host(syscall(__NR_unlink, a)));
        break;
    case 3:
        same("rename", both, sys_rename(a, b), host(syscall(__NR_rename, a, b)));
        break;
    case 4:
        same(flags == 1 ? "rename no-replace" : "exchange", both,
             sys_renameat2(AT_FDCWD, a, AT_FDCWD, b, flags),
             host(syscall(__NR_renameat2, AT_FDCWD, a, AT_FDCWD, b, flags)));
        break;
    case 5:
        same("link", both, sys_link(a, b), host(syscall(__NR_link, a, b)));
        break;
    case 6:
        same("symlink", both, sys_symlink(a, b), host(syscall(__NR_symlink, a, b)));
        break;
    case 7:
        same("readlink", a, sys_readlink(a, own, 64), host(syscall(__NR_readlink, a, theirs, 64)));
        assert_string_equal(own, theirs);
        break;
    case 8:
        stat_both(a, true);
        break;
    case 9:
        stat_both(a, false);
        break;
    case 10:
        same("chmod", a, sys_chmod(a, 0600 + flags), host(syscall(__NR_chmod, a, 0600 + flags)));
        break;
    case 11:
        same("truncate", a, sys_truncate(a, 10), host(syscall(__NR_truncate, a, 10)));
        break;
    default:
        list(1, own);
        list(0, theirs);
        assert_string_equal(own, theirs);
        break;
    }
}

/* What is open in both has the same size in both. */
static void check_sizes(int step, uint32_t op)
{
    for (int n = 0; n < FDS; n++) {
        struct stat own, theirs;
        if (own_fds[n] >= 0 && sys_fstat(own_fds[n], &own) == 0 &&
            syscall(__NR_fstat, host_fds[n], &theirs) == 0 && (own.st_mode & S_IFMT) == S_IFREG &&
            own.st_size != theirs.st_size) {
            fail_msg("after step %d, operation %u, a file has %ld bytes, the host's %ld", step, op,
                     own.st_size, theirs.st_size);
        }
    }
}

static char dir[] = "/tmp/libos-model-XXXXXX";

static int remove_dir(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return syscall(__NR_chdir, "/") == 0 && system(command) == 0 ? 0 : -1;
}

static void run(uint64_t with)
{
    seed = with;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(syscall(__NR_chdir, dir), 0);
    assert_int_equal(sys_mkdir("/model", 0755), 0);
    assert_int_equal(sys_chdir("/model"), 0);
    syscall(__NR_umask, 022);
    for (int n = 0; n < DEPTH; n++) { /* links of links with ".." lead up: never out of here */
        assert_int_equal(syscall(__NR_mkdir, "m", 0755), 0);
        assert_int_equal(sys_mkdir("m", 0755), 0);
        assert_int_equal(syscall(__NR_chdir, "m"), 0);
        assert_int_equal(sys_chdir("m"), 0);
    }
    for (int n = 0; n < FDS; n++) {
        own_fds[n] = host_fds[n] = -1;
    }
    for (int n = 0; n < STEPS; n++) {
        uint32_t op = pick(31);
        if (op < 5) {
            open_both();
        } else if (op < 13) {
            file_both(op < 7 ? 0 : op - 7);
        } else if (op < 28) {
            name_both(op - 13);
        } else {
            lock_both();
        }
        check_sizes(n, op);
    }
    for (int n = 0; n < FDS; n++) {
        if (host_fds[n] >= 0) {
            syscall(__NR_close, host_fds[n]);
        }
    }
}

static bool put(const char *path, const char *text)
{
    long fd = syscall(__NR_open, path, O_WRONLY, 0);
    bool done = fd >= 0 && syscall(__NR_write, fd, text, strlen(text)) == (long)strlen(text);
    syscall(__NR_close, fd);
    return done;
}

/* The library OS's programs are root, whom modes do not keep out: so must be who asks the host. Another user is in
 * a user namespace of its own (user_namespaces(7)). */
static bool be_root(void)
{
    char uids[32], gids[32];
    if (syscall(__NR_geteuid) == 0) {
        return true;
    }
    snprintf(uids, sizeof(uids), "0 %ld 1", syscall(__NR_geteuid));
    snprintf(gids, sizeof(gids), "0 %ld 1", syscall(__NR_getegid));
    return syscall(__NR_unshare, CLONE_NEWUSER) == 0 && put("/proc/self/uid_map", uids) &&
           put("/proc/self/setgroups", "deny") && put("/proc/self/gid_map", gids);
}

static void calls_do_what_the_hosts_do(void **state)
{
    (void)state;
    if (!be_root()) {
        print_message("skipped: users may not make user namespaces here\n");
        skip();
    }
    fake.frames_left = 1 << 20;
    run(strtoull(getenv("MODEL_SEED") ? getenv("MODEL_SEED") : "1", NULL, 10));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(calls_do_what_the_hosts_do, remove_dir)};
    return cmocka_run_group_tests(tests, fake_group_setup, NULL);
}
