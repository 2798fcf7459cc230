/* request.c - the connection on which the request of an `http` program arrives.
 *
 * What can be read from it: the head of an HTTP/1.1 message, as the host wrote it, and the body; in
 * chunks (RFC 9112, section 7.1) when its length is not known and the head says so. Then nothing
 * more comes, and no end either: a client that waits for its answer keeps its connection open, and
 * a server may take an end for a client that left. What is written is the response; to end the
 * connection ends the machine.
 */
#include "host.h"
#include "net/socket.h"

#define CHUNK_HEAD 10 /* eight digits, CR, LF */
#define STAGE_SIZE 64

static struct {
    const char *head;
    size_t head_len, head_at;
    bool chunked;
    bool ended;             /* nothing more comes from the host */
    int64_t remaining;      /* of the body when its length is known */
    char stage[STAGE_SIZE]; /* goes before what the host has: ends of chunks, what was peeked at */
    size_t stage_len, stage_at;
} in;

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static bool starts_with(const char *text, const char *end, const char *prefix)
{
    for (; *prefix; prefix++, text++) {
        if (text == end || lower(*text) != *prefix) {
            return false;
        }
    }
    return true;
}

/* Whether the head has "Transfer-Encoding: ... chunked". */
static bool says_chunked(const char *head, size_t len)
{
    const char *end = head + len;
    for (const char *line = head; line < end;) {
        const char *eol = line;
        while (eol < end && *eol != '\n') {
            eol++;
        }
        if (starts_with(line, eol, "transfer-encoding:")) {
            for (const char *p = line; p < eol; p++) {
                if (starts_with(p, eol, "chunked")) {
                    return true;
                }
            }
        }
        line = eol + 1;
    }
    return false;
}

struct socket *request_accept(const struct socket *listener)
{
    struct socket *s = socket_new(listener->family, SOCK_STREAM, PROTO_TCP);
    if (!s) {
        return NULL;
    }
    s->kind = &request_kind;
    s->local = address_loopback(&listener->local, listener->local.port);
    s->peer = address_loopback(&listener->local, EPHEMERAL_MAX);
    memset(&in, 0, sizeof(in));
    in.head = host_request_head(&in.head_len);
    in.remaining = host_content_length();
    in.chunked = in.remaining < 0 && says_chunked(in.head, in.head_len);
    in.ended = in.remaining == 0 || (in.remaining < 0 && !in.chunked);
    return s;
}

static bool has_input(void)
{
    return in.head_at < in.head_len || in.stage_at < in.stage_len || !in.ended;
}

/* Body bytes, as they travel on the connection. */
static int64_t read_body(char *to, size_t len)
{
    if (!in.chunked) {
        int64_t n = host_body_read(to, len, true);
        if (n <= 0) {
            in.ended = true;
        } else if (in.remaining >= 0) {
            in.remaining -= n < in.remaining ? n : in.remaining;
            in.ended = in.remaining == 0;
        }
        return n;
    }
    int64_t n = host_body_read(to + CHUNK_HEAD, len - CHUNK_HEAD - 2, true);
    if (n < 0) {
        return n;
    }
    for (int i = 0; i < CHUNK_HEAD - 2; i++) {
        to[i] = "0123456789abcdef"[n >> (4 * (CHUNK_HEAD - 3 - i)) & 15];
    }
    to[CHUNK_HEAD - 2] = '\r';
    to[CHUNK_HEAD - 1] = '\n';
    to[CHUNK_HEAD + n] = '\r';
    to[CHUNK_HEAD + n + 1] = '\n';
    in.ended = n == 0;
    return n + CHUNK_HEAD + 2;
}

static size_t take(char *to, size_t len, const char *from, size_t from_len, size_t *at, bool peek)
{
    size_t n = from_len - *at < len ? from_len - *at : len;
    memcpy(to, from + *at, n);
    *at += peek ? 0 : n;
    return n;
}

static int64_t request_recv(struct socket *s, void *to, size_t len, int flags, struct address *from)
{
    (void)from;
    bool peek = flags & MSG_PEEK;
    size_t done = 0;
    while (done < len) {
        if (s->shut_read) {
            break;
        }
        int64_t n;
        if (in.head_at < in.head_len) {
            n = (int64_t)take((char *)to + done, len - done, in.head, in.head_len, &in.head_at,
                              peek);
        } else if (in.stage_at < in.stage_len) {
            n = (int64_t)take((char *)to + done, len - done, in.stage, in.stage_len, &in.stage_at,
                              peek);
        } else if (in.ended) {
            if (done) {
                break;
            }
            int r = socket_wait(s, flags, socket_deadline(s->receive_ns));
            if (r < 0) {
                return r;
            }
            continue;
        } else if (done && !(flags & MSG_WAITALL) && !host_body_ready()) {
            break;
        } else if (peek || len - done < STAGE_SIZE) {
            n = read_body(in.stage, STAGE_SIZE);
            in.stage_at = 0;
            in.stage_len = n > 0 ? (size_t)n : 0;
            n = n > 0 ? 0 : n;
        } else {
            n = read_body((char *)to + done, len - done);
        }
        if (n < 0) {
            return done ? (int64_t)done : n;
        }
        done += (size_t)n;
        if (peek && done) {
            break;
        }
    }
    if (done < len && !in.ended && !peek) {
        readiness_changed(&s->ready); /* who took less than it asked for waits for an edge */
    }
    return (int64_t)done;
}

static int64_t request_send(struct socket *s, const void *from, size_t len, int flags,
                            const struct address *to)
{
    (void)s, (void)flags, (void)to;
    host_response_write(from, len);
    return (int64_t)len;
}

static uint32_t request_poll(struct socket *s)
{
    uint32_t mask = POLLOUT | POLLWRNORM;
    if (has_input() || s->shut_read) {
        mask |= POLLIN | POLLRDNORM;
    }
    return mask;
}

static size_t request_readable(struct socket *s)
{
    (void)s;
    return in.head_len - in.head_at + in.stage_len - in.stage_at + (in.ended ? 0 : 1);
}

static int request_shut(struct socket *s, bool reading, bool writing)
{
    if (writing) {
        host_done(0);
    }
    s->shut_read |= reading;
    readiness_changed(&s->ready);
    return 0;
}

static void request_close(struct socket *s)
{
    (void)s;
    host_done(0);
}

const struct socket_kind request_kind = {
    .recv = request_recv,
    .send = request_send,
    .poll = request_poll,
    .readable = request_readable,
    .shut = request_shut,
    .close = request_close,
};
