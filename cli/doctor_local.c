/* doctor_local.c - see doctor_local.h. */
#include "cli/doctor_local.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cli/table.h"
#include "common/cleanup.h"

enum { TMPFS_ENOUGH = 256 * 1024 * 1024 /* a pool of shells and some running VMs */ };

struct finding {
    const char *check, *status;
    char detail[PATH_MAX + 128], fix[PATH_MAX + 128];
};

static void __attribute__((format(printf, 3, 4)))
found(struct finding *f, const char *status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    f->status = status;
    vsnprintf(f->detail, sizeof(f->detail), fmt, ap);
    va_end(ap);
}

static void __attribute__((format(printf, 2, 3))) mend(struct finding *f, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->fix, sizeof(f->fix), fmt, ap);
    va_end(ap);
}

void doctor_kvm_fix(const struct stat *st, char *buf, size_t size)
{
    const struct group *group = st->st_gid != 0 ? getgrgid(st->st_gid) : NULL;
    if (group && (st->st_mode & 0060) == 0060) {
        snprintf(buf, size, "sudo usermod -aG %s $USER, then log in again", group->gr_name);
    } else {
        snprintf(buf, size,
                 "sudo chmod 0666 /dev/kvm: no group but root's may use it; udev, where it runs, "
                 "has it in the group kvm");
    }
}

static void check_kvm(struct finding *f)
{
    f->check = "kvm";
    un_autoclose int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        found(f, "ok", "/dev/kvm can be opened");
    } else if (errno == EACCES || errno == EPERM) {
        found(f, "warn", "/dev/kvm is there, but not for this user");
        struct stat st = {.st_mode = 0};
        (void)stat("/dev/kvm", &st);
        doctor_kvm_fix(&st, f->fix, sizeof(f->fix));
    } else if (errno == ENOENT || errno == ENXIO || errno == ENODEV) {
        found(f, "warn", "there is no /dev/kvm: VMs run under emulation, which is slower");
        mend(f, "switch virtualisation on in the firmware (in a VM: nested virtualisation on its "
                "host), then sudo modprobe kvm_intel or kvm_amd");
    } else {
        found(f, "warn", "/dev/kvm cannot be opened: %s", strerror(errno));
        mend(f, "see the kernel's log: sudo dmesg | grep -i kvm");
    }
}

/* Finds a program in PATH; `ret` has PATH_MAX bytes. */
static bool find_program(const char *name, char *ret)
{
    const char *path = getenv("PATH");
    un_autofree char *copy = strdup(path && *path ? path : "/usr/local/bin:/usr/bin:/bin");
    char *at = NULL;
    for (char *dir = copy ? strtok_r(copy, ":", &at) : NULL; dir; dir = strtok_r(NULL, ":", &at)) {
        int n = snprintf(ret, PATH_MAX, "%s/%s", dir, name);
        if (n > 0 && n < PATH_MAX && access(ret, X_OK) == 0) {
            return true;
        }
    }
    return false;
}

static void check_qemu(struct finding *f)
{
    char path[PATH_MAX];
    f->check = "qemu";
    if (find_program("qemu-system-x86_64", path)) {
        found(f, "ok", "%s", path);
    } else {
        found(f, "fail", "there is no qemu-system-x86_64 in PATH: the libvirt driver needs it");
        mend(f, "sudo apt-get install qemu-system-x86");
    }
}

/* The driver that libvirt loads for qemu: URIs, where distributions put it. */
static void check_libvirt(struct finding *f)
{
    static const char *const dirs[] = {"/usr/lib/x86_64-linux-gnu/libvirt/connection-driver",
                                       "/usr/lib64/libvirt/connection-driver",
                                       "/usr/lib/libvirt/connection-driver"};
    f->check = "libvirt";
    for (size_t i = 0; i < UN_ARRAY_SIZE(dirs); i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s/libvirt_driver_qemu.so", dirs[i]);
        if (access(path, R_OK) == 0) {
            found(f, "ok", "%s", path);
            return;
        }
    }
    found(f, "fail", "libvirt's QEMU driver module is not installed");
    mend(f, "sudo apt-get install libvirt-daemon libvirt-daemon-driver-qemu");
}

static void check_tmpfs(struct finding *f)
{
    struct statfs fs;
    char room[TABLE_CELL_SIZE];
    f->check = "tmpfs";
    if (statfs("/dev/shm", &fs) < 0 || fs.f_type != TMPFS_MAGIC) {
        found(f, "fail", "/dev/shm is no tmpfs: the memory of VMs lives there");
        mend(f, "sudo mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm");
        return;
    }
    uint64_t avail = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
    if (access("/dev/shm", W_OK) < 0) {
        found(f, "fail", "/dev/shm cannot be written");
        mend(f, "sudo chmod 1777 /dev/shm");
    } else if (avail < TMPFS_ENOUGH) {
        found(f, "warn", "/dev/shm has %s free: enough for few VMs", table_size(avail, room));
        mend(f, "remove what fills /dev/shm, or: sudo mount -o remount,size=50%% /dev/shm");
    } else {
        found(f, "ok", "/dev/shm has %s free", table_size(avail, room));
    }
}

/* Whether unid, run by this user, could use `dir`, or make it in the nearest parent there is. */
static void check_dir(struct finding *f, const char *what, const char *dir)
{
    char parent[PATH_MAX];
    f->check = what;
    snprintf(parent, sizeof(parent), "%s", dir);
    struct stat st;
    while (stat(parent, &st) < 0 && errno == ENOENT && strrchr(parent, '/') > parent) {
        *strrchr(parent, '/') = '\0';
    }
    bool there = strcmp(parent, dir) == 0;
    if (stat(parent, &st) < 0) {
        found(f, "fail", "%s cannot be looked at: %s", parent, strerror(errno));
        mend(f, "sudo chmod a+x the directories above %s", dir);
    } else if (!S_ISDIR(st.st_mode)) {
        found(f, "fail", "%s is no directory", parent);
        mend(f, "move it out of the way");
    } else if (access(parent, W_OK | X_OK) < 0) {
        found(f, "fail", "%s is not writable for this user", parent);
        mend(f, "sudo install -d -o $USER %s", dir);
    } else {
        found(f, "ok", "%s %s", dir, there ? "is writable" : "can be made");
    }
}

static void check_state_dir(struct finding *f)
{
    char dir[PATH_MAX] = "/var/lib/unid";
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (geteuid() != 0) {
        if (state && *state == '/') {
            snprintf(dir, sizeof(dir), "%s/unid", state);
        } else {
            snprintf(dir, sizeof(dir), "%s/.local/state/unid", home && *home == '/' ? home : "");
        }
    }
    check_dir(f, "state-dir", dir);
}

static void check_runtime_dir(struct finding *f)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (geteuid() == 0) {
        check_dir(f, "runtime-dir", "/run/unid");
    } else if (runtime && *runtime == '/') {
        check_dir(f, "runtime-dir", runtime);
    } else {
        f->check = "runtime-dir";
        found(f, "warn", "XDG_RUNTIME_DIR is not set: there is no place for the Unix socket");
        mend(f, "log in by a session manager, or start unid with --socket PATH");
    }
}

json_t *doctor_local_findings(void)
{
    void (*const checks[])(struct finding *) = {check_kvm,   check_qemu,      check_libvirt,
                                                check_tmpfs, check_state_dir, check_runtime_dir};
    json_t *list = json_array();
    un_autofree struct finding *f = malloc(sizeof(*f));
    bool ok = list && f;
    for (size_t i = 0; ok && i < UN_ARRAY_SIZE(checks); i++) {
        *f = (struct finding){.status = "fail"};
        checks[i](f);
        json_t *item = json_pack("{s:s,s:s,s:s,s:s}", "check", f->check, "status", f->status,
                                 "detail", f->detail, "fix", f->fix);
        ok = item && json_array_append_new(list, item) == 0;
    }
    if (!ok) {
        json_decref(list);
        return NULL;
    }
    return list;
}
