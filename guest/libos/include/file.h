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
struct kstat; /* fs/stat.h: struct stat of x86-64 Linux */

struct file_ops {
    const char *name;
    /* `pos` is the offset to use and advance; NULL for what has none. Block as the file's flags say
     * (O_NONBLOCK: -EAGAIN). */
    int64_t (*read)(struct file *f, void *to, size_t len, uint64_t *pos);
    int64_t (*write)(struct file *f, const void *from, size_t len, uint64_t *pos);
    /* POLL* bits that hold now. */
    uint32_t (*poll)(struct file *f);
    /* The queue that is woken when poll() may have changed; NULL: it never does. */
    struct waitq *(*waitq)(struct file *f);
    int64_t (*ioctl)(struct file *f, uint32_t request, uint64_t arg);
    int (*stat)(struct file *f, struct kstat *ret); /* NULL: by the inode */
    void (*release)(struct file *f);                /* last reference gone */
};

struct file {
    const struct file_ops *ops;
    struct inode *inode; /* NULL for what has none */
    uint32_t refs;
    uint32_t flags; /* O_ACCMODE, O_APPEND, O_NONBLOCK, ... */
    uint64_t pos;
    void *priv;
};

/* Gives a file with one reference; NULL out of memory. `inode`: takes a reference of its own. */
struct file *file_new(const struct file_ops *ops, struct inode *inode, uint32_t flags, void *priv);
struct file *file_ref(struct file *f);
void file_unref(struct file *f); /* NULL allowed */

/* Descriptors. */
struct file *fd_get(int fd);                          /* borrowed; NULL: -EBADF */
int fd_install(struct file *f, int least, bool cloexec); /* takes the reference on success; -EMFILE */
int fd_close(int fd);
void files_init(void); /* mounts the root, /dev, /proc, /tmp; opens 0, 1, 2 as the interface wants */

/* For mm and exec: bytes and pages of a regular file. */
struct file *file_open_path(const char *path, uint32_t flags, int *ret_error); /* for the kernel */
int64_t file_read_at(struct file *f, void *to, size_t len, uint64_t offset);
uint64_t file_size(const struct file *f);
/* The frame that holds page `index` of the file, shared, never to be written through by a private
 * mapping; 0 when the file has no frames of that kind (then mm copies) or none there. */
uint64_t file_frame(struct file *f, uint64_t index);
/* Stubs of a rewritten ELF file (rootfs.h): false when it has none. */
struct file_stubs {
    uint64_t phys, size, vaddr; /* page-aligned frames of the image; address in the file's own space */
};
bool file_stubs(const struct file *f, struct file_stubs *ret);
const char *file_path(const struct file *f); /* absolute, borrowed; "" when it has none */

#endif
