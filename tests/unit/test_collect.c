/* test_collect.c - what unictl takes along with a program: links, libraries, scripts, and what it makes of
 * it. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
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

#include "cli/collect/collect.h"
#include "common/bytes.h"
#include "common/cleanup.h"
#include "tests/unit/elf_support.h"

struct ground {
    char dir[64]; /* without links on its way */
    struct collect *c;
    struct un_error err;
};

static const char *at(const struct ground *g, const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", g->dir, name);
    return path;
}

static void write_file(const struct ground *g, const char *name, const void *data, size_t len,
                       mode_t mode)
{
    int fd = open(at(g, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), (ssize_t)len);
    close(fd);
}

static void write_program(const struct ground *g, const char *name)
{
    struct elf_file f;
    elf_make(&f);
    write_file(g, name, f.data, sizeof f.data, 0755);
}

static int set_up(void **state)
{
    struct ground *g = calloc(1, sizeof *g);
    assert_non_null(g);
    snprintf(g->dir, sizeof g->dir, "/tmp/collect.XXXXXX");
    assert_non_null(mkdtemp(g->dir));
    assert_int_equal(collect_new(&g->c, &g->err), 0);
    *state = g;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st, (void)kind, (void)where;
    return remove(path);
}

static int tear_down(void **state)
{
    struct ground *g = *state;
    collect_free(g->c);
    nftw(g->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(g);
    return 0;
}

static const struct collect_entry *entry(struct ground *g, const char *path)
{
    size_t count;
    const struct collect_entry *const *list = collect_entries(g->c, &count);
    for (size_t i = 0; i < count; i++) {
        assert_true(i == 0 || strcmp(list[i - 1]->path, list[i]->path) < 0);
        if (strcmp(list[i]->path, path) == 0) {
            return list[i];
        }
    }
    return NULL;
}

static void links_on_the_way_are_taken_along(void **state)
{
    struct ground *g = *state;
    mkdir(at(g, "real"), 0755);
    write_program(g, "real/prog");
    assert_int_equal(symlink("real", at(g, "link")), 0);
    assert_int_equal(symlink("../link/prog", at(g, "real/other")), 0);
    assert_int_equal(collect_program(g->c, at(g, "link/other"), &g->err), 0);
    assert_int_equal(collect_libraries(g->c, &g->err), 0);
    assert_string_equal(collect_runs(g->c), at(g, "link/other"));
    assert_string_equal(entry(g, at(g, "link"))->link, "real");
    assert_string_equal(entry(g, at(g, "real/other"))->link, "../link/prog");
    assert_true(S_ISREG(entry(g, at(g, "real/prog"))->mode));
    assert_null(collect_arguments(g->c)[0]);
}

static void what_cannot_be_is_told(void **state)
{
    struct ground *g = *state;
    assert_int_equal(collect_program(g->c, at(g, "nothing"), &g->err), -ENOENT);
    assert_int_equal(symlink("loop", at(g, "loop")), 0);
    assert_int_equal(collect_program(g->c, at(g, "loop"), &g->err), -ELOOP);
    assert_int_equal(collect_with(g->c, "/dev/null", &g->err), -EINVAL);
    write_file(g, "text", "hello", 5, 0644);
    assert_int_equal(collect_program(g->c, at(g, "text"), &g->err), -EINVAL);
    assert_non_null(strstr(g->err.text, "neither an ELF program nor a script"));
}

static void a_script_brings_its_interpreter_and_its_line(void **state)
{
    struct ground *g = *state;
    char text[256];
    write_program(g, "interpreter");
    snprintf(text, sizeof text, "#! %s -x  y \nrest\n", at(g, "interpreter"));
    write_file(g, "script", text, strlen(text), 0755);
    assert_int_equal(collect_program(g->c, at(g, "script"), &g->err), 0);
    assert_string_equal(collect_runs(g->c), at(g, "interpreter"));
    assert_string_equal(collect_arguments(g->c)[0], "-x  y");
    assert_string_equal(collect_arguments(g->c)[1], at(g, "script"));
    assert_null(collect_arguments(g->c)[2]);
    assert_non_null(entry(g, at(g, "interpreter")));
    assert_non_null(entry(g, at(g, "script")));
}

/* With the programs of the ground only. */
static int collect_in_path(struct ground *g, const char *name)
{
    un_autofree char *before = strdup(getenv("PATH"));
    setenv("PATH", g->dir, 1);
    int rc = collect_program(g->c, at(g, name), &g->err);
    setenv("PATH", before, 1);
    return rc;
}

static void env_in_a_script_is_looked_up_here(void **state)
{
    struct ground *g = *state;
    static const char good[] = "#!/usr/bin/env tool\n", bad[] = "#!/usr/bin/env tool x\n";
    static const char var[] = "#!/usr/bin/env -S A=1 tool\n";
    write_program(g, "tool");
    write_file(g, "script", good, strlen(good), 0755);
    write_file(g, "bad", bad, strlen(bad), 0755);
    write_file(g, "var", var, strlen(var), 0755);
    assert_int_equal(collect_in_path(g, "script"), 0);
    assert_string_equal(collect_runs(g->c), at(g, "tool"));
    assert_string_equal(collect_arguments(g->c)[0], at(g, "script"));
    assert_int_equal(collect_program(g->c, at(g, "bad"), &g->err), -EINVAL);
    assert_non_null(strstr(g->err.text, "write: env -S tool x"));
    assert_int_equal(collect_program(g->c, at(g, "var"), &g->err), -EINVAL);
    assert_non_null(strstr(g->err.text, "variables as --env"));
}

static void env_s_in_a_script_gives_arguments(void **state)
{
    struct ground *g = *state;
    static const char text[] = "#!/usr/bin/env -S tool -x 'a b'\n",
                      var[] = "#!/usr/bin/env --split-string=tool ${X}\n";
    write_program(g, "tool");
    write_file(g, "script", text, strlen(text), 0755);
    write_file(g, "var", var, strlen(var), 0755);
    assert_int_equal(collect_in_path(g, "script"), 0);
    assert_string_equal(collect_runs(g->c), at(g, "tool"));
    assert_string_equal(collect_arguments(g->c)[0], "-x");
    assert_string_equal(collect_arguments(g->c)[1], "a b");
    assert_string_equal(collect_arguments(g->c)[2], at(g, "script"));
    assert_null(collect_arguments(g->c)[3]);
    assert_int_equal(collect_program(g->c, at(g, "var"), &g->err), -EINVAL);
    assert_non_null(strstr(g->err.text, "write what ${X} stands for"));
}

static void an_interpreter_that_cannot_start_is_told(void **state)
{
    struct ground *g = *state;
    char text[256];
    snprintf(text, sizeof text, "#!%s\n", at(g, "shim"));
    write_file(g, "script", text, strlen(text), 0755);
    assert_int_equal(collect_program(g->c, at(g, "script"), &g->err), -ENOENT);
    assert_non_null(strstr(g->err.text, "the interpreter that the first line of "));
    write_file(g, "shim", "#!/bin/sh\n", 10, 0755);
    assert_int_equal(collect_program(g->c, at(g, "script"), &g->err), -EINVAL);
    assert_non_null(strstr(g->err.text, "is a script itself"));
}

static void directories_come_with_all_below(void **state)
{
    struct ground *g = *state;
    mkdir(at(g, "d"), 0750);
    mkdir(at(g, "d/e"), 0755);
    write_file(g, "d/e/f", "x", 1, 0640);
    write_file(g, "outside", "y", 1, 0644);
    assert_int_equal(symlink("../outside", at(g, "d/link")), 0);
    assert_int_equal(symlink("nowhere", at(g, "d/dangling")), 0);
    assert_int_equal(mkfifo(at(g, "d/pipe"), 0600), 0);
    assert_int_equal(collect_with(g->c, at(g, "d"), &g->err), 0);
    assert_int_equal(entry(g, at(g, "d"))->mode, S_IFDIR | 0750);
    assert_int_equal(entry(g, at(g, "d/e/f"))->mode, S_IFREG | 0640);
    assert_non_null(entry(g, at(g, "outside")));
    assert_string_equal(entry(g, at(g, "d/dangling"))->link, "nowhere");
    assert_null(entry(g, at(g, "d/pipe")));
    assert_non_null(collect_warning(g->c, 0));
    assert_non_null(collect_warning(g->c, 1));
    assert_null(collect_warning(g->c, 2));
}

/* A library, or a program with an interpreter, that needs the library `name`. */
static void write_needing(const struct ground *g, const char *file, const char *name,
                          const char *runpath)
{
    struct elf_file f;
    char strings[256] = "";
    size_t len = 1 + (size_t)snprintf(strings + 1, sizeof strings - 1, "%s", name) + 1;
    size_t runpath_at = len;
    len += (size_t)snprintf(strings + len, sizeof strings - len, "%s", runpath) + 1;
    elf_make(&f);
    elf_header(&f)->e_type = ET_DYN;
    const Elf64_Dyn dynamic[] = {{DT_STRTAB, {0x400700}},
                                 {DT_STRSZ, {len}},
                                 {DT_NEEDED, {1}},
                                 {DT_RUNPATH, {runpath_at}},
                                 {DT_NULL, {0}}};
    memcpy(f.data + 0x600, dynamic, sizeof dynamic);
    memcpy(f.data + 0x700, strings, len);
    *elf_program(&f, ELF_PH_NOTE) = (Elf64_Phdr){.p_type = PT_DYNAMIC,
                                                 .p_offset = 0x600,
                                                 .p_vaddr = 0x400600,
                                                 .p_filesz = sizeof dynamic,
                                                 .p_memsz = sizeof dynamic};
    write_file(g, file, f.data, sizeof f.data, 0755);
}

/* The entry whose path ends so; NULL: none. */
static const struct collect_entry *entry_ending(struct ground *g, const char *end)
{
    size_t count;
    const struct collect_entry *const *list = collect_entries(g->c, &count);
    for (size_t i = 0; i < count; i++) {
        const char *at = strstr(list[i]->path, end);
        if (at && strcmp(at, end) == 0) {
            return list[i];
        }
    }
    return NULL;
}

static void who_ends_threads_gets_what_the_c_library_loads_then(void **state)
{
    struct ground *g = *state;
    write_needing(g, "quiet", "libc.so.6", "");
    assert_int_equal(collect_program(g->c, at(g, "quiet"), &g->err), 0);
    assert_int_equal(collect_libraries(g->c, &g->err), 0);
    assert_null(entry_ending(g, "/libgcc_s.so.1"));
    collect_free(g->c);
    assert_int_equal(collect_new(&g->c, &g->err), 0);
    write_needing(g, "library.so", "libc.so.6", "pthread_exit");
    assert_int_equal(collect_program(g->c, at(g, "quiet"), &g->err), 0);
    assert_int_equal(collect_with(g->c, at(g, "library.so"), &g->err), 0);
    assert_int_equal(collect_libraries(g->c, &g->err), 0);
    const struct collect_entry *e = entry_ending(g, "/libgcc_s.so.1");
    assert_non_null(e);
    assert_string_equal(e->why, "loaded when a thread ends");
}

static void libraries_are_found_by_the_origin(void **state)
{
    struct ground *g = *state;
    mkdir(at(g, "bin"), 0755);
    mkdir(at(g, "lib"), 0755);
    write_needing(g, "bin/prog", "libone-of-a-kind.so", "/nowhere:$ORIGIN/../lib");
    write_needing(g, "lib/libone-of-a-kind.so", "libc.so.6", "");
    assert_int_equal(collect_program(g->c, at(g, "bin/prog"), &g->err), 0);
    assert_int_equal(collect_libraries(g->c, &g->err), 0);
    const struct collect_entry *e = entry(g, at(g, "lib/libone-of-a-kind.so"));
    assert_non_null(e);
    assert_non_null(strstr(e->why, "/bin/prog"));
    bool libc = false;
    size_t count;
    const struct collect_entry *const *list = collect_entries(g->c, &count);
    for (size_t i = 0; i < count; i++) {
        libc |= strstr(list[i]->path, "/libc.so.6") && S_ISREG(list[i]->mode);
    }
    assert_true(libc);
}

static void a_missing_library_is_an_error_of_the_program_and_a_warning_of_others(void **state)
{
    struct ground *g = *state;
    write_program(g, "good");
    write_needing(g, "module.so", "libnot-on-this-machine.so", "");
    assert_int_equal(collect_program(g->c, at(g, "good"), &g->err), 0);
    assert_int_equal(collect_with(g->c, at(g, "module.so"), &g->err), 0);
    assert_int_equal(collect_libraries(g->c, &g->err), 0);
    assert_non_null(strstr(collect_warning(g->c, 0), "libnot-on-this-machine.so"));
    collect_free(g->c);
    assert_int_equal(collect_new(&g->c, &g->err), 0);
    assert_int_equal(collect_program(g->c, at(g, "module.so"), &g->err), 0);
    assert_int_equal(collect_libraries(g->c, &g->err), -EINVAL);
    assert_non_null(strstr(g->err.text, "libnot-on-this-machine.so"));
}

static void pack(struct ground *g, const char *rootfs, const char *program, struct un_buf *ret,
                 char *ret_program)
{
    int fd = memfd_create("pack", MFD_CLOEXEC);
    char part[4096];
    ssize_t n;
    if (collect_write(g->c, &(struct collect_root){.path = rootfs}, program, fd, ret_program,
                      &g->err) < 0) {
        fail_msg("%s", g->err.text);
    }
    lseek(fd, 0, SEEK_SET);
    while ((n = read(fd, part, sizeof part)) > 0) {
        assert_int_equal(un_buf_append(ret, part, (size_t)n), 0);
    }
    close(fd);
}

static void the_same_files_give_the_same_archive(void **state)
{
    struct ground *g = *state;
    char program[PATH_MAX];
    un_autobuf struct un_buf one = {0}, two = {0};
    write_program(g, "prog");
    mkdir(at(g, "d"), 0755);
    write_file(g, "d/b", "b", 1, 0644);
    write_file(g, "d/a", "a", 1, 0644);
    for (int i = 0; i < 2; i++) {
        collect_free(g->c);
        assert_int_equal(collect_new(&g->c, &g->err), 0);
        assert_int_equal(collect_program(g->c, at(g, "prog"), &g->err), 0);
        assert_int_equal(collect_with(g->c, at(g, "d"), &g->err), 0);
        if (i == 1) { /* again, and more than once */
            assert_int_equal(collect_with(g->c, at(g, "d/a"), &g->err), 0);
        }
        pack(g, NULL, collect_runs(g->c), i ? &two : &one, program);
        write_file(g, "unrelated", "x", 1, 0644); /* the directory's time changes */
    }
    assert_int_equal(one.len, two.len);
    assert_memory_equal(one.data, two.data, one.len);
    assert_string_equal((const char *)one.data, ".unid.json");
}

static void an_archive_given_as_root_names_its_program(void **state)
{
    struct ground *g = *state;
    char program[PATH_MAX];
    un_autobuf struct un_buf one = {0}, two = {0};
    mkdir(at(g, "root"), 0755);
    write_program(g, "root/prog");
    write_file(g, "extra", "x", 1, 0644);
    pack(g, at(g, "root"), "/prog", &one, program);
    write_file(g, "one.tar", one.data, one.len, 0644);
    assert_int_equal(collect_with(g->c, at(g, "extra"), &g->err), 0);
    pack(g, at(g, "one.tar"), NULL, &two, program);
    assert_string_equal(program, "/prog");
    assert_string_equal((const char *)two.data, ".unid.json");
    assert_null(memmem(two.data + 512, two.len - 512, ".unid.json", 10)); /* once */
    assert_non_null(memmem(two.data, two.len, at(g, "extra") + 1, strlen(at(g, "extra")) - 1));
    un_error_set(&g->err, 0, "%s", "");
    const struct collect_root root = {.path = at(g, "extra")};
    assert_true(collect_write(g->c, &root, NULL, -1, program, &g->err) < 0);
}

/* A tar archive with one file of `size` bytes, of which the first 4 are not in a hole. */
static void write_sparse(const struct ground *g, const char *name, int64_t size)
{
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    archive_write_set_format_pax(a);
    assert_int_equal(archive_write_open_filename(a, at(g, name)), ARCHIVE_OK);
    archive_entry_set_pathname(e, "holes");
    archive_entry_set_mode(e, S_IFREG | 0644);
    archive_entry_set_size(e, size);
    archive_entry_sparse_add_entry(e, 0, 4);
    assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
    assert_int_equal(archive_write_data(a, "data", 4), 4);
    archive_entry_free(e);
    archive_write_free(a);
}

static void holes_of_an_archive_are_zeros(void **state)
{
    struct ground *g = *state;
    char program[PATH_MAX];
    static const uint8_t zeros[99996];
    un_autobuf struct un_buf packed = {0};
    write_sparse(g, "sparse.tar", 100000);
    pack(g, at(g, "sparse.tar"), NULL, &packed, program);
    const uint8_t *data = memmem(packed.data, packed.len, "data", 4);
    assert_non_null(data);
    assert_true((size_t)(packed.data + packed.len - data) >= 4 + sizeof zeros);
    assert_memory_equal(data + 4, zeros, sizeof zeros);
    assert_null(memmem(packed.data, packed.len, "GNU.sparse", 10));
}

static void what_is_too_large_is_told_before_it_is_read(void **state)
{
    struct ground *g = *state;
    char program[PATH_MAX];
    const off_t size = ((off_t)2 << 30) + 1;
    mkdir(at(g, "d"), 0755);
    write_file(g, "d/huge", "", 0, 0644);
    assert_int_equal(truncate(at(g, "d/huge"), size), 0);
    assert_int_equal(collect_with(g->c, at(g, "d"), &g->err), -EFBIG);
    assert_non_null(
        strstr(g->err.text, "d/huge: with its 2147483649 bytes there are more than 2 GiB"));
    for (int i = 0; i < 2; i++) {
        int fd = memfd_create("pack", MFD_CLOEXEC);
        write_sparse(g, "sparse.tar", size);
        collect_free(g->c);
        assert_int_equal(collect_new(&g->c, &g->err), 0);
        g->err = (struct un_error)UN_ERROR_INIT;
        const struct collect_root root = {.path = at(g, i ? "sparse.tar" : "d")};
        assert_int_equal(collect_write(g->c, &root, NULL, fd, program, &g->err), -EFBIG);
        assert_non_null(strstr(g->err.text, "more than 2 GiB"));
        assert_true(lseek(fd, 0, SEEK_END) < 1 << 20);
        close(fd);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(links_on_the_way_are_taken_along),
        TEST(what_cannot_be_is_told),
        TEST(a_script_brings_its_interpreter_and_its_line),
        TEST(env_in_a_script_is_looked_up_here),
        TEST(env_s_in_a_script_gives_arguments),
        TEST(an_interpreter_that_cannot_start_is_told),
        TEST(directories_come_with_all_below),
        TEST(who_ends_threads_gets_what_the_c_library_loads_then),
        TEST(libraries_are_found_by_the_origin),
        TEST(a_missing_library_is_an_error_of_the_program_and_a_warning_of_others),
        TEST(the_same_files_give_the_same_archive),
        TEST(an_archive_given_as_root_names_its_program),
        TEST(holes_of_an_archive_are_zeros),
        TEST(what_is_too_large_is_told_before_it_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
