/* libos_world.c - see libos_world.h. */
#include "libos_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "host.h"
#include "mm.h"
#include "mm/mm_internal.h"

#define ROOT_TABLE 0x1000u
#define PTE_PS     (1ull << 7)
#define IMAGE_AT   0x2000u /* files' frames */
#define IMAGE_END  0x100000u
#define LARGE_AT   0x200000u /* the same, of large files */
#define LARGE_END  0x1000000u

char world_log[4096];
unsigned world_filled;
bool world_flushes = true;
static uint64_t image_next, image_end;

/* What the processor remembers of translations: nothing makes it forget one but a flush, a page that takes its
 * place, and a store that the entry does not allow; of 2 MiB, a store to one page does not make it forget the rest. */
static struct {
    uint64_t page, frame; /* page 0: nothing */
    bool write;
} tlb[1024], large_tlb[64];

void world_end(void)
{
    free(hosted_memory);
    hosted_memory = NULL;
}

static void begin(unsigned mib, uint64_t from, uint64_t to)
{
    world_end();
    size_t size = (size_t)mib << 20;
    hosted_memory = aligned_alloc(4096, size);
    if (!hosted_memory) {
        abort();
    }
    memset(hosted_memory, 0, size);
    world_log[0] = '\0';
    world_filled = 0;
    image_next = from;
    image_end = to;
    host_flush();
    mm_init(ROOT_TABLE, to, size);
}

void world_begin(unsigned mib)
{
    begin(mib, IMAGE_AT, IMAGE_END);
}

void world_begin_large(void)
{
    begin(2 * LARGE_END >> 20, LARGE_AT, LARGE_END);
}

static uint64_t into_image(const void *data, uint64_t size)
{
    uint64_t at = image_next;
    image_next += page_up(size);
    if (image_next > image_end) {
        abort();
    }
    memcpy(hosted_memory + at, data, size);
    return at;
}

void world_file_init(struct world_file *f, const void *data, uint64_t size, bool framed)
{
    *f = (struct world_file){.path = "/file", .data = data, .size = size, .file.refs = 1};
    f->frames = framed ? into_image(data, size) : 0;
}

static uint64_t *entry(uint64_t addr)
{
    return (uint64_t *)(uintptr_t)pte_look(addr);
}

uint64_t *world_large_entry(uint64_t addr)
{
    uint64_t *table = phys_to_virt(ROOT_TABLE);
    for (int shift = 39; shift > 21; shift -= 9) {
        table = phys_to_virt(table[addr >> shift & 511] & PTE_FRAME);
    }
    return &table[addr >> 21 & 511];
}

/* The byte, where the processor would look for it. */
static uint8_t *at(uint64_t addr, bool write)
{
    uint64_t page = page_down(addr), large = addr & ~(TABLE_SPAN - 1), *pte = entry(addr);
    unsigned slot = (page / PAGE_SIZE) % 1024, large_slot = (large / TABLE_SPAN) % 64;
    uint64_t *above = world_large_entry(addr);
    if (*above & PTE_PS) {
        *above |= PTE_A;
        large_tlb[large_slot].page = large;
        large_tlb[large_slot].frame = *above & PTE_FRAME;
    }
    if (!write && large_tlb[large_slot].page == large) {
        return (uint8_t *)phys_to_virt(large_tlb[large_slot].frame) + (addr - large);
    }
    if (tlb[slot].page != page || (write && !tlb[slot].write)) {
        *pte |= PTE_A | (write ? PTE_D : 0);
        tlb[slot].page = page;
        tlb[slot].frame = *pte & PTE_FRAME;
        tlb[slot].write = *pte & PTE_W;
    }
    *pte |= write ? PTE_D : 0;
    return (uint8_t *)phys_to_virt(tlb[slot].frame) + (addr & PAGE_MASK);
}

int world_peek(uint64_t addr)
{
    const uint64_t *pte = entry(addr);
    return pte && *pte & PTE_P ? *at(addr, false) : -1;
}

bool world_can_write(uint64_t addr)
{
    const uint64_t *pte = entry(addr);
    return pte && (*pte & PTE_P) && (*pte & PTE_W);
}

void world_poke(uint64_t addr, uint8_t value)
{
    if (!world_can_write(addr)) {
        abort();
    }
    *at(addr, true) = value;
}

void hosted_store(uint64_t addr)
{
    world_poke(addr, *at(addr, true));
}

uint64_t world_frame(uint64_t addr)
{
    const uint64_t *pte = entry(addr);
    return pte && *pte & (PTE_P | PTE_KEPT) ? *pte & PTE_FRAME : 0;
}

/* --- what the parts call ------------------------------------------------------------------------ */

void klog(const char *format, ...)
{
    size_t at = strlen(world_log);
    va_list args;
    va_start(args, format);
    kvformat(world_log + at, sizeof(world_log) - at, format, args);
    va_end(args);
}

void host_fill(uint64_t piece)
{
    if (piece % UNID_PIECE_SIZE) {
        abort();
    }
    world_filled++;
}

bool host_flushes(void)
{
    return world_flushes;
}

void host_flush(void)
{
    memset(tlb, 0, sizeof(tlb));
    memset(large_tlb, 0, sizeof(large_tlb));
}

void kpanic(const char *format, ...)
{
    fprintf(stderr, "kpanic: %s\n", format);
    abort();
}

struct file *file_ref(struct file *f)
{
    f->refs++;
    return f;
}

void file_unref(struct file *f)
{
    if (f) {
        f->refs--;
    }
}

static const struct world_file *world_of(const struct file *file)
{
    return (const struct world_file *)file;
}

int64_t file_read_at(struct file *file, void *to, size_t len, uint64_t offset)
{
    const struct world_file *f = world_of(file);
    if (offset >= f->size) {
        return 0;
    }
    len = len < f->size - offset ? len : f->size - offset;
    memcpy(to, f->data + offset, len);
    return (int64_t)len;
}

uint64_t file_size(const struct file *file)
{
    const struct world_file *f = world_of(file);
    return f->size;
}

uint64_t file_frame(struct file *file, uint64_t index)
{
    const struct world_file *f = world_of(file);
    return f->frames && index * PAGE_SIZE < f->size ? f->frames + index * PAGE_SIZE : 0;
}

uint64_t file_frame_shared(struct file *file, uint64_t index)
{
    return file_frame(file, index);
}

bool file_stubs(const struct file *file, struct file_stubs *ret)
{
    const struct world_file *f = world_of(file);
    *ret =
        (struct file_stubs){.phys = f->stubs_phys, .size = f->stubs_size, .vaddr = f->stubs_vaddr};
    return f->stubs_size > 0;
}

const char *file_path(const struct file *file)
{
    const struct world_file *f = world_of(file);
    return f->path;
}
