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

/* Fed in pieces, a file is what it is as a whole; notes far behind its head are found as well. The zeros
 * in between move what follows the first 4096 bytes there. */
static void check_fed(const uint8_t *data, size_t size, size_t zeros)
{
    static const uint8_t nothing[70000];
    struct un_error err = UN_ERROR_INIT;
    struct image_head *h = image_head_new();
    enum image_kind whole = IMAGE_SDK, fed = IMAGE_SDK;
    size_t first = size < 4096 ? size : 4096;
    require(h != NULL && zeros <= sizeof(nothing));
    for (size_t at = 0; at < first; at += 1000) {
        require(image_head_feed(h, data + at, first - at < 1000 ? first - at : 1000) == 0);
    }
    require(image_head_feed(h, nothing, zeros) == 0);
    require(image_head_feed(h, data + first, size - first) == 0);
    int rc = image_head_recognise(h, &fed, &err);
    require(rc == 0 || err.text[0] != '\0');
    if (zeros == 0 && size <= 64 << 10) {
        require(image_recognise(data, size, size, &whole, &err) == rc && (rc < 0 || whole == fed));
    }
    image_head_free(h);
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
        if (rc == 0 && image_needs_loader(kind, data, size)) {
            require(kind == IMAGE_MULTIBOOT1 || kind == IMAGE_MULTIBOOT2 || kind == IMAGE_PVH ||
                    kind == IMAGE_LINUX64);
        }
    }
    check_fed(data, size, 0);
    check_fed(data, size, 70000);
    return 0;
}
