/* vfs.h - inside fs/ (and net/, for names of AF_UNIX): inodes, names, the walk along a path.
 *
 * A directory's names are dentries in one hash table. A directory of the image lists its names in
 * the image (binary search) and gets a dentry for each that was looked up or removed: a dentry
 * without an inode hides the name. All other names have dentries only. An inode lives as long as
 * a dentry, an open file, or the working directory refers to it.
 *
 * Nothing here blocks.
 */
#ifndef LIBOS_VFS_H
#define LIBOS_VFS_H

#include <asm/stat.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "file.h"

#ifndef S_IFMT /* <linux/stat.h> leaves them to the C library when there is one (LIBOS_HOSTED) */
#define S_IFMT   0170000
#define S_IFSOCK 0140000
#define S_IFLNK  0120000
#define S_IFREG  0100000
#define S_IFDIR  0040000
#define S_IFCHR  0020000
#define S_IFIFO  0010000
#endif

#define NAME_LEN_MAX  255
#define PATH_LEN_MAX  4096 /* with its NUL */
#define LINKS_MAX     40   /* symbolic links in one walk, as in Linux */
#define FILE_SIZE_MAX (1ull << 40)

/* st_dev of each file system. */
#define DEV_ROOT 1
#define DEV_PROC 2
#define DEV_PIPE 3 /* pipes, sockets and their kin */

struct dentry {
    struct dentry *hash_next;
    struct list sibling; /* in dir->d.children, by ascending cookie */
    struct inode *dir;   /* borrowed: the directory outlives its dentries */
    struct inode *inode; /* NULL: there is no such name (hides the image's) */
    uint64_t cookie;     /* place in a listing; 0 for names of the image */
    uint32_t hash;
    uint16_t len;
    bool image; /* the image lists this name */
    char name[];
};

/* What a directory made by code (/proc/self/fd) has. */
struct dir_ops {
    struct inode *(*lookup)(struct inode *dir, const char *name, size_t len); /* referenced */
    /* The name at `place` (0, 1, ...) or behind; false at the end. */
    bool (*list)(struct inode *dir, uint64_t *place, char *name, size_t size, uint32_t *ret_type);
};

struct inode {
    uint32_t refs, links;
    uint32_t mode, uid, gid;
    uint32_t image; /* inode number of the image + 1, 0: none */
    uint64_t ino, dev, rdev, size;
    int64_t atime_ns, mtime_ns, ctime_ns;
    struct list linked; /* of the image with several names: rootfs.c */
    struct file_lock *locks;
    union {
        struct {
            struct dentry *self; /* its name; NULL: the root, or removed */
            struct list children;
            uint64_t next_cookie;
            uint64_t live; /* names in it */
            const struct dir_ops *ops;
        } d;
        struct {
            uint64_t base;       /* physical address of the image's bytes */
            uint64_t base_pages; /* pages which are valid there */
            uint64_t **chunks;   /* own pages: frames of 512 physical addresses; reg.c */
            uint64_t chunk_count;
            uint64_t own_pages;
            uint64_t beyond; /* of which behind the image's */
        } r;
        struct {
            char *text; /* size bytes */
            bool owned;
            /* A link that is not text: gives the inode (referenced) or the open file. */
            int (*follow)(struct inode *link, struct inode **ret_inode, struct file **ret_file);
            int (*describe)(struct inode *link, char *to, size_t size); /* its length */
            uint64_t arg;
        } l;
        struct {
            /* Devices, generated files, fifos: a file with one reference. */
            int (*open)(struct inode *inode, uint32_t flags, struct file **ret);
            void *arg;
        } n;
    };
};

/* inode.c */
struct inode *inode_new(uint32_t mode, uint64_t dev); /* one reference, no name; NULL: no memory */
struct inode *inode_ref(struct inode *i);
void inode_unref(struct inode *i); /* NULL allowed */
void inode_touch(struct inode *i); /* mtime and ctime */
void inode_stat(const struct inode *i, struct stat *ret);
static inline bool inode_is(const struct inode *i, uint32_t type)
{
    return (i->mode & S_IFMT) == type;
}

/* dentry.c. Directories only; names without slash. */
struct inode *dir_root(void);
void dir_set_root(struct inode *root);
/* Borrowed, NULL: not there; for directories with dir_ops, *ret_temporary has a reference to it. */
struct inode *dir_lookup(struct inode *dir, const char *name, size_t len,
                         struct inode **ret_temporary);
/* Gives `inode` a name, in place of another when there is one. Takes a reference of its own. */
int dir_link(struct inode *dir, const char *name, size_t len, struct inode *inode);
void dir_unlink(struct inode *dir, const char *name, size_t len);
struct inode *dir_parent(struct inode *dir); /* borrowed; NULL: removed */
/* Absolute path of a directory, or of `name` in it, into `to`: its length, -ENOENT, -ERANGE. */
int dir_path(struct inode *dir, const char *name, size_t len, char *to, size_t size);
/* The next name at or behind *place; false at the end. Without "." and "..". */
struct dir_item {
    const char *name; /* borrowed until the next call */
    size_t len;
    uint64_t ino;
    uint32_t type;  /* DT_* */
    uint64_t after; /* place of what follows */
    char buffer[32];
};
bool dir_next(struct inode *dir, uint64_t place, struct dir_item *ret);
void dir_forget(struct inode *dir); /* its hiding dentries, when it goes */

int dir_may_change(const struct inode *dir); /* 0; /proc: -EPERM; a removed directory: -ENOENT */

/* absent.c: a name that was looked up in vain; checked with user_strlen. */
void absent_note(const char *path);

/* rootfs.c */
int rootfs_mount(uint64_t phys, uint64_t size); /* makes it the root; -EINVAL: not such an image */
int rootfs_mount_again(
    void); /* a root as the image has it, for the one that was changed; -ENOMEM */
struct inode *rootfs_lookup(struct inode *dir, const char *name, size_t len); /* referenced */
bool rootfs_has(const struct inode *dir, const char *name, size_t len);
uint32_t rootfs_dir_count(const struct inode *dir);
/* Entry `index` of the directory: its name and kind. */
const char *rootfs_dir_entry(const struct inode *dir, uint32_t index, size_t *ret_len,
                             uint32_t *ret_type, uint64_t *ret_ino);
void rootfs_forget(struct inode *inode);
bool rootfs_stubs(const struct inode *inode, struct file_stubs *ret);
const char *rootfs_program(void); /* "" when there is no image */

/* reg.c: regular files. */
extern const struct file_ops regular_ops;
int64_t reg_read(struct inode *i, void *to, size_t len, uint64_t offset);
int64_t reg_write(struct inode *i, const void *from, size_t len, uint64_t offset);
int reg_truncate(struct inode *i, uint64_t size);
int reg_allocate(struct inode *i, uint64_t offset, uint64_t len, bool keep_size);
int reg_punch(struct inode *i, uint64_t offset, uint64_t len);
void reg_release(struct inode *i);
uint64_t reg_pages(const struct inode *i); /* that are not holes */
bool reg_has_page(const struct inode *i, uint64_t index);
uint64_t reg_frame(const struct inode *i, uint64_t index);
uint64_t reg_frame_writable(struct inode *i, uint64_t index);

/* Bytes at `offset` that lie in one piece, at most `len`; NULL: zeros (a hole) or the end (0). */
const void *reg_span(const struct inode *i, uint64_t offset, uint64_t len, uint64_t *ret_span);

/* path.c */
#define WALK_NOFOLLOW 1 /* the last name, when it is a symbolic link */
#define WALK_EMPTY    2 /* AT_EMPTY_PATH: an empty path is `dirfd` itself */
#define WALK_NAME     4 /* the last name itself is meant, to make or remove: never followed */
#define WALK_CREATE   8 /* O_CREAT: -EISDIR when a slash follows the last name */
enum last { LAST_NAME, LAST_ROOT, LAST_DOT, LAST_DOTDOT };
struct walk {
    struct inode *dir;   /* referenced: where `name` is; NULL: the path ends in ., .. or / */
    struct inode *inode; /* referenced: NULL when there is no such name */
    struct file *file;   /* referenced: what a link of /proc/self/fd stands for; then no inode */
    const char *name;    /* last component, borrowed from the path or a link's text */
    size_t len;
    bool slash; /* a slash follows it */
    enum last last;
    unsigned flags;
    int links;
};
/* Follows the program's `path`. 0: the path's directory exists, the name itself perhaps (w->inode).
 * Else a negative errno and nothing to free. */
int walk(struct walk *w, int dirfd, const char *path, unsigned flags);
int walk_kernel(struct walk *w, const char *path, unsigned flags); /* a string of the kernel's */
int walk_existing(struct walk *w, int dirfd, const char *path, unsigned flags); /* -ENOENT too */
void walk_done(struct walk *w);
struct inode *cwd_get(void); /* borrowed */
void cwd_set(struct inode *dir);
extern uint32_t process_umask;

/* stat.c */
int file_stat(struct file *f, struct stat *ret);

/* open.c */
int file_open_inode(struct inode *i, uint32_t flags, struct file **ret);
extern const struct file_ops path_ops; /* O_PATH */
extern const struct file_ops dir_file_ops;

/* fdtable.c */
int fd_get_for_read(int fd, struct file **ret); /* referenced; -EBADF */
int fd_get_for_write(int fd, struct file **ret);
struct file *fd_get_ref(int fd); /* NULL: -EBADF */
bool fd_cloexec(int fd);
void fd_set_cloexec(int fd, bool on);
int fd_install_at(struct file *f, int fd, bool cloexec); /* closes what was there; takes it */
int fd_count(void);                                      /* size of the table */
int fd_install_flags(struct file *f, uint32_t flags);    /* by O_CLOEXEC; frees the file if full */
/* A descriptor of a new file that has no name, by O_CLOEXEC and O_NONBLOCK. `priv` is kalloc'ed and taken: it is freed when
 * there is no memory for the file, and by the file's release. */
int fd_install_anonymous(const struct file_ops *ops, void *priv, uint32_t flags);
void file_free_priv(struct file *f); /* a release of files that have nothing else */

/* lock.c: struct flock is the program's. -EAGAIN, -EBADF, -EINTR, -EINVAL, -EOVERFLOW, -ENOLCK. */
void locks_init(void); /* nobody waits */
int64_t file_lock_record(struct file *f, int command, struct flock *l);
void locks_release(const struct file *f); /* those of the open file description, which goes */
void locks_release_process(const struct file *f); /* those of the process: it closed a descriptor */

/* Files of the kernel's making. */
struct inode *dir_make(struct inode *dir, const char *name, uint32_t mode,
                       uint64_t dev); /* borrowed */
struct inode *link_make(struct inode *dir, const char *name, const char *text);
void dev_mount(void);  /* dev.c */
void proc_mount(void); /* proc.c */
void stdio_open(void); /* stdio.c */
struct inode *dev_make(struct inode *dir, const char *name, uint32_t number,
                       int (*open)(struct inode *inode, uint32_t flags, struct file **ret));
struct file *dev_null_open(uint32_t flags);
void synthesize_etc(void); /* net/dns.c: names' resolution, where the image has none */
int fifo_open(struct inode *i, uint32_t flags, struct file **ret); /* pipe.c */
void fifo_forget(struct inode *i);
bool file_is_epoll(const struct file *f); /* epoll.c */
void epoll_forget(struct file *f);        /* the file goes: it leaves all sets */

#endif
