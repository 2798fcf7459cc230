/* test_libos_fs.c - the library OS's files: the image, what is written over it, names, /dev and
 * /proc. */
#include "libos_fake.h"

#include <asm/ioctls.h>
#include <asm/statfs.h>
#include <linux/uio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT AT_FDCWD

static int setup(void **state)
{
    (void)state;
    fake_reset();
    return 0;
}

/* The whole text of a file. */
static const char *slurp(const char *path)
{
    static char text[65536];
    int fd = (int)sys_open(path, O_RDONLY, 0);
    if (fd < 0) {
        fail_msg("open %s: %d", path, fd);
    }
    size_t len = 0;
    int64_t n;
    while ((n = sys_read(fd, text + len, sizeof(text) - 1 - len)) > 0) {
        len += (size_t)n;
    }
    assert_int_equal(n, 0);
    text[len] = '\0';
    assert_int_equal(sys_close(fd), 0);
    return text;
}

static void spit(const char *path, const char *text)
{
    int fd = (int)sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_true(fd >= 0);
    assert_int_equal(sys_write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(sys_close(fd), 0);
}

static uint32_t mode_of(const char *path)
{
    struct stat st;
    int64_t r = sys_lstat(path, &st);
    if (r < 0) {
        fail_msg("lstat %s: %ld", path, (long)r);
    }
    return st.st_mode;
}

static int64_t error_of_stat(const char *path)
{
    struct stat st;
    return sys_stat(path, &st);
}

static void the_image_is_the_root(void **state)
{
    (void)state;
    assert_string_equal(slurp("/bin/tool"), "#!tool\n");
    assert_string_equal(slurp("/bin/alias"), "#!tool\n");
    assert_string_equal(slurp("/up/./tool"), "#!tool\n");
    assert_string_equal(slurp("//data///sub/../sub/deep"), "deep\n");
    assert_string_equal(slurp("/../data/sub/deep"), "deep\n");
    assert_int_equal(mode_of("/bin/tool"), S_IFREG | 0755);
    assert_int_equal(mode_of("/bin/alias"), S_IFLNK | 0777);
    assert_int_equal(mode_of("/up/"), S_IFDIR | 0755);
    assert_string_equal(rootfs_program(), "/bin/tool");
}

static void walks_end_as_linux_ends_them(void **state)
{
    (void)state;
    char longer[PATH_LEN_MAX + 2], name[300];
    memset(longer, 'a', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    memset(name, 'b', sizeof(name));
    name[0] = '/';
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(sys_open("/loop", O_RDONLY, 0), -ELOOP);
    assert_int_equal(sys_open("/bin/alias", O_RDONLY | O_NOFOLLOW, 0), -ELOOP);
    assert_int_equal(error_of_stat("/bin/tool/"), -ENOTDIR);
    assert_int_equal(error_of_stat("/bin/tool/x"), -ENOTDIR);
    assert_int_equal(error_of_stat("/bin/alias/"), -ENOTDIR);
    assert_int_equal(error_of_stat("/nothing/x"), -ENOENT);
    assert_int_equal(error_of_stat("/bi"), -ENOENT);
    assert_int_equal(error_of_stat("/binn"), -ENOENT);
    assert_int_equal(error_of_stat(""), -ENOENT);
    assert_int_equal(error_of_stat(longer), -ENAMETOOLONG);
    assert_int_equal(error_of_stat(name), -ENAMETOOLONG);
    assert_int_equal(error_of_stat(NULL), -EFAULT);
    assert_int_equal(sys_openat(77, "x", O_RDONLY, 0), -EBADF);
    assert_int_equal(sys_open("/bin", O_WRONLY, 0), -EISDIR);
    assert_int_equal(sys_open("/bin/tool", O_RDONLY | O_DIRECTORY, 0), -ENOTDIR);
    assert_int_equal(sys_open("/bin/tool", O_WRONLY | O_CREAT | O_EXCL, 0), -EEXIST);
    assert_int_equal(sys_open("/new/", O_WRONLY | O_CREAT, 0644), -EISDIR);
    assert_int_equal(sys_open("/dev/tty", O_RDWR, 0), -ENXIO);
}

static void written_pages_are_the_files_own(void **state)
{
    (void)state;
    char page[PAGE_SIZE], was[8];
    int fd = (int)sys_open("/data/big", O_RDWR, 0), other = (int)sys_open("/data/big", O_RDONLY, 0);
    uint64_t shared = file_frame(fd_get(fd), 0), left = fake.frames_left;
    assert_int_equal(sys_pread64(fd, was, 8, 4094), 8);
    assert_int_equal(sys_pwrite64(fd, "XY", 2, 4095), 2); /* over a border */
    assert_int_equal(sys_pread64(other, page, 8, 4094), 8);
    assert_int_equal(page[0], was[0]);
    assert_int_equal(page[1], 'X');
    assert_int_equal(page[2], 'Y');
    assert_int_equal(page[3], was[3]);
    assert_int_equal(left - fake.frames_left, 3); /* two pages, and the list of them */
    assert_int_equal(((char *)(uintptr_t)shared)[4095], 4095 % 251); /* the image is as it was */
    assert_true(file_frame(fd_get(fd), 0) != shared);
    assert_true(file_frame(fd_get(fd), 2) == shared + 2 * PAGE_SIZE);
    assert_int_equal(file_frame(fd_get(fd), 3), 0);
    struct stat st;
    assert_int_equal(sys_fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 10000);
    assert_int_equal(sys_pread64(fd, page, sizeof(page), 9998), 2);
    assert_int_equal(sys_pread64(fd, page, sizeof(page), 10000), 0);
    assert_int_equal(sys_pread64(fd, page, 1, -1), -EINVAL);
}

static void truncation_leaves_zeros_behind(void **state)
{
    (void)state;
    char buf[16];
    spit("/tmp/t", "0123456789");
    int fd = (int)sys_open("/tmp/t", O_RDWR, 0);
    assert_int_equal(sys_ftruncate(fd, 4), 0);
    assert_int_equal(sys_ftruncate(fd, 8), 0);
    assert_int_equal(sys_read(fd, buf, sizeof(buf)), 8);
    assert_memory_equal(buf, "0123\0\0\0\0", 8);
    assert_int_equal(sys_ftruncate(fd, 100000), 0);
    assert_int_equal(sys_pread64(fd, buf, 4, 99998), 2);
    assert_memory_equal(buf, "\0\0", 2);
    assert_int_equal(sys_truncate("/data/sub/deep", 2), 0); /* of the image */
    assert_int_equal(sys_truncate("/data/sub/deep", 4), 0);
    assert_memory_equal(slurp("/data/sub/deep"), "de\0\0", 5);
    assert_int_equal(sys_truncate("/bin", 0), -EISDIR);
    int reader = (int)sys_open("/tmp/t", O_RDONLY, 0);
    assert_int_equal(sys_ftruncate(reader, 0), -EINVAL);
    assert_int_equal(sys_write(reader, "x", 1), -EBADF);
    assert_int_equal(sys_ftruncate(fd, -1), -EINVAL);
    assert_int_equal(sys_ftruncate(fd, INT64_MAX), -EFBIG);
    assert_int_equal(sys_unlink("/tmp/t"), 0);
}

static void memory_comes_back_with_the_last_use(void **state)
{
    (void)state;
    static char block[50000];
    uint64_t left = fake.frames_left;
    int fd = (int)sys_open("/tmp/m", O_RDWR | O_CREAT, 0644);
    assert_int_equal(sys_write(fd, block, sizeof(block)), sizeof(block));
    assert_int_equal(left - fake.frames_left, 14);
    assert_int_equal(sys_unlink("/tmp/m"), 0);
    assert_int_equal(error_of_stat("/tmp/m"), -ENOENT);
    assert_int_equal(sys_pread64(fd, block, 10, 49995), 5); /* still open */
    assert_int_equal(sys_close(fd), 0);
    assert_int_equal(fake.frames_left, left);
}

static void what_was_looked_up_in_vain_is_told(void **state)
{
    (void)state;
    struct stat st;
    fake.has_request = false;
    for (int i = 0; i < 9; i++) {
        char name[16] = "/etc/none0";
        name[9] = (char)('0' + i);
        assert_int_equal(i % 2 ? sys_open(name, O_RDONLY, 0) : sys_access(name, 0), -ENOENT);
        assert_int_equal(sys_stat(name, &st), -ENOENT);
    }
    assert_int_equal(sys_open("/etc/ld.so.cache", O_RDONLY, 0), -ENOENT); /* usual */
    assert_int_equal(sys_access("/lib/x86_64-linux-gnu/x86_64/libc.so.6", 0), -ENOENT);
    int made = (int)sys_open("/tmp/made", O_RDWR | O_CREAT, 0644);
    assert_int_equal(sys_close(made), 0);
    assert_int_equal(sys_unlink("/tmp/made"), 0);
    fake.log_len = 0;
    absent_tell();
    fake.log[fake.log_len] = '\0';
    assert_string_equal(
        fake.log,
        "libos: not found before that (--with takes files along): /etc/none3, /etc/none4, "
        "/etc/none5, /etc/none6, /etc/none7, /etc/none8\n");
    fake.has_request = true;
    fake.log_len = 0;
    absent_tell();
    assert_int_equal(fake.log_len, 0);
}

static void full_memory_is_no_space(void **state)
{
    (void)state;
    static char block[20000];
    int fd = (int)sys_open("/tmp/f", O_RDWR | O_CREAT, 0644);
    fake.frames_left = 3;
    assert_int_equal(sys_write(fd, block, sizeof(block)), 2 * PAGE_SIZE);
    assert_int_equal(sys_write(fd, block, sizeof(block)), -ENOSPC);
    assert_int_equal(sys_fallocate(fd, 0, 0, 1 << 20), -ENOSPC);
    fake.frames_left = 4096;
    assert_int_equal(sys_unlink("/tmp/f"), 0);
    int full = (int)sys_open("/dev/full", O_WRONLY, 0);
    assert_int_equal(sys_write(full, "x", 1), -ENOSPC);
}

static void holes_take_no_memory(void **state)
{
    (void)state;
    char buf[8];
    int fd = (int)sys_open("/tmp/h", O_RDWR | O_CREAT, 0644);
    uint64_t left = fake.frames_left;
    assert_int_equal(sys_ftruncate(fd, 10), 0);
    assert_int_equal(sys_read(fd, buf, 0), 0); /* of a file without any page */
    assert_int_equal(sys_pwrite64(fd, "end", 3, 3ll << 30), 3);
    assert_in_range(left - fake.frames_left, 2, 3);
    assert_int_equal(sys_pread64(fd, buf, 8, 1 << 20), 8);
    assert_memory_equal(buf, "\0\0\0\0\0\0\0\0", 8);
    struct stat st;
    assert_int_equal(sys_fstat(fd, &st), 0);
    assert_int_equal(st.st_size, (3ll << 30) + 3);
    assert_int_equal(st.st_blocks, 8);
    assert_int_equal(sys_pwrite64(fd, "x", 1, INT64_MAX - 1), -EFBIG);
    assert_int_equal(sys_fallocate(fd, 3, 3ll << 30, 4096), 0); /* punched out */
    assert_int_equal(sys_pread64(fd, buf, 8, 3ll << 30), 3);
    assert_memory_equal(buf, "\0\0\0", 3);
    assert_int_equal(sys_lseek(fd, 5, SEEK_DATA), 5);
    assert_int_equal(sys_lseek(fd, 5, SEEK_HOLE), (3ll << 30) + 3);
    assert_int_equal(sys_unlink("/tmp/h"), 0);
}

static void appending_goes_to_the_end(void **state)
{
    (void)state;
    spit("/tmp/a", "one\n");
    int fd = (int)sys_open("/tmp/a", O_WRONLY | O_APPEND, 0);
    assert_int_equal(sys_lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(sys_write(fd, "two\n", 4), 4);
    assert_string_equal(slurp("/tmp/a"), "one\ntwo\n");
    struct iovec parts[2] = {{(void *)(uintptr_t) "a", 1}, {(void *)(uintptr_t) "bc", 2}};
    assert_int_equal(sys_writev(fd, parts, 2), 3);
    assert_string_equal(slurp("/tmp/a"), "one\ntwo\nabc");
    assert_int_equal(sys_writev(fd, parts, 1025), -EINVAL);
    assert_int_equal(sys_writev(fd, NULL, 1), -EFAULT);
    assert_int_equal(sys_unlink("/tmp/a"), 0);
}

static void positions_move_and_are_shared_by_duplicates(void **state)
{
    (void)state;
    char buf[4];
    int fd = (int)sys_open("/data/sub/../big", O_RDONLY, 0), twin = (int)sys_dup(fd);
    assert_int_equal(sys_lseek(fd, -3, SEEK_END), 9997);
    assert_int_equal(sys_read(twin, buf, 2), 2);
    assert_int_equal(sys_lseek(fd, 0, SEEK_CUR), 9999);
    assert_int_equal(sys_lseek(fd, -1, SEEK_SET), -EINVAL);
    assert_int_equal(sys_lseek(fd, INT64_MAX, SEEK_CUR), -EOVERFLOW);
    assert_int_equal(sys_lseek(fd, 0, 9), -EINVAL);
    struct iovec parts[2] = {{buf, 1}, {buf + 1, 3}};
    assert_int_equal(sys_preadv(fd, parts, 2, 0, 0), 4);
    assert_memory_equal(buf, "\0\1\2\3", 4);
    assert_int_equal(sys_read(fd, NULL, 4), -EFAULT);
}

static int count_names(const char *path, const char *expected, bool old)
{
    char buf[512], all[4096] = "";
    int names = 0;
    int fd = (int)sys_open(path, O_RDONLY | O_DIRECTORY, 0);
    assert_true(fd >= 0);
    int64_t n;
    while ((n = old ? sys_getdents(fd, buf, sizeof(buf)) : sys_getdents64(fd, buf, 128)) > 0) {
        for (int64_t at = 0; at < n; names++) {
            const char *record = buf + at;
            strcat(all, record + (old ? 18 : 19));
            strcat(all, " ");
            at += *(const uint16_t *)(const void *)(record + 16);
        }
    }
    assert_int_equal(n, 0);
    assert_int_equal(sys_getdents64(fd, buf, sizeof(buf)), 0);
    assert_int_equal(sys_lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(sys_getdents64(fd, buf, 8), -EINVAL);
    assert_int_equal(sys_close(fd), 0);
    if (expected) {
        assert_string_equal(all, expected);
    }
    return names;
}

static void listings_show_what_changed(void **state)
{
    (void)state;
    count_names("/data", ". .. big hard1 hard2 sub ", false);
    count_names("/data", ". .. big hard1 hard2 sub ", true);
    assert_int_equal(sys_unlink("/data/hard1"), 0);
    spit("/data/new", "n");
    assert_int_equal(sys_mkdir("/data/dir", 0777), 0);
    count_names("/data", ". .. big hard2 sub new dir ", false);
    spit("/data/hard1", "again");
    count_names("/data", ". .. big hard1 hard2 sub new dir ", false);
    assert_string_equal(slurp("/data/hard1"), "again");
    assert_string_equal(slurp("/data/hard2"), "hard");
    assert_int_equal(mode_of("/data/dir"), S_IFDIR | 0755);
    assert_int_equal(sys_rmdir("/data/dir"), 0);
    assert_int_equal(sys_unlink("/data/new"), 0);
    count_names("/data", ". .. big hard1 hard2 sub ", false);
    for (int n = 0; n < 300; n++) {
        char name[32];
        snprintf(name, sizeof(name), "/tmp/many%d", n);
        spit(name, "");
    }
    assert_int_equal(count_names("/tmp", NULL, false), 302);
    int fd = (int)sys_open("/tmp", O_RDONLY, 0);
    char buf[256];
    int64_t got, removed = 0;
    while ((got = sys_getdents64(fd, buf, sizeof(buf))) > 0) { /* as rm -r does it */
        for (int64_t at = 0; at < got; at += *(uint16_t *)(void *)(buf + at + 16)) {
            if (buf[at + 19] != '.') {
                assert_int_equal(sys_unlinkat(fd, buf + at + 19, 0), 0);
                removed++;
            }
        }
    }
    assert_int_equal(removed, 300);
    assert_int_equal(count_names("/tmp", ". .. ", false), 2);
}

static void removing_says_why_not(void **state)
{
    (void)state;
    assert_int_equal(sys_unlink("/data/sub"), -EISDIR);
    assert_int_equal(sys_rmdir("/data/sub"), -ENOTEMPTY);
    assert_int_equal(sys_rmdir("/data/big"), -ENOTDIR);
    assert_int_equal(sys_rmdir("/data/sub/."), -EINVAL);
    assert_int_equal(sys_rmdir("/"), -EBUSY);
    assert_int_equal(sys_rmdir("/proc"), -EBUSY);
    assert_int_equal(sys_unlink("/proc/cpuinfo"), -EPERM);
    assert_int_equal(sys_unlink("/data/nothing"), -ENOENT);
    assert_int_equal(sys_mkdir("/data", 0755), -EEXIST);
    assert_int_equal(sys_mkdir("/", 0755), -EEXIST);
    assert_int_equal(sys_mkdir("/a/b", 0755), -ENOENT);
    assert_int_equal(sys_mkdir("/proc/x", 0755), -EPERM);
    assert_int_equal(sys_mknod("/tmp/dev", S_IFCHR | 0600, 0x103), -EPERM);
    assert_int_equal(sys_mount(), -EPERM);
}

static void a_removed_directory_is_a_dead_end(void **state)
{
    (void)state;
    char cwd[64];
    assert_int_equal(sys_mkdir("/tmp/gone", 0755), 0);
    assert_int_equal(sys_chdir("/tmp/gone"), 0);
    assert_int_equal(sys_getcwd(cwd, sizeof(cwd)), 10);
    assert_string_equal(cwd, "/tmp/gone");
    assert_int_equal(sys_getcwd(cwd, 9), -ERANGE);
    assert_int_equal(sys_getcwd(NULL, 0), -ERANGE);
    assert_int_equal(sys_rmdir("../gone"), 0);
    assert_int_equal(sys_open("x", O_CREAT | O_WRONLY, 0644), -ENOENT);
    assert_int_equal(sys_getcwd(cwd, sizeof(cwd)), -ENOENT);
    assert_int_equal(error_of_stat(".."), -ENOENT);
    assert_int_equal(error_of_stat("."), 0);
    assert_int_equal(sys_chdir("/data"), 0);
    assert_int_equal(error_of_stat("sub/deep"), 0);
    assert_int_equal(sys_chdir("/data/big"), -ENOTDIR);
}

static void renames_keep_the_tree(void **state)
{
    (void)state;
    spit("/tmp/r1", "1");
    spit("/tmp/r2", "2");
    assert_int_equal(sys_rename("/tmp/r1", "/tmp/r2"), 0);
    assert_string_equal(slurp("/tmp/r2"), "1");
    assert_int_equal(error_of_stat("/tmp/r1"), -ENOENT);
    assert_int_equal(sys_mkdir("/tmp/d1", 0755), 0);
    assert_int_equal(sys_mkdir("/tmp/d1/d2", 0755), 0);
    assert_int_equal(sys_rename("/tmp/d1", "/tmp/d1/d2/d3"), -EINVAL);
    assert_int_equal(sys_rename("/tmp/r2", "/tmp/d1"), -EISDIR);
    assert_int_equal(sys_rename("/tmp/d1", "/tmp/r2"), -ENOTDIR);
    assert_int_equal(sys_rename("/tmp/d1/d2", "/data/moved"), 0);
    assert_int_equal(sys_rename("/tmp/r2", "/data/moved/f"), 0);
    assert_int_equal(sys_rename("/tmp/d1", "/data/moved"), -ENOTEMPTY);
    assert_int_equal(sys_renameat2(AT, "/tmp/d1", AT, "/data/moved", 1), -EEXIST);
    assert_int_equal(sys_renameat2(AT, "/tmp/d1", AT, "/data/moved", 2), 0); /* exchanged */
    assert_string_equal(slurp("/tmp/d1/f"), "1");
    char cwd[64];
    assert_int_equal(sys_chdir("/tmp/d1/"), 0);
    assert_true(sys_getcwd(cwd, sizeof(cwd)) > 0);
    assert_string_equal(cwd, "/tmp/d1");
    assert_int_equal(sys_rename("/data/sub", "/tmp/sub"), 0); /* of the image */
    assert_int_equal(mode_of("/tmp/sub/deep"), S_IFREG | 0644);
    assert_int_equal(error_of_stat("/data/sub"), -ENOENT);
    assert_int_equal(sys_rename("/tmp/sub", "/data/sub"), 0);
    assert_int_equal(sys_rename("/data/.", "/tmp/x"), -EBUSY);
    assert_int_equal(sys_rename("/dev", "/dev2"), 0);
    assert_int_equal(sys_rename("/dev2", "/dev"), 0);
    assert_int_equal(sys_rename("/proc", "/p"), -EBUSY);
    assert_int_equal(sys_unlink("/tmp/d1/f"), 0);
    assert_int_equal(sys_rmdir("/tmp/d1"), 0);
    assert_int_equal(sys_rmdir("/data/moved"), 0);
}

static void links_share_and_point(void **state)
{
    (void)state;
    char text[64];
    struct stat st;
    spit("/tmp/l1", "x");
    assert_int_equal(sys_link("/tmp/l1", "/tmp/l2"), 0);
    assert_int_equal(sys_stat("/tmp/l2", &st), 0);
    assert_int_equal(st.st_nlink, 2);
    assert_int_equal(sys_rename("/tmp/l1", "/tmp/l2"), 0); /* one file: both stay */
    assert_int_equal(sys_unlink("/tmp/l1"), 0);
    assert_string_equal(slurp("/tmp/l2"), "x");
    assert_int_equal(sys_link("/data", "/tmp/l3"), -EPERM);
    assert_int_equal(sys_link("/proc/cpuinfo", "/tmp/l3"), -EXDEV);
    assert_int_equal(sys_symlink("l2", "/tmp/s"), 0);
    assert_int_equal(sys_readlink("/tmp/s", text, sizeof(text)), 2);
    assert_int_equal(sys_readlink("/tmp/s", text, 1), 1);
    assert_int_equal(sys_readlink("/tmp/l2", text, sizeof(text)), -EINVAL);
    assert_string_equal(slurp("/tmp/s"), "x");
    assert_int_equal(sys_symlink("made", "/tmp/dangling"), 0);
    spit("/tmp/dangling", "made");
    assert_string_equal(slurp("/tmp/made"), "made");
    assert_int_equal(sys_symlink("", "/tmp/e"), -ENOENT);
    assert_int_equal(sys_symlink("x", "/tmp/s"), -EEXIST);
    static const char *const names[] = {"/tmp/l2", "/tmp/s", "/tmp/dangling", "/tmp/made"};
    for (size_t n = 0; n < 4; n++) {
        assert_int_equal(sys_unlink(names[n]), 0);
    }
}

static void attributes_are_remembered(void **state)
{
    (void)state;
    struct stat st;
    const struct __kernel_timespec times[2] = {{1000, 5}, {0, (1l << 30) - 2}};
    spit("/tmp/at", "x");
    assert_int_equal(sys_umask(077), 022);
    assert_int_equal(sys_umask(022), 077);
    assert_int_equal(sys_chmod("/tmp/at", 04711), 0);
    assert_int_equal(sys_chown("/tmp/at", 5, UINT32_MAX), 0);
    assert_int_equal(sys_utimensat(AT, "/tmp/at", times, 0), 0);
    assert_int_equal(sys_stat("/tmp/at", &st), 0);
    assert_int_equal(st.st_mode, S_IFREG | 04711);
    assert_int_equal(st.st_uid, 5);
    assert_int_equal(st.st_gid, 0);
    assert_int_equal(st.st_atime, 1000);
    assert_int_equal(st.st_atime_nsec, 5);
    assert_int_equal(st.st_mtime, 1700000001);
    assert_int_equal(sys_access("/tmp/at", 7), 0);
    assert_int_equal(sys_chmod("/tmp/at", 0600), 0);
    assert_int_equal(sys_access("/tmp/at", 6), 0);
    assert_int_equal(sys_access("/tmp/at", 1), -EACCES);
    assert_int_equal(sys_access("/tmp/at", 8), -EINVAL);
    struct statx sx;
    assert_int_equal(sys_statx(AT, "/bin/alias", AT_SYMLINK_NOFOLLOW, 0x7ff, &sx), 0);
    assert_int_equal(sx.stx_mode, S_IFLNK | 0777);
    assert_int_equal(sx.stx_mtime.tv_sec, 1600000000);
    int fd = (int)sys_open("/tmp/at", O_RDONLY, 0);
    assert_int_equal(sys_statx(fd, "", AT_EMPTY_PATH, 0x7ff, &sx), 0);
    assert_int_equal(sx.stx_size, 1);
    assert_int_equal(sys_statx(fd, "", 0, 0x7ff, &sx), -ENOENT);
    struct statfs sf;
    assert_int_equal(sys_statfs("/tmp", &sf), 0);
    assert_int_equal(sf.f_type, 0x01021994);
    assert_int_equal(sys_getxattr("/tmp/at", "user.x", NULL, 0), -ENODATA);
    assert_int_equal(sys_listxattr("/tmp/at", NULL, 0), 0);
    assert_int_equal(sys_unlink("/tmp/at"), 0);
}

static void descriptors_are_the_lowest_free(void **state)
{
    (void)state;
    stdio_open();
    int a = (int)sys_open("/dev/null", O_RDWR, 0), b = (int)sys_dup(a);
    assert_int_equal(a, 3);
    assert_int_equal(b, 4);
    assert_int_equal(sys_close(a), 0);
    assert_int_equal(sys_close(a), -EBADF);
    assert_int_equal(sys_fcntl(b, F_DUPFD, 10), 10);
    assert_int_equal(sys_dup(b), 3);
    assert_int_equal(sys_dup2(b, 100), 100);
    assert_int_equal(sys_dup2(b, b), b);
    assert_int_equal(sys_dup3(b, b, 0), -EINVAL);
    assert_int_equal(sys_dup2(b, FD_MAX), -EBADF);
    assert_int_equal(sys_dup2(55, 3), -EBADF);
    assert_int_equal(sys_fcntl(b, F_DUPFD, FD_MAX), -EINVAL);
    assert_int_equal(sys_fcntl(b, F_DUPFD_CLOEXEC, 11), 11);
    assert_int_equal(sys_fcntl(11, F_GETFD, 0), FD_CLOEXEC);
    assert_int_equal(sys_ioctl(11, FIONCLEX, 0), 0);
    assert_int_equal(sys_fcntl(11, F_GETFD, 0), 0);
    assert_int_equal(sys_close_range(10, 200, 0), 0);
    assert_int_equal(sys_fcntl(100, F_GETFD, 0), -EBADF);
    int fd;
    while ((fd = (int)sys_dup(b)) >= 0) {
    }
    assert_int_equal(fd, -EMFILE);
    assert_int_equal(sys_open("/bin/tool", O_RDONLY, 0), -EMFILE);
}

static void flags_and_locks(void **state)
{
    (void)state;
    int fd = (int)sys_open("/tmp/fl", O_RDWR | O_CREAT | O_CLOEXEC, 0644), on = 1;
    assert_int_equal(sys_fcntl(fd, F_GETFD, 0), FD_CLOEXEC);
    assert_int_equal(sys_fcntl(fd, F_GETFL, 0), O_RDWR | O_LARGEFILE);
    assert_int_equal(sys_ioctl(fd, FIONBIO, (uintptr_t)&on), 0);
    assert_int_equal(sys_fcntl(fd, F_GETFL, 0), O_RDWR | O_LARGEFILE | O_NONBLOCK);
    assert_int_equal(sys_fcntl(fd, F_SETFL, O_APPEND), 0);
    assert_int_equal(sys_fcntl(fd, F_GETFL, 0), O_RDWR | O_LARGEFILE | O_APPEND);
    struct flock l = {.l_type = F_WRLCK};
    assert_int_equal(sys_fcntl(fd, F_SETLK, (uintptr_t)&l), 0);
    assert_int_equal(sys_fcntl(fd, F_GETLK, (uintptr_t)&l), 0);
    assert_int_equal(l.l_type, F_UNLCK);
    l.l_type = 99;
    assert_int_equal(sys_fcntl(fd, F_SETLK, (uintptr_t)&l), -EINVAL);
    assert_int_equal(sys_fcntl(fd, F_SETLK, 0), -EFAULT);
    assert_int_equal(sys_flock(fd, 2 | 4), 0);
    assert_int_equal(sys_flock(fd, 3), -EINVAL);
    assert_int_equal(sys_ioctl(fd, TCGETS, (uintptr_t)&l), -ENOTTY);
    assert_int_equal(sys_fcntl(fd, 9999, 0), -EINVAL);
    assert_int_equal(sys_fsync(fd), 0);
    assert_int_equal(sys_fsync((int)sys_open("/dev/null", O_WRONLY, 0)), -EINVAL);
    assert_int_equal(sys_unlink("/tmp/fl"), 0);
}

static void devices_do_what_they_are_for(void **state)
{
    (void)state;
    char buf[16];
    int null = (int)sys_open("/dev/null", O_RDWR, 0), zero = (int)sys_open("/dev/zero", O_RDWR, 0);
    assert_int_equal(sys_read(null, buf, 16), 0);
    assert_int_equal(sys_write(null, buf, 16), 16);
    memset(buf, 1, sizeof(buf));
    assert_int_equal(sys_read(zero, buf, 16), 16);
    assert_memory_equal(buf, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    assert_true(file_is_zero(fd_get(zero)));
    int random = (int)sys_open("/dev/urandom", O_RDONLY, 0);
    assert_int_equal(sys_read(random, buf, 16), 16);
    assert_memory_not_equal(buf, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    assert_int_equal(sys_getrandom(buf, 16, 0), 16);
    assert_int_equal(sys_getrandom(buf, 16, 8), -EINVAL);
    uint8_t seed[65];
    unsigned noted = fake.random_noted;
    assert_int_equal(sys_getrandom(seed, 64, 1), 64); /* a hash's seed */
    assert_int_equal(sys_getrandom(seed, 64, 4), 64);
    assert_int_equal(fake.random_noted, noted);
    assert_int_equal(sys_getrandom(seed, 65, 1), 65); /* a generator's */
    assert_int_equal(sys_getrandom(seed, 1, 0), 1);
    assert_int_equal(fake.random_noted, noted + 2);
    assert_int_equal(sys_getrandom(NULL, 16, 0), -EFAULT);
    assert_int_equal(mode_of("/dev/null"), S_IFCHR | 0666);
    struct stat st;
    assert_int_equal(sys_stat("/dev/null", &st), 0);
    assert_int_equal(st.st_rdev, 0x103);
}

static void standard_streams_are_the_interfaces(void **state)
{
    (void)state;
    char buf[16];
    fake.body = "hello body";
    stdio_open();
    assert_int_equal(sys_read(0, buf, 5), 5);
    assert_memory_equal(buf, "hello", 5);
    int again = (int)sys_open("/dev/stdin", O_RDONLY, 0);
    assert_int_equal(sys_read(again, buf, sizeof(buf)), 5);
    assert_int_equal(sys_read(0, buf, sizeof(buf)), 0);
    assert_int_equal(sys_write(1, "out", 3), 3);
    assert_int_equal(sys_write(2, "err", 3), 3);
    assert_memory_equal(fake.response, "out", 3);
    assert_memory_equal(fake.log, "err", 3);
    assert_int_equal(sys_lseek(0, 0, SEEK_CUR), -ESPIPE);
    assert_int_equal(sys_ioctl(1, TCGETS, (uintptr_t)buf), -ENOTTY);
    assert_int_equal(sys_write(0, "x", 1), -EBADF);
    assert_int_equal(sys_read(1, buf, 1), -EBADF);
    fake.interface = UNID_INTERFACE_HTTP;
    stdio_open();
    assert_int_equal(sys_read(0, buf, 5), 0);
    assert_int_equal(sys_write(1, "log", 3), 3);
    assert_memory_equal(fake.log, "errlog", 6);
    assert_int_equal(fake.response_len, 3);
}

static void later_parts_of_a_vector_do_not_wait(void **state)
{
    (void)state;
    char a[4], b[8];
    struct iovec parts[2] = {{a, 4}, {b, 8}};
    fake.body = "abcdefgh";
    fake.body_ready = 4;
    stdio_open();
    assert_int_equal(sys_readv(0, parts, 2), 4); /* the rest would have to be asked for */
    assert_int_equal(sys_readv(0, parts, 2), 4);
    assert_int_equal(sys_readv(0, parts, 2), 0);
}

static void sendfile_takes_pages(void **state)
{
    (void)state;
    stdio_open();
    int fd = (int)sys_open("/data/hard2", O_RDONLY, 0);
    int64_t offset = 1;
    assert_int_equal(sys_sendfile(1, fd, &offset, 100), 3);
    assert_int_equal(offset, 4);
    assert_memory_equal(fake.response, "ard", 3);
    assert_int_equal(sys_sendfile(1, fd, NULL, 2), 2);
    assert_int_equal(sys_lseek(fd, 0, SEEK_CUR), 2);
    int copy = (int)sys_open("/tmp/copy", O_RDWR | O_CREAT, 0644);
    int64_t from = 0;
    assert_int_equal(sys_copy_file_range(fd, &from, copy, NULL, 100, 0), 4);
    assert_string_equal(slurp("/tmp/copy"), "hard");
    assert_int_equal(sys_ftruncate(copy, 9000), 0); /* a hole */
    offset = 4090;
    assert_int_equal(sys_sendfile(1, copy, &offset, 4000), 4000);
    assert_int_equal(sys_sendfile(fd, copy, NULL, 1), -EBADF);
    fake.body = "from the body";
    assert_int_equal(sys_lseek(copy, 0, SEEK_SET), 0);
    assert_int_equal(sys_sendfile(copy, 0, NULL, 100), 13);
    assert_int_equal(sys_unlink("/tmp/copy"), 0);
}

static void proc_tells_of_the_process(void **state)
{
    (void)state;
    char text[64] = "";
    assert_int_equal(sys_readlink("/proc/self/exe", text, sizeof(text)), 9);
    assert_memory_equal(text, "/bin/tool", 9);
    assert_string_equal(slurp("/proc/self/exe"), "#!tool\n");
    assert_memory_equal(slurp("/proc/self/cmdline"), "tool\0-x\0", 9);
    assert_non_null(strstr(slurp("/proc/self/maps"), "7ffff000-80000000 rw-p 00000000 00:00 0 "));
    assert_non_null(strstr(slurp("/proc/self/maps"), "[stack]\n"));
    assert_int_equal(strncmp(slurp("/proc/self/stat"), "1 (tool) R 0 1 1 0 -1 ", 22), 0);
    int fields = 0;
    for (char *p = strtok((char *)(uintptr_t)slurp("/proc/1/stat"), " \n"); p;
         p = strtok(NULL, " \n")) {
        fields++;
    }
    assert_int_equal(fields, 52);
    assert_non_null(strstr(slurp("/proc/self/status"), "Umask:\t0022\n"));
    assert_non_null(strstr(slurp("/proc/cpuinfo"), "processor\t: 0\n"));
    assert_non_null(strstr(slurp("/proc/meminfo"), "MemTotal:       262144 kB\n"));
    assert_string_equal(slurp("/proc/sys/vm/overcommit_memory"), "1\n");
    assert_string_equal(slurp("/proc/sys/kernel/osrelease"), LINUX_RELEASE "\n");
    assert_int_equal(strlen(slurp("/proc/sys/kernel/random/uuid")), 37);
    assert_string_equal(slurp("/sys/devices/system/cpu/online"), "0\n");
    assert_int_equal(error_of_stat("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"), -ENOENT);
    assert_int_equal(sys_open("/proc/cpuinfo", O_WRONLY, 0), -EACCES);
    assert_int_equal(sys_open("/proc/new", O_CREAT | O_WRONLY, 0644), -EPERM);
    int fd = (int)sys_open("/data/hard2", O_RDONLY, 0);
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    memset(text, 0, sizeof(text));
    assert_int_equal(sys_readlink(path, text, sizeof(text)), 11);
    assert_string_equal(text, "/data/hard2");
    assert_string_equal(slurp(path), "hard");
    assert_int_equal(count_names("/proc/self/fd", NULL, false), 4);
    assert_int_equal(error_of_stat("/proc/self/fd/99"), -ENOENT);
    assert_int_equal(error_of_stat("/proc/self/fd/03"), -ENOENT);
    assert_string_equal(slurp("/etc/resolv.conf"), "nameserver 127.0.0.53\n");
}

static void unnamed_files(void **state)
{
    (void)state;
    char buf[8], path[32];
    int fd = (int)sys_open("/tmp", O_RDWR | O_TMPFILE, 0600);
    assert_true(fd >= 0);
    assert_int_equal(sys_write(fd, "t", 1), 1);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    assert_int_equal(sys_linkat(AT, path, AT, "/tmp/named", AT_SYMLINK_FOLLOW), 0);
    assert_string_equal(slurp("/tmp/named"), "t");
    assert_int_equal(sys_unlink("/tmp/named"), 0);
    int mem = (int)sys_memfd_create("m", 1);
    assert_int_equal(sys_write(mem, "mem", 3), 3);
    assert_int_equal(sys_pread64(mem, buf, 8, 0), 3);
    assert_int_equal(sys_memfd_create(NULL, 0), -EFAULT);
    uint64_t frame = file_frame_shared(fd_get(mem), 0);
    memcpy((void *)(uintptr_t)frame, "MEM", 3); /* as through a mapping */
    assert_int_equal(sys_pread64(mem, buf, 8, 0), 3);
    assert_memory_equal(buf, "MEM", 3);
}

static void a_new_start_finds_the_image(void **state)
{
    (void)state;
    files_init_again(); /* what the tests before left */
    uint64_t left = fake.frames_left;
    int fd = (int)sys_open("/data/hard1", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    struct file *mapped = file_ref(fd_get(fd)); /* as memory keeps it */
    assert_int_equal(sys_write(fd, "changed", 7), 7);
    spit("/tmp/lock", "pid");
    assert_int_equal(sys_unlink("/data/big"), 0);
    assert_int_equal(sys_mkdir("/tmp/dir", 0755), 0);
    assert_int_equal(sys_chdir("/tmp/dir"), 0);
    for (int n = 0; n < 20000; n++) { /* a tree too deep to walk by recursion */
        assert_int_equal(sys_mkdir("d", 0755), 0);
        assert_int_equal(sys_chdir("d"), 0);
    }
    files_init_again();
    assert_int_equal(sys_fcntl(3, F_GETFD, 0), -EBADF);
    assert_int_equal(sys_fcntl(1, F_GETFD, 0), 0);
    char cwd[8];
    assert_int_equal(sys_getcwd(cwd, sizeof(cwd)), 2);
    assert_int_equal(error_of_stat("/tmp/lock"), -ENOENT);
    assert_int_equal(mode_of("/data/big"), S_IFREG | 0644);
    assert_string_equal(slurp("/data/hard1"), "hard");
    assert_string_equal(slurp("/data/hard2"), "hard");
    assert_string_equal(slurp("/proc/self/exe"), "#!tool\n");
    file_unref(mapped);
    assert_int_equal(fake.frames_left, left);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(the_image_is_the_root),
        T(walks_end_as_linux_ends_them),
        T(written_pages_are_the_files_own),
        T(truncation_leaves_zeros_behind),
        T(memory_comes_back_with_the_last_use),
        T(what_was_looked_up_in_vain_is_told),
        T(full_memory_is_no_space),
        T(holes_take_no_memory),
        T(appending_goes_to_the_end),
        T(positions_move_and_are_shared_by_duplicates),
        T(listings_show_what_changed),
        T(removing_says_why_not),
        T(a_removed_directory_is_a_dead_end),
        T(renames_keep_the_tree),
        T(links_share_and_point),
        T(attributes_are_remembered),
        T(descriptors_are_the_lowest_free),
        T(flags_and_locks),
        T(devices_do_what_they_are_for),
        T(standard_streams_are_the_interfaces),
        T(later_parts_of_a_vector_do_not_wait),
        T(sendfile_takes_pages),
        T(proc_tells_of_the_process),
        T(unnamed_files),
        T(a_new_start_finds_the_image),
    };
    return cmocka_run_group_tests(tests, fake_group_setup, NULL);
}
