/* fuzz_libos_elf.c - the library OS's loader takes any bytes for a program, and any for a library
 * that is mapped; what it maps lies in the program's part of the address space. */
#include <linux/mman.h>
#include <stdlib.h>

#include "mm.h"
#include "mm/mm_internal.h"
#include "task/elf.h"
#include "tests/unit/libos_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_area(void *arg, const struct mm_area_info *area)
{
    (void)arg;
    if (area->from < USER_MIN || area->to > USER_END || area->from >= area->to) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world_file f;
    struct elf_image image;
    if (size > 64 * 1024) {
        return 0;
    }
    world_begin(4);
    world_file_init(&f, data, size, true);
    f.stubs_phys = f.frames;
    f.stubs_size = PAGE_SIZE;
    f.stubs_vaddr = 0x600000;
    elf_load(&f.file, ELF_PROGRAM, &image);
    mm_mmap(0, size ? size : 1, PROT_READ | PROT_EXEC, MAP_PRIVATE, &f.file, 0);
    mm_for_each_area(check_area, NULL);
    areas_remove(0, USER_END);
    world_end();
    return 0;
}
