/* dnsmasq_impl.h - the process of dnsmasq.c: dnsmasq_spawn.c. Not for others. */
#ifndef UNID_NETPLUMB_DNSMASQ_IMPL_H
#define UNID_NETPLUMB_DNSMASQ_IMPL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

struct dnsmasq_who {
    bool change; /* this process is root */
    uid_t uid;
    gid_t gid;
};
/* The user that dnsmasq runs as. Reads the user database the first time. */
const struct dnsmasq_who *dnsmasq_who(void);

struct dnsmasq_spec {
    const char *program, *config;   /* its file */
    int log_fd;                     /* where what it says goes */
    const struct net_namespace *ns; /* in which it runs; NULL: the host's network */
};
/* Starts it. It is killed when the calling thread ends, which is the loop's. Gives its pid and a pidfd. */
int dnsmasq_spawn(const struct dnsmasq_spec *spec, pid_t *ret_pid, int *ret_pidfd,
                  struct un_error *err);

/* When a process began, in ticks since the machine did (proc(5)); 0: there is none. */
uint64_t dnsmasq_began(pid_t pid);
/* Kills the process if it began at that time and has `word` on its command line. */
bool dnsmasq_kill_known(pid_t pid, uint64_t began, const char *word);

#endif
