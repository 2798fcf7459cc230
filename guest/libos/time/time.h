/* time.h - inside the library OS: the program's times to nanoseconds and deadlines. */
#ifndef LIBOS_TIME_TIME_H
#define LIBOS_TIME_TIME_H

#include <linux/time_types.h>

#include "task.h"

#define NS_PER_S 1000000000ull

void clock_init(uint64_t tsc_hz);

/* Nanoseconds of a timespec of the program's. -EFAULT, -EINVAL; what is too large is the largest. */
int timespec_get(const struct __kernel_timespec *ts, uint64_t *ret_ns);
int timespec_put(struct __kernel_timespec *to, uint64_t ns); /* -EFAULT */

uint64_t deadline_in(uint64_t ns);                /* from now; saturates below NO_DEADLINE */
uint64_t deadline_at(bool realtime, uint64_t ns); /* of CLOCK_MONOTONIC */

#endif
