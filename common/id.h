/* id.h - identifiers of invocations and instances: ULIDs (26 characters of Crockford's base 32: 48
 * bits of wall-clock milliseconds, 80 random bits; github.com/ulid/spec). They sort by time of
 * birth. */
#ifndef UNID_COMMON_ID_H
#define UNID_COMMON_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UN_ID_LEN = 26, UN_ID_SIZE = 27 };

/* Writes a new identifier with its NUL: above every one that this process has made before, also
 * within a millisecond or when the clock was set back. Any thread. */
void un_id_new(char out[UN_ID_SIZE]);

/* Writes the least identifier of that time (microseconds since 1970, UTC), with its NUL: all that were
 * made before it are below. */
void un_id_least(uint64_t wall_us, char out[UN_ID_SIZE]);

/* Whether `s` is a well-formed identifier. */
bool un_id_valid(const char *s);

/* Fills `buf` with random bytes from getrandom(2). Aborts if the kernel has none: nothing can be
 * done safely without. Any thread. */
void un_random(void *buf, size_t len);

#endif
