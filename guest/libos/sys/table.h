/* table.h - numbers that sys/ shares with its assembly. */
#ifndef LIBOS_SYS_TABLE_H
#define LIBOS_SYS_TABLE_H

#define SYSCALLS   512  /* numbers below; asm/unistd.h */
#define FAST_CALLS 256  /* the short way: see entry.S */
#define HOOK_CALL  1000 /* not Linux's: from program_hook */

#endif
