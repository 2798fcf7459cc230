/* sha256.c - answers with the SHA-256 digest of the body in hexadecimal (FIPS 180-4, section 6.2).
 */
#include <stdint.h>
#include <string.h>
#include <unid/unid.h>

static const uint32_t k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

struct sha256 {
    uint32_t h[8];
    uint64_t bytes;
    size_t held; /* bytes in `block` */
    uint8_t block[64];
};

static inline uint32_t rotr(uint32_t v, int n)
{
    return v >> n | v << (32 - n);
}

static inline uint32_t big_endian(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}

/* One round; the caller rotates the names instead of the values. */
#define ROUND(a, b, c, d, e, f, g, h, i, w)                                                        \
    do {                                                                                           \
        uint32_t t =                                                                               \
            h + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + (g ^ (e & (f ^ g))) + k[i] + (w);       \
        d += t;                                                                                    \
        h = t + (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & b) | (c & (a | b)));              \
    } while (0)

/* The schedule's next word, in a ring of sixteen. */
#define NEXT(w, i)                                                                                 \
    ((w)[(i)&15] +=                                                                                \
     (rotr((w)[((i) + 14) & 15], 17) ^ rotr((w)[((i) + 14) & 15], 19) ^                            \
      (w)[((i) + 14) & 15] >> 10) +                                                                \
     (w)[((i) + 9) & 15] +                                                                         \
     (rotr((w)[((i) + 1) & 15], 7) ^ rotr((w)[((i) + 1) & 15], 18) ^ (w)[((i) + 1) & 15] >> 3))

#define EIGHT(i, W)                                                                                \
    do {                                                                                           \
        ROUND(a, b, c, d, e, f, g, h, i, W(i));                                                    \
        ROUND(h, a, b, c, d, e, f, g, i + 1, W(i + 1));                                            \
        ROUND(g, h, a, b, c, d, e, f, i + 2, W(i + 2));                                            \
        ROUND(f, g, h, a, b, c, d, e, i + 3, W(i + 3));                                            \
        ROUND(e, f, g, h, a, b, c, d, i + 4, W(i + 4));                                            \
        ROUND(d, e, f, g, h, a, b, c, i + 5, W(i + 5));                                            \
        ROUND(c, d, e, f, g, h, a, b, i + 6, W(i + 6));                                            \
        ROUND(b, c, d, e, f, g, h, a, i + 7, W(i + 7));                                            \
    } while (0)

#define LOADED(i)   (w[(i)&15] = big_endian(p + 4 * ((i)&15)))
#define EXPANDED(i) NEXT(w, i)

static void sha256_blocks(uint32_t *state, const uint8_t *p, size_t count)
{
    uint32_t w[16];
    for (; count > 0; count--, p += 64) {
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        EIGHT(0, LOADED);
        EIGHT(8, LOADED);
        for (int i = 16; i < 64; i += 16) {
            EIGHT(i, EXPANDED);
            EIGHT(i + 8, EXPANDED);
        }
        state[0] += a;
        state[1] += b;
        state[2] += c;
        state[3] += d;
        state[4] += e;
        state[5] += f;
        state[6] += g;
        state[7] += h;
    }
}

static void sha256_init(struct sha256 *s)
{
    *s = (struct sha256){.h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
                               0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

static void sha256_add(struct sha256 *s, const void *data, size_t n)
{
    const uint8_t *p = data;
    s->bytes += n;
    if (s->held > 0) {
        size_t part = 64 - s->held < n ? 64 - s->held : n;
        memcpy(s->block + s->held, p, part);
        s->held += part;
        p += part;
        n -= part;
        if (s->held < 64) {
            return;
        }
        sha256_blocks(s->h, s->block, 1);
    }
    sha256_blocks(s->h, p, n / 64);
    s->held = n % 64;
    if (s->held > 0) {
        memcpy(s->block, p + n - s->held, s->held);
    }
}

static void sha256_end(struct sha256 *s, uint8_t digest[32])
{
    uint64_t bits = __builtin_bswap64(s->bytes * 8);
    uint8_t pad[72] = {0x80};
    size_t zeros = (s->held < 56 ? 56 : 120) - s->held;
    memcpy(pad + zeros, &bits, 8);
    sha256_add(s, pad, zeros + 8);
    for (int i = 0; i < 8; i++) {
        uint32_t v = __builtin_bswap32(s->h[i]);
        memcpy(digest + 4 * i, &v, 4);
    }
}

int main(void)
{
    struct sha256 s;
    uint8_t digest[32];
    const void *data;
    sha256_init(&s);
    for (size_t n; (n = unid_chunk(&data)) > 0;) {
        sha256_add(&s, data, n);
    }
    sha256_end(&s, digest);
    unid_response_header("content-type", "text/plain");
    for (int i = 0; i < 32; i++) {
        unid_printf("%02x", digest[i]);
    }
    unid_puts("\n");
    return 0;
}
