/* test_flavor.c - command lines of machine images. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/limits.h"
#include "hypervisor/flavor.h"
#include "tests/unit/elf_support.h"

static const struct hv_net_words net = {.ip = "10.87.0.2",
                                        .prefix = "16",
                                        .netmask = "255.255.0.0",
                                        .gateway = "10.87.0.1",
                                        .dns = "10.87.0.1",
                                        .mac = "02:75:0a:57:00:02",
                                        .port = "8080",
                                        .tsc_khz = "2600000"};

static void expect(const char *flavor, const char *append, const char *want)
{
    un_autobuf struct un_buf b = {0};
    assert_non_null(hv_flavor_find(flavor));
    assert_int_equal(hv_cmdline_expand(hv_flavor_find(flavor), append, &net, &b, NULL), 0);
    assert_string_equal(b.len ? (const char *)b.data : "", want);
}

static void presets(void **state)
{
    expect("plain", NULL, "");
    expect("plain", "a {ip}/{prefix} {netmask} {gateway} {dns} {mac} {port}",
           "a 10.87.0.2/16 255.255.0.0 10.87.0.1 10.87.0.1 02:75:0a:57:00:02 8080");
    expect("plain", "{tsckhz}", "2600000");
    expect("unikraft", "-c /nginx.conf", "netdev.ip=10.87.0.2/16:10.87.0.1 -- -c /nginx.conf");
    expect("solo5", "--port={port}", "--ipv4=10.87.0.2/16 --ipv4-gateway=10.87.0.1 --port=8080");
    static const char words[] =
        "console=ttyS0 quiet panic=-1 tsc_early_khz=2600000 tsc=reliable cryptomgr.notests "
        "ip=10.87.0.2::10.87.0.1:255.255.0.0::eth0:off:10.87.0.1 debug";
    expect("linux", "debug", words);
    expect("linux-pc", "debug", words);
    expect("nanos", NULL, "");
}

static void rumprun_gets_json(void **state)
{
    un_autobuf struct un_buf b = {0};
    assert_int_equal(
        hv_cmdline_expand(hv_flavor_find("rumprun"), "server \"a b\" {port}", &net, &b, NULL), 0);
    json_t *json = json_loadb((const char *)b.data, b.len, 0, NULL);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "cmdline")), "server \"a b\" 8080");
    json_decref(json);
}

static void braces_that_are_no_placeholders_stay(void **state)
{
    expect("plain", "{\"a\":1} {} {A} {ip", "{\"a\":1} {} {A} {ip");
    un_autobuf struct un_buf b = {0};
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(hv_cmdline_expand(hv_flavor_find("plain"), "{adress}", &net, &b, &err),
                     -EINVAL);
    assert_non_null(strstr(err.text, "{adress}"));
    /* What is inserted is not expanded again. */
    assert_int_equal(hv_cmdline_expand(hv_flavor_find("plain"), "{append}", &net, &b, &err),
                     -EINVAL);
}

static void too_long_is_refused(void **state)
{
    char text[LIMIT_CMDLINE_BYTES + 2];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    un_autobuf struct un_buf b = {0};
    assert_int_equal(hv_cmdline_expand(hv_flavor_find("plain"), text, &net, &b, NULL), -E2BIG);
}

static void images_say_what_they_are(void **state)
{
    char linux_image[0x300] = "";
    memcpy(linux_image + 0x202, "HdrS", 4);
    static const struct {
        const char *bytes, *flavor;
    } cases[] = {{"\x7f"
                  "ELF ... Powered by Unikraft ...",
                  "unikraft"},
                 {"%s: [libkvmplat] %s", "unikraft"},
                 {"xx Solo5: Bindings", "solo5"},
                 {"a disk with NVMTFS", "nanos"},
                 {"OSv v0.57", "osv"},
                 {"OSv \nOSv options:\n  --help", "osv"},
                 {"rumprun on Solo5", "rumprun"},
                 {"nothing", "plain"},
                 {"", "plain"}};
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        assert_string_equal(hv_flavor_detect(cases[i].bytes, strlen(cases[i].bytes))->name,
                            cases[i].flavor);
    }
    assert_string_equal(hv_flavor_detect(linux_image, sizeof(linux_image))->name, "linux");
    assert_null(hv_flavor_find("windows"));
}

/* A kernel as Firecracker takes it: an ELF file of one segment, which `code` begins. */
static void make_linux64(struct elf_file *f, const char *code, const char *words)
{
    elf_make(f);
    elf_program(f, ELF_PH_LOAD)->p_paddr = 0x400000;
    memcpy(f->data + 0x800, code, 10);
    strcpy((char *)f->data + 0x1000, words);
}

static void kernels_for_firecracker_ask_for_their_parameters(void **state)
{
    static const char asks[] = "\x81\xbe\x02\x02\0\0HdrS", other[] = "\x81\xbe\x02\x02\0\0HdrT";
    static const struct {
        const char *code, *words, *flavor;
    } cases[] = {{asks, "Powered by Unikraft", "unikraft-fc"},
                 {asks, "", "firecracker"},
                 {asks, "OSv v0.57", "firecracker"},
                 {other, "Powered by Unikraft", "unikraft"},
                 {other, "", "plain"}};
    struct elf_file f;
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        make_linux64(&f, cases[i].code, cases[i].words);
        assert_string_equal(hv_flavor_detect(f.data, sizeof(f.data))->name, cases[i].flavor);
    }
    elf_program(&f, ELF_PH_LOAD)->p_vaddr = 0xffffffff80000000; /* a vmlinux */
    assert_string_equal(hv_flavor_detect(f.data, sizeof(f.data))->name, "plain");
    assert_true(hv_flavor_find("firecracker")->by_words);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presets),
        cmocka_unit_test(rumprun_gets_json),
        cmocka_unit_test(braces_that_are_no_placeholders_stay),
        cmocka_unit_test(too_long_is_refused),
        cmocka_unit_test(images_say_what_they_are),
        cmocka_unit_test(kernels_for_firecracker_ask_for_their_parameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
