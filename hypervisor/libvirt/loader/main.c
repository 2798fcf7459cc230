/* main.c - the loader in the guest: from what QEMU has loaded to the kernel's entry (see boot.h). */
#include "hypervisor/libvirt/loader/boot.h"

enum { PAGE = 4096, FREE = 1, HAS_MAP = 1 << 6, INFO_ROOM = 4096 };

/* What start.S reads. */
struct boot_jump {
    uint32_t magic, info, entry, count;
    struct boot_piece pieces[BOOT_PIECES];
};
_Noreturn void boot_jump(const struct boot_jump *jump);
extern const uint8_t boot_jump_end[];
_Noreturn void boot_reset(void);
void boot_main(uint32_t magic, const uint32_t *qemu);

extern const uint8_t boot_loader_end[]; /* loader.ld */

/* --- the machine ------------------------------------------------------------------------------- */

static void console(const char *text)
{
    for (; *text; text++) {
        uint8_t status;
        do {
            __asm__ volatile("inb %1, %0" : "=a"(status) : "Nd"((uint16_t)0x3fd));
        } while (!(status & 0x20));
        __asm__ volatile("outb %0, %1" : : "a"(*text), "Nd"((uint16_t)0x3f8));
    }
}

_Noreturn static void fail(const char *why)
{
    console("multiboot: not started: ");
    console(why);
    console("\n");
    boot_reset();
}

/* Upwards in memory, where both may overlap; whole words, of which there are enough at both places. */
static void move_up(uint32_t to, uint32_t from, uint32_t len)
{
    uint32_t words = (len + 3) / 4;
    uint32_t dst = to + (words - 1) * 4, src = from + (words - 1) * 4;
    if (words && to != from) {
        __asm__ volatile("std; rep movsl; cld" : "+D"(dst), "+S"(src), "+c"(words) : : "memory");
    }
}

/* --- what there is ------------------------------------------------------------------------------ */

static uint32_t length(const char *s)
{
    uint32_t n = 0;
    while (s[n]) {
        n++;
    }
    return n;
}

/* QEMU has the loader's path in front, which ends so. */
static const char *without_path(const char *s)
{
    static const char end[] = ".loader ";
    for (const char *at = s; *at; at++) {
        uint32_t i = 0;
        while (end[i] && at[i] == end[i]) {
            i++;
        }
        if (!end[i]) {
            return at + i;
        }
    }
    return "";
}

static void read_map(const uint32_t *qemu, struct boot_told *told)
{
    for (uint32_t at = 0; at < qemu[11] && told->region_count < BOOT_REGIONS;) {
        const uint32_t *e = (const uint32_t *)(qemu[12] + at);
        told->regions[told->region_count++] = (struct boot_region){
            .base = e[1] | (uint64_t)e[2] << 32, .len = e[3] | (uint64_t)e[4] << 32, .type = e[5]};
        at += e[0] + 4;
    }
}

/* Where firmware puts it (ACPI 6.4, section 5.2.5.1); 20 bytes, 36 since its second version. */
static void find_rsdp(struct boot_told *told)
{
    for (uint32_t at = 0xe0000; at < 0x100000 && !told->rsdp; at += 16) {
        const uint8_t *p = (const uint8_t *)at;
        static const char mark[] = "RSD PTR ";
        uint32_t i = 0;
        while (mark[i] && p[i] == (uint8_t)mark[i]) {
            i++;
        }
        if (!mark[i]) {
            told->rsdp = p;
            told->rsdp_len = p[15] >= 2 ? 36 : 20;
        }
    }
}

/* --- where it goes ------------------------------------------------------------------------------ */

/* The end of the memory below 4 GiB. */
static uint32_t memory_end(const struct boot_told *told)
{
    uint32_t end = 0;
    for (uint32_t i = 0; i < told->region_count; i++) {
        const struct boot_region *r = &told->regions[i];
        if (r->type == FREE && r->base + r->len < UINT32_MAX && r->base + r->len > end) {
            end = (uint32_t)(r->base + r->len);
        }
    }
    return end & -(uint32_t)PAGE;
}

static bool is_free(const struct boot_told *told, uint32_t low, uint32_t high)
{
    for (uint32_t i = 0; i < told->region_count; i++) {
        const struct boot_region *r = &told->regions[i];
        if (r->type == FREE && r->base <= low && r->base + r->len >= high) {
            return true;
        }
    }
    return false;
}

/* Takes room below `*end`, which becomes its address. False: there is none above `least`. */
static bool take(uint32_t *end, uint32_t size, uint32_t least)
{
    size = (size + PAGE - 1) & -(uint32_t)PAGE;
    if (*end < size || *end - size < least) {
        return false;
    }
    *end -= size;
    return true;
}

_Noreturn static void enter(const struct boot_plan *plan, uint32_t kernel, uint32_t info,
                            uint32_t at)
{
    struct boot_jump *jump = (struct boot_jump *)at;
    *jump = (struct boot_jump){
        .magic = plan->magic, .info = info, .entry = plan->entry, .count = plan->piece_count};
    for (uint32_t i = 0; i < plan->piece_count; i++) {
        jump->pieces[i] = plan->pieces[i];
        jump->pieces[i].from += kernel;
    }
    uint8_t *code = (uint8_t *)(jump + 1);
    const uint8_t *from = (const uint8_t *)(uintptr_t)boot_jump;
    for (uint32_t i = 0; from + i < boot_jump_end; i++) {
        code[i] = from[i];
    }
    ((void (*)(const struct boot_jump *))(uintptr_t)code)(jump);
    boot_reset();
}

void boot_main(uint32_t magic, const uint32_t *qemu)
{
    static struct boot_told told;
    static struct boot_plan plan;
    if (magic != BOOT_MULTIBOOT1_MAGIC || !(qemu[0] & HAS_MAP) || qemu[5] == 0) {
        fail("QEMU told nothing of it");
    }
    const uint32_t *modules = (const uint32_t *)qemu[6]; /* start, end, words, 0 */
    uint32_t kernel_size = modules[1] - modules[0];
    uint32_t initrd_size = qemu[5] > 1 ? modules[5] - modules[4] : 0;
    const char *wrong = boot_plan((const uint8_t *)modules[0], kernel_size, &plan);
    if (wrong) {
        fail(wrong);
    }
    /* Of the first specification kernels expect a file's name in front, as QEMU and others have it. */
    told.cmdline = plan.magic == BOOT_MULTIBOOT1_MAGIC ? (const char *)qemu[4]
                                                       : without_path((const char *)qemu[4]);
    read_map(qemu, &told);
    find_rsdp(&told);
    uint32_t at = memory_end(&told), jump, info, info_size = INFO_ROOM + length(told.cmdline);
    bool fits = take(&at, PAGE, (uint32_t)boot_loader_end);
    jump = at;
    fits = fits && take(&at, info_size, (uint32_t)boot_loader_end);
    info = at;
    fits = fits && take(&at, initrd_size, initrd_size ? modules[4] : 0);
    told.initrd = at;
    told.initrd_end = at + initrd_size;
    fits = fits && take(&at, kernel_size, modules[0]);
    for (uint32_t i = 0; fits && i < plan.piece_count; i++) {
        const struct boot_piece *p = &plan.pieces[i];
        fits = is_free(&told, p->to, p->to + p->file_size + p->zero_size);
    }
    if (!fits || plan.high > at) {
        fail("too little memory for it");
    }
    move_up(told.initrd, initrd_size ? modules[4] : told.initrd, initrd_size);
    /* What QEMU tells may lie where the kernel goes now; the words are all that is still wanted. */
    if (!boot_info_build(&plan, &told, info, (uint8_t *)info, info_size)) {
        fail("what it is to be told is too long");
    }
    move_up(at, modules[0], kernel_size);
    enter(&plan, at, info, jump);
}
