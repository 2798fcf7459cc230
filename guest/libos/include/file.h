/* file.h - files: inodes, open files, descriptors, and waiting for them (fs/, net/).
 *
 * An inode is a file of a file system: of the image's root (rootfs.c; instantiated when looked up,
 * copied page by page when written), or made at run time (tmpfs.c). An open file is what a
 * descriptor refers to; pipes, sockets, epoll, eventfd, timerfd and devices are open files with
 * operations of their own.
 */
#ifndef LIBOS_FILE_H
#define LIBOS_FILE_H

#include "kernel.h"
#include "task.h"

struct inode;
struct file;
struct stat; /* <asm/stat.h> */

struct file_ops {
    const char *name; /* as readlink of /proc/self/fd/N shows what has no path: "pipe", "socket" */
    bool seekable;
    bool messages; /* each read or write is one message: vectors are gathered */
    /* `pos` is the offset to use and advance; NULL for what has none. Block as the file's flags say
     * (O_NONBLOCK: -EAGAIN). */
    int64_t (*read)(struct file *f, void *to, size_t len, uint64_t *pos);
    int64_t (*write)(struct file *f, const void *from, size_t len, uint64_t *pos);
    /* POLL* bits that hold now; NULL: always readable and writable. */
    uint32_t (*poll)(struct file *f);
    /* What is woken when poll() may have changed; NULL: it never does. */
    struct readiness *(*ready)(struct file *f);
    /* CLOCK_MONOTONIC when poll() changes by itself, or NO_DEADLINE; NULL: never. */
    uint64_t (*deadline)(struct file *f);
    /* Whether to wait for this file is to wait for the request (task.h, request_waiters). */
    bool (*wants_request)(struct file *f);
    int64_t (*ioctl)(struct file *f, uint32_t request, uint64_t arg);
    int (*stat)(struct file *f, struct stat *ret); /* NULL: by the inode */
    void (*release)(struct file *f);               /* last reference gone */
};

/* A queue with a count of the changes, by which an edge-triggered epoll knows something new. */
struct readiness {
    struct waitq q;
    uint32_t changes;
};
static inline void readiness_init(struct readiness *r)
{
    waitq_init(&r->q);
    r->changes = 0;
}
static inline void readiness_changed(struct readiness *r)
{
    r->changes++;
    waitq_wake_all(&r->q);
}

struct file {
    const struct file_ops *ops;
    struct inode *inode; /* NULL for what has none */
    uint32_t refs;
    uint32_t flags; /* O_ACCMODE, O_APPEND, O_NONBLOCK, ... */
    bool nowait;    /* this call must not block, whatever the flags say (readv's later parts) */
    uint64_t pos;
    void *priv;
    char *path;         /* absolute, as it was opened; NULL for what has none */
    struct list epolls; /* entries of epoll sets that watch it */
};

/* Gives a file with one reference; NULL out of memory. `inode`: takes a reference of its own. */
struct file *file_new(const struct file_ops *ops, struct inode *inode, uint32_t flags, void *priv);
struct file *file_ref(struct file *f);
void file_unref(struct file *f); /* NULL allowed */

/* Descriptors. fd_get: borrowed, NULL is -EBADF. fd_install: takes the reference on success;
 * -EMFILE. */
#define FD_MAX 4096 /* RLIMIT_NOFILE */
struct file *fd_get(int fd);
int fd_install(struct file *f, int least, bool cloexec);
int fd_close(int fd);
/* Mounts the root, /dev, /proc, /tmp; opens 0, 1, 2 as the interface wants. */
void files_init(void);
/* For a program that starts again: all that is open is closed, and files are as in the image. */
void files_init_again(void);
/* Makes a directory the one at which relative paths begin; a negative error number. */
int files_enter(const char *path);

/* $PORT of an `http` program, 0: none. The listener there gets the request (net/listen.c). */
void net_set_port(uint16_t port);

/* For mm and exec: bytes and pages of a regular file. */
struct file *file_open_path(const char *path, uint32_t flags, int *ret_error); /* for the kernel */
int64_t file_read_at(struct file *f, void *to, size_t len, uint64_t offset);
uint64_t file_size(const struct file *f);
bool file_is_regular(const struct file *f); /* else mmap says -ENODEV (/dev/zero: file_is_zero) */
bool file_is_zero(const struct file *f);    /* /dev/zero: maps as anonymous memory */
/* The frame that holds page `index` of the file, shared, never to be written through by a private
 * mapping; 0 when the file has no frames of that kind (then mm copies) or none there. It is of the
 * image, or one that counts users (frame_get) as the file gives it up when truncated. */
uint64_t file_frame(struct file *f, uint64_t index);
/* The same for a MAP_SHARED mapping: a frame of the file's own when the file is open for writing,
 * made when there is none, so that the mapping and write() see the same bytes. 0 also when memory
 * is used up. */
uint64_t file_frame_shared(struct file *f, uint64_t index);
/* Stubs of a rewritten ELF file (rootfs.h): false when it has none. */
struct file_stubs {
    uint64_t phys, size,
        vaddr; /* page-aligned frames of the image; address in the file's own space */
};
bool file_stubs(const struct file *f, struct file_stubs *ret);
const char *file_path(const struct file *f); /* absolute, borrowed; "" when it has none */

/* The program failed: logs the last names that it looked up in vain before it asked for a request; nothing
 * when it has asked for one, or there were none. */
void absent_tell(void);

#endif
