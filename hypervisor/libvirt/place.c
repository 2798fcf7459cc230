/* place.c - see place.h. */
#include "hypervisor/libvirt/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/id.h"
#include "hypervisor/libvirt/loader/loader.h"
#include "hypervisor/libvirt/proc.h"
#include "hypervisor/libvirt/rom.h"
#include "hypervisor/libvirt/waiter.h"

/* A monitor socket is <work>/root/lib/qemu/domain-<number>-<20 characters>/monitor.sock. */
enum { TAG_BYTES = 5, BASE_MAX = 32, GROUPS_MAX = 64, END_TIMEOUT_MS = 10000, CAP_PTRACE = 19 };

#define QEMU_USER "libvirt-qemu"

static int make_dir(const char *path, mode_t mode, struct un_error *err)
{
    if (mkdir(path, mode) < 0 && errno != EEXIST) {
        return un_error_errno(err, -errno, "make directory %s", path);
    }
    return 0;
}

static int path_make(char *out, const char *dir, const char *name, struct un_error *err)
{
    if ((size_t)snprintf(out, LV_PATH_SIZE, "%s/%s", dir, name) >= LV_PATH_SIZE) {
        return un_error_set(err, -ENAMETOOLONG, "%s/%s: path too long", dir, name);
    }
    return 0;
}

static int write_file(const char *path, const void *data, size_t len, struct un_error *err)
{
    un_autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return un_error_errno(err, -errno, "create %s", path);
    }
    ssize_t n = write(fd, data, len);
    if (n != (ssize_t)len) {
        return un_error_errno(err, n < 0 ? -errno : -ENOSPC, "write %s", path);
    }
    fchmod(fd, 0644); /* whatever the umask: QEMU may run as another user */
    return 0;
}

/* Reads the tag, or makes one. */
static int load_tag(struct lv_place *p, struct un_error *err)
{
    char path[LV_PATH_SIZE], tag[2 * TAG_BYTES + 1] = "";
    uint8_t raw[TAG_BYTES];
    int rc = path_make(path, p->state, "tag", err);
    if (rc < 0) {
        return rc;
    }
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, tag, sizeof(tag) - 1);
    if (n != 2 * TAG_BYTES || !un_hex_decode(tag, 2 * TAG_BYTES, raw, TAG_BYTES)) {
        un_random(raw, sizeof(raw));
        un_hex_encode(raw, sizeof(raw), tag);
        rc = write_file(path, tag, 2 * TAG_BYTES, err);
    }
    snprintf(p->prefix, sizeof(p->prefix), "unid-%s-", tag);
    return rc;
}

static int take_lock(struct lv_place *p, struct un_error *err)
{
    char path[LV_PATH_SIZE];
    int rc = path_make(path, p->state, "lock", err);
    if (rc < 0) {
        return rc;
    }
    p->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (p->lock < 0) {
        return un_error_errno(err, -errno, "open %s", path);
    }
    if (flock(p->lock, LOCK_EX | LOCK_NB) < 0) {
        return errno == EWOULDBLOCK
                   ? un_error_set(err, -EBUSY, "%s is in use by another unid", p->state)
                   : un_error_errno(err, -errno, "lock %s", path);
    }
    return 0;
}

/* Whether anybody may walk through the directory and we may write to it. */
static bool base_usable(const char *base)
{
    char path[LV_PATH_SIZE];
    snprintf(path, sizeof(path), "%s", base);
    if (path[0] != '/' || strlen(path) > BASE_MAX || access(path, W_OK | X_OK) < 0) {
        return false;
    }
    for (char *slash = path + strlen(path); lv_qemu_user() && slash > path;) {
        struct stat st;
        if (stat(path, &st) < 0 || !(st.st_mode & S_IXOTH)) {
            return false;
        }
        slash = strrchr(path, '/');
        *slash = '\0';
    }
    return true;
}

static int choose_work(struct lv_place *p, struct un_error *err)
{
    for (int i = 0; i < LV_BASES; i++) {
        if (base_usable(p->bases[i])) {
            snprintf(p->work, sizeof(p->work), "%.200s/%.*s", p->bases[i],
                     (int)strlen(p->prefix) - 1, p->prefix);
            return 0;
        }
    }
    return un_error_set(err, -EACCES,
                        "no directory for libvirt's sockets: neither %s nor %s nor %s "
                        "is writable and has a path of at most %d bytes",
                        p->bases[0], p->bases[1], p->bases[2], BASE_MAX);
}

/* Keeps, beside the sockets, the way back to the state directory, locked for this process's life: a
 * work directory whose state directory was deleted has nobody else who would know of it. */
static int take_ownership(struct lv_place *p, struct un_error *err)
{
    char path[LV_PATH_SIZE];
    int rc = path_make(path, p->work, "owner", err);
    if (rc < 0) {
        return rc;
    }
    if (p->owner >= 0) { /* of an attempt that failed */
        close(p->owner);
    }
    p->owner = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (p->owner < 0 || flock(p->owner, LOCK_EX | LOCK_NB) < 0) {
        return un_error_errno(err, -errno, "create %s", path);
    }
    ssize_t n = write(p->owner, p->state, strlen(p->state));
    return n == (ssize_t)strlen(p->state)
               ? 0
               : un_error_errno(err, n < 0 ? -errno : -ENOSPC, "write %s", path);
}

int lv_place_init(struct lv_place *p, const char *state_dir, const char *runtime_dir,
                  struct un_error *err)
{
    *p = (struct lv_place){.lock = -1, .owner = -1};
    snprintf(p->bases[0], LV_PATH_SIZE, "/dev/shm");
    snprintf(p->bases[1], LV_PATH_SIZE, "%s", runtime_dir ? runtime_dir : "/run");
    snprintf(p->bases[2], LV_PATH_SIZE, "/tmp");
    int rc = path_make(p->state, state_dir, "libvirt", err);
    rc = rc < 0 ? rc : make_dir(state_dir, 0700, err);
    rc = rc < 0 ? rc : make_dir(p->state, 0700, err);
    rc = rc < 0 ? rc : take_lock(p, err);
    rc = rc < 0 ? rc : load_tag(p, err);
    rc = rc < 0 ? rc : choose_work(p, err);
    if (rc < 0) {
        lv_place_done(p);
    }
    return rc;
}

void lv_place_done(struct lv_place *p)
{
    if (p->lock >= 0) {
        close(p->lock);
        p->lock = -1;
    }
    if (p->owner >= 0) {
        close(p->owner);
        p->owner = -1;
    }
}

/* Removes what is in the directory `fd` (taken). By descriptors, so that a QEMU user who swaps a
 * directory for a symbolic link gains nothing. */
static void remove_entries(int fd)
{
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return;
    }
    struct dirent *e;
    while ((e = readdir(dir))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        int sub = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub >= 0) {
            remove_entries(sub);
        }
        unlinkat(dirfd(dir), e->d_name, sub >= 0 ? AT_REMOVEDIR : 0);
    }
    closedir(dir);
}

void lv_tree_remove(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid()) {
        remove_entries(fd);
        rmdir(path);
    } else if (fd >= 0) {
        close(fd);
    }
}

struct ending {
    const char *prefix;
    int rc;
};

static bool end_one(void *arg, pid_t pid)
{
    struct ending *e = arg;
    un_autoclose int fd = lv_proc_open(pid);
    if (fd < 0 || !lv_proc_matches(pid, e->prefix)) {
        return true; /* gone meanwhile */
    }
    lv_proc_signal(fd, SIGKILL);
    if (lv_proc_wait(pid, fd, END_TIMEOUT_MS) < 0) {
        e->rc = -EIO;
    }
    return true;
}

int lv_place_clean(struct lv_place *p, struct un_error *err)
{
    struct ending e = {.prefix = p->prefix};
    lv_proc_each(p->prefix, end_one, &e);
    for (int i = 0; i < LV_BASES; i++) {
        char path[LV_PATH_SIZE + LV_PREFIX_SIZE];
        snprintf(path, sizeof(path), "%s/%.*s", p->bases[i], (int)strlen(p->prefix) - 1, p->prefix);
        lv_tree_remove(path);
    }
    char scratch[LV_PATH_SIZE];
    if (path_make(scratch, p->state, "scratch", NULL) == 0) {
        lv_tree_remove(scratch);
    }
    return e.rc < 0 ? un_error_set(err, e.rc,
                                   "a QEMU process that an earlier unid left behind does "
                                   "not end")
                    : 0;
}

/* Whether a directory in `base` is an earlier unid's work directory, made by this user, whose state
 * directory is gone, and that unid too: it would hold the lock. What cannot be read is left alone. */
static bool is_abandoned(int base, const char *name)
{
    static const char digits[] = "0123456789abcdef";
    char state[LV_PATH_SIZE] = "";
    struct stat st;
    if (strncmp(name, "unid-", 5) != 0 || strlen(name) != 5 + 2 * TAG_BYTES ||
        strspn(name + 5, digits) != 2 * TAG_BYTES) {
        return false;
    }
    un_autoclose int dir = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0 || fstat(dir, &st) < 0 || st.st_uid != geteuid()) {
        return false;
    }
    un_autoclose int fd = openat(dir, "owner", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, state, sizeof(state) - 1);
    return n > 0 && state[0] == '/' && access(state, F_OK) < 0 && errno == ENOENT &&
           flock(fd, LOCK_EX | LOCK_NB) == 0;
}

void lv_place_clean_abandoned(const struct lv_place *p)
{
    for (int i = 0; i < LV_BASES; i++) {
        DIR *dir = opendir(p->bases[i]);
        struct dirent *e;
        while (dir && (e = readdir(dir))) {
            if (is_abandoned(dirfd(dir), e->d_name)) {
                struct lv_place other = *p;
                snprintf(other.prefix, sizeof(other.prefix), "%.*s-", 5 + 2 * TAG_BYTES, e->d_name);
                lv_place_clean(&other, NULL);
            }
        }
        if (dir) {
            closedir(dir);
        }
    }
}

/* Whether `user` may open /dev/kvm, by its permission bits. */
static bool kvm_open_to(const struct passwd *user)
{
    struct stat st;
    gid_t groups[GROUPS_MAX];
    int count = GROUPS_MAX;
    if (stat("/dev/kvm", &st) < 0 || (st.st_mode & 06) == 06) {
        return true; /* without a device there is nothing to disagree about */
    }
    if (getgrouplist(user->pw_name, user->pw_gid, groups, &count) < 0) {
        return false;
    }
    for (int i = 0; i < count; i++) {
        if (groups[i] == st.st_gid && (st.st_mode & 060) == 060) {
            return true;
        }
    }
    return false;
}

static bool have_capability(int number)
{
    char line[256];
    unsigned long long set = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (strncmp(line, "CapEff:", 7) == 0) {
            set = strtoull(line + 7, NULL, 16);
        }
    }
    if (f) {
        fclose(f);
    }
    return set >> number & 1;
}

/* QEMU is better run as a user of its own. Not when libvirt and QEMU would then disagree about KVM:
 * libvirt asks as that user, but probes QEMU as root, and asks again for every domain, for seconds.
 * Not when we could not open that user's guest memory. Then it is root without any capability and
 * in QEMU's own seccomp sandbox, both of which libvirt sees to. */
const char *lv_qemu_user(void)
{
    if (geteuid() != 0) {
        return NULL;
    }
    struct passwd *user = getpwnam(QEMU_USER);
    return user && kvm_open_to(user) && have_capability(CAP_PTRACE) ? QEMU_USER : NULL;
}

static int write_config(const char *etc, struct un_error *err)
{
    char path[LV_PATH_SIZE];
    const char *user = lv_qemu_user();
    un_autobuf struct un_buf text = {0};
    int rc = path_make(path, etc, "qemu.conf", err);
    if (rc < 0) {
        return rc;
    }
    if (user) {
        rc = un_buf_printf(&text, "user = \"%s\"\ngroup = \"%s\"\n", user, user);
    } else { /* by number: whoever we are, with or without a name */
        rc = un_buf_printf(&text, "user = \"+%u\"\ngroup = \"+%u\"\n", (unsigned)geteuid(),
                           (unsigned)getegid());
    }
    if (rc == 0) {
        rc = un_buf_append_str(&text, "dynamic_ownership = 0\nremember_owner = 0\nnamespaces = []\n"
                                      "security_driver = \"none\"\ncgroup_controllers = []\n"
                                      "stdio_handler = \"file\"\nmax_core = 0\n");
    }
    return rc < 0 ? un_error_set(err, rc, "out of memory")
                  : write_file(path, text.data, text.len, err);
}

/* A directory in the work directory that QEMU's user may walk through, whatever the umask; libvirt
 * makes the ones below with owners of its own. */
static int make_open_dir(const char *dir, const char *name, struct un_error *err)
{
    char path[LV_PATH_SIZE];
    int rc = path_make(path, dir, name, err);
    rc = rc < 0 ? rc : make_dir(path, 0711, err);
    if (rc == 0 && chmod(path, 0711) < 0) {
        return un_error_errno(err, -errno, "chmod %s", path);
    }
    return rc;
}

/* Where machines write what is lost with them: on the state directory's disk, where QEMU's user gets
 * there, else with the rest. */
static int make_scratch(struct lv_place *p, struct un_error *err)
{
    char scratch[LV_PATH_SIZE], path[LV_PATH_SIZE];
    if (lv_qemu_user()) {
        return make_open_dir(p->work, "d", err);
    }
    int rc = path_make(scratch, p->state, "scratch", err);
    rc = rc < 0 ? rc : make_dir(scratch, 0700, err);
    rc = rc < 0 ? rc : path_make(path, p->work, "d", err);
    if (rc == 0 && symlink(scratch, path) < 0) {
        return un_error_errno(err, -errno, "link %s", path);
    }
    return rc;
}

static int link_cache(struct lv_place *p, const char *root, struct un_error *err)
{
    char cache[LV_PATH_SIZE], path[LV_PATH_SIZE];
    int rc = path_make(cache, p->state, "cache", err);
    rc = rc < 0 ? rc : make_dir(cache, 0700, err);
    rc = rc < 0 ? rc : path_make(path, root, "cache", err);
    if (rc == 0 && symlink(cache, path) < 0) {
        return un_error_errno(err, -errno, "link %s", path);
    }
    return rc;
}

int lv_place_prepare(struct lv_place *p, struct un_error *err)
{
    static const char *const dirs[] = {"root",         "s",        "root/etc",      "root/lib",
                                       "root/log",     "root/run", "root/run/qemu", "root/log/qemu",
                                       "root/lib/qemu"};
    char path[LV_PATH_SIZE], root[LV_PATH_SIZE];
    if (mkdir(p->work, 0711) < 0) { /* it must not exist: nobody else's directory is taken over */
        return un_error_errno(err, -errno, "make directory %s", p->work);
    }
    chmod(p->work, 0711);
    int rc = take_ownership(p, err);
    for (size_t i = 0; i < UN_ARRAY_SIZE(dirs) && rc == 0; i++) {
        rc = make_open_dir(p->work, dirs[i], err);
    }
    rc = rc < 0 ? rc : path_make(root, p->work, "root", err);
    rc = rc < 0 ? rc : link_cache(p, root, err);
    rc = rc < 0 ? rc : make_scratch(p, err);
    rc = rc < 0 ? rc : path_make(path, p->work, "rom.bin", err);
    rc = rc < 0 ? rc : write_file(path, lv_rom, LV_ROM_SIZE, err);
    rc = rc < 0 ? rc : path_make(path, p->work, LV_WAITER_FILE, err);
    rc = rc < 0 ? rc : write_file(path, lv_waiter, lv_waiter_size, err);
    rc = rc < 0 ? rc : path_make(path, p->work, LV_LOADER_FILE, err);
    rc = rc < 0 ? rc : write_file(path, lv_loader, (size_t)(lv_loader_end - lv_loader), err);
    rc = rc < 0 ? rc : path_make(path, root, "etc", err);
    return rc < 0 ? rc : write_config(path, err);
}
