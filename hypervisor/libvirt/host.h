/* host.h - the connection to libvirt, and shells as blocking calls. Worker threads.
 *
 * libvirt's embedded QEMU driver lives once in a process and serves one root directory; its events
 * need a thread, which this file keeps. A host is opened once and then only read.
 */
#ifndef UNID_HYPERVISOR_LIBVIRT_HOST_H
#define UNID_HYPERVISOR_LIBVIRT_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "hypervisor/libvirt/place.h"
#include "hypervisor/machine.h"

enum { LV_MACHINE_DISKS = 4 }; /* of one machine */

struct lv_host {
    struct lv_place *place;
    const char *uri;            /* NULL: embedded */
    void *conn;                 /* virConnectPtr */
    int (*join_net)(void *arg); /* hv_driver_spec's */
    void *join_arg;
    char emulator[LV_PATH_SIZE];
    char run[LV_PATH_SIZE]; /* the same QEMU, as domains call it */
};

/* A paused domain with its memory mapped here, and the doorbell connected. */
struct lv_shell {
    struct lv_host *host;
    void *domain; /* virDomainPtr */
    char name[64];
    pid_t pid;
    int pidfd, sock;
    bool killed; /* atomic: its exit status is being waited for */
    uint8_t *mem;
    uint64_t mem_bytes;
    uint64_t clean_end;   /* of a shell for machine images: as far as no firmware has been */
    uint64_t base_cpu_us; /* what QEMU used before the guest ran */
};

/* Opens the connection. Errors say what is missing and which Debian package has it. */
int lv_host_open(struct lv_host *h, struct un_error *err);
void lv_host_close(struct lv_host *h);

/* Whether the connection still works. */
bool lv_host_alive(struct lv_host *h);

/* Makes a shell; on failure nothing is left of it. Some 40 ms. */
int lv_shell_create(struct lv_host *h, const char *accelerator, uint64_t mem_bytes,
                    struct lv_shell *ret, struct un_error *err);

/* Makes a machine's domain, paused, and connects its console (`sock`). `mem` stays NULL: its memory is
 * its own; but with HV_BOOT_SHELL it is mapped, and the domain stands as inject.h says. On failure nothing
 * is left of it. The rest is as for shells. */
int lv_shell_create_machine(struct lv_host *h, const char *accelerator,
                            const struct hv_machine_spec *spec, struct lv_shell *ret,
                            struct un_error *err);

/* Lets the CPU run. 2 ms. */
int lv_shell_resume(struct lv_shell *s, struct un_error *err);

/* What is known of the guest's TCP on the user network (hypervisor/machine.h). 3 ms. */
enum hv_machine_heard lv_shell_hear(struct lv_shell *s, const struct hv_machine_spec *spec);

/* Ends QEMU now; from then on its exit status is taken as soon as there is one. Any thread, as often as one likes. */
void lv_shell_kill(struct lv_shell *s);

/* Ends QEMU and takes its exit status; the rest of the shell stays. Soon after lv_shell_kill: as
 * long as nobody has, libvirt stands still with the domain locked. A millisecond. */
void lv_shell_reap(struct lv_shell *s);

/* Releases all of a shell, half-made or whole. 200 ms. */
void lv_shell_destroy(struct lv_shell *s);

#endif
