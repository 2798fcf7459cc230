/* probe_guest.h - the guest that the drivers' measurements run, so that their figures compare: a whole SDK
 * image of some hundred bytes. It calls LOG (one byte) at its start, works through a loop of arithmetic,
 * loads and stores, and calls DONE. It does not wait for answers. */
#ifndef UNID_HYPERVISOR_PROBE_GUEST_H
#define UNID_HYPERVISOR_PROBE_GUEST_H

#define HV_PROBE_LOOPS 5000000 /* rounds of the loop */

#ifndef __ASSEMBLER__
#include <stdint.h>

extern const uint8_t hv_probe_guest[];
extern const uint32_t hv_probe_guest_size; /* bytes */
#endif

#endif
