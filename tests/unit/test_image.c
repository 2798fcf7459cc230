/* test_image.c - the image store: uploads and their ends, reading, removal, the cache. Kinds:
 * test_recognise.c, tags: test_image_tags.c. */
#include "tests/unit/image_support.h"

#include <time.h>

static int set_up(void **state)
{
    struct image_ground *ig = calloc(1, sizeof *ig);
    image_ground_open(ig);
    *state = ig;
    return 0;
}

static int tear_down(void **state)
{
#ifdef UNID_FAULT_INJECTION
    un_fault_set(NULL);
#endif
    image_ground_close(*state);
    free(*state);
    return 0;
}

static int64_t chunks(struct image_ground *ig)
{
    return ground_number(&ig->g, "SELECT count(*) FROM image_chunks");
}

/* Removing chunks goes on after the answer; a write job queued behind it tells when it is over. */
static void assert_nothing_stored(struct image_ground *ig)
{
    for (int i = 0; i < 200 && chunks(ig) > 0; i++) {
        un_loop_run_ready(ig->g.loop);
        ground_write(&ig->g, "SELECT 1");
    }
    assert_int_equal(chunks(ig), 0);
    assert_int_equal(ground_number(&ig->g, "SELECT count(*) FROM images"), 0);
}

/* --- digests -------------------------------------------------------------------------------------- */

static struct un_error err;

static void digests_are_checked_to_the_letter(void **state)
{
    char good[] = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    assert_true(image_digest_valid(good));
    good[70] = 'F';
    assert_false(image_digest_valid(good));
    good[70] = '\0';
    assert_false(image_digest_valid(good));
    assert_false(image_digest_valid(""));
    assert_false(image_digest_valid(NULL));
}

/* --- uploads ---------------------------------------------------------------------------------- */

static void an_upload_becomes_an_image(void **state)
{
    struct image_ground *ig = *state;
    static const size_t sizes[] = {8192, 262144, 262145, 600000, 12 * 1048576 + 7};
    for (size_t i = 0; i < UN_ARRAY_SIZE(sizes); i++) {
        un_autofree uint8_t *data = make_image(sizes[i], (uint32_t)i);
        char digest[IMAGE_DIGEST_SIZE];
        digest_of(data, sizes[i], digest);
        assert_int_equal(push_declared(ig, data, sizes[i], (int64_t)sizes[i], digest), 0);
        assert_true(ig->a.created);
        assert_string_equal(ig->a.info.digest, digest);
        assert_int_equal(ig->a.info.kind, IMAGE_SDK);
        assert_int_equal(get(ig, digest), 0);
        assert_int_equal(ig->a.info.size_bytes, sizes[i]);
        assert_int_equal(ig->a.info.function_versions, 0);
        assert_in_range(ig->a.info.created_us / 1000000, time(NULL) - 60, time(NULL) + 1);
    }
}

static void the_same_bytes_are_stored_once(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(900000, 1);
    assert_int_equal(push(ig, data, 900000), 0);
    assert_true(ig->a.created);
    uint64_t created_us = ig->a.info.created_us;
    int64_t before = chunks(ig);
    assert_int_equal(push(ig, data, 900000), 0);
    assert_false(ig->a.created);
    assert_int_equal(ig->a.info.created_us, created_us);
    image_ground_stop(ig);
    image_ground_start(ig, 64 << 20);
    assert_int_equal(chunks(ig), before);
}

static void two_uploads_at_once_of_the_same_bytes_give_one_image(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(700000, 2);
    struct answer first = ig->a;
    struct image_upload_spec spec = {.declared_size = -1, .events = &upload_events, .arg = &first};
    struct image_upload *one, *two = upload_open(ig, -1, NULL);
    assert_int_equal(image_upload_start(ig->is, &spec, &one, &err), 0);
    image_upload_data(one, data, 700000);
    image_upload_data(two, data, 700000);
    image_upload_finish(one);
    image_upload_finish(two);
    while (!first.calls || !ig->a.calls) {
        ground_wait(&ig->g);
    }
    assert_int_equal(first.rc, 0);
    assert_int_equal(ig->a.rc, 0);
    assert_int_equal(first.created + ig->a.created, 1);
    assert_int_equal(ground_number(&ig->g, "SELECT count(*) FROM images"), 1);
}

static void a_truncated_upload_is_undone(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(3000000, 3);
    assert_int_equal(push_declared(ig, data, 2999999, 3000000, NULL), -EBADMSG);
    assert_non_null(strstr(ig->a.text, "2999999 bytes came of the declared 3000000"));
    assert_nothing_stored(ig);
}

static void a_longer_upload_than_declared_is_undone(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(3000000, 3);
    assert_int_equal(push_declared(ig, data, 3000000, 2999999, NULL), -EBADMSG);
    assert_nothing_stored(ig);
}

static void a_wrong_digest_is_undone(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(3000000, 4);
    char digest[IMAGE_DIGEST_SIZE];
    digest_of(data, 2999999, digest);
    assert_int_equal(push_declared(ig, data, 3000000, -1, digest), -EBADMSG);
    assert_non_null(strstr(ig->a.text, digest));
    assert_int_equal(push_declared(ig, data, 3000000, -1, "sha256:123"), -EBADMSG);
    assert_nothing_stored(ig);
}

static void what_is_no_image_is_undone(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(1000000, 5);
    data[0] = 'x';
    assert_int_equal(push(ig, data, 1000000), -EINVAL);
    assert_int_equal(push(ig, data, 0), -EINVAL);
    assert_nothing_stored(ig);
}

static void too_long_is_refused_as_soon_as_known(void **state)
{
    struct image_ground *ig = *state;
    assert_int_equal(push_declared(ig, "x", 1, (64 << 20) + 1, NULL), -EFBIG);
    un_autofree uint8_t *data = make_image(8 << 20, 6);
    struct image_upload *up = upload_open(ig, -1, NULL);
    bool going = true;
    int sent = 0;
    while (going && sent++ < 20) {
        going = upload_send(ig, up, data, 8 << 20);
    }
    assert_int_equal(sent, 9);
    assert_int_equal(ig->a.rc, -EFBIG);
    assert_nothing_stored(ig);
}

static void an_aborted_upload_leaves_nothing(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(6 << 20, 7);
    struct image_upload *up = upload_open(ig, -1, NULL);
    assert_true(upload_send(ig, up, data, 6 << 20));
    image_upload_abort(up);
    up = upload_open(ig, -1, NULL);
    image_upload_abort(up); /* before anything came */
    assert_nothing_stored(ig);
    assert_int_equal(ig->a.calls, 0);
}

static void the_source_is_told_to_wait_and_to_go_on(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(8 << 20, 8);
    struct image_upload *up = upload_open(ig, -1, NULL);
    size_t at = 0;
    while (at < 8 << 20 && image_upload_data(up, data + at, 65536)) {
        at += 65536; /* the loop does not run: nothing is taken off */
    }
    assert_in_range(at, (4 << 20) - 262144, (4 << 20) + 262144);
    ground_wait(&ig->g); /* on_room */
    assert_int_equal(ig->a.calls, 0);
    image_upload_abort(up);
    assert_nothing_stored(ig);
}

static void what_a_crash_left_is_removed_at_the_next_start(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(900000, 9);
    char temp[160], overlay[180]; /* of a disk whose changes are lost */
    assert_int_equal(push(ig, data, 900000), 0);
    int64_t whole = chunks(ig);
    ground_write(&ig->g, "INSERT INTO image_chunks SELECT (77 << 24) + value, zeroblob(1000)"
                         " FROM (WITH RECURSIVE n(value) AS (VALUES(0) UNION ALL"
                         " SELECT value + 1 FROM n WHERE value < 150) SELECT value FROM n)");
    snprintf(temp, sizeof temp, "%s/cache/images/%s.0.tmp", ig->g.dir, ig->a.info.digest + 7);
    snprintf(overlay, sizeof overlay, "%s/cache/images/%s.TRANSIENT-unid-1", ig->g.dir,
             ig->a.info.digest + 7);
    close(open(temp, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    close(open(overlay, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    image_ground_stop(ig);
    image_ground_start(ig, 64 << 20);
    assert_int_equal(chunks(ig), whole);
    assert_int_equal(access(temp, F_OK), -1);
    assert_int_equal(access(overlay, F_OK), -1);
    assert_int_equal(push(ig, data, 800000), 0); /* the blob's number is free again */
    assert_true(ig->a.created);
}

static void full_disk_leaves_what_a_crash_left_for_the_next_start(void **state)
{
#ifdef UNID_FAULT_INJECTION
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(900000, 9);
    assert_int_equal(push(ig, data, 900000), 0);
    int64_t whole = chunks(ig);
    ground_write(&ig->g, "INSERT INTO image_chunks VALUES (77 << 24, zeroblob(1000))");
    image_ground_stop(ig);
    un_fault_set("store.commit=ENOSPC@1");
    image_ground_start(ig, 64 << 20);
    un_fault_set(NULL);
    assert_int_equal(chunks(ig), whole + 1);
    assert_int_equal(push(ig, data, 800000), 0); /* its blob is not 77, whose bytes are there */
    image_ground_stop(ig);
    image_ground_start(ig, 64 << 20);
    int64_t both = chunks(ig);
    image_ground_stop(ig);
    image_ground_start(ig, 64 << 20);
    assert_int_equal(chunks(ig), both); /* what had been left is gone, what was pushed is not */
    assert_true(both > whole && both < whole + 10);
#else
    print_message("skipped: fault points are not compiled in (--enable-fault-injection)\n");
    skip();
#endif
}

static void a_full_disk_undoes_the_upload_and_the_store_goes_on(void **state)
{
    struct image_ground *ig = *state;
    char sql[64];
    un_autofree uint8_t *data = make_image(4 << 20, 10);
    assert_int_equal(push(ig, data, 500000), 0);
    char kept[IMAGE_DIGEST_SIZE];
    strcpy(kept, ig->a.info.digest);
    int64_t pages = ground_number(&ig->g, "PRAGMA page_count");
    snprintf(sql, sizeof sql, "PRAGMA max_page_count=%lld", (long long)pages + 70);
    ground_write(&ig->g, sql);
    assert_int_equal(push(ig, data, 4 << 20), -ENOSPC);
    for (int i = 0; i < 200 && chunks(ig) > 2; i++) {
        un_loop_run_ready(ig->g.loop);
        ground_write(&ig->g, "SELECT 1");
    }
    assert_int_equal(chunks(ig), 2);
    assert_int_equal(push(ig, data, 600000), 0); /* into the pages that are free again */
    assert_int_equal(get(ig, kept), 0);
}

/* --- reading ---------------------------------------------------------------------------------- */

struct reading {
    struct ground *g;
    struct image_reader *r;
    struct un_buf got;
    size_t stop_after;
    int rc;
    unsigned ends;
};

static void on_read_data(void *arg, const void *data, size_t len)
{
    struct reading *rd = arg;
    assert_int_equal(un_buf_append(&rd->got, data, len), 0);
    if (rd->stop_after && rd->got.len >= rd->stop_after) {
        image_read_abort(rd->r);
        ground_came(rd->g);
        return;
    }
    image_read_next(rd->r);
}

static void on_read_end(void *arg, int rc, const struct un_error *e)
{
    struct reading *rd = arg;
    rd->rc = rc;
    rd->ends++;
    ground_came(rd->g);
}

static const struct image_read_events read_events = {on_read_data, on_read_end};

static void an_image_reads_back_as_it_came(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(2000001, 11);
    struct reading rd = {.g = &ig->g};
    assert_int_equal(push(ig, data, 2000001), 0);
    assert_int_equal(image_read_start(ig->is, ig->a.info.digest, &read_events, &rd, &rd.r, &err),
                     0);
    ground_wait(&ig->g);
    assert_int_equal(rd.rc, 0);
    assert_int_equal(rd.got.len, 2000001);
    assert_memory_equal(rd.got.data, data, 2000001);
    un_buf_reset(&rd.got);
    rd.stop_after = 262144;
    assert_int_equal(image_read_start(ig->is, ig->a.info.digest, &read_events, &rd, &rd.r, &err),
                     0);
    ground_wait(&ig->g);
    assert_int_equal(rd.got.len, 262144);
    assert_int_equal(rd.ends, 1); /* only the first */
    un_buf_done(&rd.got);
}

static void reading_what_is_not_there_or_damaged_is_told(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(600000, 12);
    struct reading rd = {.g = &ig->g};
    char digest[IMAGE_DIGEST_SIZE];
    digest_of(data, 1, digest);
    assert_int_equal(image_read_start(ig->is, digest, &read_events, &rd, &rd.r, &err), 0);
    ground_wait(&ig->g);
    assert_int_equal(rd.rc, -ENOENT);
    assert_int_equal(push(ig, data, 600000), 0);
    ground_write(&ig->g, "UPDATE image_chunks SET data = zeroblob(3) WHERE id & 1");
    assert_int_equal(image_read_start(ig->is, ig->a.info.digest, &read_events, &rd, &rd.r, &err),
                     0);
    ground_wait(&ig->g);
    assert_int_equal(rd.rc, -EUCLEAN);
    assert_int_equal(image_read_start(ig->is, "junk", &read_events, &rd, &rd.r, &err), -ENOENT);
    un_buf_done(&rd.got);
}

/* --- removal ---------------------------------------------------------------------------------- */

static void a_removed_image_is_gone_with_its_bytes(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(40 << 20, 14); /* several steps of removal */
    assert_int_equal(push(ig, data, 40 << 20), 0);
    image_remove(ig->is, ig->a.info.digest, on_done, &ig->a);
    assert_int_equal(answer_wait(ig), 0);
    assert_int_equal(get(ig, ig->a.info.digest), -ENOENT);
    assert_nothing_stored(ig);
    image_remove(ig->is, ig->a.info.digest, on_done, &ig->a);
    assert_int_equal(answer_wait(ig), -ENOENT);
}

/* --- running ---------------------------------------------------------------------------------- */

static void cache_path(struct image_ground *ig, const char *digest, char ret[200])
{
    snprintf(ret, 200, "%s/cache/images/%s", ig->g.dir, digest + 7);
}

static void an_image_is_mapped_as_it_came(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(9 << 20, 16); /* more than one step of unpacking */
    assert_int_equal(push(ig, data, 9 << 20), 0);
    assert_null(image_peek(ig->is, ig->a.info.digest));
    assert_int_equal(map_image(ig, ig->a.info.digest), 0);
    struct image_mapping *m = ig->a.mapping;
    assert_int_equal(m->size, 9 << 20);
    assert_int_equal(m->kind, IMAGE_SDK);
    assert_memory_equal(m->data, data, 9 << 20);
    assert_ptr_equal(image_peek(ig->is, ig->a.info.digest), m);
    assert_int_equal(map_image(ig, ig->a.info.digest), 0);
    assert_ptr_equal(ig->a.mapping, m);
    image_unref(m);
    assert_memory_equal(m->data, data, 4096); /* the other reference holds it */
    image_unref(m);
}

static void several_that_wait_share_one_unpacking(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(500000, 17);
    struct answer answers[5];
    assert_int_equal(push(ig, data, 500000), 0);
    for (int i = 0; i < 5; i++) {
        answers[i] = (struct answer){.g = &ig->g};
        image_open(ig->is, ig->a.info.digest, on_open, &answers[i]);
        assert_int_equal(answers[i].calls, 0);
    }
    for (int i = 0; i < 5; i++) {
        while (!answers[i].calls) {
            ground_wait(&ig->g);
        }
        assert_int_equal(answers[i].rc, 0);
        assert_ptr_equal(answers[i].mapping, answers[0].mapping);
    }
    for (int i = 0; i < 5; i++) {
        image_unref(answers[i].mapping);
    }
}

static void a_damaged_cache_file_is_made_anew(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(500000, 18);
    char path[200];
    assert_int_equal(push(ig, data, 500000), 0);
    cache_path(ig, ig->a.info.digest, path);
    for (int damage = 0; damage < 3; damage++) {
        image_ground_stop(ig); /* a new life checks the digest again */
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        if (damage == 0) {
            assert_int_equal(write(fd, "short", 5), 5);
        } else if (damage == 1) {
            assert_int_equal(pwrite(fd, "X", 1, 400000), 1);
        } else {
            unlink(path);
        }
        close(fd);
        image_ground_start(ig, 64 << 20);
        assert_int_equal(map_image(ig, ig->a.info.digest), 0);
        assert_memory_equal(ig->a.mapping->data, data, 500000);
        image_unref(ig->a.mapping);
    }
}

static void bytes_damaged_in_the_database_do_not_run(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(300000, 19);
    char path[200];
    assert_int_equal(push(ig, data, 300000), 0);
    ground_write(&ig->g, "UPDATE image_chunks SET data = zeroblob(length(data)) WHERE id & 1");
    assert_int_equal(map_image(ig, ig->a.info.digest), -EUCLEAN);
    cache_path(ig, ig->a.info.digest, path);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(map_image(ig, "sha256:none"), -ENOENT);
}

static void the_cache_is_bounded_by_the_last_use(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(400000, 20);
    char paths[3][200];
    image_ground_stop(ig);
    image_ground_start(ig, 700000);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(push(ig, data, 300000 + (size_t)i), 0);
        cache_path(ig, ig->a.info.digest, paths[i]);
        assert_int_equal(map_image(ig, ig->a.info.digest), 0);
        if (i == 1) { /* the first was used last */
            struct timespec late[2] = {{.tv_sec = 4000000000}, {.tv_sec = 4000000000}};
            assert_int_equal(utimensat(AT_FDCWD, paths[0], late, 0), 0);
        }
        image_unref(ig->a.mapping);
    }
    image_ground_stop(ig); /* which waits for the worker */
    assert_int_equal(access(paths[0], F_OK), 0);
    assert_int_equal(access(paths[1], F_OK), -1);
    image_ground_start(ig, 64 << 20);
}

/* Whoever has a mapping may have the path as well. */
static void the_cache_keeps_what_is_in_use(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(400000, 20);
    char paths[3][200];
    struct image_mapping *held[3];
    image_ground_stop(ig);
    image_ground_start(ig, 500000);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(push(ig, data, 300000 + (size_t)i), 0);
        cache_path(ig, ig->a.info.digest, paths[i]);
        assert_int_equal(map_image(ig, ig->a.info.digest), 0);
        held[i] = ig->a.mapping;
        if (i == 1) {
            image_unref(held[i]);
        }
    }
    image_unref(held[0]);
    image_unref(held[2]);
    image_ground_stop(ig); /* which waits for the worker */
    assert_int_equal(access(paths[0], F_OK), 0);
    assert_int_equal(access(paths[1], F_OK), -1);
    assert_int_equal(access(paths[2], F_OK), 0);
    image_ground_start(ig, 64 << 20);
}

static void a_mapping_outlives_its_image(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(300000, 21);
    assert_int_equal(push(ig, data, 300000), 0);
    assert_int_equal(map_image(ig, ig->a.info.digest), 0);
    struct image_mapping *m = ig->a.mapping;
    image_remove(ig->is, ig->a.info.digest, on_done, &ig->a);
    assert_int_equal(answer_wait(ig), 0);
    assert_memory_equal(m->data, data, 300000);
    assert_null(image_peek(ig->is, m->digest));
    assert_int_equal(map_image(ig, m->digest), -ENOENT);
    image_unref(m);
    assert_int_equal(push(ig, data, 300000), 0);
    assert_int_equal(map_image(ig, ig->a.info.digest), 0);
    image_unref(ig->a.mapping);
}

#ifdef UNID_FAULT_INJECTION
static void every_failing_step_of_an_upload_undoes_it(void **state)
{
    struct image_ground *ig = *state;
    static const struct {
        const char *plan;
        int rc;
    } cases[] = {
        {"image.upload=ENOMEM", -ENOMEM}, {"image.chunk=ENOMEM@2", -ENOMEM},
        {"store.room=ENOSPC@2", -ENOSPC}, {"store.step=ENOSPC@3+", -ENOSPC},
        {"store.commit=ENOSPC", -ENOSPC}, {"store.begin=EIO@2+", -EIO},
        {"store.step=EIO@13+", -EIO},
    };
    un_autofree uint8_t *data = make_image(3 << 20, 22);
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        un_fault_set(cases[i].plan);
        int rc = push(ig, data, 3 << 20);
        un_fault_set(NULL);
        if (rc != cases[i].rc) {
            fail_msg("%s: %d %s", cases[i].plan, rc, ig->a.text);
        }
        image_ground_stop(ig); /* what could not be removed is, at the start */
        image_ground_start(ig, 64 << 20);
        assert_nothing_stored(ig);
    }
    assert_int_equal(push(ig, data, 3 << 20), 0);
}

static void every_failing_step_of_an_opening_is_told(void **state)
{
    struct image_ground *ig = *state;
    static const struct {
        const char *plan;
        int rc;
    } cases[] = {
        {"image.open=ENOMEM", -ENOMEM},
        {"image.entry=ENOMEM", -ENOMEM},
        {"image.cache_write=ENOSPC@2", -ENOSPC},
        {"store.read=EIO@2", -EIO},
    };
    un_autofree uint8_t *data = make_image(900000, 23);
    assert_int_equal(push(ig, data, 900000), 0);
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        un_fault_set(cases[i].plan);
        int rc = map_image(ig, ig->a.info.digest);
        un_fault_set(NULL);
        if (rc != cases[i].rc) {
            fail_msg("%s: %d %s", cases[i].plan, rc, ig->a.text);
        }
    }
    assert_int_equal(map_image(ig, ig->a.info.digest), 0);
    image_unref(ig->a.mapping);
}
#endif

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_checked_to_the_letter),
        TEST(an_upload_becomes_an_image),
        TEST(the_same_bytes_are_stored_once),
        TEST(two_uploads_at_once_of_the_same_bytes_give_one_image),
        TEST(a_truncated_upload_is_undone),
        TEST(a_longer_upload_than_declared_is_undone),
        TEST(a_wrong_digest_is_undone),
        TEST(what_is_no_image_is_undone),
        TEST(too_long_is_refused_as_soon_as_known),
        TEST(an_aborted_upload_leaves_nothing),
        TEST(the_source_is_told_to_wait_and_to_go_on),
        TEST(what_a_crash_left_is_removed_at_the_next_start),
        TEST(full_disk_leaves_what_a_crash_left_for_the_next_start),
        TEST(a_full_disk_undoes_the_upload_and_the_store_goes_on),
        TEST(an_image_reads_back_as_it_came),
        TEST(reading_what_is_not_there_or_damaged_is_told),
        TEST(a_removed_image_is_gone_with_its_bytes),
        TEST(an_image_is_mapped_as_it_came),
        TEST(several_that_wait_share_one_unpacking),
        TEST(a_damaged_cache_file_is_made_anew),
        TEST(bytes_damaged_in_the_database_do_not_run),
        TEST(the_cache_is_bounded_by_the_last_use),
        TEST(the_cache_keeps_what_is_in_use),
        TEST(a_mapping_outlives_its_image),
#ifdef UNID_FAULT_INJECTION
        TEST(every_failing_step_of_an_upload_undoes_it),
        TEST(every_failing_step_of_an_opening_is_told),
#endif
    };
    return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
