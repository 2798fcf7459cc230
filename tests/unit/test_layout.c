/* test_layout.c - walks the page tables that hv_layout_build made, as the CPU would, over every
 * page of memory, and feeds it hostile images. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <errno.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "hypervisor/layout.h"
#include "tests/unit/elf_maker.h"

#define MIB   (UINT64_C(1) << 20)
#define PAGE  UINT64_C(4096)
#define P     1
#define W     2
#define U     4
#define LARGE (UINT64_C(1) << 7)
#define NX    (UINT64_C(1) << 63)
#define ADDR  UINT64_C(0x000ffffffffff000)

struct fixture {
    uint8_t *mem;
    uint64_t mem_bytes;
    uint8_t image[ELF_MAKER_SIZE];
    struct hv_layout_spec spec;
    struct hv_run_spec run;
    struct hv_layout layout;
    struct un_error err;
};

static const char *const no_strings[] = {NULL};

static void set_memory(struct fixture *f, uint64_t bytes)
{
    if (f->mem) {
        munmap(f->mem, f->mem_bytes);
    }
    f->mem_bytes = bytes;
    f->mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                  -1, 0);
    assert_true(f->mem != MAP_FAILED);
    f->spec.mem = f->mem;
    f->spec.mem_bytes = bytes;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->spec.doorbell = HV_DOORBELL_PORT;
    f->spec.doorbell_port = 0x3f8;
    set_memory(f, 16 * MIB);
    f->run = (struct hv_run_spec){
        .image = f->image, .image_len = sizeof(f->image), .argv = no_strings, .envp = no_strings};
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    munmap(f->mem, f->mem_bytes);
    free(f);
    return 0;
}

static int build(struct fixture *f, const struct elf_maker *m)
{
    elf_maker_write(m, f->image);
    f->err = (struct un_error)UN_ERROR_INIT;
    return hv_layout_build(&f->spec, &f->run, &f->layout, &f->err);
}

/* The leaf entry for an address, or 0; the rights of all levels are anded into *rights (W, U). */
static uint64_t walk(const struct fixture *f, uint64_t addr, uint64_t *rights, uint64_t *phys)
{
    uint64_t table = f->layout.cr3;
    *rights = W | U;
    for (int level = 4; level >= 1; level--) {
        assert_true(table % PAGE == 0 && table < f->mem_bytes);
        int shift = 12 + 9 * (level - 1);
        uint64_t entry;
        memcpy(&entry, f->mem + table + (addr >> shift & 511) * 8, sizeof(entry));
        if (!(entry & P)) {
            return 0;
        }
        *rights &= entry;
        if (level == 1 || (level == 2 && entry & LARGE)) {
            uint64_t mask = (UINT64_C(1) << shift) - 1;
            assert_int_equal(entry & ADDR & mask, 0);
            *phys = (entry & ADDR) | (addr & mask);
            return entry;
        }
        table = entry & ADDR;
    }
    return 0;
}

/* What must be true of a page: '-' not mapped, 'r', 'w', 'x'. */
static char expected(const struct fixture *f, const struct unid_boot *b, uint64_t page)
{
    if (page >= UNID_BOOT_ADDR && page < UNID_CHANNEL_END) {
        return 'w';
    }
    if (page == 0x200000) {
        return 'x';
    }
    if (page == 0x201000) {
        return 'r';
    }
    if (page >= 0x202000 && page < 0x204000) {
        return 'w';
    }
    if (page >= b->heap_start && page < b->heap_end) {
        return 'w';
    }
    if (page >= b->stack_top - UNID_STACK_SIZE && page < b->stack_top) {
        return 'w';
    }
    return '-';
}

static char found(const struct fixture *f, uint64_t page)
{
    uint64_t rights = 0, phys = 0, entry = walk(f, page, &rights, &phys);
    if (!entry) {
        return '-';
    }
    assert_int_equal(phys, page);
    assert_true(rights & U);
    if (rights & W) {
        return entry & NX ? 'w' : '!';
    }
    return entry & NX ? 'r' : 'x';
}

static const struct unid_boot *boot_of(const struct fixture *f)
{
    return (const struct unid_boot *)(void *)(f->mem + UNID_BOOT_ADDR);
}

static void check_all_pages(const struct fixture *f)
{
    const struct unid_boot *b = boot_of(f);
    for (uint64_t page = 0; page < f->mem_bytes + 4 * MIB; page += PAGE) {
        char want = expected(f, b, page), is = found(f, page);
        if (want != is) {
            fail_msg("page %#llx is '%c', should be '%c'", (unsigned long long)page, is, want);
        }
    }
}

static void every_page_has_its_rights_and_no_other(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = elf_maker_default();
    static const uint64_t sizes[] = {4 * MIB, 16 * MIB, 17 * MIB + PAGE, 256 * MIB};
    for (size_t i = 0; i < UN_ARRAY_SIZE(sizes); i++) {
        set_memory(f, sizes[i]);
        assert_int_equal(build(f, &m), 0);
        check_all_pages(f);
    }
}

static void page_tables_lie_above_the_stack_and_are_not_mapped(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = elf_maker_default();
    assert_int_equal(build(f, &m), 0);
    const struct unid_boot *b = boot_of(f);
    assert_true(f->layout.cr3 >= b->stack_top);
    assert_true(f->layout.low_table >= b->stack_top && f->layout.low_table < f->mem_bytes);
    for (uint64_t page = b->stack_top; page < f->mem_bytes; page += PAGE) {
        assert_int_equal(found(f, page), '-');
    }
    /* The driver's part of the low table is empty. */
    for (unsigned i = 0; i < 256; i++) {
        uint64_t entry;
        memcpy(&entry, f->mem + f->layout.low_table + 8 * i, sizeof(entry));
        assert_int_equal(entry, 0);
    }
}

static void heap_has_large_leaves_where_it_is_aligned(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = elf_maker_default();
    assert_int_equal(build(f, &m), 0);
    uint64_t rights, phys;
    assert_true(walk(f, 4 * MIB, &rights, &phys) & LARGE);
    assert_true(walk(f, 12 * MIB, &rights, &phys) & LARGE);
    assert_false(walk(f, 2 * MIB, &rights, &phys) & LARGE);
    assert_false(walk(f, boot_of(f)->heap_end - PAGE, &rights, &phys) & LARGE);
}

static void boot_block_and_registers_are_as_the_contract_says(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = elf_maker_default();
    f->spec.boot_flags = UNID_BOOT_REQUEST_READY;
    f->spec.tsc_hz = 12345;
    const char *const argv[] = {"name", "", "x y", NULL}, *const envp[] = {"A=1", NULL};
    f->run.argv = argv;
    f->run.envp = envp;
    f->run.workdir = "/srv";
    assert_int_equal(build(f, &m), 0);
    const struct unid_boot *b = boot_of(f);
    assert_int_equal(b->magic, UNID_ABI_MAGIC);
    assert_memory_equal(&b->magic, "NIDabi01", 8);
    assert_int_equal(b->major, UNID_ABI_MAJOR);
    assert_int_equal(b->size, sizeof(*b));
    assert_int_equal(b->flags, UNID_BOOT_REQUEST_READY);
    assert_int_equal(b->doorbell_kind, UNID_DOORBELL_PORT);
    assert_int_equal(b->doorbell_port, 0x3f8);
    assert_int_equal(b->tsc_hz, 12345);
    assert_int_equal(b->argc, 3);
    assert_int_equal(b->envc, 1);
    assert_int_equal(b->workdir, 14);
    assert_int_equal(b->strings_len, 19);
    assert_memory_equal(f->mem + UNID_STRINGS_ADDR, "name\0\0x y\0A=1\0/srv", 19);
    assert_int_equal(b->image_start, 0x200000);
    assert_int_equal(b->image_end, 0x203800);
    assert_int_equal(b->heap_start, 0x204000);
    assert_int_equal(b->heap_end % PAGE, 0);
    assert_int_equal(f->layout.guard, b->heap_end);
    assert_int_equal(b->stack_top - UNID_STACK_SIZE, b->heap_end + PAGE);
    assert_int_equal(f->layout.rsp, b->stack_top - 8);
    assert_int_equal(f->layout.rip, 0x200010);
    assert_int_equal(f->layout.rdi, UNID_BOOT_ADDR);
}

static void segments_are_copied_and_their_rest_is_zero(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = elf_maker_default();
    assert_int_equal(build(f, &m), 0);
    assert_memory_equal(f->mem + 0x200000, f->image + 0x1000, 0x800);
    assert_memory_equal(f->mem + 0x201000, f->image + 0x2000, 0x100);
    assert_memory_equal(f->mem + 0x202000, f->image + 0x3000, 0x10);
    for (uint64_t at = 0x202010; at < 0x204000; at++) {
        assert_int_equal(f->mem[at], 0);
    }
}

static void a_doorbell_in_memory_gets_one_page_of_its_own(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = elf_maker_default();
    static const uint64_t doors[] = {0x3f000000, UINT64_C(0x7ffffffffffc), 16 * MIB};
    for (size_t i = 0; i < UN_ARRAY_SIZE(doors); i++) {
        set_memory(f, 16 * MIB);
        f->spec.doorbell = HV_DOORBELL_MEMORY;
        f->spec.doorbell_addr = doors[i];
        assert_int_equal(build(f, &m), 0);
        assert_int_equal(boot_of(f)->doorbell_addr, doors[i]);
        uint64_t page = doors[i] & ~(PAGE - 1);
        assert_int_equal(found(f, page), 'w');
        assert_int_equal(found(f, page - PAGE), '-');
        assert_int_equal(found(f, page + PAGE), '-');
    }
}

static void a_doorbell_inside_of_memory_is_refused(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = elf_maker_default();
    f->spec.doorbell = HV_DOORBELL_MEMORY;
    static const uint64_t doors[] = {0, 0x200000, 16 * MIB - 4, 16 * MIB + 2, UINT64_C(1) << 47};
    for (size_t i = 0; i < UN_ARRAY_SIZE(doors); i++) {
        f->spec.doorbell_addr = doors[i];
        assert_int_equal(build(f, &m), -EINVAL);
    }
}

static void images_of_another_kind_are_refused(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = elf_maker_default();
    m.no_note = true;
    assert_int_equal(build(f, &m), -EINVAL);
    m = elf_maker_default();
    m.note_major = UNID_ABI_MAJOR + 1;
    assert_int_equal(build(f, &m), -EINVAL);
    m = elf_maker_default();
    m.type = ET_DYN;
    assert_int_equal(build(f, &m), -EINVAL);
    m = elf_maker_default();
    m.machine = EM_AARCH64;
    assert_int_equal(build(f, &m), -EINVAL);
    assert_int_equal(f->err.code, -EINVAL);
    f->run.image_len = 3;
    assert_int_equal(build(f, &m), -EINVAL);
}

static void addresses_that_do_not_fit_are_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        uint64_t vaddr, memsz;
        int rc;
    } cases[] = {
        {0x1ff000, 0x1800, -EINVAL},                     /* into the channel's half */
        {0x100000, 0x1800, -EINVAL},                     /* over the boot block */
        {0x200800, 0x100, -EINVAL},                      /* shares a page with the code */
        {UINT64_C(0xfffffffffffff000), 0x1000, -EINVAL}, /* ends at 2^64 */
        {UNID_DIRECT_MAP + 0x400000, 0x1000, -ENOMEM},   /* only for paging images */
        {0x202000, UINT64_C(0x7fffffffffff0000), -ENOMEM},
        {0x202000, 16 * MIB, -ENOMEM},
        {16 * MIB - 0x2000, 0x1800, -ENOMEM}, /* where the stack and the tables must be */
        {16 * MIB, 0x10, -ENOMEM},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        struct elf_maker m = elf_maker_default();
        Elf64_Phdr *last = &m.segments[2];
        last->p_vaddr = cases[i].vaddr;
        last->p_memsz = cases[i].memsz;
        if (last->p_vaddr < 0x200000) { /* by ascending address */
            Elf64_Phdr moved = *last;
            memmove(&m.segments[1], &m.segments[0], 2 * sizeof(moved));
            m.segments[0] = moved;
        }
        int rc = build(f, &m);
        if (rc != cases[i].rc) {
            fail_msg("case %zu gave %d: %s", i, rc, f->err.text);
        }
        assert_int_equal(f->err.code, rc);
    }
}

static void a_sparse_image_gets_tables_for_each_part(void **state)
{
    struct fixture *f = *state;
    set_memory(f, 2048 * MIB);
    struct elf_maker m = elf_maker_default();
    m.segments[1].p_vaddr = 0x40000000; /* the second GiB */
    m.segments[2].p_vaddr = 0x7f000000;
    assert_int_equal(build(f, &m), 0);
    assert_int_equal(found(f, 0x200000), 'x');
    assert_int_equal(found(f, 0x201000), '-');
    assert_int_equal(found(f, 0x40000000), 'r');
    assert_int_equal(found(f, 0x7f001000), 'w');
    assert_int_equal(found(f, 0x7f002000), 'w'); /* the heap */
}

static void memory_that_is_too_small_is_said_so(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = elf_maker_default();
    uint64_t least = 0;
    for (uint64_t bytes = PAGE; bytes < 4 * MIB && !least; bytes += PAGE) {
        f->spec.mem_bytes = bytes;
        memset(f->mem, 0, 4 * MIB);
        int rc = build(f, &m);
        assert_true(rc == 0 || rc == -ENOMEM);
        least = rc == 0 ? bytes : 0;
    }
    assert_in_range(least, 0x204000 + UNID_STACK_SIZE, 3 * MIB);
    f->spec.mem_bytes = 0;
    assert_int_equal(build(f, &m), -ENOMEM);
    f->spec.mem_bytes = 4 * MIB + 1;
    assert_int_equal(build(f, &m), -EINVAL);
    f->spec.mem_bytes = UINT64_MAX & ~(PAGE - 1);
    assert_int_equal(build(f, &m), -EINVAL);
}

static void strings_fill_their_area_to_the_last_byte_and_no_further(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = elf_maker_default();
    un_autofree char *text = malloc(UNID_STRINGS_SIZE + 1);
    assert_non_null(text);
    memset(text, 'a', UNID_STRINGS_SIZE);
    text[UNID_STRINGS_SIZE - 1] = '\0';
    const char *const argv[] = {text, NULL}, *const one[] = {"", NULL};
    f->run.argv = argv;
    assert_int_equal(build(f, &m), 0);
    assert_int_equal(boot_of(f)->strings_len, UNID_STRINGS_SIZE);
    assert_int_equal(boot_of(f)->workdir, 0);
    f->run.envp = one;
    assert_int_equal(build(f, &m), -E2BIG);
    f->run.envp = no_strings;
    f->run.workdir = "/";
    assert_int_equal(build(f, &m), -E2BIG);
    f->run.workdir = NULL;
    text[UNID_STRINGS_SIZE - 1] = 'a';
    text[UNID_STRINGS_SIZE] = '\0';
    assert_int_equal(build(f, &m), -E2BIG);
}

static void a_segment_without_rights_is_not_mapped(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = elf_maker_default();
    m.segments[1].p_flags = 0;
    assert_int_equal(build(f, &m), 0);
    assert_int_equal(found(f, 0x201000), '-');
}

/* --- paging images ---------------------------------------------------------------------------- */

/* The default image, with its data in the direct map at the physical address `phys`. */
static struct elf_maker paging_image(uint64_t phys)
{
    struct elf_maker m = elf_maker_default();
    m.note_flags = UNID_NOTE_PAGING;
    m.segments[2].p_vaddr = UNID_DIRECT_MAP + phys;
    return m;
}

/* As found(), for an address of the direct map. */
static char found_direct(const struct fixture *f, uint64_t page)
{
    uint64_t rights = 0, phys = 0, entry = walk(f, UNID_DIRECT_MAP + page, &rights, &phys);
    if (!entry) {
        return '-';
    }
    assert_int_equal(phys, page);
    assert_true(rights & U);
    assert_true(entry & NX);
    return rights & W ? 'w' : 'r';
}

static void a_paging_image_has_all_of_memory_in_the_direct_map_and_little_else(void **state)
{
    struct fixture *f = *state;
    static const uint64_t sizes[] = {8 * MIB, 17 * MIB + PAGE, 1025 * MIB};
    for (size_t i = 0; i < UN_ARRAY_SIZE(sizes); i++) {
        set_memory(f, sizes[i]);
        struct elf_maker m = paging_image(0x600000);
        assert_int_equal(build(f, &m), 0);
        for (uint64_t page = 0; page < f->mem_bytes + 4 * MIB; page += PAGE) {
            bool low = page < UNID_IMAGE_MIN, code = page == 0x200000, data = page == 0x201000;
            bool channel = page >= UNID_BOOT_ADDR && page < UNID_CHANNEL_END;
            assert_int_equal(found(f, page), channel ? 'w' : code ? 'x' : data ? 'r' : '-');
            assert_int_equal(found_direct(f, page), low || page >= f->mem_bytes ? '-' : 'w');
        }
    }
}

static void a_paging_image_is_told_of_free_frames_and_of_its_tables(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = paging_image(0x600000);
    f->run.interface = UNID_INTERFACE_CGI;
    assert_int_equal(build(f, &m), 0);
    const struct unid_boot *b = boot_of(f);
    uint64_t stack_phys = b->stack_top - UNID_DIRECT_MAP;
    assert_int_equal(b->page_root, f->layout.cr3);
    assert_int_equal(b->interface, UNID_INTERFACE_CGI);
    assert_int_equal(b->image_start, 0x200000);
    assert_int_equal(b->image_end, 0x601800);
    assert_int_equal(b->heap_start, 0x602000);
    assert_int_equal(b->heap_end, stack_phys - UNID_STACK_SIZE);
    assert_true(stack_phys <= b->page_root && b->page_root < f->mem_bytes);
    assert_int_equal(f->layout.rsp, b->stack_top - 8);
    assert_int_equal(f->layout.guard, 0);
    assert_memory_equal(f->mem + 0x600000, f->image + 0x3000, 0x10);
    for (uint64_t at = b->heap_start; at < stack_phys; at++) {
        assert_int_equal(f->mem[at], 0);
    }
    uint64_t rights, phys;
    assert_true(walk(f, UNID_DIRECT_MAP + 0x200000, &rights, &phys) & LARGE);
}

static void an_image_that_pages_not_is_told_no_tables(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = elf_maker_default();
    assert_int_equal(build(f, &m), 0);
    assert_int_equal(boot_of(f)->page_root, 0);
    assert_int_equal(boot_of(f)->interface, UNID_INTERFACE_SDK);
    assert_int_equal(found_direct(f, 0x400000), '-');
}

static void segments_in_the_direct_map_are_held_against_memory_and_the_others(void **state)
{
    struct fixture *f = *state;
    static const struct {
        uint64_t phys, memsz;
        uint32_t flags;
        int rc;
    } cases[] = {
        {0x202000, 0x1800, PF_R | PF_W, 0},
        {0x800000, 16, PF_R, 0},
        {0x201000, 0x1800, PF_R, -EINVAL},        /* the constants */
        {0x2017ff, 0x10, PF_R, -EINVAL},          /* a page of theirs */
        {0x200000, 0x200000, PF_R, -EINVAL},      /* around all others */
        {0x1ff000, 0x1000, PF_R, -EINVAL},        /* the channel's half */
        {0, 0x1000, PF_R, -EINVAL},               /* the driver's */
        {0x600000, 0x1000, PF_R | PF_X, -EINVAL}, /* never executable */
        {16 * MIB - PAGE, 0x1000, PF_R, -ENOMEM}, /* where the tables must be */
        {16 * MIB, 0x1000, PF_R, -ENOMEM},
        {UINT64_MAX - UNID_DIRECT_MAP - 0x1fff, 0x1fff, PF_R, -ENOMEM},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        struct elf_maker m = paging_image(cases[i].phys);
        m.segments[2].p_memsz = cases[i].memsz;
        m.segments[2].p_flags = cases[i].flags;
        int rc = build(f, &m);
        if (rc != cases[i].rc) {
            fail_msg("case %zu gave %d: %s", i, rc, f->err.text);
        }
    }
}

static void a_note_that_asks_for_what_nobody_knows_is_refused(void **state)
{
    struct fixture *f = *state;
    struct elf_maker m = elf_maker_default();
    m.note_flags = 0x80000000;
    assert_int_equal(build(f, &m), -EINVAL);
    assert_non_null(strstr(f->err.text, "0x80000000"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_page_has_its_rights_and_no_other),
        TEST(page_tables_lie_above_the_stack_and_are_not_mapped),
        TEST(heap_has_large_leaves_where_it_is_aligned),
        TEST(boot_block_and_registers_are_as_the_contract_says),
        TEST(segments_are_copied_and_their_rest_is_zero),
        TEST(a_doorbell_in_memory_gets_one_page_of_its_own),
        TEST(a_doorbell_inside_of_memory_is_refused),
        TEST(images_of_another_kind_are_refused),
        TEST(addresses_that_do_not_fit_are_refused),
        TEST(a_sparse_image_gets_tables_for_each_part),
        TEST(memory_that_is_too_small_is_said_so),
        TEST(strings_fill_their_area_to_the_last_byte_and_no_further),
        TEST(a_segment_without_rights_is_not_mapped),
        TEST(a_paging_image_has_all_of_memory_in_the_direct_map_and_little_else),
        TEST(a_paging_image_is_told_of_free_frames_and_of_its_tables),
        TEST(an_image_that_pages_not_is_told_no_tables),
        TEST(segments_in_the_direct_map_are_held_against_memory_and_the_others),
        TEST(a_note_that_asks_for_what_nobody_knows_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
