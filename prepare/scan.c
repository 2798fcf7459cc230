/* scan.c - see scan.h. Opcodes: Intel SDM volume 2, SYSCALL 0F 05, SYSENTER 0F 34, INT 80h CD 80. */
#include "prepare/scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "prepare/flow.h"

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

bool scan_decode(const struct code *c, uint64_t addr, struct scan_instruction *ret)
{
    const struct code_range *r = code_range_of(c, addr);
    ZydisDecoder d;
    if (!r) {
        return false;
    }
    flow_decoder(&d);
    ret->addr = addr;
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, code_at(c, r, addr), (ZyanUSize)(r->end - addr),
                                               &ret->info, ret->operands));
}

/* --- the sweep -------------------------------------------------------------------------------- */

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
        flow_note(c, from, &info, clean && from < covered);
        falls_through = !flow_ends(&info) && info.meta.category != ZYDIS_CATEGORY_CALL;
        from += info.length;
    }
}

static void sweep(struct code *c)
{
    ZydisDecoder d;
    size_t f = 0;
    flow_decoder(&d);
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

/* --- judging ---------------------------------------------------------------------------------- */

/* Astray: what stands in front did not decode, or nobody refers to it, so that it may be data. */
enum verdict { IS_INSTRUCTION, IS_OTHER, IS_ASTRAY, IS_DOUBTFUL };

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

/* Whether code would go on from `addr` into what begins at `end`; a function does not. */
static bool runs_out(const struct code *c, uint64_t addr, uint64_t end)
{
    struct scan_instruction in;
    while (addr < end && scan_decode(c, addr, &in) && !flow_ends(&in.info)) {
        addr += in.info.length;
    }
    return addr >= end;
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
        return code_any(c->targets, r, gap, addr + 1)                             ? IS_INSTRUCTION
               : code_any(c->targets, r, addr + 1, end) || runs_out(c, addr, end) ? IS_ASTRAY
                                                                                  : IS_DOUBTFUL;
    }
    return is_clean_around(c, r, addr) ? IS_ASTRAY : IS_OTHER;
}

static enum verdict judge_decoded(const struct code *c, const struct code_range *r, uint64_t addr)
{
    const struct code_function *f = code_function_before(c, addr);
    bool instruction = code_bit(c->starts, code_index(r, addr));
    if (f && f->start >= r->start && addr < f->end) {
        if (runs_to(c, r, f->start, addr)) {
            return IS_INSTRUCTION;
        }
        return code_any(c->bad, r, f->start, addr) ? IS_ASTRAY : IS_OTHER;
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

/* With the ways that control takes, once they are known: where functions are, what it cannot come to
 * is data, however it decodes. (Haskell's compiler puts tables between the parts of a function.) */
static enum verdict judge(const struct code *c, const struct code_range *r, uint64_t addr)
{
    enum verdict v = judge_decoded(c, r, addr);
    bool by_flow = v == IS_ASTRAY || (v == IS_INSTRUCTION && r->has_functions);
    if (by_flow && c->flow && !code_bit(c->flow, code_index(r, addr))) {
        return IS_OTHER;
    }
    return v == IS_ASTRAY ? IS_DOUBTFUL : v;
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
        if (!scan_decode(c, addr, &in) || flow_ends(&in.info)) {
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

static bool has_sites(const struct code *c)
{
    for (size_t i = 0; i < c->range_count; i++) {
        const struct code_range *r = &c->ranges[i];
        for (uint64_t addr = r->start; addr + 1 < r->end; addr++) {
            enum scan_kind kind;
            if (kind_of(code_at(c, r, addr), &kind) && judge(c, r, addr) != IS_OTHER) {
                return true;
            }
        }
    }
    return false;
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
    flow_follow_roots(&s->code);
    flow_read_tables(&s->code);
    if (s->code.out_of_memory) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    if (has_sites(&s->code)) {
        rc = flow_follow_targets(&s->code, err);
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
