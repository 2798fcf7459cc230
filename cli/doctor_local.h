/* doctor_local.h - what unictl can check of this machine without a daemon and without hypervisor
 * code: devices, programs, files, space, permissions. Reads; changes nothing. */
#ifndef UNID_CLI_DOCTOR_LOCAL_H
#define UNID_CLI_DOCTOR_LOCAL_H

#include <jansson.h>
#include <stddef.h>
#include <sys/stat.h>

/* Gives the findings as GET /api/v1/doctor does: an array of {"check", "status", "detail", "fix"},
 * status ok, warn or fail, fix "" when there is nothing to mend (json_decref). NULL: out of memory.
 */
json_t *doctor_local_findings(void);

/* What lets the user open /dev/kvm, which is as `st` says, when he may not. */
void doctor_kvm_fix(const struct stat *st, char *buf, size_t size);

#endif
