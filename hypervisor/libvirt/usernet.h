/* usernet.h - what QEMU and its monitor tell of its user network, read. Pure.
 *
 * QEMU takes a connection to a forwarded port at once and holds it until the guest's TCP answers. A first
 * packet that comes before the guest has its card set up is lost, and repeated only after seconds
 * (libslirp, tcp_timer.h: 6 s); so the monitor is asked instead: `info virtio-status` for the card,
 * `info usernet` for the connections (libslirp, misc.c, slirp_connection_info).
 */
#ifndef UNID_HYPERVISOR_LIBVIRT_USERNET_H
#define UNID_HYPERVISOR_LIBVIRT_USERNET_H

#include <stdbool.h>
#include <stdint.h>

/* The card's name in QEMU, and what is asked about it on virtio-mmio and on PCI. */
#define LV_USER_CARD        "user0-card"
#define LV_USER_CARD_STATUS "info virtio-status /machine/peripheral/" LV_USER_CARD
#define LV_USER_CARD_ON_PCI "/virtio-backend"

/* Whether QEMU did not start because it could not listen at the host's port, by what it said (QEMU, net/slirp.c,
 * slirp_hostfwd). */
bool lv_usernet_port_is_taken(const char *said);

/* Whether the guest's driver has the card set up, by the answer to that. True as well where QEMU does not
 * know the question. */
bool lv_usernet_card_is_up(const char *status);

/* Whether a connection to 127.0.0.1:host_port is established with the guest, by the answer to
 * "info usernet". */
bool lv_usernet_listens(const char *connections, uint16_t host_port);

#endif
