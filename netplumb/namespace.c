/* namespace.c - see namespace.h. */
#include "netplumb/namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/userns.h"
#include "netplumb/addr.h"
#include "netplumb/link.h"
#include "netplumb/rules.h"
#include "netplumb/segment.h"

/* To make and join network namespaces; for links and rules; for dnsmasq's ports. */
enum {
    CAPS = 1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN | 1 << CAP_NET_BIND_SERVICE,
    STACK_BYTES = 128 * 1024
};

struct net_namespace {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t asked, answered;
    int fd;                      /* of the namespace; -1: not made yet, or failed */
    bool is_open, want, closing; /* is_open: the thread has tried to make it */
    int answer;                  /* a socket or a negative errno; valid when !want */
};

/* --- what the process may do ------------------------------------------------------------------ */

static int read_setting(const char *path)
{
    int value = -1;
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%d", &value) != 1) {
        value = -1;
    }
    if (f) {
        fclose(f);
    }
    return value;
}

static bool is_filtered(void)
{
    char line[128];
    int mode = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof(line), f)) {
        (void)sscanf(line, "Seccomp: %d", &mode);
    }
    if (f) {
        fclose(f);
    }
    return mode != 0;
}

static int explain(enum net_step step, int rc, const char *said, char *fix, struct un_error *err)
{
    const struct net_settings settings = {
        .userns_clone = read_setting("/proc/sys/kernel/unprivileged_userns_clone"),
        .apparmor = read_setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        .is_filtered = is_filtered()};
    return net_namespace_explain(step, rc, said, &settings, fix, err);
}

static bool has_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    return syscall(SYS_capget, &head, data) == 0 && (data[0].permitted | data[1].permitted) != 0;
}

/* Of those over its own namespace that it got. With the rest it could pass by the permissions of its own
 * files, and nobody would expect that. */
static int keep_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{.effective = CAPS, .permitted = CAPS}};
    return syscall(SYS_capset, &head, data) < 0 ? -errno : 0;
}

static int enter_user_namespace(void)
{
    int rc = un_userns_enter();
    return rc < 0 ? rc : keep_capabilities();
}

static int raise_loopback(void)
{
    struct ifreq req = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    un_autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd < 0 || ioctl(fd, SIOCSIFFLAGS, &req) < 0 ? -errno : 0;
}

/* --- the trial -------------------------------------------------------------------------------- */

struct verdict {
    enum net_step step;
    int rc;
    struct un_error err;
};

/* A link and rules of each kind; they go with the child. */
static int try_links(struct un_error *err)
{
    struct net_range range;
    struct net_names names;
    struct net_segments segments;
    struct net_segment *segment;
    struct nl_sock *nl = NULL;
    struct net_rules *rules = NULL;
    struct net_link guest;
    net_names_init(&names, "/");
    net_names_tap(&names, 0, guest.tap);
    int rc = net_range_init(&range, "10.87.0.0/24", err);
    rc = rc < 0 ? rc : net_socket_new(NETLINK_ROUTE, &nl, err);
    rc = rc < 0 ? rc : net_rules_new(&rules, err);
    rc = rc < 0 ? rc : net_segments_init(&segments, &names, &range, 1, err);
    rc = rc < 0 ? rc : net_rules_install(rules, &names, &range, err);
    rc = rc < 0 ? rc : net_segments_join(&segments, nl, rules, &segment, err);
    if (rc == 0) {
        net_range_describe(&range, 0, &guest);
        rc = net_tap_make(nl, &names, &guest, geteuid(), segment->bridge, err);
    }
    return rc < 0 ? rc : net_guest_add(nl, segment->bridge, &guest, err);
}

static void try_all(struct verdict *v)
{
    v->step = NET_STEP_USER;
    v->rc = un_fault("net.namespace");
    v->rc = v->rc < 0 ? v->rc : enter_user_namespace();
    if (v->rc < 0) {
        un_error_errno(&v->err, v->rc, "enter a user namespace");
        return;
    }
    v->step = NET_STEP_NETWORK;
    v->rc = unshare(CLONE_NEWNET) < 0 ? -errno : raise_loopback();
    if (v->rc < 0) {
        un_error_errno(&v->err, v->rc, "make a network namespace");
        return;
    }
    v->step = NET_STEP_TUN;
    un_autoclose int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    v->rc = fd < 0 ? -errno : 0;
    if (v->rc == 0) {
        v->step = NET_STEP_LINKS;
        v->rc = try_links(&v->err);
    }
}

/* In a child: a user namespace cannot be left, and some systems let one in and take the rights there. */
static int try_out(char *fix, struct un_error *err)
{
    struct verdict v = {.step = NET_STEP_USER, .rc = -EIO, .err = UN_ERROR_INIT};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        return un_error_errno(err, -errno, "make a pipe");
    }
    pid_t pid = fork();
    if (pid == 0) {
        try_all(&v);
        _exit(write(ends[1], &v, sizeof(v)) != sizeof(v));
    }
    int rc = pid < 0 ? -errno : 0;
    close(ends[1]);
    _Static_assert(sizeof(v) <= PIPE_BUF, "it comes whole or not at all");
    ssize_t n = pid < 0 ? 0 : read(ends[0], &v, sizeof(v));
    close(ends[0]);
    if (pid > 0) {
        waitpid(pid, NULL, 0);
    }
    if (n != sizeof(v)) {
        fix[0] = '\0';
        return un_error_errno(err, rc < 0 ? rc : -EIO, "try out a network namespace");
    }
    return v.rc < 0 ? explain(v.step, v.rc, v.err.text, fix, err) : 0;
}

/* --- the thread inside ------------------------------------------------------------------------ */

static int make_network(void)
{
    if (unshare(CLONE_NEWNET) < 0) {
        return -errno;
    }
    int rc = raise_loopback();
    if (rc < 0) {
        return rc;
    }
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int make_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 ? -errno : fd;
}

static void *run_inside(void *arg)
{
    struct net_namespace *ns = arg;
    pthread_setname_np(pthread_self(), "unid-netns");
    pthread_mutex_lock(&ns->lock);
    ns->fd = make_network();
    ns->is_open = true;
    pthread_cond_broadcast(&ns->answered);
    while (!ns->closing) {
        if (ns->want) {
            ns->answer = make_socket();
            ns->want = false;
            pthread_cond_broadcast(&ns->answered);
        } else {
            pthread_cond_wait(&ns->asked, &ns->lock);
        }
    }
    pthread_mutex_unlock(&ns->lock);
    return NULL;
}

/* It takes no signals: those are for the loop. */
static int start_thread(struct net_namespace *ns)
{
    sigset_t all, before;
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc != 0) {
        return -rc;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    rc = pthread_create(&ns->thread, &attr, run_inside, ns);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return -rc;
}

/* --- the whole -------------------------------------------------------------------------------- */

static int open_inside(struct net_namespace *ns)
{
    int rc = start_thread(ns);
    if (rc < 0) {
        return rc;
    }
    pthread_mutex_lock(&ns->lock);
    while (!ns->is_open) {
        pthread_cond_wait(&ns->answered, &ns->lock);
    }
    rc = ns->fd < 0 ? ns->fd : 0;
    pthread_mutex_unlock(&ns->lock);
    return rc;
}

int net_namespace_new(struct net_namespace **ret, char fix[NET_FIX_SIZE], struct un_error *err)
{
    if (geteuid() == 0 || has_capabilities()) {
        snprintf(fix, NET_FIX_SIZE,
                 "start unid without capabilities, or with CAP_NET_ADMIN as well");
        return un_error_set(err, -EBUSY,
                            "a user namespace would take the capabilities that unid has");
    }
    int rc = try_out(fix, err);
    if (rc < 0) {
        return rc;
    }
    struct net_namespace *ns = calloc(1, sizeof(*ns));
    if (!ns) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    ns->fd = -1;
    pthread_mutex_init(&ns->lock, NULL);
    pthread_cond_init(&ns->asked, NULL);
    pthread_cond_init(&ns->answered, NULL);
    rc = un_fault("net.namespace.enter");
    rc = rc < 0 ? rc : enter_user_namespace();
    rc = rc < 0 ? rc : open_inside(ns);
    if (rc < 0) {
        snprintf(fix, NET_FIX_SIZE, "start unid again");
        net_namespace_free(ns);
        return un_error_set(err, -EIO, "make a network namespace, as was tried out: %s",
                            strerror(-rc));
    }
    *ret = ns;
    return 0;
}

void net_namespace_free(struct net_namespace *ns)
{
    if (!ns) {
        return;
    }
    if (ns->is_open) {
        pthread_mutex_lock(&ns->lock);
        ns->closing = true;
        pthread_cond_signal(&ns->asked);
        pthread_mutex_unlock(&ns->lock);
        pthread_join(ns->thread, NULL);
    }
    if (ns->fd >= 0) {
        close(ns->fd);
    }
    pthread_cond_destroy(&ns->asked);
    pthread_cond_destroy(&ns->answered);
    pthread_mutex_destroy(&ns->lock);
    free(ns);
}

int net_namespace_join(const struct net_namespace *ns)
{
    return ns && setns(ns->fd, CLONE_NEWNET) < 0 ? -errno : 0;
}

int net_namespace_socket(struct net_namespace *ns)
{
    if (!ns) {
        return make_socket();
    }
    pthread_mutex_lock(&ns->lock);
    ns->want = true;
    pthread_cond_signal(&ns->asked);
    while (ns->want) {
        pthread_cond_wait(&ns->answered, &ns->lock);
    }
    int answer = ns->answer;
    pthread_mutex_unlock(&ns->lock);
    return answer;
}
