/* slow_sync.c - for bench/run: preloaded, it makes fsync and fdatasync take SYNC_US longer, as a disk
 * without a fast cache takes. The bare rate of a machine whose disk answers at once says nothing about
 * group commit. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

enum { SYNC_US = 5000 };

static int slowly(const char *name, int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);

    usleep(SYNC_US);
    return real(fd);
}

int fsync(int fd)
{
    return slowly("fsync", fd);
}

int fdatasync(int fd)
{
    return slowly("fdatasync", fd);
}
