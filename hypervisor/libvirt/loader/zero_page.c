/* zero_page.c - see boot.h. What Linux' 64-bit boot protocol tells a kernel: struct boot_params, the "zero page".
 *
 * The words of devices go to the end of the command line, but before a "--", behind which nothing is the kernel's:
 * so does Firecracker. The size that is told is the line's, with the byte that ends it, again as with Firecracker, and
 * not what the kernel could take: Unikraft reads so many bytes (plat/kvm/x86/lxboot.c). All lies in free memory;
 * Unikraft 0.16 does not start when its command line lies in what the map has reserved.
 */
#include "hypervisor/libvirt/loader/boot.h"

enum { PAGE_SIZE = 4096, MAP_ENTRY = 20, MAP_MOST = 128 };

/* Offsets in struct boot_params (zero-page.rst), from 0x1f1 on of the setup header (boot.rst). */
enum {
    ACPI_RSDP = 0x070,
    MAP_COUNT = 0x1e8,
    BOOT_FLAG = 0x1fe,
    HEADER = 0x202,
    VERSION = 0x206,
    TYPE_OF_LOADER = 0x210,
    LOADFLAGS = 0x211,
    RAMDISK_IMAGE = 0x218,
    RAMDISK_SIZE = 0x21c,
    CMD_LINE_PTR = 0x228,
    KERNEL_ALIGNMENT = 0x230,
    CMDLINE_SIZE = 0x238,
    MAP = 0x2d0
};

/* 2.14, the first with acpi_rsdp_addr; a loader without a number; loaded high. */
enum { PROTOCOL = 0x020e, OTHER_LOADER = 0xff, LOADED_HIGH = 1, ALIGNMENT = 0x1000000 };

static void put(uint8_t *at, uint64_t value, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

static void put_map(uint8_t *page, const struct boot_told *told)
{
    for (uint32_t i = 0; i < told->region_count && i < MAP_MOST; i++) {
        const struct boot_region *r = &told->regions[i];
        uint8_t *at = page + MAP + i * MAP_ENTRY;
        put(at, r->base, 8);
        put(at + 8, r->len, 8);
        put(at + 16, r->type, 4);
        page[MAP_COUNT]++;
    }
}

/* Where the first word "--" of a command line begins, else its end. */
static uint32_t find_stop(const char *line)
{
    uint32_t i = 0;
    for (; line[i]; i++) {
        bool word = i == 0 || line[i - 1] == ' ';
        if (word && line[i] == '-' && line[i + 1] == '-' && (!line[i + 2] || line[i + 2] == ' ')) {
            break;
        }
    }
    return i;
}

struct text {
    uint8_t *at;
    uint32_t len, size;
    bool full;
};

static void add(struct text *t, const char *s, uint32_t most)
{
    for (uint32_t i = 0; i < most && s[i]; i++) {
        if (t->len >= t->size) {
            t->full = true;
            return;
        }
        t->at[t->len++] = (uint8_t)s[i];
    }
}

static void put_cmdline(struct text *t, const struct boot_told *told)
{
    uint32_t stop = find_stop(told->cmdline);
    add(t, told->cmdline, stop);
    if (*told->devices) {
        add(t, stop == 0 || told->cmdline[stop - 1] == ' ' ? "" : " ", 1);
        add(t, told->devices, UINT32_MAX);
        add(t, told->cmdline[stop] ? " " : "", 1);
    }
    add(t, told->cmdline + stop, UINT32_MAX);
}

uint32_t boot_zero_page_build(const struct boot_told *told, uint32_t at, uint8_t *buf,
                              uint32_t size)
{
    struct text line = {.at = buf, .len = PAGE_SIZE, .size = size};
    if (size < PAGE_SIZE) {
        return 0;
    }
    for (uint32_t i = 0; i < PAGE_SIZE; i++) {
        buf[i] = 0;
    }
    put_cmdline(&line, told);
    if (line.full || line.len >= size) {
        return 0;
    }
    buf[line.len++] = 0;
    put_map(buf, told);
    put(buf + ACPI_RSDP, told->rsdp ? told->rsdp_at : 0, 8);
    put(buf + BOOT_FLAG, 0xaa55, 2);
    put(buf + HEADER, 0x53726448, 4); /* "HdrS" */
    put(buf + VERSION, PROTOCOL, 2);
    put(buf + TYPE_OF_LOADER, OTHER_LOADER, 1);
    put(buf + LOADFLAGS, LOADED_HIGH, 1);
    if (told->initrd != told->initrd_end) {
        put(buf + RAMDISK_IMAGE, told->initrd, 4);
        put(buf + RAMDISK_SIZE, told->initrd_end - told->initrd, 4);
    }
    put(buf + CMD_LINE_PTR, at + PAGE_SIZE, 4);
    put(buf + KERNEL_ALIGNMENT, ALIGNMENT, 4);
    put(buf + CMDLINE_SIZE, line.len - PAGE_SIZE, 4);
    return line.len;
}
