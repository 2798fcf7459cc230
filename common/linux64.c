/* linux64.c - see linux64.h. */
#include "common/linux64.h"

#include <string.h>

/* Programs lie below (Linux, Documentation/arch/x86/x86_64/mm.rst). */
#define KERNEL_HALF 0xffff800000000000u

static const struct un_elf_segment *entered(const struct un_elf *elf)
{
    for (size_t i = 0; elf->is64 && i < elf->segment_count; i++) {
        const struct un_elf_segment *s = &elf->segments[i];
        if (s->executable && elf->entry >= s->paddr && elf->entry - s->paddr < s->file_size) {
            return s;
        }
    }
    return NULL;
}

bool un_linux64_code(const struct un_elf *elf, uint64_t *ret_offset)
{
    const struct un_elf_segment *s = entered(elf);
    if (s) {
        *ret_offset = s->offset + (elf->entry - s->paddr);
    }
    return s != NULL;
}

/* Intel's Software Developer's Manual, volume 2: CMP r/m32, imm32 is 81 /7; 0xbe: a 32-bit offset to rsi. */
static bool asks(const uint8_t *code, size_t len)
{
    static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
    static const uint8_t compare[] = {0x81, 0xbe, 0x02, 0x02, 0, 0, 'H', 'd', 'r', 'S'};
    if (len >= sizeof endbr64 && memcmp(code, endbr64, sizeof endbr64) == 0) {
        code += sizeof endbr64;
        len -= sizeof endbr64;
    }
    return len >= sizeof compare && memcmp(code, compare, sizeof compare) == 0;
}

enum un_linux64 un_linux64_is(const struct un_elf *elf, const void *code, size_t len)
{
    const struct un_elf_segment *s = entered(elf);
    if (!s) {
        return UN_LINUX64_NOT;
    }
    return asks(code, len)           ? UN_LINUX64_ASKS
           : s->vaddr >= KERNEL_HALF ? UN_LINUX64_HIGH
                                     : UN_LINUX64_NOT;
}

enum un_linux64 un_linux64_file(const void *data, size_t len, const struct un_elf *elf)
{
    uint64_t at;
    if (!un_linux64_code(elf, &at) || at > len) {
        return UN_LINUX64_NOT;
    }
    return un_linux64_is(elf, (const uint8_t *)data + at, len - at);
}
