/* test_elf.c - what the ELF reader accepts, and that it sees through headers that lie. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/elf.h"
#include "common/linux64.h"
#include "tests/unit/elf_support.h"

static struct un_error err;

static int parse(struct elf_file *f, struct un_elf *ret)
{
    return un_elf_parse(f->data, sizeof f->data, sizeof f->data, ret, &err);
}

/* The file is refused, and the text says `why`. */
static void assert_refused(struct elf_file *f, const char *why)
{
    struct un_elf elf;
    memset(&elf, 0x5a, sizeof elf);
    assert_int_equal(parse(f, &elf), -EINVAL);
    if (!strstr(err.text, why)) {
        fail_msg("\"%s\" does not say \"%s\"", err.text, why);
    }
    assert_int_equal(elf.phnum, 0x5a5a); /* untouched */
}

static void a_program_is_read(void **state)
{
    struct elf_file f;
    struct un_elf elf;
    elf_make(&f);
    assert_int_equal(parse(&f, &elf), 0);
    assert_true(elf.is64);
    assert_int_equal(elf.type, ET_EXEC);
    assert_int_equal(elf.machine, EM_X86_64);
    assert_int_equal(elf.entry, 0x400800);
    assert_int_equal(elf.segment_count, 2);
    assert_int_equal(elf.low, 0x400000);
    assert_int_equal(elf.high, 0x411000);
    assert_true(elf.segments[0].executable && !elf.segments[0].writable);
    assert_true(elf.segments[1].writable && !elf.segments[1].executable);
    assert_int_equal(elf.segments[1].offset, 4096);
    assert_int_equal(elf.segments[1].file_size, 4096);
    assert_int_equal(elf.segments[1].mem_size, 65536);
    assert_false(elf.has_interp);
}

static void a_32_bit_kernel_is_read(void **state)
{
    struct elf_file f;
    struct un_elf elf;
    elf_make32(&f);
    assert_int_equal(parse(&f, &elf), 0);
    assert_false(elf.is64);
    assert_int_equal(elf.low, 0x100000);
    assert_int_equal(elf.high, 0x102000);
}

static void segments_come_by_address(void **state)
{
    struct elf_file f;
    struct un_elf elf;
    elf_make(&f);
    Elf64_Phdr first = *elf_program(&f, ELF_PH_LOAD);
    *elf_program(&f, ELF_PH_LOAD) = *elf_program(&f, ELF_PH_DATA);
    *elf_program(&f, ELF_PH_DATA) = first;
    assert_int_equal(parse(&f, &elf), 0);
    assert_int_equal(elf.segments[0].vaddr, 0x400000);
    assert_int_equal(elf.segments[1].vaddr, 0x401000);
}

static void every_cut_of_the_file_is_refused_or_whole(void **state)
{
    struct elf_file f;
    struct un_elf elf;
    elf_make_sdk(&f);
    elf_add_interp(&f);
    for (size_t len = 0; len < sizeof f.data; len++) {
        uint8_t *exact = malloc(len + !len); /* so that a read past the end is seen */
        memcpy(exact, f.data, len);
        assert_true(un_elf_parse(exact, len, len, &elf, &err) < 0);
        free(exact);
    }
    /* The head alone is enough when the file is as long as it says. */
    size_t head = sizeof(Elf64_Ehdr) + ELF_PH_COUNT * sizeof(Elf64_Phdr);
    assert_int_equal(un_elf_parse(f.data, head, sizeof f.data, &elf, &err), 0);
    assert_true(un_elf_parse(f.data, head - 1, sizeof f.data, &elf, &err) < 0);
}

static void lies_about_the_headers_are_seen(void **state)
{
    struct elf_file f;
    elf_make(&f);
    elf_header(&f)->e_phoff = sizeof f.data - 8;
    assert_refused(&f, "program headers at offset");
    elf_make(&f);
    elf_header(&f)->e_phoff = UINT64_MAX - 7;
    assert_refused(&f, "program headers at offset");
    elf_make(&f);
    elf_header(&f)->e_phnum = 0xffff;
    assert_refused(&f, "65535 program headers");
    elf_make(&f);
    elf_header(&f)->e_phnum = 0;
    assert_refused(&f, "0 program headers");
    elf_make(&f);
    elf_header(&f)->e_phentsize = 32;
    assert_refused(&f, "of 32 bytes");
    elf_make(&f);
    elf_header(&f)->e_type = ET_REL;
    assert_refused(&f, "type 1");
    elf_make(&f);
    elf_header(&f)->e_ident[EI_CLASS] = 3;
    assert_refused(&f, "class 3");
}

static void lies_about_segments_are_seen(void **state)
{
    struct elf_file f;
    elf_make(&f);
    elf_program(&f, ELF_PH_DATA)->p_offset = 4097;
    assert_refused(&f, "do not lie in the file");
    elf_make(&f);
    elf_program(&f, ELF_PH_DATA)->p_offset = UINT64_MAX - 100;
    assert_refused(&f, "do not lie in the file");
    elf_make(&f);
    elf_program(&f, ELF_PH_DATA)->p_memsz = 4095;
    assert_refused(&f, "4096 bytes in the file and 4095 in memory");
    elf_make(&f);
    elf_program(&f, ELF_PH_DATA)->p_memsz = UINT64_MAX - 0x400000;
    assert_refused(&f, "pass the end of the address space");
    elf_make(&f);
    elf_program(&f, ELF_PH_DATA)->p_vaddr = 0x400fff;
    assert_refused(&f, "overlap");
    elf_make(&f);
    elf_program(&f, ELF_PH_LOAD)->p_type = PT_NULL;
    elf_program(&f, ELF_PH_DATA)->p_type = PT_NULL;
    assert_refused(&f, "nothing to load");
}

static void segments_without_bytes_may_lie_anywhere(void **state)
{
    static const uint64_t offsets[] = {sizeof((struct elf_file *)0)->data + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        struct elf_file f;
        struct un_elf elf;
        elf_make(&f);
        Elf64_Phdr *data = elf_program(&f, ELF_PH_DATA);
        data->p_filesz = 0;
        data->p_offset = offsets[i];
        assert_int_equal(un_elf_parse(f.data, sizeof f.data, sizeof f.data, &elf, &err), 0);
        const struct un_elf_segment *last = &elf.segments[elf.segment_count - 1];
        assert_int_equal(last->vaddr, data->p_vaddr);
        assert_int_equal(last->mem_size, data->p_memsz);
        assert_int_equal(last->file_size, 0);
        assert_int_equal(last->offset, 0);
        data->p_filesz = 1;
        assert_refused(&f, "do not lie in the file");
    }
}

static void lies_in_32_bit_headers_are_seen(void **state)
{
    struct elf_file f;
    elf_make32(&f);
    Elf32_Phdr *ph = (Elf32_Phdr *)(f.data + sizeof(Elf32_Ehdr));
    ph->p_filesz = sizeof f.data + 1;
    ph->p_memsz = sizeof f.data + 1;
    assert_refused(&f, "do not lie in the file");
    elf_make32(&f);
    ph->p_vaddr = 0xfffff000; /* passes 4 GiB, which a 32-bit kernel cannot mean */
    ph->p_memsz = 0x2000;
    ((Elf32_Ehdr *)f.data)->e_entry = 0xfffff800;
    assert_refused(&f, "pass the end of the address space");
}

static void the_entry_must_be_executable(void **state)
{
    struct elf_file f;
    elf_make(&f);
    elf_header(&f)->e_entry = 0x401000;
    assert_refused(&f, "entry point 0x401000");
    elf_make(&f);
    elf_header(&f)->e_entry = 0;
    assert_refused(&f, "entry point 0x0");
    elf_make(&f);
    elf_header(&f)->e_entry = 0x411000;
    assert_refused(&f, "entry point");
}

static void empty_segments_do_not_count(void **state)
{
    struct elf_file f;
    struct un_elf elf;
    elf_make(&f);
    elf_program(&f, ELF_PH_DATA)->p_filesz = 0;
    elf_program(&f, ELF_PH_DATA)->p_memsz = 0;
    elf_program(&f, ELF_PH_DATA)->p_vaddr = 0x400800; /* inside the other: harmless, it is empty */
    assert_int_equal(parse(&f, &elf), 0);
    assert_int_equal(elf.segment_count, 1);
}

static void too_many_segments_are_refused(void **state)
{
    struct elf_file f;
    elf_make(&f);
    Elf64_Phdr one = *elf_program(&f, ELF_PH_LOAD);
    elf_header(&f)->e_phnum = UN_ELF_SEGMENTS_MAX + 1;
    for (unsigned i = 0; i <= UN_ELF_SEGMENTS_MAX; i++) {
        *elf_program(&f, i) = one;
        elf_program(&f, i)->p_vaddr = 0x400000 + i * 0x1000;
    }
    assert_refused(&f, "more than 64 segments");
}

static void other_machines_are_not_supported(void **state)
{
    struct elf_file f;
    struct un_elf elf;
    elf_make(&f);
    elf_header(&f)->e_machine = EM_AARCH64;
    assert_int_equal(parse(&f, &elf), -ENOTSUP);
    elf_make(&f);
    elf_header(&f)->e_ident[EI_DATA] = ELFDATA2MSB;
    assert_int_equal(parse(&f, &elf), -ENOTSUP);
    elf_make(&f);
    elf_header(&f)->e_machine = EM_386;
    assert_int_equal(parse(&f, &elf), -ENOTSUP);
}

static void a_note_is_found_by_owner_and_type(void **state)
{
    struct elf_file f;
    struct un_elf elf;
    struct un_elf_note note = {0};
    elf_make_sdk(&f);
    assert_int_equal(parse(&f, &elf), 0);
    assert_true(un_elf_find_note(f.data, sizeof f.data, &elf, "unid", 1, &note));
    assert_int_equal(note.offset, ELF_NOTE_AT + 12 + 8);
    assert_int_equal(note.size, 8);
    assert_false(un_elf_find_note(f.data, sizeof f.data, &elf, "unid", 2, &note));
    assert_false(un_elf_find_note(f.data, sizeof f.data, &elf, "unix", 1, &note));
    assert_false(un_elf_find_note(f.data, sizeof f.data, &elf, "uni", 1, &note));
    /* Not where it lies behind what was handed over. */
    assert_false(un_elf_find_note(f.data, ELF_NOTE_AT + 16, &elf, "unid", 1, &note));
}

static void the_second_of_two_notes_is_found(void **state)
{
    struct elf_file f;
    struct un_elf elf;
    struct un_elf_note note;
    elf_make(&f);
    elf_add_note(&f, "GNU", 3, "12345", 5); /* 12 + 4 + 8 bytes */
    uint8_t *second = f.data + ELF_NOTE_AT + 24;
    memcpy(second, "\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0abcd", 20);
    elf_program(&f, ELF_PH_NOTE)->p_filesz = 44;
    assert_int_equal(parse(&f, &elf), 0);
    assert_true(un_elf_find_note(f.data, sizeof f.data, &elf, "Xen", 18, &note));
    assert_memory_equal(f.data + note.offset, "abcd", 4);
}

static void malformed_notes_are_not_found(void **state)
{
    struct elf_file f;
    struct un_elf elf;
    struct un_elf_note note;
    elf_make_sdk(&f);
    put32(f.data + ELF_NOTE_AT, 0xffffffff); /* name size */
    assert_int_equal(parse(&f, &elf), 0);
    assert_false(un_elf_find_note(f.data, sizeof f.data, &elf, "unid", 1, &note));
    elf_make_sdk(&f);
    put32(f.data + ELF_NOTE_AT + 4, 0xffffffff); /* descriptor size */
    assert_false(un_elf_find_note(f.data, sizeof f.data, &elf, "unid", 1, &note));
    elf_make_sdk(&f);
    elf_program(&f, ELF_PH_NOTE)->p_filesz = 13; /* the segment ends in the name */
    assert_false(un_elf_find_note(f.data, sizeof f.data, &elf, "unid", 1, &note));
}

/* More of it through images: test_recognise.c. */
static void code_at_a_physical_entry_is_found(void **state)
{
    struct elf_file f;
    struct un_elf elf;
    uint64_t at = 0;
    elf_make(&f);
    elf_program(&f, ELF_PH_LOAD)->p_paddr = 0x400000;
    memcpy(f.data + 0x800, "\x81\xbe\x02\x02\0\0HdrS", 10);
    assert_int_equal(un_elf_parse(f.data, sizeof f.data, sizeof f.data, &elf, &err), 0);
    assert_true(un_linux64_code(&elf, &at));
    assert_int_equal(at, 0x800);
    assert_int_equal(un_linux64_file(f.data, sizeof f.data, &elf), UN_LINUX64_ASKS);
    for (size_t len = 0; len < 10; len++) { /* of what is not there nothing is read */
        uint8_t *code = malloc(len ? len : 1);
        assert_non_null(code);
        memcpy(code, f.data + 0x800, len);
        assert_int_equal(un_linux64_is(&elf, code, len), UN_LINUX64_NOT);
        free(code);
        assert_int_equal(un_linux64_file(f.data, 0x800 + len, &elf), UN_LINUX64_NOT);
        assert_int_equal(un_linux64_file(f.data, 0x7ff, &elf), UN_LINUX64_NOT);
    }
    elf.entry = 0x400000 + 4096; /* behind the segment's bytes */
    assert_false(un_linux64_code(&elf, &at));
    elf.entry = 0x400800;
    elf.segments[0].vaddr = 0xffffffff80000000;
    f.data[0x800] = 0x90;
    assert_int_equal(un_linux64_file(f.data, sizeof f.data, &elf), UN_LINUX64_HIGH);
    elf.is64 = false;
    assert_int_equal(un_linux64_file(f.data, sizeof f.data, &elf), UN_LINUX64_NOT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_program_is_read),
        cmocka_unit_test(a_32_bit_kernel_is_read),
        cmocka_unit_test(segments_come_by_address),
        cmocka_unit_test(every_cut_of_the_file_is_refused_or_whole),
        cmocka_unit_test(lies_about_the_headers_are_seen),
        cmocka_unit_test(lies_about_segments_are_seen),
        cmocka_unit_test(segments_without_bytes_may_lie_anywhere),
        cmocka_unit_test(lies_in_32_bit_headers_are_seen),
        cmocka_unit_test(the_entry_must_be_executable),
        cmocka_unit_test(empty_segments_do_not_count),
        cmocka_unit_test(too_many_segments_are_refused),
        cmocka_unit_test(other_machines_are_not_supported),
        cmocka_unit_test(a_note_is_found_by_owner_and_type),
        cmocka_unit_test(the_second_of_two_notes_is_found),
        cmocka_unit_test(malformed_notes_are_not_found),
        cmocka_unit_test(code_at_a_physical_entry_is_found),
    };
    return cmocka_run_group_tests_name("elf", tests, NULL, NULL);
}
