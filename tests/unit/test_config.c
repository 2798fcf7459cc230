/* test_config.c - where settings come from and which are refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "daemon/config.h"

static int load(struct config *c, struct un_error *err, const char *const *args)
{
    char *argv[16] = {(char *)"unid"};
    int argc = 1;
    for (; args[argc - 1]; argc++) {
        argv[argc] = (char *)args[argc - 1];
    }
    enum config_action action;
    return config_load(argc, argv, c, &action, err);
}

static void write_file(char path[32], const char *text)
{
    strcpy(path, "/tmp/unid-test-config-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void defaults_are_valid(void **state)
{
    struct config c;
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(load(&c, &err, (const char *[]){NULL}), 0);
    assert_int_equal(c.listen.count, 1);
    assert_string_equal(c.listen.items[0], "127.0.0.1:7070");
    assert_string_equal(c.driver, "auto");
    config_done(&c);
}

static void flags_override_the_file_wherever_they_stand(void **state)
{
    char path[32];
    write_file(path,
               "{\"pool\": {\"min\": 3, \"max\": 5}, \"listen\": [\"127.0.0.1:1\", \"[::1]:1\"],"
               " \"state_dir\": \"/a\"}");
    struct config c;
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(load(&c, &err,
                          (const char *[]){"--pool-min=2", "--listen", "127.0.0.1:2", "--config",
                                           path, "--set", "limits.queue_total=7", NULL}),
                     0);
    assert_int_equal(c.pool_min, 2);
    assert_int_equal(c.pool_max, 5);
    assert_int_equal(c.queue_total, 7);
    assert_int_equal(c.listen.count, 1);
    assert_string_equal(c.listen.items[0], "127.0.0.1:2");
    assert_string_equal(c.state_dir, "/a");
    config_done(&c);
    unlink(path);
}

static void pool_is_sized_by_the_driver_as_far_as_it_is_not_set(void **state)
{
    static const struct {
        const char *driver, *args[3];
        unsigned min, max;
    } cases[] = {
        {"kvm", {NULL}, 8, 48},
        {"libvirt", {NULL}, 1, 8},
        {"fake", {NULL}, 1, 8},
        {"kvm", {"--pool-max=5"}, 5, 5},
        {"kvm", {"--pool-max=0"}, 0, 0},
        {"kvm", {"--pool-min=60"}, 60, 60},
        {"libvirt", {"--pool-min=0"}, 0, 8},
        {"libvirt", {"--pool-min=9"}, 9, 9},
        {"kvm", {"--pool-min=2", "--pool-max=3"}, 2, 3},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        struct config c;
        struct un_error err = UN_ERROR_INIT;
        const char *args[] = {cases[i].args[0], cases[i].args[1], NULL};
        assert_int_equal(load(&c, &err, args), 0);
        struct config_pool pool = config_pool(&c, cases[i].driver);
        assert_int_equal(pool.min, cases[i].min);
        assert_int_equal(pool.max, cases[i].max);
        config_done(&c);
    }
}

#define TWENTY          "/a-part-of-20-bytes-"
#define SOCKET_TOO_LONG TWENTY TWENTY TWENTY TWENTY TWENTY "/sock.et"

static void each_mistake_names_what_is_wrong(void **state)
{
    static const struct {
        const char *args[4], *says;
    } cases[] = {
        {{"--frobnicate"}, "unknown argument \"--frobnicate\""},
        {{"serve"}, "unknown argument \"serve\""},
        {{"--listen"}, "--listen needs a value"},
        {{"--pool-min", "x"}, "pool.min: \"x\" is not a whole number"},
        {{"--pool-min", "1000"}, "pool.min: must be from 0 to 64"},
        {{"--pool-min=3", "--pool-max=2"}, "pool.min 3 is above pool.max 2"},
        {{"--set", "nonsense=1"}, "--set nonsense=1"},
        {{"--driver", "xen"}, "driver: \"xen\" is none of: auto kvm libvirt fake"},
        {{"--state-dir", "relative"}, "absolute"},
        {{"--listen", "none", "--socket=none"}, "nothing to listen on"},
        {{"--config", "/nonexistent/x"}, "/nonexistent/x: No such file"},
        {{"--set", "machines.range=10.0.0.0/40"}, "machines.range: the range of guest addresses"},
        {{"--listen", "127.0.0.1"}, "listen: \"127.0.0.1\" is no address and port"},
        {{"--listen", "127.0.0.1:99999"}, "listen: \"127.0.0.1:99999\" is no address"},
        {{"--listen", "example.org:80"}, "listen: \"example.org:80\" is no address"},
        {{"--socket", SOCKET_TOO_LONG}, "socket: a path of at most 107 bytes"},
        {{"--token-file", "/nonexistent/x"}, "token file /nonexistent/x: No such file"},
        {{"--token-file", "/dev/null"}, "a token has at least 16 characters"},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        struct config c;
        struct un_error err = UN_ERROR_INIT;
        const char *args[5] = {cases[i].args[0], cases[i].args[1], cases[i].args[2],
                               cases[i].args[3]};
        assert_true(load(&c, &err, args) < 0);
        if (!strstr(err.text, cases[i].says)) {
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].says);
        }
        config_done(&c);
    }
}

static void file_with_a_mistake_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "[]",
        "{\"x\": 1}",
        "{\"pool\": {\"x\": 1}}",
        "{\"pool\": 3}",
        "{\"listen\": 5}",
        "{\"listen\": [5]}",
        "{\"driver\": 5}",
        "{\"pool\": {\"min\": \"1\"}}",
        "{\"pool\": {\"min\": 1, \"min\": 2}}",
        "{\"log.level.x\": 1}",
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(texts); i++) {
        struct config c;
        struct un_error err = UN_ERROR_INIT;
        assert_int_equal(config_init(&c, &err), 0);
        assert_int_equal(config_parse_file(&c, texts[i], strlen(texts[i]), &err), -EINVAL);
        assert_true(strlen(err.text) > 0);
        config_done(&c);
    }
}

static void dotted_keys_work_at_the_top_too(void **state)
{
    struct config c;
    struct un_error err = UN_ERROR_INIT;
    const char *text = "{\"pool.min\": 0, \"log\": {\"format\": \"json\"}}";
    assert_int_equal(config_init(&c, &err), 0);
    assert_int_equal(config_parse_file(&c, text, strlen(text), &err), 0);
    assert_int_equal(c.pool_min, 0);
    assert_string_equal(c.log_format, "json");
    config_done(&c);
}

static void find_in_manual(void *arg, const char *key)
{
    char wanted[128];
    snprintf(wanted, sizeof wanted, ".It Cm %s\n", key);
    if (!strstr(arg, wanted)) {
        fail_msg("docs/man/unid.8 does not describe the setting %s", key);
    }
}

static void every_setting_is_in_the_manual(void **state)
{
    const char *srcdir = getenv("srcdir");
    char path[4096];
    snprintf(path, sizeof path, "%s/docs/man/unid.8", srcdir ? srcdir : ".");
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    static char text[1 << 16];
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    assert_true(n > 0 && n < sizeof text - 1);
    config_each_key(find_in_manual, text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_valid),
        cmocka_unit_test(flags_override_the_file_wherever_they_stand),
        cmocka_unit_test(pool_is_sized_by_the_driver_as_far_as_it_is_not_set),
        cmocka_unit_test(each_mistake_names_what_is_wrong),
        cmocka_unit_test(file_with_a_mistake_is_refused),
        cmocka_unit_test(dotted_keys_work_at_the_top_too),
        cmocka_unit_test(every_setting_is_in_the_manual),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
