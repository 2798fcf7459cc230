/* touch.c - touches pages of a guest that waits for its request, as earlier runs from the same snapshot did
 * (machine.h).
 *
 * A KVM without hardware's nested page tables makes an entry of its shadow tables at each page that a guest
 * touches first, by a fault of 2 to 3 us. Reading ahead on the host's side does not help: the entry is what
 * is missing. So the guest's vCPU runs a loop of the monitor's own, in ring 3, which touches the pages one
 * after the other; then it gets the guest's registers, and goes on as if nothing had been.
 *
 * The loop runs under the guest's own tables, in whose root one free entry leads to its code and its list, as
 * long as it runs. These lie in the first MiB of guest-physical memory, where guests have nothing, and are gone
 * when the guest runs. What a shadow table still has of the entry then leads to no page, and is looked up in
 * the guest's own tables, where there is nothing.
 *
 * What is to be touched is learned from the accessed and dirty bits of the guest's own tables: a run that is
 * learned from begins with the accessed bits cleared, and with 2 MiB entries split into tables of 4 KiB
 * entries, so that they tell pages too. These tables lie in the first MiB as well, and stay as long as the
 * machine. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "hypervisor/kvm/machine.h"

/* Entries of page tables: AMD APM vol. 2, section 5.3. */
#define PAGE     UINT64_C(4096)
#define PTE_P    (UINT64_C(1) << 0)
#define PTE_W    (UINT64_C(1) << 1)
#define PTE_U    (UINT64_C(1) << 2)
#define PTE_A    (UINT64_C(1) << 5)
#define PTE_D    (UINT64_C(1) << 6)
#define PTE_PS   (UINT64_C(1) << 7)
#define PTE_NX   (UINT64_C(1) << 63)
#define PTE_ADDR UINT64_C(0xffffffffff000)

enum { ENTRIES = 512, TABLES_MAX = 4096 /* of a guest, that are looked through */ };

/* Pages of the first MiB. Before them is the first program (machine_warm). */
enum {
    TABLES = 8, /* one of each level below the root */
    CODE = TABLES + 3,
    LIST,
    LIST_PAGES = VMM_TOUCHES_MAX * 8 / 4096,
    SPLIT = LIST + LIST_PAGES,
    SPLIT_END = (int)(UNID_BOOT_ADDR / PAGE)
};

/* What the loop sees at the entries of its table. */
enum { AT_CODE, AT_LIST, AT_CALL = AT_LIST + LIST_PAGES, AT_DOORBELL };

/* rsi: the list; ecx: its length, not 0; rdi: where the call's answer is told; ebx: what stands there once the
 * guest has its request; rdx: the doorbell. Adding nothing is atomic, as unid may write to the channel. */
extern const uint8_t touch_code[], touch_code_end[];
__asm__(".pushsection .rodata\n"
        "touch_code:\n"
        "1:  cmpl %ebx, (%rdi)\n"
        "    je 4f\n"
        "    movq (%rsi), %rax\n"
        "    addq $8, %rsi\n"
        "    testb $1, %al\n"
        "    jz 2f\n"
        "    andq $-4096, %rax\n"
        "    lock orb $0, (%rax)\n"
        "    jmp 3f\n"
        "2:  movb (%rax), %al\n"
        "3:  decl %ecx\n"
        "    jnz 1b\n"
        "4:  movl %eax, (%rdx)\n"
        "    jmp 4b\n"
        "touch_code_end:\n"
        ".popsection");

static uint64_t *low_page(const struct machine *m, unsigned page)
{
    return (uint64_t *)(void *)(m->mem + page * PAGE);
}

static int map_low(const struct machine *m, unsigned from, unsigned to)
{
    void *p = mmap(m->mem + from * PAGE, (to - from) * PAGE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return p == MAP_FAILED ? -errno : 0;
}

/* --- the guest's tables, of any content ------------------------------------------------------- */

/* NULL where no table can be. */
static uint64_t *table_at(const struct machine *m, uint64_t entry)
{
    uint64_t at = entry & PTE_ADDR;
    bool split = at >= SPLIT * PAGE && at < (SPLIT + m->split_count) * PAGE;
    return split || (at >= UNID_CHANNEL_END && at <= m->mem_bytes - PAGE)
               ? (uint64_t *)(void *)(m->mem + at)
               : NULL;
}

static bool present(uint64_t entry)
{
    return (entry & (PTE_P | PTE_U)) == (PTE_P | PTE_U);
}

/* The index of `addr` in a table: level 1 is the lowest. */
static unsigned index_of(uint64_t addr, unsigned level)
{
    return (unsigned)(addr >> (3 + 9 * level)) & (ENTRIES - 1);
}

struct visit {
    struct machine *m;
    unsigned tables;
    /* Sees entries of level 1, and those of level 2 that are present and lead to pages. */
    void (*leaf)(struct visit *v, uint64_t addr, uint64_t *entry, unsigned level);
    uint64_t *touches;
    size_t count;
};

static void visit_table(struct visit *v, uint64_t *table, unsigned level, uint64_t base)
{
    if (!table || v->tables == TABLES_MAX) {
        return;
    }
    v->tables++;
    for (unsigned i = 0; i < ENTRIES; i++) {
        uint64_t addr = base + ((uint64_t)i << (3 + 9 * level));
        if (level == 4 && i >= ENTRIES / 2) {
            addr |= ~UINT64_C(0) << 48;
        }
        if (level > 1 && !present(table[i])) {
            continue;
        }
        if (level == 1 || (level == 2 && table[i] & PTE_PS)) {
            v->leaf(v, addr, &table[i], level);
        } else if (!(table[i] & PTE_PS)) {
            visit_table(v, table_at(v->m, table[i]), level - 1, addr);
        }
    }
}

/* The entry for the page at `addr`, writable if all above it are; 0 when there is none, or none that the
 * processor is sure to take. */
static uint64_t find_leaf(const struct machine *m, uint64_t addr)
{
    const uint64_t within = (ENTRIES - 1) * PAGE; /* of an address, in a page of 2 MiB */
    const uint64_t *table = table_at(m, m->cr3);
    uint64_t writable = PTE_W;
    for (unsigned level = 4; table; level--) {
        uint64_t entry = table[index_of(addr, level)];
        if (!present(entry)) {
            return 0;
        }
        writable &= entry;
        if (level == 1) {
            return (entry & ~PTE_W) | writable;
        }
        if (entry & PTE_PS) {
            bool good = level == 2 && !(entry & within);
            return good ? (entry & ~PTE_W) | writable | (addr & within) : 0;
        }
        table = table_at(m, entry);
    }
    return 0;
}

/* --- learning --------------------------------------------------------------------------------- */

static void watch_leaf(struct visit *v, uint64_t addr, uint64_t *entry, unsigned level)
{
    (void)addr;
    if (level == 1) {
        if (present(*entry) && *entry & PTE_A) {
            *entry &= ~PTE_A;
        }
        return;
    }
    unsigned page = SPLIT + v->m->split_count;
    if (page == SPLIT_END) {
        return; /* memory behind is not learned from */
    }
    uint64_t *table = low_page(v->m, page);
    uint64_t first = *entry & PTE_ADDR & ~(ENTRIES * PAGE - 1);
    for (unsigned i = 0; i < ENTRIES; i++) {
        table[i] = (first + i * PAGE) | (*entry & (PTE_P | PTE_W | PTE_U | PTE_NX));
    }
    *entry = page * PAGE | PTE_P | PTE_W | PTE_U | PTE_A;
    v->m->split_count++;
}

void machine_watch(struct machine *m)
{
    if (map_low(m, SPLIT, SPLIT_END) == 0) {
        m->watching = true;
        visit_table(&(struct visit){.m = m, .leaf = watch_leaf}, table_at(m, m->cr3), 4, 0);
    }
}

/* A page that was unmapped again, or hidden, is told too if the guest left its bits in place: it is there when
 * the next run begins. What is wrong about this shows then (write_list). */
static void touched_leaf(struct visit *v, uint64_t addr, uint64_t *entry, unsigned level)
{
    if (level == 1 && *entry & PTE_A && v->count < VMM_TOUCHES_MAX) {
        v->touches[v->count++] = addr | (*entry & PTE_D ? VMM_TOUCH_WRITE : 0);
    }
}

size_t machine_touched(struct machine *m, uint64_t touches[VMM_TOUCHES_MAX])
{
    struct visit v = {.m = m, .leaf = touched_leaf, .touches = touches};
    if (m->watching) {
        visit_table(&v, table_at(m, m->cr3), 4, 0);
    }
    return v.count;
}

/* --- touching --------------------------------------------------------------------------------- */

/* Writes the list. A page that is dirty already becomes writable by reading it, if it has a frame of its own
 * (copied ahead), so only those are written to that are to become dirty. What leads elsewhere than to memory
 * is left out: other runs may have had other tables. */
static size_t write_list(const struct machine *m, const uint64_t *touches, size_t count)
{
    uint64_t *list = low_page(m, LIST);
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t addr = touches[i] & ~(PAGE - 1), entry = find_leaf(m, addr);
        uint64_t at = entry & PTE_ADDR;
        if (at >= UNID_BOOT_ADDR && at < m->mem_bytes) {
            bool writes = touches[i] & VMM_TOUCH_WRITE && entry & PTE_W && !(entry & PTE_D);
            list[n++] = addr | (writes ? VMM_TOUCH_WRITE : 0);
        }
    }
    return n;
}

/* A free entry of the root, of the lower half of addresses; 0 when there is none. */
static unsigned free_slot(const uint64_t *root)
{
    unsigned slot = ENTRIES / 2 - 1;
    while (slot > 0 && root[slot]) {
        slot--;
    }
    return slot;
}

/* What leads to the loop from that entry of the root. */
static void write_tables(const struct machine *m, uint64_t *slot)
{
    uint64_t *table = low_page(m, TABLES + 2);
    *slot = TABLES * PAGE | PTE_P | PTE_W | PTE_U | PTE_A;
    for (unsigned page = TABLES; page < TABLES + 2; page++) {
        low_page(m, page)[0] = (page + 1) * PAGE | PTE_P | PTE_W | PTE_U | PTE_A;
    }
    table[AT_CODE] = CODE * PAGE | PTE_P | PTE_U | PTE_A;
    for (unsigned i = 0; i < LIST_PAGES; i++) {
        table[AT_LIST + i] = (LIST + i) * PAGE | PTE_P | PTE_U | PTE_A | PTE_NX;
    }
    table[AT_CALL] = UNID_CALL_ADDR | PTE_P | PTE_U | PTE_A | PTE_NX;
    table[AT_DOORBELL] = VMM_DOORBELL_ADDR | PTE_P | PTE_W | PTE_U | PTE_A | PTE_D | PTE_NX;
    memcpy(low_page(m, CODE), touch_code, (size_t)(touch_code_end - touch_code));
}

int machine_touch(struct machine *m, const uint64_t *touches, size_t count)
{
    const struct unid_call *call = (const void *)(m->mem + UNID_CALL_ADDR);
    uint32_t wanted = call->seq;
    if (count == 0 || __atomic_load_n(&call->ack, __ATOMIC_ACQUIRE) == wanted) {
        return 0;
    }
    uint64_t *root = table_at(m, m->cr3);
    unsigned slot = root ? free_slot(root) : 0;
    if (slot == 0) {
        return 0;
    }
    int rc = map_low(m, TABLES, SPLIT);
    if (rc < 0) {
        m->step = "map what touches pages";
        return rc;
    }
    uint64_t base = (uint64_t)slot << 39;
    size_t n = write_list(m, touches, count);
    if (n > 0) {
        write_tables(m, &root[slot]);
        struct kvm_regs regs = {.rip = base + AT_CODE * PAGE,
                                .rsi = base + AT_LIST * PAGE,
                                .rcx = n,
                                .rdi = base + AT_CALL * PAGE + offsetof(struct unid_call, ack),
                                .rbx = wanted,
                                .rdx = base + AT_DOORBELL * PAGE};
        rc = machine_run_own(m, m->cr3, &regs, "touch pages");
        root[slot] = 0;
    }
    /* The guest is to find nothing of it. */
    if (madvise(m->mem + TABLES * PAGE, (SPLIT - TABLES) * PAGE, MADV_DONTNEED) < 0 && rc == 0) {
        m->step = "drop what touched pages";
        rc = -errno;
    }
    return rc;
}
