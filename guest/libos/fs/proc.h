/* proc.h - the files of /proc and /sys that are text: between proc.c and proc_text.c. */
#ifndef LIBOS_PROC_H
#define LIBOS_PROC_H

#include "fs/text.h"

struct proc_text {
    const char *name; /* NULL: the table's end */
    void (*generate)(struct text *t);
};

extern const struct proc_text proc_process_texts[]; /* in /proc/self */
extern const struct proc_text proc_texts[];         /* below /proc, with directories */
extern const struct proc_text sys_texts[];          /* below /sys */

#endif
