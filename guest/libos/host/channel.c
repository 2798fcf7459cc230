/* channel.c - the guest's end of the call channel: request, response, log (unid/abi.h). */
#include "host/channel.h"

#include "guest/sdk/sdk.h"
#include "host.h"
#include "mm.h"
#include "task.h"

#define RESPONSE_WINDOW ((char *)UNID_RESPONSE_ADDR)
#define LOG_WINDOW      ((char *)UNID_LOG_ADDR)

static bool has_request, body_ended;

/* Before the request: what the program used (host.h), how often it has come to its end, and what it had
 * written the first time. */
#define EARLY_RUNS     6
#define OTHER_CLOCK_NS 900000000123456789ull /* 28 years from run to run */
static struct {
    bool random, clock;
    unsigned runs;
    uint64_t output;
} early;

static uint32_t body_used, body_len; /* bytes of the window's body that were read; that there are */

static struct unid_report *report(void)
{
    return (struct unid_report *)UNID_REPORT_ADDR;
}

void host_fill(uint64_t piece)
{
    const struct unid_boot *b = boot_page();
    if (b->flags & UNID_BOOT_FILL) {
        *(volatile uint64_t *)(b->doorbell_addr + UNID_FILL_OFFSET) = piece;
    }
}

void host_call(uint32_t op)
{
    uint64_t from = clock_monotonic_ns();
    sdk_call(op);
    if (op != UNID_OP_NEXT) { /* behind it the clock goes on where it stood, and may be another */
        clock_note_away(clock_monotonic_ns() - from);
    }
}

void host_init(void)
{
    const struct unid_boot *b = boot_page();
    if (b->magic != UNID_ABI_MAGIC || b->major != UNID_ABI_MAJOR || b->minor < 1) {
        __builtin_trap();
    }
    random_seed(call_page()->entropy);
}

uint32_t host_interface(void)
{
    return boot_page()->interface;
}

bool host_asks_first(void)
{
    return boot_page()->flags & UNID_BOOT_ASK_FIRST;
}

/* What a NEXT or READ brought. */
static void take_body(void)
{
    const struct unid_call *c = call_page();
    body_used = 0;
    body_len = c->request_len;
    body_ended = c->flags & UNID_CALL_EOF;
}

void host_next(void)
{
    if (has_request) {
        return;
    }
    has_request = true;
    uint64_t monotonic = clock_monotonic_ns();
    frames_mark();
    if (!(boot_page()->flags & UNID_BOOT_REQUEST_READY)) {
        fpu_keep();
        host_call(UNID_OP_NEXT);
        fpu_bring_back();
    }
    const struct unid_call *c = call_page();
    clock_resume(monotonic, c->wall_ns);
    random_seed(c->entropy);
    take_body();
}

bool host_has_request(void)
{
    return has_request;
}

const char *host_request_head(size_t *ret_len)
{
    *ret_len = has_request ? call_page()->request_head_len : 0;
    return (const char *)UNID_REQUEST_ADDR;
}

int64_t host_content_length(void)
{
    uint64_t len = call_page()->content_length;
    return len == UNID_LENGTH_UNKNOWN ? -1 : (int64_t)len;
}

bool host_body_ready(void)
{
    return has_request && (body_used < body_len || body_ended);
}

int64_t host_body_read(void *to, size_t len, bool block)
{
    if (!host_body_ready() && !block) {
        return -EAGAIN;
    }
    host_next();
    while (body_used == body_len && !body_ended) {
        host_call(UNID_OP_READ);
        take_body();
    }
    size_t part = body_len - body_used;
    part = len < part ? len : part;
    memcpy(to, (const char *)UNID_REQUEST_ADDR + call_page()->request_head_len + body_used, part);
    body_used += (uint32_t)part;
    return (int64_t)part;
}

void host_response_write(const void *data, size_t len)
{
    struct unid_call *c = call_page();
    while (len > 0) {
        size_t part = UNID_RESPONSE_SIZE - c->response_len;
        part = len < part ? len : part;
        memcpy(RESPONSE_WINDOW + c->response_len, data, part);
        c->response_len += (uint32_t)part;
        data = (const char *)data + part;
        len -= part;
        if (c->response_len == UNID_RESPONSE_SIZE) {
            host_response_flush();
        }
    }
}

void host_note_random(void)
{
    if (!has_request) {
        early.random = true;
        report()->flags |= UNID_REPORT_RANDOM;
    }
}

void host_note_clock(void)
{
    early.clock |= !has_request;
}

static _Noreturn void run_again(void)
{
    call_page()->response_len = 0;
    exec_again();
}

/* FNV-1a of what stands in the response window. */
static uint64_t output_hash(void)
{
    uint64_t h = 14695981039346656037ull;
    for (uint32_t i = 0; i < call_page()->response_len; i++) {
        h = (h ^ (uint8_t)RESPONSE_WINDOW[i]) * 1099511628211ull;
    }
    return h;
}

/* What the program wrote is to go out, or to be `all` that it wrote with success. See host.h. */
static void request_for_output(bool all)
{
    if (has_request) {
        return;
    }
    bool again = early.random || (early.clock && !all);
    if (host_interface() == UNID_INTERFACE_FILTER && early.clock && !again) {
        uint64_t output = output_hash();
        if (early.runs == 0) {
            early.output = output;
        }
        again = output != early.output;
        if (!again && ++early.runs < EARLY_RUNS) {
            clock_resume(clock_monotonic_ns(), early.runs * OTHER_CLOCK_NS);
            run_again();
        }
    }
    host_next();
    if (again && host_interface() == UNID_INTERFACE_FILTER) {
        run_again();
    }
}

void host_response_flush(void)
{
    struct unid_call *c = call_page();
    if (c->response_len > 0) {
        request_for_output(false);
        host_call(UNID_OP_WRITE);
        c->response_len = 0;
    }
}

void host_log_write(const void *data, size_t len)
{
    struct unid_call *c = call_page();
    while (len > 0) {
        if (c->log_len == UNID_LOG_SIZE) {
            host_call(UNID_OP_LOG);
        }
        size_t part = UNID_LOG_SIZE - c->log_len;
        part = len < part ? len : part;
        memcpy(LOG_WINDOW + c->log_len, data, part);
        c->log_len += (uint32_t)part;
        data = (const char *)data + part;
        len -= part;
    }
}

void host_done(int status)
{
    if (status == 0 && !has_request && host_interface() == UNID_INTERFACE_HTTP) {
        klog("the program ended with status 0 without waiting for a connection: with interface "
             "http it "
             "must be a server that stays in the foreground");
        status = 1;
    }
    if (status == 0) {
        request_for_output(true);
    } else if (early.runs > 0 && !has_request) {
        host_next(); /* it fails, but not under every clock */
        run_again();
    } else if (!has_request) {
        call_page()->response_len = 0; /* a failure before the request: there is nobody to answer */
    }
    call_page()->status = status;
    host_call(UNID_OP_DONE);
    __builtin_unreachable();
}

void host_wait(uint64_t ns)
{
    if (has_request) { /* else nobody is there who could be kept waiting */
        host_response_flush();
    }
    call_page()->wait_ns = ns;
    host_call(UNID_OP_WAIT);
}

void host_report_call(uint64_t number)
{
    report()->calls++;
    if (number < UNID_REPORT_NUMBERS) {
        report()->made[number]++;
    }
}

void host_report_unsupported(uint32_t number)
{
    struct unid_report *r = report();
    uint32_t i = 0;
    while (i < r->unsupported_count && r->unsupported[i].number != number) {
        i++;
    }
    if (i == UNID_REPORT_CALLS) {
        return;
    }
    if (i == r->unsupported_count) {
        r->unsupported[i].number = number;
        r->unsupported[i].times = 0;
        r->unsupported_count++;
    }
    r->unsupported[i].times++;
}
