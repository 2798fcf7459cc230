/* frames.c - functions and landing pads out of .eh_frame (see code.h).
 *
 * Format: Linux Standard Base Core 5.0, 10.6 "Exception Frames"; the language-specific data area as
 * GCC writes it (unwind-dw2, .gcc_except_table): encodings, then call sites of {start, length,
 * landing pad, action}. Pointers are read in the encodings that x86-64 tools write: absolute or
 * relative to their place, in 4 or 8 bytes or LEB128; what is encoded otherwise is not believed.
 */
#include <string.h>

#include "common/bytes.h"
#include "prepare/code.h"

enum {
    ENC_ABSPTR = 0x00,
    ENC_ULEB128 = 0x01,
    ENC_UDATA2 = 0x02,
    ENC_UDATA4 = 0x03,
    ENC_UDATA8 = 0x04,
    ENC_SLEB128 = 0x09,
    ENC_SDATA2 = 0x0a,
    ENC_SDATA4 = 0x0b,
    ENC_SDATA8 = 0x0c,
    ENC_PCREL = 0x10,
    ENC_OMIT = 0xff
};

/* A part of the file and the address of the file's first byte as seen from there. */
struct view {
    struct un_reader r;
    uint64_t base; /* address of file offset 0, modulo 2^64 */
};

static uint64_t read_leb128(struct un_reader *r, bool is_signed)
{
    uint64_t value = 0;
    unsigned shift = 0;
    uint8_t byte;
    do {
        byte = un_read_u8(r);
        value |= shift < 64 ? (uint64_t)(byte & 0x7f) << shift : 0;
        shift += 7;
    } while ((byte & 0x80) && !r->failed && shift < 70);
    if (is_signed && (byte & 0x40) && shift < 64) {
        value |= ~UINT64_C(0) << shift;
    }
    return value;
}

static uint64_t read_encoded(struct view *v, uint8_t encoding)
{
    uint64_t place = v->base + v->r.pos, value;
    switch (encoding & 0x0f) {
    case ENC_ABSPTR:
    case ENC_UDATA8:
    case ENC_SDATA8:
        value = un_read_u64le(&v->r);
        break;
    case ENC_ULEB128:
        value = read_leb128(&v->r, false);
        break;
    case ENC_SLEB128:
        value = read_leb128(&v->r, true);
        break;
    case ENC_UDATA2:
        value = un_read_u16le(&v->r);
        break;
    case ENC_SDATA2:
        value = (uint64_t)(int64_t)(int16_t)un_read_u16le(&v->r);
        break;
    case ENC_UDATA4:
        value = un_read_u32le(&v->r);
        break;
    case ENC_SDATA4:
        value = (uint64_t)(int64_t)(int32_t)un_read_u32le(&v->r);
        break;
    default:
        v->r.failed = true;
        return 0;
    }
    switch (encoding & 0x70) {
    case 0:
        return value;
    case ENC_PCREL:
        return value == 0 ? 0 : place + value;
    default:
        v->r.failed = true;
        return 0;
    }
}

/* The landing pads of a function that starts at `start`. */
static void read_landing_pads(struct code *c, uint64_t lsda, uint64_t start)
{
    struct view v;
    uint64_t at;
    if (!un_elf_offset(&c->elf, lsda, 4, &at)) {
        return;
    }
    v.r = un_reader_of(c->data, c->size);
    un_read_seek(&v.r, at);
    v.base = lsda - at;
    uint8_t encoding = un_read_u8(&v.r);
    uint64_t pads = encoding == ENC_OMIT ? start : read_encoded(&v, encoding);
    if (un_read_u8(&v.r) != ENC_OMIT) {
        (void)read_leb128(&v.r, false); /* where the type table ends */
    }
    encoding = un_read_u8(&v.r);
    uint64_t length = read_leb128(&v.r, false), end;
    if (v.r.failed || __builtin_add_overflow(v.r.pos, length, &end) || end > c->size) {
        return;
    }
    v.r.len = (size_t)end;
    while (v.r.pos < v.r.len && !v.r.failed) {
        (void)read_encoded(&v, encoding);
        (void)read_encoded(&v, encoding);
        uint64_t pad = read_encoded(&v, encoding);
        (void)read_leb128(&v.r, false);
        if (pad != 0 && !v.r.failed) {
            code_add_target(c, pads + pad);
        }
    }
}

/* What a CIE says of its FDEs. */
struct common {
    uint8_t address, lsda; /* encodings; lsda ENC_OMIT: there is none */
    bool augmented;
};

static bool read_common(struct view v, struct common *ret)
{
    *ret = (struct common){.address = ENC_ABSPTR, .lsda = ENC_OMIT};
    uint8_t version = un_read_u8(&v.r);
    const char *text = (const char *)v.r.data + v.r.pos;
    size_t len = strnlen(text, v.r.len - v.r.pos);
    un_read_skip(&v.r, len + 1);
    if (v.r.failed || (version != 1 && version != 3) || (len > 0 && text[0] != 'z')) {
        return false;
    }
    (void)read_leb128(&v.r, false);
    (void)read_leb128(&v.r, true);
    (void)(version == 1 ? un_read_u8(&v.r) : read_leb128(&v.r, false));
    ret->augmented = len > 0;
    if (ret->augmented) {
        (void)read_leb128(&v.r, false);
    }
    for (size_t i = 1; i < len; i++) {
        switch (text[i]) {
        case 'R':
            ret->address = un_read_u8(&v.r);
            break;
        case 'L':
            ret->lsda = un_read_u8(&v.r);
            break;
        case 'P': {
            uint8_t encoding = un_read_u8(&v.r);
            (void)read_encoded(&v, encoding & 0x7f);
            break;
        }
        case 'S':
        case 'B':
            break;
        default:
            return false;
        }
    }
    return !v.r.failed;
}

static void read_frame(struct code *c, struct view v, const struct common *common)
{
    uint64_t start = read_encoded(&v, common->address);
    uint64_t length = read_encoded(&v, common->address & 0x0f), end;
    if (v.r.failed || __builtin_add_overflow(start, length, &end)) {
        return;
    }
    code_add_function(c, start, end);
    if (!common->augmented || common->lsda == ENC_OMIT) {
        return;
    }
    (void)read_leb128(&v.r, false);
    uint64_t lsda = read_encoded(&v, common->lsda & 0x7f);
    if (!v.r.failed && lsda != 0) {
        read_landing_pads(c, lsda, start);
    }
}

void code_read_frames(struct code *c, uint64_t vaddr, uint64_t offset, uint64_t size)
{
    struct view v = {.r = un_reader_of(c->data, offset + size), .base = vaddr - offset};
    struct common common = {0};
    uint64_t common_at = UINT64_MAX; /* where the last CIE that was read stands */
    un_read_seek(&v.r, offset);
    while (!v.r.failed && v.r.pos + 4 <= v.r.len) {
        uint32_t length = un_read_u32le(&v.r);
        uint64_t at = v.r.pos;
        if (length == 0 || length == UINT32_MAX || length > v.r.len - at) {
            return;
        }
        struct view entry = v;
        entry.r.len = (size_t)(at + length);
        uint32_t id = un_read_u32le(&entry.r);
        if (id != 0 && id <= at - offset) {
            uint64_t cie = at - id;
            if (cie != common_at) {
                struct view head = v;
                un_read_seek(&head.r, cie);
                uint32_t cie_length = un_read_u32le(&head.r);
                if (cie_length < 8 || cie_length > head.r.len - head.r.pos) {
                    return;
                }
                head.r.len = head.r.pos + cie_length;
                common_at = cie;
                if (un_read_u32le(&head.r) != 0 || !read_common(head, &common)) {
                    common_at = UINT64_MAX;
                }
            }
            if (common_at == cie) {
                read_frame(c, entry, &common);
            }
        }
        un_read_seek(&v.r, at + length);
    }
}
