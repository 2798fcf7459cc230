/* channel.h - inside host/: the call block and its doorbell. */
#ifndef LIBOS_HOST_CHANNEL_H
#define LIBOS_HOST_CHANNEL_H

#include "kernel.h"

static inline const struct unid_boot *boot_page(void)
{
    return (const struct unid_boot *)UNID_BOOT_ADDR;
}
static inline struct unid_call *call_page(void)
{
    return (struct unid_call *)UNID_CALL_ADDR;
}

/* Makes a call, whose fields are filled, and waits for its answer. DONE does not return. */
void host_call(uint32_t op);

void random_seed(const uint8_t seed[UNID_ENTROPY_SIZE]);

#endif
