/* names.h - the names of x86-64 Linux system calls, and of what the CPU reports. */
#ifndef UNID_COMMON_NAMES_H
#define UNID_COMMON_NAMES_H

#include <stdint.h>

/* "fork" for 57, as <asm/unistd_64.h> of the building machine knows it; NULL for a number without a
 * name. Any thread. */
const char *un_syscall_name(uint32_t number);

/* "page fault" for 14 (Intel SDM volume 3, table 6-1); "fault" for a number without a name. Any thread. */
const char *un_fault_name(uint32_t vector);

#endif
