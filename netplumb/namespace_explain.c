/* namespace_explain.c - why a user may have no network namespace, in words (see namespace.h). Sources:
 * user_namespaces(7), namespaces(7); Debian's kernel patch for unprivileged_userns_clone; Ubuntu's
 * specification SE045 of restricted user namespaces (Ubuntu 23.10 and later). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "netplumb/namespace.h"

static int setting(int rc, const char *name, int value, char *fix, struct un_error *err)
{
    snprintf(fix, NET_FIX_SIZE, "sudo sysctl %s=%d (and in /etc/sysctl.d)", name, value);
    return un_error_set(err, rc, "%s forbids namespaces of one's own", name);
}

static bool is_refusal(int rc)
{
    return rc == -EPERM || rc == -EACCES;
}

static int explain_tun(int rc, char *fix, struct un_error *err)
{
    if (rc == -ENOENT || rc == -ENODEV || rc == -ENXIO) {
        snprintf(fix, NET_FIX_SIZE,
                 "sudo modprobe tun; in a container give it the device /dev/net/tun");
    } else {
        snprintf(fix, NET_FIX_SIZE,
                 "sudo chmod 0666 /dev/net/tun, as udev has it: who may make taps is asked by the "
                 "kernel; in a container allow the device");
    }
    return un_error_errno(err, rc, "open /dev/net/tun");
}

int net_namespace_explain(enum net_step step, int rc, const char *said,
                          const struct net_settings *s, char fix[NET_FIX_SIZE],
                          struct un_error *err)
{
    if (step == NET_STEP_TUN) {
        return explain_tun(rc, fix, err);
    }
    if (s->userns_clone == 0 && is_refusal(rc)) {
        return setting(rc, "kernel.unprivileged_userns_clone", 1, fix, err);
    }
    if (step != NET_STEP_LINKS && (rc == -ENOSPC || rc == -EUSERS)) {
        bool is_user = step == NET_STEP_USER;
        return setting(rc, is_user ? "user.max_user_namespaces" : "user.max_net_namespaces", 10000,
                       fix, err);
    }
    if (s->apparmor > 0 && is_refusal(rc)) {
        snprintf(fix, NET_FIX_SIZE,
                 "an AppArmor profile for unid with the rule \"userns,\" (docs/machines.md), or "
                 "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0");
        return un_error_set(err, rc,
                            "AppArmor takes the rights from namespaces of one's own "
                            "(kernel.apparmor_restrict_unprivileged_userns)");
    }
    if (s->is_filtered && is_refusal(rc)) {
        snprintf(fix, NET_FIX_SIZE,
                 "allow unshare and setns in the seccomp filter that unid runs under (a "
                 "container's, or RestrictNamespaces= of systemd)");
        return un_error_set(err, rc, "a seccomp filter or the container forbids namespaces: %.120s",
                            said);
    }
    snprintf(fix, NET_FIX_SIZE,
             step == NET_STEP_LINKS
                 ? "sudo modprobe -a bridge nf_tables tun, or run unid as root"
                 : "run unid as root, or where unprivileged user namespaces are allowed");
    return un_error_set(err, rc, "no network namespace of one's own: %.200s", said);
}
