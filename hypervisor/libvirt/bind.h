/* bind.h - writes into a shell's memory what its ROM needs beside the guest's own pages, and reads
 * back what the ROM has to say. Works on a plain view of memory; knows no libvirt. */
#ifndef UNID_HYPERVISOR_LIBVIRT_BIND_H
#define UNID_HYPERVISOR_LIBVIRT_BIND_H

#include "hypervisor/layout.h"

/* Puts tables and mailbox below 1 MiB and maps that part for the supervisor in the page tables that
 * hv_layout_build has made. `mem` is guest memory from address 0, of mem_bytes. -EINVAL when the
 * layout's addresses do not lie in it, or page tables do not lie below 4 GiB, where the ROM needs
 * them. Any thread. */
int lv_bind(uint8_t *mem, uint64_t mem_bytes, const struct hv_layout *layout, struct un_error *err);

/* Whether the guest has faulted; fills `ret` then. `guard`: the layout's, to name a stack or heap
 * that is used up. Any thread. */
bool lv_fault_read(const uint8_t *mem, uint64_t guard, struct hv_exit *ret);

#endif
