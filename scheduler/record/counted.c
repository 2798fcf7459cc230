/* counted.c - see counted.h. */
#include "scheduler/record/counted.h"

#include <stdio.h>
#include <string.h>

#include "common/names.h"

void counted_name_missing(const struct unid_report *report, char *buf, size_t size)
{
    size_t at = strlen(buf);

    for (uint32_t i = 0; i < report->unsupported_count && i < UNID_REPORT_CALLS && at < size - 1;
         i++) {
        uint32_t number = report->unsupported[i].number;
        const char *name = un_syscall_name(number);
        const char *begin = i > 0                            ? ", "
                            : report->unsupported_count == 1 ? "; unsupported system call: "
                                                             : "; unsupported system calls: ";
        int n = name ? snprintf(buf + at, size - at, "%s%s", begin, name)
                     : snprintf(buf + at, size - at, "%snumber %u", begin, number);

        at += n > 0 ? (size_t)n : 0;
    }
}

/* Appends one pair at `used`; the new length. 26 bytes at most with its NUL. */
static size_t add_pair(char *buf, size_t used, uint32_t number, uint32_t times)
{
    return used + (size_t)snprintf(buf + used, COUNTED_TEXT_SIZE - used, "%s%u:%u",
                                   used > 0 ? " " : "", number, times);
}

void counted_missing_text(const struct unid_report *report, char *buf)
{
    size_t used = 0;

    buf[0] = '\0';
    for (uint32_t i = 0; i < report->unsupported_count && i < UNID_REPORT_CALLS; i++) {
        used = add_pair(buf, used, report->unsupported[i].number, report->unsupported[i].times);
    }
}

void counted_made_text(const struct unid_report *report, char *buf)
{
    size_t used = 0;

    buf[0] = '\0';
    for (uint32_t i = 0; i < UNID_REPORT_NUMBERS; i++) {
        if (report->made[i] > 0) { /* 15 bytes at most: a number has three digits */
            used = add_pair(buf, used, i, report->made[i]);
        }
    }
}

static const char *read_pair(const char *text, unsigned *ret_number, unsigned *ret_times)
{
    int taken = 0;

    return sscanf(text, "%u:%u%n", ret_number, ret_times, &taken) == 2 ? text + taken : NULL;
}

void counted_read_missing(const char *text, struct unid_report *ret)
{
    unsigned number, times;

    while (ret->unsupported_count < UNID_REPORT_CALLS &&
           (text = read_pair(text, &number, &times))) {
        ret->unsupported[ret->unsupported_count].number = number;
        ret->unsupported[ret->unsupported_count++].times = times;
    }
}

void counted_read_made(const char *text, struct unid_report *ret)
{
    unsigned number, times;

    while ((text = read_pair(text, &number, &times))) {
        if (number < UNID_REPORT_NUMBERS) {
            ret->made[number] = times;
        }
    }
}
