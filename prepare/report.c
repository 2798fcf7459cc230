/* report.c - see report.h. */
#include "prepare/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"

/* System calls by number, and whether the library OS has them; made from the kernel's header and the
 * library OS's own symbols (prepare/fragment.am). */
struct call {
    const char *name;
    bool offered;
};
static const struct call calls[] = {
#include "prepare/calls.inc"
};

static const char *kind_name(enum scan_kind kind)
{
    static const char *const names[] = {
        [SCAN_SYSCALL] = "syscall", [SCAN_SYSENTER] = "sysenter", [SCAN_INT80] = "int 0x80"};
    return names[kind];
}

/* {"path", "sites", "rewritten", "problems": [..]} of a file that has sites or could not be read. */
static json_t *report_elf(const struct rootfs_elf *e)
{
    const struct rewrite *rw = &e->rewrite;
    json_t *one = json_pack("{s:s, s:I, s:I}", "path", e->path, "sites", (json_int_t)rw->site_count,
                            "rewritten", (json_int_t)rw->rewritten);
    json_t *problems = rw->refused + rw->trapping > 0 ? json_array() : NULL;
    for (size_t i = 0; problems && i < rw->site_count; i++) {
        char addr[24];
        snprintf(addr, sizeof addr, "0x%" PRIx64, rw->sites[i].addr);
        if (rw->sites[i].problem) {
            json_array_append_new(problems, json_pack("{s:s, s:s, s:s}", "address", addr, "kind",
                                                      kind_name(rw->sites[i].kind), "reason",
                                                      rw->sites[i].problem));
        }
    }
    if (problems) {
        json_object_set_new(one, "problems", problems);
    }
    if (e->error) {
        json_object_set_new(one, "error", json_string(e->error));
    }
    return one;
}

static json_t *files_of(json_t *calls_of_files, const char *name)
{
    json_t *files = json_object_get(calls_of_files, name);
    if (!files) {
        files = json_array();
        json_object_set_new(calls_of_files, name, files);
    }
    return files;
}

static void add_once(json_t *list, const char *text)
{
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        if (strcmp(json_string_value(one), text) == 0) {
            return;
        }
    }
    json_array_append_new(list, json_string(text));
}

static bool is_offered(const char *name)
{
    for (size_t nr = 0; nr < UN_ARRAY_SIZE(calls); nr++) {
        if (calls[nr].name && strcmp(calls[nr].name, name) == 0) {
            return calls[nr].offered;
        }
    }
    return false;
}

/* {"fork": ["/usr/bin/x"], ...}: the calls that are not offered and may be made, as far as the code
 * says it. The C library's own sites say nothing of what is called. */
static json_t *report_missing(const struct report_source *source)
{
    json_t *missing = json_object(), *files;
    size_t count, i;
    const char *name;
    const struct rootfs_elf *elfs = rootfs_elfs(source->fs, &count);
    for (i = 0; i < count; i++) {
        const struct rewrite *rw = &elfs[i].rewrite;
        for (size_t k = 0; k < rw->site_count && !check_is_libc(elfs[i].path); k++) {
            int32_t nr = rw->sites[k].number;
            if (nr >= 0 && (size_t)nr < UN_ARRAY_SIZE(calls) && calls[nr].name &&
                !calls[nr].offered) {
                add_once(files_of(missing, calls[nr].name), elfs[i].path);
            }
        }
    }
    json_object_foreach(source->check->imports, name, files)
    {
        json_t *file;
        if (!is_offered(name)) {
            json_array_foreach(files, i, file)
            {
                add_once(files_of(missing, name), json_string_value(file));
            }
        }
    }
    return missing;
}

json_t *report_new(const struct report_source *source)
{
    const struct check *c = source->check;
    size_t count;
    const struct rootfs_elf *elfs = rootfs_elfs(source->fs, &count);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        if (elfs[i].rewrite.site_count > 0 || elfs[i].error) {
            json_array_append_new(list, report_elf(&elfs[i]));
        }
    }
    json_t *report =
        json_pack("{s:s, s:s, s:O, s:o, s:o, s:O, s:O}", "kind", c->kind, "program",
                  source->program, "libraries", c->libraries, "elf", list, "missing_calls",
                  report_missing(source), "problems", c->problems, "warnings", c->warnings);
    if (report && source->left_out > 0) {
        json_object_set_new(report, "devices_left_out", json_integer(source->left_out));
    }
    if (report && source->memory_least > 0) {
        json_object_set_new(report, "memory_mib",
                            json_integer((json_int_t)(source->memory_least >> 20)));
        json_object_set_new(report, "memory_advised_mib",
                            json_integer((json_int_t)(source->memory_advised >> 20)));
    }
    return report;
}
