/* linux64.c - what a loader of Linux' 64-bit boot protocol tells, as the test kernel knows it from PVH. Devices are
 * those that the command line names, and no others. */
#include "../netkernel/netkernel.h"
#include "../netkernel/virtio.h"

/* As in main.c. */
struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line;
};

void __real_kernel_main(const struct start_info *info);
void __wrap_kernel_main(const uint8_t *params);
bool __wrap_device_find(struct device *d, uint32_t kind, unsigned *slot);
void __wrap_power_off(void);

static const char *command_line;

_Noreturn static void stop(const char *why)
{
    console("linux64: ");
    console(why);
    console("\n");
    cpu_crash();
    for (;;) {
    }
}

static uint64_t field(const uint8_t *at, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++) {
        v |= (uint64_t)at[i] << 8 * i;
    }
    return v;
}

/* The loader's tables need not map more than the kernel and what it is told: the first 4 GiB, by pages of 2 MiB. */
static void map_memory(void)
{
    static uint64_t tables[6][512] __attribute__((aligned(4096)));
    tables[0][0] = (uintptr_t)tables[1] + 3;
    for (unsigned i = 0; i < 4; i++) {
        tables[1][i] = (uintptr_t)tables[2 + i] + 3;
    }
    for (uint64_t i = 0; i < 2048; i++) {
        tables[2 + i / 512][i % 512] = (i << 21) + 0x83;
    }
    __asm__ volatile("movq %0, %%cr3" : : "r"(tables) : "memory");
}

/* The memory that the kernel is in must be free, and end where one thinks. */
static void check_memory(const uint8_t *params)
{
    for (unsigned i = 0; i < params[0x1e8]; i++) {
        const uint8_t *e = params + 0x2d0 + 20 * i;
        uint64_t base = field(e, 8), end = base + field(e + 8, 8);
        if (field(e + 16, 4) == 1 && base <= 0x100000 && end > 0x200000) {
            return;
        }
    }
    stop("no memory");
}

static bool starts_with(const char *s, const char *word)
{
    while (*word && *s == *word) {
        s++;
        word++;
    }
    return !*word;
}

static uint64_t read_hex(const char *s)
{
    uint64_t v = 0;
    for (;; s++) {
        if (*s >= '0' && *s <= '9') {
            v = v * 16 + (uint64_t)(*s - '0');
        } else if (*s >= 'a' && *s <= 'f') {
            v = v * 16 + (uint64_t)(*s - 'a' + 10);
        } else {
            return v;
        }
    }
}

bool __wrap_device_find(struct device *d, uint32_t kind, unsigned *slot)
{
    static const char word[] = "virtio_mmio.device=512@0x";
    unsigned number = 0;
    for (const char *s = command_line; *s; s++) {
        if (!starts_with(s, word) || number++ < *slot) {
            continue;
        }
        ++*slot;
        d->base = (volatile uint8_t *)(uintptr_t)read_hex(s + sizeof(word) - 1);
        if (device_get(d, MAGIC) == 0x74726976 && device_get(d, DEVICE) == kind) {
            return true;
        }
    }
    return false;
}

/* As on Firecracker: the keyboard controller's reset line. */
void __wrap_power_off(void)
{
    __asm__ volatile("outb %0, %1" : : "a"((uint8_t)0xfe), "Nd"((uint16_t)0x64));
}

void __wrap_kernel_main(const uint8_t *params)
{
    static struct start_info info = {.magic = 0x336ec578, .version = 1};
    static uint64_t module[4]; /* address, size */
    size_t len = 0;
    map_memory();
    check_memory(params);
    command_line = (const char *)(uintptr_t)field(params + 0x228, 4);
    while (command_line[len]) {
        len++;
    }
    if (field(params + 0x1fe, 2) != 0xaa55 || field(params + 0x238, 4) != len + 1) {
        stop("told wrong");
    }
    bool acpi = field(params + 0x70, 8) != 0,
         wired = *(volatile uint32_t *)(uintptr_t)0xfee00350 == 0x700;
    if (acpi == wired) {
        stop("the old interrupt controllers are where nobody looks for them");
    }
    console("linux64: told ");
    console(command_line);
    console("\n");
    info.command_line = (uintptr_t)command_line;
    module[0] = field(params + 0x218, 4);
    module[1] = field(params + 0x21c, 4);
    info.modules = module[1] > 0;
    info.module_list = (uintptr_t)module;
    __real_kernel_main(&info);
}
