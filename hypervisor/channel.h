/* channel.h - the host's side of the guest channel (guest/include/unid/abi.h), the same for every
 * driver.
 *
 * A channel is a view of the guest's shared pages, [UNID_BOOT_ADDR, UNID_CHANNEL_END), mapped in
 * this process. The guest may change them at any moment and may be hostile: each call is copied out
 * once, every length is checked, and nothing the guest writes is used as an address. The driver
 * tells the channel that the doorbell rang; the channel tells its user what the guest wants, by the
 * events of hv.h, and writes the answers.
 *
 * It does no I/O and knows no hypervisor. Loop thread.
 */
#ifndef UNID_HYPERVISOR_CHANNEL_H
#define UNID_HYPERVISOR_CHANNEL_H

#include "hypervisor/hv.h"
#include "unid/abi.h"

struct hv_channel {
    uint8_t *base; /* host address of UNID_BOOT_ADDR; the driver's mapping */
    const struct hv_vm_events *events;
    void *arg;
    /* The answer was written: the driver lets the guest go on, where its transport needs that. */
    void (*resume)(void *driver_arg);
    /* The guest has ended (DONE or a broken contract). Called once, before events->on_exit; the
     * driver stops the VM. */
    void (*ended)(void *driver_arg, const struct hv_exit *why);
    void *driver_arg;
    uint64_t calls; /* handled so far */
    /* private */
    uint32_t seq; /* last call that was taken */
    uint32_t op;  /* the call being answered, 0 when none is */
    int32_t status;
    bool head_sent, request_taken, finished;
    size_t out_pending; /* output bytes handed out and not yet acknowledged */
};

void hv_channel_init(struct hv_channel *ch, uint8_t *base, const struct hv_vm_events *events,
                     void *arg);

/* Writes the request (head, first body bytes, id, time, entropy) as the answer to NEXT. Called by
 * the driver before the guest starts (then boot.flags says REQUEST_READY), or when a snapshot is
 * bound. -E2BIG when the head does not fit. */
int hv_channel_put_request(struct hv_channel *ch, const struct hv_run_spec *spec,
                           struct un_error *err);

/* The doorbell rang. Calls back; a repeated ring for the same call is ignored. */
void hv_channel_ring(struct hv_channel *ch);

/* See hv.h, vm_input and vm_output_done. */
void hv_channel_input(struct hv_channel *ch, const void *data, size_t len, bool eof);
void hv_channel_output_done(struct hv_channel *ch);

/* The VM ended without DONE: hands out what stands in the log window, then events->on_exit. Once.
 */
void hv_channel_end(struct hv_channel *ch, const struct hv_exit *why);

/* Parses a response head as abi.h defines it, in place in `text` (modified, NUL-terminated by the
 * caller at text[len]). At most `max_fields` fields are written. -EINVAL with the reason. Pure. */
int hv_head_parse(char *text, size_t len, struct hv_field *fields, size_t max_fields,
                  struct hv_head *ret, struct un_error *err);

#endif
