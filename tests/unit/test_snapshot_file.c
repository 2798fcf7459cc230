/* test_snapshot_file.c - snapshot files: what is written is read back, and the cache is kept small. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "hypervisor/kvm/snapshot_file.h"

#define MIB (UINT64_C(1) << 20)

static const struct snapshot_cpu cpu = {.tsc_khz = 1000, .boot_flags = UNID_BOOT_FSGSBASE};
static char top[] = "/tmp/unid-test-snapshot-XXXXXX", dir[64];
static uint8_t channel[VMM_CHANNEL_SIZE];

static int setup(void **state)
{
    memcpy(top + sizeof(top) - 7, "XXXXXX", 6);
    if (!mkdtemp(top)) {
        return -1;
    }
    snprintf(dir, sizeof(dir), "%s/a/b", top);
    memset(channel, 0, sizeof(channel));
    return 0;
}

static int teardown(void **state)
{
    char command[96];
    snprintf(command, sizeof(command), "rm -rf %s", top);
    return system(command);
}

static const char *path_of(const char *file)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, file);
    return path;
}

static bool is_there(const char *file)
{
    return access(path_of(file), F_OK) == 0;
}

/* Writes a snapshot of 2 MiB whose memory has so many pages behind the channel that are not zero. */
static void write_snapshot(const char *key, unsigned pages)
{
    static struct vmm_state state = {.regs.rip = 0x1234};
    struct un_error err = UN_ERROR_INIT;
    int ram = memfd_create("ram", MFD_CLOEXEC);
    assert_true(ram >= 0);
    assert_int_equal(ftruncate(ram, 2 * MIB), 0);
    for (unsigned i = 0; i < pages; i++) {
        assert_int_equal(pwrite(ram, "x", 1, (off_t)(UNID_CHANNEL_END + i * UINT64_C(4096))), 1);
    }
    struct snapshot_source from = {.ram_fd = ram,
                                   .mem_bytes = 2 * MIB,
                                   .channel = channel,
                                   .state = (const uint8_t *)&state,
                                   .cpu = cpu};
    if (snapshot_file_write(dir, key, &from, &err) < 0) {
        fail_msg("%s", err.text);
    }
    close(ram);
}

/* As if it was used last so many seconds ago. */
static void unused_for(const char *file, time_t seconds)
{
    struct timespec t[2];
    clock_gettime(CLOCK_REALTIME, &t[0]);
    t[0].tv_sec -= seconds;
    t[1] = t[0];
    assert_int_equal(utimensat(AT_FDCWD, path_of(file), t, 0), 0);
}

static uint64_t disk_bytes(const char *file)
{
    struct stat st;
    assert_int_equal(stat(path_of(file), &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void read_ok(const char *key, struct snapshot_file *ret)
{
    struct un_error err = UN_ERROR_INIT;
    if (snapshot_file_read(dir, key, &cpu, ret, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static void what_is_written_is_read_back(void **state)
{
    struct snapshot_file f;
    struct un_error err = UN_ERROR_INIT;
    char byte = 0;
    channel[5] = 7;
    channel[sizeof(channel) - 1] = 9;
    write_snapshot("k", 3);
    read_ok("k", &f);
    assert_int_equal(f.mem_bytes, 2 * MIB);
    assert_int_equal(f.page_count, 2);
    assert_int_equal(f.page_at[0], 0);
    assert_int_equal(f.page_at[1], SNAPSHOT_CHANNEL_PAGES - 1);
    assert_int_equal(f.pages[5], 7);
    assert_int_equal(f.pages[2 * 4096 - 1], 9);
    assert_int_equal(pread(f.fd, &byte, 1, (off_t)(SNAPSHOT_MEM_AT + UNID_CHANNEL_END)), 1);
    assert_int_equal(byte, 'x');
    snapshot_file_release(&f);
    assert_int_equal(snapshot_file_read(dir, "other", &cpu, &f, &err), -ENOENT);
    struct snapshot_cpu slower = cpu, older = cpu;
    slower.tsc_khz--;
    older.boot_flags = 0;
    assert_int_equal(snapshot_file_read(dir, "k", &slower, &f, &err), -EBADMSG);
    assert_int_equal(snapshot_file_read(dir, "k", &older, &f, &err), -EBADMSG);
}

static void the_longest_unused_go_until_the_rest_fits(void **state)
{
    static const char *const files[] = {"a.snap", "b.snap", "c.snap", "d.snap"};
    static const time_t ages[] = {300, 400, 100, 200};
    for (int i = 0; i < 4; i++) {
        write_snapshot((const char[]){files[i][0], '\0'}, 64);
        unused_for(files[i], ages[i]);
    }
    uint64_t two = disk_bytes("c.snap") + disk_bytes("d.snap");
    assert_true(two >= 2 * 64 * 4096);
    snapshot_file_trim(dir, two * 2);
    for (int i = 0; i < 4; i++) {
        assert_true(is_there(files[i]));
    }
    snapshot_file_trim(dir, two);
    assert_false(is_there("a.snap"));
    assert_false(is_there("b.snap"));
    assert_true(is_there("c.snap"));
    assert_true(is_there("d.snap"));
    snapshot_file_trim(dir, two - 1);
    assert_false(is_there("d.snap"));
    assert_true(is_there("c.snap"));
    snapshot_file_trim(dir, 0);
    assert_false(is_there("c.snap"));
}

static void reading_one_keeps_it(void **state)
{
    struct snapshot_file f;
    write_snapshot("old", 64);
    write_snapshot("new", 64);
    unused_for("old.snap", 1000);
    unused_for("new.snap", 500);
    read_ok("old", &f);
    snapshot_file_release(&f);
    snapshot_file_trim(dir, disk_bytes("old.snap"));
    assert_true(is_there("old.snap"));
    assert_false(is_there("new.snap"));
}

/* What a file has in holes costs nothing. */
static void it_is_the_space_on_disk_that_counts(void **state)
{
    write_snapshot("sparse", 1);
    struct stat st;
    assert_int_equal(stat(path_of("sparse.snap"), &st), 0);
    assert_true((uint64_t)st.st_size > 2 * MIB);
    snapshot_file_trim(dir, MIB);
    assert_true(is_there("sparse.snap"));
}

static void leftovers_of_writes_go_when_they_are_old(void **state)
{
    write_snapshot("k", 1);
    for (int i = 0; i < 2; i++) {
        int fd =
            open(path_of(i ? ".new-older" : ".new-young"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        close(fd);
    }
    unused_for(".new-older", 3600);
    snapshot_file_trim(dir, MIB);
    assert_false(is_there(".new-older"));
    assert_true(is_there(".new-young"));
    assert_true(is_there("k.snap"));
    snapshot_file_trim("/nonexistent", 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* A snapshot of 2 MiB behind the channel with something on these pages of memory. */
static void write_pages(const char *key, const uint64_t *at, size_t count)
{
    static struct vmm_state state;
    struct un_error err = UN_ERROR_INIT;
    int ram = memfd_create("ram", MFD_CLOEXEC);
    assert_true(ram >= 0);
    assert_int_equal(ftruncate(ram, 4 * MIB), 0);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(pwrite(ram, "x", 1, (off_t)at[i]), 1);
    }
    struct snapshot_source from = {.ram_fd = ram,
                                   .mem_bytes = 4 * MIB,
                                   .channel = channel,
                                   .state = (const uint8_t *)&state,
                                   .cpu = cpu};
    assert_int_equal(snapshot_file_write(dir, key, &from, &err), 0);
    close(ram);
}

static bool zero(const struct snapshot_file *f, uint64_t at, uint64_t bytes)
{
    return at >= f->hole_at && at + bytes <= f->hole_at + f->hole_bytes;
}

static void the_longest_hole_is_told(void **state)
{
    struct snapshot_file f;
    const uint64_t behind = UNID_CHANNEL_END;
    const uint64_t low[] = {8192, behind + MIB, 4 * MIB - 1}, high[] = {behind, 3 * MIB};
    write_pages("low", low, 3);
    read_ok("low", &f);
    assert_true(f.low);
    assert_true(zero(&f, behind + MIB + 65536, 4 * MIB - 65536 - (behind + MIB + 65536)));
    assert_false(zero(&f, behind + MIB, 1));
    assert_false(zero(&f, 4 * MIB - 1, 1));
    assert_int_equal(f.hole_at % 4096 + f.hole_bytes % 4096, 0);
    snapshot_file_release(&f);
    write_pages("high", high, 2);
    read_ok("high", &f);
    assert_false(f.low);
    assert_true(zero(&f, behind + 65536, 3 * MIB - 65536 - (behind + 65536)));
    assert_true(f.hole_at > behind && !zero(&f, 3 * MIB, 1));
    snapshot_file_release(&f);
    write_pages("empty", NULL, 0);
    read_ok("empty", &f);
    assert_int_equal(f.hole_at, behind);
    assert_int_equal(f.hole_bytes, 4 * MIB - behind);
    snapshot_file_release(&f);
}

/* Writing system calls of this thread; 0 where the kernel does not count them. */
static unsigned long writes_so_far(void)
{
    char line[64];
    unsigned long n = 0;
    FILE *f = fopen("/proc/thread-self/io", "r");
    while (f && fgets(line, sizeof(line), f) && sscanf(line, "syscw: %lu", &n) != 1) {
    }
    if (f) {
        fclose(f);
    }
    return n;
}

/* The page cache makes large folios of it, a few zeros included; and what is written so is what is to be there. */
static void pages_in_a_row_are_written_in_large_pieces(void **state)
{
    enum { PAGES = 2000, ZERO = 100, WRITES_MAX = 8 };
    static struct vmm_state saved;
    struct un_error err = UN_ERROR_INIT;
    struct snapshot_file f;
    int ram = memfd_create("ram", MFD_CLOEXEC);
    assert_true(ram >= 0);
    assert_int_equal(ftruncate(ram, 16 * MIB), 0);
    for (uint32_t i = 0; i < PAGES; i++) {
        uint32_t word = i % ZERO ? i + 1 : 0;
        off_t at = (off_t)(UNID_CHANNEL_END + i * UINT64_C(4096));
        assert_int_equal(pwrite(ram, &word, sizeof(word), at), sizeof(word));
    }
    struct snapshot_source from = {.ram_fd = ram,
                                   .mem_bytes = 16 * MIB,
                                   .channel = channel,
                                   .state = (const uint8_t *)&saved,
                                   .cpu = cpu};
    unsigned long before = writes_so_far();
    assert_int_equal(snapshot_file_write(dir, "rows", &from, &err), 0);
    unsigned long after = writes_so_far();
    close(ram);
    assert_true(before == 0 || after - before <= WRITES_MAX + 2); /* state and header are two */
    read_ok("rows", &f);
    for (uint32_t i = 0; i < PAGES; i++) {
        uint32_t word;
        off_t at = (off_t)(SNAPSHOT_MEM_AT + UNID_CHANNEL_END + i * UINT64_C(4096));
        assert_int_equal(pread(f.fd, &word, sizeof(word), at), sizeof(word));
        assert_int_equal(word, i % ZERO ? i + 1 : 0);
    }
    /* What is a boundary of 2 MiB of memory is one of the file. */
    assert_int_equal(SNAPSHOT_MEM_AT % UNID_PIECE_SIZE, 0);
    snapshot_file_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_written_is_read_back),
        TEST(the_longest_unused_go_until_the_rest_fits),
        TEST(reading_one_keeps_it),
        TEST(it_is_the_space_on_disk_that_counts),
        TEST(leftovers_of_writes_go_when_they_are_old),
        TEST(the_longest_hole_is_told),
        TEST(pages_in_a_row_are_written_in_large_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
