/* id.c - see id.h. */
#include "common/id.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/clock.h"

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

static void draw(uint8_t *p, size_t len)
{
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

/* Drawn ahead, so that small pieces cost no system call each. Each byte is given once, and erased. What
 * was drawn long ago is drawn anew: the kernel may have been reseeded, as when this machine was itself
 * restored from a snapshot. unid does not fork without exec. */
static struct {
    pthread_mutex_t lock;
    uint8_t bytes[1024];
    size_t left;
    uint64_t drawn_us;
} ahead = {.lock = PTHREAD_MUTEX_INITIALIZER};

void un_random(void *buf, size_t len)
{
    enum { AGE_MAX_US = 10000 };
    if (len > sizeof(ahead.bytes) / 8) {
        draw(buf, len);
        return;
    }
    uint64_t now = un_clock_mono_us();
    pthread_mutex_lock(&ahead.lock);
    if (ahead.left < len || now - ahead.drawn_us > AGE_MAX_US) {
        draw(ahead.bytes, sizeof(ahead.bytes));
        ahead.left = sizeof(ahead.bytes);
        ahead.drawn_us = now;
    }
    ahead.left -= len;
    memcpy(buf, ahead.bytes + ahead.left, len);
    explicit_bzero(ahead.bytes + ahead.left, len);
    pthread_mutex_unlock(&ahead.lock);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t last_ms;
static uint8_t last_tail[10];

/* Adds one to a big-endian number; false when it overflows. */
static bool increment(uint8_t number[10])
{
    for (int i = 9; i >= 0; i--) {
        if (++number[i] != 0) {
            return true;
        }
    }
    return false;
}

/* The next time and random part, above the last ones. */
static uint64_t next(uint8_t tail[10])
{
    uint64_t ms = un_clock_wall_us() / 1000;
    pthread_mutex_lock(&lock);
    if (ms > last_ms) {
        last_ms = ms;
        un_random(last_tail, sizeof(last_tail));
    } else if (!increment(last_tail)) {
        last_ms++;
    }
    ms = last_ms;
    memcpy(tail, last_tail, sizeof(last_tail));
    pthread_mutex_unlock(&lock);
    return ms;
}

static void put_time(char out[10], uint64_t ms)
{
    for (int i = 9; i >= 0; i--) {
        out[i] = alphabet[ms & 31];
        ms >>= 5;
    }
}

void un_id_least(uint64_t wall_us, char out[UN_ID_SIZE])
{
    put_time(out, wall_us / 1000);
    memset(out + 10, alphabet[0], UN_ID_LEN - 10);
    out[UN_ID_LEN] = '\0';
}

void un_id_new(char out[UN_ID_SIZE])
{
    uint8_t tail[10];
    put_time(out, next(tail));
    uint64_t bits = 0;
    unsigned have = 0;
    size_t at = 0;
    for (int i = 10; i < UN_ID_LEN; i++) {
        if (have < 5) {
            bits = bits << 8 | tail[at++];
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
