/* channel_memory.c - see channel_memory.h. */
#include "hypervisor/kvm/channel_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hypervisor/kvm/proto.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

int channel_memory_new(void)
{
    int fd = memfd_create("unid-channel", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create("unid-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    }
    /* Sealed, so that a monitor cannot make unid's mapping of it end in SIGBUS. */
    if (fd < 0 || ftruncate(fd, (off_t)VMM_CHANNEL_SIZE) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int rc = -errno;
        if (fd >= 0) {
            close(fd);
        }
        return rc;
    }
    return fd;
}

/* Zeroes the few pages that were ever written, which then stay where they are: no page faults for
 * unid, the monitor and the guest. A page that was ever written is data to lseek, so it does not
 * matter what a guest says of what it used. False when there are too many, or it cannot be told. */
static bool wipe(int fd, uint8_t *base)
{
    off_t at = 0, end = 0;
    size_t wiped = 0;
    while ((at = lseek(fd, end, SEEK_DATA)) >= 0) {
        end = lseek(fd, at, SEEK_HOLE);
        if (end <= at || end > (off_t)VMM_CHANNEL_SIZE ||
            (wiped += (size_t)(end - at)) > CHANNEL_WIPE_MAX) {
            return false;
        }
        memset(base + at, 0, (size_t)(end - at));
    }
    return errno == ENXIO;
}

int channel_memory_clear(int fd, uint8_t *base)
{
    if (wipe(fd, base)) {
        return 0;
    }
    /* Every page is a zero page again, in every mapping. */
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)VMM_CHANNEL_SIZE) < 0
               ? -errno
               : 0;
}
