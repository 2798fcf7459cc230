/* test_prepare.c - root file systems out of archives, the judgement of programs, prepared images. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/limits.h"
#include "prepare/program.h"
#include "prepare/rewrite.h"
#include "prepare/tar.h"
#include "tests/unit/elf_support.h"
#include "unid/rootfs.h"

/* --- making archives -------------------------------------------------------------------------- */

struct tar {
    struct archive *a;
    struct un_buf whole;
};

static la_ssize_t take(struct archive *a, void *arg, const void *data, size_t len)
{
    struct tar *t = arg;
    (void)a;
    return un_buf_append(&t->whole, data, len) < 0 ? -1 : (la_ssize_t)len;
}

static void tar_open(struct tar *t, const char *filter)
{
    *t = (struct tar){.a = archive_write_new()};
    assert_int_equal(archive_write_set_format_pax_restricted(t->a), ARCHIVE_OK);
    if (filter) {
        assert_int_equal(archive_write_add_filter_by_name(t->a, filter), ARCHIVE_OK);
    }
    archive_write_set_bytes_in_last_block(t->a, 1); /* zstd's reader takes no padding */
    assert_int_equal(archive_write_open(t->a, t, NULL, take, NULL), ARCHIVE_OK);
}

static void tar_add(struct tar *t, const char *path, mode_t mode, const char *link,
                    const void *data, size_t len)
{
    struct archive_entry *e = archive_entry_new();
    archive_entry_set_pathname(e, path);
    archive_entry_set_mode(e, mode);
    archive_entry_set_mtime(e, 1700000000, 0);
    archive_entry_set_uid(e, 33);
    archive_entry_set_size(e, (la_int64_t)len);
    if (link && S_ISLNK(mode)) {
        archive_entry_set_symlink(e, link);
    } else if (link) {
        archive_entry_set_hardlink(e, link);
    }
    assert_true(archive_write_header(t->a, e) >= ARCHIVE_WARN); /* names outside of ASCII */
    if (len) {
        assert_int_equal(archive_write_data(t->a, data, len), (la_ssize_t)len);
    }
    archive_entry_free(e);
}

static void tar_file(struct tar *t, const char *path, const char *text)
{
    tar_add(t, path, S_IFREG | 0644, NULL, text, strlen(text));
}

static void tar_close(struct tar *t)
{
    assert_int_equal(archive_write_close(t->a), ARCHIVE_OK);
    archive_write_free(t->a);
}

/* --- preparing -------------------------------------------------------------------------------- */

struct prepared {
    int rc;
    struct un_error err;
    struct prepare_result result;
    uint8_t *image; /* mapped */
    const struct unid_rootfs *fs;
};

static void prepared_done(struct prepared *p)
{
    if (p->image) {
        munmap(p->image, p->result.size);
    }
    json_decref(p->result.report);
    *p = (struct prepared){0};
}

static void prepare_bytes(const void *data, size_t len, struct prepared *p)
{
    un_autoclose int fd = memfd_create("prepared", MFD_CLOEXEC);
    struct un_elf elf;
    const struct prepare_spec spec = {.data = data, .size = len, .fd = fd};
    *p = (struct prepared){0};
    p->rc = prepare_program(&spec, &p->result, &p->err);
    if (p->rc < 0) {
        return;
    }
    p->image = mmap(NULL, p->result.size, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(p->image, MAP_FAILED);
    assert_int_equal(un_elf_parse(p->image, p->result.size, p->result.size, &elf, &p->err), 0);
    const struct un_elf_segment *s = &elf.segments[elf.segment_count - 1];
    struct unid_rootfs_where where;
    uint64_t at;
    assert_true(un_elf_offset(&elf, UNID_ROOTFS_WHERE_ADDR, sizeof where, &at));
    memcpy(&where, p->image + at, sizeof where);
    assert_int_equal(where.phys, UNID_LIBOS_END);
    assert_int_equal(where.phys + UNID_DIRECT_MAP, s->vaddr);
    assert_int_equal(where.size, s->file_size);
    assert_false(s->writable || s->executable);
    p->fs = (const struct unid_rootfs *)(p->image + s->offset);
    assert_int_equal(p->fs->magic, UNID_ROOTFS_MAGIC);
    assert_int_equal(p->fs->version, UNID_ROOTFS_VERSION);
    assert_int_equal(p->fs->size, where.size);
    assert_int_equal(p->fs->size % 4096, 0);
}

static void prepare_tar(struct tar *t, struct prepared *p)
{
    tar_close(t);
    prepare_bytes(t->whole.data, t->whole.len, p);
    un_buf_done(&t->whole);
}

static const struct unid_rootfs_inode *inode_at(const struct prepared *p, uint32_t i)
{
    assert_true(i < p->fs->inode_count);
    return (const struct unid_rootfs_inode *)((const uint8_t *)p->fs + p->fs->inodes) + i;
}

/* By path, links not followed; checks on the way that directories are sorted. */
static uint32_t find(const struct prepared *p, const char *path)
{
    uint32_t at = 0;
    const struct unid_rootfs_dirent *all =
        (const struct unid_rootfs_dirent *)((const uint8_t *)p->fs + p->fs->dirents);
    const char *names = (const char *)p->fs + p->fs->strings;
    while (*path) {
        size_t len = strcspn(path, "/");
        const struct unid_rootfs_inode *dir = inode_at(p, at);
        uint32_t found = 0;
        assert_true(S_ISDIR(dir->mode));
        for (uint32_t i = 0; i < dir->count; i++) {
            const struct unid_rootfs_dirent *d = &all[dir->dirents + i];
            if (i > 0) {
                size_t least = d->name_len < d[-1].name_len ? d->name_len : d[-1].name_len;
                int order = memcmp(names + d[-1].name, names + d->name, least);
                assert_true(order < 0 || (order == 0 && d[-1].name_len < d->name_len));
            }
            if (d->name_len == len && memcmp(names + d->name, path, len) == 0) {
                found = d->inode;
            }
        }
        if (!found) {
            return UINT32_MAX;
        }
        at = found;
        path += len + (path[len] == '/');
    }
    return at;
}

static void assert_text(const struct prepared *p, const char *path, const char *want)
{
    const struct unid_rootfs_inode *i = inode_at(p, find(p, path));
    assert_int_equal(i->size, strlen(want));
    assert_memory_equal((const uint8_t *)p->fs + i->data, want, strlen(want));
}

static void assert_refused(struct prepared *p, int rc, const char *why)
{
    if (p->rc != rc || !strstr(p->err.text, why)) {
        fail_msg("%d \"%s\" is not %d \"%s\"", p->rc, p->err.text, rc, why);
    }
    prepared_done(p);
}

/* --- archives --------------------------------------------------------------------------------- */

static void an_archive_becomes_a_tree(void **state)
{
    const char *const filters[] = {NULL, "gzip", "xz", "zstd", "bzip2"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(filters); i++) {
        struct tar t;
        struct prepared p;
        tar_open(&t, filters[i]);
        tar_file(&t, "./b/z", "last");
        tar_file(&t, "b/a", "first");
        tar_add(&t, "b", S_IFDIR | 0700, NULL, NULL, 0);
        tar_add(&t, "/link", S_IFLNK | 0777, "/b/a", NULL, 0);
        tar_add(&t, "again", S_IFREG | 0644, "b/a", NULL, 0);
        tar_file(&t, "b/z", "replaced");
        tar_file(&t, "b/\303\244", "umlaut");
        tar_file(&t, "empty", "");
        prepare_tar(&t, &p);
        assert_string_equal(p.err.text, "");
        assert_text(&p, "b/a", "first");
        assert_text(&p, "b/z", "replaced");
        assert_text(&p, "b/\303\244", "umlaut");
        assert_text(&p, "empty", "");
        assert_text(&p, "link", "/b/a");
        assert_int_equal(find(&p, "again"), find(&p, "b/a"));
        const struct unid_rootfs_inode *a = inode_at(&p, find(&p, "b/a"));
        assert_int_equal(a->links, 2);
        assert_int_equal(a->mode, S_IFREG | 0644);
        assert_int_equal(a->uid, 33);
        assert_int_equal(a->mtime_s, 1700000000);
        assert_int_equal(a->data % 4096, 0);
        assert_int_equal(inode_at(&p, find(&p, "b"))->mode, S_IFDIR | 0700);
        assert_int_equal(inode_at(&p, find(&p, "tmp"))->mode, S_IFDIR | 01777);
        assert_int_equal(inode_at(&p, 0)->links, 2 + 4); /* b, dev, proc, tmp */
        prepared_done(&p);
    }
}

static void paths_stay_inside(void **state)
{
    const char *const bad[] = {"../x", "a/../../x", "a/..", "/../etc/passwd"};
    struct prepared p;
    struct tar t;
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        tar_open(&t, NULL);
        tar_file(&t, bad[i], "x");
        prepare_tar(&t, &p);
        assert_refused(&p, -EINVAL, "..");
    }
    tar_open(&t, NULL);
    tar_add(&t, "out", S_IFLNK | 0777, "/etc", NULL, 0);
    tar_file(&t, "out/passwd", "x");
    prepare_tar(&t, &p);
    assert_refused(&p, -EINVAL, "no directory");
    tar_open(&t, NULL);
    tar_add(&t, "h", S_IFREG | 0644, "/etc/passwd", NULL, 0);
    prepare_tar(&t, &p);
    assert_refused(&p, -EINVAL, "hard link");
    tar_open(&t, NULL);
    tar_add(&t, "h", S_IFREG | 0644, "../h", NULL, 0);
    prepare_tar(&t, &p);
    assert_refused(&p, -EINVAL, "hard link");
    tar_open(&t, NULL);
    tar_file(&t, "a", "x");
    tar_add(&t, "a", S_IFDIR | 0755, NULL, NULL, 0);
    prepare_tar(&t, &p);
    assert_refused(&p, -EINVAL, "where a file was");
}

static void devices_are_left_out_of_dev_and_refused_elsewhere(void **state)
{
    struct prepared p;
    struct tar t;
    tar_open(&t, NULL);
    tar_add(&t, "./dev/null", S_IFCHR | 0666, NULL, NULL, 0);
    tar_add(&t, "dev/initctl", S_IFIFO | 0666, NULL, NULL, 0);
    tar_file(&t, "f", "x");
    prepare_tar(&t, &p);
    assert_int_equal(p.rc, 0);
    assert_int_equal(find(&p, "dev/null"), UINT32_MAX);
    assert_int_equal(json_integer_value(json_object_get(p.result.report, "devices_left_out")), 2);
    prepared_done(&p);
    tar_open(&t, NULL);
    tar_add(&t, "var/disk", S_IFBLK | 0666, NULL, NULL, 0);
    prepare_tar(&t, &p);
    assert_refused(&p, -EINVAL, "var/disk: a device");
}

static void too_many_files_are_refused(void **state)
{
    struct prepared p;
    struct tar t;
    char name[32];
    tar_open(&t, "gzip");
    for (int i = 0; i < LIMIT_ROOTFS_FILES + 1; i++) {
        snprintf(name, sizeof name, "f%d", i);
        tar_add(&t, name, S_IFREG | 0644, NULL, NULL, 0);
    }
    prepare_tar(&t, &p);
    assert_refused(&p, -EFBIG, "more than 200000 files");
}

/* What comes again takes the place of what was there: the number of files is no bound of these. */
static void endless_repetitions_are_refused(void **state)
{
    static char target[PATH_MAX - 1];
    struct prepared p;
    struct tar t;
    memset(target, 'x', sizeof target - 1);
    tar_open(&t, "gzip");
    for (size_t i = 0; i < LIMIT_ROOTFS_NAMES / (sizeof target - 1) + 1; i++) {
        tar_add(&t, "link", S_IFLNK | 0777, target, NULL, 0);
    }
    prepare_tar(&t, &p);
    assert_refused(&p, -EFBIG, "MiB of names");
    tar_open(&t, "gzip");
    for (int i = 0; i < LIMIT_ROOTFS_ENTRIES + 1; i++) {
        tar_add(&t, "d", S_IFDIR | 0755, NULL, NULL, 0);
    }
    prepare_tar(&t, &p);
    assert_refused(&p, -EFBIG, "more than 400000 entries");
}

/* A file of `size` bytes with "data" in its middle, as GNU and pax archives hold it. */
static void tar_sparse(struct tar *t, const char *path, int64_t size, int64_t at)
{
    struct archive_entry *e = archive_entry_new();
    static const char zeros[512];
    archive_entry_set_pathname(e, path);
    archive_entry_set_mode(e, S_IFREG | 0644);
    archive_entry_set_size(e, size);
    archive_entry_sparse_add_entry(e, at, 512);
    assert_int_equal(archive_write_header(t->a, e), ARCHIVE_OK);
    for (int64_t i = 0; i < size && i <= at; i += 512) {
        assert_int_equal(archive_write_data(t->a, i == at ? "data" : zeros, i == at ? 4 : 512),
                         i == at ? 4 : 512);
    }
    archive_entry_free(e);
}

static void sparse_files_keep_their_holes_and_their_limits(void **state)
{
    struct prepared p;
    struct tar t;
    tar_open(&t, NULL);
    tar_sparse(&t, "s", 1 << 20, 512 * 1000);
    prepare_tar(&t, &p);
    assert_int_equal(p.rc, 0);
    const struct unid_rootfs_inode *s = inode_at(&p, find(&p, "s"));
    const uint8_t *data = (const uint8_t *)p.fs + s->data;
    assert_int_equal(s->size, 1 << 20);
    assert_memory_equal(data + 512 * 1000, "data", 5);
    assert_int_equal(data[0] | data[512 * 1000 - 1] | data[s->size - 1], 0);
    prepared_done(&p);
    tar_open(&t, NULL);
    tar_sparse(&t, "s", (int64_t)LIMIT_ROOTFS_BYTES + 1, 0);
    prepare_tar(&t, &p);
    assert_refused(&p, -EFBIG, "MiB");
}

static void damaged_archives_are_refused(void **state)
{
    struct prepared p;
    struct tar t;
    tar_open(&t, NULL);
    tar_file(&t, "f", "some text in a file");
    tar_file(&t, "g", "more");
    tar_close(&t);
    prepare_bytes(t.whole.data, 600, &p); /* ends in the first file's block */
    assert_refused(&p, -EINVAL, "f: ");
    prepare_bytes("no archive", 10, &p);
    assert_refused(&p, -EINVAL, "tar archive");
    t.whole.data[1024] ^= 1; /* the second header's checksum */
    prepare_bytes(t.whole.data, t.whole.len, &p);
    assert_refused(&p, -EINVAL, "tar archive");
    un_buf_done(&t.whole);
}

static void the_configuration_names_the_program(void **state)
{
    struct tar_result r = {.program = ""};
    struct un_error err = UN_ERROR_INIT;
    const char *const bad[] = {"",
                               "[]",
                               "{\"program\":1}",
                               "{\"program\":\"jq\"}",
                               "{\"x\":1}",
                               "{\"program\":\"/a\\u0000b\"}"};
    assert_int_equal(tar_read_config("{\"program\":\"/a\"}", 16, &r, &err), 0);
    assert_string_equal(r.program, "/a");
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        assert_int_equal(tar_read_config(bad[i], strlen(bad[i]), &r, &err), -EINVAL);
        assert_non_null(strstr(err.text, ".unid.json"));
        assert_string_equal(r.program, "/a");
    }
}

static void the_same_input_gives_the_same_image(void **state)
{
    struct prepared one, two;
    struct tar t;
    tar_open(&t, NULL);
    tar_file(&t, "b/z", "last");
    tar_file(&t, "a", "first");
    tar_close(&t);
    prepare_bytes(t.whole.data, t.whole.len, &one);
    prepare_bytes(t.whole.data, t.whole.len, &two);
    assert_int_equal(one.result.size, two.result.size);
    assert_memory_equal(one.image, two.image, one.result.size);
    prepared_done(&one);
    prepared_done(&two);
    un_buf_done(&t.whole);
}

/* --- programs --------------------------------------------------------------------------------- */

static void refuse_program(struct elf_file *f, const char *why)
{
    struct prepared p;
    prepare_bytes(f->data, sizeof f->data, &p);
    assert_refused(&p, -EINVAL, why);
}

static void bad_programs_are_refused_with_the_reason(void **state)
{
    struct elf_file f;
    struct prepared p;
    elf_make(&f);
    elf_program(&f, ELF_PH_DATA)->p_flags = PF_R | PF_W | PF_X;
    refuse_program(&f, "writable and executable");
    elf_make(&f);
    elf_header(&f)->e_machine = EM_AARCH64;
    refuse_program(&f, "only x86");
    elf_make(&f);
    elf_header(&f)->e_entry = 0x500000;
    refuse_program(&f, "entry point");
    elf_make(&f);
    elf_program(&f, ELF_PH_LOAD)->p_vaddr = 0x300000;
    elf_header(&f)->e_entry = 0x300800;
    refuse_program(&f, "0x300000");
    elf_make(&f);
    *elf_program(&f, ELF_PH_NOTE) =
        (Elf64_Phdr){.p_type = PT_TLS, .p_memsz = (uint64_t)LIMIT_PROGRAM_TLS_BYTES + 1};
    refuse_program(&f, "thread-local storage");
    elf_make(&f);
    *elf_program(&f, ELF_PH_NOTE) = (Elf64_Phdr){.p_type = PT_TLS, .p_filesz = 64, .p_memsz = 32};
    refuse_program(&f, "thread-local storage");
    elf_make(&f);
    elf_add_interp(&f);
    refuse_program(&f, "interpreter");
    elf_make(&f);
    prepare_bytes(f.data, 4096 + 100, &p); /* truncated */
    assert_refused(&p, -EINVAL, "do not lie in the file");
    elf_make32(&f);
    refuse_program(&f, "32-bit");
    elf_make(&f);
    prepare_bytes(f.data, sizeof f.data, &p);
    assert_int_equal(p.rc, 0);
    assert_int_equal(p.result.memory_advised % (2 << 20), 0);
    assert_true(p.result.memory_least < p.result.memory_advised);
    prepared_done(&p);
}

static void what_does_not_run_is_named_whatever_runs_beside_it(void **state)
{
    struct prepared p;
    struct tar t;
    tar_open(&t, NULL);
    tar_file(&t, ".unid.json", "{\"program\":\"/bin/x\"}");
    tar_file(&t, "f", "x");
    prepare_tar(&t, &p);
    assert_non_null(json_object_get(p.result.report, "problems"));
    assert_refused(&p, -EINVAL, "/bin/x: the program is not in the root file system");
    tar_open(&t, NULL);
    tar_file(&t, ".unid.json", "{\"program\":\"/script\"}");
    tar_file(&t, "script", "#! /bin/sh -e\necho\n");
    prepare_tar(&t, &p);
    assert_refused(&p, -EINVAL, "/bin/sh: is the interpreter of a script");
    tar_open(&t, NULL);
    tar_file(&t, ".unid.json", "{\"program\":\"/a\"}");
    tar_add(&t, "a", S_IFLNK | 0777, "b", NULL, 0);
    tar_add(&t, "b", S_IFLNK | 0777, "/a", NULL, 0);
    prepare_tar(&t, &p);
    assert_refused(&p, -EINVAL, "/a: the program is not");
}

static void a_site_that_cannot_be_rewritten_refuses_the_program(void **state)
{
    /* Both neighbours are jumped to, and there is no padding. */
    static const uint8_t text[] = {0x31, 0xc0, 0x74, 0x00, 0x0f, 0x05,
                                   0x74, 0xfc, 0x74, 0xfc, 0xc3};
    struct prepared p;
    struct elf_file f;
    struct tar t;
    elf_make(&f);
    memset(f.data + 0x800, 0x06, 0x800); /* no instruction */
    memcpy(f.data + 0x800, text, sizeof text);
    elf_program(&f, ELF_PH_LOAD)->p_offset = 0x800;
    elf_program(&f, ELF_PH_LOAD)->p_vaddr = 0x400800;
    elf_program(&f, ELF_PH_LOAD)->p_filesz = sizeof text;
    elf_program(&f, ELF_PH_LOAD)->p_memsz = sizeof text;
    prepare_bytes(f.data, sizeof f.data, &p);
    json_t *elf = json_array_get(json_object_get(p.result.report, "elf"), 0);
    json_t *problem = json_array_get(json_object_get(elf, "problems"), 0);
    assert_string_equal(json_string_value(json_object_get(problem, "address")), "0x400804");
    assert_refused(&p, -EINVAL, "at 0x400804: no room for a jump");
    /* Beside the program that runs, it is a warning: it would end the machine, were it reached. */
    struct elf_file good;
    elf_make(&good);
    tar_open(&t, NULL);
    tar_file(&t, ".unid.json", "{\"program\":\"/good\"}");
    tar_add(&t, "good", S_IFREG | 0755, NULL, good.data, sizeof good.data);
    tar_add(&t, "bad", S_IFREG | 0755, NULL, f.data, sizeof f.data);
    prepare_tar(&t, &p);
    assert_int_equal(p.rc, 0);
    assert_int_equal(json_array_size(json_object_get(p.result.report, "warnings")), 1);
    prepared_done(&p);
}

/* --- this machine's programs ------------------------------------------------------------------ */

static void programs_of_this_machine_are_rewritten_in_full(void **state)
{
    static const char *const paths[] = {"/lib/x86_64-linux-gnu/libc.so.6",
                                        "/lib64/ld-linux-x86-64.so.2",
                                        "/lib/x86_64-linux-gnu/libpthread.so.0",
                                        "/lib/x86_64-linux-gnu/libcrypto.so.3",
                                        "/lib/x86_64-linux-gnu/libstdc++.so.6",
                                        "/usr/bin/python3",
                                        "/usr/bin/perl",
                                        "/bin/busybox",
                                        "/usr/bin/php-cgi",
                                        "/usr/sbin/nginx",
                                        "/usr/bin/jq",
                                        "/lib/ld-musl-x86_64.so.1",
                                        "/usr/bin/gcc",
                                        "/usr/bin/bash",
                                        "/usr/bin/qemu-system-x86_64"};
    size_t files = 0, sites = 0;
    for (size_t i = 0; i < UN_ARRAY_SIZE(paths); i++) {
        struct un_error err = UN_ERROR_INIT;
        struct rewrite rw;
        struct stat st;
        FILE *f = fopen(paths[i], "re");
        if (!f || fstat(fileno(f), &st) < 0) {
            print_message("%s is not installed\n", paths[i]);
            continue;
        }
        uint8_t *data = malloc((size_t)st.st_size);
        assert_non_null(data);
        assert_int_equal(fread(data, 1, (size_t)st.st_size, f), st.st_size);
        fclose(f);
        if (rewrite_elf(data, (size_t)st.st_size, &rw, &err) < 0 || rw.refused || rw.trapping) {
            fail_msg("%s: %s, %zu refused, %zu trapping", paths[i], err.text, rw.refused,
                     rw.trapping);
        }
        files++;
        sites += rw.rewritten;
        rewrite_done(&rw);
        free(data);
    }
    print_message("%zu files, %zu sites\n", files, sites);
    assert_true(sites > 500); /* the C library's at least */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_archive_becomes_a_tree),
        cmocka_unit_test(paths_stay_inside),
        cmocka_unit_test(devices_are_left_out_of_dev_and_refused_elsewhere),
        cmocka_unit_test(too_many_files_are_refused),
        cmocka_unit_test(endless_repetitions_are_refused),
        cmocka_unit_test(sparse_files_keep_their_holes_and_their_limits),
        cmocka_unit_test(damaged_archives_are_refused),
        cmocka_unit_test(the_configuration_names_the_program),
        cmocka_unit_test(the_same_input_gives_the_same_image),
        cmocka_unit_test(bad_programs_are_refused_with_the_reason),
        cmocka_unit_test(what_does_not_run_is_named_whatever_runs_beside_it),
        cmocka_unit_test(a_site_that_cannot_be_rewritten_refuses_the_program),
        cmocka_unit_test(programs_of_this_machine_are_rewritten_in_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
