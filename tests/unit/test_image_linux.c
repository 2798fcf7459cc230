/* test_image_linux.c - images of Linux programs in the store: mapped prepared, kept, made anew.
 */
#include "tests/unit/image_support.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/elf.h"
#include "imagestore/internal.h"
#include "unid/rootfs.h"

static size_t count_files(struct image_ground *ig)
{
    char path[200];
    struct dirent *d;
    size_t count = 0;
    snprintf(path, sizeof path, "%s/cache/images", ig->g.dir);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while ((d = readdir(dir))) {
        count += d->d_name[0] != '.';
    }
    closedir(dir);
    return count;
}

static void a_program_is_mapped_prepared_and_its_bytes_are_not_kept(void **state)
{
    struct image_ground *ig = *state;
    struct elf_file f;
    struct un_elf elf;
    struct un_error none = UN_ERROR_INIT;
    elf_make(&f);
    assert_int_equal(push(ig, f.data, sizeof f.data), 0);
    assert_int_equal(ig->a.info.kind, IMAGE_LINUX_STATIC);
    for (int life = 0; life < 2; life++) {
        assert_int_equal(map_image(ig, ig->a.info.digest), 0);
        struct image_mapping *m = ig->a.mapping;
        assert_int_equal(un_elf_parse(m->data, m->size, m->size, &elf, &none), 0);
        assert_true(elf.high > UNID_DIRECT_MAP + UNID_LIBOS_END);
        assert_true(m->report_size > 2 && m->report[0] == '{');
        assert_true(m->memory_least > 0 && m->memory_advised > m->memory_least);
        assert_int_equal(count_files(ig), 1);
        image_unref(m);
        image_ground_stop(ig);
        image_ground_start(ig, 64 << 20); /* the prepared image is found again */
    }
}

static void a_damaged_prepared_image_is_made_anew(void **state)
{
    struct image_ground *ig = *state;
    struct elf_file f;
    char path[200], name[65];
    elf_make(&f);
    assert_int_equal(push(ig, f.data, sizeof f.data), 0);
    char digest[IMAGE_DIGEST_SIZE];
    memcpy(digest, ig->a.info.digest, sizeof digest);
    assert_int_equal(map_image(ig, digest), 0);
    un_autofree uint8_t *want = malloc(ig->a.mapping->size);
    size_t size = ig->a.mapping->size;
    memcpy(want, ig->a.mapping->data, size);
    image_unref(ig->a.mapping);
    assert_int_equal(image_prepared_name(digest, name, NULL), 0);
    snprintf(path, sizeof path, "%s/cache/images/%s", ig->g.dir, name);
    for (int damage = 0; damage < 4; damage++) {
        image_ground_stop(ig); /* a new life checks the digest again */
        int fd = open(path, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        struct stat st;
        assert_int_equal(fstat(fd, &st), 0);
        if (damage == 0) {
            assert_int_equal(pwrite(fd, "X", 1, 5000), 1);
        } else if (damage == 1) {
            assert_int_equal(pwrite(fd, "X", 1, st.st_size - 1), 1);
        } else if (damage == 2) {
            assert_int_equal(ftruncate(fd, 100), 0);
        } else {
            assert_int_equal(unlink(path), 0);
        }
        close(fd);
        image_ground_start(ig, 64 << 20);
        assert_int_equal(map_image(ig, digest), 0);
        assert_int_equal(ig->a.mapping->size, size);
        assert_memory_equal(ig->a.mapping->data, want, size);
        image_unref(ig->a.mapping);
    }
}

static void what_cannot_be_prepared_leaves_a_report_and_no_file(void **state)
{
    struct image_ground *ig = *state;
    struct elf_file f;
    elf_make(&f);
    elf_add_interp(&f);
    assert_int_equal(push(ig, f.data, sizeof f.data), 0);
    assert_int_equal(ig->a.info.kind, IMAGE_LINUX_DYNAMIC);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(map_image(ig, ig->a.info.digest), -EINVAL);
        assert_non_null(strstr(ig->a.text, "interpreter"));
        assert_non_null(strstr(image_failure_report(ig->is, ig->a.info.digest), "\"problems\""));
        assert_int_equal(count_files(ig), 0);
    }
    assert_null(image_failure_report(ig->is, "sha256:x"));
}

/* The head of a file in a tar archive (POSIX.1-1988, ustar). */
static void tar_file_head(uint8_t head[512], const char *name, size_t size)
{
    unsigned sum = 0;
    snprintf((char *)head, 100, "%s", name);
    memcpy(head + 100, "0000755", 8);
    memcpy(head + 108, "0000000", 8);
    memcpy(head + 116, "0000000", 8);
    snprintf((char *)head + 124, 12, "%011zo", size);
    memcpy(head + 136, "00000000000", 12);
    memcpy(head + 148, "        0ustar\00000", 17);
    memcpy(head + 257, "ustar\00000", 8);
    head[156] = '0';
    memset(head + 157, 0, 100);
    for (int i = 0; i < 512; i++) {
        sum += head[i];
    }
    snprintf((char *)head + 148, 8, "%06o", sum);
}

static void an_archive_is_an_image_too(void **state)
{
    struct image_ground *ig = *state;
    uint8_t tar[1536] = {0};
    tar_file_head(tar, "hello", 0);
    assert_int_equal(push(ig, tar, sizeof tar), 0);
    assert_int_equal(ig->a.info.kind, IMAGE_LINUX_ROOTFS);
    assert_int_equal(map_image(ig, ig->a.info.digest), 0);
    assert_non_null(memmem(ig->a.mapping->data, ig->a.mapping->size, "hello", 5));
    image_unref(ig->a.mapping);
}

static void on_gone(void *arg, int rc, const char *report, const struct un_error *err)
{
    struct image_ground *ig = arg;
    assert_null(report);
    answer_take(&ig->a, rc, err);
}

static void on_judged(void *arg, int rc, const char *report, const struct un_error *err)
{
    struct image_ground *ig = arg;
    assert_non_null(report);
    assert_non_null(strstr(report, "\"program\":\"/")); /* the one that was asked for */
    answer_take(&ig->a, rc, err);
}

static void another_program_of_an_archive_is_judged(void **state)
{
    struct image_ground *ig = *state;
    struct elf_file f;
    uint8_t tar[1536 + sizeof f.data] = {0};
    size_t len = (sizeof f.data + 511) / 512 * 512;
    elf_make(&f);
    tar_file_head(tar, "prog", sizeof f.data);
    memcpy(tar + 512, f.data, sizeof f.data);
    assert_int_equal(push(ig, tar, 512 + len + 512), 0);
    assert_int_equal(ig->a.info.kind, IMAGE_LINUX_ROOTFS);
    image_judge(ig->is, ig->a.info.digest, "/prog", on_judged, ig);
    assert_int_equal(answer_wait(ig), 0);
    image_judge(ig->is, ig->a.info.digest, "/other", on_judged, ig);
    assert_int_equal(answer_wait(ig), -EINVAL);
    assert_non_null(strstr(ig->a.text, "/other: the program is not in the root file system"));
    assert_int_equal(count_files(ig), 0);
    image_judge(ig->is, "sha256:none", "/prog", on_gone, ig);
    assert_int_equal(answer_wait(ig), -ENOENT);
}

static int set_up(void **state)
{
    struct image_ground *ig = calloc(1, sizeof *ig);
    assert_non_null(ig);
    image_ground_open(ig);
    *state = ig;
    return 0;
}

static int tear_down(void **state)
{
    image_ground_close(*state);
    free(*state);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_program_is_mapped_prepared_and_its_bytes_are_not_kept),
        TEST(a_damaged_prepared_image_is_made_anew),
        TEST(what_cannot_be_prepared_leaves_a_report_and_no_file),
        TEST(an_archive_is_an_image_too),
        TEST(another_program_of_an_archive_is_judged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
