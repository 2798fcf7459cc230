/* volume_file.c - the files of volumes (see volume.h). The temporary file of NAME is .NAME.part, which
 * is no volume's name. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/file.h"
#include "imagestore/volume_internal.h"

#define PART_END ".part"

enum { PART_NAME_SIZE = 1 + VOLUME_NAME_SIZE + sizeof(PART_END), BLOCK_BYTES = 64 << 10 };

static const char *part_name(const char *name, char ret[PART_NAME_SIZE])
{
    snprintf(ret, PART_NAME_SIZE, ".%.63s" PART_END, name);
    return ret;
}

static bool is_zero(const uint8_t *data, size_t len)
{
    return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

/* Zeros are left out: what was not written takes no room. */
static int fill(int fd, const struct volume_content *content)
{
    int fault = un_fault("volume.write");
    if (fault || ftruncate(fd, (off_t)content->size_bytes) < 0) {
        return fault ? fault : -errno;
    }
    for (size_t at = 0; at < content->len; at += BLOCK_BYTES) {
        size_t n = content->len - at < BLOCK_BYTES ? content->len - at : BLOCK_BYTES;
        int rc = is_zero(content->data + at, n) ? 0 : un_pwrite_all(fd, content->data + at, n, at);
        if (rc < 0) {
            return rc;
        }
    }
    return fsync(fd) < 0 ? -errno : 0;
}

int volume_file_make(int dir_fd, const char *name, const struct volume_content *content,
                     struct un_error *err)
{
    char part[PART_NAME_SIZE];
    un_autoclose int fd = openat(dir_fd, part_name(name, part),
                                 O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    int rc = fd < 0 ? -errno : fill(fd, content);
    if (rc == 0 && fsync(dir_fd) < 0) {
        rc = -errno;
    }
    if (rc < 0) {
        (void)unlinkat(dir_fd, part, 0);
        return un_error_errno(err, rc, "write volume %s", name);
    }
    return 0;
}

static int rename_durably(int dir_fd, const char *from, const char *to, struct un_error *err)
{
    int fault = un_fault("volume.rename");
    if (fault || renameat(dir_fd, from, dir_fd, to) < 0 || fsync(dir_fd) < 0) {
        return un_error_errno(err, fault ? fault : -errno, "rename volume %s", from);
    }
    return 0;
}

int volume_file_show(int dir_fd, const char *name, struct un_error *err)
{
    char part[PART_NAME_SIZE];
    return rename_durably(dir_fd, part_name(name, part), name, err);
}

int volume_file_hide(int dir_fd, const char *name, struct un_error *err)
{
    char part[PART_NAME_SIZE];
    return rename_durably(dir_fd, name, part_name(name, part), err);
}

void volume_file_drop(int dir_fd, const char *name)
{
    char part[PART_NAME_SIZE];
    (void)unlinkat(dir_fd, part_name(name, part), 0); /* what stays is removed at the next start */
}

bool volume_file_exists(int dir_fd, const char *name)
{
    struct stat st;
    return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

uint64_t volume_file_allocated(int dir_fd, const char *name)
{
    struct stat st;
    return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

int volume_file_each_hidden(int dir_fd, void (*fn)(void *arg, const char *name), void *arg,
                            struct un_error *err)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *d;
    if (!dir) {
        int rc = un_error_errno(err, -errno, "list volumes");
        if (fd >= 0) {
            close(fd);
        }
        return rc;
    }
    while ((d = readdir(dir))) {
        size_t len = strlen(d->d_name), end = strlen(PART_END);
        char name[VOLUME_NAME_SIZE] = "";
        if (d->d_name[0] != '.' || len <= 1 + end || len - 1 - end >= sizeof(name) ||
            strcmp(d->d_name + len - end, PART_END) != 0) {
            continue;
        }
        memcpy(name, d->d_name + 1, len - 1 - end);
        if (volume_name_valid(name)) {
            fn(arg, name);
        }
    }
    closedir(dir);
    return 0;
}
