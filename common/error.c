/* error.c - see error.h. */
#include "common/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void cut_mark(char *text, size_t size, int wanted)
{
    if (wanted >= (int)size) {
        memcpy(text + size - 4, "...", 4);
    }
}

int un_error_set(struct un_error *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
        cut_mark(err->text, sizeof err->text, n);
        err->code = code;
    }
    return code;
}

int un_error_errno(struct un_error *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
        cut_mark(err->text, sizeof err->text, n);
        size_t used = strlen(err->text);
        n = snprintf(err->text + used, sizeof err->text - used, ": %s", strerrordesc_np(-code));
        cut_mark(err->text, sizeof err->text, (int)used + n);
        err->code = code;
    }
    return code;
}

int un_error_context(struct un_error *err, const char *fmt, ...)
{
    if (!err) {
        return -EIO;
    }
    char old[UN_ERROR_TEXT_MAX];
    memcpy(old, err->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    cut_mark(err->text, sizeof err->text, n);
    size_t used = strlen(err->text);
    n = snprintf(err->text + used, sizeof err->text - used, ": %s", old);
    cut_mark(err->text, sizeof err->text, (int)used + n);
    return err->code;
}

void un_error_copy(struct un_error *to, const struct un_error *from)
{
    if (to && from && to != from) {
        *to = *from;
    }
}
