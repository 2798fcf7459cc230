/* sys_file.h - the system calls of files and sockets: fs/ and net/.
 *
 * Arguments as in Linux's x86-64 ABI; pointers are the program's and are checked here. Each gives
 * a value >= 0 or a negative Linux errno. What is not here is ENOSYS: inotify, fanotify, splice,
 * tee, vmsplice, io_uring, aio, signalfd, setxattr, openat2.
 */
#ifndef LIBOS_SYS_FILE_H
#define LIBOS_SYS_FILE_H

#include "kernel.h"

struct iovec;
struct pollfd;
struct epoll_event;
struct stat;
struct statx;
struct statfs;
struct __kernel_timespec;
struct __kernel_old_timeval;
struct user_msghdr; /* net/socket.h */
struct user_mmsghdr;

/* fs/open.c */
int64_t sys_open(const char *path, int flags, uint32_t mode);
int64_t sys_openat(int dirfd, const char *path, int flags, uint32_t mode);
int64_t sys_creat(const char *path, uint32_t mode);
int64_t sys_close(int fd);
int64_t sys_close_range(uint32_t first, uint32_t last, uint32_t flags);
int64_t sys_memfd_create(const char *name, uint32_t flags);

/* fs/rw.c */
int64_t sys_read(int fd, void *buf, size_t len);
int64_t sys_write(int fd, const void *buf, size_t len);
int64_t sys_pread64(int fd, void *buf, size_t len, int64_t offset);
int64_t sys_pwrite64(int fd, const void *buf, size_t len, int64_t offset);
int64_t sys_readv(int fd, const struct iovec *iov, int count);
int64_t sys_writev(int fd, const struct iovec *iov, int count);
int64_t sys_preadv(int fd, const struct iovec *iov, int count, int64_t offset, int64_t high);
int64_t sys_pwritev(int fd, const struct iovec *iov, int count, int64_t offset, int64_t high);
int64_t sys_preadv2(int fd, const struct iovec *iov, int count, int64_t offset, int64_t high,
                    int flags);
int64_t sys_pwritev2(int fd, const struct iovec *iov, int count, int64_t offset, int64_t high,
                     int flags);
int64_t sys_lseek(int fd, int64_t offset, int whence);
int64_t sys_sendfile(int out_fd, int in_fd, int64_t *offset, size_t count);
int64_t sys_copy_file_range(int in_fd, int64_t *in_offset, int out_fd, int64_t *out_offset,
                            size_t len, uint32_t flags);
int64_t sys_ftruncate(int fd, int64_t length);
int64_t sys_truncate(const char *path, int64_t length);
int64_t sys_fallocate(int fd, int mode, int64_t offset, int64_t len);
int64_t sys_fsync(int fd);
int64_t sys_fdatasync(int fd);
int64_t sys_syncfs(int fd);
int64_t sys_sync(void);
int64_t sys_sync_file_range(int fd, int64_t offset, int64_t len, uint32_t flags);
int64_t sys_fadvise64(int fd, int64_t offset, int64_t len, int advice);
int64_t sys_readahead(int fd, int64_t offset, size_t count);

/* fs/splice.c */
int64_t sys_splice(int in_fd, int64_t *in_offset, int out_fd, int64_t *out_offset, size_t len,
                   uint32_t flags);
int64_t sys_tee(int in_fd, int out_fd, size_t len, uint32_t flags);
int64_t sys_vmsplice(int fd, const struct iovec *iov, size_t count, uint32_t flags);

/* fs/stat.c */
int64_t sys_stat(const char *path, struct stat *ret);
int64_t sys_lstat(const char *path, struct stat *ret);
int64_t sys_fstat(int fd, struct stat *ret);
int64_t sys_newfstatat(int dirfd, const char *path, struct stat *ret, int flags);
int64_t sys_statx(int dirfd, const char *path, int flags, uint32_t mask, struct statx *ret);
int64_t sys_statfs(const char *path, struct statfs *ret);
int64_t sys_fstatfs(int fd, struct statfs *ret);
int64_t sys_access(const char *path, int mode);
int64_t sys_faccessat(int dirfd, const char *path, int mode);
int64_t sys_faccessat2(int dirfd, const char *path, int mode, int flags);
int64_t sys_readlink(const char *path, char *buf, int size);
int64_t sys_readlinkat(int dirfd, const char *path, char *buf, int size);

/* fs/attr.c */
int64_t sys_chmod(const char *path, uint32_t mode);
int64_t sys_fchmod(int fd, uint32_t mode);
int64_t sys_fchmodat(int dirfd, const char *path, uint32_t mode);
int64_t sys_chown(const char *path, uint32_t uid, uint32_t gid);
int64_t sys_lchown(const char *path, uint32_t uid, uint32_t gid);
int64_t sys_fchown(int fd, uint32_t uid, uint32_t gid);
int64_t sys_fchownat(int dirfd, const char *path, uint32_t uid, uint32_t gid, int flags);
int64_t sys_utimensat(int dirfd, const char *path, const struct __kernel_timespec *times,
                      int flags);
int64_t sys_futimesat(int dirfd, const char *path, const struct __kernel_old_timeval *times);
int64_t sys_utimes(const char *path, const struct __kernel_old_timeval *times);
int64_t sys_utime(const char *path, const int64_t *times);
int64_t sys_chdir(const char *path);
int64_t sys_fchdir(int fd);
int64_t sys_getcwd(char *buf, size_t size);
int64_t sys_umask(uint32_t mask);
int64_t sys_getxattr(const char *path, const char *name, void *value, size_t size); /* -ENODATA */
int64_t sys_fgetxattr(int fd, const char *name, void *value, size_t size);
int64_t sys_lgetxattr(const char *path, const char *name, void *value, size_t size);
int64_t sys_listxattr(const char *path, char *list, size_t size); /* 0 */
int64_t sys_llistxattr(const char *path, char *list, size_t size);
int64_t sys_flistxattr(int fd, char *list, size_t size);
int64_t sys_setxattr(const char *path, const char *name); /* this and the next: -EOPNOTSUPP */
int64_t sys_lsetxattr(const char *path, const char *name);
int64_t sys_fsetxattr(int fd, const char *name);
int64_t sys_removexattr(const char *path, const char *name);
int64_t sys_lremovexattr(const char *path, const char *name);
int64_t sys_fremovexattr(int fd, const char *name);

/* fs/dir.c */
int64_t sys_getdents(int fd, void *buf, uint32_t size);
int64_t sys_getdents64(int fd, void *buf, uint32_t size);
int64_t sys_mkdir(const char *path, uint32_t mode);
int64_t sys_mkdirat(int dirfd, const char *path, uint32_t mode);
int64_t sys_rmdir(const char *path);
int64_t sys_unlink(const char *path);
int64_t sys_unlinkat(int dirfd, const char *path, int flags);
int64_t sys_rename(const char *from, const char *to);
int64_t sys_renameat(int from_fd, const char *from, int to_fd, const char *to);
int64_t sys_renameat2(int from_fd, const char *from, int to_fd, const char *to, uint32_t flags);
int64_t sys_link(const char *from, const char *to);
int64_t sys_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags);
int64_t sys_symlink(const char *text, const char *path);
int64_t sys_symlinkat(const char *text, int dirfd, const char *path);
int64_t sys_mknod(const char *path, uint32_t mode, uint64_t dev);
int64_t sys_mknodat(int dirfd, const char *path, uint32_t mode, uint64_t dev);
int64_t sys_mount(void); /* this and the next: -EPERM */
int64_t sys_umount2(void);
int64_t sys_chroot(void);
int64_t sys_pivot_root(void);

/* fs/lock.c */
int64_t sys_flock(int fd, int operation);

/* fs/fcntl.c */
int64_t sys_fcntl(int fd, int command, uint64_t arg);
int64_t sys_dup(int fd);
int64_t sys_dup2(int from, int to);
int64_t sys_dup3(int from, int to, int flags);
int64_t sys_ioctl(int fd, uint32_t request, uint64_t arg);

/* fs/pipe.c, fs/eventfd.c, fs/timerfd.c */
int64_t sys_pipe(int *ret_fds);
int64_t sys_pipe2(int *ret_fds, int flags);
int64_t sys_eventfd(uint32_t initial);
int64_t sys_signalfd(int fd, const uint64_t *mask, size_t size);
int64_t sys_signalfd4(int fd, const uint64_t *mask, size_t size, int flags);
int64_t sys_eventfd2(uint32_t initial, int flags);
int64_t sys_timerfd_create(int clock, int flags);
int64_t sys_timerfd_settime(int fd, int flags, const struct __kernel_timespec *value,
                            struct __kernel_timespec *ret_old);
int64_t sys_timerfd_gettime(int fd, struct __kernel_timespec *ret_value);

/* fs/poll.c, fs/epoll.c. `sigmask`: as sys_rt_sigprocmask's. */
int64_t sys_poll(struct pollfd *fds, uint32_t count, int timeout_ms);
int64_t sys_ppoll(struct pollfd *fds, uint32_t count, struct __kernel_timespec *timeout,
                  const uint64_t *sigmask, size_t sigset_size);
int64_t sys_select(int count, uint64_t *read, uint64_t *write, uint64_t *except,
                   struct __kernel_old_timeval *timeout);
int64_t sys_pselect6(int count, uint64_t *read, uint64_t *write, uint64_t *except,
                     struct __kernel_timespec *timeout, const void *sigmask);
int64_t sys_epoll_create(int size);
int64_t sys_epoll_create1(int flags);
int64_t sys_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event);
int64_t sys_epoll_wait(int epfd, struct epoll_event *events, int count, int timeout_ms);
int64_t sys_epoll_pwait(int epfd, struct epoll_event *events, int count, int timeout_ms,
                        const uint64_t *sigmask, size_t sigset_size);
int64_t sys_epoll_pwait2(int epfd, struct epoll_event *events, int count,
                         const struct __kernel_timespec *timeout, const uint64_t *sigmask,
                         size_t sigset_size);

/* fs/dev.c */
int64_t sys_getrandom(void *buf, size_t len, uint32_t flags);

/* net/ */
int64_t sys_socket(int family, int type, int protocol);
int64_t sys_socketpair(int family, int type, int protocol, int *ret_fds);
int64_t sys_bind(int fd, const void *addr, uint32_t len);
int64_t sys_listen(int fd, int backlog);
int64_t sys_accept(int fd, void *addr, uint32_t *len);
int64_t sys_accept4(int fd, void *addr, uint32_t *len, int flags);
int64_t sys_connect(int fd, const void *addr, uint32_t len);
int64_t sys_getsockname(int fd, void *addr, uint32_t *len);
int64_t sys_getpeername(int fd, void *addr, uint32_t *len);
int64_t sys_setsockopt(int fd, int level, int name, const void *value, uint32_t len);
int64_t sys_getsockopt(int fd, int level, int name, void *value, uint32_t *len);
int64_t sys_sendto(int fd, const void *buf, size_t len, int flags, const void *addr,
                   uint32_t addr_len);
int64_t sys_recvfrom(int fd, void *buf, size_t len, int flags, void *addr, uint32_t *addr_len);
int64_t sys_sendmsg(int fd, const struct user_msghdr *msg, int flags);
int64_t sys_recvmsg(int fd, struct user_msghdr *msg, int flags);
int64_t sys_sendmmsg(int fd, struct user_mmsghdr *msgs, uint32_t count, int flags);
int64_t sys_recvmmsg(int fd, struct user_mmsghdr *msgs, uint32_t count, int flags,
                     struct __kernel_timespec *timeout);
int64_t sys_shutdown(int fd, int how);

#endif
