/* code.h - an ELF file's code, as the scanner and the rewriter of prepare/ share it.
 *
 * Addresses are those of the ELF file itself (before a load bias). All of this is worked out from
 * untrusted bytes: what section headers, symbols and unwind tables say is only believed where it
 * lies inside the file's executable segments.
 */
#ifndef UNID_PREPARE_CODE_H
#define UNID_PREPARE_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/elf.h"
#include "common/error.h"

/* A stretch of executable bytes: a section where the file has section headers, else a segment. */
struct code_range {
    uint64_t start, end; /* addresses */
    uint64_t offset;     /* in the file */
    size_t first_bit;    /* of `start` in the bitmaps */
    bool has_functions;  /* some function is known to lie here */
};

/* A function that a symbol or an unwind table tells of; end == start when only its start is known.
 */
struct code_function {
    uint64_t start, end;
};

struct code {
    const uint8_t *data; /* the file; borrowed */
    size_t size;
    struct un_elf elf;
    struct code_range *ranges; /* by address, disjoint */
    size_t range_count;
    struct code_function *functions; /* by address, one for each start, the longest */
    size_t function_count, function_room;
    /* One bit for each byte of the ranges. */
    size_t bit_count;
    uint64_t *starts;  /* an instruction starts here, says the sweep */
    uint64_t *bad;     /* no instruction could be decoded here, or it ran into a function's start */
    uint64_t *targets; /* somebody may jump here */
    uint64_t *reached; /* outside of functions: an instruction that known code leads to */
    uint64_t *roots;   /* addresses to follow for that */
    size_t root_count, root_room;
    /* Addresses of data that the code computes: where jump tables start. */
    uint64_t *tables;
    size_t table_count, table_room;
    uint64_t *flow;  /* instructions that control may come to, once flow.c has looked */
    uint64_t *fresh; /* targets that were added since flow.c began */
    size_t fresh_count, fresh_room;
    bool out_of_memory; /* sticky, for the adders */
};

/* Fills the ranges, the functions and the targets that tables of the file tell of. -EINVAL, -ENOTSUP
 * (as un_elf_parse_library), -ENOMEM. Release with code_done in any case. */
int code_init(struct code *c, const uint8_t *data, size_t size, struct un_error *err);
void code_done(struct code *c);

/* The range that holds `addr`, or NULL. */
const struct code_range *code_range_of(const struct code *c, uint64_t addr);
/* The bytes at an address of a range. */
static inline const uint8_t *code_at(const struct code *c, const struct code_range *r,
                                     uint64_t addr)
{
    return c->data + r->offset + (addr - r->start);
}
/* The function whose start is the nearest at or below `addr`, or NULL. */
const struct code_function *code_function_before(const struct code *c, uint64_t addr);

static inline bool code_bit(const uint64_t *bits, size_t at)
{
    return bits[at / 64] >> (at % 64) & 1;
}
static inline void code_set(uint64_t *bits, size_t at)
{
    bits[at / 64] |= UINT64_C(1) << (at % 64);
}
static inline size_t code_index(const struct code_range *r, uint64_t addr)
{
    return r->first_bit + (size_t)(addr - r->start);
}
bool code_is_target(const struct code *c, uint64_t addr);
/* Whether any of [from, to) has its bit set; both in one range. */
bool code_any(const uint64_t *bits, const struct code_range *r, uint64_t from, uint64_t to);

/* For those who find them: ignored when `addr` is in no range. */
void code_add_target(struct code *c, uint64_t addr);
void code_add_function(struct code *c, uint64_t start, uint64_t end);
void code_add_table(struct code *c, uint64_t addr);
/* A target that is surely code: ignored when a function covers it. */
void code_add_root(struct code *c, uint64_t addr);

/* pointers.c: targets that the file's data names. Needs the ranges. */
void code_read_pointers(struct code *c);

/* frames.c: functions and landing pads of .eh_frame at [offset, offset + size), address `vaddr`. */
void code_read_frames(struct code *c, uint64_t vaddr, uint64_t offset, uint64_t size);

/* gotable.c: functions of Go's own table at [offset, offset + size) of the file. */
void code_read_go_table(struct code *c, uint64_t offset, uint64_t size);

#endif
