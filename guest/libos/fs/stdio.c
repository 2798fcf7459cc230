/* stdio.c - descriptors 0, 1 and 2, as the interface has them; where all of the file system begins.
 *
 *     interface   0                  1                       2
 *     filter      the body           the response            the log
 *     cgi         the body           the response            the log
 *     http        /dev/null          the log                 the log
 */
#include "fs/wait.h"
#include "host.h"
#include "mm.h"
#include "sys_file.h"

/* Reading waits in the host for body bytes, also with O_NONBLOCK: the client sends them, and nobody
 * but the host can tell when. */
static int64_t body_read(struct file *f, void *to, size_t len, uint64_t *pos)
{
    (void)pos;
    return len ? host_body_read(to, len, !f->nowait) : 0;
}

static int64_t response_write(struct file *f, const void *from, size_t len, uint64_t *pos)
{
    (void)f, (void)pos;
    host_response_write(from, len);
    return (int64_t)len;
}

static int64_t log_write(struct file *f, const void *from, size_t len, uint64_t *pos)
{
    (void)f, (void)pos;
    host_log_write(from, len);
    return (int64_t)len;
}

static uint32_t body_poll(struct file *f)
{
    (void)f;
    return POLLIN | POLLRDNORM;
}

static uint32_t output_poll(struct file *f)
{
    (void)f;
    return POLLOUT | POLLWRNORM;
}

static int pipe_like_stat(struct file *f, struct stat *ret)
{
    ret->st_mode = S_IFIFO | 0600;
    ret->st_ino = (uintptr_t)f->ops;
    return 0;
}

static const struct file_ops body_ops = {
    .name = "pipe", .read = body_read, .poll = body_poll, .stat = pipe_like_stat};
static const struct file_ops response_ops = {
    .name = "pipe", .write = response_write, .poll = output_poll, .stat = pipe_like_stat};
static const struct file_ops log_ops = {
    .name = "pipe", .write = log_write, .poll = output_poll, .stat = pipe_like_stat};

static void install(int fd, struct file *f)
{
    if (!f || fd_install_at(f, fd, false) < 0) {
        kpanic("no memory for descriptor %d", fd);
    }
}

void stdio_open(void)
{
    bool http = host_interface() == UNID_INTERFACE_HTTP;
    install(0, http ? dev_null_open(O_RDONLY) : file_new(&body_ops, NULL, O_RDONLY, NULL));
    install(1, file_new(http ? &log_ops : &response_ops, NULL, O_WRONLY, NULL));
    install(2, file_new(&log_ops, NULL, O_WRONLY, NULL));
}

/* Directories that programs expect and an image may lack. */
static void complete_root(void)
{
    struct walk w;
    if (walk_kernel(&w, "/tmp", 0) == 0) {
        if (!w.inode) {
            dir_make(dir_root(), "tmp", 01777, DEV_ROOT);
        }
        walk_done(&w);
    }
}

static void mount_all(void)
{
    if (!dir_root()) {
        struct inode *root = inode_new(S_IFDIR | 0755, DEV_ROOT);
        if (!root) {
            kpanic("no memory for the root directory");
        }
        dir_set_root(root);
        inode_unref(root);
    }
    dev_mount();
    proc_mount();
    complete_root();
    synthesize_etc();
    stdio_open();
}

void files_init(void)
{
    locks_init();
#ifndef LIBOS_HOSTED
    const struct unid_rootfs_where *where =
        (const struct unid_rootfs_where *)(uintptr_t)UNID_ROOTFS_WHERE_ADDR;
    if (where->size && rootfs_mount(where->phys, where->size) < 0) {
        kpanic("the image's root file system is not one");
    }
#endif
    mount_all();
}

void files_init_again(void)
{
    locks_init();
    sys_close_range(0, ~0u, 0);
    if (rootfs_mount_again() < 0) {
        kpanic("no memory to mount the root file system again");
    }
    cwd_set(dir_root());
    process_umask = 022;
    mount_all();
}
