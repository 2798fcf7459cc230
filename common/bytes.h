/* bytes.h - bounds-checked reading of untrusted bytes, and a growable buffer.
 *
 * The reader never runs past its end: a read that does not fit gives zero and sets `failed`, which
 * is sticky, so that a parser may read a whole structure and check once.
 */
#ifndef UNID_COMMON_BYTES_H
#define UNID_COMMON_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct un_reader {
    const uint8_t *data;
    size_t len, pos;
    bool failed;
};

static inline struct un_reader un_reader_of(const void *data, size_t len)
{
    return (struct un_reader){.data = data, .len = len};
}

/* Little-endian scalars. */
uint8_t un_read_u8(struct un_reader *r);
uint16_t un_read_u16le(struct un_reader *r);
uint32_t un_read_u32le(struct un_reader *r);
uint64_t un_read_u64le(struct un_reader *r);

/* Moves to an absolute offset; fails when it is past the end. */
void un_read_seek(struct un_reader *r, uint64_t pos);
void un_read_skip(struct un_reader *r, uint64_t n);

/* Borrows `n` bytes at the current place and moves past them; NULL when they do not fit. */
const uint8_t *un_read_bytes(struct un_reader *r, uint64_t n);

/* A growable byte string; zero-initialise, release with un_buf_done. `data` is always
 * NUL-terminated behind `len` once something was appended. */
struct un_buf {
    uint8_t *data;
    size_t len, cap;
};

/* All return 0 or -ENOMEM; on failure the buffer is as it was. */
int un_buf_append(struct un_buf *b, const void *data, size_t len);
int un_buf_append_str(struct un_buf *b, const char *s);
int un_buf_printf(struct un_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int un_buf_reserve(struct un_buf *b, size_t more);

/* Drops the first `n` bytes. */
void un_buf_consume(struct un_buf *b, size_t n);
void un_buf_reset(struct un_buf *b); /* length 0, memory kept */
void un_buf_done(struct un_buf *b);  /* memory released; usable again */

/* Gives the bytes as a NUL-terminated string (free with free()) and empties the buffer; an empty
 * buffer gives "". NULL when out of memory. */
char *un_buf_steal_str(struct un_buf *b);

#define un_autobuf __attribute__((cleanup(un_buf_done)))

/* Lower-case hexadecimal. `out` has room for 2 * len + 1. */
void un_hex_encode(const void *data, size_t len, char *out);
/* Exactly `len` bytes from 2 * len digits (either case); false otherwise. */
bool un_hex_decode(const char *hex, size_t hex_len, uint8_t *out, size_t len);

#endif
