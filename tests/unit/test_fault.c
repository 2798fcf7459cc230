/* test_fault.c - the instruction at which a guest died is found through page tables that may say
 * anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hypervisor/fault.h"

#define PAGE  UINT64_C(4096)
#define PAGES 8
#define BYTES (PAGES * PAGE)
#define P     UINT64_C(7)
#define LARGE UINT64_C(0x80)
#define RIP   UINT64_C(0x600000000ffd)

/* Of exactly that size, so that the sanitizers see a read behind it. */
static uint8_t *memory_new(void)
{
    uint8_t *mem = calloc(1, BYTES);
    assert_non_null(mem);
    return mem;
}

static void put(uint8_t *mem, uint64_t table, uint64_t index, uint64_t entry)
{
    memcpy(mem + table + index * 8, &entry, sizeof(entry));
}

/* Tables in the pages 1 to 4; RIP's page is page 5, the next one page 7. */
static uint8_t *mapped(void)
{
    uint8_t *mem = memory_new();
    put(mem, PAGE, RIP >> 39 & 511, (2 * PAGE) | P);
    put(mem, 2 * PAGE, RIP >> 30 & 511, (3 * PAGE) | P);
    put(mem, 3 * PAGE, RIP >> 21 & 511, (4 * PAGE) | P);
    put(mem, 4 * PAGE, RIP >> 12 & 511, (5 * PAGE) | P | UINT64_C(1) << 63);
    put(mem, 4 * PAGE, (RIP >> 12 & 511) + 1, (7 * PAGE) | P);
    memcpy(mem + 5 * PAGE + 0xffd, "\x90\xcc\x0f", 3);
    memset(mem + 7 * PAGE, 0x05, 64);
    return mem;
}

static void code_is_read_across_pages_as_the_tables_say(void **state)
{
    uint8_t *mem = mapped(), code[HV_CODE_MAX];
    assert_int_equal(hv_fault_code(mem, BYTES, PAGE, RIP, code), HV_CODE_MAX);
    assert_memory_equal(code, "\x90\xcc\x0f\x05\x05", 5);
    put(mem, 4 * PAGE, (RIP >> 12 & 511) + 1, 0);
    assert_int_equal(hv_fault_code(mem, BYTES, PAGE, RIP, code), 3);
    free(mem);
}

static void large_pages_are_followed(void **state)
{
    uint8_t *mem = mapped(), code[HV_CODE_MAX];
    uint64_t in_large = RIP & ~UINT64_C(0x1fffff);
    put(mem, 3 * PAGE, RIP >> 21 & 511, P | LARGE); /* physical 0 */
    assert_int_equal(hv_fault_code(mem, BYTES, PAGE, in_large + 7 * PAGE, code), HV_CODE_MAX);
    assert_int_equal(code[0], 0x05);
    assert_int_equal(hv_fault_code(mem, BYTES, PAGE, in_large + BYTES - 2, code), 2);
    free(mem);
}

static void tables_that_lead_out_of_memory_give_nothing(void **state)
{
    static const uint64_t wild[] = {BYTES, BYTES - 4, UINT64_C(0xffffffffff000), 0};
    uint8_t code[HV_CODE_MAX];
    for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
        for (uint64_t level = 1; level <= 4; level++) {
            uint8_t *mem = mapped();
            uint64_t index = RIP >> (12 + 9 * (4 - level)) & 511;
            put(mem, level * PAGE, index, wild[i] ? wild[i] | P : 0);
            (void)hv_fault_code(mem, BYTES, PAGE, RIP, code);
            put(mem, level * PAGE, index, 0);
            assert_int_equal(hv_fault_code(mem, BYTES, PAGE, RIP, code), 0);
            assert_int_equal(hv_fault_code(mem, BYTES, wild[i], RIP, code), 0);
            free(mem);
        }
    }
    assert_int_equal(hv_fault_code(NULL, 0, 0, 0, code), 0);
}

static void nonsense_is_read_within_bounds(void **state)
{
    uint8_t *mem = memory_new(), code[HV_CODE_MAX];
    srandom(1);
    for (int round = 0; round < 2000; round++) {
        for (uint64_t at = 0; at < BYTES; at += 8) {
            put(mem, 0, at / 8, ((uint64_t)random() % (2 * PAGES) * PAGE) | (random() & 0xff));
        }
        size_t n = hv_fault_code(mem, BYTES, (uint64_t)random() % (2 * BYTES),
                                 (uint64_t)random() << 20 ^ (uint64_t)random(), code);
        assert_true(n <= HV_CODE_MAX);
    }
    free(mem);
}

static void system_calls_have_names(void **state)
{
    char text[160];
    assert_string_equal(hv_fault_system_call((const uint8_t *)"\x0f\x05", 2), "syscall");
    assert_string_equal(hv_fault_system_call((const uint8_t *)"\x0f\x34\x90", 3), "sysenter");
    assert_string_equal(hv_fault_system_call((const uint8_t *)"\xcd\x80", 2), "int 0x80");
    assert_null(hv_fault_system_call((const uint8_t *)"\xcd\x03", 2));
    assert_null(hv_fault_system_call((const uint8_t *)"\x0f\x05", 1));
    assert_null(hv_fault_system_call((const uint8_t *)"", 0));
    hv_fault_describe_call(text, sizeof(text), "int 0x80", UINT64_C(0xffffffffffffff00));
    assert_non_null(strstr(text, "executed int 0x80 at 0xffffffffffffff00, the 32-bit way"));
    hv_fault_describe_call(text, sizeof(text), "syscall", 5);
    assert_non_null(strstr(text, "(syscall) at 0x5 that was not found"));
    assert_non_null(strstr(text, "run time)")); /* the longest one fits */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_is_read_across_pages_as_the_tables_say),
        cmocka_unit_test(large_pages_are_followed),
        cmocka_unit_test(tables_that_lead_out_of_memory_give_nothing),
        cmocka_unit_test(nonsense_is_read_within_bounds),
        cmocka_unit_test(system_calls_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
