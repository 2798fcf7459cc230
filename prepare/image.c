/* image.c - see image.h.
 *
 * The library OS's file is laid out anew: program headers in front with one more, then its segments
 * in pages of their own; section headers are left out. The root file system's physical address is
 * UNID_LIBOS_END, its virtual one in the direct map.
 */
#include "prepare/image.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/elf.h"
#include "unid/rootfs.h"

enum { PAGE = 4096 };

#define ROOTFS_PHYS UNID_LIBOS_END

static uint64_t page_up(uint64_t v)
{
    return (v + PAGE - 1) & ~(uint64_t)(PAGE - 1);
}

static int check_libos(const uint8_t *data, size_t len, struct un_elf *elf, struct un_error *err)
{
    struct un_elf_note note;
    uint64_t at;
    int rc = un_elf_parse(data, len, len, elf, err);
    if (rc < 0) {
        return un_error_context(err, "library OS");
    }
    if (!elf->is64 || elf->type != ET_EXEC || elf->low < UNID_LIBOS_BASE ||
        elf->high > UNID_LIBOS_END) {
        return un_error_set(err, -EINVAL,
                            "library OS: its segments, 0x%" PRIx64 " to 0x%" PRIx64
                            ", are not those of a program between 0x%llx and 0x%llx",
                            elf->low, elf->high, UNID_LIBOS_BASE, UNID_LIBOS_END);
    }
    if (!un_elf_find_note(data, len, elf, UNID_NOTE_OWNER, UNID_NOTE_TYPE, &note) ||
        note.size < 8 || !(data[note.offset + 4] & UNID_NOTE_PAGING)) {
        return un_error_set(err, -EINVAL, "library OS: its note does not say that it is one");
    }
    if (!un_elf_offset(elf, UNID_ROOTFS_WHERE_ADDR, sizeof(struct unid_rootfs_where), &at)) {
        return un_error_set(err, -EINVAL, "library OS: nothing at 0x%llx", UNID_ROOTFS_WHERE_ADDR);
    }
    return 0;
}

/* The new program headers. PT_NOTE lies in a segment and moves with it. */
static int make_headers(const uint8_t *data, const struct un_elf *elf, Elf64_Phdr *ret,
                        unsigned *ret_count, uint64_t *ret_end)
{
    uint64_t end = PAGE;
    unsigned count = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < elf->phnum; i++) {
            Elf64_Phdr ph;
            memcpy(&ph, data + elf->phoff + i * sizeof ph, sizeof ph);
            if (pass == 0 && ph.p_type == PT_LOAD && ph.p_memsz > 0) {
                ph.p_offset = end + ph.p_vaddr % PAGE;
                end = page_up(ph.p_offset + ph.p_filesz);
                ret[count++] = ph;
            }
            for (unsigned k = 0; pass == 1 && ph.p_type == PT_NOTE && k < count; k++) {
                if (ret[k].p_type == PT_LOAD && ph.p_vaddr >= ret[k].p_vaddr &&
                    ph.p_vaddr - ret[k].p_vaddr < ret[k].p_filesz &&
                    ph.p_filesz <= ret[k].p_filesz - (ph.p_vaddr - ret[k].p_vaddr)) {
                    ph.p_offset = ret[k].p_offset + (ph.p_vaddr - ret[k].p_vaddr);
                    ret[count++] = ph;
                    break;
                }
            }
        }
    }
    ret[count++] = (Elf64_Phdr){
        .p_type = PT_LOAD,
        .p_flags = PF_R,
        .p_offset = end,
        .p_vaddr = UNID_DIRECT_MAP + ROOTFS_PHYS,
        .p_paddr = ROOTFS_PHYS,
        .p_align = PAGE,
    };
    *ret_count = count;
    *ret_end = end;
    return 0;
}

/* The bytes of the library OS's segments, at their new offsets. */
static void copy_segments(struct image_front *f, const uint8_t *data, const struct un_elf *elf,
                          const Elf64_Phdr *headers, unsigned count)
{
    for (unsigned i = 0; i + 1 < count; i++) {
        uint64_t from;
        if (headers[i].p_type == PT_LOAD &&
            un_elf_offset(elf, headers[i].p_vaddr, headers[i].p_filesz, &from)) {
            memcpy(f->bytes + headers[i].p_offset, data + from, headers[i].p_filesz);
            uint64_t in = UNID_ROOTFS_WHERE_ADDR - headers[i].p_vaddr;
            if (in < headers[i].p_filesz) {
                f->where = (size_t)(headers[i].p_offset + in);
            }
        }
    }
}

int image_front_new(const void *libos, size_t len, struct image_front *ret, struct un_error *err)
{
    enum { HEADERS_MAX = (PAGE - sizeof(Elf64_Ehdr)) / sizeof(Elf64_Phdr) };
    Elf64_Phdr headers[HEADERS_MAX];
    struct un_elf elf;
    unsigned count;
    uint64_t end;
    int rc = check_libos(libos, len, &elf, err);
    if (rc < 0) {
        return rc;
    }
    if (elf.phnum >= HEADERS_MAX) {
        return un_error_set(err, -EINVAL, "library OS: %u program headers", elf.phnum);
    }
    make_headers(libos, &elf, headers, &count, &end);
    struct image_front f = {.bytes = calloc(1, (size_t)end), .size = (size_t)end};
    if (!f.bytes) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    Elf64_Ehdr eh;
    memcpy(&eh, libos, sizeof eh);
    eh.e_phoff = sizeof eh;
    eh.e_phnum = (Elf64_Half)count;
    eh.e_shoff = 0;
    eh.e_shnum = eh.e_shstrndx = 0;
    memcpy(f.bytes, &eh, sizeof eh);
    memcpy(f.bytes + sizeof eh, headers, count * sizeof headers[0]);
    f.segment = sizeof eh + (count - 1) * sizeof headers[0];
    copy_segments(&f, libos, &elf, headers, count);
    *ret = f;
    return 0;
}

void image_front_set(struct image_front *f, uint64_t rootfs_size)
{
    struct unid_rootfs_where where = {.phys = ROOTFS_PHYS, .size = rootfs_size};
    Elf64_Phdr ph;
    memcpy(f->bytes + f->where, &where, sizeof where);
    memcpy(&ph, f->bytes + f->segment, sizeof ph);
    ph.p_filesz = ph.p_memsz = rootfs_size;
    memcpy(f->bytes + f->segment, &ph, sizeof ph);
}

void image_front_done(struct image_front *f)
{
    free(f->bytes);
    *f = (struct image_front){0};
}
