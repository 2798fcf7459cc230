/* link.h - what unid and one monitor at a time talk through: the VM socket and the channel's memory.
 *
 * A link is lent to one VM after the other, so that a VM costs unid no descriptors, no mapping and no
 * page faults. What keeps a VM from its predecessor's traces:
 *
 *   - a link is given back only when its monitor was reaped, so nobody else has it;
 *   - one in whose socket something was left unread, either way, is not used again;
 *   - a new monitor zeroes the memory before it says READY, and so before it has a guest
 *     (channel_memory.h); unid looks at none of it before.
 *
 * Links that nobody has taken for some seconds are freed.
 *
 * Loop thread.
 */
#ifndef UNID_HYPERVISOR_KVM_LINK_H
#define UNID_HYPERVISOR_KVM_LINK_H

#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/list.h"

struct kvm_driver;
struct kvm_vm;

struct kvm_link {
    struct un_list node; /* of the driver's free ones */
    int sock, peer; /* the ends of the VM socket: unid's, and the monitor's, which unid keeps too */
    int channel_fd;
    uint8_t *base;      /* the channel, mapped */
    struct event event; /* something came: kvm_vm_on_packet */
    bool watched;
    struct kvm_vm *vm; /* who has it; NULL when it is free */
    uint64_t put_us;   /* since when it is free */
};

/* Lends a link to `vm`. Gives it (kvm_link_put). -ENOMEM, or the errno of what it is made of. */
int kvm_link_take(struct kvm_driver *d, struct kvm_vm *vm, struct kvm_link **ret,
                  struct un_error *err);

/* Takes it back; its monitor is gone, or was never made. `small`: its guest is not known to have used
 * more memory than every request does. NULL is allowed. */
void kvm_link_put(struct kvm_driver *d, struct kvm_link *link, bool small);

/* Whether an order lies in the socket that the monitor has not taken. */
bool kvm_link_unread(const struct kvm_link *link);

/* For the driver's opening: no links yet. */
void kvm_links_init(struct kvm_driver *d);
/* Frees those that nobody has. */
void kvm_links_free(struct kvm_driver *d);

#endif
