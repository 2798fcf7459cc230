/* test_libos_elf.c - the library OS loads programs, refuses what is none, and maps files as dynamic
 * loaders do it, stubs included. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/mman.h>
#include <string.h>

#include "elf_maker.h"
#include "libos_world.h"
#include "mm.h"
#include "mm/mm_internal.h"
#include "task/elf.h"

static uint8_t bytes[ELF_MAKER_SIZE];
static struct world_file file;

static int set_up(void **state)
{
    (void)state;
    world_begin(16);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    areas_remove(0, USER_END);
    world_end();
    return 0;
}

/* A program at 0x400000: constants, code, data with bss. */
static struct elf_maker program(void)
{
    struct elf_maker m = elf_maker_default();
    m.no_note = true;
    m.entry = 0x401010;
    m.segments[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                                 .p_flags = PF_R,
                                 .p_offset = 0,
                                 .p_vaddr = 0x400000,
                                 .p_filesz = 0x1000,
                                 .p_memsz = 0x1000,
                                 .p_align = 0x1000};
    m.segments[1] = (Elf64_Phdr){.p_type = PT_LOAD,
                                 .p_flags = PF_R | PF_X,
                                 .p_offset = 0x1000,
                                 .p_vaddr = 0x401000,
                                 .p_filesz = 0x800,
                                 .p_memsz = 0x800,
                                 .p_align = 0x1000};
    m.segments[2] = (Elf64_Phdr){.p_type = PT_LOAD,
                                 .p_flags = PF_R | PF_W,
                                 .p_offset = 0x2000,
                                 .p_vaddr = 0x402000,
                                 .p_filesz = 0x10,
                                 .p_memsz = 0x1800,
                                 .p_align = 0x1000};
    return m;
}

static int load(const struct elf_maker *m, struct elf_image *ret)
{
    elf_maker_write(m, bytes);
    world_file_init(&file, bytes, sizeof(bytes), true);
    return elf_load(&file.file, ELF_PROGRAM, ret);
}

static void segments_lie_where_they_say(void **state)
{
    (void)state;
    struct elf_maker m = program();
    struct elf_image image;
    assert_int_equal(load(&m, &image), 0);
    assert_int_equal(image.entry, 0x401010);
    assert_int_equal(image.phdrs, 0x400000 + sizeof(Elf64_Ehdr));
    assert_int_equal(image.end, 0x404000);
    assert_int_equal(world_peek(0x401005), bytes[0x1005]);
    assert_false(world_can_write(0x401005));
    assert_int_equal(world_frame(0x401000), file.frames + 0x1000);
    assert_int_equal(world_peek(0x40200f), bytes[0x200f]);
    assert_int_equal(world_peek(0x402010), 0); /* bss, in the file's last page and behind it */
    assert_int_equal(world_peek(0x4037ff), 0);
    assert_true(world_can_write(0x4037ff));
    assert_int_equal(world_peek(0x404000), -1);
    assert_int_equal(bytes[0x2010], 0x2010 % 251); /* the file itself is as it was */
}

static void position_independent_programs_get_a_base(void **state)
{
    (void)state;
    struct elf_maker m = program();
    struct elf_image image;
    m.type = ET_DYN;
    m.entry -= 0x400000;
    for (int i = 0; i < 3; i++) {
        m.segments[i].p_vaddr -= 0x400000;
    }
    assert_int_equal(load(&m, &image), 0);
    assert_true(image.bias >= UNID_LIBOS_END);
    assert_int_equal((image.bias - file.frames) % UNID_PIECE_SIZE, 0); /* for entries of 2 MiB */
    assert_int_equal(image.entry, image.bias + 0x1010);
    assert_int_equal(world_peek(image.bias + 0x1005), bytes[0x1005]);
}

static void refused(const struct elf_maker *m, const char *why)
{
    struct elf_image image;
    areas_remove(0, USER_END);
    world_begin(16);
    assert_int_equal(load(m, &image), -ENOEXEC);
    if (!strstr(world_log, why)) {
        fail_msg("\"%s\" is not in \"%s\"", why, world_log);
    }
}

static void what_is_no_program_is_refused_with_the_reason(void **state)
{
    (void)state;
    struct elf_maker m = program();
    m.machine = EM_AARCH64;
    refused(&m, "another machine");
    m = program();
    m.type = ET_REL;
    refused(&m, "neither an executable");
    m = program();
    m.entry = 0x500000;
    refused(&m, "entry lies outside");
    m = program();
    m.segments[1].p_flags = PF_R | PF_W | PF_X;
    refused(&m, "writable and executable");
    m = program();
    m.segments[2].p_offset = 0x2000;
    m.segments[2].p_filesz = m.segments[2].p_memsz = 0x10000;
    refused(&m, "cut off");
    m = program();
    m.segments[0].p_vaddr = 0x200000;
    refused(&m, "below 0x400000");
    m = program();
    m.segments[2].p_memsz = UINT64_MAX - 0x1000;
    refused(&m, "where none can be");
    m = program();
    m.segments[2].p_vaddr = 0x401000;
    refused(&m, "overlap");
    m = program();
    m.segments[1].p_vaddr += 8;
    refused(&m, "where none can be");
    m = program();
    m.count = 4;
    m.segments[3] = (Elf64_Phdr){.p_type = PT_TLS, .p_memsz = 1ull << 40};
    refused(&m, "thread-local storage");
    m.segments[3] = (Elf64_Phdr){.p_type = PT_INTERP, .p_offset = 0x1000, .p_filesz = 16};
    refused(&m, "interpreter");
    m = program();
    m.count = 0;
    refused(&m, "program headers");
}

static void files_that_end_early_are_refused(void **state)
{
    (void)state;
    struct elf_maker m = program();
    struct elf_image image;
    elf_maker_write(&m, bytes);
    for (uint64_t size = 0; size < 0x2010; size += 7) {
        areas_remove(0, USER_END);
        world_begin(4);
        world_file_init(&file, bytes, size, true);
        assert_int_equal(elf_load(&file.file, ELF_PROGRAM, &image), -ENOEXEC);
    }
}

/* As ld.so does it: the whole span with the first segment's rights, then the others over it. */
static void a_loader_maps_a_library(void **state)
{
    (void)state;
    static const uint8_t stubs[PAGE_SIZE] = {0xcc};
    struct elf_maker m = program();
    m.type = ET_DYN;
    m.entry -= 0x400000;
    for (int i = 0; i < 3; i++) {
        m.segments[i].p_vaddr -= 0x400000;
    }
    elf_maker_write(&m, bytes);
    world_file_init(&file, bytes, sizeof(bytes), true);
    file.stubs_phys = file.frames; /* any frame will do */
    file.stubs_size = sizeof(stubs);
    file.stubs_vaddr = 0x6000;
    int64_t r = mm_mmap(0, 0x4000, PROT_READ, MAP_PRIVATE, &file.file, 0);
    assert_true(r > 0);
    uint64_t base = (uint64_t)r;
    assert_int_equal(world_peek(base), bytes[0]);
    assert_int_equal(world_peek(base + 0x1000), -1); /* nothing that would have to change */
    int64_t other =
        mm_mmap(0, 0x1000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, NULL, 0);
    assert_true(other > 0 && (uint64_t)other >= base + 0x7000); /* room for the stubs */
    int fixed = MAP_PRIVATE | MAP_FIXED;
    assert_int_equal(
        mm_mmap(base + 0x1000, 0x1000, PROT_READ | PROT_EXEC, fixed, &file.file, 0x1000),
        base + 0x1000);
    assert_int_equal(world_frame(base + 0x6000), file.stubs_phys);
    assert_int_equal(area_find(base + 0x6000)->prot, PROT_READ | PROT_EXEC);
    assert_int_equal(
        mm_mmap(base + 0x2000, 0x1000, PROT_READ | PROT_WRITE, fixed, &file.file, 0x2000),
        base + 0x2000);
    assert_true(world_can_write(base + 0x2000));
    assert_int_equal(world_peek(base + 0x2005), bytes[0x2005]);
    assert_int_equal(
        mm_mmap(base + 0x3000, 0x1000, PROT_READ | PROT_WRITE, fixed | MAP_ANONYMOUS, NULL, 0),
        base + 0x3000);
    assert_int_equal(world_peek(base + 0x3000), 0);
}

static void no_room_for_stubs_is_an_error(void **state)
{
    (void)state;
    struct elf_maker m = program();
    elf_maker_write(&m, bytes);
    world_file_init(&file, bytes, sizeof(bytes), true);
    file.stubs_phys = file.frames;
    file.stubs_size = PAGE_SIZE;
    file.stubs_vaddr = 0x406000;
    int fixed = MAP_PRIVATE | MAP_FIXED;
    assert_int_equal(mm_mmap(0x10006000, 0x1000, PROT_READ, fixed | MAP_ANONYMOUS, NULL, 0),
                     0x10006000);
    assert_int_equal(mm_mmap(0x10001000, 0x1000, PROT_READ | PROT_EXEC, fixed, &file.file, 0x1000),
                     -ENOMEM);
    assert_non_null(strstr(world_log, "no room for its stubs"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(segments_lie_where_they_say),
        T(position_independent_programs_get_a_base),
        T(what_is_no_program_is_refused_with_the_reason),
        T(files_that_end_early_are_refused),
        T(a_loader_maps_a_library),
        T(no_room_for_stubs_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
