/* bench.c - unictl bench: sends requests to a function one after the other, and shows where
 * their time went: the phases as the receipts tell them, and the time to first byte as the client
 * sees it.
 *
 * It measures latency on one kept connection, not throughput: nothing else waits meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/collect/spread.h"
#include "cli/show.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/id.h"

enum {
    REQUESTS_DEFAULT = 200,
    REQUESTS_MAX = 10000, /* all their receipts are held at once */
    WARMUP_DEFAULT = 10,
    DATA_MAX = 64 * 1024 * 1024, /* the body is kept in memory, to be sent again and again */
    ANSWER_MS = 600000,
    RECEIPTS_US = 5000000, /* receipts are written in batches, some 100 ms later */
    RECEIPTS_RETRY_MS = 25,
    PHASES_MAX = 16
};

struct bench {
    const struct cli_call *call;
    char *name; /* without the qualifier */
    char *path;
    struct un_buf data;
    uint64_t requests, warmup;
    char (*ids)[UN_ID_SIZE]; /* of the answers, ascending */
    uint64_t *client_us;     /* to the first byte; as many as `requests` */
    json_t *receipts;        /* of those answers, in any order */
};

static void bench_done(struct bench *b)
{
    free(b->name);
    free(b->path);
    un_buf_done(&b->data);
    free(b->ids);
    free(b->client_us);
    json_decref(b->receipts);
}
#define autobench __attribute__((cleanup(bench_done)))

/* --- the command line ------------------------------------------------------------------------- */

static int read_count(const struct cli_call *call, const char *option, uint64_t least,
                      uint64_t *ret)
{
    const char *text = args_get(&call->args, option);
    struct un_error err = UN_ERROR_INIT;
    if (text && args_count(text, least, REQUESTS_MAX, ret, &err) < 0) {
        return cli_usage(call, "--%s: %s", option, err.text);
    }
    return CLI_DONE;
}

static int read_file(const char *name, struct un_buf *ret)
{
    un_autoclose int fd = open(name, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : 1;
    while (n > 0 && ret->len <= DATA_MAX) {
        char piece[16384];
        n = read(fd, piece, sizeof(piece));
        if (n > 0 && un_buf_append(ret, piece, (size_t)n) < 0) {
            return cli_fail(CLI_REFUSED, "out of memory");
        }
    }
    if (n < 0) {
        return cli_fail(CLI_REFUSED, "cannot read %s: %s", name, strerror(errno));
    }
    return n > 0 ? cli_fail(CLI_REFUSED, "%s is larger than %d MiB, which bench keeps in memory",
                            name, DATA_MAX >> 20)
                 : CLI_DONE;
}

static int read_data(struct bench *b)
{
    const char *data = args_get(&b->call->args, "data");
    if (!data) {
        return CLI_DONE;
    }
    if (strcmp(data, "-") == 0 || strcmp(data, "@-") == 0) {
        return read_file("/dev/stdin", &b->data);
    }
    if (*data == '@') {
        return read_file(data + 1, &b->data);
    }
    return un_buf_append_str(&b->data, data) < 0 ? cli_fail(CLI_REFUSED, "out of memory")
                                                 : CLI_DONE;
}

/* "NAME[:QUALIFIER]" to the function's name and the gateway's path. */
static int read_target(struct bench *b)
{
    const char *target = b->call->args.operands[0];
    size_t len = strcspn(target, ":");
    un_autofree char *checked = NULL;
    if (target[len] && !target[len + 1]) {
        return cli_usage(b->call, "'%s' has no version or alias behind its colon", target);
    }
    b->name = strndup(target, len);
    b->path = target[len] ? api_path("/fn/%s:%s", b->name, target + len + 1)
                          : api_path("/fn/%s", b->name);
    return b->name && b->path ? api_function_path(b->call, b->name, "", &checked)
                              : cli_fail(CLI_REFUSED, "out of memory");
}

static int read_words(struct bench *b)
{
    b->requests = REQUESTS_DEFAULT;
    b->warmup = WARMUP_DEFAULT;
    int status = read_target(b);
    status = status == CLI_DONE ? read_count(b->call, "requests", 1, &b->requests) : status;
    status = status == CLI_DONE ? read_count(b->call, "warmup", 0, &b->warmup) : status;
    status = status == CLI_DONE ? read_data(b) : status;
    if (status != CLI_DONE) {
        return status;
    }
    b->ids = calloc(b->requests, sizeof(*b->ids));
    b->client_us = calloc(b->requests, sizeof(*b->client_us));
    return b->ids && b->client_us ? CLI_DONE : cli_fail(CLI_REFUSED, "out of memory");
}

/* --- requests --------------------------------------------------------------------------------- */

static int drop_data(void *arg, const struct client_response *r, const void *data, size_t len,
                     struct un_error *err)
{
    return 0;
}

/* One request. Without `ret_us` it is one of the warm-up. */
static int ask_once(struct bench *b, char *ret_id, uint64_t *ret_us)
{
    bool body = args_has(&b->call->args, "data");
    struct client_request req = {.method = body ? "POST" : "GET",
                                 .path = b->path,
                                 .data = body ? (b->data.len ? (void *)b->data.data : "") : NULL,
                                 .data_len = b->data.len,
                                 .timeout_ms = ANSWER_MS,
                                 .keep_alive = true,
                                 .on_data = drop_data};
    un_autoresponse struct client_response r = {0};
    struct un_error err = UN_ERROR_INIT;
    int rc = client_send(b->call->client, &req, &r, &err);
    if (rc < 0) {
        return cli_fail_send(b->call, rc, &err);
    }
    if (client_is_problem(&r)) {
        return cli_fail_response(b->call, &r);
    }
    if (r.status >= 500) {
        return cli_fail(CLI_FUNCTION_FAILED, "the function answered %ld", r.status);
    }
    un_autofree char *id = client_header(&r, "X-Unid-Invocation-Id");
    if (!id || !un_id_valid(id)) {
        return cli_fail(CLI_REFUSED, "the answer names no invocation: is %s unid?",
                        client_host(b->call->client));
    }
    if (ret_us) {
        memcpy(ret_id, id, UN_ID_SIZE);
        *ret_us = r.first_byte_us;
    }
    return CLI_DONE;
}

static int ask_all(struct bench *b)
{
    int status = CLI_DONE;
    for (uint64_t i = 0; i < b->warmup && status == CLI_DONE; i++) {
        status = ask_once(b, NULL, NULL);
    }
    for (uint64_t i = 0; i < b->requests && status == CLI_DONE; i++) {
        status = ask_once(b, b->ids[i], &b->client_us[i]);
    }
    return status;
}

/* --- receipts --------------------------------------------------------------------------------- */

static int compare_ids(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Keeps those of `list` that belong to our answers. */
static int take_receipts(struct bench *b, const json_t *list)
{
    size_t index;
    json_t *receipt;
    json_array_clear(b->receipts);
    json_array_foreach(json_object_get(list, "items"), index, receipt)
    {
        const char *id = api_str(receipt, "id");
        if (un_id_valid(id) && bsearch(id, b->ids, b->requests, sizeof(*b->ids), compare_ids) &&
            json_array_append(b->receipts, receipt) < 0) {
            return cli_fail(CLI_REFUSED, "out of memory");
        }
    }
    return CLI_DONE;
}

/* Whether the listing, newest first, reaches back to before our first answer. */
static bool reaches_back(const struct bench *b, const json_t *list)
{
    const json_t *items = json_object_get(list, "items");
    const json_t *oldest = json_array_get(items, json_array_size(items) - 1);
    return !oldest || strcmp(api_str(oldest, "id"), b->ids[0]) < 0 || !*api_str(list, "next");
}

/* Lists until each answer has its receipt; whoever else calls the function makes the list longer.
 */
static int find_receipts(struct bench *b)
{
    const struct timespec pause = {.tv_nsec = RECEIPTS_RETRY_MS * 1000000L};
    uint64_t limit = b->requests, end = un_clock_mono_us() + RECEIPTS_US;
    un_autofree char *path = api_path("/api/v1/invocations?function=%s", b->name);
    qsort(b->ids, b->requests, sizeof(*b->ids), compare_ids);
    b->receipts = json_array();
    if (!b->receipts) {
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    for (;;) {
        un_autojson json_t *list = NULL;
        int status = api_list(b->call, path, limit, &list);
        status = status == CLI_DONE ? take_receipts(b, list) : status;
        bool late = un_clock_mono_us() > end;
        if (status != CLI_DONE || json_array_size(b->receipts) == b->requests ||
            (late && json_array_size(b->receipts))) {
            return status;
        }
        if (late) {
            return cli_fail(CLI_TIMED_OUT, "the daemon has written no receipts of these requests");
        }
        if (!reaches_back(b, list)) {
            limit *= 2;
        }
        nanosleep(&pause, NULL);
    }
}

/* --- what came out ---------------------------------------------------------------------------- */

struct line {
    const char *key, *name, *meaning;
    struct spread spread;
};

struct outcome {
    struct line lines[PHASES_MAX];
    size_t count;
    size_t fresh;
};

/* Everything from admission to the answer's first byte. */
static uint64_t to_first_byte_us(const json_t *receipt)
{
    const json_t *times = json_object_get(receipt, "phases");
    uint64_t sum = 0;
    for (const struct show_phase *p = show_phases; p->key; p++) {
        sum += api_uint(times, p->key);
        if (strcmp(p->key, "first_byte_us") == 0) {
            break;
        }
    }
    return sum;
}

/* Adds the line of one phase, or with a function instead what it makes of each receipt. */
static void add_line(const struct bench *b, struct outcome *out, struct line line,
                     uint64_t (*of)(const json_t *receipt))
{
    /* `client_us` is spread already, so it can be overwritten. */
    uint64_t *values = b->client_us;
    size_t index;
    const json_t *receipt;
    json_array_foreach(b->receipts, index, receipt)
    {
        values[index] = of ? of(receipt) : api_uint(json_object_get(receipt, "phases"), line.key);
    }
    line.spread = spread_of(values, json_array_size(b->receipts));
    if (out->count < PHASES_MAX) {
        out->lines[out->count++] = line;
    }
}

static void evaluate(const struct bench *b, struct outcome *out)
{
    struct line client = {"client_first_byte_us", "at the client", "request sent to first byte",
                          spread_of(b->client_us, b->requests)};
    size_t index;
    const json_t *receipt;
    for (const struct show_phase *p = show_phases; p->key; p++) {
        add_line(b, out, (struct line){p->key, p->name, p->meaning, {0}}, NULL);
    }
    add_line(b, out, (struct line){"total_us", "total", "accepted until the VM was gone", {0}},
             show_total_us);
    add_line(b, out,
             (struct line){"to_first_byte_us", "to first byte", "accepted to first byte", {0}},
             to_first_byte_us);
    if (out->count < PHASES_MAX) {
        out->lines[out->count++] = client;
    }
    json_array_foreach(b->receipts, index, receipt)
    {
        out->fresh += json_is_true(json_object_get(receipt, "fresh"));
    }
}

static int print_json(const struct bench *b, const struct outcome *o, const json_t *first)
{
    un_autojson json_t *times = json_object();
    for (size_t i = 0; i < o->count; i++) {
        const struct spread *s = &o->lines[i].spread;
        json_t *line =
            json_pack("{s:I,s:I,s:I,s:I}", "p50", (json_int_t)s->p50, "p90", (json_int_t)s->p90,
                      "p99", (json_int_t)s->p99, "max", (json_int_t)s->max);
        if (json_object_set_new(times, o->lines[i].key, line) < 0) {
            return cli_fail_output(-ENOMEM);
        }
    }
    un_autojson json_t *doc = json_pack(
        "{s:s,s:I,s:s,s:I,s:I,s:I,s:I,s:O}", "function", b->name, "version",
        (json_int_t)api_uint(first, "version"), "driver", api_str(first, "driver"), "requests",
        (json_int_t)b->requests, "warmup", (json_int_t)b->warmup, "receipts",
        (json_int_t)json_array_size(b->receipts), "fresh", (json_int_t)o->fresh, "times", times);
    return doc ? cli_print_json(doc) : cli_fail_output(-ENOMEM);
}

static int render(const struct outcome *o, struct un_buf *out)
{
    static const char *const heads[] = {"PHASE", ">P50", ">P90", ">P99", ">MAX", "MEANING", NULL};
    struct table *t = table_new(heads);
    if (!t) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < o->count; i++) {
        const struct line *line = &o->lines[i];
        char text[4][TABLE_CELL_SIZE];
        const char *cells[] = {line->name,
                               table_us(line->spread.p50, text[0]),
                               table_us(line->spread.p90, text[1]),
                               table_us(line->spread.p99, text[2]),
                               table_us(line->spread.max, text[3]),
                               line->meaning};
        table_row(t, cells);
    }
    int rc = table_render(t, out);
    table_free(t);
    return rc;
}

static int print_text(const struct bench *b, const struct outcome *o, const json_t *first)
{
    un_autobuf struct un_buf text = {0}, clean = {0};
    size_t receipts = json_array_size(b->receipts);
    int rc = un_buf_printf(&text,
                           "%s version %" PRIu64 ", driver %s: %" PRIu64
                           " requests one after the other, %zu of %zu in a fresh VM\n\n",
                           b->name, api_uint(first, "version"), api_str(first, "driver"),
                           b->requests, o->fresh, receipts);
    rc = rc ? rc : table_append_clean(&clean, (const char *)text.data, true);
    rc = rc ? rc : render(o, &clean);
    if (rc == 0 && receipts < b->requests) {
        rc = un_buf_printf(&clean, "\n%" PRIu64 " receipts did not come in time\n",
                           b->requests - receipts);
    }
    return rc < 0 ? cli_fail_output(rc) : cli_print(&clean);
}

int verb_bench(struct cli_call *call)
{
    autobench struct bench b = {.call = call};
    struct outcome outcome = {.count = 0};
    int status = read_words(&b);
    status = status == CLI_DONE ? ask_all(&b) : status;
    status = status == CLI_DONE ? find_receipts(&b) : status;
    if (status != CLI_DONE) {
        return status;
    }
    evaluate(&b, &outcome);
    const json_t *first = json_array_get(b.receipts, 0);
    return call->json ? print_json(&b, &outcome, first) : print_text(&b, &outcome, first);
}
