/* head.c - the bytes that tell what a file is, picked out as it comes (see image.h).
 *
 * Once the first 64 KiB are there, the program headers of an ELF file say where its notes lie, and its code; of the
 * notes what begins behind those bytes is kept when it comes by, up to LIMIT_ELF_NOTES_BYTES in all, of the code the
 * first instruction.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/elf.h"
#include "common/fault.h"
#include "common/limits.h"
#include "common/linux64.h"
#include "imagestore/internal.h"

struct late {
    uint64_t offset; /* in the file */
    size_t at, size; /* in image_head.kept */
    bool code;
};

struct image_head {
    uint64_t seen;
    size_t len;
    struct late late[IMAGE_LATE_MAX];
    size_t late_count;
    uint8_t *kept;
    uint8_t data[IMAGE_HEAD_BYTES];
};

struct image_head *image_head_new(void)
{
    struct image_head *h = un_fault("image.head") ? NULL : malloc(sizeof *h);
    if (h) {
        h->seen = 0;
        h->len = h->late_count = 0;
        h->kept = NULL;
    }
    return h;
}

void image_head_free(struct image_head *h)
{
    if (h) {
        free(h->kept);
        free(h);
    }
}

/* The head is full: what is to come of notes and code. How long the file is, is held against them in the end. */
static int find_late(struct image_head *h)
{
    struct un_elf elf;
    struct un_error none = UN_ERROR_INIT;
    struct un_elf_extent notes[IMAGE_LATE_NOTES_MAX];
    size_t bytes = 0;
    uint64_t code_at;
    if (!un_elf_is(h->data, h->len) ||
        un_elf_parse_library(h->data, h->len, UINT64_MAX, &elf, &none) < 0) {
        return 0;
    }
    size_t count = un_elf_list_notes(h->data, h->len, &elf, notes, IMAGE_LATE_NOTES_MAX);
    for (size_t i = 0; i < count; i++) {
        uint64_t left = LIMIT_ELF_NOTES_BYTES - bytes;
        size_t size = (size_t)(notes[i].file_size < left ? notes[i].file_size : left);
        bool behind = notes[i].file_size > h->len || notes[i].offset > h->len - notes[i].file_size;
        if (behind && size > 0) {
            h->late[h->late_count++] =
                (struct late){.offset = notes[i].offset, .at = bytes, .size = size};
            bytes += size;
        }
    }
    if (un_linux64_code(&elf, &code_at) && code_at > h->len - UN_LINUX64_CODE) {
        h->late[h->late_count++] =
            (struct late){.offset = code_at, .at = bytes, .size = UN_LINUX64_CODE, .code = true};
        bytes += UN_LINUX64_CODE;
    }
    h->kept = bytes > 0 ? calloc(1, bytes) : NULL;
    return bytes > 0 && !h->kept ? -ENOMEM : 0;
}

/* What [from, from + len) of the file has of them. */
static void keep_late(struct image_head *h, uint64_t from, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < h->late_count; i++) {
        const struct late *l = &h->late[i];
        uint64_t begin = l->offset > from ? l->offset : from;
        uint64_t end = l->offset + l->size < from + len ? l->offset + l->size : from + len;
        if (begin < end) {
            memcpy(h->kept + l->at + (begin - l->offset), data + (begin - from),
                   (size_t)(end - begin));
        }
    }
}

int image_head_feed(struct image_head *h, const void *data, size_t len)
{
    size_t room = IMAGE_HEAD_BYTES - h->len;
    if (room > 0) {
        size_t n = len < room ? len : room;
        memcpy(h->data + h->len, data, n);
        h->len += n;
        if (h->len == IMAGE_HEAD_BYTES) {
            if (find_late(h) < 0) {
                return -ENOMEM;
            }
            keep_late(h, 0, h->data, h->len); /* a segment may begin in the head and end behind */
        }
    }
    keep_late(h, h->seen, data, len);
    h->seen += len;
    return 0;
}

int image_head_recognise(const struct image_head *h, enum image_kind *ret, struct un_error *err)
{
    struct image_late late[IMAGE_LATE_MAX];
    for (size_t i = 0; i < h->late_count; i++) {
        late[i] = (struct image_late){
            .data = h->kept + h->late[i].at, .len = h->late[i].size, .code = h->late[i].code};
    }
    return image_recognise_late(h->data, h->len, h->seen, late, h->late_count, ret, err);
}
