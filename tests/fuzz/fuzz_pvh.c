/* fuzz_pvh.c - whatever a kernel and the firmware's words are, what is loaded stays where it may. The input: what
 * the firmware tells, four entries of a memory map, the size of an initial RAM disk in pages, the kernel. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/pvh.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    MEM_BYTES = 4 << 20,
    CLEAN_END = 3 << 20,
    ENTRIES = 4,
    HEAD = HV_PVH_START_SIZE + ENTRIES * HV_PVH_ENTRY_SIZE
};

static void require_zeros(const uint8_t *mem, size_t from, size_t to)
{
    static const uint8_t zeros[MEM_BYTES];
    if (memcmp(mem + from, zeros, to - from) != 0) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t initrd[256 * 4096];
    uint8_t memmap[HV_PVH_MEMMAP_MAX * HV_PVH_ENTRY_SIZE] = {0};
    if (size < HEAD + 1) {
        return 0;
    }
    uint8_t *mem = calloc(1, MEM_BYTES), *kernel = malloc(size - HEAD - 1 + (size == HEAD + 1));
    if (!mem || !kernel) {
        abort();
    }
    memcpy(memmap, data + HV_PVH_START_SIZE, ENTRIES * HV_PVH_ENTRY_SIZE);
    memcpy(kernel, data + HEAD + 1, size - HEAD - 1);
    memset(initrd, 0xee, sizeof(initrd));
    const struct hv_pvh_spec spec = {.mem = mem,
                                     .clean_end = CLEAN_END,
                                     .kernel = kernel,
                                     .kernel_len = size - HEAD - 1,
                                     .initrd = initrd,
                                     .initrd_len = (size_t)data[HEAD] * 4096,
                                     .cmdline = "words",
                                     .start = data,
                                     .memmap = memmap};
    struct hv_pvh_entry entry;
    struct un_error err = UN_ERROR_INIT;
    int rc = hv_pvh_load(&spec, &entry, &err);
    if ((rc < 0) != (err.text[0] != '\0') ||
        (rc == 0 &&
         (entry.info != HV_PVH_INFO || hv_pvh_check(kernel, spec.kernel_len, NULL) < 0))) {
        abort();
    }
    require_zeros(mem, 0, HV_PVH_INFO);
    require_zeros(mem, HV_PVH_INFO + HV_PVH_INFO_SIZE, HV_PVH_LOW_END);
    require_zeros(mem, CLEAN_END, MEM_BYTES);
    free(kernel);
    free(mem);
    return 0;
}
