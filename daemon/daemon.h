/* daemon.h - unid put together: opens the parts in the order of the arrows, runs the loop, drains,
 * closes.
 *
 *        daemon_open          daemon_run: serving      SIGTERM, SIGINT        drained, or second
 * signal
 *     ------------------> ------------------------> DRAINING ------------------------> daemon_close
 */
#ifndef UNID_DAEMON_DAEMON_H
#define UNID_DAEMON_DAEMON_H

#include "daemon/config.h"

struct daemon;

/* Opens everything and listens. `config` is kept until daemon_close. What was opened before a
 * failure is closed again. Blocking. */
int daemon_open(const struct config *config, struct daemon **ret, struct un_error *err);

/* Serves until a signal has drained it. */
void daemon_run(struct daemon *d);

/* NULL is allowed. */
void daemon_close(struct daemon *d);

#endif
