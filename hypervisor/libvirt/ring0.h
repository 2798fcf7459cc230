/* ring0.h - whether the host's KVM runs kernels natively. */
#ifndef UNID_HYPERVISOR_LIBVIRT_RING0_H
#define UNID_HYPERVISOR_LIBVIRT_RING0_H

#include <stdbool.h>

/* Runs a few instructions of a kernel, an SSE one among them, and a loop, in a VM of its own. False
 * where there is no KVM, where it fails, and where it takes so long that it is emulated: below another
 * hypervisor a KVM may run programs natively and kernels not. 200 ms at most; a worker. */
bool lv_ring0_is_fast(void);

#endif
