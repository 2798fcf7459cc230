/* test_alloc.c - memory runs out at any one place: the helpers of common/, what is parsed, the image
 * store and the registry. Calls: test_alloc_sched.c; HTTP: test_alloc_api.c. */
#include "tests/unit/image_support.h"

#include "api/http/head.h"
#include "common/json.h"
#include "common/limits.h"
#include "daemon/config.h"
#include "hypervisor/channel.h"
#include "imagestore/function.h"
#include "tests/unit/alloc_support.h"

#define D64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* --- common ----------------------------------------------------------------------------------- */

static int fill_buffer(void *arg)
{
    un_autobuf struct un_buf b = {0};
    int rc = 0;
    for (unsigned i = 0; i < 100 && rc == 0; i++) {
        size_t len = b.len;
        rc = i % 2 ? un_buf_printf(&b, "%u of a hundred,", i) : un_buf_append_str(&b, "some text,");
        assert_true(rc == 0 || b.len == len);
    }
    if (rc == 0) {
        un_autofree char *text = un_buf_steal_str(&b);
        rc = text ? 0 : -ENOMEM;
    }
    return rc;
}

static int print_json(void *arg)
{
    static const char text[] = "{\"a\":[1,2.5,\"three\",{\"b\":null}],\"c\":{\"d\":true}}";
    struct un_error err = UN_ERROR_INIT;
    un_autojson json_t *j = NULL;
    int rc = un_json_parse(text, strlen(text), &j, &err);
    if (rc < 0) {
        return rc;
    }
    un_autofree char *again = un_json_text(j);
    assert_true(!again || strcmp(again, text) == 0);
    return again ? 0 : -ENOMEM;
}

static int start_workers(void *arg)
{
    struct un_error err = UN_ERROR_INIT;
    struct un_loop *loop = NULL;
    struct un_workers *workers = NULL;
    int rc = un_loop_new(&loop, &err);
    rc = rc ? rc : un_workers_new(loop, "test", 2, &workers, &err);
    un_workers_free(workers);
    un_loop_free(loop);
    return rc;
}

/* Memory runs out for the first, which makes a value and gives up; the second writes one. */
static int give_up(struct un_job *job, struct un_error *err)
{
    alloc_fail_at(1, false);
    json_t *none = json_array();
    assert_true(alloc_fail_end() && !none);
    return -ENOMEM;
}

static int write_text(struct un_job *job, struct un_error *err)
{
    json_t *value = json_array();
    un_autofree char *text = un_json_text(value);
    json_decref(value);
    return text ? 0 : -ENOMEM;
}

static void keep_result(struct un_job *job, int rc, const struct un_error *err)
{
}

static void one_job_s_want_is_not_the_next_one_s(void **state)
{
    struct un_job jobs[2] = {{.run = give_up, .done = keep_result},
                             {.run = write_text, .done = keep_result}};
    struct un_loop *loop = NULL;
    struct un_workers *workers = NULL;
    assert_int_equal(un_loop_new(&loop, NULL), 0);
    assert_int_equal(un_workers_new(loop, "test", 1, &workers, NULL), 0);
    un_workers_submit(workers, &jobs[0]);
    un_workers_submit(workers, &jobs[1]);
    un_workers_free(workers);
    un_loop_free(loop);
    assert_int_equal(jobs[0].rc, -ENOMEM);
    assert_int_equal(jobs[1].rc, 0);
}

static void helpers(void **state)
{
    alloc_fail_each("a buffer", fill_buffer, NULL);
    alloc_fail_each("JSON", print_json, NULL);
    alloc_fail_each("workers", start_workers, NULL);
}

/* --- what is parsed --------------------------------------------------------------------------- */

static int read_function(void *arg)
{
    static const char text[] =
        "{\"image\":\"sha256:" D64 "\",\"interface\":\"cgi\",\"memory_mib\":128,\"timeout_ms\":5,"
        "\"concurrency\":7,\"args\":[\"-v\",\"\",\"x\"],\"env\":{\"A\":\"1\",\"AB\":\"x=y\"}}";
    struct un_error err = UN_ERROR_INIT;
    static char first[1024]; /* the same whole text each time */
    struct function_config c;
    int rc = function_config_parse(text, strlen(text), &c, &err);
    if (rc < 0) {
        return rc;
    }
    un_autofree char *again = function_config_to_json(&c);
    function_config_done(&c);
    if (again && !first[0]) {
        snprintf(first, sizeof first, "%s", again);
    }
    assert_true(!again || strcmp(again, first) == 0);
    return again ? 0 : -ENOMEM;
}

static int read_settings(void *arg)
{
    static const char text[] = "{\"pool\":{\"min\":3},\"listen\":[\"127.0.0.1:1\",\"[::1]:1\"],"
                               "\"state_dir\":\"/a\",\"log\":{\"level\":\"debug\"}}";
    struct un_error err = UN_ERROR_INIT;
    struct config c;
    int rc = config_init(&c, &err);
    rc = rc ? rc : config_parse_file(&c, text, strlen(text), &err);
    config_done(&c);
    return rc;
}

static void on_chunk(void *arg, const char *data, size_t len)
{
}

static int read_request(void *arg)
{
    char head[] = "POST /a?b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    const struct http_scan_limits limits = {1000, 1000, 20};
    struct http_scan scan = {0};
    struct http_request request;
    const char *why = NULL;
    bool end = false;
    assert_int_equal(http_scan_head(&scan, &limits, head, strlen(head), &why), 1);
    assert_int_equal(http_parse_head(head, scan.len, &request, &why), 0);
    struct http_chunks *chunks = http_chunks_new();
    if (chunks) {
        http_chunks_on_data(chunks, on_chunk, NULL);
    }
    long taken = chunks ? http_chunks_feed(chunks, "1\r\nx\r\n0\r\n\r\n", 11, &end, &why) : 0;
    assert_int_equal(taken, chunks ? 11 : 0);
    http_chunks_free(chunks);
    return chunks ? 0 : -ENOMEM;
}

static int read_response(void *arg)
{
    char head[] = "201\r\nX-A: b\r\n";
    struct hv_field fields[4];
    struct hv_head ret;
    struct un_error err = UN_ERROR_INIT;
    return hv_head_parse(head, strlen(head), fields, 4, &ret, &err);
}

static void parsers(void **state)
{
    assert_int_equal(read_function(NULL), 0);
    alloc_fail_each("a function's configuration", read_function, NULL);
    alloc_fail_each("the daemon's configuration", read_settings, NULL);
    alloc_fail_each("a request", read_request, NULL);
    alloc_fail_each("a response head", read_response, NULL);
}

/* --- the image store -------------------------------------------------------------------------- */

struct flow {
    struct image_ground ig;
    struct registry *r;
    uint8_t *data;
    size_t len;
    unsigned round;
    int64_t versions;
    char digest[IMAGE_DIGEST_SIZE];
    struct function_version *v;
};

static int setup(void **state)
{
    struct flow *f = calloc(1, sizeof *f);
    struct un_error err = UN_ERROR_INIT;
    struct elf_file elf;
    (void)alloc_fail_end(); /* of a test that has failed */
    assert_non_null(f);
    image_ground_open(&f->ig);
    assert_int_equal(registry_open(f->ig.g.loop, f->ig.g.store, &f->r, &err), 0);
    elf_make(&elf);
    f->len = 600000; /* three chunks */
    f->data = calloc(1, f->len);
    assert_non_null(f->data);
    memcpy(f->data, elf.data, sizeof elf.data);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct flow *f = *state;
    function_unref(f->v);
    registry_close(f->r);
    image_ground_close(&f->ig);
    free(f->data);
    free(f);
    return 0;
}

/* Every time another image, so that it is never there already. */
static int upload(void *arg)
{
    struct flow *f = arg;
    memcpy(f->data + f->len - sizeof f->round, &f->round, sizeof f->round);
    f->round++;
    int rc = push(&f->ig, f->data, f->len);
    if (rc == 0) {
        memcpy(f->digest, f->ig.a.info.digest, sizeof f->digest);
    }
    return rc;
}

static int look_up(void *arg)
{
    struct flow *f = arg;
    int rc = get(&f->ig, f->digest);
    return rc;
}

/* Not in the cache yet: a fresh image is unpacked and mapped. */
static int map(void *arg)
{
    struct flow *f = arg;
    alloc_hold(true);
    assert_int_equal(upload(f), 0);
    alloc_hold(false);
    int rc = map_image(&f->ig, f->digest);
    if (rc == 0) {
        image_unref(f->ig.a.mapping);
    }
    return rc;
}

static int tag_and_untag(void *arg)
{
    struct flow *f = arg;
    image_tag(f->ig.is, "a/b:1", f->digest, on_done, &f->ig.a);
    int rc = answer_wait(&f->ig);
    if (rc == 0) {
        image_untag(f->ig.is, "a/b:1", on_done, &f->ig.a);
        rc = answer_wait(&f->ig);
    }
    return rc;
}

static void on_tags(void *arg, int rc, const struct image_tag_info *list, size_t count,
                    const struct un_error *err)
{
    assert_true(rc < 0 || count == 1);
    answer_take(arg, rc, err);
}

static int list_tags(void *arg)
{
    struct flow *f = arg;
    image_tag_list(f->ig.is, NULL, on_tags, &f->ig.a);
    return answer_wait(&f->ig);
}

static void images(void **state)
{
    struct flow *f = *state;
    alloc_fail_each("an upload", upload, f);
    alloc_fail_each("looking an image up", look_up, f);
    alloc_fail_each("mapping an image", map, f);
    alloc_fail_each("a tag", tag_and_untag, f);
    image_tag(f->ig.is, "one", f->digest, on_done, &f->ig.a);
    assert_int_equal(answer_wait(&f->ig), 0);
    alloc_fail_each("the list of tags", list_tags, f);
}

/* --- the registry ----------------------------------------------------------------------------- */

static void on_version(void *arg, int rc, struct function_version *v, const struct un_error *err)
{
    struct flow *f = arg;
    function_unref(f->v);
    f->v = v ? function_ref(v) : NULL;
    answer_take(&f->ig.a, rc, err);
}

static void on_deploy(void *arg, int rc, struct function_version *v, bool created,
                      const struct un_error *err)
{
    on_version(arg, rc, v, err);
}

static int deploy(void *arg)
{
    struct flow *f = arg;
    struct un_error err = UN_ERROR_INIT;
    struct function_config c;
    char json[300];
    snprintf(json, sizeof json, "{\"image\":\"%s\",\"args\":[\"a\",\"b\"],\"env\":{\"N\":\"%u\"}}",
             f->digest, f->round++);
    int rc = function_config_parse(json, strlen(json), &c, &err);
    if (rc < 0) {
        return rc;
    }
    function_deploy(f->r, "web", &c, on_deploy, f);
    rc = answer_wait(&f->ig);
    alloc_hold(true);
    int64_t versions = ground_number(&f->ig.g, "SELECT count(*) FROM function_versions");
    alloc_hold(false);
    /* What has failed has left nothing. */
    assert_int_equal(versions, f->versions + (rc == 0));
    f->versions = versions;
    return rc;
}

/* From the database, and out of the cache. */
static int resolve(void *arg)
{
    struct flow *f = arg;
    int rc = 0;
    for (unsigned i = 0; i < 2 && rc == 0; i++) {
        function_resolve(f->r, "web", NULL, on_version, f);
        rc = answer_wait(&f->ig);
    }
    return rc;
}

static void functions(void **state)
{
    struct flow *f = *state;
    assert_int_equal(upload(f), 0);
    alloc_fail_each("a deploy", deploy, f);
    alloc_fail_each("a lookup", resolve, f);
    assert_string_equal(f->v->name, "web");
    assert_string_equal(f->v->config.args[1], "b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(helpers),
        cmocka_unit_test(one_job_s_want_is_not_the_next_one_s),
        cmocka_unit_test(parsers),
        cmocka_unit_test_setup_teardown(images, setup, teardown),
        cmocka_unit_test_setup_teardown(functions, setup, teardown),
    };
    alloc_hook_sqlite();
    return cmocka_run_group_tests_name("alloc", tests, NULL, NULL);
}
