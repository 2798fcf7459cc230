/* test_namespace.c - a network namespace of a process's own: who gets one, why others do not, and where sockets
 * are. Each kernel's part runs in a child, which becomes another user and enters. Where that cannot be it is
 * skipped, and says why.
 */
#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "netplumb/namespace.h"

enum { NOBODY = 65534, SKIPPED = 77 };

/* --- reasons ---------------------------------------------------------------------------------- */

static const struct net_settings plain = {.userns_clone = -1, .apparmor = -1};

static void assert_explained(enum net_step step, int rc, const struct net_settings *settings,
                             const char *why, const char *what)
{
    char fix[NET_FIX_SIZE] = "";
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(net_namespace_explain(step, rc, "said so", settings, fix, &err), rc);
    assert_int_equal(err.code, rc);
    if (!strstr(err.text, why) || !strstr(fix, what)) {
        fail_msg("\"%s\" / \"%s\" lacks \"%s\" or \"%s\"", err.text, fix, why, what);
    }
}

static void test_a_setting_that_forbids_it_is_named(void **state)
{
    const struct net_settings clone = {.userns_clone = 0, .apparmor = 1, .is_filtered = true};
    assert_explained(NET_STEP_USER, -EPERM, &clone, "kernel.unprivileged_userns_clone",
                     "sysctl kernel.unprivileged_userns_clone=1");
    const struct net_settings apparmor = {.userns_clone = 1, .apparmor = 1};
    assert_explained(NET_STEP_USER, -EACCES, &apparmor, "AppArmor", "userns,");
    assert_explained(NET_STEP_LINKS, -EPERM, &apparmor, "AppArmor", "=0");
    const struct net_settings filtered = {.userns_clone = 1, .apparmor = 0, .is_filtered = true};
    assert_explained(NET_STEP_NETWORK, -EPERM, &filtered, "seccomp", "unshare");
    assert_explained(NET_STEP_USER, -ENOSPC, &plain, "user.max_user_namespaces", "sudo sysctl");
    assert_explained(NET_STEP_NETWORK, -ENOSPC, &plain, "user.max_net_namespaces", "sudo sysctl");
}

static void test_what_no_setting_explains_is_told_as_it_was_said(void **state)
{
    assert_explained(NET_STEP_USER, -EPERM, &plain, "said so", "root");
    assert_explained(NET_STEP_LINKS, -ENOTSUP, &plain, "said so", "modprobe");
    assert_explained(NET_STEP_LINKS, -ENOSPC, &plain, "said so", "modprobe");
    /* A setting that forbids is no reason for what fails otherwise. */
    const struct net_settings clone = {.userns_clone = 0, .apparmor = 1, .is_filtered = true};
    assert_explained(NET_STEP_LINKS, -ENOTSUP, &clone, "said so", "modprobe");
}

static void test_the_device_of_taps_has_words_of_its_own(void **state)
{
    const struct net_settings apparmor = {.userns_clone = 1, .apparmor = 1};
    assert_explained(NET_STEP_TUN, -ENOENT, &plain, "/dev/net/tun", "modprobe tun");
    assert_explained(NET_STEP_TUN, -EACCES, &apparmor, "Permission denied", "chmod 0666");
}

/* --- the kernel's side ------------------------------------------------------------------------ */

/* In a mount namespace: another user, and a tun device of that mode; false where that cannot be. */
static bool become_nobody(mode_t tun)
{
    if (geteuid() != 0) {
        return true; /* with what there is */
    }
    umask(0);
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("none", "/dev/net", "tmpfs", 0, NULL) == 0 &&
           mknod("/dev/net/tun", S_IFCHR | tun, makedev(10, 200)) == 0 && setgroups(0, NULL) == 0 &&
           setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0 &&
           prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0; /* else /proc/self would stay root's */
}

/* The status of `body` in a child; a failed assertion there is one here. */
static void in_child(int (*body)(void))
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        _exit(body());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == SKIPPED) {
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* In children, whose exit status is the line that failed. */
#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

/* Which network a socket is of (socket(7), SO_NETNS_COOKIE; Linux 5.14). */
static uint64_t network_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof(cookie);
    getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len);
    return cookie;
}

static uint64_t own_network(void)
{
    int fd = net_namespace_socket(NULL);
    uint64_t cookie = network_of(fd);
    close(fd);
    return cookie;
}

static int sockets_are_inside(void)
{
    struct net_namespace *ns = NULL;
    char fix[NET_FIX_SIZE];
    struct un_error err = UN_ERROR_INIT;
    uid_t uid = NOBODY;
    if (!become_nobody(0666) || net_namespace_new(&ns, fix, &err) < 0) {
        fprintf(stderr, "no namespace: %s\n", err.text);
        return SKIPPED;
    }
    uid = geteuid();
    uint64_t host = own_network();
    NEED(uid != 0 && host != 0);
    int first = net_namespace_socket(ns), second = net_namespace_socket(ns);
    NEED(first >= 0 && second >= 0 && first != second);
    NEED(network_of(first) == network_of(second) && network_of(first) != host);
    NEED(own_network() == host); /* this thread is where it was */
    NEED(net_namespace_join(NULL) == 0 && own_network() == host);
    NEED(net_namespace_join(ns) == 0 && own_network() == network_of(first));
    NEED(net_namespace_join(ns) == 0);
    close(first);
    close(second);
    net_namespace_free(ns);
    return 0;
}

static void test_sockets_are_inside_and_threads_where_they_were(void **state)
{
    in_child(sockets_are_inside);
}

static int is_in_first_namespace(void)
{
    char map[64] = "";
    FILE *f = fopen("/proc/self/uid_map", "re");
    bool all = f && fgets(map, sizeof(map), f) && strstr(map, "4294967295");
    if (f) {
        fclose(f);
    }
    return all;
}

static int closed_tun_changes_nothing(void)
{
    struct net_namespace *ns = NULL;
    char fix[NET_FIX_SIZE];
    struct un_error err = UN_ERROR_INIT;
    if (geteuid() != 0 || !become_nobody(0600) || !is_in_first_namespace()) {
        return SKIPPED;
    }
    int rc = net_namespace_new(&ns, fix, &err);
    NEED(rc < 0 && !ns);
    NEED(is_in_first_namespace());
    if (rc != -EACCES) {
        fprintf(stderr, "no namespace: %s\n", err.text);
        return SKIPPED;
    }
    NEED(strstr(fix, "chmod 0666"));
    return 0;
}

static void test_a_trial_that_fails_changes_nothing(void **state)
{
    in_child(closed_tun_changes_nothing);
}

static void test_root_gets_none(void **state)
{
    struct net_namespace *ns = NULL;
    char fix[NET_FIX_SIZE];
    if (geteuid() != 0) {
        skip();
    }
    assert_int_equal(net_namespace_new(&ns, fix, NULL), -EBUSY);
    assert_null(ns);
    net_namespace_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_setting_that_forbids_it_is_named),
        cmocka_unit_test(test_what_no_setting_explains_is_told_as_it_was_said),
        cmocka_unit_test(test_the_device_of_taps_has_words_of_its_own),
        cmocka_unit_test(test_sockets_are_inside_and_threads_where_they_were),
        cmocka_unit_test(test_a_trial_that_fails_changes_nothing),
        cmocka_unit_test(test_root_gets_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
