/* gather.c - see gather.h. */
#include "cli/collect/gather.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/collect/collect.h"
#include "cli/collect/libraries.h"
#include "cli/push.h"
#include "cli/table.h"
#include "cli/temporary.h"
#include "common/cleanup.h"
#include "common/linux64.h"

/* Kernels say what they are in their first bytes; see imagestore/recognise.c. */
#define MULTIBOOT1_MAGIC 0x1badb002u
#define MULTIBOOT2_MAGIC 0xe85250d6u
enum { MULTIBOOT_WITHIN = 32768, PVH_NOTE = 18, SDK_NOTE = 1 };
#define USER_SPACE_END ((uint64_t)1 << 47)

void gathered_done(struct gathered *g)
{
    json_decref(g->image);
    json_decref(g->arguments);
    json_decref(g->files);
    json_decref(g->warnings);
    free(g->line);
    *g = (struct gathered){0};
}

/* --- what is a program ------------------------------------------------------------------------ */

static bool is_multiboot(const struct library_file *f)
{
    for (size_t at = 0; at + 4 <= f->size && at < MULTIBOOT_WITHIN; at += 4) {
        uint32_t word;
        memcpy(&word, f->data + at, 4);
        if (word == MULTIBOOT1_MAGIC || word == MULTIBOOT2_MAGIC) {
            return true;
        }
    }
    return false;
}

static bool is_program(const struct library_file *f)
{
    struct un_elf elf;
    struct un_elf_note note;
    if (f->size > 2 && f->data[0] == '#' && f->data[1] == '!') {
        return true;
    }
    return un_elf_is(f->data, f->size) &&
           un_elf_parse(f->data, f->size, f->size, &elf, NULL) == 0 && elf.is64 &&
           elf.high <= USER_SPACE_END &&
           !un_elf_find_note(f->data, f->size, &elf, "unid", SDK_NOTE, &note) &&
           !un_elf_find_note(f->data, f->size, &elf, "Xen", PVH_NOTE, &note) &&
           (elf.has_interp || !is_multiboot(f)) &&
           un_linux64_file(f->data, f->size, &elf) == UN_LINUX64_NOT;
}

bool gather_wanted(const struct cli_call *call, const char *what)
{
    struct library_file f;
    if (args_has(&call->args, "rootfs") || args_has(&call->args, "with")) {
        return true;
    }
    if (library_open(what, &f) < 0) {
        return false;
    }
    bool wanted = is_program(&f);
    library_close(&f);
    return wanted;
}

/* --- gathering -------------------------------------------------------------------------------- */

static int collect(const struct cli_call *call, const char *what, struct collect *c,
                   struct un_error *err)
{
    size_t at = 0;
    int rc = args_has(&call->args, "rootfs") ? 0 : collect_program(c, what, err);
    for (const char *path; rc == 0 && (path = args_next(&call->args, "with", &at));) {
        rc = collect_with(c, path, err);
    }
    return rc < 0 ? rc : collect_libraries(c, err);
}

static int describe(struct collect *c, struct gathered *g)
{
    size_t count;
    const struct collect_entry *const *entries = collect_entries(c, &count);
    g->files = json_array();
    g->warnings = json_array();
    g->arguments = json_array();
    for (size_t i = 0; i < count; i++) {
        if (!S_ISREG(entries[i]->mode)) {
            continue;
        }
        json_t *one = json_pack("{s:s, s:I, s:s}", "path", entries[i]->path, "size",
                                (json_int_t)entries[i]->size, "why", entries[i]->why);
        if (one) { /* else a name that is not UTF-8: taken along, not shown */
            json_array_append_new(g->files, one);
        }
    }
    for (size_t i = 0; collect_warning(c, i); i++) {
        json_array_append_new(g->warnings, json_string(collect_warning(c, i)));
    }
    for (const char *const *a = collect_arguments(c); *a; a++) {
        if (json_array_append_new(g->arguments, json_string(*a)) < 0) {
            return cli_fail(CLI_REFUSED, "the script's first line or name is not UTF-8");
        }
    }
    return g->files && g->warnings && g->arguments ? CLI_DONE
                                                   : cli_fail(CLI_REFUSED, "out of memory");
}

/* The program that the words ask for, in a root file system; NULL: none. */
static const char *asked_program(const struct cli_call *call, const char *what)
{
    const char *asked = args_get(&call->args, "program");
    return asked ? asked : strcmp(what, "-") == 0 ? NULL : what;
}

/* What runs: what is asked for, what was collected, or what the image says. NULL: what its archive says. */
static int choose_program(const struct cli_call *call, const char *what, struct collect *c,
                          struct container_start *start, const struct collect_root *root,
                          const char **ret)
{
    struct un_error err = UN_ERROR_INIT;
    const char *asked = asked_program(call, what);
    if (root->image) {
        start->asked = asked;
        *ret = start->program;
        return container_settle(root->image, start, &err) == 0
                   ? CLI_DONE
                   : cli_fail(CLI_REFUSED, "%s", err.text);
    }
    if (!args_has(&call->args, "rootfs")) {
        *ret = args_has(&call->args, "program") ? asked : collect_runs(c);
    } else {
        *ret = asked;
        if (asked && asked[0] != '/' && !args_has(&call->args, "program")) {
            return cli_usage(call,
                             "with --rootfs, '%s' must be an absolute path in it, or - for the "
                             "program that the archive names",
                             what);
        }
    }
    if (args_has(&call->args, "program") && asked[0] != '/') {
        return cli_usage(call, "--program: must be an absolute path");
    }
    return CLI_DONE;
}

static int push_archive(const struct cli_call *call, const char *what, struct collect *c,
                        const struct collect_root *root, struct container_start *start,
                        struct gathered *g)
{
    struct un_error err = UN_ERROR_INIT;
    const char *program = NULL, *slash = strrchr(what, '/');
    int status = choose_program(call, what, c, start, root, &program);
    g->line = start->line;
    if (status != CLI_DONE) {
        return status;
    }
    un_autoclose int fd = temporary_open(&err);
    if (fd < 0 || collect_write(c, root, program, fd, g->program, &err) < 0) {
        return cli_fail(CLI_REFUSED, "%s", err.text);
    }
    if (program) {
        snprintf(g->program, sizeof g->program, "%s", program);
    }
    return push_fd(call, fd, slash ? slash + 1 : what, &g->image);
}

/* What --rootfs names. Standard input is kept, as it is read more than once: gives its descriptor, or -1. */
static int open_root(const struct cli_call *call, char kept[TEMPORARY_PATH_SIZE], int *ret_input,
                     struct collect_root *ret)
{
    struct un_error err = UN_ERROR_INIT;
    ret->path = args_get(&call->args, "rootfs");
    if (ret->path && strcmp(ret->path, "-") == 0) {
        *ret_input = temporary_copy(STDIN_FILENO, &err);
        ret->path = *ret_input < 0 ? NULL : temporary_path(*ret_input, kept);
    }
    return err.code == 0 && (!ret->path || container_open(ret->path, &ret->image, &err) == 0)
               ? CLI_DONE
               : cli_fail(CLI_REFUSED, "%s", err.text);
}

int gather_push(const struct cli_call *call, const char *what, json_t *config, struct gathered *ret)
{
    struct un_error err = UN_ERROR_INIT;
    struct collect *c = NULL;
    struct collect_root root = {0};
    char kept[TEMPORARY_PATH_SIZE];
    un_autoclose int input = -1;
    int status = open_root(call, kept, &input, &root);
    if (status == CLI_DONE) {
        int rc = collect_new(&c, &err);
        rc = rc < 0 ? rc : collect(call, what, c, &err);
        status = rc < 0 ? cli_fail(CLI_REFUSED, "%s", err.text) : describe(c, ret);
    }
    if (status == CLI_DONE) {
        struct container_start start = {.config = config, .warnings = ret->warnings};
        status = push_archive(call, what, c, &root, &start, ret);
    }
    container_free(root.image);
    collect_free(c);
    return status;
}

/* --- showing ---------------------------------------------------------------------------------- */

void gather_show(const struct gathered *g)
{
    static const char *const heads[] = {">SIZE", "FILE", "WHY", NULL};
    un_autobuf struct un_buf out = {0}, told = {0};
    struct table *t = table_new(heads);
    char size[TABLE_CELL_SIZE], total[TABLE_CELL_SIZE];
    uint64_t more = 0, more_bytes = 0, bytes = 0;
    size_t i;
    json_t *one;
    json_array_foreach(g->files, i, one)
    {
        bytes += api_uint(one, "size");
        if (strcmp(api_str(one, "why"), "--with") == 0) {
            more++;
            more_bytes += api_uint(one, "size");
            continue;
        }
        const char *cells[] = {table_size(api_uint(one, "size"), size), api_str(one, "path"),
                               api_str(one, "why")};
        table_row(t, cells);
    }
    if (t && json_array_size(g->files) > 0 && table_render(t, &out) == 0) {
        fputs((const char *)out.data, stderr);
    }
    table_free(t);
    if (more > 0) {
        fprintf(stderr, "%s in %llu more files (--with)\n", table_size(more_bytes, size),
                (unsigned long long)more);
    }
    if (json_array_size(g->files) > 0) {
        fprintf(stderr, "%zu files, %s\n", json_array_size(g->files), table_size(bytes, total));
    }
    if (g->line && table_append_clean(&told, g->line, false) == 0) {
        fprintf(stderr, "%s\n", (const char *)told.data);
    }
    json_array_foreach(g->warnings, i, one)
    {
        (void)cli_fail(CLI_DONE, "%s", json_string_value(one));
    }
}
