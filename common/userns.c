/* userns.c - see userns.h. */
#include "common/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    ssize_t n = write(fd, text, strlen(text));
    int rc = n < 0 ? -errno : n != (ssize_t)strlen(text) ? -EIO : 0;
    close(fd);
    return rc;
}

int un_userns_enter(void)
{
    char uid_map[64], gid_map[64];
    snprintf(uid_map, sizeof(uid_map), "%u %u 1", geteuid(), geteuid());
    snprintf(gid_map, sizeof(gid_map), "%u %u 1", getegid(), getegid());
    if (unshare(CLONE_NEWUSER) < 0) {
        return -errno;
    }
    int rc = write_file("/proc/self/setgroups", "deny");
    rc = rc < 0 ? rc : write_file("/proc/self/uid_map", uid_map);
    return rc < 0 ? rc : write_file("/proc/self/gid_map", gid_map);
}
