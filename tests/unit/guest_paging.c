/* guest_paging.c - a guest that writes its own page tables (unid/abi.h, 1.1), for the drivers' tests.
 * Linked by guest_paging.ld, without the SDK.
 *
 * argv[1] says what it does before it answers "ok" (or, with status 1, what was wrong):
 *
 *     paging          maps pages at high addresses and sets the FS base before its NEXT, and holds
 *                     all of it against what it was behind
 *     wait NS         asks for time to pass
 *     net             a conversation over the connection that the test makes
 *     early           waits and asks for a connection before its NEXT
 *     report COUNT    counts calls in struct unid_report
 *     syscall, sysenter, int80     the instruction, in memory mapped here
 *     touch PAGES     writes so many fresh pages before NEXT and again behind
 *     ahead PAGES [loop|low|odd]  maps so many pages before NEXT; behind it touches them, and answers how many
 *                     were touched already, by their entries. loop: its tables lead back to themselves; low:
 *                     it answers how many words of the first MiB are not zero; odd: it
 *                     may not write to the pages, and says in their entries that it did
 *     fill PIECES     behind NEXT, has so many pieces of its memory filled and asks for some that are none, finds
 *                     them zero, and writes to each page
 *     flush           maps and reads a page, changes its frame, and finds the other one after a flush
 *     physical ADDR   reads the physical address, and then executes there
 *     scribble SEED   writes nonsense into its page tables and uses what comes of it
 *     cpuid           answers the words of leaf argv[2] instead of "ok"
 *     cost PAGES      answers the nanoseconds that each of so many fresh pages takes: to map, to write
 *                     to first, to write to first in the direct map
 */
#include "unid/abi.h"

#define PAGE      UNID_U64(4096)
#define PTE_ADDR  UNID_U64(0x000ffffffffff000)
#define PTE_TABLE UNID_U64(0x27) /* accessed, user, writable, present */
#define PTE_DATA  UNID_U64(0x67) /* and dirty; executable: NX is not set */

#define HIGH_TEXT "a segment of the direct map"
__attribute__((section(".high"))) const char high_text[] = HIGH_TEXT;

__asm__(".pushsection .note.unid, \"a\", @note\n"
        ".balign 4\n"
        ".long 5, 8, 1\n"
        ".asciz \"unid\"\n"
        ".balign 4\n"
        ".short 1, 1\n"
        ".long 1\n"
        ".popsection\n"
        ".pushsection .text\n"
        ".globl _start\n"
        "_start:\n"
        "xorl %ebp, %ebp\n"
        "andq $-16, %rsp\n"
        "call start\n"
        "ud2\n"
        ".popsection\n");

void start(const struct unid_boot *b);
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);

static const struct unid_boot *boot;
static uint64_t next_frame;
static const char *args[4];
static char answer[64];

static volatile struct unid_call *call_block(void)
{
    return (volatile struct unid_call *)UNID_CALL_ADDR;
}

void *memcpy(void *to, const void *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((volatile char *)to)[i] = ((const char *)from)[i];
    }
    return to;
}

void *memset(void *to, int c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((volatile char *)to)[i] = (char)c;
    }
    return to;
}

static size_t length(const char *s)
{
    size_t n = 0;
    while (s[n]) {
        n++;
    }
    return n;
}

static int equal(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (a[i] != b[i]) {
            return 0;
        }
    }
    return 1;
}

static int is(const char *a, const char *b)
{
    return length(a) == length(b) && equal(a, b, length(b));
}

static uint64_t number(const char *s)
{
    uint64_t n = 0;
    while (*s >= '0' && *s <= '9') {
        n = n * 10 + (uint64_t)(*s++ - '0');
    }
    return n;
}

static char *put_number(char *to, uint64_t n)
{
    char digits[20];
    int count = 0;
    do {
        digits[count++] = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    while (count > 0) {
        *to++ = digits[--count];
    }
    return to;
}

/* --- calls ------------------------------------------------------------------------------------ */

static void ring(uint32_t op)
{
    volatile struct unid_call *c = call_block();
    uint32_t seq = c->seq + 1;
    c->op = op;
    __atomic_store_n(&c->seq, seq, __ATOMIC_RELEASE);
    if (boot->doorbell_kind == UNID_DOORBELL_PORT) {
        __asm__ volatile("outb %%al, %%dx" ::"a"(0), "d"(boot->doorbell_port) : "memory");
    } else {
        __asm__ volatile("movl %0, (%1)" ::"a"(0), "d"(boot->doorbell_addr) : "memory");
    }
    while (__atomic_load_n(&c->ack, __ATOMIC_ACQUIRE) != seq) {
        __asm__ volatile("pause");
    }
}

static void take_request(void)
{
    if (!(boot->flags & UNID_BOOT_REQUEST_READY)) {
        ring(UNID_OP_NEXT);
    }
}

static _Noreturn void done(const char *text, int32_t status)
{
    volatile struct unid_call *c = call_block();
    size_t n = length(text);
    memcpy((void *)UNID_RESPONSE_ADDR, text, n);
    c->response_len = (uint32_t)n;
    c->head_len = 0;
    c->status = status;
    ring(UNID_OP_DONE);
    for (;;) {
    }
}

static void must(int holds, const char *what)
{
    if (!holds) {
        done(what, 1);
    }
}

static int32_t net(uint32_t op, uint32_t handle, const char *data, uint32_t len)
{
    volatile struct unid_call *c = call_block();
    if (data) {
        memcpy((void *)UNID_NET_ADDR, data, len);
    }
    c->net_handle = handle;
    c->net_len = len;
    ring(op);
    return c->net_result;
}

static void wait_for(uint64_t ns)
{
    call_block()->wait_ns = ns;
    ring(UNID_OP_WAIT);
}

/* --- pages ------------------------------------------------------------------------------------ */

static volatile uint64_t *direct(uint64_t phys)
{
    return (volatile uint64_t *)(UNID_DIRECT_MAP + phys);
}

static uint64_t frame(void)
{
    uint64_t at = next_frame;
    must(at + PAGE <= boot->heap_end, "no frame is left");
    next_frame += PAGE;
    return at;
}

/* Maps a fresh frame; gives its physical address. */
static uint64_t map(uint64_t addr)
{
    uint64_t table = boot->page_root, at = frame();
    for (int shift = 39; shift > 12; shift -= 9) {
        volatile uint64_t *entry = &direct(table)[addr >> shift & 511];
        if (!(*entry & 1)) {
            *entry = frame() | PTE_TABLE;
        }
        table = *entry & PTE_ADDR;
    }
    direct(table)[addr >> 12 & 511] = at | PTE_DATA;
    return at;
}

static const uint64_t places[] = {UNID_U64(0x400000), UNID_U64(0x00c000000000),
                                  UNID_U64(0x555555554000), UNID_U64(0x7ffff7fff000),
                                  UNID_U64(0x7ffffffff000 - 0x1000)};
#define PLACES (sizeof(places) / sizeof(places[0]))

static uint64_t fs_word(void)
{
    uint64_t word;
    __asm__ volatile("movq %%fs:0, %0" : "=r"(word));
    return word;
}

static uint64_t gs_word(void)
{
    uint64_t word;
    __asm__ volatile("movq %%gs:0, %0" : "=r"(word));
    return word;
}

/* Return from a function whose code was copied to a page of ours. */
static void run_code(uint64_t page)
{
    static const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov $42, %eax; ret */
    int result;
    memcpy((void *)page, code, sizeof(code));
    __asm__ volatile("call *%1" : "=a"(result) : "r"(page) : "memory");
    must(result == 42, "code in a fresh page");
}

static void check_pages(const uint64_t *phys)
{
    for (size_t i = 0; i < PLACES; i++) {
        must(*(volatile uint64_t *)places[i] == ~places[i], "a page has another content");
        must(*direct(phys[i]) == ~places[i], "a page is not its frame");
    }
    must(fs_word() == ~places[1], "FS base");
    must(gs_word() == ~places[2], "GS base");
}

static void paging(void)
{
    uint64_t phys[PLACES];
    must(boot->page_root && boot->stack_top > UNID_DIRECT_MAP, "the boot block");
    must(boot->flags & UNID_BOOT_FSGSBASE, "no FSGSBASE");
    must(boot->tsc_hz > 0, "no rate of the time stamp counter");
    must(equal(high_text, HIGH_TEXT, sizeof(HIGH_TEXT)), "the segment in the direct map");
    must(*(volatile uint64_t *)(UNID_DIRECT_MAP + UNID_IMAGE_MIN) == *(uint64_t *)UNID_IMAGE_MIN,
         "the code in the direct map");
    for (size_t i = 0; i < PLACES; i++) {
        phys[i] = map(places[i]);
        must(*(volatile uint64_t *)places[i] == 0, "a free frame is not zero");
        *(volatile uint64_t *)places[i] = ~places[i];
    }
    __asm__ volatile("wrfsbase %0" ::"r"(places[1]));
    __asm__ volatile("wrgsbase %0" ::"r"(places[2]));
    check_pages(phys);
    take_request();
    check_pages(phys);
    uint64_t more = UNID_U64(0x600000000000);
    map(more);
    run_code(more);
    ring(UNID_OP_LOG);
    check_pages(phys);
}

static void touch(void)
{
    uint64_t from = UNID_U64(0x600000000000), pages = number(args[2]);
    for (uint64_t i = 0; i < pages; i++) {
        map(from + i * PAGE);
        *(volatile uint64_t *)(from + i * PAGE) = i + 1;
    }
    take_request();
    for (uint64_t i = 0; i < pages; i++) {
        must((*(volatile uint64_t *)(from + i * PAGE))++ == i + 1, "a page was lost");
    }
}

static volatile uint64_t *leaf_of(uint64_t addr)
{
    uint64_t table = boot->page_root;
    for (int shift = 39; shift > 12; shift -= 9) {
        table = direct(table)[addr >> shift & 511] & PTE_ADDR;
    }
    return &direct(table)[addr >> 12 & 511];
}

static void ahead(void)
{
    enum { MINE = 192, LOOP = 200, TOUCHED = 0x60 }; /* dirty, accessed */
    uint64_t from = UNID_U64(0x600000000000), pages = number(args[2]), found = 0;
    volatile uint64_t *root = direct(boot->page_root);
    for (uint64_t i = 0; i < pages; i++) {
        map(from + i * PAGE);
        *leaf_of(from + i * PAGE) &= ~(uint64_t)TOUCHED;
    }
    if (is(args[3], "loop")) {
        root[LOOP] = boot->page_root | PTE_TABLE;
    }
    if (is(args[3], "odd")) { /* entries of level 2, 3 and 4 are the same for all */
        direct(direct(root[MINE] & PTE_ADDR)[0] & PTE_ADDR)[0] &= ~UNID_U64(2);
    }
    take_request();
    for (uint64_t i = 0; i < pages; i++) {
        found += (*leaf_of(from + i * PAGE) & TOUCHED) == (i & 1 ? TOUCHED : TOUCHED & ~0x40);
    }
    for (int i = 1; i < 256; i++) {
        must(i == MINE || i == LOOP || root[i] == 0, "an entry of the root is not its own");
    }
    for (uint64_t i = 0; i < pages; i++) {
        volatile uint64_t *page = (volatile uint64_t *)(from + i * PAGE);
        must(*page == 0, "a page is not as it was");
        if (is(args[3], "odd")) {
            *leaf_of(from + i * PAGE) |= TOUCHED;
        } else if (i & 1) {
            *page = i;
        }
    }
    if (is(args[3], "low")) {
        found = 0;
        for (uint64_t i = 8; i < UNID_BOOT_ADDR / PAGE; i++) { /* behind the host's first program */
            map(from + (pages + i) * PAGE);
            *leaf_of(from + (pages + i) * PAGE) = i * PAGE | PTE_DATA;
            for (uint64_t word = 0; word < PAGE / 8; word++) {
                found += ((volatile uint64_t *)(from + (pages + i) * PAGE))[word] != 0;
            }
        }
    }
    *put_number(answer, found) = '\0';
    done(answer, 0);
}

static void ask_to_fill(uint64_t piece)
{
    *(volatile uint64_t *)(boot->doorbell_addr + UNID_FILL_OFFSET) = piece;
}

static void fill(void)
{
    uint64_t end = boot->heap_end & ~(UNID_PIECE_SIZE - 1), pieces = number(args[2]);
    const uint64_t none[] = {
        0, UNID_BOOT_ADDR, end - PAGE, boot->memory_end, ~UNID_U64(0), ~(UNID_PIECE_SIZE - 1)};
    must(boot->flags & UNID_BOOT_FILL, "no pieces to be had");
    take_request();
    for (uint64_t i = 1; i <= pieces; i++) {
        ask_to_fill(end - i * UNID_PIECE_SIZE);
        ask_to_fill(none[i % (sizeof(none) / sizeof(none[0]))]);
    }
    for (uint64_t at = end - pieces * UNID_PIECE_SIZE; at < end; at += PAGE) {
        must(*direct(at) == 0, "a piece is not zero");
        if (is(args[3], "write")) {
            *direct(at) = at;
        }
    }
}

static void flush(void)
{
    volatile uint64_t *page = (volatile uint64_t *)UNID_U64(0x700000000000);
    must(boot->flags & UNID_BOOT_FLUSH, "the TLB cannot be flushed");
    take_request();
    map((uint64_t)page);
    for (uint64_t i = 1; i <= 100; i++) {
        uint64_t other = frame();
        *direct(other) = i;
        must(*page == i - 1, "another page than was mapped");
        *leaf_of((uint64_t)page) = other | PTE_DATA;
        *(volatile uint64_t *)(boot->doorbell_addr + UNID_FLUSH_OFFSET) = i;
        must(*page == i, "the TLB was not flushed");
    }
}

/* --- what the host is asked for --------------------------------------------------------------- */

static void talk(void)
{
    enum { EAGAIN = 11, EBADF = 9, ECONNREFUSED = 111 };
    volatile struct unid_call *c = call_block();
    take_request();
    must(net(UNID_OP_NET_RESOLVE, 0, "refused.example", 15) == -ECONNREFUSED, "RESOLVE refused");
    must(net(UNID_OP_NET_RESOLVE, 0, "good.example", 12) == 0, "RESOLVE");
    int32_t h = net(UNID_OP_NET_OPEN, 0, "good.example:80", 15);
    must(h == 5, "OPEN");
    must(net(UNID_OP_NET_RECV, 5, 0, 100) == -EAGAIN, "RECV before anything came");
    must(c->net_writable == 0, "writable before it is");
    while (!(c->net_writable & 1u << 5)) {
        wait_for(UNID_U64(10000000000));
    }
    must(net(UNID_OP_NET_SEND, 5, "ping", 4) == 4, "SEND");
    must(net(UNID_OP_NET_SHUT, 5, 0, 0) == 0, "SHUT");
    while (!(c->net_readable & 1u << 5)) {
        wait_for(UNID_U64(10000000000));
    }
    must(net(UNID_OP_NET_RECV, 5, 0, 100) == 4, "RECV");
    must(equal((const char *)UNID_NET_ADDR, "pong", 4), "what came");
    must(net(UNID_OP_NET_RECV, 5, 0, UNID_NET_SIZE) == 0, "RECV at the end");
    must(net(UNID_OP_NET_CLOSE, 5, 0, 0) == 0, "CLOSE");
    must(net(UNID_OP_NET_CLOSE, 6, 0, 0) == -EBADF, "CLOSE of nothing");
}

static void early(void)
{
    enum { ENETUNREACH = 101, ENOSYS = 38 };
    if (!(boot->flags & UNID_BOOT_REQUEST_READY)) {
        wait_for(1000000);
        must(net(UNID_OP_NET_RESOLVE, 0, "good.example", 12) == -ENETUNREACH, "RESOLVE too early");
        must(net(UNID_OP_NET_OPEN, 0, "good.example:1", 14) == -ENETUNREACH, "OPEN too early");
    }
    take_request();
    wait_for(1000000);
    must(net(UNID_OP_NET_OPEN, 0, "good.example:1", 14) == -ENOSYS, "OPEN that nobody answers");
}

static void count(void)
{
    struct unid_report *r = (struct unid_report *)UNID_REPORT_ADDR;
    take_request();
    r->calls = 1234;
    r->unsupported_count = (uint32_t)number(args[2]); /* may be a lie */
    r->unsupported[0].number = 57;
    r->unsupported[0].times = 3;
}

static void execute(unsigned char first, unsigned char second)
{
    uint64_t at = UNID_U64(0x600000000000);
    map(at);
    take_request();
    ((volatile unsigned char *)at)[0x123] = first;
    ((volatile unsigned char *)at)[0x124] = second;
    __asm__ volatile("jmp *%0" ::"r"(at + 0x123), "a"(39) : "memory");
}

/* What stands there, if anything, is nobody's but this guest's. */
static void physical(void)
{
    uint64_t at = UNID_U64(0x600000000000), table = boot->page_root;
    map(at);
    for (int shift = 39; shift > 12; shift -= 9) {
        table = direct(table)[at >> shift & 511] & PTE_ADDR;
    }
    direct(table)[(at >> 12 & 511) + 1] = number(args[2]) | PTE_DATA;
    take_request();
    uint64_t word = *(volatile uint64_t *)(at + PAGE);
    __asm__ volatile("jmp *%0" ::"r"(at + PAGE), "a"(word) : "memory");
}

static uint64_t any(void)
{
    static uint64_t state;
    state = (state ? state : number(args[2]) + 1) * UNID_U64(6364136223846793005) + 1442695;
    return state >> 11 ^ state << 31;
}

static void scribble(void)
{
    uint64_t from = UNID_U64(0x600000000000), tables = boot->page_root;
    for (uint64_t i = 0; i < 64; i++) {
        map(from + (i << 21));
    }
    take_request();
    for (int i = 0; i < 20000; i++) {
        uint64_t addr = any() & 255 ? from + ((any() & 63) << 21) : any() & ~UNID_U64(7);
        uint64_t table =
            any() & 3 ? boot->heap_start + (any() % 70) * PAGE : tables + (any() & 7) * PAGE;
        uint64_t entry = any() & 1 ? any() % boot->memory_end : any();
        if (table < boot->memory_end && (any() & 15) == 0) {
            direct(table)[any() & 511] = (entry & ~UNID_U64(0xfff)) | (any() & 0xff);
        } else if ((any() & 255) == 0) {
            __asm__ volatile("call *%0" ::"r"(addr) : "memory", "rax");
        } else if ((int64_t)(addr << 16) >> 16 == (int64_t)addr) {
            *(volatile uint64_t *)addr = any();
        }
    }
}

static void cpuid(void)
{
    static const char digits[] = "0123456789abcdef";
    uint32_t r[4];
    take_request();
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"((uint32_t)number(args[2])), "c"(0));
    for (int i = 0; i < 4; i++) {
        for (int n = 0; n < 8; n++) {
            answer[i * 9 + n] = digits[r[i] >> (28 - 4 * n) & 15];
        }
        answer[i * 9 + 8] = i < 3 ? ' ' : '\0';
    }
    done(answer, 0);
}

static uint64_t now_ns(void)
{
    return __builtin_ia32_rdtsc() * 1000 / (boot->tsc_hz / 1000000);
}

static void cost(void)
{
    uint64_t from = UNID_U64(0x600000000000), pages = number(args[2]), at[4];
    take_request();
    at[0] = now_ns();
    for (uint64_t i = 0; i < pages; i++) {
        map(from + i * PAGE);
    }
    at[1] = now_ns();
    for (uint64_t i = 0; i < pages; i++) {
        *(volatile uint64_t *)(from + i * PAGE) = 1;
    }
    at[2] = now_ns();
    for (uint64_t i = 0; i < pages; i++) {
        *direct(frame()) = 1;
    }
    at[3] = now_ns();
    char *to = answer;
    for (int i = 0; i < 3; i++) {
        to = put_number(to, (at[i + 1] - at[i]) / pages);
        *to++ = i < 2 ? ' ' : '\0';
    }
    done(answer, 0);
}

void start(const struct unid_boot *b)
{
    const char *s = (const char *)UNID_STRINGS_ADDR;
    boot = b;
    next_frame = b->heap_start;
    for (uint32_t i = 0; i < 4; i++) {
        args[i] = i < b->argc ? s : "";
        s += i < b->argc ? length(s) + 1 : 0;
    }
    if (is(args[1], "paging")) {
        paging();
    } else if (is(args[1], "wait")) {
        take_request();
        wait_for(number(args[2]));
    } else if (is(args[1], "net")) {
        talk();
    } else if (is(args[1], "early")) {
        early();
    } else if (is(args[1], "report")) {
        count();
    } else if (is(args[1], "touch")) {
        touch();
    } else if (is(args[1], "ahead")) {
        ahead();
    } else if (is(args[1], "fill")) {
        fill();
    } else if (is(args[1], "flush")) {
        flush();
    } else if (is(args[1], "physical")) {
        physical();
    } else if (is(args[1], "scribble")) {
        scribble();
    } else if (is(args[1], "cost")) {
        cost();
    } else if (is(args[1], "cpuid")) {
        cpuid();
    } else if (is(args[1], "syscall")) {
        execute(0x0f, 0x05);
    } else if (is(args[1], "sysenter")) {
        execute(0x0f, 0x34);
    } else if (is(args[1], "int80")) {
        execute(0xcd, 0x80);
    } else {
        take_request();
        done("unknown argument", 1);
    }
    done("ok", 0);
}
