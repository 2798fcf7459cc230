/* runs.c - unictl ps, receipts, receipt, logs: what runs and what ran. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/show.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/id.h"

enum {
    RECEIPTS_DEFAULT = 20,
    RECEIPTS_MAX = 1000000,
    LOGS_DEFAULT = 100,
    LOGS_MAX = 1000,
    LOG_LINE_MAX = 1 << 20 /* a longer line of a log's stream is a broken stream */
};

/* --- ps --------------------------------------------------------------------------------------- */

static const char *const instance_heads[] = {"ID",        "STATE",      "FUNCTION", ">VERSION",
                                             "DRIVER",    ">MEMORY",    ">PID",     "AGE",
                                             ">REQUESTS", "INVOCATION", NULL};

static const char *show_us(uint64_t us, char *buf)
{
    return us < 1000000 ? table_us(us, buf) : table_age(us / 1000000, buf);
}

static void fill_instance(const json_t *i, struct show_row *row)
{
    row->cell[0] = api_str(i, "id");
    row->cell[1] = api_str(i, "state");
    row->cell[2] = api_str(i, "function");
    row->cell[3] = api_uint(i, "version") ? show_number(i, "version", row->text[3]) : "";
    row->cell[4] = api_str(i, "driver");
    snprintf(row->text[5], TABLE_CELL_SIZE, "%" PRIu64 "MiB", api_uint(i, "memory_mib"));
    row->cell[5] = row->text[5];
    row->cell[6] = api_uint(i, "pid") ? show_number(i, "pid", row->text[6]) : "";
    row->cell[7] = show_us(api_uint(i, "age_us"), row->text[7]);
    row->cell[8] = api_uint(i, "in_flight") ? show_number(i, "in_flight", row->text[8]) : "";
    row->cell[9] = api_str(i, "invocation_id");
}

int verb_ps(struct cli_call *call)
{
    un_autojson json_t *list = NULL;
    int status = api_call(call, "GET", "/api/v1/instances", NULL, &list);
    return status != CLI_DONE ? status : show_list(call, list, instance_heads, fill_instance);
}

/* --- receipts --------------------------------------------------------------------------------- */

static int read_limit(const struct cli_call *call, uint64_t otherwise, uint64_t most, uint64_t *ret)
{
    const char *text = args_get(&call->args, "limit");
    struct un_error err = UN_ERROR_INIT;
    *ret = otherwise;
    if (text && args_count(text, 1, most, ret, &err) < 0) {
        return cli_usage(call, "--limit: %s", err.text);
    }
    return CLI_DONE;
}

int verb_receipts(struct cli_call *call)
{
    uint64_t limit = 0;
    const char *name = call->args.operand_count ? call->args.operands[0] : NULL;
    const char *outcome = args_get(&call->args, "status");
    const char *trigger = args_get(&call->args, "trigger");
    const char *since = args_get(&call->args, "since");
    struct un_error err = UN_ERROR_INIT;
    char from[32] = "";
    uint64_t ms;
    un_autofree char *checked = NULL, *path = NULL;
    un_autojson json_t *list = NULL;
    int status = read_limit(call, RECEIPTS_DEFAULT, RECEIPTS_MAX, &limit);
    if (status == CLI_DONE && name) {
        status = api_function_path(call, name, "", &checked);
    }
    if (status != CLI_DONE) {
        return status;
    }
    if (since && args_duration(since, &ms, &err) < 0) {
        return cli_usage(call, "--since: %s", err.text);
    }
    if (since) {
        uint64_t now_ms = un_clock_wall_us() / 1000;
        snprintf(from, sizeof(from), "%" PRIu64, now_ms > ms ? now_ms - ms : 1);
    }
    /* An empty value is no filter. */
    path = since ? api_path("/api/v1/invocations?function=%s&status=%s&trigger=%s&since=%s",
                            name ? name : "", outcome ? outcome : "", trigger ? trigger : "", from)
                 : api_path("/api/v1/invocations?function=%s&status=%s&trigger=%s",
                            name ? name : "", outcome ? outcome : "", trigger ? trigger : "");
    status = api_list(call, path, limit, &list);
    return status != CLI_DONE ? status
                              : show_list(call, list, show_receipt_heads, show_receipt_row);
}

static int add_phases(const json_t *receipt, struct un_buf *out)
{
    static const char *const heads[] = {"PHASE", ">TIME", "", NULL};
    const json_t *times = json_object_get(receipt, "phases");
    struct table *t = table_new(heads);
    if (!t) {
        return -ENOMEM;
    }
    char text[TABLE_CELL_SIZE];
    for (const struct show_phase *p = show_phases; p->key; p++) {
        const char *cells[] = {p->name, table_us(api_uint(times, p->key), text), p->meaning};
        table_row(t, cells);
    }
    const char *total[] = {"total", table_us(show_total_us(receipt), text), " "};
    table_row(t, total);
    int rc = table_render(t, out);
    table_free(t);
    return rc;
}

/* What a library OS reports, and connections to the outside; nothing when there is nothing. */
static int add_outside(const json_t *r, struct un_buf *out)
{
    const json_t *list = json_object_get(r, "unsupported"), *egress = json_object_get(r, "egress");
    const json_t *entry;
    un_autobuf struct un_buf text = {0};
    char in[TABLE_CELL_SIZE], sent[TABLE_CELL_SIZE];
    uint64_t calls = api_uint(r, "calls");
    size_t i;
    int rc = calls ? un_buf_printf(out, "%-13s%" PRIu64 "\n", "Calls:", calls) : 0;
    json_array_foreach(list, i, entry)
    {
        rc = rc ? rc
                : un_buf_printf(&text, "%s%s (%" PRIu64 ")", i ? ", " : "", api_str(entry, "name"),
                                api_uint(entry, "times"));
    }
    rc = rc || !text.len ? rc : show_known(out, "Not there:", (const char *)text.data);
    un_buf_reset(&text);
    rc = rc ? rc : show_calls(json_object_get(r, "calls_made"), true, &text);
    rc = rc || !text.len ? rc : show_known(out, "Made:", (const char *)text.data);
    if (rc || (!api_uint(egress, "connections") && !api_uint(egress, "refused"))) {
        return rc;
    }
    return un_buf_printf(out, "%-13s%" PRIu64 " connections, %" PRIu64 " refused, %s in, %s out\n",
                         "Egress:", api_uint(egress, "connections"), api_uint(egress, "refused"),
                         table_size(api_uint(egress, "bytes_in"), in),
                         table_size(api_uint(egress, "bytes_out"), sent));
}

static int receipt_text(const json_t *r, struct un_buf *out)
{
    char in[TABLE_CELL_SIZE], sent[TABLE_CELL_SIZE], cpu[TABLE_CELL_SIZE], more[256];
    int rc = show_known(out, "Invocation:", api_str(r, "id"));
    snprintf(more, sizeof(more), "%s version %" PRIu64, api_str(r, "function"),
             api_uint(r, "version"));
    rc = rc ? rc : show_known(out, "Function:", more);
    rc = rc ? rc : show_known(out, "Image:", api_str(r, "digest"));
    snprintf(more, sizeof(more), "%s (%" PRIu64 "%s%s)", api_str(r, "outcome"),
             api_uint(r, "status"), *api_str(r, "exit_reason") ? ", " : "",
             api_str(r, "exit_reason"));
    rc = rc ? rc : show_known(out, "Outcome:", more);
    rc = rc ? rc : show_known(out, "Error:", api_str(r, "error"));
    snprintf(more, sizeof(more), "%s by %s, attempt %" PRIu64, api_str(r, "started_at"),
             *api_str(r, "trigger_name") ? api_str(r, "trigger_name") : api_str(r, "trigger"),
             api_uint(r, "attempt"));
    rc = rc ? rc : show_known(out, "Started:", more);
    snprintf(more, sizeof(more), "%s%s", api_str(r, "driver"),
             json_is_true(json_object_get(r, "fresh")) ? ", fresh" : ", put back to its snapshot");
    rc = rc ? rc : show_known(out, "VM:", more);
    snprintf(more, sizeof(more), "%s in, %s out", table_size(api_uint(r, "bytes_in"), in),
             table_size(api_uint(r, "bytes_out"), sent));
    rc = rc ? rc : show_known(out, "Bytes:", more);
    snprintf(more, sizeof(more), "%s CPU, %" PRIu64 " KiB at most, %" PRIu64 " exits",
             table_us(api_uint(r, "cpu_us"), cpu), api_uint(r, "peak_rss_kib"),
             api_uint(r, "exits"));
    rc = rc ? rc : show_known(out, "Used:", more);
    rc = rc ? rc : add_outside(r, out);
    rc = rc ? rc : un_buf_append_str(out, "\n");
    return rc ? rc : add_phases(r, out);
}

int verb_receipt(struct cli_call *call)
{
    const char *id = call->args.operands[0];
    if (!un_id_valid(id)) {
        return cli_usage(call, "'%s' is no invocation's id: see unictl receipts", id);
    }
    un_autofree char *path = api_path("/api/v1/invocations/%s", id);
    un_autojson json_t *receipt = NULL;
    int status = api_call(call, "GET", path, NULL, &receipt);
    if (status != CLI_DONE || call->json) {
        return status != CLI_DONE ? status : cli_print_json(receipt);
    }
    un_autobuf struct un_buf out = {0};
    int rc = json_is_object(json_object_get(receipt, "phases"))
                 ? receipt_text(receipt, &out)
                 : un_buf_printf(&out, "%s is accepted and has not run yet\n", id);
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

/* --- logs ------------------------------------------------------------------------------------- */

struct log_stream {
    const struct cli_call *call;
    bool clean; /* for a terminal */
    struct un_buf pending;
};

static int print_log_line(const struct log_stream *s, const json_t *entry)
{
    un_autobuf struct un_buf out = {0};
    int rc;
    if (s->call->json) {
        un_autofree char *text = un_json_text(entry);
        rc = text ? un_buf_printf(&out, "%s\n", text) : -ENOMEM;
    } else {
        const char *id = api_str(entry, "invocation_id");
        rc = un_buf_printf(&out, "%s  %s  ", api_str(entry, "at"), *id ? id : "-");
        const char *text = api_str(entry, "text");
        rc = rc         ? rc
             : s->clean ? table_append_clean(&out, text, false)
                        : un_buf_append_str(&out, text);
        rc = rc ? rc : un_buf_append_str(&out, "\n");
    }
    return rc ? rc : cli_write(out.data, out.len, NULL);
}

/* Prints the whole lines that have come of the stream. */
static int on_log_data(void *arg, const struct client_response *r, const void *data, size_t len,
                       struct un_error *err)
{
    struct log_stream *s = arg;
    if (un_buf_append(&s->pending, data, len) < 0) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    for (uint8_t *end; s->pending.len && (end = memchr(s->pending.data, '\n', s->pending.len));) {
        size_t used = (size_t)(end - s->pending.data) + 1;
        un_autojson json_t *entry = NULL;
        /* An empty line keeps the connection alive. */
        if (used > 1 && un_json_parse(s->pending.data, used - 1, &entry, err) < 0) {
            return un_error_context(err, "the daemon's log stream is malformed");
        }
        int rc = entry ? print_log_line(s, entry) : 0;
        if (rc < 0) {
            return un_error_set(err, rc, "cannot write to standard output: %s", strerror(-rc));
        }
        un_buf_consume(&s->pending, used);
    }
    if (fflush(stdout) != 0) {
        return un_error_set(err, -errno, "cannot write to standard output: %s", strerror(errno));
    }
    return s->pending.len > LOG_LINE_MAX ? un_error_set(err, -EPROTO, "a log line without an end")
                                         : 0;
}

static int follow_logs(struct log_stream *s, const char *path)
{
    struct client_request req = {.method = "GET", .path = path, .on_data = on_log_data, .arg = s};
    un_autoresponse struct client_response r = {0};
    struct un_error err = UN_ERROR_INIT;
    int rc = client_send(s->call->client, &req, &r, &err);
    un_buf_done(&s->pending);
    if (rc == -EPIPE) {
        return cli_fail_output(rc);
    }
    if (rc < 0) {
        return cli_fail_send(s->call, rc, &err);
    }
    return r.status >= 300 ? cli_fail_response(s->call, &r) : CLI_DONE;
}

static int show_logs(struct log_stream *s, const char *path)
{
    un_autojson json_t *list = NULL;
    int status = api_call(s->call, "GET", path, NULL, &list);
    size_t index;
    const json_t *entry;
    if (status != CLI_DONE) {
        return status;
    }
    json_array_foreach(json_object_get(list, "items"), index, entry)
    {
        int rc = print_log_line(s, entry);
        if (rc < 0) {
            return cli_fail_output(rc);
        }
    }
    return CLI_DONE;
}

int verb_logs(struct cli_call *call)
{
    struct log_stream s = {.call = call, .clean = isatty(STDOUT_FILENO) == 1};
    bool follow = args_has(&call->args, "follow");
    uint64_t limit = 0;
    un_autofree char *path = NULL;
    char rest[64];
    int status = read_limit(call, LOGS_DEFAULT, LOGS_MAX, &limit);
    snprintf(rest, sizeof(rest), "/logs?limit=%" PRIu64 "%s", limit, follow ? "&follow=1" : "");
    status =
        status == CLI_DONE ? api_function_path(call, call->args.operands[0], rest, &path) : status;
    if (status != CLI_DONE) {
        return status;
    }
    return follow ? follow_logs(&s, path) : show_logs(&s, path);
}
