/* doctor.h - what the daemon can say of its own health: what its drivers can do, what a start costs.
 *
 * Answers GET /api/v1/doctor. What can be seen from outside the daemon (devices, packages, permissions)
 * is `unictl doctor`'s own part. Measuring starts VMs and takes seconds, so askers that come while it
 * runs share one measurement. Loop thread.
 */
#ifndef UNID_DAEMON_DOCTOR_H
#define UNID_DAEMON_DOCTOR_H

#include <jansson.h>

#include "common/error.h"
#include "daemon/config.h"
#include "daemon/drivers.h"
#include "daemon/machines.h"

struct doctor;

/* `drivers` (at least one) are kept until they are closed, and `machines` (may be NULL) as well, which must
 * come after doctor_free; so is `config`. */
int doctor_new(const struct config *config, const struct drivers *drivers,
               const struct machines *machines, struct doctor **ret, struct un_error *err);

/* Askers that still wait get a NULL report. NULL is allowed. */
void doctor_free(struct doctor *doctor);

/* `doctor` is a struct doctor (void, so that it fits api_spec.doctor). `cb` comes once, from the loop, with
 * a borrowed {"findings": [...], "drivers": [...]} as docs/openapi.yaml says, or NULL when out of memory. */
void doctor_report(void *doctor, void (*cb)(void *arg, const json_t *report), void *arg);

#endif
