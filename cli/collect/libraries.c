/* libraries.c - see libraries.h. The search order is that of ld.so(8); ld.so.conf as ldconfig(8)
 * reads it; musl as its ldso/dynlink.c documents: RPATH, then the .path file or the default. */
#include "cli/collect/libraries.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/cleanup.h"

static void close_file(FILE **f)
{
    if (*f) {
        fclose(*f);
    }
}
#define un_autoclosefile __attribute__((cleanup(close_file)))

enum { INCLUDE_DEPTH = 4, CONF_LINE = 1024 };

static const char glibc_defaults[] =
    "/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu:/lib64:/usr/lib64:/lib:/usr/lib";
static const char musl_defaults[] = "/lib:/usr/local/lib:/usr/lib";

int library_open(const char *path, struct library_file *ret)
{
    struct stat st;
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode)) {
        return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
    }
    *ret = (struct library_file){.size = (size_t)st.st_size};
    if (st.st_size == 0) {
        return 0;
    }
    void *p = mmap(NULL, ret->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
        return -errno;
    }
    ret->data = p;
    return 0;
}

void library_close(struct library_file *f)
{
    if (f->data) {
        munmap((void *)f->data, f->size);
    }
    *f = (struct library_file){0};
}

/* --- configured directories ------------------------------------------------------------------- */

static int read_conf(const char *path, struct un_buf *dirs, int depth)
{
    char line[CONF_LINE];
    un_autoclosefile FILE *f = fopen(path, "re");
    int rc = 0;
    while (f && rc == 0 && fgets(line, sizeof line, f)) {
        line[strcspn(line, "#\n")] = '\0';
        char *p = line + strspn(line, " \t");
        p[strcspn(p, " \t=")] = strncmp(p, "include", 7) == 0 ? ' ' : '\0';
        if (*p == '/') {
            rc = un_buf_printf(dirs, "%s%s", dirs->len ? ":" : "", p);
        } else if (strncmp(p, "include ", 8) == 0 && depth < INCLUDE_DEPTH) {
            glob_t found;
            p += 8 + strspn(p + 8, " \t");
            p[strcspn(p, " \t")] = '\0';
            if (*p == '/' && glob(p, 0, NULL, &found) == 0) {
                for (size_t i = 0; rc == 0 && i < found.gl_pathc; i++) {
                    rc = read_conf(found.gl_pathv[i], dirs, depth + 1);
                }
                globfree(&found);
            }
        }
    }
    return rc;
}

/* musl: directories separated by colons or newlines. */
static int read_musl_path(struct un_buf *dirs)
{
    char line[CONF_LINE];
    un_autoclosefile FILE *f = fopen("/etc/ld-musl-x86_64.path", "re");
    int rc = 0;
    while (f && rc == 0 && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        rc = line[0] ? un_buf_printf(dirs, "%s%s", dirs->len ? ":" : "", line) : 0;
    }
    return rc;
}

int library_paths_init(struct library_paths *p, const char *interpreter, struct un_error *err)
{
    un_autobuf struct un_buf dirs = {0};
    const char *base = strrchr(interpreter, '/');
    *p = (struct library_paths){.musl = strncmp(base ? base + 1 : interpreter, "ld-musl", 7) == 0};
    int rc = p->musl ? read_musl_path(&dirs) : read_conf("/etc/ld.so.conf", &dirs, 0);
    p->configured = rc < 0 ? NULL : un_buf_steal_str(&dirs);
    return p->configured ? 0 : un_error_set(err, -ENOMEM, "out of memory");
}

void library_paths_done(struct library_paths *p)
{
    free(p->configured);
    *p = (struct library_paths){0};
}

/* --- looking ---------------------------------------------------------------------------------- */

/* ld.so passes over files for other machines. */
static bool is_library(const char *path)
{
    uint8_t head[sizeof(Elf64_Ehdr)];
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || read(fd, head, sizeof head) != (ssize_t)sizeof head) {
        return false;
    }
    struct un_reader r = un_reader_of(head, sizeof head);
    un_read_seek(&r, EI_NIDENT);
    uint16_t type = un_read_u16le(&r), machine = un_read_u16le(&r);
    return un_elf_is(head, sizeof head) && head[EI_CLASS] == ELFCLASS64 && machine == EM_X86_64 &&
           type == ET_DYN;
}

static bool try_path(const char *path, const char *origin, const char *name, char ret[PATH_MAX])
{
    static const char *const tokens[] = {"$ORIGIN", "${ORIGIN}"};
    while (path && *path) {
        size_t len = strcspn(path, ":"), skip = 0;
        for (size_t i = 0; i < UN_ARRAY_SIZE(tokens); i++) {
            size_t token = strlen(tokens[i]);
            skip = len >= token && strncmp(path, tokens[i], token) == 0 ? token : skip;
        }
        int n = snprintf(ret, PATH_MAX, "%s%.*s/%s", skip ? origin : "", (int)(len - skip),
                         path + skip, name);
        if (len > 0 && n > 0 && n < PATH_MAX && is_library(ret)) {
            return true;
        }
        path += len + (path[len] == ':');
    }
    return false;
}

static bool in_default_directory(const char *path)
{
    size_t dir = (size_t)(strrchr(path, '/') - path);
    for (const char *p = glibc_defaults; *p; p += strspn(p, ":")) {
        size_t len = strcspn(p, ":");
        if (len == dir && strncmp(p, path, len) == 0) {
            return true;
        }
        p += len;
    }
    return false;
}

bool library_is_builtin(const struct library_paths *p, const char *name)
{
    return p->musl && strncmp(name, "libc.", 5) == 0;
}

bool library_find(const struct library_paths *p, const char *who, const struct un_elf_dynamic *d,
                  const char *rpath, const char *name, char ret[PATH_MAX], bool *ret_configured)
{
    char origin[PATH_MAX], resolved[PATH_MAX];
    const char *slash = strrchr(who, '/');
    snprintf(origin, sizeof origin, "%.*s", slash ? (int)(slash - who) : 0, who);
    *ret_configured = false;
    if (strchr(name, '/')) {
        return realpath(name, resolved) && snprintf(ret, PATH_MAX, "%s", name) > 0;
    }
    if ((!d->runpath &&
         (try_path(d->rpath, origin, name, ret) || try_path(rpath, origin, name, ret))) ||
        try_path(d->runpath, origin, name, ret)) {
        return true;
    }
    if (p->musl) {
        return try_path(p->configured[0] ? p->configured : musl_defaults, origin, name, ret);
    }
    /* The cache, which is made of the configured directories, comes first; what is in a default
     * directory is found without it as well. */
    if (try_path(p->configured, origin, name, ret)) {
        *ret_configured = !in_default_directory(ret);
        return true;
    }
    return try_path(glibc_defaults, origin, name, ret);
}
