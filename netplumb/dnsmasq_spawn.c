/* dnsmasq_spawn.c - a process with few rights: the child's side is between vfork(2) and execve(2) and
 * makes system calls only, for it runs on its parent's memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pwd.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "netplumb/dnsmasq_impl.h"
#include "netplumb/namespace.h"

enum { CAPS = 1 << CAP_NET_BIND_SERVICE | 1 << CAP_NET_ADMIN };

const struct dnsmasq_who *dnsmasq_who(void)
{
    static struct dnsmasq_who who;
    static bool known;
    if (!known) {
        const struct passwd *p = getpwnam("dnsmasq");
        p = p ? p : getpwnam("nobody");
        who.uid = p ? p->pw_uid : 65534;
        who.gid = p ? p->pw_gid : 65534;
        who.change = geteuid() == 0;
        known = true;
    }
    return &who;
}

/* SIOCSARP is answered with 0 and not made: the neighbour entries of guests are netplumb's, for good. */
static struct sock_filter filter[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SIOCSARP, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};
static const struct sock_fprog program = {UN_ARRAY_SIZE(filter), filter};

struct child {
    const char *path;
    char *const *argv;
    int null_fd, log_fd;
    const struct net_namespace *ns;
    pid_t parent;
    struct dnsmasq_who who;
    int error; /* written by the child */
};

static bool change_user(const struct child *c)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {.effective = CAPS, .permitted = CAPS, .inheritable = CAPS}};
    if (c->who.change) {
        for (int cap = 0; cap <= CAP_LAST_CAP; cap++) {
            if (cap != CAP_NET_BIND_SERVICE && cap != CAP_NET_ADMIN) {
                prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
            }
        }
        if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || syscall(SYS_setgroups, 0, NULL) < 0 ||
            syscall(SYS_setresgid, c->who.gid, c->who.gid, c->who.gid) < 0 ||
            syscall(SYS_setresuid, c->who.uid, c->who.uid, c->who.uid) < 0) {
            return false;
        }
    }
    return syscall(SYS_capset, &head, data) == 0 &&
           prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0) == 0 &&
           prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0) == 0;
}

/* The kernel forgets the death signal when the user changes (prctl(2)), so it is set last. */
_Noreturn static void run_child(struct child *c)
{
    static char *const no_environment[] = {NULL};
    uint64_t none = 0;
    /* Until it has a handler; it reads its files after that in any case. */
    signal(SIGHUP, SIG_IGN);
    if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none)) == 0 &&
        dup2(c->null_fd, 0) == 0 && dup2(c->null_fd, 1) == 1 && dup2(c->log_fd, 2) == 2 &&
        setpgid(0, 0) == 0 && net_namespace_join(c->ns) == 0 && change_user(c) &&
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 &&
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && getppid() == c->parent) {
        execve(c->path, c->argv, no_environment);
    }
    c->error = errno ? errno : ECHILD;
    _exit(127);
}

int dnsmasq_spawn(const struct dnsmasq_spec *spec, pid_t *ret_pid, int *ret_pidfd,
                  struct un_error *err)
{
    un_autofree char *conf = NULL;
    if (asprintf(&conf, "--conf-file=%s", spec->config) < 0) {
        conf = NULL;
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    un_autoclose int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    const char *const argv[] = {"dnsmasq", "--keep-in-foreground", "--log-facility=-", conf, NULL};
    struct child c = {.path = spec->program,
                      .argv = (char *const *)argv,
                      .null_fd = null_fd,
                      .log_fd = spec->log_fd,
                      .ns = spec->ns,
                      .parent = getpid(),
                      .who = *dnsmasq_who()};
    pid_t pid = null_fd < 0 ? -1 : vfork();
    if (pid == 0) {
        run_child(&c);
    }
    if (pid < 0) {
        return un_error_errno(err, -errno, "start %s", spec->program);
    }
    int pidfd = c.error ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        int rc = c.error ? -c.error : -errno;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return un_error_errno(err, rc, "start %s", spec->program);
    }
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return 0;
}

/* --- of an earlier unid ------------------------------------------------------------------------- */

static ssize_t read_proc(pid_t pid, const char *what, char *text, size_t size)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);
    if (n >= 0) {
        text[n] = '\0';
    }
    return n;
}

uint64_t dnsmasq_began(pid_t pid)
{
    char text[1024];
    if (read_proc(pid, "stat", text, sizeof(text)) <= 0) {
        return 0;
    }
    char *at = strrchr(text, ')'); /* the name may have any bytes */
    for (int field = 2; at && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return at ? strtoull(at, NULL, 10) : 0;
}

bool dnsmasq_kill_known(pid_t pid, uint64_t began, const char *word)
{
    char text[2048];
    un_autoclose int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    ssize_t n = pidfd < 0 ? -1 : read_proc(pid, "cmdline", text, sizeof(text));
    if (n <= 0 || began == 0 || dnsmasq_began(pid) != began) {
        return false;
    }
    for (ssize_t i = 0; i < n; i++) {
        text[i] = text[i] ? text[i] : ' ';
    }
    return strstr(text, word) && syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) == 0;
}
