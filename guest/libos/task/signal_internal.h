/* signal_internal.h - between signal.c and sigframe.c. */
#ifndef LIBOS_TASK_SIGNAL_INTERNAL_H
#define LIBOS_TASK_SIGNAL_INTERNAL_H

#include "task/task_internal.h"

struct action { /* the kernel's struct sigaction of x86-64 */
    uint64_t handler, flags, restorer, mask;
};
extern struct action actions[SIGNALS + 1];

void signal_set_mask(uint64_t mask);

#endif
