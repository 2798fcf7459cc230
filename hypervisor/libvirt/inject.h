/* inject.h - machines that are made before it is known which: their shells stand in waiter.S, QEMU's process
 * stopped, and get a kernel written into their memory. Blocking; worker threads.
 */
#ifndef UNID_HYPERVISOR_LIBVIRT_INJECT_H
#define UNID_HYPERVISOR_LIBVIRT_INJECT_H

#include "hypervisor/libvirt/host.h"

/* Waits until a domain that runs waiter.S, whose memory is mapped and whose console is connected, has come to
 * its waiting, and stops QEMU's process. Some 30 ms. -ETIMEDOUT; -EPIPE it ended; -ENOTSUP its firmware has
 * been where kernels go. */
int lv_inject_park(struct lv_shell *s, struct un_error *err);

/* Writes what `spec` names into such a shell, which goes on with it at lv_inject_start, and takes its memory
 * out of this process. The errors of hv_pvh_load, and those of the files. Once. */
int lv_inject_load(struct lv_shell *s, const struct hv_machine_spec *spec, struct un_error *err);

/* Lets it go on. At once; any thread. */
void lv_inject_start(struct lv_shell *s);

#endif
