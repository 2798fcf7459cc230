/* main.c - the loader in the guest: from what QEMU has loaded to the kernel's entry (see boot.h). */
#include "hypervisor/libvirt/loader/boot.h"

enum {
    PAGE = 4096,
    HAS_MAP = 1 << 6,
    INFO_ROOM = 2 * PAGE, /* beside the command line */
    DEVICES_ROOM = 4096,
    TABLES_ROOM = 6 * PAGE
};

/* What start.S reads. */
struct boot_jump {
    uint32_t magic, info, entry, count;
    uint32_t tables, stack; /* tables 0: it is entered without paging */
    uint16_t none, gdt_size;
    uint32_t gdt_at;
    uint64_t gdt[4];
    struct boot_piece pieces[BOOT_PIECES];
};
_Static_assert(__builtin_offsetof(struct boot_jump, tables) == 16, "start.S");
_Static_assert(__builtin_offsetof(struct boot_jump, gdt_size) == 26, "start.S");
_Static_assert(__builtin_offsetof(struct boot_jump, pieces) == 64, "start.S");
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

/* The old interrupt controllers reach the processor through its local APIC, as Firecracker has it at the start and
 * kernels without a driver for it expect: "virtual wire mode" (MultiProcessor Specification 1.4, section 3.6.2.2).
 * QEMU's microvm leaves it off. Not where there is ACPI, by which Linux learns that microvm's are of no use, and does
 * not touch them: what they have pending would come as vector 0. */
static void wire_interrupts(void)
{
    static volatile uint32_t *const apic = (volatile uint32_t *)0xfee00000;
    enum { SPURIOUS = 0xf0 / 4, LINT0 = 0x350 / 4, LINT1 = 0x360 / 4 };
    enum { ON = 0x100, VECTOR = 0xff, EXTERNAL = 0x700, NMI = 0x400 };
    apic[SPURIOUS] = ON | VECTOR;
    apic[LINT0] = EXTERNAL;
    apic[LINT1] = NMI;
}

/* QEMU, docs/specs/fw_cfg.rst: what an entry holds is read byte by byte; zeros are behind its end, and are all that
 * an entry has that is not there. */
enum fw_cfg { FW_CMDLINE_SIZE = 0x14, FW_CMDLINE = 0x15 };

static void fw_cfg_select(enum fw_cfg entry)
{
    __asm__ volatile("outw %0, %1" : : "a"((uint16_t)entry), "Nd"((uint16_t)0x510));
}

static uint8_t fw_cfg_byte(void)
{
    uint8_t byte;
    __asm__ volatile("inb %1, %0" : "=a"(byte) : "Nd"((uint16_t)0x511));
    return byte;
}

_Noreturn static void fail(const char *why)
{
    console("loader: not started: ");
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

/* A microvm without ACPI puts words for its devices behind the command line that a kernel of Linux' protocol would
 * get (QEMU, hw/i386/microvm.c, microvm_fix_kernel_cmdline), and has it here also for others. */
static const char *read_devices(const char *cmdline)
{
    static char devices[DEVICES_ROOM];
    uint32_t size = 0, n = 0;
    fw_cfg_select(FW_CMDLINE_SIZE);
    for (uint32_t i = 0; i < 4; i++) {
        size |= (uint32_t)fw_cfg_byte() << 8 * i;
    }
    fw_cfg_select(FW_CMDLINE);
    for (; *cmdline; cmdline++, size--) {
        if (size == 0 || fw_cfg_byte() != (uint8_t)*cmdline) {
            return "";
        }
    }
    for (; size > 0 && n < DEVICES_ROOM - 1; size--) {
        uint8_t byte = fw_cfg_byte();
        if (byte == 0) {
            break;
        }
        if (n > 0 || byte != ' ') {
            devices[n++] = (char)byte;
        }
    }
    return devices;
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
            told->rsdp_at = at;
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
        if (r->type == BOOT_FREE && r->base + r->len < UINT32_MAX && r->base + r->len > end) {
            end = (uint32_t)(r->base + r->len);
        }
    }
    return end & -(uint32_t)PAGE;
}

static bool is_free(const struct boot_told *told, uint32_t low, uint32_t high)
{
    for (uint32_t i = 0; i < told->region_count; i++) {
        const struct boot_region *r = &told->regions[i];
        if (r->type == BOOT_FREE && r->base <= low && r->base + r->len >= high) {
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

/* The first 4 GiB onto themselves, by pages of 2 MiB: one table, one of the next level, and four. */
static void map_memory(uint32_t tables)
{
    enum { ENTRIES = PAGE / 8, PRESENT = 1, WRITABLE = 2, LARGE = 0x80, LARGE_SIZE = 2 << 20 };
    uint64_t *all = (uint64_t *)tables;
    for (uint32_t i = 0; i < TABLES_ROOM / 8; i++) {
        all[i] = 0;
    }
    all[0] = tables + PAGE + (PRESENT | WRITABLE);
    for (uint32_t i = 0; i < 4; i++) {
        all[ENTRIES + i] = tables + (2 + i) * PAGE + (PRESENT | WRITABLE);
    }
    for (uint32_t i = 0; i < 4 * ENTRIES; i++) {
        all[2 * ENTRIES + i] = (uint64_t)i * LARGE_SIZE + (PRESENT | WRITABLE | LARGE);
    }
}

/* Where everything lies at the end of memory; the kernel's file is the lowest. */
struct places {
    uint32_t jump, tables, info, info_size, initrd, kernel;
};

_Noreturn static void enter(const struct boot_plan *plan, const struct places *at)
{
    struct boot_jump *jump = (struct boot_jump *)at->jump;
    *jump = (struct boot_jump){.magic = plan->protocol,
                               .info = at->info,
                               .entry = plan->entry,
                               .count = plan->piece_count,
                               .tables = plan->protocol == BOOT_LINUX64 ? at->tables : 0,
                               .stack = at->jump + PAGE,
                               .gdt_size = sizeof(jump->gdt) - 1,
                               .gdt_at = (uint32_t)(uintptr_t)jump->gdt,
                               .gdt = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff}};
    for (uint32_t i = 0; i < plan->piece_count; i++) {
        jump->pieces[i] = plan->pieces[i];
        jump->pieces[i].from += at->kernel;
    }
    if (jump->tables) {
        map_memory(jump->tables);
    }
    uint8_t *code = (uint8_t *)(jump + 1);
    const uint8_t *from = (const uint8_t *)(uintptr_t)boot_jump;
    for (uint32_t i = 0; from + i < boot_jump_end; i++) {
        code[i] = from[i];
    }
    ((void (*)(const struct boot_jump *))(uintptr_t)code)(jump);
    boot_reset();
}

/* What QEMU has loaded: the kernel and, with a size, its RAM disk. */
struct loaded {
    uint32_t kernel, kernel_size, initrd, initrd_size;
};

/* Gives everything its place, from the end of memory down. False: it does not fit. */
static bool place(const struct loaded *from, const struct boot_plan *plan, struct boot_told *told,
                  struct places *ret)
{
    uint32_t least = (uint32_t)boot_loader_end, at = memory_end(told);
    ret->info_size = INFO_ROOM + length(told->cmdline) + length(told->devices);
    bool fits = take(&at, PAGE, least);
    ret->jump = at;
    fits = fits && take(&at, plan->protocol == BOOT_LINUX64 ? TABLES_ROOM : 0, least);
    ret->tables = at;
    fits = fits && take(&at, ret->info_size, least);
    ret->info = at;
    fits = fits && take(&at, from->initrd_size, from->initrd_size ? from->initrd : 0);
    ret->initrd = told->initrd = at;
    told->initrd_end = at + from->initrd_size;
    fits = fits && take(&at, from->kernel_size, from->kernel);
    ret->kernel = at;
    for (uint32_t i = 0; fits && i < plan->piece_count; i++) {
        const struct boot_piece *p = &plan->pieces[i];
        fits = is_free(told, p->to, p->to + p->file_size + p->zero_size);
    }
    return fits && plan->high <= at;
}

void boot_main(uint32_t magic, const uint32_t *qemu)
{
    static struct boot_told told;
    static struct boot_plan plan;
    struct places at;
    if (magic != BOOT_MULTIBOOT1 || !(qemu[0] & HAS_MAP) || qemu[5] == 0) {
        fail("QEMU told nothing of it");
    }
    const uint32_t *modules = (const uint32_t *)qemu[6]; /* start, end, words, 0 */
    struct loaded from = {.kernel = modules[0], .kernel_size = modules[1] - modules[0]};
    if (qemu[5] > 1) {
        from.initrd = modules[4];
        from.initrd_size = modules[5] - modules[4];
    }
    const char *wrong = boot_plan((const uint8_t *)from.kernel, from.kernel_size, &plan);
    if (wrong) {
        fail(wrong);
    }
    /* Of the first specification kernels expect a file's name in front, as QEMU and others have it. */
    told.cmdline = without_path((const char *)qemu[4]);
    told.devices = plan.protocol == BOOT_LINUX64 ? read_devices(told.cmdline) : "";
    if (plan.protocol == BOOT_MULTIBOOT1) {
        told.cmdline = (const char *)qemu[4];
    }
    read_map(qemu, &told);
    find_rsdp(&told);
    if (!place(&from, &plan, &told, &at)) {
        fail("too little memory for it");
    }
    move_up(at.initrd, from.initrd_size ? from.initrd : at.initrd, from.initrd_size);
    /* What QEMU tells may lie where the kernel goes now; the words are all that is still wanted. */
    if (!boot_info_build(&plan, &told, at.info, (uint8_t *)at.info, at.info_size)) {
        fail("what it is to be told is too long");
    }
    if (plan.protocol == BOOT_LINUX64 && !told.rsdp) {
        wire_interrupts();
    }
    move_up(at.kernel, from.kernel, from.kernel_size);
    enter(&plan, &at);
}
