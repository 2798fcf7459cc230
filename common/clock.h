/* clock.h - the two clocks. Everything that waits uses the monotonic one; everything that is shown
 * or stored uses the wall clock. Virtual time for tests lives in the loop (see loop.h). */
#ifndef UNID_COMMON_CLOCK_H
#define UNID_COMMON_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* CLOCK_MONOTONIC in microseconds. Any thread. */
uint64_t un_clock_mono_us(void);

/* CLOCK_REALTIME in microseconds since 1970-01-01 UTC. Any thread. In a build with fault injection
 * the environment's UNID_CLOCK_AHEAD_S is added to it, which may be negative: a clock that was set
 * wrong. */
uint64_t un_clock_wall_us(void);
/* What it was `age_us` ago; 0 when that is before 1970. */
uint64_t un_clock_ago_us(uint64_t age_us);

/* The rate of the processor's time stamp counter in Hz, measured against CLOCK_MONOTONIC from the first call
 * of this function on; 0 in the first millisecond, and where the counter's rate is not constant (Intel's
 * manual, volume 3, "Invariant TSC"). Any thread. */
uint64_t un_clock_tsc_hz(void);

enum { UN_CLOCK_TEXT_SIZE = 28 }; /* "2026-11-21T02:04:10.510083Z" and the terminating NUL */

/* Writes the RFC 3339 form with microseconds, in UTC, into `buf` (UN_CLOCK_TEXT_SIZE bytes);
 * returns `buf`. */
char *un_clock_format(uint64_t wall_us, char *buf);

#endif
