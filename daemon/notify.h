/* notify.h - tells the service manager how things stand (sd_notify(3)).
 *
 * The protocol is one datagram to the socket that $NOTIFY_SOCKET names, and declared stable by
 * systemd; linking libsystemd for it would cost an idle daemon memory. */
#ifndef UNID_DAEMON_NOTIFY_H
#define UNID_DAEMON_NOTIFY_H

#include <stdint.h>

/* Sends e.g. "READY=1" or "STOPPING=1\nSTATUS=draining". Does nothing when no manager asked for it.
 * Returns 0, or a negative errno that the caller may ignore. */
int notify_send(const char *state);

/* Within which time the manager wants to hear "WATCHDOG=1" again and again (sd_watchdog_enabled(3)); 0: it
 * does not wait for that. */
uint64_t notify_watchdog_us(void);

#endif
