/* temporary.c - see temporary.h. */
#include "cli/temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"

int temporary_open(struct un_error *err)
{
    const char *dir = getenv("TMPDIR");
    un_autofree char *name = NULL;
    int fd = open(dir && *dir ? dir : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        if (asprintf(&name, "%s/unictl.XXXXXX", dir && *dir ? dir : "/tmp") < 0) {
            name = NULL;
            return un_error_set(err, -ENOMEM, "out of memory");
        }
        fd = mkostemp(name, O_CLOEXEC);
        if (fd >= 0) {
            unlink(name);
        }
    }
    return fd < 0 ? un_error_errno(err, -errno, "no temporary file (TMPDIR)") : fd;
}

const char *temporary_path(int fd, char ret[TEMPORARY_PATH_SIZE])
{
    snprintf(ret, TEMPORARY_PATH_SIZE, "/proc/self/fd/%d", fd);
    return ret;
}

int temporary_copy(int from, struct un_error *err)
{
    char part[1 << 16];
    un_autoclose int fd = temporary_open(err);
    ssize_t n = 1;
    if (fd < 0) {
        return err->code;
    }
    while ((n = read(from, part, sizeof part)) != 0) {
        if (n < 0 && errno != EINTR) {
            return un_error_errno(err, -errno, "cannot read standard input");
        }
        int rc = n > 0 ? un_write_all(fd, part, (size_t)n) : 0;
        if (rc < 0) {
            return un_error_errno(err, rc,
                                  "cannot keep standard input in a temporary file (TMPDIR)");
        }
    }
    return un_steal_fd(&fd);
}
