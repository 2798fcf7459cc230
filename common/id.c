/* id.c - see id.h. */
#include "common/id.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/clock.h"

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

void un_random(void *buf, size_t len)
{
    uint8_t *p = buf;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            abort();
        }
        p += n;
        len -= (size_t)n;
    }
}

/* Ten random bytes from a buffer of the thread's own, so that an identifier seldom costs a system
 * call. */
static void random_tail(uint8_t out[10])
{
    static _Thread_local uint8_t pool[320];
    static _Thread_local size_t left;
    if (left < 10) {
        un_random(pool, sizeof pool);
        left = sizeof pool;
    }
    left -= 10;
    memcpy(out, pool + left, 10);
    memset(pool + left, 0, 10);
}

void un_id_new(char out[UN_ID_SIZE])
{
    uint64_t ms = un_clock_wall_us() / 1000;
    uint8_t tail[10];
    random_tail(tail);
    for (int i = 9; i >= 0; i--) {
        out[i] = alphabet[ms & 31];
        ms >>= 5;
    }
    uint64_t bits = 0;
    unsigned have = 0;
    size_t next = 0;
    for (int i = 10; i < UN_ID_LEN; i++) {
        if (have < 5) {
            bits = bits << 8 | tail[next++];
            have += 8;
        }
        have -= 5;
        out[i] = alphabet[bits >> have & 31];
    }
    out[UN_ID_LEN] = '\0';
}

bool un_id_valid(const char *s)
{
    return strlen(s) == UN_ID_LEN && strspn(s, alphabet) == UN_ID_LEN && s[0] <= '7';
}
