/* fuzz_loader.c - whatever a kernel's headers say, what is to be copied lies in the file, and goes to
 * where the plan says that it ends; whatever the command line is, what is told of it fits. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/libvirt/loader/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool promise)
{
    if (!promise) {
        abort();
    }
}

static void tell(const uint8_t *data, size_t size)
{
    static const enum boot_protocol protocols[] = {BOOT_MULTIBOOT1, BOOT_MULTIBOOT2, BOOT_LINUX64};
    char line[256] = "";
    uint8_t buf[4096 + 300];
    memcpy(line, data, size < sizeof(line) ? size : sizeof(line) - 1);
    struct boot_told told = {.cmdline = line,
                             .devices = "virtio_mmio.device=512@0xfeb00e00:12",
                             .region_count = 1,
                             .regions = {{0x100000, 0x700000, BOOT_FREE}}};
    for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++) {
        struct boot_plan plan = {.protocol = protocols[i]};
        uint32_t len = boot_info_build(&plan, &told, 0x100000, buf, sizeof(buf));
        must(len > 0 && len <= sizeof(buf));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct boot_plan plan;
    tell(data, size);
    if (size > UINT32_MAX || boot_plan(data, (uint32_t)size, &plan)) {
        return 0;
    }
    for (uint32_t i = 0; i < plan.piece_count; i++) {
        const struct boot_piece *p = &plan.pieces[i];
        uint64_t end = (uint64_t)p->to + p->file_size + p->zero_size;
        must(p->from <= size && p->file_size <= size - p->from && p->to >= plan.low &&
             end <= plan.high);
    }
    must(plan.protocol != BOOT_LINUX64 || (plan.entry >= plan.low && plan.entry < plan.high));
    return 0;
}
