/* fuzz_http_head.c - bytes of a connection: a head, and what follows as a chunked body. What is
 * accepted must be unambiguous, and must be the same when it comes in other pieces. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/http/head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sum {
    size_t bytes;
    unsigned hash;
};

static void on_data(void *arg, const char *data, size_t len)
{
    struct sum *s = arg;
    s->bytes += len;
    for (size_t i = 0; i < len; i++) {
        s->hash = s->hash * 31 + (unsigned char)data[i];
    }
}

/* Feeds the body in pieces of `step` bytes. -1 malformed, 0 not whole, else the bytes taken. */
static long read_chunks(const char *data, size_t len, size_t step, struct sum *sum)
{
    struct http_chunks *c = http_chunks_new();
    const char *why;
    bool end = false;
    long total = 0;
    http_chunks_on_data(c, on_data, sum);
    while (len && !end) {
        size_t n = step < len ? step : len;
        long taken = http_chunks_feed(c, data, n, &end, &why);
        if (taken < 0 || (taken < (long)n && !end) || taken > (long)n) {
            total = taken < 0 ? -1 : (abort(), 0);
            break;
        }
        total += taken;
        data += taken;
        len -= (size_t)taken;
    }
    http_chunks_free(c);
    return total < 0 ? -1 : end ? total : 0;
}

static void check_request(const struct http_request *r)
{
    unsigned hosts = 0, lengths = 0, codings = 0;
    for (size_t i = 0; i < r->field_count; i++) {
        const struct http_field *f = &r->fields[i];
        if (!f->name[0] || strpbrk(f->name, " \t\r\n:") || strpbrk(f->value, "\r\n")) {
            abort();
        }
        hosts += strcasecmp(f->name, "host") == 0;
        lengths += strcasecmp(f->name, "content-length") == 0;
        codings += strcasecmp(f->name, "transfer-encoding") == 0;
    }
    if (hosts > 1 || lengths + codings > 1 || (r->minor && !hosts) ||
        r->chunked != (codings == 1) || (!lengths && !codings && r->content_length) ||
        strpbrk(r->target, " \r\n#")) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct http_scan_limits limits = {4096, 1024, LIMIT_HTTP_FIELDS};
    static struct http_request request;
    struct http_scan scan = {0};
    const char *why = NULL;
    int rc = http_scan_head(&scan, &limits, (const char *)data, size, &why);
    if (rc == 1) {
        char *head = malloc(scan.len + 1);
        memcpy(head, data, scan.len);
        head[scan.len] = '\0';
        rc = scan.len > 2 ? http_parse_head(head, scan.len, &request, &why) : 0;
        if (rc == 0 && scan.len > 2) {
            check_request(&request);
        }
        free(head);
        const char *body = (const char *)data + scan.len;
        struct sum whole = {0}, single = {0};
        if (read_chunks(body, size - scan.len, SIZE_MAX, &whole) !=
            read_chunks(body, size - scan.len, 1, &single)) {
            abort();
        }
    }
    if (rc < 0 && !why) {
        abort(); /* a refusal without a reason */
    }
    return 0;
}
