/* sdk.h - what the SDK's own files share. Not for programs.
 *
 * format.c, heap.c and chacha.c know nothing of the machine, so that they are also built and tested
 * on the host; the others sit on the channel of unid/abi.h.
 */
#ifndef UNID_SDK_H
#define UNID_SDK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "unid/abi.h"

/* --- channel.c -------------------------------------------------------------------------------- */

static inline const struct unid_boot *sdk_boot(void)
{
    return (const struct unid_boot *)UNID_BOOT_ADDR;
}
static inline struct unid_call *sdk_call_block(void)
{
    return (struct unid_call *)UNID_CALL_ADDR;
}

static inline void sdk_doorbell(const struct unid_boot *b)
{
    if (b->doorbell_kind == UNID_DOORBELL_MEMORY) {
        *(volatile uint32_t *)b->doorbell_addr = 1;
    } else {
        __asm__ volatile("outb %0, %1"
                         :
                         : "a"((uint8_t)1), "d"((uint16_t)b->doorbell_port)
                         : "memory");
    }
}

/* Makes a call and waits for its answer; the other fields are filled. Never returns for
 * UNID_OP_DONE. The library OS makes its calls so, too. */
static inline void sdk_call(uint32_t op)
{
    struct unid_call *c = sdk_call_block();
    uint32_t seq = c->seq + 1;
    c->op = op;
    __atomic_store_n(&c->seq, seq, __ATOMIC_RELEASE);
    sdk_doorbell(sdk_boot());
    while (op == UNID_OP_DONE || __atomic_load_n(&c->ack, __ATOMIC_ACQUIRE) != seq) {
        __asm__ volatile("pause");
    }
    c->log_len = 0;
}

/* Takes the request if that has not been done; true when this call did. */
bool sdk_take_request(void);

static inline uint64_t sdk_tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

/* Called once with the request: clock.c, random.c, request.c. */
void sdk_clock_begin(const struct unid_call *call);
void sdk_random_begin(struct unid_call *call);
void sdk_request_begin(const struct unid_call *call);

/* --- format.c --------------------------------------------------------------------------------- */

typedef void sdk_put_fn(void *arg, const char *s, size_t n);

/* printf's formatting (see stdio.h for what it knows); gives the number of characters put. An
 * unknown conversion is put as it stands. */
size_t sdk_format(sdk_put_fn *put, void *arg, const char *fmt, va_list ap);

/* --- heap.c ----------------------------------------------------------------------------------- */

enum { SDK_HEAP_BINS = 48 };

struct sdk_block;
struct sdk_heap {
    uint8_t *top, *end;                    /* [top, end) was never handed out, or came back whole */
    uint8_t *fresh;                        /* from here on memory was never touched: it is zero */
    struct sdk_block *last;                /* the block right below top, NULL when there is none */
    struct sdk_block *bins[SDK_HEAP_BINS]; /* free blocks by the power of two of their size */
};

/* `start` and `end` are 16-byte aligned; the memory between is zero. */
void sdk_heap_init(struct sdk_heap *h, void *start, void *end);
/* NULL when nothing fits. `ret_zero`, when given, says whether the memory is known to be zero. */
void *sdk_heap_alloc(struct sdk_heap *h, size_t n, bool *ret_zero);
void *sdk_heap_resize(struct sdk_heap *h, void *p, size_t n);
/* False when `p` is not an allocated block (freed twice, or overwritten). NULL is allowed. */
bool sdk_heap_free(struct sdk_heap *h, void *p);
size_t sdk_heap_room(const struct sdk_heap *h);

/* --- chacha.c --------------------------------------------------------------------------------- */

/* The ChaCha20 block function (RFC 8439, section 2.3). */
void sdk_chacha20_block(const uint32_t key[8], uint32_t counter, const uint32_t nonce[3],
                        uint8_t out[64]);

/* A generator with fast key erasure: each refill makes 16 blocks, of which the first half becomes
 * the next key; bytes handed out are wiped. */
struct sdk_drbg {
    uint32_t key[8];
    uint32_t used; /* of buf; sizeof(buf) when empty */
    uint8_t buf[512];
};
void sdk_drbg_seed(struct sdk_drbg *g, const uint8_t seed[64]);
void sdk_drbg_read(struct sdk_drbg *g, void *out, size_t n);

#endif
