/* test_image_tags.c - tags of images, lists, and the collection of what nothing refers to. */
#include "tests/unit/image_support.h"

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

static void on_list(void *arg, int rc, const struct image_info *list, size_t count,
                    const struct un_error *e)
{
    struct answer *a = arg;
    a->count = count;
    if (count) {
        a->info = list[count - 1];
    }
    answer_take(a, rc, e);
}

static int tag(struct image_ground *ig, const char *name, const char *digest)
{
    image_tag(ig->is, name, digest, on_done, &ig->a);
    return answer_wait(ig);
}

static int collect(struct image_ground *ig, uint64_t min_age_us)
{
    image_collect_garbage(ig->is, min_age_us, on_done, &ig->a);
    return answer_wait(ig);
}

static void tags_name_images_and_move(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(50000, 13);
    char one[IMAGE_DIGEST_SIZE], two[IMAGE_DIGEST_SIZE];
    assert_int_equal(push(ig, data, 40000), 0);
    strcpy(one, ig->a.info.digest);
    assert_int_equal(push(ig, data, 50000), 0);
    strcpy(two, ig->a.info.digest);
    assert_int_equal(tag(ig, "app/web:1.0", one), 0);
    assert_int_equal(get(ig, "app/web:1.0"), 0);
    assert_string_equal(ig->a.info.digest, one);
    assert_int_equal(tag(ig, "app/web:1.0", two), 0);
    assert_int_equal(get(ig, "app/web:1.0"), 0);
    assert_string_equal(ig->a.info.digest, two);
    assert_int_equal(tag(ig, "no spaces", one), -EINVAL);
    assert_int_equal(tag(ig, "", one), -EINVAL);
    assert_int_equal(tag(ig, one, one), -EINVAL);
    assert_int_equal(tag(ig, "x", "sha256:junk"), -ENOENT);
    assert_int_equal(get(ig, "nothing"), -ENOENT);
    image_list(ig->is, on_list, &ig->a);
    assert_int_equal(answer_wait(ig), 0);
    assert_int_equal(ig->a.count, 2);
    assert_string_equal(ig->a.info.digest, two); /* the newest is last */
}

static char tags_text[2 * IMAGE_TAG_SIZE];

static void on_tags(void *arg, int rc, const struct image_tag_info *list, size_t count,
                    const struct un_error *e)
{
    struct answer *a = arg;
    a->count = count;
    for (size_t i = 0; i < count; i++) {
        size_t at = strlen(tags_text);
        snprintf(tags_text + at, sizeof tags_text - at, "%s=%.12s ", list[i].tag, list[i].digest);
    }
    answer_take(a, rc, e);
}

/* "tag=sha256:<5 digits> " of each tag. */
static const char *tags_of(struct image_ground *ig, const char *digest)
{
    tags_text[0] = '\0';
    image_tag_list(ig->is, digest, on_tags, &ig->a);
    assert_int_equal(answer_wait(ig), 0);
    return tags_text;
}

static void tags_are_listed_by_name_and_removed(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(50000, 13);
    char one[IMAGE_DIGEST_SIZE], two[IMAGE_DIGEST_SIZE], want[200];
    assert_int_equal(push(ig, data, 40000), 0);
    strcpy(one, ig->a.info.digest);
    assert_int_equal(push(ig, data, 50000), 0);
    strcpy(two, ig->a.info.digest);
    assert_string_equal(tags_of(ig, NULL), "");
    assert_int_equal(tag(ig, "z", one), 0);
    assert_int_equal(tag(ig, "m/n:1", two), 0);
    assert_int_equal(tag(ig, "a", one), 0);
    snprintf(want, sizeof want, "a=%.12s m/n:1=%.12s z=%.12s ", one, two, one);
    assert_string_equal(tags_of(ig, NULL), want);
    snprintf(want, sizeof want, "a=%.12s z=%.12s ", one, one);
    assert_string_equal(tags_of(ig, one), want);
    assert_string_equal(tags_of(ig, "junk"), "");

    image_untag(ig->is, "a", on_done, &ig->a);
    assert_int_equal(answer_wait(ig), 0);
    image_untag(ig->is, "a", on_done, &ig->a);
    assert_int_equal(answer_wait(ig), -ENOENT);
    image_untag(ig->is, "no spaces", on_done, &ig->a);
    assert_int_equal(answer_wait(ig), -ENOENT);
    assert_int_equal(get(ig, one), 0);
    image_remove(ig->is, one, on_done, &ig->a); /* its tags go with it */
    assert_int_equal(answer_wait(ig), 0);
    snprintf(want, sizeof want, "m/n:1=%.12s ", two);
    assert_string_equal(tags_of(ig, NULL), want);
}

static void tags_that_a_path_cannot_hold_are_refused(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(40000, 13);
    char longest[IMAGE_TAG_SIZE + 1];
    assert_int_equal(push(ig, data, 40000), 0);
    assert_int_equal(tag(ig, ".", ig->a.info.digest), -EINVAL);
    assert_int_equal(tag(ig, "..", ig->a.info.digest), -EINVAL);
    memset(longest, 'x', sizeof longest);
    longest[IMAGE_TAG_SIZE] = '\0';
    assert_int_equal(tag(ig, longest, ig->a.info.digest), -EINVAL);
    longest[IMAGE_TAG_SIZE - 1] = '\0';
    assert_int_equal(tag(ig, longest, ig->a.info.digest), 0);
    assert_int_equal(get(ig, longest), 0);
}

static void collection_spares_what_is_tagged_or_young(void **state)
{
    struct image_ground *ig = *state;
    un_autofree uint8_t *data = make_image(50000, 15);
    assert_int_equal(push(ig, data, 40000), 0);
    assert_int_equal(tag(ig, "kept", ig->a.info.digest), 0);
    assert_int_equal(push(ig, data, 50000), 0);
    assert_int_equal(collect(ig, 3600ull * 1000000), 0);
    assert_int_equal(ground_number(&ig->g, "SELECT count(*) FROM images"), 2);
    assert_int_equal(collect(ig, 0), 0);
    assert_int_equal(ground_number(&ig->g, "SELECT count(*) FROM images"), 1);
    assert_int_equal(get(ig, "kept"), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tags_name_images_and_move),
        TEST(tags_are_listed_by_name_and_removed),
        TEST(tags_that_a_path_cannot_hold_are_refused),
        TEST(collection_spares_what_is_tagged_or_young),
    };
    return cmocka_run_group_tests_name("image_tags", tests, NULL, NULL);
}
