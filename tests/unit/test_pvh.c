/* test_pvh.c - kernels written into the memory of a machine that waits for one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/limits.h"
#include "hypervisor/pvh.h"
#include "pvh_maker.h"

#define MIB (UINT64_C(1) << 20)

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, cmdline, rsdp, memmap;
    uint32_t memmap_count, reserved;
};
struct entry {
    uint64_t addr, size;
    uint32_t type, reserved;
};

/* A machine of 8 MiB, as QEMU's firmware leaves it. */
struct machine {
    uint8_t *mem;
    struct start_info start;
    struct entry memmap[HV_PVH_MEMMAP_MAX];
    struct pvh_kernel kernel;
    struct hv_pvh_spec spec;
    struct hv_pvh_entry at;
};

static int set_up(void **state)
{
    struct machine *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    _Static_assert(sizeof(struct start_info) == HV_PVH_START_SIZE, "as the specification has it");
    _Static_assert(sizeof(struct entry) == HV_PVH_ENTRY_SIZE, "as the specification has it");
    m->mem = calloc(1, 8 * MIB);
    assert_non_null(m->mem);
    m->start = (struct start_info){
        .magic = 0x336ec578, .version = 1, .rsdp = 0xf5a20, .memmap = 0xf0000, .memmap_count = 4};
    m->memmap[0] = (struct entry){.addr = 0, .size = 0x9fc00, .type = 1};
    m->memmap[1] = (struct entry){.addr = 0x9fc00, .size = 0x400, .type = 2};
    m->memmap[2] = (struct entry){.addr = 0xf0000, .size = 0x10000, .type = 2};
    m->memmap[3] = (struct entry){.addr = MIB, .size = 7 * MIB, .type = 1};
    m->kernel = pvh_kernel_default();
    m->spec = (struct hv_pvh_spec){.mem = m->mem,
                                   .clean_end = 8 * MIB,
                                   .kernel = m->kernel.file,
                                   .kernel_len = PVH_FILE_SIZE,
                                   .cmdline = "",
                                   .start = (const uint8_t *)&m->start,
                                   .memmap = (const uint8_t *)m->memmap};
    *state = m;
    return 0;
}

static int tear_down(void **state)
{
    struct machine *m = *state;
    free(m->mem);
    free(m);
    return 0;
}

static int load(struct machine *m)
{
    struct un_error err = UN_ERROR_INIT;
    pvh_kernel_write(&m->kernel);
    int rc = hv_pvh_load(&m->spec, &m->at, &err);
    assert_int_equal(rc, err.code);
    assert_true(rc == 0 || err.text[0]);
    return rc;
}

static const struct start_info *info_of(const struct machine *m)
{
    return (const void *)(m->mem + m->at.info);
}

static bool is_zero(const uint8_t *mem, uint64_t from, uint64_t to)
{
    while (from < to && mem[from] == 0) {
        from++;
    }
    return from == to;
}

static void segments_go_to_their_physical_addresses(void **state)
{
    struct machine *m = *state;
    for (int is32 = 0; is32 < 2; is32++) {
        memset(m->mem, 0, 8 * MIB);
        m->kernel.is32 = is32;
        m->kernel.paddr = 2 * MIB + 0x123;
        assert_int_equal(load(m), 0);
        assert_memory_equal(m->mem + 2 * MIB + 0x123, m->kernel.file + PVH_TEXT_AT, PVH_TEXT_SIZE);
        assert_int_equal(m->at.rip, 0x100010);
        assert_true(is_zero(m->mem, 0, HV_PVH_INFO));
        assert_true(is_zero(m->mem, HV_PVH_INFO + HV_PVH_INFO_SIZE, 2 * MIB + 0x123));
        assert_true(is_zero(m->mem, 2 * MIB + 0x123 + PVH_TEXT_SIZE, 8 * MIB));
    }
}

static void the_kernel_is_told_what_the_firmware_told(void **state)
{
    struct machine *m = *state;
    m->spec.cmdline = "ip=10.0.2.15 quiet";
    assert_int_equal(load(m), 0);
    const struct start_info *s = info_of(m);
    assert_int_equal(s->magic, 0x336ec578);
    assert_int_equal(s->version, 1);
    assert_int_equal(s->modules, 0);
    assert_int_equal(s->module_list, 0);
    assert_int_equal(s->rsdp, 0xf5a20);
    assert_int_equal(s->memmap_count, 4);
    assert_memory_equal(m->mem + s->memmap, m->memmap, 4 * sizeof(struct entry));
    assert_string_equal((const char *)m->mem + s->cmdline, "ip=10.0.2.15 quiet");
}

static void the_ram_disk_lies_at_the_end_of_memory(void **state)
{
    struct machine *m = *state;
    static const uint8_t initrd[5000] = {1, 2, 3, [4999] = 9};
    m->spec.initrd = initrd;
    m->spec.initrd_len = sizeof(initrd);
    assert_int_equal(load(m), 0);
    const struct start_info *s = info_of(m);
    assert_int_equal(s->modules, 1);
    const uint64_t *module = (const void *)(m->mem + s->module_list);
    assert_int_equal(module[0], 8 * MIB - 8192);
    assert_int_equal(module[1], sizeof(initrd));
    assert_int_equal(module[2], 0);
    assert_memory_equal(m->mem + module[0], initrd, sizeof(initrd));
}

static void what_the_firmware_used_is_left_alone(void **state)
{
    struct machine *m = *state;
    static const uint8_t initrd[4096] = {7};
    m->spec.initrd = initrd;
    m->spec.initrd_len = sizeof(initrd);
    m->spec.clean_end = 3 * MIB;
    assert_int_equal(load(m), 0);
    assert_int_equal(m->mem[3 * MIB - 4096], 7);
    assert_true(is_zero(m->mem, 3 * MIB, 8 * MIB));
    m->kernel.mem_size = 2 * MIB; /* no room for the disk any more */
    assert_int_equal(load(m), -ENOMEM);
    m->spec.initrd_len = 0;
    assert_int_equal(load(m), 0);
    m->kernel.mem_size++;
    assert_int_equal(load(m), -ENOMEM);
    m->spec.clean_end = MIB;
    m->kernel.mem_size = PVH_TEXT_SIZE;
    assert_int_equal(load(m), -ENOTSUP);
}

static void what_qemu_would_load_otherwise_is_refused(void **state)
{
    struct machine *m = *state;
    m->kernel.note_type = 17;
    assert_int_equal(load(m), -ENOTSUP);
    m->kernel = pvh_kernel_default();
    m->kernel.multiboot = 0x1badb002;
    assert_int_equal(load(m), -ENOTSUP);
    m->kernel = pvh_kernel_default();
    m->kernel.paddr = MIB - 4096;
    assert_int_equal(load(m), -ENOTSUP);
    m->kernel.paddr = UINT64_C(1) << 32;
    assert_int_equal(load(m), -ENOTSUP);
    assert_int_equal(hv_pvh_check("#!/bin/sh\n", 10, NULL), -ENOTSUP);
    assert_int_equal(hv_pvh_check(NULL, 0, NULL), -ENOTSUP);
    m->kernel = pvh_kernel_default();
    pvh_kernel_write(&m->kernel);
    assert_int_equal(hv_pvh_check(m->kernel.file, PVH_FILE_SIZE, NULL), 0);
    assert_int_equal(hv_pvh_check(m->kernel.file, PVH_TEXT_AT, NULL), -EINVAL); /* cut short */
    assert_true(is_zero(m->mem, 0, 8 * MIB));
}

static void a_segment_behind_the_memory_is_refused(void **state)
{
    struct machine *m = *state;
    m->kernel.paddr = 8 * MIB;
    assert_int_equal(load(m), -ENOMEM);
    m->kernel.paddr = 8 * MIB - PVH_TEXT_SIZE + 1;
    m->kernel.mem_size = PVH_TEXT_SIZE;
    assert_int_equal(load(m), -ENOMEM);
    m->kernel.paddr = 8 * MIB - PVH_TEXT_SIZE;
    assert_int_equal(load(m), 0);
}

static void firmware_that_tells_no_map_is_refused(void **state)
{
    struct machine *m = *state;
    const struct start_info good = m->start;
    m->start.magic++;
    assert_int_equal(load(m), -ENOTSUP);
    m->start = good;
    m->start.version = 0;
    assert_int_equal(load(m), -ENOTSUP);
    m->start = good;
    m->start.memmap_count = HV_PVH_MEMMAP_MAX + 1;
    assert_int_equal(load(m), -ENOTSUP);
    m->start.memmap_count = 3; /* no RAM from 1 MiB on */
    assert_int_equal(load(m), -ENOTSUP);
    m->start = good;
    m->memmap[2].type = 1; /* the hole is none */
    m->memmap[2].addr = HV_PVH_INFO + HV_PVH_INFO_SIZE - 1;
    assert_int_equal(load(m), -ENOTSUP);
    m->memmap[2].addr = UINT64_MAX - 100; /* passes the end of the address space */
    assert_int_equal(load(m), 0);
    assert_int_equal(m->at.info, HV_PVH_INFO);
}

static void the_command_line_is_bounded(void **state)
{
    struct machine *m = *state;
    char text[LIMIT_CMDLINE_BYTES + 2];
    memset(text, 'x', sizeof(text));
    text[LIMIT_CMDLINE_BYTES + 1] = '\0';
    m->spec.cmdline = text;
    assert_int_equal(load(m), -E2BIG);
    text[LIMIT_CMDLINE_BYTES] = '\0';
    assert_int_equal(load(m), 0);
    assert_string_equal((const char *)m->mem + info_of(m)->cmdline, text);
    assert_memory_equal(m->mem + info_of(m)->memmap, m->memmap, 4 * sizeof(struct entry));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(segments_go_to_their_physical_addresses),
        TEST(the_kernel_is_told_what_the_firmware_told),
        TEST(the_ram_disk_lies_at_the_end_of_memory),
        TEST(what_the_firmware_used_is_left_alone),
        TEST(what_qemu_would_load_otherwise_is_refused),
        TEST(a_segment_behind_the_memory_is_refused),
        TEST(firmware_that_tells_no_map_is_refused),
        TEST(the_command_line_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
