/* fuzz_layout.c - whatever an image's bytes are, laying it out stays inside guest memory; what is
 * accepted maps no page table and nothing but channel, image, heap and stack for the guest. A paging
 * image has the channel, its own pages, and all from UNID_IMAGE_MIN on in the direct map. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hypervisor/layout.h"

#define MEM_BYTES UINT64_C(0x600000)
#define ADDR      UINT64_C(0x000ffffffffff000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

/* Physical address of the stack's end: all above is page tables. */
static uint64_t tables_from(const struct unid_boot *boot)
{
    return boot->page_root ? boot->stack_top - UNID_DIRECT_MAP : boot->stack_top;
}

/* The guest may reach exactly [BOOT_ADDR, CHANNEL_END) and parts of [IMAGE_MIN, stack_top). */
static void check_leaf(const struct unid_boot *boot, uint64_t entry, uint64_t at, uint64_t end)
{
    uint64_t phys = entry & ADDR;
    bool executable = !(entry >> 63);
    if (boot->page_root && at >= UNID_DIRECT_MAP) {
        must(phys == at - UNID_DIRECT_MAP && phys >= UNID_IMAGE_MIN && !executable);
        must(end - at <= MEM_BYTES - phys);
        return;
    }
    uint64_t most = boot->page_root ? boot->heap_start : boot->stack_top;
    must(phys == at);
    must((at >= UNID_BOOT_ADDR && end <= UNID_CHANNEL_END && !executable) ||
         (at >= UNID_IMAGE_MIN && end <= most));
}

static void check_table(const uint8_t *mem, uint64_t table, uint64_t base, int level)
{
    const struct unid_boot *boot = (const void *)(mem + UNID_BOOT_ADDR);
    must(table >= tables_from(boot) && table < MEM_BYTES && table % 4096 == 0);
    for (uint64_t i = 0; i < 512; i++) {
        uint64_t entry, at = base + (i << (12 + 9 * (level - 1)));
        at |= level == 4 && i >= 256 ? UINT64_C(0xffff) << 48 : 0; /* canonical */
        memcpy(&entry, mem + table + 8 * i, sizeof(entry));
        if (!(entry & 1)) {
            continue;
        }
        bool leaf = level == 1 || entry & 0x80;
        if (!leaf) {
            check_table(mem, entry & ADDR, at, level - 1);
            continue;
        }
        uint64_t end = at + (level == 1 ? 0x1000 : 0x200000);
        must(level <= 2);
        check_leaf(boot, entry, at, end);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const none[] = {NULL};
    uint8_t *mem =
        mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED) {
        return 0;
    }
    struct hv_layout_spec spec = {.mem = mem, .mem_bytes = MEM_BYTES, .doorbell = HV_DOORBELL_PORT};
    struct hv_run_spec run = {.image = data, .image_len = size, .argv = none, .envp = none};
    struct hv_layout layout;
    struct un_error err = UN_ERROR_INIT;
    if (hv_layout_build(&spec, &run, &layout, &err) == 0) {
        must(layout.rip >= UNID_IMAGE_MIN && layout.rip < MEM_BYTES);
        must(layout.guard == 0 || layout.rip < layout.guard);
        check_table(mem, layout.cr3, 0, 4);
    } else {
        must(err.text[0] != '\0');
    }
    munmap(mem, MEM_BYTES);
    return 0;
}
