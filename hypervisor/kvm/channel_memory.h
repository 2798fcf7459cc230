/* channel_memory.h - the memory of a guest's channel as a file: made, and zeroed for its next use.
 * Linked into unid and unid-vmm; uses nothing but system calls. */
#ifndef UNID_HYPERVISOR_KVM_CHANNEL_MEMORY_H
#define UNID_HYPERVISOR_KVM_CHANNEL_MEMORY_H

#include <stdint.h>

/* Bytes that are cheaper to zero than to free and to fault in again. */
enum { CHANNEL_WIPE_MAX = 64 << 10 };

/* A descriptor of VMM_CHANNEL_SIZE zero bytes whose size nobody can change, or a negative errno. */
int channel_memory_new(void);

/* Makes all of it zero; `base` is where the caller has it mapped. Nobody may write to it meanwhile.
 * 0 or a negative errno. */
int channel_memory_clear(int fd, uint8_t *base);

#endif
