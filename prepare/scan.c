/* scan.c - see scan.h. Opcodes: Intel SDM volume 2, SYSCALL 0F 05, SYSENTER 0F 34, INT 80h CD 80. */
#include "prepare/scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Instructions looked at in front of a site for the call's number. */
enum { NUMBER_WITHIN = 16 };

/* In code without known functions: this far around a place all must decode. */
enum { NEIGHBOURHOOD = 64 };

static bool kind_of(const uint8_t *p, enum scan_kind *ret)
{
    if (p[0] == 0x0f && p[1] == 0x05) {
        *ret = SCAN_SYSCALL;
    } else if (p[0] == 0x0f && p[1] == 0x34) {
        *ret = SCAN_SYSENTER;
    } else if (p[0] == 0xcd && p[1] == 0x80) {
        *ret = SCAN_INT80;
    } else {
        return false;
    }
    return true;
}

static void decoder_init(ZydisDecoder *d)
{
    ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

bool scan_decode(const struct code *c, uint64_t addr, struct scan_instruction *ret)
{
    const struct code_range *r = code_range_of(c, addr);
    ZydisDecoder d;
    if (!r) {
        return false;
    }
    decoder_init(&d);
    ret->addr = addr;
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, code_at(c, r, addr), (ZyanUSize)(r->end - addr),
                                               &ret->info, ret->operands));
}

bool scan_ends_flow(const ZydisDecodedInstruction *info)
{
    switch (info->meta.category) {
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_RET:
        return true;
    default:
        return info->mnemonic == ZYDIS_MNEMONIC_UD2 || info->mnemonic == ZYDIS_MNEMONIC_HLT ||
               info->mnemonic == ZYDIS_MNEMONIC_INT3;
    }
}

/* --- the sweep -------------------------------------------------------------------------------- */

/* Notes where an instruction leads to, and what address it computes. `sure`: it is no data. */
static void note_instruction(struct code *c, uint64_t addr, const ZydisDecodedInstruction *info,
                             bool sure)
{
    uint64_t next = addr + info->length;
    for (int i = 0; i < 2; i++) {
        if (info->raw.imm[i].size == 0) {
            continue;
        }
        if (info->raw.imm[i].is_relative) {
            uint64_t to = next + (uint64_t)info->raw.imm[i].value.s;
            code_add_target(c, to);
            if (sure) {
                code_add_root(c, to);
            }
        } else if (info->raw.imm[i].size >= 32) {
            code_add_target(c, info->raw.imm[i].value.u); /* an address, perhaps */
        }
    }
    bool rip_relative = (info->attributes & ZYDIS_ATTRIB_HAS_MODRM) && info->raw.modrm.mod == 0 &&
                        info->raw.modrm.rm == 5;
    if (rip_relative && info->mnemonic == ZYDIS_MNEMONIC_LEA) {
        uint64_t to = next + (uint64_t)info->raw.disp.value;
        code_add_target(c, to);
        code_add_table(c, to);
    }
}

/* Decodes [from, to) of a range; `to` is where the next function starts, or the range's end. Up to
 * `covered` a function is known. */
static void sweep_region(struct code *c, const ZydisDecoder *d, const struct code_range *r,
                         uint64_t from, uint64_t to, uint64_t covered)
{
    bool clean = true, falls_through = false;
    while (from < to) {
        ZydisDecodedInstruction info;
        ZydisDecoderContext context;
        size_t bit = code_index(r, from);
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(d, &context, code_at(c, r, from),
                                                        (ZyanUSize)(r->end - from), &info))) {
            code_set(c->bad, bit);
            clean = false;
            from++;
            continue;
        }
        if (info.length > to - from) {
            code_set(c->bad, bit);
            return;
        }
        code_set(c->starts, bit);
        if (from == covered && clean && falls_through) {
            code_add_root(c, from); /* the unwind table pauses, the function does not */
        }
        note_instruction(c, from, &info, clean && from < covered);
        falls_through = !scan_ends_flow(&info) && info.meta.category != ZYDIS_CATEGORY_CALL;
        from += info.length;
    }
}

static void sweep(struct code *c)
{
    ZydisDecoder d;
    size_t f = 0;
    decoder_init(&d);
    for (size_t i = 0; i < c->range_count; i++) {
        const struct code_range *r = &c->ranges[i];
        uint64_t from = r->start;
        while (from < r->end) {
            while (f < c->function_count && c->functions[f].start <= from) {
                f++;
            }
            bool inside = f < c->function_count && c->functions[f].start < r->end;
            uint64_t to = inside ? c->functions[f].start : r->end;
            bool known = f > 0 && c->functions[f - 1].start == from;
            sweep_region(c, &d, r, from, to, known ? c->functions[f - 1].end : from);
            from = to;
        }
    }
}

/* Follows one way through code that no function covers, until it ends or meets another. */
static void follow(struct code *c, const ZydisDecoder *d, uint64_t addr)
{
    const struct code_range *r = code_range_of(c, addr);
    const struct code_function *f = code_function_before(c, addr);
    size_t next = f ? (size_t)(f - c->functions) + 1 : 0;
    uint64_t end = r->end;
    if (next < c->function_count && c->functions[next].start < end) {
        end = c->functions[next].start;
    }
    while (addr < end && !code_bit(c->reached, code_index(r, addr))) {
        ZydisDecodedInstruction info;
        ZydisDecoderContext context;
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(d, &context, code_at(c, r, addr),
                                                        (ZyanUSize)(end - addr), &info))) {
            return;
        }
        code_set(c->reached, code_index(r, addr));
        note_instruction(c, addr, &info, true);
        if (scan_ends_flow(&info)) {
            return;
        }
        addr += info.length;
    }
}

static void follow_roots(struct code *c)
{
    ZydisDecoder d;
    decoder_init(&d);
    while (c->root_count > 0) {
        follow(c, &d, c->roots[--c->root_count]);
    }
}

/* --- jump tables ------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Tables of 4-byte offsets from their own start, as compilers write them for position-independent
 * code: read from each address that the code computes up to the next, or the first offset that
 * leads out of the code. */
static void read_jump_tables(struct code *c)
{
    if (c->table_count == 0) {
        return;
    }
    qsort(c->tables, c->table_count, sizeof c->tables[0], by_value);
    for (size_t i = 0; i < c->table_count; i++) {
        uint64_t at, base = c->tables[i], addr = base;
        while (un_elf_offset(&c->elf, addr, 4, &at)) {
            int32_t entry;
            memcpy(&entry, c->data + at, 4);
            uint64_t to = base + (uint64_t)(int64_t)entry;
            if (!code_range_of(c, to)) {
                break;
            }
            code_add_target(c, to);
            addr += 4;
            if (i + 1 < c->table_count && addr >= c->tables[i + 1]) {
                break;
            }
        }
    }
}

/* --- judging ---------------------------------------------------------------------------------- */

enum verdict { IS_INSTRUCTION, IS_OTHER, IS_DOUBTFUL };

/* Whether decoding from `from` arrives at `addr`. */
static bool runs_to(const struct code *c, const struct code_range *r, uint64_t from, uint64_t addr)
{
    return !code_any(c->bad, r, from, addr) && code_bit(c->starts, code_index(r, from)) &&
           code_bit(c->starts, code_index(r, addr));
}

/* Whether all of the code within NEIGHBOURHOOD of a place decodes. */
static bool is_clean_around(const struct code *c, const struct code_range *r, uint64_t addr)
{
    uint64_t from = addr - r->start > NEIGHBOURHOOD ? addr - NEIGHBOURHOOD : r->start;
    uint64_t to = r->end - addr > NEIGHBOURHOOD ? addr + NEIGHBOURHOOD : r->end;
    return !code_any(c->bad, r, from, to);
}

/* Code that no function covers, in a range where functions are known: [gap, end). That is
 * alignment, or code without unwind tables, or data. Surely code is what known code leads to; very
 * likely, when all of it decodes and somebody refers to it. Constants do not decode for long. */
static enum verdict judge_gap(const struct code *c, const struct code_range *r, uint64_t gap,
                              uint64_t end, uint64_t addr)
{
    if (code_bit(c->reached, code_index(r, addr))) {
        return IS_INSTRUCTION;
    }
    if (!code_bit(c->starts, code_index(r, addr))) {
        return IS_OTHER;
    }
    if (!code_any(c->bad, r, gap, end)) {
        return code_any(c->targets, r, gap, addr + 1) ? IS_INSTRUCTION : IS_DOUBTFUL;
    }
    return is_clean_around(c, r, addr) ? IS_DOUBTFUL : IS_OTHER;
}

static enum verdict judge(const struct code *c, const struct code_range *r, uint64_t addr)
{
    const struct code_function *f = code_function_before(c, addr);
    bool instruction = code_bit(c->starts, code_index(r, addr));
    if (f && f->start >= r->start && addr < f->end) {
        if (runs_to(c, r, f->start, addr)) {
            return IS_INSTRUCTION;
        }
        return code_any(c->bad, r, f->start, addr) ? IS_DOUBTFUL : IS_OTHER;
    }
    if (r->has_functions) {
        uint64_t gap = f && f->start >= r->start ? f->end : r->start;
        size_t next = f ? (size_t)(f - c->functions) + 1 : 0;
        bool inside = next < c->function_count && c->functions[next].start < r->end;
        return judge_gap(c, r, gap, inside ? c->functions[next].start : r->end, addr);
    }
    if (!is_clean_around(c, r, addr)) {
        return IS_DOUBTFUL;
    }
    return instruction ? IS_INSTRUCTION : IS_OTHER;
}

/* --- the number of a call --------------------------------------------------------------------- */

bool scan_before(const struct code *c, uint64_t addr, uint64_t *ret)
{
    const struct code_range *r = code_range_of(c, addr);
    const struct code_function *f = addr > 0 ? code_function_before(c, addr - 1) : NULL;
    if (!r) {
        return false;
    }
    uint64_t least = f && f->start > r->start ? f->start : r->start;
    for (uint64_t at = addr; at > least && addr - at < ZYDIS_MAX_INSTRUCTION_LENGTH;) {
        at--;
        struct scan_instruction in;
        if (code_bit(c->bad, code_index(r, at))) {
            return false;
        }
        if (code_bit(c->starts, code_index(r, at))) {
            *ret = at;
            return scan_decode(c, at, &in) && at + in.info.length == addr;
        }
    }
    return false;
}

/* What an instruction leaves in eax: 1 a constant, 0 it does not write it, -1 something. */
static int eax_after(const struct scan_instruction *in, int32_t *ret)
{
    for (unsigned i = 0; i < in->info.operand_count; i++) {
        const ZydisDecodedOperand *o = &in->operands[i];
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
            !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) ||
            ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, o->reg.value) !=
                ZYDIS_REGISTER_RAX) {
            continue;
        }
        bool whole = o->reg.value == ZYDIS_REGISTER_EAX || o->reg.value == ZYDIS_REGISTER_RAX;
        if (whole && in->info.mnemonic == ZYDIS_MNEMONIC_MOV &&
            in->operands[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
            *ret = (int32_t)in->operands[1].imm.value.s;
            return 1;
        }
        if (whole && in->info.mnemonic == ZYDIS_MNEMONIC_XOR &&
            in->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            in->operands[1].reg.value == o->reg.value) {
            *ret = 0;
            return 1;
        }
        return -1;
    }
    return in->info.meta.category == ZYDIS_CATEGORY_CALL ? -1 : 0;
}

static int32_t find_number(const struct code *c, uint64_t addr)
{
    for (int i = 0; i < NUMBER_WITHIN && scan_before(c, addr, &addr); i++) {
        struct scan_instruction in;
        int32_t number;
        if (!scan_decode(c, addr, &in) || scan_ends_flow(&in.info)) {
            return -1;
        }
        int known = eax_after(&in, &number);
        if (known != 0) {
            return known > 0 ? number : -1;
        }
    }
    return -1;
}

/* --- all together ----------------------------------------------------------------------------- */

static bool add_site(struct scan *s, const struct scan_site *site)
{
    if (s->site_count == s->site_room) {
        size_t room = s->site_room ? 2 * s->site_room : 64;
        struct scan_site *more = reallocarray(s->sites, room, sizeof *more);
        if (!more) {
            return false;
        }
        s->sites = more;
        s->site_room = room;
    }
    s->sites[s->site_count++] = *site;
    return true;
}

static int judge_range(struct scan *s, const struct code_range *r, struct un_error *err)
{
    const struct code *c = &s->code;
    for (uint64_t addr = r->start; addr + 1 < r->end; addr++) {
        struct scan_site site = {.addr = addr, .number = -1};
        if (!kind_of(code_at(c, r, addr), &site.kind)) {
            continue;
        }
        enum verdict v = judge(c, r, addr);
        if (v == IS_OTHER) {
            s->other++;
            continue;
        }
        site.doubtful = v == IS_DOUBTFUL;
        if (!site.doubtful) {
            site.number = find_number(c, addr);
        }
        if (!add_site(s, &site)) {
            return un_error_set(err, -ENOMEM, "out of memory");
        }
    }
    return 0;
}

int scan_init(struct scan *s, const uint8_t *data, size_t size, struct un_error *err)
{
    *s = (struct scan){0};
    int rc = code_init(&s->code, data, size, err);
    if (rc < 0 || s->code.range_count == 0) {
        return rc;
    }
    sweep(&s->code);
    follow_roots(&s->code);
    read_jump_tables(&s->code);
    if (s->code.out_of_memory) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    for (size_t i = 0; rc == 0 && i < s->code.range_count; i++) {
        rc = judge_range(s, &s->code.ranges[i], err);
    }
    return rc;
}

void scan_done(struct scan *s)
{
    code_done(&s->code);
    free(s->sites);
    *s = (struct scan){0};
}
