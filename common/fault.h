/* fault.h - fault points: named places where a test makes an operation fail.
 *
 * In a build without --enable-fault-injection, un_fault() is the constant 0 and costs nothing. With
 * it, the environment variable UNID_FAULTS, or un_fault_set() in the same process, says which point
 * fails, how, and from which pass on: "store.commit=ENOSPC", "libvirt.create=EIO@3" (the third pass
 * only), "store.commit=EIO@2+" (the second and all later), several separated by commas.
 */
#ifndef UNID_COMMON_FAULT_H
#define UNID_COMMON_FAULT_H

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#ifdef UNID_FAULT_INJECTION
/* 0, or the negative errno with which the operation at this point is to fail now. Any thread. */
int un_fault(const char *point);
/* Replaces the current plan; NULL or "" clears it. Returns 0, or -EINVAL for a malformed plan. */
int un_fault_set(const char *plan);
#else
static inline int un_fault(const char *point)
{
    (void)point;
    return 0;
}
#endif

#endif
