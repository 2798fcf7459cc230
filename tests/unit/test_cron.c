/* test_cron.c - schedules and time zones, in times that are given; the C library is the oracle for
 * offsets. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "events/cron.h"
#include "events/tz.h"

static int64_t utc(const char *text)
{
    struct tm tm = {0};
    assert_non_null(strptime(text, "%Y-%m-%d %H:%M:%S", &tm));
    return timegm(&tm);
}

static struct tz *zone(const char *name)
{
    struct tz *tz = NULL;
    struct un_error err = UN_ERROR_INIT;
    if (tz_load(name, &tz, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return tz;
}

static struct cron schedule(const char *text)
{
    struct cron c;
    struct un_error err = UN_ERROR_INIT;
    if (cron_parse(text, &c, &err) < 0) {
        fail_msg("%s: %s", text, err.text);
    }
    return c;
}

/* --- the calendar and zones ------------------------------------------------------------------- */

static void dates_and_days_agree_with_the_c_library(void **state)
{
    for (int64_t day = -400000; day < 400000; day += 97) {
        int64_t year;
        unsigned month, d;
        time_t at = day * 86400;
        struct tm tm;
        tz_date_of(day, &year, &month, &d);
        gmtime_r(&at, &tm);
        assert_int_equal(year, tm.tm_year + 1900);
        assert_int_equal(month, tm.tm_mon + 1);
        assert_int_equal(d, tm.tm_mday);
        assert_int_equal(tz_days_of(year, month, d), day);
    }
}

static void offsets_agree_with_the_c_library(void **state)
{
    static const char *const names[] = {"Europe/Berlin",       "America/New_York",
                                        "Australia/Lord_Howe", "Asia/Kathmandu",
                                        "America/Sao_Paulo",   "Africa/Casablanca",
                                        "Pacific/Apia",        "Antarctica/Troll",
                                        "America/Nuuk",        "Asia/Gaza",
                                        "Europe/Dublin",       "Etc/GMT+5",
                                        "America/Santiago",    "UTC"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(names); i++) {
        struct tz *tz = zone(names[i]);
        setenv("TZ", names[i], 1);
        tzset();
        /* From 1975 to 2120, every 13 hours and a bit. */
        for (int64_t at = 157766400; at < 4733510400; at += 47123) {
            struct tm tm;
            time_t t = at;
            localtime_r(&t, &tm);
            if (tz_offset(tz, at) != tm.tm_gmtoff) {
                fail_msg("%s at %lld: %d, not %ld", names[i], (long long)at, tz_offset(tz, at),
                         tm.tm_gmtoff);
            }
        }
        tz_free(tz);
    }
    unsetenv("TZ");
}

static void changes_are_where_offsets_change(void **state)
{
    struct tz *tz = zone("Europe/Berlin");
    assert_int_equal(tz_next_change(tz, utc("2026-01-01 00:00:00")), utc("2026-03-29 01:00:00"));
    assert_int_equal(tz_next_change(tz, utc("2026-03-29 01:00:00")), utc("2026-10-25 01:00:00"));
    assert_int_equal(tz_next_change(tz, utc("2090-06-01 00:00:00")), utc("2090-10-29 01:00:00"));
    /* Skipped, repeated, and plain local times. */
    assert_int_equal(tz_from_local(tz, utc("2026-03-29 02:30:00")), utc("2026-03-29 01:00:00"));
    assert_int_equal(tz_from_local(tz, utc("2026-10-25 02:30:00")), utc("2026-10-25 00:30:00"));
    assert_int_equal(tz_from_local(tz, utc("2026-07-01 12:00:00")), utc("2026-07-01 10:00:00"));
    tz_free(tz);
    tz = zone("UTC");
    assert_int_equal(tz_next_change(tz, 0), TZ_NEVER);
    tz_free(tz);
}

static void zone_names_stay_in_their_directory(void **state)
{
    static const char *const bad[] = {"",          "/etc/passwd", "../../etc/passwd", "Europe",
                                      "Europe/",   "a b",         "Europe//Berlin",   "zone.tab",
                                      "tzdata.zi", "Mars/Rover"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        struct tz *tz = NULL;
        struct un_error err = UN_ERROR_INIT;
        assert_int_equal(tz_load(bad[i], &tz, &err), -EINVAL);
        assert_true(*err.text);
    }
}

/* --- schedules -------------------------------------------------------------------------------- */

static void next_times(void **state)
{
    static const struct {
        const char *schedule, *zone, *after, *next;
    } cases[] = {
        {"* * * * *", "UTC", "2026-01-01 00:00:00", "2026-01-01 00:01:00"},
        {"* * * * *", "UTC", "2026-01-01 00:00:59", "2026-01-01 00:01:00"},
        {"*/15 * * * *", "UTC", "2026-01-01 00:50:00", "2026-01-01 01:00:00"},
        {"5,35 8-10 * * *", "UTC", "2026-01-01 10:35:00", "2026-01-02 08:05:00"},
        {"0 0 29 2 *", "UTC", "2026-01-01 00:00:00", "2028-02-29 00:00:00"},
        {"0 0 29 2 *", "UTC", "2096-03-01 00:00:00", "2104-02-29 00:00:00"},
        {"0 0 31 * *", "UTC", "2026-01-31 00:00:00", "2026-03-31 00:00:00"},
        {"0 12 * * mon-FRI", "UTC", "2026-01-02 12:00:00", "2026-01-05 12:00:00"},
        {"0 12 * * 7", "UTC", "2026-01-01 00:00:00", "2026-01-04 12:00:00"},
        {"0 12 * * 0", "UTC", "2026-01-01 00:00:00", "2026-01-04 12:00:00"},
        {"0 12 * * 5-7", "UTC", "2026-01-03 12:00:00", "2026-01-04 12:00:00"},
        /* Either day is enough when both are given; 2026-01-13 is a Tuesday. */
        {"0 0 13 * fri", "UTC", "2026-01-09 00:00:00", "2026-01-13 00:00:00"},
        {"0 0 13 * fri", "UTC", "2026-01-13 00:00:00", "2026-01-16 00:00:00"},
        {"0 0 */2 * fri", "UTC", "2026-01-01 00:00:00", "2026-01-09 00:00:00"},
        {"0 0 1 jan,JUL *", "UTC", "2026-01-01 00:00:00", "2026-07-01 00:00:00"},
        {"@yearly", "UTC", "2026-01-01 00:00:00", "2027-01-01 00:00:00"},
        {"@weekly", "UTC", "2026-01-01 00:00:00", "2026-01-04 00:00:00"},
        {" 0  9 * * * ", "Europe/Berlin", "2026-01-01 00:00:00", "2026-01-01 08:00:00"},
        {"0 9 * * *", "Europe/Berlin", "2026-07-01 00:00:00", "2026-07-01 07:00:00"},
        {"0 9 * * *", "Asia/Kathmandu", "2026-07-01 00:00:00", "2026-07-01 03:15:00"},
        /* Clocks go from 02:00 to 03:00 on 2026-03-29: at once, and once, then as ever. */
        {"30 2 * * *", "Europe/Berlin", "2026-03-28 12:00:00", "2026-03-29 01:00:00"},
        {"0,30 2 * * *", "Europe/Berlin", "2026-03-29 01:00:00", "2026-03-30 00:00:00"},
        {"30 2 * * *", "Europe/Berlin", "2026-03-29 01:00:00", "2026-03-30 00:30:00"},
        /* They go from 03:00 to 02:00 on 2026-10-25: the first time only. */
        {"30 2 * * *", "Europe/Berlin", "2026-10-24 12:00:00", "2026-10-25 00:30:00"},
        {"30 2 * * *", "Europe/Berlin", "2026-10-25 00:30:00", "2026-10-26 01:30:00"},
        {"30 2 * * *", "Europe/Berlin", "2026-10-25 01:10:00", "2026-10-26 01:30:00"},
        /* By the time that passes. */
        {"*/30 * * * *", "Europe/Berlin", "2026-10-25 00:30:00", "2026-10-25 01:00:00"},
        {"*/30 * * * *", "Europe/Berlin", "2026-10-25 01:00:00", "2026-10-25 01:30:00"},
        {"0 * * * *", "Europe/Berlin", "2026-10-25 00:00:00", "2026-10-25 01:00:00"},
        {"0 * * * *", "Europe/Berlin", "2026-03-29 00:00:00", "2026-03-29 01:00:00"},
        /* Half an hour: Lord Howe goes from 02:00 back to 01:30. */
        {"45 1 * * *", "Australia/Lord_Howe", "2026-04-04 00:00:00", "2026-04-04 14:45:00"},
        {"45 1 * * *", "Australia/Lord_Howe", "2026-04-04 14:45:00", "2026-04-05 15:15:00"},
        /* A day that a zone skipped as a whole (Samoa, 2011-12-30). */
        {"0 12 30 12 *", "Pacific/Apia", "2011-12-01 00:00:00", "2011-12-30 10:00:00"},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        struct cron c = schedule(cases[i].schedule);
        struct tz *tz = zone(cases[i].zone);
        int64_t next = cron_next(&c, tz, utc(cases[i].after), 0);
        if (next != utc(cases[i].next)) {
            char text[32];
            time_t t = next;
            struct tm tm;
            strftime(text, sizeof(text), "%F %T", gmtime_r(&t, &tm));
            fail_msg("%s %s after %s: %s, not %s", cases[i].schedule, cases[i].zone, cases[i].after,
                     text, cases[i].next);
        }
        tz_free(tz);
    }
}

/* A year in a zone with changes: in order, each once, as many as days or quarters of hours have passed. */
static void a_year_has_each_time_once(void **state)
{
    static const struct {
        const char *schedule;
        unsigned count;
    } cases[] = {{"30 2 * * *", 365}, {"*/15 * * * *", 365 * 96}, {"0 */6 * * *", 365 * 4}};
    struct tz *tz = zone("Europe/Berlin");
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        struct cron c = schedule(cases[i].schedule);
        int64_t at = utc("2025-12-31 23:00:00") - 1, end = utc("2026-12-31 23:00:00");
        unsigned count = 0;
        for (int64_t next; (next = cron_next(&c, tz, at, 0)) < end; at = next) {
            assert_true(next > at);
            count++;
        }
        assert_int_equal(count, cases[i].count);
    }
    tz_free(tz);
}

static void every_counts_from_its_anchor(void **state)
{
    struct cron c = schedule("@every 90s");
    assert_int_equal(cron_next(&c, NULL, 1000, 1000), 1090);
    assert_int_equal(cron_next(&c, NULL, 1089, 1000), 1090);
    assert_int_equal(cron_next(&c, NULL, 1090, 1000), 1180);
    assert_int_equal(cron_next(&c, NULL, 0, 1000), 1090);
    c = schedule("@every 2h");
    assert_int_equal(cron_next(&c, NULL, 0, 0), 7200);
}

static void bad_schedules_are_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "* * * *",
                                      "* * * * * *",
                                      "60 * * * *",
                                      "* 24 * * *",
                                      "* * 0 * *",
                                      "* * 32 * *",
                                      "* * * 13 *",
                                      "* * * * 8",
                                      "*/0 * * * *",
                                      "5-1 * * * *",
                                      "1-70 * * * *",
                                      "a * * * *",
                                      "* * * foo *",
                                      "1, * * * *",
                                      ",1 * * * *",
                                      "1/5 * * * *",
                                      "- * * * *",
                                      "* * 30 2 *",
                                      "* * 31 4,6 *",
                                      "@reboot",
                                      "@every",
                                      "@every 5",
                                      "@every 0s",
                                      "@every -1s",
                                      "@every 5w",
                                      "@every 5s x",
                                      "@every 400d",
                                      "@every 1.5h",
                                      "@every 99999999999999999999s",
                                      "* * * * mon-x",
                                      "**  * * * *",
                                      "99999999999 * * * *"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        struct cron c;
        struct un_error err = UN_ERROR_INIT;
        if (cron_parse(bad[i], &c, &err) != -EINVAL || strncmp(err.text, "schedule", 8) != 0) {
            fail_msg("%s: %s", bad[i], err.text);
        }
    }
}

/* --- what is due ------------------------------------------------------------------------------ */

static unsigned due(const char *text, enum cron_missed missed, int64_t last, int64_t now,
                    int64_t *ret, int64_t *ret_last)
{
    struct cron c = schedule(text);
    struct tz *tz = zone("UTC");
    unsigned n = cron_due(&c, tz, 0, last, now, 90, missed, ret, 10, ret_last);
    tz_free(tz);
    return n;
}

static void missed_times_are_treated_as_wanted(void **state)
{
    int64_t planned[10], last;
    /* On time, and a little late. */
    assert_int_equal(due("* * * * *", CRON_SKIP, 600, 660, planned, &last), 1);
    assert_int_equal(planned[0], 660);
    assert_int_equal(due("* * * * *", CRON_SKIP, 600, 700, planned, &last), 1);
    /* Two hours late: the last of them is not late. */
    assert_int_equal(due("0 * * * *", CRON_SKIP, 3600, 3 * 3600 + 10, planned, &last), 1);
    assert_int_equal(last, 3 * 3600);
    assert_int_equal(due("0 * * * *", CRON_SKIP, 3600, 3 * 3600 + 600, planned, &last), 0);
    assert_int_equal(last, 3 * 3600);
    assert_int_equal(due("0 * * * *", CRON_ONCE, 3600, 4 * 3600 + 600, planned, &last), 1);
    assert_int_equal(planned[0], 4 * 3600);
    assert_int_equal(due("0 * * * *", CRON_ALL, 3600, 4 * 3600 + 600, planned, &last), 3);
    assert_int_equal(planned[0], 2 * 3600);
    assert_int_equal(planned[2], 4 * 3600);
    /* Not yet; and a clock that was put back. */
    assert_int_equal(due("0 * * * *", CRON_ALL, 3600, 3700, planned, &last), 0);
    assert_int_equal(due("0 * * * *", CRON_ALL, 7200, 3700, planned, &last), 0);
    assert_int_equal(last, 7200);
}

static void a_long_absence_is_bounded(void **state)
{
    int64_t planned[10], last;
    int64_t now = utc("2026-01-01 00:00:30");
    assert_int_equal(due("* * * * *", CRON_ALL, 0, now, planned, &last), 10);
    assert_int_equal(planned[9], now - 30);
    assert_int_equal(planned[0], now - 30 - 9 * 60);
    assert_int_equal(last, now - 30);
    assert_int_equal(due("@every 1s", CRON_ONCE, 0, now, planned, &last),
                     10); /* 90 s are not late */
    assert_int_equal(due("0 0 29 2 *", CRON_ALL, 0, now, planned, &last), 10);
    assert_int_equal(planned[9], utc("2024-02-29 00:00:00"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dates_and_days_agree_with_the_c_library),
        cmocka_unit_test(offsets_agree_with_the_c_library),
        cmocka_unit_test(changes_are_where_offsets_change),
        cmocka_unit_test(zone_names_stay_in_their_directory),
        cmocka_unit_test(next_times),
        cmocka_unit_test(a_year_has_each_time_once),
        cmocka_unit_test(every_counts_from_its_anchor),
        cmocka_unit_test(bad_schedules_are_refused),
        cmocka_unit_test(missed_times_are_treated_as_wanted),
        cmocka_unit_test(a_long_absence_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
