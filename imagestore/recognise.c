/* recognise.c - what kind of image some bytes are (see image.h).
 *
 * Sources: ELF notes of the Xen hypervisor (xen/include/public/elfnote.h), Multiboot Specification
 * 0.6.96 section 3.1, Multiboot2 Specification 2.0 section 3.1, the Linux x86 boot protocol
 * (Documentation/arch/x86/boot.rst; of ELF files see common/linux64.h), QEMU's docs/interop/qcow2.txt,
 * UEFI Specification section 5.
 *
 * A new kind is a new function here, called from image_recognise in an order that is explained
 * there.
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/elf.h"
#include "common/limits.h"
#include "common/linux64.h"
#include "imagestore/internal.h"
#include "prepare/tar.h"
#include "unid/abi.h"

#define PVH_NOTE_OWNER "Xen"
enum { PVH_NOTE_TYPE = 18 }; /* XEN_ELFNOTE_PHYS32_ENTRY */

#define MULTIBOOT1_MAGIC  0x1badb002u
#define MULTIBOOT1_WITHIN 8192
#define MULTIBOOT2_MAGIC  0xe85250d6u
#define MULTIBOOT2_WITHIN 32768

#define MULTIBOOT1_HAS_ADDRESSES (1u << 16)

/* Linux programs lie below (Documentation/arch/x86/x86_64/mm.rst). */
#define USER_SPACE_END ((uint64_t)1 << 47)

#define MAX_SPAN ((uint64_t)LIMIT_FUNCTION_MEMORY_MIB << 20)

/* The file's first bytes, and how long it is. */
struct probe {
    const uint8_t *data;
    size_t len;
    uint64_t file_size;
    const struct image_late *late;
    size_t late_count;
};

static uint32_t u32_at(const struct probe *p, uint64_t at)
{
    struct un_reader r = un_reader_of(p->data, p->len);
    un_read_seek(&r, at);
    return un_read_u32le(&r);
}

static uint16_t u16_at(const struct probe *p, uint64_t at)
{
    struct un_reader r = un_reader_of(p->data, p->len);
    un_read_seek(&r, at);
    return un_read_u16le(&r);
}

static bool bytes_at(const struct probe *p, uint64_t at, const void *want, size_t len)
{
    struct un_reader r = un_reader_of(p->data, p->len);
    un_read_seek(&r, at);
    const uint8_t *got = un_read_bytes(&r, len);
    return got && memcmp(got, want, len) == 0;
}

static bool find_multiboot1(const struct probe *p, uint64_t *ret_at)
{
    for (uint64_t at = 0; at + 12 <= p->len && at + 12 <= MULTIBOOT1_WITHIN; at += 4) {
        if (u32_at(p, at) == MULTIBOOT1_MAGIC &&
            (uint32_t)(MULTIBOOT1_MAGIC + u32_at(p, at + 4) + u32_at(p, at + 8)) == 0) {
            *ret_at = at;
            return true;
        }
    }
    return false;
}

static bool has_multiboot2(const struct probe *p)
{
    for (uint64_t at = 0; at + 16 <= p->len && at + 16 <= MULTIBOOT2_WITHIN; at += 8) {
        uint32_t sum = u32_at(p, at) + u32_at(p, at + 4) + u32_at(p, at + 8) + u32_at(p, at + 12);
        if (u32_at(p, at) == MULTIBOOT2_MAGIC && sum == 0) {
            return true;
        }
    }
    return false;
}

static bool is_paging(const struct probe *p, const struct un_elf_note *note)
{
    return note->size >= 8 && u16_at(p, note->offset + 4) & UNID_NOTE_PAGING;
}

/* The end of the memory that the segments take. Those of a paging image may name a physical address
 * by one in the direct map (unid/abi.h). */
static uint64_t memory_end(const struct un_elf *elf, bool paging)
{
    uint64_t end = 0;
    for (size_t i = 0; i < elf->segment_count; i++) {
        const struct un_elf_segment *s = &elf->segments[i];
        uint64_t at = s->vaddr - (paging && s->vaddr >= UNID_DIRECT_MAP ? UNID_DIRECT_MAP : 0);
        end = at + s->mem_size > end ? at + s->mem_size : end;
    }
    return end;
}

static int check_sdk(const struct probe *p, const struct un_elf *elf,
                     const struct un_elf_note *note, struct un_error *err)
{
    if (!elf->is64) {
        return un_error_set(err, -EINVAL, "ELF: an SDK image of class 32, it must be 64");
    }
    if (note->size < 8) {
        return un_error_set(err, -EINVAL, "SDK note: %" PRIu64 " bytes, it must have 8",
                            note->size);
    }
    unsigned major = u16_at(p, note->offset);
    if (major != UNID_ABI_MAJOR) {
        return un_error_set(err, -EINVAL,
                            "SDK note: made for guest interface %u, this unid offers %u", major,
                            UNID_ABI_MAJOR);
    }
    if (elf->low < UNID_IMAGE_MIN) {
        return un_error_set(err, -EINVAL,
                            "ELF: a segment at 0x%" PRIx64 ", SDK images start at 0x%llx", elf->low,
                            UNID_IMAGE_MIN);
    }
    uint64_t end = memory_end(elf, is_paging(p, note));
    if (end > MAX_SPAN) {
        return un_error_set(err, -EINVAL,
                            "ELF: segments up to 0x%" PRIx64 ", no machine has more than %d MiB",
                            end, LIMIT_FUNCTION_MEMORY_MIB);
    }
    return 0;
}

static bool find_pvh(const struct probe *p, const struct un_elf *elf, struct un_elf_note *ret)
{
    if (un_elf_find_note(p->data, p->len, elf, PVH_NOTE_OWNER, PVH_NOTE_TYPE, ret)) {
        return true;
    }
    for (size_t i = 0; i < p->late_count; i++) {
        const struct image_late *late = &p->late[i];
        if (!late->code &&
            un_elf_find_note_in(late->data, late->len, PVH_NOTE_OWNER, PVH_NOTE_TYPE, ret)) {
            return true;
        }
    }
    return false;
}

/* What is loaded by physical addresses may have its virtual ones anywhere, as a vmlinux has. */
static int check_bytes(const struct un_elf *elf, struct un_error *err)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < elf->segment_count; i++) {
        bytes += elf->segments[i].mem_size; /* no overflow: they do not overlap */
    }
    return bytes <= MAX_SPAN
               ? 0
               : un_error_set(err, -EINVAL,
                              "ELF: segments of %" PRIu64 " MiB, no machine has more than %d MiB",
                              bytes >> 20, LIMIT_FUNCTION_MEMORY_MIB);
}

/* A PVH kernel is entered where the note says; its entry point means nothing before it runs. */
static int check_pvh(const struct un_elf *elf, const struct un_elf_note *note, struct un_error *err)
{
    if (note->size < 4) {
        return un_error_set(err, -EINVAL, "PVH note: %" PRIu64 " bytes, no entry point fits",
                            note->size);
    }
    return check_bytes(elf, err);
}

/* Whether it is a PVH kernel (an SDK image is none); then `*ret_rc` says whether a good one. */
static bool recognise_pvh(const struct probe *p, int *ret_rc, struct un_error *err)
{
    struct un_error none = UN_ERROR_INIT;
    struct un_elf elf;
    struct un_elf_note note;
    if (un_elf_parse_library(p->data, p->len, p->file_size, &elf, &none) < 0 ||
        un_elf_find_note(p->data, p->len, &elf, UNID_NOTE_OWNER, UNID_NOTE_TYPE, &note) ||
        !find_pvh(p, &elf, &note)) {
        return false;
    }
    *ret_rc = check_pvh(&elf, &note, err);
    return true;
}

/* The same of a kernel of Linux' 64-bit boot protocol. One that has a multiboot header besides is entered by that. */
static bool recognise_linux64(const struct probe *p, int *ret_rc, struct un_error *err)
{
    struct un_error none = UN_ERROR_INIT;
    struct un_elf elf;
    struct un_elf_note note;
    uint64_t at;
    if (un_elf_parse_library(p->data, p->len, p->file_size, &elf, &none) < 0 ||
        un_elf_find_note(p->data, p->len, &elf, UNID_NOTE_OWNER, UNID_NOTE_TYPE, &note)) {
        return false;
    }
    enum un_linux64 is = un_linux64_file(p->data, p->len, &elf);
    for (size_t i = 0; i < p->late_count && is == UN_LINUX64_NOT; i++) {
        if (p->late[i].code) {
            is = un_linux64_is(&elf, p->late[i].data, p->late[i].len);
        }
    }
    if (is == UN_LINUX64_NOT || has_multiboot2(p) || find_multiboot1(p, &at)) {
        return false;
    }
    *ret_rc = check_bytes(&elf, err);
    return true;
}

/* A kernel says so by a note, a header or code which no program has, so kernels are asked for first. PVH
 * comes before multiboot: it is entered with the same ease and says more; what only Linux' protocol can enter
 * says least. */
static int recognise_elf(const struct probe *p, enum image_kind *ret, struct un_error *err)
{
    uint64_t at;
    struct un_elf elf;
    struct un_elf_note note;
    int rc;
    if (recognise_pvh(p, &rc, err)) {
        *ret = rc == 0 ? IMAGE_PVH : *ret;
        return rc;
    }
    if (recognise_linux64(p, &rc, err)) {
        *ret = rc == 0 ? IMAGE_LINUX64 : *ret;
        return rc;
    }
    rc = un_elf_parse(p->data, p->len, p->file_size, &elf, err);
    if (rc < 0) {
        if (err) {
            err->code = -EINVAL; /* here -ENOTSUP is no more than that */
        }
        return -EINVAL;
    }
    bool sdk = un_elf_find_note(p->data, p->len, &elf, UNID_NOTE_OWNER, UNID_NOTE_TYPE, &note);
    uint64_t span = memory_end(&elf, sdk && is_paging(p, &note)) - elf.low;
    if (span > MAX_SPAN) {
        return un_error_set(err, -EINVAL,
                            "ELF: segments span %" PRIu64 " MiB, no machine has more than %d MiB",
                            span >> 20, LIMIT_FUNCTION_MEMORY_MIB);
    }
    if (sdk) {
        rc = check_sdk(p, &elf, &note, err);
        if (rc == 0) {
            *ret = IMAGE_SDK;
        }
        return rc;
    }
    if (has_multiboot2(p)) {
        *ret = IMAGE_MULTIBOOT2;
    } else if (find_multiboot1(p, &at)) {
        *ret = IMAGE_MULTIBOOT1;
    } else if (elf.high > USER_SPACE_END) {
        return un_error_set(
            err, -EINVAL,
            "ELF: a kernel (segments up to 0x%" PRIx64
            ") that is entered by neither a PVH note, a multiboot header nor a physical "
            "address; use its bzImage",
            elf.high);
    } else if (!elf.is64) {
        return un_error_set(err, -EINVAL, "ELF: a 32-bit program; programs must be 64-bit x86");
    } else {
        *ret = elf.has_interp ? IMAGE_LINUX_DYNAMIC : IMAGE_LINUX_STATIC;
    }
    return 0;
}

static bool is_bzimage(const struct probe *p)
{
    return u16_at(p, 0x1fe) == 0xaa55 && bytes_at(p, 0x202, "HdrS", 4);
}

static int check_bzimage(const struct probe *p, struct un_error *err)
{
    unsigned version = u16_at(p, 0x206);
    if (version < 0x0204) {
        return un_error_set(err, -EINVAL, "bzImage: boot protocol %u.%02u, at least 2.04 is needed",
                            version >> 8, version & 0xff);
    }
    if (p->len <= 0x211 || !(p->data[0x211] & 1)) {
        return un_error_set(err, -EINVAL,
                            "bzImage: loadflags say it is a zImage, which is too old");
    }
    uint64_t setup_sectors = p->data[0x1f1] ? p->data[0x1f1] : 4;
    uint64_t setup_bytes = (setup_sectors + 1) * 512;
    /* syssize is in units of 16 bytes, rounded up. */
    uint64_t system_bytes = (uint64_t)u32_at(p, 0x1f4) * 16;
    if (system_bytes == 0 || setup_bytes + system_bytes > p->file_size + 15) {
        return un_error_set(err, -EINVAL,
                            "bzImage: setup_sects and syssize promise %" PRIu64
                            " bytes, the file has %" PRIu64,
                            setup_bytes + system_bytes, p->file_size);
    }
    return 0;
}

static uint32_t be32_at(const struct probe *p, uint64_t at)
{
    return __builtin_bswap32(u32_at(p, at));
}

static uint64_t be64_at(const struct probe *p, uint64_t at)
{
    return (uint64_t)be32_at(p, at) << 32 | be32_at(p, at + 4);
}

static int check_qcow2(const struct probe *p, struct un_error *err)
{
    uint32_t version = be32_at(p, 4), cluster_bits = be32_at(p, 20);
    if (p->len < 72 || (version != 2 && version != 3)) {
        return un_error_set(err, -EINVAL, "qcow2: version %" PRIu32 " is not known", version);
    }
    if (cluster_bits < 9 || cluster_bits > 21) {
        return un_error_set(err, -EINVAL, "qcow2: cluster_bits %" PRIu32 " is not 9 to 21",
                            cluster_bits);
    }
    /* Either would make the hypervisor open a file of the host that the uploader names. */
    if (be64_at(p, 8) != 0) {
        return un_error_set(err, -EINVAL,
                            "qcow2: it has a backing file; flatten it with qemu-img "
                            "convert");
    }
    if (version == 3 && (p->len < 80 || be64_at(p, 72) & 4)) {
        return un_error_set(err, -EINVAL,
                            "qcow2: its data is in another file; flatten it with "
                            "qemu-img convert");
    }
    if (be32_at(p, 32) != 0) {
        return un_error_set(err, -EINVAL,
                            "qcow2: it is encrypted; decrypt it with qemu-img convert");
    }
    if (be64_at(p, 24) > (uint64_t)LIMIT_DISK_TIB << 40) {
        return un_error_set(err, -EINVAL, "qcow2: a disk of over %d TiB", LIMIT_DISK_TIB);
    }
    uint64_t l1_bytes = (uint64_t)be32_at(p, 36) * 8, l1_end;
    if (__builtin_add_overflow(be64_at(p, 40), l1_bytes, &l1_end) || l1_end > p->file_size) {
        return un_error_set(err, -EINVAL, "qcow2: the l1 table does not lie in the file");
    }
    return 0;
}

/* A disk is partitioned, or one file system from its start: ext2 to ext4 (the kernel's
 * Documentation/filesystems/ext4/super.rst), XFS, squashfs, ISO 9660. FAT and NTFS end their first
 * sector as an MBR does. */
static bool is_disk(const struct probe *p)
{
    static const struct {
        unsigned at, len;
        const char *bytes;
    } signatures[] = {
        {510, 2, "\x55\xaa"},   {512, 8, "EFI PART"},     {4096, 8, "EFI PART"},
        {0x438, 2, "\x53\xef"}, {0, 8, "XFSB\0\0\x10\0"}, {0, 4, "hsqs"},
        {0x8001, 5, "CD001"},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(signatures); i++) {
        if (bytes_at(p, signatures[i].at, signatures[i].bytes, signatures[i].len)) {
            return true;
        }
    }
    return false;
}

/* Neither of the kinds: what it looks like instead, for people who took the wrong file. */
static int explain_unknown(const struct probe *p, struct un_error *err)
{
    static const struct {
        unsigned at, len;
        const char *bytes, *name;
    } known[] = {
        {0, 2, "#!", "a script; `unictl deploy` sends it with its interpreter"},
        {0, 2, "\x1f\x8b", "gzip, but neither a tar archive nor an initrd; unpack it first"},
        {0, 6,
         "\xfd"
         "7zXZ",
         "xz, but neither a tar archive nor an initrd; unpack it first"},
        {0, 4, "\x28\xb5\x2f\xfd",
         "zstd, but neither a tar archive nor an initrd; unpack it first"},
        {0, 4, "PK\x03\x04", "a zip archive"},
        {257, 5, "ustar", "a tar archive that cannot be read"},
        {0, 2, "MZ", "a Windows or EFI program"},
        {0, 4, "\xcf\xfa\xed\xfe", "a macOS program; build it for Linux"},
        {0, 4, "\0asm", "a WebAssembly module"},
        {0, 8, "!<arch>\n", "a library of object files, not a program"},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(known); i++) {
        if (bytes_at(p, known[i].at, known[i].bytes, known[i].len)) {
            return un_error_set(err, -EINVAL, "not an image: this is %s", known[i].name);
        }
    }
    return un_error_set(
        err, -EINVAL,
        "not an image: neither ELF, a script (its first line begins with #!), Linux bzImage, "
        "multiboot nor a disk (it starts with %02x %02x %02x %02x)",
        p->data[0], p->len > 1 ? p->data[1] : 0, p->len > 2 ? p->data[2] : 0,
        p->len > 3 ? p->data[3] : 0);
}

/* A flat multiboot kernel says in its header where it is loaded (the "a.out kludge", flag 16);
 * without that only ELF tells. */
static int check_flat_multiboot(const struct probe *p, uint64_t at, struct un_error *err)
{
    if (!(u32_at(p, at + 4) & MULTIBOOT1_HAS_ADDRESSES)) {
        return un_error_set(err, -EINVAL,
                            "multiboot: neither an ELF file nor load addresses in the header");
    }
    uint32_t header = u32_at(p, at + 12), load = u32_at(p, at + 16), end = u32_at(p, at + 20);
    uint32_t bss_end = u32_at(p, at + 24), entry = u32_at(p, at + 28);
    if (load > header || header - load > at) {
        return un_error_set(err, -EINVAL,
                            "multiboot: load_addr 0x%" PRIx32 " and header_addr 0x%" PRIx32
                            " point outside of the file",
                            load, header);
    }
    uint64_t start = at - (header - load);
    if (end != 0 && (end < load || end - load > p->file_size - start)) {
        return un_error_set(err, -EINVAL,
                            "multiboot: load_end_addr 0x%" PRIx32 " is past the end of the file",
                            end);
    }
    if (bss_end != 0 && bss_end < end) {
        return un_error_set(err, -EINVAL,
                            "multiboot: bss_end_addr 0x%" PRIx32 " lies before load_end_addr",
                            bss_end);
    }
    if (entry < load) {
        return un_error_set(err, -EINVAL,
                            "multiboot: entry_addr 0x%" PRIx32 " lies before load_addr", entry);
    }
    return 0;
}

/* What is left: an archive, a flat multiboot kernel, or nothing that runs. */
static int recognise_rest(const struct probe *p, enum image_kind *ret, struct un_error *err)
{
    uint64_t at;
    if (tar_is(p->data, p->len)) {
        *ret = IMAGE_LINUX_ROOTFS;
        return 0;
    }
    if (initrd_is_packed_cpio(p->data, p->len, p->file_size)) {
        *ret = IMAGE_INITRD;
        return 0;
    }
    if (find_multiboot1(p, &at)) {
        int rc = check_flat_multiboot(p, at, err);
        if (rc == 0) {
            *ret = IMAGE_MULTIBOOT1;
        }
        return rc;
    }
    if (has_multiboot2(p)) {
        return un_error_set(err, -EINVAL,
                            "multiboot2: a kernel that is no ELF file; link it as ELF");
    }
    return explain_unknown(p, err);
}

int image_recognise(const void *head, size_t len, uint64_t file_size, enum image_kind *ret,
                    struct un_error *err)
{
    return image_recognise_late(head, len, file_size, NULL, 0, ret, err);
}

int image_recognise_late(const void *head, size_t len, uint64_t file_size,
                         const struct image_late *late, size_t late_count, enum image_kind *ret,
                         struct un_error *err)
{
    struct probe p = {
        .data = head, .len = len, .file_size = file_size, .late = late, .late_count = late_count};
    int rc = 0;
    if (file_size == 0 || len == 0) {
        return un_error_set(err, -EINVAL, "not an image: it is empty");
    }
    if (un_elf_is(head, len)) {
        return recognise_elf(&p, ret, err);
    }
    /* bzImage before disk: its first sector has a boot sector's signature as well. Disk before
     * multiboot: GRUB, in a disk's first sectors, has a multiboot header. Archives before disk: their
     * contents have anything anywhere. */
    if (is_bzimage(&p)) {
        rc = check_bzimage(&p, err);
        if (rc == 0) {
            *ret = IMAGE_BZIMAGE;
        }
        return rc;
    }
    if (bytes_at(&p, 0, "QFI\xfb", 4)) {
        rc = check_qcow2(&p, err);
        if (rc == 0) {
            *ret = IMAGE_DISK;
        }
        return rc;
    }
    if (initrd_is_cpio(head, len)) {
        *ret = IMAGE_INITRD;
        return 0;
    }
    if (!initrd_is_compressed(head, len) && is_disk(&p)) {
        if (file_size % 512 != 0) {
            return un_error_set(err, -EINVAL,
                                "disk: %" PRIu64 " bytes are no whole number of 512-byte sectors",
                                file_size);
        }
        *ret = IMAGE_DISK;
        return 0;
    }
    return recognise_rest(&p, ret, err);
}

bool image_needs_loader(enum image_kind kind, const void *data, size_t len)
{
    struct probe p = {.data = data, .len = len, .file_size = len};
    uint64_t at;
    if ((kind != IMAGE_MULTIBOOT1 && kind != IMAGE_PVH) || !un_elf_is(data, len) ||
        !find_multiboot1(&p, &at)) {
        return kind == IMAGE_MULTIBOOT2 || kind == IMAGE_LINUX64;
    }
    return u16_at(&p, offsetof(Elf64_Ehdr, e_machine)) == EM_X86_64 &&
           !(u32_at(&p, at + 4) & MULTIBOOT1_HAS_ADDRESSES);
}
