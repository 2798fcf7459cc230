/* test_sdk.c - the parts of the guest SDK that know nothing of the machine, compiled for the host:
 * formatter, heap, ChaCha20 and its generator, string functions; and the digest of the sha256
 * example. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "guest/sdk/sdk.h"

/* --- format ----------------------------------------------------------------------------------- */

struct text {
    char s[512];
    size_t len;
};

static void put_text(void *arg, const char *s, size_t n)
{
    struct text *t = arg;
    assert_true(t->len + n < sizeof(t->s));
    memcpy(t->s + t->len, s, n);
    t->len += n;
}

static __attribute__((format(printf, 2, 3))) void format(struct text *t, const char *fmt, ...)
{
    va_list ap;
    memset(t, 0, sizeof(*t));
    va_start(ap, fmt);
    size_t count = sdk_format(put_text, t, fmt, ap);
    assert_int_equal(count, t->len);
    va_end(ap);
}

/* The SDK's text must be the C library's. */
#define SAME(...)                                                                                  \
    do {                                                                                           \
        struct text t_;                                                                            \
        char want_[512];                                                                           \
        format(&t_, __VA_ARGS__);                                                                  \
        snprintf(want_, sizeof(want_), __VA_ARGS__);                                               \
        assert_string_equal(t_.s, want_);                                                          \
    } while (0)

#pragma GCC diagnostic push
/* ' ' with %u, and the like: defined enough to compare. */
#pragma GCC diagnostic ignored "-Wformat"

static void numbers_are_formatted_as_by_the_c_library(void **state)
{
    static const long long values[] = {0,   1,       -1,      9,        10,        -10,
                                       255, INT_MAX, INT_MIN, LONG_MAX, LLONG_MIN, 123456789};
    for (size_t i = 0; i < UN_ARRAY_SIZE(values); i++) {
        long long v = values[i];
        SAME("%lld|%llu|%llx|%llX|%llo", v, v, v, v, v);
        SAME("%d|%u|%x|%X|%o|%i", (int)v, (int)v, (int)v, (int)v, (int)v, (int)v);
        SAME("%hd|%hhd|%hu|%hhu|%hhx", (short)v, (char)v, (unsigned short)v, (unsigned char)v,
             (unsigned char)v);
        SAME("%5lld|%-5lld|%05lld|%+lld|% lld|%+5lld", v, v, v, v, v, v);
        SAME("%#llx|%#llo|%#llX|%#018llx|%#20llx|%-#20llx|", v, v, v, v, v, v);
        SAME("%.0lld|%.3lld|%8.5lld|%-8.5lld|%08.5lld|%+.3lld", v, v, v, v, v, v);
        SAME("%zu|%zd|%jd|%td|%ld|%lu", (size_t)v, (size_t)v, (intmax_t)v, (ptrdiff_t)v, (long)v,
             (unsigned long)v);
    }
    SAME("%*d|%-*d|%.*d|%*.*d", 7, 42, 7, 42, 5, 42, 9, 4, 42);
    SAME("%*d|", -7, 42);
    SAME("%p", (void *)0x1234);
}

static void text_is_formatted_as_by_the_c_library(void **state)
{
    SAME("plain");
    SAME("%s|%10s|%-10s|%.2s|%10.2s|%-10.2s|", "abc", "abc", "abc", "abc", "abc", "abc");
    SAME("%c|%5c|%-5c|%%|", 'x', 'y', 'z');
    SAME("%.*s|%.*s", 0, "abc", 2, "abc");
    char unterminated[3] = {'a', 'b', 'c'};
    SAME("%.3s", unterminated);
    SAME("%100s|%0100d", "wide", 7);
}

static void unknown_conversions_are_left_as_they_stand(void **state)
{
    struct text t;
    format(&t, "a%fb%");
    assert_string_equal(t.s, "a%fb%");
    char *volatile null = NULL;
    format(&t, "%s", null);
    assert_string_equal(t.s, "(null)");
}

#pragma GCC diagnostic pop

/* --- heap ------------------------------------------------------------------------------------- */

enum { HEAP_SIZE = 1 << 20 };

static uint8_t heap_memory[HEAP_SIZE] __attribute__((aligned(4096)));

static void heap_start(struct sdk_heap *h)
{
    memset(heap_memory, 0, sizeof(heap_memory));
    sdk_heap_init(h, heap_memory, heap_memory + HEAP_SIZE);
}

static void blocks_are_aligned_and_do_not_overlap(void **state)
{
    enum { COUNT = 200, STEPS = 60000 };
    struct sdk_heap h;
    struct {
        uint8_t *p;
        size_t n;
        uint8_t fill;
    } live[COUNT] = {{0}};
    heap_start(&h);
    uint32_t x = 12345;
    for (int step = 0; step < STEPS; step++) {
        x = x * 1664525u + 1013904223u;
        size_t i = (x >> 8) % COUNT, n = (x >> 16) % (step % 16 == 0 ? 9000 : 300);
        for (size_t k = 0; k < live[i].n; k++) {
            assert_int_equal(live[i].p[k], live[i].fill);
        }
        if (x >> 31 && live[i].p) {
            uint8_t *p = sdk_heap_resize(&h, live[i].p, n);
            assert_non_null(p);
            for (size_t k = 0; k < n && k < live[i].n; k++) {
                assert_int_equal(p[k], live[i].fill);
            }
            live[i].p = p;
        } else {
            assert_true(sdk_heap_free(&h, live[i].p));
            live[i].p = sdk_heap_alloc(&h, n, NULL);
            assert_non_null(live[i].p);
        }
        assert_int_equal((uintptr_t)live[i].p % 16, 0);
        assert_true(live[i].p >= heap_memory && live[i].p + n <= heap_memory + HEAP_SIZE);
        live[i].n = n;
        live[i].fill = (uint8_t)step;
        memset(live[i].p, live[i].fill, n);
    }
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(sdk_heap_free(&h, live[i].p));
    }
    /* Everything was joined again. */
    assert_ptr_equal(h.top, heap_memory);
    assert_non_null(sdk_heap_alloc(&h, HEAP_SIZE - 64, NULL));
}

static void what_does_not_fit_is_refused(void **state)
{
    struct sdk_heap h;
    heap_start(&h);
    assert_null(sdk_heap_alloc(&h, HEAP_SIZE, NULL));
    assert_null(sdk_heap_alloc(&h, SIZE_MAX, NULL));
    assert_null(sdk_heap_alloc(&h, SIZE_MAX - 15, NULL));
    assert_null(sdk_heap_alloc(&h, SIZE_MAX / 2, NULL));
    void *p = sdk_heap_alloc(&h, sdk_heap_room(&h), NULL);
    assert_non_null(p);
    assert_null(sdk_heap_alloc(&h, 1, NULL));
    assert_null(sdk_heap_resize(&h, p, HEAP_SIZE));
    assert_null(sdk_heap_resize(&h, p, SIZE_MAX));
    assert_true(sdk_heap_free(&h, p));
    int count = 0;
    while (sdk_heap_alloc(&h, 1, NULL)) {
        count++;
    }
    assert_int_equal(count, HEAP_SIZE / 32);
}

static void fresh_memory_is_known_to_be_zero_and_used_memory_is_not(void **state)
{
    struct sdk_heap h;
    bool zero = false;
    heap_start(&h);
    uint8_t *a = sdk_heap_alloc(&h, 100, &zero);
    assert_true(zero);
    memset(a, 0xff, 100);
    sdk_heap_free(&h, a);
    assert_ptr_equal(sdk_heap_alloc(&h, 100, &zero), a);
    assert_false(zero);
    sdk_heap_alloc(&h, 100, &zero);
    assert_true(zero);
}

static void memory_that_was_not_asked_for_is_not_touched(void **state)
{
    struct sdk_heap h;
    heap_start(&h);
    assert_non_null(sdk_heap_alloc(&h, HEAP_SIZE / 2, NULL));
    for (size_t i = 64; i < HEAP_SIZE; i++) {
        assert_int_equal(heap_memory[i], 0);
    }
}

static void wrong_pointers_are_found_by_free(void **state)
{
    struct sdk_heap h;
    heap_start(&h);
    uint8_t *a = sdk_heap_alloc(&h, 64, NULL), *b = sdk_heap_alloc(&h, 64, NULL);
    uint8_t *c = sdk_heap_alloc(&h, 64, NULL);
    assert_true(sdk_heap_free(&h, NULL));
    assert_false(sdk_heap_free(&h, a + 8));
    assert_false(sdk_heap_free(&h, a + 32));
    assert_true(sdk_heap_free(&h, a));
    assert_false(sdk_heap_free(&h, a));
    assert_true(sdk_heap_free(&h, b)); /* joined to a */
    assert_false(sdk_heap_free(&h, b));
    assert_true(sdk_heap_free(&h, c)); /* back into top */
    assert_false(sdk_heap_free(&h, c));
}

/* --- chance ----------------------------------------------------------------------------------- */

static void chacha20_gives_the_block_of_rfc_8439(void **state)
{
    /* RFC 8439, section 2.3.2. */
    uint8_t key_bytes[32], out[64], want[64];
    static const uint8_t nonce_bytes[12] = {0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0};
    uint32_t key[8], nonce[3];
    for (int i = 0; i < 32; i++) {
        key_bytes[i] = (uint8_t)i;
    }
    memcpy(key, key_bytes, sizeof(key));
    memcpy(nonce, nonce_bytes, sizeof(nonce));
    sdk_chacha20_block(key, 1, nonce, out);
    static const char hex[] = "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
                              "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e";
    assert_true(un_hex_decode(hex, sizeof(hex) - 1, want, sizeof(want)));
    assert_memory_equal(out, want, sizeof(want));
}

static void the_generator_depends_on_every_byte_of_its_seed(void **state)
{
    uint8_t seed[64] = {0}, first[32], other[32];
    struct sdk_drbg g;
    sdk_drbg_seed(&g, seed);
    sdk_drbg_read(&g, first, sizeof(first));
    for (size_t i = 0; i < sizeof(seed); i++) {
        seed[i] = 1;
        sdk_drbg_seed(&g, seed);
        sdk_drbg_read(&g, other, sizeof(other));
        assert_memory_not_equal(first, other, sizeof(first));
        seed[i] = 0;
    }
}

static void the_generator_gives_one_stream_however_it_is_cut_and_wipes_it(void **state)
{
    uint8_t seed[64] = {7}, whole[3000], pieces[3000];
    struct sdk_drbg g;
    sdk_drbg_seed(&g, seed);
    sdk_drbg_read(&g, whole, sizeof(whole));
    sdk_drbg_seed(&g, seed);
    for (size_t at = 0, n = 1; at < sizeof(pieces); at += n, n = n * 2 + 1) {
        n = n < sizeof(pieces) - at ? n : sizeof(pieces) - at;
        sdk_drbg_read(&g, pieces + at, n);
    }
    assert_memory_equal(whole, pieces, sizeof(whole));
    for (uint32_t i = 0; i < g.used; i++) {
        assert_int_equal(g.buf[i], 0);
    }
}

/* --- strings ---------------------------------------------------------------------------------- */

void *sdk_memcpy(void *to, const void *from, size_t n);
void *sdk_memmove(void *to, const void *from, size_t n);
void *sdk_memset(void *to, int c, size_t n);
int sdk_memcmp(const void *a, const void *b, size_t n);
void *sdk_memchr(const void *s, int c, size_t n);
int sdk_strcmp(const char *a, const char *b);
int sdk_strncmp(const char *a, const char *b, size_t n);
int sdk_strcasecmp(const char *a, const char *b);
char *sdk_strchr(const char *s, int c);
char *sdk_strrchr(const char *s, int c);
char *sdk_strstr(const char *s, const char *want);
size_t sdk_strspn(const char *s, const char *set);
size_t sdk_strcspn(const char *s, const char *set);
char *sdk_strncpy(char *to, const char *from, size_t n);
char *sdk_strcat(char *to, const char *from);

static void memory_functions_do_as_the_c_library_at_every_length(void **state)
{
    uint8_t a[320], b[320], c[320];
    for (size_t n = 0; n <= 140; n++) {
        for (size_t shift = 0; shift < 40; shift++) {
            for (size_t i = 0; i < sizeof(a); i++) {
                a[i] = b[i] = (uint8_t)(i * 7 + n);
            }
            memmove(a + 60 + shift, a + 80, n);
            sdk_memmove(b + 60 + shift, b + 80, n);
            assert_memory_equal(a, b, sizeof(a));
            memset(c, 0, sizeof(c));
            assert_ptr_equal(sdk_memcpy(c + shift, a + 20, n), c + shift);
            assert_memory_equal(c + shift, a + 20, n);
            assert_int_equal(c[shift + n], 0);
        }
        sdk_memset(b + 3, 0xab, n);
        memset(a + 3, 0xab, n);
        assert_memory_equal(a, b, sizeof(a));
        b[3 + n] = 0x11;
        assert_ptr_equal(sdk_memchr(b + 3, 0x11, n), NULL);
        assert_ptr_equal(sdk_memchr(b + 3, 0x11, n + 1), b + 3 + n);
        memcpy(c, b, sizeof(c));
        assert_int_equal(sdk_memcmp(b + 3, c + 3, n + 1), 0);
        c[3 + n] = 0xf0;
        assert_true(sdk_memcmp(b + 3, c + 3, n + 1) < 0);
        assert_int_equal(sdk_memcmp(b + 3, c + 3, n), 0);
    }
}

static int sign(int v)
{
    return (v > 0) - (v < 0);
}

static void string_functions_do_as_the_c_library(void **state)
{
    static const char *const words[] = {"",    "a",    "A",   "ab", "abc",
                                        "abd", "\xff", "aab", "b",  "abcabd"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(words); i++) {
        for (size_t j = 0; j < UN_ARRAY_SIZE(words); j++) {
            const char *a = words[i], *b = words[j];
            assert_int_equal(sign(sdk_strcmp(a, b)), sign(strcmp(a, b)));
            assert_int_equal(sign(sdk_strcasecmp(a, b)), sign(strcasecmp(a, b)));
            assert_int_equal(sign(sdk_strncmp(a, b, 2)), sign(strncmp(a, b, 2)));
            assert_ptr_equal(sdk_strstr(a, b), strstr(a, b));
            assert_ptr_equal(sdk_strchr(a, b[0]), strchr(a, b[0]));
            assert_ptr_equal(sdk_strrchr(a, b[0]), strrchr(a, b[0]));
            assert_int_equal(sdk_strspn(a, b), strspn(a, b));
            assert_int_equal(sdk_strcspn(a, b), strcspn(a, b));
        }
    }
    char buf[8] = "xxxxxxx";
    sdk_strncpy(buf, "ab", 4);
    assert_memory_equal(buf, "ab\0\0xxx", 8);
    assert_string_equal(sdk_strcat(buf, "cd"), "abcd");
}

/* --- sha256 ----------------------------------------------------------------------------------- */

static const char *sha_input;
static size_t sha_len, sha_piece;
static struct text sha_text;

/* What the example calls; from unid.h. */
#define main sha256_main
#include "guest/examples/sha256.c"
#undef main

size_t unid_chunk(const void **ret)
{
    size_t n = sha_len < sha_piece ? sha_len : sha_piece;
    *ret = sha_input;
    sha_input += n;
    sha_len -= n;
    return n;
}

int unid_response_header(const char *name, const char *value)
{
    return 0;
}

void unid_printf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    sdk_format(put_text, &sha_text, fmt, ap);
    va_end(ap);
}

void unid_puts(const char *s)
{
    put_text(&sha_text, s, strlen(s));
}

static void sha256_is_that_of_fips_180_4_however_the_body_is_cut(void **state)
{
    /* NIST, "Examples with Intermediate Values", SHA256, two-block message. */
    static const char text[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    static const char want[] = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1\n";
    for (size_t piece = 1; piece <= sizeof(text); piece++) {
        sha_input = text;
        sha_len = sizeof(text) - 1;
        sha_piece = piece;
        memset(&sha_text, 0, sizeof(sha_text));
        assert_int_equal(sha256_main(), 0);
        assert_string_equal(sha_text.s, want);
    }
}

static void sha256_pads_every_length_alike(void **state)
{
    /* The digest of a message does not depend on how it was cut, at every length around a block. */
    static char text[200];
    memset(text, 'q', sizeof(text));
    for (size_t len = 0; len < sizeof(text); len++) {
        struct text whole;
        for (size_t piece = 1; piece < 140; piece += 67) {
            sha_input = text;
            sha_len = len;
            sha_piece = piece == 1 ? sizeof(text) : piece;
            memset(&sha_text, 0, sizeof(sha_text));
            sha256_main();
            if (piece == 1) {
                whole = sha_text;
            }
            assert_string_equal(sha_text.s, whole.s);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_formatted_as_by_the_c_library),
        cmocka_unit_test(text_is_formatted_as_by_the_c_library),
        cmocka_unit_test(unknown_conversions_are_left_as_they_stand),
        cmocka_unit_test(blocks_are_aligned_and_do_not_overlap),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(fresh_memory_is_known_to_be_zero_and_used_memory_is_not),
        cmocka_unit_test(memory_that_was_not_asked_for_is_not_touched),
        cmocka_unit_test(wrong_pointers_are_found_by_free),
        cmocka_unit_test(chacha20_gives_the_block_of_rfc_8439),
        cmocka_unit_test(the_generator_depends_on_every_byte_of_its_seed),
        cmocka_unit_test(the_generator_gives_one_stream_however_it_is_cut_and_wipes_it),
        cmocka_unit_test(memory_functions_do_as_the_c_library_at_every_length),
        cmocka_unit_test(string_functions_do_as_the_c_library),
        cmocka_unit_test(sha256_is_that_of_fips_180_4_however_the_body_is_cut),
        cmocka_unit_test(sha256_pads_every_length_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
