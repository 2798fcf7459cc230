/* fuzz_loader.c - whatever a multiboot kernel's headers say, what is to be copied lies in the file, and goes to
 * where the plan says that it ends. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "hypervisor/libvirt/loader/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct boot_plan plan;
    if (size > UINT32_MAX || boot_plan(data, (uint32_t)size, &plan)) {
        return 0;
    }
    for (uint32_t i = 0; i < plan.piece_count; i++) {
        const struct boot_piece *p = &plan.pieces[i];
        uint64_t end = (uint64_t)p->to + p->file_size + p->zero_size;
        if (p->from > size || p->file_size > size - p->from || p->to < plan.low ||
            end > plan.high) {
            abort();
        }
    }
    return 0;
}
