/* cron.h - schedules: five fields as crontab(5) has them, or "@every 90s", in a time zone. Pure
 * functions of the time.
 *
 *     minute   hour     day of month   month             day of week
 *     0-59     0-23     1-31           1-12, jan-dec     0-7, sun-sat; 0 and 7 are Sunday
 *
 * A field is a list of numbers, ranges "a-b" and "*", the latter two also with a step "/n". When
 * neither day field begins with "*", a day that fits one of them is enough. @hourly, @daily
 * (@midnight), @weekly, @monthly and @yearly (@annually) stand for fields; @every takes a whole
 * number of s, m, h or d, and counts from when its trigger was made.
 *
 * Where clocks are put forward, what was due in the skipped time runs at once, together once;
 * where they are put back, what is due in the repeated time runs the first time. Schedules whose
 * minute or hour begins with "*" go by the time that passes instead: every quarter of an hour
 * stays so. (That is how cron(8) of Debian treats "jobs that run at a particular time" and
 * others.)
 */
#ifndef UNID_EVENTS_CRON_H
#define UNID_EVENTS_CRON_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "events/tz.h"

struct cron {
    int64_t every_s; /* 0: the fields */
    uint64_t minutes;
    uint32_t hours, days, months, weekdays; /* bit n: n; weekdays 0..6 from Sunday */
    bool day_star, weekday_star, by_elapsed;
};

#define CRON_NEVER INT64_MAX

/* -EINVAL with the field and what is wrong with it, also when no such day exists. */
int cron_parse(const char *text, struct cron *ret, struct un_error *err);

/* The first planned time after `after`, in seconds since 1970; CRON_NEVER when there is none
 * within twelve years. `anchor` is where @every counts from. */
int64_t cron_next(const struct cron *c, const struct tz *tz, int64_t after, int64_t anchor);

/* What to do about planned times that have passed while unid did not run, or stood still. */
enum cron_missed {
    CRON_SKIP, /* nothing */
    CRON_ONCE, /* run once, for the last of them */
    CRON_ALL   /* run for each, at most the last LIMIT_CRON_CATCH_UP */
};
const char *cron_missed_name(enum cron_missed m);
int cron_missed_parse(const char *word); /* -1: unknown */

/* What is to run now: writes the planned times after `last` up to `now`, oldest first, to `ret`
 * (room for `room`, at least 1); gives how many. Those more than `grace_s` old are missed, and
 * only there as `missed` says. `*ret_last` becomes the last planned time up to `now`, or stays
 * `last`. */
unsigned cron_due(const struct cron *c, const struct tz *tz, int64_t anchor, int64_t last,
                  int64_t now, int64_t grace_s, enum cron_missed missed, int64_t *ret,
                  unsigned room, int64_t *ret_last);

#endif
