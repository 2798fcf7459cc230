/* fuzz_elf.c - the ELF reader and the recognition of images take any bytes; what the reader accepts
 * keeps its promises. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/elf.h"
#include "imagestore/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int promise)
{
    if (!promise) {
        abort();
    }
}

static void check_promises(const struct un_elf *elf, uint64_t file_size)
{
    require(elf->segment_count > 0 && elf->segment_count <= UN_ELF_SEGMENTS_MAX);
    uint64_t end = 0;
    for (size_t i = 0; i < elf->segment_count; i++) {
        const struct un_elf_segment *s = &elf->segments[i];
        require(s->mem_size > 0 && s->file_size <= s->mem_size);
        require(s->offset <= file_size && s->file_size <= file_size - s->offset);
        require(s->vaddr >= end && s->vaddr + s->mem_size > s->vaddr);
        end = s->vaddr + s->mem_size;
    }
    require(elf->low == elf->segments[0].vaddr && elf->high == end);
    require(elf->entry >= elf->low && elf->entry < elf->high);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct un_elf elf;
    struct un_elf_note note;
    struct un_error err = UN_ERROR_INIT;
    enum image_kind kind;
    /* As it is, and as the head of a longer file. */
    for (uint64_t more = 0; more <= 1 << 20; more += 1 << 20) {
        int rc = un_elf_parse(data, size, size + more, &elf, &err);
        if (rc == 0) {
            check_promises(&elf, size + more);
            if (un_elf_find_note(data, size, &elf, "Xen", 18, &note)) {
                require(note.offset <= size && note.size <= size - note.offset);
            }
        } else {
            require(err.text[0] != '\0');
        }
        err = (struct un_error)UN_ERROR_INIT;
        rc = image_recognise(data, size, size + more, &kind, &err);
        require(rc == 0 || err.text[0] != '\0');
    }
    return 0;
}
