/* pvh.c - see pvh.h. */
#include "hypervisor/pvh.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "common/bytes.h"
#include "common/elf.h"
#include "common/limits.h"

enum {
    START_MAGIC = 0x336ec578,
    START_VERSION = 1,
    NOTE_TYPE = 18, /* XEN_ELFNOTE_PHYS32_ENTRY */
    TYPE_RAM = 1,
    PAGE = 4096,
    MODULES = HV_PVH_INFO + 64
};

/* Multiboot 0.6.96, section 3.1.1. QEMU prefers it to PVH, where it finds it in the first 8 KiB. */
#define MULTIBOOT_MAGIC  UINT32_C(0x1badb002)
#define MULTIBOOT_WITHIN 8192

static bool is_multiboot(const void *kernel, size_t len)
{
    struct un_reader r = un_reader_of(kernel, len < MULTIBOOT_WITHIN ? len : MULTIBOOT_WITHIN);
    uint32_t words[3] = {0};
    while (r.pos + 4 <= r.len) {
        words[0] = words[1];
        words[1] = words[2];
        words[2] = un_read_u32le(&r);
        if (words[0] == MULTIBOOT_MAGIC && (uint32_t)(words[0] + words[1] + words[2]) == 0) {
            return true;
        }
    }
    return false;
}

static int read_entry(const void *kernel, size_t len, const struct un_elf *elf, uint32_t *ret,
                      struct un_error *err)
{
    struct un_elf_note note;
    if (!un_elf_find_note(kernel, len, elf, "Xen", NOTE_TYPE, &note) || note.size < 4) {
        return un_error_set(err, -ENOTSUP, "no PVH note");
    }
    struct un_reader r = un_reader_of(kernel, len);
    un_read_seek(&r, note.offset);
    *ret = un_read_u32le(&r);
    return 0;
}

/* As elf.h says of kernels, neither virtual addresses nor the entry point mean anything here. */
static int read_kernel(const void *kernel, size_t len, struct un_elf *elf, uint32_t *ret_entry,
                       struct un_error *err)
{
    if (!un_elf_is(kernel, len) || is_multiboot(kernel, len)) {
        return un_error_set(err, -ENOTSUP, "not an ELF file for PVH alone");
    }
    int rc = un_elf_parse_library(kernel, len, len, elf, err);
    rc = rc < 0 ? rc : read_entry(kernel, len, elf, ret_entry, err);
    for (size_t i = 0; rc == 0 && i < elf->segment_count; i++) {
        const struct un_elf_segment *s = &elf->segments[i];
        if (s->paddr < HV_PVH_LOW_END || s->paddr > UINT32_MAX) {
            rc = un_error_set(err, -ENOTSUP, "a segment at 0x%" PRIx64, s->paddr);
        }
    }
    return rc;
}

int hv_pvh_check(const void *kernel, size_t len, struct un_error *err)
{
    struct un_elf elf;
    uint32_t entry;
    return read_kernel(kernel, len, &elf, &entry, err);
}

struct map {
    const uint8_t *entries;
    uint32_t count;
    uint64_t rsdp;
};

static int read_start(const struct hv_pvh_spec *spec, struct map *ret, struct un_error *err)
{
    struct un_reader r = un_reader_of(spec->start, HV_PVH_START_SIZE);
    uint32_t magic = un_read_u32le(&r), version = un_read_u32le(&r);
    un_read_seek(&r, 32);
    ret->rsdp = un_read_u64le(&r);
    un_read_seek(&r, 48);
    ret->count = un_read_u32le(&r);
    ret->entries = spec->memmap;
    if (magic != START_MAGIC || version < START_VERSION || ret->count == 0 ||
        ret->count > HV_PVH_MEMMAP_MAX) {
        return un_error_set(err, -ENOTSUP, "the firmware gives no memory map");
    }
    return 0;
}

/* An entry of the memory map; false: it is no RAM, or passes the end of the address space. */
static bool ram_at(const struct map *map, uint32_t i, uint64_t *ret_addr, uint64_t *ret_end)
{
    struct un_reader r =
        un_reader_of(map->entries + (size_t)i * HV_PVH_ENTRY_SIZE, HV_PVH_ENTRY_SIZE);
    *ret_addr = un_read_u64le(&r);
    uint64_t size = un_read_u64le(&r);
    return un_read_u32le(&r) == TYPE_RAM && !__builtin_add_overflow(*ret_addr, size, ret_end);
}

/* The end of what a kernel may have: RAM from HV_PVH_LOW_END on, where no firmware has been. */
static int find_end(const struct hv_pvh_spec *spec, const struct map *map, uint64_t *ret,
                    struct un_error *err)
{
    uint64_t addr, end, found = 0;
    for (uint32_t i = 0; i < map->count; i++) {
        if (!ram_at(map, i, &addr, &end)) {
            continue;
        }
        if (addr < HV_PVH_INFO + HV_PVH_INFO_SIZE && end > HV_PVH_INFO) {
            return un_error_set(err, -ENOTSUP, "there is RAM at 0x%x", HV_PVH_INFO);
        }
        if (addr <= HV_PVH_LOW_END && end > HV_PVH_LOW_END) {
            found = end < spec->clean_end ? end : spec->clean_end;
        }
    }
    if (found <= HV_PVH_LOW_END) {
        return un_error_set(err, -ENOTSUP, "no RAM behind the first MiB");
    }
    *ret = found;
    return 0;
}

static int load_segments(const struct hv_pvh_spec *spec, const struct un_elf *elf, uint64_t end,
                         uint64_t *ret_high, struct un_error *err)
{
    uint64_t high = HV_PVH_LOW_END;
    for (size_t i = 0; i < elf->segment_count; i++) {
        const struct un_elf_segment *s = &elf->segments[i];
        if (s->paddr >= end || s->mem_size > end - s->paddr) {
            return un_error_set(err, -ENOMEM,
                                "a segment of %" PRIu64 " bytes at 0x%" PRIx64
                                " does not fit into the memory",
                                s->mem_size, s->paddr);
        }
        high = s->paddr + s->mem_size > high ? s->paddr + s->mem_size : high;
    }
    for (size_t i = 0; i < elf->segment_count; i++) {
        const struct un_elf_segment *s = &elf->segments[i];
        memcpy(spec->mem + s->paddr, (const uint8_t *)spec->kernel + s->offset, s->file_size);
    }
    *ret_high = high;
    return 0;
}

/* `*ret` is where it is; 0: there is none. */
static int load_initrd(const struct hv_pvh_spec *spec, uint64_t from, uint64_t end, uint64_t *ret,
                       struct un_error *err)
{
    *ret = 0;
    if (spec->initrd_len == 0) {
        return 0;
    }
    if (spec->initrd_len > end - from ||
        ((end - spec->initrd_len) & ~(uint64_t)(PAGE - 1)) < from) {
        return un_error_set(err, -ENOMEM,
                            "an initial RAM disk of %zu bytes does not fit into the memory",
                            spec->initrd_len);
    }
    *ret = (end - spec->initrd_len) & ~(uint64_t)(PAGE - 1);
    memcpy(spec->mem + *ret, spec->initrd, spec->initrd_len);
    return 0;
}

static void put32(uint8_t *mem, uint64_t addr, uint32_t value)
{
    memcpy(mem + addr, &value, sizeof(value));
}

static void put64(uint8_t *mem, uint64_t addr, uint64_t value)
{
    memcpy(mem + addr, &value, sizeof(value));
}

static void write_info(const struct hv_pvh_spec *spec, const struct map *map, uint64_t initrd)
{
    uint8_t *mem = spec->mem;
    put32(mem, HV_PVH_INFO, START_MAGIC);
    put32(mem, HV_PVH_INFO + 4, START_VERSION);
    put32(mem, HV_PVH_INFO + 12, initrd ? 1 : 0);
    put64(mem, HV_PVH_INFO + 16, initrd ? MODULES : 0);
    put64(mem, HV_PVH_INFO + 24, HV_PVH_CMDLINE);
    put64(mem, HV_PVH_INFO + 32, map->rsdp);
    put64(mem, HV_PVH_INFO + 40, HV_PVH_MEMMAP);
    put32(mem, HV_PVH_INFO + 48, map->count);
    put64(mem, MODULES, initrd);
    put64(mem, MODULES + 8, spec->initrd_len);
    memcpy(mem + HV_PVH_CMDLINE, spec->cmdline, strlen(spec->cmdline) + 1);
    memcpy(mem + HV_PVH_MEMMAP, map->entries, (size_t)map->count * HV_PVH_ENTRY_SIZE);
}

int hv_pvh_load(const struct hv_pvh_spec *spec, struct hv_pvh_entry *ret, struct un_error *err)
{
    struct un_elf elf;
    struct map map;
    uint32_t entry;
    uint64_t end = 0, high = 0, initrd = 0;
    _Static_assert(LIMIT_CMDLINE_BYTES < HV_PVH_MEMMAP - HV_PVH_CMDLINE, "it has its place");
    _Static_assert(HV_PVH_MEMMAP_MAX * HV_PVH_ENTRY_SIZE <=
                       HV_PVH_INFO + HV_PVH_INFO_SIZE - HV_PVH_MEMMAP,
                   "it has its place");
    if (strlen(spec->cmdline) > LIMIT_CMDLINE_BYTES) {
        return un_error_set(err, -E2BIG, "the command line is longer than %d bytes",
                            LIMIT_CMDLINE_BYTES);
    }
    int rc = read_kernel(spec->kernel, spec->kernel_len, &elf, &entry, err);
    rc = rc < 0 ? rc : read_start(spec, &map, err);
    rc = rc < 0 ? rc : find_end(spec, &map, &end, err);
    rc = rc < 0 ? rc : load_segments(spec, &elf, end, &high, err);
    rc = rc < 0 ? rc : load_initrd(spec, high, end, &initrd, err);
    if (rc < 0) {
        return rc;
    }
    write_info(spec, &map, initrd);
    *ret = (struct hv_pvh_entry){.rip = entry, .info = HV_PVH_INFO};
    return 0;
}
