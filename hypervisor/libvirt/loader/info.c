/* info.c - see boot.h. */
#include "hypervisor/libvirt/loader/boot.h"

enum { LOWER_KIB_MOST = 640 };

#define LOADER "unid"

struct out {
    uint8_t *at;
    uint32_t base, len, size; /* `at` is at this address in the guest */
    bool full;
};

static void put(struct out *o, const void *data, uint32_t len)
{
    if (o->full || len > o->size - o->len) {
        o->full = true;
        return;
    }
    for (uint32_t i = 0; i < len; i++) {
        o->at[o->len++] = data ? ((const uint8_t *)data)[i] : 0;
    }
}

static void put32(struct out *o, uint32_t v)
{
    put(o, &v, sizeof(v));
}

static void put64(struct out *o, uint64_t v)
{
    put(o, &v, sizeof(v));
}

static void align(struct out *o)
{
    put(o, 0, -o->len & 7);
}

static uint32_t length(const char *s)
{
    uint32_t n = 0;
    while (s[n]) {
        n++;
    }
    return n;
}

/* KiB from 0 on, and from 1 MiB on, without a hole. */
static void count_memory(const struct boot_told *told, uint32_t *lower, uint32_t *upper)
{
    *lower = *upper = 0;
    for (uint32_t i = 0; i < told->region_count; i++) {
        const struct boot_region *r = &told->regions[i];
        uint64_t end = r->base + r->len;
        if (r->type != BOOT_FREE) {
            continue;
        }
        if (r->base == 0) {
            *lower = end >> 10 > LOWER_KIB_MOST ? LOWER_KIB_MOST : (uint32_t)(end >> 10);
        }
        if (r->base <= 0x100000 && end > 0x100000) {
            *upper = (uint32_t)((end - 0x100000) >> 10);
        }
    }
}

/* --- the first specification, section 3.3 ------------------------------------------------------- */

enum {
    HAS_MEMORY = 1,
    HAS_CMDLINE = 1 << 2,
    HAS_MODULES = 1 << 3,
    HAS_MAP = 1 << 6,
    HAS_LOADER = 1 << 9
};

struct first {
    uint32_t flags, lower, upper, boot_device, cmdline, module_count, modules, symbols[4];
    uint32_t map_len, map, drives_len, drives, config, loader, apm, vbe[4];
};

static void build_first(const struct boot_told *told, struct out *o)
{
    struct first info = {.flags = HAS_MEMORY | HAS_CMDLINE | HAS_MODULES | HAS_MAP | HAS_LOADER};
    count_memory(told, &info.lower, &info.upper);
    put(o, 0, sizeof(info)); /* its place */
    if (told->initrd != told->initrd_end) {
        info.module_count = 1;
        info.modules = o->base + o->len;
        put32(o, told->initrd);
        put32(o, told->initrd_end);
        put32(o, o->base + o->len + 8); /* its words: none, the 0 behind */
        put32(o, 0);
        put32(o, 0);
        align(o);
    }
    info.map = o->base + o->len;
    for (uint32_t i = 0; i < told->region_count; i++) {
        put32(o, 20);
        put64(o, told->regions[i].base);
        put64(o, told->regions[i].len);
        put32(o, told->regions[i].type);
    }
    info.map_len = o->base + o->len - info.map;
    info.cmdline = o->base + o->len;
    put(o, told->cmdline, length(told->cmdline) + 1);
    info.loader = o->base + o->len;
    put(o, LOADER, sizeof(LOADER));
    for (uint32_t i = 0; !o->full && i < sizeof(info); i++) {
        o->at[i] = ((const uint8_t *)&info)[i];
    }
}

/* --- the second, section 3.6 -------------------------------------------------------------------- */

enum info_tag {
    INFO_END = 0,
    INFO_CMDLINE = 1,
    INFO_LOADER = 2,
    INFO_MODULE = 3,
    INFO_MEMORY = 4,
    INFO_MAP = 6,
    INFO_RSDP_OLD = 14,
    INFO_RSDP_NEW = 15,
    INFO_LOADED_AT = 21
};

enum { RSDP_OLD_LEN = 20, MAP_ENTRY = 24 };

static void tag(struct out *o, enum info_tag type, uint32_t size)
{
    align(o);
    put32(o, type);
    put32(o, 8 + size);
}

static void text_tag(struct out *o, enum info_tag type, const char *text)
{
    tag(o, type, length(text) + 1);
    put(o, text, length(text) + 1);
}

static void build_second(const struct boot_plan *plan, const struct boot_told *told, struct out *o)
{
    uint32_t lower, upper;
    count_memory(told, &lower, &upper);
    put64(o, 0); /* its length comes last */
    text_tag(o, INFO_CMDLINE, told->cmdline);
    text_tag(o, INFO_LOADER, LOADER);
    if (told->initrd != told->initrd_end) {
        tag(o, INFO_MODULE, 9);
        put32(o, told->initrd);
        put32(o, told->initrd_end);
        put(o, "", 1);
    }
    tag(o, INFO_MEMORY, 8);
    put32(o, lower);
    put32(o, upper);
    tag(o, INFO_MAP, 8 + told->region_count * MAP_ENTRY);
    put32(o, MAP_ENTRY);
    put32(o, 0); /* the entries' version */
    for (uint32_t i = 0; i < told->region_count; i++) {
        put64(o, told->regions[i].base);
        put64(o, told->regions[i].len);
        put32(o, told->regions[i].type);
        put32(o, 0);
    }
    if (told->rsdp) {
        tag(o, told->rsdp_len > RSDP_OLD_LEN ? INFO_RSDP_NEW : INFO_RSDP_OLD, told->rsdp_len);
        put(o, told->rsdp, told->rsdp_len);
    }
    tag(o, INFO_LOADED_AT, 4);
    put32(o, plan->low);
    tag(o, INFO_END, 0);
    for (uint32_t i = 0; !o->full && i < 4; i++) {
        o->at[i] = (uint8_t)(o->len >> 8 * i);
    }
}

uint32_t boot_info_build(const struct boot_plan *plan, const struct boot_told *told, uint32_t at,
                         uint8_t *buf, uint32_t size)
{
    struct out o = {.at = buf, .base = at, .size = size};
    switch (plan->protocol) {
    case BOOT_MULTIBOOT1:
        build_first(told, &o);
        break;
    case BOOT_MULTIBOOT2:
        build_second(plan, told, &o);
        break;
    case BOOT_LINUX64:
        return boot_zero_page_build(told, at, buf, size);
    }
    return o.full ? 0 : o.len;
}
