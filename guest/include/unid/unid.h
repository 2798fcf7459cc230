/* unid.h - the guest SDK: what a C function that runs as a unid machine can use.
 *
 *     #include <unid/unid.h>
 *
 *     int main(int argc, char **argv)
 *     {
 *         unid_next();                                 // expensive preparation goes before this
 *         unid_response_header("content-type", "text/plain");
 *         unid_printf("hello from %s\n", argv[0]);
 *         return 0;                                    // anything else: the request failed
 *     }
 *
 *     unid-cc -O2 -o hello hello.c
 *
 * A machine serves one request and is gone; there is one thread, no file system and no network.
 * Functions that need the request take it by unid_next() themselves when the program has not.
 * Besides this header there are small <string.h>, <stdlib.h>, <stdio.h>, <ctype.h>, <assert.h> and
 * <limits.h>, and gcc's own <stdint.h>, <stddef.h>, <stdbool.h> and <stdarg.h>.
 *
 * To the contract below this library: unid/abi.h.
 */
#ifndef UNID_UNID_H
#define UNID_UNID_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- request ---------------------------------------------------------------------------------- */

/* Waits for the request. True when there is one: the first time; false ever after. What the program
 * did before may be snapshotted and shared by many machines, so nothing secret or random belongs
 * there. */
bool unid_next(void);

/* The request line. The strings stay as they are until the machine ends. */
const char *unid_method(void); /* "GET" */
const char *unid_target(void); /* "/path?query", as the client sent it behind the function's name */

/* The value of the first field of this name (any case), or NULL. */
const char *unid_header(const char *name);

/* The i-th field, from 0; false behind the last. */
bool unid_header_at(size_t i, const char **ret_name, const char **ret_value);

/* Bytes of the body; -1 when the client did not say (they end when unid_read gives 0). */
int64_t unid_content_length(void);

/* The invocation's identifier, as in the X-Unid-Invocation-Id field of the answer. */
const char *unid_invocation_id(void);

/* Up to `n` bytes of the body into `buf`; gives how many, 0 at the end only (or when n is 0).
 * Waits. */
size_t unid_read(void *buf, size_t n);

/* The same without a copy: points *ret at the next unread bytes, in place until the next call of
 * unid_read or unid_chunk, and gives how many; 0 at the end. */
size_t unid_chunk(const void **ret);

/* --- response --------------------------------------------------------------------------------- */

/* Both before the first byte of the body. 0, or -1: too late, not a status from 200 to 599, a
 * malformed name or value, or more than 16 KiB of fields. Content-Length and what concerns the
 * connection is the server's. */
int unid_response_status(unsigned status);
int unid_response_header(const char *name, const char *value);

/* Appends to the body. The bytes leave when 256 KiB have come together, by unid_flush, and at the
 * end. */
void unid_write(const void *data, size_t n);
void unid_puts(const char *s); /* no newline is added */
void unid_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void unid_vprintf(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));

/* Sends what has been written so far, the head included. */
void unid_flush(void);

/* --- log, end --------------------------------------------------------------------------------- */

/* One message to the function's log; a newline is added when it lacks one. */
void unid_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Ends the machine. Status 0: the response is good; else the request has failed, and the log says
 * why. */
void unid_exit(int status) __attribute__((noreturn));

/* --- time and chance -------------------------------------------------------------------------- */

/* Nanoseconds since 1970-01-01 UTC: the host's time at the request plus the CPU's counter. */
uint64_t unid_wall_ns(void);

/* Nanoseconds since the request was taken. Stands still on a host whose counter's rate is not
 * known: unid_clock_runs() tells. */
uint64_t unid_elapsed_ns(void);
bool unid_clock_runs(void);

/* What is left of the time that this invocation may take; UINT64_MAX without a limit. */
uint64_t unid_remaining_ns(void);

/* Random bytes fit for keys: a ChaCha20 generator with key erasure, seeded by the host for this
 * request. */
void unid_random(void *buf, size_t n);

/* Bytes that malloc may still be able to give. */
size_t unid_heap_free(void);

#endif
