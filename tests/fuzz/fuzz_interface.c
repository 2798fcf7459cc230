/* fuzz_interface.c - a program that answers anything: what is read of it must not depend on the pieces
 * in which it comes, and must hold nothing that could split an answer.
 *
 * The first byte chooses: bit 0 cgi or http, bit 1 the answer to HEAD. Without bit 2 the rest is the
 * program's output; with it, the rest is a request head for both renderers. */
#include <stdlib.h>
#include <string.h>

#include "scheduler/interface/interface.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

struct sum {
    int rc;
    bool complete;
    unsigned status;
    size_t bytes;
    unsigned hash;
};

static void add(struct sum *s, const void *data, size_t len)
{
    const unsigned char *p = data;

    s->bytes += len;
    for (size_t i = 0; i < len; i++) {
        s->hash = s->hash * 31 + p[i];
    }
}

static void check_head(const struct hv_head *head, struct sum *s)
{
    must(head->status >= 200 && head->status <= 599);
    s->status = head->status;
    for (size_t i = 0; i < head->field_count; i++) {
        must(head->fields[i].name[0] && !strpbrk(head->fields[i].name, "\r\n: \t"));
        must(!strpbrk(head->fields[i].value, "\r\n"));
        add(s, head->fields[i].name, strlen(head->fields[i].name));
        add(s, head->fields[i].value, strlen(head->fields[i].value));
    }
}

static struct sum read_answer(enum function_interface interface, bool head_only,
                              const uint8_t *data, size_t size, size_t step)
{
    struct sum s = {0};
    struct un_error err = UN_ERROR_INIT;
    struct interface_reader *r = NULL;
    struct interface_piece piece = {0};

    must(interface_reader_new(interface, head_only, &r, &err) == 0);
    for (size_t at = 0, n; s.rc == 0 && at < size && !piece.complete; at += n) {
        uint8_t *copy;

        n = size - at < step ? size - at : step;
        copy = malloc(n);
        must(copy != NULL);
        memcpy(copy, data + at, n);
        s.rc = interface_feed(r, copy, n, &piece, &err);
        if (s.rc == 0) {
            must(piece.len == 0 || interface_head(r));
            must(!head_only || piece.len == 0);
            add(&s, piece.data, piece.len);
        }
        free(copy);
    }
    if (s.rc == 0 && !piece.complete) {
        s.rc = interface_finish(r, &piece, &err);
        must((s.rc == 0) == piece.complete);
    }
    must(s.rc == 0 || err.text[0]);
    s.complete = piece.complete;
    if (s.complete) {
        check_head(interface_head(r), &s);
    }
    interface_reader_free(r);
    return s;
}

static void render(enum function_interface interface, const uint8_t *data, size_t size)
{
    struct function_config config = {.interface = interface};
    const struct interface_request request = {.function = "f",
                                              .id = "i",
                                              .head = (const char *)data,
                                              .head_len = size,
                                              .content_length = (int64_t)size % 3 - 1,
                                              .config = &config};
    struct un_error err = UN_ERROR_INIT;
    un_autobuf struct un_buf out = {0};
    int rc = interface_render(&request, &out, &err);

    must(rc == 0 || err.text[0]);
    if (rc == 0 && interface == FUNCTION_HTTP) {
        must(out.len > 4 && memcmp(out.data + out.len - 4, "\r\n\r\n", 4) == 0);
    }
    if (rc == 0 && interface == FUNCTION_CGI) {
        must(out.data[out.len - 1] == '\0');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum function_interface interface;
    bool head_only;
    struct sum whole, parts;

    if (size == 0) {
        return 0;
    }
    interface = data[0] & 1 ? FUNCTION_HTTP : FUNCTION_CGI;
    head_only = (data[0] & 2) != 0;
    if (data[0] & 4) {
        render(interface, data + 1, size - 1);
        return 0;
    }
    whole = read_answer(interface, head_only, data + 1, size - 1, SIZE_MAX);
    for (size_t step = 1; step < 8; step += 3) {
        parts = read_answer(interface, head_only, data + 1, size - 1, step);
        must(whole.complete == parts.complete);
        must(!whole.complete || (whole.status == parts.status && whole.hash == parts.hash &&
                                 whole.bytes == parts.bytes));
    }
    return 0;
}
