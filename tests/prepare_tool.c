/* prepare_tool.c - prepares a program from the command line, without a daemon.
 *
 *     prepare-tool [--libos FILE] PROGRAM|TAR OUT
 *
 * The program stands in its root file system at its own real path. The library OS is that of the
 * build unless another is named. The report goes to standard output.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "prepare/program.h"

static const uint8_t *map(const char *path, size_t *ret_size)
{
    struct stat st;
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0) {
        fprintf(stderr, "prepare-tool: %s: %s\n", path, strerror(errno));
        return NULL;
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    *ret_size = (size_t)st.st_size;
    return p == MAP_FAILED ? NULL : p;
}

int main(int argc, char **argv)
{
    char real[PATH_MAX] = "";
    const char *libos = NULL;
    int at = 1;
    if (argc > 2 && strcmp(argv[1], "--libos") == 0) {
        libos = argv[2];
        at = 3;
    }
    if (argc - at != 2) {
        fprintf(stderr, "usage: prepare-tool [--libos FILE] PROGRAM|TAR OUT\n");
        return 2;
    }
    struct prepare_spec spec = {.name = realpath(argv[at], real)};
    struct prepare_result result;
    struct un_error err = UN_ERROR_INIT;
    if (libos && !(spec.libos = map(libos, &spec.libos_size))) {
        return 1;
    }
    spec.data = map(argv[at], &spec.size);
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
