/* test_loader.c - the loader of kernels that QEMU does not load, as far as it is pure: what it reads of a kernel, and
 * what the kernel is told. Kernels in machines are started by tests/e2e/test_machines.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <elf.h>
#include <string.h>

#include "hypervisor/libvirt/loader/boot.h"
#include "tests/unit/elf_support.h"

enum { HEADER_AT = 0x1000 };

static const char *plan(const struct elf_file *f, struct boot_plan *ret)
{
    return boot_plan(f->data, sizeof(f->data), ret);
}

/* A 64-bit kernel that is loaded at 2 MiB and runs in the highest 2 GiB. */
static void make_kernel(struct elf_file *f)
{
    elf_make(f);
    elf_header(f)->e_entry = 0xffffffff80000800;
    elf_program(f, ELF_PH_LOAD)->p_vaddr = 0xffffffff80000000;
    elf_program(f, ELF_PH_LOAD)->p_paddr = 0x200000;
    elf_program(f, ELF_PH_DATA)->p_vaddr = 0xffffffff80001000;
    elf_program(f, ELF_PH_DATA)->p_paddr = 0x201000;
}

/* Puts a header of the second specification with these tags, `words` 32-bit words, behind it. */
static void add_second(struct elf_file *f, const uint32_t *tags, unsigned words)
{
    uint8_t *at = f->data + HEADER_AT;
    uint32_t len = 16 + words * 4;
    put32(at, 0xe85250d6);
    put32(at + 4, 0);
    put32(at + 8, len);
    put32(at + 12, -(0xe85250d6u + len));
    memcpy(at + 16, tags, words * 4);
}

static void a_64_bit_elf_file_is_loaded_by_its_segments(void **state)
{
    struct elf_file f;
    struct boot_plan p;
    make_kernel(&f);
    elf_add_multiboot1(f.data + HEADER_AT, 3);
    assert_null(plan(&f, &p));
    assert_int_equal(p.protocol, BOOT_MULTIBOOT1);
    assert_int_equal(p.entry, 0x200800);
    assert_int_equal(p.piece_count, 2);
    assert_int_equal(p.low, 0x200000);
    assert_int_equal(p.high, 0x201000 + 65536);
    struct boot_piece data = {.to = 0x201000, .from = 4096, .file_size = 4096, .zero_size = 61440};
    assert_memory_equal(&p.pieces[1], &data, sizeof(data));
    elf_add_multiboot2(f.data + HEADER_AT + 16); /* goes before the first */
    assert_null(plan(&f, &p));
    assert_int_equal(p.protocol, BOOT_MULTIBOOT2);
}

static void a_32_bit_elf_file_is_as_well(void **state)
{
    struct elf_file f;
    struct boot_plan p;
    elf_make32(&f);
    Elf32_Phdr *load = (Elf32_Phdr *)(f.data + sizeof(Elf32_Ehdr));
    load->p_paddr = 0x100000;
    elf_add_multiboot2(f.data + HEADER_AT);
    assert_null(plan(&f, &p));
    assert_int_equal(p.entry, 0x100800);
    assert_int_equal(p.piece_count, 1);
    assert_int_equal(p.pieces[0].zero_size, 4096);
}

static void a_header_with_addresses_goes_before_the_segments(void **state)
{
    struct elf_file f;
    struct boot_plan p;
    make_kernel(&f);
    const uint32_t tags[] = {2, 24, 0x400100, 0x400000, 0x401000, 0x403000, /* address */
                             3, 12, 0x400800, 0,                            /* entry */
                             0, 8};
    add_second(&f, tags, 12);
    assert_null(plan(&f, &p));
    assert_int_equal(p.entry, 0x400800);
    struct boot_piece all = {
        .to = 0x400000, .from = HEADER_AT - 0x100, .file_size = 0x1000, .zero_size = 0x2000};
    assert_int_equal(p.piece_count, 1);
    assert_memory_equal(&p.pieces[0], &all, sizeof(all));

    const uint32_t whole[] = {2, 24, 0x401000, 0xffffffff, 0, 0, 3, 12, 0x400800, 0, 0, 8};
    add_second(&f, whole, 12);
    assert_null(plan(&f, &p)); /* from the file's start to its end */
    assert_int_equal(p.pieces[0].to, 0x400000);
    assert_int_equal(p.pieces[0].from, 0);
    assert_int_equal(p.pieces[0].file_size, sizeof(f.data));

    const uint32_t first[] = {0x400100, 0x400000, 0x401000, 0x403000, 0x400900};
    make_kernel(&f);
    elf_add_multiboot1(f.data + HEADER_AT, 0x10003);
    memcpy(f.data + HEADER_AT + 12, first, sizeof(first));
    assert_null(plan(&f, &p));
    assert_int_equal(p.entry, 0x400900);
    assert_int_equal(p.pieces[0].zero_size, 0x2000);
}

static void what_cannot_be_started_is_named(void **state)
{
    static const struct {
        uint32_t tags[8];
        const char *word;
    } cases[] = {
        {{5, 20, 640, 480, 32, 0, 0, 8}, "screen"},
        {{1, 12, 99, 0, 0, 8}, "told"},
        {{77, 8, 0, 8}, "tag that no loader knows"},
        {{4, 400, 0, 0, 0, 8}, "beyond its multiboot header"},
        {{4, 0, 0, 8}, "beyond its multiboot header"},
        {{2, 24, 0x400100, 0x400000, 0, 0, 0, 8}, "not where it begins"},
    };
    struct elf_file f;
    struct boot_plan p;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        make_kernel(&f);
        add_second(&f, cases[i].tags, 8);
        const char *wrong = plan(&f, &p);
        assert_non_null(wrong);
        assert_non_null(strstr(wrong, cases[i].word));
        if (cases[i].tags[1] > 8 && cases[i].tags[1] < 24) { /* what is optional may be left away */
            f.data[HEADER_AT + 16 + 2] = 1;
            assert_null(plan(&f, &p));
        }
    }
}

static void segments_out_of_bounds_are_refused(void **state)
{
    struct elf_file f;
    struct boot_plan p;
    make_kernel(&f);
    elf_add_multiboot2(f.data + HEADER_AT);
    elf_program(&f, ELF_PH_DATA)->p_offset = sizeof(f.data) - 4095;
    assert_string_equal(plan(&f, &p), "a segment goes beyond the file's end");
    elf_program(&f, ELF_PH_DATA)->p_offset = UINT64_MAX - 100;
    assert_string_equal(plan(&f, &p), "a segment goes beyond the file's end");
    elf_program(&f, ELF_PH_DATA)->p_offset = 4096;
    elf_program(&f, ELF_PH_DATA)->p_paddr = 0xfffff000;
    assert_string_equal(plan(&f, &p), "a segment goes beyond 4 GiB");
    elf_program(&f, ELF_PH_DATA)->p_paddr = 0x201000;
    elf_header(&f)->e_entry = 0x1234;
    assert_string_equal(plan(&f, &p), "its entry is in no segment");
    elf_header(&f)->e_phnum = 200;
    assert_string_equal(plan(&f, &p), "its program headers are not in the file");
}

static void without_a_header_it_is_entered_at_its_physical_address(void **state)
{
    struct elf_file f;
    struct boot_plan p;
    make_kernel(&f);
    assert_string_equal(plan(&f, &p), "its entry is in no segment");
    elf_header(&f)->e_entry = 0x200800;
    assert_null(plan(&f, &p));
    assert_int_equal(p.protocol, BOOT_LINUX64);
    assert_int_equal(p.entry, 0x200800);
    assert_int_equal(p.piece_count, 2);
    assert_int_equal(p.low, 0x200000);
    assert_int_equal(p.high, 0x201000 + 65536);
    elf_program(&f, ELF_PH_DATA)->p_offset = UINT64_MAX - 100;
    assert_string_equal(plan(&f, &p), "a segment goes beyond the file's end");
    elf_make32(&f); /* the protocol is for 64 bits */
    assert_string_equal(plan(&f, &p), "it has no multiboot header, and is no ELF file for x86-64");
    static const uint8_t magic[] = {0x7f, 'E', 'L', 'F'};
    for (uint32_t len = 0; len <= sizeof(magic); len++) {
        assert_non_null(boot_plan(magic, len, &p));
    }
}

/* --- what the kernel is told -------------------------------------------------------------------- */

enum { AT = 0x700000, SIZE = 4096 };

static const uint8_t rsdp[36] = "RSD PTR ";

static struct boot_told everything(void)
{
    return (struct boot_told){
        .cmdline = "ip=10.0.0.2 quiet",
        .devices = "",
        .initrd = 0x800000,
        .initrd_end = 0x800123,
        .rsdp = rsdp,
        .rsdp_len = sizeof(rsdp),
        .rsdp_at = 0xf5a20,
        .region_count = 3,
        .regions = {{0, 0x9fc00, 1}, {0xf0000, 0x10000, 2}, {0x100000, 0x3f00000, 1}}};
}

static uint32_t word(const uint8_t *buf, uint32_t at)
{
    uint32_t v;
    memcpy(&v, buf + at, 4);
    return v;
}

/* The tag of the second specification; 0: there is none. */
static uint32_t find_tag(const uint8_t *buf, uint32_t type)
{
    uint32_t at = 8, total = word(buf, 0);
    while (at + 8 <= total) {
        if (word(buf, at) == type) {
            return at;
        }
        at += (word(buf, at + 4) + 7) & ~7u;
    }
    return 0;
}

static void the_second_specification_tells_by_tags(void **state)
{
    struct boot_plan p = {.protocol = BOOT_MULTIBOOT2, .low = 0x200000};
    struct boot_told told = everything();
    uint8_t buf[SIZE];
    uint32_t len = boot_info_build(&p, &told, AT, buf, sizeof(buf));
    assert_int_equal(word(buf, 0), len);
    assert_string_equal((char *)buf + find_tag(buf, 1) + 8, "ip=10.0.0.2 quiet");
    assert_string_equal((char *)buf + find_tag(buf, 2) + 8, "unid");
    uint32_t module = find_tag(buf, 3), memory = find_tag(buf, 4), map = find_tag(buf, 6);
    assert_int_equal(word(buf, module + 8), 0x800000);
    assert_int_equal(word(buf, module + 12), 0x800123);
    assert_int_equal(word(buf, memory + 8), 0x9fc00 >> 10);
    assert_int_equal(word(buf, memory + 12), 0x3f00000 >> 10);
    assert_int_equal(word(buf, map + 4), 16 + 3 * 24);
    assert_int_equal(word(buf, map + 16 + 2 * 24), 0x100000);
    assert_int_equal(word(buf, map + 16 + 2 * 24 + 16), 1);
    assert_memory_equal(buf + find_tag(buf, 15) + 8, rsdp, sizeof(rsdp));
    assert_int_equal(find_tag(buf, 14), 0);
    assert_int_equal(word(buf, find_tag(buf, 21) + 8), 0x200000);
    assert_int_equal(find_tag(buf, 0) + 8, len);

    told.initrd_end = told.initrd;
    told.rsdp = NULL;
    assert_true(boot_info_build(&p, &told, AT, buf, sizeof(buf)) > 0);
    assert_int_equal(find_tag(buf, 3), 0);
    assert_int_equal(find_tag(buf, 15), 0);
}

static void the_first_specification_tells_by_addresses(void **state)
{
    struct boot_plan p = {.protocol = BOOT_MULTIBOOT1};
    struct boot_told told = everything();
    uint8_t buf[SIZE];
    assert_true(boot_info_build(&p, &told, AT, buf, sizeof(buf)) > 0);
    assert_int_equal(word(buf, 0), 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
    assert_int_equal(word(buf, 4), 0x9fc00 >> 10);
    assert_string_equal((char *)buf + word(buf, 16) - AT, "ip=10.0.0.2 quiet");
    assert_int_equal(word(buf, 20), 1);
    uint32_t module = word(buf, 24) - AT, map = word(buf, 48) - AT;
    assert_int_equal(word(buf, module), 0x800000);
    assert_int_equal(word(buf, module + 4), 0x800123);
    assert_int_equal(buf[word(buf, module + 8) - AT], 0);
    assert_int_equal(word(buf, 44), 3 * 24);
    assert_int_equal(word(buf, map), 20);
    assert_int_equal(word(buf, map + 24 + 4), 0xf0000);
    assert_int_equal(word(buf, map + 24 + 20), 2);
    assert_string_equal((char *)buf + word(buf, 64) - AT, "unid");
}

enum { PAGE_SIZE = 4096 };

/* Where Linux' Documentation/arch/x86/zero-page.rst and boot.rst have the fields. */
static void the_zero_page_tells_by_fields(void **state)
{
    struct boot_plan p = {.protocol = BOOT_LINUX64};
    struct boot_told told = everything();
    uint8_t buf[2 * PAGE_SIZE];
    memset(buf, 0xee, sizeof(buf));
    uint32_t len = boot_info_build(&p, &told, AT, buf, sizeof(buf));
    assert_int_equal(len, PAGE_SIZE + strlen(told.cmdline) + 1);
    assert_int_equal(word(buf, 0x1fe) & 0xffff, 0xaa55);
    assert_memory_equal(buf + 0x202, "HdrS", 4);
    assert_int_equal(buf[0x210], 0xff);
    assert_int_equal(word(buf, 0x228), AT + PAGE_SIZE);
    assert_string_equal((char *)buf + PAGE_SIZE, "ip=10.0.0.2 quiet");
    assert_int_equal(word(buf, 0x238), strlen(told.cmdline) + 1); /* as it is, for Unikraft */
    assert_int_equal(word(buf, 0x218), 0x800000);
    assert_int_equal(word(buf, 0x21c), 0x123);
    assert_int_equal(word(buf, 0x070), 0xf5a20);
    assert_int_equal(word(buf, 0x074), 0);
    assert_int_equal(buf[0x1e8], 3);
    assert_int_equal(word(buf, 0x2d0 + 20), 0xf0000);
    assert_int_equal(word(buf, 0x2d0 + 20 + 8), 0x10000);
    assert_int_equal(word(buf, 0x2d0 + 20 + 16), 2);
    assert_int_equal(word(buf, 0x2d0 + 2 * 20 + 16), 1);
    assert_int_equal(buf[0x1ef], 0); /* the sentinel: whoever wrote this knew all fields */
    assert_int_equal(word(buf, 0x2d0 + 3 * 20), 0);

    told.initrd_end = told.initrd;
    told.rsdp = NULL;
    assert_true(boot_info_build(&p, &told, AT, buf, sizeof(buf)) > 0);
    assert_int_equal(word(buf, 0x218), 0);
    assert_int_equal(word(buf, 0x21c), 0);
    assert_int_equal(word(buf, 0x070), 0);
}

static void devices_are_named_before_what_is_the_programs(void **state)
{
    static const struct {
        const char *cmdline, *devices, *told;
    } cases[] = {
        {"name a=b -- -v --", "d=1 d=2", "name a=b d=1 d=2 -- -v --"},
        {"name a=b", "d=1", "name a=b d=1"},
        {"name a=b ", "d=1", "name a=b d=1"},
        {"-- x", "d=1", "d=1 -- x"},
        {"name --", "d=1", "name d=1 --"},
        {"a--b --c -- ", "d=1", "a--b --c d=1 -- "},
        {"", "d=1", "d=1"},
        {"name -- x", "", "name -- x"},
        {"", "", ""},
    };
    struct boot_plan p = {.protocol = BOOT_LINUX64};
    struct boot_told told = everything();
    uint8_t buf[2 * PAGE_SIZE];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        told.cmdline = cases[i].cmdline;
        told.devices = cases[i].devices;
        assert_true(boot_info_build(&p, &told, AT, buf, sizeof(buf)) > 0);
        assert_string_equal((char *)buf + PAGE_SIZE, cases[i].told);
    }
}

static void what_does_not_fit_is_not_told(void **state)
{
    static const enum boot_protocol protocols[] = {BOOT_MULTIBOOT1, BOOT_MULTIBOOT2, BOOT_LINUX64};
    struct boot_told told = everything();
    told.devices = "virtio_mmio.device=512@0xfeb00e00:12";
    uint8_t buf[2 * PAGE_SIZE];
    for (int i = 0; i < 3; i++) {
        struct boot_plan p = {.protocol = protocols[i]};
        uint32_t len = boot_info_build(&p, &told, AT, buf, sizeof(buf));
        assert_int_equal(boot_info_build(&p, &told, AT, buf, len), len);
        for (uint32_t size = 0; size < len; size++) {
            assert_int_equal(boot_info_build(&p, &told, AT, buf, size), 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_64_bit_elf_file_is_loaded_by_its_segments),
        cmocka_unit_test(a_32_bit_elf_file_is_as_well),
        cmocka_unit_test(a_header_with_addresses_goes_before_the_segments),
        cmocka_unit_test(what_cannot_be_started_is_named),
        cmocka_unit_test(segments_out_of_bounds_are_refused),
        cmocka_unit_test(without_a_header_it_is_entered_at_its_physical_address),
        cmocka_unit_test(the_second_specification_tells_by_tags),
        cmocka_unit_test(the_first_specification_tells_by_addresses),
        cmocka_unit_test(the_zero_page_tells_by_fields),
        cmocka_unit_test(devices_are_named_before_what_is_the_programs),
        cmocka_unit_test(what_does_not_fit_is_not_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
