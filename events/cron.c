/* cron.c - see cron.h. */
#include "events/cron.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"

enum {
    MINUTE_S = 60,
    DAY_MINUTES = 1440,
    HORIZON_DAYS = 12 * 366, /* 29 February may be eight years away (1896, 1904; 2096, 2104) */
    EVERY_MOST_S = 366 * 86400
};

/* --- parsing ---------------------------------------------------------------------------------- */

struct field_kind {
    const char *name;
    unsigned least, most;
    const char *const *words; /* for the numbers from `least` on; NULL: none */
};

static const char *const months[] = {"jan", "feb", "mar", "apr", "may", "jun", "jul",
                                     "aug", "sep", "oct", "nov", "dec", NULL};
static const char *const weekdays[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL};

static const struct field_kind field_kinds[] = {{"minute", 0, 59, NULL},
                                                {"hour", 0, 23, NULL},
                                                {"day of month", 1, 31, NULL},
                                                {"month", 1, 12, months},
                                                {"day of week", 0, 7, weekdays}};
enum { FIELDS = UN_ARRAY_SIZE(field_kinds) };

static int bad_field(const struct field_kind *k, const char *text, size_t len, struct un_error *err)
{
    return un_error_set(err, -EINVAL,
                        "schedule: %s \"%.*s\": must be a list of numbers from %u to %u, of ranges "
                        "like %u-%u, or *, the latter two with a step like */2 if wanted",
                        k->name, (int)(len < 32 ? len : 32), text, k->least, k->most, k->least,
                        k->most);
}

static bool take_value(const struct field_kind *k, const char **at, const char *end, unsigned *ret)
{
    for (unsigned i = 0; k->words && k->words[i]; i++) {
        if (end - *at >= 3 && strncasecmp(*at, k->words[i], 3) == 0) {
            *at += 3;
            *ret = i + k->least;
            return true;
        }
    }
    unsigned n = 0, digits = 0;
    while (*at < end && **at >= '0' && **at <= '9' && digits < 4) {
        n = n * 10 + (unsigned)(*(*at)++ - '0');
        digits++;
    }
    *ret = n;
    return digits > 0 && n >= k->least && n <= k->most;
}

/* One member of the list. */
static bool take_range(const struct field_kind *k, const char **at, const char *end, uint64_t *bits)
{
    unsigned first = k->least, last = k->most, step = 1;
    bool range = true;
    if (*at < end && **at == '*') {
        (*at)++;
    } else {
        if (!take_value(k, at, end, &first)) {
            return false;
        }
        last = first;
        range = *at < end && **at == '-';
        if (range) {
            (*at)++;
            if (!take_value(k, at, end, &last) || last < first) {
                return false;
            }
        }
    }
    if (*at < end && **at == '/') {
        struct field_kind steps = {.least = 1, .most = k->most};
        (*at)++;
        if (!range || !take_value(&steps, at, end, &step)) {
            return false;
        }
    }
    for (unsigned n = first; n <= last; n += step) {
        *bits |= 1ull << n;
    }
    return true;
}

static int parse_field(const struct field_kind *k, const char *text, size_t len, uint64_t *ret,
                       struct un_error *err)
{
    const char *at = text, *end = text + len;
    *ret = 0;
    for (;;) {
        if (!take_range(k, &at, end, ret) || (at < end && *at != ',')) {
            return bad_field(k, text, len, err);
        }
        if (at == end) {
            return 0;
        }
        at++;
    }
}

static int parse_every(const char *text, struct cron *c, struct un_error *err)
{
    char *end;
    errno = 0;
    long long n = *text >= '0' && *text <= '9' ? strtoll(text, &end, 10) : 0;
    int64_t unit = n <= 0 || !*end || end[1] ? 0
                   : *end == 's'             ? 1
                   : *end == 'm'             ? 60
                   : *end == 'h'             ? 3600
                   : *end == 'd'             ? 86400
                                             : 0;
    if (errno || unit == 0 || n > EVERY_MOST_S / unit) {
        return un_error_set(err, -EINVAL,
                            "schedule: @every takes a whole number with s, m, h or d behind it, "
                            "from 1s to 366d");
    }
    c->every_s = n * unit;
    return 0;
}

static const char *expand(const char *word)
{
    static const struct {
        const char *name, *fields;
    } names[] = {{"@hourly", "0 * * * *"},  {"@daily", "0 0 * * *"},   {"@midnight", "0 0 * * *"},
                 {"@weekly", "0 0 * * 0"},  {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"},
                 {"@annually", "0 0 1 1 *"}};
    for (size_t i = 0; i < UN_ARRAY_SIZE(names); i++) {
        if (strcmp(word, names[i].name) == 0) {
            return names[i].fields;
        }
    }
    return word;
}

static int64_t next_local(const struct cron *c, int64_t minute);

int cron_parse(const char *text, struct cron *ret, struct un_error *err)
{
    struct cron c = {0};
    uint64_t bits[FIELDS];
    bool star[FIELDS];
    size_t n = 0;
    if (strncmp(text, "@every ", 7) == 0) {
        int rc = parse_every(text + 7 + strspn(text + 7, " "), &c, err);
        *ret = rc ? *ret : c;
        return rc;
    }
    const char *at = expand(text);
    for (at += strspn(at, " \t"); *at; at += strspn(at, " \t")) {
        size_t len = strcspn(at, " \t");
        if (n == FIELDS) {
            n++;
            break;
        }
        int rc = parse_field(&field_kinds[n], at, len, &bits[n], err);
        if (rc < 0) {
            return rc;
        }
        star[n++] = *at == '*';
        at += len;
    }
    if (n != FIELDS) {
        return un_error_set(
            err, -EINVAL,
            "schedule: must be five fields (minute hour day-of-month month "
            "day-of-week), or @every 10m, @hourly, @daily, @weekly, @monthly, @yearly");
    }
    c.minutes = bits[0];
    c.hours = (uint32_t)bits[1];
    c.days = (uint32_t)bits[2];
    c.months = (uint32_t)bits[3];
    c.weekdays = (uint32_t)(bits[4] | bits[4] >> 7) & 0x7f;
    c.by_elapsed = star[0] || star[1];
    c.day_star = star[2];
    c.weekday_star = star[4];
    if (next_local(&c, 0) == CRON_NEVER) {
        return un_error_set(err, -EINVAL, "schedule: no month of it has such a day");
    }
    *ret = c;
    return 0;
}

/* --- the next time ---------------------------------------------------------------------------- */

static bool day_fits(const struct cron *c, int64_t days)
{
    int64_t year;
    unsigned month, day;
    tz_date_of(days, &year, &month, &day);
    unsigned weekday = (unsigned)(((days + 4) % 7 + 7) % 7);
    bool by_day = c->days >> day & 1, by_weekday = c->weekdays >> weekday & 1;
    bool fits = c->day_star || c->weekday_star ? by_day && by_weekday : by_day || by_weekday;
    return fits && (c->months >> month & 1);
}

/* The first local minute (since 1970) from `minute` on. */
static int64_t next_local(const struct cron *c, int64_t minute)
{
    int64_t day = minute / DAY_MINUTES - (minute % DAY_MINUTES < 0);
    int64_t from = minute - day * DAY_MINUTES;
    for (int64_t last = day + HORIZON_DAYS; day < last; day++, from = 0) {
        for (int64_t m = day_fits(c, day) ? from : DAY_MINUTES; m < DAY_MINUTES; m++) {
            if ((c->hours >> (m / 60) & 1) && (c->minutes >> (m % 60) & 1)) {
                return day * DAY_MINUTES + m;
            }
        }
    }
    return CRON_NEVER;
}

static int64_t floor_minute(int64_t seconds)
{
    return seconds / MINUTE_S - (seconds % MINUTE_S < 0);
}

/* Of what goes by the time that passes: looks at each stretch with one offset by itself. */
static int64_t next_elapsed(const struct cron *c, const struct tz *tz, int64_t after)
{
    int64_t end = after + (int64_t)HORIZON_DAYS * 86400;
    int64_t from = after + 1;
    while (from < end) {
        int64_t offset = tz_offset(tz, from), change = tz_next_change(tz, from);
        /* The first whole local minute from `from` on. */
        int64_t local = next_local(c, floor_minute(from + offset + MINUTE_S - 1));
        if (local == CRON_NEVER) {
            return CRON_NEVER;
        }
        int64_t at = local * MINUTE_S - offset;
        if (at < change) {
            return at;
        }
        from = change;
    }
    return CRON_NEVER;
}

static int64_t next_fixed(const struct cron *c, const struct tz *tz, int64_t after)
{
    /* A whole day earlier than the clocks show: what they skip or repeat is looked at in full. */
    int64_t minute = floor_minute(after + tz_offset(tz, after)) - DAY_MINUTES;
    for (;;) {
        minute = next_local(c, minute);
        int64_t at = minute == CRON_NEVER ? CRON_NEVER : tz_from_local(tz, minute * MINUTE_S);
        if (at > after) {
            return at;
        }
        minute++;
    }
}

int64_t cron_next(const struct cron *c, const struct tz *tz, int64_t after, int64_t anchor)
{
    if (c->every_s) {
        int64_t passed = after - anchor;
        int64_t periods = passed < 0 ? 0 : passed / c->every_s + 1;
        return anchor + (periods ? periods : 1) * c->every_s;
    }
    return c->by_elapsed ? next_elapsed(c, tz, after) : next_fixed(c, tz, after);
}

/* --- what is due ------------------------------------------------------------------------------ */

static const char *const missed_names[] = {
    [CRON_SKIP] = "skip", [CRON_ONCE] = "once", [CRON_ALL] = "all"};

const char *cron_missed_name(enum cron_missed m)
{
    return missed_names[m];
}

int cron_missed_parse(const char *word)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(missed_names); i++) {
        if (strcmp(word, missed_names[i]) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* Where to begin looking: a long time without running must not be walked through minute by minute.
 * Doubling steps back from `now` find a time since which at least `room` runs were planned. */
static int64_t near(const struct cron *c, const struct tz *tz, int64_t anchor, int64_t last,
                    int64_t now, unsigned room)
{
    for (int64_t back = 3600; now - back > last; back *= 2) {
        int64_t at = now - back;
        unsigned n = 0;
        while (n <= room && (at = cron_next(c, tz, at, anchor)) <= now) {
            n++;
        }
        if (n > room) {
            return now - back;
        }
    }
    return last;
}

unsigned cron_due(const struct cron *c, const struct tz *tz, int64_t anchor, int64_t last,
                  int64_t now, int64_t grace_s, enum cron_missed missed, int64_t *ret,
                  unsigned room, int64_t *ret_last)
{
    unsigned count = 0;
    *ret_last = last;
    for (int64_t at = near(c, tz, anchor, last, now, room);
         (at = cron_next(c, tz, at, anchor)) <= now;) {
        bool late = now - at > grace_s;
        *ret_last = at;
        if (late && missed == CRON_SKIP) {
            continue;
        }
        if (count > 0 && ((late && missed == CRON_ONCE) || count == room)) {
            memmove(ret, ret + 1, (count - 1) * sizeof(*ret));
            count--;
        }
        ret[count++] = at;
    }
    return count;
}
