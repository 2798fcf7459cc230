/* tz.c - see tz.h. */
#include "events/tz.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/cleanup.h"

#define ZONE_DIRECTORY "/usr/share/zoneinfo"

enum {
    FILE_MOST = 256 * 1024, /* the largest of tzdata has 4 KiB */
    OFFSET_MOST = 26 * 3600,
    FOOTER_MOST = 128,
    DAY_S = 86400
};

/* A date of a POSIX TZ rule: "Mm.w.d", "Jn" or "n". */
struct rule_date {
    char form; /* 'M', 'J' or 'n' */
    int month, week, day;
    int32_t time_s;
};

/* What holds after the last change of the list. */
struct rule {
    bool present, has_dst;
    int32_t std_s, dst_s; /* east of UTC */
    struct rule_date begin, end;
};

struct tz {
    size_t count;
    int64_t *at;      /* ascending */
    int32_t *offsets; /* from at[i] on */
    int32_t before;   /* until at[0] */
    struct rule rule;
};

void tz_free(struct tz *tz)
{
    if (tz) {
        free(tz->at);
        free(tz->offsets);
        free(tz);
    }
}

/* --- the calendar: years from March on, so that leap days come last --------------------------- */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

int64_t tz_days_of(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t from_march = month > 2 ? month - 3 : month + 9;
    int64_t leap_days = floor_div(y, 4) - floor_div(y, 100) + floor_div(y, 400);
    /* 719468: days from 0000-03-01 to 1970-01-01. */
    return y * 365 + leap_days + (153 * from_march + 2) / 5 + day - 1 - 719468;
}

void tz_date_of(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
    enum { DAYS_400 = 146097 };
    int64_t since = days + 719468, cycle = floor_div(since, DAYS_400);
    int64_t of_cycle = since - cycle * DAYS_400;
    int64_t y = (of_cycle - of_cycle / 1460 + of_cycle / 36524 - of_cycle / 146096) / 365;
    int64_t of_year = of_cycle - (365 * y + y / 4 - y / 100);
    int64_t from_march = (5 * of_year + 2) / 153;
    *day = (unsigned)(of_year - (153 * from_march + 2) / 5 + 1);
    *month = (unsigned)(from_march < 10 ? from_march + 3 : from_march - 9);
    *year = y + cycle * 400 + (*month <= 2);
}

/* --- the rule: IEEE Std 1003.1, section 8.3, with the larger hours of RFC 8536 section 3.3.1
 * ----- */

static bool take_number(const char **at, int most, int *ret)
{
    const char *p = *at;
    int n = 0;
    while (*p >= '0' && *p <= '9' && n <= most) {
        n = n * 10 + (*p++ - '0');
    }
    if (p == *at || n > most) {
        return false;
    }
    *at = p;
    *ret = n;
    return true;
}

static bool take_name(const char **at)
{
    const char *p = *at;
    bool quoted = *p == '<';
    size_t len =
        strspn(p + quoted, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-");
    if (!quoted) {
        len = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
    }
    if (len < 3 || (quoted && p[1 + len] != '>')) {
        return false;
    }
    *at = p + len + (quoted ? 2 : 0);
    return true;
}

/* [+-]hh[:mm[:ss]] */
static bool take_time(const char **at, int32_t *ret)
{
    int h = 0, m = 0, s = 0;
    bool minus = **at == '-';
    *at += **at == '-' || **at == '+';
    if (!take_number(at, 167, &h)) {
        return false;
    }
    if (**at == ':') {
        (*at)++;
        if (!take_number(at, 59, &m)) {
            return false;
        }
        if (**at == ':') {
            (*at)++;
            if (!take_number(at, 59, &s)) {
                return false;
            }
        }
    }
    *ret = (minus ? -1 : 1) * (h * 3600 + m * 60 + s);
    return true;
}

static bool take_date(const char **at, struct rule_date *d)
{
    d->form = **at == 'M' || **at == 'J' ? **at : 'n';
    *at += d->form != 'n';
    bool ok = true;
    if (d->form == 'M') {
        ok = take_number(at, 12, &d->month) && d->month >= 1 && *(*at)++ == '.' &&
             take_number(at, 5, &d->week) && d->week >= 1 && *(*at)++ == '.' &&
             take_number(at, 6, &d->day);
    } else {
        ok =
            take_number(at, d->form == 'J' ? 365 : 365, &d->day) && (d->form == 'n' || d->day >= 1);
    }
    d->time_s = 2 * 3600;
    if (ok && **at == '/') {
        (*at)++;
        ok = take_time(at, &d->time_s);
    }
    return ok;
}

static bool parse_rule(const char *text, struct rule *r)
{
    int32_t west = 0;
    if (!take_name(&text) || !take_time(&text, &west) || west > 25 * 3600 || west < -25 * 3600) {
        return false;
    }
    r->present = true;
    r->std_s = -west;
    if (!*text) {
        return true;
    }
    r->has_dst = true;
    r->dst_s = r->std_s + 3600;
    if (!take_name(&text)) {
        return false;
    }
    if (*text != ',') {
        if (!take_time(&text, &west) || west > 25 * 3600 || west < -25 * 3600) {
            return false;
        }
        r->dst_s = -west;
    }
    return *text++ == ',' && take_date(&text, &r->begin) && *text++ == ',' &&
           take_date(&text, &r->end) && !*text;
}

static bool is_leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* Local seconds since 1970 of a rule's date. */
static int64_t date_in(const struct rule_date *d, int64_t year)
{
    int64_t days;
    if (d->form == 'M') {
        int64_t first = tz_days_of(year, (unsigned)d->month, 1);
        int64_t weekday = first + 4 - floor_div(first + 4, 7) * 7; /* 1970-01-01 was a Thursday */
        days = first + (d->day - weekday + 7) % 7 + 7 * (d->week - 1);
        int64_t next = d->month == 12 ? tz_days_of(year + 1, 1, 1)
                                      : tz_days_of(year, (unsigned)d->month + 1, 1);
        days -= days >= next ? 7 : 0; /* week 5: the last */
    } else if (d->form == 'J') {      /* 29 February is never counted */
        days = tz_days_of(year, 1, 1) + d->day - 1 + (is_leap(year) && d->day >= 60);
    } else {
        days = tz_days_of(year, 1, 1) + d->day;
    }
    return days * DAY_S + d->time_s;
}

static int64_t year_of(int64_t at)
{
    int64_t year;
    unsigned month, day;
    tz_date_of(floor_div(at, DAY_S), &year, &month, &day);
    return year;
}

static int32_t rule_offset(const struct rule *r, int64_t at)
{
    if (!r->has_dst) {
        return r->std_s;
    }
    int64_t last = INT64_MIN;
    int32_t offset = r->std_s;
    for (int64_t y = year_of(at) - 1, i = 0; i < 3; i++, y++) {
        int64_t begin = date_in(&r->begin, y) - r->std_s, end = date_in(&r->end, y) - r->dst_s;
        if (begin <= at && begin >= last) {
            last = begin;
            offset = r->dst_s;
        }
        /* All-year daylight saving ends where it begins anew: then it does not end. */
        if (end <= at && end >= last && end != date_in(&r->begin, y + 1) - r->std_s) {
            last = end;
            offset = r->std_s;
        }
    }
    return offset;
}

static int64_t rule_next(const struct rule *r, int64_t at)
{
    int64_t best = TZ_NEVER;
    if (!r->has_dst) {
        return TZ_NEVER;
    }
    for (int64_t y = year_of(at) - 1, i = 0; i < 4; i++, y++) {
        int64_t begin = date_in(&r->begin, y) - r->std_s, end = date_in(&r->end, y) - r->dst_s;
        best = begin > at && begin < best ? begin : best;
        best = end > at && end < best ? end : best;
    }
    return best;
}

/* --- the file --------------------------------------------------------------------------------- */

static int64_t read_be(struct un_reader *r, unsigned size)
{
    const uint8_t *p = un_read_bytes(r, size);
    uint64_t n = 0;
    for (unsigned i = 0; p && i < size; i++) {
        n = n << 8 | p[i];
    }
    return size == 4 ? (int32_t)(uint32_t)n : (int64_t)n;
}

struct counts {
    uint32_t isut, isstd, leap, time, type, chars;
    uint8_t version;
};

static bool read_header(struct un_reader *r, struct counts *c)
{
    const uint8_t *magic = un_read_bytes(r, 4);
    bool ok = magic && memcmp(magic, "TZif", 4) == 0;
    c->version = un_read_u8(r);
    un_read_skip(r, 15);
    uint32_t *const all[] = {&c->isut, &c->isstd, &c->leap, &c->time, &c->type, &c->chars};
    for (size_t i = 0; i < UN_ARRAY_SIZE(all); i++) {
        *all[i] = (uint32_t)read_be(r, 4);
        ok = ok && *all[i] <= FILE_MOST;
    }
    return ok && !r->failed && c->type > 0;
}

static void skip_block(struct un_reader *r, const struct counts *c, unsigned time_size)
{
    un_read_skip(r, (uint64_t)c->time * (time_size + 1) + (uint64_t)c->type * 6 + c->chars +
                        (uint64_t)c->leap * (time_size + 4) + c->isstd + c->isut);
}

static bool read_block(struct un_reader *r, const struct counts *c, unsigned time_size,
                       struct tz *tz)
{
    bool ok = true;
    for (uint32_t i = 0; i < c->time; i++) {
        tz->at[i] = read_be(r, time_size);
        ok = ok && (i == 0 || tz->at[i] > tz->at[i - 1]);
    }
    const uint8_t *kinds = un_read_bytes(r, c->time);
    const uint8_t *types = un_read_bytes(r, (uint64_t)c->type * 6);
    un_read_skip(r, c->chars + (uint64_t)c->leap * (time_size + 4) + c->isstd + c->isut);
    if (r->failed || !ok || !types) {
        return false;
    }
    for (uint32_t i = 0; i <= c->time; i++) {
        uint32_t kind = i == 0 ? 0 : kinds[i - 1];
        if (kind >= c->type) {
            return false;
        }
        struct un_reader one = un_reader_of(types + kind * 6, 6);
        int64_t offset = read_be(&one, 4);
        if (offset < -OFFSET_MOST || offset > OFFSET_MOST) {
            return false;
        }
        *(i == 0 ? &tz->before : &tz->offsets[i - 1]) = (int32_t)offset;
    }
    tz->count = c->time;
    return true;
}

static bool read_footer(struct un_reader *r, struct rule *rule)
{
    char text[FOOTER_MOST];
    size_t len = 0;
    if (un_read_u8(r) != '\n') {
        return false;
    }
    for (uint8_t c; len < sizeof(text) - 1 && (c = un_read_u8(r)) != '\n' && !r->failed;) {
        text[len++] = (char)c;
    }
    text[len] = '\0';
    return !r->failed && strlen(text) == len && (len == 0 || parse_rule(text, rule));
}

int tz_parse(const void *data, size_t len, struct tz **ret, struct un_error *err)
{
    struct un_reader r = un_reader_of(data, len);
    struct counts c = {0};
    bool ok = len <= FILE_MOST && read_header(&r, &c);
    unsigned time_size = 4;
    if (ok && c.version >= '2') {
        skip_block(&r, &c, 4);
        ok = read_header(&r, &c);
        time_size = 8;
    }
    ok = ok && c.time <= FILE_MOST / (time_size + 1);
    struct tz *tz = ok ? calloc(1, sizeof(*tz)) : NULL;
    if (!tz) {
        return ok ? un_error_set(err, -ENOMEM, "out of memory")
                  : un_error_set(err, -EINVAL, "this is no time zone file");
    }
    tz->at = calloc(c.time + 1, sizeof(*tz->at));
    tz->offsets = calloc(c.time + 1, sizeof(*tz->offsets));
    if (!tz->at || !tz->offsets) {
        tz_free(tz);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    if (!read_block(&r, &c, time_size, tz) || (time_size == 8 && !read_footer(&r, &tz->rule))) {
        tz_free(tz);
        return un_error_set(err, -EINVAL, "this is no time zone file");
    }
    *ret = tz;
    return 0;
}

static bool name_ok(const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_+-");
    return len > 0 && len < 64 && !name[len] && name[0] != '/' && !strstr(name, "//");
}

int tz_load(const char *name, struct tz **ret, struct un_error *err)
{
    char path[128];
    if (strcmp(name, "UTC") == 0) {
        struct tz *tz = calloc(1, sizeof(*tz));
        *ret = tz ? tz : *ret;
        return tz ? 0 : un_error_set(err, -ENOMEM, "out of memory");
    }
    snprintf(path, sizeof(path), ZONE_DIRECTORY "/%s", name_ok(name) ? name : "");
    un_autoclose int fd = name_ok(name) ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MOST) {
        return un_error_set(err, -EINVAL,
                            "timezone: there is no \"%.64s\" in " ZONE_DIRECTORY
                            "; use a name like Europe/Berlin, or UTC",
                            name);
    }
    un_autofree char *data = malloc((size_t)st.st_size + 1);
    ssize_t n = data ? read(fd, data, (size_t)st.st_size) : -1;
    if (n < 0) {
        return un_error_errno(err, data ? -errno : -ENOMEM, "time zone \"%s\"", name);
    }
    int rc = tz_parse(data, (size_t)n, ret, err);
    if (rc < 0) {
        (void)un_error_context(err, "time zone \"%s\"", name);
    }
    return rc;
}

/* --- asking ----------------------------------------------------------------------------------- */

/* How many changes were at or before an instant. */
static size_t changes_until(const struct tz *tz, int64_t at)
{
    size_t low = 0, high = tz->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tz->at[middle] <= at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

int32_t tz_offset(const struct tz *tz, int64_t at)
{
    size_t i = changes_until(tz, at);
    if (i == tz->count && tz->rule.present) {
        return rule_offset(&tz->rule, at);
    }
    return i == 0 ? tz->before : tz->offsets[i - 1];
}

int64_t tz_next_change(const struct tz *tz, int64_t at)
{
    size_t i = changes_until(tz, at);
    return i < tz->count ? tz->at[i] : rule_next(&tz->rule, at);
}

int64_t tz_from_local(const struct tz *tz, int64_t local)
{
    int64_t from = local - OFFSET_MOST;
    for (;;) {
        int64_t at = local - tz_offset(tz, from), next = tz_next_change(tz, from);
        if (at < from) {
            return from; /* the clocks were put forward over it */
        }
        if (at < next) {
            return at;
        }
        from = next;
    }
}
