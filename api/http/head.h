/* head.h - the head of an HTTP/1.x request: finding its end, reading it, and refusing what is
 * ambiguous.
 *
 * Pure functions on bytes. Two independent readers look at every head: the scanner, which knows
 * only lines and is strict about them (RFC 9112 section 2.2: every line ends in CRLF; no NUL, no
 * bare CR or LF; no folded field), and llhttp, which knows the grammar. What either refuses is
 * refused. That is the defence against request smuggling; llhttp alone lets some of these through,
 * depending on its version.
 *
 * This file does not know connections; conn.c feeds it.
 */
#ifndef UNID_API_HTTP_HEAD_H
#define UNID_API_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

struct http_field {
    const char *name, *value; /* NUL-terminated; the value without surrounding white space */
};

/* One request. Everything is borrowed from the head's bytes. */
struct http_request {
    const char *method; /* "GET", ... */
    const char
        *target;      /* "/path?query", or "*"; an absolute-form target has been reduced to this */
    const char *host; /* the Host field, or the authority of an absolute target; NULL in HTTP/1.0 */
    unsigned minor;   /* HTTP/1.<minor> */
    size_t field_count;
    struct http_field fields[LIMIT_HTTP_FIELDS];
    bool chunked;
    int64_t content_length; /* -1: not known (chunked); 0: no body */
    bool expect_continue;
    bool keep_alive; /* what the client asked for */
};

/* The first field of this name (any case), or NULL. */
const char *http_request_field(const struct http_request *r, const char *name);

/* Whether a comma-separated list (a Connection field, say) holds this word, in any case. */
bool http_list_has(const char *list, const char *word);

/* --- where the head ends ---------------------------------------------------------------------- */

struct http_scan {
    size_t len;      /* bytes seen so far */
    unsigned lines;  /* complete lines */
    size_t line_len; /* of the current line */
    bool cr;         /* the last byte was CR */
};

struct http_scan_limits {
    size_t head_bytes, target_bytes, fields;
};

/* Goes on with the next bytes. 1: the head ends at scan->len (its CRLF CRLF included); 0: more is
 * needed; otherwise minus an HTTP status (400, 414, 431) and `*why`. Start with a zeroed scan. */
int http_scan_head(struct http_scan *scan, const struct http_scan_limits *limits, const char *data,
                   size_t len, const char **why);

/* Reads a whole head, as http_scan_head found it. `head` is changed: strings in it are terminated
 * in place, and `ret` borrows them. 0, or minus an HTTP status (400, 417, 431, 501, 505) and
 * `*why`. RFC 9112 sections 3, 5, 6; RFC 9110 sections 7.2, 10.1.1. */
int http_parse_head(char *head, size_t len, struct http_request *ret, const char **why);

/* --- the body --------------------------------------------------------------------------------- */

/* Reads chunked bodies (RFC 9112 section 7.1), with llhttp, and with bounds on chunk extensions and
 * trailers, both of which are dropped. */
struct http_chunks;
/* NULL when out of memory. */
struct http_chunks *http_chunks_new(void);
void http_chunks_free(struct http_chunks *c); /* NULL is allowed */

/* Goes on with the next bytes and calls `on_data` for those of the body. Returns how many bytes
 * were taken, always `len` unless the body ended (`*ret_end`), or -1 with `*why` when it is
 * malformed. */
long http_chunks_feed(struct http_chunks *c, const char *data, size_t len, bool *ret_end,
                      const char **why);
void http_chunks_on_data(struct http_chunks *c,
                         void (*on_data)(void *arg, const char *data, size_t len), void *arg);

#endif
