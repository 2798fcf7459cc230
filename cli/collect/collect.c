/* collect.c - see collect.h: which files. pack.c writes the archive. */
#include "cli/collect/collect.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/collect/collect_internal.h"
#include "cli/collect/libraries.h"
#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/limits.h"

enum { LINKS_FOLLOWED = 40, DEPTH_MAX = 64 };

static int by_path(const void *a, const void *b)
{
    const struct collect_entry *x = a, *y = b;
    return strcmp(x->path, y->path);
}

int collect_new(struct collect **ret, struct un_error *err)
{
    *ret = calloc(1, sizeof **ret);
    return *ret ? 0 : un_error_set(err, -ENOMEM, "out of memory");
}

static void entry_free(struct collect_entry *e)
{
    free(e->path);
    free(e->link);
    free(e->why);
    free(e);
}

void collect_free(struct collect *c)
{
    if (!c) {
        return;
    }
    for (size_t i = 0; i < c->count; i++) {
        tdelete(c->entries[i], &c->tree, by_path);
    }
    for (size_t i = 0; i < c->count; i++) {
        entry_free(c->entries[i]);
    }
    free(c->entries);
    for (size_t i = 0; i < c->warning_count; i++) {
        free(c->warnings[i]);
    }
    free(c->warnings);
    for (size_t i = 0; i < UN_ARRAY_SIZE(c->arguments); i++) {
        free(c->arguments[i]);
    }
    free(c->runs);
    free(c);
}

static int warn(struct collect *c, const char *who, const char *what, struct un_error *err)
{
    char **more = reallocarray(c->warnings, c->warning_count + 1, sizeof *more);
    if (!more) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    c->warnings = more;
    if (asprintf(&c->warnings[c->warning_count], "%s: %s", who, what) < 0) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    c->warning_count++;
    return 0;
}

const char *collect_warning(const struct collect *c, size_t index)
{
    return index < c->warning_count ? c->warnings[index] : NULL;
}

/* --- entries ---------------------------------------------------------------------------------- */

int collect_count(size_t *count, uint64_t *bytes, uint64_t size, const char *path,
                  struct un_error *err)
{
    if (*count >= LIMIT_ROOTFS_FILES) {
        return un_error_set(err, -EFBIG,
                            "%.200s: with it there are more than %d files, the most that a root "
                            "file system may have; take less along",
                            path, LIMIT_ROOTFS_FILES);
    }
    if (size > LIMIT_ROOTFS_BYTES || *bytes > LIMIT_ROOTFS_BYTES - size) {
        return un_error_set(
            err, -EFBIG,
            "%.200s: with its %llu bytes there are more than %llu GiB, the most that "
            "a root file system may have; take less along",
            path, (unsigned long long)size, LIMIT_ROOTFS_BYTES >> 30);
    }
    *count += 1;
    *bytes += size;
    return 0;
}

/* Adds one name, unless it is there. `link` is copied. */
static int add_entry(struct collect *c, const char *path, const char *link, const struct stat *st,
                     const char *why, struct un_error *err)
{
    struct collect_entry key = {.path = (char *)path};
    struct collect_entry **there = tfind(&key, &c->tree, by_path);
    if (there) {
        if (!(*there)->why[0] && why[0]) {
            char *copy = strdup(why);
            if (copy) {
                free((*there)->why);
                (*there)->why = copy;
            }
        }
        return 0;
    }
    size_t count = c->count;
    int rc = collect_count(&count, &c->bytes, S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0,
                           path, err);
    if (rc < 0) {
        return rc;
    }
    if (c->count == c->room) {
        size_t room = c->room ? 2 * c->room : 64;
        struct collect_entry **more = reallocarray(c->entries, room, sizeof *more);
        if (!more) {
            return un_error_set(err, -ENOMEM, "out of memory");
        }
        c->entries = more;
        c->room = room;
    }
    struct collect_entry *e = calloc(1, sizeof *e);
    if (e) {
        e->path = strdup(path);
        e->link = link ? strdup(link) : NULL;
        e->why = strdup(why);
        e->mode = st->st_mode;
        e->size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
        e->mtime_s = st->st_mtime;
    }
    if (!e || !e->path || (link && !e->link) || !e->why || !tsearch(e, &c->tree, by_path)) {
        if (e) {
            entry_free(e);
        }
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    c->entries[c->count++] = e;
    return 0;
}

/* A way through the file system, link by link. */
struct walk {
    char at[PATH_MAX];   /* the real path so far; "" is the root */
    char rest[PATH_MAX]; /* components still to go */
    int links;
};

static int too_long(const char *path, struct un_error *err)
{
    return un_error_set(err, -ENAMETOOLONG, "%.200s: the path is too long", path);
}

/* Takes the next component off; false at the end. */
static bool take_component(struct walk *w, char ret[NAME_MAX + 1])
{
    const char *p = w->rest + strspn(w->rest, "/");
    size_t len = strcspn(p, "/");
    if (len == 0 || len > NAME_MAX) {
        return false;
    }
    memcpy(ret, p, len);
    ret[len] = '\0';
    memmove(w->rest, p + len, strlen(p + len) + 1);
    return true;
}

static int follow_link(struct walk *w, const char *text, const char *path, struct un_error *err)
{
    char rest[PATH_MAX];
    if (++w->links > LINKS_FOLLOWED) {
        return un_error_set(err, -ELOOP, "%s: %s", path, strerror(ELOOP));
    }
    int n = snprintf(rest, sizeof rest, "%s/%s", text, w->rest);
    if (n < 0 || n >= PATH_MAX) {
        return too_long(path, err);
    }
    memcpy(w->rest, rest, (size_t)n + 1);
    if (text[0] == '/') {
        w->at[0] = '\0';
    }
    return 0;
}

static bool is_last(const struct walk *w)
{
    return w->rest[strspn(w->rest, "/")] == '\0';
}

/* Adds what stands at the end of `path` (absolute) and everything on the way. Gives the real path and
 * what it is. */
static int add_path(struct collect *c, const char *path, const char *why, char ret[PATH_MAX],
                    struct stat *ret_stat, struct un_error *err)
{
    struct walk w = {.at = ""};
    char name[NAME_MAX + 1], text[PATH_MAX];
    struct stat st = {.st_mode = S_IFDIR | 0755};
    if (strlen(path) >= PATH_MAX) {
        return too_long(path, err);
    }
    snprintf(w.rest, sizeof w.rest, "%s", path);
    while (take_component(&w, name)) {
        size_t len = strlen(w.at);
        if (strcmp(name, ".") == 0) {
            continue;
        }
        if (strcmp(name, "..") == 0) {
            *(strrchr(w.at, '/') ? strrchr(w.at, '/') : w.at) = '\0';
            continue;
        }
        int n = snprintf(w.at + len, sizeof w.at - len, "/%s", name);
        if (n < 0 || (size_t)n >= sizeof w.at - len) {
            return too_long(path, err);
        }
        if (lstat(w.at, &st) < 0) {
            return un_error_set(err, -errno, "%s: %s", path, strerror(errno));
        }
        bool link = S_ISLNK(st.st_mode);
        ssize_t got = link ? readlink(w.at, text, sizeof text - 1) : 0;
        if (got < 0) {
            return un_error_set(err, -errno, "%s: %s", path, strerror(errno));
        }
        text[got] = '\0';
        if (!link && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
            return un_error_set(err, -EINVAL, "%s: neither a file nor a directory", path);
        }
        if (S_ISDIR(st.st_mode) && !is_last(&w)) {
            st.st_mode = S_IFDIR | 0755; /* on the way: what else happens there must not show */
            st.st_mtime = 0;
        }
        int rc = add_entry(c, w.at, link ? text : NULL, &st, is_last(&w) ? why : "", err);
        if (rc == 0 && link) {
            w.at[len] = '\0';
            rc = follow_link(&w, text, path, err);
        }
        if (rc < 0) {
            return rc;
        }
    }
    snprintf(ret, PATH_MAX, "%s", w.at[0] ? w.at : "/");
    *ret_stat = st;
    return 0;
}

/* The absolute form of a path as somebody typed it; links stay. */
static int make_absolute(const char *path, char ret[PATH_MAX], struct un_error *err)
{
    char here[PATH_MAX];
    int n;
    if (path[0] == '/') {
        n = snprintf(ret, PATH_MAX, "%s", path);
    } else if (!getcwd(here, sizeof here)) {
        return un_error_set(err, -errno, "the current directory: %s", strerror(errno));
    } else {
        n = snprintf(ret, PATH_MAX, "%s/%s", here, path + (strncmp(path, "./", 2) == 0 ? 2 : 0));
    }
    return n < 0 || n >= PATH_MAX ? too_long(path, err) : 0;
}

/* --- the program ------------------------------------------------------------------------------ */

/* The full path of a command, by PATH. */
static int find_command(const char *name, char ret[PATH_MAX], struct un_error *err)
{
    const char *path = getenv("PATH");
    if (strchr(name, '/')) {
        snprintf(ret, PATH_MAX, "%s", name);
        return 0;
    }
    for (const char *p = path ? path : "/usr/local/bin:/usr/bin:/bin"; *p;) {
        size_t len = strcspn(p, ":");
        int n = snprintf(ret, PATH_MAX, "%.*s/%s", (int)len, p, name);
        if (len > 0 && n < PATH_MAX && access(ret, X_OK) == 0) {
            return 0;
        }
        p += len + (p[len] == ':');
    }
    return un_error_set(err, -ENOENT, "%s, which the script's first line asks for, is not in PATH",
                        name);
}

static int add_argument(struct collect *c, const char *text, struct un_error *err)
{
    for (size_t i = 0; i + 1 < UN_ARRAY_SIZE(c->arguments); i++) {
        if (!c->arguments[i]) {
            c->arguments[i] = strdup(text);
            return c->arguments[i] ? 0 : un_error_set(err, -ENOMEM, "out of memory");
        }
    }
    return un_error_set(err, -E2BIG, "more than one script with its words");
}

/* An interpreter that is a script itself (the shims of version managers, for one) would have to start
 * another program. */
static int check_interpreter(const char *command, const char *real, const char *script,
                             struct un_error *err)
{
    char head[2] = "";
    un_autoclose int fd = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || read(fd, head, sizeof head) < 0) {
        return un_error_set(err, -errno, "%s, the interpreter of %s: %s", command, script,
                            strerror(errno));
    }
    return head[0] == '#' && head[1] == '!'
               ? un_error_set(
                     err, -EINVAL,
                     "%s, the interpreter of %s, is a script itself and would have to start "
                     "another program; deploy the program that it starts, with --with %s "
                     "-- %s",
                     command, script, script, script)
               : 0;
}

/* What env(1) makes of its argument in a script's first line: a command, and with -S its arguments. */
static int split_env(const char *script, const char *argument, struct shebang *ret,
                     struct un_error *err)
{
    static const char *const options[] = {"--split-string=", "--split-string", "-S"};
    struct un_error why = UN_ERROR_INIT;
    size_t skip = 0;
    for (size_t i = 0; i < UN_ARRAY_SIZE(options) && !skip; i++) {
        size_t len = strlen(options[i]);
        skip = strncmp(argument, options[i], len) == 0 ? len : 0;
    }
    int rc = shebang_split(argument + skip, ret, &why);
    if (rc < 0) {
        return un_error_set(err, rc, "%s: its first line, after env -S: %s", script, why.text);
    }
    if (!skip && ret->count > 1) {
        return un_error_set(err, -EINVAL,
                            "%s: its first line has env look for a command \"%s\", blanks and all; "
                            "write: env -S %s",
                            script, argument, argument);
    }
    if (ret->count == 0 || ret->words[0][0] == '-' || strchr(ret->words[0], '=')) {
        return un_error_set(err, -EINVAL,
                            "%s: its first line asks more of env than a command; deploy the "
                            "interpreter with the script as an argument, variables as --env",
                            script);
    }
    return 0;
}

/* The first line of a script: its interpreter becomes what runs, with the line's argument, if any, and
 * the script as its arguments (execve(2)). */
static int add_script(struct collect *c, const char *script, char *line, struct un_error *err)
{
    char command[PATH_MAX], real[PATH_MAX];
    struct stat st;
    line[strcspn(line, "\r\n")] = '\0';
    char *p = line + 2 + strspn(line + 2, " \t");
    char *end = p + strcspn(p, " \t");
    char *argument = end + strspn(end, " \t");
    *end = '\0';
    for (size_t len = strlen(argument); len > 0 && strchr(" \t", argument[len - 1]); len--) {
        argument[len - 1] = '\0';
    }
    const char *base = strrchr(p, '/');
    snprintf(command, sizeof command, "%s", p);
    struct shebang words = {.words = {p, *argument ? argument : NULL}, .count = *argument ? 2 : 1};
    int rc = 0;
    if (base && strcmp(base, "/env") == 0) {
        rc = split_env(script, argument, &words, err);
        rc = rc < 0 ? rc : find_command(words.words[0], command, err);
    }
    if (rc < 0) {
        return rc;
    }
    rc = add_path(c, command, "interpreter of the script", real, &st, err);
    if (rc < 0) {
        return un_error_context(err, "the interpreter that the first line of %s names", script);
    }
    rc = S_ISREG(st.st_mode) ? check_interpreter(command, real, script, err)
                             : un_error_set(err, -EINVAL, "%s: no file, but the interpreter of %s",
                                            command, script);
    for (size_t i = 1; rc == 0 && i < words.count; i++) {
        rc = add_argument(c, words.words[i], err);
    }
    if (rc == 0) {
        rc = add_argument(c, script, err);
    }
    if (rc == 0) {
        c->runs = strdup(command);
        rc = c->runs ? 0 : un_error_set(err, -ENOMEM, "out of memory");
    }
    return rc;
}

int collect_program(struct collect *c, const char *path, struct un_error *err)
{
    char absolute[PATH_MAX], real[PATH_MAX], head[SHEBANG_BYTES + 1] = "";
    struct stat st;
    int rc = make_absolute(path, absolute, err);
    if (rc == 0) {
        rc = add_path(c, absolute, "program", real, &st, err);
    }
    if (rc < 0) {
        return rc;
    }
    un_autoclose int fd = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? -1 : read(fd, head, SHEBANG_BYTES);
    if (n < 0) {
        return un_error_set(err, -errno, "%s: %s", path, strerror(errno));
    }
    if (n > 2 && head[0] == '#' && head[1] == '!') {
        return add_script(c, absolute, head, err);
    }
    if (!un_elf_is(head, (size_t)n)) {
        return un_error_set(err, -EINVAL, "%s: neither an ELF program nor a script", path);
    }
    c->runs = strdup(absolute);
    return c->runs ? 0 : un_error_set(err, -ENOMEM, "out of memory");
}

const char *collect_runs(const struct collect *c)
{
    return c->runs;
}

const char *const *collect_arguments(const struct collect *c)
{
    return (const char *const *)c->arguments;
}

/* --- more files ------------------------------------------------------------------------------- */

static int add_tree(struct collect *c, const char *dir, int depth, struct un_error *err);

static int add_child(struct collect *c, const char *dir, const char *name, int depth,
                     struct un_error *err)
{
    char path[PATH_MAX], real[PATH_MAX];
    struct un_error why = UN_ERROR_INIT;
    struct stat st;
    int n = snprintf(path, sizeof path, "%s/%s", strcmp(dir, "/") == 0 ? "" : dir, name);
    if (n < 0 || n >= PATH_MAX) {
        return too_long(dir, err);
    }
    if (lstat(path, &st) < 0) {
        return un_error_set(err, -errno, "%s: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !S_ISLNK(st.st_mode)) {
        return warn(c, path, "left out: a device, pipe or socket", err);
    }
    bool link = S_ISLNK(st.st_mode);
    int rc = add_path(c, path, "--with", real, &st, &why);
    if (rc < 0 && link && rc != -ENOMEM && rc != -EFBIG) {
        return warn(c, path, "a link that leads nowhere", err); /* the link itself is taken along */
    }
    if (rc < 0) {
        un_error_copy(err, &why);
        return rc;
    }
    return S_ISDIR(st.st_mode) && !link ? add_tree(c, real, depth + 1, err) : 0;
}

static int add_tree(struct collect *c, const char *dir, int depth, struct un_error *err)
{
    struct dirent **names;
    if (depth > DEPTH_MAX) {
        return un_error_set(err, -ELOOP, "%s: more than %d directories deep", dir, DEPTH_MAX);
    }
    int count = scandir(dir, &names, NULL, NULL);
    if (count < 0) {
        return un_error_set(err, -errno, "%s: %s", dir, strerror(errno));
    }
    int rc = 0;
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (rc == 0 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
            rc = add_child(c, dir, name, depth, err);
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

int collect_with(struct collect *c, const char *path, struct un_error *err)
{
    char absolute[PATH_MAX], real[PATH_MAX];
    struct stat st;
    int rc = make_absolute(path, absolute, err);
    if (rc == 0) {
        rc = add_path(c, absolute, "--with", real, &st, err);
    }
    return rc == 0 && S_ISDIR(st.st_mode) ? add_tree(c, real, 0, err) : rc;
}

/* --- libraries -------------------------------------------------------------------------------- */

struct search {
    struct library_paths paths;
    char *program_rpath;
    bool configured; /* some library is found by the cache only */
    bool glibc, unwinds;
};

/* What glibc loads when a thread ends by pthread_exit(3) or pthread_cancel(3), and which no table names. */
#define UNWINDER "libgcc_s.so.1"

static bool has_string(const struct library_file *f, const char *text)
{
    return memmem(f->data, f->size, text, strlen(text) + 1) != NULL;
}

static int add_needed(struct collect *c, struct search *s, const struct collect_entry *e,
                      const struct un_elf_dynamic *d, const char *name, struct un_error *err)
{
    const char *who = e->path;
    char path[PATH_MAX], real[PATH_MAX], why[PATH_MAX + 16], text[PATH_MAX];
    struct stat st;
    bool configured = false;
    if (library_is_builtin(&s->paths, name)) {
        return 0;
    }
    if (!library_find(&s->paths, who, d, s->program_rpath, name, path, &configured)) {
        bool asked = strcmp(e->why, "--with") == 0; /* perhaps nobody loads it */
        snprintf(text, sizeof text,
                 "needs %.200s, which is in no directory that ld.so searches (RPATH, "
                 "/etc/ld.so.conf, its "
                 "own; LD_LIBRARY_PATH does not count); install it there",
                 name);
        return asked ? warn(c, who, text, err) : un_error_set(err, -EINVAL, "%s: %s", who, text);
    }
    s->configured |= configured;
    snprintf(why, sizeof why, "needed by %s", who);
    return add_path(c, path, why, real, &st, err);
}

/* The interpreter and the libraries of one file, if it is an ELF file that has some. */
static int add_of_file(struct collect *c, struct search *s, const struct collect_entry *e,
                       struct un_error *err)
{
    const char *path = e->path;
    char real[PATH_MAX];
    struct stat st;
    struct library_file f;
    struct un_elf elf;
    int rc = library_open(path, &f);
    if (rc < 0) {
        return un_error_set(err, rc, "%s: %s", path, strerror(-rc));
    }
    un_autofree struct un_elf_dynamic *d = calloc(1, sizeof *d);
    if (d && un_elf_is(f.data, f.size) &&
        un_elf_parse_library(f.data, f.size, f.size, &elf, NULL) == 0 && elf.is64 &&
        un_elf_read_dynamic(f.data, f.size, &elf, d, NULL) == 0) {
        const char *interpreter = un_elf_interpreter(f.data, f.size, &elf);
        if (interpreter) {
            rc = add_path(c, interpreter, "interpreter", real, &st, err);
        }
        const char *slash = strrchr(path, '/');
        bool libc = slash && strcmp(slash, "/libc.so.6") == 0;
        s->glibc |= libc;
        s->unwinds |= !libc && (has_string(&f, "pthread_exit") || has_string(&f, "pthread_cancel"));
        for (size_t i = 0; rc == 0 && i < d->needed_count; i++) {
            rc = add_needed(c, s, e, d, d->needed[i], err);
        }
    }
    library_close(&f);
    return d ? rc : un_error_set(err, -ENOMEM, "out of memory");
}

/* What the program itself says of how libraries are found. */
static int search_init(struct collect *c, struct search *s, struct un_error *err)
{
    char real[PATH_MAX];
    struct library_file f = {0};
    struct un_elf elf;
    const char *interpreter = NULL;
    un_autofree struct un_elf_dynamic *d = calloc(1, sizeof *d);
    *s = (struct search){0};
    if (d && c->runs && realpath(c->runs, real) && library_open(real, &f) == 0 &&
        un_elf_is(f.data, f.size) && un_elf_parse(f.data, f.size, f.size, &elf, NULL) == 0 &&
        elf.is64) {
        interpreter = un_elf_interpreter(f.data, f.size, &elf);
        if (un_elf_read_dynamic(f.data, f.size, &elf, d, NULL) == 0 && d->rpath && !d->runpath) {
            s->program_rpath = strdup(d->rpath);
        }
    }
    int rc = library_paths_init(&s->paths, interpreter ? interpreter : "", err);
    library_close(&f);
    return rc;
}

static int add_unwinder(struct collect *c, struct search *s, struct un_error *err)
{
    char path[PATH_MAX], real[PATH_MAX];
    struct stat st;
    bool configured = false;
    const struct un_elf_dynamic none = {0};
    s->unwinds = false;
    if (!library_find(&s->paths, c->runs ? c->runs : "", &none, NULL, UNWINDER, path,
                      &configured)) {
        return 0; /* of a C library that does without */
    }
    s->configured |= configured;
    return add_path(c, path, "loaded when a thread ends", real, &st, err);
}

int collect_libraries(struct collect *c, struct un_error *err)
{
    char real[PATH_MAX];
    struct stat st;
    struct search s;
    int rc = search_init(c, &s, err);
    for (size_t i = 0; rc == 0 && i < c->count; i++) { /* the list grows on the way */
        if (S_ISREG(c->entries[i]->mode)) {
            rc = add_of_file(c, &s, c->entries[i], err);
        }
        if (rc == 0 && i + 1 == c->count && s.glibc && s.unwinds) {
            rc = add_unwinder(c, &s, err);
        }
    }
    if (rc == 0 && s.configured) {
        rc = add_path(c, "/etc/ld.so.cache", "libraries in configured directories", real, &st, err);
    }
    library_paths_done(&s.paths);
    free(s.program_rpath);
    return rc;
}

/* --- the list --------------------------------------------------------------------------------- */

static int by_path_indirect(const void *a, const void *b)
{
    return by_path(*(struct collect_entry *const *)a, *(struct collect_entry *const *)b);
}

const struct collect_entry *const *collect_entries(struct collect *c, size_t *ret_count)
{
    if (c->count > 0) {
        qsort(c->entries, c->count, sizeof c->entries[0], by_path_indirect);
    }
    *ret_count = c->count;
    return (const struct collect_entry *const *)c->entries;
}
