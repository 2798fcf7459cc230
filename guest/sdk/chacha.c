/* chacha.c - ChaCha20 (RFC 8439) and a random generator made of it. Knows nothing of the machine.
 *
 * The generator is Bernstein's "fast-key-erasure random-number generator" (blog.cr.yp.to, 2017):
 * whoever reads its memory learns nothing of what it gave before.
 */
#include "sdk.h"

#include <string.h>

static uint32_t rotl(uint32_t v, int n)
{
    return v << n | v >> (32 - n);
}

static void quarter(uint32_t *x, int a, int b, int c, int d)
{
    x[a] += x[b];
    x[d] = rotl(x[d] ^ x[a], 16);
    x[c] += x[d];
    x[b] = rotl(x[b] ^ x[c], 12);
    x[a] += x[b];
    x[d] = rotl(x[d] ^ x[a], 8);
    x[c] += x[d];
    x[b] = rotl(x[b] ^ x[c], 7);
}

void sdk_chacha20_block(const uint32_t key[8], uint32_t counter, const uint32_t nonce[3],
                        uint8_t ret[64])
{
    uint32_t in[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}, x[16];
    memcpy(in + 4, key, 32);
    in[12] = counter;
    memcpy(in + 13, nonce, 12);
    memcpy(x, in, sizeof(x));
    for (int i = 0; i < 10; i++) {
        quarter(x, 0, 4, 8, 12);
        quarter(x, 1, 5, 9, 13);
        quarter(x, 2, 6, 10, 14);
        quarter(x, 3, 7, 11, 15);
        quarter(x, 0, 5, 10, 15);
        quarter(x, 1, 6, 11, 12);
        quarter(x, 2, 7, 8, 13);
        quarter(x, 3, 4, 9, 14);
    }
    for (int i = 0; i < 16; i++) {
        x[i] += in[i];
    }
    memcpy(ret, x, 64); /* x86 is little-endian, as the RFC's serialisation */
}

static void refill(struct sdk_drbg *g)
{
    static const uint32_t nonce[3];
    for (uint32_t i = 0; i < sizeof(g->buf) / 64; i++) {
        sdk_chacha20_block(g->key, i, nonce, g->buf + 64 * i);
    }
    memcpy(g->key, g->buf, sizeof(g->key));
    memset(g->buf, 0, sizeof(g->key));
    g->used = sizeof(g->key);
}

void sdk_drbg_seed(struct sdk_drbg *g, const uint8_t seed[64])
{
    /* Both halves count: the first keys a block, which is mixed with the second. */
    static const uint32_t nonce[3];
    uint8_t block[64];
    memcpy(g->key, seed, 32);
    sdk_chacha20_block(g->key, 0, nonce, block);
    for (int i = 0; i < 32; i++) {
        block[i] ^= seed[32 + i];
    }
    memcpy(g->key, block, 32);
    g->used = sizeof(g->buf);
}

void sdk_drbg_read(struct sdk_drbg *g, void *to, size_t n)
{
    uint8_t *p = to;
    while (n > 0) {
        if (g->used == sizeof(g->buf)) {
            refill(g);
        }
        size_t part = sizeof(g->buf) - g->used;
        part = n < part ? n : part;
        memcpy(p, g->buf + g->used, part);
        memset(g->buf + g->used, 0, part);
        g->used += (uint32_t)part;
        p += part;
        n -= part;
    }
}
