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

/* An order with `count` ranges and `touches` touches; whether the monitor takes it. */
static bool taken_with(uint32_t op, uint32_t flags, const struct vmm_range *r, size_t count,
                       size_t touches)
{
    static struct {
        struct vmm_order order;
        struct vmm_range ranges[VMM_RANGES_MAX + 1];
        uint64_t touches[VMM_TOUCHES_MAX + 1];
    } packet;
    struct vmm_ahead got;
    struct vmm_order o;
    packet.order = (struct vmm_order){.op = op,
                                      .flags = flags,
                                      .mem_bytes = MEM_BYTES,
                                      .range_count = (uint32_t)count,
                                      .touch_count = (uint32_t)touches};
    memcpy(packet.ranges, r, count * sizeof(*r));
    size_t len = sizeof(packet.order) + count * sizeof(*r) + touches * sizeof(uint64_t);
    bool good = vmm_order_parse(&packet, len, MEM_BYTES, &o, &got);
    assert_true(!good || (got.range_count == count && got.touch_count == touches));
    assert_true(!good || (const void *)got.touches == packet.ranges + count);
    assert_false(vmm_order_parse(&packet, len + 8, MEM_BYTES, &o, &got));
    assert_false(vmm_order_parse(&packet, len - 1, MEM_BYTES, &o, &got));
    return good;
}

static bool taken(uint32_t op, uint32_t flags, const struct vmm_range *r, size_t count)
{
    return taken_with(op, flags, r, count, 0);
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

static void orders_carry_touches_where_a_guest_may_stand(void **state)
{
    const struct vmm_range r[] = {{FIRST, 2}};
    assert_true(taken_with(VMM_ORDER_BIND, VMM_BIND_STATE | VMM_BIND_STAND, r, 1, 3));
    assert_true(taken_with(VMM_ORDER_BIND, VMM_BIND_STATE, r, 0, VMM_TOUCHES_MAX));
    assert_true(taken_with(VMM_ORDER_RESET, 0, r, 1, 3));
    assert_false(taken_with(VMM_ORDER_RESET, 0, r, 1, VMM_TOUCHES_MAX + 1));
    assert_false(taken_with(VMM_ORDER_BIND, 0, r, 0, 3));
    assert_false(taken_with(VMM_ORDER_GO, 0, r, 0, 1));
}

static void a_ring_tells_no_more_touches_than_fit(void **state)
{
    static struct {
        struct vmm_report report;
        uint8_t tail[VMM_TAIL_MAX + 8];
    } packet;
    struct vmm_report got;
    const uint8_t *tail;
    size_t tail_len;
    packet.report = (struct vmm_report){.kind = VMM_REPORT_RING, .touched = 2};
    assert_true(vmm_report_parse(&packet, sizeof(got) + 24, &got, &tail, &tail_len));
    assert_int_equal(tail_len, 24);
    assert_false(vmm_report_parse(&packet, sizeof(got) + 15, &got, &tail, &tail_len));
    packet.report.touched = VMM_TOUCHES_MAX;
    assert_true(vmm_report_parse(&packet, sizeof(got) + VMM_TAIL_MAX, &got, &tail, &tail_len));
    assert_false(vmm_report_parse(&packet, sizeof(got) + VMM_TAIL_MAX + 1, &got, &tail, &tail_len));
    packet.report.touched = VMM_TOUCHES_MAX + 1;
    assert_false(vmm_report_parse(&packet, sizeof(got) + VMM_TAIL_MAX + 8, &got, &tail, &tail_len));
    packet.report = (struct vmm_report){.kind = VMM_REPORT_FAULT, .touched = 1};
    assert_false(vmm_report_parse(&packet, sizeof(got) + 8, &got, &tail, &tail_len));
}

static void touches_are_put_together(void **state)
{
    static uint64_t got[VMM_TOUCHES_MAX], many[VMM_TOUCHES_MAX];
    const uint64_t a[] = {0x1000, 0x3001, 0x5000}, b[] = {0x2000, 0x3000, 0x5fff};
    assert_int_equal(vmm_touches_merge(NULL, 0, NULL, 0, got), 0);
    assert_int_equal(vmm_touches_merge(a, 3, b, 3, got), 4);
    const uint64_t both[] = {0x1000, 0x2000, 0x3001, 0x5001};
    assert_memory_equal(got, both, sizeof(both));
    /* What is out of order, or said twice, is left out. */
    const uint64_t bad[] = {0x7000, 0x6000, 0x7001, 0, 0xfffffffffffff000};
    assert_int_equal(vmm_touches_merge(NULL, 0, bad, 5, got), 2);
    assert_int_equal(got[0], 0x7001);
    assert_int_equal(got[1], 0xfffffffffffff000);
    for (size_t i = 0; i < VMM_TOUCHES_MAX; i++) {
        many[i] = (i + 1) << 13;
    }
    assert_int_equal(vmm_touches_merge(many, VMM_TOUCHES_MAX, a, 3, got), VMM_TOUCHES_MAX);
    assert_int_equal(got[0], 0x1000);
}

static bool zeros_taken(uint32_t flags, uint64_t at, uint64_t bytes)
{
    const struct vmm_order order = {.op = VMM_ORDER_BIND,
                                    .flags = flags,
                                    .mem_bytes = MEM_BYTES,
                                    .zero_at = at,
                                    .zero_bytes = bytes};
    struct vmm_order o;
    struct vmm_ahead ahead;
    return vmm_order_parse(&order, sizeof(order), MEM_BYTES, &o, &ahead);
}

static void zeros_lie_in_memory_behind_the_channel(void **state)
{
    const uint64_t from = UNID_CHANNEL_END, all = MEM_BYTES - UNID_CHANNEL_END;
    assert_true(zeros_taken(VMM_BIND_STATE, from, all));
    assert_true(zeros_taken(VMM_BIND_STATE | VMM_BIND_LOW, 4 << 20, 4096));
    assert_true(zeros_taken(0, 0, 0));
    assert_false(zeros_taken(0, from, 4096));
    assert_false(zeros_taken(VMM_BIND_SHARED, from, 4096));
    assert_false(zeros_taken(VMM_BIND_LOW, 0, 0));
    assert_false(zeros_taken(VMM_BIND_STATE, from - 4096, 8192));
    assert_false(zeros_taken(VMM_BIND_STATE, from + 1, 4096));
    assert_false(zeros_taken(VMM_BIND_STATE, from, 4097));
    assert_false(zeros_taken(VMM_BIND_STATE, from, all + 4096));
    assert_false(zeros_taken(VMM_BIND_STATE, from, UINT64_MAX - 4095));
    assert_false(zeros_taken(VMM_BIND_STATE, UINT64_MAX - 4095, 4096));
}

static void pieces_are_filled_whole_and_among_the_zeros(void **state)
{
    const uint64_t piece = UNID_PIECE_SIZE, at = 4 * piece + 4096, bytes = 4 * piece;
    assert_true(vmm_fill_valid(at, bytes, 5 * piece));
    assert_true(vmm_fill_valid(at, bytes, 7 * piece));
    assert_false(vmm_fill_valid(at, bytes, 4 * piece));
    assert_false(vmm_fill_valid(at, bytes, 8 * piece));
    assert_false(vmm_fill_valid(at, bytes, 5 * piece + 4096));
    assert_false(vmm_fill_valid(at, bytes, 0 - piece));
    assert_false(vmm_fill_valid(0, 0, 0));
    assert_false(vmm_fill_valid(piece, piece - 4096, piece));
    assert_true(vmm_fill_valid(piece, piece, piece));
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
        cmocka_unit_test(orders_carry_touches_where_a_guest_may_stand),
        cmocka_unit_test(a_ring_tells_no_more_touches_than_fit),
        cmocka_unit_test(touches_are_put_together),
        cmocka_unit_test(zeros_lie_in_memory_behind_the_channel),
        cmocka_unit_test(pieces_are_filled_whole_and_among_the_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
