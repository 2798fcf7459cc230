/* prepare_tool.c - prepares a program from the command line, without a daemon.
 *
 *     prepare-tool [--libos FILE] [--tar FILE] PROGRAM|SCRIPT|TAR OUT [WITH...]
 *
 * A program or script is collected as `unictl deploy` does it, with the files and directories WITH.
 * OUT is the prepared image; --tar keeps the archive as well. The library OS is that of the build
 * unless another is named. The report goes to standard output; for a script also the arguments that
 * come before the user's own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/collect/collect.h"
#include "common/cleanup.h"
#include "prepare/program.h"
#include "prepare/tar.h"

static const uint8_t *map(int fd, const char *path, size_t *ret_size)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0) {
        fprintf(stderr, "prepare-tool: %s: %s\n", path, strerror(errno));
        return NULL;
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    *ret_size = (size_t)st.st_size;
    return p == MAP_FAILED ? NULL : p;
}

/* The archive of what a program needs, as a file that is open. */
static int collect(const char *program, char **with, const char *tar, struct un_error *err)
{
    char found[PATH_MAX], name[] = "/tmp/prepare-tool.XXXXXX";
    struct collect *c = NULL;
    int fd =
        tar ? open(tar, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : mkostemp(name, O_CLOEXEC);
    if (!tar) {
        unlink(name);
    }
    int rc = collect_new(&c, err);
    rc = rc < 0 ? rc : collect_program(c, program, err);
    for (; rc == 0 && *with; with++) {
        rc = collect_with(c, *with, err);
    }
    rc = rc < 0 ? rc : collect_libraries(c, err);
    rc = rc < 0 ? rc : collect_write(c, &(struct collect_root){0}, collect_runs(c), fd, found, err);
    for (size_t i = 0; rc == 0 && collect_warning(c, i); i++) {
        fprintf(stderr, "prepare-tool: %s\n", collect_warning(c, i));
    }
    for (const char *const *a = collect_arguments(c); rc == 0 && *a; a++) {
        printf("argument: %s\n", *a);
    }
    collect_free(c);
    return rc < 0 ? rc : fd;
}

int main(int argc, char **argv)
{
    const char *libos = NULL, *tar = NULL;
    int at = 1;
    while (argc - at > 2 && strncmp(argv[at], "--", 2) == 0) {
        *(strcmp(argv[at], "--libos") == 0 ? &libos : &tar) = argv[at + 1];
        at += 2;
    }
    if (argc - at < 2) {
        fprintf(stderr,
                "usage: prepare-tool [--libos FILE] [--tar FILE] PROGRAM|TAR OUT [WITH...]\n");
        return 2;
    }
    struct prepare_spec spec = {0};
    struct prepare_result result;
    struct un_error err = UN_ERROR_INIT;
    if (libos && !(spec.libos = map(open(libos, O_RDONLY | O_CLOEXEC), libos, &spec.libos_size))) {
        return 1;
    }
    int in = open(argv[at], O_RDONLY | O_CLOEXEC);
    spec.data = map(in, argv[at], &spec.size);
    if (spec.data && !tar_is(spec.data, spec.size)) {
        in = collect(argv[at], argv + at + 2, tar, &err);
        if (in < 0) {
            fprintf(stderr, "prepare-tool: %s\n", err.text);
            return 1;
        }
        spec.data = map(in, argv[at], &spec.size);
    }
    un_autoclose int fd = open(argv[at + 1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (!spec.data || fd < 0) {
        return 1;
    }
    spec.fd = fd;
    int rc = prepare_program(&spec, &result, &err);
    if (result.report) {
        json_dumpf(result.report, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(result.report);
    }
    if (rc < 0) {
        fprintf(stderr, "prepare-tool: %s\n", err.text);
        unlink(argv[at + 1]);
        return 1;
    }
    return 0;
}
