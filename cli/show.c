/* show.c - see show.h. */
#include "cli/show.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"

UN_DEFINE_CLEANUP(struct table, table_free)

int show_items(const json_t *items, const char *const *heads, show_item_fn fill, struct un_buf *out)
{
    __attribute__((cleanup(table_freep))) struct table *t = table_new(heads);
    if (!t) {
        return -ENOMEM;
    }
    size_t index;
    const json_t *item;
    json_array_foreach(items, index, item)
    {
        struct show_row row = {{NULL}, {{0}}};
        fill(item, &row);
        table_row(t, row.cell);
    }
    return table_render(t, out);
}

int show_list(const struct cli_call *call, const json_t *list, const char *const *heads,
              show_item_fn fill)
{
    if (call->json) {
        return cli_print_json(list);
    }
    un_autobuf struct un_buf out = {0};
    int rc = show_items(json_object_get(list, "items"), heads, fill, &out);
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

int show_line(struct un_buf *out, const char *label, const char *value)
{
    un_autobuf struct un_buf clean = {0};
    int rc = table_append_clean(&clean, value && *value ? value : "-", false);
    return rc ? rc : un_buf_printf(out, "%-13s%s\n", label, (const char *)clean.data);
}

int show_known(struct un_buf *out, const char *label, const char *value)
{
    return *value ? show_line(out, label, value) : 0;
}

static int by_times_made(const void *a, const void *b)
{
    uint64_t x = api_uint(*(const json_t *const *)a, "times");
    uint64_t y = api_uint(*(const json_t *const *)b, "times");
    return (x < y) - (x > y);
}

int show_calls(const json_t *list, bool by_times, struct un_buf *out)
{
    size_t count = json_array_size(list);
    un_autofree const json_t **calls = calloc(count + 1, sizeof(*calls));
    int rc = calls ? 0 : -ENOMEM;
    for (size_t i = 0; i < count && rc == 0; i++) {
        calls[i] = json_array_get(list, i);
    }
    if (rc == 0 && by_times) {
        qsort(calls, count, sizeof(*calls), by_times_made);
    }
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = un_buf_printf(out, "%s%s %" PRIu64, i > 0 ? ", " : "", api_str(calls[i], "name"),
                           api_uint(calls[i], "times"));
    }
    return rc;
}

void show_missing(const json_t *item)
{
    size_t i;
    const json_t *name;
    json_array_foreach(json_object_get(item, "missing"), i, name)
    {
        cli_warn(
            "there is no function %s: until it is deployed, what goes there becomes a dead letter",
            json_string_value(name));
    }
}

const char *show_ago(const char *time, char *buf)
{
    int64_t then = table_parse_time(time);
    int64_t now = (int64_t)(un_clock_wall_us() / 1000000);
    if (then < 0) {
        snprintf(buf, TABLE_CELL_SIZE, "%s", time);
        return buf;
    }
    char age[TABLE_CELL_SIZE];
    snprintf(buf, TABLE_CELL_SIZE, "%.40s ago",
             table_age(now > then ? (uint64_t)(now - then) : 0, age));
    return buf;
}

const char *show_number(const json_t *obj, const char *key, char *buf)
{
    snprintf(buf, TABLE_CELL_SIZE, "%" PRIu64, api_uint(obj, key));
    return buf;
}

const char *show_digest(const char *digest, char *buf)
{
    const char *hex = strncmp(digest, "sha256:", 7) == 0 ? digest + 7 : digest;
    snprintf(buf, TABLE_CELL_SIZE, "%.*s", SHOW_SHORT_DIGEST, hex);
    return buf;
}

const struct show_phase show_phases[] = {
    {"queue_us", "queue", "waited for its turn"},
    {"shell_us", "shell", "waited for a VM"},
    {"bind_us", "bind", "image and request into the VM"},
    {"start_us", "start", "until the guest's first sign"},
    {"first_byte_us", "first byte", "until the answer began"},
    {"run_us", "run", "until it had run"},
    {"teardown_us", "teardown", "until the VM was gone"},
    {NULL, NULL, NULL},
};

uint64_t show_total_us(const json_t *receipt)
{
    uint64_t total = 0;
    const char *key;
    json_t *value;
    json_t *phases = json_object_get(receipt, "phases");
    json_object_foreach(phases, key, value)
    {
        total += api_uint(phases, key);
    }
    return total;
}

const char *const show_receipt_heads[] = {"ID",      "FUNCTION", ">VERSION", "STARTED", "OUTCOME",
                                          ">STATUS", ">TOTAL",   ">IN",      ">OUT",    NULL};

void show_receipt_row(const json_t *receipt, struct show_row *row)
{
    row->cell[0] = api_str(receipt, "id");
    row->cell[1] = api_str(receipt, "function");
    row->cell[2] = show_number(receipt, "version", row->text[2]);
    row->cell[3] = show_ago(api_str(receipt, "started_at"), row->text[3]);
    row->cell[4] = api_str(receipt, "outcome");
    row->cell[5] = show_number(receipt, "status", row->text[5]);
    row->cell[6] = table_us(show_total_us(receipt), row->text[6]);
    row->cell[7] = table_size(api_uint(receipt, "bytes_in"), row->text[7]);
    row->cell[8] = table_size(api_uint(receipt, "bytes_out"), row->text[8]);
}
