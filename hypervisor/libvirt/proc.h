/* proc.h - the processes of shells: finding, watching, ending them. Linux proc(5), pidfd_open(2).
 *
 * A process is held by a pidfd from the moment it is known, so that no signal ever goes to another
 * process that has got the same number since. Any thread.
 */
#ifndef UNID_HYPERVISOR_LIBVIRT_PROC_H
#define UNID_HYPERVISOR_LIBVIRT_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

/* A descriptor for the process (close), or a negative errno. */
int lv_proc_open(pid_t pid);

/* SIGKILL, SIGSTOP or SIGCONT. */
void lv_proc_signal(int pidfd, int signal);

/* Waits until the process has ended, and takes its exit status if it is this process's child.
 * -ETIMEDOUT. */
int lv_proc_wait(pid_t pid, int pidfd, int timeout_ms);

/* Calls `fn` with each QEMU whose domain name begins with `prefix` ("unid-<tag>-"), and each that
 * libvirt has started from the work directory of that tag to ask for its capabilities. The tag is
 * not guessable, so what matches is ours. `fn` returns false to stop. */
void lv_proc_each(const char *prefix, bool (*fn)(void *arg, pid_t pid), void *arg);

/* Whether the process is such a QEMU. */
bool lv_proc_matches(pid_t pid, const char *prefix);

/* Takes the exit status of every ended QEMU that was left to this process as subreaper. libvirt
 * probes QEMU by daemons that it kills and waits for, but cannot wait(2) for. */
void lv_proc_reap_qemu(void);

/* CPU time of all threads so far, and the peak of resident memory; 0 when the process is gone. */
uint64_t lv_proc_cpu_us(pid_t pid);
uint64_t lv_proc_peak_rss_kib(pid_t pid);

/* The guest memory of a QEMU: the one memfd that it holds, opened for this process (close).
 * -ENOENT, -EACCES when the process belongs to somebody else, -EINVAL when it has another size or
 * could still be cut short under our mapping. */
int lv_proc_open_memory(pid_t pid, uint64_t bytes, struct un_error *err);

#endif
