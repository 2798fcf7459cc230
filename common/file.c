/* file.c - see file.h. */
#include "common/file.h"

#include <errno.h>
#include <unistd.h>

int un_write_all(int fd, const void *data, size_t len)
{
    for (const uint8_t *p = data; len > 0;) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        n = n < 0 ? 0 : n;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

int un_pwrite_all(int fd, const void *data, size_t len, uint64_t at)
{
    for (const uint8_t *p = data; len > 0;) {
        ssize_t n = pwrite(fd, p, len, (off_t)at);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        n = n < 0 ? 0 : n;
        p += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return 0;
}
