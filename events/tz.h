/* tz.h - offsets of a time zone, from the system's time zone files (TZif, RFC 8536).
 *
 * The C library has one zone a process, set by an environment variable; here each trigger has its
 * own. A loaded zone is read-only: any thread.
 */
#ifndef UNID_EVENTS_TZ_H
#define UNID_EVENTS_TZ_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct tz;

#define TZ_NEVER INT64_MAX

/* A name such as "Europe/Berlin", or "UTC", which needs no file. Blocking, but short. Gives the
 * zone (tz_free). -EINVAL no such zone, or a file that is none; -ENOMEM. */
int tz_load(const char *name, struct tz **ret, struct un_error *err);
/* From a file's bytes, borrowed. -EINVAL, -ENOMEM. */
int tz_parse(const void *data, size_t len, struct tz **ret, struct un_error *err);
void tz_free(struct tz *tz);

/* Seconds east of UTC at an instant (seconds since 1970). */
int32_t tz_offset(const struct tz *tz, int64_t at);
/* The first instant after `at` at which the offset may be another; TZ_NEVER. */
int64_t tz_next_change(const struct tz *tz, int64_t at);
/* The first instant at which clocks show this local time (in seconds since 1970, as if it were
 * UTC). Where clocks skip it, the instant at which they do. */
int64_t tz_from_local(const struct tz *tz, int64_t local);

/* Days since 1970-01-01 and the proleptic Gregorian calendar; month and day from 1. */
int64_t tz_days_of(int64_t year, unsigned month, unsigned day);
void tz_date_of(int64_t days, int64_t *year, unsigned *month, unsigned *day);

#endif
