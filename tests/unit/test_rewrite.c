/* test_rewrite.c - the rewriter on generated code: original and rewritten run side by side, natively.
 *
 * A generated function is linked into a small ELF file in memory. It runs at its address with the
 * processor's own SYSCALL, and once more as rewritten, with its stubs behind it and a vector whose
 * handler makes the same call. Registers, flags, the stack with its red zone, and memory must be the
 * same. Only calls without effect are made.
 */
#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "prepare/rewrite.h"
#include "unid/rootfs.h"

#ifndef DT_RELR /* glibc has them since 2.36 */
#define DT_RELRSZ 35
#define DT_RELR   36
#endif

#define CODE_ADDR UINT64_C(0x10000000)
#define DATA_ADDR (CODE_ADDR + 0x10000)

enum {
    TEXT_AT = 0x1000,
    TEXT_MAX = 0x4000,
    DATA_SIZE = 0x1000,
    STACK_SIZE = 4096,
    FILE_MAX = 0x8000,
    ROUNDS = 4000
};

/* --- running ---------------------------------------------------------------------------------- */

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI }; /* then r8 to r15 */

struct state {
    uint64_t regs[16];
    uint64_t flags;
};

struct state run_state __attribute__((used));
uint64_t run_saved_sp __attribute__((used));
uint64_t handler_return __attribute__((used)), handler_calls __attribute__((used));
void run_function(uint64_t function, void *stack_top);
void handler(void);

/* Loads all registers out of run_state, calls the function on the given stack, stores all registers. The
 * handler is what a library OS would be: every register but rax, rcx and r11 stays, and the flags. */
__asm__(".text\n"
        ".globl run_function, handler\n"
        "run_function:\n"
        "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "  mov %rsp, run_saved_sp(%rip)\n"
        "  mov %rsi, %rsp\n"
        "  lea 1f(%rip), %rax; push %rax; push %rdi\n"
        "  pushq run_state+128(%rip); popfq\n"
        "  mov run_state+0(%rip), %rax;  mov run_state+8(%rip), %rcx\n"
        "  mov run_state+16(%rip), %rdx; mov run_state+24(%rip), %rbx\n"
        "  mov run_state+40(%rip), %rbp; mov run_state+48(%rip), %rsi\n"
        "  mov run_state+56(%rip), %rdi; mov run_state+64(%rip), %r8\n"
        "  mov run_state+72(%rip), %r9;  mov run_state+80(%rip), %r10\n"
        "  mov run_state+88(%rip), %r11; mov run_state+96(%rip), %r12\n"
        "  mov run_state+104(%rip), %r13; mov run_state+112(%rip), %r14\n"
        "  mov run_state+120(%rip), %r15\n"
        "  ret\n"
        "1:\n"
        "  mov %rax, run_state+0(%rip);  mov %rcx, run_state+8(%rip)\n"
        "  mov %rdx, run_state+16(%rip); mov %rbx, run_state+24(%rip)\n"
        "  mov %rsp, run_state+32(%rip); mov %rbp, run_state+40(%rip)\n"
        "  mov %rsi, run_state+48(%rip); mov %rdi, run_state+56(%rip)\n"
        "  mov %r8, run_state+64(%rip);  mov %r9, run_state+72(%rip)\n"
        "  mov %r10, run_state+80(%rip); mov %r11, run_state+88(%rip)\n"
        "  mov %r12, run_state+96(%rip); mov %r13, run_state+104(%rip)\n"
        "  mov %r14, run_state+112(%rip); mov %r15, run_state+120(%rip)\n"
        "  mov run_saved_sp(%rip), %rsp\n"
        "  pushfq; popq run_state+128(%rip)\n"
        "  cld\n"
        "  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "  ret\n"
        "handler:\n"
        "  mov %rcx, handler_return(%rip)\n"
        "  syscall\n"
        "  mov handler_calls(%rip), %r11; lea 1(%r11), %r11; mov %r11, handler_calls(%rip)\n"
        "  jmp *handler_return(%rip)\n");

/* --- generating ------------------------------------------------------------------------------- */

static uint64_t seed;

static uint32_t random_below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 20) % n;
}

struct gen {
    uint8_t text[TEXT_MAX];
    size_t len;
    size_t end; /* of the function; padding and data follow */
};

static void put(struct gen *g, const void *bytes, size_t len)
{
    assert_true(g->len + len <= TEXT_MAX);
    memcpy(g->text + g->len, bytes, len);
    g->len += len;
}

#define PUT(g, ...) put(g, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put32(struct gen *g, uint32_t v)
{
    put(g, &v, 4);
}

/* Any register but rax, rcx, rsp and r11. */
static unsigned some_register(void)
{
    static const uint8_t list[] = {2, 3, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15};
    return list[random_below(sizeof(list))];
}

static uint8_t rex(unsigned reg, unsigned rm)
{
    return (uint8_t)(0x48 | (reg >= 8 ? 4 : 0) | (rm >= 8 ? 1 : 0));
}

static uint8_t modrm(unsigned mod, unsigned reg, unsigned rm)
{
    return (uint8_t)(mod << 6 | (reg & 7) << 3 | (rm & 7));
}

/* op reg, data(%rip) */
static void put_rip(struct gen *g, uint8_t opcode, unsigned reg)
{
    uint64_t to = DATA_ADDR + 8 * random_below(DATA_SIZE / 8);
    PUT(g, rex(reg, 0), opcode, modrm(0, reg, 5));
    put32(g, (uint32_t)(to - (CODE_ADDR + TEXT_AT + g->len + 4)));
}

/* op reg, -off(%rsp): the red zone */
static void put_red(struct gen *g, uint8_t opcode, unsigned reg)
{
    PUT(g, rex(reg, 0), opcode, modrm(1, reg, 4), 0x24,
        (uint8_t) - (8 + 8 * (int)random_below(16)));
}

/* One harmless instruction, flags included; never touches rax, rcx, rsp, r11. */
static void put_any(struct gen *g)
{
    unsigned a = some_register(), b = some_register();
    static const uint8_t alu[] = {0x01, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31, 0x39, 0x85, 0x89};
    switch (random_below(13)) {
    case 0:
        PUT(g, rex(a, b), alu[random_below(sizeof(alu))], modrm(3, a, b));
        break;
    case 1:
        put_red(g, 0x89, a);
        break;
    case 2:
        put_red(g, 0x8b, a);
        break;
    case 3:
        put_rip(g, 0x8b, a);
        break;
    case 4:
        put_rip(g, 0x89, a);
        break;
    case 5:
        put_rip(g, 0x8d, a);
        break;
    case 6:
        put_rip(g, 0x03, a);
        break;
    case 7: /* an immediate with the bytes of SYSCALL in it */
        PUT(g, rex(0, a), 0xc7, modrm(3, 0, a), 0x0f, 0x05, 0x0f, 0x05);
        break;
    case 8:
        PUT(g, rex(0, a), 0x83, modrm(3, random_below(8), a), (uint8_t)random_below(256));
        break;
    case 9:
        PUT(g, (uint8_t)(rex(a, b)), 0x0f, (uint8_t)(0x40 + random_below(16)), modrm(3, a, b));
        break;
    case 10:
        PUT(g, 0x90);
        break;
    case 11:
        PUT(g, 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x05);
        break;
    case 12: /* movabs */
        PUT(g, rex(0, a), (uint8_t)(0xb8 + (a & 7)), 1, 0x0f, 0x05, 3, 4, 0x0f, 0x05, 8);
        break;
    }
}

static void put_number(struct gen *g)
{
    static const uint32_t safe[] = {39, 102, 104, 107, 108, 110, 111, 186, 1000, 0xfff, 0x50f};
    uint32_t nr = safe[random_below(sizeof(safe) / 4)];
    switch (random_below(3)) {
    case 0:
        PUT(g, 0x48, 0xc7, 0xc0);
        break; /* mov $nr, %rax */
    case 1:
        PUT(g, 0x31, 0xc0, 0x05);
        break; /* xor %eax, %eax; add $nr, %eax */
    default:
        PUT(g, 0xb8);
        break; /* mov $nr, %eax */
    }
    put32(g, nr);
}

/* Jcc forward, short or near; the place of its distance. */
static size_t put_branch(struct gen *g, bool near_form)
{
    uint8_t condition = (uint8_t)random_below(16);
    if (near_form) {
        PUT(g, 0x0f, (uint8_t)(0x80 + condition), 0, 0, 0, 0);
    } else {
        PUT(g, (uint8_t)(0x70 + condition), 0);
    }
    return g->len;
}

static void land(struct gen *g, size_t behind, bool near_form)
{
    int32_t distance = (int32_t)(g->len - behind);
    if (near_form) {
        memcpy(g->text + behind - 4, &distance, 4);
    } else {
        assert_true(distance < 128);
        g->text[behind - 1] = (uint8_t)distance;
    }
}

/* A site with its neighbours, and branches that may land before it, on it, behind it. */
static void put_site(struct gen *g)
{
    size_t branch[3];
    bool near_form[3], used[3] = {false};
    put_number(g);
    for (int i = 0; i < 3; i++) {
        used[i] = random_below(3) == 0;
        near_form[i] = random_below(2);
        if (used[i]) {
            branch[i] = put_branch(g, near_form[i]);
        }
    }
    for (uint32_t n = random_below(4); n > 0; n--) {
        put_any(g);
    }
    if (used[0] && random_below(2)) {
        land(g, branch[0], near_form[0]);
        used[0] = false;
        if (random_below(2)) {
            put_any(g);
        }
    }
    if (used[1]) {
        land(g, branch[1], near_form[1]); /* on the instruction itself */
    }
    if (random_below(4) == 0) {
        put_number(g);
    }
    PUT(g, 0x0f, 0x05);
    if (used[2]) {
        land(g, branch[2], near_form[2]); /* right behind it */
    }
    if (random_below(2)) {
        PUT(g, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff); /* cmp $-4096, %rax */
        bool form = random_below(2);
        size_t over = put_branch(g, form);
        put_any(g);
        land(g, over, form);
    }
    for (uint32_t n = random_below(3); n > 0; n--) {
        put_any(g);
    }
    if (used[0]) {
        land(g, branch[0], near_form[0]);
    }
    put_any(g);
}

static void generate(struct gen *g)
{
    g->len = 0;
    for (uint32_t i = random_below(6); i > 0; i--) {
        put_any(g);
    }
    for (uint32_t i = 1 + random_below(4); i > 0; i--) {
        put_site(g);
    }
    if (random_below(3) == 0) {
        put_number(g);
        PUT(g, 0x0f, 0x05); /* the last before the return */
    }
    PUT(g, 0xc3);
    g->end = g->len;
    for (uint32_t i = random_below(24); i > 0; i--) {
        PUT(g, random_below(2) ? 0xcc : 0x90);
    }
}

/* --- an ELF file ------------------------------------------------------------------------------ */

static size_t link_file(const struct gen *g, bool symbols, uint8_t *file)
{
    memset(file, 0, FILE_MAX);
    Elf64_Ehdr eh = {.e_type = ET_EXEC,
                     .e_machine = EM_X86_64,
                     .e_version = 1,
                     .e_entry = CODE_ADDR + TEXT_AT,
                     .e_phoff = sizeof(eh),
                     .e_ehsize = sizeof(eh),
                     .e_phentsize = sizeof(Elf64_Phdr),
                     .e_phnum = 2,
                     .e_shentsize = sizeof(Elf64_Shdr)};
    memcpy(eh.e_ident, "\177ELF\2\1\1", 7);
    Elf64_Phdr ph[2] = {{.p_type = PT_LOAD,
                         .p_flags = PF_R | PF_X,
                         .p_offset = TEXT_AT,
                         .p_vaddr = CODE_ADDR + TEXT_AT,
                         .p_filesz = g->len,
                         .p_memsz = g->len},
                        {.p_type = PT_LOAD,
                         .p_flags = PF_R | PF_W,
                         .p_offset = 0x6000,
                         .p_vaddr = DATA_ADDR,
                         .p_memsz = DATA_SIZE}};
    size_t at = TEXT_AT + TEXT_MAX;
    memcpy(file + TEXT_AT, g->text, g->len);
    if (symbols) {
        Elf64_Sym sym[2] = {{0},
                            {.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
                             .st_shndx = 1,
                             .st_value = CODE_ADDR + TEXT_AT,
                             .st_size = g->end}};
        Elf64_Shdr sh[3] = {{0},
                            {.sh_type = SHT_PROGBITS,
                             .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
                             .sh_addr = CODE_ADDR + TEXT_AT,
                             .sh_offset = TEXT_AT,
                             .sh_size = g->len},
                            {.sh_type = SHT_SYMTAB,
                             .sh_offset = at,
                             .sh_size = sizeof(sym),
                             .sh_entsize = sizeof(sym[0])}};
        memcpy(file + at, sym, sizeof(sym));
        memcpy(file + at + sizeof(sym), sh, sizeof(sh));
        eh.e_shoff = at + sizeof(sym);
        eh.e_shnum = 3;
    }
    memcpy(file, &eh, sizeof(eh));
    memcpy(file + sizeof(eh), ph, sizeof(ph));
    return FILE_MAX;
}

/* --- comparing -------------------------------------------------------------------------------- */

struct outcome {
    struct state state;
    uint8_t stack[STACK_SIZE], data[DATA_SIZE];
};

static uint8_t stack[STACK_SIZE] __attribute__((aligned(16)));

static void run(const uint8_t *file, const struct rewrite *rw, size_t text_len, uint64_t start_seed,
                struct outcome *ret)
{
    uint8_t *code = (uint8_t *)(CODE_ADDR + TEXT_AT), *data = (uint8_t *)DATA_ADDR;
    assert_int_equal(mprotect((void *)CODE_ADDR, 0x10000, PROT_READ | PROT_WRITE), 0);
    memcpy(code, file + TEXT_AT, text_len);
    assert_int_equal(mprotect((void *)CODE_ADDR, 0x10000, PROT_READ | PROT_EXEC), 0);
    if (rw) {
        uint8_t *stubs = (uint8_t *)rw->stubs_vaddr;
        assert_int_equal(rw->stubs_vaddr, DATA_ADDR + DATA_SIZE);
        assert_int_equal(mprotect(stubs, 0x4000, PROT_READ | PROT_WRITE), 0);
        memcpy(stubs, rw->stubs.data, rw->stubs.len);
        assert_int_equal(mprotect(stubs, 0x4000, PROT_READ | PROT_EXEC), 0);
    }
    uint64_t before = seed;
    seed = start_seed;
    for (size_t i = 0; i < DATA_SIZE; i++) {
        data[i] = (uint8_t)random_below(256);
    }
    for (size_t i = 0; i < STACK_SIZE; i++) {
        stack[i] = (uint8_t)random_below(256);
    }
    for (int i = 0; i < 16; i++) {
        run_state.regs[i] = (uint64_t)random_below(UINT32_MAX) << 32 | random_below(UINT32_MAX);
    }
    run_state.flags = 0x202 | (random_below(2) ? 0x8d5 : 0);
    seed = before;
    run_function(CODE_ADDR + TEXT_AT, stack + STACK_SIZE - 64);
    ret->state = run_state;
    ret->state.regs[RCX] = ret->state.regs[11] = 0; /* SYSCALL changes them */
    memcpy(ret->stack, stack, STACK_SIZE);
    memcpy(ret->data, data, DATA_SIZE);
}

static int set_up(void **state)
{
    void *code = mmap((void *)CODE_ADDR, 0x20000, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    void *vector = mmap((void *)UNID_SYSCALL_VECTOR, 4096, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (code != (void *)CODE_ADDR || vector != (void *)UNID_SYSCALL_VECTOR) {
        return -1;
    }
    *(uint64_t *)vector = (uint64_t)(uintptr_t)handler;
    return 0;
}

static int tear_down(void **state)
{
    munmap((void *)CODE_ADDR, 0x20000);
    munmap((void *)UNID_SYSCALL_VECTOR, 4096);
    return 0;
}

static void rewritten_code_does_what_the_original_does(void **state)
{
    static struct gen g;
    static uint8_t file[FILE_MAX], rewritten[FILE_MAX];
    static struct outcome one, two;
    size_t sites = 0, refused = 0, relayed = 0;
    seed = 88172645463325252u;
    for (int round = 0; round < ROUNDS; round++) {
        struct rewrite rw;
        struct un_error err = UN_ERROR_INIT;
        uint64_t start = seed;
        generate(&g);
        size_t size = link_file(&g, round % 2, file);
        memcpy(rewritten, file, size);
        assert_int_equal(rewrite_elf(rewritten, size, &rw, &err), 0);
        sites += rw.site_count;
        refused += rw.refused;
        relayed += rw.relayed;
        if (rw.refused == 0) {
            struct scan again;
            assert_int_equal(scan_init(&again, rewritten, size, &err), 0);
            assert_int_equal(again.site_count, 0);
            scan_done(&again);
            run(file, NULL, g.len, start, &one);
            handler_calls = 0;
            run(rewritten, &rw, g.len, start, &two);
            if (memcmp(&one, &two, sizeof(one)) != 0) {
                print_error("round %d differs\n", round);
            }
            assert_memory_equal(&one, &two, sizeof(one));
        }
        rewrite_done(&rw);
    }
    print_message("%zu sites, %zu refused, %zu by way of a hole\n", sites, refused, relayed);
    assert_true(sites > 2 * ROUNDS);
    assert_true(refused * 5 < sites);
    assert_true(relayed > 0);
}

/* --- single cases ----------------------------------------------------------------------------- */

static void rewrite_text(const uint8_t *text, size_t len, bool symbols, uint8_t *file,
                         struct rewrite *rw)
{
    struct gen g = {.len = 0};
    struct un_error err = UN_ERROR_INIT;
    put(&g, text, len);
    g.end = len;
    size_t size = link_file(&g, symbols, file);
    assert_int_equal(rewrite_elf(file, size, rw, &err), 0);
}

static void bytes_inside_other_instructions_stay(void **state)
{
    static uint8_t file[FILE_MAX];
    struct rewrite rw;
    const uint8_t text[] = {0x05, 0x0f, 0x05, 0,    0,                   /* add $0x50f, %eax */
                            0x48, 0x8b, 0x87, 0x0f, 0x05, 0, 0,          /* mov 0x50f(%rdi), %rax */
                            0x48, 0xb8, 0x0f, 0x05, 1,    2, 3, 4, 5, 6, /* movabs */
                            0xb8, 0xcd, 0x80, 0x0f, 0x34,                /* mov $..., %eax */
                            0xc3};
    rewrite_text(text, sizeof(text), true, file, &rw);
    assert_int_equal(rw.site_count, 0);
    assert_memory_equal(file + TEXT_AT, text, sizeof(text));
    rewrite_done(&rw);
}

static void data_behind_a_function_stays(void **state)
{
    static uint8_t file[FILE_MAX];
    struct gen g = {.len = 0};
    struct rewrite rw;
    struct un_error err = UN_ERROR_INIT;
    const uint8_t table[] = {0x06, 0x17, 0x0f, 0x05, 0x06, 0x27, 0x0f, 0x05, 0x62, 0x06};
    PUT(&g, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3);
    g.end = g.len;
    put(&g, table, sizeof(table));
    size_t size = link_file(&g, true, file);
    assert_int_equal(rewrite_elf(file, size, &rw, &err), 0);
    assert_int_equal(rw.rewritten, 1);
    assert_memory_equal(file + TEXT_AT + g.end, table, sizeof(table));
    rewrite_done(&rw);
}

/* Haskell's compiler puts a table in front of each part of a function. */
static void tables_between_the_parts_of_a_function_stay(void **state)
{
    static const struct {
        uint8_t leads, table[2]; /* how the code leads on: jmp to the entry, or to the table too */
        size_t known, refused;
    } cases[] = {{0xeb, {0, 0}, 15, 0}, /* decodes: add %al, (%rax); add %ch, -4(%rax); syscall */
                 {0xeb, {0, 0x06}, 15, 0}, /* does not */
                 {0xeb, {0, 0}, 7, 0},     /* behind what is known of the function */
                 {0xeb, {0, 0x06}, 7, 0},    {0x74, {0x90, 0x06}, 15, 0},
                 {0x74, {0x06, 0x90}, 15, 1}}; /* behind a branch: it may be code */
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static uint8_t file[FILE_MAX];
        struct gen g = {.len = 0};
        struct rewrite rw;
        struct un_error err = UN_ERROR_INIT;
        PUT(&g, 0xb8); /* mov $entry, %eax */
        put(&g, &(uint32_t){CODE_ADDR + TEXT_AT + 14}, 4);
        PUT(&g, cases[i].leads, cases[i].refused ? 1 : 7);
        PUT(&g, cases[i].table[0], cases[i].table[1], 0, 0x68, 0xfc, 0x0f, 0x05, 0xc3);
        g.end = cases[i].known;
        size_t size = link_file(&g, true, file);
        assert_int_equal(rewrite_elf(file, size, &rw, &err), 0);
        assert_int_equal(rw.rewritten, 0);
        assert_int_equal(rw.refused, cases[i].refused);
        assert_memory_equal(file + TEXT_AT, g.text, g.len);
        rewrite_done(&rw);
    }
}

static void a_site_without_room_is_refused_with_its_address(void **state)
{
    static uint8_t file[FILE_MAX];
    struct rewrite rw;
    /* Both neighbours are jumped to, and there is no padding. */
    const uint8_t text[] = {0x31, 0xc0, 0x74, 0x00, 0x0f, 0x05, 0x74, 0xfc, 0x74, 0xfc, 0xc3};
    rewrite_text(text, sizeof(text), true, file, &rw);
    assert_int_equal(rw.site_count, 1);
    assert_int_equal(rw.refused, 1);
    assert_int_equal(rw.sites[0].addr, CODE_ADDR + TEXT_AT + 4);
    assert_non_null(rw.sites[0].problem);
    assert_memory_equal(file + TEXT_AT, text, sizeof(text));
    rewrite_done(&rw);
}

enum pointer { WORD, RELATIVE, PACKED };

/* A file whose data have the address of its one site, as a word or with a relocation; its type is `type`. */
static size_t link_pointer(uint16_t type, enum pointer how, uint8_t *file)
{
    struct gen g = {.len = 0};
    PUT(&g, 0x44, 0x89, 0xc8, 0x0f, 0x05, 0xc3); /* mov %r9d, %eax; syscall; ret */
    g.end = g.len;
    size_t size = link_file(&g, true, file);
    uint64_t site = CODE_ADDR + TEXT_AT + 3;
    Elf64_Ehdr *eh = (Elf64_Ehdr *)file;
    Elf64_Phdr *ph = (Elf64_Phdr *)(eh + 1);
    eh->e_type = type;
    eh->e_phnum = 3;
    ph[1].p_filesz = DATA_SIZE;
    Elf64_Dyn dynamic[] = {{.d_tag = DT_RELA, .d_un.d_val = DATA_ADDR + 0x100},
                           {.d_tag = DT_RELASZ, .d_un.d_val = how == RELATIVE ? 24 : 0},
                           {.d_tag = DT_RELR, .d_un.d_val = DATA_ADDR + 0x200},
                           {.d_tag = DT_RELRSZ, .d_un.d_val = how == PACKED ? 16 : 0},
                           {.d_tag = DT_NULL}};
    ph[2] = (Elf64_Phdr){.p_type = PT_DYNAMIC,
                         .p_flags = PF_R | PF_W,
                         .p_offset = ph[1].p_offset,
                         .p_vaddr = DATA_ADDR,
                         .p_filesz = sizeof(dynamic),
                         .p_memsz = sizeof(dynamic)};
    Elf64_Rela rela = {.r_offset = DATA_ADDR + 0x400,
                       .r_info = ELF64_R_INFO(0, R_X86_64_RELATIVE),
                       .r_addend = (int64_t)site};
    uint64_t relr[] = {DATA_ADDR + 0x2f0, 1 | 1 << 2}; /* the word itself, the second behind it */
    uint8_t *data = file + ph[1].p_offset;
    memcpy(data, dynamic, sizeof(dynamic));
    memcpy(data + 0x100, &rela, how == RELATIVE ? sizeof(rela) : 0);
    memcpy(data + 0x200, relr, sizeof(relr));
    memcpy(data + 0x300, &site, how == RELATIVE ? 0 : sizeof(site));
    return size;
}

static void words_of_a_movable_file_are_addresses_only_with_a_relocation(void **state)
{
    static const struct {
        uint16_t type;
        enum pointer how;
        size_t rewritten;
    } cases[] = {{ET_DYN, WORD, 1}, {ET_DYN, RELATIVE, 0}, {ET_DYN, PACKED, 0}, {ET_EXEC, WORD, 0}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static uint8_t file[FILE_MAX];
        struct rewrite rw;
        struct un_error err = UN_ERROR_INIT;
        size_t size = link_pointer(cases[i].type, cases[i].how, file);
        assert_int_equal(rewrite_elf(file, size, &rw, &err), 0);
        assert_int_equal(rw.site_count, 1);
        assert_int_equal(rw.rewritten, cases[i].rewritten);
        rewrite_done(&rw);
    }
}

static void sysenter_and_int80_are_told_and_stay(void **state)
{
    static uint8_t file[FILE_MAX];
    struct rewrite rw;
    const uint8_t text[] = {0xb8, 1, 0, 0, 0, 0xcd, 0x80, 0x0f, 0x34, 0xc3};
    rewrite_text(text, sizeof(text), true, file, &rw);
    assert_int_equal(rw.site_count, 2);
    assert_int_equal(rw.trapping, 2);
    assert_int_equal(rw.refused, 0);
    assert_int_equal(rw.sites[0].kind, SCAN_INT80);
    assert_int_equal(rw.sites[1].kind, SCAN_SYSENTER);
    assert_memory_equal(file + TEXT_AT, text, sizeof(text));
    rewrite_done(&rw);
}

static void calls_are_not_displaced(void **state)
{
    static uint8_t file[FILE_MAX];
    struct rewrite rw;
    /* call; syscall; call: what returns from the stub would be no place that unwinders know. */
    const uint8_t text[] = {0xe8, 10,   0,    0,    0,    0x0f, 0x05, 0xe8, 3,    0,    0,
                            0,    0xc3, 0x90, 0x90, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc};
    rewrite_text(text, sizeof(text), false, file, &rw);
    assert_int_equal(rw.rewritten, 1);
    assert_int_equal(rw.relayed, 1);
    assert_memory_equal(file + TEXT_AT, text, 5);
    assert_int_equal(file[TEXT_AT + 5], 0xeb);
    assert_memory_equal(file + TEXT_AT + 7, text + 7, 9);
    rewrite_done(&rw);
}

static void indirect_calls_are_not_displaced(void **state)
{
    static uint8_t file[FILE_MAX];
    struct rewrite rw;
    const uint8_t text[] = {0xff, 0xd3, 0x0f, 0x05, 0xff, 0xd3, 0xc3, 0x90, 0x90, 0x90, 0x90};
    rewrite_text(text, sizeof(text), true, file, &rw);
    assert_int_equal(rw.refused, 1);
    assert_memory_equal(file + TEXT_AT, text, sizeof(text));
    rewrite_done(&rw);
}

static void bytes_inside_of_code_that_nobody_refers_to_stay_without_doubt(void **state)
{
    static uint8_t file[FILE_MAX];
    struct gen g = {.len = 0};
    struct rewrite rw;
    struct un_error err = UN_ERROR_INIT;
    PUT(&g, 0xc3);
    g.end = g.len;
    PUT(&g, 0xb8, 0x0f, 0x05, 0, 0, 0xc3); /* mov $0x50f, %eax; ret */
    size_t size = link_file(&g, true, file);
    assert_int_equal(rewrite_elf(file, size, &rw, &err), 0);
    assert_int_equal(rw.site_count, 0);
    rewrite_done(&rw);
    g.len = g.end;
    PUT(&g, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3); /* but an instruction there is in doubt */
    size = link_file(&g, true, file);
    assert_int_equal(rewrite_elf(file, size, &rw, &err), 0);
    assert_int_equal(rw.refused, 1);
    assert_int_equal(file[TEXT_AT + 6], 0x0f);
    rewrite_done(&rw);
}

static void the_number_of_a_call_is_known_where_the_code_says_it(void **state)
{
    static uint8_t file[FILE_MAX];
    struct rewrite rw;
    const uint8_t text[] = {
        0xb8, 57,   0,    0,    0,    0x48, 0x89, 0xf7, 0x0f, 0x05, /* mov $57, %eax; mov */
        0x31, 0xc0, 0x0f, 0x05,                                     /* xor %eax, %eax */
        0x48, 0x89, 0xf8, 0x0f, 0x05, 0x90, 0x90, 0x90, 0xc3};      /* mov %rdi, %rax */
    rewrite_text(text, sizeof(text), true, file, &rw);
    assert_int_equal(rw.site_count, 3);
    assert_int_equal(rw.sites[0].number, 57);
    assert_int_equal(rw.sites[1].number, 0);
    assert_int_equal(rw.sites[2].number, -1);
    rewrite_done(&rw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rewritten_code_does_what_the_original_does, set_up,
                                        tear_down),
        cmocka_unit_test(bytes_inside_other_instructions_stay),
        cmocka_unit_test(data_behind_a_function_stays),
        cmocka_unit_test(tables_between_the_parts_of_a_function_stay),
        cmocka_unit_test(a_site_without_room_is_refused_with_its_address),
        cmocka_unit_test(words_of_a_movable_file_are_addresses_only_with_a_relocation),
        cmocka_unit_test(sysenter_and_int80_are_told_and_stay),
        cmocka_unit_test(calls_are_not_displaced),
        cmocka_unit_test(indirect_calls_are_not_displaced),
        cmocka_unit_test(bytes_inside_of_code_that_nobody_refers_to_stay_without_doubt),
        cmocka_unit_test(the_number_of_a_call_is_known_where_the_code_says_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
