/* channel.h - the host's side of the guest channel (guest/include/unid/abi.h), the same for every
 * driver.
 *
 * A channel is a view of the guest's shared pages, [UNID_BOOT_ADDR, UNID_CHANNEL_END), mapped in
 * this process. The guest may change them at any moment and may be hostile: each call is copied out
 * once, every length is checked, and nothing the guest writes is used as an address. The driver
 * tells the channel that the doorbell rang; the channel tells its user what the guest wants, by the
 * events of hv.h, and writes the answers.
 *
 * What a driver does with it:
 *
 *     vm_run           hv_channel_init, set the callbacks below, hv_channel_put_request, start
 *     doorbell event   hv_channel_ring           events->on_log, on_head, on_output, on_input_wanted
 *     vm_input         hv_channel_input          only ->resume
 *     vm_output_done   hv_channel_output_done    only ->resume or ->exit_due
 *     vm_answer        hv_channel_answer         only ->resume
 *     vm_net_ready     hv_channel_net_ready      only ->resume
 *     VM gone          hv_channel_end            events->on_log, then ->exit_due
 *     exit_due         post a call to the loop, in which hv_channel_exit calls events->on_exit
 *     vm_free          hv_channel_done           nothing is called any more
 *
 * So on_exit has one source, hv_channel_exit, and no callback of hv.h comes from inside vm_input or
 * vm_output_done. The user may call vm_input, vm_output_done, vm_answer and vm_free from inside any
 * event.
 *
 * It does no I/O and knows no hypervisor. Loop thread.
 */
#ifndef UNID_HYPERVISOR_CHANNEL_H
#define UNID_HYPERVISOR_CHANNEL_H

#include "common/limits.h"
#include "hypervisor/hv.h"
#include "unid/abi.h"

struct hv_channel {
    uint8_t *
        base; /* host address of UNID_BOOT_ADDR; the driver's mapping, kept until hv_channel_done */
    const struct hv_vm_events *events;
    void *arg;

    /* The driver's callbacks, set after hv_channel_init; each may be NULL when there is nothing to
     * do. */
    /* The answer was written: the driver lets the guest go on, where its transport needs that. */
    void (*resume)(void *driver_arg);
    /* The guest asks for its request and has none yet: snapshot it, or answer by
     * hv_channel_put_request. */
    void (*next_wanted)(void *driver_arg);
    /* As events->on_ask, when the user has none: see asks.h. NULL: the answer is -ENOSYS. */
    void (*ask)(void *driver_arg, const struct hv_ask *ask);
    /* The guest has ended by its own doing (DONE, a broken contract, too many calls): the driver
     * stops the VM, but keeps `base` readable until on_exit. Once; comes before on_output of the
     * last bytes. */
    void (*ended)(void *driver_arg, const struct hv_exit *why);
    /* The user is to hear of the end: call hv_channel_exit soon, from an event of the loop. Once.
     */
    void (*exit_due)(void *driver_arg);
    void *driver_arg;

    uint64_t calls; /* handled so far */

    /* private */
    uint32_t seq;                  /* last call that was taken */
    uint32_t op;                   /* the call being answered, 0 when none is */
    uint32_t head_len;             /* of the request, as written */
    bool request_put, request_eof; /* the request was written; with its last body byte */
    bool head_sent, output_out;    /* response: on_head came; on_output awaits its answer */
    bool finished, exit_told, closed;
    uint32_t ask_len;                      /* of the RECV being answered: the most it takes */
    uint64_t net_readable, net_writable;   /* as the user says */
    uint64_t told_readable, told_writable; /* as the guest was told with the last answer */
    char name[LIMIT_NET_NAME_BYTES + 1];   /* of the RESOLVE or OPEN being answered */
    struct hv_exit why;                    /* once finished */
};

void hv_channel_init(struct hv_channel *ch, uint8_t *base, const struct hv_vm_events *events,
                     void *arg);

/* Takes over a channel whose memory is a copy of one whose guest waits in NEXT: hv_channel_put_request
 * is the answer. After hv_channel_init. */
void hv_channel_adopt(struct hv_channel *ch);

/* No callback comes from this channel any more, and `base` is not touched. */
void hv_channel_done(struct hv_channel *ch);

/* Writes the request (head, first body bytes, id, time, entropy) as the answer to NEXT. Called by
 * the driver before the guest starts (then boot.flags says REQUEST_READY), or when a snapshot is
 * bound. -E2BIG when the head (UNID_REQUEST_HEAD_MAX) or the body bytes (hv_body_room) do not fit,
 * -EINVAL for an over-long invocation id, -EALREADY the second time. */
int hv_channel_put_request(struct hv_channel *ch, const struct hv_run_spec *spec,
                           struct un_error *err);

/* The doorbell rang. Calls back; a repeated ring for the same call is ignored, as is one after the
 * end. */
void hv_channel_ring(struct hv_channel *ch);

/* See hv.h, vm_input and vm_output_done. Ignored when the guest does not wait for it. `len` must
 * not exceed the room that was told (the rest would be cut). */
void hv_channel_input(struct hv_channel *ch, const void *data, size_t len, bool eof);
void hv_channel_output_done(struct hv_channel *ch);

/* See hv.h, vm_answer and vm_net_ready. Ignored when the guest asks nothing, or has ended. */
void hv_channel_answer(struct hv_channel *ch, const struct hv_answer *answer);
void hv_channel_net_ready(struct hv_channel *ch, uint64_t readable, uint64_t writable);

/* What the guest counted in its struct unid_report; what is out of bounds there is cut. Zeros once
 * hv_channel_done was called. */
void hv_channel_report(const struct hv_channel *ch, struct unid_report *ret);

/* The VM ended without DONE: hands out what stands in the log window, then asks for the exit.
 * Ignored when the guest has ended already. From an event of the loop. */
void hv_channel_end(struct hv_channel *ch, const struct hv_exit *why);

/* Calls events->on_exit, once, when exit_due was called before; else does nothing. */
void hv_channel_exit(struct hv_channel *ch);

/* Parses a response head as abi.h defines it, in place in `text` (modified; NUL-terminated by the
 * caller at text[len]). Names are tokens, values hold no control bytes but tabs (RFC 9110,
 * sections 5.1 and 5.5); the surrounding white space of values is cut. Fields that concern the
 * connection or the framing (RFC 9110, section 7.6.1; Content-Length) are the server's own and left
 * out. At most `max_fields` are written to `fields`, to which `ret` then points. -EINVAL with the
 * reason. Pure. */
int hv_head_parse(char *text, size_t len, struct hv_field *fields, size_t max_fields,
                  struct hv_head *ret, struct un_error *err);

#endif
