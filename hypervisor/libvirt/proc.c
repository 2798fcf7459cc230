/* proc.c - see proc.h. */
#include "hypervisor/libvirt/proc.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"

enum { PATH_SIZE = 64, CMDLINE_SIZE = 4096, STATUS_SIZE = 4096 };

int lv_proc_open(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : fd;
}

void lv_proc_signal(int pidfd, int signal)
{
    if (pidfd >= 0) {
        syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
    }
}

int lv_proc_wait(pid_t pid, int pidfd, int timeout_ms)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int rc;
    do {
        rc = poll(&p, 1, timeout_ms);
    } while (rc < 0 && errno == EINTR);
    if (rc == 0) {
        return -ETIMEDOUT;
    }
    waitpid(pid, NULL, WNOHANG); /* ECHILD when it is another's child: nothing to take */
    return 0;
}

/* Reads a small file of /proc/<pid>, NUL-terminated; gives its length, or -1. */
static ssize_t read_proc(pid_t pid, const char *name, char *buf, size_t size)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    while (fd >= 0 && len < size - 1) {
        ssize_t n = read(fd, buf + len, size - 1 - len);
        if (n <= 0) {
            break;
        }
        len += (size_t)n;
    }
    buf[len] = '\0';
    return fd < 0 ? -1 : (ssize_t)len;
}

/* A shell has "-name guest=<prefix>..."; a QEMU that libvirt asks for its capabilities has no name,
 * but a socket in the work directory, "/<prefix>" without the last character. */
bool lv_proc_matches(pid_t pid, const char *prefix)
{
    char buf[CMDLINE_SIZE], dir[PATH_SIZE];
    ssize_t len = read_proc(pid, "cmdline", buf, sizeof(buf));
    if (len <= 0 || !strstr(buf, "qemu")) {
        return false;
    }
    snprintf(dir, sizeof(dir), "/%.*s/root/", (int)strlen(prefix) - 1, prefix);
    const char *end = buf + len, *before = "";
    for (const char *arg = buf; arg < end; before = arg, arg += strlen(arg) + 1) {
        if (strcmp(before, "-name") == 0) {
            return strncmp(arg, "guest=", 6) == 0 && strncmp(arg + 6, prefix, strlen(prefix)) == 0;
        }
        if (strcmp(before, "-qmp") == 0 && strncmp(arg, "unix:/", 6) == 0 && strstr(arg, dir)) {
            return true;
        }
    }
    return false;
}

static void each_pid(bool (*fn)(void *arg, pid_t pid), void *arg)
{
    DIR *dir = opendir("/proc");
    struct dirent *e;
    while (dir && (e = readdir(dir))) {
        if (isdigit((unsigned char)e->d_name[0]) && !fn(arg, (pid_t)atoi(e->d_name))) {
            break;
        }
    }
    if (dir) {
        closedir(dir);
    }
}

struct match {
    const char *prefix;
    bool (*fn)(void *arg, pid_t pid);
    void *arg;
};

static bool match_one(void *arg, pid_t pid)
{
    const struct match *m = arg;
    return !lv_proc_matches(pid, m->prefix) || m->fn(m->arg, pid);
}

void lv_proc_each(const char *prefix, bool (*fn)(void *arg, pid_t pid), void *arg)
{
    struct match m = {.prefix = prefix, .fn = fn, .arg = arg};
    each_pid(match_one, &m);
}

static bool reap_one(void *arg, pid_t pid)
{
    char buf[512];
    if (read_proc(pid, "stat", buf, sizeof(buf)) <= 0 || !strstr(buf, "(qemu-")) {
        return true;
    }
    const char *tail = strrchr(buf, ')');
    char state;
    int parent, group, session;
    if (tail && sscanf(tail, ") %c %d %d %d", &state, &parent, &group, &session) == 4 &&
        state == 'Z' && parent == getpid() && session != getsid(0)) {
        waitpid(pid, NULL, WNOHANG);
    }
    return true;
}

void lv_proc_reap_qemu(void)
{
    siginfo_t info = {.si_pid = 0};
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
        each_pid(reap_one, NULL); /* someone has ended; whether it was a QEMU, /proc tells */
    }
}

uint64_t lv_proc_cpu_us(pid_t pid)
{
    clockid_t clock;
    struct timespec ts;
    if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &ts) < 0) {
        return 0;
    }
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

uint64_t lv_proc_peak_rss_kib(pid_t pid)
{
    char buf[STATUS_SIZE];
    if (pid <= 0 || read_proc(pid, "status", buf, sizeof(buf)) <= 0) {
        return 0;
    }
    const char *line = strstr(buf, "\nVmHWM:");
    return line ? strtoull(line + 7, NULL, 10) : 0;
}

/* Checks that the mapping cannot be cut short by a QEMU that has been taken over: a read behind the
 * end of a file kills the reader. */
static int check_memory(int fd, uint64_t bytes, struct un_error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return un_error_errno(err, -errno, "guest memory");
    }
    if ((uint64_t)st.st_size != bytes) {
        return un_error_set(err, -EINVAL, "guest memory has %lld bytes, not %llu",
                            (long long)st.st_size, (unsigned long long)bytes);
    }
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (!(seals & F_SEAL_SHRINK) && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)) {
        return un_error_set(err, -EINVAL, "guest memory cannot be sealed against shrinking");
    }
    return 0;
}

int lv_proc_open_memory(pid_t pid, uint64_t bytes, struct un_error *err)
{
    char path[PATH_SIZE + 256], target[128];
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    if (!dir) {
        return un_error_errno(err, -errno,
                              "the memory of QEMU process %d (it runs as another user, and unid "
                              "lacks CAP_SYS_PTRACE)",
                              (int)pid);
    }
    un_autoclose int fd = -1;
    int rc = -ENOENT;
    struct dirent *e;
    while (fd < 0 && (e = readdir(dir))) {
        ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);
        if (n > 0 && (target[n] = '\0', strncmp(target, "/memfd:memory-backend-memfd", 27) == 0)) {
            fd = openat(dirfd(dir), e->d_name, O_RDWR | O_CLOEXEC);
            rc = fd < 0 ? -errno : 0;
        }
    }
    closedir(dir);
    if (fd < 0) {
        return un_error_errno(err, rc, "the memory of QEMU process %d", (int)pid);
    }
    rc = check_memory(fd, bytes, err);
    return rc < 0 ? rc : un_steal_fd(&fd);
}
