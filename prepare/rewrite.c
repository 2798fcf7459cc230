/* rewrite.c - see rewrite.h.
 *
 * A site. SYSCALL has 2 bytes, a jump that reaches the stubs has 5, so instructions next to it are
 * displaced into the stub: a window of whole instructions around the site becomes
 *
 *     jmp stub; int3...              stub: the window's instructions, where SYSCALL is
 *                                              lea  next(%rip), %rcx
 *                                              jmp  *UNID_SYSCALL_VECTOR
 *                                        next:
 *                                          jmp back behind the window
 *
 * rcx is free: SYSCALL itself would put the return address there. Nothing touches the stack, so a
 * leaf function's red zone is safe; no flags change.
 *
 * A window may start where somebody jumps to, but nobody may jump into it. Never displaced are
 * calls (their return address would be in the stub, where unwinders do not know their way), what
 * follows an instruction that does not pass control on, and instructions that mean something else
 * at another place and cannot be re-encoded (loop, jrcxz).
 *
 * Where no window can be had the site itself becomes a 2-byte jump to a hole close by, alignment
 * behind an instruction that does not pass control on, and that a jump to the stub.
 *
 * Encodings: Intel SDM volume 2.
 */
#include "prepare/rewrite.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "prepare/flow.h"
#include "unid/rootfs.h"

enum {
    JUMP_SIZE = 5,   /* jmp rel32 */
    SHORT_SIZE = 2,  /* jmp rel8, and SYSCALL */
    WINDOW_MAX = 12, /* instructions */
    BACK_MAX = 4,    /* of them in front of the site */
    REACH = 120,     /* bytes that a short jump reaches, with some slack */
    INT3 = 0xcc,
    PAGE = 4096
};

struct job {
    struct scan scan;
    struct rewrite *ret;
    uint8_t *data;
    uint64_t *taken; /* bitmap over the code's bytes: rewritten already */
    bool out_of_memory;
};

/* Instructions that are displaced together: [start, end). */
struct window {
    uint64_t start, end;
    size_t count;
    uint64_t at[WINDOW_MAX];
};

/* --- windows ---------------------------------------------------------------------------------- */

static bool is_rip_relative(const ZydisDecodedInstruction *info)
{
    return (info->attributes & ZYDIS_ATTRIB_HAS_MODRM) && info->raw.modrm.mod == 0 &&
           info->raw.modrm.rm == 5;
}

static bool is_syscall(const ZydisDecodedInstruction *info)
{
    return info->mnemonic == ZYDIS_MNEMONIC_SYSCALL;
}

/* Whether an instruction can stand elsewhere. */
static bool is_movable(const ZydisDecodedInstruction *info)
{
    if (info->meta.category == ZYDIS_CATEGORY_CALL ||
        info->meta.category == ZYDIS_CATEGORY_INTERRUPT) {
        return false;
    }
    if (is_rip_relative(info) && (info->address_width != 64 || info->raw.disp.size != 32)) {
        return false;
    }
    if (!info->raw.imm[0].is_relative) {
        return info->mnemonic != ZYDIS_MNEMONIC_SYSENTER;
    }
    if (info->operand_width == 16) {
        return false;
    }
    if (info->mnemonic == ZYDIS_MNEMONIC_JMP) {
        return true;
    }
    /* Jcc: 70+cc rel8, 0F 80+cc rel32. */
    return info->meta.category == ZYDIS_CATEGORY_COND_BR &&
           ((info->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (info->opcode & 0xf0) == 0x70) ||
            (info->opcode_map == ZYDIS_OPCODE_MAP_0F && (info->opcode & 0xf0) == 0x80));
}

static bool is_taken(const struct job *j, uint64_t from, uint64_t to)
{
    const struct code_range *r = code_range_of(&j->scan.code, from);
    return to > r->end || code_any(j->taken, r, from, to);
}

static void take(struct job *j, uint64_t from, uint64_t to)
{
    const struct code_range *r = code_range_of(&j->scan.code, from);
    for (uint64_t addr = from; addr < to; addr++) {
        code_set(j->taken, code_index(r, addr));
    }
}

/* Whether the site's own instruction is a boundary of the sweep, so that what follows is too. */
static bool next_boundary_known(const struct code *c, uint64_t addr)
{
    const struct code_range *r = code_range_of(c, addr);
    size_t bit = code_index(r, addr);
    return code_bit(c->starts, bit) || code_bit(c->reached, bit);
}

/* Extends the window forward from `start`, over the site, until a jump fits. */
static bool try_window(const struct job *j, uint64_t start, uint64_t site, struct window *ret)
{
    const struct code *c = &j->scan.code;
    struct window w = {.start = start, .end = start};
    while (w.end - w.start < JUMP_SIZE || w.end <= site) {
        struct scan_instruction in;
        if (w.count == WINDOW_MAX || (w.end != start && code_is_target(c, w.end)) ||
            !code_range_of(c, w.end) || !next_boundary_known(c, w.end) ||
            !scan_decode(c, w.end, &in) || !is_movable(&in.info) ||
            is_taken(j, w.end, w.end + in.info.length)) {
            return false;
        }
        w.at[w.count++] = w.end;
        w.end += in.info.length;
        if (flow_ends(&in.info) && (w.end - w.start < JUMP_SIZE || w.end <= site)) {
            return false;
        }
    }
    *ret = w;
    return true;
}

/* The window with the fewest instructions; of those the one that starts nearest to the site. */
static bool find_window(const struct job *j, uint64_t site, struct window *ret)
{
    uint64_t start = site;
    bool found = false;
    for (int back = 0; back <= BACK_MAX; back++) {
        struct window w;
        if (try_window(j, start, site, &w) && (!found || w.count < ret->count)) {
            *ret = w;
            found = true;
        }
        /* Whoever jumps to `start` must not land in the middle. */
        if (code_is_target(&j->scan.code, start) || !scan_before(&j->scan.code, start, &start)) {
            break;
        }
    }
    return found;
}

/* --- stubs ------------------------------------------------------------------------------------ */

static void emit(struct job *j, const void *bytes, size_t len)
{
    if (un_buf_append(&j->ret->stubs, bytes, len) < 0) {
        j->out_of_memory = true;
    }
}

static uint64_t stub_addr(const struct job *j)
{
    return j->ret->stubs_vaddr + j->ret->stubs.len;
}

/* An opcode and the distance from behind it to `to`. False when that is too far. */
static bool emit_relative(struct job *j, const uint8_t *opcode, size_t len, uint64_t to)
{
    int64_t distance = (int64_t)(to - (stub_addr(j) + len + 4));
    int32_t rel = (int32_t)distance;
    if (rel != distance) {
        return false;
    }
    emit(j, opcode, len);
    emit(j, &rel, 4);
    return true;
}

static bool emit_jump(struct job *j, uint64_t to)
{
    return emit_relative(j, (const uint8_t[]){0xe9}, 1, to);
}

static void emit_call_of_library_os(struct job *j)
{
    uint8_t bytes[] = {
        0x48, 0x8d, 0x0d, 7, 0, 0, 0, /* lea 7(%rip), %rcx: behind the jump */
        0xff, 0x24, 0x25, 0, 0, 0, 0  /* jmp *abs32 */
    };
    uint32_t vector = (uint32_t)UNID_SYSCALL_VECTOR;
    memcpy(bytes + sizeof bytes - 4, &vector, 4);
    emit(j, bytes, sizeof bytes);
}

/* An instruction of the program, at its new place. */
static bool emit_displaced(struct job *j, const struct scan_instruction *in)
{
    const ZydisDecodedInstruction *info = &in->info;
    const struct code_range *r = code_range_of(&j->scan.code, in->addr);
    const uint8_t *bytes = code_at(&j->scan.code, r, in->addr);
    uint64_t next = in->addr + info->length;
    if (is_syscall(info)) {
        emit_call_of_library_os(j);
        return true;
    }
    if (info->raw.imm[0].is_relative) {
        uint64_t to = next + (uint64_t)info->raw.imm[0].value.s;
        uint8_t condition = 0x80 | (info->opcode & 0x0f);
        return info->mnemonic == ZYDIS_MNEMONIC_JMP
                   ? emit_jump(j, to)
                   : emit_relative(j, (const uint8_t[]){0x0f, condition}, 2, to);
    }
    uint8_t copy[ZYDIS_MAX_INSTRUCTION_LENGTH];
    memcpy(copy, bytes, info->length);
    if (is_rip_relative(info)) {
        int64_t disp =
            (int64_t)(next + (uint64_t)info->raw.disp.value - (stub_addr(j) + info->length));
        int32_t moved = (int32_t)disp;
        if (moved != disp) {
            return false;
        }
        memcpy(copy + info->raw.disp.offset, &moved, 4);
    }
    emit(j, copy, info->length);
    return true;
}

static bool emit_stub(struct job *j, const struct window *w)
{
    struct scan_instruction in;
    for (size_t i = 0; i < w->count; i++) {
        if (!scan_decode(&j->scan.code, w->at[i], &in) || !emit_displaced(j, &in)) {
            return false;
        }
    }
    return flow_ends(&in.info) || emit_jump(j, w->end);
}

/* --- holes ------------------------------------------------------------------------------------ */

static bool is_padding(const ZydisDecodedInstruction *info)
{
    return info->mnemonic == ZYDIS_MNEMONIC_NOP || info->mnemonic == ZYDIS_MNEMONIC_INT3;
}

/* Whether the code passes control on to `addr`, or may. */
static bool is_fallen_into(const struct code *c, uint64_t addr)
{
    struct scan_instruction in;
    uint64_t before;
    return !scan_before(c, addr, &before) || !scan_decode(c, before, &in) || !flow_ends(&in.info) ||
           in.info.mnemonic == ZYDIS_MNEMONIC_INT3;
}

/* Five bytes of padding at `addr`, where nobody gets to. */
static bool is_hole(const struct job *j, uint64_t addr)
{
    const struct code *c = &j->scan.code;
    uint64_t at = addr;
    if (is_fallen_into(c, addr)) {
        return false;
    }
    while (at < addr + JUMP_SIZE) {
        const struct code_range *r = code_range_of(c, at);
        struct scan_instruction in;
        if (!r || code_is_target(c, at) || !code_bit(c->starts, code_index(r, at)) ||
            !scan_decode(c, at, &in) || !is_padding(&in.info)) {
            return false;
        }
        at += in.info.length;
    }
    return !is_taken(j, addr, addr + JUMP_SIZE);
}

static bool find_hole(const struct job *j, uint64_t site, uint64_t *ret)
{
    const struct code_range *r = code_range_of(&j->scan.code, site);
    uint64_t from = site - r->start > REACH ? site - REACH : r->start;
    uint64_t to = r->end - site > REACH ? site + REACH : r->end;
    for (uint64_t addr = from; addr < to; addr++) {
        if (code_bit(j->scan.code.starts, code_index(r, addr)) && is_hole(j, addr)) {
            *ret = addr;
            return true;
        }
    }
    return false;
}

/* --- the file's bytes ------------------------------------------------------------------------- */

static uint8_t *bytes_at(struct job *j, uint64_t addr)
{
    const struct code_range *r = code_range_of(&j->scan.code, addr);
    return j->data + r->offset + (addr - r->start);
}

static bool put_jump(struct job *j, uint64_t from, uint64_t to)
{
    int64_t distance = (int64_t)(to - (from + JUMP_SIZE));
    int32_t rel = (int32_t)distance;
    uint8_t *p = bytes_at(j, from);
    if (rel != distance) {
        return false;
    }
    p[0] = 0xe9;
    memcpy(p + 1, &rel, 4);
    return true;
}

static bool rewrite_window(struct job *j, const struct window *w)
{
    size_t before = j->ret->stubs.len;
    uint64_t stub = stub_addr(j);
    if (!emit_stub(j, w) || !put_jump(j, w->start, stub)) {
        j->ret->stubs.len = before;
        return false;
    }
    if (!j->out_of_memory) {
        memset(bytes_at(j, w->start) + JUMP_SIZE, INT3, (size_t)(w->end - w->start) - JUMP_SIZE);
    }
    take(j, w->start, w->end);
    return true;
}

static bool rewrite_by_hole(struct job *j, uint64_t site, uint64_t hole)
{
    struct window w = {.start = site, .end = site + SHORT_SIZE, .count = 1, .at = {site}};
    size_t before = j->ret->stubs.len;
    uint64_t stub = stub_addr(j);
    if (!emit_stub(j, &w) || !put_jump(j, hole, stub)) {
        j->ret->stubs.len = before;
        return false;
    }
    uint8_t *p = bytes_at(j, site);
    p[0] = 0xeb;
    p[1] = (uint8_t)(int8_t)((int64_t)hole - (int64_t)(site + SHORT_SIZE));
    take(j, site, site + SHORT_SIZE);
    take(j, hole, hole + JUMP_SIZE);
    j->ret->relayed++;
    return true;
}

/* --- all sites -------------------------------------------------------------------------------- */

static const char *rewrite_site(struct job *j, const struct scan_site *site)
{
    struct window w;
    uint64_t hole;
    if (site->kind == SCAN_SYSENTER) {
        return "sysenter is not offered";
    }
    if (site->kind == SCAN_INT80) {
        return "int 0x80, the 32-bit way of calling, is not offered";
    }
    if (site->doubtful) {
        return "the bytes of a syscall instruction stand where code and data cannot be told apart";
    }
    if (is_taken(j, site->addr, site->addr + SHORT_SIZE)) {
        return NULL; /* in the window of one before */
    }
    if (find_window(j, site->addr, &w) && rewrite_window(j, &w)) {
        return NULL;
    }
    if (find_hole(j, site->addr, &hole) && rewrite_by_hole(j, site->addr, hole)) {
        return NULL;
    }
    return "no room for a jump: the instructions around are jumped to or cannot be moved";
}

static int rewrite_sites(struct job *j, struct un_error *err)
{
    const struct scan *s = &j->scan;
    struct rewrite *rw = j->ret;
    rw->sites = calloc(s->site_count, sizeof *rw->sites);
    j->taken = calloc(s->code.bit_count / 64 + 1, 8);
    if (!rw->sites || !j->taken) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < s->site_count; i++) {
        const struct scan_site *site = &s->sites[i];
        const char *problem = rewrite_site(j, site);
        rw->sites[rw->site_count++] = (struct rewrite_site){
            .addr = site->addr, .kind = site->kind, .number = site->number, .problem = problem};
        if (!problem) {
            rw->rewritten++;
        } else if (site->kind == SCAN_SYSCALL) {
            rw->refused++;
        } else {
            rw->trapping++;
        }
    }
    return j->out_of_memory ? un_error_set(err, -ENOMEM, "out of memory") : 0;
}

int rewrite_elf(uint8_t *data, size_t size, struct rewrite *ret, struct un_error *err)
{
    struct job j = {.ret = ret, .data = data};
    *ret = (struct rewrite){0};
    /* Questions are asked of the file as it was. */
    uint8_t *original = malloc(size ? size : 1);
    if (!original) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    memcpy(original, data, size);
    int rc = scan_init(&j.scan, original, size, err);
    if (rc == 0) {
        ret->executable_stack = j.scan.code.elf.executable_stack;
        ret->stubs_vaddr = (j.scan.code.elf.high + PAGE - 1) & ~(uint64_t)(PAGE - 1);
    }
    if (rc == 0 && j.scan.site_count > 0) {
        rc = rewrite_sites(&j, err);
    }
    if (ret->stubs.len == 0) {
        ret->stubs_vaddr = 0;
    }
    scan_done(&j.scan);
    free(j.taken);
    free(original);
    return rc;
}

void rewrite_done(struct rewrite *rw)
{
    free(rw->sites);
    un_buf_done(&rw->stubs);
    *rw = (struct rewrite){0};
}
