/* flow.c - see flow.h. */
#include "prepare/flow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Jump tables lead to code that computes where other jump tables are; so often. */
enum { TABLES_ROUNDS = 16 };

void flow_decoder(ZydisDecoder *ret)
{
    ZydisDecoderInit(ret, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

bool flow_ends(const ZydisDecodedInstruction *info)
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

void flow_note(struct code *c, uint64_t addr, const ZydisDecodedInstruction *info, bool sure)
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
        flow_note(c, addr, &info, true);
        if (flow_ends(&info)) {
            return;
        }
        addr += info.length;
    }
}

void flow_follow_roots(struct code *c)
{
    ZydisDecoder d;
    flow_decoder(&d);
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

/* By address, each once. */
static void sort_tables(struct code *c)
{
    size_t kept = 0;
    qsort(c->tables, c->table_count, sizeof c->tables[0], by_value);
    for (size_t i = 0; i < c->table_count; i++) {
        if (kept == 0 || c->tables[i] != c->tables[kept - 1]) {
            c->tables[kept++] = c->tables[i];
        }
    }
    c->table_count = kept;
}

/* Tables of 4-byte offsets from their own start, as compilers write them for position-independent
 * code: read from each address that the code computes up to the next, or the first offset that
 * leads out of the code. */
void flow_read_tables(struct code *c)
{
    if (c->table_count == 0) {
        return;
    }
    sort_tables(c);
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

/* --- all that control may come to ------------------------------------------------------------- */

static bool decode(const struct code *c, const struct code_range *r, const ZydisDecoder *d,
                   uint64_t addr, ZydisDecodedInstruction *ret)
{
    ZydisDecoderContext context;
    return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(d, &context, code_at(c, r, addr),
                                                      (ZyanUSize)(r->end - addr), ret));
}

/* What is executed from `addr` on, if it is code at all. */
static void flow_from(struct code *c, const ZydisDecoder *d, uint64_t addr)
{
    const struct code_range *r = code_range_of(c, addr);
    ZydisDecodedInstruction info;
    while (addr < r->end && !code_bit(c->flow, code_index(r, addr)) &&
           decode(c, r, d, addr, &info)) {
        code_set(c->flow, code_index(r, addr));
        flow_note(c, addr, &info, false);
        if (flow_ends(&info)) {
            return;
        }
        addr += info.length;
    }
}

static void flow_from_targets(struct code *c, const ZydisDecoder *d)
{
    for (size_t i = 0; i < c->range_count; i++) {
        const struct code_range *r = &c->ranges[i];
        for (uint64_t addr = r->start; addr < r->end; addr++) {
            if (code_bit(c->targets, code_index(r, addr))) {
                flow_from(c, d, addr);
            }
        }
    }
}

int flow_follow_targets(struct code *c, struct un_error *err)
{
    ZydisDecoder d;
    size_t words = c->bit_count / 64 + 1;
    flow_decoder(&d);
    c->flow = calloc(words, 8);
    if (!c->flow) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    flow_from_targets(c, &d);
    for (int round = 0; c->fresh_count > 0; round++) {
        if (round == TABLES_ROUNDS) {
            memset(c->flow, 0xff, words * 8); /* what was not followed may be anywhere */
            break;
        }
        while (c->fresh_count > 0) {
            flow_from(c, &d, c->fresh[--c->fresh_count]);
        }
        flow_read_tables(c);
    }
    return c->out_of_memory ? un_error_set(err, -ENOMEM, "out of memory") : 0;
}
