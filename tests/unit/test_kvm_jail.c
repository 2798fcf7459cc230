/* test_kvm_jail.c - a monitor that misbehaves on purpose is stopped at each thing it tries. Links
 * the jail of unid-vmm; each try is a process that enters the jail and then does what it must
 * not. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hypervisor/kvm/jail.h"

/* What a monitor has: a socket, and here the victim's number. */
static int sock[2];
static pid_t victim;

static const struct jail_spec nobody = {.uid = 65534, .gid = 65534};

/* Exit statuses of a try. */
enum { ALLOWED = 0, REFUSED = 1, NO_JAIL = 99 };

/* Runs `attempt` with the strict filter in place; gives the wait status. */
static int sealed(int (*attempt)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        uint16_t layers[VMM_LAYERS] = {0};
        jail_drop(layers);
        if (jail_limit_memory(UINT64_C(1) << 30) < 0 || jail_seal() < 0) {
            syscall(SYS_exit_group, NO_JAIL);
        }
        syscall(SYS_exit_group, attempt() < 0 ? REFUSED : ALLOWED);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* System calls are made directly, so that it is the filter that is tested and not a library. */
static int try_open(void)
{
    return (int)syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}
static int try_old_open(void)
{
    return (int)syscall(SYS_open, "/etc/passwd", O_RDONLY);
}
static int try_socket(void)
{
    return (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
}
static int try_connect(void)
{
    return (int)syscall(SYS_connect, sock[0], "", 0);
}
static int try_fork(void)
{
    return (int)syscall(SYS_fork);
}
static int try_clone(void)
{
    return (int)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}
static int try_exec(void)
{
    char *none[] = {NULL};
    return (int)syscall(SYS_execve, "/bin/true", none, none);
}
static int try_ptrace(void)
{
    return (int)syscall(SYS_ptrace, PTRACE_ATTACH, victim, 0, 0);
}
static int try_read_memory(void)
{
    char byte;
    struct iovec io = {.iov_base = &byte, .iov_len = 1};
    return (int)syscall(SYS_process_vm_readv, victim, &io, 1, &io, 1, 0);
}
static int try_kill(void)
{
    return (int)syscall(SYS_kill, victim, SIGTERM);
}
static int try_tgkill(void)
{
    return (int)syscall(SYS_tgkill, victim, victim, SIGTERM);
}
static int try_pidfd(void)
{
    return (int)syscall(SYS_pidfd_open, victim, 0);
}
static int try_create_vm(void)
{
    return (int)syscall(SYS_ioctl, sock[0], KVM_CREATE_VM, 0);
}
static int try_terminal(void)
{
    return (int)syscall(SYS_ioctl, sock[0], 0x5412 /* TIOCSTI */, "x");
}
static int try_executable_memory(void)
{
    return (int)syscall(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static int try_mprotect(void)
{
    return (int)syscall(SYS_mprotect, 0, 4096, PROT_READ | PROT_EXEC);
}
static int try_namespace(void)
{
    return (int)syscall(SYS_unshare, CLONE_NEWUSER);
}
static int try_files_limit(void)
{
    struct rlimit l = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
    return (int)syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &l, NULL);
}
static int try_limit_of_another(void)
{
    struct rlimit l = {.rlim_cur = 1, .rlim_max = 1};
    return (int)syscall(SYS_prlimit64, victim, RLIMIT_CPU, &l, NULL);
}
static int try_x32(void)
{
    return (int)syscall(0x40000000 | SYS_getpid);
}
static int try_32_bit(void)
{
    int ret = 20; /* getpid */
    __asm__ volatile("int $0x80" : "+a"(ret) : : "memory", "r8", "r9", "r10", "r11");
    return ret;
}

static void what_a_monitor_must_not_do_ends_it(void **state)
{
    static const struct {
        const char *what;
        int (*attempt)(void);
    } tries[] = {
        {"open a file", try_open},
        {"open a file, the old way", try_old_open},
        {"make a socket", try_socket},
        {"connect", try_connect},
        {"fork", try_fork},
        {"clone", try_clone},
        {"run a program", try_exec},
        {"trace a process", try_ptrace},
        {"read a process's memory", try_read_memory},
        {"signal a process", try_kill},
        {"signal a thread", try_tgkill},
        {"get hold of a process", try_pidfd},
        {"make a VM", try_create_vm},
        {"write to a terminal's input", try_terminal},
        {"map executable memory", try_executable_memory},
        {"make memory executable", try_mprotect},
        {"make a namespace", try_namespace},
        {"raise its file limit", try_files_limit},
        {"limit another process", try_limit_of_another},
        {"use the x32 system calls", try_x32},
        {"use the 32-bit system calls", try_32_bit},
    };
    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
        int status = sealed(tries[i].attempt);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) {
            fail_msg("%s: wait status %#x, not ended by the filter", tries[i].what, status);
        }
    }
    assert_int_equal(kill(victim, 0), 0);
    assert_int_equal(waitpid(victim, NULL, WNOHANG), 0);
}

static int own_work(void)
{
    char byte = 'x';
    struct iovec io = {.iov_base = &byte, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &io, .msg_iovlen = 1};
    void *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || madvise(p, 8192, MADV_DONTNEED) < 0 || jail_limit_cpu(1000000) < 0 ||
        send(sock[0], &byte, 1, MSG_NOSIGNAL) != 1 || recvmsg(sock[1], &msg, 0) != 1) {
        return -1;
    }
    /* Not a vCPU, but let through to say so. */
    return ioctl(sock[0], KVM_RUN, 0) < 0 && errno == ENOTTY ? 0 : -1;
}

static void what_a_monitor_needs_is_allowed(void **state)
{
    assert_int_equal(sealed(own_work), 0);
}

static int too_much_memory(void)
{
    return mmap(NULL, UINT64_C(2) << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                0) == MAP_FAILED
               ? -1
               : 0;
}

static void address_space_is_limited(void **state)
{
    int status = sealed(too_much_memory);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), REFUSED);
}

static int burn(void)
{
    volatile unsigned n = 0;
    int rc = jail_limit_cpu(1);
    while (n + 1 != 0 || rc == 0) {
        n++;
    }
    return rc;
}

static void cpu_time_is_limited(void **state)
{
    int status = sealed(burn);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGXCPU);
}

/* --- the layers below the filter -------------------------------------------------------------- */

/* What is wrong inside the jail, as a bit each; run in the process that jail_enter leaves as the
 * first of its pid namespace. */
enum {
    SEES_FILES = 1,
    HAS_CAPS = 2,
    CAN_GAIN = 4,
    SEES_PROCESSES = 8,
    HAS_NETWORK = 16,
    IS_ROOT = 32
};

static int look_around(const uint16_t layers[VMM_LAYERS], int proc_status)
{
    char text[8192];
    int wrong = 0;
    struct stat st;
    if (!layers[VMM_LAYER_ROOT] &&
        (stat("/etc", &st) == 0 || stat("/proc/self", &st) == 0 || stat("/dev/null", &st) == 0 ||
         open("/x", O_CREAT | O_WRONLY, 0600) >= 0 || stat("/..", &st) < 0)) {
        wrong |= SEES_FILES;
    }
    ssize_t n = pread(proc_status, text, sizeof(text) - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    if (!strstr(text, "CapEff:\t0000000000000000") || !strstr(text, "CapPrm:\t0000000000000000")) {
        wrong |= HAS_CAPS;
    }
    wrong |= prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : CAN_GAIN;
    wrong |= !layers[VMM_LAYER_PID_NS] && kill(victim, 0) == 0 ? SEES_PROCESSES : 0;
    wrong |= geteuid() == 0 ? IS_ROOT : 0;
    if (!layers[VMM_LAYER_NET_NS]) {
        int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct sockaddr to = {.sa_family = AF_INET, .sa_data = {0, 9, 127, 0, 0, 1}};
        wrong |= s >= 0 && connect(s, &to, sizeof(to)) == 0 ? HAS_NETWORK : 0;
    }
    return wrong;
}

static void inside_there_is_nothing(void **state)
{
    int out[2], result[1 + VMM_LAYERS] = {0};
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        uint16_t layers[VMM_LAYERS] = {0};
        int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
        char name[32];
        jail_enter(&nobody, layers);
        pid_t inner = fork();
        if (inner == 0) {
            pause(); /* killed with the first process, or below */
        }
        snprintf(name, sizeof(name), "%d/status", (int)getpid());
        jail_drop(layers);
        int status = openat(proc, name, O_RDONLY | O_CLOEXEC);
        result[0] = look_around(layers, status);
        for (int i = 0; i < VMM_LAYERS; i++) {
            result[1 + i] = layers[i];
        }
        kill(inner, SIGKILL);
        _exit(write(out[1], result, sizeof(result)) == sizeof(result) ? 0 : 1);
    }
    assert_int_equal(read(out[0], result, sizeof(result)), sizeof(result));
    waitpid(pid, NULL, 0);
    /* This process itself is not in the pid namespace, its children are; test_kvm looks at
     * those. */
    for (int i = 0; i < VMM_LAYERS; i++) {
        if (result[1 + i]) {
            print_message("not active here: %s: %s\n", vmm_layer_name((enum vmm_layer)i),
                          strerror(result[1 + i]));
        }
    }
    assert_int_equal(result[0] & ~SEES_PROCESSES, 0);
    close(out[0]);
    close(out[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_monitor_must_not_do_ends_it),
        cmocka_unit_test(what_a_monitor_needs_is_allowed),
        cmocka_unit_test(address_space_is_limited),
        cmocka_unit_test(cpu_time_is_limited),
        cmocka_unit_test(inside_there_is_nothing),
    };
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0) {
        return 1;
    }
    victim = fork();
    if (victim == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        for (;;) {
            pause();
        }
    }
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    kill(victim, SIGKILL);
    waitpid(victim, NULL, 0);
    return rc;
}
