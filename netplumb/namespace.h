/* namespace.h - the guests' network of a unid that is not root: a network namespace of its own, inside a
 * user namespace of its own (user_namespaces(7), network_namespaces(7)), as rootless containers have it.
 *
 *     host's network                          |  unid's network namespace
 *     unid's threads: API, egress, everything |  bridges, taps, nftables, dnsmasq, QEMU
 *                 └── sockets made on the other side ──> guests, virtual addresses
 *
 * The process enters the user namespace once, at its start; its threads stay in the host's network, over
 * which they have no rights. Threads that make taps or give them to QEMU join (net_namespace_join). A
 * socket belongs to the network in which it was made and can be used from anywhere, so those that talk to
 * guests are made by a thread inside, which also keeps the namespace alive. When the last process in it
 * has ended the kernel removes all that is in it; the host's network is never touched.
 *
 * What the user namespace changes for the rest of the process: nothing that it does by file permissions,
 * as user, group and supplementary groups stay; files of others are shown as 65534's; capabilities that it
 * had are lost, so a process that has any is refused. It keeps only those over its own namespaces that are
 * needed here, and what it executes has none.
 */
#ifndef UNID_NETPLUMB_NAMESPACE_H
#define UNID_NETPLUMB_NAMESPACE_H

#include <stdbool.h>

#include "common/error.h"

enum { NET_FIX_SIZE = 240 };

struct net_namespace;

/* Enters the user namespace and makes the network namespace, its loopback up. Before any other thread is
 * started. All that netplumb will want of the kernel (a tap, a bridge, rules) is tried first by a child,
 * so that on failure, but for -EIO, nothing has changed. Some 20 ms.
 *
 * Gives it (net_namespace_free). On failure `err` says why and `ret_fix` what to do: -EPERM, -EACCES not
 * allowed, by which setting where that is known; -ENOSPC a limit of namespaces; -ENOENT no /dev/net/tun;
 * -EBUSY this process is root, or has capabilities to lose; and what the kernel says besides. -EIO: what
 * was tried out failed then; the process may be in a user namespace, and can do nothing but end. */
int net_namespace_new(struct net_namespace **ret, char ret_fix[NET_FIX_SIZE], struct un_error *err);
/* Nobody uses it any more. NULL is allowed. */
void net_namespace_free(struct net_namespace *ns);

/* The calling thread is in the namespace from now on; there is no way back. Any number of times. A negative
 * errno. Any thread, also between vfork(2) and execve(2). NULL is the host's network: 0, nothing changes. */
int net_namespace_join(const struct net_namespace *ns);

/* Gives a TCP socket (AF_INET, non-blocking, close-on-exec) of the namespace, or a negative errno. NULL is
 * the host's network. Waits for another thread, some 20 us. The loop thread. */
int net_namespace_socket(struct net_namespace *ns);

/* --- why there is none; for tests ------------------------------------------------------------- */

enum net_step { NET_STEP_USER, NET_STEP_NETWORK, NET_STEP_TUN, NET_STEP_LINKS };

/* What the kernel's settings are; -1: it has no such setting. */
struct net_settings {
    int userns_clone; /* kernel.unprivileged_userns_clone, Debian's and Ubuntu's */
    int apparmor;     /* kernel.apparmor_restrict_unprivileged_userns, Ubuntu's */
    bool is_filtered; /* a seccomp filter is on, as in a container */
};

/* Why a step failed with `rc`, and what to do. Pure. Returns `rc`. `said` is the kernel's side of it. */
int net_namespace_explain(enum net_step step, int rc, const char *said,
                          const struct net_settings *settings, char ret_fix[NET_FIX_SIZE],
                          struct un_error *err);

#endif
