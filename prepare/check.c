/* check.c - see check.h.
 *
 * Libraries are looked for as ld.so does (ld.so(8)): RPATH or RUNPATH with $ORIGIN, then the default
 * directories; LD_LIBRARY_PATH and dlopen() are not known here, so a library whose name stands
 * anywhere in the root file system counts as there.
 */
#include "prepare/check.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/limits.h"
#include "prepare/rootfs_internal.h"

enum {
    LIBRARIES_MAX = 512,
    SCRIPTS_MAX = 4, /* as Linux: a script's interpreter may be a script */
    SHEBANG_MAX = 255
};

struct job {
    struct rootfs *fs;
    struct check *ret;
    struct {
        char *name, *path;
    } libraries[LIBRARIES_MAX]; /* found, and looked at in turn */
    size_t library_count;
    char binary[PATH_MAX];      /* the program, or the interpreter of the script that it is */
    char interpreter[PATH_MAX]; /* of the binary; "" */
    bool out_of_memory;
};

__attribute__((format(printf, 3, 4))) static void say(struct job *j, json_t *list,
                                                      const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    json_t *value = json_string(text);
    if (!value) {
        value = json_string("(a text that is not UTF-8)");
    }
    if (json_array_append_new(list, value) < 0) {
        j->out_of_memory = true;
    }
}

/* --- files of the root file system ------------------------------------------------------------ */

struct view {
    const uint8_t *data;
    size_t size;
};

static void unmap(struct view *v)
{
    if (v->data) {
        munmap((void *)v->data, v->size);
    }
}

/* The bytes of a regular file; false when it is none or is empty. */
static bool map_file(struct rootfs *fs, const struct unid_rootfs_inode *inode, struct view *ret)
{
    if (!S_ISREG(inode->mode) || inode->size == 0) {
        return false;
    }
    void *p = mmap(NULL, (size_t)inode->size, PROT_READ, MAP_SHARED, fs->fd,
                   (off_t)(fs->offset + inode->data));
    if (p == MAP_FAILED) {
        return false;
    }
    *ret = (struct view){.data = p, .size = (size_t)inode->size};
    return true;
}

static const struct unid_rootfs_inode *find(struct job *j, const char *path)
{
    const struct unid_rootfs_inode *inode;
    int rc = rootfs_find(j->fs, path, &inode, NULL);
    j->out_of_memory |= rc == -ENOMEM;
    return rc == 0 ? inode : NULL;
}

/* --- one ELF file ----------------------------------------------------------------------------- */

static void check_segments(struct job *j, const char *path, const struct un_elf *elf)
{
    json_t *problems = j->ret->problems;
    for (size_t i = 0; i < elf->segment_count; i++) {
        const struct un_elf_segment *s = &elf->segments[i];
        if (s->writable && s->executable) {
            say(j, problems,
                "%s: its segment at 0x%" PRIx64
                " is writable and executable; link it without -N or -z execstack",
                path, s->vaddr);
        }
    }
    if (elf->type == ET_EXEC && elf->low < UNID_LIBOS_END) {
        say(j, problems,
            "%s: is linked at 0x%" PRIx64 "; the addresses below 0x%llx are the library OS's; link "
            "it with -pie or at a higher address",
            path, elf->low, UNID_LIBOS_END);
    }
    if (elf->tls.mem_size > LIMIT_PROGRAM_TLS_BYTES) {
        say(j, problems,
            "%s: has %" PRIu64 " bytes of thread-local storage, at most %d are allowed", path,
            elf->tls.mem_size, LIMIT_PROGRAM_TLS_BYTES);
    }
    if (elf->tls.file_size > elf->tls.mem_size || elf->tls.offset > UINT64_MAX / 2) {
        say(j, problems,
            "%s: its thread-local storage has %" PRIu64 " bytes in the file and %" PRIu64
            " in memory",
            path, elf->tls.file_size, elf->tls.mem_size);
    }
    if (elf->executable_stack) {
        say(j, j->ret->warnings,
            "%s: asks for an executable stack; memory is never writable and executable here, so "
            "code made at run time (a JIT, nested functions) ends the machine",
            path);
    }
    j->ret->load_bytes += elf->high - elf->low;
}

/* Functions of libc that a program may use, and the call that they end in. fork() ends in clone() with
 * arguments that no library OS of one process can offer. */
static void note_imports(struct job *j, const char *path, const struct un_elf_dynamic *d)
{
    static const struct {
        const char *function, *call;
    } known[] = {
        {"fork", "fork"},
        {"vfork", "vfork"},
        {"system", "fork"},
        {"popen", "fork"},
        {"posix_spawn", "vfork"},
        {"posix_spawnp", "vfork"},
        {"execve", "execve"},
        {"execv", "execve"},
        {"execvp", "execve"},
        {"execl", "execve"},
        {"execlp", "execve"},
        {"execle", "execve"},
        {"ptrace", "ptrace"},
        {"wait4", "wait4"},
        {"waitpid", "wait4"},
        {"shmget", "shmget"},
        {"semget", "semget"},
        {"msgget", "msgget"},
        {"mq_open", "mq_open"},
        {"inotify_init1", "inotify_init1"},
        {"signalfd", "signalfd4"},
        {"chroot", "chroot"},
        {"mount", "mount"},
        {"setns", "setns"},
        {"unshare", "unshare"},
        {"process_vm_readv", "process_vm_readv"},
        {"timer_create", "timer_create"},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(known); i++) {
        if (!un_elf_has_name(d, known[i].function)) {
            continue;
        }
        json_t *files = json_object_get(j->ret->imports, known[i].call);
        if (!files) {
            files = json_array();
            if (json_object_set_new(j->ret->imports, known[i].call, files) < 0) {
                j->out_of_memory = true;
                return;
            }
        }
        size_t count = json_array_size(files);
        const char *last = count ? json_string_value(json_array_get(files, count - 1)) : NULL;
        if (!(last && strcmp(last, path) == 0)) {
            json_array_append_new(files, json_string(path));
        }
    }
}

/* The C library and the loader, which have every call but make few. */
bool check_is_libc(const char *path)
{
    static const char *const names[] = {"libc.so.", "libc-", "ld-", "libpthread", "libc.musl"};
    const char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    for (size_t i = 0; i < UN_ARRAY_SIZE(names); i++) {
        if (strncmp(base, names[i], strlen(names[i])) == 0) {
            return true;
        }
    }
    return false;
}

static void add_library(struct job *j, const char *name, const char *path)
{
    for (size_t i = 0; i < j->library_count; i++) {
        if (strcmp(j->libraries[i].name, name) == 0) {
            return;
        }
    }
    if (j->library_count == LIBRARIES_MAX) {
        say(j, j->ret->problems, "more than %d libraries", LIBRARIES_MAX);
        return;
    }
    char *n = strdup(name), *p = strdup(path);
    if (!n || !p) {
        free(n);
        free(p);
        j->out_of_memory = true;
        return;
    }
    j->libraries[j->library_count].name = n;
    j->libraries[j->library_count++].path = p;
    json_t *one = json_pack("{s:s, s:s?}", "name", name, "path", path[0] ? path : NULL);
    if (!one || json_array_append_new(j->ret->libraries, one) < 0) {
        j->out_of_memory = true;
    }
}

/* One directory of a search path, with $ORIGIN put in. */
static bool try_directory(struct job *j, const char *dir, size_t len, const char *origin,
                          const char *name, char ret[PATH_MAX])
{
    static const char *const tokens[] = {"$ORIGIN", "${ORIGIN}"};
    const struct unid_rootfs_inode *inode;
    for (size_t i = 0; i < UN_ARRAY_SIZE(tokens); i++) {
        size_t token = strlen(tokens[i]);
        if (len >= token && memcmp(dir, tokens[i], token) == 0) {
            snprintf(ret, PATH_MAX, "%s%.*s/%s", origin, (int)(len - token), dir + token, name);
            inode = find(j, ret);
            return inode && S_ISREG(inode->mode);
        }
    }
    snprintf(ret, PATH_MAX, "%.*s/%s", (int)len, dir, name);
    inode = find(j, ret);
    return inode && S_ISREG(inode->mode);
}

static bool try_path(struct job *j, const char *path, const char *origin, const char *name,
                     char ret[PATH_MAX])
{
    while (path && *path) {
        size_t len = strcspn(path, ":");
        if (len > 0 && try_directory(j, path, len, origin, name, ret)) {
            return true;
        }
        path += len + (path[len] == ':');
    }
    return false;
}

static void find_library(struct job *j, const char *who, const struct un_elf_dynamic *d,
                         const char *name)
{
    static const char defaults[] = "/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu:/lib64:"
                                   "/usr/lib64:/lib:/usr/lib:/usr/local/lib";
    char origin[PATH_MAX], path[PATH_MAX];
    const struct unid_rootfs_inode *inode;
    const char *slash = strrchr(who, '/');
    snprintf(origin, sizeof origin, "%.*s", slash ? (int)(slash - who) : 0, who);
    if (strchr(name, '/')) {
        snprintf(path, sizeof path, "%s", name);
        inode = find(j, path);
        if (inode && S_ISREG(inode->mode)) {
            add_library(j, name, path);
            return;
        }
    } else if ((!d->runpath && try_path(j, d->rpath, origin, name, path)) ||
               try_path(j, d->runpath, origin, name, path) ||
               try_path(j, defaults, origin, name, path)) {
        add_library(j, name, path);
        return;
    } else if (rootfs_has_name(j->fs, name)) {
        add_library(j, name, "");
        return;
    }
    say(j, j->ret->problems,
        "%s: needs %s, which is not in the root file system; deploy with unictl, which collects "
        "libraries, or add it with --with",
        who, name);
}

/* Looks at a program or library whose file is `path`. */
static void check_elf(struct job *j, const char *path, bool library)
{
    const struct unid_rootfs_inode *inode = find(j, path);
    struct un_error why = UN_ERROR_INIT;
    struct un_elf elf;
    struct view v;
    if (!inode || !map_file(j->fs, inode, &v)) {
        say(j, j->ret->problems, "%s: is no file that can be run", path);
        return;
    }
    un_autofree struct un_elf_dynamic *d = calloc(1, sizeof *d);
    int rc = library ? un_elf_parse_library(v.data, v.size, v.size, &elf, &why)
                     : un_elf_parse(v.data, v.size, v.size, &elf, &why);
    if (rc == 0 && !elf.is64) {
        rc = un_error_set(&why, -EINVAL, "ELF: a 32-bit program; programs must be 64-bit x86");
    }
    if (rc == 0 && d) {
        rc = un_elf_read_dynamic(v.data, v.size, &elf, d, &why);
    }
    if (rc < 0) {
        say(j, j->ret->problems, "%s: %s", path, why.text);
    } else if (!d) {
        j->out_of_memory = true;
    } else {
        check_segments(j, path, &elf);
        if (d->text_relocations) {
            say(j, j->ret->problems, "%s: has text relocations; build it with -fPIC", path);
        }
        if (!check_is_libc(path)) {
            note_imports(j, path, d);
        }
        for (size_t i = 0; i < d->needed_count; i++) {
            find_library(j, path, d, d->needed[i]);
        }
        if (!library && elf.has_interp) {
            const char *interpreter = un_elf_interpreter(v.data, v.size, &elf);
            snprintf(j->interpreter, PATH_MAX, "%s",
                     interpreter && *interpreter ? interpreter : "?");
        }
    }
    unmap(&v);
}

/* --- the program ------------------------------------------------------------------------------ */

/* The interpreter of a script, "" when the file is none. */
static void read_shebang(struct job *j, const char *path, char ret[SHEBANG_MAX + 1])
{
    const struct unid_rootfs_inode *inode = find(j, path);
    char head[SHEBANG_MAX + 1] = "";
    ret[0] = '\0';
    if (!inode || rootfs_read(j->fs, inode, head, SHEBANG_MAX, NULL) < 2 || head[0] != '#' ||
        head[1] != '!') {
        return;
    }
    head[strcspn(head, "\n")] = '\0';
    const char *p = head + 2 + strspn(head + 2, " \t");
    snprintf(ret, SHEBANG_MAX + 1, "%.*s", (int)strcspn(p, " \t\r"), p);
}

static void check_interpreter(struct job *j, const char *program)
{
    j->ret->kind = "linux-dynamic";
    if (!find(j, j->interpreter)) {
        say(j, j->ret->problems,
            "%s: is dynamically linked and needs its interpreter %s, which is not in the root file "
            "system; deploy with unictl, which collects it and the libraries",
            program, j->interpreter);
        return;
    }
    check_elf(j, j->interpreter, true);
}

static void check_all(struct job *j, const char *program)
{
    char path[PATH_MAX], script[SHEBANG_MAX + 1];
    snprintf(path, sizeof path, "%s", program);
    j->ret->kind = "linux-static";
    for (int depth = 0;; depth++) {
        if (!find(j, path)) {
            say(j, j->ret->problems,
                depth
                    ? "%s: is the interpreter of a script and is not in the root file system; add "
                      "it with --with"
                    : "%s: the program is not in the root file system",
                path);
            return;
        }
        read_shebang(j, path, script);
        if (script[0] == '\0') {
            break;
        }
        if (depth == SCRIPTS_MAX) {
            say(j, j->ret->problems, "%s: scripts whose interpreters are scripts, too many",
                program);
            return;
        }
        snprintf(path, sizeof path, "%s", script);
    }
    snprintf(j->binary, sizeof j->binary, "%s", path);
    check_elf(j, path, false);
    if (j->interpreter[0]) {
        check_interpreter(j, path);
    }
    for (size_t i = 0; i < j->library_count; i++) {
        if (j->libraries[i].path[0]) {
            check_elf(j, j->libraries[i].path, true);
        }
    }
    if (strcmp(path, program) != 0) {
        j->ret->kind = "script";
    }
}

static bool is_same(struct job *j, const struct unid_rootfs_inode *file, const char *path)
{
    return file && path[0] && find(j, path) == file;
}

/* Whether an ELF file is what the program is made of: itself, or the interpreter of the script that
 * it is, the loader, a library that one of them names. */
static bool is_needed(struct job *j, const char *program, const struct rootfs_elf *e)
{
    const struct unid_rootfs_inode *file = find(j, e->path);
    const char *base = strrchr(e->path, '/');
    base = base ? base + 1 : e->path;
    if (is_same(j, file, program) || is_same(j, file, j->interpreter) ||
        is_same(j, file, j->binary)) {
        return true;
    }
    for (size_t i = 0; i < j->library_count; i++) {
        if (strcmp(j->libraries[i].name, base) == 0 || is_same(j, file, j->libraries[i].path)) {
            return true;
        }
    }
    return false;
}

/* What the rewriter left: fatal in what the program is made of. */
static void check_sites(struct job *j, const char *program)
{
    size_t count;
    const struct rootfs_elf *elfs = rootfs_elfs(j->fs, &count);
    for (size_t i = 0; i < count; i++) {
        const struct rewrite *rw = &elfs[i].rewrite;
        if (rw->refused == 0 && rw->trapping == 0) {
            continue;
        }
        bool fatal = rw->refused > 0 && (program[0] == '\0' || is_needed(j, program, &elfs[i]));
        for (size_t k = 0; k < rw->site_count; k++) {
            if (rw->sites[k].problem) {
                bool trap = rw->sites[k].kind != SCAN_SYSCALL;
                say(j, fatal && !trap ? j->ret->problems : j->ret->warnings,
                    "%s: at 0x%" PRIx64 ": %s%s", elfs[i].path, rw->sites[k].addr,
                    rw->sites[k].problem, trap ? "; the machine ends when it is reached" : "");
            }
        }
    }
}

int check_program(struct rootfs *fs, const char *program, struct check *ret, struct un_error *err)
{
    *ret = (struct check){.kind = "rootfs",
                          .libraries = json_array(),
                          .problems = json_array(),
                          .imports = json_object(),
                          .warnings = json_array()};
    un_autofree struct job *j = calloc(1, sizeof *j);
    if (!j || !ret->libraries || !ret->problems || !ret->warnings || !ret->imports) {
        check_done(ret);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    j->fs = fs;
    j->ret = ret;
    if (program[0]) {
        check_all(j, program);
    }
    check_sites(j, program);
    for (size_t i = 0; i < j->library_count; i++) {
        free(j->libraries[i].name);
        free(j->libraries[i].path);
    }
    if (j->out_of_memory) {
        check_done(ret);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    return 0;
}

void check_done(struct check *c)
{
    json_decref(c->libraries);
    json_decref(c->problems);
    json_decref(c->warnings);
    json_decref(c->imports);
    *c = (struct check){0};
}
