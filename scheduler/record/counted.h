/* counted.h - what a library OS counted (struct unid_report), in words and in a row of the database. */
#ifndef UNID_SCHEDULER_RECORD_COUNTED_H
#define UNID_SCHEDULER_RECORD_COUNTED_H

#include <stddef.h>

#include "hypervisor/hv.h"

/* Room for the text of any list of calls. */
enum { COUNTED_TEXT_SIZE = UNID_REPORT_NUMBERS * 16 };

/* Appends "; unsupported system calls: fork, ptrace" to the text in `buf`, cut to `size`; nothing when
 * every call is there. A program that failed most likely did so for the lack of one. Any thread. */
void counted_name_missing(const struct unid_report *report, char *buf, size_t size);

/* The calls that are not there, and all that were made, as "NUMBER:TIMES NUMBER:TIMES ..."; "" when there
 * are none. `buf` has COUNTED_TEXT_SIZE bytes. Any thread. */
void counted_missing_text(const struct unid_report *report, char *buf);
void counted_made_text(const struct unid_report *report, char *buf);

/* Their reverse; what is no such text ends the list, and numbers that are too large are left out. Only
 * this list of `ret` is changed, from an empty one. Any thread. */
void counted_read_missing(const char *text, struct unid_report *ret);
void counted_read_made(const char *text, struct unid_report *ret);

#endif
