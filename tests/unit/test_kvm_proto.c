/* test_kvm_proto.c - what unid and unid-vmm tell each other of pages: ranges of a bitmap, and orders with
 * ranges behind them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hypervisor/kvm/proto.h"

#define MEM_BYTES (UINT64_C(64) << 20)
#define PAGES     (MEM_BYTES / 4096)
#define FIRST     ((uint32_t)(UNID_CHANNEL_END / 4096))

static uint8_t bitmap[PAGES / 8];
static struct vmm_range ranges[VMM_RANGES_MAX];

static void set(uint32_t page)
{
    bitmap[page / 8] |= (uint8_t)(1 << page % 8);
}

static int clear(void **state)
{
    memset(bitmap, 0, sizeof(bitmap));
    return 0;
}

static void nothing_written_is_no_range(void **state)
{
    assert_int_equal(vmm_ranges_make(bitmap, MEM_BYTES, ranges), 0);
}

static void neighbours_are_one_range(void **state)
{
    set(1000);
    set(1001);
    set(1003); /* one page between */
    set(1006);
    set(PAGES - 1);
    assert_int_equal(vmm_ranges_make(bitmap, MEM_BYTES, ranges), 3);
    assert_int_equal(ranges[0].page, 1000);
    assert_int_equal(ranges[0].count, 4);
    assert_int_equal(ranges[1].page, 1006);
    assert_int_equal(ranges[1].count, 1);
    assert_int_equal(ranges[2].page, PAGES - 1);
}

static void the_channel_is_left_out(void **state)
{
    memset(bitmap, 0xff, (FIRST + 8) / 8);
    assert_int_equal(vmm_ranges_make(bitmap, MEM_BYTES, ranges), 1);
    assert_int_equal(ranges[0].page, FIRST);
}

static void there_are_no_more_ranges_than_fit(void **state)
{
    for (uint32_t p = FIRST; p < PAGES; p += 4) {
        set(p);
    }
    assert_int_equal(vmm_ranges_make(bitmap, MEM_BYTES, ranges), VMM_RANGES_MAX);
}

static void no_more_pages_than_a_request_should_wait_for(void **state)
{
    const uint64_t big = VMM_LEARN_MAX;
    uint8_t *all = malloc(big / 4096 / 8);
    memset(all, 0xff, big / 4096 / 8);
    assert_int_equal(vmm_ranges_make(all, big, ranges), 1);
    assert_int_equal(ranges[0].count, 16384);
    free(all);
}

/* An order with `count` ranges; whether the monitor takes it. */
static bool taken(uint32_t op, uint32_t flags, const struct vmm_range *r, size_t count)
{
    static struct {
        struct vmm_order order;
        struct vmm_range ranges[VMM_RANGES_MAX + 1];
    } packet;
    const struct vmm_range *got;
    size_t got_count;
    struct vmm_order o;
    packet.order = (struct vmm_order){.op = op, .flags = flags, .mem_bytes = MEM_BYTES};
    memcpy(packet.ranges, r, count * sizeof(*r));
    bool good = vmm_order_parse(&packet, sizeof(packet.order) + count * sizeof(*r), MEM_BYTES, &o,
                                &got, &got_count);
    assert_true(!good || got_count == count);
    return good;
}

static void orders_carry_good_ranges_only(void **state)
{
    const struct vmm_range good[] = {{FIRST, 2}, {FIRST + 2, 1}, {PAGES - 1, 1}};
    assert_true(taken(VMM_ORDER_BIND, VMM_BIND_STATE, good, 3));
    assert_true(taken(VMM_ORDER_BIND, VMM_BIND_STATE | VMM_BIND_LEARN, good, 0));
    assert_false(taken(VMM_ORDER_BIND, 0, good, 3));
    assert_false(taken(VMM_ORDER_GO, 0, good, 1));
    assert_false(taken(VMM_ORDER_BIND, VMM_BIND_SHARED | VMM_BIND_LEARN, good, 0));
    const struct vmm_range bad[][2] = {
        {{FIRST - 1, 1}, {PAGES - 1, 1}}, /* the channel */
        {{FIRST, 0}, {PAGES - 1, 1}},     /* empty */
        {{FIRST, 2}, {FIRST + 1, 1}},     /* overlapping */
        {{PAGES - 1, 2}, {0, 1}},         /* behind the end */
        {{FIRST, UINT32_MAX}, {PAGES - 1, 1}},
        {{UINT32_MAX, 1}, {PAGES - 1, 1}},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(taken(VMM_ORDER_BIND, VMM_BIND_STATE, bad[i], 2));
    }
    static struct vmm_range many[VMM_RANGES_MAX + 1];
    for (uint32_t i = 0; i <= VMM_RANGES_MAX; i++) {
        many[i] = (struct vmm_range){FIRST + 2 * i, 1};
    }
    assert_true(taken(VMM_ORDER_BIND, VMM_BIND_STATE, many, VMM_RANGES_MAX));
    assert_false(taken(VMM_ORDER_BIND, VMM_BIND_STATE, many, VMM_RANGES_MAX + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nothing_written_is_no_range, clear),
        cmocka_unit_test_setup(neighbours_are_one_range, clear),
        cmocka_unit_test_setup(the_channel_is_left_out, clear),
        cmocka_unit_test_setup(there_are_no_more_ranges_than_fit, clear),
        cmocka_unit_test_setup(no_more_pages_than_a_request_should_wait_for, clear),
        cmocka_unit_test(orders_carry_good_ranges_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
