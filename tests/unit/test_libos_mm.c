/* test_libos_mm.c - the library OS's memory: no page ever gets a second frame, nothing is paid for
 * before it is accessible, what is freed comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <stdlib.h>
#include <string.h>

#include "libos_world.h"
#include "mm.h"
#include "mm/mm_internal.h"

#define RW   (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define MIB  (1ull << 20)

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

static uint64_t map(uint64_t len, int prot)
{
    int64_t r = mm_mmap(0, len, prot, ANON, NULL, 0);
    assert_true(r > 0);
    return (uint64_t)r;
}

static int64_t map_fixed(uint64_t at, uint64_t len, int prot)
{
    return mm_mmap(at, len, prot, ANON | MAP_FIXED, NULL, 0);
}

static void anonymous_memory_is_zero_and_writable(void **state)
{
    (void)state;
    uint64_t a = map(3 * PAGE_SIZE, RW), b = map(PAGE_SIZE, RW);
    assert_int_equal(world_peek(a + 2 * PAGE_SIZE), 0);
    world_poke(a, 1);
    world_poke(b, 2);
    assert_int_equal(world_peek(a), 1);
    assert_int_equal(world_peek(a + 3 * PAGE_SIZE - 1), 0);
    assert_true(world_frame(a) != world_frame(b));
}

static void reservations_cost_nothing(void **state)
{
    (void)state;
    uint64_t before = frames_free();
    assert_int_equal(mm_mmap(0xc000000000, 64ull << 30, PROT_NONE, ANON, NULL, 0), 0xc000000000);
    assert_int_equal(frames_free(), before);
    assert_int_equal(mm_mprotect(0xc000000000, PAGE_SIZE, RW), 0);
    assert_int_equal(world_peek(0xc000000000), 0);
    assert_int_equal(world_peek(0xc000001000), -1);
    assert_int_equal(mm_munmap(0xc000000000, 64ull << 30), 0);
}

static void a_page_keeps_its_frame_while_it_is_hidden(void **state)
{
    (void)state;
    uint64_t a = map(2 * PAGE_SIZE, RW);
    world_poke(a, 7);
    uint64_t frame = world_frame(a);
    assert_int_equal(mm_mprotect(a, PAGE_SIZE, PROT_NONE), 0);
    assert_int_equal(world_peek(a), -1);
    assert_int_equal(mm_mprotect(a, PAGE_SIZE, RW), 0);
    assert_int_equal(world_peek(a), 7);
    assert_int_equal(world_frame(a), frame);
    assert_int_equal(map_fixed(a, PAGE_SIZE, RW), a);
    assert_int_equal(world_peek(a), 0);
    assert_int_equal(world_frame(a), frame);
}

static void unmapped_memory_is_given_again_with_its_frames(void **state)
{
    (void)state;
    uint64_t a = map(4 * PAGE_SIZE, RW), frame = world_frame(a + PAGE_SIZE);
    world_poke(a + PAGE_SIZE, 9);
    assert_int_equal(mm_munmap(a, 4 * PAGE_SIZE), 0);
    assert_int_equal(world_peek(a), -1);
    assert_int_equal(map(4 * PAGE_SIZE, RW), a);
    assert_int_equal(world_frame(a + PAGE_SIZE), frame);
    assert_int_equal(world_peek(a + PAGE_SIZE), 0);
}

static void a_place_that_the_program_chose_stays_its_own(void **state)
{
    (void)state;
    uint64_t hint = 0xc000000000;
    assert_int_equal(mm_mmap(hint, 4 * PAGE_SIZE, RW, ANON, NULL, 0), hint);
    world_poke(hint, 1);
    assert_int_equal(mm_munmap(hint, 4 * PAGE_SIZE), 0);
    assert_true(map(4 * PAGE_SIZE, RW) != hint);
    assert_int_equal(mm_mmap(hint, 4 * PAGE_SIZE, RW, ANON, NULL, 0), hint);
    assert_int_equal(world_peek(hint), 0);
}

static void a_page_whose_frame_is_gone_is_not_used_again(void **state)
{
    (void)state;
    uint64_t len = frames_free() * PAGE_SIZE / 2, a = map(len, RW);
    assert_int_equal(mm_munmap(a, len), 0);
    /* More than is free beside it: the parked frames are needed elsewhere. */
    uint64_t b = map(len + MIB, RW);
    assert_true(b != a);
    assert_int_equal(world_frame(a), 0);
    assert_int_equal(map_fixed(a, PAGE_SIZE, RW), -ENOMEM);
    assert_non_null(strstr(world_log, "was used before"));
    assert_int_equal(map_fixed(a, PAGE_SIZE, PROT_NONE), a);
}

static void too_much_changes_nothing(void **state)
{
    (void)state;
    uint64_t before = frames_free();
    assert_int_equal(mm_mmap(0, 64 * MIB, RW, ANON, NULL, 0), -ENOMEM);
    assert_non_null(strstr(world_log, "memory is used up"));
    assert_true(before - frames_free() < 4);
    assert_int_equal(mm_mmap(0, UINT64_MAX - 5000, RW, ANON, NULL, 0), -ENOMEM);
    assert_int_equal(mm_mmap(0, 0, RW, ANON, NULL, 0), -EINVAL);
    assert_int_equal(mm_mmap(0x1000, PAGE_SIZE, RW, ANON | MAP_FIXED, NULL, 0), -ENOMEM);
    assert_int_equal(mm_mmap(USER_END, PAGE_SIZE, RW, ANON | MAP_FIXED, NULL, 0), -ENOMEM);
}

static void noreplace_finds_what_is_there(void **state)
{
    (void)state;
    uint64_t a = map(PAGE_SIZE, PROT_NONE);
    assert_int_equal(mm_mmap(a, PAGE_SIZE, RW, ANON | MAP_FIXED_NOREPLACE, NULL, 0), -EEXIST);
}

static void the_heap_grows_and_shrinks_in_its_place(void **state)
{
    (void)state;
    uint64_t start = 0x500000;
    mm_set_brk(start);
    assert_int_equal(mm_brk(0), start);
    assert_int_equal(mm_brk(start + 3 * PAGE_SIZE + 5), start + 3 * PAGE_SIZE + 5);
    uint64_t frame = world_frame(start + 3 * PAGE_SIZE);
    world_poke(start + 3 * PAGE_SIZE, 3);
    assert_int_equal(mm_brk(start + PAGE_SIZE), start + PAGE_SIZE);
    assert_int_equal(world_peek(start + 3 * PAGE_SIZE), -1);
    assert_int_equal(mm_brk(start + 4 * PAGE_SIZE), start + 4 * PAGE_SIZE);
    assert_int_equal(world_peek(start + 3 * PAGE_SIZE), 0);
    assert_int_equal(world_frame(start + 3 * PAGE_SIZE), frame);
    assert_int_equal(mm_brk(start + 64 * MIB), start + 4 * PAGE_SIZE);
}

static void moved_memory_keeps_what_is_in_it(void **state)
{
    (void)state;
    uint64_t a = map(2 * PAGE_SIZE, RW);
    map(PAGE_SIZE, RW); /* right behind it: it cannot grow where it is */
    world_poke(a + PAGE_SIZE, 5);
    uint64_t frame = world_frame(a + PAGE_SIZE);
    assert_int_equal(mm_mremap(a, 2 * PAGE_SIZE, 8 * PAGE_SIZE, 0, 0), -ENOMEM);
    int64_t b = mm_mremap(a, 2 * PAGE_SIZE, 8 * PAGE_SIZE, MREMAP_MAYMOVE, 0);
    assert_true(b > 0 && (uint64_t)b != a);
    assert_int_equal(world_frame((uint64_t)b + PAGE_SIZE), frame);
    assert_int_equal(world_peek((uint64_t)b + PAGE_SIZE), 5);
    assert_int_equal(world_peek((uint64_t)b + 7 * PAGE_SIZE), 0);
    assert_int_equal(world_peek(a), -1);
    assert_int_equal(mm_mremap((uint64_t)b, 8 * PAGE_SIZE, PAGE_SIZE, 0, 0), b);
    assert_int_equal(world_peek((uint64_t)b + PAGE_SIZE), -1);
}

static void memory_is_moved_to_where_other_memory_was(void **state)
{
    (void)state;
    const int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
    uint64_t a = map(2 * PAGE_SIZE, RW), to = map(4 * PAGE_SIZE, RW), free_now = frames_free();
    world_poke(a, 1);
    world_poke(a + PAGE_SIZE, 2);
    world_poke(to, 9); /* the processor may write to this frame as long as it likes */
    world_poke(to + 3 * PAGE_SIZE, 9);
    assert_int_equal(mm_mremap(a, 2 * PAGE_SIZE, 2 * PAGE_SIZE, fixed, a + PAGE_SIZE), -EINVAL);
    assert_int_equal(mm_mremap(a, 2 * PAGE_SIZE, 4 * PAGE_SIZE, fixed, to), to);
    assert_int_equal(world_peek(to), 1);
    assert_int_equal(world_peek(to + PAGE_SIZE), 2);
    assert_int_equal(world_peek(to + 3 * PAGE_SIZE), 0);
    assert_int_equal(world_peek(a), -1);
    world_poke(to, 3);
    assert_int_equal(world_peek(to), 3);
    assert_int_equal(frames_free(), free_now + 2);
    /* The place is taken: nobody else is given it. */
    assert_true(map(4 * PAGE_SIZE, RW) != to);
    /* Memory that was given back. */
    uint64_t b = map(2 * PAGE_SIZE, RW), gone = map(2 * PAGE_SIZE, RW);
    world_poke(b, 4);
    world_poke(gone, 5);
    assert_int_equal(mm_munmap(gone, 2 * PAGE_SIZE), 0);
    assert_int_equal(mm_mremap(b, 2 * PAGE_SIZE, 2 * PAGE_SIZE, fixed, gone), gone);
    assert_int_equal(world_peek(gone), 4);
    assert_int_equal(world_peek(gone + PAGE_SIZE), 0);
}

static void what_grew_in_its_place_is_given_to_nobody_else(void **state)
{
    (void)state;
    uint64_t reserved = map(64 * PAGE_SIZE, PROT_NONE);
    assert_int_equal(mm_munmap(reserved, 64 * PAGE_SIZE), 0);
    uint64_t a = map(2 * PAGE_SIZE, RW);
    assert_int_equal(a, reserved);
    assert_int_equal(mm_mremap(a, 2 * PAGE_SIZE, 8 * PAGE_SIZE, MREMAP_MAYMOVE, 0), a);
    world_poke(a + 4 * PAGE_SIZE, 7);
    uint64_t b = map(4 * PAGE_SIZE, RW);
    assert_true(b >= a + 8 * PAGE_SIZE);
    world_poke(b, 1);
    assert_int_equal(world_peek(a + 4 * PAGE_SIZE), 7);
}

static void advice_that_nobody_knows_is_refused(void **state)
{
    (void)state;
    uint64_t a = map(2 * PAGE_SIZE, RW);
    assert_int_equal(mm_madvise(a, PAGE_SIZE, MADV_WILLNEED), 0);
    assert_int_equal(mm_madvise(a, PAGE_SIZE, MADV_WIPEONFORK), 0);
    assert_int_equal(mm_madvise(a, PAGE_SIZE, -1), -EINVAL);
    assert_int_equal(mm_madvise(a, PAGE_SIZE, 7), -EINVAL);
    assert_int_equal(mm_madvise(a, 64 * PAGE_SIZE, MADV_WILLNEED), -ENOMEM);
    assert_true(mm_mapped(a, 2 * PAGE_SIZE));
    assert_false(mm_mapped(a, 3 * PAGE_SIZE));
}

static void dontneed_zeroes(void **state)
{
    (void)state;
    uint64_t a = map(2 * PAGE_SIZE, RW);
    world_poke(a, 1);
    world_poke(a + PAGE_SIZE, 2);
    assert_int_equal(mm_madvise(a, PAGE_SIZE, MADV_DONTNEED), 0);
    assert_int_equal(world_peek(a), 0);
    assert_int_equal(world_peek(a + PAGE_SIZE), 2);
    assert_int_equal(mm_madvise(a, 64 * PAGE_SIZE, MADV_DONTNEED), -ENOMEM);
}

/* --- files ---------------------------------------------------------------------------------------- */

static uint8_t content[3 * PAGE_SIZE];

static void files_are_shared_when_read_and_copied_when_written(void **state)
{
    (void)state;
    struct world_file f;
    memset(content, 0x11, sizeof(content));
    world_file_init(&f, content, 2 * PAGE_SIZE + 100, true);
    int64_t r = mm_mmap(0, sizeof(content), PROT_READ, MAP_PRIVATE, &f.file, 0);
    int64_t w = mm_mmap(0, sizeof(content), RW, MAP_PRIVATE, &f.file, 0);
    assert_true(r > 0 && w > 0);
    assert_int_equal(world_frame((uint64_t)r + PAGE_SIZE), f.frames + PAGE_SIZE);
    assert_true(world_frame((uint64_t)w) != f.frames);
    assert_false(world_can_write((uint64_t)r));
    world_poke((uint64_t)w, 1);
    assert_int_equal(world_peek((uint64_t)r), 0x11);
    assert_int_equal(world_peek((uint64_t)w + 2 * PAGE_SIZE + 99), 0x11);
    assert_int_equal(world_peek((uint64_t)w + 2 * PAGE_SIZE + 100), 0);
    assert_int_equal(mm_mprotect((uint64_t)w, PAGE_SIZE, PROT_READ), 0);
    assert_false(world_can_write((uint64_t)w));
    assert_int_equal(mm_mprotect((uint64_t)w, PAGE_SIZE, RW), 0);
    assert_int_equal(world_peek((uint64_t)w), 1);
    assert_int_equal(f.file.refs, 3); /* ours, and one for each area */
}

static void a_files_page_becomes_a_copy_when_it_may_be_written(void **state)
{
    (void)state;
    struct world_file f;
    memset(content, 0x11, sizeof(content));
    world_file_init(&f, content, 2 * PAGE_SIZE, true);
    uint64_t before = frames_free();
    uint64_t r = (uint64_t)mm_mmap(0, 2 * PAGE_SIZE, PROT_READ, MAP_PRIVATE, &f.file, 0);
    uint64_t other = (uint64_t)mm_mmap(0, 2 * PAGE_SIZE, PROT_READ, MAP_PRIVATE, &f.file, 0);
    assert_int_equal(world_peek(r), 0x11); /* the processor knows the file's page by now */
    assert_int_equal(mm_mprotect(r, PAGE_SIZE, RW), 0);
    assert_in_range(before - frames_free(), 1, 5);
    assert_int_equal(world_peek(r), 0x11);
    world_poke(r, 0x22);
    assert_int_equal(world_peek(r), 0x22);
    assert_int_equal(world_peek(other), 0x11);
    assert_int_equal(world_frame(r + PAGE_SIZE), f.frames + PAGE_SIZE);
    assert_int_equal(mm_mprotect(r, PAGE_SIZE, PROT_READ), 0);
    assert_int_equal(world_peek(r), 0x22);
    assert_int_equal(mm_madvise(r, PAGE_SIZE, MADV_DONTNEED), 0);
    assert_int_equal(world_peek(r), 0x11);
    /* Hidden in between, all of it. */
    assert_int_equal(mm_mprotect(other, 2 * PAGE_SIZE, PROT_NONE), 0);
    assert_int_equal(mm_mprotect(other, 2 * PAGE_SIZE, RW), 0);
    world_poke(other + PAGE_SIZE, 0x33);
    assert_int_equal(world_peek(other), 0x11);
    assert_int_equal(world_peek(r + PAGE_SIZE), 0x11);
}

static void a_copy_for_which_there_is_no_memory_changes_nothing(void **state)
{
    (void)state;
    struct world_file f;
    world_file_init(&f, content, 3 * PAGE_SIZE, true);
    uint64_t r = (uint64_t)mm_mmap(0, 3 * PAGE_SIZE, PROT_READ, MAP_PRIVATE, &f.file, 0);
    while (frames_free() > 6) {
        map(PAGE_SIZE, RW);
    }
    assert_int_equal(mm_mprotect(r, 3 * PAGE_SIZE, RW), -ENOMEM);
    assert_int_equal(world_frame(r + 2 * PAGE_SIZE), f.frames + 2 * PAGE_SIZE);
    assert_false(world_can_write(r));
}

static void what_was_only_read_is_mapped_over(void **state)
{
    (void)state;
    struct world_file f;
    memset(content, 0x11, sizeof(content));
    content[2 * PAGE_SIZE] = 0x44;
    world_file_init(&f, content, 3 * PAGE_SIZE, true);
    uint64_t r = (uint64_t)mm_mmap(0, 2 * PAGE_SIZE, PROT_READ, MAP_PRIVATE, &f.file, 0);
    assert_int_equal(world_peek(r), 0x11);
    assert_int_equal(map_fixed(r, PAGE_SIZE, PROT_READ), r);
    assert_int_equal(world_peek(r), 0);
    assert_false(world_can_write(r));
    assert_int_equal(world_peek(r + PAGE_SIZE), 0x11);
    assert_int_equal(mm_mmap(r + PAGE_SIZE, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_FIXED, &f.file,
                             2 * PAGE_SIZE),
                     r + PAGE_SIZE);
    assert_int_equal(world_peek(r + PAGE_SIZE), 0x44);
    /* Behind the file's end there is nothing, whatever was there. */
    assert_int_equal(mm_mmap(r, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_FIXED, &f.file, MIB), r);
    assert_int_equal(world_peek(r), -1);
}

static void a_file_is_shared_over_memory_that_nobody_looked_at(void **state)
{
    (void)state;
    struct world_file f;
    memset(content, 0x11, sizeof(content));
    world_file_init(&f, content, PAGE_SIZE, true);
    uint64_t a = map(2 * PAGE_SIZE, RW), before = frames_free();
    for (uint64_t half = a; half <= a + PAGE_SIZE; half += PAGE_SIZE) {
        assert_int_equal(mm_mmap(half, PAGE_SIZE, RW, MAP_SHARED | MAP_FIXED, &f.file, 0), half);
    }
    assert_int_equal(frames_free(), before + 2);
    world_poke(a, 5);
    assert_int_equal(world_peek(a + PAGE_SIZE), 5);
    /* What could be written may be remembered as such, even when the right was taken. */
    assert_int_equal(mm_mprotect(a, PAGE_SIZE, PROT_READ), 0);
    assert_int_equal(map_fixed(a, PAGE_SIZE, RW), -ENOMEM);
    uint64_t b = map(PAGE_SIZE, RW);
    world_poke(b, 1);
    assert_int_equal(mm_mmap(b, PAGE_SIZE, RW, MAP_SHARED | MAP_FIXED, &f.file, 0), -ENOMEM);
    assert_non_null(strstr(world_log, "was in use"));
}

static void anonymous_memory_over_anonymous_memory_keeps_its_frames(void **state)
{
    (void)state;
    for (int type = MAP_SHARED; type <= MAP_PRIVATE; type++) {
        uint64_t a = map(2 * PAGE_SIZE, RW), frame = world_frame(a), free_now = frames_free();
        world_poke(a + PAGE_SIZE, 1);
        assert_int_equal(mm_mmap(a, 2 * PAGE_SIZE, RW, type | MAP_ANONYMOUS | MAP_FIXED, NULL, 0),
                         a);
        assert_int_equal(world_frame(a), frame);
        assert_int_equal(world_peek(a + PAGE_SIZE), 0);
        assert_int_equal(frames_free(), free_now);
        /* What nobody wrote is not zeroed either: it would come to exist. */
        assert_int_equal(*pte_find(a, false, NULL) & PTE_D, 0);
    }
}

static void a_file_opened_for_reading_is_not_written_by_its_mapping(void **state)
{
    (void)state;
    struct world_file f;
    world_file_init(&f, content, PAGE_SIZE, true);
    f.file.flags = O_RDONLY;
    int64_t r = mm_mmap(0, PAGE_SIZE, PROT_READ, MAP_SHARED, &f.file, 0);
    assert_true(r > 0);
    assert_int_equal(mm_mprotect((uint64_t)r, PAGE_SIZE, RW), -EACCES);
    assert_false(world_can_write((uint64_t)r));
    f.file.flags = O_RDWR;
    assert_int_equal(mm_mprotect((uint64_t)r, PAGE_SIZE, RW), 0);
}

static void pages_behind_the_end_of_a_file_are_not_accessible(void **state)
{
    (void)state;
    struct world_file f;
    world_file_init(&f, content, 100, true);
    int64_t r = mm_mmap(0, 3 * PAGE_SIZE, PROT_READ, MAP_PRIVATE, &f.file, 0);
    assert_true(r > 0);
    assert_true(world_peek((uint64_t)r) >= 0);
    assert_int_equal(world_peek((uint64_t)r + PAGE_SIZE), -1);
}

static void areas_are_split_and_joined(void **state)
{
    (void)state;
    uint64_t a = map(8 * PAGE_SIZE, RW);
    assert_int_equal(mm_mprotect(a + 2 * PAGE_SIZE, PAGE_SIZE, PROT_READ), 0);
    assert_int_equal(area_find(a)->to, a + 2 * PAGE_SIZE);
    assert_int_equal(area_find(a + 2 * PAGE_SIZE)->prot, PROT_READ);
    assert_int_equal(mm_mprotect(a + 2 * PAGE_SIZE, PAGE_SIZE, RW), 0);
    assert_int_equal(area_find(a)->to, a + 8 * PAGE_SIZE);
    assert_int_equal(mm_munmap(a + PAGE_SIZE, PAGE_SIZE), 0);
    assert_int_equal(area_find(a)->to, a + PAGE_SIZE);
    assert_int_equal(mm_mprotect(a, 4 * PAGE_SIZE, RW), -ENOMEM);
    assert_int_equal(mm_munmap(a, 64 * PAGE_SIZE), 0);
    assert_null(area_find(a));
}

/* --- against a model ------------------------------------------------------------------------------- */

#define MODEL_PAGES 64

struct model {
    int prot;  /* -1: not mapped */
    int value; /* of the first byte */
    uint64_t frame;
};

static struct model model[MODEL_PAGES];

static void model_check(uint64_t base)
{
    for (unsigned i = 0; i < MODEL_PAGES; i++) {
        uint64_t addr = base + i * PAGE_SIZE;
        bool readable = model[i].prot > 0;
        assert_int_equal(world_peek(addr), readable ? model[i].value : -1);
        assert_int_equal(world_can_write(addr), readable && model[i].prot & PROT_WRITE ? 1 : 0);
        if (readable && model[i].frame) {
            assert_int_equal(world_frame(addr), model[i].frame); /* for ever */
        }
        if (readable) {
            model[i].frame = world_frame(addr);
        }
    }
}

static bool model_mapped(unsigned from, unsigned count)
{
    for (unsigned i = from; i < from + count; i++) {
        if (model[i].prot < 0) {
            return false;
        }
    }
    return true;
}

static void model_step(uint64_t base, unsigned *seed)
{
    static const int prots[] = {PROT_NONE, PROT_READ, RW};
    unsigned r = (unsigned)rand_r(seed), from = r % MODEL_PAGES, what = r / 64 % 4;
    unsigned count = 1 + r / 256 % (MODEL_PAGES - from), prot = r / 16384 % 3;
    uint64_t addr = base + from * PAGE_SIZE, len = count * PAGE_SIZE;
    bool mapped = model_mapped(from, count);
    if (what == 0) {
        assert_int_equal(map_fixed(addr, len, prots[prot]), addr);
    } else if (what == 1) {
        assert_int_equal(mm_mprotect(addr, len, prots[prot]), mapped ? 0 : -ENOMEM);
    } else if (what == 2 && r % 3 == 0) {
        assert_int_equal(mm_madvise(addr, len, MADV_DONTNEED), mapped ? 0 : -ENOMEM);
    }
    for (unsigned i = from; i < from + count; i++) {
        if (what == 0) {
            model[i].prot = prots[prot];
            model[i].value = 0;
        } else if (what == 1 && mapped) {
            model[i].prot = prots[prot];
        } else if (what == 2 && r % 3 == 0 && mapped) {
            model[i].value = 0;
        } else if (what == 3 && model[i].prot == RW) {
            model[i].value = (int)(r >> 20 & 0xff);
            world_poke(base + i * PAGE_SIZE, (uint8_t)model[i].value);
        }
    }
}

static void model_run(unsigned seed)
{
    uint64_t base = 0x10000000;
    memset(model, 0, sizeof(model));
    for (unsigned i = 0; i < MODEL_PAGES; i++) {
        model[i].prot = -1;
    }
    for (int step = 0; step < 500; step++) {
        model_step(base, &seed);
        model_check(base);
    }
}

static void any_order_of_calls_keeps_frames_and_contents(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 20; seed++) {
        areas_remove(0, USER_END);
        world_begin(16);
        model_run(seed);
    }
}

/* --- entries of 2 MiB ------------------------------------------------------------------------------ */

#define LARGE  (2 * MIB)
#define PS     (1ull << 7)
#define BEHIND (5 * LARGE / 2)

static uint8_t large_content[3 * LARGE];

/* A file of two and a half entries at the boundary of a third one, in a world of its own. */
static uint64_t map_large(struct world_file *f, int prot)
{
    areas_remove(0, USER_END);
    world_begin_large();
    for (size_t i = 0; i < BEHIND; i++) {
        large_content[i] = (uint8_t)(i / PAGE_SIZE % 251);
    }
    world_file_init(f, large_content, BEHIND, true);
    int64_t r = mm_mmap(0, BEHIND, prot, MAP_PRIVATE, &f->file, 0);
    assert_true(r > 0);
    return (uint64_t)r;
}

static bool is_large(uint64_t addr)
{
    return *world_large_entry(addr) & PS;
}

/* All of it, but for [from, to), is the file's. */
static void assert_large(const struct world_file *f, uint64_t at, uint64_t from, uint64_t to)
{
    for (uint64_t off = 0; off < BEHIND; off += PAGE_SIZE) {
        if (off < from || off >= to) {
            assert_int_equal(world_peek(at + off + 5), large_content[off]);
            assert_int_equal(world_frame(at + off), f->frames + off);
            assert_false(world_can_write(at + off));
        }
    }
}

static void what_fills_a_table_with_a_file_is_one_entry(void **state)
{
    (void)state;
    struct world_file f;
    uint64_t a = map_large(&f, PROT_READ);
    assert_int_equal(a % LARGE, f.frames % LARGE);
    assert_int_equal(*world_large_entry(a) & PTE_FRAME, f.frames);
    assert_true(is_large(a) && is_large(a + LARGE) && *world_large_entry(a) & PTE_NX);
    assert_false(is_large(a + 2 * LARGE));
    assert_large(&f, a, 0, 0);
    assert_true(user_readable((void *)a, BEHIND));
    assert_false(user_writable((void *)(a + LARGE), 1));
    assert_false(user_readable((void *)a, BEHIND + 1));
    assert_true(is_large(a) && is_large(a + LARGE)); /* who looks changes nothing */
    a = map_large(&f, PROT_READ | PROT_EXEC);
    assert_true(is_large(a));
    assert_int_equal(*world_large_entry(a) & PTE_NX, 0);
}

static void segments_of_a_file_are_one_entry_together(void **state)
{
    (void)state;
    struct world_file f;
    uint64_t a = map_large(&f, PROT_NONE), code = 7 * PAGE_SIZE, flags = MAP_PRIVATE | MAP_FIXED;
    int prots[] = {PROT_READ, PROT_READ | PROT_EXEC, PROT_READ};
    uint64_t ends[] = {code, LARGE + code, BEHIND}, from = 0;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mm_mmap(a + from, ends[i] - from, prots[i], flags, &f.file, from),
                         a + from);
        from = ends[i];
    }
    assert_true(is_large(a) && is_large(a + LARGE));
    assert_int_equal(*world_large_entry(a) & PTE_NX, 0);
    assert_large(&f, a, 0, 0);
    /* Each page has its own rights again. */
    assert_int_equal(mm_munmap(a + LARGE, PAGE_SIZE), 0);
    assert_false(is_large(a + LARGE));
    assert_int_equal(*pte_look(a + LARGE + code - PAGE_SIZE) & PTE_NX, 0);
    assert_int_equal(*pte_look(a + LARGE + code) & PTE_NX, PTE_NX);
}

static void nothing_else_is_one_entry(void **state)
{
    (void)state;
    struct world_file f;
    uint64_t a = map_large(&f, RW), to = 0x10000000;
    assert_false(is_large(a));
    world_flushes = false; /* nobody could part it again */
    assert_false(is_large(map_large(&f, PROT_READ)));
    world_flushes = true;
    map_large(&f, RW);
    int64_t r = mm_mmap(to + PAGE_SIZE, LARGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, &f.file, 0);
    assert_int_equal(r, to + PAGE_SIZE); /* not as the frames lie */
    assert_false(is_large(to) || is_large(to + LARGE));
    to += 4 * LARGE;
    assert_int_equal(map_fixed(to, PAGE_SIZE, PROT_READ), to);
    *world_large_entry(to) |= PTE_A; /* the processor knows the table */
    r = mm_mmap(to, LARGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, &f.file, 0);
    assert_int_equal(r, to);
    assert_false(is_large(to));
}

static void a_page_of_a_large_entry_changes_alone(void **state)
{
    (void)state;
    struct world_file f;
    for (int accessed = 0; accessed < 2; accessed++) {
        uint64_t a = map_large(&f, PROT_READ), page = a + 9 * PAGE_SIZE;
        if (accessed) {
            assert_large(&f, a, 0, 0);
        }
        assert_int_equal(mm_mprotect(page, PAGE_SIZE, RW), 0);
        assert_false(is_large(a));
        assert_true(is_large(a + LARGE));
        world_poke(page, 77);
        assert_int_equal(world_peek(page), 77);
        assert_int_equal(large_content[9 * PAGE_SIZE], 9);
        assert_int_equal(hosted_memory[f.frames + 9 * PAGE_SIZE], 9);
        assert_large(&f, a, 9 * PAGE_SIZE, 10 * PAGE_SIZE);
        assert_int_equal(map_fixed(a + LARGE, PAGE_SIZE, RW), a + LARGE);
        assert_int_equal(world_peek(a + LARGE), 0);
        assert_large(&f, a, 9 * PAGE_SIZE, LARGE + PAGE_SIZE);
        assert_int_equal(mm_munmap(a, BEHIND), 0);
        assert_int_equal(world_peek(a + LARGE), -1);
    }
}

static void a_table_that_the_host_put_there_is_no_hindrance(void **state)
{
    (void)state;
    struct world_file f;
    uint64_t a = map_large(&f, PROT_READ);
    *world_large_entry(a) = 0x3000 | PTE_P | PTE_W | PTE_U | PTE_A;
    assert_true(user_readable((void *)a, BEHIND));
    assert_int_equal(world_frame(a + PAGE_SIZE), f.frames + PAGE_SIZE);
    assert_int_equal(mm_mprotect(a + PAGE_SIZE, PAGE_SIZE, PROT_NONE), 0);
    assert_true((*world_large_entry(a) & PTE_FRAME) >= f.frames);
    assert_int_equal(world_peek(a + PAGE_SIZE), -1);
    assert_large(&f, a, PAGE_SIZE, 2 * PAGE_SIZE);
}

/* --- memory that is filled ahead ------------------------------------------------------------------ */

#define HEAP     0x500000ull
#define HEAP_END (HEAP + 12 * MIB)
#define STEP     (33 * PAGE_SIZE)

/* A heap that grows by little steps, of whose pages every n-th is written. */
static void grow_heap(uint64_t to, unsigned every)
{
    for (uint64_t at = (uint64_t)mm_brk(0); at < to; at += STEP) {
        assert_int_equal(mm_brk(at + STEP), at + STEP);
        for (uint64_t page = at; page < at + STEP; page += PAGE_SIZE) {
            assert_int_equal(world_peek(page), 0);
            if (page / PAGE_SIZE % every == 0) {
                world_poke(page, 1);
            }
        }
    }
}

static void big_world(bool asked)
{
    areas_remove(0, USER_END);
    world_begin(64);
    mm_set_brk(HEAP);
    if (asked) {
        frames_mark();
    }
}

static void who_uses_much_has_it_filled(void **state)
{
    (void)state;
    big_world(true);
    grow_heap(HEAP + 4 * MIB, 1);
    assert_int_equal(world_filled, 0);
    grow_heap(HEAP_END, 1);
    assert_in_range(world_filled, 1, 3);
    uint64_t a = map(MIB, RW), frame = world_frame(a);
    world_poke(a, 1);
    assert_int_equal(mm_munmap(a, MIB), 0);
    assert_int_equal(map(MIB, RW), a);
    assert_int_equal(world_frame(a), frame);
    assert_int_equal(world_peek(a), 0);
    world_poke(a, 1);
    assert_int_equal(mm_madvise(a, PAGE_SIZE, MADV_DONTNEED), 0);
    assert_int_equal(world_peek(a), 0);
}

static void who_leaves_pages_out_has_nothing_filled(void **state)
{
    (void)state;
    big_world(true);
    grow_heap(HEAP + 32 * MIB, 2);
    assert_int_equal(world_filled, 0);
}

static void before_the_request_nothing_is_filled(void **state)
{
    (void)state;
    big_world(false);
    grow_heap(HEAP_END, 1);
    assert_int_equal(world_filled, 0);
    frames_mark();
    map(MIB, RW);
    assert_int_equal(world_filled, 0);
}

static void stacks_reservations_and_what_is_large_are_not_filled(void **state)
{
    (void)state;
    big_world(true);
    grow_heap(HEAP_END, 1);
    unsigned before = world_filled;
    for (unsigned i = 0; i < 3; i++) {
        assert_true(mm_mmap(0, 2 * MIB, RW, ANON | MAP_STACK, NULL, 0) > 0);
        assert_true(mm_mmap(0, 2 * MIB, RW, ANON | MAP_NORESERVE, NULL, 0) > 0);
    }
    map(24 * MIB, RW);
    assert_int_equal(world_filled, before);
}

static void filled_and_other_frames_come_to_the_last_one(void **state)
{
    (void)state;
    big_world(true);
    uint64_t total = frames_free(), taken = 0, last = 0;
    static uint8_t seen[64 * MIB / PAGE_SIZE];
    memset(seen, 0, sizeof(seen));
    for (uint64_t frame; (frame = taken % 3 ? frame_alloc() : frame_alloc_dense()); taken++) {
        assert_int_equal(seen[frame / PAGE_SIZE]++, 0);
        assert_int_equal(frames_free(), total - taken - 1);
        last = frame;
    }
    assert_int_equal(taken, total);
    assert_int_equal(frame_alloc_many(1), 0);
    frame_free(last);
    assert_int_equal(frame_alloc_many(1), last);
}

static void any_order_of_calls_in_filled_memory_too(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 5; seed++) {
        big_world(true);
        grow_heap(HEAP + 9 * MIB, 1);
        unsigned before = world_filled;
        model_run(seed);
        assert_true(world_filled >= before && world_filled > 0);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(anonymous_memory_is_zero_and_writable),
        T(reservations_cost_nothing),
        T(a_page_keeps_its_frame_while_it_is_hidden),
        T(unmapped_memory_is_given_again_with_its_frames),
        T(a_place_that_the_program_chose_stays_its_own),
        T(a_page_whose_frame_is_gone_is_not_used_again),
        T(too_much_changes_nothing),
        T(noreplace_finds_what_is_there),
        T(the_heap_grows_and_shrinks_in_its_place),
        T(moved_memory_keeps_what_is_in_it),
        T(memory_is_moved_to_where_other_memory_was),
        T(what_grew_in_its_place_is_given_to_nobody_else),
        T(advice_that_nobody_knows_is_refused),
        T(dontneed_zeroes),
        T(files_are_shared_when_read_and_copied_when_written),
        T(a_files_page_becomes_a_copy_when_it_may_be_written),
        T(a_copy_for_which_there_is_no_memory_changes_nothing),
        T(what_was_only_read_is_mapped_over),
        T(a_file_is_shared_over_memory_that_nobody_looked_at),
        T(anonymous_memory_over_anonymous_memory_keeps_its_frames),
        T(a_file_opened_for_reading_is_not_written_by_its_mapping),
        T(pages_behind_the_end_of_a_file_are_not_accessible),
        T(areas_are_split_and_joined),
        T(any_order_of_calls_keeps_frames_and_contents),
        T(what_fills_a_table_with_a_file_is_one_entry),
        T(segments_of_a_file_are_one_entry_together),
        T(nothing_else_is_one_entry),
        T(a_page_of_a_large_entry_changes_alone),
        T(a_table_that_the_host_put_there_is_no_hindrance),
        T(who_uses_much_has_it_filled),
        T(who_leaves_pages_out_has_nothing_filled),
        T(before_the_request_nothing_is_filled),
        T(stacks_reservations_and_what_is_large_are_not_filled),
        T(filled_and_other_frames_come_to_the_last_one),
        T(any_order_of_calls_in_filled_memory_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
