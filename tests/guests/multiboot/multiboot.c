/* multiboot.c - what a multiboot loader tells, as the test kernel knows it from PVH. */
#include "../netkernel/netkernel.h"

/* As in main.c. */
struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line;
};

void __real_kernel_main(const struct start_info *info);
void __wrap_kernel_main(const uint32_t *told);

extern uint32_t multiboot_magic;

static uint64_t module[4]; /* address, size */
static struct start_info info = {.magic = 0x336ec578, .version = 1};

static void add_module(uint32_t start, uint32_t end)
{
    module[0] = start;
    module[1] = end - start;
    info.modules = 1;
    info.module_list = (uintptr_t)module;
}

/* The biggest piece of memory that is free must be where one thinks. */
static void check_memory(uint64_t base, uint64_t length)
{
    static uint64_t most;
    if (base <= 0x100000 && base + length > 0x200000 && length > most) {
        most = length;
        console("multiboot: memory\n");
    }
}

static void read_first(const uint32_t *told)
{
    if (told[0] & 4) {
        info.command_line = told[4];
    }
    if (told[0] & 8 && told[5] > 0) {
        const uint32_t *mod = (const uint32_t *)(uintptr_t)told[6];
        add_module(mod[0], mod[1]);
    }
    for (uint32_t at = 0; told[0] & 64 && at < told[11];) {
        const uint32_t *e = (const uint32_t *)(uintptr_t)(told[12] + at);
        if (e[5] == 1) {
            check_memory(e[1] | (uint64_t)e[2] << 32, e[3] | (uint64_t)e[4] << 32);
        }
        at += e[0] + 4;
    }
}

static void read_second(const uint32_t *told)
{
    for (uint32_t at = 8; at + 8 <= told[0];) {
        const uint32_t *tag = (const uint32_t *)((uintptr_t)told + at);
        if (tag[0] == 0) {
            return;
        }
        if (tag[0] == 1) {
            info.command_line = (uintptr_t)(tag + 2);
        }
        if (tag[0] == 3) {
            add_module(tag[2], tag[3]);
        }
        for (uint32_t i = 4; tag[0] == 6 && i + tag[2] / 4 <= tag[1] / 4; i += tag[2] / 4) {
            if (tag[i + 4] == 1) {
                check_memory(tag[i] | (uint64_t)tag[i + 1] << 32,
                             tag[i + 2] | (uint64_t)tag[i + 3] << 32);
            }
        }
        at += (tag[1] + 7) & ~7u;
    }
}

void __wrap_kernel_main(const uint32_t *told)
{
    if (multiboot_magic == 0x2badb002) {
        read_first(told);
    } else if (multiboot_magic == 0x36d76289) {
        read_second(told);
    }
    __real_kernel_main(&info);
}
