/* log.c - lines for the operator. */
#include <stdarg.h>

#include "host.h"
#include "kernel.h"

static void log_line(const char *format, va_list args)
{
    char line[512];
    int n = kformat(line, sizeof(line), "libos: ");
    n += kvformat(line + n, sizeof(line) - (size_t)n - 1, format, args);
    if (n > (int)sizeof(line) - 2) {
        n = (int)sizeof(line) - 2;
    }
    line[n] = '\n';
    host_log_write(line, (size_t)n + 1);
}

void klog(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(format, args);
    va_end(args);
}

void kpanic(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(format, args);
    va_end(args);
    host_done(127);
}
