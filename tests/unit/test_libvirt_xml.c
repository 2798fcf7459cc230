/* test_libvirt_xml.c - the pure parts of the libvirt driver: domain XML, the ROM's tables, the mailbox,
 * places of files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "hypervisor/libvirt/bind.h"
#include "hypervisor/libvirt/place.h"
#include "hypervisor/libvirt/proc.h"
#include "hypervisor/libvirt/qemucaps.h"
#include "hypervisor/libvirt/rom.h"
#include "hypervisor/libvirt/xml.h"

#define MEM_BYTES (UINT64_C(8) << 20)

static struct lv_xml_spec plain(void)
{
    return (struct lv_xml_spec){.name = "unid-0123456789-7",
                                .accelerator = "tcg",
                                .mem_bytes = UINT64_C(64) << 20,
                                .rom_path = "/dev/shm/x/rom.bin",
                                .socket_path = "/dev/shm/x/s/7",
                                .emulator = "/usr/bin/qemu-system-x86_64"};
}

static bool has(const struct un_buf *b, const char *text)
{
    return strstr((const char *)b->data, text) != NULL;
}

static void describes_a_shell(void **state)
{
    struct lv_xml_spec spec = plain();
    un_autobuf struct un_buf b = {0};
    assert_int_equal(lv_xml_build(&spec, &b), 0);
    assert_true(has(&b, "<domain type='qemu'>"));
    assert_true(has(&b, "<name>unid-0123456789-7</name>"));
    assert_true(has(&b, "<memory unit='KiB'>65536</memory>"));
    assert_true(has(&b, "machine='microvm'"));
    assert_true(has(&b, "<loader readonly='yes' type='rom'>/dev/shm/x/rom.bin</loader>"));
    assert_true(has(&b, "<source mode='bind' path='/dev/shm/x/s/7'/>"));
    assert_true(has(&b, "match='exact'")); /* "minimum" would make it the host's CPU */
    assert_false(has(&b, "<interface"));
}

static void kvm_is_another_domain_type(void **state)
{
    struct lv_xml_spec spec = plain();
    un_autobuf struct un_buf b = {0};
    spec.accelerator = "kvm";
    assert_int_equal(lv_xml_build(&spec, &b), 0);
    assert_true(has(&b, "<domain type='kvm'>"));
    spec.accelerator = "xen";
    assert_int_equal(lv_xml_build(&spec, &b), -EINVAL);
}

static void foreign_strings_are_escaped(void **state)
{
    struct lv_xml_spec spec = plain();
    un_autobuf struct un_buf b = {0};
    spec.socket_path = "/a'b<c>&\"d";
    assert_int_equal(lv_xml_build(&spec, &b), 0);
    assert_true(has(&b, "path='/a&apos;b&lt;c&gt;&amp;&quot;d'"));
    spec.rom_path = "/bad\npath";
    assert_int_equal(lv_xml_build(&spec, &b), -EINVAL);
}

/* libvirt's own schema, where xmllint and the schema are installed. */
static void schema_accepts_it(void **state)
{
    static const char schema[] = "/usr/share/libvirt/schemas/domain.rng";
    struct lv_xml_spec spec = plain();
    un_autobuf struct un_buf b = {0};
    if (access(schema, R_OK) < 0 || system("xmllint --version >/dev/null 2>&1") != 0) {
        print_message("    no xmllint or no %s\n", schema);
        skip();
    }
    assert_int_equal(lv_xml_build(&spec, &b), 0);
    FILE *p = popen("xmllint --noout --relaxng /usr/share/libvirt/schemas/domain.rng - 2>&1", "w");
    assert_non_null(p);
    assert_int_equal(fwrite(b.data, 1, b.len, p), b.len);
    assert_int_equal(pclose(p), 0);
}

static uint64_t read64(const uint8_t *mem, uint64_t at)
{
    uint64_t v;
    memcpy(&v, mem + at, sizeof(v));
    return v;
}

static void low_memory_is_the_supervisors(void **state)
{
    uint8_t *mem = calloc(1, MEM_BYTES);
    assert_non_null(mem);
    struct hv_layout l = {.cr3 = 0x7f5000,
                          .rip = 0x200000,
                          .rsp = 0x7f4ff8,
                          .rdi = UNID_BOOT_ADDR,
                          .low_table = 0x7f8000};
    assert_int_equal(lv_bind(mem, MEM_BYTES, &l, NULL), 0);
    for (uint64_t i = 0; i < 256; i++) {
        uint64_t entry = read64(mem, l.low_table + 8 * i);
        assert_int_equal(entry & 0x000ffffffffff000, i << 12);
        assert_int_equal(entry & 5, 1); /* present, and not the user's */
    }
    assert_int_equal(read64(mem, l.low_table + 8 * 256), 0);
    assert_int_equal(read64(mem, LV_MAILBOX_CR3), l.cr3);
    assert_int_equal(read64(mem, LV_MAILBOX_RIP), l.rip);
    assert_memory_equal(mem + LV_TABLES_ADDR, lv_rom + LV_TABLES_OFFSET, LV_TABLES_SIZE);
    free(mem);
}

static void layouts_out_of_memory_are_refused(void **state)
{
    uint8_t *mem = calloc(1, MEM_BYTES);
    assert_non_null(mem);
    static const struct hv_layout wrong[] = {
        {.cr3 = 0x7f5000, .low_table = MEM_BYTES},
        {.cr3 = 0x7f5000, .low_table = 0x7f8001},
        {.cr3 = 0x7f5000, .low_table = 0x1000},
        {.cr3 = UINT64_C(1) << 32, .low_table = 0x7f8000},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(wrong); i++) {
        assert_int_equal(lv_bind(mem, MEM_BYTES, &wrong[i], NULL), -EINVAL);
    }
    free(mem);
}

/* Intel SDM vol. 1, section 19.5.2: a clear bit allows the port. */
static void only_the_doorbell_port_is_allowed(void **state)
{
    const uint8_t *tss = lv_rom + LV_TABLES_OFFSET + 0x400;
    unsigned base = tss[0x66] | (unsigned)tss[0x67] << 8, allowed = 0;
    assert_int_equal(base, 0x68);
    for (unsigned port = 0; port < 0x81 * 8; port++) {
        if (!(tss[base + port / 8] >> (port % 8) & 1)) {
            assert_int_equal(port, LV_DOORBELL_PORT);
            allowed++;
        }
    }
    assert_int_equal(allowed, 1);
}

static void fault_is_read_from_the_mailbox(void **state)
{
    static uint8_t mem[0x1000] __attribute__((aligned(8)));
    struct hv_exit e;
    assert_false(lv_fault_read(mem, 0, &e));
    mem[LV_FAULT_SEEN] = 1;
    mem[LV_FAULT_VECTOR] = 14;
    mem[LV_FAULT_ERROR] = 6;
    mem[LV_FAULT_ADDR + 1] = 0x50;
    mem[LV_FAULT_RIP + 2] = 0x20;
    assert_true(lv_fault_read(mem, 0x100000, &e));
    assert_int_equal(e.kind, HV_EXIT_FAULT);
    assert_int_equal(e.fault_vector, 14);
    assert_int_equal(e.fault_addr, 0x5000);
    assert_int_equal(e.fault_rip, 0x200000);
    assert_string_equal(e.detail, "page fault: write to 0x5000, instruction 0x200000");
    assert_true(lv_fault_read(mem, 0x5000, &e));
    assert_non_null(strstr(e.detail, "stack or heap used up"));
}

static void tag_stays_with_the_state_directory(void **state)
{
    char dir[] = "/tmp/unid-test-place-XXXXXX", first[LV_PREFIX_SIZE];
    struct lv_place p, q;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(lv_place_init(&p, dir, "/tmp", NULL), 0);
    memcpy(first, p.prefix, sizeof(first));
    assert_int_equal(lv_place_init(&q, dir, "/tmp", NULL), -EBUSY);
    lv_place_done(&p);
    assert_int_equal(lv_place_init(&q, dir, "/tmp", NULL), 0);
    assert_string_equal(q.prefix, first);
    lv_place_done(&q);
    lv_tree_remove(dir);
    assert_int_not_equal(access(dir, F_OK), 0);
}

static void removal_follows_no_link(void **state)
{
    char dir[] = "/tmp/unid-test-tree-XXXXXX", path[64], kept[64];
    assert_non_null(mkdtemp(dir));
    snprintf(kept, sizeof(kept), "%s/kept", dir);
    assert_int_equal(mkdir(kept, 0700), 0);
    snprintf(path, sizeof(path), "%s/tree", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/tree/link", dir);
    assert_int_equal(symlink(kept, path), 0);
    snprintf(path, sizeof(path), "%s/tree", dir);
    lv_tree_remove(path);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(access(kept, F_OK), 0);
    lv_tree_remove(dir);
}

/* sha256("/usr/bin/qemu"), sha256("/run/x/qemu") */
#define CAPS_OF_QEMU                                                                               \
    "%s/qemu/capabilities/"                                                                        \
    "6e465190516b5d68253e60e3b650e497f37db9aab63e7293acc2095f5e0407c5.xml"
#define CAPS_OF_ALIAS                                                                              \
    "%s/qemu/capabilities/"                                                                        \
    "087995f737bf5e25d04c5aa17e87e8e5d4236c39abda430d9285d6ba0d14d417.xml"

static void put_caps(const char *dir, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), CAPS_OF_QEMU, dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void libvirt_remembers_less_of_the_second_path(void **state)
{
    char dir[] = "/tmp/unid-test-caps-XXXXXX", path[256], seen[256] = "";
    struct un_error err = UN_ERROR_INIT;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/qemu", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/qemu/capabilities", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(lv_qemucaps_lighten(dir, "/usr/bin/qemu", "/run/x/qemu", &err), -ENOENT);

    put_caps(dir, "<qemuCaps><emulator>/usr/bin/qemu</emulator>"
                  "<flag name='a'/><flag name='cpu-unavailable-features'/><flag name='b'/>");
    assert_int_equal(lv_qemucaps_lighten(dir, "/usr/bin/qemu", "/run/x/qemu", &err), 0);
    snprintf(path, sizeof(path), CAPS_OF_ALIAS, dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(seen, sizeof(seen), f));
    fclose(f);
    assert_string_equal(seen, "<qemuCaps><emulator>/run/x/qemu</emulator>"
                              "<flag name='a'/><flag name='b'/>");

    put_caps(dir, "<qemuCaps><emulator>/usr/bin/qemu</emulator><flag name='a'/>");
    assert_int_equal(lv_qemucaps_lighten(dir, "/usr/bin/qemu", "/run/x/qemu", &err), -EINVAL);
    lv_tree_remove(dir);
}

static void no_other_process_is_ours(void **state)
{
    assert_false(lv_proc_matches(getpid(), "unid-0123456789-"));
    assert_false(lv_proc_matches(1, "unid-0123456789-"));
    assert_true(lv_proc_peak_rss_kib(getpid()) > 0);
    assert_int_equal(lv_proc_cpu_us(0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(describes_a_shell),
        cmocka_unit_test(kvm_is_another_domain_type),
        cmocka_unit_test(foreign_strings_are_escaped),
        cmocka_unit_test(schema_accepts_it),
        cmocka_unit_test(low_memory_is_the_supervisors),
        cmocka_unit_test(layouts_out_of_memory_are_refused),
        cmocka_unit_test(only_the_doorbell_port_is_allowed),
        cmocka_unit_test(fault_is_read_from_the_mailbox),
        cmocka_unit_test(tag_stays_with_the_state_directory),
        cmocka_unit_test(removal_follows_no_link),
        cmocka_unit_test(libvirt_remembers_less_of_the_second_path),
        cmocka_unit_test(no_other_process_is_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
