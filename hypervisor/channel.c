/* channel.c - the host's side of the guest channel (see channel.h; the contract is unid/abi.h).
 *
 *                 ring: NEXT, READ, WRITE          put_request, input, output_done
 *     (guest runs) -------------------> op != 0 ----------------------------------> (guest runs)
 *          |        ring: WAIT, NET_*                |             answer, net_ready
 *          |        ring: LOG, answered at once      |
 *          |  ring: DONE, broken contract            |  end
 *          +-----------------> finished <------------+
 *                                 |  no output is out any more -> exit_due, once
 *                                 v
 *                              on_exit (hv_channel_exit)
 *
 * Invariants: op != 0 only while the guest waits for an answer that somebody owes; output_out only
 * while the user holds bytes of the response window. After every callback `closed` is looked at,
 * for the user may have freed the VM in it.
 *
 * Shared memory is read once, by single loads, into `struct call`; log bytes are copied before they
 * are handed out. Response bytes are handed out in place: a hostile guest may change them until
 * they are sent, which changes nothing but its own answer. The response head is copied before it is
 * parsed, and so is the name of a connection.
 */
#include "hypervisor/channel.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/id.h"
#include "common/limits.h"

_Static_assert(UNID_RESPONSE_HEAD_MAX == LIMIT_RESPONSE_HEAD_BYTES, "abi.h and limits.h disagree");
_Static_assert(LIMIT_HTTP_HEAD_BYTES <= UNID_REQUEST_HEAD_MAX, "a legal request head must fit");

enum { LOG_CHUNK = 4096 }; /* log bytes copied and handed out at a time */
enum { HANDLES = 64 };     /* of connections; bits of net_readable */

/* The guest's fields of one call, read once. */
struct call {
    uint32_t seq, op, response_len, head_len, log_len, net_handle, net_len;
    int32_t status;
    uint64_t wait_ns;
};

static struct unid_call *call_block(const struct hv_channel *ch)
{
    return (struct unid_call *)(void *)(ch->base + (UNID_CALL_ADDR - UNID_BOOT_ADDR));
}

static uint8_t *window(const struct hv_channel *ch, uint64_t addr)
{
    return ch->base + (addr - UNID_BOOT_ADDR);
}

static struct call call_read(const struct hv_channel *ch)
{
    const struct unid_call *c = call_block(ch);
    struct call ret = {.seq = __atomic_load_n(&c->seq, __ATOMIC_ACQUIRE)};
    ret.op = __atomic_load_n(&c->op, __ATOMIC_RELAXED);
    ret.response_len = __atomic_load_n(&c->response_len, __ATOMIC_RELAXED);
    ret.head_len = __atomic_load_n(&c->head_len, __ATOMIC_RELAXED);
    ret.log_len = __atomic_load_n(&c->log_len, __ATOMIC_RELAXED);
    ret.status = __atomic_load_n(&c->status, __ATOMIC_RELAXED);
    ret.net_handle = __atomic_load_n(&c->net_handle, __ATOMIC_RELAXED);
    ret.net_len = __atomic_load_n(&c->net_len, __ATOMIC_RELAXED);
    ret.wait_ns = __atomic_load_n(&c->wait_ns, __ATOMIC_RELAXED);
    return ret;
}

/* Ends the wait of the guest: what was written before is visible to it once it sees `ack`. */
static void answer(struct hv_channel *ch)
{
    struct unid_call *c = call_block(ch);
    ch->op = 0;
    ch->told_readable = ch->net_readable;
    ch->told_writable = ch->net_writable;
    __atomic_store_n(&c->net_readable, ch->net_readable, __ATOMIC_RELAXED);
    __atomic_store_n(&c->net_writable, ch->net_writable, __ATOMIC_RELAXED);
    __atomic_store_n(&c->ack, ch->seq, __ATOMIC_RELEASE);
    if (ch->resume) {
        ch->resume(ch->driver_arg);
    }
}

/* Tells the driver, once, that on_exit can come: the guest has ended and no output is out. */
static void tell_exit(struct hv_channel *ch)
{
    if (ch->finished && !ch->output_out && !ch->exit_told && !ch->closed) {
        ch->exit_told = true;
        if (ch->exit_due) {
            ch->exit_due(ch->driver_arg);
        }
    }
}

static void finish(struct hv_channel *ch, const struct hv_exit *why)
{
    ch->finished = true;
    ch->op = 0;
    ch->why = *why;
    if (ch->ended) {
        ch->ended(ch->driver_arg, &ch->why);
    }
}

/* Ends a guest that broke the contract or used up a limit. Output that is out is not waited for. */
static void __attribute__((format(printf, 3, 4)))
fail(struct hv_channel *ch, enum hv_exit_kind kind, const char *fmt, ...)
{
    struct hv_exit why = {.kind = kind, .fault_vector = ~0u};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why.detail, sizeof(why.detail), fmt, ap);
    va_end(ap);
    finish(ch, &why);
    ch->output_out = false;
    tell_exit(ch);
}

/* Hands out the log window's bytes. The host zeroes the length, so that none is handed out twice.
 */
static void take_log(struct hv_channel *ch, uint32_t len)
{
    if (len == 0) {
        return;
    }
    __atomic_store_n(&call_block(ch)->log_len, 0, __ATOMIC_RELAXED);
    const uint8_t *from = window(ch, UNID_LOG_ADDR);
    char chunk[LOG_CHUNK];
    for (uint32_t at = 0; at < len && !ch->closed;) {
        size_t n = len - at < sizeof(chunk) ? len - at : sizeof(chunk);
        memcpy(chunk, from + at, n);
        ch->events->on_log(ch->arg, chunk, n);
        at += (uint32_t)n;
    }
}

/* Gives the response head to the user: the guest's, or the default. */
static int give_head(struct hv_channel *ch, uint32_t head_len)
{
    char text[UNID_RESPONSE_HEAD_MAX + 1];
    struct hv_field fields[LIMIT_HTTP_FIELDS];
    struct hv_head head = {.status = 200};
    struct un_error err = UN_ERROR_INIT;
    if (head_len > 0) {
        memcpy(text, window(ch, UNID_RESPONSE_ADDR), head_len);
        text[head_len] = '\0';
        if (hv_head_parse(text, head_len, fields, UN_ARRAY_SIZE(fields), &head, &err) < 0) {
            fail(ch, HV_EXIT_PROTOCOL, "response head: %.*s", 140, err.text);
            return -EPROTO;
        }
    }
    ch->head_sent = true;
    ch->events->on_head(ch->arg, &head);
    return 0;
}

/* Hands out the bytes of a WRITE or DONE. `last` is the end for DONE, else NULL. */
static void take_output(struct hv_channel *ch, const struct call *c, const struct hv_exit *last)
{
    uint32_t len = c->response_len - c->head_len;
    if (!ch->head_sent && (len > 0 || c->head_len > 0 || last) && give_head(ch, c->head_len) < 0) {
        return;
    }
    if (ch->closed) {
        return;
    }
    if (last) {
        finish(ch, last);
    }
    if (len > 0) {
        ch->output_out = true;
        ch->events->on_output(ch->arg, window(ch, UNID_RESPONSE_ADDR) + c->head_len, len,
                              last ? &ch->why : NULL);
    } else if (!last) {
        answer(ch);
    }
    tell_exit(ch);
}

static void take_read(struct hv_channel *ch)
{
    if (ch->request_eof) { /* asked once too often: harmless */
        struct unid_call *c = call_block(ch);
        __atomic_store_n(&c->request_len, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&c->flags, UNID_CALL_EOF, __ATOMIC_RELAXED);
        answer(ch);
        return;
    }
    ch->events->on_input_wanted(ch->arg, hv_body_room(ch->head_len));
}

static void take_next(struct hv_channel *ch)
{
    if (ch->request_put) {
        fail(ch, HV_EXIT_PROTOCOL, "asked for a second request");
    } else if (ch->next_wanted) {
        ch->next_wanted(ch->driver_arg);
    }
}

/* --- asks: time and connections --------------------------------------------------------------- */

static void answer_net(struct hv_channel *ch, int32_t result)
{
    __atomic_store_n(&call_block(ch)->net_result, result, __ATOMIC_RELAXED);
    answer(ch);
}

/* Whether more can be done than the guest was told. */
static bool net_news(const struct hv_channel *ch)
{
    return (ch->net_readable & ~ch->told_readable) || (ch->net_writable & ~ch->told_writable);
}

/* Fills what a call says of data; 0, or the error that answers it at once. */
static int32_t read_ask(struct hv_channel *ch, const struct call *c, struct hv_ask *ret)
{
    *ret = (struct hv_ask){.op = c->op, .len = c->net_len};
    switch (c->op) {
    case UNID_OP_WAIT:
        *ret = (struct hv_ask){.op = c->op, .wait_ns = c->wait_ns};
        return 0;
    case UNID_OP_NET_RESOLVE:
    case UNID_OP_NET_OPEN:
        if (c->net_len > LIMIT_NET_NAME_BYTES) {
            return -ENAMETOOLONG;
        }
        memcpy(ch->name, window(ch, UNID_NET_ADDR), c->net_len);
        ch->name[c->net_len] = '\0';
        ret->data = ch->name;
        return 0;
    case UNID_OP_NET_SEND:
        ret->data = window(ch, UNID_NET_ADDR);
        break;
    case UNID_OP_NET_RECV:
        ch->ask_len = c->net_len;
        break;
    default: /* SHUT, CLOSE */
        ret->len = 0;
        break;
    }
    ret->handle = c->net_handle;
    return c->net_handle < HANDLES ? 0 : -EBADF;
}

static void take_ask(struct hv_channel *ch, const struct call *c)
{
    struct hv_ask ask;
    int32_t rc = read_ask(ch, c, &ask);
    if (rc < 0) {
        answer_net(ch, rc);
    } else if (c->op == UNID_OP_WAIT && (c->wait_ns == 0 || net_news(ch))) {
        answer(ch);
    } else if (ch->events->on_ask) {
        ch->events->on_ask(ch->arg, &ask);
    } else if (ch->ask) {
        ch->ask(ch->driver_arg, &ask);
    } else {
        answer_net(ch, -ENOSYS);
    }
}

/* Why a call is not allowed, or NULL. */
static const char *call_error(const struct hv_channel *ch, const struct call *c)
{
    if (c->op < UNID_OP_NEXT || c->op > UNID_OP_NET_CLOSE) {
        return "unknown operation";
    }
    if (c->log_len > UNID_LOG_SIZE) {
        return "log length behind its window";
    }
    if (c->op == UNID_OP_NEXT || c->op == UNID_OP_LOG || c->op == UNID_OP_WAIT) {
        return NULL;
    }
    if (c->op >= UNID_OP_NET_RESOLVE) {
        return c->net_len > UNID_NET_SIZE ? "net length behind its window" : NULL;
    }
    if (!ch->request_put && c->op == UNID_OP_DONE && c->status != 0 && c->response_len == 0) {
        return NULL; /* a program that failed before there was anybody to answer */
    }
    if (!ch->request_put) {
        return "used the response or the body before it took the request";
    }
    if (c->op == UNID_OP_READ) {
        return NULL;
    }
    if (c->response_len > UNID_RESPONSE_SIZE) {
        return "response length behind its window";
    }
    if (c->head_len > c->response_len || c->head_len > UNID_RESPONSE_HEAD_MAX) {
        return "response head too long";
    }
    if (c->head_len > 0 && ch->head_sent) {
        return "a second response head";
    }
    return NULL;
}

static void dispatch(struct hv_channel *ch, const struct call *c)
{
    ch->op = c->op;
    switch (c->op) {
    case UNID_OP_NEXT:
        take_next(ch);
        break;
    case UNID_OP_READ:
        take_read(ch);
        break;
    case UNID_OP_WRITE:
        take_output(ch, c, NULL);
        break;
    case UNID_OP_DONE: {
        struct hv_exit why = {.kind = HV_EXIT_DONE, .status = c->status, .fault_vector = ~0u};
        if (ch->request_put) {
            take_output(ch, c, &why);
        } else {
            hv_channel_end(ch, &why);
        }
        break;
    }
    case UNID_OP_LOG:
        answer(ch);
        break;
    default:
        take_ask(ch, c);
        break;
    }
}

void hv_channel_init(struct hv_channel *ch, uint8_t *base, const struct hv_vm_events *events,
                     void *arg)
{
    *ch = (struct hv_channel){.base = base, .events = events, .arg = arg};
}

void hv_channel_adopt(struct hv_channel *ch)
{
    ch->seq = call_read(ch).seq;
    ch->op = UNID_OP_NEXT;
}

void hv_channel_done(struct hv_channel *ch)
{
    ch->closed = true;
    ch->base = NULL;
}

static uint64_t wall_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void put_fields(struct unid_call *c, const struct hv_run_spec *spec)
{
    uint64_t deadline_ns;
    if (__builtin_mul_overflow(spec->deadline_us, UINT64_C(1000), &deadline_ns)) {
        deadline_ns = UINT64_MAX;
    }
    c->flags = spec->body_eof ? UNID_CALL_EOF : 0;
    c->request_head_len = (uint32_t)spec->request_head_len;
    c->request_len = (uint32_t)spec->body_len;
    c->content_length =
        spec->content_length < 0 ? UNID_LENGTH_UNKNOWN : (uint64_t)spec->content_length;
    c->wall_ns = wall_ns();
    c->deadline_ns = deadline_ns;
    memset(c->invocation_id, 0, sizeof(c->invocation_id));
    if (spec->invocation_id) {
        memcpy(c->invocation_id, spec->invocation_id, strlen(spec->invocation_id));
    }
    un_random(c->entropy, sizeof(c->entropy));
}

int hv_channel_put_request(struct hv_channel *ch, const struct hv_run_spec *spec,
                           struct un_error *err)
{
    if (ch->request_put || ch->finished || ch->closed) {
        return un_error_set(err, -EALREADY, "the guest has its request already");
    }
    if (spec->request_head_len > UNID_REQUEST_HEAD_MAX) {
        return un_error_set(err, -E2BIG, "request head of %zu bytes; the guest takes %" PRIu64,
                            spec->request_head_len, (uint64_t)UNID_REQUEST_HEAD_MAX);
    }
    if (spec->body_len > hv_body_room(spec->request_head_len)) {
        return un_error_set(err, -E2BIG, "%zu body bytes; the guest takes %zu at first",
                            spec->body_len, hv_body_room(spec->request_head_len));
    }
    if (spec->invocation_id && strlen(spec->invocation_id) >= UNID_ID_SIZE) {
        return un_error_set(err, -EINVAL, "invocation id longer than %d bytes", UNID_ID_SIZE - 1);
    }
    uint8_t *request = window(ch, UNID_REQUEST_ADDR);
    if (spec->request_head_len > 0) {
        memcpy(request, spec->request_head, spec->request_head_len);
    }
    if (spec->body_len > 0) {
        memcpy(request + spec->request_head_len, spec->body, spec->body_len);
    }
    put_fields(call_block(ch), spec);
    ch->head_len = (uint32_t)spec->request_head_len;
    ch->request_put = true;
    ch->request_eof = spec->body_eof;
    if (ch->op == UNID_OP_NEXT) {
        answer(ch);
    }
    return 0;
}

void hv_channel_ring(struct hv_channel *ch)
{
    if (ch->closed || ch->finished) {
        return;
    }
    struct call c = call_read(ch);
    if (c.seq == ch->seq) {
        return;
    }
    if (ch->op != 0 || c.seq != ch->seq + 1) {
        fail(ch, HV_EXIT_PROTOCOL, "call %" PRIu32 " before call %" PRIu32 " was answered", c.seq,
             ch->seq);
        return;
    }
    if (ch->calls >= LIMIT_CALLS) {
        fail(ch, HV_EXIT_LIMIT, "%llu guest calls", (unsigned long long)LIMIT_CALLS);
        return;
    }
    ch->seq = c.seq;
    ch->calls++;
    const char *wrong = call_error(ch, &c);
    if (wrong) {
        fail(ch, HV_EXIT_PROTOCOL, "operation %" PRIu32 ": %s", c.op, wrong);
        return;
    }
    take_log(ch, c.log_len);
    if (!ch->closed) {
        dispatch(ch, &c);
    }
}

void hv_channel_input(struct hv_channel *ch, const void *data, size_t len, bool eof)
{
    if (ch->closed || ch->finished || ch->op != UNID_OP_READ) {
        return;
    }
    size_t room = hv_body_room(ch->head_len);
    size_t n = len < room ? len : room;
    if (n > 0) {
        memcpy(window(ch, UNID_REQUEST_ADDR) + ch->head_len, data, n);
    }
    ch->request_eof = eof;
    struct unid_call *c = call_block(ch);
    __atomic_store_n(&c->request_len, (uint32_t)n, __ATOMIC_RELAXED);
    __atomic_store_n(&c->flags, eof ? UNID_CALL_EOF : 0, __ATOMIC_RELAXED);
    answer(ch);
}

void hv_channel_output_done(struct hv_channel *ch)
{
    if (ch->closed || !ch->output_out) {
        return;
    }
    ch->output_out = false;
    if (ch->finished) {
        tell_exit(ch);
    } else {
        answer(ch);
    }
}

void hv_channel_answer(struct hv_channel *ch, const struct hv_answer *a)
{
    if (ch->closed || ch->finished || ch->op < UNID_OP_WAIT) {
        return;
    }
    if (ch->op == UNID_OP_WAIT) {
        answer(ch);
        return;
    }
    int32_t result = a->result;
    if (ch->op == UNID_OP_NET_RECV && result > 0) {
        uint32_t n = (uint32_t)result < ch->ask_len ? (uint32_t)result : ch->ask_len;
        memcpy(window(ch, UNID_NET_ADDR), a->data, n);
        result = (int32_t)n;
    }
    answer_net(ch, result);
}

void hv_channel_net_ready(struct hv_channel *ch, uint64_t readable, uint64_t writable)
{
    if (ch->closed || ch->finished) {
        return;
    }
    ch->net_readable = readable;
    ch->net_writable = writable;
    if (ch->op == UNID_OP_WAIT && net_news(ch)) {
        answer(ch);
    }
}

void hv_channel_report(const struct hv_channel *ch, struct unid_report *ret)
{
    *ret = (struct unid_report){0};
    if (!ch->base) {
        return;
    }
    memcpy(ret, window(ch, UNID_REPORT_ADDR), sizeof(*ret));
    ret->flags &= UNID_REPORT_RANDOM;
    if (ret->unsupported_count > UNID_REPORT_CALLS) {
        ret->unsupported_count = UNID_REPORT_CALLS;
    }
    for (uint32_t i = ret->unsupported_count; i < UNID_REPORT_CALLS; i++) {
        ret->unsupported[i].number = ret->unsupported[i].times = 0;
    }
}

void hv_channel_end(struct hv_channel *ch, const struct hv_exit *why)
{
    if (ch->closed || ch->finished) {
        return;
    }
    ch->finished = true;
    ch->op = 0;
    ch->why = *why;
    uint32_t len = __atomic_load_n(&call_block(ch)->log_len, __ATOMIC_RELAXED);
    take_log(ch, len <= UNID_LOG_SIZE ? len : 0);
    ch->output_out = false;
    tell_exit(ch);
}

void hv_channel_exit(struct hv_channel *ch)
{
    if (!ch->closed && ch->exit_told) {
        ch->exit_told = false;
        ch->finished = true;
        ch->closed = true;
        ch->events->on_exit(ch->arg, &ch->why);
    }
}

/* --- response head ---------------------------------------------------------------------------- */

/* RFC 9110, section 5.6.2. */
static bool is_token_char(unsigned char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c));
}

/* RFC 9110, section 5.5: visible characters, space, tab, and obs-text. */
static bool is_value_char(unsigned char c)
{
    return c == '\t' || (c >= 0x20 && c != 0x7f);
}

/* The fields that are the server's own. */
static bool is_reserved_name(const char *name)
{
    static const char *const reserved[] = {
        "connection",          "content-length",   "keep-alive", "proxy-authenticate",
        "proxy-authorization", "proxy-connection", "te",         "trailer",
        "transfer-encoding",   "upgrade",
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(reserved); i++) {
        if (strcasecmp(name, reserved[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Splits one line, NUL-terminated at line[len], into name and value in place. */
static int parse_field(char *line, size_t len, struct hv_field *ret, struct un_error *err)
{
    size_t colon = 0;
    while (colon < len && is_token_char((unsigned char)line[colon])) {
        colon++;
    }
    if (colon == 0 || colon == len || line[colon] != ':') {
        return un_error_set(err, -EINVAL, "a field name is not a token followed by a colon");
    }
    size_t from = colon + 1, to = len;
    for (size_t i = from; i < to; i++) {
        if (!is_value_char((unsigned char)line[i])) {
            return un_error_set(err, -EINVAL, "a control character in a field value");
        }
    }
    while (from < to && (line[from] == ' ' || line[from] == '\t')) {
        from++;
    }
    while (to > from && (line[to - 1] == ' ' || line[to - 1] == '\t')) {
        to--;
    }
    line[colon] = '\0';
    line[to] = '\0';
    *ret = (struct hv_field){.name = line, .value = line + from};
    return 0;
}

/* Finds the CRLF that ends the line at `from`, and puts a NUL there. Gives the line's length, -1 if
 * none. */
static ptrdiff_t cut_line(char *text, size_t len, size_t from)
{
    const char *cr = memmem(text + from, len - from, "\r\n", 2);
    if (!cr) {
        return -1;
    }
    ptrdiff_t n = cr - (text + from);
    text[from + (size_t)n] = '\0';
    return n;
}

int hv_head_parse(char *text, size_t len, struct hv_field *fields, size_t max_fields,
                  struct hv_head *ret, struct un_error *err)
{
    ptrdiff_t n = cut_line(text, len, 0);
    if (n != 3 || text[0] < '2' || text[0] > '5' || text[1] < '0' || text[1] > '9' ||
        text[2] < '0' || text[2] > '9') {
        return un_error_set(err, -EINVAL, "the first line is not a status from 200 to 599");
    }
    struct hv_head head = {.fields = fields};
    head.status = (unsigned)((text[0] - '0') * 100 + (text[1] - '0') * 10 + (text[2] - '0'));
    for (size_t at = 5; at < len; at += (size_t)n + 2) {
        n = cut_line(text, len, at);
        if (n < 0) {
            return un_error_set(err, -EINVAL, "a line does not end in CRLF");
        }
        struct hv_field field;
        int rc = parse_field(text + at, (size_t)n, &field, err);
        if (rc < 0) {
            return rc;
        }
        if (is_reserved_name(field.name)) {
            continue;
        }
        if (head.field_count == max_fields) {
            return un_error_set(err, -EINVAL, "more than %zu fields", max_fields);
        }
        fields[head.field_count++] = field;
    }
    *ret = head;
    return 0;
}
