/* info.h - what exec.c has to know of info.c. */
#ifndef LIBOS_SYS_INFO_H
#define LIBOS_SYS_INFO_H

#include "kernel.h"

uint64_t
stack_limit(void); /* bytes: of the main stack, and RLIMIT_STACK, which threads' stacks follow */

#endif
