/* clock.c - see clock.h. */
#include "common/clock.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <cpuid.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t read_clock_us(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t un_clock_mono_us(void)
{
    return read_clock_us(CLOCK_MONOTONIC);
}

enum { TSC_LEAST_US = 1000, CPUID_POWER = 0x80000007, POWER_INVARIANT_TSC = 1 << 8 };

static uint64_t tsc_from, tsc_from_us; /* 0: its rate is not constant */
static pthread_once_t tsc_once = PTHREAD_ONCE_INIT;

static void begin_tsc(void)
{
    unsigned a, b, c, d;
    if (__get_cpuid(CPUID_POWER, &a, &b, &c, &d) && (d & POWER_INVARIANT_TSC)) {
        tsc_from_us = un_clock_mono_us();
        tsc_from = __builtin_ia32_rdtsc();
    }
}

uint64_t un_clock_tsc_hz(void)
{
    pthread_once(&tsc_once, begin_tsc);
    uint64_t now_us = un_clock_mono_us(), now = __builtin_ia32_rdtsc();
    if (tsc_from == 0 || now_us < tsc_from_us + TSC_LEAST_US) {
        return 0;
    }
    return (uint64_t)((double)(now - tsc_from) * 1e6 / (double)(now_us - tsc_from_us));
}

#ifdef UNID_FAULT_INJECTION
static int64_t ahead_us;
static pthread_once_t from_environment = PTHREAD_ONCE_INIT;

static void read_environment(void)
{
    const char *text = getenv("UNID_CLOCK_AHEAD_S");
    ahead_us = text ? strtoll(text, NULL, 10) * 1000000 : 0;
}

uint64_t un_clock_wall_us(void)
{
    pthread_once(&from_environment, read_environment);
    return read_clock_us(CLOCK_REALTIME) + (uint64_t)ahead_us;
}
#else
uint64_t un_clock_wall_us(void)
{
    return read_clock_us(CLOCK_REALTIME);
}
#endif

uint64_t un_clock_ago_us(uint64_t age_us)
{
    uint64_t now_us = un_clock_wall_us();
    return now_us > age_us ? now_us - age_us : 0;
}

char *un_clock_format(uint64_t wall_us, char *buf)
{
    time_t s = (time_t)(wall_us / 1000000);
    struct tm tm;
    char date[21]; /* strftime is given what fits a four-digit year; later ones are cut to it */
    if (!gmtime_r(&s, &tm) || strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm) == 0) {
        date[0] = '\0';
    }
    snprintf(buf, UN_CLOCK_TEXT_SIZE, "%.19s.%06uZ", date, (unsigned)(wall_us % 1000000));
    return buf;
}
