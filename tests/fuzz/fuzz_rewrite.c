/* fuzz_rewrite.c - the scanner and the rewriter on any bytes that claim to be an ELF file.
 *
 * Whatever the file's own tables say: nothing changes outside of executable segments, every site is
 * told once, in order, and what is refused is as it was.
 */
#include <stdlib.h>
#include <string.h>

#include "common/elf.h"
#include "prepare/rewrite.h"

static void require(int truth)
{
    if (!truth) {
        abort();
    }
}

static void check_bytes(const uint8_t *before, const uint8_t *after, size_t size,
                        const struct un_elf *elf)
{
    for (size_t at = 0; at < size; at++) {
        bool code = false;
        for (size_t i = 0; before[at] != after[at] && i < elf->segment_count; i++) {
            const struct un_elf_segment *s = &elf->segments[i];
            code |= s->executable && at >= s->offset && at - s->offset < s->file_size;
        }
        require(before[at] == after[at] || code);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rewrite rw;
    struct un_elf elf;
    struct un_error err = UN_ERROR_INIT;
    uint8_t *copy = malloc(size + !size);
    require(copy != NULL);
    memcpy(copy, data, size);
    int rc = rewrite_elf(copy, size, &rw, &err);
    if (rc < 0) {
        require(err.text[0] != '\0' && memcmp(copy, data, size) == 0);
    } else {
        require(un_elf_parse_library(data, size, size, &elf, &err) == 0);
        check_bytes(data, copy, size, &elf);
        require(rw.site_count == rw.rewritten + rw.refused + rw.trapping);
        require((rw.stubs.len > 0) == (rw.rewritten > 0));
        require(rw.stubs.len == 0 || (rw.stubs_vaddr % 4096 == 0 && rw.stubs_vaddr >= elf.high));
        for (size_t i = 0; i < rw.site_count; i++) {
            require(i == 0 || rw.sites[i].addr > rw.sites[i - 1].addr);
        }
    }
    rewrite_done(&rw);
    free(copy);
    return 0;
}
