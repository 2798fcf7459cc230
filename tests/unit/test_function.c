/* test_function.c - configurations as JSON, and the registry: deploy, resolve, alias, list, remove. */
#include "tests/unit/image_support.h"

#include "common/limits.h"
#include "imagestore/function.h"

/* --- configurations --------------------------------------------------------------------------- */

#define D64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static struct un_error err;

static int parse(const char *json, struct function_config *ret)
{
    return function_config_parse(json, strlen(json), ret, &err);
}

static void assert_refused(const char *json, const char *why)
{
    struct function_config c;
    if (parse(json, &c) != -EINVAL || !strstr(err.text, why)) {
        fail_msg("%s: \"%s\" does not say \"%s\"", json, err.text, why);
    }
}

static void what_is_not_said_has_its_default(void **state)
{
    struct function_config c;
    assert_int_equal(parse("{\"image\":\"sha256:" D64 "\"}", &c), 0);
    assert_int_equal(c.interface, FUNCTION_DEFAULT);
    assert_int_equal(c.driver, FUNCTION_AUTO);
    assert_int_equal(c.isolation, FUNCTION_VM);
    assert_int_equal(c.snapshot, FUNCTION_SNAPSHOT_READY);
    assert_int_equal(c.memory_mib, 64);
    assert_int_equal(c.timeout_ms, 30000);
    assert_int_equal(c.concurrency, 100);
    assert_null(c.args);
    assert_null(c.env);
    function_config_done(&c);
}

static void a_whole_configuration_is_read_and_written_back(void **state)
{
    static const char text[] =
        "{\"image\":\"sha256:" D64 "\",\"interface\":\"cgi\",\"driver\":\"kvm\","
        "\"isolation\":\"reset\",\"snapshot\":\"start\",\"memory_mib\":128,\"timeout_ms\":5,"
        "\"concurrency\":7,\"args\":[\"-v\",\"\",\"\xc3\xa4\"],\"env\":{\"A\":\"1\",\"AB\":\"x=y\","
        "\"B\":\"\"}}";
    struct function_config c;
    assert_int_equal(parse(text, &c), 0);
    assert_int_equal(c.interface, FUNCTION_CGI);
    assert_int_equal(c.driver, FUNCTION_KVM);
    assert_int_equal(c.isolation, FUNCTION_RESET);
    assert_int_equal(c.snapshot, FUNCTION_SNAPSHOT_START);
    assert_int_equal(c.memory_mib, 128);
    assert_string_equal(c.args[0], "-v");
    assert_string_equal(c.args[1], "");
    assert_null(c.args[3]);
    assert_string_equal(c.env[0], "A=1");
    assert_string_equal(c.env[1], "AB=x=y");
    assert_string_equal(c.env[2], "B=");
    assert_null(c.env[3]);
    un_autofree char *again = function_config_to_json(&c);
    assert_string_equal(again, text);
    function_config_done(&c);
}

static void the_environment_is_sorted_by_key(void **state)
{
    struct function_config c;
    assert_int_equal(parse("{\"image\":\"sha256:" D64
                           "\",\"env\":{\"A_B\":\"2\",\"A\":\"1\",\"A-\":\"3\"}}",
                           &c),
                     0);
    assert_string_equal(c.env[0], "A=1");
    assert_string_equal(c.env[1], "A-=3");
    assert_string_equal(c.env[2], "A_B=2");
    function_config_done(&c);
}

#define WITH(rest) "{\"image\":\"sha256:" D64 "\"," rest "}"

static void what_is_wrong_is_named(void **state)
{
    assert_refused("[]", "object");
    assert_refused("{", "line 1");
    assert_refused("{}", "image: is missing");
    assert_refused("{\"image\":5}", "image");
    assert_refused("{\"image\":\"sha256:xyz\"}", "image: must be");
    assert_refused(WITH("\"memroy_mib\":5"), "memroy_mib");
    assert_refused(WITH("\"interface\":\"grpc\""), "interface: must be");
    assert_refused(WITH("\"publish\":80"), "publish: must be a list");
    assert_refused(WITH("\"publish\":[80]"), "publish[0]: must be a string");
    assert_refused(WITH("\"publish\":[\"web:80\"]"), "publish[0]");
    assert_refused(WITH("\"publish\":[\"80\",\"127.0.0.1:80\"]"), "twice");
    assert_refused(WITH("\"driver\":\"qemu\""), "driver: must be");
    assert_refused(WITH("\"driver\":1"), "driver: must be");
    assert_refused(WITH("\"isolation\":\"\""), "isolation: must be");
    assert_refused(WITH("\"list_calls\":1"), "list_calls");
    assert_refused(WITH("\"snapshot\":\"never\""), "snapshot: must be ready or start");
    assert_refused(WITH("\"memory_mib\":1"), "memory_mib");
    assert_refused(WITH("\"memory_mib\":65537"), "65536");
    assert_refused(WITH("\"timeout_ms\":0"), "timeout_ms");
    assert_refused(WITH("\"timeout_ms\":900001"), "900000");
    assert_refused(WITH("\"concurrency\":0"), "concurrency");
    assert_refused(WITH("\"concurrency\":1.5"), "concurrency");
    assert_refused(WITH("\"args\":\"-v\""), "args: must be a list");
    assert_refused(WITH("\"args\":[\"a\",1]"), "args[1]");
    assert_refused(WITH("\"args\":[\"a\\u0000\"]"), "u0000");
    assert_refused(WITH("\"env\":[]"), "env: must be an object");
    assert_refused(WITH("\"env\":{\"\":\"x\"}"), "env");
    assert_refused(WITH("\"env\":{\"A=B\":\"x\"}"), "A=B");
    assert_refused(WITH("\"env\":{\"A\":1}"), "env.A");
    assert_refused(WITH("\"machine\":{\"append\":\"a\\nb\"}"), "append: must be one line");
    assert_refused(WITH("\"machine\":{\"append\":\"a\\u007fb\"}"), "append: must be one line");
}

static void egress_rules_are_kept_in_one_form(void **state)
{
    struct function_config c;
    assert_int_equal(parse(WITH("\"egress\":[\"API.Example.test.:443\",\"*.example.test:*\","
                                "\"[0:0::1]:80\",\"127.0.0.1:5432\"]"),
                           &c),
                     0);
    assert_string_equal(c.egress[0], "api.example.test:443");
    assert_string_equal(c.egress[1], "*.example.test:*");
    assert_string_equal(c.egress[2], "[::1]:80");
    assert_string_equal(c.egress[3], "127.0.0.1:5432");
    assert_null(c.egress[4]);
    un_autofree char *again = function_config_to_json(&c);
    assert_non_null(strstr(again, ",\"egress\":[\"api.example.test:443\",\"*.example.test:*\","
                                  "\"[::1]:80\",\"127.0.0.1:5432\"]}"));
    function_config_done(&c);
    assert_int_equal(parse(WITH("\"egress\":[]"), &c), 0);
    assert_null(c.egress);
    function_config_done(&c);
    assert_refused(WITH("\"egress\":\"a:1\""), "egress: must be a list");
    assert_refused(WITH("\"egress\":[1]"), "egress[0]: must be a string");
    assert_refused(WITH("\"egress\":[\"a:1\",\"b\"]"), "egress[1]: must be HOST:PORT");
    assert_refused(WITH("\"egress\":[\"a:0\"]"), "egress[0]: the port");
    assert_refused(WITH("\"egress\":[\"*:443\"]"), "egress[0]: the host");
}

static void key_of(const char *name, const char *json, char ret[FUNCTION_SNAPSHOT_KEY_SIZE])
{
    struct function_config c;
    assert_int_equal(parse(json, &c), 0);
    assert_int_equal(function_snapshot_key(name, &c, ret, &err), 0);
    assert_int_equal(strlen(ret), 64);
    assert_int_equal(strspn(ret, "0123456789abcdef"), 64);
    function_config_done(&c);
}

static void the_snapshots_key_depends_on_what_the_program_sees_at_its_start(void **state)
{
    static const char *const differing[] = {
        WITH("\"memory_mib\":65"),      WITH("\"args\":[\"a\",\"b\"]"),
        WITH("\"args\":[\"ab\"]"),      WITH("\"args\":[\"\",\"ab\"]"),
        WITH("\"env\":{\"a\":\"b\"}"),  WITH("\"args\":[\"a=b\"]"),
        WITH("\"args\":[\"a,1:b\"]"),   WITH("\"interface\":\"cgi\""),
        WITH("\"interface\":\"http\""), WITH("\"snapshot\":\"start\""),
    };
    char first[FUNCTION_SNAPSHOT_KEY_SIZE], key[FUNCTION_SNAPSHOT_KEY_SIZE];
    char seen[11][FUNCTION_SNAPSHOT_KEY_SIZE];
    size_t count = 0;
    key_of("f", "{\"image\":\"sha256:" D64 "\"}", first);
    key_of("f",
           WITH("\"timeout_ms\":5,\"concurrency\":3,\"driver\":\"kvm\",\"isolation\":\"reset\""),
           key);
    assert_string_equal(key, first);
    key_of("g", "{\"image\":\"sha256:" D64 "\"}", key); /* argv[0] */
    assert_string_not_equal(key, first);
    strcpy(seen[count++], first);
    for (size_t i = 0; i < UN_ARRAY_SIZE(differing); i++) {
        key_of("f", differing[i], key);
        for (size_t k = 0; k < count; k++) {
            assert_string_not_equal(key, seen[k]);
        }
        strcpy(seen[count++], key);
    }
}

static void the_sum_of_strings_is_bounded(void **state)
{
    struct un_buf b = {0};
    struct function_config c;
    un_buf_append_str(&b, "{\"image\":\"sha256:" D64 "\",\"args\":[\"");
    size_t start = b.len;
    while (b.len - start < LIMIT_FUNCTION_STRINGS - 1) {
        un_buf_append_str(&b, "a");
    }
    size_t keep = b.len;
    un_buf_append_str(&b, "\"]}");
    assert_int_equal(function_config_parse(b.data, b.len, &c, &err), 0);
    function_config_done(&c);
    b.len = keep;
    un_buf_append_str(&b, "a\"]}");
    assert_int_equal(function_config_parse(b.data, b.len, &c, &err), -EINVAL);
    un_buf_done(&b);
}

static void names_are_dns_labels(void **state)
{
    char longest[65];
    memset(longest, 'a', 64);
    longest[64] = '\0';
    assert_false(function_name_valid(longest));
    longest[63] = '\0';
    assert_true(function_name_valid(longest));
    assert_true(function_name_valid("a"));
    assert_true(function_name_valid("web-2"));
    assert_false(function_name_valid(""));
    assert_false(function_name_valid(NULL));
    assert_false(function_name_valid("2web"));
    assert_false(function_name_valid("web-"));
    assert_false(function_name_valid("Web"));
    assert_false(function_name_valid("a.b"));
    assert_false(function_name_valid("a/b"));
}

/* --- the registry ----------------------------------------------------------------------------- */

struct registry_ground {
    struct image_ground ig;
    struct registry *r;
    char sdk[IMAGE_DIGEST_SIZE], program[IMAGE_DIGEST_SIZE], kernel[IMAGE_DIGEST_SIZE];
    struct function_version *v; /* of the last answer; a reference */
    char names[8][80];
    struct function_alias aliases[8];
    unsigned changes, changes_at_answer;
    char changed[64];
    uint32_t live[8]; /* after each of the changes; 0: gone */
};

static void on_change(void *arg, const char *name, struct function_version *live)
{
    struct registry_ground *rg = arg;
    rg->live[rg->changes % UN_ARRAY_SIZE(rg->live)] = live ? live->version : 0;
    rg->changes++;
    strcpy(rg->changed, name);
}

static int set_up(void **state)
{
    struct registry_ground *rg = calloc(1, sizeof *rg);
    struct elf_file f;
    image_ground_open(&rg->ig);
    elf_make_sdk(&f);
    assert_int_equal(push(&rg->ig, f.data, sizeof f.data), 0);
    strcpy(rg->sdk, rg->ig.a.info.digest);
    elf_make(&f);
    assert_int_equal(push(&rg->ig, f.data, sizeof f.data), 0);
    strcpy(rg->program, rg->ig.a.info.digest);
    elf_add_note(&f, "Xen", 18, "\0\0\x10\0", 4);
    assert_int_equal(push(&rg->ig, f.data, sizeof f.data), 0);
    strcpy(rg->kernel, rg->ig.a.info.digest);
    assert_int_equal(registry_open(rg->ig.g.loop, rg->ig.g.store, &rg->r, &err), 0);
    registry_on_change(rg->r, on_change, rg);
    *state = rg;
    return 0;
}

static int tear_down(void **state)
{
    struct registry_ground *rg = *state;
#ifdef UNID_FAULT_INJECTION
    un_fault_set(NULL);
#endif
    function_unref(rg->v);
    registry_close(rg->r);
    image_ground_close(&rg->ig);
    free(rg);
    return 0;
}

static void keep_version(struct registry_ground *rg, struct function_version *v)
{
    function_unref(rg->v);
    rg->v = v ? function_ref(v) : NULL;
}

static void on_deploy(void *arg, int rc, struct function_version *v, bool created,
                      const struct un_error *e)
{
    struct registry_ground *rg = arg;
    rg->ig.a.created = created;
    keep_version(rg, v);
    answer_take(&rg->ig.a, rc, e);
}

/* `rest`: more of the JSON, or "". */
static int deploy(struct registry_ground *rg, const char *name, const char *digest,
                  const char *rest)
{
    struct function_config c;
    char json[300];
    snprintf(json, sizeof json, "{\"image\":\"%s\"%s}", digest, rest);
    if (parse(json, &c) < 0) {
        fail_msg("%s", err.text);
    }
    function_deploy(rg->r, name, &c, on_deploy, rg);
    assert_null(c.args);
    assert_null(c.env);
    return answer_wait(&rg->ig);
}

static void on_version(void *arg, int rc, struct function_version *v, const struct un_error *e)
{
    struct registry_ground *rg = arg;
    keep_version(rg, v);
    answer_take(&rg->ig.a, rc, e);
}

static int resolve(struct registry_ground *rg, const char *name, const char *qualifier)
{
    function_resolve(rg->r, name, qualifier, on_version, rg);
    return answer_wait(&rg->ig);
}

static void on_functions(void *arg, int rc, struct function_version *const *list, size_t count,
                         const struct un_error *e)
{
    struct registry_ground *rg = arg;
    rg->ig.a.count = count;
    for (size_t i = 0; i < count && i < 8; i++) {
        snprintf(rg->names[i], sizeof rg->names[i], "%s:%u", list[i]->name, list[i]->version);
    }
    answer_take(&rg->ig.a, rc, e);
}

static size_t list(struct registry_ground *rg, const char *after, unsigned limit)
{
    function_list(rg->r, after, limit, on_functions, rg);
    assert_int_equal(answer_wait(&rg->ig), 0);
    return rg->ig.a.count;
}

static int set_alias(struct registry_ground *rg, const char *name, const char *alias,
                     uint32_t version)
{
    function_set_alias(rg->r, name, alias, version, on_done, &rg->ig.a);
    return answer_wait(&rg->ig);
}

static int remove_alias(struct registry_ground *rg, const char *name, const char *alias)
{
    function_remove_alias(rg->r, name, alias, on_done, &rg->ig.a);
    return answer_wait(&rg->ig);
}

static int remove_function(struct registry_ground *rg, const char *name)
{
    function_remove(rg->r, name, on_done, &rg->ig.a);
    return answer_wait(&rg->ig);
}

static void a_deploy_makes_a_version_and_moves_live(void **state)
{
    struct registry_ground *rg = *state;
    assert_int_equal(deploy(rg, "web", rg->program, ",\"args\":[\"-c\"]"), 0);
    assert_true(rg->ig.a.created);
    assert_int_equal(rg->v->version, 1);
    assert_string_equal(rg->v->name, "web");
    assert_int_equal(rg->v->kind, IMAGE_LINUX_STATIC);
    assert_int_equal(rg->v->image_size, ELF_FILE_SIZE);
    assert_int_equal(rg->v->config.interface, FUNCTION_FILTER);
    assert_string_equal(rg->v->config.args[0], "-c");
    assert_int_equal(deploy(rg, "web", rg->program, ",\"args\":[\"-d\"]"), 0);
    assert_false(rg->ig.a.created);
    assert_int_equal(rg->v->version, 2);
    assert_int_equal(resolve(rg, "web", NULL), 0);
    assert_int_equal(rg->v->version, 2);
    assert_int_equal(resolve(rg, "web", "1"), 0);
    assert_string_equal(rg->v->config.args[0], "-c");
    assert_string_equal(rg->v->config.image, rg->program);
}

static void the_same_configuration_makes_no_version(void **state)
{
    struct registry_ground *rg = *state;
    assert_int_equal(deploy(rg, "web", rg->program, ",\"env\":{\"A\":\"1\",\"B\":\"2\"}"), 0);
    uint64_t id = rg->v->id;
    assert_int_equal(deploy(rg, "web", rg->program,
                            ",\"interface\":\"filter\",\"env\":{\"B\":\"2\",\"A\":\"1\"}"),
                     0);
    assert_int_equal(rg->v->version, 1);
    assert_int_equal(rg->v->id, id);
    assert_false(rg->ig.a.created);
    /* But what was live once is not what is live. */
    assert_int_equal(deploy(rg, "web", rg->program, ""), 0);
    assert_int_equal(rg->v->version, 2);
    assert_int_equal(deploy(rg, "web", rg->program, ",\"env\":{\"A\":\"1\",\"B\":\"2\"}"), 0);
    assert_int_equal(rg->v->version, 3);
}

struct edit {
    struct store_job job;
    struct answer *answer;
};

static int strip_run(struct store_job *job, sqlite3 *db, struct un_error *e)
{
    return store_exec(db, e,
                      "UPDATE function_versions SET config ="
                      " replace(config, '\"driver\":\"auto\",\"isolation\":\"vm\",', ?)",
                      "t", "");
}

static void strip_done(struct store_job *job, int rc, const struct un_error *e)
{
    answer_take(un_container_of(job, struct edit, job)->answer, rc, e);
}

static void a_version_stored_without_the_later_keys_has_their_defaults(void **state)
{
    struct registry_ground *rg = *state;
    struct edit edit = {.job = {.access = STORE_WRITE, .run = strip_run, .done = strip_done},
                        .answer = &rg->ig.a};
    assert_int_equal(deploy(rg, "web", rg->sdk, ""), 0);
    store_submit(rg->ig.g.store, &edit.job);
    assert_int_equal(answer_wait(&rg->ig), 0);
    assert_int_equal(set_alias(rg, "web", "old", 1), 0); /* empties the cache */
    assert_int_equal(resolve(rg, "web", NULL), 0);
    assert_int_equal(rg->v->config.driver, FUNCTION_AUTO);
    assert_int_equal(rg->v->config.isolation, FUNCTION_VM);
    assert_int_equal(strlen(rg->v->snapshot_key), 64);
    assert_int_equal(deploy(rg, "web", rg->sdk, ""), 0);
    assert_int_equal(rg->v->version, 1); /* it says the same */
    assert_int_equal(deploy(rg, "web", rg->sdk, ",\"isolation\":\"reset\""), 0);
    assert_int_equal(rg->v->version, 2);
    assert_int_equal(rg->v->config.isolation, FUNCTION_RESET);
}

static void an_alias_is_removed_but_for_live(void **state)
{
    struct registry_ground *rg = *state;
    deploy(rg, "web", rg->sdk, "");
    set_alias(rg, "web", "old", 1);
    assert_int_equal(resolve(rg, "web", "old"), 0);
    assert_int_equal(remove_alias(rg, "web", "old"), 0);
    assert_null(function_peek(rg->r, "web", "old"));
    assert_int_equal(resolve(rg, "web", "old"), -ENOENT);
    assert_int_equal(remove_alias(rg, "web", "old"), -ENOENT);
    assert_int_equal(remove_alias(rg, "none", "old"), -ENOENT);
    assert_int_equal(remove_alias(rg, "web", "live"), -EBUSY);
    assert_int_equal(resolve(rg, "web", NULL), 0);
}

static void count_change(void *arg, const char *name, struct function_version *live)
{
    assert_string_equal(name, "web");
    (*(unsigned *)arg)++;
}

static void listeners_hear_of_changes_until_they_leave(void **state)
{
    struct registry_ground *rg = *state;
    unsigned one = 0, two = 0;
    registry_on_change(rg->r, count_change, &one);
    registry_on_change(rg->r, count_change, &two);
    deploy(rg, "web", rg->sdk, "");
    registry_off_change(rg->r, count_change, &one);
    set_alias(rg, "web", "old", 1);
    assert_int_equal(one, 1);
    assert_int_equal(two, 2);
}

static void on_change_answered(void *arg, int rc, const struct un_error *e)
{
    struct registry_ground *rg = arg;
    assert_int_equal(rc, 0);
    rg->changes_at_answer = rg->changes;
    ground_came(&rg->ig.g);
}

static void listeners_are_told_what_is_live_before_the_caller_is_answered(void **state)
{
    struct registry_ground *rg = *state;
    const uint32_t want[] = {1, 2, 2, 1, 1, 2, 0};
    deploy(rg, "web", rg->kernel, "");
    deploy(rg, "web", rg->kernel, ",\"memory_mib\":128");
    function_set_alias(rg->r, "web", "old", 1, on_change_answered, rg);
    ground_wait(&rg->ig.g);
    assert_int_equal(rg->changes_at_answer, 3);
    function_note_failed(rg->r, "web", 2, "it crashed", on_version, rg);
    assert_int_equal(answer_wait(&rg->ig), 0);
    /* Together in one transaction: each is told what was live right after it. */
    function_set_alias(rg->r, "web", "live", 1, on_change_answered, rg);
    function_set_alias(rg->r, "web", "live", 2, on_change_answered, rg);
    function_remove(rg->r, "web", on_change_answered, rg);
    while (rg->changes_at_answer < UN_ARRAY_SIZE(want)) {
        ground_wait(&rg->ig.g);
    }
    assert_memory_equal(rg->live, want, sizeof want);
}

static void kind_and_interface_must_go_together(void **state)
{
    struct registry_ground *rg = *state;
    assert_int_equal(deploy(rg, "a", rg->sdk, ""), 0);
    assert_int_equal(rg->v->config.interface, FUNCTION_SDK);
    assert_int_equal(deploy(rg, "b", rg->kernel, ""), 0);
    assert_int_equal(rg->v->config.interface, FUNCTION_HTTP);
    assert_int_equal(deploy(rg, "c", rg->sdk, ",\"interface\":\"lambda\""), -ENOTSUP);
    assert_non_null(strstr(rg->ig.a.text, "lambda is not served"));
    assert_int_equal(deploy(rg, "c", rg->program, ",\"interface\":\"lambda\""), -ENOTSUP);
    assert_int_equal(deploy(rg, "c", rg->program, ",\"interface\":\"sdk\""), -EINVAL);
    assert_int_equal(deploy(rg, "c", rg->kernel, ",\"interface\":\"cgi\""), -EINVAL);
    assert_int_equal(deploy(rg, "c", rg->kernel, ",\"interface\":\"tcp\""), -EINVAL);
    assert_non_null(strstr(rg->ig.a.text, "services"));
    assert_int_equal(deploy(rg, "c", rg->program, ",\"interface\":\"tcp\""), -EINVAL);
    assert_int_equal(deploy(rg, "c", rg->sdk, ",\"interface\":\"tcp\""), -EINVAL);
    assert_int_equal(deploy(rg, "c", "sha256:" D64, ""), -ENOENT);
    assert_int_equal(deploy(rg, "No", rg->sdk, ""), -EINVAL);
    assert_int_equal(resolve(rg, "c", NULL), -ENOENT); /* none of these left anything */
    assert_int_equal(list(rg, NULL, 10), 2);
}

static void published_ports_are_kept_in_one_form_and_found(void **state)
{
    struct registry_ground *rg = *state;
    const char *tcp = ",\"interface\":\"tcp\",\"machine\":{\"service\":true}"
                      ",\"publish\":[\"5432\",\"[::1]:0\",\"localhost:81\"]";
    assert_int_equal(deploy(rg, "a", rg->sdk, ""), 0);
    assert_int_equal(deploy(rg, "db", rg->kernel, tcp), 0);
    assert_int_equal(rg->v->config.interface, FUNCTION_TCP);
    assert_string_equal(rg->v->config.publish[0], "127.0.0.1:5432");
    assert_string_equal(rg->v->config.publish[1], "[::1]:0");
    assert_string_equal(rg->v->config.publish[2], "127.0.0.1:81");
    assert_null(rg->v->config.publish[3]);
    assert_int_equal(deploy(rg, "db", rg->kernel, tcp), 0);
    assert_int_equal(rg->v->version, 1);
    function_list_published(rg->r, NULL, 10, on_functions, rg);
    assert_int_equal(answer_wait(&rg->ig), 0);
    assert_int_equal(rg->ig.a.count, 1);
    assert_string_equal(rg->names[0], "db:1");
    assert_int_equal(deploy(rg, "db", rg->kernel, ""), 0); /* the live version counts */
    function_list_published(rg->r, NULL, 10, on_functions, rg);
    assert_int_equal(answer_wait(&rg->ig), 0);
    assert_int_equal(rg->ig.a.count, 0);
}

static void rollback_moves_live_and_keeps_versions(void **state)
{
    struct registry_ground *rg = *state;
    deploy(rg, "web", rg->program, "");
    deploy(rg, "web", rg->program, ",\"memory_mib\":128");
    assert_int_equal(resolve(rg, "web", NULL), 0);
    assert_non_null(function_peek(rg->r, "web", NULL));
    unsigned changes = rg->changes;
    assert_int_equal(set_alias(rg, "web", "live", 1), 0);
    assert_int_equal(rg->changes, changes + 1);
    assert_string_equal(rg->changed, "web");
    assert_null(function_peek(rg->r, "web", NULL));
    assert_int_equal(resolve(rg, "web", NULL), 0);
    assert_int_equal(rg->v->version, 1);
    assert_int_equal(rg->v->config.memory_mib, 64);
    function_versions(rg->r, "web", on_functions, rg);
    assert_int_equal(answer_wait(&rg->ig), 0);
    assert_int_equal(rg->ig.a.count, 2);
    assert_string_equal(rg->names[0], "web:2"); /* the newest first */
}

static int note_failed(struct registry_ground *rg, const char *name, uint32_t version)
{
    function_note_failed(rg->r, name, version, "port 80 did not answer", on_version, rg);
    return answer_wait(&rg->ig);
}

static int note_ready(struct registry_ground *rg, const char *name, uint32_t version)
{
    function_note_ready(rg->r, name, version, on_done, &rg->ig.a);
    return answer_wait(&rg->ig);
}

static void a_version_that_never_was_ready_gives_live_back(void **state)
{
    struct registry_ground *rg = *state;
    deploy(rg, "web", rg->kernel, "");
    assert_int_equal(note_ready(rg, "web", 1), 0);
    deploy(rg, "web", rg->kernel, ",\"memory_mib\":128");
    deploy(rg, "web", rg->kernel, ",\"memory_mib\":256");
    set_alias(rg, "web", "live", 1);
    set_alias(rg, "web", "live", 3); /* from 1, not from 2 */
    unsigned changes = rg->changes;
    assert_int_equal(note_failed(rg, "web", 3), 0);
    assert_int_equal(rg->v->version, 1);
    assert_true(rg->v->ready_us > 0);
    assert_int_equal(rg->changes, changes + 1);
    assert_int_equal(resolve(rg, "web", NULL), 0);
    assert_int_equal(rg->v->version, 1);
    assert_int_equal(resolve(rg, "web", "3"), 0);
    assert_string_equal(rg->v->failure, "port 80 did not answer");
    /* By hand it gets another chance, and may be ready then. */
    set_alias(rg, "web", "live", 3);
    assert_int_equal(resolve(rg, "web", NULL), 0);
    assert_null(rg->v->failure);
    assert_int_equal(note_ready(rg, "web", 3), 0);
    assert_int_equal(note_failed(rg, "web", 3), 0);
    assert_null(rg->v);
    assert_int_equal(resolve(rg, "web", NULL), 0);
    assert_int_equal(rg->v->version, 3);
    assert_null(rg->v->failure);
}

static void live_does_not_go_back_to_what_failed(void **state)
{
    struct registry_ground *rg = *state;
    deploy(rg, "web", rg->kernel, "");
    assert_int_equal(note_failed(rg, "web", 1), 0); /* there is none before it */
    assert_null(rg->v);
    deploy(rg, "web", rg->kernel, ",\"memory_mib\":128");
    assert_int_equal(note_failed(rg, "web", 2), 0);
    assert_null(rg->v);
    deploy(rg, "web", rg->kernel, ",\"memory_mib\":256");
    assert_int_equal(note_failed(rg, "web", 2), 0); /* is not live */
    assert_null(rg->v);
    assert_int_equal(resolve(rg, "web", NULL), 0);
    assert_int_equal(rg->v->version, 3);
    assert_int_equal(note_failed(rg, "none", 1), -ENOENT);
}

static size_t list_kept(struct registry_ground *rg, const char *after, unsigned limit)
{
    function_list_kept(rg->r, after, limit, on_functions, rg);
    assert_int_equal(answer_wait(&rg->ig), 0);
    return rg->ig.a.count;
}

static void functions_with_kept_machines_are_listed(void **state)
{
    struct registry_ground *rg = *state;
    static const char kept[] = ",\"machine\":{\"service\":true,\"min_instances\":1}";
    deploy(rg, "plain", rg->kernel, "");
    deploy(rg, "b", rg->kernel, kept);
    deploy(rg, "a", rg->kernel, kept);
    deploy(rg, "once", rg->kernel, kept);
    deploy(rg, "once", rg->kernel, "");
    assert_int_equal(list_kept(rg, NULL, 10), 2);
    assert_string_equal(rg->names[0], "a:1");
    assert_string_equal(rg->names[1], "b:1");
    assert_int_equal(list_kept(rg, "a", 10), 1);
    assert_int_equal(list_kept(rg, NULL, 1), 1);
    set_alias(rg, "once", "live", 1);
    assert_int_equal(list_kept(rg, NULL, 10), 3);
}

static void on_aliases(void *arg, int rc, const struct function_alias *aliases, size_t count,
                       const struct un_error *e)
{
    struct registry_ground *rg = arg;
    rg->ig.a.count = count;
    for (size_t i = 0; i < count; i++) {
        rg->aliases[i] = aliases[i];
    }
    answer_take(&rg->ig.a, rc, e);
}

static void aliases_name_versions(void **state)
{
    struct registry_ground *rg = *state;
    deploy(rg, "web", rg->program, "");
    deploy(rg, "web", rg->program, ",\"memory_mib\":128");
    assert_int_equal(set_alias(rg, "web", "stable", 1), 0);
    assert_int_equal(resolve(rg, "web", "stable"), 0);
    assert_int_equal(rg->v->version, 1);
    assert_int_equal(set_alias(rg, "web", "stable", 3), -ENOENT);
    assert_int_equal(set_alias(rg, "none", "stable", 1), -ENOENT);
    assert_int_equal(set_alias(rg, "web", "1", 1), -EINVAL);
    assert_int_equal(set_alias(rg, "web", "", 1), -EINVAL);
    function_aliases(rg->r, "web", on_aliases, rg);
    assert_int_equal(answer_wait(&rg->ig), 0);
    assert_int_equal(rg->ig.a.count, 2);
    assert_string_equal(rg->aliases[0].alias, "live");
    assert_int_equal(rg->aliases[0].version, 2);
    assert_string_equal(rg->aliases[1].alias, "stable");
    assert_int_equal(rg->aliases[1].version, 1);
    function_aliases(rg->r, "none", on_aliases, rg);
    assert_int_equal(answer_wait(&rg->ig), -ENOENT);
}

static void what_is_not_there_is_told_apart(void **state)
{
    struct registry_ground *rg = *state;
    deploy(rg, "web", rg->program, "");
    assert_int_equal(resolve(rg, "wab", NULL), -ENOENT);
    assert_string_equal(rg->ig.a.text, "no function wab");
    assert_int_equal(resolve(rg, "web", "7"), -ENOENT);
    assert_non_null(strstr(rg->ig.a.text, "no version or alias 7"));
    assert_int_equal(resolve(rg, "web", "01"), -ENOENT);
    assert_int_equal(resolve(rg, "web", "4294967297"), -ENOENT);
    assert_int_equal(resolve(rg, "../etc", NULL), -ENOENT);
    function_versions(rg->r, "wab", on_functions, rg);
    assert_int_equal(answer_wait(&rg->ig), -ENOENT);
    assert_int_equal(remove_function(rg, "wab"), -ENOENT);
}

static void a_removed_function_frees_its_image(void **state)
{
    struct registry_ground *rg = *state;
    deploy(rg, "web", rg->program, "");
    deploy(rg, "web", rg->sdk, "");
    set_alias(rg, "web", "stable", 1);
    image_remove(rg->ig.is, rg->program, on_done, &rg->ig.a);
    assert_int_equal(answer_wait(&rg->ig), -EBUSY);
    assert_non_null(strstr(rg->ig.a.text, "function web, version 1"));
    assert_int_equal(get(&rg->ig, rg->program), 0);
    assert_int_equal(rg->ig.a.info.function_versions, 1);
    image_collect_garbage(rg->ig.is, 0, on_done, &rg->ig.a);
    assert_int_equal(answer_wait(&rg->ig), 0);
    assert_int_equal(get(&rg->ig, rg->kernel), -ENOENT); /* nobody's */
    assert_int_equal(get(&rg->ig, rg->program), 0);
    assert_int_equal(resolve(rg, "web", NULL), 0);
    assert_int_equal(remove_function(rg, "web"), 0);
    assert_string_equal(rg->v->config.image, rg->sdk); /* who holds it may go on */
    assert_null(function_peek(rg->r, "web", NULL));
    assert_int_equal(resolve(rg, "web", NULL), -ENOENT);
    image_remove(rg->ig.is, rg->program, on_done, &rg->ig.a);
    assert_int_equal(answer_wait(&rg->ig), 0);
    uint64_t id = rg->v ? rg->v->id : 0;
    assert_int_equal(deploy(rg, "web", rg->sdk, ""), 0);
    assert_int_equal(rg->v->version, 1);
    assert_true(rg->v->id > id); /* a row's id never comes again */
}

static void listings_come_in_pages_by_name(void **state)
{
    struct registry_ground *rg = *state;
    deploy(rg, "b", rg->sdk, "");
    deploy(rg, "a", rg->sdk, "");
    deploy(rg, "c", rg->sdk, "");
    deploy(rg, "a", rg->sdk, ",\"memory_mib\":65");
    assert_int_equal(list(rg, NULL, 2), 2);
    assert_string_equal(rg->names[0], "a:2");
    assert_string_equal(rg->names[1], "b:1");
    assert_int_equal(list(rg, "b", 2), 1);
    assert_string_equal(rg->names[0], "c:1");
    assert_int_equal(list(rg, "c", 2), 0);
}

static void the_cache_is_bounded_and_keeps_the_recent(void **state)
{
    struct registry_ground *rg = *state;
    char name[16];
    enum { EXTRA = 8 };
    for (int i = 0; i < LIMIT_FUNCTION_CACHE + EXTRA; i++) {
        snprintf(name, sizeof name, "f%d", i);
        assert_int_equal(deploy(rg, name, rg->sdk, ""), 0);
        assert_int_equal(resolve(rg, name, NULL), 0);
        assert_non_null(function_peek(rg->r, "f0", NULL)); /* used again and again */
    }
    assert_non_null(function_peek(rg->r, name, NULL));
    assert_null(function_peek(rg->r, "f1", NULL));
    assert_null(function_peek(rg->r, "f8", NULL));
    assert_non_null(function_peek(rg->r, "f9", NULL));
    assert_int_equal(resolve(rg, "f1", NULL), 0);
    assert_ptr_equal(function_peek(rg->r, "f1", NULL), rg->v);
}

static void a_lookup_overtaken_by_a_deploy_is_not_kept(void **state)
{
    struct registry_ground *rg = *state;
    struct function_config c;
    char json[200];
    for (int i = 0; i < 20; i++) {
        deploy(rg, "web", rg->sdk, i % 2 ? ",\"memory_mib\":100" : ",\"memory_mib\":101");
        snprintf(json, sizeof json, "{\"image\":\"%s\",\"memory_mib\":%d}", rg->sdk, 200 + i);
        assert_int_equal(parse(json, &c), 0);
        rg->ig.a.calls = 0;
        function_resolve(rg->r, "web", NULL, on_version, rg);
        function_deploy(rg->r, "web", &c, on_deploy, rg);
        while (rg->ig.a.calls < 2) {
            ground_wait(&rg->ig.g);
        }
        struct function_version *kept = function_peek(rg->r, "web", NULL);
        assert_true(!kept || kept->config.memory_mib == (uint32_t)(200 + i));
    }
}

static void closing_waits_for_nobody_and_leaks_nothing(void **state)
{
    struct registry_ground *rg = *state;
    deploy(rg, "web", rg->sdk, "");
    rg->ig.a.calls = 0;
    function_resolve(rg->r, "web", NULL, on_version, rg);
    registry_close(rg->r);
    while (!rg->ig.a.calls) {
        ground_wait(&rg->ig.g);
    }
    assert_int_equal(rg->ig.a.rc, 0);
    assert_int_equal(registry_open(rg->ig.g.loop, rg->ig.g.store, &rg->r, &err), 0);
}

#ifdef UNID_FAULT_INJECTION
static void a_failing_deploy_changes_nothing(void **state)
{
    struct registry_ground *rg = *state;
    char plan[32];
    deploy(rg, "web", rg->sdk, "");
    int failed = 0;
    for (int step = 1; step < 40; step++) {
        snprintf(plan, sizeof plan, "store.step=ENOSPC@%d", step);
        un_fault_set(plan);
        int rc = deploy(rg, "web", rg->sdk, ",\"memory_mib\":99");
        un_fault_set(NULL);
        if (rc == 0) {
            break;
        }
        failed++;
        assert_int_equal(rc, -ENOSPC);
        assert_int_equal(resolve(rg, "web", NULL), 0);
        assert_int_equal(rg->v->version, 1);
    }
    assert_in_range(failed, 4, 30);
    assert_int_equal(resolve(rg, "web", NULL), 0);
    assert_int_equal(rg->v->version, 2);
    un_fault_set("registry.op=ENOMEM");
    struct function_config c;
    function_config_init(&c);
    function_deploy(rg->r, "web", &c, on_deploy, rg); /* told at once */
    assert_int_equal(answer_wait(&rg->ig), -ENOMEM);
}
#endif

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_said_has_its_default),
        cmocka_unit_test(a_whole_configuration_is_read_and_written_back),
        cmocka_unit_test(the_environment_is_sorted_by_key),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(the_snapshots_key_depends_on_what_the_program_sees_at_its_start),
        cmocka_unit_test(the_sum_of_strings_is_bounded),
        cmocka_unit_test(names_are_dns_labels),
        TEST(a_deploy_makes_a_version_and_moves_live),
        TEST(the_same_configuration_makes_no_version),
        TEST(a_version_stored_without_the_later_keys_has_their_defaults),
        TEST(an_alias_is_removed_but_for_live),
        TEST(listeners_hear_of_changes_until_they_leave),
        TEST(listeners_are_told_what_is_live_before_the_caller_is_answered),
        TEST(egress_rules_are_kept_in_one_form),
        TEST(kind_and_interface_must_go_together),
        TEST(published_ports_are_kept_in_one_form_and_found),
        TEST(rollback_moves_live_and_keeps_versions),
        TEST(a_version_that_never_was_ready_gives_live_back),
        TEST(live_does_not_go_back_to_what_failed),
        TEST(functions_with_kept_machines_are_listed),
        TEST(aliases_name_versions),
        TEST(what_is_not_there_is_told_apart),
        TEST(a_removed_function_frees_its_image),
        TEST(listings_come_in_pages_by_name),
        TEST(the_cache_is_bounded_and_keeps_the_recent),
        TEST(a_lookup_overtaken_by_a_deploy_is_not_kept),
        TEST(closing_waits_for_nobody_and_leaks_nothing),
#ifdef UNID_FAULT_INJECTION
        TEST(a_failing_deploy_changes_nothing),
#endif
    };
    return cmocka_run_group_tests_name("function", tests, NULL, NULL);
}
