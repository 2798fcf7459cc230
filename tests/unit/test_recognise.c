/* test_recognise.c - what kind of image some bytes are. */
#include "tests/unit/image_support.h"

#include <archive.h>
#include <archive_entry.h>

enum { IMAGE_DISK_TEST_BYTES = 64 << 10 };

static int set_up(void **state)
{
    struct image_ground *ig = calloc(1, sizeof *ig);
    image_ground_open(ig);
    *state = ig;
    return 0;
}

static int tear_down(void **state)
{
    image_ground_close(*state);
    free(*state);
    return 0;
}

static struct un_error err;

static void assert_kind(const struct elf_file *f, enum image_kind want)
{
    enum image_kind kind;
    if (image_recognise(f->data, sizeof f->data, sizeof f->data, &kind, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_string_equal(image_kind_name(kind), image_kind_name(want));
}

static void assert_no_image(const void *data, size_t len, uint64_t size, const char *why)
{
    enum image_kind kind;
    err.text[0] = '\0';
    assert_int_equal(image_recognise(data, len, size, &kind, &err), -EINVAL);
    if (!strstr(err.text, why)) {
        fail_msg("\"%s\" does not say \"%s\"", err.text, why);
    }
}

static void paging_images_may_have_segments_in_the_direct_map(void **state)
{
    struct elf_file f;
    struct {
        uint16_t major, minor;
        uint32_t flags;
    } desc = {UNID_ABI_MAJOR, UNID_ABI_MINOR, UNID_NOTE_PAGING};
    elf_make(&f);
    elf_add_note(&f, UNID_NOTE_OWNER, UNID_NOTE_TYPE, &desc, sizeof desc);
    elf_program(&f, ELF_PH_DATA)->p_vaddr = UNID_DIRECT_MAP + 0x800000;
    assert_kind(&f, IMAGE_SDK);
    elf_program(&f, ELF_PH_DATA)->p_vaddr = UNID_DIRECT_MAP + (UINT64_C(1) << 40);
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "segments span 1048");
    desc.flags = 0;
    elf_add_note(&f, UNID_NOTE_OWNER, UNID_NOTE_TYPE, &desc, sizeof desc);
    elf_program(&f, ELF_PH_DATA)->p_vaddr = UNID_DIRECT_MAP + 0x800000;
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "segments span");
}

static void programs_are_told_apart(void **state)
{
    struct elf_file f;
    elf_make_sdk(&f);
    assert_kind(&f, IMAGE_SDK);
    elf_make(&f);
    assert_kind(&f, IMAGE_LINUX_STATIC);
    elf_header(&f)->e_type = ET_DYN; /* static-pie */
    assert_kind(&f, IMAGE_LINUX_STATIC);
    elf_add_interp(&f);
    assert_kind(&f, IMAGE_LINUX_DYNAMIC);
}

static void kernels_are_told_apart(void **state)
{
    struct elf_file f;
    elf_make(&f);
    elf_add_note(&f, "Xen", 18, "\0\0\x10\0", 4);
    assert_kind(&f, IMAGE_PVH);
    elf_make(&f);
    elf_add_note(&f, "Xen", 18, "\0\0\x10\0\0\0\0\0", 8);
    elf_add_multiboot1(f.data + 0x1000, 3);
    assert_kind(&f, IMAGE_PVH);
    elf_make(&f);
    elf_add_multiboot1(f.data + 8192 - 12, 3); /* the last place */
    assert_kind(&f, IMAGE_MULTIBOOT1);
    elf_make32(&f);
    elf_add_multiboot1(f.data + 0x1000, 3);
    assert_kind(&f, IMAGE_MULTIBOOT1);
    elf_make(&f);
    elf_add_multiboot2(f.data + 0x1008);
    assert_kind(&f, IMAGE_MULTIBOOT2);
}

static const uint8_t asks[] = {0x81, 0xbe, 0x02, 0x02, 0, 0, 'H', 'd', 'r', 'S'};

/* As Unikraft's for Firecracker: at one address, and it asks whether rsi points at struct boot_params. */
static void make_linux64(struct elf_file *f)
{
    elf_make(f);
    elf_program(f, ELF_PH_LOAD)->p_paddr = elf_program(f, ELF_PH_LOAD)->p_vaddr;
    elf_program(f, ELF_PH_DATA)->p_paddr = elf_program(f, ELF_PH_DATA)->p_vaddr;
    memcpy(f->data + 0x800, asks, sizeof asks);
}

static void kernels_of_linux_64_bit_protocol_are_told_from_programs(void **state)
{
    struct elf_file f;
    make_linux64(&f);
    assert_kind(&f, IMAGE_LINUX64);
    assert_true(image_needs_loader(IMAGE_LINUX64, f.data, sizeof f.data));
    elf_header(&f)->e_type = ET_DYN; /* Unikraft's that can be moved */
    assert_kind(&f, IMAGE_LINUX64);
    memcpy(f.data + 0x800, "\xf3\x0f\x1e\xfa", 4); /* endbr64 */
    assert_kind(&f, IMAGE_LINUX_STATIC);
    memcpy(f.data + 0x804, asks, sizeof asks);
    assert_kind(&f, IMAGE_LINUX64);

    for (size_t i = 0; i < sizeof asks; i++) { /* each byte counts */
        make_linux64(&f);
        f.data[0x800 + i] ^= 1;
        assert_kind(&f, IMAGE_LINUX_STATIC);
    }
    make_linux64(&f);
    elf_header(&f)->e_entry++; /* it must be the first instruction */
    assert_kind(&f, IMAGE_LINUX_STATIC);
    make_linux64(&f);
    elf_program(&f, ELF_PH_LOAD)->p_paddr = 0; /* and stand where the file is entered */
    assert_kind(&f, IMAGE_LINUX_STATIC);
}

static void what_a_kernel_says_besides_goes_first(void **state)
{
    struct elf_file f;
    make_linux64(&f);
    elf_add_multiboot1(f.data + 0x1000, 3);
    assert_kind(&f, IMAGE_MULTIBOOT1);
    make_linux64(&f);
    elf_add_multiboot2(f.data + 0x1008);
    assert_kind(&f, IMAGE_MULTIBOOT2);
    elf_add_note(&f, "Xen", 18, "\0\0\x10\0", 4);
    assert_kind(&f, IMAGE_PVH);
    elf_make_sdk(&f);
    elf_program(&f, ELF_PH_LOAD)->p_paddr = 0x400000;
    memcpy(f.data + 0x800, asks, sizeof asks);
    assert_kind(&f, IMAGE_SDK);
}

static void a_vmlinux_without_a_note_is_entered_at_its_physical_address(void **state)
{
    struct elf_file f;
    elf_make(&f);
    elf_program(&f, ELF_PH_LOAD)->p_vaddr = 0xffffffff81000000;
    elf_program(&f, ELF_PH_LOAD)->p_paddr = 0x1000000;
    elf_program(&f, ELF_PH_DATA)->p_vaddr = 0;
    elf_program(&f, ELF_PH_DATA)->p_paddr = 0x1001000;
    elf_header(&f)->e_entry = 0x1000800;
    assert_kind(&f, IMAGE_LINUX64);
    elf_program(&f, ELF_PH_DATA)->p_memsz = 1ull << 40;
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "no machine has more than");
    elf_program(&f, ELF_PH_DATA)->p_memsz = 65536;
    elf_program(&f, ELF_PH_LOAD)->p_flags = PF_R; /* data */
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "entry point");
}

static void assert_loader(const struct elf_file *f, bool wanted)
{
    enum image_kind kind = IMAGE_SDK;
    assert_int_equal(image_recognise(f->data, sizeof f->data, sizeof f->data, &kind, &err), 0);
    assert_int_equal(image_needs_loader(kind, f->data, sizeof f->data), wanted);
}

static void what_qemu_does_not_load_needs_a_loader(void **state)
{
    struct elf_file f;
    elf_make(&f);
    elf_add_multiboot1(f.data + 0x1000, 3);
    assert_loader(&f, true);
    elf_add_note(&f, "Xen", 18, "\0\0\x10\0", 4);
    assert_loader(&f, true);
    elf_add_multiboot1(f.data + 0x1000, 3 | 1 << 16); /* as those of Solo5 and rumprun */
    assert_loader(&f, false);
    memset(f.data + 0x1000, 0, 12);
    assert_loader(&f, false); /* PVH alone */
    elf_make(&f);
    elf_add_multiboot1(f.data + 0x1000, 3 | 1 << 16);
    assert_loader(&f, false);
    elf_make32(&f);
    elf_add_multiboot1(f.data + 0x1000, 3);
    assert_loader(&f, false);
    elf_header(&f)->e_machine = EM_X86_64;
    assert_true(image_needs_loader(IMAGE_MULTIBOOT1, f.data, sizeof f.data));
    elf_make32(&f);
    elf_add_multiboot2(f.data + 0x1008);
    assert_loader(&f, true);
    assert_false(image_needs_loader(IMAGE_BZIMAGE, f.data, sizeof f.data));
}

static void a_header_must_be_aligned_and_add_up(void **state)
{
    struct elf_file f;
    elf_make(&f);
    elf_add_multiboot1(f.data + 0x1002, 3);
    assert_kind(&f, IMAGE_LINUX_STATIC);
    elf_make(&f);
    elf_add_multiboot1(f.data + 0x1000, 3);
    f.data[0x1008] ^= 1;
    assert_kind(&f, IMAGE_LINUX_STATIC);
    elf_make(&f);
    elf_add_multiboot2(f.data + 0x1004);
    assert_kind(&f, IMAGE_LINUX_STATIC);
}

static void make_bzimage(struct elf_file *f)
{
    memset(f, 0, sizeof *f);
    f->data[0x1f1] = 3;                /* setup_sects: 2048 bytes with the boot sector */
    put32(f->data + 0x1f4, 6144 / 16); /* syssize */
    f->data[0x1fe] = 0x55;
    f->data[0x1ff] = 0xaa;
    memcpy(f->data + 0x202, "HdrS", 4);
    f->data[0x206] = 0x0f;
    f->data[0x207] = 0x02;
    f->data[0x211] = 1;
}

static void a_bzimage_is_recognised_and_held_to_its_sizes(void **state)
{
    struct elf_file f;
    make_bzimage(&f);
    assert_kind(&f, IMAGE_BZIMAGE);
    put32(f.data + 0x1f4, 6144 / 16 + 1);
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "syssize");
    make_bzimage(&f);
    f.data[0x207] = 1;
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "boot protocol 1.");
    make_bzimage(&f);
    f.data[0x211] = 0;
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "zImage");
}

static void disks_are_recognised(void **state)
{
    struct elf_file f = {{0}};
    enum image_kind kind;
    f.data[510] = 0x55;
    f.data[511] = 0xaa;
    elf_add_multiboot1(f.data + 0x1000, 3); /* GRUB's */
    assert_kind(&f, IMAGE_DISK);
    assert_no_image(f.data, sizeof f.data, sizeof f.data + 1, "whole number");
    memset(&f, 0, sizeof f);
    memcpy(f.data + 512, "EFI PART", 8);
    assert_kind(&f, IMAGE_DISK);
    memset(&f, 0, sizeof f);
    memcpy(f.data, "QFI\xfb\0\0\0\3", 8);
    f.data[23] = 16;   /* cluster_bits */
    f.data[46] = 0x10; /* l1 table at 4096 */
    assert_kind(&f, IMAGE_DISK);
    assert_int_equal(image_recognise(f.data, 512, 1 << 20, &kind, &err), 0);
}

static void a_qcow2_that_names_other_files_is_refused(void **state)
{
    struct elf_file f = {{0}};
    memcpy(f.data, "QFI\xfb\0\0\0\3", 8);
    f.data[23] = 16;
    f.data[46] = 0x10;
    f.data[15] = 0x70; /* backing_file_offset */
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "backing file");
    f.data[15] = 0;
    f.data[79] = 4; /* incompatible feature: external data file */
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "another file");
    f.data[79] = 0;
    f.data[44] = 1; /* l1 table at 16 MiB */
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "l1 table");
    f.data[23] = 63;
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "cluster_bits 63");
}

static void a_qcow2_that_cannot_be_run_is_refused(void **state)
{
    struct elf_file f = {{0}};
    memcpy(f.data, "QFI\xfb\0\0\0\3", 8);
    f.data[23] = 16;
    f.data[46] = 0x10;
    f.data[35] = 2; /* LUKS */
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "encrypted");
    f.data[35] = 0;
    f.data[26] = 4; /* 4 TiB: as much as may be */
    assert_kind(&f, IMAGE_DISK);
    f.data[31] = 1;
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "over 4 TiB");
}

static void a_disk_may_be_one_file_system(void **state)
{
    static const struct {
        size_t at;
        const char *bytes;
    } systems[] = {{0x438, "\x53\xef"}, {0, "hsqs"}, {0x8001, "CD001"}};
    uint8_t *disk = malloc(IMAGE_DISK_TEST_BYTES);
    enum image_kind kind;
    for (size_t i = 0; i < UN_ARRAY_SIZE(systems); i++) {
        memset(disk, 0, IMAGE_DISK_TEST_BYTES);
        memcpy(disk + systems[i].at, systems[i].bytes, strlen(systems[i].bytes));
        assert_int_equal(
            image_recognise(disk, IMAGE_DISK_TEST_BYTES, IMAGE_DISK_TEST_BYTES, &kind, &err), 0);
        assert_int_equal(kind, IMAGE_DISK);
    }
    free(disk);
}

/* A kernel as vmlinux is linked: virtual addresses at the top, one segment at 0, a physical entry point,
 * the notes at the end of `size` bytes. */
static uint8_t *make_vmlinux(size_t size)
{
    struct elf_file f;
    uint8_t *data = calloc(1, size);
    assert_non_null(data);
    elf_make(&f);
    elf_add_note(&f, "Xen", 18, "\0\0\0\1", 4);
    uint64_t note_size = elf_program(&f, ELF_PH_NOTE)->p_filesz;
    elf_program(&f, ELF_PH_LOAD)->p_vaddr = 0xffffffff81000000;
    elf_program(&f, ELF_PH_DATA)->p_vaddr = 0;
    elf_header(&f)->e_entry = 0x1000000;
    elf_program(&f, ELF_PH_NOTE)->p_offset = size - note_size - 3;
    memcpy(data, f.data, sizeof f.data);
    memcpy(data + size - note_size - 3, f.data + ELF_NOTE_AT, note_size);
    memset(data + ELF_NOTE_AT, 0, note_size);
    return data;
}

static int recognise_fed(const uint8_t *data, size_t size, size_t piece, enum image_kind *ret)
{
    struct image_head *h = image_head_new();
    assert_non_null(h);
    for (size_t at = 0; at < size; at += piece) {
        assert_int_equal(image_head_feed(h, data + at, size - at < piece ? size - at : piece), 0);
    }
    int rc = image_head_recognise(h, ret, &err);
    image_head_free(h);
    return rc;
}

static void a_pvh_note_may_lie_late_in_the_file(void **state)
{
    static const size_t sizes[] = {9000, 65536, 65536 + 10, 65536 + 40, 300000};
    static const size_t pieces[] = {1, 7, 65536, 65537, 1 << 20};
    for (size_t i = 0; i < UN_ARRAY_SIZE(sizes); i++) {
        uint8_t *kernel = make_vmlinux(sizes[i]);
        for (size_t k = 0; k < UN_ARRAY_SIZE(pieces); k++) {
            enum image_kind kind = IMAGE_SDK;
            assert_int_equal(recognise_fed(kernel, sizes[i], pieces[k], &kind), 0);
            assert_int_equal(kind, IMAGE_PVH);
        }
        elf_program((struct elf_file *)kernel, ELF_PH_NOTE)->p_type = PT_NULL;
        enum image_kind kind;
        assert_int_equal(recognise_fed(kernel, sizes[i], 4096, &kind), -EINVAL);
        free(kernel);
    }
    uint8_t *cut = make_vmlinux(300000);
    enum image_kind kind;
    assert_int_equal(recognise_fed(cut, 299990, 4096, &kind), -EINVAL);
    assert_non_null(strstr(err.text, "do not lie in the file"));
    free(cut);
}

/* The code at the entry as well; of Unikraft's it lies behind 64 KiB. */
static void the_entry_may_lie_late_in_the_file(void **state)
{
    static const size_t places[] = {0x800, 65536 - 14, 65536 - 13, 65536 - 4,
                                    65536, 200000,     299986};
    static const size_t pieces[] = {1, 7, 65536, 65537, 1 << 20};
    enum { SIZE = 300000 };
    struct elf_file f;
    for (size_t i = 0; i < UN_ARRAY_SIZE(places); i++) {
        uint8_t *kernel = calloc(1, SIZE);
        assert_non_null(kernel);
        elf_make(&f);
        elf_program(&f, ELF_PH_LOAD)->p_vaddr = elf_program(&f, ELF_PH_LOAD)->p_paddr = 0x100000;
        elf_program(&f, ELF_PH_LOAD)->p_filesz = elf_program(&f, ELF_PH_LOAD)->p_memsz = SIZE;
        elf_header(&f)->e_entry = 0x100000 + places[i];
        elf_add_note(&f, "Xen", 18, "", 0);
        elf_program(&f, ELF_PH_NOTE)->p_type = PT_NULL;
        memcpy(kernel, f.data, 0x400);
        memcpy(kernel + places[i] + 4, asks, sizeof asks);
        memcpy(kernel + places[i], "\xf3\x0f\x1e\xfa", 4);
        for (size_t k = 0; k < UN_ARRAY_SIZE(pieces); k++) {
            enum image_kind kind = IMAGE_SDK;
            assert_int_equal(recognise_fed(kernel, SIZE, pieces[k], &kind), 0);
            assert_int_equal(kind, IMAGE_LINUX64);
        }
        memcpy(kernel + places[i], f.data + ELF_NOTE_AT, 14); /* no note, whatever it looks like */
        enum image_kind kind = IMAGE_SDK;
        assert_int_equal(recognise_fed(kernel, SIZE, 4096, &kind), 0);
        assert_int_equal(kind, IMAGE_LINUX_STATIC);
        free(kernel);
    }
}

/* The same, through an upload. */
static void a_late_note_is_seen_as_the_upload_comes(void **state)
{
    struct image_ground *ig = *state;
    uint8_t *kernel = make_vmlinux(700001);
    assert_int_equal(push(ig, kernel, 700001), 0);
    assert_int_equal(ig->a.info.kind, IMAGE_PVH);
    free(kernel);
}

/* Packs `len` bytes by one of libarchive's filters; gives how many there are. */
static size_t pack(int filter, const void *data, size_t len, void *ret, size_t size)
{
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    size_t used = 0;
    archive_write_add_filter(a, filter);
    archive_write_set_format_raw(a);
    archive_write_set_bytes_in_last_block(a, 1);
    assert_int_equal(archive_write_open_memory(a, ret, size, &used), ARCHIVE_OK);
    archive_entry_set_filetype(e, AE_IFREG);
    assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
    assert_int_equal(archive_write_data(a, data, len), len);
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
    archive_entry_free(e);
    return used;
}

static void initial_ram_disks_are_recognised(void **state)
{
    static const int filters[] = {ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_XZ, ARCHIVE_FILTER_ZSTD,
                                  ARCHIVE_FILTER_LZ4, ARCHIVE_FILTER_BZIP2};
    char cpio[1024] = "070701";
    uint8_t packed[4096];
    enum image_kind kind;
    memset(cpio + 6, '0', 104);
    strcpy(cpio + 110, "TRAILER!!!");
    cpio[510] = 0x55; /* as a boot sector ends */
    cpio[511] = (char)0xaa;
    assert_int_equal(image_recognise(cpio, sizeof cpio, sizeof cpio, &kind, &err), 0);
    assert_int_equal(kind, IMAGE_INITRD);
    for (size_t i = 0; i < UN_ARRAY_SIZE(filters); i++) {
        size_t n = pack(filters[i], cpio, sizeof cpio, packed, sizeof packed);
        if (image_recognise(packed, n, n, &kind, &err) < 0) {
            fail_msg("filter %d: %s", filters[i], err.text);
        }
        assert_int_equal(kind, IMAGE_INITRD);
        n = pack(filters[i], "no archive, but text that goes on for a while", 45, packed,
                 sizeof packed);
        assert_no_image(packed, n, n, "not an image");
    }
    /* A block that ends behind the head cannot be looked into. */
    assert_int_equal(image_recognise("BZh91AY&SY", 10, 1 << 20, &kind, &err), 0);
    assert_int_equal(kind, IMAGE_INITRD);
    cpio[50] = 'x';
    cpio[510] = 0;
    assert_no_image(cpio, sizeof cpio, sizeof cpio, "30 37 30 37");
}

static void a_flat_multiboot_kernel_needs_load_addresses(void **state)
{
    struct elf_file f = {{0}};
    elf_add_multiboot1(f.data + 0x100, 0);
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "load addresses");
    elf_add_multiboot1(f.data + 0x100, 1 << 16);
    put32(f.data + 0x10c, 0x100100);
    put32(f.data + 0x110, 0x100000);
    put32(f.data + 0x114, 0x102000);
    put32(f.data + 0x11c, 0x100200);
    assert_kind(&f, IMAGE_MULTIBOOT1);
    put32(f.data + 0x114, 0x102001);
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "load_end_addr");
    put32(f.data + 0x110, 0x0fffff);
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "header_addr");
}

static void lies_are_refused_with_the_field(void **state)
{
    struct elf_file f;
    elf_make_sdk(&f);
    elf_program(&f, ELF_PH_DATA)->p_memsz = 1ull << 40;
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "segments span 1048");
    elf_make_sdk(&f);
    elf_program(&f, ELF_PH_LOAD)->p_vaddr = 0x100000;
    elf_header(&f)->e_entry = 0x100800;
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "segment at 0x100000");
    elf_make_sdk(&f);
    f.data[ELF_NOTE_AT + 20] = 9;
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "guest interface 9");
    elf_make(&f);
    elf_add_note(&f, "unid", 1, "\1\0", 2);
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "SDK note: 2 bytes");
    elf_make(&f);
    elf_header(&f)->e_machine = EM_AARCH64;
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "machine 183");
    elf_make32(&f);
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "32-bit program");
    elf_make(&f);
    elf_program(&f, ELF_PH_DATA)->p_vaddr = 0xffffffff81000000;
    elf_program(&f, ELF_PH_LOAD)->p_vaddr = 0xffffffff80000000;
    elf_header(&f)->e_entry = 0xffffffff80000100;
    assert_no_image(f.data, sizeof f.data, sizeof f.data, "a kernel");
}

static void the_wrong_file_is_named(void **state)
{
    assert_no_image("", 0, 0, "empty");
    assert_no_image("#!/bin/sh\n", 10, 10, "a script");
    assert_no_image("\x1f\x8b\x08", 3, 3, "gzip");
    assert_no_image("hello world", 11, 11, "68 65 6c 6c");
    assert_no_image("x", 1, 1, "not an image");
    assert_no_image("\x7f"
                    "ELF",
                    4, 4, "ELF:");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paging_images_may_have_segments_in_the_direct_map),
        cmocka_unit_test(programs_are_told_apart),
        cmocka_unit_test(kernels_are_told_apart),
        cmocka_unit_test(kernels_of_linux_64_bit_protocol_are_told_from_programs),
        cmocka_unit_test(what_a_kernel_says_besides_goes_first),
        cmocka_unit_test(a_vmlinux_without_a_note_is_entered_at_its_physical_address),
        cmocka_unit_test(the_entry_may_lie_late_in_the_file),
        cmocka_unit_test(what_qemu_does_not_load_needs_a_loader),
        cmocka_unit_test(a_header_must_be_aligned_and_add_up),
        cmocka_unit_test(a_bzimage_is_recognised_and_held_to_its_sizes),
        cmocka_unit_test(disks_are_recognised),
        cmocka_unit_test(a_qcow2_that_names_other_files_is_refused),
        cmocka_unit_test(a_qcow2_that_cannot_be_run_is_refused),
        cmocka_unit_test(a_disk_may_be_one_file_system),
        cmocka_unit_test(a_pvh_note_may_lie_late_in_the_file),
        TEST(a_late_note_is_seen_as_the_upload_comes),
        cmocka_unit_test(initial_ram_disks_are_recognised),
        cmocka_unit_test(a_flat_multiboot_kernel_needs_load_addresses),
        cmocka_unit_test(lies_are_refused_with_the_field),
        cmocka_unit_test(the_wrong_file_is_named),
    };
    return cmocka_run_group_tests_name("recognise", tests, NULL, NULL);
}
