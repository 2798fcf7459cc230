/* fuzz_guest_response.c - a guest that writes anything at any time: the channel keeps its contract
 * with the user, and the head parser gives out nothing that could split an answer.
 *
 * Input: records of an action byte and its operands.
 *     'w' offset (3 bytes) length (1) data     the guest writes into the shared pages
 *     'c' op response_len head_len log_len     the guest fills the call block (1, 4, 4, 4 bytes),
 * raises seq and rings 'r'                                      rings 'n' the host puts the request
 *     'i' length (1)                           the user gives input
 *     'o'                                      the user answers output
 *     'a' result (4 bytes)                     the user answers what was asked
 *     'v' bits (1)                             connections become ready, and others not
 *     'e'                                      the VM ends
 *     'x'                                      the loop delivers the exit, when due
 * The whole input is also parsed as a head.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/bytes.h"
#include "common/limits.h"
#include "hypervisor/channel.h"

#define SHARED_SIZE (UNID_CHANNEL_END - UNID_BOOT_ADDR)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    uint8_t shared[SHARED_SIZE] __attribute__((aligned(4096)));
    struct hv_channel ch;
    unsigned heads, exits, dues, ends, out;
} f;

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void check_head(const struct hv_head *head)
{
    must(head->status >= 200 && head->status <= 599);
    for (size_t i = 0; i < head->field_count; i++) {
        const char *name = head->fields[i].name;
        must(name[0] != '\0' && strcspn(name, "\r\n: \t") == strlen(name));
        must(strcspn(head->fields[i].value, "\r\n") == strlen(head->fields[i].value));
        must(strcasecmp(name, "content-length") && strcasecmp(name, "transfer-encoding"));
    }
}

static void on_input_wanted(void *arg, size_t room)
{
    must(f.exits == 0 && room > 0 && room <= UNID_REQUEST_SIZE);
}

static void on_head(void *arg, const struct hv_head *head)
{
    must(++f.heads == 1 && f.exits == 0);
    check_head(head);
}

static void on_output(void *arg, const void *data, size_t len, const struct hv_exit *last)
{
    const uint8_t *p = data, *window = f.shared + (UNID_RESPONSE_ADDR - UNID_BOOT_ADDR);
    must(f.heads == 1 && f.exits == 0 && f.out == 0 && len > 0);
    must(p >= window && p + len <= window + UNID_RESPONSE_SIZE);
    must(!last == (f.ends == 0));
    f.out = 1;
}

static void on_log(void *arg, const void *data, size_t len)
{
    must(f.exits == 0 && len > 0 && len <= UNID_LOG_SIZE);
}

static void on_ask(void *arg, const struct hv_ask *ask)
{
    const uint8_t *p = ask->data, *window = f.shared + (UNID_NET_ADDR - UNID_BOOT_ADDR);
    must(f.exits == 0 && ask->op >= UNID_OP_WAIT && ask->op <= UNID_OP_NET_CLOSE);
    must(ask->handle < 64 && ask->len <= UNID_NET_SIZE);
    if (ask->op == UNID_OP_NET_SEND) {
        must(p == window);
    } else if (p) {
        must(ask->len <= LIMIT_NET_NAME_BYTES && p[ask->len] == '\0');
    }
}

static void on_exit_event(void *arg, const struct hv_exit *why)
{
    must(++f.exits == 1 && f.dues == 1 && memchr(why->detail, '\0', sizeof(why->detail)));
}

static void ended(void *arg, const struct hv_exit *why)
{
    must(++f.ends == 1);
}

static void exit_due(void *arg)
{
    must(++f.dues == 1);
}

static const struct hv_vm_events events = {.on_input_wanted = on_input_wanted,
                                           .on_head = on_head,
                                           .on_output = on_output,
                                           .on_log = on_log,
                                           .on_ask = on_ask,
                                           .on_exit = on_exit_event};

static void guest_write(struct un_reader *r)
{
    size_t at = un_read_u16le(r);
    at |= (size_t)un_read_u8(r) << 16;
    size_t len = un_read_u8(r);
    const uint8_t *from = un_read_bytes(r, len);
    if (from && at <= SHARED_SIZE - len) {
        memcpy(f.shared + at, from, len);
    }
}

static void guest_call(struct un_reader *r)
{
    struct unid_call *c = (void *)(f.shared + (UNID_CALL_ADDR - UNID_BOOT_ADDR));
    c->op = un_read_u8(r);
    c->response_len = un_read_u32le(r);
    c->head_len = un_read_u32le(r);
    c->log_len = un_read_u32le(r);
    c->seq++;
    hv_channel_ring(&f.ch);
}

static void host_act(uint8_t action, struct un_reader *r)
{
    static const uint8_t bytes[256], received[UNID_NET_SIZE];
    struct hv_run_spec spec = {.request_head = "GET /\r\n", .request_head_len = 7};
    struct hv_exit why = {.kind = HV_EXIT_LOST};
    switch (action) {
    case 'n':
        hv_channel_put_request(&f.ch, &spec, NULL);
        break;
    case 'i':
        hv_channel_input(&f.ch, bytes, un_read_u8(r), false);
        break;
    case 'o':
        f.out = 0;
        hv_channel_output_done(&f.ch);
        break;
    case 'a':
        hv_channel_answer(
            &f.ch, &(struct hv_answer){.result = (int32_t)un_read_u32le(r), .data = received});
        break;
    case 'v':
        hv_channel_net_ready(&f.ch, un_read_u8(r), ~(uint64_t)r->pos);
        break;
    case 'e':
        hv_channel_end(&f.ch, &why);
        break;
    default:
        hv_channel_exit(&f.ch);
        break;
    }
}

static void fuzz_channel(const uint8_t *data, size_t size)
{
    memset(&f, 0, sizeof(f));
    hv_channel_init(&f.ch, f.shared, &events, NULL);
    f.ch.ended = ended;
    f.ch.exit_due = exit_due;
    struct un_reader r = un_reader_of(data, size);
    while (!r.failed && r.pos < r.len) {
        uint8_t action = un_read_u8(&r);
        if (action == 'w') {
            guest_write(&r);
        } else if (action == 'c') {
            guest_call(&r);
        } else if (action == 'r') {
            hv_channel_ring(&f.ch);
        } else {
            host_act(action, &r);
        }
    }
    struct unid_report report;
    hv_channel_report(&f.ch, &report);
    must(report.unsupported_count <= UNID_REPORT_CALLS);
    hv_channel_done(&f.ch);
}

static void fuzz_head(const uint8_t *data, size_t size)
{
    struct hv_field fields[LIMIT_HTTP_FIELDS];
    struct hv_head head;
    char *text = malloc(size + 1);
    if (!text) {
        return;
    }
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    if (hv_head_parse(text, size, fields, sizeof(fields) / sizeof(fields[0]), &head, NULL) == 0) {
        check_head(&head);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_head(data, size);
    fuzz_channel(data, size);
    return 0;
}
