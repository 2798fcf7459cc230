/* error.h - the error object that every fallible function takes as its last parameter.
 *
 * A function that can fail returns 0, or a negative errno and fills the error. Outputs are
 * untouched on failure. Each caller on the way up may put its own context in front ("start instance
 * 4f2: map image: ..."). The text becomes an HTTP answer or a log line in one place only, at the
 * top.
 *
 * This is no exception mechanism and holds no resources: an un_error lives on the stack and needs
 * no release.
 */
#ifndef UNID_COMMON_ERROR_H
#define UNID_COMMON_ERROR_H

enum { UN_ERROR_TEXT_MAX = 512 };

struct un_error {
    int code;                     /* negative errno, 0 when nothing went wrong */
    char text[UN_ERROR_TEXT_MAX]; /* one line of UTF-8, no trailing full stop or newline */
};

#define UN_ERROR_INIT                                                                              \
    {                                                                                              \
        .code = 0, .text = ""                                                                      \
    }

/* Sets `err` to `code` (a negative errno) and a printf-style text, and returns `code`, so that a
 * caller can write `return un_error_set(err, -EINVAL, "...")`. `err` may be NULL: only the code is
 * returned then. Overlong text is cut. */
int un_error_set(struct un_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As un_error_set, and appends ": " with strerror(-code). For failed system calls. */
int un_error_errno(struct un_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<context>: " in front of the text and returns err->code. No effect on a NULL `err` beyond
 * returning -EIO. */
int un_error_context(struct un_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Copies `from` to `to`; either may be NULL. */
void un_error_copy(struct un_error *to, const struct un_error *from);

#endif
