/* gotable.c - functions out of the table that Go's linker writes for tracebacks (see code.h).
 *
 * Go programs have neither unwind tables nor, when stripped, symbols; but this table they cannot do
 * without. Format: golang.org/s/go12symtab, and the header of Go's debug/gosym/pclntab.go for the
 * versions 1.2, 1.16, 1.18 and 1.20: magic, two zeros, the size of an instruction and of a pointer,
 * then words: the number of functions, of files, since 1.18 where the text starts, five offsets of
 * which the last is that of the functions' table. That has {entry, offset} of each function, and the
 * end of the last.
 */
#include "common/bytes.h"
#include "prepare/code.h"

enum { GO_2 = 0xfffffffb, GO_16 = 0xfffffffa, GO_18 = 0xfffffff0, GO_20 = 0xfffffff1 };

struct go_table {
    struct un_reader r; /* of the section */
    uint64_t count, text, functions;
    bool narrow; /* entries of 4 bytes, relative to `text` */
};

static bool read_header(struct go_table *t)
{
    uint32_t magic = un_read_u32le(&t->r);
    un_read_skip(&t->r, 3);
    if (un_read_u8(&t->r) != 8) {
        return false;
    }
    t->count = un_read_u64le(&t->r);
    t->functions = t->r.pos;
    switch (magic) {
    case GO_2:
        return !t->r.failed;
    case GO_16:
        un_read_skip(&t->r, 8 + 4 * 8);
        break;
    case GO_18:
    case GO_20:
        t->narrow = true;
        un_read_skip(&t->r, 8);
        t->text = un_read_u64le(&t->r);
        un_read_skip(&t->r, 4 * 8);
        break;
    default:
        return false;
    }
    t->functions = un_read_u64le(&t->r);
    /* Of a position-independent program the start is filled in by the loader, and not known here. */
    return !t->r.failed && (!t->narrow || t->text != 0);
}

static uint64_t read_entry(struct go_table *t)
{
    return t->narrow ? t->text + un_read_u32le(&t->r) : un_read_u64le(&t->r);
}

void code_read_go_table(struct code *c, uint64_t offset, uint64_t size)
{
    struct go_table t = {.r = un_reader_of(c->data + offset, (size_t)size)};
    if (!read_header(&t)) {
        return;
    }
    un_read_seek(&t.r, t.functions);
    uint64_t start = read_entry(&t);
    for (uint64_t i = 0; i < t.count && !c->out_of_memory; i++) {
        un_read_skip(&t.r, t.narrow ? 4 : 8);
        uint64_t end = read_entry(&t);
        if (t.r.failed || end < start) {
            return;
        }
        code_add_function(c, start, end);
        start = end;
    }
}
